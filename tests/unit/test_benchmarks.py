"""What `make bench` measures with, and the page that it writes. Nothing here asserts a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.disks import MB, MIB
from benchmarks.report import Goal, Section
from benchmarks.workloads import workloads

SECTION = Section(
    "key",
    "A title",
    ("way", "seconds"),
    [("this", "1.0")],
    [Goal("a", "≤ 2", "1.0", True)],
    ["How."],
)
PAGE = "\n".join(
    f"before\n{report.BEGIN.format(n)}\nold\n{report.END}" for n in ("goals", "tables")
)


def test_the_page_shows_what_was_measured_last() -> None:
    """Who edits results.json or the page by hand makes them differ."""
    page, kept = report.PAGE.read_text(), report.load()
    order = [key for key in measured_keys() if key in kept]
    assert report.rendered(page, [kept[key] for key in order]) == page
    assert kept.keys() <= set(order)


def measured_keys() -> list[str]:
    return [*workloads(False), "idle", "scan", "memory", "verify"]


def test_a_section_replaces_the_one_before(tmp_path: Path) -> None:
    """On the page, and in the file that keeps it."""
    path = tmp_path / "results.json"
    report.keep(SECTION, path)
    report.keep(SECTION, path)
    (section,) = report.load(path).values()
    page = report.rendered(report.rendered(PAGE, [section]), [section])
    assert page.count("| a | ≤ 2 | 1.0 | yes |") == 1
    assert (
        page.count("### A title\n\n| way | seconds |\n| --- | --- |\n| this | 1.0 |\n\nHow.") == 1
    )
    assert "old" not in page and page.count("before") == 2


def test_a_page_without_its_marks_is_no_page() -> None:
    """Rather than writing nowhere."""
    with pytest.raises(ValueError, match="has no line <!-- goals: written by make bench -->"):
        report.rendered("", [SECTION])


def test_the_limit_is_that_of_the_slower_of_bytes_and_operations() -> None:
    """Both disks at once, written and read back; or what the processors need to hash it thrice."""
    kinds = workloads(False)
    assert kinds["large"].limit_s(1) == 2 * 8 * 128 * MIB / (200 * MB)
    assert kinds["small"].limit_s(1) == 2 * 1000 / 200
    assert kinds["large-free"].limit_s(MIB) == 3 * 8 * 128
