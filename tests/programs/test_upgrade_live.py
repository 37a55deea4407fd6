"""A station of release 1.0.0 is upgraded while it is in use, and can go back."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from poledata.settings import KEYS
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.world import MARKER, REPO, World

RELEASE_1_0_0 = "eea7912"
# What a key of a later release is set to where the station needs it; 1.0.0 knows none of them.
NEW_KEYS = {"AcceptUnidentifiedDrives": "yes"}
BEFORE, WAITS, ODD = ("a/0000.g3", "a/0001.g3"), "a/waits.g3", "100%.g3"


@pytest.fixture
def release_1_0_0(tmp_path: Path) -> Path:
    """The program as it was released, from the history of this repository."""
    command = ["git", "-C", str(REPO), "archive", RELEASE_1_0_0]
    ran = subprocess.run(command, capture_output=True, check=False)
    if ran.returncode:
        pytest.fail(
            f"This checkout does not have commit {RELEASE_1_0_0} (release 1.0.0), from which a "
            f"station is upgraded: {ran.stderr.decode().strip()}. Get it: git fetch --unshallow"
        )
    place = tmp_path / "release-1.0.0"
    with tarfile.open(fileobj=BytesIO(ran.stdout)) as archive:
        archive.extractall(place)
    return place


def use(world: World, release: Path) -> None:
    """Run this release from now on, with a configuration that it understands."""
    world.release = release
    known = {key.name for key in KEYS} if release == REPO else set()
    world.configure(**{key: text if key in known else None for key, text in NEW_KEYS.items()})


def site_of_1_0_0(world: World, release: Path) -> None:
    """Archived files; one that waits for a copy disk; one that failed."""
    use(world, release)
    world.generate()
    for name in BEFORE:
        world.put(name, 5000)
    world.run_pass(check=0)
    assert world.waiting() == set()
    hold(world, True)
    world.put(WAITS, 3000)
    world.put(ODD, 10)
    world.run_pass(check=1)
    hold(world, False)
    assert world.waiting() == {WAITS, ODD} and not (world.buffer / MARKER).exists()
    assert version(world) == 2


def hold(world: World, is_held: bool) -> None:
    """Take every copy disk out of use, or give it back."""
    for label in ("S01", "S02"):
        if is_held:
            world.run_pass("hold", label, "--why", "work at the rack", check=0)
        else:
            world.run_pass("unhold", label, check=0)


def version(world: World) -> int:
    return int(world.sql("PRAGMA user_version")[0][0])


def names(world: World) -> set[str]:
    return {row["name"] for row in world.sql("SELECT name FROM files WHERE archived_at NOT NULL")}


def live(world: World, old: Path) -> None:
    """Upgrade, run passes, go back, run passes, complete the database, upgrade again."""
    site_of_1_0_0(world, old)

    use(world, REPO)
    world.put("b/new.g3", 4000)
    world.run_pass(check=1)  # ODD
    assert version(world) > 2 and (world.buffer / MARKER).is_file()
    assert names(world) == {*BEFORE, WAITS, "b/new.g3"} and world.waiting() == {ODD}
    world.check()

    use(world, old)
    backup = world.db_path.with_name(f"{world.db_path.name}.version-2")
    world.db_path.write_bytes(backup.read_bytes())
    assert version(world) == 2
    world.put("c/rolled_back.g3", 2000)
    world.run_pass(check=1)
    assert names(world) == {*BEFORE, "c/rolled_back.g3"} and world.waiting() == {ODD}
    world.run("generate_db.py", "--from-disks", check=0)
    everything = {*BEFORE, WAITS, "b/new.g3", "c/rolled_back.g3"}
    assert names(world) == everything
    world.check()

    use(world, REPO)
    world.put("d/again.g3", 1000)
    world.run_pass(check=1)
    assert names(world) == {*everything, "d/again.g3"} and world.waiting() == {ODD}
    rows = world.sql("SELECT why FROM buffers")
    assert [row["why"] for row in rows] == ["it had its marker when this database first saw it"]
    (world.buffer / ODD).rename(world.buffer / "100.g3")
    world.ledger.withdraw(ODD, "renamed")
    world.ledger.saw("100.g3")
    world.run_pass(check=0)
    assert world.waiting() == set() and names(world) >= {*everything, "100.g3"}


def test_a_station_of_1_0_0_is_upgraded_and_goes_back_without_losing_a_file(
    world: World, release_1_0_0: Path
) -> None:
    """Database, disks and configuration made by that release; the backup is what one goes back
    to, and what was archived meanwhile is found on the disks again."""
    live(world, release_1_0_0)


@pytest.mark.root
def test_the_same_on_real_file_systems(loop_world: LoopWorld, release_1_0_0: Path) -> None:
    """XFS and ext4 on drives of their own."""
    live(loop_world, release_1_0_0)


def test_an_upgrade_while_the_buffer_is_away_forgets_nothing(
    world: World, release_1_0_0: Path
) -> None:
    """The new release waits for the buffer with the files that 1.0.0 knew."""
    site_of_1_0_0(world, release_1_0_0)
    use(world, REPO)
    aside = world.buffer.rename(world.root / "aside")
    world.buffer.mkdir()
    world.run_pass(check=1)
    assert ("buffer-wrong", "buffer") in world.notices()
    assert [row["name"] for row in world.sql("SELECT name FROM pending")] == [ODD]
    assert not (world.buffer / MARKER).exists()
    world.buffer.rmdir()
    aside.rename(world.buffer)
    world.run_pass(check=1)
    assert names(world) == {*BEFORE, WAITS}
    assert ("buffer-wrong", "buffer") not in world.notices()
