"""Configured places that are not there: archiving goes on, and people are told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.other_users import POWERLESS
from tests.helpers.verified_disks import notice
from tests.helpers.world import World


@pytest.fixture
def told(world: World) -> World:
    """A station whose pager writes to ``root/told``."""
    write_env(world)
    world.generate()
    return world


def write_env(world: World) -> None:
    path = world.config_path.with_name(".env")
    path.write_text(f"POLE_PAGER_COMMAND='tee -a {world.root}/told'\n")
    path.chmod(0o600)


def heard(world: World) -> str:
    path = world.root / "told"
    return path.read_text() if path.exists() else ""


def log_dir(world: World) -> Path:
    directory = world.root / "log"
    directory.mkdir()
    world.configure(LogFile=str(directory / "pole.log"))
    return directory


def gone(directory: Path) -> None:
    """As after a reboot, where logs are in memory."""
    directory.rmdir()


def a_directory(directory: Path) -> None:
    (directory / "pole.log").mkdir()


def not_ours(directory: Path) -> None:
    (directory / "pole.log").touch(mode=0o400)


LOGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "its directory is gone": (gone, "No such file or directory"),
    "a directory in its place": (a_directory, "Is a directory"),
    "a file that it may not write": (not_ours, "Permission denied"),
}


@pytest.mark.parametrize(("harm", "why"), LOGS.values(), ids=LOGS)
def test_without_its_log_archiving_goes_on_and_people_are_told(
    world: World, harm: Callable[[Path], None], why: str
) -> None:
    """Exit 0, a warning, and the log beside the database; it ends when the log can be written."""
    directory = log_dir(world)
    world.generate()
    harm(directory)
    world.put("a.g3")
    run = world.run_pass(check=0, prefix=POWERLESS)
    assert (run.out, run.err, world.waiting()) == ("", "", set())
    assert world.notices() == {("config-error", "LogFile")}
    said = notice(world, "config-error", "LogFile")
    assert said.startswith(f"{directory}/pole.log can't be written: {why}. See config-error in ")
    assert "1 of 1 files (1 kB) archived" in world.log()
    assert "FAULT LogFile: " in world.run_pass("check", check=1, prefix=POWERLESS).out
    if harm is gone:
        directory.mkdir()
    elif harm is a_directory:
        (directory / "pole.log").rmdir()
    else:
        (directory / "pole.log").unlink()
    world.run_pass(check=0, prefix=POWERLESS)
    assert world.notices() == set()
    world.put("b.g3")
    world.run_pass(check=0, prefix=POWERLESS)
    assert "1 of 1 files (1 kB) archived" in (directory / "pole.log").read_text()


@pytest.mark.root
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_full_log_is_told_of_also_by_a_pass_with_nothing_to_say(
    world: World, is_silent: bool
) -> None:
    """Its file system has no room; with room the next pass ends it."""
    directory = log_dir(world)
    world.generate()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "x", str(directory)]
    subprocess.run(mount, check=True)
    try:
        ballast = directory / "ballast"
        with ballast.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        if not is_silent:
            world.put("a.g3")
        world.run_pass(check=0)
        assert world.waiting() == set()
        assert "No space left on device" in notice(world, "config-error", "LogFile")
        ballast.unlink()
        world.run_pass(check=0)
        assert world.notices() == set()
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.root
def test_a_log_on_a_file_system_that_turned_read_only_is_told_of(world: World) -> None:
    """As a failing system disk leaves it."""
    directory = log_dir(world)
    world.generate()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=755", "x", str(directory)], check=True)
    try:
        world.put("a.g3")
        world.run_pass(check=0)
        assert world.waiting() == set()
        assert "Read-only file system" in notice(world, "config-error", "LogFile")
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("key", ["StatusPage", "MetricsFile"])
@pytest.mark.parametrize("how", ["gone", "not ours", "a directory", "a link to a directory"])
def test_a_page_that_can_not_be_written_is_told_of(world: World, key: str, how: str) -> None:
    """Archiving goes on, exit 0; the notice ends when it is written again."""
    directory = world.root / "www"
    directory.mkdir()
    world.configure(**{key: str(directory / "page")})
    world.generate()
    world.run_pass(check=0)
    (directory / "page").unlink()
    if how == "gone":
        directory.rmdir()
    elif how == "not ours":
        (directory / "page").write_text("a letter")
    elif how == "a link to a directory":
        (world.root / "elsewhere").mkdir()
        (directory / "page").symlink_to(world.root / "elsewhere")
    else:
        (directory / "page").mkdir()
    world.put("a.g3")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.notices() == {("config-error", key)}
    if how == "a directory":
        (directory / "page").rmdir()
    directory.mkdir(exist_ok=True)
    (directory / "page").unlink(missing_ok=True)
    world.run_pass(check=0)
    assert world.notices() == set()


def test_no_packing_list_can_be_kept_and_archiving_goes_on(told: World) -> None:
    """A file stands in the place of packing-lists/: the disk can't be closed, which is told; files
    are archived on the next disk, and the close is finished when there is room for the list."""
    told.put("a.g3")
    told.run_pass(check=0)
    lists = told.db_path.with_name("packing-lists")
    lists.write_bytes(b"")
    told.run_pass("close", "--yes", "P01", check=1)
    told.put("b.g3")
    told.run_pass(check={0, 1})
    assert "b.g3" in told.archived("P02")
    assert f"packing list can't be kept in {lists}" in notice(told, "copy-damaged", "P01")
    lists.unlink()
    told.run_pass(check=0)
    assert told.notices() == {("disk-closed", "P01")}
    assert len(list(lists.iterdir())) == 1


def test_an_env_file_that_can_not_be_read_has_a_notice(told: World) -> None:
    """It can't be sent, but it is in status; it ends when the file can be read."""
    path = told.config_path.with_name(".env")
    path.unlink()
    path.mkdir()
    told.put("a.g3")
    told.run_pass(check=0)
    assert told.waiting() == set()
    assert told.notices() == {("config-error", ".env")}
    assert "config-error" in told.status(check=0).out
    path.rmdir()
    write_env(told)
    told.run_pass(check=0)
    assert told.notices() == set()


