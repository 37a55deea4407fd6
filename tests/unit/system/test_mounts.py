"""What is mounted where, and which physical drive is below it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.system import mounts
from poledata.system.mounts import Drive, parse_lsblk, read_mounts, whole_drives
from tests.helpers.held_places import opened
from tests.helpers.sample_disks import LSBLK

SERIAL, WWN = "ZA12JCHM", "0x5000c500858bfea7"

# --- mountinfo ------------------------------------------------------------------------------


def test_a_line_of_mountinfo_is_read(tmp_path: Path) -> None:
    """proc(5): id, device, root, place, options of the mount and of the file system, source."""
    (mount,) = read_mounts(
        "42 27 8:17 / /spt_disks/P01 rw,relatime shared:1 - xfs /dev/sdb1 rw,inode64\n"
    ).values()
    assert mount == mounts.Mount(
        id=42,
        device="8:17",
        root="/",
        mount_point="/spt_disks/P01",
        options=frozenset({"rw", "relatime", "inode64"}),
        fs_type="xfs",
        source="/dev/sdb1",
    )


@pytest.mark.parametrize("optional", ["", "shared:1 ", "shared:1 master:2 propagate_from:3 "])
def test_optional_fields_are_passed_over(optional: str) -> None:
    """None, one or several stand before the dash."""
    text = f"42 27 0:50 /sub /mnt rw {optional}- btrfs /dev/sdc ro,subvol=/sub\n"
    (mount,) = read_mounts(text).values()
    assert (mount.root, mount.mount_point, mount.fs_type) == ("/sub", "/mnt", "btrfs")
    assert mount.options == {"rw", "ro", "subvol=/sub"}


def test_octal_escapes_are_undone() -> None:
    """The kernel escapes blank, tab, line feed and backslash; a dash in a name is no dash."""
    text = r"7 1 8:1 /a\134b /mnt/a\040-\040b\011c\012d\134040 rw - ext4 /dev/my\040disk rw"
    mount = read_mounts(text)[7]
    assert mount.root == "/a\\b"
    assert mount.mount_point == "/mnt/a - b\tc\nd\\040"
    assert mount.source == "/dev/my disk"


def test_a_mount_without_a_source_is_read() -> None:
    """``mount -t tmpfs "" /mnt`` leaves two blanks."""
    assert read_mounts("7 1 0:9 / /mnt rw - tmpfs  rw,size=1k\n")[7].source == ""


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_an_odd_mount_elsewhere_stops_nothing(odd: str) -> None:
    """mountinfo escapes the line feed alone: nothing else ends a line there."""
    text = (
        f"7 1 8:1 / /media/a{odd}b rw - vfat /dev/sdz rw\n"
        "42 27 8:17 / /spt_disks/P01 rw - xfs /dev/sdb1 rw\n"
    )
    found = read_mounts(text)
    assert found[42].mount_point == "/spt_disks/P01"
    assert found[7].mount_point == f"/media/a{odd}b"


# --- mount points ---------------------------------------------------------------------------


def test_a_plain_directory_is_no_mount_point(tmp_path: Path) -> None:
    """It is on the mount of the directory above."""
    with opened(tmp_path) as fd:
        assert not mounts.is_mount_point(fd, tmp_path)
        mount = mounts.mount_of(fd)
        assert mount is not None
        assert str(tmp_path).startswith(mount.mount_point)


# --- which drive ----------------------------------------------------------------------------


def test_lsblk_is_understood() -> None:
    """Serials without blanks; WWNs in the form of the disk-map, whatever form they come in."""
    assert parse_lsblk(LSBLK) == (
        Drive("loop0", None, None, 67108864),
        Drive("sda", "ZR7025DW", "0x5000c500dc27359d", 16000900661248),
        Drive("sdb", "ZA12JCHM0000C8220UQX", WWN, 8001563222016),
        Drive("sdc", "4C530001", None, 15376318464),
        Drive("sdd", None, "0x5000c500858bfea8", 8001563222016),
        Drive("nvme0n1", "S437NC0R203374", "0x34333730522033740025384300000001", 960197124096),
        Drive("nvme1n1", "S5GXNX0T123456", "0x0025385b21b0c1d2", 1000204886016),
        Drive("nvme2n1", "2145", None, 1000204886016),
    )


def test_an_older_lsblk_is_understood_too() -> None:
    """Before util-linux 2.33 numbers were text; a column that it does not know is missing."""
    answer = {"blockdevices": [{"kname": "sdb", "serial": SERIAL, "size": "8001563222016"}]}
    assert parse_lsblk(json.dumps(answer).encode()) == (Drive("sdb", SERIAL, None, 8001563222016),)


@pytest.mark.parametrize(
    ("wwn", "plain"),
    [
        ("0x5000c500858bfea7", WWN),
        ("0x5000C500858BFEA7", WWN),
        (" naa.5000c500858bfea7 ", WWN),
        ("eui.5000c500858bfea7", WWN),
        ("5000c500858bfea7", None),
        ("0x5000c500858bfea", None),
        ("0x5000c500858bfea7f", None),
        ("t10.ATA     ST8000NM0016", None),
        ("uuid.5000c500858bfea7", None),
        ("nvme.1344-3231", None),
    ],
)
def test_a_logical_id_has_one_form(wwn: str, plain: str | None) -> None:
    """0x and 16 or 32 lower-case digits; of another kind it is no logical ID."""
    answer = json.dumps({"blockdevices": [{"kname": "sdb", "wwn": wwn}]}).encode()
    assert parse_lsblk(answer) == (Drive("sdb", None, plain, None),)


@pytest.mark.parametrize(
    ("serial", "wwn", "contradicts"),
    [
        (SERIAL, WWN, False),
        (SERIAL, None, False),
        (None, WWN, False),
        (None, None, False),  # nothing is known: nothing contradicts
        ("ZA12JCHM0000C8220UQX", WWN, False),  # a SAS drive reports more than is printed
        ("za12jchm", WWN, False),
        ("ZA12JCH", WWN, True),  # less than is printed is another drive
        ("ZA12JCHN", WWN, True),
        ("XZA12JCHM", WWN, True),
        (SERIAL, "0x5000c500858bfea8", True),
        (None, "0x5000c500858bfea8", True),
        ("ZA12JCHN", None, True),
        # Old lsblk: the WWN of a SAS drive as its serial (util-linux issues 750, 1143).
        ("5000c500858bfea7", WWN, False),
        ("5000C500858BFEA7", WWN, False),
        ("0x5000c500858bfea7", WWN, False),
        ("35000c500858bfea7", WWN, False),
        ("naa.5000c500858bfea7", WWN, False),
        ("5000c500858bfea5", WWN, False),  # of a port: weaker than the ID that agrees
        ("5000c500858bfea7", None, False),  # all that is known, and it is the ID
        ("5000c500858bfea8", None, True),
        ("5000c500858bfea7", "0x5000c500858bfea8", True),  # the ID itself is another
        ("600508b1001c4d2f3a4b5c6d7e8f9012", WWN, False),
        ("2000c500858bfea7", WWN, True),  # digits that are no WWN of a drive: a serial
        ("5000c500858bfea", WWN, True),
        ("5000c500858bfea70", WWN, True),
    ],
)
def test_a_drive_contradicts_a_disk_by_serial_or_logical_id(
    serial: str | None, wwn: str | None, contradicts: bool
) -> None:
    """What is known must agree; the printed serial may be the beginning of the drive's own."""
    drive = Drive("sdb", serial, wwn, None)
    assert drive.contradicts(SERIAL, WWN) == contradicts
    assert drive.contradicts(SERIAL.lower(), WWN) == contradicts


