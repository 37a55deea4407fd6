"""A lease is trusted only where the system sees every writer; elsewhere files wait longer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poledata.archive import buffer_writers
from poledata.settings import RemoteWriters
from tests.helpers.loopdisks import LoopDisk, why_no_loop_disks
from tests.helpers.world import World

AUTO, YES, NO = RemoteWriters.AUTO, RemoteWriters.YES, RemoteWriters.NO
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
NAME = "a/0000.g3"
# Keeps the file open, says so, and writes the rest when it is told to.
WRITER = """
import sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"first ")
    print("open", flush=True)
    sys.stdin.readline()
    file.write(b"second")
"""

# --- NFS ------------------------------------------------------------------------------------


@pytest.mark.parametrize("exported", [".", "fullrate", ".."])
@pytest.mark.parametrize("option", ["rw", "ro"])
def test_an_export_at_below_or_above_the_buffer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: str, option: str
) -> None:
    """Found in whichever table this user can read."""
    buffer = tmp_path / "station/buffer"
    (buffer / "fullrate").mkdir(parents=True)
    path = (buffer / exported).resolve()
    etab = tmp_path / "etab"
    etab.write_text(f"/elsewhere\t*(rw)\n{path}\tdaq({option},sync)\n")
    monkeypatch.setattr(buffer_writers, "_NFSD", tmp_path)
    monkeypatch.setattr(buffer_writers, "_EXPORT_TABLES", (tmp_path / "no such", etab))
    fd = os.open(buffer, os.O_RDONLY)
    try:
        found = buffer_writers.look(fd, AUTO)
        assert found.trusts_leases == (option == "ro")
        if option == "rw":
            assert found.why == f"this host exports {path} by NFS"
        monkeypatch.setattr(buffer_writers, "_EXPORT_TABLES", (tmp_path / "no such",))
        assert not buffer_writers.look(fd, AUTO).trusts_leases
        monkeypatch.setattr(buffer_writers, "_NFSD", tmp_path / "no such")
        assert buffer_writers.look(fd, AUTO).trusts_leases
    finally:
        os.close(fd)


# --- real writers on the other side ----------------------------------------------------------


@contextmanager
def mounted(*command: str | Path, at: Path) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(part) for part in command], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@contextmanager
def bindfs(far: Path, buffer: Path) -> Iterator[Path]:
    with mounted("bindfs", far, buffer, at=buffer):
        yield far


@contextmanager
def sshfs(far: Path, buffer: Path) -> Iterator[Path]:
    """Without a network: what would be ssh starts the server itself."""
    ssh = far.parent / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec {SFTP_SERVER}\n")
    ssh.chmod(0o755)
    options = f"ssh_command={ssh},dir_cache=no,attr_timeout=0,entry_timeout=0"
    with mounted("sshfs", "-o", options, f"far:{far}", buffer, at=buffer):
        yield far


@contextmanager
def overlay(far: Path, buffer: Path) -> Iterator[Path]:
    """Written through its upper layer."""
    below, work = far.with_name("below"), far.with_name("work")
    below.mkdir()
    work.mkdir()
    options = f"lowerdir={below},upperdir={far},workdir={work}"
    with mounted("mount", "-t", "overlay", "-o", options, "overlay", buffer, at=buffer):
        yield far


@contextmanager
def writing(path: Path) -> Iterator[Callable[[], None]]:
    """A process that has a file open for writing; what is yielded makes it finish."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "open\n"

        def finish() -> None:
            process.communicate("\n")

        yield finish


@pytest.mark.root
@pytest.mark.parametrize("other_side", [bindfs, sshfs, overlay], ids=lambda f: f.__name__)
def test_a_writer_on_the_other_side_of_the_buffer_loses_nothing(
    tmp_path: Path, other_side: Callable[[Path, Path], object]
) -> None:
    """It pauses for longer than SettleTime, and writes on: its file is still there, and the whole
    of it is archived when it has rested for ten times as long beside a newer one."""
    for tool in ("bindfs", "sshfs"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}")
    station = World(tmp_path, SettleTime="1 s")
    far = tmp_path / "far"
    far.mkdir()
    with other_side(far, station.buffer):  # type: ignore[attr-defined]
        station.generate()
        with writing(far / NAME) as finish:
            wait_until_aged(far / NAME, 1.5)
            station.run_pass(check=0)
            assert (far / NAME).exists() and station.sql("SELECT * FROM files") == []
            said = station.status().out
            assert "The system can't tell who writes there (" in said
            assert "does not show writers on its other side" in station.run_pass("check").out
            finish()
        station.ledger.saw(NAME, far / NAME)  # the buffer may show what it has in memory
        wait_until_aged(far / NAME, 10.5)
        station.run_pass(check=0)
        assert (far / NAME).exists()  # the newest of its directory
        station.put("a/0001.g3", b"newer")
        wait_until_aged(far / "a/0001.g3", 1.5)
        station.run_pass(check=0)
        assert station.archived("P01") == station.archived("S01") == {NAME}
        assert (station.data("P01") / NAME).read_bytes() == b"first second"
        assert station.waiting() == {"a/0001.g3"}
        station.close()


def wait_until_aged(path: Path, age_s: float) -> None:
    info = path.stat()
    while time.time() < max(info.st_mtime, info.st_ctime) + age_s:
        time.sleep(0.1)


@pytest.mark.root
@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_status_and_check_say_which_rule_applies_and_why(
    tmp_path: Path, loop_disk: Callable[..., LoopDisk], fs: str
) -> None:
    """Of a plain file system, and when the configuration says that others may write there."""
    if why := why_no_loop_disks():
        pytest.skip(why)
    station = World(tmp_path)
    loop_disk(tmp_path / "image", station.buffer, fs=fs)
    station.generate()
    station.run_pass(check=0)
    station.put("a.g3")
    why = f"{fs} of this host, not exported by NFS"
    assert f"The system can tell who writes there ({why})" in station.status().out
    assert station.status("--json").json()["buffer"]["writer_rule"] == why
    assert station.status("--json").json()["buffer"]["trusts_leases"] is True
    assert f"whether a file is still open for writing ({why})" in station.run_pass("check").out
    station.configure(RemoteWriters="yes")
    why = "RemoteWriters = yes: another host may write"
    assert f"The system can't tell who writes there ({why})" in station.status().out
    assert station.status("--json").json()["buffer"]["trusts_leases"] is False
    assert f"({why}): files wait ten times SettleTime" in station.run_pass("check").out
    station.run_pass(check=0)
    assert station.waiting() == {"a.g3"}  # the newest of its directory
    station.configure(RemoteWriters="no")
    station.run_pass(check=0)
    assert station.waiting() == set()
    station.close()
