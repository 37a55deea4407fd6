"""What a person or a pass does to one disk after its first use: ship, lose, forget, hold.

(closing.py closes it.) Each function returns what the person may do next, and refuses what makes no
sense. The caller holds the turn (locks.py).
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disks.free_space import in_order_of_use
from poledata.disks.identity import mounted_at
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, Refused
from poledata.formatting import counted, label_key, shown, size_text, utc_now
from poledata.models import AWAY, GONE, Disk, DiskState, Role, Severity
from poledata.notices.kinds import DISK_KINDS, SMART_KINDS

HOLD_AFTER_ERRORS = 3  # passes in a row
LOOKED_FOR = 100  # copies, one of which is enough to identify a disk at another place
HELD_AT_ONCE = 2  # if more fail at once they have a common cause: cable, power, controller
SMART_HOLD = "SMART: "  # how the reason begins of a hold that only a later SMART check ends
# With a label as its key ``database-error`` means that the database may lack files of a disk.
_KINDS_OF_A_DISK = ("disk-closed", "disk-differs", "database-error", *DISK_KINDS, *SMART_KINDS)

log = logging.getLogger(__name__)


def the_disk(context: Context, label_or_serial: str) -> Disk:
    """Return the disk that a person names. Raises Refused."""
    found = db.disks.find_disks(context.conn, label_or_serial)
    if not found:
        labels = sorted({disk.label for disk in db.disks.disks(context.conn)}, key=label_key)
        there = f"The labels are {', '.join(labels)}" if labels else "The database has no disk"
        raise refused(f"No disk has the label or serial {label_or_serial}. {there}")
    if len(found) > 1:
        serials = ", ".join(f"{disk.serial} ({disk.state.value})" for disk in found)
        raise refused(
            f"{label_or_serial} is the label of several disks that are gone: {serials}",
            "Name it by its serial.",
        )
    return found[0]


def refused(why: str, what_next: str = "") -> Refused:
    """Return the refusal of a command that makes no sense now."""
    return Refused(f"{why}. Nothing was changed. {what_next}".rstrip())


def must_be(disk: Disk, what: str, state: DiskState) -> None:
    """Raises Refused if the disk is not in the state in which it can be ``what``."""
    if disk.state is not state:
        raise refused(
            f"{disk.label} is {disk.state.value}: only a disk that is {state.value} can be {what}"
        )


# --- ship, lose, forget -------------------------------------------------------------------


def ship(context: Context, disks: Iterable[Disk]) -> str:
    """Closed disks leave the station: all of them, or none. Raises Refused."""
    disks = list(dict.fromkeys(disks))
    for disk in disks:
        _may_be_shipped(context, disk)
    with db.transaction(context.conn):
        for disk in disks:
            db.disks.set_state(context.conn, disk, DiskState.SHIPPED, None, utc_now())
            _end_notices(context, disk)
            context.findings.pass_on("copy-damaged", disk.label, disk.serial)  # a free label now
    labels = ", ".join(disk.label for disk in disks)
    return f"{labels}: noted as shipped. The labels may be used again, by another drive."


def _may_be_shipped(context: Context, disk: Disk) -> None:
    """Raises Refused."""
    must_be(disk, "shipped", DiskState.CLOSED)
    if disk.id in {unsealed.id for unsealed in db.disks.unsealed_disks(context.conn)}:
        first = f"data_manager.py unhold {disk.label}, mount it" if disk.held_by else "Mount it"
        raise refused(
            f"{disk.label} is not wholly closed",
            f"{first} and let the next pass finish, then ship it.",
        )
    if place := _still_mounted_at(context, disk):
        how = f"First: sudo umount {shlex.quote(str(place))}"
        raise refused(f"{disk.label} is still mounted", how)
    if lacking := db.copies.lacking_another(context.conn, disk):
        raise refused(
            f"{counted(len(lacking), 'file', 'files')} on {disk.label} without another copy, "
            f"{shown(lacking[0])} among them",
            "Keep it here until they have one.",
        )


def _end_notices(context: Context, disk: Disk) -> None:
    """Settle the notices about the disk itself; those about its copies are another matter."""
    context.findings.clear(_KINDS_OF_A_DISK, disk.label)
    context.findings.clear_about("defect", f"{disk.label}: ")
    context.findings.clear_about("name-conflict", f"{disk.label} ")


def _still_mounted_at(context: Context, disk: Disk) -> Path | None:
    """Return where this very disk is mounted, also at another place than its own.

    None for a stand-in: it can't be unmounted.
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
    named = f"{disk.label} ({disk.serial})"
    if disk.state is DiskState.LOST:
        raise refused(f"{named} is lost already")
    if place := _still_mounted_at(context, disk):
        raise refused(
            f"{named} is mounted at {place} and responds: it is not lost",
            f"To take it out of use: data_manager.py hold {disk.label}. If you have to give it "
            f"up, first: sudo umount {shlex.quote(str(place))}",
        )
    files, size_bytes = db.copies.count_on(context.conn, disk)
    with db.transaction(context.conn):
        bad = db.copies.bad_copies(context.conn, disk)
        db.disks.note_event(context.conn, disk.id, utc_now(), db.disks.BAD_BEFORE_LOSS, bad)
        db.copies.note_all_missing(context.conn, disk)
        db.disks.set_state(context.conn, disk, DiskState.LOST, why, utc_now())
        if disk.state not in AWAY:  # else another drive may have the label by now
            _end_notices(context, disk)
            context.findings.clear(["copy-damaged"], disk.label)
        context.findings.clear(["copy-damaged", "disk-differs", *DISK_KINDS], disk.serial)
        gone = note_no_good_copy(context, disk)
    warning = not_safe_text(context.conn, disk)
    return (
        f"{warning}{named} is lost: {files} copies ({size_text(size_bytes)}) are "
        f"noted as missing; {counted(gone, 'file has', 'files have')} no good copy left. Make the "
        "others again: data_manager.py repair. "
        f"The label {disk.label} may be used again, by another drive. "
        f"If this was a mistake: data_manager.py lost --undo {disk.serial}"
    )


