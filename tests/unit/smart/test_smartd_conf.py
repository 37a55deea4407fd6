"""examples/smartd.conf: each drive has its tests, and not all at once."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta

import pytest

from tests.helpers.world import REPO

DRIVES = 25
HOURS = [datetime(2027, 1, 1) + timedelta(hours=hour) for hour in range(365 * 24)]


def begins(kind: str, drive: int) -> list[datetime]:
    """When smartd begins a drive's tests of this kind: smartd.conf(5), -s REGEXP.

    The time is adjusted to the past by ``(drive * NNN) mod (LLL + 1)`` hours.
    """
    (line,) = re.findall(r"^DEVICESCAN .*", (REPO / "examples/smartd.conf").read_text(), re.M)
    regexp = re.compile(line.partition(" -s ")[2])
    found = []
    for suffix in re.findall(r":\d{3}-\d{3}", regexp.pattern):
        step, limit = int(suffix[1:4]), int(suffix[5:])
        delay = timedelta(hours=drive * step % (limit + 1))
        for now in HOURS:
            then = now - delay
            text = f"{kind}/{then:%m/%d}/{then.isoweekday()}/{then:%H}{suffix}"
            found += [now] if regexp.fullmatch(text) else []
    return found


@pytest.mark.parametrize("drive", range(0, DRIVES, 6))
def test_each_drive_is_tested_each_week_and_each_month(drive: int) -> None:
    """A short test and an extended one; at the year's ends one may fall outside."""
    assert len(begins("S", drive)) in (51, 52, 53)
    assert len(begins("L", drive)) in (11, 12)


def test_no_two_drives_begin_an_extended_test_in_the_same_hour() -> None:
    """They are staggered over the month."""
    starts = Counter(start for drive in range(DRIVES) for start in begins("L", drive))
    assert set(starts.values()) == {1}
    march = [start for start in starts if start.month == 3]
    assert len({start.day for start in march}) >= 20
