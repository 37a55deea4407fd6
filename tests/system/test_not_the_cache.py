"""What a pass believes is the medium, not the memory; and where it can't tell, it says so.

How `verify` sees a bit that flipped under a warm cache stands in test_verify.py.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.campaigns.shim import FOR_EVER, PRETEND, build, needs_shim
from tests.helpers.halted import HaltedPass, needs_strace
from tests.helpers.loopdisks import LoopWorld

pytestmark = needs_shim
NAME = "small.g3"  # it goes through memory: what is read back could come from there


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shim"))


def where(world: LoopWorld, library: Path, kinds: str, action: int) -> dict[str, str]:
    """An environment in which such calls on any disk meet this."""
    return {
        "LD_PRELOAD": str(library),
        "SHIM_DEVICE": f"disks={world.mounts}",
        "SHIM_RULE": f"{kinds} * 1 {FOR_EVER} {action}",
    }


def ways(world: LoopWorld) -> set[str]:
    return {row[0] for row in world.sql("SELECT verified_by FROM copies")}


def test_direct_reads_are_what_a_pass_believes(loop_world: LoopWorld) -> None:
    """On XFS and on ext4."""
    loop_world.put(NAME, 70_000)
    loop_world.generate()
    loop_world.run_pass(check=0)
    assert ways(loop_world) == {"direct"}


@pytest.mark.parametrize("action", [errno.EINVAL, PRETEND], ids=["refused", "pretended"])
def test_where_direct_reads_are_refused_or_pretended_eviction_proves_itself(
    loop_world: LoopWorld, library: Path, action: int
) -> None:
    """A file system may refuse O_DIRECT, or take it and read through memory all the same."""
    loop_world.put(NAME, 70_000)
    loop_world.generate()
    loop_world.run_pass(check=0, env=where(loop_world, library, "direct", action))
    assert ways(loop_world) == {"evicted"}
    assert loop_world.waiting() == set()


def test_where_nothing_can_be_evicted_either_a_copy_is_no_ground_for_removal(
    loop_world: LoopWorld, library: Path
) -> None:
    """It counts as cached: the file stays, and a person is told why. Read well, it may go."""
    loop_world.put(NAME, 70_000)
    loop_world.generate()
    loop_world.run_pass(check=1, env=where(loop_world, library, "direct,fadvise", PRETEND))
    assert ways(loop_world) == {"cached"}
    assert loop_world.waiting() == {NAME}
    (row,) = loop_world.sql("SELECT kind, last_error FROM pending")
    assert row["kind"] == "not-removed"
    assert "P01: it was read back as cached" in row["last_error"]
    loop_world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
    loop_world.run_pass(check=0)
    assert ways(loop_world) == {"direct"}
    assert loop_world.waiting() == set()


@needs_strace
@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "evicted"])
def test_a_bit_that_flips_under_a_warm_cache_is_seen_by_the_read_back_of_the_pass(
    loop_world: LoopWorld, library: Path, is_direct: bool
) -> None:
    """Between the flush of a copy and its reading: it is thrown away, and the file stays."""
    loop_world.put("seed.g3", 100)
    loop_world.generate()
    loop_world.run_pass(check=0)
    loop_world.put(NAME, 70_000)
    env = {} if is_direct else where(loop_world, library, "direct", errno.EINVAL)
    halted = HaltedPass(loop_world, "fsync,syncfs", env=env)
    label = flip_where_it_is_written(loop_world)
    halted.go_on(check=1)
    assert loop_world.waiting() == {NAME}
    assert f"{NAME}: {label} gives back SHA-512 " in loop_world.log()
    assert NAME not in loop_world.archived(label)
    loop_world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
    loop_world.run_pass(check=0)
    assert loop_world.waiting() == set()


def flip_where_it_is_written(world: LoopWorld) -> str:
    """On the disk that has come so far as to have flushed it."""
    for label in ("P01", "S01"):
        for copy in (world.disks[label] / ".incoming").iterdir():
            before = copy.read_bytes()
            try:
                world.loops[label].flip_bit(f".incoming/{copy.name}", offset=5000)
            except ValueError:
                continue  # it has no block yet
            assert copy.read_bytes() == before  # who believes memory sees nothing
            return label
    raise AssertionError("neither disk has the copy")
