"""The database is gone: no advice and no command turns an archive disk into an empty spare."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poledata.disks.catalog_copy import Copy, by_knowledge
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.lost_database import COPIES, DISKS, FILES, filled, lose_database, rebuilt, rows
from tests.helpers.people import People
from tests.helpers.world import MARKER, Run, World

ANEW = "Do not make a new database"
GONE = "SELECT serial, state FROM disks WHERE state = 'shipped' ORDER BY serial"


def do_not_empty(world: World, label: str) -> str:
    return f"Its mark says that it is {label} ({world.serials[label]}): do not empty it"


def refused(world: World, *args: str) -> str:
    """What generate_db.py --disk-map says; nothing was made or changed anywhere."""
    before = [world.snapshot(place) for place in (world.mounts, world.db_path.parent)]
    run = world.generate(*args, check=2)
    assert run.out == ""
    assert [old.differences(world.snapshot(old.root)) for old in before] == [[], []]
    return run.err


# --- no new database beside archive disks -------------------------------------------------


@pytest.mark.parametrize("kind", ["world", "loop_world"])
@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_no_database_is_made_while_a_disk_that_was_archived_to_is_mounted(
    kind: str, option: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """Exit 2: each such disk is named by its mark, and the command is one that can be copied."""
    world = filled(request.getfixturevalue(kind))
    expected = [rows(world, query) for query in (FILES, DISKS, COPIES)]
    lose_database(world)
    lines = refused(world, *option).splitlines()
    assert lines[:-1] == [
        *(f"{world.disks[label]}: {do_not_empty(world, label)}" for label in ("P01", "S01")),
        f"{world.buffer / MARKER}: this buffer belongs to an archive (another archive on purpose? "
        "Move that away first)",
    ]
    said, _, command = lines[-1].partition(f"{ANEW}: ")
    assert said == "Nothing was changed. "
    script, *args = shlex.split(command)
    assert args[:2] == ["--config", str(world.config_path)]
    world.run(script, *args[2:], check=0)
    assert [rows(world, query) for query in (FILES, DISKS, COPIES)] == expected


def _mark_of_another_map(world: World) -> str:
    """Last season's disk, at a label of this season."""
    mark = world.disks["P01"] / "bag-info.txt"
    mark.write_text(mark.read_text().replace("ZTP01AA", "OLDER01"))
    return "Its mark says that it is P01 (OLDER01): do not empty it"


def _damaged_mark(world: World) -> str:
    (world.disks["P01"] / "bag-info.txt").write_text("Pole-Label: P01\n")
    return "an archive disk whose mark is damaged or gone: do not empty it"


def _no_mark(world: World) -> str:
    (world.disks["P01"] / "bag-info.txt").unlink()
    return "an archive disk whose mark is damaged or gone: do not empty it"


@pytest.mark.parametrize("harm", [_mark_of_another_map, _damaged_mark, _no_mark])
def test_a_disk_whose_mark_is_odd_is_an_archive_disk_all_the_same(
    world: World, harm: Callable[[World], str]
) -> None:
    """It may be the only one that knows of its files."""
    filled(world)
    lose_database(world)
    shutil.rmtree(world.disks["S01"])
    world.disks["S01"].mkdir()
    why = harm(world)
    assert f"{world.disks['P01']}: {why}\n" in refused(world)


def test_a_copy_from_before_an_upgrade_says_that_there_was_a_database(world: World) -> None:
    """No disk is mounted; the copy beside the database is what a new one begins with."""
    filled(world)
    kept = world.db_path.with_name("pole.sqlite.version-1")
    shutil.copy(world.db_path, kept)
    expected = [rows(world, query) for query in (FILES, DISKS, COPIES)]
    lose_database(world)
    for label in ("P01", "S01"):
        world.disks[label].rename(world.root / f"shelf-{label}")
    assert f"{kept}: an earlier database\n" in refused(world)
    run = rebuilt(world)
    assert f"It began with the copy that knows most, {kept}: 3 files, the newest" in run.out
    assert [rows(world, query) for query in (FILES, DISKS, COPIES)] == expected
    for label in ("P01", "S01"):
        (world.root / f"shelf-{label}").rename(world.disks[label])


