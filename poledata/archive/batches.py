"""The batches of one pass: what is known of each file, planned, done, and full disks closed.

Loaded when a file waits: a pass with nothing to do never comes here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from poledata import db
from poledata.archive import hidden_names
from poledata.archive.batch import BatchWork
from poledata.archive.planner import Batch, Planner, Work
from poledata.archive.presence import Presence
from poledata.disks import bag
from poledata.disks.mounted_disks import MountedDisks
from poledata.disks.selection import BATCH_FILES
from poledata.errors import BadName, HitBug, NameConflict
from poledata.formatting import shown
from poledata.models import KnownFile, Waiting
from poledata.notices.isolation import caught


@dataclass(slots=True)
class Batches:
    """One after the other; ``begin_row`` makes the pass's row at the first that copies."""

    work: BatchWork
    begin_row: Callable[[], int]
    is_dry: bool
    _ready: set[int] = field(default_factory=set)  # disks claimed and swept by this pass
    _promised_bytes: dict[int, int] = field(default_factory=dict)  # by disk id, in a dry run

    def work_through(
        self,
        waiting: Iterable[Waiting],
        may_go_on: Callable[[], bool],
        give_way: Callable[[], None],
    ) -> None:
        """Batch after batch; files are looked up as they come, so that the first need not wait."""
        left, todo = deque(waiting), deque[Work]()
        while (left or todo) and may_go_on():
            while left and len(todo) < BATCH_FILES:
                waiting_file = left.popleft()
                with self.work.failures.isolated(waiting_file):
                    todo += self._look_up(waiting_file)
            if todo:
                self._one_in_isolation(todo, may_go_on)
                give_way()

    def _one_in_isolation(self, todo: deque[Work], may_go_on: Callable[[], bool]) -> None:
        """A batch; one that hits a bug is halved, until the file that hits it is alone."""
        before = list(todo)
        with caught("a batch") as bugs:
            self._one(todo)
        if not bugs:
            return
        suspects = before[: max(1, len(before) - len(todo))]
        todo.clear()
        todo.extend(before[len(suspects) :])
        if len(suspects) == 1:
            waiting = suspects[0].waiting
            self.work.failures.note(waiting.path, waiting.stat, HitBug(shown(waiting.path), *bugs))
            return
        middle = len(suspects) // 2
        for half in (suspects[:middle], suspects[middle:]):
            buffer = Presence.of(self.work.buffer.root_fd)
            there = deque(work for work in half if not buffer.has_left(work.waiting.name))
            while there and may_go_on():
                self._one_in_isolation(there, may_go_on)

    def _look_up(self, waiting: Waiting) -> list[Work]:
        """What is known of a waiting file; [] if it is not to be touched now."""
        if not self.work.failures.is_due(waiting.path, waiting.stat):
            return []
        if waiting.hidden_as:
            return self._look_up_hidden(waiting)
        why = bag.why_not_carried(waiting.name)
        if why:
            self.work.failures.note(waiting.name, waiting.stat, BadName(shown(waiting.name), why))
            return []
        known = db.files.file(self.work.context.conn, waiting.name)
        if not self.work.context.config.delete_from_buffer and _is_archived_as_it_is(
            known, waiting
        ):
            self.work.failures.forget([shown(waiting.name)])
            return []
        return [Work(waiting, known)]

    def _look_up_hidden(self, waiting: Waiting) -> list[Work]:
        """A file whose removal was interrupted: it is proved anew, or it gets its name back."""
        conn, name = self.work.context.conn, waiting.name
        if name == waiting.path:
            found = hidden_names.original_of_hash(name, db.files.names_below_parent(conn, name))
            if found is None:
                fault = NameConflict(shown(name), "the database does not know whose removal it was")
                self.work.failures.note(name, waiting.stat, fault)
                return []
            waiting = replace(waiting, name=found)
        known = db.files.file(conn, waiting.name)
        if known and known.archived_at and self.work.context.config.delete_from_buffer:
            return [Work(waiting, known)]
        if not self.is_dry:
            self.work.give_back(waiting)
        return []

    def _one(self, todo: deque[Work]) -> None:
        """Take files from ``todo`` for one batch, and do it; some may be put back."""
        with MountedDisks(self.work.context.config, self.work.context.conn, self._ready) as mounted:
            planner = Planner(
                db.disks.disks(self.work.context.conn),
                mounted,
                self.work.context.board,
                self.work.disks.out,
                self._promised_bytes,
                self.is_dry,
            )
            batch = planner.fill(todo)
            self.work.tally.without_disk_files += len(batch.without_disk)
            for work, fault in batch.too_big:
                self.work.failures.note(work.waiting.name, work.waiting.stat, fault)
            self.work.disks.note_refused(batch.refused)
            if self.is_dry:
                self._say_what_would_be(batch)
                return
            self.work.note_lost_copies(batch)
            for work in batch.interrupted:
                with self.work.failures.isolated(work.waiting):
                    self.work.give_back(work.waiting)
            before = []
            for work in batch.again:
                with self.work.failures.isolated(work.waiting):
                    if file := self.work.known_again(work):
                        before.append(file)
            if not batch.jobs:
                self.work.remove_archived(before, mounted)
                return
            done = self.work.copy(self.begin_row(), batch, before, mounted)
        todo.extendleft(reversed(done.again))
        with self.work.context.board.isolated("full disks"):
            self.work.disks.close_full(
                batch.full, {role: batch.disks[role].disk.id for role in done.written}
            )

    def _say_what_would_be(self, batch: Batch) -> None:
        for job in batch.jobs:
            disks = [batch.disks[role].disk for role in sorted(job.roles, reverse=True)]
            self.work.watcher.would_copy(job, [disk.label for disk in disks])
            for disk in disks:
                already = self._promised_bytes.get(disk.id, 0)
                self._promised_bytes[disk.id] = already + job.waiting.stat.size_bytes


def _is_archived_as_it_is(known: KnownFile | None, waiting: Waiting) -> bool:
    """Whether size and time say that a file is archived: enough to keep it, never to remove it."""
    return (
        known is not None
        and known.archived_at is not None
        and (known.size_bytes, known.mtime_ns) == (waiting.stat.size_bytes, waiting.stat.mtime_ns)
    )
