"""Queries on what goes on: files that failed, passes, pauses, the buffer's marker."""

from __future__ import annotations

from poledata.db.connection import Connection
from poledata.db.files import stat_of, stat_values
from poledata.formatting import utc
from poledata.models import AdoptedBuffer, FileStat, PassRow, Pause, Pending

RETRY_FIRST_S = 60.0
RETRY_LAST_S = 3600.0


def pending(conn: Connection) -> dict[str, Pending]:
    """The files that failed so far, by their shown names."""
    rows = conn.execute("SELECT * FROM pending ORDER BY first_failed_at, name")
    return {
        row["name"]: Pending(
            row["name"],
            row["attempts"],
            row["first_failed_at"],
            row["next_try_at"],
            row["last_error"],
            row["kind"],
            stat_of(row),
        )
        for row in rows
    }


def failed(
    conn: Connection, name: str, stat: FileStat | None, kind: str, error: str, now_s: float
) -> int:
    """Note that a file failed; returns how many times by now. The next try: 1 min … 1 h."""
    row = conn.execute("SELECT attempts FROM pending WHERE name = ?", (name,)).fetchone()
    attempts = (row["attempts"] if row else 0) + 1
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
        (
            name,
            attempts,
            utc(now_s),
            utc(now_s),
            utc(now_s + wait_s),
            error,
            kind,
            *stat_values(stat),
        ),
    )
    return attempts


def no_longer_pending(conn: Connection, name: str) -> None:
    """The file is archived, or is not in the buffer any more."""
    conn.execute("DELETE FROM pending WHERE name = ?", (name,))


def begin_pass(conn: Connection, at: str) -> int:
    """A pass that has something to do."""
    row_id = conn.execute("INSERT INTO passes (started_at) VALUES (?)", (at,)).lastrowid
    assert row_id is not None
    return row_id


def count_in_pass(conn: Connection, pass_id: int, files: int, size_bytes: int) -> None:
    """Add what a batch archived."""
    conn.execute(
        "UPDATE passes SET files_archived = files_archived + ?, bytes_archived = "
        "bytes_archived + ? WHERE id = ?",
        (files, size_bytes, pass_id),
    )


def end_pass(conn: Connection, pass_id: int, at: str, outcome: str, failed_files: int) -> None:
    """The pass is over, and says how."""
    conn.execute(
        "UPDATE passes SET ended_at = ?, outcome = ?, files_failed = ? WHERE id = ?",
        (at, outcome, failed_files, pass_id),
    )


def unended_passes(conn: Connection) -> list[PassRow]:
    """Passes that never said that they ended: at work now, or crashed."""
    return _passes(conn, "WHERE ended_at IS NULL ORDER BY id")


def last_pass(conn: Connection) -> PassRow | None:
    """The newest pass that did something."""
    return next(iter(_passes(conn, "ORDER BY id DESC LIMIT 1")), None)


def _passes(conn: Connection, which: str) -> list[PassRow]:
    return [
        PassRow(
            row["id"],
            row["started_at"],
            row["ended_at"],
            row["outcome"],
            row["files_archived"],
            row["bytes_archived"],
            row["files_failed"],
        )
        for row in conn.execute(f"SELECT * FROM passes {which}")
    ]


# --- pauses -------------------------------------------------------------------------------


def pause(conn: Connection, why: str, until: str | None, at: str) -> None:
    """Passes do nothing from now on; an earlier pause is replaced."""
    resume(conn, at)
    conn.execute("INSERT INTO pauses (started_at, why, until) VALUES (?, ?, ?)", (at, why, until))


def resume(conn: Connection, at: str) -> bool:
    """Passes go on; True if there was a pause."""
    return bool(
        conn.execute("UPDATE pauses SET ended_at = ? WHERE ended_at IS NULL", (at,)).rowcount
    )


def current_pause(conn: Connection, at: str) -> Pause | None:
    """The pause that is in force, if any."""
    row = conn.execute(
        "SELECT * FROM pauses WHERE ended_at IS NULL AND (until IS NULL OR until > ?)", (at,)
    ).fetchone()
    return Pause(row["started_at"], row["why"], row["until"]) if row else None


# --- the buffer ---------------------------------------------------------------------------


def adopted_buffer(conn: Connection) -> AdoptedBuffer | None:
    """The buffer that was adopted last; None before the first pass."""
    row = conn.execute("SELECT * FROM buffers ORDER BY id DESC LIMIT 1").fetchone()
    return AdoptedBuffer(row["marker"], row["adopted_at"], row["why"]) if row else None


def adopt_buffer(conn: Connection, marker: str | None, at: str, why: str) -> None:
    """The buffer with this marker is the one that is meant from now on."""
    conn.execute(
        "INSERT INTO buffers (marker, adopted_at, why) VALUES (?, ?, ?)", (marker, at, why)
    )
