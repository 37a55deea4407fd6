"""A check of the drives, on a station of stand-ins whose drives answer with recorded reports."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poledata import db
from poledata.disks import lifecycle
from poledata.models import DiskState, Health, Severity
from poledata.notices.findings import Findings
from poledata.smart import check as smart_check
from poledata.smart import smartctl
from poledata.smart.smartctl import DrivePath
from poledata.system import mounts
from poledata.system.privileges import SmartctlAnswer
from tests.helpers.recorded_drives import (
    FAILED,
    Alter,
    all_well,
    answer,
    check,
    house_of,
    put,
    raw,
)
from tests.helpers.world import World


def holds(world: World) -> dict[str, str]:
    rows = world.sql("SELECT label, held_by || ': ' || held_reason FROM disks WHERE held_by <> ''")
    return dict(map(tuple, rows))


def severity(world: World, kind: str, key: str) -> Any:
    query = "SELECT severity FROM notices WHERE kind = ? AND key = ? AND resolved_at IS NULL"
    return world.sql(query, kind, key)[0][0]


@pytest.fixture
def station(world: World) -> World:
    """P01 and S01 are in use, P02 and S02 are spares."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    return world


BY_SMART = "machine: SMART: the drive reports that it is failing"

# --- holding ------------------------------------------------------------------------------


def test_a_failing_disk_in_use_is_held_and_the_next_pass_takes_another(station: World) -> None:
    """Critical, and nothing is moved or deleted."""
    checked = check(station, *all_well(station, answer(station, "P01", "sata-failed")))
    assert checked["P01"].verdict.health is Health.FAILING
    assert severity(station, "smart-failing", "P01") == "critical"
    assert holds(station) == {"P01": BY_SMART}
    before = station.archived("P01")
    station.put("b.g3")
    station.run_pass(check=0)
    assert station.archived("P02") == {"b.g3"} and station.archived("P01") == before


def test_a_failing_spare_is_a_warning(station: World) -> None:
    """It is held too: nothing is lost, but nobody may count on it."""
    check(station, *all_well(station, answer(station, "P02", "sata-failed")))
    assert severity(station, "smart-failing", "P02") == "warning"
    assert holds(station) == {"P02": BY_SMART}


def test_the_hold_ends_when_the_drive_is_well_again(station: World) -> None:
    """With its notice."""
    check(station, *all_well(station, answer(station, "P01", "sata-failed")))
    check(station, *all_well(station))
    assert holds(station) == {} and station.notices() == set()


@pytest.mark.parametrize("name", ["sata-dead", "sata-asleep", "sata-no-smart"])
def test_a_hold_stays_while_the_drive_does_not_say_that_it_is_well(
    station: World, name: str
) -> None:
    """Mute, asleep or without SMART is not well; away neither."""
    check(station, *all_well(station, answer(station, "P01", "sata-failed")))
    check(station, *all_well(station, answer(station, "P01", name)))
    assert holds(station) == {"P01": BY_SMART}
    check(station)
    assert holds(station) == {"P01": BY_SMART}
    assert ("smart-failing", "P01") in station.notices()


def test_a_failing_drive_that_sleeps_for_a_week_is_not_well(station: World) -> None:
    """The warning about its sleep ends neither the hold nor what it said before."""
    check(station, *all_well(station, answer(station, "P01", "sata-failed")))
    asleep = all_well(station, answer(station, "P01", "sata-asleep"))
    checked = check(station, *asleep, now_s=time.time() + 8 * 86_400)
    assert checked["P01"].verdict.health is Health.WARNING
    assert holds(station) == {"P01": BY_SMART}
    assert {("smart-failing", "P01"), ("smart-warning", "P01")} <= station.notices()


def test_a_roles_last_usable_disk_is_never_held(tmp_path: Path) -> None:
    """It is told of all the same."""
    world = World(tmp_path, ["P01"], ["S01"])
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    check(world, *all_well(world, answer(world, "P01", "sata-failed")))
    assert holds(world) == {}
    assert severity(world, "smart-failing", "P01") == "critical"
    text = world.sql("SELECT text FROM notices WHERE kind = 'smart-failing'")[0][0]
    assert "It is not held: mount a spare disk of its role." in text
    world.close()


def test_of_two_failing_disks_of_a_role_none_is_held_for_the_others_sake(station: World) -> None:
    """The one that were left would be no better: a person has to mount another one."""
    failing = [answer(station, label, "sata-failed") for label in ("P01", "P02")]
    check(station, *all_well(station, *failing))
    assert holds(station) == {}


