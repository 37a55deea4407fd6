"""Open the database of this archive: check that it is ours and complete, and upgrade it."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shlex import quote as quoted

from poledata.db import database_files, sqlite
from poledata.db.sqlite import (
    APPLICATION_ID,
    OLDEST_VERSION,
    SCHEMA_VERSION,
    WHICH_ONE,
    Connection,
    open_at,
    transaction,
)
from poledata.errors import DatabaseTrouble, DatabaseUnusable
from poledata.formatting import shown
from poledata.system.privileges import user_name

log = logging.getLogger(__name__)


@contextmanager
def connect(path: Path, *, read_only: bool = False, is_long: bool = False) -> Iterator[Connection]:
    """Open an existing database after checking that it is ours and of this version; close it.

    One of an older version is upgraded; if it is only to be read, a copy of it is. ``is_long``: it
    is read for long, and no other user may keep its owner from writing meanwhile. Raises
    DatabaseUnusable (missing, foreign, newer), DatabaseTrouble (locked, full, damaged; also
    for statements run inside the ``with``).
    """
    _must_be_readable(path)
    with sqlite.translated_faults(path), ExitStack() as stack:
        if read_only:
            conn, file = stack.enter_context(database_files.opened_to_read(path, is_long))
        else:
            _must_be_ours(path)
            _leave_wal(path)
            conn, file = stack.enter_context(closing(open_at(path, "rw"))), path
        if found := sqlite.cut_end(conn, file):
            raise DatabaseTrouble(path, f"the database is malformed: {found[0]}")
        version = _version(conn, path)
        if version < SCHEMA_VERSION and read_only:
            conn = stack.enter_context(_upgraded_copy(conn, path, version))
        elif version < SCHEMA_VERSION:
            database_files.back_up(conn, path, version)
            _upgrade(conn, path, version)
        _must_have_our_schema(conn, path, may_repair=not read_only)
        with _damage_is_no_bug(conn, path):
            yield conn


@contextmanager
def connect_again(path: Path) -> Iterator[Connection]:
    """Open it again later in a run, which has changed much by then: nothing is wrong usage now.

    Raises DatabaseTrouble.
    """
    with ExitStack() as stack:
        try:
            conn = stack.enter_context(connect(path))
        except DatabaseUnusable as fault:
            raise DatabaseTrouble(path, fault.why) from fault
        yield conn


@contextmanager
def _damage_is_no_bug(conn: Connection, path: Path) -> Iterator[None]:
    """A value that we never store (a disk without a role) means damage, if SQLite finds some."""
    try:
        yield
    except (ValueError, TypeError) as fault:
        if found := sqlite.faults(conn):
            raise DatabaseTrouble(path, f"the database is malformed: {shown(found[0])}") from fault
        raise


def _must_be_readable(path: Path) -> None:
    # Not by opening it: POSIX drops a process's locks on a file when any descriptor is closed.
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        raise DatabaseUnusable(
            path,
            "there is no database",
            "If there was one, do not make a new one: generate_db.py --from-disks (see "
            "database-error in docs/operators.md). First installation: generate_db.py "
            "--disk-map FILE",
        ) from None
    except OSError as fault:
        raise DatabaseUnusable(
            path, f"the database can't be opened ({fault.strerror})", "Fix its permissions."
        ) from fault


def _must_be_ours(path: Path) -> None:
    """Refuse to write to another user's database: what a crash left there is theirs to repair.

    Except where both may write to its directory, which ``check`` reports.
    """
    owner = path.stat().st_uid
    if owner != os.geteuid() and (os.geteuid() == 0 or not os.access(path.parent, os.W_OK)):
        why = f"the database belongs to the user {user_name(owner)}"
        raise DatabaseUnusable(path, why, "Run this with sudo, or as that user.")


# --- what other programs change -------------------------------------------------------------


def _leave_wal(path: Path) -> None:
    """Return to the rollback journal; if another program has it open, a later pass does it.

    Until then commits are as durable as ever; users who may not write there can't read.
    """
    with closing(open_at(path, "rw", timeout_s=1)) as conn:
        if not sqlite.is_wal(conn):
            return
        try:
            conn.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as fault:
            if not str(fault).endswith("is locked"):
                raise
            log.info("%s is still in WAL mode: another program has it open", path)
        else:
            log.warning("another program had switched %s to WAL mode: it was switched back", path)


@dataclass(frozen=True, slots=True)
class _Schema:
    """Tables with their columns, indexes with their SQL, and names of triggers."""

    tables: dict[str, frozenset[str]]
    indexes: dict[str, str]
    triggers: frozenset[str]


def _columns_of(conn: Connection, table: str) -> frozenset[str]:
    rows = conn.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return frozenset(row[0] for row in rows)


def _schema_of(conn: Connection) -> _Schema:
    named = conn.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    return _Schema(
        {name: _columns_of(conn, name) for kind, name, _ in named if kind == "table"},
        {name: sql for kind, name, sql in named if kind == "index"},
        frozenset(name for kind, name, _ in named if kind == "trigger"),
    )


@cache
def _our_schema() -> _Schema:
    schema = sqlite.script("schema.sql")
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript(f"{schema}")
        return _schema_of(conn)


def _must_have_our_schema(conn: Connection, path: Path, may_repair: bool) -> None:
    """Check the schema: more tables, indexes and views do no harm; a missing index is made again.

    Raises DatabaseUnusable if a trigger could alter what we store, or a column is not ours.
    """
    ours, found = _our_schema(), _schema_of(conn)
    for name in sorted(found.triggers - ours.triggers):
        raise DatabaseUnusable(
            path,
            f"another program gave it the trigger {name}, which could change what is stored",
            f"""Remove it: sqlite3 {quoted(str(path))} 'DROP TRIGGER "{name}"'""",
        )
    for name, columns in ours.tables.items():
        if found.tables.get(name) != columns:
            what = "changed the columns of" if name in found.tables else "removed"
            raise DatabaseUnusable(path, f"another program {what} its table {name}", WHICH_ONE)
    for name in ours.indexes.keys() - found.indexes.keys() if may_repair else ():
        statement = ours.indexes[name]
        conn.execute(f"{statement}")
        log.warning("%s: another program had removed the index %s: it was made again", path, name)


# --- versions -----------------------------------------------------------------------------


def _version(conn: Connection, path: Path) -> int:
    """Return the version of the schema. Raises DatabaseUnusable (not ours, newer, too old)."""
    application = conn.execute("PRAGMA application_id").fetchone()[0]
    version = int(conn.execute("PRAGMA user_version").fetchone()[0])
    its, what_next = f"its schema version {version}", WHICH_ONE
    if application != APPLICATION_ID:
        why = "this SQLite file was not made by generate_db.py"
    elif version > SCHEMA_VERSION:
        why = f"{its} is newer than this program's {SCHEMA_VERSION}"
        what_next = "Run the newer program that it belongs to."
    elif version < OLDEST_VERSION:
        why = f"{its} is older than that of any release"
    else:
        return version
    raise DatabaseUnusable(path, why, what_next)


@contextmanager
def _upgraded_copy(conn: Connection, path: Path, version: int) -> Iterator[Connection]:
    """Open what a reader sees of an older database: the next pass upgrades the original."""
    with database_files.temporary_directory(path) as directory:
        copy = directory / path.name
        try:
            conn.execute("VACUUM INTO ?", (str(copy),))
        except sqlite3.OperationalError as fault:
            if "full" not in str(fault):
                raise
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise database_files.no_copy(path, full) from fault
        with closing(open_at(copy, "rw")) as upgraded:
            _upgrade(upgraded, path, version)
            log.warning(
                "%s is of an earlier release (schema version %d, not %d): the next pass upgrades "
                "it. This shows an upgraded copy.",
                path,
                version,
                SCHEMA_VERSION,
            )
            yield upgraded


def _upgrade(conn: Connection, path: Path, version: int) -> None:
    """Bring a database from an older version to this one, in one transaction."""
    with transaction(conn):
        if _version(conn, path) != version:
            return  # another program was quicker
        for number in range(version + 1, SCHEMA_VERSION + 1):
            script = sqlite.script(f"upgrade_{number}.sql")
            for statement in re.split(r";$", script, flags=re.MULTILINE):
                _run_upgrade(conn, path, statement)
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _run_upgrade(conn: Connection, path: Path, statement: str) -> None:
    try:
        conn.execute(f"{statement}")
    except sqlite3.OperationalError as fault:
        if not re.search("already exists|duplicate column|no such", str(fault)):
            raise
        why = f"it can't be upgraded ({fault}): another program changed it"
        raise DatabaseUnusable(path, why, WHICH_ONE) from fault
