"""Every command of every script where output, directories and arguments are not as they should be.

Each ends with an exit code of the contract, and never as a bug. Each surrounding is tried with a
share of the commands, so that each command meets at least one odd surrounding of each chapter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poledata.formatting import shown
from tests.helpers.recorded_drives import with_smartctl
from tests.helpers.world import CRON_ENVIRONMENT, REPO, World

COMMANDS = (
    "data_manager.py",
    "data_manager.py --help",
    "data_manager.py --version",
    "data_manager.py --dry-run",
    "data_manager.py status",
    "data_manager.py status --json",
    "data_manager.py status --html page.html",
    "data_manager.py status --send",
    "data_manager.py check",
    "data_manager.py check --json",
    "data_manager.py verify",
    "data_manager.py verify P01 --json",
    "data_manager.py repair",
    "data_manager.py repair --dry-run",
    "data_manager.py locate 0000",
    "data_manager.py locate 0000 --json",
    "data_manager.py restore a/0000.g3 --to back",
    "data_manager.py notify --test",
    "data_manager.py pause --why later",
    "data_manager.py ack paused archive",
    "data_manager.py resume",
    "data_manager.py hold P02 --why later",
    "data_manager.py unhold P02",
    "data_manager.py forget P02",
    "data_manager.py ship S02",
    "data_manager.py lost S02 --why gone",
    "data_manager.py close P01",
    "generate_db.py --disk-map disk-map",
    "generate_db.py --disk-map disk-map --json",
    "generate_db.py --from-disks",
    "generate_db.py --from-disks --dry-run",
    "get_SMART_status.py",
    "get_SMART_status.py --history P01",
    "get_drive_IDs.py",
    "get_drive_IDs.py --json",
)
SCRIPTS = tuple(dict.fromkeys(command.split()[0] for command in COMMANDS))
ALWAYS = ("data_manager.py", "data_manager.py status")
OUTPUTS = ("full", "both full", "a closed pipe", "1", "2", "012")
PLACES = ("TMPDIR", "HOME", "NUL in .env", "NUL in the configuration")
SENTENCE = "Not everything could be printed: No space left on device."


@pytest.fixture
def station(world: World) -> World:
    """With an archived file, one that waits, and a directory to restore to."""
    world.generate()
    world.put("a/0000.g3")
    world.run_pass(check=0)
    world.put("a/0001.g3")
    (world.root / "back").mkdir()
    return world


def share(surrounding: str) -> list[str]:
    """The commands that meet this surrounding, in their order."""
    chapter = OUTPUTS if surrounding in OUTPUTS else PLACES
    others = [command for command in COMMANDS if command not in ALWAYS]
    mine = others[chapter.index(surrounding) :: len(chapter)]
    return [command for command in COMMANDS if command in mine or command in ALWAYS]


@pytest.mark.parametrize("chapter", [OUTPUTS, PLACES], ids=["output", "places"])
def test_each_command_meets_an_odd_surrounding_of_each_chapter(chapter: tuple[str, ...]) -> None:
    """No command is left out by the shares, and no surrounding gets none."""
    assert {command for name in chapter for command in share(name)} == set(COMMANDS)
    assert all(len(share(name)) > len(ALWAYS) for name in chapter)


def run(
    world: World, command: str, before: Callable[[], object] | None = None, **how: object
) -> subprocess.CompletedProcess[bytes]:
    """One of the commands, in the station's directory; ``before`` is done in the child."""
    script, *rest = command.split()
    options = [] if script == "get_drive_IDs.py" else ["--config", str(world.config_path)]
    settings = {
        "cwd": world.root,
        "env": {**CRON_ENVIRONMENT, **smartctl(world)},
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "timeout": 100,
        **how,
    }
    words = [sys.executable, str(REPO / script), *options, *rest]
    return subprocess.run(words, check=False, preexec_fn=before, **settings)  # type: ignore[call-overload,no-any-return]


def smartctl(world: World) -> dict[str, str]:
    """One that knows of no drive."""
    directory = world.root / "bin"
    return {"PATH": f"{directory}:/usr/bin:/bin"} if directory.exists() else with_smartctl(world)


