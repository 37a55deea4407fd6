"""The one door to SQLite: open, upgrade, one transaction at a time; dbfiles.py makes new ones.

Rollback journal, not WAL, so that a user without write permission can always read;
``synchronous=EXTRA``, so that a committed transaction survives a power cut.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from poledata import beneath
from poledata.errors import CopyDamaged, DatabaseTrouble, DatabaseUnusable

APPLICATION_ID = 0x506F6C65  # "Pole": tells our files from other SQLite files
SCHEMA_VERSION = 3
OLDEST_VERSION = 2  # of release 1.0.0
BUSY_TIMEOUT_S = 60.0
_WHICH_ONE = (
    "Name the right FilenameDB. If this is the one, it is damaged: see database-error in "
    "docs/operators.md."
)

Connection = sqlite3.Connection


@contextmanager
def connect(path: Path, *, read_only: bool = False) -> Iterator[Connection]:
    """Open an existing database, checked to be ours and of this version; close it after.

    One of an older version is upgraded, unless it is only to be read. Raises
    DatabaseUnusable (missing, foreign, newer, too old to be read), DatabaseTrouble (locked,
    full, damaged; also for statements run inside the ``with``).
    """
    _must_be_readable(path)
    may_upgrade = not read_only
    with in_words(path), ExitStack() as stack:
        if read_only and not _answers(path):
            path = stack.enter_context(_rolled_back_copy(path))
            read_only = False
        conn = stack.enter_context(closing(open_at(path, "ro" if read_only else "rw")))
        _must_be_whole(conn, path)
        if _version(conn, path) < SCHEMA_VERSION:
            _must_be_upgraded(conn, path, may_upgrade)
        yield conn


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


def open_at(path: Path, mode: str) -> Connection:
    """A connection, ``ro`` or ``rw``, as all of ours are; close it."""
    uri = f"file:{quote(str(path))}?mode={mode}"
    conn = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    with ExitStack() as unless_open:
        unless_open.callback(conn.close)
        conn.row_factory = sqlite3.Row
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA synchronous = EXTRA")
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
    except sqlite3.OperationalError as fault:
        if "locked" in str(fault):
            raise  # that is the database, not the copy
        raise OSError(errno.EIO, str(fault)) from fault
    except sqlite3.DatabaseError as fault:
        raise CopyDamaged(str(fault)) from fault


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


def _must_be_upgraded(conn: Connection, path: Path, may_upgrade: bool) -> None:
    """Bring a database of an older version to this one, in one transaction, after a backup."""
    version = _version(conn, path)
    if not may_upgrade:
        raise DatabaseUnusable(
            path,
            f"its schema version {version} is older than this program's {SCHEMA_VERSION}",
            "The next pass upgrades it; try again then.",
        )
    _back_up(conn, path, version)
    with transaction(conn):
        if _version(conn, path) != version:
            return  # another program was quicker
        for number in range(version + 1, SCHEMA_VERSION + 1):
            script = Path(__file__).with_name(f"upgrade_{number}.sql").read_text(encoding="utf-8")
            for statement in re.split(r";$", script, flags=re.MULTILINE):
                conn.execute(f"{statement}")
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _back_up(conn: Connection, path: Path, version: int) -> None:
    """A copy as it was before the upgrade, beside the database; one that stands there is kept."""
    backup = path.with_name(f"{path.name}.version-{version}")
    fresh = path.with_name(f".{backup.name}.{os.urandom(4).hex()}")
    if backup.exists():
        return
    try:
        conn.execute("VACUUM INTO ?", (str(fresh),))
        beneath.fsync_path(fresh)
        os.link(fresh, backup)
        beneath.fsync_path(path.parent)
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
_WORLD_FAULTS = (
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database",
    "attempt to write a readonly database",
    "database disk image is malformed",
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
        raise DatabaseTrouble(path, _sentence(said)) from fault


def _sentence(said: str) -> str:
    if said.endswith("is locked"):
        return f"another program has kept the database locked for {BUSY_TIMEOUT_S:.0f} s"
    return f"the database does not answer ({said})"
