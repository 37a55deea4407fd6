"""What a pass costs that has nothing to do, or a great deal: start, scan, memory."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import gettempdir

from benchmarks import REPO, disks, measure, rivals, workloads
from benchmarks.disks import FREE, Stage
from benchmarks.measure import Used
from benchmarks.report import Goal, Section
from benchmarks.workloads import Workload

IMPORTS = [sys.executable, "-c", "import click, sqlite3"]
LOOK_EVERY_S = 0.005
Say = Callable[[str], None]
Command = Sequence[str | Path]

# As many more archived files as asked, on the first disk of each role.
FILL_FILES = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :files)
INSERT INTO files (name, size_bytes, sha512, mtime_ns, archived_at, removed_from_buffer_at)
SELECT printf('fullrate/RCW38/%08d/%04d.g3', 70000000 + i / 100, i % 100), 1000000,
       lower(hex(randomblob(64))), 1500000000000000000 + i, :now, :now FROM n
"""
FILL_COPIES = """
INSERT INTO copies (file_id, disk_id, state, mtime_ns, written_at, verified_at, verified_by)
SELECT files.id, disks.id, 'good', files.mtime_ns, :now, :now, 'direct'
FROM files, disks WHERE files.id > 1
"""


@contextmanager
def _claimed_stage(size_mb: int, source_mb: int, speed: disks.Speed = FREE) -> Iterator[Stage]:
    """Two disks in use, with one file on them; the buffer is empty."""
    with disks.source(source_mb) as kept, disks.stage(kept, size_mb, speed) as stage:
        rivals.prepare(stage)
        with (stage.root / "config").open("a") as config:
            config.write("SpareDisksLow = 0\n")
        (stage.buffer / "first.g3").write_bytes(b"first")
        subprocess.run(rivals.data_manager(stage.root, "--quiet"), check=True)
        yield stage


# --- nothing to do ------------------------------------------------------------------------


def idle(files: int, rounds: int, say: Say) -> Section:
    """A pass with an empty buffer, with a small and a large catalogue, beside bare imports."""
    load = os.getloadavg()[0]
    with _claimed_stage(400, 400) as stage:
        compileall.compile_dir(REPO / "poledata", quiet=1)  # as pip does when it installs
        small, large = _two_catalogues(stage, files)
        commands: dict[str, Command] = {"bare": IMPORTS, "small": small, "large": large}
        times = _in_turn(commands, rounds, stage.root)
    say(f"idle: {times}")
    bare, small_s, large_s = (times[name].wall_s for name in ("bare", "small", "large"))
    growth, ratio = large_s / small_s - 1, small_s / bare
    titles = {
        "bare": '`python -c "import click, sqlite3"`',
        "small": "a pass, 1 file in the catalogue",
        "large": f"a pass, {files + 1:,} files in the catalogue",
    }
    rows = [
        (title, _ms(times[name].wall_s), f"{times[name].wall_s / bare:.2f}", _ms(times[name].cpu_s))
        for name, title in titles.items()
    ]
    goals = [
        Goal("a pass with nothing to do", "≤ 2 × bare imports", f"{ratio:.2f}", ratio <= 2),
        Goal(
            f"the same, from 1 file in the catalogue to {files:,}",
            "within 10 %",
            f"{growth:+.1%}",
            abs(growth) <= 0.1,
        ),
    ]
    note = f"Medians of {rounds} rounds; load {load:.1f} when they began."
    head = ("what", "ms", "×", "CPU ms")
    return Section("idle", "A pass with nothing to do", head, rows, goals, [note])


def _two_catalogues(stage: Stage, files: int) -> tuple[Command, Command]:
    """The commands of a pass with the database as it is, and with one of many files."""
    other = stage.root / "large"
    other.mkdir()
    text = (stage.root / "config").read_text()
    (other / "config").write_text(text.replace("pole.sqlite", "large/pole.sqlite"))
    shutil.copy2(stage.root / "pole.sqlite", other)
    with closing(sqlite3.connect(other / "pole.sqlite")) as conn, conn:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        conn.execute(FILL_FILES, {"files": files, "now": now})
        conn.execute(FILL_COPIES, {"now": now})
    return rivals.data_manager(stage.root), rivals.data_manager(other)


