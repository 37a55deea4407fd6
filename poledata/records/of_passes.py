"""What is noted of passes, and of files that failed."""

from __future__ import annotations

from dataclasses import dataclass

from poledata.records.of_files import FileStat


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
