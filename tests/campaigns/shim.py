"""System calls made to fail in the real scripts, one at a time: shim.c, and what drives it."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.world import CRON_ENVIRONMENT

HERE = Path(__file__).resolve().parent
FOR_EVER = 1 << 40
# What a call may meet beside an errno (shim.c).
SHORT, EMPTY, DIE, PRETEND = -1, -2, -3, -4
WORDS = {SHORT: "short", EMPTY: "nothing", DIE: "killed", PRETEND: "pretended"}


@dataclass(frozen=True)
class Call:
    """A call of one kind on one thing of a device: ``fsync primary:manifest-sha512.txt``."""

    kind: str
    where: str

    @property
    def device(self) -> str:
        return self.where.partition(":")[0]

    @property
    def path(self) -> str:
        return self.where.partition(":")[2]

    def __str__(self) -> str:
        return f"{self.kind} {self.where}"


@dataclass(frozen=True)
class Rule:
    """The ``first`` such call, and all ``until`` that number, meet ``action``: an errno or word."""

    call: Call
    action: int
    first: int = 1
    until: int | None = None  # None: only that one

    @property
    def arguments(self) -> tuple[str, str, int, int, int]:
        until = self.first + 1 if self.until is None else self.until
        return (self.call.kind, self.call.where, self.first, until, self.action)

    def __str__(self) -> str:
        what = WORDS.get(self.action) or errno.errorcode[self.action]
        when = f"from {self.first} on" if self.until else f"no {self.first}"
        return f"{self.call} {when}: {what}"


@dataclass(frozen=True)
class Outcome:
    """How a script ended, and every call it made on the devices; ``fired``: those that failed."""

    code: int
    in_time: bool
    out: str
    err: str
    calls: tuple[Call, ...]
    fired: int

    @property
    def was_killed(self) -> bool:
        return self.code == -9


def why_no_shim() -> str | None:
    """What this machine lacks to build and load it; None if nothing."""
    if sys.platform != "linux":
        return "needs Linux"
    if not shutil.which("cc"):
        return "needs a C compiler: apt install gcc libc6-dev"
    return None


needs_shim = pytest.mark.skipif(why_no_shim() is not None, reason=str(why_no_shim()))


def build(directory: Path) -> Path:
    """Compile the shim with the system's own compiler."""
    library = directory / "shim.so"
    command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, HERE / "shim.c"]
    subprocess.run(command, check=True)
    return library


class Forked:
    """The scripts, each run in a fork of one warm interpreter in which the shim is loaded."""

    def __init__(self, library: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._server = subprocess.Popen(
            [sys.executable, HERE / "forked.py"],
            env={**CRON_ENVIRONMENT, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == {"ready": True}

    def run(
        self,
        script: str,
        args: list[str],
        devices: Mapping[str, Path],
        rule: Rule | None = None,
        timeout_s: float = 60,
    ) -> Outcome:
        """Run a script; SIGKILL after ``timeout_s``."""
        files = {name: str(self._scratch / name) for name in ("out", "err", "trace")}
        Path(files["trace"]).unlink(missing_ok=True)
        request = {
            "script": script,
            "args": args,
            "devices": {name: str(root) for name, root in devices.items()},
            "rule": rule.arguments if rule else None,
            "timeout_s": timeout_s,
            **files,
        }
        assert self._server.stdin
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._answer()
        lines = _lines(self._scratch / "trace")
        return Outcome(
            **answer,
            out=(self._scratch / "out").read_text(),
            err=(self._scratch / "err").read_text(),
            calls=tuple(Call(*line.removesuffix(" FIRED").split(" ", 1)) for line in lines),
            fired=sum(line.endswith(" FIRED") for line in lines),
        )

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> dict[str, object]:
        assert self._server.stdout
        line = self._server.stdout.readline()
        assert line, f"the forking interpreter ended with {self._server.wait()}"
        return json.loads(line)


def _lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


@contextmanager
def forked(directory: Path) -> Iterator[Forked]:
    """Built, loaded and warm; ``directory`` gets the library and what the scripts print."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Forked(build(directory), directory)
    try:
        yield server
    finally:
        server.close()
