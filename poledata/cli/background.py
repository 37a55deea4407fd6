"""What goes on beside a long pass: the lock's time, the watchdog's heartbeat, sending notices.

A thread with a connection of its own, so that neither a slow server nor a large batch makes
anything wait.
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
from poledata.errors import PoleError
from poledata.models import Job
from poledata.notices import delivery
from poledata.notices.channels import configured_channels, heartbeat
from poledata.notices.isolation import caught
from poledata.notices.store import Board

LOOK_EVERY_S = 60.0
BEAT_EVERY_S = 300.0

log = logging.getLogger(__name__)


class _Moving(Watcher):
    """Hands on all that a watcher is told, and remembers that bytes have moved."""

    def __init__(self, other: Watcher) -> None:
        self._other = other
        self.has_moved = False

    def batch(self, bytes_by_label: dict[str, int]) -> None:
        self._other.batch(bytes_by_label)

    def moved(self, label: str, name: str, n_bytes: int) -> None:
        self.has_moved = True
        self._other.moved(label, name, n_bytes)

    def would_copy(self, job: Job, labels: list[str]) -> None:
        self._other.would_copy(job, labels)


class _BackgroundThread(threading.Thread):
    def __init__(self, config: Config, got_on: Callable[[], None], moving: _Moving) -> None:
        super().__init__(name="background")
        self._config, self._got_on, self._moving = config, got_on, moving
        self._over = threading.Event()
        self._beaten_at_s = time.monotonic()
        self.defect: Exception | None = None

    def run(self) -> None:
        try:
            while not self._over.wait(LOOK_EVERY_S):
                with caught("beside the pass"):
                    self._look()
        except Exception as defect:  # handed on to the pass, which raises it
            self.defect = defect

    def end(self) -> None:
        self._over.set()
        self.join()
        if self.defect:
            raise self.defect

    def _look(self) -> None:
        if self._moving.has_moved:
            self._moving.has_moved = False
            self._got_on()
            self._beat()
        try:
            with db.connect(self._config.db_path) as conn:
                board = Board(conn, configured_channels(self._config.secrets))
                with board.isolated("sending"):
                    delivery.deliver(self._config, conn, state_lines)
        except PoleError as fault:
            log.warning("notices can't be sent now: %s", fault)  # the pass itself will say it

    def _beat(self) -> None:
        now_s = time.monotonic()
        if now_s - self._beaten_at_s >= BEAT_EVERY_S:
            self._beaten_at_s = now_s
            heartbeat(self._config.secrets)


@contextmanager
def beside(config: Config, got_on: Callable[[], None], watcher: Watcher) -> Iterator[Watcher]:
    """A thread for as long as this lasts; yields the watcher that the pass is to tell."""
    moving = _Moving(watcher)
    thread = _BackgroundThread(config, got_on, moving)
    thread.start()
    try:
        yield moving
    finally:
        thread.end()
