"""A disk that takes every byte and keeps few: its writeback fails late, when nobody looks.

ext4 on a loop device whose image lies in a tmpfs that is too small for it: write(2) succeeds into
memory, and only the flush, later, meets the end of the tmpfs.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.loopdisks import MIB, LoopDisk, LoopWorld

KEEPS_MB = 20  # of the 64 MB that it shows
SMALL_BYTES = 900_000  # goes through memory; larger files are written past it


@pytest.fixture
def make_lying_disk(tmp_path: Path) -> Iterator[Callable[..., LoopDisk]]:
    """``make_lying_disk(mount_point)``: it shows 64 MB, and keeps 20."""
    with ExitStack() as down:

        def make(mount_point: Path) -> LoopDisk:
            short = tmp_path / f"short-{mount_point.name}"
            short.mkdir()
            options = ["mount", "-t", "tmpfs", "-o", f"size={KEEPS_MB}m", "tmpfs", str(short)]
            subprocess.run(options, check=True)
            down.callback(subprocess.run, ["umount", "-l", str(short)], check=True)
            disk = LoopDisk(short / "image", mount_point, fs="ext4", mkfs_args=("-m", "0"))
            down.callback(disk.destroy)
            return disk

        yield make


def lying_world(
    make_loop_world: Callable[..., LoopWorld],
    make_lying_disk: Callable[..., LoopDisk],
    primaries: tuple[str, ...],
) -> LoopWorld:
    """P01 is the lying one; it has taken a small file well."""
    world = make_loop_world(primaries=primaries, copies=("S01",), size_mb=160, copy_fs="ext4")
    world.loops["P01"].destroy()
    world.loops["P01"] = make_lying_disk(world.disks["P01"])
    world.put("first.g3", 3000)
    world.generate()
    world.run_pass(check=0)
    assert world.archived("P01") == {"first.g3"}
    return world


def test_cp_and_sha512sum_call_it_a_success(
    loop_world: LoopWorld, make_lying_disk: Callable[..., LoopDisk]
) -> None:
    """What others do: every step says yes, and then the data is not there."""
    disk = make_lying_disk(loop_world.root / "lying")
    source = loop_world.root / "source.g3"
    source.write_bytes(os.urandom(30 * MIB))
    checksums = loop_world.root / "SHA512SUMS"
    script = (
        f"cd {source.parent} && sha512sum source.g3 > {checksums} && "
        f"cp source.g3 {disk.mount_point}/ && cd {disk.mount_point} && sha512sum -c {checksums}"
    )
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "source.g3: OK\n"
    subprocess.run(["sync", "-f", disk.mount_point], check=False, capture_output=True)
    Path("/proc/sys/vm/drop_caches").write_text("1")
    again = subprocess.run(
        ["sha512sum", "-c", checksums], cwd=disk.mount_point, capture_output=True, check=False
    )
    assert again.returncode == 1
    assert not (loop_world.root / "pole.sqlite").exists()


@pytest.mark.parametrize("sizes", [[SMALL_BYTES] * 34, [30 * MIB]], ids=["buffered", "direct"])
def test_a_pass_finds_out_and_keeps_the_buffers_file(
    make_lying_disk: Callable[..., LoopDisk],
    make_loop_world: Callable[..., LoopWorld],
    sizes: list[int],
) -> None:
    """With no other primary disk the files stay; those that lie whole on the medium may go."""
    world = lying_world(make_loop_world, make_lying_disk, ("P01",))
    names = {world.put(f"{number:02}.g3", size).name for number, size in enumerate(sizes)}
    world.run_pass(check=1)
    kept = world.waiting()
    assert kept <= names
    assert sum((world.buffer / name).stat().st_size for name in kept) > 10 * MIB
    assert ("disk-error", "P01") in world.notices()
    assert re.search("Input/output error|No space left on device, where it had", world.log())
    world.spoil("P01", None, "what it kept was judged by the pass alone")


def test_it_is_held_after_three_failing_passes_running(
    make_lying_disk: Callable[..., LoopDisk], make_loop_world: Callable[..., LoopWorld]
) -> None:
    """The next disk takes the files meanwhile, and none is lost."""
    world = lying_world(make_loop_world, make_lying_disk, ("P01", "P02"))
    for number in range(3):
        world.put(f"large/{number}.g3", 22 * MIB)
        world.run_pass(check=1)
        assert world.waiting() == set()
        assert f"large/{number}.g3" in world.archived("P02")
    (row,) = world.sql("SELECT held_by, held_reason FROM disks WHERE label = 'P01'")
    assert tuple(row) == ("machine", "it failed in 3 passes running")
    world.put("large/3.g3", 22 * MIB)
    world.run_pass(check=0)
    world.spoil("P01", None, "what it kept was judged by the pass alone")
