"""The link is down in every real way: archiving goes on, nothing is lost, nobody is told twice."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import config, db
from poledata.cli.common import state_lines
from poledata.formatting import seconds, utc
from poledata.models import Channel, Message, Severity
from poledata.notices import delivery_queue, send_child
from poledata.notices.send import SEND_TIMEOUT_S, configured_channels
from tests.helpers.halted import ready_world
from tests.helpers.link import (
    BAD_NAME,
    DAY_S,
    HOUR_S,
    MINUTE_S,
    children,
    put_bad_name,
    rested,
    take_away,
)
from tests.helpers.notice_board import NoticeBoard
from tests.helpers.people import People, Story, heads, paragraph
from tests.helpers.post import WORD, Receiver, black_hole, refused_port, wait_for
from tests.helpers.world import REPO, World

PATIENT = "?rto=100&cto=100"  # apprise itself gives up a server after 4 s


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def station(world: World) -> World:
    """P01 and S01 in use."""
    return ready_world(world)


@pytest.fixture
def story(station: World, people: People) -> Story:
    return Story(station, people)


def queue(world: World, channel: str) -> list[sqlite3.Row]:
    """What a channel was not told yet, or not the end of."""
    return world.sql(
        "SELECT n.kind, n.key, d.attempts, d.last_error, d.sent_at FROM deliveries d "
        "JOIN notices n ON n.id = d.notice_id WHERE channel = ? AND end_sent_at IS NULL "
        "ORDER BY n.opened_at, n.id",
        channel,
    )


# --- the link is down -----------------------------------------------------------------------


@contextmanager
def link_down(how: str, web: Receiver) -> Iterator[str]:
    """The URL of a channel that does not work, in this way."""
    web.mood = {"500": "500", "slow": "slow"}.get(how, "ok")
    with ExitStack() as stack:
        if how in ("500", "slow"):
            yield web.http_url
        elif how == "refused":
            yield f"json://user:{WORD}@127.0.0.1:{refused_port()}/{WORD}"
        else:
            yield f"json://user:{WORD}@127.0.0.1:{stack.enter_context(black_hole())}/{WORD}"
    web.mood = "ok"


@pytest.mark.parametrize("how", ["refused", "black hole", "500", "slow"])
def test_a_channel_that_fails_delays_no_file_and_no_other_channel(
    story: Story, web: Receiver, how: str
) -> None:
    """The pass archives and exits as without channels; the mail goes; the rest is queued, said,
    and sent once the link is back."""
    world = story.world
    world.put("a.g3")
    put_bad_name(world)
    with link_down(how, web) as url:
        both = {"POLE_NOTIFY_URLS": f"{story.people.mail.smtp_url} {url}"}
        (mail,) = story.news(check=1, env=both)
        assert heads(mail, "NEW") == {"WARNING bad-name"}
        assert world.archived("P01") == world.archived("S01") == {"seed.g3", "a.g3"}
        (row,) = queue(world, "notify-2-json")
        assert (row["kind"], row["attempts"], row["sent_at"]) == ("bad-name", 1, None)
        assert row["last_error"] and WORD not in row["last_error"]
        status = story.run("status", env=both, check=0).out
        said = re.escape(row["last_error"])
        assert re.search(
            rf"NOT SENT: 1 notice through notify-2-json \(tried 1 time: {said}\)", status
        )
        (waiting,) = story.run("status", "--json", env=both, check=0).json()["undelivered"]
        assert (waiting["channel"], waiting["notices"], waiting["attempts"]) == (
            "notify-2-json",
            1,
            1,
        )
        story.quiet(check=1, env=both)
        assert queue(world, "notify-2-json")[0]["attempts"] == 1  # it rests
    rested(world)
    both = {"POLE_NOTIFY_URLS": f"{story.people.mail.smtp_url} {web.http_url}"}
    story.quiet(check=1, env=both)
    assert web.subjects() == [mail.subject]
    assert "NOT SENT" not in story.run("status", env=both, check=0).out


@pytest.mark.parametrize(
    "how", ["fails", "is not there", pytest.param("hangs", marks=pytest.mark.waits)]
)
def test_a_pager_that_does_not_answer_delays_a_pass_by_its_time_out_at_most(
    story: Story, tmp_path: Path, how: str
) -> None:
    """Meanwhile the lock is free: another pass archives. The mail goes; the page is queued."""
    world, pid = story.world, tmp_path / "pid"
    hangs = f"sh -c 'echo $$ >{pid}; exec sleep 600'"
    pager = {"fails": "sh -c 'exit 7'", "is not there": "/nowhere/page", "hangs": hangs}[how]
    environ = {**story.people.environ, "POLE_PAGER_COMMAND": pager}
    take_away(world, "S01", "S02")
    world.put("a.g3")
    began_s = time.monotonic()
    process = world.start("data_manager.py", env=environ)
    if how == "hangs":
        wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
        assert world.archived("P01") == {"seed.g3", "a.g3"}
        world.put("b.g3")
        world.run_pass(check=1, env=environ)
        assert world.archived("P01") == {"seed.g3", "a.g3", "b.g3"}
        assert process.poll() is None  # the first one still sends
    assert process.wait(timeout=SEND_TIMEOUT_S + 60) == 1
    took_s = time.monotonic() - began_s
    assert took_s < SEND_TIMEOUT_S + 20, took_s
    assert {row["last_error"] for row in queue(world, "pager-command")} == {
        {
            "fails": "exit status 7",
            "is not there": "it can't be started (No such file or directory)",
            "hangs": f"no answer within {SEND_TIMEOUT_S:.0f} s",
        }[how]
    }
    assert {row["last_error"] for row in queue(world, "notify-1-mailto")} == {None}
    assert len(story.people.mails) == 1
    give_back(world, "S01", "S02")


def give_back(world: World, *labels: str) -> None:
    for label in labels:
        (world.root / f"away-{label}").rename(world.disks[label])
    world.run_pass(check=(0, 1))


def test_what_waited_goes_out_in_order_with_its_times(story: Story, web: Receiver) -> None:
    """A whole story passed while the link was down: one message, the oldest first."""
    world = story.world
    dead = {"POLE_NOTIFY_URLS": f"json://127.0.0.1:{refused_port()}"}
    world.generate()
    for name in ("a%.g3", "b%.g3", "c%.g3"):
        put_bad_name(world, name)
        world.run_pass(check=1, env=dead)
    (world.buffer / "b%.g3").unlink()
    world.run_pass(check=1, env=dead)
    for hours, name in ((5, "a%.g3"), (4, "b%.g3"), (3, "c%.g3")):
        at = utc(time.time() - hours * HOUR_S)
        world.sql("UPDATE notices SET opened_at = ? WHERE key = ?", at, name)
    rested(world)
    world.run_pass(check=1, env={"POLE_NOTIFY_URLS": web.http_url})
    (sent,) = web.got
    assert heads(sent, "NEW") == heads(sent, "RESOLVED") == {"WARNING bad-name"}
    assert sent.subject == "[pole-data] WARNING 2 names can't be archived (+1 more)"
    times = re.findall(r"^  (?:([abc])%.g3 \(since|from) .*?UTC \((\d) h ago\)", sent.body, re.M)
    assert times == [("a", "5"), ("c", "3"), ("", "4")]
    world.run_pass(check=1, env={"POLE_NOTIFY_URLS": web.http_url})
    assert len(web.got) == 1
    for name in ("a%.g3", "c%.g3"):
        (world.buffer / name).unlink()


def test_two_processes_never_send_the_same(station: World, web: Receiver) -> None:
    """While one sends, a whole second pass works beside it, and leaves the sending to it."""
    web.mood = "slow"
    environ = {"POLE_NOTIFY_URLS": web.http_url + PATIENT}
    put_bad_name(station)
    first = station.start("data_manager.py", env=environ)
    wait_for(lambda: any(send_child.__name__ in line for line in children(first.pid)))
    put_bad_name(station, "another%.g3")
    station.put("a.g3")
    station.run_pass(check=1, env=environ)
    assert station.archived("P01") == {"seed.g3", "a.g3"}
    assert first.poll() is None and web.got == []
    web.mood = "ok"
    web.over.set()
    assert first.wait(timeout=60) == 1
    station.run_pass(check=1, env=environ)
    station.run_pass(check=1, env=environ)
    assert [re.findall(r"\S+%\.g3", mail.subject) for mail in web.got] == [
        [BAD_NAME],
        ["another%.g3"],
    ]
    for name in (BAD_NAME, "another%.g3"):
        (station.buffer / name).unlink()


# --- storms ---------------------------------------------------------------------------------


def test_an_alarm_storm_is_one_message(story: Story) -> None:
    """A thousand files: counted, ten of them named; and one message says that all is over."""
    names = [f"{n:04}%.g3" for n in range(1000)]
    for name in names:
        put_bad_name(story.world, name)
    mail = story.opens("bad-name", "0000%.g3", 1)
    assert mail.subject == "[pole-data] WARNING 1000 names can't be archived"
    assert len(re.findall(r"^  \d{4}%\.g3 \(since", mail.body, re.MULTILINE)) == 10
    assert "… and 990 more" in mail.body
    story.quiet(check=1)
    for name in names:
        (story.world.buffer / name).unlink()
    (mail,) = story.news(check=0)
    assert mail.subject == "[pole-data] resolved 1000 names can't be archived"
    story.quiet(check=0)


def test_a_brownout_that_takes_28_drives_is_one_message(tmp_path: Path, people: People) -> None:
    """28 disks in use go at once, and come again: two messages in all."""
    labels = [[f"{prefix}{n:02}" for n in range(1, 15)] for prefix in "PS"]
    world = World(tmp_path, *labels)
    story = Story(world, people)
    world.generate()
    for n in range(14):
        world.put(f"{n}.g3", 100)
        world.run_pass(check=0)
        world.sql("UPDATE disks SET held_by = 'person' WHERE state = 'active'")
    world.sql("UPDATE disks SET held_by = NULL")
    assert set(world.disk_states().values()) == {"active"}
    world.mounts.rename(world.root / "away")
    world.mounts.mkdir()
    world.put("a.g3")
    mail = story.opens("disk-missing", "P01", 1)
    assert (
        mail.subject == "[pole-data] CRITICAL 2 roles have no disk that can take files (+28 more)"
    )
    assert "28 disks in use are not there" in paragraph(mail, "disk-missing")
    story.quiet(check=1)
    world.mounts.rmdir()
    (world.root / "away").rename(world.mounts)
    (mail,) = story.news(check=0)
    assert heads(mail, "RESOLVED") == {"CRITICAL no-disk", "WARNING disk-missing"}
    story.quiet(check=0)
    world.close()


# --- time, injected -------------------------------------------------------------------------


class Office:
    """A station's board and its channels, with a clock and a link that the test sets."""

    def __init__(self, world: World, conn: db.Connection, urls: dict[str, str]) -> None:
        self.config = config.load(world.config_path, urls)
        self.conn, self.now_s = conn, seconds("2026-06-21T00:00:00Z")
        self.channels = configured_channels(self.config.secrets)
        self.board = NoticeBoard(conn, self.channels, clock=lambda: self.now_s)
        self.is_up = True
        self.tried_s: list[float] = []
        self.got: list[tuple[str, Message]] = []

    def carry(self, channel: Channel, message: Message) -> str | None:
        self.tried_s.append(self.now_s)
        if self.is_up:
            self.got.append((channel.name, message))
        return None if self.is_up else "no link"

    def minutes(self, count: int = 1, step: int = 1) -> None:
        """Each ends with a delivery, as after a pass."""
        for _ in range(0, count, step):
            self.now_s += step * MINUTE_S
            delivery_queue.deliver(self.config, self.conn, state_lines, self.now_s, self.carry)

    def subjects(self, channel: str = "notify-1-json") -> list[str]:
        return [message.subject for name, message in self.got if name == channel]


