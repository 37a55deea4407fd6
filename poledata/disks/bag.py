"""The BagIt 1.0 files on a disk (RFC 8493): which disk it is, and what it holds.

Everything is relative to a descriptor of the disk's root that the caller holds open.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from poledata.formatting import utc, why_not_carried
from poledata.models import MANIFEST, Disk, Role
from poledata.system import paths

DATA = "data"
INCOMING = ".incoming"
ASIDE = ".aside"
MARK = "bag-info.txt"
DECLARATION = "bagit.txt"
README = "README.txt"
TAG_MANIFEST = "tagmanifest-sha512.txt"  # only on a closed disk, which is never altered
CATALOGUE = "catalogue.sqlite"

_DECLARATION_TEXT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_NOT_OURS_BUT_HARMLESS = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class Mark:
    """Which disk this is, by its ``bag-info.txt``."""

    label: str
    role: Role
    serial: str
    logical_id: str
    stand_in: bool
    opened_at: str
    closed_at: str | None = None

    @classmethod
    def of(cls, disk: Disk, now_s: float) -> Mark:
        return cls(disk.label, disk.role, disk.serial, disk.logical_id, disk.stand_in, utc(now_s))

    def is_of(self, disk: Disk) -> bool:
        """True if this is that disk's mark."""
        own = Mark.of(disk, 0)
        return replace(self, opened_at=own.opened_at, closed_at=None) == own


def why_no_name(name: str) -> str | None:
    """Return why this is no path below data/ as we write it (carried, no detours); else None."""
    if {"", ".", ".."} & set(name.split("/")):
        return "a part of its path is empty, . or .."
    return why_not_carried(name)


def read_mark(root_fd: int) -> Mark | None:
    """Return the disk's mark, or None. Raises OSError; ValueError if it can't be understood."""
    try:
        text = read_small(root_fd, MARK).decode()
    except FileNotFoundError:
        return None
    except OSError as fault:
        if fault.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise ValueError(f"its {MARK} is not a file") from fault
    fields = dict(re.findall(r"^(Pole-[A-Za-z-]+): (.*)$", text, re.MULTILINE))
    try:
        return Mark(
            fields["Pole-Label"],
            Role(fields["Pole-Role"]),
            fields["Pole-Serial"],
            fields["Pole-Logical-ID"],
            fields["Pole-Stand-In"] == "yes",
            fields["Pole-Opened"],
            fields.get("Pole-Closed"),
        )
    except KeyError as missing:
        raise ValueError(f"its {MARK} has no line {missing.args[0]}") from None


def do_not_empty(label: str, serial: str) -> str:
    """Return the warning about a disk with this mark that the database does not know."""
    return f"Its mark says that it is {label} ({serial}): do not empty it"


# What a claim puts on a disk: the names that directories may hold, and the content of files.
_CLAIMED_DIRECTORIES = {DATA: r"(?!)", INCOMING: r"[0-9a-f]{16}"}
_CLAIMED_FILES = {
    MANIFEST: rb"",
    DECLARATION: re.escape(_DECLARATION_TEXT),
    README: rb"(?s)This disk is .*",
}


def foreign_entries(root_fd: int) -> list[str]:
    """Return what keeps a disk from its first use; [] if it is empty, or only claimed."""
    foreign = []
    for name in set(os.listdir(root_fd)) - {*_NOT_OURS_BUT_HARMLESS, MARK}:
        if name in _CLAIMED_DIRECTORIES:
            foreign += _entries_unlike(root_fd, name, _CLAIMED_DIRECTORIES[name])
        elif name not in _CLAIMED_FILES or not _matches(root_fd, name, _CLAIMED_FILES[name]):
            foreign.append(name)
    return sorted(foreign)


def _matches(root_fd: int, name: str, content: bytes) -> bool:
    is_file = stat.S_ISREG(os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode)
    return is_file and re.fullmatch(content, read_small(root_fd, name)) is not None


def _entries_unlike(root_fd: int, name: str, pattern: str) -> list[str]:
    if not stat.S_ISDIR(os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode):
        return [name]
    with paths.directory(root_fd, name) as fd:
        return [f"{name}/{e}" for e in os.listdir(fd) if not re.fullmatch(pattern, e)]


def claim(root_fd: int, mark: Mark) -> None:
    """Make an empty disk ours. The mark comes last: without it the claim starts again."""
    paths.make_directories(root_fd, INCOMING)
    sweep_incoming(root_fd)
    paths.make_directories(root_fd, DATA)
    write_file(root_fd, DECLARATION, _DECLARATION_TEXT)
    template = Path(__file__).with_name("disk_readme.txt").read_text(encoding="utf-8")
    readme = template.format(label=mark.label, role=mark.role.value, serial=mark.serial)
    write_file(root_fd, README, readme.encode())
    write_file(root_fd, MANIFEST, b"")
    os.fsync(root_fd)
    write_file(root_fd, MARK, _mark_text(mark))
    os.fsync(root_fd)


