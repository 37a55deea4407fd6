"""The one door to SQLite: open, upgrade, one transaction at a time; dbfiles.py makes new ones.

Rollback journal, not WAL, so that a user without write permission can always read;
``synchronous=EXTRA``, so that a committed transaction survives a power cut.
"""

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
from urllib.parse import quote

from poledata.errors import CopyDamaged, DatabaseTrouble, DatabaseUnusable
from poledata.formatting import shown
from poledata.system import paths

APPLICATION_ID = 0x506F6C65  # "Pole": tells our files from other SQLite files
SCHEMA_VERSION = 3
OLDEST_VERSION = 2  # of release 1.0.0
BUSY_TIMEOUT_S = 60.0
_WHICH_ONE = (
    "Name the right FilenameDB. If this is the one, it is damaged: see database-error in "
    "docs/operators.md."
)

Connection = sqlite3.Connection
log = logging.getLogger(__name__)


@contextmanager
def connect(path: Path, *, read_only: bool = False) -> Iterator[Connection]:
    """Open an existing database, checked to be ours and of this version; close it after.

    One of an older version is upgraded; where it is only to be read, a copy of it. Raises
    DatabaseUnusable (missing, foreign, newer), DatabaseTrouble (locked, full, damaged; also
    for statements run inside the ``with``).
    """
    _must_be_readable(path)
    may_upgrade = not read_only
    with in_words(path), ExitStack() as stack:
        if read_only and not _answers(path):
            _must_not_be_wal(path)
            path = stack.enter_context(_rolled_back_copy(path))
            read_only = False
        if not read_only:
            _leave_wal(path)
        conn = stack.enter_context(closing(open_at(path, "ro" if read_only else "rw")))
        _must_be_whole(conn, path)
        if _version(conn, path) < SCHEMA_VERSION and may_upgrade:
            _upgrade(conn, path)
        elif _version(conn, path) < SCHEMA_VERSION:
            conn = stack.enter_context(_upgraded_copy(conn, path))
        _must_have_our_schema(conn, path, may_repair=not read_only)
        with _damage_is_no_bug(conn, path):
            yield conn


@contextmanager
def _damage_is_no_bug(conn: Connection, path: Path) -> Iterator[None]:
    """A value that we never store (a disk without a role) tells of damage, if SQLite finds some."""
    try:
        yield
    except (ValueError, TypeError) as fault:
        if said := faults(conn):
            raise DatabaseTrouble(path, f"the database is malformed: {shown(said[0])}") from fault
        raise


@contextmanager
def connect_again(path: Path) -> Iterator[Connection]:
    """The same later in a run, which has changed much by then: nothing is wrong usage any more.

    Raises DatabaseTrouble.
    """
    with ExitStack() as stack:
        try:
            conn = stack.enter_context(connect(path))
        except DatabaseUnusable as fault:
            raise DatabaseTrouble(path, fault.why) from fault
        yield conn


def _answers(path: Path) -> bool:
    """Whether a reader who may not write gets an answer: not after a crash amid a commit."""
    try:
        with closing(open_at(path, "ro")) as conn:
            conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as fault:
        if str(fault).startswith(("unable to open", "attempt to write")):
            return False
        raise
    return True


@contextmanager
def _rolled_back_copy(path: Path) -> Iterator[Path]:
    """A copy without what was not committed: the next writer does the same to the original."""
    import shutil  # rarely needed, and slow to load

    with temporary_directory(path) as directory:
        copy = directory / path.name
        try:
            for suffix in ("-journal", ""):
                if os.path.exists(f"{path}{suffix}"):
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        except OSError as fault:
            raise _no_copy(path, fault) from fault
        yield copy


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """Where a copy of this database can be made for now. Raises DatabaseTrouble."""
    from tempfile import TemporaryDirectory

    try:
        directory = TemporaryDirectory()
    except OSError as fault:
        raise _no_copy(path, fault) from fault
    with directory as name:
        yield Path(name)


def _no_copy(path: Path, fault: OSError) -> DatabaseTrouble:
    return DatabaseTrouble(
        path,
        f"no temporary copy of it can be made ({fault.strerror or fault}); make room in /tmp, or "
        "set TMPDIR to a directory that has some",
    )


# --- what other programs change -------------------------------------------------------------


