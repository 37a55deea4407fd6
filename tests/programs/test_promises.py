"""Ways in which a file, or a promise, was once lost; each stays shut."""

from __future__ import annotations

import os
import subprocess

from tests.helpers.loopdisks import LoopWorld
from tests.helpers.rack import rot
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"


def test_nothing_is_removed_on_the_word_of_an_old_reading(world: World) -> None:
    """A file that comes again meets copies that rotted since: they are read, and made anew."""
    entry = world.put(NAME, 5000)
    content = (world.buffer / NAME).read_bytes()
    world.generate()
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        rot(world.data(label) / NAME)
        world.spoil(label, NAME, "rot")
    (world.buffer / NAME).write_bytes(content)
    os.utime(world.buffer / NAME, ns=(0, 1_500_000_000_000_000_000))
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert ("copy-damaged", NAME) in world.notices()
    states = [row["state"] for row in world.sql("SELECT state FROM copies")]
    assert sorted(states) == ["damaged", "good"]  # the second is read only if the first is good

    for code in (1, 0):  # the first is made again, then the second is read
        world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
        world.run_pass(check=code)
    assert world.waiting() == set()
    for label in ("P01", "S01"):
        assert world.manifest(label)[NAME] == entry.sha512
        assert (world.data(label) / NAME).read_bytes() == content


def test_another_file_system_below_the_buffer_is_left_alone(loop_world: LoopWorld) -> None:
    """An archive disk that somebody mounts in the buffer, to look at it, is not eaten."""
    loop_world.put("x/1.g3", 3000)
    loop_world.generate()
    loop_world.run_pass(check=0)
    loop_world.run_pass("close", "--yes", "P01", check=0)
    below = loop_world.buffer / "look"
    below.mkdir()
    loop_world.loops["P01"].umount()
    loop_world.loops["P01"].mount(at=below)
    before = loop_world.snapshot(below)
    try:
        loop_world.put("y/2.g3", 3000)
        loop_world.run_pass(check=1)
        assert before.differences(loop_world.snapshot(below)) == []
        assert not (loop_world.buffer / "y/2.g3").exists()
        (row,) = loop_world.sql("SELECT name, last_error FROM pending")
        assert row["name"] == "look/"
        assert "another file system is mounted here" in row["last_error"]
    finally:
        subprocess.run(["umount", below], check=True)
        loop_world.loops["P01"].mount(at=loop_world.disks["P01"])
    loop_world.run_pass(check=0)


def test_a_directory_bound_into_the_buffer_is_left_alone(loop_world: LoopWorld) -> None:
    """Also where it is of a file system that a scan could not tell by its device."""
    loop_world.put("x/1.g3", 3000)
    loop_world.generate()
    loop_world.run_pass(check=0)
    below = loop_world.buffer / "old"
    below.mkdir()
    subprocess.run(["mount", "--bind", loop_world.data("S01"), below], check=True)
    try:
        loop_world.run_pass(check=1)
        assert (below / "x/1.g3").exists()
    finally:
        subprocess.run(["umount", below], check=True)
    loop_world.run_pass(check=0)


def test_nothing_is_built_on_a_damaged_manifest(world: World) -> None:
    """Zeros at its end, as after a power cut, are cut off however many they are."""
    world.put("1.g3")
    world.generate()
    world.run_pass(check=0)
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    with manifest.open("ab") as out:
        out.write(bytes(200_000))
    world.put("2.g3")
    world.run_pass(check=0)
    assert world.manifest("P01").keys() == {"1.g3", "2.g3"}


def test_a_manifest_that_ends_with_something_else_is_refused(world: World) -> None:
    """A person is told, the next disk takes the files, and nothing is appended."""
    world.put("1.g3")
    world.generate()
    world.run_pass(check=0)
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + b"what is this?\n")
    world.put("2.g3")
    world.run_pass(check=1)
    assert manifest.read_bytes() == whole + b"what is this?\n"
    assert ("disk-wrong", "P01") in world.notices()
    assert world.archived("P02") == {"2.g3"}
    manifest.write_bytes(whole)


def test_a_copy_that_lost_its_line_is_told_by_verify(world: World) -> None:
    """A disk whose manifest was cut in the middle can't be checked by those who receive it."""
    world.put("1.g3")
    world.put("2.g3")
    world.generate()
    world.run_pass(check=0)
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.splitlines(keepends=True)[0])
    run = world.run_pass("verify", "P01", check=1)
    assert "P01: UNLISTED 2.g3" in run.out
    manifest.write_bytes(whole)
    world.run_pass("verify", "P01", check=0)


def test_a_retry_set_by_a_wrong_clock_is_tried(world: World) -> None:
    """No file waits for years because the clock was once ahead."""
    world.put("a.g3")
    world.generate()
    target = world.disks["P01"] / "data"
    world.run_pass(check=0)
    (target / "b.g3").mkdir()
    world.put("b.g3")
    world.run_pass(check=1)
    (target / "b.g3").rmdir()
    world.sql("UPDATE pending SET next_try_at = '2099-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_the_packing_list_of_an_earlier_life_is_kept(world: World) -> None:
    """A drive that came back wiped is closed again: both lists stand."""
    world.put("1.g3")
    world.generate()
    world.run_pass(check=0)
    world.run_pass("close", "--yes", "P01", check=0)
    lists = world.db_path.parent / "packing-lists"
    (first,) = (path.read_bytes() for path in lists.iterdir())
    world.run_pass("lost", "P01", "--why", "wiped", check=0)
    world.spoil("P01", None, "wiped")
    subprocess.run(["rm", "-r", world.disks["P01"]], check=True)
    world.disks["P01"].mkdir()
    world.generate("--returned")
    world.put("2.g3")
    world.run_pass(check=0)
    world.run_pass("close", "--yes", "P01", check=0)
    kept = sorted(path.read_bytes() for path in lists.iterdir())
    assert len(kept) == 2 and first in kept


def test_dead_channels_never_stop_the_archive(world: World) -> None:
    """No mail server, no web server, a pager that fails: files are archived, disks are closed,
    and what could not be said is noted for the next try."""
    dead = {
        "POLE_NOTIFY_URLS": "json://127.0.0.1:1/x mailto://127.0.0.1:1/?from=a@b.cd&to=e@f.gh",
        "POLE_PAGER_COMMAND": "false",
        "POLE_HEARTBEAT_COMMAND": "false",
    }
    names = {world.put(f"{number}.g3", 2000).name for number in range(3)}
    world.put("per%cent.g3")  # a notice
    world.generate()
    world.run_pass(check=1, env=dead)
    assert world.waiting() == {"per%cent.g3"}
    assert world.archived("P01") == world.archived("S01") == names
    world.run_pass("close", "--yes", "P01", check=0, env=dead)
    assert world.disk_states()["P01"] == "closed"
    assert "could not be sent" in world.log()
    rows = world.sql("SELECT sent_at FROM deliveries WHERE attempts > 0")
    assert rows and all(row["sent_at"] is None for row in rows)
