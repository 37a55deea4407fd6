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

from poledata import db
from poledata.context import Context
from poledata.disks.identity import mounted_at
from poledata.disks.mounted_disks import MountedDisks
from poledata.disks.selection import label_key
from poledata.errors import DiskRefused, Refused
from poledata.formatting import counted, shown, size_text, utc
from poledata.models import GONE, Disk, DiskState, Role, Severity
from poledata.notices.kinds import DISK_KINDS, SMART_KINDS

HOLD_AFTER_ERRORS = 3  # passes running
LOOKED_FOR = 100  # copies of which one is enough to know a disk that is not at its place
HELD_AT_ONCE = 2  # more failing at once have a common cause: cable, power, controller
SMART_HOLD = "SMART: "  # how the reason of a hold begins that only a later SMART check lifts
# With a label as its key ``database-error`` says that the database may not know all of a disk.
_KINDS_OF_A_DISK = ("disk-closed", "database-error", *DISK_KINDS, *SMART_KINDS)

log = logging.getLogger(__name__)


def the_disk(context: Context, label_or_serial: str) -> Disk:
    """The disk that a person names. Raises Refused."""
    found = db.disks.find_disks(context.conn, label_or_serial)
    if not found:
        labels = sorted({disk.label for disk in db.disks.disks(context.conn)}, key=label_key)
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


def ship(context: Context, disks: Iterable[Disk]) -> str:
    """Closed disks leave the station: all of them, or none. Raises Refused."""
    disks = list(dict.fromkeys(disks))
    unsealed = {disk.id for disk in db.disks.unsealed_disks(context.conn)}
    for disk in disks:
        must_be(disk, "shipped", DiskState.CLOSED)
        if disk.id in unsealed:
            first = f"data_manager.py unhold {disk.label}, mount it" if disk.held_by else "Mount it"
            raise Refused(
                f"{disk.label} is not wholly closed. Nothing was changed. {first} and let the "
                "next pass finish, then ship it."
            )
        if place := _still_mounted_at(context, disk):
            raise Refused(
                f"{disk.label} is still mounted. Nothing was changed. First: sudo umount "
                f"{shlex.quote(str(place))}"
            )
        if lacking := db.copies.lacking_another(context.conn, disk):
            raise Refused(
                f"{len(lacking)} files on {disk.label} have no other copy, {shown(lacking[0])} "
                "among them. Nothing was changed. Keep it here until they have one."
            )
    with db.transaction(context.conn):
        for disk in disks:
            db.disks.set_state(context.conn, disk, DiskState.SHIPPED, None, _now())
            _end_notices(context, disk)
            context.board.pass_on("copy-damaged", disk.label, disk.serial)  # the label is free now
    labels = ", ".join(disk.label for disk in disks)
    return f"{labels}: noted as shipped. The labels may be used again, by another drive."


def _end_notices(context: Context, disk: Disk) -> None:
    """Those that are about the disk itself; what stands of its copies is another matter."""
    context.board.settle(_KINDS_OF_A_DISK, disk.label)
    context.board.settle_about("defect", f"{disk.label}: ")


def _still_mounted_at(context: Context, disk: Disk) -> Path | None:
    """Where this very disk is, not another one of its label, be it at another place than its own.

    A stand-in has nowhere to go.
    """
    if disk.stand_in:
        return None
    try:
        with MountedDisks(context.config, context.conn) as mounted:
            return mounted.hold(disk).path
    except DiskRefused:
        some_ids = db.copies.copy_ids_on(context.conn, disk)[:LOOKED_FOR]
        return mounted_at(disk, [db.files.file_by_id(context.conn, one) for one in some_ids])


def lose(context: Context, disk: Disk, why: str) -> str:
    """A disk is dead, gone or wiped: its copies are missing from now on. Raises Refused."""
    if disk.state is DiskState.LOST:
        raise Refused(f"{disk.label} ({disk.serial}) is lost already. Nothing was changed.")
    if place := _still_mounted_at(context, disk):
        raise Refused(
            f"{disk.label} ({disk.serial}) is mounted at {place} and responds: it is not lost. "
            f"Nothing was changed. To take it out of use: data_manager.py hold {disk.label}. If "
            f"you have to give it up, first: sudo umount {shlex.quote(str(place))}"
        )
    files, size_bytes = db.copies.count_on(context.conn, disk)
    with db.transaction(context.conn):
        bad = db.copies.bad_copies(context.conn, disk)
        db.disks.note_event(context.conn, disk.id, _now(), db.disks.BAD_BEFORE_LOSS, bad)
        db.copies.note_all_missing(context.conn, disk)
        db.disks.set_state(context.conn, disk, DiskState.LOST, why, _now())
        if disk.state is not DiskState.SHIPPED:  # else the label may be another drive's by now
            _end_notices(context, disk)
            context.board.settle(["copy-damaged"], disk.label)
        context.board.settle(["copy-damaged", *DISK_KINDS], disk.serial)
        gone = tell_no_good_copy(context, disk)
    return (
        f"{disk.label} ({disk.serial}) is lost: {files} copies ({size_text(size_bytes)}) are "
        f"noted as missing; {counted(gone, 'file has', 'files have')} no good copy left. Make the "
        "others again: data_manager.py repair. "
        f"The label {disk.label} may be used again, by another drive. "
        f"If this was a mistake: data_manager.py lost --undo {disk.serial}"
    )


