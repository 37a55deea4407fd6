"""What every command works with: the configuration, the database connection, the findings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.config import Config
from poledata.errors import UsageFault
from poledata.models import Disk
from poledata.notices.findings import Findings
from poledata.system import mounts


@dataclass(frozen=True, slots=True)
class Context:
    """The archive: its configuration, its database, what runs found in it."""

    config: Config
    conn: db.Connection
    findings: Findings

    @classmethod
    def create(cls, config: Config, conn: db.Connection, is_dry: bool = False) -> Context:
        """Return the context of one pass or command; in a dry run nothing found is stored."""
        return cls(config, conn, Findings(conn, is_dry))

    def place(self, disk: Disk) -> Path:
        """Return where the disk belongs."""
        return self.config.mount_points(disk.label)[0]


def must_fit_together(config: Config, disks: Iterable[Disk]) -> None:
    """Refuse a database of stand-ins for drives, or the reverse. Raises UsageFault."""
    if any(disk.stand_in == config.require_mount for disk in disks):
        setting, kind = ("yes", "stand-ins") if config.require_mount else ("no", "real drives")
        raise UsageFault(
            f"{config.path}: RequireMount: it is {setting}, but {config.db_path} is of {kind}. "
            "Nothing was touched. Use another FilenameDB, or correct RequireMount."
        )


def is_here(config: Config, disk: Disk, mount_points: frozenset[str] | None) -> bool:
    """True if something is mounted where the disk belongs (None, stand-ins: a directory)."""
    return bool(places_here(config, disk, mount_points))


def places_here(config: Config, disk: Disk, mount_points: frozenset[str] | None) -> list[Path]:
    """Return where it is mounted; no place is opened, because it may be an automount trigger."""
    places = config.mount_points(disk.label)
    if mount_points is None:
        return [place for place in places if mounts.device_at(place) is not None]
    return [place for place in places if os.path.realpath(place) in mount_points]
