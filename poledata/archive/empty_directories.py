"""Remove directories of the buffer that have been empty for long (``RemoveEmptyDirectories``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator

from poledata.archive.buffer import is_settled
from poledata.archive.selection import Selection, is_hidden
from poledata.formatting import shown
from poledata.system import paths

log = logging.getLogger(__name__)


def removable(empty: Iterable[str], selection: Selection) -> Iterator[str]:
    """Yield those of these empty directories that may go: no root of a tree, no hidden one."""
    for path in empty:
        if path not in ("", "lost+found") and not (is_hidden(path) or selection.is_root(path)):
            yield path


def remove(
    root_fd: int, directories: Iterable[str], empty_for_s: float, now_s: float, is_dry: bool
) -> None:
    """Remove those of these directories in which nothing has changed for so long.

    rmdir(2) removes none that holds anything. A directory that held only empty ones has just
    changed: it follows later.
    """
    removed, faults = 0, list[str]()
    for path in directories:
        parent, _, base = path.rpartition("/")
        try:
            with paths.directory(root_fd, parent) as parent_fd:
                info = os.stat(base, dir_fd=parent_fd, follow_symlinks=False)
                if is_settled(info, empty_for_s, now_s):
                    if not is_dry:
                        os.rmdir(base, dir_fd=parent_fd)
                    removed += 1
        except OSError as fault:
            faults.append(f"{shown(path)} ({fault.strerror or fault})")
    if removed:
        log.info("empty directories %s: %d", "to remove" if is_dry else "removed", removed)
    if faults:
        log.info("empty directories that can't be removed: %d: %s", len(faults), faults[0])