def write_file(root_fd: int, path: str, content: bytes | Iterable[bytes]) -> None:
    """Put one file of ours in place, complete or not at all, replacing an older one.

    Durable once the caller has fsynced the directory.
    """
    temporary = new_temporary()
    with paths.directory(root_fd, INCOMING) as incoming_fd:
        fd = create(incoming_fd, temporary)
        try:
            for block in (content,) if isinstance(content, bytes) else content:
                write_all(fd, block)
            os.fchmod(fd, 0o644)
            os.fsync(fd)
            os.rename(temporary, path, src_dir_fd=incoming_fd, dst_dir_fd=root_fd)
        except BaseException:
            os.unlink(temporary, dir_fd=incoming_fd)
            raise
        finally:
            os.close(fd)


def _mark_text(mark: Mark) -> bytes:
    return (
        f"Bagging-Date: {mark.opened_at[:10]}\n"
        f"External-Identifier: {mark.label}\n"
        "Bag-Software-Agent: Pole Data Manager\n"
        f"Pole-Label: {mark.label}\n"
        f"Pole-Role: {mark.role.value}\n"
        f"Pole-Serial: {mark.serial}\n"
        f"Pole-Logical-ID: {mark.logical_id}\n"
        f"Pole-Stand-In: {'yes' if mark.stand_in else 'no'}\n"
        f"Pole-Opened: {mark.opened_at}\n"
    ).encode()


def new_temporary() -> str:
    """Return a short random name for something unfinished in ``.incoming/``."""
    return os.urandom(8).hex()


def create(directory_fd: int, name: str) -> int:
    """Return a descriptor of a new, empty file, never of one that exists."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=directory_fd)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write every byte, or raise OSError: ENOSPC if nothing more is written."""
    left = memoryview(content)
    while left:
        n_bytes = os.write(fd, left)
        if n_bytes == 0:
            raise OSError(errno.ENOSPC, "nothing more is written")
        left = left[n_bytes:]


def sweep_incoming(root_fd: int) -> int:
    """Remove what an earlier pass left unfinished; return how many files that were.

    Only for the holder of the pass lock: nobody else writes there.
    """
    with paths.directory(root_fd, INCOMING) as fd:
        leftovers = os.listdir(fd)
        for name in leftovers:
            os.unlink(name, dir_fd=fd)
    return len(leftovers)


def set_aside(root_fd: int, path: str, now_s: float) -> str:
    """Move a file from where it should not be into ``.aside/``, replacing nothing.

    Return its new path. Both directories are fsynced.
    """
    paths.make_directories(root_fd, ASIDE)
    os.fsync(root_fd)
    parent, _, base = path.rpartition("/")
    short = base.encode()[-150:].decode(errors="ignore")
    aside = f"{utc(now_s).replace(':', '')}-{os.urandom(4).hex()}-{short}"
    with paths.directory(root_fd, parent) as from_fd, paths.directory(root_fd, ASIDE) as to_fd:
        os.rename(base, aside, src_dir_fd=from_fd, dst_dir_fd=to_fd)  # the name is new: random
        os.fsync(to_fd)
        os.fsync(from_fd)
    return f"{ASIDE}/{aside}"


_BLOCK_BYTES = 1 << 20


def read_small(root_fd: int, path: str) -> bytes:
    """Return the content of one of our small files."""
    return next(blocks(root_fd, path), b"")


def blocks(root_fd: int, path: str) -> Iterator[bytes]:
    """Yield one of our files in full blocks. Raises OSError if it ends before its size."""
    with paths.opened(root_fd, path) as fd:
        yield from blocks_of(fd)


def blocks_of(fd: int) -> Iterator[bytes]:
    """Yield an open file in full blocks. Raises OSError if it ends before its size."""
    size_bytes = os.fstat(fd).st_size
    for at in range(0, size_bytes, _BLOCK_BYTES):
        yield read_at(fd, min(_BLOCK_BYTES, size_bytes - at), at)


def read_at(fd: int, n_bytes: int, at: int) -> bytes:
    """Return exactly these bytes: a short read must never decide what is cut or sealed."""
    parts, end = [], at + n_bytes
    while at < end:
        parts.append(os.pread(fd, end - at, at))
        if not parts[-1]:
            must_not_end(at, end)
        at += len(parts[-1])
    return b"".join(parts)


def must_not_end(at_bytes: int, size_bytes: int) -> None:
    """Raises OSError if a file ends before its size."""
    if at_bytes < size_bytes:
        raise OSError(errno.EIO, f"it ends at byte {at_bytes} of {size_bytes}")


def entries_under_data(root_fd: int) -> Iterator[tuple[str, int | None]]:
    """Yield (name, size in bytes) of everything except directories.

    No size for a link or a special file. Raises OSError.
    """
    directories = [""]
    while directories:
        path = directories.pop()
        with paths.directory(root_fd, f"{DATA}/{path}".rstrip("/")) as fd:
            for base in os.listdir(fd):
                name = f"{path}/{base}" if path else base
                try:
                    info = os.stat(base, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # set aside meanwhile
                if stat.S_ISDIR(info.st_mode):
                    directories.append(name)
                else:
                    yield name, info.st_size if stat.S_ISREG(info.st_mode) else None
