"""Shapes of the status page's pictures, in the units of their SVG's view box (pure).

No picture holds text: it is stretched to the width of the page, and says in HTML what it shows.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from poledata import __version__, db
from poledata.archive.monitor import CRITICAL_PERCENT
from poledata.db.sqlite import Connection
from poledata.formatting import people_time, seconds, size_text, utc
from poledata.models import DayDone, Disk, DiskState, Notice, Role, SmartCheck
from poledata.notices.kinds import KINDS
from poledata.smart import rules
from poledata.status import text
from poledata.status.facts import DAY_S, NO_PASS_FOR_S, DiskStatus, Status
from poledata.status.text import LISTED, Fact

COLUMN_WIDTH, COLUMN_GAP = 10, 2
HEIGHT = 100.0
CURVE_WIDTH = 200.0


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a bar chart; y counts from the top."""

    x: int
    y: float
    width: int
    height: float


@dataclass(frozen=True, slots=True)
class Point:
    """A number at a time."""

    at_s: float
    value: int


def columns(values: Sequence[float]) -> tuple[Column, ...]:
    """One for each value; the highest is as high as the picture."""
    most = max(values, default=0) or 1
    width = COLUMN_WIDTH - COLUMN_GAP
    heights = [round(HEIGHT * value / most, 1) for value in values]
    return tuple(
        Column(number * COLUMN_WIDTH, round(HEIGHT - height, 1), width, height)
        for number, height in enumerate(heights)
    )


