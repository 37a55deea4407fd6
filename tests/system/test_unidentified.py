"""A drive without serial number and logical ID is not used unless somebody says so.

Two image files on one drive, mounted through loop devices, look like two drives: a file would have
both its copies on one drive.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.helpers.loopdisks import LoopWorld
from tests.helpers.stations import notice_text

MakeWorld = Callable[..., LoopWorld]
SAID = "has neither serial number nor logical ID, and AcceptUnidentifiedDrives is not yes"


def test_two_images_on_one_drive_do_not_count_as_two_drives(make_loop_world: MakeWorld) -> None:
    """Nothing is written to them, the file waits, and each notice says why."""
    world = make_loop_world(primaries=["P01"], copies=["S01"], AcceptUnidentifiedDrives=None)
    world.put("a.g3")
    rows = world.generate("--json").json()
    for row in rows:
        device = world.loops[row["label"]].device.name
        assert row["next_step"] == f"it gets no copies: its drive {device} {SAID}"
    world.run_pass(check=1)
    assert world.waiting() == {"a.g3"}
    assert world.disk_states() == {"P01": "spare", "S01": "spare"}
    assert world.notices() == {
        ("disk-wrong", "P01"),
        ("disk-wrong", "S01"),
        ("no-disk", "primary"),
        ("no-disk", "copy"),
    }
    for label in ("P01", "S01"):
        device = world.loops[label].device.name
        said = f"its drive {device} {SAID} ({world.disks[label]})"
        assert notice_text(world, "disk-wrong", label).startswith(said)
        assert f"FAULT {label}: its drive {device} {SAID}" in world.run_pass("check", check=1).out
        assert not (world.disks[label] / "bag-info.txt").exists()
    assert "no primary disk can be used" in world.run_pass("check").out
    world.configure(AcceptUnidentifiedDrives="yes")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


def test_copies_on_unidentified_drives_let_no_file_go_once_the_key_is_gone(
    make_loop_world: MakeWorld,
) -> None:
    """Both are good, and can be read and restored; but they may be on one drive."""
    world = make_loop_world(primaries=["P01"], copies=["S01"])
    world.put("a.g3", b"content")
    world.generate()
    world.run_pass(check=0)
    world.configure(AcceptUnidentifiedDrives="no")
    (world.root / "back").mkdir()
    world.run_pass("verify", "P01", "S01", check=0)
    world.run_pass("restore", "a.g3", "--to", str(world.root / "back"), check=0)
    assert (world.root / "back" / "a.g3").read_bytes() == b"content"
    world.put("a.g3", b"content")
    world.run_pass(check=1)
    assert world.waiting() == {"a.g3"}
    world.configure(AcceptUnidentifiedDrives="yes")
    world.run_pass("verify", "P01", "S01", check=0)


@pytest.mark.parametrize("accepted", ["yes", "no"])
def test_status_and_check_say_that_drives_are_not_identified(
    make_loop_world: MakeWorld, accepted: str
) -> None:
    """As long as the key says that they need not be, on the screen, in JSON and in check."""
    world = make_loop_world(primaries=["P01"], copies=["S01"], AcceptUnidentifiedDrives=accepted)
    world.generate()
    said = "DRIVES ARE NOT IDENTIFIED (AcceptUnidentifiedDrives = yes): two may be one."
    status = world.status()
    reasons = world.status("--json").json()["reasons"]  # a line for each, and then this
    assert (status.out.splitlines()[len(reasons)] == said) is (accepted == "yes")
    assert (said in status.out) is (accepted == "yes")
    assert world.status("--json").json()["unidentified_drives"] is (accepted == "yes")
    check = world.run_pass("check")
    assert ("drives are not identified" in check.out) is (accepted == "yes")


def test_stand_ins_need_no_identity(make_loop_world: MakeWorld) -> None:
    """They are no drives at all, and say so."""
    world = make_loop_world(primaries=["P01"], copies=["S01"])
    world.configure(RequireMount="no")
    assert world.run("generate_db.py", "--disk-map", str(world.disk_map_path)).code == 0
    assert world.status("--json").json()["unidentified_drives"] is False
