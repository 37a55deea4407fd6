"""Queries on the copies: what a disk should hold, what is bad, what is missing."""

from __future__ import annotations

import json
import re
import sqlite3
from array import array
from collections.abc import Iterator, Sequence

from poledata.db.sqlite import Connection
from poledata.models import CopyOnDisk, CopyState, Disk, Role, VerifiedBy

# Conditions on a copy ``c`` on the disk ``d``.
_MADE_AGAIN = (
    "EXISTS (SELECT 1 FROM copies o JOIN disks e ON e.id = o.disk_id WHERE o.file_id = c.file_id "
    "AND o.disk_id <> c.disk_id AND o.state = 'good' AND e.role = d.role AND e.state <> 'lost')"
)
_BAD = "c.state IN ('damaged', 'missing') AND c.written_at >= coalesce(d.first_used_at, '9')"
# The copies that a disk should hold: not those of a drive that was lost and came back wiped.
_EXPECTED = (
    "FROM copies c JOIN files f ON f.id = c.file_id JOIN disks d ON d.id = c.disk_id "
    "WHERE d.id = ? AND NOT (c.state = 'missing' AND c.written_at < coalesce(d.first_used_at, '9'))"
)
# Those of them that were not verified since a time.
_DUE = (
    f"{_EXPECTED} AND NOT (c.state <> 'good' AND {_MADE_AGAIN}) "
    "AND coalesce(c.verified_at, '') < coalesce(?, '9')"
)


def copy_ids_on(conn: Connection, disk: Disk, not_since: str | None = None) -> array[int]:
    """Return the ids of the files to verify on a disk, the least recently verified first.

    ``not_since``: only copies that were not verified since then. Bad ones that were made again
    elsewhere are left out: they are no longer needed.
    """
    rows = conn.execute(
        f"SELECT c.file_id {_DUE} ORDER BY c.verified_at, f.name", (disk.id, not_since)
    )
    return array("q", (row["file_id"] for row in rows))


def due_bytes(conn: Connection, disk: Disk, not_since: str | None = None) -> int:
    """Return how many bytes must be read to verify these."""
    rows = conn.execute(f"SELECT coalesce(sum(f.size_bytes), 0) {_DUE}", (disk.id, not_since))
    return int(rows.fetchone()[0])


def copy_on(conn: Connection, disk: Disk, file_id: int) -> CopyOnDisk | None:
    """Return one copy on a disk."""
    row = conn.execute(
        f"SELECT {_COPY} FROM copies c JOIN files f ON f.id = c.file_id "
        "WHERE c.disk_id = ? AND c.file_id = ?",
        (disk.id, file_id),
    ).fetchone()
    return _on_disk(row) if row else None


def file_on(conn: Connection, disk: Disk, name: str) -> CopyOnDisk | None:
    """Return a file and the state of its copy on a disk, which may have none; None if unknown."""
    row = conn.execute(
        f"SELECT {_COPY} FROM files f "
        "LEFT JOIN copies c ON c.file_id = f.id AND c.disk_id = ? WHERE f.name = ?",
        (disk.id, name),
    ).fetchone()
    return _on_disk(row) if row else None


def best_copies(
    conn: Connection, disk_ids: Sequence[int], since: str
) -> Iterator[tuple[str, int | None]]:
    """Yield the name of each file archived since then, and the disk of its newest good copy.

    Only these disks count, a primary before a copy; None: the file has no good copy on them.
    """
    after, ids = 0, json.dumps(list(disk_ids))
    while True:
        rows = conn.execute(
            "SELECT f.id, f.name, (SELECT c.disk_id FROM copies c JOIN disks d ON d.id = c.disk_id "
            "WHERE c.file_id = f.id AND c.state = 'good' "
            "AND d.id IN (SELECT value FROM json_each(?)) "
            "ORDER BY d.role = 'primary' DESC, c.written_at DESC, d.id DESC LIMIT 1) FROM files f "
            "WHERE f.id > ? AND f.archived_at >= ? ORDER BY f.id LIMIT 10000",
            (ids, after, since),
        ).fetchall()
        yield from ((row[1], row[2]) for row in rows)
        if not rows:
            return
        after = rows[-1][0]


def copies_on(conn: Connection, disk: Disk) -> list[CopyOnDisk]:
    """Return every file that should be on a disk, the least recently verified first."""
    rows = conn.execute(f"SELECT {_COPY} {_EXPECTED} ORDER BY c.verified_at, f.name", (disk.id,))
    return [_on_disk(row) for row in rows]


_COPY = "f.id, f.name, f.size_bytes, f.sha512, c.state"


def _on_disk(row: sqlite3.Row) -> CopyOnDisk:
    file_id, name, size_bytes, sha512, state = row
    return CopyOnDisk(file_id, name, size_bytes, sha512, CopyState(state) if state else None)


