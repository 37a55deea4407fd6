"""Prove that the disk at a label's place is the one in the database, and that it may be used.

It must be a real mount point, not the buffer's own file system, have the drive's serial number and
logical ID (where the system knows them) and the mark in ``bag-info.txt``, and be alone on its
physical drive. Nothing here writes to a disk.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from poledata.config import Config
from poledata.disks import bag
from poledata.errors import DiskRefused, ManifestDamaged
from poledata.models import MANIFEST, CopyTarget, Disk, DiskState, KnownFile, ReadBack, VerifiedBy
from poledata.notices.defects import caught
from poledata.system import direct_io, file_descriptors, file_systems, mounts, paths
from poledata.system.direct_io import HashingReader

_MOUNT_THERE = "Mount the drive with serial {serial} there."


@dataclass(frozen=True, slots=True)
class HeldDisk:
    """A disk whose identity is proved and whose root is held open."""

    disk: Disk
    path: Path
    root_fd: int
    drives: frozenset[str]  # every identity of the physical drives below it
    mark: bag.Mark | None  # None: a spare that was never used
    direct: bool  # direct reads of its file system are proved
    attachment: mounts.Attachment  # of its mount, when the identity was proved
    unsupported: str | None = None  # why new copies may not go there, and why none there counts

    def read_copy(self, name: str, reader: HashingReader, tick: Callable[[int], None]) -> ReadBack:
        """Read one copy back from the medium. Raises OSError."""
        parent, _, base = f"{bag.DATA}/{name}".rpartition("/")
        with paths.directory(self.root_fd, parent) as parent_fd:
            return self.read_in(parent_fd, base, reader, tick)

    def read_in(
        self, parent_fd: int, base: str, reader: HashingReader, tick: Callable[[int], None]
    ) -> ReadBack:
        """Read a file in an open directory of the disk back from the medium. Raises OSError."""
        with paths.opened_in(parent_fd, base) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe reads like an empty file
                raise OSError(errno.EISDIR, "it is not a file")
            found = direct_io.read_copy(fd, self.direct, reader, tick)
        if self.unsupported:  # the layers below may answer from a cache of their own
            found = replace(found, verified_by=VerifiedBy.CACHED)
        return found

    def answers(self) -> bool:
        """True if the disk still returns its own mark, read from the medium."""
        try:
            with paths.opened(self.root_fd, bag.MARK) as fd, closing(HashingReader()) as reader:
                direct_io.read_back(fd, self.direct, reader, lambda _: None)
        except OSError:
            return False
        return True

    def why_detached(self) -> str | None:
        """Return why this is no longer the disk that was proved, or None. Raises OSError."""
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
        """What copying needs to know of this disk."""
        return CopyTarget(self.disk.role, self.disk.label, self.root_fd, self.direct)

    def is_on_another_drive_than(self, other: HeldDisk) -> bool:
        """True if the two are physically different; stand-ins differ as directories."""
        if self.disk.stand_in and other.disk.stand_in:
            return not os.path.sameopenfile(self.root_fd, other.root_fd)
        return bool(self.drives and other.drives) and not self.drives & other.drives


# --- is it the right disk? ------------------------------------------------------------------


def prove(config: Config, disk: Disk, disks: Iterable[Disk]) -> HeldDisk:
    """Open the place of this label and prove that the disk is there, without writing.

    ``disks`` are all known disks: which of them has a drive with this serial number? The caller
    closes ``root_fd``. Raises DiskRefused.
    """
    with as_refusal(disk):
        path, root_fd = _open_place(config, disk)
        try:
            return _proved(config, disk, disks, path, root_fd)
        except BaseException:
            os.close(root_fd)
            raise


def _proved(
    config: Config, disk: Disk, disks: Iterable[Disk], path: Path, root_fd: int
) -> HeldDisk:
    identities, unsupported = frozenset[str](), None
    attachment = mounts.attachment_of(root_fd)
    if not disk.stand_in:
        _must_be_elsewhere(config, disk, path, root_fd)
        mount = mounts.mount_of(root_fd)
        if mount is None:
            raise _missing(disk, path)  # it was unmounted after its place was opened
        drives = mounts.drives_under(root_fd)
        _must_be_its_own(disk, path, mount, drives, disks)
        # Without a drive below it, the mount itself tells this disk from others.
        identities = frozenset[str]().union(*(drive.identities for drive in drives))
        identities = identities or frozenset({f"{mount.fs_type} {mount.device}"})
        unsupported = file_systems.why_unsupported(mount, drives, config.accept_unidentified)
    mark = proved_mark(disk, path, root_fd)
    direct = mark is not None and reads_directly(root_fd)
    return HeldDisk(disk, path, root_fd, identities, mark, direct, attachment, unsupported)


def mounted_at(disk: Disk, known: Iterable[KnownFile]) -> Path | None:
    """Return where the disk is mounted, also at another place: by its mark and one of the copies.

    None if it is not found.
    """
    for place, root_fd in mounts.open_file_systems():
        try:
            mark = bag.read_mark(root_fd)
            if mark and mark.is_of(disk) and any(_has(root_fd, disk, file) for file in known):
                return place
        except (OSError, ValueError):
            continue  # what is mounted there can't be identified
    return None


def _has(root_fd: int, disk: Disk, file: KnownFile) -> bool:
    """True if a copy is there as the database has it; it is not read. Raises OSError."""
    info = paths.stat(root_fd, f"{bag.DATA}/{file.name}")
    times = [copy.mtime_ns for copy in file.copies if copy.disk.id == disk.id]
    return info is not None and (info.st_size == file.size_bytes and info.st_mtime_ns in times)


def must_be_alone(held: HeldDisk, others: Iterable[HeldDisk]) -> None:
    """Raises DiskRefused if another label's disk is on the same physical drive."""
    for other in others:
        if not held.is_on_another_drive_than(other):
            raise wrong_disk(
                held.disk,
                f"it is on the same physical drive as {other.disk.label}",
                "Every label needs a drive of its own: mount another one.",
            )


