"""Queries on files and their copies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple

from poledata.db.disks import DISK_COLUMNS, disk_of
from poledata.db.sqlite import Connection
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

_FILES = "SELECT id, name, size_bytes, sha512, mtime_ns, archived_at FROM files"


def file(conn: Connection, name: str) -> KnownFile | None:
    """Return a file by its name, with all its copies, newest first."""
    row = conn.execute(f"{_FILES} WHERE name = ?", (name,)).fetchone()
    return _known_file(conn, row) if row else None


def file_by_id(conn: Connection, file_id: int) -> KnownFile:
    """Return a file by its id, which must exist."""
    return _known_file(conn, conn.execute(f"{_FILES} WHERE id = ?", (file_id,)).fetchone())


def find_files(conn: Connection, pattern: str) -> Iterator[KnownFile]:
    """Yield files whose names match a glob (``*`` also matches ``/``), ordered by name."""
    rows = conn.execute(f"{_FILES} WHERE name GLOB ? ORDER BY name", (pattern,))
    return (_known_file(conn, row) for row in rows)


def archived_since(conn: Connection, since: str) -> Iterator[KnownFile]:
    """Yield files that were archived at that time or later, the earliest first."""
    rows = conn.execute(f"{_FILES} WHERE archived_at >= ? ORDER BY archived_at, name", (since,))
    return (_known_file(conn, row) for row in rows)


def _known_file(conn: Connection, row: sqlite3.Row) -> KnownFile:
    copies = conn.execute(
        f"SELECT {DISK_COLUMNS}, c.state, c.mtime_ns, c.written_at, c.verified_at, c.verified_by "
        "FROM copies c JOIN disks d ON d.id = c.disk_id "
        "WHERE c.file_id = ? ORDER BY c.written_at DESC, d.id DESC",
        (row["id"],),
    )
    number, name, size_bytes, sha512, mtime_ns, archived_at = row
    all_copies = tuple(map(_copy, copies))
    return KnownFile(number, name, size_bytes, sha512, mtime_ns, archived_at, all_copies)


def _copy(row: sqlite3.Row) -> KnownCopy:
    state, mtime_ns, written_at, verified_at, how = row[-5:]
    verified_by = VerifiedBy(how) if how else None
    return KnownCopy(disk_of(row), CopyState(state), mtime_ns, written_at, verified_at, verified_by)


def register(
    conn: Connection,
    name: str,
    sha512: str,
    stat: FileStat,
    copies: Iterable[tuple[Disk, Written]],
    at: str,
) -> KnownFile:
    """Add new good copies of a file; it is archived once each role has one.

    Never changes what is known of a file: another SHA-512 under its name is a bug here,
    because it was refused before.
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
    """Add a copy with its own time: a disk may store it in whole seconds."""
    conn.execute(
        "INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at, verified_at, "
        "verified_by) VALUES (?, ?, 'good', ?, ?, ?, ?) ON CONFLICT (file_id, disk_id) DO UPDATE "
        "SET state = 'good', mtime_ns = excluded.mtime_ns, written_at = excluded.written_at, "
        "verified_at = excluded.verified_at, verified_by = excluded.verified_by",
        (file_id, disk.id, read_back.stat.mtime_ns, at, at, read_back.verified_by.value),
    )


def note_removed(conn: Connection, names: Sequence[str], at: str) -> None:
    """Note that these files have left the buffer, and forget their hashes there."""
    rows = [(at, name) for name in names]
    conn.executemany("UPDATE files SET removed_from_buffer_at = ? WHERE name = ?", rows)
    conn.executemany("DELETE FROM rehashed WHERE name = ?", [(name,) for name in names])


def archived_but_not_removed(conn: Connection) -> list[str]:
    """Return the names of archived files that may still be in the buffer."""
    rows = conn.execute(
        "SELECT name FROM files WHERE archived_at IS NOT NULL AND removed_from_buffer_at IS NULL"
    )
    return [row["name"] for row in rows]


def names_below_parent(conn: Connection, path: str) -> Iterator[str]:
    """Yield the names of files in the same directory as this path, or below it."""
    parent = path.rpartition("/")[0]
    below = f"{parent}/" if parent else ""
    rows = conn.execute("SELECT name FROM files WHERE substr(name, 1, ?) = ?", (len(below), below))
    return (row["name"] for row in rows)


def remembered_sha512(conn: Connection, name: str, stat: FileStat) -> str | None:
    """Return the SHA-512 of a buffer file if it was hashed before in exactly this state."""
    row = conn.execute(
        "SELECT sha512, device, inode, size_bytes, mtime_ns, ctime_ns FROM rehashed WHERE name = ?",
        (name,),
    ).fetchone()
    return row["sha512"] if row and FileStat(*row[1:]) == stat else None


def remember_sha512(conn: Connection, name: str, stat: FileStat, sha512: str) -> None:
    """Note a buffer file's SHA-512, so that it is not hashed twice."""
    conn.execute(
        "INSERT OR REPLACE INTO rehashed (name, device, inode, size_bytes, mtime_ns, ctime_ns, "
        "sha512) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, *astuple(stat), sha512),
    )


# --- what was archived ----------------------------------------------------------------------


def totals(conn: Connection, since: str = "") -> tuple[int, int]:
    """Return how many files were archived (since then), and their bytes."""
    files, size_bytes = conn.execute(
        "SELECT count(*), coalesce(sum(size_bytes), 0) FROM files WHERE archived_at >= ?", (since,)
    ).fetchone()
    return files, size_bytes


def last_archived_at(conn: Connection) -> str | None:
    """Return when the last file was archived."""
    at: str | None = conn.execute("SELECT max(archived_at) FROM files").fetchone()[0]
    return at


def archived_by_day(conn: Connection, since: str) -> list[DayDone]:
    """Return what was archived on each day since then, without days when nothing was."""
    rows = conn.execute(
        "SELECT substr(archived_at, 1, 10) AS day, count(*), sum(size_bytes) "
        "FROM files WHERE archived_at >= ? GROUP BY day ORDER BY day",
        (since,),
    )
    return [DayDone(*row) for row in rows]


def unarchived(conn: Connection) -> list[tuple[int, str]]:
    """Return id and name of each file that never had a good copy in each role."""
    return [(*row,) for row in conn.execute("SELECT id, name FROM files WHERE archived_at IS NULL")]
