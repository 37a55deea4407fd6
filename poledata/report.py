"""How the archive stands: gathered without changing anything, and told as text or JSON."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from poledata import buffer, catalogue, choice, mounts
from poledata.config import Config
from poledata.db import Connection
from poledata.records import (
    Disk,
    DiskState,
    Notice,
    PassRow,
    Pending,
    Role,
    people_time,
    seconds,
    size_text,
)


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """A disk and whether something is mounted at its place."""

    disk: Disk
    is_mounted: bool


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """What lies in the buffer; ``fault`` says why it can't be read."""

    fault: str | None = None
    finished_files: int = 0
    finished_bytes: int = 0
    unfinished_files: int = 0
    other_files: int = 0
    links_and_specials: int = 0
    oldest_at_s: float | None = None
    lease_can_be_had: bool | None = None  # None: there is no file to tell by
    used_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A channel through which notices could not be sent when that was last tried."""

    channel: str
    notices: int
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that ``status`` tells."""

    at_s: float
    config_path: str
    db_path: str
    stand_ins: bool
    buffer: BufferStatus
    disks: tuple[DiskStatus, ...]
    archived_files: int
    archived_bytes: int
    pending: tuple[Pending, ...]
    notices: tuple[Notice, ...]
    last_pass: PassRow | None
    undelivered: tuple[Undelivered, ...] = ()


def collect(config: Config, conn: Connection) -> Status:
    """Look at everything; for any user who may read the database."""
    disks = sorted(catalogue.disks(conn), key=_primaries_first)
    files, size_bytes = catalogue.totals(conn)
    return Status(
        at_s=time.time(),
        config_path=str(config.path),
        db_path=str(config.db_path),
        stand_ins=not config.require_mount,
        buffer=_look_at_buffer(config),
        disks=tuple(DiskStatus(disk, is_mounted(config, disk.label)) for disk in disks),
        archived_files=files,
        archived_bytes=size_bytes,
        pending=tuple(catalogue.pending(conn).values()),
        notices=tuple(catalogue.open_notices(conn)),
        undelivered=tuple(_undelivered(conn)),
        last_pass=catalogue.last_pass(conn),
    )


def _undelivered(conn: Connection) -> Iterator[Undelivered]:
    waiting = catalogue.undelivered(conn)
    for channel, group in groupby(waiting, key=lambda one: one.channel):
        ones = list(group)
        last = max(ones, key=lambda one: (one.tried_at or "", one.attempts))
        yield Undelivered(channel, len(ones), last.attempts, str(last.last_error))


def _primaries_first(disk: Disk) -> tuple[bool, tuple[str, int]]:
    return disk.role is Role.COPY, choice.label_key(disk.label)


def is_mounted(config: Config, label: str) -> bool:
    """Whether a file system (with stand-ins: a directory) is at the place of this label."""
    for place in config.mount_points(label):
        try:
            fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if not config.require_mount or mounts.is_mount_point(fd, place):
                return True
        finally:
            os.close(fd)
    return False


def _look_at_buffer(config: Config) -> BufferStatus:
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        return BufferStatus(fault=fault.strerror)
    try:
        seen = buffer.scan(fd, config.extensions, config.settle_s, time.time(), at_most=1)
        room = mounts.space(fd)
        cron_uid = config.db_path.parent.stat().st_uid
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
        used_percent=100 * room.used_bytes / max(1, room.used_bytes + room.free_bytes),
    )


def headline(status: Status) -> str:
    """The state in a line: the subject of a digest."""
    day = time.strftime("%Y-%m-%d", time.gmtime(status.at_s))
    return (
        f"{day}: {len(status.notices)} open notices, {status.buffer.finished_files} files wait, "
        f"{status.archived_files} archived"
    )


def state_lines(status: Status) -> list[str]:
    """The state of the archive in five lines, for a message."""
    buf = status.buffer
    here = [item.disk for item in status.disks if item.is_mounted]
    in_use = ", ".join(_in_use_text(disk) for disk in here if disk.state is DiskState.ACTIVE)
    spares = [disk for disk in here if disk.state is DiskState.SPARE and not disk.held_by]
    counts = [f"{sum(d.role is role for d in spares)} {role.value}" for role in Role]
    level = "can't be read" if buf.used_percent is None else f"{buf.used_percent:.0f} % full"
    return [
        f"The archive {status.db_path}, {people_time(status.at_s, status.at_s)}:",
        f"  {status.archived_files} files archived ({size_text(status.archived_bytes)}); last "
        f"pass {_pass_text(status)}",
        f"  buffer {level}, {buf.finished_files} finished files wait, "
        f"{len(status.pending)} failed so far",
        f"  in use: {in_use or 'no disk'}; spare: {' and '.join(counts)} disks",
        f"  {len(status.notices)} open notices",
    ]


