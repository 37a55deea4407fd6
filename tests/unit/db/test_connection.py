"""One door to SQLite, which commits everything or nothing, and says what is wrong."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.errors import CopyDamaged, DatabaseTrouble, DatabaseUnusable, ExitCode
from poledata.models import Role
from tests.helpers.databases import add_event, events

AT = "2026-11-23T11:30:00Z"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that was just made."""
    db.database_files.create(tmp_path / "pole.sqlite")
    return tmp_path / "pole.sqlite"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a minute for a lock in a test."""
    monkeypatch.setattr(db.sqlite, "BUSY_TIMEOUT_S", 0.1)


def refusal(path: Path, read_only: bool = False) -> str:
    with pytest.raises(DatabaseUnusable) as caught, db.connect(path, read_only=read_only):
        pass
    assert caught.value.exit_code == ExitCode.USAGE
    return str(caught.value)


# --- opening --------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_every_connection_has_the_contracts_settings(path: Path, read_only: bool) -> None:
    """Durable commits, a rollback journal, which a mere reader can use, foreign keys, patience."""
    with db.connect(path, read_only=read_only) as conn:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "user_version")
        in_force = [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert in_force == ["delete", 3, 1, 60_000, db.sqlite.SCHEMA_VERSION]


def test_rows_are_read_by_the_names_of_their_columns(path: Path) -> None:
    """No query depends on an order of columns."""
    with db.connect(path) as conn:
        assert conn.execute("SELECT 1 AS one, 2 AS two").fetchone()["two"] == 2


def test_a_connection_is_closed_whatever_happens(path: Path) -> None:
    """Also when the work inside fails; no lock is left behind."""
    with pytest.raises(ZeroDivisionError), db.connect(path) as conn:
        conn.execute("BEGIN IMMEDIATE")
        raise ZeroDivisionError
    with pytest.raises(sqlite3.ProgrammingError):
        conn.execute("SELECT 1")
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("BEGIN EXCLUSIVE")


def test_a_reference_to_nothing_is_refused(path: Path) -> None:
    """Foreign keys are enforced."""
    with pytest.raises(sqlite3.IntegrityError), db.connect(path) as conn:
        conn.execute("INSERT INTO disk_events (disk_id, at, event) VALUES (7, '', '')")


@pytest.mark.parametrize("name", ["a b.sqlite", "a?mode=ro.sqlite", "a#b%20.sqlite", "é.sqlite"])
def test_a_database_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A name is no URI."""
    db.database_files.create(tmp_path / name)
    with db.connect(tmp_path / name) as conn, db.transaction(conn):
        add_event(conn, "here")
    assert os.listdir(tmp_path) == [name]
    assert events(tmp_path / name) == ["here"]


# --- what is refused ------------------------------------------------------------------------


def test_a_missing_database_is_never_made_by_opening_it(tmp_path: Path) -> None:
    """First of all it says how one comes back that was lost: an empty one would hide the disks."""
    path = tmp_path / "pole.sqlite"
    for read_only in (False, True):
        assert refusal(path, read_only) == (
            f"{path}: there is no database. Nothing was changed. "
            "If there was one, do not make a new one: generate_db.py --from-disks (see "
            "database-error in docs/operators.md). First installation: generate_db.py "
            "--disk-map FILE"
        )
    assert os.listdir(tmp_path) == []


def test_a_database_in_a_missing_directory_is_missing(tmp_path: Path) -> None:
    """Not a defect."""
    assert ": there is no database." in refusal(tmp_path / "nowhere" / "pole.sqlite")


