"""Close a bag: what the catalogue, the manifest and data/ say must be one, then it is sealed.

Nothing alters a closed bag. Every step may be done again, so that a close which was cut
short anywhere is finished by doing it once more; the tag manifest comes last.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from poledata import bag, beneath, manifest
from poledata.errors import CannotClose
from poledata.records import CopyOnDisk, CopyState
from poledata.texts import shown

_TAG_FILES = (bag.DECLARATION, bag.MARK, bag.MANIFEST, bag.README)
_MAY_LACK = (bag.CATALOGUE,)


@dataclass(frozen=True, slots=True)
class Found:
    """A file under data/, what the manifest and the catalogue say of it; None is nothing."""

    name: str
    size_bytes: int | None
    manifest_sha512: str | None
    row: CopyOnDisk | None

    @property
    def agrees(self) -> bool:
        """Whether all three know it, and say the same, as far as can be told without reading."""
        return (
            self.row is not None
            and self.row.state is CopyState.GOOD
            and self.size_bytes == self.row.size_bytes
            and self.manifest_sha512 == self.row.sha512
        )


@dataclass(frozen=True, slots=True)
class Payload:
    """What a sealed bag holds."""

    files: int
    size_bytes: int


def survey(root_fd: int, rows: Iterable[CopyOnDisk]) -> list[Found]:
    """Everything that any of the three knows, by name."""
    sizes = dict(files_under_data(root_fd))
    lines: dict[str, str] = {}
    for line in manifest.read(root_fd):
        if line.name in lines:
            raise CannotClose(f"the manifest has two lines for data/{shown(line.name)}")
        lines[line.name] = line.sha512
    known = {row.name: row for row in rows}
    return [
        Found(name, sizes.get(name), lines.get(name), known.get(name))
        for name in sorted(sizes.keys() | lines.keys() | known.keys())
        if name in sizes or name in lines or known[name].state is not CopyState.MISSING
    ]


def files_under_data(root_fd: int) -> Iterator[tuple[str, int]]:
    """(name, size in bytes) of every file of the payload. Raises CannotClose for what is none."""
    for name, size_bytes in entries_under_data(root_fd):
        if size_bytes is None:
            raise CannotClose(f"data/{shown(name)} is neither a file nor a directory")
        yield name, size_bytes


def entries_under_data(root_fd: int) -> Iterator[tuple[str, int | None]]:
    """(name, size in bytes) of all that is no directory; no size for a link or a special file."""
    directories = [""]
    while directories:
        path = directories.pop()
        with beneath.directory(root_fd, f"{bag.DATA}/{path}".rstrip("/")) as fd:
            for base in os.listdir(fd):
                name = f"{path}/{base}" if path else base
                try:
                    info = os.stat(base, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # set aside meanwhile: it is not there
                if stat.S_ISDIR(info.st_mode):
                    directories.append(name)
                else:
                    yield name, info.st_size if stat.S_ISREG(info.st_mode) else None


def must_be_settled(found: Found, sha512: str) -> None:
    """Raises CannotClose unless what was read back is what manifest and catalogue know of it."""
    if found.manifest_sha512 not in (None, sha512):
        raise CannotClose(f"data/{shown(found.name)} is not what the manifest says")
    if found.row is not None and found.row.sha512 != sha512:
        raise CannotClose(f"data/{shown(found.name)} is not what the database says")


def nothing_aside(root_fd: int) -> None:
    """Raises CannotClose while something lies in ``.aside/``: a person is to look at it."""
    try:
        with beneath.directory(root_fd, bag.ASIDE) as fd:
            things = os.listdir(fd)
    except FileNotFoundError:
        return
    if things:
        raise CannotClose(
            f"{len(things)} things were set aside in {bag.ASIDE}/; look at them, keep elsewhere "
            "what is of worth, and empty it"
        )


def seal(root_fd: int, closed_at: str) -> Payload:
    """Make the bag whole (RFC 8493): sorted manifest, bag-info, the tag manifest last."""
    beneath.make_directories(root_fd, bag.INCOMING)
    bag.sweep_incoming(root_fd)
    payload = _payload(root_fd, sort_manifest(root_fd))
    bag.write_file(root_fd, bag.MARK, _closed_mark(root_fd, closed_at, payload))
    os.fsync(root_fd)
    bag.write_file(root_fd, bag.TAG_MANIFEST, _tag_manifest(root_fd))
    os.fsync(root_fd)
    for empty in (bag.INCOMING, bag.ASIDE):
        _remove_directory(root_fd, empty)
    os.fsync(root_fd)
    return payload


def _payload(root_fd: int, names: Collection[str]) -> Payload:
    """What lies under data/. Raises CannotClose if that is not just what the manifest names."""
    sizes = dict(files_under_data(root_fd))
    if strange := sizes.keys() ^ set(names):
        raise CannotClose(
            f"data/{shown(min(strange))} came or went while it was closed: look at it, and close "
            "it again"
        )
    return Payload(len(sizes), sum(sizes.values()))


def sort_manifest(root_fd: int) -> list[str]:
    """The same lines, sorted by name, which it returns.

    This takes the room of a second manifest for a moment.
    """
    lines = sorted(manifest.read(root_fd), key=lambda line: line.name.encode())
    bag.write_file(root_fd, bag.MANIFEST, b"".join(line.text for line in lines))
    os.fsync(root_fd)
    return [line.name for line in lines]


def keep_packing_list(
    root_fd: int, directory: Path, label: str, serial: str, closed_at: str
) -> Path:
    """A copy of the manifest at the station: what went north on this disk."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{label}-{serial.replace('/', '_')}.sha512"
    if path.exists() and not _holds(path, bag.blocks(root_fd, bag.MANIFEST)):
        # The list of the drive's earlier life stays as it is.
        path = path.with_stem(f"{path.stem}-{closed_at.replace(':', '')}")
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as out:
        out.writelines(bag.blocks(root_fd, bag.MANIFEST))
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(path)
    beneath.fsync_path(directory)
    return path


def _holds(path: Path, blocks: Iterable[bytes]) -> bool:
    """Whether a file holds just this."""
    with path.open("rb") as file:
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)


def _closed_mark(root_fd: int, closed_at: str, payload: Payload) -> bytes:
    ours = ("Pole-Closed", "Payload-Oxum", "Bag-Size")
    kept = [
        line
        for line in bag.read_small(root_fd, bag.MARK).decode().splitlines()
        if not line.startswith(ours)
    ]
    kept += [
        f"Payload-Oxum: {payload.size_bytes}.{payload.files}",
        f"Pole-Closed: {closed_at}",
    ]
    return "".join(f"{line}\n" for line in kept).encode()


def _tag_manifest(root_fd: int) -> bytes:
    lines = []
    for name in (*_TAG_FILES, *_MAY_LACK):
        if name in _MAY_LACK and beneath.stat(root_fd, name) is None:
            continue
        digest = hashlib.sha512()
        for block in bag.blocks(root_fd, name):
            digest.update(block)
        lines.append(f"{digest.hexdigest()}  {name}\n")
    return "".join(lines).encode()


def _remove_directory(root_fd: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=root_fd)
    except FileNotFoundError:
        return  # removed before: the close is being finished
