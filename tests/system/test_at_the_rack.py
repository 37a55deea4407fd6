"""What people do at the rack while a pass runs: unmount, pull, close, pause, call it twice.

The pass stands still at an exact system call (strace), or between two batches because the
test stands at the door as a command does; nothing here depends on who is faster.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from poledata.system import locks
from tests.helpers.halted import GONE_S, HaltedPass, needs_strace, ready_world
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.rack import (
    BATCH_FILES,
    after_this_batch,
    answer,
    below_the_mounts,
    command,
    go_on,
    in_first_batch,
    make_busy,
    until,
    waiting_command,
    waits_for_a_lock,
)

# --- waiting for an exact moment ----------------------------------------------------------


@pytest.fixture
def busy(make_loop_world: Callable[..., LoopWorld]) -> LoopWorld:
    return make_busy(make_loop_world, ["P01", "P02"])


NAMES = {f"{number}.g3" for number in range(3 * BATCH_FILES)}
FIRST_BATCH = {"0.g3", "1.g3", "2.g3"}

# --- a disk is taken away in mid-copy ------------------------------------------------------

POINTS = {
    "writing": ("openat", "P01/.incoming", 2),
    "publishing": ("linkat", "P01/.incoming", 1),
    "listing": ("write", "P01/manifest-sha512.txt", 1),
}


@needs_strace
@pytest.mark.parametrize(("calls", "where", "nth"), POINTS.values(), ids=POINTS)
def test_nothing_falls_into_the_directory_below_a_disk_torn_away_in_mid_copy(
    make_loop_world: Callable[..., LoopWorld], calls: str, where: str, nth: int
) -> None:
    """``umount --lazy``: the batch is finished on the drive, but a disk that is away justifies no
    removal; the next pass does without it."""
    world = make_loop_world(primaries=["P01", "P02"], copies=["S01"])
    ready_world(world)
    for base in ("1.g3", "deep/2.g3"):
        world.put(base, 200_000)
    with below_the_mounts(world) as below:
        before = world.snapshot(below)
        halted = HaltedPass(world, calls, [world.mounts / where], nth)
        world.loops["P01"].lazy_unmount()
        halted.go_on(check=1)
        assert world.waiting() == {"1.g3", "deep/2.g3"}
        assert "P01: it was unmounted" in world.log()
        world.put("3.g3")
        world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
        world.run_pass(check=1)
        assert world.waiting() == set()
        assert before.differences(world.snapshot(below)) == []
    assert world.notices() == {("disk-missing", "P01")}
    assert world.archived("P02") == {"1.g3", "deep/2.g3", "3.g3"}
    world.loops["P01"].mount()
    go_on(world)
    assert world.archived("P01") == {"seed.g3", "1.g3", "deep/2.g3"}


@needs_strace
@pytest.mark.parametrize("is_used", [False, True], ids=["claiming", "writing"])
def test_a_drive_mounted_in_mid_copy_in_place_of_another_gets_nothing(
    make_loop_world: Callable[..., LoopWorld], is_used: bool
) -> None:
    """P01 is torn away while it is claimed, or written to, and P02 mounted there: not a byte."""
    world = make_loop_world(primaries=["P01", "P02", "P03"], copies=["S01"])
    if is_used:
        ready_world(world)
    world.generate()
    world.put("1.g3")
    with below_the_mounts(world) as below:
        before = [world.snapshot(below)]
        if is_used:
            halted = HaltedPass(world, "openat", [world.disks["P01"] / ".incoming"])
        else:
            halted = HaltedPass(world, "renameat,renameat2")
        world.loops["P01"].lazy_unmount()
        world.loops["P02"].umount()
        world.loops["P02"].mount(at=world.disks["P01"])
        before.append(world.snapshot(world.disks["P01"]))
        assert halted.go_on() == 1
        assert world.waiting() == {"1.g3"}
        world.put("2.g3")
        world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
        world.run_pass(check=(0, 1))
        assert before == [world.snapshot(each.root) for each in before]
    assert world.waiting() == set()
    world.loops["P02"].umount()
    world.loops["P02"].mount(at=world.disks["P02"])
    world.loops["P01"].mount()
    world.put("3.g3")
    go_on(world)


# --- between two batches -------------------------------------------------------------------


@needs_strace
def test_between_two_batches_a_disk_can_be_unmounted(busy: LoopWorld) -> None:
    """Plain umount: busy while a batch is at it, free after; the next disk takes over."""
    halted = in_first_batch(busy)
    with pytest.raises(OSError, match="busy"):
        busy.loops["P01"].umount()
    with after_this_batch(busy, halted):
        assert busy.waiting() == NAMES - FIRST_BATCH
        for loop in busy.loops.values():
            loop.umount()
        for label in ("P02", "S01"):
            busy.loops[label].mount()
    halted.end(check=1)
    assert busy.waiting() == set()
    assert busy.archived("P02") == NAMES - FIRST_BATCH
    assert busy.archived("S01") == NAMES | {"seed.g3"}
    assert busy.notices() == {("disk-missing", "P01")}
    assert list(busy.disks["P01"].iterdir()) == []
    busy.loops["P01"].mount()
    go_on(busy)
    assert busy.archived("P01") == FIRST_BATCH | {"seed.g3"}


@needs_strace
def test_disks_swapped_between_two_batches_are_refused(busy: LoopWorld) -> None:
    """Who a disk is, is asked anew for every batch: no file goes to the wrong one."""
    halted = in_first_batch(busy)
    with after_this_batch(busy, halted):
        p01, p02 = busy.loops["P01"], busy.loops["P02"]
        for loop in (p01, p02):
            loop.umount()
        p01.mount(at=busy.disks["P02"])
        p02.mount(at=busy.disks["P01"])
        before = [busy.snapshot(busy.disks[label]) for label in ("P01", "P02")]
    halted.end(check=1)
    assert before == [busy.snapshot(each.root) for each in before]
    assert busy.waiting() == NAMES - FIRST_BATCH
    wrong = {("disk-wrong", "P01"), ("disk-wrong", "P02"), ("no-disk", "primary")}
    assert busy.notices() == wrong
    for loop in (p01, p02):
        loop.umount()
    p01.mount(at=busy.disks["P01"])
    p02.mount(at=busy.disks["P02"])
    go_on(busy)


@needs_strace
def test_a_disk_is_closed_and_unmounted_while_a_pass_runs(busy: LoopWorld) -> None:
    """``close P01`` gets its turn after the batch; its drive is free at once; P02 goes on."""
    halted = in_first_batch(busy)
    closing = waiting_command(busy, "close", "--yes", "P01")
    assert busy.disk_states()["P01"] == "active"
    halted.let_go()
    slip = answer(closing)
    busy.loops["P01"].umount()
    halted.end(check=0)
    assert "P01 is closed: a person closed it." in slip
    assert f"umount {busy.disks['P01']}" in slip
    assert "4 files" in slip  # the seed, and one batch: the second was not begun before us
    assert busy.waiting() == set()
    assert busy.archived("P02") == NAMES - FIRST_BATCH
    assert busy.disk_states() == {"P01": "closed", "P02": "active", "S01": "active"}
    assert busy.notices() == {("disk-closed", "P01")}
    assert list(busy.disks["P01"].iterdir()) == []


DISK_COMMANDS = {
    "hold": (["hold", "--yes", "P01", "--why", "it rattles"], "P01 is on hold", "active"),
    "lost": (["lost", "P01", "--why", "it fell"], "is lost: 4 copies", None),
    "forget": (["forget", "P03"], "P03 (ZTP03AA) was removed from the database", "active"),
}


@needs_strace
@pytest.mark.parametrize("what", DISK_COMMANDS)
def test_what_is_said_of_a_disk_while_a_pass_runs_holds_from_its_next_batch_on(
    make_loop_world: Callable[..., LoopWorld], what: str
) -> None:
    """It waits for the batch at work, and its disk may be unmounted as soon as it has answered."""
    busy = make_busy(make_loop_world, ["P01", "P02", "P03"])
    args, said, state = DISK_COMMANDS[what]
    halted = in_first_batch(busy)
    if what == "lost":  # refused of a disk that is mounted and responds
        busy.loops["P01"].lazy_unmount()
    waiting = waiting_command(busy, *args)
    halted.let_go()
    assert said in answer(waiting)
    if what != "forget":
        busy.loops["P01"].force_off()
        busy.spoil("P01", None, "it was taken away")
    is_torn = what == "lost"  # a disk that is away justifies no removal
    halted.end(check=1 if is_torn else 0)
    assert busy.waiting() == (FIRST_BATCH - {"0.g3"} if is_torn else set())
    assert busy.disk_states().get("P01") == state
    assert busy.archived("P02") == (set() if what == "forget" else NAMES - FIRST_BATCH)


@needs_strace
def test_two_commands_at_once_both_get_their_turns_while_a_pass_runs(busy: LoopWorld) -> None:
    """One after the other, each after a batch of the pass, which heeds both."""
    halted = in_first_batch(busy)
    first = waiting_command(busy, "hold", "--yes", "P01", "--why", "it rattles")
    second = waiting_command(busy, "pause", "--why", "the rack is open")
    halted.let_go()
    assert "P01 is on hold" in answer(first)
    assert "Paused until somebody resumes" in answer(second)
    halted.end(check=0)
    assert len(busy.waiting()) in (BATCH_FILES, 2 * BATCH_FILES)
    busy.run_pass("resume", check=0)
    busy.run_pass(check=0)
    assert busy.waiting() == set()
    assert busy.archived("P01") == FIRST_BATCH | {"seed.g3"}
    assert busy.archived("P02") == NAMES - FIRST_BATCH


def test_of_two_people_who_close_one_disk_the_second_is_told(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """One of the commands closes it; the other one finds it closed, and changes nothing."""
    world = ready_world(make_loop_world(primaries=["P01"], copies=["S01"]))
    with locks.between_batches(world.db_path):
        both = [command(world, "close", "--yes", "P01") for _ in range(2)]
        for process in both:
            until(lambda pid=process.pid: waits_for_a_lock(pid), "it waits for its turn")
    said = {process.wait(timeout=GONE_S): process.communicate() for process in both}
    assert said.keys() == {0, 2}
    assert "P01 is closed: a person closed it." in said[0][0]
    assert "P01 is closed: only a disk that is active can be closed" in said[2][1]
    assert "Nothing was changed" in said[2][1]
    events = world.sql(
        "SELECT event FROM disk_events JOIN disks ON disks.id = disk_id "
        "WHERE label = 'P01' AND event IN ('closed', 'sealed')"
    )
    assert [row["event"] for row in events] == ["closed", "sealed"]


# --- pause, and passes at once -----------------------------------------------------------------


@needs_strace
def test_pause_stops_a_running_pass_after_its_batch_and_resume_lets_the_next_one_go_on(
    busy: LoopWorld,
) -> None:
    """While it is paused every disk may be unmounted, and no pass touches one."""
    halted = in_first_batch(busy)
    pausing = waiting_command(busy, "pause", "--why", "the rack is open", "--for", "4h")
    assert busy.sql("SELECT 1 FROM notices") == []
    halted.let_go()
    assert "any may be unmounted" in answer(pausing)
    for loop in busy.loops.values():
        loop.umount()
    halted.end(check=0)
    assert busy.waiting() == NAMES - FIRST_BATCH
    assert busy.notices() == {("paused", "archive")}
    with below_the_mounts(busy) as below:
        before = busy.snapshot(below)
        busy.run_pass(check=0)
        assert before.differences(busy.snapshot(below)) == []
    assert busy.waiting() == NAMES - FIRST_BATCH
    assert busy.notices() == {("paused", "archive")}
    for loop in busy.loops.values():
        loop.mount()
    assert "The next pass works again" in busy.run_pass("resume", check=0).out
    go_on(busy)
    assert busy.archived("P01") == busy.archived("S01") == NAMES | {"seed.g3"}


@needs_strace
def test_resume_in_a_running_pass_is_harmless(busy: LoopWorld) -> None:
    """It says that nothing was paused, and the pass ends as it would have."""
    halted = in_first_batch(busy)
    resuming = waiting_command(busy, "resume")
    halted.let_go()
    assert "It was not paused" in answer(resuming)
    halted.end(check=0)
    assert busy.waiting() == set()


@needs_strace
def test_a_second_pass_at_once_does_nothing_and_ends_with_0(busy: LoopWorld) -> None:
    """Cron starts one every minute: it neither waits, nor says anything, nor touches a thing."""
    halted = in_first_batch(busy)
    rows = busy.sql("SELECT * FROM passes")
    with_us = [*busy.disks.values(), busy.buffer]
    before = [busy.snapshot(place) for place in with_us]
    run = busy.run_pass(check=0, timeout_s=20)
    assert (run.out, run.err) == ("", "")
    assert before == [busy.snapshot(place) for place in with_us]
    assert busy.sql("SELECT * FROM passes") == rows
    assert halted.go_on() == 0
    assert busy.waiting() == set()
    outcomes = busy.sql("SELECT outcome, files_archived FROM passes ORDER BY id")
    assert [tuple(row) for row in outcomes] == [("done", 1), ("done", 9)]


@needs_strace
def test_looking_needs_no_turn(busy: LoopWorld) -> None:
    """``status``, ``check`` and a dry run answer while a batch runs."""
    halted = in_first_batch(busy)
    assert busy.status("--json", check=0).json()["buffer"]["finished_files"] == 8
    busy.run_pass("check", check=0, timeout_s=20)
    assert "would copy 3.g3" in busy.run_pass("--dry-run", check=0, timeout_s=20).out
    assert halted.go_on() == 0
    assert busy.waiting() == set()


def test_a_pass_waits_for_the_command_that_has_the_turn(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """As long as a person's command works no disk is touched; then the pass does its work."""
    world = ready_world(make_loop_world(primaries=["P01"], copies=["S01"]))
    world.put("a.g3")
    with locks.between_batches(world.db_path):
        process = world.start("data_manager.py")
        until(lambda: waits_for_a_lock(process.pid), "the pass waits for its turn")
        for loop in world.loops.values():
            loop.umount()
            loop.mount()
        assert world.waiting() == {"a.g3"}
    assert process.wait(timeout=GONE_S) == 0
    world.unfinished = False
    assert world.waiting() == set()
