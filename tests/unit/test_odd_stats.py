"""Files whose times and inodes are beyond anything that a database holds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from poledata.archive import buffer
from poledata.archive.selection import Selection
from poledata.formatting import people_time, seconds, utc
from poledata.models import FileStat

LAST_NS, FIRST_NS = 2**63 - 1, -(2**63)


def stat_result(inode: int, mtime_ns: int, ctime_ns: int, device: int = 1) -> os.stat_result:
    """What ``os.stat`` gives of such a file."""
    times = (0, mtime_ns // 10**9, ctime_ns // 10**9)
    floats = (0.0, mtime_ns / 1e9, ctime_ns / 1e9)
    return os.stat_result((0o100644, inode, device, 1, 0, 0, 5, *times, *floats, 0, mtime_ns,
                           ctime_ns))  # fmt: skip


def test_every_number_of_a_stat_fits_in_the_database() -> None:
    """Identities stay apart, and times keep their order."""
    stat = FileStat.of(stat_result(2**64 - 1, 2**80, -(2**80), device=2**63))
    assert stat == FileStat(FIRST_NS, -1, 5, LAST_NS, FIRST_NS)
    assert FileStat.of(stat_result(2**63, 7, -7)) == FileStat(1, FIRST_NS, 5, 7, -7)


def test_a_scan_comes_to_every_file_of_a_far_future_once(tmp_path: Path) -> None:
    """Also where only some of them are in memory at a time."""
    names = [f"{number}.g3" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, ns=(0, 10 * LAST_NS))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        found, after = [], None
        while True:
            seen = buffer.scan(fd, Selection((".g3",)), 0.0, time.time(), 2, after)
            found += [waiting.name for waiting in seen.waiting]
            if seen.is_whole:
                break
            after = seen.waiting[-1].age_key
            assert len(found) <= len(names)
    finally:
        os.close(fd)
    assert found == names


@pytest.mark.parametrize("at_s", [2.0**63, -(2.0**63), 253_402_300_800.0, -62_135_596_801.0])
def test_every_time_can_be_written_and_read_again(at_s: float) -> None:
    """A year of five digits, or before the calendar, becomes the last or first that can be."""
    assert utc(seconds(utc(at_s))) == utc(at_s)
    assert people_time(at_s, time.time())
