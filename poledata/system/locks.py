"""One pass at a time, and a person's command between its batches: flock(2) beside the database.

The kernel releases a lock when its process ends, however it ends. The files:

- ``.lock`` is held for a whole pass; its modification time says when that last made progress.
- ``.turn`` is held by the process that works on disks now.
- ``.door`` is held by the process that waits for the turn. A pass that yields its turn between
  two batches can't take it again before a person's command that waits.
- One for each Task.
- ``.ended`` is never locked: its modification time says when a pass last came to its end.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from poledata.errors import LockTrouble, StillWaiting, UsageFault
from poledata.formatting import shown, utc

log = logging.getLogger(__name__)


_ENDED = "ended"
OUR_SCRIPTS = {"data_manager", "generate_db", "get_SMART_status"}


class Task(StrEnum):
    """What only one process does at a time, and the suffix of its lock."""

    SENDING = "post"  # of notices
    PAGE = "page"  # writing the status page and the metrics
    SMART_CHECK = "smart"


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A process that holds a lock of ours, and its arguments: none if the system hides them."""

    pid: int
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        return shown(" ".join(self.arguments))

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command or 'unknown'})"

    @property
    def is_expected(self) -> bool:
        """True if it is one of our scripts, or if the system does not show what it is."""
        names = {word.rpartition("/")[2].removesuffix(".py") for word in self.arguments}
        return not self.arguments or bool(names & OUR_SCRIPTS)


class PassLock:
    """The locks of a pass; ``is_ours`` is False if another pass holds them."""

    def __init__(self, db_path: Path, lock_fd: int, turn_fd: int, door_fd: int) -> None:
        self._db_path = db_path
        self._lock_fd, self._turn_fd, self._door_fd = lock_fd, turn_fd, door_fd
        self.is_ours = _try_lock(lock_fd)
        if self.is_ours:
            _acquire_turn(turn_fd, door_fd)
            self.note_progress()

    def note_progress(self) -> None:
        """Note that the pass that holds the lock makes progress."""
        try:
            os.utime(self._lock_fd)
        except OSError as fault:  # a later pass may report this one as stuck: no reason to end it
            log.warning("the lock's time can't be set: %s", fault)

    def note_end(self) -> None:
        """Note that this pass came to its end, with all of its checks: no commit is needed."""
        try:
            _path(self._db_path, _ENDED).touch(0o600)
        except OSError as fault:  # the pass did its work; status says that none has ended
            log.warning("the end of this pass can't be noted: %s", fault)

    def stranger(self) -> LockHolder | None:
        """Return the process that holds the lock, if it is none of ours."""
        holder = _holder(os.fstat(self._lock_fd))
        return None if holder is None or holder.is_expected else holder

    @property
    def last_progress_at_s(self) -> float:
        """When the pass that holds the lock last made progress."""
        return os.fstat(self._lock_fd).st_mtime

    def yield_turn(self) -> None:
        """Let a waiting command work now; return when it is our turn again."""
        _flock(self._turn_fd, fcntl.LOCK_UN)
        _acquire_turn(self._turn_fd, self._door_fd)


@contextmanager
def one_pass(db_path: Path) -> Iterator[PassLock]:
    """Take the locks of a pass; they are not ours, at once, if another pass holds them."""
    with ExitStack() as stack:
        suffixes = ("lock", "turn", "door")
        fds = [stack.enter_context(_opened(db_path, suffix)) for suffix in suffixes]
        yield PassLock(db_path, *fds)


@dataclass(frozen=True, slots=True)
class PassTimes:
    """What the files of the locks show to every user."""

    last_progress_at_s: float | None  # when a pass last began, or moved a byte; None: never
    last_end_at_s: float | None  # when one last came to its end, with all of its checks
    holder: LockHolder | None  # who holds the lock of passes now


