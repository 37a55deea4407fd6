"""Text for names, times and sizes: for people, and in the database."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

DAY_S = 86_400.0
LONGEST_NAME_BYTES = 4000  # PATH_MAX is 4096, and the file also lies under data/ of a mount
LONGEST_PART_BYTES = 255  # NAME_MAX of ext4 and XFS


def shown(name: str) -> str:
    """Return a file's name as text that any terminal, log and database can contain.

    ``name`` comes from ``os.fsdecode``; what is not printable, and the backslash, is
    escaped, so that two names never look the same. A name that the manifest can
    contain is returned as it is, unless it has control characters.
    """
    return "".join(
        c
        if c.isprintable() and c != "\\"
        else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in name
    )


def printable(text: str) -> str:
    """Return text that no terminal obeys: all but line ends that can't be printed is escaped."""
    return text if _is_plain(text) else "\n".join(map(_escaped, text.split("\n")))


def _is_plain(text: str) -> bool:
    return text.isprintable() or text.replace("\n", "").isprintable()


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def unshown(text: str) -> str:
    """Return the name of a text from :func:`shown`."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")


_FIRST_S, _LAST_S = -30_610_224_000.0, 253_402_300_799.0  # of the years 1000 and 9999


def _in_calendar(seconds: float) -> float:
    """A file may have any time; a year of five digits can be neither written nor parsed."""
    return max(_FIRST_S, min(seconds, _LAST_S))


def why_not_carried(name: str) -> str | None:
    """Return why the manifest can't carry this name unescaped; None if it can.

    ``name`` as from os.fsdecode. BagIt escapes % and line ends, GNU sha512sum the
    backslash, and readers split lines where ``str.splitlines`` does: such names would
    read differently in different tools.
    """
    if any("\udc80" <= c <= "\udcff" for c in name):
        return "it is not UTF-8"
    if "%" in name or "\\" in name:
        return "it holds a % or a backslash"
    if name.splitlines() != [name]:
        return "it holds a character that ends a line"
    if "\0" in name:
        return "it holds a NUL byte"
    if any(len(part) > LONGEST_PART_BYTES for part in os.fsencode(name).split(b"/")):
        return f"a part of it is longer than a file system takes ({LONGEST_PART_BYTES} bytes)"
    if len(os.fsencode(name)) > LONGEST_NAME_BYTES:
        return f"its path is longer than other programs can open ({LONGEST_NAME_BYTES} bytes)"
    if name.rstrip() != name:
        return "it ends with white space"
    return None


def is_utf8(text: str) -> bool:
    """True if a text from the system was UTF-8 there: only such text can be stored or sent."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def utc(seconds: float) -> str:
    """Return seconds since 1970 as the database's ISO 8601 text, e.g. ``2026-11-23T18:20:57Z``."""
    return datetime.fromtimestamp(_in_calendar(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> str:
    """Return the time now as the database's text."""
    return utc(time.time())


def seconds(text: str) -> float:
    """Return the seconds since 1970 of a text from :func:`utc`. Raises ValueError."""
    if text[10:11] != "T" or text[19:] != "Z":
        raise ValueError(f"not a time of the database: {text!r}")
    return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()


def size_text(size_bytes: float) -> str:
    """Return bytes in the units of a drive's sticker: ``1.074 GB``."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 999.95:
            return f"{size_bytes:.4g} {unit}"
    return f"{size_bytes / 1000:,.4g} TB"


def people_time(at_s: float, now_s: float) -> str:
    """Return ``14:02 UTC (3 h ago)``, with the date unless it is today's."""
    then, now = time.gmtime(_in_calendar(at_s)), time.gmtime(now_s)
    form = "%H:%M UTC" if then[:3] == now[:3] else "%Y-%m-%d %H:%M UTC"
    return time.strftime(form, then) + _ago(now_s - at_s)


def _ago(age_s: float) -> str:
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if age_s >= unit_s:
            return f" ({age_s / unit_s:.0f} {unit} ago)"
    return ""


def counted(number: int, one: str, many: str) -> str:
    """Return ``1 copy is``, ``2 copies are``."""
    return f"{number} {one if number == 1 else many}"


_LONGEST_TEXT_BYTES = 1 << 20


def text_in(path: Path) -> str:
    """Return the content of a small file that a person wrote, without its byte order mark.

    Raises OSError; ValueError with one sentence if it is too large or not UTF-8 text.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it never waits for a FIFO
    try:
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("is not a regular file; name another one")
        data = os.read(fd, _LONGEST_TEXT_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _LONGEST_TEXT_BYTES:
        raise ValueError(f"is larger than {_LONGEST_TEXT_BYTES >> 20} MiB; this is another file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = e.object.count(b"\n", 0, e.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save the file as plain UTF-8 text") from e
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line} holds a NUL byte; this is not a text file")
    return text


def label_key(label: str) -> tuple[str, int]:
    """Sort P2 before P10."""
    match = re.fullmatch(r"(\D*)(\d*).*", label)
    return (match[1], int(match[2] or 0)) if match else (label, 0)
