"""Make damaged and missing copies again from good ones, on disks in use."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from poledata import db
from poledata.archive import copier
from poledata.archive.buffer_marker import in_the_buffer
from poledata.archive.copier import Result
from poledata.archive.pass_state import Watcher
from poledata.archive.planner import Batch, Planner, Work
from poledata.context import Context
from poledata.disks import bag, lifecycle, manifest
from poledata.disks.disk_faults import DiskFaults
from poledata.disks.free_space import BATCH_FILES
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks, measure
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    OBSTACLE_ERRNOS,
    DiskRefused,
    FileFault,
    NameConflict,
    Refused,
    SetAside,
    SourceChanged,
    Stopped,
)
from poledata.formatting import shown, utc_now
from poledata.maintenance.copy_check import examine
from poledata.maintenance.leftovers import Leftovers
from poledata.models import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    KnownCopy,
    KnownFile,
    Role,
    Waiting,
    Written,
)
from poledata.notices.defects import caught
from poledata.notices.findings import Findings
from poledata.system import locks, paths
from poledata.system.direct_io import HashingReader

TRIES = 3  # a second disk may be full, or fail, too

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A disk with good copies that can't be read now; ``is_only``: no other disk has one."""

    label: str
    is_only: bool
    shipped_at: str | None


@dataclass(slots=True)
class RepairResult:
    """What a repair did and could not do; names are shown names."""

    copied_files: int = 0
    copied_bytes: int = 0
    to_labels: set[str] = field(default_factory=set)
    no_good_copy: set[str] = field(default_factory=set)
    not_here: Counter[Elsewhere] = field(default_factory=Counter)
    set_aside: Counter[str] = field(default_factory=Counter)  # bad copies, by the disk's label
    without_disk: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        return not (self.no_good_copy or self.not_here or self.without_disk or self.failed)


def repair(
    context: Context,
    stop: threading.Event,
    watcher: Watcher,
    emptied: Disk | None = None,
    is_dry: bool = False,
) -> RepairResult:
    """Give every archived file a good copy in each role again; ``emptied``: off this held disk.

    Raises Refused, Stopped.
    """
    if emptied:
        _must_be_held(emptied)
    if is_dry:
        context = replace(context, findings=Findings(context.conn, is_dry=True))
    outcome = RepairResult()
    bad = {disk.id for disk in db.disks.disks(context.conn) if _is_about_copies(context, disk)}
    for role in Role:
        if emptied is None or emptied.role is role:
            _Repair(context, stop, watcher, role, emptied, is_dry, outcome).run()
    if not is_dry:
        lifecycle.clear_no_disk(context)
        _tell_how_disks_are(context, bad)
    return outcome


def _must_be_held(disk: Disk) -> None:
    if disk.state is not DiskState.ACTIVE:
        raise Refused(
            f"{disk.label} is {disk.state.value}: nothing is written to it. Nothing was changed. "
            f"If it is dead: data_manager.py lost {disk.label}, then repair without a label."
        )
    if disk.held_by is None:
        raise Refused(
            f"{disk.label} is not held: passes still write to it. Nothing was changed. First: "
            f'data_manager.py hold {disk.label} --why "…"'
        )


def _is_about_copies(context: Context, disk: Disk) -> bool:
    """True if a notice of this disk is one of bad copies.

    Also of copies that were made again elsewhere before, because those are set aside on a disk in
    use; and of bad copies that a verification counted and a killed repair made again.
    """
    is_swept = disk.state is DiskState.ACTIVE and db.copies.ids_made_again(context.conn, disk)
    found = context.findings.get("copy-damaged", disk.known_as)
    was_counted = found and found.value
    return bool(db.copies.bad_copies_on(context.conn, disk) or is_swept or was_counted)


def _tell_how_disks_are(context: Context, were_bad: set[int]) -> None:
    """Settle the notices of disks that had bad copies, if each was made again."""
    for disk in db.disks.disks(context.conn):
        with context.findings.isolated(f"{disk.label}: telling of its copies"):
            if db.copies.bad_copies_on(context.conn, disk):
                lifecycle.note_no_good_copy(context, disk)
            elif disk.id in were_bad:
                context.findings.clear(["copy-damaged"], disk.known_as)
    lifecycle.clear_repaired(context)


