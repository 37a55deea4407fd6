"""A copy that can't be the file is passed over, by ``restore`` and ``repair``, before it costs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from poledata.formatting import counted
from tests.helpers.damaged_copies import copies, filled, harm, repair
from tests.helpers.halted import needs_strace, strace
from tests.helpers.loopdisks import LoopDisk, LoopWorld
from tests.helpers.stations import notice_text
from tests.helpers.world import World

NAME = "a/1.g3"
GROWN_BYTES = 10**9


def grow(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, GROWN_BYTES)


def shorten(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 19_999)


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


NOT_THE_FILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "it grew": (grow, f"P01: its copy has {GROWN_BYTES} bytes, not 20000"),
    "it is shorter": (shorten, "P01: its copy has 19999 bytes, not 20000"),
    "it is a directory": (in_its_place(Path.mkdir), "P01: its copy is not a file"),
    "it is a pipe": (in_its_place(os.mkfifo), "P01: its copy is not a file"),
    "it is a link": (
        in_its_place(lambda path: path.symlink_to("/dev/zero")),
        "P01: Too many levels of symbolic links",
    ),
    "it is gone": (Path.unlink, "P01: No such file or directory"),
}


@pytest.mark.parametrize(("change", "why"), NOT_THE_FILE.values(), ids=NOT_THE_FILE)
def test_restore_to_a_small_target_tries_the_other_copy(
    world: World,
    loop_disk: Callable[..., LoopDisk],
    change: Callable[[Path], object],
    why: str,
) -> None:
    """The target has room for the file, not for what P01 gives: S01 gives it back. The message
    names the copy that was tried and what is wrong with it; nothing half-written is left."""
    filled(world, NAME)
    path = world.data("P01") / NAME
    content = (world.data("S01") / NAME).read_bytes()
    change(path)
    world.spoil("P01", NAME, "the test harms it")
    world.leave_unchecked("what stands in a file's place may be anything")
    to = world.root / "wanted"
    to.mkdir()
    loop_disk(world.root / "image", to, size_mb=32, fs="ext4")
    run = world.run_pass("restore", NAME, "--to", str(to), check=0)
    assert run.out == f"{NAME}: S01\n"
    assert run.err == f"{NAME}: {why}. Next: data_manager.py verify P01\n"
    assert (to / NAME).read_bytes() == content
    assert os.listdir(to / "a") == ["1.g3"]


def test_a_device_in_a_files_place_is_no_copy_of_an_empty_file(world: World) -> None:
    """Neither is a pipe: both read as empty; ``verify`` calls them damaged, too."""
    world.put("empty.g3", b"")
    filled(world, NAME)
    for label in ("P01", "S01"):
        (world.data(label) / "empty.g3").unlink()
    os.mkfifo(world.data("P01") / "empty.g3")
    os.mknod(world.data("S01") / "empty.g3", 0o644 | stat.S_IFCHR, os.makedev(1, 5))
    world.leave_unchecked("both copies are gone")
    to = world.root / "wanted"
    to.mkdir()
    run = world.run_pass("restore", "empty.g3", "--to", str(to), check=1)
    assert run.out == "empty.g3: NOT RESTORED: no copy that is here proves good\n"
    assert run.err.splitlines() == [
        f"empty.g3: {label}: its copy is not a file. Next: data_manager.py verify {label}"
        for label in ("P01", "S01")
    ]
    assert os.listdir(to) == []
    run = world.run_pass("verify", "P01", "S01", check=1)
    assert "P01: DAMAGED empty.g3" in run.out
    assert "S01: DAMAGED empty.g3" in run.out


@needs_strace
def test_a_disk_that_dies_amid_a_restore_leaves_nothing_half_written(world: World) -> None:
    """From its second block on P01 gives errors: S01 is read from the beginning."""
    world.put(NAME, 20 * 1024**2)
    world.generate()
    world.run_pass(check=0)
    to = world.root / "wanted"
    to.mkdir()
    prefix = strace(world, "preadv,preadv2", [world.data("P01") / NAME], "error=EIO:when=2+")
    run = world.run_pass("restore", NAME, "--to", str(to), check=0, prefix=prefix)
    assert run.out == f"{NAME}: S01\n"
    assert run.err == f"{NAME}: P01: Input/output error. Next: data_manager.py verify P01\n"
    assert os.listdir(to / "a") == ["1.g3"]


@pytest.mark.parametrize("is_larger", [True, False])
def test_what_stands_in_the_target_is_compared_by_its_size_first(
    world: World, is_larger: bool
) -> None:
    """A terabyte that is not the file need not be read to know that."""
    filled(world, NAME)
    to = world.root / "wanted"
    (to / "a").mkdir(parents=True)
    if is_larger:
        (to / NAME).touch()
        os.truncate(to / NAME, 10**12)
    else:
        os.mkfifo(to / NAME)
    run = world.run_pass("restore", NAME, "--to", str(to), check=1)
    assert run.out == (f"{NAME}: NOT RESTORED: another file is there already; it was not changed\n")


@pytest.mark.parametrize(("change", "why"), NOT_THE_FILE.values(), ids=NOT_THE_FILE)
def test_repair_takes_another_source_than_one_that_can_not_be_the_file(
    make_loop_world: Callable[..., LoopWorld], change: Callable[[Path], object], why: str
) -> None:
    """A source that grew fits on no disk, and yet is no reason to give up: the held P01 gives the
    file; S01's copy is noted and told as what it is."""
    world = make_loop_world()
    filled(world, NAME)
    world.run_pass("hold", "--yes", "P01", "--why", "it is to go", check=0)
    world.leave_unchecked("what stands in a file's place may be anything")
    change(world.data("S01") / NAME)
    world.spoil("S01", NAME, "the test harms it")
    run = repair(world, "P01")
    assert run.out.startswith("1 file copied (20 kB), to P02.\n")
    state = "missing" if "No such file" in why else "damaged"
    assert copies(world, NAME) == {"P01": "good", "P02": "good", "S01": state}
    assert f"Its copy on S01 was to be copied from, and is {state}." in notice_text(
        world, "copy-damaged", NAME
    )


