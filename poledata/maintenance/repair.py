"""From which copy another one is made again, and reading it as a pass reads the buffer."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from poledata import db
from poledata.archive import copier
from poledata.archive.buffer_marker import in_the_buffer
from poledata.archive.copier import Result
from poledata.archive.planner import Batch, Planner, Work
from poledata.archive.tally import Watcher
from poledata.context import Context
from poledata.disks import bag, lifecycle, manifest
from poledata.disks.disk_faults import DiskWatch
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.disks.selection import BATCH_FILES
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    OBSTACLE_ERRNOS,
    FileFault,
    NameConflict,
    Refused,
    SourceChanged,
    Stopped,
)
from poledata.formatting import shown, utc
from poledata.maintenance.leftovers import Leftovers, held_if_here
from poledata.models import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    KnownCopy,
    KnownFile,
    ManifestLine,
    Role,
    Waiting,
    Written,
)
from poledata.notices.isolation import caught
from poledata.notices.store import Board
from poledata.system import direct_io, locks, paths

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a disk that is well can't take a certain file."""

    disk_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Todo:
    """A file that lacks a copy; ``tried`` are disks whose copy did not prove good.

    Where something is ``in_the_way`` the next disk of the role may take it.
    """

    file_id: int
    tries: int = 0
    tried: frozenset[int] = frozenset()
    in_the_way: tuple[Obstacle, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """One of them, and the copy that it is made again from."""

    todo: Todo
    known: KnownFile
    copy: KnownCopy
    held: HeldDisk
    waiting: Waiting


def find_obstacles(held: HeldDisk, chosen: Iterable[Chosen]) -> dict[str, Obstacle]:
    """What on this disk would stop which of these files, by name; nothing is written.

    A directory is never moved, nor a file that by the disk's manifest is archived. Raises OSError.
    """
    found, standing = {}, {}
    for one in chosen:
        path = f"{bag.DATA}/{one.known.name}"
        if why := _why_not_there(held, path):
            found[one.known.name] = Obstacle(held.disk.id, why)
        elif paths.stat(held.root_fd, path):
            standing[one.known.name] = one.known.sha512
    lines = manifest.find_lines(held.root_fd, standing, manifest.BadLines()) if standing else {}
    for name, line in lines.items():
        if line.sha512 != standing[name] and _is_as_archived(held, line):
            why = f"by its manifest, other content is archived on {held.disk.label} under this name"
            found[name] = Obstacle(held.disk.id, why)
    return found


def _why_not_there(held: HeldDisk, path: str) -> str | None:
    """Why no file can get to its place on this disk. Raises OSError where the disk is at fault."""
    label = held.disk.label
    try:
        place = paths.obstacle_to(held.root_fd, path)
    except OSError as fault:
        if fault.errno in DISK_ERRNOS:
            raise
        return f"{label}: {fault.strerror or fault} ({held.path / shown(path)})"
    what = "a directory" if place == path else "something"
    return f"on {label} {what} stands in its way ({held.path / shown(place)})" if place else None


def _is_as_archived(held: HeldDisk, line: ManifestLine) -> bool:
    """Whether a file is what its manifest line says. Raises OSError."""
    with closing(direct_io.HashingReader()) as reader:
        try:
            return held.read_copy(line.name, reader, lambda _: None).sha512 == line.sha512
        except OSError:
            if held.answers():
                return False  # the medium is bad there, or it is no file
            raise


class FromDisks:
    """In the buffer's place (copying.Source): what is read are copies on held disks."""

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


class Chooser:
    """Finds the copies that a role's are made from, and counts what it can't find."""

    def __init__(self, context: Context, role: Role, is_dry: bool) -> None:
        self._context, self._role, self._is_dry = context, role, is_dry
        self.unreadable_disks: set[int] = set()  # disks that no more is read from
        self.found_bad: set[tuple[int, int]] = set()  # ids of files and disks, by reading
        self.no_good_copy: set[str] = set()  # shown names
        self.not_here: dict[str, int] = {}  # label of a disk with good copies → how many

    def choose(self, mounted: MountedDisks, todo: Todo) -> Chosen | None:
        """The first copy that is here and was not tried; noted, if there is none.

        Good ones first, the other role's before this one's. One that was found damaged may have
        been so for a moment: reading it tells.
        """
        known = db.files.file_by_id(self._context.conn, todo.file_id)
        there = [c for c in known.copies if c.state is not CopyState.MISSING]
        there = [c for c in there if c.disk.state is not DiskState.LOST]
        for copy in sorted(there, key=self._source_rank):
            if copy.disk.id in todo.tried | self.unreadable_disks:
                continue
            held = held_if_here(mounted, copy.disk)
            if held and (waiting := self._waiting(held, known, copy)):
                return Chosen(todo, known, copy, held, waiting)
        self._note_that_none_is_here(known, there)
        return None

    def _waiting(self, held: HeldDisk, known: KnownFile, copy: KnownCopy) -> Waiting | None:
        """The copy, as copying asks for its source; None where it can't be a good one."""
        try:
            info = paths.stat(held.root_fd, f"{bag.DATA}/{known.name}")
        except OSError as fault:
            log.warning("%s: %s can't be looked at: %s", held.disk.label, shown(known.name), fault)
            return None
        if info is None:
            self.note_bad(known, copy, CopyState.MISSING)
            return None
        if not stat.S_ISREG(info.st_mode) or info.st_size != known.size_bytes:
            self.note_bad(known, copy, CopyState.DAMAGED)
            return None
        return Waiting(known.name, FileStat.of(info), stat.S_IMODE(info.st_mode))

    def note_bad(self, known: KnownFile, copy: KnownCopy, state: CopyState) -> None:
        """A copy that was thought good did not prove so."""
        label, conn = copy.disk.label, self._context.conn
        if copy.state is not CopyState.GOOD:
            return  # known
        self.found_bad.add((known.id, copy.disk.id))
        if self._is_dry:
            return
        with db.transaction(conn):
            db.copies.set_copy_state(conn, known.id, copy.disk, state)
        self._context.board.tell(
            "copy-damaged",
            shown(known.name),
            f"Its copy on {label} was to be copied from, and is {state.value}.",
        )

    def _note_that_none_is_here(self, known: KnownFile, there: list[KnownCopy]) -> None:
        good = [
            c.disk.label
            for c in there
            if c.state is CopyState.GOOD and (known.id, c.disk.id) not in self.found_bad
        ]
        if not good:
            self.no_good_copy.add(shown(known.name))
        for label in good:
            self.not_here[label] = self.not_here.get(label, 0) + 1

    def _source_rank(self, copy: KnownCopy) -> tuple[bool, bool, bool]:
        is_bad = copy.state is not CopyState.GOOD
        return (is_bad, copy.disk.role is self._role, bool(copy.disk.held_by))


TRIES = 3  # a second disk may be full, or fail, too


@dataclass(slots=True)
class RepairResult:
    """What a repair did and could not do; names are shown names."""

    copied_files: int = 0
    copied_bytes: int = 0
    to_labels: set[str] = field(default_factory=set)
    no_good_copy: set[str] = field(default_factory=set)
    not_here: dict[str, int] = field(default_factory=dict)  # label of a disk with good copies
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
        context = replace(context, board=Board(context.conn, is_dry=True))
    outcome = RepairResult()
    bad = [disk for disk in db.disks.disks(context.conn) if _is_about_copies(context, disk)]
    for role in Role:
        if emptied is None or emptied.role is role:
            _Repair(context, stop, watcher, role, emptied, is_dry, outcome).run()
    if not is_dry:
        lifecycle.settle_no_disk(context)
        _tell_how_disks_are(context, bad)
    return outcome


def _is_about_copies(context: Context, disk: Disk) -> bool:
    """Whether a notice of this disk is one of bad copies.

    Also of such as were made again elsewhere before: on a disk in use they are set aside. And
    also of a reading that counted some, where a killed repair mended them and told nobody.
    """
    is_swept = disk.state is DiskState.ACTIVE and db.copies.ids_made_again(context.conn, disk)
    was_counted = context.board.value("copy-damaged", disk.known_as)
    return bool(db.copies.bad_copies_on(context.conn, disk) or is_swept or was_counted)


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


def _tell_how_disks_are(context: Context, were_bad: Iterable[Disk]) -> None:
    """The notices of disks that had bad copies end where each was made again; no other ones do."""
    about_copies = {disk.id for disk in were_bad}
    for disk in db.disks.disks(context.conn):
        with context.board.isolated(f"{disk.label}: telling of its copies"):
            if db.copies.bad_copies_on(context.conn, disk):
                lifecycle.tell_no_good_copy(context, disk)
            elif disk.id in about_copies:
                context.board.settle(["copy-damaged"], disk.known_as)
    lifecycle.settle_mended(context)


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
        self._disks = DiskWatch(context)
        self._leftovers = Leftovers(context, role, self._disks, stop)
        self._ready: set[int] = set()
        self._chooser = Chooser(context, role, is_dry)
        self._promised_bytes: dict[int, int] = {}

    def run(self) -> None:
        ids = self._lacking()
        for at in range(0, len(ids), BATCH_FILES):
            todo = [Todo(file_id) for file_id in ids[at : at + BATCH_FILES]]
            while todo:
                self._go_on()
                with self._turn():
                    todo = self._in_isolation(todo)
        self._outcome.no_good_copy |= self._chooser.no_good_copy
        for label, count in self._chooser.not_here.items():
            self._outcome.not_here[label] = self._outcome.not_here.get(label, 0) + count
        while not self._is_dry and self._clear_some_leftovers():
            self._go_on()
        self._outcome.failed |= self._leftovers.failed

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped("interrupted; what is copied counts, and the rest can follow")

    def _clear_some_leftovers(self) -> bool:
        with (
            self._turn(),
            MountedDisks(self._context.config, self._context.conn, self._ready) as mounted,
        ):
            return self._leftovers.clear_some(mounted)

    def _lacking(self) -> list[int]:
        """What the buffer still holds is for the passes: they copy it from there."""
        ids = db.copies.ids_lacking(self._context.conn, self._role, self._emptied)
        waiting = in_the_buffer(self._context.config, self._context.conn)
        return [file_id for file_id in ids if file_id not in waiting]

    def _turn(self) -> AbstractContextManager[None]:
        return (
            nullcontext() if self._is_dry else locks.between_batches(self._context.config.db_path)
        )

    def _in_isolation(self, todo: list[Todo]) -> list[Todo]:
        """One that hits a bug is halved, until the file that hits it is alone."""
        with caught("a batch of repair") as bugs:
            return self._one_batch(todo)
        if len(todo) == 1:
            name = shown(db.files.file_by_id(self._context.conn, todo[0].file_id).name)
            self._outcome.failed[name] = bugs[0]
            self._context.board.tell("defect", f"repair: {name}", f"{bugs[0]}.")
            return []
        middle = len(todo) // 2
        return [*self._in_isolation(todo[:middle]), *self._in_isolation(todo[middle:])]

    def _one_batch(self, todo: list[Todo]) -> list[Todo]:
        """Copy what fits one batch; returns what is still to be done.

        Files for which something is in the way go apart from others: to other disks.
        """
        out = _disks_passed_by(todo[0])
        now = [item for item in todo if _disks_passed_by(item) == out]
        later = [item for item in todo if _disks_passed_by(item) != out]
        with MountedDisks(self._context.config, self._context.conn, self._ready) as mounted:
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
            again = (self._say if self._is_dry else self._copy)(batch, chosen)
        if not self._is_dry:
            self._disks.end_of_pass()
        return [*(chosen[work.waiting.name].todo for work in works), *again, *later, *blocked]

    def _note_without_disk(self, one: Chosen) -> None:
        if not one.todo.in_the_way:
            self._outcome.without_disk += 1
            return
        whys = "; ".join(obstacle.why for obstacle in one.todo.in_the_way)
        self._outcome.failed[shown(one.known.name)] = (
            f"{whys}. Mount a spare {self._role.value} disk, or see name-conflict in "
            "docs/operators.md; then repair again"
        )

    def _without_obstacles(self, batch: Batch, chosen: dict[str, Chosen]) -> list[Todo]:
        """Take out of a batch the files that its disk can't take; another one may."""
        if not batch.jobs:
            return []
        held = batch.disks[self._role]
        try:
            found = find_obstacles(held, [chosen[job.name] for job in batch.jobs])
        except OSError as fault:
            self._disks.leave_out(held.disk, fault)
            blocked, batch.jobs = [chosen[job.name].todo for job in batch.jobs], []
            return blocked
        batch.jobs = [job for job in batch.jobs if job.name not in found]
        return [_passing_by(chosen[name].todo, obstacle) for name, obstacle in found.items()]

    def _planner(self, mounted: MountedDisks, out: frozenset[int]) -> Planner:
        return Planner(
            db.disks.disks(self._context.conn),
            mounted,
            self._context.board,
            self._disks.out | out,
            self._promised_bytes,
            self._is_dry,
            lacking=lambda _known: [self._role],
            what_is_safe="Its other copy stays as it is.",
        )

    # --- copying ---------------------------------------------------------------------------

    def _say(self, batch: Batch, chosen: dict[str, Chosen]) -> list[Todo]:
        """The sources are read and proved as they would be; nothing is written."""
        jobs = [replace(job, roles=frozenset[Role]()) for job in batch.jobs]
        source = FromDisks(chosen.values())
        again = []
        for result in copier.copy_batch(source, jobs, [], self._stop, self._watcher.moved):
            if result.fault is not None:
                again.append(self._another(chosen[result.job.name], result.fault))
                continue
            disk, size_bytes = batch.disks[self._role].disk, result.job.waiting.stat.size_bytes
            self._watcher.would_copy(result.job, [disk.label])
            self._promised_bytes[disk.id] = self._promised_bytes.get(disk.id, 0) + size_bytes
        return again

    def _copy(self, batch: Batch, chosen: dict[str, Chosen]) -> list[Todo]:
        if not batch.jobs:
            return []
        self._watcher.batch(batch.bytes_by_label())
        source = FromDisks(chosen.values())
        targets = [held.target for held in batch.disks.values()]
        results = copier.copy_batch(source, batch.jobs, targets, self._stop, self._watcher.moved)
        with db.transaction(self._context.conn):
            for result in results:
                self._register(batch.disks[self._role].disk, result)
        again = (self._judge(r, batch.disks[self._role], chosen[r.job.name]) for r in results)
        return [todo for todo in again if todo]

    def _register(self, disk: Disk, result: Result) -> None:
        copy = result.copies.get(self._role)
        if result.sha512 is None or not isinstance(copy, Written):
            return
        source = result.job.waiting.stat
        db.files.register(
            self._context.conn, result.job.name, result.sha512, source, [(disk, copy)], _now()
        )
        self._disks.used(disk)
        self._outcome.to_labels.add(disk.label)
        self._outcome.copied_files += 1
        self._outcome.copied_bytes += source.size_bytes

    def _judge(self, result: Result, held: HeldDisk, one: Chosen) -> Todo | None:
        """What is to be tried once more, of what did not go well."""
        self._context.board.settle(["defect"], f"repair: {shown(one.known.name)}")
        fault = result.fault or result.copies.get(self._role)
        if fault is None or isinstance(fault, Written):
            if one.known.id not in {file_id for file_id, _ in self._chooser.found_bad}:
                self._context.board.settle(["copy-damaged"], shown(one.known.name))
            return None
        if result.fault is not None or isinstance(fault, Stopped):
            return self._another(one, fault)
        if isinstance(fault, OSError) and fault.errno in DISK_ERRNOS | FULL_ERRNOS:
            self._disks.leave_out(held.disk, fault)
        why = _why(held.disk.label, fault)
        is_obstacle = isinstance(fault, OSError) and fault.errno in OBSTACLE_ERRNOS
        if is_obstacle or isinstance(fault, NameConflict):  # it came there only now
            return _passing_by(one.todo, Obstacle(held.disk.id, why))
        if one.todo.tries + 1 < TRIES:
            return replace(one.todo, tries=one.todo.tries + 1)
        self._outcome.failed[shown(one.known.name)] = why
        return None

    def _another(self, one: Chosen, fault: Exception) -> Todo:
        """The same file, from another source; when the repair goes on, where it was interrupted."""
        if isinstance(fault, Stopped):
            return one.todo
        self._note_source(one, fault)
        return replace(one.todo, tried=one.todo.tried | {one.copy.disk.id})

    def _note_source(self, one: Chosen, fault: Exception) -> None:
        """The copy that was to be the source did not prove good; or its whole disk is dead."""
        disk, why = one.copy.disk, fault.__cause__
        if isinstance(why, OSError) and not one.held.answers():
            self._chooser.unreadable_disks.add(disk.id)
            self._disks.leave_out(disk, OSError(errno.EIO, why.strerror or str(why)))
            return
        self._chooser.note_bad(one.known, one.copy, CopyState.DAMAGED)


def _disks_passed_by(todo: Todo) -> frozenset[int]:
    return frozenset(obstacle.disk_id for obstacle in todo.in_the_way)


def _passing_by(todo: Todo, obstacle: Obstacle) -> Todo:
    """The same file, for another disk."""
    return replace(todo, in_the_way=(*todo.in_the_way, obstacle))


def _why(label: str, fault: Exception) -> str:
    """Why a copy was not made: the file is not in the buffer, and its name is said already."""
    if isinstance(fault, FileFault):
        return fault.why if label in fault.why else f"{label}: {fault.why}"
    return f"{label}: {fault.strerror if isinstance(fault, OSError) else fault}"


def _now() -> str:
    return utc(time.time())
