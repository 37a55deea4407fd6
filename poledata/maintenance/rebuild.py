"""Make the database again from the bags of all mounted disks, or complete an older one.

Disks that have left since an older database was copied are closed by their packing lists. A list is
the manifest of a sealed bag, kept beside the database; it replaces the disk only if it contradicts
nothing that is known. All copies of a rebuild are unverified.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disk_map import Entry
from poledata.disks import catalog_copy, closing, manifest
from poledata.errors import CopyDamaged, ManifestDamaged
from poledata.formatting import counted, shown, utc, utc_now
from poledata.maintenance import read_bags
from poledata.maintenance.inventory import Find, Inventory, NotUsed
from poledata.maintenance.read_bags import CHUNK_LINES, BagReport
from poledata.models import AWAY, CopyState, Disk, DiskState, ManifestLine, Role, Severity
from poledata.system import mounts

BY_LIST = "closed by its packing list"
COMMAND = "generate_db.py --from-disks"
FOUND_BY = f"Found by {COMMAND}"
INCOMPLETE = "database-error"  # with a key of ours: the database lacks what is on some disk

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Packed:
    """The result of the packing list of one disk that is not there."""

    label: str
    role: Role
    serial: str
    files: int = 0
    new_copies: int = 0
    fault: str | None = None  # why it closed nothing


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found and written down."""

    db_path: str
    is_dry: bool
    disks: tuple[BagReport, ...]
    not_used: tuple[NotUsed, ...]
    packed: tuple[Packed, ...]  # disks that were not there, but have a packing list
    not_mounted: tuple[str, ...]  # disks in use or closed that were not there
    empty: tuple[str, ...]  # mounted empty disks that the database does not know
    spares_added: tuple[str, ...]
    by_copies: tuple[str, ...] = ()  # disks that only a copy of the database on a disk knew
    begun_with: str = ""  # the copy of the database that a new one began with, and what it knew

    @property
    def is_well(self) -> bool:
        faults = [*self.not_used, *(one for one in self.packed if one.fault)]
        return not faults and all(report.is_well for report in self.disks)


def rebuild(
    context: Context,
    inventory: Inventory,
    spares: Sequence[Entry],
    stop: threading.Event,
    is_dry: bool = False,
) -> Rebuilt:
    """Register all disks and what is on them; the caller has the turn.

    Raises Stopped: the next run goes on from there.
    """
    known = {disk.id for disk in db.disks.disks(context.conn)}
    _note_begin(context)
    _register_disks(context, inventory, spares)
    rows = {disk.serial: disk for disk in db.disks.disks(context.conn)}
    reports = _read_bags(context, inventory, rows, stop, is_dry)
    by_copies = _take_in(context, inventory)
    packed = tuple(_close_by_lists(context, inventory, known))
    closed = {one.serial for one in packed if not one.fault}
    _note_end(context, inventory, closed)
    labels = {disk.label for disk in rows.values()}
    return Rebuilt(
        str(context.config.db_path),
        is_dry,
        tuple(reports),
        inventory.not_used,
        packed,
        tuple(disk.label for disk in inventory.absent if disk.serial not in closed),
        tuple(label for label in inventory.empty if label not in labels),
        tuple(entry.label for entry in spares),
        by_copies,
    )


def _read_bags(
    context: Context,
    inventory: Inventory,
    rows: dict[str, Disk],
    stop: threading.Event,
    is_dry: bool,
) -> list[BagReport]:
    """Register what is on the disks. Raises Stopped."""
    helds = [replace(find.held, disk=rows[find.held.disk.serial]) for find in inventory.finds]
    reports = read_bags.read_all(context, helds, stop)
    for held, report in zip(helds, reports, strict=True):
        if held.disk.state is DiskState.CLOSED and not is_dry:
            try:  # the lists may be lost together with the database
                closing.keep_packing_list(context, held, held.disk.last_used_at or utc_now())
            except OSError as fault:
                report.faults.append(f"its packing list can't be kept: {fault.strerror or fault}")
        _tell(context, held.disk, report)
        if report.is_well and not is_dry:
            manifest.note_size(context.conn, held.disk, held.root_fd)
    return reports