# --- a dry run of repair, and of a pass, promises what the real one does ----------------------


def put_away(world: World, label: str) -> None:
    """As a person takes a disk out without a word."""
    world.disks[label].rename(world.root / f"{label}-away")
    world.leave_unchecked("a disk is away")


def lose_p01(world: World) -> None:
    filled(world, NAME, "b.g3")
    world.run_pass("lost", "P01", "--why", "it fell", check=0)
    world.spoil("P01", None, "it is lost")
    world.leave_unchecked("copies are harmed on purpose")


def source_not_mounted(world: World) -> None:
    lose_p01(world)
    put_away(world, "S01")


def source_damaged(world: World) -> None:
    lose_p01(world)
    harm(world, "S01", NAME)


def source_grown(world: World) -> None:
    lose_p01(world)
    grow(world.data("S01") / NAME)


def source_on_a_held_disk(world: World) -> None:
    lose_p01(world)
    world.run_pass("hold", "--yes", "S01", "--why", "?", check=0)


def source_damaged_but_another_there(world: World) -> None:
    filled(world, NAME, "b.g3")
    harm(world, "S01", NAME)
    world.run_pass("hold", "--yes", "P01", "--why", "it is to go", check=0)
    world.leave_unchecked("copies are harmed on purpose")


def no_target_is_there(world: World) -> None:
    lose_p01(world)
    put_away(world, "P02")


def no_target_has_room(world: World) -> None:
    lose_p01(world)
    world.configure(MinFreeSpace="900 TB")


def room_for_one(world: World) -> None:
    lose_p01(world)
    free_bytes = os.statvfs(world.disks["P02"])
    free = free_bytes.f_bavail * free_bytes.f_frsize
    world.configure(MinFreeSpace=f"{free - 25_000} B")


def target_without_manifest(world: World) -> None:
    filled(world, NAME, "b.g3")
    world.run_pass("close", "--yes", "S01", check=0)
    (world.data("P01") / NAME).unlink()
    world.run_pass("verify", "P01", check=1)
    (world.disks["P01"] / "manifest-sha512.txt").write_bytes(b"oops\n")
    world.leave_unchecked("copies are harmed on purpose")


def already_good(world: World) -> None:
    filled(world, NAME, "b.g3")


def good_after_all(world: World) -> None:
    filled(world, NAME, "b.g3")
    world.sql("UPDATE copies SET state = 'damaged' WHERE file_id = 1 AND disk_id = 1")


def dump(world: World) -> list[tuple[object, ...]]:
    tables = ("files", "copies", "disks", "notices", "pending", "disk_events")
    return [tuple(row) for table in tables for row in world.sql(f"SELECT * FROM {table}")]


