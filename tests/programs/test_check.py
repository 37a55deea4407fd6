"""``check`` looks at all that a pass relies on, names each fault, and changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.loopdisks import LoopWorld, two_partitions
from tests.helpers.other_users import AS_NOBODY, NOBODY, needs_root
from tests.helpers.world import Run, World


def check(world: World, expect: int, *args: str, **how: Any) -> Run:
    """What it says; disks, buffer and the database's directory are as before."""
    places = [
        place for place in (world.mounts, world.buffer, world.db_path.parent) if place.exists()
    ]
    before = [world.snapshot(place) for place in places]
    run = world.run_pass("check", *args, check=expect, **how)
    assert [old.differences(world.snapshot(old.root)) for old in before] == [[] for _ in before]
    assert run.err == ""
    return run


def faults(run: Run) -> list[str]:
    found = [line.removeprefix("FAULT ") for line in run.out.splitlines() if line[:5] == "FAULT"]
    these = "this problem" if len(found) == 1 else f"these {len(found)} problems"
    assert f"Fix {these} first." in run.out.splitlines()
    return found


def used(world: World) -> World:
    """P01 and S01 in use, and a file in the buffer."""
    world.put("a/a.g3")
    world.generate()
    world.run_pass(check=0)
    world.put("a/b.g3")
    return world


