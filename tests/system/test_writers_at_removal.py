"""Whoever opens a buffer file by its name, at whatever step of its removal, loses nothing.

A real process opens the file at each step in turn: the step waits until it has the file, or until
it hangs in open(2) because of our lease.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from poledata.archive import buffer, removal
from poledata.archive.removal import ArchivedFile, RemovalResult
from poledata.system import paths
from tests.helpers.loopdisks import LoopDisk
from tests.helpers.removal_station import NAME, Station, made

LATE = b"written late"
# Opens the name as a program does that goes on with a file, makes it anew, or takes its place.
WRITER = """
import os, sys
how, name = sys.argv[1:]
print("begun", flush=True)
try:
    if how == "replace":
        with open(name + ".new", "wb") as file:
            file.write(b"written late")
        os.rename(name + ".new", name)
    else:
        fd = os.open(name, {"append": os.O_WRONLY | os.O_APPEND, "over": os.O_RDWR,
            "truncate": os.O_WRONLY | os.O_TRUNC | os.O_CREAT}[how])
        print("opened", flush=True)
        sys.stdin.readline()
        os.write(fd, b"written late")
        os.close(fd)
    print("written", flush=True)
except FileNotFoundError:
    print("gone", flush=True)
"""
HOWS = ("append", "over", "truncate", "replace")


class LateWriter:
    """A process that opens a file by its name once it is told to, and writes when it is let."""

    def __init__(self, how: str, path: Path) -> None:
        self._command = [sys.executable, "-S", "-E", "-c", WRITER, how, str(path)]
        self._process: subprocess.Popen[bytes] | None = None

    def open_now(self) -> None:
        """Return when it has the file, is through, or hangs in the kernel for our lease."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"begun\n"
        os.set_blocking(self._process.stdout.fileno(), False)
        while not self._is_in_the_kernel() and self._process.poll() is None:
            time.sleep(0.001)

    def _is_in_the_kernel(self) -> bool:
        assert self._process
        where = Path(f"/proc/{self._process.pid}/wchan").read_text()
        return "break_lease" in where or "pipe" in where  # the pipe: it waits to be let write

    def write(self) -> str:
        """Let it write, and wait for its end: ``written`` or ``gone``."""
        assert self._process and self._process.stdout
        out, _ = self._process.communicate(b"\n", timeout=60)
        return out.decode().split()[-1]


@contextmanager
def steps(monkeypatch: pytest.MonkeyPatch, at: Callable[[int], None]) -> Iterator[None]:
    """``at(n)`` before the n-th thing that the removal does with the buffer."""
    count = 0

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            at(count)
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patched:
        for owner, names in (
            (os, ("fstat", "unlink")),
            (removal.Removal, ("_look_at",)),
            (paths, ("rename_new",)),
            (buffer.fcntl, ("fcntl",)),
            (removal.time, ("sleep",)),
        ):
            for name in names:
                patched.setattr(owner, name, stepping(getattr(owner, name)))
        yield


def remove(station: Station) -> RemovalResult:
    (outcome,) = station.remove_all(ArchivedFile(station.waiting, station.sha512))
    return outcome


def count_steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    last = 0

    def note(number: int) -> None:
        nonlocal last
        last = number

    with made(root) as station, steps(monkeypatch, note):
        assert remove(station).is_removed
    return last


