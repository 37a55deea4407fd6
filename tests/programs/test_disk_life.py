"""A disk's life by the commands: each does what it says, and refuses what makes no sense.

A refusal ends with 2, gives the reason, and leaves the database byte for byte as it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.disk_commands import archive, events, notice, order, refused
from tests.helpers.halted import needs_strace, strace
from tests.helpers.world import World


def taken_out(world: World, label: str) -> None:
    """Somebody takes a drive away: its place is empty, the checker finds it by its serial."""
    away = world.root / "gone" / world.serials[label]
    away.parent.mkdir(exist_ok=True)
    world.disks[label].rename(away)
    world.disks[world.serials[label]] = away


def copy_states(world: World, serial: str) -> dict[str, str]:
    """File name → state of its copy on a disk."""
    query = "SELECT name, c.state FROM copies c JOIN files f ON f.id = file_id"
    rows = world.sql(f"{query} JOIN disks d ON d.id = disk_id WHERE serial = ?", serial)
    return dict(map(tuple, rows))


# --- refusals -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """P01 lost, P02 shipped, P03 closed, P04 S01 active, P05 spare; held: P06 spare, P07 active."""
    primaries = [f"P0{number}" for number in range(1, 8)]
    world = World(tmp_path_factory.mktemp("life"), primaries, ["S01"])
    world.generate()
    for label in ("P01", "P02", "P03"):
        archive(world, f"on-{label}.g3")
        order(world, "close", "--yes", label)
    order(world, "hold", "--yes", "P02", "--why", "packed")
    order(world, "ship", "P02")
    order(world, "hold", "--yes", "P01", "--why", "smoke")
    order(world, "lost", "P01", "--why", "burnt")
    for label in ("P04", "P05", "P06"):
        order(world, "hold", "--yes", label, "--why", "so that P07 is used")
    archive(world, "on-P07.g3")
    for label in ("P04", "P05", "P06"):
        order(world, "unhold", label)
    order(world, "hold", "--yes", "P07", "--why", "bad cable")
    archive(world, "on-P04.g3")
    order(world, "hold", "--yes", "P06", "--why", "it clicks")
    yield world
    world.spoil("P01", None, "it burnt")
    world.close()


ONLY_ACTIVE = "only a disk that is active can be closed. Nothing was changed.\n"
ONLY_CLOSED = "only a disk that is closed can be shipped. Nothing was changed.\n"
LABELS = "The labels are P01, P02, P03, P04, P05, P06, P07, S01"
FORGET = "it can't be forgotten. Nothing was changed."
WHY = ("--why", "because")
REFUSALS: list[tuple[tuple[str, ...], str]] = [
    (("close", "--yes", "P05"), f"P05 is spare: {ONLY_ACTIVE}"),
    (("close", "--yes", "P03"), f"P03 is closed: {ONLY_ACTIVE}"),
    (("close", "--yes", "ZTP02AA"), f"P02 is shipped: {ONLY_ACTIVE}"),
    (("close", "--yes", "P01"), f"P01 is lost: {ONLY_ACTIVE}"),
    (
        ("close", "--yes", "P07"),
        "P07 is held (bad cable): nothing is written to it. Nothing was changed. "
        "First: data_manager.py unhold P07\n",
    ),
    (("ship", "P05"), f"P05 is spare: {ONLY_CLOSED}"),
    (("ship", "P04"), f"P04 is active: {ONLY_CLOSED}"),
    (("ship", "P02"), f"P02 is shipped: {ONLY_CLOSED}"),
    (("ship", "P01"), f"P01 is lost: {ONLY_CLOSED}"),
    (("ship", "P03", "P04"), f"P04 is active: {ONLY_CLOSED}"),
    (
        ("ship", "P03", "P99"),
        f"No disk has the label or serial P99. {LABELS}. Nothing was changed.\n",
    ),
    (("lost", "P01", *WHY), "P01 (ZTP01AA) is lost already. Nothing was changed.\n"),
    (("forget", "P01"), FORGET),
    (("forget", "P02"), FORGET),
    (("forget", "P04"), f"P04 is active and was used: {FORGET}"),
    (("hold", "--yes", "P01", *WHY), "P01 is lost: nothing to hold. Nothing was changed.\n"),
    (("hold", "--yes", "P02", *WHY), "P02 is shipped: nothing to hold. Nothing was changed.\n"),
    (("hold", "--yes", "P06", *WHY), "P06 is held already: it clicks. Nothing was changed.\n"),
    (("unhold", "P04"), "P04 is not held. Nothing was changed.\n"),
    (("unhold", "P01"), "P01 is lost: nothing to give back. Nothing was changed.\n"),
    (("unhold", "P02"), "P02 is shipped: nothing to give back. Nothing was changed.\n"),
    (("verify", "P01"), "P01 (ZTP01AA) is lost: nothing is expected on it.\n"),
    (
        ("close", "--yes", "X1"),
        f"No disk has the label or serial X1. {LABELS}. Nothing was changed.\n",
    ),
    (
        ("verify", "P04", "X1"),
        f"No disk has the label or serial X1. {LABELS}. Nothing was changed.\n",
    ),
    (("lost", "P04"), "Missing option '--why'"),
    (("lost", "P01", "--undo", *WHY), "--undo takes no --why. Nothing was changed."),
    (("lost", "P04", "--undo"), "P04 (ZTP04AA) is active, not lost. Nothing was changed.\n"),
    (("lost", "p01", "--undo"), f"No disk has the label or serial p01. {LABELS}. Nothing was"),
    (("hold", "--yes", "P04"), "Missing option '--why'"),
    (("ship",), "Missing argument"),
    (("pause",), "Missing option '--why'"),
    (("pause", *WHY, "--for", "a while"), '--for: "a while" is not a time; write it like 90 s'),
]


@pytest.mark.parametrize(("args", "reason"), REFUSALS, ids=[" ".join(args) for args, _ in REFUSALS])
def test_what_makes_no_sense_is_refused_with_its_reason(
    station: World, args: tuple[str, ...], reason: str
) -> None:
    """Whatever a disk's state is, no command does more to it than makes sense there."""
    assert reason in refused(station, *args)


