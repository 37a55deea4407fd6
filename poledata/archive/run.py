"""One pass: every finished file of the buffer goes to a primary and a copy disk, and away.

The story: look at the buffer, oldest first → for each batch prove the disks → copy, each
copy read back → register both copies in one transaction → remove what is proved. A file or
a disk that fails is written down and left; the others go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from poledata import db
from poledata.archive import buffer_marker, monitor, writers
from poledata.archive.buffer import DAY_S, Buffer, settle_s
from poledata.archive.presence import Presence
from poledata.archive.retry import Failures
from poledata.archive.tally import Tally, Watcher
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.disks.disk_faults import DiskWatch
from poledata.errors import UsageFault
from poledata.formatting import utc
from poledata.models import Severity
from poledata.notices.channels import configured_channels
from poledata.notices.store import Board
from poledata.system import file_descriptors

if TYPE_CHECKING:
    from poledata.archive.batches import Batches

SCAN_FILES = 20_000  # how many waiting files are in memory at a time

log = logging.getLogger(__name__)


def run_pass(
    config: Config,
    conn: db.Connection,
    stop: threading.Event,
    watcher: Watcher,
    give_way: Callable[[], None] = lambda: None,
    is_dry: bool = False,
) -> Tally:
    """One pass; the caller holds the pass lock. Raises PoleError if there can't be one.

    ``stop``, once set, ends it between or inside files; ``give_way`` lets a person's command
    work between two batches. A dry run writes nothing.
    """
    must_fit_together(config, db.disks.disks(conn))
    file_descriptors.require_enough()
    context = Context(config, conn, Board(conn, configured_channels(config.secrets), is_dry))
    try:
        buffer_fd = _open_buffer(config)
    except UsageFault as fault:
        if not is_dry:
            monitor.look(context, Tally(), str(fault))
        raise
    try:
        may_adopt = not is_dry and db.passes.current_pause(conn, _now()) is None
        proof = buffer_marker.prove(config, conn, buffer_fd, may_adopt)
        rests_s = _settle_s(config, buffer_fd)
        rule = writers.look(buffer_fd, config.remote_writers)
        buffer = Buffer(buffer_fd, config.extensions, rests_s, rule.trusts_leases)
        return _Pass(context, buffer, proof, stop, watcher, give_way, is_dry).run()
    finally:
        os.close(buffer_fd)


def tell_that_it_is_stuck(config: Config, conn: db.Connection, since_s: float) -> None:
    """Another pass holds the lock and has moved no byte for hours."""
    Board(conn, configured_channels(config.secrets)).tell(
        "pass-stuck",
        "data_manager",
        f"The pass at work has not got on since {utc(since_s)}. "
        "Its number: pgrep -f data_manager.py",
    )


def _open_buffer(config: Config) -> int:
    try:
        return os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        raise UsageFault(
            f"{config.path}: BufferLocation: {config.buffer} can't be opened "
            f"({fault.strerror}). Nothing was touched. Is its file system mounted?"
        ) from fault


def _settle_s(config: Config, buffer_fd: int) -> float:
    least_s = settle_s(config.settle_s, buffer_fd)
    if least_s > config.settle_s:
        log.warning(
            "SettleTime is %g s; for this buffer at least %g s are used. Set it to 60 s.",
            config.settle_s,
            least_s,
        )
    return least_s


class _Pass:
    """The state of one pass."""

    def __init__(
        self,
        context: Context,
        buffer: Buffer,
        proof: buffer_marker.Proof,
        stop: threading.Event,
        watcher: Watcher,
        give_way: Callable[[], None],
        is_dry: bool,
    ) -> None:
        self._context, self._buffer, self._give_way = context, buffer, give_way
        self._config, self._conn, self._board = context.config, context.conn, context.board
        self._stop, self._watcher, self._is_dry = stop, watcher, is_dry
        self._proof, self._tally = proof, Tally()
        self._failures = Failures(self._conn, self._board, self._tally, is_dry)
        self._disks = DiskWatch(context)
        self._row: int | None = None
        self._saw_everything = True

    def run(self) -> Tally:
        """The whole pass; it says how it ended also when it could not go on."""
        outcome = "failed"
        try:
            if not self._is_dry:
                self._board.settle(["pass-stuck"], "data_manager")
            may_go_on = self._may_go_on()
            wrong = self._proof.wrong
            if may_go_on:  # in a pause somebody may be at work there
                self._tell_of_buffer()
                self._begin_with_what_was_left()
            if may_go_on and not wrong:
                self._forget_what_left()
                with self._board.isolated("the buffer"):
                    self._work_through_the_buffer()
            if not self._is_dry:
                if self._may_go_on():
                    with self._board.isolated("copies of the database"):
                        self._disks.keep_catalogues()
                with self._board.isolated("failing disks"):
                    self._disks.end_of_pass()
            self._count_what_is_left()
            if not (self._is_dry or self._tally.interrupted):
                if self._saw_everything and not (wrong or self._tally.paused_why):
                    with self._board.isolated("roles without a disk"):
                        self._disks.settle_no_disk()
                monitor.look(self._context, self._tally, wrong)
            outcome = "interrupted" if self._tally.interrupted else "done"
        finally:
            self._end(outcome)
        return self._tally

    def _begin_with_what_was_left(self) -> None:
        if self._is_dry:
            return
        for about, step in (
            ("the last pass", self._note_a_crash),
            ("old notices", lambda: self._board.settle_old("opened-at-removal", DAY_S)),
            ("disks with notices", self._disks.look_again),
            ("half closed disks", self._disks.finish_closes),
        ):
            with self._board.isolated(about):
                step()

    def _tell_of_buffer(self) -> None:
        proof = self._proof
        if proof.wrong:
            self._board.tell("buffer-wrong", "buffer", proof.wrong)
        elif proof.unmarked and self._config.delete_from_buffer and not proof.is_full:
            text = buffer_marker.without_marker(self._config, proof.unmarked)
            self._board.tell("buffer-wrong", "buffer", text, Severity.WARNING)
        else:
            self._board.settle(["buffer-wrong"], "buffer")
            return
        self._tally.buffer_fault = self._board.text("buffer-wrong", "buffer")

    def _forget_what_left(self) -> None:
        if self._is_dry:
            return
        presence = Presence.of(self._buffer.root_fd)
        for about, step in (
            ("files that left", self._note_what_left),
            ("failed files", self._failures.forget_gone),
        ):
            with self._board.isolated(about):
                step(presence)

    def _count_what_is_left(self) -> None:
        self._tally.interrupted = self._stop.is_set()
        self._tally.failed_disks = self._disks.troubled
        self._tally.pending_files = self._failures.pending_files

    def _work_through_the_buffer(self) -> None:
        after = None
        while self._may_go_on():
            seen = self._buffer.scan(time.time(), SCAN_FILES, after)
            if after is None:
                self._tally.unsettled_files = seen.unsettled_files
                self._tally.arrived_in_a_day_bytes = seen.settled_in_a_day_bytes
            self._failures.note_unlistable(seen.unlistable)
            self._saw_everything = self._saw_everything and not seen.unlistable
            if seen.waiting:
                self._batches.work_through(seen.waiting, self._may_go_on, self._give_way)
            if seen.is_whole:
                return
            after = seen.waiting[-1].age_key

    @cached_property
    def _batches(self) -> Batches:
        from poledata.archive.batch import BatchWork
        from poledata.archive.batches import Batches  # what copies is loaded when a file waits

        work = BatchWork(
            self._context,
            self._buffer,
            self._stop,
            self._watcher,
            self._tally,
            self._failures,
            self._disks,
        )
        return Batches(work, self._begin, self._is_dry)

    def _may_go_on(self) -> bool:
        if self._stop.is_set():
            return False
        pause = db.passes.current_pause(self._conn, _now())
        if pause is None:
            self._board.settle(["paused"], "archive")
            return True
        log.debug("paused, so nothing is done: %s", pause.why)
        self._tally.paused_why = pause.why
        return False

    # --- what earlier passes left ---------------------------------------------------------

    def _note_a_crash(self) -> None:
        """We hold the lock: a pass that has not ended will not end any more."""
        crashed = db.passes.unended_passes(self._conn)
        last = db.passes.last_pass(self._conn)
        if last and last.outcome == "failed":
            self._board.tell(
                "pass-crashed",
                "data_manager",
                f"The pass that began {last.started_at} was ended by a fault; the log says which. "
                "Nothing is lost: this pass goes on where it stopped.",
            )
        elif not crashed:
            self._board.settle(["pass-crashed"], "data_manager")
        for row in crashed:
            with db.transaction(self._conn):
                db.passes.end_pass(self._conn, row.id, _now(), "crashed", row.files_failed)
            self._board.tell(
                "pass-crashed",
                "data_manager",
                f"The pass that began {row.started_at} ended without saying so. Nothing is lost: "
                "this pass goes on where it stopped.",
            )

    def _note_what_left(self, presence: Presence) -> None:
        """Files that a crash kept from being noted as removed."""
        if not self._config.delete_from_buffer:
            return
        names = db.files.archived_but_not_removed(self._conn)
        if names:
            left = [name for name in names if presence.has_left(name)]
            self._batches.work.note_removed(left)

    # --- its row ----------------------------------------------------------------------------

    def _begin(self) -> int:
        """The row of this pass, made once it has something to do."""
        if self._row is None:
            with db.transaction(self._conn):
                self._row = db.passes.begin_pass(self._conn, _now())
        return self._row

    def _end(self, outcome: str) -> None:
        if self._is_dry or (self._row is None and not self._tally.failed_files):
            return
        row = self._begin()
        with db.transaction(self._conn):
            db.passes.end_pass(self._conn, row, _now(), outcome, self._tally.failed_files)


def _now() -> str:
    return utc(time.time())
