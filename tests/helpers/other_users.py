"""Users without rights, and what the scripts and functions do for them."""

from __future__ import annotations

import atexit
import os
import shlex
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.world import REPO

# Root may read and write everything; without its capabilities it is as anybody else.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
NOBODY = 65534


def as_nobody(work: Callable[[], object]) -> str:
    """What ``work`` gives, or raises, to a user without rights, in a process of its own."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # nothing is done with threads here
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            said = repr(work())
        except BaseException as fault:
            said = f"{type(fault).__name__}: {fault}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

AS_NOBODY += ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: for a second user")


def _closed_directory() -> Path | None:
    """The first directory on the way to this Python that other users can't pass, such as /root."""
    for place in (*reversed(Path(sys.base_prefix).parents), Path(sys.base_prefix)):
        if not place.stat().st_mode & stat.S_IXOTH:
            return place
    return None


def _opening_commands(closed: Path) -> Iterator[str]:
    """In a mount namespace of its own: nothing is left in this directory but what Python needs."""
    needed = {
        closed / Path(each).relative_to(closed).parts[0]
        for each in (sys.base_prefix, sys.prefix, REPO)
        if Path(each).is_relative_to(closed)
    }
    places = {shlex.quote(str(each)): f"$d/{number}" for number, each in enumerate(sorted(needed))}
    # Disks that other tests have mounted now could not be unmounted while this namespace lives.
    yield (
        "awk '$2 ~ /pytest-of-|\\/pole-|\\/dev\\/shm\\/./ {print $2}' /proc/mounts | sort -r | "
        'while read -r place; do umount -l "$place"; done'
    )
    yield "d=$(mktemp -d)"
    for place, aside in places.items():
        yield f'mkdir "{aside}" && mount --bind {place} "{aside}"'
    yield f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed))}"
    for place, aside in places.items():
        yield f'mkdir {place} && mount --move "{aside}" {place}'
    yield 'rmdir "$d"/* "$d"'
    yield "echo ready"
    yield "exec sleep infinity"


@cache
def reachable() -> tuple[str, ...]:
    """The prefix of a command that any user can run with this Python, without a change to the
    machine: a Python below /root can't be read by a program that gives up root's rights.

    All these commands share one mount namespace, which a process keeps until the tests end.
    """
    closed = _closed_directory()
    if closed is None or os.geteuid() != 0:
        return ()
    script = " && ".join(_opening_commands(closed))
    keeper = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    )
    atexit.register(keeper.communicate)
    atexit.register(keeper.kill)
    assert keeper.stdout and keeper.stdout.readline() == "ready\n"
    return ("nsenter", f"--target={keeper.pid}", "--mount")
