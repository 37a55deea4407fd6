"""Lines of a disk-map from the drives that are here, and what the two disagree on (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poledata.disk_map import Entry
from poledata.system.mounts import Drive


@dataclass(frozen=True, slots=True)
class Identity:
    """One drive as a disk-map names it; the label and the label's role are the map's."""

    label: str | None
    serial: str | None
    logical_id: str | None
    model: str | None
    devices: tuple[str, ...]

    @property
    def line(self) -> str:
        """As it stands in a disk-map, where it has a label."""
        return " ".join(filter(None, (self.label, self.serial, self.logical_id)))


@dataclass(frozen=True, slots=True)
class Compared:
    """A whole disk-map, and every difference as a sentence."""

    identities: tuple[Identity, ...]
    differences: tuple[str, ...]


def unusable(drive: Identity) -> str | None:
    """Why a drive can't stand in a disk-map; None if it can."""
    where = ", ".join(drive.devices)
    if drive.serial is None:
        return f"{where}: smartctl can't ask it who it is (a USB bridge, a RAID volume, dead?)"
    if drive.logical_id is None:
        return f"{where}: serial {drive.serial} has no logical ID (WWN): no disk-map can name it"
    return None


def compare(drives: Sequence[Identity], entries: Iterable[Entry]) -> Compared:
    """The map with the drives' own logical IDs: lines keep their order, label and serial."""
    lines: list[Identity] = []
    said: list[str] = []
    left = list(drives)
    for entry in entries:
        drive = _of_entry(entry, left)
        if drive is None:
            said.append(f"{entry.label} {entry.serial}: no drive here has this serial")
            lines.append(Identity(entry.label, entry.serial, entry.logical_id, None, ()))
            continue
        left.remove(drive)
        if entry.logical_id and drive.logical_id != entry.logical_id:
            said.append(
                f"{entry.label} {entry.serial}: its logical ID is {drive.logical_id}, "
                f"not {entry.logical_id}"
            )
        lines.append(
            Identity(entry.label, entry.serial, drive.logical_id, drive.model, drive.devices)
        )
    for drive in left:
        said.append(f"{', '.join(drive.devices)}: serial {drive.serial} is not in the disk-map")
    return Compared((*lines, *left), tuple(said))


def _of_entry(entry: Entry, drives: Iterable[Identity]) -> Identity | None:
    """The drive whose serial this is, or begins with; of several the one with the entry's ID."""
    found = [drive for drive in drives if _as_drive(drive).begins_with(entry.serial)]
    same_id = [drive for drive in found if drive.logical_id == entry.logical_id]
    if same_id or len(found) == 1:
        return (same_id or found)[0]
    return None


def _as_drive(drive: Identity) -> Drive:
    return Drive("", drive.serial, drive.logical_id, None)