@contextmanager
def place(fs: str, loop_disk: Callable[..., LoopDisk], tmp_path: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm") as memory, ExitStack() as stack:
        if fs == "tmpfs":
            yield Path(memory)
            return
        disk = loop_disk(Path(memory) / "image", tmp_path / fs, size_mb=60, fs=fs)
        stack.callback(disk.force_off)
        yield disk.mount_point


def bytes_in(station: Station) -> bytes:
    """What the buffer has under this name, hidden or not."""
    paths = (station.source, station.source.with_name(f".{station.source.name}.removing"))
    return b"".join(path.read_bytes() for path in paths if path.exists())


@pytest.mark.waits
@pytest.mark.parametrize("fs", ["ext4", "xfs", "tmpfs"])
def test_a_writer_at_any_step_of_a_removal_loses_nothing(
    fs: str,
    tmp_path: Path,
    loop_disk: Callable[..., LoopDisk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it could write is in the buffer afterwards, or it was told that there is no such file;
    and never was a file called removed of which a writer had hold."""
    with place(fs, loop_disk, tmp_path) as root:
        n_steps = count_steps(root / "count", monkeypatch)
        assert n_steps > 20
        met = set()
        for number in range(1, n_steps + 1):
            for how in HOWS if number % 2 else HOWS[::-1][number % 4 :]:
                with made(root / f"{number}-{how}") as station:
                    met.add(one_writer(station, how, number, monkeypatch))
        assert {("written", False), ("written", True), ("gone", True)} <= met


def one_writer(
    station: Station, how: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, bool]:
    """What the writer was told, and whether the file was removed."""
    writer = LateWriter(how, station.source)

    def come(at: int) -> None:
        if at == number:
            writer.open_now()

    with steps(monkeypatch, come):
        outcome = remove(station)
    said = writer.write()
    assert not outcome.was_opened, (how, number)
    if said == "written":
        assert LATE in bytes_in(station), (how, number, outcome)
    else:
        assert outcome.is_removed, (how, number)
    if not outcome.is_removed and outcome.refusals != (removal.TAKEN,):
        assert station.source.exists(), (how, number, outcome)
    return said, outcome.is_removed


@pytest.mark.waits
@pytest.mark.parametrize("fs", ["ext4", "xfs", "tmpfs"])
def test_a_lease_that_has_run_out_removes_nothing(
    fs: str,
    tmp_path: Path,
    loop_disk: Callable[..., LoopDisk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pass is suspended for longer than the kernel keeps a lease: the writer has the file by
    then, and the file gets its name back, with what was written meanwhile."""
    limit = Path("/proc/sys/fs/lease-break-time")
    before = limit.read_text()
    with place(fs, loop_disk, tmp_path) as root, made(root / "station") as station:
        writer = LateWriter("append", station.source)
        hide = buffer.hide

        def look_up_and_hide(parent_fd: int, base: str) -> str:
            writer.open_now()  # it has looked up the name, and waits for our lease
            return hide(parent_fd, base)

        def remove_after_long(self: removal.Removal, here: Any) -> RemovalResult:
            assert writer.write() == "written"  # the kernel has ended the lease by then
            return remove_hidden(self, here)

        remove_hidden = removal.Removal._remove_hidden
        monkeypatch.setattr(removal.buffer, "hide", look_up_and_hide)
        monkeypatch.setattr(removal.Removal, "_remove_hidden", remove_after_long)
        limit.write_text("1")
        try:
            outcome = remove(station)
        finally:
            limit.write_text(before)
        assert (
            outcome.refusals
            == (
                "it has changed since it was hashed",
                f"it has {1400 + len(LATE)} bytes, archived were 1400",
                "it is still open for writing",
            )
            or outcome.refusals[0] == "it has changed since it was hashed"
        ), outcome
        assert station.source.read_bytes().endswith(LATE)
        assert outcome.stays_as and outcome.stays_as.hidden_as is None


def test_without_the_second_look_a_writer_would_lose_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: if the proof after the pause is left out, this very writer loses."""
    with TemporaryDirectory(dir="/dev/shm") as memory, made(Path(memory)) as station:
        writer = LateWriter("append", station.source)
        hide, judge = buffer.hide, removal.may_remove

        def look_up_and_hide(parent_fd: int, base: str) -> str:
            writer.open_now()
            monkeypatch.setattr(removal, "may_remove", lambda _: ())
            return hide(parent_fd, base)

        monkeypatch.setattr(removal.buffer, "hide", look_up_and_hide)
        outcome = remove(station)
        monkeypatch.setattr(removal, "may_remove", judge)
        assert outcome.is_removed and outcome.was_opened
        assert writer.write() == "written"
        assert bytes_in(station) == b""
        assert NAME.endswith(station.source.name)
