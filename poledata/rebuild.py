"""Make the catalogue anew from the bags of the mounted disks, or complete an older one.

The story: the disks that were found are registered → each manifest is read and written down
(bagreading.py) → disks that have left are closed by their packing lists (packinglist.py) → a
person is told of what is not as it should be. Nothing is written to any disk.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from poledata import bagreading, catalogue, db, keepsake, mounts, sealing
from poledata.bagreading import BagReport
from poledata.diskmap import Entry
from poledata.errors import CopyDamaged
from poledata.house import House
from poledata.identity import HeldDisk
from poledata.inventory import Find, Inventory, NotUsed
from poledata.packinglist import Packed, close_by_lists
from poledata.records import Disk, DiskState, Severity
from poledata.texts import utc

COMMAND = "generate_db.py --from-disks"
FOUND_BY = f"Found by {COMMAND}"
INCOMPLETE = "database-error"  # with a key of ours: the database lacks what is on some disk
_NOT_OURS = ("database", "journal")  # keys of other troubles (delivery.py, watch.py)

log = logging.getLogger(__name__)


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
    house: House,
    inventory: Inventory,
    spares: Sequence[Entry],
    stop: threading.Event,
    is_dry: bool = False,
) -> Rebuilt:
    """The whole of it; the caller has the turn. Raises Stopped: run it again, and it goes on."""
    known = {disk.id for disk in catalogue.disks(house.conn)}
    _note_begin(house)
    _register_disks(house, inventory, spares)
    rows = {disk.serial: disk for disk in catalogue.disks(house.conn)}
    helds = [replace(find.held, disk=rows[_serial(find)]) for find in inventory.finds]
    reports = bagreading.read_all(house, helds, stop)
    for held, report in zip(helds, reports, strict=True):
        if held.disk.state is DiskState.CLOSED and not is_dry:
            _keep_packing_list(house, held, report)
        _tell(house, held.disk, report)
    by_copies = _take_in(house, inventory)
    packed = tuple(close_by_lists(house, _away(house, inventory, known)))
    closed = {one.serial for one in packed if not one.fault}
    _note_end(house, inventory, closed)
    labels = {disk.label for disk in rows.values()}
    return Rebuilt(
        str(house.config.db_path),
        is_dry,
        tuple(reports),
        inventory.not_used,
        packed,
        tuple(disk.label for disk in inventory.absent if disk.serial not in closed),
        tuple(label for label in inventory.empty if label not in labels),
        tuple(entry.label for entry in spares),
        by_copies=by_copies,
    )


def _take_in(house: House, inventory: Inventory) -> tuple[str, ...]:
    """Disks of which only a copy of the database on a mounted disk tells; their labels."""
    taken_in = []
    for find in inventory.finds:
        try:
            taken_in += keepsake.take_in(house, find.held)
        except (OSError, CopyDamaged) as fault:  # it helps; the bags were read
            log.warning("%s is not used: %s", keepsake.key_of(find.held), fault)
    return tuple(taken_in)


def _away(house: House, inventory: Inventory, known: Collection[int]) -> Iterator[Disk]:
    """Disks that may have been filled, closed and taken away since the copy was made."""
    unsealed = {disk.id for disk in catalogue.unsealed_disks(house.conn)}
    here = {find.held.disk.id for find in inventory.finds}
    taken = {place.path for place in inventory.not_used}
    for disk in (each for each in catalogue.disks(house.conn) if each.id in known):
        is_open = disk.state in (DiskState.SPARE, DiskState.ACTIVE) or disk.id in unsealed
        places = {str(place) for place in house.config.mount_points(disk.label)}
        is_there = disk.id in here or disk.label in inventory.empty or places & taken
        if is_open and not is_there:
            yield disk


# --- is it complete? ----------------------------------------------------------------------


def _note_begin(house: House) -> None:
    """Stored before the first row, so that a run which is killed can't pass for a whole one."""
    house.board.tell(
        INCOMPLETE,
        "rebuild",
        f"{COMMAND} began at {_now()} and has not ended: the database does not know all that is "
        f"on the disks. No file is lost by it. Run it again: {COMMAND}",
        Severity.WARNING,
    )


