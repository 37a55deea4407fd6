"""What ALL WELL, LOOK TODAY and ACT NOW mean: the worst condition that nobody knows of. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from poledata.formatting import utc
from poledata.models import ArchiveCondition, Notice, Severity
from poledata.notices.kinds import KINDS, own_headline
from poledata.status.conditions import conditions
from poledata.status.facts import ArchiveEvidence, ArchiveVerdict, Status


def judged(status: Status, evidence: ArchiveEvidence) -> Status:
    """Return the status with its verdict, and the reasons for it, the gravest first. Pure."""
    found = [each for each in conditions(status, evidence).holding if not _is_known(status, each)]
    now = list(_reasons(status, found, Severity.CRITICAL))
    today = list(_reasons(status, found, Severity.WARNING))
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
        if notice.severity is not Severity.INFO
        and notice.acked_until
        and notice.acked_until > utc(status.at_s)
    ]


def _is_known(status: Status, condition: ArchiveCondition) -> bool:
    """True if its notice was acknowledged, and it is not graver by now."""
    return any(
        (notice.kind, notice.key) == (condition.kind, condition.key)
        and not condition.severity.is_graver_than(notice.severity)
        for notice in known(status)
    )


def _reasons(
    status: Status, found: Sequence[ArchiveCondition], severity: Severity
) -> Iterator[str]:
    """Return one reason for each kind, and one for each condition without a kind."""
    by_kind = defaultdict[str, list[ArchiveCondition]](list)
    others = []
    for condition in found:
        if condition.severity is severity and condition.kind:
            by_kind[condition.kind].append(condition)
        elif condition.severity is severity:
            others.append(condition.text)
    for kind, alike in sorted(by_kind.items()):
        groups = [[one] for one in alike] if kind == "config-error" else [alike]
        yield from (f"{_reason(status, kind, group)} ({kind})" for group in groups)
    yield from others


def _reason(status: Status, kind: str, alike: Sequence[ArchiveCondition]) -> str:
    if kind == "no-good-copy" and status.without_good_copy:  # a file can be in several notices
        return f"files without a good copy: {status.without_good_copy}"
    if len(alike) > 1:
        return f"{len(alike)} {KINDS[kind].many}"
    one = alike[0]
    return one.headline or own_headline(one) or f"{one.key}: {KINDS[kind].headline}"
