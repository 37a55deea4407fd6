"""The operator's drills: the commands of docs/operators.md, taken from there, run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap

from tests.helpers.documents import OPERATORS, section
from tests.helpers.world import CRON_ENVIRONMENT, REPO, World


def steps_of(heading: str) -> list[str]:
    """The pieces of shell of a section that are marked as a drill's."""
    pieces = re.findall(
        r"^ *<!-- drill -->\n *```sh\n(.*?)^ *```$",
        section(OPERATORS, heading),
        re.MULTILINE | re.DOTALL,
    )
    return [textwrap.dedent(piece) for piece in pieces]


def follow(world: World, *steps: str, check: int = 0) -> str:
    """Run what the page says, in the places of this station; what it printed."""
    (alias,) = re.findall(r"^    alias dm='(.*)'$", OPERATORS, re.MULTILINE)
    script = "".join((f'dm() {{ {alias} "$@"; }}\n', *steps))
    for there, here in (
        ("/var/lib/pole-data/pole_data.sqlite", str(world.db_path)),
        ("/var/lib/pole-data", str(world.db_path.parent)),
        ("/spt_disks", str(world.mounts)),
        ("/var/tmp/wanted", str(world.root / "wanted")),
        ("sudo venv/bin/python", "venv/bin/python"),
        ("sudo install -d -o spt ", "mkdir -p "),
        ("sudo mv ", "mv "),
        ("venv/bin/python", shlex.quote(sys.executable)),
        ("spt.config", shlex.quote(str(world.config_path))),
        ("--disk-map spt.disk-map", f"--disk-map {shlex.quote(str(world.disk_map_path))}"),
    ):
        script = script.replace(there, here)
    ran = subprocess.run(
        ["bash", "-euxc", script],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": CRON_ENVIRONMENT["PYTHONPATH"]},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == check, ran.stdout + ran.stderr
    return ran.stdout
