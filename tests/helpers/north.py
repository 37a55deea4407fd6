"""Another machine, as far as mounts and programs go: where a crate of disks is opened (root)."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.loopdisks import SEARCHED, LoopWorld
from tests.helpers.world import REPO

PAGE = (REPO / "docs/receiving.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MOUNT, ONE, CRATE, ALONE = BLOCKS


# A namespace begins with the disks that other tests have mounted, which would keep them busy.
LEAVE_DISKS = """while read -r device place _; do
    case $device in /dev/loop*) umount --lazy "$place" ;; esac
done </proc/self/mounts"""
BUSY_AT_MOST_S = 10.0  # another test's namespace begins with the disks of this one


class NorthMachine:
    """A mount namespace with an empty /mnt; ``home`` has check-disk and the packing lists."""

    def __init__(self, world: LoopWorld, pid: int) -> None:
        self.world, self._pid = world, pid
        self.home = world.root / "north"
        self.lists = self.home / "packing-lists"
        self._programs = world.root / "coreutils"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command there."""
        return ("nsenter", f"--mount=/proc/{self._pid}/ns/mnt", f"--wd={self.home}")

    def unpack(self) -> None:
        """What came by the satellite, and only sh and coreutils as programs."""
        shutil.copytree(self.world.db_path.parent / "packing-lists", self.lists)
        for file in (REPO / "examples").glob("check-disk*"):
            shutil.copy(file, self.home)
        if self._programs.exists():
            return
        self._programs.mkdir()
        listed = subprocess.run(
            ["dpkg", "-L", "coreutils"], capture_output=True, text=True, check=True
        ).stdout
        for path in map(Path, listed.split()):
            if path.parent.name == "bin" and not (self._programs / path.name).is_symlink():
                (self._programs / path.name).symlink_to(path)
        (self._programs / "sh").symlink_to("/bin/sh")

    def mount(self, label: str) -> None:
        """As the page says, with this disk's device for /dev/sdX; it has left the station."""
        commands = MOUNT.replace("sudo ", "").replace("P01", label).splitlines()[1:]
        device = str(self.world.loops[label].device)
        script = "\n".join(commands).replace("/dev/sdX", device)
        end = time.monotonic() + BUSY_AT_MOST_S
        while "busy" in self.run(script, None, path=SEARCHED).stderr and time.monotonic() < end:
            time.sleep(0.1)
        self.run(f"mountpoint -q /mnt/{label}", path=SEARCHED)

    def run(
        self, script: str, check: int | None = 0, path: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script where the lists are; without ``path`` there is nothing but coreutils."""
        programs = path or str(self._programs)
        variables = [f"{name}={text}" for name, text in env.items()]
        command = ["env", "-i", f"PATH={programs}", "LC_ALL=C", *variables, "/bin/sh", "-euc"]
        ran = subprocess.run(
            [*self.prefix, *command, script],
            capture_output=True,
            text=True,
            timeout=90,
            env={"PATH": SEARCHED},
            check=False,
        )
        assert check is None or ran.returncode == check, ran
        return ran


@contextmanager
def north_machine(world: LoopWorld) -> Iterator[NorthMachine]:
    """Yield it; its mounts go with it."""
    (world.root / "north").mkdir()
    script = f"{LEAVE_DISKS}; mount -t tmpfs none /mnt; echo; exec sleep 1000"
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdout=subprocess.PIPE,
        env={"PATH": SEARCHED},
    )
    try:
        assert keeper.stdout and keeper.stdout.readline() == b"\n"
        machine = NorthMachine(world, keeper.pid)
        machine.unpack()
        yield machine
    finally:
        keeper.kill()
        keeper.communicate()


def make_unreadable(world: LoopWorld, label: str, name: str) -> None:
    """The drive does not return this file of an unmounted ext4 disk: its list of blocks is gone."""
    loop = world.loops[label]
    request = f"set_inode_field /data/{name} block[0] 0"
    subprocess.run(
        ["debugfs", "-w", "-R", request, loop.device],
        check=True,
        capture_output=True,
        env={"PATH": SEARCHED},
    )


def repair_file_system(world: LoopWorld, label: str) -> None:
    """Take the unreadable file off the disk, so that the checker can look at the others."""
    command = ["e2fsck", "-f", "-y", world.loops[label].device]
    subprocess.run(command, check=False, capture_output=True, env={"PATH": SEARCHED})