def is_wal(conn: Connection) -> bool:
    """Whether another program switched it to a write-ahead log."""
    return bool(conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _leave_wal(path: Path) -> None:
    """Back to the rollback journal, unless another program has it open: then a later pass does it.

    Until then commits are as durable as ever; users who may not write there can't read.
    """
    with closing(open_at(path, "rw", timeout_s=1)) as conn:
        if not is_wal(conn):
            return
        try:
            conn.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as fault:
            if not str(fault).endswith("is locked"):
                raise
            log.info("%s is still in WAL mode: another program has it open", path)
        else:
            log.warning("another program had switched %s to WAL mode: it was switched back", path)


def _must_not_be_wal(path: Path) -> None:
    """Raises DatabaseTrouble for who may not write: a reader of such a database must."""
    with path.open("rb") as file:  # who may not write has no lock on it to lose
        is_wal = file.read(20)[18:] == b"\2\2"  # fileformat2.html, 1.3
    if is_wal:
        raise DatabaseTrouble(
            path,
            "another program switched the database to WAL mode, in which this user can't read it. "
            "Close that program; the next pass switches it back: try again then",
        )


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
    schema = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript(f"{schema}")
        return _schema_of(conn)


def _must_have_our_schema(conn: Connection, path: Path, may_repair: bool) -> None:
    """More tables, indexes and views do no harm, and a missing index is made again.

    Raises DatabaseUnusable where a trigger could alter what we store, or a column is not ours.
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
            raise DatabaseUnusable(path, f"another program {what} its table {name}", _WHICH_ONE)
    for name in ours.indexes.keys() - found.indexes.keys() if may_repair else ():
        statement = ours.indexes[name]
        conn.execute(f"{statement}")
        log.warning("%s: another program had removed the index %s: it was made again", path, name)


# --- transactions ---------------------------------------------------------------------------


@contextmanager
def transaction(conn: Connection) -> Iterator[None]:
    """Everything inside is committed at once, or not at all; one inside another is part of it."""
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
            path, f"the database can't be opened ({fault.strerror})", "Mend its rights."
        ) from fault


def open_at(path: Path, mode: str, timeout_s: float | None = None) -> Connection:
    """A connection, ``ro`` or ``rw``, as all of ours are; close it."""
    uri = f"file:{quote(str(path))}?mode={mode}"
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


@contextmanager
def beside(conn: Connection, fd: int) -> Iterator[None]:
    """A copy of a database, which nobody writes to, as ``other`` in the same connection.

    Raises CopyDamaged; OSError (of its disk, or because its path leads elsewhere by now).
    """
    with _faults_of_copy():
        conn.execute("ATTACH ? AS other", (_uri_of_copy(fd),))
        try:
            yield
        finally:
            conn.execute("DETACH other")


@contextmanager
def opened_copy(fd: int) -> Iterator[Connection]:
    """The same in a connection of its own; nothing is made beside it."""
    uri = _uri_of_copy(fd)
    with _faults_of_copy(), closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as conn:
        conn.row_factory = sqlite3.Row
        if conn.execute("PRAGMA user_version").fetchone()[0] > SCHEMA_VERSION:
            raise CopyDamaged("it is of a newer version than this program")
        yield conn


@contextmanager
def _faults_of_copy() -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as fault:
        raise CopyDamaged("malformed database schema") from fault
    except sqlite3.DatabaseError as fault:
        if not isinstance(fault, sqlite3.OperationalError) or str(fault).startswith(_DAMAGE):
            raise CopyDamaged(_quoted(fault)) from fault
        if "locked" in str(fault):
            raise  # that is the database, not the copy
        raise OSError(errno.EIO, str(fault)) from fault


def _uri_of_copy(fd: int) -> str:
    """SQLite opens paths alone: this one must lead to the file that is open."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if not os.path.samestat(os.stat(path), os.fstat(fd)):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
    return f"file:{quote(path)}?mode=ro&immutable=1"


def _version(conn: Connection, path: Path) -> int:
    """The version of the schema. Raises DatabaseUnusable (not ours, newer)."""
    application = conn.execute("PRAGMA application_id").fetchone()[0]
    version = int(conn.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        raise DatabaseUnusable(
            path,
            "this SQLite file was not made by generate_db.py",
            _WHICH_ONE,
        )
    if version > SCHEMA_VERSION:
        raise DatabaseUnusable(
            path,
            f"its schema version {version} is newer than this program's {SCHEMA_VERSION}",
            "Run the newer program that it belongs to.",
        )
    if version < OLDEST_VERSION:
        raise DatabaseUnusable(
            path,
            f"its schema version {version} is older than that of any release",
            _WHICH_ONE,
        )
    return version


# --- upgrades -----------------------------------------------------------------------------


@contextmanager
def _upgraded_copy(conn: Connection, path: Path) -> Iterator[Connection]:
    """What a reader sees of an older database: the next pass upgrades the original."""
    with temporary_directory(path) as directory:
        copy = directory / path.name
        try:
            conn.execute("VACUUM INTO ?", (str(copy),))
        except sqlite3.OperationalError as fault:
            if "full" not in str(fault):
                raise
            raise _no_copy(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from fault
        with closing(open_at(copy, "rw")) as upgraded:
            version = _version(conn, path)
            _run_upgrades(upgraded, path, version)
            log.warning(
                "%s is of an earlier release (schema version %d, not %d): the next pass upgrades "
                "it. This shows an upgraded copy.",
                path,
                version,
                SCHEMA_VERSION,
            )
            yield upgraded


def _upgrade(conn: Connection, path: Path) -> None:
    """Bring a database of an older version to this one, in one transaction, after a backup."""
    version = _version(conn, path)
    _back_up(conn, path, version)
    _run_upgrades(conn, path, version)


def _run_upgrades(conn: Connection, path: Path, version: int) -> None:
    with transaction(conn):
        if _version(conn, path) != version:
            return  # another program was quicker
        for number in range(version + 1, SCHEMA_VERSION + 1):
            script = Path(__file__).with_name(f"upgrade_{number}.sql").read_text(encoding="utf-8")
            for statement in re.split(r";$", script, flags=re.MULTILINE):
                _upgrade_by(conn, path, statement)
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _upgrade_by(conn: Connection, path: Path, statement: str) -> None:
    try:
        conn.execute(f"{statement}")
    except sqlite3.OperationalError as fault:
        if not re.search("already exists|duplicate column|no such", str(fault)):
            raise
        why = f"it can't be upgraded ({fault}): another program changed it"
        raise DatabaseUnusable(path, why, _WHICH_ONE) from fault


def _back_up(conn: Connection, path: Path, version: int) -> None:
    """A copy as it was before the upgrade, beside the database; one that stands there is kept."""
    backup = path.with_name(f"{path.name}.version-{version}")
    fresh = path.with_name(f".{backup.name}.{os.urandom(4).hex()}")
    if backup.exists():
        return
    try:
        conn.execute("VACUUM INTO ?", (str(fresh),))
        paths.fsync_path(fresh)
        os.link(fresh, backup)
        paths.fsync_path(path.parent)
    except OSError as fault:
        raise DatabaseUnusable(
            path,
            f"it can't be copied to {backup} before it is upgraded ({fault.strerror})",
            "Make room, or mend the rights of that directory.",
        ) from fault
    finally:
        fresh.unlink(missing_ok=True)


def _must_be_whole(conn: Connection, path: Path) -> None:
    if said := _cut_end(conn, path):
        raise DatabaseTrouble(path, f"the database is malformed: {said[0]}")


def _cut_end(conn: Connection, path: Path) -> list[str]:
    """SQLite takes the missing end of a last page that was cut for zeros, and goes on."""
    if is_wal(conn):
        return []  # pages may be in the log alone
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = conn.execute("PRAGMA page_size").fetchone()
    return ["its end is cut off"] if path.stat().st_size < pages * page_bytes else []


def faults(conn: Connection) -> list[str]:
    """What SQLite finds damaged inside the file, the first of it; nothing: it is sound.

    It reads all of it. Content that was altered without harm to the structure is not found.
    """
    try:
        rows = conn.execute("PRAGMA integrity_check(3)").fetchall()
    except sqlite3.OperationalError:
        raise  # locked, or the drive: that tells nothing of what is inside
    except sqlite3.DatabaseError as fault:
        return [str(fault)]
    return [line for row in rows for line in row[0].splitlines() if line != "ok"]


def must_be_sound(path: Path) -> None:
    """Raises DatabaseUnusable if the file is damaged inside; whatever its version is."""
    with in_words(path), ExitStack() as stack:
        copy = path if _answers(path) else stack.enter_context(_rolled_back_copy(path))
        conn = stack.enter_context(closing(open_at(copy, "ro" if copy == path else "rw")))
        if said := _cut_end(conn, copy) or faults(conn):
            raise DatabaseUnusable(
                path,
                f"the database is damaged inside: {said[0]}",
                "Nothing is built on that: put it aside first, as database-error in "
                "docs/operators.md says.",
            )


# What SQLite says when the world is at fault; anything else is a mistake in our SQL.
_DAMAGE = (
    "database disk image is malformed",
    "malformed database schema",
    "unsupported file format",
    "Could not decode to UTF-8",  # Python, of a text
)
_WORLD_FAULTS = (
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database",
    "attempt to write a readonly database",
    *_DAMAGE,
    "output file already exists",  # of a copy: somebody was quicker
)


def is_unusable(fault: Exception) -> bool:
    """Whether this says that the database can't be used now: no mistake of ours."""
    said = str(fault)
    is_of_sqlite = isinstance(fault, sqlite3.DatabaseError)
    return is_of_sqlite and ("not a database" in said or said.startswith(_WORLD_FAULTS))


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn SQLite's faults into sentences; our own mistakes in SQL stay defects."""
    try:
        yield
    except sqlite3.DatabaseError as fault:
        if not is_unusable(fault):
            raise
        said = str(fault)
        if "not a database" in said:
            raise DatabaseUnusable(
                path,
                "this is not an SQLite database",
                _WHICH_ONE,
            ) from fault
        raise DatabaseTrouble(path, _sentence(_quoted(fault))) from fault


def _sentence(said: str) -> str:
    if said.endswith("is locked"):
        return f"another program has kept the database locked for {BUSY_TIMEOUT_S:.0f} s"
    return f"the database does not answer ({said})"


def _quoted(fault: Exception) -> str:
    """What SQLite says, which may quote any bytes of a damaged file."""
    return shown(str(fault).partition("\n")[0][:200])
