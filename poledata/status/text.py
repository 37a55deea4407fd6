"""The status as text: the screen, its headline, and five lines for the end of a message."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from poledata.formatting import DAY_S, counted, people_time, seconds, size_text
from poledata.models import GONE, Disk, DiskState, Pending, Role
from poledata.notices.kinds import KINDS
from poledata.status.facts import BufferStatus, DiskStatus, Status, Undelivered
from poledata.status.verdict import known

BAR_CHARACTERS = 20
FILES_LISTED, NOTICES_LISTED = 10, 20
SUBJECT_CHARACTERS = 11
LONGEST_FORECAST_S = 3650 * DAY_S
_WAIT = "finished files wait"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know about the archive, for the screen and for the page."""

    subject: str
    lines: tuple[str, ...]


def as_text(status: Status) -> str:
    """Return the status as one screen; its first words are the verdict."""
    return "\n".join(_lines(status))


def verdict_text(status: Status) -> str:
    """``ALL WELL``, ``ALL WELL, 2 known``: notices that somebody acknowledged are known."""
    count = len(known(status))
    return f"{status.verdict.value}{f', {count} known' if count else ''}"


def headline(status: Status) -> str:
    """Return the state in one line: the subject of a digest."""
    day = time.strftime("%Y-%m-%d", time.gmtime(status.at_s))
    done = f"{size_text(status.archived.day_bytes)} archived in a day"
    why = status.reasons[0] if status.reasons else done
    return f"{day} {status.verdict.value}: {why}"


def state_lines(status: Status) -> list[str]:
    """Return the state of the archive in five lines, for a message."""
    buf = status.buffer
    level = "can't be read" if buf.used_percent is None else f"{buf.used_percent:.0f} % full"
    in_use = [_free_text(i.disk) for i in status.disks if i.disk.state is DiskState.ACTIVE]
    spares = [f"{len(_usable_spares(status, role))} {role.value}" for role in Role]
    return [
        f"The archive {status.db_path}, {people_time(status.at_s, status.at_s)}:",
        f"  {_files(status.archived.files)} archived ({size_text(status.archived.size_bytes)}), "
        f"{size_text(status.archived.day_bytes)} in the last day",
        f"  last pass {_pass_text(status)}",
        f"  buffer {level}: {counted(buf.finished_files, 'finished file waits', _WAIT)}, "
        f"{len(status.pending)} failed so far",
        f"  in use: {', '.join(in_use) or 'no disk'}; spare: {' and '.join(spares)} disks",
    ]


def _lines(status: Status) -> Iterator[str]:
    first, *others = status.reasons or ("nothing has to be done.",)
    yield f"{verdict_text(status)}: {first}"
    yield from (f"    and {reason}" for reason in others[: FILES_LISTED - 1])
    if status.stand_ins:
        yield "STAND-INS: plain directories instead of drives, for demo and tests only."
    if status.unidentified_drives:
        yield "DRIVES ARE NOT IDENTIFIED (AcceptUnidentifiedDrives = yes): two may be one."
    archive = f"{status.db_path}, {people_time(status.at_s, status.at_s)}"
    yield from _fact_lines([Fact("Archive", (archive,)), *archive_facts(status)])
    yield ""
    yield from _fact_lines(
        Fact("In use", (_in_use_text(item),))
        for item in status.disks
        if item.disk.state is DiskState.ACTIVE
    )
    yield from _fact_lines(disk_facts(status))
    yield ""
    yield from _pending_lines(status)
    yield from _notice_lines(status)


def _files(number: int) -> str:
    return counted(number, "file", "files")


def _fact_lines(facts: Iterable[Fact]) -> Iterator[str]:
    """Return the lines in a column, the subject before the first line of each fact."""
    for fact in facts:
        for number, line in enumerate(fact.lines):
            yield f"{'' if number else fact.subject:{SUBJECT_CHARACTERS}}{line}"


# --- buffer, files, passes ----------------------------------------------------------------


def archive_facts(status: Status) -> Iterator[Fact]:
    """Return what there is to know, except about disks, notices, and files that failed."""
    yield from _buffer_facts(status)
    done = status.archived
    yield Fact(
        "Archived",
        (
            f"{_files(done.files)}, {size_text(done.size_bytes)}; in the last day "
            f"{done.day_files} ({size_text(done.day_bytes)}), in the last week {done.week_files} "
            f"({size_text(done.week_bytes)})",
        ),
    )
    if verified := "; ".join(_verified(status)):
        yield Fact("Verified", (verified,))
    if content := status.content:
        text = f"{content.ok} ok, {content.suspect} suspect, {content.not_checked} not checked"
        yield Fact("Content", (text,))
    yield Fact("Last pass", (_pass_text(status),))
    if pause := status.pause:
        since = people_time(seconds(pause.started_at), status.at_s)
        until = pause.until or "somebody runs: data_manager.py resume"
        yield Fact("Paused", (f"since {since}, until {until}: {pause.why}",))


