"""Two weeks of a winter, with a link for six hours a day: everybody hears of everything, once.

The clock is injected, a pass every three minutes; faults open, end, get worse, come and go at
random (POLE_SEED repeats a run). Messages go to a real web server; while the link is down the
server refuses, or answers 500. The station's own pager needs no link.
"""

from __future__ import annotations

import logging
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import config, db
from poledata.cli.common import state_lines
from poledata.formatting import seconds
from poledata.models import Channel, Message, Severity
from poledata.notices import delivery_queue, send_child
from poledata.notices.kinds import KINDS
from poledata.notices.send import configured_channels
from tests.helpers.notice_board import NoticeBoard
from tests.helpers.post import Receiver, refused_port
from tests.helpers.world import World

SEED = int(os.environ.get("POLE_SEED") or random.randrange(10**9))  # read before it is guarded
START_S = seconds("2026-06-01T00:00:00Z")
PASS_S, HOUR_S, DAY_S = 180.0, 3600.0, 86_400.0
SEASON_DAYS, QUIET_DAYS = 14, 3  # afterwards nothing happens, and the link stays
ENDS_A_DAY = 6  # of what comes and goes: after 0, 1, 2, 4, 8, 16 h
OPENINGS = ("NEW", "WORSE", "BACK", "STILL OPEN")
HEAD = re.compile(
    r"(NEW|WORSE|BACK|STILL OPEN|RESOLVED)  ([A-Z]+) (\S+): "
    r"(?:(?:worse: |back: |still open: )?(\d+) )?"
)
# apprise imports all its services at once
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
Key = tuple[str, str]  # kind, what it is about


@dataclass
class Fault:
    """A condition: how long it is there, and how often a day on average."""

    kind: str
    key: str
    a_day: float
    hours: float
    flaps: bool = False  # it comes and goes at every other pass
    may_get_worse: bool = False
    until_s: float | None = None
    is_open: bool = False
    is_worse: bool = False
    was_worse: bool = False


@dataclass(frozen=True)
class Told:
    """What one message said about one condition, or about how many of a kind."""

    at_s: float
    news: str
    kind: str
    keys: tuple[str, ...]
    count: int


@dataclass
class Truth:
    """What was really so."""

    spans: dict[Key, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    worse_at_s: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))

    def opened(self, key: Key, at_s: float) -> None:
        self.spans[key].append([at_s, float("inf")])

    def ended(self, key: Key, at_s: float) -> None:
        self.spans[key][-1][1] = at_s


def faults() -> list[Fault]:
    disks = [Fault("disk-missing", f"P{n:02}", 0.1, 5) for n in range(1, 6)]
    files = [Fault("copy-failed", f"obs/{n:04}.g3", 0.1, 9) for n in range(9)]
    return [
        *disks,
        *files,
        Fault("no-disk", "copy", 0.3, 2),
        Fault("no-new-files", "archive", 0.4, 8),
        Fault("buffer-full", "buffer", 0.4, 12, may_get_worse=True),
        Fault("spares-low", "primary", 0.1, 90),
        Fault("disk-error", "S07", 0.3, 10, flaps=True),
        Fault("database-error", "database", 0.1, 0.2),
        Fault("pass-crashed", "data_manager", 0.5, 0.1),
        Fault("paused", "archive", 0.2, 4),
    ]


