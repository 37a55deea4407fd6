"""What is wrong with the world around a pass: each a plain message, an exit code, nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from poledata.archive.buffer import MARKER
from tests.helpers.invariants import Snapshot
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.other_users import POWERLESS
from tests.helpers.stations import IMPATIENT, inode_and_times, notice_text, try_at_once
from tests.helpers.world import Run, World

NAME = "fullrate/RCW38/80296951/0000.g3"
LOGGED = r"(db/)?data_manager\.log( appeared|: )|(db|\.): mtime changed$"


def assert_refused(run: Run, *parts: str) -> None:
    """Exit 2, nothing on standard output, and these words for the person."""
    assert (run.code, run.out) == (2, ""), run
    for part in (*parts, "Nothing was "):
        assert part in run.err, (part, run.err)
    assert "Traceback" not in run.err


def assert_only_logged(world: World, before: Snapshot) -> None:
    """Nothing was changed, except that a log was begun or goes on."""
    found = before.differences(world.snapshot(world.root))
    assert [one for one in found if not re.match(LOGGED, one)] == []


# --- the configuration --------------------------------------------------------------------


def _remove_config(world: World) -> None:
    world.config_path.unlink()


def _make_it_a_directory(world: World) -> None:
    world.config_path.unlink()
    world.config_path.mkdir()


def _lock_config(world: World) -> None:
    world.config_path.chmod(0o000)


def _misspell_a_key(world: World) -> None:
    world.configure(SetleTime="5 s")


def _drop_a_key(world: World) -> None:
    world.configure(Extension=None)


def _make_three_faults(world: World) -> None:
    world.configure(Extension=None, SettleTime="soon", MinFreSpace="10 GB")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_remove_config, ["can't be read (No such file or directory)", "--config"]),
        (_make_it_a_directory, ["station.config: ", "name another"]),
        (_lock_config, ["can't be read (Permission denied)", "--config"]),
        (_misspell_a_key, ["SetleTime: line", "unknown key", "nearest known one is SettleTime"]),
        (_drop_a_key, ["Extension: is missing", "add a line Extension = "]),
        (
            _make_three_faults,
            ["Extension: is", "SettleTime: ", '"soon"', "known one is MinFreeSpa"],
        ),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_faulty_configuration_stops_everything_before_anything_is_touched(
    world: World, spoil: Callable[[World], None], parts: list[str]
) -> None:
    """Exit 2 names the file, each faulty key and what would be right; only the log says so, too."""
    world.put(NAME)
    spoil(world)
    before = world.snapshot(world.root)
    run = world.run_pass(prefix=POWERLESS)
    assert_refused(run, str(world.config_path), *parts)
    assert_only_logged(world, before)


def test_every_command_refuses_a_faulty_configuration(world: World) -> None:
    """``status`` and generate_db.py say the same as a pass does, and make no database."""
    _make_three_faults(world)
    before = world.snapshot(world.root)
    for run in (world.run_pass("--dry-run"), world.status(), world.generate(check=None)):
        assert_refused(run, "Extension", "SettleTime", "MinFreSpace")
    assert before.differences(world.snapshot(world.root)) == []


def test_a_buffer_that_is_missing_is_said_and_nothing_is_made_in_its_place(world: World) -> None:
    """When the buffer's file system is not mounted, a pass ends with 2 and names the key."""
    world.generate()
    world.buffer.rmdir()
    before = world.snapshot(world.root)
    assert_refused(world.run_pass(), "BufferLocation", str(world.buffer), "No such file")
    assert_only_logged(world, before)


@pytest.mark.parametrize("where", ["spt_disks/P01/data", "."])
def test_a_buffer_on_a_disk_is_refused(world: World, where: str) -> None:
    """Buffer and disks within one another would archive the archive: exit 2."""
    world.put(NAME)
    world.generate()
    world.data("P01").mkdir()
    world.configure(BufferLocation=str(world.root / where))
    before = world.snapshot(world.root)
    assert_refused(world.run_pass(), "BufferLocation", "keep them apart")
    assert_only_logged(world, before)


def test_stand_ins_and_drives_never_share_a_database(world: World) -> None:
    """A database of stand-ins is refused once real mounts are required."""
    world.put(NAME)
    world.generate()
    world.configure(RequireMount="yes")
    before = world.snapshot(world.mounts), world.snapshot(world.buffer)
    for run in (world.run_pass(), world.run_pass("--dry-run"), world.generate(check=None)):
        assert_refused(run, "RequireMount", str(world.db_path), "stand-ins")
    assert before == (world.snapshot(world.mounts), world.snapshot(world.buffer))


