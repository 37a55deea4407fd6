"""generate_db.py: the database from a disk-map, a further disk set, and what is refused."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.other_users import AS_NOBODY, NOBODY, needs_root
from tests.helpers.world import CRON_ENVIRONMENT, REPO, Run, World

# Root may write everywhere; without its capabilities it is as anybody else.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
JSON_KEYS = ["label", "role", "serial", "logical_id", "device", "mounted", "writable"]

JSON_KEYS += ["capacity_bytes", "next_step"]


def generate_db(*args: str | Path, cwd: str | Path = "/", prefix: Sequence[str] = ()) -> Run:
    """Run the script as ``World.run`` does, but without a configuration."""
    result = subprocess.run(
        [*prefix, sys.executable, REPO / "generate_db.py", *args],
        cwd=cwd,
        env=CRON_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(result.returncode, result.stdout, result.stderr)


def drives(world: World) -> list[tuple[str, ...]]:
    """(label, role, serial, logical ID, state) of all drives in the database, in order."""
    query = "SELECT label, role, serial, logical_id, state FROM disks ORDER BY id"
    return [tuple(row) for row in world.sql(query)]


def write_map(world: World, *lines: str) -> None:
    world.disk_map_path.write_text("".join(f"{line}\n" for line in lines))


# --- making it, and adding to it ----------------------------------------------------------


def test_a_disk_map_becomes_a_database_of_spares(world: World) -> None:
    """Every line is a spare of its role, with its event; nothing touches the disks."""
    before = world.snapshot(world.mounts)
    run = world.generate()
    assert run.err == ""
    assert f"Database {world.db_path}: 4 drives added, 0 known." in run.out
    roles = {"P01": "primary", "P02": "primary", "S01": "copy", "S02": "copy"}
    assert drives(world) == [
        (label, role, world.serials[label], world.logical_id(label), "spare")
        for label, role in roles.items()
    ]
    assert {row["stand_in"] for row in world.sql("SELECT stand_in FROM disks")} == {1}
    assert len(world.sql("SELECT * FROM disk_events WHERE event = 'registered'")) == 4
    assert before.differences(world.snapshot(world.mounts)) == []
    assert os.listdir(world.db_path.parent) == [world.db_path.name]


def test_the_database_keeps_what_the_contract_says_of_sqlite(world: World) -> None:
    """Rollback journal and a schema version: any user can read it, any program can tell it."""
    world.generate()
    with closing(sqlite3.connect(world.db_path)) as db:
        asked = {
            pragma: db.execute(f"PRAGMA {pragma}").fetchone()[0]
            for pragma in ("journal_mode", "user_version", "integrity_check")
        }
    assert asked == {"journal_mode": "delete", "user_version": 3, "integrity_check": "ok"}


def test_the_same_map_again_adds_nothing(world: World) -> None:
    """A second run ends with 0 and leaves the file byte for byte as it is."""
    world.generate()
    before = world.snapshot(world.db_path.parent)
    assert "0 drives added, 4 known." in world.generate().out
    assert before.differences(world.snapshot(world.db_path.parent)) == []


def test_a_further_disk_set_is_added_and_what_was_known_stays(world: World) -> None:
    """New lines beside old ones, or alone, become spares; no known row changes."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    before = [tuple(row) for row in world.sql("SELECT * FROM disks ORDER BY id")]
    world.add_disk("P03")
    world.add_disk("S10")
    assert "2 drives added, 4 known." in world.generate().out
    write_map(world, "P11 ZTP11AA 0x5000c500aaaa0011")
    assert "1 drives added, 0 known." in world.generate().out
    after = [tuple(row) for row in world.sql("SELECT * FROM disks ORDER BY id")]
    assert after[:4] == before
    assert [(row[0], row[4]) for row in drives(world)[4:]] == [
        ("P03", "spare"),
        ("S10", "spare"),
        ("P11", "spare"),
    ]


