"""ViewLocation: one path to every archived file, and nothing else in that directory is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.stations import notice_text
from tests.helpers.world import World

NAMES = ("fullrate/RCW38/8/0000.g3", "fullrate/RCW38/9/0000.g3")


@pytest.fixture
def view(world: World, tmp_path: Path) -> Path:
    place = tmp_path / "view"
    place.mkdir()
    world.configure(ViewLocation=str(place))
    for name in NAMES:
        world.put(name)
    world.generate()
    world.run_pass(check=0)
    return place


def links(view: Path) -> dict[str, str]:
    """Each link, and where it leads."""
    found = (path for path in view.rglob("*") if path.is_symlink())
    return {str(path.relative_to(view)): os.readlink(path) for path in found}


def to(world: World, label: str) -> dict[str, str]:
    return {name: str(world.data(label) / name) for name in NAMES}


def test_every_archived_file_has_a_link_to_its_primary_copy(world: World, view: Path) -> None:
    """It reads as the file, by the name that it had in the buffer."""
    assert links(view) == to(world, "P01")
    assert (view / NAMES[0]).read_bytes() == (world.data("S01") / NAMES[0]).read_bytes()


def test_links_move_to_the_other_copy_and_back_or_go(world: World, view: Path) -> None:
    """With a hold; if no copy can be read, with their directories too."""
    world.run_pass("hold", "P01", "--why", "a test", check=0)
    world.run_pass()
    assert links(view) == to(world, "S01")
    world.run_pass("hold", "S01", "--why", "a test", check=0)
    world.run_pass()
    assert links(view) == {}
    assert [path.name for path in view.iterdir()] == ["poledata-view.json"]
    world.run_pass("unhold", "P01", check=0)
    world.run_pass()
    assert links(view) == to(world, "P01")


def test_a_deleted_tree_comes_back(world: World, view: Path) -> None:
    for entry in view.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    world.run_pass(check=0)
    assert links(view) == to(world, "P01")


def test_nothing_but_its_own_links_is_touched(world: World, view: Path) -> None:
    """Somebody's file or link at a name of the archive; somebody's files next to the links."""
    own, other = view / NAMES[0], view / NAMES[1]
    own.unlink()
    own.write_text("mine")
    other.unlink()
    other.symlink_to("/etc/hostname")
    (view / "fullrate/notes.txt").write_text("mine")
    (view / "poledata-view.json").unlink()
    world.run_pass("hold", "P01", "--why", "a test", check=0)
    world.run_pass()
    assert own.read_text() == (view / "fullrate/notes.txt").read_text() == "mine"
    assert os.readlink(other) == "/etc/hostname"


def test_a_directory_of_the_tree_that_became_a_link_leads_nowhere_else(
    world: World, view: Path, tmp_path: Path
) -> None:
    """No link is made or removed through it."""
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(view / "fullrate")
    (view / "fullrate").symlink_to(tmp_path / "elsewhere")
    (view / "poledata-view.json").unlink()
    world.run_pass(check=0)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_idle_pass_looks_at_no_link(world: World, view: Path) -> None:
    """Its stamp is not rewritten either; new files get their links at once."""
    world.sql("UPDATE files SET archived_at = '2026-01-01T00:00:00Z'")
    (view / NAMES[0]).unlink()
    before = os.stat(view / "poledata-view.json").st_mtime_ns
    world.run_pass(check=0)
    assert os.stat(view / "poledata-view.json").st_mtime_ns == before
    assert links(view).keys() == {NAMES[1]}
    world.put("fullrate/RCW38/10/0000.g3")
    world.run_pass(check=0)
    assert "fullrate/RCW38/10/0000.g3" in links(view)


def test_a_directory_that_is_not_there_stops_nothing(world: World, tmp_path: Path) -> None:
    """A notice names it."""
    world.configure(ViewLocation=str(tmp_path / "none"))
    world.put(NAMES[0])
    world.generate()
    world.run_pass()
    assert world.archived("P01") == {NAMES[0]}
    assert ("config-error", "ViewLocation") in world.notices()


def test_a_link_that_can_not_be_made_has_a_notice(world: World, view: Path) -> None:
    """Until the next look at all files; what is in its way is never touched."""
    (view / "other").write_text("mine")
    world.put("other/0000.g3")
    for _ in range(2):
        world.run_pass(check=0)
        assert ("config-error", "ViewLocation") in world.notices()
    assert "other/0000.g3" in notice_text(world, "config-error", "ViewLocation")
    assert (view / "other").read_text() == "mine"
    (view / "other").unlink()
    (view / "poledata-view.json").unlink()
    world.run_pass(check=0)
    assert world.notices() == set() and "other/0000.g3" in links(view)
