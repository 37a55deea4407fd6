"""Passes that are halted or killed at a system call, and what a killed one leaves."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.invariants import sha512_of
from tests.helpers.world import Run, World

STRACE = shutil.which("strace") or "strace"
GONE_S = 60.0  # a halted pass that is let go ends within this time


@functools.cache
def why_no_strace() -> str | None:
    """What keeps strace from working here; None if nothing."""
    try:
        result = subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True)
    except OSError:
        return "needs strace"
    return f"strace does not work here: {result.stderr!r}" if result.returncode else None


needs_strace = pytest.mark.skipif(why_no_strace() is not None, reason=str(why_no_strace()))


def strace(world: World, calls: str, paths: Sequence[Path] = (), inject: str = "") -> list[str]:
    """The prefix that traces these system calls, of those on ``paths`` alone if any are named.

    ``inject`` is what strace does to them, as ``signal=SIGKILL:when=2``: every thread's
    second one. A killed thread's call is not made; a halted one's is.
    """
    prefix = [STRACE, "-f", "-o", str(world.root / "trace"), "-e", f"trace={calls}"]
    for path in paths:
        prefix += ["-P", str(path)]
    return [*prefix, "-e", f"inject={calls}:{inject}"] if inject else prefix


def killed_pass(
    world: World, calls: str, paths: Sequence[Path] = (), nth: int = 1, check: int | None = -9
) -> Run:
    """A pass that dies before a thread's ``nth`` such call; its lock goes with it."""
    prefix = strace(world, calls, paths, f"signal=SIGKILL:when={nth}")
    return world.run_pass(prefix=prefix, check=check)


class HaltedPass:
    """A pass that stands still just after a thread's ``nth`` such call, until ``go_on``."""

    def __init__(
        self,
        world: World,
        calls: str,
        paths: Sequence[Path] = (),
        nth: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._world, self._trace = world, world.root / "trace"
        self._trace.unlink(missing_ok=True)
        prefix = strace(world, calls, paths, f"signal=SIGSTOP:when={nth}")
        self._process = world.start("data_manager.py", prefix=prefix, env=env)
        self.pid = self._wait_until_all_threads_stand()

    def _wait_until_all_threads_stand(self) -> int:
        for _ in range(int(GONE_S / 0.02)):
            stopped = set(self._threads_said_to_be_stopped())
            if stopped:
                tasks = os.listdir(f"/proc/{min(stopped)}/task")  # of any thread: all of them
                if set(map(int, tasks)) <= stopped:
                    return min(map(int, tasks))
            assert self._process.poll() is None, f"it was never halted: {self._world.log()}"
            time.sleep(0.02)
        raise AssertionError("the pass did not come to the point where it is to be halted")

    def _threads_said_to_be_stopped(self) -> list[int]:
        lines = self._trace.read_text().splitlines() if self._trace.exists() else []
        return [int(line.split()[0]) for line in lines if "--- stopped by SIGSTOP" in line]

    def signal(self, number: int) -> None:
        """It is delivered when the pass goes on."""
        os.kill(self.pid, number)

    def _code_once_gone(self) -> int:
        """Each thread is halted at its own call: one that comes to it later halts all again."""
        for _ in range(int(GONE_S / 0.1)):
            with suppress(ProcessLookupError):  # it has ended, and strace is about to
                os.kill(self.pid, signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(timeout=0.1)
        raise AssertionError("the pass does not end")

    def go_on(self, check: int | None = None) -> int:
        """Let it go; its exit code. It must have printed nothing."""
        code = self._code_once_gone()
        assert check in (None, code), (code, self._world.log())
        assert (self._world.root / "out").read_text() == ""
        assert (self._world.root / "err").read_text() == ""
        self._world.unfinished = code not in (0, 1)
        return code


def ready_world(world: World) -> World:
    """Its disks are claimed, and hold a file."""
    world.put("seed.g3", 100)
    world.generate()
    world.run_pass(check=0)
    return world


def leave_a_copy(
    world: World, label: str, name: str, content: bytes, line: bytes | None = None
) -> Path:
    """What a pass leaves that died after publishing: a final name without a row.

    ``line``: what it has of the manifest line by then.
    """
    path = world.data(label) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    with open(world.disks[label] / "manifest-sha512.txt", "ab") as manifest:
        manifest.write(line or b"")
    return path


def line_of(path: Path, name: str) -> bytes:
    return f"{sha512_of(path)}  data/{name}\n".encode()
