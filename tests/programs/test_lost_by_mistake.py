"""A disk noted as lost by mistake: it is hard to do, and one command undoes it."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.helpers.disk_commands import archive, events, notice, order, refused
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.rack import wipe
from tests.helpers.world import World

WHY = ("--why", "meant another one")


def rows(world: World) -> list[list[tuple[object, ...]]]:
    """All that is known of disks and copies, except what happened to them."""
    queries = ("SELECT * FROM disks ORDER BY id", "SELECT * FROM copies ORDER BY file_id, disk_id")
    return [[tuple(row) for row in world.sql(query)] for query in queries]


# --- it is hard to do ---------------------------------------------------------------------


def test_a_disk_that_is_mounted_and_responds_is_not_lost(loop_world: LoopWorld) -> None:
    """As with ``ship``: refused, with what may be meant; unmounted it is a person's word."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    order(world, "close", "--yes", "S01")
    for label in ("P01", "P02", "S01"):  # in use, spare, closed
        said = refused(world, "lost", label, *WHY)
        place = world.disks[label]
        assert said == (
            f"{label} ({world.serials[label]}) is mounted at {place} and responds: it is not lost. "
            f"Nothing was changed. To take it out of use: data_manager.py hold {label}. If you "
            f"have to give it up, first: sudo umount {place}\n"
        )
    world.loops["P01"].umount()
    assert "P01 (ZTP01AA) is lost: 1 copies" in order(world, "lost", "P01", *WHY).out
    world.loops["P01"].mount()
    order(world, "lost", "--undo", "P01")


def test_a_disk_that_is_mounted_but_wiped_can_be_lost(loop_world: LoopWorld) -> None:
    """It does not respond as itself: its copies are gone. That is not undone."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    wipe(world, "P01")
    assert "is lost: 1 copies" in order(world, "lost", "P01", "--why", "wiped").out
    assert refused(world, "lost", "--undo", "P01") == (
        f"P01: it was used before, but {world.disks['P01']} has no mark: wiped, or another one. "
        "Nothing was changed.\n"
    )


@pytest.mark.parametrize("command", ["lost", "ship"])
def test_a_disk_that_is_mounted_at_another_place_is_not_lost_nor_shipped(
    loop_world: LoopWorld, command: str
) -> None:
    """Wherever its mark can be read: it says where; what else is mounted there is no matter."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    order(world, "close", "--yes", "S01")
    elsewhere = world.root / "a dock"
    world.loops["S01"].umount()
    world.loops["S01"].mount(at=elsewhere, options="ro")
    why = WHY if command == "lost" else ()
    assert (
        refused(world, command, "S01", *why)
        == {
            "lost": f"S01 (ZTS01AA) is mounted at {elsewhere} and responds: it is not lost. "
            "Nothing was changed. To take it out of use: data_manager.py hold S01. "
            f"If you have to give it up, first: sudo umount '{elsewhere}'\n",
            "ship": "S01 is still mounted. Nothing was changed. "
            f"First: sudo umount '{elsewhere}'\n",
        }[command]
    )
    world.loops["S01"].umount()
    order(world, command, "S01", *why)
    if command == "lost":
        order(world, "lost", "--undo", "S01")


def test_another_disk_at_its_place_hides_none_that_is_mounted_elsewhere(
    loop_world: LoopWorld,
) -> None:
    """Two drives were mixed up: each responds, at the other one's place."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    for label in ("P01", "P02"):
        world.loops[label].umount()
    world.loops["P01"].mount(at=world.disks["P02"])
    world.loops["P02"].mount(at=world.disks["P01"])
    assert f"P01 (ZTP01AA) is mounted at {world.disks['P02']} and" in refused(
        world, "lost", "P01", *WHY
    )


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe", b"Pole-Label: P01\nPole-Role: none\n", None])
def test_a_mark_elsewhere_that_can_not_be_read_keeps_no_disk_from_being_lost(
    loop_world: LoopWorld, mark: bytes | None
) -> None:
    """Nothing is known of it: it is a person's word. Nor does a pipe keep the command waiting."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    world.loops["P01"].umount()
    path = world.disks["P02"] / "bag-info.txt"
    if mark is None:
        os.mkfifo(path)
    else:
        path.write_bytes(mark)
    assert "P01 (ZTP01AA) is lost: 1 copies" in order(world, "lost", "P01", *WHY).out
    path.unlink()
    order(world, "lost", "--undo", "P01")