@pytest.mark.parametrize("proof", ["packing lists", "the buffer's marker"])
def test_what_an_archive_has_left_says_that_there_was_one(world: World, proof: str) -> None:
    """No disk is mounted: still no empty database; who begins anew on purpose moves it away."""
    filled(world)
    lists, marker = world.db_path.with_name("packing-lists"), world.buffer / MARKER
    if proof == "packing lists":
        world.run_pass("close", "--yes", "P01", check=0)
        marker.rename(world.root / "marker")
    lose_database(world)
    away = {label: world.disks[label].rename(world.root / label) for label in ("P01", "S01")}
    left, why = {
        "packing lists": (lists, "lists of disks that were archived to"),
        "the buffer's marker": (marker, "this buffer belongs to an archive"),
    }[proof]
    anew = "another archive on purpose? Move that away first"
    for option in ((), ("--dry-run",)):
        proofs, last = refused(world, *option).splitlines()
        assert proofs == f"{left}: {why} ({anew})"
        assert last.startswith(f"Nothing was changed. {ANEW}: ") and "--from-disks" in last
    left.rename(world.root / "kept")
    assert "4 drives added" in world.generate().out
    world.db_path.unlink()
    (world.root / "kept").rename(left)
    for label, path in away.items():
        path.rename(world.disks[label])
    said = world.run("generate_db.py", "--from-disks", "--disk-map", str(world.disk_map_path))
    assert said.code == 0 and len(rows(world, COPIES)) == 6
    if proof == "packing lists":
        (world.root / "marker").rename(marker)


def test_the_database_that_made_the_marker_takes_further_disks(world: World) -> None:
    """Also one that knows no disk yet: its own buffer speaks against nothing."""
    world.generate()
    world.run_pass(check=0)
    assert (world.buffer / MARKER).exists()
    world.sql("DELETE FROM disk_events")
    world.sql("DELETE FROM disks")
    assert "4 drives added" in world.generate().out
    assert "0 drives added, 4 known" in world.generate().out


def test_empty_and_half_claimed_disks_are_a_first_installation(world: World) -> None:
    """A claim that was cut short leaves no mark: nothing is on that disk."""
    for name in ("data", ".incoming"):
        (world.disks["P01"] / name).mkdir()
    (world.disks["P01"] / "manifest-sha512.txt").touch()
    (world.disks["P02"] / "lost+found").mkdir()
    (world.disks["S02"] / "holiday.jpg").touch()
    assert "4 drives added" in world.generate().out
    (world.disks["S02"] / "holiday.jpg").unlink()


def test_a_database_that_does_not_know_a_marked_drive_does_not_add_it_as_a_spare(
    world: World,
) -> None:
    """A map of half of the drives came first: the others are not empty."""
    filled(world)
    lose_database(world)
    whole = world.disk_map_path.read_text()
    with closing(sqlite3.connect(world.root / "lost.sqlite")) as db:
        db.execute("DELETE FROM copies")
        db.execute("DELETE FROM disk_events")
        db.execute("DELETE FROM disks WHERE label IN ('P01', 'S01')")
        db.commit()
    (world.root / "lost.sqlite").rename(world.db_path)
    said = refused(world)
    assert f"{world.disks['P01']}: {do_not_empty(world, 'P01')}\n" in said
    assert "The database does not know it: generate_db.py --config" in said
    lines = [line for line in whole.splitlines(True) if line[:3] in ("P02", "S02")]
    world.disk_map_path.write_text("".join((*lines, "P09 FRESH09 0x5000c500aaaa0009\n")))
    assert "1 drives added, 2 known" in world.generate().out
    world.disk_map_path.write_text(whole)
    rebuilt(world)
    assert len(rows(world, COPIES)) == 6


def test_a_pass_with_an_empty_database_never_asks_for_an_empty_disk(world: World) -> None:
    """1.0.0 made one: the notice says whose disk it is, and how it is known again."""
    filled(world)
    lose_database(world)
    away = {label: world.disks[label].rename(world.root / label) for label in ("P01", "S01")}
    (world.buffer / MARKER).unlink()
    world.generate()
    for label, path in away.items():
        path.rename(world.disks[label])
    world.put("later.g3")
    world.run_pass()
    for label in ("P01", "S01"):
        ((text,),) = rows(world, f"SELECT text FROM notices WHERE key = '{label}'")
        assert text == (
            f"{do_not_empty(world, label)}. The database does not know it: generate_db.py "
            "--from-disks See disk-wrong in docs/operators.md."
        )
    rebuilt(world)
    assert len(rows(world, FILES)) == 4
    world.run_pass(check=0)
    assert world.notices() == set()


# --- which copy knows most ----------------------------------------------------------------