def curve_points(points: Sequence[Point]) -> str:
    """``x,y x,y …`` of a line from the first point to the last, the lowest value at the bottom."""
    first, last = points[0].at_s, points[-1].at_s
    lowest, highest = min(p.value for p in points), max(p.value for p in points)
    places = [
        (
            CURVE_WIDTH * _part(point.at_s, first, last),
            HEIGHT * (1 - _part(point.value, lowest, highest)),
        )
        for point in points
    ]
    if len(places) == 1:
        places.append((CURVE_WIDTH, places[0][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _part(value: float, low: float, high: float) -> float:
    """Where a value stands between two others, from 0 to 1."""
    return (value - low) / (high - low) if high > low else 0.0


DAYS = 28
_EXPECTED = ("healthy", "asleep", "absent")
_STATES_HERE = (DiskState.SPARE, DiskState.ACTIVE, DiskState.CLOSED)


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
    done = {day.day: day for day in db.files.archived_by_day(conn, names[0])}
    yield from (done.get(name, DayDone(name, 0, 0)) for name in names)


def _drives(conn: Connection, status: Status) -> Iterator[DriveTrend]:
    since = utc(status.at_s - DAYS * DAY_S)
    for item in status.disks:
        if item.health and item.health.health not in _EXPECTED and item.disk.state in _STATES_HERE:
            checks = db.smart.smart_history(conn, item.disk, min(since, item.health.at))
            if checks:
                yield _trend(item.disk, checks)


def _trend(disk: Disk, checks: list[SmartCheck]) -> DriveTrend:
    last = checks[-1]
    curves = [
        Curve(row.subject, points)
        for row in rules.counted_in(last.reasons)
        if (points := tuple(_points(checks, row.number)))
    ]
    return DriveTrend(disk, last.health.value, last.at, last.reasons, tuple(curves))


def _points(checks: list[SmartCheck], number: str) -> Iterator[Point]:
    for check in checks:
        if number in check.numbers:
            yield Point(seconds(check.at), check.numbers[number])


BEGINNING = "<!DOCTYPE html>\n<!-- the status page of Pole Data Manager -->\n"
_HERE = Path(__file__).parent
_AT_THE_STATION = (DiskState.SPARE, DiskState.ACTIVE, DiskState.CLOSED)
_USE = {DiskState.SPARE: "spare", DiskState.ACTIVE: "in use", DiskState.CLOSED: "closed"}


def render(status: Status, trends: Trends, full_percent: float) -> str:
    """The page; ``full_percent``: from where on the buffer's level is a notice."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (_HERE / "status_page.js").read_text(encoding="utf-8")
    template = environment.from_string((_HERE / "status_page.html").read_text(encoding="utf-8"))
    return BEGINNING + template.render(
        status=status,
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(status.at_s)),
        old_after_s=NO_PASS_FOR_S,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        notices=[_told(notice, status.at_s) for notice in status.notices[: 2 * LISTED]],
        pending=status.pending[:LISTED],
        levels=(full_percent, CRITICAL_PERCENT),
        days=trends.days,
        columns=columns([day.size_bytes for day in trends.days]),
        columns_width=len(trends.days) * COLUMN_WIDTH,
        most=max(trends.days, key=lambda day: day.size_bytes),
        in_use=[item for item in status.disks if item.disk.state is DiskState.ACTIVE],
        arrays=[(role.value, tuple(_slots(status, role))) for role in Role],
        drives=[_drive(drive, status.at_s) for drive in trends.drives],
        facts=[Fact("Archive", f"{status.db_path} ({status.config_path})"), *text.facts(status)],
        size_text=size_text,
        room_text=text.room_text,
        used_part=text.used_part,
        version=__version__,
    )


# --- notices ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """An open notice, and what to do."""

    notice: Notice
    since: str
    safe: str
    steps: tuple[str, ...]


def _told(notice: Notice, now_s: float) -> _Told:
    kind = KINDS[notice.kind]
    return _Told(notice, people_time(seconds(notice.opened_at), now_s), kind.safe, kind.steps)


# --- the arrays ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slot:
    """A disk in its array; ``words`` say it all to who can't see it."""

    label: str
    look: str  # spare, active, closed
    is_here: bool
    has_flaw: bool
    percent: float
    mark: str
    words: str


def _slots(status: Status, role: Role) -> Iterator[_Slot]:
    for item in status.disks:
        if item.disk.role is role and item.disk.state in _AT_THE_STATION:
            yield _slot(item)


def _slot(item: DiskStatus) -> _Slot:
    disk = item.disk
    percent = 100 * (text.used_part(disk) or 0.0)
    flaws = tuple(_flaws(item))
    use = _USE[disk.state]
    level = f"{percent:.0f} %"
    on_shelf = disk.state is DiskState.CLOSED and not item.is_mounted
    words = [use, *([f"{level} full"] if percent else []), *(["on the shelf"] * on_shelf), *flaws]
    mark = flaws[0] if flaws else "shelf" if on_shelf else level if use == "in use" else use
    return _Slot(
        disk.label,
        disk.state.value,
        item.is_mounted,
        bool(flaws),
        percent,
        mark,
        f"{disk.label}, serial {disk.serial}: {', '.join(words)}",
    )


def _flaws(item: DiskStatus) -> Iterator[str]:
    if item.disk.held_by:
        yield "held"
    if not item.is_mounted and item.disk.state is not DiskState.CLOSED:
        yield "not here"
    if item.health and item.health.health not in ("healthy", "asleep", "absent"):
        yield item.health.health


# --- drives that are not well -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One number of a drive as a line, and in words."""

    subject: str
    line: str
    words: str


@dataclass(frozen=True, slots=True)
class _Drive:
    trend: DriveTrend
    since: str
    curves: tuple[_Drawn, ...]


def _drive(trend: DriveTrend, now_s: float) -> _Drive:
    curves = []
    for curve in trend.curves:
        first, last = curve.points[0], curve.points[-1]
        day = time.strftime("%Y-%m-%d", time.gmtime(first.at_s))
        words = f"{first.value} on {day}, now {last.value}"
        curves.append(_Drawn(curve.subject, curve_points(curve.points), words))
    return _Drive(trend, people_time(seconds(trend.at), now_s), tuple(curves))
