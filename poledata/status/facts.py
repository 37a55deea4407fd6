"""The state of the archive as data: collected without changing anything, by any user."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

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
from poledata.notices.kinds import KINDS, own_headline
from poledata.system import locks, mounts

DAY_S = 86_400.0
NO_PASS_FOR_S = 900.0  # cron starts one each minute


class ArchiveVerdict(StrEnum):
    """The first words of the status."""

    ALL_WELL = "ALL WELL"
    LOOK_TODAY = "LOOK TODAY"
    ACT_NOW = "ACT NOW"


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """A disk, whether something is mounted at its place, and what is known about its health."""

    disk: Disk
    is_mounted: bool
    full_at_s: float | None = None  # of one in use, at the last week's rate
    oldest_verified_at: str | None = None  # the oldest verification of a copy on it
    health: HealthCheck | None = None
    never_read: int = 0  # good copies that were never read back
    overdue: int = 0  # good copies here that were not read for twice VerifyEvery


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The content of the buffer; ``fault`` is why it can't be read, or is the wrong one."""

    fault: str | None = None
    is_wrong: bool = False  # it is not the buffer of this archive
    finished_files: int = 0
    finished_bytes: int = 0
    unfinished_files: int = 0
    other_files: int = 0
    links_and_specials: int = 0
    oldest_at_s: float | None = None
    lease_can_be_had: bool | None = None  # None: there is no file to try it with
    trusts_leases: bool | None = None  # True if a lease proves that nobody writes
    writer_rule: str | None = None  # why
    used_percent: float | None = None


@dataclass(frozen=True, slots=True)
class ArchivedAmount:
    """What was archived: in total, in the last day, in the last week."""

    files: int
    size_bytes: int
    day_files: int
    day_bytes: int
    week_files: int
    week_bytes: int


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A channel that could not send its notices at the last try."""

    channel: str
    notices: int
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that ``status`` shows; its names are the keys of the JSON, and stable (README).

    ``reasons`` explain the verdict.
    """

    at_s: float
    config_path: str
    db_path: str
    stand_ins: bool
    unidentified_drives: bool  # AcceptUnidentifiedDrives: two disks may be on one drive
    buffer: BufferStatus
    disks: tuple[DiskStatus, ...]
    archived: ArchivedAmount
    lacking_copies: int  # copies to make again: damaged, missing, or never made
    pending: tuple[Pending, ...]
    notices: tuple[Notice, ...]
    last_pass: PassRow | None
    looked_at_s: float | None  # when a pass last began, also one with nothing to do
    without_good_copy: int = 0  # files with copies, none of which is good
    pause: Pause | None = None
    undelivered: tuple[Undelivered, ...] = ()
    warnings: tuple[str, ...] = ()  # of the configuration
    verdict: ArchiveVerdict = ArchiveVerdict.ALL_WELL
    reasons: tuple[str, ...] = ()


