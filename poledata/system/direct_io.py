"""Aligned buffers, and reading what is really on a disk rather than in memory.

O_DIRECT bypasses the page cache. Whether a file system really does so is proved: after a direct
read of a file that was not in memory, it must still not be there. If that fails, the file's
pages are evicted first and their absence is proved by mincore(2). None of this excludes the
drive's own cache.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import itertools
import mmap
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from poledata.models import FileStat, ReadBack, VerifiedBy

BLOCK_BYTES = 4096
CHUNK_BYTES = 4 * 1024 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


def aligned_buffer(size_bytes: int = CHUNK_BYTES) -> memoryview:
    """Return page-aligned memory, as O_DIRECT needs it."""
    return memoryview(mmap.mmap(-1, size_bytes))


class Pool:
    """A bounded set of aligned buffers: the reader waits here for the slower disk."""

    def __init__(self, buffers: int) -> None:
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(buffers):
            self._free.put(aligned_buffer())

    def take(self) -> memoryview:
        return self._free.get()

    def give_back(self, buffer: memoryview) -> None:
        self._free.put(buffer)


class Chunk:
    """A part of a file in one of the pool's buffers, given back when all users are done with it."""

    def __init__(self, pool: Pool, buffer: memoryview, n_bytes: int, at: int, users: int) -> None:
        self.view, self.at = buffer[:n_bytes], at
        self._pool, self._buffer, self._users = pool, buffer, users
        self._lock = threading.Lock()

    def let_go(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._pool.give_back(self._buffer)


def set_direct(fd: int, on: bool) -> bool:
    """Switch O_DIRECT on or off; False if the file system refuses it."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | (os.O_DIRECT if on else 0))
    except OSError:
        return False  # tmpfs of older kernels, some FUSE: the caller reads in another way
    return True


def evict(fd: int) -> bool:
    """Drop a file's clean pages from memory; True if none is left there."""
    _drop_pages(fd)
    return resident_pages(fd) == 0


def _drop_pages(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def resident_pages(fd: int) -> int:
    """Return how many of a file's pages are in memory, by mincore(2).

    For a file that is neither ours nor writable by us the kernel says "all of them".
    """
    size_bytes = os.fstat(fd).st_size
    return sum(
        _resident_in(fd, start, min(_WINDOW_BYTES, size_bytes - start))
        for start in range(0, size_bytes, _WINDOW_BYTES)
    )


_WINDOW_BYTES = 1 << 30


def _must_succeed(status: int) -> None:
    """Raise OSError if a call of the C library has failed."""
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _resident_in(fd: int, start: int, length: int) -> int:
    # The private writable mapping only gives an address: nothing is read or written through it.
    with mmap.mmap(
        fd, length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=start
    ) as mapped:
        vector = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        first_byte = ctypes.c_char.from_buffer(mapped)
        failed = _libc.mincore(
            ctypes.c_void_p(ctypes.addressof(first_byte)), ctypes.c_size_t(length), vector
        )
        del first_byte  # the mapping can't be closed while this refers to it
    _must_succeed(failed)
    return sum(page & 1 for page in vector.raw)


def is_truly_direct(fd: int) -> bool:
    """True if a direct read of this file (of at least one byte) bypasses memory; it is tried."""
    if not evict(fd) or not set_direct(fd, True):
        return False
    try:
        os.preadv(fd, [aligned_buffer(BLOCK_BYTES)], 0)
    finally:
        set_direct(fd, False)
    return resident_pages(fd) == 0


class ShortRead(OSError):
    """A file ended before its size: never taken for its end."""

    def __init__(self, at_bytes: int, size_bytes: int) -> None:
        super().__init__(errno.EIO, f"it ends at byte {at_bytes} of {size_bytes}")


def fill(fd: int, view: memoryview, at: int, size_bytes: int) -> int:
    """Read a file of ``size_bytes`` from ``at`` on, until ``view`` is full or the file ends.

    Return how many bytes of the view are the file's. Raises OSError, ShortRead.
    """
    wanted = min(len(view), size_bytes - at)
    room = -(-wanted // BLOCK_BYTES) * BLOCK_BYTES  # direct reads ask for whole blocks
    got = 0
    while got < wanted:
        n_bytes = os.preadv(fd, [view[got:room]], at + got)
        if n_bytes == 0:
            raise ShortRead(at + got, size_bytes)
        got += n_bytes
    return wanted


def preallocate(fd: int, size_bytes: int) -> None:
    """Allocate a file's whole space at once: a full disk is found before the first byte."""
    if size_bytes:
        os.posix_fallocate(fd, 0, size_bytes)


def write_at(fd: int, view: memoryview, at: int) -> None:
    """Write all of ``view`` at an offset; a write of 0 bytes is a failure."""
    while view:
        n_bytes = os.pwrite(fd, view, at)
        if n_bytes == 0:
            raise OSError(errno.EIO, "nothing more is written")
        view, at = view[n_bytes:], at + n_bytes


# --- writing out -------------------------------------------------------------------------

_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_SYNCFS_TELLS_FAULTS_SINCE = (5, 8)


def start_writing_out(fd: int) -> None:
    """Start writing a file's data to the disk; this waits for nothing and proves nothing."""
    start, rest = ctypes.c_int64(0), ctypes.c_int64(0)
    _must_succeed(_libc.sync_file_range(fd, start, rest, _SYNC_FILE_RANGE_WRITE))


def syncfs(fd: int) -> None:
    """Make everything durable that was written to a file system. Only the first result counts.

    Raises OSError also if a write to any of its files failed since ``fd`` was opened (see
    syncfs(2)), if syncfs_tells_faults().
    """
    _must_succeed(_libc.syncfs(fd))


def syncfs_tells_faults() -> bool:
    """True if this kernel's syncfs(2) reports that a file could not be written."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= _SYNCFS_TELLS_FAULTS_SINCE


# --- reading back ------------------------------------------------------------------------


class HashingReader:
    """Reads a file into two aligned buffers in turn; a second thread hashes the other one.

    A file of one buffer is hashed in the reading thread, which is faster.
    """

    def __init__(self) -> None:
        self._buffers = (aligned_buffer(), aligned_buffer())
        self._pool = ThreadPoolExecutor(1, "hash")

    def sha512(self, fd: int, size_bytes: int, tick: Callable[[int], None]) -> str:
        """Return the SHA-512 of the file's first ``size_bytes`` bytes, lower-case hexadecimal.

        ``tick(n_bytes)`` is called after each read and may raise to stop it.
        Raises OSError, ShortRead.
        """
        digest = hashlib.sha512()
        if 0 < size_bytes <= CHUNK_BYTES:
            n_bytes = fill(fd, self._buffers[0], 0, size_bytes)
            tick(n_bytes)
            digest.update(self._buffers[0][:n_bytes])
            return digest.hexdigest()
        hashed: Future[None] | None = None
        chunks = zip(range(0, size_bytes, CHUNK_BYTES), itertools.cycle(self._buffers))
        try:
            for at, view in chunks:
                n_bytes = fill(fd, view, at, size_bytes)
                tick(n_bytes)
                if hashed:
                    hashed.result()
                hashed = self._pool.submit(digest.update, view[:n_bytes])
        finally:
            if hashed:
                wait([hashed])  # the buffers are free again in any case
        return digest.hexdigest()

    def close(self) -> None:
        self._pool.shutdown()


def read_back(
    fd: int, direct: bool, reader: HashingReader, tick: Callable[[int], None]
) -> tuple[str, VerifiedBy]:
    """Return the SHA-512 of a whole file from the medium, and how it was read.

    ``direct``: this file system's direct reads are proved (see is_truly_direct).
    """
    size_bytes = os.fstat(fd).st_size
    if direct and set_direct(fd, True):
        _drop_pages(fd)
        return reader.sha512(fd, size_bytes, tick), VerifiedBy.DIRECT
    gone = evict(fd)
    return reader.sha512(fd, size_bytes, tick), VerifiedBy.EVICTED if gone else VerifiedBy.CACHED


def read_copy(
    fd: int, direct: bool, reader: HashingReader, tick: Callable[[int], None]
) -> ReadBack:
    """Read a copy as it is on the medium, with its stat and the time of reading. See read_back."""
    stat, at_s = FileStat.of(os.fstat(fd)), boottime_s()
    return ReadBack(*read_back(fd, direct, reader, tick), stat, at_s)


def boottime_s() -> float:
    """Return the seconds since the machine was started; setting its clock does not matter."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
