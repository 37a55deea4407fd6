"""Read the database of another user, without any way to change a file of that user or of anybody.

SQLite repairs what it reads: it rolls back a journal that a crash left, and deletes the files that
this journal names. A user who reads what belongs to another one must not do that: the owner of the
directory could have put the journal there. So SQLite gets the file as one that never changes
(``immutable``), which it only reads, and the locks that it then does not take are held here
(sqlite.org/lockingv3.html): no writer commits meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from poledata.db import sqlite
from poledata.db.sqlite import Connection
from poledata.errors import DatabaseTrouble
from poledata.formatting import shown

# Bytes that SQLite locks (os.h): a lock on the first keeps new readers out, ...
_PENDING, _RESERVED, _SHARED, _SHARED_BYTES = 0x40000000, 0x40000001, 0x40000002, 510
_ASK_EVERY_S = 0.05
_COPY_BYTES = 16 * 1024**2
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, process


@contextmanager
def opened_by_another_user(path: Path, copy_to: Path | None = None) -> Iterator[Connection]:
    """Open a database to read it only, as its last commit left it. Raises DatabaseTrouble.

    Its owner can't commit meanwhile. For what takes long (files are copied, a person reads what is
    printed) a copy in the directory ``copy_to`` is read, which keeps nobody waiting.
    """
    with _locked(Path(os.path.realpath(path))) as (fd, file):
        if copy_to is None:
            with closing(sqlite.open_at(file, "ro", is_immutable=True)) as conn:
                _must_have_opened(conn, file, fd)
                yield conn
            return
        copy = copy_to / path.name
        try:
            with copy.open("wb") as target:
                _copy(fd, target.fileno())
        except OSError as fault:
            why = f"no temporary copy of it can be made ({fault.strerror})"
            raise DatabaseTrouble(path, why) from fault
    with closing(sqlite.open_at(copy, "ro", is_immutable=True)) as conn:
        yield conn


@contextmanager
def _locked(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield a descriptor of the database, with the lock of a reader."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise DatabaseTrouble(path, f"the database can't be opened ({fault.strerror})") from fault
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DatabaseTrouble(path, "the database is not a regular file")
        try:
            _lock_shared(fd, path)
        except OSError as fault:  # a file system without locks
            raise DatabaseTrouble(path, f"it can't be locked ({fault.strerror})") from fault
        _must_be_consistent(fd, path)
        yield fd, path
    finally:
        os.close(fd)  # and with it the lock


def _must_have_opened(conn: Connection, path: Path, fd: int) -> None:
    """Raise DatabaseTrouble if SQLite, which takes paths only, did not open the file of ``fd``."""
    conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # it opens the file only now
    if not os.path.samestat(os.stat(path), os.fstat(fd)):
        raise DatabaseTrouble(path, "the database was replaced just now. Try again")


def _copy(from_fd: int, to_fd: int) -> None:
    at = 0
    while n_bytes := os.sendfile(to_fd, from_fd, at, _COPY_BYTES):
        at += n_bytes


def _lock_shared(fd: int, path: Path) -> None:
    """Take the lock of a reader as SQLite does, and wait for a writer as long as SQLite would."""
    until_s = time.monotonic() + sqlite.BUSY_TIMEOUT_S
    while not (_lock(fd, fcntl.F_RDLCK, _PENDING, 1) and _lock_all_shared(fd)):
        _lock(fd, fcntl.F_UNLCK, _PENDING, 1)
        if time.monotonic() > until_s:
            why = f"another program has kept the database locked for {sqlite.BUSY_TIMEOUT_S:.0f} s"
            raise DatabaseTrouble(path, why)
        time.sleep(_ASK_EVERY_S)
    _lock(fd, fcntl.F_UNLCK, _PENDING, 1)


def _lock_all_shared(fd: int) -> bool:
    return _lock(fd, fcntl.F_RDLCK, _SHARED, _SHARED_BYTES)


def _lock(fd: int, kind: int, start: int, n_bytes: int) -> bool:
    """Change a lock of this descriptor (not of the process, fcntl(2)); False if it is taken."""
    wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, start, n_bytes, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by the file system
        return False
    return True


def _must_be_consistent(fd: int, path: Path) -> None:
    """Raise DatabaseTrouble if the last commits are not in the file alone.

    The lock is ours, so no commit is in progress: a journal is of a crash, or of a writer that has
    not begun to change the file.
    """
    must_not_be_wal(os.pread(fd, 20, 0), path)
    if _has_journal(path) and not _is_reserved(fd):
        raise DatabaseTrouble(
            path,
            "a program was stopped while it wrote to the database, and only the user who owns it "
            "may repair that. The next pass does: try again then, or run this with sudo",
        )


def must_not_be_wal(first_bytes: bytes, path: Path) -> None:
    """Raise DatabaseTrouble if it is: a user who may not write there can't read it."""
    if first_bytes[18:20] == b"\2\2":  # fileformat2.html, 1.3
        raise DatabaseTrouble(
            path,
            "another program switched the database to WAL mode, in which this user can't read it. "
            "Close that program; the next pass switches it back: try again then",
        )


def _has_journal(path: Path) -> bool:
    """True if there is a journal that would be rolled back; one that begins with zero is over."""
    journal = f"{path}-journal"
    try:
        fd = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # a link, or not readable: not one that is known to be over
        return True
    try:
        return not stat.S_ISREG(os.fstat(fd).st_mode) or os.read(fd, 1) not in (b"", b"\0")
    except OSError as fault:
        why = f"{shown(journal)} can't be read ({fault.strerror})"
        raise DatabaseTrouble(path, why) from fault
    finally:
        os.close(fd)


def _is_reserved(fd: int) -> bool:
    """True if a program is preparing a commit: the journal is its own."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _RESERVED, 1, 0)
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
