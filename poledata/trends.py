"""What only a picture shows: data archived per day, and the numbers of drives that are not well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from poledata import catalogue, health
from poledata.db import Connection
from poledata.pictures import Point
from poledata.records import DayDone, Disk, DiskState, SmartCheck
from poledata.report import DAY_S, Status
from poledata.texts import seconds, utc

DAYS = 28
_EXPECTED = ("healthy", "asleep", "absent")
_HERE = (DiskState.SPARE, DiskState.ACTIVE, DiskState.CLOSED)


@dataclass(frozen=True, slots=True)
class Curve:
    """One number of a drive, at each check."""

    subject: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class DriveTrend:
    """A drive that is not well: why, and how that came."""

    disk: Disk
    health: str
    at: str
    reasons: tuple[str, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Trends:
    """The last four weeks."""

    days: tuple[DayDone, ...]  # every day, the oldest first
    drives: tuple[DriveTrend, ...]


def collect(conn: Connection, status: Status) -> Trends:
    """Look at the last four weeks, counted back from the status."""
    return Trends(tuple(_days(conn, status.at_s)), tuple(_drives(conn, status)))


def _days(conn: Connection, now_s: float) -> Iterator[DayDone]:
    names = [utc(now_s - back * DAY_S)[:10] for back in reversed(range(DAYS))]
    done = {day.day: day for day in catalogue.archived_by_day(conn, names[0])}
    yield from (done.get(name, DayDone(name, 0, 0)) for name in names)


def _drives(conn: Connection, status: Status) -> Iterator[DriveTrend]:
    since = utc(status.at_s - DAYS * DAY_S)
    for item in status.disks:
        if item.health and item.health.health not in _EXPECTED and item.disk.state in _HERE:
            checks = catalogue.smart_history(conn, item.disk, min(since, item.health.at))
            if checks:
                yield _trend(item.disk, checks)


def _trend(disk: Disk, checks: list[SmartCheck]) -> DriveTrend:
    last = checks[-1]
    curves = [
        Curve(row.subject, points)
        for row in health.counted_in(last.reasons)
        if (points := tuple(_points(checks, row.number)))
    ]
    return DriveTrend(disk, last.health.value, last.at, last.reasons, tuple(curves))


def _points(checks: list[SmartCheck], number: str) -> Iterator[Point]:
    for check in checks:
        if number in check.numbers:
            yield Point(seconds(check.at), check.numbers[number])
