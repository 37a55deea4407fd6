"""A bug hit while working on one thing: it is reported, and all other work is finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import pytest

import poledata.archive.batch
import poledata.archive.buffer
import poledata.archive.copier
import poledata.archive.disk_writer
import poledata.archive.planner
import poledata.archive.removal
import poledata.archive.run
import poledata.db.files
import poledata.disks.catalog_copy
import poledata.disks.disk_faults
import poledata.disks.lifecycle
import poledata.disks.mounted_disks
import poledata.formatting
import poledata.maintenance.read_bags
import poledata.maintenance.verify
import poledata.notices.message
import poledata.notices.send
import poledata.status.collect
import poledata.status.publish
from poledata.models import Disk
from poledata.notices import defects
from poledata.smart import check as smart_check
from poledata.smart.smartctl import FoundDrive
from tests.helpers.bugs import name_of, with_bug
from tests.helpers.recorded_drives import all_well, check
from tests.helpers.world import World

BAD, GOOD = "b/0dd.g3", {"a/0000.g3", "b/0001.g3", "c/0002.g3"}
HIDDEN = "b/.0dd.g3.removing"
IS_BAD = "'0dd.g3' in repr(args[:2])"


def try_at_once(world: World) -> None:
    """Let the files that failed be due now, as they are after their wait."""
    world.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")


@pytest.fixture
def full(world: World) -> World:
    """A station with four files in its buffer, which the checks at the end call low on spares."""
    world.configure(SpareDisksLow="9")
    world.generate()
    for name in (*GOOD, BAD):
        world.put(name)
    return world


# --- a file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (poledata.formatting, "why_not_carried"),
        (poledata.archive.planner, "Planner._place"),
        (poledata.archive.copier, "_must_agree"),
        (poledata.archive.disk_writer, "CopyWriter.begin"),
        (poledata.archive.disk_writer, "CopyWriter.link"),
        (poledata.archive.disk_writer, "CopyWriter.add_to_manifest"),
        (poledata.db.files, "register"),
        (poledata.archive.batch, "Batches._judge"),
        (poledata.archive.removal, "Removal._hide_if_proved"),
        (poledata.archive.removal, "Removal._remove_hidden"),
        (poledata.archive.removal, "may_remove"),
    ],
    ids=name_of,
)
def test_a_bug_at_a_file_keeps_that_file_and_stops_no_other(
    full: World, module: ModuleType, path: str
) -> None:
    """The others are archived and removed, the last checks are made; then the script ends with 3.

    Once the program is right the file goes its way, and the notice ends.
    """
    run = full.run_pass(check=3, prefix=with_bug(module, path, IS_BAD))
    assert run.err.startswith("This program hit a bug (")
    assert full.waiting() in ({BAD}, {HIDDEN})
    assert full.archived("P01") >= GOOD
    assert full.archived("S01") >= GOOD
    low = {("spares-low", "primary"), ("spares-low", "copy")}
    assert full.notices() in ({("defect", BAD), *low}, {("defect", HIDDEN), *low})
    assert "Traceback (most recent call last)" in full.log()
    assert full.status().out.startswith("ACT NOW")
    (row,) = full.sql("SELECT kind, attempts FROM pending")
    assert tuple(row) == ("defect", 1)
    try_at_once(full)
    full.run_pass(check=(0, 1))
    try_at_once(full)
    full.run_pass(check=0)
    assert full.waiting() == set()
    assert full.notices() == low


def test_a_bug_when_a_known_file_is_looked_at_keeps_it(full: World) -> None:
    """Of files that are archived already, those without the bug leave the buffer."""
    full.configure(DeleteFromBuffer="no")
    full.run_pass(check=0)
    full.configure(DeleteFromBuffer="yes")
    full.run_pass(check=3, prefix=with_bug(poledata.archive.batch, "_hash_once", IS_BAD))
    assert full.waiting() == {BAD}
    assert ("defect", BAD) in full.notices()


def test_an_entry_that_can_not_be_looked_at_hides_no_other(full: World) -> None:
    """An I/O error at one file of a directory is that file's: the others are archived."""
    when = f"args[1] == {'0dd.g3'!r}"
    bug = with_bug(poledata.archive.buffer, "_stat_entry", when)
    prefix = (
        *bug[:2],
        bug[2].replace("RuntimeError('bo\\nom')", "OSError(5, 'Input/output error')"),
    )
    full.run_pass(check=1, prefix=prefix)
    assert full.waiting() == {BAD}
    (row,) = full.sql("SELECT name, last_error FROM pending")
    assert tuple(row) == (BAD, "it can't be looked at (Input/output error)")
    try_at_once(full)
    full.run_pass(check=0)
    assert full.waiting() == set()


