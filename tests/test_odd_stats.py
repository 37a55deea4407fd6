"""Files whose times and inodes are beyond anything that a database holds."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poledata.archive import buffer
from poledata.formatting import people_time, seconds, utc
from poledata.models import FileStat
from tests.world import World

LAST_NS, FIRST_NS = 2**63 - 1, -(2**63)
NAME, OTHER = "fullrate/RCW38/80296951/0000.g3", "fullrate/RCW38/80296951/0001.g3"


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """What ``mount`` is told, until the end."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


@pytest.fixture
def on_tmpfs(world: World) -> Iterator[World]:
    """A station whose buffer is on tmpfs, which keeps every time that there is."""
    with mounted("-t", "tmpfs", "tmpfs", world.buffer):
        world.generate()
        yield world
        world.check()
        world.leave_unchecked("its buffer is gone")


def date(path: Path, at_s: int) -> None:
    """Give a file this time, of any year."""
    subprocess.run(["touch", "-d", f"@{at_s}", path], check=True)
    assert int(path.stat().st_mtime) == at_s or abs(at_s) > 2**50


@pytest.mark.root
@pytest.mark.parametrize(
    "at_s",
    [10_413_792_000, 2**63 - 1, LAST_NS // 10**9 + 1, -1_000_000_000],
    ids=["2300", "the last one", "the first that does not fit", "1938"],
)
def test_a_file_of_any_date_is_archived(on_tmpfs: World, at_s: int) -> None:
    """Registered on both disks and removed; status, page, metrics and locate go on."""
    world = on_tmpfs
    for name in (NAME, OTHER):
        world.put(name)
    date(world.buffer / NAME, at_s)
    status = world.status("--json", check=(0, 1)).json()
    assert status["buffer"]["finished_files"] == 2
    world.status(check=(0, 1))
    page = world.root / "page.html"
    world.configure(StatusPage=str(page), MetricsFile=str(world.root / "pole.prom"))
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert page.exists()
    for label in ("P01", "S01"):
        assert world.archived(label) == {NAME, OTHER}
    (row,) = world.sql("SELECT mtime_ns FROM files WHERE name = ?", NAME)
    assert row["mtime_ns"] == max(FIRST_NS, min(at_s * 10**9, LAST_NS))
    world.run_pass("locate", "0000", check=0)
    world.run_pass("verify", "P01", "S01", check=0)


@pytest.mark.root
def test_a_failed_file_of_any_date_is_pending(on_tmpfs: World) -> None:
    """Its state fits in the database: it is not tried anew by each pass."""
    world = on_tmpfs
    name = "bad%name.g3"
    world.put(name)
    date(world.buffer / name, 2**63 - 1)
    world.run_pass(check=1)
    (row,) = world.sql("SELECT kind, attempts, mtime_ns FROM pending")
    assert tuple(row) == ("bad-name", 1, LAST_NS)
    world.run_pass(check=1)
    assert world.sql("SELECT attempts FROM pending")[0]["attempts"] == 1


@pytest.mark.root
def test_a_time_that_no_disk_keeps_stops_no_other_file(on_tmpfs: World) -> None:
    """1800 is before anything that ext4 can write."""
    world = on_tmpfs
    for name in (NAME, OTHER):
        world.put(name)
    date(world.buffer / NAME, -5_364_662_400)
    world.run_pass(check=(0, 1))
    assert OTHER not in world.waiting()


@pytest.mark.root
def test_an_inode_that_is_larger_than_any_integer_of_sqlite(world: World) -> None:
    """As overlayfs makes them up: what is remembered of such a file is found again."""
    world.generate()
    lower, upper = world.root / "lower", world.root / "upper"
    lower.mkdir()
    upper.mkdir()
    with mounted("-t", "tmpfs", "tmpfs", lower), mounted("-t", "tmpfs", "tmpfs", upper):
        (upper / "files").mkdir()
        (upper / "work").mkdir()
        (lower / "bad%name.g3").write_bytes(b"x")
        options = f"lowerdir={lower},upperdir={upper}/files,workdir={upper}/work,xino=on"
        with mounted("-t", "overlay", "overlay", "-o", options, world.buffer):
            inode = (world.buffer / "bad%name.g3").stat().st_ino
            assert inode >= 2**63
            for _ in range(2):
                world.run_pass(check=1)
                (row,) = world.sql("SELECT kind, attempts, inode FROM pending")
                assert tuple(row) == ("bad-name", 1, inode - 2**64)
    world.leave_unchecked("the ledger knows nothing of what lies on an overlay")


def stat_result(inode: int, mtime_ns: int, ctime_ns: int, device: int = 1) -> os.stat_result:
    """What ``os.stat`` gives of such a file."""
    times = (0, mtime_ns // 10**9, ctime_ns // 10**9)
    floats = (0.0, mtime_ns / 1e9, ctime_ns / 1e9)
    return os.stat_result((0o100644, inode, device, 1, 0, 0, 5, *times, *floats, 0, mtime_ns,
                           ctime_ns))  # fmt: skip


def test_every_number_of_a_stat_fits_in_the_database() -> None:
    """Identities stay apart, and times keep their order."""
    stat = FileStat.of(stat_result(2**64 - 1, 2**80, -(2**80), device=2**63))
    assert stat == FileStat(FIRST_NS, -1, 5, LAST_NS, FIRST_NS)
    assert FileStat.of(stat_result(2**63, 7, -7)) == FileStat(1, FIRST_NS, 5, 7, -7)


def test_a_scan_comes_to_every_file_of_a_far_future_once(tmp_path: Path) -> None:
    """Also where only some of them are in memory at a time."""
    names = [f"{number}.g3" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, ns=(0, 10 * LAST_NS))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        found, after = [], None
        while True:
            seen = buffer.scan(fd, (".g3",), 0.0, time.time(), 2, after)
            found += [waiting.name for waiting in seen.waiting]
            if seen.is_whole:
                break
            after = seen.waiting[-1].age_key
            assert len(found) <= len(names)
    finally:
        os.close(fd)
    assert found == names


@pytest.mark.parametrize("at_s", [2.0**63, -(2.0**63), 253_402_300_800.0, -62_135_596_801.0])
def test_every_time_can_be_written_and_read_again(at_s: float) -> None:
    """A year of five digits, or before the calendar, becomes the last or first that can be."""
    assert utc(seconds(utc(at_s))) == utc(at_s)
    assert people_time(at_s, time.time())


@pytest.mark.root
def test_a_lock_of_an_absurd_time_is_no_defect(world: World) -> None:
    """The status says since when no pass has run, whatever that file's time is."""
    with mounted("-t", "tmpfs", "tmpfs", world.db_path.parent):
        world.generate()
        world.run_pass(check=0)
        world.put(NAME)
        date(world.db_path.with_name(f"{world.db_path.name}.lock"), 2**62)
        assert "no pass has run since 9999" in world.status(check=0).out
        world.run_pass(check=0)
        world.check()
    world.leave_unchecked("its database is gone")
