"""Judge an archive from outside: the test's own ledger, its own SQL, its own reading of the disks.

Nothing of ``poledata`` is imported here. What must hold is in the contract (docs/design.md); the
numbers in front of the violations are those of the ``judge_…`` functions below:

(1) every byte that entered the buffer is in the buffer, or archived;
(2) every file under a final name on a disk is whole, and stands in the manifest;
(3) the manifest is a BagIt manifest that plain ``sha512sum -c`` accepts;
(4) what the database says of files and copies is so;
(5) a disk is the bag it should be, and nothing unfinished is left on it;
(6) nothing was written where nothing may be written;
(7) the database is sound.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import mmap
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

CHUNK_BYTES = 1 << 20
MANIFEST = "manifest-sha512.txt"
TAG_MANIFEST = "tagmanifest-sha512.txt"
DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
MARK = "bag-info.txt"
# What design.md lists under "On a disk", and what mkfs makes.
TOP_LEVEL = {"bagit.txt", "bag-info.txt", "README.txt", "catalogue.sqlite", "data", "lost+found"}
TOP_LEVEL |= {MANIFEST, TAG_MANIFEST, ".incoming", ".aside"}


# --- the ledger -------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One content that was in the buffer under one name."""

    name: str
    sha512: str
    size_bytes: int


class Ledger:
    """Every (name, SHA-512, size) that a test ever put into the buffer."""

    def __init__(self, buffer: Path) -> None:
        self.buffer = buffer
        self._entries: dict[tuple[str, str], Entry] = {}
        self._withdrawn: dict[tuple[str, str], str] = {}
        self._spoiled: dict[tuple[str, str | None], str] = {}

    def put(
        self,
        name: str,
        content: bytes | int = 1000,
        *,
        seed: int = 0,
        mode: int = 0o644,
        mtime_s: float | None = None,
    ) -> Entry:
        """Write a file into the buffer, and owe it from then on.

        ``content`` is the bytes, or a size: then they are random, but the same for the
        same name, size and ``seed``. A file that stands there is written over in place,
        and its former content is owed no more.
        """
        path = self.buffer / name
        digest, size_bytes = hashlib.sha512(), 0
        for chunk in _chunks(name, content, seed):
            digest.update(chunk)
            size_bytes += len(chunk)
        self._displace(name, path)
        entry = self._owe(Entry(name, digest.hexdigest(), size_bytes))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.writelines(_chunks(name, content, seed))
            file.flush()
            os.fchmod(file.fileno(), mode)
            if mtime_s is not None:
                os.utime(file.fileno(), (mtime_s, mtime_s))
        return entry

    def saw(self, name: str, path: Path | None = None) -> Entry:
        """Owe a file that somebody else wrote (by default the one in the buffer)."""
        path = path or self.buffer / name
        return self._owe(Entry(name, sha512_of(path), path.stat().st_size))

    def rename(self, name: str, to: str) -> Entry:
        """The test gives the buffer's file another name, and its bytes are owed under that."""
        assert not os.path.lexists(self.buffer / to)
        self._displace(name, self.buffer / name)
        (self.buffer / name).rename(self.buffer / to)
        return self.saw(to)

    def withdraw(self, name: str, why: str) -> None:
        """The test itself takes this name's bytes away: they are owed no more."""
        for entry in self.contents(name):
            self._withdrawn[name, entry.sha512] = why

    def spoiled(self, disk: str, name: str | None, why: str) -> None:
        """The test itself harmed this copy (``None``: the whole disk; label or serial).

        A spoiled copy still counts as the one that was made, and is judged no more.
        """
        self._spoiled[disk, name] = why

    def is_spoiled(self, disks: Iterable[str], name: str | None) -> bool:
        return any((disk, key) in self._spoiled for disk in disks for key in (None, name))

    def contents(self, name: str) -> list[Entry]:
        """All that was ever in the buffer under this name."""
        return [entry for entry in self._entries.values() if entry.name == name]

    def known(self) -> dict[str, set[str]]:
        """All SHA-512 of each name."""
        known: dict[str, set[str]] = {}
        for name, sha512 in self._entries:
            known.setdefault(name, set()).add(sha512)
        return known

    def owed(self) -> list[Entry]:
        """What must be in the buffer, or archived."""
        return [entry for key, entry in self._entries.items() if key not in self._withdrawn]

    def _owe(self, entry: Entry) -> Entry:
        self._entries[entry.name, entry.sha512] = entry
        self._withdrawn.pop((entry.name, entry.sha512), None)
        return entry

    def _displace(self, name: str, path: Path) -> None:
        if not self.contents(name) or not _is_file(path):
            return
        former = (name, sha512_of(path))
        if former in self._entries:
            self._withdrawn[former] = "the test wrote over it, or renamed it"


