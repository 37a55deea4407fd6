"""Lines of a disk-map from the drives that are here: kept, completed, and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata import disk_map
from poledata.disk_map import Entry
from poledata.errors import DiskMapFault
from poledata.smart import ids
from poledata.smart.ids import Compared, Identity
from poledata.system.mounts import Drive

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


def test_a_drive_that_is_not_there_is_reported_as_missing() -> None:
    """It is no USB bridge."""
    gone = Identity(None, None, None, None, ("/dev/sdz",), fault="there is no such device")
    assert ids.unusable(gone) == "/dev/sdz: there is no such device"


def test_drives_that_share_an_id_are_two_lines_and_a_warning(tmp_path: Path) -> None:
    """Each keeps its own serial."""
    twin = replace(SATA, serial="ZA12TWIN", devices=("/dev/sdd",))
    text = "P01 ZA12TWIN 0x5000c500858bfea7\n"
    found = ids.compare([SATA, twin], entries(tmp_path, text))
    assert [drive.devices for drive in found.identities] == [("/dev/sdd",), ("/dev/sda",)]
    assert ids.shared_ids([SATA, SAS, twin]) == [
        "/dev/sda and /dev/sdd are different drives with the same logical ID 0x5000c500858bfea7: "
        "a disk-map can name only one of them"
    ]
    assert ids.shared_ids([SATA, SAS]) == []


def test_a_space_of_a_serial_is_an_underscore_in_a_disk_map(tmp_path: Path) -> None:
    """The columns are separated by spaces; either form is understood."""
    spaced = replace(SATA, serial="ZA12 JCHM")
    assert spaced.line == "ZA12_JCHM 0x5000c500858bfea7"
    found = ids.compare([spaced], entries(tmp_path, "P01 ZA12_JCHM 0x5000c500858bfea7\n"))
    assert found.identities[0].line == "P01 ZA12_JCHM 0x5000c500858bfea7"
    assert found.differences == ()
    drive = Drive("sda", "ZA12  JCHM", None, None)
    assert drive.begins_with("ZA12_J") and drive.begins_with("za12 jchm")
    assert not drive.begins_with("ZA12J")


EUI, NGUID = "0x0025385b91b2c3d4", "0x5cd2e4000000010025385b91b2c3d400"


@pytest.mark.parametrize("name", [EUI, NGUID])
def test_either_name_of_an_nvme_drive_matches_and_is_kept(tmp_path: Path, name: str) -> None:
    """smartctl prints its EUI-64, the kernel its NGUID."""
    nvme = Identity(None, "S4EW", EUI, None, ("/dev/nvme0n1",), other_id=NGUID)
    found = ids.compare([nvme], entries(tmp_path, f"P01 S4EW {name}\n"))
    assert found.identities[0].line == f"P01 S4EW {name}"
    assert found.differences == ()
    drive = Drive("nvme0n1", "S4EW", NGUID, None, EUI)
    assert not drive.contradicts("S4EW", name)
    assert drive.contradicts("S4EW", "0x0025385b91b2c3d5")


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
