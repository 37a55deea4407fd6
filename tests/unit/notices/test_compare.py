"""The open notices: one a condition; what is worse is sent again, acknowledged or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.formatting import seconds, utc
from poledata.models import Channel, Delivery, Severity
from poledata.notices.kinds import DIGEST
from tests.helpers.notice_board import NoticeBoard

START = seconds("2026-06-21T04:00:00Z")
MAIL = Channel("notify-1-mailto", "mailto://x")
PAGER = Channel("pager-command", "page", is_command=True, is_pager=True)


class Clock:
    """A time that a test sets."""

    now_s = START

    def __call__(self) -> float:
        return self.now_s

    def after(self, s: float) -> str:
        self.now_s += s
        return utc(self.now_s)


@pytest.fixture
def conn() -> Iterator[db.Connection]:
    with TemporaryDirectory(dir="/dev/shm") as name:
        path = Path(name, "pole.sqlite")
        db.database_files.create(path)
        with db.connect(path) as opened:
            yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(conn: db.Connection, clock: Clock) -> NoticeBoard:
    return NoticeBoard(conn, [MAIL, PAGER], clock=clock)


def queued(conn: db.Connection, channel: Channel = MAIL) -> list[Delivery]:
    return db.notices.deliveries(conn, channel.name)


def send(conn: db.Connection, clock: Clock, channel: Channel = MAIL) -> None:
    """All that is queued goes out."""
    with db.transaction(conn):
        for one in queued(conn, channel):
            db.notices.note_sent(conn, one, utc(clock()))


def test_a_notice_is_queued_for_each_channel_as_it_is_stored(
    conn: db.Connection, board: NoticeBoard
) -> None:
    """The pager gets the critical ones alone."""
    board.tell("disk-missing", "P03", "It is away.")
    board.tell("no-disk", "copy", "None.")
    assert [one.notice.kind for one in queued(conn)] == ["disk-missing", "no-disk"]
    assert [one.notice.kind for one in queued(conn, PAGER)] == ["no-disk"]


def test_one_that_opens_and_closes_between_two_sendings_stays_queued(
    conn: db.Connection, board: NoticeBoard, clock: Clock
) -> None:
    """With the satellite down a whole story may pass; it is told all the same."""
    board.tell("disk-missing", "P03", "It is away.")
    clock.after(60)
    board.settle(["disk-missing"], "P03")
    (one,) = queued(conn)
    assert (one.sent_at, one.notice.resolved_at) == (None, utc(START + 60))
    send(conn, clock)
    assert queued(conn) == []


def test_what_comes_back_within_a_day_is_the_same_notice(
    conn: db.Connection, board: NoticeBoard, clock: Clock
) -> None:
    """A channel that sent its end sends that it is back; a day later it is a new one."""
    board.tell("disk-missing", "P03", "It is away.")
    send(conn, clock)
    board.settle(["disk-missing"], "P03")
    send(conn, clock)
    clock.after(3600)
    board.tell("disk-missing", "P03", "Away again.")
    (one,) = queued(conn)
    assert (one.notice.opened_at, one.notice.reopened, one.sent_at) == (utc(START + 3600), 1, None)
    assert "Away again." in one.notice.text
    board.settle(["disk-missing"], "P03")
    clock.after(86_400)
    board.tell("disk-missing", "P03", "It is away.")
    assert [n.reopened for n in db.notices.open_notices(conn)] == [0]


def test_whose_end_was_not_told_yet_is_not_told_again(
    conn: db.Connection, board: NoticeBoard, clock: Clock
) -> None:
    """For those people it was never over."""
    board.tell("disk-missing", "P03", "It is away.")
    send(conn, clock)
    board.settle(["disk-missing"], "P03")
    board.tell("disk-missing", "P03", "It is away.")
    (one,) = queued(conn)
    assert one.sent_at == utc(START)


def test_what_gets_worse_is_due_at_once(
    conn: db.Connection, board: NoticeBoard, clock: Clock
) -> None:
    """And the pager, which was not told so far, is."""
    board.tell("buffer-full", "buffer", "81 %", value=81)
    send(conn, clock)
    board.tell("buffer-full", "buffer", "83 %", value=83)
    assert queued(conn)[0].sent_at == utc(START) and queued(conn, PAGER) == []
    board.tell("buffer-full", "buffer", "96 %", Severity.CRITICAL, 96)
    assert queued(conn)[0].sent_at is None and queued(conn, PAGER)[0].sent_at is None
    send(conn, clock)
    board.tell("buffer-full", "buffer", "90 %", value=90)  # better: no news
    assert queued(conn)[0].sent_at == utc(START)


def test_an_acknowledgement_holds_until_it_gets_worse(
    conn: db.Connection, board: NoticeBoard, clock: Clock
) -> None:
    """It stores the value of that moment."""
    board.tell("spares-low", "copy", "One.", value=1)
    send(conn, clock)
    until = utc(START + 7 * 86_400)
    with db.transaction(conn):
        assert db.notices.acknowledge(conn, "spares-low", "copy", until)
    board.tell("spares-low", "copy", "Still one.", value=1)
    assert queued(conn)[0].notice.acked_until == until
    board.tell("spares-low", "copy", "None.", value=2)
    (one,) = queued(conn)
    assert (one.notice.acked_until, one.sent_at) == (None, None)


def test_only_an_open_notice_can_be_acknowledged(conn: db.Connection, board: NoticeBoard) -> None:
    """False for one that never was, or is over."""
    board.tell("spares-low", "copy", "One.")
    board.settle(["spares-low"], "copy")
    with db.transaction(conn):
        assert not db.notices.acknowledge(conn, "spares-low", "copy", "2027")
        assert not db.notices.acknowledge(conn, "spares-low", "primary", "2027")


@pytest.mark.parametrize("change", ["back", "worse"])
def test_what_changes_while_a_message_is_under_way_is_due_again(
    conn: db.Connection, board: NoticeBoard, clock: Clock, change: str
) -> None:
    """A message takes up to 30 s; a pass goes on meanwhile."""
    board.tell("buffer-full", "buffer", "81 %")
    if change == "back":
        board.settle(["buffer-full"], "buffer")
    (under_way,) = queued(conn)
    board.tell("buffer-full", "buffer", "96 %", Severity.CRITICAL)
    with db.transaction(conn):
        db.notices.note_sent(conn, under_way, utc(clock()))
    (one,) = queued(conn)
    assert one.sent_at is None


def test_a_new_channel_is_told_what_is_open(conn: db.Connection, board: NoticeBoard) -> None:
    """And not what was over before it came."""
    board.tell("disk-missing", "P01", "Away.")
    board.tell("disk-missing", "P03", "Away.")
    board.settle(["disk-missing"], "P01")
    new = Channel("notify-2-slack", "slack://x")
    missing = db.notices.not_queued(conn, new)
    assert missing == [n.id for n in db.notices.open_notices(conn)] and len(missing) == 1
    assert db.notices.not_queued(conn, Channel("pager-1", "x", is_pager=True)) == []


def test_a_digest_replaces_one_that_waits(conn: db.Connection) -> None:
    """Yesterday's news are not sent today."""
    with db.transaction(conn):
        db.notices.add_digest(conn, DIGEST, "Monday", "text", "2026-06-21T04:00:00Z", [MAIL.name])
        db.notices.add_digest(conn, DIGEST, "Tuesday", "text", "2026-06-22T04:00:00Z", [MAIL.name])
    assert [one.notice.key for one in queued(conn)] == ["Tuesday"]
    assert db.notices.open_notices(conn) == []
