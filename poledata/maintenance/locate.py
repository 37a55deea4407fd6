"""Where archived files are: from the database alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from poledata import db
from poledata.config import Config
from poledata.context import is_here
from poledata.disks import bag
from poledata.formatting import shown
from poledata.models import CopyState, Disk, DiskState, KnownFile, Role
from poledata.system import mounts

_ON_A_DISK = f"{bag.DATA}/"  # as manifests and packing lists write a name
_WHERE = {
    DiskState.LOST: "lost",
    DiskState.SHIPPED: "shipped",
    DiskState.RECEIVED: "received",
}


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """Where one copy is now."""

    label: str
    serial: str
    role: str
    state: str  # good damaged missing
    disk_state: str
    where: str  # mounted at …, on the shelf, shipped …
    verified_at: str | None
    confirmed: bool  # by a receipt from up north


@dataclass(frozen=True, slots=True)
class Located:
    """One file and its copies; ``name`` as it can be shown."""

    name: str
    size_bytes: int
    sha512: str
    archived_at: str | None
    places: tuple[CopyPlace, ...]
    content: str  # what CheckContent found: ok, suspect, not checked


@dataclass(frozen=True, slots=True)
class Answer:
    """Each file once, in the order of the patterns, and the patterns that no file matches."""

    files: tuple[Located, ...]
    unmatched: tuple[str, ...]


def locate(
    config: Config, conn: db.Connection, patterns: Iterable[str], since: str | None = None
) -> Answer:
    """Return every file whose name matches; from the database alone, no disk is touched.

    With ``since`` only files that were archived then or later, in this order; without patterns all.
    """
    mounted = mounts.mounted_places() if config.require_mount else None
    files: dict[int, KnownFile] = {}
    unmatched = []
    new = {known.id: known for known in db.files.archived_since(conn, since)} if since else None
    patterns = tuple(patterns)
    for pattern in patterns:
        found = {known.id: known for known in matching(conn, pattern)}
        files |= found
        if not found:
            unmatched.append(pattern)
    if new is not None:
        files = {n: known for n, known in new.items() if not patterns or n in files}
    disks = {copy.disk.id: copy.disk for known in files.values() for copy in known.copies}
    where = {disk.id: _where(config, conn, disk, mounted) for disk in disks.values()}
    return Answer(tuple(_located(conn, known, where) for known in files.values()), tuple(unmatched))


def matching(conn: db.Connection, pattern: str) -> list[KnownFile]:
    """Return the file of exactly this name first, because names may contain wildcards."""
    exact = db.files.file(conn, pattern)
    found = [*([exact] if exact else []), *db.files.find_files(conn, as_glob(pattern))]
    if not found and pattern.startswith(_ON_A_DISK):
        return matching(conn, pattern.removeprefix(_ON_A_DISK))
    return found


def as_glob(pattern: str) -> str:
    """Return a glob as it is; for a plain word, a glob for every name that contains it."""
    return pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"


def _located(conn: db.Connection, known: KnownFile, where: dict[int, str]) -> Located:
    copies = sorted(known.copies, key=lambda copy: copy.disk.role is Role.COPY)
    places = tuple(
        CopyPlace(
            copy.disk.label,
            copy.disk.serial,
            copy.disk.role.value,
            copy.state.value,
            copy.disk.state.value,
            where[copy.disk.id],
            copy.verified_at,
            copy.state is CopyState.GOOD and copy.disk.state is DiskState.RECEIVED,
        )
        for copy in copies
    )
    content = db.content.result(conn, known.id).value
    return Located(
        shown(known.name), known.size_bytes, known.sha512, known.archived_at, places, content
    )


def _where(config: Config, conn: db.Connection, disk: Disk, mounted: frozenset[str] | None) -> str:
    if disk.state in _WHERE:
        return f"{_WHERE[disk.state]} {db.disks.last_event(conn, disk, disk.state.value) or ''}"
    if is_here(config, disk, mounted):
        return f"mounted at {config.mount_points(disk.label)[0]}"
    return "on the shelf" if disk.state is DiskState.CLOSED else "not mounted"
