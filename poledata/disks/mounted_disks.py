"""The disks as they are now: each is proved to be the right one before it is used.

A disk is used only through the descriptor of its root that is held here, so that data can never
fall into the directory below a disk that is unmounted meanwhile.
"""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import replace

from poledata import db
from poledata.config import Config
from poledata.disks import bag, manifest
from poledata.disks.free_space import Room
from poledata.disks.identity import (
    HeldDisk,
    as_refusal,
    must_be_alone,
    must_be_writable,
    prove,
    proved_mark,
    reads_directly,
    wrong_disk,
)
from poledata.errors import DiskRefused
from poledata.formatting import utc_now
from poledata.models import MANIFEST, Disk, DiskState
from poledata.system import mounts, paths

# Always kept free, so that a full disk can still be closed.
SEAL_BYTES = 1024**2
SEAL_INODES = 8

log = logging.getLogger(__name__)


def measure(conn: db.Connection, held: HeldDisk) -> None:
    """Record the space on a disk that was just written to, when that was, and its manifest."""
    try:
        room = mounts.space(held.root_fd)
    except OSError as fault:
        log.warning("%s can't be measured: %s", held.disk.label, fault)
        return
    manifest.note_size(conn, held.disk, held.root_fd)
    sizes = (room.capacity_bytes, room.used_bytes, room.free_bytes)
    db.disks.measure(conn, held.disk, *sizes, utc_now())


def seal_bytes(held: HeldDisk) -> int:
    """Return the free space that closing a disk takes. Raises OSError."""
    info = paths.stat(held.root_fd, MANIFEST)
    return SEAL_BYTES + (info.st_size if info else 0)


class MountedDisks:
    """Holds disks for one batch: each is proved once, and closed at the end.

    ``ready``: ids of the disks that this pass has made ready for writing.
    """

    def __init__(self, config: Config, conn: db.Connection, ready: set[int] | None = None) -> None:
        self._config, self._conn = config, conn
        self._ready = set() if ready is None else ready
        self._held: dict[int, HeldDisk] = {}
        self._refused: dict[int, DiskRefused] = {}

    def __enter__(self) -> MountedDisks:
        return self

    def __exit__(self, *exc: object) -> None:
        for held in self._held.values():
            os.close(held.root_fd)
        self._held.clear()

    def hold(self, disk: Disk) -> HeldDisk:
        """Return the disk, proved to be the one in the database. Raises DiskRefused."""
        if disk.id in self._refused:
            raise self._refused[disk.id]
        if disk.id not in self._held:
            try:
                with as_refusal(disk):
                    self._held[disk.id] = self._prove(disk)
            except DiskRefused as refusal:
                self._refused[disk.id] = refusal
                raise
        return self._held[disk.id]

    def hold_to_copy_to(self, disk: Disk) -> HeldDisk:
        """Return the disk if new copies may go there; nothing is written. Raises DiskRefused."""
        held = self.hold(disk)
        with as_refusal(disk):
            must_be_writable(held)
        return held

    def usable(self, disk: Disk) -> Room:
        """Return the room for new copies on a disk: it is here, the right one, and writable.

        Nothing is written. Raises DiskRefused, which says why it can't be used.
        """
        return self.room(self.hold_to_copy_to(disk))

    def hold_for_writing(self, disk: Disk, new_copies: bool = True) -> HeldDisk:
        """Return the disk, claimed at its first use, and without leftovers of earlier passes.

        Without ``new_copies`` also a disk that may only be closed, or have copies set aside.
        Raises DiskRefused.
        """
        held = self.hold(disk)
        with as_refusal(disk):
            must_be_writable(held, new_copies)
            if disk.id not in self._ready:
                held = self._make_ready(held)
        return held

    def hold_for_dry_run(self, disk: Disk) -> HeldDisk:
        """Return the disk for a dry run, by any user: refused as for writing, and not touched."""
        held = self.hold(disk)
        with as_refusal(disk):
            must_be_writable(held, by_this_user=os.access(self._config.db_path, os.W_OK))
            if held.mark is None:
                self._must_be_here_alone(held)
            else:
                manifest.must_end_well(held.root_fd)
        return held

    def room(self, held: HeldDisk) -> Room:
        """Return what may still be put on a disk: free for ordinary users, minus the headroom."""
        with as_refusal(held.disk):
            space = mounts.space(held.root_fd)
            headroom_bytes = max(self._config.min_free_bytes, seal_bytes(held))
        return Room(
            held.disk,
            space.free_bytes - headroom_bytes,
            math.inf if space.free_inodes is None else space.free_inodes - SEAL_INODES,
            space.capacity_bytes - headroom_bytes,
        )

    def _prove(self, disk: Disk) -> HeldDisk:
        held = prove(self._config, disk, db.disks.disks(self._conn))
        try:
            must_be_alone(held, self._held.values())
        except DiskRefused:
            os.close(held.root_fd)
            raise
        return held

    def _must_be_here_alone(self, held: HeldDisk) -> None:
        """Raises DiskRefused if a spare is also at another label's place: whose is it?"""
        if held.disk.stand_in:
            return
        device, own = os.fstat(held.root_fd).st_dev, os.path.realpath(held.path)
        for other in db.disks.disks(self._conn):
            for place in self._config.mount_points(other.label):
                is_own = os.path.realpath(place) == own  # also if another's place is a link
                if not is_own and mounts.device_at(place) == device:
                    raise wrong_disk(
                        held.disk,
                        f"what is mounted at {held.path} is also mounted at {place}",
                        "Unmount it where it does not belong: look at the sticker.",
                    )

    def _make_ready(self, held: HeldDisk) -> HeldDisk:
        """Claim a spare, remove what an earlier pass left unfinished, repair the manifest."""
        disk = held.disk
        if held.mark is None:
            self._must_be_here_alone(held)
            bag.claim(held.root_fd, bag.Mark.of(disk, time.time()))
            mark = proved_mark(disk, held.path, held.root_fd)
            held = replace(held, mark=mark, direct=reads_directly(held.root_fd))
            self._held[disk.id] = held
        for own in (bag.DATA, bag.INCOMING):  # never through a link in their place
            paths.make_directories(held.root_fd, own)
        bag.sweep_incoming(held.root_fd)
        manifest.cut_torn_line(held.root_fd)
        if disk.state is DiskState.SPARE:
            with db.transaction(self._conn):
                db.disks.activate(self._conn, disk, utc_now())
        self._ready.add(disk.id)
        return held
