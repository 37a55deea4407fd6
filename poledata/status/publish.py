"""The status page and the metrics file: each whole or as it was, rewritten when a pass ends.

It comes last, and whatever goes wrong is logged: nothing here ends or delays archiving. Where a
write hangs, later passes leave it to the one that waits.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from poledata import db
from poledata.config import INSTALL_PAGE, Config
from poledata.errors import NotWritten, PoleError
from poledata.notices.channels import configured_channels
from poledata.notices.store import Board
from poledata.system import locks

if TYPE_CHECKING:
    from poledata.status.facts import Status

log = logging.getLogger(__name__)


def rewrite(config: Config) -> list[str]:
    """What StatusPage and MetricsFile name, as things stand now; says which can't be written."""
    if config.status_page is None and config.metrics_file is None:
        return []
    try:
        with locks.only_one(config.db_path, locks.Task.PAGE) as is_ours:
            if is_ours:
                return _rewrite(config)
            log.warning("the status page is not written: another pass is still writing it")
    except PoleError as fault:
        log.warning("the status page is not written: %s", fault)
    return []


def _rewrite(config: Config) -> list[str]:
    from poledata.status import facts

    faults: list[str] = []
    with db.connect(config.db_path) as conn:
        board = Board(conn, configured_channels(config.secrets))
        with board.isolated("the status page and the metrics"):
            status = facts.collect(config, conn)
            if config.status_page:
                path = config.status_page
                write = partial(write_page, path, config, conn, status)
                faults += _logged(board, "StatusPage", write)
            if config.metrics_file:
                write = partial(write_metrics, config.metrics_file, status)
                faults += _logged(board, "MetricsFile", write)
    return faults


def _logged(board: Board, key: str, write: Callable[[], None]) -> list[str]:
    """One that fails does not keep the other from being written."""
    try:
        with board.isolated({"StatusPage": "status page"}.get(key, "metrics")):
            write()
    except NotWritten as fault:
        log.warning("%s", fault)
        return [f"{key}: {fault}"]
    return []


def write_page(path: Path, config: Config, conn: db.Connection, status: Status) -> None:
    """The status as a page of HTML. Raises NotWritten."""
    _must_have("jinja2", path)
    from poledata.status import html

    text = html.render(status, html.collect(conn, status), config.buffer_full_percent)
    put(path, text, html.BEGINNING)


def write_metrics(path: Path, status: Status) -> None:
    """The status in numbers, for Prometheus. Raises NotWritten."""
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


# --- whole, or as it was ------------------------------------------------------------------


def put(path: Path, text: str, beginning: str) -> None:
    """``text`` in place of what stood at ``path``, which began so too. Raises NotWritten."""
    try:
        _must_be_ours(path, beginning.encode())
        _replace(path, text.encode(errors="backslashreplace"))
    except OSError as fault:
        why = "it is a link" if fault.errno == errno.ELOOP else fault.strerror or str(fault)
        raise NotWritten(path, why, "What stood there was not changed.") from fault


def _must_be_ours(path: Path, beginning: bytes) -> None:
    """Nothing, an empty file, or one of ours: a slip of the pen must not cost a database."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        if not is_file or file.read(len(beginning)) not in (b"", beginning):
            raise NotWritten(
                path, "what stands there is not ours", "Name another file, or move that one away."
            )


def _replace(path: Path, content: bytes) -> None:
    """Through a file beside it; what a crash left of one is removed by the next."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o644)  # whatever the umask: others are to read it
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
