"""What is mounted where, and on which physical drives."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from poledata.system import file_descriptors

_MOUNTINFO = Path("/proc/self/mountinfo")
_SYS_BLOCK = Path("/sys/dev/block")
_CLASS_BLOCK = Path("/sys/class/block")
_LSBLK = ("/usr/bin/lsblk", "/bin/lsblk")  # cron's PATH is short
_LSBLK_TIMEOUT_S = 30.0
_BTRFS = Path("/sys/fs/btrfs")
_TRIGGER = "autofs"
_TRIGGER_TIMEOUT_S = 5.0  # what is mounted later is found by the next pass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drive:
    """A whole physical drive, as far as the system knows it."""

    kernel_name: str  # sdb
    serial: str | None
    wwn: str | None  # 0x5000c500858bfea7
    size_bytes: int | None
    other_wwn: str | None = None  # an NVMe drive may have two: EUI-64 and NGUID

    @property
    def identity(self) -> str:
        """The same for two paths to one drive, as far as a single value can tell."""
        return self.wwn or self.serial or self.kernel_name

    @property
    def identities(self) -> frozenset[str]:
        """Two devices that share one of these are one physical drive.

        Namespaces and the two actuators of a drive have a logical ID each, and one serial.
        """
        serial = self.serial and (_wwn_as_serial(self.serial) or _without_spaces(self.serial))
        return frozenset(filter(None, (serial, self.wwn, self.kernel_name)))

    @property
    def is_identified(self) -> bool:
        return bool(self.serial or self.wwn)

    def contradicts(self, serial: str, logical_id: str) -> bool:
        """True if what is known of this drive shows that it is another one.

        A printed serial may be the beginning of the one that the drive reports. Old releases of
        lsblk report the WWN of a SAS drive as its serial (util-linux issues 750, 1143): such a
        serial is weaker than a logical ID, and is compared as a logical ID.
        """
        if self.wwn and not self.has_id(logical_id):
            return True
        if self.serial is None or self.begins_with(serial):
            return False
        wwn = _wwn_as_serial(self.serial)
        return wwn is None or (self.wwn or wwn) != logical_id

    def has_id(self, logical_id: str) -> bool:
        """True if one of the drive's IDs is this one."""
        return logical_id in (self.wwn, self.other_wwn)

    def begins_with(self, serial: str) -> bool:
        """True if the drive's own serial begins with this printed one; in it ``_`` is a space."""
        return self.serial is not None and _without_spaces(self.serial).startswith(
            _without_spaces(serial)
        )

    def __str__(self) -> str:
        known = (self.serial and f"serial {self.serial}", self.wwn and f"ID {self.wwn}")
        return f"{self.kernel_name} ({', '.join(k for k in known if k) or 'unknown'})"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (proc(5))."""

    id: int
    device: str  # "8:16"
    root: str  # "/" unless only a part of the file system is mounted here
    mount_point: str
    options: frozenset[str]
    fs_type: str
    source: str

    @property
    def is_whole(self) -> bool:
        """True for a whole file system, not for an automount trigger."""
        return self.root == "/" and self.fs_type != _TRIGGER


@dataclass(frozen=True, slots=True)
class Attachment:
    """One mount of a disk, and each drive below it with the kernel's number of this attachment."""

    mount_id: int | None  # None: unmounted, though still held open
    drives: frozenset[tuple[str, int | None]]  # kernel name, diskseq (Linux 5.15 or newer)


@dataclass(frozen=True, slots=True)
class Space:
    """A file system's space; ``free_bytes`` is what an ordinary user may fill (f_bavail)."""

    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    free_inodes: int | None  # None: this file system makes them as needed
    read_only: bool


def read_mounts(text: str | None = None) -> dict[int, Mount]:
    """Return all mounts of this process by their id."""
    text = os.fsdecode(_MOUNTINFO.read_bytes()) if text is None else text
    return {mount.id: mount for mount in map(_parse, filter(None, text.split("\n")))}


