"""Lines of a disk-map from the drives that are here: kept, completed, and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata import disk_map
from poledata.disk_map import Entry
from poledata.errors import DiskMapFault
from poledata.smart import ids
from poledata.smart.ids import Compared, Identity

SATA = Identity(None, "ZA12JCHM", "0x5000c500858bfea7", "ST8000NM0055", ("/dev/sda",))
SAS = Identity(None, "ZL22PHAL0000C0048NEQ", "0x5000c500a1b2c3d0", None, ("/dev/sdb", "/dev/sdc"))


def entries(path: Path, text: str) -> tuple[Entry, ...]:
    (path / "map").write_text(text)
    return disk_map.read(path / "map", may_lack_ids=True)


def compare(path: Path, text: str) -> Compared:
    return ids.compare([SATA, SAS], entries(path, text))


def test_a_map_that_is_right_is_printed_as_it_is(tmp_path: Path) -> None:
    """Order, labels and serials are kept, also one that is the beginning of a drive's own."""
    lines = "S01 ZL22PHAL 0x5000c500a1b2c3d0\nP01 ZA12JCHM 0x5000c500858bfea7\n"
    found = compare(tmp_path, lines)
    assert [drive.line for drive in found.identities] == lines.splitlines()
    assert found.differences == ()


def test_a_line_without_an_id_is_completed(tmp_path: Path) -> None:
    """A person reads the serial off the sticker; the rest comes from the drive."""
    found = compare(tmp_path, "P01 ZA12JCHM\nS01 ZL22PHAL\n")
    assert [drive.line for drive in found.identities] == [
        "P01 ZA12JCHM 0x5000c500858bfea7",
        "S01 ZL22PHAL 0x5000c500a1b2c3d0",
    ]
    assert found.differences == ()


def test_every_difference_is_said(tmp_path: Path) -> None:
    """Another ID, a line without a drive, a drive without a line."""
    found = compare(tmp_path, "P01 ZA12JCHM 0x5000c500858bfeff\nP02 ZA13KDIN 0x5000c500858bfeb8\n")
    assert found.differences == (
        "P01 ZA12JCHM: its logical ID is 0x5000c500858bfea7, not 0x5000c500858bfeff",
        "P02 ZA13KDIN: no drive here has this serial",
        "/dev/sdb, /dev/sdc: serial ZL22PHAL0000C0048NEQ is not in the disk-map",
    )
    assert [drive.line for drive in found.identities] == [
        "P01 ZA12JCHM 0x5000c500858bfea7",
        "P02 ZA13KDIN 0x5000c500858bfeb8",
        "ZL22PHAL0000C0048NEQ 0x5000c500a1b2c3d0",
    ]


def test_a_beginning_that_two_drives_share_needs_the_id(tmp_path: Path) -> None:
    """Without it neither is taken."""
    twin = Identity(None, "ZL22PHAL0000C0048XXX", "0x5000c500a1b2c3e0", None, ("/dev/sdd",))
    told = ids.compare([SAS, twin], entries(tmp_path, "S01 ZL22PHAL 0x5000c500a1b2c3e0\n"))
    assert told.identities[0].devices == ("/dev/sdd",)
    untold = ids.compare([SAS, twin], entries(tmp_path, "S01 ZL22PHAL\n"))
    assert untold.differences[0] == "S01 ZL22PHAL: no drive here has this serial"


def test_only_here_may_a_line_lack_its_id(tmp_path: Path) -> None:
    """A database is never made of half a map."""
    entries(tmp_path, "P01 ZA12JCHM\n")
    with pytest.raises(DiskMapFault) as fault:
        disk_map.read(tmp_path / "map")
    assert str(fault.value) == (
        f"{tmp_path}/map:1: has 2 columns, not three: separate label, serial and "
        "logical ID by spaces, not commas\n"
        "Nothing was changed."
    )


@pytest.mark.parametrize(
    ("drive", "why"),
    [
        (SATA, None),
        (
            Identity(None, None, None, None, ("/dev/sdh",)),
            "/dev/sdh: smartctl can't ask it who it is (a USB bridge, a RAID volume, dead?)",
        ),
        (
            Identity(None, "ZA14NOWWN", None, None, ("/dev/sdb",)),
            "/dev/sdb: serial ZA14NOWWN has no logical ID (WWN): no disk-map can name it",
        ),
    ],
)
def test_a_drive_that_no_map_can_name_is_said(drive: Identity, why: str | None) -> None:
    """A disk-map needs both."""
    assert ids.unusable(drive) == why


serials = st.text("ABCDEF0123456789", min_size=8, max_size=20)


@given(st.dictionaries(serials, st.integers(1, 2**60), max_size=8), st.randoms())
def test_no_drive_and_no_line_is_ever_lost(drives: dict[str, int], random: object) -> None:
    """Whatever is compared: each line and each drive stands in the result, or is its drive."""
    found = [
        Identity(None, serial, f"0x{number:016x}", None, (f"/dev/{n}",))
        for n, (serial, number) in enumerate(drives.items())
    ]
    half = [
        Entry(f"P{n:02}", disk_map.DEFAULT_PREFIXES.role_of("P01"), serial[:8], "", n)  # type: ignore[arg-type]
        for n, serial in enumerate(list(drives)[::2], 1)
    ]
    compared = ids.compare(found, half)
    assert [each.label for each in compared.identities][: len(half)] == [e.label for e in half]
    devices = [device for each in compared.identities for device in each.devices]
    assert sorted(devices) == sorted(device for each in found for device in each.devices)
