"""Databases of older versions, and rows in new ones."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from poledata import db
from tests.helpers.world import REPO, World


def add_event(conn: db.Connection, event: str) -> None:
    conn.execute("INSERT INTO passes (started_at) VALUES (?)", (event,))


def events(path: Path) -> list[str]:
    """What is committed, as another program sees it."""
    with closing(sqlite3.connect(path)) as conn:
        return [row[0] for row in conn.execute("SELECT started_at FROM passes ORDER BY id")]


SCHEMAS = REPO / "tests/schemas"
ROWS = """
INSERT INTO disks (id, label, role, serial, logical_id) VALUES (1, 'P01', 'primary', 'A', '0x1');
INSERT INTO disk_events (disk_id, at, event) VALUES (1, '2026-01-01T00:00:00Z', 'registered');
INSERT INTO files (id, name, size_bytes, sha512, mtime_ns, archived_at)
    VALUES (7, 'a/0000.g3', 5, 'ab', 9, '2026-01-02T00:00:00Z');
INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at)
    VALUES (7, 1, 'good', 9, '2026-01-02T00:00:00Z');
INSERT INTO notices (id, kind, key, severity, text, opened_at, acked_until)
    VALUES (3, 'disk-missing', 'P01', 'warning', 'It is not there.', '2026-01-03T00:00:00Z', 'x');
INSERT INTO smart_checks (disk_id, at, health) VALUES (1, '2026-01-03T00:00:00Z', 'passed');
"""


def old(path: Path, version: int) -> Path:
    """A database as that version made it, with rows in its tables."""
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript((SCHEMAS / f"version_{version}.sql").read_text())
        conn.executescript(ROWS)
        conn.executescript(
            f"PRAGMA application_id = {db.sqlite.APPLICATION_ID}; PRAGMA user_version = {version}"
        )
    return path


def structure(path: Path) -> list[tuple[str, str]]:
    """Every table, index and view, without comments, blanks and quotes."""
    with closing(sqlite3.connect(path)) as conn:
        rows = conn.execute("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL").fetchall()
    return sorted((name, re.sub(r"--[^\n]*|\s|\"", "", sql)) for name, sql in rows)


def make_it_of_1_0_0(world: World) -> None:
    """Take back what the upgrade to version 3 added."""
    for table in ("buffers", "findings", "content_checks", "shipments", "receipts"):
        world.sql(f"DROP TABLE {table}")
    world.sql("ALTER TABLE disks DROP COLUMN manifest_bytes")
    world.sql("ALTER TABLE deliveries DROP COLUMN sent_as")
    world.sql("PRAGMA user_version = 2")