def pass_times(db_path: Path) -> PassTimes:
    """Return when passes began and ended, and who holds their lock; nothing is opened."""
    lock = _stat(_path(db_path, "lock"))
    ended = _stat(_path(db_path, _ENDED))
    return PassTimes(
        lock.st_mtime if lock else None,
        ended.st_mtime if ended else None,
        _holder(lock) if lock else None,
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def between_batches(
    db_path: Path, tell: Callable[[str], None] | None = None, at_most_s: float | None = None
) -> Iterator[None]:
    """Take a person's turn: wait for the end of a running pass's batch; it then waits for us.

    ``tell`` is told for whom this waits. Raises StillWaiting after ``at_most_s`` (only in the main
    thread of a program, for it takes SIGALRM; None: without a limit).
    """
    with _opened(db_path, "turn") as turn_fd, _opened(db_path, "door") as door_fd:
        for fd in (door_fd, turn_fd):  # behind the door of one who waits, a pass waits too
            if not _try_lock(fd):
                who = _who_holds(fd)
                if tell:
                    tell(f"Waiting for {who}.")
                with _limited(at_most_s, StillWaiting(who)):
                    _flock(fd, fcntl.LOCK_EX)
        _flock(door_fd, fcntl.LOCK_UN)
        yield


@contextmanager
def _limited(at_most_s: float | None, fault: StillWaiting) -> Iterator[None]:
    """Raise the fault in what waits here for longer."""
    if at_most_s is None:
        yield
        return

    def give_up(*_: object) -> None:
        raise fault

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, at_most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _who_holds(fd: int) -> str:
    """Return the process that holds a lock, its command, and since when it runs."""
    holder = _holder(os.fstat(fd))
    if holder is None or not holder.arguments:
        return "another program"
    with suppress(OSError):  # it has just ended
        began_s = os.stat(f"/proc/{holder.pid}").st_mtime
        return f"process {holder.pid} ({holder.command}), which began {utc(began_s)}"
    return "another program"


@contextmanager
def only_one(db_path: Path, task: Task) -> Iterator[bool]:
    """True if this process does the task now; False, at once, if another process does."""
    with _opened(db_path, task) as fd:
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
        fd = _open(path)
    except OSError as fault:
        raise UsageFault(
            f"{path}: the lock can't be opened ({fault.strerror}). Nothing was changed. "
            "Run this with sudo, or as the user who owns that directory."
        ) from fault
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    """Only its owner can open a lock: who can open it can hold it, and so stop every pass."""
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)  # to read is enough for flock(2)
    if os.fstat(fd).st_mode & 0o077:  # as release 1.0.0 made it
        with suppress(PermissionError):  # by another user who may write here: see check
            os.fchmod(fd, 0o600)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        _flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(info: os.stat_result) -> LockHolder | None:
    """Return who holds this lock; None if nobody does."""
    for kind, pid, file in _held_locks():
        if kind == "FLOCK" and file == _key(info):
            holder_pid = pid
            is_hidden = os.path.exists(f"/proc/{pid}") and not os.access(f"/proc/{pid}/fd", os.R_OK)
            if not is_hidden and not _has_open(holder_pid, info):
                holder_pid = _pid_with(info)  # it has ended, and left the lock to a child
            return LockHolder(holder_pid, _arguments_of(holder_pid))
    return None


def record_lock_holders(path: Path) -> list[LockHolder]:
    """Return the other processes that hold record locks on a file, as SQLite takes them.

    Empty if the file can't be looked at.
    """
    try:
        info = path.stat()
    except OSError:  # who asks has just failed to use it, and says so
        return []
    pids = {pid for kind, pid, file in _held_locks() if kind != "FLOCK" and file == _key(info)}
    if -1 in pids:  # locks of an open file description: /proc/locks names no process
        pids = {*pids - {-1}, _pid_with(info)}
    return [LockHolder(pid, _arguments_of(pid)) for pid in sorted(pids - {0, os.getpid()})]


def _held_locks() -> Iterator[tuple[str, int, str]]:
    """Yield the kind, process and file of each lock, by proc_locks(5)."""
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, *_, pid, file, _, _ = line.split()
        if kind != "->":  # who waits for one holds none
            yield kind, int(pid), file


def _key(info: os.stat_result) -> str:
    return f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"


def _has_open(pid: int, info: os.stat_result) -> bool:
    """True if this process, of this user, has the file open."""
    with suppress(OSError):  # it has ended, or is another user's
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), info):
                    return True
    return False


def _pid_with(info: os.stat_result) -> int:
    """Return another process that has the file open: it inherited the lock; 0 if none is seen."""
    ours = str(os.getpid())
    pids = (name for name in os.listdir("/proc") if name.isdigit() and name != ours)
    return next((int(pid) for pid in pids if _has_open(int(pid), info)), 0)


def _arguments_of(pid: int) -> tuple[str, ...]:
    """Return a process's arguments; none if it has ended, or is in another PID namespace."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in words if word)


def _flock(fd: int, how: int) -> None:
    """Raises BlockingIOError, LockTrouble."""
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise
    except OSError as fault:
        path = os.readlink(f"/proc/self/fd/{fd}")
        raise LockTrouble(path, fault.strerror or str(fault)) from fault
