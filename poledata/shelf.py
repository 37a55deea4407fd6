"""The disks as they are now: each is proved to be the right one before it is used.

A disk is worked with only through the descriptor of its root that is held here, so that
one which is unmounted meanwhile can never let data fall into the directory below.
"""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from poledata import bag, beneath, catalogue, db, medium, mounts
from poledata.choice import Room
from poledata.config import Config
from poledata.errors import DiskRefused, ManifestDamaged
from poledata.records import CopyTarget, Disk, DiskState, FileStat, VerifiedBy, utc

# Always kept free, so that a full disk can still be closed.
SEAL_BYTES = 1024**2
SEAL_INODES = 8


@dataclass(frozen=True, slots=True)
class ReadCopy:
    """What a disk gives back of a file."""

    sha512: str
    verified_by: VerifiedBy
    stat: FileStat


@dataclass(frozen=True, slots=True)
class HeldDisk:
    """A disk whose root is held open and whose identity is proved."""

    disk: Disk
    path: Path
    root_fd: int
    drives: frozenset[str]  # the identities of the physical drives below it
    mark: bag.Mark | None  # None: a spare that was never used
    direct: bool  # direct reads of its file system are proved

    def read_copy(
        self, name: str, reader: medium.HashingReader, tick: Callable[[int], None]
    ) -> ReadCopy:
        """One copy, read from the medium. Raises OSError."""
        with beneath.opened(self.root_fd, f"{bag.DATA}/{name}") as fd:
            info = os.fstat(fd)
            sha512, how = medium.read_back(fd, self.direct, reader, tick)
        return ReadCopy(sha512, how, FileStat.of(info))

    @property
    def target(self) -> CopyTarget:
        return CopyTarget(self.disk.role, self.disk.label, self.root_fd, self.direct)

    def is_on_another_drive_than(self, other: HeldDisk) -> bool:
        """Whether the two are physically different; stand-ins can only be other directories."""
        if self.disk.stand_in and other.disk.stand_in:
            return not os.path.sameopenfile(self.root_fd, other.root_fd)
        return bool(self.drives and other.drives) and not self.drives & other.drives


class Shelf:
    """Holds disks for one batch: each is looked at once, and let go at the end."""

    def __init__(self, config: Config, conn: db.Connection, ready: set[int]) -> None:
        self._config, self._conn = config, conn
        self._ready = ready  # disk ids that this pass has made ready for writing
        self._held: dict[int, HeldDisk] = {}
        self._refused: dict[int, DiskRefused] = {}

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *exc: object) -> None:
        for held in self._held.values():
            os.close(held.root_fd)
        self._held.clear()

    def hold(self, disk: Disk) -> HeldDisk:
        """The disk, proved to be the one the database means. Raises DiskRefused."""
        if disk.id in self._refused:
            raise self._refused[disk.id]
        if disk.id not in self._held:
            try:
                with _disk_faults(disk):
                    self._held[disk.id] = self._prove(disk)
            except DiskRefused as refusal:
                self._refused[disk.id] = refusal
                raise
        return self._held[disk.id]

    def hold_for_writing(self, disk: Disk) -> HeldDisk:
        """The same, claimed at its first use, and with earlier leftovers swept."""
        held = self.hold(disk)
        with _disk_faults(disk):
            must_be_writable(held)
            if disk.id not in self._ready:
                held = self._make_ready(held)
        return held

    def room(self, held: HeldDisk) -> Room:
        """What may still be put on a disk: free for ordinary users, less the headroom."""
        with _disk_faults(held.disk):
            space = mounts.space(held.root_fd)
            manifest = beneath.stat(held.root_fd, bag.MANIFEST)
        seal_bytes = SEAL_BYTES + (manifest.st_size if manifest else 0)
        inodes = math.inf if space.free_inodes is None else space.free_inodes - SEAL_INODES
        headroom_bytes = max(self._config.min_free_bytes, seal_bytes)
        return Room(
            held.disk,
            space.free_bytes - headroom_bytes,
            inodes,
            space.capacity_bytes - headroom_bytes,
        )

    def _prove(self, disk: Disk) -> HeldDisk:
        held = prove(self._config, disk, catalogue.disks(self._conn))
        self._must_be_alone(held)
        return held

    def _must_be_alone(self, held: HeldDisk) -> None:
        """Raises DiskRefused if another label's disk is on the same physical drive."""
        try:
            must_be_alone(held, self._held.values())
        except DiskRefused:
            os.close(held.root_fd)
            raise

    def _must_be_here_alone(self, held: HeldDisk) -> None:
        """Raises DiskRefused if a spare also stands at another label's place: whose is it?"""
        if held.disk.stand_in:
            return
        device, own = os.fstat(held.root_fd).st_dev, os.path.realpath(held.path)
        for other in catalogue.disks(self._conn):
            for place in self._config.mount_points(other.label):
                is_own = os.path.realpath(place) == own  # also where another's place is a link
                if not is_own and mounts.device_at(place) == device:
                    raise DiskRefused(
                        "disk-wrong",
                        held.disk.label,
                        f"what is mounted at {held.path} is also mounted at {place}",
                        "Unmount it where it does not belong: look at the sticker.",
                    )

    def _make_ready(self, held: HeldDisk) -> HeldDisk:
        """Claim a spare, clear what an earlier pass left unfinished, mend the manifest."""
        disk = held.disk
        if held.mark is None:
            self._must_be_here_alone(held)
            bag.claim(held.root_fd, bag.Mark.of(disk, time.time()))
            mark = _proved_mark(disk, held.path, held.root_fd)
            held = replace(held, mark=mark, direct=_reads_directly(held.root_fd))
            self._held[disk.id] = held
        for own in (bag.DATA, bag.INCOMING):  # never through a link in their place
            beneath.make_directories(held.root_fd, own)
        bag.sweep_incoming(held.root_fd)
        bag.mend_manifest(held.root_fd)
        if disk.state is DiskState.SPARE:
            with db.transaction(self._conn):
                catalogue.activate(self._conn, disk, utc(time.time()))
        self._ready.add(disk.id)
        return held


