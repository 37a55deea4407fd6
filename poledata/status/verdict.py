"""What ALL WELL, LOOK TODAY and ACT NOW mean: one row for each condition. Pure.

The verdict starts from "not well": each row names something that must be positively true, and is a
reason if it is not, or if it is not known. ALL WELL means that no row has a reason. A row marked
"drives" does not apply to stand-ins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from poledata.formatting import DAY_S, counted, people_time, seconds, utc
from poledata.models import DiskState, Notice, Severity
from poledata.notices.kinds import KINDS, own_headline
from poledata.status.facts import ArchiveVerdict, DiskStatus, Status

NO_PASS_FOR_S = 900.0  # cron starts one each minute
STUCK_AFTER_S, OPEN_LONG_AFTER_S = 3600.0, DAY_S
SMART_STALE_AFTER_S = 8 * DAY_S
IN_FUTURE_S = 300.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the archive is not well, and what to do about it."""

    severity: Severity
    text: str


def judged(status: Status) -> Status:
    """Return the status with its verdict, and the reasons for it, the gravest first. Pure."""
    found = [reason for row in _ROWS for reason in row(status)]
    now = [reason.text for reason in found if reason.severity is Severity.CRITICAL]
    today = [reason.text for reason in found if reason.severity is Severity.WARNING]
    verdict = ArchiveVerdict.ALL_WELL
    if today or any(notice.severity is Severity.CRITICAL for notice in known(status)):
        verdict = ArchiveVerdict.LOOK_TODAY
    if now:
        verdict = ArchiveVerdict.ACT_NOW
    return replace(status, verdict=verdict, reasons=(*now, *today))


def known(status: Status) -> list[Notice]:
    """Return the open notices that somebody acknowledged: warnings, and what is critical."""
    return [
        notice
        for notice in status.notices
        if notice.severity is not Severity.INFO and _is_known(status, notice)
    ]


def _is_known(status: Status, notice: Notice) -> bool:
    return bool(notice.acked_until and notice.acked_until > utc(status.at_s))


def _act_now(text: str) -> Reason:
    return Reason(Severity.CRITICAL, text)


def _look_today(text: str) -> Reason:
    return Reason(Severity.WARNING, text)


# --- no notice is open ------------------------------------------------------------------


def _notices(status: Status) -> Iterator[Reason]:
    """No open notice that nobody acknowledged; one reason for each kind."""
    for severity in (Severity.CRITICAL, Severity.WARNING):
        by_kind = defaultdict[str, list[Notice]](list)
        for notice in status.notices:
            if notice.severity is severity and not _is_known(status, notice):
                by_kind[notice.kind].append(notice)
        for kind, notices in sorted(by_kind.items()):
            yield Reason(severity, f"{_notices_text(status, kind, notices)} ({kind})")


def _notices_text(status: Status, kind: str, notices: Sequence[Notice]) -> str:
    if kind == "no-good-copy" and status.without_good_copy:  # a file can be in several notices
        return f"files without a good copy: {status.without_good_copy}"
    if len(notices) > 1:
        return f"{len(notices)} {KINDS[kind].many}"
    return own_headline(notices[0]) or f"{notices[0].key}: {KINDS[kind].headline}"


def _is_told(status: Status, kind: str, key: str) -> bool:
    return any((notice.kind, notice.key) == (kind, key) for notice in status.notices)


# --- passes come to their end -----------------------------------------------------------


def _passes(status: Status) -> Iterator[Reason]:
    """Drives: a pass ended within 15 minutes, or the one at work moved a byte within 15 minutes."""
    if status.stand_ins and not status.buffer.finished_files:
        return
    if status.lock_holder:
        yield _act_now(f"the lock of passes is held by another program: {status.lock_holder}")
    elif _is_recent(status, status.ended_at_s):
        return
    elif status.at_work:
        if not _is_recent(status, status.looked_at_s):
            yield _look_today(f"the pass at work has moved no byte{_since(status)}")
    elif _is_recent(status, status.looked_at_s):
        yield _act_now("passes begin, but none has come to its end: see the log")
    elif status.looked_at_s is None:
        yield _act_now("no pass has run yet: is its line in the crontab?")
    else:
        yield _act_now(f"no pass has run{_since(status)}: is cron running?")


def _is_recent(status: Status, at_s: float | None) -> bool:
    return at_s is not None and abs(status.at_s - at_s) <= NO_PASS_FOR_S


def _since(status: Status) -> str:
    return f" since {people_time(status.looked_at_s or 0.0, status.at_s)}"


def _pause(status: Status) -> Iterator[Reason]:
    """The archive is not paused."""
    if status.pause:
        yield _look_today(f"the archive is paused: {status.pause.why}")


