"""Live progress of a pass on a terminal; without rich, or a terminal, a pass is just silent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from poledata.records import Job
from poledata.tally import Watcher


@contextmanager
def on_terminal() -> Iterator[Watcher]:
    """A watcher that draws a bar; the plain one where rich is missing."""
    try:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        yield Watcher()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as bars:
        yield _Bars(bars)


class _Bars(Watcher):
    """One bar a batch: bytes written and read back, over all its disks."""

    def __init__(self, bars: object) -> None:
        self._bars = bars
        self._lock = threading.Lock()
        self._task: int | None = None

    def batch(self, jobs: list[Job], labels: list[str]) -> None:
        total = sum(2 * job.waiting.stat.size_bytes * len(job.roles) for job in jobs)
        what = f"{len(jobs)} files to {' and '.join(labels)}"
        if self._task is not None:
            self._bars.remove_task(self._task)  # type: ignore[attr-defined]
        self._task = self._bars.add_task(what, total=total)  # type: ignore[attr-defined]

    def moved(self, n_bytes: int) -> None:
        with self._lock:
            self._bars.advance(self._task, n_bytes)  # type: ignore[attr-defined]