@contextmanager
def opened_place(config: Config, place: Path) -> Iterator[int | None]:
    """Open what is mounted at a place (for stand-ins: the directory); None if nothing is there.

    Raises OSError.
    """
    fd = mounts.open_place(place)
    if fd is None:
        yield None
        return
    try:
        yield fd if not config.require_mount or mounts.is_mount_point(fd, place) else None
    finally:
        os.close(fd)


def _open_place(config: Config, disk: Disk) -> tuple[Path, int]:
    places = config.mount_points(disk.label)
    with ExitStack() as stack:
        opened = [(place, stack.enter_context(opened_place(config, place))) for place in places]
        there = [(place, fd) for place, fd in opened if fd is not None]
        if len(there) == 1:
            return there[0][0], os.dup(there[0][1])
    if not there:
        raise _missing(disk, places[0])
    both = " and ".join(str(place) for place, _ in there)
    raise wrong_disk(disk, f"it is at {both}", "Unmount the wrong one.")


def _missing(disk: Disk, place: Path) -> DiskRefused:
    if disk.stand_in:
        why, what_next = f"there is no directory {place}", f"mkdir -p {shlex.quote(str(place))}"
    else:
        why, what_next = f"nothing is mounted at {place}", _MOUNT_THERE.format(serial=disk.serial)
    return DiskRefused("disk-missing", disk.label, why, what_next)


def wrong_disk(disk: Disk, why: str, what_next: str) -> DiskRefused:
    """Return the refusal of what is mounted in place of a disk."""
    return DiskRefused("disk-wrong", disk.label, why, what_next)


def _must_be_elsewhere(config: Config, disk: Disk, path: Path, root_fd: int) -> None:
    """Raises DiskRefused if a part of the buffer's or database's file system is mounted here."""
    for other in (config.buffer, config.db_path.parent):
        if os.stat(other).st_dev == os.fstat(root_fd).st_dev:
            why = f"{path} is on the same file system as {other}"
            raise wrong_disk(disk, why, _MOUNT_THERE.format(serial=disk.serial))


def _must_be_its_own(
    disk: Disk,
    path: Path,
    mount: mounts.Mount,
    drives: Sequence[mounts.Drive],
    disks: Iterable[Disk],
) -> None:
    """Raises DiskRefused unless the drive below a mount is this disk's, on each path to it.

    Other devices below a mount (the SSD of a cache, a member of a RAID) only keep new copies away.
    """
    wrong = [drive for drive in drives if drive.contradicts(disk.serial, disk.logical_id)]
    if wrong and (len(wrong) == len(drives) or mounts.is_multipath(mount)):
        raise wrong_disk(
            disk,
            f"at {path} is the drive {wrong[0]}, not serial {disk.serial} ID {disk.logical_id}",
            "Mount every drive at the place of its own label.",
        )
    for drive in drives:
        others = [d for d in disks if d.id != disk.id and drive.begins_with(d.serial)]
        if drive.wwn is None and others:
            raise wrong_disk(
                disk,
                f"the drive {drive} at {path} may as well be {others[0].label} "
                f"({others[0].serial}): both printed serials are its beginning",
                "Correct the disk-map: it needs the whole serial.",
            )


