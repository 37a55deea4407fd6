"""Copy a batch: one read of the buffer feeds the hash and both disks at once.

The calling thread reads each file once, into a bounded set of aligned buffers, and hashes it, while
a thread per disk writes it, proves it and publishes it. While a disk reads back, the reader already
fills buffers with the next file.

The order of steps on a disk is the contract: temporary name → preallocate → write → flush → read
back from the medium → link to the final name → fsync the directories → manifest line, fsynced.
Only the first answer of a flush counts. disk_writer.py has the steps themselves.

Small files go through each step together: all are written, flushed at once, read back, and so on.
A fault fails its own file; a fault of the common flush fails every file that it was to flush. After
a fault a disk's thread still takes and drops what the reader hands it, so that a full or dead disk
never blocks the other one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Protocol

from poledata.archive.disk_writer import LARGE_BYTES, CopyWriter, Draft, Tick
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    NameConflict,
    PoleError,
    SourceChanged,
    Stopped,
)
from poledata.formatting import shown
from poledata.models import CopyTarget, Job, Role, Waiting, Written
from poledata.system.direct_io import CHUNK_BYTES, Chunk, Pool, ShortRead, fill

BUFFERS = 12  # × 4 MiB between the reader and the slower disk
GROUP_FILES = 1000  # written, then flushed, then read back together
GROUP_FILES_ONE_BY_ONE = 64  # where each is flushed by itself, and is open until then
GROUP_BYTES = 256 * 1024**2
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Result:
    """The outcome of one job: its SHA-512 and, for each role, a copy or a fault."""

    job: Job
    sha512: str | None = None
    fault: PoleError | None = None  # of the file itself: then no role has a copy
    copies: dict[Role, Written | Exception] = field(default_factory=dict)
    is_archived: bool = False  # registered with all copies that the file lacked

    def written(self) -> dict[Role, Written]:
        return {role: copy for role, copy in self.copies.items() if isinstance(copy, Written)}


class Source(Protocol):
    """Where files are read from: the buffer; for a repair, a disk."""

    def finished(self, waiting: Waiting) -> AbstractContextManager[int]:
        """Open the very file that is meant. Raises FileFault and its kinds."""

    def read_ahead(self, waiting: Waiting) -> None:
        """Start to fetch a file that is read soon. Raises OSError."""

    def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
        """Raises FileFault unless the file is still as it was."""


def copy_batch(
    buffer: Source,
    jobs: Sequence[Job],
    targets: Sequence[CopyTarget],
    stop: threading.Event,
    tick: Tick,
) -> list[Result]:
    """Copy each job's file to the targets of its roles; nothing is raised for a file or a disk.

    ``stop``, once set, ends the batch: what is not published by then is cleared away.
    ``tick(label, name, n_bytes)`` is called from several threads as bytes are written and
    read back.
    """
    pool = Pool(BUFFERS)
    results = [Result(job) for job in jobs]
    threads = {
        t.role: DiskThread(t, [j for j in jobs if t.role in j.roles], stop, tick) for t in targets
    }
    with _running(threads, results) as unread:
        while unread:
            result = unread.pop(0)
            if unread:
                _read_ahead(buffer, unread[0].job)
            _read(buffer, result, [threads[role] for role in result.job.roles], pool, stop)
    for result in results:
        for role in result.job.roles:
            thread = threads[role]
            result.copies[role] = thread.defect or thread.results[result.job.name]
    return results


@contextmanager
def _running(threads: dict[Role, DiskThread], results: list[Result]) -> Iterator[list[Result]]:
    """Run the threads; at the end each has had an End for every job, and is joined."""
    unread = list(results)
    for thread in threads.values():
        thread.start()
    try:
        yield unread
    finally:
        for result in unread:
            for role in result.job.roles:
                threads[role].hand(End(None))
        for thread in threads.values():
            thread.join()
    if len(results) > 1:  # else the other disk's copy counts
        for thread in threads.values():
            if thread.defect:
                raise thread.defect


def _read_ahead(buffer: Source, job: Job) -> None:
    """Fetch a small file into memory before its turn; its faults show when it is read."""
    try:
        buffer.read_ahead(job.waiting)
    except OSError as fault:
        log.info("%s is not read ahead: %s", shown(job.name), fault.strerror or fault)


def _read(
    buffer: Source,
    result: Result,
    threads: list[DiskThread],
    pool: Pool,
    stop: threading.Event,
) -> None:
    """Read one file, once, for all its disks; each gets exactly one End."""
    try:
        result.sha512 = _hash_and_hand_on(buffer, result.job, threads, pool, stop)
    except PoleError as fault:
        result.fault = fault
    finally:
        for thread in threads:
            thread.hand(End(result.sha512))


def _hash_and_hand_on(
    buffer: Source, job: Job, threads: list[DiskThread], pool: Pool, stop: threading.Event
) -> str:
    """The SHA-512 of a finished file that did not change while it was read.

    Raises FileFault and its kinds, Stopped.
    """
    digest = hashlib.sha512()
    size_bytes = job.waiting.stat.size_bytes
    with buffer.finished(job.waiting) as fd:
        for at in range(0, size_bytes, CHUNK_BYTES):
            if stop.is_set():
                raise Stopped()
            free = pool.take()
            chunk = _read_chunk(job, fd, free, at, pool, users=len(threads) + 1)
            for thread in threads:
                thread.hand(chunk)
            digest.update(chunk.view)  # while the disks write it
            chunk.let_go()
        buffer.must_be_untouched(fd, job.waiting)
    return _must_agree(job, digest.hexdigest())


def _read_chunk(job: Job, fd: int, free: memoryview, at: int, pool: Pool, users: int) -> Chunk:
    try:
        n_bytes = fill(fd, free, at, job.waiting.stat.size_bytes)
    except ShortRead as fault:
        pool.give_back(free)
        raise SourceChanged(
            shown(job.name), f"it shrank while it was read: {fault.strerror}"
        ) from fault
    except OSError:
        pool.give_back(free)
        raise
    return Chunk(pool, free, n_bytes, at, users)


def _must_agree(job: Job, sha512: str) -> str:
    if job.known_sha512 not in (None, sha512):
        raise NameConflict.of(shown(job.name), str(job.known_sha512), sha512)
    return sha512


# --- one disk at work ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """The reader finished a file: its SHA-512, or None if it must not be archived."""

    sha512: str | None


class DiskThread(threading.Thread):
    """A disk at work on ``jobs``: for each in turn it is handed the chunks and an End."""

    def __init__(
        self, target: CopyTarget, jobs: Sequence[Job], stop: threading.Event, tick: Tick
    ) -> None:
        super().__init__(name=f"disk-{target.label}")
        self.jobs = jobs
        self.results: dict[str, Written | Exception] = {}
        self.defect: Exception | None = None
        self._stop_asked = stop
        self._writer = CopyWriter(target, stop, tick)
        self._inbox: queue.SimpleQueue[Chunk | End] = queue.SimpleQueue()
        self._ends = 0
        self._sha512: str | None = None  # of the file that ended last
        self._group: list[Draft] = []
        self._group_bytes = 0
        self._disk_fault: OSError | None = None
        self._full_fault: OSError | None = None

    def hand(self, message: Chunk | End) -> None:
        """Take the next chunk, or the end, of the file that the thread is at."""
        self._inbox.put(message)

    def run(self) -> None:
        try:
            with contextlib.closing(self._writer):
                self._work()
        except Exception as defect:  # re-raised by the calling thread
            self.defect = defect
            while self._ends < len(self.jobs):  # never leave the reader without buffers
                for chunk in self._chunks():
                    chunk.let_go()

    def _work(self) -> None:
        for job in self.jobs:
            self._group.append(self._take(job))
            self._group_bytes += job.waiting.stat.size_bytes
            if self._is_whole_group():
                self._finish_group()
        self._finish_group()

    def _is_whole_group(self) -> bool:
        at_most = GROUP_FILES if self._writer.flushes_at_once else GROUP_FILES_ONE_BY_ONE
        is_full = len(self._group) >= at_most or self._group_bytes >= GROUP_BYTES
        return is_full or self._group[-1].size_bytes >= LARGE_BYTES

    # --- writing --------------------------------------------------------------------------

    def _take(self, job: Job) -> Draft:
        """Write one file as the reader hands it over, or drop it."""
        draft = Draft(job)
        if self._full_fault:
            draft.fault = self._full_fault
        self._try(draft, self._writer.begin)
        for chunk in self._chunks():
            if draft.temporary:
                self._try(draft, partial(self._writer.write, chunk=chunk))
            chunk.let_go()
        draft.sha512 = self._sha512
        if draft.sha512 is None and not draft.fault:
            draft.fault = Stopped()  # the reader gave it up, and knows why
        if draft.temporary:
            self._try(draft, self._writer.end_writing)
        return draft

    def _chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of one file; after the last, ``_sha512`` is what its End says."""
        while isinstance(message := self._inbox.get(), Chunk):
            yield message
        self._sha512 = message.sha512
        self._ends += 1

    def _try(self, draft: Draft, step: Callable[[Draft], None]) -> None:
        """One step of one copy; a fault ends this copy, and if it must the whole disk's part."""
        if self._stop_asked.is_set():
            draft.fault = draft.fault or Stopped()
        draft.fault = draft.fault or self._disk_fault
        if draft.fault:
            return
        try:
            step(draft)
        except (OSError, PoleError) as fault:
            draft.fault = fault
            self._note(fault)

    def _note(self, fault: Exception) -> None:
        if not isinstance(fault, OSError):
            return
        if fault.errno in DISK_ERRNOS:
            self._disk_fault = self._disk_fault or fault
        elif fault.errno in FULL_ERRNOS:
            self._full_fault = self._full_fault or fault

    # --- proving and publishing -----------------------------------------------------------

    def _finish_group(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        self._flush_group(group)
        for draft in group:
            self._try(draft, self._writer.read_back)
        new = [draft for draft in group if draft.temporary]
        for _, beside in groupby(new, key=lambda draft: draft.parent):
            self._for_all(list(beside), self._publish)
        self._for_all(group, self._writer.settle_directories)
        self._for_all(group, self._writer.add_to_manifest)
        for draft in group:
            self._writer.clear_away(draft)
            self.results[draft.job.name] = self._outcome(draft)

    def _flush_group(self, group: list[Draft]) -> None:
        """Flush each file that is still open by itself, all others at once."""
        closed = [draft for draft in group if draft.temporary and draft.fd is None]
        for draft in group:
            self._try(draft, self._writer.flush)
        self._for_all(closed, self._writer.flush_disk)

    def _publish(self, beside: list[Draft]) -> None:
        """Give the files of one directory their final names."""
        with self._writer.directory_of(beside) as parent_fd:
            for draft in beside:
                self._try(draft, partial(self._writer.link, parent_fd=parent_fd))

    def _for_all(self, group: list[Draft], step: Callable[[list[Draft]], None]) -> None:
        """One step for all copies without a fault so far: its fault fails each of them."""
        alive = [draft for draft in group if not draft.fault]
        try:
            if alive:
                step(alive)
        except (OSError, PoleError) as fault:
            self._note(fault)
            for draft in alive:
                draft.fault = fault

    def _outcome(self, draft: Draft) -> Written | Exception:
        if draft.fault:
            return draft.fault
        assert draft.read_back and draft.line
        return Written(draft.read_back, draft.line)
