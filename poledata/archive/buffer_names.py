"""Names in the buffer: hidden ones of files that are being removed, and which names have left.

A file that will be removed is first renamed to ``.NAME.removing`` in its own directory, so that no
writer can open it by its name. Then it is proved again, and removed or given its name back (see
removal.py). After a crash such a file still counts as the buffer's, under its own name. If that
hidden name is too long or taken, a hash of the name is used instead.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from poledata.formatting import shown
from poledata.system import mounts, paths

SUFFIX = ".removing"
_HASHED = re.compile(rf"\.[0-9a-f]{{64}}{re.escape(SUFFIX)}")
log = logging.getLogger(__name__)


def hide(parent_fd: int, base: str) -> str:
    """Rename a file to its hidden name, and return that.

    Raises OSError: EEXIST if both hidden names are taken, EINVAL where the file system can't rename
    without replacing.
    """
    hidden = f".{base}{SUFFIX}"
    try:
        paths.rename_new(parent_fd, base, hidden)
    except OSError as fault:
        if fault.errno not in (errno.ENAMETOOLONG, errno.EEXIST):
            raise
        hidden = _hashed(base)
        paths.rename_new(parent_fd, base, hidden)
    return hidden


def original(path: str) -> str | None:
    """Return the name that a hidden path had; None if the path is not hidden.

    For a hash it is the path itself: see ``original_of_hash``.
    """
    parent, slash, base = path.rpartition("/")
    if not (base.startswith(".") and base.endswith(SUFFIX) and len(base) > len(SUFFIX) + 1):
        return None
    if _HASHED.fullmatch(base):
        return path
    return f"{parent}{slash}{base[1 : -len(SUFFIX)]}"


def original_of_hash(path: str, names: Iterable[str]) -> str | None:
    """Return which of these names the hidden path had; None if none."""
    parent, _, base = path.rpartition("/")
    own = (name for name in names if name.rpartition("/")[0] == parent)
    return next((name for name in own if _hashed(name.rpartition("/")[2]) == base), None)


def is_present(root_fd: int, name: str) -> bool:
    """True if the buffer has a file of this name, hidden or not. Raises OSError."""
    parent, slash, base = name.rpartition("/")
    bases = (base, f".{base}{SUFFIX}", _hashed(base))
    return any(_exists(root_fd, f"{parent}{slash}{each}") for each in bases)


def _exists(root_fd: int, path: str) -> bool:
    try:
        return paths.stat(root_fd, path) is not None
    except OSError as fault:
        if fault.errno != errno.ENAMETOOLONG:
            raise
        return False  # no file can have this name


def _hashed(base: str) -> str:
    import hashlib  # a pass with nothing to do hashes nothing

    return f".{hashlib.sha256(os.fsencode(base)).hexdigest()}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Presence:
    """Which names have surely left the buffer: an error is not absence.

    ``root_fd`` None: the right buffer is not mounted, so nothing has left.
    """

    root_fd: int | None
    covered: frozenset[str] = frozenset()  # below other file systems' mount points

    @classmethod
    def of(cls, root_fd: int) -> Presence:
        return cls(root_fd, mounts.mount_points_below(root_fd))

    def has_left(self, name: str) -> bool:
        """True if the buffer has no file of this name; False also if that is unknown."""
        if self.root_fd is None or any(name.startswith(f"{place}/") for place in self.covered):
            return False
        try:
            return not is_present(self.root_fd, name) and self._has_no_link(name.split("/")[:-1])
        except OSError as fault:
            log.info("%s can't be looked at: %s", shown(name), fault)
            return False

    def _has_no_link(self, directories: list[str]) -> bool:
        """False if one of the directories is a link: behind it the file may exist."""
        assert self.root_fd is not None
        for count in range(1, len(directories) + 1):
            info = paths.stat(self.root_fd, "/".join(directories[:count]))
            if info is None or stat.S_ISREG(info.st_mode):
                return True  # so nothing is below
            if not stat.S_ISDIR(info.st_mode):
                return False
        return True
