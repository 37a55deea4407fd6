"""A buffer in which everything stands that may stand there, and a clock that somebody has set.

Links and special files, changing files, writers and leases have tests of their own
(test_bad_input.py, test_changing_files.py, test_settled.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata.archive.buffer import MARKER
from tests.campaigns.shim import build, needs_shim
from tests.helpers.world import CRON_ENVIRONMENT, World

DAY_S = 86_400
# What str.splitlines() splits at, what BagIt and sha512sum escape; the rest of ASCII is carried.
REFUSED_BYTES = {*b"\n\r\x0b\x0c\x1c\x1d\x1e%\\", *range(0x80, 0x100)}  # alone these are no UTF-8


def test_a_name_with_any_byte_is_archived_or_stays_and_is_said(world: World) -> None:
    """Each byte that a name may hold, but for the slash, in the middle of a name and at its
    beginning; what is archived can be checked by any machine (world.check does)."""
    names = {
        byte: os.fsdecode(b"%s%cx.g3" % (before, byte))
        for before in (b"", b"a/b")
        for byte in range(1, 256)
        if byte != ord("/")
    }
    for name in names.values():
        world.put(name, 10)
    world.generate()
    world.run_pass(check=1)
    refused = {name for byte, name in names.items() if byte in REFUSED_BYTES}
    assert world.waiting() == refused
    assert world.archived("P01") == world.archived("S01") == set(names.values()) - refused
    assert {kind for kind, _ in world.notices()} == {"bad-name"}
    assert len(world.notices()) == len(refused)


def test_names_of_dots_and_dashes_lead_nowhere_else(world: World) -> None:
    """The system's own `.` and `..` are no names; an option is just a file; a hidden one stays."""
    hidden = {"...g3", "..g3", ".g3", ".../..x/0.g3", ".incoming/0.g3"}
    names = {
        "-rf.g3",
        "--help.g3",
        "~.g3",
        "$HOME.g3",
        "data/0.g3",
        "manifest-sha512.txt/0.g3",
        "*.g3",
        "?.g3",
    }
    for name in names | hidden:
        world.put(name, 10)
    world.generate()
    world.run_pass(check=0)
    assert world.archived("P01") == names
    assert world.waiting() == hidden


def test_a_link_out_of_the_buffer_is_never_followed(world: World) -> None:
    """To a file, to a directory, to itself, to nothing: counted, and what it means is untouched."""
    outside = world.root / "outside"
    outside.mkdir()
    (outside / "precious.g3").write_bytes(b"not the telescope's")
    for name, target in (
        ("file.g3", outside / "precious.g3"),
        ("directory", outside),
        ("directory.g3", outside),
        ("up", ".."),
        ("loop.g3", "loop.g3"),
        ("dangling.g3", "nothing"),
        ("root.g3", "/"),
    ):
        (world.buffer / name).symlink_to(target)
    world.put("mine.g3")
    before = world.snapshot(outside), world.snapshot(world.buffer)
    world.generate()
    world.run_pass(check=0)
    assert world.archived("P01") == {"mine.g3"}
    assert world.snapshot(outside) == before[0]
    changes = before[1].differences(world.snapshot(world.buffer))
    assert sorted(changes) == [".: mtime changed", f"{MARKER} appeared", "mine.g3 vanished"]
    assert world.status("--json").json()["buffer"]["links_and_specials"] == 7


def test_a_file_whose_two_names_are_hard_links_and_one_outside_loses_no_byte(world: World) -> None:
    """The name in the buffer goes; what lies outside is the same file, and stays."""
    world.put("linked.g3", 5000)
    outside = world.root / "outside.g3"
    os.link(world.buffer / "linked.g3", outside)
    content = outside.read_bytes()
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert outside.read_bytes() == content
    assert (world.data("P01") / "linked.g3").stat().st_nlink == 1  # a copy, no link


# --- a million entries --------------------------------------------------------------------


