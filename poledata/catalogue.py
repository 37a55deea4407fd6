"""Every query on the database. Each takes the connection first; nobody else writes SQL.

Changes are to be made inside ``db.transaction``; none is open while a file is touched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from poledata.db import Connection
from poledata.records import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    KnownCopy,
    KnownFile,
    Notice,
    PassRow,
    Pending,
    Role,
    Severity,
    VerifiedBy,
    Written,
    utc,
)

_DISK_COLUMNS = (
    "d.id, d.label, d.role, d.serial, d.logical_id, d.state, d.held_by, d.held_reason, "
    "d.stand_in, d.capacity_bytes, d.used_bytes, d.free_bytes, d.first_used_at, d.last_used_at"
)
RETRY_FIRST_S = 60.0
RETRY_LAST_S = 3600.0


# --- disks ------------------------------------------------------------------------------


def disks(conn: Connection) -> list[Disk]:
    """Every disk the database knows."""
    rows = conn.execute(f"SELECT {_DISK_COLUMNS} FROM disks d ORDER BY d.id")
    return [_disk(row) for row in rows]


def add_disk(
    conn: Connection, label: str, role: Role, serial: str, logical_id: str, stand_in: bool, at: str
) -> None:
    """Register a drive as a spare."""
    cursor = conn.execute(
        "INSERT INTO disks (label, role, serial, logical_id, stand_in) VALUES (?, ?, ?, ?, ?)",
        (label, role.value, serial, logical_id, int(stand_in)),
    )
    _event(conn, cursor.lastrowid, at, "registered", None)


def activate(conn: Connection, disk: Disk, at: str) -> None:
    """A spare's first use."""
    conn.execute(
        "UPDATE disks SET state = 'active', first_used_at = coalesce(first_used_at, ?) "
        "WHERE id = ? AND state = 'spare'",
        (at, disk.id),
    )
    _event(conn, disk.id, at, "first use", None)


def measure(
    conn: Connection, disk: Disk, capacity_bytes: int, used_bytes: int, free_bytes: int, at: str
) -> None:
    """Note the room of a disk that was just used."""
    conn.execute(
        "UPDATE disks SET capacity_bytes = ?, used_bytes = ?, free_bytes = ?, measured_at = ?, "
        "last_used_at = ? WHERE id = ?",
        (capacity_bytes, used_bytes, free_bytes, at, at, disk.id),
    )


def _event(conn: Connection, disk_id: int | None, at: str, event: str, reason: str | None) -> None:
    conn.execute(
        "INSERT INTO disk_events (disk_id, at, event, reason) VALUES (?, ?, ?, ?)",
        (disk_id, at, event, reason),
    )


def _disk(row: sqlite3.Row) -> Disk:
    return Disk(
        id=row["id"],
        label=row["label"],
        role=Role(row["role"]),
        serial=row["serial"],
        logical_id=row["logical_id"],
        state=DiskState(row["state"]),
        held_by=row["held_by"],
        held_reason=row["held_reason"],
        stand_in=bool(row["stand_in"]),
        capacity_bytes=row["capacity_bytes"],
        used_bytes=row["used_bytes"],
        free_bytes=row["free_bytes"],
        first_used_at=row["first_used_at"],
        last_used_at=row["last_used_at"],
    )


# --- files and copies -------------------------------------------------------------------


def file(conn: Connection, name: str) -> KnownFile | None:
    """A file by its name, with all its copies, newest first."""
    row = conn.execute("SELECT * FROM files WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    copies = conn.execute(
        f"SELECT c.state AS copy_state, c.mtime_ns, c.written_at, c.verified_at, c.verified_by, "
        f"{_DISK_COLUMNS} FROM copies c JOIN disks d ON d.id = c.disk_id "
        "WHERE c.file_id = ? ORDER BY c.written_at DESC, d.id DESC",
        (row["id"],),
    )
    return KnownFile(
        row["id"],
        row["name"],
        row["size_bytes"],
        row["sha512"],
        row["mtime_ns"],
        row["archived_at"],
        tuple(_copy(copy) for copy in copies),
    )


def register(
    conn: Connection,
    name: str,
    sha512: str,
    stat: FileStat,
    copies: Iterable[tuple[Disk, Written]],
    at: str,
) -> KnownFile:
    """Write down new good copies of a file; it is archived once each role has one.

    Never changes what is known of a file: another SHA-512 under its name is a defect here,
    for it was refused before.
    """
    conn.execute(
        "INSERT INTO files (name, size_bytes, sha512, mtime_ns) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO NOTHING",
        (name, stat.size_bytes, sha512, stat.mtime_ns),
    )
    row = conn.execute("SELECT id, sha512 FROM files WHERE name = ?", (name,)).fetchone()
    if row["sha512"] != sha512:
        raise AssertionError(f"{name!r} is known with another SHA-512")
    for disk, written in copies:
        _add_copy(conn, row["id"], disk, stat.mtime_ns, written, at)
    conn.execute(
        "UPDATE files SET archived_at = ? WHERE id = ? AND archived_at IS NULL AND ("
        "SELECT count(DISTINCT d.role) FROM copies c JOIN disks d ON d.id = c.disk_id "
        "WHERE c.file_id = files.id AND c.state = 'good') = 2",
        (at, row["id"]),
    )
    known = file(conn, name)
    assert known
    return known


