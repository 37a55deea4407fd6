"""Judge drives by one table of conditions, compared with earlier checks (pure).

smartctl's exit status alone is no condition: a dead drive gives 0, one without SMART passes.
A drive is healthy only if it has SMART, reports that it passes, and no row of the table holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from poledata.formatting import DAY_S, seconds
from poledata.models import DiskState, Health, SmartCheck
from poledata.smart.report import SelfReport

ASLEEP_TOO_LONG_S = 7 * DAY_S

WARNING, FAILING = Health.WARNING, Health.FAILING


@dataclass(frozen=True, slots=True)
class Condition:
    """One row: when a number of a drive is a reason for a verdict."""

    number: str
    words: str  # "{change}" becomes "3 → 8", or "8" if it never was lower
    source: str  # what defines the number, or gives it its weight
    warning_from: int | None = None
    failing_from: int | None = None
    grown: Health | None = None  # above the lowest that was ever seen: until it is acked
    newly: Health | None = None  # above what the last check saw: reported once
    grown_twice: Health | None = None  # in this check and in the last one
    per_day: int | None = None  # a warning if it grew by so many since the last check
    limits: tuple[str, str] | None = None  # a warning from the first, or below the second number

    @property
    def subject(self) -> str:
        """Return the words without the number: ``pending sectors (197)``."""
        return self.words.partition(": {change}")[0]


# The limits are starting values. A warning that stays until it is acknowledged compares with the
# lowest value since, so that a number which grew last month is not forgotten today.
_STATUS = "smartctl(8), return values: bits 3 to 5"
_OWN = f"{_STATUS}; SPC-5, additional sense codes; NVMe 1.4, critical warning"
_TESTS = "ACS-4, SMART self-test log; SPC-5, self-test results; NVMe 1.4, device self-test"
_STUDY = "Backblaze, hard drive SMART stats: 5, 187, 188, 197, 198 go before failures"
_MAKER = "smartctl(8), -A: the maker's own count"
_ERRORS = "SPC-5, error counter and defect log pages; ACS-4, error log"
_NVME = "NVMe 1.4, SMART / health information log"
_LINK = "SATA 3.3, phy event counters; SPL-4, phy log page"
_TESTED = "self-tests failed, and no extended one has passed since: {change}"
_198 = "uncorrectable sectors (198): {change}"
_187 = "uncorrectable errors (187): {change}"
CONDITIONS = (
    Condition("says_failing", "it says itself that it is failing", _OWN, failing_from=1),
    Condition("says_warning", "its own warning", _OWN, 1),
    Condition("attributes_failing", "attributes at their threshold: {change}", _STATUS, None, 1),
    Condition("attributes_failed_once", "attributes that once failed: {change}", _STATUS,
              newly=WARNING),
    # only an extended test reads the whole drive
    Condition("self_test_failed", _TESTED, _TESTS, failing_from=1),
    # ATA, with the attribute's number
    Condition("pending", "pending sectors (197): {change}", _STUDY, 1, 16, grown_twice=FAILING),
    Condition("offline_uncorrectable", _198, _STUDY, 1, 16, grown_twice=FAILING),
    Condition("reallocated", "reallocated sectors (5): {change}", _STUDY, 1, 70),
    Condition("reported_uncorrectable", _187, _STUDY, 1, grown=FAILING),
    Condition("end_to_end", "end-to-end errors (184): {change}", _MAKER, 1, grown=FAILING),
    Condition("spin_retries", "spin retries (10): {change}", _MAKER, 1),
    Condition("command_timeouts", "command timeouts (188): {change}", _STUDY, grown=WARNING),
    Condition("interface_errors", "cable or slot: errors (199): {change}", _MAKER, grown=WARNING),
    Condition("logged_errors", "errors in its log: {change}", _ERRORS, grown=WARNING),
    # SCSI
    Condition("grown_defects", "grown defects: {change}", _ERRORS, 1, 50),
    Condition("uncorrected_errors", "uncorrected errors: {change}", _ERRORS, 1, grown=FAILING),
    Condition("reassignments_failed", "sectors it could not replace: {change}",
              "SBC-4, background scan log page", failing_from=1),
    Condition("non_medium_errors", "non-medium errors: {change}", _ERRORS, per_day=10),
    # NVMe
    Condition("media_errors", "media errors: {change}", _NVME, 1, grown=FAILING),
    Condition("spare_too_low", "its spare blocks are used up", _NVME, failing_from=1),
    Condition("used_percent", "percent of its life used: {change}", _NVME, 90),
    Condition("worn_out", "it is worn out; nothing else is wrong", _NVME, 1),
    # every kind
    Condition("pending_defects", "pending defects: {change}",
              "ACS-4 and SBC-4, pending defects log", 1, 16, grown_twice=FAILING),
    Condition("phy_errors", "cable or slot: errors of the link: {change}", _LINK, per_day=10),
    Condition("temperature_c", "temperature in °C: {change}",
              "ACS-4, SCT status; SPC-5, temperature log page; NVMe 1.4, WCTEMP",
              limits=("hot_from_c", "cold_below_c")),
    Condition("too_hot", "hotter than its own limit", _NVME, 1),
)  # fmt: skip
# They are no counters: they may fall unreported, and are not kept if a report lacks them.
_NO_COUNTERS = ("temperature_c", "hot_from_c", "cold_below_c", "too_hot", "used_percent")
_OWN_VERDICT = ("says_failing", "says_warning")  # that alone is not enough to be healthy
_SECTORS = ("reallocated", "grown_defects")
_CHANGE_BY_THEMSELVES = ("temperature_c", "hot_from_c", "cold_below_c")


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

    @property
    def known(self) -> dict[str, int]:
        return self.answers[0].known if self.answers else {}

    def goes_on_failing(self, name: str, now: int) -> bool:
        """True if a number was failing, and has neither fallen since nor been acknowledged."""
        was_failing = bool(self.answers) and name in self.answers[0].failing
        return was_failing and now >= self.numbers[name] and now > self.known.get(name, 0)

    def days(self, now_s: float) -> float:
        """Return how long ago the last numbers were read, at least a day."""
        at_s = seconds(self.answers[0].at) if self.answers else now_s
        return max(1.0, (now_s - at_s) / DAY_S)


@dataclass(frozen=True, slots=True)
class DriveVerdict:
    """The result of a check, the most serious reason first."""

    health: Health
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # good to know, but no reason for the verdict
    value: float = 0  # the sum of the numbers behind the reasons that nobody acknowledged
    numbers: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)  # what a person has acknowledged
    failing: tuple[str, ...] = ()  # the numbers behind the reasons to call it failing
    is_old_news: bool = False  # one replaced sector, as at the first check: it is reported once
    is_repeated: bool = False  # unknown, as at the last check


def judge(report: SelfReport, past: Past, now_s: float) -> DriveVerdict:
    """Return the verdict on a drive that was found and queried."""
    if report.is_asleep:
        return _asleep(past, now_s)
    if not set(report.numbers) - set(_NO_COUNTERS):
        return _without_numbers(report, past)
    numbers = _with_missing(report.numbers, past)
    held = list(_held(numbers, past, report.details, now_s))
    known = lowest_of(past.known, numbers)
    worst = [one for one in held if one.health is FAILING]
    milder = [one for one in held if one.health is WARNING and not one.is_known(known)]
    has_counters = set(report.numbers) - set(_NO_COUNTERS) - set(_OWN_VERDICT)
    gives_health = report.is_supported and report.passed is not None and has_counters
    if not (worst or milder or gives_health or report.is_off):
        return _unknown(report, past)
    reasons = (*worst, *milder)
    return DriveVerdict(
        FAILING if worst else WARNING if milder else Health.HEALTHY,
        tuple(one.words for one in reasons),
        tuple(_notes(report, held, known, numbers, past)),
        sum(one.number for one in reasons if not one.is_known(known)),
        numbers,
        known,
        tuple(one.row.number for one in worst),
        is_old_news=all(one.is_one_old_sector(past) for one in reasons),
    )


def _without_numbers(report: SelfReport, past: Past) -> DriveVerdict:
    if report.is_off:
        return DriveVerdict(Health.UNSUPPORTED, (f"SMART is switched off; {_switch_on(report)}",))
    if report.is_supported is False:
        return DriveVerdict(Health.UNSUPPORTED, ("it has no SMART",))
    return _unknown(report, past)


def _unknown(report: SelfReport, past: Past) -> DriveVerdict:
    why = report.says or "it gives no health report"
    return unknown(why, past, is_present=not report.is_silent)


def _switch_on(report: SelfReport) -> str:
    return f"to switch it on: smartctl -s on {report.device}"


def news(label: str, checks: Sequence[SmartCheck], since: str) -> str | None:
    """Return what changed on a drive since then, in one line; None if nothing did."""
    found: dict[str, Change] = {}
    for change in changes(checks):
        if change.at >= since and change.old is not None:
            old = found[change.what].old if change.what in found else change.old
            found[change.what] = replace(change, old=old)
    texts = [f"{c.what} {c.old} → {c.new}" for c in found.values() if c.old != c.new]
    return f"{label}: {', '.join(texts)}" if texts else None


def _with_missing(numbers: dict[str, int], past: Past) -> dict[str, int]:
    """Return the numbers; those that this report lacks are as they last were.

    A failed self-test counts until an extended one passes, also when newer tests have pushed it
    out of the drive's log.
    """
    kept = {n: number for n, number in past.numbers.items() if n not in _NO_COUNTERS} | numbers
    failed, passed = "self_test_failed", "extended_passed_at_h"
    if past.numbers.get(failed, 0) > kept.get(failed, 0) and (
        kept.get(passed) == past.numbers.get(passed)
    ):
        kept[failed] = past.numbers[failed]
    return kept


def _notes(
    report: SelfReport,
    held: Iterable[_Reason],
    known: dict[str, int],
    numbers: dict[str, int],
    past: Past,
) -> Iterator[str]:
    if report.is_off:
        yield (
            "it does not watch itself (exceptions control is off), so its counters are judged; "
            + _switch_on(report)
        )
    for one in held:
        if one.health is WARNING and one.is_known(known):
            yield f"known: {one.words}"
    yield from _drops(numbers, past)


def unknown(why: str, past: Past, is_present: bool = True) -> DriveVerdict:
    """Return the verdict on a drive that gives no health data; one that is present is not missing.

    One that does not respond at all counts as missing the second time in a row.
    """
    again = past.last is not None and past.last.health in (Health.UNKNOWN, Health.MISSING)
    if is_present:
        why = f"present, but gives no health data: {why}"
        return DriveVerdict(Health.UNKNOWN, (why,), is_repeated=again)
    return DriveVerdict(Health.MISSING if again else Health.UNKNOWN, (why,))


def absent(state: DiskState) -> DriveVerdict:
    """A drive that was not found: only one in use is missing."""
    if state is DiskState.ACTIVE:
        return DriveVerdict(Health.MISSING, ("no drive here has this serial and logical ID",))
    why = "on the shelf" if state is DiskState.CLOSED else "not here: not counted as spare"
    return DriveVerdict(Health.ABSENT, (why,))


def lowest(numbers: dict[str, int], past: Past) -> dict[str, int]:
    """Return the lowest value of each number since it was acknowledged, or else ever."""
    return past.lowest | numbers | lowest_of(past.lowest, numbers)


def lowest_of(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Return the lower value of the numbers that are in both."""
    return {name: min(one[name], other[name]) for name in one.keys() & other.keys()}


