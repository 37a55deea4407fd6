"""``generate_db.py --from-disks``: a lost catalogue from the bags, an older one completed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.halted import leave_a_copy, line_of, needs_strace, strace
from tests.helpers.invariants import sha512_of
from tests.helpers.loopdisks import LoopWorld, two_partitions
from tests.helpers.lost_database import (
    COPIES,
    DISKS,
    FILES,
    NAME,
    filled,
    lose_database,
    rebuilt,
    rows,
)
from tests.helpers.world import World


def manifest_path(world: World, label: str) -> Path:
    return world.disks[label] / "manifest-sha512.txt"


def rewrite(world: World, label: str, old: bytes, new: bytes) -> None:
    path = manifest_path(world, label)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


def copy_states(world: World, name: str) -> dict[str, str]:
    return {label: state for n, label, state, _ in rows(world, COPIES) if n == name}  # type: ignore


# --- made anew ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_read_only", [False, True])
def test_all_that_matters_comes_back_from_the_disks(
    loop_world: LoopWorld, is_read_only: bool
) -> None:
    """Disks with their states, files, copies; nothing is written to a disk, nor is closed anew.

    It begins with the copy that the closed disk has, and completes it from all disks.
    """
    world = filled(loop_world)
    world.run_pass("close", "--yes", "P01", check=0)
    ((newest,),) = rows(world, "SELECT max(archived_at) FROM files")
    world.put("later.g3")
    world.run_pass(check=0)
    asked = (FILES, DISKS, COPIES)
    before = [rows(world, query) for query in asked]
    lists = world.snapshot(world.db_path.parent / "packing-lists")
    for path in lists.root.iterdir():
        path.unlink()
    lose_database(world)
    tree = world.snapshot(world.mounts)
    for label in ("P01", "S01") if is_read_only else ():
        loop_world.loops[label].remount("ro")
    run = rebuilt(world)
    for label in ("P01", "S01") if is_read_only else ():
        loop_world.loops[label].remount("rw")
    assert tree.differences(world.snapshot(world.mounts)) == []
    assert [rows(world, query) for query in asked] == before
    assert run.out.splitlines() == [
        f"Database {world.db_path}: 3 disks were read.",
        f"It began with the copy that knows most, {world.disks['P01']}/catalogue.sqlite: 3 files, "
        f"the newest archived {newest}.",
        "P01  primary  ZTP01AA  closed: 3 files (9 kB), 0 of them new to the database",
        "P02  primary  ZTP02AA  active: 1 file (1 kB), 1 of them new to the database",
        "S01  copy  ZTS01AA  active: 4 files (10 kB), 1 of them new to the database",
        "Now: 1. data_manager.py check  2. a pass, or the crontab line again.",
        "These unverified copies never justify a removal. Verify them: "
        "data_manager.py verify P01 P02 S01",
    ]
    assert dict(lists.items)["P01-ZTP01AA.sha512"].content == sha512_of(
        world.db_path.parent / "packing-lists" / "P01-ZTP01AA.sha512"
    )
    assert rows(world, "SELECT count(*), count(archived_at) FROM files") == [(4, 4)]
    used = "SELECT count(first_used_at), count(last_used_at), count(free_bytes) FROM disks"
    assert rows(world, used) == [(3, 3, 3)]
    assert rows(world, "SELECT count(verified_at), count(verified_by) FROM copies") == [(6, 6)]
    closed = world.snapshot(world.disks["P01"])
    world.put("next.g3")
    world.run_pass(check=0)
    assert closed.differences(world.snapshot(world.disks["P01"])) == []
    assert world.notices() == set()
    assert world.waiting() == set()


def test_what_was_rebuilt_is_verified_by_the_same_command(loop_world: LoopWorld) -> None:
    """``--verify`` reads every copy from the medium; a flipped bit is found: exit 1."""
    filled(loop_world)
    lose_database(loop_world)
    loop_world.loops["S01"].flip_bit(f"data/{NAME}")
    loop_world.spoil("S01", NAME, "the test flipped a bit")
    run = rebuilt(loop_world, "--verify", check=1)
    assert "P01: 3 copies are good (9 kB), 0 damaged, 0 missing, 0 unregistered files" in run.out
    assert f"S01: DAMAGED {NAME}\n" in run.out
    assert "until they are read" not in run.out
    found = rows(loop_world, "SELECT verified_by, state, count(*) FROM copies GROUP BY 1, 2")
    assert found == [("direct", "damaged", 1), ("direct", "good", 5)]


def test_a_copy_that_was_not_read_is_no_ground_for_removal(world: World) -> None:
    """The file that comes again goes only after both copies were read; not on a rebuilt row."""
    filled(world)
    lose_database(world)
    rebuilt(world)
    (world.data("P01") / NAME).write_bytes(b"x" * (world.data("P01") / NAME).stat().st_size)
    os.utime(world.data("P01") / NAME, ns=(0, rows(world, FILES)[1][3]))  # type: ignore[misc]
    world.spoil("P01", NAME, "the test altered it")
    world.put(NAME, 3000, mtime_s=1_700_000_001.5)
    world.run_pass()
    assert copy_states(world, NAME)["P01"] != "good" or world.waiting() == {NAME}
    assert rows(world, f"SELECT sha512 FROM files WHERE name = '{NAME}'")[0][0] == sha512_of(
        world.data("S01") / NAME
    )


def test_it_is_refused_where_no_disk_can_be_used(world: World) -> None:
    """Exit 2, with every reason; no database is made."""
    filled(world)
    lose_database(world)
    (world.disks["P01"] / "bag-info.txt").unlink()
    (world.disks["S01"] / "bag-info.txt").write_text("Pole-Label: S01\n")
    run = rebuilt(world, check=2)
    assert run.err.splitlines()[0] == (
        "No archive disk is mounted that can be used. Nothing was changed."
    )
    assert f"{world.disks['P01']}: it has no mark, but holds " in run.err
    assert f"{world.disks['S01']}: it can't be read: its bag-info.txt has no line Pole-" in run.err
    assert not world.db_path.exists()


# --- which disks --------------------------------------------------------------------------


def harm_label(world: World) -> str:
    world.disks["P02"].rmdir()
    world.disks["P01"].rename(world.disks["P02"])
    world.disks["P01"].mkdir()
    return "P02: its mark says P01: mount it at the place of that label"


def harm_twin(world: World) -> str:
    text = (world.disks["P01"] / "bag-info.txt").read_text()
    world.disks["P02"].joinpath("bag-info.txt").write_text(text.replace("P01\n", "P02\n"))
    (world.disks["P02"] / "manifest-sha512.txt").touch()
    return f"P01: its mark is also at {world.disks['P02']}: which is the right one?"


def harm_role(world: World) -> str:
    mark = world.disks["P01"] / "bag-info.txt"
    mark.write_text(mark.read_text().replace("Role: primary", "Role: copy"))
    return "P01: its mark calls P01 a copy disk; the configuration does not"


def harm_kind(world: World) -> str:
    mark = world.disks["P01"] / "bag-info.txt"
    mark.write_text(mark.read_text().replace("Stand-In: yes", "Stand-In: no"))
    return "P01: its mark is of a drive, which this configuration is not for"


def harm_time(world: World) -> str:
    mark = world.disks["P01"] / "bag-info.txt"
    mark.write_text(re.sub("(?m)^Pole-Opened: .*", "Pole-Opened: long ago", mark.read_text()))
    return "P01: it can't be read: not a time of the database: 'long ago'"


def harm_manifest(world: World) -> str:
    manifest_path(world, "P01").unlink()
    return "P01: it can't be read: it has no manifest-sha512.txt"


@pytest.mark.parametrize(
    "harm", [harm_label, harm_twin, harm_role, harm_kind, harm_time, harm_manifest]
)
def test_a_disk_that_is_not_surely_itself_is_said_and_not_used(
    world: World, harm: Callable[[World], str]
) -> None:
    """Exit 1; the other disks are used."""
    filled(world)
    lose_database(world)
    why = harm(world)
    world.leave_unchecked("a disk is not what it should be")
    run = rebuilt(world, check=1)
    assert f"NOT USED {world.mounts}/{why}" in run.out
    assert [row[0] for row in rows(world, DISKS)] == ["S01"]
    assert rows(world, "SELECT count(*), count(archived_at) FROM files") == [(3, 0)]


def test_two_labels_on_one_drive_are_not_both_used(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Two partitions, each with its own sound mark: the second is no second copy."""
    world = filled(make_loop_world())
    lose_database(world)
    for label in ("P02", "S02"):
        world.loops[label].umount()
    world.leave_unchecked("two disks are on one drive")
    with two_partitions(world.root / "two.img", (world.disks["P02"], world.disks["S02"])):
        for old, new in (("P01", "P02"), ("S01", "S02")):
            bag_of(world, old, new)
        run = rebuilt(world, check=1)
        assert (
            f"NOT USED {world.disks['S02']}: it is on the same physical drive as P02. "
            "Every label needs a drive of its own: mount another one." in run.out
        )
    assert [row[0] for row in rows(world, DISKS)] == ["P01", "P02", "S01"]


