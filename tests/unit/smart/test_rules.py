"""Verdicts on drives: each condition shown by a drive that real smartctl was asked about.

``reports/`` holds smartctl's own answers (rig/record.py); a test that needs another number
alters it in one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.formatting import utc
from poledata.models import DiskState, Health, SmartCheck
from poledata.smart import rules
from poledata.smart.report import SelfReport, read_report
from poledata.smart.rules import CONDITIONS, DriveVerdict, Past
from tests.helpers.recorded_drives import FAILED, REPORTS, Alter, put, raw, recorded

NAMES = sorted(path.stem for path in REPORTS.glob("*.json"))
NOW_S = 1_800_000_000.0


def read(name: str, *alter: Alter) -> SelfReport:
    report = copy.deepcopy(recorded(name))
    for change in alter:
        change(report)
    return read_report("/dev/sdq", report, report["smartctl"]["exit_status"])


def past(*seen: Mapping[str, int], age_s: float = 3600) -> Past:
    """Earlier checks that saw these numbers, the oldest first."""
    checks: list[SmartCheck] = []
    for n, numbers in enumerate(seen):
        lowest = rules.lowest(dict(numbers), Past(answers=tuple(checks[::-1][:2])))
        at = utc(NOW_S - (len(seen) - n) * age_s)
        checks.append(SmartCheck(at, Health.HEALTHY, 31, 100, dict(numbers), lowest, ()))
    newest = tuple(checks[::-1][:2])
    return Past(newest[0] if newest else None, newest, checks[0].at if checks else None)


def unreadable_disks(before: Health, age_s: float = 3600) -> Past:
    """The last check came to this, without a number."""
    check = SmartCheck(utc(NOW_S - age_s), before, None, None, {}, {}, ())
    return Past(check, (), check.at)


def judge(name: str, *alter: Alter, seen: Past | None = None) -> DriveVerdict:
    return rules.judge(read(name, *alter), seen or Past(), NOW_S)


# --- what a test alters in a report --------------------------------------------------------


def failed(number: int, when: str) -> Alter:
    def alter(report: Any) -> None:
        (found,) = (a for a in report["ata_smart_attributes"]["table"] if a["id"] == number)
        found["when_failed"] = when

    return alter


def drop(*keys: str) -> Alter:
    def alter(report: Any) -> None:
        for key in keys[:-1]:
            report = report[key]
        del report[keys[-1]]

    return alter


def nvme(**values: int) -> Alter:
    def alter(report: Any) -> None:
        report["nvme_smart_health_information_log"].update(
            {"available_spare": 100, "available_spare_threshold": 10, **values}
        )
        report["smart_status"]["passed"] = not values.get("critical_warning")

    return alter


def ie(asc: int, ascq: int, text: str | None) -> Alter:
    scsi = {"asc": asc, "ascq": ascq} | ({"ie_string": text} if text else {})
    return put({"passed": False, "scsi": scsi}, "smart_status")


def shows(line: str, beginning: str) -> Alter:
    """A line of smartctl's text is replaced, or added."""

    def alter(report: Any) -> None:
        output = report["smartctl"]["output"]
        output[:] = [*(old for old in output if not old.startswith(beginning)), line]

    return alter


def grown(defects: int) -> Alter:
    line = f"Elements in grown defect list: {defects}"
    return shows(line, "Elements in grown defect list")


def non_medium(errors: int) -> Alter:
    return shows(f"Non-medium error count:       {errors}", "Non-medium")


def celsius(degrees: int) -> Alter:
    return put(degrees, "temperature", "current")


def trip(degrees: int) -> Alter:
    return put(degrees, "temperature", "drive_trip")


SAS_PHY = ("scsi_sas_port_0", "phy_0")


def phy_events(crc_errors: int) -> Alter:
    """A new connection (10) and what the maker counts (32768) are no errors."""
    counts = {1: crc_errors, 9: 400, 10: 400, 32768: 400}
    return put([{"id": n, "value": v} for n, v in counts.items()], *PHY_TABLE)


PHY_TABLE = ("sata_phy_event_counters", "table")


def scan(*statuses: int) -> Alter:
    found = {f"result_{n}": {"reassign_status": {"value": s}} for n, s in enumerate(statuses, 1)}
    return put({"status": {"value": 8}, **found}, "scsi_background_scan")


def ata_tests(*tests: tuple[int, int]) -> Alter:
    """Type and status of each test, the newest first; without smartctl's own counts."""
    table = [
        {"type": {"value": kind}, "status": {"value": status}, "lifetime_hours": 900 - n}
        for n, (kind, status) in enumerate(tests)
    ]
    return put({"standard": {"table": table}}, "ata_smart_self_test_log")


