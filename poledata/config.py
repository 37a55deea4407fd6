"""The configuration: an INI file and the secrets beside it, with all faults at once.

Cron loads this every minute: what only a fault or a ``.env`` needs is imported late.
"""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poledata.diskmap import Prefixes, text_of
from poledata.errors import ConfigFault
from poledata.records import Role, shown

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


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """Where notices go. Its text form never shows a value: it may end up in a log."""

    notify_urls: tuple[str, ...] = ()
    pager_urls: tuple[str, ...] = ()
    pager_command: str | None = None
    heartbeat_command: str | None = None
    heartbeat_url: str | None = None

    def __repr__(self) -> str:
        return "Secrets(hidden)"


@dataclass(frozen=True, slots=True)
class Config:
    """One valid configuration: every path absolute, sizes in bytes, times in seconds."""

    path: Path
    db_path: Path
    buffer: Path
    extensions: tuple[str, ...]
    mount_patterns: tuple[str, ...]
    primary_prefix: str
    copy_prefix: str
    require_mount: bool
    delete_from_buffer: bool
    min_free_bytes: int
    settle_s: float
    no_new_files_after_s: float
    buffer_full_percent: float
    spare_disks_low: int
    repeat_notices_s: float
    verify_every_s: float
    log_file: Path
    status_page: Path | None
    metrics_file: Path | None
    secrets: Secrets = field(repr=False)
    warnings: tuple[str, ...]

    def mount_points(self, label: str) -> tuple[Path, ...]:
        """Every place where the disk with this label may be mounted."""
        return tuple(Path(pattern.replace(LABEL, label)) for pattern in self.mount_patterns)

    @property
    def prefixes(self) -> Prefixes:
        return Prefixes(self.primary_prefix, self.copy_prefix)

    def role_of(self, label: str) -> Role | None:
        """The role of ``label``, or None when it is not a label of either role."""
        return self.prefixes.role_of(label)


def size_bytes(text: str) -> int:
    """``10 GB``, ``1.5 TiB`` or plain bytes as a number; ValueError tells what is right."""
    match = _QUANTITY.fullmatch(text)
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if not match or factor is None:
        raise ValueError(f"{_said(text)} is not a size; write it like 500 MB, 10 GB or 10 GiB")
    whole, _, decimals = match[1].partition(".")
    return int(whole) * factor + round(float(f"0.{decimals or 0}") * factor)


def duration_s(text: str) -> float:
    """``90 s``, ``6 h``, ``30 d`` or plain seconds; ValueError tells what is right."""
    match = _QUANTITY.fullmatch(text)
    factor = _TIME_UNITS.get(match[2]) if match else None
    if not match or factor is None:
        raise ValueError(f"{_said(text)} is not a time; write it like 90 s, 5 min, 6 h or 30 d")
    if float(match[1]) * factor > _LONGEST_S:
        raise ValueError(f"{_said(text)} is over a hundred years; write it like 90 s or 30 d")
    return float(match[1]) * factor


def _said(text: str) -> str:
    return f'"{shown(text)}"'


def _repeat_s(text: str) -> float:
    repeat_s = duration_s(text)
    if not repeat_s:
        raise ValueError("0 would send every open notice at each pass; write a time like 24 h")
    return repeat_s


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError(f"{_said(text)} is neither yes nor no; write one of them")
    return _SWITCH[text.lower()]


