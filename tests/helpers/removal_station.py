"""A station in one process, for what removes files from the buffer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poledata import db
from poledata.archive.buffer import Buffer
from poledata.archive.removal import (
    ArchivedFile,
    Removal,
    RemovalResult,
)
from poledata.archive.selection import Selection
from poledata.disks import bag, manifest
from poledata.disks.identity import HeldDisk
from poledata.errors import DiskRefused
from poledata.models import (
    Disk,
    FileStat,
    KnownCopy,
    KnownFile,
    ReadBack,
    Role,
    VerifiedBy,
    Waiting,
    Written,
)
from poledata.system import direct_io, mounts

NAME = "fullrate/RCW38/80296951/0000.g3"
AT = "2099-11-23T18:20:57Z"  # read back after the file came


@dataclass
class Station:
    """NAME, archived by hand on the stand-ins P01 and S01, and still in the buffer."""

    root: Path
    conn: db.Connection
    buffer: Buffer
    waiting: Waiting
    sha512: str
    refused: dict[str, DiskRefused]
    fds: dict[str, int]
    readings: list[str] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.root / "buffer" / NAME

    def copy(self, label: str) -> Path:
        return self.root / label / "data" / NAME

    def disk(self, label: str) -> Disk:
        return next(disk for disk in db.disks.disks(self.conn) if disk.label == label)

    def hold(self, disk: Disk) -> HeldDisk:
        if disk.label in self.refused:
            raise self.refused[disk.label]
        fd = self.fds[disk.label]
        attachment = mounts.attachment_of(fd)
        return HeldDisk(disk, self.root / disk.label, fd, frozenset(), None, False, attachment)

    def sql(self, query: str, *args: object) -> None:
        self.conn.execute(query, args)

    def read(self, known: KnownFile, copy: KnownCopy) -> ReadBack | None:
        self.readings.append(copy.disk.label)
        with closing(direct_io.HashingReader()) as reader:
            return self.hold(copy.disk).read_copy(known.name, reader, lambda _: None)

    def remove_all(self, *files: ArchivedFile, **changed: Any) -> list[RemovalResult]:
        given = {"conn": self.conn, "buf": self.buffer, "hold": self.hold, "read": self.read}
        return list(Removal(**given | changed).remove(files))

    def remove(self, sha512: str | None = None, lines: Any = None, **changed: Any) -> Any:
        file = ArchivedFile(self.waiting, sha512 or self.sha512, lines or {})
        (outcome,) = self.remove_all(file, **changed)
        if outcome.stays_as:
            self.waiting = outcome.stays_as
        return outcome.refusals


def _read_back(path: Path, sha512: str) -> ReadBack:
    return ReadBack(sha512, VerifiedBy.CACHED, FileStat.of(path.stat()), direct_io.boottime_s())


@contextmanager
def made(root: Path) -> Iterator[Station]:
    content = b"not only noise" * 100
    sha512 = hashlib.sha512(content).hexdigest()
    source = root / "buffer" / NAME
    source.parent.mkdir(parents=True)
    source.write_bytes(content)
    stat = FileStat.of(source.stat())
    db.database_files.create(root / "pole.sqlite")
    fds: dict[str, int] = {}
    with db.connect(root / "pole.sqlite") as conn:
        copies = []
        for number, (label, role) in enumerate((("P01", Role.PRIMARY), ("S01", Role.COPY))):
            db.disks.add_disk(conn, label, role, f"Z{label}", f"0x{number + 1:016x}", True, AT)
            (root / label).mkdir()
            fds[label] = os.open(root / label, os.O_RDONLY)
            disk = db.disks.disks(conn)[-1]
            db.disks.activate(conn, disk, AT)
            bag.claim(fds[label], bag.Mark.of(disk, 0))
            copy = root / label / "data" / NAME
            copy.parent.mkdir(parents=True)
            copy.write_bytes(content)
            os.utime(copy, ns=(stat.mtime_ns, stat.mtime_ns))
            (line,) = manifest.append(fds[label], [(sha512, NAME)])
            copies.append((disk, Written(_read_back(copy, sha512), line)))
        db.files.register(conn, NAME, sha512, stat, copies, AT)
        fds["buffer"] = os.open(root / "buffer", os.O_RDONLY)
        buffer = Buffer(fds["buffer"], Selection((".g3",)), 0.0, True)
        yield Station(root, conn, buffer, Waiting(NAME, stat, 0o644), sha512, {}, fds)
    for fd in fds.values():
        os.close(fd)
