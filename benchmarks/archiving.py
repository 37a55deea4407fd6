"""A whole buffer on two disks: this project beside other ways, in turn, round after round."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks import disks, measure, rivals, workloads
from benchmarks.disks import FREE
from benchmarks.measure import Used
from benchmarks.report import Goal, Section
from benchmarks.rivals import WAYS, Way
from benchmarks.workloads import Workload

MIB = 1024**2
HEAD = ("way", "seconds", "× limit", "CPU seconds", "peak memory, MiB")
GOALS = {"large": 1.05, "one": 1.05, "small": 1.15}
GOAL_FREE = 1.25
Say = Callable[[str], None]


def compare(workload: Workload, rounds: int, say: Say) -> Section:
    """Each way in turn, ``rounds`` times; medians."""
    here = [way for way in WAYS if way.is_here]
    load = os.getloadavg()[0]
    used: dict[str, list[Used]] = {way.name: [] for way in here}
    rates = []
    with disks.source(workload.size_mb) as kept:
        workloads.fill(workload, kept.keep)
        for number in range(rounds):
            rates.append(measure.sha512_bytes_per_s())
            for way in here:
                used[way.name].append(_once(way, workload, kept))
                took_s = used[way.name][-1].wall_s
                say(f"{workload.key} {number + 1}/{rounds}: {took_s:6.2f} s {way.name}")
    rate = sorted(rates)[len(rates) // 2]
    limit_s = workload.limit_s(rate)
    middles = {name: measure.middle(runs) for name, runs in used.items()}
    return Section(
        workload.key,
        workload.title,
        HEAD,
        [_row(way, middles.get(way.name), limit_s) for way in WAYS],
        _goals(workload, middles, limit_s),
        [_conditions(workload, rounds, limit_s, rate, load), *_footnotes()],
    )


def _once(way: Way, workload: Workload, kept: disks.Source) -> Used:
    kept.refill()
    with disks.stage(kept, workload.size_mb, workload.speed) as stage:
        rivals.prepare(stage)
        disks.forget_caches()
        return measure.run(way.command(stage), stage.root)


def _row(way: Way, used: Used | None, limit_s: float) -> tuple[str, ...]:
    name = f"{way.name} (*)" if way.note else way.name
    if used is None:
        return (name, f"not measured: no `{way.tool}` here", "", "", "")
    ratio = used.wall_s / limit_s
    return (
        name,
        f"{used.wall_s:.2f}",
        f"{ratio:.2f}",
        f"{used.cpu_s:.2f}",
        f"{used.peak_bytes / MIB:.0f}",
    )


def _goals(workload: Workload, middles: dict[str, Used], limit_s: float) -> list[Goal]:
    ours = middles[WAYS[0].name].wall_s
    ratio = ours / limit_s
    if workload.speed != FREE:
        goal = GOALS.get(workload.key)
        text = f"≤ {goal} × limit"
        return [Goal(workload.title, text, f"{ratio:.2f}", ratio <= goal)] if goal else []
    best = min(used.wall_s for name, used in middles.items() if name != WAYS[0].name)
    ahead = "ahead of" if ours < best else "behind"
    return [
        Goal(
            workload.title,
            f"≤ {GOAL_FREE} × limit, ahead of all others",
            f"{ratio:.2f}, {ahead} the best other ({best / limit_s:.2f})",
            ratio <= GOAL_FREE and ours < best,
        )
    ]


def _conditions(workload: Workload, rounds: int, limit_s: float, rate: float, load: float) -> str:
    how = "2 × bytes / speed of a disk, or 2 × files / its operations a second"
    if workload.speed == FREE:
        how = f"3 × bytes / {rate / disks.MB:.0f} MB/s, what both cores hash"
    when = f"Medians of {rounds} rounds; load {load:.1f} when they began."
    return f"Limit {limit_s:.2f} s ({how}). {when}"


def _footnotes() -> list[str]:
    return [f"(*) {way.name}: {way.note}." for way in WAYS if way.note]
