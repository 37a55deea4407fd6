"""``repair``: damaged and missing copies are made again from good ones; nothing is deleted."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import bagit
import pytest

from poledata.formatting import counted, utc_now
from tests.helpers.damaged_copies import copies, filled, harm, repair
from tests.helpers.halted import needs_strace
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.rack import (
    BATCH_FILES,
    HaltedAmongBatches,
    after_this_batch,
    answer,
    in_first_batch,
    make_busy,
    plug_in_again,
    pull,
    waiting_command,
)
from tests.helpers.stations import notice_text, reasons
from tests.helpers.verified_disks import process_of, standing_still_at
from tests.helpers.world import Run, World


def verify(world: World, *labels: str, check: int = 0) -> Run:
    return world.run_pass("verify", *labels, check=check)


LONG_AGO = "2026-01-02T03:04:05Z"


def done(count: int, size: str, *labels: str, aside: int = 0, on: str = "P01") -> str:
    """What a repair prints that left nothing undone; ``aside``: bad copies moved aside ``on``."""
    to = f", to {' and '.join(labels)}" if labels else ""
    every = "Every archived file that is no longer in the buffer has two good copies.\n"
    moved = f"{moved_aside(aside, on)}\n" if aside else ""
    return f"{counted(count, 'file', 'files')} copied ({size}){to}.\n{moved}{every}"


def moved_aside(count: int, label: str) -> str:
    return (
        f"{counted(count, 'bad copy was', 'bad copies were')} moved to .aside/ on {label}, which "
        "can't be closed before somebody empties that: data_manager.py explain copy-damaged"
    )


def aside(world: World, label: str) -> list[Path]:
    return sorted((world.disks[label] / ".aside").glob("*"))


# --- what it mends ------------------------------------------------------------------------


def test_a_flipped_bit_on_a_disk_in_use_is_copied_again(loop_world: LoopWorld) -> None:
    """The bad copy goes to .aside/ with its manifest line; the good one is read, never written."""
    filled(loop_world, "d/a.g3", "d/b.g3")
    before = loop_world.snapshot(loop_world.disks["S01"])
    loop_world.loops["P01"].flip_bit("data/d/a.g3", offset=5000)
    verify(loop_world, "P01", check=1)
    assert copies(loop_world, "d/a.g3") == {"P01": "damaged", "S01": "good"}
    run = repair(loop_world)
    assert run.out == done(1, "20 kB", "P01", aside=1)
    assert copies(loop_world, "d/a.g3") == {"P01": "good", "S01": "good"}
    assert len(aside(loop_world, "P01")) == 1
    assert before.differences(loop_world.snapshot(loop_world.disks["S01"])) == []
    assert sorted(loop_world.manifest("P01")) == ["d/a.g3", "d/b.g3"]
    assert reasons(loop_world) == []
    verify(loop_world, "P01", "S01")
    assert loop_world.notices() == set()
    assert repair(loop_world).out == done(0, "0 B")


def test_a_deleted_copy_is_made_again(loop_world: LoopWorld) -> None:
    """Its manifest line stands once afterwards, not twice."""
    world = loop_world
    filled(world, "a.g3", "b.g3")
    (world.data("S01") / "a.g3").unlink()
    verify(world, "S01", check=1)
    repair(world)
    assert world.archived("S01") == {"a.g3", "b.g3"}
    assert sorted(world.manifest("S01")) == ["a.g3", "b.g3"]
    verify(world, "S01")


def test_the_files_of_a_lost_disk_are_copied_to_the_next_ones(loop_world: LoopWorld) -> None:
    """Modes and times as before; the catalogue counts both copies again."""
    world = loop_world
    filled(world, "a.g3", "d/b.g3")
    mode_and_time = os.stat(world.data("S01") / "d/b.g3")
    world.loops["P01"].umount()
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    world.spoil("P01", None, "it is lost")
    assert "LOOK TODAY: 2 copies are damaged or missing" in world.status().out
    repair(world)
    assert world.archived("P02") == {"a.g3", "d/b.g3"}
    again = os.stat(world.data("P02") / "d/b.g3")
    assert (again.st_mtime_ns, again.st_mode) == (mode_and_time.st_mtime_ns, mode_and_time.st_mode)
    assert reasons(world) == []
    rows = world.sql("SELECT name, primary_label, copy_label FROM file_locations ORDER BY name")
    assert [tuple(row) for row in rows] == [("a.g3", "P02", "S01"), ("d/b.g3", "P02", "S01")]


def test_a_closed_bag_is_never_altered(loop_world: LoopWorld) -> None:
    """The new copy stands on a disk in use, and the catalogue says so."""
    filled(loop_world, "a.g3", "b.g3")
    loop_world.run_pass("close", "--yes", "P01", check=0)
    loop_world.loops["P01"].flip_bit("data/a.g3")
    loop_world.spoil("P01", "a.g3", "the test flips a bit")
    verify(loop_world, "P01", check=1)
    before = loop_world.snapshot(loop_world.disks["P01"])
    repair(loop_world)
    assert before.differences(loop_world.snapshot(loop_world.disks["P01"])) == []
    assert copies(loop_world, "a.g3") == {"P01": "damaged", "P02": "good", "S01": "good"}
    assert reasons(loop_world) == []
    verify(loop_world, "P01")  # of a copy that is made again elsewhere nobody is told any more
    assert loop_world.notices() == {("disk-closed", "P01")}
    rows = loop_world.sql("SELECT primary_label FROM file_locations WHERE name = 'a.g3'")
    assert [row["primary_label"] for row in rows] == ["P02"]


def test_what_lies_aside_keeps_a_disk_from_being_closed_until_somebody_looked(
    world: World,
) -> None:
    """Then it closes as a whole bag: no line and no row is left of the bad copy.

    Its slip ends with the repair, because that was the last time something was written to it.
    """
    filled(world, "a.g3", "b.g3")
    world.sql(
        "UPDATE disks SET first_used_at = ?1, last_used_at = ?1 WHERE label = 'P01'", LONG_AGO
    )
    harm(world, "P01", "a.g3")
    verify(world, "P01", check=1)
    repair(world)
    assert "set aside in .aside/" in world.run_pass("close", "--yes", "P01", check=1).err
    for thing in aside(world, "P01"):
        thing.unlink()
    (last,) = world.sql("SELECT archived_at FROM files WHERE name = 'b.g3'")[0]
    slip = world.run_pass("close", "--yes", "P01", check=0).out
    (ended,) = re.findall(rf"^In use from {LONG_AGO} to (\S+): 2 files", slip, re.MULTILINE)
    assert last <= ended <= utc_now()
    bagit.Bag(str(world.disks["P01"])).validate()


def test_a_bad_copy_on_a_full_disk_in_use_goes_aside_though_the_new_one_stands_elsewhere(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Else that disk could never be closed."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"], size_mb=32)
    filled(world, "a.g3", "b.g3")
    room = os.statvfs(world.disks["P01"])
    world.put("large.g3", room.f_bavail * room.f_frsize - 3_000_000)
    world.run_pass(check=0)
    world.loops["P01"].flip_bit("data/large.g3", offset=4096)
    world.loops["S01"].remount("rw")
    verify(world, "P01", check=1)
    repair(world)
    assert copies(world, "large.g3") == {"P02": "good", "S01": "good"}
    assert "large.g3" not in world.manifest("P01")
    (thing,) = aside(world, "P01")
    assert reasons(world) == []
    verify(world, "P01")
    thing.unlink()
    world.run_pass("close", "--yes", "P01", check=0)
    verify(world, "P01")
    assert world.notices() == {("disk-closed", "P01")}


def test_a_copy_that_was_bad_for_a_moment_is_good_again_and_stays(world: World) -> None:
    """A loose cable: the last good copy was noted as damaged. It is read, and nothing is lost."""
    filled(world, "a.g3", "b.g3")
    world.sql("UPDATE copies SET state = 'damaged' WHERE disk_id = 1")
    harm(world, "S01", "a.g3")  # nobody knows of it yet
    repair(world)
    assert copies(world, "a.g3") == copies(world, "b.g3") == {"P01": "good", "S01": "good"}
    assert aside(world, "P01") == []
    assert len(aside(world, "S01")) == 1
    verify(world, "P01", "S01")
    assert reasons(world) == []


def test_a_notice_of_something_else_than_bad_copies_stays(world: World) -> None:
    """Two disks that say different things are no matter of copying again."""
    filled(world, "a.g3")
    world.sql(
        "INSERT INTO findings (kind, key, severity, text, found_at) VALUES "
        "('copy-damaged', 'P01', 'warning', 'By its manifest …', '2026-01-01T00:00:00Z')"
    )
    repair(world)
    assert world.notices() == {("copy-damaged", "P01")}


def leave_bad_copies(world: World, *names: str) -> None:
    """On P01, beside good ones on P02: what a kill leaves looks the same."""
    world.sql("UPDATE disks SET held_by = 'person', held_reason = 'test' WHERE label = 'P01'")
    for name in names:
        harm(world, "P01", name)
    verify(world, "P01", check=1)
    repair(world)  # a held disk is left as it is
    for name in names:
        assert copies(world, name) == {"P01": "damaged", "P02": "good", "S01": "good"}
    world.run_pass("unhold", "P01", check=0)


def test_what_a_killed_repair_did_not_tell_is_told_by_the_next(world: World) -> None:
    """All was mended, and the notices of the disk and of the source stood still."""
    filled(world, "a.g3")
    harm(world, "P01", "a.g3")
    verify(world, "P01", check=1)
    world.sql(
        "INSERT INTO findings (kind, key, severity, text, found_at) VALUES "
        "('copy-damaged', 'a.g3', 'warning', 'Its copy on S01 …', '2026-01-01T00:00:00Z')"
    )
    told = {("copy-damaged", "P01"), ("copy-damaged", "a.g3")}
    world.run_pass("resume", check=0)
    assert world.notices() == told
    found = world.sql("SELECT kind, key, severity, text, value, found_at FROM findings")
    repair(world)
    for row in found:
        world.sql("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?)", *row)
    world.run_pass("resume", check=0)
    assert world.notices() == told  # as a kill leaves it between the last copy and its last words
    assert repair(world).out == done(0, "0 B")
    assert world.notices() == set()


@needs_strace
def test_a_pass_need_not_wait_till_all_bad_copies_were_read_again(world: World) -> None:
    """There may be terabytes of them: they go in batches, and the turn is given away between."""
    names = [f"{number}.g3" for number in range(BATCH_FILES + 1)]
    filled(world, *names)
    leave_bad_copies(world, *names)
    first = world.data("P01") / names[0]
    halted = HaltedAmongBatches(world, "preadv,preadv2", [first], args=["repair"])
    with after_this_batch(world, halted):
        assert len(aside(world, "P01")) == BATCH_FILES
    halted.end(check=0, out=done(0, "0 B", aside=BATCH_FILES + 1))
    assert len(aside(world, "P01")) == BATCH_FILES + 1


@needs_strace
def test_a_repair_that_reads_bad_copies_again_can_be_interrupted(world: World) -> None:
    """130; what was only read stays as it was, and the next one sets it aside."""
    filled(world, "a.g3", "b.g3")
    leave_bad_copies(world, "a.g3", "b.g3")
    reading, thread = standing_still_at(world, "b.g3", args=["repair"])
    os.kill(process_of(thread), signal.SIGINT)
    os.kill(thread, signal.SIGCONT)
    assert reading.wait(timeout=60) == 130
    world.unfinished = False
    assert aside(world, "P01") == []
    assert set(world.manifest("P01")) == {"a.g3", "b.g3"}
    assert repair(world).out == done(0, "0 B", aside=2)
    assert len(aside(world, "P01")) == 2


def test_what_a_killed_repair_left_beside_its_new_copy_is_cleared_by_the_next(world: World) -> None:
    """Else that disk could never be closed."""
    filled(world, "a.g3", "b.g3")
    leave_bad_copies(world, "a.g3")
    assert repair(world).out == done(0, "0 B", aside=1)
    assert copies(world, "a.g3") == {"P02": "good", "S01": "good"}
    (thing,) = aside(world, "P01")
    thing.unlink()
    world.run_pass("close", "--yes", "P01", check=0)


def test_nothing_is_set_aside_before_there_is_a_proved_copy(world: World) -> None:
    """The source is as bad as what it was to mend: both stay where they are."""
    filled(world, "a.g3")
    for label in ("P01", "S01"):
        harm(world, label, "a.g3")
        world.spoil(label, "a.g3", "the test harms it")
    verify(world, "P01", check=1)
    assert "NO GOOD COPY of a.g3" in repair(world, check=1).out
    assert copies(world, "a.g3") == {"P01": "damaged", "S01": "damaged"}
    assert aside(world, "P01") == aside(world, "S01") == []
    assert "a.g3" in world.manifest("P01")
    world.leave_unchecked("both copies of a file were harmed")


# --- files that never had both ----------------------------------------------------------------


def test_a_file_with_a_copy_in_one_role_alone_gets_the_other_one(world: World) -> None:
    """The database was lost, and the copy disk with it: what is left is not two copies."""
    filled(world, "a.g3", "d/b.g3")
    world.disks["S01"].rename(world.root / "dead")
    world.disks["S01"].mkdir()
    world.spoil("S01", None, "it is dead")
    (world.disks["P01"] / "catalogue.sqlite").unlink()
    for path in world.db_path.parent.glob("pole.sqlite*"):
        path.unlink()
    world.run(
        "generate_db.py", "--from-disks", "--disk-map", str(world.disk_map_path), check={0, 1}
    )
    said = world.status().out
    assert "LOOK TODAY: 2 copies are damaged or missing: data_manager.py repair" in said
    assert repair(world).out.startswith("2 files copied (40 kB), to S0")
    assert reasons(world) == []
    assert world.sql("SELECT name FROM files WHERE archived_at IS NULL") == []


def test_what_the_buffer_still_holds_is_for_the_passes(tmp_path: Path) -> None:
    """A file whose second copy waits for a disk lacks nothing that repair could give."""
    world = World(tmp_path, primaries=["P01"], copies=["S01"])
    try:
        world.put("a.g3", 20_000)
        world.generate()
        world.disks["S01"].rmdir()
        world.run_pass(check=1)
        assert copies(world, "a.g3") == {"P01": "good"}
        assert "damaged or missing" not in world.status().out
        world.disks["S01"].mkdir()
        assert repair(world).out == done(0, "0 B")
        world.run_pass(check=0)
        assert copies(world, "a.g3") == {"P01": "good", "S01": "good"}
    finally:
        world.close()


# --- a disk that is to go --------------------------------------------------------------------


def test_a_held_disk_is_emptied_onto_others(world: World) -> None:
    """All that is on it stands elsewhere too, also read from it; then it may be given up."""
    filled(world, "a.g3", "b.g3")
    run = repair(world, "P01", check=2)
    assert "P01 is not held" in run.err and "Nothing was changed" in run.err
    world.run_pass("hold", "--yes", "P01", "--why", "it rattles", check=0)
    before = world.snapshot(world.disks["P01"])
    run = repair(world, "P01")
    assert run.out == (
        "2 files copied (40 kB), to P02.\n"
        "Everything on P01 is on other disks too. Once it is gone for good:\n"
        '  data_manager.py lost P01 --why "…"\n'
    )
    assert before.differences(world.snapshot(world.disks["P01"])) == []
    assert copies(world, "a.g3") == {"P01": "good", "P02": "good", "S01": "good"}
    world.run_pass("lost", "P01", "--why", "it rattles", check=0)
    world.spoil("P01", None, "it is given up")
    assert repair(world).out == done(0, "0 B")
    assert world.notices() == set()


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_copy_that_turns_out_bad_after_another_was_made_is_told_of_while_it_is_to_be_mended(
    world: World, is_closed: bool
) -> None:
    """On a disk in use repair sets it aside, and the notice ends; a closed one is left in peace."""
    filled(world, "a.g3")
    world.run_pass("hold", "--yes", "P01", "--why", "it clicks", check=0)
    repair(world, "P01")
    world.run_pass("unhold", "P01", check=0)
    if is_closed:
        world.run_pass("close", "--yes", "P01", check=0)
    harm(world, "P01", "a.g3")
    world.spoil("P01", "a.g3", "the test harms it")
    verify(world, "P01", check=1)
    told = ("copy-damaged", "P01") in world.notices()
    assert told is not is_closed
    repair(world)
    assert ("copy-damaged", "P01") not in world.notices()
    assert len(aside(world, "P01")) == (0 if is_closed else 1)


def test_a_held_disk_is_read_itself_where_the_other_copy_is_not_here(world: World) -> None:
    """A dying drive still gives most of its files back."""
    filled(world, "a.g3")
    world.run_pass("hold", "--yes", "P01", "--why", "it rattles", check=0)
    world.run_pass("close", "--yes", "S01", check=0)
    world.disks["S01"].rename(world.root / "shelf")
    repair(world, "P01")
    assert world.archived("P02") == {"a.g3"}
    (world.root / "shelf").rename(world.disks["S01"])


# --- what it can't ------------------------------------------------------------------------


def test_where_no_good_copy_is_left_it_says_so(loop_world: LoopWorld) -> None:
    """The others are mended; exit 1; nothing bad is touched."""
    world = loop_world
    filled(world, "a.g3", "b.g3")
    for label, name in (("P01", "a.g3"), ("S01", "a.g3"), ("P01", "b.g3")):
        harm(world, label, name)
        world.spoil(label, name, "the test harms it")
    verify(world, "P01", "S01", check=1)
    run = repair(world, check=1)
    assert run.out.splitlines()[0].startswith("NO GOOD COPY of a.g3: see no-good-copy")
    copied = "1 file copied (20 kB), to P01."
    assert run.out.splitlines()[1:] == [copied, moved_aside(1, "P01")]
    assert copies(world, "a.g3") == {"P01": "damaged", "S01": "damaged"}
    assert copies(world, "b.g3") == {"P01": "good", "S01": "good"}
    assert ("no-good-copy", "ZTP01AA") in world.notices()
    assert (world.data("P01") / "a.g3").exists()
    world.leave_unchecked("both copies of a file were harmed")


def test_a_source_that_turns_out_bad_is_noted_and_never_copied(world: World) -> None:
    """It was good in the catalogue; reading it on the way shows what it is."""
    filled(world, "a.g3")
    harm(world, "S01", "a.g3")
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    for label in ("P01", "S01"):
        world.spoil(label, "a.g3", "the test harms it")
    run = repair(world, check=1)
    assert "NO GOOD COPY of a.g3" in run.out
    assert copies(world, "a.g3") == {"P01": "missing", "S01": "damaged"}
    assert not (world.data("P02") / "a.g3").exists()
    assert "S01" in notice_text(world, "copy-damaged", "a.g3")
    assert ("no-good-copy", "ZTS01AA") in world.notices()
    world.leave_unchecked("both copies were harmed")


def test_it_names_the_disk_that_is_to_be_mounted(world: World) -> None:
    """Good copies on the shelf, or shipped: exit 1, and how many files wait for which disk."""
    filled(world, "a.g3", "b.g3")
    world.run_pass("close", "--yes", "S01", check=0)
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    world.spoil("P01", None, "it is lost")
    world.disks["S01"].rename(world.root / "shelf")
    run = repair(world, check=1)
    only = "The only good copy of 2 files is on S01, "
    assert f"{only}which is not mounted: mount it, then repair again" in run.out
    world.sql("UPDATE disks SET state = 'shipped' WHERE label = 'S01'")
    world.sql("INSERT INTO disk_events (disk_id, at, event) SELECT id, '2026-11-30T08:00:00Z', "
              "'shipped' FROM disks WHERE label = 'S01'")  # fmt: skip
    run = repair(world, check=1)
    assert f"{only}shipped 2026-11-30: ask the people up north" in run.out
    world.sql("UPDATE disks SET state = 'closed' WHERE label = 'S01'")
    (world.root / "shelf").rename(world.disks["S01"])
    repair(world)
    assert world.archived("P02") == {"a.g3", "b.g3"}


def test_without_a_disk_of_the_role_the_files_wait(tmp_path: Path) -> None:
    """Exit 1, and what to mount."""
    world = World(tmp_path, primaries=["P01"], copies=["S01"])
    try:
        filled(world, "a.g3")
        world.run_pass("lost", "P01", "--why", "it fell", check=0)
        world.spoil("P01", None, "it is lost")
        run = repair(world, check=1)
        assert "No disk has room for 1 file: mount a spare, then repair again" in run.out
    finally:
        world.close()


def test_a_target_that_fails_is_left_for_the_next_one(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """As in a pass: the file goes to another disk of the role."""
    world = make_loop_world(primaries=["P01", "P02", "P03"], copies=["S01"])
    filled(world, "a.g3")
    world.loops["P01"].umount()
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    world.spoil("P01", None, "it is lost")
    world.loops["P02"].remount("ro")
    repair(world)
    assert world.archived("P03") == {"a.g3"}


@needs_strace
def test_a_source_disk_that_dies_is_told_of_and_none_of_its_copies_is_blamed(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """What was read counts; the rest can be copied once it answers again."""
    world = make_loop_world()
    names = [f"{number}.g3" for number in range(4)]
    filled(world, *names)
    world.loops["P01"].umount()
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    world.spoil("P01", None, "it is lost")
    at_work, thread = standing_still_at(world, "1.g3", "S01", ["repair"])
    pull(world, "S01")
    os.kill(thread, signal.SIGCONT)
    assert at_work.wait(timeout=60) == 1
    world.unfinished = False
    said = (world.root / "out").read_text()
    assert "is on S01, which is not mounted: mount it, then repair again" in said
    assert {copies(world, name)["S01"] for name in names} == {"good"}
    assert ("disk-error", "S01") in world.notices()
    plug_in_again(world, "S01")
    repair(world)
    assert world.archived("P02") == set(names)
    assert aside(world, "S01") == []


# --- what stands in a file's way -------------------------------------------------------------

OBSTACLES = {
    "a directory has its name": ("rr/1.g3", "rr/1.g3", lambda path: path.mkdir()),
    "a file stands for its directory": ("q/1.g3", "q", lambda path: path.write_bytes(b"not ours")),
    "a link stands for its directory": ("z/1.g3", "z", lambda path: path.symlink_to("/nowhere")),
}


def put_in_the_way(world: World, label: str, what: str) -> str:
    """The copy is lost, and something stands where it must go; the name of the file."""
    name, where, put = OBSTACLES[what]
    copy = world.data(label) / name
    if copy.exists():
        copy.unlink()
        verify(world, label, check=1)
        copy.parent.rmdir()
    place = world.data(label) / where
    place.parent.mkdir(parents=True, exist_ok=True)
    put(place)
    world.spoil(label, None, "something is in its way")
    return name


@pytest.mark.parametrize("what", OBSTACLES)
def test_what_stands_in_a_files_way_sends_its_copy_to_the_next_disk(
    world: World, what: str
) -> None:
    """The dry run says the same as is done; other files go where they went; nothing is moved."""
    filled(world, OBSTACLES[what][0], "b.g3")
    harm(world, "S01", "b.g3")
    name = put_in_the_way(world, "S01", what)
    verify(world, "S01", check=1)
    obstacle = os.lstat(world.data("S01") / OBSTACLES[what][1])
    run = repair(world, "--dry-run")
    assert sorted(run.out.splitlines()) == [
        "Dry run: nothing was changed.",
        "would copy b.g3 (20 kB) to S01",
        f"would copy {name} (20 kB) to S02",
    ]
    assert repair(world).out == done(2, "40 kB", "S01", "S02", aside=1, on="S01")
    assert copies(world, name) == {"P01": "good", "S02": "good"}
    assert copies(world, "b.g3") == {"P01": "good", "S01": "good"}
    assert os.lstat(world.data("S01") / OBSTACLES[what][1]).st_ino == obstacle.st_ino
    assert reasons(world) == []


@pytest.mark.parametrize("what", OBSTACLES)
def test_where_no_other_disk_is_the_obstacle_is_named_and_what_next(
    tmp_path: Path, what: str
) -> None:
    """By both runs, each with 1; others are mended all the same, and it needs no further try."""
    world = World(tmp_path, primaries=["P01"], copies=["S01"])
    try:
        filled(world, OBSTACLES[what][0], "b.g3")
        harm(world, "S01", "b.g3")
        name = put_in_the_way(world, "S01", what)
        verify(world, "S01", check=1)
        place = world.data("S01") / OBSTACLES[what][1]
        kind = "a directory" if place.is_dir() else "something"
        said = (
            f"NOT REPAIRED {name}: on S01 {kind} is in its way ({place}). Mount a spare copy "
            "disk, or see name-conflict in docs/operators.md; then repair again"
        )
        assert repair(world, "--dry-run", check=1).out.splitlines() == [
            "would copy b.g3 (20 kB) to S01",
            said,
            "Dry run: nothing was changed.",
        ]
        copied = "1 file copied (20 kB), to S01."
        printed = repair(world, check=1).out.splitlines()
        assert printed == [said, copied, moved_aside(1, "S01")]
        world.add_disk("S02")
        world.generate()
        assert repair(world).out == done(1, "20 kB", "S02")
    finally:
        world.close()


def test_on_every_disk_with_an_obstacle_it_is_named(world: World) -> None:
    """It is tried on each disk of the role; the spare is asked for only then."""
    filled(world, "q/1.g3")
    put_in_the_way(world, "S01", "a file stands for its directory")
    world.put("c.g3")
    world.run_pass("hold", "--yes", "S01", "--why", "test", check=0)
    world.run_pass(check=0)  # now S02 is in use, too
    world.run_pass("unhold", "S01", check=0)
    put_in_the_way(world, "S02", "a link stands for its directory")
    (world.data("S02") / "z").rename(world.data("S02") / "q")
    for args in (["--dry-run"], []):
        (line, *_) = repair(world, *args, check=1).out.splitlines()
        for label in ("S01", "S02"):
            assert f"on {label} something is in its way ({world.data(label) / 'q'})" in line


@pytest.mark.root
def test_another_file_system_in_a_directorys_place_is_in_the_way(
    world: World, loop_disk: Callable[..., object], tmp_path: Path
) -> None:
    """No file can be moved from .incoming/ to there."""
    filled(world, "m/1.g3")
    (world.data("S01") / "m/1.g3").unlink()
    verify(world, "S01", check=1)
    loop_disk(tmp_path / "other.img", world.data("S01") / "m", fs="ext4")
    assert "would copy m/1.g3 (20 kB) to S02" in repair(world, "--dry-run").out
    assert repair(world).out == done(1, "20 kB", "S02")


def test_content_that_is_archived_under_the_same_name_sends_the_copy_to_the_next_disk(
    world: World,
) -> None:
    """By its manifest the disk holds another file: it stays, as an older database can't know it."""
    filled(world, "a.g3")
    other = b"x" * 20_000
    path = world.data("S01") / "a.g3"
    path.chmod(0o644)
    path.write_bytes(other)
    manifest = world.disks["S01"] / "manifest-sha512.txt"
    manifest.write_text(f"{hashlib.sha512(other).hexdigest()}  data/a.g3\n")
    verify(world, "S01", check=1)
    world.spoil("S01", "a.g3", "another file has its name")
    before = path.stat().st_ino, manifest.read_text()
    assert "would copy a.g3 (20 kB) to S02" in repair(world, "--dry-run").out
    assert repair(world, check=1).out.splitlines() == [
        "NOT REPAIRED a.g3: by its manifest, other content is archived on S01 under this name; it "
        "stays there: see name-conflict in docs/operators.md",
        "1 file copied (20 kB), to S02.",
    ]
    assert copies(world, "a.g3") == {"P01": "good", "S01": "damaged", "S02": "good"}
    assert before == (path.stat().st_ino, manifest.read_text())
    world.leave_unchecked("the test wrote a manifest line of its own")


