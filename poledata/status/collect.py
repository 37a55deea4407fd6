"""Collect the state of the archive: nothing is changed, and any user may do it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from poledata import db
from poledata.archive import buffer, buffer_marker, buffer_writers
from poledata.archive.buffer import Seen
from poledata.archive.selection import Selection
from poledata.config import Config
from poledata.context import is_here, places_here
from poledata.db.sqlite import Connection
from poledata.disks import not_received
from poledata.formatting import DAY_S, label_key, utc
from poledata.models import GONE, MANIFEST, Disk, DiskState, Role
from poledata.notices.send import configured_channels
from poledata.status.facts import (
    ArchivedAmount,
    ArchiveEvidence,
    BufferStatus,
    DiskStatus,
    Limits,
    ManifestSize,
    Status,
    Undelivered,
)
from poledata.status.verdict import judged
from poledata.system import locks, mounts


def collect(config: Config, conn: Connection) -> Status:
    """Return the state of everything, with the verdict."""
    return judged(*gather(config, conn, look_at_buffer(config, conn)))


def gather(config: Config, conn: Connection, seen: BufferLook) -> tuple[Status, ArchiveEvidence]:
    """Return what the database knows and what can be seen now, without a verdict."""
    now_s = time.time()
    archived = _archived(conn, now_s)
    passes = locks.pass_times(config.db_path)
    holder, is_owner = passes.holder, os.geteuid() == _cron_uid(config)
    last_pass = db.passes.last_pass(conn)
    last_archived_at = db.files.last_archived_at(conn)
    status = Status(
        at_s=now_s,
        config_path=str(config.path),
        db_path=str(config.db_path),
        stand_ins=not config.require_mount,
        unidentified_drives=config.require_mount and config.accept_unidentified,
        buffer=seen.status,
        disks=tuple(_disks(config, conn, archived, now_s)),
        archived=archived,
        content=db.content.counts(conn) if config.check_content else None,
        lacking_copies=buffer_marker.count_lacking(config, conn),
        confirmed_files=db.shipments.count_confirmed(conn),
        without_good_copy=db.copies.count_without_good_copy(conn),
        pending=tuple(db.passes.pending(conn).values()),
        notices=tuple(db.notices.open_notices(conn)),
        last_pass=last_pass,
        looked_at_s=passes.last_progress_at_s,
        ended_at_s=passes.last_end_at_s,
        at_work=holder.command if holder and holder.is_expected else None,
        lock_holder=_stranger(holder),
        pause=db.passes.current_pause(conn, utc(now_s)),
        undelivered=tuple(_undelivered(config, conn)),
        warnings=config.warnings if is_owner else (),
        removes_files=config.delete_from_buffer,
        last_archived_at=last_archived_at,
        newest_record_at=max(last_archived_at or "", last_pass.started_at if last_pass else ""),
        is_read_only=not os.access(config.db_path, os.W_OK) if is_owner else None,
        channels=tuple(c.name for c in configured_channels(config.secrets)) if is_owner else None,
        has_watchdog=config.secrets.has_watchdog if is_owner else None,
    )
    return status, _evidence(config, conn, seen, status)


def _stranger(holder: locks.LockHolder | None) -> str | None:
    """Return the process that holds the lock of passes, if it is none of ours."""
    return None if holder is None or holder.is_expected else f"{holder.pid} ({holder.command})"


def _evidence(
    config: Config, conn: Connection, seen: BufferLook, status: Status
) -> ArchiveEvidence:
    is_owner = os.geteuid() == _cron_uid(config)
    return ArchiveEvidence(
        findings=tuple(db.findings.findings(conn)),
        limits=Limits(
            config.no_new_files_after_s, config.buffer_full_percent, config.spare_disks_low
        ),
        buffer_path=str(config.buffer),
        buffer_free_bytes=seen.free_bytes,
        arrived_in_a_day_bytes=seen.arrived_in_a_day_bytes,
        without_marker=seen.without_marker,
        made_at=db.disks.made_at(conn),
        is_wal=is_owner and db.sqlite.is_wal(conn),
        rooms_bytes={item.disk.id: _room_bytes(config, item) for item in status.disks},
        manifests=tuple(_manifests(config, conn, status.disks)),
        not_received=tuple(
            not_received.overdue(
                db.shipments.shipments(conn), config.receipt_expected_s, status.at_s
            )
        ),
    )


def _archived(conn: Connection, now_s: float) -> ArchivedAmount:
    day = db.files.totals(conn, utc(now_s - DAY_S))
    week = db.files.totals(conn, utc(now_s - 7 * DAY_S))
    return ArchivedAmount(*db.files.totals(conn), *day, *week)


def _disks(
    config: Config, conn: Connection, archived: ArchivedAmount, now_s: float
) -> Iterator[DiskStatus]:
    mounted = mounts.mounted_places() if config.require_mount else None
    health = db.disks.last_health(conn)
    tested = db.smart.hours_since_tested(conn)
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
            tested.get(disk.id),
            db.copies.never_read(conn, disk),
            db.disks.last_event(conn, disk, "shipped") if disk.state is DiskState.SHIPPED else None,
            _overdue(config, conn, disk, is_mounted, now_s),
        )


def _overdue(config: Config, conn: Connection, disk: Disk, is_mounted: bool, now_s: float) -> int:
    """Count the overdue copies of a disk that is in use, or closed and still mounted."""
    is_expected = disk.state is DiskState.ACTIVE or (disk.state is DiskState.CLOSED and is_mounted)
    if not is_expected or not config.verify_every_s:
        return 0
    return db.copies.not_read_since(conn, disk, utc(now_s - 2 * config.verify_every_s))


def _full_at_s(config: Config, disk: Disk, archived: ArchivedAmount, now_s: float) -> float | None:
    """Return when a disk that accepts files will be full, at the last week's rate."""
    if disk.state is not DiskState.ACTIVE or disk.held_by or not archived.week_bytes:
        return None
    free_bytes = (disk.free_bytes or 0) - config.min_free_bytes
    if free_bytes <= 0:
        return None
    return now_s + free_bytes / archived.week_bytes * 7 * DAY_S


