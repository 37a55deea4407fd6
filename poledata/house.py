"""What every step of a pass or command works with, and whether a disk is here at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poledata import adoption, catalogue, db, mounts
from poledata.config import Config
from poledata.errors import UsageFault
from poledata.notices import Board
from poledata.records import Disk, Role

if TYPE_CHECKING:
    from poledata.shelf import Shelf


@dataclass(frozen=True, slots=True)
class House:
    """The archive: its configuration, its database, its notices."""

    config: Config
    conn: db.Connection
    board: Board

    def shelf(self) -> Shelf:
        from poledata.shelf import Shelf  # a pass with nothing to do looks at no disk

        return Shelf(self.config, self.conn, set())

    def place(self, disk: Disk) -> Path:
        return self.config.mount_points(disk.label)[0]


def must_fit_together(config: Config, disks: Iterable[Disk]) -> None:
    """Raises UsageFault where stand-ins and drives would share a database."""
    if any(disk.stand_in == config.require_mount for disk in disks):
        setting, kind = ("yes", "stand-ins") if config.require_mount else ("no", "real drives")
        raise UsageFault(
            f"{config.path}: RequireMount: it is {setting}, but {config.db_path} is of {kind}. "
            "Nothing was touched. Use another FilenameDB, or correct RequireMount."
        )


def is_here(config: Config, disk: Disk, mounted: frozenset[str] | None) -> bool:
    """Whether something is mounted where the disk belongs (None, stand-ins: a directory)."""
    return bool(places_here(config, disk, mounted))


def places_here(config: Config, disk: Disk, mounted: frozenset[str] | None) -> list[Path]:
    """Where that is, without opening any place: behind an automount trigger may be nothing."""
    places = config.mount_points(disk.label)
    if mounted is None:
        return [place for place in places if mounts.device_at(place) is not None]
    return [place for place in places if os.path.realpath(place) in mounted]


def in_the_buffer(config: Config, conn: db.Connection) -> frozenset[int]:
    """The ids of files that are known, not archived yet, and have not surely left the buffer."""
    names = catalogue.unarchived(conn)
    if not names:
        return frozenset()
    with adoption.presence(config, conn) as buffer:
        return frozenset(n for n, name in names if not buffer.has_left(name))


def count_lacking(config: Config, conn: db.Connection) -> int:
    """How many copies are to be made again: of files that are no more in the buffer."""
    waiting = in_the_buffer(config, conn)
    return sum(len(set(catalogue.ids_lacking(conn, role)) - waiting) for role in Role)