def not_safe_text(conn: db.Connection, disk: Disk) -> str:
    """Return the warning about files of a lost disk without a copy here, or confirmed; or ''."""
    files, size_bytes = db.shipments.safe_nowhere_else(conn, disk)
    if not files:
        return ""
    what = f"{counted(files, 'file', 'files')} ({size_text(size_bytes)})"
    return (
        f"WARNING: {what} that {disk.label} had can be read nowhere else at the "
        "station, and no receipt confirms a copy up north.\n"
    )


def undo_loss(context: Context, label_or_serial: str) -> str:
    """A disk was noted as lost by mistake: it and its copies are as before. Raises Refused."""
    disk = the_disk(context, label_or_serial)
    state, bad = db.disks.before_loss(context.conn, disk)
    _may_be_back(context, disk, state)
    with db.transaction(context.conn):
        why = f"it is {state.value} again"
        db.disks.set_state(context.conn, disk, state, why, utc_now(), "not lost")
        db.copies.restore_states(context.conn, disk, bad)
        clear_no_good_copy(context)
    files, size_bytes = db.copies.count_on(context.conn, disk)
    read = f" Read them: data_manager.py verify {disk.serial}" if bad is None else ""
    return (
        f"{disk.label} ({disk.serial}) is {state.value} again, and {files} copies "
        f"({size_text(size_bytes)}) on it count again.{read}"
    )


def _may_be_back(context: Context, disk: Disk, state: DiskState) -> None:
    """Raises Refused if it is not lost, its label has another drive by now, or it was wiped."""
    others = [d for d in db.disks.disks(context.conn) if d.label == disk.label and d.id != disk.id]
    if disk.state is not DiskState.LOST:
        serials = [other.serial for other in others if other.state is DiskState.LOST]
        which = f"Name the lost one by its serial: {', '.join(serials)}" if serials else ""
        raise refused(f"{disk.label} ({disk.serial}) is {disk.state.value}, not lost", which)
    other = next((other for other in others if other.state not in GONE), None)
    if other and state not in GONE:
        raise refused(
            f"The label {disk.label} belongs to the drive {other.serial} ({other.state.value}) now",
            f"If that one was never used, first: data_manager.py forget {other.label}",
        )
    try:
        with MountedDisks(context.config, context.conn) as mounted:
            mounted.hold(replace(disk, state=state))
    except DiskRefused as refusal:
        if refusal.kind == "disk-wrong":
            raise refused(f"{disk.label}: {refusal.why}") from refusal


def forget(context: Context, disks: Iterable[Disk]) -> str:
    """Drives that were never used leave the database: all of them, or none. Raises Refused."""
    disks = list(dict.fromkeys(disks))
    for disk in disks:
        was_used = disk.first_used_at or db.copies.had_copies(context.conn, disk)
        if disk.state is not DiskState.SPARE or was_used:
            is_lost = disk.state is DiskState.LOST
            way = f'If it is dead or gone: data_manager.py lost {disk.label} --why "…"'
            raise refused(
                f"{disk.label} is {disk.state.value} and was used: it can't be forgotten",
                "" if is_lost else way,
            )
    with db.transaction(context.conn):
        for disk in disks:
            db.disks.forget_disk(context.conn, disk)
            _end_notices(context, disk)
    return "\n".join(
        f"{disk.label} ({disk.serial}) was removed from the database. Delete its line in the "
        "disk-map too, or it comes back."
        for disk in disks
    )


# --- hold ---------------------------------------------------------------------------------