def scsi_tests(*tests: tuple[int, int]) -> Alter:
    def alter(report: Any) -> None:
        for n, (code, result) in enumerate(tests):
            entry = {"code": {"value": code}, "result": {"value": result}}
            report[f"scsi_self_test_{n}"] = entry | {"power_on_time": {"hours": 900 - n}}

    return alter


def nvme_tests(*tests: tuple[int, int]) -> Alter:
    table = [
        {"self_test_code": {"value": c}, "self_test_result": {"value": r}, "power_on_hours": 900}
        for c, r in tests
    ]
    return put({"table": table}, "nvme_self_test_log")


# --- the table of conditions --------------------------------------------------------------

W, F = Health.WARNING, Health.FAILING


def rows() -> list[Any]:
    """(condition, verdict, expected health, its reason), one drive each."""
    said = "it says itself that it is failing (SMART status: FAILED)"
    predicted = "failing (FAILURE PREDICTION THRESHOLD EXCEEDED [5d/00])"
    good, sas = "sata-good", "sas-good"
    errors = ("scsi_error_counter_log", "read", "total_uncorrected_errors")
    count = ("ata_smart_error_log", "summary", "count")
    found = [
        ("says_failing", judge("sata-failed"), F, said),
        ("says_failing", judge("sas-failed"), F, predicted),
        ("says_failing", judge(sas, ie(0x0B, 0x05, "MEDIUM")), F, "failing (MEDIUM [0b/05])"),
        ("says_failing", judge(good, put(8, "smartctl", "exit_status")), F, said),
        ("says_failing", judge("nvme-failing"), F, "failing (its reliability is degraded)"),
        ("says_failing", judge("nvme-good", nvme(critical_warning=8)), F, "media are read-only)"),
        ("says_failing", judge(good, FAILED, failed(5, "now")), F, "(5 Reallocated_Sector_Ct)"),
        ("says_warning", judge(sas, ie(0x0B, 0x01, "HOT")), W, "its own warning (HOT [0b/01])"),
        ("says_warning", judge(sas, ie(0x80, 0x05, None)), W, "its own warning (no text [80/05])"),
        (
            "attributes_failing",
            judge("sata-prefail"),
            F,
            "attributes at their threshold: 1 (5 Reallocated_Sector_Ct)",
        ),
        (
            "attributes_failed_once",
            judge(good, failed(5, "past"), seen=past({"attributes_failed_once": 0})),
            W,
            "attributes that once failed: 0 → 1 (5 Reallocated_Sector_Ct)",
        ),
        (
            "self_test_failed",
            judge("sata-test-failed"),
            F,
            "self-tests failed, and no extended one has passed since: 1 (Short offline: "
            "Completed: read failure)",
        ),
        ("pending_defects", judge(good, put({"count": 1}, "ata_pending_defects_log")), W, ": 1"),
        ("pending_defects", judge(sas, put({"count": 16}, "scsi_pending_defects")), F, ": 16"),
        (
            "phy_errors",
            judge(good, phy_events(30), seen=past({"phy_errors": 10})),
            W,
            "cable or slot: errors of the link: 10 → 30",
        ),
        (
            "phy_errors",
            judge(sas, put({"invalid_dword_count": 11}, *SAS_PHY), seen=past({"phy_errors": 1})),
            W,
            "cable or slot: errors of the link: 1 → 11",
        ),
        ("reassignments_failed", judge(sas, scan(2, 4)), F, "sectors it could not replace: 1"),
        ("pending", judge(good, raw(197, 1)), W, "pending sectors (197): 1"),
        ("pending", judge(good, raw(197, 15), seen=past({"pending": 0})), W, "0 → 15"),
        ("pending", judge(good, raw(197, 16)), F, "pending sectors (197): 16"),
        (
            "pending",
            judge(good, raw(197, 3), seen=past({"pending": 1}, {"pending": 2})),
            F,
            "pending sectors (197): 1 → 3",
        ),
        ("offline_uncorrectable", judge(good, raw(198, 1)), W, "sectors (198): 1"),
        ("offline_uncorrectable", judge(good, raw(198, 16)), F, "sectors (198): 16"),
        (
            "offline_uncorrectable",
            judge(
                good,
                raw(198, 3),
                seen=past({"offline_uncorrectable": 1}, {"offline_uncorrectable": 2}),
            ),
            F,
            "uncorrectable sectors (198): 1 → 3",
        ),
        ("reallocated", judge(good, raw(5, 1)), W, "reallocated sectors (5): 1"),
        ("reallocated", judge(good, raw(5, 70)), F, "reallocated sectors (5): 70"),
        (
            "reported_uncorrectable",
            judge(good, raw(187, 6), seen=past({"reported_uncorrectable": 5})),
            F,
            "uncorrectable errors (187): 5 → 6",
        ),
        (
            "end_to_end",
            judge(good, raw(184, 1), seen=past({"end_to_end": 0})),
            F,
            "end-to-end errors (184): 0 → 1",
        ),
        ("reported_uncorrectable", judge(good, raw(187, 1)), W, "errors (187): 1"),
        ("end_to_end", judge(good, raw(184, 1)), W, "errors (184): 1"),
        ("uncorrected_errors", judge(sas, put(3, *errors)), W, "uncorrected errors: 3"),
        ("media_errors", judge("nvme-good", nvme(media_errors=7)), W, "media errors: 7"),
        ("spin_retries", judge(good, raw(10, 1)), W, "spin retries (10): 1"),
        (
            "command_timeouts",
            judge(good, raw(188, 7 << 32 | 4), seen=past({"command_timeouts": 3})),
            W,
            "command timeouts (188): 3 → 4",
        ),
        (
            "interface_errors",
            judge(good, raw(199, 9), seen=past({"interface_errors": 1})),
            W,
            "cable or slot: errors (199): 1 → 9",
        ),
        (
            "logged_errors",
            judge(good, put(2, *count), seen=past({"logged_errors": 0})),
            W,
            "errors in its log: 0 → 2",
        ),
        ("grown_defects", judge(sas, grown(1)), W, "grown defects: 1"),
        ("grown_defects", judge(sas, grown(50)), F, "defects: 50"),
        (
            "uncorrected_errors",
            judge(sas, put(3, *errors), seen=past({"uncorrected_errors": 2})),
            F,
            "uncorrected errors: 2 → 3",
        ),
        (
            "non_medium_errors",
            judge(sas, non_medium(17), seen=past({"non_medium_errors": 7})),
            W,
            "non-medium errors: 7 → 17",
        ),
        (
            "media_errors",
            judge("nvme-good", nvme(media_errors=1), seen=past({"media_errors": 0})),
            F,
            "media errors: 0 → 1",
        ),
        (
            "spare_too_low",
            judge("nvme-good", nvme(available_spare=9)),
            F,
            "its spare blocks are used up",
        ),
        ("used_percent", judge("nvme-good", nvme(percentage_used=90)), W, "life used: 90"),
        (
            "worn_out",
            judge("nvme-good", nvme(critical_warning=4, percentage_used=100)),
            W,
            "it is worn out; nothing else is wrong",
        ),
        ("temperature_c", judge(good, celsius(55)), W, "in °C: 55, hot from 55"),
        ("temperature_c", judge(sas, celsius(61), trip(50)), W, "in °C: 61, hot from 50"),
        ("temperature_c", judge("nvme-good", nvme(), celsius(70)), W, "in °C: 70, hot from 70"),
        (
            "temperature_c",
            judge(good, celsius(4), put(5, "temperature", "op_limit_min")),
            W,
            "temperature in °C: 4, hot from 55, cold below 5",
        ),
        ("too_hot", judge("nvme-hot", nvme(critical_warning=2)), W, "hotter than its own limit"),
    ]
    return [pytest.param(*row, id=f"{n}-{row[0]}") for n, row in enumerate(found)]


