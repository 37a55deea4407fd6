"""Check the Python that starts a script: it must have the packages, and read names as UTF-8.

Every script imports this first, because ``#!/usr/bin/env python3`` may find the system's Python,
which lacks the packages. It runs on older Pythons, too, to report that they are too old.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (3, 11)
NEEDED = ("click", "dotenv")  # what a pass can't begin without
WRONG_USAGE = 2  # errors.ExitCode, which an older Python can't load


def _what_is_wrong() -> str:
    if sys.version_info < OLDEST:
        return f"is Python {sys.version_info[0]}.{sys.version_info[1]}, and 3.11 is the oldest"
    lacking = [name for name in NEEDED if find_spec(name) is None]
    return f"lacks {' and '.join(lacking)}" if lacking else ""


def _the_right_one() -> str:
    for name in ("venv", ".venv"):
        python = Path(__file__).resolve().parent.parent / name / "bin/python"
        if python.exists() and str(python) != sys.executable:
            return f"Start it with {python}"
    return "Start it with the one that it was installed for (README, Installation)"


def _start_again_in_utf8() -> None:
    """Make names UTF-8 in any locale: otherwise Python re-encodes them, even on disks."""
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8":
        return
    with open("/proc/self/cmdline", "rb") as command:
        arguments = command.read().split(b"\0")[1:-1]
    os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *arguments])


_start_again_in_utf8()
if fault := _what_is_wrong():
    print(
        f"{Path(sys.argv[0]).name}: {sys.executable} {fault}. Nothing was changed. "
        f"{_the_right_one()}.",
        file=sys.stderr,
    )
    sys.exit(WRONG_USAGE)