@pytest.mark.parametrize("state", ["shipped", "lost"])
def test_a_label_is_free_once_its_drive_is_gone(world: World, state: str) -> None:
    """Labels start again at P01 with each season's set, and the old drive's row stays."""
    world.generate()
    world.sql("UPDATE disks SET state = ? WHERE label = 'P01'", state)
    world.add_disk("P01", "NEWSERIAL1")
    assert "1 drives added, 3 known." in world.generate().out
    found = [(serial, state) for label, _, serial, _, state in drives(world) if label == "P01"]
    assert found == [("ZTP01AA", state), ("NEWSERIAL1", "spare")]


@pytest.mark.parametrize("state", ["spare", "active", "closed"])
def test_a_label_is_not_free_while_its_drive_is_at_the_station(world: World, state: str) -> None:
    """Two drives with one sticker would be mixed up: both are named, nothing is written."""
    world.generate()
    world.sql("UPDATE disks SET state = ? WHERE label = 'P01'", state)
    before = world.snapshot(world.db_path.parent)
    world.add_disk("P01", "NEWSERIAL1")
    run = world.generate(check=2)
    assert run.out == ""
    assert f"label P01 belongs to the drive ZTP01AA ({state}), not to NEWSERIAL1" in run.err
    assert f"{world.disk_map_path}:1: " in run.err
    assert "Nothing was changed." in run.err
    assert before.differences(world.snapshot(world.db_path.parent)) == []


def test_a_printed_serial_is_the_beginning_of_the_one_a_drive_reports(world: World) -> None:
    """Either form is the same drive, if the logical ID says so too."""
    write_map(world, "P01 ZL22PHAL0000C0048NEQ 0x5000c500aaaa0001", "S01 ZL33 0x5000c500aaaa0002")
    world.generate()
    write_map(world, "P01 ZL22PHAL 0x5000c500aaaa0001", "S01 ZL33QQQQ0000 0x5000c500aaaa0002")
    assert "0 drives added, 2 known." in world.generate().out
    write_map(world, "P01 zl22phal 0x5000C500AAAA0001")
    assert "0 drives added, 1 known." in world.generate().out
    assert [row[2] for row in drives(world)] == ["ZL22PHAL0000C0048NEQ", "ZL33"]


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ours", "theirs"),
    [
        ("P07 ZTP01AA {id}", "ZTP01AA is P01, a spare.", "Correct line 3 of the disk-map."),
        ("P01 ZTP01AA 0x5000c500aaaa0001", "known as P01 with logical ID {id}", "not 0x5000c500aa"),
        ("P01 OTHER001 {id}", "ID {id} is known as P01 with serial ZTP01AA", "not OTHER001"),
        (
            "P07 ZTP01 0x5000c500aaaa0001",
            "ZTP01 is known as P01 with logical ID {id}",
            "not 0x5000",
        ),
        ("P02 OTHER001 0x5000c500aaaa0001", "label P02 belongs to the drive ZTP02AA", "OTHER001"),
    ],
)
def test_a_contradiction_names_both_sides_and_nothing_is_written(
    world: World, line: str, ours: str, theirs: str
) -> None:
    """File and line, what the database says and what the map says; a good line waits too."""
    world.generate()
    before = world.snapshot(world.db_path.parent)
    known_id = world.logical_id("P01")
    write_map(world, "# a further set", "P30 GOODONE1 0x5000c500aaaa0030", line.format(id=known_id))
    run = world.generate(check=2)
    assert run.out == ""
    (fault,) = run.err.splitlines()[:-1]
    assert fault.startswith(f"{world.disk_map_path}:3: ")
    assert ours.format(id=known_id) in fault and theirs in fault
    assert run.err.endswith("Nothing was changed.\n")
    assert before.differences(world.snapshot(world.db_path.parent)) == []


