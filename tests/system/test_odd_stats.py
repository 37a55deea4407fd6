"""Files whose times and inodes are beyond anything that a database holds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.world import World

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


def test_a_time_that_no_disk_keeps_stops_no_other_file(on_tmpfs: World) -> None:
    """1800 is before anything that ext4 can write."""
    world = on_tmpfs
    for name in (NAME, OTHER):
        world.put(name)
    date(world.buffer / NAME, -5_364_662_400)
    world.run_pass(check=(0, 1))
    assert OTHER not in world.waiting()


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


def test_a_lock_of_an_absurd_time_is_no_defect(world: World) -> None:
    """The status says since when no pass has run, whatever that file's time is."""
    with mounted("-t", "tmpfs", "-o", "mode=700", "tmpfs", world.db_path.parent):
        world.generate()
        world.run_pass(check=0)
        world.put(NAME)
        for suffix in ("lock", "ended"):
            date(world.db_path.with_name(f"{world.db_path.name}.{suffix}"), 2**62)
        assert "no pass has run since 9999" in world.status(check=0).out
        world.run_pass(check=0)
        world.check()
    world.leave_unchecked("its database is gone")