class Season:
    """Board, channels and link of a station, from pass to pass."""

    def __init__(self, world: World, conn: db.Connection, web: Receiver) -> None:
        urls = {"POLE_NOTIFY_URLS": web.http_url, "POLE_PAGER_COMMAND": "page"}
        self.config = config.load(world.config_path, urls)
        self.channels = configured_channels(self.config.secrets)
        self.conn, self.web, self.now_s = conn, web, START_S
        self.truth, self.random = Truth(), random.Random(SEED)
        self.dead = f"json://127.0.0.1:{refused_port()}"
        self.sent: dict[str, list[tuple[float, Message]]] = defaultdict(list)
        self.tries = 0

    @property
    def link_is_up(self) -> bool:
        """Six hours a day, four minutes earlier each day."""
        day, of_day_s = divmod(self.now_s - START_S, DAY_S)
        return day >= SEASON_DAYS or (of_day_s + 240 * day - 9 * HOUR_S) % DAY_S < 6 * HOUR_S

    def carry(self, channel: Channel, message: Message) -> str | None:
        """Really send it, over a link that may be down."""
        if channel.is_pager:
            self.sent[channel.name].append((self.now_s, message))
            return None
        self.tries += 1
        self.web.mood = "ok" if self.link_is_up else "500"
        is_refused = not self.link_is_up and self.tries % 2
        target = self.dead if is_refused else channel.target
        fault = send_child.notify(target, message.subject, message.body)
        logging.getLogger("apprise").handlers.clear()  # in a process of its own it is one
        if fault is None:
            self.sent[channel.name].append((self.now_s, message))
        return fault

    def one_pass(self, all_faults: list[Fault]) -> None:
        self.now_s += PASS_S
        board = NoticeBoard(self.conn, self.channels, clock=lambda: self.now_s)
        for fault in all_faults:
            self._live(fault)
            self._tell(board, fault)
        delivery_queue.deliver(self.config, self.conn, state_lines, self.now_s, self.carry)

    def _live(self, fault: Fault) -> None:
        if fault.until_s is not None and self.now_s >= fault.until_s:
            fault.until_s, fault.is_worse = None, False
        is_season = self.now_s < START_S + SEASON_DAYS * DAY_S
        if fault.until_s is None and is_season:
            if self.random.random() < fault.a_day * PASS_S / DAY_S:
                lasts_s = self.random.expovariate(1 / (fault.hours * HOUR_S))
                end_s = START_S + SEASON_DAYS * DAY_S
                fault.until_s = min(end_s, self.now_s + max(PASS_S, lasts_s))
                fault.is_worse = fault.may_get_worse and self.random.random() < 0.3
        elif fault.may_get_worse and not fault.is_worse and self.random.random() < 0.02:
            fault.is_worse = True

    def _tell(self, board: NoticeBoard, fault: Fault) -> None:
        key = (fault.kind, fault.key)
        is_there = fault.until_s is not None
        is_there = is_there and not (fault.flaps and self.random.random() < 0.5)
        if is_there:
            severity = Severity.CRITICAL if fault.is_worse else None
            if not fault.is_open:
                self.truth.opened(key, self.now_s)
            if fault.is_worse and not (fault.is_open and fault.was_worse):
                self.truth.worse_at_s[key].append(self.now_s)
            board.tell(fault.kind, fault.key, "It is so.", severity)
        elif fault.is_open:
            self.truth.ended(key, self.now_s)
            board.settle([fault.kind], fault.key)
        fault.is_open, fault.was_worse = is_there, fault.is_worse

    def told(self, channel: str) -> list[Told]:
        """Everything that was said through a channel, in order."""
        return [
            one
            for at_s, message in self.sent[channel]
            for part in message.body.split("\n\n")
            for one in _told(at_s, part)
        ]


def _told(at_s: float, part: str) -> Iterator[Told]:
    head = HEAD.match(part)
    if head is None:
        return
    news, _, kind, count = head.groups()
    if count is None:
        keys = (part[head.end() :].split(": ")[0],)
    else:
        keys = tuple(re.findall(r"^  (\S+) \((?:since|from) ", part, re.MULTILINE))
    yield Told(at_s, news, kind, keys, int(count or 1))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def season(world: World, web: Receiver, caplog: pytest.LogCaptureFixture) -> Iterator[Season]:
    """It is over, and all that was to be sent was sent."""
    caplog.set_level(logging.CRITICAL)
    world.generate()
    print(f"POLE_SEED={SEED}")
    with db.connect(world.db_path) as conn:
        season = Season(world, conn, web)
        all_faults = faults()
        for _ in range(int((SEASON_DAYS + QUIET_DAYS) * DAY_S / PASS_S)):
            season.one_pass(all_faults)
        yield season


