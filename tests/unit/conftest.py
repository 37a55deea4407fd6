"""Unit tests start no process: those that do belong in tests/programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

# What Python reports when a process is started (sys.audit).
STARTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}


class _Watch:
    """Notes which processes a test starts; an audit hook can be added, but never removed."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if event in STARTS:
            self.started.append(f"{event} {args[:2]}")


WATCH = _Watch()


@pytest.fixture(autouse=True)
def _no_process() -> Iterator[None]:
    WATCH.started.clear()
    yield
    assert not WATCH.started, "a unit test starts no process: move it to tests/programs"