@pytest.mark.parametrize(("row", "verdict", "expected", "reason"), rows())
def test_each_condition_is_shown_by_a_drive(
    row: str, verdict: DriveVerdict, expected: Health, reason: str
) -> None:
    """Its health, and the reason in words with the old value and the new one."""
    assert verdict.health is expected
    assert any(said.endswith(reason) or reason in said for said in verdict.reasons)


def test_every_row_of_the_table_is_shown() -> None:
    """Who adds a condition shows it here."""
    assert {param.values[0] for param in rows()} == {row.number for row in CONDITIONS}


@pytest.mark.parametrize("name", ["sata-good", "sas-good"])
def test_a_drive_is_healthy_where_no_condition_holds(name: str) -> None:
    """It has SMART, it passes, and it is the first check: nothing can have grown."""
    assert judge(name).health is Health.HEALTHY
    assert judge(name).reasons == () and judge(name).value == 0


def test_a_good_nvme_drive_is_healthy() -> None:
    """Its critical warning is 0; a cool one with spare blocks."""
    assert judge("nvme-good", nvme()).health is Health.HEALTHY


# --- growth, and what stays ----------------------------------------------------------------


def test_the_first_check_is_the_baseline() -> None:
    """What an old drive brings along is no growth: only what is bad by itself is said."""
    verdict = judge("sata-good", raw(199, 40), raw(188, 3))
    assert verdict.health is Health.HEALTHY


def test_a_growth_is_not_forgotten_when_it_stops() -> None:
    """It is compared with the lowest value ever seen, till it is acknowledged."""
    seen = past({"interface_errors": 1}, {"interface_errors": 9}, {"interface_errors": 9})
    verdict = judge("sata-good", raw(199, 9), seen=seen)
    assert verdict.reasons == ("cable or slot: errors (199): 1 → 9",)