def test_in_two_weeks_everything_is_told_and_nothing_too_often(season: Season) -> None:
    """None lost, none more often than the rule, the queue empty; the pager rings at once."""
    nothing_waits(season)
    for name, told in (("notify-1-json", season.told("notify-1-json")),
                       ("pager-command", season.told("pager-command"))):  # fmt: skip
        assert all(len(one.keys) == one.count for one in told), "one that is not named is not seen"
        by_key = defaultdict(list)
        for one in told:
            for about in one.keys:
                by_key[one.kind, about].append(one)
        for key, spans in season.truth.spans.items():
            if name.startswith("notify") or is_critical(season, key):
                every_span_is_told(by_key[key], spans, key)
            nothing_is_told_too_often(season, by_key[key], key)
        assert by_key.keys() <= season.truth.spans.keys()
    the_pager_rings_at_once(season)
    assert len(season.web.got) == len(season.sent["notify-1-json"])
    days = SEASON_DAYS + QUIET_DAYS
    print(
        f"{sum(map(len, season.truth.spans.values()))} times something was wrong; in {days} days "
        f"{len(season.web.got)} messages, {len(season.sent['pager-command'])} pages"
    )
    assert len(season.web.got) < 25 * SEASON_DAYS


def is_critical(season: Season, key: Key) -> bool:
    return KINDS[key[0]].severity is Severity.CRITICAL


def nothing_waits(season: Season) -> None:
    rows = season.conn.execute(
        "SELECT n.kind, n.key, d.* FROM deliveries d JOIN notices n ON n.id = d.notice_id "
        "WHERE d.end_sent_at IS NULL AND (d.channel NOT LIKE 'pager%' OR d.last_error NOT NULL)"
    ).fetchall()
    assert [dict(row) for row in rows] == []


def every_span_is_told(told: list[Told], spans: list[list[float]], key: Key) -> None:
    """It is told after it began, unless people knew it as open; and at last, that it is over."""
    for began_s, _ in spans:
        before = [one for one in told if one.at_s < began_s]
        is_known = bool(before) and before[-1].news in OPENINGS
        assert is_known or any(one.at_s >= began_s for one in told), (key, began_s)
    assert told[-1].news == "RESOLVED" and told[-1].at_s >= spans[-1][1], (key, told[-1])


def nothing_is_told_too_often(season: Season, told: list[Told], key: Key) -> None:
    """As open again only a day later, or worse, or after its end; an end only after it was open."""
    for one, then in pairwise(told):
        if one.news in OPENINGS and then.news in OPENINGS:
            is_worse = any(one.at_s < at_s <= then.at_s for at_s in season.truth.worse_at_s[key])
            assert then.at_s - one.at_s >= DAY_S or is_worse, (key, one, then)
        if one.news == then.news == "RESOLVED":
            began_s = [span[0] for span in season.truth.spans[key]]
            assert any(one.at_s - DAY_S <= at_s <= then.at_s for at_s in began_s), (key, one, then)
    ends_s = [one.at_s for one in told if one.news == "RESOLVED"]
    for end_s in ends_s:
        in_a_day = [at_s for at_s in ends_s if end_s <= at_s < end_s + DAY_S]
        assert len(in_a_day) <= ENDS_A_DAY, (key, in_a_day)


def the_pager_rings_at_once(season: Season) -> None:
    """It needs no link: the pass that finds what is critical, or has become so, pages it."""
    paged = {
        (one.kind, about, one.at_s) for one in season.told("pager-command") for about in one.keys
    }
    for key, spans in season.truth.spans.items():
        if is_critical(season, key):
            assert (*key, spans[0][0]) in paged, key
        for at_s in season.truth.worse_at_s[key]:
            assert (*key, at_s) in paged, (key, at_s)
