"""Queries on disks and on their events."""

from __future__ import annotations

import sqlite3
from dataclasses import fields

from poledata.db.sqlite import Connection
from poledata.models import Disk, DiskState, HealthCheck, Role

# Events of a disk: verify could not read it to the end; later it could.
NOT_READ, READ = "not read", "read again"
BAD_BEFORE_LOSS = "bad copies"  # right before a disk is lost: which of its copies were not good
_STATE_AFTER = {
    "registered": DiskState.SPARE,
    "came back": DiskState.SPARE,
    "first use": DiskState.ACTIVE,
    "closed": DiskState.CLOSED,
    "shipped": DiskState.SHIPPED,
    "not shipped": DiskState.CLOSED,
    "received": DiskState.RECEIVED,
}
DISK_COLUMNS = ", ".join(f"d.{field.name}" for field in fields(Disk))
_FIELDS = len(fields(Disk))


def disks(conn: Connection) -> list[Disk]:
    """Return every disk that the database knows."""
    rows = conn.execute(f"SELECT {DISK_COLUMNS} FROM disks d ORDER BY d.id")
    return [disk_of(row) for row in rows]


def add_disk(
    conn: Connection, label: str, role: Role, serial: str, logical_id: str, stand_in: bool, at: str
) -> None:
    """Register a drive as a spare."""
    cursor = conn.execute(
        "INSERT INTO disks (label, role, serial, logical_id, stand_in) VALUES (?, ?, ?, ?, ?)",
        (label, role.value, serial, logical_id, int(stand_in)),
    )
    note_event(conn, cursor.lastrowid, at, "registered", None)


def find_disks(conn: Connection, label_or_serial: str) -> list[Disk]:
    """Return the disk of this label at the station; otherwise those of this serial or old label."""
    here = "(d.state NOT IN ('shipped', 'received', 'lost'))"
    rows = conn.execute(
        f"SELECT {DISK_COLUMNS}, {here} AS here FROM disks d "
        "WHERE d.label = ? OR upper(d.serial) = upper(?) ORDER BY here DESC, d.id",
        (label_or_serial, label_or_serial),
    ).fetchall()
    return [disk_of(row) for row in rows if row["here"] == rows[0]["here"]]


def set_state(
    conn: Connection, disk: Disk, state: DiskState, reason: str | None, at: str, event: str = ""
) -> None:
    """Put a disk into another state; the event is named after it, unless it has its own name."""
    conn.execute("UPDATE disks SET state = ? WHERE id = ?", (state.value, disk.id))
    note_event(conn, disk.id, at, event or state.value, reason)


def before_loss(conn: Connection, disk: Disk) -> tuple[DiskState, str | None]:
    """Return a lost disk's state before, and its copies that were not good then (None: unknown)."""
    rows = conn.execute(
        "SELECT event, reason FROM disk_events WHERE disk_id = ? AND id < (SELECT max(id) "
        "FROM disk_events WHERE disk_id = ? AND event = 'lost') ORDER BY id DESC",
        (disk.id, disk.id),
    ).fetchall()
    bad = rows[0]["reason"] if rows and rows[0]["event"] == BAD_BEFORE_LOSS else None
    states = (_STATE_AFTER[row["event"]] for row in rows if row["event"] in _STATE_AFTER)
    return next(states, DiskState.SPARE), bad


def unsealed_disks(conn: Connection) -> list[Disk]:
    """Return the closed disks whose bag is not known to be finished."""
    rows = conn.execute(
        f"SELECT {DISK_COLUMNS} FROM disks d WHERE d.state = 'closed' AND NOT EXISTS ("
        "SELECT 1 FROM disk_events e WHERE e.disk_id = d.id AND e.event = 'sealed' AND e.id > "
        "(SELECT max(id) FROM disk_events WHERE disk_id = d.id AND event = 'closed'))"
    )
    return [disk_of(row) for row in rows]


def last_event(conn: Connection, disk: Disk, event: str) -> str | None:
    """Return when an event last happened to a disk."""
    at: str | None = conn.execute(
        "SELECT max(at) FROM disk_events WHERE disk_id = ? AND event = ?", (disk.id, event)
    ).fetchone()[0]
    return at


def is_unread(conn: Connection, disk: Disk) -> bool:
    """True if a disk could not be read to the end, and was not read since."""
    last = last_event(conn, disk, NOT_READ)
    return last is not None and last > (last_event(conn, disk, READ) or "")


def last_health(conn: Connection) -> dict[int, HealthCheck]:
    """Return the newest SMART check of each disk, by the disk's id."""
    rows = conn.execute(
        "SELECT disk_id, max(at) AS at, health, temperature_c FROM smart_checks GROUP BY disk_id"
    )
    return {r["disk_id"]: HealthCheck(r["at"], r["health"], r["temperature_c"]) for r in rows}


