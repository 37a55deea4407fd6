"""Drives as smartctl sees them, asked through pySMART: all at once, each with a time-out.

pySMART itself has no time-out, forgets smartctl's exit status, and asks a SCSI drive eleven times.
Here smartctl runs once for each path to a drive, and pySMART reads its text; the JSON is the truth.
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
from poledata.notices.isolation import caught
from poledata.smart.report import Json, SelfReport, read_report
from poledata.system import mounts

ASK_TIMEOUT_S = 30.0  # one that takes 25 s a command would keep smartctl for minutes
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # not in cron's PATH, nor in that of many users
_CLASS_BLOCK = Path("/sys/class/block")
_SCSI_HOST = Path("/sys/class/scsi_host")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a drive can be asked: a device, and its type where smartctl does not find it out."""

    device: str  # /dev/sdb, /dev/bus/0
    type: str | None = None  # megaraid,3
    kernel: mounts.Drive | None = None  # what the system knows of it

    @property
    def name(self) -> str:
        """Unlike any other's: behind a controller many drives share one device."""
        return f"{self.device} {self.type}" if self.type else self.device


@dataclass(frozen=True, slots=True)
class FoundDrive:
    """A physical drive, by whichever path answered best."""

    devices: tuple[str, ...]
    drive: mounts.Drive  # who it is: by its own word, else by the system's
    report: SelfReport
    raw: str  # the report as JSON, "{}" where there is none


def find_smartctl() -> str:
    """The path of smartctl. Raises UsageFault."""
    found = shutil.which("smartctl", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if found is None:
        raise UsageFault(
            "smartctl is not installed. Nothing was changed. Debian, Ubuntu: "
            "sudo apt install smartmontools"
        )
    return found


def look(devices: Sequence[str] = ()) -> list[FoundDrive]:
    """Every drive of this machine (or those behind these devices), asked all at once.

    Two paths to one drive are one drive. Raises UsageFault where there is no smartctl.
    """
    smartctl = find_smartctl()
    doors = _doors(smartctl)
    if devices:
        known = {door.device: door for door in doors}
        doors = [known.get(device, Door(device)) for device in devices]
    if not doors:
        return []
    with ThreadPoolExecutor(len(doors)) as threads:  # a thread each: the mute delay nobody
        asked = list(threads.map(lambda door: _ask(smartctl, door), doors))
    return list(_one_for_each_drive(asked))


def _one_for_each_drive(asked: Iterable[FoundDrive]) -> Iterator[FoundDrive]:
    paths: dict[str, list[FoundDrive]] = {}
    for found in asked:
        paths.setdefault(found.drive.identity, []).append(found)
    for group in paths.values():
        best = max(group, key=lambda found: (found.report.passed is not None, found.raw != "{}"))
        yield replace(best, devices=tuple(found.devices[0] for found in group))


# --- where drives can be asked ------------------------------------------------------------


def _doors(smartctl: str) -> list[Door]:
    """What the kernel has, and what only a RAID controller can be asked for.

    Behind such a controller the kernel sees volumes; the drives are what smartctl lists.
    """
    names = [place.name for place in _CLASS_BLOCK.glob("*") if _is_drive(place.name)]
    kernel = mounts.ask_drives(names) if names else ()
    behind = [
        Door(entry["name"], entry["type"])
        for entry in _scan(smartctl)
        if not entry["name"].startswith(("/dev/sd", "/dev/nvme"))
    ]
    has_megaraid = any("megaraid" in str(door.type) for door in behind)
    return [
        Door(f"/dev/{drive.kernel_name.replace('!', '/')}", None, drive)
        for drive in kernel
        if not (has_megaraid and _driver(drive.kernel_name) == "megaraid_sas")
    ] + behind


def _is_drive(kernel_name: str) -> bool:
    """Neither a device made of others, nor one for CDs."""
    return (_CLASS_BLOCK / kernel_name / "device").exists() and not kernel_name.startswith("sr")


def _driver(kernel_name: str) -> str | None:
    """The driver of a SCSI drive's controller."""
    place = os.path.realpath(_CLASS_BLOCK / kernel_name)
    host = re.search(r"/(host\d+)/", place)
    try:
        return (_SCSI_HOST / host[1] / "proc_name").read_text().strip() if host else None
    except OSError:
        return None  # it has gone


def _scan(smartctl: str) -> list[dict[str, str]]:
    """smartctl's own list. It opens no drive for it, so that a mute one can't stop it here."""
    answer, _, fault = _run([smartctl, "--json", "--scan"])
    if fault:
        log.warning("smartctl --scan: %s", fault)
    devices: list[dict[str, str]] = answer.get("devices", [])
    return devices


# --- asking one ---------------------------------------------------------------------------


class _AskedOnce(Smartctl):  # type: ignore[misc]
    """Runs smartctl a single time; whatever pySMART asks is answered from that."""

    def __init__(self, smartctl: str, door: Door) -> None:
        super().__init__(smartctl_path=smartctl)
        kind = ["-d", door.type] if door.type else []
        command = [smartctl, "--json=o", "-n", "standby,3", "-a", *kind, door.device]
        self.report, self.exit_status, self.fault = _run(command)

    def generic_call(self, params: list[str], pass_options: bool = False) -> tuple[list[str], int]:
        if "--all" in params:
            return list(self.report.get("smartctl", {}).get("output", ())), self.exit_status
        return [], 1  # the other things that it asks for are in the JSON, or not needed


def _ask(smartctl: str, door: Door) -> FoundDrive:
    """What one drive answers; an answer that hits a bug of ours is none."""
    with caught(door.name) as bugs:
        return _asked(smartctl, door)
    kernel = door.kernel or mounts.Drive(door.name, None, None, None)
    report = replace(read_report(door.device, {}, 0), says=bugs[0])
    return FoundDrive((door.name,), kernel, report, "{}")


def _asked(smartctl: str, door: Door) -> FoundDrive:
    asked = _AskedOnce(smartctl, door)
    report = read_report(door.device, asked.report, asked.exit_status)
    if asked.fault:
        report = replace(report, says=asked.fault)
    elif report.serial:
        report = _with_pysmart(report, asked)
    kernel = door.kernel or mounts.Drive(door.name, None, None, None)
    drive = replace(
        kernel, serial=report.serial or kernel.serial, wwn=report.logical_id or kernel.wwn
    )
    return FoundDrive((door.name,), drive, report, _without_text(asked.report))


def _with_pysmart(report: SelfReport, asked: _AskedOnce) -> SelfReport:
    """The model, and what smartctl 7.3 has of a SCSI drive's self-tests in its text alone."""
    try:
        device = Device(report.device, interface=asked.report["device"]["type"], smartctl=asked)
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
    """smartctl's JSON, its exit status, and why there is none of it.

    One that is stuck in the kernel can't be ended: it is killed and not waited for.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        out, _ = process.communicate(timeout=ASK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # most are gone at once
            process.wait(1)
        return {}, 0, f"no answer within {ASK_TIMEOUT_S:.0f} s"
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
