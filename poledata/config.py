"""The configuration: the INI file, and the secrets in the ``.env`` beside it."""

from __future__ import annotations

import configparser
import io
import logging
import operator
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poledata.errors import ConfigFault
from poledata.formatting import is_utf8, shown, text_in
from poledata.models import Prefixes, Role
from poledata.settings import (
    KEYS,
    LABEL,
    Key,
    RemoteWriters,
    SettingPlace,
    fixed_part,
    lacks_unit,
    quoted,
)
from poledata.system.privileges import user_name

# --- the secrets --------------------------------------------------------------------------

_SECRETS = ("POLE_NOTIFY_URLS", "POLE_PAGER_URLS", "POLE_PAGER_COMMAND",
            "POLE_HEARTBEAT_COMMAND", "POLE_HEARTBEAT_URL")  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """Where notices go. Its text form never shows a value: it may end up in a log."""

    notify_urls: tuple[str, ...] = ()
    pager_urls: tuple[str, ...] = ()
    pager_command: str | None = None
    heartbeat_command: str | None = None
    heartbeat_url: str | None = None
    is_without_watchdog: bool = False  # on purpose: POLE_HEARTBEAT_URL is "none"

    @property
    def has_watchdog(self) -> bool:
        """True if somebody gets a heartbeat, or if nobody does on purpose."""
        return bool(self.heartbeat_command or self.heartbeat_url or self.is_without_watchdog)

    def __repr__(self) -> str:
        return "Secrets(hidden)"


def read_secrets(
    path: Path, environ: Mapping[str, str], trusted_uid: int | None = None
) -> tuple[Secrets, list[str]]:
    """Return the secrets of the environment, else of the file, and warnings about the file.

    The file may be this user's, root's or the ``trusted_uid``'s: it names commands to run.
    """
    stored, warnings = _read_env_file(path, {0, os.geteuid(), trusted_uid})
    given = {name: environ.get(name, stored.get(name) or "").strip() for name in _SECRETS}
    is_without_watchdog = given["POLE_HEARTBEAT_URL"].lower() == "none"
    secrets = Secrets(
        notify_urls=_urls(given["POLE_NOTIFY_URLS"]),
        pager_urls=_urls(given["POLE_PAGER_URLS"]),
        pager_command=given["POLE_PAGER_COMMAND"] or None,
        heartbeat_command=given["POLE_HEARTBEAT_COMMAND"] or None,
        heartbeat_url=None if is_without_watchdog else given["POLE_HEARTBEAT_URL"] or None,
        is_without_watchdog=is_without_watchdog,
    )
    return secrets, [f"{shown(str(path))}: {warning}" for warning in warnings]


def _urls(text: str) -> tuple[str, ...]:
    """Split at white space; a comma in a URL belongs to it, one at its end is a separator."""
    return tuple(url for url in (part.rstrip(",") for part in text.split()) if url)


def _read_env_file(
    path: Path, trusted: Collection[int | None]
) -> tuple[dict[str, str | None], list[str]]:
    """Return the values that may be used, and warnings; a file that is not there has none."""
    try:
        st = path.stat()
        if stat.S_ISFIFO(st.st_mode):  # reading it would block
            raise ValueError("it is a pipe")
        values, warnings = _parse_env(text_in(path))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, ImportError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        whose = "; it must belong to the cron user" if isinstance(e, PermissionError) else ""
        return {}, [f"can't be read ({why}{whose}); what it holds is not used"]
    if st.st_mode & 0o077:
        warnings.append(f"is open to others than its owner; run: chmod 600 {shown(str(path))}")
    if st.st_uid not in trusted:
        for name in _SECRETS:
            if name.endswith("_COMMAND") and values.pop(name, None):
                why = "belongs to another user, so its command is not run; give it to the cron user"
                warnings.append(f"{why} ({name})")
    return values, warnings


def _parse_env(text: str) -> tuple[dict[str, str | None], list[str]]:
    """Return the values, and a warning for each line that gives none."""
    from dotenv import dotenv_values

    warnings: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        # without a handler it would go to standard error, and cron would mail it every minute
        warnings.append(record.getMessage())
        return False

    logger = logging.getLogger("dotenv.main")
    logger.addFilter(keep)
    try:
        values = dict(dotenv_values(stream=io.StringIO(text), interpolate=False))
    finally:
        logger.removeFilter(keep)
    unknown = [name for name in values if name.startswith("POLE_") and name not in _SECRETS]
    return values, warnings + [f"{shown(name)} is not known, and not used" for name in unknown]


