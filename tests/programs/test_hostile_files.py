"""Files of our own that are not as we left them: database, manifest, mark, configuration, names.

Foreign and newer databases, other disks' marks, manifests that end oddly, a `.env` open to others
have tests elsewhere (test_connection.py, test_identity.py, test_promises.py, test_config.py).
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.helpers.invariants import sha512_of
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"


def all_bytes(world: World) -> set[str]:
    """The SHA-512 of everything in the buffer and on the disks."""
    roots = [world.buffer, *(world.data(label) for label in world.disks)]
    return {sha512_of(path) for root in roots for path in root.rglob("*") if path.is_file()}


# --- the database -------------------------------------------------------------------------


def archive_and_wait(world: World) -> set[str]:
    """Some files archived, one waiting."""
    for number in range(20):
        world.put(f"{number}.g3", 900 + number)
    world.generate()
    world.run_pass(check=0)
    world.put(NAME, 5000)
    return all_bytes(world)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_database_is_said_and_nothing_is_overwritten(world: World, part: float) -> None:
    """Neither it, nor a byte in the buffer or on a disk; the page that the message names tells
    how to restore it."""
    before = archive_and_wait(world)
    os.truncate(world.db_path, int(world.db_path.stat().st_size * part))
    harmed = world.snapshot(world.db_path)
    run = world.run_pass(check=(1, 2))
    said = run.err + world.log()
    assert str(world.db_path) in said
    assert "malformed" in said or "not an SQLite database" in said or "disk I/O error" in said
    assert "see database-error in docs/operators.md" in said.replace("See", "see")
    assert world.snapshot(world.db_path) == harmed
    assert all_bytes(world) == before
    world.leave_unchecked("its database is truncated")


@pytest.mark.parametrize("seed", range(12))
def test_a_corrupted_database_never_costs_a_byte(world: World, seed: int) -> None:
    """Pages of noise: the pass may or may not notice; what is there stays there."""
    before = archive_and_wait(world)
    noise = random.Random(seed)
    size_bytes = world.db_path.stat().st_size
    with open(world.db_path, "r+b") as file:
        for _ in range(3):
            file.seek(noise.randrange(0, size_bytes - 600))
            file.write(noise.randbytes(512))
    run = world.run_pass(check=(0, 1, 2))
    assert all_bytes(world) == before, run
    if run.code in (0, 1) and NAME not in world.waiting():
        copies = [sha512_of(world.data(label) / NAME) for label in ("P01", "S01")]
        assert len(set(copies)) == 1
    world.leave_unchecked("its database is noise")


def test_a_day_old_database_put_back_loses_nothing_and_learns_the_rest(world: World) -> None:
    """What was archived since stays on the disks, untouched; verify tells of it, and closing
    reads it back and registers it."""
    world.put("monday.g3", 3000)
    world.generate()
    world.run_pass(check=0)
    kept = world.root / "kept.sqlite"
    shutil.copy2(world.db_path, kept)
    tuesdays = {world.put(f"tuesday/{number}.g3", 3000).name for number in range(3)}
    world.run_pass(check=0)
    before = {label: world.snapshot(world.data(label) / "tuesday") for label in ("P01", "S01")}
    shutil.copy2(kept, world.db_path)
    world.put("wednesday.g3", 3000)
    world.run_pass(check=0)
    assert world.waiting() == set()
    for label in ("P01", "S01"):
        run = world.run_pass("verify", label, check=1)
        said = {line.split()[-1] for line in run.out.splitlines() if "UNREGISTERED" in line}
        assert said == tuesdays
        world.run_pass("close", "--yes", label, check=0)
        assert before[label] == world.snapshot(world.data(label) / "tuesday")
    rows = world.sql("SELECT name FROM files WHERE archived_at IS NOT NULL")
    assert {row["name"] for row in rows} == {"monday.g3", "wednesday.g3", *tuesdays}
    world.unfinished = False
    world.check()


def test_a_day_old_database_never_lets_a_file_overwrite_another(world: World) -> None:
    """Another content under a name that it has forgotten: the old copy stays where it is, whole,
    for its manifest vouches for it; the new one waits in the buffer."""
    world.put("monday.g3")
    world.generate()
    kept = world.root / "kept.sqlite"
    shutil.copy2(world.db_path, kept)
    entry = world.put(NAME, b"the first")
    world.run_pass(check=0)
    shutil.copy2(kept, world.db_path)
    world.sql("UPDATE disks SET state = 'active', first_used_at = 'x' WHERE label IN ('P01','S01')")
    world.ledger.withdraw(NAME, "another content comes under its name")
    world.put(NAME, b"the second")
    world.run_pass(check=1)
    for label in ("P01", "S01"):
        assert not (world.disks[label] / ".aside").exists()
        assert sha512_of(world.data(label) / NAME) == entry.sha512
    assert world.waiting() == {NAME}
    assert (world.buffer / NAME).read_bytes() == b"the second"
    assert {kind for kind, _ in world.notices()} == {"name-conflict"}
    world.leave_unchecked("the database was taught what disks it uses by hand")


# --- manifest and mark --------------------------------------------------------------------


def test_a_manifest_that_claims_another_content_keeps_the_file(world: World) -> None:
    """A line with another SHA-512 than the database's is no proof: the file stays."""
    world.put(NAME, 3000)
    world.generate()
    world.run_pass(check=0)
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    whole = manifest.read_bytes()
    manifest.write_bytes(b"0" * 128 + whole[128:])
    world.put(NAME, 3000)
    world.run_pass(check=1)
    assert world.waiting() == {NAME}
    assert ("not-removed", NAME) in world.notices()
    manifest.write_bytes(whole)
    world.sql("UPDATE pending SET next_try_at = '2001-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Pole-Label: P01", b"Pole-Label: P02"),
        (b"Pole-Serial: ZTP01AA", b"Pole-Serial: ZTP02AA"),
        (b"Pole-Role: primary", b"Pole-Role: copy"),
        (b"Pole-Stand-In: yes", b"Pole-Stand-In: no"),
        (b"Pole-Label: P01\n", b""),
        (b"Pole", b"\xff\xfe"),
    ],
)
def test_a_tampered_mark_is_refused_and_the_disk_is_left_as_it_is(
    world: World, old: bytes, new: bytes
) -> None:
    """Whatever of it was altered; the next disk of the role goes on."""
    world.put("1.g3")
    world.generate()
    world.run_pass(check=0)
    mark = world.disks["P01"] / "bag-info.txt"
    whole = mark.read_bytes()
    assert old in whole
    mark.write_bytes(whole.replace(old, new))
    before = world.snapshot(world.disks["P01"])
    world.put("2.g3")
    world.run_pass(check=1)
    assert world.snapshot(world.disks["P01"]) == before
    assert ("disk-wrong", "P01") in world.notices()
    assert world.archived("P02") == {"2.g3"}
    mark.write_bytes(whole)