def test_more_than_two_failing_at_once_hold_none(station: World) -> None:
    """They have a common cause; the notice about it ends with it."""
    failing = [answer(station, label, "sata-failed") for label in ("P01", "P02", "S02")]
    check(station, *all_well(station, *failing))
    assert holds(station) == {}
    assert severity(station, "smart-failing", "several") == "critical"
    check(station, *all_well(station))
    assert station.notices() == set()


def test_drives_that_are_all_away_are_not_held(station: World) -> None:
    """An HBA that lost them: those in use are missed, the spares are just not counted."""
    checked = check(station)
    assert {label: one.verdict.health for label, one in checked.items()} == {
        "P01": Health.MISSING,
        "P02": Health.ABSENT,
        "S01": Health.MISSING,
        "S02": Health.ABSENT,
    }
    assert holds(station) == {}
    assert station.notices() == {("drive-missing", "P01"), ("drive-missing", "S01")}
    check(station, *all_well(station))
    assert station.notices() == set()


def test_a_hold_for_io_errors_is_not_lifted_by_a_good_report(station: World) -> None:
    """A drive that fails in passes says that it is well all the time."""
    why = "it failed in 3 passes running"
    station.sql("UPDATE disks SET held_by = 'machine', held_reason = ? WHERE label = 'P01'", why)
    check(station, *all_well(station))
    assert holds(station) == {"P01": f"machine: {why}"}


def test_a_hold_for_smart_is_not_lifted_by_a_good_reading(station: World) -> None:
    """What can be read today may be gone tomorrow."""
    check(station, *all_well(station, answer(station, "P01", "sata-failed")))
    station.run_pass("verify", "P01", check=0)
    assert holds(station) == {"P01": BY_SMART}


def test_a_persons_unhold_is_obeyed_till_the_numbers_grow(station: World) -> None:
    """Who looked at the drive knows better than a table, for as long as it gets no worse."""
    bad = answer(station, "P01", "sata-good", raw(197, 20))
    worse = answer(station, "P01", "sata-good", raw(197, 21))
    check(station, *all_well(station, bad))
    station.run_pass("unhold", "P01", check=0)
    check(station, *all_well(station, bad), now_s=time.time() + 3600)
    assert holds(station) == {}
    check(station, *all_well(station, worse), now_s=time.time() + 7200)
    assert holds(station) == {"P01": BY_SMART}


def test_a_hold_for_a_failed_self_test_stays_until_an_extended_one_passes(station: World) -> None:
    """A short one that passed later is weaker than what caused the hold."""
    for tests, is_held in (
        ([(2, 0x79)], True),
        ([(1, 0x00), (2, 0x79)], True),
        ([(1, 0x00)] * 21, True),
        ([(2, 0x10)], True),
        ([(2, 0x00)], False),
    ):
        table = [{"type": {"value": t}, "status": {"value": s}} for t, s in tests]
        table = [entry | {"lifetime_hours": 900 - n} for n, entry in enumerate(table)]
        log = put({"standard": {"table": table}}, "ata_smart_self_test_log")
        check(station, *all_well(station, answer(station, "P01", "sata-good", log)))
        assert holds(station) == ({"P01": BY_SMART} if is_held else {})


def extended_passed(at_hours: int) -> Alter:
    entry = {"type": {"value": 2}, "status": {"value": 0}, "lifetime_hours": at_hours}
    return put({"standard": {"table": [entry]}}, "ata_smart_self_test_log")


def test_a_tested_spare_is_used_first_and_status_knows_the_age_of_tests(station: World) -> None:
    """P03 passed, P02 was never tested; hours of a test have 16 bits."""
    station.add_disk("P03")
    station.generate()
    tested = answer(station, "P03", "sata-good", extended_passed(12_000))
    wrapped = answer(station, "P01", "sata-good", extended_passed(65_000))
    failed = put({"standard": {"table": [], "error_count_total": 1, "error_count_outdated": 0}},
                 "ata_smart_self_test_log")  # fmt: skip
    check(station, *all_well(station, tested, wrapped))
    with house_of(station) as context:
        hours = db.smart.hours_since_tested(context.conn)
        labels = {disk.id: disk.label for disk in db.disks.disks(context.conn)}
    ages = {labels[id_]: age for id_, age in hours.items()}
    assert ages == {"P03": 345, "P01": 12_345 + 65_536 - 65_000}
    assert "the oldest 12881 hours of operation ago (P01)" in station.status(check=0).out
    run = station.run("get_SMART_status.py", "--history", "P03", check=0)
    assert run.out.endswith("  last extended self-test: passed, 345 hours of operation ago\n")
    run = station.run("get_SMART_status.py", "--history", "P02", check=0)
    assert run.out.endswith("  last extended self-test: none has passed\n")
    check(station, *all_well(station, tested, answer(station, "P01", "sata-good", failed)))
    station.put("b.g3")
    station.run_pass(check=0)
    assert station.archived("P03") == {"b.g3"} and station.archived("P02") == set()


