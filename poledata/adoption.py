"""Is this the buffer that is meant? The first pass gives it its marker; later a person does."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poledata import buffer_marker, catalogue, db, hidden, mounts
from poledata.buffer_marker import NAME, NO_MARKER_ERRNOS, NoMarker
from poledata.config import Config
from poledata.errors import FULL_ERRNOS, Refused
from poledata.presence import Presence
from poledata.texts import shown, unshown, utc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether this is the buffer. ``wrong``: why nothing may be done with it.

    ``unmarked``: why it has no marker, though nothing speaks against it; ``is_full``: only
    because there is no room for one.
    """

    wrong: str | None = None
    unmarked: str | None = None
    is_full: bool = False


def prove(config: Config, conn: db.Connection, root_fd: int, may_adopt: bool) -> Proof:
    """Look at the marker. ``may_adopt``: the first pass puts one there, or takes over what is.

    Nothing is written otherwise.
    """
    adopted = catalogue.adopted_buffer(conn)
    expected = adopted.marker if adopted else None
    try:
        found = buffer_marker.read(root_fd)
    except OSError as fault:
        if expected or not (isinstance(fault, NoMarker) and fault.is_torn):
            return Proof(_wrong(config, root_fd, f"its marker can't be read: {fault.strerror}"))
        found = None
    if expected:
        return Proof(None if found == expected else _wrong(config, root_fd, _difference(found)))
    if found:
        if may_adopt:
            _note(conn, found, "it had its marker when this database first saw it")
        return Proof()
    if adopted is None and (why := _what_is_missing(config, conn, root_fd)):
        return Proof(_wrong(config, root_fd, why))
    return _mark(config, conn, root_fd) if may_adopt else _would_mark(root_fd)


def _difference(found: str | None) -> str:
    if found is None:
        return f"its marker ({NAME}) is not there"
    return f"its marker ({NAME}) is another buffer's"


def _wrong(config: Config, root_fd: int, why: str) -> str:
    mount = mounts.mount_of(root_fd)
    where = f" (on the file system mounted at {shown(mount.mount_point)})" if mount else ""
    return (
        f"{shown(str(config.buffer))} is not the buffer that this archive knows{where}: {why}. "
        "Nothing was archived, removed or forgotten. Mount the buffer. If it was moved or "
        f"replaced on purpose: {command(config)}"
    )


def without_marker(config: Config, why: str) -> str:
    """Return what is told of a buffer that could not be given its marker."""
    place = shown(str(config.buffer))
    return (
        f"{place} has no marker ({NAME}): {why}. Files are archived, but nobody can tell whether "
        f"the buffer is mounted. Let this user write to {place}, if only until the next pass."
    )


def command(config: Config) -> str:
    """Return the command that adopts the buffer, as a person runs it."""
    path = shlex.quote(shown(str(config.path)))
    return f'data_manager.py --config {path} adopt-buffer --why "…"'


def _what_is_missing(config: Config, conn: db.Connection, root_fd: int) -> str | None:
    """Before there was any marker: None if a file that should be here is, or none should be."""
    names = list(_names_that_should_be_here(config, conn))
    if not names or any(_is_seen(root_fd, name) for name in names):
        return None
    what = "1 file that waits" if len(names) == 1 else f"{len(names)} files that wait"
    return f"the database knows {what} there, and none is there"


def _names_that_should_be_here(config: Config, conn: db.Connection) -> Iterator[str]:
    yield from (unshown(name) for name in catalogue.pending(conn) if not name.endswith("/"))
    if catalogue.last_pass(conn) is None:
        return  # what this database knows was read from disks: no pass saw it in a buffer
    yield from (name for _, name in catalogue.unarchived(conn))
    if config.delete_from_buffer:
        yield from catalogue.archived_but_not_removed(conn)


def _is_seen(root_fd: int, name: str) -> bool:
    try:
        return hidden.is_present(root_fd, name)
    except OSError:
        return False  # not seen, whether it is there or not


def _mark(config: Config, conn: db.Connection, root_fd: int) -> Proof:
    try:
        marker = buffer_marker.write(root_fd)
    except OSError as fault:
        if fault.errno in NO_MARKER_ERRNOS:
            log.info("the buffer gets no marker now: %s", fault.strerror)
            return Proof(unmarked=fault.strerror, is_full=fault.errno in FULL_ERRNOS)
        why = f"no marker can be made there: {fault.strerror}"
        return Proof(_wrong(config, root_fd, why))
    _note(conn, marker, "a pass gave it its first marker")
    return Proof()


def _would_mark(root_fd: int) -> Proof:
    if mounts.space(root_fd).read_only:
        return Proof(unmarked="Read-only file system")
    may_write = os.access(".", os.W_OK | os.X_OK, dir_fd=root_fd)
    return Proof(unmarked=None if may_write else "Permission denied")


def _note(conn: db.Connection, marker: str | None, why: str) -> None:
    with db.transaction(conn):
        catalogue.adopt_buffer(conn, marker, utc(time.time()), why)
    log.info("the buffer's marker is %s: %s", marker or "missing", why)


# --- what others ask ------------------------------------------------------------------------


@contextmanager
def presence(config: Config, conn: db.Connection) -> Iterator[Presence]:
    """What has left the buffer, for a command; of a buffer that is not the right one, nothing."""
    try:
        fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        log.debug("%s can't be opened: %s", shown(str(config.buffer)), fault)
        yield Presence(None)
        return
    try:
        is_wrong = prove(config, conn, fd, may_adopt=False).wrong
        yield Presence(None) if is_wrong else Presence.of(fd)
    finally:
        os.close(fd)


def adopt(config: Config, conn: db.Connection, why: str) -> str:
    """What stands at BufferLocation is the buffer from now on. Raises Refused; says what was done.

    A marker that is there is taken over, so that a buffer which was moved keeps its own.
    """
    place = shown(str(config.buffer))
    fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        marker = _read_or_write(fd)
    except OSError as fault:
        if fault.errno not in NO_MARKER_ERRNOS:
            raise Refused(
                f"{place} can't be given a marker: {fault.strerror}. Nothing was changed. "
                f"If something else has the name {NAME}, move it away first."
            ) from fault
        _note(conn, None, why)
        return (
            f"{place} is the buffer from now on, without a marker ({fault.strerror}). The next "
            "pass that can gives it one; until then nobody can tell whether it is mounted."
        )
    finally:
        os.close(fd)
    _note(conn, marker, why)
    return f"{place} is the buffer from now on; its marker is {NAME} with the ID {marker}."


def _read_or_write(root_fd: int) -> str:
    """Raises OSError."""
    try:
        found = buffer_marker.read(root_fd)
    except NoMarker as fault:
        if not fault.is_torn:
            raise
        found = None
    return found or buffer_marker.write(root_fd)
