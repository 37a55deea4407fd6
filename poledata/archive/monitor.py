"""What no single file or disk shows: nothing arrives, the buffer fills, spares run out.

Checked once in each pass, also in one that is paused or can't read its buffer.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from poledata import db
from poledata.archive.pass_state import Tally
from poledata.context import Context, is_here, places_here
from poledata.disks import not_received
from poledata.formatting import DAY_S, seconds, size_text, utc, utc_now
from poledata.models import Disk, DiskState, Role, Severity
from poledata.system import mounts

log = logging.getLogger(__name__)

CRITICAL_PERCENT = 95.0


def look(context: Context, tally: Tally, fault: str | None = None) -> None:
    """Open and end these notices. ``fault``: why the buffer could not be looked at."""
    with context.board.isolated("new files"):
        _look_for_new_files(context, tally, fault)
    if fault is None:
        with context.board.isolated("the buffer's room"):
            _look_at_buffer(context, tally)
    for role in Role:
        with context.board.isolated(f"{role.value} spares"):
            _look_at_spares(context, role)
    with context.board.isolated("the journal"):
        _look_at_journal(context)
    with context.board.isolated("receipts"):
        not_received.look(context)


def _look_at_journal(context: Context) -> None:
    """Each connection tries to leave WAL mode; it can't while another program has it open."""
    if not db.sqlite.is_wal(context.conn):
        context.board.settle(["database-error"], "journal")
        return
    context.board.tell(
        "database-error",
        "journal",
        f"Another program switched {context.config.db_path} to WAL mode and has it open. Nothing "
        "is lost, and archiving goes on; but users who may not write there can't read the status. "
        f"Close that program (sudo fuser -v {context.config.db_path} names it): the next pass "
        "switches it back.",
        Severity.WARNING,
    )


# --- nothing new --------------------------------------------------------------------------


def _look_for_new_files(context: Context, tally: Tally, fault: str | None) -> None:
    after_s = context.config.no_new_files_after_s
    last = db.files.last_archived_at(context.conn)
    since = last or db.disks.made_at(context.conn)
    if not after_s or since is None or abs(time.time() - seconds(since)) < after_s:
        context.board.settle(["no-new-files"], "archive")
        return
    what = f"The last file was archived {since}." if last else f"No file since {since}."
    context.board.tell("no-new-files", "archive", f"{what} {_why(context, tally, fault)}")


def _why(context: Context, tally: Tally, fault: str | None) -> str:
    """Return whether nothing arrived, or files wait, and why."""
    if pause := db.passes.current_pause(context.conn, utc_now()):
        return f"The archive is paused: {pause.why}."
    if fault:
        return fault
    waiting = (
        (tally.pending_files, "failed"),
        (tally.without_disk_files, "lack a disk"),
        (tally.busy_files, "are still open for writing"),
        (tally.unsettled_files, "are too young"),
    )
    reasons = [f"{count} {what}" for count, what in waiting if count]
    if reasons:
        return f"Files wait in {context.config.buffer}: {', '.join(reasons)}."
    return f"Nothing arrived: no file waits in {context.config.buffer}."


# --- the buffer's room --------------------------------------------------------------------


def _look_at_buffer(context: Context, tally: Tally) -> None:
    try:
        room = _room(context.config.buffer)
    except OSError as fault:
        log.warning("%s can't be measured: %s", context.config.buffer, fault)
        return
    percent = 100 * room.used_bytes / max(1, room.used_bytes + room.free_bytes)
    if percent < context.config.buffer_full_percent:
        context.board.settle(["buffer-full"], "buffer")
        return
    context.board.tell(
        "buffer-full",
        "buffer",
        f"{context.config.buffer} is {percent:.0f} % full, {size_text(room.free_bytes)} are free. "
        f"{_until_full(context, tally, room.free_bytes)}",
        Severity.CRITICAL if percent >= CRITICAL_PERCENT else None,
        value=float(int(percent)),
    )


def _room(path: Path) -> mounts.Space:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mounts.space(fd)
    finally:
        os.close(fd)


def _until_full(context: Context, tally: Tally, free_bytes: int) -> str:
    """Return when it will be full, from the rates of the last day."""
    _, archived_bytes = db.files.totals(context.conn, utc(time.time() - DAY_S))
    arrived_bytes = archived_bytes + tally.arrived_in_a_day_bytes
    if not arrived_bytes:
        return "Nothing arrived in the last day."
    text = (
        f"In the last day {size_text(arrived_bytes)} arrived and {size_text(archived_bytes)} "
        f"were archived. If nothing is archived it will be full "
        f"{_in_days(free_bytes / arrived_bytes)}"
    )
    growth_bytes = arrived_bytes - archived_bytes
    return (
        f"{text}; as it went, {_in_days(free_bytes / growth_bytes)}."
        if growth_bytes
        else f"{text}."
    )


# --- spares -------------------------------------------------------------------------------


def _look_at_spares(context: Context, role: Role) -> None:
    mounted = mounts.mounted_places() if context.config.require_mount else None
    disks = [d for d in db.disks.disks(context.conn) if d.role is role and not d.held_by]
    disks = [d for d in disks if is_here(context.config, d, mounted)]
    spares = [d for d in disks if d.state is DiskState.SPARE]
    lacking = context.config.spare_disks_low - len(spares)
    if lacking <= 0:
        context.board.settle(["spares-low"], role.value)
        return
    active = [d for d in disks if d.state is DiskState.ACTIVE]
    context.board.tell(
        "spares-low",
        role.value,
        f"{len(spares)} {role.value} disks are mounted and spare. "
        f"{_until_none(context, [*active, *spares])}",
        value=float(lacking),
    )


def _until_none(context: Context, disks: list[Disk]) -> str:
    """Return when the space on these disks runs out, at the rate of the last week."""
    _, week_bytes = db.files.totals(context.conn, utc(time.time() - 7 * DAY_S))
    rooms_bytes = [_free_bytes(context, disk) for disk in disks]
    room_bytes = sum(rooms_bytes)
    if not room_bytes:
        return "No disk of this role that is here has room."
    text = f"The disks in use and these have room for {size_text(room_bytes)}"
    if not week_bytes:
        return f"{text}; nothing was archived in the last week."
    return (
        f"{text}: at the last week's rate that is used up {_in_days(7 * room_bytes / week_bytes)}."
    )


def _free_bytes(context: Context, disk: Disk) -> int:
    """Return how much still fits on a disk; 0 if it can't be measured."""
    if disk.free_bytes is not None:
        return max(0, disk.free_bytes - context.config.min_free_bytes)
    mounted = mounts.mounted_places() if context.config.require_mount else None
    for place in places_here(context.config, disk, mounted):
        try:
            vfs = os.statvfs(place)
        except OSError:
            continue  # it does not respond
        return max(0, vfs.f_bavail * vfs.f_frsize - context.config.min_free_bytes)
    return 0


def _in_days(days: float) -> str:
    """Return the time to the hour, so that the text stays the same from pass to pass."""
    at_s = time.time() + days * DAY_S
    return f"on {utc(at_s - at_s % 3600)[:16].replace('T', ' ')} UTC" if days < 3650 else "in years"