# --- the proof of identity ----------------------------------------------------------------


def prove(config: Config, disk: Disk, disks: Iterable[Disk]) -> HeldDisk:
    """Open the place of this label and prove that the disk is there, without writing.

    ``disks`` are all that are known: which of them has a drive with this serial? The caller
    closes ``root_fd``. Raises DiskRefused.
    """
    with _disk_faults(disk):
        path, root_fd = _open_place(config, disk)
        try:
            drives = frozenset[str]()
            if not disk.stand_in:
                _must_be_elsewhere(config, disk, path, root_fd)
                drives = _proved_drives(disk, path, root_fd, disks)
            mark = _proved_mark(disk, path, root_fd)
            direct = mark is not None and _reads_directly(root_fd)
        except BaseException:
            os.close(root_fd)
            raise
    return HeldDisk(disk, path, root_fd, drives, mark, direct)


def must_be_alone(held: HeldDisk, others: Iterable[HeldDisk]) -> None:
    """Raises DiskRefused if another label's disk is on the same physical drive."""
    for other in others:
        if not held.is_on_another_drive_than(other):
            raise DiskRefused(
                "disk-wrong",
                held.disk.label,
                f"it is on the same physical drive as {other.disk.label}",
                "Every label needs a drive of its own: mount another one.",
            )


def _open_place(config: Config, disk: Disk) -> tuple[Path, int]:
    places = config.mount_points(disk.label)
    with ExitStack() as stack:
        there = []
        for place in places:
            fd = _open_directory(place)
            if fd is None:
                continue
            stack.callback(os.close, fd)
            if not config.require_mount or mounts.is_mount_point(fd, place):
                there.append((place, fd))
        if len(there) == 1:
            return there[0][0], os.dup(there[0][1])
    raise _missing(disk, places[0]) if not there else _twice(disk, [place for place, _ in there])


