"""Which archive disks are mounted, by their own marks, and what of that a database does not know.

Nothing is written here, neither on a disk nor in the database.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from poledata.config import Config
from poledata.disks import bag
from poledata.disks.identity import HeldDisk, must_be_alone, prove
from poledata.disks.selection import label_key
from poledata.errors import DISK_ERRNOS, DiskRefused, UsageFault
from poledata.formatting import seconds, utc
from poledata.models import GONE, Disk, DiskState, Role
from poledata.settings import LABEL, fixed_part
from poledata.system import mounts, paths


@dataclass(frozen=True, slots=True)
class Marked:
    """A mounted disk that says who it is, since when, and until when it was filled."""

    path: Path
    mark: bag.Mark
    is_sealed: bool
    last_used_at: str


@dataclass(frozen=True, slots=True)
class Used:
    """A mounted disk that was archived to; ``mark``: None if it is damaged or gone."""

    path: Path
    mark: bag.Mark | None

    @property
    def why_not_emptied(self) -> str:
        """What a person must know before anything is done to this disk."""
        if self.mark is None:
            return f"{self.path}: an archive disk whose mark is damaged or gone: do not empty it"
        return f"{self.path}: {bag.do_not_empty(self.mark.label, self.mark.serial)}"


@dataclass(frozen=True, slots=True)
class NotUsed:
    """A place where something is mounted that is not taken for an archive disk, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Find:
    """A disk that is used: as the database has it (None: not at all), as it is, and held."""

    known: Disk | None
    held: HeldDisk
    marked: Marked


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is there; ``empty`` are labels where an empty disk without a mark is mounted."""

    finds: tuple[Find, ...]
    not_used: tuple[NotUsed, ...]
    empty: tuple[str, ...]
    absent: tuple[Disk, ...]  # used before and at the station, but not mounted


@contextmanager
def taken(config: Config, known: Sequence[Disk]) -> Iterator[Inventory]:
    """Look at every place of ``DiskMountPoints``; disks that are proved are held meanwhile."""
    marked, not_used, empty = look(config)
    sound = []
    for each in marked:
        why = why_not(each, marked, known, config)
        not_used += [NotUsed(str(each.path), why)] if why else []
        sound += [] if why else [each]
    with ExitStack() as stack:
        finds, refused = _proved(config, known, sound, stack)
        here = {find.held.disk.id for find in finds}
        used_before = (DiskState.ACTIVE, DiskState.CLOSED)
        absent = tuple(d for d in known if d.state in used_before and d.id not in here)
        yield Inventory(finds, (*not_used, *refused), tuple(empty), absent)


# --- looking ------------------------------------------------------------------------------


def look(config: Config) -> tuple[list[Marked], list[NotUsed], list[str]]:
    """What is mounted: disks with a mark, what can't be used, labels of empty disks."""
    marked: list[Marked] = []
    not_used: list[NotUsed] = []
    empty: list[str] = []
    for label in labels(config):
        for place in config.mount_points(label):
            try:
                found = _look_at(config, place)
            except (OSError, ValueError) as fault:
                not_used.append(NotUsed(str(place), f"it can't be read: {fault}"))
                continue
            if isinstance(found, Marked):
                marked.append(found)
            elif isinstance(found, NotUsed):
                not_used.append(found)
            elif found:
                empty.append(label)
    return marked, not_used, empty


def used_before(config: Config) -> list[Used]:
    """Mounted disks that were archived to, also those whose mark is damaged or gone."""
    found = []
    for label in labels(config):
        for place in config.mount_points(label):
            with contextlib.suppress(OSError):  # what can't be read is judged when it is used
                found += [used] if (used := _used_at(config, place)) else []
    return found


def _used_at(config: Config, place: Path) -> Used | None:
    root_fd = mounts.open_place(place)
    if root_fd is None:
        return None
    try:
        if config.require_mount and not mounts.is_mount_point(root_fd, place):
            return None
        with contextlib.suppress(ValueError):
            if mark := bag.read_mark(root_fd):
                return Used(place, mark)
        return Used(place, None) if _looks_like_ours(root_fd) else None
    except OSError as fault:
        if fault.errno not in DISK_ERRNOS:
            raise
        return Used(place, None)  # it fails, and nobody knows what is on it
    finally:
        os.close(root_fd)


def _looks_like_ours(root_fd: int) -> bool:
    """Of a disk whose mark is damaged or gone. A claim that was cut short left it empty."""
    with contextlib.suppress(FileNotFoundError):
        if b"Pole-" in bag.read_small(root_fd, bag.MARK):
            return True
    return bool({bag.MANIFEST, bag.CATALOGUE} & set(bag.foreign_entries(root_fd)))


def labels(config: Config) -> list[str]:
    """Every label for which a place exists, in the order of a disk-map."""
    found = set()
    for pattern in config.mount_patterns:
        fixed = fixed_part(pattern)
        part = Path(pattern).parts[len(fixed.parts)]
        shape = re.escape(part).replace(re.escape(LABEL), "([A-Za-z]+[0-9]+)")
        try:
            names = os.listdir(fixed)
        except OSError as fault:
            raise UsageFault(
                f"{fixed} can't be listed ({fault.strerror}). Nothing was changed."
            ) from fault
        matches = (re.fullmatch(shape, name) for name in names)
        found |= {match[1] for match in matches if match and config.role_of(match[1])}
    return sorted(found, key=lambda label: (config.role_of(label) is Role.COPY, label_key(label)))


def _look_at(config: Config, place: Path) -> Marked | NotUsed | bool:
    """True: an empty disk; False: nothing is mounted. Raises OSError, ValueError."""
    root_fd = mounts.open_place(place)
    if root_fd is None:
        return False
    try:
        if config.require_mount and not mounts.is_mount_point(root_fd, place):
            return False
        mark = bag.read_mark(root_fd)
        if mark is None:
            return _without_mark(root_fd, place)
        return _marked(root_fd, place, mark)
    finally:
        os.close(root_fd)


