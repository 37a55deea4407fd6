"""Files that failed: written down, tried again later, told of, and forgotten when they left."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from poledata import db
from poledata.archive.presence import Presence
from poledata.archive.tally import Tally
from poledata.errors import FileFault, HitBug
from poledata.formatting import seconds, shown, unshown
from poledata.models import FileStat, Waiting
from poledata.notices.isolation import caught
from poledata.notices.kinds import FILE_KINDS
from poledata.notices.store import COPY_FAILED_FROM, Board

log = logging.getLogger(__name__)


class Failures:
    """The pending files of one pass. A directory that can't be listed is one, with a ``/``."""

    def __init__(self, conn: db.Connection, board: Board, tally: Tally, is_dry: bool) -> None:
        self._conn, self._board, self._tally, self._is_dry = conn, board, tally, is_dry
        self._pending = db.passes.pending(conn)  # as they were when the pass began
        self._noted: set[str] = set()

    def is_due(self, name: str, stat: FileStat | None) -> bool:
        """Whether a file may be tried now; one that has changed since it failed always may."""
        before = self._pending.get(shown(name))
        if before is None or before.stat != stat:
            return True
        wait_s = seconds(before.next_try_at) - time.time()
        return wait_s <= 0 or wait_s > db.passes.RETRY_LAST_S  # else the clock was wrong then

    @property
    def pending_files(self) -> int:
        """How many files have failed and stay in the buffer."""
        return len(self._pending.keys() | self._noted)

    def note(self, name: str, stat: FileStat | None, fault: FileFault) -> None:
        """A file could not be archived; a person is told when it is time to."""
        log.warning("%s", fault)
        self._tally.failed_files += 1
        self._noted.add(shown(name))
        if self._is_dry:
            return
        with db.transaction(self._conn):
            attempts = db.passes.note_failure(
                self._conn, shown(name), stat, fault.kind, fault.why, time.time()
            )
        if fault.kind != "copy-failed" or attempts >= COPY_FAILED_FROM:
            stays = "what is in it stays" if name.endswith("/") else "the file stays"
            tried = "once" if attempts == 1 else f"{attempts} times"
            text = f"{fault.why}; {stays} in the buffer (tried {tried})."
            self._board.tell(fault.kind, shown(name), text)

    @contextmanager
    def isolated(self, waiting: Waiting) -> Iterator[None]:
        """Keep a bug to this file: it is pending then, and the others go on."""
        path = shown(waiting.path)
        with caught(path) as bugs:
            yield
        for why in bugs:
            self.note(waiting.path, waiting.stat, HitBug(path, why))

    def note_unlistable(self, directories: dict[str, str]) -> None:
        """What of the buffer can't be looked at now, and why; others can be again."""
        for name, why in directories.items():
            if self.is_due(name, None):
                what = "listed" if name.endswith("/") else "looked at"
                self.note(name, None, FileFault(shown(name), f"it can't be {what} ({why})"))
        unseen = tuple(name.lstrip("/") for name in directories)  # "/": the buffer itself
        before = [name for name, each in self._pending.items() if each.stat is None]
        self.forget([name for name in before if not unshown(name).startswith(unseen)])

    def forget(self, shown_names: list[str]) -> None:
        """These are archived, or gone: no longer pending, and their notices are over."""
        ended = [n for n in shown_names if n in self._pending or n in self._noted]
        if self._is_dry or not ended:
            return
        with db.transaction(self._conn):
            for name in ended:
                db.passes.forget_failure(self._conn, name)
                self._board.settle((*FILE_KINDS, "defect"), name)
        for name in ended:
            self._pending.pop(name, None)
            self._noted.discard(name)

    def forget_gone(self, presence: Presence) -> None:
        """Somebody took these out of the buffer."""
        names = [name for name in self._pending if not name.endswith("/")]
        self.forget([name for name in names if presence.has_left(unshown(name))])
