"""Read the copies on disks back, write down which are good, and report what is not.

If a disk does not respond, is the wrong one, or may not be read, that is no fault of its copies:
nothing is reported about them.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from poledata import db
from poledata.archive import buffer_marker
from poledata.config import Config
from poledata.context import Context, is_here
from poledata.disks import bag, lifecycle, manifest
from poledata.disks.identity import HeldDisk, as_refusal, wrong_disk
from poledata.disks.lifecycle import the_disk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, Refused, Stopped
from poledata.formatting import counted, shown, utc_now
from poledata.maintenance.copy_check import OF_US_ERRNOS, CopyReading, examine
from poledata.models import AWAY, MANIFEST, CopyOnDisk, CopyState, Disk, DiskState
from poledata.notices.kinds import DISK_KINDS
from poledata.system import mounts, paths
from poledata.system.direct_io import HashingReader

GIVEN_UP = (DiskState.LOST, DiskState.SPARE)
AT_ONCE = 8  # disks that are read at the same time: more than the processors can hash
Tick = Callable[[str, str, int], None]  # label, file name, bytes read
_PARTS = (bag.DATA, MANIFEST, bag.MARK)  # without one of these it is not an archive disk
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IoError:
    """A copy that a disk, though it responds, does not return."""

    name: str
    why: str  # in the words of the system


@dataclass(slots=True)
class VerifyResult:
    """What reading one disk found; names are shown names."""

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
    left: int = 0  # copies that were due and not read: it was stopped, or time was up
    fault: str | None = None  # why the reading could not go on

    @property
    def is_well(self) -> bool:
        bad = (self.damaged, self.missing, self.unregistered, self.unlisted, self.nowhere)
        return not any((*bad, self.bad_lines, self.fault))

    def note(self, copy: CopyOnDisk, found: CopyReading) -> None:
        """Count one copy."""
        name = shown(copy.name)
        if found.state is CopyState.GOOD:
            self.good += 1
            self.good_bytes += copy.size_bytes
        elif found.state is CopyState.MISSING:
            self.missing.append(name)
        else:
            self.damaged.append(name)
        if found.io_error:
            self.io_errors.append(IoError(name, found.io_error))


# --- several disks at once ----------------------------------------------------------------


def must_not_be_lost(disks: Iterable[Disk]) -> None:
    """Raises Refused, before any of them is read."""
    for disk in disks:
        if disk.state is DiskState.LOST:
            raise Refused(f"{disk.label} ({disk.serial}) is lost: nothing is expected on it.")


def due(config: Config, conn: db.Connection) -> list[Disk]:
    """Return the mounted disks whose copies must be read again, the least recent first."""
    mounted = mounts.mounted_places() if config.require_mount else None
    disks = [disk for disk in db.disks.disks(conn) if disk.may_be_read]
    here = [disk for disk in disks if is_here(config, disk, mounted)]
    return sorted(here, key=lambda d: db.copies.oldest_verified_at(conn, d) or "")


def verify_all(
    config: Config,
    disks: Sequence[Disk],
    not_since: str | None,
    stop: threading.Event,
    tick: Tick,
) -> list[VerifyResult]:
    """Read several disks at once, each in its own thread; see :func:`verify`."""

    def one(disk: Disk) -> VerifyResult:
        with _own_context(config) as context:
            with context.findings.isolated(f"{disk.label}: verifying"):
                return verify(context, disk, stop, tick, not_since)
            return VerifyResult(
                disk.label, fault="a bug of this program; the log has its traceback"
            )

    with ThreadPoolExecutor(AT_ONCE, "verify", initializer=_leave_signals_to_main) as pool:
        verdicts = list(pool.map(one, disks))
    with _own_context(config) as context:
        _tell_again(context, zip(disks, verdicts, strict=True))
    return verdicts


@contextmanager
def _own_context(config: Config) -> Iterator[Context]:
    with db.connect_again(config.db_path) as conn:
        yield Context.create(config, conn)


def _tell_again(context: Context, found: Iterable[tuple[Disk, VerifyResult]]) -> None:
    """Report bad copies again: the reading of another disk may have changed what is true."""
    lifecycle.clear_repaired(context)
    for disk, verdict in found:
        if verdict.damaged or verdict.missing:
            with context.findings.isolated(f"{disk.label}: telling of its copies"):
                now = the_disk(context, disk.serial)
                if now.state not in GIVEN_UP:
                    _tell_bad_copies(context, now, verdict)


def _leave_signals_to_main() -> None:
    """Python handles signals in the main thread, which waits: one taken here would not wake it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


# --- one disk -----------------------------------------------------------------------------


def verify(
    context: Context,
    disk: Disk,
    stop: threading.Event,
    tick: Tick,
    not_since: str | None = None,
) -> VerifyResult:
    """Read every copy that the database has on a disk; write down what was found.

    The least recently verified come first, so that an interrupted run continues where it ended.
    ``not_since``: only copies that were not verified since then (as the database writes times).
    """
    verdict = VerifyResult(disk.label)
    held = refusal = None
    try:
        with (
            _reading_faults(disk),
            MountedDisks(context.config, context.conn) as mounted,
            closing(HashingReader()) as reader,
        ):
            held = mounted.hold(disk)
            if held.mark is None:
                return verdict  # a spare that was never used: there is nothing on it
            reading = _Reading(context, held, verdict, reader, stop, tick)
            reading.verify_copies(not_since)
            reading.find_unregistered()
            reading.compare_with_manifest()
            if not verdict.bad_lines:  # else they are the reason
                _note_differences(context, disk, verdict)
    except Stopped:
        pass  # ``left`` has how many
    except DiskRefused as fault:
        refusal, verdict.fault = fault, str(fault)
    _tell(context, disk, verdict, refusal, was_held=held is not None)
    return verdict


@contextmanager
def _reading_faults(disk: Disk) -> Iterator[None]:
    """Turn everything that keeps a disk from being read to its end into DiskRefused."""
    try:
        with as_refusal(disk):
            yield
    except DiskRefused as refusal:
        cause = refusal.__cause__
        if isinstance(cause, FileNotFoundError) and cause.filename in _PARTS:
            why = f"{cause.filename} is not there"
            raise wrong_disk(disk, why, "Who changed it? Do not write to it.") from cause
        if isinstance(cause, OSError) and cause.errno in OF_US_ERRNOS:
            why = f"it could not be read on: {cause.strerror}"
            what_next = "That is this machine's trouble, not the disk's: verify it again later."
            raise DiskRefused("disk-error", disk.label, why, what_next) from cause
        raise


@dataclass(frozen=True, slots=True)
class _Reading:
    """One held disk that is read, and what is found."""

    context: Context
    held: HeldDisk
    verdict: VerifyResult
    reader: HashingReader
    stop: threading.Event
    tick: Tick

    def verify_copies(self, not_since: str | None) -> None:
        """Raises OSError if the disk as a whole fails, DiskRefused, Stopped."""
        conn, disk = self.context.conn, self.held.disk
        ids = db.copies.copy_ids_on(conn, disk, not_since)
        self.verdict.left = len(ids)
        for file_id in ids:
            self._go_on()
            about = f"{disk.label}: verifying file {file_id}"
            with self.context.findings.isolated(about, passes=(OSError,)):
                if copy := db.copies.copy_on(conn, disk, file_id):
                    self.verify_one(copy)
                self.verdict.left -= 1

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise Stopped()

    def verify_one(self, copy: CopyOnDisk) -> None:
        """Read one copy, and write down what was found."""
        held, conn = self.held, self.context.conn

        def tick_or_stop(n_bytes: int) -> None:
            self._go_on()
            self.tick(held.disk.label, copy.name, n_bytes)

        found = examine(
            held, copy.name, copy.sha512, self.reader, tick_or_stop, size_bytes=copy.size_bytes
        )
        self.verdict.note(copy, found)
        with db.transaction(conn):
            if the_disk(self.context, held.disk.serial).state in GIVEN_UP:
                raise DiskRefused(
                    "disk-missing",
                    held.disk.label,
                    "it was noted as lost while it was read",
                    "What it still gives back does not count any more.",
                )
            db.copies.note_verified(
                conn, copy.file_id, held.disk, found.state, found.how, utc_now()
            )

    def find_unregistered(self) -> None:
        """Note what is under data/, also links and pipes, and not in the database for this disk.

        A file that is still in the buffer is left out: a pass may be copying it.
        """
        names = sorted(name for name, _ in bag.entries_under_data(self.held.root_fd))
        known = {copy.name for copy in db.copies.copies_on(self.context.conn, self.held.disk)}
        with buffer_marker.presence(self.context.config, self.context.conn) as buffer:
            strange = (name for name in names if name not in known and buffer.has_left(name))
            self.verdict.unregistered = list(map(shown, strange))

    def compare_with_manifest(self) -> None:
        """Note good copies without their line, and lines of which nothing else is known."""
        bad, root_fd = manifest.BadLines(), self.held.root_fd
        lines = {line.name: line.sha512 for line in manifest.read_on(root_fd, bad)}
        self.verdict.bad_lines = bad.texts()
        copies = db.copies.copies_on(self.context.conn, self.held.disk)
        good = (copy for copy in copies if copy.state is CopyState.GOOD)
        self.verdict.unlisted = sorted(shown(c.name) for c in good if lines.get(c.name) != c.sha512)
        self.verdict.nowhere = [
            shown(name)
            for name in sorted(lines.keys() - {copy.name for copy in copies})
            if paths.stat(root_fd, f"{bag.DATA}/{name}") is None
        ]
        if not (self.verdict.unlisted or self.verdict.nowhere or self.verdict.unregistered):
            manifest.note_size(self.context.conn, self.held.disk, root_fd)


# --- notices ------------------------------------------------------------------------------


