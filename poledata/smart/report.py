"""Read one answer of smartctl --json=o as plain numbers (pure).

Reading an answer never fails: a value of another type than smartctl(8) writes,
a null, a string, or 2^64 - 1 counts as not reported. The fields are those of smartctl 7.0 to 7.5,
which differ: ``temperature.drive_trip`` became ``scsi_temperature.drive_trip``, ``vendor`` and
``product`` became ``scsi_vendor`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from poledata.formatting import printable
from poledata.system import mounts

Json = Mapping[str, Any]

# Exit status of smartctl(8): bits of its own faults, and of what the drive reports.
SAYS_FAILING, PREFAIL_NOW, TEST_FAILED = 1 << 3, 1 << 4, 1 << 7
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
# ATA device statistics (ACS-4): page and offset. Used where the attributes lack a number.
_STATISTICS = {
    (3, 32): "reallocated",
    (4, 8): "reported_uncorrectable",
    (7, 8): "used_percent",
}
_STATISTIC_HOTTEST, _STATISTIC_COLDEST = (5, 88), (5, 104)
_TEMPERATURES = (190, 194)  # judged as temperatures, not as attributes
# SATA phy events that new connections cause, and those of makers (SATA 3.3)
_PHY_CONNECTS, _PHY_OF_MAKERS = (9, 10), 1 << 15
_SAS_PHY_ERRORS = (
    "invalid_dword_count",
    "running_disparity_error_count",
    "loss_of_dword_synchronization_count",
    "phy_reset_problem_count",
)
_REASSIGN_FAILED = (4, 8)  # by the disk, by a program (SBC-4, background scan results)
# Bits of NVMe's critical warning (NVM Express 1.4, 5.14.1.2).
_TOO_HOT, _UNRELIABLE = 1 << 1, 1 << 2
_NVME_WARNINGS = {
    0: "spare blocks below their threshold",
    2: "its reliability is degraded",
    3: "its media are read-only",
    4: "the backup of its volatile memory failed",
    5: "its persistent memory is unreliable",
}
# Additional sense code 0B is a warning, except of a failed self-test and of media (SPC-5).
_IS_WARNING, _WARNINGS_OF_MEDIA, _FIRST_OF_MAKERS = 0x0B, (3, 4, 5), 0x80
HOTTEST_DISK_C, HOTTEST_SOLID_STATE_C = 55, 70  # if the drive has no limit of its own
_LIMITS_C = range(30, 126)  # any other "limit" is none


@dataclass(frozen=True, slots=True)
class SelfReport:
    """The answer of one drive; ``numbers`` holds the counters that it has, by our names."""

    device: str
    serial: str | None
    logical_id: str | None
    model: str | None
    protocol: str | None  # ATA, SCSI, NVMe
    says: str  # smartctl's own faults
    is_silent: bool  # nothing came from it in time
    is_asleep: bool
    is_supported: bool | None  # None: not known
    is_off: bool  # it has SMART, but does not watch itself
    passed: bool | None
    temperature_c: int | None
    power_on_hours: int | None
    numbers: dict[str, int]
    details: dict[str, str]  # by the names of numbers: which attribute, code or test


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One entry of a drive's log; ``passed`` is None if the test did not come to a result."""

    is_extended: bool
    passed: bool | None
    at_hours: int | None
    words: str


def read_report(device: str, report: Json, exit_status: int) -> SelfReport:
    """Return the numbers of one report, of any kind of drive."""
    found = [*_numbers(report, exit_status)]
    passed = _at(report, "smart_status", "passed")
    support = report.get("smart_support")
    return SelfReport(
        device=device,
        serial=_text(report, "serial_number"),
        logical_id=logical_id(report),
        model=model(report),
        protocol=_text(report.get("device"), "protocol"),
        says=_messages(report),
        is_silent=False,
        is_asleep=exit_status == ASLEEP and "serial_number" not in report and not found,
        is_supported=_is_supported(report),
        is_off=_at(support, "available") is True and _at(support, "enabled") is False,
        passed=passed if isinstance(passed, bool) else None,
        temperature_c=_celsius(_at(report, "temperature", "current")),
        power_on_hours=_count(_at(report, "power_on_time", "hours")),
        numbers={name: number for name, number, _ in reversed(found)},  # the first one counts
        details={name: words for name, _, words in reversed(found) if words},
    )


# --- identity -----------------------------------------------------------------------------


def logical_id(report: Json) -> str | None:
    """``0x5000c500858bfea7``: the WWN, the SCSI logical unit, or an NVMe namespace's EUI-64."""
    spaces = _list(report.get("nvme_namespaces")) or [None]
    return (
        _put_together(report.get("wwn"), ("naa", 1), ("oui", 6), ("id", 9))
        or mounts.plain_wwn(_text(report, "logical_unit_id") or "")
        or _put_together(_at(spaces[0], "eui64"), ("oui", 6), ("ext_id", 10))
    )


