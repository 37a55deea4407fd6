"""Query drives with smartctl and pySMART: all at once, each with a time-out.

pySMART itself has no time-out, forgets smartctl's exit status, and asks a SCSI drive eleven times.
Here smartctl runs once for each path to a drive, as root, in a process of its own
(``RootSmartctl``); pySMART reads its text here; where they differ, the JSON counts.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pySMART import Device  # type: ignore[import-untyped]
from pySMART.smartctl import Smartctl  # type: ignore[import-untyped]

from poledata.notices.defects import caught
from poledata.smart.report import Json, SelfReport, read_report
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


def query_drives(smartctl: RootSmartctl, devices: Sequence[str] = ()) -> list[FoundDrive]:
    """Query every drive of this machine (or those behind these devices), all at once.

    Two paths to one drive are one drive.
    """
    paths = _drive_paths(smartctl)
    if devices:
        known = {path.device: path for path in paths}
        paths = [known.get(device, DrivePath(device)) for device in devices]
    answers = smartctl.query([(path.device, path.type) for path in paths])
    return list(_one_for_each_drive(map(_found, paths, answers)))


def _one_for_each_drive(answers: Iterable[FoundDrive]) -> Iterator[FoundDrive]:
    by_drive: dict[str, list[FoundDrive]] = {}
    for answer in answers:
        by_drive.setdefault(answer.drive.identity, []).append(answer)
    for group in by_drive.values():
        best = max(group, key=lambda found: (found.report.passed is not None, found.raw != "{}"))
        yield replace(best, devices=tuple(found.devices[0] for found in group))


# --- paths to drives ----------------------------------------------------------------------


def _drive_paths(smartctl: RootSmartctl) -> list[DrivePath]:
    """Return the drives that the kernel has, and those that only a RAID controller knows.

    Behind such a controller the kernel has volumes; smartctl lists the drives.
    """
    names = [place.name for place in _CLASS_BLOCK.glob("*") if _is_drive(place.name)]
    behind = [
        DrivePath(entry["name"], entry["type"])
        for entry in _scan(smartctl)
        if not entry["name"].startswith(("/dev/sd", "/dev/nvme"))
    ]
    has_megaraid = any("megaraid" in str(path.type) for path in behind)
    return [
        DrivePath(f"/dev/{drive.kernel_name.replace('!', '/')}", None, drive)
        for drive in (mounts.ask_drives(names) if names else ())
        if not (has_megaraid and _driver(drive.kernel_name) == "megaraid_sas")
    ] + behind


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


def _scan(smartctl: RootSmartctl) -> list[dict[str, str]]:
    """Return smartctl's own list."""
    answer, fault = _parsed(smartctl.scan())
    if fault:
        log.warning("smartctl --scan: %s", fault)
    devices: list[dict[str, str]] = answer.get("devices", [])
    return devices


# --- one drive ----------------------------------------------------------------------------


class _OneRun(Smartctl):  # type: ignore[misc]
    """Everything that pySMART asks smartctl is answered from one run."""

    def __init__(self, answer: SmartctlAnswer) -> None:
        super().__init__(smartctl_path="/nonexistent")  # it never runs one itself
        self.exit_status = answer.exit_status
        self.report, self.fault = _parsed(answer)

    def generic_call(self, params: list[str], pass_options: bool = False) -> tuple[list[str], int]:
        if "--all" in params:
            return list(self.report.get("smartctl", {}).get("output", ())), self.exit_status
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
        report = replace(report, says=run.fault)
    elif report.serial:
        report = _with_pysmart(report, run)
    known = path.known
    drive = replace(known, serial=report.serial or known.serial, wwn=report.logical_id or known.wwn)
    return FoundDrive((path.name,), drive, report, _without_text(run.report))


def _with_pysmart(report: SelfReport, run: _OneRun) -> SelfReport:
    """Add the model, and a SCSI drive's self-tests, which smartctl 7.3 has only in its text."""
    try:
        device = Device(report.device, interface=run.report["device"]["type"], smartctl=run)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
        log.debug("pySMART can't read %s: %r", report.device, fault)
        return report
    numbers = report.numbers
    if device.tests and "self_test_failed" not in numbers:
        failed = str(device.tests[0].status).startswith(("Failed", "Completed:"))
        numbers = {**numbers, "self_test_failed": int(failed)}
    return replace(report, model=device.model or report.model, numbers=numbers)


def _without_text(report: Json) -> str:
    own = {k: v for k, v in report.get("smartctl", {}).items() if k != "output"}
    return json.dumps({**report, "smartctl": own} if report else {})


def _parsed(answer: SmartctlAnswer) -> tuple[dict[str, Any], str | None]:
    """Return smartctl's JSON, and why there is none."""
    if answer.fault:
        return {}, answer.fault
    try:
        report = json.loads(answer.output, strict=False)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        return {}, "no JSON from smartctl: 7.0 or newer is needed"
    return report, None
