"""A day at the telescope: raw time points in one tree, observations in others, readers by links."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.helpers.world import World

RAW = "bolodata"


def rsync(world: World, name: str) -> None:
    """A transfer as rsync does it: a hidden name, the old time of the file, then a rename."""
    path = world.buffer / RAW / name
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{name}.x7Qp2d")
    part.write_bytes(name.encode() * 1000)
    os.utime(part, (1_700_000_000, 1_700_000_000))
    part.rename(path)
    world.ledger.saw(f"{RAW}/{name}")


def test_a_day_of_observations(world: World, tmp_path: Path) -> None:
    """The raw tree is untouched; each observation is archived once, has a link that leads to a good
    copy, and leaves no directory."""
    view = tmp_path / "view"
    view.mkdir()
    world.configure(
        Include="fullrate, downsampled", RemoveEmptyDirectories="1 s", ViewLocation=str(view)
    )
    for tree in ("fullrate", "downsampled"):
        (world.buffer / tree).mkdir()
    world.generate()
    names = set()
    for obsid in (80296951, 80300000):
        rsync(world, f"20190719_{obsid % 1000:06}.g3")
        for tree in ("fullrate", "downsampled"):
            of_one = {f"{tree}/RCW38/{obsid}/{number:04}.g3" for number in range(3)}
            for name in of_one:
                world.put(name, 2000)
            names |= of_one
        (world.buffer / RAW / ".~tmp~").mkdir(exist_ok=True)
        world.run_pass(check=0)
    raw = world.snapshot(world.buffer / RAW)
    for _ in range(2):
        time.sleep(1.1)
        world.run_pass(check=0)
    assert world.archived("P01") == world.archived("S01") == names
    assert {str(path.relative_to(world.buffer)) for path in world.buffer.rglob("*")} == {
        ".poledata-buffer", "bolodata", "bolodata/.~tmp~", "bolodata/20190719_000951.g3",
        "bolodata/20190719_000000.g3", "downsampled", "fullrate",
    }  # fmt: skip
    assert world.snapshot(world.buffer / RAW) == raw
    assert world.notices() == set()
    for name in names:
        assert os.readlink(view / name) == str(world.data("P01") / name)
        assert (view / name).read_bytes() == (world.data("S01") / name).read_bytes()
