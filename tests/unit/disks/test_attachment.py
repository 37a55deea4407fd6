"""A held disk knows when it is no longer the one that was proved: unmounted, or plugged in anew."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from poledata.system import mounts
from tests.helpers.sample_disks import held

AGAIN = "its drive was unplugged and plugged in again"


def test_a_stand_in_is_not_detached(tmp_path: Path) -> None:
    """It is a plain directory on whatever the station itself is on."""
    with held(tmp_path, stand_in=True) as disk:
        assert disk.why_detached() is None


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
