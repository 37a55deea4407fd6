"""Closing a disk: what is sealed is a bag that anybody can check, and it stays as it is.

The bag is judged by programs that know nothing of this one: the Library of Congress's
bagit.py, GNU and busybox sha512sum.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.helpers.halted import needs_strace, strace
from tests.helpers.invariants import Snapshot
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.world import Run, World

BAGIT = Path(sys.executable).with_name("bagit.py")
NAMES = ("z/RCW38/80296951/0000.g3", "a/0000.g3", "a.g3", "with blank/ü.g3", "a/deep/er/0001.g3")


def close(world: World, label: str = "P01", check: int = 0, prefix: Sequence[str] = ()) -> Run:
    return world.run_pass("close", "--yes", label, check=check, prefix=prefix)


def filled(world: World, *names: str) -> World:
    """A world with these files on P01 and S01."""
    for number, name in enumerate(names or NAMES):
        world.put(name, 1000 + number)
    world.generate()
    world.run_pass(check=0)
    return world


def anybody_says_that_it_is_whole(disk: Path) -> None:
    """By three programs, of which two need only the manifest."""
    for command in (
        [sys.executable, BAGIT, "--validate", "--quiet", disk],
        ["sha512sum", "-c", "--quiet", "--strict", "manifest-sha512.txt"],
        ["busybox", "sha512sum", "-c", "manifest-sha512.txt"],
        ["sha512sum", "-c", "--quiet", "--strict", "tagmanifest-sha512.txt"],
    ):
        ran = subprocess.run(command, cwd=disk, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, (command, ran)


def notice(world: World, kind: str, key: str) -> str:
    query = "SELECT text FROM notices WHERE kind = ? AND key = ? AND resolved_at IS NULL"
    return "".join(row["text"] for row in world.sql(query, kind, key))


def packing_list(world: World, label: str = "P01") -> Path:
    return world.db_path.parent / "packing-lists" / f"{label}-{world.serials[label]}.sha512"


# --- what is sealed -----------------------------------------------------------------------


def test_anybody_can_check_a_closed_disk(loop_world: LoopWorld) -> None:
    """On XFS and on ext4: a valid bag, its manifest sorted, its size said, nothing left over."""
    loop_world.put("z/0000.g3", 3_000_001)
    loop_world.put("empty.g3", 0)
    filled(loop_world)
    for label in ("P01", "S01"):
        disk = loop_world.disks[label]
        assert close(loop_world, label).code == 0
        anybody_says_that_it_is_whole(disk)
        names = list(loop_world.manifest(label))
        assert names == sorted(names, key=str.encode)
        assert set(names) == {*NAMES, "z/0000.g3", "empty.g3"}
        sizes = [path.stat().st_size for path in (disk / "data").rglob("*") if path.is_file()]
        info = (disk / "bag-info.txt").read_text().splitlines()
        assert info.count(f"Payload-Oxum: {sum(sizes)}.{len(sizes)}") == 1
        assert [bool(re.fullmatch(r"Pole-Closed: 20\d\d-.*Z", line)) for line in info].count(True)
        assert f"Pole-Serial: {loop_world.serials[label]}" in info
        tags = ["bagit.txt", "bag-info.txt", "manifest-sha512.txt", "README.txt"]
        tags.append("catalogue.sqlite")
        assert (disk / "tagmanifest-sha512.txt").read_text() == "".join(
            f"{hashlib.sha512((disk / tag).read_bytes()).hexdigest()}  {tag}\n" for tag in tags
        )
        assert set(os.listdir(disk)) - {"lost+found"} == {*tags, "data", "tagmanifest-sha512.txt"}


def test_an_empty_disk_can_be_closed_too(world: World) -> None:
    """A disk that was claimed, but holds nothing any more, is a valid bag of nothing."""
    filled(world, "a.g3")
    (world.data("P01") / "a.g3").unlink()
    without_line(world, "a.g3")
    world.spoil("P01", "a.g3", "the test takes it away")
    world.run_pass("verify", "P01", check=1)
    close(world)
    subprocess.run([sys.executable, BAGIT, "--validate", "--quiet", world.disks["P01"]], check=True)
    assert "Payload-Oxum: 0.0\n" in (world.disks["P01"] / "bag-info.txt").read_text()


def test_nothing_alters_a_closed_bag(loop_world: LoopWorld) -> None:
    """Later passes, known files that come again, and commands leave it as it is."""
    world = filled(loop_world, "a.g3", "b.g3")
    close(world)
    before = world.snapshot(world.disks["P01"])
    world.put("a.g3", 1000)  # the same once more
    world.put("c.g3")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert world.archived("P02") == {"c.g3"}
    for command in (
        ["verify", "P01"],
        ["check"],
        ["status"],
        ["hold", "--yes", "P01", "--why", "test"],
        ["unhold", "P01"],
        ["close", "--yes", "S01"],
        ["verify", "P01"],
    ):
        world.run_pass(*command, check=0)
    assert "sudo umount" in world.run_pass("ship", "P01", check=2).err
    world.ship("P01")
    world.run_pass("verify", "P01", check=0)
    assert before.differences(world.snapshot(world.disks["P01"])) == []
    world.loops["P01"].remount("ro")
    world.run_pass(check=0)
    anybody_says_that_it_is_whole(world.disks["P01"])


def test_the_packing_list_of_a_closed_disk_stays_at_the_station(world: World) -> None:
    """Its manifest, under label and serial: what went north is known when the disk is gone."""
    filled(world)
    assert f"\nPacking list: {packing_list(world)}\n" in close(world).out
    manifest = (world.disks["P01"] / "manifest-sha512.txt").read_bytes()
    assert packing_list(world).read_bytes() == manifest
    assert os.listdir(packing_list(world).parent) == [packing_list(world).name]


def test_the_removal_slip_says_all_that_a_person_at_the_rack_needs(world: World) -> None:
    """Which drive, since when, how much is on it, what to do now, and what is left of disks."""
    filled(world)
    world.sql("UPDATE disks SET first_used_at = '2026-01-01T00:00:00Z' WHERE label = 'P01'")
    size_bytes = sum(1000 + number for number in range(len(NAMES)))
    run = close(world)
    last = world.sql("SELECT last_used_at FROM disks WHERE label = 'P01'")[0][0]
    slip = run.out.splitlines()
    assert slip[0] == "P01 is closed: a person closed it."
    assert slip[1] == f"Role primary, serial ZTP01AA, logical ID {world.logical_id('P01')}."
    in_use = f"In use from 2026-01-01T00:00:00Z to {last}: {len(NAMES)} files, "
    assert re.fullmatch(
        re.escape(f"{in_use}{size_bytes / 1000:.4g} kB") + r", \S+ B a day\.", slip[2]
    )
    assert slip[4:] == [
        f"Now: 1. umount {world.disks['P01']}  2. take the drive out and store it  "
        "3. when it leaves: data_manager.py ship P01",
        "primary disks: 1 spare, 0 in use, 1 closed, 0 shipped.",
    ]
    assert notice(world, "disk-closed", "P01") == f"{run.out}".rstrip("\n") + (
        " See disk-closed in docs/operators.md."
    )


def test_a_full_disk_is_closed_by_the_pass_with_the_same_slip(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """The pass prints nothing; the notice has the slip, and the disk is a whole bag."""
    world = make_loop_world(size_mb=24, primary_fs="ext4")
    world.put("a.g3", 9_000_000)
    world.generate()
    world.run_pass(check=0)
    world.put("b.g3", 12_000_000)
    world.run_pass()
    assert world.disk_states()["P01"] == "closed"
    anybody_says_that_it_is_whole(world.disks["P01"])
    slip = notice(world, "disk-closed", "P01")
    assert slip.startswith("P01 is closed: it is full.\nRole primary, serial ZTP01AA")
    assert "primary disks: 0 spare, 1 in use, 1 closed, 0 shipped." in slip


# --- cut short ----------------------------------------------------------------------------


class Rewound:
    """A world that can be put back to where it was now; its disks are stand-ins."""

    def __init__(self, world: World) -> None:
        self._root, self._kept = world.root, world.root.with_name("kept")
        shutil.copytree(self._root, self._kept, symlinks=True)

    def rewind(self) -> None:
        shutil.rmtree(self._root)
        shutil.copytree(self._kept, self._root, symlinks=True)


# What is counted and killed; of the many writes, those into the database file itself.
ON_DISK = ("rename", "renameat", "unlinkat", "fsync", "unlink")
IN_DATABASE = ("pwrite64",)


@needs_strace
@pytest.mark.parametrize("call", [*ON_DISK, *IN_DATABASE])
def test_a_close_that_is_killed_anywhere_is_finished_or_was_not_begun(
    world: World, call: str
) -> None:
    """SIGKILL at each such system call of a ``close``: the next pass puts it right by itself.

    Either the disk is in use as before, and takes the next file; or it is closed, and whole.
    """
    filled(world, "b/1.g3", "a/2.g3")
    world.put("next.g3")
    (world.disks["P01"] / ".aside").mkdir()
    paths = [world.db_path] if call in IN_DATABASE else []
    start = Rewound(world)
    world.run_pass("close", "--yes", "P01", check=0, prefix=strace(world, call, paths))
    times = (world.root / "trace").read_text().count(f"{call}(")
    assert times > 0
    ends = set()
    for nth in range(1, times + 1):
        start.rewind()
        prefix = strace(world, call, paths, f"signal=SIGKILL:when={nth}")
        world.run_pass("close", "--yes", "P01", check=-9, prefix=prefix)
        world.check(finished=False)
        begun = world.disk_states()["P01"]
        world.run_pass(check=0)
        assert world.disk_states()["P01"] == begun, (nth, begun)
        on_p01 = {"b/1.g3", "a/2.g3"} | ({"next.g3"} if begun == "active" else set())
        assert world.archived("P01") == on_p01
        world.check()
        if begun == "closed":
            manifest = (world.disks["P01"] / "manifest-sha512.txt").read_bytes()
            assert packing_list(world).read_bytes() == manifest
            assert "umount" in notice(world, "disk-closed", "P01")
        ends.add(begun)
    assert "closed" in ends
    world.run_pass("ship", "P01", check=0)


SEALING = "renameat"  # of a close: sorted manifest, the same again, bag-info, tag manifest


def half_closed(world: World) -> World:
    """P01 is closed in the database, its tag manifest is not written yet."""
    prefix = strace(world, SEALING, (), "signal=SIGKILL:when=4")
    world.run_pass("close", "--yes", "P01", check=-9, prefix=prefix)
    assert world.disk_states()["P01"] == "closed"
    assert not (world.disks["P01"] / "tagmanifest-sha512.txt").exists()
    return world


@needs_strace
def test_a_disk_that_is_not_wholly_closed_is_not_shipped(loop_world: LoopWorld) -> None:
    """Taken out in the middle, it is on the shelf and no fault; back again, it is finished."""
    world = half_closed(filled(loop_world))
    reason = world.run_pass("ship", "P01", check=2).err
    assert "P01 is not wholly closed. Nothing was changed. Mount it and let the next pass" in reason
    world.loops["P01"].umount()
    world.run_pass(check=0)
    assert world.disk_states()["P01"] == "closed"
    world.loops["P01"].mount()
    world.run_pass(check=0)
    anybody_says_that_it_is_whole(world.disks["P01"])
    world.ship("P01")


@needs_strace
def test_a_disk_that_can_not_be_sealed_is_not_passed_over_in_silence(loop_world: LoopWorld) -> None:
    """Read-only in the middle of its close: exit 1 and a notice, till it can be finished."""
    world = half_closed(filled(loop_world))
    world.loops["P01"].remount("ro")
    world.run_pass(check=1)
    assert {key for _, key in world.notices()} >= {"P01"}
    world.loops["P01"].remount("rw")
    world.run_pass(check=0)
    anybody_says_that_it_is_whole(world.disks["P01"])
    assert world.notices() == {("disk-closed", "P01")}


@needs_strace
def test_a_held_disk_is_not_even_sealed(world: World) -> None:
    """A hold means that nothing is written to it: the close is finished after ``unhold``."""
    half_closed(filled(world))
    world.run_pass("hold", "--yes", "P01", "--why", "it clicks", check=0)
    before = world.snapshot(world.disks["P01"])
    world.run_pass(check=0)
    assert before.differences(world.snapshot(world.disks["P01"])) == []
    world.run_pass("unhold", "P01", check=0)
    world.run_pass(check=0)
    anybody_says_that_it_is_whole(world.disks["P01"])


# --- database, manifest and data/ are made one --------------------------------------------


def without_row(world: World, name: str) -> None:
    query = "DELETE FROM copies WHERE disk_id = (SELECT id FROM disks WHERE label = 'P01') AND "
    world.sql(query + "file_id = (SELECT id FROM files WHERE name = ?)", name)


def without_line(world: World, name: str) -> None:
    path = world.disks["P01"] / "manifest-sha512.txt"
    kept = [line for line in path.read_text().splitlines(True) if f"  data/{name}\n" not in line]
    path.write_text("".join(kept))


def test_what_one_of_the_three_does_not_know_is_read_back_and_adopted(world: World) -> None:
    """A file without row, without line, or without both, also one that nobody ever put there."""
    names = ("no-row.g3", "no-line.g3", "neither.g3", "all.g3")
    filled(world, *names)
    without_row(world, "no-row.g3")
    without_line(world, "no-line.g3")
    without_row(world, "neither.g3")
    without_line(world, "neither.g3")
    stray = world.data("P01") / "notes" / "stray.txt"
    stray.parent.mkdir()
    stray.write_bytes(b"somebody's notes")
    close(world)
    anybody_says_that_it_is_whole(world.disks["P01"])
    everything = {*names, "notes/stray.txt"}
    assert set(world.manifest("P01")) == everything
    rows = world.sql(
        "SELECT f.name, f.sha512, f.archived_at FROM copies c JOIN files f ON f.id = file_id "
        "WHERE disk_id = 1 AND c.state = 'good' AND verified_at IS NOT NULL"
    )
    assert {row["name"]: row["sha512"] for row in rows} == world.manifest("P01")
    assert {row["name"] for row in rows if not row["archived_at"]} == {"notes/stray.txt"}
    assert "P01: data/no-row.g3 was not registered in full; it is now" in world.log()
    assert "notes/stray.txt among them" in world.run_pass("ship", "P01", check=2).err
    world.check(foreign={"notes/stray.txt"})
    world.leave_unchecked("it was just checked, but for the stray file")


def test_a_copy_that_is_known_to_be_missing_stops_no_close(world: World) -> None:
    """Row and line of a file that a person took away are one thing; a row alone is history."""
    filled(world, "a.g3", "gone.g3")
    (world.data("P01") / "gone.g3").unlink()
    without_line(world, "gone.g3")
    world.spoil("P01", "gone.g3", "the test takes it away")
    world.run_pass("verify", "P01", check=1)
    close(world)
    anybody_says_that_it_is_whole(world.disks["P01"])
    assert set(world.manifest("P01")) == {"a.g3"}


def _removed(world: World) -> None:
    (world.data("P01") / "a.g3").unlink()


def _removed_and_no_line(world: World) -> None:
    _removed(world)
    without_line(world, "a.g3")


def _removed_and_no_row(world: World) -> None:
    _removed(world)
    without_row(world, "a.g3")


def _shortened(world: World) -> None:
    os.truncate(world.data("P01") / "a.g3", 10)


def _altered(world: World) -> None:
    (world.data("P01") / "a.g3").write_bytes(b"x" * 1000)


def _altered_and_no_line(world: World) -> None:
    _altered(world)
    without_line(world, "a.g3")


def _altered_and_no_row(world: World) -> None:
    _altered(world)
    without_row(world, "a.g3")


def _altered_and_neither(world: World) -> None:
    _altered_and_no_row(world)
    without_line(world, "a.g3")


def _two_lines(world: World) -> None:
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    manifest.write_text(f"{'0' * 128}  data/a.g3\n{manifest.read_text()}")


def _no_manifest_line(world: World) -> None:
    with open(world.disks["P01"] / "manifest-sha512.txt", "a") as manifest:
        manifest.write("this is no line\n")


def _link(world: World) -> None:
    (world.data("P01") / "link.g3").symlink_to("a.g3")


def _pipe(world: World) -> None:
    os.mkfifo(world.data("P01") / "pipe.g3")


def _aside(world: World) -> None:
    (world.disks["P01"] / ".aside").mkdir()
    (world.disks["P01"] / ".aside" / "something").write_bytes(b"?")


def _named(name: bytes) -> Callable[[World], None]:
    def put(world: World) -> None:
        path = os.fsencode(world.data("P01")) + b"/" + name
        with open(path, "wb") as file:
            file.write(b"?")

    return put


REFUSALS: dict[str, tuple[Callable[[World], None], str]] = {
    "removed": (_removed, "data/a.g3 is not there any more"),
    "removed, no line": (_removed_and_no_line, "data/a.g3 is not there any more"),
    "removed, no row": (_removed_and_no_row, "data/a.g3 is not there any more"),
    "shortened": (_shortened, "data/a.g3 is not what the manifest says"),
    "altered, no line": (_altered_and_no_line, "data/a.g3 is not what the database says"),
    "altered, no row": (_altered_and_no_row, "data/a.g3 is not what the manifest says"),
    "altered, neither": (
        _altered_and_neither,
        "data/a.g3 is not what the database knows by this name",
    ),
    "two lines": (_two_lines, "a.g3"),
    "no line of a manifest": (_no_manifest_line, "the text at byte 280 is not a manifest line"),
    "link": (_link, "data/link.g3 is neither a file nor a directory"),
    "pipe": (_pipe, "data/pipe.g3 is neither a file nor a directory"),
    "something aside": (
        _aside,
        "1 file was set aside in .aside/; first move anything that you want to keep",
    ),
    "name with %": (_named(b"100%.g3"), "data/100%.g3"),
    "name of two lines": (_named(b"two\nlines.g3"), r"data/two\nlines.g3"),
    "name not UTF-8": (_named(b"\xff.g3"), r"data/\udcff.g3"),
}


@pytest.mark.parametrize(("harm", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_can_not_be_made_one_keeps_the_disk_as_it_is(
    world: World, harm: Callable[[World], None], reason: str
) -> None:
    """Closing refuses, names the file, and changes nothing: no line is ever dropped."""
    filled(world, "a.g3", "b.g3")
    harm(world)
    world.leave_unchecked("the test harmed a disk")
    before = world.db_path.read_bytes(), _plain(world.snapshot(world.disks["P01"]))
    run = close(world, check=1)
    assert reason in run.err
    assert run.out == ""
    assert (world.db_path.read_bytes(), _plain(world.snapshot(world.disks["P01"]))) == before
    assert world.disk_states()["P01"] == "active"


def _plain(snapshot: Snapshot) -> list[tuple[str, int, str]]:
    """Without times: ``.incoming/`` was swept."""
    return [(path, stat.S_IMODE(item.mode), item.content) for path, item in snapshot.items]


@needs_strace
@pytest.mark.parametrize(
    ("nth", "state", "what_next"),
    [(1, "active", "It stays in use"), (3, "closed", "the next pass finishes closing it")],
)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_person_whose_close_meets_an_error_of_the_disk_is_told_what_next(
    world: World, error: str, nth: int, state: str, what_next: str
) -> None:
    """No defect of the program (exit 3), neither before nor after the close is written down."""
    filled(world, "a.g3")
    prefix = strace(world, "fsync", [world.disks["P01"]], f"error={error}:when={nth}")
    run = close(world, check=1, prefix=prefix)
    assert "P01 can't be closed: " in run.err
    assert what_next in run.err
    assert world.disk_states()["P01"] == state
    if state == "active":
        close(world)
    else:
        world.run_pass(check=0)
    assert world.notices() == {("disk-closed", "P01")}


def test_a_packing_list_that_can_not_be_kept_is_no_fault_of_the_disk(world: World) -> None:
    """It is said pass after pass, the disk is not held, and the close is finished in the end."""
    filled(world, "a.g3")
    lists = world.db_path.with_name("packing-lists")
    lists.write_text("in the way")
    assert "its packing list can't be kept" in close(world, check=1).err
    for number in range(4):
        world.put(f"{number}.g3")
        world.run_pass(check=0)
        assert world.notices() == {("copy-damaged", "P01")}
    assert world.sql("SELECT label FROM disks WHERE held_by IS NOT NULL") == []
    lists.unlink()
    world.run_pass(check=0)
    assert world.notices() == {("disk-closed", "P01")}
    world.run_pass("ship", "P01", check=0)


def test_a_full_disk_that_can_not_be_closed_is_told_and_left_alone(
    make_loop_world: Callable[..., LoopWorld],
) -> None:
    """Files go on to the next disk; once a person has put it right the disk can be closed."""
    world = make_loop_world(size_mb=24, primary_fs="ext4")
    world.put("a.g3", 9_000_000)
    world.generate()
    world.run_pass(check=0)
    _link(world)
    world.put("b.g3", 12_000_000)
    world.run_pass()
    assert world.disk_states()["P01"] == "active"
    assert world.archived("P02") == {"b.g3"}
    text = notice(world, "copy-damaged", "P01")
    assert text.startswith(
        "P01 is full but can't be closed: data/link.g3 is neither a file nor a directory."
    )
    (world.data("P01") / "link.g3").unlink()
    close(world)
    anybody_says_that_it_is_whole(world.disks["P01"])
    assert ("copy-damaged", "P01") not in world.notices()