# --- the database -------------------------------------------------------------------------


def _no_database(path: Path) -> None:
    path.unlink()


def _an_empty_file(path: Path) -> None:
    path.write_bytes(b"")


def _a_text_file(path: Path) -> None:
    path.write_text("the winterovers' shopping list\n" * 100)


def _somebody_elses(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE disks (label TEXT)")


def _a_newer_one(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def _a_locked_up_one(path: Path) -> None:
    path.chmod(0o000)


@pytest.mark.parametrize(
    ("replace", "parts"),
    [
        (
            _no_database,
            ["there is no database", "do not make a new one: generate_db.py --from-disks"],
        ),
        (_an_empty_file, ["was not made by generate_db.py", "FilenameDB", "see database-error"]),
        (_a_text_file, ["not an SQLite database", "FilenameDB"]),
        (_somebody_elses, ["was not made by generate_db.py", "FilenameDB"]),
        (_a_newer_one, ["version 99 is newer", "Run the newer program"]),
        (_a_locked_up_one, ["can't be opened (Permission denied)", "permissions"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_database_that_is_not_ours_is_refused_and_left_as_it_is(
    world: World, replace: Callable[[Path], None], parts: list[str]
) -> None:
    """A pass and ``status`` end with 2 and say what, where and what next."""
    world.put(NAME)
    world.generate()
    replace(world.db_path)
    world.leave_unchecked("its database is not ours")
    before = world.snapshot(world.buffer), world.snapshot(world.mounts)
    database = world.snapshot(world.db_path) if world.db_path.exists() else None
    for args in ([], ["status"], ["verify"]):
        assert_refused(world.run_pass(*args, prefix=POWERLESS), str(world.db_path), *parts)
    assert before == (world.snapshot(world.buffer), world.snapshot(world.mounts))
    assert database == (world.snapshot(world.db_path) if world.db_path.exists() else None)


@contextmanager
def locked(world: World, how: str) -> Iterator[None]:
    """Another process's transaction, as SQLite's file locks show it."""
    with closing(sqlite3.connect(world.db_path, isolation_level=None)) as db:
        db.execute(f"BEGIN {how}")
        yield
        db.rollback()


def test_a_locked_database_is_waited_for_and_then_reported(world: World) -> None:
    """A pass that can't register copies no file, ends with 1, and the next one goes on."""
    world.put(NAME)
    world.generate()
    for how in ("EXCLUSIVE", "IMMEDIATE"):
        with locked(world, how):
            began_at = time.monotonic()
            run = world.run_pass(check=1, prefix=IMPATIENT)
            assert time.monotonic() - began_at >= 0.6
        assert (run.out, run.err) == ("", "")
        for part in (str(world.db_path), "locked for 1 s", "stays in the buffer", "operators.md"):
            assert part in world.log().splitlines()[-1]
        assert world.waiting() == {NAME}
    assert world.archived("P01") == world.archived("S01") == set()
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_status_says_that_the_database_is_locked(world: World) -> None:
    """Somebody reads what ``status`` prints: there the sentence goes to the screen."""
    world.generate()
    with locked(world, "EXCLUSIVE"):
        run = world.run_pass("status", check=1, prefix=IMPATIENT)
    assert run.out == ""
    assert f"{world.db_path}: another program has kept the database locked for 1 s." in run.err
    assert "stays in the buffer" in run.err


def _cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (path.stat().st_size - 100))


@pytest.mark.parametrize("harm", [_cut_in_half, _overwritten])
def test_a_damaged_database_is_neither_used_nor_made_worse(
    world: World, harm: Callable[[Path], None]
) -> None:
    """Exit 1; the log says that it is damaged and that the files are safe in the buffer."""
    world.put(NAME)
    world.generate()
    harm(world.db_path)
    world.leave_unchecked("its database is damaged")
    before = [world.snapshot(path) for path in (world.buffer, world.mounts, world.db_path)]
    run = world.run_pass(check=1)
    assert (run.out, run.err) == ("", "")
    for part in (str(world.db_path), "malformed", "stays in the buffer", "operators.md"):
        assert part in world.log()
    run = world.status(check=1)
    assert "malformed" in run.err
    assert before == [world.snapshot(path) for path in (world.buffer, world.mounts, world.db_path)]


def test_a_pass_that_may_not_write_beside_its_database_says_so(world: World) -> None:
    """Whoever runs a pass as the wrong user reads which directory it is, not of a defect."""
    world.put(NAME)
    world.generate()
    world.db_path.parent.chmod(0o555)
    before = world.snapshot(world.root)
    run = world.run_pass(prefix=POWERLESS)
    assert_refused(run, str(world.db_path.parent), "Permission denied")
    assert before.differences(world.snapshot(world.root)) == []


# --- no disk, or only one role ------------------------------------------------------------


def test_without_any_disk_every_file_stays_and_both_roles_are_named(world: World) -> None:
    """Exit 1 and a critical notice for each role; when the disks come, all is archived."""
    names = {NAME, "b.g3"}
    for name in names:
        world.put(name)
    world.generate()
    for place in world.disks.values():
        place.rmdir()
    run = world.run_pass(check=1)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == names
    assert list(world.mounts.iterdir()) == []
    assert world.notices() == {("no-disk", "primary"), ("no-disk", "copy")}
    for role in ("primary", "copy"):
        assert "safe in the buffer. Mount a spare" in notice_text(world, "no-disk", role)
    severities = world.sql("SELECT DISTINCT severity FROM notices")
    assert [row["severity"] for row in severities] == ["critical"]
    assert world.sql("SELECT * FROM pending") == []  # they only wait: nothing has failed
    for place in world.disks.values():
        place.mkdir()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


@pytest.mark.parametrize(("there", "missing"), [("P01", "S01"), ("S01", "P01")])
def test_one_role_alone_is_written_and_the_other_is_made_later(
    make_world: Callable[..., World], there: str, missing: str
) -> None:
    """A file with one copy stays; the pass that finds the other disk leaves the good copy alone."""
    world = make_world(primaries=["P01"], copies=["S01"])
    world.put(NAME, 3_000_001)
    world.generate()
    world.disks[missing].rmdir()
    world.run_pass(check=1)
    assert world.waiting() == world.archived(there) == {NAME}
    assert world.sql("SELECT archived_at FROM files")[0]["archived_at"] is None
    role = {"P01": "primary", "S01": "copy"}[missing]
    assert world.notices() == {("no-disk", role)}
    good = inode_and_times(world.data(there) / NAME)

    world.run_pass(check=1)  # still waiting: nothing is done twice
    assert inode_and_times(world.data(there) / NAME) == good

    world.disks[missing].mkdir()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived(missing) == {NAME}
    assert inode_and_times(world.data(there) / NAME) == good
    assert world.notices() == set()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """``make_world(primaries=…, copies=…, …)``, once a test; checked after it."""
    made: list[World] = []

    def make(**options: object) -> World:
        made.append(World(tmp_path, **options))  # type: ignore[arg-type]
        return made[0]

    yield make
    for station in made:
        station.close()


# --- disks without room -------------------------------------------------------------------

SMALL_DISKS = {"primary_fs": "ext4", "size_mb": 16}


def test_a_disk_without_room_is_left_for_the_next_one_and_a_file_too_large_for_all_stays(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Each role fills on its own; the file that no disk can take is counted as failed: exit 1."""
    world = make_loop_world(**SMALL_DISKS)
    names = {f"{number}.g3" for number in range(4)}
    world.put("large.g3", 30_000_000, mtime_s=1_500_000_000)
    for name in names:
        world.put(name, 4_500_000)
    world.generate()
    world.run_pass(check=1)
    assert world.waiting() == {"large.g3"}
    for one, other in (("P01", "P02"), ("S01", "S02")):
        assert world.archived(one) and world.archived(other)
        assert world.archived(one) | world.archived(other) == names
    assert world.notices() == {("disk-closed", "P01"), ("disk-closed", "S01")}
    (row,) = world.sql("SELECT * FROM pending")
    assert (row["name"], row["attempts"]) == ("large.g3", 1)
    assert "30000000 bytes fit on no empty primary disk" in row["last_error"]
    assert "large.g3" in world.status(check=0).out


def test_a_disk_that_runs_out_of_inodes_is_left_for_the_next_one(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Bytes are not all that a disk can lack; some are left over for sealing it."""
    world = make_loop_world(mkfs_args=["-N", "96"], **SMALL_DISKS)
    names = {f"{number // 10}/{number % 10}.g3" for number in range(100)}
    for name in names:
        world.put(name, 2000)
    world.generate()
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == set()
    for one, other in (("P01", "P02"), ("S01", "S02")):
        assert world.archived(one) and world.archived(other)
        assert world.archived(one) | world.archived(other) == names


def test_a_disk_that_another_program_fills_half_way_is_left_and_nothing_is_lost(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Its finished copies count; the others wait, safe, till there is another disk."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    world.loops["P02"].umount()
    names = {f"{number}.g3" for number in range(12)}
    for name in names:
        world.put(name, 3_000_000)
    world.generate()
    with filled_under_a_pass(world, "P01", spared_bytes=2_000_000) as code:
        assert code == 1
        assert world.waiting()
        assert world.archived("P01") == names - world.waiting()
        assert world.archived("S01") == names
        assert ("no-disk", "primary") in world.notices()
    copies = {name: inode_and_times(world.data("S01") / name) for name in names}
    world.loops["P02"].mount()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") | world.archived("P02") == names
    assert copies == {name: inode_and_times(world.data("S01") / name) for name in names}
    assert ("no-disk", "primary") not in world.notices()


def test_a_disk_filled_to_its_last_byte_keeps_no_half_manifest_line(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Not even the manifest can grow: no copy there counts until its line stands."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    names = {f"{number}-{'x' * 200}.g3" for number in range(12)}
    for name in names:
        world.put(name, 800_000)
    world.generate()
    with filled_under_a_pass(world, "P01", spared_bytes=0) as code:
        assert code in (0, 1)
        rows = world.sql(
            "SELECT name FROM files JOIN copies ON file_id = files.id "
            "JOIN disks ON disks.id = disk_id WHERE label = 'P01'"
        )
        assert {row["name"] for row in rows} <= world.manifest("P01").keys()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P01") | world.archived("P02") == names
    assert world.archived("P01") == world.manifest("P01").keys()


SLOWLY = ("strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fallocate")

SLOWLY += ("-e", "inject=fallocate:delay_enter=50000")  # 0.05 s before each file gets its room


@contextmanager
def filled_under_a_pass(world: LoopWorld, label: str, spared_bytes: int) -> Iterator[int]:
    """Run a pass; once it has begun its third file on the disk, fill that up. Yields its exit code.

    Each file is held up, so that there is time for it before the last one has its room.
    """
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    disk = world.disks[label]
    process = world.start("data_manager.py", prefix=SLOWLY)
    deadline = time.monotonic() + 30
    while not ((disk / "bag-info.txt").exists() and len(os.listdir(disk / ".incoming")) > 2):
        assert process.poll() is None and time.monotonic() < deadline, world.log()
    filling = disk / "filling"
    with filling.open("wb") as file:
        _take_all_room(file.fileno(), spared_bytes)
    yield process.wait(timeout=60)
    filling.unlink()


def _take_all_room(fd: int, spared_bytes: int) -> None:
    step_bytes, taken_bytes = 1 << 24, 0
    while step_bytes >= 4096:
        room = os.fstatvfs(fd)
        try:
            if room.f_bavail * room.f_frsize - step_bytes < spared_bytes:
                raise OSError
            os.posix_fallocate(fd, taken_bytes, step_bytes)
        except OSError:
            step_bytes //= 2
        else:
            taken_bytes += step_bytes
    os.fsync(fd)


def test_a_file_that_a_disk_can_not_hold_does_not_stop_the_others(world: World) -> None:
    """A file too long for a disk's file system (EFBIG) stays, with the disk's own word for it."""
    world.put("large.g3", 5_000_000, mtime_s=1_500_000_000)
    world.put("small.g3", 1000)
    world.generate()
    run = world.run_pass(check=1, prefix=["prlimit", "--fsize=2000000"])
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == {"large.g3"}
    assert world.archived("P01") == world.archived("S01") == {"small.g3"}
    (row,) = world.sql("SELECT * FROM pending")
    assert "File too large" in row["last_error"]
    try_at_once(world)
    world.run_pass(check=0)
    assert world.waiting() == set()


# --- the wrong disk, or one that does not take anything -----------------------------------


def test_a_read_only_disk_is_passed_by_and_said(world: World) -> None:
    """A disk that this user may not write to is named; the next of its role takes the files."""
    world.put(NAME)
    world.generate()
    world.disks["P01"].chmod(0o555)
    world.run_pass(check=1, prefix=POWERLESS)
    assert world.waiting() == set()
    assert os.listdir(world.disks["P01"]) == []
    assert world.archived("P02") == world.archived("S01") == {NAME}
    assert world.notices() == {("disk-read-only", "P01")}
    text = notice_text(world, "disk-read-only", "P01")
    assert f"may not write to {world.disks['P01']}. sudo chown -R " in text
    world.disks["P01"].chmod(0o755)


def test_a_disk_that_turned_read_only_is_passed_by_and_said(loop_world: LoopWorld) -> None:
    """A failing drive's file system is remounted read-only: nothing more is tried on it."""
    loop_world.put("a.g3")
    loop_world.generate()
    loop_world.run_pass(check=0)
    loop_world.loops["P01"].remount("ro")
    loop_world.put("b.g3")
    loop_world.run_pass(check=1)
    assert loop_world.waiting() == set()
    assert loop_world.archived("P02") == {"b.g3"}
    assert loop_world.archived("S01") == {"a.g3", "b.g3"}
    assert "mounted read-only" in notice_text(loop_world, "disk-read-only", "P01")
    loop_world.loops["P01"].remount("rw")
    loop_world.put("c.g3")
    loop_world.run_pass(check=0)
    assert loop_world.archived("P01") == {"a.g3", "c.g3"}
    assert loop_world.notices() == set()


def test_a_disk_with_another_ones_mark_is_never_written_to(world: World) -> None:
    """P01 mounted at P02's place is refused there, and missed at its own."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    world.disks["P02"].rmdir()
    world.disks["P01"].rename(world.disks["P02"])
    before = world.snapshot(world.disks["P02"])
    world.put("b.g3")
    world.run_pass(check=1)
    assert world.waiting() == {"b.g3"}
    assert world.archived("S01") == {"a.g3", "b.g3"}
    assert before.differences(world.snapshot(world.disks["P02"])) == []
    assert not world.disks["P01"].exists()
    wanted = {("disk-missing", "P01"), ("disk-wrong", "P02"), ("no-disk", "primary")}
    assert world.notices() == wanted
    text = notice_text(world, "disk-wrong", "P02")
    assert f"the mark at {world.disks['P02']} says P01, serial ZTP01AA" in text
    assert "Nothing was written" in text or "Compare its serial number" in text

    world.disks["P02"].rename(world.disks["P01"])
    world.disks["P02"].mkdir()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


def test_a_spare_that_is_not_empty_is_refused_and_left_as_it_is(world: World) -> None:
    """Nobody's data is mixed with ours: a spare holds nothing but lost+found."""
    world.put(NAME)
    world.generate()
    (world.disks["P01"] / "notes.txt").write_text("last season's\n")
    (world.disks["S01"] / "lost+found").mkdir()
    before = world.snapshot(world.disks["P01"])
    world.run_pass(check=1)
    assert world.waiting() == set()
    assert world.archived("P02") == world.archived("S01") == {NAME}
    assert before.differences(world.snapshot(world.disks["P01"])) == []
    assert world.notices() == {("disk-wrong", "P01")}
    assert "holds notes.txt" in notice_text(world, "disk-wrong", "P01")


def test_a_used_disk_that_comes_back_empty_is_refused(world: World) -> None:
    """A wiped disk, or an empty directory below a mount that is gone, is not started anew."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    aside = world.root / "aside"
    world.disks["P01"].rename(aside)
    world.disks["P01"].mkdir()
    world.put("b.g3")
    world.run_pass(check=1)
    assert world.waiting() == set()
    assert os.listdir(world.disks["P01"]) == []
    assert world.archived("P02") == {"b.g3"}
    assert world.notices() == {("disk-wrong", "P01")}
    text = notice_text(world, "disk-wrong", "P01")
    assert f"it was used before, but {world.disks['P01']} has no mark" in text
    world.disks["P01"].rmdir()
    aside.rename(world.disks["P01"])


def _symlink(target: Path, place: Path) -> None:
    place.symlink_to(target)


def _bind_mount(target: Path, place: Path) -> None:
    place.mkdir()
    subprocess.run(["mount", "--bind", target, place], check=True)


@pytest.mark.parametrize(
    ("join", "is_used"),
    [(_symlink, False), pytest.param(_bind_mount, True, marks=pytest.mark.root)],
    ids=["spare-link", "used-bind"],
)
def test_two_labels_on_one_place_never_get_both_copies(
    make_world: Callable[..., World], join: Callable[[Path, Path], None], is_used: bool
) -> None:
    """P01 and S01 being one directory, a file gets one copy there, and stays in the buffer."""
    world = make_world(primaries=["P01"], copies=["S01"])
    world.generate()
    if is_used:
        world.put("a.g3")
        world.run_pass(check=0)
        shutil.move(world.disks["S01"], world.root / "aside")
    else:
        world.disks["S01"].rmdir()
    world.put("b.g3")
    join(world.disks["P01"], world.disks["S01"])
    try:
        world.run_pass(check=1)
        assert world.waiting() == {"b.g3"}
        assert "b.g3" in world.archived("P01")
        labels = world.sql("SELECT primary_label, copy_label FROM file_locations WHERE name='b.g3'")
        assert [tuple(row) for row in labels] == [("P01", None)]
        assert world.notices() == {("disk-wrong", "S01"), ("no-disk", "copy")}
        assert "says P01" in notice_text(world, "disk-wrong", "S01")
    finally:
        if join is _bind_mount:
            subprocess.run(["umount", world.disks["S01"]], check=True)
            world.disks["S01"].rmdir()
        else:
            world.disks["S01"].unlink()
    if is_used:
        shutil.move(world.root / "aside", world.disks["S01"])
    else:
        world.disks["S01"].mkdir()
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == set()


# --- files and directories that can't be read ---------------------------------------------


def test_what_can_not_be_read_stays_and_the_others_go_on(world: World) -> None:
    """A file and a directory closed to us are pending, told of at the third try, then archived."""
    world.put("closed/file.g3", mode=0o000, mtime_s=1_500_000_000)
    world.put("hidden/file.g3")
    world.put("open/file.g3")
    (world.buffer / "hidden").chmod(0o000)
    world.generate()
    run = world.run_pass(check=1, prefix=POWERLESS)
    assert (run.out, run.err) == ("", "")
    assert world.archived("P01") == world.archived("S01") == {"open/file.g3"}
    pending = {row["name"]: row["last_error"] for row in world.sql("SELECT * FROM pending")}
    assert pending.keys() == {"closed/file.g3", "hidden/"}
    assert "can't be read (Permission denied)" in pending["closed/file.g3"]
    assert "can't be listed (Permission denied)" in pending["hidden/"]
    assert world.notices() == set()
    for _ in range(2):
        try_at_once(world)
        world.run_pass(check=1, prefix=POWERLESS)
    assert world.notices() == {("copy-failed", "closed/file.g3"), ("copy-failed", "hidden/")}
    assert "stays in the buffer" in notice_text(world, "copy-failed", "closed/file.g3")

    (world.buffer / "hidden").chmod(0o755)
    (world.buffer / "closed/file.g3").chmod(0o644)
    try_at_once(world)
    world.run_pass(check=0, prefix=POWERLESS)
    assert world.waiting() == set()
    assert world.archived("P01") == {"open/file.g3", "closed/file.g3", "hidden/file.g3"}
    assert world.notices() == set()


def test_a_file_that_waits_for_its_next_try_keeps_exit_1(world: World) -> None:
    """It is not tried at every pass, but neither is it forgotten."""
    world.put(NAME, mode=0o000)
    world.generate()
    for _ in range(2):
        world.run_pass(check=1, prefix=POWERLESS)
    (row,) = world.sql("SELECT attempts, first_failed_at, next_try_at FROM pending")
    assert row["attempts"] == 1
    assert row["next_try_at"] > row["first_failed_at"]


def test_a_file_that_fails_on_both_disks_was_tried_once(world: World) -> None:
    """Else its pauses are twice as long, and a person is told too early."""
    world.generate()
    world.put(NAME)
    world.run_pass(check=0)
    world.sql("DELETE FROM copies")
    world.sql("DELETE FROM files")  # an older database was put back
    world.put(NAME, 77, seed=1)
    world.run_pass(check=1)
    assert [tuple(r) for r in world.sql("SELECT name, attempts FROM pending")] == [(NAME, 1)]
    assert world.sql("SELECT files_failed FROM passes ORDER BY id DESC LIMIT 1")[0][0] == 1
    assert "(tried once)" in notice_text(world, "name-conflict", NAME)
    for label in ("P01", "S01"):  # what is said of the file names one disk, the log both
        assert f"other content is archived on {label} under this name" in world.log()
    world.leave_unchecked("the database does not know what is on the disks")


# --- names --------------------------------------------------------------------------------

DEEP = "/".join(["directory"] * 110 + ["0000.g3"])
GOOD_NAMES = {
    "n" * 252 + ".g3",
    "é" * 126 + ".g3",
    "日本/南極点.g3",
    "e\u0301.g3",  # é in two characters: another name than
    "é.g3",
    " leading blank.g3",
    " /  two.g3",
    "blank at the end of a directory /0000.g3",
    "-rf.g3",
    "--help/*.g3",
    "tab\tand bell\a.g3",
    "#comment.g3",
    '"quoted" $(id) `id`.g3',
    "directory.g3/0000.g3",
    "🔭.g3",
    DEEP,
}


def test_strange_names_are_archived_and_any_machine_can_check_them(world: World) -> None:
    """255 bytes, other scripts, blanks, 110 levels, an empty file: ``sha512sum -c`` passes."""
    assert len(DEEP) > 1000
    for name in GOOD_NAMES:
        world.put(name, 100)
    world.put("empty.g3", b"")
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    for label in ("P01", "S01"):
        assert world.archived(label) == GOOD_NAMES | {"empty.g3"}
        checked = subprocess.run(
            ["sha512sum", "--check", "--strict", "--quiet", "manifest-sha512.txt"],
            cwd=world.disks[label],
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert (world.buffer / "directory.g3").is_dir()  # the telescope owns its directories


BAD_NAMES = {
    "per%cent.g3": "it holds a % or a backslash",
    "back\\slash.g3": "it holds a % or a backslash",
    "line\nfeed.g3": "a character that ends a line",
    "carriage\rreturn.g3": "a character that ends a line",
    "line\u2028separator.g3": "a character that ends a line",
    "next\u0085line.g3": "a character that ends a line",
    "form\x0cfeed/0000.g3": "a character that ends a line",
    os.fsdecode(b"latin-\xe9.g3"): "it is not UTF-8",
    os.fsdecode(b"latin-\xe9/0000.g3"): "it is not UTF-8",
}


def test_names_that_no_manifest_can_carry_are_refused_and_stay(world: World) -> None:
    """Each has a notice with its reason, the others go on, and exit is 1 as long as one stays."""
    for name in BAD_NAMES:
        world.put(name)
    world.put(NAME)
    world.generate()
    run = world.run_pass(check=1)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == set(BAD_NAMES)
    assert world.archived("P01") == world.archived("S01") == {NAME}
    told = {row["key"]: row["text"] for row in world.sql("SELECT * FROM notices")}
    assert len(told) == len(BAD_NAMES)
    assert world.notices() == {("bad-name", key) for key in told}
    assert all(key.isprintable() for key in told)
    for name, why in BAD_NAMES.items():
        (text,) = (text for key, text in told.items() if _as_shown(name) == key)
        assert why in text and "stays in the buffer" in text
    for name in BAD_NAMES:  # a person renames them
        world.ledger.withdraw(name, "renamed")
        (world.buffer / name).unlink()
    world.run_pass(check=0)
    assert world.notices() == set()
    assert world.sql("SELECT * FROM pending") == []


def test_a_path_that_no_tool_can_open_is_refused_and_stays(world: World) -> None:
    """Longer than PATH_MAX, one such file would make ``sha512sum -c`` fail for a whole disk."""
    world.put(NAME)
    top, at = world.buffer / ("d" * 240), os.open(world.buffer, os.O_PATH)
    for _ in range(18):
        os.mkdir(top.name, dir_fd=at)
        below = os.open(top.name, os.O_PATH, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("0000.g3", os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at))
    world.generate()
    world.run_pass(check=1)
    assert os.stat("0000.g3", dir_fd=at).st_nlink == 1
    os.close(at)
    shutil.rmtree(top)
    assert {kind for kind, _ in world.notices()} == {"bad-name"}
    assert world.archived("P01") == {NAME}
    world.run_pass(check=0)
    assert world.notices() == set()


def _as_shown(name: str) -> str:
    """How a person reads a name that can't be printed."""
    escapes = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\x0c": "\\x0c"}
    escapes |= {"\u2028": "\\u2028", "\u0085": "\\x85", "\udce9": "\\udce9"}
    return "".join(escapes.get(c, c) for c in name)


def test_a_file_in_a_directorys_place_is_never_moved(world: World) -> None:
    """``a.g3`` is archived, then ``a.g3/b.g3`` comes: it goes to disks without the first. In the
    reverse case, a directory in a file's place, the file waits."""
    world.put("a.g3")
    world.put("c.g3/d.g3")
    world.generate()
    world.run_pass(check=0)
    (world.buffer / "c.g3").rmdir()
    world.put("a.g3/b.g3")
    world.put("c.g3")
    world.put("e.g3")
    run = world.run_pass(check=1)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == {"c.g3"}
    for label in ("P01", "S01"):
        assert world.archived(label) == {"a.g3", "c.g3/d.g3", "e.g3"}
    for label in ("P02", "S02"):
        assert world.archived(label) == {"a.g3/b.g3"}
    assert {row["name"] for row in world.sql("SELECT * FROM pending")} == {"c.g3"}


def test_odd_times_are_kept_and_keep_no_file_waiting(world: World) -> None:
    """A clock that was wrong, in either direction, is no reason not to archive."""
    times = {"1960.g3": -315_619_200, "1970.g3": 0, "2100.g3": 4_102_444_800}
    for name, mtime_s in times.items():
        world.put(name, mtime_s=mtime_s)
    world.configure(SettleTime="0.2 s")
    world.generate()
    time.sleep(0.3)
    world.status(check=0)
    world.run_pass(check=0)
    assert world.waiting() == set()
    for name, mtime_s in times.items():
        for label in ("P01", "S01"):
            assert (world.data(label) / name).stat().st_mtime == mtime_s


# --- what is not ours ---------------------------------------------------------------------


def test_links_special_files_and_other_files_are_left_alone_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no reason for exit 1, nothing waits for a FIFO's writer, no link is followed."""
    world.put("real.g3")
    outside = world.root / "outside"
    outside.mkdir()
    (outside / "secret.g3").write_text("not ours")
    (world.buffer / "to_file.g3").symlink_to(outside / "secret.g3")
    (world.buffer / "to_directory").symlink_to(outside)
    (world.buffer / "to_directory.g3").symlink_to(outside)
    (world.buffer / "dangling.g3").symlink_to("nowhere")
    (world.buffer / "to_itself.g3").symlink_to("to_itself.g3")
    os.mkfifo(world.buffer / "fifo.g3")
    monkeypatch.chdir(world.buffer)  # a socket's path must be short
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("socket.g3")
    others = ["x.g3.tmp", "x.G3", "x.g3~", "xg3", "README"]
    for name in others:
        (world.buffer / name).write_text("not ours")
    (world.buffer / "empty.g3").mkdir()
    world.generate()
    before = world.snapshot(outside)
    world.run_pass(check=0, timeout_s=20)
    assert world.archived("P01") == world.archived("S01") == {"real.g3"}
    links_and_specials = {"to_file.g3", "to_directory", "to_directory.g3", "dangling.g3"}
    links_and_specials |= {"to_itself.g3", "fifo.g3", "socket.g3"}
    assert set(os.listdir(world.buffer)) == {*others, *links_and_specials, "empty.g3", MARKER}
    assert before.differences(world.snapshot(outside)) == []
    assert world.notices() == set()
    counted = world.status("--json", check=0).json()["buffer"]
    assert counted["other_files"] == len(others)
    assert counted["links_and_specials"] == len(links_and_specials)
    said = world.status(check=0).out
    assert f"{len(others)} files with other extensions, {len(links_and_specials)} links" in said


@pytest.mark.root
def test_a_device_in_the_buffer_is_left_alone(world: World) -> None:
    """/dev/zero under a data file's name would never end."""
    world.put("real.g3")
    os.mknod(world.buffer / "zero.g3", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod(world.buffer / "disk.g3", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    world.generate()
    world.run_pass(check=0, timeout_s=20)
    assert set(os.listdir(world.buffer)) == {"zero.g3", "disk.g3", MARKER}
    assert world.status("--json", check=0).json()["buffer"]["links_and_specials"] == 2


def test_white_space_after_the_extension_is_a_bad_name(world: World) -> None:
    """Not another extension: a person would look for the file in vain."""
    for name in ("a.g3 ", "b.g3\t", "c.g3\n"):
        world.put(name)
    world.put("d.g3x ")
    world.generate()
    world.run_pass(check=1)
    told = {("bad-name", "a.g3 "), ("bad-name", "b.g3\\t"), ("bad-name", "c.g3\\n")}
    assert world.notices() == told
    assert world.status("--json").json()["buffer"]["other_files"] == 1
