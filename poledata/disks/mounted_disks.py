"""The disks as they are now: each is proved to be the right one before it is used.

A disk is worked with only through the descriptor of its root that is held here, so that
one which is unmounted meanwhile can never let data fall into the directory below.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace

from poledata import db
from poledata.config import Config
from poledata.disks import bag, manifest
from poledata.disks.identity import (
    HeldDisk,
    disk_faults,
    must_be_alone,
    must_be_supported,
    must_be_writable,
    must_take_copies,
    must_take_files,
    prove,
    proved_mark,
    reads_directly,
)
from poledata.disks.selection import Room
from poledata.errors import DiskRefused
from poledata.formatting import utc
from poledata.models import Disk, DiskState
from poledata.system import mounts, paths

# Always kept free, so that a full disk can still be closed.
SEAL_BYTES = 1024**2
SEAL_INODES = 8


def seal_bytes(held: HeldDisk) -> int:
    """The room that closing a disk takes. Raises OSError."""
    info = paths.stat(held.root_fd, bag.MANIFEST)
    return SEAL_BYTES + (info.st_size if info else 0)


class MountedDisks:
    """Holds disks for one batch: each is looked at once, and let go at the end."""

    def __init__(self, config: Config, conn: db.Connection, ready: set[int] | None = None) -> None:
        self._config, self._conn = config, conn
        self._ready = (
            set() if ready is None else ready
        )  # disk ids that this pass has made ready for writing
        self._held: dict[int, HeldDisk] = {}
        self._refused: dict[int, DiskRefused] = {}

    def __enter__(self) -> MountedDisks:
        return self

    def __exit__(self, *exc: object) -> None:
        for held in self._held.values():
            os.close(held.root_fd)
        self._held.clear()

    def hold(self, disk: Disk) -> HeldDisk:
        """The disk, proved to be the one the database means. Raises DiskRefused."""
        if disk.id in self._refused:
            raise self._refused[disk.id]
        if disk.id not in self._held:
            try:
                with disk_faults(disk):
                    self._held[disk.id] = self._prove(disk)
            except DiskRefused as refusal:
                self._refused[disk.id] = refusal
                raise
        return self._held[disk.id]

    def hold_to_copy_to(self, disk: Disk) -> HeldDisk:
        """The same, if new copies may go there; nothing is written yet. Raises DiskRefused."""
        held = self.hold(disk)
        with disk_faults(disk):
            must_take_copies(held)
        return held

    def hold_for_writing(self, disk: Disk, new_copies: bool = True) -> HeldDisk:
        """The same, claimed at its first use, and with earlier leftovers swept.

        Without ``new_copies`` also a disk that may only be closed, or have copies set aside.
        """
        held = self.hold_to_copy_to(disk) if new_copies else self.hold(disk)
        with disk_faults(disk):
            must_be_writable(held)
            if disk.id not in self._ready:
                held = self._make_ready(held)
        return held

    def look_for_writing(self, disk: Disk) -> HeldDisk:
        """The same for a dry run, also another user's: it is refused as there, and not touched."""
        held = self.hold(disk)
        with disk_faults(disk):
            must_be_supported(held)
            is_ours = os.access(self._config.db_path, os.W_OK)
            must_be_writable(held) if is_ours else must_take_files(held)
            if held.mark is None:
                self._must_be_here_alone(held)
            else:
                manifest.must_end_well(held.root_fd)
        return held

    def room(self, held: HeldDisk) -> Room:
        """What may still be put on a disk: free for ordinary users, less the headroom."""
        with disk_faults(held.disk):
            space = mounts.space(held.root_fd)
            to_seal_bytes = seal_bytes(held)
        inodes = math.inf if space.free_inodes is None else space.free_inodes - SEAL_INODES
        headroom_bytes = max(self._config.min_free_bytes, to_seal_bytes)
        return Room(
            held.disk,
            space.free_bytes - headroom_bytes,
            inodes,
            space.capacity_bytes - headroom_bytes,
        )

    def _prove(self, disk: Disk) -> HeldDisk:
        held = prove(self._config, disk, db.disks.disks(self._conn))
        self._must_be_alone(held)
        return held

    def _must_be_alone(self, held: HeldDisk) -> None:
        """Raises DiskRefused if another label's disk is on the same physical drive."""
        try:
            must_be_alone(held, self._held.values())
        except DiskRefused:
            os.close(held.root_fd)
            raise

    def _must_be_here_alone(self, held: HeldDisk) -> None:
        """Raises DiskRefused if a spare also stands at another label's place: whose is it?"""
        if held.disk.stand_in:
            return
        device, own = os.fstat(held.root_fd).st_dev, os.path.realpath(held.path)
        for other in db.disks.disks(self._conn):
            for place in self._config.mount_points(other.label):
                is_own = os.path.realpath(place) == own  # also where another's place is a link
                if not is_own and mounts.device_at(place) == device:
                    raise DiskRefused(
                        "disk-wrong",
                        held.disk.label,
                        f"what is mounted at {held.path} is also mounted at {place}",
                        "Unmount it where it does not belong: look at the sticker.",
                    )

    def _make_ready(self, held: HeldDisk) -> HeldDisk:
        """Claim a spare, clear what an earlier pass left unfinished, mend the manifest."""
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
        manifest.mend(held.root_fd)
        if disk.state is DiskState.SPARE:
            with db.transaction(self._conn):
                db.disks.activate(self._conn, disk, utc(time.time()))
        self._ready.add(disk.id)
        return held
