"""Set aside what is left of bad copies on disks in use, once there are good ones elsewhere."""

from __future__ import annotations

import stat
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field

from poledata import db
from poledata.context import Context
from poledata.disks import bag, manifest
from poledata.disks.disk_faults import DiskFaults
from poledata.disks.free_space import BatchLimit
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, ManifestDamaged, Stopped
from poledata.formatting import shown, utc_now
from poledata.maintenance.copy_check import examine
from poledata.models import CopyState, Disk, DiskState, KnownFile, ManifestLine, Role
from poledata.system import paths
from poledata.system.direct_io import HashingReader


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The bad copies of one role: each is read once more, then set aside.

    A disk can't be closed while it holds what its manifest does not say. ``failed``: shown name →
    why its bad copy stays where it is.
    """

    context: Context
    role: Role
    disks: DiskFaults
    stop: threading.Event
    failed: dict[str, str]
    set_aside: Counter[str]  # how many, by the label of their disk
    _done_to: dict[int, int] = field(default_factory=dict)  # disk id → the last file id of it
    _out: set[int] = field(default_factory=set)  # ids of disks that can't be worked on

    def clear_some(self, mounted: MountedDisks) -> bool:
        """Clear one batch of bad copies on a disk in use, also those that a killed repair left.

        True if there was one. Raises Stopped.
        """
        for disk in filter(self._takes_part, db.disks.disks(self.context.conn)):
            if bad := self._next_on(disk):
                self._done_to[disk.id] = bad[-1].id
                try:
                    self._clear(mounted.hold_for_writing(disk, new_copies=False), bad)
                except DiskRefused:
                    self._out.add(disk.id)
                return True
        return False

    def _takes_part(self, disk: Disk) -> bool:
        is_in_use = disk.state is DiskState.ACTIVE and disk.held_by is None
        return is_in_use and disk.role is self.role and disk.id not in self._out

    def _next_on(self, disk: Disk) -> list[KnownFile]:
        """Return what is read and set aside in one turn: a pass may be waiting."""
        limit, bad = BatchLimit({}), list[KnownFile]()
        after_id = self._done_to.get(disk.id, 0)
        for file_id in db.copies.ids_made_again(self.context.conn, disk, after_id):
            known = db.files.file_by_id(self.context.conn, file_id)
            if not limit.take(known.size_bytes, ()):
                break
            bad.append(known)
        return bad

    def _clear(self, held: HeldDisk, bad: list[KnownFile]) -> None:
        """Set aside what is still bad. The lines go first: never leave a line without its file."""
        try:
            names = [known.name for known in bad]
            lines = manifest.find_lines(held.root_fd, names, manifest.BadLines())
            still_bad = [k for k in bad if not self._may_stay(held, k, lines.get(k.name))]
            if still_bad:
                manifest.drop_lines(held.root_fd, {known.name for known in still_bad})
                manifest.note_size(self.context.conn, held.disk, held.root_fd)
            for known in still_bad:
                self._set_aside(held, known)
        except OSError as fault:
            self._out.add(held.disk.id)
            self.disks.leave_out(held.disk, fault)
        except ManifestDamaged as fault:
            self._out.add(held.disk.id)
            why = f"{held.disk.label}: its bad copy there is not set aside: {fault}"
            self.failed.update((shown(known.name), why) for known in bad)

    def _set_aside(self, held: HeldDisk, known: KnownFile) -> None:
        """Set the file aside, and delete its row: nothing is expected there any more."""
        path, conn = f"{bag.DATA}/{known.name}", self.context.conn
        info = paths.stat(held.root_fd, path)
        if info and not stat.S_ISDIR(info.st_mode):  # that may hold archived files: never moved
            bag.set_aside(held.root_fd, path, time.time())
            self.set_aside[held.disk.label] += 1
        with db.transaction(conn):
            db.copies.drop_copy(conn, known.id, held.disk)
            db.disks.note_event(conn, held.disk.id, utc_now(), "set-aside", shown(known.name))

    def _may_stay(self, held: HeldDisk, known: KnownFile, line: ManifestLine | None) -> bool:
        """True for a copy that is good after all (it counts again), or archived by its line.

        Raises OSError if the disk as a whole does not work.
        """
        with closing(HashingReader()) as reader:
            found = examine(held, known.name, known.sha512, reader, self._go_on)
        if found.state is not CopyState.GOOD:
            if line is None or line.sha512 != found.sha512:
                return False
            self.failed[shown(known.name)] = (
                f"by its manifest, other content is archived on {held.disk.label} under this name; "
                "it stays there: see name-conflict in docs/operators.md"
            )
            return True
        conn = self.context.conn
        with db.transaction(conn):
            db.copies.note_verified(conn, known.id, held.disk, CopyState.GOOD, found.how, utc_now())
        return True

    def _go_on(self, _: int) -> None:
        if self.stop.is_set():
            raise Stopped("interrupted; bad copies are set aside by the next repair")
