"""The steps that put copies on one disk: files, directories, manifest lines.

Each step raises what goes wrong. copier.py has their order, and what a fault means for other files.
A final name always means a whole file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat as st
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from poledata.disks import bag, manifest
from poledata.errors import CopyMismatch, ManifestDamaged, NameConflict, SetAside, Stopped
from poledata.formatting import shown
from poledata.models import CopyTarget, FileStat, Job, ManifestLine, ReadBack
from poledata.system import direct_io, paths
from poledata.system.direct_io import BLOCK_BYTES, Chunk

LARGE_BYTES = 64 * 1024**2  # such a file is flushed by itself, and ends its group
DIRECT_FROM_BYTES = 1024**2  # smaller files are gathered by the kernel and flushed together

Tick = Callable[[str, str, int], None]  # label, file name, bytes written or read back
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Draft:
    """A copy in progress: what a disk has of one job so far."""

    job: Job
    temporary: str | None = None  # None: the final name is taken already
    fd: int | None = None
    sha512: str | None = None
    read_back: ReadBack | None = None
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


class CopyWriter:
    """Writes, proves and publishes drafts on one disk."""

    def __init__(self, target: CopyTarget, stop: threading.Event, tick: Tick) -> None:
        self.flushes_at_once = direct_io.syncfs_tells_faults()
        self._target, self._stop_asked, self._tick = target, stop, tick
        self._reader = direct_io.HashingReader()
        self._held = contextlib.ExitStack()  # closed at the end
        self._incoming: int | None = None

    def close(self) -> None:
        """Close everything that is open."""
        with contextlib.closing(self._reader), self._held:
            pass

    # --- writing ----------------------------------------------------------------------------

    def begin(self, draft: Draft) -> None:
        """Create a temporary file with space for all of it; nothing if its final name is taken."""
        if paths.stat(self._target.root_fd, draft.path):
            return  # judged once its SHA-512 is known
        size_bytes = draft.size_bytes
        temporary = bag.new_temporary()
        draft.fd = bag.create(self._incoming_fd(), temporary)
        draft.temporary = temporary
        direct_io.preallocate(draft.fd, size_bytes)
        if self._target.direct and size_bytes >= DIRECT_FROM_BYTES:
            direct_io.set_direct(draft.fd, True)

    def _incoming_fd(self) -> int:
        """Return the descriptor of ``.incoming/``, opened at its first use."""
        if self._incoming is None:
            incoming = paths.directory(self._target.root_fd, bag.INCOMING)
            self._incoming = self._held.enter_context(incoming)
        return self._incoming

    def write(self, draft: Draft, chunk: Chunk) -> None:
        """Write one chunk at its place."""
        assert draft.fd is not None
        whole_bytes = len(chunk.view) // BLOCK_BYTES * BLOCK_BYTES
        with _space_was_promised():
            direct_io.write_at(draft.fd, chunk.view[:whole_bytes], chunk.at)
            if whole_bytes < len(chunk.view):  # the odd end of a file
                direct_io.set_direct(draft.fd, False)
                direct_io.write_at(draft.fd, chunk.view[whole_bytes:], chunk.at + whole_bytes)
        self._tick(self._target.label, draft.job.name, len(chunk.view))

    def end_writing(self, draft: Draft) -> None:
        """Close a file that is flushed with others; the disk starts to write it at once."""
        assert draft.fd is not None
        self._keep_mode_and_time(draft)
        if self.flushes_at_once and draft.size_bytes < LARGE_BYTES:
            with _space_was_promised():
                direct_io.start_writing_out(draft.fd)
                self._close(draft)

    def _keep_mode_and_time(self, draft: Draft) -> None:
        assert draft.fd is not None
        waiting = draft.job.waiting
        os.fchmod(draft.fd, waiting.mode & 0o777 | st.S_IRUSR)
        os.utime(draft.fd, ns=(waiting.stat.mtime_ns, waiting.stat.mtime_ns))

    def flush(self, draft: Draft) -> None:
        """Flush one file that is still open. Only the first answer counts."""
        if draft.fd is not None:
            with _space_was_promised():
                os.fsync(draft.fd)
                self._close(draft)

    def flush_disk(self, _group: list[Draft]) -> None:
        """Flush all that was written and closed, at once."""
        with _space_was_promised():
            direct_io.syncfs(self._target.root_fd)

    # --- proving ----------------------------------------------------------------------------

    def read_back(self, draft: Draft) -> None:
        """Read the copy from the medium. Raises CopyMismatch if it is not the buffer's file."""
        if draft.temporary is None:
            self._read_what_is_there(draft)
            return
        with paths.opened(self._incoming_fd(), draft.temporary) as fd:
            draft.read_back = self._read(draft, fd)
        if draft.read_back.sha512 != draft.sha512:
            raise CopyMismatch(
                shown(draft.job.name),
                f"{self._target.label} gives back SHA-512 {draft.read_back.sha512[:12]}…, "
                f"not {(draft.sha512 or '')[:12]}… as in the buffer",
            )

    def _read(self, draft: Draft, fd: int) -> ReadBack:
        tick = partial(self._tick_or_stop, draft.job.name)
        return direct_io.read_copy(fd, self._target.direct, self._reader, tick)

    def _tick_or_stop(self, name: str, n_bytes: int) -> None:
        if self._stop_asked.is_set():
            raise Stopped()
        self._tick(self._target.label, name, n_bytes)

    # --- what is there already ----------------------------------------------------------

    def _read_what_is_there(self, draft: Draft) -> None:
        """Adopt a file that the database does not know under its final name, if it is this one."""
        root_fd, name = self._target.root_fd, draft.job.name
        info = paths.stat(root_fd, draft.path)
        if info and st.S_ISDIR(info.st_mode):  # it may hold archived files: never moved
            raise NameConflict(shown(name), f"on {self._target.label} a directory has this name")
        there_sha512 = None
        if info and st.S_ISREG(info.st_mode):
            there_sha512 = self._adopted_or_other(draft)
            if there_sha512 == draft.sha512:
                return
        if line := manifest.find_lines(root_fd, [name]).get(name):
            self._must_not_be_archived(draft, line, there_sha512)
            manifest.drop_line(root_fd, name)  # first: never leave manifest lines without files
        aside = bag.set_aside(root_fd, draft.path, time.time())
        raise SetAside(
            shown(name), f"{self._target.label} held something else there, now in {shown(aside)}"
        )

    def _must_not_be_archived(
        self, draft: Draft, line: ManifestLine, there_sha512: str | None
    ) -> None:
        """Raises NameConflict if the manifest lists other content: it stays where it is.

        The database may be an older one, put back, that does not know what was archived since.
        """
        is_listed = line.sha512 == there_sha512 or draft.job.known_sha512 is None
        if is_listed and line.sha512 != draft.sha512:
            raise NameConflict(
                shown(draft.job.name),
                f"by its manifest, other content is archived on {self._target.label} under this "
                f"name (SHA-512 {line.sha512[:12]}…, this one is {(draft.sha512 or '')[:12]}…)",
            )

    def _adopted_or_other(self, draft: Draft) -> str:
        """Return the SHA-512 of what is there; if it is this very file, make it durable."""
        with paths.opened(self._target.root_fd, draft.path) as fd:
            os.fsync(fd)  # a crash may have come before the fsync
            read_back = self._read(draft, fd)
            if read_back.sha512 != draft.sha512:
                return read_back.sha512
            draft.fd = os.dup(fd)
        self._keep_mode_and_time(draft)
        draft.read_back = replace(read_back, stat=FileStat.of(os.fstat(draft.fd)))
        self.flush(draft)
        draft.dirty = set(_directories_to(draft.parent))
        return read_back.sha512

    # --- publishing -------------------------------------------------------------------------

    @contextlib.contextmanager
    def directory_of(self, beside: list[Draft]) -> Iterator[int]:
        """Open the directory in which these files get their final names."""
        root_fd, parent = self._target.root_fd, beside[0].parent
        dirty = {*paths.make_directories(root_fd, parent), parent}
        with paths.directory(root_fd, parent) as parent_fd:
            for draft in beside:
                draft.dirty = dirty
            yield parent_fd

    def link(self, draft: Draft, parent_fd: int) -> None:
        """Give a copy its final name. Unlike a rename, a link replaces nothing."""
        assert draft.temporary
        base = draft.path.rpartition("/")[2]
        os.link(draft.temporary, base, src_dir_fd=self._incoming_fd(), dst_dir_fd=parent_fd)

    def settle_directories(self, group: list[Draft]) -> None:
        """Make every directory entry durable that was added for these."""
        for path in sorted(set().union(*(draft.dirty for draft in group))):
            paths.fsync_directory(self._target.root_fd, path)

    def add_to_manifest(self, group: list[Draft]) -> None:
        """Add a manifest line for each; a file that was here before may have its line already."""
        root_fd = self._target.root_fd
        before = [d.job.name for d in group if d.temporary is None or d.job.known_sha512]
        existing = manifest.find_lines(root_fd, before, manifest.BadLines()) if before else {}
        for name, line in existing.items():
            draft = next(draft for draft in group if draft.job.name == name)
            if line.sha512 == draft.sha512:
                draft.line = line
                continue
            try:
                manifest.drop_line(root_fd, name)
            except ManifestDamaged as fault:  # of this file alone
                draft.fault = fault
        missing = [draft for draft in group if draft.line is None and draft.fault is None]
        entries = [(draft.sha512 or "", draft.job.name) for draft in missing]
        for draft, line in zip(missing, manifest.append(root_fd, entries), strict=True):
            draft.line = line

    def clear_away(self, draft: Draft) -> None:
        """Remove the temporary name; one that can't be removed now is swept later."""
        try:
            self._close(draft)
            if draft.temporary:
                os.unlink(draft.temporary, dir_fd=self._incoming_fd())
        except OSError as fault:
            log.warning("%s: .incoming/ can't be cleared now: %s", self._target.label, fault)

    def _close(self, draft: Draft) -> None:
        fd, draft.fd = draft.fd, None
        if fd is not None:
            os.close(fd)


@contextlib.contextmanager
def _space_was_promised() -> Iterator[None]:
    """ENOSPC after preallocation is an I/O error: the disk had promised the space."""
    try:
        yield
    except OSError as fault:
        if fault.errno != errno.ENOSPC:
            raise
        raise OSError(errno.EIO, f"{fault.strerror}, where it had given room before") from fault


def _directories_to(path: str) -> Iterator[str]:
    """Yield ``""``, ``data``, ``data/a``, ``data/a/b``: the root and every directory on the way."""
    yield ""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])
