"""SIGKILL at every system call of a run in turn, and at random moments: nothing is ever lost.

Then one clean pass is enough: everything is archived, nothing unfinished lies about, and the
disks can be closed, so manifests, files and database agree.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from tests.campaigns.shim import DIE, Call, Outcome, Rule, needs_shim
from tests.campaigns.stage import SCENES, Stage, many_files

pytestmark = [needs_shim, pytest.mark.timeout(600)]
ANY = Call("*", "*")
# What alters something on a disk, or makes it durable.
CHANGING = {"create", "write", "pwrite", "fallocate", "ftruncate", "fsync", "fdatasync", "close"}

CHANGING |= {"syncfs", "writeout"}


CHANGING |= {"mkdir", "link", "rename", "unlink", "rmdir", "chmod", "utimens"}


def kill_at_calls(stage: Stage, numbers: Iterable[int]) -> Counter[str]:
    """Runs killed at these calls, each judged and finished; how many died at which step."""
    died: Counter[str] = Counter()
    for number in numbers:
        stage.reset()
        outcome = stage.act(Rule(ANY, DIE, number))
        if outcome.was_killed:  # the lanes' order varies: a last call may not come
            judge_and_finish(stage)
            died[step(outcome)] += 1
    stage.world.leave_unchecked("it is as the last kill left it, which was judged")
    return died


def judge_and_finish(stage: Stage) -> None:
    """What lies there breaks no promise, and one clean pass makes an end of it."""
    stage.read_again()
    stage.world.check(finished=False)
    stage.tidy()
    stage.close_all()


def step(outcome: Outcome) -> str:
    """What the run was at: ``fsync primary:data``, with files and directories by their kind."""
    call = outcome.calls[-1]
    place = re.sub(r"^(data)/.*", r"\1/…", call.path) if call.device != "source" else "…"
    return f"{call.kind} {call.device}:{place}"


def print_steps(died: Counter[str]) -> None:
    print(f"{died.total()} kills, at {len(died)} steps:")
    for name, count in sorted(died.items()):
        print(f"{count:5} {name}")


@pytest.mark.parametrize("scene", SCENES)
def test_a_run_killed_at_any_system_call_loses_nothing(
    make_stage: Callable[[str], Stage], scene: str, seed: int
) -> None:
    """A dozen of those that change something, spread over the whole run."""
    stage = make_stage(scene)
    calls = enumerate(stage.act().calls, start=1)
    changing = [number for number, call in calls if call.kind in CHANGING]
    stride = len(changing) // 12
    died = kill_at_calls(stage, changing[seed % stride :: stride][:12])
    print_steps(died)
    assert died.total() >= 11


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scene", SCENES)
def test_a_run_killed_at_each_of_its_system_calls_loses_nothing(
    make_stage: Callable[[str], Stage], scene: str
) -> None:
    """Every one in turn, of a small pass and of a close; of the others every one before which
    something changes: between two of these a kill finds the same on the disks."""
    stage = make_stage(scene)
    calls = list(enumerate(stage.act().calls, start=1))
    is_whole = scene in ("first-use", "closing")
    numbers = [number for number, call in calls if is_whole or call.kind in CHANGING]
    died = kill_at_calls(stage, numbers)
    print_steps(died)
    assert died.total() >= 0.98 * len(numbers)


def kill_at_random(stage: Stage, kills: int, seed: int) -> Counter[str]:
    """So many passes killed at moments drawn from their length; misses do not count."""
    moments = random.Random(seed)
    began = time.monotonic()
    assert stage.act().code == 0
    length_s = time.monotonic() - began
    died: Counter[str] = Counter()
    for _ in range(5 * kills):
        stage.reset()
        outcome = stage.act(timeout_s=moments.uniform(0, length_s))
        if outcome.was_killed and outcome.calls:
            judge_and_finish(stage)
            died[step(outcome)] += 1
        if died.total() == kills:
            break
    stage.world.leave_unchecked("it is as the last kill left it, which was judged")
    return died


def test_a_pass_killed_at_a_random_moment_loses_nothing(
    make_stage: Callable[..., Stage], seed: int
) -> None:
    """A few of them."""
    died = kill_at_random(make_stage(many_files), 10, seed)
    print_steps(died)
    assert died.total() == 10


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(4))
def test_a_pass_killed_at_hundreds_of_random_moments_loses_nothing(
    make_stage: Callable[..., Stage], seed: int, part: int
) -> None:
    """Four times a hundred of them."""
    died = kill_at_random(make_stage(many_files), 100, seed + part)
    print_steps(died)
    assert died.total() == 100
