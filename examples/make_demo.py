"""Archive a small made-up observation to stand-in disks under demo/; `make demo` runs it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import cycle, product
from pathlib import Path

from poledata import config

CONFIG = "basic_data_manager.config"
BUFFER = Path("demo/buffer")
DISKS = Path("demo/disks")
LABELS = ("P01", "P02", "P03", "S01", "S02")
SIZES = (0, 1, 4095, 4096, 4097, 2**20 + 7, 9 * 2**20 + 13)
OBSIDS_START = datetime(2017, 1, 1, tzinfo=UTC)


def make_directories() -> None:
    for directory in (BUFFER, *(DISKS / label for label in LABELS)):
        directory.mkdir(parents=True, exist_ok=True)


def next_obsid() -> int:
    """Seconds since 2017; an observation that was made in this very second is stepped over."""
    obsid = int((datetime.now(UTC) - OBSIDS_START).total_seconds())
    while any(DISKS.glob(f"*/data/*/*/{obsid}")) or any(BUFFER.glob(f"*/*/{obsid}")):
        obsid += 1
    return obsid


def write_observation(obsid: int) -> None:
    """Files as the telescope leaves them: equal basenames everywhere, sizes about a block's."""
    sizes = cycle(SIZES)
    for kind, source in product(("fullrate", "downsampled"), ("RCW38", "ra0hdec-44.75")):
        directory = BUFFER / kind / source / str(obsid)
        directory.mkdir(parents=True)
        for name in ("0000.g3", "0001.g3", "nominal_online_cal.g3"):
            (directory / name).write_bytes(os.urandom(next(sizes)))
    (directory / "observation.txt").write_text("Not a .g3 file: it stays in the buffer.\n")
    (directory / "offline_calibration.g3").symlink_to("nominal_online_cal.g3")


def wait_until_settled() -> None:
    settle_s = config.load(Path(CONFIG)).settle_s
    stats = [path.lstat() for path in BUFFER.rglob("*.g3")]
    settled_at = max(max(st.st_mtime, st.st_ctime) for st in stats) + settle_s
    print(f"\nWaiting until no file has changed for {settle_s:g} s (SettleTime).", flush=True)
    while (left_s := settled_at - time.time()) > 0:
        time.sleep(left_s)


def run(*argv: str, cwd: Path | None = None) -> None:
    """Show the command as a person would type it, run it, and end the demo if it fails."""
    print("\n$", *(("cd", cwd, "&&") if cwd else ()), shlex.join(argv), flush=True)
    program = sys.executable if argv[0] == "python" else argv[0]
    if status := subprocess.run([program, *argv[1:]], cwd=cwd).returncode:
        raise SystemExit(f"The demo stops: this command ended with {status}.")


def list_tree(top: Path) -> None:
    print(f"\n{top}:")
    for path in sorted(path for path in top.rglob("*") if not path.is_dir()):
        shown = f"-> {path.readlink()}" if path.is_symlink() else f"{path.stat().st_size:,}"
        print(f"{shown:>26}  {path.relative_to(top)}")


def main() -> None:
    os.chdir(Path(__file__).resolve().parents[1])
    make_directories()
    obsid = next_obsid()
    write_observation(obsid)
    print(f"Observation {obsid} is in {BUFFER}, as the telescope would write it.")
    run("python", "generate_db.py", "--config", CONFIG, "--disk-map", "disk-map-test")
    wait_until_settled()
    run("python", "data_manager.py", "--config", CONFIG)
    run("python", "data_manager.py", "--config", CONFIG, "status")

    used = [disk for disk in sorted(DISKS.iterdir()) if (disk / "manifest-sha512.txt").exists()]
    for top in (BUFFER, *used):
        list_tree(top)
    for disk in used:
        run("sha512sum", "-c", "--quiet", "manifest-sha512.txt", cwd=disk)
        print(f"{disk}: OK")
    left = [p for p in BUFFER.rglob("*.g3") if p.is_file() and not p.is_symlink()]
    if left or len(used) < 2:
        raise SystemExit(f"Not archived: {len(left)} files are left, {len(used)} disks are used.")
    print(f"\nDone: every .g3 file of {BUFFER} is on two disks, and has left the buffer.")


if __name__ == "__main__":
    main()