def _primaries_first(disk: Disk) -> tuple[bool, tuple[str, int]]:
    return disk.role is Role.COPY, label_key(disk.label)


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


def _manifests(
    config: Config, conn: Connection, disks: Iterable[DiskStatus]
) -> Iterator[ManifestSize]:
    """Yield the sizes of the manifests of the disks in use that are here and respond."""
    mounted = mounts.mounted_places() if config.require_mount else None
    known = db.disks.manifest_sizes(conn)
    for item in disks:
        for place in places_here(config, item.disk, mounted) if item.disk.id in known else ():
            try:
                info = os.stat(place / MANIFEST, follow_symlinks=False)
            except OSError:
                continue  # it is not there or does not respond: who uses the disk notes that
            if stat.S_ISREG(info.st_mode):
                yield ManifestSize(item.disk.label, info.st_size, known[item.disk.id])


def _room_bytes(config: Config, item: DiskStatus) -> int:
    """Return how much still fits on a disk that may take files; 0 if it can't be measured."""
    free_bytes = item.disk.free_bytes
    is_ours = item.disk.state in (DiskState.ACTIVE, DiskState.SPARE) and item.is_mounted
    if free_bytes is None and is_ours:
        free_bytes = _measured_bytes(config, item.disk)
    return max(0, (free_bytes or 0) - config.min_free_bytes)


def _measured_bytes(config: Config, disk: Disk) -> int:
    mounted = mounts.mounted_places() if config.require_mount else None
    for place in places_here(config, disk, mounted):
        try:
            vfs = os.statvfs(place)
        except OSError:
            continue  # it does not respond
        return vfs.f_bavail * vfs.f_frsize
    return 0


@dataclass(frozen=True, slots=True)
class BufferLook:
    """What can be seen in the buffer now."""

    status: BufferStatus
    free_bytes: int | None = None
    arrived_in_a_day_bytes: int = 0
    without_marker: str | None = None


def look_at_buffer(config: Config, conn: Connection, seen: Seen | None = None) -> BufferLook:
    """Look at the whole buffer; nothing is changed. ``seen``: what was just seen there."""
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _look(config, conn, fd, seen)
        finally:
            os.close(fd)
    except OSError as fault:
        return BufferLook(BufferStatus(fault=fault.strerror or str(fault)))


def _look(config: Config, conn: Connection, fd: int, seen: Seen | None) -> BufferLook:
    """Raises OSError."""
    proof = buffer_marker.prove(config, conn, fd, may_adopt=False)
    if proof.wrong:
        return BufferLook(BufferStatus(fault=proof.wrong, is_wrong=True))
    without = None
    if proof.unmarked and not proof.is_full:
        without = buffer_marker.without_marker(config, proof.unmarked)
    return _buffer_content(config, fd, seen or _scan(config, fd), without)


def _scan(config: Config, fd: int) -> Seen:
    settle_s = buffer_marker.settle_s(config.settle_s, fd)
    return buffer.scan(fd, Selection.of(config), settle_s, time.time(), at_most=1)


def _buffer_content(config: Config, fd: int, seen: Seen, without_marker: str | None) -> BufferLook:
    rule = buffer_writers.look(fd, config.remote_writers)
    space = mounts.space(fd)
    oldest = seen.waiting[0] if seen.waiting else None
    status = BufferStatus(
        fault="; ".join(f"{name}: {why}" for name, why in seen.unlistable.items()) or None,
        finished_files=seen.settled_files,
        finished_bytes=seen.settled_bytes,
        unfinished_files=seen.unsettled_files,
        other_files=seen.other_files,
        links_and_specials=seen.links_and_specials,
        hidden_files=seen.hidden_files,
        left_out=seen.left_out,
        oldest_at_s=oldest.stat.mtime_ns / 1e9 if oldest else None,
        oldest_here_since_s=oldest.stat.ctime_ns / 1e9 if oldest else None,
        lease_can_be_had=buffer.lease_can_be_had(fd, oldest, _cron_uid(config)) if oldest else None,
        trusts_leases=rule.trusts_leases,
        writer_rule=rule.why,
        used_percent=100 * space.used_bytes / max(1, space.used_bytes + space.free_bytes),
    )
    return BufferLook(status, space.free_bytes, seen.settled_in_a_day_bytes, without_marker)