def _tell(
    context: Context, disk: Disk, verdict: VerifyResult, refusal: DiskRefused | None, was_held: bool
) -> None:
    """Open the notices that a reading deserves, and settle those that it proves to be over.

    ``was_held``: the disk proved to be the right one, and failed only while it was read.
    """
    disk = the_disk(context, disk.serial)  # as it is by now
    if refusal:
        _tell_refused(context, disk, refusal, was_held)
    if disk.state in GIVEN_UP:
        return
    _tell_bad_copies(context, disk, verdict)
    if refusal is None and not verdict.left:
        _note_that_it_was_read(context, disk)
    if not verdict.is_well or verdict.left or db.copies.bad_copies_on(context.conn, disk):
        return
    context.findings.clear(["copy-damaged"], disk.known_as)
    if _is_held_for_errors(disk):
        with db.transaction(context.conn):
            db.disks.unhold(context.conn, disk, "all its copies read well", utc_now())
        context.findings.clear(["disk-error"], disk.known_as)


def _note_differences(context: Context, disk: Disk, verdict: VerifyResult) -> None:
    """Note that a disk and the database do not know the same files, or that they do."""
    counts = {
        "unregistered": verdict.unregistered,
        "unlisted": verdict.unlisted,
        "nowhere": verdict.nowhere,
    }
    found = [f"{len(names)} {what} ({names[0]})" for what, names in counts.items() if names]
    if found:
        text = f"{disk.label} and the database do not know the same files: {', '.join(found)}."
        context.findings.note("disk-differs", disk.known_as, text)
    else:
        context.findings.clear(["disk-differs"], disk.known_as)


def _is_held_for_errors(disk: Disk) -> bool:
    return disk.held_by == "machine" and not lifecycle.is_held_for_smart(disk)


def _tell_refused(context: Context, disk: Disk, refusal: DiskRefused, was_held: bool) -> None:
    """Report that the disk itself is at fault, unless it is on the shelf or has left."""
    is_away = refusal.kind == "disk-missing" and (
        disk.state is not DiskState.ACTIVE or disk.held_by
    )
    has_left = disk.state in AWAY and refusal.kind != "disk-error"
    if disk.state is DiskState.LOST or is_away or has_left:
        log.info("%s is not read: %s", disk.label, refusal)
        return
    log.warning("%s could not be read to the end: %s", disk.label, refusal)
    is_sealed = disk.state in (DiskState.CLOSED, *AWAY)
    if is_sealed or (was_held and disk.state is DiskState.ACTIVE):  # a pass can't prove it is well
        with db.transaction(context.conn):
            at = utc_now()
            db.disks.note_event(context.conn, disk.id, at, db.disks.NOT_READ, refusal.why)
    context.findings.note(refusal.kind, disk.known_as, f"{refusal.why}. {refusal.what_next}")


def _note_that_it_was_read(context: Context, disk: Disk) -> None:
    """Settle what is over: the disk was read to its end, so it is here, and the right one."""
    if db.disks.is_unread(context.conn, disk):
        with db.transaction(context.conn):
            db.disks.note_event(context.conn, disk.id, utc_now(), db.disks.READ, None)
    if not _is_held_for_errors(disk):  # else its notice stays until the hold ends
        of_writing = {"disk-read-only"} if disk.state is DiskState.ACTIVE else set()
        over = [kind for kind in DISK_KINDS if kind not in of_writing]
        context.findings.clear(over, disk.known_as)


def _tell_bad_copies(context: Context, disk: Disk, verdict: VerifyResult) -> None:
    """Report which copies are not good, and whether their files have others that are."""
    bad = [*verdict.damaged, *verdict.missing]
    is_to_repair = db.copies.bad_copies_on(context.conn, disk) or disk.state is DiskState.ACTIVE
    texts = []
    if bad and is_to_repair:  # else all were made again before, and nothing is left to do
        one, many = f"copy on {disk.label} is", f"copies on {disk.label} are"
        texts.append(
            f"{counted(len(verdict.damaged), one, many)} damaged, {len(verdict.missing)} missing, "
            f"{bad[0]} among them. {_io_errors_text(verdict)}{_others_text(context, disk)}"
        )
    if verdict.bad_lines:
        texts.append(
            f"The manifest of {disk.label} has a bad line. {verdict.bad_lines[0]}. This harms no "
            "file: each copy was read and compared with the database."
        )
    if texts:
        value = float(len(bad)) if bad else None
        context.findings.note("copy-damaged", disk.known_as, " ".join(texts), value=value)
    lifecycle.note_no_good_copy(context, disk)


def _io_errors_text(verdict: VerifyResult) -> str:
    """The drive itself could not read them: that is worse than changed bytes."""
    if not verdict.io_errors:
        return ""
    first, count = verdict.io_errors[0], len(verdict.io_errors)
    return f"I/O ERROR at {count} of them ({first.name}: {first.why}): the drive may be failing. "


def _others_text(context: Context, disk: Disk) -> str:
    """Only what is known: the other copy may be bad too, or never have been made."""
    gone = len(db.copies.without_good_copy(context.conn, disk))
    if gone:
        return f"Files of this disk with no good copy left on any other: {gone} (no-good-copy)."
    return "By what was last read of the others, each file has a good copy elsewhere."
