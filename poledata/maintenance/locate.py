"""Where archived files are: from the database alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from poledata import db
from poledata.config import Config
from poledata.context import is_here
from poledata.disks import bag
from poledata.formatting import shown
from poledata.models import Disk, DiskState, KnownCopy, KnownFile, Role
from poledata.system import mounts

_ON_A_DISK = f"{bag.DATA}/"  # as manifests and packing lists write a name
_WHERE = {DiskState.LOST: "lost", DiskState.SHIPPED: "shipped"}


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


@dataclass(frozen=True, slots=True)
class Located:
    """One file and its copies; ``name`` as it can be shown."""

    name: str
    size_bytes: int
    sha512: str
    archived_at: str | None
    places: tuple[CopyPlace, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Each file once, in the order of the patterns; and the patterns that no file matches."""

    files: tuple[Located, ...]
    unmatched: tuple[str, ...]


def locate(config: Config, conn: db.Connection, patterns: Iterable[str]) -> Answer:
    """Every file whose name matches; from the database alone, no disk is touched."""
    mounted = mounts.mounted_places() if config.require_mount else None
    where: dict[int, str] = {}
    files: dict[int, KnownFile] = {}
    unmatched = []
    for pattern in patterns:
        found = {known.id: known for known in _matching(conn, pattern)}
        files = {**files, **found}
        if not found:
            unmatched.append(pattern)
    for known in files.values():
        for copy in known.copies:
            if copy.disk.id not in where:
                where[copy.disk.id] = _where(config, conn, copy.disk, mounted)
    return Answer(tuple(_located(known, where) for known in files.values()), tuple(unmatched))


def _matching(conn: db.Connection, pattern: str) -> Iterator[KnownFile]:
    """The file of just this name first, though it may hold what else is a wild card."""
    exact, n_found = db.files.file(conn, pattern), 0
    if exact:
        yield exact
    for known in db.files.find_files(conn, as_glob(pattern)):
        n_found += 1
        yield known
    if not (exact or n_found) and pattern.startswith(_ON_A_DISK):
        yield from _matching(conn, pattern.removeprefix(_ON_A_DISK))


def _located(known: KnownFile, where: dict[int, str]) -> Located:
    copies = sorted(known.copies, key=lambda copy: copy.disk.role is Role.COPY)
    places = tuple(_place(copy, where[copy.disk.id]) for copy in copies)
    return Located(shown(known.name), known.size_bytes, known.sha512, known.archived_at, places)


def as_glob(pattern: str) -> str:
    """A glob as it stands; of a plain word, every name that holds it."""
    return pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"


def _place(copy: KnownCopy, where: str) -> CopyPlace:
    disk = copy.disk
    return CopyPlace(
        disk.label,
        disk.serial,
        disk.role.value,
        copy.state.value,
        disk.state.value,
        where,
        copy.verified_at,
    )


def _where(config: Config, conn: db.Connection, disk: Disk, mounted: frozenset[str] | None) -> str:
    if disk.state in _WHERE:
        return f"{_WHERE[disk.state]} {db.disks.last_event(conn, disk, disk.state.value) or ''}"
    if is_here(config, disk, mounted):
        return f"mounted at {config.mount_points(disk.label)[0]}"
    return "on the shelf" if disk.state is DiskState.CLOSED else "not mounted"
