"""Does the system see every writer of the buffer's files, so that a lease proves something?

A lease covers writers that come through this kernel and this file system, but no writer behind a
FUSE program, on another host, or on the other side of an overlay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poledata.formatting import shown
from poledata.settings import RemoteWriters
from poledata.system import mounts

LEASE_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs"})
_NFSD = Path("/proc/net/rpc/nfsd")  # exists if this kernel can serve NFS; every user can see it
# What exportfs(8) exported; the second table exists also while nfsd is not mounted.
_EXPORT_TABLES = (Path("/proc/fs/nfsd/exports"), Path("/var/lib/nfs/etab"))
_CLIENT = re.compile(r"\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class WriterRule:
    """Whether a lease is trusted, and why or why not."""

    trusts_leases: bool
    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts behind the rule. ``exports`` None: what this machine exports is unknown."""

    fs_type: str | None  # None: it is not mounted any more
    exports: tuple[str, ...] | None = ()  # that reach into the buffer, for others to write to


def look(root_fd: int, settings: RemoteWriters) -> WriterRule:
    """Return the rule for an open buffer."""
    mount = mounts.mount_of(root_fd)
    return rule(Facts(mount.fs_type if mount else None, _exports(root_fd)), settings)


def rule(facts: Facts, remote: RemoteWriters) -> WriterRule:
    """Return the rule. Pure.

    ``no`` says that no other host writes here, not that leases work on any file system.
    """
    if facts.fs_type is None:
        return WriterRule(False, "the buffer's mount is gone")
    if facts.fs_type not in LEASE_FILE_SYSTEMS:
        return WriterRule(False, f"{facts.fs_type} does not show writers on its other side")
    if remote is RemoteWriters.YES:
        return WriterRule(False, "RemoteWriters = yes: another host may write")
    if remote is RemoteWriters.NO:
        return WriterRule(True, f"{facts.fs_type} of this host, and RemoteWriters = no")
    if facts.exports is None:
        return WriterRule(False, "this host serves NFS, and this user can't see what it exports")
    if facts.exports:
        return WriterRule(False, f"this host exports {shown(facts.exports[0])} by NFS")
    return WriterRule(True, f"{facts.fs_type} of this host, not exported by NFS")


# --- NFS ------------------------------------------------------------------------------------


def _exports(root_fd: int) -> tuple[str, ...] | None:
    """Return the writable exports that contain the buffer or are inside it."""
    if not _NFSD.exists():
        return ()
    tables = [text for text in map(_read, _EXPORT_TABLES) if text is not None]
    if not tables:
        return None
    here = os.path.realpath(f"/proc/self/fd/{root_fd}")
    paths = dict.fromkeys(path for text in tables for path in writable_exports(text))
    return tuple(path for path in paths if _overlaps(root_fd, here, path))


def _overlaps(root_fd: int, here: str, path: str) -> bool:
    buffer, exported = Path(here), Path(os.path.realpath(path))
    is_below = exported.is_relative_to(buffer) or buffer.is_relative_to(exported)
    return is_below or mounts.lies_in(root_fd, exported)  # through another mount of the same


def _read(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return None  # not every system has both, or shows them to every user


def writable_exports(table: str) -> Iterator[str]:
    """Paths of an etab (exportfs(8)) that some client may write to: ``/a host(rw,…)``."""
    for line in table.split("\n"):
        path, _, clients = line.partition("\t") if "\t" in line else line.partition(" ")
        if not path.startswith("/"):
            continue  # a comment
        options = [found.split(",") for found in _CLIENT.findall(clients)]
        if any("ro" not in one for one in options):
            yield re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
