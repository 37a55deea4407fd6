"""Scripts without the start of Python: half of what a small pass costs, and tests run thousands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SERVER = Path(__file__).with_name("warm_server.py")


class WarmScripts:
    """One interpreter in which the scripts are loaded; each run is a fork of it."""

    def __init__(self, environ: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        self.environ = dict(environ)  # it was started with this one
        self._directory = TemporaryDirectory()
        self._server = subprocess.Popen(
            [*prefix, sys.executable, str(SERVER)],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.scripts = frozenset(self._answer()["scripts"])

    def run(
        self,
        script: str,
        args: Sequence[str],
        cwd: str | Path,
        env: Mapping[str, str],
        timeout_s: float,
        uid: int | None = None,
    ) -> tuple[int, str, str]:
        """Exit code, output and errors, as ``subprocess.run`` would have them, of this user."""
        out, err = (Path(self._directory.name, name) for name in ("out", "err"))
        request: dict[str, Any] = {
            "script": script,
            "args": list(args),
            "cwd": str(cwd),
            "env": dict(env),
        }
        request |= {"out": str(out), "err": str(err), "timeout_s": timeout_s, "uid": uid}
        assert self._server.stdin
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._answer()
        if not answer["in_time"]:
            raise subprocess.TimeoutExpired([script, *args], timeout_s, _text(out), _text(err))
        return answer["code"], _text(out), _text(err)

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()
        self._directory.cleanup()

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout
        line = self._server.stdout.readline()
        assert line, f"the interpreter that forks ended with {self._server.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="backslashreplace")
