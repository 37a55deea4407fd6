"""How the archive stands, said so that a tired person understands it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from poledata import db
from poledata.config import load
from poledata.formatting import utc
from poledata.status.collect import collect
from poledata.status.facts import (
    BufferStatus,
    Status,
)
from poledata.status.text import as_text
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.sample_status import NOON, make_db
from tests.helpers.stations import reasons
from tests.helpers.world import World

# --- gathering ------------------------------------------------------------------------------


def collected(world: World) -> Status:
    with db.connect(world.db_path, read_only=True) as conn:
        return collect(load(world.config_path, {}), conn)


def test_looking_changes_nothing(world: World) -> None:
    """Neither the database nor the buffer nor a disk; for any user who may read."""
    make_db(world, "P01", "S01")
    world.put("a.g3", 1000)
    before = world.snapshot(world.root)
    status = collected(world)
    assert world.snapshot(world.root) == before
    assert (status.buffer.finished_files, status.buffer.finished_bytes) == (1, 1000)
    assert status.buffer.fault is None
    assert status.buffer.used_percent is not None and 0 <= status.buffer.used_percent <= 100
    assert (status.stand_ins, status.last_pass, status.pending) == (True, None, ())


def test_disks_are_listed_the_primaries_first_by_their_numbers(world: World) -> None:
    """P2 before P10, whatever the order in which they were registered."""
    make_db(world, "S02", "P10", "S10", "P2", "S1", "P01")
    labels = [item.disk.label for item in collected(world).disks]
    assert labels == ["P01", "P2", "P10", "S1", "S02", "S10"]


def test_a_buffer_that_is_gone_is_no_defect(world: World) -> None:
    """status is what one looks at when something is wrong."""
    make_db(world, "P01")
    config = load(world.config_path, {})
    os.rename(world.buffer, world.root / "away")
    with db.connect(world.db_path, read_only=True) as conn:
        status = collect(config, conn)
    assert status.buffer == BufferStatus(fault="No such file or directory")
    assert "Buffer     CAN'T BE READ: No such file or directory" in as_text(status)
    world.leave_unchecked("the buffer was taken away")


def test_a_stand_in_is_there_if_its_directory_is(world: World) -> None:
    """A file or nothing at its place is not."""
    make_db(world, "P01", "P02", "S01")
    world.disks["P02"].rmdir()
    world.disks["S01"].rmdir()
    world.disks["S01"].touch()
    assert [item.is_mounted for item in collected(world).disks] == [True, False, False]
    world.leave_unchecked("disks were taken away")


def test_a_drive_is_there_if_it_is_mounted(make_loop_world: Callable[..., LoopWorld]) -> None:
    """The empty mount point below is not the disk."""
    world = make_loop_world(primaries=("P01",), copies=())
    make_db(world, "P01")
    assert [item.is_mounted for item in collected(world).disks] == [True]
    world.loops["P01"].lazy_unmount()
    assert [item.is_mounted for item in collected(world).disks] == [False]
    world.leave_unchecked("the disk was taken away")


def test_copies_that_nobody_read_are_counted(make_loop_world: Callable[..., LoopWorld]) -> None:
    """Never, and not for twice VerifyEvery; a closed disk on the shelf can't be read there."""
    world = make_loop_world(primaries=("P01",), copies=("S01",), VerifyEvery="10 d")
    for name in ("a.g3", "b.g3", "c.g3"):
        world.put(name)
    world.generate()
    world.run_pass(check=0)
    at = utc(time.time() - 19 * 86_400), utc(time.time() - 21 * 86_400)
    for name, verified_at, written_at in (
        ("a.g3", *at),
        ("b.g3", at[1], at[1]),
        ("c.g3", None, at[1]),
    ):
        of = "file_id = (SELECT id FROM files WHERE name = ?)"
        sets = f"UPDATE copies SET verified_at = ?, written_at = ? WHERE {of}"
        world.sql(sets, verified_at, written_at, name)
    counts = [(item.never_read, item.overdue) for item in collected(world).disks]
    assert counts == [(1, 2), (1, 2)]
    reason = "4 copies were not read for twice VerifyEvery: data_manager.py verify P01 S01"
    assert collected(world).reasons[0] == reason
    world.run_pass("close", "--yes", "P01", check=0)
    assert [item.overdue for item in collected(world).disks] == [2, 2]
    world.loops["P01"].umount()
    assert [item.overdue for item in collected(world).disks] == [0, 2]
    world.loops["P01"].mount()
    world.run_pass("verify", check=0)
    assert [(i.never_read, i.overdue) for i in collected(world).disks] == [(0, 0), (0, 0)]
    assert reasons(world) == []


def test_odd_names_are_told_as_they_can_be_printed(world: World, tmp_path: Path) -> None:
    """A name that is not UTF-8 ends neither status nor its JSON."""
    make_db(world, "P01")
    with db.connect(world.db_path) as conn, db.transaction(conn):
        db.passes.note_failure(conn, "a\\udcff.g3", None, "bad-name", "it is not UTF-8", NOON)
    (world.buffer / os.fsdecode(b"\xff.g3")).touch()
    status = collected(world)
    as_text(status).encode()
    json.dumps(asdict(status)).encode()
    assert "  a\\udcff.g3: it is not UTF-8 " in as_text(status)
    world.leave_unchecked("a file was put by hand")