def test_the_digest_lists_what_changed_a_line_a_drive(station: World) -> None:
    """From the first value of the day to the last one."""
    now_s = time.time()
    for hours_ago, pending in ((30, 1), (20, 2), (10, 4), (1, 8)):
        bad = answer(station, "P01", "sata-good", raw(197, pending))
        check(station, *all_well(station, bad), now_s=now_s - 3600 * hours_ago)
    station.run_pass("status", "--send", check=0)
    (text,) = station.sql("SELECT text FROM notices WHERE kind = 'daily-digest'")[0]
    assert text.endswith(
        "\n\nDrives, changes of the last day:\n  P01: pending 1 → 8, health warning → failing"
    )


# --- acknowledging -------------------------------------------------------------------------


def test_an_acknowledged_warning_ends_and_comes_back_when_a_number_grows(station: World) -> None:
    """Each number by itself: what fell hides nothing."""
    bad = [raw(197, 8), raw(5, 2)]
    check(station, *all_well(station, answer(station, "P01", "sata-good", *bad)))
    run = station.run_pass("ack", "smart-warning", "P01", check=0)
    assert run.out == "smart-warning P01 is reported again only if a number of the drive grows.\n"
    checked = check(station, *all_well(station, answer(station, "P01", "sata-good", *bad)))
    assert checked["P01"].verdict.health is Health.HEALTHY
    assert checked["P01"].verdict.notes == (
        "known: pending sectors (197): 8",
        "known: reallocated sectors (5): 2",
    )
    assert station.notices() == set()
    worse = [raw(197, 0), raw(5, 3)]
    check(station, *all_well(station, answer(station, "P01", "sata-good", *worse)))
    assert station.notices() == {("smart-warning", "P01")}
    (acked,) = station.sql("SELECT acked_until FROM notices WHERE resolved_at IS NULL")
    assert acked[0] is None


def test_an_acknowledgement_lifts_no_hold(station: World) -> None:
    """To know of a failing drive is not to call it well: unhold does that."""
    for errors in (0, 1):
        bad = answer(station, "P01", "sata-good", raw(187, errors))
        check(station, *all_well(station, bad))
    station.run_pass("ack", "smart-failing", "P01", check=0)
    check(station, *all_well(station, bad))
    assert holds(station) == {"P01": BY_SMART}
    station.run_pass("unhold", "P01", check=0)
    checked = check(station, *all_well(station, bad))
    assert checked["P01"].verdict.health is Health.HEALTHY
    assert holds(station) == {} and station.notices() == set()
    check(station, *all_well(station, answer(station, "P01", "sata-good", raw(187, 2))))
    assert holds(station) == {"P01": BY_SMART}


def test_one_old_replaced_sector_is_information(station: World) -> None:
    """It is reported once; a second one is a warning."""
    check(station, *all_well(station, answer(station, "P01", "sata-good", raw(5, 1))))
    assert severity(station, "smart-warning", "P01") == "info"
    check(station, *all_well(station, answer(station, "P01", "sata-good", raw(5, 2))))
    assert severity(station, "smart-warning", "P01") == "warning"


# --- telling ------------------------------------------------------------------------------


def test_a_warning_names_drive_reason_and_where_the_other_copies_are(station: World) -> None:
    """Label, serial, role, use, device; old value and new one."""
    check(station, *all_well(station))
    check(station, *all_well(station, answer(station, "P01", "sata-good", raw(199, 9))))
    (row,) = station.sql("SELECT kind, key, severity, text FROM notices")
    assert tuple(row) == (
        "smart-warning",
        "P01",
        "warning",
        "P01 (serial ZTP01AA, primary, in use, /dev/sdq) should be watched: cable or slot: "
        "errors (199): 0 → 9. 1 file is on it; other copies: S01 (1). It goes on being "
        "used. See smart-warning in docs/operators.md.",
    )