def test_an_attribute_that_once_failed_is_said_once() -> None:
    """At the next check it is no news."""
    seen = past({"attributes_failed_once": 1})
    assert judge("sata-good", failed(5, "past"), seen=seen).health is Health.HEALTHY
    assert judge("sata-good", failed(5, "past")).health is Health.WARNING


def test_pending_sectors_that_grew_once_are_a_warning() -> None:
    """Only two checks running make a failure of a few."""
    seen = past({"pending": 2}, {"pending": 2})
    assert judge("sata-good", raw(197, 3), seen=seen).health is Health.WARNING


def test_a_counter_that_drops_is_a_note_and_no_reason() -> None:
    """A drive that took its sectors back, or another drive's electronics."""
    verdict = judge("sata-good", seen=past({"pending": 8, "temperature_c": 50}))
    assert verdict.health is Health.HEALTHY
    assert verdict.notes == ("pending fell: 8 → 0",)


def test_a_temperature_attribute_at_its_threshold_is_no_failure() -> None:
    """It is judged as a temperature."""
    assert judge("sata-good", failed(190, "now")).health is Health.HEALTHY


def test_the_gravest_reason_comes_first_and_the_value_is_their_sum() -> None:
    """What is acknowledged holds until this sum grows."""
    verdict = judge("sata-good", raw(5, 3), raw(197, 240), raw(10, 2))
    assert verdict.reasons == (
        "pending sectors (197): 240",
        "reallocated sectors (5): 3",
        "spin retries (10): 2",
    )
    assert verdict.value == 245


# --- self-tests ----------------------------------------------------------------------------

SHORT, LONG = 1, 2
ATA_PASSED, ATA_ABORTED, ATA_READ_FAILURE, ATA_RUNNING = 0x00, 0x10, 0x79, 0xF9
SCSI_PASSED, SCSI_ABORTED, SCSI_FAILED, SCSI_RUNNING = 0, 1, 7, 15
SINCE = "self-tests failed, and no extended one has passed since: "


@pytest.mark.parametrize("newer", [ATA_PASSED, ATA_ABORTED, ATA_RUNNING, None])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_a_failed_self_test_stays_failed_until_an_extended_one_passes(
    newer: int | None, kind: int
) -> None:
    """A newer one that is short, aborted or running proves nothing about the place that failed."""
    tests = [(kind, newer)] if newer is not None else []
    health = judge("sata-good", ata_tests(*tests, (LONG, ATA_READ_FAILURE))).health
    is_proof = (kind, newer) == (LONG, ATA_PASSED)
    assert health is (Health.HEALTHY if is_proof else Health.FAILING)


@pytest.mark.parametrize("newer", [SCSI_PASSED, SCSI_ABORTED, SCSI_RUNNING])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_all_of_a_sas_drives_self_tests_count(newer: int, kind: int) -> None:
    """The twenty entries are read until an extended one passed."""
    health = judge("sas-good", scsi_tests((kind, newer), (LONG, SCSI_FAILED))).health
    is_proof = (kind, newer) == (LONG, SCSI_PASSED)
    assert health is (Health.HEALTHY if is_proof else Health.FAILING)


def test_a_sas_test_that_completed_with_a_failed_segment_has_failed() -> None:
    """Some drives call it completed all the same."""
    segment = put({"value": 3}, "scsi_self_test_0", "failed_segment")
    verdict = judge("sas-good", scsi_tests((LONG, SCSI_PASSED)), segment)
    assert (verdict.health, verdict.reasons) == (Health.FAILING, (f"{SINCE}1 (?: ?)",))


def test_an_nvme_drives_self_tests_count_too() -> None:
    """Codes 5 to 7 are failures, 1 an abort."""
    assert judge("nvme-good", nvme(), nvme_tests((1, 0), (2, 7))).health is Health.FAILING
    assert judge("nvme-good", nvme(), nvme_tests((2, 0), (2, 7))).health is Health.HEALTHY
    assert judge("nvme-good", nvme(), nvme_tests((2, 1))).health is Health.HEALTHY


def test_smartctls_own_count_of_failed_tests_is_used() -> None:
    """It counts those that no newer extended test has made out of date."""
    counts = {"error_count_total": 3, "error_count_outdated": 1, "table": []}
    verdict = judge("sata-good", put({"standard": counts}, "ata_smart_self_test_log"))
    assert (verdict.health, verdict.reasons) == (Health.FAILING, (f"{SINCE}2",))


