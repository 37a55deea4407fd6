"""Odd answers of smartctl: the check goes on, and a failing drive is failing or unknown."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poledata.models import Health
from poledata.notices import defects
from poledata.smart import rules, smartctl
from poledata.smart.rules import DriveVerdict, Past
from poledata.smart.smartctl import DrivePath, FoundDrive
from poledata.system.privileges import SmartctlAnswer
from tests.helpers.recorded_drives import REPORTS, recorded

# What shows that each of these drives is failing: all the rest of its report may be anything.
NVME = "nvme_smart_health_information_log"
EVIDENCE: dict[str, tuple[tuple[str, ...], ...]] = {
    "sata-failed": (("smart_status",),),
    "sata-prefail": (("ata_smart_attributes",),),
    "sata-test-failed": (("ata_smart_self_test_log",),),
    "sas-failed": (("smart_status",),),
    "sas-test-failed": (("scsi_self_test_0",),),
    "nvme-failing": ((NVME, "critical_warning"), (NVME, "percentage_used")),
}
ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "7", -1, 0, 3, 2**32 - 1, 2**63, 2**64 - 1, 2**64, 10**30),
    *(0.5, 1e308, float("inf"), float("nan"), [], {}, [None], [[]], {"value": None}, {"table": 1}),
    *("\x1b[31m", "\0", "\ud800", "\u202e", [{"id": [], "raw": 7}], {"passed": "false"}),
)


@pytest.fixture(autouse=True)
def no_bug() -> Iterator[None]:
    """An odd answer is no bug of this program."""
    before = list(defects.BUGS)
    yield
    assert before == defects.BUGS


def judge(output: str, exit_status: int = 0) -> tuple[FoundDrive, DriveVerdict]:
    answer = SmartctlAnswer(output, exit_status, None)
    found = smartctl._found(DrivePath("/dev/sdq"), answer)
    json.loads(found.raw, parse_constant=lambda name: pytest.fail(name))  # SQLite takes no NaN
    return found, rules.judge(found.report, Past(), 1_800_000_000.0)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, dict | list) else ():
        if isinstance(inner, dict | list):
            yield from places(inner, (*here, key))
        else:
            yield (*here, key)


def spared(place: tuple[Any, ...], evidence: tuple[tuple[str, ...], ...]) -> bool:
    return any(place[: len(e)] == e[: len(place)] for e in evidence)


def mutate(report: Any, place: tuple[Any, ...], value: Any, is_gone: bool) -> None:
    for key in place[:-1]:
        try:
            report = report[key]
        except (LookupError, TypeError):
            return  # an earlier mutation has replaced what was around it
    if isinstance(report, dict):
        report.pop(place[-1], None) if is_gone else report.update({place[-1]: value})
    elif isinstance(report, list) and place[-1] in range(len(report)):
        report[place[-1]] = value


def mutated(name: str, data: st.DataObject) -> Any:
    report = copy.deepcopy(recorded(name))
    all_places = [p for p in places(report) if not spared(p, EVIDENCE.get(name, ()))]
    for place in data.draw(st.lists(st.sampled_from(all_places), min_size=1, max_size=12)):
        mutate(report, place, data.draw(st.sampled_from(ODD)), data.draw(st.booleans()))
    return report


@pytest.mark.parametrize("name", EVIDENCE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_failing_drive_is_failing_or_unknown_with_any_other_values(
    name: str, data: st.DataObject
) -> None:
    """Also with any exit status, and without a serial number."""
    report = mutated(name, data)
    _, verdict = judge(json.dumps(report), data.draw(st.integers(0, 255)))
    assert verdict.health in (Health.FAILING, Health.UNKNOWN), verdict


@pytest.mark.parametrize("name", sorted(path.stem for path in REPORTS.glob("*.json")))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_answer_ends_the_check(name: str, data: st.DataObject) -> None:
    """Each reason can be printed, and stored."""
    _, verdict = judge(json.dumps(mutated(name, data)), data.draw(st.integers(0, 255)))
    for text in (*verdict.reasons, *verdict.notes):
        assert text.isprintable()
    json.dumps([verdict.numbers, verdict.value], allow_nan=False)


@pytest.mark.parametrize("name", EVIDENCE)
@settings(max_examples=20, deadline=None)
@given(part=st.floats(0, 1), tail=st.sampled_from(["", "\ufffd", "\0", "{}", "\n{"]))
def test_a_truncated_or_mixed_answer_is_unknown(name: str, part: float, tail: str) -> None:
    """With what was answered."""
    text = json.dumps(recorded(name))
    _, verdict = judge(text[: int(part * (len(text) - 2))] + tail)
    assert verdict.health is Health.UNKNOWN


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("", "no JSON from smartctl: 7.0 or newer is needed"),
        (
            '{"smartctl": 1} {"smartctl": 2}',
            "smartctl's answer can't be read (something follows it); it printed: {\"smartctl\": 1} "
            '{"smartctl": 2}',
        ),
        (
            "{" + '"a": {' * 100_000,
            "smartctl's answer can't be read (maximum recursion depth exceeded while decoding a "
            "JSON object from a unicode string); it printed: {" + ('"a": {' * 40)[:79],
        ),
        ('{"a": \x1b[31m', "smartctl's answer can't be read (Expecting value: line 1 column 7 "),
    ],
    ids=["nothing", "two", "deep", "a terminal's"],
)
def test_what_was_answered_is_shown(output: str, why: str) -> None:
    """No more of it than a line, and nothing that a terminal obeys."""
    _, verdict = judge(output)
    (reason,) = verdict.reasons
    assert reason.startswith(f"present, but gives no health data: {why}")
    assert len(reason) < 300 and reason.isprintable()


def test_what_is_long_and_not_judged_is_not_kept() -> None:
    """The database keeps reports for years."""
    long = {"ata_sct_temperature_history": {"table": [30] * 478}, "ata_log_directory": {}}
    found, _ = judge(json.dumps(recorded("sata-good") | long))
    kept = json.loads(found.raw)
    assert not kept.keys() & long.keys() and "output" not in kept["smartctl"]


def test_a_device_that_is_not_there_is_no_bug() -> None:
    """Its answer has no text at all."""
    found = smartctl._found(DrivePath("/dev/sdq"), SmartctlAnswer("", 0, "no answer within 30 s"))
    assert (found.raw, found.report.is_silent) == ("{}", True)
