"""Queries on shipments, on the receipts that came back, and on which copies are confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, fields

from poledata.db.disks import DISK_COLUMNS, disk_of
from poledata.db.sqlite import Connection
from poledata.models import Disk, ReceiptRow, Shipment

# A copy ``c`` on a disk ``d`` is confirmed: a receipt came, and does not report it.
_CONFIRMED = "(c.state = 'good' AND d.state = 'received')"
_ELSEWHERE = (
    "EXISTS (SELECT 1 FROM copies o JOIN disks e ON e.id = o.disk_id WHERE o.file_id = c.file_id "
    "AND o.disk_id <> c.disk_id AND o.state = 'good' AND e.state NOT IN ('shipped', 'lost'))"
)
_SHIPMENTS = (
    f"SELECT {DISK_COLUMNS}, s.shipped_at, s.sheet, s.box, s.destination, s.list_sha512 "
    "FROM shipments s JOIN disks d ON d.id = s.disk_id"
)
_RECEIPTS = f"SELECT {', '.join(field.name for field in fields(ReceiptRow))} FROM receipts"


def shipments(conn: Connection) -> list[Shipment]:
    """Return the last shipment of each disk, in the order in which they left."""
    rows = conn.execute(
        f"{_SHIPMENTS} WHERE s.id IN (SELECT max(id) FROM shipments GROUP BY disk_id) ORDER BY s.id"
    )
    return [Shipment(disk_of(row), *row[-5:]) for row in rows]


def add_shipment(conn: Connection, shipment: Shipment) -> None:
    """Note that a disk left in a shipment."""
    disk, *columns = (getattr(shipment, field.name) for field in fields(Shipment))
    conn.execute(
        "INSERT INTO shipments (disk_id, shipped_at, sheet, box, destination, list_sha512) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (disk.id, *columns),
    )


def drop_shipment(conn: Connection, shipment: Shipment) -> None:
    """A disk did not leave in this shipment."""
    conn.execute(
        "DELETE FROM shipments WHERE disk_id = ? AND shipped_at = ?",
        (shipment.disk.id, shipment.shipped_at),
    )


def receipts(conn: Connection, disk: Disk) -> list[ReceiptRow]:
    """Return the receipts of a disk, the oldest check first."""
    rows = conn.execute(f"{_RECEIPTS} WHERE disk_id = ? ORDER BY checked_at", (disk.id,))
    return [ReceiptRow(*row) for row in rows]


def add_receipt(conn: Connection, receipt: ReceiptRow) -> None:
    """Note what the people up north found on a disk."""
    conn.execute(
        "INSERT INTO receipts (disk_id, list_sha512, checked_at, checked_by, imported_at, sha512, "
        "files, bad, unreadable, missing, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        astuple(receipt),
    )


# --- what is confirmed ----------------------------------------------------------------------


def count_confirmed(conn: Connection) -> int:
    """Return how many files have a copy that a receipt confirms."""
    rows = conn.execute(
        "SELECT count(DISTINCT c.file_id) FROM copies c JOIN disks d ON d.id = c.disk_id "
        f"WHERE {_CONFIRMED}"
    )
    return int(rows.fetchone()[0])


def safe_nowhere_else(conn: Connection, disk: Disk) -> tuple[int, int]:
    """Return how many files on a disk, and bytes, have no other good copy here, or confirmed.

    Good copies count, and those that went missing because the disk was noted as lost. A shipped
    disk is not here, and its copies are not confirmed.
    """
    files, size_bytes = conn.execute(
        "SELECT count(*), coalesce(sum(f.size_bytes), 0) FROM copies c JOIN files f "
        "ON f.id = c.file_id JOIN disks d ON d.id = c.disk_id WHERE d.id = ? AND (c.state = 'good' "
        f"OR d.state = 'lost' AND c.state = 'missing') AND NOT {_ELSEWHERE}",
        (disk.id,),
    ).fetchone()
    return files, size_bytes


def contents(conn: Connection, disk: Disk) -> tuple[int, int, str, str]:
    """Return how many good copies a disk has, their bytes, and the first and the last name."""
    row = conn.execute(
        "SELECT count(*), coalesce(sum(f.size_bytes), 0), coalesce(min(f.name), ''), "
        "coalesce(max(f.name), '') FROM copies c JOIN files f ON f.id = c.file_id "
        "WHERE c.disk_id = ? AND c.state = 'good'",
        (disk.id,),
    ).fetchone()
    return (*row,)


def copies_by_name(conn: Connection) -> Iterator[tuple[str, int, int, str | None, str, str, str]]:
    """Yield each copy of each file, by the file's name.

    Name, size in bytes, mtime in ns; the copy's state (None: the file has no copy), its disk's
    label, role and state.
    """
    rows = conn.execute(
        "SELECT f.name, f.size_bytes, f.mtime_ns, c.state, d.label, d.role, d.state "
        "FROM files f LEFT JOIN copies c ON c.file_id = f.id LEFT JOIN disks d ON d.id = c.disk_id "
        "ORDER BY f.name"
    )
    return ((*row,) for row in rows)
