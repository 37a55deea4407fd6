"""What a graphical browser, or the command line of SQLite, leaves of the database: passes go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poledata import db
from poledata.errors import DatabaseTrouble
from tests.helpers.other_users import POWERLESS
from tests.helpers.stations import read_only
from tests.helpers.verified_disks import notice
from tests.helpers.world import World

SQLITE = shutil.which("sqlite3") or ""


def another(world: World, statements: str) -> str:
    """Another program does this to the database, and ends: the real command line, if it is here."""
    if SQLITE:
        command = [SQLITE, str(world.db_path), statements]
    else:
        code = "import sqlite3,sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
        command = [sys.executable, "-c", code, str(world.db_path), statements]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


@contextmanager
def held_open(world: World, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Another program did this, and keeps the database open."""
    code = (
        "import sqlite3, sys\n"
        "conn = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: conn.execute(statement).fetchall()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(world.db_path), *statements]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout and process.stdout.readline() == "open\n"
        yield process


def mode(world: World) -> str:
    return str(world.sql("PRAGMA journal_mode")[0][0])


@pytest.fixture
def used(world: World) -> World:
    """One file is archived, one waits."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    world.put("b.g3")
    return world


TO_WAL = "PRAGMA journal_mode = WAL"
GROW = "CREATE TABLE notes AS SELECT hex(randomblob(500000)) AS text"


def test_a_database_in_wal_mode_is_switched_back(used: World) -> None:
    """The next pass does it, archives, and leaves nothing beside the database; exit 0."""
    another(used, f"{TO_WAL}; {GROW}")
    used.run_pass(check=0)
    assert (mode(used), used.waiting(), used.notices()) == ("delete", set(), set())
    assert f"another program had switched {used.db_path} to WAL mode" in used.log()
    assert not list(used.db_path.parent.glob("*-wal")) + list(used.db_path.parent.glob("*-shm"))


def test_what_a_killed_program_left_in_its_log_is_kept(used: World) -> None:
    """Its committed pages are in the -wal alone, so that the file is shorter than they say."""
    with held_open(used, TO_WAL, GROW) as process:
        process.kill()
    assert used.db_path.with_name("pole.sqlite-wal").stat().st_size > 1_000_000
    used.run_pass(check=0)
    assert mode(used) == "delete"
    assert used.sql("SELECT length(text) FROM notes")[0][0] == 1_000_000


def test_while_another_program_holds_it_in_wal_mode_archiving_goes_on_and_is_told(
    used: World,
) -> None:
    """A warning says what, what is safe, what next; it ends with the pass that switches it back."""
    with held_open(used, TO_WAL, GROW):
        used.run_pass(check=0)
        assert used.waiting() == set()
        assert mode(used) == "wal"
        said = notice(used, "database-error", "journal")
        assert f"switched {used.db_path} to WAL mode and has it open. Nothing is lost" in said
        assert "Close that program (sudo fuser -v" in said
        severities = used.sql("SELECT severity FROM notices WHERE key = 'journal'")
        assert severities[0][0] == "warning"
        said = used.status(check=0).out
        headline = (
            f"LOOK TODAY: Another program switched {used.db_path} to WAL mode and has it open"
        )
        assert f"{headline} (database-error)" in said and "does not respond" not in said
        assert "FAULT the database, journal: " in used.run_pass("check", check=1).out
    used.run_pass(check=0)
    assert (mode(used), used.notices()) == ("delete", set())


def test_who_may_not_write_is_told_of_wal_mode(used: World) -> None:
    """Exit 1 and a sentence, not a defect; nothing is made beside the database."""
    another(used, TO_WAL)
    with read_only(used):
        before = used.snapshot(used.root)
        for command in ("status", "check", "locate"):
            args = ["a.g3"] if command == "locate" else []
            run = used.run_pass(command, *args, check=1, prefix=POWERLESS)
            assert run.err == (
                f"{used.db_path}: another program switched the database to WAL mode, in which this "
                "user can't read it. Close that program; the next pass switches it back: try again "
                "then. Every file that is not yet registered stays in the buffer. See "
                "database-error in docs/operators.md\n"
            )
        assert before.differences(used.snapshot(used.root)) == []
    used.run_pass(check=0)
    with read_only(used):
        used.run_pass("status", check=0, prefix=POWERLESS)


def test_from_disks_completes_a_database_in_wal_mode(used: World) -> None:
    """It is not called damaged for pages that are in the log alone."""
    with held_open(used, TO_WAL, GROW):
        used.run("generate_db.py", "--from-disks", check=0)
        assert ("database-error", "journal") in used.notices()
        used.run_pass(check=0)
        used.run("generate_db.py", "--from-disks", check=0)
        assert ("database-error", "journal") in used.notices()  # that run can't end it


HARMLESS = {
    "another page size": "PRAGMA page_size = 16384; VACUUM",
    "auto-vacuum": "PRAGMA auto_vacuum = FULL; VACUUM; DROP TABLE IF EXISTS x; VACUUM",
    "statistics": "ANALYZE",
    "more tables": "CREATE TABLE notes (text); CREATE INDEX by_text ON notes (text)",
    "a view and an index": "CREATE VIEW v AS SELECT * FROM files; CREATE INDEX i ON files (sha512)",
    "a journal that stays": "PRAGMA journal_mode = PERSIST; CREATE TABLE notes (text)",
    "a journal that is cut": "PRAGMA journal_mode = TRUNCATE; CREATE TABLE notes (text)",
    "no journal": "PRAGMA journal_mode = OFF; CREATE TABLE notes (text)",
    "a journal in memory": "PRAGMA journal_mode = MEMORY; CREATE TABLE notes (text)",
}


@pytest.mark.parametrize("statements", HARMLESS.values(), ids=HARMLESS)
def test_what_does_no_harm_is_left_as_it_is(used: World, statements: str) -> None:
    """The pass archives, its user and others can read; nobody is told of anything."""
    another(used, statements)
    used.run_pass(check=0)
    assert (used.waiting(), used.notices()) == (set(), set())
    used.run_pass("check", check=0)
    with read_only(used):
        used.run_pass("status", check=0, prefix=POWERLESS)


def test_an_index_that_was_removed_is_made_again(used: World) -> None:
    """Also one on which uniqueness rests; the log says so."""
    another(used, "DROP INDEX one_open_notice; DROP INDEX copies_by_disk")
    used.run_pass(check=0)
    names = {row["name"] for row in used.sql("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    assert {"one_open_notice", "copies_by_disk"} <= names
    assert "had removed the index one_open_notice: it was made again" in used.log()


CHANGES = {
    "a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM files; END",
        "another program gave it the trigger t, which could change what is stored",
    ),
    "a table less": ("DROP TABLE pauses", "another program removed its table pauses"),
    "a column more": (
        "ALTER TABLE files ADD COLUMN colour TEXT",
        "another program changed the columns of its table files",
    ),
    "a column of another name": (
        "ALTER TABLE files RENAME COLUMN sha512 TO checksum",
        "another program changed the columns of its table files",
    ),
    "no version": (
        "PRAGMA user_version = 0",
        "its schema version 0 is older than that of any release",
    ),
    "an older version": (
        f"PRAGMA user_version = {db.sqlite.SCHEMA_VERSION - 1}",
        "it can't be upgraded (",
    ),
    "no application": (
        "PRAGMA application_id = 0",
        "this SQLite file was not made by generate_db.py",
    ),
}


@pytest.mark.parametrize(("statements", "why"), CHANGES.values(), ids=CHANGES)
def test_a_change_that_could_cost_something_is_refused_in_words(
    used: World, statements: str, why: str
) -> None:
    """Never a defect: exit 2, told through the channel; the file stays, the database too."""
    told = used.root / "told"
    env = {"POLE_PAGER_COMMAND": f"tee -a {told}"}
    another(used, statements)
    content = used.db_path.read_bytes()
    run = used.run_pass(check=2, env=env)
    assert f"{used.db_path}: {why}" in run.err and "Traceback" not in run.err
    assert used.waiting() == {"b.g3"}
    assert used.db_path.read_bytes() == content
    assert why in told.read_text()
    used.leave_unchecked("the database was changed")


LOCKED = "another program has kept the database locked"
LOCKS = {
    "an open transaction": "BEGIN IMMEDIATE",
    "an exclusive one": "BEGIN EXCLUSIVE",
}


@pytest.mark.parametrize("begin", LOCKS.values(), ids=LOCKS)
@pytest.mark.parametrize("first", [[], [TO_WAL]], ids=["journal", "WAL"])
def test_a_transaction_that_is_open_for_hours_is_told_of(
    used: World, monkeypatch: pytest.MonkeyPatch, begin: str, first: list[str]
) -> None:
    """After the time-out: locked, in words, from every kind of door; sound again when it ends."""
    monkeypatch.setattr(db.sqlite, "BUSY_TIMEOUT_S", 0.2)
    with (
        held_open(used, *first, begin),
        pytest.raises(DatabaseTrouble, match=LOCKED),
        db.connect(used.db_path) as conn,
        db.transaction(conn),
    ):
        pass
    used.run_pass(check=0)
    assert used.waiting() == set()


def test_a_reader_of_hours_keeps_nobody_from_reading(
    used: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open SELECT: readers go on; a commit waits, and says that it is locked."""
    monkeypatch.setattr(db.sqlite, "BUSY_TIMEOUT_S", 0.2)
    with held_open(used, "BEGIN", "SELECT * FROM files"):
        used.status(check=0)
        with (
            pytest.raises(DatabaseTrouble, match=LOCKED),
            db.connect(used.db_path) as conn,
            db.transaction(conn),
        ):
            conn.execute("UPDATE disks SET label = label")
    used.run_pass(check=0)


def test_a_cut_file_is_still_found_when_it_comes_back_from_wal(tmp_path: Path) -> None:
    """Leaving WAL mode must not hide what a cut end was."""
    from poledata import db

    path = tmp_path / "pole.sqlite"
    db.database_files.create(path)
    with db.connect(path) as conn:
        conn.execute(TO_WAL)
    os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(DatabaseTrouble, match="malformed"), db.connect(path):
        pass
