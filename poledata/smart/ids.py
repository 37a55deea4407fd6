"""Make the lines of a disk-map from the drives that are here, and list what differs (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from poledata.disk_map import Entry
from poledata.system.mounts import Drive


@dataclass(frozen=True, slots=True)
class Identity:
    """One drive as a disk-map names it; its label comes from the map."""

    label: str | None
    serial: str | None
    logical_id: str | None
    model: str | None
    devices: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return its line in a disk-map, without a label if it has none."""
        return " ".join(filter(None, (self.label, self.serial, self.logical_id)))


@dataclass(frozen=True, slots=True)
class Compared:
    """A whole disk-map, and every difference as a sentence."""

    identities: tuple[Identity, ...]
    differences: tuple[str, ...]


def unusable(drive: Identity) -> str | None:
    """Return why no disk-map can name a drive; None if one can."""
    where = ", ".join(drive.devices)
    if drive.serial is None:
        return f"{where}: smartctl can't ask it who it is (a USB bridge, a RAID volume, dead?)"
    if drive.logical_id is None:
        return f"{where}: serial {drive.serial} has no logical ID (WWN): no disk-map can name it"
    return None


def compare(drives: Sequence[Identity], entries: Iterable[Entry]) -> Compared:
    """Return the map with the drives' own logical IDs: lines keep their order, label and serial."""
    lines: list[Identity] = []
    differences: list[str] = []
    left = list(drives)
    for entry in entries:
        name = f"{entry.label} {entry.serial}"
        drive = _drive_of(entry, left)
        if drive is None:
            differences.append(f"{name}: no drive here has this serial")
            lines.append(Identity(entry.label, entry.serial, entry.logical_id, None, ()))
            continue
        left.remove(drive)
        lines.append(replace(drive, label=entry.label, serial=entry.serial))
        if entry.logical_id and drive.logical_id != entry.logical_id:
            ids = f"its logical ID is {drive.logical_id}, not {entry.logical_id}"
            differences.append(f"{name}: {ids}")
    differences += (
        f"{', '.join(drive.devices)}: serial {drive.serial} is not in the disk-map"
        for drive in left
    )
    return Compared((*lines, *left), tuple(differences))


def _drive_of(entry: Entry, drives: Iterable[Identity]) -> Identity | None:
    """Return the drive whose serial begins so; if several do, the one with the entry's ID."""
    found = [d for d in drives if Drive("", d.serial, None, None).begins_with(entry.serial)]
    same_id = [drive for drive in found if drive.logical_id == entry.logical_id]
    if same_id or len(found) == 1:
        return (same_id or found)[0]
    return None
