"""docs/receiving.md is followed to the letter: from opening the crate to mailing the receipts.

The north is a mount namespace of its own, with sh and coreutils alone.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.loopdisks import SEARCHED, LoopWorld
from tests.helpers.lost_database import rows
from tests.helpers.north import (
    ALONE,
    CRATE,
    ONE,
    PAGE,
    NorthMachine,
    make_unreadable,
    north_machine,
    repair_file_system,
)
from tests.helpers.slurm import slurm, why_no_slurm

LABELS = ("P01", "P02", "S01", "S02")
(SUBMIT,) = re.findall(r"check-disks.slurm\) \| `(sbatch .*?)` \|", PAGE)
SUBMIT = SUBMIT.replace("\\|", "|")  # as a table's cell has it
NAME = "fullrate/RCW38/80296951/0000.g3"


@pytest.fixture
def crate(make_loop_world: Callable[..., LoopWorld]) -> LoopWorld:
    """Closed disks, two of each role, which are not mounted at the station any more."""
    primaries, copies = ("P01", "P02", "P03"), ("S01", "S02", "S03")
    world = make_loop_world(primaries, copies, primary_fs="ext4")
    world.add_disk("P01", "ZA12JCHM")  # the serial of the page
    for number, labels in enumerate((("P01", "S01"), ("P02", "S02"))):
        world.put(f"{number}/{NAME}", 3_000_000)
        world.put(f"{number}/empty.g3", 0)
        world.put(f"{number}/second.g3", 1000)
        if number == 0:
            world.generate()
        world.run_pass(check=0)
        for label in labels:
            world.run_pass("close", "--yes", label, check=0)
    return world


@pytest.fixture
def north(crate: LoopWorld) -> Iterator[NorthMachine]:
    """All four disks have arrived, and are mounted read-only."""
    for label in LABELS:
        crate.loops[label].umount()
    with north_machine(crate) as machine:
        for label in LABELS:
            machine.mount(label)
        yield machine
    for label in LABELS:
        crate.loops[label].mount()


def receipt_of(machine: NorthMachine, label: str) -> str:
    return (machine.lists / f"{label}-{machine.world.serials[label]}.receipt").read_text()


def flip(world: LoopWorld, label: str, name: str, machine: NorthMachine | None = None) -> None:
    """On the medium; the disk is mounted at the station for it, and afterwards where it was."""
    if machine:
        machine.run(f"umount /mnt/{label}", path=SEARCHED)
        world.loops[label].mount()
    world.loops[label].flip_bit(f"data/{name}", offset=2_000_000)
    world.spoil(label, name, "the test flipped a bit on the way")
    if machine:
        world.loops[label].umount()
        machine.mount(label)


# --- one machine --------------------------------------------------------------------------


def test_one_disk_is_checked_as_the_page_says(north: NorthMachine) -> None:
    """One sentence, and a receipt with a name; nothing but sh and coreutils is there."""
    ran = north.run(ONE)
    assert ran.stderr == ""
    receipt = "packing-lists/P01-ZA12JCHM.receipt"
    assert ran.stdout == (
        f"P01 (ZA12JCHM): all 3 files are intact; mail {receipt} to the station\n"
    )
    text = receipt_of(north, "P01")
    assert "By: Jane Doe, Chicago\nFiles: 3\nBad: 0\n" in text
    assert text.endswith("Verdict: intact\n\n")
    assert len(text) < 500


def test_one_disk_is_checked_without_the_script(north: NorthMachine) -> None:
    """Silence, and one sentence."""
    ran = north.run(ALONE)
    assert (ran.stdout, ran.stderr) == ("all files are intact\n", "")


def test_a_crate_is_checked_with_a_process_for_each_disk(north: NorthMachine) -> None:
    """One line and one receipt a disk."""
    ran = north.run(CRATE, path="/usr/bin:/bin")
    assert ran.stderr == ""
    assert sorted(line.split(";")[0] for line in ran.stdout.splitlines()) == [
        f"{label} ({north.world.serials[label]}): all 3 files are intact" for label in LABELS
    ]
    assert len(list(north.lists.glob("*.receipt"))) == 4
    assert all(receipt_of(north, label).endswith("Verdict: intact\n\n") for label in LABELS)


def swap(machine: NorthMachine) -> str:
    """Another drive with this label on its sticker."""
    name = f"P02-{machine.world.serials['P02']}.sha512"
    (machine.lists / name).rename(machine.lists / "P02-OTHER001.sha512")
    return "check-disk: P02: the drive here is 'ZTP02AA', the list is P02-OTHER001.sha512\n"


def away(machine: NorthMachine) -> str:
    machine.run("umount /mnt/P02", path=SEARCHED)
    return "bag-info.txt"


@pytest.mark.parametrize("harm", [swap, away])
def test_a_disk_that_is_not_there_gets_no_receipt_and_the_others_are_checked(
    north: NorthMachine, harm: Callable[[NorthMachine], str]
) -> None:
    """Which log to look at, and in it what is wrong."""
    reason = harm(north)
    (path,) = north.lists.glob("P02-*.sha512")
    ran = north.run(CRATE.split("\ncat ")[0], path="/usr/bin:/bin")
    assert ran.stdout == f"look at packing-lists/{path.name}.log\n"
    assert reason in Path(f"{path}.log").read_text()
    assert len(list(north.lists.glob("*.receipt"))) == 3


def test_a_list_that_was_not_sent_shows(north: NorthMachine) -> None:
    """The disk's own list differs: the receipt says so."""
    path = north.lists / "P02-ZTP02AA.sha512"
    first, *_ = path.read_text().splitlines(keepends=True)
    path.write_text(first)
    north.run("./check-disk packing-lists/P02-ZTP02AA.sha512", check=1)
    text = receipt_of(north, "P02")
    assert "\nbad manifest-sha512.txt\nextra data/1/" in text


