"""The manifest of a disk, ``manifest-sha512.txt`` (RFC 8493, 2.1.3): a line for each file.

Lines are only ever added at its end, durably, or taken out by a whole new one in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from poledata import bag, beneath
from poledata.errors import ManifestDamaged
from poledata.records import ManifestLine

_LONGEST_LINE_BYTES = 8192


def mend(root_fd: int) -> None:
    """Cut a last line that a crash tore; its file has no row yet and is adopted later.

    Raises ManifestDamaged if what stands before is no manifest line: nothing is built on that.
    """
    with _opened(root_fd, os.O_RDWR) as fd:
        size_bytes = os.fstat(fd).st_size
        whole_bytes = _end_of_lines(fd, size_bytes)
        begin = max(0, whole_bytes - _LONGEST_LINE_BYTES)
        last = bag.read_at(fd, whole_bytes - begin, begin)[:-1].rpartition(b"\n")[2]
        if whole_bytes:
            _parse_line(last + b"\n", whole_bytes - len(last) - 1)
        if whole_bytes < size_bytes:
            os.ftruncate(fd, whole_bytes)
            os.fsync(fd)


@contextmanager
def _opened(root_fd: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Raises ManifestDamaged where there is none: whatever the drive is like, it answers."""
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(beneath.opened(root_fd, bag.MANIFEST, flags))
        except FileNotFoundError as fault:
            raise ManifestDamaged(f"there is no {bag.MANIFEST}") from fault
        yield fd


def _end_of_lines(fd: int, size_bytes: int) -> int:
    """Where the last line that is whole ends."""
    end = size_bytes
    while end:
        begin = max(0, end - (1 << 16))
        found = bag.read_at(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def append(root_fd: int, entries: Sequence[tuple[str, str]]) -> list[ManifestLine]:
    """Add a line for each (sha512, name) durably; returns the lines with their offsets."""
    with _opened(root_fd, os.O_WRONLY | os.O_APPEND) as fd:
        lines: list[ManifestLine] = []
        at = os.fstat(fd).st_size
        for sha512, name in entries:
            lines.append(ManifestLine(sha512, name, at))
            at += len(lines[-1].text)
        bag.write_all(fd, b"".join(line.text for line in lines))
        os.fsync(fd)
    return lines


def stands(root_fd: int, line: ManifestLine) -> bool:
    """Whether this line stands where it was written."""
    with _opened(root_fd) as fd:
        return os.pread(fd, len(line.text), line.offset_bytes) == line.text


def find_lines(root_fd: int, names: Iterable[str]) -> dict[str, ManifestLine]:
    """The manifest's lines for these names; reads it all, in little memory."""
    wanted = frozenset(names)
    return {line.name: line for line in read(root_fd) if line.name in wanted}


def read_on(root_fd: int, faults: list[str]) -> Iterator[ManifestLine]:
    """Every line that is whole, past those that are not: these are said in ``faults``.

    A last line that a crash tore is none, and no fault: ``mend`` cuts it.
    """
    with _opened(root_fd) as fd, os.fdopen(os.dup(fd), "rb") as lines:
        at = 0
        for raw in lines:
            try:
                yield _parse_line(raw, at)
            except ManifestDamaged as fault:
                if raw.endswith(b"\n"):
                    faults.append(str(fault))
            at += len(raw)


def read(root_fd: int) -> Iterator[ManifestLine]:
    """Every line of the manifest. Raises ManifestDamaged; OSError where it ends too soon."""
    with _opened(root_fd) as fd, os.fdopen(os.dup(fd), "rb") as lines:
        at, size_bytes = 0, os.fstat(fd).st_size
        for raw in lines:
            yield _parse_line(raw, at)
            at += len(raw)
        bag.must_not_end(at, size_bytes)


def read_list(path: Path) -> Iterator[ManifestLine]:
    """The same of a packing list, the copy of a closed disk's manifest at the station."""
    with path.open("rb") as lines:
        at = 0
        for raw in lines:
            yield _parse_line(raw, at)
            at += len(raw)


def drop_line(root_fd: int, name: str) -> None:
    """Take one name out of the manifest: its file was set aside. Durable when it returns."""
    drop_lines(root_fd, {name})


def drop_lines(root_fd: int, names: Collection[str]) -> None:
    """The same for several, at once."""
    kept = b"".join(line.text for line in read(root_fd) if line.name not in names)
    bag.write_file(root_fd, bag.MANIFEST, kept)
    os.fsync(root_fd)


def _parse_line(raw: bytes, at: int) -> ManifestLine:
    match = re.fullmatch(rb"([0-9a-f]{128})  data/([^\n]+)\n", raw)
    try:
        if match:
            return ManifestLine(match[1].decode(), match[2].decode(), at)
    except UnicodeDecodeError:
        pass  # said below, as of any other line that is none
    raise ManifestDamaged(f"{bag.MANIFEST}: what stands at byte {at} is not a manifest line")
