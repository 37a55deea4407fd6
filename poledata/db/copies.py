"""Queries on the copies: what a disk should hold, what is bad, what is lacking."""

from __future__ import annotations

import re
import sqlite3
from array import array

from poledata.db.connection import Connection
from poledata.models import CopyOnDisk, CopyState, Disk, Role, VerifiedBy

# Of a copy ``c`` on the disk ``d``.
_MADE_AGAIN = (
    "EXISTS (SELECT 1 FROM copies o JOIN disks e ON e.id = o.disk_id WHERE o.file_id = c.file_id "
    "AND o.disk_id <> c.disk_id AND o.state = 'good' AND e.role = d.role AND e.state <> 'lost')"
)


# Of a disk, those that were not verified since a time.
_DUE = (
    "FROM copies c JOIN files f ON f.id = c.file_id JOIN disks d ON d.id = c.disk_id "
    "WHERE d.id = ? "
    "AND NOT (c.state = 'missing' AND c.written_at < coalesce(d.first_used_at, '9')) "
    f"AND NOT (c.state <> 'good' AND {_MADE_AGAIN}) "
    "AND coalesce(c.verified_at, '') < coalesce(?, '9')"
)


def copy_ids_on(conn: Connection, disk: Disk, not_since: str | None = None) -> array[int]:
    """The ids of the files that should be on a disk, the least recently verified first.

    ``not_since``: only copies that were not verified since then. As copies_on else, but without
    bad ones that were made again elsewhere: nobody counts on them any more.
    """
    rows = conn.execute(
        f"SELECT c.file_id {_DUE} ORDER BY c.verified_at, f.name", (disk.id, not_since)
    )
    return array("q", (row["file_id"] for row in rows))


def due_bytes(conn: Connection, disk: Disk, not_since: str | None = None) -> int:
    """How much is to be read to verify these."""
    row = conn.execute(
        f"SELECT coalesce(sum(f.size_bytes), 0) AS bytes {_DUE}", (disk.id, not_since)
    ).fetchone()
    return int(row["bytes"])


def copy_on(conn: Connection, disk: Disk, file_id: int) -> CopyOnDisk | None:
    """One copy on a disk."""
    row = conn.execute(
        "SELECT f.id, f.name, f.size_bytes, f.sha512, c.state FROM copies c "
        "JOIN files f ON f.id = c.file_id WHERE c.disk_id = ? AND c.file_id = ?",
        (disk.id, file_id),
    ).fetchone()
    return _on_disk(row) if row else None


def bad_copies_on(conn: Connection, disk: Disk) -> int:
    """How many copies on a disk are damaged or missing, and were not made again elsewhere."""
    row = conn.execute(
        "SELECT count(*) AS n FROM copies c JOIN disks d ON d.id = c.disk_id WHERE d.id = ? "
        "AND c.state IN ('damaged', 'missing') AND c.written_at >= coalesce(d.first_used_at, '9') "
        f"AND NOT {_MADE_AGAIN}",
        (disk.id,),
    ).fetchone()
    return int(row["n"])


def has_both_copies(conn: Connection, name: str) -> bool:
    """Whether a file of this name has a good copy in each role now; False if there is none."""
    row = conn.execute(
        "SELECT count(DISTINCT d.role) AS n FROM files f JOIN copies c ON c.file_id = f.id "
        "JOIN disks d ON d.id = c.disk_id "
        "WHERE f.name = ? AND c.state = 'good' AND d.state <> 'lost'",
        (name,),
    ).fetchone()
    return int(row["n"]) == len(Role)


def ids_made_again(conn: Connection, disk: Disk, after_id: int = 0) -> array[int]:
    """The ids of files whose copy on a disk is bad, and which another disk of its role has.

    In their order, those that come after ``after_id``.
    """
    rows = conn.execute(
        "SELECT c.file_id FROM copies c JOIN disks d ON d.id = c.disk_id WHERE d.id = ? "
        "AND c.state IN ('damaged', 'missing') AND c.written_at >= coalesce(d.first_used_at, '9') "
        f"AND c.file_id > ? AND {_MADE_AGAIN} ORDER BY c.file_id",
        (disk.id, after_id),
    )
    return array("q", (row["file_id"] for row in rows))


