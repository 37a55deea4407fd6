"""The status as one static page: nothing is loaded from elsewhere, and every text is escaped.

A text comes from files' names, drives and notices: jinja2 escapes all of them, and the page's
own policy lets no script run but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2

from poledata import __version__, pictures, screen
from poledata.kinds import KINDS
from poledata.records import DiskState, Notice, Role
from poledata.report import NO_PASS_FOR_S, DiskStatus, Status
from poledata.screen import LISTED, Fact
from poledata.texts import people_time, seconds, size_text
from poledata.trends import DriveTrend, Trends
from poledata.watch import CRITICAL_PERCENT

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
        columns=pictures.columns([day.size_bytes for day in trends.days]),
        columns_width=len(trends.days) * pictures.COLUMN_WIDTH,
        most=max(trends.days, key=lambda day: day.size_bytes),
        in_use=[item for item in status.disks if item.disk.state is DiskState.ACTIVE],
        arrays=[(role.value, tuple(_slots(status, role))) for role in Role],
        drives=[_drive(drive, status.at_s) for drive in trends.drives],
        facts=[Fact("Archive", f"{status.db_path} ({status.config_path})"), *screen.facts(status)],
        size_text=size_text,
        room_text=screen.room_text,
        used_part=screen.used_part,
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
    percent = 100 * (screen.used_part(disk) or 0.0)
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
        curves.append(_Drawn(curve.subject, pictures.curve(curve.points), words))
    return _Drive(trend, people_time(seconds(trend.at), now_s), tuple(curves))