def bag_of(world: World, old: str, new: str) -> None:
    """The bag of one disk on another one, with that one's mark."""
    shutil.copytree(world.disks[old], world.disks[new], dirs_exist_ok=True)
    mark = world.disks[new] / "bag-info.txt"
    text = mark.read_text().replace(world.logical_id(old), world.logical_id(new))
    mark.write_text(text.replace(old, new))


def test_a_disk_map_adds_its_other_drives_as_spares(world: World) -> None:
    """Those that were found are known already."""
    filled(world)
    before = rows(world, "SELECT label, serial, state FROM disks ORDER BY label")
    lose_database(world)
    run = rebuilt(world, "--disk-map", str(world.disk_map_path))
    assert rows(world, "SELECT label, serial, state FROM disks ORDER BY label") == before
    assert "Spares from the disk-map: P02, S02." in run.out
    assert "Empty disks" not in run.out


def test_a_disk_map_that_contradicts_a_mark_is_refused_before_anything_is_written(
    world: World,
) -> None:
    """Exit 2, with both sides."""
    filled(world)
    lose_database(world)
    world.disk_map_path.write_text("P01 OTHER001 0x5000c500aaaa0001\n")
    run = rebuilt(world, "--disk-map", str(world.disk_map_path), check=2)
    assert "label P01 belongs to the drive ZTP01AA (active), not to OTHER001" in run.err
    assert not world.db_path.exists()


