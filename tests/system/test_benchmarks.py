"""What `make bench` measures with, and the page that it writes. Nothing here asserts a time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import disks
from benchmarks.disks import MB, Speed
from tests.helpers.loopdisks import why_no_loop_disks


@pytest.mark.skipif(why_no_loop_disks() is not None, reason=str(why_no_loop_disks()))
def test_nothing_is_left_of_a_run_that_fails() -> None:
    """No mount, no loop device, no image, no throttle."""
    try:
        disks.throttle_kind()
    except OSError as fault:
        pytest.skip(str(fault))
    with (
        pytest.raises(ZeroDivisionError),
        disks.group(),
        disks.source(1) as kept,
        disks.stage(kept, 1, Speed(200 * MB, 200)) as stage,
    ):
        seen = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
        assert seen.count(str(stage.root)) == 3
        raise ZeroDivisionError
    assert not kept.root.exists()
    assert str(kept.root) not in Path("/proc/self/mountinfo").read_text()
    seen = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert str(kept.root) not in seen
    rules = [path.read_text() for path in disks.V1.glob("blkio.throttle.*_device")]
    number = kept.loop.device.stat().st_rdev
    assert not any(f"7:{number & 0xFF} " in rule for rule in rules)
