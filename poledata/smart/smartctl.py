"""Query drives with smartctl and pySMART: all at once, each with a time-out.

pySMART itself has no time-out, forgets smartctl's exit status, and asks a SCSI drive eleven times.
Here smartctl runs once for each path to a drive, as root, in a process of its own
(``RootSmartctl``); pySMART reads its text here; where they differ, the JSON counts.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pySMART import Device  # type: ignore[import-untyped]
from pySMART.smartctl import Smartctl  # type: ignore[import-untyped]

from poledata.formatting import printable
from poledata.notices.defects import caught
from poledata.smart.report import Json, SelfReport, SelfTest, read_report, tests_numbers
from poledata.system import mounts
from poledata.system.privileges import RootSmartctl, SmartctlAnswer

_CLASS_BLOCK = Path("/sys/class/block")
_SCSI_HOST = Path("/sys/class/scsi_host")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DrivePath:
    """One way to query a drive: a device, and its type if smartctl does not find that out."""

    device: str  # /dev/sdb, /dev/bus/0
    type: str | None = None  # megaraid,3
    kernel: mounts.Drive | None = None  # what the system knows about it

    @property
    def name(self) -> str:
        """Return a unique name: behind a controller many drives share one device."""
        return f"{self.device} {self.type}" if self.type else self.device

    @property
    def known(self) -> mounts.Drive:
        """Return what is known without a query."""
        return self.kernel or mounts.Drive(self.name, None, None, None)


@dataclass(frozen=True, slots=True)
class FoundDrive:
    """A physical drive, as the path with the best answer sees it."""

    devices: tuple[str, ...]
    drive: mounts.Drive  # its identity: what it reports itself, else what the system knows
    report: SelfReport
    raw: str  # the report as JSON, "{}" if there is none


def query_drives(
    smartctl: RootSmartctl,
    devices: Sequence[tuple[str, str | None]] = (),
    configured: Sequence[tuple[str, str | None]] = (),
) -> list[FoundDrive]:
    """Query every drive of this machine (or those behind these devices), all at once.

    A device has a type, or None. ``configured`` are those that scanning does not find. Two paths
    to one drive are one drive.
    """
    paths = _drive_paths(smartctl, configured)
    if devices:
        known = {path.device: path for path in paths}
        paths = [
            DrivePath(device, kind) if kind else known.get(device, DrivePath(device))
            for device, kind in devices
        ]
    answers = smartctl.query([(path.device, path.type, False) for path in paths])
    found = [[_found(path, answer)] for path, answer in zip(paths, answers, strict=True)]
    retries = [
        (n, p, brief) for n, path in enumerate(paths) for p, brief in _retries(path, found[n][0])
    ]
    answers = smartctl.query([(path.device, path.type, brief) for _, path, brief in retries])
    for (n, path, _), answer in zip(retries, answers, strict=True):
        found[n].append(_found(path, answer))
    return list(_one_for_each_drive([max(each, key=_usefulness) for each in found]))


def _retries(path: DrivePath, found: FoundDrive) -> Iterator[tuple[DrivePath, bool]]:
    """Yield how else to ask a drive that gave no health: its shorter report, or as a SATA drive.

    Some controllers and bridges make smartctl take a SATA drive for a SCSI one.
    """
    report = found.report
    if report.is_asleep or report.is_off or report.passed is not None:
        return
    yield path, True
    if path.type is None and report.protocol == "SCSI":
        yield replace(path, type="sat"), False


def _usefulness(found: FoundDrive) -> tuple[bool, bool, bool]:
    return found.report.passed is not None, bool(found.report.numbers), found.raw != "{}"


def _one_for_each_drive(answers: Sequence[FoundDrive]) -> Iterator[FoundDrive]:
    by_drive: dict[tuple[str | None, str | None], list[FoundDrive]] = {}
    for answer in answers:
        by_drive.setdefault(_serial_and_id(answer, answers), []).append(answer)
    for group in by_drive.values():
        best = max(group, key=_usefulness)
        yield replace(best, devices=tuple(found.devices[0] for found in group))


def _serial_and_id(one: FoundDrive, answers: Iterable[FoundDrive]) -> tuple[str | None, str | None]:
    """Return what tells a drive from all others; what one path to it lacks is taken from another.

    Never the ID alone: there are drives that share one.
    """
    serial, wwn = one.drive.serial, one.drive.wwn
    if serial is None and wwn is None:
        return None, one.devices[0]
    alike = [a.drive for a in answers if wwn == a.drive.wwn or serial == a.drive.serial]
    if serial is None and len(serials := {d.serial for d in alike if d.serial}) == 1:
        serial = serials.pop()
    if wwn is None and len(wwns := {d.wwn for d in alike if d.wwn}) == 1:
        wwn = wwns.pop()
    return serial, wwn


# --- paths to drives ----------------------------------------------------------------------


def _drive_paths(
    smartctl: RootSmartctl, configured: Sequence[tuple[str, str | None]]
) -> list[DrivePath]:
    """Return the drives that the kernel has, and those that only a RAID controller knows.

    Behind such a controller the kernel has volumes; smartctl lists the drives. A configured device
    is asked as configured, and not as it was found.
    """
    names = [place.name for place in _CLASS_BLOCK.glob("*") if _is_drive(place.name)]
    behind = [
        DrivePath(device, kind)
        for device, kind in _scan(smartctl)
        if not device.startswith(("/dev/sd", "/dev/nvme"))
    ]
    has_megaraid = any("megaraid" in str(path.type) for path in behind)
    own = [
        DrivePath(f"/dev/{drive.kernel_name.replace('!', '/')}", None, drive)
        for drive in (mounts.ask_drives(names) if names else ())
        if not (has_megaraid and _driver(drive.kernel_name) == "megaraid_sas")
    ]
    kernel = {path.device: path.kernel for path in own}
    wanted = [DrivePath(device, kind, kernel.get(device)) for device, kind in configured]
    replaced = {path.device for path in wanted}
    return [*(path for path in (*own, *behind) if path.device not in replaced), *wanted]


def _is_drive(kernel_name: str) -> bool:
    """True for a drive; False for a device that consists of others, and for a CD drive."""
    return (_CLASS_BLOCK / kernel_name / "device").exists() and not kernel_name.startswith("sr")


def _driver(kernel_name: str) -> str | None:
    """Return the driver of a SCSI drive's controller."""
    place = os.path.realpath(_CLASS_BLOCK / kernel_name)
    host = re.search(r"/(host\d+)/", place)
    try:
        return (_SCSI_HOST / host[1] / "proc_name").read_text().strip() if host else None
    except OSError:
        return None  # the drive was removed