def _chunks(name: str, content: bytes | int, seed: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    source = random.Random(os.fsencode(f"{name}/{content}/{seed}"))
    for start in range(0, content, CHUNK_BYTES):
        yield source.randbytes(min(CHUNK_BYTES, content - start))


# --- reading ----------------------------------------------------------------------------


def sha512_of(path: Path, *, medium: bool = False) -> str:
    """A file's SHA-512; ``medium``: with O_DIRECT where the file system supports it."""
    digest = hashlib.sha512()
    if medium and _hash_direct(path, digest):
        return digest.hexdigest()
    digest = hashlib.sha512()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _hash_direct(path: Path, digest: hashlib._Hash) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    try:
        size_bytes, done = os.fstat(fd).st_size, 0
        with mmap.mmap(-1, CHUNK_BYTES) as page_aligned:
            while done < size_bytes:
                count = os.preadv(fd, [page_aligned], done)
                if not count:
                    return False
                digest.update(page_aligned[:count])
                done += count
        return True
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(fd)


def _is_file(path: Path) -> bool:
    """A regular file, not a link to one; False where nothing is."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


# --- snapshots --------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One entry of a tree; ``content`` is a file's SHA-512 or a link's target."""

    kind: str
    mode: int
    size_bytes: int
    mtime_ns: int
    content: str


@dataclass(frozen=True)
class Snapshot:
    """A whole tree at one moment: compare with ``==``, or ``differences``."""

    root: Path
    items: tuple[tuple[str, Item], ...]

    def differences(self, other: Snapshot) -> list[str]:
        """What a person would say has happened from this one to the other."""
        old, new = dict(self.items), dict(other.items)
        found = [f"{_shown(path)} appeared" for path in sorted(new.keys() - old.keys())]
        found += [f"{_shown(path)} vanished" for path in sorted(old.keys() - new.keys())]
        for path in sorted(old.keys() & new.keys()):
            found += [f"{_shown(path)}: {change}" for change in _changes(old[path], new[path])]
        return found


def snapshot(root: Path) -> Snapshot:
    """Record names, types, modes, sizes, mtimes and contents of all that is in ``root``."""
    items = [(".", _item(root))]
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory, name)
            items.append((str(path.relative_to(root)), _item(path)))
    return Snapshot(root, tuple(sorted(items)))


def _item(path: Path) -> Item:
    st = os.lstat(path)
    content = ""
    if stat.S_ISREG(st.st_mode):
        content = sha512_of(path)
    elif stat.S_ISLNK(st.st_mode):
        content = os.readlink(path)
    size_bytes = 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return Item(
        stat.filemode(st.st_mode)[0], stat.S_IMODE(st.st_mode), size_bytes, st.st_mtime_ns, content
    )


