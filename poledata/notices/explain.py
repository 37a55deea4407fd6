"""The sections of docs/operators.md, which is installed with this package (a link to it)."""

from __future__ import annotations

import re
from pathlib import Path

from poledata.errors import UsageFault
from poledata.notices.kinds import KINDS


def explain(topic: str) -> str:
    """Return what the operators' page says about a kind of notice, or under another heading.

    ``topic`` is a kind, or a heading, also as links name it. Raises UsageFault.
    """
    page = Path(__file__).with_name("operators.md").read_text(encoding="utf-8")
    sections = _sections(page)
    if text := sections.get(_anchor(topic)):
        alias = re.search(r"alias dm=.*", page)
        return f"{text}\n\nFirst, in /opt/spt: {alias[0]}" if alias and "`dm" in text else text
    others = [name for name in sections if name not in KINDS]
    raise UsageFault(
        f"{topic}: there is no such kind of notice. Nothing was changed.\n"
        f"Kinds: {', '.join(sorted(KINDS))}.\n"
        f"Other topics: {', '.join(others)}."
    )


def _sections(page: str) -> dict[str, str]:
    """Return the text under each heading, with those below it, by the heading as links name it."""
    headings = list(re.finditer(r"^(##+) (.*)$", page, re.MULTILINE))
    found = {}
    for number, heading in enumerate(headings):
        level = len(heading[1])
        end = next((h.start() for h in headings[number + 1 :] if len(h[1]) <= level), len(page))
        found[_anchor(heading[2])] = page[heading.start() : end].strip()
    return found


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
