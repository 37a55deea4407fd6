"""The batches of one pass: look up, plan, copy, register, and remove what is proved.

Loaded when a file waits: a pass with nothing to do never comes here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from poledata import db
from poledata.archive.buffer import Presence, original_of_hash
from poledata.archive.copier import Result, copy_batch
from poledata.archive.pass_state import PassState
from poledata.archive.planner import Batch, Planner, Work
from poledata.archive.removal import ArchivedFile, Removal, RemovalResult, give_name_back
from poledata.disks import lifecycle
from poledata.disks.free_space import BATCH_FILES
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks, measure
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    OBSTACLE_ERRNOS,
    BadName,
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
from poledata.formatting import shown, size_text, utc_now, why_not_carried
from poledata.models import CopyState, KnownCopy, KnownFile, ReadBack, Severity, Waiting
from poledata.notices.defects import caught, record
from poledata.system import direct_io

OPENED = (
    "A program opened it for writing in the instant of its removal: what it writes is lost. What "
    "was archived before is on both disks."
)
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Batches:
    """One batch after the other; ``begin_row`` makes the row of the pass when it first copies."""

    state: PassState
    begin_row: Callable[[], int]
    _ready: set[int] = field(default_factory=set)  # disks claimed and swept by this pass
    _promised_bytes: dict[int, int] = field(default_factory=dict)  # by disk id, in a dry run

    def work_through(
        self,
        waiting: Iterable[Waiting],
        may_go_on: Callable[[], bool],
        give_way: Callable[[], None],
    ) -> None:
        """Files are looked up as they come, so that the first one does not wait for the last."""
        left, todo = deque(waiting), deque[Work]()
        while (left or todo) and may_go_on():
            while left and len(todo) < BATCH_FILES:
                waiting_file = left.popleft()
                with self.state.failures.isolated(waiting_file):
                    if work := self._look_up(waiting_file):
                        todo.append(work)
            if todo:
                self._do_in_isolation(todo, may_go_on)
                give_way()

    def _do_in_isolation(self, todo: deque[Work], may_go_on: Callable[[], bool]) -> None:
        """Do one batch; one that hits a bug is halved until the file that hits it is alone."""
        before = list(todo)
        with caught("a batch") as bugs:
            self._do_one(todo)
        if not bugs:
            return
        suspects = before[: max(1, len(before) - len(todo))]
        todo.clear()
        todo.extend(before[len(suspects) :])
        if len(suspects) == 1:
            waiting = suspects[0].waiting
            fault = HitBug(shown(waiting.path), *bugs)
            self.state.failures.note(waiting.path, waiting.stat, fault)
            return
        middle = len(suspects) // 2
        for half in (suspects[:middle], suspects[middle:]):
            presence = Presence.of(self.state.buffer.root_fd)
            present = deque(work for work in half if not presence.has_left(work.waiting.name))
            while present and may_go_on():
                self._do_in_isolation(present, may_go_on)

    # --- look up ----------------------------------------------------------------------------

    def _look_up(self, waiting: Waiting) -> Work | None:
        """Return a waiting file with what is known of it; None if it must be left alone now."""
        failures, context = self.state.failures, self.state.context
        if not failures.is_due(waiting.path, waiting.stat):
            return None
        if waiting.hidden_as:
            return self._look_up_hidden(waiting)
        if why := why_not_carried(waiting.name):
            failures.note(waiting.name, waiting.stat, BadName(shown(waiting.name), why))
            return None
        known = db.files.file(context.conn, waiting.name)
        if not context.config.delete_from_buffer and _is_archived_as_it_is(known, waiting):
            failures.forget([shown(waiting.name)])
            return None
        return Work(waiting, known)

    def _look_up_hidden(self, waiting: Waiting) -> Work | None:
        """The removal of this file was interrupted: prove it again, or give its name back."""
        conn, name = self.state.context.conn, waiting.name
        if name == waiting.path:
            found = original_of_hash(name, db.files.names_below_parent(conn, name))
            if found is None:
                fault = NameConflict(shown(name), "the database does not know whose removal it was")
                self.state.failures.note(name, waiting.stat, fault)
                return None
            waiting = replace(waiting, name=found)
        known = db.files.file(conn, waiting.name)
        if known and known.archived_at and self.state.context.config.delete_from_buffer:
            return Work(waiting, known)
        if not self.state.is_dry:
            _give_back(self.state, waiting)
        return None

    # --- one batch --------------------------------------------------------------------------

    def _do_one(self, todo: deque[Work]) -> None:
        """Take files from ``todo`` for one batch, and do it; some may be put back."""
        state = self.state
        with MountedDisks(state.context.config, state.context.conn, self._ready) as mounted:
            batch = self._plan(todo, mounted)
            if state.is_dry:
                self._report_dry_run(batch)
                return
            self._note_lost_copies(batch)
            for work in batch.interrupted:
                with state.failures.isolated(work.waiting):
                    _give_back(state, work.waiting)
            archived = self._archived_before(batch)
            copied = self._copy(self.begin_row(), batch) if batch.jobs else []
            again, proved = self._judge_all(copied, batch)
            _remove_archived(state, [*archived, *proved], mounted)
        if not batch.jobs:
            return
        todo.extendleft(reversed([self._once_more(work) for work in again]))
        with state.context.findings.isolated("full disks"):
            written = {role for result in copied for role in result.written()}
            state.disks.close_full(
                batch.full, {role: batch.disks[role].disk.id for role in written}
            )

    def _plan(self, todo: deque[Work], mounted: MountedDisks) -> Batch:
        state = self.state
        planner = Planner(
            db.disks.disks(state.context.conn),
            mounted,
            state.context.findings,
            state.disks.out,
            self._promised_bytes,
            state.is_dry,
            tested=db.smart.hours_since_tested(state.context.conn),
        )
        batch = planner.fill(todo)
        state.tally.without_disk_files += len(batch.without_disk)
        for work, fault in batch.too_big:
            state.failures.note(work.waiting.name, work.waiting.stat, fault)
        state.disks.note_refused(batch.refused)
        return batch

    def _report_dry_run(self, batch: Batch) -> None:
        for job in batch.jobs:
            disks = [batch.disks[role].disk for role in sorted(job.roles, reverse=True)]
            self.state.watcher.would_copy(job, [disk.label for disk in disks])
            for disk in disks:
                already = self._promised_bytes.get(disk.id, 0)
                self._promised_bytes[disk.id] = already + job.waiting.stat.size_bytes

    def _note_lost_copies(self, batch: Batch) -> None:
        context = self.state.context
        for known, copy, judged in batch.lost_copies:
            with context.findings.isolated(f"{copy.disk.label}: noting a lost copy"):
                with db.transaction(context.conn):
                    db.copies.set_copy_state(context.conn, known.id, copy.disk, judged)
                _report_bad_copy(self.state, known, copy.disk.label, judged)

    def _archived_before(self, batch: Batch) -> list[ArchivedFile]:
        """Hash the files that have both copies already; those that are the same may be removed."""
        archived = []
        for work in batch.again:
            with self.state.failures.isolated(work.waiting):
                try:
                    archived += [self._must_be_known(work)]
                except FileFault as fault:
                    self._judge_source(work.waiting, fault)
                except Stopped:
                    continue
        return archived

    def _must_be_known(self, work: Work) -> ArchivedFile:
        """Raises NameConflict unless the file is the one that is archived; FileFault; Stopped."""
        assert work.known
        sha512 = _hash_once(self.state, work.waiting)
        if sha512 != work.known.sha512:
            raise NameConflict.of(shown(work.waiting.path), work.known.sha512, sha512)
        return ArchivedFile(work.waiting, sha512)

    def _copy(self, row: int, batch: Batch) -> list[Result]:
        state = self.state
        targets = [held.target for held in batch.disks.values()]
        state.watcher.batch(batch.bytes_by_label())
        results = copy_batch(state.buffer, batch.jobs, targets, state.stop, state.watcher.moved)
        self._register(row, results, batch)
        return results

    # --- register ---------------------------------------------------------------------------

    def _register(self, row: int, results: list[Result], batch: Batch) -> None:
        """Record all new copies in one transaction."""
        state, context = self.state, self.state.context
        with db.transaction(context.conn):
            for result in results:
                self._register_one(result, batch)
            archived = [result for result in results if result.is_archived]
            size_bytes = sum(result.job.waiting.stat.size_bytes for result in archived)
            for held in batch.disks.values():
                with context.findings.isolated(f"{held.disk.label}: measuring"):
                    measure(self.state.context.conn, held)
                state.disks.used(held.disk)
            db.passes.count_in_pass(context.conn, row, len(archived), size_bytes)
            self._forget_faults([shown(result.job.name) for result in archived])
        with context.findings.isolated("files without a good copy"):
            lifecycle.clear_no_good_copy(context)
        state.tally.archived_files += len(archived)
        state.tally.archived_bytes += size_bytes
        log.info(
            "%d of %d files (%s) archived, on %s",
            len(archived),
            len(results),
            size_text(size_bytes),
            " and ".join(held.disk.label for held in batch.disks.values()),
        )

    def _register_one(self, result: Result, batch: Batch) -> None:
        """Record the copies of one file; it is archived if it has all that it lacked."""
        written, job = result.written(), result.job
        if not written or result.sha512 is None:
            return
        good = [(batch.disks[role].disk, copy) for role, copy in written.items()]
        known = db.files.register(
            self.state.context.conn, job.name, result.sha512, job.waiting.stat, good, utc_now()
        )
        result.is_archived = known.archived_at is not None and len(good) == len(job.roles)

    def _forget_faults(self, names: list[str]) -> None:
        """In the transaction that archives the files: no kill leaves a finding behind."""
        findings = self.state.context.findings
        self.state.failures.forget(names)
        for name in set(findings.keys("copy-damaged")) & set(names):
            findings.clear(["copy-damaged"], name)

    # --- what failed ------------------------------------------------------------------------

    def _judge_all(
        self, results: list[Result], batch: Batch
    ) -> tuple[list[Work], list[ArchivedFile]]:
        """Return the files to try once more, and those to remove.

        A file that hits a bug of ours is neither: it stays in the buffer.
        """
        again, proved = [], []
        for result in results:
            with self.state.failures.isolated(result.job.waiting):
                if self._judge(result, batch):
                    again.append(batch.works[result.job.name])
                if result.is_archived:
                    proved.append(_as_archived(result, batch))
        return again, proved

    def _judge(self, result: Result, batch: Batch) -> bool:
        """Decide about a file that did not get all its copies; True: try it once more."""
        work = batch.works[result.job.name]
        if result.fault is not None:
            self._judge_source(work.waiting, result.fault)
            return False
        verdicts = [
            self._judge_copy(work, batch.disks[role], copy)
            for role, copy in result.copies.items()
            if isinstance(copy, Exception) and not isinstance(copy, Stopped)
        ]
        faults = [fault for fault in verdicts if fault]
        for other in faults[1:]:
            log.warning("%s", other)
        if faults:  # one attempt at the file, though it may have failed on both disks
            self.state.failures.note(work.waiting.path, work.waiting.stat, faults[0])
        return None in verdicts

    def _judge_source(self, waiting: Waiting, fault: PoleError) -> None:
        tally = self.state.tally
        if isinstance(fault, SourceBusy):
            tally.busy_files += 1
            findings, path = self.state.context.findings, shown(waiting.path)
            findings.note("file-open-long", path, f"{fault}.", Severity.INFO)  # for a day
        elif isinstance(fault, SourceVanished):
            tally.vanished_files += 1
            log.warning("%s", fault)
        elif isinstance(fault, FileFault):
            self.state.failures.note(waiting.path, waiting.stat, fault)

    def _judge_copy(self, work: Work, held: HeldDisk, fault: Exception) -> FileFault | None:
        """Return the file's own fault; None: try it once more, because the disk was at fault."""
        name, label = shown(work.waiting.name), held.disk.label
        findings, disks, is_first = self.state.context.findings, self.state.disks, work.tries == 0
        number = fault.errno if isinstance(fault, OSError) else None
        if isinstance(fault, OSError) and number in DISK_ERRNOS | FULL_ERRNOS:
            disks.leave_out(held.disk, fault)
            return None
        if isinstance(fault, OSError) and number in OBSTACLE_ERRNOS and is_first:
            obstacle = f"on {label} something is in its way, in data/ ({fault.strerror})."
            findings.note("name-conflict", f"{label} {name}", obstacle)
            disks.pass_by(held.disk)
            return None
        if isinstance(fault, SetAside) and is_first:
            findings.note("name-conflict", f"{label} {name}", f"{fault.why}.")
            return None
        if isinstance(fault, FileFault):
            return fault
        if not isinstance(fault, (OSError, PoleError)):
            return HitBug(name, record(f"{label}: {name}", fault))
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        return FileFault(name, f"{label}: {why}")

    def _once_more(self, work: Work) -> Work:
        """The same file, with what was registered since it was planned."""
        known = db.files.file(self.state.context.conn, work.waiting.name)
        return Work(work.waiting, known, work.tries + 1)


