"""Make the catalogue anew from the bags of the mounted disks, or complete an older one.

The story: the disks that were found are registered → each manifest is read and written down
(bagreading.py) → a person is told of what is not as it should be. Nothing is written to any disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from poledata import bagreading, catalogue, db, mounts, sealing
from poledata.bagreading import BagReport
from poledata.diskmap import Entry
from poledata.house import House
from poledata.identity import HeldDisk
from poledata.inventory import Find, Inventory, NotUsed
from poledata.records import Disk, DiskState
from poledata.texts import utc


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found and written down."""

    db_path: str
    is_dry: bool
    disks: tuple[BagReport, ...]
    not_used: tuple[NotUsed, ...]
    not_mounted: tuple[str, ...]  # disks in use or closed that were not there
    empty: tuple[str, ...]  # mounted empty disks that the database does not know
    spares_added: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        return not self.not_used and all(report.is_well for report in self.disks)


def rebuild(
    house: House,
    inventory: Inventory,
    spares: Sequence[Entry],
    stop: threading.Event,
    is_dry: bool = False,
) -> Rebuilt:
    """The whole of it; the caller has the turn. Raises Stopped: run it again, and it goes on."""
    _register_disks(house, inventory, spares)
    rows = {disk.serial: disk for disk in catalogue.disks(house.conn)}
    helds = [replace(find.held, disk=rows[_serial(find)]) for find in inventory.finds]
    reports = bagreading.read_all(house, helds, stop)
    for held, report in zip(helds, reports, strict=True):
        if held.disk.state is DiskState.CLOSED and not is_dry:
            _keep_packing_list(house, held, report)
        _tell(house, report)
    labels = {disk.label for disk in rows.values()}
    return Rebuilt(
        str(house.config.db_path),
        is_dry,
        tuple(reports),
        inventory.not_used,
        tuple(disk.label for disk in inventory.absent),
        tuple(label for label in inventory.empty if label not in labels),
        tuple(entry.label for entry in spares),
    )


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


def _tell(house: House, report: BagReport) -> None:
    """One notice a disk; ``verify`` settles it once all its copies are good."""
    if report.is_well:
        return
    bad = len(report.missing) + len(report.damaged) + len(report.lost)
    house.board.tell(
        "copy-damaged",
        report.label,
        f"By its manifest {bad} files are missing or damaged there, {len(report.differences)} are "
        f"not what another disk says, {len(report.without_line)} files have no line; "
        f"{len(report.faults)} faults. Found by generate_db.py --from-disks, which lists them.",
    )


def _now() -> str:
    return utc(time.time())
