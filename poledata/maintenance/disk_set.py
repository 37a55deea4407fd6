"""A disk set from a disk-map: what is new in it, and which of its drives are ready for use."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from poledata import db
from poledata.archive import buffer
from poledata.config import Config
from poledata.disk_map import Entry
from poledata.disks import bag
from poledata.disks.identity import chown_command, opened_place
from poledata.errors import DiskMapFault, Refused
from poledata.formatting import label_key
from poledata.maintenance import inventory
from poledata.models import GONE, Disk, DiskState
from poledata.system import file_systems, mounts


@dataclass(frozen=True, slots=True)
class Readiness:
    """One drive of a disk set, and the command that still must be run for it."""

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
    lost: int  # of these, drives noted as lost, which stay lost


def changes(
    known: Sequence[Disk], entries: Iterable[Entry], source: Path, take_back: bool
) -> Changes:
    """Return what the entries change in the database; lost drives come back only if asked for.

    Raises DiskMapFault with every contradiction, each naming both sides; then nothing is changed.
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
    old = [(entry, by_id[entry.logical_id]) for entry in entries if entry.logical_id in by_id]
    lost = tuple(pair for pair in old if pair[1].state is DiskState.LOST)
    if take_back:
        return Changes(new, lost, len(old) - len(lost), 0)
    return Changes(new, (), len(old), len(lost))


def _ambiguities(entry: Entry, entries: Iterable[Entry]) -> Iterator[str]:
    for other in entries:
        if other.line < entry.line and _one_begins_the_other(other.serial, entry.serial):
            yield (
                f"serial {entry.serial} of {entry.label} and serial {other.serial} of "
                f"{other.label} (line {other.line}) begin alike: write them out"
            )


def _faults(known: Sequence[Disk], entry: Entry) -> Iterator[str]:
    """Yield how known disks contradict an entry."""
    typo = f"A typo? Correct line {entry.line} of the disk-map."
    for disk in known:
        is_same_id = disk.logical_id == entry.logical_id
        is_same_serial = _one_begins_the_other(disk.serial, entry.serial)
        if is_same_serial and not is_same_id:
            yield (
                f"serial {entry.serial} is known as {disk.label} with logical ID "
                f"{disk.logical_id}, not {entry.logical_id}"
            )
        elif is_same_id and not is_same_serial:
            yield (
                f"logical ID {entry.logical_id} is known as {disk.label} with serial "
                f"{disk.serial}, not {entry.serial}"
            )
        elif is_same_serial:
            if disk.label != entry.label and disk.state is not DiskState.LOST:
                what = f"{entry.serial} is {disk.label}, {_IN_WORDS[disk.state]}"
                yield f"{what}. {typo}{_unless_a_typo(disk)}"
        elif label_key(disk.label) == label_key(entry.label) and disk.state not in GONE:
            other = _unless_a_typo(disk) if disk.state is DiskState.SPARE else ""
            yield (
                f"label {entry.label} belongs to the drive {disk.serial} "
                f"({disk.state.value}), not to {entry.serial}. {typo}{other}"
            )


_IN_WORDS = {
    DiskState.SPARE: "a spare",
    DiskState.ACTIVE: "in use",
    DiskState.CLOSED: "closed",
    DiskState.SHIPPED: "shipped",
    DiskState.RECEIVED: "received up north",
}


def _unless_a_typo(disk: Disk) -> str:
    """What else may be meant. Never ``lost``: a typo must not cost a disk in use its copies."""
    if disk.state is DiskState.SPARE:
        return f" A new label, or another drive? First: data_manager.py forget {disk.label}"
    if disk.state is DiskState.ACTIVE:
        return ""
    return ' Wiped? See "A drive that comes back wiped" in docs/operators.md'


def _one_begins_the_other(one: str, other: str) -> bool:
    """True if they may be one drive: a SAS drive's printed serial begins the reported one."""
    one, other = one.upper(), other.upper()
    return one.startswith(other) or other.startswith(one)


