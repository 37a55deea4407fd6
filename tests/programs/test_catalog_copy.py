"""The copy of the database on each disk: daily, whole, and never a reason to fail."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.halted import killed_pass, needs_strace, ready_world
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.world import World

NAME = "catalogue.sqlite"
DAY_S = 86_400


def rows(path: Path) -> list[str]:
    """All that a database holds."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return list(db.iterdump())


def names_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return [name for (name,) in db.execute("SELECT name FROM files ORDER BY name")]


def make_older(world: World, age_s: float = DAY_S + 1) -> None:
    for label in ("P01", "S01"):
        os.utime(world.disks[label] / NAME, (time.time() - age_s,) * 2)


@pytest.mark.parametrize("kind", ["world", "loop_world"])
def test_each_disk_that_a_pass_used_gets_a_whole_copy(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """It is the database as it was then, readable by all, and no other disk has one."""
    world = request.getfixturevalue(kind)
    ready_world(world)
    for label in ("P01", "S01"):
        copy = world.disks[label] / NAME
        assert names_in(copy) == ["seed.g3"]
        assert copy.stat().st_mode & 0o777 == 0o644
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (3,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not (world.disks["P02"] / NAME).exists()
    assert sorted(p.name for p in world.db_path.parent.glob(".*")) == []


@pytest.mark.parametrize(
    ("age_s", "is_made_anew"),
    [(DAY_S - 600, False), (DAY_S + 1, True), (-DAY_S - 600, True), (-600, False)],
)
def test_a_copy_of_today_is_left_and_an_older_one_replaced(
    world: World, age_s: float, is_made_anew: bool
) -> None:
    """A time in the future counts by its distance; a pass that put nothing there does nothing."""
    ready_world(world)
    make_older(world, age_s)
    before = world.snapshot(world.disks["P01"] / NAME)
    world.run_pass(check=0)
    assert world.snapshot(world.disks["P01"] / NAME) == before
    world.put("b.g3")
    world.run_pass(check=0)
    expected = ["b.g3", "seed.g3"] if is_made_anew else ["seed.g3"]
    assert names_in(world.disks["P01"] / NAME) == names_in(world.disks["S01"] / NAME) == expected


def test_a_closed_disk_has_the_last_one_and_vouches_for_it(loop_world: LoopWorld) -> None:
    """Made while it is closed, however old the other is; its checksum is in the tag manifest."""
    ready_world(loop_world)
    loop_world.put("b.g3")
    loop_world.run_pass(check=0)
    loop_world.run_pass("close", "--yes", "P01", check=0)
    disk = loop_world.disks["P01"]
    assert names_in(disk / NAME) == ["b.g3", "seed.g3"]
    assert "'P01','primary','ZTP01AA'" in "".join(rows(disk / NAME))
    assert "'closed'" in "".join(rows(disk / NAME))
    assert NAME in (disk / "tagmanifest-sha512.txt").read_text()
    subprocess.run(["sha512sum", "-c", "--quiet", "tagmanifest-sha512.txt"], cwd=disk, check=True)


@pytest.mark.parametrize("kind", ["text", "other database", "directory", "link"])
def test_what_is_not_ours_is_left_as_it_is(world: World, kind: str) -> None:
    """Somebody's own file of this name: no pass fails for it, and it is never replaced."""
    ready_world(world)
    path = world.disks["P01"] / NAME
    path.unlink()
    if kind == "text":
        path.write_text("not ours " * 100)
    elif kind == "other database":
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(world.disks["S01"] / NAME)
    os.utime(path, (1, 1), follow_symlinks=False)
    before = world.snapshot(path)
    world.put("b.g3")
    world.run_pass(check=0)
    assert world.snapshot(path) == before
    assert f"{NAME} on a disk is not ours: it is left as it is" in world.log()


def test_without_room_it_is_left_out_and_nothing_else(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """MinFreeSpace stays free: the files have their place, the copy has not; exit 0."""
    loop_world = make_loop_world(primary_fs="ext4")
    loop_world.generate()
    room = os.statvfs(loop_world.disks["P01"])
    free_bytes = room.f_bavail * room.f_frsize
    loop_world.configure(MinFreeSpace=str(free_bytes - 50_000))
    loop_world.put("a.g3", 1000)
    loop_world.run_pass(check=0)
    assert not (loop_world.disks["P01"] / NAME).exists()
    assert "no room for a copy of the database" in loop_world.log()
    loop_world.run_pass("close", "--yes", "P01", check=0)  # what was kept free is for this too
    assert names_in(loop_world.disks["P01"] / NAME) == ["a.g3"]


def test_a_disk_that_does_not_take_it_is_at_fault_and_the_files_are_archived(
    loop_world: LoopWorld,
) -> None:
    """The other disk has its copy, and nothing unfinished is left."""
    ready_world(loop_world)
    make_older(loop_world)
    copy = loop_world.disks["P01"] / NAME
    subprocess.run(["chattr", "+i", copy], check=True)
    loop_world.put("b.g3")
    loop_world.run_pass(check=1)
    subprocess.run(["chattr", "-i", copy], check=True)
    assert loop_world.waiting() == set()
    assert loop_world.notices() == {("disk-error", "P01")}
    assert names_in(copy) == ["seed.g3"]
    assert names_in(loop_world.disks["S01"] / NAME) == ["b.g3", "seed.g3"]
    loop_world.put("c.g3")
    loop_world.run_pass(check=0)
    assert names_in(copy) == ["b.g3", "c.g3", "seed.g3"]
    assert loop_world.notices() == set()


@needs_strace
@pytest.mark.parametrize("calls", ["renameat,renameat2", "unlink,unlinkat"])
def test_a_pass_killed_amid_it_leaves_the_older_one_whole(world: World, calls: str) -> None:
    """What it left, on the disk and beside the database, goes with the next pass."""
    ready_world(world)
    make_older(world)
    world.put("b.g3")
    nth = 1 if calls.startswith("rename") else 5  # after the temporary names and the buffer's
    killed_pass(world, calls, [], nth)
    world.check()
    assert names_in(world.disks["P01"] / NAME)[-1] == "seed.g3"
    make_older(world)
    world.put("c.g3")
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        assert names_in(world.disks[label] / NAME) == ["b.g3", "c.g3", "seed.g3"]
    assert sorted(p.name for p in world.db_path.parent.glob(".*")) == []
