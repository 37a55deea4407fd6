"""The documents say what the code does: nothing is missing, nothing is made up, every link leads
somewhere, and the commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.documents import MARKED, REFERENCE, first_codes, rows, section
from tests.helpers.world import CRON_ENVIRONMENT, REPO, World

README = (REPO / "README.md").read_text()
DATABASE = (REPO / "docs/database.md").read_text()
NAME = "fullrate/RCW38/80296951/0000.g3"

# --- the database ------------------------------------------------------------------------


@pytest.mark.parametrize("query", re.findall(r"^```sql\n(.*?)^```$", DATABASE, re.M | re.S))
def test_the_ready_queries_run(world: World, query: str) -> None:
    """On a database with a file that failed and one that was archived."""
    world.put(NAME, 5000)
    world.put("bad%.g3", 10)
    world.generate()
    world.run_pass(check=1)
    found = [tuple(row) for row in world.sql(query)]
    if "primary_label IS NULL" in query:
        assert found == []
    else:
        assert found
    if "primary_label, copy_label, size_bytes" in query:
        assert found[0][:4] == (NAME, "P01", "S01", 5000)


# --- JSON --------------------------------------------------------------------------------


def paths(value: Any, path: str = "") -> set[str]:
    """``a.b``, ``c[].d``: where the plain values of some JSON stand."""
    if isinstance(value, dict):
        return set().union(*(paths(v, f"{path}.{k}".lstrip(".")) for k, v in value.items()))
    if isinstance(value, list) and value:
        return set().union(*(paths(item, f"{path}[]") for item in value))
    return {path}


def test_the_keys_of_the_json_are_those_of_the_tables(world: World) -> None:
    """``generate_db.py --json``, and ``status --json`` with something of everything."""
    world.put("bad%.g3", 10)
    prepared = world.generate("--json").json()
    checked = world.run_pass("check", "--json", check=0).json()
    world.put(NAME, 10)
    world.run_pass(check=1, env={"POLE_NOTIFY_URLS": "nonsense://x"})
    read = world.run_pass("verify", "P01", "--json", check=0).json()
    located = world.run_pass("locate", NAME, "--json", check=0).json()
    status = world.status("--json").json()
    rebuilt = rebuilt_with_something_of_everything(world)
    assert status["pending"] and status["notices"] and status["undelivered"]
    assert status["last_pass"]
    _, *texts = re.split(r"^`.*\.py.* --json`", section(REFERENCE, "## JSON"), flags=re.MULTILINE)
    for text, told in zip(
        texts[:6], (prepared, rebuilt, checked, read, located, status), strict=True
    ):
        items = paths(told[0]) if isinstance(told, list) else paths(told)
        assert set(first_codes(text)) == {item.removesuffix("[]") for item in items}


def rebuilt_with_something_of_everything(world: World) -> Any:
    """``--from-disks --verify --json`` after the test has harmed what is on the disks."""
    world.leave_unchecked("the test harms the disks")
    line = (world.disks["P01"] / "manifest-sha512.txt").read_text()
    (world.disks["S01"] / "manifest-sha512.txt").write_text("0" * 128 + line[128:])
    world.sql("DELETE FROM copies")
    world.sql("DELETE FROM files")
    (world.disks["P02"] / "not-ours").touch()
    world.disks["S02"].rmdir()
    lists = world.db_path.parent / "packing-lists"
    lists.mkdir(exist_ok=True)
    (lists / f"S02-{world.serials['S02']}.sha512").write_text("torn")
    return world.run("generate_db.py", "--from-disks", "--verify", "--json", check=1).json()


# --- disks, modules ----------------------------------------------------------------------


def test_what_lies_on_a_disk_is_as_told(world: World) -> None:
    """Every entry, and no other: while it is in use, and when it is closed."""
    world.put(NAME, 10)
    world.generate()
    world.run_pass(check=0)
    told = {row[0].strip("`/"): row[1] for row in rows(section(REFERENCE, "### On a disk"))}
    in_use = {name for name, what in told.items() if not what.startswith("only when")}
    assert entries(world.disks["P01"]) == in_use - {".aside"}
    assert (world.disks["P01"] / "data" / NAME).is_file()
    world.run_pass("close", "--yes", "P01", check=0)
    closed = {name for name, what in told.items() if not what.startswith("only until")}
    assert entries(world.disks["P01"]) == closed
    assert entries(world.db_path.parent / "packing-lists")


def entries(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --- links, paths, commands that run -----------------------------------------------------


def test_the_marked_commands_run(world: World) -> None:
    """README's and the reference's commands, in their order, on a station of stand-ins."""
    world.put(NAME, 5000)
    script = "\n".join(MARKED.findall(README + REFERENCE))
    assert script.count("data_manager.py") >= 3 and "generate_db.py" in script
    for there, here in (
        ("sudo venv/bin/python", "venv/bin/python"),
        ("venv/bin/python", shlex.quote(sys.executable)),
        ("spt.config", shlex.quote(str(world.config_path))),
        ("--disk-map spt.disk-map", f"--disk-map {shlex.quote(str(world.disk_map_path))}"),
        ("/spt_disks", shlex.quote(str(world.mounts))),
    ):
        assert there in script
        script = script.replace(there, here)
    ran = subprocess.run(
        ["bash", "-euxc", script],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": CRON_ENVIRONMENT["PYTHONPATH"]},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 of 4 drives are ready." in ran.stdout
    assert f"would copy {NAME} (5 kB) to P01 and S01" in ran.stdout
    assert "Archived   1 file, 5 kB" in ran.stdout
    assert "P01: 1 copy is good (5 kB)" in ran.stdout
    assert f"{NAME}: P01" in ran.stdout and "0 files copied (0 B)." in ran.stdout
    assert ran.stdout.endswith("all files are whole\n")
    assert world.waiting() == set()


def test_the_demo_and_its_commands_run_exactly_as_printed(tmp_path: Path) -> None:
    """In a fresh copy of the project, after what ``make demo`` does."""
    copy = tmp_path / "pole"
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={REPO}", "ls-files", "-z"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name)
    assert "examples/make_demo.py" in (copy / "Makefile").read_text()
    python = copy / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (printed,) = re.findall(r"^<!-- demo -->\n```sh\n(.*?)^```$", README, re.M | re.S)
    for script in ("$PWD/.venv/bin/python examples/make_demo.py", printed):
        ran = subprocess.run(
            ["bash", "-euxc", script],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
    out = ran.stdout
    assert out.startswith("ALL WELL: nothing has to be done.\nSTAND-INS: ")
    for words in ("fullrate/RCW38/", "P01 is closed", "## disk-closed\n"):
        assert words in out