def must_be_of_the_contract(command: str, done: subprocess.CompletedProcess[bytes]) -> None:
    """No 3, no signal, no traceback."""
    assert done.returncode in (0, 1, 2), (command, done)
    for said in (done.stdout, done.stderr):
        assert b"Traceback" not in (said or b""), (command, done)


# --- output -------------------------------------------------------------------------------


def test_a_full_disk_behind_standard_output_is_said(station: World) -> None:
    """What was to be done is done; a command whose output is lost ends with 1."""
    with open("/dev/full", "wb") as full:
        for command in share("full"):
            done = run(station, command, stdout=full)
            must_be_of_the_contract(command, done)
            if SENTENCE.encode() in done.stderr:
                assert done.returncode != 0, command
        assert run(station, "data_manager.py status", stdout=full).returncode == 1
        assert SENTENCE.encode() in run(station, "data_manager.py --help", stdout=full).stderr
        must_be_of_the_contract(
            "close", run(station, "data_manager.py close --yes P01", stdout=full)
        )
    assert station.disk_states()["P01"] == "closed"


def test_a_full_disk_behind_both_outputs_ends_nothing(station: World) -> None:
    """There is nobody to tell."""
    with open("/dev/full", "wb") as full:
        for command in share("both full"):
            must_be_of_the_contract(command, run(station, command, stdout=full, stderr=full))


def test_who_closes_a_pipe_early_ends_nothing(station: World) -> None:
    """As ``status | head -1`` does: no word of it, and no signal."""
    for command in share("a closed pipe"):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = run(station, command, stdout=writing)
        finally:
            os.close(writing)
        must_be_of_the_contract(command, done)
        assert b"Broken pipe" not in done.stderr


@pytest.mark.parametrize("closed", ["1", "2", "012"])
def test_closed_descriptors_end_nothing(station: World, closed: str) -> None:
    """``>&-``: no file of ours may get such a number, or what is printed would land in it."""

    def close() -> None:
        for fd in closed:
            os.close(int(fd))

    for command in share(closed):
        must_be_of_the_contract(command, run(station, command, before=close))
    station.check()


# --- directories --------------------------------------------------------------------------


