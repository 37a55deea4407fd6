"""The status in a browser, as a tired person, a phone and a screen reader see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from poledata.models import (
    Notice,
    Severity,
)
from tests.helpers import browser
from tests.helpers.browser import Browser
from tests.helpers.hostile_page import EVIL, HOSTILE, HOSTILE_TRENDS
from tests.helpers.sample_page import DAYS, SAMPLE, write
from tests.helpers.sample_status import AT, STATUS, judged

# --- in a real browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = browser.program()
    if binary is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    with browser.running(binary, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "status.html"


AGE = "document.getElementById('age').textContent"
SHOWN_OLD = "document.getElementById('old').checkVisibility()"
STRUCK = "getComputedStyle(document.querySelector('h1')).textDecorationLine"


@pytest.mark.parametrize(
    ("ago_s", "age", "is_old"),
    [
        (30, " (0 min ago)", False),
        (14 * 60 + 30, " (14 min ago)", False),
        (15 * 60 + 30, " (15 min ago)", True),
        (3 * 3600 + 30, " (3 h ago)", True),
        (49 * 3600, " (2 d ago)", True),
        (-630, " (10 min ahead of this computer's clock)", False),
        (-86_430, " (24 h ahead of this computer's clock)", True),
    ],
)
def test_a_page_that_is_old_looks_old(
    window: Browser, file: Path, ago_s: float, age: str, is_old: bool
) -> None:
    """From 15 minutes on: said on top, and the verdict is struck out."""
    window.open(write(file, made_s=time.time() - ago_s))
    assert window.run(AGE) == age
    assert window.run(SHOWN_OLD) is is_old
    assert window.run(STRUCK) == ("line-through" if is_old else "none")
    assert window.faults == []


def test_a_page_left_open_becomes_old(window: Browser, file: Path) -> None:
    """Nobody has to load it again for that."""
    window.open(write(file))
    assert window.run(SHOWN_OLD) is False
    window.run("Date.now = () => Date.parse('2099-01-01')")
    window.run("document.dispatchEvent(new Event('visibilitychange'))")
    assert window.run(SHOWN_OLD) is True


def test_without_scripts_the_time_stands_there(window: Browser, file: Path) -> None:
    """On top, below the verdict."""
    window.open(write(file, made_s=1.0), scripts=False)
    header: str = window.run("document.querySelector('header').innerText")
    assert header.split("\n\n")[1].startswith("Made 2026-11-23 12:00 UTC.")
    assert window.run(SHOWN_OLD) is False


def test_a_browser_asks_nobody_for_anything(window: Browser, file: Path) -> None:
    """One file is the page; its own script runs, and nothing is refused or complained about."""
    window.open(write(file))
    assert window.requests == [file.as_uri()]
    assert window.faults == []


def test_hostile_texts_do_nothing_in_a_browser(window: Browser, file: Path) -> None:
    """They are read as they are written; no element and no script comes of them."""
    window.open(write(file, HOSTILE, HOSTILE_TRENDS))
    assert window.run("document.title").startswith("LOOK TODAY: the telescope's archive")
    assert window.run("[document.images.length, document.scripts.length]") == [0, 1]
    assert EVIL in window.run("document.querySelector('.notice pre').textContent")
    assert (window.requests, window.faults) == ([file.as_uri()], [])


@pytest.mark.parametrize("which", ["SAMPLE", "HOSTILE"])
def test_on_a_phone_nothing_is_cut_off_or_small(window: Browser, file: Path, which: str) -> None:
    """No scrolling sideways, also with long names; no letter below 12 pixels."""
    status = SAMPLE if which == "SAMPLE" else replace(HOSTILE, db_path="/x" * 300)
    window.open(write(file, status), width=360, height=740)
    assert window.run("document.documentElement.scrollWidth") == 360
    assert window.run(SMALLEST) >= 12


SMALLEST = """Math.min(...[...document.querySelectorAll('body *')]
    .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType == 3
                                                                && n.data.trim()))
    .map(e => parseFloat(getComputedStyle(e).fontSize)))"""
# Luminance and contrast: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
CONTRAST = """(() => {
  const light = css => { const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
      const css = getComputedStyle(e).backgroundColor;
      if (!css.endsWith(', 0)')) return light(css); } return 1; };
  const seen = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
      && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()));
  return Math.min(...seen.map(e => { const a = light(getComputedStyle(e).color), b = ground(e);
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); })()"""
COLOURS = """[...new Set([...document.querySelectorAll('*')].flatMap(e => { const s =
    getComputedStyle(e); return [s.color, s.backgroundColor, s.fill, s.stroke, s.borderTopColor]; })
    .filter(c => c.startsWith('rgb')).map(c => c.match(/\\d+/g).slice(0, 3).join()))]"""


@pytest.mark.parametrize("ago_s", [0, 7200])
def test_it_needs_no_colour(window: Browser, file: Path, ago_s: int) -> None:
    """All is black, white and gray; letters stand out by 7 to 1, whatever the verdict."""
    worst = judged(replace(SAMPLE, notices=(Notice("no-disk", "copy", Severity.CRITICAL, "", AT),)))
    for status in (SAMPLE, worst, STATUS):
        window.open(write(file, status, made_s=time.time() - ago_s))
        assert window.run(CONTRAST) >= 7
        assert all(len(set(each.split(","))) == 1 for each in window.run(COLOURS))


def test_a_screen_reader_is_told_everything_in_order(window: Browser, file: Path) -> None:
    """Headings without a gap, sections with names, pictures in words; nothing without a name."""
    window.open(write(file))
    said = window.read_aloud()
    headings = [name for role, name in said if role == "heading"]
    assert headings[0].startswith("LOOK TODAY: P07")
    for name in ("What to do", "Buffer", "Archived per day", "Primary array", "Copy array"):
        assert name in headings
        assert ("region", name) in said
    levels = window.run("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert not {"image", "img", "graphics-document", "SvgRoot"} & {role for role, _ in said}
    assert ("StaticText", "P07, serial ZP07: in use, 37 % full, warning") in said
    assert window.run("document.documentElement.lang") == "en"


def test_an_old_page_is_said_aloud(window: Browser, file: Path) -> None:
    """As an alert."""
    window.open(write(file, made_s=time.time() - 7200))
    assert any(role == "alert" for role, _ in window.read_aloud())
    window.open(write(file))
    assert not any(role == "alert" for role, _ in window.read_aloud())


def test_pictures_are_as_large_as_what_they_show(window: Browser, file: Path) -> None:
    """As drawn by the browser: a disk in use that is 37 % full, a buffer at 7.3 %."""
    window.open(write(file))
    parts: Any = window.run(
        "[...document.querySelectorAll('.bar')].map(bar => Math.round(1000 * "
        "bar.querySelector('.used').getBoundingClientRect().width / "
        "bar.querySelector('.room').getBoundingClientRect().width))"
    )
    assert parts == [73, 370, 810]
    heights: Any = window.run(
        "[...document.querySelectorAll('.columns rect')].map(r => r.getBoundingClientRect().height)"
    )
    most = max(day.size_bytes for day in DAYS)
    assert [round(each / max(heights), 2) for each in heights] == [
        round(day.size_bytes / most, 2) for day in DAYS
    ]
    points = window.run("document.querySelector('.curve polyline').getAttribute('points')")
    assert points.startswith("0.0,100.0 ") and points.endswith(" 200.0,0.0")
