"""Only finished files are archived: left alone for SettleTime, and open for writing by nobody."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from poledata.formatting import DAY_S
from tests.helpers.halted import HaltedPass, needs_strace, strace
from tests.helpers.loopdisks import SEARCHED, LoopDisk
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"
MIN_S, H_S = 60.0, 3600.0
# Without this one capability root may lease its own files alone, as any other user (fcntl(2)).
NO_LEASE = ("setpriv", "--bounding-set=-lease", "--inh-caps=-lease")
SOMEBODY_ELSE = 65534


def unfinished(world: World) -> int:
    """How many files of the buffer ``status`` calls unfinished."""
    return int(world.status("--json", check=0).json()["buffer"]["unfinished_files"])


# --- for how long it was left alone: files of any age, on a file system set back ----------


class Aged:
    """A world whose buffer is an ext4 of its own: there debugfs(8) sets even a file's ctime."""

    def __init__(self, world: World, disk: LoopDisk) -> None:
        self.world, self._disk, self.owner = world, disk, os.geteuid()

    def put(self, **ages_s: tuple[float, float]) -> None:
        """``obs_0000=(mtime age, ctime age)`` puts obs/0000.g3; an age below 0 is the future."""
        names = {f"{key.replace('_', '/')}.g3": ages for key, ages in ages_s.items()}
        for name in names:
            self.world.put(name, 2000)
            os.chown(self.world.buffer / name, self.owner, -1)
        self._disk.umount()
        now_s = time.time()
        for name, (mtime_age_s, ctime_age_s) in names.items():
            self._set(name, "mtime", now_s - mtime_age_s)
            self._set(name, "ctime", now_s - ctime_age_s)
        self._disk.mount()

    def _set(self, name: str, field: str, at_s: float) -> None:
        debugfs = shutil.which("debugfs", path=SEARCHED)
        assert debugfs, "debugfs is part of e2fsprogs, as mkfs.ext4 is"
        request = f"set_inode_field {name} {field} @{int(at_s)}"
        command = [debugfs, "-w", "-R", request, str(self._disk.device)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert len(said.stderr.splitlines()) == 1, said.stderr  # its version alone


@pytest.fixture
def aged(loop_disk: Callable[..., LoopDisk], world: World, tmp_path: Path) -> Aged:
    # In this order: the world is checked, and only then the disk under its buffer taken away.
    station = Aged(world, loop_disk(tmp_path / "buffer.img", world.buffer, size_mb=16, fs="ext4"))
    world.generate()
    return station


def test_a_file_waits_until_it_was_left_alone_for_settle_time(aged: Aged) -> None:
    """Both its times count; what still waits is unfinished, and no fault."""
    world = aged.world
    world.configure(SettleTime="1 h")
    aged.put(
        a_older=(61 * MIN_S, 61 * MIN_S),
        a_younger=(59 * MIN_S, 59 * MIN_S),
        a_written=(59 * MIN_S, 61 * MIN_S),
        a_changed=(61 * MIN_S, 59 * MIN_S),
        a_ancient=(40 * 365 * DAY_S, 61 * MIN_S),
    )
    waits = {"a/younger.g3", "a/written.g3", "a/changed.g3"}
    assert unfinished(world) == 3
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == waits
    assert world.archived("P01") == world.archived("S01") == {"a/older.g3", "a/ancient.g3"}
    assert unfinished(world) == 3
    world.configure(SettleTime="58 min")
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_a_time_in_the_future_counts_as_due(aged: Aged) -> None:
    """A clock that was set back keeps no file waiting for ever."""
    world = aged.world
    world.configure(SettleTime="1 h")
    aged.put(
        a_mtime=(-DAY_S, 2 * H_S),
        a_ctime=(2 * H_S, -DAY_S),
        a_both=(-365 * DAY_S, -365 * DAY_S),
        a_young=(-DAY_S, 59 * MIN_S),
    )
    world.run_pass(check=0)
    assert world.waiting() == {"a/young.g3"}


def test_with_no_settle_time_a_file_is_taken_at_once(world: World) -> None:
    """SettleTime = 0 s trusts the lease alone."""
    world.put(NAME, 2000)
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()


# --- open for writing ---------------------------------------------------------------------


class Opened:
    """A writer that still has the file, in one of the ways that there are."""

    def __init__(self, path: Path, how: str) -> None:
        if how == "mapped":  # its descriptor is closed: only the mapping is left
            with open(path, "r+b") as file:
                self._thing: mmap.mmap | object = mmap.mmap(file.fileno(), 0)
        else:
            self._thing = open(path, how)  # noqa: SIM115

    def close(self) -> None:
        self._thing.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["r+b", "mapped"])
