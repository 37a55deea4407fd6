"""Whatever keeps every pass from its work, people hear of it, and ``status`` says so."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pytest

from tests.helpers.halted import needs_strace
from tests.helpers.world import World

NAME = "a.g3"


def works_no_more(world: World, code: int, why: str, **how: Sequence[str]) -> None:
    """A pass ends with ``code``; then ``status`` is not well, and the notice says why."""
    world.put(NAME)
    world.run_pass(check=code, **how)
    assert world.waiting() >= {NAME}
    assert world.notices() == {("pass-crashed", "data_manager")}
    (row,) = world.sql("SELECT text, severity FROM notices WHERE resolved_at IS NULL")
    assert row["severity"] == "critical"
    assert why in row["text"] and ".." not in row["text"]
    assert world.status().out.startswith("ACT NOW")


def works_again(world: World) -> None:
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


@pytest.mark.parametrize("limit", [48, 63])
def test_too_few_descriptors_are_told(world: World, limit: int) -> None:
    """The limit is tested by ``check``, too."""
    world.generate()
    prefix = ["prlimit", f"--nofile={limit}:{limit}"]
    works_no_more(world, 1, "There are too few file descriptors", prefix=prefix)
    assert f"may hold {limit} files open" in world.run_pass("check", check=1, prefix=prefix).out
    works_again(world)


def test_a_setting_that_contradicts_the_database_is_told(world: World) -> None:
    """RequireMount = yes, but the disks are stand-ins: every pass ends with 2."""
    world.generate()
    world.run_pass(check=0)
    world.configure(RequireMount="yes")
    world.put(NAME)
    world.run_pass(check=2)
    assert world.notices() == {("pass-crashed", "data_manager")}
    world.configure(RequireMount="no")
    works_again(world)


@needs_strace
def test_a_lock_that_can_not_be_had_is_told(world: World) -> None:
    """The database's file system gives no locks: nothing is done without them."""
    world.generate()
    trace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=flock"]
    works_no_more(
        world, 1, "the lock can't be had", prefix=[*trace, "-e", "inject=flock:error=ENOLCK"]
    )
    works_again(world)


@pytest.mark.parametrize("has_reader", [False, True])
def test_a_pipe_in_the_logs_place_holds_nothing_up(world: World, has_reader: bool) -> None:
    """Without a reader an open would wait for ever; with one the log would be lost."""
    world.generate()
    world.log_path.unlink(missing_ok=True)
    os.mkfifo(world.log_path)
    reader = os.open(world.log_path, os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
    world.put(NAME)
    began_s = time.monotonic()
    world.run_pass(check=(0, 1), timeout_s=30)
    assert time.monotonic() - began_s < 30
    assert world.waiting() == set()
    assert ("config-error", "LogFile") in world.notices()
    if reader is not None:
        os.close(reader)
    world.log_path.unlink()


def test_a_device_is_no_log(world: World) -> None:
    """What is written to it is gone: people are told."""
    world.configure(LogFile="/dev/full")
    world.generate()
    world.put(NAME)
    world.run_pass(check=(0, 1))
    assert world.waiting() == set()
    assert ("config-error", "LogFile") in world.notices()