def file_system_of(path: Path) -> str:
    """As the system names it."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_where_all_is_well_each_thing_is_said_to_be(world: World) -> None:
    """Exit 0, a line for each thing that was looked at; a log or a lock is not even begun."""
    used(world)
    fs_type = file_system_of(world.buffer)
    lines = check(world, 0).out.splitlines()
    assert lines[0] == f"ok    configuration {world.config_path}"
    assert lines[1] == f"ok    database {world.db_path}"
    assert lines[2].startswith("ok    clock 20")
    assert lines[3:7] == [
        "ok    channels: none is set in .env, so nobody is notified of anything: see .env.example",
        "ok    watchdog: none is set in .env: POLE_HEARTBEAT_URL, or none on purpose",
        f"ok    buffer {world.buffer}: 1 finished file waits",
        "ok    buffer: the system tells whether a file is still open for writing "
        f"({fs_type} of this host, not exported by NFS)",
    ]
    for line, (label, state) in zip(lines[7:11], world.disk_states().items(), strict=True):
        assert line.startswith(f"ok    {label} at {world.disks[label]}: {state}, room for ")
    assert lines[11:] == ["All is well."]


def test_json_has_stable_keys(world: World) -> None:
    """The same for programs; faults come with exit 1 there too."""
    used(world)
    findings = check(world, 0, "--json").json()
    assert {frozenset(finding) for finding in findings} == {frozenset({"is_well", "what"})}
    assert all(finding["is_well"] for finding in findings)
    world.db_path.parent.chmod(0o770)
    bad = [f for f in check(world, 1, "--json").json() if not f["is_well"]]
    assert [f["what"].split(":")[0] for f in bad] == [
        f"{world.db_path.parent} is writable by others"
    ]


# --- each fault, by name ------------------------------------------------------------------


def _open_directory(world: World) -> str:
    world.db_path.parent.chmod(0o770)
    return f"{world.db_path.parent} is writable by others: chmod go-w {world.db_path.parent}"


def _clock_set_back(world: World) -> str:
    world.sql("UPDATE passes SET started_at = '2099-01-01T00:00:00Z'")
    return "the clock is behind the last pass (2099-01-01T00:00:00Z): set it"


def _no_disk_of_a_role(world: World) -> str:
    world.disks["S02"].rmdir()
    world.run_pass("close", "--yes", "S01", check=0)
    return "no copy disk can be used"


def _active_disk_gone(world: World) -> str:
    world.disks["P01"].rename(world.root / "away")
    return f"P01: there is no directory {world.disks['P01']}. mkdir -p {world.disks['P01']}"


def _wiped(world: World) -> str:
    shutil.rmtree(world.disks["P01"])
    world.disks["P01"].mkdir()
    return f"P01: it was used before, but {world.disks['P01']} has no mark: wiped, or another one"


def _not_empty(world: World) -> str:
    (world.disks["P02"] / "holiday.jpg").write_bytes(b"?")
    return f"P02: it should be empty, but {world.disks['P02']} holds holiday.jpg"


def _secrets_that_others_read(world: World) -> str:
    world.config_path.with_name(".env").write_text("POLE_PAGER_COMMAND=true\n")
    return str(world.config_path.with_name(".env"))


def _paused(world: World) -> str:
    world.run_pass("pause", "--why", "the rack is open", check=0)
    resumed = "somebody runs: data_manager.py resume"
    return f"passes do nothing until {resumed}: the rack is open"


def _held(world: World) -> str:
    world.run_pass("hold", "--yes", "P02", "--why", "it rattles", check=0)
    again = "When it is well: data_manager.py unhold P02"
    return f"P02: it is held by a person: it rattles. {again}"


FAULTS: list[Callable[[World], str]] = [
    _open_directory,
    _clock_set_back,
    _no_disk_of_a_role,
    _active_disk_gone,
    _wiped,
    _not_empty,
    _secrets_that_others_read,
    _paused,
    _held,
]


@pytest.mark.parametrize("harm", FAULTS, ids=lambda harm: harm.__name__.strip("_"))
def test_each_fault_is_named(world: World, harm: Callable[[World], str]) -> None:
    """One harm, one fault, with its place; exit 1."""
    used(world)
    said = harm(world)
    world.leave_unchecked("the test harmed the station")
    (fault,) = faults(check(world, 1))
    assert fault.startswith(said)


def test_a_spare_that_could_take_nothing_is_a_fault(world: World) -> None:
    """Of one in use it is none: it will be closed, and the next one begun."""
    used(world)
    text = world.config_path.read_text()
    world.config_path.write_text(text.replace("MinFreeSpace = 0", "MinFreeSpace = 90 TB"))
    assert faults(check(world, 1)) == [
        f"{label}: it has room for nothing. MinFreeSpace is kept free on every disk: it is too "
        "much for this one."
        for label in ("P02", "S02")
    ]


def test_a_size_without_a_unit_is_a_fault_and_stops_no_pass(world: World) -> None:
    """10 was meant to be 10 GB and is 10 bytes: ``check`` asks, a pass archives and logs it."""
    used(world)
    said = "MinFreeSpace: 10 has no unit and counts as 10 bytes; write the unit, for example 10 GB"
    text = world.config_path.read_text()
    world.config_path.write_text(text.replace("MinFreeSpace = 0", "MinFreeSpace = 10"))
    assert faults(check(world, 1)) == [said]
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert f"WARNING {said}" in world.log()
    assert said in world.status().out
    world.config_path.write_text(text)
    world.run_pass(check=0)
    assert check(world, 0).out.endswith("All is well.\n")


def test_on_real_disks_somebody_must_be_told(loop_world: LoopWorld) -> None:
    """Stand-ins are for demo and tests: nobody waits for news of them."""
    (loop_world.config_path.parent / ".env").unlink()
    used(loop_world)
    channels, watchdog = faults(check(loop_world, 1))
    assert channels.startswith("channels: none is set in .env")
    assert watchdog.startswith("watchdog: none is set in .env")
    said = check(loop_world, 0, env={"POLE_NOTIFY_URLS": "json://h", "POLE_HEARTBEAT_URL": "x"}).out
    assert "ok    channels: notify-1-json (data_manager.py notify --test tries them)\n" in said
    assert "ok    watchdog: gets a heartbeat\n" in said


def test_all_faults_are_told_at_once(world: World) -> None:
    """So that a person can fix them in one go."""
    used(world)
    said = [harm(world) for harm in (_open_directory, _clock_set_back, _wiped, _not_empty)]
    world.leave_unchecked("the test harmed the station")
    found = faults(check(world, 1))
    assert all(any(fault.startswith(one) for fault in found) for one in said)
    assert found[-1] == "no primary disk can be used"
    assert len(found) == len(said) + 1


def test_two_swapped_disks_are_both_named(world: World) -> None:
    """Each is at the other's place: two faults, and no primary disk can be used."""
    used(world)
    world.run_pass("close", "--yes", "P01", check=0)
    world.put("c.g3")
    world.run_pass(check=0)
    world.sql("UPDATE disks SET state = 'active' WHERE label = 'P01'")
    world.disks["P01"].rename(world.root / "other")
    world.disks["P02"].rename(world.disks["P01"])
    (world.root / "other").rename(world.disks["P02"])
    world.leave_unchecked("the disks stand in each other's place")
    found = faults(check(world, 1))
    assert found[0].startswith(f"P01: the mark at {world.disks['P01']} says P02, serial ZTP02AA")
    assert found[1].startswith(f"P02: the mark at {world.disks['P02']} says P01, serial ZTP01AA")
    assert found[2:] == ["no primary disk can be used"]


def test_a_buffer_that_is_not_there_is_a_fault_of_the_station(world: World) -> None:
    """Its file system is not mounted, say: named in a sentence, never a defect."""
    world.generate()
    world.buffer.rmdir()
    run = world.run_pass("check", check=(1, 2))
    assert str(world.buffer) in run.out + run.err
    world.buffer.mkdir()


