"""Disk sets of several seasons in one database: labels start again, a drive stays itself."""

from __future__ import annotations

import re

import pytest

from tests.helpers.loopdisks import LoopWorld
from tests.helpers.rack import wipe
from tests.helpers.world import Run, World


def order(world: World, *args: str, check: int = 0) -> Run:
    return world.run_pass(*args, check=check)


def archive(world: World, *names: str) -> None:
    for name in names:
        world.put(name)
    order(world)
    assert world.waiting() == set()


def taken_out(world: World, label: str) -> None:
    """Somebody takes a stand-in away; the checker finds it by its serial."""
    away = world.root / "gone" / world.serials[label]
    away.parent.mkdir(exist_ok=True)
    world.disks[label].rename(away)
    world.disks[world.serials[label]] = away


def locations(world: World) -> dict[str, tuple[str, str]]:
    """File name → the serials of its two drives."""
    rows = world.sql("SELECT name, primary_serial, copy_serial FROM file_locations")
    return {name: (primary, copy) for name, primary, copy in rows}


def drive(world: World, serial: str) -> tuple[str, str]:
    """(label, state) of a drive, by its serial."""
    query = "SELECT label, state FROM disks WHERE serial = ?"
    ((label, state),) = (tuple(row) for row in world.sql(query, serial))
    return label, state


def notice(world: World, kind: str, key: str) -> str:
    query = "SELECT text FROM notices WHERE kind = ? AND key = ? AND resolved_at IS NULL"
    return "".join(row["text"] for row in world.sql(query, kind, key))


# --- labels start again -------------------------------------------------------------------


def test_labels_start_again_each_season_and_files_know_their_drives(world: World) -> None:
    """P01 and S01 of three seasons: each file is on its own drives, told apart by serial."""
    seasons = [("ZTP01AA", "ZTS01AA"), ("TWOP01", "TWOS01"), ("THREEP01", "THREES01")]
    for number, serials in enumerate(seasons):
        for label, serial in zip(("P01", "S01"), serials, strict=True):
            world.add_disk(label, serial)
        world.generate()
        archive(world, f"season{number}.g3")
        if number < 2:
            for label in ("P01", "S01"):
                order(world, "close", "--yes", label)
            order(world, "ship", "P01", "S01")
            for label in ("P01", "S01"):
                taken_out(world, label)
    assert locations(world) == {f"season{n}.g3": pair for n, pair in enumerate(seasons)}
    assert world.disk_states()["P01"] == "active"
    order(world, "close", "--yes", "P01")
    assert drive(world, "THREEP01") == ("P01", "closed")  # the label is the one at the station
    archive(world, "season0.g3")  # the same file again: its drives are far away
    assert locations(world)["season0.g3"] == ("ZTP02AA", "THREES01")


def test_a_label_of_several_gone_drives_is_asked_for_by_serial(world: World) -> None:
    """Which of them is meant nobody can know: refused, with all their serials."""
    world.generate()
    for serial in ("ZTP01AA", "TWOP01"):
        archive(world, f"{serial}.g3")
        order(world, "lost", "P01", "--why", "test")
        world.ledger.spoiled(serial, None, "the test loses it")
        taken_out(world, "P01")
        world.add_disk("P01", "TWOP01")
        world.generate()
    run = order(world, "verify", "P01", check=2)
    assert (
        "P01 is the label of several disks that are gone: ZTP01AA (lost), TWOP01 (lost). "
        "Nothing was changed. Name it by its serial.\n"
    ) in run.err
    assert "TWOP01) is lost" in order(world, "verify", "TWOP01", check=2).err


def test_a_gone_drive_settles_no_notice_of_the_one_that_has_its_label_now(world: World) -> None:
    """What is done to last season's P01 changes nothing about this season's."""
    world.generate()
    archive(world, "old.g3")
    order(world, "close", "--yes", "P01")
    order(world, "ship", "P01")
    taken_out(world, "P01")
    world.add_disk("P01", "TWOP01")
    world.generate()
    archive(world, "new.g3")
    order(world, "close", "--yes", "P01")
    assert "TWOP01" in notice(world, "disk-closed", "P01")
    world.ledger.spoiled("ZTP01AA", None, "the plane lost it")
    order(world, "lost", "ZTP01AA", "--why", "never arrived")
    assert "TWOP01" in notice(world, "disk-closed", "P01")


