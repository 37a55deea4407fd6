"""``verify`` reads every copy of a disk from the medium, and writes down what it found."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import subprocess
from collections.abc import Sequence

import pytest

from poledata.formatting import counted
from tests.helpers.halted import HaltedPass, needs_strace, strace
from tests.helpers.loopdisks import LoopDisk, LoopWorld, _position_on_device
from tests.helpers.rack import plug_in_again, pull
from tests.helpers.stations import reasons
from tests.helpers.verified_disks import (
    LONG_AGO,
    filled,
    notice,
    process_of,
    standing_still_at,
    states,
)
from tests.helpers.world import Run, World


def verify(world: World, *labels: str, check: int = 0, prefix: Sequence[str] = ()) -> Run:
    return world.run_pass("verify", *labels, check=check, prefix=prefix)


def just_verified(world: World, label: str = "P01") -> set[str]:
    query = "SELECT f.name FROM copies c JOIN files f ON f.id = file_id JOIN disks d ON "
    where = "d.id = disk_id WHERE label = ? AND verified_at <> ?"
    return {row["name"] for row in world.sql(query + where, label, LONG_AGO)}


# --- what it finds ------------------------------------------------------------------------


def test_good_copies_are_noted_with_time_and_way(loop_world: LoopWorld) -> None:
    """Exit 0; the medium was read (O_DIRECT), the disks and the other disk's rows stay."""
    filled(loop_world, "a/1.g3", "a/2.g3", "3.g3")
    before = loop_world.snapshot(loop_world.mounts)
    run = verify(loop_world, "ztp01aa")
    assert run.out == "P01: 3 copies are good (30 kB), 0 damaged, 0 missing, 0 unregistered files\n"
    assert just_verified(loop_world) == {"a/1.g3", "a/2.g3", "3.g3"}
    assert just_verified(loop_world, "S01") == set()
    ways = loop_world.sql("SELECT DISTINCT verified_by FROM copies WHERE verified_at > '2021'")
    assert [tuple(row) for row in ways] == [("direct",)]
    assert before.differences(loop_world.snapshot(loop_world.mounts)) == []
    run = verify(loop_world, "P01", "S01")
    assert [line.split(":")[0] for line in run.out.splitlines()] == ["P01", "S01"]


@pytest.mark.parametrize("label", ["P01", "S01"])
def test_every_harm_to_a_copy_is_found_and_told_apart(loop_world: LoopWorld, label: str) -> None:
    """A bit that flipped on the medium under a warm cache, a file gone, cut, or not ours.

    Put right again, the same command says so, and the notice is over.
    """
    world = filled(loop_world, "flipped.g3", "gone.g3", "cut.g3", "good.g3")
    data, loop = world.data(label), world.loops[label]
    kept = {name: (data / name).read_bytes() for name in ("flipped.g3", "gone.g3", "cut.g3")}
    loop.flip_bit("data/flipped.g3", offset=5000)
    assert (data / "flipped.g3").read_bytes() == kept["flipped.g3"]  # who believes memory sees none
    (data / "gone.g3").unlink()
    os.truncate(data / "cut.g3", 100)
    (data / "notes.txt").write_text("not ours")
    before = world.snapshot(world.mounts)
    run = verify(world, label, check=1)
    assert run.out.splitlines() == [
        f"{label}: DAMAGED cut.g3",
        f"{label}: DAMAGED flipped.g3",
        f"{label}: MISSING gone.g3",
        f"{label}: UNREGISTERED notes.txt",
        f"{label}: 1 copy is good (10 kB), 2 damaged, 1 missing, 1 unregistered file",
    ]
    assert states(world, label) == {
        "flipped.g3": "damaged",
        "cut.g3": "damaged",
        "gone.g3": "missing",
        "good.g3": "good",
    }
    assert just_verified(world, label) == set(states(world, label))
    other = "S01" if label == "P01" else "P01"
    assert set(states(world, other).values()) == {"good"}
    changed = before.differences(world.snapshot(world.mounts))
    assert changed == [f"{label}/data/flipped.g3: content changed"]  # it is no longer in memory
    assert notice(world, "copy-damaged", label).startswith(
        f"2 copies on {label} are damaged, 1 missing, cut.g3 among them. By what was last read of "
        "the others, each file has a good copy elsewhere."
    )
    (found,) = json.loads(verify(world, label, "--json", check=1).out)
    assert found["damaged"] == ["cut.g3", "flipped.g3"]
    assert (found["label"], found["good"], found["good_bytes"]) == (label, 1, 10_003)
    assert (found["missing"], found["unregistered"]) == (["gone.g3"], ["notes.txt"])

    loop.flip_bit("data/flipped.g3", offset=5000)
    (data / "notes.txt").unlink()
    for name in ("gone.g3", "cut.g3"):
        (data / name).write_bytes(kept[name])
    verify(world, label)
    assert set(states(world, label).values()) == {"good"}
    assert world.notices() == set()


