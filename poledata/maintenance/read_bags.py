"""Read the manifests of disks into the database, and compare them with what is known.

A copy that is registered here was not read back: it has no ``verified_at``, and never justifies a
removal. A line that contradicts what is known (other content by this name) is reported and not
registered, so that neither of the two counts in both roles.
"""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from itertools import groupby, islice

from poledata import db
from poledata.archive import buffer_marker
from poledata.context import Context
from poledata.disks import bag, manifest
from poledata.disks.identity import HeldDisk
from poledata.errors import NO_SUCH_ERRNOS, ManifestDamaged, Stopped
from poledata.formatting import shown, utc, why_not_carried
from poledata.maintenance.copy_check import examine
from poledata.models import CopyOnDisk, CopyState, FileStat, ManifestLine, Role
from poledata.system import paths
from poledata.system.direct_io import HashingReader

CHUNK_LINES = 5000  # a transaction


@dataclass(frozen=True, slots=True)
class Difference:
    """One name, and what two disks (or a disk and the database) have for it."""

    name: str
    here: str
    there: str


@dataclass(slots=True)
class BagReport:
    """What one disk gave; names are shown names."""

    label: str
    role: Role
    serial: str
    state: str
    files: int = 0  # lines whose file is there
    size_bytes: int = 0
    new_copies: int = 0  # not known to the database before
    missing: list[str] = field(default_factory=list)  # a line without its file
    damaged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # missing, and not on any other disk either
    without_line: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # of the manifest, or of the disk as a whole

    @property
    def is_well(self) -> bool:
        bad = (self.missing, self.damaged, self.lost, self.without_line)
        return not any((*bad, self.differences, self.faults))


def read_all(context: Context, helds: Sequence[HeldDisk], stop: threading.Event) -> list[BagReport]:
    """Read each disk in turn; one that fails stops no other. Raises Stopped."""
    reports = [_read(context, held, stop) for held in helds]
    for at, held in enumerate(helds):
        # By now the file is known, if any other disk has it; or that its size here is wrong.
        if reports[at].lost or db.copies.bad_copies_on(context.conn, held.disk):
            again = _read(context, held, stop)
            again.new_copies += reports[at].new_copies
            reports[at] = again
    return reports