def test_a_verdict_is_not_lost_when_another_disk_is_refused(station: World) -> None:
    """A lost disk among several refuses them all before one of them is read."""
    assert "is lost" in refused(station, "verify", "P04", "P01")


# --- close, ship --------------------------------------------------------------------------


def test_a_closed_disk_takes_no_more_and_the_next_one_goes_on(world: World) -> None:
    """``close`` says what to do with the drive now; later files go to another disk."""
    world.generate()
    archive(world, "a.g3")
    run = order(world, "close", "--yes", "P01")
    assert run.out.startswith("P01 is closed: a person closed it.\n")
    assert f"umount {world.disks['P01']} " in run.out
    assert world.disk_states()["P01"] == "closed"
    assert events(world, "ZTP01AA") == ["registered", "first use", "closed", "sealed"]
    archive(world, "b.g3")
    assert (world.archived("P01"), world.archived("P02")) == ({"a.g3"}, {"b.g3"})


def test_shipped_disks_leave_and_their_labels_are_free(world: World) -> None:
    """Both at once, one by its serial; their slips are over, new drives may have the labels."""
    world.generate()
    archive(world, "a.g3")
    order(world, "close", "--yes", "P01")
    order(world, "close", "--yes", "S01")
    assert {("disk-closed", "P01"), ("disk-closed", "S01")} <= world.notices()
    run = order(world, "ship", "P01", "zts01aa")
    noted, sheet = run.out.splitlines()
    assert noted == "P01, S01: noted as shipped. The labels may be used again, by another drive."
    assert sheet.startswith(f"For the crate: {world.db_path.parent}/shipments/20")
    assert world.disk_states() == {"P02": "spare", "S02": "spare"}
    assert world.notices() == set()
    for label in ("P01", "S01"):
        taken_out(world, label)
        world.add_disk(label, f"NEW{label}AA")
    assert "2 drives added, 2 known" in world.generate().out
    assert set(world.disk_states().values()) == {"spare"}
    archive(world, "b.g3")
    assert world.archived("P01") == world.archived("S01") == {"b.g3"}


def test_a_disk_stays_while_one_of_its_files_has_no_other_copy(world: World) -> None:
    """``ship`` names such a file; once the second copy exists the disk may go."""
    world.generate()
    archive(world, "a.g3")
    for label in ("S01", "S02"):
        order(world, "hold", "--yes", label, "--why", "test")
    world.put("alone.g3")
    world.run_pass(check=1)
    order(world, "close", "--yes", "P01")
    reason = refused(world, "ship", "P01")
    assert "1 file on P01 without another copy, alone.g3 among them." in reason
    order(world, "unhold", "S01")
    world.run_pass(check=0)
    assert world.waiting() == set()
    order(world, "ship", "P01")


