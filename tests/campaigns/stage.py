"""A little station that is set back to one moment again and again, for one fault after another."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.campaigns.shim import Forked, Outcome, Rule, forked
from tests.helpers.halted import leave_a_copy, line_of
from tests.helpers.loopdisks import LoopDisk, why_no_loop_disks
from tests.helpers.world import World

SMALL = "fullrate/RCW38/0000.g3"
LARGE = "fullrate/RCW38/0001.g3"  # written and read past the page cache
LARGE_BYTES = (1 << 20) + 5000
NEXT = "next.g3"  # comes after a fault, so that every disk in use is used again


class Stage:
    """A world, what is done in it, and its state before: ``reset`` brings that back."""

    def __init__(self, world: World, scripts: Forked, args: tuple[str, ...] = ()) -> None:
        self.world, self.args = world, args
        self._scripts = scripts
        self._kept = world.root.with_name("kept")
        subprocess.run(["cp", "-a", world.root, self._kept], check=True)
        self.reset()

    @property
    def devices(self) -> Mapping[str, Path]:
        """What the shim tells apart: the disks in use, the buffer, the database's directory."""
        world = self.world
        return {
            "source": world.buffer,
            "primary": world.disks["P01"],
            "copy": world.disks["S01"],
            "database": world.db_path.parent,
        }

    def reset(self) -> None:
        """Everything as it was. The marks are on the medium, as direct reads are tried on them."""
        shutil.rmtree(self.world.root)
        subprocess.run(["cp", "-a", self._kept, self.world.root], check=True)
        for mark in self.world.mounts.glob("*/bag-info.txt"):
            with open(mark, "rb") as file:
                os.fsync(file.fileno())
        self.world.ledger.withdraw(NEXT, "everything is as it was before it")
        self.world.unfinished = True

    def act(self, rule: Rule | None = None, timeout_s: float = 60) -> Outcome:
        """What this stage is about, under a rule."""
        return self.run(*self.args, rule=rule, timeout_s=timeout_s)

    def run(self, *args: str, rule: Rule | None = None, timeout_s: float = 60) -> Outcome:
        """data_manager.py with these arguments."""
        config = str(self.world.config_path)
        words = ["--config", config, *args]
        return self._scripts.run("data_manager.py", words, self.devices, rule, timeout_s)

    def read_again(self) -> None:
        """What could not be read while there was a fault is good as soon as it can be."""
        if "verify" in self.args:
            assert self.act().code == 0

    def tidy(self) -> None:
        """One clean pass finishes the job: all is archived, and nothing unfinished is left."""
        world = self.world
        if any(world.buffer.rglob(".*.removing")):
            self._make_due()
            self.run()  # two files that are to have one name: the other one is settled first
        world.put(NEXT, 100)
        self._make_due()
        outcome = self.run()
        assert (outcome.code, outcome.out, outcome.err) == (0, "", ""), (outcome, world.log())
        assert world.waiting() == set()
        assert world.sql("SELECT 1 FROM passes WHERE ended_at IS NULL") == []
        assert world.sql("SELECT name FROM pending") == []
        world.unfinished = False
        world.check(allow_unregistered=True)  # what a failed disk has without a row is adopted …

    def _make_due(self) -> None:
        if _is_database(self.world.db_path):
            self.world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")

    def close_all(self) -> None:
        """Every disk in use can be closed, once a person has looked at what was set aside: then
        database, manifest and files are one."""
        for label, state in self.world.disk_states().items():
            if state == "active":
                shutil.rmtree(self.world.disks[label] / ".aside", ignore_errors=True)
                outcome = self.run("close", "--yes", label)
                assert outcome.code == 0 or self._is_refused(outcome), outcome.err
        self.world.check()  # … by now

    def _is_refused(self, outcome: Outcome) -> bool:
        """Rightly: something else than the file that another disk took is still in its place."""
        is_there = self.world.ledger.is_spoiled([self.world.serials["P01"]], "new.g3")
        refusals = ("data/new.g3 is not what the manifest says", "is not what the database knows")
        return is_there and any(why in outcome.err for why in refusals)