def test_all_contradictions_are_told_at_once(world: World) -> None:
    """A person mends the map in one go."""
    world.generate()
    write_map(
        world,
        "P01 OTHER001 0x5000c500aaaa0001",
        f"P05 ZTP02AA {world.logical_id('P02')}",
        f"S01 OTHER002 {world.logical_id('S01')}",
    )
    assert world.generate("--dry-run", check=2).out == ""
    said = world.generate(check=2).err.splitlines()
    for number, both in (
        (1, "OTHER001"),
        (2, "ZTP02AA is P02, a spare. A typo? Correct line 2 of the disk-map."),
        (3, "OTHER002"),
    ):
        place = f"{world.disk_map_path}:{number}: "
        assert any(line.startswith(place) and both in line for line in said)
    assert said[-1] == "Nothing was changed."


def test_serials_that_begin_one_another_are_ambiguous_in_one_map_too(world: World) -> None:
    """Which of the two a drive is could not be told later: refused before there is a database."""
    write_map(world, "P01 ZL22 0x5000c500aaaa0001", "S01 ZL22PHAL 0x5000c500aaaa0002")
    run = world.generate(check=2)
    assert "ZL22" in run.err and "ZL22PHAL" in run.err and "Nothing was changed." in run.err
    assert not world.db_path.exists()


def test_a_faulty_map_makes_no_database(world: World) -> None:
    """All its faults with file and line, and the directory stays empty."""
    write_map(world, "P01 A 0x5000c500aaaa0001", "P02 B", "Q01 C 0x5000c500aaaa0003", "S01 D 0x5")
    run = world.generate(check=2)
    assert run.out == ""
    for number, words in ((2, "has 2 columns"), (3, "Q01 has no role"), (4, "0x5 is malformed")):
        assert any(
            line.startswith(f"{world.disk_map_path}:{number}: ") and words in line
            for line in run.err.splitlines()
        )
    assert "Nothing was changed." in run.err
    assert os.listdir(world.db_path.parent) == []


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_a_file_that_is_not_ours_is_never_written_to(world: World, content: bytes) -> None:
    """Somebody's file under the database's name is named and left."""
    world.db_path.write_bytes(content)
    world.leave_unchecked("there is no database of ours")
    before = world.snapshot(world.db_path.parent)
    run = world.generate(check=2)
    assert str(world.db_path) in run.err and "Nothing was changed." in run.err
    assert before.differences(world.snapshot(world.db_path.parent)) == []


@pytest.mark.parametrize("where", ["missing/pole.sqlite", "closed/pole.sqlite"])
def test_a_database_that_can_not_be_made_is_a_fault_of_usage(tmp_path: Path, where: str) -> None:
    """No such directory, or one this user may not write to: exit 2 names it, and what next."""
    (tmp_path / "closed").mkdir(mode=0o555)
    run = generate_db(
        "--db", tmp_path / where, "--disk-map", REPO / "disk-map-test", prefix=POWERLESS
    )
    assert (run.code, run.out) == (2, ""), run
    assert str((tmp_path / where).parent) in run.err
    assert "Nothing was changed." in run.err
    assert "stays in the buffer" not in run.err  # there is no pass here
    assert os.listdir(tmp_path) == ["closed"]


def test_usage_is_refused_before_anything_is_read(world: World) -> None:
    """No default map; --db and --config exclude each other; a map must be there."""
    run = world.run("generate_db.py", check=2)
    assert "--disk-map" in run.err and run.out == ""
    run = world.generate("--db", str(world.root / "other.sqlite"), check=2)
    assert "--db" in run.err and "--config" in run.err and "Nothing was changed." in run.err
    run = world.run("generate_db.py", "--disk-map", "/nowhere/disk-map", check=2)
    assert "/nowhere/disk-map: can't be read (No such file or directory)" in run.err
    assert os.listdir(world.db_path.parent) == []
    assert not (world.root / "other.sqlite").exists()


# --- without a configuration, and without writing -----------------------------------------


def test_db_names_the_database_without_a_configuration(tmp_path: Path) -> None:
    """``--db FILE`` is made where it says, also below the working directory and with odd names."""
    for name in ("station.sqlite", "a#b?c %41.sqlite"):
        run = generate_db("--db", name, "--disk-map", REPO / "disk-map", cwd=tmp_path)
        assert (run.code, run.err) == (0, "")
        assert f"Database {name}: 70 drives added, 0 known." in run.out
    assert sorted(os.listdir(tmp_path)) == ["a#b?c %41.sqlite", "station.sqlite"]
    again = generate_db("--db", "station.sqlite", "--disk-map", REPO / "disk-map", cwd=tmp_path)
    assert "0 drives added, 70 known." in again.out


