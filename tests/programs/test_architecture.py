"""How the code is laid out: the arrows run one way, and each thing has one place."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.helpers.source_code import HEAVY, module_of
from tests.helpers.world import CRON_ENVIRONMENT, REPO, World

SCRIPTS = sorted(REPO.glob("*.py"))
MODULES = sorted(path for path in (REPO / "poledata").rglob("*.py"))

# --- what cron loads each minute ------------------------------------------------------------


@pytest.mark.parametrize("script", [script.stem for script in SCRIPTS])
def test_what_cron_starts_loads_nothing_heavy(script: str) -> None:
    """Whatever a person's command needs beside the core is imported when it is used."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys, {script}; print(*sys.modules)"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY & {name.partition(".")[0] for name in ran.stdout.split()} == set()


def test_a_pass_with_nothing_to_do_loads_nothing_that_copies(world: World) -> None:
    """Nor what hashes, closes, renders or sends: what each minute costs is paid for years."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    modules = loaded_by(world.run_pass(check=0, env={"PYTHONPROFILEIMPORTTIME": "1"}).err)
    assert {"poledata.archive.run", "poledata.status.conditions"} <= modules
    bare = [sys.executable, "-X", "importtime", "-c", "import click"]
    modules -= loaded_by(subprocess.run(bare, capture_output=True, text=True, check=True).stderr)
    idle = {"system.direct_io", "disk_map", "notices.send_child"}
    idle |= {f"archive.{m}" for m in ("batch", "copier", "disk_writer", "planner", "removal")}
    idle |= {f"disks.{m}" for m in ("bag", "closing", "identity", "lifecycle", "mounted_disks")}
    idle |= {f"status.{m}" for m in ("check", "html", "metrics", "text")}
    idle |= {"disks.catalog_copy", "disks.manifest", "disks.free_space", "disks.upkeep"}
    assert {f"poledata.{m}" for m in idle} <= {module_of(path) for path in MODULES}
    assert modules & {"hashlib", "ctypes", "subprocess", *(f"poledata.{m}" for m in idle)} == set()


def loaded_by(importtime: str) -> set[str]:
    """The modules that Python says it loaded (``-X importtime``)."""
    return set(re.findall(r"\| +([\w.]+)$", importtime, re.MULTILINE))


def test_a_pass_needs_nothing_but_the_core(world: World) -> None:
    """Without rich, apprise, jinja2 and the rest, or with broken ones, files are archived."""
    broken, quick = world.root / "broken", CRON_ENVIRONMENT["PYTHONPATH"]
    broken.mkdir()
    for name in HEAVY - {"dotenv"}:
        (broken / f"{name}.py").write_text("raise ImportError('broken')")
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0, env={"PYTHONPATH": f"{broken}:{quick}"})
    assert world.waiting() == set()