@given(st.text("ABC012", min_size=1, max_size=8), st.text("ABC012", max_size=4))
def test_a_drive_never_contradicts_the_beginning_of_its_serial(printed: str, more: str) -> None:
    """And any other beginning always does."""
    drive = Drive("sdb", printed + more, WWN, None)
    assert not drive.contradicts(printed, WWN)
    assert drive.contradicts(f"x{printed}", WWN)
    assert drive.contradicts(f"{printed}{more}0", WWN)


def test_a_drive_is_one_drive_by_whatever_path() -> None:
    """Its logical ID, else its serial, else its name."""
    assert Drive("sdb", SERIAL, WWN, 1).identity == Drive("sdc", None, WWN, None).identity == WWN
    assert Drive("sdb", SERIAL, None, None).identity == SERIAL
    assert Drive("loop0", None, None, None).identity == "loop0"


@pytest.mark.parametrize(
    ("serial", "contradicts"), [("5000c500858bfea7", False), ("5000c500858bfea8", True)]
)
def test_a_printed_serial_may_look_like_a_wwn(serial: str, contradicts: bool) -> None:
    """Then it is a serial all the same, where no other field says what the drive is."""
    drive = Drive("sdb", serial, None, None)
    assert drive.contradicts("5000c500858bfea7", "0x5000c500858bfeff") == contradicts


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        (("sdb", SERIAL, WWN), ("sdc", SERIAL, WWN), True),
        (("sdb", SERIAL, WWN), ("sdc", SERIAL, "0x5000c500858bfea8"), True),  # two actuators
        (("nvme0n1", SERIAL, WWN), ("nvme0n2", SERIAL, None), True),  # two namespaces
        (("sdb", SERIAL, WWN), ("sdc", None, WWN), True),
        (("sdb", SERIAL, WWN), ("sdc", "ZA13KDIN", WWN), True),
        (("sdb", SERIAL, None), ("sdc", SERIAL.lower(), None), True),
        (("sdb", "5000c500858bfea7", None), ("sdc", SERIAL, WWN), True),  # old lsblk
        (("sdb", SERIAL, WWN), ("sdb", None, None), True),  # lsblk did not answer in time
        (("sdb", SERIAL, WWN), ("sdc", "ZA13KDIN", "0x5000c500858bfea8"), False),
        (("sdb", SERIAL, None), ("sdc", "ZA13KDIN", None), False),
        (("loop0", None, None), ("loop1", None, None), False),
    ],
)
def test_two_devices_are_one_drive_if_serial_or_logical_id_is_the_same(
    one: tuple[str, str | None, str | None],
    other: tuple[str, str | None, str | None],
    is_one: bool,
) -> None:
    """Either is enough: a drive may have several logical IDs, or tell its serial on one path."""
    first, second = Drive(*one, None), Drive(*other, None)
    assert bool(first.identities & second.identities) == is_one