# --- it is undone -------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["spare", "active", "closed", "shipped"])
def test_an_undone_loss_leaves_everything_as_it_was(world: World, state: str) -> None:
    """The disk's state and hold, and of each copy whether it was good, damaged or missing."""
    world.generate()
    if state != "spare":
        archive(world, "a.g3", "b.g3", "c.g3", "d.g3")
        (world.data("P01") / "b.g3").write_bytes(b"x")
        (world.data("P01") / "c.g3").unlink()
        for name in ("b.g3", "c.g3"):
            world.spoil("P01", name, "the test harms it")
        order(world, "verify", "P01", check=1)
    world.sql("UPDATE disks SET state = ? WHERE label = 'P01' AND state <> 'spare'", state)
    if state in ("closed", "shipped"):
        world.sql(
            "INSERT INTO disk_events (disk_id, at, event) SELECT id, '2026-01-01T00:00:00Z', ? "
            "FROM disks WHERE label = 'P01'",
            state,
        )
    else:
        order(world, "hold", "--yes", "P01", "--why", "bad cable")
    before = rows(world)
    order(world, "lost", "P01", *WHY)
    assert rows(world) != before
    run = order(world, "lost", "--undo", "ztp01aa")
    size = "0 copies (0 B)" if state == "spare" else "2 copies (2 kB)"
    assert run.out == f"P01 (ZTP01AA) is {state} again, and {size} on it count again.\n"
    assert rows(world) == before
    assert events(world, "ZTP01AA")[-3:] == ["bad copies", "lost", "not lost"]
    order(world, "lost", "P01", *WHY)
    order(world, "lost", "P01", "--undo")
    assert rows(world) == before
    world.leave_unchecked("the database was altered by hand")


def test_files_without_a_good_copy_are_no_longer_reported_when_it_is_back(world: World) -> None:
    """And passes, closing and shipping go on with the disk as if nothing had been said."""
    world.generate()
    archive(world, "a.g3")
    for label in ("P01", "S01"):
        order(world, "lost", label, *WHY)
    assert "a.g3 among them" in notice(world, "no-good-copy", "ZTS01AA")
    for label in ("P01", "S01"):
        order(world, "lost", "--undo", label)
    assert world.notices() == set()
    archive(world, "b.g3")
    assert world.archived("P01") == world.archived("S01") == {"a.g3", "b.g3"}
    order(world, "close", "--yes", "P01")
    order(world, "ship", "P01")
    order(world, "lost", "P01", *WHY)
    order(world, "lost", "P01", "--undo")
    world.run_pass(check=0)
    assert world.notices() == {("disk-closed", "P01")} or world.notices() == set()


def test_a_loss_that_1_0_0_noted_is_undone_and_the_copies_are_to_be_read(world: World) -> None:
    """Which copies were good then is not known: they count once they are read."""
    world.generate()
    archive(world, "a.g3", "b.g3")
    order(world, "lost", "P01", *WHY)
    world.sql("DELETE FROM disk_events WHERE event = 'bad copies'")
    run = order(world, "lost", "--undo", "P01")
    assert run.out.endswith("count again. Read them: data_manager.py verify ZTP01AA\n")
    assert [
        tuple(row)
        for row in world.sql(
            "SELECT c.state, verified_at, verified_by FROM copies c JOIN disks d ON d.id = disk_id "
            "WHERE label = 'P01'"
        )
    ] == [("good", None, None)] * 2
    order(world, "verify", "ZTP01AA")


def test_what_a_drive_held_in_an_earlier_life_stays_missing(world: World) -> None:
    """Lost, wiped, taken back, and lost again by mistake: only this life's copies are back."""
    world.generate()
    archive(world, "a.g3")
    shutil.rmtree(world.disks["P01"])
    world.disks["P01"].mkdir()
    world.spoil("P01", "a.g3", "the test wipes it")
    order(world, "lost", "P01", "--why", "wiped")
    world.generate("--returned")
    world.sql("UPDATE copies SET written_at = '2026-01-01T00:00:00Z'")
    archive(world, "b.g3")
    before = rows(world)
    for is_noted in (True, False):
        order(world, "lost", "P01", *WHY)
        if not is_noted:
            world.sql("DELETE FROM disk_events WHERE event = 'bad copies'")
        order(world, "lost", "--undo", "P01")
        states = [[row[:3] for row in rows(world)[1]], [row[:3] for row in before[1]]]
        assert states[0] == states[1]


def test_a_label_that_another_drive_has_by_now_is_not_given_back(world: World) -> None:
    """Two drives with one sticker would be mixed up."""
    world.generate()
    order(world, "lost", "P02", *WHY)
    world.add_disk("P02", "OTHER02")
    world.generate()
    said = refused(world, "lost", "--undo", "P02")
    assert said == (
        "P02 (OTHER02) is spare, not lost. Nothing was changed. Name the lost one by its serial: "
        "ZTP02AA\n"
    )
    assert refused(world, "lost", "--undo", "ZTP02AA") == (
        "The label P02 belongs to the drive OTHER02 (spare) now. Nothing was changed. If that one "
        "was never used, first: data_manager.py forget P02\n"
    )
    order(world, "forget", "P02")
    order(world, "lost", "--undo", "P02")
    assert world.disk_states()["P02"] == "spare"