# --- what is not as it should be ----------------------------------------------------------


def test_other_content_in_the_two_roles_is_said_and_counts_in_neither(world: World) -> None:
    """Exit 1 with both labels; the file is not archived, so nothing is removed for it."""
    filled(world)
    lose_database(world)
    path = world.data("S01") / NAME
    old = sha512_of(path)
    path.write_bytes(b"y" * 3000)
    rewrite(world, "S01", old.encode(), sha512_of(path).encode())
    world.spoil("S01", NAME, "the test altered it")
    run = rebuilt(world, check=1)
    assert (
        f"DIFFERENCE {NAME}: S01: SHA-512 {sha512_of(path)[:12]}…; P01: SHA-512 {old[:12]}…"
        in run.out
    )
    assert copy_states(world, NAME) == {"P01": "good"}
    assert rows(world, f"SELECT archived_at FROM files WHERE name = '{NAME}'") == [(None,)]
    assert world.notices() == {("copy-damaged", "S01")}
    trees = [world.snapshot(world.data(label)) for label in ("P01", "S01")]
    world.ledger.put(NAME, 3000, mtime_s=1_700_000_001.5)
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert [tree.differences(world.snapshot(tree.root)) for tree in trees] == [[], []]


@pytest.mark.parametrize(("label", "other"), [("P01", "S01"), ("S01", "P01")])
def test_a_line_without_its_file_is_a_missing_copy(world: World, label: str, other: str) -> None:
    """Whichever role is read first; with no copy anywhere it is only said: its size is unknown."""
    filled(world)
    lose_database(world)
    (world.data(label) / NAME).unlink()
    for each in ("P01", "S01"):
        (world.data(each) / "empty.g3").unlink()
    world.leave_unchecked("files were removed from the disks")
    run = rebuilt(world, check=1)
    assert f"{label}: MISSING {NAME}\n" in run.out
    assert f"{label}: MISSING, AND ON NO OTHER DISK THAT IS MOUNTED empty.g3\n" in run.out
    assert copy_states(world, NAME) == {label: "missing", other: "good"}
    assert copy_states(world, "empty.g3") == {}
    assert world.sql(f"SELECT archived_at FROM files WHERE name = '{NAME}'")[0][0] is None
    total = re.findall(r": (\d) files? .*, (\d) of them new", run.out)
    assert sorted(total) == [("1", "2"), ("2", "2")]


