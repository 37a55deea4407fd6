"""One pass: every finished file of the buffer goes to a primary and a copy disk, and away.

The story: look at the buffer, oldest first → for each batch prove the disks → copy, each
copy read back → register both copies in one transaction → remove what is proved. A file or
a disk that fails is written down and left; the others go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from poledata import bag, catalogue, copying, db, lifecycle, medium, mounts, removal
from poledata.buffer import Buffer
from poledata.config import Config
from poledata.copying import Result
from poledata.diskwatch import DiskWatch
from poledata.errors import (
    BadName,
    FileFault,
    NameConflict,
    NotRemoved,
    PoleError,
    SetAside,
    SourceBusy,
    SourceVanished,
    Stopped,
    UsageFault,
)
from poledata.failures import Failures, has_left
from poledata.lane import DISK_ERRNOS, FULL_ERRNOS
from poledata.lifecycle import House
from poledata.notices import Board
from poledata.planning import Batch, Planner, Work
from poledata.records import (
    Disk,
    KnownFile,
    Role,
    Waiting,
    Written,
    shown,
    size_text,
    utc,
)
from poledata.shelf import HeldDisk, Shelf
from poledata.tally import Tally, Watcher

SCAN_FILES = 20_000  # how many waiting files are in memory at a time

log = logging.getLogger(__name__)


def run_pass(
    config: Config,
    conn: db.Connection,
    stop: threading.Event,
    watcher: Watcher,
    give_way: Callable[[], None] = lambda: None,
    is_dry: bool = False,
) -> Tally:
    """One pass; the caller holds the pass lock. Raises PoleError if there can't be one.

    ``stop``, once set, ends it between or inside files; ``give_way`` lets a person's command
    work between two batches. A dry run writes nothing.
    """
    must_fit_together(config, catalogue.disks(conn))
    with _open_buffer(config) as buffer:
        return _Pass(config, conn, buffer, stop, watcher, give_way, is_dry).run()


def must_fit_together(config: Config, disks: list[Disk]) -> None:
    """Raises UsageFault where stand-ins and drives would share a database."""
    if any(disk.stand_in == config.require_mount for disk in disks):
        setting, kind = ("yes", "stand-ins") if config.require_mount else ("no", "real drives")
        raise UsageFault(
            f"{config.path}: RequireMount: it is {setting}, but {config.db_path} is of {kind}. "
            "Nothing was touched. Use another FilenameDB, or mend RequireMount."
        )


@contextmanager
def _open_buffer(config: Config) -> Iterator[Buffer]:
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        raise UsageFault(
            f"{config.path}: BufferLocation: {config.buffer} can't be opened "
            f"({fault.strerror}). Nothing was touched. Is its file system mounted?"
        ) from fault
    try:
        yield Buffer(fd, config.extensions, config.settle_s)
    finally:
        os.close(fd)


class _Pass:
    """The state of one pass."""

    def __init__(
        self,
        config: Config,
        conn: db.Connection,
        buffer: Buffer,
        stop: threading.Event,
        watcher: Watcher,
        give_way: Callable[[], None],
        is_dry: bool,
    ) -> None:
        self._give_way = give_way
        self._config, self._conn, self._buffer = config, conn, buffer
        self._stop, self._watcher, self._is_dry = stop, watcher, is_dry
        self._tally = Tally()
        self._board = Board(conn, is_dry)
        self._failures = Failures(conn, self._board, self._tally, is_dry)
        self._ready: set[int] = set()  # disks claimed and swept by this pass
        self._house = House(config, conn, self._board)
        self._disks = DiskWatch(self._house)
        self._promised_bytes: dict[int, int] = {}  # by disk id, in a dry run
        self._row: int | None = None

    def run(self) -> Tally:
        """The whole pass; it says how it ended also when it could not go on."""
        outcome = "failed"
        try:
            if not self._may_go_on():
                return self._tally
            if not self._is_dry:
                self._note_a_crash()
                self._disks.look_again()
                self._disks.finish_closes()
                self._note_what_left()
                self._failures.forget_gone(self._buffer.root_fd)
            self._work_through_the_buffer()
            if not self._is_dry:
                self._disks.end_of_pass()
            self._tally.interrupted = self._stop.is_set()
            outcome = "interrupted" if self._tally.interrupted else "done"
        finally:
            self._end(outcome)
        self._tally.failed_disks = self._disks.troubled
        self._tally.pending_files = self._failures.pending_files
        return self._tally

    def _work_through_the_buffer(self) -> None:
        after = None
        while self._may_go_on():
            seen = self._buffer.scan(time.time(), SCAN_FILES, after)
            self._failures.note_unlistable(seen.unlistable)
            todo = deque(work for work in map(self._look_up, seen.waiting) if work)
            while todo and self._may_go_on():
                self._one_batch(todo)
                self._give_way()
            if seen.is_whole:
                return
            after = seen.waiting[-1].age_key

    def _may_go_on(self) -> bool:
        if self._stop.is_set():
            return False
        pause = catalogue.current_pause(self._conn, _now())
        if pause is None:
            self._board.settle(["paused"], "archive")
            return True
        log.debug("paused, so nothing is done: %s", pause.why)
        return False

    # --- what earlier passes left ---------------------------------------------------------

    def _note_a_crash(self) -> None:
        """We hold the lock: a pass that has not ended will not end any more."""
        crashed = catalogue.unended_passes(self._conn)
        if not crashed:
            self._board.settle(["pass-crashed"], "data_manager")
        for row in crashed:
            with db.transaction(self._conn):
                catalogue.end_pass(self._conn, row.id, _now(), "crashed", row.files_failed)
            self._board.tell(
                "pass-crashed",
                "data_manager",
                f"The pass that began {row.started_at} ended without saying so. Nothing is lost: "
                "this pass goes on where it stopped.",
            )

    def _note_what_left(self) -> None:
        """Files that a crash kept from being noted as removed."""
        if not self._config.delete_from_buffer:
            return
        names = catalogue.archived_but_not_removed(self._conn)
        self._note_removed([n for n in names if has_left(self._buffer.root_fd, n)])

    # --- one batch --------------------------------------------------------------------------

    def _look_up(self, waiting: Waiting) -> Work | None:
        """What is known of a waiting file; None if it is not to be touched now."""
        if not self._failures.is_due(waiting.name, waiting.stat):
            return None
        why = bag.why_not_carried(waiting.name)
        if why:
            self._failures.note(waiting.name, waiting.stat, BadName(shown(waiting.name), why))
            return None
        known = catalogue.file(self._conn, waiting.name)
        is_kept = not self._config.delete_from_buffer and _is_archived_as_it_is(known, waiting)
        return None if is_kept else Work(waiting, known)

    def _one_batch(self, todo: deque[Work]) -> None:
        with Shelf(self._config, self._conn, self._ready) as shelf:
            planner = Planner(
                catalogue.disks(self._conn),
                shelf,
                self._board,
                self._disks.out,
                self._promised_bytes,
                self._is_dry,
            )
            batch = planner.fill(todo)
            self._tally.without_disk_files += len(batch.without_disk)
            if self._is_dry:
                self._say_what_would_be(batch)
                return
            for work, fault in batch.too_big:
                self._failures.note(work.waiting.name, work.waiting.stat, fault)
            self._note_lost_copies(batch)
            self._disks.note_refused(batch.refused)
            for work in batch.again:
                self._known_again(work, shelf)
            written = self._copy(batch, shelf, todo) if batch.jobs else set()
        self._disks.close_full(batch.full, written)

    def _say_what_would_be(self, batch: Batch) -> None:
        for job in batch.jobs:
            disks = [batch.disks[role].disk for role in sorted(job.roles, reverse=True)]
            self._watcher.would_copy(job, [disk.label for disk in disks])
            for disk in disks:
                already = self._promised_bytes.get(disk.id, 0)
                self._promised_bytes[disk.id] = already + job.waiting.stat.size_bytes

    def _note_lost_copies(self, batch: Batch) -> None:
        for known, copy, state in batch.lost_copies:
            with db.transaction(self._conn):
                catalogue.set_copy_state(self._conn, known.id, copy.disk, state)
            self._board.tell(
                "copy-damaged",
                shown(known.name),
                f"Its copy on {copy.disk.label} is {state.value}; the file is in the buffer and "
                "is copied anew.",
            )

    def _copy(self, batch: Batch, shelf: Shelf, todo: deque[Work]) -> set[Role]:
        """Copy a batch, register it, remove what is proved; the roles that took files."""
        row = self._begin()
        targets = [held.target for held in batch.disks.values()]
        self._watcher.batch(batch.bytes_by_label())
        results = copying.copy_batch(
            self._buffer, batch.jobs, targets, self._stop, self._watcher.moved
        )
        archived = self._register(row, results, batch)
        again = [batch.works[r.job.name] for r in results if self._judge(r, batch)]
        todo.extendleft(self._once_more(work) for work in reversed(again))
        if self._config.delete_from_buffer:
            self._remove(archived, batch, shelf)
        return {
            role
            for result in results
            for role, copy in result.copies.items()
            if isinstance(copy, Written)
        }

    def _begin(self) -> int:
        """The row of this pass, made once it has something to do."""
        if self._row is None:
            with db.transaction(self._conn):
                self._row = catalogue.begin_pass(self._conn, _now())
        return self._row

    def _end(self, outcome: str) -> None:
        if self._is_dry or (self._row is None and not self._tally.failed_files):
            return
        row = self._begin()
        with db.transaction(self._conn):
            catalogue.end_pass(self._conn, row, _now(), outcome, self._tally.failed_files)

    def _register(self, row: int, results: list[Result], batch: Batch) -> list[Result]:
        """Write down all new copies at once; returns the results of files now archived."""
        archived, size_bytes = [], 0
        with db.transaction(self._conn):
            for result in results:
                if self._register_one(result, batch):
                    archived.append(result)
                    size_bytes += result.job.waiting.stat.size_bytes
            for held in batch.disks.values():
                self._measure(held)
                self._disks.used(held.disk)
            catalogue.count_in_pass(self._conn, row, len(archived), size_bytes)
        self._tally.archived_files += len(archived)
        self._tally.archived_bytes += size_bytes
        names = [shown(result.job.name) for result in archived]
        self._failures.forget(names)
        for name in names:
            self._board.settle(["copy-damaged"], name)
        lifecycle.settle_no_good_copy(self._house)
        labels = " and ".join(held.disk.label for held in batch.disks.values())
        log.info(
            "%d of %d files (%s) archived, on %s",
            len(archived),
            len(results),
            size_text(size_bytes),
            labels,
        )
        return archived

    def _register_one(self, result: Result, batch: Batch) -> bool:
        """Whether the file is archived now, with all that it lacked."""
        good = [
            (batch.disks[role].disk, copy)
            for role, copy in result.copies.items()
            if isinstance(copy, Written)
        ]
        if not good or result.sha512 is None:
            return False
        job = result.job
        known = catalogue.register(
            self._conn, job.name, result.sha512, job.waiting.stat, good, _now()
        )
        return known.archived_at is not None and len(good) == len(job.roles)

    def _measure(self, held: HeldDisk) -> None:
        try:
            room = mounts.space(held.root_fd)
        except OSError as fault:
            log.warning("%s can't be measured: %s", held.disk.label, fault)
            return
        catalogue.measure(
            self._conn,
            held.disk,
            room.capacity_bytes,
            room.used_bytes,
            room.free_bytes,
            _now(),
        )

    # --- what failed ------------------------------------------------------------------------

    def _judge(self, result: Result, batch: Batch) -> bool:
        """What becomes of a file that did not get all its copies; True: it is tried once more."""
        work = batch.works[result.job.name]
        if result.fault is not None:
            self._judge_source(work, result.fault)
            return False
        faults = [
            self._judge_copy(work, batch.disks[role], copy)
            for role, copy in result.copies.items()
            if isinstance(copy, Exception)
        ]
        return any(faults)

    def _judge_source(self, work: Work, fault: PoleError) -> None:
        if isinstance(fault, SourceBusy):
            self._tally.busy_files += 1
            log.info("%s", fault)
        elif isinstance(fault, SourceVanished):
            self._tally.vanished_files += 1
            log.warning("%s", fault)
        elif isinstance(fault, FileFault):
            self._failures.note(work.waiting.name, work.waiting.stat, fault)

    def _judge_copy(self, work: Work, held: HeldDisk, fault: Exception) -> bool:
        """True: the file is to be tried once more, for the disk was at fault."""
        name, label = work.waiting.name, held.disk.label
        if isinstance(fault, Stopped):
            return False
        if isinstance(fault, OSError) and fault.errno in DISK_ERRNOS | FULL_ERRNOS:
            self._disks.leave_out(held.disk, fault)
            return True
        if isinstance(fault, SetAside) and work.tries == 0:
            self._board.tell("name-conflict", f"{label} {shown(name)}", f"{fault.why}.")
            return True
        if not isinstance(fault, FileFault):
            why = fault.strerror if isinstance(fault, OSError) else str(fault)
            fault = FileFault(shown(name), f"{label}: {why}")
        self._failures.note(name, work.waiting.stat, fault)
        return False

    def _once_more(self, work: Work) -> Work:
        """The same file, with what has been registered of it meanwhile."""
        known = catalogue.file(self._conn, work.waiting.name)
        return Work(work.waiting, known, work.tries + 1)

    # --- out of the buffer ------------------------------------------------------------------

    def _remove(self, archived: list[Result], batch: Batch, shelf: Shelf) -> None:
        removed = []
        for result in archived:
            lines = {
                batch.disks[role].disk.id: copy.line
                for role, copy in result.copies.items()
                if isinstance(copy, Written)
            }
            assert result.sha512
            if self._remove_one(result.job.waiting, result.sha512, shelf, lines):
                removed.append(result.job.name)
        self._note_removed(removed)

    def _remove_one(
        self, waiting: Waiting, sha512: str, shelf: Shelf, lines: removal.Lines
    ) -> bool:
        refusals = removal.remove(self._conn, self._buffer, waiting, sha512, shelf.hold, lines)
        if refusals:
            fault = NotRemoved(shown(waiting.name), "; ".join(refusals))
            self._failures.note(waiting.name, waiting.stat, fault)
        return not refusals

    def _note_removed(self, names: list[str]) -> None:
        if names:
            with db.transaction(self._conn):
                for name in names:
                    catalogue.removed(self._conn, name, _now())

    def _known_again(self, work: Work, shelf: Shelf) -> None:
        """A name that is archived, with both copies there: the same file, or a conflict?"""
        assert work.known
        try:
            sha512 = self._hashed_once(work.waiting)
            if sha512 != work.known.sha512:
                raise NameConflict.of(shown(work.waiting.name), work.known.sha512, sha512)
        except FileFault as fault:
            self._judge_source(work, fault)
            return
        except Stopped:
            return
        if self._config.delete_from_buffer and self._remove_one(work.waiting, sha512, shelf, {}):
            self._note_removed([work.waiting.name])
            self._failures.forget([shown(work.waiting.name)])

    def _hashed_once(self, waiting: Waiting) -> str:
        """The SHA-512 of a buffer file: read now, or remembered of this very state."""
        remembered = catalogue.remembered_sha512(self._conn, waiting.name, waiting.stat)
        if remembered:
            return remembered
        with self._buffer.finished(waiting) as fd, closing(medium.HashingReader()) as reader:
            sha512 = reader.sha512(fd, waiting.stat.size_bytes, self._tick_or_stop)
            self._buffer.must_be_untouched(fd, waiting)
        with db.transaction(self._conn):
            catalogue.remember_sha512(self._conn, waiting.name, waiting.stat, sha512)
        return sha512

    def _tick_or_stop(self, n_bytes: int) -> None:
        if self._stop.is_set():
            raise Stopped()


def _is_archived_as_it_is(known: KnownFile | None, waiting: Waiting) -> bool:
    """Whether size and time say that a file is archived: enough to keep it, never to remove it."""
    return (
        known is not None
        and known.archived_at is not None
        and (known.size_bytes, known.mtime_ns) == (waiting.stat.size_bytes, waiting.stat.mtime_ns)
    )


def _now() -> str:
    return utc(time.time())