def test_a_file_that_is_open_for_writing_is_left_until_it_is_closed(world: World, how: str) -> None:
    """Whatever its times say: it only waits, has not failed, and no one is told."""
    world.put(NAME, 2000, mtime_s=1_600_000_000)
    world.put("other.g3", 2000)
    world.generate()
    writer = Opened(world.buffer / NAME, how)
    world.run_pass(check=0)
    assert world.waiting() == {NAME}
    assert world.archived("P01") == world.archived("S01") == {"other.g3"}
    assert f"{NAME}: it is still open for writing" in world.log()
    assert world.sql("SELECT * FROM pending") == []
    assert world.notices() == set()
    writer.close()
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_a_file_that_is_open_for_reading_is_archived(world: World) -> None:
    """A look at the data keeps nobody from archiving it."""
    world.put(NAME, 2000)
    world.generate()
    with open(world.buffer / NAME, "rb"):
        world.run_pass(check=0)
    assert world.waiting() == set()


@needs_strace
def test_a_writer_who_opens_a_file_again_after_it_was_read_keeps_it(world: World) -> None:
    """Both copies are made and registered, but the file stays while somebody has it open."""
    world.put(NAME, 2000)
    world.put("other.g3", 2000)
    world.generate()
    halted = HaltedPass(world, "fsync", [world.disks["S01"] / "manifest-sha512.txt"])
    with open(world.buffer / NAME, "ab"):
        halted.go_on(check=1)
        assert world.waiting() == {NAME}
        assert world.archived("P01") == world.archived("S01") == {NAME, "other.g3"}
        rows = world.sql("SELECT name FROM files WHERE removed_from_buffer_at IS NULL")
        assert [row["name"] for row in rows] == [NAME]
        assert world.notices() == {("not-removed", NAME)}
        assert f"{NAME}: it is still open for writing; the file stays" in world.log()
        world.sql("UPDATE pending SET next_try_at = '2000-01-01T00:00:00Z'")
        world.run_pass(check=1)
        assert world.waiting() == {NAME}
    world.sql("UPDATE pending SET next_try_at = '2000-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


@needs_strace
def test_a_writer_who_comes_while_a_file_is_hashed_keeps_it(world: World) -> None:
    """A known file that comes again is as carefully looked at as a new one."""
    world.generate()
    world.put(NAME, 9 << 20)
    world.run_pass(check=0)
    world.put(NAME, 9 << 20)
    halted = HaltedPass(world, "preadv,preadv2", [world.buffer / NAME])
    with open(world.buffer / NAME, "ab") as file:
        halted.go_on(check=1)
        assert world.waiting() == {NAME}
        file.write(b"more")
        file.flush()
        world.ledger.saw(NAME)
        world.run_pass()
        assert world.waiting() == {NAME}


def nth_fcntl_of_the_last_lease(world: World, name: str) -> int:
    """Which of a pass's fcntl(2) on a buffer file takes the lease that it removes it under."""
    path = world.buffer / name
    world.put(name, 2000)
    world.run_pass(prefix=strace(world, "fcntl", [path]), check=0)
    calls = [c for c in (world.root / "trace").read_text().splitlines() if "fcntl(" in c]
    return max(n for n, call in enumerate(calls, 1) if "F_SETLEASE, F_RDLCK" in call)


def wait_until_a_lease_is_being_broken(path: Path) -> None:
    """Somebody waits in open(2) for the lease on this file (proc_locks(5))."""
    inode = f":{path.stat().st_ino} "
    for _ in range(1000):
        lines = Path("/proc/locks").read_text().splitlines()
        if any("LEASE" in line and "BREAKING" in line and inode in line for line in lines):
            return
        time.sleep(0.01)
    raise AssertionError("no writer waits for the lease: the pass was halted at another point")


@needs_strace
def test_a_writer_who_waits_for_our_lease_keeps_the_file(world: World) -> None:
    """He has found the file before it is unlinked: what he writes then would be nowhere."""
    world.generate()
    last_lease = nth_fcntl_of_the_last_lease(world, "other.g3")
    world.put(NAME, 2000)
    path = world.buffer / NAME
    halted = HaltedPass(world, "fcntl", [path], nth=last_lease)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open, path, "ab")
        wait_until_a_lease_is_being_broken(path)
        halted.go_on(check=1)
        with opened.result(timeout=10) as file:
            file.write(b"more")
    world.ledger.saw(NAME)
    assert world.waiting() == {NAME}
    assert path.stat().st_size == 2004
    assert world.archived("P01") == world.archived("S01") == {NAME, "other.g3"}