SHUT_DOWN = "import fcntl, os; fcntl.ioctl(os.open('/mnt/S01', 0), 0x8004587D, bytes([2, 0, 0, 0]))"
# The third call is for the second file.
PULLS_THE_PLUG = f"""#!/bin/sh
echo >>calls
[ $(wc -l <calls) = 3 ] && {sys.executable} -c "{SHUT_DOWN}"
exec /usr/bin/sha512sum
"""


def test_a_disk_that_is_unplugged_gets_no_receipt_and_is_continued(north: NorthMachine) -> None:
    """Its files are not called unreadable; mounted again, the same command goes on."""
    programs = north.home / "programs"
    programs.mkdir()
    (programs / "sha512sum").write_text(PULLS_THE_PLUG.replace("calls", f"{programs}/calls"))
    (programs / "sha512sum").chmod(0o755)
    command = "./check-disk packing-lists/S01-ZTS01AA.sha512"
    ran = north.run(command, check=2, path=f"{programs}:/usr/bin:/bin")
    assert "S01 does not respond any more (dmesg)" in ran.stderr
    progress = north.lists / "S01-ZTS01AA.progress"
    assert progress.read_text() == "good data/0/empty.g3\n"
    assert not list(north.lists.glob("S01*.receipt"))
    north.run("umount /mnt/S01", path=SEARCHED)
    north.mount("S01")
    north.run(command)
    assert "Verdict: intact" in receipt_of(north, "S01")


# --- a cluster ----------------------------------------------------------------------------


def test_a_slurm_task_checks_the_disk_of_its_number(north: NorthMachine) -> None:
    """Run as Slurm runs it: each number is one list, and its exit code is the disk's."""
    text = (north.home / "check-disks.slurm").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", text, re.MULTILINE))
    assert options.keys() >= {"job-name", "ntasks", "cpus-per-task", "mem", "time", "output"}
    assert "%a" in options["output"] and "#SBATCH --requeue\n" in text
    for number, label in enumerate(LABELS, 1):
        ran = north.run(text, path="/usr/bin:/bin", SLURM_ARRAY_TASK_ID=str(number))
        assert ran.stdout.split()[0] == label
    north.run(text, check=2, path="/usr/bin:/bin", SLURM_ARRAY_TASK_ID="5")


@pytest.mark.long  # its daemons are slow to start on a machine that does much else
def test_a_real_slurm_checks_each_disk_and_a_killed_job_continues(north: NorthMachine) -> None:
    """An array over two packing lists: one disk is bad, one job is killed and requeued."""
    if why := why_no_slurm():
        pytest.skip(why)
    for label in ("S01", "S02"):
        next(north.lists.glob(f"{label}-*")).unlink()
    flip(north.world, "P02", f"1/{NAME}", north)
    slow = north.home / "slow"
    slow.mkdir()
    (slow / "sha512sum").write_text("#!/bin/sh\nsleep 0.3\nexec /usr/bin/sha512sum\n")
    (slow / "sha512sum").chmod(0o755)
    progress = north.lists / "P01-ZA12JCHM.progress"
    with slurm(north.world.root / "slurm", north.prefix) as cluster:
        submit = SUBMIT.replace("sbatch ", f"sbatch --parsable --export=PATH={slow}:/usr/bin:/bin ")
        job = cluster.run("sh", "-c", submit).strip()
        cluster.wait(lambda: progress.exists() and progress.read_text().count("\n") >= 2, 20)
        cluster.run("scontrol", "requeue", f"{job}_1")
        cluster.wait(lambda: "PENDING" in cluster.run("scontrol", "show", "job", f"{job}_1"), 20)
        cluster.run("scontrol", "update", f"JobId={job}_1", "StartTime=now")  # else in two minutes
        cluster.wait(lambda: not progress.exists() or not cluster.run("squeue", "-h"), 40)
        cluster.wait(lambda: not cluster.run("squeue", "-h"), 40)
        restarts = cluster.run("scontrol", "show", "job", f"{job}_1")
    assert "Restarts=1" in restarts
    assert receipt_of(north, "P01").endswith("Verdict: intact\n\n")
    assert receipt_of(north, "P02").endswith(f"Verdict: not intact\n\nbad data/1/{NAME}\n")
    log = (north.home / "check-disks-1.log").read_text()
    assert "CANCELLED" in log and log.splitlines()[-1].startswith("P01 (ZA12JCHM): all 3 files")