def _open_directory(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None  # said as a missing disk


def _missing(disk: Disk, place: Path) -> DiskRefused:
    if disk.stand_in:
        return DiskRefused(
            "disk-missing",
            disk.label,
            f"there is no directory {place}",
            f"mkdir -p {shlex.quote(str(place))}",
        )
    return DiskRefused(
        "disk-missing",
        disk.label,
        f"nothing is mounted at {place}",
        f"Mount the drive with serial {disk.serial} there.",
    )


def _twice(disk: Disk, places: list[Path]) -> DiskRefused:
    both = " and ".join(map(str, places))
    return DiskRefused("disk-wrong", disk.label, f"it is at {both}", "Unmount the wrong one.")


def _must_be_elsewhere(config: Config, disk: Disk, path: Path, root_fd: int) -> None:
    """Raises DiskRefused if a part of the buffer's or database's file system is mounted here."""
    for other in (config.buffer, config.db_path.parent):
        if os.stat(other).st_dev == os.fstat(root_fd).st_dev:
            raise DiskRefused(
                "disk-wrong",
                disk.label,
                f"{path} is on the same file system as {other}",
                f"Mount the drive with serial {disk.serial} there.",
            )


def _proved_drives(disk: Disk, path: Path, root_fd: int, disks: Iterable[Disk]) -> frozenset[str]:
    """The identities of the drives below a mount, which are those of this disk."""
    drives = mounts.drives_under(root_fd)
    if not drives:
        raise DiskRefused(
            "disk-wrong", disk.label, f"what is mounted at {path} is no drive", "Unmount it."
        )
    if len(drives) == 1 and drives[0].contradicts(disk.serial, disk.logical_id):
        raise DiskRefused(
            "disk-wrong",
            disk.label,
            f"at {path} is the drive {drives[0]}, not serial {disk.serial} ID {disk.logical_id}",
            "Mount every drive at the place of its own label.",
        )
    others = [d for d in disks if d.id != disk.id and drives[0].begins_with(d.serial)]
    if len(drives) == 1 and drives[0].wwn is None and others:
        raise DiskRefused(
            "disk-wrong",
            disk.label,
            f"the drive {drives[0]} at {path} may as well be {others[0].label} "
            f"({others[0].serial}): both printed serials are its beginning",
            "Correct the disk-map: it needs the whole serial.",
        )
    return frozenset(drive.identity for drive in drives)


def _proved_mark(disk: Disk, path: Path, root_fd: int) -> bag.Mark | None:
    """The disk's own mark, or None for a spare that may be claimed."""
    try:
        mark = bag.read_mark(root_fd)
    except ValueError as fault:
        raise _not_this(disk, f"{path}: {fault}") from fault
    if mark and not mark.is_of(disk):
        role = "" if mark.role is disk.role else f", role {mark.role.value}"
        raise _not_this(
            disk,
            f"the mark at {path} says {mark.label}, serial {mark.serial}, {mark.logical_id}{role}",
        )
    if disk.state is not DiskState.SPARE:
        if mark is None:
            raise _not_this(
                disk, f"it was used before, but {path} has no mark: wiped, or another one"
            )
        return mark
    if foreign := bag.foreign_entries(root_fd):
        raise _not_this(
            disk, f"it is new to this database, but {path} holds {', '.join(foreign[:3])}"
        )
    return mark


def _not_this(disk: Disk, why: str) -> DiskRefused:
    return DiskRefused(
        "disk-wrong",
        disk.label,
        why,
        "Look at the sticker; mount the right drive, or an empty one.",
    )


def _reads_directly(root_fd: int) -> bool:
    with beneath.opened(root_fd, bag.MARK) as fd:
        return medium.is_truly_direct(fd)


def _must_be_open(held: HeldDisk) -> None:
    """Raises DiskRefused for the sealed bag of a disk in use: the database is older than it."""
    is_in_use = held.disk.state is DiskState.ACTIVE
    if is_in_use and beneath.stat(held.root_fd, bag.TAG_MANIFEST):
        raise DiskRefused(
            "disk-wrong",
            held.disk.label,
            f"it is closed ({held.path} has a {bag.TAG_MANIFEST}), which this database does not "
            "know: an older one was put back",
            "Complete it from the disks: generate_db.py --from-disks",
        )


def must_be_writable(held: HeldDisk) -> None:
    """Raises DiskRefused where this user can't, or must not, put files on the disk."""
    _must_be_open(held)
    if mounts.space(held.root_fd).read_only:
        raise DiskRefused(
            "disk-read-only",
            held.disk.label,
            f"{held.path} is mounted read-only",
            "If nobody did that on purpose, the drive is failing: look at the kernel's log.",
        )
    places = (".", *(p for p in (bag.DATA, bag.INCOMING) if beneath.stat(held.root_fd, p)))
    if not all(os.access(p, os.W_OK | os.X_OK, dir_fd=held.root_fd) for p in places):
        raise DiskRefused(
            "disk-read-only",
            held.disk.label,
            f"this user may not write to {held.path}",
            mounts.how_to_give(held.path, os.geteuid()),
        )


@contextmanager
def _disk_faults(disk: Disk) -> Iterator[None]:
    try:
        yield
    except ManifestDamaged as fault:
        raise DiskRefused(
            "disk-wrong",
            disk.label,
            str(fault),
            f"Read its files (data_manager.py verify {disk.label}) and mend that file by hand.",
        ) from fault
    except PermissionError as fault:
        raise DiskRefused(
            "disk-read-only",
            disk.label,
            f"this user may not use it ({fault.filename or fault.strerror})",
            "Give the root of the disk, and all on it, to the user who runs the passes (chown).",
        ) from fault
    except OSError as fault:
        raise DiskRefused(
            "disk-error",
            disk.label,
            f"it does not work: {fault.strerror or fault}",
            "Look at the kernel's log; if it repeats, replace the drive.",
        ) from fault
