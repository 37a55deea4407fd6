"""The status in a browser, as a tired person, a phone and a screen reader see it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from poledata.models import (
    DiskState,
    Pause,
    Pending,
)
from poledata.notices.kinds import KINDS
from poledata.status import html
from poledata.status.facts import BufferStatus, DiskStatus, Status
from poledata.status.html import Column, Point, Trends
from poledata.status.text import SUBJECT_CHARACTERS, as_text
from tests.helpers.hostile_page import EVIL, HOSTILE, HOSTILE_TRENDS
from tests.helpers.sample_page import SAMPLE, TRENDS
from tests.helpers.sample_status import AT, STATUS, disk, judged


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skips = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skips += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skips -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._skips else data

    def counted(self) -> dict[str, int]:
        names = [tag for tag, _ in self.tags]
        return {name: names.count(name) for name in names}

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def made(status: Status, shown: Trends = TRENDS) -> Page:
    return Page(html.render(status, shown, full_percent=80))


def plain(text: str) -> str:
    return " ".join(text.split())


# --- what stands there -----------------------------------------------------------------------


def test_the_first_words_are_the_verdict_with_its_reason() -> None:
    """In the title, and in the one first heading, with every further reason below it."""
    assert made(STATUS).words.startswith(
        "ALL WELL: the telescope's archive, 2026-11-23 12:00 UTC OLD:"
    )
    said = made(judged(replace(SAMPLE, lacking_copies=7)))
    assert said.counted()["h1"] == 1
    assert (
        "LOOK TODAY: P07: a number of the drive is not as it should be (smart-warning) "
        "Made 2026-11-23 12:00 UTC. 7 copies are damaged or missing: data_manager.py repair "
        "What to do" in said.words
    )


def test_what_the_screen_says_stands_on_the_page() -> None:
    """Every line of ``status``, but for what is drawn instead of written."""
    status = judged(replace(SAMPLE, pause=Pause(AT, "the rack is open", None)))
    words = made(status).words
    for line in as_text(status).splitlines():
        text = line[SUBJECT_CHARACTERS:] if re.match(r"[A-Z][a-z]+ |  {9}", line) else line
        text = re.sub(r"^  \d\. ", "", text)  # a numbered list numbers its items itself
        text = re.sub(r"^(P07|S06)  (\w+)  \[[#-]+\] ", "", text)
        if not line.startswith("Archive ") and not re.match(r"[A-Z ]+: | +and |WARNING", line):
            assert plain(text) in words
    assert (
        "Paused since 11:30 UTC (30 min ago), until somebody runs: data_manager.py resume: "
        "the rack is open" in words
    )
    assert "/var/lib/pole-data/pole.sqlite (/opt/spt/spt.config)" in words


def test_an_open_notice_says_what_is_safe_and_what_to_do() -> None:
    """In the words of its kind, beside its own."""
    words = made(SAMPLE).words
    (notice,) = SAMPLE.notices
    kind = KINDS["smart-warning"]
    for text in (notice.text, kind.safe, *kind.steps, "Since 2026-11-22 16:00 UTC (20 h ago)."):
        assert plain(text) in words
    assert "No open notice." in made(STATUS).words and "No open notice." not in words


def test_of_what_is_long_the_page_shows_a_part_and_says_so() -> None:
    """Twenty notices, ten files."""
    (notice,) = SAMPLE.notices
    many = judged(
        replace(
            SAMPLE,
            notices=tuple(replace(notice, key=f"N{number:02}") for number in range(23)),
            pending=tuple(
                Pending(f"{number:02}.g3", 3, AT, AT, "why", "copy-failed", None)
                for number in range(14)
            ),
        )
    )
    words = made(many).words
    assert "WARNING smart-warning N19 " in words and "N20" not in words
    assert "… and 3 more notices (data_manager.py status --json lists all)." in words
    assert "14 files failed so far; they stay in the buffer 00.g3: why (tried 3 times" in words
    assert "09.g3" in words and "10.g3" not in words
    assert "… and 4 more (data_manager.py status --json lists all)" in words


def test_a_disk_of_an_array_says_in_words_what_its_bar_shows() -> None:
    """Each with what is wrong with it; a closed disk on the shelf is as it should be."""
    words = made(SAMPLE).words
    for said in (
        "P01, serial ZP01: closed, 100 % full, on the shelf",
        "P07, serial ZP07: in use, 37 % full, warning",
        "P08, serial ZP08: spare",
        "S12, serial ZS12: spare, held",
        "S28, serial ZS28: spare, not here",
    ):
        assert said in words
    assert made(SAMPLE).counted()["li"] >= 70
    gone = replace(SAMPLE, disks=(DiskStatus(disk("P01", DiskState.SHIPPED), False),))
    assert "Primary array No disk. Copy array No disk." in made(gone).words


def test_a_buffer_that_cannot_be_read_is_said() -> None:
    """Instead of its bar."""
    words = made(replace(SAMPLE, buffer=BufferStatus(fault="Stale file handle"))).words
    assert "Buffer CAN'T BE READ: Stale file handle" in words


# --- hostile texts ---------------------------------------------------------------------------


def test_no_text_becomes_a_part_of_the_page() -> None:
    """Names, texts, serials, reasons from anywhere: they are shown, letter by letter."""
    harmless = made(HOSTILE, HOSTILE_TRENDS)
    assert harmless.counted()["script"] == 1
    assert "img" not in harmless.counted()
    assert not any(name.startswith("on") for _, attrs in harmless.tags for name in attrs)
    assert harmless.text.count(EVIL) >= 12
    assert "49" not in harmless.text.replace(EVIL, "")


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No address anywhere; and the page's own policy forbids what is not in it."""
    text = html.render(SAMPLE, TRENDS, full_percent=80)
    for tag, attrs in Page(text).tags:
        assert not {"src", "href", "srcset", "action", "data", "background"} & attrs.keys(), tag
    assert not re.search(r"url\(|@import|https?:|//", text)
    assert "default-src 'none'" in text


# --- pictures --------------------------------------------------------------------------------


def test_the_highest_column_is_as_high_as_the_picture() -> None:
    """The others in proportion; without anything all are flat."""
    assert html.columns([5, 0, 10]) == (
        Column(0, 50.0, 8, 50.0),
        Column(10, 100.0, 8, 0.0),
        Column(20, 0.0, 8, 100.0),
    )
    assert [column.height for column in html.columns([0, 0])] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(0, 4), (10, 8), (40, 6)], "0.0,100.0 50.0,0.0 200.0,50.0"),
        ([(7, 3), (9, 3)], "0.0,100.0 200.0,100.0"),
        ([(7, 3)], "0.0,100.0 200.0,100.0"),
    ],
)
def test_a_curve_goes_from_its_lowest_value_to_its_highest(
    points: list[tuple[float, int]], line: str
) -> None:
    """Times as far apart as they were; a number that never changed is a line at the bottom."""
    assert html.curve([Point(at_s * 4, value) for at_s, value in points]) == line
