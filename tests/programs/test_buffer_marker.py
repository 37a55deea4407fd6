"""The buffer is what it was: an unmounted or another one is never taken for an empty buffer."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poledata.archive import buffer_marker
from poledata.archive.buffer import Presence
from tests.helpers.held_places import held
from tests.helpers.loopdisks import LoopDisk, LoopWorld
from tests.helpers.world import MARKER, World

NAME = "fullrate/RCW38/80296951/0000.g3"
WHY = "new RAID"


def begun(world: World) -> str:
    """A station whose buffer has its marker; returns the ID."""
    world.generate()
    world.run_pass(check=0)
    return id_of(world)


def id_of(world: World) -> str:
    found = re.search(r"^ID: ([0-9a-f]{32})$", (world.buffer / MARKER).read_text(), re.MULTILINE)
    assert found
    return found[1]


def known(world: World) -> list[tuple[str | None, str]]:
    return [(row["marker"], row["why"]) for row in world.sql("SELECT * FROM buffers ORDER BY id")]


def pend(world: World, name: str = "100%.g3") -> None:
    """A file that can't be archived: pending, with a notice."""
    world.put(name, 10)
    world.run_pass(check=1)
    assert world.sql("SELECT name FROM pending") and ("bad-name", name) in world.notices()


@contextmanager
def unmounted(world: World) -> Iterator[None]:
    """What a pass sees of the buffer while its file system is not mounted: an empty directory."""
    aside = world.buffer.with_name("aside")
    world.buffer.rename(aside)
    world.buffer.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(world.buffer)
        aside.rename(world.buffer)


def rows(world: World) -> dict[str, list[tuple[object, ...]]]:
    """All that must not be forgotten."""
    tables = ("pending", "files", "buffers")
    found = {table: [tuple(row) for row in world.sql(f"SELECT * FROM {table}")] for table in tables}
    open_ones = "SELECT kind, key FROM notices WHERE resolved_at IS NULL AND kind != 'buffer-wrong'"
    return found | {"notices": [tuple(row) for row in world.sql(open_ones)]}


def told(world: World) -> str:
    (row,) = world.sql(
        "SELECT text FROM notices WHERE kind = 'buffer-wrong' AND resolved_at IS NULL"
    )
    return str(row["text"])


# --- the first pass -------------------------------------------------------------------------


def test_the_first_pass_gives_the_buffer_its_marker(world: World) -> None:
    """The database knows its ID; later passes leave it as it is, and say nothing of it."""
    marker = begun(world)
    assert known(world) == [(marker, "a pass gave it its first marker")]
    before = (world.buffer / MARKER).stat()
    world.put(NAME)
    world.run_pass(check=0)
    after = (world.buffer / MARKER).stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)
    assert known(world) == [(marker, "a pass gave it its first marker")]
    assert world.waiting() == set() and world.archived("P01") == {NAME}


@pytest.mark.parametrize("extension", ["g3", "poledata-buffer"])
def test_the_marker_is_never_data(world: World, extension: str) -> None:
    """It is neither archived nor counted, whatever Extension says."""
    world.configure(Extension=extension)
    begun(world)
    world.run_pass(check=0)
    buffer = world.status("--json").json()["buffer"]
    assert (buffer["finished_files"], buffer["other_files"]) == (0, 0)
    assert not world.data("P01").exists() and id_of(world)


def test_a_file_of_the_markers_name_below_is_data(world: World) -> None:
    """Only the one at the top is ours."""
    world.configure(Extension="poledata-buffer")
    begun(world)
    world.put(f"a/{MARKER}", 10)
    world.put("a/x.poledata-buffer", 10)
    world.run_pass(check=0)
    assert "a/x.poledata-buffer" in world.archived("P01")


def test_a_dry_run_and_status_write_no_marker(world: World) -> None:
    """They say what would be, and leave no trace."""
    world.generate()
    before = world.snapshot(world.buffer)
    world.run_pass("--dry-run", check=0)
    world.status()
    world.run_pass("check")
    world.check(must_be_untouched=[before])
    assert known(world) == []