def test_what_is_found_on_a_gone_drive_is_not_said_of_the_one_that_has_its_label_now(
    loop_world: LoopWorld,
) -> None:
    """Verified by its serial, last season's P01 settles and opens no notice about this one's.

    What was open about it when it was shipped goes on under its serial.
    """
    world = loop_world
    world.generate()
    archive(world, "old-1.g3", "old-2.g3")
    order(world, "close", "--yes", "P01")
    world.leave_unchecked("the test harms disks")
    (world.data("P01") / "old-1.g3").unlink()
    order(world, "verify", "P01", check=1)
    world.ship("P01")
    assert world.notices() == {("copy-damaged", "ZTP01AA")}
    gone = world.loops["P01"]
    gone.umount()
    world.add_disk("P01", "TWOP01")
    world.plug_in("P01")
    world.generate()
    archive(world, "new.g3")
    mounted = {d["disk"]["serial"]: d["is_mounted"] for d in world.status("--json").json()["disks"]}
    assert (mounted["ZTP01AA"], mounted["TWOP01"]) == (False, True)
    order(world, "verify", "P01")
    assert world.notices() == {("copy-damaged", "ZTP01AA")}
    (world.data("P01") / "new.g3").unlink()
    order(world, "verify", "P01", check=1)
    world.loops["P01"].umount()
    gone.mount()
    order(world, "verify", "ZTP01AA", check=1)
    assert "new.g3" in notice(world, "copy-damaged", "P01")
    assert "old-1.g3" in notice(world, "copy-damaged", "ZTP01AA")
    gone.umount()
    order(world, "lost", "ZTP01AA", "--why", "came back, wiped")
    assert world.notices() == {("copy-damaged", "P01")}


@pytest.mark.parametrize(
    ("season", "said"),
    [("spare", "a spare"), ("active", "in use"), ("closed", "closed"), ("shipped", "shipped")],
)
def test_a_serial_that_comes_back_under_another_label_is_refused(
    world: World, season: str, said: str
) -> None:
    """Its label and state are named, and ``lost`` is never offered; nothing is written."""
    world.generate()
    if season != "spare":
        archive(world, "a.g3")
    if season in ("closed", "shipped"):
        order(world, "close", "--yes", "P01")
    if season == "shipped":
        order(world, "ship", "P01")
    next_map = world.root / "next-season"
    next_map.write_text(f"P07 ZTP01AA {world.logical_id('P01')}\nP08 FRESH08 0x5000c500aaaa0008\n")
    before = world.db_path.read_bytes()
    run = world.run("generate_db.py", "--disk-map", str(next_map), check=2)
    assert f"ZTP01AA is P01, {said}. A typo? Correct line 1 of the disk-map." in run.err
    assert "data_manager.py lost" not in run.err
    assert world.db_path.read_bytes() == before


def test_a_shipped_drive_that_stands_in_the_map_is_not_called_ready(world: World) -> None:
    """Under its old label, too, it takes no data till it is taken back: the table says so."""
    world.generate()
    archive(world, "a.g3")
    order(world, "close", "--yes", "P01")
    order(world, "ship", "P01")
    run = world.generate()
    assert "3 of 4 drives are ready." in run.out
    assert re.search(r"^P01: .*\bshipped\b", run.out, re.MULTILINE)


# --- a drive that comes back --------------------------------------------------------------


def shipped_and_wiped(world: LoopWorld) -> None:
    """P01 held a.g3, went north, and came back formatted."""
    world.generate()
    archive(world, "a.g3")
    order(world, "close", "--yes", "P01")
    world.ship("P01")
    wipe(world, "P01")