def test_what_is_gone_from_all_disks_is_not_forgotten_when_they_are_read(world: World) -> None:
    """The manifests alone know of it: ``verify`` says so, and the notices stand."""
    filled(world)
    lose_database(world)
    for label in ("P01", "S01"):
        (world.data(label) / "empty.g3").unlink()
    world.leave_unchecked("files were removed from the disks")
    rebuilt(world, check=1)
    told = {("copy-damaged", "P01"), ("copy-damaged", "S01")}
    assert world.notices() == told
    run = world.run_pass("verify", "P01", "S01", check=1)
    assert "P01: NOWHERE empty.g3\n" in run.out
    assert "S01: NOWHERE empty.g3\n" in run.out
    told |= {("disk-differs", "P01"), ("disk-differs", "S01")}
    world.run_pass(check=0)
    assert world.notices() == told


@pytest.mark.parametrize(("label", "other"), [("P01", "S01"), ("S01", "P01")])
def test_of_two_sizes_the_one_with_the_sha512_is_right(
    world: World, label: str, other: str
) -> None:
    """A cut copy is damaged, whichever role is read first; the other one is good."""
    filled(world)
    lose_database(world)
    os.truncate(world.data(label) / NAME, 7)
    world.spoil(label, NAME, "the test cut it")
    world.ledger.withdraw(NAME, "it is not archived twice any more")
    run = rebuilt(world, check=1)
    assert f"{label}: DAMAGED {NAME}\n" in run.out
    assert "DIFFERENCE" not in run.out
    assert world.notices() == {("copy-damaged", label)}  # the healthy disk is not blamed
    assert copy_states(world, NAME) == {label: "damaged", other: "good"}
    assert rows(world, f"SELECT size_bytes, archived_at FROM files WHERE name = '{NAME}'") == [
        (3000, None)
    ]
    rebuilt(world, check=1)  # again: the same
    assert copy_states(world, NAME) == {label: "damaged", other: "good"}


def test_what_a_run_found_is_over_with_the_run_that_finds_nothing(world: World) -> None:
    """Its own notice alone: what something else has found of a disk stands."""
    filled(world)
    lose_database(world)
    away = (world.data("S01") / NAME).rename(world.root / "away")
    (world.disks["P01"] / "data" / "notes.txt").write_text("not ours")
    rebuilt(world, check=1)
    assert world.notices() == {("copy-damaged", "P01"), ("copy-damaged", "S01")}
    away.rename(world.data("S01") / NAME)
    rebuilt(world, check=1)
    assert world.notices() == {("copy-damaged", "P01")}
    world.sql("UPDATE findings SET text = 'P01 is full but can''t be closed.'")
    (world.disks["P01"] / "data" / "notes.txt").unlink()
    rebuilt(world)
    assert world.notices() == {("copy-damaged", "P01")}
    world.sql("UPDATE findings SET text = 'Found by generate_db.py --from-disks, which …'")
    rebuilt(world)
    assert world.notices() == set()


def test_a_torn_last_line_is_left_and_its_file_said(world: World) -> None:
    """What a crash left is no fault of the manifest; the next pass cuts it, not this."""
    filled(world)
    lose_database(world)
    path = leave_a_copy(world, "P01", "torn.g3", b"torn")
    leave_a_copy(world, "P01", "torn.g3", b"torn", line_of(path, "torn.g3")[:-4])
    world.ledger.saw("torn.g3", path)
    world.ledger.withdraw("torn.g3", "it was never in the buffer")
    before = manifest_path(world, "P01").read_bytes()
    run = rebuilt(world, check=1)
    assert "P01: WITHOUT A LINE torn.g3\n" in run.out
    assert "FAULT" not in run.out
    assert manifest_path(world, "P01").read_bytes() == before
    world.unfinished = True
    world.check(foreign=["torn.g3"])
    world.put("torn.g3", b"torn")  # it is in the buffer: on its way
    world.sql("DELETE FROM notices")
    rebuilt(world)
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_bad_lines_are_said_and_the_others_are_read(world: World) -> None:
    """A flipped bit in one line loses one file's line, not those behind it; no path leads out."""
    filled(world)
    lose_database(world)
    first = manifest_path(world, "P01").read_bytes().split(b"\n")[0]
    rewrite(world, "P01", first, b"X" + first[1:])
    with manifest_path(world, "P01").open("ab") as manifest:
        at = manifest.tell()
        manifest.write(b"0" * 128 + b"  data/../bag-info.txt\n")
    world.leave_unchecked("the manifest is damaged")
    run = rebuilt(world, check=1)
    assert "P01: FAULT manifest-sha512.txt: the text at byte 0 is not a manifest line" in run.out
    assert (
        f"P01: FAULT manifest-sha512.txt: the line at byte {at} names no file: a part of its path "
        "is empty, . or .." in run.out
    )
    assert "P01: WITHOUT A LINE empty.g3" in run.out
    assert rows(world, "SELECT count(*), count(archived_at) FROM files") == [(3, 2)]


