"""check-content: the site's own program reads each archived file once, and people are told."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.helpers.world import World

OBS = "fullrate/RCW38/8"
VERIFY = Path(sys.executable).with_name("spt3g-verify")


def results(world: World) -> dict[str, str]:
    rows = world.sql("SELECT name, result FROM content_checks JOIN files ON files.id = file_id")
    return {row["name"].rpartition("/")[2]: row["result"] for row in rows}


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "check"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"g3: {path} {{path}}"


def archive(world: World, check: str, *names: str) -> None:
    world.configure(CheckContent=check)
    for name in names:
        world.put(f"{OBS}/{name}")
    world.generate()
    world.run_pass(check=0)


@pytest.mark.skipif(not VERIFY.exists(), reason="spt3g has no wheel for this machine")
def test_the_telescope_s_own_reader_finds_what_is_broken(world: World) -> None:
    """Cut off, half of zeros, one flipped bit, empty: each is named; the good one is not."""
    core = pytest.importorskip("spt3g.core")
    good = world.buffer / OBS / "good.g3"
    good.parent.mkdir(parents=True)
    writer = core.G3Writer(str(good))
    for number in range(50):
        frame = core.G3Frame(core.G3FrameType.Scan)
        frame["Number"] = number
        frame["Raw"] = core.G3VectorDouble([number / 7] * 1000)
        writer(frame)
    del writer
    content = good.read_bytes()
    middle = len(content) // 2
    flipped = bytearray(content)
    flipped[middle] ^= 1
    world.ledger.saw(f"{OBS}/good.g3")
    world.put(f"{OBS}/truncated.g3", content[: middle + 13])
    world.put(f"{OBS}/zeros.g3", content[: middle + 13] + bytes(middle - 13))
    world.put(f"{OBS}/flipped.g3", bytes(flipped))
    world.put(f"{OBS}/empty.g3", b"")
    archive(world, f"g3: {VERIFY} {{path}}")
    printed = world.run_pass("check-content", check=1).out
    bad = {"truncated.g3", "zeros.g3", "flipped.g3", "empty.g3"}
    assert results(world) == {"good.g3": "ok"} | dict.fromkeys(bad, "suspect")
    assert {key for kind, key in world.notices() if kind == "content-suspect"} == {
        f"{OBS}/{name}" for name in bad
    }
    assert f"{OBS}/empty.g3: SUSPECT: it is empty" in printed
    assert "Content: 1 ok, 4 suspect, 0 could not be checked." in printed
    assert "Content    1 ok, 4 suspect, 0 not checked" in world.status().out
    located = world.run_pass("locate", "good.g3", "--json", check=0).json()
    assert located[0]["content"] == "ok"


def test_a_file_is_read_once_and_a_name_is_never_a_command(world: World, tmp_path: Path) -> None:
    """No shell sees the path; files of other extensions are not checked."""
    check = program(tmp_path, f'echo "$1" >> {tmp_path}/asked')
    world.configure(Extension="g3, dat")
    archive(world, check, "a;touch x.g3", "b $(touch y).g3", "c.dat")
    world.run_pass("check-content", check=0)
    world.run_pass("check-content", check=0)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert sorted(asked) == [str(world.data("P01") / OBS / name) for name in
                             ("a;touch x.g3", "b $(touch y).g3")]  # fmt: skip


def test_a_check_that_can_not_run_accuses_no_file(world: World, tmp_path: Path) -> None:
    """It is not there, or is killed: not checked, and tried again."""
    archive(world, f"g3: {tmp_path}/none {{path}}", "0.g3")
    assert "No such file" in world.run_pass("check-content", check=1).out
    assert results(world) == {"0.g3": "not checked"}
    world.configure(CheckContent=program(tmp_path, "kill -9 $$"))
    world.run_pass("check-content", check=1)
    assert results(world) == {"0.g3": "not checked"}
    assert world.notices() == set()
    world.configure(CheckContent=program(tmp_path, "exit 0"))
    world.run_pass("check-content", check=0)
    assert results(world) == {"0.g3": "ok"}


def test_a_check_that_hangs_ends_with_its_time(world: World, tmp_path: Path) -> None:
    """Its children too."""
    archive(world, program(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid; wait"), "0.g3")
    begun_s = time.monotonic()
    world.run_pass("check-content", "--for", "2s", check=1)
    assert time.monotonic() - begun_s < 60
    assert results(world) == {"0.g3": "not checked"}
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_without_a_check_it_is_wrong_usage(world: World) -> None:
    world.generate()
    assert "CheckContent names no check" in world.run_pass("check-content", check=2).err


def test_a_suspect_file_is_read_again_once_a_verification_of_it_would_be_due(
    world: World, tmp_path: Path
) -> None:
    """So a check that was broken itself, and is fixed, ends the notices that it caused."""
    archive(world, program(tmp_path, "exit 1"), "0.g3")
    world.run_pass("check-content", check=1)
    assert results(world) == {"0.g3": "suspect"}
    world.configure(CheckContent=program(tmp_path, "exit 0"))
    world.run_pass("check-content", check=0)
    assert results(world) == {"0.g3": "suspect"}
    world.sql("UPDATE content_checks SET checked_at = '2026-01-01T00:00:00Z'")
    world.run_pass("check-content", check=0)
    assert results(world) == {"0.g3": "ok"}
    assert world.notices() == set()
