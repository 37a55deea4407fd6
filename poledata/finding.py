"""Where archived files are, and getting them back, from whichever copy proves good."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from poledata import bag, beneath, catalogue, db, medium, mounts
from poledata.config import Config
from poledata.errors import DiskRefused, Stopped, UsageFault
from poledata.house import is_here
from poledata.identity import HeldDisk
from poledata.medium import CHUNK_BYTES, HashingReader
from poledata.records import CopyState, Disk, DiskState, KnownCopy, KnownFile, Role
from poledata.shelf import Shelf
from poledata.texts import shown

_WHERE = {DiskState.LOST: "lost", DiskState.SHIPPED: "shipped"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one copy is now."""

    label: str
    serial: str
    role: str
    state: str  # good damaged missing
    disk_state: str
    where: str  # mounted at …, on the shelf, shipped …
    verified_at: str | None


@dataclass(frozen=True, slots=True)
class Located:
    """One file and its copies; ``name`` as it can be shown."""

    name: str
    size_bytes: int
    sha512: str
    archived_at: str | None
    places: tuple[Place, ...]


def locate(config: Config, conn: db.Connection, pattern: str) -> Iterator[Located]:
    """Every file whose name matches; from the database alone, no disk is touched."""
    mounted = mounts.mounted_places() if config.require_mount else None
    where: dict[int, str] = {}
    for known in catalogue.find_files(conn, as_glob(pattern)):
        for copy in known.copies:
            if copy.disk.id not in where:
                where[copy.disk.id] = _where(config, conn, copy.disk, mounted)
        copies = sorted(known.copies, key=lambda copy: copy.disk.role is Role.COPY)
        places = tuple(_place(copy, where[copy.disk.id]) for copy in copies)
        name = shown(known.name)
        yield Located(name, known.size_bytes, known.sha512, known.archived_at, places)


def as_glob(pattern: str) -> str:
    """A glob as it stands; of a plain word, every name that holds it."""
    return pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"


def _place(copy: KnownCopy, where: str) -> Place:
    disk = copy.disk
    return Place(
        disk.label,
        disk.serial,
        disk.role.value,
        copy.state.value,
        disk.state.value,
        where,
        copy.verified_at,
    )


def _where(config: Config, conn: db.Connection, disk: Disk, mounted: frozenset[str] | None) -> str:
    if disk.state in _WHERE:
        return f"{_WHERE[disk.state]} {catalogue.last_event(conn, disk, disk.state.value) or ''}"
    if is_here(config, disk, mounted):
        return f"mounted at {config.mount_points(disk.label)[0]}"
    return "on the shelf" if disk.state is DiskState.CLOSED else "not mounted"


# --- getting files back -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one name; ``label``: the disk that gave it; ``fault``: why not."""

    name: str
    label: str | None = None
    fault: str | None = None
    doubts: tuple[str, ...] = ()  # copies that did not prove good


def restore(
    config: Config, conn: db.Connection, names: list[str], to: Path, stop: threading.Event
) -> Iterator[Restored]:
    """Copy files to a directory, below it in their tree; nothing there is ever replaced.

    Each is published only once its SHA-512 is that of the archive. Raises UsageFault, Stopped.
    """
    with _directory(to) as to_fd, Shelf(config, conn, set()) as shelf:
        _must_not_be_ours(config, conn, to, to_fd)
        for name in names:
            known = catalogue.file(conn, name)
            if known is None:
                yield Restored(shown(name), fault="the database knows no file of this name")
            else:
                yield _restore_one(shelf, known, to_fd, stop)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        raise UsageFault(
            f"--to {path}: it can't be opened ({fault.strerror}). Nothing was restored. Make the "
            "directory first."
        ) from fault
    try:
        yield fd
    finally:
        os.close(fd)


