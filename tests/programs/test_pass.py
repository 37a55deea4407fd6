"""One pass, end to end, by the real script with cron's environment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import bagit
import pytest

from poledata import db
from poledata.archive import run
from poledata.archive.batch import Batches
from poledata.archive.pass_state import Watcher
from poledata.config import load
from tests.helpers.halted import HaltedPass, needs_strace
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.world import MARKER, World

MIB = 1 << 20
NAME = "fullrate/RCW38/80296951/0000.g3"
# Runs a command and writes the most memory (KiB) that it had at any time to the file named first.
# A process of its own: what the tests' own process has would be counted with the child's.
MEASURED = (
    sys.executable,
    "-c",
    "import os, pathlib, sys\n"
    "pid = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])\n"
    "_, status, usage = os.wait4(pid, 0)\n"
    "pathlib.Path(sys.argv[1]).write_text(str(usage.ru_maxrss))\n"
    "sys.exit(os.waitstatus_to_exitcode(status))",
)


def test_every_settled_file_is_archived_twice_and_leaves_the_buffer(world: World) -> None:
    """A pass puts each finished file on a primary and a copy disk and removes it."""
    names = {"fullrate/RCW38/80296951/0000.g3", "downsampled/RCW38/80296951/0000.g3", "a.g3"}
    for number, name in enumerate(sorted(names)):
        world.put(name, 5_000_000 + number)
    world.generate()
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == set()
    assert world.archived("P01") == world.archived("S01") == names
    assert world.archived("P02") == world.archived("S02") == set()


def test_real_disks_are_filled_the_same_way(loop_world: LoopWorld) -> None:
    """On loop-mounted XFS and ext4, copies are read back with O_DIRECT."""
    loop_world.put("fullrate/RCW38/80296951/0000.g3", 5_000_001)
    loop_world.put("fullrate/RCW38/80296951/0001.g3", 0)
    loop_world.generate()
    loop_world.run_pass(check=0)
    assert loop_world.waiting() == set()
    assert [tuple(r) for r in loop_world.sql("SELECT DISTINCT verified_by FROM copies")] == [
        ("direct",)
    ]
    assert loop_world.disk_states() == {
        "P01": "active",
        "P02": "spare",
        "S01": "active",
        "S02": "spare",
    }


# --- what is archived, and how --------------------------------------------------------------


def test_the_oldest_file_goes_first(world: World) -> None:
    """By modification time, then by name: on both disks in this order."""
    ages = {"a/2.g3": 300, "b/1.g3": 500, "z/0.g3": 900, "c.g3": 300, "a/1.g3": 100}
    for name, age_s in ages.items():
        world.put(name, 1000, mtime_s=1_600_000_000 - age_s)
    world.generate()
    world.run_pass(check=0)
    oldest_first = ["z/0.g3", "b/1.g3", "a/2.g3", "c.g3", "a/1.g3"]
    assert list(world.manifest("P01")) == list(world.manifest("S01")) == oldest_first


def test_permission_bits_and_modification_time_are_kept(world: World) -> None:
    """To the nanosecond; and whoever owns a copy may always read it."""
    modes = [0o644, 0o600, 0o444, 0o755, 0o666, 0o220, 0o4755, 0o2644, 0o1644]
    modes += [0o000] if os.geteuid() == 0 else []
    for number, mode in enumerate(modes):
        world.put(f"{number}.g3", 1000 + number, mode=mode | 0o400)
        path = world.buffer / f"{number}.g3"
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 - number))
        if os.geteuid() == 0:
            path.chmod(mode)
    world.generate()
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        for number, mode in enumerate(modes):
            info = (world.data(label) / f"{number}.g3").stat()
            assert info.st_mtime_ns == 1_600_000_000_123_456_789 - number
            assert info.st_mode & 0o7777 == mode & 0o777 | 0o400


def test_the_same_basename_in_many_directories_is_many_files(world: World) -> None:
    """0000.g3 recurs in every observation: nothing is keyed on it."""
    names = {
        f"{rate}/{source}/{observation}/0000.g3"
        for rate in ("fullrate", "downsampled")
        for source in ("RCW38", "ra0hdec-44.75")
        for observation in (80296951, 80296952)
    }
    names.add("0000.g3")
    sizes = {name: 1000 + number for number, name in enumerate(sorted(names))}
    for name, size_bytes in sizes.items():
        world.put(name, size_bytes)
    world.generate()
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        assert {n: (world.data(label) / n).stat().st_size for n in names} == sizes
    assert len(set(world.manifest("P01").values())) == len(names)


def test_directories_stay_in_the_buffer(world: World) -> None:
    """Empty before or since: the telescope owns them. None is made on a disk for nothing."""
    world.put(NAME, 1000)
    (world.buffer / "fullrate/RCW38/80296952").mkdir()
    directories = {path for path in world.buffer.rglob("*") if path.is_dir()}
    world.generate()
    world.run_pass(check=0)
    assert set(world.buffer.rglob("*")) - {world.buffer / MARKER} == directories
    assert not (world.data("P01") / "fullrate/RCW38/80296952").exists()


def test_two_names_of_one_file_are_both_archived_and_both_removed(world: World) -> None:
    """Removing one hard link alters the other's ctime: that one is looked at once more."""
    world.put("a.g3", 5000)
    os.link(world.buffer / "a.g3", world.buffer / "b.g3")
    world.ledger.saw("b.g3")
    world.generate()
    world.run_pass(check={0, 1})
    assert world.archived("P01") == world.archived("S01") == {"a.g3", "b.g3"}
    assert world.waiting() <= {"b.g3"}
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.sql("SELECT * FROM pending") == []
    assert world.notices() == set()