def test_a_directory_that_can_not_be_entered_stops_no_other_file(world: World) -> None:
    """What was below it is reported; all else on the disk is read all the same."""
    filled(world, "a/1.g3", "b/2.g3", "c.g3")
    (world.data("P01") / "a").rename(world.data("P01") / "away")
    (world.data("P01") / "a").write_text("a file in its place")
    world.leave_unchecked("the test harmed a disk")
    run = verify(world, "P01", check=1)
    assert just_verified(world) >= {"b/2.g3", "c.g3"}
    assert "P01: 2 copies are good" in run.out
    assert states(world)["a/1.g3"] != "good"


def test_links_and_pipes_are_reported_and_hide_nothing(world: World) -> None:
    """Neither what else is unregistered, nor copies that the manifest does not know."""
    filled(world, "a.g3", "b.g3")
    data = world.data("P01")
    (data / "link").symlink_to("a.g3")
    os.mkfifo(data / "pipe")
    (data / "notes.txt").write_text("not ours")
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    manifest.write_text(manifest.read_text().splitlines(keepends=True)[0])
    world.leave_unchecked("the test harmed a disk")
    run = verify(world, "P01", check=1)
    assert run.out.splitlines() == [
        "P01: UNREGISTERED link",
        "P01: UNREGISTERED notes.txt",
        "P01: UNREGISTERED pipe",
        "P01: UNLISTED b.g3",
        "P01: 2 copies are good (20 kB), 0 damaged, 0 missing, 3 unregistered files",
    ]


def test_a_spare_has_nothing_to_verify(world: World) -> None:
    """A drive that was never used is no fault, and is not called one that fails."""
    filled(world, "a.g3")
    run = world.run_pass("verify", "P02", check=(0, 2))
    assert "does not give its data back" not in run.out + run.err
    assert world.notices() == set()


# --- a medium that can't be read ----------------------------------------------------------


def cut_off(disk: LoopDisk, name: str, offset: int) -> None:
    """From this byte of a file on the drive gives nothing back: its image ends there."""
    path = disk.mount_point / "data" / name
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        at = disk.image_offset + _position_on_device(file.fileno(), offset)
    os.truncate(disk.image, at)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with pytest.raises(OSError) as fault, mmap.mmap(-1, mmap.PAGESIZE) as page:
            os.preadv(fd, [page], offset)
        assert fault.value.errno == errno.EIO
    finally:
        os.close(fd)


@needs_strace
def test_a_disk_whose_every_read_is_a_medium_error_is_at_fault_and_its_copies_are_not(
    loop_world: LoopWorld,
) -> None:
    """ENODATA, as a drive's direct reads say it; its mark does not come back either."""
    world = filled(loop_world, "a.g3", "b.g3")
    root = world.disks["P01"]
    places = [root / "bag-info.txt", world.data("P01") / "a.g3", world.data("P01") / "b.g3"]
    dead = strace(world, "preadv,preadv2", places, "error=ENODATA:when=2+")  # held, then dead
    run = verify(world, "P01", check=1, prefix=dead)
    assert "P01: COULD NOT BE READ TO THE END" in run.out
    assert states(world) == {"a.g3": "good", "b.g3": "good"}
    assert ("disk-error", "P01") in world.notices()
    assert ("copy-damaged", "P01") not in world.notices()