def test_files_without_another_copy_are_counted(station: World) -> None:
    """Those are the ones to care for."""
    station.sql("UPDATE copies SET state = 'missing' WHERE disk_id = 3")
    check(station, *all_well(station, answer(station, "P01", "sata-failed")))
    text = station.sql("SELECT text FROM notices")[0][0]
    assert "1 file is on it; other copies: nowhere. 1 have no other copy!" in text
    station.leave_unchecked("the test altered the database")


def test_a_warning_becomes_a_failure_and_ends_once(station: World) -> None:
    """One notice at a time about a drive's numbers; the warning that is back is the same one."""
    for alter in ([raw(197, 8)], [raw(197, 8), FAILED], [raw(197, 8)], []):
        check(station, *all_well(station, answer(station, "P01", "sata-good", *alter)))
    rows = station.sql("SELECT kind, resolved_at NOT NULL, reopened FROM notices ORDER BY id")
    assert [tuple(row) for row in rows] == [("smart-warning", 1, 1), ("smart-failing", 1, 0)]


def test_a_mute_drive_is_told_of_at_the_second_check(station: World) -> None:
    """Once may be chance; what was said of its numbers stays open."""
    unreadable_disks = answer(station, "P01", "sata-dead")
    check(station, *all_well(station, answer(station, "P01", "sata-good", raw(197, 8))))
    check(station, *all_well(station, unreadable_disks))
    assert station.notices() == {("smart-warning", "P01")}
    check(station, *all_well(station, unreadable_disks))
    assert station.notices() == {("smart-warning", "P01"), ("smart-unknown", "P01")}
    assert holds(station) == {}


def test_a_drive_without_smart_is_told_of_as_information(station: World) -> None:
    """Nothing can be done about it."""
    check(station, *all_well(station, answer(station, "P01", "sata-no-smart")))
    assert severity(station, "smart-warning", "P01") == "info"


def test_what_was_told_of_a_closed_disk_ends_on_the_shelf(station: World) -> None:
    """The drive has left."""
    bad = answer(station, "P01", "sata-good", raw(197, 8))
    check(station, *all_well(station, bad))
    station.run_pass("close", "--yes", "P01", check=0)
    check(station, *all_well(station, bad))
    assert ("smart-warning", "P01") in station.notices()
    check(station, *(each for each in all_well(station) if each.drive.serial != "ZTP01AA"))
    assert station.notices() == {("disk-closed", "P01")}


def test_a_lost_disks_notices_end_with_it(station: World) -> None:
    """And it is not looked for any more."""
    check(station, *all_well(station, answer(station, "P02", "sata-good", raw(197, 8))))
    station.run_pass("lost", "P02", "--why", "test", check=0)
    assert station.notices() == set()
    with house_of(station) as context:
        disks = [replace(disk, stand_in=False) for disk in db.disks.disks(context.conn)]
    labels = [disk.label for disk in smart_check.to_check(disks)]
    assert labels == ["P01", "S01", "S02"]
    station.leave_unchecked("a spare was noted as lost")


