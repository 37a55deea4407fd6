"""The proof that a file may leave the buffer, and the only unlink of a buffer file.

Read this page to see whether anything can be lost. All evidence is gathered again right before the
unlink, ``may_remove`` judges it, and anything that is not proved keeps the file.

A group of files is removed in two steps. First each proved file is renamed to a hidden name, under
a lease that nobody has broken: from now on no writer can open it by its name. One second later (a
writer that had looked up the name just before has opened it by then) each file is judged again.
Then it is removed, or it gets its name back.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace

from poledata import db
from poledata.archive import buffer
from poledata.db.sqlite import Connection
from poledata.disks import bag, manifest
from poledata.disks.identity import HeldDisk
from poledata.errors import DiskRefused, FileFault, ManifestDamaged, SourceVanished, Stopped
from poledata.formatting import shown
from poledata.models import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    KnownCopy,
    KnownFile,
    ManifestLine,
    ReadBack,
    Role,
    VerifiedBy,
    Waiting,
)
from poledata.system import direct_io, file_descriptors, paths

PAUSE_S = 1.0  # between the last rename of a group and its first unlink
READ_WITHIN_S = 3600.0  # a copy must have been read back from its medium since then
ATTACHED_FOR_S = 0.1  # how long a look at a disk's mount and drive counts
GROUP_FILES = 1000  # each is held open with its lease
OTHER_DESCRIPTORS = 48  # what else a pass holds open
log = logging.getLogger(__name__)

NOT_ARCHIVED = "it is not registered as archived"
TAKEN = "somebody else took it from the buffer; it is archived"
_PROOFS = frozenset({VerifiedBy.DIRECT, VerifiedBy.EVICTED})
# The file system can't rename now, or only by replacing: then the file is removed directly.
_CAN_NOT_HIDE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENAMETOOLONG}
)


@dataclass(frozen=True, slots=True)
class CopySeen:
    """One registered copy, as it is on its disk now."""

    label: str
    role: Role
    state: CopyState
    disk_state: DiskState
    held_by: str | None
    stand_in: bool
    refusal: str | None  # why the disk can't be looked at now
    stat: FileStat | None  # on the disk; None: it is not there
    read_back: ReadBack | None  # in this pass
    read_age_s: float | None
    has_line: bool  # its manifest line, with this SHA-512
    place: frozenset[str]  # the physical drives; for a stand-in its directory


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the decision depends on."""

    name: str
    size_bytes: int
    sha512: str  # in the database
    hashed_sha512: str  # of the buffer's file, when it was in the state ``hashed``
    hashed: FileStat
    source_now: FileStat
    finished: str | None  # why a writer may still have it
    copies: tuple[CopySeen, ...]


def may_remove(evidence: Evidence) -> tuple[str, ...]:
    """Return why the file must stay in the buffer; () only if its two copies are proved.

    Pure: the same evidence always gives the same answer.
    """
    return (*_faults_of_source(evidence), *_faults_of_copies(evidence))


def only_unread(evidence: Evidence) -> tuple[str, ...]:
    """Return the labels of copies that must be read back now, because nothing else keeps the file.

    () if something else does: a file that a writer holds open must not cost two readings each time.
    """
    as_if = _as_if_read(evidence)
    if may_remove(as_if):
        return ()
    proved = {copy.role for copy in evidence.copies if why_no_proof(copy, evidence) is None}
    would_do = {c.role: c.label for c in reversed(as_if.copies) if not why_no_proof(c, as_if)}
    return tuple(would_do[role] for role in Role if role not in proved)


def why_it_stays(evidence: Evidence) -> tuple[str, ...]:
    """Return the refusals that a person needs: a copy that was not read is only named if nothing
    else keeps the file."""
    return may_remove(_as_if_read(evidence)) or may_remove(evidence)


def _as_if_read(evidence: Evidence) -> Evidence:
    """Return the evidence as if every copy that was not read lately had been read back intact."""
    copies = (
        replace(c, read_back=ReadBack(evidence.sha512, VerifiedBy.DIRECT, c.stat, 0), read_age_s=0)
        if c.stat and not _is_read_lately(c)
        else c
        for c in evidence.copies
    )
    return replace(evidence, copies=tuple(copies))


def _is_read_lately(copy: CopySeen) -> bool:
    return copy.read_age_s is not None and 0 <= copy.read_age_s <= READ_WITHIN_S