def steady(numbers: dict[str, int]) -> dict[str, int]:
    """Return the numbers without those that change by themselves."""
    return {name: number for name, number in numbers.items() if name not in _CHANGE_BY_THEMSELVES}


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


@dataclass(frozen=True, slots=True)
class _Reason:
    """A row that holds: how serious, in words, and the number behind it."""

    row: Condition
    health: Health
    words: str
    number: int

    def is_known(self, known: dict[str, int]) -> bool:
        return self.number <= known.get(self.row.number, 0)

    def is_one_old_sector(self, past: Past) -> bool:
        was = past.lowest.get(self.row.number, self.number)
        return self.row.number in _SECTORS and was == self.number == 1


def _held(
    numbers: dict[str, int], past: Past, details: dict[str, str], now_s: float
) -> Iterator[_Reason]:
    for row in CONDITIONS:
        if row.number not in numbers:
            continue
        healths = tuple(_found(row, numbers, past, now_s))
        if health := next((h for h in (FAILING, WARNING) if h in healths), None):
            words = _in_words(row, numbers, past)
            if detail := details.get(row.number):
                words = f"{words} ({detail})"
            yield _Reason(row, health, words, numbers[row.number])


def _found(
    row: Condition, numbers: dict[str, int], past: Past, now_s: float
) -> Iterator[Health | None]:
    now = numbers[row.number]
    was = past.numbers.get(row.number, now)
    before = past.numbers_before.get(row.number, was)
    yield FAILING if row.failing_from is not None and now >= row.failing_from else None
    yield WARNING if row.warning_from is not None and now >= row.warning_from else None
    yield row.grown if now > past.lowest.get(row.number, now) else None
    yield row.newly if now > past.numbers.get(row.number, 0) else None
    yield row.grown_twice if now > was > before else None
    yield FAILING if past.goes_on_failing(row.number, now) else None
    yield WARNING if row.per_day and now - was >= row.per_day * past.days(now_s) else None
    if row.limits:
        most, least = (numbers.get(name) for name in row.limits)
        is_out = (most is not None and now >= most) or (least is not None and now < least)
        yield WARNING if is_out else None


def _in_words(row: Condition, numbers: dict[str, int], past: Past) -> str:
    now = numbers[row.number]
    was = past.lowest.get(row.number, now)
    text = row.words.format(change=f"{was} → {now}" if was < now else f"{now}")
    for name, words in zip(row.limits or (), ("hot from", "cold below"), strict=False):
        text += f", {words} {numbers[name]}" if name in numbers else ""
    return text


def _drops(numbers: dict[str, int], past: Past) -> Iterator[str]:
    for name, was in past.numbers.items():
        if name in numbers and numbers[name] < was and name not in _NO_COUNTERS:
            yield f"{name} fell: {was} → {numbers[name]}"


def _asleep(past: Past, now_s: float) -> DriveVerdict:
    since = past.answers[0].at if past.answers else past.first_at
    if since and now_s - seconds(since) > ASLEEP_TOO_LONG_S:
        return DriveVerdict(WARNING, (f"asleep at every check since {since}",))
    return DriveVerdict(Health.ASLEEP, ("left asleep",))