def test_hundreds_of_small_files_are_each_archived_by_themselves(loop_world: LoopWorld) -> None:
    """Written, flushed and read back in groups, in order, with a line and a row for each."""
    names = [f"obs{number % 7}/{number:04}.g3" for number in range(300)]
    for number, name in enumerate(names):
        loop_world.put(name, number * 13, mtime_s=1_600_000_000 + number)
    loop_world.generate()
    loop_world.run_pass(check=0)
    assert loop_world.waiting() == set()
    assert list(loop_world.manifest("P01")) == list(loop_world.manifest("S01")) == names
    (row,) = loop_world.sql("SELECT files_archived, bytes_archived, files_failed FROM passes")
    assert tuple(row) == (300, sum(range(300)) * 13, 0)


def test_odd_sizes_are_whole_on_the_medium(make_loop_world: Callable[..., LoopWorld]) -> None:
    """Around every boundary of direct I/O: block, smallest direct file, chunk, group."""
    sizes = {edge + odd for edge in (4096, MIB, 4 * MIB) for odd in (-1, 0, 1)}
    sizes |= {0, 1, 511, 8 * MIB, 64 * MIB + 1}
    loop_world = make_loop_world(("P01",), ("S01",), size_mb=160)
    for size_bytes in sizes:
        loop_world.put(f"{size_bytes}.g3", size_bytes)
    loop_world.generate()
    loop_world.run_pass(check=0)
    assert loop_world.waiting() == set()
    for label in ("P01", "S01"):
        assert {p.stat().st_size for p in loop_world.data(label).iterdir()} == sizes
    assert [r[0] for r in loop_world.sql("SELECT DISTINCT verified_by FROM copies")] == ["direct"]


# --- which disks ---------------------------------------------------------------------------