def test_a_failed_test_counts_after_newer_ones_have_pushed_it_out_of_the_log() -> None:
    """A log has 20 entries, and a short test runs each week, or each day."""
    short = ata_tests(*[(SHORT, ATA_PASSED)] * 21)
    for seen in ({"self_test_failed": 1}, {"self_test_failed": 1, "extended_passed_at_h": 880}):
        assert judge("sata-good", short, seen=past(seen)).health is Health.FAILING
        passed = ata_tests((SHORT, ATA_PASSED), (LONG, ATA_PASSED))
        verdict = judge("sata-good", passed, seen=past(seen))
        assert verdict.health is Health.HEALTHY
        assert verdict.numbers["extended_passed_at_h"] == 899


def test_without_the_log_smartctls_exit_status_tells_of_a_failed_test() -> None:
    """Bit 7, smartctl(8); the log counts if there is one."""
    has_failed = put(128, "smartctl", "exit_status")
    verdict = judge("sata-good", has_failed, drop("ata_smart_self_test_log"))
    why = f"{SINCE}1 (smartctl's exit status)"
    assert (verdict.health, verdict.reasons) == (Health.FAILING, (why,))
    passed = ata_tests((LONG, ATA_PASSED), (LONG, ATA_READ_FAILURE))
    assert judge("sata-good", has_failed, passed).health is Health.HEALTHY


def test_a_drive_without_a_single_counter_is_not_healthy() -> None:
    """A RAID volume says that it passes, too."""
    keys = ("ata_smart_attributes", "ata_smart_error_log", "ata_smart_self_test_log")
    verdict = judge("sata-good", *map(drop, keys))
    assert (verdict.health, verdict.notes) == (Health.UNKNOWN, ())


# --- what ends a verdict -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "value", "missing"),
    [
        ("reallocated", 70, "ata_smart_attributes"),
        ("attributes_failing", 1, "ata_smart_attributes"),
        ("self_test_failed", 1, "ata_smart_self_test_log"),
    ],
)
def test_a_number_that_a_report_lacks_is_as_it_last_was(
    number: str, value: int, missing: str
) -> None:
    """A report with less in it is no evidence that the drive is well."""
    verdict = judge("sata-good", drop(missing), seen=past({number: value}))
    assert (verdict.health, verdict.numbers[number]) == (Health.FAILING, value)


def test_what_failed_because_it_grew_fails_until_it_falls_or_is_acknowledged() -> None:
    """That it has not grown for six hours is no evidence that the drive is well."""
    seen = past({"pending": 1}, {"pending": 2})
    verdict = judge("sata-good", raw(197, 3), seen=seen)
    assert (verdict.health, verdict.failing) == (Health.FAILING, ("pending",))
    newest = replace(past({"pending": 3}).answers[0], failing=("pending",))
    seen = Past(newest, (newest,), newest.at)
    assert judge("sata-good", raw(197, 3), seen=seen).health is Health.FAILING
    assert judge("sata-good", raw(197, 2), seen=seen).health is Health.WARNING
    known = replace(newest, known={"pending": 3}, lowest={"pending": 3})
    assert judge("sata-good", raw(197, 3), seen=Past(known, (known,), known.at)).health is (
        Health.HEALTHY
    )


def test_a_temperature_that_a_report_lacks_is_not_kept() -> None:
    """It was hot then; 1.0.0 noted that of every kind of drive."""
    seen = past({"too_hot": 1, "temperature_c": 70})
    assert judge("sata-good", drop("temperature"), seen=seen).health is Health.HEALTHY


def test_a_drive_that_said_it_fails_has_to_say_that_it_does_not() -> None:
    """Health missing from a report ends nothing."""
    seen = past({"says_failing": 1})
    assert judge("sata-good", drop("smart_status"), seen=seen).health is Health.FAILING
    assert judge("sata-good", seen=seen).health is Health.HEALTHY


# --- counters without health ---------------------------------------------------------------

OFF = put({"available": True, "enabled": False}, "smart_support")
HINT = (
    "it does not watch itself (exceptions control is off), so its counters are judged; to switch "
    "it on: smartctl -s on /dev/sdq"
)


@pytest.mark.parametrize(
    ("alter", "expected", "reasons"),
    [
        ([], Health.HEALTHY, ()),
        ([grown(3)], Health.WARNING, ("grown defects: 0 → 3",)),
        ([grown(50)], Health.FAILING, ("grown defects: 0 → 50",)),
    ],
)
def test_a_sas_drive_whose_exceptions_control_is_off_is_judged_by_its_counters(
    alter: list[Alter], expected: Health, reasons: tuple[str, ...]
) -> None:
    """It passes whatever happens to it; the hint says how to switch it on."""
    verdict = judge("sas-good", OFF, *alter, seen=past({"grown_defects": 0}))
    assert (verdict.health, verdict.reasons) == (expected, reasons)
    assert HINT in verdict.notes