def bad_copies_on(conn: Connection, disk: Disk) -> int:
    """Return how many copies on a disk are damaged or missing, and not made again elsewhere."""
    rows = conn.execute(
        "SELECT count(*) FROM copies c JOIN disks d ON d.id = c.disk_id "
        f"WHERE d.id = ? AND {_BAD} AND NOT {_MADE_AGAIN}",
        (disk.id,),
    )
    return int(rows.fetchone()[0])


def has_both_copies(conn: Connection, name: str) -> bool:
    """True if there is a file of this name, with a good copy in each role now."""
    rows = conn.execute(
        "SELECT count(DISTINCT d.role) FROM files f JOIN copies c ON c.file_id = f.id "
        "JOIN disks d ON d.id = c.disk_id "
        "WHERE f.name = ? AND c.state = 'good' AND d.state <> 'lost'",
        (name,),
    )
    return int(rows.fetchone()[0]) == len(Role)


def ids_made_again(conn: Connection, disk: Disk, after_id: int = 0) -> array[int]:
    """Return the ids after ``after_id`` of files whose copy on a disk is bad, and was made again.

    The other copy is on another disk of its role. In ascending order.
    """
    rows = conn.execute(
        "SELECT c.file_id FROM copies c JOIN disks d ON d.id = c.disk_id "
        f"WHERE d.id = ? AND {_BAD} AND c.file_id > ? AND {_MADE_AGAIN} ORDER BY c.file_id",
        (disk.id, after_id),
    )
    return array("q", (row["file_id"] for row in rows))


def ids_lacking(conn: Connection, role: Role, emptied: Disk | None = None) -> array[int]:
    """Return the ids of files that have a copy, but no good one in a role, by name.

    Copies on a lost disk, or on the one that is ``emptied``, do not count.
    """
    but = emptied.id if emptied else -1
    rows = conn.execute(
        "SELECT f.id FROM files f WHERE f.id IN ("
        "SELECT c.file_id FROM copies c JOIN disks d ON d.id = c.disk_id "
        "WHERE c.disk_id IN (SELECT id FROM disks) AND d.role = ? "
        "AND (c.state IN ('damaged', 'missing') OR c.disk_id = ?) "
        "UNION SELECT id FROM files WHERE archived_at IS NULL AND ? < 0) "
        "AND EXISTS (SELECT 1 FROM copies WHERE file_id = f.id) AND NOT EXISTS ("
        "SELECT 1 FROM copies o JOIN disks e ON e.id = o.disk_id WHERE o.file_id = f.id "
        "AND o.state = 'good' AND e.role = ? AND e.state <> 'lost' AND e.id <> ?) ORDER BY f.name",
        (role.value, but, but, role.value, but),
    )
    return array("q", (row["id"] for row in rows))


def had_copies(conn: Connection, disk: Disk) -> bool:
    """True if a drive was ever used, also before it came back wiped."""
    row = conn.execute("SELECT 1 FROM copies WHERE disk_id = ? LIMIT 1", (disk.id,)).fetchone()
    return row is not None


def count_on(conn: Connection, disk: Disk) -> tuple[int, int]:
    """Return how many good copies a disk has, and their bytes."""
    files, size_bytes = conn.execute(
        "SELECT count(*), coalesce(sum(f.size_bytes), 0) FROM copies c "
        "JOIN files f ON f.id = c.file_id WHERE c.disk_id = ? AND c.state = 'good'",
        (disk.id,),
    ).fetchone()
    return files, size_bytes


def other_copies(conn: Connection, disk: Disk) -> list[tuple[str, int]]:
    """Return which disks have the other copies of what is on this one, and of how many files."""
    rows = conn.execute(
        "SELECT d.label, count(*) AS files FROM copies c "
        "JOIN copies o ON o.file_id = c.file_id AND o.state = 'good' "
        "JOIN disks d ON d.id = o.disk_id AND d.role <> ? AND d.state <> 'lost' "
        "WHERE c.disk_id = ? AND c.state <> 'missing' GROUP BY d.id ORDER BY files DESC, d.id",
        (disk.role.value, disk.id),
    )
    return [(row["label"], row["files"]) for row in rows]


def lacking_another(conn: Connection, disk: Disk) -> list[str]:
    """Return the names of files on a disk that have no good copy in the other role."""
    rows = conn.execute(
        "SELECT f.name FROM copies c JOIN files f ON f.id = c.file_id WHERE c.disk_id = ? "
        "AND c.state <> 'missing' AND NOT EXISTS ("
        "SELECT 1 FROM copies o JOIN disks d ON d.id = o.disk_id "
        "WHERE o.file_id = c.file_id AND o.state = 'good' AND d.role <> ? "
        "AND d.state <> 'lost') ORDER BY f.name",
        (disk.id, disk.role.value),
    )
    return [row["name"] for row in rows]