def _faults_of_source(evidence: Evidence) -> Iterator[str]:
    if evidence.hashed_sha512 != evidence.sha512:
        yield "its content is not what was archived"
    if evidence.source_now != evidence.hashed:
        yield "it has changed since it was hashed"
    if evidence.hashed.size_bytes != evidence.size_bytes:
        yield f"it has {evidence.hashed.size_bytes} bytes, archived were {evidence.size_bytes}"
    if evidence.finished is not None:
        yield evidence.finished


def _faults_of_copies(evidence: Evidence) -> Iterator[str]:
    proved = [copy for copy in evidence.copies if why_no_proof(copy, evidence) is None]
    roles = {copy.role for copy in proved}
    for role in Role:
        if role not in roles:
            found = [c for c in evidence.copies if c.role is role]
            whys = [f"{c.label}: {why_no_proof(c, evidence)}" for c in found] or ["none is known"]
            lacking = f"no proved copy on a {role.value} disk ({len(roles)} of 2 roles)"
            yield f"{lacking}: {'; '.join(whys)}"
    if len(roles) == 2 and not _on_two_drives(proved):
        yield "both copies are on one physical drive: " + ", ".join(c.label for c in proved)


def why_no_proof(copy: CopySeen, evidence: Evidence) -> str | None:
    """Return why this copy does not justify a removal; None if it does."""
    return _why_not_there(copy, evidence) or _why_not_read(copy, evidence)


def _why_not_there(copy: CopySeen, evidence: Evidence) -> str | None:
    size_bytes = copy.stat.size_bytes if copy.stat else None
    checks = (
        (copy.refusal is not None, copy.refusal or "its disk was refused"),
        (copy.state is not CopyState.GOOD, f"the copy is {copy.state.value}"),
        (copy.held_by is not None, f"the disk is held by a {copy.held_by}"),
        (copy.disk_state in (DiskState.LOST, DiskState.SPARE), f"it is {copy.disk_state.value}"),
        (copy.stat is None, "the file is not there"),
        (size_bytes != evidence.size_bytes, f"it has {size_bytes} bytes"),
        (not copy.has_line, "its manifest line is not there"),
        (not copy.place, "its physical drive is unknown"),
        (
            _is_buffers_own(copy, evidence.source_now),
            "it is the buffer's file itself, or beside it",
        ),
    )
    return next((why for fault, why in checks if fault), None)


def _why_not_read(copy: CopySeen, evidence: Evidence) -> str | None:
    read, age_s = copy.read_back, copy.read_age_s
    if read is None or age_s is None:
        return "it was not read back in this pass"
    checks = (
        (read.sha512 != evidence.sha512, f"it gave back SHA-512 {read.sha512[:12]}…"),
        (
            read.verified_by not in _PROOFS and not copy.stand_in,
            f"it was read back as {read.verified_by.value}, which proves nothing",
        ),
        (not _is_read_lately(copy), f"it was read back {age_s:.0f} s ago"),
        (not _is_same_copy(copy.stat, read.stat), "it has changed since it was read back"),
    )
    return next((why for fault, why in checks if fault), None)


def _is_same_copy(now: FileStat | None, read: FileStat) -> bool:
    """True except for the ctime, which changes when the temporary name of a copy is removed."""
    return now is not None and _with_ctime(now, read.ctime_ns) == read


def _is_buffers_own(copy: CopySeen, source: FileStat) -> bool:
    """True if copy and source are one file, or a drive's file system is the buffer's."""
    if copy.stat is None or copy.stat.device != source.device:
        return False
    return not copy.stand_in or copy.stat.inode == source.inode


def _on_two_drives(proved: list[CopySeen]) -> bool:
    primaries = [copy.place for copy in proved if copy.role is Role.PRIMARY]
    return any(
        not place & copy.place for copy in proved if copy.role is Role.COPY for place in primaries
    )


# --- gathering, and the unlink --------------------------------------------------------------

