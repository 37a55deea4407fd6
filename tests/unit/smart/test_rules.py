"""Verdicts on drives: each condition shown by a drive that real smartctl was asked about.

``reports/`` holds smartctl's own answers (rig/record.py); a test that needs another number
alters it in one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.formatting import utc
from poledata.models import DiskState, Health, SmartCheck
from poledata.smart import rules
from poledata.smart.report import SelfReport, read_report
from poledata.smart.rules import CONDITIONS, DriveVerdict, Past
from tests.helpers.recorded_drives import REPORTS, Alter, put, raw, recorded

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


# --- the table of conditions --------------------------------------------------------------

W, F = Health.WARNING, Health.FAILING


def rows() -> list[Any]:
    """(condition, verdict, expected health, its reason), one drive each."""
    said = "it says itself that it is failing"
    good, sas = "sata-good", "sas-good"
    errors = ("scsi_error_counter_log", "read", "total_uncorrected_errors")
    count = ("ata_smart_error_log", "summary", "count")
    found = [
        ("says_failing", judge("sata-failed"), F, said),
        ("says_failing", judge("sas-failed"), F, said),
        ("says_failing", judge(good, put(8, "smartctl", "exit_status")), F, said),
        ("says_failing", judge("nvme-failing"), F, said),
        ("says_failing", judge("nvme-good", nvme(critical_warning=8)), F, said),
        ("attributes_failing", judge("sata-prefail"), F, "attributes at their threshold: 1"),
        (
            "attributes_failed_once",
            judge(good, failed(5, "past"), seen=past({"attributes_failed_once": 0})),
            W,
            "attributes that once failed: 0 → 1",
        ),
        ("self_test_failed", judge("sata-test-failed"), F, "its newest self-test failed"),
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
        ("grown_defects", judge(sas, put(1, "scsi_grown_defect_list")), W, "grown defects: 1"),
        ("grown_defects", judge(sas, put(50, "scsi_grown_defect_list")), F, "defects: 50"),
        (
            "uncorrected_errors",
            judge(sas, put(3, *errors), seen=past({"uncorrected_errors": 2})),
            F,
            "uncorrected errors: 2 → 3",
        ),
        (
            "non_medium_errors",
            judge(sas, seen=past({"non_medium_errors": 6})),
            W,
            "non-medium errors: 6 → 7",
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
        ("temperature_c", judge(good, put(55, "temperature", "current")), W, "in °C: 55"),
        ("too_hot", judge(sas, put(60, "temperature", "current")), W, "hotter than its own"),
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
    verdict = judge("sata-good", raw(187, 12), raw(199, 40), raw(188, 3))
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


# --- who does not say how it is ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sata-dead", "it gives no health report"),
        ("sas-not-ready", "it gives no health report"),
        ("usb-mute", "/dev/sdb: Unknown USB bridge [0x46f4:0x0001 (0x000)]"),
    ],
)
def test_a_mute_drive_is_unknown_and_the_second_time_missing(name: str, why: str) -> None:
    """Never healthy, never failing."""
    for before, now in (
        (Health.HEALTHY, Health.UNKNOWN),
        (Health.UNKNOWN, Health.MISSING),
        (Health.MISSING, Health.MISSING),
    ):
        verdict = judge(name, seen=unreadable_disks(before))
        assert (verdict.health, verdict.reasons) == (now, (why,))


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


def test_fields_of_other_versions_of_smartctl_are_read() -> None:
    """7.0 to 7.5 name limit, model, and a SCSI drive's non-medium errors differently."""
    report = read(
        "sas-good",
        put({"current": 61}, "temperature"),
        put({"drive_trip": 60}, "scsi_temperature"),
        drop("scsi_model_name"),
        put("SEAGATE", "vendor"),
        put("ST8", "product"),
        put({"count": 99}, "scsi_error_counter_log", "non_medium_error"),
    )
    assert report.numbers["too_hot"] == 1
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
