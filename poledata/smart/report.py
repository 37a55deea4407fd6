"""Read one answer of smartctl --json=o -a as plain numbers (pure).

The fields are those of smartctl 7.0 to 7.5, which differ: ``temperature.drive_trip`` became
``scsi_temperature.drive_trip``, ``vendor`` and ``product`` became ``scsi_vendor`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

# Exit status of smartctl(8): bits of its own faults, and of what the drive reports.
OPEN_FAILED, SAYS_FAILING, PREFAIL_NOW = 1 << 1, 1 << 3, 1 << 4
ASLEEP = 3  # requested by "-n standby,3"

ATA_COUNTERS = {
    5: "reallocated",
    10: "spin_retries",
    184: "end_to_end",
    187: "reported_uncorrectable",
    188: "command_timeouts",
    197: "pending",
    198: "offline_uncorrectable",
    199: "interface_errors",
}
_TEMPERATURES = (190, 194)  # judged as temperatures, not as attributes
# Bits of NVMe's critical warning (NVM Express 1.4, 5.14.1.2).
_TOO_HOT, _UNRELIABLE = 1 << 1, 1 << 2
_NVME_TEST_FAILED = (5, 6, 7)
_SCSI_TEST_FAILED = range(3, 8)


@dataclass(frozen=True, slots=True)
class SelfReport:
    """The answer of one drive; ``numbers`` holds the counters that it has, by our names."""

    device: str
    serial: str | None
    logical_id: str | None
    model: str | None
    says: str  # smartctl's own faults
    is_asleep: bool
    is_supported: bool | None  # None: not known
    passed: bool | None
    temperature_c: int | None
    power_on_hours: int | None
    numbers: dict[str, int]


def read_report(device: str, report: Json, exit_status: int) -> SelfReport:
    """Return the numbers of one report, of any kind of drive."""
    return SelfReport(
        device=device,
        serial=_text(report, "serial_number"),
        logical_id=logical_id(report),
        model=model(report),
        says=_messages(report),
        is_asleep=exit_status == ASLEEP and "serial_number" not in report,
        is_supported=_is_supported(report),
        passed=_at(report, "smart_status", "passed"),
        temperature_c=_at(report, "temperature", "current"),
        power_on_hours=_at(report, "power_on_time", "hours"),
        numbers=dict(_numbers(report, exit_status)),
    )


# --- identity -----------------------------------------------------------------------------


def logical_id(report: Json) -> str | None:
    """``0x5000c500858bfea7``: the WWN, the SCSI logical unit, or an NVMe namespace's EUI-64."""
    spaces = report.get("nvme_namespaces") or [{}]
    if wwn := report.get("wwn"):
        found = f"0x{wwn['naa']:x}{wwn['oui']:06x}{wwn['id']:09x}"
    elif unit := _text(report, "logical_unit_id"):
        found = unit.lower()
    elif eui := spaces[0].get("eui64"):
        found = f"0x{eui['oui']:06x}{eui['ext_id']:010x}"
    else:
        return None
    return found if found.strip("0x") else None  # all zeros means none


def model(report: Json) -> str | None:
    """Return the maker's name for this kind of drive."""
    parts = (_text(report, name) for name in ("vendor", "product"))
    return (
        _text(report, "model_name")
        or _text(report, "scsi_model_name")
        or " ".join(part for part in parts if part)
        or None
    )


def _messages(report: Json) -> str:
    messages = _at(report, "smartctl", "messages") or ()
    return "; ".join(" ".join(message["string"].split()) for message in messages)


def _is_supported(report: Json) -> bool | None:
    """smartctl reports it from 7.3 on; before, any table or log of the drive shows it."""
    if support := report.get("smart_support"):
        return bool(support.get("available") and support.get("enabled", True))
    evidence = (
        "ata_smart_attributes",
        "nvme_smart_health_information_log",
        "scsi_error_counter_log",
        "scsi_grown_defect_list",
    )
    return True if any(name in report for name in evidence) else None


# --- counters -----------------------------------------------------------------------------


def _numbers(report: Json, exit_status: int) -> Iterator[tuple[str, int]]:
    nvme = report.get("nvme_smart_health_information_log")
    if nvme:
        yield from _of_nvme(nvme)
    else:
        failed = _at(report, "smart_status", "passed") is False
        yield "says_failing", int(failed or bool(exit_status & SAYS_FAILING))
    yield from _of_ata(report, exit_status)
    yield from _of_scsi(report)
    yield "too_hot", int(_is_too_hot(report, nvme))
    if (test_failed := _newest_test_failed(report)) is not None:
        yield "self_test_failed", int(test_failed)