def test_a_wiped_drive_is_taken_back_by_the_way_that_the_refusal_names(
    loop_world: LoopWorld,
) -> None:
    """``lost``, then generate_db --returned: an empty spare, under the label of its sticker."""
    world = loop_world
    shipped_and_wiped(world)
    for label in ("P01", "P02"):
        world.loops[label].umount()
    world.loops["P01"].mount(world.mounts / "P07")
    world.loops["P07"] = world.loops.pop("P01")
    world.disks["P07"] = world.mounts / "P07"
    next_map = world.root / "next-season"
    next_map.write_text(f"P07 ZTP01AA {world.logical_id('P01')}\n")
    refused = world.run("generate_db.py", "--disk-map", str(next_map), check=2)
    assert 'Wiped? See "A drive that comes back wiped" in docs/operators.md' in refused.err
    order(world, "lost", "ZTP01AA", "--why", "came back, wiped")
    run = world.run("generate_db.py", "--disk-map", str(next_map), check=0)
    assert "0 drives added, 1 known, 1 lost (empty and back? add --returned)." in run.out
    assert drive(world, "ZTP01AA") == ("P01", "lost")
    dry = world.run("generate_db.py", "--disk-map", str(next_map), "--returned", "--dry-run")
    assert "1 would be taken back as empty spares" in dry.out
    assert drive(world, "ZTP01AA") == ("P01", "lost")
    run = world.run("generate_db.py", "--disk-map", str(next_map), "--returned", check=0)
    assert "1 taken back as empty spares." in run.out
    assert drive(world, "ZTP01AA") == ("P07", "spare")
    archive(world, "b.g3")
    assert world.archived("P07") == {"b.g3"}
    assert drive(world, "ZTP01AA") == ("P07", "active")
    mark = (world.disks["P07"] / "bag-info.txt").read_text()
    assert "Pole-Label: P07\n" in mark and "Pole-Serial: ZTP01AA\n" in mark
    assert locations(world) == {"a.g3": (None, "ZTS01AA"), "b.g3": ("ZTP01AA", "ZTS01AA")}


def test_what_a_wiped_drive_held_before_is_no_fault_of_its_new_life(loop_world: LoopWorld) -> None:
    """It verifies well, closes, and ships, though what it held once has no good copy any more."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    world.loops["S01"].umount()
    order(world, "lost", "S01", "--why", "burnt")
    world.ledger.spoiled("ZTS01AA", "a.g3", "it burnt")
    wipe(world, "P01")
    order(world, "lost", "P01", "--why", "wiped by mistake")
    world.disk_map_path.write_text(f"P01 ZTP01AA {world.logical_id('P01')}\n")
    world.generate("--returned")
    order(world, "hold", "--yes", "P02", "--why", "to use P01")
    archive(world, "b.g3")
    assert world.archived("P01") == {"b.g3"}
    run = order(world, "verify", "P01")
    assert run.out == "P01: 1 copy is good (1 kB), 0 damaged, 0 missing, 0 unregistered files\n"
    order(world, "close", "--yes", "P01")
    world.ship("P01")
    assert "a.g3 among them" in notice(world, "no-good-copy", "ZTP01AA")  # still true


@pytest.mark.parametrize("label", ["P01", "P07"])
def test_a_drive_that_is_not_wiped_is_refused_by_what_is_on_it(
    loop_world: LoopWorld, label: str
) -> None:
    """--returned takes a person's word that it is empty; the disk itself is asked all the same."""
    world = loop_world
    world.generate()
    archive(world, "a.g3")
    world.loops["P01"].umount()
    order(world, "lost", "P01", "--why", "thought to be wiped")
    world.ledger.spoiled("ZTP01AA", "a.g3", "it is called lost")
    next_map = world.root / "next-season"
    next_map.write_text(f"{label} ZTP01AA {world.logical_id('P01')}\n")
    taken_back = ("generate_db.py", "--disk-map", str(next_map), "--returned")
    world.loops["P01"].mount(world.mounts / label)
    run = world.run(*taken_back, check=2)
    assert "Its mark says that it is P01 (ZTP01AA): do not empty it. Nothing was changed. If" in (
        run.err
    )
    assert "If it was not lost: data_manager.py lost --undo ZTP01AA" in run.err
    assert drive(world, "ZTP01AA") == ("P01", "lost")
    world.loops["P01"].umount()
    world.run(*taken_back, check=0)
    world.loops["P01"].mount()
    if label == "P07":
        world.loops["P07"] = world.loops.pop("P01")
    order(world, "hold", "--yes", "P02", "--why", "test")
    before = world.snapshot(world.mounts / label)
    world.put("b.g3")
    order(world, check=1)
    text = notice(world, "disk-wrong", label)
    assert before.differences(world.snapshot(world.mounts / label)) == []
    assert world.archived("S01") == {"a.g3", "b.g3"}
    assert world.waiting() == {"b.g3"}
    place = world.mounts / label
    if label == "P07":
        assert text.startswith(f"the mark at {place} says P01, serial ZTP01AA")
    else:
        assert text.startswith("Its mark says that it is P01 (ZTP01AA): do not empty it. The dat")
    world.leave_unchecked("P01's mark stands under another label")
