"""A QEMU guest whose drives have the serials and WWNs that a test gives them.

Loop devices have neither. The guest's root is this machine's own root, read-only below a layer
in memory: it runs the same checkout with the same Python, but slowly, for the processor is
emulated. ``setup.sh`` makes what it boots.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.world import Run

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("POLE_RIG_CACHE", "/var/cache/pole-drive-rig"))
QEMU = "qemu-system-x86_64"
BOOT_S = 200.0  # ten when nothing else runs
BOOTS = 3  # at most: where a busy host lets an emulated processor hang, it boots again


def why_no_rig() -> str | None:
    """What this machine lacks for the guest; None if nothing."""
    if os.geteuid() != 0:
        return "needs root: the guest reads this machine's root"
    if not shutil.which(QEMU):
        return f"needs {QEMU}: bash tests/rig/setup.sh"
    if not (CACHE / "initrd").exists() or not (CACHE / "vmlinuz").exists():
        return f"needs the guest's kernel in {CACHE}: bash tests/rig/setup.sh"
    return None


# --- drives -----------------------------------------------------------------------------


@dataclass(frozen=True)
class QemuDrive:
    """A drive of the guest; ``kind`` says how it is connected, ``serial`` is what it reports."""

    kind: str  # sata sas nvme virtio usb uas megaraid
    serial: str
    wwn: int | None = None  # of an NVMe drive its EUI-64
    paths: int = 1  # to one SAS drive
    size_mb: int = 32
    unreadable: bool = False  # every read of the medium fails, what it says of itself does not

    @property
    def qemu_id(self) -> str:
        """What QEMU's own commands call the device, or its first path."""
        return f"{self.kind}-{self.serial}"


@dataclass
class _Wiring:
    """QEMU's arguments for a set of drives."""

    directory: Path
    args: list[str] = field(default_factory=list)
    _count: int = 0
    _sata_ports: int = 0
    _sas_targets: int = 0

    def connect(self, drive: QemuDrive) -> None:
        image = self.directory / f"{drive.kind}-{drive.serial}.img"
        with open(image, "xb") as file:
            file.truncate(drive.size_mb << 20)
        for path in range(drive.paths):
            self._count += 1
            node = f"drive{self._count}"
            self._add(*_blocks(drive, node, image))
            for device in getattr(self, f"_{drive.kind}")(drive, node, path):
                self._add("-device", device)

    def _add(self, *args: str) -> None:
        self.args += args

    def _sata(self, drive: QemuDrive, node: str, _path: int) -> Iterator[str]:
        bus = f"ide.{self._sata_ports}"
        self._sata_ports += 1
        wwn = f",wwn={drive.wwn:#x}" if drive.wwn else ""
        yield f"ide-hd,id={drive.qemu_id},bus={bus},drive={node},serial={drive.serial}{wwn}"

    def _sas(self, drive: QemuDrive, node: str, path: int) -> Iterator[str]:
        if self._sas_targets == 0:
            yield "virtio-scsi-pci,id=sas"
        target, self._sas_targets = self._sas_targets, self._sas_targets + 1
        assert drive.wwn
        name = drive.qemu_id + (f"-{path}" if path else "")
        yield (
            f"scsi-hd,id={name},bus=sas.0,scsi-id={target},drive={node},serial={drive.serial},"
            f"wwn={drive.wwn:#x},port_wwn={drive.wwn + path + 1:#x},port_index={path + 1},"
            "vendor=SEAGATE,product=ST8000NM0075,share-rw=on"
        )

    def _nvme(self, drive: QemuDrive, node: str, _path: int) -> Iterator[str]:
        yield f"nvme,id={drive.qemu_id},serial={drive.serial}"
        eui64 = f",eui64={drive.wwn:#x}" if drive.wwn else ""  # of which Linux believes nothing
        yield f"nvme-ns,bus={drive.qemu_id},drive={node},nsid=1{eui64}"

    def _virtio(self, drive: QemuDrive, node: str, _path: int) -> Iterator[str]:
        yield f"virtio-blk-pci,drive={node},serial={drive.serial}"

    def _usb(self, drive: QemuDrive, node: str, _path: int) -> Iterator[str]:
        yield f"qemu-xhci,id=xhci-{node}"
        yield f"usb-storage,bus=xhci-{node}.0,drive={node},serial={drive.serial}"

    def _uas(self, drive: QemuDrive, node: str, _path: int) -> Iterator[str]:
        yield f"qemu-xhci,id=xhci-{node}"
        yield f"usb-uas,id=uas-{node},bus=xhci-{node}.0"
        wwn = f",wwn={drive.wwn:#x}" if drive.wwn else ""
        yield f"scsi-hd,bus=uas-{node}.0,drive={node},serial={drive.serial}{wwn}"

    def _megaraid(self, drive: QemuDrive, node: str, _path: int) -> Iterator[str]:
        yield f"megasas-gen2,id=raid-{node}"
        yield (
            f"scsi-hd,bus=raid-{node}.0,scsi-id=0,drive={node},serial={drive.serial},"
            f"wwn={drive.wwn:#x}"
        )


