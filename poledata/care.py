"""Look after what is archived: read every copy of a disk again, from the medium."""

from __future__ import annotations

import errno
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass

from poledata import adoption, bag, beneath, catalogue, db, manifest, mounts, sealing, sending
from poledata.config import Config
from poledata.errors import (
    DISK_ERRNOS,
    NO_SUCH_ERRNOS,
    OBSTACLE_ERRNOS,
    DiskRefused,
    Refused,
    Stopped,
)
from poledata.house import House, is_here
from poledata.identity import HeldDisk
from poledata.lifecycle import settle_mended, the_disk
from poledata.medium import HashingReader
from poledata.notices import Board
from poledata.records import CopyOnDisk, CopyState, Disk, DiskState, VerifiedBy
from poledata.texts import shown, utc
from poledata.verdicts import GIVEN_UP, OF_US_ERRNOS, Verdict, reading_faults, tell, tell_bad_copies

__all__ = ["Verdict", "due", "must_not_be_lost", "verify", "verify_all"]
AT_ONCE = 8  # disks that are read at the same time: more than the processors can hash
Tick = Callable[[str, str, int], None]  # label, file name, bytes read
log = logging.getLogger(__name__)


def must_not_be_lost(disks: Iterable[Disk]) -> None:
    """Raises Refused, before any of them is read."""
    for disk in disks:
        if disk.state is DiskState.LOST:
            raise Refused(f"{disk.label} ({disk.serial}) is lost: nothing is expected on it.")


def due(config: Config, conn: db.Connection) -> list[Disk]:
    """The disks that are here and whose copies are to be read again, the least recent first."""
    mounted = mounts.mounted_places() if config.require_mount else None
    disks = [d for d in catalogue.disks(conn) if d.state in (DiskState.ACTIVE, DiskState.CLOSED)]
    here = [d for d in disks if d.held_by is None and is_here(config, d, mounted)]
    return sorted(here, key=lambda d: catalogue.oldest_verified_at(conn, d) or "")


def verify_all(
    config: Config,
    disks: Sequence[Disk],
    not_since: str | None,
    stop: threading.Event,
    tick: Tick,
) -> list[Verdict]:
    """Read several disks at once, each by one reader; see :func:`verify`."""

    def one(disk: Disk) -> Verdict:
        with db.connect_again(config.db_path) as conn:
            board = Board(conn, sending.channels(config.secrets))
            with board.isolated(f"{disk.label}: verifying"):
                return verify(House(config, conn, board), disk, stop, tick, not_since)
            return Verdict(disk.label, fault="a bug of this program; the log has its traceback")

    with ThreadPoolExecutor(AT_ONCE, "verify", initializer=_leave_signals_to_main) as pool:
        verdicts = list(pool.map(one, disks))
    _tell_again(config, dict(zip(disks, verdicts, strict=True)))
    return verdicts


def _tell_again(config: Config, found: dict[Disk, Verdict]) -> None:
    """What was true of the other copies when a disk was done may have been found wrong since."""
    bad = {disk: verdict for disk, verdict in found.items() if verdict.damaged or verdict.missing}
    with db.connect_again(config.db_path) as conn:
        house = House(config, conn, Board(conn, sending.channels(config.secrets)))
        settle_mended(house)
        for disk, verdict in bad.items():
            with house.board.isolated(f"{disk.label}: telling of its copies"):
                now = the_disk(house, disk.serial)
                if now.state not in GIVEN_UP:
                    tell_bad_copies(house, now, verdict)


def _leave_signals_to_main() -> None:
    """Python handles them in the main thread, which waits: one taken here would not wake it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def verify(
    house: House,
    disk: Disk,
    stop: threading.Event,
    tick: Tick,
    not_since: str | None = None,
) -> Verdict:
    """Read every copy that the database has on a disk; write down what was found.

    The least recently verified come first, so that an interrupted run goes on where it ended.
    ``not_since``: only copies that were not verified since then (as the database writes times).
    """
    verdict = Verdict(disk.label)
    held = refusal = None
    try:
        with reading_faults(disk), house.shelf() as shelf, closing(HashingReader()) as reader:
            held = shelf.hold(disk)
            if held.mark is None:
                return verdict  # a spare that was never used: there is nothing on it
            _verify_copies(house, held, reader, verdict, stop, tick, not_since)
            verdict.unregistered = _unregistered(house, held)
            _compare_with_manifest(house, held, verdict)
    except Stopped:
        pass  # ``left`` says how much
    except DiskRefused as fault:
        refusal, verdict.fault = fault, str(fault)
    tell(house, disk, verdict, refusal, was_held=held is not None)
    return verdict


def _verify_copies(
    house: House,
    held: HeldDisk,
    reader: HashingReader,
    verdict: Verdict,
    stop: threading.Event,
    tick: Tick,
    not_since: str | None,
) -> None:
    ids = catalogue.copy_ids_on(house.conn, held.disk, not_since)
    verdict.left = len(ids)
    for file_id in ids:
        if stop.is_set():
            raise Stopped()
        about = f"{held.disk.label}: verifying file {file_id}"
        with house.board.isolated(about, passes=(OSError,)):
            copy = catalogue.copy_on(house.conn, held.disk, file_id)
            if copy:
                _verify_one(house, held, copy, reader, verdict, stop, tick)
            verdict.left -= 1


def _verify_one(
    house: House,
    held: HeldDisk,
    copy: CopyOnDisk,
    reader: HashingReader,
    verdict: Verdict,
    stop: threading.Event,
    tick: Tick,
) -> None:
    def tick_or_stop(n_bytes: int) -> None:
        if stop.is_set():
            raise Stopped()
        tick(held.disk.label, copy.name, n_bytes)

    found = _read_state(held, copy, reader, tick_or_stop)
    verdict.note(copy, found.state, found.io_error)
    with db.transaction(house.conn):
        _must_still_count(house, held.disk)
        at = utc(time.time())
        catalogue.verified(house.conn, copy, held.disk, found.state, found.how, at)


def _must_still_count(house: House, disk: Disk) -> None:
    """Raises DiskRefused where a person gave the disk up while it was read."""
    if the_disk(house, disk.serial).state in GIVEN_UP:
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
            parent_fd = stack.enter_context(beneath.directory(held.root_fd, parent))
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


def _unregistered(house: House, held: HeldDisk) -> list[str]:
    """What is under data/ and the database does not have on this disk, links and pipes too.

    One that is in the buffer still is on its way: a pass may be at work on it.
    """
    names = [name for name, _ in sealing.entries_under_data(held.root_fd)]
    known = {copy.name for copy in catalogue.copies_on(house.conn, held.disk)}
    strange = (name for name in sorted(names) if name not in known)
    with adoption.presence(house.config, house.conn) as buffer:
        return [shown(name) for name in strange if buffer.has_left(name)]


def _compare_with_manifest(house: House, held: HeldDisk, verdict: Verdict) -> None:
    """Good copies of which it says nothing, or something else; lines of which nothing is known."""
    bad = manifest.BadLines()
    lines = {line.name: line.sha512 for line in manifest.read_on(held.root_fd, bad)}
    verdict.bad_lines = bad.texts()
    copies = {copy.name: copy for copy in catalogue.copies_on(house.conn, held.disk)}
    good = (copy for copy in copies.values() if copy.state is CopyState.GOOD)
    verdict.unlisted = sorted(shown(c.name) for c in good if lines.get(c.name) != c.sha512)
    strange = sorted(lines.keys() - copies.keys())
    verdict.nowhere = [
        shown(name) for name in strange if beneath.stat(held.root_fd, f"{bag.DATA}/{name}") is None
    ]
