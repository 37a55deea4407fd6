"""Records: disks, files, copies, SMART checks, notices and passes. Most are rows of tables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """Which of the two copies of a file a disk takes."""

    PRIMARY = "primary"
    COPY = "copy"


class DiskState(StrEnum):
    """The life of a disk, in order; ``lost`` may end it at any time."""

    SPARE = "spare"
    ACTIVE = "active"
    CLOSED = "closed"
    SHIPPED = "shipped"
    RECEIVED = "received"  # the people up north sent a receipt
    LOST = "lost"


AWAY = (DiskState.SHIPPED, DiskState.RECEIVED)
GONE = (*AWAY, DiskState.LOST)  # another drive may have its label by now
LABEL_SHAPE = re.compile(r"([A-Za-z]+)([0-9]+)")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Which labels belong to which role: a role's prefix and a number, e.g. ``P01``."""

    primary: str = "P"
    copy: str = "S"

    def role_of(self, label: str) -> Role | None:
        """Return the role of ``label``; None if it is not a label of either role."""
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
    def may_be_read(self) -> bool:
        """True if its copies are read for people: it is in use or closed, and not held."""
        return self.state in (DiskState.ACTIVE, DiskState.CLOSED) and self.held_by is None

    @property
    def known_as(self) -> str:
        """Its label; after shipping its serial, because another drive may have its label."""
        return self.serial if self.state in AWAY else self.label


@dataclass(frozen=True, slots=True)
class Shipment:
    """One row of ``shipments``: a disk that left, with its disk as it is now."""

    disk: Disk
    shipped_at: str
    sheet: str  # the name of the shipment's sheet, without its directory and suffix
    box: str | None
    destination: str | None
    list_sha512: str | None  # None: its packing list is lost


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """One row of ``receipts``: the result of a check up north."""

    disk_id: int
    list_sha512: str
    checked_at: str
    checked_by: str
    imported_at: str
    sha512: str
    files: int
    bad: int
    unreadable: int
    missing: int
    extra: int


class CopyState(StrEnum):
    """What the last look at a copy found."""

    GOOD = "good"
    DAMAGED = "damaged"
    MISSING = "missing"


class ContentResult(StrEnum):
    """What the check of a file's content found."""

    OK = "ok"
    SUSPECT = "suspect"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class ContentCounts:
    """How many archived files have which result of CheckContent."""

    ok: int
    suspect: int
    not_checked: int


class VerifiedBy(StrEnum):
    """How a copy was read back: only the first two prove that it was read from the medium."""

    DIRECT = "direct"
    EVICTED = "evicted"
    CACHED = "cached"


LARGEST = 2**63 - 1  # what SQLite's integers hold, from -LARGEST - 1 on


@dataclass(frozen=True, slots=True)
class FileStat:
    """The identity and state of a file: equal stats mean an unchanged file.

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
    """Return an unsigned number of 64 bits as the signed one with the same bits: still unique."""
    return number - 2**64 if number > LARGEST else number


def _fitting(time_ns: int) -> int:
    return max(-LARGEST - 1, min(time_ns, LARGEST))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file of the buffer that has not been changed for ``SettleTime``."""

    name: str
    stat: FileStat
    mode: int
    hidden_as: str | None = None  # its path, if it was hidden and did not get its name back

    @property
    def path(self) -> str:
        """Where it is in the buffer now."""
        return self.hidden_as or self.name

    @property
    def cost_inodes(self) -> int:
        """What a copy takes at most: one for itself and for each directory."""
        return self.name.count("/") + 1

    @property
    def age_key(self) -> tuple[int, str]:
        """Sorts the oldest first; the path makes the order unique."""
        return (self.stat.mtime_ns, self.path)


@dataclass(frozen=True, slots=True)
class KnownCopy:
    """One row of ``copies``, with its disk."""

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
    """A file and the state of its copy on a given disk; None: it has no copy there."""

    file_id: int
    name: str
    size_bytes: int
    sha512: str
    state: CopyState | None


