"""How many files this process may hold open: as many as the system lets it."""

from __future__ import annotations

import errno
import resource

from poledata.errors import TooFewDescriptors

WANTED = 2200  # a group of the removal: 1000 files and their directories, and what else is open
LEAST = 64  # for the disks, the database with its journal, the log, lsblk
ERRNOS = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> int:
    """Raise the process's own limit as far as it goes, up to ``WANTED``; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= WANTED:
        return WANTED
    limit = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def must_not_lack(fault: BaseException) -> None:
    """Raises TooFewDescriptors if that is what the fault says: no disk is blamed for it."""
    if isinstance(fault, OSError) and fault.errno in ERRNOS:
        raise TooFewDescriptors(fault.strerror or str(fault)) from fault


def must_suffice() -> None:
    """Raises TooFewDescriptors where a pass would run out of them, and blame what it looks at."""
    limit = raise_limit()
    if limit < LEAST:
        raise TooFewDescriptors(f"this process may hold {limit} files open, but {LEAST} are needed")