def _read(context: Context, held: HeldDisk, stop: threading.Event) -> BagReport:
    disk = held.disk
    report = BagReport(disk.label, disk.role, disk.serial, disk.state.value)
    reading = _BagReading(context, held, report)
    try:
        with context.findings.isolated(f"{disk.label}: reading its bag", passes=(OSError,)):
            reading.read_manifest(stop)
            reading.find_files_without_line()
    except OSError as fault:
        report.faults.append(f"it could not be read to its end: {fault.strerror or fault}")
    except ManifestDamaged as fault:  # it vanished after the disk was looked at
        report.faults.append(str(fault))
    return report


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the manifest, and the stat of the file that it names; None: there is none."""

    sha512: str
    name: str
    stat: FileStat | None


@dataclass(slots=True)
class _BagReading:
    context: Context
    held: HeldDisk
    report: BagReport
    _unregistered: set[str] = field(default_factory=set)  # names of lines without a row here

    def read_manifest(self, stop: threading.Event) -> None:
        """Register the lines, chunk by chunk so that memory is bounded. Raises OSError, Stopped."""
        bad = manifest.BadLines()
        lines = manifest.read_on(self.held.root_fd, bad)
        while chunk := list(islice(lines, CHUNK_LINES)):
            if stop.is_set():
                raise Stopped("Interrupted: the database is not complete. Run this again.")
            listed = list(_with_files(self.held.root_fd, chunk))
            doubtful: list[Listed] = []
            with db.transaction(self.context.conn):
                for one in listed:
                    with self._isolated(one):
                        if not self._register(one):
                            doubtful.append(one)
            for one in doubtful:  # these must be read: not within the transaction
                with self._isolated(one):
                    self._settle_size(one)
        self.report.faults += bad.texts()

    def _isolated(self, listed: Listed) -> AbstractContextManager[None]:
        """Keep a bug to this line; faults of the disk pass."""
        about = f"{self.report.label}: the line of {shown(listed.name)}"
        return self.context.findings.isolated(about, passes=(OSError,))

    def _row(self, name: str) -> CopyOnDisk | None:
        return db.copies.file_on(self.context.conn, self.held.disk, name)

    def _register(self, listed: Listed) -> bool:
        """Compare a line, its file and the database, and register what is new.

        False: the file has another size than is known, so it must be read first.
        """
        name, found, row = listed.name, listed.stat, self._row(listed.name)
        if found:
            self.report.files += 1
            self.report.size_bytes += found.size_bytes
        if row is None:
            self._register_new(listed)
        elif row.sha512 != listed.sha512:
            self._unregistered.add(name)
            self.report.differences.append(self._difference(listed, row))
        elif found is None:
            self.report.missing.append(shown(name))
            self._set(row, listed, CopyState.MISSING)
        elif row.size_bytes != found.size_bytes:
            return False
        elif row.state is CopyState.DAMAGED:
            self.report.damaged.append(shown(name))
        elif row.state is not CopyState.GOOD:
            self._add(row.file_id, listed, CopyState.GOOD)
        return True

    def _register_new(self, listed: Listed) -> None:
        name, found = listed.name, listed.stat
        if found is None:  # a row needs a size, which nobody knows
            self._unregistered.add(name)
            self.report.lost.append(shown(name))
            return
        file_id = db.rebuild.add_file(
            self.context.conn, name, listed.sha512, found.size_bytes, found.mtime_ns
        )
        self._add(file_id, listed, CopyState.GOOD)

    def _set(self, row: CopyOnDisk, listed: Listed, state: CopyState) -> None:
        if row.state is None:
            self._add(row.file_id, listed, state)
        else:
            db.copies.set_copy_state(self.context.conn, row.file_id, self.held.disk, state)

    def _add(self, file_id: int, listed: Listed, state: CopyState) -> None:
        conn, found, now_s = self.context.conn, listed.stat, time.time()
        # The inode was last changed when the copy got its final name.
        at = utc(min(found.ctime_ns / 1e9, now_s) if found else now_s)
        mtime_ns = found.mtime_ns if found else None
        db.rebuild.add_unverified_copy(conn, file_id, self.held.disk, state, mtime_ns, at)
        self.report.new_copies += 1

    def _difference(self, listed: Listed, row: CopyOnDisk) -> Difference:
        label, name = self.held.disk.label, listed.name
        others = [o for o in db.rebuild.labels_of(self.context.conn, name) if o != label]
        there = ", ".join(others) or "the database"
        return Difference(
            shown(name),
            f"{label}: SHA-512 {listed.sha512[:12]}…",
            f"{there}: SHA-512 {row.sha512[:12]}…",
        )

    def _settle_size(self, listed: Listed) -> None:
        """The right size is that of a copy which has the SHA-512. Raises OSError."""
        row, found = self._row(listed.name), listed.stat
        assert row and found
        with closing(HashingReader()) as reader:
            state = examine(self.held, listed.name, listed.sha512, reader).state
        if state is CopyState.MISSING:  # it vanished after the look at it
            state = CopyState.DAMAGED
        with db.transaction(self.context.conn):
            if state is CopyState.GOOD:
                db.rebuild.correct_size(
                    self.context.conn, row.file_id, found.size_bytes, found.mtime_ns
                )
            self._set(row, listed, state)
        if state is not CopyState.GOOD:
            self.report.damaged.append(shown(listed.name))

    def find_files_without_line(self) -> None:
        """A file that is still in the buffer is left out: the next pass goes on with it."""
        with buffer_marker.presence(self.context.config, self.context.conn) as buffer:
            for name, _ in bag.entries_under_data(self.held.root_fd):
                if not self._is_known(name) and buffer.has_left(name):
                    self.report.without_line.append(shown(name))
        self.report.without_line.sort()

    def _is_known(self, name: str) -> bool:
        if name in self._unregistered or why_not_carried(name):
            return name in self._unregistered
        row = self._row(name)
        return row is not None and row.state is not None


def _with_files(root_fd: int, lines: Sequence[ManifestLine]) -> Iterator[Listed]:
    """Yield each line with its file's stat; neighbors in one directory share the way there."""
    for parent, group in groupby(lines, key=lambda line: line.name.rpartition("/")[0]):
        here = list(group)
        stats = _stats_in(root_fd, f"{bag.DATA}/{parent}".rstrip("/"), here)
        yield from (Listed(line.sha512, line.name, stats.get(line.name)) for line in here)


def _stats_in(root_fd: int, path: str, lines: Iterable[ManifestLine]) -> dict[str, FileStat]:
    """Return the stats by name of those that are regular files in this directory."""
    try:
        with paths.directory(root_fd, path) as fd:
            infos = {line.name: paths.stat(fd, line.name.rpartition("/")[2]) for line in lines}
    except OSError as fault:
        if fault.errno not in NO_SUCH_ERRNOS:
            raise
        return {}
    return {
        n: FileStat.of(info) for n, info in infos.items() if info and stat.S_ISREG(info.st_mode)
    }
