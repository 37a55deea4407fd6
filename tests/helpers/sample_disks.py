"""Disks, drives and names that are made up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from poledata.config import Config
from poledata.disk_map import Entry
from poledata.disks.identity import HeldDisk
from poledata.maintenance.disk_set import Readiness, readiness
from poledata.models import Disk, DiskState, Role
from poledata.system import mounts


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


DISK = Disk(
    id=1,
    label="P01",
    role=Role.PRIMARY,
    serial="ZA12JCHM",
    logical_id="0x5000c500858bfea7",
    state=DiskState.SPARE,
)
# What a directory of Linux can hold.
NAMES = st.lists(
    (st.binary(min_size=1, max_size=8).map(os.fsdecode) | st.text(min_size=1, max_size=8)).filter(
        lambda part: part not in (".", "..") and not set("/\0") & set(part)
    ),
    min_size=1,
    max_size=3,
).map("/".join)
WWN = "0x5000c500858bfea{}"
P01 = Entry("P01", Role.PRIMARY, "ZA12JCHM", WWN.format(7), 1)


def disk(entry: Entry, state: DiskState = DiskState.ACTIVE, **changed: Any) -> Disk:
    """The drive of an entry, as the database knows it."""
    known = Disk(
        id=entry.line,
        label=entry.label,
        role=entry.role,
        serial=entry.serial,
        logical_id=entry.logical_id,
        state=state,
    )
    return replace(known, **changed)


def ready(config: Config, entry: Entry = P01, uid: int | None = None) -> Readiness:
    (found,) = readiness(config, [entry], os.geteuid() if uid is None else uid)
    return found


# As lsblk 2.38 of the util-linux answers; with SATA, SAS, NVMe, a loop device and a USB stick.
LSBLK = b"""{
   "blockdevices": [
      {"kname":"loop0","serial":null,"wwn":null,"size":67108864},
      {"kname":"sda","serial":"ZR7025DW","wwn":"0x5000c500dc27359d","size":16000900661248},
      {"kname":"sdb","serial":"ZA12JCHM0000C8220UQX","wwn":"0x5000c500858bfea7","size":8001563222016},
      {"kname":"sdc","serial":"  4C530001  ","wwn":"","size":15376318464},
      {"kname":"sdd","serial":"","wwn":"naa.5000C500858BFEA8","size":8001563222016},
      {"kname":"nvme0n1","serial":"S437NC0R203374","wwn":"eui.34333730522033740025384300000001","size":960197124096},
      {"kname":"nvme1n1","serial":"S5GXNX0T123456","wwn":"eui.0025385B21B0C1D2","size":1000204886016},
      {"kname":"nvme2n1","serial":"2145","wwn":"nvme.1344-32313435-4d6963726f6e-00000001","size":1000204886016}
   ]
}
"""