def without_good_copy(conn: Connection, disk: Disk) -> list[str]:
    """Return the names of files that were on this disk and now have no good copy anywhere."""
    rows = conn.execute(
        "SELECT f.name FROM copies c JOIN files f ON f.id = c.file_id WHERE c.disk_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM copies o WHERE o.file_id = c.file_id "
        "AND o.state = 'good') ORDER BY f.name",
        (disk.id,),
    )
    return [row["name"] for row in rows]


def count_without_good_copy(conn: Connection) -> int:
    """Return how many files have copies, but no good one."""
    rows = conn.execute(
        "SELECT count(DISTINCT c.file_id) FROM copies c "
        "WHERE c.disk_id IN (SELECT id FROM disks) AND c.state IN ('damaged', 'missing') "
        "AND NOT EXISTS (SELECT 1 FROM copies o WHERE o.file_id = c.file_id AND o.state = 'good')"
    )
    return int(rows.fetchone()[0])


# --- changes ------------------------------------------------------------------------------


def note_all_missing(conn: Connection, disk: Disk) -> None:
    """Note that a disk is lost, with all its copies."""
    conn.execute("UPDATE copies SET state = 'missing' WHERE disk_id = ?", (disk.id,))


def bad_copies(conn: Connection, disk: Disk) -> str:
    """Return the copies on a disk that are not good, as text for ``restore_states``."""
    rows = conn.execute(
        "SELECT state, file_id FROM copies WHERE disk_id = ? AND state <> 'good'", (disk.id,)
    )
    return ", ".join(f"{row['state']} {row['file_id']}" for row in rows) or "none"


def restore_states(conn: Connection, disk: Disk, bad: str | None) -> None:
    """Restore the states of a disk's copies from before it was noted as lost by mistake.

    ``bad``: those that were not good then. None (1.0.0 did not store it): what the drive held
    before it came back wiped stays missing, and all others have to be verified again.
    """
    conn.execute(
        "UPDATE copies SET state = 'good' WHERE disk_id = ? AND (? OR written_at >= "
        "coalesce((SELECT first_used_at FROM disks WHERE id = disk_id), ''))",
        (disk.id, bad is not None),
    )
    if bad is None:
        conn.execute(
            "UPDATE copies SET verified_at = NULL, verified_by = NULL WHERE disk_id = ?",
            (disk.id,),
        )
    for state, file_id in re.findall(r"(\w+) (\d+)", bad or ""):
        set_copy_state(conn, int(file_id), disk, CopyState(state))


def note_verified(
    conn: Connection,
    file_id: int,
    disk: Disk,
    state: CopyState,
    how: VerifiedBy | None,
    at: str,
) -> None:
    """Note what reading a copy back found."""
    conn.execute(
        "UPDATE copies SET state = ?, verified_at = ?, verified_by = coalesce(?, verified_by) "
        "WHERE file_id = ? AND disk_id = ?",
        (state.value, at, how.value if how else None, file_id, disk.id),
    )


def set_copy_state(conn: Connection, file_id: int, disk: Disk, state: CopyState) -> None:
    """Note the state in which a copy was found."""
    conn.execute(
        "UPDATE copies SET state = ? WHERE file_id = ? AND disk_id = ?",
        (state.value, file_id, disk.id),
    )


def drop_copy(conn: Connection, file_id: int, disk: Disk) -> None:
    """Remove a copy from the database: what was on the disk was set aside."""
    conn.execute("DELETE FROM copies WHERE file_id = ? AND disk_id = ?", (file_id, disk.id))


# --- when they were verified --------------------------------------------------------------


def oldest_verified_at(conn: Connection, disk: Disk) -> str | None:
    """Return when the least recently verified good copy of a disk was verified."""
    at: str | None = conn.execute(
        "SELECT min(verified_at) FROM copies WHERE disk_id = ? AND state = 'good'", (disk.id,)
    ).fetchone()[0]
    return at


def never_read(conn: Connection, disk: Disk, written_before: str | None = None) -> int:
    """Return how many good copies of a disk (of that age) were never read back."""
    rows = conn.execute(
        "SELECT count(*) FROM copies WHERE disk_id = ? AND state = 'good' "
        "AND verified_at IS NULL AND written_at < coalesce(?, '9')",
        (disk.id, written_before),
    )
    return int(rows.fetchone()[0])


def not_read_since(conn: Connection, disk: Disk, at: str) -> int:
    """Return how many good copies of a disk are older than that, and were not read since."""
    rows = conn.execute(
        "SELECT count(*) FROM copies WHERE disk_id = ? AND state = 'good' AND verified_at < ?",
        (disk.id, at),
    )
    return int(rows.fetchone()[0]) + never_read(conn, disk, at)
