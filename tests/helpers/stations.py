"""What tests ask about a station, and how they hurry it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poledata.db import sqlite
from tests.helpers.bugs import with_constant
from tests.helpers.world import World

# Nobody wants to wait for the 60 s that a pass waits for a locked database, and there is no
# setting for it: this runs the script named in the arguments with that one constant altered.
IMPATIENT = with_constant(sqlite, "BUSY_TIMEOUT_S", 0.6)


def inode_and_times(path: Path) -> tuple[int, int, int]:
    """Which file this is, and when it was last written to in any way."""
    info = path.stat()
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def notice_text(world: World, kind: str, key: str) -> str:
    """The text of one open notice."""
    rows = world.sql(
        "SELECT text FROM notices WHERE resolved_at IS NULL AND (kind, key) = (?, ?)", kind, key
    )
    assert len(rows) == 1, (kind, key, world.notices())
    return str(rows[0]["text"])


# What a station of a test lacks as a site: root's checks of the drives, channels, a watchdog.
OF_THE_SITE = ("SMART data of", "nobody would be notified", "no watchdog is set")


def reasons(world: World) -> list[str]:
    """Why the archive is not well, except what every station of a test lacks."""
    found = world.status("--json", check=0).json()["reasons"]
    return [reason for reason in found if not reason.startswith(OF_THE_SITE)]


def equip(world: World) -> None:
    """Give the station what else a site has: healthy drives, a channel, no watchdog on purpose."""
    world.sql(
        "INSERT INTO smart_checks (disk_id, at, health) "
        "SELECT id, strftime('%Y-%m-%dT%H:%M:%SZ'), 'healthy' FROM disks"
    )
    env = world.config_path.with_name(".env")
    env.write_text("POLE_PAGER_COMMAND=true\nPOLE_HEARTBEAT_URL=none\n")
    env.chmod(0o600)


def try_at_once(world: World) -> None:
    """Let the files that failed be due now, as they are after their wait."""
    world.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")


@contextmanager
def another_pass(world: World) -> Iterator[None]:
    """A process that seems to be a pass holds the lock, while this lasts."""
    code = "import fcntl, sys; lock = open(sys.argv[2], 'a'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
    code += "print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, "data_manager.py", f"{world.db_path}.lock"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield


@contextmanager
def read_only(world: World) -> Iterator[None]:
    """Database, its directory and the log as another user has them: to be looked at alone."""
    paths = [path for path in world.db_path.parent.iterdir() if path.is_file()]
    for path in paths:
        path.chmod(0o444)
    world.db_path.parent.chmod(0o555)
    try:
        yield
    finally:
        world.db_path.parent.chmod(0o700)
        for path in paths:
            path.chmod(0o644)
