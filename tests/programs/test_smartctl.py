"""Asking drives: smartctl runs once for each path, with a time-out, and pySMART reads its text.

An emulated smartctl answers with the recorded reports, a drive each behind a RAID controller.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from poledata.models import Health
from poledata.smart import rules, smartctl
from poledata.smart.rules import Past
from poledata.smart.smartctl import FoundDrive
from poledata.system import mounts, privileges
from poledata.system.privileges import RootSmartctl
from tests.helpers.recorded_drives import SMARTCTL
from tests.helpers.world import REPO

REPORTS = REPO / "tests/reports"


Named = tuple[str, str | None]


class Machine:
    """An emulated smartctl in a directory of its own, and drives for it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        (directory / "smartctl").write_text(SMARTCTL)
        (directory / "smartctl").chmod(0o755)
        monkeypatch.setattr(privileges, "SMARTCTL_DIRECTORIES", (str(directory),))
        monkeypatch.setattr(mounts, "ask_drives", lambda _: ())  # not this machine's own

    def has(self, *names: str, slow: int = 0) -> None:
        """These drives; the first ``slow`` of them are hung."""
        entries = [{"name": "/dev/bus/0", "type": f"megaraid,{n}"} for n in range(len(names))]
        (self.directory / "scan").write_text(json.dumps({"devices": entries}))
        for n, name in enumerate(names):
            text = (REPORTS / f"{name}.json").read_text()
            (self.directory / f"{n}.json").write_text(text)
            status = json.loads(text)["smartctl"]["exit_status"]
            (self.directory / f"{n}.status").write_text(str(status))
        for n in range(slow):
            (self.directory / f"{n}.slow").touch()

    def calls(self) -> list[str]:
        return (self.directory / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def query(devices: Sequence[str] = (), configured: Sequence[Named] = ()) -> list[FoundDrive]:
    named = [(device, None) for device in devices]
    return smartctl.query_drives(RootSmartctl(), named, configured)


def by_serial(found: list[FoundDrive]) -> dict[str | None, FoundDrive]:
    return {each.drive.serial: each for each in found}


def test_each_path_is_asked_once_and_left_asleep(machine: Machine) -> None:
    """One run a drive: pySMART, which asks a SCSI drive eleven times, reads from that."""
    machine.has("sata-good", "sas-good", "nvme-good")
    assert len(query()) == 3
    assert machine.calls()[0] == "--json --scan"
    assert sorted(machine.calls()[1:]) == [
        f"--json=o -n standby,3 -x -d megaraid,{n} /dev/bus/0" for n in range(3)
    ]


def test_a_drive_is_described_by_its_json_and_by_pysmart(machine: Machine) -> None:
    """Model, serial, logical ID and numbers of every kind of drive."""
    machine.has("sata-good", "sas-grown", "nvme-good")
    found = by_serial(query())
    sata, sas = found["ZA12JCHM"], found["ZL22PHAL0000C0048NEQ"]
    assert sata.drive.wwn == "0x5000c500858bfea7"
    assert sata.report.model == "ST8000NM0055-1RM112"
    assert (sata.report.power_on_hours, sata.report.temperature_c) == (12345, 31)
    assert sas.report.model == "ST8000NM0075"
    assert sas.report.numbers["grown_defects"] == 31
    assert sas.report.numbers["uncorrected_errors"] == 4
    assert sas.report.numbers["non_medium_errors"] == 57  # smartctl 7.3: in its text alone
    assert "output" not in json.loads(sas.raw)["smartctl"]
    assert found["S4EWNX0N123456"].report.model == "QEMU NVMe Ctrl"


def test_a_failed_self_test_of_a_scsi_drive_is_seen(machine: Machine) -> None:
    """smartctl 7.0 has it in its text alone: pySMART reads that."""
    machine.has("sas-test-failed", "sas-test-failed")
    report = json.loads((machine.directory / "1.json").read_text())
    del report["scsi_self_test_0"]
    (machine.directory / "1.json").write_text(json.dumps(report | {"serial_number": "ZL22OLD"}))
    why = (
        "self-tests failed, and no extended one has passed since: 1 (Background long: Failed in "
        "first segment)",
    )
    for found in query():
        verdict = rules.judge(found.report, Past(), time.time())
        assert (verdict.health, tuple(verdict.reasons)) == (Health.FAILING, why)


def test_a_hung_drive_delays_no_other(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its smartctl is ended and not waited for; nothing is known of the drive, and it says so."""
    monkeypatch.setattr(privileges, "QUERY_TIMEOUT_S", 3.0)
    machine.has(*["sata-good"] * 9, "sas-good", slow=9)
    began = time.monotonic()
    found = query()
    assert time.monotonic() - began < 15  # and not 27
    unreadable_disks = [each for each in found if each.drive.serial is None]
    assert {each.report.says for each in unreadable_disks} == {"no answer within 3 s"} and len(
        unreadable_disks
    ) == 9
    assert unreadable_disks[3].devices == ("/dev/bus/0 megaraid,3",)
    verdicts = [rules.judge(each.report, Past(), time.time()).health for each in unreadable_disks]
    assert set(verdicts) == {Health.UNKNOWN}
    assert found[-1].report.passed is True


@pytest.mark.waits
def test_a_hung_drive_among_seventy_takes_as_long_as_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are queried at once: at most 1.1 times as long."""
    monkeypatch.setattr(privileges, "QUERY_TIMEOUT_S", 10.0)
    took_s = []
    for names in (["sata-good"], ["sata-good"] * 70):
        machine.has(*names, slow=1)
        began = time.monotonic()
        assert len(query()) == min(len(names), 2)  # the good ones are all the same drive
        took_s.append(time.monotonic() - began)
    alone_s, among_seventy_s = took_s
    assert alone_s >= 20  # it is asked for everything, and then for less
    assert among_seventy_s <= 1.1 * alone_s


def test_two_paths_to_one_drive_are_one_drive_and_the_better_answer_counts(
    machine: Machine,
) -> None:
    """One path says who it is and no more; the other one how it is."""
    machine.has("sas-not-ready", "sas-good")
    (found,) = query()
    assert found.devices == ("/dev/bus/0 megaraid,0", "/dev/bus/0 megaraid,1")
    assert found.report.passed is True


def test_an_old_smartctl_is_called_so(machine: Machine) -> None:
    """Before 7.0 it printed no JSON."""
    machine.has("sata-good")
    (machine.directory / "0.json").write_text("smartctl 6.6 …\nUNRECOGNIZED OPTION: json=o\n")
    (found,) = query()
    assert found.report.says == (
        "no JSON from smartctl: 7.0 or newer is needed; it printed: smartctl 6.6 … UNRECOGNIZED "
        "OPTION: json=o"
    )


def test_a_line_before_the_json_is_skipped(machine: Machine) -> None:
    """smartctl 7.0 to 7.2 print one about some SAS drives."""
    machine.has("sas-good")
    report = (machine.directory / "0.json").read_text()
    (machine.directory / "0.json").write_text(f"Read defect list (12) failed: x\n{report}")
    (found,) = query()
    assert (found.report.passed, found.drive.serial) == (True, "ZL22PHAL0000C0048NEQ")


def test_a_drive_that_gives_no_health_is_asked_for_less(machine: Machine) -> None:
    """The whole report may be too much for it; then the brief one counts."""
    machine.has("sata-good")
    (machine.directory / "0.json").rename(machine.directory / "0.brief")
    (machine.directory / "0.json").write_text('{"smartctl": {"messages": []}}')
    (found,) = query()
    assert (found.report.passed, found.drive.serial) == (True, "ZA12JCHM")
    assert machine.calls()[1:] == [
        "--json=o -n standby,3 -x -d megaraid,0 /dev/bus/0",
        "--json=o -n standby,3 -a -d megaraid,0 /dev/bus/0",
    ]


def test_a_sata_drive_taken_for_a_scsi_drive_is_asked_as_one(machine: Machine) -> None:
    """Some controllers and bridges hide what it is."""
    block = f"/dev/{sorted(os.listdir('/sys/class/block'))[0]}"
    answer = {"device": {"protocol": "SCSI"}, "smart_support": {"available": False}}
    (machine.directory / "plain.json").write_text(json.dumps(answer))
    (machine.directory / "sat.json").write_text((REPORTS / "sata-good.json").read_text())
    (machine.directory / "scan").write_text("{}")
    (found,) = query([block])
    assert (found.devices, found.drive.serial) == ((f"{block} sat",), "ZA12JCHM")
    assert rules.judge(found.report, Past(), time.time()).health is Health.HEALTHY


def test_drives_with_one_id_and_two_serials_are_two(machine: Machine) -> None:
    """There are drives that share an ID: never the ID alone tells them apart."""
    machine.has("sata-good", "sata-good")
    report = json.loads((machine.directory / "1.json").read_text())
    (machine.directory / "1.json").write_text(json.dumps(report | {"serial_number": "ZA12OTHR"}))
    assert sorted(by_serial(query())) == ["ZA12JCHM", "ZA12OTHR"]


def test_a_configured_device_is_asked_as_configured(machine: Machine) -> None:
    """It is one that scanning does not find, or whose type it gets wrong."""
    machine.has()
    (machine.directory / "sat.json").write_text((REPORTS / "sata-good.json").read_text())
    block = f"/dev/{sorted(os.listdir('/sys/class/block'))[0]}"
    (found,) = query(configured=[(block, "sat")])
    assert (found.devices, found.drive.serial) == ((f"{block} sat",), "ZA12JCHM")
    assert machine.calls()[1:] == [f"--json=o -n standby,3 -x -d sat {block}"]
    (odd,) = query(configured=[(block, "sat,--set=x")])
    assert odd.report.says == "'sat,--set=x' is not a type of device that smartctl knows"


def test_named_devices_alone_are_queried(machine: Machine) -> None:
    """Also one that scanning does not list; a missing one is not given to smartctl."""
    machine.has("sata-good")
    block = f"/dev/{sorted(os.listdir('/sys/class/block'))[0]}"
    known, missing = query([block, "/dev/sdzz"])
    assert (known.devices, known.drive.serial) == ((block,), None)
    assert machine.calls()[1:] == [
        f"--json=o -n standby,3 {report} {block}" for report in ("-x", "-a")
    ]
    assert missing.report.says == "there is no such device (No such file or directory)"