def test_smart_that_is_off_is_reported_with_how_to_switch_it_on() -> None:
    """A SATA drive gives no counters then."""
    verdict = judge("sata-smart-off")
    why = "SMART is switched off; to switch it on: smartctl -s on /dev/sdq"
    assert (verdict.health, verdict.reasons) == (Health.UNSUPPORTED, (why,))


# --- acknowledged --------------------------------------------------------------------------


def acknowledged(**numbers: int) -> Past:
    seen = past(numbers)
    newest = replace(seen.answers[0], known=numbers, lowest=numbers)
    return Past(newest, (newest,), seen.first_at)


def test_an_acknowledged_number_is_shown_and_is_no_warning_until_it_grows() -> None:
    """The baseline is what a person has seen."""
    verdict = judge("sata-good", raw(5, 3), seen=acknowledged(reallocated=3))
    assert (verdict.health, verdict.reasons) == (Health.HEALTHY, ())
    assert verdict.notes == ("known: reallocated sectors (5): 3",)
    assert verdict.known == {"reallocated": 3}
    verdict = judge("sata-good", raw(5, 4), seen=acknowledged(reallocated=3))
    assert (verdict.health, verdict.reasons) == (
        Health.WARNING,
        ("reallocated sectors (5): 3 → 4",),
    )


def test_each_number_has_its_own_baseline() -> None:
    """What fell hides nothing that grew; what grows again after a fall is news."""
    seen = acknowledged(pending=8, reallocated=0)
    verdict = judge("sata-good", raw(197, 0), raw(5, 8), seen=seen)
    assert (verdict.health, verdict.known["pending"]) == (Health.WARNING, 0)


def test_a_count_that_never_falls_is_not_failing_for_ever() -> None:
    """187 grew, a person gave the drive back: failing again only if it grows again."""
    seen = acknowledged(reported_uncorrectable=6)
    assert judge("sata-good", raw(187, 6), seen=seen).health is Health.HEALTHY
    assert judge("sata-good", raw(187, 7), seen=seen).health is Health.FAILING


def test_an_acknowledgement_is_no_health() -> None:
    """What fails by itself goes on failing."""
    assert judge("sata-good", raw(5, 70), seen=acknowledged(reallocated=70)).health is F


@pytest.mark.parametrize(("name", "alter"), [("sata-good", raw(5, 1)), ("sas-good", grown(1))])
def test_one_old_replaced_sector_is_old_news(name: str, alter: Alter) -> None:
    """As at the first check, and one only."""
    assert judge(name, alter).is_old_news
    number = "reallocated" if name == "sata-good" else "grown_defects"
    assert not judge(name, alter, seen=past({number: 0})).is_old_news
    assert not judge(name, alter, celsius(56)).is_old_news


# --- rates and limits ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "now", "days", "expected"),
    [
        (7, 8, 0.25, "healthy"),
        (7, 17, 0.25, "warning"),
        (7, 76, 7, "healthy"),
        (7, 77, 7, "warning"),
    ],
)
def test_non_medium_errors_are_judged_by_their_rate(
    was: int, now: int, days: float, expected: str
) -> None:
    """Ten a day, counted from the last check, at least for a day."""
    seen = past({"non_medium_errors": was}, age_s=days * 86_400)
    assert judge("sas-good", non_medium(now), seen=seen).health.value == expected


@pytest.mark.parametrize(
    ("name", "alter", "limit"),
    [
        ("sata-good", [], 55),
        ("sata-good", [put(0, "rotation_rate")], 70),
        ("sata-good", [put(60, "temperature", "op_limit_max")], 60),
        ("sata-good", [put(0, "temperature", "op_limit_max")], 55),  # as good as none
        ("sas-good", [], 55),
        ("sas-good", [trip(50)], 50),
        ("nvme-good", [], 70),
        ("nvme-good", [put(100, "temperature", "op_limit_max")], 100),
        ("nvme-good", [put({"warning": 84}, "nvme_composite_temperature_threshold")], 84),
    ],
)
def test_heat_is_judged_by_the_drives_own_limit(name: str, alter: list[Alter], limit: int) -> None:
    """Without one: 55 °C for disks, 70 °C for solid state. A SAS disk's trip may only be lower."""
    assert read(name, *alter).numbers["hot_from_c"] == limit
    drive = (*alter, nvme()) if name == "nvme-good" else alter
    assert judge(name, *drive, celsius(limit - 1)).health is Health.HEALTHY
    assert judge(name, *drive, celsius(limit)).health is Health.WARNING


def statistic(page: int, offset: int, value: int) -> Alter:
    table = [{"offset": offset, "value": value, "flags": {"valid": True}}]
    return put({"pages": [{"number": page, "table": table}]}, "ata_device_statistics")


