"""What a pass does to its disks besides copying: look again, close, copy the database, hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from poledata import db
from poledata.context import Context
from poledata.disks import catalog_copy, closing, lifecycle
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import FULL_ERRNOS, CannotClose, DiskRefused, ManifestDamaged
from poledata.formatting import seconds, utc_now
from poledata.models import Disk, DiskState
from poledata.notices.kinds import DISK_KINDS

TRY_CLOSE_AGAIN_S = 86_400.0
REFUSED_TO_CLOSE = "close refused"  # a disk event

log = logging.getLogger(__name__)


class Upkeep:
    """The work on disks of one pass; what failed is reported, and returned."""

    def __init__(self, context: Context) -> None:
        self._context, self._conn, self._findings = context, context.conn, context.findings

    def look_again(self, labels: set[str]) -> None:
        """Settle the notices about those of these disks that are well again."""
        with MountedDisks(self._context.config, self._conn) as mounted:
            well = set()
            for disk in db.disks.disks(self._conn):  # of all: two may be on one drive
                with self._findings.isolated(f"{disk.label}: looking again"):
                    if not (_is_at_fault(mounted, disk) or self._must_stay_open(disk)):
                        well.add(disk.label)
        for label in labels & well:
            self._findings.clear(DISK_KINDS, label)

    def _must_stay_open(self, disk: Disk) -> bool:
        """True if a disk's notice stays although the disk looks well.

        It is held, only half closed, or could not be read to its end the last time.
        """
        unsealed = {unsealed.id for unsealed in db.disks.unsealed_disks(self._conn)}
        is_unread = db.disks.is_unread(self._conn, disk)
        return bool(disk.held_by) or disk.id in unsealed or is_unread

    def close_full(self, disk: Disk) -> DiskRefused | OSError | None:
        """Close a full disk, unless that was refused in the last day; return the disk's fault."""
        last = db.disks.last_event(self._conn, disk, REFUSED_TO_CLOSE)
        if last is not None and abs(time.time() - seconds(last)) <= TRY_CLOSE_AGAIN_S:
            return None
        now = lifecycle.the_disk(self._context, disk.serial)
        return self._close(now, partial(closing.close, self._context, now, "it is full"))

    def finish_close(self, disk: Disk) -> DiskRefused | OSError | None:
        """Finish closing a disk; return the disk's fault."""
        return self._close(disk, partial(closing.finish_close, self._context, disk))

    def _close(self, disk: Disk, close: Callable[[], str]) -> DiskRefused | OSError | None:
        found: DiskRefused | OSError | None = None
        with self._findings.isolated(f"{disk.label}: closing"):
            try:
                close()
            except DiskRefused as refusal:
                log.info("%s can't be closed now: %s", disk.label, refusal)
                if refusal.kind != "disk-missing":  # on the shelf it is not at fault
                    found = refusal
                    self._findings.note_refused(refusal)
            except (CannotClose, ManifestDamaged, OSError) as fault:
                if isinstance(fault, OSError) and fault.errno not in FULL_ERRNOS:
                    found = fault
                    self._findings.note("disk-error", disk.label, f"it can't be closed: {fault}")
                else:
                    self._tell_not_closed(disk, fault)
        return found

    def _tell_not_closed(self, disk: Disk, fault: Exception) -> None:
        if disk.state is DiskState.ACTIVE:  # a half closed one is tried in every pass
            with db.transaction(self._conn):
                db.disks.note_event(self._conn, disk.id, utc_now(), REFUSED_TO_CLOSE, str(fault))
        text = f"{disk.label} is full but can't be closed: {fault}."
        self._findings.note("copy-damaged", disk.label, text)

    def keep_catalogs(self, ids: Collection[int]) -> Iterator[tuple[Disk, OSError]]:
        """Put a daily copy of the database on each of these disks in use; yield those at fault."""
        with MountedDisks(self._context.config, self._conn) as mounted:
            for disk in db.disks.disks(self._conn):
                if disk.id not in ids or disk.state is not DiskState.ACTIVE:
                    continue
                fault = None
                with self._findings.isolated(f"{disk.label}: copying the database"):
                    fault = self._keep_catalog(mounted, disk)
                if fault:
                    yield disk, fault

    def _keep_catalog(self, mounted: MountedDisks, disk: Disk) -> OSError | None:
        """Return the fault of the disk; no pass fails because it can't make this copy."""
        try:
            held = mounted.hold(disk)
            if catalog_copy.is_due(held.root_fd, time.time()):
                catalog_copy.keep(self._context, held, mounted.room(held).room_bytes)
        except DiskRefused as refusal:
            log.info("%s gets no copy of the database now: %s", disk.label, refusal)
        except OSError as fault:
            if fault.errno not in FULL_ERRNOS:
                return fault
            log.info("%s has no room for a copy of the database", disk.label)
        return None

    def clear_no_disk(self) -> None:
        """See :func:`lifecycle.clear_no_disk`."""
        lifecycle.clear_no_disk(self._context)

    def count_errors(self, well: Iterable[Disk], failed: Iterable[Disk]) -> None:
        """Count the passes in a row in which a disk failed; after three it is held."""
        with db.transaction(self._conn):
            for disk in well:
                db.disks.forget_errors(self._conn, disk)
            errors = [(disk, db.disks.count_error(self._conn, disk)) for disk in failed]
        failing = [disk for disk, count in errors if count >= lifecycle.HOLD_AFTER_ERRORS]
        lifecycle.hold_failing(self._context, failing)


def _is_at_fault(mounted: MountedDisks, disk: Disk) -> bool:
    """True if a disk that should be usable is not."""
    if disk.state not in (DiskState.ACTIVE, DiskState.SPARE):
        return False
    try:
        mounted.usable(disk)
    except DiskRefused as refusal:
        return disk.state is DiskState.ACTIVE or refusal.kind != "disk-missing"
    return False
