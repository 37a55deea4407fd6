"""How the archive stands: gathered without changing anything, for any user who may read it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Any

from poledata import db
from poledata.archive import buffer, buffer_marker, writers
from poledata.config import Config
from poledata.context import is_here
from poledata.db.sqlite import Connection
from poledata.disks import selection
from poledata.formatting import counted, people_time, utc
from poledata.models import (
    GONE,
    Disk,
    DiskState,
    HealthCheck,
    Notice,
    PassRow,
    Pause,
    Pending,
    Role,
    Severity,
)
from poledata.notices.channels import configured_channels
from poledata.notices.kinds import KINDS, says_it_itself
from poledata.system import locks, mounts

DAY_S = 86_400.0
NO_PASS_FOR_S = 900.0  # cron starts one each minute


class ArchiveVerdict(str, Enum):
    """The first words of the status."""

    ALL_WELL = "ALL WELL"
    LOOK_TODAY = "LOOK TODAY"
    ACT_NOW = "ACT NOW"


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """A disk, whether something is mounted at its place, and what is known of its health."""

    disk: Disk
    is_mounted: bool
    full_at_s: float | None = None  # of one in use, at the last week's rate
    oldest_verified_at: str | None = None  # its copy that was not read for longest
    health: HealthCheck | None = None
    never_read: int = 0  # good copies that were never read back
    overdue: int = 0  # good copies here that were not read for twice VerifyEvery


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """What lies in the buffer; ``fault`` says why it can't be read, or is not the right one."""

    fault: str | None = None
    is_wrong: bool = False  # it is not the one that is meant
    finished_files: int = 0
    finished_bytes: int = 0
    unfinished_files: int = 0
    other_files: int = 0
    links_and_specials: int = 0
    oldest_at_s: float | None = None
    lease_can_be_had: bool | None = None  # None: there is no file to tell by
    trusts_leases: bool | None = None  # whether one proves that nobody writes
    writer_rule: str | None = None  # why
    used_percent: float | None = None


@dataclass(frozen=True, slots=True)
class ArchivedAmount:
    """What was archived: in all, in the last day, in the last week."""

    files: int
    size_bytes: int
    day_files: int
    day_bytes: int
    week_files: int
    week_bytes: int


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A channel through which notices could not be sent when that was last tried."""

    channel: str
    notices: int
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that ``status`` tells; ``reasons`` are why the verdict is what it is."""

    at_s: float
    config_path: str
    db_path: str
    stand_ins: bool
    unidentified_drives: bool  # AcceptUnidentifiedDrives: two disks may be on one drive
    buffer: BufferStatus
    disks: tuple[DiskStatus, ...]
    archived: ArchivedAmount
    lacking_copies: int  # to be made again: damaged, missing, or never made
    pending: tuple[Pending, ...]
    notices: tuple[Notice, ...]
    last_pass: PassRow | None
    looked_at_s: float | None  # when a pass last began, also one with nothing to do
    without_good_copy: int = 0  # files with copies, and not one that is good
    pause: Pause | None = None
    undelivered: tuple[Undelivered, ...] = ()
    warnings: tuple[str, ...] = ()  # of the configuration
    verdict: ArchiveVerdict = ArchiveVerdict.ALL_WELL
    reasons: tuple[str, ...] = ()


def collect(config: Config, conn: Connection) -> Status:
    """Look at everything."""
    now_s = time.time()
    archived = _archived(conn, now_s)
    status = Status(
        at_s=now_s,
        config_path=str(config.path),
        db_path=str(config.db_path),
        stand_ins=not config.require_mount,
        unidentified_drives=config.require_mount and config.accept_unidentified,
        buffer=_look_at_buffer(config, conn),
        disks=tuple(_look_at_disks(config, conn, archived, now_s)),
        archived=archived,
        lacking_copies=buffer_marker.count_lacking(config, conn),
        without_good_copy=db.copies.count_without_good_copy(conn),
        pending=tuple(db.passes.pending(conn).values()),
        notices=tuple(db.notices.open_notices(conn)),
        last_pass=db.passes.last_pass(conn),
        looked_at_s=locks.last_begun_at_s(config.db_path),
        pause=db.passes.current_pause(conn, utc(now_s)),
        undelivered=tuple(_undelivered(config, conn)),
        warnings=config.warnings if os.geteuid() == _cron_uid(config) else (),
    )
    return judged(status)