def _is_database(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


# --- scenes -------------------------------------------------------------------------------


def first_use(world: World) -> tuple[str, ...]:
    """Two files, small and large, and disks that were never used: the pass claims them."""
    world.put(SMALL, 3001)
    world.put(LARGE, LARGE_BYTES)
    world.generate()
    return ()


def after_a_crash(world: World) -> tuple[str, ...]:
    """Disks in use, with all that a killed pass may leave, and a file that comes again."""
    world.put("seed.g3", 5000)
    world.generate()
    world.run_pass(check=0)
    world.put("seed.g3", 5000)
    world.put(SMALL, 3001)
    world.put("new.g3", 900)
    content = (world.buffer / SMALL).read_bytes()
    path = leave_a_copy(world, "P01", SMALL, content)
    leave_a_copy(world, "S01", SMALL, content, line_of(path, SMALL)[:50])
    (world.disks["S01"] / ".incoming/0123456789abcdef").write_bytes(b"half")
    return ()


def interrupted_removal(world: World) -> tuple[str, ...]:
    """Two files whose removal was interrupted: the name of one is taken by now, and a new file."""
    for name in (SMALL, "again.g3"):
        world.put(name, 3001)
    world.generate()
    world.run_pass(check=0)
    for name in (SMALL, "again.g3"):
        world.put(name, 3001)
        path = world.buffer / name
        path.rename(path.with_name(f".{path.name}.removing"))
    world.put("again.g3", 3001)
    world.put(LARGE, LARGE_BYTES)
    return ()


def something_else(world: World) -> tuple[str, ...]:
    """Another content stands in a file's place, below the file's own line: it is set aside."""
    world.put("seed.g3", 5000)
    world.generate()
    world.run_pass(check=0)
    world.put("new.g3", 900)
    line = line_of(world.buffer / "new.g3", "new.g3")
    leave_a_copy(world, "P01", "new.g3", b"something else", line)
    world.spoil("P01", "new.g3", "the test put something else there")
    return ()


def closing(world: World) -> tuple[str, ...]:
    """A disk in use that a person closes; one file on it lost its row in a crash."""
    world.put(SMALL, 3001)
    world.put(LARGE, LARGE_BYTES)
    world.generate()
    world.run_pass(check=0)
    world.put("adopted.g3", 700)
    source = world.buffer / "adopted.g3"
    leave_a_copy(world, "P01", "adopted.g3", source.read_bytes(), line_of(source, "adopted.g3"))
    return ("close", "--yes", "P01")


def verifying(world: World) -> tuple[str, ...]:
    """Both disks are read again, from the medium."""
    world.put(SMALL, 3001)
    world.put(LARGE, LARGE_BYTES)
    world.generate()
    world.run_pass(check=0)
    return ("verify", "P01", "S01")


def many_files(world: World) -> tuple[str, ...]:
    """Enough for a pass of some length: a large file and thirty small ones, on new disks."""
    world.put(LARGE, LARGE_BYTES)
    for number in range(30):
        world.put(f"downsampled/{number % 7}/{number:04}.g3", 300 * number)
    world.generate()
    return ()


SCENES: dict[str, Callable[[World], tuple[str, ...]]] = {
    "first-use": first_use,
    "after-a-crash": after_a_crash,
    "interrupted-removal": interrupted_removal,
    "something-else": something_else,
    "closing": closing,
    "verifying": verifying,
}


# --- fixtures -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """The scripts in forks of one warm interpreter, with the shim loaded."""
    with forked(tmp_path_factory.mktemp("shim")) as server:
        yield server


@pytest.fixture(scope="session")
def quick_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory where fsync(2) is fast and direct reads are real: ext4 on a loop device in
    memory. Who may not mount gets an ordinary one."""
    place = tmp_path_factory.mktemp("quick")
    if why_no_loop_disks():
        yield place
        return
    with (
        TemporaryDirectory(dir="/dev/shm") as memory,
        LoopDisk(Path(memory) / "image", place, size_mb=300, fs="ext4"),
    ):
        yield place


@pytest.fixture
def make_stage(quick_place: Path, scripts: Forked) -> Iterator[Callable[[str], Stage]]:
    """``make_stage("first-use")``: once a test."""
    with TemporaryDirectory(dir=quick_place) as place:

        def make(scene: str | Callable[[World], tuple[str, ...]]) -> Stage:
            world = World(Path(place))
            prepare = SCENES[scene] if isinstance(scene, str) else scene
            return Stage(world, scripts, prepare(world))

        yield make
