"""A database that does not know all that is on the disks never looks like a whole one."""

from __future__ import annotations

import os
import random
import signal

import pytest

from poledata import db
from poledata.errors import DatabaseUnusable
from tests.helpers.halted import needs_strace, strace
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.lost_database import COPIES, DISKS, FILES, filled, lose_database, rebuilt, rows
from tests.helpers.stations import reasons
from tests.helpers.world import World

COMMAND = "generate_db.py --from-disks"
COMPLETE_IT = (
    "the database does not know all that is on the disks. No file is lost by it. "
    f"Run it again: {COMMAND}"
)


def killed_at(world: World, nth: int) -> None:
    """A rebuild that gets SIGKILL amid a commit."""
    prefix = strace(world, "fdatasync,fsync", [], f"signal=SIGKILL:when={nth}")
    run = world.run("generate_db.py", "--from-disks", prefix=prefix)
    assert run.code in (-signal.SIGKILL, 128 + signal.SIGKILL), run


def names_below_parent_database(world: World) -> set[str]:
    """All files whose name holds the database's, but for the locks."""
    locks = {
        f"{world.db_path.name}.{suffix}" for suffix in ("turn", "door", "lock", "post", "ended")
    }
    return {name for name in os.listdir(world.db_path.parent) if "pole.sqlite" in name} - locks


def older_database(world: World) -> None:
    """It knows one file of each disk; two more were archived since."""
    world.put("first.g3", 1000)
    world.generate()
    world.run_pass(check=0)
    older = world.db_path.read_bytes()
    for name in ("second.g3", "third.g3"):
        world.put(name, 2000)
    world.run_pass(check=0)
    world.db_path.write_bytes(older)


def says_that_it_is_not_complete(world: World, key: str, why: str) -> None:
    """A notice, ``status``, ``check`` and the exit code of ``check``."""
    assert ("database-error", key) in world.notices()
    said = world.status(check=0).out
    assert said.startswith("LOOK TODAY: ")
    assert f"WARNING database-error {key}, since " in said
    assert why in said
    lines = world.run_pass("check", check=1).out.splitlines()
    assert any(line.startswith("FAULT the database, ") and why in line for line in lines)


# --- killed -------------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize("nth", [1, 5, 9, 13, 20])
def test_a_killed_run_leaves_no_database_that_a_pass_would_take_for_one(
    world: World, nth: int
) -> None:
    """Passes go on to end with 2; the next run clears what was left, and makes it whole."""
    filled(world)
    expected = [rows(world, query) for query in (FILES, DISKS, COPIES)]
    lose_database(world)
    killed_at(world, nth)
    assert not world.db_path.exists()
    assert "there is no database" in world.run_pass(check=2).err
    assert "there is no database" in world.status(check=2).err
    rebuilt(world)
    assert [rows(world, query) for query in (FILES, DISKS, COPIES)] == expected
    assert names_below_parent_database(world) == {"pole.sqlite"}
    assert world.notices() == set()


@needs_strace
def test_an_older_database_says_that_a_killed_run_did_not_complete_it(world: World) -> None:
    """Noted before the first row is written; each pass reports it until a run has ended."""
    older_database(world)
    before = rows(world, FILES)
    killed_at(world, 6)
    assert rows(world, FILES) == before
    world.run_pass(check=0)
    says_that_it_is_not_complete(world, "rebuild", COMPLETE_IT)
    rebuilt(world)
    assert len(rows(world, FILES)) == 3
    assert world.notices() == set()
    assert reasons(world) == []
    assert "FAULT" not in world.run_pass("check", check=0).out


def test_no_database_that_was_made_meanwhile_is_replaced(world: World) -> None:
    """Whoever comes second is refused, and leaves nothing."""
    meanwhile = pytest.raises(DatabaseUnusable, match="another database was made here meanwhile")
    with meanwhile, db.database_files.unfinished_database(world.db_path):
        world.db_path.write_bytes(b"of another program")
    assert world.db_path.read_bytes() == b"of another program"
    assert names_below_parent_database(world) == {"pole.sqlite"}
    world.leave_unchecked("the database is none")


# --- disks that were not read -------------------------------------------------------------


