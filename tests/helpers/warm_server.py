"""Starts the scripts as forks of one interpreter that has imported them already: see warm.py.

One JSON object a line each way. Only the start of Python is saved: a child has the environment,
directory and arguments that it would be started with, and ends as every process ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path[0] = str(REPO)

import data_manager  # noqa: E402
import generate_db  # noqa: E402
import poledata.archive.batch  # noqa: E402
import poledata.archive.run  # noqa: E402
import poledata.cli.disks  # noqa: E402
import poledata.cli.maintenance  # noqa: E402
import poledata.cli.notices  # noqa: E402
import poledata.cli.rebuild  # noqa: E402
import poledata.cli.status  # noqa: E402
import poledata.notices.message  # noqa: E402, F401
from tests.helpers.forks import ended  # noqa: E402

MODULES = {"data_manager.py": data_manager, "generate_db.py": generate_db}


def main() -> None:
    print(json.dumps({"scripts": sorted(MODULES)}), flush=True)
    while line := sys.stdin.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
            return
        print(json.dumps(ended(child, request["timeout_s"])), flush=True)


def _become(request: dict[str, Any]) -> None:
    """The script itself, from here on."""
    for fd, path in enumerate((os.devnull, request["out"], request["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if fd else 0), 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    coerced = {name: os.environ[name] for name in ("LC_CTYPE",) if name in os.environ}
    os.environ.clear()
    os.environ.update(coerced | request["env"])  # Python sets LC_CTYPE at its start
    os.chdir(request["cwd"])
    if uid := request["uid"]:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    sys.argv = [str(REPO / request["script"]), *request["args"]]
    MODULES[request["script"]].main()


if __name__ == "__main__":
    main()