def _note_end(house: House, inventory: Inventory, closed: Collection[str]) -> None:
    """What this run could not read is said until another one reads it, or a person noted it."""
    lacking = dict(_not_read(house, inventory, closed))
    for key in house.board.open_keys(INCOMPLETE):
        if key not in (*lacking, *_NOT_OURS):
            house.board.settle([INCOMPLETE], key)
    for key, why in lacking.items():
        house.board.tell(INCOMPLETE, key, why, Severity.WARNING)


def _not_read(
    house: House, inventory: Inventory, closed: Collection[str]
) -> Iterator[tuple[str, str]]:
    """A key and a text each. A closed disk gets no files: of it the database knows all.

    ``closed``: serials of those that were closed by their packing lists.
    """
    for place in inventory.not_used:
        yield (
            place.path,
            f"{place.why}. The disk at {place.path} was not used: the database may not know all "
            f"that is on it. Mount it where it belongs, or take it out; then: {COMMAND}",
        )
    for find in inventory.finds:
        with contextlib.suppress(OSError, CopyDamaged):  # said by _take_in
            if why := keepsake.why_kept(house, find.held):
                yield keepsake.key_of(find.held), why
    unsealed = {disk.id for disk in catalogue.unsealed_disks(house.conn)}
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


# --- registering --------------------------------------------------------------------------


def _serial(find: Find) -> str:
    return find.known.serial if find.known else find.marked.mark.serial


def _register_disks(house: House, inventory: Inventory, spares: Sequence[Entry]) -> None:
    """All at once: whoever looks from now on finds every disk that is there."""
    rooms = [mounts.space(find.held.root_fd) for find in inventory.finds]
    is_stand_in = not house.config.require_mount
    with db.transaction(house.conn):
        for find, room in zip(inventory.finds, rooms, strict=True):
            _register(house.conn, find, room)
        for e in spares:
            catalogue.add_disk(
                house.conn, e.label, e.role, e.serial, e.logical_id, is_stand_in, _now()
            )


def _register(conn: db.Connection, find: Find, room: mounts.Space) -> None:
    """A disk, in the state in which it is; so that no pass wants to finish a sealed one's close."""
    mark, at, why = find.marked.mark, find.marked.last_used_at, "rebuilt from its bag"
    disk = find.known or _add(conn, find)
    if disk.state is DiskState.SHIPPED:
        return
    if disk.state is DiskState.SPARE:
        catalogue.activate(conn, disk, mark.opened_at)
    if find.marked.is_sealed and disk.state is not DiskState.CLOSED:
        catalogue.set_state(conn, disk, DiskState.CLOSED, why, at)
    if disk.id in {unsealed.id for unsealed in catalogue.unsealed_disks(conn)}:
        catalogue.note_event(conn, disk.id, at, "sealed", why)
    catalogue.measure(conn, disk, room.capacity_bytes, room.used_bytes, room.free_bytes, at)


def _add(conn: db.Connection, find: Find) -> Disk:
    mark = find.marked.mark
    catalogue.add_disk(
        conn, mark.label, mark.role, mark.serial, mark.logical_id, mark.stand_in, _now()
    )
    return next(disk for disk in catalogue.disks(conn) if disk.serial == mark.serial)


def _keep_packing_list(house: House, held: HeldDisk, report: BagReport) -> None:
    """The lists stand beside the database, and may be lost with it."""
    lists, disk = house.config.db_path.with_name("packing-lists"), held.disk
    at = disk.last_used_at or _now()
    try:
        sealing.keep_packing_list(held.root_fd, lists, disk.label, disk.serial, at)
    except OSError as fault:
        report.faults.append(f"its packing list can't be kept: {fault.strerror or fault}")


def _tell(house: House, disk: Disk, report: BagReport) -> None:
    """One notice a disk; it ends with the run that finds nothing, or when ``verify`` does."""
    about = disk.known_as
    if report.is_well:
        is_ours = FOUND_BY in house.board.text("copy-damaged", about)
        if is_ours and not catalogue.bad_copies_on(house.conn, disk):
            house.board.settle(["copy-damaged"], about)
        return
    bad = len(report.missing) + len(report.damaged) + len(report.lost)
    house.board.tell(
        "copy-damaged",
        about,
        f"By its manifest {bad} files are missing or damaged there, {len(report.differences)} are "
        f"not what another disk says, {len(report.without_line)} files have no line; "
        f"{len(report.faults)} faults. {FOUND_BY}, which lists them.",
    )


def _now() -> str:
    return utc(time.time())
