"""What a reading of one disk found, the notices that it deserves, and those that it ends.

A fault of the disk is no fault of its copies: where the disk does not answer, is not itself, or
may not be read, nothing is said of what it holds.
"""

from __future__ import annotations

import errno
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from poledata import db
from poledata.archive import buffer_marker
from poledata.config import Config
from poledata.context import Context, is_here
from poledata.disks import bag, lifecycle, manifest
from poledata.disks.closing import entries_under_data
from poledata.disks.identity import HeldDisk, disk_faults
from poledata.disks.lifecycle import settle_mended, the_disk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import (
    DISK_ERRNOS,
    NO_SUCH_ERRNOS,
    OBSTACLE_ERRNOS,
    CannotClose,
    DiskRefused,
    Refused,
    Stopped,
)
from poledata.formatting import counted, shown, utc
from poledata.models import CopyOnDisk, CopyState, Disk, DiskState, VerifiedBy
from poledata.notices.channels import configured_channels
from poledata.notices.kinds import DISK_KINDS
from poledata.notices.store import Board
from poledata.system import mounts, paths
from poledata.system.direct_io import HashingReader

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
class VerifyResult:
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
    context: Context, disk: Disk, verdict: VerifyResult, refusal: DiskRefused | None, was_held: bool
) -> None:
    """Open the notices that a reading deserves, and end those that it proves to be over.

    ``was_held``: the disk proved to be itself, and failed only while it was read.
    """
    disk = the_disk(context, disk.serial)  # as it is by now
    if refusal:
        _tell_refused(context, disk, refusal, was_held)
    if disk.state in GIVEN_UP:
        return
    tell_bad_copies(context, disk, verdict)
    if refusal is None and not verdict.left:
        _note_that_it_was_read(context, disk)
    if not verdict.is_well or verdict.left or db.copies.bad_copies_on(context.conn, disk):
        return
    about = disk.known_as
    context.board.settle(["copy-damaged"], about)
    if disk.held_by == "machine" and not lifecycle.is_held_for_smart(disk):
        with db.transaction(context.conn):
            db.disks.unhold(context.conn, disk, "all its copies read well", utc(time.time()))
        context.board.settle(["disk-error"], about)


def _tell_refused(context: Context, disk: Disk, refusal: DiskRefused, was_held: bool) -> None:
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
        with db.transaction(context.conn):
            at = utc(time.time())
            db.disks.note_event(context.conn, disk.id, at, db.disks.NOT_READ, refusal.why)
    context.board.tell(refusal.kind, disk.known_as, f"{refusal.why}. {refusal.what_next}")


def _note_that_it_was_read(context: Context, disk: Disk) -> None:
    """Read to its end: it is there, it is itself, and it answers."""
    if db.disks.is_unread(context.conn, disk):
        with db.transaction(context.conn):
            db.disks.note_event(context.conn, disk.id, utc(time.time()), db.disks.READ, None)
    if disk.held_by == "machine" and not lifecycle.is_held_for_smart(disk):
        return  # its notice stands till it is given back
    of_writing = {"disk-read-only"} if disk.state is DiskState.ACTIVE else set()
    context.board.settle([kind for kind in DISK_KINDS if kind not in of_writing], disk.known_as)


def tell_bad_copies(context: Context, disk: Disk, verdict: VerifyResult) -> None:
    """Which copies are not good, and whether their files have others that are."""
    bad = [*verdict.damaged, *verdict.missing]
    is_to_be_mended = db.copies.bad_copies_on(context.conn, disk) or disk.state is DiskState.ACTIVE
    said = []
    if bad and is_to_be_mended:  # else each was made again before, and nothing is left to be done
        one, many = f"copy on {disk.label} is", f"copies on {disk.label} are"
        said.append(
            f"{counted(len(verdict.damaged), one, many)} damaged, {len(verdict.missing)} missing, "
            f"{bad[0]} among them. {_io_errors_text(verdict)}{_others_text(context, disk)}"
        )
    if verdict.bad_lines:
        said.append(
            f"The manifest of {disk.label} has a bad line. {verdict.bad_lines[0]}. This harms no "
            "file: each copy was read and compared with the database."
        )
    if said:
        value = float(len(bad)) if bad else None
        context.board.tell("copy-damaged", disk.known_as, " ".join(said), value=value)
    lifecycle.tell_no_good_copy(context, disk)


def _io_errors_text(verdict: VerifyResult) -> str:
    """The drive itself could not read them: that is graver than bytes that were changed."""
    if not verdict.io_errors:
        return ""
    first, count = verdict.io_errors[0], len(verdict.io_errors)
    return f"I/O ERROR at {count} of them ({first.name}: {first.why}): the drive may be failing. "