def _database(status: Status) -> Iterator[Reason]:
    """The database can be written to, and nothing in it is from the future."""
    if status.is_read_only:
        yield _act_now(f"the database is read-only: chmod u+w {status.db_path}")
    newest = status.newest_record_at
    if newest and seconds(newest) > status.at_s + IN_FUTURE_S:
        yield _look_today(f"the clock is behind the database ({newest}): set it")


# --- files leave the buffer -------------------------------------------------------------


def _buffer(status: Status) -> Iterator[Reason]:
    """The buffer is the right one, and can be listed completely."""
    if status.buffer.is_wrong:
        yield _look_today(str(status.buffer.fault))
    elif status.buffer.fault:
        yield _look_today(f"the buffer can't be read: {status.buffer.fault}")


def _waiting_files(status: Status) -> Iterator[Reason]:
    """No finished file has waited for an hour in which nothing was archived, and none for a day."""
    since_s = status.buffer.oldest_here_since_s
    if since_s is None or status.pause or not status.removes_files or status.buffer.fault:
        return
    archived_at_s = seconds(status.last_archived_at) if status.last_archived_at else 0.0
    is_stuck = status.at_s - max(since_s, archived_at_s) > STUCK_AFTER_S
    if is_stuck or status.at_s - since_s > OPEN_LONG_AFTER_S:
        since = people_time(since_s, status.at_s)
        yield _look_today(
            f"files have waited in the buffer since {since}: is one still open for writing? "
            "data_manager.py --dry-run"
        )


def _failed_files(status: Status) -> Iterator[Reason]:
    """No file has failed."""
    if status.pending:
        yield _look_today(f"{counted(len(status.pending), 'file', 'files')} failed so far")


# --- disks and drives -------------------------------------------------------------------


def _copies(status: Status) -> Iterator[Reason]:
    """No copy is lacking."""
    if status.lacking_copies:
        lacking = counted(status.lacking_copies, "copy is", "copies are")
        yield _look_today(f"{lacking} damaged or missing: data_manager.py repair")


def _mounted(status: Status) -> Iterator[Reason]:
    """Each disk in use is mounted."""
    for item in _in_use(status):
        label = item.disk.label
        if not (item.is_mounted or item.disk.held_by or _is_told(status, "disk-missing", label)):
            yield _look_today(f"{label} is in use, but not mounted: mount it")


def _verified(status: Status) -> Iterator[Reason]:
    """Every copy was read within twice VerifyEvery."""
    late = [item for item in status.disks if item.overdue]
    if late:
        labels = " ".join(item.disk.label for item in late)
        count = counted(sum(item.overdue for item in late), "copy was", "copies were")
        yield _look_today(
            f"{count} not read for twice VerifyEvery: data_manager.py verify {labels}"
        )


def _drives(status: Status) -> Iterator[Reason]:
    """Drives: each one in use was asked for its SMART data within 8 days."""
    if status.stand_ins:
        return
    old = [item.disk.label for item in _in_use(status) if _is_stale(status, item)]
    if old:
        yield _look_today(
            f"SMART data of {' '.join(old)} is older than 8 days, or was never read: "
            "sudo get_SMART_status.py"
        )


def _is_stale(status: Status, item: DiskStatus) -> bool:
    at = item.health and item.health.at
    return not at or status.at_s - seconds(at) > SMART_STALE_AFTER_S


def _in_use(status: Status) -> list[DiskStatus]:
    return [item for item in status.disks if item.disk.state is DiskState.ACTIVE]


# --- people are notified ----------------------------------------------------------------


def _people(status: Status) -> Iterator[Reason]:
    """Drives: at least one channel is set, and a watchdog (or none, on purpose)."""
    if status.stand_ins:
        return
    if status.channels == ():
        yield _look_today("nobody would be notified: set a channel in .env (see .env.example)")
    if status.has_watchdog is False:
        yield _look_today("no watchdog is set in .env: POLE_HEARTBEAT_URL, or none on purpose")


def _settings(status: Status) -> Iterator[Reason]:
    """Every setting can be used."""
    yield from map(_look_today, status.warnings)


def _delivery(status: Status) -> Iterator[Reason]:
    """Each channel worked when it was last used."""
    for waiting in status.undelivered:
        count = counted(waiting.notices, "notice", "notices")
        yield _look_today(f"{count} could not be sent through {waiting.channel}")


_ROWS: tuple[Callable[[Status], Iterator[Reason]], ...] = (
    _notices,
    _passes,
    _buffer,
    _pause,
    _database,
    _waiting_files,
    _settings,
    _failed_files,
    _copies,
    _mounted,
    _verified,
    _drives,
    _people,
    _delivery,
)
