"""What is due through a channel, and how it reads at 4 a.m."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.formatting import seconds, utc
from poledata.models import Delivery, Notice, Severity
from poledata.notices.kinds import DIGEST, KINDS
from poledata.notices.message import Item, News, compose, due, quiet_s

NOW = seconds("2026-06-21T04:00:00Z")
HOUR, DAY = 3600.0, 86_400.0
STATE = ["The archive:", "  12 files"]


def notice(
    kind: str = "disk-missing", key: str = "P03", ago_s: float = HOUR, **more: object
) -> Notice:
    text = f"nothing is mounted at /spt_disks/{key}. See {kind} in docs/operators.md."
    made = Notice(kind, key, KINDS[kind].severity, text, utc(NOW - ago_s))
    return replace(made, **more)  # type: ignore[arg-type]


def delivery(of: Notice | None = None, sent_ago_s: float | None = None, **more: object) -> Delivery:
    sent_at = None if sent_ago_s is None else utc(NOW - sent_ago_s)
    return replace(
        Delivery(of or notice(), "notify-1-mailto", 0, None, sent_at, None, None), **more
    )  # type: ignore[arg-type]


def news(of: Delivery) -> News | None:
    item = due(of, NOW, DAY)
    return item.news if item else None


# --- what is due ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (delivery(), News.NEW),
        (delivery(sent_ago_s=60), None),
        (delivery(sent_ago_s=DAY - 1), None),
        (delivery(sent_ago_s=DAY), News.STILL),
        (delivery(sent_ago_s=-2 * DAY), News.STILL),  # the clock was wrong then
        (delivery(notice(reopened=1), tried_at=utc(NOW - DAY)), News.BACK),
        (delivery(notice(reopened=1)), News.NEW),  # this channel never heard of it
        (delivery(sent_as="warning"), News.WORSE),
        (delivery(notice(reopened=1), sent_as="warning"), News.WORSE),
        (delivery(notice(resolved_at=utc(NOW)), sent_ago_s=60), News.OVER),
        (delivery(notice(resolved_at=utc(NOW))), News.OVER),  # the link was down all the while
        (delivery(notice(acked_until=utc(NOW + 1))), None),
        (delivery(notice(acked_until=utc(NOW - 1))), News.NEW),
        (delivery(notice(acked_until=utc(NOW + DAY), resolved_at=utc(NOW)), 60), News.OVER),
        (delivery(notice(DIGEST, resolved_at=utc(NOW))), News.NEW),
    ],
)
def test_a_notice_is_told_when_it_opens_daily_and_when_it_is_over(
    of: Delivery, said: News | None
) -> None:
    """An acknowledged one is silent until its time, or its end."""
    assert news(of) is said


@pytest.mark.parametrize(
    ("reopened", "away_s"),
    [(1, HOUR), (2, 2 * HOUR), (3, 4 * HOUR), (4, 8 * HOUR), (5, 16 * HOUR), (6, DAY), (60, DAY)],
)
def test_the_end_of_what_comes_and_goes_is_told_later_each_time(
    reopened: int, away_s: float
) -> None:
    """A loose cable does not send a message a minute."""
    assert quiet_s(reopened) == away_s
    gone = notice(reopened=reopened, resolved_at=utc(NOW - away_s))
    assert news(delivery(gone, sent_ago_s=DAY)) is News.OVER
    gone = replace(gone, resolved_at=utc(NOW - away_s + 1))
    assert news(delivery(gone, sent_ago_s=DAY)) is None


# --- how it reads ---------------------------------------------------------------------------


def item(of: Notice, said: News = News.NEW) -> Item:
    return Item(said, delivery(of))


def test_a_message_has_all_that_a_tired_person_needs() -> None:
    """What, where, since when, what is safe, numbered steps, the section, the archive's state."""
    sent = compose([item(notice())], STATE, NOW)
    assert sent.subject == "[pole-data] WARNING P03: the disk in use is not there"
    assert sent.body.splitlines() == [
        "NEW  WARNING disk-missing: P03: the disk in use is not there",
        "  nothing is mounted at /spt_disks/P03. See disk-missing in docs/operators.md.",
        "  since 03:00 UTC (1 h ago)",
        f"  What is safe: {KINDS['disk-missing'].safe}",
        "  What to do:",
        *(f"    {n}. {step}" for n, step in enumerate(KINDS["disk-missing"].steps, start=1)),
        "  All of it: section disk-missing in docs/operators.md",
        "",
        *STATE,
    ]


