"""What happens at the rack while a pass runs: disks are pulled, plugged in, swapped, wiped."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from poledata.disks import free_space
from poledata.formatting import utc_now
from poledata.system import locks
from tests.helpers.bugs import with_constant
from tests.helpers.halted import GONE_S, HaltedPass, ready_world, strace
from tests.helpers.loopdisks import LoopWorld, make_file_system
from tests.helpers.world import CRON_ENVIRONMENT, World

# A batch ends after 1000 files or 4 GiB, and there is no setting for it: this runs the script
# named in the arguments with batches of three files.
BATCH_FILES = 3
IN_SMALL_BATCHES = with_constant(free_space, "BATCH_FILES", BATCH_FILES)


def until(is_so: Callable[[], bool], what: str) -> None:
    """Look again and again, till it is so."""
    deadline = time.monotonic() + GONE_S
    while not is_so():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.01)


def waits_for_a_lock(pid: int) -> bool:
    """Whether a process waits in flock(2), as /proc/locks shows it (proc(5))."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and int(line.split()[5]) == pid for line in lines)


class HaltedAmongBatches(HaltedPass):
    """The same, of a pass, or a command, whose batches are of three files."""

    def __init__(
        self,
        world: World,
        calls: str,
        paths: Sequence[Path],
        nth: int = 1,
        args: Sequence[str] = (),
    ) -> None:
        self._world, self._trace = world, world.root / "trace"
        self._trace.unlink(missing_ok=True)
        prefix = [*strace(world, calls, paths, f"signal=SIGSTOP:when={nth}"), *IN_SMALL_BATCHES]
        self._process = world.start("data_manager.py", *args, prefix=prefix)
        self.pid = self._wait_until_all_threads_stand()

    def let_go(self) -> None:
        """It goes on by itself; ``end`` waits for it.

        Strace counts the calls of each thread: where another one stood still, it goes on too.
        """
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)

    def end(self, check: int, out: str = "") -> None:
        """It was let go, and ends so; a pass, unlike a command, must have printed nothing."""
        until(lambda: self.let_go() or self._process.poll() is not None, "the pass ends")
        assert self._process.returncode == check, self._world.log()
        assert (self._world.root / "out").read_text() == out
        assert out or (self._world.root / "err").read_text() == ""
        self._world.unfinished = False


@contextmanager
def after_this_batch(world: World, halted: HaltedAmongBatches) -> Iterator[None]:
    """Let a halted pass go on to the end of its batch; meanwhile it waits for us, with no disk."""
    come, leave = threading.Event(), threading.Event()

    def hold_the_turn() -> None:
        with locks.between_batches(world.db_path):
            come.set()
            leave.wait()

    thread = threading.Thread(target=hold_the_turn, daemon=True)
    thread.start()
    until(lambda: waits_for_a_lock(os.getpid()), "the test waits for its turn")
    try:
        until(lambda: halted.let_go() or come.wait(0.01), "the pass lets us in")
        yield
    finally:
        leave.set()
        thread.join()


def command(world: World, *args: str) -> subprocess.Popen[str]:
    """A person's command, begun; it is to be ended by ``answer``."""
    return subprocess.Popen(
        world.command("data_manager.py", *args),
        cwd="/",
        env=CRON_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiting_command(world: World, *args: str) -> subprocess.Popen[str]:
    """The same, once it waits for its turn."""
    process = command(world, *args)
    until(lambda: waits_for_a_lock(process.pid), f"{args} waits for its turn")
    return process


def answer(process: subprocess.Popen[str], check: int = 0) -> str:
    """What the command said, once it has ended as it should."""
    out, err = process.communicate(timeout=GONE_S)
    assert process.returncode == check, (process.returncode, out, err)
    return out if check == 0 else err


def make_busy(make_loop_world: Callable[..., LoopWorld], primaries: list[str]) -> LoopWorld:
    """On real mounts; P01 and S01 are in use; three batches wait, 0.g3 to 8.g3 in this order."""
    world = make_loop_world(primaries=primaries, copies=["S01"])
    ready_world(world)
    first_s = 1_600_000_000 + 100 * os.getpid()  # a disk is known by its copies: no other test's
    for number in range(3 * BATCH_FILES):
        world.put(f"{number}.g3", 1000 * number, mtime_s=first_s + number)
    return world


def in_first_batch(world: World) -> HaltedAmongBatches:
    """The pass stands where it has removed the first file of its first batch, and holds its disks.

    (By its main thread: every batch has new threads for its disks, and each would be halted.)
    """
    return HaltedAmongBatches(world, "unlinkat", [world.buffer])


def wipe(world: LoopWorld, label: str, mount: bool = True) -> None:
    world.ledger.spoiled(world.serials[label], "a.g3", "the test formats its drive")
    world.loops[label].umount()
    make_file_system(world.loops[label].device, "xfs", 64)
    if mount:
        world.loops[label].mount()
    wiped_at = utc_now()  # its new life begins later than that: the database has whole seconds
    until(lambda: utc_now() > wiped_at, "the next second")


# linux/ext4.h, xfs_fs.h: EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number.
FS_IOC_SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, 2


def pull(world: LoopWorld, *labels: str) -> None:
    """From here on the disk answers EIO, and has lost what it had not been asked to keep."""
    for label in labels:
        fd = os.open(world.disks[label], os.O_RDONLY)
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        os.close(fd)


def plug_in_again(world: LoopWorld, *labels: str) -> None:
    """It works again, as after a cable was mended."""
    for label in labels:
        world.loops[label].umount()
        world.loops[label].mount()


def sh(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@contextmanager
def below_the_mounts(world: LoopWorld) -> Iterator[Path]:
    """A view of the directory of all mount points as it is without any disk."""
    view = world.root / "below"
    view.mkdir(exist_ok=True)
    sh("mount", "--bind", world.mounts, view)
    try:
        sh("mount", "--make-private", view)
        yield view
    finally:
        sh("umount", view)
        view.rmdir()


def go_on(world: LoopWorld) -> None:
    """The mistake is mended: the next pass archives all, and every notice is over."""
    world.run_pass(check=0)
    assert world.notices() == set()
    assert world.waiting() == set()


def swap(world: LoopWorld, one: str, other: str) -> None:
    """Mount two labels' disks at each other's place, or back at their own."""
    first, second = world.loops[one], world.loops[other]
    places = first.mount_point, second.mount_point
    for loop in (first, second):
        loop.umount()
    first.mount(at=places[1])
    second.mount(at=places[0])


def rot(path: Path) -> None:
    """Change one byte as a bad medium does: size and times stay."""
    before = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