def _take_in(context: Context, inventory: Inventory) -> tuple[str, ...]:
    """Add the disks that only a copy of the database on a mounted disk knows; their labels."""
    labels = []
    for find in inventory.finds:
        try:
            labels += catalog_copy.take_in(context, find.held)
        except (OSError, CopyDamaged) as fault:  # a help only: the bags were read
            log.warning("%s is not used: %s", catalog_copy.key_of(find.held), fault)
    return tuple(labels)


def _tell(context: Context, disk: Disk, report: BagReport) -> None:
    """Report a disk; the notice ends with a run that finds nothing, or by ``verify``."""
    about = disk.known_as
    if report.is_well:
        found = context.findings.get("copy-damaged", about)
        if found and FOUND_BY in found.text and not db.copies.bad_copies_on(context.conn, disk):
            context.findings.clear(["copy-damaged"], about)
        return
    bad = len(report.missing) + len(report.damaged) + len(report.lost)
    context.findings.note(
        "copy-damaged",
        about,
        f"By its manifest {bad} files are missing or damaged there, {len(report.differences)} are "
        f"not what another disk says, {len(report.without_line)} files have no line; "
        f"{len(report.faults)} faults. {FOUND_BY}, which lists them.",
    )


# --- registering disks --------------------------------------------------------------------


def _register_disks(context: Context, inventory: Inventory, spares: Sequence[Entry]) -> None:
    """All at once: nobody sees a database with only some of the disks."""
    spaces = [mounts.space(find.held.root_fd) for find in inventory.finds]
    conn, is_stand_in = context.conn, not context.config.require_mount
    with db.transaction(conn):
        for find, space in zip(inventory.finds, spaces, strict=True):
            _register(conn, find, space)
        for e in spares:
            db.disks.add_disk(conn, e.label, e.role, e.serial, e.logical_id, is_stand_in, utc_now())


def _register(conn: db.Connection, find: Find, space: mounts.Space) -> None:
    """Register a disk in the state it is in; no pass must want to finish a sealed one's close."""
    mark, at, why = find.marked.mark, find.marked.last_used_at, "rebuilt from its bag"
    if find.known is None:
        db.disks.add_disk(
            conn, mark.label, mark.role, mark.serial, mark.logical_id, mark.stand_in, utc_now()
        )
    disk = find.known or next(d for d in db.disks.disks(conn) if d.serial == mark.serial)
    if disk.state in AWAY:
        return
    if disk.state is DiskState.SPARE:
        db.disks.activate(conn, disk, mark.opened_at)
    if find.marked.is_sealed and disk.state is not DiskState.CLOSED:
        db.disks.set_state(conn, disk, DiskState.CLOSED, why, at)
    if disk.id in _unsealed(conn):
        db.disks.note_event(conn, disk.id, at, "sealed", why)
    db.disks.measure(conn, disk, space.capacity_bytes, space.used_bytes, space.free_bytes, at)


def _unsealed(conn: db.Connection) -> set[int]:
    return {disk.id for disk in db.disks.unsealed_disks(conn)}


# --- packing lists ------------------------------------------------------------------------


def _close_by_lists(
    context: Context, inventory: Inventory, known: Collection[int]
) -> Iterator[Packed]:
    """Close the disks that are not there by the packing lists of their present use."""
    conn = context.conn
    for disk in _away(context, inventory, known):
        path = closing.packing_list_of(context, disk)
        if path is None:
            continue
        files, new, fault = 0, 0, None
        try:
            fault = _why_not(conn, disk, path)
            files, new = (0, 0) if fault else _close(conn, disk, path)
        except OSError as trouble:
            fault = f"it can't be read: {trouble.strerror or trouble}"
        except ManifestDamaged as trouble:
            fault = str(trouble)
        yield Packed(disk.label, disk.role, disk.serial, files, new, fault)


def _away(context: Context, inventory: Inventory, known: Collection[int]) -> Iterator[Disk]:
    """Yield disks that may have been filled, closed and taken away since the copy was made."""
    unsealed = _unsealed(context.conn)
    here = {find.held.disk.id for find in inventory.finds}
    not_used = {place.path for place in inventory.not_used}
    for disk in (each for each in db.disks.disks(context.conn) if each.id in known):
        is_open = disk.state in (DiskState.SPARE, DiskState.ACTIVE) or disk.id in unsealed
        places = {str(place) for place in context.config.mount_points(disk.label)}
        is_there = disk.id in here or disk.label in inventory.empty or places & not_used
        if is_open and not is_there:
            yield disk


