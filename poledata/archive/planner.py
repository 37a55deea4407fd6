"""Plan the next batch: what each file lacks, which disks take it, which files fit.

It holds disks, and claims a spare when one is needed; it copies nothing.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from poledata.disks import bag, free_space
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, FileFault
from poledata.formatting import shown, size_text
from poledata.models import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    Job,
    KnownCopy,
    KnownFile,
    Role,
    Waiting,
)
from poledata.notices.findings import Findings
from poledata.notices.kinds import DISK_KINDS
from poledata.system import paths

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """A waiting file, what the database knows of it, and how often it was planned."""

    waiting: Waiting
    known: KnownFile | None
    tries: int = 0


@dataclass(slots=True)
class Batch:
    """One batch, while its disks are held open."""

    jobs: list[Job] = field(default_factory=list)
    works: dict[str, Work] = field(default_factory=dict)  # by name, of the jobs
    disks: dict[Role, HeldDisk] = field(default_factory=dict)
    again: list[Work] = field(default_factory=list)  # both copies are known and there
    interrupted: list[Work] = field(default_factory=list)  # hidden, and a copy is lacking
    without_disk: list[Work] = field(default_factory=list)
    full: list[Disk] = field(
        default_factory=list
    )  # in use, and a file went elsewhere for lack of space
    refused: list[tuple[Disk, DiskRefused]] = field(default_factory=list)
    too_big: list[tuple[Work, FileFault]] = field(default_factory=list)
    lost_copies: list[tuple[KnownFile, KnownCopy, CopyState]] = field(default_factory=list)

    def bytes_by_label(self) -> dict[str, int]:
        """Return how many bytes will be written to each disk."""
        return {
            held.disk.label: sum(j.waiting.stat.size_bytes for j in self.jobs if role in j.roles)
            for role, held in self.disks.items()
        }


@dataclass(slots=True)
class Planner:
    """Fills one batch; ``out`` are the ids of disks that get nothing for the rest of the pass."""

    disks: list[Disk]
    mounted: MountedDisks
    findings: Findings
    out: set[int]
    promised_bytes: dict[int, int]  # by disk id; in a dry run: what would have been written
    is_dry: bool
    lacking: Callable[[KnownFile | None], list[Role]] | None = (
        None  # by default what can't be seen on the disks
    )
    what_is_safe: str = "Files stay safe in the buffer."
    tested: Collection[int] = ()  # ids of disks whose drive passed an extended self-test
    _batch: Batch = field(default_factory=Batch)
    _limit: free_space.BatchLimit = field(default_factory=lambda: free_space.BatchLimit({}))
    _none_from_bytes: dict[Role, int] = field(default_factory=dict)
    _rooms: dict[int, free_space.Room] = field(default_factory=dict)  # by disk id

    def fill(self, todo: deque[Work]) -> Batch:
        """Take files from ``todo``, in order, until a batch is full."""
        while todo and self._place(todo[0]):
            todo.popleft()
        return self._batch

    def _place(self, work: Work) -> bool:
        """Find disks for a file; False if it begins the next batch."""
        lacking = (self.lacking or self._lacking_roles)(work.known)
        if not lacking:
            if len(self._batch.again) >= free_space.BATCH_FILES:
                return False
            self._batch.again.append(work)
            return True
        if work.waiting.hidden_as:
            self._batch.interrupted.append(work)
            return True
        try:
            roles = frozenset(r for r in lacking if self._has_target(r, work))
        except FileFault as fault:
            self._batch.too_big.append((work, fault))
            return True
        if not roles:
            self._batch.without_disk.append(work)
            return True
        inodes = work.waiting.cost_inodes
        if not self._limit.take(work.waiting.stat.size_bytes, roles, inodes):
            return False
        self._batch.jobs.append(Job(work.waiting, roles, work.known.sha512 if work.known else None))
        self._batch.works[work.waiting.name] = work
        if len(roles) < len(lacking):
            self._batch.without_disk.append(work)
        return True

    # --- what a file lacks ------------------------------------------------------------------

    def _lacking_roles(self, known: KnownFile | None) -> list[Role]:
        """Return the roles in which no copy of the file can be seen now."""
        copies = known.copies if known else ()
        return [
            role
            for role in Role
            if not any(self._is_there(known, c) for c in copies if known and c.disk.role is role)
        ]

    def _is_there(self, known: KnownFile, copy: KnownCopy) -> bool:
        if copy.state is not CopyState.GOOD or copy.disk.held_by is not None:
            return False
        try:
            held = self.mounted.hold(copy.disk)
            if held.unsupported:
                return False  # it never justifies a removal: archived again
            info = paths.stat(held.root_fd, f"{bag.DATA}/{known.name}")
        except DiskRefused:
            return (
                False  # not mounted, shipped, broken: archived again, and reported if it is in use
            )
        except OSError as fault:
            log.warning("%s: %s can't be looked at: %s", copy.disk.label, shown(known.name), fault)
            return False
        stat = FileStat.of(info) if info else None
        if stat and (stat.size_bytes, stat.mtime_ns) == (known.size_bytes, copy.mtime_ns):
            return True
        state = CopyState.DAMAGED if info else CopyState.MISSING
        self._batch.lost_copies.append((known, copy, state))
        return False

    # --- which disk takes it ----------------------------------------------------------------

    def _has_target(self, role: Role, work: Work) -> bool:
        """True if this batch has a disk of the role for the file."""
        size_bytes = work.waiting.stat.size_bytes
        if role not in self._batch.disks and size_bytes < self._none_from_bytes.get(role, math.inf):
            held = self._pick(role, work.waiting)
            if held is None:
                self._none_from_bytes[role] = size_bytes  # a smaller file may still fit
            else:
                room = self._rooms[held.disk.id]
                self._batch.disks[role] = held
                self._limit.rooms_bytes[role] = room.room_bytes
                self._limit.rooms_inodes[role] = room.room_inodes
        return role in self._batch.disks

    def _pick(self, role: Role, waiting: Waiting) -> HeldDisk | None:
        """Return the fullest disk in use with space for the file, else the first such spare."""
        size_bytes, inodes = waiting.stat.size_bytes, waiting.cost_inodes
        candidates = [
            d
            for d in free_space.in_order_of_use(self.disks, role, self.tested)
            if d.id not in self.out
        ]
        used = [d for d in candidates if d.state is DiskState.ACTIVE]
        held = {h.disk.id: h for d in used if (h := self._usable(d)) is not None}
        rooms = [self._rooms[disk_id] for disk_id in held]
        best = free_space.fullest_that_fits(rooms, size_bytes, inodes)
        chosen = held[best.disk.id] if best else None
        if chosen is None:
            chosen = self._pick_spare(role, waiting, [d for d in candidates if d not in used])
        if chosen:
            self._batch.full += [r.disk for r in rooms if r.is_full_for(size_bytes, inodes)]
        return chosen

    def _pick_spare(self, role: Role, waiting: Waiting, spares: list[Disk]) -> HeldDisk | None:
        size_bytes, inodes = waiting.stat.size_bytes, waiting.cost_inodes
        too_small = 0
        for disk in spares:
            held = self._usable(disk)
            if held is None:
                continue
            if not self._rooms[disk.id].takes(size_bytes, inodes):
                too_small += 1
                continue
            if (claimed := self._claimed(held)) is not None:
                return claimed
        if too_small:
            raise FileFault(
                shown(waiting.name), f"its {size_bytes} bytes fit on no empty {role.value} disk"
            )
        self.findings.note(
            "no-disk",
            role.value,
            f"No {role.value} disk can take {shown(waiting.name)} ({size_text(size_bytes)}). "
            f"{self.what_is_safe} Mount a spare {role.value} disk."
            f"{self._held_ones(role)}",
        )
        return None

    def _held_ones(self, role: Role) -> str:
        would_do = (DiskState.ACTIVE, DiskState.SPARE)
        disks = [d for d in self.disks if d.role is role and d.state in would_do]
        held = [f"{d.label} ({d.held_reason})" for d in disks if d.held_by]
        return f" Or give one back that is held: {', '.join(held)}." if held else ""

    def _usable(self, disk: Disk) -> HeldDisk | None:
        """Return the disk, held, and ready for writing if it is in use; report a refusal."""
        try:
            if disk.state is DiskState.ACTIVE or self.is_dry:
                held = self._for_writing(disk)
            else:
                held = self.mounted.hold_to_copy_to(disk)
            self._rooms[disk.id] = self._room(held)
        except DiskRefused as refusal:
            if disk.state is DiskState.ACTIVE or refusal.kind != "disk-missing":
                self._batch.refused.append((disk, refusal))
                self.findings.note_refused(refusal)
            return None
        self.findings.clear(DISK_KINDS, disk.label)
        return held

    def _for_writing(self, disk: Disk) -> HeldDisk:
        if self.is_dry:
            return self.mounted.hold_for_dry_run(disk)
        return self.mounted.hold_for_writing(disk)

    def _claimed(self, held: HeldDisk) -> HeldDisk | None:
        try:
            claimed = self._for_writing(held.disk)
            self._rooms[held.disk.id] = self._room(claimed)
            return claimed
        except DiskRefused as refusal:
            self._batch.refused.append((held.disk, refusal))
            self.findings.note_refused(refusal)
            return None

    def _room(self, held: HeldDisk) -> free_space.Room:
        room = self.mounted.room(held)
        promised_bytes = self.promised_bytes.get(held.disk.id, 0)
        return replace(room, room_bytes=room.room_bytes - promised_bytes)
