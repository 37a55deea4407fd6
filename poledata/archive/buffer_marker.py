"""The buffer's marker: a small file with a random ID that proves that this is the buffer.

The first pass puts it there; later only a person does (adopt-buffer). Without it an empty mount
point would look like a buffer from which every file has left. Its modification time also shows how
finely the buffer's file system keeps times.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poledata import db
from poledata.archive.buffer import MARKER, Presence, is_present
from poledata.archive.selection import Selection
from poledata.config import Config
from poledata.errors import FULL_ERRNOS, Refused
from poledata.formatting import shown, unshown, utc_now
from poledata.models import Role
from poledata.system import mounts, paths

# Why no marker can be made here; the buffer itself may be fine.
NO_MARKER_ERRNOS = FULL_ERRNOS | {errno.EACCES, errno.EPERM, errno.EROFS}
_TEXT = (
    "The Pole Data Manager made this file. It shows that the buffer is mounted.\n"
    "Do not remove, change or copy it. See buffer-wrong in docs/operators.md.\n"
    "ID: {}\n"
)
_ID = re.compile(rb"^ID: ([0-9a-f]{32})\n\Z", re.MULTILINE)  # at the end: so the file is complete
_LONGEST_BYTES = 4096

# An odd second with every digit of its nanoseconds in use: what comes back is what is kept.
_PROBE_NS = 1_000_000_001_987_654_321
_COARSEST_FIRST_NS = (2 * 10**9, 10**9, 10**8)
_KERNEL_TICK_S = 0.01  # the clock behind nanoseconds still ticks at 100 Hz
LEAST_SETTLE_S = 1.0
UNKNOWN_GRANULARITY_S = 2.0  # FAT: no file system that Linux writes is coarser


log = logging.getLogger(__name__)


class NoMarker(OSError):
    """The file of this name is no marker. ``is_torn``: a crash or a full disk cut it short."""

    def __init__(self, why: str, is_torn: bool = False) -> None:
        super().__init__(errno.EINVAL, why)
        self.is_torn = is_torn


def read(root_fd: int) -> str | None:
    """Return the ID of the buffer's marker; None if there is no marker.

    Raises NoMarker, and OSError where the file system does not answer.
    """
    try:
        info = os.stat(MARKER, dir_fd=root_fd, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LONGEST_BYTES or info.st_nlink != 1:
            raise NoMarker(f"{MARKER} is not the file that a pass made")
        with paths.opened(root_fd, MARKER) as fd:
            found = _ID.search(os.read(fd, _LONGEST_BYTES))
    except FileNotFoundError:
        return None
    if found is None:
        raise NoMarker(f"{MARKER} is empty or damaged", is_torn=True)
    return found[1].decode()


def write(root_fd: int) -> str:
    """Put a new marker there, durably, also over one that is torn. Returns its ID.

    Raises OSError; then there is no marker, or one that is torn.
    """
    marker_id = os.urandom(16).hex()
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    is_torn = _is_torn(root_fd)
    fd = os.open(MARKER, flags | (0 if is_torn else os.O_EXCL), 0o644, dir_fd=root_fd)
    try:
        os.ftruncate(fd, 0)
        text = _TEXT.format(marker_id).encode()
        if os.write(fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        set_probe_time(fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.fsync(root_fd)
    return marker_id


def _is_torn(root_fd: int) -> bool:
    """True for a torn marker. Raises NoMarker if the file there must not be overwritten."""
    try:
        if read(root_fd) is not None:
            raise NoMarker(f"{MARKER} was made by another program meanwhile")
    except NoMarker as fault:
        if not fault.is_torn:
            raise
        return True
    return False


def set_probe_time(fd: int) -> None:
    """Give the open marker the time that ``granularity_s`` reads. Raises OSError."""
    os.utime(fd, ns=(_PROBE_NS, _PROBE_NS))


def granularity_s(root_fd: int) -> float:
    """Return how coarse the times are that the buffer's file system keeps.

    Nothing is written: the marker got its time when it was made. Without a marker, or with
    another time on it, ``UNKNOWN_GRANULARITY_S``.
    """
    try:
        with paths.opened(root_fd, MARKER) as fd:
            kept_ns = os.fstat(fd).st_mtime_ns
    except OSError:
        return UNKNOWN_GRANULARITY_S  # no marker (yet), or one that can't be looked at
    if abs(kept_ns - _PROBE_NS) > _COARSEST_FIRST_NS[0]:
        return UNKNOWN_GRANULARITY_S
    kept_to_ns = next((ns for ns in _COARSEST_FIRST_NS if kept_ns % ns == 0), 0)
    return max(kept_to_ns / 1e9, _KERNEL_TICK_S)


def settle_s(configured_s: float, root_fd: int) -> float:
    """Return how long a file must not have changed: at least 1 s, and more than one step of the
    times that the buffer's file system keeps, because a change within a step does not show."""
    return max(configured_s, LEAST_SETTLE_S, 1.1 * granularity_s(root_fd))


