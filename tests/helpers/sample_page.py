"""A made-up archive in mid-season as a page; run it to take README's picture anew:

python -m tests.helpers.sample_page docs/status-page.png
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from poledata.formatting import utc
from poledata.models import DayDone, DiskState, HealthCheck, Notice, PassRow, Severity
from poledata.status import html
from poledata.status.facts import ArchivedAmount, BufferStatus, DiskStatus, Status
from poledata.status.html import Curve, DriveTrend, Point, Trends
from tests.helpers import browser
from tests.helpers.sample_status import NOON, disk, judged

WIDTH, HEIGHT = 900, 1345
TB = 10**12
CHECKED = utc(NOON - 2 * 3600)
PENDING = "pending sectors (197): 0 → 24"
NOTICE = Notice(
    "smart-warning",
    "P07",
    Severity.WARNING,
    f"P07 (serial ZP07): {PENDING}. Files on it have their other copies on S05 (1204) and "
    "S06 (311). See smart-warning in docs/operators.md.",
    utc(NOON - 20 * 3600),
)


def _disk(label: str, state: DiskState, used: float | None = None) -> DiskStatus:
    free = None if used is None else round(8 * TB * (1 - used))
    size = None if used is None else 8 * TB
    health = HealthCheck(CHECKED, "warning" if label == "P07" else "healthy", 31)
    return DiskStatus(
        disk(label, state, capacity_bytes=size, free_bytes=free),
        state is not DiskState.CLOSED,
        full_at_s=NOON + free / (9 * TB) * 7 * 86_400
        if free and state is DiskState.ACTIVE
        else None,
        oldest_verified_at=None if used is None else utc(NOON - 9 * 86_400),
        health=health,
    )


def _array(prefix: str, total: int, closed: int, used: float) -> list[DiskStatus]:
    states = [DiskState.CLOSED] * closed + [DiskState.ACTIVE] + [DiskState.SPARE] * total
    levels = [0.998] * closed + [used] + [None] * total
    labels = [f"{prefix}{number:02}" for number in range(1, total + 1)]
    return [_disk(*each) for each in zip(labels, states, levels, strict=False)]


PRIMARIES = _array("P", 42, 6, 0.37)
COPIES = _array("S", 28, 5, 0.81)
COPIES[-1] = replace(COPIES[-1], is_mounted=False)
COPIES[11] = replace(
    COPIES[11], disk=replace(COPIES[11].disk, held_by="person", held_reason="it clicks")
)

SAMPLE = judged(
    Status(
        at_s=NOON,
        config_path="/opt/spt/spt.config",
        db_path="/var/lib/pole-data/pole.sqlite",
        stand_ins=False,
        unidentified_drives=False,
        buffer=BufferStatus(
            finished_files=3,
            finished_bytes=3_221_225_472,
            unfinished_files=1,
            oldest_at_s=NOON - 240,
            lease_can_be_had=True,
            trusts_leases=True,
            writer_rule="xfs of this host, not exported by NFS",
            used_percent=7.3,
        ),
        disks=(*PRIMARIES, *COPIES),
        archived=ArchivedAmount(48_217, 47 * TB, 812, 850 * 10**9, 9120, 9 * TB),
        lacking_copies=0,
        pending=(),
        notices=(NOTICE,),
        last_pass=PassRow(7, utc(NOON - 120), utc(NOON - 70), "done", 2, 2_147_483_648, 0),
        looked_at_s=NOON - 5,
        ended_at_s=NOON - 4,
    )
)
SHARES = (0.9, 1.3, 1.5, 1.4, 0.2, 0, 1.1, 1.6, 1.7, 1.6, 1.2, 1.5, 0.8, 1.4)
DAYS = tuple(
    DayDone(utc(NOON - back * 86_400)[:10], round(900 * share), round(share * TB))
    for back, share in zip(range(27, -1, -1), SHARES * 2, strict=True)
)
GROWN = (0, 0, 0, 0, 1, 1, 1, 1, 1, 4, 4, 4, 9, 9, 16, 24)
TRENDS = Trends(
    DAYS,
    (
        DriveTrend(
            PRIMARIES[6].disk,
            "warning",
            CHECKED,
            (PENDING, "temperature in °C: 56"),
            (
                Curve(
                    "pending sectors (197)",
                    tuple(
                        Point(NOON - 43_200 * (len(GROWN) - number), value)
                        for number, value in enumerate(GROWN)
                    ),
                ),
                Curve(
                    "temperature in °C",
                    tuple(
                        Point(
                            NOON - 43_200 * (16 - number),
                            42 + number * 7 % 9 + number // 2 + number // 8,
                        )
                        for number in range(16)
                    ),
                ),
            ),
        ),
    ),
)


def write(
    path: Path, status: Status = SAMPLE, shown: Trends = TRENDS, made_s: float | None = None
) -> Path:
    """The page in a file, as if it were of another time."""
    text = html.render(status, shown, full_percent=80)
    was = f'data-made="{status.at_s:.0f}"'
    assert was in text
    path.write_text(text.replace(was, f'data-made="{made_s or time.time():.0f}"'))
    return path


def _take_picture(target: Path) -> None:
    binary = browser.program()
    assert binary, "there is no browser"
    with tempfile.TemporaryDirectory() as home, browser.running(binary, Path(home)) as window:
        window.open(write(Path(home) / "page.html"), WIDTH, HEIGHT)
        target.write_bytes(window.picture(WIDTH, HEIGHT))


if __name__ == "__main__":
    _take_picture(Path(sys.argv[1]))
