"""The disk-map: which label, serial and logical ID belong to one drive, and what a label means.

One drive a line, ``label serial logical-ID``, e.g. ``P01 ZA12JCHM 0x5000c500858bfea7``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poledata.errors import DiskMapFault
from poledata.formatting import shown, text_in
from poledata.models import DEFAULT_PREFIXES, LABEL_SHAPE, Prefixes, Role

_SERIAL = re.compile(r"[!-~]+")
_LOGICAL_ID = re.compile(r"0[xX](?!0+$)(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{32})")
_COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One drive of the map; ``logical_id`` is in lower case, ``line`` counts from 1."""

    label: str
    role: Role
    serial: str
    logical_id: str
    line: int


def read(
    path: Path, prefixes: Prefixes = DEFAULT_PREFIXES, *, may_lack_ids: bool = False
) -> tuple[Entry, ...]:
    """The drives of the map at ``path``, in its order; where it may lack logical IDs, some are "".

    Raises DiskMapFault with every fault of the file, each as ``FILE:LINE: fault``.
    """
    where = shown(str(path))
    try:
        text = text_in(path)
    except OSError as e:
        raise DiskMapFault([f"{where}: can't be read ({e.strerror}); name a disk-map"]) from e
    except ValueError as e:
        raise DiskMapFault([f"{where}: {e}"]) from e
    rows = tuple(_rows(text))
    widths = (2, 3) if may_lack_ids else (3,)
    faults = [(row.line, fault) for row in rows for fault in _row_faults(row, prefixes, widths)]
    faults += [(row.line, fault) for row, fault in _repeats(rows)]
    if faults:
        raise DiskMapFault(f"{where}:{line}: {fault}" for line, fault in sorted(faults))
    if not rows:
        raise DiskMapFault([f"{where}: names no disk; a line is: label serial logical-ID"])
    return tuple(_entry(row, prefixes) for row in rows)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line that is neither blank nor a comment, split into its columns."""

    line: int
    columns: tuple[str, ...]


def _rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        columns = _COMMENT.sub("", line).split()
        if columns:
            yield _Row(number, tuple(columns))


def _row_faults(row: _Row, prefixes: Prefixes, widths: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with this line alone."""
    if len(row.columns) not in widths:
        columns = "1 column" if len(row.columns) == 1 else f"{len(row.columns)} columns"
        yield (
            f"has {columns}, not three: separate label, serial and logical ID by spaces, not commas"
        )
        return
    label, serial, *logical_ids = row.columns
    if prefixes.role_of(label) is None:
        yield (
            f"label {shown(label)} has no role; a label is {prefixes.primary} (primary) or "
            f"{prefixes.copy} (copy) and a number, e.g. {prefixes.primary}01"
        )
    if not _SERIAL.fullmatch(serial):
        yield f"serial {shown(serial)} holds a character that is not printable ASCII"
    if logical_ids and not _LOGICAL_ID.fullmatch(logical_ids[0]):
        yield (
            f"logical ID {shown(logical_ids[0])} is malformed; right is 0x and 16 (or 32) hex "
            "digits, not all zeros, as get_drive_IDs.py prints it"
        )


def _repeats(rows: tuple[_Row, ...]) -> Iterator[tuple[_Row, str]]:
    """Labels, serials and logical IDs that an earlier line has taken."""
    first: dict[tuple[str, str], _Row] = {}
    for row in rows:
        if len(row.columns) not in (2, 3):
            continue
        for column, (what, said) in enumerate(zip(_COLUMNS, row.columns, strict=False)):
            earlier = first.setdefault((what, _same(what, said)), row)
            if earlier is not row:
                yield row, _repeat(what, said, earlier.columns[column], earlier.line)


_COLUMNS = ("label", "serial", "logical ID")


def _same(what: str, said: str) -> str:
    """What two entries must not share: P1 and P01 are one label to a tired person."""
    match = LABEL_SHAPE.fullmatch(said)
    if what == "label" and match:
        return match[1] + match[2].lstrip("0")
    return said if what == "label" else said.lower()


def _repeat(what: str, said: str, earlier: str, line: int) -> str:
    if said == earlier:
        return f"{what} {shown(said)} stands on line {line} already; each stands once"
    return f"{what} {shown(said)} is to a person the same as {shown(earlier)} on line {line}"


def _entry(row: _Row, prefixes: Prefixes) -> Entry:
    label, serial, *logical_ids = row.columns
    role = prefixes.role_of(label)
    assert role is not None, "a label without a role is a fault of its line"
    return Entry(label, role, serial, "".join(logical_ids).lower(), row.line)
