"""A name that is archived comes again; a copy is gone or damaged; a file fails time after time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.halted import needs_strace, strace
from tests.helpers.invariants import sha512_of
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"
SIZE_BYTES = 300_001
LONG_AGO = "2000-01-01T00:00:00Z"


def archived_world(world: World) -> World:
    """NAME is archived, and has left the buffer."""
    world.put(NAME, SIZE_BYTES)
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    return world


def make_due(world: World) -> None:
    """All that failed may be tried again at once."""
    world.sql("UPDATE pending SET next_try_at = ?", LONG_AGO)


def reads_of(world: World, path: Path, check: int) -> int:
    """How often a pass reads from a file; each read may be 4 MiB."""
    calls = "preadv,preadv2,pread64,read,readv"
    world.run_pass(prefix=strace(world, calls, [path]), check=check)
    return sum("read" in line for line in (world.root / "trace").read_text().splitlines())


def inode(path: Path) -> int:
    return path.stat().st_ino


def copy_states(world: World, name: str = NAME) -> dict[str, str]:
    """Label → state, of a file's copies."""
    rows = world.sql(
        "SELECT d.label, c.state FROM copies c JOIN disks d ON d.id = c.disk_id "
        "JOIN files f ON f.id = c.file_id WHERE f.name = ?",
        name,
    )
    return {row["label"]: row["state"] for row in rows}


# --- the same content --------------------------------------------------------------------


def test_the_same_file_again_is_removed_and_not_copied_again(world: World) -> None:
    """It was hashed, and both its copies were looked at: that is the proof it needs."""
    archived_world(world)
    before = [world.snapshot(world.disks[label]) for label in ("P01", "S01")]
    archived_at = world.sql("SELECT archived_at FROM files")[0]["archived_at"]
    world.put(NAME, SIZE_BYTES, mtime_s=1_600_000_000)  # when it was made anew is no matter
    world.run_pass(check=0)
    assert world.waiting() == set()
    world.check(must_be_untouched=before)
    assert [row["archived_at"] for row in world.sql("SELECT * FROM files")] == [archived_at]
    assert world.sql("SELECT * FROM rehashed") == []


@pytest.mark.parametrize("label", ["P01", "S01"])
def test_the_same_file_again_stays_if_a_copy_has_no_manifest_line(world: World, label: str) -> None:
    """A copy that any other machine would not find is no ground for removal."""
    archived_world(world)
    manifest = world.disks[label] / "manifest-sha512.txt"
    line = manifest.read_bytes()
    manifest.write_bytes(b"")
    world.put(NAME, SIZE_BYTES)
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert world.notices() == {("not-removed", NAME), ("disk-differs", label)}
    assert f"{label}: its manifest line is not there" in world.log()
    manifest.write_bytes(line)
    make_due(world)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


@needs_strace
def test_a_file_that_has_to_stay_is_hashed_once(world: World) -> None:
    """As long as nobody touches it, its SHA-512 is remembered."""
    archived_world(world)
    world.put(NAME, SIZE_BYTES, seed=1)
    path = world.buffer / NAME
    assert reads_of(world, path, check=1) == 1
    for _ in range(2):
        make_due(world)
        assert reads_of(world, path, check=1) == 0
    os.utime(path)
    assert reads_of(world, path, check=1) == 1


@pytest.mark.parametrize(("label", "other"), [("P01", "P02"), ("S01", "S02")])
def test_the_same_file_again_is_archived_anew_where_a_disk_is_missing(
    world: World, label: str, other: str
) -> None:
    """A copy that can't be looked at proves nothing: another disk gets one."""
    archived_world(world)
    away = world.disks[label].rename(world.root / "on_the_shelf")
    world.put(NAME, SIZE_BYTES)
    world.run_pass(check={0, 1})
    assert world.waiting() == set()
    assert world.archived(other) == {NAME}
    assert ("disk-missing", label) in world.notices()
    away.rename(world.disks[label])
    world.put("next.g3", 100)
    world.run_pass(check=0)
    assert set(copy_states(world).values()) == {"good"}
    assert copy_states(world).keys() == {"P01", "S01", other}
    assert world.notices() == set()