Hold = Callable[[Disk], HeldDisk]  # raises DiskRefused
Read = Callable[[KnownFile, KnownCopy], ReadBack | None]  # from the medium; raises Stopped
Isolated = Callable[[Waiting], AbstractContextManager[None]]  # keeps a bug to one file


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A buffer file that is registered as archived, and what this pass knows of its copies.

    ``sha512`` is of the buffer's file in the state ``waiting.stat``.
    """

    waiting: Waiting
    sha512: str
    lines: Mapping[int, ManifestLine] = field(default_factory=dict)  # by disk id
    read_backs: Mapping[int, ReadBack] = field(default_factory=dict)  # by disk id


@dataclass(frozen=True, slots=True)
class RemovalResult:
    """The outcome for one file: it was removed, or why and under which name it stays."""

    file: ArchivedFile
    refusals: tuple[str, ...] = ()
    stays_as: Waiting | None = None
    was_opened: bool = False  # for writing, in the instant of its removal

    @property
    def is_removed(self) -> bool:
        return not self.refusals


@dataclass(frozen=True, slots=True)
class _Open:
    """A buffer file, held open under a lease if there can be one."""

    file: ArchivedFile  # as it was found
    now: Waiting  # taking its name away changes its path and its ctime
    known: KnownFile
    fd: int
    parent_fd: int
    base: str  # its name now, in its directory
    writer: buffer.Writer

    def stays(self, *refusals: str) -> RemovalResult:
        return RemovalResult(self.file, refusals, self.now)


class Removal:
    """Removes archived files from the buffer. For the holder of the pass lock."""

    def __init__(
        self,
        conn: Connection,
        buf: buffer.Buffer,
        hold: Hold,
        read: Read,
        isolated: Isolated = lambda _: nullcontext(),
    ) -> None:
        self._conn, self._buffer, self._hold, self._read = conn, buf, hold, read
        self._isolated = isolated
        self._read_backs: dict[tuple[str, int], ReadBack | None] = {}  # by path and disk id
        self._ctimes: dict[tuple[int, int], int] = {}  # by device and inode, after our own change
        self._attached: dict[int, tuple[float, str | None]] = {}  # by disk id: when, why not

    def remove(self, files: Sequence[ArchivedFile]) -> Iterator[RemovalResult]:
        """Remove these files, or yield for each why it stays; ends early if the pass is stopped."""
        at_most = _group_files()
        for start in range(0, len(files), at_most):
            outcomes, is_stopped = self._remove_group(files[start : start + at_most])
            yield from outcomes
            if is_stopped:
                return

    def _remove_group(self, files: Sequence[ArchivedFile]) -> tuple[list[RemovalResult], bool]:
        outcomes: list[RemovalResult] = []
        group: list[_Open] = []
        is_stopped = False
        with ExitStack() as leases:
            for file in files:
                try:
                    with self._isolated(file.waiting):  # a bug keeps the file
                        done = self._hide_if_proved(file, leases)
                        group += [done] if isinstance(done, _Open) else []
                        outcomes += [done] if isinstance(done, RemovalResult) else []
                except Stopped:
                    is_stopped = True  # what is hidden already is still removed, or given back
                    break
            if group:
                time.sleep(PAUSE_S)  # a writer that had looked up a name has opened it by now
            for each in group:
                with self._isolated(each.file.waiting):
                    outcomes.append(self._remove_hidden(each))
        return outcomes, is_stopped

    # --- the first step: the name -------------------------------------------------------

    def _hide_if_proved(self, file: ArchivedFile, leases: ExitStack) -> _Open | RemovalResult:
        known = self._registered(file)
        if known is None:
            return RemovalResult(file, (NOT_ARCHIVED,), file.waiting)
        parent, _, base = file.waiting.path.rpartition("/")
        root_fd, now = self._buffer.root_fd, self._as_renamed(file.waiting)
        try:
            with ExitStack() as stack:
                fd = stack.enter_context(buffer.source(root_fd, now))
                parent_fd = stack.enter_context(paths.directory(root_fd, parent))
                done = self._lease_if_proved(
                    _Open(file, now, known, fd, parent_fd, base, buffer.Writer.UNKNOWN), stack
                )
                if isinstance(done, _Open):
                    done = self._hide(done)
                elif file.waiting.hidden_as:
                    done = _give_back(done, parent_fd, fd)
                if isinstance(done, _Open):
                    leases.push(stack.pop_all())
                return done
        except SourceVanished:
            return RemovalResult(file, (TAKEN,))
        except FileFault as fault:
            return RemovalResult(file, (fault.why,), file.waiting)

    def _registered(self, file: ArchivedFile) -> KnownFile | None:
        """Return what the database knows now; None if the file is not archived (any more)."""
        known = db.files.file(self._conn, file.waiting.name)
        return known if known and known.archived_at else None

    def _as_renamed(self, waiting: Waiting) -> Waiting:
        """Renaming one name of a file changes the ctime of its other names: allow for that."""
        ctime_ns = self._ctimes.get((waiting.stat.device, waiting.stat.inode))
        if ctime_ns is None:
            return waiting
        return replace(waiting, stat=_with_ctime(waiting.stat, ctime_ns))

    def _lease_if_proved(self, here: _Open, stack: ExitStack) -> _Open | RemovalResult:
        """Take the lease, and keep it in ``stack`` if the file may be removed.

        Copies that this pass has not read back are read once nothing else keeps the file; the
        second one only if the first is good.
        """
        while True:
            with ExitStack() as lease:
                here = replace(here, writer=lease.enter_context(buffer.lease(here.fd)))
                evidence = self._evidence(here)
                if not may_remove(evidence):
                    stack.push(lease.pop_all())
                    return here
            if not self._read_one(here, only_unread(evidence)):
                return here.stays(*why_it_stays(evidence))

    def _read_one(self, here: _Open, labels: tuple[str, ...]) -> bool:
        """Read the first of these copies back; False if there is none, or it was read already."""
        copy = next((c for c in here.known.copies if c.disk.label in labels[:1]), None)
        if copy is None or (here.file.waiting.path, copy.disk.id) in self._read_backs:
            return False
        self._read_backs[here.file.waiting.path, copy.disk.id] = self._read(here.known, copy)
        return True

    def _hide(self, here: _Open) -> _Open | RemovalResult:
        if here.file.waiting.hidden_as:
            return here
        try:
            base = buffer.hide(here.parent_fd, here.base)
        except OSError as fault:
            if fault.errno in _CAN_NOT_HIDE:  # a full buffer must never block a removal
                log.warning("%s: removed at once: %s", shown(here.now.path), fault.strerror)
                return self._unlink_if_proved(here)
            return here.stays(f"it is archived, but can't be renamed ({fault.strerror})")
        path = f"{here.now.path[: -len(here.base)]}{base}"
        gone = replace(here, now=replace(here.now, hidden_as=path), base=base)
        try:
            stat = self._note_ctime(here.fd)
            named = FileStat.of(os.stat(base, dir_fd=here.parent_fd, follow_symlinks=False))
        except OSError as fault:
            why = f"it can't be looked at ({fault.strerror})"
            return _give_back(gone.stays(why), here.parent_fd, here.fd)
        if not named == stat == _with_ctime(here.now.stat, stat.ctime_ns):
            why = "another file has taken its place, or it was written to"
            return _give_back(gone.stays(why), here.parent_fd, here.fd)
        return replace(gone, now=replace(gone.now, stat=stat))

    def _note_ctime(self, fd: int) -> FileStat:
        """A rename of ours changes the ctime of all names of the file. Raises OSError."""
        stat = FileStat.of(os.fstat(fd))
        self._ctimes[stat.device, stat.inode] = stat.ctime_ns
        return stat

    # --- the second step: the file ------------------------------------------------------

    def _remove_hidden(self, here: _Open) -> RemovalResult:
        known = self._registered(here.file)  # a disk may be held since, by a check of the drives
        if known is None:
            return _give_back(here.stays(NOT_ARCHIVED), here.parent_fd, here.fd)
        try:
            outcome = self._unlink_if_proved(replace(here, known=known))
        except FileNotFoundError:
            return RemovalResult(here.file, (TAKEN,))
        except OSError as fault:
            outcome = here.stays(f"it can't be looked at ({fault.strerror or fault})")
        return outcome if outcome.is_removed else _give_back(outcome, here.parent_fd, here.fd)

    def _unlink_if_proved(self, here: _Open) -> RemovalResult:
        """The only unlink of a buffer file."""
        refusals = may_remove(self._evidence(here))
        if refusals:
            return here.stays(*refusals)
        try:
            os.unlink(here.base, dir_fd=here.parent_fd)
        except OSError as fault:
            return here.stays(f"it is archived, but can't be unlinked: {fault.strerror or fault}")
        with suppress(OSError):  # then another name of this file looks changed, and stays
            self._note_ctime(here.fd)
        is_broken = here.writer is buffer.Writer.NONE and not buffer.is_lease_ours(here.fd)
        return RemovalResult(here.file, was_opened=is_broken)

    # --- evidence -----------------------------------------------------------------------

    def _evidence(self, here: _Open) -> Evidence:
        """Gather everything as it is now: the source last, its lease last of all."""
        file, known = here.file, here.known
        copies = tuple(self._look_at(here, copy) for copy in known.copies)
        now = os.stat(here.base, dir_fd=here.parent_fd, follow_symlinks=False)
        return Evidence(
            known.name,
            known.size_bytes,
            known.sha512,
            file.sha512,
            hashed=self._as_renamed(here.now).stat,
            source_now=FileStat.of(now),
            copies=copies,
            finished=self._why_unfinished(here),
        )

    def _why_unfinished(self, here: _Open) -> str | None:
        try:
            self._buffer.must_be_finished(here.fd, here.file.waiting, here.writer)
        except FileFault as fault:
            return fault.why
        return None

    def _look_at(self, here: _Open, copy: KnownCopy) -> CopySeen:
        """Look at one registered copy now; anything that can't be seen counts against it."""
        file, known = here.file, here.known
        refusal, info, has_line, place = None, None, False, frozenset[str]()
        read = self._read_backs.get((here.file.waiting.path, copy.disk.id))
        read = read or file.read_backs.get(copy.disk.id)
        try:
            held = self._hold(copy.disk)
            refusal = held.unsupported or self._why_detached(held)
            info = _regular(paths.stat(held.root_fd, f"{bag.DATA}/{known.name}"))
            has_line = _has_line(held, known, file.lines.get(copy.disk.id))
            place = frozenset({str(held.path.resolve())}) if copy.disk.stand_in else held.drives
        except DiskRefused as fault:
            refusal = fault.why
        except ManifestDamaged as fault:
            refusal = str(fault)
        except OSError as fault:
            refusal = f"it does not answer ({fault.strerror or fault})"
        return CopySeen(
            label=copy.disk.label,
            role=copy.disk.role,
            state=copy.state,
            disk_state=copy.disk.state,
            held_by=copy.disk.held_by,
            stand_in=copy.disk.stand_in,
            refusal=refusal,
            stat=FileStat.of(info) if info else None,
            read_back=read,
            read_age_s=direct_io.boottime_s() - read.at_s if read else None,
            has_line=has_line,
            place=place,
        )

    def _why_detached(self, held: HeldDisk) -> str | None:
        """Ask each disk at most ten times a second: the answer costs more than a file."""
        at_s, why = self._attached.get(held.disk.id, (-1.0, None))
        if time.monotonic() - at_s > ATTACHED_FOR_S:
            why = held.why_detached()
            self._attached[held.disk.id] = (time.monotonic(), why)
        return why


