"""Files of databases: a new one, whole or not at all, and copies of one that is in use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from poledata.db import connection
from poledata.db.connection import APPLICATION_ID, SCHEMA_VERSION
from poledata.errors import DatabaseUnusable
from poledata.system import paths


def create(path: Path) -> None:
    """Make an empty database at ``path``, whole or not at all; never over a file.

    Raises DatabaseUnusable, DatabaseTrouble; FileExistsError.
    """
    with _made_aside(path, path.with_name(f".{path.name}.{os.urandom(4).hex()}")):
        pass  # empty as it is


@contextmanager
def in_the_making(path: Path, begun_with: Iterable[bytes] | None = None) -> Iterator[Path]:
    """A new database under another name, to be filled; it gets its own when all went well.

    It is empty, or ``begun_with`` the content of a copy. Nothing is at ``path`` before it is
    whole. For who has the turn (lock.py). Raises DatabaseUnusable (also where another one stands
    there by then), DatabaseTrouble; OSError of the copy.
    """
    forget_unfinished(path)
    try:
        with _made_aside(path, _unfinished(path), begun_with) as fresh:
            yield fresh
    except FileExistsError as fault:
        raise DatabaseUnusable(
            path, "another database was made here meanwhile", "Look at that one first."
        ) from fault
    finally:
        forget_unfinished(path)  # also what an upgrade of the copy kept beside it


def forget_unfinished(path: Path) -> None:
    """What a run that was killed had in the making goes. For who has the turn (lock.py)."""
    unfinished = _unfinished(path).name
    for name in os.listdir(path.parent):
        if name.startswith(unfinished):
            path.with_name(name).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")


@contextmanager
def _made_aside(
    path: Path, fresh: Path, begun_with: Iterable[bytes] | None = None
) -> Iterator[Path]:
    """A database at ``fresh``, which takes its place at ``path`` when the context ends."""
    _must_not_inherit(path)
    try:
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
    except OSError as fault:
        raise DatabaseUnusable(
            path, f"it can't be made ({fault.strerror})", "Make its directory, or mend its rights."
        ) from fault
    try:
        if begun_with is not None:
            with fresh.open("wb") as file:
                file.writelines(begun_with)
            paths.fsync_path(fresh)
        else:
            with connection.in_words(path), closing(connection.open_at(fresh, "rw")) as conn:
                _write_schema(conn)
        if os.geteuid() == 0:  # the cron user owns the directory, and must own this
            owner = path.parent.stat()
            os.chown(fresh, owner.st_uid, owner.st_gid)
        yield fresh
        os.link(fresh, path)
    finally:
        _forget(fresh)
    paths.fsync_path(path.parent)


def backups(path: Path) -> list[Path]:
    """What was kept of this database before an upgrade; it stays when the database is lost."""
    return sorted(
        path.with_name(name)
        for name in os.listdir(path.parent)
        if name.startswith(f"{path.name}.version-")
    )


@contextmanager
def copied(conn: connection.Connection, path: Path) -> Iterator[Path]:
    """A whole copy beside the database, as it is now; it goes when the context ends.

    For who has the turn (lock.py). Raises DatabaseTrouble.
    """
    copy = path.with_name(f".{path.name}.copy")
    _forget(copy)  # a crash may have left it
    try:
        copy_to(conn, path, copy)
        yield copy
    finally:
        _forget(copy)


def copy_to(conn: connection.Connection, path: Path, copy: Path) -> None:
    """A whole copy of the database at ``path``, where nothing is yet. Raises DatabaseTrouble."""
    with connection.in_words(path):
        conn.execute("VACUUM INTO ?", (str(copy),))


def _forget(copy: Path) -> None:
    for suffix in ("", "-journal"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _must_not_inherit(path: Path) -> None:
    """Raises DatabaseUnusable where a lost database's journal would be played into a new one."""
    for suffix in ("-journal", "-wal"):
        if not path.exists() and os.path.lexists(f"{path}{suffix}"):
            raise DatabaseUnusable(
                path,
                f"there is no database, but {path.name}{suffix} of an earlier one",
                "Move that away first; keep it with that database.",
            )


def _write_schema(conn: connection.Connection) -> None:
    schema = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    conn.executescript(
        f"BEGIN; {schema}; PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )
