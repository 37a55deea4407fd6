"""Close a bag: what the catalogue, the manifest and data/ say must be one, then it is sealed.

Nothing alters a closed bag. Every step may be done again, so that a close which was cut
short anywhere is finished by doing it once more; the tag manifest comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disks import bag, catalog_copy, manifest
from poledata.disks.identity import HeldDisk, must_be_writable
from poledata.disks.lifecycle import must_be, the_disk
from poledata.disks.mounted_disks import MountedDisks, seal_bytes
from poledata.errors import FULL_ERRNOS, CannotClose, ManifestDamaged, Refused
from poledata.formatting import seconds, shown, size_text, utc
from poledata.models import CopyOnDisk, CopyState, Disk, DiskState, ManifestLine, Written
from poledata.notices.kinds import DISK_KINDS
from poledata.system import direct_io, mounts, paths

_TAG_FILES = (bag.DECLARATION, bag.MARK, bag.MANIFEST, bag.README)
_MAY_LACK = (bag.CATALOGUE,)


@dataclass(frozen=True, slots=True)
class FileUnderData:
    """A file under data/, what the manifest and the catalogue say of it; None is nothing."""

    name: str
    size_bytes: int | None
    manifest_sha512: str | None
    row: CopyOnDisk | None

    @property
    def agrees(self) -> bool:
        """Whether all three know it, and say the same, as far as can be told without reading."""
        return (
            self.row is not None
            and self.row.state is CopyState.GOOD
            and self.size_bytes == self.row.size_bytes
            and self.manifest_sha512 == self.row.sha512
        )


@dataclass(frozen=True, slots=True)
class Payload:
    """What a sealed bag holds."""

    files: int
    size_bytes: int


def survey(root_fd: int, rows: Iterable[CopyOnDisk]) -> list[FileUnderData]:
    """Everything that any of the three knows, by name."""
    sizes = dict(files_under_data(root_fd))
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


def files_under_data(root_fd: int) -> Iterator[tuple[str, int]]:
    """(name, size in bytes) of every file of the payload. Raises CannotClose for what is none."""
    for name, size_bytes in entries_under_data(root_fd):
        if size_bytes is None:
            raise CannotClose(f"data/{shown(name)} is neither a file nor a directory")
        yield name, size_bytes


def entries_under_data(root_fd: int) -> Iterator[tuple[str, int | None]]:
    """(name, size in bytes) of all that is no directory; no size for a link or a special file."""
    directories = [""]
    while directories:
        path = directories.pop()
        with paths.directory(root_fd, f"{bag.DATA}/{path}".rstrip("/")) as fd:
            for base in os.listdir(fd):
                name = f"{path}/{base}" if path else base
                try:
                    info = os.stat(base, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # set aside meanwhile: it is not there
                if stat.S_ISDIR(info.st_mode):
                    directories.append(name)
                else:
                    yield name, info.st_size if stat.S_ISREG(info.st_mode) else None


def must_be_settled(found: FileUnderData, sha512: str) -> None:
    """Raises CannotClose unless what was read back is what manifest and catalogue know of it."""
    if found.manifest_sha512 not in (None, sha512):
        raise CannotClose(f"data/{shown(found.name)} is not what the manifest says")
    if found.row is not None and found.row.sha512 != sha512:
        raise CannotClose(f"data/{shown(found.name)} is not what the database says")


def nothing_aside(root_fd: int) -> None:
    """Raises CannotClose while something lies in ``.aside/``: a person is to look at it."""
    try:
        with paths.directory(root_fd, bag.ASIDE) as fd:
            things = os.listdir(fd)
    except FileNotFoundError:
        return
    if things:
        raise CannotClose(
            f"{len(things)} things were set aside in {bag.ASIDE}/; look at them, keep elsewhere "
            "what is of worth, and empty it"
        )


def seal(root_fd: int, closed_at: str) -> Payload:
    """Make the bag whole (RFC 8493): sorted manifest, bag-info, the tag manifest last."""
    paths.make_directories(root_fd, bag.INCOMING)
    bag.sweep_incoming(root_fd)
    payload = _payload(root_fd, sort_manifest(root_fd))
    bag.write_file(root_fd, bag.MARK, _closed_mark(root_fd, closed_at, payload))
    os.fsync(root_fd)
    bag.write_file(root_fd, bag.TAG_MANIFEST, _tag_manifest(root_fd))
    os.fsync(root_fd)
    for empty in (bag.INCOMING, bag.ASIDE):
        _remove_directory(root_fd, empty)
    os.fsync(root_fd)
    return payload


def _payload(root_fd: int, names: Collection[str]) -> Payload:
    """What lies under data/. Raises CannotClose if that is not just what the manifest names."""
    sizes = dict(files_under_data(root_fd))
    if strange := sizes.keys() ^ set(names):
        raise CannotClose(
            f"data/{shown(min(strange))} came or went while it was closed: look at it, and close "
            "it again"
        )
    return Payload(len(sizes), sum(sizes.values()))


def sort_manifest(root_fd: int) -> list[str]:
    """The same lines, sorted by name, which it returns.

    This takes the room of a second manifest for a moment.
    """
    lines = sorted(manifest.read(root_fd), key=lambda line: line.name.encode())
    bag.write_file(root_fd, bag.MANIFEST, b"".join(line.text for line in lines))
    os.fsync(root_fd)
    return [line.name for line in lines]


def keep_packing_list(
    root_fd: int, directory: Path, label: str, serial: str, closed_at: str
) -> Path:
    """A copy of the manifest at the station: what went north on this disk."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{label}-{serial.replace('/', '_')}.sha512"
    if path.exists() and not _holds(path, bag.blocks(root_fd, bag.MANIFEST)):
        # The list of the drive's earlier life stays as it is.
        path = path.with_stem(f"{path.stem}-{closed_at.replace(':', '')}")
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as out:
        out.writelines(bag.blocks(root_fd, bag.MANIFEST))
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(path)
    paths.fsync_path(directory)
    return path