def test_the_copy_that_knows_most_is_the_first_whatever_its_time_is() -> None:
    """Files, then the newest of them, then what happened to disks."""
    copies = [
        Copy("empty, newest file", 0, "", 4, 0),
        Copy("old", 500, "2026-06-01T00:00:00Z", 9, 0),
        Copy("older", 400, "2026-07-01T00:00:00Z", 90, 0),
        Copy("newer", 500, "2026-06-02T00:00:00Z", 9, 0),
        Copy("shipped", 500, "2026-06-02T00:00:00Z", 11, 0),
    ]
    named = [copy.where for copy in by_knowledge(copies)]
    assert named == ["shipped", "newer", "old", "older", "empty, newest file"]


def newest_is_empty(world: World) -> None:
    """S01's copy is that of an empty database, and the newest by far."""
    copy, empty = world.disks["S01"] / "catalogue.sqlite", world.root / "empty.sqlite"
    world.run("generate_db.py", "--from-disks", "--dry-run", check=0)
    shutil.copy(world.db_path, empty)
    with closing(sqlite3.connect(empty)) as db:
        for table in ("copies", "files", "disk_events", "disks"):
            db.execute(f"DELETE FROM {table}")
        db.commit()
    shutil.copy(empty, copy)
    os.utime(world.disks["P01"] / "catalogue.sqlite", (1, 1))


def harmed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 8192)


def test_a_new_database_begins_with_the_richest_sound_copy_and_names_it(world: World) -> None:
    """Not with the newest file, nor with one that is damaged inside; from older programs, too."""
    filled(world)
    newest_is_empty(world)
    world.run_pass("hold", "--yes", "S02", "--why", "bad cable", check=0)
    richer = world.disks["P01"] / "catalogue.sqlite"
    shutil.copy(world.db_path, richer)
    asked = "SELECT serial, state, held_reason FROM disks ORDER BY serial"
    expected = [rows(world, query) for query in (FILES, COPIES, asked)]
    world.db_path.unlink()
    run = rebuilt(world, "--dry-run")
    said = f"It began with the copy that knows most, {richer}: 3 files, the newest archived 20"
    assert said in run.out
    assert not world.db_path.exists()
    assert said in rebuilt(world).out
    assert [rows(world, query) for query in (FILES, COPIES, asked)] == expected
    assert world.notices() == set()
    world.db_path.unlink()
    harmed(richer)
    run = rebuilt(world, "--json").json()
    assert run["begun_with"] == f"{world.disks['S01']}/catalogue.sqlite: 0 files"
    assert f"{richer} is not used, it is damaged inside: " in world.log()
    assert [rows(world, query) for query in (FILES, COPIES)] == expected[:2]
    beside = {name for name in os.listdir(world.db_path.parent) if "unfinished" in name}
    assert beside == set()


# --- a copy is never replaced by one that knows less --------------------------------------


@pytest.mark.parametrize("is_dry", [False, True])
def test_an_empty_database_never_replaces_a_copy_that_knows_more(
    world: World, is_dry: bool
) -> None:
    """It stays as it is, a notice says so, and a run that takes in what it knows ends that."""
    filled(world)
    world.run_pass("close", "--yes", "P01", check=0)
    world.run_pass("ship", "P01", check=0)
    shutil.copy(world.db_path, world.disks["S01"] / "catalogue.sqlite")
    os.utime(world.disks["S01"] / "catalogue.sqlite", (time.time() - 90_000,) * 2)
    of_p01 = [row for row in rows(world, COPIES) if row[1] == "P01"]
    assert len(of_p01) == 3
    gone = world.disks["P01"].rename(world.root / "gone")
    world.db_path.rename(world.root / "lost.sqlite")
    aside = (world.disks["S01"] / "catalogue.sqlite").rename(world.root / "copy.sqlite")
    rebuilt(world)  # 1.0.0, from the bags alone: nobody knows of P01
    shutil.move(aside, world.disks["S01"] / "catalogue.sqlite")
    os.utime(world.disks["S01"] / "catalogue.sqlite", (time.time() - 90_000,) * 2)
    known = world.snapshot(world.disks["S01"] / "catalogue.sqlite")
    world.generate()
    world.put("later.g3")
    world.run_pass()
    place = str(world.disks["S01"] / "catalogue.sqlite")
    assert known.differences(world.snapshot(Path(place))) == []
    assert ("database-error", place) in world.notices()
    ((text,),) = rows(world, f"SELECT text FROM notices WHERE key = '{place}'")
    assert text.startswith(
        f"{place} knows 0 files and 1 disks that the database does not know. It is kept. No file "
        "is lost."
    )
    run = rebuilt(world, *("--dry-run",) * is_dry)
    assert "Known by copies of the database on other disks: P01.\n" in run.out
    run = rebuilt(world)
    assert rows(world, GONE) == [("ZTP01AA", "shipped")]
    assert [row for row in rows(world, COPIES) if row[1] == "P01"] == of_p01
    assert rows(world, "SELECT count(*) FROM files WHERE archived_at IS NULL") == [(0,)]
    assert ("database-error", place) not in world.notices()
    world.put("latest.g3")
    world.run_pass(check=0)
    assert known.differences(world.snapshot(Path(place))) != []
    gone.rename(world.disks["P01"])
    world.leave_unchecked("a shipped disk was moved by hand")


