"""``explain`` prints the operators' page by its headings."""

from __future__ import annotations

import pytest

from poledata.errors import UsageFault
from poledata.notices.explain import explain
from poledata.notices.kinds import KINDS
from tests.helpers.documents import OPERATORS, section
from tests.helpers.world import REPO


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_explained_by_its_section_of_the_page(kind: str) -> None:
    """The heading, everything under it, and how to type its commands."""
    text = section(OPERATORS, f"## {kind}").strip()
    alias = "alias dm='sudo venv/bin/python data_manager.py --config spt.config'"
    ending = f"\n\nFirst, in /opt/spt: {alias}" if "`dm" in text else ""
    assert explain(kind) == f"## {kind}\n\n{text}{ending}"


def test_other_headings_are_found_as_links_name_them_and_as_they_read() -> None:
    """The steps of a kind send people there; headings below are part of one."""
    assert explain("a-dead-drive") == explain("A dead drive")
    assert explain("a-dead-drive").startswith("### A dead drive\n\n1. ")
    assert "### A dead drive" in explain("changing-disks")
    assert "## The year" not in explain("changing-disks")


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    """All kinds, and the other headings."""
    with pytest.raises(UsageFault) as refusal:
        explain("disk-gone")
    first, kinds, topics = str(refusal.value).split("\n")
    assert first == "disk-gone: there is no such kind of notice. Nothing was changed."
    assert kinds == f"Kinds: {', '.join(sorted(KINDS))}."
    assert topics.startswith("Other topics: the-picture, the-daily-look, ")


def test_the_page_of_the_package_is_the_one_in_docs() -> None:
    """A link, so that there is one text, also where the package is installed."""
    assert (REPO / "poledata/notices/operators.md").read_text() == OPERATORS
