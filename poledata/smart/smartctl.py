"""Query drives with smartctl and pySMART: all at once, each with a time-out.

pySMART itself has no time-out, forgets smartctl's exit status, and asks a SCSI drive eleven times.
Here smartctl runs once for each path to a drive, and pySMART reads its text; where they differ, the
JSON counts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pySMART import Device  # type: ignore[import-untyped]
from pySMART.smartctl import Smartctl  # type: ignore[import-untyped]

from poledata.errors import UsageFault
from poledata.notices.defects import caught
from poledata.smart.report import Json, SelfReport, read_report
from poledata.system import mounts

QUERY_TIMEOUT_S = 30.0  # a drive that takes 25 s per command would keep smartctl for minutes
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # in the PATH neither of cron nor of many users
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


def find_smartctl() -> str:
    """Return the path of smartctl. Raise UsageFault if there is none."""
    found = shutil.which("smartctl", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if found is None:
        raise UsageFault(
            "smartctl is not installed. Nothing was changed. Debian, Ubuntu: "
            "sudo apt install smartmontools"
        )
    return found


def query_drives(devices: Sequence[str] = ()) -> list[FoundDrive]:
    """Query every drive of this machine (or those behind these devices), all at once.

    Two paths to one drive are one drive. Raise UsageFault if smartctl is not installed.
    """
    smartctl = find_smartctl()
    paths = _drive_paths(smartctl)
    if devices:
        known = {path.device: path for path in paths}
        paths = [known.get(device, DrivePath(device)) for device in devices]
    if not paths:
        return []
    with ThreadPoolExecutor(len(paths)) as threads:  # one thread each: a hung drive delays no other
        answers = list(threads.map(lambda path: _query(smartctl, path), paths))
    return list(_one_for_each_drive(answers))


def _one_for_each_drive(answers: Iterable[FoundDrive]) -> Iterator[FoundDrive]:
    by_drive: dict[str, list[FoundDrive]] = {}
    for answer in answers:
        by_drive.setdefault(answer.drive.identity, []).append(answer)
    for group in by_drive.values():
        best = max(group, key=lambda found: (found.report.passed is not None, found.raw != "{}"))
        yield replace(best, devices=tuple(found.devices[0] for found in group))


# --- paths to drives ----------------------------------------------------------------------


def _drive_paths(smartctl: str) -> list[DrivePath]:
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


def _scan(smartctl: str) -> list[dict[str, str]]:
    """Return smartctl's own list. It opens no drive for it, so a hung one can't stop it."""
    answer, _, fault = _run([smartctl, "--json", "--scan"])
    if fault:
        log.warning("smartctl --scan: %s", fault)
    devices: list[dict[str, str]] = answer.get("devices", [])
    return devices


# --- one drive ----------------------------------------------------------------------------


class _OneRun(Smartctl):  # type: ignore[misc]
    """Run smartctl once; everything that pySMART asks is answered from that run."""

    def __init__(self, smartctl: str, path: DrivePath) -> None:
        super().__init__(smartctl_path=smartctl)
        kind = ["-d", path.type] if path.type else []
        command = [smartctl, "--json=o", "-n", "standby,3", "-a", *kind, path.device]
        self.report, self.exit_status, self.fault = _run(command)

    def generic_call(self, params: list[str], pass_options: bool = False) -> tuple[list[str], int]:
        if "--all" in params:
            return list(self.report.get("smartctl", {}).get("output", ())), self.exit_status
        return [], 1  # everything else that it asks for is in the JSON, or not needed


def _query(smartctl: str, path: DrivePath) -> FoundDrive:
    """Return the answer of one drive; if a bug of ours prevents it, return the reason."""
    with caught(path.name) as bugs:
        return _answer(smartctl, path)
    report = replace(read_report(path.device, {}, 0), says=bugs[0])
    return FoundDrive((path.name,), path.known, report, "{}")


def _answer(smartctl: str, path: DrivePath) -> FoundDrive:
    run = _OneRun(smartctl, path)
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


def _run(command: list[str]) -> tuple[dict[str, Any], int, str | None]:
    """Return smartctl's JSON, its exit status, and why there is no JSON.

    A process that hangs in the kernel can't be ended: it is killed and not waited for.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        out, _ = process.communicate(timeout=QUERY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # most are gone at once
            process.wait(1)
        return {}, 0, f"no answer within {QUERY_TIMEOUT_S:.0f} s"
    finally:
        if process.stdout:
            process.stdout.close()
    try:
        answer = json.loads(out.decode("utf-8", "replace"), strict=False)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return {}, process.returncode, "no JSON from smartctl: 7.0 or newer is needed"
    return answer, process.returncode, None
