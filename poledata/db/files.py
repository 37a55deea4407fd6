"""Queries on files and their copies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from poledata.db.connection import Connection
from poledata.db.disks import DISK_COLUMNS, disk_of
from poledata.models import (
    CopyState,
    DayDone,
    Disk,
    FileStat,
    KnownCopy,
    KnownFile,
    ReadBack,
    VerifiedBy,
    Written,
)


def file(conn: Connection, name: str) -> KnownFile | None:
    """A file by its name, with all its copies, newest first."""
    row = conn.execute("SELECT * FROM files WHERE name = ?", (name,)).fetchone()
    return _known_file(conn, row) if row else None


def file_by_id(conn: Connection, file_id: int) -> KnownFile:
    """The same by its id, which must be one."""
    return _known_file(
        conn, conn.execute("SELECT * FROM files WHERE id = ?", (file_id,)).fetchone()
    )


def find_files(conn: Connection, pattern: str) -> Iterator[KnownFile]:
    """Files whose names match a glob (``*`` also matches ``/``), in the order of their names."""
    rows = conn.execute("SELECT * FROM files WHERE name GLOB ? ORDER BY name", (pattern,))
    for row in rows:
        yield _known_file(conn, row)


def _known_file(conn: Connection, row: sqlite3.Row) -> KnownFile:
    copies = conn.execute(
        f"SELECT c.state AS copy_state, c.mtime_ns, c.written_at, c.verified_at, c.verified_by, "
        f"{DISK_COLUMNS} FROM copies c JOIN disks d ON d.id = c.disk_id "
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
        _add_copy(conn, row["id"], disk, written.read_back, at)
    conn.execute(
        "UPDATE files SET archived_at = ? WHERE id = ? AND archived_at IS NULL AND ("
        "SELECT count(DISTINCT d.role) FROM copies c JOIN disks d ON d.id = c.disk_id "
        "WHERE c.file_id = files.id AND c.state = 'good') = 2",
        (at, row["id"]),
    )
    known = file(conn, name)
    assert known
    return known


def _add_copy(conn: Connection, file_id: int, disk: Disk, read_back: ReadBack, at: str) -> None:
    """The copy has its own time: a disk may keep it in whole seconds."""
    conn.execute(
        "INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at, verified_at, "
        "verified_by) VALUES (?, ?, 'good', ?, ?, ?, ?) ON CONFLICT (file_id, disk_id) DO UPDATE "
        "SET state = 'good', mtime_ns = excluded.mtime_ns, written_at = excluded.written_at, "
        "verified_at = excluded.verified_at, verified_by = excluded.verified_by",
        (file_id, disk.id, read_back.stat.mtime_ns, at, at, read_back.verified_by.value),
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


def names_beside(conn: Connection, path: str) -> Iterator[str]:
    """Names of files in the same directory as this path, or below it."""
    parent = path.rpartition("/")[0]
    below = f"{parent}/" if parent else ""
    rows = conn.execute("SELECT name FROM files WHERE substr(name, 1, ?) = ?", (len(below), below))
    return (row["name"] for row in rows)


def remembered_sha512(conn: Connection, name: str, stat: FileStat) -> str | None:
    """The SHA-512 of a buffer file that was hashed before in this very state."""
    row = conn.execute("SELECT * FROM rehashed WHERE name = ?", (name,)).fetchone()
    return row["sha512"] if row and stat_of(row) == stat else None


def remember_sha512(conn: Connection, name: str, stat: FileStat, sha512: str) -> None:
    """Note a buffer file's SHA-512, so that it is not hashed twice."""
    conn.execute(
        "INSERT OR REPLACE INTO rehashed (name, device, inode, size_bytes, mtime_ns, ctime_ns, "
        "sha512) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, *stat_values(stat), sha512),
    )


def _copy(row: sqlite3.Row) -> KnownCopy:
    return KnownCopy(
        disk=disk_of(row),
        state=CopyState(row["copy_state"]),
        mtime_ns=row["mtime_ns"],
        written_at=row["written_at"],
        verified_at=row["verified_at"],
        verified_by=VerifiedBy(row["verified_by"]) if row["verified_by"] else None,
    )


def stat_of(row: sqlite3.Row) -> FileStat | None:
    if row["inode"] is None:
        return None
    return FileStat(
        row["device"], row["inode"], row["size_bytes"], row["mtime_ns"], row["ctime_ns"]
    )


def stat_values(stat: FileStat | None) -> tuple[int | None, ...]:
    if stat is None:
        return (None,) * 5
    return (stat.device, stat.inode, stat.size_bytes, stat.mtime_ns, stat.ctime_ns)


def totals(conn: Connection) -> tuple[int, int]:
    """How many files are archived, and their bytes."""
    row = conn.execute(
        "SELECT count(*) AS files, coalesce(sum(size_bytes), 0) AS bytes FROM files "
        "WHERE archived_at IS NOT NULL"
    ).fetchone()
    return row["files"], row["bytes"]


def last_archived_at(conn: Connection) -> str | None:
    """When the last file was archived."""
    row = conn.execute("SELECT max(archived_at) AS at FROM files").fetchone()
    return row["at"] if row else None


def archived_since(conn: Connection, at: str) -> tuple[int, int]:
    """How many files were archived since then, and their bytes."""
    row = conn.execute(
        "SELECT count(*) AS files, coalesce(sum(size_bytes), 0) AS bytes FROM files "
        "WHERE archived_at >= ?",
        (at,),
    ).fetchone()
    return row["files"], row["bytes"]


def archived_by_day(conn: Connection, since: str) -> list[DayDone]:
    """What was archived on each day since then; days without anything are left out."""
    rows = conn.execute(
        "SELECT substr(archived_at, 1, 10) AS day, count(*) AS files, sum(size_bytes) AS bytes "
        "FROM files WHERE archived_at >= ? GROUP BY day ORDER BY day",
        (since,),
    )
    return [DayDone(row["day"], row["files"], row["bytes"]) for row in rows]


def unarchived(conn: Connection) -> list[tuple[int, str]]:
    """Id and name of each file that had no good copy in each role so far."""
    rows = conn.execute("SELECT id, name FROM files WHERE archived_at IS NULL")
    return [(row["id"], row["name"]) for row in rows]
