"""Files that root makes beside the database: the cron user, who owns the directory, gets them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def open_or_make(path: Path, flags: int) -> int:
    """A descriptor of a file, never through a link; a new one belongs to its directory's owner.

    Raises OSError.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, flags)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd


def user_name(uid: int) -> str:
    """A user's name, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def owner_of(path: Path) -> int | None:
    """The user id that owns a file or directory; None where there is none."""
    try:
        return path.stat().st_uid
    except OSError:
        return None
