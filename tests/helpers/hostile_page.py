"""A status in which every text is hostile."""

from __future__ import annotations

from dataclasses import replace

from poledata.models import (
    DiskState,
    FileStat,
    HealthCheck,
    Notice,
    Pause,
    Pending,
    Severity,
)
from poledata.status import html
from poledata.status.facts import BufferStatus, DiskStatus, Undelivered
from poledata.status.html import Curve, Point, Trends
from tests.helpers.sample_page import DAYS, SAMPLE
from tests.helpers.sample_status import AT, NOON, disk, judged

EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&amp;{{ 7*7 }}"
HOSTILE = judged(
    replace(
        SAMPLE,
        pending=(Pending(EVIL, 3, AT, AT, EVIL, "copy-failed", FileStat(1, 2, 3, 4, 5)),),
        notices=(Notice("copy-failed", EVIL, Severity.WARNING, EVIL, AT),),
        pause=Pause(AT, EVIL, EVIL),
        undelivered=(Undelivered(EVIL, 3, 9, EVIL),),
        warnings=(EVIL,),
        db_path=EVIL,
        buffer=BufferStatus(fault=EVIL),
        disks=(
            DiskStatus(
                disk(EVIL, DiskState.ACTIVE, serial=EVIL, held_by="person", held_reason=EVIL),
                False,
                health=HealthCheck(AT, EVIL, 31),
            ),
        ),
    )
)
HOSTILE_TRENDS = Trends(
    DAYS,
    (
        html.DriveTrend(
            disk(EVIL), EVIL, AT, (EVIL,), (Curve(EVIL, (Point(NOON, 1), Point(NOON + 1, 2))),)
        ),
    ),
)
