"""Directories that are held open, and the marker of a buffer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poledata.archive import buffer_marker


@contextmanager
def held(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def mark(root: Path) -> Path:
    marker = root / buffer_marker.MARKER
    with open(marker, "w") as file:
        buffer_marker.set_probe_time(file.fileno())
    return marker


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