# --- is it the right buffer? ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BufferProof:
    """Whether this is the buffer. ``wrong``: why nothing may be done with it.

    ``unmarked``: why it has no marker, though nothing speaks against it; ``is_full``: only
    because there is no room for one.
    """

    wrong: str | None = None
    unmarked: str | None = None
    is_full: bool = False


def prove(config: Config, conn: db.Connection, root_fd: int, may_adopt: bool) -> BufferProof:
    """Look at the marker. ``may_adopt``: the first pass puts one there, or takes over what is.

    Nothing is written otherwise.
    """
    adopted = db.passes.adopted_buffer(conn)
    expected = adopted.marker if adopted else None
    try:
        found = read(root_fd)
    except OSError as fault:
        if expected or not (isinstance(fault, NoMarker) and fault.is_torn):
            return BufferProof(
                _wrong(config, root_fd, f"its marker can't be read: {fault.strerror}")
            )
        found = None
    if expected:
        return BufferProof(
            None if found == expected else _wrong(config, root_fd, _difference(found))
        )
    if found:
        if may_adopt:
            _note(conn, found, "it had its marker when this database first saw it")
        return BufferProof()
    if adopted is None and (why := _what_is_missing(config, conn, root_fd)):
        return BufferProof(_wrong(config, root_fd, why))
    return _mark(config, conn, root_fd) if may_adopt else _would_mark(root_fd)


def _difference(found: str | None) -> str:
    if found is None:
        return f"its marker ({MARKER}) is not there"
    return f"its marker ({MARKER}) is another buffer's"


def _wrong(config: Config, root_fd: int, why: str) -> str:
    mount = mounts.mount_of(root_fd)
    where = f" (on the file system mounted at {shown(mount.mount_point)})" if mount else ""
    return (
        f"{shown(str(config.buffer))} is not the buffer that this archive knows{where}: {why}. "
        "Nothing was archived, removed or forgotten. Mount the buffer. If it was moved or "
        f"replaced on purpose: {command(config)}"
    )


def without_marker(config: Config, why: str) -> str:
    """Return the notice about a buffer that could not be given its marker."""
    place = shown(str(config.buffer))
    return (
        f"{place} has no marker ({MARKER}): {why}. Files are archived, but nobody can tell whether "
        f"the buffer is mounted. Let this user write to {place}, if only until the next pass."
    )


def command(config: Config) -> str:
    """Return the command that adopts the buffer, as a person runs it."""
    path = shlex.quote(shown(str(config.path)))
    return f'data_manager.py --config {path} adopt-buffer --why "…"'


def _what_is_missing(config: Config, conn: db.Connection, root_fd: int) -> str | None:
    """Before there was any marker: None if a file that should be here is, or none should be."""
    names = list(_names_that_should_be_here(config, conn))
    if not names or any(_is_seen(root_fd, name) for name in names):
        return None
    what = "1 file that waits" if len(names) == 1 else f"{len(names)} files that wait"
    return f"the database knows {what} there, and none is there"


