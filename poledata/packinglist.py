"""Disks that have left since an older database was copied: closed by their packing lists.

A list is the manifest of a sealed bag, kept beside the database; it stands for the disk only
where it contradicts nothing that is known. Its copies are unverified, as all of a rebuild.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from poledata import catalogue, db, manifest
from poledata.errors import ManifestDamaged
from poledata.house import House
from poledata.records import CopyState, Disk, DiskState, ManifestLine, Role
from poledata.texts import seconds, shown, utc

CHUNK_LINES = 5000  # a transaction
BY_LIST = "closed by its packing list"


@dataclass(frozen=True, slots=True)
class Packed:
    """What came of the packing list of one disk that is not there."""

    label: str
    role: Role
    serial: str
    files: int = 0
    new_copies: int = 0
    fault: str | None = None  # why it closed nothing


def close_by_lists(house: House, absent: Iterable[Disk]) -> Iterator[Packed]:
    """Disks that are not there; those without a list of this life of theirs are passed over."""
    for disk in absent:
        path = _list_of(house, disk)
        if path is None:
            continue
        try:
            fault = _why_not(house.conn, disk, path)
            files, new = (0, 0) if fault else _close(house.conn, disk, path)
        except OSError as trouble:
            files, new, fault = 0, 0, f"it can't be read: {trouble.strerror or trouble}"
        except ManifestDamaged as trouble:
            files, new, fault = 0, 0, str(trouble)
        yield Packed(disk.label, disk.role, disk.serial, files, new, fault)


def _list_of(house: House, disk: Disk) -> Path | None:
    """The newest list of this drive, unless the drive began anew since (sealing.py names them)."""
    lists = house.config.db_path.with_name("packing-lists")
    stem = re.escape(f"{disk.label}-{disk.serial.replace('/', '_')}")
    ours = re.compile(rf"{stem}(-\d{{4}}-\d\d-\d\dT\d+Z)?\.sha512")
    paths = [path for path in lists.glob("*.sha512") if ours.fullmatch(path.name)]
    began = disk.first_used_at or catalogue.last_event(house.conn, disk, "came back")
    began_at_s = seconds(began) if began else 0.0
    dated = [(path.stat().st_mtime, path) for path in paths]
    return max((one for one in dated if one[0] >= began_at_s), default=(0, None))[1]


def _why_not(conn: db.Connection, disk: Disk, path: Path) -> str | None:
    """What speaks against the list; nothing is written."""
    unknown, other, known_here = [], [], 0
    for line in manifest.read_list(path):
        row = catalogue.file_row(conn, line.name, disk)
        if row is None:
            unknown.append(line.name)
        elif row.sha512 != line.sha512:
            other.append(line.name)
        elif row.copy_state is CopyState.GOOD:
            known_here += 1
    if other:
        said = f"{len(other)} of its lines say other content than the database"
        return f"{said}, {shown(other[0])} among them"
    if unknown:
        said = f"{len(unknown)} files of its packing list are on no disk that is here"
        return f"{said}, {shown(unknown[0])} among them"
    files, _ = catalogue.count_on(conn, disk)
    if files != known_here:
        return f"the database has {files} files on it, of which the list names {known_here}"
    return None


def _close(conn: db.Connection, disk: Disk, path: Path) -> tuple[int, int]:
    """How many files it has, and how many of them are new to the database."""
    at, files, new = utc(path.stat().st_mtime), 0, 0
    lines = manifest.read_list(path)
    while chunk := list(islice(lines, CHUNK_LINES)):
        files += len(chunk)
        with db.transaction(conn):
            new += sum(_add(conn, disk, line, at) for line in chunk)
    with db.transaction(conn):
        if disk.state is DiskState.SPARE:
            catalogue.activate(conn, disk, at)
        if disk.state is not DiskState.CLOSED:
            catalogue.set_state(conn, disk, DiskState.CLOSED, BY_LIST, at)
        catalogue.note_event(conn, disk.id, at, "sealed", BY_LIST)
    return files, new


def _add(conn: db.Connection, disk: Disk, line: ManifestLine, at: str) -> bool:
    """Whether the copy is new to the database."""
    row = catalogue.file_row(conn, line.name, disk)
    if row is None or row.copy_state is not None:
        return False
    catalogue.add_unverified_copy(conn, row.id, disk, CopyState.GOOD, None, at)
    catalogue.archived_if_in_both_roles(conn, row.id)
    return True
