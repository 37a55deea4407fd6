"""What ALL WELL, LOOK TODAY and ACT NOW mean: the conditions, each with its reason. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from poledata.formatting import counted, people_time, utc
from poledata.models import Notice, Severity
from poledata.notices.kinds import KINDS, own_headline
from poledata.status.facts import ArchiveVerdict, Status

NO_PASS_FOR_S = 900.0  # cron starts one each minute


def judged(status: Status) -> Status:
    """Return the status with its verdict, and the reasons for it. Pure."""
    now = (*_notice_reasons(status, Severity.CRITICAL), *_no_pass(status))
    today = (*_notice_reasons(status, Severity.WARNING), *_other_reasons(status))
    verdict = ArchiveVerdict.LOOK_TODAY if today else ArchiveVerdict.ALL_WELL
    return replace(
        status, verdict=ArchiveVerdict.ACT_NOW if now else verdict, reasons=(*now, *today)
    )


def _notice_reasons(status: Status, severity: Severity) -> Iterator[str]:
    """Return one line for each kind of open notice that nobody acknowledged."""
    now = utc(status.at_s)
    by_kind = defaultdict[str, list[Notice]](list)
    for notice in status.notices:
        if notice.severity is severity and not (notice.acked_until and notice.acked_until > now):
            by_kind[notice.kind].append(notice)
    for kind, notices in sorted(by_kind.items()):
        yield f"{_notices_text(status, kind, notices)} ({kind})"


def _notices_text(status: Status, kind: str, notices: Sequence[Notice]) -> str:
    if kind == "no-good-copy" and status.without_good_copy:  # a file can be in several notices
        return f"files without a good copy: {status.without_good_copy}"
    if len(notices) > 1:
        return f"{len(notices)} {KINDS[kind].many}"
    return own_headline(notices[0]) or f"{notices[0].key}: {KINDS[kind].headline}"


def _no_pass(status: Status) -> Iterator[str]:
    if not status.buffer.finished_files or status.pause:
        return
    begun_s, since = status.looked_at_s, ""
    if begun_s is not None:
        since = f" since {people_time(begun_s, status.at_s)}"
    if begun_s is None or abs(status.at_s - begun_s) > NO_PASS_FOR_S:
        yield f"no pass has run{since} though files wait: is cron running?"


def _other_reasons(status: Status) -> Iterator[str]:
    if status.buffer.is_wrong:
        yield str(status.buffer.fault)
    elif status.buffer.fault:
        yield f"the buffer can't be read: {status.buffer.fault}"
    if status.pause:
        yield f"the archive is paused: {status.pause.why}"
    yield from status.warnings
    if status.pending:
        yield f"{counted(len(status.pending), 'file', 'files')} failed so far"
    if status.lacking_copies:
        lacking = counted(status.lacking_copies, "copy is", "copies are")
        yield f"{lacking} damaged or missing: data_manager.py repair"
    late = [item for item in status.disks if item.overdue]
    if late:
        labels = " ".join(item.disk.label for item in late)
        count = counted(sum(item.overdue for item in late), "copy was", "copies were")
        yield f"{count} not read for twice VerifyEvery: data_manager.py verify {labels}"
    for waiting in status.undelivered:
        count = counted(waiting.notices, "notice", "notices")
        yield f"{count} could not be sent through {waiting.channel}"