def test_a_directory_in_a_bad_copys_place_is_never_moved(world: World) -> None:
    """It may hold archived files: when the copy is made again elsewhere, only its row goes."""
    filled(world, "rr/1.g3")
    world.run_pass("hold", "--yes", "S01", "--why", "test", check=0)
    put_in_the_way(world, "S01", "a directory has its name")
    assert repair(world).out == done(1, "20 kB", "S02")
    world.run_pass("unhold", "S01", check=0)
    assert repair(world).out == done(0, "0 B")
    assert (world.data("S01") / "rr/1.g3").is_dir()
    assert aside(world, "S01") == []
    assert copies(world, "rr/1.g3") == {"P01": "good", "S02": "good"}


# --- looking first, and beside a pass --------------------------------------------------------


def test_a_dry_run_shows_the_plan_and_changes_nothing(world: World) -> None:
    """The same names and disks as the real one."""
    filled(world, "a.g3", "b.g3")
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    world.spoil("P01", None, "it is lost")
    before = world.snapshot(world.mounts), world.sql("SELECT * FROM copies")
    run = repair(world, "--dry-run")
    assert run.out.splitlines()[:2] == [
        "would copy a.g3 (20 kB) to P02",
        "would copy b.g3 (20 kB) to P02",
    ]
    assert run.out.splitlines()[-1] == "Dry run: nothing was changed."
    assert before[0] == world.snapshot(world.mounts)
    assert list(map(tuple, before[1])) == list(map(tuple, world.sql("SELECT * FROM copies")))
    assert world.disk_states()["P02"] == "spare"


@needs_strace
def test_it_takes_turns_with_a_running_pass(make_loop_world: Callable[..., LoopWorld]) -> None:
    """It waits for the batch at work; both come to their end."""
    world = make_busy(make_loop_world, ["P01", "P02"])
    (world.data("P01") / "seed.g3").unlink()
    verify(world, "P01", check=1)
    halted = in_first_batch(world)
    waiting = waiting_command(world, "repair")
    halted.let_go()
    assert answer(waiting) == done(1, "100 B", "P01")
    halted.end(check=0)
    assert world.waiting() == set()


def test_only_a_held_disk_in_use_is_emptied(world: World) -> None:
    """Of another one it says what it is."""
    filled(world, "a.g3")
    world.run_pass("close", "--yes", "P01", check=0)
    run = repair(world, "P01", check=2)
    assert "P01 is closed: nothing is written to it. Nothing was changed." in run.err


@pytest.mark.parametrize("argument", ["nobody", "S01"])
def test_what_makes_no_sense_is_refused(world: World, argument: str) -> None:
    """An unknown label; a disk that is not held."""
    filled(world, "a.g3")
    assert "Nothing was changed" in repair(world, argument, check=2).err
