"""Measure everything, or what is named, and write it into docs/performance.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks import archiving, disks, measure, passes, reading, report
from benchmarks.report import Section
from benchmarks.workloads import workloads

Measurement = Callable[[], Section]


def measurements(is_quick: bool, rounds: int) -> dict[str, Measurement]:
    """By key, in the order of the page."""
    found: dict[str, Measurement] = {}
    for key, workload in workloads(is_quick).items():
        found[key] = partial(archiving.compare, workload, rounds, say)
    many = 10 if is_quick else 1  # so much less
    found["idle"] = lambda: passes.idle(1_000_000 // many, 5 * rounds, say)
    found["scan"] = lambda: passes.first_copy(100_000 // many, rounds, say)
    found["memory"] = lambda: passes.memory(100, 10_000 // many, 1_000_000 // many, say)
    found["verify"] = lambda: reading.verify(128 // many, rounds, say)
    return found


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes; the page stays as it is"
    )
    parser.add_argument("--rounds", type=int, default=0, help="of each (3; quick: 1)")
    parser.add_argument("keys", nargs="*", metavar="WHAT", help=", ".join(measurements(True, 1)))
    return parser.parse_args()


def _why_not() -> str | None:
    if os.geteuid():
        return "make bench needs root: it mounts disks and slows them down."
    try:
        disks.throttle_kind()
    except OSError as fault:
        return f"make bench: {fault}"
    return None


def main() -> None:
    asked = _asked()
    if why := _why_not():
        sys.exit(why)
    todo = measurements(asked.quick, asked.rounds or (1 if asked.quick else 3))
    if unknown := set(asked.keys) - todo.keys():
        sys.exit(f"make bench: there is no {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # all is taken down
    say(f"{measure.machine()}, {disks.throttle_kind()}")
    with disks.group():
        for key in asked.keys or todo:
            section = todo[key]()
            print(f"\n{report.details(section)}\n\n{report.goals([section])}\n", flush=True)
            if not asked.quick:
                report.keep(section)
                report.write_page(list(todo))


if __name__ == "__main__":
    main()