def test_device_statistics_serve_where_an_attribute_is_missing() -> None:
    """The attribute counts where there is one."""
    assert read("sata-good", statistic(3, 32, 9)).numbers["reallocated"] == 0
    for place, name in (
        ((3, 32), "reallocated"),
        ((4, 8), "reported_uncorrectable"),
        ((7, 8), "used_percent"),
    ):
        report = read("sata-good", drop("ata_smart_attributes"), statistic(*place, 9))
        assert report.numbers[name] == 9
    assert read("sata-good", statistic(5, 88, 62)).numbers["hot_from_c"] == 62
    assert read("sata-good", statistic(5, 104, 5)).numbers["cold_below_c"] == 5


# --- who does not say how it is ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sata-dead", "it gives no health report"),
        ("sas-not-ready", "it gives no health report"),
        ("usb-mute", "/dev/sdb: Unknown USB bridge [0x46f4:0x0001 (0x000)]"),
    ],
)
def test_a_drive_that_is_present_and_gives_no_data_is_unknown(name: str, why: str) -> None:
    """Never healthy, failing or missing; the second time in a row people are notified."""
    for before, again in ((Health.HEALTHY, False), (Health.UNKNOWN, True), (Health.MISSING, True)):
        verdict = judge(name, seen=unreadable_disks(before))
        assert verdict.reasons == (f"present, but gives no health data: {why}",)
        assert (verdict.health, verdict.is_repeated) == (Health.UNKNOWN, again)


def test_a_drive_that_does_not_respond_is_missing_the_second_time() -> None:
    """No answer in time is less than an answer without data."""
    silent = replace(read("sata-dead"), says="no answer within 30 s", is_silent=True)
    for before, now in (
        (Health.HEALTHY, Health.UNKNOWN),
        (Health.UNKNOWN, Health.MISSING),
        (Health.MISSING, Health.MISSING),
    ):
        verdict = rules.judge(silent, unreadable_disks(before), NOW_S)
        assert (verdict.health, verdict.reasons) == (now, ("no answer within 30 s",))


def test_exit_status_0_without_a_health_report_is_not_healthy() -> None:
    """A dead SATA drive ends smartctl with 0."""
    assert recorded("sata-dead")["smartctl"]["exit_status"] == 0
    assert judge("sata-dead").health is Health.UNKNOWN
    assert judge("sata-good", drop("smart_status")).health is Health.UNKNOWN


def test_a_pass_without_smart_is_unknown() -> None:
    """A SCSI drive without SMART says that it passes, to a smartctl that says no more."""
    report = read("sas-no-smart", put({"passed": True}, "smart_status"), drop("smart_support"))
    assert report.is_supported is None
    assert rules.judge(report, Past(), NOW_S).health is Health.UNKNOWN


@pytest.mark.parametrize("name", ["sata-no-smart", "sas-no-smart", "sata-smart-off"])
def test_a_drive_without_smart_is_unsupported(name: str) -> None:
    """It has none, or it is switched off."""
    assert judge(name).health is Health.UNSUPPORTED


def test_a_sleeping_drive_is_left_asleep_and_told_of_after_a_week() -> None:
    """It is counted from the last check to which it answered, or else from the first one."""
    week = 7 * 86_400
    assert judge("sata-asleep").health is Health.ASLEEP
    assert judge("sata-asleep", seen=past({"pending": 0})).health is Health.ASLEEP
    for seen in (past({"pending": 0}, age_s=week + 60), unreadable_disks(Health.ASLEEP, week + 60)):
        verdict = judge("sata-asleep", seen=seen)
        assert verdict.health is Health.WARNING
        assert verdict.reasons == (f"asleep at every check since {seen.first_at}",)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (DiskState.ACTIVE, Health.MISSING),
        (DiskState.SPARE, Health.ABSENT),
        (DiskState.CLOSED, Health.ABSENT),
    ],
)
def test_only_a_disk_in_use_is_missed(state: DiskState, expected: Health) -> None:
    """A closed one is on the shelf; an absent spare is just not counted."""
    assert rules.absent(state).health is expected


# --- odd values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        ("7", 7),
        (None, None),
        (True, None),
        (7.5, None),
        (-1, None),
        ("seven", None),
        ([7], None),
        (2**32 - 1, None),
        (2**64 - 1, None),
        (10**30, None),
    ],
)
def test_a_number_of_another_type_or_size_is_not_known(value: Any, expected: int | None) -> None:
    """2^64 - 1 means that the drive does not know it; a string of digits is a number."""
    report = read("sas-good", put(value, "scsi_pending_defects", "count"))
    assert report.numbers.get("pending_defects") == expected


@pytest.mark.parametrize("value", [True, None, [], "yes", 1])
def test_a_key_of_another_type_is_no_evidence(value: Any) -> None:
    """``smart_support: true`` was seen, and ended the check."""
    assert read("sata-good", put(value, "smart_support")).is_supported is True
    assert judge("sata-failed", put(value, "smart_support")).health is Health.FAILING


