"""What is wrong: one row for each condition, and nothing else decides it. Pure.

The table starts from "not well": each row names something that must be positively true, and yields
a condition if it is not, or if it is not known. compare.py keeps the open notices equal to these
conditions; verdict.py takes its reasons from them. A row marked "drives" does not apply to
stand-ins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from poledata.disks.not_received import overdue_text
from poledata.formatting import DAY_S, counted, people_time, seconds, size_text, utc
from poledata.models import ArchiveCondition, DiskState, Finding, Role, Severity
from poledata.notices.defects import caught
from poledata.notices.kinds import DISK_KINDS, SEVERITIES, SMART_KINDS
from poledata.status.facts import ArchiveEvidence, DiskStatus, Status

NO_PASS_FOR_S = 900.0  # cron starts one each minute
PASS_STUCK_AFTER_S = 3 * 3600.0
STUCK_AFTER_S, OPEN_LONG_AFTER_S = 3600.0, DAY_S
OPENED_FOR_S = DAY_S  # how long the notice of a file that was opened at its removal stays
SMART_STALE_AFTER_S = 8 * DAY_S
IN_FUTURE_S = 300.0
COPY_FAILED_FROM = 3  # tries: a file that the second try archives needs no person
BUFFER_CRITICAL_PERCENT = 95.0
BUFFER_HYSTERESIS_PERCENT = 2.0
NOT_TOLD_FROM = 10  # tries through a channel, the last ones ten minutes apart


@dataclass(frozen=True, slots=True)
class Unknown:
    """What can't be told now: an open notice of this kind stays as it is."""

    kind: str


Row = Callable[[Status, ArchiveEvidence], Iterator[ArchiveCondition | Unknown]]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything that is wrong, and the kinds of notices about which nothing is known now."""

    holding: tuple[ArchiveCondition, ...]
    unknown_kinds: frozenset[str]


def conditions(status: Status, evidence: ArchiveEvidence) -> Conditions:
    """Evaluate the table. Pure; a bug in a row is logged, and is one more condition."""
    found: list[ArchiveCondition | Unknown] = []
    for row, kinds in ROWS.items():
        about = row.__name__.strip("_").replace("_", " ")
        with caught(f"the condition {about}") as bugs:
            found += row(status, evidence)
        for why in bugs:
            found.append(_of_kind("defect", f"the condition {about}", f"{why}."))
            found += map(Unknown, kinds)
    return Conditions(
        tuple(each for each in found if isinstance(each, ArchiveCondition)),
        frozenset(each.kind for each in found if isinstance(each, Unknown)),
    )


def _act_now(text: str) -> ArchiveCondition:
    return ArchiveCondition("", "", Severity.CRITICAL, text)


def _look_today(text: str) -> ArchiveCondition:
    return ArchiveCondition("", "", Severity.WARNING, text)


def _of_kind(kind: str, key: str, text: str, headline: str = "") -> ArchiveCondition:
    return ArchiveCondition(kind, key, SEVERITIES[kind], text, headline=headline)


# --- what runs found ----------------------------------------------------------------------


def _found(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """No run found anything that is not known to be over."""
    for each in evidence.findings:
        if _still_counts(status, each):
            yield as_condition(each)


def as_condition(finding: Finding) -> ArchiveCondition:
    """Return the condition of a finding that still counts."""
    one = finding
    if one.kind == "file-open-long":  # no news until now
        one = replace(one, severity=SEVERITIES[one.kind])
    headline = f"{one.key}: {one.text.rstrip('.')}" if one.kind == "config-error" else ""
    return ArchiveCondition(one.kind, one.key, one.severity, one.text, one.value, headline)


def _still_counts(status: Status, finding: Finding) -> bool:
    """What happened once is over after a day; what takes long counts after a day."""
    age_s = status.at_s - seconds(finding.found_at)
    if finding.kind == "opened-at-removal":
        return age_s <= OPENED_FOR_S
    if finding.kind == "file-open-long":
        return age_s > OPEN_LONG_AFTER_S
    return True


# --- passes come to their end -----------------------------------------------------------


def _passes(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Drives: a pass ended within 15 minutes, or the one at work moved a byte within 15 minutes."""
    if status.lock_holder:
        text = f"the lock of passes is held by another program: {status.lock_holder}"
        yield _of_kind("pass-stuck", "data_manager", _lock_text(status), text)
    elif status.at_work and not _is_recent(status, status.looked_at_s):
        yield from _slow_pass(status)
    elif not (status.at_work or _is_recent(status, status.ended_at_s) or _needs_none(status)):
        yield from _no_pass(status, evidence)


