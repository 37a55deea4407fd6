"""What a reading of one disk found, the notices that it deserves, and those that it ends.

A fault of the disk is no fault of its copies: where the disk does not answer, is not itself, or
may not be read, nothing is said of what it holds.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from poledata import bag, catalogue, db, lifecycle
from poledata.errors import CannotClose, DiskRefused
from poledata.house import House
from poledata.identity import disk_faults
from poledata.kinds import DISK_KINDS
from poledata.lifecycle import the_disk
from poledata.records import CopyOnDisk, CopyState, Disk, DiskState
from poledata.texts import counted, shown, utc

GIVEN_UP = (DiskState.LOST, DiskState.SPARE)
OF_US_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # neither file nor disk
_PARTS = (bag.DATA, bag.MANIFEST, bag.MARK)  # without one of these a disk is not itself
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IoError:
    """A copy that the disk, though it answers, does not give back."""

    name: str
    why: str  # as the system says it


@dataclass(slots=True)
class Verdict:
    """What a reading of one disk found; names are shown names."""

    label: str
    good: int = 0
    good_bytes: int = 0
    io_errors: list[IoError] = field(default_factory=list)  # these are damaged, too
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)  # without their line in the manifest
    nowhere: list[str] = field(default_factory=list)  # a line, but neither file nor row
    bad_lines: list[str] = field(default_factory=list)  # of the manifest, and where they are
    left: int = 0  # copies that were due and were not read: it was stopped, or time was up
    fault: str | None = None  # why the reading could not go on

    @property
    def is_well(self) -> bool:
        return not (
            self.damaged
            or self.missing
            or self.unregistered
            or self.unlisted
            or self.nowhere
            or self.bad_lines
            or self.fault
        )

    def note(self, copy: CopyOnDisk, state: CopyState, io_error: str | None) -> None:
        """Count one copy."""
        name = shown(copy.name)
        if state is CopyState.GOOD:
            self.good += 1
            self.good_bytes += copy.size_bytes
        elif state is CopyState.MISSING:
            self.missing.append(name)
        else:
            self.damaged.append(name)
        if io_error:
            self.io_errors.append(IoError(name, io_error))


@contextmanager
def reading_faults(disk: Disk) -> Iterator[None]:
    """Whatever keeps a disk from being read to its end becomes DiskRefused."""
    try:
        with disk_faults(disk):
            yield
    except DiskRefused as refusal:
        raise _as_it_is_read(disk, refusal, refusal.__cause__) from refusal.__cause__
    except CannotClose as fault:
        raise _not_itself(disk, str(fault)) from fault


def _as_it_is_read(disk: Disk, refusal: DiskRefused, cause: BaseException | None) -> DiskRefused:
    if isinstance(cause, FileNotFoundError) and cause.filename in _PARTS:
        return _not_itself(disk, f"{cause.filename} is not there")
    if isinstance(cause, OSError) and cause.errno in OF_US_ERRNOS:
        why = f"it could not be read on: {cause.strerror}"
        what_next = "That is this machine's trouble, not the disk's: verify it again later."
        return DiskRefused("disk-error", disk.label, why, what_next)
    return refusal


def _not_itself(disk: Disk, why: str) -> DiskRefused:
    return DiskRefused("disk-wrong", disk.label, why, "Who changed it? Do not write to it.")


# --- what a person is told ----------------------------------------------------------------


def tell(
    house: House, disk: Disk, verdict: Verdict, refusal: DiskRefused | None, was_held: bool
) -> None:
    """Open the notices that a reading deserves, and end those that it proves to be over.

    ``was_held``: the disk proved to be itself, and failed only while it was read.
    """
    disk = the_disk(house, disk.serial)  # as it is by now
    if refusal:
        _tell_refused(house, disk, refusal, was_held)
    if disk.state in GIVEN_UP:
        return
    tell_bad_copies(house, disk, verdict)
    if refusal is None and not verdict.left:
        _note_that_it_was_read(house, disk)
    if not verdict.is_well or verdict.left or catalogue.bad_copies_on(house.conn, disk):
        return
    about = disk.known_as
    house.board.settle(["copy-damaged"], about)
    if disk.held_by == "machine" and not lifecycle.is_held_for_smart(disk):
        with db.transaction(house.conn):
            catalogue.unhold(house.conn, disk, "all its copies read well", utc(time.time()))
        house.board.settle(["disk-error"], about)


def _tell_refused(house: House, disk: Disk, refusal: DiskRefused, was_held: bool) -> None:
    """The disk itself is at fault; it is no fault that one is on the shelf, or has left."""
    is_away = refusal.kind == "disk-missing" and (
        disk.state is not DiskState.ACTIVE or disk.held_by
    )
    has_left = disk.state is DiskState.SHIPPED and refusal.kind != "disk-error"
    if disk.state is DiskState.LOST or is_away or has_left:
        log.info("%s is not read: %s", disk.label, refusal)
        return
    log.warning("%s could not be read to the end: %s", disk.label, refusal)
    is_sealed = disk.state in (DiskState.CLOSED, DiskState.SHIPPED)
    if is_sealed or (was_held and disk.state is DiskState.ACTIVE):  # a pass's look is no proof
        with db.transaction(house.conn):
            at = utc(time.time())
            catalogue.note_event(house.conn, disk.id, at, catalogue.NOT_READ, refusal.why)
    house.board.tell(refusal.kind, disk.known_as, f"{refusal.why}. {refusal.what_next}")


def _note_that_it_was_read(house: House, disk: Disk) -> None:
    """Read to its end: it is there, it is itself, and it answers."""
    if catalogue.is_unread(house.conn, disk):
        with db.transaction(house.conn):
            catalogue.note_event(house.conn, disk.id, utc(time.time()), catalogue.READ, None)
    if disk.held_by == "machine" and not lifecycle.is_held_for_smart(disk):
        return  # its notice stands till it is given back
    of_writing = {"disk-read-only"} if disk.state is DiskState.ACTIVE else set()
    house.board.settle([kind for kind in DISK_KINDS if kind not in of_writing], disk.known_as)


def tell_bad_copies(house: House, disk: Disk, verdict: Verdict) -> None:
    """Which copies are not good, and whether their files have others that are."""
    bad = [*verdict.damaged, *verdict.missing]
    is_to_be_mended = catalogue.bad_copies_on(house.conn, disk) or disk.state is DiskState.ACTIVE
    said = []
    if bad and is_to_be_mended:  # else each was made again before, and nothing is left to be done
        one, many = f"copy on {disk.label} is", f"copies on {disk.label} are"
        said.append(
            f"{counted(len(verdict.damaged), one, many)} damaged, {len(verdict.missing)} missing, "
            f"{bad[0]} among them. {_io_errors_text(verdict)}{_others_text(house, disk)}"
        )
    if verdict.bad_lines:
        said.append(
            f"The manifest of {disk.label} has a bad line. {verdict.bad_lines[0]}. This harms no "
            "file: each copy was read and compared with the database."
        )
    if said:
        value = float(len(bad)) if bad else None
        house.board.tell("copy-damaged", disk.known_as, " ".join(said), value=value)
    lifecycle.tell_no_good_copy(house, disk)


def _io_errors_text(verdict: Verdict) -> str:
    """The drive itself could not read them: that is graver than bytes that were changed."""
    if not verdict.io_errors:
        return ""
    first, count = verdict.io_errors[0], len(verdict.io_errors)
    return f"I/O ERROR at {count} of them ({first.name}: {first.why}): the drive may be failing. "


def _others_text(house: House, disk: Disk) -> str:
    """Only what is known: the other copy may be bad, too, or never have been made."""
    gone = len(catalogue.without_good_copy(house.conn, disk))
    if gone:
        return f"Files of this disk with no good copy left on any other: {gone} (no-good-copy)."
    return "By what was last read of the others, each file has a good copy elsewhere."
