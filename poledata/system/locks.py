"""One pass at a time, and a person's command between its batches: flock(2) beside the database.

Files: ``.lock`` is held for a whole pass, and its time tells when that last got on;
``.turn`` is held by whoever works on disks just now; ``.door`` by whoever waits for the turn, so
that a pass which lets go of its turn between two batches can't take it again before a person
who waits; ``.post`` by whoever sends notices; ``.page`` by whoever writes the status page;
``.smart`` by a check of the drives.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from poledata.errors import LockTrouble, UsageFault
from poledata.system.ownership import open_or_make

log = logging.getLogger(__name__)


class PassLock:
    """What a pass holds; whether it is ours, and how to let others in between batches."""

    def __init__(self, lock_fd: int, turn_fd: int, door_fd: int, is_ours: bool) -> None:
        self._lock_fd, self._turn_fd, self._door_fd = lock_fd, turn_fd, door_fd
        self.is_ours = is_ours
        if is_ours:
            self.got_on()

    def got_on(self) -> None:
        """The pass that holds the lock has made progress."""
        try:
            os.utime(self._lock_fd)
        except OSError as fault:  # a later pass may call this one stuck: no reason to end it
            log.warning("the lock's time can't be set: %s", fault)

    @property
    def got_on_at_s(self) -> float:
        """When the pass that holds the lock last made progress."""
        return os.fstat(self._lock_fd).st_mtime

    def give_way(self) -> None:
        """Let a waiting command work now; returns when it is our turn again."""
        _flock(self._turn_fd, fcntl.LOCK_UN)
        _acquire_turn(self._turn_fd, self._door_fd)


@contextmanager
def one_pass(db_path: Path) -> Iterator[PassLock]:
    """The lock of a pass; not ours, at once, if another pass holds it.

    The kernel lets go of it when the process ends, however it ends.
    """
    with ExitStack() as stack:
        lock_fd, turn_fd, door_fd = (
            stack.enter_context(_opened(db_path, suffix)) for suffix in ("lock", "turn", "door")
        )
        is_ours = _try_lock(lock_fd)
        if is_ours:
            _acquire_turn(turn_fd, door_fd)
        yield PassLock(lock_fd, turn_fd, door_fd, is_ours)


def last_begun_at_s(db_path: Path) -> float | None:
    """When a pass last began, or got on; None if none ever did."""
    try:
        return _path(db_path, "lock").stat().st_mtime
    except FileNotFoundError:
        return None


@contextmanager
def between_batches(db_path: Path) -> Iterator[None]:
    """A person's turn: waits for the end of a running pass's batch, which then waits for us."""
    with _opened(db_path, "turn") as turn_fd, _opened(db_path, "door") as door_fd:
        _acquire_turn(turn_fd, door_fd)
        yield


@contextmanager
def one_sender(db_path: Path) -> Iterator[bool]:
    """Whether we are the one who sends notices now; False, at once, if another does."""
    with _opened(db_path, "post") as post_fd:
        yield _try_lock(post_fd)


@contextmanager
def the_page(db_path: Path) -> Iterator[bool]:
    """Whether we write the status page and the metrics now; False, at once, if another does."""
    with _opened(db_path, "page") as page_fd:
        yield _try_lock(page_fd)


@contextmanager
def one_smart_check(db_path: Path) -> Iterator[bool]:
    """Whether this check of the drives is the only one: a second one ends at once."""
    with _opened(db_path, "smart") as fd:
        yield _try_lock(fd)


def _acquire_turn(turn_fd: int, door_fd: int) -> None:
    _flock(door_fd, fcntl.LOCK_EX)
    _flock(turn_fd, fcntl.LOCK_EX)
    _flock(door_fd, fcntl.LOCK_UN)


def _path(db_path: Path, suffix: str) -> Path:
    return db_path.with_name(f"{db_path.name}.{suffix}")


@contextmanager
def _opened(db_path: Path, suffix: str) -> Iterator[int]:
    path = _path(db_path, suffix)
    try:
        fd = open_or_make(path, os.O_RDONLY)  # enough for flock
    except OSError as fault:
        raise UsageFault(
            f"{path}: the lock can't be had ({fault.strerror}). Nothing was touched. "
            "Run this as the user who owns that directory."
        ) from fault
    try:
        yield fd
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        _flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(fd: int, how: int) -> None:
    """Raises BlockingIOError, LockTrouble."""
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise
    except OSError as fault:
        raise LockTrouble(
            os.readlink(f"/proc/self/fd/{fd}"), fault.strerror or str(fault)
        ) from fault
