"""A copy of the database on each disk: it brings a lost one back at once, except the last day.

It helps and proves nothing: only the bags prove what is archived. It is left out on a disk without
free space. A copy that knows more than the database is kept.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disks import bag
from poledata.disks.identity import HeldDisk
from poledata.errors import CopyDamaged, DatabaseTrouble
from poledata.formatting import size_text
from poledata.models import Severity
from poledata.system import paths

EVERY_S = 86_400.0
INCOMPLETE = "database-error"
_BLOCK_BYTES = 1 << 20
log = logging.getLogger(__name__)


def is_due(root_fd: int, now_s: float) -> bool:
    """True if the copy on this disk is older than a day (or of the future), or there is none."""
    info = paths.stat(root_fd, bag.CATALOGUE)
    return info is None or abs(now_s - info.st_mtime) > EVERY_S


def keep(context: Context, held: HeldDisk, room_bytes: int) -> None:
    """Put a fresh copy on a disk, replacing ours of an earlier day, unless there is no space.

    It is made beside the database first: SQLite follows links, so it can't write below the
    descriptor of a disk, and a slow disk must not keep others from writing to the database.
    Raises OSError (the disk's), DatabaseTrouble.
    """
    root_fd, db_path = held.root_fd, context.config.db_path
    if paths.stat(root_fd, bag.CATALOGUE) is not None and not _is_ours(root_fd):
        log.warning("%s on a disk is not ours: it is left as it is", bag.CATALOGUE)
        return
    if why := why_kept(context, held):
        context.findings.note(INCOMPLETE, key_of(held), why, Severity.WARNING)
        return
    context.findings.clear([INCOMPLETE], key_of(held))
    size_bytes = db_path.stat().st_size
    here = os.statvfs(db_path.parent)
    if size_bytes > min(room_bytes, here.f_bavail * here.f_frsize):
        log.info("no room for a copy of the database (%s) on a disk", size_text(size_bytes))
        return
    paths.make_directories(root_fd, bag.INCOMING)
    with db.database_files.temporary_copy(context.conn, db_path) as copy:
        bag.write_file(root_fd, bag.CATALOGUE, _blocks(copy))
    os.fsync(root_fd)


def key_of(held: HeldDisk) -> str:
    """Return the key of a notice about the copy on this disk."""
    return str(held.path / bag.CATALOGUE)


def why_kept(context: Context, held: HeldDisk) -> str | None:
    """Return why the copy on a disk must stay: it knows more than this database. Raises OSError."""
    with _beside(context.conn, held) as is_there:
        files, disks = db.rebuild.known_elsewhere(context.conn) if is_there else (0, 0)
    if not (files or disks):
        return None
    return (
        f"{key_of(held)} knows {files} files and {disks} disks that the database does not know. "
        "It is kept. No file is lost. Complete the database: generate_db.py --from-disks. If that "
        "does not help, tell the people up north"
    )


def take_in(context: Context, held: HeldDisk) -> list[str]:
    """Add the disks that only the copy on this disk knows; their labels. Raises OSError."""
    with _beside(context.conn, held) as is_there, db.transaction(context.conn):
        return db.rebuild.add_disks_of_copy(context.conn) if is_there else []


@contextmanager
def _beside(conn: db.Connection, held: HeldDisk) -> Iterator[bool]:
    """Attach the copy on a disk to the database; False if there is none that can be read."""
    with ExitStack() as stack:
        is_there = _is_ours(held.root_fd)
        try:
            if is_there:
                fd = stack.enter_context(paths.opened(held.root_fd, bag.CATALOGUE))
                stack.enter_context(db.database_files.attached_copy(conn, fd))
        except CopyDamaged as fault:
            log.warning("%s is damaged: %s", key_of(held), fault)
            is_there = False
        yield is_there


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the database: where it is, what it knows, and its open file."""

    where: str
    files: int
    newest: str
    events: int
    fd: int

    def __str__(self) -> str:
        newest = f", the newest archived {self.newest}" if self.newest else ""
        return f"{self.where}: {self.files} files{newest}"

    def blocks(self) -> Iterator[bytes]:
        """Raises OSError."""
        return bag.blocks_of(self.fd)


def by_knowledge(copies: Iterable[Copy]) -> list[Copy]:
    """Sort the one that knows most first; times of files prove nothing. Pure."""
    return sorted(copies, key=lambda c: (c.files, c.newest, c.events), reverse=True)


@contextmanager
def richest(disks: Iterable[HeldDisk], db_path: Path) -> Iterator[Copy | None]:
    """Yield the sound copy that knows most, on a disk or kept beside the database at an upgrade."""
    with ExitStack() as stack:
        copies = list(_copies(disks, db_path, stack))
        yield next((copy for copy in by_knowledge(copies) if _is_sound(copy)), None)


def _copies(disks: Iterable[HeldDisk], db_path: Path, stack: ExitStack) -> Iterator[Copy]:
    places = [(key_of(held), held.root_fd, bag.CATALOGUE) for held in disks]
    beside_fd = os.open(db_path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, beside_fd)
    places += [(str(path), beside_fd, path.name) for path in db.database_files.backups(db_path)]
    for where, directory_fd, name in places:
        try:
            fd = stack.enter_context(paths.opened(directory_fd, name))
            if _has_our_header(fd):
                with db.database_files.opened_copy(fd) as conn:
                    yield Copy(where, *db.rebuild.knowledge(conn), fd)
        except FileNotFoundError:
            pass  # left out on a disk without free space
        except (OSError, CopyDamaged) as fault:
            log.warning("%s is not used: %s", where, fault)


def _is_sound(copy: Copy) -> bool:
    try:
        with db.database_files.opened_copy(copy.fd) as conn:
            faults = db.sqlite.faults(conn)
    except (OSError, CopyDamaged) as trouble:
        faults = [str(trouble)]
    if faults:
        log.warning("%s is not used, it is damaged inside: %s", copy.where, faults[0])
    return not faults


def _is_ours(root_fd: int) -> bool:
    info = paths.stat(root_fd, bag.CATALOGUE)
    if info is None or not stat.S_ISREG(info.st_mode):
        return False
    with paths.opened(root_fd, bag.CATALOGUE) as fd:
        return _has_our_header(fd)


def _has_our_header(fd: int) -> bool:
    """True for a database of ours, by SQLite's header."""
    return os.pread(fd, 4, 68) == db.sqlite.APPLICATION_ID.to_bytes(4, "big")


def _blocks(path: Path) -> Iterator[bytes]:
    """Raises DatabaseTrouble: a fault of reading here is no fault of the disk."""
    try:
        with path.open("rb") as copy:
            while block := copy.read(_BLOCK_BYTES):
                yield block
    except OSError as fault:
        raise DatabaseTrouble(path, f"its copy can't be read ({fault.strerror})") from fault