@pytest.mark.root
def test_many_thousand_waiting_files_need_little_memory(world: World) -> None:
    """A pass over fifty thousand names, ended after its first batch, holds few of them."""
    crowd(world, 50_000, held_kib=150_000)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_waiting_files_need_little_memory(world: World) -> None:
    """And no more than a few tens of thousands do."""
    crowd(world, 1_000_000, held_kib=200_000)


def crowd(world: World, count: int, held_kib: int) -> None:
    """So many names in the buffer, a thousand a directory, in memory: the first batch is
    archived within the test's time, and the pass ends well when it is told to."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=0", "x", world.buffer], check=True)
    try:
        for number in range(count):
            directory = world.buffer / f"d{number // 1000:04}"
            if number % 1000 == 0:
                directory.mkdir()
            os.close(os.open(directory / f"{number}.g3", os.O_CREAT | os.O_WRONLY, 0o644))
        world.generate()
        pid = os.posix_spawn(
            world.command("data_manager.py")[0], world.command("data_manager.py"), CRON_ENVIRONMENT
        )
        wait_for_a_batch(world)
        peak_kib = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
        assert peak_kib < held_kib
        print(f"{count} files: {peak_kib} KiB")
        archived = world.sql("SELECT count(*) FROM files WHERE archived_at IS NOT NULL")[0][0]
        assert 1000 <= archived < count
        assert len(world.waiting()) == count - archived
    finally:
        world.leave_unchecked("its files are empty, and their names were counted")
        subprocess.run(["umount", world.buffer], check=True)


def wait_for_a_batch(world: World) -> None:
    with closing(sqlite3.connect(world.db_path, timeout=60)) as db:
        for _ in range(20_000):
            with suppress(sqlite3.OperationalError):
                if db.execute("SELECT count(*) FROM files").fetchone()[0]:
                    return
            time.sleep(0.05)
    raise AssertionError("no batch was ever archived")


# --- the clock ----------------------------------------------------------------------------


@needs_shim
@pytest.mark.parametrize("ahead_s", [-400 * DAY_S, -3600, 3600, 400 * DAY_S])
def test_whatever_the_clock_is_set_to_files_are_archived_and_none_is_lost(
    world: World, tmp_path: Path, ahead_s: int
) -> None:
    """Set back or forward, and right again: what was written in between is archived each time,
    by a pass that waits for SettleTime."""
    world.configure(SettleTime="60 s")
    hours_ago = os.stat(world.root).st_mtime - 10_000
    world.put("before.g3", mtime_s=hours_ago)
    world.generate()
    wrong = {"LD_PRELOAD": str(build(tmp_path)), "SHIM_CLOCK_S": str(ahead_s)}
    world.run_pass(check=0, env=wrong)
    assert world.waiting() == set()
    world.put("future.g3", mtime_s=hours_ago + 800 * DAY_S)
    world.run_pass(check=0, env=wrong)
    assert world.waiting() == set()
    world.configure(SettleTime="0 s")
    world.put("after.g3")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert len(world.archived("P01")) == len(world.manifest("S01")) == 3
    world.run_pass("verify", "P01", "S01", check=0)
    world.run_pass("close", "--yes", "P01", check=0)


def test_a_directory_that_comes_and_goes_stops_nothing(world: World) -> None:
    """The telescope may tidy up its own directories while a pass looks at them."""
    world.put("stays/1.g3")
    world.generate()
    with TemporaryDirectory(dir=world.buffer) as going:
        (Path(going) / "x").mkdir()
        (Path(going) / "x/1.g3").write_bytes(b"going")
        world.ledger.saw(f"{Path(going).name}/x/1.g3")
        process = world.start("data_manager.py")
        shutil.rmtree(Path(going) / "x", ignore_errors=True)
        world.ledger.withdraw(f"{Path(going).name}/x/1.g3", "the telescope took it away")
        assert process.wait(timeout=60) in (0, 1)
    world.run_pass(check=0)
    assert "stays/1.g3" in world.archived("P01")