def undo_loss(context: Context, label_or_serial: str) -> str:
    """A disk was noted as lost by mistake: it, and its copies, are as before. Raises Refused."""
    disk = _the_lost_disk(context, label_or_serial)
    state, bad = db.disks.before_loss(context.conn, disk)
    _must_be_possible(context, replace(disk, state=state))
    with db.transaction(context.conn):
        why = f"it is {state.value} again"
        db.disks.set_state(context.conn, disk, state, why, _now(), "not lost")
        db.copies.restore_states(context.conn, disk, bad)
        settle_no_good_copy(context)
    files, size_bytes = db.copies.count_on(context.conn, disk)
    read = f" Read them: data_manager.py verify {disk.serial}" if bad is None else ""
    return (
        f"{disk.label} ({disk.serial}) is {state.value} again, and {files} copies "
        f"({size_text(size_bytes)}) on it count again.{read}"
    )


def _the_lost_disk(context: Context, label_or_serial: str) -> Disk:
    disk = the_disk(context, label_or_serial)
    if disk.state is not DiskState.LOST:
        lost = [d for d in db.disks.disks(context.conn) if d.state is DiskState.LOST]
        serials = [d.serial for d in lost if d.label == disk.label]
        which = f" Name the lost one by its serial: {', '.join(serials)}" if serials else ""
        raise Refused(
            f"{disk.label} ({disk.serial}) is {disk.state.value}, not lost. Nothing was "
            f"changed.{which}"
        )
    return disk


def _must_be_possible(context: Context, disk: Disk) -> None:
    """Raises Refused where the label has another drive by now, or the drive has been wiped."""
    for other in db.disks.disks(context.conn):
        is_taken = other.id != disk.id and other.label == disk.label and other.state not in GONE
        if is_taken and disk.state not in GONE:
            raise Refused(
                f"The label {disk.label} belongs to the drive {other.serial} "
                f"({other.state.value}) now. Nothing was changed. If that one was never used, "
                f"first: data_manager.py forget {other.label}"
            )
    try:
        with MountedDisks(context.config, context.conn) as mounted:
            mounted.hold(disk)
    except DiskRefused as refusal:
        if refusal.kind == "disk-wrong":
            raise Refused(f"{disk.label}: {refusal.why}. Nothing was changed.") from refusal


def tell_no_good_copy(context: Context, disk: Disk) -> int:
    """Whether files of a disk have no good copy any more; how many."""
    gone = db.copies.without_good_copy(context.conn, disk)
    if gone:
        one, many = f"file that was on {disk.label} has", f"files that were on {disk.label} have"
        context.board.tell(
            "no-good-copy",
            disk.serial,
            f"{counted(len(gone), one, many)} no good copy left, {shown(gone[0])} among them. "
            "Those still in the buffer are copied anew; for the others try to save the drives.",
            value=float(len(gone)),
        )
    return len(gone)


def settle_mended(context: Context) -> None:
    """Files of which a bad copy was told, and that have two good ones by now."""
    for name in context.board.open_keys("copy-damaged"):
        if db.copies.has_both_copies(context.conn, name):
            context.board.settle(["copy-damaged"], name)
    settle_no_good_copy(context)


def settle_no_good_copy(context: Context) -> None:
    """Files of a lost disk may have been copied anew from the buffer."""
    for serial in context.board.open_keys("no-good-copy"):
        if not db.copies.without_good_copy(context.conn, the_disk(context, serial)):
            context.board.settle(["no-good-copy"], serial)


