"""Real file systems on loop devices (root): mounted, torn away, filled, and altered below.

Neither a partition table's parser nor udev is needed: partitions are added by hand.
"""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.world import World

TOOLS = ["losetup", "mount", "umount", "mkfs.xfs", "mkfs.ext4", "addpart"]
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
MIB = 1 << 20
SECTOR_BYTES = 512
# linux/fiemap.h: the request, one extent, and the extents whose bytes lie nowhere plain.
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 0x1
FIEMAP_REQUEST = struct.Struct("=QQLLLL")
FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")
FIEMAP_NOT_PLAIN = 0x2 | 0x4 | 0x8 | 0x80 | 0x200 | 0x800


def why_no_loop_disks() -> str | None:
    """What this machine lacks for these tests; None if nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices: /dev/loop-control is missing"
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=SEARCHED)]
    return f"needs {', '.join(missing)}" if missing else None


def _run(*command: str | Path) -> str:
    """Run a system tool, found also where cron's PATH does not lead; its output."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={"PATH": SEARCHED, "LC_ALL": "C"},
        check=False,
    )
    if result.returncode:
        said = (result.stdout + result.stderr).strip()
        raise OSError(f"{' '.join(map(str, command))} ended with {result.returncode}: {said}")
    return result.stdout.strip()


def make_file_system(device: Path, fs: str, size_mb: float, mkfs_args: Sequence[str] = ()) -> None:
    """mkfs; xfs below 300 MB only where mkfs.xfs can be talked into it."""
    if fs == "ext4":
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", *mkfs_args, device)
        return
    if size_mb < 300:
        with suppress(OSError):  # an older mkfs.xfs needs no such option, and knows none
            _run("mkfs.xfs", "-q", "-f", "--unsupported", *mkfs_args, device)
            return
    _run("mkfs.xfs", "-q", "-f", *mkfs_args, device)


class MountedDisk:
    """A file system on a block device that begins ``image_offset`` bytes into an image file."""

    def __init__(self, image: Path, device: Path, mount_point: Path, image_offset: int = 0) -> None:
        self.image, self.device, self.mount_point = image, device, mount_point
        self.image_offset = image_offset

    @property
    def is_mounted(self) -> bool:
        """True if just this device is what one sees at the mount point (also when it is dead)."""
        seen = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        devices = [fields[2] for fields in seen if fields[4] == str(self.mount_point)]
        rdev = os.stat(self.device).st_rdev
        return devices[-1:] == [f"{os.major(rdev)}:{os.minor(rdev)}"]

    def mount(self, at: Path | None = None, options: str = "defaults") -> None:
        """Mount it, or mount it elsewhere from now on; the mount point is made."""
        self.mount_point = at or self.mount_point
        self.mount_point.mkdir(parents=True, exist_ok=True)
        _run("mount", "-o", options, self.device, self.mount_point)

    def mount_to_read(self) -> None:
        """Read-only; where somebody has it still, torn away in use or in a room of his own, as he
        has it."""
        try:
            self.mount(options="ro")
        except OSError:
            self.mount()

    def umount(self) -> None:
        _run("umount", self.mount_point)

    def remount(self, options: str) -> None:
        """``"ro"``, ``"rw"``."""
        _run("mount", "-o", f"remount,{options}", self.mount_point)

    def lazy_unmount(self) -> None:
        """Take it out of the tree at once, as a tired person would; open files live on."""
        _run("umount", "--lazy", self.mount_point)

    def force_off(self) -> None:
        """Unmount it wherever the mount point shows it, lazily if it is busy."""
        for _ in range(20):
            if not self.is_mounted:
                return
            try:
                self.umount()
            except OSError:
                time.sleep(0.05)
        while self.is_mounted:
            self.lazy_unmount()

    def flip_bit(self, relative: str, offset: int = 0, bit: int = 0) -> None:
        """Alter one bit of a file on the medium; the file's pages in memory stay as they are.

        The loop device reads through the image's page cache, and with direct I/O what was
        fsynced: so the image is written there and fsynced.
        """
        with open(self.mount_point / relative, "rb") as file:
            os.fsync(file.fileno())
            where = self.image_offset + _position_on_device(file.fileno(), offset)
        with open(self.image, "r+b", buffering=0) as image:
            (byte,) = os.pread(image.fileno(), 1, where)
            os.pwrite(image.fileno(), bytes([byte ^ 1 << bit]), where)
            os.fsync(image.fileno())