def test_the_next_primary_is_taken_when_one_is_full_and_the_copy_side_goes_on(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Each role fills on its own: at every step a file is archived, or in the buffer."""
    station = make_loop_world((), ("S01", "S02"), size_mb=96)
    for label in ("P01", "P02", "P03"):
        station.add_disk(label)
        station.plug_in(label, size_mb=16, fs="ext4")
    station.generate()
    names = set()
    for step in range(3):
        batch = {f"obs{step}/{number:04}.g3" for number in range(9)}
        for name in sorted(batch):
            station.put(name, MIB + 1)
        names |= batch
        station.run_pass(check=0)
        station.check()
        assert station.waiting() == set()
        assert station.archived("S01") == names
    on_primaries = [station.archived(label) for label in ("P01", "P02", "P03")]
    assert set().union(*on_primaries) == names
    assert sum(map(len, on_primaries)) == len(names)
    assert [bool(held) for held in on_primaries] == [True, True, True]
    assert station.archived("S02") == set()
    assert {kind for kind, _ in station.notices()} <= {"disk-closed"}


def test_a_disk_set_that_is_full_keeps_the_rest_in_the_buffer(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """What finds no place waits, unharmed, and a person is told; a new disk takes it."""
    station = make_loop_world(("P01",), ("S01",), size_mb=16, primary_fs="ext4")
    station.add_disk("P02")
    station.disks["P02"].rmdir()
    station.generate()
    names = {f"obs/{number:04}.g3" for number in range(20)}
    for name in sorted(names):
        station.put(name, MIB + 1)
    station.run_pass(check=1)
    waits = station.waiting()
    assert waits
    assert names - waits == {
        row["name"]
        for row in station.sql("SELECT name FROM files WHERE removed_from_buffer_at NOT NULL")
    }
    assert ("no-disk", "primary") in station.notices()
    station.check()


def test_a_manifest_grows_by_one_line_a_file(world: World) -> None:
    """A line that was written is never touched again."""
    for name in ("b.g3", "a.g3"):
        world.put(name, 1000)
    world.generate()
    world.run_pass(check=0)
    before = (world.disks["P01"] / "manifest-sha512.txt").read_bytes()
    world.put("0.g3", 1000)
    world.put("a.g3", 1000)  # comes again
    world.run_pass(check=0)
    after = (world.disks["P01"] / "manifest-sha512.txt").read_bytes()
    assert after.startswith(before)
    assert after[len(before) :].count(b"\n") == 1
    assert list(world.manifest("P01"))[2:] == ["0.g3"]


# --- DeleteFromBuffer = no ------------------------------------------------------------------


def test_files_are_kept_where_they_are_not_to_be_deleted(world: World) -> None:
    """Archived once; later passes do nothing; once they may, they remove on full proof."""
    world.configure(DeleteFromBuffer="no")
    world.generate()
    world.run_pass(check=0)  # the buffer gets its marker
    for name in (NAME, "a.g3"):
        world.put(name, 2000)
    buffer = world.snapshot(world.buffer)
    world.run_pass(check=0)
    assert world.archived("P01") == world.archived("S01") == {NAME, "a.g3"}
    disks, database = world.snapshot(world.mounts), world.db_path.read_bytes()
    for _ in range(2):
        world.run_pass(check=0)
        world.check(must_be_untouched=[buffer, disks])
        assert world.db_path.read_bytes() == database
    world.configure(DeleteFromBuffer="yes")
    world.run_pass(check=0)
    assert world.waiting() == set()
    world.check(must_be_untouched=[disks])
    assert world.sql("SELECT name FROM files WHERE removed_from_buffer_at IS NULL") == []


def test_a_pass_with_nothing_to_do_writes_nothing(world: World) -> None:
    """Cron starts one every minute: no row, no log line, nothing printed."""
    world.put(NAME, 2000)
    world.generate()
    world.run_pass(check=0)
    disks, database, log = world.snapshot(world.mounts), world.db_path.read_bytes(), world.log()
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    world.check(must_be_untouched=[disks])
    assert (world.db_path.read_bytes(), world.log()) == (database, log)


# --- interrupted, and two at a time ---------------------------------------------------------


@needs_strace
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_pass_ends_cleanly_and_the_next_one_finishes(
    world: World, number: signal.Signals
) -> None:
    """In mid-copy: exit 130, silently; what is not published is cleared away."""
    names = {f"obs/{count}.g3" for count in range(4)}
    for name in sorted(names):
        world.put(name, 9 * MIB)
    world.generate()
    halted = HaltedPass(world, "preadv,preadv2", [world.buffer / "obs/2.g3"])
    halted.signal(number)
    halted.go_on(check=130)
    assert world.waiting() == names
    for label in ("P01", "S01"):
        assert os.listdir(world.disks[label] / ".incoming") == []
        assert world.archived(label) == set()
    world.check(finished=True)
    assert [row["outcome"] for row in world.sql("SELECT outcome FROM passes")] == ["interrupted"]
    assert world.sql("SELECT * FROM pending") == []
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") == world.archived("S01") == names
    assert world.notices() == set()


@needs_strace
def test_a_pass_that_finds_another_at_work_leaves_at_once(world: World) -> None:
    """Exit 0, nothing printed, nothing touched; and ``status`` can be asked meanwhile."""
    world.put(NAME, 9 * MIB)
    world.generate()
    halted = HaltedPass(world, "preadv,preadv2", [world.buffer / NAME])
    before = world.snapshot(world.mounts), world.db_path.read_bytes(), world.log()
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    assert (world.snapshot(world.mounts), world.db_path.read_bytes(), world.log()) == before
    assert world.status("--json", check=0).json()["buffer"]["finished_files"] == 1
    halted.go_on(check=0)
    assert world.waiting() == set()


# --- memory ---------------------------------------------------------------------------------


def peak_mb(world: World, name: str, size_bytes: int) -> float:
    """What a pass needs at most to archive one file (sparse: the reading is as long)."""
    path = world.buffer / name
    path.touch()
    os.truncate(path, size_bytes)
    world.ledger.saw(name)
    measured = world.root / "ru_maxrss"
    world.run_pass(prefix=[*MEASURED, str(measured)], check=0)
    assert world.waiting() == set()
    return int(measured.read_text()) * 1024 / 1e6


def test_memory_does_not_grow_with_the_size_of_a_file(world: World) -> None:
    """Below 150 MB, and as much for 600 MB as for 60 MB."""
    world.generate()
    small = peak_mb(world, "small.g3", 60_000_000)
    large = peak_mb(world, "large.g3", 600_000_000)
    assert large < 150
    assert abs(large - small) < 15


# --- what others read -----------------------------------------------------------------------


def test_file_locations_tells_where_each_file_is(world: World) -> None:
    """One row a file, for whoever asks with plain SQL."""
    entries = [world.put(NAME, 3000), world.put("a.g3", 0)]
    world.generate()
    world.run_pass(check=0)
    rows = world.sql("SELECT * FROM file_locations ORDER BY size_bytes DESC")
    assert [tuple(row)[:-1] for row in rows] == [
        (entry.name, entry.size_bytes, entry.sha512, "P01", "ZTP01AA", "S01", "ZTS01AA")
        for entry in entries
    ]
    assert rows[0].keys() == [
        "name",
        "size_bytes",
        "sha512",
        "primary_label",
        "primary_serial",
        "copy_label",
        "copy_serial",
        "archived_at",
    ]
    (archived_at,) = {row["archived_at"] for row in rows}
    assert world.sql("SELECT datetime(?) IS NOT NULL", archived_at)[0][0] == 1
    assert archived_at.endswith("Z")


def bag_info(disk: Path) -> dict[str, str]:
    lines = (disk / "bag-info.txt").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize(("label", "role"), [("P01", "primary"), ("S01", "copy")])
def test_a_disk_in_use_is_a_bag_that_says_who_it_is(world: World, label: str, role: str) -> None:
    """RFC 8493's own reader takes it, and a person finds a README."""
    world.put(NAME, 3000)
    world.generate()
    world.run_pass(check=0)
    disk = world.disks[label]
    declared = (disk / "bagit.txt").read_bytes()
    assert declared == b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    info = bag_info(disk)
    assert info["Pole-Label"] == info["External-Identifier"] == label
    assert info["Pole-Role"] == role
    assert info["Pole-Serial"] == world.serials[label]
    assert info["Pole-Logical-ID"] == world.logical_id(label)
    assert info["Pole-Stand-In"] == "yes"
    assert info["Pole-Opened"].startswith(info["Bagging-Date"])
    readme = (disk / "README.txt").read_text()
    for part in (label, world.serials[label], "sha512sum -c", "manifest-sha512.txt"):
        assert part in readme
    bag = bagit.Bag(str(disk))
    bag.validate()
    assert list(bag.payload_files()) == [f"data/{NAME}"]
    assert (disk / "manifest-sha512.txt").stat().st_mode & 0o777 == 0o644


def test_a_disk_that_was_never_used_is_left_empty(world: World) -> None:
    """A spare gets its mark when the first file needs it, not before."""
    world.generate()
    world.run_pass(check=0)
    assert [os.listdir(disk) for disk in world.disks.values()] == [[], [], [], []]
    world.put(NAME, 3000)
    world.run_pass(check=0)
    assert os.listdir(world.disks["P02"]) == os.listdir(world.disks["S02"]) == []


def test_a_pause_during_a_pause_says_what_was_and_what_is_set(world: World) -> None:
    """So that nobody ends another person's work by mistake."""
    world.generate()
    first = world.run_pass("pause", "--why", "the rack is open", check=0)
    assert first.out.startswith("Paused until somebody resumes: data_manager.py resume.\n")
    second = world.run_pass("pause", "--why", "a short one", "--for", "1h", check=0)
    was, now, _ = second.out.splitlines()
    before = "until somebody resumes: data_manager.py resume: the rack is open."
    assert was == f"It was paused before, {before}"
    assert now.startswith("Paused now until 20")
    world.run_pass("resume", check=0)


def test_a_part_of_the_buffer_is_never_taken_for_all_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later scan that finds nothing more says nothing of the files before it."""
    world.generate()
    for name in ("a%.g3", "b.g3"):
        world.put(name)
    real = Batches.work_through

    def and_one_leaves(self: Batches, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        (world.buffer / "b.g3").unlink(missing_ok=True)

    monkeypatch.setattr(Batches, "work_through", and_one_leaves)
    monkeypatch.setattr(run, "SCAN_FILES", 1)
    with db.connect(world.db_path) as conn:
        tally = run.run_pass(load(world.config_path, {}), conn, threading.Event(), Watcher())
    world.ledger.withdraw("b.g3", "the test removed it")
    assert (tally.pending_files, tally.idle_scan) == (1, None)