def _in_turn(commands: dict[str, Command], rounds: int, cwd: Path) -> dict[str, Used]:
    """Medians of each; a first round, that warms up, does not count."""
    runs: dict[str, list[Used]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            runs[name].append(measure.run(command, cwd, looks_at_memory=False))
    return {name: measure.middle(used[1:]) for name, used in runs.items()}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


# --- many files waiting -------------------------------------------------------------------


def first_copy(files: int, rounds: int, say: Say) -> Section:
    """From the start of a pass to the first file that appears on a disk, from cold caches."""
    times = []
    with _claimed_stage(1000, files // 100) as stage:
        make_many(stage.buffer, files, 1024)
        for _ in range(rounds):
            disks.forget_caches()
            times.append(_seconds_to_first(stage))
            say(f"scan: {times[-1]:.2f} s to the first of {files:,} files")
    wall_s = median(times)
    title = f"A scan of {files:,} waiting files"
    rows = [("start of a pass to the first file being copied", f"{wall_s:.2f}")]
    goal = Goal(title, "a first file is being copied within 2 s", f"{wall_s:.2f} s", wall_s <= 2)
    note = f"Cold caches, {files // 500} directories. Median of {rounds} rounds."
    return Section("scan", title, ("what", "seconds"), rows, [goal], [note])


def make_many(root: Path, files: int, size_bytes: int) -> None:
    """Small files, 500 to a directory."""
    content = os.urandom(size_bytes)
    for first in range(0, files, 500):
        directory = root / f"fullrate/RCW38/{80296951 + first // 500}"
        directory.mkdir(parents=True)
        for number in range(min(500, files - first)):
            (directory / f"{number:04}.g3").write_bytes(content)


def _seconds_to_first(stage: Stage) -> float:
    incoming = stage.disks["P01"] / ".incoming"
    began_s = time.monotonic()
    with _a_pass(stage) as process:
        while not any(os.scandir(incoming)):
            _must_go_on(process, LOOK_EVERY_S)
        return time.monotonic() - began_s


@contextmanager
def _a_pass(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """A pass at work, interrupted in the end as by cron's user; it must say so."""
    with subprocess.Popen(rivals.data_manager(stage.root), stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait()
    if ended not in (0, 130):
        raise subprocess.CalledProcessError(ended, process.args)


def _must_go_on(process: subprocess.Popen[bytes], for_s: float) -> None:
    """Give a pass a little time. Raises CalledProcessError if it has ended."""
    try:
        ended = process.wait(for_s)
    except subprocess.TimeoutExpired:
        return
    raise subprocess.CalledProcessError(ended, process.args)


# --- memory -------------------------------------------------------------------------------


def memory(small_mb: int, large_mb: int, waiting: int, say: Say) -> Section:
    """Peak memory for a small file, for a large one, and with very many waiting."""
    rows = []
    for size_mb in (small_mb, large_mb):
        rows.append((f"one file of {size_mb} MB", _peak_of_one(size_mb * disks.MB)))
        say(f"memory: {rows[-1]}")
    rows.append((f"{waiting:,} files waiting", _peak_of_many(waiting, say)))
    say(f"memory: {rows[-1]}")
    highest, spread = max(peak for _, peak in rows), rows[1][1] / rows[0][1]
    goals = [
        Goal("peak memory", "≤ 150 MB", f"{highest / disks.MB:.0f} MB", highest <= 150 * disks.MB),
        Goal(
            f"the same, {small_mb} MB against {large_mb} MB",
            "equal",
            f"{spread - 1:+.1%}",
            abs(spread - 1) <= 0.05,
        ),
    ]
    shown = [(what, f"{peak / disks.MB:.0f}") for what, peak in rows]
    return Section("memory", "Peak memory of a pass", ("what", "MB"), shown, goals)


def _peak_of_one(size_bytes: int) -> int:
    files = (("one.g3", size_bytes),)
    workload = Workload("one", "", files, FREE)
    with disks.source(workload.size_mb, _with_room_for(3 * size_bytes)) as kept:
        workloads.fill(workload, kept.keep)
        kept.refill()
        with disks.stage(kept, workload.size_mb, FREE) as stage:
            rivals.prepare(stage)
            return measure.run(rivals.data_manager(stage.root), stage.root).peak_bytes


def _with_room_for(size_bytes: int) -> Path:
    """Memory, if there is twice as much; else a disk: no time is measured here."""
    is_roomy = shutil.disk_usage(disks.RAM).free > 2 * size_bytes
    return disks.RAM if is_roomy else Path(gettempdir())


def _peak_of_many(files: int, say: Say) -> int:
    """Until three batches are archived: the scan and the work are then at their highest."""
    peak_bytes = 0
    # XFS gives a quarter of its room to inodes, of 512 bytes each.
    with _claimed_stage(1000, files // 300 + 200) as stage:
        make_many(stage.buffer, files, 0)
        say(f"memory: {files:,} files made")
        with _a_pass(stage) as process:
            while _archived(stage.root) < min(3001, files):
                _must_go_on(process, measure.LOOK_EVERY_S)
                peak_bytes = max(peak_bytes, measure.tree_bytes(process.pid))
    return peak_bytes


def _archived(root: Path) -> int:
    uri = f"file:{root}/pole.sqlite?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=60)) as conn:
        (count,) = conn.execute("SELECT sum(files_archived) FROM passes").fetchone()
    return int(count)
