"""Passes, root's checks and lookers at the same time: no one stops, starves or locks out another.

What a person does beside a running pass stands in test_at_the_rack.py.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.other_users import reachable
from tests.helpers.world import REPO, World

NOBODY = 65534
STRANGER = 12345
AS_CRON = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
AS_STRANGER = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups")
AS_GROUP = ("setpriv", f"--reuid={STRANGER}", f"--regid={NOBODY}", "--clear-groups")
HELD_S = 20.0
# What root's check of the drives does to the database, again and again until it is ended.
CHECKS = """\
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from poledata import db
from poledata.system import privileges
path = Path(sys.argv[2])
privileges.become_owner_of_directory(path.parent)
while True:
    with db.connect(path) as conn, db.transaction(conn):
        conn.execute("INSERT INTO smart_checks (disk_id, at, health) "
                     "VALUES (1, '2026-01-01T00:00:00Z', 'passed')")
    time.sleep(0.05)  # far more often than any check, and yet not without a pause
"""


@pytest.fixture
def crons() -> Iterator[World]:
    """A station of an ordinary user, who runs the passes; its group may write there too."""
    with tempfile.TemporaryDirectory(prefix="pole-") as base:
        os.chmod(base, 0o755)
        station = World(Path(base))
        station.put("a.g3")
        station.generate()
        station.run_pass(check=0)
        give_to_cron(station)
        try:
            yield station
        finally:
            station.close()


def give_to_cron(world: World) -> None:
    for directory, _, names in os.walk(world.root):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            os.chown(path, NOBODY, NOBODY)
    world.db_path.parent.chmod(0o775)


def test_of_many_passes_at_once_one_works_and_nothing_is_done_twice(world: World) -> None:
    """The others end with 0, in silence."""
    names = {world.put(f"{number}.g3", 5000).name for number in range(40)}
    world.generate()
    started = [world.start("data_manager.py") for _ in range(6)]
    codes = [process.wait(timeout=60) for process in started]
    assert set(codes) == {0}
    assert (world.root / "err").read_text() == (world.root / "out").read_text() == ""
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        assert world.manifest(label).keys() == names
    assert world.sql("SELECT sum(files_archived) FROM passes")[0][0] == len(names)


@pytest.mark.root
def test_a_pass_roots_checks_and_lookers_work_at_the_same_time(crons: World) -> None:
    """The pass as the cron user, root's checks all the while, status as two other users: one
    who may not write beside the database, one who may. All succeed, and all stays the cron
    user's."""
    command = [*reachable(), sys.executable, "-c", CHECKS, str(REPO), str(crons.db_path)]
    checks = subprocess.Popen(command)
    try:
        for number in range(5):
            crons.put(f"{number}.g3")
            give_to_cron(crons)
            crons.run_pass(check=0, prefix=AS_CRON)
            for who in (AS_STRANGER, AS_GROUP):
                run = crons.run_pass("status", check=0, prefix=who)
                assert f"Archived   {number + 2} files" in run.out
        assert checks.poll() is None
    finally:
        checks.kill()
        checks.wait()
    assert crons.sql("SELECT count(*) FROM smart_checks")[0][0] > 5
    assert crons.waiting() == set()
    crons.run_pass(check=0, prefix=AS_CRON)  # what root's last moment left is rolled back
    beside = [path for path in crons.db_path.parent.iterdir() if path.name != "data_manager.log"]
    assert {path.stat().st_uid for path in beside} == {NOBODY}


@pytest.mark.waits
def test_a_reader_who_holds_the_database_for_long_is_waited_for(world: World) -> None:
    """Twenty seconds of somebody's query delay the first commit, and lose nothing."""
    world.put("a.g3", 5000)
    world.generate()
    with closing(sqlite3.connect(world.db_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM disks").fetchall()
        began = time.monotonic()
        process = world.start("data_manager.py")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=HELD_S)
        assert world.waiting() == {"a.g3"}
        reader.execute("COMMIT")
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - began > HELD_S
    assert world.waiting() == set()
    world.unfinished = False


@pytest.mark.root
def test_a_full_file_system_of_the_database_removes_nothing(world: World) -> None:
    """The pass says so and ends with 1; with room again, the next one finishes."""
    place = world.db_path.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "x", place], check=True)
    try:
        names = {world.put(f"{number}.g3", 3000).name for number in range(200)}
        world.generate()
        ballast = place / "ballast"
        with open(ballast, "wb", buffering=0) as file:
            for size in (1 << 16, 4096):
                while fill(file.fileno(), bytes(size)):
                    pass
        run = world.run_pass(check=1)
        assert run.out == ""
        assert "data_manager.log: the log can't be written: [Errno 28]" in run.err
        assert world.waiting() == names
        ballast.unlink()
        world.run_pass(check=0)
        assert world.waiting() == set()
        world.check()
    finally:
        world.leave_unchecked("its database was in memory, and was checked")
        subprocess.run(["umount", place], check=True)


def fill(fd: int, content: bytes) -> bool:
    try:
        return os.write(fd, content) == len(content)
    except OSError:
        return False