def _add_copy(
    conn: Connection, file_id: int, disk: Disk, mtime_ns: int, written: Written, at: str
) -> None:
    conn.execute(
        "INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at, verified_at, "
        "verified_by) VALUES (?, ?, 'good', ?, ?, ?, ?) ON CONFLICT (file_id, disk_id) DO UPDATE "
        "SET state = 'good', mtime_ns = excluded.mtime_ns, written_at = excluded.written_at, "
        "verified_at = excluded.verified_at, verified_by = excluded.verified_by",
        (file_id, disk.id, mtime_ns, at, at, written.verified_by.value),
    )


def set_copy_state(conn: Connection, file_id: int, disk: Disk, state: CopyState) -> None:
    """What a look at a copy found."""
    conn.execute(
        "UPDATE copies SET state = ? WHERE file_id = ? AND disk_id = ?",
        (state.value, file_id, disk.id),
    )


def removed(conn: Connection, name: str, at: str) -> None:
    """The file has left the buffer; what was remembered of it there goes too."""
    conn.execute("UPDATE files SET removed_from_buffer_at = ? WHERE name = ?", (at, name))
    conn.execute("DELETE FROM rehashed WHERE name = ?", (name,))


def archived_but_not_removed(conn: Connection) -> list[str]:
    """Names that may still stand in the buffer."""
    rows = conn.execute(
        "SELECT name FROM files WHERE archived_at IS NOT NULL AND removed_from_buffer_at IS NULL"
    )
    return [row["name"] for row in rows]


def remembered_sha512(conn: Connection, name: str, stat: FileStat) -> str | None:
    """The SHA-512 of a buffer file that was hashed before in this very state."""
    row = conn.execute("SELECT * FROM rehashed WHERE name = ?", (name,)).fetchone()
    return row["sha512"] if row and _stat(row) == stat else None


def remember_sha512(conn: Connection, name: str, stat: FileStat, sha512: str) -> None:
    """Note a buffer file's SHA-512, so that it is not hashed twice."""
    conn.execute(
        "INSERT OR REPLACE INTO rehashed (name, device, inode, size_bytes, mtime_ns, ctime_ns, "
        "sha512) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, *_stat_values(stat), sha512),
    )


def _copy(row: sqlite3.Row) -> KnownCopy:
    return KnownCopy(
        disk=_disk(row),
        state=CopyState(row["copy_state"]),
        mtime_ns=row["mtime_ns"],
        written_at=row["written_at"],
        verified_at=row["verified_at"],
        verified_by=VerifiedBy(row["verified_by"]) if row["verified_by"] else None,
    )


def _stat(row: sqlite3.Row) -> FileStat | None:
    if row["inode"] is None:
        return None
    return FileStat(
        row["device"], row["inode"], row["size_bytes"], row["mtime_ns"], row["ctime_ns"]
    )


def _stat_values(stat: FileStat | None) -> tuple[int | None, ...]:
    if stat is None:
        return (None,) * 5
    return (stat.device, stat.inode, stat.size_bytes, stat.mtime_ns, stat.ctime_ns)


# --- files that failed ------------------------------------------------------------------


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
            _stat(row),
        )
        for row in rows
    }


def failed(
    conn: Connection, name: str, stat: FileStat | None, kind: str, error: str, now_s: float
) -> int:
    """Note that a file failed; returns how many times by now. The next try: 1 min … 1 h."""
    row = conn.execute("SELECT attempts FROM pending WHERE name = ?", (name,)).fetchone()
    attempts = (row["attempts"] if row else 0) + 1
    wait_s = min(RETRY_FIRST_S * 2.0 ** (attempts - 1), RETRY_LAST_S)
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
            *_stat_values(stat),
        ),
    )
    return attempts


def no_longer_pending(conn: Connection, name: str) -> None:
    """The file is archived, or is not in the buffer any more."""
    conn.execute("DELETE FROM pending WHERE name = ?", (name,))


# --- notices ----------------------------------------------------------------------------


def open_notice(
    conn: Connection, kind: str, key: str, severity: Severity, text: str, at: str
) -> bool:
    """Open a notice, or renew the text of the open one; True if it is new."""
    renewed = conn.execute(
        "UPDATE notices SET text = ?, severity = ? WHERE kind = ? AND key = ? "
        "AND resolved_at IS NULL",
        (text, severity.value, kind, key),
    )
    if renewed.rowcount:
        return False
    conn.execute(
        "INSERT INTO notices (kind, key, severity, text, opened_at) VALUES (?, ?, ?, ?, ?)",
        (kind, key, severity.value, text, at),
    )
    return True


def resolve_notice(conn: Connection, kind: str, key: str, at: str) -> bool:
    """End an open notice; True if there was one."""
    ended = conn.execute(
        "UPDATE notices SET resolved_at = ? WHERE kind = ? AND key = ? AND resolved_at IS NULL",
        (at, kind, key),
    )
    return bool(ended.rowcount)


def open_notices(conn: Connection) -> list[Notice]:
    """The open notices, the gravest first, then the oldest."""
    rows = conn.execute(
        "SELECT * FROM notices WHERE resolved_at IS NULL ORDER BY "
        "CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, opened_at, id"
    )
    return [
        Notice(r["kind"], r["key"], Severity(r["severity"]), r["text"], r["opened_at"])
        for r in rows
    ]


# --- passes and totals ------------------------------------------------------------------


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


def totals(conn: Connection) -> tuple[int, int]:
    """How many files are archived, and their bytes."""
    row = conn.execute(
        "SELECT count(*) AS files, coalesce(sum(size_bytes), 0) AS bytes FROM files "
        "WHERE archived_at IS NOT NULL"
    ).fetchone()
    return row["files"], row["bytes"]
