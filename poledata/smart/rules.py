"""Judge drives by one table of conditions, compared with earlier checks (pure).

smartctl's exit status alone is no condition: a dead drive gives 0, one without SMART passes.
A drive is healthy only if it has SMART, reports that it passes, and no row of the table holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from poledata.formatting import seconds
from poledata.models import DiskState, Health, SmartCheck
from poledata.smart.report import SelfReport

ASLEEP_TOO_LONG_S = 7 * 86_400.0

WARNING, FAILING = Health.WARNING, Health.FAILING


@dataclass(frozen=True, slots=True)
class Condition:
    """One row: when a number of a drive is a reason for a verdict."""

    number: str
    words: str  # "{change}" becomes "3 → 8", or "8" if it never was lower
    warning_from: int | None = None
    failing_from: int | None = None
    grown: Health | None = None  # above the lowest that was ever seen: until it is acked
    newly: Health | None = None  # above what the last check saw: reported once
    grown_twice: Health | None = None  # in this check and in the last one

    @property
    def subject(self) -> str:
        """Return the words without the number: ``pending sectors (197)``."""
        return self.words.partition(": {change}")[0]


# The limits are starting values. A warning that stays until it is acknowledged compares with the
# lowest value ever seen, so that a number which grew last month is not forgotten today.
CONDITIONS = (
    Condition("says_failing", "it says itself that it is failing", failing_from=1),
    Condition("attributes_failing", "attributes at their threshold: {change}", failing_from=1),
    Condition("attributes_failed_once", "attributes that once failed: {change}", newly=WARNING),
    Condition("self_test_failed", "its newest self-test failed", failing_from=1),
    # ATA, with the attribute's number
    Condition("pending", "pending sectors (197): {change}", 1, 16, grown_twice=FAILING),
    Condition(
        "offline_uncorrectable", "uncorrectable sectors (198): {change}", 1, 16, grown_twice=FAILING
    ),
    Condition("reallocated", "reallocated sectors (5): {change}", 1, 70),
    Condition("reported_uncorrectable", "uncorrectable errors (187): {change}", grown=FAILING),
    Condition("end_to_end", "end-to-end errors (184): {change}", grown=FAILING),
    Condition("spin_retries", "spin retries (10): {change}", 1),
    Condition("command_timeouts", "command timeouts (188): {change}", grown=WARNING),
    Condition("interface_errors", "cable or slot: errors (199): {change}", grown=WARNING),
    Condition("logged_errors", "errors in its log: {change}", grown=WARNING),
    # SCSI
    Condition("grown_defects", "grown defects: {change}", 1, 50),
    Condition("uncorrected_errors", "uncorrected errors: {change}", grown=FAILING),
    Condition("non_medium_errors", "non-medium errors: {change}", grown=WARNING),
    # NVMe
    Condition("media_errors", "media errors: {change}", grown=FAILING),
    Condition("spare_too_low", "its spare blocks are used up", failing_from=1),
    Condition("used_percent", "percent of its life used: {change}", 90),
    Condition("worn_out", "it is worn out; nothing else is wrong", 1),
    # every kind
    Condition("temperature_c", "temperature in °C: {change}", 55),
    Condition("too_hot", "hotter than its own limit", 1),
)
_NO_COUNTER = ("temperature_c", "used_percent")  # may fall unreported


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier checks of one drive saw."""

    last: SmartCheck | None = None  # with any result
    answers: tuple[SmartCheck, ...] = ()  # the two newest with numbers, newest first
    first_at: str | None = None

    @property
    def numbers(self) -> dict[str, int]:
        return self.answers[0].numbers if self.answers else {}

    @property
    def numbers_before(self) -> dict[str, int]:
        return self.answers[1].numbers if len(self.answers) > 1 else {}

    @property
    def lowest(self) -> dict[str, int]:
        return self.answers[0].lowest if self.answers else {}


@dataclass(frozen=True, slots=True)
class DriveVerdict:
    """The result of a check, the most serious reason first."""

    health: Health
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # good to know, but no reason for the verdict
    value: float = 0  # grows as it gets worse: the sum of the numbers behind the reasons
    numbers: dict[str, int] = field(default_factory=dict)


