"""Files that failed: recorded, retried later, and forgotten once they left."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from poledata import db
from poledata.archive.buffer import Presence, is_data
from poledata.archive.selection import Selection
from poledata.errors import FileFault, HitBug
from poledata.formatting import seconds, shown, unshown
from poledata.models import FileStat, Waiting
from poledata.notices.defects import caught

log = logging.getLogger(__name__)


class Failures:
    """The pending files of one pass. A directory that can't be listed is one, with a ``/``."""

    def __init__(self, conn: db.Connection, is_dry: bool) -> None:
        self._conn, self._is_dry = conn, is_dry
        self.failed_files = 0  # in this pass
        self._pending = db.passes.pending(conn)  # as they were when the pass began
        self._noted: set[str] = set()

    def is_due(self, name: str, stat: FileStat | None) -> bool:
        """True if a file may be tried now; one that changed since it failed always may."""
        before = self._pending.get(shown(name))
        if before is None or before.stat != stat:
            return True
        wait_s = seconds(before.next_try_at) - time.time()
        return wait_s <= 0 or wait_s > db.passes.RETRY_LAST_S  # else the clock was wrong then

    @property
    def pending_files(self) -> int:
        """Return how many files failed, now or before, and are still in the buffer."""
        return len(self._pending.keys() | self._noted)

    def note(self, name: str, stat: FileStat | None, fault: FileFault) -> None:
        """Record that a file could not be archived."""
        log.warning("%s", fault)
        self.failed_files += 1
        self._noted.add(shown(name))
        if self._is_dry:
            return
        with db.transaction(self._conn):
            db.passes.note_failure(
                self._conn, shown(name), stat, fault.kind, fault.why, time.time()
            )

    @contextmanager
    def isolated(self, waiting: Waiting) -> Iterator[None]:
        """Limit a bug to this file: the file is pending then, and the others go on."""
        path = shown(waiting.path)
        with caught(path) as bugs:
            yield
        for why in bugs:
            self.note(waiting.path, waiting.stat, HitBug(path, why))

    def note_unlistable(self, directories: dict[str, str]) -> None:
        """Record what can't be listed in the buffer now, and why; forget what can be again."""
        for name, why in directories.items():
            if self.is_due(name, None):
                what = "listed" if name.endswith("/") else "looked at"
                self.note(name, None, FileFault(shown(name), f"it can't be {what} ({why})"))
        unseen = tuple(name.lstrip("/") for name in directories)  # "/": the buffer itself
        before = [name for name, each in self._pending.items() if each.stat is None]
        self.forget([name for name in before if not unshown(name).startswith(unseen)])

    def forget(self, shown_names: list[str]) -> None:
        """Drop files that are archived or gone: they are no longer pending."""
        ended = [n for n in shown_names if n in self._pending or n in self._noted]
        if self._is_dry or not ended:
            return
        with db.transaction(self._conn):
            for name in ended:
                db.passes.forget_failure(self._conn, name)
        for name in ended:
            self._pending.pop(name, None)
            self._noted.discard(name)

    def forget_gone(self, presence: Presence, selection: Selection) -> None:
        """Drop the files that left the buffer without us, or are no data any more."""
        names = [name for name in self._pending if not name.endswith("/")]
        self.forget(
            [
                name
                for name in names
                if presence.has_left(unshown(name)) or not is_data(unshown(name), selection)
            ]
        )