def test_a_database_that_knows_none_takes_over_the_marker_that_is_there(world: World) -> None:
    """After it was rebuilt from the disks, or made for the next season."""
    marker = begun(world)
    world.put(NAME)
    world.run_pass(check=0)
    world.db_path.unlink()
    world.run("generate_db.py", "--from-disks", check=0)
    world.sql("DELETE FROM buffers")  # as if no disk had a copy of the database
    world.put("b.g3")
    world.run_pass(check=0)
    assert known(world) == [(marker, "it had its marker when this database first saw it")]
    assert id_of(world) == marker and world.waiting() == set()


# --- it is not there ------------------------------------------------------------------------


def test_an_unmounted_buffer_makes_nothing_forgotten(world: World) -> None:
    """Pending files, notices and files that await their removal stay as they are; exit 1."""
    begun(world)
    pend(world)
    world.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")
    before = rows(world)
    with unmounted(world):
        said = world.run_pass(check=1)
        assert said.out == said.err == ""
        assert rows(world) == before
        assert not (world.buffer / MARKER).exists()
        text = told(world)
    place = world.buffer
    assert re.sub(r" \(on the file system mounted at [^)]*\)", "", text) == (
        f"{place} is not the buffer that this archive knows: its marker ({MARKER}) is not there. "
        "Nothing was archived, removed or forgotten. Mount the buffer. If it was moved or replaced "
        f"on purpose: data_manager.py --config {world.config_path} adopt-buffer "
        '--why "…" See buffer-wrong in docs/operators.md.'
    )
    world.run_pass(check=1)  # the pending file
    assert rows(world)["notices"] == before["notices"]
    assert ("buffer-wrong", "buffer") not in world.notices()


def test_a_file_that_awaits_its_removal_is_not_noted_as_removed(world: World) -> None:
    """A crash kept it in the buffer; the buffer is away when the next pass looks."""
    begun(world)
    world.configure(DeleteFromBuffer="no")
    world.put(NAME)
    world.run_pass(check=0)
    world.configure(DeleteFromBuffer="yes")
    with unmounted(world):
        world.run_pass(check=1)
        assert world.sql("SELECT removed_from_buffer_at FROM files")[0][0] is None
    world.run_pass(check=0)
    assert world.sql("SELECT removed_from_buffer_at FROM files")[0][0] is not None


def test_what_falls_into_the_mount_point_is_not_archived(world: World) -> None:
    """The telescope goes on writing to the path; these files wait, and none is removed."""
    begun(world)
    with unmounted(world):
        (world.buffer / "a.g3").write_bytes(b"fallen")
        world.run_pass(check=1)
        assert (world.buffer / "a.g3").read_bytes() == b"fallen"
        assert world.sql("SELECT * FROM files") == []


def test_another_buffer_is_refused(world: World) -> None:
    """It has a marker, but not the right one."""
    begun(world)
    with unmounted(world):
        with held(world.buffer) as fd:
            buffer_marker.write(fd)
        world.run_pass(check=1)
        assert f"its marker ({MARKER}) is another buffer's" in told(world)


def test_the_room_and_the_disks_notices_of_another_buffer_are_not_judged(world: World) -> None:
    """An empty mount point is not full, and no file lacks a disk in it."""
    world.configure(BufferFullPercent="0.001")
    begun(world)
    for label in ("S01", "S02"):
        world.disks[label].rename(world.root / label)
    world.put(NAME)
    world.run_pass(check=1)
    assert {("buffer-full", "buffer"), ("no-disk", "copy")} <= world.notices()
    world.configure(BufferFullPercent="100")
    with unmounted(world):
        world.run_pass(check=1)
        assert {("buffer-full", "buffer"), ("no-disk", "copy")} <= world.notices()
    for label in ("S01", "S02"):
        (world.root / label).rename(world.disks[label])


