"""Runs the real scripts in forked children of one warm interpreter, each under a rule of the shim.

One JSON object a line each way; see shim.py. Only the start of Python is saved: a child is what
cron would start, with an environment of cron's, and ends as every process ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

import data_manager  # noqa: E402
import generate_db  # noqa: E402
import poledata.archive.run  # noqa: E402
import poledata.maintenance.verify  # noqa: E402
import poledata.status.check  # noqa: E402
import poledata.status.collect  # noqa: E402, F401
from tests.helpers.forks import ended  # noqa: E402

MODULES = {"data_manager.py": data_manager, "generate_db.py": generate_db}


def main() -> None:
    os.chdir("/")
    print(json.dumps({"ready": True}), flush=True)
    while line := sys.stdin.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
            return
        print(json.dumps(ended(child, request["timeout_s"])), flush=True)


def _become(request: dict[str, Any]) -> None:
    """The script itself, from here on."""
    for fd, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if fd else 0)
        os.dup2(os.open(path, flags, 0o600), fd)
    _arm(request)
    sys.argv = [str(REPO / request["script"]), *request["args"]]
    MODULES[request["script"]].main()


def _arm(request: dict[str, Any]) -> None:
    shim = ctypes.CDLL(None)
    for name, root in request["devices"].items():
        shim.shim_device(name.encode(), root.encode())
    shim.shim_trace(request["trace"].encode())
    if request["rule"]:
        kinds, where, first, until, action = request["rule"]
        numbers = (ctypes.c_long(first), ctypes.c_long(until), ctypes.c_int(action))
        shim.shim_rule(kinds.encode(), where.encode(), *numbers)


if __name__ == "__main__":
    main()