@needs_strace
def test_a_disk_that_fails_stops_no_other(world: World) -> None:
    """It is said, exit 1; the other role's files are registered."""
    filled(world)
    lose_database(world)
    broken = world.data("P01") / Path(NAME).parent
    prefix = strace(world, "newfstatat", [broken], "error=EIO")
    run = world.run("generate_db.py", "--from-disks", check=1, prefix=prefix)
    assert "P01: FAULT it could not be read to its end: Input/output error" in run.out
    assert "S01  copy  ZTS01AA  active: 3 files (9 kB), 3 of them new to the database" in run.out
    rebuilt(world)
    assert rows(world, "SELECT count(*), count(archived_at) FROM files") == [(3, 3)]
    assert rows(world, "SELECT count(*) FROM copies") == [(6,)]


# --- an older database --------------------------------------------------------------------


def test_an_older_database_is_completed_and_what_it_says_stays(loop_world: LoopWorld) -> None:
    """A spare that was begun since, a disk that was closed since, files; rows are not touched."""
    world = filled(loop_world)
    older = world.db_path.read_bytes()
    old_rows = [
        rows(world, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("files", "copies")
    ]
    world.run_pass("close", "--yes", "P01", check=0)
    world.put("later.g3")
    world.run_pass(check=0)
    whole = [rows(world, query) for query in (FILES, DISKS, COPIES)]
    world.db_path.write_bytes(older)
    world.run_pass(check=0)  # nothing to do
    world.put("blocked.g3")
    world.run_pass(check=1)  # it has its copy on S01 by then
    told = {("disk-wrong", "P01"), ("disk-wrong", "P02"), ("no-disk", "primary")}
    assert told <= world.notices()
    world.run_pass(check=1)
    assert told <= world.notices()
    assert world.sql("SELECT 1 FROM notices WHERE reopened > 0") == []  # none comes and goes
    run = rebuilt(world)
    assert rows(world, DISKS) == whole[1]
    assert {row[0] for row in {*rows(world, FILES)} - {*whole[0]}} == {"blocked.g3"}
    assert set(rows(world, COPIES)) >= set(whole[2])
    now = [rows(world, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("files", "copies")]
    assert all(row in after for was, after in zip(old_rows, now, strict=True) for row in was)
    assert "P02  primary  ZTP02AA  active: 1 file (1 kB), 1 of them new to the database" in run.out
    assert rows(world, "SELECT count(*) FROM disk_events WHERE event = 'sealed'") == [(1,)]
    world.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_disks_that_are_not_there_are_left_as_they_were_and_named(world: World) -> None:
    """They may be on the shelf or shipped: only a person knows."""
    filled(world)
    world.run_pass("close", "--yes", "P01", check=0)
    away = world.disks["P01"].rename(world.root / "shelf")
    run = rebuilt(world)
    assert (
        "Not mounted, left as they were: P01. Mount them and run this again; what has left: "
        "data_manager.py ship or lost." in run.out
    )
    assert world.disk_states()["P01"] == "closed"
    away.rename(world.disks["P01"])


@pytest.mark.parametrize(
    ("state", "serial", "why"),
    [
        (
            "lost",
            None,
            "P01 is mounted, but the database has it as lost. Not lost? First: data_manager.py "
            "lost --undo ZTP01AA; then this again",
        ),
        ("closed", None, "it is closed in the database, but its bag is not closed"),
        (
            "active",
            "OTHER001",
            "in the database P01 is the drive OTHER001 (active), not ZTP01AA. If that one has "
            "left: data_manager.py ship OTHER001; then this again",
        ),
        ("shipped", "OTHER001", "the database has OTHER001 with logical ID 0x"),
    ],
)
def test_a_disk_that_contradicts_the_database_is_said_and_not_used(
    world: World, state: str, serial: str | None, why: str
) -> None:
    """Its rows stay as they are."""
    filled(world)
    world.sql(
        "UPDATE disks SET state = ?, serial = ? WHERE label = 'P01'",
        state,
        serial or world.serials["P01"],
    )
    world.leave_unchecked("the database was altered by hand")
    before = rows(world, "SELECT * FROM copies ORDER BY 1, 2")
    run = rebuilt(world, check=1)
    assert f"NOT USED {world.disks['P01']}: {why}" in run.out
    assert rows(world, "SELECT * FROM copies ORDER BY 1, 2") == before


def test_a_shipped_disk_that_came_back_stays_shipped(world: World) -> None:
    """Its files are completed: whether it stays here a person says."""
    filled(world)
    for label in ("P01", "S01"):
        world.run_pass("close", "--yes", label, check=0)
    world.run_pass("ship", "P01", check=0)
    world.sql("DELETE FROM copies")
    rebuilt(world)
    assert rows(world, "SELECT state FROM disks WHERE label = 'P01'") == [("shipped",)]
    assert rows(world, "SELECT count(*) FROM copies WHERE state = 'good'") == [(6,)]


# --- how it is run ------------------------------------------------------------------------


def test_a_dry_run_takes_the_same_way_and_writes_nothing(world: World) -> None:
    """With no database, and with an older one."""
    filled(world)
    older = world.db_path.read_bytes()
    lose_database(world)
    for has_older in (False, True):
        if has_older:
            world.db_path.write_bytes(older)
            (world.data("P01") / "empty.g3").unlink()
        before = world.snapshot(world.root)
        run = rebuilt(world, "--dry-run", check=int(has_older))
        assert before.differences(world.snapshot(world.root)) == []
        assert run.out.endswith("Dry run: nothing was written.\n")
        count = "2 files (9 kB), 0" if has_older else "3 files (9 kB), 3"
        assert f"P01  primary  ZTP01AA  active: {count} of them new to the database" in run.out
    world.leave_unchecked("a file was removed from a disk")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--from-disks", "--returned"), "--from-disks does not take --returned"),
        (("--from-disks", "--verify", "--dry-run"), "does not take --verify with --dry-run"),
        (("--from-disks", "--db", "x"), "Give either --db or --config, not both"),
        (("--verify",), "--disk-map FILE is missing (or --from-disks"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(
    world: World, args: tuple[str, ...], said: str
) -> None:
    """Exit 2, before anything is read."""
    run = world.run("generate_db.py", *args, check=2)
    assert said in run.err and "Nothing was changed." in run.err
    assert os.listdir(world.db_path.parent) == []


def test_a_lost_databases_journal_is_not_played_into_a_new_one(world: World) -> None:
    """SQLite would take it for its own: it is named, and nothing is made."""
    journal = world.db_path.with_name("pole.sqlite-journal")
    journal.write_bytes(b"of the lost one")
    for args in (["--disk-map", str(world.disk_map_path)], ["--from-disks"]):
        if args == ["--from-disks"]:
            journal.unlink()
            filled(world)
            lose_database(world)
            journal.write_bytes(b"of the lost one")
        run = world.run("generate_db.py", *args, check=2)
        assert "there is no database, but pole.sqlite-journal of an earlier one" in run.err
    assert not world.db_path.exists()
    journal.unlink()
    rebuilt(world)


def test_json_says_the_same_for_programs(world: World) -> None:
    """With what ``--verify`` found."""
    filled(world)
    lose_database(world)
    told = rebuilt(world, "--json", "--verify").json()
    assert told["db_path"] == str(world.db_path)
    assert [(disk["label"], disk["files"]) for disk in told["disks"]] == [("P01", 3), ("S01", 3)]
    assert [(disk["label"], disk["good"]) for disk in told["verified"]] == [("P01", 3), ("S01", 3)]
    assert told["empty"] == ["P02", "S02"]