def _must_not_be_ours(config: Config, conn: db.Connection, to: Path, to_fd: int) -> None:
    """Raises UsageFault for the buffer (it would be archived anew) and for an archive disk."""
    real = Path(os.path.realpath(f"/proc/self/fd/{to_fd}"))
    ours = [
        config.buffer,
        *(p for d in catalogue.disks(conn) for p in config.mount_points(d.label)),
    ]
    for place in ours:
        if real.is_relative_to(os.path.realpath(place)):
            raise UsageFault(
                f"--to {to}: it is in {place}, which the archive itself works with. Nothing was "
                "restored. Name another directory."
            )


def _restore_one(shelf: Shelf, known: KnownFile, to_fd: int, stop: threading.Event) -> Restored:
    name = shown(known.name)
    if beneath.stat(to_fd, known.name):
        return _compared(known, to_fd, stop)
    doubts: list[str] = []
    for copy in sorted(known.copies, key=_hopes):
        try:
            _copy_out(shelf.hold(copy.disk), known, to_fd, stop)
            return Restored(name, copy.disk.label, doubts=tuple(doubts))
        except (DiskRefused, _NotGood) as fault:
            doubts.append(str(fault))
        except OSError as fault:
            if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                return Restored(name, fault=f"it can't be written ({fault.strerror})")
            doubts.append(f"{copy.disk.label}: {fault.strerror or fault}")
    return Restored(name, fault="no copy that is here proves good", doubts=tuple(doubts))


def _hopes(copy: KnownCopy) -> tuple[bool, bool, bool]:
    """The likeliest to prove good first; of equals the primary one."""
    is_bad = copy.state is not CopyState.GOOD
    return is_bad, copy.disk.held_by is not None, copy.disk.role is Role.COPY


class _NotGood(Exception):
    """What a disk gave back is not what was archived."""


def _compared(known: KnownFile, to_fd: int, stop: threading.Event) -> Restored:
    """Something has its name already: the same content, perhaps."""
    name = shown(known.name)
    try:
        with beneath.opened(to_fd, known.name) as fd, closing(HashingReader()) as reader:
            sha512 = reader.sha512(fd, os.fstat(fd).st_size, lambda _: _go_on(stop))
    except OSError as fault:
        return Restored(name, fault=f"something stands there already ({fault.strerror})")
    if sha512 != known.sha512:
        return Restored(name, fault="something else stands there already; it is left as it is")
    return Restored(name, label="there already")


def _copy_out(held: HeldDisk, known: KnownFile, to_fd: int, stop: threading.Event) -> None:
    """Raises _NotGood, OSError, Stopped; then nothing is left behind."""
    parent, _, base = known.name.rpartition("/")
    for path in {*beneath.make_directories(to_fd, parent), parent}:
        beneath.fsync_directory(to_fd, path)
    temporary = f".{bag.new_temporary()}"
    with beneath.directory(to_fd, parent) as parent_fd:
        out_fd = bag.create(parent_fd, temporary)
        try:
            _fill(out_fd, held, known, stop)
            os.link(temporary, base, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        finally:
            os.close(out_fd)
            os.unlink(temporary, dir_fd=parent_fd)
        os.fsync(parent_fd)


def _fill(out_fd: int, held: HeldDisk, known: KnownFile, stop: threading.Event) -> None:
    digest, buffer = hashlib.sha512(), medium.aligned_buffer()
    with beneath.opened(held.root_fd, f"{bag.DATA}/{known.name}") as fd:
        info = os.fstat(fd)
        for at in range(0, info.st_size, CHUNK_BYTES):
            _go_on(stop)
            n_bytes = medium.fill(fd, buffer, at, info.st_size)
            digest.update(buffer[:n_bytes])
            medium.write_at(out_fd, buffer[:n_bytes], at)
    if digest.hexdigest() != known.sha512:
        raise _NotGood(f"{held.disk.label}: its copy is not what was archived")
    os.fchmod(out_fd, stat.S_IMODE(info.st_mode) | stat.S_IRUSR)
    os.utime(out_fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
    os.fsync(out_fd)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped("interrupted; what is restored is whole")