STATES = {
    source_not_mounted: ([
        "The only good copy of 2 files is on S01, which is not mounted: mount it, then repair again"
    ], 1),
    source_damaged: (
        [f"NO GOOD COPY of {NAME}: see no-good-copy in docs/operators.md",
         "would copy b.g3 (20 kB) to P02"], 1),
    source_grown: (
        [f"NO GOOD COPY of {NAME}: see no-good-copy in docs/operators.md",
         "would copy b.g3 (20 kB) to P02"], 1),
    source_on_a_held_disk: (
        [f"would copy {NAME} (20 kB) to P02", "would copy b.g3 (20 kB) to P02"], 0),
    source_damaged_but_another_there: ([], 0),
    no_target_is_there: (["No disk has room for 2 files: mount a spare, then repair again"], 1),
    no_target_has_room: (
        [f"NOT REPAIRED {NAME}: its 20000 bytes fit on no empty primary disk",
         "NOT REPAIRED b.g3: its 20001 bytes fit on no empty primary disk"], 1),
    target_without_manifest: ([f"would copy {NAME} (20 kB) to P02"], 0),
    already_good: ([], 0),
    good_after_all: ([f"would copy {NAME} (20 kB) to P01"], 0),
}  # fmt: skip


@pytest.mark.parametrize(("prepare", "said"), STATES.items(), ids=[s.__name__ for s in STATES])
def test_a_dry_repair_says_just_what_the_real_one_then_does(
    world: World, prepare: Callable[[World], None], said: tuple[list[str], int]
) -> None:
    """What it would copy is copied, to that disk; what it can't do, the real one can't, with the
    same words and exit code. It changes nothing: no disk, no row, no notice."""
    prepare(world)
    before, rows = world.snapshot(world.mounts), dump(world)
    lines, code = said
    dry = repair(world, "--dry-run", check=code)
    assert before.differences(world.snapshot(world.mounts)) == []
    assert rows == dump(world)
    assert sorted(dry.out.splitlines()) == sorted(["Dry run: nothing was changed.", *lines])
    real = repair(world, check=code)
    assert [line for line in lines if not line.startswith("would")] == [
        line for line in real.out.splitlines() if line in lines
    ]
    promised = [line.split() for line in lines if line.startswith("would")]
    assert real.out.count(f"{counted(len(promised), 'file', 'files')} copied (") == 1
    for _, _, name, *_, label in promised:
        assert copies(world, name)[label] == "good"


def test_a_dry_pass_names_a_disk_that_takes_nothing_as_the_pass_does(world: World) -> None:
    """P01's manifest is not one that we wrote: P02 takes the file, in both; both end with 1."""
    filled(world, NAME)
    (world.disks["P01"] / "manifest-sha512.txt").write_bytes(b"oops\n")
    world.put("b.g3")
    rows = dump(world)
    dry = world.run_pass("--dry-run", check=1)
    assert rows == dump(world)
    assert "would copy b.g3 (1 kB) to P02 and S01" in dry.out
    assert "manifest-sha512.txt: the text at byte 0 is not a manifest line" in dry.err
    world.run_pass(check=1)
    assert "b.g3" in world.archived("P02") & world.archived("S01")
    world.leave_unchecked("the manifest is damaged")


def test_a_dry_pass_ends_as_the_pass_where_a_file_fits_nowhere(world: World) -> None:
    """Both say it, and end with 1."""
    filled(world, NAME)
    world.configure(MinFreeSpace="900 TB")
    world.put("b.g3")
    why = "its 1000 bytes fit on no empty primary disk"
    dry = world.run_pass("--dry-run", check=1)
    assert why in dry.err and "would copy" not in dry.out
    world.run_pass(check=1)
    assert why in world.log()


def test_a_dry_repair_skips_a_disk_that_is_mounted_read_only(loop_world: LoopWorld) -> None:
    """Where the real one takes the next disk, so does it."""
    world = loop_world
    filled(world, NAME)
    (world.data("P01") / NAME).unlink()
    world.spoil("P01", NAME, "the test removes it")
    world.run_pass("verify", "P01", check=1)
    world.loops["P01"].remount("ro")
    assert f"would copy {NAME} (20 kB) to P02" in repair(world, "--dry-run").out
    assert ("disk-read-only", "P01") not in world.notices()
    repair(world)
    assert copies(world, NAME)["P02"] == "good"
    world.loops["P01"].remount("rw")
