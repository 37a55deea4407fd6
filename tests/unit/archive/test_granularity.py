"""How finely the buffer's file system keeps times, read from its marker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poledata.archive import buffer_marker
from tests.helpers.held_places import held, mark

WITHOUT_MARKER_S = 2.0


@pytest.fixture(autouse=True)
def real_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the product, which tests that only wait for them set to 0."""
    monkeypatch.setattr(buffer_marker, "_KERNEL_TICK_S", 0.01)
    monkeypatch.setattr(buffer_marker, "UNKNOWN_GRANULARITY_S", WITHOUT_MARKER_S)


def test_a_file_system_that_keeps_nanoseconds_is_as_fine_as_the_kernels_clock(
    tmp_path: Path,
) -> None:
    """The time of a change is the last tick of the kernel's clock: up to 10 ms old."""
    mark(tmp_path)
    with held(tmp_path) as root_fd:
        assert buffer_marker.granularity_s(root_fd) == 0.01


@pytest.mark.parametrize(
    ("kept", "granularity_s"),
    [
        ((1_000_000_000, 0), 2.0),  # FAT
        ((1_000_000_002, 0), 2.0),  # FAT, rounded up
        ((1_000_000_001, 0), 1.0),
        ((1_000_000_001, 900_000_000), 0.1),
        ((1_000_000_001, 980_000_000), 0.01),  # exFAT
        ((1_000_000_001, 987_654_300), 0.01),  # NTFS
        ((1_000_000_001, 987_654_321), 0.01),
    ],
)
def test_what_is_left_of_the_time_tells_how_much_is_kept(
    tmp_path: Path, kept: tuple[int, int], granularity_s: float
) -> None:
    """Two seconds, one, tenths, and less, whichever way the file system rounds."""
    kept_ns = kept[0] * 10**9 + kept[1]
    os.utime(mark(tmp_path), ns=(kept_ns, kept_ns))
    with held(tmp_path) as root_fd:
        assert buffer_marker.granularity_s(root_fd) == granularity_s


def test_without_the_markers_time_it_counts_as_the_coarsest(tmp_path: Path) -> None:
    """No marker, a link in its place, a marker that was copied with another time."""
    with held(tmp_path) as root_fd:
        assert buffer_marker.granularity_s(root_fd) == WITHOUT_MARKER_S
        marker = mark(tmp_path)
        os.utime(marker, (0, 0))
        assert buffer_marker.granularity_s(root_fd) == WITHOUT_MARKER_S
        marker.rename(tmp_path / "elsewhere")
        marker.symlink_to("elsewhere")
        assert buffer_marker.granularity_s(root_fd) == WITHOUT_MARKER_S