def test_a_file_of_which_a_bad_copy_was_told_is_over_where_both_read_well(world: World) -> None:
    """Its own notice, and that it has no good copy: verify ends them, as repair does."""
    filled(world, "a.g3")
    serial = world.serials["P01"]
    for kind, key in (("copy-damaged", "a.g3"), ("no-good-copy", serial)):
        world.sql(
            "INSERT INTO findings (kind, key, severity, text, found_at) VALUES "
            "(?, ?, 'warning', 'It was so.', '2026-01-01T00:00:00Z')",
            kind,
            key,
        )
    verify(world, "P01", "S01")
    assert world.notices() == set()


@needs_strace
def test_a_region_that_can_not_be_read_is_loud_and_the_rest_is_read(loop_world: LoopWorld) -> None:
    """EIO inside one file: the first line of all, also before those of other disks.

    That copy is damaged, the others are verified; the notice says that it was the drive.
    """
    names, bad = ["a.g3", "b.g3", "c.g3"], "b.g3"
    world = filled(loop_world, *names)
    for label in ("P01", "S01"):
        world.spoil(label, bad, "what is read of it is an error, or nothing")
    (world.data("S01") / bad).unlink()
    unreadable = strace(world, "preadv,preadv2", [world.data("P01") / bad], "error=EIO")
    run = verify(world, "S01", "P01", check=1, prefix=unreadable)
    first, *rest = run.out.splitlines()
    assert first == f"P01: I/O ERROR {bad}: Input/output error"
    assert f"S01: MISSING {bad}" in rest and f"P01: DAMAGED {bad}" not in rest
    assert any(line.startswith("P01: 2 copies are good (") for line in rest)
    assert any(", 1 damaged, 0 missing" in line for line in rest)
    assert states(world) == {name: "damaged" if name == bad else "good" for name in names}
    assert just_verified(world) == set(names)
    assert notice(world, "copy-damaged", "P01").startswith(
        f"1 copy on P01 is damaged, 0 missing, {bad} among them. I/O ERROR at 1 of them "
        f"({bad}: Input/output error): the drive may be failing."
    )
    (found,) = verify(world, "P01", "--json", check=1, prefix=unreadable).json()
    assert found["io_errors"] == [{"name": bad, "why": "Input/output error"}]
    assert found["damaged"] == [bad]


def test_a_directory_that_can_not_be_read_is_loud_and_the_rest_is_read(
    loop_world: LoopWorld,
) -> None:
    """A bad block under one directory keeps nobody from knowing about all other files."""
    world = filled(loop_world, "a/1.g3", "b/2.g3", "c.g3")
    disk = world.loops["S01"]
    fd = os.open(world.data("S01") / "a", os.O_RDONLY)
    at = _position_on_device(fd, 0)
    os.close(fd)
    disk.umount()
    with open(disk.image, "r+b") as image:
        image.seek(at)
        image.write(b"\xff" * 1024)
    disk.mount()
    world.leave_unchecked("the test harmed a directory")
    with pytest.raises(OSError):
        os.stat(world.data("S01") / "a" / "1.g3")
    run = verify(world, "S01", check=1)
    assert just_verified(world, "S01") >= {"b/2.g3", "c.g3"}
    assert "S01: 2 copies are good" in run.out
    assert notice(world, "copy-damaged", "S01")


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "EACCES", "ESTALE"])
def test_a_directory_that_can_not_be_opened_is_no_fault_of_its_files(
    loop_world: LoopWorld, error: str
) -> None:
    """No row is touched and the reading ends, with a notice; the next one finds all good."""
    world = filled(loop_world, "a/1.g3", "a/2.g3", "b/3.g3")
    before = [tuple(row) for row in world.sql("SELECT * FROM copies ORDER BY 1, 2")]
    prefix = strace(world, "openat", [world.data("P01")], f"error={error}:when=1")
    run = verify(world, "P01", check=1, prefix=prefix)
    assert run.out.startswith("P01: COULD NOT BE READ TO THE END: P01: ")
    assert "DAMAGED" not in run.out and "3 are still to be read" in run.out
    assert [tuple(row) for row in world.sql("SELECT * FROM copies ORDER BY 1, 2")] == before
    kind = "disk-read-only" if error == "EACCES" else "disk-error"
    assert world.notices() == {(kind, "P01")}
    said = "this user may not use it (a)" if error == "EACCES" else "it does not work: "
    assert notice(world, kind, "P01").startswith(said)
    verify(world, "P01")
    world.run_pass(check=0)
    assert world.notices() == set()


