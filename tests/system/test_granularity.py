"""How finely the buffer's file system keeps times, read from its marker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from poledata.archive import buffer_marker
from tests.helpers.held_places import held, mark
from tests.helpers.loopdisks import LoopDisk

WITHOUT_MARKER_S = 2.0


@pytest.fixture(autouse=True)
def real_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the product, which tests that only wait for them set to 0."""
    monkeypatch.setattr(buffer_marker, "_KERNEL_TICK_S", 0.01)
    monkeypatch.setattr(buffer_marker, "UNKNOWN_GRANULARITY_S", WITHOUT_MARKER_S)


@pytest.mark.parametrize(
    ("fs", "mkfs_args", "granularity_s"),
    [("ext4", ("-I", "128"), 1.0), ("ext4", ("-I", "256"), 0.01), ("xfs", (), 0.01)],
)
def test_whole_seconds_are_found_on_the_medium(
    tmp_path: Path,
    loop_disk: Callable[..., LoopDisk],
    fs: str,
    mkfs_args: tuple[str, ...],
    granularity_s: float,
) -> None:
    """Inodes of 128 bytes hold no fraction of a second; also after the disk was away."""
    disk = loop_disk(tmp_path / "image", tmp_path / "buffer", fs=fs, mkfs_args=mkfs_args)
    mark(disk.mount_point)
    with held(disk.mount_point) as root_fd:
        assert buffer_marker.granularity_s(root_fd) == granularity_s
    disk.umount()
    disk.mount()
    with held(disk.mount_point) as root_fd:
        assert buffer_marker.granularity_s(root_fd) == granularity_s