FAULTS: dict[str, tuple[str, str]] = {
    "the buffer is gone": ("BufferLocation", "can't be listed (No such file or directory)"),
    "the database's directory is gone": ("FilenameDB", "there is no directory"),
    "the directory of the disks is gone": ("DiskMountPoints", "there is no directory"),
    "a slip of the pen": ("SettleTime", "is not a time"),
}


@pytest.mark.parametrize(("key", "why"), FAULTS.values(), ids=FAULTS)
def test_a_configuration_that_lets_no_pass_run_is_told_of_at_once(
    told: World, key: str, why: str
) -> None:
    """Exit 2; the pager is told once, not each minute, and of the end by the first good pass."""
    good = told.config_path.read_text()
    line = next(line for line in good.splitlines() if line.startswith(f"{key} "))
    value = "soon" if key == "SettleTime" else f"{told.root}/gone/x"
    told.config_path.write_text(good.replace(line, f"{key} = {value}"))
    for _ in range(2):
        told.run_pass(check=2)
    assert heard(told).count("No pass runs, so nothing is archived.") == 1
    beside = told.config_path.with_name("data_manager.log")
    assert why in told.log() + (beside.read_text() if beside.exists() else "")
    assert f"{key}: " in heard(told) and why in heard(told)
    told.config_path.write_text(good)
    told.run_pass(check=0)
    assert told.notices() == set()
    assert heard(told).count("RESOLVED  CRITICAL config-error") == 1
    assert not list(told.config_path.parent.glob(".station.config.told-*"))
    told.run_pass(check=0)
    assert heard(told).count("RESOLVED  CRITICAL config-error") == 1