def _of_ata(report: Json, exit_status: int) -> Iterator[tuple[str, int]]:
    table = _at(report, "ata_smart_attributes", "table")
    if table is None:
        return
    for attribute in table:
        if name := ATA_COUNTERS.get(attribute["id"]):
            yield name, _raw(attribute)
    judged = [a for a in table if a["id"] not in _TEMPERATURES]
    now = sum(a.get("when_failed") == "now" for a in judged)
    yield "attributes_failing", now or int(bool(exit_status & PREFAIL_NOW))
    yield "attributes_failed_once", sum(a.get("when_failed") == "past" for a in judged)
    log = report.get("ata_smart_error_log", {})
    errors = _at(log, "extended", "count") or _at(log, "summary", "count")
    yield "logged_errors", errors or 0


def _raw(attribute: Json) -> int:
    """Return the count in a raw value; makers use its other bits for other things."""
    raw = attribute["raw"]
    if attribute["id"] == 188:  # timeouts, and how many of them took 5 s and 7.5 s
        return int(raw["value"]) & 0xFFFF
    shown = re.match(r"\d+", raw.get("string", ""))
    return int(shown[0]) if shown else int(raw["value"])


def _of_scsi(report: Json) -> Iterator[tuple[str, int]]:
    if (grown := report.get("scsi_grown_defect_list")) is not None:
        yield "grown_defects", grown
    if log := report.get("scsi_error_counter_log"):
        kinds = [log[kind] for kind in ("read", "write", "verify") if kind in log]
        yield "uncorrected_errors", sum(k.get("total_uncorrected_errors", 0) for k in kinds)
    if (count := _non_medium(report)) is not None:
        yield "non_medium_errors", count
    if (used := report.get("scsi_percentage_used_endurance_indicator")) is not None:
        yield "used_percent", used


def _non_medium(report: Json) -> int | None:
    """smartctl 7.3 has it only in its text."""
    count: int | None = _at(report, "scsi_error_counter_log", "non_medium_error", "count")
    if count is not None:
        return count
    for line in _at(report, "smartctl", "output") or ():
        if match := re.match(r"Non-medium error count:\s+(\d+)", line):
            return int(match[1])
    return None


def _of_nvme(log: Json) -> Iterator[tuple[str, int]]:
    used = log.get("percentage_used", 0)
    spare, threshold = log.get("available_spare", 100), log.get("available_spare_threshold", 0)
    warning = log.get("critical_warning", 0) & ~_TOO_HOT
    is_worn = warning == _UNRELIABLE and used >= 100 and spare >= threshold
    yield "says_failing", int(bool(warning) and not is_worn)
    yield "worn_out", int(is_worn)
    yield "spare_too_low", int(spare < threshold)
    yield "used_percent", used
    yield "media_errors", log.get("media_errors", 0)


def _is_too_hot(report: Json, nvme: Json | None) -> bool:
    """True by the drive's own limit, or its own warning."""
    now = _at(report, "temperature", "current")
    limit = _at(report, "scsi_temperature", "drive_trip") or _at(
        report, "temperature", "drive_trip"
    )
    warns = bool(nvme and nvme.get("critical_warning", 0) & _TOO_HOT)
    return warns or bool(limit and now is not None and now >= limit)  # a limit of 0 means none


def _newest_test_failed(report: Json) -> bool | None:
    """Return None if no test was ever completed."""
    logs = report.get("ata_smart_self_test_log", {})
    for kind in ("extended", "standard"):
        if table := _at(logs, kind, "table"):
            return _at(table[0], "status", "passed") is False
    if table := _at(report, "nvme_self_test_log", "table"):
        return _at(table[0], "self_test_result", "value") in _NVME_TEST_FAILED
    if newest := report.get("scsi_self_test_0"):
        return _at(newest, "result", "value") in _SCSI_TEST_FAILED
    return None


def _text(report: Json, name: str) -> str | None:
    return " ".join(str(report.get(name) or "").split()) or None


def _at(value: Any, *keys: str) -> Any:
    """Return the value at the end of these keys; None if one of them is missing."""
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
