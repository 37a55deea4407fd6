"""The status on one screen, its headline, and its five lines for a message."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from poledata.formatting import people_time, seconds, size_text
from poledata.models import Disk, DiskState, Role
from poledata.notices.kinds import KINDS
from poledata.status.facts import BufferStatus, DiskStatus, Status

BAR_CHARACTERS = 20
LISTED = 10  # of what may be long
HEAD = 11  # characters of what a line is of


def as_text(status: Status) -> str:
    """One screen; its first words are the verdict."""
    return "\n".join(_lines(status))


def headline(status: Status) -> str:
    """The state in a line: the subject of a digest."""
    day = time.strftime("%Y-%m-%d", time.gmtime(status.at_s))
    done = f"{size_text(status.archived.day_bytes)} archived in a day"
    why = status.reasons[0] if status.reasons else done
    return f"{day} {status.verdict.value}: {why}"


def state_lines(status: Status) -> list[str]:
    """The state of the archive in five lines, for a message."""
    buf = status.buffer
    level = "can't be read" if buf.used_percent is None else f"{buf.used_percent:.0f} % full"
    in_use = [_room(item.disk) for item in status.disks if item.disk.state is DiskState.ACTIVE]
    spares = [f"{len(_spares(status, role))} {role.value}" for role in Role]
    return [
        f"The archive {status.db_path}, {people_time(status.at_s, status.at_s)}:",
        f"  {status.archived.files} files archived ({size_text(status.archived.size_bytes)}), "
        f"{size_text(status.archived.day_bytes)} in the last day",
        f"  last pass {_pass_text(status)}",
        f"  buffer {level}: {buf.finished_files} finished files wait, "
        f"{len(status.pending)} failed so far",
        f"  in use: {', '.join(in_use) or 'no disk'}; spare: {' and '.join(spares)} disks",
    ]


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the screen with those that go on from it: what it is of, and what it says."""

    head: str
    text: str


def facts(status: Status) -> list[Fact]:
    """The screen but for its verdict, the disks in use, what failed, and the notices."""
    lines = [
        *_buffer_lines(status),
        *_archived_lines(status),
        f"Last pass  {_pass_text(status)}",
        *_pause_lines(status),
        *(line for line in _disk_lines(status) if not line.startswith("In use")),
    ]
    return list(_joined(lines))


def _joined(lines: Iterable[str]) -> Iterator[Fact]:
    head, texts = "", list[str]()
    for line in lines:
        if line[:HEAD].strip() and texts:
            yield Fact(head, "; ".join(texts))
            texts = []
        head = line[:HEAD].strip() or head
        texts.append(line[HEAD:])
    yield Fact(head, "; ".join(texts))


# --- the screen ---------------------------------------------------------------------------


def _lines(status: Status) -> Iterator[str]:
    yield from _verdict_lines(status)
    if status.stand_ins:
        yield "STAND-INS: plain directories instead of drives, for demo and tests only."
    if status.unidentified_drives:
        yield "DRIVES ARE NOT IDENTIFIED (AcceptUnidentifiedDrives = yes): two may be one."
    yield f"Archive    {status.db_path}, {people_time(status.at_s, status.at_s)}"
    yield from _buffer_lines(status)
    yield from _archived_lines(status)
    yield f"Last pass  {_pass_text(status)}"
    yield from _pause_lines(status)
    yield ""
    yield from _disk_lines(status)
    yield ""
    yield from _pending_lines(status)
    yield from _notice_lines(status)


def _verdict_lines(status: Status) -> Iterator[str]:
    if not status.reasons:
        yield f"{status.verdict.value}: nothing has to be done."
        return
    yield f"{status.verdict.value}: {status.reasons[0]}"
    yield from (f"    and {reason}" for reason in status.reasons[1:LISTED])


