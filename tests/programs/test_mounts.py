"""What is mounted where, and which physical drive is below it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from poledata.system import mounts
from poledata.system.mounts import Drive
from tests.helpers.held_places import opened
from tests.helpers.loopdisks import LoopDisk, attach, detach, two_partitions
from tests.helpers.sample_disks import LSBLK
from tests.helpers.world import REPO

SERIAL, WWN = "ZA12JCHM", "0x5000c500858bfea7"


@pytest.fixture
def bind(tmp_path: Path) -> Iterator[Callable[[Path, Path], None]]:
    """``bind(what, where)`` as a person with mount(8) would."""
    done: list[Path] = []

    def bound(what: Path, where: Path) -> None:
        subprocess.run(["mount", "--bind", what, where], check=True)
        done.append(where)

    yield bound
    for where in reversed(done):
        subprocess.run(["umount", "--lazy", where], check=True)


# --- mountinfo ------------------------------------------------------------------------------


@pytest.mark.root
def test_the_systems_own_mounts_are_read(tmp_path: Path) -> None:
    """As they are now, with a mount whose name is odd in every way (in a namespace of its own)."""
    odd = tmp_path / os.fsdecode(b"a b\tc\nd\\e#\rf\x85\xffg")
    odd.mkdir()
    script = (
        f"import os, subprocess, sys; from {mounts.__name__} import read_mounts; "
        "subprocess.run(['mount', '--bind', '/dev', sys.argv[1]], check=True); "
        "print(ascii(sorted(mount.mount_point for mount in read_mounts().values())))"
    )
    ran = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script, odd],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert ran.stderr == ""
    assert str(odd) in ast.literal_eval(ran.stdout)


# --- mount points ---------------------------------------------------------------------------


def test_a_mounted_disk_is_a_mount_point_till_it_is_unmounted(
    loop_disk: Callable[..., LoopDisk], tmp_path: Path
) -> None:
    """The descriptor tells, also after a lazy unmount, when the path shows the empty directory."""
    disk = loop_disk(tmp_path / "disk.img", tmp_path / "P01", fs="ext4")
    (tmp_path / "link").symlink_to(tmp_path / "P01")
    with opened(disk.mount_point) as fd, opened(disk.mount_point / "lost+found") as below:
        assert mounts.is_mount_point(fd, disk.mount_point)
        assert mounts.is_mount_point(fd, tmp_path / "link")  # /spt_disks may be a link itself
        assert not mounts.is_mount_point(below, disk.mount_point / "lost+found")
        disk.lazy_unmount()
        assert mounts.mount_of(fd) is None
        assert not mounts.is_mount_point(fd, disk.mount_point)
        assert mounts.drives_under(fd) == ()
    with opened(disk.mount_point) as fd:
        assert not mounts.is_mount_point(fd, disk.mount_point)


def test_only_a_whole_file_system_is_a_mounted_disk(
    loop_disk: Callable[..., LoopDisk], tmp_path: Path, bind: Callable[[Path, Path], None]
) -> None:
    """Bound elsewhere as a whole it is one; a directory of a disk, bound there, is none."""
    disk = loop_disk(tmp_path / "disk.img", tmp_path / "here", fs="ext4")
    (disk.mount_point / "directory").mkdir()
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    bind(disk.mount_point, tmp_path / "whole")
    bind(disk.mount_point / "directory", tmp_path / "part")
    with opened(tmp_path / "whole") as whole, opened(tmp_path / "part") as part:
        assert mounts.is_mount_point(whole, tmp_path / "whole")
        assert not mounts.is_mount_point(part, tmp_path / "part")


def test_room_is_what_an_ordinary_user_may_fill(
    loop_disk: Callable[..., LoopDisk], tmp_path: Path
) -> None:
    """ext4 keeps some for root; a read-only mount says so; xfs makes inodes as it needs them."""
    disk = loop_disk(tmp_path / "disk.img", tmp_path / "P01", fs="ext4", mkfs_args=("-m", "10"))
    with opened(disk.mount_point) as fd:
        before = mounts.space(fd)
        (disk.mount_point / "file").write_bytes(b"x" * 5_000_000)
        after = mounts.space(fd)
    assert before.free_bytes - after.free_bytes >= 5_000_000
    assert after.used_bytes - before.used_bytes >= 5_000_000
    assert after.capacity_bytes == before.capacity_bytes < 64 << 20
    kept_for_root = after.capacity_bytes - after.used_bytes - after.free_bytes
    assert kept_for_root > after.capacity_bytes / 20
    assert not after.read_only
    assert after.free_inodes == before.free_inodes - 1 if before.free_inodes else False
    disk.remount("ro")
    with opened(disk.mount_point) as fd:
        assert mounts.space(fd).read_only


# --- which drive ----------------------------------------------------------------------------


def test_two_disks_are_two_drives_and_two_partitions_are_one(
    loop_disk: Callable[..., LoopDisk], tmp_path: Path
) -> None:
    """As the running kernel tells; a loop device has neither serial nor logical ID."""
    disk = loop_disk(tmp_path / "disk.img", tmp_path / "P09", fs="ext4")
    places = (tmp_path / "P01", tmp_path / "S01")
    with (
        two_partitions(tmp_path / "two.img", places) as (first, second),
        opened(disk.mount_point) as alone,
        opened(first.mount_point) as one,
        opened(second.mount_point) as other,
    ):
        (drive,) = mounts.drives_under(alone)
        assert (drive.kernel_name, drive.serial, drive.wwn) == (disk.device.name, None, None)
        assert mounts.drives_under(one) == mounts.drives_under(other) != mounts.drives_under(alone)


# --- asking the system ----------------------------------------------------------------------


@pytest.fixture
def lsblk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``lsblk(script)`` stands in for the system's."""

    def stand_in(script: str) -> None:
        path = tmp_path / "lsblk"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(mounts, "_LSBLK", (str(path),))
        monkeypatch.setattr(mounts, "_CLASS_BLOCK", tmp_path / "no-such-sys")

    return stand_in


