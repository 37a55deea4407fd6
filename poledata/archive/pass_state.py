"""What every step of one pass works with, and what the pass counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from poledata.archive.buffer import Buffer, Seen
from poledata.archive.retry import Failures
from poledata.context import Context
from poledata.disks.disk_faults import DiskFaults
from poledata.errors import ExitCode
from poledata.formatting import size_text
from poledata.models import Job


@dataclass(slots=True)
class Tally:
    """Counts of one pass."""

    archived_files: int = 0
    archived_bytes: int = 0
    failed_files: int = 0
    without_disk_files: int = 0
    busy_files: int = 0  # still open for writing
    vanished_files: int = 0
    pending_files: int = 0  # failed now or before, and still in the buffer
    failed_disks: int = 0
    interrupted: bool = False
    paused_why: str | None = None
    idle_scan: Seen | None = None  # what a pass saw that then did nothing
    buffer_fault: str | None = None  # it is not the one that is meant, or has no marker

    @property
    def exit_code(self) -> ExitCode:
        if self.interrupted:
            return ExitCode.INTERRUPTED
        troubles = (
            self.pending_files,
            self.without_disk_files,
            self.vanished_files,
            self.failed_disks,
            self.buffer_fault,
        )
        return ExitCode.LOOK if any(troubles) else ExitCode.DONE

    def in_words(self) -> str:
        """One line for a person who watches."""
        parts = [f"{self.archived_files} files archived ({size_text(self.archived_bytes)})"]
        counts = (
            (self.failed_files, "failed and stay in the buffer"),
            (
                max(0, self.pending_files - self.failed_files),
                "failed before and wait for their next try",
            ),
            (self.without_disk_files, "wait for a disk"),
            (self.busy_files, "are still being written"),
            (self.vanished_files, "left the buffer without being archived"),
            (self.failed_disks, "disks failed"),
        )
        parts += [f"{count} {what}" for count, what in counts if count]
        parts += [self.buffer_fault] if self.buffer_fault else []
        parts += ["interrupted"] if self.interrupted else []
        if self.paused_why is not None:
            parts.append(f"paused ({self.paused_why}; data_manager.py resume ends it)")
        return "; ".join(parts) + ". Details: data_manager.py status"


class Watcher:
    """Hear how a pass gets on. This one does nothing; cli/progress.py draws bars."""

    def batch(self, bytes_by_label: dict[str, int]) -> None:
        """A batch begins: so many bytes will be written to each disk, and read back."""

    def reading(self, bytes_by_label: dict[str, int]) -> None:
        """A verification begins: so many bytes will be read from each disk."""

    def moved(self, label: str, name: str, n_bytes: int) -> None:
        """Bytes of a file were written to a disk or read back; called from any thread."""

    def would_copy(self, job: Job, labels: list[str]) -> None:
        """In a dry run: what a pass would do."""


@dataclass(frozen=True, slots=True)
class PassState:
    """One pass at work."""

    context: Context
    buffer: Buffer
    stop: threading.Event  # once set, the pass ends between or inside files
    watcher: Watcher
    tally: Tally
    failures: Failures
    disks: DiskFaults
    is_dry: bool
