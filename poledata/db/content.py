"""Queries on content checks: which files their own programs can read."""

from __future__ import annotations

from dataclasses import dataclass

from poledata.db.sqlite import Connection
from poledata.models import ContentCounts, ContentResult, Disk


@dataclass(frozen=True, slots=True)
class Unchecked:
    """An archived file whose content is to be checked."""

    id: int
    name: str
    size_bytes: int


def unchecked(conn: Connection, disk: Disk, suspect_before: str) -> list[Unchecked]:
    """Return the files with a good copy on a disk that lack a result; those tried before last.

    Also those that were suspect at a check before that time: the check itself may be right by now.
    """
    rows = conn.execute(
        "SELECT f.id, f.name, f.size_bytes FROM copies c JOIN files f ON f.id = c.file_id "
        "LEFT JOIN content_checks k ON k.file_id = f.id "
        "WHERE c.disk_id = ? AND c.state = 'good' AND f.archived_at IS NOT NULL "
        "AND (coalesce(k.result, 'not checked') = 'not checked' "
        "OR k.result = 'suspect' AND k.checked_at < ?) ORDER BY k.checked_at, f.id",
        (disk.id, suspect_before),
    )
    return [Unchecked(*row) for row in rows]


def note(
    conn: Connection, file_id: int, result: ContentResult, detail: str | None, at: str
) -> None:
    """Keep the result of a file's last check."""
    conn.execute(
        "INSERT OR REPLACE INTO content_checks (file_id, checked_at, result, detail) "
        "VALUES (?, ?, ?, ?)",
        (file_id, at, result.value, detail),
    )


def result(conn: Connection, file_id: int) -> ContentResult:
    """Return what the last check of a file found."""
    row = conn.execute("SELECT result FROM content_checks WHERE file_id = ?", (file_id,)).fetchone()
    return ContentResult(row["result"]) if row else ContentResult.NOT_CHECKED


def suspect_names(conn: Connection) -> list[str]:
    """Return the names of the files whose own program could not read them."""
    rows = conn.execute(
        "SELECT name FROM files JOIN content_checks ON file_id = id WHERE result = 'suspect'"
    )
    return [row["name"] for row in rows]


def counts(conn: Connection) -> ContentCounts:
    """Return how many archived files have which result."""
    rows = conn.execute("SELECT result, count(*) FROM content_checks GROUP BY result")
    found = {row[0]: row[1] for row in rows}
    files = conn.execute("SELECT count(*) FROM files WHERE archived_at IS NOT NULL").fetchone()[0]
    ok, suspect = found.get("ok", 0), found.get("suspect", 0)
    return ContentCounts(ok, suspect, max(0, files - ok - suspect))