def give_name_back(buf: buffer.Buffer, waiting: Waiting) -> RemovalResult:
    """Give a hidden file its own name again. Raises OSError."""
    parent, _, base = waiting.path.rpartition("/")
    with (
        paths.directory(buf.root_fd, parent) as parent_fd,
        paths.opened_in(parent_fd, base) as fd,
    ):
        return _give_back(RemovalResult(ArchivedFile(waiting, ""), (), waiting), parent_fd, fd)


def _give_back(outcome: RemovalResult, parent_fd: int, fd: int) -> RemovalResult:
    """Return the outcome with the file under its own name, unless something else has that now."""
    waiting = outcome.stays_as or outcome.file.waiting
    name, base = waiting.name.rpartition("/")[2], waiting.path.rpartition("/")[2]
    try:
        paths.rename_new(parent_fd, base, name)
    except OSError as fault:
        why = f"it is now {base}, because its name can't be given back ({fault.strerror})"
        return replace(outcome, refusals=(*outcome.refusals, why), stays_as=waiting)
    now = replace(waiting, stat=_stat_or(waiting.stat, fd), hidden_as=None)
    return replace(outcome, stays_as=now)


def _group_files() -> int:
    """Return how many files may be held open at once, each with its directory."""
    return max(1, min(GROUP_FILES, (file_descriptors.raise_limit() - OTHER_DESCRIPTORS) // 2))


def _stat_or(before: FileStat, fd: int) -> FileStat:
    """Return the file's stat; if it can't be seen the old one, so that the file looks changed."""
    try:
        return FileStat.of(os.fstat(fd))
    except OSError:
        return before


def _with_ctime(stat: FileStat, ctime_ns: int) -> FileStat:
    return replace(stat, ctime_ns=ctime_ns)


def _regular(info: os.stat_result | None) -> os.stat_result | None:
    return info if info and stat.S_ISREG(info.st_mode) else None


def _has_line(held: HeldDisk, known: KnownFile, line: ManifestLine | None) -> bool:
    if line and line.sha512 != known.sha512:
        return False
    if line and manifest.has_line(held.root_fd, line):
        return True
    found = manifest.find_lines(held.root_fd, [known.name]).get(known.name)
    return found is not None and found.sha512 == known.sha512