def _as_archived(result: Result, batch: Batch) -> ArchivedFile:
    """What the removal needs to know of copies that this batch wrote and read back."""
    assert result.sha512
    by_disk = {batch.disks[role].disk.id: copy for role, copy in result.written().items()}
    return ArchivedFile(
        result.job.waiting,
        result.sha512,
        {disk_id: copy.line for disk_id, copy in by_disk.items()},
        {disk_id: copy.read_back for disk_id, copy in by_disk.items()},
    )


def _is_archived_as_it_is(known: KnownFile | None, waiting: Waiting) -> bool:
    """True if size and time say that a file is archived: enough to keep it, never to remove it."""
    return (
        known is not None
        and known.archived_at is not None
        and (known.size_bytes, known.mtime_ns) == (waiting.stat.size_bytes, waiting.stat.mtime_ns)
    )


# --- out of the buffer --------------------------------------------------------------------


def _remove_archived(state: PassState, files: list[ArchivedFile], mounted: MountedDisks) -> None:
    """Remove archived files from the buffer, if the configuration says so and they are proved."""
    if not state.context.config.delete_from_buffer:
        state.failures.forget([shown(file.waiting.path) for file in files])
        return
    isolated, read = state.failures.isolated, partial(_read_copy, state, mounted)
    removal = Removal(state.context.conn, state.buffer, mounted.hold, read, isolated)
    removed, kept = [], set()  # two files of a group have one name if a removal was interrupted
    for result in removal.remove(files):
        with isolated(result.file.waiting):
            _report(state, result)
        if result.is_removed:
            removed.append(result.file.waiting)
        else:
            kept.add(result.file.waiting.name)
    names = [w.name for w in removed if w.name not in kept and not _is_back(state, w)]
    if names:
        with db.transaction(state.context.conn):
            db.files.note_removed(state.context.conn, names, utc_now())
    gone = {*names, *(waiting.path for waiting in removed)} - kept
    state.failures.forget([shown(name) for name in sorted(gone)])


