"""Contain a bug to the one thing that hit it: the work on everything else goes on.

Around each unit of work (a file, a disk, a drive, a channel, a check) is ``caught``, or
``Findings.isolated``, which opens the notice too. A script that hit a bug ends with exit code 3
(cli/app.py), once everything else is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from poledata.db.sqlite import is_unusable
from poledata.errors import PoleError

BUGS: list[str] = []  # what each bug of this process was about
log = logging.getLogger(__name__)


@contextmanager
def caught(about: str, passes: tuple[type[Exception], ...] = ()) -> Iterator[list[str]]:
    """Contain a bug; afterwards the list holds what to report about it.

    Expected faults pass (PoleError, a database that can't be used, and ``passes``): the caller
    handles them. Never put this between the evidence for a removal and the unlink.
    """
    bugs: list[str] = []
    try:
        yield bugs
    except Exception as bug:
        if isinstance(bug, (PoleError, *passes)) or is_unusable(bug):
            raise
        bugs.append(record(about, bug))


def record(about: str, bug: Exception) -> str:
    """Log a bug, let the script end with 3, and return what to report."""
    log.critical("%s: a bug of this program", about, exc_info=bug)
    BUGS.append(about)
    what = " ".join(f"{type(bug).__name__}: {bug}".split())
    return f"A bug of this program ({what}); the log has its traceback"