@pytest.fixture
def open_office(world: World) -> Iterator[Callable[..., Office]]:
    world.generate()
    with ExitStack() as stack:

        def opened(**urls: str) -> Office:
            urls = urls or {"POLE_NOTIFY_URLS": "json://127.0.0.1"}
            return Office(world, stack.enter_context(db.connect(world.db_path)), urls)

        yield opened


def test_a_channel_that_fails_rests_longer_each_time_up_to_ten_minutes(
    open_office: Callable[..., Office],
) -> None:
    """1, 2, 3 … 10, 10 minutes; what comes meanwhile waits with the rest."""
    office = open_office()
    office.is_up = False
    office.board.tell("disk-missing", "P01", "It is away.")
    office.minutes(90)
    office.board.tell("disk-missing", "P02", "It is away.")
    rests_s = [b - a for a, b in zip(office.tried_s, office.tried_s[1:], strict=False)]
    assert [s / MINUTE_S for s in rests_s] == [*range(1, 11), 10, 10, 10]
    office.is_up = True
    office.minutes(10)
    assert office.subjects() == ["[pole-data] WARNING 2 disks in use are not there"]


def test_a_clock_that_was_wrong_costs_one_message_each_time(
    open_office: Callable[..., Office],
) -> None:
    """Set forward by a year, and back again; and a time in the future keeps nothing silent."""
    office = open_office()
    office.board.tell("disk-missing", "P01", "It is away.")
    office.minutes(60)
    for step_s in (365 * DAY_S, -365 * DAY_S):
        office.now_s += step_s
        office.minutes(60)
    assert len(office.got) == 3
    office.board.settle(["disk-missing"], "P01")
    office.now_s -= 10 * DAY_S
    office.minutes(60)
    assert [subject.split()[1] for subject in office.subjects()][3:] == ["resolved"]