def _buffer_facts(status: Status) -> Iterator[Fact]:
    buf = status.buffer
    if buf.fault:
        what = "WRONG" if buf.is_wrong else "CAN'T BE READ"
        yield Fact("Buffer", (f"{what}: {buf.fault}",))
    if buf.used_percent is None:
        return
    oldest = buf.oldest_at_s and f", the oldest of {people_time(buf.oldest_at_s, status.at_s)}"
    special = counted(buf.links_and_specials, "link or special file", "links and special files")
    yield Fact(
        "Buffer",
        (
            f"{counted(buf.finished_files, 'finished file waits', _WAIT)} "
            f"({size_text(buf.finished_bytes)}{oldest or ''}); {buf.used_percent:.0f} % full",
            f"{buf.unfinished_files} unfinished; not ours: {_files(buf.other_files)} with other "
            f"extensions, {special}{_left_out_text(buf)}",
            _writers_text(buf),
        ),
    )


def _left_out_text(buf: BufferStatus) -> str:
    files = counted(buf.hidden_files, "hidden file", "hidden files")
    hidden = f", {files}" if buf.hidden_files else ""
    left_out = f", {buf.left_out} left out by Include and Exclude" if buf.left_out else ""
    return hidden + left_out


def _writers_text(buf: BufferStatus) -> str:
    """Return which rule decides that a file is finished, and why."""
    if buf.trusts_leases and buf.lease_can_be_had is not False:
        return f"The system can tell who writes there ({buf.writer_rule})"
    why = "files of another user" if buf.trusts_leases else buf.writer_rule
    return (
        f"The system can't tell who writes there ({why}): files wait ten times SettleTime, "
        "the newest of a directory for a newer one beside it, or a day"
    )


def _verified(status: Status) -> Iterator[str]:
    disks = [i for i in status.disks if i.disk.state in (DiskState.ACTIVE, DiskState.CLOSED)]
    read = [(i.oldest_verified_at, i.disk.label) for i in disks if i.oldest_verified_at]
    if read:
        at, label = min(read, key=lambda one: one[0])
        age = people_time(seconds(at), status.at_s)
        yield f"oldest verification: {label}, {age}"
    if unread := sum(item.never_read for item in disks):
        yield f"{counted(unread, 'copy was', 'copies were')} never read"


def _pass_text(status: Status) -> str:
    last = status.last_pass
    if last is None:
        return "none has had anything to do yet"
    return (
        f"{people_time(seconds(last.started_at), status.at_s)}: "
        f"{last.outcome or 'at work, or crashed'}, "
        f"{_files(last.files_archived)} archived ({size_text(last.bytes_archived)}), "
        f"{counted(last.files_failed, 'failure', 'failures')}"
    )


# --- disks --------------------------------------------------------------------------------


def disk_facts(status: Status) -> Iterator[Fact]:
    """Return what there is to know about the disks, except the level of those in use."""
    for role in Role:
        yield Fact("Spare", (_spares_text(status, role),))
    for state in (DiskState.CLOSED, *GONE):
        labels = [_label_text(item) for item in status.disks if item.disk.state is state]
        if labels:
            yield Fact(state.value.capitalize(), (" ".join(labels),))
    if status.confirmed_files:
        yield Fact(
            "Confirmed",
            (f"{status.confirmed_files} of {status.archived.files} files, by receipts",),
        )
    for item in status.disks:
        disk = item.disk
        if disk.held_by and disk.state is not DiskState.ACTIVE:
            yield Fact("Held", (f"{disk.label} by {disk.held_by}: {disk.held_reason}",))
    if health := tuple(_health_lines(status)):
        yield Fact("Health", health)


def _label_text(item: DiskStatus) -> str:
    if item.left_at:
        return f"{item.disk.label} (not confirmed since {item.left_at[:10]})"
    return f"{item.disk.label}{' (mounted)' if item.is_mounted else ''}"


def _spares_text(status: Status, role: Role) -> str:
    usable = _usable_spares(status, role)
    away = sum(not item.is_mounted for item in _spares(status, role))
    labels = " ".join(item.disk.label for item in usable)
    untested = [i.disk.label for i in usable if i.hours_since_tested is None]
    if usable and not status.stand_ins:
        labels += f" (no extended self-test: {' '.join(untested)})" if untested else ""
    return (
        f"{len(usable)} {role.value} mounted{f': {labels}' if labels else ''}"
        f"{f'; {away} not mounted' if away else ''}"
    )


def _spares(status: Status, role: Role) -> list[DiskStatus]:
    return [i for i in status.disks if i.disk.role is role and i.disk.state is DiskState.SPARE]


