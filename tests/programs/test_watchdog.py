"""The dead man's watchdog gets its heartbeat from what is alive and well, and from nothing else."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from poledata import config, db
from poledata.archive import run
from poledata.archive.pass_state import Watcher
from poledata.cli import background
from poledata.notices.send import configured_channels
from tests.helpers.bugs import with_bug
from tests.helpers.halted import HaltedPass, needs_strace, ready_world
from tests.helpers.link import BAD_NAME, put_bad_name, write_env
from tests.helpers.notice_board import NoticeBoard
from tests.helpers.post import WORD, Receiver, wait_for
from tests.helpers.stations import another_pass
from tests.helpers.world import World

DEFECT = with_bug(run, "_Pass._count_what_is_left", "True")


@pytest.fixture
def station(world: World, web: Receiver) -> World:
    """P01 and S01 in use; a web server and a command are the watchdog."""
    ready_world(world)
    write_env(
        world,
        POLE_HEARTBEAT_URL=f"http://127.0.0.1:{web.port}/ping/{WORD}",
        POLE_HEARTBEAT_COMMAND=f'sh -c "echo beat >>{world.root}/beats"',
    )
    return world


def beats(world: World, web: Receiver) -> int:
    by_command = world.root / "beats"
    lines = by_command.read_text().splitlines() if by_command.exists() else []
    assert len(lines) == len(web.beats)
    return len(lines)


def test_a_pass_that_ended_with_0_or_1_gives_a_heartbeat(station: World, web: Receiver) -> None:
    """One that has nothing to do, one that archives, one after which a person should look."""
    station.run_pass(check=0)
    station.put("a.g3")
    station.run_pass(check=0)
    put_bad_name(station)
    station.run_pass(check=1)
    assert beats(station, web) == 3
    (station.buffer / BAD_NAME).unlink()
    station.run_pass(check=0)


def test_a_pass_that_finds_another_at_work_gives_none(station: World, web: Receiver) -> None:
    """Else a pass that hangs would be kept alive by the next ones."""
    with another_pass(station):
        station.run_pass(check=0)
    assert beats(station, web) == 0


def test_a_pass_that_ended_otherwise_gives_none(station: World, web: Receiver) -> None:
    """2: nothing was touched; 3: a defect of the program; and so no command does."""
    text = station.config_path.read_text()
    station.configure(SetleTime="1 s")
    station.run_pass(check=2)
    station.config_path.write_text(text)
    station.run_pass(check=3, prefix=DEFECT)
    station.run_pass("status", check=0)
    station.run_pass("--dry-run", check=0)
    station.run_pass("pause", "--why", "x", check=0)
    station.run_pass("resume", check=0)
    assert beats(station, web) == 0


def test_though_every_pass_ends_by_a_defect_people_hear_of_it(
    station: World, web: Receiver
) -> None:
    """Of the bug at once; of the pass with the next one; it is critical when it repeats."""
    environ = {"POLE_NOTIFY_URLS": web.http_url}
    for name in ("a.g3", "b.g3", "c.g3"):
        station.put(name)
        station.run_pass(check=3, prefix=DEFECT, env=environ)
    assert web.subjects() == [
        "[pole-data] CRITICAL the pass: the program has a bug",
        "[pole-data] WARNING data_manager: the last pass was killed or crashed",
        "[pole-data] CRITICAL data_manager: worse: the last pass was killed or crashed",
    ]
    assert "was ended by a fault; the log says which" in web.got[1].body
    station.run_pass(check=0)


@needs_strace
def test_an_interrupted_pass_gives_none(station: World, web: Receiver) -> None:
    """130: SIGTERM in mid-copy."""
    station.put("a.g3")
    halted = HaltedPass(station, "linkat", [station.disks["P01"] / ".incoming"])
    halted.signal(signal.SIGTERM)
    halted.go_on(check=130)
    assert beats(station, web) == 0
    station.run_pass(check=0)


@pytest.mark.parametrize("mood", ["500", "slow"])
def test_a_watchdog_that_does_not_answer_is_only_said(
    station: World, web: Receiver, mood: str
) -> None:
    """The exit code is the pass's own; it is in the log, without its secret."""
    web.mood = mood
    station.put("a.g3")
    station.run_pass(check=0)
    assert station.waiting() == set()
    assert "the watchdog got no heartbeat: POLE_HEARTBEAT_URL: " in station.log()
    assert WORD not in station.log()


# --- beside a long pass -----------------------------------------------------------------------


def test_while_bytes_move_the_watchdog_is_fed_and_the_lock_is_young(
    station: World, web: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each minute and each five, here a few thousand times faster; none once it stands still."""
    monkeypatch.setattr(background, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(background, "BEAT_EVERY_S", 0.06)
    got_on = threading.Semaphore(0)
    loaded = config.load(station.config_path, {"POLE_NOTIFY_URLS": web.http_url})
    with (
        db.connect(station.db_path) as conn,
        background.beside(loaded, got_on.release, Watcher()) as watching,
    ):
        while len(web.beats) < 3:
            watching.moved("P01", "a.g3", 1)
            assert got_on.acquire(timeout=60)
        board = NoticeBoard(conn, configured_channels(loaded.secrets))
        _has_looked(board, web, "P01")
        before = len(web.beats)
        _has_looked(board, web, "P02")
        assert len(web.beats) == before
        assert not got_on.acquire(blocking=False)


def _has_looked(board: NoticeBoard, web: Receiver, label: str) -> None:
    """The companion sends what it is told: it has looked since."""
    before = len(web.got)
    board.tell("disk-error", label, "It returns errors.")
    wait_for(lambda: len(web.got) > before)


def test_what_is_told_in_a_long_pass_is_sent_while_it_works(
    station: World, web: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass may take hours."""
    monkeypatch.setattr(background, "LOOK_EVERY_S", 0.02)
    loaded = config.load(station.config_path, {"POLE_NOTIFY_URLS": web.http_url})
    with (
        db.connect(station.db_path) as conn,
        background.beside(loaded, lambda: None, Watcher()),
    ):
        board = NoticeBoard(conn, configured_channels(loaded.secrets))
        board.tell("disk-error", "P01", "It returns errors.")
        wait_for(lambda: web.got)
        board.settle(["disk-error"], "P01")
        wait_for(lambda: len(web.got) == 2)
    assert [mail.subject.split()[1] for mail in web.got] == ["WARNING", "resolved"]
    assert Path(station.root, "beats").exists() is False  # no byte has moved
