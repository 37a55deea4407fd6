"""A removal takes the name away first: what a crash leaves under a hidden name is still a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from poledata.archive import buffer
from tests.helpers.loopdisks import LoopDisk
from tests.helpers.rack import rot
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"
LONG = "fullrate/" + "x" * 245 + ".g3"  # no room for .….removing: 255 bytes are the most


def hide(world: World, name: str) -> Path:
    """As a pass leaves it that was killed between the rename and the unlink."""
    path = world.buffer / name
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        return path.with_name(buffer.hide(fd, path.name))
    finally:
        os.close(fd)


def archived(world: World, *names: str) -> None:
    """These are archived, and come again with the same content."""
    for name in names:
        world.put(name, 3000)
    world.generate()
    world.run_pass(check=0)
    for name in names:
        world.put(name, 3000)


# --- after a crash --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, LONG])
def test_an_interrupted_removal_is_finished_by_the_next_pass(world: World, name: str) -> None:
    """The copies are read back again, and the hidden file goes."""
    archived(world, name)
    hide(world, name)
    assert world.status("--json").json()["buffer"]["finished_files"] == 1
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()
    assert world.sql("SELECT name FROM files WHERE removed_from_buffer_at IS NULL") == []


@pytest.mark.parametrize("name", [NAME, LONG])
def test_a_hidden_file_that_is_not_proved_gets_its_name_back(world: World, name: str) -> None:
    """A copy rotted meanwhile: the file is in the buffer again, and is copied again."""
    archived(world, name)
    hide(world, name)
    rot(world.data("P01") / name)
    world.run_pass(check=1)
    assert world.waiting() == {name}
    assert ("copy-damaged", name) in world.notices()
    world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == {("name-conflict", f"P01 {name}")}  # what rotted was set aside


def test_a_hidden_file_that_the_database_does_not_know_is_archived(world: World) -> None:
    """An older database was put back: the file gets its name, and the next pass copies it."""
    world.put(NAME, 3000)
    world.generate()
    hide(world, NAME)
    world.run_pass(check=0)
    assert world.waiting() == {NAME}
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") == world.archived("S01") == {NAME}


def test_a_hash_that_nobody_knows_is_reported_and_stays(world: World) -> None:
    """Its name can't be told, so nothing is done to it."""
    world.put(LONG, 3000)
    world.generate()
    path = hide(world, LONG)
    key = str(path.relative_to(world.buffer))
    world.ledger.withdraw(LONG, "its name is a hash that nothing knows")
    world.run_pass(check=1)
    assert world.waiting() == {key}
    assert world.notices() == {("name-conflict", key)}
    assert "the database does not know whose removal it was" in world.log()


def test_if_the_name_was_taken_by_the_same_content_both_go(world: World) -> None:
    """The file came once more while its removal was interrupted."""
    archived(world, NAME)
    hide(world, NAME)
    world.put(NAME, 3000)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


def test_if_the_name_was_taken_by_other_content_that_is_the_conflict(world: World) -> None:
    """The hidden file is proved and goes; the new one waits for a person, untouched."""
    archived(world, NAME)
    hide(world, NAME)
    entry = world.put(NAME, 3000, seed=5)
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert world.notices() == {("name-conflict", NAME)}
    assert entry in world.ledger.owed()


def test_if_the_name_was_taken_a_file_that_can_not_go_is_a_conflict(world: World) -> None:
    """It can neither be removed nor get its name back: both files stay, and a person is told."""
    archived(world, NAME)
    path = hide(world, NAME)
    key = str(path.relative_to(world.buffer))
    world.put(NAME, 3000)
    for label in ("P01", "P02"):
        (world.disks[label] / "manifest-sha512.txt").write_bytes(b"")
    world.leave_unchecked("the manifest was emptied on purpose")
    world.run_pass(check=1)
    assert world.waiting() == {NAME, key}
    assert ("name-conflict", key) in world.notices()
    assert "its name can't be given back (File exists)" in world.log()


def test_a_buffer_that_is_only_read_gives_hidden_files_back(world: World) -> None:
    """With DeleteFromBuffer = no nothing is removed, whatever an earlier pass had begun."""
    archived(world, NAME)
    hide(world, NAME)
    world.configure(DeleteFromBuffer="no")
    world.run_pass(check=0)
    assert world.waiting() == {NAME}


def test_a_dry_run_gives_no_name_back(world: World) -> None:
    """It changes nothing."""
    world.put(NAME, 3000)
    world.generate()
    path = hide(world, NAME)
    world.run_pass("--dry-run")
    assert path.exists()
    path.rename(world.buffer / NAME)


# --- a full buffer --------------------------------------------------------------------------


@pytest.mark.root
def test_a_full_buffer_never_blocks_a_removal(
    tmp_path: Path, loop_disk: Callable[..., LoopDisk]
) -> None:
    """There is no room for the longer name in its directory, so the file is removed directly."""
    world = World(tmp_path)
    mkfs: Sequence[str] = ("-b", "1024", "-N", "2000", "-m", "0")
    disk = loop_disk(tmp_path / "image", world.buffer, size_mb=8, fs="ext4", mkfs_args=mkfs)
    try:
        name = f"full/{'y' * 200}.g3"
        world.put(name, 3000)
        fill_up(world.buffer / "full")
        world.generate()
        world.run_pass(check=0)
        assert not (world.buffer / name).exists()
        assert world.archived("P01") == world.archived("S01") == {name}
        world.close()
    finally:
        disk.force_off()


def fill_up(directory: Path) -> None:
    """No free block, and no room for another long name in the directory."""
    with open(directory / "filler", "wb", buffering=0) as file:
        for size_bytes in (1 << 20, 1 << 10):
            try:
                while file.write(bytes(size_bytes)):
                    pass
            except OSError as fault:
                assert fault.errno == errno.ENOSPC
    number = 0
    for length in (200, 60, 12):
        try:
            while True:
                (directory / f"{number:0{length}}").touch()
                number += 1
        except OSError as fault:
            assert fault.errno == errno.ENOSPC
    with pytest.raises(OSError) as raised:
        os.rename(directory / "filler", directory / ("z" * 40))
    assert raised.value.errno == errno.ENOSPC