@dataclass(frozen=True, slots=True)
class Todo:
    """A file that lacks a copy; ``tried`` are disks whose copy did not prove good.

    ``obstacles``: why disks that are well can't take it, by their ids; another one may.
    """

    file_id: int
    tries: int = 0
    tried: frozenset[int] = frozenset()
    obstacles: dict[int, str] = field(default_factory=dict)

    def not_to(self, disk: Disk, why: str) -> Todo:
        """Return the same file, for another disk."""
        return replace(self, obstacles={**self.obstacles, disk.id: why})


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file that lacks a copy, and the copy from which it is made."""

    todo: Todo
    known: KnownFile
    copy: KnownCopy
    held: HeldDisk
    waiting: Waiting


class FromDisks:
    """A source for the copier: instead of buffer files it reads copies on held disks."""

    def __init__(self, chosen: Iterable[Chosen]) -> None:
        self._held = {one.known.name: one.held for one in chosen}

    @contextmanager
    def finished(self, waiting: Waiting) -> Iterator[int]:
        held = self._held[waiting.name]
        try:
            with paths.opened(held.root_fd, f"{bag.DATA}/{waiting.name}") as fd:
                self.must_be_untouched(fd, waiting)
                yield fd
        except OSError as fault:
            why = f"{held.disk.label} does not give it back ({fault.strerror or fault})"
            raise FileFault(shown(waiting.name), why) from fault

    def read_ahead(self, waiting: Waiting) -> None:
        paths.read_ahead(self._held[waiting.name].root_fd, f"{bag.DATA}/{waiting.name}")

    def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
        if FileStat.of(os.fstat(fd)) != waiting.stat:
            raise SourceChanged(shown(waiting.name), "its copy changed while it was read")


@dataclass(frozen=True, slots=True)
class Chooser:
    """Finds the copies from which those of a role are made; ``outcome`` gets what is not found."""

    context: Context
    role: Role
    is_dry: bool
    outcome: RepairResult
    unreadable_disks: set[int] = field(default_factory=set)
    found_bad: set[tuple[int, int]] = field(default_factory=set)  # file id, disk id

    def choose(self, mounted: MountedDisks, todo: Todo) -> Chosen | None:
        """Return the first copy that is here and was not tried; if there is none, note that.

        Good ones first, the other role's before this one's. One that was found damaged may have
        been so for a moment only, so it is read.
        """
        known = db.files.file_by_id(self.context.conn, todo.file_id)
        there = [
            copy
            for copy in known.copies
            if copy.state is not CopyState.MISSING and copy.disk.state is not DiskState.LOST
        ]
        for copy in sorted(there, key=self._source_rank):
            if copy.disk.id in todo.tried | self.unreadable_disks:
                continue
            try:
                held = mounted.hold(copy.disk)
            except DiskRefused:
                continue
            if waiting := self._waiting(held, known, copy):
                return Chosen(todo, known, copy, held, waiting)
        self._note_that_none_is_here(known, there)
        return None

    def _source_rank(self, copy: KnownCopy) -> tuple[bool, bool, bool]:
        is_bad = copy.state is not CopyState.GOOD
        return (is_bad, copy.disk.role is self.role, bool(copy.disk.held_by))

    def _waiting(self, held: HeldDisk, known: KnownFile, copy: KnownCopy) -> Waiting | None:
        """Return the copy as the copier's source; None if it can't be a good one."""
        try:
            info = paths.stat(held.root_fd, f"{bag.DATA}/{known.name}")
        except OSError as fault:
            log.warning("%s: %s can't be looked at: %s", held.disk.label, shown(known.name), fault)
            return None
        if info and stat.S_ISREG(info.st_mode) and info.st_size == known.size_bytes:
            return Waiting(known.name, FileStat.of(info), stat.S_IMODE(info.st_mode))
        self.note_bad(known, copy, CopyState.DAMAGED if info else CopyState.MISSING)
        return None

    def note_bad(self, known: KnownFile, copy: KnownCopy, state: CopyState) -> None:
        """Note that a copy which was good by the database is not."""
        if copy.state is not CopyState.GOOD:
            return
        self.found_bad.add((known.id, copy.disk.id))
        if self.is_dry:
            return
        with db.transaction(self.context.conn):
            db.copies.set_copy_state(self.context.conn, known.id, copy.disk, state)
        text = f"Its copy on {copy.disk.label} was to be copied from, and is {state.value}."
        self.context.findings.note("copy-damaged", shown(known.name), text)

    def _note_that_none_is_here(self, known: KnownFile, there: list[KnownCopy]) -> None:
        good = [
            c.disk
            for c in there
            if c.state is CopyState.GOOD and (known.id, c.disk.id) not in self.found_bad
        ]
        if not good:
            self.outcome.no_good_copy.add(shown(known.name))
            return
        disk = min(good, key=lambda disk: disk.state is DiskState.SHIPPED)
        shipped_at = None
        if disk.state is DiskState.SHIPPED:
            shipped_at = db.disks.last_event(self.context.conn, disk, disk.state.value)
        self.outcome.not_here[Elsewhere(disk.label, len(good) == 1, shipped_at)] += 1


def _find_obstacles(held: HeldDisk, chosen: Iterable[Chosen]) -> dict[str, str]:
    """Return what on this disk would stop which of these files, by name; nothing is written.

    A directory is never moved, nor a file that is archived by the disk's manifest. Raises OSError.
    """
    found, existing = {}, {}
    for one in chosen:
        path = f"{bag.DATA}/{one.known.name}"
        if why := _why_not_there(held, path):
            found[one.known.name] = why
        elif paths.stat(held.root_fd, path):
            existing[one.known.name] = one.known.sha512
    if not existing:
        return found
    lines = manifest.find_lines(held.root_fd, existing, manifest.BadLines())
    other = [line for name, line in lines.items() if line.sha512 != existing[name]]
    why = f"by its manifest, other content is archived on {held.disk.label} under this name"
    with closing(HashingReader()) as reader:
        for line in other:
            if examine(held, line.name, line.sha512, reader).state is CopyState.GOOD:
                found[line.name] = why
    return found


def _why_not_there(held: HeldDisk, path: str) -> str | None:
    """Return why no file can get to its place on this disk. Raises OSError if the disk fails."""
    label = held.disk.label
    try:
        place = paths.obstacle_to(held.root_fd, path)
    except OSError as fault:
        if fault.errno in DISK_ERRNOS:
            raise
        return f"{label}: {fault.strerror or fault} ({held.path / shown(path)})"
    what = "a directory" if place == path else "something"
    return f"on {label} {what} is in its way ({held.path / shown(place)})" if place else None


class _Repair:
    """The repair of one role."""

    def __init__(
        self,
        context: Context,
        stop: threading.Event,
        watcher: Watcher,
        role: Role,
        emptied: Disk | None,
        is_dry: bool,
        outcome: RepairResult,
    ) -> None:
        self._context, self._stop, self._watcher = context, stop, watcher
        self._role, self._emptied, self._is_dry = role, emptied, is_dry
        self._outcome = outcome
        self._disks = DiskFaults(context)
        self._leftovers = Leftovers(
            context, role, self._disks, stop, outcome.failed, outcome.set_aside
        )
        self._ready: set[int] = set()
        self._chooser = Chooser(context, role, is_dry, outcome)
        self._promised_bytes: dict[int, int] = {}

    def run(self) -> None:
        """Raises Stopped."""
        ids = self._lacking()
        for at in range(0, len(ids), BATCH_FILES):
            todo = [Todo(file_id) for file_id in ids[at : at + BATCH_FILES]]
            while todo:
                self._go_on()
                with self._turn():
                    todo = self._in_isolation(todo)
        has_more = not self._is_dry
        while has_more:
            with self._turn(), self._mounted() as mounted:
                has_more = self._leftovers.clear_some(mounted)
            if has_more:
                self._go_on()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped("interrupted; what is copied counts, and the rest can follow")

    def _lacking(self) -> list[int]:
        """Return the files to copy, without those in the buffer: passes copy these from there."""
        ids = db.copies.ids_lacking(self._context.conn, self._role, self._emptied)
        waiting = in_the_buffer(self._context.config, self._context.conn)
        return [file_id for file_id in ids if file_id not in waiting]

    def _turn(self) -> AbstractContextManager[None]:
        db_path = self._context.config.db_path
        return nullcontext() if self._is_dry else locks.between_batches(db_path)

    def _mounted(self) -> MountedDisks:
        return MountedDisks(self._context.config, self._context.conn, self._ready)

    def _in_isolation(self, todo: list[Todo]) -> list[Todo]:
        """Copy a batch; if it hits a bug, halve it until the file that hits it is alone."""
        with caught("a batch of repair") as bugs:
            return self._one_batch(todo)
        if len(todo) == 1:
            name = shown(db.files.file_by_id(self._context.conn, todo[0].file_id).name)
            self._outcome.failed[name] = bugs[0]
            self._context.findings.note("defect", f"repair: {name}", f"{bugs[0]}.")
            return []
        middle = len(todo) // 2
        return [*self._in_isolation(todo[:middle]), *self._in_isolation(todo[middle:])]

    def _one_batch(self, todo: list[Todo]) -> list[Todo]:
        """Copy what fits one batch; return what is still to be done.

        Files for which something is in the way are separated from others: they go to other disks.
        """
        out = todo[0].obstacles.keys()
        now = [item for item in todo if item.obstacles.keys() == out]
        later = [item for item in todo if item.obstacles.keys() != out]
        with self._mounted() as mounted:
            chosen = {
                one.known.name: one for item in now if (one := self._chooser.choose(mounted, item))
            }
            works = deque(Work(one.waiting, one.known, one.todo.tries) for one in chosen.values())
            batch = self._planner(mounted, out).fill(works)
            for work in batch.without_disk:
                self._note_without_disk(chosen[work.waiting.name])
            for work, fault in batch.too_big:
                self._outcome.failed[shown(work.waiting.name)] = fault.why
            blocked = self._without_obstacles(batch, chosen)
            again = (self._dry_run if self._is_dry else self._copy)(batch, chosen)
        if not self._is_dry:
            self._disks.end_of_pass()
        return [*(chosen[work.waiting.name].todo for work in works), *again, *later, *blocked]

    def _planner(self, mounted: MountedDisks, out: Iterable[int]) -> Planner:
        return Planner(
            db.disks.disks(self._context.conn),
            mounted,
            self._context.findings,
            self._disks.out.union(out),
            self._promised_bytes,
            self._is_dry,
            lacking=lambda _known: [self._role],
            what_is_safe="Its other copy stays as it is.",
        )

    def _note_without_disk(self, one: Chosen) -> None:
        if not one.todo.obstacles:
            self._outcome.without_disk += 1
            return
        whys = "; ".join(one.todo.obstacles.values())
        self._outcome.failed[shown(one.known.name)] = (
            f"{whys}. Mount a spare {self._role.value} disk, or see name-conflict in "
            "docs/operators.md; then repair again"
        )

    def _without_obstacles(self, batch: Batch, chosen: dict[str, Chosen]) -> list[Todo]:
        """Take out of a batch, and return, the files that its disk can't take; another one may."""
        if not batch.jobs:
            return []
        held = batch.disks[self._role]
        try:
            found = _find_obstacles(held, [chosen[job.name] for job in batch.jobs])
        except OSError as fault:
            self._disks.leave_out(held.disk, fault)
            blocked, batch.jobs = [chosen[job.name].todo for job in batch.jobs], []
            return blocked
        batch.jobs = [job for job in batch.jobs if job.name not in found]
        return [chosen[name].todo.not_to(held.disk, why) for name, why in found.items()]

    def _dry_run(self, batch: Batch, chosen: dict[str, Chosen]) -> list[Todo]:
        """Read and prove the sources as a repair would; nothing is written."""
        if not batch.jobs:
            return []
        jobs = [replace(job, roles=frozenset[Role]()) for job in batch.jobs]
        source, disk = FromDisks(chosen.values()), batch.disks[self._role].disk
        again = []
        for result in copier.copy_batch(source, jobs, [], self._stop, self._watcher.moved):
            if result.fault is not None:
                again.append(self._from_another(chosen[result.job.name], result.fault))
                continue
            self._watcher.would_copy(result.job, [disk.label])
            size_bytes = result.job.waiting.stat.size_bytes
            self._promised_bytes[disk.id] = self._promised_bytes.get(disk.id, 0) + size_bytes
        return again

    def _copy(self, batch: Batch, chosen: dict[str, Chosen]) -> list[Todo]:
        """Copy the files of a batch; return what must be tried again."""
        if not batch.jobs:
            return []
        self._watcher.batch(batch.bytes_by_label())
        source, held = FromDisks(chosen.values()), batch.disks[self._role]
        targets = [held.target for held in batch.disks.values()]
        results = copier.copy_batch(source, batch.jobs, targets, self._stop, self._watcher.moved)
        with db.transaction(self._context.conn):
            for result in results:
                self._register(held.disk, result)
            measure(self._context.conn, held)
        again = (self._judge(result, held, chosen[result.job.name]) for result in results)
        return [todo for todo in again if todo]

    def _register(self, disk: Disk, result: Result) -> None:
        copy = result.copies.get(self._role)
        if result.sha512 is None or not isinstance(copy, Written):
            return
        source, conn, now = result.job.waiting.stat, self._context.conn, utc_now()
        db.files.register(conn, result.job.name, result.sha512, source, [(disk, copy)], now)
        self._disks.used(disk)
        self._outcome.to_labels.add(disk.label)
        self._outcome.copied_files += 1
        self._outcome.copied_bytes += source.size_bytes

    def _judge(self, result: Result, held: HeldDisk, one: Chosen) -> Todo | None:
        """Return what must be tried again of a file that was not copied."""
        name = shown(one.known.name)
        self._context.findings.clear(["defect"], f"repair: {name}")
        fault = result.fault or result.copies.get(self._role)
        if fault is None or isinstance(fault, Written):
            if one.known.id not in {file_id for file_id, _ in self._chooser.found_bad}:
                self._context.findings.clear(["copy-damaged"], name)
            return None
        if result.fault is not None or isinstance(fault, Stopped):
            return self._from_another(one, fault)
        if isinstance(fault, OSError) and fault.errno in DISK_ERRNOS | FULL_ERRNOS:
            self._disks.leave_out(held.disk, fault)
        if isinstance(fault, SetAside):
            self._outcome.set_aside[held.disk.label] += 1
        why = _why(held.disk.label, fault)
        is_obstacle = isinstance(fault, OSError) and fault.errno in OBSTACLE_ERRNOS
        if is_obstacle or isinstance(fault, NameConflict):  # it came there only now
            return one.todo.not_to(held.disk, why)
        if one.todo.tries + 1 < TRIES:
            return replace(one.todo, tries=one.todo.tries + 1)
        self._outcome.failed[name] = why
        return None

    def _from_another(self, one: Chosen, fault: Exception) -> Todo:
        """Return the same file, for another source unless the repair was only interrupted.

        The copy that was to be the source did not prove good, or its whole disk is dead.
        """
        if isinstance(fault, Stopped):
            return one.todo
        disk, why = one.copy.disk, fault.__cause__
        if isinstance(why, OSError) and not one.held.answers():
            self._chooser.unreadable_disks.add(disk.id)
            self._disks.leave_out(disk, OSError(errno.EIO, why.strerror or str(why)))
        else:
            self._chooser.note_bad(one.known, one.copy, CopyState.DAMAGED)
        return replace(one.todo, tried=one.todo.tried | {disk.id})


def _why(label: str, fault: Exception) -> str:
    """Return why a copy was not made, without the name of the file."""
    if isinstance(fault, FileFault):
        return fault.why if label in fault.why else f"{label}: {fault.why}"
    return f"{label}: {fault.strerror if isinstance(fault, OSError) else fault}"
