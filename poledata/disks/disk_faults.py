"""Disks that fill up or fail while a pass runs: left out, closed, held.

A pass with nothing to do comes by here each minute: what works on disks is loaded when there
is a disk to work on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from poledata import db
from poledata.context import Context
from poledata.errors import FULL_ERRNOS, CannotClose, DiskRefused, ManifestDamaged
from poledata.formatting import seconds, utc
from poledata.models import Disk, DiskState, Role
from poledata.notices.kinds import DISK_KINDS

if TYPE_CHECKING:
    from poledata.disks.mounted_disks import MountedDisks

TRY_CLOSE_AGAIN_S = 86_400.0
REFUSED_TO_CLOSE = "close refused"  # a disk event

log = logging.getLogger(__name__)


class DiskWatch:
    """What one pass knows of its disks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._full: dict[int, Disk] = {}
        self._failed: dict[int, Disk] = {}
        self._used: dict[int, Disk] = {}
        self._refused: set[str] = set()
        self._closed: set[int] = set()  # tried to close: not again in this pass
        self._blocked: set[int] = set()  # something stands in the way of a file there

    @property
    def out(self) -> set[int]:
        """The ids of disks that are left alone for the rest of the pass."""
        return self._full.keys() | self._failed.keys() | self._closed | self._blocked

    @property
    def troubled(self) -> int:
        """How many disks in use did not work."""
        return len(self._refused | {disk.label for disk in self._failed.values()})

    def _mounted(self) -> MountedDisks:
        from poledata.disks.mounted_disks import MountedDisks

        return MountedDisks(self._context.config, self._context.conn)

    def used(self, disk: Disk) -> None:
        """Files were put on this disk."""
        self._used[disk.id] = disk

    def pass_by(self, disk: Disk) -> None:
        """This disk is well, but can't take a file that another one of its role may take."""
        self._blocked.add(disk.id)

    def leave_out(self, disk: Disk, fault: OSError) -> None:
        """This disk takes no more in this pass; the next one of its role goes on."""
        if disk.id in self.out:
            return
        if fault.errno in FULL_ERRNOS:
            self._full[disk.id] = disk
            log.info("%s is full (%s)", disk.label, fault.strerror)
            return
        self._failed[disk.id] = disk
        self._context.board.tell_refused(
            DiskRefused(
                "disk-error",
                disk.label,
                f"it does not take data: {fault.strerror}",
                "What is registered on it is verified; other disks go on. "
                "Look at the kernel's log; if it repeats, replace the drive.",
            )
        )

    def note_refused(self, refused: Iterable[tuple[Disk, DiskRefused]]) -> None:
        """Disks that can't be used; one that is just not there, or another's, has not failed."""
        for disk, refusal in refused:
            self._refused.add(disk.label)
            is_in_use = disk.state is DiskState.ACTIVE
            if is_in_use and refusal.kind in ("disk-error", "disk-read-only"):
                self._failed[disk.id] = disk

    def close_full(self, disks: Iterable[Disk], written: dict[Role, int]) -> None:
        """Close disks that had no room for a file which another one of their role took."""
        from poledata.disks import closing, lifecycle

        full = {
            disk.id: disk
            for disk in (*disks, *self._full.values())
            if written.get(disk.role, disk.id) != disk.id and disk.id not in self._closed
        }
        for disk in full.values():
            self._full.pop(disk.id, None)
            self._closed.add(disk.id)
            last = db.disks.last_event(self._context.conn, disk, REFUSED_TO_CLOSE)
            if last is None or abs(time.time() - seconds(last)) > TRY_CLOSE_AGAIN_S:
                now = lifecycle.the_disk(self._context, disk.serial)
                self._close(now, partial(closing.close, self._context, now, "it is full"))

    def look_again(self) -> None:
        """Disks of which a person was told: those that are well again are settled."""
        board = self._context.board
        labels = {label for kind in DISK_KINDS for label in board.open_keys(kind)}
        if not labels:
            return
        with self._mounted() as mounted:  # of all disks: two may be on one drive
            well = []
            for disk in db.disks.disks(self._context.conn):
                with board.isolated(f"{disk.label}: looking again"):
                    if not (_is_at_fault(mounted, disk) or self._stands(disk)):
                        well.append(disk.label)
            for label in labels.intersection(well):
                board.settle(DISK_KINDS, label)

    def _stands(self, disk: Disk) -> bool:
        """A notice that no look ends: of a held disk, till it is given back; of a half closed one,
        till it is closed; of one that could not be read to its end, till it was, or is used."""
        unsealed = {unsealed.id for unsealed in db.disks.unsealed_disks(self._context.conn)}
        is_unread = db.disks.is_unread(self._context.conn, disk)
        return bool(disk.held_by) or disk.id in unsealed or is_unread

    def settle_no_disk(self) -> None:
        """At the end of a pass that came to every file."""
        if self._context.board.open_keys("no-disk"):
            from poledata.disks import lifecycle

            lifecycle.settle_no_disk(self._context)

    def finish_closes(self) -> None:
        """A crash, or a pulled disk, may have cut a close short."""
        for disk in db.disks.unsealed_disks(self._context.conn):
            if disk.held_by is None:
                from poledata.disks import closing

                self._close(disk, partial(closing.finish_close, self._context, disk))

    def _close(self, disk: Disk, close: Callable[[], str]) -> None:
        with self._context.board.isolated(f"{disk.label}: closing"):
            self._close_or_tell(disk, close)

    def _close_or_tell(self, disk: Disk, close: Callable[[], str]) -> None:
        try:
            close()
        except (CannotClose, ManifestDamaged, OSError) as fault:
            if isinstance(fault, OSError) and fault.errno not in FULL_ERRNOS:
                self._failed[disk.id] = disk
                self._context.board.tell("disk-error", disk.label, f"it can't be closed: {fault}")
                return
            if disk.state is DiskState.ACTIVE:  # else it is tried in every pass
                with db.transaction(self._context.conn):
                    at = utc(time.time())
                    db.disks.note_event(
                        self._context.conn, disk.id, at, REFUSED_TO_CLOSE, str(fault)
                    )
            self._context.board.tell(
                "copy-damaged", disk.label, f"{disk.label} is full but can't be closed: {fault}."
            )
        except DiskRefused as refusal:
            log.info("%s can't be closed now: %s", disk.label, refusal)
            if refusal.kind != "disk-missing":  # that one is on the shelf already
                self._refused.add(disk.label)
                self._context.board.tell_refused(refusal)

    def keep_catalogues(self) -> None:
        """A daily copy of the database on each disk that files were put on."""
        used = self._used.keys() - self._failed.keys()
        if not used:
            return
        with self._mounted() as mounted:
            for disk in db.disks.disks(self._context.conn):
                if disk.id in used and disk.state is DiskState.ACTIVE:
                    with self._context.board.isolated(f"{disk.label}: copying the database"):
                        self._keep_catalogue(mounted, disk)

    def _keep_catalogue(self, mounted: MountedDisks, disk: Disk) -> None:
        """No pass fails for want of it: a fault is the disk's, and only counted."""
        from poledata.disks import catalog_copy

        context = self._context
        try:
            held = mounted.hold(disk)
            if catalog_copy.is_due(held.root_fd, time.time()):
                room_bytes = mounted.room(held).room_bytes
                catalog_copy.keep(context, held, room_bytes)
        except DiskRefused as refusal:
            log.info("%s gets no copy of the database now: %s", disk.label, refusal)
        except OSError as fault:
            if fault.errno in FULL_ERRNOS:
                log.info("%s has no room for a copy of the database", disk.label)
            else:
                self.leave_out(disk, fault)

    def end_of_pass(self) -> None:
        """Count the passes running in which a disk failed; from the third it is held."""
        if not self._failed and not self._used:
            return
        from poledata.disks import lifecycle

        failing = []
        with db.transaction(self._context.conn):
            for disk_id in self._used.keys() - self._failed.keys():
                db.disks.forget_errors(self._context.conn, self._used[disk_id])
            for disk in self._failed.values():
                errors = db.disks.count_error(self._context.conn, disk)
                if errors >= lifecycle.HOLD_AFTER_ERRORS:
                    failing.append(disk)
        lifecycle.hold_failing(self._context, failing)


def _is_at_fault(mounted: MountedDisks, disk: Disk) -> bool:
    """Whether a disk that should be usable is not."""
    if disk.state not in (DiskState.ACTIVE, DiskState.SPARE):
        return False
    try:
        mounted.hold_to_copy_to(disk)
    except DiskRefused as refusal:
        return disk.state is DiskState.ACTIVE or refusal.kind != "disk-missing"
    return False
