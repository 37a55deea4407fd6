"""Reading two disks again: ``verify`` beside ``dd``, which does not even hash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import disks, measure, rivals, workloads
from benchmarks.disks import MIB
from benchmarks.report import Goal, Section
from benchmarks.workloads import DISK, Workload

DD = """
read_one="dd if={} of=/dev/null bs=4M iflag=direct status=none"
read_all() { find "$1/data" -type f -exec $read_one \\; ; }
read_all disks/P01 & first=$!; read_all disks/S01; wait $first
"""
FILES = 16
Say = Callable[[str], None]


def verify(file_mib: int, rounds: int, say: Say) -> Section:
    """Both disks at once, each way in turn."""
    files = tuple((f"fullrate/RCW38/80296951/{n:04}.g3", file_mib * MIB) for n in range(FILES))
    workload = Workload("verify", "", files, DISK)
    rates = _rates(workload, rounds)
    say(f"verify: {rates} MB/s")
    ratio = rates["verify"] / rates["dd"]
    rows = [
        ("`dd iflag=direct`", f"{rates['dd']:.0f}", "1"),
        ("`data_manager.py verify`", f"{rates['verify']:.0f}", f"{ratio:.3f}"),
    ]
    goal = Goal(
        "`verify` of two disks", "≥ 0.95 of `dd iflag=direct`", f"{ratio:.3f}", ratio >= 0.95
    )
    title = f"Two disks of 200 MB/s read again at once, {FILES * file_mib} MiB on each"
    note = f"Medians of {rounds} rounds."
    return Section("verify", title, ("way", "MB/s of each", "× `dd`"), rows, [goal], [note])


def _rates(workload: Workload, rounds: int) -> dict[str, float]:
    with disks.source(workload.size_mb) as kept:
        workloads.fill(workload, kept.keep)
        kept.refill()
        with disks.stage(kept, workload.size_mb, workload.speed) as stage:
            rivals.prepare(stage)
            measure.run(rivals.data_manager(stage.root), stage.root)
            commands: dict[str, list[str | Path]] = {
                "dd": ["sh", "-euc", DD],
                "verify": rivals.data_manager(stage.root, "verify", "P01", "S01"),
            }
            times: dict[str, list[float]] = {name: [] for name in commands}
            for _ in range(rounds):
                for name, command in commands.items():
                    disks.forget_caches()
                    times[name].append(measure.run(command, stage.root).wall_s)
    size_mb = workload.size_bytes / disks.MB
    return {name: size_mb / median(runs) for name, runs in times.items()}
