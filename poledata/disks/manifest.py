"""The manifest of a disk, ``manifest-sha512.txt`` (RFC 8493, 2.1.3): a line for each file.

Lines are only added at its end, durably, or removed by a complete new manifest in its place. A disk
may return anything: no line is read into memory that is longer than ours can be.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from poledata import db
from poledata.disks import bag
from poledata.errors import ManifestDamaged
from poledata.models import MANIFEST, Disk, ManifestLine
from poledata.system import paths

log = logging.getLogger(__name__)
_LONGEST_LINE_BYTES = 8192
_SKIP_BYTES = 1 << 20
_NAMED = 20  # bad lines


@dataclass(slots=True)
class BadLines:
    """Lines that can't be used: the first of them, and their number (maybe millions)."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def note(self, why: str) -> None:
        self.count += 1
        if self.count <= _NAMED:
            self.first.append(why)

    def texts(self) -> list[str]:
        more = self.count - len(self.first)
        return [*self.first, *([f"{MANIFEST}: {more} more bad lines"] if more else [])]


def cut_torn_line(root_fd: int) -> None:
    """Cut a last line that a crash tore; its file has no row yet and is adopted later.

    Raises ManifestDamaged as must_end_well.
    """
    with _opened(root_fd, os.O_RDWR) as fd:
        end_bytes = _end_of_good_lines(fd)
        if end_bytes < os.fstat(fd).st_size:
            os.ftruncate(fd, end_bytes)
            os.fsync(fd)


def must_end_well(root_fd: int) -> None:
    """Raises ManifestDamaged if its last complete line is not ours: nothing is built on that."""
    with _opened(root_fd) as fd:
        _end_of_good_lines(fd)


def _end_of_good_lines(fd: int) -> int:
    """Return where the last complete line ends. Raises ManifestDamaged if that is not ours."""
    end_bytes = _end_of_lines(fd, os.fstat(fd).st_size)
    if end_bytes:
        begin = _end_of_lines(fd, end_bytes - 1)
        n_bytes = min(end_bytes - begin, _LONGEST_LINE_BYTES)
        _parse_line(bag.read_at(fd, n_bytes, begin), begin)
    return end_bytes


def _end_of_lines(fd: int, size_bytes: int) -> int:
    """Return where the last complete line before this byte ends."""
    end = size_bytes
    while end:
        begin = max(0, end - (1 << 16))
        found = bag.read_at(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


@contextmanager
def _opened(root_fd: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Raises ManifestDamaged if there is none; then the drive itself responds. Raises OSError."""
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(paths.opened(root_fd, MANIFEST, flags))
        except FileNotFoundError as fault:
            raise ManifestDamaged(f"there is no {MANIFEST}") from fault
        except OSError as fault:
            if fault.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # link, directory, pipe
                raise
            raise ManifestDamaged(f"{MANIFEST} is not a file") from fault
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ManifestDamaged(f"{MANIFEST} is not a file")
        yield fd


def append(root_fd: int, entries: Sequence[tuple[str, str]]) -> list[ManifestLine]:
    """Add a line for each (sha512, name) durably; return the lines with their offsets."""
    with _opened(root_fd, os.O_WRONLY | os.O_APPEND) as fd:
        lines: list[ManifestLine] = []
        at = os.fstat(fd).st_size
        for sha512, name in entries:
            lines.append(ManifestLine(sha512, name, at))
            at += len(lines[-1].text)
        bag.write_all(fd, b"".join(line.text for line in lines))
        os.fsync(fd)
    return lines


def note_size(conn: db.Connection, disk: Disk, root_fd: int) -> None:
    """Note the size of a manifest that agrees with the database now."""
    try:
        info = paths.stat(root_fd, MANIFEST)
    except OSError as fault:
        log.warning("%s: the size of its manifest is not known: %s", disk.label, fault)
        return
    with db.transaction(conn):
        db.disks.note_manifest(conn, disk, info.st_size if info else 0)


def has_line(root_fd: int, line: ManifestLine) -> bool:
    """True if this line is where it was written."""
    with _opened(root_fd) as fd:
        return os.pread(fd, len(line.text), line.offset_bytes) == line.text


def find_lines(
    root_fd: int, names: Iterable[str], bad: BadLines | None = None
) -> dict[str, ManifestLine]:
    """Return the manifest's lines for these names; all of it is read, in little memory.

    A line that is not found may be one of the bad ones: then this raises ManifestDamaged, unless
    the caller accepts these (``bad``).
    """
    wanted, seen = frozenset(names), BadLines() if bad is None else bad
    found = {line.name: line for line in read_on(root_fd, seen) if line.name in wanted}
    if bad is None and seen.count and wanted - found.keys():
        raise ManifestDamaged(seen.first[0])
    return found


def read_on(root_fd: int, bad: BadLines) -> Iterator[ManifestLine]:
    """Yield every line that can be used, without those that can't, also for their names.

    A last line that a crash tore is not a bad one: ``cut_torn_line`` removes it.
    """
    for line in _read(root_fd, bad):
        if why := bag.why_no_name(line.name):
            bad.note(f"{MANIFEST}: the line at byte {line.offset_bytes} names no file: {why}")
        else:
            yield line


def read(root_fd: int) -> Iterator[ManifestLine]:
    """Yield every line of the manifest. Raises ManifestDamaged; OSError if it ends too soon."""
    return _read(root_fd, None)


def _read(root_fd: int, bad: BadLines | None) -> Iterator[ManifestLine]:
    with _opened(root_fd) as fd, os.fdopen(os.dup(fd), "rb") as file:
        size_bytes = os.fstat(fd).st_size
        at = yield from _parsed(file, MANIFEST, bad)
        bag.must_not_end(at, size_bytes)


def read_list(path: Path) -> Iterator[ManifestLine]:
    """Yield every line of a packing list, the copy of a closed disk's manifest at the station."""
    with path.open("rb") as file:
        yield from _parsed(file, path.name, None)


def _parsed(file: BinaryIO, where: str, bad: BadLines | None) -> Generator[ManifestLine, None, int]:
    """Yield line by line, return where they end. The rest of a line that is too long is skipped."""
    at = 0
    for raw in iter(partial(file.readline, _LONGEST_LINE_BYTES), b""):
        begin, end = at, raw
        at += len(raw)
        while end and not end.endswith(b"\n"):
            end = file.readline(_SKIP_BYTES)
            at += len(end)
        try:
            yield _parse_line(raw, begin, where)
        except ManifestDamaged as fault:
            if bad is None:
                raise
            if end:  # else a crash tore it
                bad.note(str(fault))
    return at


def drop_line(root_fd: int, name: str) -> None:
    """Remove one name from the manifest: its file was set aside. Durable when it returns."""
    drop_lines(root_fd, {name})


def drop_lines(root_fd: int, names: Collection[str]) -> None:
    """Remove several names at once. Raises ManifestDamaged: a bad line is not rewritten."""
    kept = b"".join(line.text for line in read(root_fd) if line.name not in names)
    bag.write_file(root_fd, MANIFEST, kept)
    os.fsync(root_fd)


def _parse_line(raw: bytes, at: int, where: str = MANIFEST) -> ManifestLine:
    match = re.fullmatch(rb"([0-9a-f]{128})  data/([^\n\0]+)\n", raw)
    try:
        if match:
            return ManifestLine(match[1].decode(), match[2].decode(), at)
    except UnicodeDecodeError:
        pass  # reported below, like any other bad line
    raise ManifestDamaged(f"{where}: the text at byte {at} is not a manifest line")