# --- the configuration --------------------------------------------------------------------

_KEY_OF = {key.name.lower(): key for key in KEYS}
_FILES = {"FilenameDB": "db_path", "LogFile": "log_file",
          "MetricsFile": "metrics_file", "StatusPage": "status_page",
          "ViewLocation": "view"}  # fmt: skip
_LISTS = ("DiskMountPoints", "Extension", "Include", "Exclude", "CheckContent")
_WRITTEN_WITH = {"StatusPage": "jinja2", "MetricsFile": "prometheus_client"}
INSTALL_PAGE = "in the program's directory: sudo venv/bin/pip install '.[page]'"


@dataclass(frozen=True, slots=True)
class Config:
    """One valid configuration: every path absolute, sizes in bytes, times in seconds."""

    path: Path
    db_path: Path
    buffer: Path
    extensions: tuple[str, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    empty_directories_s: float  # 0: they stay
    mount_patterns: tuple[str, ...]
    primary_prefix: str
    copy_prefix: str
    require_mount: bool
    accept_unidentified: bool
    smart_devices: tuple[tuple[str, str | None], ...]
    delete_from_buffer: bool
    min_free_bytes: int
    settle_s: float
    remote_writers: RemoteWriters
    no_new_files_after_s: float
    buffer_full_percent: float
    spare_disks_low: int
    repeat_notices_s: float
    verify_every_s: float
    receipt_expected_s: float
    check_content: tuple[tuple[str, tuple[str, ...]], ...]  # extension, command
    log_file: Path
    status_page: Path | None
    metrics_file: Path | None
    view: Path | None
    secrets: Secrets = field(repr=False)
    warnings: tuple[str, ...]

    def mount_points(self, label: str) -> tuple[Path, ...]:
        """Return every place where the disk with this label may be mounted."""
        return tuple(Path(pattern.replace(LABEL, label)) for pattern in self.mount_patterns)

    def content_command(self, name: str) -> tuple[str, ...] | None:
        """Return the command that checks the content of this file, if there is one."""
        found = (command for ending, command in self.check_content if name.endswith(ending))
        return next(found, None)

    @property
    def prefixes(self) -> Prefixes:
        return Prefixes(self.primary_prefix, self.copy_prefix)

    def role_of(self, label: str) -> Role | None:
        """Return the role of ``label``, or None if it is not a label of either role."""
        return self.prefixes.role_of(label)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration at ``path``.

    Raises ConfigFault with every fault, each as ``FILE: Key: what is wrong; what is right``.
    """
    full = Path(os.path.abspath(path))
    if not is_utf8(str(full)):
        raise ConfigFault([f"{shown(str(full))}: this path is not UTF-8; rename the directory"])
    try:
        ini = _Ini.parse(text_in(full))
        values = _values(ini, full, SettingPlace(full.parent, environ))
    except OSError as e:
        by = f" by the user {user_name(os.geteuid())}" if isinstance(e, PermissionError) else ""
        why = f"can't be read{by} ({e.strerror}); name another with --config, or copy an example"
        raise ConfigFault([f"{shown(str(path))}: {why}"]) from e
    except ValueError as e:
        raise ConfigFault(f"{shown(str(path))}: {fault}" for fault in e.args) from e
    secrets, warnings = read_secrets(full.parent / ".env", environ, full.stat().st_uid)
    return Config(
        path=full,
        **values,
        secrets=secrets,
        warnings=(*_unit_warnings(ini), *_page_warnings(values), *warnings),
    )


def database_directory(path: Path, content: bytes, environ: Mapping[str, str]) -> Path | None:
    """Return the directory that FilenameDB names in the content of a configuration of root's.

    None if it names none: :func:`load` says what is wrong. Raises ConfigFault if it is relative
    to the home of the caller, who is root now, and another user in a pass.
    """
    found = re.findall(
        r"(?im)^[ \t]*FilenameDB[ \t]*[=:][ \t]*(\S.*?)[ \t]*$", content.decode("latin-1")
    )
    if not found:
        return None
    text = found[-1].encode("latin-1").decode("utf-8", "replace")
    if text.startswith("~") or "HOME" in text:
        why = "root has another home than the cron user; write the path out"
        raise ConfigFault([f"{shown(str(path))}: FilenameDB: {why}"])
    try:
        return SettingPlace(path.parent, environ).path(text).parent
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Ini:
    """What the file says: values by keys in lower case, and the lines and spellings of each key."""

    values: dict[str, str]
    lines: dict[str, list[tuple[int, str]]]
    faults: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> _Ini:
        """Parse the file. Raises ValueError if no section begins it."""
        line_no = 0
        lines: dict[str, list[tuple[int, str]]] = {}

        def numbered() -> Iterator[str]:
            nonlocal line_no
            for line in io.StringIO(text, newline=None):
                line_no += 1
                yield line

        def note_line(name: str) -> str:
            # configparser asks for a key's form while it is at its line, and forgets the line
            lines.setdefault(name.lower(), []).append((line_no, name))
            return name.lower()

        parser = configparser.RawConfigParser(default_section="\n", strict=False)
        parser.optionxform = note_line  # type: ignore[method-assign,assignment]
        faults: tuple[str, ...] = ()
        try:
            parser.read_file(numbered())
        except configparser.MissingSectionHeaderError as e:
            raise ValueError(f"line {e.lineno} is above any [section]; begin with one") from e
        except configparser.ParsingError as e:
            faults = tuple(f"line {n} is neither [section] nor Key = value" for n, _ in e.errors)
        values = {k: v for name in parser.sections() for k, v in parser.items(name) if k}
        lines.pop("", None)
        return cls(values, lines, faults)


def _values(ini: _Ini, path: Path, place: SettingPlace) -> dict[str, Any]:
    """Return Config's fields from the file. Raises ValueError with all its faults."""
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
    faults += _prefix_faults(values)
    faults += _path_faults(values, path, ini.values)
    if faults:
        raise ValueError(*dict.fromkeys(faults))
    return values


def _key_faults(ini: _Ini) -> Iterator[str]:
    """Name unknown, repeated and missing keys."""
    for name, places in ini.lines.items():
        if name not in _KEY_OF:
            yield f"{shown(places[0][1])}: line {places[0][0]} has an unknown key; {_hint(name)}"
        elif len(places) > 1:
            numbers = " and ".join(str(line) for line, _ in places)
            yield f"{_KEY_OF[name].name}: is on lines {numbers}; keep one of them"
    for name, key in _KEY_OF.items():
        # a line that can't be parsed may be the one that seems to be missing
        if key.default is None and name not in ini.lines and not ini.faults:
            yield f"{key.name}: is missing; add a line {key.name} = … ({key.meaning})"


def _hint(name: str) -> str:
    import difflib  # slow to load, for a typo alone

    if name.startswith("pole_"):
        return "secrets stand in the .env beside this file"
    nearest = difflib.get_close_matches(name, _KEY_OF, n=1, cutoff=0.0)
    return f"the nearest known one is {_KEY_OF[nearest[0]].name}"


def _check_form(key: Key, text: str) -> None:
    """Refuse what would be a strange path, but was not meant as one. Raises ValueError."""
    if not text:
        raise ValueError("is empty; give it a value, or remove the line")
    if "\n" in text and key.name not in _LISTS:
        raise ValueError("goes on over an indented line; begin each line without white space")
    if not text.replace("\n", "").isprintable():
        raise ValueError(f"{quoted(text)} holds a character that can't be printed; remove it")
    if re.search(r"(?:^|\s)[#;]", text):
        raise ValueError("has a comment behind the value; give the comment a line of its own")
    if re.search(r"""^(["']).*\1$""", text):
        raise ValueError(f"{text} is in quotes; write it without them")


def _prefix_faults(values: Mapping[str, Any]) -> Iterator[str]:
    if {"primary_prefix", "copy_prefix"} <= values.keys():
        primary, copy = values["primary_prefix"], values["copy_prefix"]
        if primary.lower().startswith(copy.lower()) or copy.lower().startswith(primary.lower()):
            yield (
                f"CopyPrefix: {copy} and PrimaryPrefix {primary} are equal, or one begins with "
                "the other; choose two such as P and S"
            )


# --- places that must be apart ------------------------------------------------------------


def _path_faults(
    values: Mapping[str, Any], config_path: Path, written: Collection[str]
) -> Iterator[str]:
    """Name files that are the same, and a buffer, disks and files (of these keys) that overlap."""
    files = {
        name: Path(os.path.realpath(values[sets]))
        for name, sets in _FILES.items()
        if values.get(sets) is not None
    }
    taken = {Path(os.path.realpath(config_path)): "this configuration"}
    for name, file in files.items():
        other = taken.setdefault(file, name)
        if other != name:
            yield f"{name}: names the same file as {other}; give it one of its own"
    if {"buffer", "mount_patterns", "primary_prefix", "copy_prefix"} <= values.keys():
        files = {name: file for name, file in files.items() if name.lower() in written}
        yield from _overlaps(values, files)


def _overlaps(values: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[str]:
    """Name a buffer, disks and files that are within one another, symlinks resolved."""
    buffer = Path(os.path.realpath(values["buffer"]))
    prefixes = Prefixes(values["primary_prefix"], values["copy_prefix"])
    places = [
        (shown(pattern), place)
        for pattern in values["mount_patterns"]
        for place in _disk_places(pattern, prefixes, [buffer, *files.values()])
    ]
    for pattern, place in places:
        if _overlap(buffer, place):
            how = "contains" if buffer in place.parents else "is, or lies on,"
            disk = f"a place for a disk ({pattern})"
            yield f"BufferLocation: {shown(str(buffer))} {how} {disk}; keep them apart"
    for name, file in files.items():
        if buffer in (file, *file.parents):
            yield f"{name}: {shown(str(file))} lies inside the buffer; put it elsewhere"
        for pattern, place in places:
            if _overlap(file, place):
                yield f"{name}: {shown(str(file))} lies on a disk ({pattern}); put it elsewhere"


def _overlap(path: Path, place: Path) -> bool:
    """True if they are the same, or one is within the other."""
    return all(map(operator.eq, path.parts, place.parts))


def _disk_places(pattern: str, prefixes: Prefixes, paths: Collection[Path]) -> Iterator[Path]:
    """Yield the real paths of the mount points of a pattern that ``paths`` may overlap.

    These are ``{label}`` itself, for what contains any of them, the labels that ``paths`` have in
    its place, there or not, and the labels in its directory that a link may lead elsewhere.
    """
    fixed = fixed_part(pattern)
    real, tail = Path(os.path.realpath(fixed)), Path(pattern).relative_to(fixed)
    yield real / tail
    names = {path.parts[len(real.parts)] for path in paths if real in path.parents}
    with suppress(OSError), os.scandir(fixed) as entries:  # some may be entered but not listed
        names.update(e.name for e in entries if e.is_symlink() or len(tail.parts) > 1)
    labels = (_label_in(name, tail.parts[0]) for name in sorted(names))
    for label in filter(prefixes.role_of, labels):
        yield Path(os.path.realpath(pattern.replace(LABEL, label)))


def _label_in(name: str, part: str) -> str:
    """Return the label that makes ``name`` of ``part``, a name with ``{label}``; "" if none."""
    start, repeats = part.index(LABEL), part.count(LABEL)
    length = (len(name) - len(part)) // repeats + len(LABEL)
    label = name[start : start + max(0, length)]
    return label if part.replace(LABEL, label) == name else ""


def page_faults(config: Config, path: Path) -> list[str]:
    """Return why no page may be written there: what StatusPage would be refused for."""
    values = {key.sets: getattr(config, key.sets) for key in KEYS} | {"status_page": path}
    faults = _path_faults(values, config.path, ["statuspage"])
    return [fault.partition(": ")[2] for fault in faults]


# --- warnings -----------------------------------------------------------------------------


def _unit_warnings(ini: _Ini) -> Iterator[str]:
    """Warn of numbers without a unit, which count as in 1.0.0: no update stops the archive."""
    for name, key in _KEY_OF.items():
        text = ini.values.get(name, "")
        if key.bare and lacks_unit(text):
            yield (
                f"{key.name}: {text} has no unit and counts as {text} {key.bare}; write the unit, "
                f"for example {key.default}"
            )


def _page_warnings(values: Mapping[str, Any]) -> Iterator[str]:
    """Warn of pages and links that can't be written: none is worth a stopped archive."""
    view = values["view"]
    if view is not None and not os.path.isdir(view):
        yield f"ViewLocation: there is no directory {shown(str(view))}; make it"
    elif view is not None and not os.access(view, os.W_OK | os.X_OK):
        why = f"this user may not write into {shown(str(view))}"
        yield f"ViewLocation: {why}; give it to the cron user"
    for name, module in _WRITTEN_WITH.items():
        path = values[_FILES[name]]
        if path is None:
            continue
        directory = shown(str(path.parent))
        if not os.path.isdir(path.parent):
            yield f"{name}: there is no directory {directory}; make it"
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            why = f"this user may not write into {directory}"
            yield f"{name}: {why}; give it to the cron user"
        if find_spec(module) is None:
            yield f"{name}: it needs {module}, which is not installed; {INSTALL_PAGE}"
