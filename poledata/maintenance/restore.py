"""Copy archived files back, from a copy that proves good; nothing is ever overwritten."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.config import Config
from poledata.disks import bag
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import OBSTACLE_ERRNOS, DiskRefused, Stopped, UsageFault
from poledata.formatting import shown
from poledata.maintenance import locate
from poledata.models import CopyState, Disk, KnownCopy, KnownFile, Role
from poledata.system import direct_io, mounts, paths
from poledata.system.direct_io import CHUNK_BYTES, HashingReader


@dataclass(frozen=True, slots=True)
class Restored:
    """The result for one name; ``label``: the disk that gave it; ``fault``: why not."""

    name: str
    label: str | None = None
    fault: str | None = None
    doubts: tuple[str, ...] = ()  # copies that did not prove good


def restore(
    config: Config, conn: db.Connection, patterns: list[str], to: Path, stop: threading.Event
) -> Iterator[Restored]:
    """Copy files to a directory, below it in their tree; nothing there is ever replaced.

    Patterns are those of ``locate``, except that an exact name means this file alone. Each file is
    published only once its SHA-512 is that of the archive. Raises UsageFault, Stopped.
    """
    with _directory(to) as to_fd, MountedDisks(config, conn, set()) as mounted:
        _must_not_be_ours(config, conn, to, to_fd)
        for pattern in patterns:
            found = _meant(conn, pattern)
            for known in found:
                yield _restore_one(mounted, known, to_fd, stop)
            if not found:
                yield Restored(shown(pattern), fault="no archived file has such a name")


def _meant(conn: db.Connection, pattern: str) -> list[KnownFile]:
    """Return the file of exactly this name; otherwise all that match, each once."""
    on_a_disk = pattern.removeprefix(f"{bag.DATA}/")
    exact = db.files.file(conn, pattern) or db.files.file(conn, on_a_disk)
    return [exact] if exact else locate.matching(conn, pattern)


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
    """Raises UsageFault for the buffer (it would be archived again) and for an archive disk."""
    real = Path(os.path.realpath(f"/proc/self/fd/{to_fd}"))
    disks = [place for d in db.disks.disks(conn) for place in config.mount_points(d.label)]
    for place in (config.buffer, *disks):
        if real.is_relative_to(os.path.realpath(place)) or mounts.lies_in(to_fd, place):
            raise UsageFault(
                f"--to {to}: it is in {place}, which the archive itself works with. Nothing was "
                "restored. Name another directory."
            )


class _NotGood(Exception):
    """What a disk returned is not what was archived."""


class _NotTaken(Exception):
    """The target can't take a file: nothing is wrong with the archive."""


def _restore_one(
    mounted: MountedDisks, known: KnownFile, to_fd: int, stop: threading.Event
) -> Restored:
    name = shown(known.name)
    doubts: list[str] = []
    try:
        with _into_target():
            parent = known.name.rpartition("/")[0]
            for path in {*paths.make_directories(to_fd, parent), parent}:
                paths.fsync_directory(to_fd, path)
            is_there = paths.stat(to_fd, known.name) is not None
        if is_there:
            return _compared(known, to_fd, stop)
        for copy in sorted(known.copies, key=_source_rank):
            doubt = _why_not_from(mounted, copy.disk, known, to_fd, stop)
            if doubt is None:
                return Restored(name, copy.disk.label, doubts=tuple(doubts))
            doubts.append(doubt)
    except _NotTaken as fault:
        return Restored(name, fault=f"it can't be written: {fault}", doubts=tuple(doubts))
    return Restored(name, fault="no copy that is here proves good", doubts=tuple(doubts))


def _source_rank(copy: KnownCopy) -> tuple[bool, bool, bool]:
    """The likeliest to prove good comes first; of equals the primary one."""
    is_bad = copy.state is not CopyState.GOOD
    return is_bad, copy.disk.held_by is not None, copy.disk.role is Role.COPY


def _compared(known: KnownFile, to_fd: int, stop: threading.Event) -> Restored:
    """Something has the file's name already: perhaps the same content."""
    name = shown(known.name)
    try:
        with paths.opened(to_fd, known.name) as fd, closing(HashingReader()) as reader:
            info = os.fstat(fd)
            is_it = stat.S_ISREG(info.st_mode) and info.st_size == known.size_bytes
            sha512 = reader.sha512(fd, info.st_size, lambda _: _go_on(stop)) if is_it else ""
    except OSError as fault:
        return Restored(name, fault=f"something is there already ({fault.strerror})")
    if sha512 != known.sha512:
        return Restored(name, fault="another file is there already; it was not changed")
    return Restored(name, label="there already")


def _why_not_from(
    mounted: MountedDisks, disk: Disk, known: KnownFile, to_fd: int, stop: threading.Event
) -> str | None:
    """Restore this disk's copy; return why that failed. Raises _NotTaken, Stopped."""
    try:
        _copy_out(mounted.hold(disk), known, to_fd, stop)
    except DiskRefused as fault:
        return str(fault)
    except (_NotGood, OSError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else None
        return f"{disk.label}: {why or fault}. Next: data_manager.py verify {disk.known_as}"
    return None


@contextmanager
def _into_target() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        why = fault.strerror or str(fault)
        if fault.errno in OBSTACLE_ERRNOS:
            why = (
                f"in the target {shown(str(fault.filename))} is a file or a link where a directory "
                "must be. It was left as it is: move it away, or name another --to"
            )
        raise _NotTaken(why) from fault


def _copy_out(held: HeldDisk, known: KnownFile, to_fd: int, stop: threading.Event) -> None:
    """Raises _NotGood, _NotTaken, OSError (of the disk), Stopped; then nothing is left behind."""
    parent, _, base = known.name.rpartition("/")
    temporary = f".{bag.new_temporary()}"
    with ExitStack() as stack:
        with _into_target():
            parent_fd = stack.enter_context(paths.directory(to_fd, parent))
            out_fd = bag.create(parent_fd, temporary)
        try:
            _fill(out_fd, held, known, stop)
            with _into_target():
                os.link(temporary, base, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        finally:
            os.close(out_fd)
            with _into_target():
                os.unlink(temporary, dir_fd=parent_fd)
                os.fsync(parent_fd)


def _fill(out_fd: int, held: HeldDisk, known: KnownFile, stop: threading.Event) -> None:
    digest, buffer = hashlib.sha512(), direct_io.aligned_buffer()
    with paths.opened(held.root_fd, f"{bag.DATA}/{known.name}") as fd:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise _NotGood("its copy is not a file")
        if info.st_size != known.size_bytes:  # the target may have no space for one that grew
            raise _NotGood(f"its copy has {info.st_size} bytes, not {known.size_bytes}")
        for at in range(0, info.st_size, CHUNK_BYTES):
            _go_on(stop)
            n_bytes = direct_io.fill(fd, buffer, at, info.st_size)
            digest.update(buffer[:n_bytes])
            with _into_target():
                direct_io.write_at(out_fd, buffer[:n_bytes], at)
    if digest.hexdigest() != known.sha512:
        raise _NotGood("its copy is not what was archived")
    with _into_target():
        os.fchmod(out_fd, info.st_mode & 0o777 | stat.S_IRUSR)  # never set-uid, set-gid
        os.utime(out_fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
        os.fsync(out_fd)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped("interrupted; what is restored is whole")
