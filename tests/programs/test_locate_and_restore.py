"""``locate`` and ``restore``: where a file is, and getting it back whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from poledata.maintenance.locate import as_glob
from tests.helpers.damaged_copies import filled, harm
from tests.helpers.halted import needs_strace, strace
from tests.helpers.loopdisks import SEARCHED, LoopWorld
from tests.helpers.other_users import POWERLESS
from tests.helpers.world import Run, World

NAMES = ("fullrate/RCW38/80296951/0000.g3", "fullrate/RCW38/80296952/0000.g3", "raw/x.g3")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    (tmp_path / "wanted").mkdir()
    return tmp_path / "wanted"


def restore(world: World, to: Path, *names: str, check: int = 0) -> Run:
    return world.run("data_manager.py", "restore", *names, "--to", str(to), check=check)


def locate(world: World, *args: str, check: int = 0) -> Run:
    return world.run("data_manager.py", "locate", *args, check=check)


# --- locate -------------------------------------------------------------------------------


def test_since_lists_what_was_archived_then_or_later_in_this_order(world: World) -> None:
    """To the second, with or without patterns; a time of UTC, or how long ago."""
    for name in NAMES:
        world.put(name)
    world.generate()
    world.run_pass(check=0)
    days = dict(zip(NAMES, ("2026-11-22", "2026-11-23", "2026-11-21"), strict=True))
    for name, day in days.items():
        world.sql("UPDATE files SET archived_at = ? WHERE name = ?", f"{day}T10:00:00Z", name)

    def new(*args: str) -> list[str]:
        return [one["name"] for one in locate(world, *args, "--json").json()]

    assert new("--since", "2026-11-21") == [NAMES[2], NAMES[0], NAMES[1]]
    assert new("--since", "2026-11-22T10:00:00Z") == [NAMES[0], NAMES[1]]
    assert new("--since", "2026-11-22T11:00:00+01:00") == [NAMES[0], NAMES[1]]
    assert new("--since", "2026-11-22T10:00:01Z") == [NAMES[1]]
    assert new("--since", "2026-11-21", "0000.g3") == [NAMES[0], NAMES[1]]
    assert new("--since", "2100-01-01") == []
    assert len(new("--since", "36500d")) == 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Name a PATTERN, or a time: --since 24h."),
        (("--since", "noon"), "--since: noon is not a time; write it like 2026-12-01, "),
        (("--since", "24"), "--since: 24 is not a time; write it like 2026-12-01, "),
    ],
)
def test_locate_asks_for_a_pattern_or_a_time(
    world: World, args: tuple[str, ...], says: str
) -> None:
    """Wrong usage, exit 2."""
    world.generate()
    assert says in locate(world, *args, check=2).err


def test_it_says_of_each_copy_disk_state_place_and_when_it_was_read(world: World) -> None:
    """Label, role, serial; mounted where, on the shelf, or shipped when."""
    filled(world, *NAMES)
    lines = locate(world, "80296951").out.splitlines()
    assert lines[0].startswith(f"{NAMES[0]}  20 kB, archived 20")
    assert lines[1].startswith(f"    P01 primary ZTP01AA: active, mounted at {world.disks['P01']};")
    assert lines[2].startswith(f"    S01 copy ZTS01AA: active, mounted at {world.disks['S01']};")
    assert "; last read " in lines[1]
    world.run_pass("close", "--yes", "P01", check=0)
    world.disks["P01"].rename(world.root / "shelf")
    assert "ZTP01AA: closed, on the shelf;" in locate(world, "80296951").out
    world.run_pass("ship", "P01", check=0)
    assert "ZTP01AA: shipped, shipped 20" in locate(world, "80296951").out
    (world.root / "shelf").rename(world.disks["P01"])


def test_it_needs_no_disk_and_no_right_to_write(world: World) -> None:
    """The database alone answers; it and its directory stay as they are."""
    filled(world, *NAMES)
    before = world.snapshot(world.db_path.parent)
    for label, place in world.disks.items():
        place.rename(world.root / f"{label}-away")
    assert len(locate(world, "*").out.splitlines()) == 9
    assert before == world.snapshot(world.db_path.parent)
    for label, place in world.disks.items():
        (world.root / f"{label}-away").rename(place)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("fullrate/*/0000.g3", NAMES[:2]),
        ("*80296952*", NAMES[1:2]),
        ("0000", NAMES[:2]),
        ("raw/x.g3", NAMES[2:]),
        ("raw/?.g3", NAMES[2:]),
        ("[fr]*", NAMES),
    ],
)
def test_a_glob_matches_whole_names_and_a_word_a_part(
    world: World, pattern: str, found: tuple[str, ...]
) -> None:
    """As locate(1) does."""
    filled(world, *NAMES)
    assert tuple(one["name"] for one in locate(world, pattern, "--json").json()) == found


def test_as_json_it_has_stable_keys(world: World) -> None:
    """For programs: one object a file, with its copies."""
    filled(world, NAMES[2])
    (one,) = locate(world, "raw", "--json").json()
    assert one.keys() == {"name", "size_bytes", "sha512", "archived_at", "content", "places"}
    assert one["places"][0].keys() == {
        "label",
        "serial",
        "role",
        "state",
        "disk_state",
        "where",
        "verified_at",
        "confirmed",
    }


def test_what_is_not_archived_is_not_found(world: World) -> None:
    """Exit 1, and it says so on standard error; JSON is an empty list."""
    filled(world, NAMES[2])
    run = locate(world, "nothing", check=1)
    assert (run.out, run.err) == ("", "nothing: no archived file has such a name.\n")
    assert locate(world, "nothing", "--json", check=1).json() == []


def test_of_several_patterns_each_answers_and_each_file_is_listed_once(world: World) -> None:
    """One without a match is named on standard error, and the exit code is 1."""
    filled(world, *NAMES)
    run = locate(world, "raw", "nothing", "raw/x.g3", "0000", "--json", check=1)
    assert [one["name"] for one in run.json()] == [NAMES[2], *NAMES[:2]]
    assert run.err == "nothing: no archived file has such a name.\n"
    assert locate(world, "raw", "0000").err == ""


def test_the_file_of_just_that_name_comes_first(world: World) -> None:
    """Also where its name holds what is a wild card; then what the pattern matches else."""
    filled(world, "odd/a[1].g3", "odd/a1.g3", "odd/a[1].g3.g3", "b.g3", "a/b.g3")
    for pattern, found in (
        ("odd/a[1].g3", ["odd/a[1].g3", "odd/a1.g3"]),
        ("b.g3", ["b.g3", "a/b.g3"]),
    ):
        assert [one["name"] for one in locate(world, pattern, "--json").json()] == found


@pytest.mark.parametrize("pattern", ["data/raw/x.g3", "data/raw/*", "data/odd/a[1].g3"])
def test_a_name_as_it_stands_in_a_manifest_is_understood(
    world: World, to: Path, pattern: str
) -> None:
    """With ``data/`` before it: by ``restore``, too. A file that is called so has precedence."""
    filled(world, NAMES[2], "odd/a[1].g3")
    (one,) = locate(world, pattern, "--json").json()
    assert one["name"] in (NAMES[2], "odd/a[1].g3")
    if "*" not in pattern:
        assert restore(world, to, pattern).out == f"{one['name']}: P01\n"
    world.put("data/raw/x.g3", 5)
    world.run_pass(check=0)
    (one,) = locate(world, "data/raw/x.g3", "--json").json()
    assert one["size_bytes"] == 5


def test_a_damaged_copy_is_called_so(world: World) -> None:
    """Loudly: whoever wants the file takes the other one."""
    filled(world, NAMES[2])
    harm(world, "P01", NAMES[2])
    world.spoil("P01", NAMES[2], "the test harms it")
    world.run_pass("verify", "P01", check=1)
    assert "P01 primary ZTP01AA: DAMAGED, active" in locate(world, "raw").out


def test_a_word_holds_anywhere() -> None:
    """Only what has a wild card is taken as it stands."""
    assert (as_glob("a/b"), as_glob("a*"), as_glob("a?"), as_glob("[ab]")) == (
        "*a/b*",
        "a*",
        "a?",
        "[ab]",
    )


# --- restore ------------------------------------------------------------------------------


def test_files_come_back_whole_in_their_tree(world: World, to: Path) -> None:
    """Content, time and permission bits; which disk gave each is said."""
    entries = {name: world.put(name, 30_000) for name in NAMES}
    world.generate()
    world.run_pass(check=0)
    run = restore(world, to, *NAMES)
    assert run.out.splitlines() == [f"{name}: P01" for name in NAMES]
    for name in NAMES:
        original, back = os.stat(world.data("P01") / name), os.stat(to / name)
        assert (to / name).read_bytes() == (world.data("P01") / name).read_bytes()
        assert back.st_mtime_ns == original.st_mtime_ns
        assert stat.S_IMODE(back.st_mode) == stat.S_IMODE(original.st_mode)
    assert len(entries) == sum(path.is_file() for path in to.rglob("*"))


def test_no_right_beyond_those_of_the_original_comes_back(world: World, to: Path) -> None:
    """A copy on a disk that was away may have a set-uid or set-gid bit: it is not restored."""
    world.put(NAMES[0])
    world.generate()
    world.run_pass(check=0)
    for label in ("P01", "S01"):
        (world.data(label) / NAMES[0]).chmod(0o6755)
    restore(world, to, NAMES[0])
    assert stat.S_IMODE((to / NAMES[0]).stat().st_mode) == 0o755


def test_a_copy_that_is_not_good_is_never_published(loop_world: LoopWorld, to: Path) -> None:
    """A flipped bit: the other copy is taken, and the bad one named."""
    filled(loop_world, NAMES[0])
    loop_world.loops["P01"].flip_bit(f"data/{NAMES[0]}", offset=9000)
    loop_world.loops["P01"].umount()
    loop_world.loops["P01"].mount()
    loop_world.spoil("P01", NAMES[0], "the test flips a bit")
    run = restore(loop_world, to, NAMES[0])
    assert run.out == f"{NAMES[0]}: S01\n"
    assert (
        f"{NAMES[0]}: P01: its copy is not what was archived. Next: data_manager.py verify P01\n"
        in run.err
    )
    assert (to / NAMES[0]).read_bytes() == (loop_world.data("S01") / NAMES[0]).read_bytes()


def test_where_no_copy_proves_good_nothing_appears(world: World, to: Path) -> None:
    """Exit 1, each copy with its reason; not even a part of it is left behind."""
    filled(world, NAMES[2], NAMES[0])
    harm(world, "P01", NAMES[2])
    (world.data("S01") / NAMES[2]).unlink()
    for label in ("P01", "S01"):
        world.spoil(label, NAMES[2], "the test harms it")
    run = restore(world, to, NAMES[2], NAMES[0], check=1)
    assert f"{NAMES[2]}: NOT RESTORED: no copy that is here proves good" in run.out
    assert f"{NAMES[0]}: P01" in run.out  # the others come back
    assert "P01: its copy is not what was archived" in run.err
    assert "S01: No such file or directory. Next: data_manager.py verify S01" in run.err
    assert list((to / "raw").iterdir()) == []


def test_nothing_is_ever_overwritten(world: World, to: Path) -> None:
    """The same content is there already: fine. Anything else stays as it is: exit 1."""
    filled(world, NAMES[2])
    restore(world, to, NAMES[2])
    assert restore(world, to, NAMES[2]).out == f"{NAMES[2]}: there already\n"
    (to / NAMES[2]).chmod(0o644)
    (to / NAMES[2]).write_bytes(b"mine")
    assert "another file is there already" in restore(world, to, NAMES[2], check=1).out
    assert (to / NAMES[2]).read_bytes() == b"mine"


@pytest.mark.parametrize("what", ["file", "link"])
def test_nothing_is_written_through_what_stands_in_the_way(
    world: World, to: Path, what: str
) -> None:
    """A file or a link where a directory must be."""
    filled(world, NAMES[2], NAMES[0])
    outside = to.parent / "outside"
    outside.mkdir()
    if what == "file":
        (to / "raw").write_bytes(b"mine")
    else:
        (to / "raw").symlink_to(outside)
    run = restore(world, to, NAMES[2], NAMES[0], check=1)
    assert run.out.splitlines() == [
        f"{NAMES[2]}: NOT RESTORED: it can't be written: in the target raw is a file or a link "
        "where a directory must be. It was left as it is: move it away, or name another --to",
        f"{NAMES[0]}: P01",
    ]
    assert "P01" not in run.err and "S01" not in run.err  # nothing is wrong with the copies
    assert list(outside.iterdir()) == []


def test_a_target_that_takes_nothing_is_said(world: World, to: Path) -> None:
    """No right to write there: no copy is blamed."""
    filled(world, NAMES[2])
    to.chmod(0o555)
    run = world.run(
        "data_manager.py", "restore", NAMES[2], "--to", str(to), check=1, prefix=POWERLESS
    )
    assert run.out == f"{NAMES[2]}: NOT RESTORED: it can't be written: Permission denied\n"
    assert "P01" not in run.err


@needs_strace
def test_a_disk_that_can_not_be_read_is_not_taken_for_a_bad_target(world: World, to: Path) -> None:
    """The other copy is taken."""
    filled(world, NAMES[2])
    prefix = strace(world, "openat", [world.data("P01") / "raw"], "error=EACCES")
    run = world.run("data_manager.py", "restore", NAMES[2], "--to", str(to), check=0, prefix=prefix)
    assert run.out == f"{NAMES[2]}: S01\n"
    assert "P01: Permission denied. Next: data_manager.py verify P01" in run.err


@pytest.mark.parametrize("place", ["buffer", "disk"])
def test_it_never_restores_into_the_archive_itself(world: World, place: str) -> None:
    """What came into the buffer would be archived anew; a disk holds what it lists."""
    filled(world, NAMES[2])
    to = world.buffer if place == "buffer" else world.disks["P01"] / "data"
    before = world.snapshot(world.root)
    run = restore(world, to, NAMES[2], check=2)
    assert "which the archive itself works with. Nothing was restored." in run.err
    assert before == world.snapshot(world.root)


@pytest.mark.parametrize("what", ["buffer", "buffer/sub", "P02"])
def test_no_bind_mount_leads_into_the_archive(loop_world: LoopWorld, to: Path, what: str) -> None:
    """Nor one of a part of the buffer, nor of a spare that is mounted at its own place."""
    filled(loop_world, NAMES[2])
    (loop_world.buffer / "sub").mkdir()
    place = loop_world.disks["P02"] if what == "P02" else loop_world.root / what
    mount("--bind", str(place), str(to))
    try:
        before = loop_world.snapshot(place)
        run = restore(loop_world, to, NAMES[2], check=2)
        assert "which the archive itself works with. Nothing was restored." in run.err
        assert before == loop_world.snapshot(place)
    finally:
        mount("--umount", str(to))
    assert restore(loop_world, to, NAMES[2]).out == f"{NAMES[2]}: P01\n"


def mount(how: str, *places: str) -> None:
    command = ["umount"] if how == "--umount" else ["mount", how]
    subprocess.run([*command, *places], check=True, env={"PATH": SEARCHED})


def test_bad_words_are_said(world: World, to: Path) -> None:
    """No such directory, no such file."""
    filled(world, NAMES[2])
    assert "it can't be opened" in restore(world, to / "no", NAMES[2], check=2).err
    run = restore(world, to, "raw/y.g3", check=1)
    assert run.out == "raw/y.g3: NOT RESTORED: no archived file has such a name\n"


def test_a_pattern_restores_all_that_locate_finds_with_it(world: World, to: Path) -> None:
    """A glob, or a part of a name; a whole name is that file alone; the others are restored."""
    filled(world, "obs/1.g3", "obs/11.g3", "cal/1.g3")
    run = restore(world, to, "obs/*")
    assert sorted(run.out.splitlines()) == ["obs/1.g3: P01", "obs/11.g3: P01"]
    assert restore(world, to, "cal").out == "cal/1.g3: P01\n"
    assert restore(world, to, "data/obs/1.g3").out == "obs/1.g3: there already\n"
    run = restore(world, to, "obs/2*", "cal/1.g3", check=1)
    assert run.out.splitlines() == [
        "obs/2*: NOT RESTORED: no archived file has such a name",
        "cal/1.g3: there already",
    ]
