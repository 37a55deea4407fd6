"""Why new copies must not go to a mounted disk: its file system, an option or its drive.

A copy counts after it was written, flushed and read back from the medium of one known drive. This
was tested on XFS and ext4 with an internal log; others are read, and never written to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from poledata.system import mounts
from poledata.system.mounts import Drive, Mount

SUPPORTED = ("xfs", "ext4")
_JBD2 = Path("/proc/fs/jbd2")  # journals in use: loop0-8 (inode 8 of loop0), or a whole device
_NAMES = {
    "fuseblk": "fuseblk (NTFS, exFAT or another one through FUSE)",
    "exfat": "exFAT",
    "ntfs": "NTFS",
    "ntfs3": "NTFS",
}
_UNSAFE = ("nobarrier", "barrier=0", "norecovery", "noload")
_ELSEWHERE = {"logdev": "separate log", "rtdev": "realtime device"}


def why_unsupported(
    mount: Mount, drives: tuple[Drive, ...], accept_unidentified: bool
) -> str | None:
    """Return why new copies must not go to a mounted disk; None if they may."""
    reasons = chain(
        _of_file_system(mount),
        _of_options(mount),
        _of_journal(mount),
        _of_drives(drives, accept_unidentified),
    )
    return next(reasons, None)


def _of_file_system(mount: Mount) -> Iterator[str]:
    if mount.fs_type in SUPPORTED:
        return
    name = _NAMES.get(mount.fs_type, mount.fs_type)
    if mount.fs_type.split(".")[0] == "fuse":
        name = f"FUSE ({mount.fs_type})"
    yield f"its file system is {name}, not XFS or ext4"


def _of_options(mount: Mount) -> Iterator[str]:
    for option in sorted(mount.options):
        key, _, device = option.partition("=")
        if option in _UNSAFE:
            yield f"it is mounted with {option}"
        elif mount.fs_type == "xfs" and key in _ELSEWHERE:
            yield f"its XFS has a {_ELSEWHERE[key]} ({key}={device})"


def _of_journal(mount: Mount) -> Iterator[str]:
    """Yield if there is no internal one: /proc shows the journals of ext4 to every user."""
    if mount.fs_type != "ext4":
        return
    journals = os.listdir(_JBD2) if _JBD2.is_dir() else []
    for block in mounts.blocks_of(mount):
        if not any(re.fullmatch(rf"{re.escape(block.name)}-[0-9]+", each) for each in journals):
            yield "its ext4 has no journal inside"


def _of_drives(drives: tuple[Drive, ...], accept_unidentified: bool) -> Iterator[str]:
    if not drives:
        yield "its drive is gone"
    if len(one_each(drives)) > 1:
        yield f"it is on several drives: {', '.join(map(str, drives))}"
    for drive in drives:
        if not (drive.is_identified or accept_unidentified):
            yield (
                f"its drive {drive.kernel_name} has neither serial number nor logical ID, and "
                "AcceptUnidentifiedDrives is not yes"
            )


def one_each(drives: tuple[Drive, ...]) -> list[frozenset[str]]:
    """Return the identities of each physical drive, which may be seen through several paths."""
    found: list[frozenset[str]] = []
    for drive in drives:
        same = [each for each in found if each & drive.identities]
        found = [each for each in found if each not in same]
        found.append(drive.identities.union(*same))
    return found
