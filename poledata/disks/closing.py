"""Close a disk: the database, the manifest and data/ must agree, then its bag is sealed.

Nothing alters a closed bag. Every step may be repeated: a close that was interrupted is finished by
doing it once more. The tag manifest comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disks import bag, catalog_copy, manifest
from poledata.disks.identity import HeldDisk, must_be_writable
from poledata.disks.lifecycle import must_be, refused, the_disk
from poledata.disks.mounted_disks import MountedDisks, seal_bytes
from poledata.errors import FULL_ERRNOS, CannotClose, ManifestDamaged
from poledata.formatting import counted, seconds, shown, size_text, utc_now, why_not_carried
from poledata.models import (
    AWAY,
    MANIFEST,
    CopyOnDisk,
    CopyState,
    Disk,
    DiskState,
    ManifestLine,
    Written,
)
from poledata.notices.kinds import DISK_KINDS
from poledata.system import direct_io, mounts, paths

log = logging.getLogger(__name__)


def close(context: Context, disk: Disk, reason: str) -> str:
    """Seal a disk in use: nothing is written to it any more. Return what a person must know.

    Raises Refused, DiskRefused, CannotClose (then the disk stays in use as it was), OSError.
    """
    must_be(disk, "closed", DiskState.ACTIVE)
    if disk.held_by:
        raise refused(
            f"{disk.label} is held ({disk.held_reason}): nothing is written to it",
            f"First: data_manager.py unhold {disk.label}",
        )
    with MountedDisks(context.config, context.conn) as mounted:
        held = mounted.hold_for_writing(disk, new_copies=False)
        _nothing_may_be_aside(held.root_fd)
        context.findings.clear_about("name-conflict", f"{disk.label} ")
        _reconcile(context, held)
        _sort_manifest(held.root_fd)  # without room for it nothing has changed yet
        with db.transaction(context.conn):
            db.disks.set_state(context.conn, disk, DiskState.CLOSED, reason, utc_now())
        _keep_catalog(context, held)
        return _finish(context, held, reason)


def close_for_a_person(context: Context, disk: Disk) -> str:
    """Close a disk because a person asks for it. Raises Refused, DiskRefused, CannotClose."""
    try:
        return close(context, disk, "a person closed it")
    except (CannotClose, ManifestDamaged) as fault:
        raise CannotClose(
            f"{disk.label} can't be closed: {fault}. Nothing on it is lost. See copy-damaged in "
            "docs/operators.md"
        ) from fault
    except OSError as fault:
        if the_disk(context, disk.serial).state is DiskState.CLOSED:
            left = "It takes no more files. Leave it mounted: the next pass finishes closing it"
        else:
            left = "It stays in use, and nothing on it is lost. Fix that, and close it again"
        raise CannotClose(
            f"{disk.label} can't be closed: {fault.strerror or fault}. {left}. If it repeats, look "
            "at the kernel's log"
        ) from fault


def finish_close(context: Context, disk: Disk) -> str:
    """Finish a close that was interrupted. Raises DiskRefused, CannotClose, OSError."""
    with MountedDisks(context.config, context.conn) as mounted:
        held = mounted.hold(disk)
        must_be_writable(held, new_copies=False)
        return _finish(context, held, "a close that was cut short is finished")


def _keep_catalog(context: Context, held: HeldDisk) -> None:
    """Put the last copy of the database on this disk: the tag manifest lists it."""
    room_bytes = mounts.space(held.root_fd).free_bytes - seal_bytes(held)
    try:
        catalog_copy.keep(context, held, room_bytes)
    except OSError as fault:
        if fault.errno not in FULL_ERRNOS:
            raise
        log.info("%s is closed without a fresh copy of the database: no room", held.disk.label)


def _finish(context: Context, held: HeldDisk, reason: str) -> str:
    disk, closed_at = held.disk, utc_now()
    sizes = _seal(held.root_fd, closed_at)
    try:
        packing_list = keep_packing_list(context, held, closed_at)
    except OSError as fault:  # the computer's fault: this disk has not failed
        lists = packing_lists(context)
        raise CannotClose(f"its packing list can't be kept in {lists}: {fault.strerror}") from fault
    room = mounts.space(held.root_fd)
    text = _how_to_remove(context, held, sizes, packing_list, reason)
    context.findings.clear(("copy-damaged", "disk-differs", *DISK_KINDS), disk.label)
    context.findings.note("disk-closed", disk.label, text)  # before "sealed", to be noted once
    at = disk.last_used_at or closed_at
    with db.transaction(context.conn):
        db.disks.measure(
            context.conn, disk, room.capacity_bytes, room.used_bytes, room.free_bytes, at
        )
        db.disks.note_event(context.conn, disk.id, closed_at, "sealed", reason)
    return text


def _how_to_remove(
    context: Context, held: HeldDisk, sizes: dict[str, int], packing_list: Path, reason: str
) -> str:
    """Return what a person needs to know to take a full disk out."""
    disk = held.disk
    disks = [d for d in db.disks.disks(context.conn) if d.role is disk.role]
    states = {state: sum(d.state is state for d in disks) for state in DiskState}
    first, last = disk.first_used_at or utc_now(), disk.last_used_at or utc_now()
    days = (seconds(last) - seconds(first)) / 86_400
    size_bytes = sum(sizes.values())
    rate = f", {size_text(size_bytes / days)} a day" if days >= 1 else ""
    return (
        f"{disk.label} is closed: {reason}.\n"
        f"Role {disk.role.value}, serial {disk.serial}, logical ID {disk.logical_id}.\n"
        f"In use from {first} to {last}: {len(sizes)} files, "
        f"{size_text(size_bytes)}{rate}.\n"
        f"Packing list: {packing_list}\n"
        f"Now: 1. umount {held.path}  2. take the drive out and store it  "
        f"3. when it leaves: data_manager.py ship {disk.label}\n"
        f"{disk.role.value} disks: {states[DiskState.SPARE]} spare, "
        f"{states[DiskState.ACTIVE]} in use, {states[DiskState.CLOSED]} closed, "
        f"{sum(states[state] for state in AWAY)} shipped."
    )


# --- database, manifest and data/ agree -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileUnderData:
    """A file under data/, and what the manifest and the database have of it; None is nothing."""

    name: str
    size_bytes: int | None
    manifest_sha512: str | None
    row: CopyOnDisk | None

    @property
    def agrees(self) -> bool:
        """True if all three have it and agree, as far as that is known without reading it."""
        return (
            self.row is not None
            and self.row.state is CopyState.GOOD
            and self.size_bytes == self.row.size_bytes
            and self.manifest_sha512 == self.row.sha512
        )


def _nothing_may_be_aside(root_fd: int) -> None:
    """Raises CannotClose while something is in ``.aside/``: a person must look at it."""
    try:
        with paths.directory(root_fd, bag.ASIDE) as fd:
            things = os.listdir(fd)
    except FileNotFoundError:
        return
    if things:
        raise CannotClose(
            f"{counted(len(things), 'file was', 'files were')} set aside in {bag.ASIDE}/; "
            "first move anything that you want to keep, then empty it"
        )


def _reconcile(context: Context, held: HeldDisk) -> None:
    """Make database, manifest and data/ agree, by reading the files on which they differ."""
    rows = db.copies.copies_on(context.conn, held.disk)
    differing = [found for found in _survey(held.root_fd, rows) if not found.agrees]
    with contextlib.closing(direct_io.HashingReader()) as reader:
        for found in differing:
            _adopt(context, held, found, reader)


def _survey(root_fd: int, rows: Iterable[CopyOnDisk]) -> list[FileUnderData]:
    """Return everything that any of the three knows, by name. Raises CannotClose."""
    sizes = _sizes_under_data(root_fd)
    lines: dict[str, str] = {}
    for line in manifest.read(root_fd):
        if line.name in lines:
            raise CannotClose(f"the manifest has two lines for data/{shown(line.name)}")
        lines[line.name] = line.sha512
    known = {row.name: row for row in rows}
    return [
        FileUnderData(name, sizes.get(name), lines.get(name), known.get(name))
        for name in sorted(sizes.keys() | lines.keys() | known.keys())
        if name in sizes or name in lines or known[name].state is not CopyState.MISSING
    ]


def _sizes_under_data(root_fd: int) -> dict[str, int]:
    """Return the size in bytes of every file, by name. Raises CannotClose for anything else."""
    sizes = {}
    for name, size_bytes in bag.entries_under_data(root_fd):
        if size_bytes is None:
            raise CannotClose(f"data/{shown(name)} is neither a file nor a directory")
        sizes[name] = size_bytes
    return sizes


def _adopt(
    context: Context, held: HeldDisk, found: FileUnderData, reader: direct_io.HashingReader
) -> None:
    """Register a file that one of the three did not know, after reading it back."""
    name, conn = found.name, context.conn
    if why := why_not_carried(name):
        raise CannotClose(f"data/{shown(name)} can't be in a manifest: {why}")
    if found.size_bytes is None:
        raise CannotClose(f"data/{shown(name)} is not there any more")
    copy = held.read_copy(name, reader, lambda _: None)
    if found.manifest_sha512 not in (None, copy.sha512):
        raise CannotClose(f"data/{shown(name)} is not what the manifest says")
    if found.row is not None and found.row.sha512 != copy.sha512:
        raise CannotClose(f"data/{shown(name)} is not what the database says")
    known = db.files.file(conn, name)
    if known and known.sha512 != copy.sha512:
        raise CannotClose(f"data/{shown(name)} is not what the database knows by this name")
    line = ManifestLine(copy.sha512, name, 0)
    if found.manifest_sha512 is None:
        line = manifest.append(held.root_fd, [(copy.sha512, name)])[0]
    with db.transaction(conn):
        copies = [(held.disk, Written(copy, line))]
        db.files.register(conn, name, copy.sha512, copy.stat, copies, utc_now())
    log.warning("%s: data/%s was not registered in full; it is now", held.disk.label, shown(name))


# --- sealing ----------------------------------------------------------------------------------


def _seal(root_fd: int, closed_at: str) -> dict[str, int]:
    """Complete the bag (RFC 8493): sorted manifest, bag-info, and last the tag manifest.

    Return the size in bytes of each file in it.
    """
    paths.make_directories(root_fd, bag.INCOMING)
    bag.sweep_incoming(root_fd)
    names = _sort_manifest(root_fd)
    sizes = _sizes_under_data(root_fd)
    if strange := sizes.keys() ^ set(names):
        raise CannotClose(
            f"data/{shown(min(strange))} came or went while it was closed: look at it, and close "
            "it again"
        )
    bag.write_file(root_fd, bag.MARK, _closed_mark(root_fd, closed_at, sizes))
    os.fsync(root_fd)
    bag.write_file(root_fd, bag.TAG_MANIFEST, _tag_manifest(root_fd))
    os.fsync(root_fd)
    for empty in (bag.INCOMING, bag.ASIDE):
        with contextlib.suppress(FileNotFoundError):  # removed before an interruption
            os.rmdir(empty, dir_fd=root_fd)
    os.fsync(root_fd)
    return sizes


def _sort_manifest(root_fd: int) -> list[str]:
    """Sort the lines of the manifest by name; return the names.

    This takes the space of a second manifest for a moment.
    """
    lines = sorted(manifest.read(root_fd), key=lambda line: line.name.encode())
    bag.write_file(root_fd, MANIFEST, b"".join(line.text for line in lines))
    os.fsync(root_fd)
    return [line.name for line in lines]


def _closed_mark(root_fd: int, closed_at: str, sizes: dict[str, int]) -> bytes:
    ours = ("Pole-Closed", "Payload-Oxum", "Bag-Size")
    lines = bag.read_small(root_fd, bag.MARK).decode().splitlines()
    kept = [line for line in lines if not line.startswith(ours)]
    kept.append(f"Payload-Oxum: {sum(sizes.values())}.{len(sizes)}")
    kept.append(f"Pole-Closed: {closed_at}")
    return "".join(f"{line}\n" for line in kept).encode()


def _tag_manifest(root_fd: int) -> bytes:
    names = [bag.DECLARATION, bag.MARK, MANIFEST, bag.README]
    if paths.stat(root_fd, bag.CATALOGUE) is not None:
        names.append(bag.CATALOGUE)
    lines = []
    for name in names:
        digest = hashlib.sha512()
        for block in bag.blocks(root_fd, name):
            digest.update(block)
        lines.append(f"{digest.hexdigest()}  {name}\n")
    return "".join(lines).encode()


# --- packing lists ----------------------------------------------------------------------------


def packing_lists(context: Context) -> Path:
    """Return the directory of the packing lists, beside the database."""
    return context.config.db_path.with_name("packing-lists")


def packing_list_stem(disk: Disk) -> str:
    """Return how the names of a drive's packing lists begin."""
    return f"{disk.label}-{disk.serial.replace('/', '_')}"


