"""An automounter as systemd or autofs(8) is one, for a single direct mount point: a real trigger.

Run as ``python automounter.py PLACE hang|fail|DEVICE``: it never answers, answers that there is
no such disk, or mounts the device. It leads a process group, whose accesses trigger nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IOC_READY, IOC_FAIL = 0x9360, 0x9361  # linux/auto_fs.h
PACKET = struct.Struct("=iiIIQIIIII256s4x")  # autofs_v5_packet; the third is the token
_libc = ctypes.CDLL(None, use_errno=True)


NO_AUTOFS = "this kernel has no autofs"  # which nothing that can be installed changes


def kernel_file_systems() -> str:
    """What the kernel can mount; autofs4 is loaded before, if it is a module."""
    subprocess.run(["modprobe", "--quiet", "autofs4"], check=False)
    return Path("/proc/filesystems").read_text()


def main(place: str, how: str) -> None:
    reading, writing = os.pipe()
    options = f"fd={writing},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    if _libc.mount(b"pole-test", place.encode(), b"autofs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    trigger = os.open(place, os.O_RDONLY)
    print("ready", flush=True)
    while packet := os.read(reading, PACKET.size):
        token = PACKET.unpack(packet)[2]
        print("asked", flush=True)
        if how == "hang":
            continue
        if how == "fail":
            fcntl.ioctl(trigger, IOC_FAIL, token)
            continue
        subprocess.run(["mount", how, place], check=True)
        fcntl.ioctl(trigger, IOC_READY, token)


@contextmanager
def automount(place: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """A trigger at ``place`` while the context lasts."""
    daemon = subprocess.Popen(
        [sys.executable, __file__, place, how],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stdout is not None
        if daemon.stdout.readline() != "ready\n":
            pytest.skip(NO_AUTOFS if "\tautofs\n" not in kernel_file_systems() else "needs autofs")
        yield daemon
    finally:
        for _ in range(2):  # what it mounted, and the trigger
            subprocess.run(["umount", "--lazy", place], check=False, stderr=subprocess.DEVNULL)
        daemon.kill()
        daemon.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:])