def test_status_and_check_say_that_it_is_not_the_buffer(world: World) -> None:
    """Also before a pass has found out."""
    begun(world)
    with unmounted(world):
        assert "is not the buffer that this archive knows" in world.status().out
        assert world.status("--json").json()["buffer"]["is_wrong"] is True
        found = world.run_pass("check", check=1).out
        assert "is not the buffer that this archive knows" in found
        said = world.run_pass("--dry-run", check=1)
        assert "is not the buffer that this archive knows" in said.err
    assert "is not the buffer" not in world.status().out


def test_a_paused_archive_looks_at_no_other_buffer(world: World) -> None:
    """Somebody may be at work there: nothing is told, nothing adopted, nothing resolved."""
    begun(world)
    world.run_pass("pause", "--why", "new RAID", check=0)
    before = rows(world)
    with unmounted(world):
        world.run_pass(check=0)
        assert not (world.buffer / MARKER).exists()
        assert rows(world) == before and ("buffer-wrong", "buffer") not in world.notices()
    world.run_pass("resume", check=0)


def test_repair_leaves_to_the_passes_what_a_buffer_that_is_away_may_hold(world: World) -> None:
    """Files that are known, and not archived, are not lacking because nobody can see them."""
    begun(world)
    for label in ("S01", "S02"):
        world.disks[label].rename(world.root / label)
    world.put(NAME)
    world.run_pass(check=1)
    assert world.status("--json").json()["lacking_copies"] == 0
    with unmounted(world):
        assert world.status("--json").json()["lacking_copies"] == 0
    for label in ("S01", "S02"):
        (world.root / label).rename(world.disks[label])
    world.run_pass(check=0)


@pytest.mark.root
def test_a_file_system_that_is_unmounted_and_mounted_again(
    loop_disk: Callable[..., LoopDisk], loop_world: LoopWorld
) -> None:
    """A real one, torn from its mount point; another device number later is no reason."""
    world = loop_world
    disk = loop_disk(world.root / "buffer.image", world.buffer, fs="ext4")
    begun(world)
    pend(world)
    before = rows(world)
    disk.umount()
    world.run_pass(check=1)
    assert rows(world) == before and ("buffer-wrong", "buffer") in world.notices()
    loop_disk(world.root / "other.image", world.root / "other")  # takes the next device
    disk.mount()
    world.run_pass(check=1)
    assert ("buffer-wrong", "buffer") not in world.notices()


# --- an upgrade -----------------------------------------------------------------------------


def as_1_0_0(world: World) -> None:
    """The database and the buffer of a station that knows of no marker yet."""
    world.sql("DELETE FROM buffers")
    (world.buffer / MARKER).unlink()


def test_the_first_pass_of_an_upgrade_adopts_a_buffer_with_the_files_that_wait(
    world: World,
) -> None:
    """One of them is enough."""
    begun(world)
    pend(world)
    pend(world, "b%.g3")
    as_1_0_0(world)
    (world.buffer / "b%.g3").rename(world.root / "moved away")
    world.leave_unchecked("somebody took one of the two")
    world.run_pass(check=1)
    assert known(world) == [(id_of(world), "a pass gave it its first marker")]


@pytest.mark.parametrize("waits", ["pending", "for a disk", "for its removal"])
def test_the_first_pass_of_an_upgrade_adopts_no_empty_mount_point(world: World, waits: str) -> None:
    """The database knows files that should be there, and none is."""
    begun(world)
    if waits == "pending":
        pend(world)
    elif waits == "for a disk":
        world.disks["S01"].rename(world.root / "S01")
        world.disks["S02"].rename(world.root / "S02")
        world.put(NAME)
        world.run_pass(check=1)
    else:
        world.configure(DeleteFromBuffer="no")
        world.put(NAME)
        world.run_pass(check=0)
        world.configure(DeleteFromBuffer="yes")
    as_1_0_0(world)
    before = rows(world)
    with unmounted(world):
        world.run_pass(check=1)
        assert not (world.buffer / MARKER).exists() and rows(world) == before
        assert "the database knows 1 file that waits there, and none is there" in told(world)
    if waits == "for a disk":
        (world.root / "S01").rename(world.disks["S01"])
        (world.root / "S02").rename(world.disks["S02"])
    world.run_pass(check=int(waits == "pending"))
    assert known(world) == [(id_of(world), "a pass gave it its first marker")]