def test_what_is_no_longer_critical_rings_no_pager(open_office: Callable[..., Office]) -> None:
    """The pager was told 96 %, and its end; that 81 % come again a while later is for the mail."""
    office = open_office(POLE_NOTIFY_URLS="json://127.0.0.1", POLE_PAGER_COMMAND="page")
    office.board.tell("buffer-full", "buffer", "96 %.", Severity.CRITICAL, 96)
    office.minutes()
    office.board.settle(["buffer-full"], "buffer")
    office.minutes()
    assert len(office.subjects("pager-command")) == 2
    office.board.tell("buffer-full", "buffer", "81 %.", value=81)
    office.minutes(3 * 1440, step=10)  # repeated daily
    office.board.settle(["buffer-full"], "buffer")
    office.minutes(120)
    assert len(office.subjects("pager-command")) == 2
    assert len(office.subjects()) == 6
    office.board.tell("buffer-full", "buffer", "97 %.", Severity.CRITICAL, 97)
    office.minutes()
    assert len(office.subjects("pager-command")) == 3


def test_what_comes_back_worse_is_told_at_once(open_office: Callable[..., Office]) -> None:
    """Also while people have not heard yet that it was over."""
    office = open_office(POLE_NOTIFY_URLS="json://127.0.0.1", POLE_PAGER_COMMAND="page")
    for _ in range(2):
        office.board.tell("buffer-full", "buffer", "81 %.", value=81)
        office.minutes()
        office.board.settle(["buffer-full"], "buffer")
        office.minutes()
    assert [subject.split()[1] for subject in office.subjects()] == [
        "WARNING",
        "resolved",
        "WARNING",
    ]
    office.board.tell("buffer-full", "buffer", "97 %.", Severity.CRITICAL, 97)
    office.minutes()
    assert office.subjects()[-1] == "[pole-data] CRITICAL buffer: worse: the buffer is filling up"
    assert office.subjects("pager-command")[-1] == (
        "[pole-data] CRITICAL buffer: the buffer is filling up"
    )


