"""A database of an older version is upgraded by the first program that writes, after a backup."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.errors import DatabaseTrouble
from tests.helpers.databases import old, structure
from tests.helpers.world import World

OLD_VERSIONS = range(db.sqlite.OLDEST_VERSION, db.sqlite.SCHEMA_VERSION)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


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


@pytest.mark.parametrize("command", ["check", "status", "status --json", "status --html"])
def test_after_an_upgrade_of_the_program_one_looks_before_the_first_pass(
    world: World, command: str
) -> None:
    """docs/operators.md: dm check, then a pass by hand, of a database of 1.0.0."""
    world.generate()
    world.sql("DROP TABLE buffers")
    world.sql("DROP TABLE content_checks")
    world.sql("PRAGMA user_version = 2")
    page = [str(world.root / "page.html")] if "html" in command else []
    before = world.snapshot(world.db_path.parent)
    run = world.run_pass(*command.split(), *page, check=0)
    assert run.err.splitlines() == [
        f"{world.db_path} is of an earlier release (schema version 2, not "
        f"{db.sqlite.SCHEMA_VERSION}): the next pass upgrades it. This shows an upgraded copy."
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
