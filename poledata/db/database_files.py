"""Files of databases: new ones, which appear whole or not at all, and copies of those in use.

For a process that holds the turn (locks.py), except what it says of itself.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from poledata.db import reading, sqlite
from poledata.db.sqlite import APPLICATION_ID, SCHEMA_VERSION, Connection
from poledata.errors import CopyDamaged, DatabaseTrouble, DatabaseUnusable
from poledata.system import paths

# --- new files ------------------------------------------------------------------------------


@contextmanager
def _published(fresh: Path, path: Path) -> Iterator[None]:
    """Give the file that is made at ``fresh`` its own name when all went well; never over a file.

    ``fresh`` is gone afterwards in any case. Raises FileExistsError, OSError.
    """
    try:
        yield
        os.link(fresh, path)
    finally:
        _remove(fresh)
    paths.fsync_path(path.parent)


def _remove(fresh: Path) -> None:
    for suffix in ("", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}")


def create(path: Path) -> None:
    """Make an empty database at ``path``, whole or not at all; never over a file. Needs no turn.

    Raises DatabaseUnusable, DatabaseTrouble; FileExistsError.
    """
    with _new_database(path, _temporary_name(path), None):
        pass  # empty as it is


@contextmanager
def unfinished_database(path: Path, content: Iterable[bytes] | None = None) -> Iterator[Path]:
    """Make a new database under another name, to be filled; it is at ``path`` if all went well.

    It is empty, or has the ``content`` of a copy. Raises DatabaseUnusable (also if there is
    another one at ``path`` by then), DatabaseTrouble; OSError of the copy.
    """
    remove_unfinished(path)
    try:
        with _new_database(path, _unfinished(path), content):
            yield _unfinished(path)
    except FileExistsError as fault:
        raise DatabaseUnusable(
            path, "another database was made here meanwhile", "Look at that one first."
        ) from fault
    finally:
        remove_unfinished(path)  # also the backup that an upgrade of the copy made


def remove_unfinished(path: Path) -> None:
    """Remove the unfinished database of a run that was killed."""
    unfinished = _unfinished(path).name
    for name in os.listdir(path.parent):
        if name.startswith(unfinished):
            path.with_name(name).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")


@contextmanager
def _new_database(path: Path, fresh: Path, content: Iterable[bytes] | None) -> Iterator[None]:
    _must_not_inherit(path)
    try:
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
    except OSError as fault:
        raise DatabaseUnusable(
            path,
            f"it can't be made ({fault.strerror})",
            "Make its directory, or fix its permissions.",
        ) from fault
    with _published(fresh, path):
        if content is None:
            with sqlite.translated_faults(path), closing(sqlite.open_at(fresh, "rw")) as conn:
                _write_schema(conn)
        else:
            with fresh.open("wb") as file:
                file.writelines(content)
            paths.fsync_path(fresh)
        yield


def _must_not_inherit(path: Path) -> None:
    """Raise DatabaseUnusable if a lost database's journal would be applied to a new one."""
    for suffix in ("-journal", "-wal"):
        if not path.exists() and os.path.lexists(f"{path}{suffix}"):
            raise DatabaseUnusable(
                path,
                f"there is no database, but {path.name}{suffix} of an earlier one",
                "Move that away first; keep it with that database.",
            )