def test_an_acknowledgement_ends_when_people_are_told_that_it_is_over(
    open_office: Callable[..., Office],
) -> None:
    """What comes back after that is told; what comes back before, is still acknowledged."""
    office = open_office()
    office.board.tell("disk-missing", "P01", "It is away.")
    office.minutes()
    with db.transaction(office.conn):
        db.notices.acknowledge(office.conn, "disk-missing", "P01", utc(office.now_s + 9 * DAY_S))
    office.board.settle(["disk-missing"], "P01")
    office.board.tell("disk-missing", "P01", "It is away.")
    office.minutes(2 * 1440, step=10)
    assert len(office.got) == 1
    office.board.settle(["disk-missing"], "P01")
    office.minutes(120, step=10)
    office.board.tell("disk-missing", "P01", "It is away.")
    office.minutes()
    assert [re.findall("resolved|back", subject) for subject in office.subjects()] == [
        [],
        ["resolved"],
        ["back"],
    ]


def test_files_that_fail_one_after_another_cost_a_message_an_hour_and_no_more(
    open_office: Callable[..., Office],
) -> None:
    """The buffer's drive dies slowly: each minute another file fails, and another one is well.

    Three in three hours, so that the first are told at once. A disk's notice waits for none.
    """
    office = open_office()
    for minute in range(600):
        office.board.tell("copy-failed", f"{minute}.g3", "it can't be read.")
        if minute >= 5:
            office.board.settle(["copy-failed"], f"{minute - 5}.g3")
        office.minutes()
    for minute in range(595, 600):
        office.board.settle(["copy-failed"], f"{minute}.g3")
    assert len(office.got) <= 12
    assert office.subjects()[0] == "[pole-data] WARNING 0.g3: can't be archived"
    office.board.tell("disk-missing", "P01", "It is away.")
    office.minutes()
    assert office.subjects()[-1].startswith("[pole-data] WARNING P01: the disk in use")
    office.minutes(180, step=10)
    told = "\n".join(message.body for _, message in office.got)
    over = re.findall(r"^RESOLVED .*: (?:(\d+) files can't|\d+.g3: can't)", told, re.MULTILINE)
    assert sum(int(count or 1) for count in over) == 600
    assert queue_is_empty(office)