def test_a_drive_is_asked_for_by_its_device(lsblk: Callable[[str], None], tmp_path: Path) -> None:
    """By the whole drive, sizes in bytes; what it does not know comes back by its name alone."""
    lsblk(f"echo \"$@\" >{tmp_path}/asked; cat <<'END'\n{LSBLK.decode()}\nEND")
    assert mounts.ask_drives(["sdb", "cciss!c0d0"]) == (
        Drive("cciss!c0d0", None, None, None),
        Drive("sdb", "ZA12JCHM0000C8220UQX", WWN, 8001563222016),
    )
    assert (tmp_path / "asked").read_text() == (
        "--json --nodeps --bytes --output KNAME,SERIAL,WWN,SIZE /dev/cciss/c0d0 /dev/sdb\n"
    )
    assert len(mounts.ask_drives()) == 8


@pytest.mark.parametrize(
    "script",
    [
        "exit 32",
        "exit 1",
        "exec sleep 60",
        "kill -9 $$",
        """echo '{"blockdevices": [{"kna'""",
        "echo oops",
    ],
)
def test_an_lsblk_that_fails_stops_nothing(
    lsblk: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """One dying drive can hang it: the drive is unknown then, and the pass goes on."""
    monkeypatch.setattr(mounts, "_LSBLK_TIMEOUT_S", 0.3)
    lsblk(script)
    assert mounts.ask_drives(["sdb"]) == (Drive("sdb", None, None, None),)


def test_a_system_without_lsblk_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel itself says is all there is."""
    monkeypatch.setattr(mounts, "_LSBLK", ())
    monkeypatch.setenv("PATH", "/nowhere")
    assert mounts.ask_drives(["no-such-drive"]) == (Drive("no-such-drive", None, None, None),)


def test_where_udev_is_silent_the_kernel_is_asked(
    lsblk: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCSI's vital product data page 0x80, NVMe's serial, virtio's; wwid for the logical ID."""
    lsblk("exit 0")
    for name, text in {
        "sdb/device/vpd_pg80": b"\x00\x80\x00\x14            ZA12JCHM",
        "sdb/device/wwid": b"naa.5000c500858bfea7\n",
        "nvme0n1/device/serial": b"S437NC0R203374      \n",
        "nvme0n1/wwid": b"eui.0025385b21b0c1d2\n",
        "vdb/serial": b"disk-2",
    }.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_bytes(text)
    monkeypatch.setattr(mounts, "_CLASS_BLOCK", tmp_path / "sys")
    assert mounts.ask_drives(["nvme0n1", "sdb", "vda", "vdb"]) == (
        Drive("nvme0n1", "S437NC0R203374", "0x0025385b21b0c1d2", None),
        Drive("sdb", SERIAL, WWN, None),
        Drive("vda", None, None, None),
        Drive("vdb", "disk-2", None, None),
    )


def test_the_drives_own_serial_goes_before_a_wwn_that_stands_in_for_it(
    lsblk: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old lsblk gives a SAS drive's WWN as its serial; the kernel knows better, where it knows."""
    drives = ",".join(
        f'{{"kname":"{name}","serial":"5000c500858bfea7","wwn":"{WWN}","size":5}}'
        for name in ("sdb", "sdc")
    )
    lsblk(f"echo '{{\"blockdevices\":[{drives}]}}'")
    (tmp_path / "sys" / "sdb" / "device").mkdir(parents=True)
    (tmp_path / "sys" / "sdb" / "device" / "vpd_pg80").write_bytes(b"\x00\x80\x00\x08ZA12JCHM")
    monkeypatch.setattr(mounts, "_CLASS_BLOCK", tmp_path / "sys")
    assert mounts.ask_drives(["sdb", "sdc"]) == (
        Drive("sdb", SERIAL, WWN, 5),
        Drive("sdc", "5000c500858bfea7", WWN, 5),
    )


@pytest.mark.root
def test_a_btrfs_is_on_the_drives_of_all_its_members(tmp_path: Path) -> None:
    """Its source names only one of them."""
    place = tmp_path / "P01"
    place.mkdir()
    with ExitStack() as down:
        devices = []
        for name in ("one", "other"):
            with open(tmp_path / name, "xb") as file:
                file.truncate(200 << 20)
            devices.append(attach(tmp_path / name))
            down.callback(detach, devices[-1])
        mkfs = ["mkfs.btrfs", "-q", "-f", "-d", "single", *devices]
        subprocess.run(mkfs, check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        subprocess.run(["mount", devices[1], place], check=True)
        down.callback(subprocess.run, ["umount", place], check=True)
        with opened(place) as fd:
            names = {drive.kernel_name for drive in mounts.drives_under(fd)}
            assert names == {device.name for device in devices}
            assert {name for name, _ in mounts.attachment_of(fd).drives} == names
