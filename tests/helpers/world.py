"""A complete little station in a temporary directory, run by the real scripts as cron would."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.invariants import (
    Entry,
    Ledger,
    Snapshot,
    check_invariants,
    parse_manifest,
    snapshot,
)
from tests.helpers.warm import WarmScripts

MARKER = ".poledata-buffer"
REPO = Path(__file__).resolve().parents[2]
# As cron's, and with the waits shortened that protect a buffer against writers.
QUICK_PATH = str(REPO / "tests/quick")
CRON_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": QUICK_PATH}
AT_START = ("PYTHON", "LC_", "LANG", "LD_")  # variables that Python or the system reads once
REAL_WAITS = {"PYTHONPATH": ""}
# With one of these among its arguments, data_manager.py runs no pass that could tidy up.
NO_PASS = {
    "check",
    "status",
    "pause",
    "resume",
    "close",
    "ship",
    "received",
    "season",
    "lost",
    "forget",
    "hold",
    "unhold",
}
NO_PASS |= {
    "adopt-buffer",
    "verify",
    "repair",
    "locate",
    "restore",
    "ack",
    "notify",
    "--dry-run",
    "--help",
}


@dataclass(frozen=True)
class Run:
    """What a script answered."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class World:
    """Buffer, stand-in disks, disk-map, configuration and database of one station.

    Nothing is generated or run until it is asked for. Attributes are plain and may be
    altered: ``root``, ``buffer``, ``db_path``, ``config_path``, ``disk_map_path``,
    ``log_path``, ``disks`` (where each label is mounted), ``serials``, ``ledger``.
    """

    require_mount = False
    release = REPO  # whose scripts are run

    def __init__(
        self,
        tmp_path: Path,
        primaries: Sequence[str] = ("P01", "P02"),
        copies: Sequence[str] = ("S01", "S02"),
        **settings: str | None,
    ) -> None:
        self.root = tmp_path / "station"
        self.buffer = self.root / "buffer"
        self.mounts = self.root / "spt_disks"
        self.db_path = self.root / "db" / "pole.sqlite"
        self.config_path = self.root / "station.config"
        self.disk_map_path = self.root / "disk-map"
        self.log_path = self.db_path.with_name("data_manager.log")
        self.disks: dict[str, Path] = {}
        self.serials: dict[str, str] = {}
        self.ledger = Ledger(self.buffer)
        self.unfinished = False
        self._unchecked: str | None = None
        self._started: list[subprocess.Popen[str]] = []
        for directory in (self.buffer, self.mounts):
            directory.mkdir(parents=True)
        self.db_path.parent.mkdir(mode=0o700)
        for label in (*primaries, *copies):
            self.add_disk(label)
        self._settings: dict[str, str | None] = self._first_settings()
        self.configure(**settings)

    def _first_settings(self) -> dict[str, str | None]:
        return {
            "FilenameDB": str(self.db_path),
            "BufferLocation": str(self.buffer),
            "Extension": "g3",
            "DiskMountPoints": str(self.mounts),
            "RequireMount": "yes" if self.require_mount else "no",
            "SettleTime": "0 s",
            "MinFreeSpace": "0",
            "NoNewFilesAfter": "0",
            "BufferFullPercent": "100",
            "SpareDisksLow": "0",
            "LogFile": str(self.log_path),
        }

    # --- what a person sets up ---

    def configure(self, **settings: str | None) -> None:
        """Rewrite the configuration: these keys as given, the others as before; None drops one."""
        self._settings.update(settings)
        lines = [f"{key} = {text}" for key, text in self._settings.items() if text is not None]
        self.config_path.write_text("\n".join(("[station]", *lines, "")))

    def add_disk(self, label: str, serial: str | None = None) -> Path:
        """Make a disk's mount point (or stand-in), and a line in the disk-map.

        A second serial for a label is the next season's drive: it replaces the first in
        the disk-map. ``generate`` then tells the database.
        """
        self.serials[label] = serial or f"ZT{label}AA"
        self.disks[label] = self.mounts / label
        self.disks[label].mkdir(exist_ok=True)
        lines = [f"{each} {self.serials[each]} {self.logical_id(each)}\n" for each in self.serials]
        self.disk_map_path.write_text("".join(lines))
        return self.disks[label]

    def logical_id(self, label: str) -> str:
        return "0x5000c500" + hashlib.sha256(self.serials[label].encode()).hexdigest()[:8]

    def put(self, name: str, content: bytes | int = 1000, **options: Any) -> Entry:
        """Write a file into the buffer: see ``Ledger.put``."""
        return self.ledger.put(name, content, **options)

    def spoil(self, label: str, name: str | None, why: str) -> None:
        """Tell the ledger that the test harms this copy, or (None) this whole disk."""
        self.ledger.spoiled(self.serials[label], name, why)

    # --- running the scripts ---

    def generate(self, *args: str, check: int | None = 0) -> Run:
        """Run generate_db.py on this world's disk-map."""
        return self.run("generate_db.py", "--disk-map", str(self.disk_map_path), *args, check=check)

    def run_pass(self, *args: str, check: int | Collection[int] | None = None, **how: Any) -> Run:
        """Run data_manager.py with this world's configuration: a pass, or the sub-command given.

        ``check``: the exit code, or codes, that it must end with.
        """
        result = self.run("data_manager.py", *args, check=check, **how)
        if NO_PASS & set(args) or self.is_running or result.code == 2:
            return result  # nothing was tidied up
        self.unfinished = result.code not in (0, 1)
        return result

    def status(self, *args: str, check: int | Collection[int] | None = None) -> Run:
        return self.run_pass("status", *args, check=check)

    def run(
        self,
        script: str,
        *args: str,
        check: int | Collection[int] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        prefix: Sequence[str] = (),
        timeout_s: float = 100,
        uid: int | None = None,
    ) -> Run:
        """Run a script of the repository as cron does: from ``/``, with hardly an environment.

        ``env`` comes on top of cron's; ``prefix`` is a command that runs the script (strace).
        Where neither has a say in the start of Python, the script is a fork of a warm one; as
        the user ``uid``, if that is given.
        """
        command = [*prefix, *self.command(script, *args)]
        environ = {**CRON_ENVIRONMENT, **(env or {})}
        if not prefix and (warm := self._warm(script, environ)):
            words = self.command(script, *args)[2:]
            run = Run(*warm.run(script, words, cwd, environ, timeout_s, uid))
            return self._checked(command, run, check)
        assert uid is None, f"{script} is no fork: start it by another user with a prefix"
        result = subprocess.run(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=timeout_s,
            check=False,
        )
        return self._checked(command, Run(result.returncode, result.stdout, result.stderr), check)

    def _warm(self, script: str, environ: Mapping[str, str]) -> WarmScripts | None:
        """What can run it without the start of Python, if nothing depends on that start."""
        python = {name: value for name, value in environ.items() if name.startswith(AT_START)}
        if self.release != REPO or python.items() != {"PYTHONPATH": QUICK_PATH}.items():
            return None
        warm = warm_scripts()
        return warm if script in warm.scripts else None

    def _checked(
        self, command: Sequence[str], run: Run, check: int | Collection[int] | None
    ) -> Run:
        wanted = {check} if isinstance(check, int) else check
        if wanted is not None and run.code not in wanted:
            raise AssertionError(self._explain(command, run, wanted))
        return run

    def start(
        self,
        script: str,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a script in the background, in a process group of its own.

        What it prints goes to ``root/out`` and ``root/err``. The world is unfinished from
        here on, until a later ``run_pass``; what still runs at the end is killed.
        """
        self.unfinished = True
        with open(self.root / "out", "a") as out, open(self.root / "err", "a") as err:
            process = subprocess.Popen(
                [*prefix, *self.command(script, *args)],
                cwd=cwd,
                env={**CRON_ENVIRONMENT, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def command(self, script: str, *args: str) -> list[str]:
        return [
            sys.executable,
            str(self.release / script),
            "--config",
            str(self.config_path),
            *args,
        ]

    @property
    def is_running(self) -> bool:
        """Whether something that was started has not ended yet."""
        return any(process.poll() is None for process in self._started)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL it with all its children, and wait for its end."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def _explain(self, command: Sequence[str], run: Run, wanted: Collection[int]) -> str:
        return (
            f"{shlex.join(command)}\nended with {run.code}, not {sorted(wanted)}\n"
            f"--- out\n{run.out}--- err\n{run.err}--- log\n{self.log()[-3000:]}"
        )

    # --- looking ---

    def data(self, label: str) -> Path:
        return self.disks[label] / "data"

    def archived(self, label: str) -> set[str]:
        """The names of all files under a disk's data/."""
        return _files_below(self.data(label))

    def waiting(self) -> set[str]:
        """The names of all files in the buffer."""
        return _files_below(self.buffer) - {MARKER}

    def manifest(self, label: str) -> dict[str, str]:
        """Name → SHA-512; raises if a line is not as it should be."""
        lines, faults = parse_manifest((self.disks[label] / "manifest-sha512.txt").read_bytes())
        assert not faults, faults
        return {line.name: line.sha512 for line in lines}

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.is_file() else ""

    def sql(self, query: str, *args: Any) -> list[sqlite3.Row]:
        """Ask, or alter, the database; committed."""
        uri = f"{self.db_path.as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=60)) as db, db:
            db.row_factory = sqlite3.Row
            return db.execute(query, args).fetchall()

    def notices(self) -> set[tuple[str, str]]:
        """(kind, key) of the open ones."""
        return {
            tuple(row)
            for row in self.sql("SELECT kind, key FROM notices WHERE resolved_at IS NULL")
        }

    def disk_states(self) -> dict[str, str]:
        """Label → state, of the disks at the station."""
        rows = self.sql("SELECT label, state FROM disks WHERE state NOT IN ('shipped', 'lost')")
        return dict(map(tuple, rows))

    def snapshot(self, path: Path) -> Snapshot:
        return snapshot(path)

    # --- judging ---

    @contextmanager
    def places(self) -> Iterator[dict[str, Path]]:
        """Where each disk's content can be read while the context lasts, for the checker."""
        yield dict(self.disks)

    def check(self, **options: Any) -> None:
        """``check_invariants`` on this world; ``finished`` by default as the last pass was."""
        options.setdefault("finished", not (self.unfinished or self.is_running))
        with self.places() as places:
            check_invariants(self.ledger, self.buffer, self.db_path, places, **options)

    def leave_unchecked(self, why: str) -> None:
        """No check when the test has ended: it leaves the station broken on purpose."""
        self._unchecked = why

    def close(self) -> None:
        """End what still runs; check the invariants if ever there was a database."""
        for process in self._started:
            self.kill(process)
        if self._unchecked is None and self.db_path.exists():
            self.check()


def _files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@cache
def warm_scripts() -> WarmScripts:
    """One for each worker of xdist, from its first run of a script to its end."""
    return WarmScripts(CRON_ENVIRONMENT)


@pytest.fixture(scope="session", autouse=True)
def _warm_scripts_end() -> Iterator[None]:
    yield
    if warm_scripts.cache_info().currsize:
        warm_scripts().close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A station on stand-ins, P01 P02 S01 S02; its invariants are checked after the test."""
    station = World(tmp_path)
    try:
        yield station
    finally:
        station.close()
