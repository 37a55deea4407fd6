"""get_drive_IDs.py and get_SMART_status.py: who may run them, and what they leave behind."""

from __future__ import annotations

import fcntl
import subprocess
import sys

import pytest

from tests.helpers.other_users import AS_NOBODY, needs_root
from tests.helpers.recorded_drives import (
    all_well,
    answer,
    check,
    raw,
    recorded,
    with_smartctl,
)
from tests.helpers.world import CRON_ENVIRONMENT, REPO, World


@needs_root
def test_who_is_not_root_is_told_so(world: World) -> None:
    """Nothing is asked and nothing is written."""
    world.generate()
    world.root.chmod(0o755)
    world.db_path.parent.chmod(0o755)
    run = world.run("get_SMART_status.py", check=2, prefix=AS_NOBODY)
    said = "Only root may query drives. Nothing was changed. Run as root: sudo …\n"
    assert (run.out, run.err) == ("", said)


@needs_root
def test_stand_ins_have_no_smart(world: World) -> None:
    """They are directories."""
    world.generate()
    run = world.run("get_SMART_status.py", env=with_smartctl(world), check=2)
    assert run.err == "Stand-ins have no SMART. Nothing was changed.\n"


@needs_root
def test_a_second_check_finds_the_first_at_work(world: World) -> None:
    """root's cron never piles them up, however long a drive keeps one."""
    world.generate()
    with open(f"{world.db_path}.smart", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = world.run("get_SMART_status.py", env=with_smartctl(world), check=0)
    assert run.out == "Another check is at work; nothing to do here.\n"


@needs_root
def test_a_disk_map_is_completed_on_standard_output_alone(world: World) -> None:
    """What a person should know goes to standard error, and the exit code is 1."""
    world.disk_map_path.write_text("P01 ZA12JCHM\nS01 ZL22PHAL 0x5000c500a1b2c3ff\n")
    names = ("sata-good", "sas-good", "nvme-good", "usb-mute")
    env = CRON_ENVIRONMENT | with_smartctl(world, *map(recorded, names))
    script = [sys.executable, REPO / "get_drive_IDs.py", "--disk-map", world.disk_map_path]
    run = subprocess.run(script, env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout.splitlines()[:3] == [
        "P01 ZA12JCHM 0x5000c500858bfea7",
        "S01 ZL22PHAL 0x5000c500a1b2c3d0",
        "# LABEL S4EWNX0N123456 0x0025385b91b2c3d4",
    ]
    said = run.stderr.splitlines()
    assert "S01 ZL22PHAL: its logical ID is 0x5000c500a1b2c3d0, not 0x5000c500a1b2c3ff" in said
    assert "/dev/bus/0 megaraid,2: serial S4EWNX0N123456 is not in the disk-map" in said


@needs_root
def test_drives_with_one_id_and_a_device_that_is_missing_are_reported(world: World) -> None:
    """A line for each drive, and what is odd on standard error."""
    twin = recorded("sata-good") | {"serial_number": "ZA12 TWIN"}
    env = CRON_ENVIRONMENT | with_smartctl(world, recorded("sata-good"), twin)
    script = [sys.executable, REPO / "get_drive_IDs.py"]
    run = subprocess.run(script, env=env, capture_output=True, text=True)
    assert run.returncode == 1
    lines = {"ZA12JCHM 0x5000c500858bfea7", "ZA12_TWIN 0x5000c500858bfea7"}
    assert lines <= set(run.stdout.splitlines())
    assert (
        "/dev/bus/0 megaraid,1 and /dev/bus/0 megaraid,0 are different drives with the same "
        "logical ID 0x5000c500858bfea7: a disk-map can name only one of them"
    ) in run.stderr
    run = subprocess.run([*script, "/dev/sdzz"], env=env, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "/dev/sdzz: there is no such device (No such file or directory)\n"


@pytest.fixture
def on_drives(world: World) -> World:
    """A station that believes that it has drives, none of which is mounted."""
    world.configure(RequireMount="yes")
    world.generate()
    return world


@needs_root
def test_registered_drives_are_judged_and_others_listed(on_drives: World) -> None:
    """A table for people, JSON for programs, 1 where a person should look."""
    bad = recorded("sata-failed") | {"serial_number": "ZTP01AA"}
    bad["wwn"] = {"naa": 5, "oui": 0xC50, "id": int(on_drives.logical_id("P01")[-9:], 16)}
    env = with_smartctl(on_drives, bad, recorded("sas-good"))
    run = on_drives.run("get_SMART_status.py", env=env, check=1)
    assert run.out.splitlines()[:2] == [
        "label  serial               model                     hours  °C health",
        "P01    ZTP01AA              ST8000NM0055-1RM112       12345  31 failing: it says itself "
        "that it is failing (SMART status: FAILED); pending sectors (197): 240; reallocated "
        "sectors (5): 3900",
    ]
    others = "-      ZL22PHAL0000C0048NEQ ST8000NM0075               9876  33 not registered"
    assert f"{others} (/dev/bus/0 megaraid,1)" in run.out
    rows = on_drives.run("get_SMART_status.py", "--json", "P01", env=env, check=1).json()
    (row,) = rows
    assert (row["label"], row["health"], row["held_by"]) == ("P01", "failing", None)
    assert on_drives.notices() == {("smart-failing", "P01")}


@needs_root
def test_a_disk_that_left_is_not_looked_for(on_drives: World) -> None:
    """Who names one is told so."""
    on_drives.sql("UPDATE disks SET state = 'lost' WHERE label = 'P02'")
    env = with_smartctl(on_drives)
    run = on_drives.run("get_SMART_status.py", "P02", env=env, check=2)
    assert run.err == "P02: shipped or lost, not looked for. Nothing was changed.\n"
    on_drives.leave_unchecked("the test altered the database")


def test_the_history_lists_what_changed(world: World) -> None:
    """With dates; also as JSON, and by serial."""
    world.generate()
    check(world, *all_well(world), now_s=1_800_000_000)
    bad = answer(world, "P01", "sata-good", raw(197, 8))
    check(world, *all_well(world, bad), now_s=1_800_086_400)
    run = world.run("get_SMART_status.py", "--history", "ZTP01AA", check=0)
    assert run.out == (
        "P01 (serial ZTP01AA):\n"
        "  2027-01-15T08:00:00Z  health: healthy\n"
        "  2027-01-16T08:00:00Z  health: healthy → warning\n"
        "  2027-01-16T08:00:00Z  pending: 0 → 8\n"
        "  last extended self-test: none has passed\n"
    )
    told = world.run("get_SMART_status.py", "--history", "P01", "--json", check=0).json()
    assert told[2] == {"at": "2027-01-16T08:00:00Z", "what": "pending", "old": 0, "new": 8}
