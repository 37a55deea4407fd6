"""ALL WELL is proved: a station that lacks one thing says so, also when no pass can run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.stations import equip, try_at_once
from tests.helpers.world import World

DAY_S = 86_400.0


@pytest.fixture
def site(world: World) -> World:
    """A station that believes that its stand-ins are drives, with all that a site has."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    as_drives(world)
    equip(world)
    return world


def as_drives(world: World) -> None:
    """Only what ``status`` shows is tried here: no pass could use these directories as drives."""
    world.sql("UPDATE disks SET stand_in = 0")
    world.configure(RequireMount="yes")
    world.leave_unchecked("its stand-ins were called drives")


def verdict(world: World) -> tuple[str, list[str]]:
    found = world.status("--json", check=0).json()
    return found["verdict"], [one for one in found["reasons"] if not one.endswith("mount it")]


def test_a_site_that_has_everything_is_well_without_acknowledging_anything(site: World) -> None:
    """A channel, no watchdog on purpose, checked drives, and a pass that came to its end."""
    assert verdict(site)[1] == []


def no_pass_yet(site: World) -> str:
    for suffix in ("lock", "ended"):
        Path(f"{site.db_path}.{suffix}").unlink()
    return "no pass has run yet: is its line in the crontab?"


def dead_cron(site: World) -> str:
    for suffix in ("lock", "ended"):
        os.utime(f"{site.db_path}.{suffix}", (time.time() - 1000,) * 2)
    assert site.waiting() == set()
    return "no pass has run since "


def passes_that_fail(site: World) -> str:
    os.utime(f"{site.db_path}.ended", (time.time() - 1000,) * 2)
    return "passes begin, but none has come to its end: see the log"


def smart_never(site: World) -> str:
    site.sql("DELETE FROM smart_checks")
    return "SMART data of P01 S01 is older than 8 days, or was never read"


def smart_long_ago(site: World) -> str:
    site.sql("UPDATE smart_checks SET at = '2026-07-31T00:00:00Z'")
    return "SMART data of P01 S01 is older than 8 days, or was never read"


def nobody(site: World) -> str:
    site.config_path.with_name(".env").write_text("POLE_HEARTBEAT_URL=none\n")
    return "nobody would be notified"


def no_watchdog(site: World) -> str:
    site.config_path.with_name(".env").write_text("POLE_PAGER_COMMAND=true\n")
    return "no watchdog is set in .env"


def clock(site: World) -> str:
    site.sql("UPDATE files SET archived_at = '2099-01-01T00:00:00Z'")
    return "the clock is behind the database (2099-01-01T00:00:00Z): set it"


CASES = [
    no_pass_yet,
    dead_cron,
    passes_that_fail,
    smart_never,
    smart_long_ago,
    nobody,
    no_watchdog,
    clock,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_is_missing_is_the_reason(site: World, case: Callable[[World], str]) -> None:
    """One thing is taken away: the verdict is another one, with this one reason, at once."""
    wanted = case(site)
    found, reasons = verdict(site)
    assert found in ("LOOK TODAY", "ACT NOW")
    assert len(reasons) == 1 and reasons[0].startswith(wanted), reasons


def test_a_lock_that_another_program_holds_is_the_reason_for_every_user(site: World) -> None:
    """Also where no pass can begin, and so no notice is opened."""
    with subprocess.Popen(["flock", f"{site.db_path}.lock", "sleep", "60"]) as process:
        while str(process.pid) not in "".join(verdict(site)[1]):
            assert process.poll() is None
        found, reasons = verdict(site)
        process.kill()
    assert found == "ACT NOW"
    assert reasons == [
        "the lock of passes is held by another program: "
        f"{process.pid} (flock {site.db_path}.lock sleep 60) (pass-stuck)"
    ]


def test_a_locked_database_is_found_by_what_does_not_end(world: World) -> None:
    """A program holds it for days: passes fail, and status still answers."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    world.put("b.g3")
    os.utime(f"{world.db_path}.ended", (time.time() - 3 * DAY_S,) * 2)
    with closing(sqlite3.connect(world.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found, reasons = verdict(world)
    assert found == "ACT NOW"
    assert reasons == ["passes begin, but none has come to its end: see the log"]
    try_at_once(world)
    world.run_pass(check=0)
    assert verdict(world) == ("ALL WELL", [])
