"""Disks, their roles and labels."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """Which of its two copies of a file a disk takes."""

    PRIMARY = "primary"
    COPY = "copy"


class DiskState(StrEnum):
    """The life of a disk, in order; ``lost`` may end it at any time."""

    SPARE = "spare"
    ACTIVE = "active"
    CLOSED = "closed"
    SHIPPED = "shipped"
    LOST = "lost"


GONE = (DiskState.SHIPPED, DiskState.LOST)  # its label may be another drive's by now


LABEL_SHAPE = re.compile(r"([A-Za-z]+)([0-9]+)")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Which labels play which role: a role's prefix and a number, e.g. ``P01``."""

    primary: str = "P"
    copy: str = "S"

    def role_of(self, label: str) -> Role | None:
        """The role of ``label``, or None when it is not a label of either role."""
        match = LABEL_SHAPE.fullmatch(label)
        roles = {self.primary: Role.PRIMARY, self.copy: Role.COPY}
        return roles.get(match[1]) if match else None


DEFAULT_PREFIXES = Prefixes()


@dataclass(frozen=True, slots=True)
class Disk:
    """One row of ``disks``: a drive that the database knows."""

    id: int
    label: str
    role: Role
    serial: str
    logical_id: str
    state: DiskState
    held_by: str | None = None
    held_reason: str | None = None
    stand_in: bool = False
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    first_used_at: str | None = None
    last_used_at: str | None = None

    @property
    def known_as(self) -> str:
        """Its label; once it has left its serial, for another drive may have the label by then."""
        return self.serial if self.state is DiskState.SHIPPED else self.label


class CopyState(StrEnum):
    """What the last look at a copy found."""

    GOOD = "good"
    DAMAGED = "damaged"
    MISSING = "missing"


class VerifiedBy(StrEnum):
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


class Health(StrEnum):
    """What a check of a drive came to."""

    HEALTHY = "healthy"
    WARNING = "warning"
    FAILING = "failing"
    UNKNOWN = "unknown"  # it was asked, and did not say
    MISSING = "missing"  # it is in use, and not there or mute
    UNSUPPORTED = "unsupported"  # it has no SMART, or it is switched off
    ASLEEP = "asleep"
    ABSENT = "absent"  # nobody expects it: a spare not mounted, a closed disk on the shelf


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What the last SMART check said of a drive."""

    at: str
    health: str
    temperature_c: int | None


@dataclass(frozen=True, slots=True)
class SmartCheck:
    """One row of ``smart_checks``; ``numbers`` is empty where the drive did not say."""

    at: str
    health: Health
    temperature_c: int | None
    power_on_hours: int | None
    numbers: dict[str, int]
    lowest: dict[str, int]  # of each number, in this and all checks before
    reasons: tuple[str, ...]


class Severity(StrEnum):
    """How loud a notice is."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"

    def is_graver_than(self, other: Severity) -> bool:
        order = list(Severity)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True)
class Notice:
    """One row of ``notices``: something a person should know; open until ``resolved_at``."""

    kind: str
    key: str
    severity: Severity
    text: str
    opened_at: str
    id: int = 0
    value: float | None = None  # grows as it gets worse
    reopened: int = 0
    resolved_at: str | None = None
    acked_until: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of ``deliveries``: what a channel was told of a notice so far."""

    notice: Notice
    channel: str
    attempts: int
    tried_at: str | None
    sent_at: str | None  # when it was last told as open
    last_error: str | None

    @property
    def attempts_now(self) -> int:
        """The number of a try that is made now: counted anew once a message went out."""
        return self.attempts + 1 if self.last_error else 1


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to tell people; ``target`` is secret: an Apprise URL, or a command to run."""

    name: str  # notify-1-mailto, pager-command: for the database, the log and people
    target: str = field(repr=False)
    is_command: bool = False
    is_pager: bool = False  # gets the critical notices alone

    def takes(self, severity: Severity) -> bool:
        """Whether a notice of this severity is told through this channel."""
        return severity is Severity.CRITICAL or not self.is_pager


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: the subject says it all, in at most 80 characters."""

    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Why passes do nothing, since when, and until when (None: until somebody resumes)."""

    started_at: str
    why: str
    until: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """One row of ``pending``: a file that failed so far."""

    name: str
    attempts: int
    first_failed_at: str
    next_try_at: str
    last_error: str
    kind: str
    stat: FileStat | None


@dataclass(frozen=True, slots=True)
class AdoptedBuffer:
    """The buffer that is meant; ``marker`` None: it could not be given one."""

    marker: str | None
    adopted_at: str
    why: str


@dataclass(frozen=True, slots=True)
class PassRow:
    """One row of ``passes``."""

    id: int
    started_at: str
    ended_at: str | None
    outcome: str | None
    files_archived: int
    bytes_archived: int
    files_failed: int


@dataclass(frozen=True, slots=True)
class DayDone:
    """What was archived on one day of UTC, e.g. ``2026-11-23``."""

    day: str
    files: int
    size_bytes: int