def _position_on_device(fd: int, offset: int) -> int:
    """Where on the file system's device a byte of a file lies (FS_IOC_FIEMAP)."""
    request = FIEMAP_REQUEST.pack(offset, 1, FIEMAP_FLAG_SYNC, 0, 1, 0)
    answer = array.array("B", request + bytes(FIEMAP_EXTENT.size))
    fcntl.ioctl(fd, FS_IOC_FIEMAP, answer)
    if FIEMAP_REQUEST.unpack_from(answer)[3] != 1 or offset >= os.fstat(fd).st_size:
        raise ValueError(f"no block on the device holds byte {offset}")
    logical, physical, length, _, _, flags, *_ = FIEMAP_EXTENT.unpack_from(
        answer, FIEMAP_REQUEST.size
    )
    if flags & FIEMAP_NOT_PLAIN or not logical <= offset < logical + length:
        raise ValueError(f"byte {offset} does not lie plainly on the device: flags {flags:#x}")
    return int(physical) + offset - int(logical)


class LoopDisk(MountedDisk):
    """A sparse image, a file system in it, a loop device, a mount: made and mounted at once.

    As a context manager, or by ``destroy``, all of it is taken down in any state.
    """

    def __init__(
        self,
        image: Path,
        mount_point: Path,
        size_mb: int = 64,
        fs: str = "xfs",
        mkfs_args: Sequence[str] = (),
        mount_options: str = "defaults",
    ) -> None:
        _sparse(image, size_mb)
        super().__init__(image, attach(image), mount_point)
        self._is_gone = False
        with ExitStack() as undo:
            undo.callback(self.destroy)
            make_file_system(self.device, fs, size_mb, mkfs_args)
            self.mount(options=mount_options)
            undo.pop_all()

    def __enter__(self) -> LoopDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def destroy(self) -> None:
        """Unmount, detach, and remove the image; what hangs on to it is cut off.

        Once: by now the loop device may be another test's.
        """
        if self._is_gone:
            return
        self._is_gone = True
        self.force_off()
        detach(self.device)
        self.image.unlink(missing_ok=True)


def _sparse(image: Path, size_mb: int) -> None:
    image.parent.mkdir(parents=True, exist_ok=True)
    with open(image, "xb") as file:
        file.truncate(size_mb * MIB)


def attach(image: Path, *options: str) -> Path:
    """A free loop device for an image."""
    return Path(_run("losetup", *options, "--find", "--show", image))


def detach(device: Path) -> None:
    """Let go of a loop device; a busy one goes when its last user has gone."""
    with suppress(OSError):
        _run("losetup", "--detach", device)


@contextmanager
def two_partitions(
    image: Path, mount_points: tuple[Path, Path], size_mb: int = 64, fs: str = "ext4"
) -> Iterator[tuple[MountedDisk, MountedDisk]]:
    """One drive with two partitions of ``size_mb`` each, both formatted and mounted."""
    _sparse(image, 2 * size_mb + 2)
    starts = (1 * MIB, (1 + size_mb) * MIB)
    _write_partition_table(image, starts, size_mb * MIB)
    device = attach(image, "--partscan")
    with ExitStack() as undo:
        undo.callback(image.unlink)
        undo.callback(detach, device)
        disks = []
        for number, (start, mount_point) in enumerate(zip(starts, mount_points, strict=True), 1):
            node = _partition_node(device, number, start, size_mb * MIB)
            disk = MountedDisk(image, node, mount_point, start)
            make_file_system(node, fs, size_mb)
            undo.callback(disk.force_off)
            disk.mount()
            disks.append(disk)
        yield disks[0], disks[1]