def ids_lacking(conn: Connection, role: Role, emptied: Disk | None = None) -> array[int]:
    """The ids of files that have a copy, but no good one in a role, by name.

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


def copies_on(conn: Connection, disk: Disk) -> list[CopyOnDisk]:
    """Every file that should be on a disk, the least recently verified first.

    What a drive held before it was lost, and came back wiped, is not expected on it.
    """
    rows = conn.execute(
        "SELECT f.id, f.name, f.size_bytes, f.sha512, c.state FROM copies c "
        "JOIN files f ON f.id = c.file_id JOIN disks d ON d.id = c.disk_id WHERE d.id = ? "
        "AND NOT (c.state = 'missing' AND c.written_at < coalesce(d.first_used_at, '9')) "
        "ORDER BY c.verified_at, f.name",
        (disk.id,),
    )
    return [_on_disk(row) for row in rows]


def _on_disk(row: sqlite3.Row) -> CopyOnDisk:
    state = CopyState(row["state"])
    return CopyOnDisk(row["id"], row["name"], row["size_bytes"], row["sha512"], state)


def had_copies(conn: Connection, disk: Disk) -> bool:
    """Whether a drive was ever used, also in an earlier life."""
    row = conn.execute("SELECT 1 FROM copies WHERE disk_id = ? LIMIT 1", (disk.id,)).fetchone()
    return row is not None


def count_on(conn: Connection, disk: Disk) -> tuple[int, int]:
    """How many good copies a disk has, and their bytes."""
    row = conn.execute(
        "SELECT count(*) AS files, coalesce(sum(f.size_bytes), 0) AS bytes FROM copies c "
        "JOIN files f ON f.id = c.file_id WHERE c.disk_id = ? AND c.state = 'good'",
        (disk.id,),
    ).fetchone()
    return row["files"], row["bytes"]


def lacking_another(conn: Connection, disk: Disk) -> list[str]:
    """The names of files on a disk that have no good copy in the other role on any drive."""
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
    """The names of files that were on this disk and now have no good copy anywhere."""
    rows = conn.execute(
        "SELECT f.name FROM copies c JOIN files f ON f.id = c.file_id WHERE c.disk_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM copies o WHERE o.file_id = c.file_id "
        "AND o.state = 'good') ORDER BY f.name",
        (disk.id,),
    )
    return [row["name"] for row in rows]


def count_without_good_copy(conn: Connection) -> int:
    """How many files have copies, and not one that is good."""
    row = conn.execute(
        "SELECT count(DISTINCT c.file_id) AS n FROM copies c "
        "WHERE c.disk_id IN (SELECT id FROM disks) AND c.state IN ('damaged', 'missing') "
        "AND NOT EXISTS (SELECT 1 FROM copies o WHERE o.file_id = c.file_id AND o.state = 'good')"
    ).fetchone()
    return int(row["n"])


def copies_are_missing(conn: Connection, disk: Disk) -> None:
    """A disk is lost, with all that was on it."""
    conn.execute("UPDATE copies SET state = 'missing' WHERE disk_id = ?", (disk.id,))


def bad_copies(conn: Connection, disk: Disk) -> str:
    """The copies on a disk that are not good, as text for ``copies_are_back``."""
    rows = conn.execute(
        "SELECT state, file_id FROM copies WHERE disk_id = ? AND state <> 'good'", (disk.id,)
    )
    return ", ".join(f"{row['state']} {row['file_id']}" for row in rows) or "none"


def copies_are_back(conn: Connection, disk: Disk, bad: str | None) -> None:
    """A disk was not lost: its copies are again what they were before.

    ``bad``: those that were not good then. None (1.0.0 did not write it down): what the drive
    held before it came back wiped stays missing, and all others have to be read again.
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


def verified(
    conn: Connection,
    copy: CopyOnDisk,
    disk: Disk,
    state: CopyState,
    how: VerifiedBy | None,
    at: str,
) -> None:
    """What reading a copy back found."""
    conn.execute(
        "UPDATE copies SET state = ?, verified_at = ?, verified_by = coalesce(?, verified_by) "
        "WHERE file_id = ? AND disk_id = ?",
        (state.value, at, how.value if how else None, copy.file_id, disk.id),
    )


# --- when they were read, and what was found ---------------------------------------------


def set_copy_state(conn: Connection, file_id: int, disk: Disk, state: CopyState) -> None:
    """What a look at a copy found."""
    conn.execute(
        "UPDATE copies SET state = ? WHERE file_id = ? AND disk_id = ?",
        (state.value, file_id, disk.id),
    )


def drop_copy(conn: Connection, file_id: int, disk: Disk) -> None:
    """Nothing of this file is expected on a disk any more: what was there was set aside."""
    conn.execute("DELETE FROM copies WHERE file_id = ? AND disk_id = ?", (file_id, disk.id))


def oldest_verified_at(conn: Connection, disk: Disk) -> str | None:
    """When the good copy of a disk was read that was not read for longest."""
    row = conn.execute(
        "SELECT min(verified_at) AS at FROM copies WHERE disk_id = ? AND state = 'good'",
        (disk.id,),
    ).fetchone()
    return row["at"] if row else None


def never_read(conn: Connection, disk: Disk, written_before: str | None = None) -> int:
    """How many good copies of a disk were never read back, of all or of those of that age."""
    row = conn.execute(
        "SELECT count(*) AS n FROM copies WHERE disk_id = ? AND state = 'good' "
        "AND verified_at IS NULL AND written_at < coalesce(?, '9')",
        (disk.id, written_before),
    ).fetchone()
    return int(row["n"])


def not_read_since(conn: Connection, disk: Disk, at: str) -> int:
    """How many good copies of a disk are older than that, and were not read since."""
    row = conn.execute(
        "SELECT count(*) AS n FROM copies WHERE disk_id = ? AND state = 'good' AND verified_at < ?",
        (disk.id, at),
    ).fetchone()
    return int(row["n"]) + never_read(conn, disk, at)