# --- adopt-buffer ---------------------------------------------------------------------------


def test_adopt_buffer_gives_a_replaced_buffer_a_marker(world: World) -> None:
    """Another ID than before: the old buffer may come back, and is not this one."""
    first = begun(world)
    pend(world)
    old = world.root / "old"
    world.buffer.rename(old)
    world.buffer.mkdir()
    world.leave_unchecked("what waited is in the old buffer")
    world.run_pass(check=1)
    said = world.run_pass("adopt-buffer", "--why", WHY, check=0).out
    second = id_of(world)
    assert second != first
    assert said == (
        f"{world.buffer} is the buffer from now on; its marker is {MARKER} with the ID {second}.\n"
    )
    assert known(world)[1:] == [(second, WHY)]
    assert ("buffer-wrong", "buffer") not in world.notices()
    world.run_pass(check=0)
    assert world.sql("SELECT * FROM pending") == []


def test_adopt_buffer_takes_over_the_marker_of_a_buffer_that_has_one(world: World) -> None:
    """It was moved with all that is in it, or an older database was put back."""
    marker = begun(world)
    world.sql("UPDATE buffers SET marker = ?", "0" * 32)
    world.run_pass(check=1)
    world.run_pass("adopt-buffer", "--why", WHY, check=0)
    assert id_of(world) == marker and known(world)[-1] == (marker, WHY)
    world.run_pass(check=0)


def test_adopt_buffer_needs_a_reason(world: World) -> None:
    """For those who come after."""
    begun(world)
    said = world.run_pass("adopt-buffer", check=2)
    assert "--why" in said.err


# --- odd markers ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"The Pole Data Man", b"\0" * 180, b"ID: 12\n"])
def test_a_marker_that_was_cut_by_a_crash_is_made_again(world: World, content: bytes) -> None:
    """The database did not know it yet, because it is written first."""
    begun(world)
    world.sql("DELETE FROM buffers")
    (world.buffer / MARKER).write_bytes(content)
    world.run_pass(check=0)
    assert known(world) == [(id_of(world), "a pass gave it its first marker")]


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "second name"])
def test_something_else_in_the_markers_place_is_neither_followed_nor_replaced(
    world: World, kind: str, is_known: bool
) -> None:
    """Nothing is done until a person has looked, and no pass hangs."""
    begun(world)
    if not is_known:
        world.sql("DELETE FROM buffers")
    marker, kept = world.buffer / MARKER, world.root / "kept"
    marker.rename(kept)
    before = kept.read_bytes()
    if kind == "link":
        marker.symlink_to(kept)
    elif kind == "second name":
        os.link(kept, marker)
    elif kind == "fifo":
        os.mkfifo(marker)
    else:
        marker.mkdir()
    world.run_pass(check=1)
    assert f"its marker can't be read: {MARKER} is not the file that a pass made" in told(world)
    said = world.run_pass("adopt-buffer", "--why", WHY, check=2).err
    assert f"If something else has the name {MARKER}, move it away first." in said
    assert kept.read_bytes() == before
    marker.rmdir() if kind == "directory" else marker.unlink()
    kept.rename(marker)
    world.run_pass(check=0)


def test_a_known_marker_that_is_damaged_stops_passes_until_it_is_adopted(world: World) -> None:
    """It was whole when the database got to know it: somebody changed it."""
    begun(world)
    (world.buffer / MARKER).write_bytes(b"")
    world.run_pass(check=1)
    assert f"its marker can't be read: {MARKER} is empty or damaged" in told(world)
    world.run_pass("adopt-buffer", "--why", WHY, check=0)
    world.run_pass(check=0)
    assert known(world)[-1] == (id_of(world), WHY)