@contextmanager
def full_tmpfs(place: Path) -> Iterator[None]:
    """A directory on a file system without a byte to spare."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    try:
        with open("/dev/zero", "rb") as zeros, open(place / "filled", "wb", buffering=0) as out:
            for size in (4096,) * 32:
                try:
                    out.write(zeros.read(size))
                except OSError:
                    break
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_full_temporary_directory_ends_nothing(station: World) -> None:
    """Also where a database has to be copied to be read, after a crash amid a commit."""
    place = station.root / "tmp"
    with full_tmpfs(place):
        environment = {**CRON_ENVIRONMENT, **smartctl(station), "TMPDIR": str(place)}
        for command in share("TMPDIR"):
            must_be_of_the_contract(command, run(station, command, env=environment))


@pytest.mark.root
def test_a_copy_that_has_no_room_is_said(station: World) -> None:
    """``status`` of a database with a hot journal needs one; everything else is as it was."""
    journal = station.db_path.with_name(f"{station.db_path.name}-journal")
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('CREATE TABLE x (y)')\n"
        "db.executemany('INSERT INTO x VALUES (?)', [('z' * 4000,)] * 100); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(station.db_path)], check=True)
    assert journal.exists()
    with full_tmpfs(station.root / "tmp"):
        environment = {**CRON_ENVIRONMENT, "TMPDIR": str(station.root / "tmp")}
        done = run(station, "data_manager.py status", env=environment)
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert b"no temporary copy of it can be made" in done.stderr
    station.run_pass(check=0)


def test_a_working_directory_that_is_gone_is_said(station: World) -> None:
    """Relative paths lead nowhere then: exit 2, and where to go; each script looks at it first."""
    gone = station.root / "gone"
    for command in (*SCRIPTS, "data_manager.py status", "data_manager.py --help"):
        gone.mkdir()
        done = run(station, command, before=gone.rmdir, cwd=gone)
        must_be_of_the_contract(command, done)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"The current directory can't be used (No such file or directory)." in done.stderr


def test_a_home_that_can_not_be_written_ends_nothing(station: World) -> None:
    """Nor one that is missing."""
    environment = {**CRON_ENVIRONMENT, **smartctl(station), "HOME": "/proc/nowhere"}
    for command in share("HOME"):
        must_be_of_the_contract(command, run(station, command, env=environment))


def test_a_directory_whose_name_is_not_utf8_is_refused(station: World) -> None:
    """As the configuration's place, and as the buffer's: a sentence, and nothing is touched."""
    odd = os.fsencode(station.root) + b"/odd\xff"
    os.mkdir(odd)
    os.mkdir(odd + b"/buffer")
    text = station.config_path.read_text().replace(str(station.buffer), "$HERE/buffer")
    station.config_path.write_text(text)
    environment = {**CRON_ENVIRONMENT, **smartctl(station), "HERE": os.fsdecode(odd)}
    for command in ("data_manager.py", "data_manager.py status", "generate_db.py --from-disks"):
        done = run(station, command, env=environment)
        assert done.returncode == 2, done
        assert rb"BufferLocation: " in done.stderr
        assert rb"odd\udcff/buffer is not UTF-8" in done.stderr
        done = run(station, f"{command} --config station.config", cwd=odd)
        assert done.returncode == 2, done
        assert rb"odd\udcff/station.config: this path is not UTF-8" in done.stderr


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (b"x" * 100_000, b"an argument of 100000 characters is too long. Nothing was changed."),
        (b"\xff*", rb"\udcff* is not UTF-8. Nothing was changed."),
    ],
    ids=["enormous", "not UTF-8"],
)
def test_arguments_that_nothing_can_mean_are_refused(
    station: World, argument: bytes, said: bytes
) -> None:
    """By every script, before anything else: whatever the command is."""
    before = station.snapshot(station.root)
    for command in (*SCRIPTS, "data_manager.py pause --why", "data_manager.py locate"):
        script, *rest = command.split()
        words = [sys.executable, str(REPO / script), *rest, argument]
        done = subprocess.run(
            words, cwd="/", env=CRON_ENVIRONMENT, capture_output=True, check=False
        )
        must_be_of_the_contract(command, done)
        assert (done.returncode, done.stdout) == (2, b""), (command, done)
        assert said in done.stderr
    assert before.differences(station.snapshot(station.root)) == []


def test_patterns_of_any_kind_find_nothing(station: World) -> None:
    """Neither ``locate`` nor ``restore`` ends as a bug: each pattern is named."""
    patterns = ["\\", "\\x", "\\N{nothing}", "[", "[" * 9000, "\x01", "\u2028", "ä" * 9000]
    for command in (["locate"], ["restore", "--to", str(station.root / "back")]):
        ran = station.run_pass(*command, *patterns, check=1)
        said = ran.out + ran.err
        assert len(said.splitlines()) == len(patterns)
        assert all(f"{shown(pattern)}: " in said for pattern in patterns)


@pytest.mark.parametrize("pattern", ["\\udcff*", "\\ud800"])
def test_a_pattern_that_is_no_utf8_is_refused(station: World, pattern: str) -> None:
    """No archived name is like it."""
    for command in (["locate", pattern], ["restore", pattern, "--to", str(station.root / "back")]):
        ran = station.run_pass(*command, check=2)
        assert "no archived name is like this" in ran.err


def test_a_nul_in_the_configuration_or_beside_it_is_said(station: World) -> None:
    """In a value, in .env, in the disk-map."""
    (station.root / ".env").write_bytes(b"POLE_PAGER_COMMAND=true\0\n")
    (station.root / ".env").chmod(0o600)
    station.run_pass("check", check=1)
    for command in share("NUL in .env"):
        must_be_of_the_contract(command, run(station, command))
    station.disk_map_path.write_bytes(b"P07 ZT\0 0x5000c500aaaaaaaa\n")
    assert "NUL" in station.generate(check=2).err
    text = station.config_path.read_text()
    station.config_path.write_text(text.replace("Extension = g3", "Extension = g\0003"))
    for command in share("NUL in the configuration"):
        must_be_of_the_contract(command, run(station, command))
