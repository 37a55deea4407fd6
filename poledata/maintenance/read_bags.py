"""Read the manifests of disks into the catalogue: what they say, compared with what is known.

A copy that is written down here was not read back: it has no ``verified_at``, and is no ground for
removing anything. A line that contradicts what is known (other content by this name) is said and
not written down, so that neither of the two counts in both roles.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, islice

from poledata import db
from poledata.archive import buffer_marker
from poledata.context import Context
from poledata.disks import bag, manifest
from poledata.disks.closing import entries_under_data
from poledata.disks.identity import HeldDisk
from poledata.errors import NO_SUCH_ERRNOS, ManifestDamaged, Stopped
from poledata.formatting import shown, utc
from poledata.models import CopyOnDisk, CopyState, FileStat, ManifestLine, Role
from poledata.system import direct_io, paths

CHUNK_LINES = 5000  # a transaction
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """One name, and what two disks (or a disk and the database) say of it."""

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
    """Each disk in turn; one that fails stops no other. Raises Stopped."""
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
    reading = _Reading(
        context, held, BagReport(disk.label, disk.role, disk.serial, disk.state.value)
    )
    try:
        with context.board.isolated(f"{disk.label}: reading its bag", passes=(OSError,)):
            reading.manifest(stop)
            reading.files_without_line()
    except OSError as fault:
        said = f"it could not be read to its end: {fault.strerror or fault}"
        reading.report.faults.append(said)
    except ManifestDamaged as fault:  # it went since the disk was looked at
        reading.report.faults.append(str(fault))
    return reading.report


# --- one line -----------------------------------------------------------------------------


class LineFinding(Enum):
    """What a line, its file and the database say together."""

    NEW = "nothing is known of the file"
    ADDED = "the file is known, this copy of it is not"
    KNOWN = "all is known"
    BAD = "this copy is known to be damaged"
    GONE = "the line has no file"
    LOST = "the line has no file, and nothing is known of it"
    OTHER_SIZE = "the file has another size than is known"
    OTHER_CONTENT = "other content is known by this name"


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the manifest, and the file that it names; None: there is none."""

    sha512: str
    name: str
    info: os.stat_result | None


def judge(listed: Listed, row: CopyOnDisk | None) -> LineFinding:
    """Pure."""
    if row and row.sha512 != listed.sha512:
        return LineFinding.OTHER_CONTENT
    if listed.info is None:
        return LineFinding.GONE if row else LineFinding.LOST
    if row is None:
        return LineFinding.NEW
    if row.size_bytes != listed.info.st_size:
        return LineFinding.OTHER_SIZE
    if row.state is CopyState.DAMAGED:
        return LineFinding.BAD
    return LineFinding.KNOWN if row.state is CopyState.GOOD else LineFinding.ADDED


