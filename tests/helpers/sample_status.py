"""The status of a station that is made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from poledata import db
from poledata.models import (
    Disk,
    DiskState,
    Finding,
    HealthCheck,
    PassRow,
    Role,
)
from poledata.status import verdict
from poledata.status.facts import (
    ArchivedAmount,
    ArchiveEvidence,
    BufferStatus,
    DiskStatus,
    Status,
)
from tests.helpers.world import World

NOON = 1_795_435_200.0  # 2026-11-23T12:00:00Z
AT = "2026-11-23T11:30:00Z"


def disk(label: str, state: DiskState = DiskState.SPARE, **changed: Any) -> Disk:
    known = Disk(
        id=1,
        label=label,
        role=Role.PRIMARY if label.startswith("P") else Role.COPY,
        serial=f"Z{label}",
        logical_id="0x5000c500858bfea7",
        state=state,
    )
    return replace(known, **changed)


STATUS = Status(
    at_s=NOON,
    config_path="/opt/spt/spt.config",
    db_path="/var/lib/pole/pole.sqlite",
    stand_ins=False,
    unidentified_drives=False,
    buffer=BufferStatus(
        finished_files=3,
        finished_bytes=1_500_000_000,
        unfinished_files=1,
        other_files=2,
        links_and_specials=4,
        oldest_at_s=NOON - 7200,
        lease_can_be_had=True,
        trusts_leases=True,
        writer_rule="xfs of this host, not exported by NFS",
        used_percent=41.6,
    ),
    disks=(
        DiskStatus(
            disk("P01", DiskState.ACTIVE, capacity_bytes=8 * 10**12, free_bytes=3 * 10**12),
            True,
            full_at_s=NOON + 3 * 86_400,
            oldest_verified_at=AT,
            health=HealthCheck(AT, "healthy", 31),
        ),
        DiskStatus(disk("P02"), True),
        DiskStatus(disk("P03"), False),
        DiskStatus(disk("S01", DiskState.SHIPPED), False),
        DiskStatus(disk("S02", held_by="person", held_reason="it clicks"), True),
    ),
    archived=ArchivedAmount(10, 2 * 10**12, 3, 10**12, 7, 7 * 10**12),
    lacking_copies=0,
    pending=(),
    notices=(),
    last_pass=PassRow(7, AT, AT, "done", 5, 5_000_000, 0),
    looked_at_s=NOON - 60,
    ended_at_s=NOON - 50,
    last_archived_at=AT,
    channels=("notify-1-mailto",),
    has_watchdog=True,
)


def make_db(world: World, *labels: str) -> None:
    db.database_files.create(world.db_path)
    with db.connect(world.db_path) as conn, db.transaction(conn):
        for number, label in enumerate(labels):
            role = Role.PRIMARY if label.startswith("P") else Role.COPY
            is_stand_in = not world.require_mount
            db.disks.add_disk(conn, label, role, f"Z{label}", f"0x{number:016x}", is_stand_in, AT)


def judged(status: Status) -> Status:
    """The status with its verdict, if its open notices are what runs found."""
    found = [
        Finding(n.kind, n.key, n.severity, n.text, n.value, n.opened_at) for n in status.notices
    ]
    return verdict.judged(status, ArchiveEvidence(findings=tuple(found)))