def _blocks(drive: QemuDrive, node: str, image: Path) -> tuple[str, str]:
    """Where QEMU finds a drive's blocks."""
    if drive.unreadable:
        fault = {"event": "read_aio", "errno": errno.EIO, "once": False, "immediately": True}
        file = {
            "driver": "blkdebug",
            "image": {"driver": "file", "filename": str(image)},
            "inject-error": [fault],
        }
        return "-blockdev", json.dumps({"driver": "raw", "node-name": node, "file": file})
    # Two paths are two drives to QEMU: neither may lock the image, or keep it in memory.
    shared = ",file.locking=off,cache=directsync" if drive.paths > 1 else ""
    return "-drive", f"if=none,id={node},format=raw,file={image}{shared}"


# --- the guest --------------------------------------------------------------------------


class Guest:
    """The running machine, as a context manager: ``run`` works until it is left.

    ``directory`` gets the images, and the console's output in ``console``. It is left as by a
    power cut: what the guest had only in memory is gone. Entered again it boots again, with the
    same drives.
    """

    def __init__(self, directory: Path, drives: Sequence[QemuDrive]) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        wiring = _Wiring(directory)
        for drive in drives:
            wiring.connect(drive)
        self._command = [*_machine(directory), *wiring.args]

    def __enter__(self) -> Guest:
        for _ in range(BOOTS - 1):
            try:
                return self._booted()
            except TimeoutError:  # of an emulated processor that never woke; no drive was touched
                assert "soft lockup" in self.console()
        return self._booted()

    def _booted(self) -> Guest:
        with open(self._directory / "qemu", "wb") as said:
            self._qemu = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            self._monitor = _connected(self._directory / "monitor", self._qemu)
            self._said = self._monitor.makefile("rb")
            self._said.readline()  # its greeting
            self.qemu("qmp_capabilities")
            self._port = _connected(self._directory / "port", self._qemu)
            self._answers = self._port.makefile("rb")
            assert self._answer(BOOT_S) == {"hello": True}
        except BaseException:
            self._stop()
            print((self._directory / "qemu").read_text(), file=sys.stderr)
            print(self.console()[-3000:], file=sys.stderr)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, command: list[str] | str, check: int | None = 0, timeout_s: float = 150) -> Run:
        """A command, or with a text a piece of shell; ``check`` is the code it must end with."""
        request = {"command": command, "timeout_s": timeout_s}
        self._port.sendall(json.dumps(request).encode() + b"\n")
        run = Run(**self._answer(timeout_s + 30))
        assert check in (None, run.code), f"{command}\nended with {run}"
        return run

    def qemu(self, order: str, **arguments: object) -> Any:
        """One of QEMU's own orders (QMP), which is as somebody's hand at the machine."""
        request = {"execute": order, "arguments": arguments}
        self._monitor.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self._said.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]  # what else it says are events

    def put(self, path: Path | str, content: str) -> None:
        """A file of the guest's own, whole or not at all."""
        packed = base64.b64encode(content.encode()).decode()
        self.run(f"echo {packed} | base64 -d >{path}.new && mv {path}.new {path}")

    def console(self) -> str:
        return (self._directory / "console").read_text(errors="replace")

    def _answer(self, timeout_s: float) -> Any:
        self._port.settimeout(timeout_s)
        line = self._answers.readline()
        assert line, f"the guest is gone: {self.console()[-3000:]}"
        return json.loads(line)

    def _stop(self) -> None:
        """Nothing of the guest is kept: it is switched off."""
        self._qemu.kill()
        self._qemu.wait()
        for name in ("_answers", "_port", "_said", "_monitor"):
            if hasattr(self, name):
                getattr(self, name).close()


def _machine(directory: Path) -> list[str]:
    words = {
        "RIG_CACHE": CACHE,
        "RIG_PYTHON": sys.executable,
        "RIG_AGENT": HERE / "agent.py",
    }
    told = " ".join(f"{name}={value}" for name, value in words.items())
    return [
        *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-smp", "2"),
        *("-m", "1536", "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-serial", f"file:{directory}/console"),
        *("-kernel", str(CACHE / "vmlinuz"), "-initrd", str(CACHE / "initrd")),
        *("-append", f"console=ttyS0 panic=-1 quiet tsc=reliable no_timer_check {told}"),
        "-fsdev",
        "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=port,path={directory}/port,server=on,wait=off"),
        *("-device", "virtserialport,chardev=port,name=rig"),
        *("-qmp", f"unix:{directory}/monitor,server=on,wait=off"),
    ]


def _connected(path: Path, qemu: subprocess.Popen[bytes]) -> socket.socket:
    for _ in range(400):
        assert qemu.poll() is None, "QEMU ended"
        port = socket.socket(socket.AF_UNIX)
        try:
            port.connect(os.path.relpath(path))  # a socket's path must be short
            return port
        except OSError:
            port.close()
            time.sleep(0.05)
    raise AssertionError(f"QEMU did not open {path}")
