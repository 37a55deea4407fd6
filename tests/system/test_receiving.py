"""docs/receiving.md: a crate of disks is checked without this software, and faults are found.

The commands of the page run as they stand, on closed disks; the submit files are complete.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.documents import MARKED
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.world import REPO, World

ONE_DISK, CRATE = MARKED.findall((REPO / "docs/receiving.md").read_text())
EXAMPLES = REPO / "examples"
NAME = "fullrate/RCW38/80296951/0000.g3"


@pytest.fixture
def crate(loop_world: LoopWorld) -> LoopWorld:
    """Closed disks, two of each role; lists and script lie together in ``root/north``."""
    for number, labels in enumerate((("P01", "S01"), ("P02", "S02"))):
        loop_world.put(f"{number}/{NAME}", 3_000_000)
        loop_world.put(f"{number}/empty.g3", 0)
        if number == 0:
            loop_world.generate()
        loop_world.run_pass(check=0)
        for label in labels:
            loop_world.run_pass("close", "--yes", label, check=0)
    return north(loop_world)


def north(world: LoopWorld) -> LoopWorld:
    here = world.root / "north"
    shutil.copytree(world.db_path.parent / "packing-lists", here / "packing-lists")
    for file in EXAMPLES.glob("check-disk*"):
        shutil.copy(file, here)
    for loop in world.loops.values():
        loop.remount("ro")
    return world


def run(world: World, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """With the disks at this station's places in place of /mnt."""
    script = script.replace("/mnt", str(world.mounts))
    script = script.replace("./check-disk LIST", f"./check-disk LIST {world.mounts}")
    return subprocess.run(
        ["bash", "-euc", script],
        cwd=world.root / "north",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- one machine --------------------------------------------------------------------------


def test_one_disk_is_checked_with_sha512sum_alone(crate: LoopWorld) -> None:
    """Silence, and one sentence."""
    ran = run(crate, ONE_DISK)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "all files are whole\n", "")


def test_a_crate_is_checked_with_a_process_for_each_disk(crate: LoopWorld) -> None:
    """One line a disk, and no other where all is whole."""
    ran = run(crate, CRATE)
    assert ran.stderr == ""
    assert ran.returncode == 0
    assert sorted(ran.stdout.splitlines()) == [
        f"{label} ({crate.serials[label]}): 2 files are whole"
        for label in ("P01", "P02", "S01", "S02")
    ]


def flip(world: LoopWorld) -> str:
    world.loops["P02"].umount()
    world.loops["P02"].mount()
    world.loops["P02"].flip_bit(f"data/1/{NAME}", offset=2_000_000)
    world.spoil("P02", f"1/{NAME}", "the test flipped a bit")
    world.loops["P02"].umount()
    world.loops["P02"].mount(options="ro")
    return f"data/1/{NAME}: FAILED\nsha512sum: WARNING: 1 computed checksum did NOT match\n"


def swap(world: LoopWorld) -> str:
    """Another drive with this label on its sticker."""
    name = f"P02-{world.serials['P02']}.sha512"
    lists = world.root / "north/packing-lists"
    (lists / name).rename(lists / "P02-OTHER001.sha512")
    return "P02: here is the drive 'ZTP02AA', the list is P02-OTHER001.sha512\n"


def other_list(world: LoopWorld) -> str:
    path = world.root / f"north/packing-lists/P02-{world.serials['P02']}.sha512"
    first, *_ = path.read_text().splitlines(keepends=True)  # what it lists is whole
    path.write_text(first)
    return "P02: its own list is not the one that was sent\n"


def away(world: LoopWorld) -> str:
    world.loops["P02"].umount()
    return "P02: here is the drive '', the list is P02-ZTP02AA.sha512\n"


@pytest.mark.parametrize("harm", [flip, swap, other_list, away])
def test_what_is_not_whole_is_named_and_the_other_disks_are_checked(
    crate: LoopWorld, harm: Callable[[LoopWorld], str]
) -> None:
    """Which log to look at, and in it what is wrong."""
    said = harm(crate)
    (path,) = (crate.root / "north/packing-lists").glob("P02-*.sha512")
    ran = run(crate, CRATE.split("\ncat ")[0])
    assert ran.stdout == f"look at packing-lists/{path.name}.log\n"
    assert ran.returncode == 0
    assert said in Path(f"{path}.log").read_text()
    logs = [log.read_text() for log in path.parent.glob("*.log") if not log.name.startswith("P02")]
    assert len(logs) == 3
    assert all(log.endswith(": 2 files are whole\n") for log in logs)


# --- a cluster ----------------------------------------------------------------------------


def test_a_slurm_task_checks_the_disk_of_its_number(crate: LoopWorld) -> None:
    """Run as Slurm runs it: each number is one list, and its exit code is the disk's."""
    text = (crate.root / "north/check-disks.slurm").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", text, re.MULTILINE))
    assert options.keys() == {"job-name", "ntasks", "cpus-per-task", "mem", "time", "output"}
    assert "%a" in options["output"]
    told = [run(crate, text, SLURM_ARRAY_TASK_ID=str(n)).stdout for n in (1, 2, 3, 4)]
    assert [line.split()[0] for line in told] == ["P01", "P02", "S01", "S02"]
    assert run(crate, text, SLURM_ARRAY_TASK_ID="5").returncode == 2


def test_the_htcondor_file_makes_a_job_of_each_list(crate: LoopWorld) -> None:
    """What a job needs is there, and what it starts runs with its arguments."""
    here = crate.root / "north"
    lines = (here / "check-disks.sub").read_text().splitlines()
    *settings, queue = [line for line in lines if line and not line.startswith("#")]
    job = dict(re.split(r"\s+=\s+", line, maxsplit=1) for line in settings)
    assert queue == "queue list matching files packing-lists/*.sha512"
    assert {"executable", "arguments", "output", "error", "log", "request_memory"} <= job.keys()
    assert job["transfer_input_files"] == "$(list)"
    for path in sorted(here.glob(queue.split()[-1])):
        command = f"./{job['executable']} packing-lists/{job['arguments']}"
        ran = run(crate, command.replace("$Fnx(list)", path.name))
        assert ran.returncode == 0, ran
        assert ran.stdout.startswith(path.name.split("-")[0])
