"""Users without rights, and what the scripts and functions do for them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import pytest

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