def _holds(path: Path, blocks: Iterable[bytes]) -> bool:
    """Whether a file holds just this."""
    with path.open("rb") as file:
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)


def _closed_mark(root_fd: int, closed_at: str, payload: Payload) -> bytes:
    ours = ("Pole-Closed", "Payload-Oxum", "Bag-Size")
    kept = [
        line
        for line in bag.read_small(root_fd, bag.MARK).decode().splitlines()
        if not line.startswith(ours)
    ]
    kept += [
        f"Payload-Oxum: {payload.size_bytes}.{payload.files}",
        f"Pole-Closed: {closed_at}",
    ]
    return "".join(f"{line}\n" for line in kept).encode()


def _tag_manifest(root_fd: int) -> bytes:
    lines = []
    for name in (*_TAG_FILES, *_MAY_LACK):
        if name in _MAY_LACK and paths.stat(root_fd, name) is None:
            continue
        digest = hashlib.sha512()
        for block in bag.blocks(root_fd, name):
            digest.update(block)
        lines.append(f"{digest.hexdigest()}  {name}\n")
    return "".join(lines).encode()


def _remove_directory(root_fd: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=root_fd)
    except FileNotFoundError:
        return  # removed before: the close is being finished


log = logging.getLogger(__name__)


def close(context: Context, disk: Disk, reason: str) -> str:
    """Seal a disk in use; nothing is written to it any more. Returns its removal slip.

    Raises Refused, DiskRefused, CannotClose (then the disk stays in use as it was), OSError.
    """
    must_be(disk, "closed", DiskState.ACTIVE)
    if disk.held_by:
        raise Refused(
            f"{disk.label} is held ({disk.held_reason}): nothing is written to it. Nothing was "
            f"changed. First: data_manager.py unhold {disk.label}"
        )
    with MountedDisks(context.config, context.conn) as mounted:
        held = mounted.hold_for_writing(disk, new_copies=False)
        nothing_aside(held.root_fd)
        context.board.settle_about("name-conflict", f"{disk.label} ")
        _reconcile(context, held)
        sort_manifest(held.root_fd)  # without room for it nothing has changed yet
        with db.transaction(context.conn):
            db.disks.set_state(context.conn, disk, DiskState.CLOSED, reason, _now())
        _keep_catalogue(context, held)
        return _finish(context, held, reason)


def close_for_a_person(context: Context, disk: Disk) -> str:
    """The same, at a person's word. Raises Refused, DiskRefused, CannotClose."""
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
            left = "It stays in use, and nothing on it is lost. Mend that, and close it again"
        raise CannotClose(
            f"{disk.label} can't be closed: {fault.strerror or fault}. {left}. If it repeats, look "
            "at the kernel's log"
        ) from fault


def _keep_catalogue(context: Context, held: HeldDisk) -> None:
    """The last copy of the database that this disk gets: the tag manifest holds it."""
    room_bytes = mounts.space(held.root_fd).free_bytes - seal_bytes(held)
    try:
        catalog_copy.keep(context, held, room_bytes)
    except OSError as fault:
        if fault.errno not in FULL_ERRNOS:
            raise
        log.info("%s is closed without a fresh copy of the database: no room", held.disk.label)