# --- one disk -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Reading:
    context: Context
    held: HeldDisk
    report: BagReport
    _unregistered: set[str] = field(default_factory=set)  # names of lines without a row here

    def manifest(self, stop: threading.Event) -> None:
        """Chunk by chunk, so that memory is bounded. Raises OSError, Stopped."""
        bad = manifest.BadLines()
        lines = manifest.read_on(self.held.root_fd, bad)
        while chunk := list(islice(lines, CHUNK_LINES)):
            if stop.is_set():
                raise Stopped("Interrupted: the database is not complete. Run this again.")
            listed = list(_with_files(self.held.root_fd, chunk))
            with db.transaction(self.context.conn):
                doubtful = self._write_down_all(listed)
            for one in doubtful:  # has to be read, so not within the transaction
                with self._isolated(one):
                    self._settle_size(one)
        self.report.faults += bad.texts()

    def _write_down_all(self, listed: Iterable[Listed]) -> list[Listed]:
        """Those that have to be read before they can be judged."""
        doubtful = []
        for one in listed:
            with self._isolated(one):
                if not self._write_down(one):
                    doubtful.append(one)
        return doubtful

    @contextmanager
    def _isolated(self, listed: Listed) -> Iterator[None]:
        """Keep a bug to this line; the disk's faults are dealt with by whoever reads it."""
        about = f"{self.report.label}: the line of {shown(listed.name)}"
        with self.context.board.isolated(about, passes=(OSError,)):
            yield

    def _write_down(self, listed: Listed) -> bool:
        """False: the file has to be read before it can be judged."""
        row = db.copies.file_on(self.context.conn, self.held.disk, listed.name)
        finding = judge(listed, row)
        if listed.info:
            self.report.files += 1
            self.report.size_bytes += listed.info.st_size
        if finding in (LineFinding.LOST, LineFinding.OTHER_CONTENT):
            self._unregistered.add(listed.name)
        if row is None:
            self._write_unknown(listed, finding)
        elif finding is LineFinding.OTHER_CONTENT:
            said = f"SHA-512 {listed.sha512[:12]}…", f"SHA-512 {row.sha512[:12]}…"
            self._differ(listed.name, *said)
        elif finding is LineFinding.BAD:
            self.report.damaged.append(shown(listed.name))
        elif finding is LineFinding.GONE:
            self.report.missing.append(shown(listed.name))
            self._set(row, listed, CopyState.MISSING)
        elif finding is LineFinding.ADDED:
            self._add(row.file_id, listed, CopyState.GOOD)
        return finding is not LineFinding.OTHER_SIZE

    def _write_unknown(self, listed: Listed, finding: LineFinding) -> None:
        info = listed.info
        if finding is LineFinding.LOST or info is None:
            self.report.lost.append(shown(listed.name))  # of what size? there is no row without
            return
        file_id = db.rebuild.add_file(
            self.context.conn, listed.name, listed.sha512, info.st_size, FileStat.of(info).mtime_ns
        )
        self._add(file_id, listed, CopyState.GOOD)

    def _set(self, row: CopyOnDisk, listed: Listed, state: CopyState) -> None:
        if row.state is None:
            self._add(row.file_id, listed, state)
        else:
            db.copies.set_copy_state(self.context.conn, row.file_id, self.held.disk, state)

    def _add(self, file_id: int, listed: Listed, state: CopyState) -> None:
        conn, info, now_s = self.context.conn, listed.info, time.time()
        # The inode was last changed when the copy got its final name.
        at = utc(min(info.st_ctime, now_s) if info else now_s)
        mtime_ns = FileStat.of(info).mtime_ns if info else None
        db.rebuild.add_unverified_copy(conn, file_id, self.held.disk, state, mtime_ns, at)
        self.report.new_copies += 1

    def _differ(self, name: str, here: str, there: str) -> None:
        label = self.held.disk.label
        others = [o for o in db.rebuild.labels_of(self.context.conn, name) if o != label]
        there = f"{', '.join(others) or 'the database'}: {there}"
        self.report.differences.append(Difference(shown(name), f"{label}: {here}", there))

    # --- two sizes ------------------------------------------------------------------------

    def _settle_size(self, listed: Listed) -> None:
        """The right size is that of a copy which has the SHA-512."""
        row = db.copies.file_on(self.context.conn, self.held.disk, listed.name)
        assert row and listed.info
        size_bytes, is_whole = listed.info.st_size, self._is_whole(listed)
        with db.transaction(self.context.conn):
            if is_whole:
                mtime_ns = FileStat.of(listed.info).mtime_ns
                db.rebuild.correct_size(self.context.conn, row.file_id, size_bytes, mtime_ns)
            self._set(row, listed, CopyState.GOOD if is_whole else CopyState.DAMAGED)
        if not is_whole:
            self.report.damaged.append(shown(listed.name))

    def _is_whole(self, listed: Listed) -> bool:
        try:
            with closing(direct_io.HashingReader()) as reader:
                copy = self.held.read_copy(listed.name, reader, lambda _: None)
        except OSError as fault:
            log.warning("%s: %s: %s", self.held.disk.label, shown(listed.name), fault)
            return False
        return copy.sha512 == listed.sha512

    # --- files without a line -------------------------------------------------------------

    def files_without_line(self) -> None:
        """One that is in the buffer still is on its way: the next pass goes on with it."""
        with buffer_marker.presence(self.context.config, self.context.conn) as buffer:
            for name, _ in entries_under_data(self.held.root_fd):
                if not self._is_known(name) and buffer.has_left(name):
                    self.report.without_line.append(shown(name))
        self.report.without_line.sort()

    def _is_known(self, name: str) -> bool:
        if name in self._unregistered or bag.why_not_carried(name):
            return name in self._unregistered
        row = db.copies.file_on(self.context.conn, self.held.disk, name)
        return row is not None and row.state is not None


def _with_files(root_fd: int, lines: Sequence[ManifestLine]) -> Iterator[Listed]:
    """Each line with its file's stat; neighbours in one directory share the way there."""
    for parent, group in groupby(lines, key=lambda line: line.name.rpartition("/")[0]):
        here = list(group)
        bases = [line.name.rpartition("/")[2] for line in here]
        infos = _stats_in(root_fd, f"{bag.DATA}/{parent}".rstrip("/"), bases)
        for line, base in zip(here, bases, strict=True):
            yield Listed(line.sha512, line.name, infos.get(base))


def _stats_in(root_fd: int, path: str, bases: Sequence[str]) -> dict[str, os.stat_result]:
    """Of those that are regular files in this directory."""
    try:
        with paths.directory(root_fd, path) as fd:
            infos = {base: _stat(fd, base) for base in bases}
    except OSError as fault:
        if fault.errno not in NO_SUCH_ERRNOS:
            raise
        return {}
    return {base: info for base, info in infos.items() if info and stat.S_ISREG(info.st_mode)}


def _stat(directory_fd: int, base: str) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=directory_fd, follow_symlinks=False)
    except OSError as fault:
        if fault.errno not in NO_SUCH_ERRNOS:
            raise
        return None
