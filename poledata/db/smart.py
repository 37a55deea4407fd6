"""Queries on what drives said of themselves, and on what hangs on a failing one."""

from __future__ import annotations

import sqlite3

from poledata.db.connection import Connection
from poledata.db.disks import DISK_COLUMNS, disk_of
from poledata.models import Disk, Health, SmartCheck


def add_smart_check(
    conn: Connection, disk: Disk, check: SmartCheck, value: float, changed: bool, report: str
) -> None:
    """Write a check down; the whole report of the one before goes, unless that was a change."""
    import json

    conn.execute(
        "UPDATE smart_checks SET attributes = json_remove(attributes, '$.report') WHERE id = "
        "(SELECT max(id) FROM smart_checks WHERE disk_id = ?) "
        "AND json_extract(attributes, '$.changed') = 0",
        (disk.id,),
    )
    attributes = {
        "numbers": check.numbers,
        "lowest": check.lowest,
        "reasons": check.reasons,
        "value": value,
        "changed": int(changed),
        "report": json.loads(report),
    }
    conn.execute(
        "INSERT INTO smart_checks (disk_id, at, health, temperature_c, power_on_hours, attributes) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            disk.id,
            check.at,
            check.health.value,
            check.temperature_c,
            check.power_on_hours,
            json.dumps(attributes, ensure_ascii=False),
        ),
    )


def last_smart_check(conn: Connection, disk: Disk) -> SmartCheck | None:
    """The newest one, whatever came of it."""
    row = conn.execute(
        "SELECT * FROM smart_checks WHERE disk_id = ? ORDER BY id DESC LIMIT 1", (disk.id,)
    ).fetchone()
    return _check_of(row) if row else None


def smart_answers(conn: Connection, disk: Disk) -> tuple[SmartCheck, ...]:
    """The two newest checks to which the drive answered, the newest first."""
    rows = conn.execute(
        "SELECT * FROM smart_checks WHERE disk_id = ? "
        "AND json_extract(attributes, '$.numbers') <> '{}' ORDER BY id DESC LIMIT 2",
        (disk.id,),
    )
    return tuple(_check_of(row) for row in rows)


def smart_history(conn: Connection, disk: Disk, since: str = "") -> list[SmartCheck]:
    """Every check of a drive since then, the oldest first; without its whole report."""
    rows = conn.execute(
        "SELECT at, health, temperature_c, power_on_hours, "
        "json_remove(attributes, '$.report') AS attributes "
        "FROM smart_checks WHERE disk_id = ? AND at >= ? ORDER BY id",
        (disk.id, since),
    )
    return [_check_of(row) for row in rows]


def first_smart_check_at(conn: Connection, disk: Disk) -> str | None:
    """Since when a drive is checked."""
    row = conn.execute(
        "SELECT min(at) AS at FROM smart_checks WHERE disk_id = ?", (disk.id,)
    ).fetchone()
    return row["at"] if row else None


def failing_disks(conn: Connection) -> list[Disk]:
    """Disks in use or spare whose newest check says that they are failing."""
    rows = conn.execute(
        f"SELECT {DISK_COLUMNS} FROM disks d JOIN smart_checks c ON c.id = "
        "(SELECT max(id) FROM smart_checks WHERE disk_id = d.id) "
        "WHERE c.health = 'failing' AND d.state IN ('active', 'spare') ORDER BY d.id"
    )
    return [disk_of(row) for row in rows]


def value_at_last_check(conn: Connection, disk: Disk) -> float | None:
    """How bad the newest check was: the sum of the numbers behind its reasons."""
    return _value(
        conn.execute(
            "SELECT json_extract(attributes, '$.value') AS value FROM smart_checks "
            "WHERE disk_id = ? ORDER BY id DESC LIMIT 1",
            (disk.id,),
        ).fetchone()
    )


def value_when_given_back(conn: Connection, disk: Disk) -> float | None:
    """How bad it was when a person last ended a hold; None if nobody did, or it was held since."""
    return _value(
        conn.execute(
            "SELECT json_extract(c.attributes, '$.value') AS value FROM smart_checks c, "
            "(SELECT at, event, reason FROM disk_events WHERE disk_id = ? "
            "AND event IN ('hold', 'unhold') ORDER BY id DESC LIMIT 1) e "
            "WHERE c.disk_id = ? AND e.event = 'unhold' AND e.reason = 'by a person' "
            "AND c.at <= e.at ORDER BY c.id DESC LIMIT 1",
            (disk.id, disk.id),
        ).fetchone()
    )


def other_copies(conn: Connection, disk: Disk) -> list[tuple[str, int]]:
    """Which disks have the other copies of what is on this one, and of how many files."""
    rows = conn.execute(
        "SELECT d.label, count(*) AS files FROM copies c "
        "JOIN copies o ON o.file_id = c.file_id AND o.state = 'good' "
        "JOIN disks d ON d.id = o.disk_id AND d.role <> ? AND d.state <> 'lost' "
        "WHERE c.disk_id = ? AND c.state <> 'missing' GROUP BY d.id ORDER BY files DESC, d.id",
        (disk.role.value, disk.id),
    )
    return [(row["label"], row["files"]) for row in rows]


def _value(row: sqlite3.Row | None) -> float | None:
    return None if row is None or row["value"] is None else float(row["value"])


def _check_of(row: sqlite3.Row) -> SmartCheck:
    import json  # no part of a pass

    attributes = json.loads(row["attributes"] or "{}")
    return SmartCheck(
        row["at"],
        Health(row["health"]),
        row["temperature_c"],
        row["power_on_hours"],
        attributes.get("numbers", {}),
        attributes.get("lowest", {}),
        tuple(attributes.get("reasons", ())),
    )
