"""Draw the progress of a pass on a terminal, with rich; loaded only when a person watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from poledata.archive.pass_state import Watcher
from poledata.cli import app
from poledata.formatting import shown


@contextmanager
def on_terminal() -> Iterator[Watcher]:
    """Yield a watcher that draws a bar for each disk."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with (
        app.terminal_for_drawing() as terminal,
        Progress(*columns, console=Console(file=terminal), transient=True) as bars,
    ):
        yield _Bars(bars)


class _Bars(Watcher):
    """One bar for each disk: its current file, bytes written and read back, rate and time left."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def batch(self, bytes_by_label: dict[str, int]) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self.reading({label: 2 * size_bytes for label, size_bytes in bytes_by_label.items()})

    def reading(self, bytes_by_label: dict[str, int]) -> None:
        self._tasks = {
            label: self._bars.add_task(escape(shown(label)), total=size_bytes)
            for label, size_bytes in bytes_by_label.items()
        }

    def moved(self, label: str, name: str, n_bytes: int) -> None:
        if label in self._tasks:  # called from any thread: rich has its own lock
            what = escape(shown(f"{label} {name}"))
            self._bars.update(self._tasks[label], description=what, advance=n_bytes)
