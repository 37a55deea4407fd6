"""A file that changes under a pass's hands stays, is said, and is archived as it then is.

The pass is halted after its first read of the file; the telescope acts; the pass goes on.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.halted import HaltedPass, needs_strace
from tests.helpers.world import World

pytestmark = needs_strace
MIB = 1 << 20
VICTIM = "fullrate/RCW38/80296951/0001.g3"
OTHERS = {"fullrate/RCW38/80296951/0000.g3", "fullrate/RCW38/80296951/0002.g3"}
SIZE_BYTES = 9 * MIB  # three reads
READ = "preadv,preadv2"


def halted_while_reading(world: World, name: str = VICTIM) -> HaltedPass:
    """A pass that has read the first part of a file, and no more."""
    return HaltedPass(world, READ, [world.buffer / name])


def three_files(world: World) -> Path:
    """A file with one before and one after it; where it lies in the buffer."""
    for name in OTHERS:
        world.put(name, 5000, mtime_s=1_600_000_000 if "0000" in name else None)
    world.put(VICTIM, SIZE_BYTES, mtime_s=1_600_000_001)
    world.generate()
    return world.buffer / VICTIM


# --- what the telescope may do to a file -------------------------------------------------


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def shrink_beyond_what_was_read(path: Path) -> None:
    os.truncate(path, 6 * MIB)


def shrink_below_what_was_read(path: Path) -> None:
    os.truncate(path, 100)


def write_over(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"other bytes at its beginning")


def write_over_and_set_the_time_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(os.urandom(SIZE_BYTES))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_through_a_mapping(path: Path) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[-5:] = b"other"


def replace_it(path: Path) -> None:
    fresh = path.with_name("being_written")
    fresh.write_bytes(b"another file")
    fresh.rename(path)


def replace_it_with_its_like(path: Path) -> None:
    """Same size, same time, other bytes, another inode."""
    before = path.stat()
    fresh = path.with_name("being_written")
    fresh.write_bytes(os.urandom(SIZE_BYTES))
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.rename(path)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (grow, f"it grew from {SIZE_BYTES} to {SIZE_BYTES + 4} bytes"),
        (shrink_beyond_what_was_read, "it shrank"),
        (shrink_below_what_was_read, "it shrank"),
        (write_over, "it was written to"),
        (write_over_and_set_the_time_back, "it was written to"),
        (write_through_a_mapping, "it was written to"),
        (replace_it, "another file has taken its place"),
        (replace_it_with_its_like, "another file has taken its place"),
    ],
)
def test_a_file_that_changes_while_it_is_read_stays_and_is_archived_as_it_then_is(
    world: World, act: Callable[[Path], None], said: str
) -> None:
    """Nothing is published under its name, the others go on, and the next pass takes it."""
    path = three_files(world)
    halted = halted_while_reading(world)
    world.ledger.withdraw(VICTIM, "the telescope has changed it")
    act(path)
    world.ledger.saw(VICTIM)
    halted.go_on(check=1)
    assert f"{VICTIM}: {said}" in world.log()
    assert world.waiting() == {VICTIM}
    for label in ("P01", "S01"):
        assert world.archived(label) == world.manifest(label).keys() == OTHERS
    assert world.sql("SELECT 1 FROM files WHERE name = ?", VICTIM) == []
    pending = world.sql("SELECT name, attempts, kind FROM pending")
    assert [tuple(row) for row in pending] == [(VICTIM, 1, "copy-failed")]
    assert world.notices() == set()
    world.check()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") == world.archived("S01") == OTHERS | {VICTIM}
    assert world.sql("SELECT * FROM pending") == []


def test_a_file_that_vanishes_while_it_is_read_is_said_to_be_gone(world: World) -> None:
    """It is not in the buffer and was not archived: that, and nothing else, is said."""
    path = three_files(world)
    halted = halted_while_reading(world)
    world.ledger.withdraw(VICTIM, "the telescope has removed it")
    path.unlink()
    halted.go_on(check=1)
    lines = [line for line in world.log().splitlines() if VICTIM in line]
    assert len(lines) == 1
    assert "it is not in the buffer any more and was not archived" in lines[0]
    assert "stays" not in lines[0]
    assert world.archived("P01") == world.archived("S01") == OTHERS
    assert world.sql("SELECT * FROM pending") == []
    world.run_pass(check=0)


def test_a_file_that_moves_away_while_it_is_read_is_archived_under_its_new_name(
    world: World,
) -> None:
    """A rename is the end of the old name; the new one is a file like any other."""
    path = three_files(world)
    halted = halted_while_reading(world)
    world.ledger.withdraw(VICTIM, "the telescope has renamed it")
    path.rename(path.with_name("renamed.g3"))
    new = world.ledger.saw(VICTIM.replace("0001", "renamed"))
    halted.go_on(check=1)
    assert "it is not in the buffer any more and was not archived" in world.log()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") == world.archived("S01") == OTHERS | {new.name}


def test_a_file_that_somebody_else_takes_after_it_was_archived_is_no_failure(world: World) -> None:
    """It is on two disks; that it went by another hand is said, and the next pass notes it."""
    path = three_files(world)
    halted = HaltedPass(world, "fsync", [world.disks["S01"] / "manifest-sha512.txt"])
    path.unlink()
    halted.go_on(check=0)
    assert world.waiting() == world.notices() == set()
    said = f"WARNING {VICTIM}: somebody else took it from the buffer; it is archived"
    assert said in world.log()
    world.run_pass(check=0)
    assert world.sql("SELECT name FROM files WHERE removed_from_buffer_at IS NULL") == []


def test_a_file_that_changes_after_it_was_archived_stays_as_a_conflict(world: World) -> None:
    """Written to between its hash and its removal: both contents are kept."""
    path = three_files(world)
    halted = HaltedPass(world, "fsync", [world.disks["S01"] / "manifest-sha512.txt"])
    archived = path.read_bytes()
    grow(path)
    world.ledger.saw(VICTIM)
    halted.go_on(check=1)
    assert world.waiting() == {VICTIM}
    assert (world.data("P01") / VICTIM).read_bytes() == archived
    assert world.notices() == {("not-removed", VICTIM)}
    world.run_pass(check=1)
    assert world.waiting() == {VICTIM}
    assert (world.data("P01") / VICTIM).read_bytes() == archived
    assert ("name-conflict", VICTIM) in world.notices()


# --- a directory that leads elsewhere ----------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "where"),
    [(READ, "buffer/obs/0000.g3"), ("fsync", "spt_disks/S01/manifest-sha512.txt")],
    ids=["while-it-is-read", "before-it-is-removed"],
)
def test_a_directory_replaced_by_a_link_leads_nowhere(world: World, calls: str, where: str) -> None:
    """Nothing beyond the link is read, archived or removed, at whatever time it is put there."""
    world.put("other.g3", 5000)
    for number in range(2):
        world.put(f"obs/{number:04}.g3", SIZE_BYTES, mtime_s=1_600_000_000 + number)
    world.generate()
    halted = HaltedPass(world, calls, [world.root / where])
    outside = (world.buffer / "obs").rename(world.root / "outside")  # the very files: same inodes
    (outside / "0002.g3").write_bytes(b"never to be archived")
    (world.buffer / "obs").symlink_to(outside)
    for number in range(2):
        world.ledger.withdraw(f"obs/{number:04}.g3", "the test took its directory away")
    before = world.snapshot(outside)
    halted.go_on(check=1)
    world.check(must_be_untouched=[before])
    world.run_pass()
    assert world.status("--json").json()["buffer"]["links_and_specials"] == 1
    (world.buffer / "obs").unlink()  # the checker would follow it
    world.check(must_be_untouched=[before])
    assert "obs/0002.g3" not in world.archived("P01") | world.archived("S01")


def test_files_behind_a_new_link_are_no_longer_ours_to_worry_about(world: World) -> None:
    """What failed in a directory that is a link by now has left the buffer: no exit 1 for ever."""
    world.put("obs/0000.g3", SIZE_BYTES)
    world.generate()
    halted = halted_while_reading(world, "obs/0000.g3")
    (world.buffer / "obs").rename(world.root / "taken")
    (world.buffer / "obs").symlink_to(world.root / "taken")
    world.ledger.withdraw("obs/0000.g3", "the test took its directory away")
    halted.go_on(check=1)
    world.run_pass(check=0)
    assert world.sql("SELECT * FROM pending") == []
    (world.buffer / "obs").unlink()
    (world.root / "taken").rename(world.buffer / "obs")
    world.ledger.saw("obs/0000.g3")
    world.run_pass(check=0)
    assert world.archived("P01") == world.archived("S01") == {"obs/0000.g3"}