def collect(config: Config, conn: Connection) -> Status:
    """Return the state of everything, with the verdict."""
    now_s = time.time()
    archived = _archived(conn, now_s)
    status = Status(
        at_s=now_s,
        config_path=str(config.path),
        db_path=str(config.db_path),
        stand_ins=not config.require_mount,
        unidentified_drives=config.require_mount and config.accept_unidentified,
        buffer=_buffer(config, conn),
        disks=tuple(_disks(config, conn, archived, now_s)),
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
    day = db.files.totals(conn, utc(now_s - DAY_S))
    week = db.files.totals(conn, utc(now_s - 7 * DAY_S))
    return ArchivedAmount(*db.files.totals(conn), *day, *week)


def _disks(
    config: Config, conn: Connection, archived: ArchivedAmount, now_s: float
) -> Iterator[DiskStatus]:
    mounted = mounts.mounted_places() if config.require_mount else None
    health = db.disks.last_health(conn)
    disks = db.disks.disks(conn)
    labels_here = {disk.label for disk in disks if disk.state not in GONE}
    for disk in sorted(disks, key=_primaries_first):
        is_replaced = disk.state in GONE and disk.label in labels_here  # another has its label now
        is_mounted = not is_replaced and is_here(config, disk, mounted)
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
    """Count the overdue copies of a disk that is in use, or closed and still mounted."""
    is_expected = disk.state is DiskState.ACTIVE or (disk.state is DiskState.CLOSED and is_mounted)
    if not is_expected or not config.verify_every_s:
        return 0
    return db.copies.not_read_since(conn, disk, utc(now_s - 2 * config.verify_every_s))


def _full_at_s(config: Config, disk: Disk, archived: ArchivedAmount, now_s: float) -> float | None:
    if disk.state is not DiskState.ACTIVE or disk.free_bytes is None or not archived.week_bytes:
        return None
    free_bytes = max(0, disk.free_bytes - config.min_free_bytes)
    return now_s + free_bytes / archived.week_bytes * 7 * DAY_S


def _primaries_first(disk: Disk) -> tuple[bool, tuple[str, int]]:
    return disk.role is Role.COPY, selection.label_key(disk.label)


def _cron_uid(config: Config) -> int:
    """Only this user may read .env; that others can't is no fault."""
    return config.db_path.parent.stat().st_uid


def _undelivered(config: Config, conn: Connection) -> Iterator[Undelivered]:
    """Only of configured channels; of all if none is known, for a user who may not read .env."""
    names = {channel.name for channel in configured_channels(config.secrets)}
    waiting = db.notices.undelivered(conn)
    for channel, group in groupby(waiting, key=lambda one: one.channel):
        if names and channel not in names:
            continue
        ones = list(group)
        last = max(ones, key=lambda one: (one.tried_at or "", one.attempts))
        yield Undelivered(channel, len(ones), last.attempts, str(last.last_error))


def _buffer(config: Config, conn: Connection) -> BufferStatus:
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        return BufferStatus(fault=fault.strerror)
    try:
        if wrong := buffer_marker.prove(config, conn, fd, may_adopt=False).wrong:
            return BufferStatus(fault=wrong, is_wrong=True)
        return _buffer_content(config, fd)
    finally:
        os.close(fd)


def _buffer_content(config: Config, fd: int) -> BufferStatus:
    rule = writers.look(fd, config.remote_writers)
    settle_s = buffer_marker.settle_s(config.settle_s, fd)
    seen = buffer.scan(fd, config.extensions, settle_s, time.time(), at_most=1)
    space = mounts.space(fd)
    oldest = seen.waiting[0] if seen.waiting else None
    return BufferStatus(
        fault="; ".join(f"{name}: {why}" for name, why in seen.unlistable.items()) or None,
        finished_files=seen.settled_files,
        finished_bytes=seen.settled_bytes,
        unfinished_files=seen.unsettled_files,
        other_files=seen.other_files,
        links_and_specials=seen.links_and_specials,
        oldest_at_s=oldest.stat.mtime_ns / 1e9 if oldest else None,
        lease_can_be_had=buffer.lease_can_be_had(fd, oldest, _cron_uid(config)) if oldest else None,
        trusts_leases=rule.trusts_leases,
        writer_rule=rule.why,
        used_percent=100 * space.used_bytes / max(1, space.used_bytes + space.free_bytes),
    )


# --- the verdict --------------------------------------------------------------------------


def judged(status: Status) -> Status:
    """Return the status with its verdict, and the reasons for it. Pure."""
    now = (*_notice_reasons(status, Severity.CRITICAL), *_no_pass(status))
    today = (*_notice_reasons(status, Severity.WARNING), *_other_reasons(status))
    verdict = ArchiveVerdict.LOOK_TODAY if today else ArchiveVerdict.ALL_WELL
    return replace(
        status, verdict=ArchiveVerdict.ACT_NOW if now else verdict, reasons=(*now, *today)
    )


def _notice_reasons(status: Status, severity: Severity) -> Iterator[str]:
    """Return one line for each kind of open notice that nobody acknowledged."""
    now = utc(status.at_s)
    by_kind = defaultdict[str, list[Notice]](list)
    for notice in status.notices:
        if notice.severity is severity and not (notice.acked_until and notice.acked_until > now):
            by_kind[notice.kind].append(notice)
    for kind, notices in sorted(by_kind.items()):
        yield f"{_notices_text(status, kind, notices)} ({kind})"


def _notices_text(status: Status, kind: str, notices: Sequence[Notice]) -> str:
    if kind == "no-good-copy" and status.without_good_copy:  # a file can be in several notices
        return f"files without a good copy: {status.without_good_copy}"
    if len(notices) > 1:
        return f"{len(notices)} {KINDS[kind].many}"
    return own_headline(notices[0]) or f"{notices[0].key}: {KINDS[kind].headline}"


def _no_pass(status: Status) -> Iterator[str]:
    if not status.buffer.finished_files or status.pause:
        return
    begun_s, since = status.looked_at_s, ""
    if begun_s is not None:
        since = f" since {people_time(begun_s, status.at_s)}"
    if begun_s is None or abs(status.at_s - begun_s) > NO_PASS_FOR_S:
        yield f"no pass has run{since} though files wait: is cron running?"


def _other_reasons(status: Status) -> Iterator[str]:
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
