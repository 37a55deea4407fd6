"""What can't be used of a manifest, a list or a setting is named; the rest goes on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from poledata.archive.disk_writer import CopyWriter, Draft
from poledata.disks import bag
from poledata.models import MANIFEST, CopyTarget, FileStat, Job, ManifestLine, Role, Waiting
from tests.helpers.damaged_copies import harm
from tests.helpers.lost_database import lose_database
from tests.helpers.verified_disks import filled, notice, states
from tests.helpers.world import Run, World

ONE, TWO = "1" * 128, "2" * 128
MEMORY_BYTES = 1_500_000_000  # of addresses: far less than the long line
LONG_BYTES = 4 << 30
MANY = 200_000  # bad lines: their texts alone are 30 MB
# A prefix that says last, in kB, how much memory a script had.
PEAK = (
    sys.executable,
    "-c",
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
    "sys.exit(code)",
)


def manifest_of(world: World, label: str) -> Path:
    return world.disks[label] / MANIFEST


def bounded(world: World, script: str, *args: str, check: int) -> Run:
    """Run a script that can't have the memory for a line of 4 GB."""
    prefix = ["prlimit", f"--as={MEMORY_BYTES}"]
    return world.run(script, *args, check=check, prefix=prefix)


def zeroed(path: Path) -> int:
    """A sector of zeros amid the lines; the first byte of the line that it is in."""
    content = path.read_bytes()
    at = content.index(b"\n") + 1 + 64  # within the second line
    path.write_bytes(content[:at] + bytes(512) + content[at + 512 :])
    return at - 64


def name_with_nul(path: Path) -> int:
    with path.open("ab") as file:
        file.write(f"{ONE}  data/a\0b.g3\n".encode())
        return file.tell() - len(f"{ONE}  data/a\0b.g3\n")


def long_part(path: Path) -> int:
    line = f"{ONE}  data/ok/{'x' * 256}.g3\n".encode()
    with path.open("ab") as file:
        file.write(line)
        return file.tell() - len(line)


def long_line(path: Path) -> int:
    """4 GB without an end of line before a good line; the file is sparse."""
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    with path.open("r+b") as file:
        file.seek(LONG_BYTES)
        file.write(b"\n" + content[first:])
        file.seek(first)
        file.write(b"\0" * (len(content) - first))
    return first


DAMAGE: dict[str, Callable[[Path], int]] = {
    "a zeroed sector": zeroed,
    "a NUL byte in a name": name_with_nul,
    "a part of 259 bytes": long_part,
    "a line of 4 GB": long_line,
}
NAMES = [f"a/{number}.g3" for number in range(8)]


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_verify_names_a_bad_line_and_reads_on(world: World, harm: Callable[[Path], int]) -> None:
    """Exit 1: every copy is read and good, the line is named by its byte, a notice tells of it; the
    drive is not blamed. It ends when the line is right again."""
    filled(world, *NAMES)
    whole = manifest_of(world, "P01").read_bytes()
    at = harm(manifest_of(world, "P01"))
    run = bounded(world, "data_manager.py", "verify", "P01", "S01", check=1)
    lines = run.out.splitlines()
    bad = [line for line in lines if "BAD LINE" in line]
    assert len(bad) == 1 and bad[0].startswith("P01: BAD LINE manifest-sha512.txt: ")
    assert f" at byte {at} " in bad[0]
    assert "P01: 8 copies are good (80.03 kB), 0 damaged, 0 missing, 0 unregistered files" in lines
    assert "S01: 8 copies are good (80.03 kB), 0 damaged, 0 missing, 0 unregistered files" in lines
    assert set(states(world).values()) == {"good"}
    assert world.notices() == {("copy-damaged", "P01")}
    assert f" at byte {at} " in notice(world, "copy-damaged", "P01")
    manifest_of(world, "P01").write_bytes(whole)
    world.run_pass("verify", "P01", check=0)
    assert world.notices() == set()


def test_verify_as_json_lists_bad_lines(world: World) -> None:
    """A key of its own beside what else a reading finds."""
    filled(world, *NAMES)
    at = name_with_nul(manifest_of(world, "P01"))
    world.leave_unchecked("the manifest is damaged")
    (found,) = json.loads(world.run_pass("verify", "--json", "P01", check=1).out)
    assert found["bad_lines"] == [
        f"manifest-sha512.txt: the text at byte {at} is not a manifest line"
    ]
    assert (found["fault"], found["nowhere"], found["unlisted"]) == (None, [], [])


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_from_disks_names_a_bad_line_and_reads_on(
    world: World, harm: Callable[[Path], int]
) -> None:
    """Exit 1, in bounded memory; the other lines and the other disk are in the new database."""
    filled(world, *NAMES)
    lose_database(world)
    at = harm(manifest_of(world, "P01"))
    world.leave_unchecked("the manifest is damaged")
    run = bounded(world, "generate_db.py", "--from-disks", check=1)
    assert [line for line in run.out.splitlines() if "FAULT" in line and f" at byte {at} " in line]
    assert world.sql("SELECT count(*) FROM files")[0][0] == 8
    ((on_p01,),) = world.sql(
        "SELECT count(*) FROM copies JOIN disks ON disks.id = disk_id WHERE label = 'P01'"
    )
    assert on_p01 == {zeroed: 3, long_line: 8}.get(harm, 8)  # the zeros touch five lines