def mount_of(fd: int) -> Mount | None:
    """Return the mount that an open directory is on; None after it was (lazily) unmounted."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    match = re.search(r"^mnt_id:\s*(\d+)$", info, re.MULTILINE)
    return read_mounts().get(int(match[1])) if match else None


def lies_in(fd: int, place: Path) -> bool:
    """True if an open directory is ``place`` or in it, whichever mounts lead to the two."""
    try:
        other_fd = os.open(place, os.O_PATH | os.O_CLOEXEC)  # does not start an automount
    except OSError:
        return False  # there is no such directory
    try:
        here, there = _in_its_file_system(fd), _in_its_file_system(other_fd)
    finally:
        os.close(other_fd)
    if not (here and there):
        return False
    return here[0] == there[0] and here[1].is_relative_to(there[1])


def _in_its_file_system(fd: int) -> tuple[str, Path] | None:
    """Return an open directory's device and path on it: the same through a bind mount."""
    mount = mount_of(fd)
    if mount is None:
        return None
    below = os.path.relpath(os.path.realpath(f"/proc/self/fd/{fd}"), mount.mount_point)
    return mount.device, Path(mount.root, below)


def is_mount_point(fd: int, path: Path) -> bool:
    """True if the open directory ``path`` is where a whole file system is mounted."""
    mount = mount_of(fd)
    return bool(mount and mount.is_whole and mount.mount_point == os.path.realpath(path))


def mounted_places() -> frozenset[str]:
    """Return every place where a whole file system is mounted."""
    return frozenset(m.mount_point for m in read_mounts().values() if m.is_whole)


def open_file_systems() -> Iterator[tuple[Path, int]]:
    """Yield every place where a whole file system on a drive is mounted, opened until the next.

    One that can't be opened is skipped; there is no wait for an automount or a server.
    """
    on_top = {mount.mount_point: mount for mount in read_mounts().values()}
    for mount in on_top.values():
        if not (mount.is_whole and blocks_of(mount)):
            continue
        try:
            fd = os.open(mount.mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as fault:
            log.info("%s can't be looked at: %s", mount.mount_point, fault.strerror)
            continue
        try:
            yield Path(mount.mount_point), fd
        finally:
            os.close(fd)


def open_place(place: Path) -> int | None:
    """Return the opened directory where a disk may be mounted; None if there is none.

    An automount trigger gets a few seconds to mount its disk, and counts as nothing if it does
    not: its daemon may wait for an absent drive, or hang. Raises OSError.
    """
    try:
        if _is_trigger(place):
            _start_automount(place)
            if _is_trigger(place):
                return None
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_trigger(place: Path) -> bool:
    """True for an automount trigger that has mounted nothing; O_PATH does not start it."""
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        mount = mount_of(fd)
    finally:
        os.close(fd)
    return mount is not None and mount.fs_type == _TRIGGER


def _start_automount(trigger: Path) -> None:
    """Let another process enter an automount trigger; it is killed if it hangs there."""
    import subprocess

    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["ls", "-d", f"{trigger}/."], capture_output=True, timeout=_TRIGGER_TIMEOUT_S
        )


def device_at(place: Path) -> int | None:
    """Return the device of a directory; None if there is none, or a dead disk."""
    try:
        info = place.stat()
    except OSError:
        return None
    return info.st_dev if stat.S_ISDIR(info.st_mode) else None


def mount_points_below(fd: int) -> frozenset[str]:
    """Return where file systems are mounted below an open directory, relative to it."""
    root = os.path.realpath(f"/proc/self/fd/{fd}").rstrip("/") + "/"
    return frozenset(
        mount.mount_point.removeprefix(root)
        for mount in read_mounts().values()
        if mount.mount_point.startswith(root)
    )


