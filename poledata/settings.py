"""How the text of a configuration key becomes a value: sizes, times, switches, paths.

Each reader raises ValueError with what is wrong, and what is right.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from poledata.formatting import is_utf8, shown

LABEL = "{label}"
_NONE = "none"
_BESIDE = "data_manager.log beside the database"
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST_S = 100 * 365.25 * 86400
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_EXTENSION = re.compile(r"[\w+~-]+(?:\.[\w+~-]+)*")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
_SWITCH = dict.fromkeys(("yes", "true", "on", "1"), True) | dict.fromkeys(
    ("no", "false", "off", "0"), False
)


class RemoteWriters(StrEnum):
    """Whether files of the buffer are written from another host."""

    AUTO = "auto"  # as far as that can be seen
    YES = "yes"
    NO = "no"


def size_bytes(text: str) -> int:
    """Return ``10 GB``, ``1.5 TiB`` or plain bytes as a number."""
    match = _QUANTITY.fullmatch(text)
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if not match or factor is None:
        raise ValueError(f"{quoted(text)} is not a size; write it like 500 MB, 10 GB or 10 GiB")
    whole, _, decimals = match[1].partition(".")
    return int(whole) * factor + round(float(f"0.{decimals or 0}") * factor)


def duration_s(text: str) -> float:
    """Return ``90 s``, ``6 h``, ``30 d`` or plain seconds as seconds."""
    match = _QUANTITY.fullmatch(text)
    factor = _TIME_UNITS.get(match[2]) if match else None
    if not match or factor is None:
        raise ValueError(f"{quoted(text)} is not a time; write it like 90 s, 5 min, 6 h or 30 d")
    time_s = float(match[1]) * factor
    if time_s > _LONGEST_S:
        raise ValueError(f"{quoted(text)} is over a hundred years; write it like 90 s or 30 d")
    return time_s


def lacks_unit(text: str) -> bool:
    """True if it is a number other than 0, without a unit."""
    match = _QUANTITY.fullmatch(text)
    return bool(match and not match[2] and float(match[1]))


def quoted(text: str) -> str:
    """Return ``text`` in quotes, with what can't be printed escaped."""
    return f'"{shown(text)}"'


def _positive_duration_s(text: str) -> float:
    if not (time_s := duration_s(text)):
        raise ValueError("0 would send every open notice at each pass; write a time like 24 h")
    return time_s


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError(f"{quoted(text)} is neither yes nor no; write one of them")
    return _SWITCH[text.lower()]


def _remote_writers(text: str) -> RemoteWriters:
    if text.lower() in _SWITCH:
        return RemoteWriters.YES if _SWITCH[text.lower()] else RemoteWriters.NO
    if text.lower() != RemoteWriters.AUTO:
        raise ValueError(f"{quoted(text)} is not auto, yes or no; write one of them")
    return RemoteWriters.AUTO