def hold(context: Context, disk: Disk, why: str) -> str:
    """A person takes a disk out of use, until ``unhold``. Raises Refused."""
    if disk.state in GONE:
        raise refused(f"{disk.label} is {disk.state.value}: nothing to hold")
    if disk.held_by == "person":
        raise refused(f"{disk.label} is held already: {disk.held_reason}")
    with db.transaction(context.conn):
        db.disks.hold(context.conn, disk, "person", why, utc_now())
    warning = ""
    if not _has_usable(context, disk.role, {disk.id}):
        warning = f"\nWarning: no other {disk.role.value} disk is usable."
    return (
        f"{disk.label} is on hold; you can unmount it: sudo umount {context.place(disk)}\n"
        "Nothing is written to it, and its copies do not count for removing files.\n"
        f"To use it again: data_manager.py unhold {disk.label}{warning}"
    )


def is_last_usable(context: Context, disk: Disk) -> bool:
    """True if files can go to this disk now, and to no other one of its role."""
    return _has_usable(context, disk.role) and not _has_usable(context, disk.role, {disk.id})


def unhold(context: Context, disk: Disk) -> str:
    """Return a held disk to use. Raises Refused."""
    if disk.state in GONE:
        raise refused(f"{disk.label} is {disk.state.value}: nothing to give back")
    if disk.held_by is None:
        raise refused(f"{disk.label} is not held")
    with db.transaction(context.conn):
        db.disks.unhold(context.conn, disk, "by a person", utc_now())
        db.smart.acknowledge(context.conn, disk)
    context.findings.clear(["disk-error"], disk.label)
    if disk.state is DiskState.CLOSED:
        return f"{disk.label} is not held any more. It is closed: nothing is written to it."
    return f"{disk.label} may be used again ({disk.state.value}), once it is mounted."


def hold_failing(
    context: Context,
    disks: list[Disk],
    why: str = f"it failed in {HOLD_AFTER_ERRORS} passes running",
    kind: str = "disk-error",
) -> None:
    """The machine holds disks that failed in several passes, or report that they fail.

    Never the last usable disk of a role; and if more than two fail at once, none, because they
    have a common cause.
    """
    failing = [disk for disk in disks if disk.held_by is None]
    held_now = [
        disk
        for disk in db.disks.disks(context.conn)
        if disk.held_by == "machine" and disk.state in (DiskState.ACTIVE, DiskState.SPARE)
    ]
    if failing and len(failing) + len(held_now) > HELD_AT_ONCE:
        labels = ", ".join(disk.label for disk in (*failing, *held_now))
        context.findings.note(
            kind,
            "several",
            f"{labels} fail at once: look for a common cause (cable, power, controller). None "
            "more is held. Files stay safe in the buffer.",
            Severity.CRITICAL,
        )
        return
    context.findings.clear([kind], "several")
    for disk in failing:
        if _has_usable(context, disk.role, {other.id for other in failing}):
            with db.transaction(context.conn):
                db.disks.hold(context.conn, disk, "machine", why, utc_now())
            log.warning("%s is held by the machine", disk.label)


def is_held_for_smart(disk: Disk) -> bool:
    """True if the machine holds it because of what the drive reports, not for failed passes."""
    return disk.held_by == "machine" and (disk.held_reason or "").startswith(SMART_HOLD)


def _has_usable(context: Context, role: Role, out: Collection[int] = ()) -> bool:
    """True if a role has a disk in use or a spare, not ``out``, that can take files."""
    with MountedDisks(context.config, context.conn) as mounted:
        for disk in in_order_of_use(db.disks.disks(context.conn), role):
            try:
                if disk.id not in out and mounted.usable(disk).takes(0):
                    return True
            except DiskRefused as refusal:
                log.debug("%s", refusal)
    return False


# --- notices about files and roles --------------------------------------------------------


def note_no_good_copy(context: Context, disk: Disk) -> int:
    """Report the files of a disk that have no good copy left; return how many there are."""
    gone = db.copies.without_good_copy(context.conn, disk)
    if gone:
        one, many = f"file that was on {disk.label} has", f"files that were on {disk.label} have"
        context.findings.note(
            "no-good-copy",
            disk.serial,
            f"{counted(len(gone), one, many)} no good copy left, {shown(gone[0])} among them. "
            "Those still in the buffer are copied again; for the others, try to save the drives.",
            value=float(len(gone)),
        )
    return len(gone)


def clear_repaired(context: Context) -> None:
    """Settle the notices of bad copies whose files have two good ones by now."""
    for name in context.findings.keys("copy-damaged"):
        if db.copies.has_both_copies(context.conn, name):
            context.findings.clear(["copy-damaged"], name)
    clear_no_good_copy(context)


def clear_no_good_copy(context: Context) -> None:
    """Settle the notices of files that were copied again from the buffer."""
    for serial in context.findings.keys("no-good-copy"):
        if not db.copies.without_good_copy(context.conn, the_disk(context, serial)):
            context.findings.clear(["no-good-copy"], serial)


def clear_no_disk(context: Context) -> None:
    """Settle ``no-disk`` if every file of this run found a disk, and the next one would too."""
    for role in context.findings.keys("no-disk"):
        if not context.findings.was_noted("no-disk", role) and _has_usable(context, Role(role)):
            context.findings.clear(["no-disk"], role)