def _is_back(state: PassState, waiting: Waiting) -> bool:
    """True if another file took the name of one whose removal had been interrupted."""
    presence = Presence.of(state.buffer.root_fd) if waiting.hidden_as else None
    return presence is not None and not presence.has_left(waiting.name)


def _give_back(state: PassState, waiting: Waiting) -> None:
    """Give a hidden file that can't be removed now its own name again."""
    path = shown(waiting.path)
    try:
        result = give_name_back(state.buffer, waiting)
    except OSError as fault:
        why = f"its name can't be given back ({fault.strerror or fault})"
        state.failures.note(waiting.path, waiting.stat, FileFault(path, why))
        return
    if result.refusals:
        conflict = NameConflict(path, f"its removal was interrupted; {result.refusals[0]}")
        state.failures.note(waiting.path, waiting.stat, conflict)
    else:
        log.info("%s: its removal had been interrupted; it has its name again", path)
        state.failures.forget([path])


def _report(state: PassState, result: RemovalResult) -> None:
    """Report what kept a file in the buffer, or went wrong when it was removed."""
    waiting, why = result.file.waiting, "; ".join(result.refusals)
    if result.was_opened:
        state.context.findings.note("opened-at-removal", shown(waiting.name), OPENED)
    if result.stays_as:
        _note_stays(state, result.stays_as, result.file.sha512, why)
    elif why:
        log.warning("%s: %s", shown(waiting.name), why)