def test_an_older_database_never_replaces_a_newer_copy(world: World) -> None:
    """Put back by a person: when a disk is closed its own copy is kept, too."""
    world.put("first.g3")
    world.generate()
    world.run_pass(check=0)
    older = world.db_path.read_bytes()
    world.put("second.g3")
    world.run_pass(check=0)
    shutil.copy(world.db_path, world.disks["P01"] / "catalogue.sqlite")
    known = world.snapshot(world.disks["P01"] / "catalogue.sqlite")
    world.db_path.write_bytes(older)
    os.utime(world.disks["P01"] / "catalogue.sqlite", (1, 1))
    known = world.snapshot(world.disks["P01"] / "catalogue.sqlite")
    world.put("third.g3")
    world.run_pass(check=0)
    place = str(world.disks["P01"] / "catalogue.sqlite")
    assert known.differences(world.snapshot(Path(place))) == []
    assert ("database-error", place) in world.notices()
    rebuilt(world)
    assert ("database-error", place) not in world.notices()
    assert len(rows(world, FILES)) == 3


# --- a tired person does what the screen says ---------------------------------------------


def follow_the_screen(world: World, said: str) -> Run:
    """Run the first generate_db.py that the text names, as it stands there."""
    found = re.search(r"generate_db\.py ((?:--config \S+ )?--\S+(?: --disk-map /\S+)?)", said)
    assert found, said
    args = shlex.split(found[1])
    return world.run("generate_db.py", *(args[2:] if args[0] == "--config" else args))


@pytest.mark.parametrize("begins_with", ["the screen", "the mail", "a new database"])
@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_tired_person_who_does_what_the_screen_says_has_the_archive_back(
    make_loop_world: Callable[..., LoopWorld],
    people: People,
    begins_with: str,
    is_fresh: bool,
) -> None:
    """Two disks were shipped, then the database is deleted: nothing that disks know is missing.

    Neither the screen nor the mail ever leads to an empty database, or to an emptied disk.
    """
    world = make_loop_world(primaries=("P01", "P02", "P03"), copies=("S01", "S02", "S03"))
    world.put("seed.g3", 2000)
    world.generate()
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        world.run_pass("close", "--yes", label, check=0)
    world.ship("P01", "S01")
    for label in ("P01", "S01"):
        world.loops[label].umount()
    world.put("on-p02.g3", 3000)
    world.run_pass(check=0)
    asked = (FILES, DISKS, COPIES, GONE)
    expected = [rows(world, query) for query in asked]
    if not is_fresh:  # the copies are older than the last files
        world.put("of-the-last-day.g3", 500)
        world.run_pass(check=0)
        expected = [rows(world, query) for query in asked]
    world.db_path.unlink()
    world.put("waits.g3", 100)
    trees = [world.snapshot(world.data(label)) for label in ("P02", "S02")]
    said = people.run(world, check=2).err
    if begins_with == "the mail":
        said = people.mails[-1].body
    elif begins_with == "a new database":
        said = world.generate(check=2).err
    assert not world.db_path.exists()
    run = follow_the_screen(world, said)
    assert run.code == 0, run
    assert "It began with the copy that knows most" in run.out
    assert [rows(world, query) for query in asked] == expected
    world.run_pass("check", check={0, 1})
    world.run_pass(check=0)
    assert world.waiting() == set()
    for tree in trees:
        kept = [each for each in tree.differences(world.snapshot(tree.root)) if "waits" not in each]
        assert [each for each in kept if "mtime changed" not in each] == []
    assert {kind for kind, _ in world.notices()} <= {"disk-closed"}
    for label in ("P01", "S01"):
        world.loops[label].mount()
