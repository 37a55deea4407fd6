"""How SQLite is used: connections, transactions, its faults as ours, and what it finds damaged.

Rollback journal, not WAL, so that a user without write permission can always read;
``synchronous=EXTRA``, so that a committed transaction survives a power cut.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from poledata.errors import DatabaseTrouble, DatabaseUnusable
from poledata.formatting import shown

BESIDE = ("-journal", "-wal", "-shm")  # what SQLite appends to a database's path
APPLICATION_ID = 0x506F6C65  # "Pole": distinguishes our files from other SQLite files
SCHEMA_VERSION = 3
OLDEST_VERSION = 2  # of release 1.0.0
BUSY_TIMEOUT_S = 60.0
WHICH_ONE = (
    "Name the right FilenameDB. If this is the one, it is damaged: see database-error in "
    "docs/operators.md."
)
# What SQLite reports if the file or the system is at fault; anything else is a bug in our SQL.
DAMAGE = (
    "database disk image is malformed",
    "malformed database schema",
    "unsupported file format",
    "malformed JSON",  # a text of ours that was altered
    "Could not decode to UTF-8",  # Python, of a text
)
_OUTSIDE_FAULTS = (
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database",
    "attempt to write a readonly database",
    *DAMAGE,
    "output file already exists",  # of a copy: another program was quicker
)

Connection = sqlite3.Connection


def open_at(
    path: Path, mode: str, timeout_s: float | None = None, is_immutable: bool = False
) -> Connection:
    """Return a connection, ``ro`` or ``rw``, with the settings of all of ours; close it.

    ``is_immutable``: SQLite takes no lock, looks for no journal, and changes nothing (uri.html).
    """
    _must_be_files(path)
    uri = f"file:{quote(str(path))}?mode={mode}{'&immutable=1' if is_immutable else ''}"
    timeout_s = BUSY_TIMEOUT_S if timeout_s is None else timeout_s
    conn = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
    with ExitStack() as unless_open:
        unless_open.callback(conn.close)
        conn.row_factory = sqlite3.Row
        conn.execute("PRAGMA foreign_keys = ON")
        try:
            conn.execute("PRAGMA synchronous = EXTRA")
        except UnicodeDecodeError as fault:  # SQLite quotes what is damaged, and Python can't
            raise sqlite3.DatabaseError("malformed database schema") from fault
        unless_open.pop_all()
    return conn


def _must_be_files(path: Path) -> None:
    """Refuse what is no file where SQLite expects its own: it would wait for a FIFO's writer.

    Raises DatabaseUnusable.
    """
    for name in (os.path.realpath(path), *(f"{path}{suffix}" for suffix in BESIDE)):
        if os.path.lexists(name) and not stat.S_ISREG(os.lstat(name).st_mode):
            raise DatabaseUnusable(path, f"{name} is not a regular file", "Remove that first.")


@contextmanager
def transaction(conn: Connection) -> Iterator[None]:
    """Commit everything inside at once, or nothing; one inside another is part of it."""
    if conn.in_transaction:
        yield
        return
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.commit()
    except BaseException:
        conn.rollback()
        raise


def script(name: str) -> str:
    """Return the text of ``schema.sql`` or of an upgrade."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


# --- the state of a file ------------------------------------------------------------------


def answers_reader(path: Path) -> bool:
    """True if a user who may not write can read it: not after a crash during a commit."""
    try:
        with closing(open_at(path, "ro")) as conn:
            conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as fault:
        if str(fault).startswith(("unable to open", "attempt to write")):
            return False
        raise
    return True


def is_wal(conn: Connection) -> bool:
    """True if another program switched it to a write-ahead log."""
    return bool(conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def cut_end(conn: Connection, path: Path) -> list[str]:
    """Return what is wrong with the end of the file ``path``, which SQLite does not report.

    It reads the missing end of a last page that was cut as zeros, and continues.
    """
    if is_wal(conn):
        return []  # pages may be in the log alone
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = conn.execute("PRAGMA page_size").fetchone()
    return ["its end is cut off"] if path.stat().st_size < pages * page_bytes else []


def faults(conn: Connection) -> list[str]:
    """Return the first faults that SQLite finds inside the file; it is sound if there are none.

    It reads the whole file. Content that was altered without harm to the structure is not found.
    """
    try:
        rows = conn.execute("PRAGMA integrity_check(3)").fetchall()
    except sqlite3.OperationalError:
        raise  # locked, or the drive: that says nothing about the content
    except sqlite3.DatabaseError as fault:
        return [str(fault)]
    return [line for row in rows for line in row[0].splitlines() if line != "ok"]


# --- faults -------------------------------------------------------------------------------


def is_unusable(fault: Exception) -> bool:
    """True if this says that the database can't be used now, which is no bug of ours."""
    text = str(fault)
    is_of_sqlite = isinstance(fault, sqlite3.DatabaseError)
    return is_of_sqlite and ("not a database" in text or text.startswith(_OUTSIDE_FAULTS))


@contextmanager
def translated_faults(path: Path) -> Iterator[None]:
    """Raise SQLite's faults as DatabaseUnusable or DatabaseTrouble; bugs in our SQL stay bugs."""
    try:
        yield
    except sqlite3.DatabaseError as fault:
        if not is_unusable(fault):
            raise
        if "not a database" in str(fault):
            raise DatabaseUnusable(path, "this is not an SQLite database", WHICH_ONE) from fault
        text = quoted(fault)
        if text.endswith("is locked"):
            why = f"another program has kept the database locked for {BUSY_TIMEOUT_S:.0f} s"
        else:
            why = f"the database does not answer ({text})"
        raise DatabaseTrouble(path, why) from fault


def quoted(fault: Exception) -> str:
    """Return SQLite's own text, which may quote any bytes of a damaged file."""
    return shown(str(fault).partition("\n")[0][:200])