def _names_that_should_be_here(config: Config, conn: db.Connection) -> Iterator[str]:
    yield from (unshown(name) for name in db.passes.pending(conn) if not name.endswith("/"))
    if db.passes.last_pass(conn) is None:
        return  # what this database knows was read from disks: no pass saw it in a buffer
    yield from (name for _, name in db.files.unarchived(conn))
    if config.delete_from_buffer:
        yield from db.files.archived_but_not_removed(conn)


def _is_seen(root_fd: int, name: str) -> bool:
    try:
        return is_present(root_fd, name)
    except OSError:
        return False  # not seen, whether it is there or not


def _mark(config: Config, conn: db.Connection, root_fd: int) -> BufferProof:
    try:
        marker = write(root_fd)
    except OSError as fault:
        if fault.errno in NO_MARKER_ERRNOS:
            log.info("the buffer gets no marker now: %s", fault.strerror)
            return BufferProof(unmarked=fault.strerror, is_full=fault.errno in FULL_ERRNOS)
        why = f"no marker can be made there: {fault.strerror}"
        return BufferProof(_wrong(config, root_fd, why))
    _note(conn, marker, "a pass gave it its first marker")
    return BufferProof()


def _would_mark(root_fd: int) -> BufferProof:
    if mounts.space(root_fd).read_only:
        return BufferProof(unmarked="Read-only file system")
    may_write = os.access(".", os.W_OK | os.X_OK, dir_fd=root_fd)
    return BufferProof(unmarked=None if may_write else "Permission denied")


def _note(conn: db.Connection, marker: str | None, why: str) -> None:
    with db.transaction(conn):
        db.passes.adopt_buffer(conn, marker, utc_now(), why)
    log.info("the buffer's marker is %s: %s", marker or "missing", why)


# --- what others ask ------------------------------------------------------------------------


@contextmanager
def presence(config: Config, conn: db.Connection) -> Iterator[Presence]:
    """For a command: what has left the buffer. From a wrong buffer, nothing has left."""
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        log.debug("%s can't be opened: %s", shown(str(config.buffer)), fault)
        yield Presence(None)
        return
    try:
        is_wrong = prove(config, conn, fd, may_adopt=False).wrong
        yield Presence(None) if is_wrong else Presence.of(fd)
    finally:
        os.close(fd)


def in_the_buffer(config: Config, conn: db.Connection) -> frozenset[int]:
    """Return the ids of files that are known, not archived, and may still be in the buffer."""
    selection = Selection.of(config)  # a file that no pass takes from there any more is repaired
    names = [(n, name) for n, name in db.files.unarchived(conn) if selection.selects(name)]
    if not names:
        return frozenset()
    with presence(config, conn) as buffer:
        return frozenset(n for n, name in names if not buffer.has_left(name))


def count_lacking(config: Config, conn: db.Connection) -> int:
    """Return how many copies must be made again, of files that are no longer in the buffer."""
    waiting = in_the_buffer(config, conn)
    return sum(len(set(db.copies.ids_lacking(conn, role)) - waiting) for role in Role)


def adopt(config: Config, conn: db.Connection, why: str) -> str:
    """Adopt what is at BufferLocation as the buffer. Returns what was done. Raises Refused.

    A marker that is there is taken over, so that a buffer which was moved keeps its own.
    """
    place = shown(str(config.buffer))
    fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        marker = _read_or_write(fd)
    except OSError as fault:
        if fault.errno not in NO_MARKER_ERRNOS:
            raise Refused(
                f"{place} can't be given a marker: {fault.strerror}. Nothing was changed. "
                f"If something else has the name {MARKER}, move it away first."
            ) from fault
        _note(conn, None, why)
        return (
            f"{place} is the buffer from now on, without a marker ({fault.strerror}). The next "
            "pass that can gives it one; until then nobody can tell whether it is mounted."
        )
    finally:
        os.close(fd)
    _note(conn, marker, why)
    return f"{place} is the buffer from now on; its marker is {MARKER} with the ID {marker}."


def _read_or_write(root_fd: int) -> str:
    """Raises OSError."""
    try:
        found = read(root_fd)
    except NoMarker as fault:
        if not fault.is_torn:
            raise
        found = None
    return found or write(root_fd)
