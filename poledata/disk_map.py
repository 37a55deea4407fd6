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
    """Return the drives of the map at ``path``, in its order; a logical ID that may lack is "".

    Raises DiskMapFault with every fault of the file, each as ``FILE:LINE: fault``.
    """
    where = shown(str(path))
    try:
        rows = _rows(text_in(path))
    except OSError as e:
        raise DiskMapFault([f"{where}: can't be read ({e.strerror}); name a disk-map"]) from e
    except ValueError as e:
        raise DiskMapFault([f"{where}: {e}"]) from e
    widths = (2, 3) if may_lack_ids else (3,)
    faults = [
        (line, fault)
        for line, columns in rows.items()
        for fault in _row_faults(columns, prefixes, widths)
    ]
    faults += _repeats(rows)
    if faults:
        raise DiskMapFault(f"{where}:{line}: {fault}" for line, fault in sorted(faults))
    if not rows:
        raise DiskMapFault([f"{where}: names no disk; a line is: label serial logical-ID"])
    return tuple(_entry(line, columns, prefixes) for line, columns in rows.items())


def _rows(text: str) -> dict[int, list[str]]:
    """Return the columns of each line, by its number; blank lines and comments have none."""
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    rows = {number: _COMMENT.sub("", line).split() for number, line in lines}
    return {number: columns for number, columns in rows.items() if columns}


def _row_faults(row: list[str], prefixes: Prefixes, widths: tuple[int, ...]) -> Iterator[str]:
    """Name what is wrong with this line alone."""
    if len(row) not in widths:
        columns = "1 column" if len(row) == 1 else f"{len(row)} columns"
        yield (
            f"has {columns}, not three: separate label, serial and logical ID by spaces, not commas"
        )
        return
    label, serial, *logical_ids = row
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


def _repeats(rows: dict[int, list[str]]) -> Iterator[tuple[int, str]]:
    """Name labels, serials and logical IDs that an earlier line has taken."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for line, columns in rows.items():
        if len(columns) not in (2, 3):
            continue
        for what, text in zip(("label", "serial", "logical ID"), columns, strict=False):
            taken, earlier = first.setdefault((what, _same(what, text)), (line, text))
            if taken != line and text == earlier:
                yield line, f"{what} {shown(text)} is on line {taken} already; each may appear once"
            elif taken != line:
                same = f"to a person the same as {shown(earlier)} on line {taken}"
                yield line, f"{what} {shown(text)} is {same}"


def _same(what: str, text: str) -> str:
    """Return what two entries must not share: P1 and P01 are one label to a tired person."""
    match = LABEL_SHAPE.fullmatch(text)
    if what == "label" and match:
        return match[1] + match[2].lstrip("0")
    return text if what == "label" else text.lower()


def _entry(line: int, columns: list[str], prefixes: Prefixes) -> Entry:
    label, serial, *logical_ids = columns
    role = prefixes.role_of(label)
    assert role is not None, "a label without a role is a fault of its line"
    return Entry(label, role, serial, "".join(logical_ids).lower(), line)
