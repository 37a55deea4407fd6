"""The status in a browser, as a tired person, a phone and a screen reader see it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from poledata import db
from poledata.formatting import utc
from poledata.models import (
    DayDone,
    DiskState,
    FileStat,
    Health,
    HealthCheck,
    Notice,
    Pause,
    Pending,
    Severity,
    SmartCheck,
)
from poledata.notices.kinds import KINDS
from poledata.status import html
from poledata.status.facts import BufferStatus, DiskStatus, Status, Undelivered, judged
from poledata.status.html import Column, Curve, Point, Trends
from poledata.status.text import SUBJECT_CHARACTERS, as_text
from tests import browser
from tests.browser import Browser
from tests.sample_page import DAYS, SAMPLE, TRENDS, write
from tests.test_report import AT, NOON, STATUS, disk, make_db
from tests.world import World

pytestmark = pytest.mark.xdist_group("browser")  # one browser for all of them

EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&amp;{{ 7*7 }}"
HOSTILE = judged(
    replace(
        SAMPLE,
        pending=(Pending(EVIL, 3, AT, AT, EVIL, "copy-failed", FileStat(1, 2, 3, 4, 5)),),
        notices=(Notice("copy-failed", EVIL, Severity.WARNING, EVIL, AT),),
        pause=Pause(AT, EVIL, EVIL),
        undelivered=(Undelivered(EVIL, 3, 9, EVIL),),
        warnings=(EVIL,),
        db_path=EVIL,
        buffer=BufferStatus(fault=EVIL),
        disks=(
            DiskStatus(
                disk(EVIL, DiskState.ACTIVE, serial=EVIL, held_by="person", held_reason=EVIL),
                False,
                health=HealthCheck(AT, EVIL, 31),
            ),
        ),
    )
)
HOSTILE_TRENDS = Trends(
    DAYS,
    (
        html.DriveTrend(
            disk(EVIL), EVIL, AT, (EVIL,), (Curve(EVIL, (Point(NOON, 1), Point(NOON + 1, 2))),)
        ),
    ),
)


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
        "Paused since 11:30 UTC (30 min ago), until somebody says: data_manager.py resume: "
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


def test_the_last_four_weeks_are_shown_day_by_day(world: World) -> None:
    """Days without data too; what is older is left out."""
    make_db(world, "P01")
    world.leave_unchecked("its rows are made up")
    for day, size in (("2026-10-26", 1), ("2026-10-27", 2), ("2026-11-22", 3), ("2026-11-23", 4)):
        for number in range(size):
            world.sql(
                "INSERT INTO files (name, size_bytes, sha512, mtime_ns, archived_at) "
                "VALUES (?, ?, '', 0, ?)",
                f"{day}-{number}", 10, f"{day}T23:59:59Z",
            )  # fmt: skip
    with db.connect(world.db_path, read_only=True) as conn:
        days = html.collect(conn, STATUS).days
    assert len(days) == 28
    assert days[0] == DayDone("2026-10-27", 2, 20)
    assert days[-2:] == (DayDone("2026-11-22", 3, 30), DayDone("2026-11-23", 4, 40))
    assert {day.files for day in days[1:-2]} == {0}


def _checked(world: World, *checks: SmartCheck) -> tuple[html.DriveTrend, ...]:
    from poledata import db

    make_db(world, "P01")
    with db.connect(world.db_path) as conn:
        (one,) = db.disks.disks(conn)
        with db.transaction(conn):
            for check in checks:
                db.smart.add_smart_check(conn, one, check, 0, True, '{"long": "report"}')
        last = HealthCheck(checks[-1].at, checks[-1].health.value, None)
        status = replace(STATUS, disks=(DiskStatus(one, True, health=last),))
        return html.collect(conn, status).drives


def _check(days_ago: float, health: Health, reasons: tuple[str, ...], **numbers: int) -> SmartCheck:
    at = utc(NOON - days_ago * 86_400)
    return SmartCheck(at, health, 31, 1000, numbers, numbers, reasons)


def test_a_drive_that_is_not_well_shows_the_numbers_behind_its_reasons(world: World) -> None:
    """Those of the newest check, for four weeks; other numbers are nobody's concern."""
    told = ("pending sectors (197): 0 → 8", "it says itself that it is failing")
    (drive,) = _checked(
        world,
        _check(29, Health.HEALTHY, (), pending=0, reallocated=0),
        _check(2, Health.HEALTHY, (), pending=0, reallocated=0),
        _check(1, Health.UNKNOWN, ("it gives no health report",)),
        _check(0, Health.FAILING, told, pending=8, reallocated=3, says_failing=1),
    )
    assert (drive.disk.label, drive.health, drive.at) == ("P01", "failing", utc(NOON))
    assert drive.reasons == told
    days = (Point(NOON - 2 * 86_400, 0), Point(NOON, 8))
    assert drive.curves == (Curve("pending sectors (197)", days),)


@pytest.mark.parametrize("health", [Health.HEALTHY, Health.ASLEEP])
def test_a_drive_that_is_well_is_not_shown(world: World, health: Health) -> None:
    """Nor one that sleeps."""
    assert _checked(world, _check(1, health, ("left asleep",), pending=0)) == ()


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