def _scan(smartctl: RootSmartctl) -> list[tuple[str, str]]:
    """Return smartctl's own list: devices and types."""
    answer, fault = _parsed(smartctl.scan())
    if fault:
        log.warning("smartctl --scan: %s", fault)
    entries = answer.get("devices")
    return [
        (entry["name"], entry["type"])
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("type"), str)
    ]


# --- one drive ----------------------------------------------------------------------------


class _OneRun(Smartctl):  # type: ignore[misc]
    """Everything that pySMART asks smartctl is answered from one run."""

    def __init__(self, answer: SmartctlAnswer) -> None:
        super().__init__(smartctl_path="/nonexistent")  # it never runs one itself
        self.exit_status = answer.exit_status
        self.report, self.fault = _parsed(answer)
        self.is_silent = answer.fault is not None

    def generic_call(self, params: list[str], pass_options: bool = False) -> tuple[list[str], int]:
        if "--all" in params:
            return list(self.report["smartctl"]["output"]), self.exit_status
        return [], 1  # everything else that it asks for is in the JSON, or not needed


def _found(path: DrivePath, answer: SmartctlAnswer) -> FoundDrive:
    """Return the drive behind a path; if a bug of ours prevents it, return the reason."""
    with caught(path.name) as bugs:
        return _read(path, _OneRun(answer))
    report = replace(read_report(path.device, {}, 0), says=bugs[0])
    return FoundDrive((path.name,), path.known, report, "{}")


