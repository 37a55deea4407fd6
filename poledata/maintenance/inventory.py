"""Which archive disks are mounted, by their own marks, and how they fit a database.

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
from poledata.disks.identity import HeldDisk, must_be_alone, opened_place, prove
from poledata.errors import DISK_ERRNOS, DiskRefused, UsageFault
from poledata.formatting import label_key, seconds, utc
from poledata.models import AWAY, GONE, MANIFEST, Disk, DiskState, Role
from poledata.settings import LABEL, fixed_part
from poledata.system import paths


@dataclass(frozen=True, slots=True)
class Marked:
    """A mounted disk with a mark, and when files were last put on it."""

    path: Path
    mark: bag.Mark
    is_sealed: bool
    last_used_at: str


@dataclass(frozen=True, slots=True)
class NotUsed:
    """A place where something is mounted that is not used as an archive disk, and why."""

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
def take_inventory(config: Config, known: Sequence[Disk]) -> Iterator[Inventory]:
    """Look at every place of ``DiskMountPoints``; hold the proved disks meanwhile."""
    found = list(_look(config))
    marked = [each for each in found if isinstance(each, Marked)]
    not_used = [each for each in found if isinstance(each, NotUsed)]
    whys = {each.path: _why_not(each, marked, known, config) for each in marked}
    not_used += [NotUsed(str(path), why) for path, why in whys.items() if why]
    sound = [each for each in marked if not whys[each.path]]
    with ExitStack() as stack:
        finds, refused = _proved(config, known, sound, stack)
        here = {find.held.disk.id for find in finds}
        used_before = (DiskState.ACTIVE, DiskState.CLOSED)
        absent = tuple(d for d in known if d.state in used_before and d.id not in here)
        empty = tuple(each for each in found if isinstance(each, str))
        yield Inventory(tuple(finds), (*not_used, *refused), empty, absent)


# --- what is mounted ----------------------------------------------------------------------


def _places(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield each label and place that exists, in the order of a disk-map. Raises UsageFault."""
    labels = set()
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
        labels |= {match[1] for match in matches if match and config.role_of(match[1])}
    for label in sorted(labels, key=lambda one: (config.role_of(one) is Role.COPY, label_key(one))):
        for place in config.mount_points(label):
            yield label, place


def _look(config: Config) -> Iterator[Marked | NotUsed | str]:
    """Yield disks with a mark, what can't be used, and labels of empty disks."""
    for label, place in _places(config):
        try:
            with opened_place(config, place) as root_fd:
                if root_fd is not None:
                    yield _look_at(root_fd, place) or label
        except (OSError, ValueError) as fault:
            yield NotUsed(str(place), f"it can't be read: {fault}")


def _look_at(root_fd: int, place: Path) -> Marked | NotUsed | None:
    """None for an empty disk. Raises OSError, ValueError."""
    mark = bag.read_mark(root_fd)
    if mark is None:
        foreign = ", ".join(bag.foreign_entries(root_fd)[:3])
        return NotUsed(str(place), f"it has no mark, but holds {foreign}") if foreign else None
    manifest, seal = paths.stat(root_fd, MANIFEST), paths.stat(root_fd, bag.TAG_MANIFEST)
    if manifest is None:
        raise ValueError(f"it has no {MANIFEST}")
    for at in (mark.opened_at, mark.closed_at or mark.opened_at):
        seconds(at)  # raises ValueError
    last_used_at = (seal and mark.closed_at) or utc(manifest.st_mtime)
    return Marked(place, mark, seal is not None, last_used_at)


# --- what must not be emptied -------------------------------------------------------------


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


def used_before(config: Config) -> list[Used]:
    """Return mounted disks that were archived to, also those whose mark is damaged or gone."""
    found = []
    for _, place in _places(config):
        # What can't be read is judged when it is used.
        with contextlib.suppress(OSError), opened_place(config, place) as root_fd:
            if root_fd is not None and (used := _used_at(root_fd, place)):
                found.append(used)
    return found


