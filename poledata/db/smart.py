"""Queries on the SMART checks of drives."""

from __future__ import annotations

import sqlite3

from poledata.db.disks import DISK_COLUMNS, disk_of
from poledata.db.sqlite import Connection
from poledata.models import Disk, Health, SmartCheck


def add_smart_check(
    conn: Connection, disk: Disk, check: SmartCheck, value: float, changed: bool, report: str
) -> None:
    """Add a check; the whole report of the one before is dropped, unless that was a change."""
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
        "known": check.known,
        "failing": check.failing,
        "reasons": check.reasons,
        "value": value,
        "changed": int(changed),
        "report": json.loads(report),
    }
    text = json.dumps(attributes)
    conn.execute(
        "INSERT INTO smart_checks (disk_id, at, health, temperature_c, power_on_hours, attributes) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (disk.id, check.at, check.health.value, check.temperature_c, check.power_on_hours, text),
    )


# Of one drive, without its whole report.
_CHECKS = (
    "SELECT at, health, temperature_c, power_on_hours, "
    "json_remove(attributes, '$.report') AS attributes FROM smart_checks WHERE disk_id = ?"
)


def acknowledge(conn: Connection, disk: Disk) -> None:
    """Make the newest numbers of a drive its baseline: from now on only what grows is reported."""
    conn.execute(
        "UPDATE smart_checks SET attributes = json_set(attributes, "
        "'$.known', json_extract(attributes, '$.numbers'), "
        "'$.lowest', json_extract(attributes, '$.numbers')) WHERE id = "
        "(SELECT max(id) FROM smart_checks WHERE disk_id = ? "
        "AND json_extract(attributes, '$.numbers') <> '{}')",
        (disk.id,),
    )
    conn.execute(
        "UPDATE notices SET value = 0, acked_value = 0 WHERE key = ? AND resolved_at IS NULL "
        "AND kind IN ('smart-warning', 'smart-failing')",
        (disk.label,),
    )
    conn.execute(
        "UPDATE findings SET value = 0 WHERE key = ? "
        "AND kind IN ('smart-warning', 'smart-failing')",
        (disk.label,),
    )


def last_smart_check(conn: Connection, disk: Disk) -> SmartCheck | None:
    """Return the newest check, also if the drive did not respond."""
    row = conn.execute(f"{_CHECKS} ORDER BY id DESC LIMIT 1", (disk.id,)).fetchone()
    return _check_of(row) if row else None


def smart_answers(conn: Connection, disk: Disk) -> tuple[SmartCheck, ...]:
    """Return the two newest checks to which the drive responded, the newest first."""
    rows = conn.execute(
        f"{_CHECKS} AND json_extract(attributes, '$.numbers') <> '{{}}' ORDER BY id DESC LIMIT 2",
        (disk.id,),
    )
    return tuple(_check_of(row) for row in rows)


def smart_history(conn: Connection, disk: Disk, since: str = "") -> list[SmartCheck]:
    """Return every check of a drive since then, the oldest first."""
    rows = conn.execute(f"{_CHECKS} AND at >= ? ORDER BY id", (disk.id, since))
    return [_check_of(row) for row in rows]


def first_smart_check_at(conn: Connection, disk: Disk) -> str | None:
    """Return when a drive was first checked."""
    at: str | None = conn.execute(
        "SELECT min(at) FROM smart_checks WHERE disk_id = ?", (disk.id,)
    ).fetchone()[0]
    return at


HOURS_WRAP_AT = 1 << 16  # drives keep the hour of a test in 16 bits


def hours_since_tested(conn: Connection) -> dict[int, int]:
    """Return, by disk id, the hours of operation since an extended self-test passed.

    As the drive's last report had it; without drives of which none is known, or a newer one failed.
    """
    rows = conn.execute(
        "SELECT d.id, c.power_on_hours - "
        "json_extract(c.attributes, '$.numbers.extended_passed_at_h') AS hours "
        "FROM disks d JOIN smart_checks c ON c.id = (SELECT id FROM smart_checks "
        "WHERE disk_id = d.id AND json_extract(attributes, '$.numbers') <> '{}' "
        "ORDER BY at DESC, id DESC LIMIT 1) "
        "WHERE coalesce(json_extract(c.attributes, '$.numbers.self_test_failed'), 0) = 0"
    )
    return {r["id"]: r["hours"] % HOURS_WRAP_AT for r in rows if r["hours"] is not None}


def failing_disks(conn: Connection) -> list[Disk]:
    """Return disks, in use or spare, that are failing in their newest check."""
    rows = conn.execute(
        f"SELECT {DISK_COLUMNS} FROM disks d JOIN smart_checks c ON c.id = "
        "(SELECT max(id) FROM smart_checks WHERE disk_id = d.id) "
        "WHERE c.health = 'failing' AND d.state IN ('active', 'spare') ORDER BY d.id"
    )
    return [disk_of(row) for row in rows]


def value_at_last_check(conn: Connection, disk: Disk) -> float | None:
    """Return how bad the newest check was: the sum of the numbers that nobody acknowledged."""
    return _value(
        conn.execute(
            "SELECT json_extract(attributes, '$.value') AS value FROM smart_checks "
            "WHERE disk_id = ? ORDER BY id DESC LIMIT 1",
            (disk.id,),
        ).fetchone()
    )


def value_when_given_back(conn: Connection, disk: Disk) -> float | None:
    """Return how bad it was when a person last ended a hold; None if it is held, or was never."""
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


def _value(row: sqlite3.Row | None) -> float | None:
    return None if row is None or row["value"] is None else float(row["value"])


def _check_of(row: sqlite3.Row) -> SmartCheck:
    import json  # no part of a pass

    attributes = json.loads(row["attributes"] or "{}")
    at, health, temperature_c, power_on_hours, _ = row
    return SmartCheck(
        at,
        Health(health),
        temperature_c,
        power_on_hours,
        attributes.get("numbers", {}),
        attributes.get("lowest", {}),
        tuple(attributes.get("reasons", ())),
        attributes.get("known", {}),
        tuple(attributes.get("failing", ())),
    )