def queue_is_empty(office: Office) -> bool:
    """Whether every channel was told of everything, and of all that is over."""
    rows = office.conn.execute(
        "SELECT 1 FROM deliveries d JOIN notices n ON n.id = d.notice_id "
        "WHERE sent_at IS NULL OR (resolved_at IS NOT NULL AND end_sent_at IS NULL)"
    ).fetchall()
    return rows == []


# --- channels that come and go --------------------------------------------------------------


def test_a_new_channel_is_told_once_of_what_is_open(story: Story, web: Receiver) -> None:
    """Those that were there before are told of nothing."""
    put_bad_name(story.world)
    story.opens("bad-name", BAD_NAME, 1)
    both = {"POLE_NOTIFY_URLS": f"{story.people.mail.smtp_url} {web.http_url}"}
    for _ in range(2):
        story.quiet(check=1, env=both)
    assert web.subjects() == [story.people.mails[-1].subject]
    (story.world.buffer / BAD_NAME).unlink()


def test_a_channel_that_was_taken_out_is_not_missed(story: Story) -> None:
    """``status`` does not go on saying that something could not be sent through it."""
    dead = f"json://127.0.0.1:{refused_port()}"
    both = {"POLE_NOTIFY_URLS": f"{story.people.mail.smtp_url} {dead}"}
    put_bad_name(story.world)
    story.news(check=1, env=both)
    assert "NOT SENT: 1 notice through notify-2-json" in story.run("status", env=both).out
    story.quiet(check=1)
    assert "NOT SENT" not in story.run("status").out
    (story.world.buffer / BAD_NAME).unlink()


