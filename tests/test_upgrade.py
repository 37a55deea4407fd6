"""A database of an older version is upgraded by the first program that writes, after a backup."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.errors import DatabaseTrouble, DatabaseUnusable
from tests.world import World

SCHEMAS = Path(__file__).with_name("schemas")
OLD_VERSIONS = range(db.sqlite.OLDEST_VERSION, db.sqlite.SCHEMA_VERSION)
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


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


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


def content(path: Path) -> dict[str, list[dict[str, object]]]:
    with closing(sqlite3.connect(path)) as conn:
        conn.row_factory = sqlite3.Row
        names = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            n["name"]: [dict(r) for r in conn.execute(f"SELECT * FROM {n['name']}")] for n in names
        }


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_an_upgraded_database_is_like_a_fresh_one(tmp_path: Path, version: int) -> None:
    """Table for table, index for index; and it says which version it is."""
    path = old(tmp_path / "old.sqlite", version)
    db.database_files.create(tmp_path / "fresh.sqlite")
    with db.connect(path) as conn:
        assert conn.execute("PRAGMA user_version").fetchone()[0] == db.sqlite.SCHEMA_VERSION
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
    assert structure(path) == structure(tmp_path / "fresh.sqlite")


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_an_upgrade_keeps_every_row(tmp_path: Path, version: int) -> None:
    """New columns come on top; what was known is known."""
    path = old(tmp_path / "old.sqlite", version)
    before = content(path)
    with db.connect(path):
        pass
    after = content(path)
    for table, rows in before.items():
        assert len(after[table]) == len(rows), table
        for row, newer in zip(rows, after[table], strict=True):
            assert row.items() <= newer.items(), table


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_a_backup_stands_before_an_upgrade(tmp_path: Path, version: int) -> None:
    """Beside the database, with the version in its name; one that is there is never replaced."""
    path = old(tmp_path / "old.sqlite", version)
    before = content(path)
    with db.connect(path):
        pass
    backup = tmp_path / f"old.sqlite.version-{version}"
    assert content(backup) == before
    assert {p.name for p in tmp_path.iterdir()} == {path.name, backup.name}
    backup.write_bytes(b"of an earlier day")
    old(tmp_path / "again.sqlite", version).replace(path)
    with db.connect(path):
        pass
    assert backup.read_bytes() == b"of an earlier day"


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_an_upgrade_is_whole_or_not_at_all(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in its last statement leaves the database as it was, to be upgraded later."""
    path = old(tmp_path / "old.sqlite", version)
    before = structure(path), content(path)
    broken = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, **how: broken(self, **how) + ";\nINSERT INTO files VALUES (1);\n",
    )
    with pytest.raises(sqlite3.OperationalError, match="columns"), db.connect(path):
        pass
    assert (structure(path), content(path)) == before
    monkeypatch.undo()
    with db.connect(path) as conn:
        assert conn.execute("PRAGMA user_version").fetchone()[0] == db.sqlite.SCHEMA_VERSION


def test_who_only_reads_an_older_database_sees_it_as_it_will_be(tmp_path: Path) -> None:
    """status and check must not write, and are asked before the first pass that upgrades."""
    path = old(tmp_path / "old.sqlite", 2)
    before = path.read_bytes()
    with db.connect(path, read_only=True) as conn:
        assert conn.execute("PRAGMA user_version").fetchone()[0] == db.sqlite.SCHEMA_VERSION
        labels = [disk.label for disk in db.disks.disks(conn)]
        seen = db.passes.adopted_buffer(conn)
        copy = Path(conn.execute("PRAGMA database_list").fetchone()["file"])
    assert seen is None and not copy.parent.exists()
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with db.connect(path) as conn:
        assert [disk.label for disk in db.disks.disks(conn)] == labels


@pytest.mark.parametrize("command", ["check", "status", "status --json", "status --html"])
def test_after_an_upgrade_of_the_program_one_looks_before_the_first_pass(
    world: World, command: str
) -> None:
    """docs/operators.md: dm check, then a pass by hand, of a database of 1.0.0."""
    world.generate()
    world.sql("DROP TABLE buffers")
    world.sql("PRAGMA user_version = 2")
    page = [str(world.root / "page.html")] if "html" in command else []
    before = world.snapshot(world.db_path.parent)
    run = world.run_pass(*command.split(), *page, check=0)
    assert run.err.splitlines() == [
        f"{world.db_path} is of an earlier release (schema version 2, not "
        f"{db.sqlite.SCHEMA_VERSION}): "
        "the next pass upgrades it. This shows an upgraded copy."
    ]
    assert "--json" not in command or run.json()
    assert before.differences(world.snapshot(world.db_path.parent)) == []
    assert world.run_pass("--quiet", *command.split(), *page, check=0).err == ""
    world.run_pass(check=0)
    assert world.db_path.with_name("pole.sqlite.version-2").exists()
    assert world.run_pass(*command.split(), *page, check=0).err == ""


@pytest.mark.root
def test_without_room_for_the_copy_it_is_said_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the database's file system is full, but that of the temporary copy."""
    path, small = old(tmp_path / "old.sqlite", 2), tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], check=True)
    try:
        monkeypatch.setattr("tempfile.tempdir", str(small))
        said = r"no temporary copy of it can be made \(No space left on device\); .* set TMPDIR"
        with pytest.raises(DatabaseTrouble, match=said), db.connect(path, read_only=True):
            pass
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_without_its_backup_nothing_is_upgraded(tmp_path: Path) -> None:
    """It is said why, and no half backup stays."""
    path = old(tmp_path / "old.sqlite", 2)
    before = structure(path)
    (tmp_path / "old.sqlite.version-2").symlink_to(tmp_path / "nowhere")
    why = r"before it is upgraded \(File exists\)"
    with pytest.raises(DatabaseUnusable, match=why), db.connect(path):
        pass
    assert structure(path) == before
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "old.sqlite.version-2"}