def _percent(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%?", text)
    if not match or not 0 < float(match[1]) <= 100:
        raise ValueError(f"{_said(text)} is not a percentage; write a number over 0, up to 100")
    return float(match[1])


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise ValueError(f"{_said(text)} is not a count; write a whole number such as 2")
    return int(text)


def _prefix(text: str) -> str:
    if not re.fullmatch("[A-Za-z]+", text):
        raise ValueError(f"{_said(text)} is not a prefix; write ASCII letters alone, such as P")
    return text


def _extensions(text: str) -> tuple[str, ...]:
    bare = [item.strip().removeprefix(".") for item in text.split(",")]
    wrong = [_said(item) for item in bare if not _EXTENSION.fullmatch(item)]
    if wrong:
        raise ValueError(*(f"{item} is no extension; write it like g3, g3.gz" for item in wrong))
    return tuple(dict.fromkeys(f".{item}" for item in bare))


@dataclass(frozen=True, slots=True)
class _Place:
    """What a path in the file is relative to, and the variables that it may name."""

    base: Path
    environ: Mapping[str, str]

    def path(self, text: str) -> Path:
        """``text`` as an absolute path, ``~`` and ``$VARS`` filled in."""
        if text == "~" or text.startswith("~/"):
            text = "$HOME" + text[1:]
        names = [match[1] or match[2] for match in _VARIABLE.finditer(text)]
        # an empty variable would turn $BASE/buffer into /buffer
        unset = [f"${name} is not set; write the path out" for name in names if not self._get(name)]
        if unset:
            raise ValueError(*dict.fromkeys(unset))
        filled = _VARIABLE.sub(lambda match: self._get(match[1] or match[2]), text)
        full = self.base / os.path.expanduser(filled)
        # ".." behind a symlink is not where it seems: say where it truly leads
        return Path(os.path.realpath(full)) if ".." in full.parts else full

    def _get(self, name: str) -> str:
        return self.environ.get(name, "")


def _buffer(text: str, place: _Place) -> Path:
    path = place.path(text)
    try:
        with os.scandir(path):
            return path
    except OSError as e:
        raise ValueError(
            f"{shown(str(path))} can't be listed ({e.strerror}); name a directory that exists "
            "and that this user can list"
        ) from e


def _file(text: str, place: _Place) -> Path:
    path = place.path(text)
    if os.path.isdir(path):
        raise ValueError(f"{shown(str(path))} is a directory; name a file")
    return path


def _file_to_make(text: str, place: _Place) -> Path:
    path = _file(text, place)
    if not os.path.isdir(path.parent):
        parent = shown(str(path.parent))
        raise ValueError(f"there is no directory {parent}; make it: mkdir -p {parent}")
    return path


def _log_file(text: str, place: _Place) -> Path | None:
    return None if text == _BESIDE else _file_to_make(text, place)


def _page(text: str, place: _Place) -> Path | None:
    return None if text.lower() == _NONE else _file(text, place)


def _mount_patterns(text: str, place: _Place) -> tuple[str, ...]:
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


def _mount_pattern(item: str, place: _Place) -> str:
    path = place.path(item)
    if re.search("[{}]", str(path).replace(LABEL, "")):
        raise ValueError(f"{shown(str(path))}: only {LABEL} may stand in braces")
    pattern = str(path if LABEL in str(path) else path / LABEL)
    if not os.path.isdir(_fixed_part(pattern)):
        fixed = shown(str(_fixed_part(pattern)))
        raise ValueError(f"there is no directory {fixed}; name the one that holds the disks")
    return pattern


def _fixed_part(pattern: str) -> Path:
    """The deepest directory of ``pattern`` that is the same for every label."""
    parts = Path(pattern).parts
    return Path(*parts[: next(n for n, part in enumerate(parts) if LABEL in part)])


def _plain(read: Callable[[str], object]) -> Callable[[str, _Place], object]:
    return lambda text, _: read(text)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the INI file; ``default`` is text as in the file, None for a required key."""

    name: str
    default: str | None
    meaning: str
    sets: str  # the field of Config
    read: Callable[[str, _Place], object]


KEYS = (
    Key("FilenameDB", None, "the SQLite database", "db_path", _file_to_make),
    Key("BufferLocation", None, "directory to archive from", "buffer", _buffer),
    Key("Extension", None, "which files: g3, or several: g3, g3.gz", "extensions",
        _plain(_extensions)),
    Key("DiskMountPoints", None, "directory with a mount point per label, or a {label} pattern",
        "mount_patterns", _mount_patterns),
    Key("PrimaryPrefix", "P", "labels of primary disks", "primary_prefix", _plain(_prefix)),
    Key("CopyPrefix", "S", "labels of copy disks", "copy_prefix", _plain(_prefix)),
    Key("RequireMount", "yes", "no: plain directories stand in for disks", "require_mount",
        _plain(_switch)),
    Key("DeleteFromBuffer", "yes", "no: archive, and keep the buffer's file",
        "delete_from_buffer", _plain(_switch)),
    Key("MinFreeSpace", "10 GB", "kept free on every disk", "min_free_bytes", _plain(size_bytes)),
    Key("SettleTime", "60 s", "a file unmodified for so long is finished", "settle_s",
        _plain(duration_s)),
    Key("NoNewFilesAfter", "6 h", "notice when no file was archived for so long; 0 = never",
        "no_new_files_after_s", _plain(duration_s)),
    Key("BufferFullPercent", "80", "notice when the buffer's file system is fuller",
        "buffer_full_percent", _plain(_percent)),
    Key("SpareDisksLow", "2", "notice when a role has fewer mounted spare disks",
        "spare_disks_low", _plain(_count)),
    Key("RepeatNotices", "24 h", "how often an open notice is sent again", "repeat_notices_s",
        _plain(_repeat_s)),
    Key("VerifyEvery", "30 d", "how old a verification may grow", "verify_every_s",
        _plain(duration_s)),
    Key("LogFile", _BESIDE, "the log", "log_file", _log_file),
    Key("StatusPage", _NONE, "HTML status page to rewrite", "status_page", _page),
    Key("MetricsFile", _NONE, "Prometheus text metrics to rewrite", "metrics_file", _page),
)  # fmt: skip
_KEY_OF = {key.name.lower(): key for key in KEYS}
_FILES = ("FilenameDB", "LogFile", "StatusPage", "MetricsFile")
_LISTS = ("DiskMountPoints", "Extension")


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration at ``path``.

    Raises ConfigFault with every fault, each as ``FILE: Key: what is wrong; what is right``.
    """
    full = Path(os.path.abspath(path))
    try:
        ini = _Ini.parse(text_of(full.read_bytes()))
        values = _values(ini, full, _Place(full.parent, environ))
    except OSError as e:
        why = f"can't be read ({e.strerror}); name another with --config, or copy an example"
        raise ConfigFault([f"{shown(str(path))}: {why}"]) from e
    except ValueError as e:
        raise ConfigFault(f"{shown(str(path))}: {fault}" for fault in e.args) from e
    secrets, warnings = _secrets(full.parent / ".env", environ)
    return Config(
        path=full, **values, secrets=secrets, warnings=(*_page_warnings(values), *warnings)
    )


@dataclass(frozen=True, slots=True)
class _Ini:
    """What stands in the file: keys in lower case, and each line and spelling of theirs."""

    values: dict[str, str]
    lines: dict[str, list[tuple[int, str]]]
    faults: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> _Ini:
        """Raises ValueError when no section begins the file."""
        line_no = 0
        lines: dict[str, list[tuple[int, str]]] = {}

        def numbered() -> Iterator[str]:
            nonlocal line_no
            for line in io.StringIO(text, newline=None):
                line_no += 1
                yield line

        def noted(name: str) -> str:
            # configparser asks for a key's form while it is at its line, and forgets the line
            lines.setdefault(name.lower(), []).append((line_no, name))
            return name.lower()

        parser = configparser.RawConfigParser(default_section="\n", strict=False)
        parser.optionxform = noted  # type: ignore[method-assign,assignment]
        faults: tuple[str, ...] = ()
        try:
            parser.read_file(numbered())
        except configparser.MissingSectionHeaderError as e:
            raise ValueError(f"line {e.lineno} stands above any [section]; begin with one") from e
        except configparser.ParsingError as e:
            faults = tuple(f"line {n} is neither [section] nor Key = value" for n, _ in e.errors)
        values = {k: v for name in parser.sections() for k, v in parser.items(name) if k}
        lines.pop("", None)
        return cls(values, lines, faults)


def _values(ini: _Ini, path: Path, place: _Place) -> dict[str, Any]:
    """Config's fields from the INI; raises ValueError with all its faults."""
    values: dict[str, Any] = {}
    faults = [*ini.faults, *_key_faults(ini)]
    for name, key in _KEY_OF.items():
        text = ini.values.get(name, key.default)
        if text is None:
            continue
        try:
            _check_form(key, text)
            values[key.sets] = key.read(text, place)
        except ValueError as e:
            faults += (f"{key.name}: {arg}" for arg in e.args)
    if values.get("log_file", path) is None and "db_path" in values:
        values["log_file"] = values["db_path"].with_name("data_manager.log")
    faults += [*_prefix_faults(values), *_same_files(values, path), *_overlaps(values, ini)]
    if faults:
        raise ValueError(*dict.fromkeys(faults))
    return values


def _key_faults(ini: _Ini) -> Iterator[str]:
    """Unknown, repeated and missing keys."""
    for name, places in ini.lines.items():
        if name not in _KEY_OF:
            yield f"{shown(places[0][1])}: line {places[0][0]} has an unknown key; {_hint(name)}"
        elif len(places) > 1:
            numbers = " and ".join(str(line) for line, _ in places)
            yield f"{_KEY_OF[name].name}: stands on lines {numbers}; keep one of them"
    for name, key in _KEY_OF.items():
        # a line that can't be read may be the very one that seems to be missing
        if key.default is None and name not in ini.lines and not ini.faults:
            yield f"{key.name}: is missing; add a line {key.name} = … ({key.meaning})"


def _hint(name: str) -> str:
    import difflib

    if name.startswith("pole_"):
        return "secrets stand in the .env beside this file"
    nearest = difflib.get_close_matches(name, _KEY_OF, n=1, cutoff=0.0)
    return f"the nearest known one is {_KEY_OF[nearest[0]].name}"


def _check_form(key: Key, text: str) -> None:
    """Raises ValueError for what would pass as a strange path, but was meant otherwise."""
    if not text:
        raise ValueError("is empty; give it a value, or remove the line")
    if "\n" in text and key.name not in _LISTS:
        raise ValueError("goes on over an indented line; begin each line without white space")
    if not text.replace("\n", "").isprintable():
        raise ValueError(f"{_said(text)} holds a character that can't be printed; remove it")
    if re.search(r"(?:^|\s)[#;]", text):
        raise ValueError("has a comment behind the value; give the comment a line of its own")
    if re.search(r"""^(["']).*\1$""", text):
        raise ValueError(f"{text} stands in quotes; write it without them")


def _prefix_faults(values: Mapping[str, Any]) -> Iterator[str]:
    if {"primary_prefix", "copy_prefix"} <= values.keys():
        primary, copy = values["primary_prefix"], values["copy_prefix"]
        if primary.lower().startswith(copy.lower()) or copy.lower().startswith(primary.lower()):
            yield (
                f"CopyPrefix: {copy} and PrimaryPrefix {primary} are equal, or one begins with "
                "the other; choose two such as P and S"
            )


def _same_files(values: Mapping[str, Any], path: Path) -> Iterator[str]:
    """The log must not be written into the database, nor the page over the configuration."""
    taken = {os.path.realpath(path): "this configuration"}
    for key in (_KEY_OF[name.lower()] for name in _FILES):
        if values.get(key.sets) is not None:
            other = taken.setdefault(os.path.realpath(values[key.sets]), key.name)
            if other != key.name:
                yield f"{key.name}: names the same file as {other}; give it one of its own"


def _overlaps(values: Mapping[str, Any], ini: _Ini) -> Iterator[str]:
    """Buffer, disks and database within one another, symlinks resolved."""
    if not {"buffer", "mount_patterns", "primary_prefix", "copy_prefix"} <= values.keys():
        return
    buffer = Path(os.path.realpath(values["buffer"]))
    prefixes = Prefixes(values["primary_prefix"], values["copy_prefix"])
    shapes = [(p, shape) for p in values["mount_patterns"] for shape in _mount_shapes(p, prefixes)]
    yield from (f"BufferLocation: {why}" for why in _buffer_overlaps(buffer, shapes))
    for key in (_KEY_OF[name.lower()] for name in _FILES if name.lower() in ini.values):
        if values.get(key.sets) is not None:
            path = Path(os.path.realpath(values[key.sets]))
            yield from (f"{key.name}: {why}" for why in _file_overlaps(path, buffer, shapes))


def _buffer_overlaps(buffer: Path, shapes: list[tuple[str, list[str]]]) -> Iterator[str]:
    for pattern, shape in shapes:
        if _fits(buffer, shape):
            how = "contains" if len(buffer.parts) < len(shape) else "is, or lies on,"
            place = f"a place for a disk ({shown(pattern)})"
            yield f"{shown(str(buffer))} {how} {place}; keep them apart"


def _file_overlaps(path: Path, buffer: Path, shapes: list[tuple[str, list[str]]]) -> Iterator[str]:
    if buffer in path.parents:
        yield f"{shown(str(path))} lies inside the buffer; put it elsewhere"
    for pattern, shape in shapes:
        if _fits(path, shape):
            yield f"{shown(str(path))} lies on a disk ({shown(pattern)}); put it elsewhere"


def _fits(path: Path, shape: list[str]) -> bool:
    """Whether ``path`` is, contains, or lies on a mount point of this shape."""
    return all(map(re.fullmatch, shape, path.parts))


def _mount_shapes(pattern: str, prefixes: Prefixes) -> Iterator[list[str]]:
    """Mount points as one regular expression per component: all that may be, then the symlinks."""
    fixed = _fixed_part(pattern)
    label = f"(?:{prefixes.primary}|{prefixes.copy})[0-9]+"
    tail = Path(pattern).relative_to(fixed).parts
    real = [re.escape(part) for part in Path(os.path.realpath(fixed)).parts]
    yield real + [re.escape(part).replace(re.escape(LABEL), label) for part in tail]
    try:
        names = os.listdir(fixed)
    except OSError:  # a directory that may be entered but not listed
        return
    for name in names:
        match = re.search(label, name)
        mount = pattern.replace(LABEL, match[0]) if match else None
        if mount and os.path.islink(mount):
            yield [re.escape(part) for part in Path(os.path.realpath(mount)).parts]


def _page_warnings(values: Mapping[str, Any]) -> Iterator[str]:
    """A page is not worth a stopped archive."""
    for key in (_KEY_OF["statuspage"], _KEY_OF["metricsfile"]):
        path = values[key.sets]
        if path is not None and not os.path.isdir(path.parent):
            yield f"{key.name}: there is no directory {shown(str(path.parent))}; make it"


_SECRETS = ("POLE_NOTIFY_URLS", "POLE_PAGER_URLS", "POLE_PAGER_COMMAND",
            "POLE_HEARTBEAT_COMMAND", "POLE_HEARTBEAT_URL")  # fmt: skip


def _secrets(path: Path, environ: Mapping[str, str]) -> tuple[Secrets, list[str]]:
    """The secrets of environment and ``.env``, and what a person should know about the file."""
    stored, warnings = _stored(path)
    notify, pager, pager_command, heartbeat_command, heartbeat_url = (
        environ.get(name, stored.get(name) or "").strip() for name in _SECRETS
    )
    secrets = Secrets(
        notify_urls=_urls(notify),
        pager_urls=_urls(pager),
        pager_command=pager_command or None,
        heartbeat_command=heartbeat_command or None,
        heartbeat_url=heartbeat_url or None,
    )
    return secrets, warnings


def _urls(text: str) -> tuple[str, ...]:
    """A comma within a URL is a part of it; one at its end separates."""
    return tuple(url for url in (part.rstrip(",") for part in text.split()) if url)


def _stored(path: Path) -> tuple[dict[str, str | None], list[str]]:
    where = shown(str(path))
    try:
        st = path.stat()
        values, warnings = _parsed_env(text_of(path.read_bytes()))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, ImportError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        return {}, [f"{where}: can't be read ({why}); what it holds is not used"]
    if st.st_mode & 0o077:
        warnings.append(f"is open to others than its owner; run: chmod 600 {where}")
    if os.geteuid() == 0 and st.st_uid != 0:
        commands = [name for name in _SECRETS if name.endswith("_COMMAND") and values.get(name)]
        values = {name: value for name, value in values.items() if name not in commands}
        warnings += [f"root does not own it, so root does not run {name}" for name in commands]
    return values, [f"{where}: {warning}" for warning in warnings]


def _parsed_env(text: str) -> tuple[dict[str, str | None], list[str]]:
    """The values, and a warning for each line that gives none."""
    import logging

    from dotenv import dotenv_values

    warnings: list[str] = []

    def kept(record: logging.LogRecord) -> bool:
        # without a handler it would go to standard error, and cron would mail it every minute
        warnings.append(record.getMessage())
        return False

    logger = logging.getLogger("dotenv.main")
    logger.addFilter(kept)
    try:
        values = dict(dotenv_values(stream=io.StringIO(text), interpolate=False))
    finally:
        logger.removeFilter(kept)
    unknown = [name for name in values if name.startswith("POLE_") and name not in _SECRETS]
    warnings += [f"{shown(name)} is not known, and not used" for name in unknown]
    return values, warnings
