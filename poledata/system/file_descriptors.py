"""Raise the limit of open files as far as the system allows, and check that it is enough."""

from __future__ import annotations

import errno
import resource

from poledata.errors import TooFewDescriptors

WANTED = 2200  # a group of the removal: 1000 files and their directories, and other open files
LEAST = 64  # for the disks, the database with its journal, the log, lsblk
ERRNOS = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> int:
    """Raise the process's own limit as far as possible, up to ``WANTED``; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= WANTED:
        return WANTED
    limit = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def raise_if_exhausted(fault: BaseException) -> None:
    """Raise TooFewDescriptors if that is the fault, which is no fault of a disk."""
    if isinstance(fault, OSError) and fault.errno in ERRNOS:
        raise TooFewDescriptors(fault.strerror or str(fault)) from fault


def require_enough() -> None:
    """Raise TooFewDescriptors if a pass would run out of them, and then blame a disk or file."""
    limit = raise_limit()
    if limit < LEAST:
        raise TooFewDescriptors(f"this process may hold {limit} files open, but {LEAST} are needed")