@needs_strace
@pytest.mark.parametrize("error", ["EMFILE", "ENFILE"])
def test_too_few_descriptors_are_no_fault_of_a_disk(loop_world: LoopWorld, error: str) -> None:
    """Exit 1 and what to do; no row is touched, and no disk is blamed."""
    world = filled(loop_world, "a/1.g3", "b/2.g3")
    before = [tuple(row) for row in world.sql("SELECT * FROM copies ORDER BY 1, 2")]
    prefix = strace(world, "openat", [world.data("P01")], f"error={error}:when=1")
    run = verify(world, "P01", check=1, prefix=prefix)
    assert "There are too few file descriptors" in run.err and "ulimit -n" in run.err
    assert "P01" not in run.out
    assert [tuple(row) for row in world.sql("SELECT * FROM copies ORDER BY 1, 2")] == before
    assert world.notices() == set()
    verify(world, "P01")


def test_a_drive_that_has_dropped_off_says_nothing_about_its_copies(loop_world: LoopWorld) -> None:
    """No read at all is a fault of cable or drive: loud, but no copy is called damaged.

    Its mark is still in memory, and is no proof that the drive answers.
    """
    world = filled(loop_world, "a.g3", "b.g3")
    os.sync()
    (world.disks["S01"] / "bag-info.txt").read_bytes()
    cut_off(world.loops["S01"], "a.g3", 0)
    os.truncate(world.loops["S01"].image, 4096)
    world.leave_unchecked("the test took the medium away")
    run = verify(world, "S01", check=1)
    assert "S01: COULD NOT BE READ TO THE END" in run.out
    assert states(world, "S01") == {"a.g3": "good", "b.g3": "good"}


# --- a disk that can't be read to its end ---------------------------------------------------


def undone(disk: LoopDisk, what: str) -> None:
    """One of the disk's own files is put aside, or brought back."""
    here, away = disk.mount_point / what, disk.mount_point / f"{what}-away"
    os.rename(away, here) if away.exists() else os.rename(here, away)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("bag-info.txt", "it was used before, but {place} has no mark"),
        ("manifest-sha512.txt", "there is no manifest-sha512.txt"),
    ],
)
@pytest.mark.parametrize("is_closed", [False, True], ids=["in-use", "closed"])
def test_a_disk_that_lacks_a_part_of_its_bag_is_told_of_till_it_is_read_to_its_end(
    loop_world: LoopWorld, what: str, why: str, is_closed: bool
) -> None:
    """A notice, a warning in the log, a line of ``status``; passes that look do not end it."""
    world = filled(loop_world, "a.g3")
    if is_closed:
        world.run_pass("close", "--yes", "P01", check=0)
        world.sql("DELETE FROM findings")
    undone(world.loops["P01"], what)
    why = why.format(place=world.disks["P01"])
    assert f"P01: COULD NOT BE READ TO THE END: P01: {why}" in verify(world, "P01", check=1).out
    assert world.notices() == {("disk-wrong", "P01")}
    assert notice(world, "disk-wrong", "P01").startswith(why)
    assert f"WARNING P01 could not be read to the end: P01: {why}" in world.log()
    world.run_pass(check=0)
    assert world.status().out.startswith("LOOK TODAY: P01: what is mounted is not this disk")
    undone(world.loops["P01"], what)
    verify(world, "P01", "S01")
    assert world.notices() == set()
    assert reasons(world) == []