# --- lost ---------------------------------------------------------------------------------


def test_the_copies_of_a_lost_disk_are_missing_and_its_label_is_free(world: World) -> None:
    """``lost`` counts what is gone; while the other copies are good it is no emergency."""
    world.generate()
    archive(world, "a.g3", "b.g3")
    run = order(world, "lost", "ztp01aa", "--why", "does not spin up")
    assert run.out == (
        "P01 (ZTP01AA) is lost: 2 copies (2 kB) are noted as missing; 0 files have no good copy "
        "left. Make the others again: data_manager.py repair. The label P01 may be used again, "
        "by another drive. If this was a mistake: data_manager.py lost --undo ZTP01AA\n"
    )
    world.spoil("P01", None, "the test loses it")
    assert copy_states(world, "ZTP01AA") == {"a.g3": "missing", "b.g3": "missing"}
    assert copy_states(world, "ZTS01AA") == {"a.g3": "good", "b.g3": "good"}
    assert world.notices() == set()
    assert "P01" not in world.disk_states()
    before = world.snapshot(world.disks["P01"])
    archive(world, "c.g3")
    assert before.differences(world.snapshot(world.disks["P01"])) == []
    assert world.archived("P02") == {"c.g3"}


def test_files_of_a_lost_disk_that_are_in_the_buffer_are_copied_anew(world: World) -> None:
    """No good copy is critical, with the way out; it is over once there is one again."""
    world.generate()
    for label in ("S01", "S02"):
        order(world, "hold", "--yes", label, "--why", "test")
    world.put("a.g3")
    world.run_pass(check=1)
    assert copy_states(world, "ZTP01AA") == {"a.g3": "good"}
    run = order(world, "lost", "P01", "--why", "fell down")
    assert "1 file has no good copy left" in run.out
    text = notice(world, "no-good-copy", "ZTP01AA")
    assert text.startswith(
        "1 file that was on P01 has no good copy left, a.g3 among them. Those still in the"
    )
    severity = world.sql("SELECT severity FROM notices WHERE kind = 'no-good-copy'")
    assert [tuple(row) for row in severity] == [("critical",)]
    order(world, "unhold", "S02")
    world.run_pass(check=0)
    assert world.archived("P02") == world.archived("S02") == {"a.g3"}
    assert notice(world, "no-good-copy", "ZTP01AA") == ""


def test_no_good_copy_stays_open_while_a_file_has_none(world: World) -> None:
    """Both disks of a file lost, the buffer empty: passes on other files settle nothing."""
    world.generate()
    archive(world, "a.g3")
    for label in ("P01", "S01"):
        world.spoil(label, None, "the test loses it")
        order(world, "lost", label, "--why", "fire")
    archive(world, "b.g3")
    assert "a.g3 among them" in notice(world, "no-good-copy", "ZTS01AA")
    assert ("no-good-copy", "ZTP01AA") not in world.notices()  # then the other copy was good


# --- forget -------------------------------------------------------------------------------


def test_a_drive_that_was_never_used_is_forgotten(world: World) -> None:
    """Its row goes with its history, also that of its health; another drive may follow."""
    world.generate()
    world.sql(
        "INSERT INTO smart_checks (disk_id, at, health) SELECT id, '2026-01-01T00:00:00Z', 'ok' "
        "FROM disks WHERE label = 'P02'"
    )
    run = order(world, "forget", "P02")
    assert run.out == (
        "P02 (ZTP02AA) was removed from the database. Delete its line in the disk-map too, or it "
        "comes back.\n"
    )
    assert world.sql("SELECT 1 FROM disks WHERE serial = 'ZTP02AA'") == []
    world.add_disk("P02", "OTHER02")
    assert "1 drives added, 3 known" in world.generate().out


def test_a_spare_that_had_a_life_before_is_not_forgotten(world: World) -> None:
    """A lost drive that came back wiped was used: what it once held is still known."""
    world.generate()
    archive(world, "a.g3")
    order(world, "lost", "P01", "--why", "wiped")
    world.spoil("P01", None, "wiped")
    shutil.rmtree(world.disks["P01"])
    world.disks["P01"].mkdir()
    world.generate("--returned")
    assert "can't be forgotten" in refused(world, "forget", "P01")
    assert "can't be forgotten" in refused(world, "forget", "P02", "P01")  # all of them, or none


