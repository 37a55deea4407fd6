"""From which copy another one is made again, and reading it as a pass reads the buffer."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from poledata import bag, beneath, catalogue, db, manifest, medium
from poledata.errors import DISK_ERRNOS, FileFault, SourceChanged
from poledata.house import House
from poledata.identity import HeldDisk
from poledata.leftovers import held_if_here
from poledata.records import (
    CopyState,
    DiskState,
    FileStat,
    KnownCopy,
    KnownFile,
    ManifestLine,
    Role,
    Waiting,
)
from poledata.shelf import Shelf
from poledata.texts import shown

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a disk that is well can't take a certain file."""

    disk_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Todo:
    """A file that lacks a copy; ``tried`` are disks whose copy did not prove good.

    Where something is ``in_the_way`` the next disk of the role may take it.
    """

    file_id: int
    tries: int = 0
    tried: frozenset[int] = frozenset()
    in_the_way: tuple[Obstacle, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """One of them, and the copy that it is made again from."""

    todo: Todo
    known: KnownFile
    copy: KnownCopy
    held: HeldDisk
    waiting: Waiting


def find_obstacles(held: HeldDisk, chosen: Iterable[Chosen]) -> dict[str, Obstacle]:
    """What on this disk would stop which of these files, by name; nothing is written.

    A directory is never moved, nor a file that by the disk's manifest is archived. Raises OSError.
    """
    found, standing = {}, {}
    for one in chosen:
        path = f"{bag.DATA}/{one.known.name}"
        if why := _why_not_there(held, path):
            found[one.known.name] = Obstacle(held.disk.id, why)
        elif beneath.stat(held.root_fd, path):
            standing[one.known.name] = one.known.sha512
    lines = manifest.find_lines(held.root_fd, standing, manifest.BadLines()) if standing else {}
    for name, line in lines.items():
        if line.sha512 != standing[name] and _is_as_archived(held, line):
            why = f"by its manifest, other content is archived on {held.disk.label} under this name"
            found[name] = Obstacle(held.disk.id, why)
    return found


def _why_not_there(held: HeldDisk, path: str) -> str | None:
    """Why no file can get to its place on this disk. Raises OSError where the disk is at fault."""
    label = held.disk.label
    try:
        place = beneath.in_the_way(held.root_fd, path)
    except OSError as fault:
        if fault.errno in DISK_ERRNOS:
            raise
        return f"{label}: {fault.strerror or fault} ({held.path / shown(path)})"
    what = "a directory" if place == path else "something"
    return f"on {label} {what} stands in its way ({held.path / shown(place)})" if place else None


def _is_as_archived(held: HeldDisk, line: ManifestLine) -> bool:
    """Whether a file is what its manifest line says. Raises OSError."""
    with closing(medium.HashingReader()) as reader:
        try:
            return held.read_copy(line.name, reader, lambda _: None).sha512 == line.sha512
        except OSError:
            if held.answers():
                return False  # the medium is bad there, or it is no file
            raise


class FromDisks:
    """In the buffer's place (copying.Source): what is read are copies on held disks."""

    def __init__(self, chosen: Iterable[Chosen]) -> None:
        self._held = {one.known.name: one.held for one in chosen}

    @contextmanager
    def finished(self, waiting: Waiting) -> Iterator[int]:
        held = self._held[waiting.name]
        try:
            with beneath.opened(held.root_fd, f"{bag.DATA}/{waiting.name}") as fd:
                self.must_be_untouched(fd, waiting)
                yield fd
        except OSError as fault:
            why = f"{held.disk.label} does not give it back ({fault.strerror or fault})"
            raise FileFault(shown(waiting.name), why) from fault

    def read_ahead(self, waiting: Waiting) -> None:
        beneath.read_ahead(self._held[waiting.name].root_fd, f"{bag.DATA}/{waiting.name}")

    def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
        if FileStat.of(os.fstat(fd)) != waiting.stat:
            raise SourceChanged(shown(waiting.name), "its copy changed while it was read")


class Chooser:
    """Finds the copies that a role's are made from, and counts what it can't find."""

    def __init__(self, house: House, role: Role, is_dry: bool) -> None:
        self._house, self._role, self._is_dry = house, role, is_dry
        self.mute: set[int] = set()  # disks that no more is read from
        self.found_bad: set[tuple[int, int]] = set()  # ids of files and disks, by reading
        self.no_good_copy: set[str] = set()  # shown names
        self.not_here: dict[str, int] = {}  # label of a disk with good copies → how many

    def choose(self, shelf: Shelf, todo: Todo) -> Chosen | None:
        """The first copy that is here and was not tried; noted, if there is none.

        Good ones first, the other role's before this one's. One that was found damaged may have
        been so for a moment: reading it tells.
        """
        known = catalogue.file_by_id(self._house.conn, todo.file_id)
        there = [c for c in known.copies if c.state is not CopyState.MISSING]
        there = [c for c in there if c.disk.state is not DiskState.LOST]
        for copy in sorted(there, key=self._how_dear):
            if copy.disk.id in todo.tried | self.mute:
                continue
            held = held_if_here(shelf, copy.disk)
            if held and (waiting := self._waiting(held, known, copy)):
                return Chosen(todo, known, copy, held, waiting)
        self._note_that_none_is_here(known, there)
        return None

    def _waiting(self, held: HeldDisk, known: KnownFile, copy: KnownCopy) -> Waiting | None:
        """The copy, as copying asks for its source; None where it can't be a good one."""
        try:
            info = beneath.stat(held.root_fd, f"{bag.DATA}/{known.name}")
        except OSError as fault:
            log.warning("%s: %s can't be looked at: %s", held.disk.label, shown(known.name), fault)
            return None
        if info is None:
            self.note_bad(known, copy, CopyState.MISSING)
            return None
        if not stat.S_ISREG(info.st_mode) or info.st_size != known.size_bytes:
            self.note_bad(known, copy, CopyState.DAMAGED)
            return None
        return Waiting(known.name, FileStat.of(info), stat.S_IMODE(info.st_mode))

    def note_bad(self, known: KnownFile, copy: KnownCopy, state: CopyState) -> None:
        """A copy that was thought good did not prove so."""
        label, conn = copy.disk.label, self._house.conn
        if copy.state is not CopyState.GOOD:
            return  # known
        self.found_bad.add((known.id, copy.disk.id))
        if self._is_dry:
            return
        with db.transaction(conn):
            catalogue.set_copy_state(conn, known.id, copy.disk, state)
        self._house.board.tell(
            "copy-damaged",
            shown(known.name),
            f"Its copy on {label} was to be copied from, and is {state.value}.",
        )

    def _note_that_none_is_here(self, known: KnownFile, there: list[KnownCopy]) -> None:
        good = [
            c.disk.label
            for c in there
            if c.state is CopyState.GOOD and (known.id, c.disk.id) not in self.found_bad
        ]
        if not good:
            self.no_good_copy.add(shown(known.name))
        for label in good:
            self.not_here[label] = self.not_here.get(label, 0) + 1

    def _how_dear(self, copy: KnownCopy) -> tuple[bool, bool, bool]:
        is_bad = copy.state is not CopyState.GOOD
        return (is_bad, copy.disk.role is self._role, bool(copy.disk.held_by))
