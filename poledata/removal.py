"""The proof that a file may leave the buffer, and the only unlink of a buffer file.

Read this page if you want to know whether anything can be lost. The evidence is gathered
anew beside the unlink, ``may_remove`` judges it, and whatever is not proved keeps the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from poledata import bag, beneath, buffer, catalogue, manifest
from poledata.db import Connection
from poledata.errors import DiskRefused, FileFault, ManifestDamaged, SourceVanished
from poledata.identity import HeldDisk
from poledata.records import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    KnownCopy,
    KnownFile,
    ManifestLine,
    Role,
    VerifiedBy,
    Waiting,
)
from poledata.texts import seconds

TAKEN = "somebody else took it from the buffer; it is archived"
_PROOFS = frozenset({VerifiedBy.DIRECT, VerifiedBy.EVICTED})


@dataclass(frozen=True, slots=True)
class CopySeen:
    """One registered copy, as it is on its disk just now."""

    label: str
    role: Role
    state: CopyState
    disk_state: DiskState
    held_by: str | None
    stand_in: bool
    verified_by: VerifiedBy | None
    refusal: str | None  # why the disk can't be looked at now
    size_bytes: int | None  # on the disk; None: it is not there
    mtime_ns: int | None
    registered_mtime_ns: int
    line_stands: bool  # its manifest line, with this SHA-512
    place: frozenset[str]  # the physical drives; for a stand-in its directory
    is_fresh: bool = True  # read back since the file came into the buffer
    device: int | None = None  # of the file on the disk
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the decision rests on."""

    name: str
    size_bytes: int
    sha512: str  # of the catalogue
    hashed_sha512: str  # of the buffer's file, when it was in the state ``hashed``
    hashed: FileStat
    source_now: FileStat
    finished: str | None  # why a writer may still have it
    copies: tuple[CopySeen, ...]


def may_remove(evidence: Evidence) -> tuple[str, ...]:
    """Why the file must stay in the buffer; () only if its two copies are proved.

    Pure: the same evidence always gives the same answer.
    """
    return (*_faults_of_source(evidence), *_faults_of_copies(evidence))


def _faults_of_source(evidence: Evidence) -> Iterable[str]:
    if evidence.hashed_sha512 != evidence.sha512:
        yield "its content is not what was archived"
    if evidence.source_now != evidence.hashed:
        yield "it has changed since it was hashed"
    if evidence.hashed.size_bytes != evidence.size_bytes:
        yield f"it has {evidence.hashed.size_bytes} bytes, archived were {evidence.size_bytes}"
    if evidence.finished is not None:
        yield evidence.finished


def _faults_of_copies(evidence: Evidence) -> Iterable[str]:
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
    """Why this copy is no ground for removal; None if it is one."""
    checks = (
        (copy.refusal is not None, str(copy.refusal)),
        (copy.state is not CopyState.GOOD, f"the copy is {copy.state.value}"),
        (copy.held_by is not None, f"the disk is held by a {copy.held_by}"),
        (copy.disk_state in (DiskState.LOST, DiskState.SPARE), f"it is {copy.disk_state.value}"),
        (
            copy.verified_by not in _PROOFS and not (copy.stand_in and copy.verified_by),
            f"read back as {copy.verified_by.value if copy.verified_by else 'never'}",
        ),
        (copy.size_bytes is None, "the file is not there"),
        (copy.size_bytes != evidence.size_bytes, f"it has {copy.size_bytes} bytes"),
        (copy.mtime_ns != copy.registered_mtime_ns, "its time has changed"),
        (not copy.line_stands, "its manifest line is not there"),
        (not copy.place, "its physical drive is unknown"),
        (not copy.is_fresh, "it was not read back since this file came into the buffer"),
        (_is_buffers_own(copy, evidence), "it is the buffer's file itself, or beside it"),
    )
    return next((why for fault, why in checks if fault), None)


def _is_buffers_own(copy: CopySeen, evidence: Evidence) -> bool:
    """Whether "copy" and source are one file, or a drive's file system is below the buffer."""
    is_same_device = copy.device == evidence.source_now.device
    return is_same_device and (copy.inode == evidence.source_now.inode or not copy.stand_in)


def _on_two_drives(proved: list[CopySeen]) -> bool:
    primaries = [copy.place for copy in proved if copy.role is Role.PRIMARY]
    return any(
        not place & copy.place for copy in proved if copy.role is Role.COPY for place in primaries
    )


# --- gathering, and the unlink --------------------------------------------------------------