def test_a_newer_database_is_refused(path: Path) -> None:
    """An older program must not write what a newer one understands otherwise."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 99")
    assert refusal(path) == (
        f"{path}: its schema version 99 is newer than this program's {db.sqlite.SCHEMA_VERSION}. "
        "Nothing was changed. Run the newer program that it belongs to."
    )


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """It is as it was."""
    path = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    assert refusal(path) == (
        f"{path}: this SQLite file was not made by generate_db.py. Nothing was changed. "
        "Name the right FilenameDB. If this is the one, it is damaged: see database-error in "
        "docs/operators.md."
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n" * 1000, b"\0" * 5000, b"SQLite format 3\0" * 99])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is as it was."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert refusal(path) == (
        f"{path}: this is not an SQLite database. Nothing was changed. Name the right FilenameDB. "
        "If this is the one, it is damaged: see database-error in docs/operators.md."
    )
    assert path.read_bytes() == content


def test_an_empty_file_is_no_database(tmp_path: Path) -> None:
    """SQLite would take it for a new one."""
    path = tmp_path / "pole.sqlite"
    path.touch()
    assert refusal(path) == (
        f"{path}: this SQLite file was not made by generate_db.py. Nothing was changed. "
        "Name the right FilenameDB. If this is the one, it is damaged: see database-error in "
        "docs/operators.md."
    )
    assert path.stat().st_size == 0


def test_a_text_that_was_altered_is_trouble_and_no_bug(path: Path) -> None:
    """JSON of a check of a drive, cut by hand or by a bad sector, in a file that is sound else."""
    with pytest.raises(DatabaseTrouble, match="malformed JSON"), db.connect(path) as conn:
        with db.transaction(conn):
            db.disks.add_disk(conn, "P01", Role.PRIMARY, "Z1", "0x1", True, AT)
            conn.execute(
                "INSERT INTO smart_checks (disk_id, at, health, attributes) "
                "VALUES (1, ?, 'healthy', '{\"numbers\": ')",
                (AT,),
            )
        (disk,) = db.disks.disks(conn)
        db.smart.last_smart_check(conn, disk)


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    """And it says so."""
    assert refusal(tmp_path) == (
        f"{tmp_path}: the database can't be opened (Is a directory). Nothing was changed. "
        "Fix its permissions."
    )


# --- transactions ---------------------------------------------------------------------------


def test_a_transaction_is_committed_at_its_end(path: Path) -> None:
    """And not before: until then nobody else sees it."""
    with db.connect(path) as conn:
        with db.transaction(conn):
            add_event(conn, "one")
            add_event(conn, "two")
            assert events(path) == []
        assert events(path) == ["one", "two"]
        assert not conn.in_transaction


def test_a_transaction_holds_the_pen_from_its_beginning(path: Path) -> None:
    """What it reads first is still so when it writes; others may read meanwhile."""
    with db.connect(path) as conn, closing(sqlite3.connect(path, timeout=0)) as other:
        with db.transaction(conn):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            assert other.execute("SELECT count(*) FROM passes").fetchone() == (0,)
        other.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_transaction_that_fails_leaves_nothing(path: Path, fault: type[BaseException]) -> None:
    """Whatever ended it; the connection can be used again."""
    with db.connect(path) as conn:
        with pytest.raises(fault), db.transaction(conn):
            add_event(conn, "half")
            raise fault
        with db.transaction(conn):
            add_event(conn, "whole")
    assert events(path) == ["whole"]


def test_a_transaction_inside_of_another_is_a_part_of_it(path: Path) -> None:
    """Nobody sees what it did before the outer one's end; it falls with the outer one."""
    with db.connect(path) as conn:
        with pytest.raises(ValueError, match="too late"), db.transaction(conn):
            with db.transaction(conn):
                add_event(conn, "inner")
            assert events(path) == []
            raise ValueError("too late")
        assert events(path) == []
        with db.transaction(conn), db.transaction(conn):
            add_event(conn, "both")
    assert events(path) == ["both"]


def test_a_statement_that_fails_undoes_its_transaction(path: Path) -> None:
    """Not only itself."""
    with db.connect(path) as conn:
        with pytest.raises(sqlite3.IntegrityError), db.transaction(conn):
            add_event(conn, "half")
            conn.execute("INSERT INTO passes (started_at) VALUES (NULL)")
        assert not conn.in_transaction
    assert events(path) == []


def test_a_commit_that_fails_leaves_no_transaction_open(path: Path, impatient: None) -> None:
    """Somebody reads on and on: what could not be committed is undone, and later work goes on."""
    with db.connect(path) as conn, closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM passes").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"), db.transaction(conn):
            add_event(conn, "half")
        assert not conn.in_transaction
        reader.rollback()
        with db.transaction(conn):
            add_event(conn, "whole")
    assert events(path) == ["whole"]


