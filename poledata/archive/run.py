"""One pass: every finished file of the buffer goes to a primary and a copy disk, and away.

The story: scan the buffer, oldest first → for each batch prove the disks → copy, and read each copy
back → register both copies in one transaction → remove what is proved. A file or a disk that fails
is recorded and skipped; the others go on.
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
from poledata.archive import buffer_marker, buffer_writers
from poledata.archive.buffer import Buffer, Presence, Seen
from poledata.archive.empty_directories import removable, remove
from poledata.archive.pass_state import PassState, Tally, Watcher
from poledata.archive.retry import Failures
from poledata.archive.selection import Selection, old_hidden_text
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.disks.disk_faults import DiskFaults
from poledata.errors import UsageFault
from poledata.formatting import shown, utc_now
from poledata.models import Severity
from poledata.system import file_descriptors

if TYPE_CHECKING:
    from poledata.archive.batch import Batches

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
    """Run one pass; the caller holds the pass lock. Raises PoleError if there can't be one.

    ``stop``, once set, ends it between or inside files; ``give_way`` lets a person's command
    work between two batches. A dry run writes nothing.
    """
    must_fit_together(config, db.disks.disks(conn))
    file_descriptors.require_enough()
    context = Context.create(config, conn, is_dry)
    buffer_fd = _open_buffer(config)
    try:
        may_adopt = not is_dry and db.passes.current_pause(conn, utc_now()) is None
        proof = buffer_marker.prove(config, conn, buffer_fd, may_adopt)
        rule = buffer_writers.look(buffer_fd, config.remote_writers)
        settled_s = _settle_s(config, buffer_fd)
        buffer = Buffer(buffer_fd, Selection.of(config), settled_s, rule.trusts_leases)
        failures = Failures(conn, is_dry)
        state = PassState(
            context, buffer, stop, watcher, Tally(), failures, DiskFaults(context), is_dry
        )
        return _Pass(state, proof, give_way).run()
    finally:
        os.close(buffer_fd)


def _open_buffer(config: Config) -> int:
    try:
        return os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        raise UsageFault(
            f"{config.path}: BufferLocation: {config.buffer} can't be opened "
            f"({fault.strerror}). Nothing was touched. Is its file system mounted?"
        ) from fault


def _settle_s(config: Config, buffer_fd: int) -> float:
    least_s = buffer_marker.settle_s(config.settle_s, buffer_fd)
    if least_s > config.settle_s:
        log.warning(
            "SettleTime is %g s; for this buffer at least %g s are used. Set it to 60 s.",
            config.settle_s,
            least_s,
        )
    return least_s


class _Pass:
    def __init__(
        self, state: PassState, proof: buffer_marker.BufferProof, give_way: Callable[[], None]
    ) -> None:
        self._state, self._proof, self._give_way = state, proof, give_way
        self._config, self._conn = state.context.config, state.context.conn
        self._findings = state.context.findings
        self._row: int | None = None
        self._saw_everything = True

    def run(self) -> Tally:
        """The whole pass; its outcome is recorded also if it could not go on."""
        outcome = "failed"
        try:
            if self._may_go_on():  # in a pause somebody may be at work there
                self._note_the_buffer()
                if not self._state.is_dry:
                    self._begin_with_what_was_left()
                if not self._proof.wrong:
                    self._archive()
            if not self._state.is_dry:
                self._look_after_disks()
            self._count_what_is_left()
            if not (self._state.is_dry or self._state.tally.interrupted):
                self._see_whether_disks_suffice()
            outcome = "interrupted" if self._state.tally.interrupted else "done"
        finally:
            self._end(outcome)
        return self._state.tally

    def _may_go_on(self) -> bool:
        if self._state.stop.is_set():
            return False
        pause = db.passes.current_pause(self._conn, utc_now())
        if pause is None:
            return True
        log.debug("paused, so nothing is done: %s", pause.why)
        self._state.tally.paused_why = pause.why
        return False

    # --- before: what earlier passes left ---------------------------------------------------

    def _note_the_buffer(self) -> None:
        proof, fault = self._proof, self._proof.wrong
        if proof.unmarked and self._config.delete_from_buffer and not proof.is_full:
            fault = buffer_marker.without_marker(self._config, proof.unmarked)
        if fault:
            log.warning("buffer-wrong: %s", fault)
            self._state.tally.buffer_fault = f"{fault} See buffer-wrong in docs/operators.md."

    def _begin_with_what_was_left(self) -> None:
        for about, step in (
            ("the last pass", self._note_a_crash),
            ("disks with notices", self._state.disks.look_again),
            ("half closed disks", self._state.disks.finish_closes),
        ):
            with self._findings.isolated(about):
                step()

    def _note_a_crash(self) -> None:
        """We hold the lock: a pass that has not ended will never end."""
        crashed = db.passes.unended_passes(self._conn)
        last = db.passes.last_pass(self._conn)
        if last and last.outcome == "failed":
            self._tell_of_crash(last.started_at, "was ended by a fault; the log says which")
        elif not crashed:
            self._findings.clear(["pass-crashed"], "data_manager")
        for row in crashed:
            with db.transaction(self._conn):
                db.passes.end_pass(self._conn, row.id, utc_now(), "crashed", row.files_failed)
            self._tell_of_crash(row.started_at, "was killed or crashed")

    def _tell_of_crash(self, started_at: str, how: str) -> None:
        has_repeated = db.passes.crashes_in_a_row(self._conn) > 1
        self._findings.note(
            "pass-crashed",
            "data_manager",
            f"The pass that began {started_at} {how}. "
            "Nothing is lost: this pass goes on where it stopped.",
            Severity.CRITICAL if has_repeated else None,
        )

    # --- the buffer -------------------------------------------------------------------------

    def _archive(self) -> None:
        if not self._state.is_dry:
            self._forget_what_left()
        with self._findings.isolated("the buffer"):
            self._work_through_the_buffer()

    def _forget_what_left(self) -> None:
        presence, selection = Presence.of(self._state.buffer.root_fd), self._state.buffer.selection
        with self._findings.isolated("files that left"):
            self._note_what_left(presence)
        with self._findings.isolated("failed files"):
            self._state.failures.forget_gone(presence, selection)
        with self._findings.isolated("trees that are left alone"):
            self._give_names_back()

    def _note_what_left(self, presence: Presence) -> None:
        """Note files as removed if a crash came before that."""
        if not self._config.delete_from_buffer:
            return
        names = db.files.archived_but_not_removed(self._conn)
        if left := [name for name in names if presence.has_left(name)]:
            with db.transaction(self._conn):
                db.files.note_removed(self._conn, left, utc_now())

    def _give_names_back(self) -> None:
        """Give files their names back that a crash left hidden in trees which are not scanned."""
        buf = self._state.buffer
        for name in db.files.archived_but_not_removed(self._conn):
            if self._state.is_dry or buf.selection.selects(name):
                continue
            try:
                for hidden in buf.hidden_as(name):
                    from poledata.archive.removal import give_name_back  # slow to load, and rare

                    why = "; ".join(give_name_back(buf, hidden).refusals)
                    log.warning("%s was left hidden: %s", shown(name), why or "it is back")
            except OSError as fault:
                log.warning("%s may be left hidden: %s", shown(name), fault)

    def _work_through_the_buffer(self) -> None:
        after, state = None, self._state
        while self._may_go_on():
            seen = state.buffer.scan(time.time(), SCAN_FILES, after)
            state.tally.idle_scan = seen if after is None and not seen.waiting else None
            state.failures.note_unlistable(seen.unlistable)
            self._saw_everything = self._saw_everything and not seen.unlistable
            if seen.waiting:
                self._batches.work_through(seen.waiting, self._may_go_on, self._give_way)
            if seen.is_whole:
                self._look_at_what_stays(seen)
                return
            after = seen.waiting[-1].age_key

    def _look_at_what_stays(self, seen: Seen) -> None:
        state, empty_for_s = self._state, self._config.empty_directories_s
        if empty_for_s:
            may_go = removable(seen.empty, state.buffer.selection)
            remove(state.buffer.root_fd, may_go, empty_for_s, time.time(), state.is_dry)
        if text := old_hidden_text(list(map(shown, seen.old_hidden)), seen.old_hidden_files):
            self._findings.note("hidden-files", "buffer", text, value=float(seen.old_hidden_files))
        else:
            self._findings.clear(["hidden-files"], "buffer")

    @cached_property
    def _batches(self) -> Batches:
        from poledata.archive.batch import Batches  # what copies is loaded when a file waits

        return Batches(self._state, self._begin)

    # --- after ------------------------------------------------------------------------------

    def _look_after_disks(self) -> None:
        if self._may_go_on():
            with self._findings.isolated("copies of the database"):
                self._state.disks.keep_catalogs()
            with self._findings.isolated("the links in ViewLocation"):
                self._maintain_view()
        with self._findings.isolated("failing disks"):
            self._state.disks.end_of_pass()

    def _maintain_view(self) -> None:
        if self._config.view:
            from poledata.disks import view  # an idle pass without links does not load it

            view.maintain(self._state.context)

    def _forget_what_was_closed(self) -> None:
        """Clear the findings of files that are no longer open for writing, or gone."""
        findings = self._findings
        for path in findings.keys("file-open-long"):
            if not findings.was_noted("file-open-long", path):
                findings.clear(["file-open-long"], path)

    def _count_what_is_left(self) -> None:
        state = self._state
        state.tally.interrupted = state.stop.is_set()
        state.tally.failed_disks = state.disks.troubled
        state.tally.failed_files = state.failures.failed_files
        state.tally.pending_files = state.failures.pending_files

    def _see_whether_disks_suffice(self) -> None:
        if self._saw_everything and not (self._proof.wrong or self._state.tally.paused_why):
            with self._findings.isolated("roles without a disk"):
                self._state.disks.clear_no_disk()
            with self._findings.isolated("open files"):
                self._forget_what_was_closed()

    # --- its row in the database ------------------------------------------------------------

    def _begin(self) -> int:
        """Return the row of this pass, made once it has something to do."""
        if self._row is None:
            with db.transaction(self._conn):
                self._row = db.passes.begin_pass(self._conn, utc_now())
        return self._row

    def _end(self, outcome: str) -> None:
        failed_files = self._state.failures.failed_files
        if self._state.is_dry or (self._row is None and not failed_files):
            return
        row = self._begin()
        with db.transaction(self._conn):
            db.passes.end_pass(self._conn, row, utc_now(), outcome, failed_files)
