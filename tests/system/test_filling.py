"""Disks fill up and fail, on real file systems: the next one takes over, and nothing is lost.

ENOSPC is real, EIO comes from a file system that is shut down as by a pulled drive; what
this kernel can't do (quotas), and faults at one exact system call, are injected by strace.
"""

from __future__ import annotations

import errno
import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bagit
import pytest

from tests.helpers.halted import needs_strace, ready_world, strace
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.other_users import AS_NOBODY, NOBODY
from tests.helpers.rack import HaltedAmongBatches, after_this_batch, go_on, plug_in_again, pull
from tests.helpers.stations import inode_and_times, notice_text, try_at_once

MB = 1_000_000
FILE_OVERHEAD = 16 * 1024  # beside its bytes: inode, directories, manifest line


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory where an ordinary user may go too (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory(prefix="filling-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def free_bytes(place: Path) -> int:
    """What an ordinary user may still fill."""
    room = os.statvfs(place)
    return room.f_bavail * room.f_frsize


def make_of_sizes(
    make_loop_world: Callable[..., LoopWorld],
    primary_mb: dict[str, int],
    copy_mb: dict[str, int],
    **settings: str,
) -> LoopWorld:
    """A station whose disks have these sizes: primaries XFS, copies ext4."""
    world = make_loop_world(primaries=[], copies=[], **settings)
    for fs, sizes in (("xfs", primary_mb), ("ext4", copy_mb)):
        for label, size_mb in sizes.items():
            world.add_disk(label)
            world.plug_in(label, size_mb=size_mb, fs=fs)
    world.generate()
    return world


# --- the campaign --------------------------------------------------------------------------

LIFE = re.compile("c*a?s*")  # in label order: closed ones, at most one in use, spares
BIGGEST = 2 * MB


def test_a_campaign_fills_every_disk_to_the_last_and_loses_nothing(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Four small disks of each role, files of every size over many passes, then a new disk each.

    After each pass every file is archived or still in the buffer, and exit 1 says that one
    waits. Each role goes through its disks in the order of their labels at its own pace.
    """
    primaries, copies = ([f"{prefix}0{n}" for n in range(1, 5)] for prefix in "PS")
    world = make_of_sizes(
        make_loop_world,
        dict.fromkeys(primaries, 17),
        dict.fromkeys(copies, 20),
        MinFreeSpace="1 MB",
    )
    dice = random.Random(20190719)
    put: set[str] = set()
    paces = set()
    for night in range(20):
        put |= put_a_night(world, night, dice)
        run = world.run_pass(check=(0, 1))
        assert run.code == (1 if world.waiting() else 0)
        assert archived_names(world) | world.waiting() == put
        assert archived_names(world) & world.waiting() == set()
        world.check()
        states = world.disk_states()
        lives = tuple("".join(states[x][0] for x in labels) for labels in (primaries, copies))
        assert all(LIFE.fullmatch(life) for life in lives), lives
        paces.add(lives)
        if {("no-disk", "primary"), ("no-disk", "copy")} <= world.notices():
            break
    assert lives == ("ccca", "ccca")  # the last ones stay in use: a smaller file may still come
    assert any(one != other for one, other in paces)
    full_to_the_last(world, primaries + copies)

    held_back = world.waiting()
    before = {label: world.archived(label) for label in world.disks}
    world.run_pass(check=1)
    assert world.waiting() == held_back
    assert before == {label: world.archived(label) for label in world.disks}

    for label, size_mb in (("P05", 64), ("S05", 48)):
        world.add_disk(label)
        world.plug_in(label, size_mb=size_mb, fs="xfs" if label == "P05" else "ext4")
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert archived_names(world) == put
    assert world.disk_states() == {
        label: "active" if label.endswith("5") else "closed" for label in world.disks
    }
    assert world.notices() == {("disk-closed", label) for label in primaries + copies}
    for label in primaries + copies:
        bagit.Bag(str(world.disks[label])).validate()


def put_a_night(world: LoopWorld, night: int, dice: random.Random) -> set[str]:
    """Files from 0 bytes to a few MB in nested directories; basenames repeat."""
    sizes = [0, 1, 4096, 4097, 65_536, (1 << 20) - 1, 1 << 20, BIGGEST]
    sizes += [dice.randrange(BIGGEST) for _ in range(5)]
    dice.shuffle(sizes)
    names = {}
    for number, size_bytes in enumerate(sizes):
        depth = dice.randrange(4)
        above = ["fullrate", "RCW38", str(night)][:depth]
        names["/".join([*above, f"{night}-{number}.g3"])] = size_bytes
    for name, size_bytes in names.items():
        world.put(name, size_bytes)
    return names.keys()


def archived_names(world: LoopWorld) -> set[str]:
    return {r["name"] for r in world.sql("SELECT name FROM files WHERE archived_at IS NOT NULL")}


def full_to_the_last(world: LoopWorld, labels: list[str]) -> None:
    """A disk is left when a file did not fit; no more than that is left free, and no less kept."""
    for label in labels:
        assert 1 * MB <= free_bytes(world.disks[label]) < 2.2 * MB + BIGGEST, label


# --- room ----------------------------------------------------------------------------------


def test_the_fullest_disk_in_use_is_filled_before_another_and_a_spare_comes_last(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Two are in use because one was held for a while; the emptier one takes what can't fit."""
    world = make_of_sizes(make_loop_world, {"P01": 32, "P02": 32, "P03": 32}, {"S01": 64})
    for name, size_bytes, held in [("a.g3", 2 * MB, ""), ("b.g3", 6 * MB, "P01")]:
        if held:
            world.run_pass("hold", "--yes", held, "--why", "it rattles", check=0)
        world.put(name, size_bytes)
        world.run_pass(check=0)
    world.run_pass("unhold", "P01", check=0)
    for name, size_bytes in [("c.g3", 9 * MB), ("d.g3", 11 * MB), ("e.g3", 1 * MB)]:
        world.put(name, size_bytes)
        world.run_pass(check=0)
    assert world.archived("P02") == {"b.g3", "c.g3"}
    assert world.archived("P01") == {"a.g3", "d.g3", "e.g3"}
    assert world.archived("P03") == set()
    assert world.disk_states() == {
        "P01": "active",
        "P02": "closed",
        "P03": "spare",
        "S01": "active",
    }


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_min_free_space_is_kept_on_every_disk_also_once_it_is_closed(
    make_loop_world: Callable[..., LoopWorld], fs: str
) -> None:
    """Small files come as near to it as they may; sealing the bag needs no more than is there."""
    world = make_loop_world(
        primaries=["P01"], copies=["S01"], size_mb=20, primary_fs=fs, MinFreeSpace="9 MB"
    )
    for number in range(40):
        world.put(f"{number:02}.g3", 300_000, mtime_s=1_600_000_000 + number)
    world.generate()
    world.run_pass(check=1)
    for label in ("P01", "S01"):
        assert 9 * MB <= free_bytes(world.disks[label]) < 9 * MB + 300_000 + FILE_OVERHEAD
        assert len(world.archived(label)) > 5
    assert ("no-disk", "primary") in world.notices()
    assert len(world.waiting()) == 40 - min(len(world.archived(x)) for x in ("P01", "S01"))
    world.run_pass("close", "--yes", "P01", check=0)
    assert free_bytes(world.disks["P01"]) >= 9 * MB
    bagit.Bag(str(world.disks["P01"])).validate()


def test_room_reserved_for_root_is_not_free_for_an_ordinary_user(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """ext4 keeps a fifth back (mkfs -m 20): a disk is full before a write ever fails."""
    world = make_loop_world(
        primaries=["P01", "P02"],
        copies=["S01"],
        size_mb=40,
        primary_fs="ext4",
        mkfs_args=["-m", "20"],
    )
    names = {f"{number}.g3" for number in range(12)}
    for number in range(12):
        world.put(f"{number}.g3", 3 * MB, mtime_s=1_600_000_000 + number)
    world.generate()
    for path in (world.root, *world.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    world.run_pass(check=1, prefix=AS_NOBODY)
    assert len(world.archived("P01")) == len(world.archived("S01")) in range(5, 10)
    assert world.archived("P02") == names - world.archived("P01")
    assert world.waiting() == names - world.archived("S01")
    assert world.disk_states() == {"P01": "closed", "P02": "active", "S01": "active"}
    assert world.notices() == {("disk-closed", "P01"), ("no-disk", "copy")}
    assert "No space left" not in world.log()
    for label in ("P01", "S01"):
        room = os.statvfs(world.disks[label])
        assert room.f_bavail * room.f_frsize < 3 * MB + FILE_OVERHEAD + (1 << 20)
        assert (room.f_bfree - room.f_bavail) * room.f_frsize > 6 * MB


def test_a_file_larger_than_any_disk_is_pending_and_closes_none(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """The others go on, before and after it; a person is told at the third try.

    When a disk comes that is large enough it is archived there.
    """
    world = make_of_sizes(make_loop_world, {"P01": 24, "P02": 24}, {"S01": 24, "S02": 24})
    world.put("large.g3", 30 * MB, mtime_s=1_600_000_001)
    small = {"0.g3", "2.g3"}
    for name in small:
        world.put(name, 2 * MB, mtime_s=1_600_000_000 + int(name[0]))
    in_use = {"P01": "active", "P02": "spare", "S01": "active", "S02": "spare"}
    for tries in (1, 2, 3):
        world.run_pass(check=1)
        assert world.waiting() == {"large.g3"}
        assert world.archived("P01") == world.archived("S01") == small
        assert world.disk_states() == in_use
        (row,) = world.sql("SELECT * FROM pending")
        assert (row["name"], row["attempts"]) == ("large.g3", tries)
        assert world.notices() == ({("copy-failed", "large.g3")} if tries == 3 else set())
        try_at_once(world)
    text = notice_text(world, "copy-failed", "large.g3")
    assert "30000000 bytes fit on no empty primary disk; the file stays in the buffer" in text
    for label in ("P03", "S03"):
        world.add_disk(label)
        world.plug_in(label, size_mb=64, fs="ext4")
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P03") == world.archived("S03") == {"large.g3"}
    assert ("copy-failed", "large.g3") not in world.notices()


# --- no room half-way ------------------------------------------------------------------------


def fill_up(place: Path, spared_bytes: int = 0) -> None:
    """Another program takes all the room there is, to the last block."""
    with (place / "filling").open("wb") as file:
        step_bytes, taken_bytes = 1 << 24, 0
        while step_bytes >= 512:
            try:
                os.posix_fallocate(file.fileno(), taken_bytes, step_bytes)
                taken_bytes += step_bytes
            except OSError as fault:
                assert fault.errno == errno.ENOSPC
                step_bytes //= 2
        os.ftruncate(file.fileno(), taken_bytes - spared_bytes)
        os.fsync(file.fileno())


def make_room_again(place: Path) -> None:
    """It gives all of it back; ext4 does so with its next commit."""
    (place / "filling").unlink()
    fd = os.open(place, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def three_files(world: LoopWorld) -> list[str]:
    """0.g3 to 2.g3 of 2 MB, in this order: one batch."""
    names = ["0.g3", "1.g3", "2.g3"]
    for number, name in enumerate(names):
        world.put(name, 2 * MB, mtime_s=1_600_000_000 + number)
    return names


def halted_at_the_second(world: LoopWorld, label: str) -> HaltedAmongBatches:
    """A pass that stands where it has begun its second file on this disk."""
    return HaltedAmongBatches(world, "openat", [world.disks[label] / ".incoming"], nth=2)


@needs_strace
@pytest.mark.parametrize(
    ("full", "next_one", "other"), [("P01", "P02", "S01"), ("S01", "S02", "P01")]
)
def test_a_disk_filled_up_in_mid_copy_leaves_the_other_roles_copies_as_they_are(
    make_loop_world: Callable[..., LoopWorld], full: str, next_one: str, other: str
) -> None:
    """A real ENOSPC: what the disk has no room for goes to the next one, in the same pass.

    The finished copies of the other role are not written again: inode and ctime stay.
    """
    world = make_loop_world(size_mb=32, primary_fs="ext4")
    ready_world(world)
    names = three_files(world)
    halted = halted_at_the_second(world, full)
    fill_up(world.disks[full])
    with after_this_batch(world, halted):
        assert world.archived(other) == {"seed.g3", *names}
        finished = {name: inode_and_times(world.data(other) / name) for name in names}
        written = world.archived(full)
        assert written < {"seed.g3", *names}
        make_room_again(world.disks[full])
    halted.end(check=0)
    assert world.waiting() == set()
    assert world.archived(next_one) == {"seed.g3", *names} - written
    assert {name: inode_and_times(world.data(other) / name) for name in names} == finished
    assert "No space left on device" in world.log()
    assert world.disk_states()[full] == "closed"
    assert world.notices() == {("disk-closed", full)}


@needs_strace
def test_a_disk_that_another_program_filled_is_not_closed_when_there_is_no_next_one(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """It is closed for a file that another disk took, and none did: it goes on when it can."""
    world = make_loop_world(primaries=["P01"], copies=["S01"], size_mb=32, primary_fs="ext4")
    ready_world(world)
    names = three_files(world)
    halted = halted_at_the_second(world, "P01")
    fill_up(world.disks["P01"], spared_bytes=MB)
    halted.let_go()
    halted.end(check=1)
    assert world.waiting()
    assert world.archived("S01") == {"seed.g3", *names}
    assert world.disk_states() == {"P01": "active", "S01": "active"}
    assert world.notices() == {("no-disk", "primary")}
    make_room_again(world.disks["P01"])
    go_on(world)
    assert world.archived("P01") == {"seed.g3", *names}


def test_a_full_disk_that_lacks_the_room_to_be_closed_is_said_and_never_held(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Another program left it not a block: it does not fail, and is closed once it can be."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"], size_mb=32, primary_fs="ext4")
    ready_world(world)
    fill_up(world.disks["P01"])
    for number in range(4):
        world.put(f"{number}.g3")
        world.run_pass(check=(0, 1))
        assert {key for _, key in world.notices()} == {"P01"}
        assert held(world) == {}
    assert world.waiting() == set()
    assert world.archived("P02") == {"0.g3", "1.g3", "2.g3", "3.g3"}
    make_room_again(world.disks["P01"])
    world.run_pass("close", "--yes", "P01", check=0)
    assert world.notices() == {("disk-closed", "P01")}


@needs_strace
def test_a_quota_is_as_good_as_a_full_disk(make_loop_world: Callable[..., LoopWorld]) -> None:
    """EDQUOT (by strace: few kernels know quotas) moves on to the next disk of each role."""
    world = make_loop_world()
    ready_world(world)
    for number in range(4):
        world.put(f"{number}.g3", MB, mtime_s=1_600_000_000 + number)
    run = world.run_pass(prefix=strace(world, "fallocate", inject="error=EDQUOT:when=3"), check=0)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == set()
    for full, next_one in (("P01", "P02"), ("S01", "S02")):
        assert world.archived(full) == {"seed.g3", "0.g3", "1.g3"}
        assert world.archived(next_one) == {"2.g3", "3.g3"}
        assert f"{full} is full (Disk quota exceeded)" in world.log()
    assert world.notices() == {("disk-closed", "P01"), ("disk-closed", "S01")}


# --- disks that fail -------------------------------------------------------------------------


def held(world: LoopWorld) -> dict[str, str]:
    """Label → who holds it, of the held ones."""
    return dict(map(tuple, world.sql("SELECT label, held_by FROM disks WHERE held_by <> ''")))


def passes(world: LoopWorld, count: int, check: int = 1) -> None:
    """So many passes, each with a new small file to archive."""
    for _ in range(count):
        (number,) = world.sql("SELECT count(*) FROM files")[0]
        world.put(f"of-pass-{number}.g3")
        world.run_pass(check=check)


@needs_strace
@pytest.mark.parametrize(
    ("label", "next_one", "other"), [("P01", "P02", "S01"), ("S01", "S02", "P01")]
)
def test_a_disk_pulled_in_mid_copy_is_left_out_for_the_rest_of_the_pass(
    make_loop_world: Callable[..., LoopWorld], label: str, next_one: str, other: str
) -> None:
    """EIO: the next disk takes over, also of what was begun; the other role loses nothing.

    Though it works again by the next batch, only the next pass tries it.
    """
    world = make_loop_world()
    ready_world(world)
    names = three_files(world)
    halted = halted_at_the_second(world, label)
    pull(world, label)
    with after_this_batch(world, halted):
        finished = {name: inode_and_times(world.data(other) / name) for name in names}
        assert world.waiting() == set(names)
        plug_in_again(world, label)
    halted.end(check=1)
    assert world.waiting() == set()
    assert world.archived(next_one) == set(names)
    assert world.archived(label) == {"seed.g3"}
    assert {name: inode_and_times(world.data(other) / name) for name in names} == finished
    assert world.notices() == {("disk-error", label)}
    assert "it does not take data: Input/output error" in notice_text(world, "disk-error", label)
    world.put("3.g3")
    go_on(world)
    assert held(world) == {}


STEPS = {
    "first-look": ("fstatfs", "", 1),
    "second-look": ("fstatfs", "", 2),
    "begin": ("openat", ".incoming", 1),
    "publish": ("linkat", ".incoming", 1),
    "manifest": ("fsync", "manifest-sha512.txt", 1),
    "directory": ("fsync", "data", 1),
}


def test_a_file_that_waits_for_room_is_told_as_long_as_it_waits(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Smaller ones that find their room meanwhile do not end it."""
    world = make_loop_world(primaries=["P01"], copies=["S01"], size_mb=64)
    ready_world(world)
    rooms = [os.statvfs(world.disks[label]) for label in ("P01", "S01")]
    world.put("large.g3", min(room.f_bavail * room.f_frsize for room in rooms) - 2_000_000)
    world.run_pass(check=0)
    world.put("waits.g3", 30_000_000)
    for number in range(3):
        world.put(f"small-{number}.g3")
        world.run_pass(check=1)
        assert world.waiting() == {"waits.g3"}
        assert world.notices() == {("no-disk", "primary"), ("no-disk", "copy")}
        assert "ACT NOW" in world.status().out
    reopened = world.sql("SELECT sum(reopened) FROM notices WHERE kind = 'no-disk'")
    assert reopened[0][0] == 0
    (world.buffer / "waits.g3").unlink()
    world.ledger.withdraw("waits.g3", "somebody took it")
    world.run_pass(check=0)
    assert world.notices() == set()


@needs_strace
@pytest.mark.parametrize(
    "error", ["ENODATA", "ETIMEDOUT", "ENOLINK", "EREMOTEIO", "EILSEQ", "EBADE"]
)
def test_what_a_drive_says_of_itself_past_memory_is_the_disks_fault(
    make_loop_world: Callable[..., LoopWorld], error: str
) -> None:
    """A medium error is ENODATA, a time-out ETIMEDOUT: direct reads and writes are not all EIO."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    ready_world(world)
    world.put("a.g3", 5000)
    prefix = strace(world, "syncfs", [world.disks["P01"]], f"error={error}")
    world.run_pass(check=1, prefix=prefix)
    assert world.archived("P02") == {"a.g3"}
    assert world.notices() == {("disk-error", "P01")}
    assert world.sql("SELECT errors_running FROM disks WHERE label = 'P01'")[0][0] == 1
    assert world.waiting() == set()


@needs_strace
@pytest.mark.parametrize(("calls", "where", "nth"), STEPS.values(), ids=STEPS)
def test_an_error_at_any_step_moves_the_file_to_the_next_disk(
    make_loop_world: Callable[..., LoopWorld], calls: str, where: str, nth: int
) -> None:
    """EIO once, whenever: exit 1, a notice, and two whole copies; the next pass finds it well."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    ready_world(world)
    world.put("a.g3", 5000)
    prefix = strace(world, calls, [world.disks["P01"] / where], f"error=EIO:when={nth}")
    world.run_pass(check=1, prefix=prefix)
    assert world.waiting() == set()
    assert world.archived("P02") == {"a.g3"}
    assert world.archived("S01") == {"seed.g3", "a.g3"}
    assert world.notices() == {("disk-error", "P01")}
    assert "Input/output error" in notice_text(world, "disk-error", "P01")
    world.check(allow_unregistered=True)
    go_on(world)
    world.run_pass(
        "close", "--yes", "P01", check=0
    )  # what it published before the error is adopted


def test_a_disk_that_fails_in_three_passes_running_is_held_till_it_is_given_back(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """A person reads of it as long as it is held; ``unhold`` gives it back."""
    world = make_loop_world(copies=["S01"])
    ready_world(world)
    pull(world, "P01")
    passes(world, 2)
    assert held(world) == {}
    passes(world, 1)
    assert held(world) == {"P01": "machine"}
    assert world.notices() == {("disk-error", "P01")}
    assert "HELD by machine: it failed in 3 passes running" in world.status(check=0).out
    assert world.archived("P02") == {"of-pass-1.g3", "of-pass-2.g3", "of-pass-3.g3"}
    plug_in_again(world, "P01")
    passes(world, 1, check=0)
    assert held(world) == {"P01": "machine"}
    assert world.notices() == {("disk-error", "P01")}
    world.run_pass("unhold", "P01", check=0)
    assert held(world) == {}
    assert world.notices() == set()
    world.run_pass("close", "--yes", "P02", check=0)
    passes(world, 1, check=0)
    assert world.archived("P01") == {"seed.g3", "of-pass-5.g3"}


def test_errors_that_do_not_come_in_passes_running_hold_no_disk(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """A pass in which the disk worked begins the count anew."""
    world = make_loop_world(copies=["S01"])
    ready_world(world)
    for _ in range(2):
        pull(world, "P01")
        passes(world, 2)
        plug_in_again(world, "P01")
        world.loops["P02"].umount()
        world.put(f"good-{world.sql('SELECT count(*) FROM files')[0][0]}.g3")
        world.run_pass(check=1)  # P02 is missed
        world.loops["P02"].mount()
    assert held(world) == {}
    go_on(world)


def test_the_last_usable_disk_of_a_role_is_never_held(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Whatever it does, it is tried again; once another one is mounted it is held."""
    world = make_loop_world(copies=["S01"])
    world.loops["P02"].umount()
    ready_world(world)
    pull(world, "P01")
    passes(world, 4)
    assert held(world) == {}
    assert world.notices() == {("disk-error", "P01"), ("no-disk", "primary")}
    assert len(world.waiting()) == 4
    world.loops["P02"].mount()
    passes(world, 1)
    assert held(world) == {"P01": "machine"}
    assert world.waiting() == set()
    plug_in_again(world, "P01")
    world.run_pass("unhold", "P01", check=0)
    passes(world, 1, check=0)
    assert world.notices() == set()


def test_a_disk_that_takes_no_data_is_no_other_usable_one(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Its role's only other disk is mounted read-only: a failing one is not held, and goes on.

    As soon as it is well again it takes files, without a word from a person.
    """
    world = make_loop_world(copies=["S01"])
    ready_world(world)
    world.loops["P02"].remount("ro")
    pull(world, "P01")
    passes(world, 4)
    assert held(world) == {}
    assert len(world.waiting()) == 4
    plug_in_again(world, "P01")
    world.run_pass(check=(0, 1))
    assert world.waiting() == set()
    assert "of-pass-1.g3" in world.archived("P01")


@needs_strace
def test_of_two_disks_that_fail_alike_neither_is_held_for_the_others_sake(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Both disks of a role refuse what is written to them, pass after pass: both are kept."""
    world = make_loop_world(copies=["S01"])
    ready_world(world)
    places = [world.data(label) for label in ("P01", "P02")]
    world.run_pass("hold", "--yes", "P01", "--why", "so that P02 is in use too", check=0)
    passes(world, 1, check=0)
    world.run_pass("unhold", "P01", check=0)
    for number in range(4):
        world.put(f"late-{number}.g3")
        world.run_pass(check=1, prefix=strace(world, "linkat", places, "error=EIO"))
    assert held(world) == {}
    go_on(world)


def test_none_is_held_where_three_disks_fail_at_once(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """A cable or a controller is at fault: one critical notice says so, and disks are kept."""
    world = make_loop_world(primaries=["P01", "P02", "P03"], copies=["S01", "S02"])
    ready_world(world)
    world.run_pass("hold", "--yes", "P01", "--why", "so that P02 is in use too", check=0)
    passes(world, 1, check=0)
    world.run_pass("unhold", "P01", check=0)
    pull(world, "P01", "P02", "S01")
    passes(world, 3)
    assert held(world) == {}
    assert world.waiting() == set()
    errors = {("disk-error", label) for label in ("P01", "P02", "S01")}
    assert world.notices() == errors | {("disk-error", "several")}
    (row,) = world.sql("SELECT severity, text FROM notices WHERE key = 'several'")
    assert row["severity"] == "critical"
    assert "P01, P02, S01 fail at once: look for a common cause" in row["text"]
    plug_in_again(world, "P01", "P02", "S01")
    world.put("last.g3")
    go_on(world)


# --- what is no fault of the disk ------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_stands_in_a_files_way_on_one_disk_sends_it_to_the_next(
    make_loop_world: Callable[..., LoopWorld], what: str
) -> None:
    """Where its directory must be; the disk is well, takes other files, and is never held."""
    world = ready_world(make_loop_world())
    obstacle = world.data("P01") / "d"
    if what == "file":
        obstacle.write_bytes(b"not ours")
    else:
        obstacle.symlink_to(world.root)
    world.spoil("P01", None, "something stands in data/")
    for night in range(4):
        world.put(f"d/{night}.g3")
        world.put(f"e/{night}.g3")
        world.run_pass(check=0)
    assert {f"d/{night}.g3" for night in range(4)} <= world.archived("P02")
    assert world.waiting() == set()
    assert world.disk_states()["P01"] == "active"
    assert world.sql("SELECT label FROM disks WHERE held_by NOT NULL") == []
    assert "on P01 something is in its way" in notice_text(world, "name-conflict", "P01 d/0.g3")


def test_a_disk_is_not_full_for_a_file_that_it_could_never_take(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """With disks of unequal size the large one takes it, and the small one stays in use."""
    world = make_of_sizes(make_loop_world, {"P01": 32, "P02": 128}, {"S01": 128})
    world.put("small.g3", 1000)
    world.run_pass(check=0)
    world.put("large.g3", 50 * MB)
    world.run_pass(check=0)
    assert world.archived("P02") == {"large.g3"}
    assert world.disk_states() == {"P01": "active", "P02": "active", "S01": "active"}


def test_a_disk_without_inodes_is_as_good_as_full(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """ext4 makes them with the file system: many small files use them up long before the bytes."""
    world = make_loop_world(primaries=[], copies=[])
    for label, args in (("P01", ["-N", "48"]), ("P02", []), ("S01", [])):
        world.add_disk(label)
        world.plug_in(label, size_mb=32, fs="ext4", mkfs_args=args)
    world.generate()
    names = {f"{number:02}.g3" for number in range(40)}
    for name in names:
        world.put(name, 100)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") and world.archived("P02")
    assert world.archived("P01") | world.archived("P02") == world.archived("S01") == names
    assert world.disk_states() == {"P01": "closed", "P02": "active", "S01": "active"}