# --- what goes wrong ------------------------------------------------------------------------


def trouble(path: Path, work: Callable[[db.Connection], object], read_only: bool = False) -> str:
    with pytest.raises(DatabaseTrouble) as caught, db.connect(path, read_only=read_only) as conn:
        work(conn)
    assert caught.value.exit_code == ExitCode.LOOK
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.endswith(
        ". Every file that is not yet registered stays in the buffer. "
        "See database-error in docs/operators.md"
    )
    return said.removeprefix(f"{path}: ").partition(". Every file")[0]


def test_a_locked_database_is_said_in_words(path: Path, impatient: None) -> None:
    """It is the world's fault, not a defect."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert trouble(path, lambda conn: conn.execute("SELECT * FROM passes")) == (
            "another program has kept the database locked for 0 s"
        )


def test_a_damaged_database_is_said_in_words(path: Path) -> None:
    """SQLite finds it when it comes by."""
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    assert trouble(path, lambda conn: conn.execute("SELECT * FROM passes").fetchall()) == (
        "the database does not answer (database disk image is malformed)"
    )


def overwritten(path: Path, *pairs: tuple[bytes, bytes]) -> None:
    """Bytes of the file, as a bad sector or another program leaves them."""
    content = path.read_bytes()
    for old, new in pairs:
        assert len(old) == len(new) and content.count(old) == 1
        content = content.replace(old, new)
    path.write_bytes(content)


Pairs = tuple[tuple[bytes, bytes], ...]
NO_TABLE = (b"CREATE TABLE rehashed", b"CREATE TABLX rehashed")
SCHEMAS_HARMED: dict[str, tuple[Pairs, str]] = {
    "a word": ((NO_TABLE,), "malformed database schema (rehashed) - near"),
    "a name that is no text": (
        (NO_TABLE, (b"tablerehashed", b"tablerehash\xff\xfe")),
        "malformed database schema",
    ),
    "a name for a terminal": (
        (NO_TABLE, (b"tablerehashed", b"table\x1b[2Jshed")),
        r"malformed database schema (\x1b[2Jshed)",
    ),
    "a comment": (
        ((b"-- the sticker", b"-- \xff\xfee sticker"),),
        "Could not decode to UTF-8 column 'sql' with",
    ),
    "a column": (
        ((b"ON files (archived_at", b"ON files (archived_of"),),
        "malformed database schema (files_by_archived_at) - no such column",
    ),
}


@pytest.mark.parametrize(("pairs", "said"), SCHEMAS_HARMED.values(), ids=SCHEMAS_HARMED)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_schema_is_said_in_words(
    path: Path, pairs: Pairs, said: str, read_only: bool
) -> None:
    """SQLite quotes what it can't read: on one line, printable, and no mistake of ours."""
    overwritten(path, *pairs)
    why = trouble(path, lambda conn: None, read_only=read_only)
    assert why.startswith(f"the database does not answer ({said}")
    assert why.isprintable()


def test_an_unknown_format_of_the_file_is_said_in_words(path: Path) -> None:
    """One byte of its header is another (fileformat2.html, 1.3: the schema format number)."""
    with path.open("r+b") as file:
        file.seek(47)
        file.write(b"\x63")
    assert trouble(path, lambda conn: None) == (
        "the database does not answer (unsupported file format)"
    )


def test_a_text_that_is_none_is_said_in_words(path: Path) -> None:
    """In a row of ours, where all else is sound."""
    with db.connect(path) as conn:
        add_event(conn, "2026-11-23")
    overwritten(path, (b"2026-11-23", b"2026-\xff1-23"))
    why = trouble(path, lambda conn: conn.execute("SELECT started_at FROM passes").fetchall())
    assert why.startswith("the database does not answer (Could not decode to UTF-8 column")


