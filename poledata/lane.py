"""One disk's part of a batch: in which order its copies go, and what a fault is a fault of.

The order is the contract: temporary name → preallocate → write → flush → read back from
the medium → link to the final name → fsync the directories → manifest line, fsynced. Only
the first answer of a flush counts. The steps themselves are the scribe's (scribe.py).

Small files go through each step together: all are written, flushed at once, read back, and so
on. A fault stays with its file; one of the common flush is a fault of all that it was to flush.

A lane never stops taking what the reader hands it, so that a full or dead disk can't block
the other one: after a fault it lets the rest of the file, or of the batch, go by.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from poledata.errors import DISK_ERRNOS, FULL_ERRNOS, PoleError, Stopped
from poledata.medium import Chunk
from poledata.records import CopyTarget, Job, Written
from poledata.scribe import LARGE_BYTES, Draft, Scribe, Tick

GROUP_FILES = 1000  # written, then flushed, then read back together
GROUP_FILES_ONE_BY_ONE = 64  # where each is flushed by itself, and is open until then
GROUP_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class End:
    """The reader is through with a file: its SHA-512, or None if it must not be archived."""

    sha512: str | None


class Lane(threading.Thread):
    """A disk at work on ``jobs``: hand it, for each in turn, its chunks and an End."""

    def __init__(
        self, target: CopyTarget, jobs: Sequence[Job], stop: threading.Event, tick: Tick
    ) -> None:
        super().__init__(name=f"lane-{target.label}")
        self.jobs = jobs
        self.results: dict[str, Written | Exception] = {}
        self.defect: Exception | None = None
        self._stop_asked = stop
        self._scribe = Scribe(target, stop, tick)
        self._inbox: queue.SimpleQueue[Chunk | End] = queue.SimpleQueue()
        self._ends = 0
        self._sha512: str | None = None  # of the file that ended last
        self._group: list[Draft] = []
        self._group_bytes = 0
        self._disk_fault: OSError | None = None
        self._full_fault: OSError | None = None

    def hand(self, message: Chunk | End) -> None:
        """Give the lane the next chunk, or the end, of the file it is at."""
        self._inbox.put(message)

    def run(self) -> None:
        try:
            with contextlib.closing(self._scribe):
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
        at_most = GROUP_FILES if self._scribe.flushes_at_once else GROUP_FILES_ONE_BY_ONE
        is_full = len(self._group) >= at_most or self._group_bytes >= GROUP_BYTES
        return is_full or self._group[-1].size_bytes >= LARGE_BYTES

    # --- writing --------------------------------------------------------------------------

    def _take(self, job: Job) -> Draft:
        """Write one file as the reader hands it over, or let it go by."""
        draft = Draft(job)
        if self._full_fault:
            draft.fault = self._full_fault
        self._try(draft, self._scribe.begin)
        for chunk in self._chunks():
            if draft.temporary:
                self._try(draft, partial(self._scribe.write, chunk=chunk))
            chunk.let_go()
        draft.sha512 = self._sha512
        if draft.sha512 is None and not draft.fault:
            draft.fault = Stopped()  # the reader gave it up, and knows why
        if draft.temporary:
            self._try(draft, self._scribe.end_writing)
        return draft

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks of one file; its End is in ``_sha512`` after the last."""
        while isinstance(message := self._inbox.get(), Chunk):
            yield message
        self._sha512 = message.sha512
        self._ends += 1

    def _try(self, draft: Draft, step: Callable[[Draft], None]) -> None:
        """One step of one copy; a fault ends this copy, and where it must the disk's part."""
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
            self._try(draft, self._scribe.read_back)
        new = [draft for draft in group if draft.temporary]
        for _, beside in groupby(new, key=lambda draft: draft.parent):
            self._for_all(list(beside), self._publish)
        self._for_all(group, self._scribe.settle_directories)
        self._for_all(group, self._scribe.add_to_manifest)
        for draft in group:
            self._scribe.clear_away(draft)
            self.results[draft.job.name] = self._outcome(draft)

    def _flush_group(self, group: list[Draft]) -> None:
        """Whatever is still open is flushed by itself, all else at once."""
        closed = [draft for draft in group if draft.temporary and draft.fd is None]
        for draft in group:
            self._try(draft, self._scribe.flush)
        self._for_all(closed, self._scribe.flush_disk)

    def _publish(self, beside: list[Draft]) -> None:
        """Files of one directory get their final names."""
        with self._scribe.directory_of(beside) as parent_fd:
            for draft in beside:
                self._try(draft, partial(self._scribe.link, parent_fd=parent_fd))

    def _for_all(self, group: list[Draft], step: Callable[[list[Draft]], None]) -> None:
        """One step for all copies that got so far: its fault is a fault of each."""
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