# --- hold ---------------------------------------------------------------------------------


def test_a_held_disk_is_not_written_to_till_it_is_given_back(world: World) -> None:
    """``hold`` keeps a disk as it is; after ``unhold`` it is filled before the next."""
    world.generate()
    archive(world, "a.g3")
    run = order(world, "hold", "--yes", "P01", "--why", "it clicks")
    assert run.out == (
        f"P01 is on hold; you can unmount it: sudo umount {world.disks['P01']}\n"
        "Nothing is written to it, and its copies do not count for removing files.\n"
        "To use it again: data_manager.py unhold P01\n"
    )
    assert order(world, "hold", "--yes", "P02", "--why", "both").out.endswith(
        "To use it again: data_manager.py unhold P02\nWarning: no other primary disk is usable.\n"
    )
    order(world, "unhold", "P02")
    assert "HELD by person: it clicks" in world.status().out
    before = world.snapshot(world.disks["P01"])
    archive(world, "b.g3")
    assert before.differences(world.snapshot(world.disks["P01"])) == []
    run = order(world, "unhold", "ZTP01AA")
    assert run.out == "P01 may be used again (active), once it is mounted.\n"
    order(world, "close", "--yes", "P02")
    archive(world, "c.g3")
    assert world.archived("P01") == {"a.g3", "c.g3"}


def test_a_copy_on_a_held_disk_is_no_ground_for_removal(world: World) -> None:
    """The file comes again: it is copied to another disk of the role before it leaves."""
    world.generate()
    archive(world, "a.g3")
    order(world, "hold", "--yes", "P01", "--why", "it clicks")
    order(world, "hold", "--yes", "P02", "--why", "it clicks too")
    world.put("a.g3")
    world.run_pass(check=1)
    assert world.waiting() == {"a.g3"}
    order(world, "unhold", "P02")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P02") == {"a.g3"}


def test_what_no_file_waits_for_any_more_is_over_with_the_next_pass(world: World) -> None:
    """The disk is back, and the known file needs no copy: no new file has to come first."""
    world.generate()
    archive(world, "a.g3")
    for label in ("P01", "P02"):
        order(world, "hold", "--yes", label, "--why", "it clicks")
    world.put("a.g3")
    world.run_pass(check=1)
    assert ("no-disk", "primary") in world.notices()
    order(world, "unhold", "P01")
    world.run_pass(check=0)
    assert (world.waiting(), world.notices()) == (set(), set())


def test_the_last_disk_of_a_role_can_be_held_and_files_wait(tmp_path: Path) -> None:
    """A person may hold a role's only disk: the other role goes on, no-disk says what to do."""
    world = World(tmp_path, ["P01"], ["S01"])
    world.generate()
    order(world, "hold", "--yes", "S01", "--why", "slot is dirty")
    world.put("a.g3")
    world.run_pass(check=1)
    assert (world.archived("P01"), world.archived("S01")) == ({"a.g3"}, set())
    assert world.waiting() == {"a.g3"}
    assert ("no-disk", "copy") in world.notices()
    order(world, "unhold", "S01")
    world.run_pass(check=0)
    assert world.notices() == set()
    world.close()


def test_only_a_held_disk_that_could_take_files_is_offered_where_none_can(tmp_path: Path) -> None:
    """One that was held when it was lost or closed is not to be given back."""
    world = World(tmp_path, ["P01", "P02", "P03"], ["S01"])
    world.generate()
    archive(world, "a.g3")
    order(world, "hold", "--yes", "P01", "--why", "it burns")
    order(world, "lost", "P01", "--why", "burnt")
    world.spoil("P01", None, "it burnt")
    archive(world, "b.g3")
    order(world, "close", "--yes", "P02")
    order(world, "hold", "--yes", "P02", "--why", "its bag is looked at")
    order(world, "hold", "--yes", "P03", "--why", "it rattles")
    world.put("c.g3")
    world.run_pass(check=1)
    text = notice(world, "no-disk", "primary")
    assert "Or give one back that is held: P03 (it rattles). See no-disk" in text
    order(world, "unhold", "P03")
    world.run_pass(check=0)
    world.close()


# --- pause --------------------------------------------------------------------------------


