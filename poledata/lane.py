"""One disk's part of a batch: write, make durable, read back, give the final name.

The order is the contract: temporary name → preallocate → write → flush → read back from
the medium → link to the final name → fsync the directories → manifest line, fsynced. Only
the first answer of a flush counts. A final name therefore always means a whole file.

Small files go through each step together: all are written, flushed at once, read back, and so
on. A fault stays with its file; one of the common flush is a fault of all that it was to flush.

A lane never stops taking what the reader hands it, so that a full or dead disk can't block
the other one: after a fault it lets the rest of the file, or of the batch, go by.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import stat as st
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from poledata import bag, beneath, manifest, medium
from poledata.errors import (
    DISK_ERRNOS,
    FULL_ERRNOS,
    CopyMismatch,
    NameConflict,
    PoleError,
    SetAside,
    Stopped,
)
from poledata.medium import BLOCK_BYTES, Chunk
from poledata.records import CopyTarget, Job, ManifestLine, VerifiedBy, Written
from poledata.texts import shown

GROUP_FILES = 1000  # written, then flushed, then read back together
GROUP_FILES_ONE_BY_ONE = 64  # where each is flushed by itself, and is open until then
GROUP_BYTES = 256 * 1024**2
LARGE_BYTES = 64 * 1024**2  # such a file is flushed by itself, and ends its group
DIRECT_FROM_BYTES = 1024**2  # smaller files are gathered by the kernel and flushed together

Tick = Callable[[str, str, int], None]  # label, file name, bytes written or read back
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """The reader is through with a file: its SHA-512, or None if it must not be archived."""

    sha512: str | None


@dataclass(slots=True)
class _Draft:
    """A copy on its way: what this disk has of one job so far."""

    job: Job
    temporary: str | None = None  # None: something stands under the final name already
    fd: int | None = None
    sha512: str | None = None
    verified_by: VerifiedBy | None = None
    line: ManifestLine | None = None
    fault: Exception | None = None
    dirty: set[str] = field(default_factory=set)  # directories that got a new entry

    @property
    def size_bytes(self) -> int:
        return self.job.waiting.stat.size_bytes

    @property
    def path(self) -> str:
        return f"{bag.DATA}/{self.job.name}"

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0]


class Lane(threading.Thread):
    """A disk at work on ``jobs``: hand it, for each in turn, its chunks and an End."""

    def __init__(
        self, target: CopyTarget, jobs: Sequence[Job], stop: threading.Event, tick: Tick
    ) -> None:
        super().__init__(name=f"lane-{target.label}")
        self.jobs = jobs
        self.results: dict[str, Written | Exception] = {}
        self.defect: Exception | None = None
        self._target, self._stop_asked, self._tick = target, stop, tick
        self._inbox: queue.SimpleQueue[Chunk | End] = queue.SimpleQueue()
        self._ends = 0
        self._sha512: str | None = None  # of the file that ended last
        self._group: list[_Draft] = []
        self._group_bytes = 0
        self._disk_fault: OSError | None = None
        self._full_fault: OSError | None = None
        self._reader = medium.HashingReader()
        self._held = contextlib.ExitStack()  # closed at the end
        self._incoming: int | None = None
        self._flushes_at_once = medium.syncfs_tells_faults()

    def hand(self, message: Chunk | End) -> None:
        """Give the lane the next chunk, or the end, of the file it is at."""
        self._inbox.put(message)

    def run(self) -> None:
        try:
            with contextlib.closing(self._reader), self._held:
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
        at_most = GROUP_FILES if self._flushes_at_once else GROUP_FILES_ONE_BY_ONE
        is_full = len(self._group) >= at_most or self._group_bytes >= GROUP_BYTES
        return is_full or self._group[-1].size_bytes >= LARGE_BYTES

    # --- writing --------------------------------------------------------------------------

    def _take(self, job: Job) -> _Draft:
        """Write one file as the reader hands it over, or let it go by."""
        draft = _Draft(job)
        if self._full_fault:
            draft.fault = self._full_fault
        self._try(draft, self._begin)
        for chunk in self._chunks():
            if draft.temporary:
                self._try(draft, partial(self._write, chunk=chunk))
            chunk.let_go()
        draft.sha512 = self._sha512
        if draft.sha512 is None and not draft.fault:
            draft.fault = Stopped()  # the reader gave it up, and knows why
        if draft.temporary:
            self._try(draft, self._end_writing)
        return draft

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks of one file; its End is in ``_sha512`` after the last."""
        while isinstance(message := self._inbox.get(), Chunk):
            yield message
        self._sha512 = message.sha512
        self._ends += 1

    def _try(self, draft: _Draft, step: Callable[[_Draft], None]) -> None:
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

    def _begin(self, draft: _Draft) -> None:
        if beneath.stat(self._target.root_fd, draft.path):
            return  # judged once its SHA-512 is known
        size_bytes = draft.size_bytes
        temporary = bag.new_temporary()
        draft.fd = bag.create(self._incoming_fd(), temporary)
        draft.temporary = temporary
        medium.preallocate(draft.fd, size_bytes)
        if self._target.direct and size_bytes >= DIRECT_FROM_BYTES:
            medium.set_direct(draft.fd, True)

    def _incoming_fd(self) -> int:
        """``.incoming/``, open from its first use on."""
        if self._incoming is None:
            incoming = beneath.directory(self._target.root_fd, bag.INCOMING)
            self._incoming = self._held.enter_context(incoming)
        return self._incoming

    def _write(self, draft: _Draft, chunk: Chunk) -> None:
        assert draft.fd is not None
        whole_bytes = len(chunk.view) // BLOCK_BYTES * BLOCK_BYTES
        with _room_was_given():
            medium.write_at(draft.fd, chunk.view[:whole_bytes], chunk.at)
            if whole_bytes < len(chunk.view):  # the odd end of a file
                medium.set_direct(draft.fd, False)
                medium.write_at(draft.fd, chunk.view[whole_bytes:], chunk.at + whole_bytes)
        self._tick(self._target.label, draft.job.name, len(chunk.view))

    def _end_writing(self, draft: _Draft) -> None:
        """A file that is flushed with others is closed; the disk begins with it at once."""
        assert draft.fd is not None
        self._keep_mode_and_time(draft)
        if self._flushes_at_once and draft.size_bytes < LARGE_BYTES:
            with _room_was_given():
                medium.start_writing_out(draft.fd)
                self._close(draft)

    def _keep_mode_and_time(self, draft: _Draft) -> None:
        assert draft.fd is not None
        waiting = draft.job.waiting
        os.fchmod(draft.fd, waiting.mode & 0o777 | st.S_IRUSR)
        os.utime(draft.fd, ns=(waiting.stat.mtime_ns, waiting.stat.mtime_ns))

    # --- proving and publishing -----------------------------------------------------------

    def _finish_group(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        self._flush_group(group)
        for draft in group:
            self._try(draft, self._read_back)
        new = [draft for draft in group if draft.temporary]
        for _, beside in groupby(new, key=lambda draft: draft.parent):
            self._for_all(list(beside), self._publish)
        self._for_all(group, self._settle_directories)
        self._for_all(group, self._add_to_manifest)
        for draft in group:
            self._clear_away(draft)
            self.results[draft.job.name] = self._outcome(draft)

    def _flush_group(self, group: list[_Draft]) -> None:
        """Whatever is still open is flushed by itself, all else at once."""
        closed = [draft for draft in group if draft.temporary and draft.fd is None]
        for draft in group:
            self._try(draft, self._flush)
        self._for_all(closed, self._flush_disk)

    def _flush_disk(self, _group: list[_Draft]) -> None:
        with _room_was_given():
            medium.syncfs(self._target.root_fd)

    def _flush(self, draft: _Draft) -> None:
        if draft.fd is not None:
            with _room_was_given():
                os.fsync(draft.fd)
                self._close(draft)

    def _read_back(self, draft: _Draft) -> None:
        if draft.temporary is None:
            self._read_what_stands_there(draft)
            return
        with beneath.opened(self._incoming_fd(), draft.temporary) as fd:
            sha512, draft.verified_by = self._read(draft, fd)
        if sha512 != draft.sha512:
            raise CopyMismatch(
                shown(draft.job.name),
                f"{self._target.label} gives back SHA-512 {sha512[:12]}…, "
                f"not {(draft.sha512 or '')[:12]}… as in the buffer",
            )

    def _read_what_stands_there(self, draft: _Draft) -> None:
        """A final name that the catalogue does not know: adopted if it is this very file."""
        root_fd, name = self._target.root_fd, draft.job.name
        info = beneath.stat(root_fd, draft.path)
        if info and st.S_ISDIR(info.st_mode):  # it may hold archived files: never moved
            raise NameConflict(shown(name), f"on {self._target.label} a directory has this name")
        stands_sha512 = None
        if info and st.S_ISREG(info.st_mode):
            stands_sha512 = self._adopted_or_other(draft)
            if stands_sha512 == draft.sha512:
                return
        if line := manifest.find_lines(root_fd, [name]).get(name):
            self._must_not_be_archived(draft, line, stands_sha512)
            manifest.drop_line(root_fd, name)  # first: a line without its file would be for ever
        aside = bag.set_aside(root_fd, draft.path, time.time())
        raise SetAside(
            shown(name), f"{self._target.label} held something else there, now in {shown(aside)}"
        )

    def _must_not_be_archived(
        self, draft: _Draft, line: ManifestLine, stands_sha512: str | None
    ) -> None:
        """Raises NameConflict if the manifest vouches for other content: it stays where it is.

        The database may be an older one, put back, that does not know what was archived since.
        """
        is_vouched_for = line.sha512 == stands_sha512 or draft.job.known_sha512 is None
        if is_vouched_for and line.sha512 != draft.sha512:
            raise NameConflict(
                shown(draft.job.name),
                f"by its manifest, other content is archived on {self._target.label} under this "
                f"name (SHA-512 {line.sha512[:12]}…, this one is {(draft.sha512 or '')[:12]}…)",
            )

    def _adopted_or_other(self, draft: _Draft) -> str:
        """The SHA-512 of what stands there; if it is this very file, it is made durable."""
        with beneath.opened(self._target.root_fd, draft.path) as fd:
            os.fsync(fd)  # whoever wrote it may not have come so far
            sha512, draft.verified_by = self._read(draft, fd)
            if sha512 != draft.sha512:
                return sha512
            draft.fd = os.dup(fd)
        self._keep_mode_and_time(draft)
        self._flush(draft)
        draft.dirty = set(_way_to(draft.parent))
        return sha512

    def _read(self, draft: _Draft, fd: int) -> tuple[str, VerifiedBy]:
        tick = partial(self._tick_or_stop, draft.job.name)
        return medium.read_back(fd, self._target.direct, self._reader, tick)

    def _tick_or_stop(self, name: str, n_bytes: int) -> None:
        if self._stop_asked.is_set():
            raise Stopped()
        self._tick(self._target.label, name, n_bytes)

    def _publish(self, beside: list[_Draft]) -> None:
        """Files of one directory get their final names."""
        root_fd, parent = self._target.root_fd, beside[0].parent
        dirty = {*beneath.make_directories(root_fd, parent), parent}
        with beneath.directory(root_fd, parent) as parent_fd:
            for draft in beside:
                draft.dirty = dirty
                self._try(draft, partial(self._link, parent_fd=parent_fd))

    def _link(self, draft: _Draft, parent_fd: int) -> None:
        """Unlike a rename this replaces nothing."""
        assert draft.temporary
        base = draft.path.rpartition("/")[2]
        os.link(draft.temporary, base, src_dir_fd=self._incoming_fd(), dst_dir_fd=parent_fd)

    def _for_all(self, group: list[_Draft], step: Callable[[list[_Draft]], None]) -> None:
        """One step for all copies that got so far: its fault is a fault of each."""
        alive = [draft for draft in group if not draft.fault]
        try:
            if alive:
                step(alive)
        except (OSError, PoleError) as fault:
            self._note(fault)
            for draft in alive:
                draft.fault = fault

    def _settle_directories(self, group: list[_Draft]) -> None:
        for path in sorted(set().union(*(draft.dirty for draft in group))):
            beneath.fsync_directory(self._target.root_fd, path)

    def _add_to_manifest(self, group: list[_Draft]) -> None:
        """A line for each; a file that was here before may have its line from then."""
        root_fd = self._target.root_fd
        before = [d.job.name for d in group if d.temporary is None or d.job.known_sha512]
        standing = manifest.find_lines(root_fd, before) if before else {}
        for name, line in standing.items():
            draft = next(draft for draft in group if draft.job.name == name)
            if line.sha512 == draft.sha512:
                draft.line = line
            else:
                manifest.drop_line(root_fd, name)
        missing = [draft for draft in group if draft.line is None]
        entries = [(draft.sha512 or "", draft.job.name) for draft in missing]
        for draft, line in zip(missing, manifest.append(root_fd, entries), strict=True):
            draft.line = line

    # --- ending ---------------------------------------------------------------------------

    def _clear_away(self, draft: _Draft) -> None:
        """Let go of the draft; a temporary name that can't be removed now is swept later."""
        try:
            self._close(draft)
            if draft.temporary:
                os.unlink(draft.temporary, dir_fd=self._incoming_fd())
        except OSError as fault:
            log.warning("%s: .incoming/ can't be cleared now: %s", self._target.label, fault)

    def _close(self, draft: _Draft) -> None:
        fd, draft.fd = draft.fd, None
        if fd is not None:
            os.close(fd)

    def _outcome(self, draft: _Draft) -> Written | Exception:
        if draft.fault:
            return draft.fault
        assert draft.verified_by and draft.line
        return Written(draft.verified_by, draft.line)


@contextlib.contextmanager
def _room_was_given() -> Iterator[None]:
    """A disk without room for what was preallocated is not full: it does not keep its word."""
    try:
        yield
    except OSError as fault:
        if fault.errno != errno.ENOSPC:
            raise
        raise OSError(errno.EIO, f"{fault.strerror}, where it had given room before") from fault


def _way_to(path: str) -> Iterator[str]:
    """``data``, ``data/a``, ``data/a/b``: every directory on the way, and the root."""
    yield ""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])