@pytest.mark.parametrize(
    ("drive", "text"),
    [
        (Drive("sdb", SERIAL, WWN, 1), f"sdb (serial {SERIAL}, ID {WWN})"),
        (Drive("sdb", None, WWN, 1), f"sdb (ID {WWN})"),
        (Drive("loop0", None, None, 1), "loop0 (unknown)"),
    ],
)
def test_a_drive_is_named_to_a_person(drive: Drive, text: str) -> None:
    """With all that can be compared with its sticker."""
    assert str(drive) == text


def test_an_nvme_drive_has_the_names_that_the_kernel_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel prefers the NGUID, smartctl the EUI-64."""
    monkeypatch.setattr(mounts, "_CLASS_BLOCK", tmp_path)
    block = tmp_path / "nvme0n1"
    block.mkdir()
    (block / "wwid").write_text("eui.5cd2e4000000010025385b91b2c3d400\n")
    (block / "nguid").write_text("5cd2e400-0000-0100-2538-5b91b2c3d400\n")
    (block / "eui").write_text("00 25 38 5b 91 b2 c3 d4\n")
    drive = mounts._ask_kernel(Drive("nvme0n1", None, None, None))
    assert (drive.wwn, drive.other_wwn) == (
        "0x5cd2e4000000010025385b91b2c3d400",
        "0x0025385b91b2c3d4",
    )


@pytest.fixture
def sys_tree(tmp_path: Path) -> Path:
    """/sys/block as the kernel lays it out: drives with partitions, LVM, RAID, and more on it."""
    block = tmp_path / "block"
    for drive in ("sda", "sdb", "nvme0n1"):
        for number in (1, 2):
            part = block / drive / f"{drive}{'p' * drive.startswith('nvme')}{number}"
            part.mkdir(parents=True)
            (part / "partition").write_text(f"{number}\n")
            (part / "slaves").mkdir()
        (block / drive / "slaves").mkdir()
    slaves = {
        "dm-0": ["sda/sda1", "sdb"],  # LVM over a partition and a drive
        "md0": ["sda/sda2", "nvme0n1/nvme0n1p1"],
        "dm-1": ["md0"],  # encrypted RAID
    }
    for name, below in slaves.items():
        (block / name / "slaves").mkdir(parents=True)
        for path in below:
            (block / name / "slaves" / Path(path).name).symlink_to(block / path)
    part = block / "md0" / "md0p1"
    (part / "slaves").mkdir(parents=True)
    (part / "partition").write_text("1\n")
    return block


@pytest.mark.parametrize(
    ("device", "drives"),
    [
        ("sda", {"sda"}),
        ("sda/sda2", {"sda"}),
        ("nvme0n1/nvme0n1p2", {"nvme0n1"}),
        ("dm-0", {"sda", "sdb"}),
        ("md0", {"sda", "nvme0n1"}),
        ("md0/md0p1", {"sda", "nvme0n1"}),
        ("dm-1", {"sda", "nvme0n1"}),
    ],
)
def test_the_physical_drives_below_a_device_are_found(
    sys_tree: Path, device: str, drives: set[str]
) -> None:
    """Below partitions, device mapper and RAID, in any order."""
    assert whole_drives(sys_tree / device) == drives


def test_what_is_on_no_drive_has_none() -> None:
    """tmpfs, proc and the like."""
    with TemporaryDirectory(dir="/dev/shm") as name, opened(Path(name)) as fd:
        assert mounts.drives_under(fd) == ()
    with opened(Path("/proc")) as fd:
        assert mounts.drives_under(fd) == ()
