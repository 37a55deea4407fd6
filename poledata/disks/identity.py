"""The proof that the disk at a label's place is the one that the database means.

A real mount point, not the buffer's own file system; the drive's serial and logical ID, where
the system knows them; the mark in ``bag-info.txt``; alone on its physical drive. Nothing here
writes to a disk.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from poledata.config import Config
from poledata.disks import bag
from poledata.errors import DiskRefused, ManifestDamaged
from poledata.models import CopyTarget, Disk, DiskState, KnownFile, ReadBack, VerifiedBy
from poledata.notices.isolation import caught
from poledata.system import direct_io, file_descriptors, file_systems, mounts, ownership, paths
from poledata.system.direct_io import HashingReader


@dataclass(frozen=True, slots=True)
class HeldDisk:
    """A disk whose root is held open and whose identity is proved."""

    disk: Disk
    path: Path
    root_fd: int
    drives: frozenset[str]  # every identity of the physical drives below it
    mark: bag.Mark | None  # None: a spare that was never used
    direct: bool  # direct reads of its file system are proved
    attachment: mounts.Attachment  # of its mount, when the identity was proved
    unsupported: str | None = None  # why new copies may not go there, and why none there counts

    def read_copy(self, name: str, reader: HashingReader, tick: Callable[[int], None]) -> ReadBack:
        """One copy, read from the medium. Raises OSError."""
        parent, _, base = f"{bag.DATA}/{name}".rpartition("/")
        with paths.directory(self.root_fd, parent) as parent_fd:
            return self.read_in(parent_fd, base, reader, tick)

    def read_in(
        self,
        parent_fd: int,
        base: str,
        reader: HashingReader,
        tick: Callable[[int], None],
    ) -> ReadBack:
        """The same, of a file in this directory of the disk. Raises OSError."""
        with paths.opened_in(parent_fd, base) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe reads as an empty file would
                raise OSError(errno.EISDIR, "it is not a file")
            found = direct_io.read_copy(fd, self.direct, reader, tick)
        if self.unsupported:  # what is below may answer from a memory of its own
            found = replace(found, verified_by=VerifiedBy.CACHED)
        return found

    def answers(self) -> bool:
        """Whether the disk still gives back its own mark; what memory has of it proves nothing."""
        try:
            with paths.opened(self.root_fd, bag.MARK) as fd, closing(HashingReader()) as reader:
                direct_io.read_back(fd, self.direct, reader, lambda _: None)
        except OSError:
            return False
        return True

    def why_detached(self) -> str | None:
        """Why this is no longer the disk that was proved; None if it still is. Raises OSError."""
        now = mounts.attachment_of(self.root_fd)
        if now.mount_id is None:
            return "it was unmounted"
        if now.drives == self.attachment.drives:
            return None
        if {name for name, _ in now.drives} == {name for name, _ in self.attachment.drives}:
            return "its drive was unplugged and plugged in again"
        return "its drive was unplugged"

    @property
    def target(self) -> CopyTarget:
        return CopyTarget(self.disk.role, self.disk.label, self.root_fd, self.direct)

    def is_on_another_drive_than(self, other: HeldDisk) -> bool:
        """Whether the two are physically different; stand-ins can only be other directories."""
        if self.disk.stand_in and other.disk.stand_in:
            return not os.path.sameopenfile(self.root_fd, other.root_fd)
        return bool(self.drives and other.drives) and not self.drives & other.drives


def prove(config: Config, disk: Disk, disks: Iterable[Disk]) -> HeldDisk:
    """Open the place of this label and prove that the disk is there, without writing.

    ``disks`` are all that are known: which of them has a drive with this serial? The caller
    closes ``root_fd``. Raises DiskRefused.
    """
    with disk_faults(disk):
        path, root_fd = _open_place(config, disk)
        try:
            identities, unsupported = frozenset[str](), None
            attachment = mounts.attachment_of(root_fd)
            if not disk.stand_in:
                _must_be_elsewhere(config, disk, path, root_fd)
                mount = _mount(disk, path, root_fd)
                drives = mounts.drives_under(root_fd)
                _must_be_its_own(disk, path, mount, drives, disks)
                identities = _identities(mount, drives)
                unsupported = file_systems.why_unsupported(
                    mount, drives, config.accept_unidentified
                )
            mark = proved_mark(disk, path, root_fd)
            direct = mark is not None and reads_directly(root_fd)
        except BaseException:
            os.close(root_fd)
            raise
    return HeldDisk(disk, path, root_fd, identities, mark, direct, attachment, unsupported)


def mounted_at(disk: Disk, known: Iterable[KnownFile]) -> Path | None:
    """Where the disk is mounted, be it not its own place: by its mark, and one of these copies."""
    for place, root_fd in mounts.open_file_systems():
        try:
            mark = bag.read_mark(root_fd)
            if mark and mark.is_of(disk) and any(_has(root_fd, disk, file) for file in known):
                return place
        except (OSError, ValueError):
            continue  # of what is there nothing is known
    return None


def _has(root_fd: int, disk: Disk, file: KnownFile) -> bool:
    """Whether a copy is there as the database has it; it is not read. Raises OSError."""
    info = paths.stat(root_fd, f"{bag.DATA}/{file.name}")
    times = [copy.mtime_ns for copy in file.copies if copy.disk.id == disk.id]
    return info is not None and (info.st_size == file.size_bytes and info.st_mtime_ns in times)


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
            fd = mounts.open_place(place)
            if fd is None:
                continue
            stack.callback(os.close, fd)
            if not config.require_mount or mounts.is_mount_point(fd, place):
                there.append((place, fd))
        if len(there) == 1:
            return there[0][0], os.dup(there[0][1])
    raise _missing(disk, places[0]) if not there else _twice(disk, [place for place, _ in there])


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


def _mount(disk: Disk, path: Path, root_fd: int) -> mounts.Mount:
    mount = mounts.mount_of(root_fd)
    if mount is None:
        raise _missing(disk, path)  # it was unmounted since its place was opened
    return mount


def _must_be_its_own(
    disk: Disk,
    path: Path,
    mount: mounts.Mount,
    drives: Sequence[mounts.Drive],
    disks: Iterable[Disk],
) -> None:
    """Raises DiskRefused unless the drive below a mount is this disk's, on each path to it.

    What else a mount is on (the SSD of a cache, a member of a RAID) only keeps new copies away.
    """
    wrong = [drive for drive in drives if drive.contradicts(disk.serial, disk.logical_id)]
    if wrong and (len(wrong) == len(drives) or mounts.is_multipath(mount)):
        raise DiskRefused(
            "disk-wrong",
            disk.label,
            f"at {path} is the drive {wrong[0]}, not serial {disk.serial} ID {disk.logical_id}",
            "Mount every drive at the place of its own label.",
        )
    for drive in drives:
        others = [d for d in disks if d.id != disk.id and drive.begins_with(d.serial)]
        if drive.wwn is None and others:
            raise DiskRefused(
                "disk-wrong",
                disk.label,
                f"the drive {drive} at {path} may as well be {others[0].label} "
                f"({others[0].serial}): both printed serials are its beginning",
                "Correct the disk-map: it needs the whole serial.",
            )


def _identities(mount: mounts.Mount, drives: Iterable[mounts.Drive]) -> frozenset[str]:
    """What tells this disk from others: of what is on no drive, the mount itself."""
    found = frozenset[str]().union(*(drive.identities for drive in drives))
    return found or frozenset({f"{mount.fs_type} {mount.device}"})


def proved_mark(disk: Disk, path: Path, root_fd: int) -> bag.Mark | None:
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
        if mark:
            raise DiskRefused(
                "disk-wrong",
                disk.label,
                bag.do_not_empty(mark.label, mark.serial),
                "The database does not know it: generate_db.py --from-disks",
            )
        raise _not_this(disk, f"it should be empty, but {path} holds {', '.join(foreign[:3])}")
    return mark


def _not_this(disk: Disk, why: str) -> DiskRefused:
    return DiskRefused(
        "disk-wrong",
        disk.label,
        why,
        "Compare its serial number with the disk-map. Mount the right drive, or an empty one. Do "
        "not empty this one.",
    )


def reads_directly(root_fd: int) -> bool:
    with paths.opened(root_fd, bag.MARK) as fd:
        return direct_io.is_truly_direct(fd)


def _must_be_open(held: HeldDisk) -> None:
    """Raises DiskRefused for the sealed bag of a disk in use: the database is older than it."""
    is_in_use = held.disk.state is DiskState.ACTIVE
    if is_in_use and paths.stat(held.root_fd, bag.TAG_MANIFEST):
        raise DiskRefused(
            "disk-wrong",
            held.disk.label,
            f"it is closed ({held.path} has a {bag.TAG_MANIFEST}), which this database does not "
            "know: an older one was put back",
            "Complete it from the disks: generate_db.py --from-disks",
        )


def _without_manifest(disk: Disk, why: str) -> DiskRefused:
    return DiskRefused(
        "disk-wrong",
        disk.label,
        why,
        "Its files are not harmed by that, and the database knows the SHA-512 of each: "
        f"data_manager.py verify {disk.label} reads them. It gets no more files; other disks of "
        "its role go on.",
    )


def must_be_writable(held: HeldDisk) -> None:
    """Raises DiskRefused where this user can't, or must not, put files on the disk."""
    must_take_files(held)
    places = (".", *(p for p in (bag.DATA, bag.INCOMING) if paths.stat(held.root_fd, p)))
    if not all(os.access(p, os.W_OK | os.X_OK, dir_fd=held.root_fd) for p in places):
        raise DiskRefused(
            "disk-read-only",
            held.disk.label,
            f"this user may not write to {held.path}",
            ownership.chown_command(held.path, os.geteuid()),
        )