def test_the_same_file_again_is_archived_anew_where_its_disks_were_shipped(world: World) -> None:
    """What went north is not at hand to be looked at: two new copies, and only then removal."""
    archived_world(world)
    for label in ("P01", "S01"):
        world.disks[label].rename(world.root / f"north_{label}")
        world.disks[world.serials[label]] = world.root / f"north_{label}"
        world.disks[label].mkdir()
    world.sql("UPDATE disks SET state = 'shipped' WHERE label IN ('P01', 'S01')")
    world.leave_unchecked("shipped disks are closed bags, and these are none")
    world.put(NAME, SIZE_BYTES)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P02") == world.archived("S02") == {NAME}
    assert world.archived("P01") == world.archived("S01") == set()


# --- other content -----------------------------------------------------------------------


def test_other_content_under_an_archived_name_stays_and_overwrites_nothing(world: World) -> None:
    """Neither the disks' files, nor the database's row, nor the buffer's file is touched."""
    archived_world(world)
    before = [world.snapshot(world.disks[label]) for label in ("P01", "S01")]
    row = tuple(world.sql("SELECT * FROM files")[0])
    world.put(NAME, SIZE_BYTES, seed=1)
    buffer = world.snapshot(world.buffer)
    for _ in range(2):
        world.run_pass(check=1)
        make_due(world)
        world.check(must_be_untouched=[*before, buffer])
        assert tuple(world.sql("SELECT * FROM files")[0]) == row
        assert world.notices() == {("name-conflict", NAME)}


def test_a_conflict_that_a_person_takes_away_is_over(world: World) -> None:
    """Renamed, it is archived under its new name; the notice resolves."""
    archived_world(world)
    world.put(NAME, SIZE_BYTES, seed=1)
    world.run_pass(check=1)
    world.ledger.withdraw(NAME, "the person renames it")
    (world.buffer / NAME).rename(world.buffer / "second.g3")
    world.ledger.saw("second.g3")
    world.ledger.saw(NAME, world.data("P01") / NAME)
    world.run_pass(check=0)
    assert world.notices() == set()
    assert world.sql("SELECT * FROM pending") == []
    assert world.archived("P01") == world.archived("S01") == {NAME, "second.g3"}


def test_a_conflict_that_a_person_puts_right_is_over(world: World) -> None:
    """The archived content again, in the conflict's place: it is removed as any known file."""
    archived_world(world)
    world.put(NAME, SIZE_BYTES, seed=1)
    world.run_pass(check=1)
    world.put(NAME, SIZE_BYTES)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()
    assert world.sql("SELECT * FROM pending") == []


def test_other_content_is_a_conflict_also_where_a_copy_has_to_be_made(world: World) -> None:
    """What is lost on a disk is never made good with something else."""
    archived_world(world)
    (world.data("P01") / NAME).unlink()
    world.spoil("P01", NAME, "the test removed it")
    world.put(NAME, SIZE_BYTES, seed=1)
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert world.archived("P01") | world.archived("P02") == set()
    assert ("name-conflict", NAME) in world.notices()


def test_a_disk_that_vouches_for_other_content_than_the_database_keeps_it(world: World) -> None:
    """Which of the two is right a person decides: the file on the disk is not moved."""
    archived_world(world)
    path = world.data("P01") / NAME
    path.write_bytes(b"its manifest says so")
    line = f"{sha512_of(path)}  data/{NAME}\n"
    (world.disks["P01"] / "manifest-sha512.txt").write_text(line)
    world.spoil("P01", NAME, "the test put it there")
    before = world.snapshot(world.disks["P01"])
    world.put(NAME, SIZE_BYTES)
    world.run_pass(check=1)
    world.check(must_be_untouched=[before])
    assert world.waiting() == {NAME}
    assert ("name-conflict", NAME) in world.notices()


# --- DeleteFromBuffer = no ---------------------------------------------------------------


def test_what_was_skipped_by_size_and_time_is_hashed_before_it_may_go(world: World) -> None:
    """Kept files are known by size and time; for a removal that is no ground."""
    world.configure(DeleteFromBuffer="no")
    world.put(NAME, SIZE_BYTES, mtime_s=1_600_000_000)
    world.generate()
    world.run_pass(check=0)
    world.put(NAME, SIZE_BYTES, seed=1, mtime_s=1_600_000_000)
    world.run_pass(check=0)
    world.configure(DeleteFromBuffer="yes")
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert world.notices() == {("name-conflict", NAME)}


