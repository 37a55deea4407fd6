"""Results: kept as JSON, and shown as the tables of docs/performance.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import REPO

RESULTS = REPO / "benchmarks/results.json"
PAGE = REPO / "docs/performance.md"
BEGIN, END = "<!-- {}: written by make bench -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached, and what was."""

    what: str
    goal: str
    measured: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Section:
    """One measurement: a table, what it says of the goals, and under which conditions."""

    key: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = field(default=())


def load(path: Path = RESULTS) -> dict[str, Section]:
    """The sections that were measured last, by key."""
    if not path.exists():
        return {}
    return {key: _section(stored) for key, stored in json.loads(path.read_text()).items()}


def _section(stored: dict[str, Any]) -> Section:
    return Section(**{**stored, "goals": [Goal(**goal) for goal in stored["goals"]]})


def keep(section: Section, path: Path = RESULTS) -> None:
    """Put a section in the place of the one that was measured before."""
    sections = {**load(path), section.key: section}
    stored = {key: asdict(each) for key, each in sections.items()}
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def goals(sections: Iterable[Section]) -> str:
    rows = [
        (goal.what, goal.goal, goal.measured, "yes" if goal.is_met else "**no**")
        for section in sections
        for goal in section.goals
    ]
    return table(("what", "goal", "measured", "met"), rows)


def details(section: Section) -> str:
    return "\n\n".join((f"### {section.title}", table(section.head, section.rows), *section.notes))


def rendered(page: str, sections: Sequence[Section]) -> str:
    """The page with today's tables between its marks."""
    page = _between(page, "goals", goals(sections))
    return _between(page, "tables", "\n\n".join(details(section) for section in sections))


def _between(page: str, name: str, text: str) -> str:
    begin = BEGIN.format(name)
    if begin not in page:
        raise ValueError(f"{PAGE.name} has no line {begin}")
    pattern = re.escape(begin) + r"\n.*?" + re.escape(END)
    return re.sub(pattern, lambda _: f"{begin}\n{text}\n{END}", page, count=1, flags=re.DOTALL)


def write_page(order: Sequence[str]) -> None:
    """Put all results that are kept into docs/performance.md, in this order."""
    kept = load()
    sections = [kept[key] for key in order if key in kept]
    PAGE.write_text(rendered(PAGE.read_text(), sections))
