"""The season report: what there is of each observation, where it is, and what is confirmed."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import groupby

from poledata import db
from poledata.formatting import label_key, shown, utc

_COUNTED_NAME = re.compile(r"(\d{2,9})\.\w")
_SUMS = ("files", "size_bytes", "confirmed", "here", "shipped", "no_good_copy", "suspect")
MOST_GAPS = 20  # that are listed one by one
CopyRow = tuple[str, int, int, str | None, str, str, str]


@dataclass(slots=True)
class Observation:
    """One directory of the archive; its fields are the columns of the CSV.

    A file is confirmed if a receipt confirms a copy; otherwise it is here if a good copy is at the
    station, or shipped if all good ones have left; otherwise it has no good copy.
    """

    source: str
    observation: str
    files: int = 0
    size_bytes: int = 0
    first_at: str = ""
    last_at: str = ""
    primary_disks: str = ""
    copy_disks: str = ""
    confirmed: int = 0
    here: int = 0
    shipped: int = 0
    no_good_copy: int = 0
    suspect: int = 0  # by check-content
    gaps: str = ""


@dataclass(frozen=True, slots=True)
class Month:
    """What was observed in one month, by the files' modification times."""

    month: str
    files: int
    size_bytes: int
    confirmed: int


@dataclass(slots=True)
class SeasonReport:
    """Each observation in the order of its name, and each month."""

    observations: list[Observation] = field(default_factory=list)
    months: list[Month] = field(default_factory=list)

    @property
    def not_confirmed(self) -> int:
        return sum(one.files - one.confirmed for one in self.observations)


def season(conn: db.Connection) -> SeasonReport:
    """Return the report; files are read one by one, so that millions need little memory."""
    report = SeasonReport()
    months: dict[str, list[int]] = {}
    suspect = Counter(map(_directory, db.content.suspect_names(conn)))
    for place, rows in groupby(db.shipments.copies_by_name(conn), lambda row: _directory(row[0])):
        report.observations.append(_observation(place, rows, months))
        report.observations[-1].suspect = suspect.pop(place, 0)
    report.observations = list(_merged(report.observations))
    report.months = [Month(month, *sums) for month, sums in sorted(months.items())]
    return report


def _directory(name: str) -> str:
    return name.rpartition("/")[0]


def _merged(found: list[Observation]) -> Iterator[Observation]:
    """Yield each place once: ``a/b`` and ``a/b/c/…`` may alternate in the order of names."""
    ordered = sorted(found, key=lambda one: (one.source, one.observation))
    for _, same in groupby(ordered, lambda one: (one.source, one.observation)):
        first, *others = same
        for one in others:
            for name in _SUMS:
                setattr(first, name, getattr(first, name) + getattr(one, name))
            first.first_at = min(first.first_at, one.first_at)
            first.last_at = max(first.last_at, one.last_at)
        yield first


def _observation(place: str, rows: Iterable[CopyRow], months: dict[str, list[int]]) -> Observation:
    """Return one directory, and add its files to the sums of their months."""
    source, _, observation = place.rpartition("/")
    one = Observation(shown(source), shown(observation))
    disks: dict[str, set[str]] = {"primary": set(), "copy": set()}
    numbers: set[tuple[int, int]] = set()
    for name, copies in groupby(rows, lambda row: row[0]):
        of_file = list(copies)
        _, size_bytes, mtime_ns, *_ = of_file[0]
        at = utc(mtime_ns / 1e9)
        one.files += 1
        one.size_bytes += size_bytes
        one.first_at, one.last_at = min(one.first_at or at, at), max(one.last_at, at)
        state = _state_of_file(of_file)
        setattr(one, state, getattr(one, state) + 1)
        sums = months.setdefault(at[:7], [0, 0, 0])
        sums[:] = sums[0] + 1, sums[1] + size_bytes, sums[2] + (state == "confirmed")
        for *_, copy_state, label, role, _ in of_file:
            if copy_state == "good":
                disks[role].add(label)
        if match := _COUNTED_NAME.match(name.rpartition("/")[2]):
            numbers.add((int(match[1]), len(match[1])))
    one.primary_disks = " ".join(sorted(disks["primary"], key=label_key))
    one.copy_disks = " ".join(sorted(disks["copy"], key=label_key))
    one.gaps = gaps_text(numbers)
    return one


def _state_of_file(copies: Iterable[CopyRow]) -> str:
    """Return the field of Observation that counts this file (pure)."""
    where = {disk_state for *_, state, _, _, disk_state in copies if state == "good"} - {"lost"}
    if "received" in where:
        return "confirmed"
    return "here" if where - {"shipped"} else "shipped" if where else "no_good_copy"


def gaps_text(numbers: Iterable[tuple[int, int]]) -> str:
    """Return which of 0 … n are missing, as the names write them: ``0003 0007-0009`` (pure)."""
    known = dict(numbers)
    if not known:
        return ""
    digits, parts, expected = max(known.values()), [], 0
    for number in sorted(known):
        if number > expected:
            first, last = f"{expected:0{digits}}", f"{number - 1:0{digits}}"
            parts.append(first if first == last else f"{first}-{last}")
        expected = number + 1
    more = len(parts) - MOST_GAPS
    return " ".join(parts[:MOST_GAPS]) + (f" and {more} more" if more > 0 else "")


CSV_HEAD = ",".join(one.name for one in fields(Observation))


def as_csv(report: SeasonReport) -> str:
    """Return a row for each observation, for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [one.name for one in fields(Observation)]
    writer.writerow(names)
    writer.writerows([getattr(one, name) for name in names] for one in report.observations)
    return text.getvalue()