def test_a_dry_run_writes_nothing_at_all(world: World) -> None:
    """Neither a database, nor a row in one that is there; it says what would be."""
    run = world.generate("--dry-run")
    assert "4 drives would be added, 0 known." in run.out
    assert "nothing was written" in run.out
    assert os.listdir(world.db_path.parent) == []
    world.generate()
    world.add_disk("P03")
    before = world.snapshot(world.root)
    assert "1 drives would be added, 4 known." in world.generate("--dry-run").out
    assert before.differences(world.snapshot(world.root)) == []


# --- what it prints -----------------------------------------------------------------------


def test_the_table_says_which_drives_are_ready_and_the_command_for_the_others(world: World) -> None:
    """A stand-in that is missing gets its mkdir; run as printed, it makes the drive ready."""
    world.disks["P02"].rmdir()
    lines = world.generate().out.splitlines()
    heads = "label role serial logical ID device mounted writable capacity"
    assert lines[1].split() == heads.split()
    rows = {line.split()[0]: line.split() for line in lines[2:6]}
    place = str(world.disks["P01"])
    assert rows["P01"][:7] == (
        ["P01", "primary", "ZTP01AA", world.logical_id("P01"), "-", place, "yes"]
    )
    assert rows["P02"][:4] == ["P02", "primary", "ZTP02AA", world.logical_id("P02")]
    assert rows["P02"][4:] == ["-", "no", "-", "-"]
    assert lines[6:] == ["3 of 4 drives are ready.", f"P02: mkdir -p {world.disks['P02']}"]
    subprocess.run(lines[-1].removeprefix("P02: "), shell=True, check=True)
    assert world.generate().out.splitlines()[-1] == "4 of 4 drives are ready."


def _not_empty(world: World) -> str:
    (world.disks["P02"] / "holiday.jpg").write_bytes(b"?")
    place = world.disks["P02"]
    return f"it should be empty, but {place} holds holiday.jpg. Compare its serial number"


def _held(world: World) -> str:
    world.run_pass("hold", "--yes", "P02", "--why", "it rattles", check=0)
    return "it is held by a person: it rattles. When it is well: data_manager.py unhold P02"


def _another_drives_mark(world: World) -> str:
    world.run_pass(check=0)
    place = world.disks["P02"]
    shutil.copytree(world.disks["P01"], place, dirs_exist_ok=True)
    return f"the mark at {place} says P01, serial ZTP01AA, "


@pytest.mark.parametrize("harm", [_not_empty, _held, _another_drives_mark])
def test_a_disk_that_check_finds_fault_with_is_not_called_ready(
    world: World, harm: Callable[[World], str]
) -> None:
    """Though it is mounted, and writable: the table says what ``check`` would."""
    world.generate()
    world.put("a.g3")
    said = harm(world)
    world.leave_unchecked("the test harmed the station")
    lines = world.generate().out.splitlines()
    assert lines[6] == "3 of 4 drives are ready."
    assert lines[7].startswith(f"P02: {said}")
    assert lines[8:] == []
    assert f"FAULT {lines[7]}" in world.run_pass("check", check=1).out


def test_a_drive_that_is_not_there_is_to_be_inserted(world: World) -> None:
    """For real drives a bare directory is no mount: the serial to look for is named."""
    world.configure(RequireMount="yes")
    lines = world.generate().out.splitlines()
    assert lines[2].split()[4:] == ["-", "no", "-", "-"]
    assert lines[6] == "0 of 4 drives are ready."
    assert lines[7] == "P01: insert the drive ZTP01AA"
    assert {row["stand_in"] for row in world.sql("SELECT stand_in FROM disks")} == {0}