# --- reading reports -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "serial", "logical_id"),
    [
        ("sata-good", "ZA12JCHM", "0x5000c500858bfea7"),
        ("sas-good", "ZL22PHAL0000C0048NEQ", "0x5000c500a1b2c3d0"),
        ("nvme-good", "S4EWNX0N123456", "0x0025385b91b2c3d4"),
        ("sata-dead", None, None),
    ],
)
def test_a_drive_is_known_by_its_own_word(
    name: str, serial: str | None, logical_id: str | None
) -> None:
    """SATA by its WWN, SAS by its logical unit, NVMe by its EUI-64."""
    report = read(name)
    assert (report.serial, report.logical_id) == (serial, logical_id)


def test_an_id_of_zeros_is_none() -> None:
    """Some drives have a WWN of nothing."""
    assert read("sata-good", put({"naa": 0, "oui": 0, "id": 0}, "wwn")).logical_id is None


@pytest.mark.parametrize(
    ("oui", "expected"), [(0xC50, "0x5000c500858bfea7"), (0, None)], ids=["a maker", "none"]
)
def test_an_id_without_a_maker_is_none(oui: int, expected: str | None) -> None:
    """Several drives have the same one."""
    wwn = {"naa": 5, "oui": oui, "id": 0x0858BFEA7}
    assert read("sata-good", put(wwn, "wwn")).logical_id == expected
    unit = f"0x5{oui:06X}0858BFEA7"
    assert read("sas-good", put(unit, "logical_unit_id")).logical_id == expected
    eui = {"oui": oui, "ext_id": 0x385B91B2C3}
    found = read("nvme-good", put([{"id": 1, "eui64": eui}], "nvme_namespaces")).logical_id
    assert found == (expected and "0x000c50385b91b2c3")


@pytest.mark.parametrize(
    ("version", "alter", "expected"),
    [
        ([7, 0], [], 7),
        ([7, 1], [], 7),
        ([7, 2], [], 56),
        (None, [put("SEAGATE", "vendor")], 7),  # the names of fields before 7.3
        (None, [], 56),
        ([7, 0], [grown(6)], 6),
    ],
)
def test_old_versions_of_smartctl_give_grown_defects_in_bytes(
    version: list[int] | None, alter: list[Alter], expected: int
) -> None:
    """Eight a defect; the text, if there is one, has the number."""
    alters = (put(56, "scsi_grown_defect_list"), put(version, "smartctl", "version"))
    report = read("sas-good", put([], "smartctl", "output"), *alters, *alter)
    assert report.numbers["grown_defects"] == expected


def test_fields_of_other_versions_of_smartctl_are_read() -> None:
    """7.0 to 7.5 name limit, model, and a SCSI drive's non-medium errors differently."""
    report = read(
        "sas-good",
        put({"current": 51}, "temperature"),
        put({"drive_trip": 50}, "scsi_temperature"),
        drop("scsi_model_name"),
        put("SEAGATE", "vendor"),
        put("ST8", "product"),
        put({"count": 99}, "scsi_error_counter_log", "non_medium_error"),
    )
    assert report.numbers["hot_from_c"] == 50
    assert report.model == "SEAGATE ST8"
    assert report.numbers["non_medium_errors"] == 99


@pytest.mark.parametrize("name", NAMES)
def test_no_report_of_ours_is_a_defect(name: str) -> None:
    """Also with any one of its fields gone."""
    for key in recorded(name):
        if key != "smartctl":
            judge(name, drop(key))


@given(st.integers(0, 2**48 - 1))
def test_command_timeouts_are_the_lowest_16_bits(value: int) -> None:
    """Makers keep other counts in the upper ones."""
    assert read("sata-good", raw(188, value)).numbers["command_timeouts"] == value % 65_536


numbers = st.dictionaries(st.sampled_from([row.number for row in CONDITIONS]), st.integers(0, 99))


@given(st.lists(numbers, min_size=1, max_size=5))
def test_the_lowest_value_is_that_of_all_checks(seen: list[dict[str, int]]) -> None:
    """However many there were, only the last one has to be read."""
    kept = past(*seen).lowest
    for name in set().union(*seen):
        assert kept[name] == min(each[name] for each in seen if name in each)


def test_changes_are_listed_with_their_dates() -> None:
    """The first check is the baseline; temperatures are left out."""
    first, second = past({"pending": 0, "temperature_c": 30}, {"pending": 8}).answers[::-1]
    found = rules.changes([first, second])
    assert found == [
        rules.Change(first.at, "health", None, "healthy"),
        rules.Change(second.at, "pending", 0, 8),
    ]
