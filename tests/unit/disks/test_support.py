"""New copies go only to what can keep them: XFS or ext4, whole, on one drive that is identified.

Each file system is made for real, with a disk of ours on it, and the pass, check and generate_db
refuse it by name; what is on it is read all the same, and never a reason to remove a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from poledata.system import file_systems, mounts
from poledata.system.file_systems import why_unsupported
from poledata.system.mounts import Drive, Mount
from tests.helpers.loopdisks import LoopWorld

MakeWorld = Callable[..., LoopWorld]
SAS = Drive("sdb", "ZA12JCHM", "0x5000c500858bfea7", 1)
OTHER = Drive("sdc", "ZA13KDIN", "0x5000c500858bfeb8", 1)
SSD = Drive("nvme0n1", "S437NC0R203374", None, 1)

# --- by the mount and its drives ------------------------------------------------------------


def mounted(fs_type: str, *options: str) -> Mount:
    return Mount(1, "8:16", "/", "/spt_disks/P01", frozenset({"rw", *options}), fs_type, "/dev/sdb")


@pytest.fixture(autouse=True)
def _sdb_has_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: object) -> None:
    """What /proc and /sys say of the invented mounts; real ones are looked at as they are."""
    if "world" in getattr(request, "fixturenames", ()):
        return
    (tmp_path / "jbd2" / "sdb-8").mkdir(parents=True)
    (tmp_path / "sys" / "8:16").mkdir(parents=True)
    (tmp_path / "sys" / "sdb").symlink_to("8:16")
    monkeypatch.setattr(file_systems, "_JBD2", tmp_path / "jbd2")
    monkeypatch.setattr(mounts, "blocks_of", lambda _: (tmp_path / "sdb",))


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (mounted("xfs", "inode64", "logbufs=8", "noquota"), None),
        (mounted("ext4", "relatime", "errors=remount-ro", "data=writeback"), None),
        (mounted("xfs", "logdev=/dev/sdc1"), "its XFS has a separate log (logdev=/dev/sdc1)"),
        (mounted("xfs", "rtdev=/dev/sdc"), "its XFS has a realtime device (rtdev=/dev/sdc)"),
        (mounted("xfs", "nobarrier"), "it is mounted with nobarrier"),
        (mounted("xfs", "norecovery"), "it is mounted with norecovery"),
        (mounted("ext4", "barrier=0"), "it is mounted with barrier=0"),
        (mounted("ext4", "noload"), "it is mounted with noload"),
        (mounted("ext2"), "its file system is ext2, not XFS or ext4"),
        (mounted("ext3"), "its file system is ext3, not XFS or ext4"),
        (mounted("f2fs"), "its file system is f2fs, not XFS or ext4"),
        (mounted("zfs"), "its file system is zfs, not XFS or ext4"),
        (mounted("vfat"), "its file system is vfat, not XFS or ext4"),
        (mounted("exfat"), "its file system is exFAT, not XFS or ext4"),
        (mounted("ntfs3"), "its file system is NTFS, not XFS or ext4"),
        (mounted("overlay"), "its file system is overlay, not XFS or ext4"),
        (mounted("nfs4"), "its file system is nfs4, not XFS or ext4"),
        (mounted("fuse.sshfs"), "its file system is FUSE (fuse.sshfs), not XFS or ext4"),
        (mounted("fuse.xfs"), "its file system is FUSE (fuse.xfs), not XFS or ext4"),
        (
            mounted("fuseblk"),
            "its file system is fuseblk (NTFS, exFAT or another one through FUSE), not XFS or ext4",
        ),
    ],
)
def test_each_file_system_and_option_is_refused_by_name(mount: Mount, why: str | None) -> None:
    """Whatever is not known to keep what was flushed is refused; plain XFS and ext4 are not."""
    assert why_unsupported(mount, (SAS,), False) == why


@pytest.mark.parametrize("entries", [(), ("sdb",), ("sdb1-8",), ("sdbc-8",), ("dm-0-8",)])
def test_an_ext4_whose_journal_is_not_seen_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: tuple[str, ...]
) -> None:
    """Another device's journal is none of its own; nor is one that is a whole device."""
    monkeypatch.setattr(file_systems, "_JBD2", tmp_path / "other")
    assert why_unsupported(mounted("ext4"), (SAS,), False) == "its ext4 has no journal inside"
    for entry in entries:
        (tmp_path / "other" / entry).mkdir(parents=True)
    assert why_unsupported(mounted("ext4"), (SAS,), False) == "its ext4 has no journal inside"
    assert why_unsupported(mounted("xfs"), (SAS,), False) is None


UNIDENTIFIED = (
    "its drive {} has neither serial number nor logical ID, and AcceptUnidentifiedDrives is not yes"
)


@pytest.mark.parametrize(
    ("drives", "why"),
    [
        ((SAS,), None),
        ((SSD,), None),  # a serial alone identifies a drive
        ((Drive("sdb", None, SAS.wwn, 1),), None),  # and so does a logical ID
        ((SAS, Drive("sdd", SAS.serial, SAS.wwn, 1)), None),  # two paths
        ((SAS, Drive("sdd", SAS.serial, OTHER.wwn, 1)), None),  # two actuators
        ((SAS, Drive("sdd", None, SAS.wwn, 1)), None),
        ((SAS, Drive("sdd", "zother", SAS.wwn, 1)), None),
        (
            (SAS, OTHER),
            "it is on several drives: sdb (serial ZA12JCHM, ID 0x5000c500858bfea7), "
            "sdc (serial ZA13KDIN, ID 0x5000c500858bfeb8)",
        ),
        (
            (SAS, SSD),  # bcache, dm-cache or dm-writecache above an SSD
            "it is on several drives: sdb (serial ZA12JCHM, ID 0x5000c500858bfea7), "
            "nvme0n1 (serial S437NC0R203374)",
        ),
        ((), "its drive is gone"),
        ((Drive("loop0", None, None, 1),), UNIDENTIFIED.format("loop0")),
        (
            (SAS, Drive("ram0", None, None, 1)),
            "it is on several drives: sdb (serial ZA12JCHM, ID 0x5000c500858bfea7), ram0 (unknown)",
        ),
    ],
)
def test_a_file_system_is_on_one_drive_that_is_identified(
    drives: tuple[Drive, ...], why: str | None
) -> None:
    """One drive by a serial or a logical ID that all its paths share."""
    assert why_unsupported(mounted("xfs"), drives, False) == why


@pytest.mark.parametrize("names", [("loop0",), ("ram0",), ("nbd0",), ("sdb",)])
def test_unidentified_drives_are_accepted_only_if_somebody_says_so(names: tuple[str, ...]) -> None:
    """And then one at a time only: two are not one drive because nothing is known of them."""
    drives = tuple(Drive(name, None, None, 1) for name in names)
    assert why_unsupported(mounted("xfs"), drives, False) == UNIDENTIFIED.format(names[0])
    assert why_unsupported(mounted("xfs"), drives, True) is None
    two = (*drives, Drive("loop9", None, None, 1))
    assert str(why_unsupported(mounted("xfs"), two, True)).startswith("it is on several drives")


# --- for real -------------------------------------------------------------------------------


@pytest.fixture
def world(make_loop_world: MakeWorld) -> LoopWorld:
    """A file is on P01 and S01; P02 and S02 are spares."""
    world = make_loop_world()
    world.put("a.g3", 70_000)
    world.generate()
    world.run_pass(check=0)
    return world