def test_a_paused_pass_changes_nothing_and_ends_with_0(world: World) -> None:
    """Till ``resume``; a person who looks is told why, a second ``resume`` does no harm."""
    world.generate()
    archive(world, "a.g3")
    world.put("b.g3")
    run = order(world, "pause", "--why", "new shelf")
    assert run.out == (
        "Paused until somebody resumes: data_manager.py resume.\n"
        "No disk is touched now: any may be unmounted. Files wait in the buffer.\n"
    )
    assert notice(world, "paused", "archive").startswith("new shelf (until somebody resumes).")
    assert "new shelf" in world.status().out
    before = [world.db_path.read_bytes(), *map(world.snapshot, (world.mounts, world.buffer))]
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    after = [world.db_path.read_bytes(), *map(world.snapshot, (world.mounts, world.buffer))]
    assert before == after
    assert order(world, "resume").out == "The next pass works again.\n"
    assert world.notices() == set()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert order(world, "resume").out == "It was not paused.\n"


def test_a_pause_with_a_time_ends_by_itself(world: World) -> None:
    """``--for``: a pass after that works, and the notice is over; a later pause replaces it."""
    world.generate()
    order(world, "pause", "--why", "lunch", "--for", "4h")
    assert "Paused now until 20" in order(world, "pause", "--why", "tea", "--for", "2 s").out
    assert notice(world, "paused", "archive").startswith("tea (until 20")
    world.put("a.g3")
    time.sleep(2.1)
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


# --- whose archive ------------------------------------------------------------------------


# --- killed in the middle -----------------------------------------------------------------


def _at_the_end_of_a_commit(world: World, nth: int) -> list[str]:
    """The prefix of a command that dies before the ``nth`` time that a journal goes."""
    journal = world.db_path.with_name(f"{world.db_path.name}-journal")
    return strace(world, "unlink", [journal], f"signal=SIGKILL:when={nth}")


def _lost(world: World) -> tuple[str, ...]:
    """Told: what has no good copy left."""
    order(world, "lost", "S01", "--why", "burnt")
    return ("lost", "P01", "--why", "burnt, too")


def _shipped(world: World) -> tuple[str, ...]:
    """Over: that it is to be taken out."""
    order(world, "close", "--yes", "P01")
    return ("ship", "P01")


@needs_strace
@pytest.mark.parametrize("prepare", [_lost, _shipped])
def test_what_a_killed_command_did_to_a_disk_it_has_told(
    world: World, prepare: Callable[[World], tuple[str, ...]]
) -> None:
    """All of it is done, or nothing: notices follow with what runs next."""
    world.generate()
    archive(world, "a.g3")
    args = prepare(world)
    world.leave_unchecked("both disks are lost" if args[0] == "lost" else "the disk has left")

    def seen() -> tuple[bool, set[tuple[str, str]]]:
        return "P01" in world.disk_states(), world.notices()

    before, found, code, nth = seen(), [], -9, 0
    while code == -9:
        nth += 1
        dies = _at_the_end_of_a_commit(world, nth)
        code = world.run_pass(*args, prefix=dies, check={0, 2, -9}).code
        order(world, "resume")
        found.append(seen())
    assert before[0] != found[-1][0]
    assert before[1] != found[-1][1]
    assert all(one in (before, found[-1]) for one in found)


@pytest.mark.parametrize("how", ["lost", "shipped", "closed"])
def test_what_was_found_of_a_disk_is_no_concern_of_the_next_drive_with_its_label(
    world: World, how: str
) -> None:
    """Of any kind: else a notice that nobody can end stays open."""
    world.generate()
    archive(world, "a.g3")
    for kind, key in (("disk-differs", "P01"), ("name-conflict", "P01 a.g3"),
                      ("disk-error", "P01")):  # fmt: skip
        world.sql(
            "INSERT INTO findings VALUES (?, ?, 'warning', 't.', NULL, '2026-01-01T00:00:00Z')",
            kind, key,
        )  # fmt: skip
    if how == "lost":
        order(world, "lost", "P01", "--why", "burnt")
        world.spoil("P01", None, "it was lost")
    else:
        order(world, "close", "--yes", "P01")
    if how == "shipped":
        order(world, "ship", "P01")
    about = {key for _, key in world.notices()}
    assert not about & {"P01 a.g3"} and ("disk-differs", "P01") not in world.notices()
    assert ("disk-error", "P01") not in world.notices()
    world.leave_unchecked("the disk has left")