def must_know(
    config: Config, known: Sequence[Disk], changes: Changes, source: Path, db_path: Path
) -> None:
    """Raises Refused if a mounted disk was archived to, and would be added as a spare.

    Without a database that is any such disk, and everything else that an earlier archive has left:
    an empty database would hide what the disks know, also those that are in no slot now.
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
    on_purpose = "another archive on purpose? Move that away first"
    for lists in {path.parent for path in db_path.parent.glob("packing-lists/*.sha512")}:
        yield f"{lists}: lists of disks that were archived to ({on_purpose})"
    marker = config.buffer / buffer.MARKER
    if not db_path.exists() and os.path.lexists(marker):
        yield f"{marker}: this buffer belongs to an archive ({on_purpose})"


def must_be_wiped(config: Config, changes: Changes) -> None:
    """Raises Refused if a lost drive that is to come back as an empty spare is not empty."""
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


def readiness(config: Config, entries: Iterable[Entry], cron_uid: int) -> list[Readiness]:
    """Return device, mount and permissions of each drive, as the system knows them now."""
    drives = mounts.ask_drives() if config.require_mount else ()
    return [_ready(config, entry, drives, cron_uid) for entry in entries]


def _ready(
    config: Config, entry: Entry, drives: tuple[mounts.Drive, ...], cron_uid: int
) -> Readiness:
    drive = next((d for d in drives if _is_that(d, entry)), None)
    row = Readiness(
        label=entry.label,
        role=entry.role.value,
        serial=entry.serial,
        logical_id=entry.logical_id,
        device=f"/dev/{drive.kernel_name}" if drive else "-",
        mounted="no",
        writable="-",
        capacity_bytes=drive.size_bytes if drive else None,
        next_step="",
    )
    places = config.mount_points(entry.label)
    for place in places:
        if found := _look(place, config):
            root, space, unsupported = found
            step = "" if _may_write(root, cron_uid) else chown_command(place, cron_uid)
            return replace(
                row,
                mounted=str(place),
                writable="no" if step else "yes",
                capacity_bytes=space.capacity_bytes,
                next_step=f"it gets no copies: {unsupported}" if unsupported else step,
            )
    return replace(row, next_step=_how_to_mount(config, entry, places[0], drive))


def unless_gone(row: Readiness, known: Iterable[Disk]) -> Readiness:
    """A drive that is shipped or lost by the database takes no data, even if it is mounted."""
    gone = {d.logical_id: d.state.value for d in known if d.state in GONE}
    if row.logical_id not in gone:
        return row
    return replace(row, next_step=f"it is noted as {gone[row.logical_id]}: not used")


def _is_that(drive: mounts.Drive, entry: Entry) -> bool:
    known = drive.serial or drive.wwn
    return bool(known) and not drive.contradicts(entry.serial, entry.logical_id)


def _look(place: Path, config: Config) -> tuple[os.stat_result, mounts.Space, str | None] | None:
    """Return root and space of what is mounted at a place, and why no copies may go there.

    None if nothing is mounted.
    """
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(opened_place(config, place))
        except OSError:
            return None  # this user may not look at it: not ready
        if fd is None:
            return None
        mount = mounts.mount_of(fd) if config.require_mount else None  # None: a stand-in
        unsupported = None
        if mount is not None:
            unsupported = file_systems.why_unsupported(
                mount, mounts.drives_under(fd), config.accept_unidentified
            )
        return os.fstat(fd), mounts.space(fd), unsupported


def _may_write(root: os.stat_result, uid: int) -> bool:
    """True if this user may make files in a directory, by its owner and mode bits."""
    if uid == 0:
        return True
    if root.st_uid == uid:
        return root.st_mode & 0o300 == 0o300
    try:
        user = pwd.getpwuid(uid)
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:
        groups = []
    bits = 0o030 if root.st_gid in groups else 0o003
    return stat.S_IMODE(root.st_mode) & bits == bits


def _how_to_mount(config: Config, entry: Entry, place: Path, drive: mounts.Drive | None) -> str:
    quoted = shlex.quote(str(place))
    if not config.require_mount:
        return f"mkdir -p {quoted}"
    if drive is None:
        return f"insert the drive {entry.serial}"
    return f"sudo mkdir -p {quoted} && sudo mount /dev/{drive.kernel_name} {quoted}"
