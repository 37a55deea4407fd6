"""Queries on findings: what runs learned about disks and files, and is not known to be over."""

from __future__ import annotations

from dataclasses import astuple

from poledata.db.sqlite import Connection
from poledata.models import Finding, Severity


def findings(conn: Connection) -> list[Finding]:
    """Return all of them, by kind and key."""
    rows = conn.execute(
        "SELECT kind, key, severity, text, value, found_at FROM findings ORDER BY kind, key"
    )
    return [_finding(*row) for row in rows]


def finding(conn: Connection, kind: str, key: str) -> Finding | None:
    """Return one of them, if it is there."""
    rows = conn.execute(
        "SELECT kind, key, severity, text, value, found_at FROM findings "
        "WHERE kind = ? AND key = ?",
        (kind, key),
    )
    return next((_finding(*row) for row in rows), None)


def _finding(
    kind: str, key: str, severity: str, text: str, value: float | None, found_at: str
) -> Finding:
    return Finding(kind, key, Severity(severity), text, value, found_at)


def note(conn: Connection, new: Finding) -> None:
    """Add a finding, in place of the earlier one about the same thing."""
    conn.execute(
        "INSERT OR REPLACE INTO findings (kind, key, severity, text, value, found_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        astuple(new),
    )


def clear(conn: Connection, kind: str, key: str) -> None:
    """Remove a finding that is over."""
    conn.execute("DELETE FROM findings WHERE kind = ? AND key = ?", (kind, key))