def _changes(old: Item, new: Item) -> list[str]:
    if old.kind != new.kind:
        return [f"type {old.kind} became {new.kind}"]
    found = []
    if old.mode != new.mode:
        found.append(f"mode {old.mode:o} became {new.mode:o}")
    if old.size_bytes != new.size_bytes:
        found.append(f"size {old.size_bytes} became {new.size_bytes}")
    if old.content != new.content:
        found.append("content changed")
    if old.mtime_ns != new.mtime_ns:
        found.append("mtime changed")
    return found


# --- the database as the checker reads it -----------------------------------------------


@dataclass(frozen=True)
class DiskRow:
    id: int
    label: str
    role: str
    serial: str
    state: str
    stand_in: int

    @property
    def at_the_station(self) -> bool:
        return self.state not in ("shipped", "lost")


@dataclass(frozen=True)
class FileRow:
    id: int
    name: str
    size_bytes: int
    sha512: str
    archived_at: str | None
    removed_at: str | None


@dataclass(frozen=True)
class CopyRow:
    file: FileRow
    disk: DiskRow
    state: str
    verified_at: str | None
    verified_by: str | None


@dataclass
class Catalogue:
    """The database's content; ``faults`` is what was wrong with the database itself."""

    disks: dict[int, DiskRow] = field(default_factory=dict)
    files: dict[str, FileRow] = field(default_factory=dict)
    copies: dict[int, list[CopyRow]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def all_copies(self) -> Iterator[CopyRow]:
        return itertools.chain.from_iterable(self.copies.values())


@contextmanager
def _read_only(db_path: Path) -> Iterator[sqlite3.Connection]:
    """The database, opened so that nothing is written; with a hot journal, a copy of it.

    SQLite can't roll back a crashed transaction through a read-only connection.
    """
    with tempfile.TemporaryDirectory() as scratch:
        journals = [Path(f"{db_path}{end}") for end in ("-journal", "-wal", "-shm")]
        hot, mode = [path for path in journals if path.exists()], "ro"
        if hot:
            for path in (db_path, *hot):
                shutil.copy2(path, scratch)
            db_path, mode = Path(scratch, db_path.name), "rw"
        with closing(sqlite3.connect(f"{db_path.absolute().as_uri()}?mode={mode}", uri=True)) as db:
            yield db


def read_catalogue(db_path: Path) -> Catalogue:
    """Read all rows, and let SQLite check itself."""
    catalogue = Catalogue()
    try:
        with _read_only(db_path) as db:
            _check_database(db, catalogue)
            _read_rows(db, catalogue)
    except (sqlite3.Error, OSError) as error:
        catalogue.faults.append(f"{db_path.name} can't be read: {error}")
    return catalogue


def _check_database(db: sqlite3.Connection, catalogue: Catalogue) -> None:
    for (text,) in db.execute("PRAGMA integrity_check"):
        if text != "ok":
            catalogue.faults.append(f"integrity_check: {text}")
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
        catalogue.faults.append(f"foreign_key_check: row {row} of {table} has no {parent}")
    for label, count in db.execute(
        "SELECT label, count(*) FROM disks WHERE state NOT IN ('shipped', 'lost')"
        " GROUP BY label HAVING count(*) > 1"
    ):
        catalogue.faults.append(f"{count} disks at the station have the label {label}")
    for serial, count in db.execute(
        "SELECT serial, count(*) FROM disks GROUP BY serial HAVING count(*) > 1"
    ):
        catalogue.faults.append(f"{count} disks have the serial {serial}")
    for kind, key, count in db.execute(
        "SELECT kind, ifnull(key, ''), count(*) FROM notices WHERE resolved_at IS NULL"
        " GROUP BY 1, 2 HAVING count(*) > 1"
    ):
        catalogue.faults.append(f"{count} open notices {kind} {key}")


def _read_rows(db: sqlite3.Connection, catalogue: Catalogue) -> None:
    for row in db.execute("SELECT id, label, role, serial, state, stand_in FROM disks"):
        catalogue.disks[row[0]] = DiskRow(*row)
    by_id = {}
    for row in db.execute(
        "SELECT id, name, size_bytes, sha512, archived_at, removed_from_buffer_at FROM files"
    ):
        file = FileRow(*row)
        by_id[file.id] = catalogue.files[file.name] = file
    for file_id, disk_id, *rest in db.execute(
        "SELECT file_id, disk_id, state, verified_at, verified_by FROM copies"
    ):
        if file_id in by_id and disk_id in catalogue.disks:
            copy = CopyRow(by_id[file_id], catalogue.disks[disk_id], *rest)
            catalogue.copies.setdefault(file_id, []).append(copy)


# --- one disk as the checker finds it ---------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of a manifest."""

    sha512: str
    name: str


def parse_manifest(raw: bytes, folder: str = "data/") -> tuple[list[Line], list[str]]:
    """The whole lines of a manifest, and what BagIt (RFC 8493) or GNU sha512sum would refuse.

    Only names that need no escape are allowed, so every line is hash, two spaces, path.
    """
    faults = []
    *whole, rest = raw.split(b"\n")
    if rest:
        faults.append(f"it does not end with a newline but with {rest[-40:]!r}")
    lines = []
    for number, text in enumerate(whole, start=1):
        line = _parse_line(text, folder)
        if isinstance(line, Line):
            lines.append(line)
        else:
            faults.append(f"line {number} {line}: {text[-60:]!r}")
    for name, count in Counter(line.name for line in lines).items():
        if count > 1:
            faults.append(f"{count} lines name {folder}{_shown(name)}")
    return lines, faults


def _parse_line(raw: bytes, folder: str) -> Line | str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    found = re.fullmatch(rf"([0-9a-f]{{128}})  {re.escape(folder)}(.+)", text, re.DOTALL)
    if not found:
        return f"is not '128 hexadecimal digits, two spaces, {folder}…'"
    sha512, name = found.groups()
    if "%" in name or "\\" in name or len(text.splitlines()) > 1 or name != name.rstrip():
        return "has a name that would need an escape"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has a path that is not in its plain form"
    return Line(sha512, name)


@dataclass
class DiskView:
    """What lies on one disk, read once; hashes are taken when first asked for."""

    label: str
    path: Path
    row: DiskRow | None
    payload: dict[str, Path] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """By what the test may call this disk."""
        return (self.label, self.row.serial, self.row.label) if self.row else (self.label,)

    def sha512(self, name: str) -> str:
        """Of data/<name> as the medium gives it; a text that no hash is, if it can't be read."""
        if name not in self._hashes:
            try:
                self._hashes[name] = sha512_of(self.payload[name], medium=True)
            except OSError as error:
                self._hashes[name] = f"unreadable ({error.strerror})"
        return self._hashes[name]

    def read(self, name: str) -> bytes | None:
        """A tag file's bytes; None if it is not there."""
        return (self.path / name).read_bytes() if _is_file(self.path / name) else None


def _look_at(label: str, path: Path, row: DiskRow | None) -> DiskView:
    view = DiskView(label, path, row)
    data = path / "data"
    if data.is_symlink():
        view.oddities.append("data is a symbolic link")
    for directory, directories, files in os.walk(data, onerror=_to_oddities(view)):
        for name in directories + files:
            child = Path(directory, name)
            if _is_file(child):
                view.payload[str(child.relative_to(data))] = child
            elif child.is_symlink() or not child.is_dir():
                view.oddities.append(f"{_shown(str(child.relative_to(path)))} is not a plain file")
    return view


def _to_oddities(view: DiskView) -> Callable[[OSError], None]:
    def note(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            view.oddities.append(f"{error.filename} can't be listed: {error.strerror}")

    return note


# --- the judgement ----------------------------------------------------------------------


class InvariantsBroken(AssertionError):
    """``violations``: one sentence each."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return "\n".join((f"{len(self.violations)} invariants broken:", *self.violations))


@dataclass
class Case:
    """All that is judged, and what was found so far."""

    ledger: Ledger
    buffer: Path
    catalogue: Catalogue
    views: dict[str, DiskView]
    away: frozenset[str]
    foreign: frozenset[str]
    finished: bool
    allow_unregistered: bool
    violations: list[str] = field(default_factory=list)

    def find(self, number: int, text: str) -> None:
        self.violations.append(f"({number}) {text}")

    def view_of(self, row: DiskRow) -> DiskView | None:
        return next((view for view in self.views.values() if view.row == row), None)

    def is_away(self, row: DiskRow) -> bool:
        return bool(self.away & {row.label, row.serial})

    def is_spoiled(self, row: DiskRow, name: str) -> bool:
        view = self.view_of(row)
        own = (row.serial, row.label) if row.at_the_station else (row.serial,)
        return self.ledger.is_spoiled((*own, *(view.keys if view else ())), name)


def check_invariants(
    ledger: Ledger,
    buffer: Path,
    db_path: Path,
    disks: Mapping[str, Path],
    *,
    allow_unregistered: bool = False,
    finished: bool = True,
    away: Collection[str] = (),
    foreign: Collection[str] = (),
    must_be_untouched: Iterable[Snapshot] = (),
) -> None:
    """Raise InvariantsBroken with all that does not hold; nothing is written anywhere.

    ``disks``: where each disk's content can be read, by label (or serial, when two
    share a label). ``finished``: the last pass came to its end; if not, unfinished
    copies, a torn last manifest line and files without a line are no fault.
    ``away``: disks (label or serial) that can't be looked at: the database is believed.
    ``foreign``: names on disks and in the database that are not in the ledger.
    """
    changed = [(before, _now(before)) for before in must_be_untouched]
    catalogue = read_catalogue(db_path)
    views = {
        key: _look_at(key, path, _row_for(key, catalogue))
        for key, path in disks.items()
        if key not in away
    }
    case = Case(
        ledger=ledger,
        buffer=buffer,
        catalogue=catalogue,
        views=views,
        away=frozenset(away),
        foreign=frozenset(foreign),
        finished=finished,
        allow_unregistered=allow_unregistered or not finished,
    )
    _judge_all(case)
    for before, after in changed:
        judge_untouched(case, before, after)
    if case.violations:
        raise InvariantsBroken(case.violations)


def _judge_all(case: Case) -> None:
    judge_ledger(case)
    for view in case.views.values():
        if not case.ledger.is_spoiled(view.keys, None):
            judge_disk(case, view)
    judge_database_rows(case)
    for fault in case.catalogue.faults:
        case.find(7, fault)


def _row_for(key: str, catalogue: Catalogue) -> DiskRow | None:
    """The disk of this serial or label; of several with the label, the one at the station."""
    rows = [row for row in catalogue.disks.values() if key in (row.serial, row.label)]
    return max(rows, key=lambda row: (row.serial == key, row.at_the_station, row.id), default=None)


# --- (1) ---


def judge_ledger(case: Case) -> None:
    """(1) Every entry is in the buffer, maybe hidden before its removal, or archived."""
    for entry in case.ledger.owed():
        if _in_buffer(case.buffer, entry):
            continue
        if why := _why_not_archived(case, entry):
            case.find(
                1,
                f"{_shown(entry.name)} with SHA-512 {entry.sha512[:12]}… is neither in the buffer"
                f" nor archived: {why}",
            )


def _in_buffer(buffer: Path, entry: Entry) -> bool:
    path = buffer / entry.name
    return any(
        _is_file(each)
        and each.stat().st_size == entry.size_bytes
        and sha512_of(each) == entry.sha512
        for each in (path, *_hidden(path))
    )


def _hidden(path: Path) -> Iterator[Path]:
    """Where the file is while it is being removed (docs/design.md): the longest have a hash."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
    if len(os.fsencode(path.name)) <= 245:
        yield path.with_name(f".{path.name}.removing")
    yield path.with_name(f".{digest}.removing")


def _why_not_archived(case: Case, entry: Entry) -> str | None:
    file = case.catalogue.files.get(entry.name)
    if file is None:
        return "the database does not know it"
    if (file.sha512, file.size_bytes) != (entry.sha512, entry.size_bytes):
        return "the database knows another content under this name"
    if file.archived_at is None:
        return "archived_at is not set"
    copies = case.catalogue.copies.get(file.id, [])
    faults = {copy.disk.id: _copy_fault(case, copy) for copy in copies}
    held = [copy.disk for copy in copies if faults[copy.disk.id] is None]
    for one, other in itertools.combinations(held, 2):
        if one.role != other.role and one.serial != other.serial:
            return None
    said = [fault for fault in faults.values() if fault]
    missing = {"primary", "copy"} - {disk.role for disk in held}
    said += [f"no whole copy in role {role}" for role in sorted(missing)] or [
        "both are on one drive"
    ]
    return "; ".join(said)


def _copy_fault(case: Case, copy: CopyRow) -> str | None:
    """Why this copy does not hold its file; None if it does."""
    label, name = copy.disk.label, copy.file.name
    if case.is_spoiled(copy.disk, name):
        return None
    if copy.state != "good":
        return f"its copy on {label} is {copy.state}"
    if case.is_away(copy.disk):
        return None
    view = case.view_of(copy.disk)
    if view is None:
        return f"disk {label} ({copy.disk.serial}) was not given to the checker"
    if name not in view.payload:
        return f"it is not on {label}"
    size_bytes = view.payload[name].stat().st_size
    if size_bytes != copy.file.size_bytes:
        return f"its copy on {label} has {size_bytes} bytes, not {copy.file.size_bytes}"
    if view.sha512(name) != copy.file.sha512:
        return f"its copy on {label} has SHA-512 {view.sha512(name)[:12]}…"
    return None


# --- (2), (3), (5): one disk ---


def judge_disk(case: Case, view: DiskView) -> None:
    """(2), (3) and (5) for one disk."""
    manifest = view.read(MANIFEST)
    lines, faults = parse_manifest(manifest or b"")
    if not case.finished and manifest and not manifest.endswith(b"\n"):
        faults = faults[1:]  # a torn last line: cut when the disk is next used
    judge_payload(case, view, {line.name for line in lines})
    if manifest is None and view.payload and not case.allow_unregistered:
        faults.append("it is missing")
    for fault in faults:
        case.find(3, f"{view.label}/{MANIFEST}: {fault}")
    judge_lines(case, view, lines)
    judge_bag(case, view)


def judge_payload(case: Case, view: DiskView, listed: set[str]) -> None:
    """(2) Every file under data/ is one that was put, whole, and has its line."""
    known = case.ledger.known()
    for oddity in view.oddities:
        case.find(2, f"{view.label}: {oddity}")
    for name in sorted(view.payload):
        where = f"{view.label}/data/{_shown(name)}"
        if case.ledger.is_spoiled(view.keys, name):
            continue
        if name not in known and name not in case.foreign:
            case.find(2, f"{where} was never in the buffer")
        elif name not in case.foreign and view.sha512(name) not in known[name]:
            case.find(2, f"{where} is not whole: its SHA-512 is {view.sha512(name)[:12]}…")
        if name not in listed and not case.allow_unregistered:
            case.find(2, f"{where} has no line in the manifest")


def judge_lines(case: Case, view: DiskView, lines: list[Line]) -> None:
    """(3) Every line's file exists and hashes right, by our reading and by sha512sum's."""
    judged = [line for line in lines if not case.ledger.is_spoiled(view.keys, line.name)]
    for line in judged:
        where = f"{view.label}/{MANIFEST}: data/{_shown(line.name)}"
        if line.name not in view.payload:
            case.find(3, f"{where} is not there")
        elif view.sha512(line.name) != line.sha512:
            case.find(3, f"{where} has SHA-512 {view.sha512(line.name)[:12]}…")
    if said := _ask_sha512sum(view, judged):
        case.find(3, f"{view.label}: sha512sum -c: {said}")


def _ask_sha512sum(view: DiskView, lines: list[Line]) -> str:
    """What plain ``sha512sum -c`` says; the lines go by standard input if not all are judged."""
    if not lines:
        return ""
    text = "".join(f"{line.sha512}  data/{line.name}\n" for line in lines).encode()
    source = MANIFEST if view.read(MANIFEST) == text else "-"
    result = subprocess.run(
        ["sha512sum", "-c", "--quiet", "--strict", source],
        cwd=view.path,
        input=text if source == "-" else b"",
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        check=False,
    )
    if result.returncode == 0 and not result.stdout + result.stderr:
        return ""
    said = (result.stdout + result.stderr).decode(errors="backslashreplace").splitlines()
    return f"exit {result.returncode}: " + "; ".join(said[:5])


def judge_bag(case: Case, view: DiskView) -> None:
    """(5) The mark is this disk's own, and nothing unfinished is left."""
    info, declaration = view.read(MARK), view.read("bagit.txt")
    if view.payload and declaration != DECLARATION.encode():
        case.find(5, f"{view.label}: bagit.txt is {'missing' if declaration is None else 'wrong'}")
    if view.payload and info is None:
        case.find(5, f"{view.label}: {MARK} is missing")
    if info is not None:
        judge_mark(case, view, info.decode(errors="replace"))
    if case.finished and info is not None:  # a claim that was cut short is begun again
        judge_leftovers(case, view)
        if view.row and view.row.state in ("closed", "shipped"):
            judge_closed(case, view)


def judge_mark(case: Case, view: DiskView, text: str) -> None:
    """(5) Label and serial in bag-info.txt are those of the database."""
    if view.row is None:
        case.find(5, f"{view.label}: it is a bag, but the database has no such disk")
        return
    if _said(text, "label") != view.row.label:
        case.find(5, f"{view.label}: {MARK} says label {_said(text, 'label')}")
    serial = _said(text, "serial") or "None"
    if not (serial.startswith(view.row.serial) or view.row.serial.startswith(serial)):
        case.find(5, f"{view.label}: {MARK} says serial {serial}, not {view.row.serial}")


def _said(text: str, word: str) -> str | None:
    """The value of the bag-info element whose name ends so (``Pole-Label``)."""
    found = re.search(rf"^\S*{word}: *(.*?) *$", text, re.IGNORECASE | re.MULTILINE)
    return found.group(1) if found else None


def judge_leftovers(case: Case, view: DiskView) -> None:
    """(5) Nothing in .incoming, nothing beside what the contract lists."""
    incoming = view.path / ".incoming"
    for name in sorted(os.listdir(incoming)) if incoming.is_dir() else []:
        case.find(5, f"{view.label}/.incoming/{_shown(name)} is left over")
    for name in sorted(set(os.listdir(view.path)) - TOP_LEVEL):
        case.find(5, f"{view.label}/{_shown(name)} does not belong on a disk")


def judge_closed(case: Case, view: DiskView) -> None:
    """(5) A closed disk is a whole bag."""
    for name in (".incoming", ".aside"):
        if (view.path / name).exists():
            case.find(5, f"{view.label} is closed but has {name}")
    size_bytes = sum(path.stat().st_size for path in view.payload.values())
    oxum = _said((view.read(MARK) or b"").decode(errors="replace"), "Payload-Oxum")
    if oxum != f"{size_bytes}.{len(view.payload)}":
        case.find(5, f"{view.label} is closed with Payload-Oxum {oxum}")
    tags = view.read(TAG_MANIFEST)
    lines, faults = parse_manifest(tags or b"", folder="")
    for fault in ["it is missing"] if tags is None else faults:
        case.find(5, f"{view.label}/{TAG_MANIFEST}: {fault}")
    for line in lines:
        content = view.read(line.name)
        if content is None or hashlib.sha512(content).hexdigest() != line.sha512:
            case.find(5, f"{view.label}/{TAG_MANIFEST}: {_shown(line.name)} is not as it says")
    for name in {"bagit.txt", MARK, MANIFEST} - {line.name for line in lines} if tags else ():
        case.find(5, f"{view.label}/{TAG_MANIFEST}: no line for {name}")


# --- (4) ---


def judge_database_rows(case: Case) -> None:
    """(4) Each row of ``files`` and ``copies`` says what is so."""
    known = case.ledger.known()
    for file in case.catalogue.files.values():
        if file.name not in case.foreign and file.sha512 not in known.get(file.name, ()):
            case.find(4, f"files: {_shown(file.name)} never had SHA-512 {file.sha512[:12]}…")
        judge_archived(case, file)
        judge_removed(case, file)
    for copy in case.catalogue.all_copies():
        judge_copy(case, copy)


def judge_archived(case: Case, file: FileRow) -> None:
    """(4) What is archived has, or had, a copy in each role, on two drives."""
    disks = [copy.disk for copy in case.catalogue.copies.get(file.id, [])]
    roles = {disk.role for disk in disks}
    if file.archived_at and (len(roles) < 2 or len({disk.serial for disk in disks}) < 2):
        labels = ", ".join(sorted(disk.label for disk in disks)) or "no disk"
        case.find(4, f"files: {_shown(file.name)} is archived, but with copies on {labels} alone")


def judge_removed(case: Case, file: FileRow) -> None:
    """(4) What was removed is not in the buffer, and was verified from the medium before."""
    if file.removed_at is None:
        return
    if file.archived_at is None:
        case.find(4, f"files: {_shown(file.name)} was removed from the buffer, but not archived")
    path = case.buffer / file.name
    if _is_file(path) and path.stat().st_ctime < _seconds(file.removed_at):
        case.find(4, f"files: {_shown(file.name)} was removed, but is in the buffer since before")
    for copy in case.catalogue.copies.get(file.id, []):
        verified_since = copy.verified_at and copy.verified_at > file.removed_at
        if copy.verified_by == "cached" and not copy.disk.stand_in and not verified_since:
            where = f"{_shown(file.name)} on {copy.disk.label}"
            case.find(4, f"copies: {where} was verified as cached only, and the source removed")


def judge_copy(case: Case, copy: CopyRow) -> None:
    """(4) A good copy is there, of its size and hash; words are the contract's."""
    where = f"copies: {_shown(copy.file.name)} on {copy.disk.label}"
    if copy.state not in ("good", "damaged", "missing"):
        case.find(4, f"{where} has state {copy.state}")
    if copy.verified_by not in ("direct", "evicted", "cached", None):
        case.find(4, f"{where} has verified_by {copy.verified_by}")
    if (copy.verified_by is None) != (copy.verified_at is None):
        case.find(4, f"{where} has but one of verified_at, verified_by")
    if copy.state == "good" and (fault := _copy_fault(case, copy)):
        case.find(4, f"{where} is called good: {fault}")


def _seconds(text: str) -> float:
    """An ISO 8601 time in UTC as seconds since 1970, whole seconds only."""
    moment = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    return moment.replace(tzinfo=UTC).timestamp()


# --- (6) ---


def _now(before: Snapshot) -> Snapshot | None:
    return snapshot(before.root) if before.root.exists() else None


def judge_untouched(case: Case, before: Snapshot, after: Snapshot | None) -> None:
    """(6) The tree is as it was."""
    changes = before.differences(after) if after else ["it vanished"]
    for change in changes:
        case.find(6, f"{before.root} must be untouched: {change}")
