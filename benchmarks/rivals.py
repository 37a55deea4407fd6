"""The ways to put a buffer on two disks that are compared: this project, and what people use.

Each is a shell script that ends only when both disks have been read back and agree, and fails
if they do not. Before reading, those that read through memory write all out and empty it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import REPO
from benchmarks.disks import Stage

COLD = "sync; echo 3 > /proc/sys/vm/drop_caches"

CONFIG = """[benchmark]
FilenameDB = {root}/pole.sqlite
BufferLocation = {buffer}
Extension = g3
DiskMountPoints = {root}/disks
AcceptUnidentifiedDrives = yes
MinFreeSpace = 0
SettleTime = 0 s
"""
DISK_MAP = "P01 BENCHP01 0x5000c500ffffff01\nS01 BENCHS01 0x5000c500ffffff02\n"

CP = """
(cd "$BUFFER"; find . -type f -print0 | xargs -0 sha512sum) > sums
cp -a "$BUFFER/." "$P"
cp -a "$BUFFER/." "$S"
{cold}
(cd "$P"; sha512sum --quiet -c "$OLDPWD/sums")
(cd "$S"; sha512sum --quiet -c "$OLDPWD/sums")
"""
CP_BOTH = """
both() {{ "$@" "$P" & first=$!; "$@" "$S"; wait $first; }}
check() {{ (cd "$1"; sha512sum --quiet -c "$OLDPWD/sums"); }}
(cd "$BUFFER"; find . -type f -print0 | xargs -0 sha512sum) > sums
both cp -a "$BUFFER/."
{cold}
both check
"""
RSYNC = """
rsync -a "$BUFFER/" "$P/"
rsync -a "$BUFFER/" "$S/"
{cold}
test -z "$(rsync -anc --itemize-changes "$BUFFER/" "$P/")"
test -z "$(rsync -anc --itemize-changes "$BUFFER/" "$S/")"
"""
RSYNC_NOTE = "compares by a checksum of its own, which costs a fraction of SHA-512"
RCLONE = """
rclone --quiet copy "$BUFFER" "$P"
rclone --quiet copy "$BUFFER" "$S"
{cold}
rclone --quiet check --download "$BUFFER" "$P"
rclone --quiet check --download "$BUFFER" "$S"
"""
SCRIPT = """
{python} {plain} "$BUFFER" "$P" "$S"
sync
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way; ``command`` is of a script of the shell, ``tool`` what it needs."""

    name: str
    script: str = ""
    tool: str = "cp"
    note: str = ""

    @property
    def is_here(self) -> bool:
        return shutil.which(self.tool) is not None

    def command(self, stage: Stage) -> Sequence[str | Path]:
        if not self.script:
            return data_manager(stage.root)
        places = {"BUFFER": stage.buffer, "P": stage.disks["P01"], "S": stage.disks["S01"]}
        names = "\n".join(f"{name}='{place}'" for name, place in places.items())
        plain = Path(__file__).with_name("plain_script.py")
        body = self.script.format(cold=COLD, python=sys.executable, plain=plain)
        return ["sh", "-euc", f"{names}\n{body}"]


WAYS = (
    Way("this project"),
    Way("`cp` ×2, empty memory, `sha512sum -c` ×2", CP),
    Way("the same, both disks at once", CP_BOTH),
    Way("`rsync -a` ×2, empty memory, `rsync -c` ×2", RSYNC, "rsync", RSYNC_NOTE),
    Way("`rclone copy` ×2, empty memory, `rclone check --download` ×2", RCLONE, "rclone"),
    Way(
        "a plain script: hash, `shutil.copy2`, hash, for each disk",
        SCRIPT,
        note="reads back from memory, not from the disk",
    ),
)


def data_manager(root: Path, *args: str) -> list[str | Path]:
    """One of our commands."""
    return [sys.executable, REPO / "data_manager.py", "--config", root / "config", *args]


def prepare(stage: Stage) -> None:
    """Configuration and database of this project; the others need none."""
    config = CONFIG.format(root=stage.root, buffer=stage.buffer)
    (stage.root / "config").write_text(config)
    (stage.root / "map").write_text(DISK_MAP)
    script, where = REPO / "generate_db.py", ("--config", stage.root / "config")
    subprocess.run(
        [sys.executable, script, *where, "--disk-map", stage.root / "map", "--quiet"], check=True
    )