def _archived(conn: Connection, now_s: float) -> ArchivedAmount:
    spans = (utc(now_s - DAY_S), utc(now_s - 7 * DAY_S))
    (day, week), total = (
        [db.files.totals(conn, at) for at in spans],
        db.files.totals(conn),
    )
    return ArchivedAmount(*total, *day, *week)


def _look_at_disks(
    config: Config, conn: Connection, archived: ArchivedAmount, now_s: float
) -> Iterator[DiskStatus]:
    mounted = mounts.mounted_places() if config.require_mount else None
    health = db.disks.last_health(conn)
    disks = db.disks.disks(conn)
    at_places = {disk.label for disk in disks if disk.state not in GONE}
    for disk in sorted(disks, key=_primaries_first):
        has_left = disk.state in GONE and disk.label in at_places  # another has its label by now
        is_mounted = not has_left and is_here(config, disk, mounted)
        yield DiskStatus(
            disk,
            is_mounted,
            _full_at_s(config, disk, archived, now_s),
            db.copies.oldest_verified_at(conn, disk),
            health.get(disk.id),
            db.copies.never_read(conn, disk),
            _overdue(config, conn, disk, is_mounted, now_s),
        )


def _overdue(config: Config, conn: Connection, disk: Disk, is_mounted: bool, now_s: float) -> int:
    """Of a disk in use, or a closed one that is not on the shelf."""
    is_expected = disk.state is DiskState.ACTIVE or (disk.state is DiskState.CLOSED and is_mounted)
    if not is_expected or not config.verify_every_s:
        return 0
    return db.copies.not_read_since(conn, disk, utc(now_s - 2 * config.verify_every_s))


def _full_at_s(config: Config, disk: Disk, archived: ArchivedAmount, now_s: float) -> float | None:
    if disk.state is not DiskState.ACTIVE or disk.free_bytes is None or not archived.week_bytes:
        return None
    room_bytes = max(0, disk.free_bytes - config.min_free_bytes)
    return now_s + room_bytes / archived.week_bytes * 7 * DAY_S


def _primaries_first(disk: Disk) -> tuple[bool, tuple[str, int]]:
    return disk.role is Role.COPY, selection.label_key(disk.label)


def _cron_uid(config: Config) -> int:
    """Others may not read .env, and that is no fault."""
    return config.db_path.parent.stat().st_uid


def _undelivered(config: Config, conn: Connection) -> Iterator[Undelivered]:
    """Of the channels that are set; of all where none is known, as to who may not read .env."""
    names = {channel.name for channel in configured_channels(config.secrets)}
    waiting = db.notices.undelivered(conn)
    for channel, group in groupby(waiting, key=lambda one: one.channel):
        if names and channel not in names:
            continue
        ones = list(group)
        last = max(ones, key=lambda one: (one.tried_at or "", one.attempts))
        yield Undelivered(channel, len(ones), last.attempts, str(last.last_error))