def proved_mark(disk: Disk, path: Path, root_fd: int) -> bag.Mark | None:
    """Return the disk's own mark; None for a spare that may be claimed. Raises DiskRefused."""
    try:
        mark = bag.read_mark(root_fd)
    except ValueError as fault:
        raise _not_this(disk, f"{path}: {fault}") from fault
    if mark and not mark.is_of(disk):
        role = "" if mark.role is disk.role else f", role {mark.role.value}"
        why = f"the mark at {path} says {mark.label}, serial {mark.serial}, {mark.logical_id}{role}"
        raise _not_this(disk, why)
    if disk.state is not DiskState.SPARE:
        if mark is None:
            why = f"it was used before, but {path} has no mark: wiped, or another one"
            raise _not_this(disk, why)
        return mark
    if foreign := bag.foreign_entries(root_fd):
        if mark:
            why = bag.do_not_empty(mark.label, mark.serial)
            what_next = "The database does not know it: generate_db.py --from-disks"
            raise wrong_disk(disk, why, what_next)
        raise _not_this(disk, f"it should be empty, but {path} holds {', '.join(foreign[:3])}")
    return mark


def _not_this(disk: Disk, why: str) -> DiskRefused:
    return wrong_disk(
        disk,
        why,
        "Compare its serial number with the disk-map. Mount the right drive, or an empty one. Do "
        "not empty this one.",
    )


def reads_directly(root_fd: int) -> bool:
    """True if direct reads of the disk's mark come from the medium. Raises OSError."""
    with paths.opened(root_fd, bag.MARK) as fd:
        return direct_io.is_truly_direct(fd)


# --- may it be written to? ------------------------------------------------------------------


def must_be_writable(held: HeldDisk, new_copies: bool = True, by_this_user: bool = True) -> None:
    """Raises DiskRefused if no files may be put on the disk now.

    Without ``new_copies``: a disk that copies can't rely on may still be closed. Without
    ``by_this_user``: what this user may not do, the cron user may. Also raises OSError.
    """
    disk, path = held.disk, held.path
    if new_copies and held.unsupported:
        raise wrong_disk(
            disk,
            f"{held.unsupported} ({path})",
            "New copies go only to XFS or ext4 on one drive that can be identified; what is there "
            "can still be read.",
        )
    if disk.state is DiskState.ACTIVE and paths.stat(held.root_fd, bag.TAG_MANIFEST):
        raise wrong_disk(
            disk,
            f"it is closed ({path} has a {bag.TAG_MANIFEST}), which this database does not "
            "know: an older one was put back",
            "Complete it from the disks: generate_db.py --from-disks",
        )
    if held.mark and paths.stat(held.root_fd, MANIFEST) is None:
        raise _without_manifest(disk, f"there is no {path / MANIFEST}")
    if mounts.space(held.root_fd).read_only:
        raise _read_only(
            disk,
            f"{path} is mounted read-only",
            "If nobody did that on purpose, the drive is failing: look at the kernel's log.",
        )
    if by_this_user and not _may_write(held):
        how = chown_command(path, os.geteuid())
        raise _read_only(disk, f"this user may not write to {path}", how)


def chown_command(path: Path, uid: int) -> str:
    """Return the command that lets this user write to a directory and everything in it."""
    try:
        owner = f"{pwd.getpwuid(uid).pw_name}:"
    except KeyError:
        owner = str(uid)  # chown(1) takes the colon only after a name
    place = shlex.quote(str(path))
    return f"sudo chown -R {owner} {place} && sudo chmod -R u+rwX {place}"


def _may_write(held: HeldDisk) -> bool:
    own = (p for p in (bag.DATA, bag.INCOMING) if paths.stat(held.root_fd, p))
    return all(os.access(p, os.W_OK | os.X_OK, dir_fd=held.root_fd) for p in (".", *own))


def _read_only(disk: Disk, why: str, what_next: str) -> DiskRefused:
    return DiskRefused("disk-read-only", disk.label, why, what_next)


def _without_manifest(disk: Disk, why: str) -> DiskRefused:
    return wrong_disk(
        disk,
        why,
        "Its files are not harmed by that, and the database knows the SHA-512 of each: "
        f"data_manager.py verify {disk.label} reads them. It gets no more files; other disks of "
        "its role go on.",
    )


@contextmanager
def as_refusal(disk: Disk) -> Iterator[None]:
    """Turn everything that goes wrong with a disk, also a bug, into DiskRefused of this disk."""
    with caught(disk.label) as bugs:
        try:
            yield
        except ManifestDamaged as fault:
            raise _without_manifest(disk, str(fault)) from fault
        except PermissionError as fault:
            raise _read_only(
                disk,
                f"this user may not use it ({fault.filename or fault.strerror})",
                "Give the root of the disk, and all on it, to the user who runs the passes "
                "(chown).",
            ) from fault
        except OSError as fault:
            file_descriptors.raise_if_exhausted(fault)
            raise DiskRefused(
                "disk-error",
                disk.label,
                f"it does not work: {fault.strerror or fault}",
                "Look at the kernel's log; if it repeats, replace the drive.",
            ) from fault
    for why in bugs:
        raise DiskRefused("defect", disk.label, why, "Other disks go on.")
