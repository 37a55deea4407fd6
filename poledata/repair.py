"""Make copies again that are damaged or missing, from good ones that are verified on the way.

Works in batches as a pass does, and takes turns with it. Nothing is deleted, and a closed bag is
never altered. A copy that was found damaged is read once more: only where it is still bad, and
only once there is a proved one, is it set aside with its manifest line.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from poledata import catalogue, copying, db, lifecycle, lock
from poledata.choice import BATCH_FILES
from poledata.copying import Result
from poledata.diskwatch import DiskWatch
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    OBSTACLE_ERRNOS,
    FileFault,
    NameConflict,
    Refused,
    Stopped,
)
from poledata.goodcopies import Chooser, Chosen, FromDisks, Obstacle, Todo, find_obstacles
from poledata.house import House, in_the_buffer
from poledata.identity import HeldDisk
from poledata.isolation import caught
from poledata.leftovers import Leftovers
from poledata.notices import Board
from poledata.planning import Batch, Planner, Work
from poledata.records import (
    CopyState,
    Disk,
    DiskState,
    Role,
    Written,
)
from poledata.shelf import Shelf
from poledata.tally import Watcher
from poledata.texts import shown, utc

TRIES = 3  # a second disk may be full, or fail, too


@dataclass(slots=True)
class Outcome:
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
    house: House,
    stop: threading.Event,
    watcher: Watcher,
    emptied: Disk | None = None,
    is_dry: bool = False,
) -> Outcome:
    """Give every archived file a good copy in each role again; ``emptied``: off this held disk.

    Raises Refused, Stopped.
    """
    if emptied:
        _must_be_held(emptied)
    if is_dry:
        house = replace(house, board=Board(house.conn, is_dry=True))
    outcome = Outcome()
    bad = [disk for disk in catalogue.disks(house.conn) if _is_about_copies(house, disk)]
    for role in Role:
        if emptied is None or emptied.role is role:
            _Repair(house, stop, watcher, role, emptied, is_dry, outcome).run()
    if not is_dry:
        lifecycle.settle_no_disk(house)
        _tell_how_disks_are(house, bad)
    return outcome


def _is_about_copies(house: House, disk: Disk) -> bool:
    """Whether a notice of this disk is one of bad copies.

    Also of such as were made again elsewhere before: on a disk in use they are set aside. And
    also of a reading that counted some, where a killed repair mended them and told nobody.
    """
    is_swept = disk.state is DiskState.ACTIVE and catalogue.ids_made_again(house.conn, disk)
    was_counted = house.board.value("copy-damaged", disk.known_as)
    return bool(catalogue.bad_copies_on(house.conn, disk) or is_swept or was_counted)


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


def _tell_how_disks_are(house: House, were_bad: Iterable[Disk]) -> None:
    """The notices of disks that had bad copies end where each was made again; no other ones do."""
    about_copies = {disk.id for disk in were_bad}
    for disk in catalogue.disks(house.conn):
        with house.board.isolated(f"{disk.label}: telling of its copies"):
            if catalogue.bad_copies_on(house.conn, disk):
                lifecycle.tell_no_good_copy(house, disk)
            elif disk.id in about_copies:
                house.board.settle(["copy-damaged"], disk.known_as)
    lifecycle.settle_mended(house)


class _Repair:
    """The repair of one role."""

    def __init__(
        self,
        house: House,
        stop: threading.Event,
        watcher: Watcher,
        role: Role,
        emptied: Disk | None,
        is_dry: bool,
        outcome: Outcome,
    ) -> None:
        self._house, self._stop, self._watcher = house, stop, watcher
        self._role, self._emptied, self._is_dry = role, emptied, is_dry
        self._outcome = outcome
        self._disks = DiskWatch(house)
        self._leftovers = Leftovers(house, role, self._disks, stop)
        self._ready: set[int] = set()
        self._chooser = Chooser(house, role, is_dry)
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
        with self._turn(), Shelf(self._house.config, self._house.conn, self._ready) as shelf:
            return self._leftovers.clear_some(shelf)

    def _lacking(self) -> list[int]:
        """What the buffer still holds is for the passes: they copy it from there."""
        ids = catalogue.ids_lacking(self._house.conn, self._role, self._emptied)
        waiting = in_the_buffer(self._house.config, self._house.conn)
        return [file_id for file_id in ids if file_id not in waiting]

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._is_dry else lock.between_batches(self._house.config.db_path)

    def _in_isolation(self, todo: list[Todo]) -> list[Todo]:
        """One that hits a bug is halved, until the file that hits it is alone."""
        with caught("a batch of repair") as bugs:
            return self._one_batch(todo)
        if len(todo) == 1:
            name = shown(catalogue.file_by_id(self._house.conn, todo[0].file_id).name)
            self._outcome.failed[name] = bugs[0]
            self._house.board.tell("defect", f"repair: {name}", f"{bugs[0]}.")
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
        with Shelf(self._house.config, self._house.conn, self._ready) as shelf:
            chosen = {
                one.known.name: one for item in now if (one := self._chooser.choose(shelf, item))
            }
            works = deque(Work(one.waiting, one.known, one.todo.tries) for one in chosen.values())
            batch = self._planner(shelf, out).fill(works)
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

    def _planner(self, shelf: Shelf, out: frozenset[int]) -> Planner:
        return Planner(
            catalogue.disks(self._house.conn),
            shelf,
            self._house.board,
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
        for result in copying.copy_batch(source, jobs, [], self._stop, self._watcher.moved):
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
        results = copying.copy_batch(source, batch.jobs, targets, self._stop, self._watcher.moved)
        with db.transaction(self._house.conn):
            for result in results:
                self._register(batch.disks[self._role].disk, result)
        again = (self._judge(r, batch.disks[self._role], chosen[r.job.name]) for r in results)
        return [todo for todo in again if todo]

    def _register(self, disk: Disk, result: Result) -> None:
        copy = result.copies.get(self._role)
        if result.sha512 is None or not isinstance(copy, Written):
            return
        source = result.job.waiting.stat
        catalogue.register(
            self._house.conn, result.job.name, result.sha512, source, [(disk, copy)], _now()
        )
        self._disks.used(disk)
        self._outcome.to_labels.add(disk.label)
        self._outcome.copied_files += 1
        self._outcome.copied_bytes += source.size_bytes

    def _judge(self, result: Result, held: HeldDisk, one: Chosen) -> Todo | None:
        """What is to be tried once more, of what did not go well."""
        self._house.board.settle(["defect"], f"repair: {shown(one.known.name)}")
        fault = result.fault or result.copies.get(self._role)
        if fault is None or isinstance(fault, Written):
            if one.known.id not in {file_id for file_id, _ in self._chooser.found_bad}:
                self._house.board.settle(["copy-damaged"], shown(one.known.name))
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
            self._chooser.mute.add(disk.id)
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
