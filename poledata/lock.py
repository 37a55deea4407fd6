"""One pass at a time, by flock(2) on a file beside the database."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poledata.errors import UsageFault


@contextmanager
def one_pass(db_path: Path) -> Iterator[bool]:
    """Hold the lock; yields False, at once, if another pass holds it.

    The kernel lets go of it when the process ends, however it ends.
    """
    # Read-only is enough for flock, so that a file made by root still serves the cron user.
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    path = db_path.with_name(db_path.name + ".lock")
    try:
        fd = os.open(path, flags, 0o644)
    except OSError as fault:
        raise UsageFault(
            f"{path}: the lock can't be had ({fault.strerror}). Nothing was touched. "
            "Run this as the user who owns that directory."
        ) from fault
    try:
        yield _try_lock(fd)
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