@pytest.fixture
def open_world() -> Iterator[World]:
    """A station in a directory that every user gets through to, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="pole-") as directory:
        os.chmod(directory, 0o755)
        station = World(Path(directory))
        try:
            yield station
        finally:
            station.close()


@needs_root
def test_a_disk_that_the_cron_user_may_not_write_to_gets_the_command_that_helps(
    open_world: World,
) -> None:
    """Another owner: chown. The right owner but closed to it: chmod, for chown would not help."""
    for path in (open_world.db_path.parent, *open_world.disks.values()):
        os.chown(path, NOBODY, NOBODY)
    os.chown(open_world.disks["P01"], 0, 0)
    open_world.disks["P02"].chmod(0o555)
    args = ["--disk-map", str(open_world.disk_map_path)]
    lines = open_world.run("generate_db.py", *args, check=0, prefix=AS_NOBODY).out.splitlines()
    assert [line.split()[6] for line in lines[2:6]] == ["no", "no", "yes", "yes"]
    chown, chmod = lines[7:]
    for label, line in (("P01", chown), ("P02", chmod)):
        place = open_world.disks[label]
        owner = pwd.getpwuid(NOBODY).pw_name
        give = f"sudo chown -R {owner}: {place} && sudo chmod -R u+rwX {place}"
        assert line == f"{label}: {give}"


def test_json_has_stable_keys(world: World) -> None:
    """``--json`` prints the table for programs, and nothing else."""
    world.disks["S02"].rmdir()
    rows = world.generate("--json").json()
    assert [list(row) for row in rows] == [JSON_KEYS] * 4
    assert [row["label"] for row in rows] == ["P01", "P02", "S01", "S02"]
    assert rows[0]["mounted"] == str(world.disks["P01"])
    assert (rows[0]["writable"], rows[0]["next_step"]) == ("yes", "")
    assert rows[0]["capacity_bytes"] > 0
    assert rows[3]["next_step"] == f"mkdir -p {world.disks['S02']}"
    assert rows[3]["capacity_bytes"] is None


def test_quiet_prints_nothing_but_faults(world: World) -> None:
    """``--quiet`` for scripts: the exit code says it all."""
    run = world.generate("--quiet")
    assert (run.out, run.err) == ("", "")
    world.add_disk("P01", "NEWSERIAL1")
    assert "NEWSERIAL1" in world.generate("--quiet", check=2).err


# --- interrupted, and shipped -------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize(
    ("calls", "number"),
    [
        ("?link,?linkat", 1),  # it is committed, and has no name yet
        ("?unlink,?unlinkat", 2),  # it has its name, and no drives
        ("fdatasync", 9),  # the drives are written, not committed
        ("?unlink,?unlinkat", 3),  # the journal lies beside it
    ],
)
def test_a_killed_run_is_simply_run_again(world: World, calls: str, number: int) -> None:
    """SIGKILL at any step: what has the database's name is whole, and the next run ends it."""
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}"]
    prefix = ["strace", "-f", "-qq", "-o", "/dev/null", *inject]
    args = ["--disk-map", str(world.disk_map_path)]
    run = world.run("generate_db.py", *args, prefix=prefix)
    assert run.code in (-signal.SIGKILL, 128 + signal.SIGKILL), run
    if world.db_path.exists():
        assert drives(world) == []
    world.generate()
    assert [row[0] for row in drives(world)] == ["P01", "P02", "S01", "S02"]


def test_the_shipped_maps_make_databases(tmp_path: Path) -> None:
    """disk-map is the season's set of 70 drives, its first line the one real drive."""
    text = (REPO / "disk-map").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 70
    assert lines[0] == "P01 ZA12JCHM 0x5000c500858bfea7"
    labels = [line.split()[0] for line in lines]
    wanted = [f"P{number:02}" for number in range(1, 43)]
    assert labels == wanted + [f"S{number:02}" for number in range(1, 29)]
    for name, count in (("disk-map", 70), ("disk-map-test", 5)):
        run = generate_db("--db", tmp_path / f"{name}.sqlite", "--disk-map", REPO / name)
        assert (run.code, run.err) == (0, "")
        assert f"{count} drives added, 0 known." in run.out
