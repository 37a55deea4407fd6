"""Archived files leave the buffer: what a removal needs is read, and its outcome is recorded."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from functools import partial

from poledata import db
from poledata.archive.buffer import Presence
from poledata.archive.pass_state import PassState
from poledata.archive.removal import ArchivedFile, Removal, RemovalResult, give_name_back
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, FileFault, NameConflict, NotRemoved, Stopped
from poledata.formatting import shown, utc
from poledata.models import CopyState, KnownCopy, KnownFile, ReadBack, Waiting
from poledata.system import direct_io

OPENED = (
    "A program opened it for writing in the instant of its removal: what it writes is lost. What "
    "was archived before is on both disks."
)
log = logging.getLogger(__name__)


def remove_archived(state: PassState, files: list[ArchivedFile], mounted: MountedDisks) -> None:
    """Remove archived files from the buffer, if the configuration says so and they are proved."""
    if not state.context.config.delete_from_buffer:
        state.failures.forget([shown(file.waiting.path) for file in files])
        return
    isolated, read = state.failures.isolated, partial(_read_copy, state, mounted)
    removal = Removal(state.context.conn, state.buffer, mounted.hold, read, isolated)
    removed = []
    for result in removal.remove(files):
        with isolated(result.file.waiting):
            _report(state, result)
            removed += [result.file.waiting] if result.is_removed else []
    names = [waiting.name for waiting in removed if not _is_back(state, waiting)]
    state.note_removed(names)
    state.failures.forget([shown(name) for name in names] + [shown(w.path) for w in removed])


def _is_back(state: PassState, waiting: Waiting) -> bool:
    """True if another file took the name of one whose removal had been interrupted."""
    presence = Presence.of(state.buffer.root_fd) if waiting.hidden_as else None
    return presence is not None and not presence.has_left(waiting.name)


def give_back(state: PassState, waiting: Waiting) -> None:
    """Give a hidden file that can't be removed now its own name again."""
    path = shown(waiting.path)
    try:
        result = give_name_back(state.buffer, waiting)
    except OSError as fault:
        why = f"its name can't be given back ({fault.strerror or fault})"
        state.failures.note(waiting.path, waiting.stat, FileFault(path, why))
        return
    if result.refusals:
        conflict = NameConflict(path, f"its removal was interrupted; {result.refusals[0]}")
        state.failures.note(waiting.path, waiting.stat, conflict)
    else:
        log.info("%s: its removal had been interrupted; it has its name again", path)
        state.failures.forget([path])


def _report(state: PassState, result: RemovalResult) -> None:
    """Report what kept a file in the buffer, or went wrong when it was removed."""
    waiting, why = result.file.waiting, "; ".join(result.refusals)
    if result.was_opened:
        state.context.board.tell("opened-at-removal", shown(waiting.name), OPENED)
    if result.stays_as:
        _note_stays(state, result.stays_as, result.file.sha512, why)
    elif why:
        log.warning("%s: %s", shown(waiting.name), why)


def _note_stays(state: PassState, waiting: Waiting, sha512: str, why: str) -> None:
    """Not as changed: renaming it there and back changes the ctime alone."""
    kind = NameConflict if waiting.hidden_as else NotRemoved
    state.failures.note(waiting.path, waiting.stat, kind(shown(waiting.path), why))
    with db.transaction(state.context.conn):
        db.files.remember_sha512(state.context.conn, waiting.name, waiting.stat, sha512)


# --- reading again ------------------------------------------------------------------------


def _read_copy(
    state: PassState, mounted: MountedDisks, known: KnownFile, copy: KnownCopy
) -> ReadBack | None:
    """Read a copy from the medium and record the result; None if it can't be read now.

    It may have been written long ago: an earlier reading never justifies a removal.
    """
    label, conn = copy.disk.label, state.context.conn
    try:
        with closing(direct_io.HashingReader()) as reader:
            tick = partial(_raise_if_stopped, state)
            found = mounted.hold(copy.disk).read_copy(known.name, reader, tick)
    except (DiskRefused, OSError) as fault:
        log.info("%s: its copy of %s can't be read now: %s", label, shown(known.name), fault)
        return None
    is_good = found.sha512 == known.sha512
    judged = CopyState.GOOD if is_good else CopyState.DAMAGED
    with db.transaction(conn):
        db.copies.note_verified(
            conn, known.id, copy.disk, judged, found.verified_by, utc(time.time())
        )
    if not is_good:
        report_bad_copy(state, known, label, judged)
    return found


def report_bad_copy(state: PassState, known: KnownFile, label: str, judged: CopyState) -> None:
    """Open a notice about a copy whose file is still in the buffer."""
    state.context.board.tell(
        "copy-damaged",
        shown(known.name),
        f"Its copy on {label} is {judged.value}; the file is in the buffer and is copied anew.",
    )


def hash_once(state: PassState, waiting: Waiting) -> str:
    """Return the SHA-512 of a buffer file: read now, or remembered for this very state.

    Raises FileFault and its kinds, Stopped.
    """
    conn = state.context.conn
    if remembered := db.files.remembered_sha512(conn, waiting.name, waiting.stat):
        return remembered
    with state.buffer.finished(waiting) as fd, closing(direct_io.HashingReader()) as reader:
        tick = partial(_raise_if_stopped, state)
        sha512 = reader.sha512(fd, waiting.stat.size_bytes, tick)
        state.buffer.must_be_untouched(fd, waiting)
    with db.transaction(conn):
        db.files.remember_sha512(conn, waiting.name, waiting.stat, sha512)
    return sha512


def _raise_if_stopped(state: PassState, n_bytes: int) -> None:
    if state.stop.is_set():
        raise Stopped()
