"""The table of conditions: every fact is needed, every kind has an owner, nothing else decides."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from poledata.formatting import utc
from poledata.models import (
    DiskState,
    Finding,
    HealthCheck,
    Notice,
    Pause,
    Pending,
    Severity,
    Shipment,
)
from poledata.notices.kinds import DIGEST, KINDS
from poledata.status import verdict
from poledata.status.conditions import ROWS, conditions
from poledata.status.facts import (
    ArchivedAmount,
    ArchiveEvidence,
    ArchiveVerdict,
    BufferStatus,
    DiskStatus,
    Limits,
    ManifestSize,
    Status,
    Undelivered,
)
from tests.helpers.sample_status import NOON, STATUS, disk
from tests.helpers.world import REPO

HOUR_S, DAY_S = 3600.0, 86_400.0
WELL = replace(
    STATUS,
    buffer=BufferStatus(used_percent=41.6, oldest_here_since_s=NOON - 60, finished_files=1),
    disks=(
        DiskStatus(
            disk("P01", DiskState.ACTIVE, first_used_at=utc(NOON - 90 * DAY_S)),
            True,
            health=HealthCheck(utc(NOON - 7 * DAY_S), "healthy", 31),
        ),
        DiskStatus(disk("P02"), True),
        DiskStatus(disk("S01"), True),
    ),
    archived=ArchivedAmount(10, 2 * 10**12, 3, 10**12, 7, 7 * 10**12),
)
EVIDENCE = ArchiveEvidence(
    limits=Limits(6 * HOUR_S, 80.0, 1),
    buffer_path="/buffer",
    buffer_free_bytes=10**12,
    made_at=utc(NOON - 90 * DAY_S),
    rooms_bytes={1: 10**12},
    manifests=(ManifestSize("P01", 300, 300),),
)


SHIPMENT = Shipment(
    disk("P04", DiskState.SHIPPED), utc(NOON - 130 * DAY_S), "2026-07-16", "3", None, None
)


@dataclass(frozen=True, slots=True)
class Case:
    """One fact that is removed, aged or bad, and how the reason begins."""

    fact: str
    value: Any
    reason: str
    of: str = "status"  # or evidence, buffer, P01


def _pending(kind: str, attempts: int) -> tuple[Pending, ...]:
    return (Pending("a.g3", attempts, utc(NOON), utc(NOON), "no", kind, None),)


def _finding(kind: str, at_s: float) -> Finding:
    return Finding(kind, "x", Severity.WARNING, "t.", None, utc(at_s))


CASES = [
    Case("looked_at_s", NOON - 1000, "no pass has run since 11:43 UTC"),
    Case("looked_at_s", None, "no pass has run yet"),
    Case("ended_at_s", NOON - 1000, "passes begin, but none has come to its end"),
    Case("ended_at_s", None, "passes begin, but none has come to its end"),
    Case("lock_holder", "7 (flock x)", "the lock of passes is held by another program: 7"),
    Case("fault", "Input/output error", "the buffer can't be read: Input/output error", "buffer"),
    Case("is_wrong", True, "another one is mounted", "buffer"),
    Case("oldest_here_since_s", NOON - 25 * HOUR_S, "files have waited in the buffer", "buffer"),
    Case("last_archived_at", None, "archive: nothing was archived for too long"),
    Case("last_archived_at", utc(NOON - 7 * HOUR_S), "archive: nothing was archived for too long"),
    Case("used_percent", 81.0, "buffer: the buffer is filling up", "buffer"),
    Case("pause", Pause(utc(NOON), "night", None), "the archive is paused: night"),
    Case("is_read_only", True, "the database is read-only"),
    Case("newest_record_at", utc(NOON + 301), "the clock is behind the database"),
    Case("warnings", ("LogFile: no",), "LogFile: no"),
    Case("pending", _pending("copy-failed", 2), "1 file failed so far"),
    Case("pending", _pending("bad-name", 1), "a.g3: this name can't be archived"),
    Case("lacking_copies", 2, "2 copies are damaged or missing: data_manager.py repair"),
    Case("undelivered", (Undelivered("mail", 3, 1, "no"),), "3 notices could not be sent"),
    Case("undelivered", (Undelivered("mail", 3, 10, "no"),), "3 notices could not be sent"),
    Case("channels", (), "nobody would be notified"),
    Case("has_watchdog", False, "no watchdog is set"),
    Case("is_mounted", False, "P01 is in use, but not mounted", "P01"),
    Case("overdue", 4, "4 copies were not read for twice VerifyEvery", "P01"),
    Case("health", None, "SMART data of P01 is older than 8 days", "P01"),
    Case(
        "health",
        HealthCheck(utc(NOON - 8 * DAY_S - 1), "healthy", 31),
        "SMART data of P01 is older than 8 days",
        "P01",
    ),
    Case("is_wal", True, "Another program switched", "evidence"),
    Case("without_marker", "It has no marker", "buffer: the buffer is not mounted", "evidence"),
    Case("manifests", (ManifestSize("P01", 301, 300),), "P01: is not what the", "evidence"),
    Case("manifests", (ManifestSize("P01", 0, 300),), "P01: is not what the", "evidence"),
    Case("limits", Limits(6 * HOUR_S, 80.0, 2), "2 roles have few spare disks", "evidence"),
    Case("not_received", (SHIPMENT,), "ZP04: was shipped, and no receipt has come", "evidence"),
    *(
        Case(
            "findings",
            (Finding(kind, "x", Severity.WARNING, "t.", None, utc(NOON)),),
            "",
            "evidence",
        )
        for kind in sorted(set(KINDS) - {DIGEST, "file-open-long"})
    ),
    Case(
        "findings",
        (_finding("file-open-long", NOON - DAY_S - 1),),
        "x: has been open for writing for a day",
        "evidence",
    ),
]
# What is shown, and decides nothing; each with the fact that decides instead.
SHOWN_ONLY = {
    "at_s", "config_path", "db_path", "unidentified_drives", "archived", "notices", "last_pass",
    "at_work", "without_good_copy", "removes_files", "verdict", "reasons", "stand_ins",
    "buffer", "disks",
    "finished_files", "finished_bytes", "unfinished_files", "other_files", "links_and_specials",
    "oldest_at_s", "lease_can_be_had", "trusts_leases", "writer_rule",
    "confirmed_files", "content", "hidden_files", "left_out", "hours_since_tested", "left_at",
    "disk", "full_at_s", "oldest_verified_at", "never_read",
    "buffer_path", "buffer_free_bytes", "arrived_in_a_day_bytes", "made_at", "rooms_bytes",
}  # fmt: skip


def with_case(case: Case) -> tuple[Status, ArchiveEvidence]:
    changed = {case.fact: case.value}
    if case.fact == "looked_at_s":  # a pass that never began never ended
        changed["ended_at_s"] = case.value
    if case.fact == "is_wrong":
        changed["fault"] = "another one is mounted"
    if case.of == "evidence":
        return WELL, replace(EVIDENCE, **changed)
    if case.of == "buffer":
        return replace(WELL, buffer=replace(WELL.buffer, **changed)), EVIDENCE
    if case.of == "P01":
        first, *others = WELL.disks
        return replace(WELL, disks=(replace(first, **changed), *others)), EVIDENCE
    return replace(WELL, **changed), EVIDENCE


def test_a_station_with_every_fact_is_well() -> None:
    """Without anything acknowledged."""
    judged = verdict.judged(WELL, EVIDENCE)
    assert (judged.verdict, judged.reasons) == (ArchiveVerdict.ALL_WELL, ())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fact}-{case.reason[:30]}")
def test_one_fact_that_is_removed_aged_or_bad_is_the_reason(case: Case) -> None:
    """And the only one."""
    judged = verdict.judged(*with_case(case))
    assert judged.verdict is not ArchiveVerdict.ALL_WELL
    assert len(judged.reasons) == 1 and judged.reasons[0].startswith(case.reason), judged.reasons


@pytest.mark.parametrize("of", [Status, BufferStatus, DiskStatus, ArchiveEvidence])
def test_every_fact_is_tried_above_or_decides_nothing(of: type) -> None:
    """A new fact needs a case."""
    tried = {case.fact for case in CASES}
    assert {field.name for field in fields(of)} <= tried | SHOWN_ONLY


def test_every_row_of_the_table_is_tried_above() -> None:
    """Each yields something in one of the cases."""
    yielding = {row.__name__ for case in CASES for row in ROWS if list(row(*with_case(case)))}
    assert yielding == {row.__name__ for row in ROWS}


def test_every_kind_of_notice_has_a_row() -> None:
    """Except the digest, and what is sent when the database can't store it."""
    owned = {kind for kinds in ROWS.values() for kind in kinds}
    assert owned == set(KINDS) - {DIGEST, "database-locked"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fact}-{case.reason[:30]}")
