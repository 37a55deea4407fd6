"""Stations whose disks are verified, and passes that stand still."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.halted import strace
from tests.helpers.rack import until
from tests.helpers.world import World

LONG_AGO = "2020-01-01T00:00:00Z"


def filled(world: World, *names: str, large: str | None = None) -> World:
    """These files are on P01 and S01, verified long ago; reading a large one takes some time."""
    for number, name in enumerate(names):
        world.put(name, 64 * 1024**2 if name == large else 10_000 + number)
    world.generate()
    world.run_pass(check=0)
    world.sql("UPDATE copies SET verified_at = ?", LONG_AGO)
    return world


def states(world: World, label: str = "P01") -> dict[str, str]:
    """File name → state of its copy on a disk."""
    query = "SELECT f.name, c.state FROM copies c JOIN files f ON f.id = file_id JOIN disks d "
    return dict(map(tuple, world.sql(f"{query} ON d.id = disk_id WHERE label = ?", label)))


def notice(world: World, kind: str, key: str) -> str:
    query = "SELECT text FROM notices WHERE kind = ? AND key = ? AND resolved_at IS NULL"
    return "".join(row["text"] for row in world.sql(query, kind, key))


def standing_still_at(
    world: World, name: str, label: str = "P01", args: Sequence[str] = ("verify", "P01")
) -> tuple[subprocess.Popen[str], int]:
    """A command, halted where it begins to read this file; and the thread that reads."""
    trace = world.root / "trace"
    trace.unlink(missing_ok=True)
    calls = "preadv,preadv2"
    prefix = strace(world, calls, [world.data(label) / name], "signal=SIGSTOP:when=1")
    reading = world.start("data_manager.py", *args, prefix=prefix)
    until(lambda: trace.exists() and "stopped by SIGSTOP" in trace.read_text(), "it stands still")
    stopped = [line for line in trace.read_text().splitlines() if "stopped by SIGSTOP" in line]
    return reading, int(stopped[0].split()[0])


def process_of(thread: int) -> int:
    """The process that a thread belongs to (proc(5))."""
    return int(Path(f"/proc/{thread}/status").read_text().split("Tgid:")[1].split()[0])