def packing_list_of(context: Context, disk: Disk) -> Path | None:
    """Return the newest list of this drive, unless its present use began after that."""
    stem = re.escape(packing_list_stem(disk))
    ours = re.compile(rf"{stem}(-\d{{4}}-\d\d-\d\dT\d+Z)?\.sha512")
    lists = packing_lists(context).glob("*.sha512")
    began = disk.first_used_at or db.disks.last_event(context.conn, disk, "came back")
    began_at_s = seconds(began) if began else 0.0
    dated = [(path.stat().st_mtime, path) for path in lists if ours.fullmatch(path.name)]
    return max((one for one in dated if one[0] >= began_at_s), default=(0, None))[1]


def keep_packing_list(context: Context, held: HeldDisk, closed_at: str) -> Path:
    """Keep a copy of the manifest at the station: what went north on this disk. Raises OSError."""
    directory = packing_lists(context)
    directory.mkdir(exist_ok=True)
    path = directory / f"{packing_list_stem(held.disk)}.sha512"
    if path.exists() and not _holds(path, bag.blocks(held.root_fd, MANIFEST)):
        # The list of the drive's earlier use is kept.
        path = path.with_stem(f"{path.stem}-{closed_at.replace(':', '')}")
    write_whole(path, bag.blocks(held.root_fd, MANIFEST))
    return path


def write_whole(path: Path, blocks: Iterable[bytes]) -> None:
    """Put a complete file in its place at the station, durably. Raises OSError."""
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as out:
        out.writelines(blocks)
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(path)
    paths.fsync_path(path.parent)


def _holds(path: Path, blocks: Iterable[bytes]) -> bool:
    """True if a file holds exactly this."""
    with path.open("rb") as file:
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)
