"""What a disk-map brings, what contradicts, and what is still to be done."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata.config import Config, load
from poledata.disk_map import Entry
from poledata.maintenance.disk_set import Readiness
from poledata.models import Role
from poledata.system import mounts
from tests.helpers.loopdisks import LoopDisk
from tests.helpers.other_users import NOBODY
from tests.helpers.sample_disks import P01, WWN, ready

S01 = Entry("S01", Role.COPY, "ZA12JD44", WWN.format(8), 2)

# --- what is still to be done ---------------------------------------------------------------


@pytest.fixture
def station(tmp_path: Path) -> Callable[..., Config]:
    """``station(require_mount=…)`` is a configuration whose disks are below ``tmp_path/disks``."""
    (tmp_path / "disks").mkdir()
    (tmp_path / "buffer").mkdir()

    def config(
        require_mount: bool = True, mount_points: str = "disks", accept_unidentified: str = "no"
    ) -> Config:
        (tmp_path / "config").write_text(
            "[x]\nFilenameDB = pole.sqlite\nBufferLocation = buffer\nExtension = g3\n"
            f"DiskMountPoints = {mount_points}\nRequireMount = {'yes' if require_mount else 'no'}\n"
            f"AcceptUnidentifiedDrives = {accept_unidentified}\n"
        )
        return load(tmp_path / "config", {})

    return config


@pytest.fixture(autouse=True)
def _one_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An lsblk that knows P01's drive alone, as /dev/sdq."""
    path = tmp_path / "lsblk"
    drive = (
        f'"kname":"sdq","serial":"ZA12JCHM0000C822","wwn":"{P01.logical_id}","size":8001563222016'
    )
    path.write_text(f"#!/bin/sh\necho '{{\"blockdevices\":[{{{drive}}}]}}'\n")
    path.chmod(0o755)
    monkeypatch.setattr(mounts, "_LSBLK", (str(path),))


def test_a_drive_that_is_not_mounted_gets_the_command_that_mounts_it(
    station: Callable[..., Config], tmp_path: Path
) -> None:
    """With the device that the system knows it as now."""
    place = tmp_path / "disks" / "P01"
    assert ready(station()) == Readiness(
        label="P01",
        role="primary",
        serial="ZA12JCHM",
        logical_id=P01.logical_id,
        device="/dev/sdq",
        mounted="no",
        writable="-",
        capacity_bytes=8001563222016,
        next_step=f"sudo mkdir -p {place} && sudo mount /dev/sdq {place}",
    )


def test_a_drive_that_the_system_does_not_know_is_to_be_inserted(
    station: Callable[..., Config], tmp_path: Path
) -> None:
    """A plain directory at its place is no mounted drive."""
    (tmp_path / "disks" / "S01").mkdir()
    found = ready(station(), S01)
    assert (found.device, found.mounted, found.capacity_bytes) == ("-", "no", None)
    assert found.next_step == "insert the drive ZA12JD44"


def test_a_mounted_drive_is_ready(
    station: Callable[..., Config], loop_disk: Callable[..., LoopDisk], tmp_path: Path
) -> None:
    """At its place, with its capacity; nothing is left to do."""
    disk = loop_disk(tmp_path / "disk.img", tmp_path / "disks" / "P01", fs="ext4")
    found = ready(station(accept_unidentified="yes"))
    vfs = os.statvfs(disk.mount_point)
    assert found.capacity_bytes == vfs.f_blocks * vfs.f_frsize
    assert (found.mounted, found.writable, found.next_step) == (str(disk.mount_point), "yes", "")


@pytest.mark.parametrize("require_mount", [True, False])
def test_a_command_can_be_pasted_as_it_stands(
    station: Callable[..., Config], tmp_path: Path, require_mount: bool
) -> None:
    """Also where a directory has a blank in its name."""
    (tmp_path / "my disks").mkdir()
    found = ready(station(require_mount, mount_points="my disks"))
    assert str(tmp_path / "my disks" / "P01") in shlex.split(found.next_step)


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A directory that every user can reach."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


GIVE = "sudo chown -R nobody: {0} && sudo chmod -R u+rwX {0}"


@pytest.mark.root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "step"),
    [
        (NOBODY, 0, 0o755, ""),
        (NOBODY, 0, 0o300, ""),
        (NOBODY, 0, 0o555, GIVE),
        (NOBODY, 0, 0o277, GIVE),
        (0, NOBODY, 0o775, ""),
        (0, NOBODY, 0o757, GIVE),  # its own group's bits count, not others'
        (0, 0, 0o757, ""),
        (0, 0, 0o755, GIVE),
        (0, 0, 0o776, GIVE),
    ],
)
def test_whether_the_cron_user_may_write_is_what_the_kernel_says(
    station: Callable[..., Config], anybodys: Path, owner: int, group: int, mode: int, step: str
) -> None:
    """By owner, group and mode of the disk's root; else the command that truly helps."""
    place = anybodys / "P01"
    place.mkdir()
    os.chown(place, owner, group)
    place.chmod(mode)
    config = station(require_mount=False, mount_points=str(anybodys))
    found = ready(config, uid=NOBODY)
    made = subprocess.run(
        ["/bin/mkdir", place / "x"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
        capture_output=True,
    )
    assert (found.writable == "yes") == (made.returncode == 0)
    assert found.next_step == step.format(place)
    if step:
        subprocess.run(found.next_step.replace("sudo ", ""), shell=True, check=True)
        assert ready(config, uid=NOBODY).next_step == ""


@pytest.mark.root
def test_root_may_always_write(station: Callable[..., Config], tmp_path: Path) -> None:
    """Whatever the mode says."""
    (tmp_path / "disks" / "P01").mkdir(mode=0o500)
    assert ready(station(require_mount=False), uid=0).next_step == ""


@pytest.mark.root
def test_a_user_without_a_name_is_helped_too(
    station: Callable[..., Config], tmp_path: Path
) -> None:
    """To chown(1) ``54321:`` is no owner unless /etc/passwd knows a user of that name."""
    place = tmp_path / "disks" / "P01"
    place.mkdir()
    config = station(require_mount=False)
    step = ready(config, uid=54321).next_step
    assert step.startswith("sudo chown -R 54321 ")
    subprocess.run(step.replace("sudo ", ""), shell=True, check=True)
    assert place.stat().st_uid == 54321
    assert ready(config, uid=54321).next_step == ""