def _look_at_buffer(config: Config, conn: Connection) -> BufferStatus:
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        return BufferStatus(fault=fault.strerror)
    try:
        if wrong := buffer_marker.prove(config, conn, fd, may_adopt=False).wrong:
            return BufferStatus(fault=wrong, is_wrong=True)
        rule = writers.look(fd, config.remote_writers)
        settle_s = buffer.settle_s(config.settle_s, fd)
        seen = buffer.scan(fd, config.extensions, settle_s, time.time(), at_most=1)
        room = mounts.space(fd)
        cron_uid = _cron_uid(config)
        lease = buffer.lease_can_be_had(fd, seen.waiting[0], cron_uid) if seen.waiting else None
    finally:
        os.close(fd)
    return BufferStatus(
        fault="; ".join(f"{name}: {why}" for name, why in seen.unlistable.items()) or None,
        finished_files=seen.settled_files,
        finished_bytes=seen.settled_bytes,
        unfinished_files=seen.unsettled_files,
        other_files=seen.other_files,
        links_and_specials=seen.links_and_specials,
        oldest_at_s=seen.waiting[0].stat.mtime_ns / 1e9 if seen.waiting else None,
        lease_can_be_had=lease,
        trusts_leases=rule.trusts_leases,
        writer_rule=rule.why,
        used_percent=100 * room.used_bytes / max(1, room.used_bytes + room.free_bytes),
    )


def as_json(status: Status) -> dict[str, Any]:
    """The same as plain values; the keys are stable (README)."""
    return asdict(status)


# --- the verdict --------------------------------------------------------------------------


def judged(status: Status) -> Status:
    """With its verdict, and the reasons for it. Pure."""
    now = (*_told(status, Severity.CRITICAL), *_no_pass(status))
    today = (*_told(status, Severity.WARNING), *_to_look_at(status))
    if now:
        return replace(status, verdict=ArchiveVerdict.ACT_NOW, reasons=(*now, *today))
    verdict = ArchiveVerdict.LOOK_TODAY if today else ArchiveVerdict.ALL_WELL
    return replace(status, verdict=verdict, reasons=today)


def _told(status: Status, severity: Severity) -> Iterator[str]:
    """The open notices of a severity, but for those that somebody knows of; kinds are counted."""
    now = utc(status.at_s)
    open_ones = [n for n in status.notices if n.severity is severity]
    unknown = [n for n in open_ones if not (n.acked_until and n.acked_until > now)]
    for kind, group in groupby(sorted(unknown, key=lambda n: n.kind), key=lambda n: n.kind):
        if kind == "no-good-copy" and status.without_good_copy:
            yield f"files without a good copy: {status.without_good_copy} ({kind})"
            continue  # they may stand in the notices of several disks
        alike = list(group)
        said = _one(alike[0]) if len(alike) == 1 else f"{len(alike)} {KINDS[kind].many}"
        yield f"{said} ({kind})"


def _one(notice: Notice) -> str:
    if says_it_itself(notice):
        return notice.text.partition(". ")[0]
    return f"{notice.key}: {KINDS[notice.kind].headline}"


def _no_pass(status: Status) -> Iterator[str]:
    age_s = None if status.looked_at_s is None else status.at_s - status.looked_at_s
    is_old = age_s is None or abs(age_s) > NO_PASS_FOR_S
    if is_old and status.buffer.finished_files and status.pause is None:
        since = (
            ""
            if status.looked_at_s is None
            else f" since {people_time(status.looked_at_s, status.at_s)}"
        )
        yield f"no pass has run{since} though files wait: is cron running?"


def _to_look_at(status: Status) -> Iterator[str]:
    if status.buffer.is_wrong:
        yield str(status.buffer.fault)
    elif status.buffer.fault:
        yield f"the buffer can't be read: {status.buffer.fault}"
    if status.pause:
        yield f"the archive is paused: {status.pause.why}"
    yield from status.warnings
    if status.pending:
        yield f"{counted(len(status.pending), 'file', 'files')} failed so far"
    if status.lacking_copies:
        lacking = counted(status.lacking_copies, "copy is", "copies are")
        yield f"{lacking} damaged or missing: data_manager.py repair"
    late = [item for item in status.disks if item.overdue]
    if late:
        labels = " ".join(item.disk.label for item in late)
        count = counted(sum(item.overdue for item in late), "copy was", "copies were")
        yield f"{count} not read for twice VerifyEvery: data_manager.py verify {labels}"
    for waiting in status.undelivered:
        count = counted(waiting.notices, "notice", "notices")
        yield f"{count} could not be sent through {waiting.channel}"