def test_very_many_bad_lines_are_counted_in_little_memory(world: World) -> None:
    """The first 20 are named, the others are counted: 200,000 need no more memory than 100."""
    filled(world, "a.g3")
    world.leave_unchecked("the manifest is damaged")
    peaks_kb = []
    for more, count in ((100, 100), (MANY - 100, MANY)):
        with manifest_of(world, "P01").open("ab") as file:
            file.write(b"\n" * more)
        run = world.run_pass("verify", "P01", check=1, prefix=PEAK)
        assert run.out.count("BAD LINE") == 21
        assert f"P01: BAD LINE manifest-sha512.txt: {count - 20} more bad lines" in run.out
        peaks_kb.append(int(run.err.split()[-1]))
    assert peaks_kb[1] - peaks_kb[0] < 6000, peaks_kb


def test_a_line_that_may_be_the_files_own_is_never_taken_for_none(world: World) -> None:
    """Its manifest has bad lines, and none for the file: the file stays in the buffer, and the
    refusal says why; the files whose lines can be read leave it."""
    world.configure(DeleteFromBuffer="no")
    filled(world, *NAMES)
    path = manifest_of(world, "P01")
    first = path.read_bytes().split(b"\n")[0].decode()
    lost = first.partition("  data/")[2]
    path.write_bytes(b"X" + path.read_bytes()[1:])
    world.configure(DeleteFromBuffer="yes")
    world.leave_unchecked("the manifest is damaged")
    world.run_pass(check=1)
    assert world.waiting() == {lost}
    assert "manifest-sha512.txt: the text at byte 0 is not a manifest line" in notice(
        world, "not-removed", lost
    )


def test_a_disk_with_a_bad_last_line_gets_no_files_and_stops_no_other(world: World) -> None:
    """Nothing is built on a manifest that another program wrote to; P02 takes the file."""
    filled(world, *NAMES)
    with manifest_of(world, "P01").open("ab") as file:
        file.write(b"x" * 20_000 + b"\n")
        at = file.tell() - 20_001
    before = manifest_of(world, "P01").read_bytes()
    world.leave_unchecked("the manifest is damaged")
    world.put("new.g3")
    world.run_pass(check=1)
    assert world.waiting() == set()
    assert "new.g3" in world.archived("P02") & world.archived("S01")
    assert manifest_of(world, "P01").read_bytes() == before
    said = notice(world, "disk-wrong", "P01")
    assert said.startswith(f"manifest-sha512.txt: the text at byte {at} is not a manifest line. ")


def test_a_wrong_line_on_a_damaged_manifest_is_the_fault_of_its_file_alone(tmp_path: Path) -> None:
    """What can't be taken out of a manifest with a bad line fails; other files get their lines."""
    (tmp_path / bag.INCOMING).mkdir()
    before = f"{ONE}  data/wrong.g3\noops\n".encode()
    (tmp_path / MANIFEST).write_bytes(before)
    fd = os.open(tmp_path, os.O_RDONLY)
    waiting = Waiting("", FileStat(1, 1, 1, 1, 1), 0o644)
    group = [
        Draft(Job(replace(waiting, name=name), frozenset({Role.PRIMARY}), TWO), sha512=TWO)
        for name in ("wrong.g3", "new.g3")
    ]
    with closing(
        CopyWriter(CopyTarget(Role.PRIMARY, "P01", fd, False), Event(), lambda *_: None)
    ) as s:
        s.add_to_manifest(group)
    os.close(fd)
    wrong, new = group
    assert str(wrong.fault) == "manifest-sha512.txt: the text at byte 144 is not a manifest line"
    assert (wrong.line, new.fault, new.line) == (
        None,
        None,
        ManifestLine(TWO, "new.g3", len(before)),
    )
    assert (tmp_path / MANIFEST).read_bytes() == before + f"{TWO}  data/new.g3\n".encode()


def test_repair_goes_on_past_a_manifest_with_a_bad_line(world: World) -> None:
    """The copies are made again elsewhere; what can't be taken out of that manifest is said."""
    filled(world, *NAMES)
    harm(world, "P01", NAMES[3])
    harm(world, "S01", NAMES[5])
    world.run_pass("verify", "P01", "S01", check=1)
    path = manifest_of(world, "P01")
    path.write_bytes(b"X" + path.read_bytes()[1:])
    world.sql("UPDATE disks SET held_by = 'person', held_reason = 'x' WHERE label = 'P01'")
    world.run_pass("repair", check=0)
    assert NAMES[3] in world.archived("P02")
    world.sql("UPDATE disks SET held_by = NULL, held_reason = NULL WHERE label = 'P01'")
    world.leave_unchecked("the manifest is damaged")
    run = world.run_pass("repair", check=1)
    assert run.out.splitlines()[0] == (
        f"NOT REPAIRED {NAMES[3]}: P01: its bad copy there is not set aside: manifest-sha512.txt: "
        "the text at byte 0 is not a manifest line"
    )
    assert (world.data("P01") / NAMES[3]).exists()


