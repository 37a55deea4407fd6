"""A disk is closed: reconciled with the catalogue, sealed as a bag, its packing list kept.

Whatever step it is cut short at, the next pass finishes it. The caller holds the turn (lock.py).
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

from poledata import bag, catalogue, db, keepsake, manifest, medium, mounts, sealing
from poledata.errors import FULL_ERRNOS, CannotClose, ManifestDamaged, Refused
from poledata.house import House
from poledata.identity import HeldDisk, must_be_writable
from poledata.lifecycle import must_be, the_disk
from poledata.notices import DISK_KINDS
from poledata.records import Disk, DiskState, ManifestLine, Written
from poledata.sealing import Found
from poledata.shelf import seal_bytes
from poledata.texts import seconds, shown, size_text, utc

log = logging.getLogger(__name__)


def close(house: House, disk: Disk, reason: str) -> str:
    """Seal a disk in use; nothing is written to it any more. Returns its removal slip.

    Raises Refused, DiskRefused, CannotClose (then the disk stays in use as it was), OSError.
    """
    must_be(disk, "closed", DiskState.ACTIVE)
    if disk.held_by:
        raise Refused(
            f"{disk.label} is held ({disk.held_reason}): nothing is written to it. Nothing was "
            f"changed. First: data_manager.py unhold {disk.label}"
        )
    with house.shelf() as shelf:
        held = shelf.hold_for_writing(disk, new_copies=False)
        sealing.nothing_aside(held.root_fd)
        house.board.settle_about("name-conflict", f"{disk.label} ")
        _reconcile(house, held)
        sealing.sort_manifest(held.root_fd)  # without room for it nothing has changed yet
        with db.transaction(house.conn):
            catalogue.set_state(house.conn, disk, DiskState.CLOSED, reason, _now())
        _keep_catalogue(house, held)
        return _finish(house, held, reason)


def close_for_a_person(house: House, disk: Disk) -> str:
    """The same, at a person's word. Raises Refused, DiskRefused, CannotClose."""
    try:
        return close(house, disk, "a person closed it")
    except (CannotClose, ManifestDamaged) as fault:
        raise CannotClose(
            f"{disk.label} can't be closed: {fault}. Nothing on it is lost. See copy-damaged in "
            "docs/operators.md"
        ) from fault
    except OSError as fault:
        if the_disk(house, disk.serial).state is DiskState.CLOSED:
            left = "It takes no more files. Leave it mounted: the next pass finishes closing it"
        else:
            left = "It stays in use, and nothing on it is lost. Mend that, and close it again"
        raise CannotClose(
            f"{disk.label} can't be closed: {fault.strerror or fault}. {left}. If it repeats, look "
            "at the kernel's log"
        ) from fault


def _keep_catalogue(house: House, held: HeldDisk) -> None:
    """The last copy of the database that this disk gets: the tag manifest holds it."""
    room_bytes = mounts.space(held.root_fd).free_bytes - seal_bytes(held)
    try:
        keepsake.keep(house, held, room_bytes)
    except OSError as fault:
        if fault.errno not in FULL_ERRNOS:
            raise
        log.info("%s is closed without a fresh copy of the database: no room", held.disk.label)


def finish_close(house: House, disk: Disk) -> str:
    """Finish a close that was cut short. Raises DiskRefused, OSError."""
    with house.shelf() as shelf:
        held = shelf.hold(disk)
        must_be_writable(held)
        return _finish(house, held, "a close that was cut short is finished")


def _finish(house: House, held: HeldDisk, reason: str) -> str:
    disk, closed_at = held.disk, _now()
    payload = sealing.seal(held.root_fd, closed_at)
    lists = house.config.db_path.with_name("packing-lists")
    try:
        packing_list = sealing.keep_packing_list(
            held.root_fd, lists, disk.label, disk.serial, closed_at
        )
    except OSError as fault:  # the station's fault: this disk has not failed
        raise CannotClose(f"its packing list can't be kept in {lists}: {fault.strerror}") from fault
    room = mounts.space(held.root_fd)
    slip = removal_slip(house, disk, payload, held.path, packing_list, reason)
    house.board.settle(("copy-damaged", *DISK_KINDS), disk.label)
    house.board.tell("disk-closed", disk.label, slip)  # first: after "sealed" nobody comes back
    with db.transaction(house.conn):
        catalogue.measure(
            house.conn,
            disk,
            room.capacity_bytes,
            room.used_bytes,
            room.free_bytes,
            disk.last_used_at or closed_at,
        )
        catalogue.note_event(house.conn, disk.id, closed_at, "sealed", reason)
    return slip


def removal_slip(
    house: House,
    disk: Disk,
    payload: sealing.Payload,
    place: Path,
    packing_list: Path,
    reason: str,
) -> str:
    """What a person needs who takes a full disk out."""
    disks = [d for d in catalogue.disks(house.conn) if d.role is disk.role]
    states = {state: sum(d.state is state for d in disks) for state in DiskState}
    first, last = disk.first_used_at or _now(), disk.last_used_at or _now()
    days = (seconds(last) - seconds(first)) / 86_400
    rate = f", {size_text(payload.size_bytes / days)} a day" if days >= 1 else ""
    return "\n".join(
        (
            f"{disk.label} is closed: {reason}.",
            f"Role {disk.role.value}, serial {disk.serial}, logical ID {disk.logical_id}.",
            f"In use from {first} to {last}: {payload.files} files, "
            f"{size_text(payload.size_bytes)}{rate}.",
            f"Packing list: {packing_list}",
            f"Now: 1. umount {place}  2. take the drive out and store it  "
            f"3. when it leaves: data_manager.py ship {disk.label}",
            f"{disk.role.value} disks: {states[DiskState.SPARE]} spare, "
            f"{states[DiskState.ACTIVE]} in use, {states[DiskState.CLOSED]} closed, "
            f"{states[DiskState.SHIPPED]} shipped.",
        )
    )


def _reconcile(house: House, held: HeldDisk) -> None:
    """Make catalogue, manifest and data/ one, by reading what they differ on."""
    rows = catalogue.copies_on(house.conn, held.disk)
    differing = [found for found in sealing.survey(held.root_fd, rows) if not found.agrees]
    with contextlib.closing(medium.HashingReader()) as reader:
        for found in differing:
            _adopt(house, held, found, reader)


def _adopt(house: House, held: HeldDisk, found: Found, reader: medium.HashingReader) -> None:
    """Write down a file that one of the three did not know; by now it is read back."""
    name = found.name
    if why := bag.why_not_carried(name):
        raise CannotClose(f"data/{shown(name)} can't stand in a manifest: {why}")
    if found.size_bytes is None:
        raise CannotClose(f"data/{shown(name)} is not there any more")
    copy = held.read_copy(name, reader, lambda _: None)
    sealing.must_be_settled(found, copy.sha512)
    known = catalogue.file(house.conn, name)
    if known and known.sha512 != copy.sha512:
        raise CannotClose(f"data/{shown(name)} is not what the database knows by this name")
    line = ManifestLine(copy.sha512, name, 0)
    if found.manifest_sha512 is None:
        line = manifest.append(held.root_fd, [(copy.sha512, name)])[0]
    written = Written(copy, line)
    with db.transaction(house.conn):
        catalogue.register(house.conn, name, copy.sha512, copy.stat, [(held.disk, written)], _now())
    log.warning("%s: data/%s was not registered in full; it is now", held.disk.label, shown(name))


def _now() -> str:
    return utc(time.time())