def test_the_htcondor_file_makes_a_job_of_each_list(north: NorthMachine) -> None:
    """What a job needs is there, and what it starts runs with its arguments."""
    lines = (north.home / "check-disks.sub").read_text().splitlines()
    *settings, queue = [line for line in lines if line and not line.startswith("#")]
    job = dict(re.split(r"\s+=\s+", line, maxsplit=1) for line in settings)
    assert queue == "queue list matching files packing-lists/*.sha512"
    assert {"executable", "arguments", "output", "error", "log", "request_memory"} <= job.keys()
    assert job["transfer_input_files"] == "$(list)"
    for path in sorted(north.home.glob(queue.split()[-1])):
        command = f"./{job['executable']} packing-lists/{job['arguments']}"
        ran = north.run(command.replace("$Fnx(list)", path.name))
        assert ran.stdout.startswith(path.name.split("-")[0])
        receipt = job["transfer_output_files"].replace("$Fn(list)", path.stem)
        assert (north.lists / receipt).exists()


# --- the whole way ------------------------------------------------------------------------


def test_a_season_goes_north_and_every_file_is_confirmed_in_the_end(crate: LoopWorld) -> None:
    """Two disks; a bad, a missing and an unreadable file; receipts, repair, a second crate."""
    crate.ship("P01", "P02")
    flip(crate, "P01", f"0/{NAME}")
    (crate.disks["P01"] / "data/0/second.g3").unlink()
    crate.spoil("P01", "0/second.g3", "the test removed it on the way")
    for label in ("P01", "P02"):
        crate.loops[label].umount()
    make_unreadable(crate, "P02", f"1/{NAME}")
    crate.spoil("P02", f"1/{NAME}", "the test made it unreadable")
    with north_machine(crate) as machine:
        for label in ("P01", "P02"):
            machine.mount(label)
        machine.run(ONE, check=1)
        machine.run("./check-disk packing-lists/P02-ZTP02AA.sha512", check=1)
        assert f"\nbad data/0/{NAME}\nmissing data/0/second.g3\n" in receipt_of(machine, "P01")
        assert receipt_of(machine, "P02").endswith(f"\n\nunreadable data/1/{NAME}\n")
        receipts = list(map(str, machine.lists.glob("*.receipt")))
    crate.run_pass("received", *receipts, check=1)
    bad = {("copy-damaged", "ZA12JCHM"), ("copy-damaged", "ZTP02AA")}
    assert bad <= crate.notices()
    assert rows(crate, "SELECT label FROM disks WHERE state = 'received' ORDER BY 1") == [
        ("P01",),
        ("P02",),
    ]
    crate.run_pass("repair", check=0)
    assert not bad & crate.notices()
    assert crate.run_pass("season", check=0).out.endswith("not confirmed by a receipt: 3\n")
    crate.run_pass("close", "--yes", "P03", check=0)
    crate.ship("P03")
    (crate.root / "north").rename(crate.root / "first crate")
    crate.loops["P03"].umount()
    with north_machine(crate) as machine:
        machine.mount("P03")
        machine.run("./check-disk packing-lists/P03-ZTP03AA.sha512")
        receipt = next(machine.lists.glob("P03-*.receipt"))
        crate.run_pass("received", str(receipt), check=0)
    crate.loops["P03"].mount()
    assert crate.run_pass("season", check=0).out.endswith("not confirmed by a receipt: 0\n")
    path = crate.root / "season.csv"
    crate.run_pass("season", "--csv", str(path), check=0)
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    assert sum(int(row["files"]) for row in found) == 6
    assert all(row["files"] == row["confirmed"] for row in found)
    repair_file_system(crate, "P02")
    for label in ("P01", "P02"):
        crate.loops[label].mount()