def _put_together(value: Any, *parts: tuple[str, int]) -> str | None:
    numbers = [(_count(_at(value, name)), digits) for name, digits in parts]
    text = "".join(f"{number:0{digits}x}" for number, digits in numbers if number is not None)
    return mounts.plain_wwn(f"0x{text}")


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
    messages = _list(_at(report, "smartctl", "messages"))
    return "; ".join(filter(None, (_text(message, "string") for message in messages)))


def _is_supported(report: Json) -> bool | None:
    """smartctl reports it from 7.3 on; before, any table or log of the drive shows it."""
    support = report.get("smart_support")
    available = support if isinstance(support, bool) else _at(support, "available")
    if isinstance(available, bool):
        return available
    evidence = (
        "ata_smart_attributes",
        "nvme_smart_health_information_log",
        "scsi_error_counter_log",
        "scsi_grown_defect_list",
    )
    return True if any(name in report for name in evidence) else None


# --- numbers ------------------------------------------------------------------------------

Number = tuple[str, int, str]  # our name of it, and in words what it consists of


def _numbers(report: Json, exit_status: int) -> Iterator[Number]:
    nvme = report.get("nvme_smart_health_information_log")
    yield from _own_verdict(report, exit_status, _count(_at(nvme, "critical_warning")))
    yield from _of_nvme(nvme)
    yield from _of_ata(report, exit_status)
    yield from _of_scsi(report)
    yield from _of_links(report)
    for log in ("ata_pending_defects_log", "scsi_pending_defects"):
        yield from _if_known("pending_defects", _at(report, log, "count"))
    yield from tests_numbers(list(_self_tests(report)), _at(report, "ata_smart_self_test_log"))
    if exit_status & TEST_FAILED:  # counts only if the log itself was not read
        yield "self_test_failed", 1, "smartctl's exit status"
    yield from _temperatures(report)


def _if_known(name: str, value: Any) -> Iterator[Number]:
    if (number := _count(value)) is not None:
        yield name, number, ""


def _own_verdict(report: Json, exit_status: int, nvme_warning: int | None) -> Iterator[Number]:
    """What the drive says of its own health, in its own words."""
    passed = _at(report, "smart_status", "passed")
    scsi = _at(report, "smart_status", "scsi")
    asc, ascq = _count(_at(scsi, "asc")), _count(_at(scsi, "ascq")) or 0
    if nvme_warning is not None:
        return  # see _of_nvme: its bits mean different things
    if passed is not True and asc is not None:
        is_warning = asc >= _FIRST_OF_MAKERS or (
            asc == _IS_WARNING and ascq not in _WARNINGS_OF_MEDIA
        )
        words = f"{_text(scsi, 'ie_string') or 'no text'} [{asc:02x}/{ascq:02x}]"
        yield "says_failing", int(not is_warning), words
        yield "says_warning", int(is_warning), words
    elif passed is False or exit_status & SAYS_FAILING:
        yield "says_failing", 1, _attributes_at_threshold(report) or "SMART status: FAILED"
    elif passed is True:
        yield "says_failing", 0, ""
        yield "says_warning", 0, ""


def _attributes_at_threshold(report: Json) -> str:
    return _names(a for a in _attributes(report) if a.get("when_failed") == "now")


def _names(attributes: Iterable[Json]) -> str:
    return ", ".join(f"{a.get('id')} {_text(a, 'name') or '?'}" for a in attributes)


def _of_ata(report: Json, exit_status: int) -> Iterator[Number]:
    table = _attributes(report)
    for attribute in table:
        if name := ATA_COUNTERS.get(_count(attribute.get("id")) or 0):
            yield from _if_known(name, _raw(attribute))
    if table:
        judged = [a for a in table if a.get("id") not in _TEMPERATURES]
        now = [a for a in judged if a.get("when_failed") == "now"]
        past = [a for a in judged if a.get("when_failed") == "past"]
        is_prefail = bool(exit_status & PREFAIL_NOW)
        yield "attributes_failing", len(now) or int(is_prefail), _names(now)
        yield "attributes_failed_once", len(past), _names(past)
    log = report.get("ata_smart_error_log")
    for kind in ("extended", "summary"):
        yield from _if_known("logged_errors", _at(log, kind, "count"))
    for place, value in _statistics(report):
        if name := _STATISTICS.get(place):
            yield from _if_known(name, value)


def _attributes(report: Json) -> list[Json]:
    return [a for a in _list(_at(report, "ata_smart_attributes", "table")) if isinstance(a, dict)]