@pytest.mark.parametrize("what", ["a link", "a directory", "a pipe"])
def test_a_manifest_that_is_no_file_is_not_the_drives_fault(world: World, what: str) -> None:
    """``verify`` reads every copy, and says what stands in its place."""
    filled(world, "a.g3")
    path = manifest_of(world, "P01")
    path.unlink()
    {"a link": lambda: path.symlink_to("x"), "a directory": path.mkdir,
     "a pipe": lambda: os.mkfifo(path)}[what]()  # fmt: skip
    world.leave_unchecked("the manifest is gone")
    run = world.run_pass("verify", "P01", check=1)
    assert "manifest-sha512.txt is not a file" in run.out
    assert {kind for kind, _ in world.notices()} == {"disk-wrong"}


# --- lists and settings -----------------------------------------------------------------------


def huge(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    os.truncate(path, LONG_BYTES)
    return path


def test_a_huge_packing_list_closes_nothing(world: World) -> None:
    """It is named with its byte; the run goes on, in bounded memory."""
    filled(world, "a.g3")
    world.run_pass("close", "--yes", "P01", check=0)
    (packing_list,) = world.db_path.with_name("packing-lists").iterdir()
    huge(packing_list)
    world.sql("UPDATE disks SET state = 'active' WHERE label = 'P01'")
    world.sql("DELETE FROM disk_events WHERE event = 'sealed'")
    (world.disks["P01"]).rename(world.root / "away")
    world.leave_unchecked("the disk is away")
    run = bounded(world, "generate_db.py", "--from-disks", check=1)
    assert (
        f"P01: NOT CLOSED BY ITS PACKING LIST: {packing_list.name}: the text at byte 0 is not "
        "a manifest line" in run.out
    )


def test_an_earlier_list_of_any_size_is_compared_in_little_memory(world: World) -> None:
    """It is of the drive's earlier life: it stays, and the new one is put beside it."""
    filled(world, "a.g3")
    lists = world.db_path.with_name("packing-lists")
    lists.mkdir()
    whole = manifest_of(world, "P01").read_bytes()
    old = huge(lists / "P01-ZTP01AA.sha512", whole)
    bounded(world, "data_manager.py", "close", "--yes", "P01", check=0)
    assert old.stat().st_size == LONG_BYTES
    (new,) = set(lists.iterdir()) - {old}
    assert new.read_bytes() == whole


def test_a_huge_configuration_is_refused_in_a_sentence(world: World) -> None:
    """Exit 2; a file of 1 MiB is none that a person wrote."""
    world.generate()
    huge(world.config_path, world.config_path.read_bytes())
    run = bounded(world, "data_manager.py", check=2)
    assert f"{world.config_path}: is larger than 1 MiB; this is another file" in run.err


def test_a_huge_disk_map_is_refused_in_a_sentence(world: World) -> None:
    """The same of the disk-map; nothing was changed."""
    huge(world.disk_map_path)
    run = bounded(world, "generate_db.py", "--disk-map", str(world.disk_map_path), check=2)
    assert f"{world.disk_map_path}: is larger than 1 MiB; this is another file" in run.err
    assert not world.db_path.exists()


@pytest.mark.parametrize("what", ["huge", "a pipe"])
def test_secrets_that_are_no_file_stop_nothing(world: World, what: str) -> None:
    """The pass goes on without them, and says so."""
    world.generate()
    world.put("a.g3")
    path = world.config_path.with_name(".env")
    if what == "huge":
        huge(path)
    else:
        os.mkfifo(path)
    bounded(world, "data_manager.py", check=0)
    assert world.waiting() == set()
    why = "is larger than 1 MiB; this is another file" if what == "huge" else "it is a pipe"
    assert f"{path}: can't be read ({why}); what it holds is not used" in world.log()


@pytest.mark.parametrize("what", ["zeros", "huge", "a pipe", "a directory"])
def test_a_mark_that_can_not_be_read_makes_it_another_disk(world: World, what: str) -> None:
    """Not the drive's fault: the pass says disk-wrong, and P02 takes the file."""
    filled(world, "a.g3")
    mark = world.disks["P01"] / bag.MARK
    whole = mark.read_bytes()
    if what == "zeros":
        mark.write_bytes(bytes(len(whole)))
    elif what == "huge":
        mark.write_bytes(b"")
        os.truncate(mark, LONG_BYTES)
    else:
        mark.unlink()
        mark.mkdir() if what == "a directory" else os.mkfifo(mark)
    world.put("b.g3")
    world.leave_unchecked("the mark is damaged")
    bounded(world, "data_manager.py", check=1)
    assert "b.g3" in world.archived("P02") & world.archived("S01")
    assert ("disk-wrong", "P01") in world.notices()
