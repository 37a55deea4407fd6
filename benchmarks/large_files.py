"""How near a pass of large files comes to the limit of its disks: 2 × bytes / speed.

Two loop-mounted XFS disks of which the block layer lets through 200 MB/s each, a source of
500 MB/s, images in RAM, cold caches, Linux control groups (v1, blkio). Needs root:

    sudo .venv/bin/python benchmarks/large_files.py [FILES] [MIB_PER_FILE]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.loopdisks import LoopDisk

MB = 1_000_000
MIB = 1024**2
DISK_BYTES_PER_S = 200 * MB
SOURCE_BYTES_PER_S = 500 * MB
THROTTLE = Path("/sys/fs/cgroup/blkio")
REPO = Path(__file__).resolve().parent.parent

CONFIG = """[benchmark]
FilenameDB = {root}/pole.sqlite
BufferLocation = {root}/buffer
Extension = g3
DiskMountPoints = {root}/disks
MinFreeSpace = 0
SettleTime = 0 s
"""


def throttle(device: Path, bytes_per_s: int) -> None:
    """Limit a block device; 0 lifts the limit."""
    number = device.stat().st_rdev
    for way in ("read", "write"):
        rule = f"{os.major(number)}:{os.minor(number)} {bytes_per_s}"
        (THROTTLE / f"blkio.throttle.{way}_bps_device").write_text(rule)


def script(name: str, *args: object) -> None:
    subprocess.run([sys.executable, REPO / name, *map(str, args)], check=True)


def build(root: Path, stack: ExitStack, files: int, size_mib: int) -> list[LoopDisk]:
    """Source and two disks, the source filled, the database made."""
    (root / "disks").mkdir()
    places = {"S": root / "buffer", "P01": root / "disks/P01", "S01": root / "disks/S01"}
    size_mb = files * size_mib + 400
    loops = []
    for name, place in places.items():
        place.mkdir()
        disk = LoopDisk(root / f"{name}.img", place, size_mb=size_mb, fs="xfs")
        loops.append(stack.enter_context(disk))
    for number in range(files):
        with (root / f"buffer/{number:04}.g3").open("wb") as out:
            for _ in range(size_mib):
                out.write(os.urandom(MIB))
    (root / "config").write_text(CONFIG.format(root=root))
    (root / "map").write_text("P01 BENCHP01 0x5000c500ffffff01\nS01 BENCHS01 0x5000c500ffffff02\n")
    script("generate_db.py", "--config", root / "config", "--disk-map", root / "map", "--quiet")
    return loops


def main() -> None:
    files, size_mib = (int(arg) for arg in (*sys.argv[1:], "8", "128")[:2])
    if len(sys.argv) == 2:
        size_mib = 128
    with TemporaryDirectory(dir="/dev/shm") as name, ExitStack() as stack:
        root = Path(name)
        loops = build(root, stack, files, size_mib)
        for disk, speed in zip(
            loops, (SOURCE_BYTES_PER_S, DISK_BYTES_PER_S, DISK_BYTES_PER_S), strict=True
        ):
            throttle(disk.device, speed)
            stack.callback(throttle, disk.device, 0)
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        began = time.monotonic()
        script("data_manager.py", "--config", root / "config")
        took_s = time.monotonic() - began
        left = list((root / "buffer").glob("*.g3"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    limit_s = 2 * files * size_mib * MIB / DISK_BYTES_PER_S
    print(
        f"{files} x {size_mib} MiB: {took_s:.2f} s, limit {limit_s:.2f} s, "
        f"ratio {took_s / limit_s:.3f}; CPU {used.ru_utime + used.ru_stime:.1f} s, "
        f"peak memory {used.ru_maxrss / 1024:.0f} MiB; left in the buffer: {len(left)}"
    )


if __name__ == "__main__":
    main()
