"""A copy of the database on a disk: a lost one is back from it at once, but for the last day.

It is a help and no proof: the bags alone say what is archived. So it is written where there is
room, and left out where there is none.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from poledata import bag, beneath, db, dbfiles
from poledata.errors import DatabaseTrouble
from poledata.texts import size_text

EVERY_S = 86_400.0
_BLOCK_BYTES = 1 << 20
log = logging.getLogger(__name__)


def is_due(root_fd: int, now_s: float) -> bool:
    """Whether the copy on this disk is older than a day (or of the future), or there is none."""
    info = beneath.stat(root_fd, bag.CATALOGUE)
    return info is None or abs(now_s - info.st_mtime) > EVERY_S


def keep(conn: db.Connection, db_path: Path, root_fd: int, room_bytes: int) -> bool:
    """Put a fresh copy on a disk in place of ours of an earlier day; False if it is left out.

    It is made beside the database first: SQLite follows links, so it can't be told to write
    below the descriptor of a disk, and no disk may keep it from letting others write.
    Raises OSError (the disk's), DatabaseTrouble.
    """
    if not _is_ours_to_replace(root_fd):
        log.warning("%s on a disk is not ours: it is left as it is", bag.CATALOGUE)
        return False
    size_bytes = db_path.stat().st_size
    here = os.statvfs(db_path.parent)
    if size_bytes > min(room_bytes, here.f_bavail * here.f_frsize):
        log.info("no room for a copy of the database (%s) on a disk", size_text(size_bytes))
        return False
    beneath.make_directories(root_fd, bag.INCOMING)
    with dbfiles.copied(conn, db_path) as copy:
        bag.write_file(root_fd, bag.CATALOGUE, _blocks(copy))
    os.fsync(root_fd)
    return True


def _is_ours_to_replace(root_fd: int) -> bool:
    """Whether nothing is there, or a database of ours: SQLite's header says whose it is."""
    info = beneath.stat(root_fd, bag.CATALOGUE)
    if info is None:
        return True
    if not stat.S_ISREG(info.st_mode):
        return False
    with beneath.opened(root_fd, bag.CATALOGUE) as fd:
        return os.pread(fd, 4, 68) == db.APPLICATION_ID.to_bytes(4, "big")


def _blocks(path: Path) -> Iterator[bytes]:
    """Raises DatabaseTrouble: what can't be read here is no fault of the disk."""
    try:
        with path.open("rb") as copy:
            while block := copy.read(_BLOCK_BYTES):
                yield block
    except OSError as fault:
        raise DatabaseTrouble(path, f"its copy can't be read ({fault.strerror})") from fault
