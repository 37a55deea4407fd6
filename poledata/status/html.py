"""The status as a page for a browser, with charts of the last four weeks.

No chart holds text: it is stretched to the width of the page, and HTML says what it shows.
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
from poledata.formatting import DAY_S, people_time, seconds, size_text, utc
from poledata.models import GONE, DayDone, Disk, DiskState, Role, SmartCheck
from poledata.notices.kinds import KINDS
from poledata.smart import rules
from poledata.status import text
from poledata.status.conditions import BUFFER_CRITICAL_PERCENT, NO_PASS_FOR_S
from poledata.status.facts import DiskStatus, Status
from poledata.status.text import Fact

BEGINNING = "<!DOCTYPE html>\n<!-- the status page of Pole Data Manager -->\n"
DAYS = 28
# In units of the view boxes of the page's SVG.
COLUMN_WIDTH, COLUMN_GAP = 10, 2
HEIGHT = 100.0
CURVE_WIDTH = 200.0
_HERE = Path(__file__).parent
_NOT_ODD = ("healthy", "asleep", "absent")
_USE = {DiskState.SPARE: "spare", DiskState.ACTIVE: "in use", DiskState.CLOSED: "closed"}


@dataclass(frozen=True, slots=True)
class Point:
    """A number at a time."""

    at_s: float
    value: int


@dataclass(frozen=True, slots=True)
class Curve:
    """One number of a drive, at each check."""

    subject: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class DriveTrend:
    """A drive with problems: the reasons, and how its numbers changed."""

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


# --- the last four weeks ------------------------------------------------------------------


def collect(conn: db.Connection, status: Status) -> Trends:
    """Return the last four weeks, counted back from the time of the status."""
    names = [utc(status.at_s - back * DAY_S)[:10] for back in reversed(range(DAYS))]
    done = {day.day: day for day in db.files.archived_by_day(conn, names[0])}
    days = tuple(done.get(name, DayDone(name, 0, 0)) for name in names)
    return Trends(days, tuple(_drives(conn, status)))


def _drives(conn: db.Connection, status: Status) -> Iterator[DriveTrend]:
    since = utc(status.at_s - DAYS * DAY_S)
    for item in status.disks:
        if item.health and item.health.health not in _NOT_ODD and item.disk.state not in GONE:
            checks = db.smart.smart_history(conn, item.disk, min(since, item.health.at))
            if checks:
                yield _trend(item.disk, checks)


def _trend(disk: Disk, checks: Sequence[SmartCheck]) -> DriveTrend:
    curves = []
    for row in rules.counted_in(checks[-1].reasons):
        points = tuple(
            Point(seconds(check.at), check.numbers[row.number])
            for check in checks
            if row.number in check.numbers
        )
        curves += [Curve(row.subject, points)] if points else []
    last = checks[-1]
    return DriveTrend(disk, last.health.value, last.at, last.reasons, tuple(curves))


# --- the page -----------------------------------------------------------------------------


def render(status: Status, trends: Trends, full_percent: float) -> str:
    """Return the page; from ``full_percent`` on, the level of the buffer is a notice."""
    script = (_HERE / "status_page.js").read_text(encoding="utf-8")
    at_station = [item for item in status.disks if item.disk.state not in GONE]
    archive = Fact("Archive", (f"{status.db_path} ({status.config_path})",))
    return BEGINNING + _template().render(
        status=status,
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(status.at_s)),
        old_after_s=NO_PASS_FOR_S,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        notices=status.notices[: text.NOTICES_LISTED],
        kinds=KINDS,
        pending=status.pending[: text.FILES_LISTED],
        levels=(full_percent, BUFFER_CRITICAL_PERCENT),
        days=trends.days,
        columns=columns([day.size_bytes for day in trends.days]),
        columns_width=len(trends.days) * COLUMN_WIDTH,
        most=max(trends.days, key=lambda day: day.size_bytes),
        in_use=[item for item in status.disks if item.disk.state is DiskState.ACTIVE],
        arrays=[
            (role.value, [_slot(item) for item in at_station if item.disk.role is role])
            for role in Role
        ],
        drives=trends.drives,
        facts=[archive, *text.archive_facts(status), *text.disk_facts(status)],
        since=lambda at: people_time(seconds(at), status.at_s),
        version=__version__,
    )


def _template() -> jinja2.Template:
    """Return the template of the page, with the functions that it calls."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        curve=curve,
        day_of=lambda at_s: time.strftime("%Y-%m-%d", time.gmtime(at_s)),
        level_text=text.level_text,
        pending_text=text.pending_text,
        size_text=size_text,
        undelivered_text=text.undelivered_text,
        used_part=text.used_part,
    )
    return environment.from_string((_HERE / "status_page.html").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class _Slot:
    """A disk in the picture of its array; ``words`` describe it to a screen reader."""

    item: DiskStatus
    has_flaw: bool
    percent: float
    mark: str
    words: str


def _slot(item: DiskStatus) -> _Slot:
    disk, use, flaws = item.disk, _USE[item.disk.state], tuple(_flaws(item))
    percent = 100 * (text.used_part(disk) or 0.0)
    level = f"{percent:.0f} %"
    on_shelf = disk.state is DiskState.CLOSED and not item.is_mounted
    words = [use, *[f"{level} full"] * bool(percent), *["on the shelf"] * on_shelf, *flaws]
    mark = flaws[0] if flaws else "shelf" if on_shelf else level if use == "in use" else use
    description = f"{disk.label}, serial {disk.serial}: {', '.join(words)}"
    return _Slot(item, bool(flaws), percent, mark, description)


def _flaws(item: DiskStatus) -> Iterator[str]:
    if item.disk.held_by:
        yield "held"
    if not item.is_mounted and item.disk.state is not DiskState.CLOSED:
        yield "not here"
    if item.health and item.health.health not in _NOT_ODD:
        yield item.health.health


# --- shapes of the charts -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a bar chart; y counts from the top."""

    x: int
    y: float
    width: int
    height: float


def columns(values: Sequence[float]) -> tuple[Column, ...]:
    """Return one column for each value; the highest is as high as the chart."""
    most = max(values, default=0) or 1
    heights = [round(HEIGHT * value / most, 1) for value in values]
    return tuple(
        Column(number * COLUMN_WIDTH, round(HEIGHT - height, 1), COLUMN_WIDTH - COLUMN_GAP, height)
        for number, height in enumerate(heights)
    )


def curve(points: Sequence[Point]) -> str:
    """Return ``x,y x,y …`` from the first point to the last, the lowest value at the bottom."""
    first, last = points[0].at_s, points[-1].at_s
    lowest, highest = min(p.value for p in points), max(p.value for p in points)
    places = [
        (CURVE_WIDTH * _part(p.at_s, first, last), HEIGHT * (1 - _part(p.value, lowest, highest)))
        for p in points
    ]
    if len(places) == 1:
        places.append((CURVE_WIDTH, places[0][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _part(value: float, low: float, high: float) -> float:
    """Return where a value is between two others, from 0 to 1."""
    return (value - low) / (high - low) if high > low else 0.0