def test_a_disk_that_answers_nothing_is_told_of(loop_world: LoopWorld) -> None:
    """EIO from the first look on: no copy is called damaged; mounted anew and read, it is over."""
    world = filled(loop_world, "a.g3")
    for label in ("P01", "S01"):
        pull(world, label)
        run = verify(world, label, check=1)
        assert f"READ TO THE END: {label}: it does not work: Input/output error" in run.out
        assert f"WARNING {label} could not be read to the end" in world.log()
        assert notice(world, "disk-error", label).startswith(
            "it does not work: Input/output error."
        )
        assert world.status().out.startswith(f"LOOK TODAY: {label}: the disk returns errors")
        assert states(world, label) == {"a.g3": "good"}
        plug_in_again(world, label)
        verify(world, label)
        assert world.notices() == set()


@needs_strace
def test_a_disk_that_dies_while_it_is_read_is_told_of(loop_world: LoopWorld) -> None:
    """What was read before counts, no other copy is touched, and a pass that looks ends nothing.

    A disk that was read to its end, or that a pass has used, is well again.
    """
    world = filled(loop_world, "a.g3", "b.g3", "c.g3")
    reading, thread = standing_still_at(world, "b.g3")
    pull(world, "P01")
    os.kill(thread, signal.SIGCONT)
    assert reading.wait(timeout=60) == 1
    world.unfinished = False
    assert states(world) == {"a.g3": "good", "b.g3": "good", "c.g3": "good"}
    assert "P01: COULD NOT BE READ TO THE END" in (world.root / "out").read_text()
    assert world.notices() == {("disk-error", "P01")}
    plug_in_again(world, "P01")
    world.run_pass(check=0)
    assert world.notices() == {("disk-error", "P01")}
    world.put("d.g3")
    world.run_pass(check=0)
    assert world.notices() == set()


def test_a_spare_that_is_not_itself_is_told_of_till_a_pass_finds_it_well(
    loop_world: LoopWorld,
) -> None:
    """It has nothing to be read: a look proves it."""
    world = filled(loop_world, "a.g3")
    (world.disks["P02"] / "notes.txt").write_text("not ours")
    assert "it should be empty, but" in verify(world, "P02", check=1).out
    assert world.notices() == {("disk-wrong", "P02")}
    (world.disks["P02"] / "notes.txt").unlink()
    world.run_pass(check=0)
    assert world.notices() == set()


@pytest.mark.parametrize("reason", ["it failed in 3 passes running", "SMART: it is failing"])
def test_a_held_disk_that_reads_well_again_answers_again(
    loop_world: LoopWorld, reason: str
) -> None:
    """Whatever it is held for, its notice of errors is over; a look of a pass does not end it."""
    world = filled(loop_world, "a.g3")
    pull(world, "P01")
    verify(world, "P01", check=1)
    plug_in_again(world, "P01")
    hold = "UPDATE disks SET held_by = 'machine', held_reason = ? WHERE label = 'P01'"
    world.sql(hold, reason)
    world.run_pass(check=0)
    assert world.notices() == {("disk-error", "P01")}
    verify(world, "P01")
    assert world.notices() == set()


def test_a_shipped_disk_that_does_not_answer_is_told_of_by_its_serial(
    loop_world: LoopWorld,
) -> None:
    """Till it is read, or given up; that its place is empty, or another's, is no fault."""
    world = filled(loop_world, "a.g3")
    world.run_pass("close", "--yes", "P01", check=0)
    world.ship("P01")
    pull(world, "P01")
    verify(world, "P01", check=1)
    assert world.notices() == {("disk-error", "ZTP01AA")}
    world.loops["P01"].umount()
    world.sql("DELETE FROM findings")
    verify(world, "P01", check=1)
    assert world.notices() == set()
    world.loops["P01"].mount()
    pull(world, "P01")
    verify(world, "P01", check=1)
    world.run_pass("lost", "P01", "--why", "it is dead", check=0)
    world.spoil("P01", None, "it was lost")
    assert world.notices() == set()
    plug_in_again(world, "P01")


