"""The buffer's marker: a small file with a random ID that the first pass put there.

Its modification time also tells how finely the buffer's file system keeps times.
"""

from __future__ import annotations

import os

from poledata import beneath

NAME = ".poledata-buffer"
# An odd second with every digit of its nanoseconds in use: what is left of it is what is kept.
_PROBE_NS = 1_000_000_001_987_654_321
_COARSEST_FIRST_NS = (2 * 10**9, 10**9, 10**8)
_KERNEL_TICK_S = 0.01  # where nanoseconds are kept, the clock behind them still ticks at 100 Hz
UNKNOWN_GRANULARITY_S = 2.0  # FAT's: no other file system that Linux writes is coarser


def set_probe_time(fd: int) -> None:
    """Give the open marker the time that ``granularity_s`` reads. Raises OSError."""
    os.utime(fd, ns=(_PROBE_NS, _PROBE_NS))


def granularity_s(root_fd: int) -> float:
    """Return how coarse the times are that the buffer's file system keeps.

    Nothing is written: the marker got its time when it was made. Without a marker, or with
    another time on it, ``UNKNOWN_GRANULARITY_S``.
    """
    try:
        with beneath.opened(root_fd, NAME) as fd:
            kept_ns = os.fstat(fd).st_mtime_ns
    except OSError:
        return UNKNOWN_GRANULARITY_S  # no marker (yet), or one that can't be looked at
    if abs(kept_ns - _PROBE_NS) > _COARSEST_FIRST_NS[0]:
        return UNKNOWN_GRANULARITY_S
    kept_to_ns = next((ns for ns in _COARSEST_FIRST_NS if kept_ns % ns == 0), 0)
    return max(kept_to_ns / 1e9, _KERNEL_TICK_S)
