"""How much fits on a disk, when it is full, and which disk and batch take the next file. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from poledata.formatting import label_key
from poledata.models import Disk, DiskState, Role

# What one more file may take besides its bytes: its inode, directory entries, manifest line.
FILE_OVERHEAD_BYTES = 16 * 1024
BATCH_BYTES = 4 * 1024**3
BATCH_FILES = 1000


@dataclass(frozen=True, slots=True)
class Room:
    """A usable disk and what may still be put on it: free space and inodes minus headroom."""

    disk: Disk
    room_bytes: int
    room_inodes: float = math.inf  # most file systems make them as needed
    empty_bytes: float = math.inf  # what it takes when nothing is on it

    def is_full_for(self, size_bytes: int, inodes: int = 1) -> bool:
        """True if a file does not fit that would fit on the empty disk."""
        return not self.takes(size_bytes, inodes) and cost_bytes(size_bytes) <= self.empty_bytes

    def takes(self, size_bytes: int, inodes: int = 1) -> bool:
        """True if a file of this size fits, with the directories it may need."""
        return self.room_bytes >= cost_bytes(size_bytes) and self.room_inodes >= inodes


def in_order_of_use(disks: Iterable[Disk], role: Role, tested: Collection[int] = ()) -> list[Disk]:
    """Return the disks of a role to try: in use before spares, lowest label first, none held.

    Of the spares those come first whose drive passed an extended self-test (``tested``: by id).
    """
    states = {DiskState.ACTIVE: 0, DiskState.SPARE: 1}
    fit = [d for d in disks if d.role is role and d.state in states and d.held_by is None]
    untested = {d.id for d in fit if d.state is DiskState.SPARE} - set(tested)
    return sorted(fit, key=lambda d: (states[d.state], d.id in untested, label_key(d.label)))


def cost_bytes(size_bytes: int) -> int:
    """Return what a file of this size takes from a disk, at most."""
    return size_bytes + FILE_OVERHEAD_BYTES


def fullest_that_fits(rooms: Sequence[Room], size_bytes: int, inodes: int = 1) -> Room | None:
    """Return the fullest disk with room, so that one is filled before the next; None if none."""
    fitting = [room for room in rooms if room.takes(size_bytes, inodes)]
    return min(fitting, key=lambda r: (r.room_bytes, label_key(r.disk.label)), default=None)


@dataclass(slots=True)
class BatchLimit:
    """Counts what a batch holds: it ends when it is long, or when a disk has no room."""

    rooms_bytes: dict[Role, int]
    rooms_inodes: dict[Role, float] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0

    def take(self, size_bytes: int, roles: Collection[Role], inodes: int = 1) -> bool:
        """Put a file into the batch if it fits; a first file of any length does."""
        over = self.files and (
            self.files >= BATCH_FILES or self.size_bytes + size_bytes > BATCH_BYTES
        )
        if over or not all(self._has_room(role, size_bytes, inodes) for role in roles):
            return False
        for role in roles:
            self.rooms_bytes[role] -= cost_bytes(size_bytes)
            self.rooms_inodes[role] = self.rooms_inodes.get(role, math.inf) - inodes
        self.files += 1
        self.size_bytes += size_bytes
        return True

    def _has_room(self, role: Role, size_bytes: int, inodes: int) -> bool:
        has_bytes = self.rooms_bytes[role] >= cost_bytes(size_bytes)
        return has_bytes and self.rooms_inodes.get(role, math.inf) >= inodes