def _buffer_lines(status: Status) -> Iterator[str]:
    buf = status.buffer
    if buf.fault:
        what = "WRONG" if buf.is_wrong else "CAN'T BE READ"
        yield f"Buffer     {what}: {buf.fault}"
    if buf.used_percent is None:
        return
    oldest = (
        f", the oldest of {people_time(buf.oldest_at_s, status.at_s)}" if buf.oldest_at_s else ""
    )
    yield (
        f"Buffer     {buf.finished_files} finished files wait "
        f"({size_text(buf.finished_bytes)}{oldest}); {buf.used_percent:.0f} % of the room is used"
    )
    yield (
        f"           {buf.unfinished_files} unfinished; not ours: {buf.other_files} files of other "
        f"extensions, {buf.links_and_specials} links and special files"
    )
    yield f"           {_writers_text(buf)}"


def _writers_text(buf: BufferStatus) -> str:
    """Return which rule says that a file is finished, and why."""
    if buf.trusts_leases and buf.lease_can_be_had is not False:
        return f"The system can tell who writes there ({buf.writer_rule})"
    why = "files of another user" if buf.trusts_leases else buf.writer_rule
    return (
        f"The system can't tell who writes there ({why}): files wait ten times SettleTime, "
        "the newest of a directory for a newer one beside it, or a day"
    )


def _archived_lines(status: Status) -> Iterator[str]:
    done = status.archived
    yield (
        f"Archived   {done.files} files, {size_text(done.size_bytes)}; in the last day "
        f"{done.day_files} ({size_text(done.day_bytes)}), in the last week {done.week_files} "
        f"({size_text(done.week_bytes)})"
    )
    said = list(_verified(status))
    if said:
        yield f"Verified   {'; '.join(said)}"


def _verified(status: Status) -> Iterator[str]:
    ours = [item for item in status.disks if item.disk.state in _OURS]
    if read := [item for item in ours if item.oldest_verified_at]:
        item = min(read, key=lambda one: one.oldest_verified_at or "")
        age = people_time(seconds(item.oldest_verified_at or ""), status.at_s)
        yield f"the copy not read for longest is on {item.disk.label}: {age}"
    if unread := sum(item.never_read for item in ours):
        yield f"{unread} copies were never read"


def _pass_text(status: Status) -> str:
    last = status.last_pass
    if last is None:
        return "none has had anything to do yet"
    outcome = last.outcome or "at work, or crashed"
    return (
        f"{people_time(seconds(last.started_at), status.at_s)}: {outcome}, "
        f"{last.files_archived} files archived ({size_text(last.bytes_archived)}), "
        f"{last.files_failed} failures"
    )


def _pause_lines(status: Status) -> Iterator[str]:
    if status.pause:
        since = people_time(seconds(status.pause.started_at), status.at_s)
        until = status.pause.until or "somebody says: data_manager.py resume"
        yield f"Paused     since {since}, until {until}: {status.pause.why}"


# --- disks --------------------------------------------------------------------------------

_OURS = (DiskState.ACTIVE, DiskState.CLOSED)


def _disk_lines(status: Status) -> Iterator[str]:
    for item in status.disks:
        if item.disk.state is DiskState.ACTIVE:
            yield f"In use     {_bar_text(item)}{_held(item.disk)}"
    for role in Role:
        labels = " ".join(item.disk.label for item in _spares(status, role))
        count = len(_spares(status, role))
        away = [i for i in _of(status, role, DiskState.SPARE) if not i.is_mounted]
        not_here = f"; {len(away)} not mounted" if away else ""
        yield f"Spare      {count} {role.value} mounted{not_here}{f': {labels}' if labels else ''}"
    for state in (DiskState.CLOSED, DiskState.SHIPPED, DiskState.LOST):
        items = [item for item in status.disks if item.disk.state is state]
        if items:
            yield f"{state.value.capitalize():10} {_labels(items)}"
    yield from (
        f"Held       {i.disk.label} {_held(i.disk)[7:]}"
        for i in status.disks
        if i.disk.held_by and i.disk.state is not DiskState.ACTIVE
    )
    yield from _health_lines(status)


def _labels(items: list[DiskStatus]) -> str:
    """With a mark at those that are still mounted."""
    return " ".join(f"{i.disk.label}{' (mounted)' if i.is_mounted else ''}" for i in items)


def _of(status: Status, role: Role, state: DiskState) -> list[DiskStatus]:
    return [i for i in status.disks if i.disk.role is role and i.disk.state is state]