def test_a_disk_that_was_not_used_is_said_until_a_run_has_read_it(loop_world: LoopWorld) -> None:
    """Two disks are swapped: exit 1, and LOOK TODAY, until each is in its place."""
    world = filled(loop_world)
    expected = [rows(world, query) for query in (FILES, DISKS, COPIES)]
    world.run_pass("pause", "--why", "disks are moved", check=0)
    lose_database(world)
    first, spare = world.loops["P01"], world.loops["P02"]
    for loop in (first, spare):
        loop.umount()
    first.mount(world.disks["P02"])
    spare.mount(world.disks["P01"])
    rebuilt(world, check=1)
    place = str(world.disks["P02"])
    why = "its mark says P01: mount it at the place of that label. The disk at"
    says_that_it_is_not_complete(world, place, why)
    world.run_pass()
    says_that_it_is_not_complete(world, place, why)
    for loop in (first, spare):
        loop.umount()
    first.mount(world.disks["P01"])
    spare.mount(world.disks["P02"])
    says_that_it_is_not_complete(world, place, why)
    rebuilt(world)
    assert [rows(world, query) for query in (FILES, DISKS, COPIES)] == expected
    assert world.notices() == set()


@pytest.mark.parametrize("ends_by", ["reading it", "lost"])
def test_a_disk_in_use_that_was_not_mounted_is_said_until_it_was_read_or_is_noted(
    world: World, ends_by: str
) -> None:
    """Mounting it alone is not enough: the database does not know all of it yet."""
    older_database(world)
    away = world.disks["P01"].rename(world.root / "away")
    world.disks["P01"].mkdir()
    rebuilt(world)
    why = "P01 (ZTP01AA) was not mounted: the database may not know all that is on it."
    says_that_it_is_not_complete(world, "P01", why)
    if ends_by == "lost":
        world.run_pass("lost", "P01", "--why", "it is dead", check=0)
        world.leave_unchecked("a disk is dead")
    else:
        world.disks["P01"].rmdir()
        away.rename(world.disks["P01"])
        world.run_pass(check=0)
        says_that_it_is_not_complete(world, "P01", why)
        rebuilt(world)
    assert ("database-error", "P01") not in world.notices()


def test_a_closed_disk_on_the_shelf_is_known_in_full(world: World) -> None:
    """It got no file since the database knew it as closed: nothing is said of it."""
    filled(world)
    world.run_pass("close", "--yes", "P01", check=0)
    away = world.disks["P01"].rename(world.root / "shelf")
    rebuilt(world)
    assert {kind for kind, _ in world.notices()} <= {"disk-closed"}
    away.rename(world.disks["P01"])


# --- damaged inside -----------------------------------------------------------------------


def harm_page(world: World, table: str) -> None:
    """Random bytes in the middle of the file: they stand where a table, or an index, begins."""
    (page,) = world.sql("SELECT rootpage FROM sqlite_schema WHERE name = ?", table)[0]
    (size,) = world.sql("PRAGMA page_size")[0]
    with world.db_path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(random.Random(0).randbytes(size))


@pytest.mark.parametrize("table", ["files", "sqlite_autoindex_files_1", "rehashed", "disks"])
def test_a_database_that_is_damaged_inside_is_a_fault_and_nothing_is_built_on_it(
    world: World, table: str
) -> None:
    """``check`` says it (exit 1); ``--from-disks`` refuses (exit 2) until it is put aside."""
    filled(world)
    expected = rows(world, FILES)
    harm_page(world, table)
    steps = "database-error in docs/operators.md"
    checked = world.run_pass("check", check=1)
    assert "malformed" in checked.err or f"FAULT {world.db_path} is damaged inside (" in checked.out
    assert steps in checked.out + checked.err
    before = world.snapshot(world.root)
    for dry in ([], ["--dry-run"]):
        run = rebuilt(world, *dry, check=2)
        assert f"{world.db_path}: the database is damaged inside: " in run.err
        assert f"Nothing was changed. Nothing is built on that: put it aside first, as {steps}" in (
            run.err
        )
        changed = before.differences(world.snapshot(world.root))
        assert [each for each in changed if "pole.sqlite." not in each and ".log" not in each] == []
    lose_database(world)
    rebuilt(world)
    assert rows(world, FILES) == expected


def test_a_database_whose_end_is_cut_off_is_refused_the_same(world: World) -> None:
    """SQLite itself would go on with zeros."""
    filled(world)
    world.sql("UPDATE disk_events SET reason = hex(randomblob(9000)) WHERE id = 1")
    os.truncate(world.db_path, world.db_path.stat().st_size - 100)
    run = rebuilt(world, check=2)
    assert "the database is damaged inside: its end is cut off. Nothing was changed." in run.err
    world.leave_unchecked("the database is damaged")


def test_a_database_without_the_pages_of_its_indexes_is_refused_the_same(world: World) -> None:
    """SQLite can't even be asked about it."""
    filled(world)
    os.truncate(world.db_path, world.db_path.stat().st_size - 4096)
    run = rebuilt(world, check=2)
    assert "the database is damaged inside: " in run.err and "malformed" in run.err
    world.leave_unchecked("the database is damaged")
