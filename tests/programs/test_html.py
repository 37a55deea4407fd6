"""The status in a browser, as a tired person, a phone and a screen reader see it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poledata import db
from poledata.formatting import utc
from poledata.models import (
    DayDone,
    Health,
    HealthCheck,
    SmartCheck,
)
from poledata.status import html
from poledata.status.facts import DiskStatus
from poledata.status.html import Curve, Point
from tests.helpers.sample_status import NOON, STATUS, make_db
from tests.helpers.world import World

# --- pictures --------------------------------------------------------------------------------


def test_the_last_four_weeks_are_shown_day_by_day(world: World) -> None:
    """Days without data too; what is older is left out."""
    make_db(world, "P01")
    world.leave_unchecked("its rows are made up")
    for day, size in (("2026-10-26", 1), ("2026-10-27", 2), ("2026-11-22", 3), ("2026-11-23", 4)):
        for number in range(size):
            world.sql(
                "INSERT INTO files (name, size_bytes, sha512, mtime_ns, archived_at) "
                "VALUES (?, ?, '', 0, ?)",
                f"{day}-{number}", 10, f"{day}T23:59:59Z",
            )  # fmt: skip
    with db.connect(world.db_path, read_only=True) as conn:
        days = html.collect(conn, STATUS).days
    assert len(days) == 28
    assert days[0] == DayDone("2026-10-27", 2, 20)
    assert days[-2:] == (DayDone("2026-11-22", 3, 30), DayDone("2026-11-23", 4, 40))
    assert {day.files for day in days[1:-2]} == {0}


def _checked(world: World, *checks: SmartCheck) -> tuple[html.DriveTrend, ...]:
    from poledata import db

    make_db(world, "P01")
    with db.connect(world.db_path) as conn:
        (one,) = db.disks.disks(conn)
        with db.transaction(conn):
            for check in checks:
                db.smart.add_smart_check(conn, one, check, 0, True, '{"long": "report"}')
        last = HealthCheck(checks[-1].at, checks[-1].health.value, None)
        status = replace(STATUS, disks=(DiskStatus(one, True, health=last),))
        return html.collect(conn, status).drives


def _check(days_ago: float, health: Health, reasons: tuple[str, ...], **numbers: int) -> SmartCheck:
    at = utc(NOON - days_ago * 86_400)
    return SmartCheck(at, health, 31, 1000, numbers, numbers, reasons)


def test_a_drive_that_is_not_well_shows_the_numbers_behind_its_reasons(world: World) -> None:
    """Those of the newest check, for four weeks; other numbers are nobody's concern."""
    told = ("pending sectors (197): 0 → 8", "it says itself that it is failing")
    (drive,) = _checked(
        world,
        _check(29, Health.HEALTHY, (), pending=0, reallocated=0),
        _check(2, Health.HEALTHY, (), pending=0, reallocated=0),
        _check(1, Health.UNKNOWN, ("it gives no health report",)),
        _check(0, Health.FAILING, told, pending=8, reallocated=3, says_failing=1),
    )
    assert (drive.disk.label, drive.health, drive.at) == ("P01", "failing", utc(NOON))
    assert drive.reasons == told
    days = (Point(NOON - 2 * 86_400, 0), Point(NOON, 8))
    assert drive.curves == (Curve("pending sectors (197)", days),)


@pytest.mark.parametrize("health", [Health.HEALTHY, Health.ASLEEP])
def test_a_drive_that_is_well_is_not_shown(world: World, health: Health) -> None:
    """Nor one that sleeps."""
    assert _checked(world, _check(1, health, ("left asleep",), pending=0)) == ()
