"""What can go wrong, as exceptions that state what, where, what is safe and what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum

# The disk itself is at fault: nothing more of this batch is written to it.
DISK_ERRNOS = frozenset(
    {errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EUCLEAN}
    # Direct reads and writes report, of a drive (blk_errors in Linux' block/blk-core.c): medium,
    # time-out, transport, target, integrity, reservation. Through memory all of them are EIO.
    | {errno.ENODATA, errno.ETIMEDOUT, errno.ENOLINK, errno.EREMOTEIO, errno.EILSEQ, errno.EBADE}
)
# Something is in the way of one name, perhaps only on this disk: another disk may take it.
OBSTACLE_ERRNOS = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
# There can't be anything of this name; it may be longer than this file system allows.
NO_SUCH_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
# It has no more free space: what is written already is finished.
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class ExitCode(IntEnum):
    """The exit code of a script."""

    DONE = 0  # done, or nothing to do, or another pass is at work
    LOOK = 1  # a person should look
    USAGE = 2  # wrong usage or configuration; nothing was touched
    DEFECT = 3  # a defect of this program
    INTERRUPTED = 130


class PoleError(Exception):
    """The base of all expected faults; the script ends with ``exit_code``."""

    exit_code = ExitCode.LOOK


class UsageFault(PoleError):
    """Wrong usage or configuration: nothing was touched."""

    exit_code = ExitCode.USAGE


class FaultList(UsageFault):
    """Every fault of one file, so that a person can fix them all at once.

    ``faults`` are whole sentences, each with the file, the place and what would be right.
    """

    def __init__(self, faults: Iterable[str], safe: str = "Nothing was changed.") -> None:
        self.faults = tuple(faults)
        self.safe = safe

    def __str__(self) -> str:
        return "\n".join((*self.faults, self.safe))


class ConfigFault(FaultList):
    """The configuration can't be used."""


class DiskMapFault(FaultList):
    """A disk-map can't be read, or contradicts itself or the database."""


class NotWritten(UsageFault):
    """A page or a metrics file can't be written: the one that was there is unchanged."""

    def __init__(self, path: object, why: str, what_next: str) -> None:
        self.path, self.why, self.what_next = path, why, what_next

    def __str__(self) -> str:
        return f"{self.path} is not written: {self.why}. {self.what_next}"


class DatabaseUnusable(UsageFault):
    """The database is missing, is not ours, or is of a newer version."""

    def __init__(self, path: object, why: str, what_next: str) -> None:
        self.path, self.why, self.what_next = path, why, what_next

    def __str__(self) -> str:
        return f"{self.path}: {self.why}. Nothing was changed. {self.what_next}"


class DatabaseTrouble(PoleError):
    """The database is locked, full or damaged: unregistered files are still in the buffer."""

    def __init__(self, path: object, why: str) -> None:
        self.path, self.why = path, why

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.why}. Every file that is not yet registered stays in the "
            "buffer. See database-error in docs/operators.md"
        )


class LockTrouble(PoleError):
    """The file system of the database grants no lock: nothing more is done without it."""

    def __init__(self, path: object, why: str) -> None:
        self.path, self.why = path, why

    def __str__(self) -> str:
        return (
            f"{self.path}: the lock can't be had ({self.why}). Every file that is not yet "
            "registered stays in the buffer. Look at the disk of the database."
        )


class StillWaiting(PoleError):
    """A person's command did not get its turn in time."""

    def __init__(self, who: str) -> None:
        self.who = who

    def __str__(self) -> str:
        return (
            f"It took too long to wait for {self.who}. Nothing was changed. Try again later; if it "
            "hangs, see pass-stuck in docs/operators.md."
        )


class TooFewDescriptors(PoleError):
    """The process or the system has no file descriptor left: no fault of a disk or a file."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __str__(self) -> str:
        return (
            f"There are too few file descriptors: {self.why}. Every file that is not yet "
            "registered stays in the buffer. Raise the limit (ulimit -n; LimitNOFILE of a "
            "systemd unit), or look for a program that leaks them: cat /proc/sys/fs/file-nr"
        )


class DiskRefused(PoleError):
    """This disk can't be used now: ``kind`` is the notice it deserves."""

    def __init__(self, kind: str, label: str, why: str, what_next: str) -> None:
        self.kind, self.label, self.why, self.what_next = kind, label, why, what_next

    def __str__(self) -> str:
        return f"{self.label}: {self.why}. Nothing was written. {self.what_next}"


class FileFault(PoleError):
    """One file could not be archived: it stays in the buffer, and the others are processed."""

    kind = "copy-failed"

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"{self.name}: {self.why}; the file stays in the buffer"


class SourceBusy(FileFault):
    """A program still writes the file: it only waits, and has not failed."""


class SourceChanged(FileFault):
    """The file grew, shrank or was replaced while it was read."""


class SourceVanished(FileFault):
    """Another program removed the file from the buffer."""

    def __str__(self) -> str:
        return f"{self.name}: {self.why}; it is not in the buffer any more and was not archived"


class BadName(FileFault):
    """The manifest can't contain this name."""

    kind = "bad-name"


class NameConflict(FileFault):
    """Other content is archived, or is on a disk, under this name."""

    kind = "name-conflict"

    @classmethod
    def of(cls, name: str, archived_sha512: str, sha512: str) -> NameConflict:
        """Return the fault of a buffer file whose content is not that of the archived one."""
        return cls(
            name,
            f"other content is archived under this name (SHA-512 {archived_sha512[:12]}…, "
            f"this one is {sha512[:12]}…)",
        )


class NotRemoved(FileFault):
    """The file is archived but must not be removed from the buffer, or can't be."""

    kind = "not-removed"


class HitBug(FileFault):
    """Work on this file hit a bug of this program: it is retried later, as any that failed."""

    kind = "defect"


class SetAside(FileFault):
    """Something unregistered was in this file's place on a disk and was moved to .aside/."""

    kind = "name-conflict"


class CopyMismatch(FileFault):
    """What was read back from the disk is not what is in the buffer."""


class ManifestDamaged(PoleError):
    """A disk's manifest is missing, or has lines that no program of ours wrote."""


class Refused(UsageFault):
    """A command that makes no sense now: why, and what to do next. Nothing was changed."""


class CopyDamaged(PoleError):
    """A copy of the database can't be used: it is damaged, or of a newer version."""


class CannotClose(PoleError):
    """The catalogue, the manifest and the files of a disk contradict each other."""


class Stopped(PoleError):
    """A person or the system asked the pass to stop; it stops between files or inside one."""

    exit_code = ExitCode.INTERRUPTED