def _note_stays(state: PassState, waiting: Waiting, sha512: str, why: str) -> None:
    """Not as changed: renaming it there and back changes the ctime alone."""
    kind = NameConflict if waiting.hidden_as else NotRemoved
    state.failures.note(waiting.path, waiting.stat, kind(shown(waiting.path), why))
    with db.transaction(state.context.conn):
        db.files.remember_sha512(state.context.conn, waiting.name, waiting.stat, sha512)


# --- reading again ------------------------------------------------------------------------


def _read_copy(
    state: PassState, mounted: MountedDisks, known: KnownFile, copy: KnownCopy
) -> ReadBack | None:
    """Read a copy from the medium and record the result; None if it can't be read now.

    It may have been written long ago: an earlier reading never justifies a removal.
    """
    label, conn = copy.disk.label, state.context.conn
    try:
        with closing(direct_io.HashingReader()) as reader:
            tick = partial(_raise_if_stopped, state)
            found = mounted.hold(copy.disk).read_copy(known.name, reader, tick)
    except (DiskRefused, OSError) as fault:
        log.info("%s: its copy of %s can't be read now: %s", label, shown(known.name), fault)
        return None
    is_good = found.sha512 == known.sha512
    judged = CopyState.GOOD if is_good else CopyState.DAMAGED
    with db.transaction(conn):
        db.copies.note_verified(conn, known.id, copy.disk, judged, found.verified_by, utc_now())
    if not is_good:
        _report_bad_copy(state, known, label, judged)
    return found


def _report_bad_copy(state: PassState, known: KnownFile, label: str, judged: CopyState) -> None:
    """Note a copy that is not good and whose file is still in the buffer."""
    state.context.findings.note(
        "copy-damaged",
        shown(known.name),
        f"Its copy on {label} is {judged.value}; the file is in the buffer and is copied again.",
    )


def _hash_once(state: PassState, waiting: Waiting) -> str:
    """Return the SHA-512 of a buffer file: read now, or remembered for this very state.

    Raises FileFault and its kinds, Stopped.
    """
    conn = state.context.conn
    if remembered := db.files.remembered_sha512(conn, waiting.name, waiting.stat):
        return remembered
    with state.buffer.finished(waiting) as fd, closing(direct_io.HashingReader()) as reader:
        tick = partial(_raise_if_stopped, state)
        sha512 = reader.sha512(fd, waiting.stat.size_bytes, tick)
        state.buffer.must_be_untouched(fd, waiting)
    with db.transaction(conn):
        db.files.remember_sha512(conn, waiting.name, waiting.stat, sha512)
    return sha512


def _raise_if_stopped(state: PassState, n_bytes: int) -> None:
    if state.stop.is_set():
        raise Stopped()
