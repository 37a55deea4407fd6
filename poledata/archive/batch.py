"""Reading once more: copies of long ago before a file is removed, and what is known already."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from poledata import db
from poledata.archive import copier, removal
from poledata.archive.buffer import Buffer
from poledata.archive.copier import Result
from poledata.archive.planner import Batch, Work
from poledata.archive.presence import Presence
from poledata.archive.removal import ArchivedFile, Removal, RemovalResult
from poledata.archive.retry import Failures
from poledata.archive.tally import Tally, Watcher
from poledata.context import Context
from poledata.disks import lifecycle
from poledata.disks.disk_faults import DiskWatch
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    OBSTACLE_ERRNOS,
    DiskRefused,
    FileFault,
    HitBug,
    NameConflict,
    NotRemoved,
    PoleError,
    SetAside,
    SourceBusy,
    SourceVanished,
    Stopped,
)
from poledata.formatting import shown, size_text, utc
from poledata.models import (
    CopyState,
    KnownCopy,
    KnownFile,
    ReadBack,
    Role,
    Waiting,
    Written,
)
from poledata.notices.isolation import record
from poledata.system import direct_io, mounts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rereading:
    """Copies on their disks, and files of the buffer that are known already."""

    context: Context
    buffer: Buffer
    stop: threading.Event

    def read(self, mounted: MountedDisks, known: KnownFile, copy: KnownCopy) -> ReadBack | None:
        """Read a copy from the medium and note what is found; None if it can't be read now.

        It may have been written long ago: an earlier reading never justifies a removal.
        """
        label = copy.disk.label
        try:
            with closing(direct_io.HashingReader()) as reader:
                found = mounted.hold(copy.disk).read_copy(known.name, reader, self._tick_or_stop)
        except (DiskRefused, OSError) as fault:
            log.info("%s: its copy of %s can't be read now: %s", label, shown(known.name), fault)
            return None
        is_good = found.sha512 == known.sha512
        state = CopyState.GOOD if is_good else CopyState.DAMAGED
        with db.transaction(self.context.conn):
            db.copies.note_verified(
                self.context.conn, known.id, copy.disk, state, found.verified_by, utc(time.time())
            )
        if not is_good:
            self.tell(known, label, state)
        return found

    def tell(self, known: KnownFile, label: str, state: CopyState) -> None:
        self.context.board.tell(
            "copy-damaged",
            shown(known.name),
            f"Its copy on {label} is {state.value}; the file is in the buffer and is copied anew.",
        )

    def hashed_once(self, waiting: Waiting) -> str:
        """The SHA-512 of a buffer file: read now, or remembered of this very state."""
        remembered = db.files.remembered_sha512(self.context.conn, waiting.name, waiting.stat)
        if remembered:
            return remembered
        with self.buffer.finished(waiting) as fd, closing(direct_io.HashingReader()) as reader:
            sha512 = reader.sha512(fd, waiting.stat.size_bytes, self._tick_or_stop)
            self.buffer.must_be_untouched(fd, waiting)
        with db.transaction(self.context.conn):
            db.files.remember_sha512(self.context.conn, waiting.name, waiting.stat, sha512)
        return sha512

    def _tick_or_stop(self, n_bytes: int) -> None:
        if self.stop.is_set():
            raise Stopped()


OPENED = (
    "A program opened it for writing in the instant of its removal: what it writes is lost. What "
    "was archived before is on both disks."
)


@dataclass(frozen=True, slots=True)
class Done:
    """What a batch left: files to try once more, and the roles whose disk took files."""

    again: list[Work]
    written: set[Role]


@dataclass(frozen=True, slots=True)
class BatchWork:
    """The steps of a batch, with what a pass works with."""

    context: Context
    buffer: Buffer
    stop: threading.Event
    watcher: Watcher
    tally: Tally
    failures: Failures
    disks: DiskWatch

    @property
    def reread(self) -> Rereading:
        return Rereading(self.context, self.buffer, self.stop)

    def copy(
        self, row: int, batch: Batch, before: list[ArchivedFile], mounted: MountedDisks
    ) -> Done:
        """Copy the batch's jobs, register the copies, remove what is proved.

        Files that were archived ``before`` are removed together with these.
        """
        targets = [held.target for held in batch.disks.values()]
        self.watcher.batch(batch.bytes_by_label())
        results = copier.copy_batch(self.buffer, batch.jobs, targets, self.stop, self.watcher.moved)
        archived = self._register(row, results, batch)
        again, judged = [], set()  # a file with a bug of ours stays in the buffer
        for result in results:
            with self.failures.isolated(result.job.waiting):
                if self._judge(result, batch):
                    again.append(batch.works[result.job.name])
                judged.add(result.job.name)
        proved = [_archived(result, batch) for result in archived if result.job.name in judged]
        self.remove_archived([*before, *proved], mounted)
        return Done([self._once_more(work) for work in again], _roles_written(results))

    def note_lost_copies(self, batch: Batch) -> None:
        for known, copy, state in batch.lost_copies:
            with self.context.board.isolated(f"{copy.disk.label}: noting a lost copy"):
                with db.transaction(self.context.conn):
                    db.copies.set_copy_state(self.context.conn, known.id, copy.disk, state)
                self.reread.tell(known, copy.disk.label, state)

    def _register(self, row: int, results: list[Result], batch: Batch) -> list[Result]:
        """Write down all new copies at once; returns the results of files now archived."""
        archived, size_bytes = [], 0
        with db.transaction(self.context.conn):
            for result in results:
                if self._register_one(result, batch):
                    archived.append(result)
                    size_bytes += result.job.waiting.stat.size_bytes
            for held in batch.disks.values():
                with self.context.board.isolated(f"{held.disk.label}: measuring"):
                    self._measure(held)
                self.disks.used(held.disk)
            db.passes.count_in_pass(self.context.conn, row, len(archived), size_bytes)
            self._no_trouble_any_more([shown(result.job.name) for result in archived])
        with self.context.board.isolated("files without a good copy"):
            lifecycle.settle_no_good_copy(self.context)
        self.tally.archived_files += len(archived)
        self.tally.archived_bytes += size_bytes
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
        known = db.files.register(
            self.context.conn, job.name, result.sha512, job.waiting.stat, good, _now()
        )
        return known.archived_at is not None and len(good) == len(job.roles)

    def _no_trouble_any_more(self, names: list[str]) -> None:
        """In the transaction that archives them: no kill leaves a notice behind."""
        self.failures.forget(names)
        for name in names:
            self.context.board.settle(["copy-damaged"], name)

    def _measure(self, held: HeldDisk) -> None:
        try:
            room = mounts.space(held.root_fd)
        except OSError as fault:
            log.warning("%s can't be measured: %s", held.disk.label, fault)
            return
        db.disks.measure(
            self.context.conn,
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
        verdicts = [
            self._judge_copy(work, batch.disks[role], copy)
            for role, copy in result.copies.items()
            if isinstance(copy, Exception) and not isinstance(copy, Stopped)
        ]
        faults = [fault for fault in verdicts if fault]
        for other in faults[1:]:
            log.warning("%s", other)
        if faults:  # one try of the file, though it may have failed on both disks
            self.failures.note(work.waiting.path, work.waiting.stat, faults[0])
        return None in verdicts

    def _judge_source(self, work: Work, fault: PoleError) -> None:
        if isinstance(fault, SourceBusy):
            self.tally.busy_files += 1
            log.info("%s", fault)
        elif isinstance(fault, SourceVanished):
            self.tally.vanished_files += 1
            log.warning("%s", fault)
        elif isinstance(fault, FileFault):
            self.failures.note(work.waiting.path, work.waiting.stat, fault)

    def _judge_copy(self, work: Work, held: HeldDisk, fault: Exception) -> FileFault | None:
        """The file's own fault; None: it is to be tried once more, for the disk was at fault."""
        name, label = work.waiting.name, held.disk.label
        if isinstance(fault, OSError) and fault.errno in DISK_ERRNOS | FULL_ERRNOS:
            self.disks.leave_out(held.disk, fault)
            return None
        if isinstance(fault, OSError) and fault.errno in OBSTACLE_ERRNOS and work.tries == 0:
            said = f"on {label} something stands in its way, in data/ ({fault.strerror})."
            self.context.board.tell("name-conflict", f"{label} {shown(name)}", said)
            self.disks.pass_by(held.disk)
            return None
        if isinstance(fault, SetAside) and work.tries == 0:
            self.context.board.tell("name-conflict", f"{label} {shown(name)}", f"{fault.why}.")
            return None
        if isinstance(fault, FileFault):
            return fault
        if not isinstance(fault, (OSError, PoleError)):
            return HitBug(shown(name), record(f"{label}: {shown(name)}", fault))
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        return FileFault(shown(name), f"{label}: {why}")

    def _once_more(self, work: Work) -> Work:
        """The same file, with what has been registered of it meanwhile."""
        known = db.files.file(self.context.conn, work.waiting.name)
        return Work(work.waiting, known, work.tries + 1)

    # --- out of the buffer ------------------------------------------------------------------

    def known_again(self, work: Work) -> ArchivedFile | None:
        """A name that is archived, with both copies there; None if this is not that file."""
        assert work.known
        try:
            sha512 = self.reread.hashed_once(work.waiting)
            if sha512 != work.known.sha512:
                raise NameConflict.of(shown(work.waiting.path), work.known.sha512, sha512)
        except FileFault as fault:
            self._judge_source(work, fault)
            return None
        except Stopped:
            return None
        return ArchivedFile(work.waiting, sha512)

    def remove_archived(self, files: list[ArchivedFile], mounted: MountedDisks) -> None:
        """Remove archived files from the buffer, where it is configured so and is proved."""
        if not self.context.config.delete_from_buffer:
            self.failures.forget([shown(file.waiting.path) for file in files])
            return
        read = partial(self.reread.read, mounted)
        isolated = self.failures.isolated
        removal = Removal(self.context.conn, self.buffer, mounted.hold, read, isolated)
        removed = []
        for outcome in removal.remove(files):
            with isolated(outcome.file.waiting):
                if self._is_removed(outcome):
                    removed.append(outcome)
        names = [o.file.waiting.name for o in removed if not self._came_again(o)]
        self.note_removed(names)
        self.failures.forget(list(map(shown, names)))
        self.failures.forget([shown(outcome.file.waiting.path) for outcome in removed])

    def _came_again(self, outcome: RemovalResult) -> bool:
        """Whether another file has taken the name of one whose removal had been interrupted."""
        waiting = outcome.file.waiting
        if not waiting.hidden_as:
            return False
        return not Presence.of(self.buffer.root_fd).has_left(waiting.name)

    def _is_removed(self, outcome: RemovalResult) -> bool:
        """Whether a file has left the buffer; what kept it, or went wrong, is reported."""
        waiting = outcome.file.waiting
        if outcome.was_opened:
            self.context.board.tell("opened-at-removal", shown(waiting.name), OPENED)
        if outcome.stays_as is None and outcome.refusals:
            log.warning("%s: %s", shown(waiting.name), "; ".join(outcome.refusals))
        elif outcome.stays_as:
            self._note_stays(outcome.stays_as, outcome.file.sha512, "; ".join(outcome.refusals))
        return outcome.is_removed

    def _note_stays(self, waiting: Waiting, sha512: str, why: str) -> None:
        """Not as changed: taking a name away and giving it back changes the ctime alone."""
        kind = NameConflict if waiting.hidden_as else NotRemoved
        self.failures.note(waiting.path, waiting.stat, kind(shown(waiting.path), why))
        with db.transaction(self.context.conn):
            db.files.remember_sha512(self.context.conn, waiting.name, waiting.stat, sha512)

    def give_back(self, waiting: Waiting) -> None:
        """A hidden file that can't be removed now gets its own name again."""
        path = shown(waiting.path)
        try:
            outcome = removal.give_back(self.buffer, waiting)
        except OSError as fault:
            why = f"its name can't be given back ({fault.strerror or fault})"
            self.failures.note(waiting.path, waiting.stat, FileFault(path, why))
            return
        if outcome.refusals:
            conflict = NameConflict(path, f"its removal was interrupted; {outcome.refusals[0]}")
            self.failures.note(waiting.path, waiting.stat, conflict)
        else:
            log.info("%s: its removal had been interrupted; it has its name again", path)
            self.failures.forget([path])

    def note_removed(self, names: list[str]) -> None:
        if names:
            with db.transaction(self.context.conn):
                for name in names:
                    db.files.note_removed(self.context.conn, name, _now())


def _archived(result: Result, batch: Batch) -> ArchivedFile:
    """What the removal needs to know of copies that this batch wrote and read back."""
    written = {
        batch.disks[role].disk.id: copy
        for role, copy in result.copies.items()
        if isinstance(copy, Written)
    }
    assert result.sha512
    return ArchivedFile(
        result.job.waiting,
        result.sha512,
        {disk_id: copy.line for disk_id, copy in written.items()},
        {disk_id: copy.read_back for disk_id, copy in written.items()},
    )


def _roles_written(results: list[Result]) -> set[Role]:
    return {
        role
        for result in results
        for role, copy in result.copies.items()
        if isinstance(copy, Written)
    }


def _now() -> str:
    return utc(time.time())
