"""Queries for a catalogue that is made from the disks: rows are added, no SHA-512 is changed."""

from __future__ import annotations

from poledata.db import Connection
from poledata.records import CopyState, Disk, FileRow

__all__ = [
    "add_file",
    "add_unverified_copy",
    "archived_if_in_both_roles",
    "file_row",
    "labels_of",
    "mend_size",
]


def file_row(conn: Connection, name: str, disk: Disk) -> FileRow | None:
    """What is known of a name, and of its copy on one disk."""
    row = conn.execute(
        "SELECT f.id, f.size_bytes, f.sha512, c.state FROM files f "
        "LEFT JOIN copies c ON c.file_id = f.id AND c.disk_id = ? WHERE f.name = ?",
        (disk.id, name),
    ).fetchone()
    if row is None:
        return None
    state = CopyState(row["state"]) if row["state"] else None
    return FileRow(row["id"], row["size_bytes"], row["sha512"], state)


def labels_of(conn: Connection, name: str) -> list[str]:
    """The disks that have a copy of a file, whatever its state."""
    rows = conn.execute(
        "SELECT d.label FROM files f JOIN copies c ON c.file_id = f.id "
        "JOIN disks d ON d.id = c.disk_id WHERE f.name = ? ORDER BY d.role DESC, d.id",
        (name,),
    )
    return [row["label"] for row in rows]


def add_file(conn: Connection, name: str, sha512: str, size_bytes: int, mtime_ns: int) -> int:
    """A file that no row knows; its id."""
    cursor = conn.execute(
        "INSERT INTO files (name, size_bytes, sha512, mtime_ns) VALUES (?, ?, ?, ?)",
        (name, size_bytes, sha512, mtime_ns),
    )
    assert cursor.lastrowid
    return cursor.lastrowid


def add_unverified_copy(
    conn: Connection,
    file_id: int,
    disk: Disk,
    state: CopyState,
    mtime_ns: int | None,
    written_at: str,
) -> None:
    """A copy that nobody has read back for this database: no ground for removing anything.

    Without a time of its own (it is missing) it has the file's.
    """
    conn.execute(
        "INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at) "
        "VALUES (?, ?, ?, coalesce(?, (SELECT mtime_ns FROM files WHERE id = ?)), ?) "
        "ON CONFLICT (file_id, disk_id) DO UPDATE SET state = excluded.state, "
        "mtime_ns = excluded.mtime_ns, written_at = excluded.written_at, verified_at = NULL, "
        "verified_by = NULL",
        (file_id, disk.id, state.value, mtime_ns, file_id, written_at),
    )


def archived_if_in_both_roles(conn: Connection, file_id: int) -> None:
    """A file with a good copy in each role is archived since the later one was written."""
    conn.execute(
        "UPDATE files SET archived_at = (SELECT max(written_at) FROM copies "
        "WHERE file_id = files.id AND state = 'good') WHERE id = ? AND archived_at IS NULL AND ("
        "SELECT count(DISTINCT d.role) FROM copies c JOIN disks d ON d.id = c.disk_id "
        "WHERE c.file_id = files.id AND c.state = 'good') = 2",
        (file_id,),
    )


def mend_size(conn: Connection, file_id: int, size_bytes: int, mtime_ns: int) -> None:
    """The size was that of a damaged copy, as reading another one has shown."""
    conn.execute(
        "UPDATE files SET size_bytes = ?, mtime_ns = ? WHERE id = ?",
        (size_bytes, mtime_ns, file_id),
    )
    conn.execute(
        "UPDATE copies SET state = 'damaged' "
        "WHERE file_id = ? AND state = 'good' AND verified_at IS NULL",
        (file_id,),
    )
