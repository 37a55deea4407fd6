"""A pass that is killed at any step loses nothing, and the next one finishes what it began.

strace(1) kills, or halts, the real pass at one exact system call; other tests use its helpers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.halted import killed_pass, leave_a_copy, line_of, needs_strace, ready_world
from tests.helpers.invariants import sha512_of
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"

# --- what the tests below share ---------------------------------------------------------


def put_a_batch(world: World, directory: str) -> set[str]:
    """Three new files: a small one, one of several writes, an empty one."""
    sizes = {"0000.g3": 70_001, "0001.g3": (1 << 20) + 1, "deep/0002.g3": 0}
    for base, size_bytes in sizes.items():
        world.put(f"{directory}/{base}", size_bytes)
    return {f"{directory}/{base}" for base in sizes}


def finish(world: World, names: set[str]) -> None:
    """One clean pass archives all, and says that the one before it crashed, if it had begun."""
    crashed = bool(world.sql("SELECT 1 FROM passes WHERE ended_at IS NULL"))
    world.run_pass(check=0)
    assert world.waiting() == set()
    for label in ("P01", "S01"):
        assert names <= world.archived(label) == world.manifest(label).keys()
    assert world.notices() == ({("pass-crashed", "data_manager")} if crashed else set())
    assert world.sql("SELECT 1 FROM passes WHERE ended_at IS NULL") == []
    assert world.sql("SELECT 1 FROM files WHERE removed_from_buffer_at IS NULL") == []
    world.check()


def kill_at_each(
    world: World, calls: str, paths: Sequence[Path], nths: Sequence[int], base: str = "batch"
) -> None:
    """Kill a pass at these occurrences (the first must exist), each time with a clean one after."""
    for nth in nths:
        names = put_a_batch(world, f"{base}{nth}")
        run = killed_pass(world, calls, paths, nth, check=None)
        assert run.code == -signal.SIGKILL or (run.code == 0 and nth != nths[0]), run
        world.check()
        finish(world, names)
        if run.code == 0:
            return


# --- killed ------------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize(
    ("calls", "where", "nths"),
    [
        pytest.param("openat", "spt_disks/P01/.incoming", (1, 4), id="temporary-file"),
        pytest.param("fallocate", None, (2,), id="preallocation"),
        pytest.param("pwrite64", None, (1, 12), id="write"),
        pytest.param("utimensat", None, (2,), id="mode-and-time"),
        pytest.param("syncfs", None, (1,), id="flush"),
        pytest.param("fsync", None, (1, 3, 4, 6), id="fsync"),
        pytest.param("linkat", None, (1, 3), id="publication"),
        pytest.param("write", "spt_disks/P01/manifest-sha512.txt", (1,), id="manifest-line"),
        pytest.param("fsync", "spt_disks/S01/manifest-sha512.txt", (1,), id="manifest-fsync"),
        pytest.param("unlinkat", "spt_disks/P01/.incoming", (1, 3), id="clearing-away"),
        pytest.param("fdatasync", "db/pole.sqlite", (1, 3), id="database"),
        pytest.param("unlink", "db/pole.sqlite-journal", (2,), id="commit"),
    ],
)
def test_a_pass_killed_at_any_step_loses_nothing_and_the_next_one_finishes(
    world: World, calls: str, where: str | None, nths: tuple[int, ...]
) -> None:
    """SIGKILL before the n-th such system call: what lies about is whole, swept or adopted."""
    ready_world(world)
    paths = [world.root / where] if where else []
    kill_at_each(world, calls, paths, nths)


@needs_strace
def test_a_pass_killed_between_two_removals_goes_on_with_the_next_file(world: World) -> None:
    """SIGKILL before the n-th unlink in the buffer: archived files leave it later."""
    ready_world(world)
    for nth in (1, 2):
        names = put_a_batch(world, f"batch{nth}")
        killed_pass(world, "unlinkat", [world.buffer / f"batch{nth}"], nth)
        assert len(world.waiting()) == 4 - nth
        world.check()
        assert world.sql("SELECT count(*) FROM files WHERE archived_at IS NULL")[0][0] == 0
        finish(world, names)


@needs_strace
@pytest.mark.parametrize(("calls", "nths"), [("renameat,renameat2", (1, 4, 5)), ("mkdirat", (2,))])
def test_a_pass_killed_while_it_claims_a_disk_begins_the_claim_again(
    world: World, calls: str, nths: tuple[int, ...]
) -> None:
    """A disk without its mark was never used: the claim is made anew, over what it left."""
    names = put_a_batch(world, "batch")
    world.generate()
    for nth in nths:
        killed_pass(world, calls, [], nth)
        world.check()
        assert world.waiting() == names
    finish(world, names)
    assert world.disk_states() == {"P01": "active", "P02": "spare", "S01": "active", "S02": "spare"}


@needs_strace
def test_passes_killed_one_after_another_get_nearer_to_the_end(world: World) -> None:
    """Crashes on top of crashes: nothing is lost, and one clean pass is enough."""
    ready_world(world)
    names = put_a_batch(world, "batch")
    points = (
        ("linkat", None, 2),
        ("unlinkat", None, 1),
        ("fsync", "spt_disks/P01/manifest-sha512.txt", 1),
        ("fdatasync", "db/pole.sqlite", 3),
    )
    for calls, where, nth in points:
        killed_pass(world, calls, [world.root / where] if where else [], nth)
        world.check()
    finish(world, names)
    first, *between, last = world.sql("SELECT outcome FROM passes ORDER BY id")
    assert (first["outcome"], last["outcome"]) == ("done", "done")
    assert {row["outcome"] for row in between} == {"crashed"}


@needs_strace
def test_the_notice_of_a_crash_is_over_once_a_pass_has_ended_well(world: World) -> None:
    """pass-crashed is told by the next pass, and resolved by the one after that."""
    ready_world(world)
    names = put_a_batch(world, "batch")
    killed_pass(world, "linkat")
    finish(world, names)
    assert world.notices() == {("pass-crashed", "data_manager")}
    world.run_pass(check=0)
    assert world.notices() == set()


# --- what a crash leaves, made by hand ---------------------------------------------------


@pytest.mark.parametrize("has_line", [False, True])
def test_a_final_name_without_a_row_is_adopted_if_it_is_this_very_file(
    world: World, has_line: bool
) -> None:
    """It is read back, not written again; its line is not doubled; mode and time are mended."""
    ready_world(world)
    world.put(NAME, b"the telescope's bytes", mode=0o640, mtime_s=1_700_000_000.25)
    source = world.buffer / NAME
    line = line_of(source, NAME) if has_line else None
    paths = [
        leave_a_copy(world, label, NAME, source.read_bytes(), line) for label in ("P01", "S01")
    ]
    before = [path.stat().st_ino for path in paths]
    finish(world, {"seed.g3", NAME})
    for path, inode in zip(paths, before, strict=True):
        now = path.stat()
        assert (now.st_ino, now.st_mtime, now.st_mode & 0o777) == (inode, 1_700_000_000.25, 0o640)
    assert not (world.disks["P01"] / ".aside").exists()


@pytest.mark.parametrize("n_bytes", [1, 130])
def test_a_torn_last_manifest_line_is_cut_and_written_whole(world: World, n_bytes: int) -> None:
    """The whole lines before it stay as they are, byte for byte."""
    ready_world(world)
    world.put(NAME, 3000)
    source = world.buffer / NAME
    whole = (world.disks["P01"] / "manifest-sha512.txt").read_bytes()
    leave_a_copy(world, "P01", NAME, source.read_bytes(), line_of(source, NAME)[:n_bytes])
    expected = whole + line_of(source, NAME)
    finish(world, {"seed.g3", NAME})
    assert (world.disks["P01"] / "manifest-sha512.txt").read_bytes() == expected


@pytest.mark.parametrize("has_line", [False, True])
def test_what_nothing_vouches_for_is_set_aside_with_its_line(world: World, has_line: bool) -> None:
    """It is moved to .aside/, never lost; the file gets its place; a person is told.

    The line, if there is one, is of this file, which is damaged there.
    """
    ready_world(world)
    world.put(NAME, 3000)
    line = line_of(world.buffer / NAME, NAME) if has_line else None
    path = leave_a_copy(world, "P01", NAME, b"something else", line)
    inode = path.stat().st_ino
    world.run_pass(check=0)
    (aside,) = (world.disks["P01"] / ".aside").iterdir()
    assert (aside.stat().st_ino, aside.read_bytes()) == (inode, b"something else")
    assert world.manifest("P01") == world.manifest("S01")
    assert world.waiting() == set()
    assert world.notices() == {("name-conflict", f"P01 {NAME}")}


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_a_manifest_line_vouches_for_is_never_moved(world: World, is_damaged: bool) -> None:
    """It was archived, though this database does not know it: an older one was put back.

    Other content under its name stays in the buffer, and a person is told; so also where the
    archived copy is damaged on this disk: its line may be the last that is known of it.
    """
    ready_world(world)
    archived = world.ledger.put(NAME, b"archived before")
    content = (world.buffer / NAME).read_bytes()
    line = line_of(world.buffer / NAME, NAME)
    world.ledger.put(NAME, 3000)
    for label in ("P01", "S01"):
        leave_a_copy(world, label, NAME, b"damaged" if is_damaged else content, line)
        if is_damaged:
            world.spoil(label, NAME, "the test damaged it")
    before = [world.snapshot(world.disks[label]) for label in ("P01", "S01")]
    world.run_pass(check=1)
    world.check(must_be_untouched=before)
    assert world.waiting() == {NAME}
    assert world.notices() == {("name-conflict", NAME)}
    (row,) = world.sql("SELECT last_error FROM pending")
    assert row["last_error"].startswith("by its manifest, other content is archived on ")
    assert f"(SHA-512 {archived.sha512[:12]}…, this one is " in row["last_error"]
    assert world.sql("SELECT 1 FROM files WHERE name = ?", NAME) == []


def test_a_link_under_a_final_name_is_set_aside_and_not_followed(world: World) -> None:
    """What it leads to stays as it is, and gets no byte."""
    ready_world(world)
    world.put(NAME, 3000)
    outside = world.root / "outside.g3"
    outside.write_bytes((world.buffer / NAME).read_bytes())
    place = world.data("P01") / NAME
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    before = world.snapshot(outside)
    world.run_pass(check=0)
    assert world.snapshot(outside) == before
    assert place.is_file()
    assert not place.is_symlink()
    (aside,) = (world.disks["P01"] / ".aside").iterdir()
    assert os.readlink(aside) == str(outside)


@needs_strace
@pytest.mark.parametrize("nth", [1, 2])
def test_a_pass_killed_while_it_sets_something_aside_leaves_one_line_a_file(
    world: World, nth: int
) -> None:
    """Between the move to .aside/ and the new manifest: no line may outlive its file."""
    ready_world(world)
    world.put(NAME, 3000)
    line = line_of(world.buffer / NAME, NAME)
    leave_a_copy(world, "P01", NAME, b"something else", line)
    world.ledger.spoiled("P01", NAME, "the test put it there")
    killed_pass(world, "renameat,renameat2", [], nth)
    world.check()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.manifest("P01") == world.manifest("S01")
    assert sha512_of(world.data("P01") / NAME) == world.manifest("P01")[NAME]
    (aside,) = (world.disks["P01"] / ".aside").iterdir()
    assert aside.read_bytes() == b"something else"


def test_a_directory_in_a_files_place_is_never_moved(world: World) -> None:
    """It may hold archived files: the new file waits in the buffer, and a person is told."""
    ready_world(world)
    world.put("a/b.g3", 3000)
    inner = world.data("P01") / "a/b.g3/inner"
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"keep me")
    world.spoil("P01", "a/b.g3/inner", "the test put it there")
    inode = inner.parent.stat().st_ino
    world.run_pass(check=1)
    assert world.waiting() == {"a/b.g3"}
    assert (inner.parent.stat().st_ino, inner.read_bytes()) == (inode, b"keep me")
    assert not (world.disks["P01"] / ".aside").exists()
    assert world.notices() == {("name-conflict", "a/b.g3")}