# --- no marker can be made ------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_a_full_buffer_is_emptied_by_the_very_first_pass(
    loop_disk: Callable[..., LoopDisk], loop_world: LoopWorld, fs: str
) -> None:
    """The marker waits for room: archiving and removal do not."""
    world = loop_world
    loop_disk(world.root / "buffer.image", world.buffer, fs=fs, size_mb=32)
    world.generate()
    world.put(NAME, 1 << 20)
    ballast = world.buffer / "ballast"
    fill(ballast)
    world.run_pass(check=0)
    assert world.archived("P01") == world.archived("S01") == {NAME}
    assert world.waiting() == {"ballast"} and ("buffer-wrong", "buffer") not in world.notices()
    ballast.unlink()
    world.run_pass(check=0)
    assert known(world) == [(id_of(world), "a pass gave it its first marker")]


def fill(ballast: Path) -> None:
    """Until neither a block nor an inode is left."""
    with open(ballast, "wb", buffering=0) as file:
        for size_bytes in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size_bytes)):
                    pass
            except OSError as fault:
                assert fault.errno == errno.ENOSPC
        os.fsync(file.fileno())


@pytest.mark.root
def test_a_read_only_buffer_is_legitimate_where_nothing_is_to_be_deleted(
    loop_disk: Callable[..., LoopDisk], loop_world: LoopWorld
) -> None:
    """No marker, no notice; where files are to be deleted, a warning."""
    world = loop_world
    disk = loop_disk(world.root / "buffer.image", world.buffer, fs="ext4")
    world.configure(DeleteFromBuffer="no")
    world.generate()
    world.put(NAME, 1000)
    disk.remount("ro")
    world.run_pass(check=0)
    assert world.archived("P01") == {NAME} and world.notices() == set()
    assert known(world) == []
    world.configure(DeleteFromBuffer="yes")
    world.run_pass(check=1)
    assert f"has no marker ({MARKER}): Read-only file system" in told(world)
    (severity,) = world.sql("SELECT severity FROM notices WHERE kind = 'buffer-wrong'")
    assert severity[0] == "warning"
    disk.remount("rw")
    world.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set() and ("buffer-wrong", "buffer") not in world.notices()


# --- an error is not absence ----------------------------------------------------------------


@pytest.mark.root
def test_what_a_mount_hides_has_not_left(
    tmp_path: Path, loop_disk: Callable[..., LoopDisk]
) -> None:
    """A file system that was mounted over a directory of the buffer hides its files."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.g3").touch()
    loop_disk(tmp_path / "image", tmp_path / "a", fs="ext4")
    with held(tmp_path) as fd:
        assert not Presence.of(fd).has_left("a/x.g3")
        assert Presence.of(fd).has_left("ab.g3")


@pytest.mark.root
def test_a_directory_below_one_that_can_not_be_listed_is_not_listed_again(
    loop_disk: Callable[..., LoopDisk], loop_world: LoopWorld
) -> None:
    """Its pending row stays, until a pass has listed it."""
    world = loop_world
    begun(world)
    (world.buffer / "a/b").mkdir(parents=True)
    inner = loop_disk(world.root / "inner.image", world.buffer / "a/b", fs="ext4")
    world.run_pass(check=1)
    assert [tuple(row) for row in world.sql("SELECT name FROM pending")] == [("a/b/",)]
    outer = loop_disk(world.root / "outer.image", world.buffer / "a", fs="ext4")
    world.run_pass(check=1)
    assert {row["name"] for row in world.sql("SELECT name FROM pending")} == {"a/", "a/b/"}
    outer.force_off()
    inner.force_off()
    world.run_pass(check=0)
    assert world.sql("SELECT name FROM pending") == []