# --- a disk -------------------------------------------------------------------------------


def test_a_bug_at_a_disk_lets_the_next_one_take_the_files(full: World) -> None:
    """That disk is refused; once the program is right the next look ends the notice."""
    when = "args[1].label == 'P01'"
    full.run_pass(check=3, prefix=with_bug(poledata.disks.mounted_disks, "prove", when))
    assert full.waiting() == set()
    assert full.archived("P02") == {*GOOD, BAD}
    assert ("defect", "P01") in full.notices()
    full.run_pass(check=0)
    assert ("defect", "P01") not in full.notices()


@pytest.mark.parametrize(
    ("module", "path", "about"),
    [
        (poledata.disks.disk_faults, "DiskFaults.end_of_pass", "failing disks"),
        (poledata.disks.catalog_copy, "is_due", "P01: copying the database"),
        (poledata.disks.lifecycle, "clear_no_good_copy", "files without a good copy"),
        (poledata.disks.disk_faults, "DiskFaults.close_full", "full disks"),
        (poledata.archive.run, "_Pass._note_a_crash", "the last pass"),
        (poledata.notices.send, "heartbeat", "heartbeat"),
    ],
    ids=name_of,
)
def test_a_bug_in_one_check_stops_neither_files_nor_other_checks(
    full: World, module: ModuleType, path: str, about: str
) -> None:
    """The notice ends when the same work is done without the bug."""
    full.run_pass(check=3, prefix=with_bug(module, path, "True"))
    assert full.waiting() == set()
    assert {("defect", about), ("spares-low", "primary")} <= full.notices()
    full.put("d/0003.g3")
    for label in ("P01", "S01"):
        (full.disks[label] / "catalogue.sqlite").unlink(missing_ok=True)
    full.run_pass(check=0)
    assert not any(kind == "defect" for kind, _ in full.notices())


def test_a_bug_outside_all_units_is_a_critical_notice_too(full: World) -> None:
    """Until a pass comes to its end."""
    full.run_pass(
        check=3, prefix=with_bug(poledata.archive.run, "_Pass._count_what_is_left", "True")
    )
    assert ("defect", "the pass") in full.notices()
    full.run_pass(check=0)
    assert not any(kind == "defect" for kind, _ in full.notices())


def test_a_bug_in_the_page_leaves_the_metrics(full: World) -> None:
    """And the pass has done its work."""
    page, metrics = full.root / "page.html", full.root / "pole.prom"
    full.configure(StatusPage=str(page), MetricsFile=str(metrics))
    full.run_pass(check=3, prefix=with_bug(poledata.status.publish, "write_page", "True"))
    assert (page.exists(), metrics.exists()) == (False, True)
    assert ("defect", "status page") in full.notices()
    full.run_pass(check=0)
    assert page.exists()
    assert ("defect", "status page") not in full.notices()


# --- commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "when", "good"),
    [
        ("_Reading.verify_one", "'0dd.g3' in repr(args[1])", 7),
        ("verify", "args[1].label == 'P01'", 4),
    ],
)
def test_a_bug_in_a_verification_is_kept_to_its_copy_or_disk(
    full: World, path: str, when: str, good: int
) -> None:
    """Everything else is read, and the command ends with 3."""
    full.run_pass(check=0)
    if path == "_Reading.verify_one":
        when = f"{when} and args[0].held.disk.label == 'P01'"
    run = full.run_pass("verify", "--json", "P01", "S01", check=3,
                        prefix=with_bug(poledata.maintenance.verify, path, when))  # fmt: skip
    assert sum(verdict["good"] for verdict in run.json()) == good
    assert any(kind == "defect" and key.startswith("P01: ") for kind, key in full.notices())
    full.run_pass("verify", "P01", "S01", check=0)
    assert not any(kind == "defect" for kind, _ in full.notices())


