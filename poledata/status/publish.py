"""Rewrite the status page and the metrics file when a pass ends: complete, or not at all.

This comes last, and every fault is logged: nothing here ends or delays archiving. If a write
hangs, later passes leave it to the one that waits.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from poledata import db
from poledata.config import INSTALL_PAGE, Config
from poledata.errors import NotWritten, PoleError
from poledata.notices.findings import Findings
from poledata.system import locks

if TYPE_CHECKING:
    from poledata.status.facts import Status

log = logging.getLogger(__name__)


def rewrite(config: Config, conn: db.Connection) -> list[str]:
    """Rewrite the files that StatusPage and MetricsFile name; return which can't be written."""
    if config.status_page is None and config.metrics_file is None:
        return []
    try:
        with locks.only_one(config.db_path, locks.Task.PAGE) as is_ours:
            if is_ours:
                return _rewrite(config, conn)
            log.warning("the status page is not written: another pass is still writing it")
    except PoleError as fault:
        log.warning("the status page is not written: %s", fault)
    return []


def _rewrite(config: Config, conn: db.Connection) -> list[str]:
    from poledata.status.collect import collect

    faults: list[str] = []
    findings = Findings(conn)
    with findings.isolated("the status page and the metrics"):
        status = collect(config, conn)
        if config.status_page:
            with _logged("StatusPage", faults), findings.isolated("status page"):
                write_page(config.status_page, config, conn, status)
        if config.metrics_file:
            with _logged("MetricsFile", faults), findings.isolated("metrics"):
                write_metrics(config.metrics_file, status)
    return faults


@contextmanager
def _logged(key: str, faults: list[str]) -> Iterator[None]:
    """Note a file that can't be written; the other one is still written."""
    try:
        yield
    except NotWritten as fault:
        log.warning("%s", fault)
        faults.append(f"{key}: {fault}")


def write_page(path: Path, config: Config, conn: db.Connection, status: Status) -> None:
    """Write the status as a page of HTML. Raise NotWritten."""
    _must_have("jinja2", path)
    from poledata.status import html

    text = html.render(status, html.collect(conn, status), config.buffer_full_percent)
    put(path, text, html.BEGINNING)


def write_metrics(path: Path, status: Status) -> None:
    """Write the status in numbers, for Prometheus. Raise NotWritten."""
    _must_have("prometheus_client", path)
    from poledata.status import metrics

    put(path, metrics.render(status), metrics.BEGINNING)


def _must_have(module: str, path: Path) -> None:
    try:
        importlib.import_module(module)
    except ImportError as fault:
        raise NotWritten(
            path, f"it needs {module}, which can't be loaded ({fault})", f"Run {INSTALL_PAGE}"
        ) from fault


# --- complete, or not at all --------------------------------------------------------------


def put(path: Path, text: str, beginning: str) -> None:
    """Replace the file at ``path``, which must begin with ``beginning``. Raise NotWritten."""
    try:
        _must_be_ours(path, beginning.encode())
        _replace(path, text.encode(errors="backslashreplace"))
    except OSError as fault:
        why = "it is a link" if fault.errno == errno.ELOOP else fault.strerror or str(fault)
        raise NotWritten(path, why, "What stood there was not changed.") from fault


def _must_be_ours(path: Path, beginning: bytes) -> None:
    """No file, an empty one, or one of ours: a typo must not overwrite a database."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        if not is_file or file.read(len(beginning)) not in (b"", beginning):
            raise NotWritten(
                path, "the file there is not ours", "Name another file, or move that one away."
            )


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside it and rename that; the next run removes what a crash left of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o644)  # despite the umask: others must be able to read it
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
