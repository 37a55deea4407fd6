"""What a command takes: seconds, processor seconds, and the memory of all its processes."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks import REPO

LOOK_EVERY_S = 0.1
CPU_TEST_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Used:
    """What one run took, or the median of several."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run(command: Sequence[str | Path], cwd: Path, looks_at_memory: bool = True) -> Used:
    """Run a command to its end. Raises CalledProcessError with what it printed.

    Looking at its memory takes some of the processor: not for what is over in a moment.
    """
    before, began_s = _cpu_s(), time.monotonic()
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        memory = _Memory(process.pid)
        with memory if looks_at_memory else nullcontext():
            printed = process.communicate()[0]
        wall_s = time.monotonic() - began_s
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, printed)
    return Used(wall_s, _cpu_s() - before, memory.peak_bytes)


def _cpu_s() -> float:
    """Of all children that have ended; those of the kernel's own threads are nobody's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Memory(threading.Thread):
    """Looks at what a process and all below it hold, until it has ended."""

    def __init__(self, pid: int) -> None:
        super().__init__(name="memory")
        self.peak_bytes = 0
        self._pid, self._ended = pid, threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self._pid))
            if self._ended.wait(LOOK_EVERY_S):
                return


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and of all below it, as of now; 0 once it has ended."""
    try:
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_resident(process) for process in processes)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0


def middle(runs: Sequence[Used]) -> Used:
    """The median of each figure."""
    return Used(
        median(used.wall_s for used in runs),
        median(used.cpu_s for used in runs),
        int(median(used.peak_bytes for used in runs)),
    )


def sha512_bytes_per_s() -> float:
    """What two threads hash in a second, together: this machine's part of the limit."""
    block = os.urandom(4 * 1024**2)

    def hash_it() -> None:
        digest = hashlib.sha512()
        for _ in range(CPU_TEST_BYTES // len(block)):
            digest.update(block)

    threads = [threading.Thread(target=hash_it) for _ in range(2)]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 2 * CPU_TEST_BYTES / (time.monotonic() - began_s)


def machine() -> str:
    """What it was measured on, in a line."""
    cores = len(os.sched_getaffinity(0))
    release, python = os.uname().release, sys.version.split()[0]
    return f"{cores} cores, Linux {release}, Python {python}"
