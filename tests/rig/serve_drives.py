"""In the guest: makes disks of emulated drives (LIO's TCMU), so that real programs can ask them.

``python -m tests.rig.serve_drives NAME=REPORT.json …`` runs until it is killed, and prints one
JSON object when all are up: name → device. The kernel hands us every SCSI command in a ring of
shared memory (Documentation/target/tcmu-design.rst).
"""

from __future__ import annotations

import glob
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
import time

from tests.rig.emulated import Drive

TARGET = "/sys/kernel/config/target"
PORT = "naa.5001405abcdef001"
MODULES = ("target_core_mod", "target_core_user", "tcm_loop", "sd_mod", "sg", "uio")
HEAD, TAIL = 12, 64  # of the ring, in its first page
WRITES = (0x0A, 0x15, 0x2A, 0x55, 0x8A)  # commands whose data comes from the host


def main(specs: list[str]) -> None:
    subprocess.run(["modprobe", "--all", *MODULES], check=True)
    if not os.path.ismount("/sys/kernel/config"):
        subprocess.run(["mount", "-t", "configfs", "configfs", "/sys/kernel/config"], check=True)
    names = []
    for number, spec in enumerate(specs, 1):
        name, path = spec.split("=", 1)
        _connect(number, name, Drive(path))
        names.append(name)
    print(json.dumps(_devices(names)), flush=True)
    threading.Event().wait()


def _connect(number: int, name: str, drive: Drive) -> None:
    backstore = f"{TARGET}/core/user_{number}/{name}"
    os.makedirs(backstore)
    size = drive.blocks * 512
    _write(f"{backstore}/control", f"dev_config=x/{name},dev_size={size},hw_block_size=512")
    _write(f"{backstore}/enable", "1")
    threading.Thread(target=_serve, args=(_uio(f"x/{name}"), drive), daemon=True).start()
    portal = f"{TARGET}/loopback/{PORT}/tpgt_{number}"
    os.makedirs(portal)
    _write(f"{portal}/nexus", f"naa.5001405abcdef{0x100 + number:03x}")
    os.makedirs(f"{portal}/lun/lun_0")
    # By a process of its own: the kernel asks the drive meanwhile, which our threads answer.
    subprocess.run(["ln", "-s", backstore, f"{portal}/lun/lun_0/link"], check=True)


def _uio(ending: str) -> str:
    while True:
        for place in glob.glob("/sys/class/uio/uio*"):
            name = os.path.basename(place)
            with open(f"{place}/name") as file:
                if file.read().strip().endswith(ending) and os.path.exists(f"/dev/{name}"):
                    return name
        time.sleep(0.05)


def _devices(names: list[str]) -> dict[str, str]:
    """Name → device; waits until all are there."""
    found: dict[str, str] = {}
    while len(found) < len(names):
        time.sleep(0.1)
        for place in glob.glob("/sys/class/block/sd*"):
            real = os.path.realpath(place)
            if "/tcm_loop_adapter_" in real:
                number = int(os.path.basename(os.path.realpath(f"{place}/device")).split(":")[2])
                found[names[number - 1]] = f"/dev/{os.path.basename(place)}"
    return found


def _serve(uio: str, drive: Drive) -> None:
    fd = os.open(f"/dev/{uio}", os.O_RDWR)
    with open(f"/sys/class/uio/{uio}/maps/map0/size") as file:
        size = int(file.read(), 16)
    memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    _, _, ring, ring_size = struct.unpack_from("<HHII", memory, 0)
    while os.read(fd, 4):
        while (tail := _number(memory, TAIL)) != _number(memory, HEAD):
            length_and_kind = _number(memory, ring + tail)
            if length_and_kind & 7 == 1:  # a command, and no padding
                _answer(memory, ring + tail, drive)
            struct.pack_into("<I", memory, TAIL, (tail + (length_and_kind & ~7)) % ring_size)
            os.write(fd, bytes(4))


def _number(memory: mmap.mmap, offset: int) -> int:
    return int(struct.unpack_from("<I", memory, offset)[0])


def _answer(memory: mmap.mmap, entry: int, drive: Drive) -> None:
    n_vectors, _, _, cdb_at = struct.unpack_from("<III4xQ", memory, entry + 8)
    vectors = [struct.unpack_from("<QQ", memory, entry + 48 + 16 * n) for n in range(n_vectors)]
    cdb = bytes(memory[cdb_at : cdb_at + 32])
    room = b"".join(memory[start : start + length] for start, length in vectors)
    status, sense, data = drive.answer(cdb, room)
    if cdb[0] not in WRITES:
        for start, length in vectors:
            memory[start : start + length] = data[:length].ljust(length, b"\0")
            data = data[length:]
    struct.pack_into("<BBHI96s", memory, entry + 8, status, 0, 0, 0, sense.ljust(96, b"\0"))
    memory[entry + 7 : entry + 8] = b"\0"


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