def test_the_value_of_a_notice_is_the_sum_of_its_numbers(
    station: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgement holds until it grows."""
    told: list[tuple[str, str, Severity | None, float | None]] = []

    def tell(_: Findings, kind: str, key: str, text: str, *more: Any) -> None:
        told.append((kind, key, *more))

    monkeypatch.setattr(Findings, "note", tell)
    bad = answer(station, "P01", "sata-good", raw(197, 8), raw(5, 2))
    check(station, *all_well(station, bad))
    assert set(told) == {("smart-warning", "P01", None, 10)}


# --- who is who ----------------------------------------------------------------------------


def test_a_drive_that_is_not_quite_the_disk_is_unknown(station: World) -> None:
    """Its serial and another ID: neither judged nor taken for absent."""
    other = answer(station, "P01", "sata-failed")
    other = replace(other, drive=replace(other.drive, wwn="0x5000c500858bfeff"))
    checked = check(station, *all_well(station, other))
    assert checked["P01"].verdict.health is Health.UNKNOWN
    assert checked["P01"].verdict.reasons == (
        "/dev/sdq says it is sdq (serial ZTP01AA, ID 0x5000c500858bfeff), which is not quite "
        "this disk",
    )
    assert holds(station) == {}


def test_a_printed_serial_is_understood_and_an_ambiguous_one_refused(station: World) -> None:
    """The beginning of a SAS drive's serial, while one drive alone begins so."""
    with house_of(station) as context:
        disk = lifecycle.the_disk(context, "P01")
    own = answer(station, "P01")
    long = replace(own, drive=mounts.Drive("sdb", "ZTP01AA0000C0048NEQ", None, None))
    twin = replace(own, drive=mounts.Drive("sdc", "ZTP01AA0000C0048XXX", None, None))
    assert smart_check.find(disk, [long]) == (long, None)
    found, why = smart_check.find(disk, [long, twin])
    assert found is None and why and why.endswith("the disk-map needs the whole serial")


def test_a_second_look_is_worth_it_only_for_a_disk_in_use(station: World) -> None:
    """A spare or closed disk is nobody's hurry."""
    with house_of(station) as context:
        disks = db.disks.disks(context.conn)
    found = all_well(station)
    states = {disk.label: disk.state for disk in disks}
    assert states["P01"] is DiskState.ACTIVE and states["P02"] is DiskState.SPARE
    for label, worth in (("P01", True), ("P02", False)):
        left = [each for each in found if each.drive.serial != station.serials[label]]
        assert smart_check.lacks_one_in_use(disks, left) is worth


# --- writing down -------------------------------------------------------------------------


def test_every_check_is_written_down_and_reports_of_changes_are_kept(station: World) -> None:
    """Numbers always; the whole report for the last check, and for those that changed something."""
    for pending in (0, 0, 8, 8, 8):
        check(station, *all_well(station, answer(station, "P01", "sata-good", raw(197, pending))))
    rows = station.sql(
        "SELECT health, temperature_c, power_on_hours, "
        "json_extract(attributes, '$.numbers.pending') AS pending, "
        "json_extract(attributes, '$.report.serial_number') IS NOT NULL AS whole "
        "FROM smart_checks WHERE disk_id = 1 ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("healthy", 31, 12345, 0, 1),  # the baseline
        ("healthy", 31, 12345, 0, 0),
        ("warning", 31, 12345, 8, 1),  # a change
        ("warning", 31, 12345, 8, 0),
        ("warning", 31, 12345, 8, 1),  # the last one
    ]


ODD_REPORTS = (
    '{"serial_number": "\\ud800", "smart_status": {"passed": false}}',
    '{"smart_status": {"passed": false}, "x": [NaN, Infinity, 1e999, 18446744073709551616]}',
    '{"smart_status": {"passed": false}, "y": "\\u0000\x1b[31m", "device": 7}',
    '{"smart_status": {"passed": tr',
    "",
)


@pytest.mark.parametrize("output", ODD_REPORTS)
def test_an_odd_answer_stops_no_other_drive_and_is_recorded(station: World, output: str) -> None:
    """Twice, because the second check reads what the first one stored."""
    path = DrivePath("/dev/sdq", None, answer(station, "P01").drive)
    for _ in range(2):
        odd = smartctl._found(path, SmartctlAnswer(output, 0, None))
        odd = replace(odd, drive=path.known)
        checked = check(station, *all_well(station, odd))
        expected = Health.FAILING if output.endswith("}") else Health.UNKNOWN
        assert checked["P01"].verdict.health is expected
        assert {checked[at].verdict.health for at in ("P02", "S01", "S02")} == {Health.HEALTHY}
    assert len(station.sql("SELECT 1 FROM smart_checks WHERE disk_id = 1")) == 2
    assert ("defect", "P01: its SMART check") not in station.notices()


def test_an_absent_drive_leaves_no_row(station: World) -> None:
    """Nothing was seen of it."""
    check(station)
    rows = station.sql(
        "SELECT d.label, c.health FROM smart_checks c JOIN disks d ON d.id = disk_id"
    )
    assert {tuple(row) for row in rows} == {("P01", "missing"), ("S01", "missing")}


def test_growth_is_seen_over_a_check_without_an_answer(station: World) -> None:
    """The last numbers count, not the last row: two growths running are two."""
    for name, alter in (
        ("sata-good", [raw(197, 1)]),
        ("sata-good", [raw(197, 2)]),
        ("sata-dead", []),
        ("sata-good", [raw(197, 3)]),
    ):
        checked = check(station, *all_well(station, answer(station, "P01", name, *alter)))
    assert checked["P01"].verdict.health is Health.FAILING
    assert checked["P01"].verdict.reasons == ("pending sectors (197): 1 → 3",)
    checked = check(station, *all_well(station, answer(station, "P01", "sata-good", raw(197, 3))))
    assert checked["P01"].verdict.health is Health.FAILING
    assert holds(station) == {"P01": BY_SMART}