def test_a_bug_in_a_repair_is_kept_to_its_file(full: World) -> None:
    """The other copies are made again."""
    full.run_pass(check=0)
    for name in (*GOOD, BAD):
        full.spoil("P01", name, "it is gone")
        (full.data("P01") / name).unlink()
    full.run_pass("verify", "P01", check=1)
    full.run_pass(
        "repair", check=3, prefix=with_bug(poledata.archive.copier, "_must_agree", IS_BAD)
    )
    assert full.archived("P01") == GOOD
    assert ("defect", f"repair: {BAD}") in full.notices()
    full.run_pass("repair", check=0)
    assert full.archived("P01") == {*GOOD, BAD}
    assert not any(kind == "defect" for kind, _ in full.notices())


def test_a_bug_at_a_line_leaves_the_rest_of_the_database(full: World) -> None:
    """``--from-disks`` writes down all other lines."""
    full.run_pass(check=0)
    full.db_path.unlink()
    for place in full.disks.values():  # else the copy of the database there knows them all
        (place / "catalogue.sqlite").unlink(missing_ok=True)
    bug = with_bug(
        poledata.maintenance.read_bags, "_BagReading._register", "'0dd.g3' in repr(args[1])"
    )
    full.run("generate_db.py", "--from-disks", check=3, prefix=bug)
    assert {row["name"] for row in full.sql("SELECT name FROM files")} == GOOD
    full.run("generate_db.py", "--from-disks", check=0)
    assert {row["name"] for row in full.sql("SELECT name FROM files")} == {*GOOD, BAD}
    assert not any(kind == "defect" for kind, _ in full.notices())


# --- drives and channels -------------------------------------------------------------------


def test_a_bug_at_one_drive_leaves_the_others_checked(
    world: World, bugs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are judged and written down; the notice ends with the next check."""
    world.generate()
    real = smart_check.find

    def wrong(disk: Disk, found: Sequence[FoundDrive]) -> tuple[FoundDrive | None, str | None]:
        if disk.label == "P01":
            raise RuntimeError("boom")
        return real(disk, found)

    monkeypatch.setattr(smart_check, "find", wrong)
    assert check(world, *all_well(world)).keys() == {"P02", "S01", "S02"}
    assert world.sql("SELECT count(*) FROM smart_checks")[0][0] == 3
    assert world.notices() == {("defect", "P01: its SMART check")}
    assert bugs == ["P01: its SMART check"]
    monkeypatch.setattr(smart_check, "find", real)
    assert len(check(world, *all_well(world))) == 4
    assert world.notices() == set()


@pytest.mark.parametrize(
    ("module", "path"),
    [(poledata.status.collect, "collect"), (poledata.notices.message, "compose")],
    ids=name_of,
)
def test_news_go_out_though_they_can_not_be_written_out(
    full: World, module: ModuleType, path: str
) -> None:
    """A message without the state, or one that names the command to run."""
    heard = full.root / "heard"
    (full.root / ".env").write_text(f"POLE_PAGER_COMMAND=dd status=none of={heard}\n")
    (full.root / ".env").chmod(0o600)
    for label in ("P01", "P02"):
        full.run_pass("hold", "--yes", label, "--why", "test", check=0)
    full.run_pass(check=3, prefix=with_bug(module, path, "True"))
    assert heard.read_text().startswith("[pole-data]")
    assert ("no-disk", "primary") in full.notices()


# --- the helper ---------------------------------------------------------------------------


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the door would find."""
    found: list[str] = []
    monkeypatch.setattr(defects, "BUGS", found)
    yield found