def finish_close(context: Context, disk: Disk) -> str:
    """Finish a close that was cut short. Raises DiskRefused, OSError."""
    with MountedDisks(context.config, context.conn) as mounted:
        held = mounted.hold(disk)
        must_be_writable(held)
        return _finish(context, held, "a close that was cut short is finished")


def _finish(context: Context, held: HeldDisk, reason: str) -> str:
    disk, closed_at = held.disk, _now()
    payload = seal(held.root_fd, closed_at)
    lists = context.config.db_path.with_name("packing-lists")
    try:
        packing_list = keep_packing_list(held.root_fd, lists, disk.label, disk.serial, closed_at)
    except OSError as fault:  # the station's fault: this disk has not failed
        raise CannotClose(f"its packing list can't be kept in {lists}: {fault.strerror}") from fault
    room = mounts.space(held.root_fd)
    slip = removal_slip(context, disk, payload, held.path, packing_list, reason)
    context.board.settle(("copy-damaged", *DISK_KINDS), disk.label)
    context.board.tell("disk-closed", disk.label, slip)  # first: after "sealed" nobody comes back
    with db.transaction(context.conn):
        db.disks.measure(
            context.conn,
            disk,
            room.capacity_bytes,
            room.used_bytes,
            room.free_bytes,
            disk.last_used_at or closed_at,
        )
        db.disks.note_event(context.conn, disk.id, closed_at, "sealed", reason)
    return slip


def removal_slip(
    context: Context,
    disk: Disk,
    payload: Payload,
    place: Path,
    packing_list: Path,
    reason: str,
) -> str:
    """What a person needs who takes a full disk out."""
    disks = [d for d in db.disks.disks(context.conn) if d.role is disk.role]
    states = {state: sum(d.state is state for d in disks) for state in DiskState}
    first, last = disk.first_used_at or _now(), disk.last_used_at or _now()
    days = (seconds(last) - seconds(first)) / 86_400
    rate = f", {size_text(payload.size_bytes / days)} a day" if days >= 1 else ""
    return "\n".join(
        (
            f"{disk.label} is closed: {reason}.",
            f"Role {disk.role.value}, serial {disk.serial}, logical ID {disk.logical_id}.",
            f"In use from {first} to {last}: {payload.files} files, "
            f"{size_text(payload.size_bytes)}{rate}.",
            f"Packing list: {packing_list}",
            f"Now: 1. umount {place}  2. take the drive out and store it  "
            f"3. when it leaves: data_manager.py ship {disk.label}",
            f"{disk.role.value} disks: {states[DiskState.SPARE]} spare, "
            f"{states[DiskState.ACTIVE]} in use, {states[DiskState.CLOSED]} closed, "
            f"{states[DiskState.SHIPPED]} shipped.",
        )
    )


def _reconcile(context: Context, held: HeldDisk) -> None:
    """Make catalogue, manifest and data/ one, by reading what they differ on."""
    rows = db.copies.copies_on(context.conn, held.disk)
    differing = [found for found in survey(held.root_fd, rows) if not found.agrees]
    with contextlib.closing(direct_io.HashingReader()) as reader:
        for found in differing:
            _adopt(context, held, found, reader)


def _adopt(
    context: Context, held: HeldDisk, found: FileUnderData, reader: direct_io.HashingReader
) -> None:
    """Write down a file that one of the three did not know; by now it is read back."""
    name = found.name
    if why := bag.why_not_carried(name):
        raise CannotClose(f"data/{shown(name)} can't stand in a manifest: {why}")
    if found.size_bytes is None:
        raise CannotClose(f"data/{shown(name)} is not there any more")
    copy = held.read_copy(name, reader, lambda _: None)
    must_be_settled(found, copy.sha512)
    known = db.files.file(context.conn, name)
    if known and known.sha512 != copy.sha512:
        raise CannotClose(f"data/{shown(name)} is not what the database knows by this name")
    line = ManifestLine(copy.sha512, name, 0)
    if found.manifest_sha512 is None:
        line = manifest.append(held.root_fd, [(copy.sha512, name)])[0]
    written = Written(copy, line)
    with db.transaction(context.conn):
        db.files.register(
            context.conn, name, copy.sha512, copy.stat, [(held.disk, written)], _now()
        )
    log.warning("%s: data/%s was not registered in full; it is now", held.disk.label, shown(name))


def _now() -> str:
    return utc(time.time())
