"""A held disk knows when it is no longer the one that was proved: unmounted, or plugged in anew."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.loopdisks import LoopDisk, MountedDisk, attach, detach, make_file_system
from tests.helpers.sample_disks import held

LOOP_CHANGE_FD = 0x4C06  # linux/loop.h
AGAIN = "its drive was unplugged and plugged in again"
MakeLoop = Callable[..., LoopDisk]


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_a_disk_that_stays_mounted_is_not_detached(
    loop_disk: MakeLoop, tmp_path: Path, fs: str
) -> None:
    """Neither by what is written, nor by a remount, nor by what is mounted elsewhere."""
    loop = loop_disk(tmp_path / "disk.img", tmp_path / "P01", fs=fs)
    with held(loop.mount_point) as disk:
        assert disk.attachment.mount_id is not None
        ((name, sequence),) = disk.attachment.drives
        assert name == loop.device.name
        assert sequence is not None and sequence > 0
        (loop.mount_point / "a").write_bytes(b"x")
        loop.remount("ro")
        loop_disk(tmp_path / "other.img", tmp_path / "P02", fs=fs)
        assert disk.why_detached() is None


def test_a_disk_that_was_lazily_unmounted_is_detached(loop_disk: MakeLoop, tmp_path: Path) -> None:
    """Although its files can still be read through what is held open; also when mounted again."""
    loop = loop_disk(tmp_path / "disk.img", tmp_path / "P01", fs="ext4")
    (loop.mount_point / "a").write_bytes(b"x")
    with held(loop.mount_point) as disk:
        loop.lazy_unmount()
        assert os.stat("a", dir_fd=disk.root_fd).st_size == 1
        assert disk.why_detached() == "it was unmounted"
        loop.mount()
        assert disk.why_detached() == "it was unmounted"
        with held(loop.mount_point) as again:
            assert again.why_detached() is None


def test_a_drive_that_was_changed_under_its_name_is_detached(
    loop_disk: MakeLoop, tmp_path: Path
) -> None:
    """The mount is still there, and so is the kernel name: only the diskseq says it."""
    loop = loop_disk(tmp_path / "disk.img", tmp_path / "P01", fs="ext4")
    loop.umount()
    detach(loop.device)
    other = tmp_path / "other.img"
    other.write_bytes(loop.image.read_bytes())
    loop.device = attach(loop.image, "--read-only")
    loop.mount(options="ro")
    with held(loop.mount_point) as disk, open(other, "rb") as image:
        assert disk.why_detached() is None
        device = os.open(loop.device, os.O_RDONLY)
        try:
            fcntl.ioctl(device, LOOP_CHANGE_FD, image.fileno())
        finally:
            os.close(device)
        assert disk.why_detached() == AGAIN


def test_a_loop_device_attached_again_is_another_attachment(tmp_path: Path) -> None:
    """Its diskseq grows; so two looks at one place, with an unmount between, never agree."""
    image, place = tmp_path / "disk.img", tmp_path / "P01"
    with open(image, "xb") as file:
        file.truncate(64 << 20)
    place.mkdir()
    seen = []
    for turn in range(2):
        device = attach(image)
        if not turn:
            make_file_system(device, "ext4", 64)
        disk = MountedDisk(image, device, place)
        try:
            disk.mount()
            with held(place) as there:
                seen.append(there.attachment.drives)
        finally:
            disk.force_off()
            detach(device)
    assert seen[0] != seen[1]
