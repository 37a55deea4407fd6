"""The operator's drills in docs/operators.md, followed literally; the hands are the test's.

The drill of a lost database is in test_lost_database.py.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.helpers.drills import follow, steps_of
from tests.helpers.halted import HaltedPass, needs_strace
from tests.helpers.invariants import sha512_of
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.rack import plug_in_again, pull
from tests.helpers.stations import equip

NAMES = ("fullrate/RCW38/80296951/0000.g3", "fullrate/RCW38/80296952/0000.g3", "raw/x.g3")
LATE = "fullrate/RCW38/80296953/0000.g3"


def in_use(world: LoopWorld) -> LoopWorld:
    """NAMES are on P01 and S01; P02 and S02 are spares."""
    for name in NAMES:
        world.put(name, 30_000)
    world.generate()
    world.run_pass(check=0)
    equip(world)
    return world


def is_well(world: LoopWorld, *notices: str) -> None:
    """All is archived and whole on two disks, and no more notices are open than these."""
    assert world.waiting() == set()
    assert world.sql("SELECT name FROM files WHERE archived_at IS NULL") == []
    assert {kind for kind, _ in world.notices()} == set(notices)
    world.check()


def faults(said: str) -> list[str]:
    """What ``check`` finds fault with, in its first three words."""
    lines = [line.split() for line in said.splitlines() if line.startswith("FAULT")]
    return [" ".join(words[1:4]) for words in lines]


def test_the_copy_disk_dies(make_loop_world: Callable[..., LoopWorld]) -> None:
    """Given up, and what it held is twice there again: from the primary disk, on a spare."""
    look, give_up, mend, look_again = steps_of("### Drill: the copy disk dies")
    world = in_use(make_loop_world())
    pull(world, "S01")
    world.put(LATE, 30_000)
    world.run_pass(check=1)
    assert world.archived("S02") == {LATE}
    said = follow(world, look)
    assert "LOOK TODAY" in said.splitlines()[0] and "disk-error" in said
    plug_in_again(world, "S01")
    world.loops["S01"].umount()
    world.spoil("S01", None, "it is given up")
    assert "0 files have no good copy left" in follow(world, give_up)
    said = follow(world, mend)
    assert said.count("would copy") == 3 and "3 files copied (90 kB), to S02." in said
    assert world.archived("S02") == {*NAMES, LATE}
    assert "ALL WELL" in follow(world, look_again)
    is_well(world)


def test_a_file_is_wanted_back(make_loop_world: Callable[..., LoopWorld]) -> None:
    """Found with no disk mounted; got from the copy that is whole, also from a closed disk."""
    find, get = steps_of("### Drill: a file is wanted back")
    world = in_use(make_loop_world())
    world.run_pass("close", "--yes", "P01", check=0)
    world.loops["P01"].umount()
    said = follow(world, find)
    assert NAMES[0] in said and NAMES[1] in said and NAMES[2] not in said
    assert "ZTP01AA: closed, on the shelf" in said
    world.loops["S01"].flip_bit(f"data/{NAMES[0]}", offset=500)
    world.spoil("S01", NAMES[0], "a bit of it was flipped")
    world.loops["P01"].mount(options="ro")
    assert follow(world, get) == f"{NAMES[0]}: P01\n"
    (entry,) = world.ledger.contents(NAMES[0])
    assert sha512_of(world.root / "wanted" / NAMES[0]) == entry.sha512


@needs_strace
def test_the_wrong_disk_is_pulled(make_loop_world: Callable[..., LoopWorld]) -> None:
    """While it is written to. It comes back to its place, and everything is there."""
    say_so, ask, go_on, look = steps_of("### Drill: the wrong disk is pulled")
    world = in_use(make_loop_world())
    world.put(LATE, 30_000)
    halted = HaltedPass(world, "openat", [world.disks["P01"] / ".incoming"])
    pull(world, "P01")
    halted.go_on(check=1)
    assert "No disk is touched now" in follow(world, say_so)
    plug_in_again(world, "P01")
    assert faults(follow(world, ask, check=1)) == ["passes do nothing"]
    follow(world, go_on)
    assert "ALL WELL" in follow(world, look)
    is_well(world)


@needs_strace
def test_a_brownout(make_loop_world: Callable[..., LoopWorld]) -> None:
    """The power went in mid-pass, and took every disk: the next pass takes up what was left."""
    say_so, ask, go_on = steps_of("### Drill: brownout")
    world = in_use(make_loop_world())
    world.put(LATE, 30_000)
    halted = HaltedPass(world, "openat", [world.disks["P01"] / ".incoming"])
    pull(world, *world.disks)
    halted.signal(signal.SIGKILL)
    halted.go_on()
    for loop in world.loops.values():
        loop.umount()
    world.unfinished = True
    assert "No disk is touched now" in follow(world, say_so)
    for loop in world.loops.values():
        loop.mount()
    assert faults(follow(world, ask, check=1)) == ["passes do nothing"]
    assert "ALL WELL" in follow(world, go_on)
    is_well(world)