def _usable_spares(status: Status, role: Role) -> list[DiskStatus]:
    """Return the spares that a pass could begin to use now."""
    return [i for i in _spares(status, role) if i.is_mounted and not i.disk.held_by]


def _in_use_text(item: DiskStatus) -> str:
    """``P03  ZA12JCHM  [########------------]  41 %, 3.2 TB free, full on 2026-12-02``"""
    disk, part, level = item.disk, used_part(item.disk), ""
    if part is not None:
        full = round(part * BAR_CHARACTERS)
        level = f"  [{'#' * full}{'-' * (BAR_CHARACTERS - full)}] {level_text(item)}"
    here = "" if item.is_mounted else "  NOT MOUNTED"
    held = f"  HELD by {disk.held_by}: {disk.held_reason}" if disk.held_by else ""
    return f"{disk.label}  {disk.serial}{level}{here}{held}"


def used_part(disk: Disk) -> float | None:
    """Return how full a disk is, from 0 to 1; None if that was never measured."""
    if not disk.capacity_bytes or disk.free_bytes is None:
        return None
    return min(1.0, max(0.0, 1 - disk.free_bytes / disk.capacity_bytes))


def level_text(item: DiskStatus) -> str:
    """``41 %, 3.2 TB free, full on 2026-12-02``; empty if it was never measured."""
    part = used_part(item.disk)
    if part is None or item.disk.free_bytes is None:
        return ""
    return f"{100 * part:.0f} %, {size_text(item.disk.free_bytes)} free{_forecast(item.full_at_s)}"


def _forecast(full_at_s: float | None) -> str:
    if full_at_s is None or full_at_s - time.time() > LONGEST_FORECAST_S:
        return ""
    return f", full on {time.strftime('%Y-%m-%d', time.gmtime(full_at_s))} at the last week's rate"


def _free_text(disk: Disk) -> str:
    free = "" if disk.free_bytes is None else f" ({size_text(disk.free_bytes)} free)"
    return f"{disk.label}{free}"


def _health_lines(status: Status) -> Iterator[str]:
    here = [item for item in status.disks if item.disk.state not in GONE]
    checked = [(item.disk.label, item.health) for item in here if item.health]
    if not checked:
        return
    odd = [f"{label}: {check.health}" for label, check in checked if check.health != "healthy"]
    age = people_time(seconds(min(check.at for _, check in checked)), status.at_s)
    yield f"{len(checked) - len(odd)} of {len(checked)} drives are healthy, since {age}"
    yield from odd
    tested = {i.disk.label: i.hours_since_tested for i in here if i.hours_since_tested is not None}
    if tested:
        oldest = max(tested, key=lambda label: tested[label])
        yield (
            f"{len(tested)} of {len(here)} drives passed an extended self-test, the oldest "
            f"{tested[oldest]} hours of operation ago ({oldest})"
        )


# --- files that failed, notices -----------------------------------------------------------


def _pending_lines(status: Status) -> Iterator[str]:
    if not status.pending:
        yield "No file has failed."
        return
    yield f"{_files(len(status.pending))} failed so far; they stay in the buffer:"
    yield from (f"  {pending_text(item)}" for item in status.pending[:FILES_LISTED])
    if len(status.pending) > FILES_LISTED:
        yield f"  … and {len(status.pending) - FILES_LISTED} more (status --json lists all)"


def pending_text(item: Pending) -> str:
    """Return a file that failed, why, and when it is tried again."""
    next_at = item.next_try_at[11:16]
    tried = counted(item.attempts, "time", "times")
    return f"{item.name}: {item.last_error} (tried {tried}, next {next_at} UTC)"


def _notice_lines(status: Status) -> Iterator[str]:
    if not status.notices:
        yield "No open notice."
    explained = set[str]()
    for notice in status.notices[:NOTICES_LISTED]:
        since = people_time(seconds(notice.opened_at), status.at_s)
        known = f", silent until {notice.acked_until}" if notice.acked_until else ""
        yield f"{notice.severity.value.upper()} {notice.kind} {notice.key}, since {since}{known}:"
        yield textwrap.indent(notice.text, "  ")
        if notice.kind not in explained:
            yield from (f"  {no}. {step}" for no, step in enumerate(KINDS[notice.kind].steps, 1))
        explained.add(notice.kind)
    if len(status.notices) > NOTICES_LISTED:
        yield f"… and {len(status.notices) - NOTICES_LISTED} more notices (status --json lists all)"
    yield from (f"NOT SENT: {undelivered_text(waiting)}" for waiting in status.undelivered)


def undelivered_text(waiting: Undelivered) -> str:
    """Return how many notices wait for a channel, and why."""
    return (
        f"{counted(waiting.notices, 'notice', 'notices')} through {waiting.channel} (tried "
        f"{counted(waiting.attempts, 'time', 'times')}: {waiting.last_error}); tried again "
        "automatically"
    )