def test_a_disk_in_use_that_is_not_mounted_is_missing_any_other_is_on_the_shelf(
    loop_world: LoopWorld,
) -> None:
    """No notice for a closed, held or spare disk that is not there: only the output says it."""
    world = filled(loop_world, "a.g3")
    for command in (["close", "--yes", "P01"], ["hold", "--yes", "S02", "--why", "it rattles"]):
        world.run_pass(*command, check=0)
    world.sql("DELETE FROM findings")
    for label in ("P01", "P02", "S01", "S02"):
        world.loops[label].umount()
        run = verify(world, label, check=1)
        assert f"nothing is mounted at {world.disks[label]}" in run.out
    assert world.notices() == {("disk-missing", "S01")}
    for loop in world.loops.values():
        loop.mount()
    world.run_pass(check=0)
    assert world.notices() == set()


# --- whose disk, and when -----------------------------------------------------------------


def test_a_shipped_disk_that_is_back_at_its_place_can_be_verified(loop_world: LoopWorld) -> None:
    """By its serial, also once another drive has its label; that drive is not taken for it."""
    world = filled(loop_world, "a.g3")
    world.run_pass("close", "--yes", "P01", check=0)
    world.ship("P01")
    assert "P01: 1 copy is good" in verify(world, "P01").out
    old = world.loops["P01"]
    old.mount(world.root / "elsewhere")
    old.umount()
    old.mount_point = world.disks["P01"]
    old.umount()
    world.add_disk("P01", "NEWP01AA")
    world.generate()
    world.sql("UPDATE disks SET state = 'lost' WHERE label = 'P02'")
    new = world.plug_in("P01", fs="xfs", size_mb=64)
    world.put("b.g3")
    world.run_pass(check=0)
    world.sql("UPDATE copies SET verified_at = ?", LONG_AGO)
    run = verify(world, "ZTP01AA", check=1)
    place = world.disks["P01"]
    assert f"COULD NOT BE READ TO THE END: P01: the mark at {place} says P01, serial NEWP01AA" in (
        run.out
    )
    assert "P01: 0 copies are good" in run.out
    new.umount()
    old.mount()
    assert "P01: 1 copy is good" in verify(world, "ZTP01AA").out
    assert "the mark at" in verify(world, "P01", check=1).out
    old.umount()
    run = verify(world, "ZTP01AA", check=1)
    assert f"nothing is mounted at {place}. Nothing was written." in run.out
    new.mount()
    world.leave_unchecked("two drives have the label P01")


def test_another_disk_in_its_place_is_refused(loop_world: LoopWorld) -> None:
    """Nothing is read of it, and nothing is noted as missing."""
    world = filled(loop_world, "a.g3")
    world.run_pass("close", "--yes", "P01", check=0)
    world.put("b.g3")
    world.run_pass(check=0)
    world.sql("UPDATE copies SET verified_at = ?", LONG_AGO)
    one, other = world.loops["P01"], world.loops["P02"]
    for disk in (one, other):
        disk.umount()
    one.mount(world.disks["P02"])
    other.mount(world.disks["P01"])
    before = [tuple(row) for row in world.sql("SELECT * FROM copies ORDER BY 1, 2")]
    run = verify(world, "P01", "P02", check=1)
    assert f"P01: the mark at {world.disks['P01']} says P02, serial ZTP02AA" in run.out
    assert f"P02: the mark at {world.disks['P02']} says P01, serial ZTP01AA" in run.out
    assert [tuple(row) for row in world.sql("SELECT * FROM copies ORDER BY 1, 2")] == before


def test_what_the_machine_holds_is_given_back_when_all_reads_well(world: World) -> None:
    """A person's hold stays a person's."""
    filled(world, "a.g3")
    hold = "UPDATE disks SET held_by = ?, held_reason = 'test' WHERE label = 'P01'"
    for by, after in (("machine", None), ("person", "person")):
        world.sql(hold, by)
        verify(world, "P01")
        assert world.sql("SELECT held_by FROM disks WHERE label = 'P01'")[0][0] == after


