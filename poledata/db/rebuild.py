"""Queries to rebuild a database from the disks: rows are added, no SHA-512 is changed."""

from __future__ import annotations

from poledata.db.sqlite import Connection
from poledata.models import CopyState, Disk

# Disks used there, and here unknown or an unused spare. ``o``: the disk there; ``d``: here.
_THERE_ALONE = (
    "FROM other.disks o LEFT JOIN main.disks d ON d.serial = o.serial "
    "AND d.logical_id = o.logical_id WHERE EXISTS ("
    "SELECT 1 FROM other.copies c WHERE c.disk_id = o.id AND c.state = 'good') AND ("
    "d.id IS NULL OR d.state = 'spare' AND NOT EXISTS ("
    "SELECT 1 FROM main.disk_events e WHERE e.disk_id = d.id AND e.event = 'came back'))"
)
# Note the files with a good copy in each role as archived when the later one was written.
_NOTE_ARCHIVED = (
    "UPDATE main.files SET archived_at = (SELECT max(written_at) FROM main.copies "
    "WHERE file_id = files.id AND state = 'good') WHERE archived_at IS NULL AND ("
    "SELECT count(DISTINCT d.role) FROM main.copies c JOIN main.disks d ON d.id = c.disk_id "
    "WHERE c.file_id = files.id AND c.state = 'good') = 2"
)


def labels_of(conn: Connection, name: str) -> list[str]:
    """Return the labels of the disks that have a copy of a file, in any state."""
    rows = conn.execute(
        "SELECT d.label FROM files f JOIN copies c ON c.file_id = f.id "
        "JOIN disks d ON d.id = c.disk_id WHERE f.name = ? ORDER BY d.role DESC, d.id",
        (name,),
    )
    return [row["label"] for row in rows]


def add_file(conn: Connection, name: str, sha512: str, size_bytes: int, mtime_ns: int) -> int:
    """Add a file that is not yet known; return its id."""
    file_id = conn.execute(
        "INSERT INTO files (name, size_bytes, sha512, mtime_ns) VALUES (?, ?, ?, ?)",
        (name, size_bytes, sha512, mtime_ns),
    ).lastrowid
    assert file_id
    return file_id


def add_unverified_copy(
    conn: Connection,
    file_id: int,
    disk: Disk,
    state: CopyState,
    mtime_ns: int | None,
    written_at: str,
) -> None:
    """Add a copy that was not read back for this database: it never justifies a removal.

    Without a modification time of its own (it is missing) it has the file's. A file with a good
    copy in each role is then archived since the later one was written.
    """
    conn.execute(
        "INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at) "
        "VALUES (?, ?, ?, coalesce(?, (SELECT mtime_ns FROM files WHERE id = ?)), ?) "
        "ON CONFLICT (file_id, disk_id) DO UPDATE SET state = excluded.state, "
        "mtime_ns = excluded.mtime_ns, written_at = excluded.written_at, verified_at = NULL, "
        "verified_by = NULL",
        (file_id, disk.id, state.value, mtime_ns, file_id, written_at),
    )
    conn.execute(f"{_NOTE_ARCHIVED} AND id = ?", (file_id,))


def correct_size(conn: Connection, file_id: int, size_bytes: int, mtime_ns: int) -> None:
    """Correct a size that was that of a damaged copy, as reading another copy has shown."""
    conn.execute(
        "UPDATE files SET size_bytes = ?, mtime_ns = ? WHERE id = ?",
        (size_bytes, mtime_ns, file_id),
    )
    conn.execute(
        "UPDATE copies SET state = 'damaged' "
        "WHERE file_id = ? AND state = 'good' AND verified_at IS NULL",
        (file_id,),
    )


def knowledge(conn: Connection) -> tuple[int, str, int]:
    """Return how much a database knows: files, when the newest was archived, events of disks."""
    files, newest, events = conn.execute(
        "SELECT count(*), coalesce(max(archived_at), ''), (SELECT count(*) FROM disk_events) "
        "FROM files"
    ).fetchone()
    return files, newest, events


def known_elsewhere(conn: Connection) -> tuple[int, int]:
    """Return how many files, and disks with files, only ``other`` (an attached copy) knows."""
    (files,) = conn.execute(
        "SELECT count(*) FROM other.files f WHERE NOT EXISTS ("
        "SELECT 1 FROM main.files m WHERE m.name = f.name) AND EXISTS ("
        "SELECT 1 FROM other.copies c WHERE c.file_id = f.id AND c.state = 'good')"
    ).fetchone()
    (disks,) = conn.execute(f"SELECT count(*) {_THERE_ALONE}").fetchone()
    return files, disks


def add_disks_of_copy(conn: Connection) -> list[str]:
    """Add the disks that only ``other`` knows, with their files and copies; return their labels.

    The copies are unverified. A disk whose label another drive at the station has is left out.
    """
    rows = conn.execute(f"SELECT o.id AS theirs, d.id AS ours, o.label {_THERE_ALONE}").fetchall()
    return [row["label"] for row in rows if _add_disk(conn, row["theirs"], row["ours"])]


def _add_disk(conn: Connection, theirs: int, ours: int | None) -> bool:
    if ours is None:
        ours = conn.execute(
            "INSERT OR IGNORE INTO main.disks (label, role, serial, logical_id, stand_in, state) "
            "SELECT label, role, serial, logical_id, stand_in, state FROM other.disks "
            "WHERE id = ?",
            (theirs,),
        ).lastrowid
        if not conn.execute("SELECT changes() AS n").fetchone()["n"]:
            return False
    conn.execute(
        "UPDATE main.disks SET (state, held_by, held_reason, capacity_bytes, used_bytes, "
        "free_bytes, measured_at, first_used_at, last_used_at) = (SELECT state, held_by, "
        "held_reason, capacity_bytes, used_bytes, free_bytes, measured_at, first_used_at, "
        "last_used_at FROM other.disks WHERE id = ?) WHERE id = ?",
        (theirs, ours),
    )
    _add_files(conn, theirs, ours)
    return True


def _add_files(conn: Connection, theirs: int, ours: int | None) -> None:
    conn.execute(  # "bad copies" names files by their ids there
        "INSERT INTO main.disk_events (disk_id, at, event, reason) SELECT ?, at, event, reason "
        "FROM other.disk_events WHERE disk_id = ? AND event <> 'bad copies' ORDER BY id",
        (ours, theirs),
    )
    conn.execute(
        "INSERT INTO main.files (name, size_bytes, sha512, mtime_ns) "
        "SELECT name, size_bytes, sha512, f.mtime_ns FROM other.copies c "
        "JOIN other.files f ON f.id = c.file_id WHERE c.disk_id = ? AND NOT EXISTS ("
        "SELECT 1 FROM main.files m WHERE m.name = f.name)",
        (theirs,),
    )
    conn.execute(
        "INSERT INTO main.copies (file_id, disk_id, state, mtime_ns, written_at) "
        "SELECT m.id, ?, c.state, c.mtime_ns, c.written_at FROM other.copies c "
        "JOIN other.files f ON f.id = c.file_id "
        "JOIN main.files m ON m.name = f.name AND m.sha512 = f.sha512 WHERE c.disk_id = ?",
        (ours, theirs),
    )
    conn.execute(
        f"{_NOTE_ARCHIVED} AND id IN (SELECT file_id FROM main.copies WHERE disk_id = ?)", (ours,)
    )
