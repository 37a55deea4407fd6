"""A disk set from a disk-map: what is new in it, and which drives are ready for use."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poledata import db
from poledata.archive import buffer_marker
from poledata.config import Config
from poledata.disk_map import Entry
from poledata.disks import bag
from poledata.disks.selection import label_key
from poledata.errors import DiskMapFault, Refused
from poledata.maintenance import inventory
from poledata.models import GONE, Disk, DiskState
from poledata.system import file_systems, mounts, ownership


@dataclass(frozen=True, slots=True)
class Readiness:
    """One drive of a disk set, and the command that is still to be run for it."""

    label: str
    role: str
    serial: str
    logical_id: str
    device: str
    mounted: str
    writable: str
    capacity_bytes: int | None
    next_step: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What a disk-map brings: drives not seen before, and lost ones that came back wiped."""

    new: tuple[Entry, ...]
    returned: tuple[tuple[Entry, Disk], ...]
    known: int
    lost: int  # of these, drives noted as lost, which are left so


def changes(
    known: Sequence[Disk], entries: Iterable[Entry], source: Path, take_back: bool
) -> Changes:
    """What the entries change in the database; lost drives come back only if asked for.

    Raises DiskMapFault with every contradiction, each naming both sides; then none is taken.
    """
    entries = list(entries)
    faults = [
        f"{source}:{entry.line}: {fault}"
        for entry in entries
        for fault in (*_ambiguities(entry, entries), *_faults(known, entry))
    ]
    if faults:
        raise DiskMapFault(faults)
    by_id = {disk.logical_id: disk for disk in known}
    new = tuple(entry for entry in entries if entry.logical_id not in by_id)
    lost = tuple(
        (entry, by_id[entry.logical_id])
        for entry in entries
        if entry.logical_id in by_id and by_id[entry.logical_id].state is DiskState.LOST
    )
    returned = lost if take_back else ()
    known_count = len(entries) - len(new) - len(returned)
    return Changes(new, returned, known_count, 0 if take_back else len(lost))


def _faults(known: Sequence[Disk], entry: Entry) -> Iterator[str]:
    for disk in known:
        is_same_id = disk.logical_id == entry.logical_id
        is_same_serial = _one_begins_the_other(disk.serial, entry.serial)
        if is_same_serial != is_same_id:
            if is_same_serial:
                yield (
                    f"serial {entry.serial} is known as {disk.label} with logical ID "
                    f"{disk.logical_id}, not {entry.logical_id}"
                )
            else:
                yield (
                    f"logical ID {entry.logical_id} is known as {disk.label} with serial "
                    f"{disk.serial}, not {entry.serial}"
                )
        elif is_same_serial and disk.label != entry.label and disk.state is not DiskState.LOST:
            yield (
                f"{entry.serial} is {disk.label}, {_IN_WORDS[disk.state]}. A typo? Correct line "
                f"{entry.line} of the disk-map.{_unless_a_typo(disk)}"
            )
        elif (
            not is_same_serial
            and label_key(disk.label) == label_key(entry.label)
            and disk.state not in GONE
        ):
            yield (
                f"label {entry.label} belongs to the drive {disk.serial} "
                f"({disk.state.value}), not to {entry.serial}. A typo? Correct line "
                f"{entry.line} of the disk-map."
                + (_unless_a_typo(disk) if disk.state is DiskState.SPARE else "")
            )


_IN_WORDS = {
    DiskState.SPARE: "a spare",
    DiskState.ACTIVE: "in use",
    DiskState.CLOSED: "closed",
    DiskState.SHIPPED: "shipped",
}


def _unless_a_typo(disk: Disk) -> str:
    """What else may be meant. Never ``lost``: a typo must not cost a disk in use its copies."""
    if disk.state is DiskState.SPARE:
        return f" A new label, or another drive? First: data_manager.py forget {disk.label}"
    if disk.state is DiskState.ACTIVE:
        return ""
    return ' Wiped? See "A drive that comes back wiped" in docs/operators.md'


def _ambiguities(entry: Entry, entries: Iterable[Entry]) -> Iterator[str]:
    for other in entries:
        if other.line < entry.line and _one_begins_the_other(other.serial, entry.serial):
            yield (
                f"serial {entry.serial} of {entry.label} and serial {other.serial} of "
                f"{other.label} (line {other.line}) begin alike: write them out"
            )


def _one_begins_the_other(one: str, other: str) -> bool:
    """A SAS drive's printed serial is the beginning of the one that it reports."""
    one, other = one.upper(), other.upper()
    return one.startswith(other) or other.startswith(one)


def must_know(
    config: Config, known: Sequence[Disk], changes: Changes, source: Path, db_path: Path
) -> None:
    """Raises Refused where a mounted disk was archived to, and would be added as a spare.

    Without a database that is any such disk, and all else that an earlier archive has left: an
    empty database would hide what the disks know, which may be in no slot now.
    """
    hidden = [
        used.why_not_emptied
        for used in inventory.used_before(config)
        if not known or _is_of(used.mark, changes.new)
    ]
    if not known:
        hidden += _left_by_an_archive(config, db_path)
    if hidden:
        rebuild = f"generate_db.py --config {shlex.quote(str(config.path))} --from-disks"
        why = "The database does not know it" if known else "Do not make a new database"
        raise Refused(
            "\n".join((*hidden, f"Nothing was changed. {why}: {rebuild} --disk-map {source}"))
        )


