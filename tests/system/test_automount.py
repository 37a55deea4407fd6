"""An automount trigger whose disk is absent is nothing: not a mounted spare, nor worth waiting for.

The triggers are real ones of the kernel, with a daemon that hangs, refuses, or mounts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from poledata.system import mounts
from tests.helpers.automounter import automount
from tests.helpers.loopdisks import LoopDisk, LoopWorld
from tests.helpers.stations import notice_text

MakeWorld = Callable[..., LoopWorld]


@pytest.mark.parametrize("how", ["hang", "fail"])
def test_a_trigger_is_not_mounted_and_nobody_waits_for_it(tmp_path: Path, how: str) -> None:
    """It is looked at without setting it off; who opens it waits for seconds, not for ever."""
    place = tmp_path / "P01"
    place.mkdir()
    with automount(place, how):
        assert str(place) not in mounts.mounted_places()
        started_s = time.monotonic()
        assert mounts.open_place(place) is None
        assert time.monotonic() - started_s < 10
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            assert not mounts.lies_in(fd, place)
            assert mounts.mount_points_below(fd) == {"P01"}  # a buffer is never searched there
        finally:
            os.close(fd)
        assert mounts.device_at(place) is not None


def test_a_trigger_whose_disk_is_there_is_mounted(
    loop_disk: Callable[..., LoopDisk], tmp_path: Path
) -> None:
    """Opening its place sets it off; then it is what was mounted."""
    disk = loop_disk(tmp_path / "disk.img", tmp_path / "P01", fs="ext4")
    disk.umount()
    with automount(disk.mount_point, str(disk.device)):
        fd = mounts.open_place(disk.mount_point)
        assert fd is not None
        try:
            assert mounts.is_mount_point(fd, disk.mount_point)
            assert os.listdir(fd) == ["lost+found"]
        finally:
            os.close(fd)
        assert str(disk.mount_point) in mounts.mounted_places()


@pytest.mark.parametrize("how", ["hang", "fail"])
def test_a_trigger_whose_disk_is_absent_is_no_spare(make_loop_world: MakeWorld, how: str) -> None:
    """The notice that spares run low comes, status says it is not mounted, and the rest goes on."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01", "S02"], SpareDisksLow="1")
    world.generate()
    world.put("a.g3")
    world.run_pass(check=0)
    assert world.notices() == set()
    world.loops["P02"].umount()
    with automount(world.disks["P02"], how) as daemon:
        world.put("b.g3")
        world.run_pass(check=0)
        assert world.waiting() == set()
        assert world.notices() == {("spares-low", "primary")}
        said = notice_text(world, "spares-low", "primary")
        assert said.startswith("0 primary disks are mounted and spare.")
        mounted = {
            d["disk"]["label"]: d["is_mounted"] for d in world.status("--json").json()["disks"]
        }
        assert mounted == {"P01": True, "P02": False, "S01": True, "S02": True}
        check = world.run_pass("check")
        assert "P02" not in check.out  # a spare that is just not there
        rows = {row["label"]: row for row in world.generate("--json").json()}
        assert (rows["P02"]["mounted"], rows["P01"]["mounted"]) == ("no", str(world.disks["P01"]))
        assert daemon.poll() is None
    world.loops["P02"].mount()


@pytest.mark.parametrize("how", ["hang", "fail"])
def test_a_disk_in_use_behind_a_trigger_is_missing(make_loop_world: MakeWorld, how: str) -> None:
    """As any other that is not mounted: the next disk of its role takes the files."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    world.generate()
    world.put("a.g3")
    world.run_pass(check=0)
    world.loops["P01"].umount()
    with automount(world.disks["P01"], how):
        world.put("b.g3")
        world.run_pass(check=1)
        assert world.notices() == {("disk-missing", "P01")}
        assert f"nothing is mounted at {world.disks['P01']}" in notice_text(
            world, "disk-missing", "P01"
        )
        assert world.archived("P02") == {"b.g3"}
        world.run_pass("verify", "P01", check=1)
    world.loops["P01"].mount()
    world.run_pass(check=0)
    assert world.notices() == set()


def test_a_disk_in_use_is_mounted_by_its_trigger(make_loop_world: MakeWorld) -> None:
    """Where the daemon does its work an automount is as good as any mount."""
    world = make_loop_world(primaries=["P01"], copies=["S01"])
    world.generate()
    world.put("a.g3")
    world.run_pass(check=0)
    world.loops["P01"].umount()
    with automount(world.disks["P01"], str(world.loops["P01"].device)):
        world.put("b.g3")
        world.run_pass(check=0)
        assert world.archived("P01") == {"a.g3", "b.g3"}
    world.loops["P01"].mount()


def test_no_trigger_is_set_off_by_looking_where_a_lost_disk_may_be(
    make_loop_world: MakeWorld, tmp_path: Path
) -> None:
    """Anywhere on the machine one may hang: the disk is given up at once."""
    world = make_loop_world()
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    world.loops["P01"].umount()
    place = tmp_path / "elsewhere"
    place.mkdir()
    with automount(place, "hang"):
        started_s = time.monotonic()
        world.run_pass("lost", "P01", "--why", "it fell", check=0)
        assert time.monotonic() - started_s < 5
    world.run_pass("lost", "--undo", "P01", check=0)


def test_a_lost_database_is_made_again_past_a_trigger(make_loop_world: MakeWorld) -> None:
    """``--from-disks`` looks at every place; what is not there is known by the copy on P01."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    world.generate()
    world.put("a.g3")
    world.run_pass(check=0)
    world.loops["P02"].umount()
    world.db_path.unlink()
    with automount(world.disks["P02"], "hang"):
        world.run("generate_db.py", "--from-disks", check=0)
        states = {"P01": "active", "P02": "spare", "S01": "active"}
        assert world.disk_states() == states
        world.put("b.g3")
        world.run_pass(check=0)
        assert world.archived("P01") == world.archived("S01") == {"a.g3", "b.g3"}
    world.loops["P02"].mount()
