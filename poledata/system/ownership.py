"""Users and owners: a file that root makes beside the database belongs to the cron user."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path


def open_or_make(path: Path, flags: int) -> int:
    """Return a descriptor of a file, never through a link; its directory's owner gets a new one.

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
    """Return a user's name, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def owner_of(path: Path) -> int | None:
    """Return the user id that owns a file or directory; None if there is none."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def chown_command(path: Path, uid: int) -> str:
    """Return the command that lets this user write to a directory and everything in it."""
    try:
        owner = f"{pwd.getpwuid(uid).pw_name}:"
    except KeyError:
        owner = str(uid)  # chown(1) takes the colon only after a name
    place = shlex.quote(str(path))
    return f"sudo chown -R {owner} {place} && sudo chmod -R u+rwX {place}"
