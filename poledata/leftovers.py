"""What is left of bad copies on disks in use, once there are proved ones in their place."""

from __future__ import annotations

import time
from contextlib import closing

from poledata import bag, beneath, catalogue, db, manifest, medium
from poledata.choice import BATCH_FILES
from poledata.diskwatch import DiskWatch
from poledata.errors import DiskRefused
from poledata.house import House
from poledata.identity import HeldDisk
from poledata.records import CopyOnDisk, CopyState, Disk, DiskState, KnownFile, Role
from poledata.shelf import Shelf
from poledata.texts import shown, utc


class Leftovers:
    """Read once more, then set aside: a disk that holds what its manifest does not say can't be
    closed."""

    def __init__(self, house: House, role: Role, disks: DiskWatch) -> None:
        self._house, self._role, self._disks = house, role, disks

    def clear(self, shelf: Shelf) -> None:
        """Bad copies on disks in use of this role, also those that a killed repair left."""
        disks = [d for d in catalogue.disks(self._house.conn) if d.role is self._role]
        for disk in filter(_takes_data, disks):
            bad = catalogue.ids_made_again(self._house.conn, disk)
            held = held_if_here(shelf, disk, for_writing=True) if bad else None
            for at in range(0, len(bad) if held else 0, BATCH_FILES):
                ids = bad[at : at + BATCH_FILES]
                assert held
                self._clear_some(held, [catalogue.file_by_id(self._house.conn, i) for i in ids])

    def _clear_some(self, held: HeldDisk, bad: list[KnownFile]) -> None:
        """Set aside what is still bad. First the lines: without their files they were for ever."""
        try:
            still_bad = [known for known in bad if not self._is_good_after_all(held, known)]
            if still_bad:
                manifest.drop_lines(held.root_fd, {known.name for known in still_bad})
            for known in still_bad:
                self._set_aside(held, known)
        except OSError as fault:
            self._disks.leave_out(held.disk, fault)

    def _set_aside(self, held: HeldDisk, known: KnownFile) -> None:
        """Its row goes too, for nothing is expected there any more."""
        path, conn = f"{bag.DATA}/{known.name}", self._house.conn
        if beneath.stat(held.root_fd, path):
            bag.set_aside(held.root_fd, path, time.time())
        with db.transaction(conn):
            catalogue.drop_copy(conn, known.id, held.disk)
            catalogue.note_event(conn, held.disk.id, _now(), "set-aside", shown(known.name))

    def _is_good_after_all(self, held: HeldDisk, known: KnownFile) -> bool:
        """Then it counts again. Raises OSError where the disk as a whole does not answer."""
        try:
            with closing(medium.HashingReader()) as reader:
                found = held.read_copy(known.name, reader, lambda _: None)
        except FileNotFoundError:
            return False
        except OSError:
            if held.answers():
                return False  # the medium is bad there
            raise
        if found.sha512 != known.sha512:
            return False
        copy = CopyOnDisk(known.id, known.name, known.size_bytes, known.sha512, CopyState.DAMAGED)
        with db.transaction(self._house.conn):
            catalogue.verified(
                self._house.conn, copy, held.disk, CopyState.GOOD, found.verified_by, _now()
            )
        return True


def _takes_data(disk: Disk) -> bool:
    return disk.state is DiskState.ACTIVE and disk.held_by is None


def held_if_here(shelf: Shelf, disk: Disk, for_writing: bool = False) -> HeldDisk | None:
    """The disk, proved; None where it can't be used now."""
    try:
        return shelf.hold_for_writing(disk) if for_writing else shelf.hold(disk)
    except DiskRefused:
        return None


def _now() -> str:
    return utc(time.time())
