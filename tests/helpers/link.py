"""The way to people: channels, secrets, and a link that is down."""

from __future__ import annotations

import time
from pathlib import Path

from poledata.formatting import utc
from poledata.models import Channel
from tests.helpers.world import World

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
BAD_NAME = "100%.g3"  # the quickest way to a notice


def put_bad_name(world: World, name: str = BAD_NAME) -> None:
    (world.buffer / name).write_text("x")


def rested(world: World) -> None:
    """A channel that failed has rested long enough."""
    world.sql("UPDATE deliveries SET tried_at = ?", utc(time.time() - HOUR_S))


def take_away(world: World, *labels: str) -> None:
    for label in labels:
        world.disks[label].rename(world.root / f"away-{label}")


def children(pid: int) -> list[str]:
    """The command lines of a process's children (proc(5))."""
    lines = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in path.read_text().split():
                raw = Path(f"/proc/{child}/cmdline").read_bytes()
                lines.append(raw.replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended
    return lines


ENV = ".env"


def write_env(world: World, mode: int = 0o600, **values: str) -> Path:
    path = world.config_path.with_name(ENV)
    path.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    path.chmod(mode)
    return path


def url(target: str) -> Channel:
    return Channel("notify-1-json", target)


def command(target: str) -> Channel:
    return Channel("pager-command", target, is_command=True, is_pager=True)
