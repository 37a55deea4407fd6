"""What is archived: files as the telescope leaves them, in the sizes that decide the speed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disks import FREE, MB, MIB, Speed

KIB = 1024
DISK = Speed(200 * MB)
SLOW_DISK = Speed(200 * MB, 200)


@dataclass(frozen=True, slots=True)
class Workload:
    """So many files of such a size: (name, size_bytes) each, and how slow the disks are."""

    key: str
    title: str
    files: tuple[tuple[str, int], ...]
    speed: Speed

    @property
    def size_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self.files)

    @property
    def size_mb(self) -> int:
        return self.size_bytes // MIB + len(self.files) // 100 + 1

    def limit_s(self, sha512_bytes_per_s: float) -> float:
        """The least that a verified archive can take: written and read back, on both at once.

        Where the disks are free, what the processors take to hash all bytes three times.
        """
        if self.speed == FREE:
            return 3 * self.size_bytes / sha512_bytes_per_s
        by_bytes = 2 * self.size_bytes / self.speed.bytes_per_s
        operations = self.speed.operations_per_s
        return max(by_bytes, 2 * len(self.files) / operations if operations else 0)


def fill(workload: Workload, root: Path) -> None:
    """Make the files, of random bytes: each takes its whole size on any disk."""
    for name, size_bytes in workload.files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            for at in range(0, size_bytes, MIB):
                out.write(os.urandom(min(MIB, size_bytes - at)))


def _equal(files: int, size_bytes: int) -> tuple[tuple[str, int], ...]:
    return tuple((f"fullrate/RCW38/80296951/{n:04}.g3", size_bytes) for n in range(files))


def _observations(count: int, large_bytes: int) -> Iterator[tuple[str, int]]:
    """Raw frames, downsampled ones, and many small calibration files beside them."""
    for obsid in range(80296951, 80296951 + count):
        for n in range(2):
            yield f"fullrate/RCW38/{obsid}/{n:04}.g3", large_bytes
        for n in range(4):
            yield f"downsampled/RCW38/{obsid}/{n:04}.g3", large_bytes // 12
        for n in range(60):
            yield f"calibration/RCW38/{obsid}/{n:04}.g3", 100 * KIB + n


def workloads(is_quick: bool) -> dict[str, Workload]:
    """By key; the quick ones are of the same kind, and a tenth as long."""
    large = _equal(4, 32 * MIB) if is_quick else _equal(8, 128 * MIB)
    small = _equal(100 if is_quick else 1000, 256 * KIB)
    one = _equal(1, (256 if is_quick else 4096) * MIB)
    mixed = tuple(_observations(1, 32 * MIB) if is_quick else _observations(3, 128 * MIB))
    kinds = (
        ("large", _in_words(large), large, DISK),
        ("small", _in_words(small), small, SLOW_DISK),
        ("one", _in_words(one), one, DISK),
        ("mixed", f"an observation tree, {_in_words(mixed)}", mixed, DISK),
    )
    found = {}
    for key, title, files, speed in kinds:
        found[key] = Workload(key, f"{title}, {_slow(speed)}", files, speed)
        found[f"{key}-free"] = Workload(f"{key}-free", f"{title}, no throttle", files, FREE)
    return found


def _in_words(files: tuple[tuple[str, int], ...]) -> str:
    sizes = {size_bytes for _, size_bytes in files}
    if len(sizes) > 1:
        return f"{len(files)} files, {sum(s for _, s in files) / MIB:.0f} MiB"
    (size_bytes,) = sizes
    size = f"{size_bytes // MIB} MiB" if size_bytes >= MIB else f"{size_bytes // KIB} KiB"
    return f"{len(files)} × {size}"


def _slow(speed: Speed) -> str:
    operations = f", {speed.operations_per_s} operations/s" if speed.operations_per_s else ""
    return f"disks of {speed.bytes_per_s // MB} MB/s{operations}"
