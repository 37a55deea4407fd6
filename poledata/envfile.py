"""The secrets: where notices go, from the environment and the ``.env`` beside the INI file."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from poledata.texts import shown, text_in

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

    def __repr__(self) -> str:
        return "Secrets(hidden)"


def read_secrets(path: Path, environ: Mapping[str, str]) -> tuple[Secrets, list[str]]:
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
        if stat.S_ISFIFO(st.st_mode):  # it would be waited for
            raise ValueError("it is a pipe")
        values, warnings = _parsed_env(text_in(path))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, ImportError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        whose = "; it must belong to the cron user" if isinstance(e, PermissionError) else ""
        return {}, [f"{where}: can't be read ({why}{whose}); what it holds is not used"]
    if st.st_mode & 0o077:
        warnings.append(f"is open to others than its owner; run: chmod 600 {where}")
    if os.geteuid() == 0 and st.st_uid != 0:
        commands = [name for name in _SECRETS if name.endswith("_COMMAND") and values.get(name)]
        values = {name: value for name, value in values.items() if name not in commands}
        warnings += [
            f"root does not own it, so root does not run {name}; the next pass does"
            for name in commands
        ]
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