def _others_text(context: Context, disk: Disk) -> str:
    """Only what is known: the other copy may be bad, too, or never have been made."""
    gone = len(db.copies.without_good_copy(context.conn, disk))
    if gone:
        return f"Files of this disk with no good copy left on any other: {gone} (no-good-copy)."
    return "By what was last read of the others, each file has a good copy elsewhere."


AT_ONCE = 8  # disks that are read at the same time: more than the processors can hash
Tick = Callable[[str, str, int], None]  # label, file name, bytes read


def must_not_be_lost(disks: Iterable[Disk]) -> None:
    """Raises Refused, before any of them is read."""
    for disk in disks:
        if disk.state is DiskState.LOST:
            raise Refused(f"{disk.label} ({disk.serial}) is lost: nothing is expected on it.")


def due(config: Config, conn: db.Connection) -> list[Disk]:
    """The disks that are here and whose copies are to be read again, the least recent first."""
    mounted = mounts.mounted_places() if config.require_mount else None
    disks = [d for d in db.disks.disks(conn) if d.state in (DiskState.ACTIVE, DiskState.CLOSED)]
    here = [d for d in disks if d.held_by is None and is_here(config, d, mounted)]
    return sorted(here, key=lambda d: db.copies.oldest_verified_at(conn, d) or "")


def verify_all(
    config: Config,
    disks: Sequence[Disk],
    not_since: str | None,
    stop: threading.Event,
    tick: Tick,
) -> list[VerifyResult]:
    """Read several disks at once, each by one reader; see :func:`verify`."""

    def one(disk: Disk) -> VerifyResult:
        with db.connect_again(config.db_path) as conn:
            board = Board(conn, configured_channels(config.secrets))
            with board.isolated(f"{disk.label}: verifying"):
                return verify(Context(config, conn, board), disk, stop, tick, not_since)
            return VerifyResult(
                disk.label, fault="a bug of this program; the log has its traceback"
            )

    with ThreadPoolExecutor(AT_ONCE, "verify", initializer=_leave_signals_to_main) as pool:
        verdicts = list(pool.map(one, disks))
    _tell_again(config, dict(zip(disks, verdicts, strict=True)))
    return verdicts


def _tell_again(config: Config, found: dict[Disk, VerifyResult]) -> None:
    """What was true of the other copies when a disk was done may have been found wrong since."""
    bad = {disk: verdict for disk, verdict in found.items() if verdict.damaged or verdict.missing}
    with db.connect_again(config.db_path) as conn:
        context = Context(config, conn, Board(conn, configured_channels(config.secrets)))
        settle_mended(context)
        for disk, verdict in bad.items():
            with context.board.isolated(f"{disk.label}: telling of its copies"):
                now = the_disk(context, disk.serial)
                if now.state not in GIVEN_UP:
                    tell_bad_copies(context, now, verdict)


def _leave_signals_to_main() -> None:
    """Python handles them in the main thread, which waits: one taken here would not wake it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def verify(
    context: Context,
    disk: Disk,
    stop: threading.Event,
    tick: Tick,
    not_since: str | None = None,
) -> VerifyResult:
    """Read every copy that the database has on a disk; write down what was found.

    The least recently verified come first, so that an interrupted run goes on where it ended.
    ``not_since``: only copies that were not verified since then (as the database writes times).
    """
    verdict = VerifyResult(disk.label)
    held = refusal = None
    try:
        with (
            reading_faults(disk),
            MountedDisks(context.config, context.conn) as mounted,
            closing(HashingReader()) as reader,
        ):
            held = mounted.hold(disk)
            if held.mark is None:
                return verdict  # a spare that was never used: there is nothing on it
            _verify_copies(context, held, reader, verdict, stop, tick, not_since)
            verdict.unregistered = _unregistered(context, held)
            _compare_with_manifest(context, held, verdict)
    except Stopped:
        pass  # ``left`` says how much
    except DiskRefused as fault:
        refusal, verdict.fault = fault, str(fault)
    tell(context, disk, verdict, refusal, was_held=held is not None)
    return verdict


def _verify_copies(
    context: Context,
    held: HeldDisk,
    reader: HashingReader,
    verdict: VerifyResult,
    stop: threading.Event,
    tick: Tick,
    not_since: str | None,
) -> None:
    ids = db.copies.copy_ids_on(context.conn, held.disk, not_since)
    verdict.left = len(ids)
    for file_id in ids:
        if stop.is_set():
            raise Stopped()
        about = f"{held.disk.label}: verifying file {file_id}"
        with context.board.isolated(about, passes=(OSError,)):
            copy = db.copies.copy_on(context.conn, held.disk, file_id)
            if copy:
                _verify_one(context, held, copy, reader, verdict, stop, tick)
            verdict.left -= 1


def _verify_one(
    context: Context,
    held: HeldDisk,
    copy: CopyOnDisk,
    reader: HashingReader,
    verdict: VerifyResult,
    stop: threading.Event,
    tick: Tick,
) -> None:
    def tick_or_stop(n_bytes: int) -> None:
        if stop.is_set():
            raise Stopped()
        tick(held.disk.label, copy.name, n_bytes)

    found = _read_state(held, copy, reader, tick_or_stop)
    verdict.note(copy, found.state, found.io_error)
    with db.transaction(context.conn):
        _must_still_count(context, held.disk)
        at = utc(time.time())
        db.copies.note_verified(context.conn, copy.file_id, held.disk, found.state, found.how, at)


def _must_still_count(context: Context, disk: Disk) -> None:
    """Raises DiskRefused where a person gave the disk up while it was read."""
    if the_disk(context, disk.serial).state in GIVEN_UP:
        raise DiskRefused(
            "disk-missing",
            disk.label,
            "it was noted as lost while it was read",
            "What it still gives back does not count any more.",
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of reading a copy; ``io_error``: what the system said in place of its bytes."""

    state: CopyState
    how: VerifiedBy | None = None
    io_error: str | None = None