def test_an_alarm_storm_is_one_paragraph_that_counts_and_names_ten() -> None:
    """A thousand failing files, or 28 drives of a brownout."""
    items = [item(notice("copy-failed", f"d/{n:04}.g3")) for n in range(1000)]
    sent = compose(items, STATE, NOW)
    assert sent.subject == "[pole-data] WARNING 1000 files can't be archived"
    named = [line for line in sent.body.splitlines() if line.startswith("  d/")]
    assert len(named) == 10 and named[0].startswith("  d/0000.g3 (since 03:00 UTC (1 h ago)): ")
    assert "  … and 990 more: data_manager.py status --json lists all" in sent.body
    assert sent.body.count("What to do:") == 1


def test_the_gravest_news_is_the_subject_and_comes_first() -> None:
    """The rest is counted; what is over comes last."""
    items = [
        item(notice("paused", "archive"), News.OVER),
        item(notice("spares-low", "copy")),
        item(notice("no-disk", "copy")),
    ]
    sent = compose(items, STATE, NOW)
    assert (
        sent.subject == "[pole-data] CRITICAL copy: no disk of this role can take files (+2 more)"
    )
    heads = [line.split(":")[0] for line in sent.body.splitlines() if line[:1].isupper()]
    assert heads[:3] == [
        "NEW  CRITICAL no-disk",
        "NEW  WARNING spares-low",
        "RESOLVED  INFO paused",
    ]


def test_what_is_critical_is_the_subject_though_it_is_told_again() -> None:
    """The daily digest, or a disk that was closed, does not hide it."""
    key = "2026-06-21: 1 open notices, 3 files wait, 12 archived"
    items = [item(notice(DIGEST, key, text="STATUS")), item(notice("no-disk", "copy"), News.STILL)]
    sent = compose(items, STATE, NOW)
    assert sent.subject.startswith("[pole-data] CRITICAL copy: still open: no disk of this role")
    assert sent.body.startswith("STILL OPEN  CRITICAL no-disk: ") and "STATUS" in sent.body


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_many_of_a_kind_read_as_a_sentence(kind: str) -> None:
    """A number and what there are so many of; that it is no news comes first."""
    items = [item(notice(kind, key), News.STILL) for key in ("P01", "P02")]
    subject = compose(items, STATE, NOW).subject
    assert f" still open: 2 {KINDS[kind].many}" in subject
    assert KINDS[kind].many.split()[0] not in ("no", "few", "a")


def test_what_is_over_says_from_when_to_when_and_asks_for_nothing() -> None:
    """Also if it was never told while it was open."""
    gone = notice(resolved_at=utc(NOW - 60))
    sent = compose([item(gone, News.OVER)], STATE, NOW)
    assert sent.subject == "[pole-data] resolved P03: the disk in use is not there"
    assert "  from 03:00 UTC (1 h ago) to 03:59 UTC (1 min ago)" in sent.body
    assert "What to do" not in sent.body


def test_a_digest_is_its_own_subject_and_text() -> None:
    """Nothing is wrong: no steps, no safety."""
    key = "2026-06-21: 0 open notices, 3 files wait, 12 archived"
    sent = compose([item(notice(DIGEST, key, text="STATUS\nlines"))], STATE, NOW)
    assert sent.subject == f"[pole-data] INFO {key}"
    assert sent.body.startswith("STATUS\nlines\n")


@given(
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.text(min_size=1), st.sampled_from(News)))
)
def test_no_subject_is_longer_than_a_pager_shows(told: list[tuple[str, str, News]]) -> None:
    """80 characters, whatever the names, and all on one line."""
    items = [item(notice(kind, key), said) for kind, key, said in told]
    if items:
        sent = compose(items, STATE, NOW)
        assert len(sent.subject) <= 80
        assert sent.subject.startswith("[pole-data] ")
        assert len(sent.subject.splitlines()) == 1


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_fits_a_pager(kind: str) -> None:
    """Headline and label in full; every condition has a step to take."""
    sent = compose([item(notice(kind, "P03"))], STATE, NOW)
    assert "…" not in sent.subject
    assert KINDS[kind].steps or kind == DIGEST
    assert KINDS[kind].severity in Severity
