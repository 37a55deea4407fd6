"""Disks that fill up or fail while a pass runs: which ones the pass leaves alone.

Every pass loads this module, each minute. What works on disks is in upkeep.py, which is loaded
only when there is a disk to work on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from poledata import db
from poledata.context import Context
from poledata.errors import FULL_ERRNOS, DiskRefused
from poledata.models import Disk, DiskState, Role
from poledata.notices.kinds import DISK_KINDS

if TYPE_CHECKING:
    from poledata.disks.upkeep import Upkeep

log = logging.getLogger(__name__)


class DiskFaults:
    """What one pass, or one repair, knows of its disks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._full: dict[int, Disk] = {}
        self._used: dict[int, Disk] = {}
        self._closed: set[int] = set()  # not to be closed again in this pass
        self._blocked: set[int] = set()  # something is in the way of a file there
        self._failed: dict[int, Disk] = {}
        self._refused: set[str] = set()  # labels

    @property
    def out(self) -> set[int]:
        """The ids of disks that are left alone for the rest of the pass."""
        return self._full.keys() | self._failed.keys() | self._closed | self._blocked

    @property
    def troubled(self) -> int:
        """How many disks in use did not work."""
        return len(self._refused | {disk.label for disk in self._failed.values()})

    def used(self, disk: Disk) -> None:
        """Note that files were put on this disk."""
        self._used[disk.id] = disk

    def pass_by(self, disk: Disk) -> None:
        """Leave out a disk that is well, but can't take a file that another one may take."""
        self._blocked.add(disk.id)

    def leave_out(self, disk: Disk, fault: OSError) -> None:
        """Put nothing more on this disk in this pass; the next one of its role is used."""
        if disk.id in self.out:
            return
        if fault.errno in FULL_ERRNOS:
            self._full[disk.id] = disk
            log.info("%s is full (%s)", disk.label, fault.strerror)
            return
        self._failed[disk.id] = disk
        self._context.findings.note_refused(
            DiskRefused(
                "disk-error",
                disk.label,
                f"it does not take data: {fault.strerror}",
                "What is registered on it is verified; other disks go on. "
                "Look at the kernel's log; if it repeats, replace the drive.",
            )
        )

    def note_refused(self, refused: Iterable[tuple[Disk, DiskRefused]]) -> None:
        """Note disks that can't be used; one that is absent or wrong has not failed."""
        for disk, refusal in refused:
            self._refused.add(disk.label)
            is_in_use = disk.state is DiskState.ACTIVE
            if is_in_use and refusal.kind in ("disk-error", "disk-read-only"):
                self._failed[disk.id] = disk

    @cached_property
    def _upkeep(self) -> Upkeep:
        from poledata.disks.upkeep import Upkeep

        return Upkeep(self._context)

    def look_again(self) -> None:
        """Settle the notices about disks that are well again."""
        findings = self._context.findings
        if labels := {label for kind in DISK_KINDS for label in findings.keys(kind)}:
            self._upkeep.look_again(labels)

    def finish_closes(self) -> None:
        """Finish closing disks whose close was interrupted by a crash or a pulled disk."""
        for disk in db.disks.unsealed_disks(self._context.conn):
            if disk.held_by is None:
                self._note(disk, self._upkeep.finish_close(disk))

    def _note(self, disk: Disk, fault: DiskRefused | OSError | None) -> None:
        if isinstance(fault, DiskRefused):
            self._refused.add(disk.label)
        elif fault:
            self._failed[disk.id] = disk

    def close_full(self, disks: Iterable[Disk], written: dict[Role, int]) -> None:
        """Close disks without room for a file which another one of their role took."""
        for disk in {disk.id: disk for disk in (*disks, *self._full.values())}.values():
            if written.get(disk.role, disk.id) != disk.id and disk.id not in self._closed:
                self._full.pop(disk.id, None)
                self._closed.add(disk.id)
                self._note(disk, self._upkeep.close_full(disk))

    def keep_catalogs(self) -> None:
        """Put a daily copy of the database on each disk that files were put on."""
        if used := self._used.keys() - self._failed.keys():
            for disk, fault in self._upkeep.keep_catalogs(used):
                self.leave_out(disk, fault)

    def clear_no_disk(self) -> None:
        """Settle ``no-disk`` at the end of a pass that came to every file."""
        if self._context.findings.keys("no-disk"):
            self._upkeep.clear_no_disk()

    def end_of_pass(self) -> None:
        """Count the passes in a row in which a disk failed; after three it is held."""
        if self._failed or self._used:
            well = [disk for disk in self._used.values() if disk.id not in self._failed]
            self._upkeep.count_errors(well, list(self._failed.values()))
