"""Reach files below a held directory without ever following a link.

Every path of the buffer and of a disk is resolved from a directory descriptor that is
held open, so that neither a link on the way nor an unmounted disk can lead elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR as is_dir

from poledata.errors import NO_SUCH_ERRNOS

READ_AHEAD_BYTES = 4 * 1024**2
_RENAME_NOREPLACE = 1  # linux/fs.h

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def directory(root_fd: int, path: str) -> Iterator[int]:
    """Open the directory ``path`` ('' is the root itself) below ``root_fd``.

    Raises OSError: ENOENT, or ENOTDIR/ELOOP if a component is not a directory.
    """
    first, *rest = path.split("/")
    if path:
        _must_be_plain(first)
    fd = os.open(first or ".", DIRECTORY, dir_fd=root_fd)
    try:
        for part in rest:
            fd = _step(fd, part)
        yield fd
    finally:
        os.close(fd)


def _step(fd: int, part: str) -> int:
    """Open a directory below another one, and close the first.

    If this fails the first stays open: its caller closes it.
    """
    _must_be_plain(part)
    below = os.open(part, DIRECTORY, dir_fd=fd)
    os.close(fd)
    return below


def _must_be_plain(part: str) -> None:
    if part in ("", ".", ".."):
        raise OSError(errno.EINVAL, f"a path may not hold {part!r}")


def make_directories(root_fd: int, path: str) -> list[str]:
    """Make ``path`` below ``root_fd`` and all that leads to it.

    Returns the directories that got a new entry: each is to be fsynced.
    """
    changed: list[str] = []
    done = ""
    for part in path.split("/") if path else ():
        with directory(root_fd, done) as fd:
            try:
                os.mkdir(part, 0o755, dir_fd=fd)
            except FileExistsError:
                pass  # a file of this name makes the next step fail with ENOTDIR
            else:
                changed.append(done)
        done = f"{done}/{part}" if done else part
    with directory(root_fd, done):
        return changed


@contextmanager
def opened(root_fd: int, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open the existing file ``path`` below ``root_fd``; links are refused."""
    parent, _, base = path.rpartition("/")
    _must_be_plain(base)
    with directory(root_fd, parent) as parent_fd, opened_in(parent_fd, base, flags) as fd:
        yield fd


@contextmanager
def opened_in(parent_fd: int, base: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file in the directory ``parent_fd`` itself."""
    _must_be_plain(base)
    # O_NONBLOCK: a FIFO in a file's place must not make us wait for its writer.
    fd = os.open(base, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def stat(root_fd: int, path: str) -> os.stat_result | None:
    """Return lstat of ``path`` below ``root_fd``; None if there is nothing of that name."""
    parent, _, base = path.rpartition("/")
    _must_be_plain(base)
    try:
        with directory(root_fd, parent) as parent_fd:
            return os.stat(base, dir_fd=parent_fd, follow_symlinks=False)
    except OSError as fault:
        if fault.errno not in NO_SUCH_ERRNOS:
            raise
        return None


def obstacle_to(root_fd: int, path: str) -> str | None:
    """Return what blocks a file's ``path``: a directory there, or no directory on the way.

    A directory of another file system blocks it, too: nothing can be linked across. Raises
    OSError.
    """
    device = os.fstat(root_fd).st_dev
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        so_far = "/".join(parts[:count])
        info = stat(root_fd, so_far)
        if info is None:
            return None
        is_directory = is_dir(info.st_mode)
        if is_directory is (count == len(parts)) or (is_directory and info.st_dev != device):
            return so_far
    return None


def rename_new(parent_fd: int, base: str, new: str) -> None:
    """Give a file another name in its directory, replacing nothing (renameat2(2)).

    Raises OSError: EEXIST if something has that name, EINVAL if the file system can't do this.
    """
    import ctypes  # a pass with nothing to do renames nothing

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(base), os.fsencode(new)
    if libc.renameat2(parent_fd, names[0], parent_fd, names[1], _RENAME_NOREPLACE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read_ahead(root_fd: int, path: str) -> None:
    """Let the system fetch the beginning of a file that is read soon, without waiting for it."""
    with opened(root_fd, path) as fd:
        os.posix_fadvise(fd, 0, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


def fsync_directory(root_fd: int, path: str) -> None:
    """Make the entries of a directory durable. Only the first result counts."""
    with directory(root_fd, path) as fd:
        os.fsync(fd)


def fsync_path(path: Path) -> None:
    """Make a file or directory durable that is neither in the buffer nor on a disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
