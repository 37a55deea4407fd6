"""What proves that a file may leave the buffer, and what keeps it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.helpers.loopdisks import LoopDisk
from tests.helpers.removal_station import made

# --- with real files and a real database ----------------------------------------------------


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def test_a_buffer_that_does_not_let_go_is_said(
    tmp_path: Path, loop_disk: Callable[..., LoopDisk]
) -> None:
    """The copies are safe; only the unlink failed, and says why."""
    disk = loop_disk(tmp_path / "buffer.img", tmp_path / "buffer", fs="ext4")
    with made(tmp_path) as station:
        disk.remount("ro")
        assert station.remove() == ("it is archived, but can't be renamed (Read-only file system)",)
        assert station.source.exists()
        station.conn.execute("SELECT 1")  # the caller goes on
    disk.remount("rw")
