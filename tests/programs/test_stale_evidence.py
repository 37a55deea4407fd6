"""No file leaves the buffer because of what was true some time ago."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from poledata import db
from poledata.config import load
from poledata.disks.identity import prove
from poledata.errors import TooFewDescriptors
from poledata.models import Disk
from poledata.system import mounts
from tests.helpers.loopdisks import LoopDisk, LoopWorld
from tests.helpers.rack import rot
from tests.helpers.world import REAL_WAITS, World

NAME = "fullrate/RCW38/80296951/0000.g3"


def waits_for_the_copy_disk(world: World) -> None:
    """P01 has its copy; S01 and S02 are away, so the file waits."""
    for label in ("S01", "S02"):
        world.disks[label].rename(world.disks[label].with_name(f"{label}-away"))
    world.put(NAME, 5000)
    world.generate()
    world.run_pass(check=1)
    assert world.archived("P01") == {NAME}


def rests_until_it_is_archived(world: World) -> None:
    """A file that was written just now; with the real waits it is archived a second later."""
    world.put(NAME, 5000)
    changed_s = (world.buffer / NAME).stat().st_ctime
    while world.waiting():
        world.run_pass(check=0, env=REAL_WAITS)
    (row,) = world.sql("SELECT strftime('%s', archived_at) AS at FROM files")
    assert float(row["at"]) > changed_s


def the_copy_disk_comes(world: World) -> None:
    for label in ("S01", "S02"):
        world.disks[label].with_name(f"{label}-away").rename(world.disks[label])


@pytest.mark.parametrize("verified_at", [None, "2099-01-01T00:00:00Z"])
def test_a_copy_that_rotted_while_the_file_waited_keeps_it(
    world: World, verified_at: str | None
) -> None:
    """The first copy was good when it was made; it is read again in the pass that removes, also
    if the clock was years ahead then."""
    waits_for_the_copy_disk(world)
    if verified_at:
        world.sql("UPDATE copies SET verified_at = ?", verified_at)
    rot(world.data("P01") / NAME)
    the_copy_disk_comes(world)
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert ("copy-damaged", NAME) in world.notices()
    assert "ALL WELL" not in world.status().out
    world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == {("name-conflict", f"P01 {NAME}")}  # what rotted was set aside


def test_a_file_held_open_costs_no_reading_of_its_copies(world: World) -> None:
    """A writer that never closes must not cost two full readings at each retry."""
    waits_for_the_copy_disk(world)
    the_copy_disk_comes(world)
    verified = "SELECT disk_id, verified_at FROM copies ORDER BY disk_id"
    world.run_pass(check=0)
    world.put(NAME, 5000)
    world.sql("UPDATE copies SET verified_at = '2001-01-01T00:00:00Z'")
    with open(world.buffer / NAME, "r+b"):
        world.run_pass()
        assert world.waiting() == {NAME}
        assert {row["verified_at"] for row in world.sql(verified)} == {"2001-01-01T00:00:00Z"}
    world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()


@pytest.mark.root
def test_a_disk_with_coarse_times_takes_files_at_the_first_try(tmp_path: Path) -> None:
    """ext4 with small inodes keeps whole seconds; the copy's own time is what is compared."""
    world = LoopWorld(tmp_path, ("P01",), ("S01",), primary_fs="ext4", mkfs_args=("-I", "128"))
    try:
        world.put(NAME, 5000, mtime_s=1_500_000_000.25)
        world.generate()
        world.run_pass(check=0)
        assert world.waiting() == set()
        world.put(NAME, 5000, mtime_s=1_500_000_000.25)
        world.run_pass(check=0)
        assert world.waiting() == set()
        world.run_pass("verify", check=0)
        mtimes_ns = {row["mtime_ns"] for row in world.sql("SELECT mtime_ns FROM copies")}
        assert mtimes_ns == {1_500_000_000 * 10**9}
    finally:
        world.close()


@pytest.mark.waits
def test_settle_time_is_never_below_a_second(world: World) -> None:
    """A file written right now is too young, whatever the configuration says."""
    world.generate()
    rests_until_it_is_archived(world)
    assert "SettleTime is 0 s; for this buffer at least 1 s are used" in world.log()


@pytest.mark.root
@pytest.mark.waits
def test_a_buffer_with_whole_second_times_is_left_alone_for_longer(
    tmp_path: Path, loop_disk: Callable[..., LoopDisk]
) -> None:
    """A change in the second in which a file was hashed would not show in its times."""
    world = World(tmp_path, SettleTime="1 s")
    disk = loop_disk(
        tmp_path / "image", world.buffer, size_mb=16, fs="ext4", mkfs_args=("-I", "128")
    )
    try:
        world.generate()
        rests_until_it_is_archived(world)
        world.close()
    finally:
        disk.force_off()


def test_too_few_descriptors_are_no_fault_of_a_disk(world: World) -> None:
    """A pass that may open hardly anything blames no disk, and the next one does its work."""
    for number in range(40):
        world.put(f"many/{number}.g3", 100)
    world.generate()

    world.run_pass(check=1, prefix=["prlimit", "--nofile=24:24"])
    assert "too few file descriptors: this process may hold 24 files open, but 64" in world.log()
    assert world.notices() == {("pass-crashed", "data_manager")}
    assert len(world.waiting()) == 40
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


def test_a_system_without_descriptors_blames_no_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENFILE comes from other programs; it says nothing of the disk that was being looked at."""
    world.generate()
    config, (disk, *_) = load(world.config_path), list_disks(world)

    def full(*args: object, **kwargs: object) -> int:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    with monkeypatch.context() as patched:
        patched.setattr(mounts.os, "open", full)
        with pytest.raises(TooFewDescriptors, match="Too many open files in system"):
            prove(config, disk, [disk])


def list_disks(world: World) -> list[Disk]:
    with db.connect(world.db_path, read_only=True) as conn:
        return db.disks.disks(conn)


def test_files_are_removed_in_groups_that_fit_the_descriptors(world: World) -> None:
    """Each is held open with its lease until it goes: a low limit makes the groups small."""
    for number in range(300):
        world.put(f"many/{number}.g3", 100)
    world.generate()
    world.run_pass(check=0, prefix=["prlimit", "--nofile=20:100"])
    assert world.waiting() == set()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 200
    assert os.listdir(world.buffer / "many") == []
