"""The buffer's marker: a small file with a random ID that the first pass put there.

Without it an empty mount point would pass for a buffer from which every file has left. Its
modification time also tells how finely the buffer's file system keeps times.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from poledata import beneath
from poledata.errors import FULL_ERRNOS

NAME = ".poledata-buffer"
# Why no marker can be made here, which says nothing against the buffer itself.
NO_MARKER_ERRNOS = FULL_ERRNOS | {errno.EACCES, errno.EPERM, errno.EROFS}
_TEXT = (
    "The Pole Data Manager made this file. It shows that the buffer is mounted.\n"
    "Do not remove, change or copy it. See buffer-wrong in docs/operators.md.\n"
    "ID: {}\n"
)
_ID = re.compile(rb"^ID: ([0-9a-f]{32})\n\Z", re.MULTILINE)  # at the end: so all of it is there
_LONGEST_BYTES = 4096

# An odd second with every digit of its nanoseconds in use: what is left of it is what is kept.
_PROBE_NS = 1_000_000_001_987_654_321
_COARSEST_FIRST_NS = (2 * 10**9, 10**9, 10**8)
_KERNEL_TICK_S = 0.01  # where nanoseconds are kept, the clock behind them still ticks at 100 Hz
UNKNOWN_GRANULARITY_S = 2.0  # FAT's: no other file system that Linux writes is coarser


class NoMarker(OSError):
    """What has the marker's name is not one. ``is_torn``: a crash or a full disk cut it short."""

    def __init__(self, why: str, is_torn: bool = False) -> None:
        super().__init__(errno.EINVAL, why)
        self.is_torn = is_torn


def read(root_fd: int) -> str | None:
    """Return the ID of the buffer's marker; None if there is no marker.

    Raises NoMarker, and OSError where the file system does not answer.
    """
    try:
        info = os.stat(NAME, dir_fd=root_fd, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LONGEST_BYTES or info.st_nlink != 1:
            raise NoMarker(f"{NAME} is not the file that a pass made")
        with beneath.opened(root_fd, NAME) as fd:
            found = _ID.search(os.read(fd, _LONGEST_BYTES))
    except FileNotFoundError:
        return None
    if found is None:
        raise NoMarker(f"{NAME} is empty or damaged", is_torn=True)
    return found[1].decode()


def write(root_fd: int) -> str:
    """Put a new marker there, durably, also over one that is torn. Returns its ID.

    Raises OSError; then there is no marker, or one that is torn.
    """
    marker_id = os.urandom(16).hex()
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    is_torn = _is_torn(root_fd)
    fd = os.open(NAME, flags | (0 if is_torn else os.O_EXCL), 0o644, dir_fd=root_fd)
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
    """Raises NoMarker where something stands there that must not be overwritten."""
    try:
        if read(root_fd) is not None:
            raise NoMarker(f"{NAME} was made by another program meanwhile")
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
        with beneath.opened(root_fd, NAME) as fd:
            kept_ns = os.fstat(fd).st_mtime_ns
    except OSError:
        return UNKNOWN_GRANULARITY_S  # no marker (yet), or one that can't be looked at
    if abs(kept_ns - _PROBE_NS) > _COARSEST_FIRST_NS[0]:
        return UNKNOWN_GRANULARITY_S
    kept_to_ns = next((ns for ns in _COARSEST_FIRST_NS if kept_ns % ns == 0), 0)
    return max(kept_to_ns / 1e9, _KERNEL_TICK_S)