def _needs_none(status: Status) -> bool:
    """A demo, in which no file waits, needs no pass."""
    return status.stand_ins and not status.buffer.finished_files


def _lock_text(status: Status) -> str:
    return (
        f"{status.db_path}.lock is held by a process that is no pass: {status.lock_holder}. "
        "Until it ends nothing is archived."
    )


def _slow_pass(status: Status) -> Iterator[ArchiveCondition]:
    since_s = status.looked_at_s or 0.0
    if abs(status.at_s - since_s) < PASS_STUCK_AFTER_S:
        yield _look_today(f"the pass at work has moved no byte{_since(status)}")
        return
    text = (
        f"The pass at work has not got on since {utc(since_s)}. "
        "Its number: pgrep -f data_manager.py"
    )
    yield _of_kind("pass-stuck", "data_manager", text)


def _no_pass(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    if _is_recent(status, status.looked_at_s):
        yield _act_now("passes begin, but none has come to its end: see the log")
    elif status.looked_at_s is not None:
        text = f"no pass has run{_since(status)}: is cron running?"
        last = utc(status.looked_at_s)
        yield _of_kind("no-pass", "archive", f"The last pass began {last}. {_CRON}", text)
    elif _is_recent(status, seconds(evidence.made_at) if evidence.made_at else status.at_s):
        yield _act_now(_NEVER)
    else:
        yield _of_kind("no-pass", "archive", f"No pass has run yet. {_CRON}", _NEVER)


_CRON = "Nothing is archived. Is cron running, and is the line in its crontab? crontab -l"
_NEVER = "no pass has run yet: is its line in the crontab?"


def _is_recent(status: Status, at_s: float | None) -> bool:
    return at_s is not None and abs(status.at_s - at_s) <= NO_PASS_FOR_S


def _since(status: Status) -> str:
    return f" since {people_time(status.looked_at_s or 0.0, status.at_s)}"


def _pause(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """The archive is not paused."""
    if status.pause:
        why, until = status.pause.why, status.pause.until or "somebody resumes"
        yield _of_kind("paused", "archive", f"{why} (until {until}).")
        yield _look_today(f"the archive is paused: {why}")


def _database(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """The database can be written to, in its own mode, and nothing in it is from the future."""
    if status.is_read_only:
        yield _act_now(f"the database is read-only: chmod u+w {status.db_path}")
    if evidence.is_wal:
        yield ArchiveCondition(
            "database-error", "journal", Severity.WARNING, _wal_text(status.db_path)
        )
    newest = status.newest_record_at
    if newest and seconds(newest) > status.at_s + IN_FUTURE_S:
        text = f"The newest record in the database is of {newest}, which has not come yet."
        headline = f"the clock is behind the database ({newest}): set it"
        yield _of_kind("clock", "archive", text, headline)


def _wal_text(db_path: str) -> str:
    return (
        f"Another program switched {db_path} to WAL mode and has it open. Nothing is lost, and "
        "archiving goes on; but users who may not write there can't read the status. Close that "
        f"program (sudo fuser -v {db_path} names it): the next pass switches it back."
    )


# --- files leave the buffer -------------------------------------------------------------


def _buffer(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition | Unknown]:
    """The buffer is the right one, has its marker, and can be listed completely."""
    buffer = status.buffer
    if buffer.is_wrong and status.pause:  # somebody may be at work there
        yield Unknown("buffer-wrong")
        yield _look_today(str(buffer.fault))
    elif buffer.is_wrong:
        yield _of_kind("buffer-wrong", "buffer", str(buffer.fault), str(buffer.fault))
    elif buffer.fault:
        yield _look_today(f"the buffer can't be read: {buffer.fault}")
        if buffer.used_percent is None:
            yield Unknown("buffer-wrong")
    elif evidence.without_marker and status.removes_files:
        yield ArchiveCondition("buffer-wrong", "buffer", Severity.WARNING, evidence.without_marker)


def _buffer_room(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition | Unknown]:
    """The buffer is not filling up. A notice ends two percent below the limit."""
    percent, free_bytes = status.buffer.used_percent, evidence.buffer_free_bytes
    if percent is None or free_bytes is None:
        yield Unknown("buffer-full")
        return
    is_open = any(notice.kind == "buffer-full" for notice in status.notices)
    limit = evidence.limits.buffer_full_percent - (BUFFER_HYSTERESIS_PERCENT if is_open else 0)
    if percent < limit:
        return
    is_critical = percent >= BUFFER_CRITICAL_PERCENT
    yield ArchiveCondition(
        "buffer-full",
        "buffer",
        Severity.CRITICAL if is_critical else Severity.WARNING,
        f"{evidence.buffer_path} is {percent:.0f} % full, {size_text(free_bytes)} are free. "
        f"{_until_full(status, evidence, free_bytes)}",
        float(int(percent)),
    )


def _until_full(status: Status, evidence: ArchiveEvidence, free_bytes: int) -> str:
    """Return when it will be full, from the rates of the last day."""
    archived_bytes = status.archived.day_bytes
    arrived_bytes = archived_bytes + evidence.arrived_in_a_day_bytes
    if not arrived_bytes:
        return "Nothing arrived in the last day."
    text = (
        f"In the last day {size_text(arrived_bytes)} arrived and {size_text(archived_bytes)} "
        f"were archived. If nothing is archived it will be full "
        f"{_in_days(status, free_bytes / arrived_bytes)}"
    )
    growth_bytes = arrived_bytes - archived_bytes
    went = f"; as it went, {_in_days(status, free_bytes / growth_bytes)}" if growth_bytes else ""
    return f"{text}{went}."


def _in_days(status: Status, days: float) -> str:
    """Return the time to the hour, so that the text stays the same from pass to pass."""
    at_s = status.at_s + days * DAY_S
    return f"on {utc(at_s - at_s % 3600)[:16].replace('T', ' ')} UTC" if days < 3650 else "in years"


def _waiting_files(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
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


def _new_files(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """A file was archived within NoNewFilesAfter."""
    since = status.last_archived_at or evidence.made_at
    after_s = evidence.limits.no_new_files_after_s
    if not after_s or since is None or abs(status.at_s - seconds(since)) < after_s:
        return
    what = "The last file was archived" if status.last_archived_at else "No file since"
    yield _of_kind("no-new-files", "archive", f"{what} {since}. {_why_none(status, evidence)}")


def _why_none(status: Status, evidence: ArchiveEvidence) -> str:
    """Return whether nothing arrived, or files wait, and why."""
    if status.pause:
        return f"The archive is paused: {status.pause.why}."
    if status.buffer.fault:
        is_right = "" if status.buffer.is_wrong else f"{evidence.buffer_path} can't be opened: "
        return f"{is_right}{status.buffer.fault}"
    kinds = [each.kind for each in evidence.findings]
    failed, busy = len(status.pending), kinds.count("file-open-long")
    why = "lack a disk" if "no-disk" in kinds else "are to be archived"
    waiting = (
        (failed, "failed"),
        (status.buffer.finished_files - failed - busy, why),
        (busy, "are still open for writing"),
        (status.buffer.unfinished_files, "are too young"),
    )
    reasons = [f"{count} {what}" for count, what in waiting if count > 0]
    if reasons:
        return f"Files wait in {evidence.buffer_path}: {', '.join(reasons)}."
    return f"Nothing arrived: no file waits in {evidence.buffer_path}."


def _failed_files(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """No file has failed; one that may still succeed without a person gets no notice."""
    needs_person = [
        one
        for one in status.pending
        if one.kind != "copy-failed" or one.attempts >= COPY_FAILED_FROM
    ]
    for one in needs_person:
        stays = "what is in it stays" if one.name.endswith("/") else "the file stays"
        tried = "once" if one.attempts == 1 else f"{one.attempts} times"
        text = f"{one.last_error}; {stays} in the buffer (tried {tried})."
        yield _of_kind(one.kind, one.name, text)
    if others := len(status.pending) - len(needs_person):
        yield _look_today(f"{counted(others, 'file', 'files')} failed so far")


# --- disks and drives -------------------------------------------------------------------


def _copies(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """No copy is lacking."""
    if status.lacking_copies:
        lacking = counted(status.lacking_copies, "copy is", "copies are")
        yield _look_today(f"{lacking} damaged or missing: data_manager.py repair")


def _mounted(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Each disk in use is mounted."""
    told = {each.key for each in evidence.findings if each.kind == "disk-missing"}
    for item in _in_use(status):
        label = item.disk.label
        if not (item.is_mounted or item.disk.held_by or label in told):
            yield _look_today(f"{label} is in use, but not mounted: mount it")


def _manifests(_: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """The manifest of each disk in use is as long as when the database last registered a copy."""
    kinds = ("disk-differs", *DISK_KINDS)  # a disk that is not the right one tells nothing
    found = {each.key for each in evidence.findings if each.kind in kinds}
    for one in evidence.manifests:
        if one.is_bytes != one.known_bytes and one.label not in found:
            than = "longer" if one.is_bytes > one.known_bytes else "shorter"
            yield _of_kind(
                "disk-differs",
                one.label,
                f"The manifest of {one.label} is {than} than this database knows ({one.is_bytes} "
                f"bytes, not {one.known_bytes}): an older database was put back, or an older image "
                f"of the disk is mounted. Nothing was changed.",
            )


def _verified(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Every copy was read within twice VerifyEvery."""
    late = [item for item in status.disks if item.overdue]
    if late:
        labels = " ".join(item.disk.label for item in late)
        count = counted(sum(item.overdue for item in late), "copy was", "copies were")
        yield _look_today(
            f"{count} not read for twice VerifyEvery: data_manager.py verify {labels}"
        )


def _spares(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Enough spare disks of each role are mounted."""
    for role in Role:
        here = [d for d in status.disks if _takes_files(d) and d.disk.role is role]
        spares = [item for item in here if item.disk.state is DiskState.SPARE]
        lacking = evidence.limits.spare_disks_low - len(spares)
        if lacking > 0:
            room = _until_none(status, evidence, here)
            text = f"{len(spares)} {role.value} disks are mounted and spare. {room}"
            severity = SEVERITIES["spares-low"]
            yield ArchiveCondition("spares-low", role.value, severity, text, float(lacking))


def _takes_files(item: DiskStatus) -> bool:
    is_ours = item.disk.state in (DiskState.ACTIVE, DiskState.SPARE)
    return is_ours and item.is_mounted and not item.disk.held_by


def _until_none(status: Status, evidence: ArchiveEvidence, disks: list[DiskStatus]) -> str:
    """Return when the space on these disks runs out, at the rate of the last week."""
    room_bytes = sum(evidence.rooms_bytes.get(item.disk.id, 0) for item in disks)
    if not room_bytes:
        return "No disk of this role that is here has room."
    text = f"The disks in use and these have room for {size_text(room_bytes)}"
    if not status.archived.week_bytes:
        return f"{text}; nothing was archived in the last week."
    days = 7 * room_bytes / status.archived.week_bytes
    return f"{text}: at the last week's rate that is used up {_in_days(status, days)}."


def _drives(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Drives: each one in use was asked for its SMART data within 8 days."""
    if status.stand_ins:
        return
    old = [item for item in _in_use(status) if _is_stale(status, item)]
    if not old:
        return
    labels = " ".join(item.disk.label for item in old)
    headline = (
        f"SMART data of {labels} is older than 8 days, or was never read: sudo get_SMART_status.py"
    )
    used_s = [seconds(item.disk.first_used_at) for item in old if item.disk.first_used_at]
    if used_s and status.at_s - min(used_s) > SMART_STALE_AFTER_S:
        text = f"Nobody has asked the drives of {labels} for more than 8 days."
        yield _of_kind("smart-stale", "drives", text, headline)
    else:
        yield _look_today(headline)


def _is_stale(status: Status, item: DiskStatus) -> bool:
    at = item.health and item.health.at
    return not at or status.at_s - seconds(at) > SMART_STALE_AFTER_S


def _in_use(status: Status) -> list[DiskStatus]:
    return [item for item in status.disks if item.disk.state is DiskState.ACTIVE]


def _receipts(_: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Of each shipped disk a receipt has come within ReceiptExpected."""
    for one in evidence.not_received:
        yield _of_kind("not-received", one.disk.serial, overdue_text(one))


# --- people are notified ----------------------------------------------------------------


def _people(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Drives: at least one channel is set, and a watchdog (or none, on purpose)."""
    if status.stand_ins:
        return
    if status.channels == ():
        yield _look_today("nobody would be notified: set a channel in .env (see .env.example)")
    if status.has_watchdog is False:
        yield _look_today("no watchdog is set in .env: POLE_HEARTBEAT_URL, or none on purpose")


def _settings(status: Status, evidence: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Every setting can be used; each pass stores which can't."""
    stored = {each.key for each in evidence.findings if each.kind == "config-error"}
    for warning in status.warnings:
        if warning.partition(": ")[0].rpartition("/")[2] not in stored:
            yield _look_today(warning)


def _delivery(status: Status, _: ArchiveEvidence) -> Iterator[ArchiveCondition]:
    """Each channel worked when it was last used."""
    for waiting in status.undelivered:
        count = counted(waiting.notices, "notice", "notices")
        headline = f"{count} could not be sent through {waiting.channel}"
        if waiting.attempts >= NOT_TOLD_FROM:
            text = f"Nothing gets through {waiting.channel}: {waiting.last_error}"
            yield _of_kind("not-told", waiting.channel, f"{text.rstrip('.')}.", headline)
        else:
            yield _look_today(headline)


# What runs store as findings: who works on files and disks knows it, and nobody else does.
FOUND_KINDS = (
    *("no-disk", "copy-damaged", "no-good-copy", "name-conflict", "opened-at-removal"),
    *("file-open-long", "disk-differs", "disk-closed", "database-error", "config-error"),
    *("hidden-files", "content-suspect"),
    *("pass-crashed", *DISK_KINDS, *SMART_KINDS),
)
# Each row, and the kinds of notices that it decides, alone or with what runs found of the kind.
ROWS: dict[Row, tuple[str, ...]] = {
    _found: FOUND_KINDS,
    _passes: ("pass-stuck", "no-pass"),
    _buffer: ("buffer-wrong",),
    _pause: ("paused",),
    _database: ("database-error", "clock"),
    _buffer_room: ("buffer-full",),
    _waiting_files: (),
    _new_files: ("no-new-files",),
    _settings: (),
    _failed_files: ("copy-failed", "not-removed", "name-conflict", "bad-name", "defect"),
    _copies: (),
    _mounted: (),
    _manifests: ("disk-differs",),
    _verified: (),
    _spares: ("spares-low",),
    _drives: ("smart-stale",),
    _receipts: ("not-received",),
    _people: (),
    _delivery: ("not-told",),
}