def _left_by_an_archive(config: Config, db_path: Path) -> Iterator[str]:
    for path in db.database_files.backups(db_path):
        yield f"{path}: an earlier database"
    anew = "another archive on purpose? Move that away first"
    for lists in {path.parent for path in db_path.parent.glob("packing-lists/*.sha512")}:
        yield f"{lists}: lists of disks that were archived to ({anew})"
    marker = config.buffer / buffer_marker.NAME
    if not db_path.exists() and os.path.lexists(marker):
        yield f"{marker}: this buffer belongs to an archive ({anew})"


def must_be_wiped(config: Config, changes: Changes) -> None:
    """Raises Refused where a lost drive that is to come back as an empty spare is not empty."""
    for used in inventory.used_before(config):
        for entry, disk in changes.returned:
            if _is_of(used.mark, [entry]):
                raise Refused(
                    f"{used.why_not_emptied}. Nothing was changed. If it was not lost: "
                    f"data_manager.py lost --undo {disk.serial}"
                )


def _is_of(mark: bag.Mark | None, entries: Iterable[Entry]) -> bool:
    return mark is not None and any(
        mark.logical_id == entry.logical_id or _one_begins_the_other(mark.serial, entry.serial)
        for entry in entries
    )


# --- which drives are ready ---------------------------------------------------------------


def readiness(config: Config, entries: Iterable[Entry], cron_uid: int) -> list[Readiness]:
    """Device, mount and rights of each drive, as the system knows them now."""
    drives = mounts.ask_drives() if config.require_mount else ()
    return [_ready(config, entry, drives, cron_uid) for entry in entries]


def _ready(
    config: Config, entry: Entry, drives: tuple[mounts.Drive, ...], cron_uid: int
) -> Readiness:
    places = config.mount_points(entry.label)
    here = ((place, found) for place in places if (found := _look(place, config)))
    place, found = next(here, (places[0], None))
    drive = next((d for d in drives if _is_that(d, entry)), None)
    size_bytes = drive.size_bytes if drive else None
    if found is None:
        writable, step = "-", _how_to_mount(config, entry, place, drive)
    else:
        root, room, unsupported = found
        size_bytes = room.capacity_bytes
        step = _how_to_allow(root, place, cron_uid)
        writable = "no" if step else "yes"
        step = f"it gets no copies: {unsupported}" if unsupported else step
    return Readiness(
        label=entry.label,
        role=entry.role.value,
        serial=entry.serial,
        logical_id=entry.logical_id,
        device=f"/dev/{drive.kernel_name}" if drive else "-",
        mounted=str(place) if found else "no",
        writable=writable,
        capacity_bytes=size_bytes,
        next_step=step,
    )


def unless_gone(row: Readiness, known: Iterable[Disk]) -> Readiness:
    """A drive that the database has as shipped or lost takes no data, whatever is mounted."""
    gone = {d.logical_id: d.state.value for d in known if d.state in GONE}
    if row.logical_id not in gone:
        return row
    return replace(row, next_step=f"it is noted as {gone[row.logical_id]}: not used")


def _is_that(drive: mounts.Drive, entry: Entry) -> bool:
    known = drive.serial or drive.wwn
    return bool(known) and not drive.contradicts(entry.serial, entry.logical_id)


def _look(place: Path, config: Config) -> tuple[os.stat_result, mounts.Space, str | None] | None:
    """The root and the room of what is mounted at a place, and why no copies may go there.

    None if nothing is.
    """
    try:
        fd = mounts.open_place(place)
    except OSError:
        return None  # not ours to look at: not ready
    if fd is None:
        return None
    try:
        mount = mounts.mount_of(fd) if config.require_mount else None
        if config.require_mount and not (mount and mounts.is_mount_point(fd, place)):
            return None
        return os.fstat(fd), mounts.space(fd), _why_unsupported(mount, fd, config)
    finally:
        os.close(fd)


def _why_unsupported(mount: mounts.Mount | None, fd: int, config: Config) -> str | None:
    if mount is None:
        return None  # a stand-in
    return file_systems.why_unsupported(mount, mounts.drives_under(fd), config.accept_unidentified)


def _may_write(root: os.stat_result, uid: int) -> bool:
    """Whether this user may make files in a directory, by its owner and mode bits."""
    if uid == 0:
        return True
    if root.st_uid == uid:
        return root.st_mode & 0o300 == 0o300
    groups = os.getgrouplist(*_name_and_group(uid))
    bits = 0o030 if root.st_gid in groups else 0o003
    return stat.S_IMODE(root.st_mode) & bits == bits


def _how_to_allow(root: os.stat_result, place: Path, uid: int) -> str:
    """The command that lets the cron user write to a mounted disk; "" if that may."""
    return "" if _may_write(root, uid) else ownership.chown_command(place, uid)


def _how_to_mount(config: Config, entry: Entry, place: Path, drive: mounts.Drive | None) -> str:
    quoted = shlex.quote(str(place))
    if not config.require_mount:
        return f"mkdir -p {quoted}"
    if drive is None:
        return f"insert the drive {entry.serial}"
    return f"sudo mkdir -p {quoted} && sudo mount /dev/{drive.kernel_name} {quoted}"


def _name_and_group(uid: int) -> tuple[str, int]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return str(uid), -1
    return entry.pw_name, entry.pw_gid
