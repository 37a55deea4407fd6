"""What is left of bad copies on disks in use, once there are proved ones in their place."""

from __future__ import annotations

import stat
import threading
import time
from contextlib import closing

from poledata import db
from poledata.context import Context
from poledata.disks import bag, manifest
from poledata.disks.disk_faults import DiskWatch
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.disks.selection import BatchLimit
from poledata.errors import DiskRefused, ManifestDamaged, Stopped
from poledata.formatting import shown, utc
from poledata.models import CopyState, Disk, DiskState, KnownFile, ManifestLine, Role
from poledata.system import direct_io, paths


class Leftovers:
    """Read once more, then set aside: a disk that holds what its manifest does not say can't be
    closed."""

    def __init__(
        self, context: Context, role: Role, disks: DiskWatch, stop: threading.Event
    ) -> None:
        self._context, self._role, self._disks, self._stop = context, role, disks, stop
        self.failed: dict[str, str] = {}  # shown name → why its bad copy stays where it is
        self._done_to: dict[int, int] = {}  # disk id → the last file id of it
        self._out: set[int] = set()  # ids of disks that can't be worked on

    def clear_some(self, mounted: MountedDisks) -> bool:
        """One batch of bad copies on a disk in use of this role, also such as a killed repair left.

        Says whether there was one. Raises Stopped.
        """
        for disk in filter(self._takes_part, db.disks.disks(self._context.conn)):
            if bad := self._next_on(disk):
                self._done_to[disk.id] = bad[-1].id
                if held := held_if_here(mounted, disk, for_writing=True):
                    self._clear(held, bad)
                else:
                    self._out.add(disk.id)
                return True
        return False

    def _takes_part(self, disk: Disk) -> bool:
        is_in_use = disk.state is DiskState.ACTIVE and disk.held_by is None
        return is_in_use and disk.role is self._role and disk.id not in self._out

    def _next_on(self, disk: Disk) -> list[KnownFile]:
        """What may be read and set aside in one turn: a pass may be waiting."""
        limit, bad = BatchLimit({}), list[KnownFile]()
        after_id = self._done_to.get(disk.id, 0)
        for file_id in db.copies.ids_made_again(self._context.conn, disk, after_id):
            known = db.files.file_by_id(self._context.conn, file_id)
            if not limit.take(known.size_bytes, ()):
                break
            bad.append(known)
        return bad

    def _clear(self, held: HeldDisk, bad: list[KnownFile]) -> None:
        """Set aside what is still bad. First the lines: without their files they were for ever."""
        try:
            names = [known.name for known in bad]
            lines = manifest.find_lines(held.root_fd, names, manifest.BadLines())
            still_bad = [k for k in bad if not self._may_stay(held, k, lines.get(k.name))]
            if still_bad:
                manifest.drop_lines(held.root_fd, {known.name for known in still_bad})
            for known in still_bad:
                self._set_aside(held, known)
        except OSError as fault:
            self._out.add(held.disk.id)
            self._disks.leave_out(held.disk, fault)
        except ManifestDamaged as fault:
            self._out.add(held.disk.id)
            why = f"{held.disk.label}: its bad copy there is not set aside: {fault}"
            self.failed |= {shown(known.name): why for known in bad}

    def _set_aside(self, held: HeldDisk, known: KnownFile) -> None:
        """Its row goes too, for nothing is expected there any more."""
        path, conn = f"{bag.DATA}/{known.name}", self._context.conn
        info = paths.stat(held.root_fd, path)
        if info and not stat.S_ISDIR(info.st_mode):  # that may hold archived files: never moved
            bag.set_aside(held.root_fd, path, time.time())
        with db.transaction(conn):
            db.copies.drop_copy(conn, known.id, held.disk)
            db.disks.note_event(conn, held.disk.id, _now(), "set-aside", shown(known.name))

    def _may_stay(self, held: HeldDisk, known: KnownFile, line: ManifestLine | None) -> bool:
        """If it is good after all it counts again; what by its line is archived is never moved.

        Raises OSError where the disk as a whole does not answer.
        """
        try:
            with closing(direct_io.HashingReader()) as reader:
                found = held.read_copy(known.name, reader, self._go_on)
        except FileNotFoundError:
            return False
        except OSError:
            if held.answers():
                return False  # the medium is bad there
            raise
        if found.sha512 != known.sha512:
            if line is None or line.sha512 != found.sha512:
                return False
            self.failed[shown(known.name)] = (
                f"by its manifest, other content is archived on {held.disk.label} under this name; "
                "it stays there: see name-conflict in docs/operators.md"
            )
            return True
        with db.transaction(self._context.conn):
            db.copies.note_verified(
                self._context.conn, known.id, held.disk, CopyState.GOOD, found.verified_by, _now()
            )
        return True

    def _go_on(self, _: int) -> None:
        if self._stop.is_set():
            raise Stopped("interrupted; bad copies are set aside by the next repair")


def held_if_here(mounted: MountedDisks, disk: Disk, for_writing: bool = False) -> HeldDisk | None:
    """The disk, proved; None where it can't be used now."""
    try:
        return (
            mounted.hold_for_writing(disk, new_copies=False) if for_writing else mounted.hold(disk)
        )
    except DiskRefused:
        return None


def _now() -> str:
    return utc(time.time())