@needs_strace
def test_interrupted_it_goes_on_with_the_least_recently_verified(world: World) -> None:
    """SIGINT while a file is read: 130, what was read is noted, the rest comes first next time."""
    filled(world, "a.g3", "b.g3", "c.g3", large="c.g3")

    def interrupted_at(name: str) -> set[str]:
        reading, thread = standing_still_at(world, name)
        os.kill(process_of(thread), signal.SIGINT)
        os.kill(thread, signal.SIGCONT)
        assert reading.wait(timeout=60) == 130
        world.unfinished = False
        return just_verified(world)

    done = interrupted_at("b.g3")
    assert done in ({"a.g3"}, {"a.g3", "b.g3"})  # b was being read
    said = (world.root / "out").read_text()
    assert f"P01: {counted(len(done), 'copy is', 'copies are')} good" in said
    assert f"; {counted(3 - len(done), 'is', 'are')} still to be read" in said
    world.sql("UPDATE copies SET verified_at = '2021-01-01T00:00:00Z' WHERE verified_at > '2022'")
    interrupted_at("a.g3")
    assert just_verified(world) == {"a.g3", "b.g3", "c.g3"}  # c came before a
    assert world.notices() == set()
    assert set(states(world).values()) == {"good"}


@needs_strace
def test_a_disk_that_is_lost_while_it_is_read_keeps_no_good_copy(world: World) -> None:
    """What ``lost`` wrote down stands: no copy on a disk that was given up becomes good again."""
    filled(world, "a.g3", "b.g3", "c.g3")
    reading, thread = standing_still_at(world, "b.g3")
    world.run_pass("lost", "P01", "--why", "it clicks", check=0)
    world.spoil("P01", None, "it was lost")
    os.kill(thread, signal.SIGCONT)
    assert reading.wait(timeout=60) == 1
    world.unfinished = False
    assert set(states(world).values()) == {"missing"}
    assert world.notices() == set()
    assert "it was noted as lost while it was read" in (world.root / "out").read_text()


@needs_strace
def test_it_runs_beside_a_pass(world: World) -> None:
    """It needs no turn: a pass in the middle of its copies is not waited for, nor disturbed.

    What that pass has given its name, but not yet registered, is not called unregistered.
    """
    filled(world, "a.g3")
    world.put("b.g3")
    halted = HaltedPass(world, "linkat", [world.disks["P01"] / ".incoming"])
    assert verify(world, "P01", "S01").out.count("1 copy is good") == 2
    halted.go_on(check=0)
    assert world.archived("P01") == world.archived("S01") == {"a.g3", "b.g3"}


# --- in full: by age, many disks, a time ----------------------------------------------------


def test_without_labels_only_what_grew_old_is_read_on_all_disks_that_are_here(
    loop_world: LoopWorld,
) -> None:
    """Disks in use and closed ones; not spares, held ones, or those on the shelf."""
    filled(loop_world, "a.g3", "b.g3")
    loop_world.run_pass("close", "--yes", "P01", check=0)
    loop_world.put("c.g3")
    loop_world.run_pass(check=0)
    run = verify(loop_world)
    assert run.out.splitlines() == [
        "P01: 2 copies are good (20 kB), 0 damaged, 0 missing, 0 unregistered files",
        "S01: 2 copies are good (20 kB), 0 damaged, 0 missing, 0 unregistered files",
        "P02: nothing to do: its 1 copy was verified in the last 30 days",
    ]
    assert verify(loop_world).out.count("verified in the last 30 days") == 3
    loop_world.configure(VerifyEvery="0 s")
    loop_world.sql("UPDATE copies SET verified_at = ?", LONG_AGO)
    loop_world.loops["P01"].umount()
    loop_world.run_pass("hold", "--yes", "P02", "--why", "it rattles", check=0)
    assert [line[:3] for line in verify(loop_world).out.splitlines()] == ["S01"]


def test_when_its_time_is_up_it_ends_well_and_goes_on_the_next_time(world: World) -> None:
    """Exit 0: nothing is wrong; how much is left is said, and is a key of the JSON."""
    filled(world, "a.g3", "b.g3", "c.g3")
    run = verify(world, "P01", "--for", "0 s")
    assert run.out == (
        "P01: 0 copies are good (0 B), 0 damaged, 0 missing, 0 unregistered files; "
        "3 are still to be read\n"
    )
    assert just_verified(world) == set()
    (found,) = verify(world, "P01", "--for", "1 h", "--json").json()
    assert (found["good"], found["left"]) == (3, 0)
    run = verify(world, "P01", "--for", "soon", check=2)
    assert run.err.startswith("--for: ") and "Nothing was changed" in run.err


