"""A disk's way after its first use: shipped, held, lost or forgotten; closing.py closes it.

Each function is one thing that a person, or a pass, does to one disk; it returns what the
person may do now, and refuses what makes no sense. The caller holds the turn (lock.py).
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from poledata import catalogue, db
from poledata.choice import label_key
from poledata.errors import DiskRefused, Refused
from poledata.house import House
from poledata.identity import mounted_at
from poledata.notices import DISK_KINDS, SMART_KINDS
from poledata.records import GONE, Disk, DiskState, Role, Severity
from poledata.shelf import Shelf
from poledata.texts import counted, shown, size_text, utc

HOLD_AFTER_ERRORS = 3  # passes running
LOOKED_FOR = 100  # copies of which one is enough to know a disk that is not at its place
HELD_AT_ONCE = 2  # more failing at once have a common cause: cable, power, controller
SMART_HOLD = "SMART: "  # how the reason of a hold begins that only a later SMART check lifts
# With a label as its key ``database-error`` says that the database may not know all of a disk.
_KINDS_OF_A_DISK = ("disk-closed", "database-error", *DISK_KINDS, *SMART_KINDS)

log = logging.getLogger(__name__)


def the_disk(house: House, label_or_serial: str) -> Disk:
    """The disk that a person names. Raises Refused."""
    found = catalogue.find_disks(house.conn, label_or_serial)
    if not found:
        labels = sorted({disk.label for disk in catalogue.disks(house.conn)}, key=label_key)
        there = f"The labels are {', '.join(labels)}" if labels else "The database has no disk"
        raise Refused(
            f"No disk has the label or serial {label_or_serial}. {there}. Nothing was changed."
        )
    if len(found) > 1:
        serials = ", ".join(f"{disk.serial} ({disk.state.value})" for disk in found)
        raise Refused(
            f"{label_or_serial} is the label of several disks that are gone: {serials}. "
            "Nothing was changed. Name it by its serial."
        )
    return found[0]


# --- ship, lose, forget -------------------------------------------------------------------


def ship(house: House, disks: Iterable[Disk]) -> str:
    """Closed disks leave the station: all of them, or none. Raises Refused."""
    disks = list(dict.fromkeys(disks))
    unsealed = {disk.id for disk in catalogue.unsealed_disks(house.conn)}
    for disk in disks:
        must_be(disk, "shipped", DiskState.CLOSED)
        if disk.id in unsealed:
            first = f"data_manager.py unhold {disk.label}, mount it" if disk.held_by else "Mount it"
            raise Refused(
                f"{disk.label} is not wholly closed. Nothing was changed. {first} and let the "
                "next pass finish, then ship it."
            )
        if place := _still_mounted_at(house, disk):
            raise Refused(
                f"{disk.label} is still mounted. Nothing was changed. First: sudo umount "
                f"{shlex.quote(str(place))}"
            )
        if lacking := catalogue.lacking_another(house.conn, disk):
            raise Refused(
                f"{len(lacking)} files on {disk.label} have no other copy, {shown(lacking[0])} "
                "among them. Nothing was changed. Keep it here until they have one."
            )
    with db.transaction(house.conn):
        for disk in disks:
            catalogue.set_state(house.conn, disk, DiskState.SHIPPED, None, _now())
            _end_notices(house, disk)
            house.board.pass_on("copy-damaged", disk.label, disk.serial)  # the label is free now
    labels = ", ".join(disk.label for disk in disks)
    return f"{labels}: noted as shipped. The labels may be used again, by another drive."


def _end_notices(house: House, disk: Disk) -> None:
    """Those that are about the disk itself; what stands of its copies is another matter."""
    house.board.settle(_KINDS_OF_A_DISK, disk.label)
    house.board.settle_about("defect", f"{disk.label}: ")


def _still_mounted_at(house: House, disk: Disk) -> Path | None:
    """Where this very disk is, not another one of its label, be it at another place than its own.

    A stand-in has nowhere to go.
    """
    if disk.stand_in:
        return None
    try:
        with house.shelf() as shelf:
            return shelf.hold(disk).path
    except DiskRefused:
        some_ids = catalogue.copy_ids_on(house.conn, disk)[:LOOKED_FOR]
        return mounted_at(disk, [catalogue.file_by_id(house.conn, one) for one in some_ids])


def lose(house: House, disk: Disk, why: str) -> str:
    """A disk is dead, gone or wiped: its copies are missing from now on. Raises Refused."""
    if disk.state is DiskState.LOST:
        raise Refused(f"{disk.label} ({disk.serial}) is lost already. Nothing was changed.")
    if place := _still_mounted_at(house, disk):
        raise Refused(
            f"{disk.label} ({disk.serial}) is mounted at {place} and responds: it is not lost. "
            f"Nothing was changed. To take it out of use: data_manager.py hold {disk.label}. If "
            f"you have to give it up, first: sudo umount {shlex.quote(str(place))}"
        )
    files, size_bytes = catalogue.count_on(house.conn, disk)
    with db.transaction(house.conn):
        bad = catalogue.bad_copies(house.conn, disk)
        catalogue.note_event(house.conn, disk.id, _now(), catalogue.BAD_BEFORE_LOSS, bad)
        catalogue.copies_are_missing(house.conn, disk)
        catalogue.set_state(house.conn, disk, DiskState.LOST, why, _now())
        if disk.state is not DiskState.SHIPPED:  # else the label may be another drive's by now
            _end_notices(house, disk)
            house.board.settle(["copy-damaged"], disk.label)
        house.board.settle(["copy-damaged", *DISK_KINDS], disk.serial)
        gone = tell_no_good_copy(house, disk)
    return (
        f"{disk.label} ({disk.serial}) is lost: {files} copies ({size_text(size_bytes)}) are "
        f"noted as missing; {counted(gone, 'file has', 'files have')} no good copy left. Make the "
        "others again: data_manager.py repair. "
        f"The label {disk.label} may be used again, by another drive. "
        f"If this was a mistake: data_manager.py lost --undo {disk.serial}"
    )


def undo_loss(house: House, label_or_serial: str) -> str:
    """A disk was noted as lost by mistake: it, and its copies, are as before. Raises Refused."""
    disk = _the_lost_disk(house, label_or_serial)
    state, bad = catalogue.before_loss(house.conn, disk)
    _must_be_possible(house, replace(disk, state=state))
    with db.transaction(house.conn):
        catalogue.not_lost(house.conn, disk, state, _now())
        catalogue.copies_are_back(house.conn, disk, bad)
        settle_no_good_copy(house)
    files, size_bytes = catalogue.count_on(house.conn, disk)
    read = f" Read them: data_manager.py verify {disk.serial}" if bad is None else ""
    return (
        f"{disk.label} ({disk.serial}) is {state.value} again, and {files} copies "
        f"({size_text(size_bytes)}) on it count again.{read}"
    )


def _the_lost_disk(house: House, label_or_serial: str) -> Disk:
    disk = the_disk(house, label_or_serial)
    if disk.state is not DiskState.LOST:
        lost = [d for d in catalogue.disks(house.conn) if d.state is DiskState.LOST]
        serials = [d.serial for d in lost if d.label == disk.label]
        which = f" Name the lost one by its serial: {', '.join(serials)}" if serials else ""
        raise Refused(
            f"{disk.label} ({disk.serial}) is {disk.state.value}, not lost. Nothing was "
            f"changed.{which}"
        )
    return disk


def _must_be_possible(house: House, disk: Disk) -> None:
    """Raises Refused where the label has another drive by now, or the drive has been wiped."""
    for other in catalogue.disks(house.conn):
        is_taken = other.id != disk.id and other.label == disk.label and other.state not in GONE
        if is_taken and disk.state not in GONE:
            raise Refused(
                f"The label {disk.label} belongs to the drive {other.serial} "
                f"({other.state.value}) now. Nothing was changed. If that one was never used, "
                f"first: data_manager.py forget {other.label}"
            )
    try:
        with house.shelf() as shelf:
            shelf.hold(disk)
    except DiskRefused as refusal:
        if refusal.kind == "disk-wrong":
            raise Refused(f"{disk.label}: {refusal.why}. Nothing was changed.") from refusal


def tell_no_good_copy(house: House, disk: Disk) -> int:
    """Whether files of a disk have no good copy any more; how many."""
    gone = catalogue.without_good_copy(house.conn, disk)
    if gone:
        one, many = f"file that was on {disk.label} has", f"files that were on {disk.label} have"
        house.board.tell(
            "no-good-copy",
            disk.serial,
            f"{counted(len(gone), one, many)} no good copy left, {shown(gone[0])} among them. "
            "Those still in the buffer are copied anew; for the others try to save the drives.",
            value=float(len(gone)),
        )
    return len(gone)


def settle_mended(house: House) -> None:
    """Files of which a bad copy was told, and that have two good ones by now."""
    for name in house.board.open_keys("copy-damaged"):
        if catalogue.has_both_copies(house.conn, name):
            house.board.settle(["copy-damaged"], name)
    settle_no_good_copy(house)


def settle_no_good_copy(house: House) -> None:
    """Files of a lost disk may have been copied anew from the buffer."""
    for serial in house.board.open_keys("no-good-copy"):
        if not catalogue.without_good_copy(house.conn, the_disk(house, serial)):
            house.board.settle(["no-good-copy"], serial)


def forget(house: House, disks: Iterable[Disk]) -> str:
    """Drives that were never used leave the database: all of them, or none. Raises Refused."""
    disks = list(dict.fromkeys(disks))
    for disk in disks:
        _must_be_unused(house, disk)
    with db.transaction(house.conn):
        for disk in disks:
            catalogue.forget_disk(house.conn, disk)
            _end_notices(house, disk)
    return "\n".join(
        f"{disk.label} ({disk.serial}) was removed from the database. Delete its line in the "
        "disk-map too, or it comes back."
        for disk in disks
    )


def _must_be_unused(house: House, disk: Disk) -> None:
    was_used = disk.first_used_at or catalogue.had_copies(house.conn, disk)
    if disk.state is not DiskState.SPARE or was_used:
        is_lost = disk.state is DiskState.LOST
        way = f' If it is dead or gone: data_manager.py lost {disk.label} --why "…"'
        raise Refused(
            f"{disk.label} is {disk.state.value} and was used: it can't be forgotten. Nothing was "
            f"changed.{'' if is_lost else way}"
        )


# --- hold ---------------------------------------------------------------------------------


def hold(house: House, disk: Disk, why: str) -> str:
    """A person takes a disk out of use, until ``unhold``. Raises Refused."""
    if disk.state in GONE:
        raise Refused(f"{disk.label} is {disk.state.value}: nothing to hold. Nothing was changed.")
    if disk.held_by == "person":
        raise Refused(f"{disk.label} is held already: {disk.held_reason}. Nothing was changed.")
    with db.transaction(house.conn):
        catalogue.hold(house.conn, disk, "person", why, _now())
    place = house.place(disk)
    return (
        f"{disk.label} is held: nothing is written to it, and its copies are no ground for "
        f"removing files. It is free: umount {place}\n"
        f"When it is well again: data_manager.py unhold {disk.label}"
    )


def unhold(house: House, disk: Disk) -> str:
    """Give a held disk back. Raises Refused."""
    if disk.state in GONE:
        raise Refused(
            f"{disk.label} is {disk.state.value}: nothing to give back. Nothing was changed."
        )
    if disk.held_by is None:
        raise Refused(f"{disk.label} is not held. Nothing was changed.")
    with db.transaction(house.conn):
        catalogue.unhold(house.conn, disk, "by a person", _now())
    house.board.settle(["disk-error"], disk.label)
    if disk.state is DiskState.CLOSED:
        return f"{disk.label} is not held any more. It is closed: nothing is written to it."
    return f"{disk.label} may be used again ({disk.state.value}), once it is mounted."


def hold_failing(
    house: House,
    disks: list[Disk],
    why: str = f"it failed in {HOLD_AFTER_ERRORS} passes running",
    kind: str = "disk-error",
) -> None:
    """The machine holds disks that failed in pass after pass, or say so, within bounds.

    Never a role's last usable disk; and where more than two fail at once, none: they have
    a common cause.
    """
    failing = [disk for disk in disks if disk.held_by is None]
    held_now = [
        disk
        for disk in catalogue.disks(house.conn)
        if disk.held_by == "machine" and disk.state in (DiskState.ACTIVE, DiskState.SPARE)
    ]
    if failing and len(failing) + len(held_now) > HELD_AT_ONCE:
        labels = ", ".join(disk.label for disk in (*failing, *held_now))
        house.board.tell(
            kind,
            "several",
            f"{labels} fail at once: look for a common cause (cable, power, controller). None "
            "more is held. Files stay safe in the buffer.",
            Severity.CRITICAL,
        )
        return
    house.board.settle([kind], "several")
    for disk in failing:
        if has_another_usable(house, disk, failing):
            with db.transaction(house.conn):
                catalogue.hold(house.conn, disk, "machine", why, _now())
            log.warning("%s is held by the machine", disk.label)


def is_held_for_smart(disk: Disk) -> bool:
    """Held by the machine for what the drive itself reports, not for errors in passes."""
    return disk.held_by == "machine" and (disk.held_reason or "").startswith(SMART_HOLD)


def has_another_usable(house: House, disk: Disk, failing: Iterable[Disk]) -> bool:
    """Whether its role has another disk in use or spare, which is well and not held."""
    return _has_usable(house, disk.role, {disk.id, *(other.id for other in failing)})


def _has_usable(house: House, role: Role, out: Collection[int] = ()) -> bool:
    with house.shelf() as shelf:
        for disk in catalogue.disks(house.conn):
            if disk.role is role and disk.id not in out and _is_usable(shelf, disk):
                return True
    return False


def settle_no_disk(house: House) -> None:
    """Every file that this run came to had its disk, and there is one: for those to come, too."""
    for role in house.board.open_keys("no-disk"):
        if not house.board.was_told("no-disk", role) and _has_usable(house, Role(role)):
            house.board.settle(["no-disk"], role)


def _is_usable(shelf: Shelf, disk: Disk) -> bool:
    if disk.state not in (DiskState.ACTIVE, DiskState.SPARE) or disk.held_by:
        return False
    try:
        return shelf.room(shelf.hold_to_copy_to(disk)).takes(0)
    except DiskRefused as refusal:
        log.debug("%s", refusal)
        return False


def must_be(disk: Disk, what: str, state: DiskState) -> None:
    if disk.state is not state:
        raise Refused(
            f"{disk.label} is {disk.state.value}: only a disk that is {state.value} can be {what}. "
            "Nothing was changed."
        )


def _now() -> str:
    return utc(time.time())