MANIFEST = "manifest-sha512.txt"  # on each disk (RFC 8493, 2.1.3)


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line of a disk's manifest, and where it begins."""

    sha512: str
    name: str
    offset_bytes: int

    @property
    def text(self) -> bytes:
        """The line as ``sha512sum`` reads it (RFC 8493, 2.1.3)."""
        return f"{self.sha512}  data/{self.name}\n".encode()


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """A disk that takes copies: its opened root, and whether direct reads of it are proved."""

    role: Role
    label: str
    root_fd: int
    direct: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A file to copy, and to which roles; other content than ``known_sha512`` is a conflict."""

    waiting: Waiting
    roles: frozenset[Role]
    known_sha512: str | None = None

    @property
    def name(self) -> str:
        return self.waiting.name


@dataclass(frozen=True, slots=True)
class ReadBack:
    """The result of reading a copy back; ``stat`` is that of the copy."""

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
    """The result of a check of a drive."""

    HEALTHY = "healthy"
    WARNING = "warning"
    FAILING = "failing"
    UNKNOWN = "unknown"  # it was queried, and gave no answer
    MISSING = "missing"  # it is in use, and missing or not responding
    UNSUPPORTED = "unsupported"  # it has no SMART, or it is switched off
    ASLEEP = "asleep"
    ABSENT = "absent"  # as expected: a spare not mounted, a closed disk on the shelf


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The result of the last SMART check of a drive."""

    at: str
    health: str
    temperature_c: int | None


@dataclass(frozen=True, slots=True)
class SmartCheck:
    """One row of ``smart_checks``; ``numbers`` is empty if the drive did not respond."""

    at: str
    health: Health
    temperature_c: int | None
    power_on_hours: int | None
    numbers: dict[str, int]
    lowest: dict[str, int]  # of each number, since it was acknowledged, or else ever
    reasons: tuple[str, ...]
    known: dict[str, int] = field(default_factory=dict)  # what a person has acknowledged
    failing: tuple[str, ...] = ()  # the numbers that were reasons to call it failing


class Severity(StrEnum):
    """How severe a notice is."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"

    def is_graver_than(self, other: Severity) -> bool:
        order = list(Severity)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of ``findings``: what a run learned about ``key``, until the next look at it."""

    kind: str
    key: str
    severity: Severity
    text: str
    value: float | None
    found_at: str


@dataclass(frozen=True, slots=True)
class ArchiveCondition:
    """Something that is wrong now: an open notice, unless ``kind`` is empty.

    ``headline`` is its reason in the status, if that says more than the headline of its kind.
    """

    kind: str
    key: str
    severity: Severity
    text: str
    value: float | None = None  # grows as it gets worse
    headline: str = ""


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
    """One row of ``deliveries``: what a channel has sent about a notice so far."""

    notice: Notice
    channel: str
    attempts: int
    tried_at: str | None
    sent_at: str | None  # when it was last sent as open
    sent_as: str | None  # its severity then; None: it was not sent as open so far
    last_error: str | None

    @property
    def attempts_now(self) -> int:
        """The number of the present try, counted from 1 again after a message was sent."""
        return self.attempts + 1 if self.last_error else 1


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to send messages; ``target`` is secret: an Apprise URL, or a command to run."""

    name: str  # notify-1-mailto, pager-command: for the database, the log and people
    target: str = field(repr=False)
    is_command: bool = False
    is_pager: bool = False  # gets only critical notices

    def takes(self, severity: Severity) -> bool:
        """True if a notice of this severity is sent through this channel."""
        return severity is Severity.CRITICAL or not self.is_pager


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent; the subject alone is complete, in at most 80 characters."""

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
    """The buffer of this archive; ``marker`` is None if it could not be given one."""

    marker: str | None


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