def test_several_disks_are_read_at_once_each_by_one_reader(loop_world: LoopWorld) -> None:
    """Both stand at a file of theirs at the same moment: neither waits for the other."""
    filled(loop_world, "a.g3")
    paths = [loop_world.data(label) / "a.g3" for label in ("P01", "S01")]
    trace = loop_world.root / "trace"
    prefix = strace(loop_world, "preadv,preadv2", paths, "delay_enter=1s")
    verify(loop_world, "P01", "S01", prefix=prefix)
    readers = {line.split()[0] for line in trace.read_text().splitlines() if "preadv" in line}
    assert len(readers) == 2


def test_the_disk_that_fails_is_the_loudest_line(loop_world: LoopWorld) -> None:
    """It comes first, whatever was found on the others."""
    filled(loop_world, "a.g3")
    loop_world.loops["S01"].umount()
    run = verify(loop_world, "P01", "S01", check=1)
    assert run.out.splitlines()[0].startswith("S01: COULD NOT BE READ TO THE END: ")
    loop_world.loops["S01"].mount()


def test_it_reads_at_low_priority(world: World) -> None:
    """Both the processor's and the disks': a pass goes first."""
    filled(world, "a.g3")
    reading, thread = standing_still_at(world, "a.g3")
    assert os.getpriority(os.PRIO_PROCESS, thread) == min(
        19, os.getpriority(os.PRIO_PROCESS, 0) + 10
    )
    asked = subprocess.run(["ionice", "-p", str(thread)], capture_output=True, text=True)
    assert asked.stdout == "idle\n"
    os.kill(thread, signal.SIGCONT)
    assert reading.wait(timeout=60) == 0
    world.unfinished = False


def test_both_copies_bad_is_said_as_such(loop_world: LoopWorld) -> None:
    """``no-good-copy``: the gravest thing there is; it is over when one reads well again."""
    world = loop_world
    filled(world, "a.g3")
    for label in ("P01", "S01"):
        world.spoil(label, "a.g3", "the test harms it")
        path = world.data(label) / "a.g3"
        path.chmod(0o644)
        whole = path.read_bytes()
        path.write_bytes(b"x" * len(whole))
    verify(world, "P01", "S01", check=1)
    serials = {"P01": "ZTP01AA", "S01": "ZTS01AA"}
    for label, serial in serials.items():
        assert notice(world, "copy-damaged", label).startswith(
            f"1 copy on {label} is damaged, 0 missing, a.g3 among them. Files of this disk with "
            "no good copy left on any other: 1 (no-good-copy)."
        )
        assert notice(world, "no-good-copy", serial)
    assert len(world.notices()) == 4
    assert world.status().out.startswith("ACT NOW: files without a good copy: 1 (no-good-copy)\n")
    world.leave_unchecked("both copies were harmed")


def test_verify_says_that_nothing_is_due(world: World) -> None:
    """For each disk; and that there is none to read. With a label every copy is read."""
    world.generate()
    run = world.run_pass("verify", check=0)
    assert run.out == "No disk with copies is mounted: nothing to verify.\n"
    world.put("a.g3")
    world.run_pass(check=0)
    assert world.run_pass("verify", check=0).out.splitlines() == [
        "P01: nothing to do: its 1 copy was verified in the last 30 days",
        "S01: nothing to do: its 1 copy was verified in the last 30 days",
    ]
    assert world.run_pass("verify", "--quiet", check=0).out == ""
    assert "P01: 1 copy is good" in world.run_pass("verify", "P01", check=0).out
    world.put("b.g3")
    world.run_pass(check=0)
    nothing = "P01: nothing to do: all 2 copies were verified in the last 30 days"
    assert nothing in world.run_pass("verify", check=0).out