def _read_state(
    held: HeldDisk,
    copy: CopyOnDisk,
    reader: HashingReader,
    tick: Callable[[int], None],
) -> _Found:
    """Raises OSError where the disk as a whole does not work.

    So does a directory that is there and can't be opened: that is no fault of the files in it.
    """
    parent, _, base = f"{bag.DATA}/{copy.name}".rpartition("/")
    with ExitStack() as stack:
        try:
            parent_fd = stack.enter_context(paths.directory(held.root_fd, parent))
        except OSError as fault:
            if fault.errno not in NO_SUCH_ERRNOS:
                raise
            return _Found(CopyState.MISSING)
        try:
            found = held.read_in(parent_fd, base, reader, tick)
        except OSError as fault:
            if fault.errno in NO_SUCH_ERRNOS - OBSTACLE_ERRNOS:
                return _Found(CopyState.MISSING)
            return _not_read(held, copy, fault)
    is_good = found.sha512 == copy.sha512 and found.stat.size_bytes == copy.size_bytes
    return _Found(CopyState.GOOD if is_good else CopyState.DAMAGED, found.verified_by)


def _not_read(held: HeldDisk, copy: CopyOnDisk, fault: OSError) -> _Found:
    """One copy alone, for the medium is bad there. Raises the fault where it is not so."""
    if fault.errno in OF_US_ERRNOS or (fault.errno in DISK_ERRNOS and not held.answers()):
        raise fault
    log.warning("%s: %s can't be read: %s", held.disk.label, shown(copy.name), fault)
    is_no_file = fault.errno in (*OBSTACLE_ERRNOS, errno.EISDIR)
    why = None if is_no_file else fault.strerror or str(fault)
    return _Found(CopyState.DAMAGED, io_error=why)


def _unregistered(context: Context, held: HeldDisk) -> list[str]:
    """What is under data/ and the database does not have on this disk, links and pipes too.

    One that is in the buffer still is on its way: a pass may be at work on it.
    """
    names = [name for name, _ in entries_under_data(held.root_fd)]
    known = {copy.name for copy in db.copies.copies_on(context.conn, held.disk)}
    strange = (name for name in sorted(names) if name not in known)
    with buffer_marker.presence(context.config, context.conn) as buffer:
        return [shown(name) for name in strange if buffer.has_left(name)]


def _compare_with_manifest(context: Context, held: HeldDisk, verdict: VerifyResult) -> None:
    """Good copies of which it says nothing, or something else; lines of which nothing is known."""
    bad = manifest.BadLines()
    lines = {line.name: line.sha512 for line in manifest.read_on(held.root_fd, bad)}
    verdict.bad_lines = bad.texts()
    copies = {copy.name: copy for copy in db.copies.copies_on(context.conn, held.disk)}
    good = (copy for copy in copies.values() if copy.state is CopyState.GOOD)
    verdict.unlisted = sorted(shown(c.name) for c in good if lines.get(c.name) != c.sha512)
    strange = sorted(lines.keys() - copies.keys())
    verdict.nowhere = [
        shown(name) for name in strange if paths.stat(held.root_fd, f"{bag.DATA}/{name}") is None
    ]
