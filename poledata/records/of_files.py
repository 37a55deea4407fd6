"""Files and their copies, as they wait, are copied, and are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from poledata.records.of_disks import Disk, Role


class CopyState(str, Enum):
    """What the last look at a copy found."""

    GOOD = "good"
    DAMAGED = "damaged"
    MISSING = "missing"


class VerifiedBy(str, Enum):
    """How a copy was read back: only the first two prove the medium."""

    DIRECT = "direct"
    EVICTED = "evicted"
    CACHED = "cached"


LARGEST = 2**63 - 1  # what SQLite's integers hold, from -LARGEST - 1 on


@dataclass(frozen=True, slots=True)
class FileStat:
    """Which file this is, and in which state: equal stats mean an untouched file.

    Every number fits in the database. File systems have inodes from 2**63 on (overlay) and times
    after 2262 or before 1677 (XFS, tmpfs): such a time becomes the last or first one that fits.
    """

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, st: os.stat_result) -> FileStat:
        return cls(
            _wrapped(st.st_dev),
            _wrapped(st.st_ino),
            st.st_size,
            _fitting(st.st_mtime_ns),
            _fitting(st.st_ctime_ns),
        )


def _wrapped(number: int) -> int:
    """An unsigned number of 64 bits as the signed one with the same bits: still one of its own."""
    return number - 2**64 if number > LARGEST else number


def _fitting(time_ns: int) -> int:
    return max(-LARGEST - 1, min(time_ns, LARGEST))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file of the buffer that has not been touched for ``SettleTime``."""

    name: str
    stat: FileStat
    mode: int
    hidden_as: str | None = None  # its path, if its name was taken away and not given back

    @property
    def path(self) -> str:
        """Where it is in the buffer now."""
        return self.hidden_as or self.name

    @property
    def age_key(self) -> tuple[int, str]:
        """Oldest first; the path makes the order one order."""
        return (self.stat.mtime_ns, self.path)


@dataclass(frozen=True, slots=True)
class KnownCopy:
    """One row of ``copies``, with the disk it is on."""

    disk: Disk
    state: CopyState
    mtime_ns: int
    written_at: str
    verified_at: str | None
    verified_by: VerifiedBy | None


@dataclass(frozen=True, slots=True)
class KnownFile:
    """One row of ``files``, with its copies."""

    id: int
    name: str
    size_bytes: int
    sha512: str
    mtime_ns: int
    archived_at: str | None
    copies: tuple[KnownCopy, ...]


@dataclass(frozen=True, slots=True)
class CopyOnDisk:
    """One file of those that the database has on a disk."""

    file_id: int
    name: str
    size_bytes: int
    sha512: str
    state: CopyState


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of ``files``, and the state of its copy on one disk; None: it has none there."""

    id: int
    size_bytes: int
    sha512: str
    copy_state: CopyState | None


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line of a disk's manifest and where it begins."""

    sha512: str
    name: str
    offset_bytes: int

    @property
    def text(self) -> bytes:
        """The line as ``sha512sum`` reads it (RFC 8493, 2.1.3)."""
        return f"{self.sha512}  data/{self.name}\n".encode()


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """A disk that takes copies: its held root, and whether direct reads of it are proved."""

    role: Role
    label: str
    root_fd: int
    direct: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One file to copy, and to which roles; other content than ``known_sha512`` is a conflict."""

    waiting: Waiting
    roles: frozenset[Role]
    known_sha512: str | None = None

    @property
    def name(self) -> str:
        return self.waiting.name


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a disk gave back of a file; ``stat`` is of the copy that was read."""

    sha512: str
    verified_by: VerifiedBy
    stat: FileStat
    at_s: float  # by CLOCK_BOOTTIME, which nobody sets and which counts while suspended


@dataclass(frozen=True, slots=True)
class Written:
    """A copy that is complete under its final name, durable, and in the manifest."""

    read_back: ReadBack
    line: ManifestLine
