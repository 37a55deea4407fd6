"""The recipes of CONTRIBUTING.md, followed to the letter in a copy: its own tests pass then."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.documents import section
from tests.helpers.world import CRON_ENVIRONMENT, REPO

CONTRIBUTING = (REPO / "CONTRIBUTING.md").read_text()
RECIPES = {
    heading: section(CONTRIBUTING, f"### {heading}")
    for heading in re.findall("^### (A new .*)$", CONTRIBUTING, re.MULTILINE)
}
# "In `file`, above `line`: why", and the lines that go there.
STEP = re.compile(
    r"^\d\. In `([\w./]+)`, (above|in place of) `(.+)`: [^\n]*\n(?:   \S[^\n]*\n)*\n"
    r"((?:       [^\n]*\n|\n)+)",
    re.MULTILINE,
)
SKIPPED = ("__pycache__", ".git", ".venv", ".*_cache", ".hypothesis", "demo", "*.egg-info", "venv")
# The docs agree with the code in both directions: what a recipe leaves out, these tests miss.
CHECKS = ("tests/unit/test_docs.py", "tests/unit/test_config.py", "-k", "docs or example")


def test_who_follows_the_recipes_gets_what_works(tmp_path: Path) -> None:
    """All of them in one copy of the project: commands, keys, kinds and documents agree."""
    copy = tmp_path / "copy"
    shutil.copytree(REPO, copy, symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED))
    for recipe in RECIPES.values():
        steps = STEP.findall(recipe)
        assert len(steps) + ("`make reference`" in recipe) >= 3
        for file, how, place, lines in steps:
            put(copy / file, how, place, re.sub(r"^       ", "", lines, flags=re.MULTILINE))
    run_in(copy, "-m", "tests.helpers.reference")  # make reference
    run_in(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHECKS)


def run_in(copy: Path, *args: str) -> None:
    ran = subprocess.run(
        [sys.executable, *args],
        cwd=copy,
        env={**CRON_ENVIRONMENT, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr


def put(path: Path, how: str, place: str, lines: str) -> None:
    """Above the first line that begins with ``place``, or in its place; indented as it is."""
    text = path.read_text()
    found = re.search(rf"^{re.escape(place)}.*\n", text, re.MULTILINE)
    assert found, f"{path.name} has no line that begins with: {place}"
    indent = " " * (len(place) - len(place.lstrip()))
    block = "".join(
        f"{indent}{line}".rstrip() + "\n" for line in lines.removesuffix("\n").split("\n")
    )
    path.write_text(
        text[: found.start()] + block + text[found.start() if how == "above" else found.end() :]
    )


@pytest.mark.parametrize("heading", RECIPES)
def test_what_a_recipe_names_exists(heading: str) -> None:
    """Files, and functions of the product that are to be called."""
    text = RECIPES[heading]
    for path in re.findall(r"`((?:poledata|tests|docs)/[\w./]+\.(?:py|md))`", text):
        assert (REPO / path).is_file(), path
    store = (REPO / "poledata/notices/findings.py").read_text()
    for name in re.findall(r"context\.findings\.(\w+)\(", text):
        assert f"    def {name}(" in store, name


def test_there_are_recipes_for_a_first_change() -> None:
    assert len(RECIPES) == 3
