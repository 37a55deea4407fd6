"""One read of the buffer feeds the hash and both disks at once.

The calling thread reads each file once, into a bounded set of aligned buffers, and hashes
it, while each disk's lane (lane.py) writes it, proves it and publishes it. While a lane
reads back, this reader already fills buffers with the next file.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from poledata.errors import NameConflict, PoleError, SourceChanged, Stopped
from poledata.lane import End, Lane
from poledata.medium import CHUNK_BYTES, Chunk, Pool, ShortRead, fill
from poledata.records import CopyTarget, Job, Role, Waiting, Written
from poledata.scribe import Tick
from poledata.texts import shown

BUFFERS = 12  # × 4 MiB between the reader and the slower disk
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Result:
    """What became of one job: its SHA-512 and, for each role, a copy or a fault."""

    job: Job
    sha512: str | None = None
    fault: PoleError | None = None  # of the file itself: then no role has a copy
    copies: dict[Role, Written | Exception] = field(default_factory=dict)


class Source(Protocol):
    """Where files are read from: the buffer; for a repair, a disk."""

    def finished(self, waiting: Waiting) -> AbstractContextManager[int]:
        """A descriptor of the very file that is meant. Raises FileFault and its kinds."""

    def read_ahead(self, waiting: Waiting) -> None:
        """It is read soon: its beginning may be fetched meanwhile. Raises OSError."""

    def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
        """Raises FileFault unless the file is still as it was meant."""


def copy_batch(
    buffer: Source,
    jobs: Sequence[Job],
    targets: Sequence[CopyTarget],
    stop: threading.Event,
    tick: Tick,
) -> list[Result]:
    """Copy each job's file to the targets of its roles; nothing is raised for a file or a disk.

    ``stop``, once set, ends the batch: what is not published by then is cleared away.
    ``tick(label, name, n_bytes)`` is called from several threads as bytes are written and
    read back.
    """
    pool = Pool(BUFFERS)
    results = [Result(job) for job in jobs]
    lanes = {t.role: Lane(t, [j for j in jobs if t.role in j.roles], stop, tick) for t in targets}
    with _running(lanes, results) as unread:
        while unread:
            result = unread.pop(0)
            if unread:
                _read_ahead(buffer, unread[0].job)
            _read(buffer, result, [lanes[role] for role in result.job.roles], pool, stop)
    for result in results:
        for role in result.job.roles:
            lane = lanes[role]
            result.copies[role] = lane.defect or lane.results[result.job.name]
    return results


@contextmanager
def _running(lanes: dict[Role, Lane], results: list[Result]) -> Iterator[list[Result]]:
    """Lanes at work; at the end each has had an End for every job, and is joined."""
    unread = list(results)
    for lane in lanes.values():
        lane.start()
    try:
        yield unread
    finally:
        for result in unread:
            for role in result.job.roles:
                lanes[role].hand(End(None))
        for lane in lanes.values():
            lane.join()
    if len(results) > 1:  # else the other lane's copy counts
        for lane in lanes.values():
            if lane.defect:
                raise lane.defect


def _read_ahead(buffer: Source, job: Job) -> None:
    """A small file is whole in memory when its turn comes; what is wrong with it shows then."""
    try:
        buffer.read_ahead(job.waiting)
    except OSError as fault:
        log.info("%s is not read ahead: %s", shown(job.name), fault.strerror or fault)


def _read(
    buffer: Source, result: Result, lanes: list[Lane], pool: Pool, stop: threading.Event
) -> None:
    """Read one file, once, for all its lanes; each gets exactly one End."""
    try:
        result.sha512 = _hash_and_hand_on(buffer, result.job, lanes, pool, stop)
    except PoleError as fault:
        result.fault = fault
    finally:
        for lane in lanes:
            lane.hand(End(result.sha512))


def _hash_and_hand_on(
    buffer: Source, job: Job, lanes: list[Lane], pool: Pool, stop: threading.Event
) -> str:
    """The SHA-512 of a finished file that did not change while it was read.

    Raises FileFault and its kinds, Stopped.
    """
    digest = hashlib.sha512()
    size_bytes = job.waiting.stat.size_bytes
    with buffer.finished(job.waiting) as fd:
        for at in range(0, size_bytes, CHUNK_BYTES):
            if stop.is_set():
                raise Stopped()
            free = pool.take()
            chunk = _read_chunk(job, fd, free, at, pool, users=len(lanes) + 1)
            for lane in lanes:
                lane.hand(chunk)
            digest.update(chunk.view)  # while the lanes write it
            chunk.let_go()
        buffer.must_be_untouched(fd, job.waiting)
    return _must_agree(job, digest.hexdigest())


def _read_chunk(job: Job, fd: int, free: memoryview, at: int, pool: Pool, users: int) -> Chunk:
    try:
        n_bytes = fill(fd, free, at, job.waiting.stat.size_bytes)
    except ShortRead as fault:
        pool.give_back(free)
        raise SourceChanged(
            shown(job.name), f"it shrank while it was read: {fault.strerror}"
        ) from fault
    except OSError:
        pool.give_back(free)
        raise
    return Chunk(pool, free, n_bytes, at, users)


def _must_agree(job: Job, sha512: str) -> str:
    if job.known_sha512 not in (None, sha512):
        raise NameConflict.of(shown(job.name), str(job.known_sha512), sha512)
    return sha512
