"""Queries on notices, and on their deliveries through the channels."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import fields

from poledata.db.sqlite import Connection
from poledata.formatting import seconds
from poledata.models import Channel, Delivery, Notice, Severity

SAME_AGAIN_S = 86_400.0  # what returns so soon is the same notice
NOTICE_COLUMNS = ", ".join(f"n.{field.name}" for field in fields(Notice))
_FIELDS = len(fields(Notice))
_DELIVERIES = (
    f"SELECT {NOTICE_COLUMNS}, d.channel, d.attempts, d.tried_at, d.sent_at, d.sent_as, "
    "d.last_error "
    "FROM deliveries d JOIN notices n ON n.id = d.notice_id WHERE d.end_sent_at IS NULL"
)


def open_notice(
    conn: Connection,
    kind: str,
    key: str,
    severity: Severity,
    text: str,
    at: str,
    value: float | None = None,
    channels: Iterable[str] = (),
) -> bool:
    """Open a notice, or renew the open one; True if it was not open.

    It will be sent through ``channels``. One that has become worse is sent again, and its
    acknowledgement ends.
    """
    before = conn.execute(
        "SELECT id, severity, resolved_at, acked_value FROM notices WHERE kind = ? AND key = ? "
        "ORDER BY resolved_at IS NULL DESC, resolved_at DESC LIMIT 1",
        (kind, key),
    ).fetchone()
    if before and before["resolved_at"] is None:
        notice_id, is_new = before["id"], False
    elif before and abs(seconds(at) - seconds(before["resolved_at"])) < SAME_AGAIN_S:
        notice_id, is_new = _reopen(conn, before, at), True
    else:
        notice_id, is_new, before = _insert(conn, kind, key, severity, text, at), True, None
    if before and _is_worse(before, severity, value):
        _tell_again(conn, before["id"])
    conn.execute(
        "UPDATE notices SET text = ?, severity = ?, value = ? WHERE id = ?",
        (text, severity.value, value, notice_id),
    )
    queue(conn, notice_id, channels)
    return is_new


def _insert(
    conn: Connection, kind: str, key: str, severity: Severity, text: str, at: str
) -> int | None:
    return conn.execute(
        "INSERT INTO notices (kind, key, severity, text, opened_at) VALUES (?, ?, ?, ?, ?)",
        (kind, key, severity.value, text, at),
    ).lastrowid


def _reopen(conn: Connection, before: sqlite3.Row, at: str) -> int:
    """Open a notice again; channels that reported its end report it as open, not acknowledged.

    It is open since now, except to those that did not hear of its end.
    """
    conn.execute(
        "UPDATE notices SET acked_until = NULL, acked_value = NULL WHERE id = ? AND EXISTS ("
        "SELECT 1 FROM deliveries WHERE notice_id = notices.id AND end_sent_at IS NOT NULL)",
        (before["id"],),
    )
    conn.execute(
        "UPDATE notices SET opened_at = CASE WHEN EXISTS (SELECT 1 FROM deliveries "
        "WHERE notice_id = notices.id AND end_sent_at IS NULL) THEN opened_at ELSE ? END, "
        "resolved_at = NULL, reopened = reopened + 1 WHERE id = ?",
        (at, before["id"]),
    )
    conn.execute(
        "UPDATE deliveries SET sent_at = NULL, sent_as = NULL, end_sent_at = NULL "
        "WHERE notice_id = ? AND end_sent_at IS NOT NULL",
        (before["id"],),
    )
    return int(before["id"])


def _is_worse(before: sqlite3.Row, severity: Severity, value: float | None) -> bool:
    if severity.is_graver_than(Severity(before["severity"])):
        return True
    acked = before["acked_value"]
    return acked is not None and value is not None and value > float(acked)


def _tell_again(conn: Connection, notice_id: int) -> None:
    conn.execute("UPDATE deliveries SET sent_at = NULL WHERE notice_id = ?", (notice_id,))
    conn.execute(
        "UPDATE notices SET acked_until = NULL, acked_value = NULL WHERE id = ?", (notice_id,)
    )


def queue(conn: Connection, notice_id: int | None, channels: Iterable[str]) -> None:
    """Queue a notice for these channels, except those that have it already."""
    conn.executemany(
        "INSERT INTO deliveries (notice_id, channel) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(notice_id, channel) for channel in channels],
    )


def resolve_notice(conn: Connection, kind: str, key: str, at: str) -> bool:
    """End an open notice; True if there was one."""
    ended = conn.execute(
        "UPDATE notices SET resolved_at = ? WHERE kind = ? AND key = ? AND resolved_at IS NULL",
        (at, kind, key),
    )
    return bool(ended.rowcount)


def acknowledge(conn: Connection, kind: str, key: str, until: str) -> bool:
    """Silence an open notice until then, or until it gets worse; True if there is one."""
    acked = conn.execute(
        "UPDATE notices SET acked_until = ?, acked_value = value "
        "WHERE kind = ? AND key = ? AND resolved_at IS NULL",
        (until, kind, key),
    )
    return bool(acked.rowcount)


def open_notices(conn: Connection) -> list[Notice]:
    """Return the open notices, the most severe first, then the oldest."""
    rows = conn.execute(
        f"SELECT {NOTICE_COLUMNS} FROM notices n WHERE resolved_at IS NULL ORDER BY "
        "CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, opened_at, id"
    )
    return [_notice(row) for row in rows]


# --- deliveries ---------------------------------------------------------------------------


def not_queued(conn: Connection, channel: Channel) -> list[int]:
    """Return the ids of open notices that a new channel must still get."""
    rows = conn.execute(
        "SELECT id, severity FROM notices WHERE resolved_at IS NULL AND NOT EXISTS ("
        "SELECT 1 FROM deliveries WHERE notice_id = notices.id AND channel = ?) ORDER BY id",
        (channel.name,),
    )
    return [row["id"] for row in rows if channel.takes(Severity(row["severity"]))]


def add_digest(
    conn: Connection, kind: str, key: str, text: str, at: str, channels: Iterable[str]
) -> None:
    """Queue a message that is resolved as soon as it is sent, instead of unsent earlier ones."""
    conn.execute(
        "DELETE FROM deliveries WHERE end_sent_at IS NULL AND notice_id IN ("
        "SELECT id FROM notices WHERE kind = ?)",
        (kind,),
    )
    row_id = _insert(conn, kind, key, Severity.INFO, text, at)
    conn.execute("UPDATE notices SET resolved_at = opened_at WHERE id = ?", (row_id,))
    queue(conn, row_id, channels)


def deliveries(conn: Connection, channel: str) -> list[Delivery]:
    """Return the deliveries that a channel may still have to make: their end was not sent."""
    rows = conn.execute(f"{_DELIVERIES} AND d.channel = ? ORDER BY n.opened_at, n.id", (channel,))
    return [_delivery(row) for row in rows]


def frequent_kinds(conn: Connection, channel: str, since: str, until: str, often: int) -> set[str]:
    """Return the kinds of which a channel got that many messages in this time."""
    rows = conn.execute(
        "SELECT n.kind FROM deliveries d JOIN notices n ON n.id = d.notice_id "
        "WHERE d.channel = ? AND d.last_error IS NULL AND d.tried_at BETWEEN ? AND ? "
        "GROUP BY n.kind HAVING count(DISTINCT d.tried_at) >= ?",
        (channel, since, until, often),
    )
    return {row["kind"] for row in rows}


def undelivered(conn: Connection) -> list[Delivery]:
    """Return the deliveries, through any channel, that failed when they were last tried."""
    rows = conn.execute(
        f"{_DELIVERIES} AND d.last_error IS NOT NULL ORDER BY d.channel, n.opened_at"
    )
    return [_delivery(row) for row in rows]


def note_sent(conn: Connection, of: Delivery, at: str) -> None:
    """Note a success: it was sent as it was when ``of`` was read; later changes are due again."""
    now = conn.execute(
        "SELECT severity, resolved_at FROM notices WHERE id = ?", (of.notice.id,)
    ).fetchone()
    was_over = of.notice.resolved_at is not None
    is_back = was_over and now["resolved_at"] is None
    is_due = is_back or Severity(now["severity"]).is_graver_than(of.notice.severity)
    sent_at, end_sent_at = None if is_due else at, at if was_over and not is_due else None
    sent_as = None if was_over else of.notice.severity.value
    conn.execute(
        "UPDATE deliveries SET attempts = ?, tried_at = ?, sent_at = ?, sent_as = ?, "
        "end_sent_at = ?, last_error = NULL WHERE notice_id = ? AND channel = ?",
        (of.attempts_now, at, sent_at, sent_as, end_sent_at, of.notice.id, of.channel),
    )
    conn.execute(
        "UPDATE notices SET times_sent = times_sent + 1, last_sent_at = ? WHERE id = ?",
        (at, of.notice.id),
    )


def note_not_sent(conn: Connection, of: Delivery, at: str, error: str) -> None:
    """Note a failure; the delivery stays queued."""
    conn.execute(
        "UPDATE deliveries SET attempts = ?, tried_at = ?, last_error = ? "
        "WHERE notice_id = ? AND channel = ?",
        (of.attempts_now, at, error, of.notice.id, of.channel),
    )


def _notice(row: sqlite3.Row) -> Notice:
    kind, key, severity, *rest = row[:_FIELDS]
    return Notice(kind, key, Severity(severity), *rest)


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(_notice(row), *row[_FIELDS:])
