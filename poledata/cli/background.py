"""The thread beside a long pass: it dates the lock, beats for the watchdog, and sends notices.

It has a database connection of its own, so that neither a slow server nor a large batch makes the
other wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poledata import db
from poledata.archive.pass_state import Watcher
from poledata.cli.common import state_lines
from poledata.config import Config
from poledata.context import Context
from poledata.errors import PoleError
from poledata.notices import delivery_queue
from poledata.notices.defects import caught
from poledata.notices.send import heartbeat
from poledata.status.evaluate import update_notices

LOOK_EVERY_S = 60.0
BEAT_EVERY_S = 300.0

log = logging.getLogger(__name__)


@contextmanager
def beside(
    config: Config, note_progress: Callable[[], None], watcher: Watcher
) -> Iterator[Watcher]:
    """Run the thread while this lasts; yield the watcher that the pass reports its progress to."""
    background = _Background(config, note_progress, watcher)
    thread = threading.Thread(target=background.run, name="background")
    thread.start()
    try:
        yield background
    finally:
        background.over.set()
        thread.join()
        if background.defect:
            raise background.defect


class _Background(Watcher):
    """The thread's work; as a watcher it passes progress on, and notes that bytes have moved."""

    def __init__(self, config: Config, note_progress: Callable[[], None], other: Watcher) -> None:
        self._config, self._note_progress, self._other = config, note_progress, other
        self._has_moved = False
        self._beaten_at_s = time.monotonic()
        self.over = threading.Event()
        self.defect: Exception | None = None

    def batch(self, bytes_by_label: dict[str, int]) -> None:
        self._other.batch(bytes_by_label)

    def moved(self, label: str, name: str, n_bytes: int) -> None:
        self._has_moved = True
        self._other.moved(label, name, n_bytes)

    def run(self) -> None:
        try:
            while not self.over.wait(LOOK_EVERY_S):
                with caught("beside the pass"):
                    self._look()
        except Exception as defect:  # handed on to the pass, which raises it
            self.defect = defect

    def _look(self) -> None:
        if self._has_moved:
            self._has_moved = False
            self._note_progress()
            self._beat()
        try:
            with (
                db.connect(self._config.db_path) as conn,
                Context.create(self._config, conn).findings.isolated("sending"),
            ):
                update_notices(self._config, conn)
                delivery_queue.deliver(self._config, conn, state_lines)
        except PoleError as fault:
            log.warning("notices can't be sent now: %s", fault)  # the pass itself reports it

    def _beat(self) -> None:
        now_s = time.monotonic()
        if now_s - self._beaten_at_s >= BEAT_EVERY_S:
            self._beaten_at_s = now_s
            heartbeat(self._config.secrets)