Hold = Callable[[Disk], HeldDisk]  # raises DiskRefused
Lines = dict[int, ManifestLine]  # disk id → where this file's manifest line was seen


def remove(
    conn: Connection,
    buf: buffer.Buffer,
    waiting: Waiting,
    sha512: str,
    hold: Hold,
    lines: Lines,
    read_now: Collection[int] = (),
) -> tuple[str, ...]:
    """Remove an archived file from the buffer, or say why it stays.

    ``read_now`` are the ids of disks whose copy was read back in this pass; others count if
    they were verified after the file came into the buffer. ``sha512`` is of the buffer's file
    in the state ``waiting.stat``. While the evidence is gathered and the file unlinked, a
    lease keeps writers from opening it, where one can be had.
    """
    known = catalogue.file(conn, waiting.name)
    if known is None or known.archived_at is None:
        return ("it is not registered as archived",)
    copies = tuple(
        _look_at(
            known,
            copy,
            hold,
            lines,
            is_fresh=copy.disk.id in read_now or was_read_since(copy, waiting),
        )
        for copy in known.copies
    )
    try:
        with buffer.source(buf.root_fd, waiting) as fd:
            return _remove_if_proved(buf, fd, waiting, sha512, known, copies)
    except SourceVanished:
        return (TAKEN,)
    except FileFault as fault:
        return (fault.why,)


def _remove_if_proved(
    buf: buffer.Buffer,
    fd: int,
    waiting: Waiting,
    sha512: str,
    known: KnownFile,
    copies: tuple[CopySeen, ...],
) -> tuple[str, ...]:
    parent, _, base = waiting.name.rpartition("/")
    with beneath.directory(buf.root_fd, parent) as parent_fd, buffer.lease(fd) as writer:
        evidence = Evidence(
            known.name,
            known.size_bytes,
            known.sha512,
            sha512,
            hashed=waiting.stat,
            source_now=FileStat.of(os.stat(base, dir_fd=parent_fd, follow_symlinks=False)),
            finished=_why_unfinished(buf, fd, waiting, writer),
            copies=copies,
        )
        refusals = may_remove(evidence)
        return refusals or _unlink(base, parent_fd)


def _unlink(base: str, parent_fd: int) -> tuple[str, ...]:
    """The only unlink of a buffer file. Says why, if the system does not let us."""
    try:
        os.unlink(base, dir_fd=parent_fd)
    except OSError as fault:
        return (f"it is archived, but can't be unlinked: {fault.strerror or fault}",)
    return ()


def _why_unfinished(
    buf: buffer.Buffer, fd: int, waiting: Waiting, writer: buffer.Writer
) -> str | None:
    try:
        buf.must_be_finished(fd, waiting, writer)
    except FileFault as fault:
        return fault.why
    return None


def was_read_since(copy: KnownCopy, waiting: Waiting) -> bool:
    """Whether a copy was surely verified after this file came into the buffer."""
    arrived_ns = max(waiting.stat.ctime_ns, waiting.stat.mtime_ns)
    return copy.verified_at is not None and int(seconds(copy.verified_at)) * 10**9 >= arrived_ns


def _look_at(
    known: KnownFile, copy: KnownCopy, hold: Hold, lines: Lines, is_fresh: bool
) -> CopySeen:
    """One registered copy as it is now; whatever can't be seen counts against it."""
    refusal, info, line_stands, place = None, None, False, frozenset[str]()
    try:
        held = hold(copy.disk)
        info = _regular(beneath.stat(held.root_fd, f"{bag.DATA}/{known.name}"))
        line_stands = _line_stands(held, known, lines)
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
        verified_by=copy.verified_by if copy.verified_at else None,
        refusal=refusal,
        size_bytes=info.st_size if info else None,
        mtime_ns=info.st_mtime_ns if info else None,
        registered_mtime_ns=copy.mtime_ns,
        line_stands=line_stands,
        place=place,
        is_fresh=is_fresh,
        device=info.st_dev if info else None,
        inode=info.st_ino if info else None,
    )


def _regular(info: os.stat_result | None) -> os.stat_result | None:
    return info if info and stat.S_ISREG(info.st_mode) else None


def _line_stands(held: HeldDisk, known: KnownFile, lines: Lines) -> bool:
    line = lines.get(held.disk.id)
    if line and line.sha512 != known.sha512:
        return False
    if line and manifest.stands(held.root_fd, line):
        return True
    found = manifest.find_lines(held.root_fd, [known.name]).get(known.name)
    return found is not None and found.sha512 == known.sha512
