"""Shipments, receipts from up north, and the season report, on stand-ins."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.lost_database import rows
from tests.helpers.world import REPO, World

CHECK = REPO / "examples/check-disk"
FIRST, SECOND, THIRD = (f"fullrate/RCW38/80296951/{number:04}.g3" for number in (0, 1, 3))
STATES = "SELECT f.name, c.state FROM copies c JOIN files f ON f.id = file_id "
STATES += "JOIN disks d ON d.id = disk_id WHERE d.label = 'P01' ORDER BY 1"


@pytest.fixture
def closed(world: World) -> World:
    """P01 is full and closed, S01 still in use; three files."""
    world.generate()
    for name in (FIRST, SECOND, THIRD):
        world.put(name, 1000)
    world.run_pass(check=0)
    world.run_pass("close", "P01", check=0)
    return world


@pytest.fixture
def shipped(closed: World) -> World:
    """P01 has left, with its list."""
    closed.run_pass("ship", "P01", "--box", "Box 3", "--to", "Chicago", check=0)
    return closed


def state_of_p01(world: World) -> str:
    (state,) = rows(world, "SELECT state FROM disks WHERE serial = 'ZTP01AA'")[0]
    return str(state)


def packing_list(world: World) -> Path:
    return world.db_path.parent / f"packing-lists/P01-{world.serials['P01']}.sha512"


def check_disk(world: World, code: int, *options: str) -> Path:
    """Run check-disk on P01; its receipt."""
    command = [str(CHECK), *options, str(packing_list(world)), str(world.mounts)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == code, ran
    return packing_list(world).with_suffix(".receipt")


def edited(receipt: Path, old: str, new: str) -> str:
    text = receipt.read_text()
    assert old in text
    receipt.write_text(text.replace(old, new))
    return str(receipt)


def harm(world: World) -> None:
    """One file has other content, one is gone, and one is there that nobody knows."""
    data = world.disks["P01"] / "data"
    (data / FIRST).chmod(0o644)
    (data / FIRST).write_bytes(b"other")
    (data / SECOND).unlink()
    (data / "new\nline").touch()
    world.spoil("P01", None, "the test changed it up north")


# --- shipments ----------------------------------------------------------------------------


def test_a_shipment_has_a_sheet_for_its_crate(closed: World) -> None:
    """As text and to print: what is in it, and how to check it."""
    out = closed.run_pass("ship", "P01", "--box", "Box 3", "--to", "<Chicago>", check=0).out
    day = rows(closed, "SELECT shipped_at FROM shipments")[0][0][:10]
    text, page = (closed.db_path.parent / f"shipments/{day}-box-3.{end}" for end in ("txt", "html"))
    assert f"For the crate: {page} (to print), {text.name}" in out
    total = subprocess.run(["sha512sum", packing_list(closed)], capture_output=True, text=True)
    lines = text.read_text().splitlines()
    assert lines[:7] == [
        f"Shipment of {day}, box Box 3, to <Chicago>",
        "1 disk, 3 files, 3 kB",
        "",
        f"P01  primary  serial ZTP01AA  logical ID {closed.logical_id('P01')}",
        "    3 files, 3 kB",
        f"    first: {FIRST}",
        f"    last:  {THIRD}",
    ]
    assert lines[8] == f"    {total.stdout.split()[0]}"
    assert "&lt;Chicago&gt;" in page.read_text() and "<Chicago>" not in page.read_text()
    assert total.stdout.split()[0] in page.read_text()


def test_a_disk_that_did_not_leave_is_closed_again(shipped: World) -> None:
    """Its sheet goes with it; after that it can be shipped, and checked, as before."""
    assert "P01 (ZTP01AA) is closed again" in shipped.run_pass("ship", "--undo", "P01", check=0).out
    assert state_of_p01(shipped) == "closed"
    assert list((shipped.db_path.parent / "shipments").iterdir()) == []
    assert rows(shipped, "SELECT * FROM shipments") == []
    assert "closed: only" in shipped.run_pass("ship", "--undo", "P01", check=2).err
    shipped.run_pass(check=0)
    shipped.run_pass("ship", "P01", check=0)
    shipped.run_pass("received", str(check_disk(shipped, 0)), check=0)
    refused = shipped.run_pass("ship", "--undo", "ZTP01AA", check=2).err
    assert "P01 is received: only a disk that is shipped can be taken back" in refused


def test_undo_is_refused_once_another_drive_has_the_label(shipped: World) -> None:
    """Two disks at the station never have one label."""
    shipped.add_disk("P01", "ZTNEW")
    shipped.generate()
    answer = shipped.run_pass("ship", "--undo", "ZTP01AA", check=2).err
    assert "The label P01 belongs to the drive ZTNEW (spare) now" in answer
    assert "forget P01" in answer
    shipped.run_pass("forget", "P01", check=0)
    shipped.serials["P01"] = "ZTP01AA"
    shipped.run_pass("ship", "--undo", "P01", check=0)


# --- receipts -----------------------------------------------------------------------------


def test_an_intact_disk_is_received_and_its_copies_are_confirmed(shipped: World) -> None:
    """status, locate and the database say so; before that, status names the disk."""
    assert "Shipped    P01 (not confirmed since " in shipped.status().out
    receipt = check_disk(shipped, 0, "--by", "Jane Doe\n")
    out = shipped.run_pass("received", str(receipt), check=0).out
    assert out.startswith("P01 (ZTP01AA) was received: 3 files, all intact; checked 20")
    assert out.endswith("by Jane Doe.\n")
    assert state_of_p01(shipped) == "received"
    status = shipped.status().out
    assert "Received   P01" in status and "Confirmed  3 of 3 files, by receipts" in status
    located = shipped.run_pass("locate", FIRST, check=0).out
    assert "P01 primary ZTP01AA: received, received 20" in located
    assert located.count("confirmed by a receipt") == 1
    (found,) = shipped.run_pass("locate", "--json", FIRST, check=0).json()
    assert [place["confirmed"] for place in found["places"]] == [True, False]


def test_what_did_not_arrive_intact_is_damaged_there_and_repaired(shipped: World) -> None:
    """The copies are made again from the other ones; then nothing is open."""
    harm(shipped)
    receipt = check_disk(shipped, 1)
    assert receipt.read_text().endswith(
        f"\nbad data/{FIRST}\nmissing data/{SECOND}\nextra data/new?line\n"
    )
    out = shipped.run_pass("received", str(receipt), check=1).out
    assert "of 3 files 2 did not arrive intact (1 bad, 1 missing), " + FIRST in out
    assert "1 file there is not on its packing list" in out
    assert rows(shipped, STATES) == [(FIRST, "damaged"), (SECOND, "missing"), (THIRD, "good")]
    assert shipped.notices() == {("copy-damaged", "ZTP01AA")}
    shipped.run_pass("repair", check=0)
    assert shipped.notices() == set()
    assert "1 of 3 files, by receipts" in shipped.status().out


def test_a_receipt_counts_once_and_a_later_one_replaces_it(shipped: World) -> None:
    """A loose cable up north: checked again, all is intact."""
    harm(shipped)
    first = check_disk(shipped, 1)
    early = shipped.root / "early"
    early.write_text(edited_time(first, "2026-02-01T00:00:00Z"))
    shipped.run_pass("received", str(early), check=1)
    before = rows(shipped, "SELECT * FROM disk_events"), rows(shipped, "SELECT * FROM receipts")
    assert "was imported before" in shipped.run_pass("received", str(early), check=1).out
    after = rows(shipped, "SELECT * FROM disk_events"), rows(shipped, "SELECT * FROM receipts")
    assert after == before
    later = shipped.root / "later"
    text = edited_time(first, "2026-02-02T00:00:00Z").partition("\n\n")[0]
    for old, new in (("Bad: 1", "Bad: 0"), ("Missing: 1", "Missing: 0"), ("Extra: 1", "Extra: 0")):
        text = text.replace(old, new)
    later.write_text(text.replace("not intact", "intact"))
    shipped.run_pass("received", str(later), check=0)
    assert {state for _, state in rows(shipped, STATES)} == {"good"}
    assert shipped.notices() == set()
    early.write_text(edited_time(first, "2026-02-01T12:00:00Z"))
    assert "a later receipt, of 2026-02-02" in shipped.run_pass("received", str(early), check=1).out
    assert {state for _, state in rows(shipped, STATES)} == {"good"}


def edited_time(receipt: Path, at: str) -> str:
    lines = receipt.read_text().split("\n")
    return "\n".join(f"Checked: {at}" if line.startswith("Checked: ") else line for line in lines)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Serial: ZTP01AA", "Serial: ZTOTHER", "P01 (ZTOTHER) is not a disk of this archive"),
        ("Label: P01", "Label: P02", "that drive is P01"),
        ("List-SHA-512: ", "List-SHA-512: 0", "a packing list that was not sent from here"),
        ("Receipt: 1", "Receipt: 2", "its first line is not 'Receipt: 1'"),
        ("Missing: 1", "Missing: 2", "it announces 2 missing, and lists 1: was it cut?"),
        ("\nextra data/new?line", "", "it announces 1 extra, and lists 0: was it cut?"),
        ("Verdict: not intact", "Verdict: intact", "which its lines contradict"),
        ("Checked: 20", "Checked: 21", "in the future"),
        ("By: ", "Bye: ", "it has no line 'By: '"),
        ("bad data/full", "sad data/full", "is not understood"),
        ("bad data/full", "bad data/half", "which was never put on that disk"),
        ("Files: 3", "Files: many", "not a usable receipt"),
    ],
)
def test_a_receipt_that_is_not_ours_is_refused_by_name(
    shipped: World, old: str, new: str, why: str
) -> None:
    """Nothing is changed; another receipt of the same call would be imported."""
    harm(shipped)
    receipt = edited(check_disk(shipped, 1), old, new)
    run = shipped.run_pass("received", receipt, check=2)
    assert why in run.err and "Nothing was changed" in run.err
    assert state_of_p01(shipped) == "shipped"
    assert rows(shipped, "SELECT * FROM receipts") == []


def test_the_other_receipts_of_a_call_are_imported(shipped: World) -> None:
    """One bad file neither stops the rest nor hides."""
    receipt = check_disk(shipped, 0)
    run = shipped.run_pass("received", "/dev/null", str(receipt), check=1)
    assert "/dev/null is not a usable receipt: it is not a regular file" in run.err
    assert state_of_p01(shipped) == "received"


def test_a_receipt_of_a_disk_that_has_not_left_is_refused(closed: World) -> None:
    """The refusal says what to do first."""
    run = closed.run_pass("received", str(check_disk(closed, 0)), check=2)
    assert "is closed, not shipped" in run.err and "data_manager.py ship P01" in run.err


def test_a_receipt_survives_a_mail_program(shipped: World) -> None:
    """Other line ends, a byte order mark, blank lines at its end."""
    receipt = check_disk(shipped, 0)
    data = receipt.read_bytes().replace(b"\n", b"\r\n")
    receipt.write_bytes(b"\xef\xbb\xbf" + data + b"\r\n\r\n")
    shipped.run_pass("received", str(receipt), check=0)


def test_a_lost_disk_whose_other_copies_are_on_the_way_is_a_warning_with_numbers(
    shipped: World,
) -> None:
    """Without a receipt nobody knows whether they arrive; with one there is no warning."""
    shipped.disks["S01"].rename(shipped.root / "S01")
    warning = "WARNING: 3 files (3 kB) that S01 had can be read nowhere else at the station"
    assert warning in shipped.run_pass("lost", "S01", "--why", "fell", check=0).out
    shipped.run_pass("lost", "--undo", "S01", check=0)
    shipped.run_pass("received", str(check_disk(shipped, 0)), check=0)
    assert "WARNING" not in shipped.run_pass("lost", "S01", "--why", "fell", check=0).out
    shipped.spoil("S01", None, "it is lost")
    (shipped.root / "S01").rename(shipped.disks["S01"])


# --- check-disk ---------------------------------------------------------------------------


def test_check_disk_continues_where_it_was_interrupted(shipped: World) -> None:
    """What was read is not read again, except the last file, whose line may be torn."""
    progress = packing_list(shipped).with_suffix(".progress")
    harm(shipped)
    progress.write_text(f"good data/{FIRST}\ngood data/{SECOND}\ngo")
    receipt = check_disk(shipped, 0).read_text()
    assert "Bad: 0" in receipt and "Missing: 0" in receipt  # by the two lines that were kept
    assert not progress.exists()
    progress.write_text(f"good data/{SECOND}\ngood data/{FIRST}\ngood data/{THIRD}\n")
    assert "Bad: 1\nUnreadable: 0\nMissing: 1\n" in check_disk(shipped, 1).read_text()


def test_check_disk_shows_its_progress_on_a_terminal(shipped: World) -> None:
    """And nothing of it in a log."""
    ours, its = os.openpty()
    command = [str(CHECK), str(packing_list(shipped)), str(shipped.mounts)]
    subprocess.run(command, stderr=its, stdout=subprocess.DEVNULL, timeout=60, check=True)
    os.close(its)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "P01: 33 %, 1 of 3 files" in shown and "P01: 3 of 3 files were read" in shown


def test_check_disk_names_what_is_wrong_with_the_disks_own_files(shipped: World) -> None:
    """They are no files of the telescope: the copies stay confirmed."""
    (shipped.disks["P01"] / "README.txt").write_text("other")
    (shipped.disks["P01"] / "bagit.txt").unlink()
    shipped.spoil("P01", None, "the test changed it up north")
    receipt = check_disk(shipped, 1)
    assert receipt.read_text().endswith("\nmissing bagit.txt\nbad README.txt\n")
    out = shipped.run_pass("received", str(receipt), check=1).out
    assert "3 files, all intact" in out
    assert "The disk's own files are not intact: bagit.txt, README.txt." in out
    assert {state for _, state in rows(shipped, STATES)} == {"good"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "usage"),
        (["--by"], "--by needs a name"),
        (["nowhere.sha512"], "No such file"),
        (["/dev/null"], "is not a packing list"),
    ],
)
def test_check_disk_refuses_wrong_usage(arguments: list[str], why: str, tmp_path: Path) -> None:
    """Exit code 2, and no receipt."""
    command = [str(CHECK), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ran.returncode == 2 and why in ran.stderr
    assert list(tmp_path.iterdir()) == []


# --- the season ---------------------------------------------------------------------------


def test_the_season_report_lists_each_observation_and_its_gaps(shipped: World) -> None:
    """0002 was never there; one file is confirmed after a bad crossing, two are not."""
    harm(shipped)
    shipped.run_pass("received", str(check_disk(shipped, 1)), check=1)
    shipped.put("other.g3", 5)
    shipped.run_pass(check=0)
    shipped.sql(
        "INSERT INTO content_checks SELECT id, archived_at, 'suspect', 'cut off' FROM files "
        "WHERE name LIKE '%/80296951/0001.g3'"
    )
    out = shipped.run_pass("season", check=0).out
    (line,) = (line for line in out.splitlines() if line.startswith("fullrate/RCW38"))
    assert line.split()[:5] == ["fullrate/RCW38", "80296951", "3", "3", "kB"]
    assert (
        "P01 S01" in line
        and "1 confirmed, 2 here, 1 SUSPECT CONTENT" in line
        and line.endswith("  0002")
    )
    assert out.endswith("4 files in all; not confirmed by a receipt: 3\n")
    path = shipped.root / "season.csv"
    shipped.run_pass("season", "--csv", str(path), check=0)
    shipped.run_pass("season", "--csv", str(path), check=0)
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    columns = ("observation", "files", "suspect", "gaps")
    assert [tuple(row[column] for column in columns) for row in found] == [
        ("", "1", "0", ""),
        ("80296951", "3", "1", "0002"),
    ]
    path.write_text("mine")
    assert "not ours" in shipped.run_pass("season", "--csv", str(path), check=2).err


def test_a_packing_list_that_can_not_be_read_keeps_its_disk_here(closed: World) -> None:
    """No receipt could be compared with it: exit 2, and nothing is changed."""
    path = packing_list(closed)
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    run = closed.run_pass("ship", "P01", check=2)
    assert f"{path} can't be read" in run.err and "Nothing was changed" in run.err
    assert state_of_p01(closed) == "closed"
    path.rmdir()
    path.write_bytes(content)
