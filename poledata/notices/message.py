"""Decide what is due through a channel, and compose the message (pure).

Everything that is due goes out as one message. Its subject is a summary; its body has for each
kind what, where, since when, what is safe, what to do, and at the end the state of the archive.
"""

from __future__ import annotations

import textwrap
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from poledata.formatting import people_time, seconds, utc
from poledata.models import Channel, Delivery, Message, Notice, Severity
from poledata.notices.kinds import DIGEST, FILE_KINDS, KINDS, own_headline

SUBJECT_CHARACTERS = 80
NAMED = 10  # of many notices of one kind
PREFIX = "[pole-data]"
_KEY_CHARACTERS = 30
PAGER_CHARACTERS = 1000
_REST = "\n… the rest: data_manager.py status"
_ONE_LINE_CHARACTERS = 150  # of one among many
QUIET_FIRST_S, QUIET_LAST_S = 3600.0, 86_400.0
OF_FILES = (*FILE_KINDS, "copy-damaged", "content-suspect")  # there may be thousands of them
MOST_MESSAGES, MOST_WITHIN_S = 3, 10_800.0  # about one of these kinds within this time


class News(Enum):
    """What is new about a notice, in the order of the message."""

    NEW = "new"
    WORSE = "worse"
    BACK = "back"
    STILL = "still open"
    OVER = "resolved"


@dataclass(frozen=True, slots=True)
class Item:
    """One notice that is due through a channel."""

    news: News
    of: Delivery

    @property
    def notice(self) -> Notice:
        return self.of.notice

    def is_for(self, channel: Channel) -> bool:
        """True if it is serious enough, or the end of one that was sent or tried there."""
        was_tried = bool(self.of.sent_at or self.of.last_error)
        return channel.takes(self.notice.severity) or (self.news is News.OVER and was_tried)


def due(delivery: Delivery, now_s: float, repeat_s: float) -> Item | None:
    """Return what to send about a notice now, if anything. A time in the future counts as due."""
    notice = delivery.notice
    if notice.kind == DIGEST:
        return Item(News.NEW, delivery)
    if notice.resolved_at is not None:
        away_s = abs(now_s - seconds(notice.resolved_at))
        is_due = delivery.sent_at is None or away_s >= quiet_s(notice.reopened)
        return Item(News.OVER, delivery) if is_due else None
    if notice.acked_until and notice.acked_until > utc(now_s):
        return None
    if delivery.sent_at is None and delivery.sent_as:
        return Item(News.WORSE, delivery)
    if delivery.sent_at is None:
        was_heard_of = notice.reopened and delivery.tried_at
        return Item(News.BACK if was_heard_of else News.NEW, delivery)
    is_due = abs(now_s - seconds(delivery.sent_at)) >= repeat_s
    return Item(News.STILL, delivery) if is_due else None


def quiet_s(reopened: int) -> float:
    """Return how long to wait before a notice is sent as over: longer if it came back before."""
    return min(QUIET_FIRST_S * 2.0 ** (reopened - 1), QUIET_LAST_S) if reopened else 0.0


def without_frequent(items: Sequence[Item], frequent: Container[str]) -> tuple[Item, ...]:
    """Drop what can wait for more of its kind: if file after file fails, many messages with one
    file each would teach people to ignore them."""
    return tuple(i for i in items if i.notice.kind not in frequent or i.notice.kind not in OF_FILES)


def compose(items: Sequence[Item], state: Sequence[str], now_s: float) -> Message:
    """Return one message for all items (at least one); ``state`` are its last lines."""
    items = sorted(items, key=_rank)
    paragraphs = [
        "\n".join(_paragraph(rank[-1], list(group), now_s))
        for rank, group in groupby(items, key=_rank)
    ]
    return Message(_subject(items), "\n\n".join((*paragraphs, "\n".join(state))))


def _rank(item: Item) -> tuple[bool, int, int, str, News]:
    """Return the place of an item: the most serious first, what is over last."""
    severity, order = list(Severity).index(item.notice.severity), list(News).index(item.news)
    return item.news is News.OVER, severity, order, item.notice.kind, item.news


# --- the subject --------------------------------------------------------------------------


def _subject(items: Sequence[Item]) -> str:
    """``[pole-data] CRITICAL P03: …`` for the most serious kind, and how many more there are."""
    first = items[0]
    alike = [i for i in items if _rank(i) == _rank(first)]
    rest = len(items) - len(alike)
    more = f" (+{rest} more)" if rest else ""
    word = "resolved" if first.news is News.OVER else first.notice.severity.value.upper()
    return f"{cut_text(f'{PREFIX} {word} {_what(alike)}', SUBJECT_CHARACTERS - len(more))}{more}"


def _what(alike: Sequence[Item]) -> str:
    """Return on one line what items of one kind with the same news are about."""
    notice, news = alike[0].notice, alike[0].news
    kind, key = KINDS[notice.kind], _printable(notice.key)
    still = "" if news in (News.NEW, News.OVER) else f"{news.value}: "
    if len(alike) > 1:
        return f"{still}{len(alike)} {kind.many}"
    if kind.headline == "{key}":
        return key
    if own := own_headline(notice):
        return f"{still}{_printable(own)}"
    shown = key if len(key) <= _KEY_CHARACTERS else f"…{key[1 - _KEY_CHARACTERS :]}"
    return f"{shown}: {still}{kind.headline}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def cut_text(text: str, at_most: int) -> str:
    """Return the whole words that fit, and an ellipsis for the rest; a single word is cut."""
    if len(text) <= at_most:
        return text
    words, _, _ = text[:at_most].rpartition(" ")
    return f"{(words or text)[: at_most - 1].rstrip()}…"


def whole_lines(text: str, at_most: int) -> str:
    """Return the first lines that fit, and where the rest is: for a pager."""
    if len(text) <= at_most:
        return text
    room = text[: at_most - len(_REST)].rpartition("\n")[0]
    return f"{room}{_REST}"


# --- the body -----------------------------------------------------------------------------


def _paragraph(news: News, items: Sequence[Item], now_s: float) -> Iterator[str]:
    """Return the lines about all items of one kind with the same news."""
    notice = items[0].notice
    kind = KINDS[notice.kind]
    if notice.kind == DIGEST:
        yield notice.text
        return
    yield f"{news.value.upper()}  {notice.severity.value.upper()} {notice.kind}: {_what(items)}"
    if len(items) > 1:
        yield from _named(items, now_s)
    elif news is not News.OVER:
        yield textwrap.indent(notice.text, "  ")
    if len(items) == 1:
        yield f"  {_when(notice, now_s)}"
    if news is News.OVER or not kind.steps:
        return
    yield f"  What is safe: {kind.safe}"
    yield "  What to do:"
    yield from (f"    {number}. {step}" for number, step in enumerate(kind.steps, start=1))
    yield f"  All of it: section {notice.kind} in docs/operators.md"


def _named(items: Sequence[Item], now_s: float) -> Iterator[str]:
    for item in items[:NAMED]:
        line = f"  {item.notice.key} ({_when(item.notice, now_s)})"
        if item.news is not News.OVER:
            line += f": {cut_text(' '.join(item.notice.text.split()), _ONE_LINE_CHARACTERS)}"
        yield line
    if len(items) > NAMED:
        yield f"  … and {len(items) - NAMED} more: data_manager.py status --json lists all"


def _when(notice: Notice, now_s: float) -> str:
    since = people_time(seconds(notice.opened_at), now_s)
    if notice.resolved_at is None:
        return f"since {since}"
    return f"from {since} to {people_time(seconds(notice.resolved_at), now_s)}"