def _why_not(conn: db.Connection, disk: Disk, path: Path) -> str | None:
    """Return what contradicts the list; nothing is written. Raises OSError, ManifestDamaged."""
    unknown, other, known_here = [], [], 0
    for line in manifest.read_list(path):
        row = db.copies.file_on(conn, disk, line.name)
        if row is None:
            unknown.append(line.name)
        elif row.sha512 != line.sha512:
            other.append(line.name)
        elif row.state is CopyState.GOOD:
            known_here += 1
    files, _ = db.copies.count_on(conn, disk)
    if other:
        why = f"{len(other)} of its lines say other content than the database"
    elif unknown:
        number = counted(
            len(unknown), "file of its packing list is", "files of its packing list are"
        )
        why = f"{number} on no disk that is here"
    elif files != known_here:
        whole = counted(files, "file", "files")
        return f"the database has {whole} on it, the list {known_here} of them"
    else:
        return None
    return f"{why}, {shown((other or unknown)[0])} among them"


def _close(conn: db.Connection, disk: Disk, path: Path) -> tuple[int, int]:
    """Return how many files it has, and how many of its copies are new to the database."""
    at, files, new = utc(path.stat().st_mtime), 0, 0
    lines = manifest.read_list(path)
    while chunk := list(islice(lines, CHUNK_LINES)):
        files += len(chunk)
        with db.transaction(conn):
            new += sum(_add_copy(conn, disk, line, at) for line in chunk)
    with db.transaction(conn):
        if disk.state is DiskState.SPARE:
            db.disks.activate(conn, disk, at)
        if disk.state is not DiskState.CLOSED:
            db.disks.set_state(conn, disk, DiskState.CLOSED, BY_LIST, at)
        db.disks.note_event(conn, disk.id, at, "sealed", BY_LIST)
    return files, new


def _add_copy(conn: db.Connection, disk: Disk, line: ManifestLine, at: str) -> bool:
    """True if the copy is new to the database."""
    row = db.copies.file_on(conn, disk, line.name)
    if row is None or row.state is not None:
        return False
    db.rebuild.add_unverified_copy(conn, row.file_id, disk, CopyState.GOOD, None, at)
    return True


# --- is it complete? ----------------------------------------------------------------------


def _note_begin(context: Context) -> None:
    """Stored before the first row, so that a killed run does not look complete."""
    context.findings.note(
        INCOMPLETE,
        "rebuild",
        f"{COMMAND} began at {utc_now()} and has not ended: the database does not know all that is "
        f"on the disks. No file is lost by it. Run it again: {COMMAND}",
        Severity.WARNING,
    )


def _note_end(context: Context, inventory: Inventory, closed: Collection[str]) -> None:
    """Report what this run could not read, until another run reads it."""
    lacking = dict(_not_read(context, inventory, closed))
    for key in context.findings.keys(INCOMPLETE):
        if key not in lacking:
            context.findings.clear([INCOMPLETE], key)
    for key, why in lacking.items():
        context.findings.note(INCOMPLETE, key, why, Severity.WARNING)


def _not_read(
    context: Context, inventory: Inventory, closed: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield the key and the text of each notice.

    A closed disk gets no files, so the database knows all of it. ``closed``: serials of those that
    were closed by their packing lists.
    """
    for place in inventory.not_used:
        yield (
            place.path,
            f"{place.why}. The disk at {place.path} was not used: the database may not know all "
            f"that is on it. Mount it where it belongs, or take it out; then: {COMMAND}",
        )
    for find in inventory.finds:
        with contextlib.suppress(OSError, CopyDamaged):  # logged by _take_in
            if why := catalog_copy.why_kept(context, find.held):
                yield catalog_copy.key_of(find.held), why
    unsealed = _unsealed(context.conn)
    for disk in inventory.absent:
        is_open = disk.state is DiskState.ACTIVE or disk.id in unsealed
        if is_open and disk.serial not in closed:
            yield (
                disk.label,
                f"{disk.label} ({disk.serial}) was not mounted: the database may not know all that "
                f"is on it. Mount it, then: {COMMAND}. If it has left the station, its packing "
                "list is wanted in packing-lists/ beside the database; then the same. If it is "
                f"dead or gone: data_manager.py lost {disk.label}",
            )