def forget(context: Context, disks: Iterable[Disk]) -> str:
    """Drives that were never used leave the database: all of them, or none. Raises Refused."""
    disks = list(dict.fromkeys(disks))
    for disk in disks:
        _must_be_unused(context, disk)
    with db.transaction(context.conn):
        for disk in disks:
            db.disks.forget_disk(context.conn, disk)
            _end_notices(context, disk)
    return "\n".join(
        f"{disk.label} ({disk.serial}) was removed from the database. Delete its line in the "
        "disk-map too, or it comes back."
        for disk in disks
    )


def _must_be_unused(context: Context, disk: Disk) -> None:
    was_used = disk.first_used_at or db.copies.had_copies(context.conn, disk)
    if disk.state is not DiskState.SPARE or was_used:
        is_lost = disk.state is DiskState.LOST
        way = f' If it is dead or gone: data_manager.py lost {disk.label} --why "…"'
        raise Refused(
            f"{disk.label} is {disk.state.value} and was used: it can't be forgotten. Nothing was "
            f"changed.{'' if is_lost else way}"
        )


# --- hold ---------------------------------------------------------------------------------


def hold(context: Context, disk: Disk, why: str) -> str:
    """A person takes a disk out of use, until ``unhold``. Raises Refused."""
    if disk.state in GONE:
        raise Refused(f"{disk.label} is {disk.state.value}: nothing to hold. Nothing was changed.")
    if disk.held_by == "person":
        raise Refused(f"{disk.label} is held already: {disk.held_reason}. Nothing was changed.")
    with db.transaction(context.conn):
        db.disks.hold(context.conn, disk, "person", why, _now())
    place = context.place(disk)
    return (
        f"{disk.label} is held: nothing is written to it, and its copies are no ground for "
        f"removing files. It is free: umount {place}\n"
        f"When it is well again: data_manager.py unhold {disk.label}"
    )


def unhold(context: Context, disk: Disk) -> str:
    """Give a held disk back. Raises Refused."""
    if disk.state in GONE:
        raise Refused(
            f"{disk.label} is {disk.state.value}: nothing to give back. Nothing was changed."
        )
    if disk.held_by is None:
        raise Refused(f"{disk.label} is not held. Nothing was changed.")
    with db.transaction(context.conn):
        db.disks.unhold(context.conn, disk, "by a person", _now())
    context.board.settle(["disk-error"], disk.label)
    if disk.state is DiskState.CLOSED:
        return f"{disk.label} is not held any more. It is closed: nothing is written to it."
    return f"{disk.label} may be used again ({disk.state.value}), once it is mounted."


def hold_failing(
    context: Context,
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
        for disk in db.disks.disks(context.conn)
        if disk.held_by == "machine" and disk.state in (DiskState.ACTIVE, DiskState.SPARE)
    ]
    if failing and len(failing) + len(held_now) > HELD_AT_ONCE:
        labels = ", ".join(disk.label for disk in (*failing, *held_now))
        context.board.tell(
            kind,
            "several",
            f"{labels} fail at once: look for a common cause (cable, power, controller). None "
            "more is held. Files stay safe in the buffer.",
            Severity.CRITICAL,
        )
        return
    context.board.settle([kind], "several")
    for disk in failing:
        if has_another_usable(context, disk, failing):
            with db.transaction(context.conn):
                db.disks.hold(context.conn, disk, "machine", why, _now())
            log.warning("%s is held by the machine", disk.label)


def is_held_for_smart(disk: Disk) -> bool:
    """Held by the machine for what the drive itself reports, not for errors in passes."""
    return disk.held_by == "machine" and (disk.held_reason or "").startswith(SMART_HOLD)


def has_another_usable(context: Context, disk: Disk, failing: Iterable[Disk]) -> bool:
    """Whether its role has another disk in use or spare, which is well and not held."""
    return _has_usable(context, disk.role, {disk.id, *(other.id for other in failing)})


def _has_usable(context: Context, role: Role, out: Collection[int] = ()) -> bool:
    with MountedDisks(context.config, context.conn) as mounted:
        for disk in db.disks.disks(context.conn):
            if disk.role is role and disk.id not in out and _is_usable(mounted, disk):
                return True
    return False


def settle_no_disk(context: Context) -> None:
    """Every file that this run came to had its disk, and there is one: for those to come, too."""
    for role in context.board.open_keys("no-disk"):
        if not context.board.was_told("no-disk", role) and _has_usable(context, Role(role)):
            context.board.settle(["no-disk"], role)


def _is_usable(mounted: MountedDisks, disk: Disk) -> bool:
    if disk.state not in (DiskState.ACTIVE, DiskState.SPARE) or disk.held_by:
        return False
    try:
        return mounted.room(mounted.hold_to_copy_to(disk)).takes(0)
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