def _in_use_text(disk: Disk) -> str:
    free = "" if disk.free_bytes is None else f" ({size_text(disk.free_bytes)} free)"
    return f"{disk.label}{free}"


def as_json(status: Status) -> dict[str, Any]:
    """The same as plain values; the keys are stable (README)."""
    return asdict(status)


# --- as text ------------------------------------------------------------------------------


def as_text(status: Status) -> str:
    """One screen."""
    return "\n".join(_lines(status))


def _lines(status: Status) -> Iterator[str]:
    if status.stand_ins:
        yield "STAND-INS: plain directories instead of drives, for demo and tests only."
    yield f"Archive {status.db_path}, {people_time(status.at_s, status.at_s)}"
    yield f"Archived   {status.archived_files} files, {size_text(status.archived_bytes)}"
    yield from _buffer_lines(status)
    yield f"Last pass  {_pass_text(status)}"
    yield ""
    yield from _disk_lines(status)
    yield ""
    yield from _pending_lines(status)
    yield from _notice_lines(status)
    for waiting in status.undelivered:
        yield (
            f"NOT SENT: {waiting.notices} notices through {waiting.channel} (tried "
            f"{waiting.attempts} times: {waiting.last_error}); tried again by itself"
        )


def _buffer_lines(status: Status) -> Iterator[str]:
    buf = status.buffer
    if buf.fault:
        yield f"Buffer     CAN'T BE READ: {buf.fault}"
    if buf.used_percent is None:
        return
    oldest = (
        f", the oldest of {people_time(buf.oldest_at_s, status.at_s)}" if buf.oldest_at_s else ""
    )
    yield (
        f"Buffer     {buf.finished_files} finished files wait "
        f"({size_text(buf.finished_bytes)}{oldest}); {buf.used_percent:.0f} % of the room is used"
    )
    yield (
        f"           {buf.unfinished_files} unfinished; not ours: {buf.other_files} files of other "
        f"extensions, {buf.links_and_specials} links and special files"
    )
    if buf.lease_can_be_had is False:
        yield (
            "           The system can't tell who writes there: files wait ten times SettleTime, "
            "the newest of a directory for a newer one beside it, or a day"
        )


def _pass_text(status: Status) -> str:
    last = status.last_pass
    if last is None:
        return "none has had anything to do yet"
    outcome = last.outcome or "at work, or crashed"
    return (
        f"{people_time(seconds(last.started_at), status.at_s)}: {outcome}, "
        f"{last.files_archived} files archived ({size_text(last.bytes_archived)}), "
        f"{last.files_failed} failures"
    )


def _disk_lines(status: Status) -> Iterator[str]:
    yield f"{'label':6} {'role':8} {'serial':20} {'state':8} {'here':4} {'free':>9} of"
    gone = (DiskState.SHIPPED, DiskState.LOST)
    for item in status.disks:
        disk = item.disk
        if disk.state in gone:
            continue
        free = "" if disk.free_bytes is None else size_text(disk.free_bytes)
        capacity = "" if disk.capacity_bytes is None else size_text(disk.capacity_bytes)
        held = f"  HELD by {disk.held_by}: {disk.held_reason}" if disk.held_by else ""
        yield (
            f"{disk.label:6} {disk.role.value:8} {disk.serial:20} {disk.state.value:8} "
            f"{'yes' if item.is_mounted else 'no':4} {free:>9} {capacity}{held}"
        ).rstrip()
    for role in ("primary", "copy"):
        spares = [
            d
            for d in status.disks
            if d.disk.role.value == role
            and d.disk.state is DiskState.SPARE
            and d.is_mounted
            and not d.disk.held_by
        ]
        away = sum(d.disk.role.value == role and d.disk.state in gone for d in status.disks)
        yield f"{len(spares)} {role} disks are mounted and spare; {away} shipped or lost."


def _pending_lines(status: Status) -> Iterator[str]:
    if not status.pending:
        yield "No file has failed."
        return
    yield f"{len(status.pending)} files failed so far; they stay in the buffer:"
    for item in status.pending[:10]:
        yield (
            f"  {item.name}: {item.last_error} (tried {item.attempts} times, next "
            f"{item.next_try_at[11:16]} UTC)"
        )
    if len(status.pending) > 10:
        yield f"  … and {len(status.pending) - 10} more (status --json lists all)"


def _notice_lines(status: Status) -> Iterator[str]:
    if not status.notices:
        yield "No open notice."
    for notice in status.notices:
        since = people_time(seconds(notice.opened_at), status.at_s)
        yield f"{notice.severity.value.upper()} {notice.kind} {notice.key}, since {since}:"
        yield textwrap.indent(notice.text, "  ")
