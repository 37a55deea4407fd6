"""The state of the archive as data: text, page, JSON and metrics are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from poledata.models import (
    ContentCounts,
    Disk,
    Finding,
    HealthCheck,
    Notice,
    PassRow,
    Pause,
    Pending,
    Shipment,
)


class ArchiveVerdict(StrEnum):
    """The first words of the status."""

    ALL_WELL = "ALL WELL"
    LOOK_TODAY = "LOOK TODAY"
    ACT_NOW = "ACT NOW"


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """A disk, whether something is mounted at its place, and what is known about its health."""

    disk: Disk
    is_mounted: bool
    full_at_s: float | None = None  # of one in use, at the last week's rate
    oldest_verified_at: str | None = None  # the oldest verification of a copy on it
    health: HealthCheck | None = None
    hours_since_tested: int | None = None  # of operation, since an extended self-test passed
    never_read: int = 0  # good copies that were never read back
    left_at: str | None = None  # of one that was shipped: when
    overdue: int = 0  # good copies here that were not read for twice VerifyEvery


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The content of the buffer; ``fault`` is why it can't be read, or is the wrong one."""

    fault: str | None = None
    is_wrong: bool = False  # it is not the buffer of this archive
    finished_files: int = 0
    finished_bytes: int = 0
    unfinished_files: int = 0
    other_files: int = 0
    links_and_specials: int = 0
    hidden_files: int = 0  # a part of their path begins with a dot
    left_out: int = 0  # files and whole directories that Include and Exclude leave out
    oldest_at_s: float | None = None
    oldest_here_since_s: float | None = None  # since when it has been in the buffer as it is
    lease_can_be_had: bool | None = None  # None: there is no file to try it with
    trusts_leases: bool | None = None  # True if a lease proves that nobody writes
    writer_rule: str | None = None  # why
    used_percent: float | None = None


@dataclass(frozen=True, slots=True)
class ArchivedAmount:
    """What was archived: in total, in the last day, in the last week."""

    files: int
    size_bytes: int
    day_files: int
    day_bytes: int
    week_files: int
    week_bytes: int


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A channel that could not send its notices at the last try."""

    channel: str
    notices: int
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that ``status`` shows; its names are the keys of the JSON, and stable (README).

    ``reasons`` explain the verdict.
    """

    at_s: float
    config_path: str
    db_path: str
    stand_ins: bool
    unidentified_drives: bool  # AcceptUnidentifiedDrives: two disks may be on one drive
    buffer: BufferStatus
    disks: tuple[DiskStatus, ...]
    archived: ArchivedAmount
    lacking_copies: int  # copies to make again: damaged, missing, or never made
    pending: tuple[Pending, ...]
    notices: tuple[Notice, ...]
    last_pass: PassRow | None
    looked_at_s: float | None  # when a pass last began, also one with nothing to do
    ended_at_s: float | None  # when one last came to its end, with all of its checks
    at_work: str | None = None  # the command line of the pass at work
    lock_holder: str | None = None  # a process that is no pass, but holds the lock of passes
    confirmed_files: int = 0  # with a copy that a receipt from up north confirms
    content: ContentCounts | None = None  # None: CheckContent names no check
    without_good_copy: int = 0  # files with copies, none of which is good
    pause: Pause | None = None
    undelivered: tuple[Undelivered, ...] = ()
    warnings: tuple[str, ...] = ()  # of the configuration
    removes_files: bool = True  # DeleteFromBuffer
    last_archived_at: str | None = None
    newest_record_at: str = ""  # the latest time in the database
    is_read_only: bool | None = None  # of the database, for its owner; None: for another user
    channels: tuple[str, ...] | None = None  # None: this user may not know them
    has_watchdog: bool | None = None  # True also if it is "none" on purpose
    verdict: ArchiveVerdict = ArchiveVerdict.ALL_WELL
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is a condition: settings of the configuration; 0: never."""

    no_new_files_after_s: float = 0.0
    buffer_full_percent: float = 101.0
    spare_disks_low: int = 0


@dataclass(frozen=True, slots=True)
class ManifestSize:
    """How long the manifest of a disk is, and was when a copy there was last registered."""

    label: str
    is_bytes: int
    known_bytes: int


@dataclass(frozen=True, slots=True)
class ArchiveEvidence:
    """What the conditions need besides the status that people see."""

    findings: tuple[Finding, ...] = ()
    limits: Limits = Limits()
    buffer_path: str = ""
    buffer_free_bytes: int | None = None
    arrived_in_a_day_bytes: int = 0  # of the files that wait, those of the last day
    without_marker: str | None = None  # the buffer has none, though nothing speaks against it
    made_at: str | None = None  # when the database was made
    is_wal: bool = False
    rooms_bytes: Mapping[int, int] = field(default_factory=dict)  # by disk id: what still fits
    manifests: tuple[ManifestSize, ...] = ()
    not_received: tuple[Shipment, ...] = ()  # shipments whose receipt is late
