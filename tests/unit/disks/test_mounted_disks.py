"""No disk is used that is not proved to be the one that is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata.disks.identity import HeldDisk
from poledata.models import Disk, DiskState, Role
from poledata.system import mounts


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


# --- two labels, one drive ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ({"a"}, {"b"}, True),
        ({"a"}, {"a"}, False),
        ({"a", "b"}, {"b", "c"}, False),
        (set(), {"a"}, False),
        (set(), set(), False),
    ],
)
def test_drives_are_apart_if_they_share_none(one: set[str], other: set[str], apart: bool) -> None:
    """What is not known is never taken for apart."""

    def held(drives: set[str]) -> HeldDisk:
        disk = Disk(1, "P01", Role.PRIMARY, "Z", "0x", DiskState.ACTIVE, *[None] * 2, False,
                    *[None] * 5)  # fmt: skip
        nowhere = mounts.Attachment(None, frozenset())
        return HeldDisk(disk, Path("/"), -1, frozenset(drives), None, True, nowhere)

    assert held(one).is_on_another_drive_than(held(other)) == apart
    assert held(other).is_on_another_drive_than(held(one)) == apart