def test_a_row_yields_only_kinds_that_it_owns(case: Case) -> None:
    """What is unknown in a bug is known by this."""
    for row, kinds in ROWS.items():
        for each in row(*with_case(case)):
            assert not each.kind or each.kind in kinds or row.__name__ == "_found"


def _calls(name: str) -> Iterator[str]:
    for path in (REPO / "poledata").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == name:
                yield path.name


@pytest.mark.parametrize("name", ["open_notice", "resolve_notice"])
def test_one_function_opens_and_ends_notices(name: str) -> None:
    """And one more, for what no database could store."""
    assert set(_calls(name)) == {"compare.py", "delivery_queue.py"}


def test_a_buffer_that_is_almost_empty_enough_stays_told() -> None:
    """Two percent below the limit it is over: it does not come and go with each file."""
    full = replace(WELL, buffer=replace(WELL.buffer, used_percent=79.0))
    assert conditions(full, EVIDENCE).holding == ()
    opened = Notice("buffer-full", "buffer", Severity.WARNING, "t.", utc(NOON - 60))
    assert [c.kind for c in conditions(replace(full, notices=(opened,)), EVIDENCE).holding] == [
        "buffer-full"
    ]


def test_of_a_buffer_that_can_not_be_seen_nothing_is_known() -> None:
    """Open notices about it stay as they are."""
    gone = replace(WELL, buffer=BufferStatus(fault="No such file or directory"))
    assert conditions(gone, EVIDENCE).unknown_kinds == {"buffer-wrong", "buffer-full"}