def _read(path: DrivePath, run: _OneRun) -> FoundDrive:
    report = read_report(path.device, run.report, run.exit_status)
    if run.fault:
        report = replace(report, says=run.fault, is_silent=run.is_silent)
    elif report.serial:
        report = _with_pysmart(report, run)
    known, is_nvme = path.known, path.device.startswith("/dev/nvme")
    wwn = report.logical_id or known.wwn
    drive = replace(
        known,
        serial=report.serial or known.serial,
        wwn=wwn,
        other_wwn=known.other_wwn if known.wwn == wwn else known.wwn if is_nvme else None,
    )
    return FoundDrive((path.name,), drive, report, _without_text(run.report))


def _with_pysmart(report: SelfReport, run: _OneRun) -> SelfReport:
    """Add the model, and a SCSI drive's self-tests, which smartctl 7.0 has only in its text."""
    try:
        device = Device(report.device, interface=run.report["device"]["type"], smartctl=run)
        tests = [_test_in_text(test) for test in device.tests or ()]
    except Exception as fault:  # a text that pySMART can't read: the JSON is enough
        log.debug("pySMART can't read %s: %r", report.device, fault)
        return report
    if report.protocol == "SCSI" and "scsi_self_test_0" not in run.report:
        found = list(tests_numbers(tests))
        numbers = {name: number for name, number, _ in found}
        details = {name: words for name, _, words in found if words}
        report = replace(report, numbers=report.numbers | numbers, details=report.details | details)
    return replace(report, model=device.model or report.model)


def _test_in_text(test: Any) -> SelfTest:
    status, kind = str(test.status), str(test.type)
    has_failed = status.startswith(("Failed", "Completed:", "Completed, segment"))
    is_extended = "long" in kind.lower() or "extended" in kind.lower()
    passed = False if has_failed else True if status.startswith("Completed") else None
    hours = int(test.hours) if str(test.hours).isdecimal() else None
    return SelfTest(is_extended, passed, hours, f"{kind}: {status}")


# Nothing is judged by these, and they are long: reports are kept for years.
_BULKY = ("ata_log_directory", "ata_sct_temperature_history")


def _without_text(report: Json) -> str:
    report = {name: value for name, value in report.items() if name not in _BULKY}
    own = report.get("smartctl")
    own = {k: v for k, v in own.items() if k != "output"} if isinstance(own, dict) else own
    return json.dumps({**report, "smartctl": own} if report else {})


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


# JSON has no such numbers, and SQLite would refuse a report with one.
_DECODER = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=lambda _: None)


def _parsed(answer: SmartctlAnswer) -> tuple[dict[str, Any], str | None]:
    """Return smartctl's JSON, and why there is none.

    Before it smartctl 7.0 to 7.2 print a line about some SAS drives.
    """
    if answer.fault:
        return {}, answer.fault
    before, brace, text = answer.output.partition("{")
    if not brace:
        return {}, f"no JSON from smartctl: 7.0 or newer is needed{_beginning(before)}"
    try:
        report, end = _DECODER.raw_decode(brace + text)
        if (brace + text)[end:].strip():
            raise ValueError("something follows it")
    except (ValueError, RecursionError) as fault:
        return {}, f"smartctl's answer can't be read ({fault}){_beginning(answer.output)}"
    return report, None


def _beginning(text: str) -> str:
    """Return the beginning of an answer, to be shown."""
    start = printable(" ".join(text[:80].split()))
    return f"; it printed: {start}" if start else ""
