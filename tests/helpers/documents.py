"""The sections, tables and commands of the documents."""

from __future__ import annotations

import re

from tests.helpers.world import REPO

REFERENCE = (REPO / "docs/reference.md").read_text()
OPERATORS = (REPO / "docs/operators.md").read_text()
MARKED = re.compile(r"^<!-- runs -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = re.match("#+", heading)
    assert level and f"\n{heading}\n" in text, f"there is no section {heading}"
    after = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level[0])}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text, but for heads and rules."""
    lines = text.splitlines()
    tables = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    heads = [i for i, cells in enumerate(tables) if set("".join(cells)) <= set("- |")]
    skip = {*heads, *(i - 1 for i in heads)}
    return [[c.strip() for c in cells] for i, cells in enumerate(tables) if i not in skip]


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def first_codes(text: str) -> list[str]:
    """What the first cells of a text's tables name."""
    return [code for row in rows(text) for code in codes(row[0])]
