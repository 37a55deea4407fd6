"""A database of an older version is upgraded by the first program that writes, after a backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.errors import DatabaseUnusable
from tests.helpers.databases import old, structure

OLD_VERSIONS = range(db.sqlite.OLDEST_VERSION, db.sqlite.SCHEMA_VERSION)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def content(path: Path) -> dict[str, list[dict[str, object]]]:
    with closing(sqlite3.connect(path)) as conn:
        conn.row_factory = sqlite3.Row
        names = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            n["name"]: [dict(r) for r in conn.execute(f"SELECT * FROM {n['name']}")] for n in names
        }


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