def test_what_closed_and_what_is_just_not_mounted_is_no_fault(world: World) -> None:
    """A closed disk on the shelf, a spare in its box."""
    used(world)
    world.run_pass("close", "--yes", "P01", check=0)
    world.disks["P01"].rename(world.root / "shelf")
    world.disks["P01"] = world.root / "shelf"
    world.disks["S02"].rmdir()
    assert "P01" not in check(world, 0).out


# --- real mounts --------------------------------------------------------------------------


def test_what_is_wrong_with_a_mount_is_said(loop_world: LoopWorld) -> None:
    """Nothing mounted, read-only, two roles on one drive: as a pass would refuse them."""
    world = used(loop_world)
    assert "\nThis found no problem.\nThe status now: " in check(world, 0).out
    world.loops["P02"].umount()
    world.loops["P01"].umount()
    place = world.disks["P01"]
    assert faults(check(world, 1)) == [
        f"P01: nothing is mounted at {place}. Mount the drive with serial ZTP01AA there.",
        "no primary disk can be used",
    ]
    world.loops["P02"].mount()
    world.loops["P01"].mount(options="ro")
    (fault,) = faults(check(world, 1))
    assert fault.startswith(f"P01: {place} is mounted read-only. ")
    world.loops["P01"].remount("rw")


def test_two_roles_on_one_physical_drive_are_no_two_copies(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Two partitions of one drive can't be P01 and S01: both are named."""
    world = make_loop_world(["P01"], ["S01"])
    world.generate()
    for loop in world.loops.values():
        loop.umount()
    with two_partitions(world.root / "two.img", (world.disks["P01"], world.disks["S01"])):
        run = check(world, 1)
    assert faults(run)[0].startswith("S01: it is on the same physical drive as P01. ")
    assert f"ok    P01 at {world.disks['P01']}: spare, room for " in run.out


# --- as the user who runs the passes ------------------------------------------------------


@pytest.fixture
def nobodys() -> Iterator[World]:
    """A station of an ordinary user, with disks in use, where every user gets through to it."""
    with tempfile.TemporaryDirectory(prefix="pole-") as base:
        os.chmod(base, 0o755)
        station = used(World(Path(base)))
        for directory, _, names in os.walk(station.root):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                os.chown(path, NOBODY, NOBODY)
        try:
            yield station
        finally:
            station.close()


def _no_unlink(world: World) -> str:
    os.chown(world.buffer / "a", 0, 0)
    return f"buffer: this user may not unlink files in {world.buffer}/a"


def _no_unlink_where_sticky(world: World) -> str:
    """As in /tmp: all may make files, but only their owner may unlink them."""
    os.chown(world.buffer / "a", 0, 0)
    (world.buffer / "a").chmod(0o1777)
    os.chown(world.buffer / "a" / "b.g3", 0, 0)
    return f"buffer: this user may not unlink files in {world.buffer}/a"


def _no_lease(world: World) -> str:
    os.chown(world.buffer / "a" / "b.g3", 0, 0)
    return "buffer: the system can't tell whether a file is still open for writing"


def _another_users_database(world: World) -> str:
    os.chown(world.db_path.parent, 0, 0)
    world.db_path.parent.chmod(0o755)
    return f"{world.db_path.parent} belongs to the user root, who runs the archive, so nothing else"


def _no_write_to_the_database(world: World) -> str:
    os.chown(world.db_path, 0, 0)
    return f"{world.db_path}"


def _no_write_to_a_disk(world: World) -> str:
    os.chown(world.data("P01"), 0, 0)
    return f"P01: this user may not write to {world.disks['P01']}. sudo chown"


RIGHTS: list[Callable[[World], str]] = [
    _no_unlink,
    _no_unlink_where_sticky,
    _no_lease,
    _another_users_database,
    _no_write_to_the_database,
    _no_write_to_a_disk,
]


@needs_root
@pytest.mark.parametrize("harm", RIGHTS, ids=lambda harm: harm.__name__.strip("_"))
def test_each_right_that_an_ordinary_user_lacks_is_named(
    nobodys: World, harm: Callable[[World], str]
) -> None:
    """Root may do all: only that user can find out, before the first file is at stake."""
    said = harm(nobodys)
    found = faults(check(nobodys, 1, prefix=AS_NOBODY))
    assert any(fault.startswith(said) for fault in found), found


@needs_root
def test_an_ordinary_user_with_all_rights_hears_that_all_is_well(nobodys: World) -> None:
    """No right of root's is asked for."""
    assert check(nobodys, 0, prefix=AS_NOBODY).out.endswith("All is well.\n")