# --- where no lease can be had ------------------------------------------------------------


def test_without_a_lease_a_file_waits_ten_times_longer_and_for_a_newer_one(aged: Aged) -> None:
    """The files are another user's: then the system does not tell us of their writers."""
    world = aged.world
    world.configure(SettleTime="1 min")
    aged.owner = SOMEBODY_ELSE
    (world.buffer / "d").mkdir()
    (world.buffer / "d/newer.log").touch()
    old, young, a_day = 11 * MIN_S, 9 * MIN_S, DAY_S + MIN_S
    aged.put(
        a_0=(old, old),  # there is a newer one
        a_1=(young, young),
        b_0=(old, old),  # the newest of its directory
        c_0=(a_day, a_day),  # the same, but no one writes a file for a day
        d_0=(old, old),  # what is newer is no data
        e_0=(old, young),  # renamed, perhaps, or written to
        e_1=(young, young),
    )
    waits = {"a/1.g3", "b/0.g3", "d/0.g3", "e/0.g3", "e/1.g3"}
    world.run_pass(check=0, prefix=NO_LEASE)
    assert world.waiting() == waits | {"d/newer.log"}
    assert "b/0.g3: it is the newest of its directory and may still be open" in world.log()
    assert "a/1.g3: it is too young to tell whether it is open" in world.log()
    assert world.sql("SELECT * FROM pending") == []
    assert world.notices() == set()
    aged.put(b_1=(MIN_S / 2, MIN_S / 2))  # not settled, but the sign that b/0 is finished
    world.run_pass(check=0, prefix=NO_LEASE)
    assert world.waiting() == (waits - {"b/0.g3"}) | {"b/1.g3", "d/newer.log"}


def test_status_says_where_no_lease_can_be_had(aged: Aged) -> None:
    """A person should know why files wait for so long."""
    world = aged.world
    aged.owner = SOMEBODY_ELSE
    aged.put(a_0=(H_S, H_S))
    said = world.run("data_manager.py", "status", "--json", prefix=NO_LEASE, check=0).json()
    assert said["buffer"]["lease_can_be_had"] is False
    text = world.run("data_manager.py", "status", prefix=NO_LEASE, check=0).out
    assert "ten times SettleTime" in text
    assert world.status("--json").json()["buffer"]["lease_can_be_had"] is True
    assert "ten times SettleTime" not in world.status().out


@pytest.mark.root
def test_without_a_lease_the_newest_file_waits_whatever_settle_time_is(world: World) -> None:
    """Ten times nothing is nothing: the newest may be open for all that we can tell."""
    for number in range(3):
        world.put(f"obs/{number:04}.g3", 2000, mtime_s=1_600_000_000 + number)
    for path in (world.buffer / "obs").iterdir():
        os.chown(path, SOMEBODY_ELSE, SOMEBODY_ELSE)
    world.generate()
    with open(world.buffer / "obs/0002.g3", "ab"):
        world.run_pass(check=0, prefix=NO_LEASE)
        assert world.waiting() == {"obs/0002.g3"}
    world.run_pass(check=0)  # with a lease it is known that no one has it
    assert world.waiting() == set()