def _used_at(root_fd: int, place: Path) -> Used | None:
    try:
        with contextlib.suppress(ValueError):
            if mark := bag.read_mark(root_fd):
                return Used(place, mark)
        return Used(place, None) if _looks_like_ours(root_fd) else None
    except OSError as fault:
        if fault.errno not in DISK_ERRNOS:
            raise
        return Used(place, None)  # it fails, and nobody knows what is on it


def _looks_like_ours(root_fd: int) -> bool:
    """True for an archive disk whose mark is damaged or gone; a claim cut short left it empty."""
    with contextlib.suppress(FileNotFoundError):
        if b"Pole-" in bag.read_small(root_fd, bag.MARK):
            return True
    return bool({MANIFEST, bag.CATALOGUE} & set(bag.foreign_entries(root_fd)))


# --- how it fits the database -------------------------------------------------------------


def _why_not(
    one: Marked, all_marked: Sequence[Marked], known: Sequence[Disk], config: Config
) -> str | None:
    """Return why a disk with a mark is not used; None if it is. Pure."""
    mark = one.mark
    if one.path not in config.mount_points(mark.label):
        return f"its mark says {mark.label}: mount it at the place of that label"
    if config.role_of(mark.label) is not mark.role:
        return f"its mark calls {mark.label} a {mark.role.value} disk; the configuration does not"
    if mark.stand_in is config.require_mount:
        kind = "a stand-in" if mark.stand_in else "a drive"
        return f"its mark is of {kind}, which this configuration is not for"
    others = [other for other in all_marked if other is not one]
    if twins := [str(other.path) for other in others if _is_one_drive(mark, other.mark)]:
        return f"its mark is also at {', '.join(twins)}: which is the right one?"
    return _contradiction(one, known)


def _is_one_drive(mark: bag.Mark, other: bag.Mark | Disk) -> bool:
    is_same_serial = mark.serial.upper() == other.serial.upper()
    return is_same_serial or mark.logical_id == other.logical_id


def _contradiction(one: Marked, known: Sequence[Disk]) -> str | None:
    mark = one.mark
    row = _known_as(mark, known)
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
    elif row.state in (DiskState.CLOSED, *AWAY) and not one.is_sealed:
        return f"it is {row.state.value} in the database, but its bag is not closed"
    return None


def _how_to_free(disk: Disk) -> str:
    """How the drive that is here gets the label of another one; no copy is given up."""
    command = "forget" if disk.state is DiskState.SPARE else "ship"
    when = "It was never used:" if command == "forget" else "If that one has left:"
    return f"{when} data_manager.py {command} {disk.serial}; then this again"


def _known_as(mark: bag.Mark, known: Iterable[Disk]) -> Disk | None:
    """Return the row of the drive that has this mark."""
    same = (d for d in known if d.serial.upper() == mark.serial.upper())
    return next((d for d in same if d.logical_id == mark.logical_id), None)


def _proved(
    config: Config, known: Sequence[Disk], sound: Sequence[Marked], stack: ExitStack
) -> tuple[list[Find], list[NotUsed]]:
    """Hold those that are what they say; as in a pass, the drive must not contradict."""
    expected = {one.path: _expected(one, known, -n) for n, one in enumerate(sound, 1)}
    everybody = {disk.id: disk for disk in (*known, *expected.values())}
    finds: list[Find] = []
    refused = []
    for one in sound:
        try:
            held = prove(config, expected[one.path], everybody.values())
            stack.callback(os.close, held.root_fd)
            must_be_alone(held, [find.held for find in finds])
            finds.append(Find(_known_as(one.mark, known), held, one))
        except DiskRefused as refusal:
            refused.append(NotUsed(str(one.path), f"{refusal.why}. {refusal.what_next}"))
    return finds, refused


def _expected(one: Marked, known: Sequence[Disk], number: int) -> Disk:
    """Return the disk as its mark says; one that the database does not know gets a number."""
    mark, state = one.mark, DiskState.CLOSED if one.is_sealed else DiskState.ACTIVE
    if row := _known_as(mark, known):
        return replace(row, state=row.state if row.state in AWAY else state)
    return Disk(
        number,
        mark.label,
        mark.role,
        mark.serial,
        mark.logical_id,
        state,
        stand_in=mark.stand_in,
        first_used_at=mark.opened_at,
        last_used_at=one.last_used_at,
    )
