"""A source and two disks for a benchmark: XFS on loop devices, images in RAM, slowed down.

The block layer's control group sets how many bytes and operations a second each device lets
through, reading and writing counted apart. Everything is always taken down again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers.loopdisks import LoopDisk

MB = 1_000_000
MIB = 1024**2
RAM = Path("/dev/shm")
V1 = Path("/sys/fs/cgroup/blkio")
V2 = Path("/sys/fs/cgroup")
V2_GROUP = V2 / "pole-bench"


@dataclass(frozen=True, slots=True)
class Speed:
    """What a device lets through, each way; 0: no limit."""

    bytes_per_s: int = 0
    operations_per_s: int = 0


FREE = Speed()
SOURCE = Speed(500 * MB)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one run takes place: the buffer, and the two disks, empty."""

    root: Path
    buffer: Path
    disks: dict[str, Path]  # by label


# --- the throttle -------------------------------------------------------------------------


def throttle_kind() -> str:
    """Which control groups this machine has. Raises OSError if none can slow a device."""
    if (V1 / "blkio.throttle.read_bps_device").exists():
        return "blkio (cgroup v1)"
    if "io" in _read(V2 / "cgroup.controllers").split():
        return "io.max (cgroup v2)"
    raise OSError("no control group can slow a device: neither blkio (v1) nor io (v2) is mounted")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@contextmanager
def throttled(device: Path, speed: Speed) -> Iterator[None]:
    """Slow a block device down, and let it go again."""
    if speed == FREE:
        yield
        return
    with ExitStack() as undo:
        undo.callback(_set_speed, device, FREE)
        _set_speed(device, speed)
        yield


def _set_speed(device: Path, speed: Speed) -> None:
    number = device.stat().st_rdev
    name = f"{os.major(number)}:{os.minor(number)}"
    if throttle_kind().startswith("blkio"):
        for way in ("read", "write"):
            (V1 / f"blkio.throttle.{way}_bps_device").write_text(f"{name} {speed.bytes_per_s}")
            rule = f"{name} {speed.operations_per_s}"
            (V1 / f"blkio.throttle.{way}_iops_device").write_text(rule)
        return
    bps, iops = speed.bytes_per_s or "max", speed.operations_per_s or "max"
    (V2_GROUP / "io.max").write_text(f"{name} rbps={bps} wbps={bps} riops={iops} wiops={iops}")


@contextmanager
def group() -> Iterator[None]:
    """Where the throttle works on a group, not on all: we, and what we start, are in it."""
    if throttle_kind().startswith("blkio"):
        yield  # the root's rules hold for every process
        return
    (V2 / "cgroup.subtree_control").write_text("+io +memory")
    V2_GROUP.mkdir(exist_ok=True)
    (V2_GROUP / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (V2 / "cgroup.procs").write_text(str(os.getpid()))
        V2_GROUP.rmdir()


# --- the places ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A file system in RAM that keeps a workload's files, and shows them as a buffer."""

    root: Path
    loop: LoopDisk

    @property
    def keep(self) -> Path:
        return self.root / "source/keep"

    @property
    def buffer(self) -> Path:
        return self.root / "source/buffer"

    def refill(self) -> None:
        """All files stand in the buffer again: as links, for their content is not altered."""
        subprocess.run(["rm", "-rf", self.buffer], check=True)
        subprocess.run(["cp", "-al", self.keep, self.buffer], check=True)


@contextmanager
def source(size_mb: int, images: Path = RAM) -> Iterator[Source]:
    """An empty source; ``size_mb``: what its files will take, ``images``: where all images lie."""
    with TemporaryDirectory(dir=images, prefix="pole-bench-") as name, ExitStack() as undo:
        root = Path(name)
        loop = undo.enter_context(
            LoopDisk(root / "source.img", root / "source", size_mb=_roomy(size_mb), fs="xfs")
        )
        found = Source(root, loop)
        found.keep.mkdir()
        found.buffer.mkdir()
        yield found


@contextmanager
def stage(
    kept: Source, size_mb: int, speed: Speed, labels: Sequence[str] = ("P01", "S01")
) -> Iterator[Stage]:
    """Two new disks beside the buffer, all of them as slow as wanted, and nothing in memory."""
    places = {label: kept.root / "disks" / label for label in labels}
    with ExitStack() as undo:
        undo.callback(_remove_files, kept.root)
        loops = [
            undo.enter_context(
                LoopDisk(kept.root / f"{label}.img", place, size_mb=_roomy(size_mb), fs="xfs")
            )
            for label, place in places.items()
        ]
        for loop in loops:
            undo.enter_context(throttled(loop.device, speed))
        if speed != FREE:
            undo.enter_context(throttled(kept.loop.device, SOURCE))
        forget_caches()
        yield Stage(kept.root, kept.buffer, places)


def _remove_files(root: Path) -> None:
    """What a run left beside the disks: database, log, lists."""
    for path in root.iterdir():
        if path.is_file() and path.suffix != ".img":
            path.unlink()


def _roomy(size_mb: int) -> int:
    return size_mb + size_mb // 50 + 400


def forget_caches() -> None:
    """Everything is written, and nothing of it is in memory any more."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