def _without_mark(root_fd: int, place: Path) -> NotUsed | bool:
    if foreign := bag.foreign_entries(root_fd):
        return NotUsed(str(place), f"it has no mark, but holds {', '.join(foreign[:3])}")
    return True


def _marked(root_fd: int, place: Path, mark: bag.Mark) -> Marked:
    seal = paths.stat(root_fd, bag.TAG_MANIFEST)
    manifest = paths.stat(root_fd, bag.MANIFEST)
    if manifest is None:
        raise ValueError(f"it has no {bag.MANIFEST}")
    for at in (mark.opened_at, mark.closed_at or mark.opened_at):
        seconds(at)  # raises ValueError
    last_used_at = (seal and mark.closed_at) or utc(manifest.st_mtime)
    return Marked(place, mark, seal is not None, last_used_at)


# --- judging ------------------------------------------------------------------------------


def why_not(
    one: Marked, all_marked: Sequence[Marked], known: Sequence[Disk], config: Config
) -> str | None:
    """Why a disk is not used, though it has a mark; None if it is. Pure."""
    mark = one.mark
    if one.path not in config.mount_points(mark.label):
        return f"its mark says {mark.label}: mount it at the place of that label"
    if config.role_of(mark.label) is not mark.role:
        return f"its mark calls {mark.label} a {mark.role.value} disk; the configuration does not"
    if mark.stand_in is config.require_mount:
        kind = "a stand-in" if mark.stand_in else "a drive"
        return f"its mark is of {kind}, which this configuration is not for"
    if twins := _twins(one, all_marked):
        return f"its mark is also at {', '.join(twins)}: which is the right one?"
    return _contradiction(one, known)


def _twins(one: Marked, all_marked: Sequence[Marked]) -> list[str]:
    return [
        str(other.path)
        for other in all_marked
        if other is not one and _is_one_drive(one.mark, other.mark)
    ]


def _is_one_drive(mark: bag.Mark, other: bag.Mark | Disk) -> bool:
    is_same_serial = mark.serial.upper() == other.serial.upper()
    return is_same_serial or mark.logical_id == other.logical_id


def _contradiction(one: Marked, known: Sequence[Disk]) -> str | None:
    mark = one.mark
    row = known_as(mark, known)
    if row is None:
        for disk in known:
            if disk.label == mark.label and disk.state not in GONE:
                return (
                    f"in the database {mark.label} is the drive {disk.serial} "
                    f"({disk.state.value}), not {mark.serial}. {_how_to_free(disk)}"
                )
            if _is_one_drive(mark, disk):
                return f"the database has {disk.serial} with logical ID {disk.logical_id}"
    elif row.state is DiskState.LOST:
        return (
            f"{row.label} is mounted, but the database has it as lost. Not lost? First: "
            f"data_manager.py lost --undo {row.serial}; then this again"
        )
    elif (row.label, row.role) != (mark.label, mark.role):
        return f"the database has its drive {mark.serial} as {row.label} ({row.state.value})"
    elif row.state in (DiskState.CLOSED, DiskState.SHIPPED) and not one.is_sealed:
        return f"it is {row.state.value} in the database, but its bag is not closed"
    return None


def _how_to_free(disk: Disk) -> str:
    """How the label of another drive is given to the one that is here; no copy is given up."""
    command = "forget" if disk.state is DiskState.SPARE else "ship"
    when = "It was never used:" if command == "forget" else "If that one has left:"
    return f"{when} data_manager.py {command} {disk.serial}; then this again"


def known_as(mark: bag.Mark, known: Iterable[Disk]) -> Disk | None:
    """The row of the drive that has this mark."""
    same = (d for d in known if d.serial.upper() == mark.serial.upper())
    return next((d for d in same if d.logical_id == mark.logical_id), None)


# --- proving ------------------------------------------------------------------------------


def _proved(
    config: Config, known: Sequence[Disk], sound: Sequence[Marked], stack: ExitStack
) -> tuple[tuple[Find, ...], tuple[NotUsed, ...]]:
    """Those that are what they say, held; as for a pass, the drive must not contradict."""
    expected = {one.path: _expected(one, known, -n) for n, one in enumerate(sound, 1)}
    everybody = {disk.id: disk for disk in (*known, *expected.values())}
    finds: list[Find] = []
    refused = []
    for one in sound:
        disk = expected[one.path]
        try:
            held = prove(config, disk, everybody.values())
            stack.callback(os.close, held.root_fd)
            must_be_alone(held, [find.held for find in finds])
            finds.append(Find(known_as(one.mark, known), held, one))
        except DiskRefused as refusal:
            refused.append(NotUsed(str(one.path), f"{refusal.why}. {refusal.what_next}"))
    return tuple(finds), tuple(refused)


def _expected(one: Marked, known: Sequence[Disk], number: int) -> Disk:
    """The disk as it should be by its mark; one that the database does not know gets a number."""
    mark, state = one.mark, DiskState.CLOSED if one.is_sealed else DiskState.ACTIVE
    row = known_as(mark, known)
    if row:
        return replace(row, state=DiskState.SHIPPED if row.state is DiskState.SHIPPED else state)
    return Disk(
        id=number,
        label=mark.label,
        role=mark.role,
        serial=mark.serial,
        logical_id=mark.logical_id,
        state=state,
        held_by=None,
        held_reason=None,
        stand_in=mark.stand_in,
        capacity_bytes=None,
        used_bytes=None,
        free_bytes=None,
        first_used_at=mark.opened_at,
        last_used_at=one.last_used_at,
    )
