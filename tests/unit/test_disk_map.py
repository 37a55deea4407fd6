"""What a disk-map may hold, and how each fault is named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poledata.disk_map import Entry, read
from poledata.errors import DiskMapFault, ExitCode
from poledata.models import Prefixes, Role
from tests.helpers.world import REPO

ROOT = REPO
WWN = "0x5000c500858bfea7"
OTHER = "0x5000c500858bfea8"


def map_of(directory: Path, content: str | bytes) -> Path:
    path = directory / "disk-map"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def faults(path: Path, prefixes: Prefixes | None = None) -> list[str]:
    """The faults of the map, without its name."""
    with pytest.raises(DiskMapFault) as caught:
        read(path, prefixes or Prefixes())
    assert caught.value.exit_code == ExitCode.USAGE
    assert all(fault.startswith(f"{path}:") for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_a_map_gives_its_drives_in_order_with_their_lines(tmp_path: Path) -> None:
    """Comments, blank lines, tabs, Windows line ends and a byte order mark do no harm."""
    text = (
        "\ufeff# Kühlraum\r\n\r\n S01\tZL22PHAL  0x5000C500858BFEA8  # the second # shelf\r\n"
        f"\t# \r\nP01 SER#1 {WWN}\rP02 X 0X{'0' * 31}A"
    )
    assert read(map_of(tmp_path, text)) == (
        Entry("S01", Role.COPY, "ZL22PHAL", OTHER, 3),
        Entry("P01", Role.PRIMARY, "SER#1", WWN, 5),
        Entry("P02", Role.PRIMARY, "X", "0x" + "0" * 31 + "a", 6),
    )


def test_prefixes_decide_the_roles(tmp_path: Path) -> None:
    """Without a configuration they are P and S."""
    path = map_of(tmp_path, f"A7 Z1 {WWN}\nBB7 Z2 {OTHER}\n")
    entries = read(path, Prefixes(primary="A", copy="BB"))
    assert [entry.role for entry in entries] == [Role.PRIMARY, Role.COPY]
    assert faults(path) == [
        "1: label A7 has no role; a label is P (primary) or S (copy) and a number, e.g. P01",
        "2: label BB7 has no role; a label is P (primary) or S (copy) and a number, e.g. P01",
    ]


ID_FAULT = (
    "is malformed; right is 0x and 16 (or 32) hex digits, not all zeros, as get_drive_IDs.py "
    "prints it"
)
SPACES = "not three: separate label, serial and logical ID by spaces, not commas"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f"P02 {OTHER}", f"has 2 columns, {SPACES}"),
        ("P02,Z2,0x5000c500858bfea8", f"has 1 column, {SPACES}"),
        (f"P02 Z2 {OTHER} x", f"has 4 columns, {SPACES}"),
        (f"P Z2 {OTHER}",
         "label P has no role; a label is P (primary) or S (copy) and a number, e.g. P01"),
        (f"p02 Z2 {OTHER}",
         "label p02 has no role; a label is P (primary) or S (copy) and a number, e.g. P01"),
        (f"P02x Z2 {OTHER}",
         "label P02x has no role; a label is P (primary) or S (copy) and a number, e.g. P01"),
        (f"../P02 Z2 {OTHER}",
         "label ../P02 has no role; a label is P (primary) or S (copy) and a number, e.g. P01"),
        (f"P٢ Z2 {OTHER}",
         "label P٢ has no role; a label is P (primary) or S (copy) and a number, e.g. P01"),
        (f"P02 Zé {OTHER}", "serial Zé holds a character that is not printable ASCII"),
        (f"P02 Z\x1b[2J {OTHER}",
         "serial Z\\x1b[2J holds a character that is not printable ASCII"),
        ("P02 Z2 5000c500858bfea8", f"logical ID 5000c500858bfea8 {ID_FAULT}"),
        ("P02 Z2 0x5000c500858bfea", f"logical ID 0x5000c500858bfea {ID_FAULT}"),
        (f"P02 Z2 {OTHER}0", f"logical ID {OTHER}0 {ID_FAULT}"),
        ("P02 Z2 0x5000c500858bfeag", f"logical ID 0x5000c500858bfeag {ID_FAULT}"),
        ("P02 Z2 0x0000000000000000", f"logical ID 0x0000000000000000 {ID_FAULT}"),
        ("P02 0x5000c500858bfea8 Z2", f"logical ID Z2 {ID_FAULT}"),
        (f"P01 Z2 {OTHER}", "label P01 is on line 1 already; each may appear once"),
        (f"P1 Z2 {OTHER}", "label P1 is to a person the same as P01 on line 1"),
        (f"P02 Z1 {OTHER}", "serial Z1 is on line 1 already; each may appear once"),
        (f"P02 z1 {OTHER}", "serial z1 is to a person the same as Z1 on line 1"),
        (f"S02 Z2 {WWN}", f"logical ID {WWN} is on line 1 already; each may appear once"),
        ("S02 Z2 0x5000C500858BFEA7",
         f"logical ID 0x5000C500858BFEA7 is to a person the same as {WWN} on line 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, line: str, fault: str) -> None:
    """One mistake is one fault, also behind a comment."""
    path = map_of(tmp_path, f"P01 Z1 {WWN}\n# why\n{line}\nS07 Z7 0x5000c50000000007\n")
    assert faults(path) == [f"3: {fault}"]


def test_all_faults_are_told_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    """A line may have several; a faulty line still counts as the first of a repeated serial."""
    path = map_of(tmp_path, f"X1 Z1 0x0\nP1 z1 {WWN}\nP1\nP001 Z3 {WWN}\n")
    assert [(fault[0], fault[3:].split()[0]) for fault in faults(path)] == [
        ("1", "label"), ("1", "logical"), ("2", "serial"), ("3", "has"), ("4", "label"),
        ("4", "logical"),
    ]  # fmt: skip
    with pytest.raises(DiskMapFault, match=r"\nNothing was changed\.$"):
        read(path)


def test_the_same_number_in_both_roles_is_no_repeat(tmp_path: Path) -> None:
    """P01 and S01 are two disks, and no pair."""
    assert len(read(map_of(tmp_path, f"P01 Z1 {WWN}\nS01 Z2 {OTHER}\nP10 Z3 0x{'1' * 16}"))) == 3


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", " names no disk; a line is: label serial logical-ID"),
        (b"\xef\xbb\xbf# nothing\n\n", " names no disk; a line is: label serial logical-ID"),
        (b"# ok\nP01 \xff\n", " line 2 is not UTF-8; save the file as plain UTF-8 text"),
        (b"P01 A 0x\0\n", " line 1 holds a NUL byte; this is not a text file"),
        ("P01".encode("utf-16"), " line 1 is not UTF-8; save the file as plain UTF-8 text"),
    ],
)
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    assert faults(map_of(tmp_path, content)) == [fault]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path / "no") == [
        " can't be read (No such file or directory); name a disk-map"
    ]
    assert faults(tmp_path) == [" can't be read (Is a directory); name a disk-map"]


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
@settings(deadline=None)
def test_whatever_a_file_holds_only_a_map_fault_comes_out(content: bytes) -> None:
    """Odd content never ends in a traceback."""
    with pytest.raises(DiskMapFault):
        read(map_of(Path(os.environ["HOME"]), content))


@given(st.binary(max_size=40), st.integers(0, 60))
@settings(deadline=None)
def test_a_damaged_map_gives_whole_drives_or_a_fault(junk: bytes, at: int) -> None:
    """Whatever is spliced in, what comes out has a role, a number and a lower-case ID."""
    good = f"P01 Z1 {WWN}\nS01 Z2 {OTHER}\n".encode()
    path = map_of(Path(os.environ["HOME"]), good[:at] + junk + good[at:])
    try:
        entries = read(path)
    except DiskMapFault:
        return
    assert all(Prefixes().role_of(entry.label) is entry.role for entry in entries)
    assert all(entry.logical_id == entry.logical_id.lower() for entry in entries)
    assert all(entry.serial.isascii() and entry.serial.isprintable() for entry in entries)


PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)
SERIALS = st.text(PRINTABLE, min_size=1, max_size=20).filter(lambda serial: serial[0] != "#")
HEX = st.integers(1, 16**16 - 1).map("0x{:016x}".format) | st.integers(1, 16**32 - 1).map(
    "0x{:032x}".format
)
DRIVES = st.lists(
    st.tuples(st.sampled_from("PS"), st.integers(0, 999), SERIALS, HEX),
    min_size=1,
    max_size=8,
    unique_by=(lambda drive: drive[:2], lambda drive: drive[2].lower(), lambda drive: drive[3]),
)


@given(DRIVES, st.sampled_from(["\n", "\r\n", "\n\n# x\n", " # P09\n"]), st.integers(1, 4))
@settings(deadline=None)
def test_what_is_written_as_a_map_is_read_back(
    drives: list[tuple[str, int, str, str]], line_end: str, width: int
) -> None:
    """Every valid map comes back whole, whatever its serials hold and its numbers' width."""
    lines = [f"{p}{n:0{width}} {serial} {wwn}" for p, n, serial, wwn in drives]
    entries = read(map_of(Path(os.environ["HOME"]), line_end.join(lines) + line_end))
    assert [f"{e.label} {e.serial} {e.logical_id}" for e in entries] == lines


def test_the_shipped_map_is_the_season_and_plainly_invented() -> None:
    """42 primary and 28 copy disks; only the first drive is the one of the documents."""
    path = ROOT / "disk-map"
    first, *others = entries = read(path)
    assert f"{first.label} {first.serial} {first.logical_id}" == f"P01 ZA12JCHM {WWN}"
    labels = [f"P{n:02}" for n in range(1, 43)] + [f"S{n:02}" for n in range(1, 29)]
    assert [entry.label for entry in entries] == labels
    assert all(entry.serial == f"INVENT{entry.label}" for entry in others)
    assert "MADE UP" in path.read_text().split(f"\n{first.label} ")[0]


def test_the_demos_map_is_plainly_invented_and_shares_no_drive() -> None:
    """Its drives can never be taken for those of the real map."""
    path = ROOT / "disk-map-test"
    entries = read(path)
    assert [entry.label for entry in entries] == ["P01", "P02", "P03", "S01", "S02"]
    assert all(line.startswith("#") for line in path.read_text().splitlines()[:3])
    both = [*entries, *read(ROOT / "disk-map")]
    assert max(Counter(entry.serial for entry in both).values()) == 1
    assert max(Counter(entry.logical_id for entry in both).values()) == 1
