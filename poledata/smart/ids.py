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
    other_id: str | None = None  # an NVMe drive may have two
    fault: str | None = None  # why nothing is known of it

    @property
    def line(self) -> str:
        """Return its line in a disk-map, without a label if it has none."""
        serial = self.serial and self.serial.replace(" ", "_")  # columns are separated by spaces
        return " ".join(filter(None, (self.label, serial, self.logical_id)))


@dataclass(frozen=True, slots=True)
class Compared:
    """A whole disk-map, and every difference as a sentence."""

    identities: tuple[Identity, ...]
    differences: tuple[str, ...]


def unusable(drive: Identity) -> str | None:
    """Return why no disk-map can name a drive; None if one can."""
    where = ", ".join(drive.devices)
    if drive.fault:
        return f"{where}: {drive.fault}"
    if drive.serial is None:
        return f"{where}: smartctl can't ask it who it is (a USB bridge, a RAID volume, dead?)"
    if drive.logical_id is None:
        return f"{where}: serial {drive.serial} has no logical ID (WWN): no disk-map can name it"
    return None


def shared_ids(drives: Iterable[Identity]) -> list[str]:
    """Return a warning about each logical ID that several drives have."""
    by_id: dict[str, list[Identity]] = {}
    for drive in drives:
        by_id.setdefault(drive.logical_id or "", []).append(drive)
    return [
        f"{' and '.join(', '.join(d.devices) for d in alike)} are different drives with the same "
        f"logical ID {id_}: a disk-map can name only one of them"
        for id_, alike in by_id.items()
        if id_ and len(alike) > 1
    ]


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
        if entry.logical_id and entry.logical_id == drive.other_id:
            drive = replace(drive, logical_id=drive.other_id, other_id=drive.logical_id)
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
    same_id = [d for d in found if entry.logical_id in (d.logical_id, d.other_id)]
    if same_id or len(found) == 1:
        return (same_id or found)[0]
    return None
