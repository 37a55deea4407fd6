"""Queries on files that failed, on passes and pauses, and on the buffer's marker."""

from __future__ import annotations

from dataclasses import astuple

from poledata.db.sqlite import Connection
from poledata.formatting import utc
from poledata.models import AdoptedBuffer, FileStat, PassRow, Pause, Pending

RETRY_FIRST_S = 60.0
RETRY_LAST_S = 3600.0


def pending(conn: Connection) -> dict[str, Pending]:
    """Return the files that failed so far, by their shown names."""
    rows = conn.execute(
        "SELECT name, attempts, first_failed_at, next_try_at, last_error, kind, "
        "device, inode, size_bytes, mtime_ns, ctime_ns FROM pending ORDER BY first_failed_at, name"
    )
    found = {}
    for row in rows:
        name, attempts, first, next_try, error, kind, *stat = row
        was = FileStat(*stat) if stat[0] is not None else None
        found[name] = Pending(name, attempts, first, next_try, error, kind, was)
    return found


def note_failure(
    conn: Connection, name: str, stat: FileStat | None, kind: str, error: str, now_s: float
) -> int:
    """Note that a file failed, and return how often by now. It is retried in 1 min … 1 h."""
    row = conn.execute("SELECT attempts FROM pending WHERE name = ?", (name,)).fetchone()
    attempts = (row["attempts"] if row else 0) + 1
    now, values = utc(now_s), astuple(stat) if stat else (None,) * 5
    wait_s = min(RETRY_FIRST_S * 2 ** min(attempts - 1, 10), RETRY_LAST_S)
    conn.execute(
        "INSERT INTO pending (name, attempts, first_failed_at, last_failed_at, next_try_at, "
        "last_error, kind, device, inode, size_bytes, mtime_ns, ctime_ns) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
        "attempts = excluded.attempts, last_failed_at = excluded.last_failed_at, "
        "next_try_at = excluded.next_try_at, last_error = excluded.last_error, "
        "kind = excluded.kind, device = excluded.device, inode = excluded.inode, "
        "size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, "
        "ctime_ns = excluded.ctime_ns",
        (name, attempts, now, now, utc(now_s + wait_s), error, kind, *values),
    )
    return attempts


def forget_failure(conn: Connection, name: str) -> None:
    """Forget the failures of a file that is archived, or no longer in the buffer."""
    conn.execute("DELETE FROM pending WHERE name = ?", (name,))


def begin_pass(conn: Connection, at: str) -> int:
    """Add a pass that has something to do; return its id."""
    row_id = conn.execute("INSERT INTO passes (started_at) VALUES (?)", (at,)).lastrowid
    assert row_id is not None
    return row_id


def count_in_pass(conn: Connection, pass_id: int, files: int, size_bytes: int) -> None:
    """Add what a batch archived to its pass."""
    conn.execute(
        "UPDATE passes SET files_archived = files_archived + ?, bytes_archived = "
        "bytes_archived + ? WHERE id = ?",
        (files, size_bytes, pass_id),
    )


def end_pass(conn: Connection, pass_id: int, at: str, outcome: str, failed_files: int) -> None:
    """Note that the pass ended, and how."""
    conn.execute(
        "UPDATE passes SET ended_at = ?, outcome = ?, files_failed = ? WHERE id = ?",
        (at, outcome, failed_files, pass_id),
    )


def unended_passes(conn: Connection) -> list[PassRow]:
    """Return the passes without an end: running now, or crashed."""
    return _passes(conn, "WHERE ended_at IS NULL ORDER BY id")


def last_pass(conn: Connection) -> PassRow | None:
    """Return the newest pass that did something."""
    return next(iter(_passes(conn, "ORDER BY id DESC LIMIT 1")), None)


def crashes_in_a_row(conn: Connection) -> int:
    """Return how many of the newest passes, one after another, crashed or could not go on."""
    rows = conn.execute(
        "SELECT count(*) FROM passes WHERE outcome IN ('crashed', 'failed') AND id > coalesce("
        "(SELECT max(id) FROM passes WHERE outcome NOT IN ('crashed', 'failed')), 0)"
    )
    return int(rows.fetchone()[0])


def _passes(conn: Connection, which: str) -> list[PassRow]:
    rows = conn.execute(
        "SELECT id, started_at, ended_at, outcome, files_archived, bytes_archived, files_failed "
        f"FROM passes {which}"
    )
    return [PassRow(*row) for row in rows]


# --- pauses -------------------------------------------------------------------------------


def pause(conn: Connection, why: str, until: str | None, at: str) -> None:
    """Let passes do nothing from now on; an earlier pause is replaced."""
    resume(conn, at)
    conn.execute("INSERT INTO pauses (started_at, why, until) VALUES (?, ?, ?)", (at, why, until))


def resume(conn: Connection, at: str) -> bool:
    """End the pause; True if there was one."""
    return bool(
        conn.execute("UPDATE pauses SET ended_at = ? WHERE ended_at IS NULL", (at,)).rowcount
    )


def current_pause(conn: Connection, at: str) -> Pause | None:
    """Return the pause that is in force, if any."""
    row = conn.execute(
        "SELECT started_at, why, until FROM pauses "
        "WHERE ended_at IS NULL AND (until IS NULL OR until > ?)",
        (at,),
    ).fetchone()
    return Pause(*row) if row else None


# --- the buffer ---------------------------------------------------------------------------


def adopted_buffer(conn: Connection) -> AdoptedBuffer | None:
    """Return the buffer that was adopted last; None before the first pass."""
    rows = conn.execute("SELECT marker FROM buffers ORDER BY id DESC LIMIT 1")
    return next((AdoptedBuffer(*row) for row in rows), None)


def adopt_buffer(conn: Connection, marker: str | None, at: str, why: str) -> None:
    """Make the buffer with this marker the one of this archive from now on."""
    conn.execute(
        "INSERT INTO buffers (marker, adopted_at, why) VALUES (?, ?, ?)", (marker, at, why)
    )