# --- the configuration --------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_root_obeys_no_configuration_that_others_may_write(world: World, mode: int) -> None:
    """They could make root write anywhere; nothing is touched, and the remedy is said."""
    world.put(NAME)
    world.generate()
    world.config_path.chmod(mode)
    os.chown(world.config_path, 0, 65534)  # not root's own group
    before = world.snapshot(world.root)
    for args in ((), ("status",), ("close", "--yes", "P01")):
        run = world.run_pass(*args, check=2)
        assert "root would do as it says; run: chmod go-w " in run.err
    assert before.differences(world.snapshot(world.root)) == []
    world.config_path.chmod(0o644)
    world.run_pass(check=0)


# --- names and labels are never commands --------------------------------------------------

INJECTIONS = [
    "$(touch HERE).g3",
    "`touch HERE`.g3",
    "; touch HERE ;.g3",
    "| touch HERE.g3",
    "&& touch HERE &&.g3",
    "' OR '1'='1.g3",
    "'); DROP TABLE files; --.g3",
    "{config.db_path}.g3",
    "--config=HERE.g3",
    "<script>alert(1)</script>.g3",
    "\x1b[31mred\x1b[0m.g3",
]


def test_a_name_is_never_a_command_nor_a_query(world: World) -> None:
    """Each is a file like any other, archived under its own name."""
    for name in INJECTIONS:
        world.put(name, 100)
    world.generate()
    world.run_pass(check=0)
    world.put(INJECTIONS[0], 200)  # another content: told of by its name
    world.run_pass(check=1)
    world.run_pass("verify", "P01", check=0)
    world.status(check=0)
    assert world.archived("P01") == _parts(INJECTIONS)
    assert not list(world.root.rglob("HERE"))
    assert world.sql("SELECT count(*) FROM files")[0][0] == len(INJECTIONS)


def _parts(names: list[str]) -> set[str]:
    return {os.path.normpath(name) for name in names}


@pytest.mark.parametrize(
    "label", ["P01;reboot", "P$(id)", "../P01", "P01/../S01", "P-1", "-P01", "P01'--", "Ｐ01"]
)
def test_a_label_is_a_prefix_and_a_number_and_nothing_else(world: World, label: str) -> None:
    """A disk-map with another one is refused as a whole."""
    world.disk_map_path.write_text(f"{label} ZTXXXX01 0x5000c50000000001\n")
    run = world.generate(check=2)
    assert "Nothing was changed" in run.err
    assert not world.db_path.exists()
    world.leave_unchecked("there is no database")


def test_advice_with_odd_places_in_it_can_be_pasted(tmp_path: Path) -> None:
    """A place whose name a shell would take apart is quoted in what a person is told to type."""
    world = World(tmp_path, ("P01",), ("S01",))
    odd = world.root / "disks; touch HERE"
    odd.mkdir()
    world.configure(DiskMountPoints=str(odd))
    run = world.generate()
    assert f"P01: mkdir -p '{odd}/P01'" in run.out
    world.leave_unchecked("nothing was archived")
