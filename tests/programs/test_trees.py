"""Include, Exclude, hidden names and empty directories: what a pass leaves alone, and what goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from poledata.archive import buffer
from poledata.archive.selection import Selection
from tests.helpers.world import World

OBS = "fullrate/RCW38/80296951"


def test_only_the_trees_that_are_named_are_archived(world: World) -> None:
    """The raw time points next to them are untouched: no name, no content, no time."""
    world.configure(Include="fullrate, down*/RCW38", Exclude="fullrate/test")
    kept = ["bolodata/20190719_111551.g3", "fullrate/test/0.g3", "downsampled/saturn/1/0.g3"]
    for name in (*kept, f"{OBS}/0000.g3", "downsampled/RCW38/8/0.g3"):
        world.put(name)
    world.generate()
    before = world.snapshot(world.buffer / "bolodata")
    world.run_pass(check=0)
    assert world.archived("P01") == {f"{OBS}/0000.g3", "downsampled/RCW38/8/0.g3"}
    assert world.waiting() == set(kept)
    assert world.snapshot(world.buffer / "bolodata") == before
    seen = world.status("--json").json()["buffer"]
    assert (seen["finished_files"], seen["left_out"], seen["fault"]) == (0, 3, None)
    assert ", 3 left out by Include and Exclude" in world.status().out


def test_a_tree_that_is_left_alone_is_not_even_listed(world: World) -> None:
    """A link, a mount or a directory without rights in it is nobody's business here."""
    world.configure(Include="fullrate")
    raw = world.buffer / "bolodata"
    raw.mkdir()
    world.put(f"{OBS}/0.g3")
    world.generate()
    raw.chmod(0)
    world.run_pass(check=0)
    raw.chmod(0o755)
    assert "bolodata" not in world.log()
    assert world.sql("SELECT name FROM pending") == []


def test_hidden_files_are_counted_and_never_archived(world: World) -> None:
    """What rsync has not finished; on the next pass it has, by a rename."""
    for name in (
        ".~tmp~/0.g3",
        f"{OBS}/.rsync-partial/1.g3",
        f"{OBS}/.2.g3",
        f"{OBS}/.3.g3.x7Qp2d",
    ):
        world.put(name)
    world.put(f"{OBS}/0.g3")
    world.generate()
    world.run_pass(check=0)
    assert world.archived("P01") == {f"{OBS}/0.g3"}
    assert world.status("--json").json()["buffer"]["hidden_files"] == 4
    assert ", 4 hidden files" in world.status().out
    assert world.notices() == set()
    world.ledger.rename(f"{OBS}/.3.g3.x7Qp2d", f"{OBS}/3.g3")
    world.run_pass(check=0)
    assert world.archived("P01") == {f"{OBS}/0.g3", f"{OBS}/3.g3"}


def test_a_hidden_file_of_yesterday_is_found(tmp_path: Path) -> None:
    """Only with the right ending; a day later, because nobody can set a ctime back."""
    for name in (".a/x.g3", ".b.g3", ".c.g3.Xy12", "d.g3", ".e.g3.removing"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        now_s = time.time()
        young = buffer.scan(fd, Selection((".g3",)), 1, now_s + 2, 10)
        old = buffer.scan(fd, Selection((".g3",)), 1, now_s + 90_000, 10)
    finally:
        os.close(fd)
    assert (young.hidden_files, young.old_hidden_files) == (3, 0)
    assert (old.hidden_files, old.old_hidden_files, sorted(old.old_hidden)) == (
        3, 2, [".a/x.g3", ".b.g3"],
    )  # fmt: skip
    assert {each.name for each in old.waiting} == {"d.g3", "e.g3"}


def test_a_failed_file_is_forgotten_once_its_tree_is_left_alone(world: World) -> None:
    """Its notice ends, and no pass ends with 1 because of it."""
    world.put("raw/bad%.g3")
    world.generate()
    world.run_pass(check=1)
    assert world.notices() == {("bad-name", "raw/bad%.g3")}
    world.configure(Exclude="raw")
    world.run_pass(check=0)
    assert world.notices() == set()
    assert world.sql("SELECT name FROM pending") == []


def test_a_name_taken_away_in_a_tree_that_is_then_left_alone_comes_back(world: World) -> None:
    """The pass was killed between the two steps of a removal, and Exclude was changed."""
    name = "raw/0.g3"
    world.put(name)
    world.generate()
    world.run_pass(check=0)
    world.sql("UPDATE files SET removed_from_buffer_at = NULL")
    world.put(name)
    os.rename(world.buffer / name, world.buffer / "raw/.0.g3.removing")
    world.configure(Exclude="raw")
    world.run_pass(check=0)
    assert world.waiting() == {name}


def test_check_reports_a_tree_that_is_not_there(world: World) -> None:
    """A misspelled tree would silently archive nothing."""
    world.configure(Include="fullrate, downsample")
    world.put(f"{OBS}/0.g3")
    world.generate()
    output = world.run_pass("check", check=1).out
    assert f"Include: nothing in {world.buffer} is called downsample; is it right?" in output
    (world.buffer / "downsample").mkdir()
    assert "Include: nothing" not in world.run_pass("check").out


# --- empty directories ----------------------------------------------------------------------


def test_old_empty_directories_go_and_roots_stay(world: World) -> None:
    """From below, one level a pass: what held an empty directory has just changed."""
    world.configure(Include="fullrate, downsampled", RemoveEmptyDirectories="1 s")
    for name in ("fullrate/RCW38/1/a", "downsampled", "raw/empty", "fullrate/.x", "fullrate/full"):
        (world.buffer / name).mkdir(parents=True)
    (world.buffer / "fullrate/full/notes.txt").write_text("not data")
    (world.buffer / "fullrate/link").symlink_to(world.buffer / "raw/empty")
    world.generate()
    for gone in ("fullrate/RCW38/1/a", "fullrate/RCW38/1", "fullrate/RCW38"):
        time.sleep(1.1)
        world.run_pass(check=0)
        assert not (world.buffer / gone).exists()
        assert (world.buffer / gone).parent.exists()
    time.sleep(1.1)
    world.run_pass(check=0)
    left = {str(path.relative_to(world.buffer)) for path in world.buffer.rglob("*")}
    assert left - {".poledata-buffer"} == {
        "downsampled", "fullrate", "fullrate/.x", "fullrate/full", "fullrate/full/notes.txt",
        "fullrate/link", "raw", "raw/empty",
    }  # fmt: skip


def test_a_directory_that_has_just_changed_stays(world: World) -> None:
    """So does one while the key has its default; a dry run removes none."""
    (world.buffer / "obs").mkdir()
    os.utime(world.buffer / "obs", (1, 1))  # its ctime is of now
    world.generate()
    world.run_pass(check=0)
    world.configure(RemoveEmptyDirectories="1 h")
    world.run_pass(check=0)
    assert (world.buffer / "obs").is_dir()
    world.configure(RemoveEmptyDirectories="1 s")
    time.sleep(1.1)
    world.run_pass("--dry-run", check=0)
    assert (world.buffer / "obs").is_dir()
    world.run_pass(check=0)
    assert not (world.buffer / "obs").exists()
