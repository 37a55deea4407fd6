"""Names of buffer files that are about to be removed: taken away first, and given back.

A file that is to be removed is renamed to ``.NAME.removing`` in its own directory, so that no
writer can open it by its name any more; then it is looked at once more, and removed or given
its name back (see removal.py). After a crash such a file is still one of the buffer's, under its
own name. If that hidden name would be too long, or is
taken, it has a hash of the name instead.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable

from poledata.system import paths

SUFFIX = ".removing"
_HASHED = re.compile(rf"\.[0-9a-f]{{64}}{re.escape(SUFFIX)}")


def hide(parent_fd: int, base: str) -> str:
    """Take a file's name away; returns its hidden one.

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
    """The name of the file that has this path; None if it is not hidden.

    Of a hash it is the path itself: see ``original_of_hash``.
    """
    parent, slash, base = path.rpartition("/")
    if not (base.startswith(".") and base.endswith(SUFFIX) and len(base) > len(SUFFIX) + 1):
        return None
    if _HASHED.fullmatch(base):
        return path
    return f"{parent}{slash}{base[1 : -len(SUFFIX)]}"


def original_of_hash(path: str, names: Iterable[str]) -> str | None:
    """Which of these names the hidden path is of; None if it is of none."""
    parent, _, base = path.rpartition("/")
    own = (name for name in names if name.rpartition("/")[0] == parent)
    return next((name for name in own if _hashed(name.rpartition("/")[2]) == base), None)


def is_present(root_fd: int, name: str) -> bool:
    """Whether the buffer has a file of this name, or a hidden one that is to have it again.

    Raises OSError if that can't be seen.
    """
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