def _spares(status: Status, role: Role) -> list[DiskStatus]:
    """Those that a pass could begin now."""
    items = _of(status, role, DiskState.SPARE)
    return [item for item in items if item.is_mounted and not item.disk.held_by]


def _bar_text(item: DiskStatus) -> str:
    """``P03  ZA12JCHM  [########------------]  41 %, 3.2 TB free, full on 2026-12-02``"""
    disk = item.disk
    here = "" if item.is_mounted else "  NOT MOUNTED"
    part = used_part(disk)
    if part is None:
        return f"{disk.label}  {disk.serial}{here}"
    full = round(part * BAR_CHARACTERS)
    bar = f"[{'#' * full}{'-' * (BAR_CHARACTERS - full)}]"
    return f"{disk.label}  {disk.serial}  {bar} {room_text(item)}{here}"


def used_part(disk: Disk) -> float | None:
    """How full a disk is, from 0 to 1, where that was ever measured."""
    if not disk.capacity_bytes or disk.free_bytes is None:
        return None
    return min(1.0, max(0.0, 1 - disk.free_bytes / disk.capacity_bytes))


def room_text(item: DiskStatus) -> str:
    """``41 %, 3.2 TB free, full on 2026-12-02``; empty where it was never measured."""
    part = used_part(item.disk)
    if part is None or item.disk.free_bytes is None:
        return ""
    return f"{100 * part:.0f} %, {size_text(item.disk.free_bytes)} free{_day(item.full_at_s)}"


def _day(at_s: float | None) -> str:
    if at_s is None or at_s - time.time() > 3650 * 86_400:
        return ""
    return f", full on {time.strftime('%Y-%m-%d', time.gmtime(at_s))} at the last week's rate"


def _room(disk: Disk) -> str:
    free = "" if disk.free_bytes is None else f" ({size_text(disk.free_bytes)} free)"
    return f"{disk.label}{free}"


def _held(disk: Disk) -> str:
    return f"  HELD by {disk.held_by}: {disk.held_reason}" if disk.held_by else ""


def _health_lines(status: Status) -> Iterator[str]:
    checked = [item for item in status.disks if item.health]
    if not checked:
        return
    odd = [i for i in checked if i.health and i.health.health != "healthy"]
    oldest = min(i.health.at for i in checked if i.health)
    age = people_time(seconds(oldest), status.at_s)
    yield f"Health     {len(checked) - len(odd)} of {len(checked)} drives are healthy, since {age}"
    yield from (f"           {i.disk.label}: {i.health.health}" for i in odd if i.health)


# --- what a person should know ------------------------------------------------------------


def _pending_lines(status: Status) -> Iterator[str]:
    if not status.pending:
        yield "No file has failed."
        return
    yield f"{len(status.pending)} files failed so far; they stay in the buffer:"
    for item in status.pending[:LISTED]:
        yield (
            f"  {item.name}: {item.last_error} (tried {item.attempts} times, next "
            f"{item.next_try_at[11:16]} UTC)"
        )
    if len(status.pending) > LISTED:
        yield f"  … and {len(status.pending) - LISTED} more (status --json lists all)"


def _notice_lines(status: Status) -> Iterator[str]:
    if not status.notices:
        yield "No open notice."
    told = set[str]()
    for notice in status.notices[: 2 * LISTED]:
        since = people_time(seconds(notice.opened_at), status.at_s)
        known = f", silent until {notice.acked_until}" if notice.acked_until else ""
        yield f"{notice.severity.value.upper()} {notice.kind} {notice.key}, since {since}{known}:"
        yield textwrap.indent(notice.text, "  ")
        if notice.kind not in told:
            yield from (f"  {no}. {step}" for no, step in enumerate(KINDS[notice.kind].steps, 1))
        told.add(notice.kind)
    if len(status.notices) > 2 * LISTED:
        yield f"… and {len(status.notices) - 2 * LISTED} more notices (status --json lists all)"
    for waiting in status.undelivered:
        yield (
            f"NOT SENT: {waiting.notices} notices through {waiting.channel} (tried "
            f"{waiting.attempts} times: {waiting.last_error}); tried again by itself"
        )