def _statistics(report: Json) -> Iterator[tuple[tuple[int, int], Any]]:
    for page in _list(_at(report, "ata_device_statistics", "pages")):
        for entry in _list(_at(page, "table")):
            number, offset = _count(_at(page, "number")), _count(_at(entry, "offset"))
            if number and offset and _at(entry, "flags", "valid") is not False:
                yield (number, offset), _at(entry, "value")


def _raw(attribute: Json) -> int | None:
    """Return the count in a raw value; makers use its other bits for other things."""
    value = _count(_at(attribute, "raw", "value"))
    if attribute.get("id") == 188:  # timeouts, and how many of them took 5 s and 7.5 s
        return None if value is None else value & 0xFFFF
    shown = re.match(r"\d+", str(_at(attribute, "raw", "string")), re.ASCII)
    return _count(shown[0]) if shown else value


def _of_scsi(report: Json) -> Iterator[Number]:
    yield from _if_known("grown_defects", _grown_defects(report))
    log = report.get("scsi_error_counter_log")
    errors = [_at(log, kind, "total_uncorrected_errors") for kind in ("read", "write", "verify")]
    if known := [number for number in map(_count, errors) if number is not None]:
        yield "uncorrected_errors", sum(known), ""
    count = _at(log, "non_medium_error", "count")  # smartctl 7.3 has it only in its text
    yield from _if_known("non_medium_errors", count)
    yield from _if_known("non_medium_errors", _in_text(report, "Non-medium error count"))
    used = report.get("scsi_percentage_used_endurance_indicator")
    yield from _if_known("used_percent", used)
    if isinstance(scan := report.get("scsi_background_scan"), dict):
        results = [_at(result, "reassign_status", "value") for result in scan.values()]
        yield "reassignments_failed", sum(result in _REASSIGN_FAILED for result in results), ""


def _grown_defects(report: Json) -> int | None:
    """The text has the right number; smartctl 7.0 and 7.1 write bytes into the JSON, 8 a defect."""
    shown, number = (
        _in_text(report, "Elements in grown defect list"),
        _count(report.get("scsi_grown_defect_list")),
    )
    version = _at(report, "smartctl", "version")
    is_old = version in ([7, 0], [7, 1]) or (version is None and "vendor" in report)
    if shown is None and number and is_old and number % 8 == 0:
        return number // 8
    return number if shown is None else shown


def _in_text(report: Json, name: str) -> int | None:
    for line in _list(_at(report, "smartctl", "output")):
        if match := re.match(rf"{name}:\s+(\d+)", str(line), re.ASCII):
            return _count(match[1])
    return None


def _of_nvme(log: Any) -> Iterator[Number]:
    warning = _count(_at(log, "critical_warning"))
    used = _count(_at(log, "percentage_used"))
    spare, threshold = (
        _count(_at(log, name)) for name in ("available_spare", "available_spare_threshold")
    )
    is_low = spare is not None and threshold is not None and spare < threshold
    if warning is not None:
        bits = warning & ~_TOO_HOT
        is_worn = bits == _UNRELIABLE and (used or 0) >= 100 and not is_low
        words = ", ".join(text for bit, text in _NVME_WARNINGS.items() if bits & 1 << bit)
        yield "says_failing", int(bool(bits) and not is_worn), words or f"{bits:#x}"
        yield "worn_out", int(is_worn), ""
        yield "too_hot", int(bool(warning & _TOO_HOT)), ""
    if spare is not None and threshold is not None:
        yield "spare_too_low", int(is_low), f"{spare} % are left, {threshold} % is the least"
    yield from _if_known("used_percent", used)
    yield from _if_known("media_errors", _at(log, "media_errors"))


def _of_links(report: Json) -> Iterator[Number]:
    """Errors between drive and controller; new connections are none."""
    events = _list(_at(report, "sata_phy_event_counters", "table"))
    ids = [(_count(_at(event, "id")) or 0, event) for event in events]
    sata = [e for id_, e in ids if id_ not in (0, *_PHY_CONNECTS) and id_ < _PHY_OF_MAKERS]
    counts = [_count(_at(event, "value")) for event in sata]
    ports = [p for name, p in report.items() if name.startswith("scsi_sas_port_")]
    phys = [phy for port in ports if isinstance(port, dict) for phy in port.values()]
    counts += [_count(_at(phy, name)) for phy in phys for name in _SAS_PHY_ERRORS]
    if known := [count for count in counts if count is not None]:
        yield "phy_errors", sum(known), ""


# --- temperature --------------------------------------------------------------------------