# --- acknowledged ---------------------------------------------------------------------------


def test_what_is_acknowledged_is_silent_until_it_gets_worse(tmp_path: Path, people: People) -> None:
    """One spare of two: told, repeated, acknowledged, silent; none: told, and its end."""
    world = World(
        tmp_path, ["P01", "P02", "P03"], ["S01", "S02"], SpareDisksLow="2", RepeatNotices="1 s"
    )
    story = Story(ready_world(world), people)
    story.opens("spares-low", "copy", 0)
    sent_long_ago(world)
    (again,) = story.news(check=0)
    assert heads(again, "STILL OPEN") == {"WARNING spares-low"}
    run = story.run("ack", "spares-low", "copy", "--for", "30d", check=0)
    assert "spares-low copy is not sent again until 20" in run.out
    sent_long_ago(world)
    story.quiet(check=0)
    take_away(world, "S02")
    story.opens("spares-low", "copy", 0)
    (world.root / "away-S02").rename(world.disks["S02"])
    world.add_disk("S03")
    world.generate()
    story.ends("spares-low", "copy")
    world.close()


def sent_long_ago(world: World) -> None:
    world.sql("UPDATE deliveries SET sent_at = ? WHERE sent_at > ''", utc(time.time() - HOUR_S))


def test_what_is_not_open_can_not_be_acknowledged(story: Story) -> None:
    """Exit 2; what is open is listed so that it can be pasted."""
    put_bad_name(story.world, "a b%.g3")
    story.news(check=1)
    run = story.run("ack", "bad-name", "nothing.g3", check=2)
    assert "no open notice bad-name nothing.g3" in run.err and "ack bad-name 'a b%.g3'" in run.err
    assert "Traceback" not in run.err
    (story.world.buffer / "a b%.g3").unlink()


# --- an older database ----------------------------------------------------------------------


def test_what_was_open_in_an_older_database_is_told_once(story: Story) -> None:
    """What it told is not told again; what was over then is told to nobody."""
    world = story.world
    world.sql("ALTER TABLE disks DROP COLUMN manifest_bytes")
    rows = {t: world.sql(f"SELECT * FROM {t}") for t in ("disks", "disk_events", "files", "copies")}
    world.db_path.unlink()
    make_old(world, rows)
    (mail,) = story.news(check=(0, 1))
    assert heads(mail, "NEW") == {"WARNING copy-damaged"}
    assert "  WARNING copy-damaged: P01" in mail.body and "P02" not in mail.body.split("\n\n")[0]
    assert "(2 d ago)" in paragraph(mail, "copy-damaged")
    story.quiet(check=(0, 1))


def make_old(world: World, rows: dict[str, list[sqlite3.Row]]) -> None:
    """As release 1.0.0 left it: P01 was told to nobody yet, S01 was; P02 is over."""
    conn = sqlite3.connect(world.db_path)
    conn.executescript((REPO / "tests/schemas" / "version_2.sql").read_text())
    for table, found in rows.items():
        for row in found:
            marks = ", ".join("?" * len(row))
            conn.execute(f"INSERT INTO {table} ({', '.join(row.keys())}) VALUES ({marks})", row)
    now_s = time.time()
    for key, over in (("P01", None), ("S01", None), ("P02", utc(now_s - DAY_S))):
        conn.execute(
            "INSERT INTO notices (kind, key, severity, text, opened_at, resolved_at) "
            "VALUES ('copy-damaged', ?, 'warning', 'It is bad.', ?, ?)",
            (key, utc(now_s - 2 * DAY_S), over),
        )
    conn.execute(
        "INSERT INTO deliveries (notice_id, channel, sent_at) "
        "SELECT id, 'notify-1-mailto', ? FROM notices WHERE key = 'S01'",
        (utc(now_s - HOUR_S),),
    )
    conn.executescript(
        f"PRAGMA application_id = {db.sqlite.APPLICATION_ID}; PRAGMA user_version = 2"
    )
    conn.commit()
    conn.close()
