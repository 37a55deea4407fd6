"""The operator's drill: the database is lost, or an older one put back, and archiving goes on.

The commands are those of docs/operators.md, taken from there and run as they stand.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.drills import follow, steps_of
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.stations import reasons
from tests.helpers.world import World

PUT_ASIDE, REBUILD, GIVE_UP, LOOK = steps_of("## database-error")
SEED = "fullrate/RCW38/80296951/0000.g3"
SINCE = "fullrate/RCW38/80296951/0001.g3"  # archived after the older database was copied
WAITING = "fullrate/RCW38/80296952/0000.g3"


def mid_season(world: World) -> Path:
    """P01 is closed, P02 and S01 are in use; a database of the day before lies aside."""
    world.put(SEED, 3000)
    world.put("again.g3", 500)
    world.generate()
    world.run_pass(check=0)
    older = world.root / "yesterday.sqlite"
    shutil.copy(world.db_path, older)
    world.put(SINCE, 4000)
    world.run_pass(check=0)
    world.run_pass("close", "--yes", "P01", check=0)
    world.put("on-p02.g3", 600)
    world.run_pass(check=0)
    world.put(WAITING, 5000)
    return older


def without_copies(world: World) -> None:
    """No disk that is in use had room for a copy of the database."""
    for label in ("P02", "S01"):
        (world.disks[label] / "catalogue.sqlite").unlink(missing_ok=True)


def archiving_goes_on(world: World, *notices: str) -> None:
    """The file that waited is archived, and so is what comes now; nothing was closed anew."""
    assert world.waiting() == set()
    world.check()
    assert {"P01": "closed", "P02": "active", "S01": "active"}.items() <= (
        world.disk_states().items()
    )
    closed = world.snapshot(world.disks["P01"])
    for name in ("next.g3", SEED):  # one is new, one comes again
        world.put(name, 3000)
    world.run_pass(check=0)
    assert world.waiting() == set()
    world.check(must_be_untouched=[closed])
    world.run_pass("verify", "P01", "P02", "S01", check=0)
    assert world.sql("SELECT 1 FROM files WHERE archived_at IS NULL") == []
    assert {kind for kind, _ in world.notices()} <= {"disk-closed", *notices}


# --- lost -------------------------------------------------------------------------------


def test_a_database_deleted_in_mid_season_comes_back_from_the_disks_alone(
    loop_world: LoopWorld,
) -> None:
    """Passes end with 2 and touch nothing; then the page's steps, with the closed disk's copy."""
    mid_season(loop_world)
    without_copies(loop_world)
    loop_world.db_path.unlink()
    before = loop_world.snapshot(loop_world.mounts)
    assert "database-error in docs/operators.md" in loop_world.run_pass(check=2).err
    assert loop_world.waiting() == {WAITING}
    assert before.differences(loop_world.snapshot(loop_world.mounts)) == []
    loop_world.db_path.with_name("pole.sqlite-journal").write_bytes(b"of the lost one")
    said = follow(loop_world, PUT_ASIDE, REBUILD, LOOK)
    closed = loop_world.disks["P01"] / "catalogue.sqlite"
    assert f"It began with the copy that knows most, {closed}: 3 files" in said
    assert "FAULT" not in said
    archiving_goes_on(loop_world)


def test_a_disks_own_copy_is_put_back_and_completed(loop_world: LoopWorld) -> None:
    """What no manifest tells comes with it: here a hold, and what was said of the disks."""
    mid_season(loop_world)
    loop_world.run_pass("hold", "--yes", "S02", "--why", "bad cable", check=0)
    (loop_world.disks["S01"] / "catalogue.sqlite").unlink()
    loop_world.put("last.g3", 100)
    loop_world.run_pass(check=0)  # makes a copy anew
    loop_world.put(WAITING, 5000)
    loop_world.db_path.write_bytes(b"\0" * 4096)  # the station's drive died
    assert loop_world.run_pass(check={1, 2}).code
    said = follow(loop_world, PUT_ASIDE, REBUILD, LOOK.replace("dm check\n", ""))
    assert "3 disks were read." in said
    copy = loop_world.disks["S01"] / "catalogue.sqlite"
    assert f"It began with the copy that knows most, {copy}: 6 files, the newest" in said
    (row,) = loop_world.sql("SELECT held_reason FROM disks WHERE label = 'S02'")
    assert row["held_reason"] == "bad cable"
    assert loop_world.sql("SELECT 1 FROM copies WHERE verified_at IS NULL") == []
    archiving_goes_on(loop_world)


@pytest.mark.parametrize("has_copy", [False, True])
def test_a_disk_that_died_with_the_database_is_made_again_from_the_others(
    loop_world: LoopWorld, has_copy: bool
) -> None:
    """The copy disk is dead: what it held is known of the primaries alone, and is copied anew."""
    world = loop_world
    mid_season(world)
    world.loops["S01"].umount()
    world.spoil("S01", None, "it died with the database")
    world.disks["S01"].rmdir()
    world.db_path.write_bytes(b"\0" * 4096)
    if not has_copy:
        for label in ("P01", "P02"):
            (world.disks[label] / "catalogue.sqlite").unlink(missing_ok=True)
        world.leave_unchecked("a closed disk has lost its copy of the database")
    said = follow(world, PUT_ASIDE, REBUILD)
    assert "2 disks were read." in said
    found = world.status("--json").json()
    told = {(notice["kind"], notice["key"]) for notice in found["notices"]}
    assert (("database-error", "S01") in told) == has_copy
    assert found["lacking_copies"] == (0 if has_copy else 4)
    said = follow(world, GIVE_UP)
    assert "0 files have no good copy left" in said
    assert world.archived("S02") == {SEED, "again.g3", SINCE, "on-p02.g3"}
    assert "FAULT" not in follow(world, LOOK)
    assert world.waiting() == set()
    assert world.sql("SELECT 1 FROM files WHERE archived_at IS NULL") == []
    world.run_pass("verify", "P01", "P02", "S02", check=0)
    world.run_pass(check=0)  # the first one may have told of a crash
    assert reasons(world) == []
    assert {kind for kind, _ in world.notices()} <= {"disk-closed"}


def test_a_day_old_database_is_put_back_and_completed(loop_world: LoopWorld) -> None:
    """It is completed as it is: nobody asked for a copy that a disk has."""
    older = mid_season(loop_world)
    put_back = f"cp {older} {loop_world.db_path}\n"
    said = follow(loop_world, PUT_ASIDE, put_back, REBUILD, LOOK)
    assert "P02  primary  ZTP02AA  active: 1 file (600 B), 1 of them new to the database" in said
    archiving_goes_on(loop_world, "pass-crashed")


# --- an older database, and nobody said so ------------------------------------------------


@pytest.mark.parametrize("comes_again", ["gone", "same", "other"])
def test_what_an_older_database_does_not_know_is_never_lost(world: World, comes_again: str) -> None:
    """Passes go on with it for a while: the archived file stays where it is, and is whole."""
    world.put(SEED, 3000)
    world.generate()
    world.run_pass(check=0)
    older = world.db_path.read_bytes()
    archived = world.put(SINCE, 4000)
    world.run_pass(check=0)
    world.db_path.write_bytes(older)
    before = [world.snapshot(world.data(label) / SINCE) for label in ("P01", "S01")]
    if comes_again != "gone":
        world.put(SINCE, 4000, seed=0 if comes_again == "same" else 1)
    mtimes = [(world.data(label) / SINCE).stat().st_ino for label in ("P01", "S01")]
    world.put("beside.g3", 100)
    world.run_pass(check=int(comes_again == "other"))
    assert world.waiting() == ({SINCE} if comes_again == "other" else set())
    for label, snapshot, inode in zip(("P01", "S01"), before, mtimes, strict=True):
        path = world.data(label) / SINCE
        assert path.stat().st_ino == inode
        assert world.snapshot(path).items[0][1].content == snapshot.items[0][1].content
        assert world.manifest(label)[SINCE] == archived.sha512
        assert not (world.disks[label] / ".aside").exists()
    conflicts = {("name-conflict", SINCE)} if comes_again == "other" else set()
    assert world.notices() == conflicts
    world.run("generate_db.py", "--from-disks", check=0)
    world.run_pass()
    world.check()
    assert world.sql("SELECT sha512 FROM files WHERE name = ?", SINCE)[0][0] == archived.sha512
    assert world.notices() == conflicts
