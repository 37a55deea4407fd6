"""Reading once more: copies of long ago before a file is removed, and what is known already."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass

from poledata import catalogue, db, medium
from poledata.buffer import Buffer
from poledata.errors import DiskRefused, Stopped
from poledata.house import House
from poledata.records import CopyOnDisk, CopyState, KnownCopy, KnownFile, ReadBack, Waiting
from poledata.shelf import Shelf
from poledata.texts import shown, utc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rereading:
    """Copies on their disks, and files of the buffer that are known already."""

    house: House
    buffer: Buffer
    stop: threading.Event

    def read(self, shelf: Shelf, known: KnownFile, copy: KnownCopy) -> ReadBack | None:
        """Read a copy from the medium and note what is found; None if it can't be read now.

        It may have been written long ago: an earlier reading never justifies a removal.
        """
        label = copy.disk.label
        try:
            with closing(medium.HashingReader()) as reader:
                found = shelf.hold(copy.disk).read_copy(known.name, reader, self._tick_or_stop)
        except (DiskRefused, OSError) as fault:
            log.info("%s: its copy of %s can't be read now: %s", label, shown(known.name), fault)
            return None
        is_good = found.sha512 == known.sha512
        state = CopyState.GOOD if is_good else CopyState.DAMAGED
        with db.transaction(self.house.conn):
            row = CopyOnDisk(known.id, known.name, known.size_bytes, known.sha512, copy.state)
            catalogue.verified(
                self.house.conn, row, copy.disk, state, found.verified_by, utc(time.time())
            )
        if not is_good:
            self.tell(known, label, state)
        return found

    def tell(self, known: KnownFile, label: str, state: CopyState) -> None:
        self.house.board.tell(
            "copy-damaged",
            shown(known.name),
            f"Its copy on {label} is {state.value}; the file is in the buffer and is copied anew.",
        )

    def hashed_once(self, waiting: Waiting) -> str:
        """The SHA-512 of a buffer file: read now, or remembered of this very state."""
        remembered = catalogue.remembered_sha512(self.house.conn, waiting.name, waiting.stat)
        if remembered:
            return remembered
        with self.buffer.finished(waiting) as fd, closing(medium.HashingReader()) as reader:
            sha512 = reader.sha512(fd, waiting.stat.size_bytes, self._tick_or_stop)
            self.buffer.must_be_untouched(fd, waiting)
        with db.transaction(self.house.conn):
            catalogue.remember_sha512(self.house.conn, waiting.name, waiting.stat, sha512)
        return sha512

    def _tick_or_stop(self, n_bytes: int) -> None:
        if self.stop.is_set():
            raise Stopped()