def space(fd: int) -> Space:
    """Return the space on the file system that holds ``fd``."""
    vfs = os.fstatvfs(fd)
    return Space(
        capacity_bytes=vfs.f_blocks * vfs.f_frsize,
        used_bytes=(vfs.f_blocks - vfs.f_bfree) * vfs.f_frsize,
        free_bytes=vfs.f_bavail * vfs.f_frsize,
        free_inodes=vfs.f_favail if vfs.f_files else None,
        read_only=bool(vfs.f_flag & os.ST_RDONLY),
    )


def attachment_of(fd: int) -> Attachment:
    """Return how the file system of an open directory is attached now, without querying a drive."""
    mount = mount_of(fd)
    if mount is None:
        return Attachment(None, frozenset())
    names = _drives_below(mount)
    return Attachment(mount.id, frozenset((name, _diskseq(name)) for name in names))


def _diskseq(kernel_name: str) -> int | None:
    """Return a number that is new whenever a drive is plugged in, also under an old name."""
    digits = _read(_CLASS_BLOCK / kernel_name / "diskseq").strip()
    return int(digits) if digits else None


def drives_under(fd: int) -> tuple[Drive, ...]:
    """Return the physical drives below an open directory; () if it is on no block device."""
    mount = mount_of(fd)
    names = _drives_below(mount) if mount else None
    return ask_drives(names) if names else ()


def is_multipath(mount: Mount) -> bool:
    """True if every drive below a mount is meant to be another path to the same drive."""
    return any(_has_multipath(block) for block in blocks_of(mount))


def _has_multipath(block: Path) -> bool:
    slaves = (slave.resolve() for slave in (block / "slaves").glob("*"))
    return b"mpath-" in _read(block / "dm/uuid") or any(map(_has_multipath, slaves))


def _drives_below(mount: Mount) -> frozenset[str]:
    """Return the kernel names of the drives below a mount; none if it is on no block device now."""
    return frozenset().union(*(whole_drives(block) for block in blocks_of(mount)))


def blocks_of(mount: Mount) -> tuple[Path, ...]:
    """Return the block devices that a file system is on, in /sys: of btrfs all its members."""
    if mount.fs_type == "btrfs":  # its own number is no device's; its source is one of them
        name = Path(os.path.realpath(mount.source)).name
        found = [path for one in _BTRFS.glob(f"*/devices/{name}") for path in one.parent.iterdir()]
        blocks = found or [_CLASS_BLOCK / name]
    else:
        blocks = [_SYS_BLOCK / mount.device]
    return tuple(block.resolve() for block in blocks if block.exists())


def whole_drives(block: Path) -> frozenset[str]:
    """Return the kernel names of the drives under a device in /sys: below partitions, RAID, LVM."""
    if (block / "partition").exists():
        return whole_drives(block.parent)
    slaves = (whole_drives(slave.resolve()) for slave in (block / "slaves").glob("*"))
    return frozenset().union(*slaves) or frozenset({block.name})


def ask_drives(kernel_names: Iterable[str] = ()) -> tuple[Drive, ...]:
    """Return what the system knows of these drives (of all, if none is named).

    lsblk(8) knows what udev found; if that does not run, the kernel knows some itself.
    A drive of which nothing is known is returned with only its kernel name.
    """
    names = sorted(kernel_names)
    known = {drive.kernel_name: drive for drive in _ask_lsblk(names)}
    return tuple(
        _ask_kernel(known.get(name, Drive(name, None, None, None))) for name in names or known
    )