def must_take_files(held: HeldDisk) -> None:
    """Raises DiskRefused where nobody can, or must, put files on the disk."""
    _must_be_open(held)
    if held.mark and paths.stat(held.root_fd, bag.MANIFEST) is None:
        raise _without_manifest(held.disk, f"there is no {held.path / bag.MANIFEST}")
    if mounts.space(held.root_fd).read_only:
        raise DiskRefused(
            "disk-read-only",
            held.disk.label,
            f"{held.path} is mounted read-only",
            "If nobody did that on purpose, the drive is failing: look at the kernel's log.",
        )


def must_take_copies(held: HeldDisk) -> None:
    """Raises DiskRefused where no new copies may go: not writable, or not to be relied on."""
    must_be_supported(held)
    must_be_writable(held)


def must_be_supported(held: HeldDisk) -> None:
    """Raises DiskRefused where a copy is not to be relied on."""
    if held.unsupported:
        raise DiskRefused(
            "disk-wrong",
            held.disk.label,
            f"{held.unsupported} ({held.path})",
            "New copies go only to XFS or ext4 on one drive that can be identified; what is there "
            "can still be read.",
        )


@contextmanager
def disk_faults(disk: Disk) -> Iterator[None]:
    """Whatever goes wrong with a disk, a bug of ours too, is a refusal of this disk alone."""
    with caught(disk.label) as bugs, _system_faults(disk):
        yield
    for why in bugs:
        raise DiskRefused("defect", disk.label, why, "Other disks go on.")


@contextmanager
def _system_faults(disk: Disk) -> Iterator[None]:
    try:
        yield
    except ManifestDamaged as fault:
        raise _without_manifest(disk, str(fault)) from fault
    except PermissionError as fault:
        raise DiskRefused(
            "disk-read-only",
            disk.label,
            f"this user may not use it ({fault.filename or fault.strerror})",
            "Give the root of the disk, and all on it, to the user who runs the passes (chown).",
        ) from fault
    except OSError as fault:
        file_descriptors.raise_if_exhausted(fault)
        raise DiskRefused(
            "disk-error",
            disk.label,
            f"it does not work: {fault.strerror or fault}",
            "Look at the kernel's log; if it repeats, replace the drive.",
        ) from fault