def judge(report: SelfReport, past: Past, now_s: float) -> DriveVerdict:
    """Return the verdict on a drive that was found and queried."""
    if report.is_asleep:
        return _asleep(past, now_s)
    numbers = _all_numbers(report)
    held = list(_held(numbers, past))
    worst = [reason for health, reason, _ in held if health is FAILING]
    milder = [reason for health, reason, _ in held if health is WARNING]
    if not worst and report.is_supported is False:
        return DriveVerdict(Health.UNSUPPORTED, ("it has no SMART, or it is switched off",))
    if not worst and not (report.is_supported and report.passed is not None):
        return unknown(report.says or "it gives no health report", past)
    return DriveVerdict(
        FAILING if worst else WARNING if milder else Health.HEALTHY,
        (*worst, *milder),
        tuple(_drops(numbers, past)),
        sum(number for _, _, number in held),
        numbers,
    )


def unknown(why: str, past: Past) -> DriveVerdict:
    """A drive that is there and reports no health: twice in a row it counts as missing."""
    again = past.last is not None and past.last.health in (Health.UNKNOWN, Health.MISSING)
    return DriveVerdict(Health.MISSING if again else Health.UNKNOWN, (why,))


def absent(state: DiskState) -> DriveVerdict:
    """A drive that was not found: only one in use is missing."""
    if state is DiskState.ACTIVE:
        return DriveVerdict(Health.MISSING, ("no drive here has this serial and logical ID",))
    why = "on the shelf" if state is DiskState.CLOSED else "not here: not counted as spare"
    return DriveVerdict(Health.ABSENT, (why,))


def lowest(numbers: dict[str, int], past: Past) -> dict[str, int]:
    """Return the lowest value of each number that was ever seen."""
    both = past.lowest | numbers
    return {name: min(both[name], past.lowest.get(name, both[name])) for name in both}


def steady(numbers: dict[str, int]) -> dict[str, int]:
    """Return the numbers without those that go up and down by themselves."""
    return {name: number for name, number in numbers.items() if name != "temperature_c"}


def counted_in(reasons: Iterable[str]) -> list[Condition]:
    """Return the rows of the table whose numbers are in these reasons."""
    texts = tuple(reasons)
    rows = (row for row in CONDITIONS if "{change}" in row.words)
    return [row for row in rows if any(text.startswith(row.subject) for text in texts)]


@dataclass(frozen=True, slots=True)
class Change:
    """A number, or the verdict (``health``), that differs from the check before."""

    at: str
    what: str
    old: int | str | None
    new: int | str


def changes(checks: Iterable[SmartCheck]) -> list[Change]:
    """Return what changed from check to check, the oldest first."""
    found: list[Change] = []
    was: dict[str, int | str] = {}
    for check in checks:
        now = {"health": check.health.value, **steady(check.numbers)}
        found += [
            Change(check.at, what, was.get(what), new)
            for what, new in now.items()
            if was.get(what) != new and (was or what == "health")
        ]
        was.update(now)
    return found


def _all_numbers(report: SelfReport) -> dict[str, int]:
    if report.temperature_c is None:
        return report.numbers
    return {**report.numbers, "temperature_c": report.temperature_c}


def _held(numbers: dict[str, int], past: Past) -> Iterator[tuple[Health, str, int]]:
    """Return every row that holds: how serious, in words, and the number behind it."""
    for row in CONDITIONS:
        if row.number not in numbers:
            continue
        healths = tuple(_found(row, numbers[row.number], past))
        if health := next((h for h in (FAILING, WARNING) if h in healths), None):
            yield health, _in_words(row, numbers, past), numbers[row.number]


def _found(row: Condition, now: int, past: Past) -> Iterator[Health | None]:
    was = past.numbers.get(row.number, now)
    before = past.numbers_before.get(row.number, was)
    yield FAILING if row.failing_from is not None and now >= row.failing_from else None
    yield WARNING if row.warning_from is not None and now >= row.warning_from else None
    yield row.grown if now > past.lowest.get(row.number, now) else None
    yield row.newly if now > past.numbers.get(row.number, 0) else None
    yield row.grown_twice if now > was > before else None


def _in_words(row: Condition, numbers: dict[str, int], past: Past) -> str:
    now = numbers[row.number]
    was = past.lowest.get(row.number, now)
    return row.words.format(change=f"{was} → {now}" if was < now else f"{now}")


def _drops(numbers: dict[str, int], past: Past) -> Iterator[str]:
    for name, was in past.numbers.items():
        if name in numbers and numbers[name] < was and name not in _NO_COUNTER:
            yield f"{name} fell: {was} → {numbers[name]}"


def _asleep(past: Past, now_s: float) -> DriveVerdict:
    since = past.answers[0].at if past.answers else past.first_at
    if since and now_s - seconds(since) > ASLEEP_TOO_LONG_S:
        return DriveVerdict(WARNING, (f"asleep at every check since {since}",))
    return DriveVerdict(Health.ASLEEP, ("left asleep",))