def _ask_lsblk(names: list[str]) -> tuple[Drive, ...]:
    import subprocess  # a pass with nothing to do queries no drive

    lsblk = next((path for path in _LSBLK if os.path.exists(path)), "lsblk")
    command = [lsblk, "--json", "--nodeps", "--bytes", "--output", "KNAME,SERIAL,WWN,SIZE"]
    devices = [f"/dev/{name.replace('!', '/')}" for name in names]
    try:
        ran = subprocess.run(
            [*command, *devices], capture_output=True, timeout=_LSBLK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        file_descriptors.raise_if_exhausted(fault)
        log.warning("lsblk can't be asked: %s", fault)
        return ()
    # Exit status 32 and 64: none, or only some of the devices were found.
    try:
        return parse_lsblk(ran.stdout)
    except ValueError as fault:
        log.warning("lsblk's answer can't be read: %s", fault)
        return ()


_NVME_IDS = ("eui", "nguid")


def _ask_kernel(drive: Drive) -> Drive:
    """Complete what lsblk does not know of a drive with what the kernel has in /sys."""
    block = _CLASS_BLOCK / drive.kernel_name
    page = _read(block / "device/vpd_pg80")[4:]  # SCSI and SATA: SPC-4, 7.8.20
    serial = page or _read(block / "device/serial") or _read(block / "serial")
    wwid = _read(block / "device/wwid") or _read(block / "wwid")
    own = serial.decode("ascii", "replace").strip() or None
    if drive.serial and not (own and _wwn_as_serial(drive.serial)):
        own = drive.serial
    wwn = drive.wwn or plain_wwn(wwid.decode("ascii", "replace"))
    # NVMe: "00 25 38 5b 91 b2 c3 d4", and the form of a UUID
    names = (re.sub(r"[\s-]", "", _read(block / n).decode("ascii", "replace")) for n in _NVME_IDS)
    others = (plain_wwn(f"0x{name}") for name in names)
    other = next((each for each in others if each and each != wwn), None)
    return replace(drive, serial=own, wwn=wwn or other, other_wwn=other if wwn else None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # not every kind of drive has this file


def parse_lsblk(answer: bytes) -> tuple[Drive, ...]:
    """Parse ``lsblk --json --bytes --output KNAME,SERIAL,WWN,SIZE``. Raises ValueError."""
    import json

    try:
        return tuple(
            Drive(
                str(device["kname"]),
                (device.get("serial") or "").strip() or None,
                plain_wwn(device.get("wwn") or ""),
                int(device["size"]) if device.get("size") else None,
            )
            for device in json.loads(answer, strict=False)["blockdevices"]
        )
    except (LookupError, TypeError, AttributeError) as fault:
        raise ValueError(f"it is not as lsblk writes it ({fault!r})") from fault


def plain_wwn(wwn: str) -> str | None:
    """Return ``0x5000c500858bfea7``, also for ``naa.…`` and ``eui.…``; None for other kinds.

    None too if the maker's part of it (OUI) is zero: several drives have such an ID at once.
    """
    match = re.fullmatch(r"(?:0x|naa\.|eui\.)([0-9a-f]{16}(?:[0-9a-f]{16})?)", wwn.strip().lower())
    if match is None:
        return None
    digits = match[1]
    is_naa = digits[0] == ("5" if len(digits) == 16 else "6")
    oui = digits[1:7] if is_naa else digits[:6] if len(digits) == 16 else digits
    return f"0x{digits}" if oui.strip("0") else None


def _without_spaces(serial: str) -> str:
    """Return a serial as a disk-map has it, whose columns are separated by spaces."""
    return "_".join(serial.upper().split())


def _wwn_as_serial(serial: str) -> str | None:
    """Return the WWN that is reported as a serial: ``5000c500858bfea7``, also ``0x…`` or ``3…``.

    NAA types 5 and 6 only: digits of another kind may well be a serial.
    """
    match = re.fullmatch(r"(?:0x|naa\.|3)?(5[0-9a-f]{15}|6[0-9a-f]{31})", serial.lower())
    return f"0x{match[1]}" if match else None


def _parse(line: str) -> Mount:
    # 42 27 7:0 / /spt_disks/P01 rw,relatime shared:1 - xfs /dev/sdb rw,inode64
    before, _, after = line.partition(" - ")
    number, _, device, root, mount_point, options = before.split(" ")[:6]
    fs_type, source, super_options = after.split(" ")[:3]
    root, mount_point, source = map(_unescape, (root, mount_point, source))
    all_options = frozenset(f"{options},{super_options}".split(","))
    return Mount(int(number), device, root, mount_point, all_options, fs_type, source)


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes of blank, tab, line feed and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