def made_at(conn: Connection) -> str | None:
    """Return when the database got its first disk; None while it has none."""
    row = conn.execute("SELECT at FROM disk_events ORDER BY id LIMIT 1").fetchone()
    return row["at"] if row else None


def hold(conn: Connection, disk: Disk, by: str, reason: str, at: str) -> None:
    """Take a disk out of use; ``by`` is ``person`` or ``machine``."""
    conn.execute(
        "UPDATE disks SET held_by = ?, held_reason = ? WHERE id = ?", (by, reason, disk.id)
    )
    note_event(conn, disk.id, at, "hold", f"{by}: {reason}")


def unhold(conn: Connection, disk: Disk, reason: str, at: str) -> None:
    """Return a held disk to use."""
    conn.execute(
        "UPDATE disks SET held_by = NULL, held_reason = NULL, errors_running = 0 WHERE id = ?",
        (disk.id,),
    )
    note_event(conn, disk.id, at, "unhold", reason)


def forget_disk(conn: Connection, disk: Disk) -> None:
    """Remove a disk that was never used from the database."""
    conn.execute("DELETE FROM disk_events WHERE disk_id = ?", (disk.id,))
    conn.execute("DELETE FROM smart_checks WHERE disk_id = ?", (disk.id,))
    conn.execute("DELETE FROM disks WHERE id = ? AND state = 'spare'", (disk.id,))


def revive_disk(conn: Connection, disk: Disk, label: str, role: Role, at: str) -> None:
    """Make a lost drive that came back wiped a spare again, under the label of its new sticker."""
    conn.execute(
        "UPDATE disks SET label = ?, role = ?, state = 'spare', held_by = NULL, "
        "held_reason = NULL, errors_running = 0, first_used_at = NULL, last_used_at = NULL, "
        "capacity_bytes = NULL, used_bytes = NULL, free_bytes = NULL, measured_at = NULL "
        "WHERE id = ?",
        (label, role.value, disk.id),
    )
    note_event(conn, disk.id, at, "came back", f"wiped; it was {disk.label}")


def count_error(conn: Connection, disk: Disk) -> int:
    """Count a pass in which this disk failed; return how many failed in a row by now."""
    conn.execute("UPDATE disks SET errors_running = errors_running + 1 WHERE id = ?", (disk.id,))
    row = conn.execute("SELECT errors_running FROM disks WHERE id = ?", (disk.id,)).fetchone()
    return int(row["errors_running"])


def forget_errors(conn: Connection, disk: Disk) -> None:
    """Note that the disk worked well for a whole pass."""
    conn.execute(
        "UPDATE disks SET errors_running = 0 WHERE id = ? AND errors_running > 0", (disk.id,)
    )


def activate(conn: Connection, disk: Disk, at: str) -> None:
    """Put a spare into use."""
    conn.execute(
        "UPDATE disks SET state = 'active', first_used_at = coalesce(first_used_at, ?) "
        "WHERE id = ? AND state = 'spare'",
        (at, disk.id),
    )
    note_event(conn, disk.id, at, "first use", None)


def measure(
    conn: Connection, disk: Disk, capacity_bytes: int, used_bytes: int, free_bytes: int, at: str
) -> None:
    """Note the space of a disk that was just used."""
    conn.execute(
        "UPDATE disks SET capacity_bytes = ?, used_bytes = ?, free_bytes = ?, measured_at = ?, "
        "last_used_at = ? WHERE id = ?",
        (capacity_bytes, used_bytes, free_bytes, at, at, disk.id),
    )


def note_manifest(conn: Connection, disk: Disk, size_bytes: int) -> None:
    """Note the size of a disk's manifest, which agrees with the database now."""
    conn.execute("UPDATE disks SET manifest_bytes = ? WHERE id = ?", (size_bytes, disk.id))


def manifest_sizes(conn: Connection) -> dict[int, int]:
    """Return for each disk in use how many bytes its manifest had when the two last agreed."""
    rows = conn.execute(
        "SELECT id, manifest_bytes FROM disks WHERE state = 'active' AND manifest_bytes NOT NULL"
    )
    return {row["id"]: row["manifest_bytes"] for row in rows}


def note_event(
    conn: Connection, disk_id: int | None, at: str, event: str, reason: str | None
) -> None:
    """Add an event of a disk."""
    conn.execute(
        "INSERT INTO disk_events (disk_id, at, event, reason) VALUES (?, ?, ?, ?)",
        (disk_id, at, event, reason),
    )


def disk_of(row: sqlite3.Row) -> Disk:
    """Return the disk of a row that begins with ``DISK_COLUMNS``."""
    number, label, role, serial, logical_id, state, held_by, reason, stand_in, *rest = row[:_FIELDS]
    state, stand_in = DiskState(state), bool(stand_in)
    return Disk(
        number, label, Role(role), serial, logical_id, state, held_by, reason, stand_in, *rest
    )
