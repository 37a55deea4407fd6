"""A disk that has left since an older database was copied: its packing list says what is on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.lost_database import COPIES, rebuilt, rows
from tests.helpers.world import World

OLD, SINCE = "first.g3", "fullrate/RCW38/second.g3"


def left_since(world: World, label: str = "P01") -> Path:
    """This disk is full, closed and gone; the database is of the time before; its list."""
    world.generate()
    if label == "P01":
        world.put(OLD, 1000)
        world.run_pass(check=0)
    older = world.db_path.read_bytes()
    world.put(OLD if label == "P02" else "third.g3", 500)
    world.put(SINCE, 2000)
    if label == "P02":
        world.disks["P01"].rename(world.root / "P01")
    world.run_pass(check=0)
    if label == "P02":
        (world.root / "P01").rename(world.disks["P01"])
    world.run_pass("close", "--yes", label, check=0)
    world.disks[label].rename(world.root / "north")
    world.db_path.write_bytes(older)
    return world.db_path.parent / "packing-lists" / f"{label}-{world.serials[label]}.sha512"


def is_back(world: World, label: str = "P01") -> None:
    """So that all that must hold can be checked."""
    (world.root / "north").rename(world.disks[label])


def test_a_disk_that_left_is_closed_by_its_packing_list_and_can_be_noted_as_shipped(
    world: World,
) -> None:
    """Its files count as copies that nobody has read; nothing is said to be missing."""
    left_since(world)
    assert "P01 is active" in world.run_pass("ship", "P01", check=2).err
    run = rebuilt(world)
    assert (
        "P01  primary  ZTP01AA  closed by its packing list: 3 files, 2 of them new to the "
        "database. If it has left: data_manager.py ship P01" in run.out
    )
    assert "Not mounted" not in run.out
    assert world.disk_states()["P01"] == "closed"
    assert world.notices() == set()
    assert {row[:3] for row in rows(world, COPIES)} == {
        (name, label, "good") for name in (OLD, SINCE, "third.g3") for label in ("P01", "S01")
    }
    assert rows(world, "SELECT count(*), count(archived_at) FROM files") == [(3, 3)]
    unread = "SELECT f.name FROM copies c JOIN files f ON f.id = file_id WHERE verified_at IS NULL"
    assert {row[0] for row in rows(world, f"{unread} AND disk_id = 1")} == {SINCE, "third.g3"}
    again = rebuilt(world)
    assert "packing list" not in again.out
    assert "P01: noted as shipped." in world.run_pass("ship", "P01", check=0).out
    is_back(world)


def test_a_spare_that_was_begun_and_left_since_is_known_by_its_list(world: World) -> None:
    """The older database has it as never used."""
    left_since(world, "P02")
    (world.disks["S01"] / "catalogue.sqlite").unlink()  # it would tell the same
    assert world.disk_states()["P02"] == "spare"
    assert "P02  primary  ZTP02AA  closed by its packing list: 2 files, 2 of them" in (
        rebuilt(world).out
    )
    world.run_pass("ship", "P02", check=0)
    assert rows(world, "SELECT count(*), count(archived_at) FROM files") == [(2, 2)]
    is_back(world, "P02")


def test_a_file_that_no_disk_here_has_keeps_its_disk_from_leaving(world: World) -> None:
    """Its size is unknown, and it may have no other copy: the disk stays as it was, and is said."""
    left_since(world)
    (world.data("S01") / SINCE).unlink()
    world.leave_unchecked("a copy was removed")
    run = rebuilt(world, check=1)
    why = f"1 file of its packing list is on no disk that is here, {SINCE} among them"
    assert f"P01: NOT CLOSED BY ITS PACKING LIST: {why}" in run.out
    assert "Not mounted, left as they were: P01." in run.out
    assert world.disk_states()["P01"] == "active"
    assert ("database-error", "P01") in world.notices()
    assert "P01 is active" in world.run_pass("ship", "P01", check=2).err


def other_hash(world: World, path: Path) -> str:
    line = next(line for line in path.read_text().splitlines() if line.endswith(OLD))
    path.write_text(path.read_text().replace(line, "0" * 128 + f"  data/{OLD}"))
    return f"1 of its lines say other content than the database, {OLD} among them"


def without_a_known_file(world: World, path: Path) -> str:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.endswith(f"{OLD}\n")))
    return "the database has 1 file on it, the list 0 of them"


def torn(world: World, path: Path) -> str:
    path.write_text(path.read_text()[:-3])
    return f"{path.name}: the text at byte "


def unreadable(world: World, path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "it can't be read: Is a directory"


@pytest.mark.parametrize("harm", [other_hash, without_a_known_file, torn, unreadable])
def test_a_list_that_contradicts_the_database_closes_nothing(
    world: World, harm: Callable[[World, Path], str]
) -> None:
    """It is said why, exit 1; no copy is added for it."""
    why = harm(world, left_since(world))
    assert f"P01: NOT CLOSED BY ITS PACKING LIST: {why}" in rebuilt(world, check=1).out
    assert world.disk_states()["P01"] == "active"
    assert [row[0] for row in rows(world, COPIES) if row[1] == "P01"] == [OLD]
    world.leave_unchecked("the database does not know all of a disk")


def test_the_list_of_a_drives_earlier_life_is_none_of_this_one(world: World) -> None:
    """It is older than the disk's first use, or than its return as an empty spare."""
    path = left_since(world)
    os.utime(path, (0, 0))
    run = rebuilt(world)
    assert "packing list" not in run.out
    assert "Not mounted, left as they were: P01." in run.out
    assert world.disk_states()["P01"] == "active"
    world.leave_unchecked("the database does not know all of a disk")


def test_no_list_counts_for_a_disk_that_is_here(world: World) -> None:
    """What is mounted says itself what is on it."""
    left_since(world)
    is_back(world)
    run = rebuilt(world)
    assert "P01  primary  ZTP01AA  closed: 3 files" in run.out
    assert "packing list" not in run.out