@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_value_that_we_never_store_tells_of_damage(path: Path, is_damaged: bool) -> None:
    """Of a bug, where the database is sound."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA ignore_check_constraints = ON")
        role = "prymary" if is_damaged else "primary"
        values = "INSERT INTO disks (label, role, serial, logical_id) VALUES ('P01', ?, 'A', '0x1')"
        conn.execute(values, (role,))
        conn.commit()
    if is_damaged:
        assert trouble(path, db.disks.disks) == (
            "the database is malformed: CHECK constraint failed in disks"
        )
    else:
        with pytest.raises(ValueError, match="not ours"), db.connect(path):
            raise ValueError("not ours")


@pytest.mark.parametrize(("pairs", "said"), SCHEMAS_HARMED.values(), ids=SCHEMAS_HARMED)
def test_a_damaged_copy_is_no_fault_of_its_drive(path: Path, pairs: Pairs, said: str) -> None:
    """The copies of the database on the disks are opened in another way."""
    overwritten(path, *pairs)
    fd = os.open(path, os.O_RDONLY)
    try:
        with (
            pytest.raises(CopyDamaged, match=re.escape(said)),
            db.database_files.opened_copy(fd) as conn,
        ):
            conn.execute("SELECT sql FROM sqlite_schema").fetchall()
    finally:
        os.close(fd)


def test_writing_to_what_was_opened_for_reading_is_said_in_words(path: Path) -> None:
    """``status`` never alters anything."""
    work: Callable[[db.Connection], object] = lambda conn: add_event(conn, "x")  # noqa: E731
    assert trouble(path, work, read_only=True) == (
        "the database does not answer (attempt to write a readonly database)"
    )


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("SELEC 1", sqlite3.OperationalError),
        ("SELECT * FROM no_such_table", sqlite3.OperationalError),
        ("SELECT fullrate FROM files", sqlite3.OperationalError),
        ("SELECT * FROM locked_disks", sqlite3.OperationalError),
        ("INSERT INTO passes (started_at) VALUES (NULL)", sqlite3.IntegrityError),
        ("SELECT ?", sqlite3.ProgrammingError),
    ],
)
def test_a_mistake_in_our_sql_stays_a_defect(
    path: Path, sql: str, fault: type[sqlite3.Error]
) -> None:
    """It is never told as the database's trouble, whatever words the message holds."""
    with pytest.raises(fault) as caught, db.connect(path) as conn:
        conn.execute(sql)
    assert type(caught.value) is fault


# --- making one -----------------------------------------------------------------------------


def test_a_new_database_is_whole_and_empty(path: Path) -> None:
    """All tables, our mark, our version; nothing else is left in the directory."""
    assert os.listdir(path.parent) == ["pole.sqlite"]
    with db.connect(path) as conn:
        assert conn.execute("PRAGMA application_id").fetchone()[0] == 0x506F6C65
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        names = {row["name"] for row in conn.execute("SELECT name FROM sqlite_master")}
        contract = {"disks", "disk_events", "files", "copies", "pending", "smart_checks"}
        assert contract | {"notices", "deliveries", "passes", "file_locations"} <= names
        assert conn.execute("SELECT count(*) FROM disks").fetchone()[0] == 0


def test_what_stands_there_is_never_replaced(tmp_path: Path) -> None:
    """Neither a database nor anything else; nothing is left beside it."""
    path = tmp_path / "pole.sqlite"
    path.write_text("the only catalogue")
    with pytest.raises(FileExistsError):
        db.database_files.create(path)
    assert path.read_text() == "the only catalogue"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        db.database_files.create(path)
    assert os.listdir(tmp_path) == ["pole.sqlite"]


def test_making_it_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step fails, nothing stands there, and nothing beside it."""

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in (
        (os, "link"),
        (db.database_files, "_write_schema"),
        (db.sqlite, "open_at"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            with pytest.raises(OSError):
                db.database_files.create(tmp_path / "pole.sqlite")
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere/pole.sqlite", "No such file or directory"), ("file/pole.sqlite", "Not a directory")],
)
def test_a_database_that_cannot_be_made_is_a_fault_of_usage(
    tmp_path: Path, name: str, why: str
) -> None:
    """Nothing was touched; it says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnusable) as caught:
        db.database_files.create(tmp_path / name)
    assert str(caught.value) == (
        f"{tmp_path / name}: it can't be made ({why}). Nothing was changed. "
        "Make its directory, or fix its permissions."
    )
    assert os.listdir(tmp_path) == ["file"]