def _write_partition_table(image: Path, starts: Sequence[int], size_bytes: int) -> None:
    """An MBR with Linux partitions, for kernels that read one."""
    entries = [
        struct.pack("<B3sB3sLL", 0, b"\0\0\0", 0x83, b"\0\0\0", *(n // SECTOR_BYTES for n in pair))
        for pair in ((start, size_bytes) for start in starts)
    ]
    with open(image, "r+b") as file:
        file.seek(446)
        file.write(b"".join(entries).ljust(64, b"\0") + b"\x55\xaa")


def _partition_node(device: Path, number: int, start: int, size_bytes: int) -> Path:
    """The partition's device node, added to the kernel and to /dev where nobody did it yet."""
    node = Path(f"{device}p{number}")
    said = Path("/sys/class/block", node.name, "dev")
    if not said.exists():
        sectors = (str(n // SECTOR_BYTES) for n in (start, size_bytes))
        _run("addpart", device, str(number), *sectors)
    for _ in range(20):
        if node.exists():
            return node
        time.sleep(0.05)
    major, minor = map(int, said.read_text().split(":"))
    os.mknod(node, 0o600 | 0o060000, os.makedev(major, minor))
    return node


class LoopWorld(World):
    """A world whose disks are real mounts: ``loops`` has each label's LoopDisk.

    Where a disk is not mounted, the checker sees it all the same, through a mount of its own.
    """

    require_mount = True

    def __init__(
        self,
        tmp_path: Path,
        primaries: Sequence[str] = ("P01", "P02"),
        copies: Sequence[str] = ("S01", "S02"),
        *,
        size_mb: int = 64,
        primary_fs: str = "xfs",
        copy_fs: str = "ext4",
        mkfs_args: Sequence[str] = (),
        **settings: str | None,
    ) -> None:
        settings = {"AcceptUnidentifiedDrives": "yes", **settings}  # loop devices have no serial
        super().__init__(tmp_path, primaries, copies, **settings)
        secrets = self.root / ".env"
        secrets.write_text(
            "POLE_PAGER_COMMAND=true\nPOLE_HEARTBEAT_URL=none\n"
        )  # somebody is told of real drives
        secrets.chmod(0o600)
        self.loops: dict[str, LoopDisk] = {}
        self._down = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._down.close)
            for label in self.disks:
                fs = primary_fs if label in primaries else copy_fs
                self.plug_in(label, size_mb=size_mb, fs=fs, mkfs_args=mkfs_args)
            undo.pop_all()

    def plug_in(self, label: str, **options: Any) -> LoopDisk:
        """Mount a new, empty drive at a label's mount point; options as for LoopDisk."""
        image = self.root / "images" / f"{label}-{self.serials[label]}.img"
        loop = LoopDisk(image, self.disks[label], **options)
        self._down.callback(loop.destroy)
        self.loops[label] = loop
        return loop

    def ship(self, *labels: str) -> None:
        """As the slip says, unmounted; afterwards the drives are at their places again."""
        for label in labels:
            self.loops[label].umount()
        self.run_pass("ship", *labels, check=0)
        for label in labels:
            self.loops[label].mount()

    @contextmanager
    def places(self) -> Iterator[dict[str, Path]]:
        with ExitStack() as undo:
            yield {label: _readable(loop, undo, self.root) for label, loop in self.loops.items()}

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._down.close()


def _readable(loop: LoopDisk, undo: ExitStack, root: Path) -> Path:
    """Where a disk's content can be read now."""
    if loop.is_mounted:
        return loop.mount_point
    aside = MountedDisk(loop.image, loop.device, root / "looking" / loop.image.stem)
    undo.callback(aside.force_off)
    aside.mount_to_read()
    return aside.mount_point


# --- fixtures ---------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who asks for a loop disk needs root."""
    for item in items:
        if {"loop_disk", "loop_world", "make_loop_world"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("root")


@pytest.fixture
def loop_disk() -> Iterator[Callable[..., LoopDisk]]:
    """``loop_disk(image, mount_point, …)`` makes a LoopDisk that goes when the test has ended."""
    _skip_without_loops()
    with ExitStack() as down:
        yield lambda *args, **options: down.enter_context(LoopDisk(*args, **options))


@pytest.fixture
def make_loop_world(tmp_path: Path) -> Iterator[Callable[..., LoopWorld]]:
    """``make_loop_world(primaries=…, size_mb=…, …)``, once a test; checked after it."""
    _skip_without_loops()
    with ExitStack() as down:

        def make(*args: Any, **options: Any) -> LoopWorld:
            station = LoopWorld(tmp_path, *args, **options)
            down.callback(station.close)
            return station

        yield make


@pytest.fixture
def loop_world(make_loop_world: Callable[..., LoopWorld]) -> LoopWorld:
    """A station on real mounts: P01 P02 on XFS, S01 S02 on ext4, 64 MB each."""
    return make_loop_world()


def _skip_without_loops() -> None:
    if why := why_no_loop_disks():
        pytest.skip(why)