def _percent(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%?", text)
    if not match or not 0 < float(match[1]) <= 100:
        raise ValueError(f"{quoted(text)} is not a percentage; write a number over 0, up to 100")
    return float(match[1])


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise ValueError(f"{quoted(text)} is not a count; write a whole number such as 2")
    return int(text)


def _prefix(text: str) -> str:
    if not re.fullmatch("[A-Za-z]+", text):
        raise ValueError(f"{quoted(text)} is not a prefix; write ASCII letters alone, such as P")
    return text


def _extensions(text: str) -> tuple[str, ...]:
    bare = [item.strip().removeprefix(".") for item in text.split(",")]
    wrong = [quoted(item) for item in bare if not _EXTENSION.fullmatch(item)]
    if wrong:
        raise ValueError(*(f"{item} is no extension; write it like g3, g3.gz" for item in wrong))
    return tuple(dict.fromkeys(f".{item}" for item in bare))


def _trees(text: str) -> tuple[str, ...]:
    """Return trees of the buffer: relative paths, with ``*`` for a part or some of one."""
    if text.lower() == _NONE:
        return ()
    trees = [item.strip().removesuffix("/") for item in re.split("[,\n]", text)]
    wrong = [
        quoted(tree)
        for tree in trees
        if any(part == "" or part.startswith(".") for part in tree.split("/"))
    ]
    if wrong:
        rule = "a path below the buffer, without a part that begins with a dot: fullrate"
        raise ValueError(*(f"{item} is not a tree; write {rule}" for item in wrong))
    return tuple(dict.fromkeys(trees))


def _included(text: str) -> tuple[str, ...]:
    if not (trees := _trees(text)):
        raise ValueError("none would archive nothing; write * for the whole buffer")
    return trees


def _commands(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return for each extension the command that checks such a file, with ``{path}`` for it."""
    if text.lower() == _NONE:
        return ()
    found = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        extension, colon, command = line.partition(":")
        parts = tuple(shlex.split(command))
        if not (colon and "{path}" in command and _EXTENSION.fullmatch(extension.strip())):
            raise ValueError(f"{quoted(line)} is no check; write it like g3: spt3g-verify {{path}}")
        found.append((f".{extension.strip()}", parts))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class SettingPlace:
    """What a path in the file is relative to, and the variables that it may name."""

    base: Path
    environ: Mapping[str, str]

    def path(self, text: str) -> Path:
        """Return ``text`` as an absolute path, with ``~`` and ``$VARS`` filled in."""
        if text == "~" or text.startswith("~/"):
            text = "$HOME" + text[1:]
        names = [match[1] or match[2] for match in _VARIABLE.finditer(text)]
        # an empty variable would turn $BASE/buffer into /buffer
        unset = [f"${name} is not set; write the path out" for name in names if not self._get(name)]
        if unset:
            raise ValueError(*dict.fromkeys(unset))
        filled = _VARIABLE.sub(lambda match: self._get(match[1] or match[2]), text)
        full = self.base / os.path.expanduser(filled)
        if ".." in full.parts:  # after a symlink it is not the parent in the text
            full = Path(os.path.realpath(full))
        if not is_utf8(str(full)):
            raise ValueError(f"{shown(str(full))} is not UTF-8; use a directory with another name")
        return full

    def _get(self, name: str) -> str:
        return self.environ.get(name, "")


def _buffer(text: str, place: SettingPlace) -> Path:
    path = place.path(text)
    try:
        with os.scandir(path):
            return path
    except OSError as e:
        raise ValueError(
            f"{shown(str(path))} can't be listed ({e.strerror}); name a directory that exists "
            "and that this user can list"
        ) from e


def _file_to_make(text: str, place: SettingPlace) -> Path:
    path = place.path(text)
    if os.path.isdir(path):
        raise ValueError(f"{shown(str(path))} is a directory; name a file")
    if not os.path.isdir(path.parent):
        parent = shown(str(path.parent))
        raise ValueError(f"there is no directory {parent}; make it: mkdir -p {parent}")
    return path


def _log_file(text: str, place: SettingPlace) -> Path | None:
    return None if text == _BESIDE else place.path(text)  # no log is worth a stopped archive


def _page(text: str, place: SettingPlace) -> Path | None:
    return None if text.lower() == _NONE else place.path(text)


def _mount_patterns(text: str, place: SettingPlace) -> tuple[str, ...]:
    """Return paths with ``{label}``, one for each place where a disk may be mounted."""
    patterns: list[str] = []
    faults: list[str] = []
    for item in filter(None, (item.strip() for item in re.split("[,\n]", text))):
        try:
            patterns.append(_mount_pattern(item, place))
        except ValueError as e:
            faults += e.args
    if faults or not patterns:
        raise ValueError(*(faults or ["names no directory; write one such as /spt_disks"]))
    return tuple(dict.fromkeys(patterns))


# The type as smartctl(8) has it; what it means is checked where smartctl runs (privileges.py).
_SMART_DEVICE = re.compile(r"(/dev/[\w./:-]+)(?:\s+-d\s+([\w.+/,-]*\w))?", re.ASCII)


def smart_devices(text: str) -> tuple[tuple[str, str | None], ...]:
    """Return devices and their types, of ``/dev/sdq -d sat, /dev/sg2 -d cciss,0``.

    A comma within a type separates nothing. Raises ValueError.
    """
    if text.lower() == _NONE:
        return ()
    found = []
    for item in filter(None, (item.strip() for item in re.split(r",\s*(?=/|$)", text))):
        if not (match := _SMART_DEVICE.fullmatch(item)):
            raise ValueError(f"{quoted(item)} is not a device; write it like /dev/sdq -d sat")
        found.append((match[1], match[2]))
    return tuple(found)


def _mount_pattern(item: str, place: SettingPlace) -> str:
    path = place.path(item)
    if re.search("[{}]", str(path).replace(LABEL, "")):
        raise ValueError(f"{shown(str(path))}: only {LABEL} may stand in braces")
    pattern = str(path if LABEL in str(path) else path / LABEL)
    if not os.path.isdir(fixed_part(pattern)):
        fixed = shown(str(fixed_part(pattern)))
        raise ValueError(f"there is no directory {fixed}; name the one that holds the disks")
    return pattern


def fixed_part(pattern: str) -> Path:
    """Return the deepest directory of ``pattern`` that is the same for every label."""
    parts = Path(pattern).parts
    return Path(*parts[: next(n for n, part in enumerate(parts) if LABEL in part)])


def _plain(read: Callable[[str], object]) -> Callable[[str, SettingPlace], object]:
    return lambda text, _: read(text)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the INI file; ``default`` is text as in the file, None for a required key."""

    name: str
    default: str | None
    meaning: str
    sets: str  # the field of Config
    read: Callable[[str, SettingPlace], object]
    bare: str = ""  # what a number without a unit counts as; "": it needs none


KEYS = (
    Key("FilenameDB", None,
        "the SQLite database; its directory exists and belongs to the cron user",
        "db_path", _file_to_make),
    Key("BufferLocation", None, "the directory to archive from, with its subdirectories",
        "buffer", _buffer),
    Key("Extension", None, "which files, by the end of their name: g3, or several: g3, g3.gz",
        "extensions", _plain(_extensions)),
    Key("Include", "*",
        "the trees of the buffer to archive from: fullrate, downsampled; `*` matches one part of a "
        "path, or some of it",
        "include", _plain(_included)),
    Key("Exclude", _NONE, "the trees of the buffer to leave alone", "exclude", _plain(_trees)),
    Key("RemoveEmptyDirectories", "0",
        "how long a directory of the buffer must have been empty until it is removed; 0: never",
        "empty_directories_s", _plain(duration_s), "seconds"),
    Key("DiskMountPoints", None,
        "the directory with a mount point per label (/spt_disks), or a pattern "
        "(/mnt/disk-{label}); several: separate them by commas",
        "mount_patterns", _mount_patterns),
    Key("PrimaryPrefix", "P", "labels of primary disks are this and a number", "primary_prefix",
        _plain(_prefix)),
    Key("CopyPrefix", "S", "labels of copy disks are this and a number", "copy_prefix",
        _plain(_prefix)),
    Key("RequireMount", "yes",
        "no: plain directories stand in for disks, for demo and tests; never mix them with drives "
        "in one database",
        "require_mount", _plain(_switch)),
    Key("AcceptUnidentifiedDrives", "no",
        "yes: use drives without serial number and logical ID (loop devices, some USB docks); two "
        "of them may be one drive, so for tests only",
        "accept_unidentified", _plain(_switch)),
    Key("SmartDevices", _NONE,
        "drives that scanning cannot find: /dev/sdq -d sat, /dev/sg2 -d cciss,0", "smart_devices",
        _plain(smart_devices)),
    Key("DeleteFromBuffer", "yes", "no: archive the files, and keep them in the buffer",
        "delete_from_buffer", _plain(_switch)),
    Key("MinFreeSpace", "10 GB", "kept free on every disk", "min_free_bytes", _plain(size_bytes),
        "bytes"),
    Key("SettleTime", "60 s", "a file that was not modified for this long may be finished",
        "settle_s", _plain(duration_s), "seconds"),
    Key("RemoteWriters", "auto",
        "yes: another host may write into the buffer; no: no other host ever does",
        "remote_writers", _plain(_remote_writers)),
    Key("NoNewFilesAfter", "6 h", "notice if no file was archived for this long; 0: never",
        "no_new_files_after_s", _plain(duration_s), "seconds"),
    Key("BufferFullPercent", "80", "notice if the buffer's file system is fuller than this",
        "buffer_full_percent", _plain(_percent)),
    Key("SpareDisksLow", "2", "notice if a role has fewer mounted spare disks; 0: never",
        "spare_disks_low", _plain(_count)),
    Key("RepeatNotices", "24 h", "how often an open notice is sent again", "repeat_notices_s",
        _plain(_positive_duration_s), "seconds"),
    Key("VerifyEvery", "30 d", "the longest time between two verifications of a copy",
        "verify_every_s", _plain(duration_s), "seconds"),
    Key("ReceiptExpected", "0",
        "how long after shipping a disk without a receipt is reported; 0: never",
        "receipt_expected_s", _plain(duration_s), "seconds"),
    Key("CheckContent", _NONE, "what check-content runs for an extension", "check_content",
        _plain(_commands)),
    Key("LogFile", _BESIDE, "the log", "log_file", _log_file),
    Key("StatusPage", _NONE, "a status page for the browser that each pass rewrites",
        "status_page", _page),
    Key("MetricsFile", _NONE, "numbers for Prometheus that each pass rewrites", "metrics_file",
        _page),
    Key("ViewLocation", _NONE, "a directory of links to the mounted copies", "view", _page),
)  # fmt: skip