def test_a_conflict_put_right_is_over_also_where_files_are_kept(world: World) -> None:
    """Nobody waits for a removal there: the archived content itself ends the conflict."""
    world.configure(DeleteFromBuffer="no")
    world.put(NAME, SIZE_BYTES, mtime_s=1_600_000_000)
    world.put("other.g3", SIZE_BYTES, mtime_s=1_600_000_000)
    world.generate()
    world.run_pass(check=0)
    world.put(NAME, SIZE_BYTES, seed=1)
    world.put("other.g3", SIZE_BYTES, seed=1)
    world.run_pass(check=1)
    assert world.notices() == {("name-conflict", NAME), ("name-conflict", "other.g3")}
    world.put(NAME, SIZE_BYTES, mtime_s=1_600_000_000)  # as it was: skipped by size and time
    world.put("other.g3", SIZE_BYTES)  # the same bytes at another time: hashed
    world.run_pass(check=0)
    assert world.waiting() == {NAME, "other.g3"}
    assert world.notices() == set()
    assert world.sql("SELECT * FROM pending") == []


# --- copies that are no more -------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("label", "harm", "is_aside"),
    [
        ("P01", remove, False),
        ("S01", remove, False),
        ("P01", truncate, True),
        ("S01", touch, False),
    ],
)
def test_a_harmed_copy_is_said_and_made_again_from_the_buffer(
    world: World, label: str, harm: Callable[[Path], None], is_aside: bool
) -> None:
    """The file comes again just in time: it goes for two whole copies alone, each listed once."""
    archived_world(world)
    harm(world.data(label) / NAME)
    world.put(NAME, SIZE_BYTES)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert copy_states(world) == {"P01": "good", "S01": "good"}
    for each in ("P01", "S01"):
        assert sha512_of(world.data(each) / NAME) == world.manifest(each)[NAME]
        assert world.manifest(each).keys() == {NAME}
    assert (world.disks[label] / ".aside").exists() == is_aside
    assert f"copy-damaged {NAME}: " in world.log()
    assert world.sql("SELECT 1 FROM notices WHERE kind = 'copy-damaged'") == []  # it is over
    assert world.notices() == ({("name-conflict", f"{label} {NAME}")} if is_aside else set())


# --- a file that fails time after time ---------------------------------------------------


def test_a_failure_is_tried_again_ever_later_and_told_from_the_third_time(world: World) -> None:
    """1 min doubling to 1 h; exit 1 while it waits; the others go on; over when it succeeds."""
    archived_world(world)
    away = world.disks["P01"].rename(world.root / "away")
    world.put("seed.g3", 100)
    world.run_pass(check=1)  # P02 is in use too
    away.rename(world.disks["P01"])
    in_its_way = {("name-conflict", f"{label} obs/0000.g3") for label in ("P01", "P02")}
    in_the_way = [world.data(label) / "obs" for label in ("P01", "P02")]
    for label, path in zip(("P01", "P02"), in_the_way, strict=True):
        path.write_bytes(b"a file where a directory should be")
        world.spoil(label, "obs", "the test put it there")
    world.put("obs/0000.g3", 100)
    waits_s = []
    for attempt in (1, 2, 3, 4, 9):
        world.sql("UPDATE pending SET attempts = ?", attempt - 1)
        world.put(f"good{attempt}.g3", 100)
        world.run_pass(check=1)
        assert world.waiting() == {"obs/0000.g3"}
        (row,) = world.sql(
            "SELECT attempts, kind, first_failed_at, last_failed_at, next_try_at, last_error, "
            "strftime('%s', next_try_at) - strftime('%s', last_failed_at) AS wait_s FROM pending"
        )
        assert (row["attempts"], row["kind"]) == (attempt, "copy-failed")
        assert row["first_failed_at"] <= row["last_failed_at"]
        assert row["last_error"].startswith(("P01: ", "P02: "))  # the last that was tried
        waits_s.append(row["wait_s"])
        told = {("copy-failed", "obs/0000.g3")} if attempt >= 3 else set()
        assert world.notices() - in_its_way == told
        make_due(world)
    assert waits_s == [60, 120, 240, 480, 3600]
    for path in in_the_way:
        path.unlink()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.sql("SELECT * FROM pending") == []
    assert world.notices() <= in_its_way  # until that disk is closed


def test_a_file_that_has_changed_since_it_failed_is_tried_at_once(world: World) -> None:
    """Whatever was wrong with it may be over."""
    archived_world(world)
    world.put(NAME, SIZE_BYTES, seed=1)
    world.run_pass(check=1)
    world.run_pass(check=1)
    assert world.sql("SELECT attempts FROM pending")[0]["attempts"] == 1
    os.utime(world.buffer / NAME)
    world.run_pass(check=1)
    assert world.sql("SELECT attempts FROM pending")[0]["attempts"] == 2
