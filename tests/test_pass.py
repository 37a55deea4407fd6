"""One pass, end to end, by the real script with cron's environment."""

from __future__ import annotations

from tests.world import World


def test_every_settled_file_is_archived_twice_and_leaves_the_buffer(world: World) -> None:
    """A pass puts each finished file on a primary and a copy disk and removes it."""
    names = {"fullrate/RCW38/80296951/0000.g3", "downsampled/RCW38/80296951/0000.g3", "a.g3"}
    for number, name in enumerate(sorted(names)):
        world.put(name, 5_000_000 + number)
    world.generate()
    run = world.run_pass(check=0)
    assert (run.out, run.err) == ("", "")
    assert world.waiting() == set()
    assert world.archived("P01") == world.archived("S01") == names
    assert world.archived("P02") == world.archived("S02") == set()


def test_real_disks_are_filled_the_same_way(loop_world: World) -> None:
    """On loop-mounted XFS and ext4, copies are read back with O_DIRECT."""
    loop_world.put("fullrate/RCW38/80296951/0000.g3", 5_000_001)
    loop_world.put("fullrate/RCW38/80296951/0001.g3", 0)
    loop_world.generate()
    loop_world.run_pass(check=0)
    assert loop_world.waiting() == set()
    assert [tuple(r) for r in loop_world.sql("SELECT DISTINCT verified_by FROM copies")] == [
        ("direct",)
    ]
    assert loop_world.disk_states() == {
        "P01": "active",
        "P02": "spare",
        "S01": "active",
        "S02": "spare",
    }