def _write_schema(conn: Connection) -> None:
    schema = sqlite.script("schema.sql")
    conn.executescript(
        f"BEGIN; {schema}; PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )


# --- copies ---------------------------------------------------------------------------------


def back_up(conn: Connection, path: Path, version: int) -> None:
    """Copy a database as it is before an upgrade, beside it; an existing backup is kept."""
    backup = path.with_name(f"{path.name}.version-{version}")
    fresh = _temporary_name(backup)
    if backup.exists():
        return
    try:
        with _published(fresh, backup):
            conn.execute("VACUUM INTO ?", (str(fresh),))
            paths.fsync_path(fresh)
    except OSError as fault:
        raise DatabaseUnusable(
            path,
            f"it can't be copied to {backup} before it is upgraded ({fault.strerror})",
            "Make room, or fix the permissions of that directory.",
        ) from fault


def backups(path: Path) -> list[Path]:
    """Return what was kept of this database before upgrades; it stays if the database is lost."""
    return sorted(
        path.with_name(name)
        for name in os.listdir(path.parent)
        if name.startswith(f"{path.name}.version-")
    )


@contextmanager
def temporary_copy(conn: Connection, path: Path) -> Iterator[Path]:
    """Make a whole copy beside the database as it is now, and remove it afterwards.

    Raises DatabaseTrouble.
    """
    copy = path.with_name(f".{path.name}.copy")
    _remove(copy)  # a crash may have left it
    try:
        copy_to(conn, path, copy)
        yield copy
    finally:
        _remove(copy)


def copy_to(conn: Connection, path: Path, copy: Path) -> None:
    """Copy the database at ``path`` to a name that is free. Raises DatabaseTrouble."""
    with sqlite.translated_faults(path):
        conn.execute("VACUUM INTO ?", (str(copy),))


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """Make a directory for a copy of this database, for now. Raises DatabaseTrouble."""
    from tempfile import TemporaryDirectory

    try:
        directory = TemporaryDirectory()
    except OSError as fault:
        raise no_copy(path, fault) from fault
    with directory as name:
        yield Path(name)


def no_copy(path: Path, fault: OSError) -> DatabaseTrouble:
    """Return the error for a temporary copy that can't be made."""
    return DatabaseTrouble(
        path,
        f"no temporary copy of it can be made ({fault.strerror or fault}); make room in /tmp, or "
        "set TMPDIR to a directory that has some",
    )


# --- reading ones that may be damaged -------------------------------------------------------


@contextmanager
def opened_to_read(path: Path, is_long: bool = False) -> Iterator[tuple[Connection, Path]]:
    """Open a database to read it; after a crash during a commit, a copy that is rolled back.

    The next writer does the same to the original. Only for its owner; others get it as it is
    (reading.py). Needs no turn. Raises DatabaseTrouble.
    """
    with ExitStack() as stack:
        if path.stat().st_uid != os.geteuid():
            place = stack.enter_context(temporary_directory(path)) if is_long else None
            yield stack.enter_context(reading.opened_by_another_user(path, place)), path
            return
        mode, file = "ro", path
        if not sqlite.answers_reader(path):
            with path.open("rb") as content:  # this user has no lock on it to lose
                reading.must_not_be_wal(content.read(20), path)
            file = stack.enter_context(temporary_directory(path)) / path.name
            _copy_with_journal(path, file)
            mode = "rw"
        yield stack.enter_context(closing(sqlite.open_at(file, mode))), file


def _copy_with_journal(path: Path, copy: Path) -> None:
    import shutil  # rarely needed, and slow to load

    try:
        for suffix in ("-journal", ""):
            if os.path.exists(f"{path}{suffix}"):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    except OSError as fault:
        raise no_copy(path, fault) from fault


def must_be_sound(path: Path) -> None:
    """Raise DatabaseUnusable if the file is damaged inside, in any version."""
    with sqlite.translated_faults(path):
        try:
            with opened_to_read(path) as (conn, file):
                found = sqlite.cut_end(conn, file) or sqlite.faults(conn)
        except sqlite3.OperationalError:
            raise  # locked, or the drive: that says nothing about the content
        except sqlite3.DatabaseError as fault:  # it can't even be opened
            found = [sqlite.quoted(fault)]
    if found:
        raise DatabaseUnusable(
            path,
            f"the database is damaged inside: {found[0]}",
            "Nothing is built on that: put it aside first, as database-error in "
            "docs/operators.md says.",
        )


@contextmanager
def attached_copy(conn: Connection, fd: int) -> Iterator[None]:
    """Attach a copy of a database, which nobody writes to, as ``other`` to the connection.

    Raises CopyDamaged; OSError (of its disk, or because its path leads elsewhere by now).
    """
    with _translated_faults_of_copy():
        conn.execute("ATTACH ? AS other", (_uri_of_copy(fd),))
        try:
            yield
        finally:
            conn.execute("DETACH other")


@contextmanager
def opened_copy(fd: int) -> Iterator[Connection]:
    """Open a copy in a connection of its own; no file is made beside it. Raises the same."""
    uri = _uri_of_copy(fd)
    with (
        _translated_faults_of_copy(),
        closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as conn,
    ):
        conn.row_factory = sqlite3.Row
        if conn.execute("PRAGMA user_version").fetchone()[0] > SCHEMA_VERSION:
            raise CopyDamaged("it is of a newer version than this program")
        yield conn


@contextmanager
def _translated_faults_of_copy() -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as fault:
        raise CopyDamaged("malformed database schema") from fault
    except sqlite3.DatabaseError as fault:
        if not isinstance(fault, sqlite3.OperationalError) or str(fault).startswith(sqlite.DAMAGE):
            raise CopyDamaged(sqlite.quoted(fault)) from fault
        if "locked" in str(fault):
            raise  # that is the database, not the copy
        raise OSError(errno.EIO, str(fault)) from fault


def _uri_of_copy(fd: int) -> str:
    """SQLite opens paths only: this one must lead to the file that is open."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if not os.path.samestat(os.stat(path), os.fstat(fd)):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
    return f"file:{quote(path)}?mode=ro&immutable=1"