def _temperatures(report: Json) -> Iterator[Number]:
    now = _celsius(_at(report, "temperature", "current"))
    if now is None:
        return
    statistics = dict(_statistics(report))
    own = (
        _at(report, "temperature", "op_limit_max"),
        _at(report, "nvme_composite_temperature_threshold", "warning"),
        statistics.get(_STATISTIC_HOTTEST),
    )
    trips = (_at(report, name, "drive_trip") for name in ("scsi_temperature", "temperature"))
    is_disk = "nvme_smart_health_information_log" not in report and report.get("rotation_rate") != 0
    usual = HOTTEST_DISK_C if is_disk else HOTTEST_SOLID_STATE_C
    limits = [limit for limit in map(_celsius, own) if limit in _LIMITS_C]
    trip = [limit for limit in map(_celsius, trips) if limit in _LIMITS_C]
    hottest = limits[0] if limits else min([usual, *filter(None, trip)])
    yield "temperature_c", now, ""
    yield "hot_from_c", hottest or usual, ""
    least = (_at(report, "temperature", "op_limit_min"), statistics.get(_STATISTIC_COLDEST))
    for coldest in least:
        if isinstance(coldest, int) and -60 < coldest < _LIMITS_C[0]:
            yield "cold_below_c", coldest, ""


def _celsius(value: Any) -> int | None:
    """Return a temperature; many drives report 0 if they do not know it."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and -60 < value < 200 and value != 0 else None


# --- self-tests ---------------------------------------------------------------------------


def _self_tests(report: Json) -> Iterator[SelfTest]:
    """Yield the tests in a drive's log, the newest first; codes of ACS-4, SPC-5 and NVMe 1.4."""
    log = report.get("ata_smart_self_test_log")
    for entry in _list(_at(log, "extended", "table")) or _list(_at(log, "standard", "table")):
        passed = _at(entry, "status", "passed")
        test = _self_test(entry, ("type", "status"), (0x02, 0x82), range(3, 9), bits=4)
        yield replace(test, passed=False) if passed is False else test
    for entry in (report.get(f"scsi_self_test_{number}") for number in range(20)):
        test = _self_test(entry, ("code", "result"), (2, 6), range(3, 8))
        has_failed = test.passed and _count(_at(entry, "failed_segment", "value"))
        yield replace(test, passed=False) if has_failed else test
    for entry in _list(_at(report, "nvme_self_test_log", "table")):
        yield _self_test(entry, ("self_test_code", "self_test_result"), (2,), (5, 6, 7))


def _self_test(
    entry: Any,
    names: tuple[str, str],
    extended: Sequence[int],
    failed: Sequence[int],
    bits: int = 0,
) -> SelfTest:
    kind, result = (_count(_at(entry, name, "value")) for name in names)
    code = None if result is None else result >> bits
    hours = (
        _at(entry, "power_on_time", "hours"),
        _at(entry, "lifetime_hours"),
        _at(entry, "power_on_hours"),
    )
    return SelfTest(
        kind in extended,
        True if code == 0 else False if code in failed else None,
        next((hour for hour in map(_count, hours) if hour is not None), None),
        ": ".join(_text(_at(entry, name), "string") or "?" for name in names),
    )


def tests_numbers(tests: list[SelfTest], ata_log: Any = None) -> Iterator[Number]:
    """How many tests failed since an extended one passed, and when that was."""
    passed = next((n for n, t in enumerate(tests) if t.is_extended and t.passed), len(tests))
    failed = [test for test in tests[:passed] if test.passed is False]
    counted = _failed_by_smartctl(ata_log)
    if any(test.passed is not None for test in tests) or counted is not None:
        words = failed[0].words if failed else ""
        yield "self_test_failed", len(failed) if counted is None else counted, words
    if passed < len(tests):
        yield from _if_known("extended_passed_at_h", tests[passed].at_hours)


def _failed_by_smartctl(ata_log: Any) -> int | None:
    """smartctl itself counts how many no newer extended test has made out of date."""
    for kind in ("extended", "standard"):
        names = ("error_count_total", "error_count_outdated")
        total, outdated = (_count(_at(ata_log, kind, name)) for name in names)
        if total is not None and outdated is not None:
            return max(0, total - outdated)
    return None


# --- values -------------------------------------------------------------------------------


def _count(value: Any) -> int | None:
    """Return what a drive may have counted; None for all other values, and for "not known"."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 1 << 63 and value != (1 << 32) - 1 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(report: Any, name: str) -> str | None:
    value = _at(report, name)
    if not isinstance(value, str | int):
        return None
    return printable(" ".join(str(value).split())) or None


def _at(value: Any, *keys: str) -> Any:
    """Return the value at the end of these keys; None if one of them is missing."""
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
