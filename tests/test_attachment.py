"""A held disk knows when it is no longer the one that was proved: unmounted, or plugged in anew."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from poledata.disks.identity import HeldDisk
from poledata.models import Disk, DiskState, Role
from poledata.system import mounts
from tests.loopdisks import LoopDisk, MountedDisk, attach, detach, make_file_system

LOOP_CHANGE_FD = 0x4C06  # linux/loop.h
AGAIN = "its drive was unplugged and plugged in again"
MakeLoop = Callable[..., LoopDisk]


@contextmanager
def held(path: Path, stand_in: bool = False) -> Iterator[HeldDisk]:
    """The disk at a place, as it is held once its identity was proved."""
    disk = Disk(1, "P01", Role.PRIMARY, "Z", "0x", DiskState.ACTIVE, None, None, stand_in,
                *[None] * 5)  # fmt: skip
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield HeldDisk(disk, path, fd, frozenset(), None, True, mounts.attachment_of(fd))
    finally:
        os.close(fd)


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


def test_a_stand_in_is_not_detached(tmp_path: Path) -> None:
    """It is a plain directory on whatever the station itself is on."""
    with held(tmp_path, stand_in=True) as disk:
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


@pytest.mark.root
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


@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        ({"sdb": 7}, {"sdb": 7}, None),
        ({"sdb": None}, {"sdb": None}, None),  # a kernel older than 5.15
        ({"sdb": 7}, {"sdb": 8}, AGAIN),
        ({"sdb": 7}, {}, "its drive was unplugged"),
        ({"sdb": 7}, {"sdc": 8}, "its drive was unplugged"),
        ({"sdb": 7, "sdc": 8}, {"sdb": 7}, "its drive was unplugged"),  # a path of multipath
        ({"sdb": 7, "sdc": 8}, {"sdb": 7, "sdc": 9}, AGAIN),
    ],
)
def test_a_drive_is_the_same_only_while_its_name_and_diskseq_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    then: dict[str, int | None],
    now: dict[str, int | None],
    why: str | None,
) -> None:
    """Read from /sys each time anew, below whatever device is mounted."""
    monkeypatch.setattr(mounts, "_SYS_BLOCK", tmp_path / "dev")
    monkeypatch.setattr(mounts, "_CLASS_BLOCK", tmp_path / "class")
    device = mount_device(tmp_path)  # it stands for a device mapper's device
    plug_in(tmp_path, device, then)
    with held(tmp_path) as disk:
        assert disk.attachment.drives == frozenset(then.items())
        plug_in(tmp_path, device, now)
        assert disk.why_detached() == why


def mount_device(place: Path) -> str:
    fd = os.open(place, os.O_RDONLY)
    try:
        mount = mounts.mount_of(fd)
        assert mount is not None
        return mount.device
    finally:
        os.close(fd)


def plug_in(root: Path, device: str, drives: dict[str, int | None]) -> None:
    """A /sys in which ``device`` lies on these drives, and on none if there is none."""
    top = root / "dm-0"
    (top / "slaves").mkdir(parents=True, exist_ok=True)
    (root / "dev").mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        (root / "dev" / device).unlink()
    for old in (top / "slaves").iterdir():
        old.unlink()
    if drives:
        (root / "dev" / device).symlink_to(top)
    for name, sequence in drives.items():
        place = root / "class" / name
        place.mkdir(parents=True, exist_ok=True)
        (top / "slaves" / name).symlink_to(place)
        if sequence is not None:
            (place / "diskseq").write_text(f"{sequence}\n")
