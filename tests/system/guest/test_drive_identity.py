"""Which drive is where, by its own serial and WWN: drives that QEMU lends, in one guest.

Tests share the guest, which boots once: each begins with every drive at its own place.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.world import CRON_ENVIRONMENT, REPO, Run
from tests.rig.machine import Guest, QemuDrive, why_no_rig

pytestmark = pytest.mark.timeout(600)
DISKS = {
    "P01": QemuDrive("sata", "ZA12JCHM", 0x5000C500858BFEA7),
    "P02": QemuDrive("sas", "ZL22PHAL0000C0048NEQ", 0x5000C500A1B2C3D0, paths=2),
    "S01": QemuDrive("sata", "ZA13KDIN", 0x5000C500858BFEB8),
    "S02": QemuDrive("sas", "ZL22QRST0000C0048NER", 0x5000C500A1B2C3E0),
}
STRANGER = QemuDrive("sata", "ZA19TWIN", 0x5000C500858BFEC9)
OTHERS = [
    STRANGER,
    QemuDrive("sata", "ZA14NOWWN"),
    QemuDrive("nvme", "S4EWNX0N123456"),
    QemuDrive("virtio", "VBLKSER01"),
    QemuDrive("usb", "USBSER01"),
    QemuDrive("uas", "UASSER01", 0x5000C500A1B2C600),
]
MODULES = "ahci sd_mod nvme virtio_scsi virtio_blk usb_storage uas xhci_pci ext4"
KERNEL_NAMES = 11  # of the drives above: P02 has two
BASE = Path("/tmp/x")  # in the guest
CONFIG = f"""\
[station]
FilenameDB = {BASE}/db/pole.sqlite
BufferLocation = {BASE}/buffer
Extension = g3
DiskMountPoints = {BASE}/spt_disks
SettleTime = 0 s
MinFreeSpace = 0
NoNewFilesAfter = 0
"""
ASK = """\
import json, sys
sys.path.insert(0, sys.argv[1])
from poledata.system import mounts
asked = mounts.ask_drives()
print(json.dumps([[d.kernel_name, d.serial, d.wwn, d.size_bytes, d.identity] for d in asked]))
"""


@dataclass(frozen=True)
class Seen:
    """What the code under test knows of one drive of the guest."""

    kernel_name: str
    serial: str | None
    wwn: str | None
    size_bytes: int
    identity: str


class Station:
    """The archive in the guest; nothing of it is on this machine but copies of its database."""

    def __init__(self, guest: Guest, directory: Path) -> None:
        self.guest, self.directory = guest, directory
        self.drives = self._ask_drives()
        self.db_path = directory / "pole.sqlite"
        self._make_database()
        devices = " ".join(self.device(label) for label in DISKS)
        guest.run(
            f"mkdir -p {BASE} && mount -t tmpfs -o mode=755 x {BASE} && mkdir -m 700 {BASE}/db && "
            f"mkdir -p {BASE}/buffer {' '.join(str(self.place(label)) for label in DISKS)} && "
            f"cp {directory}/station.config {BASE}/ && cp {self.db_path} {BASE}/db/ && "
            f"for d in {devices}; do mkfs.ext4 -q -F $d || exit 1; done"
        )

    def _ask_drives(self) -> list[Seen]:
        run = self.guest.run([sys.executable, "-c", ASK, str(REPO)])
        assert run.err == ""
        return [Seen(*values) for values in json.loads(run.out)]

    def _make_database(self) -> None:
        """From a disk-map that says of a SAS drive what is printed on it: eight characters."""
        disk_map, config = self.directory / "disk-map", self.directory / "station.config"
        lines = [f"{label} {d.serial[:8]} {d.wwn:#x}\n" for label, d in DISKS.items()]
        disk_map.write_text("".join(lines))
        config.write_text(CONFIG)
        script = [sys.executable, REPO / "generate_db.py", "--db", self.db_path]
        subprocess.run([*script, "--disk-map", disk_map], env=CRON_ENVIRONMENT, check=True)

    # --- what a person does ---

    def device(self, label: str, path: int = 0) -> str:
        return self.device_of(DISKS[label].serial, path)

    def device_of(self, serial: str, path: int = 0) -> str:
        found = sorted(drive.kernel_name for drive in self.drives if drive.serial == serial)
        return f"/dev/{found[path]}"

    def place(self, label: str) -> Path:
        return BASE / "spt_disks" / label

    def mount(self, device: str, label: str, options: str = "rw") -> None:
        self.guest.run(f"mount -o {options} {device} {self.place(label)}")

    def all_in_place(self) -> None:
        """Every drive at the mount point of its label, and an empty buffer."""
        mounts = [f"mount {self.device(label)} {self.place(label)}" for label in DISKS]
        clear = f"umount {BASE}/spt_disks/* 2>/dev/null; rm -rf {BASE}/buffer/*"
        self.guest.run(f"{clear}; {' && '.join(mounts)}")

    def umount(self, *labels: str) -> None:
        self.guest.run(f"umount {' '.join(str(self.place(label)) for label in labels)}")

    def put(self, name: str) -> None:
        self.guest.run(f"head -c 70000 /dev/urandom > {BASE}/buffer/{name}")

    def run_pass(self, check: int) -> Run:
        script = [sys.executable, REPO / "data_manager.py", "--config", BASE / "station.config"]
        run = self.guest.run([str(part) for part in script], check=None)
        assert run.code == check, run
        packed = self.guest.run(f"base64 {BASE}/db/pole.sqlite").out
        self.db_path.write_bytes(base64.b64decode(packed))
        return run

    # --- what is seen then ---

    def tree(self, label: str) -> str:
        """Everything at a mount point: names, sizes, times and contents."""
        place = self.place(label)
        stat = f"find {place} -printf '%P %y %m %s %T@\\n'"
        return self.guest.run(f"({stat}; find {place} -type f -exec md5sum {{}} +) | sort").out

    def places_of(self, name: str) -> set[str]:
        """The labels whose mount points hold this file."""
        found = self.guest.run(f"find {BASE}/spt_disks -path '*/data/{name}'").out.split()
        return {Path(path).relative_to(BASE / "spt_disks").parts[0] for path in found}

    def waiting(self) -> list[str]:
        return self.guest.run(f"ls {BASE}/buffer").out.split()

    def notice(self, kind: str, key: str) -> str:
        query = "SELECT text FROM notices WHERE kind = ? AND key = ? AND resolved_at IS NULL"
        with closing(sqlite3.connect(self.db_path)) as db:
            found = db.execute(query, (kind, key)).fetchone()
        return str(found[0]) if found else ""


@pytest.fixture(scope="module")
def shared_station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """P01 and S02 are in use: a SATA drive, and a SAS drive that is registered as printed."""
    if why := why_no_rig():
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("rig")
    with Guest(directory / "guest", [*DISKS.values(), *OTHERS]) as guest:
        guest.run(f"modprobe --all {MODULES}")
        there = f"$(ls /sys/block | grep -cv loop) -ge {KERNEL_NAMES}"
        guest.run(f"for i in $(seq 300); do [ {there} ] && exit 0; sleep .1; done; exit 1")
        station = Station(guest, directory)
        station.all_in_place()
        station.umount("S01")
        station.put("proper.g3")
        station.run_pass(check=0)
        assert station.waiting() == []
        assert station.places_of("proper.g3") == {"P01", "S02"}
        yield station


@pytest.fixture
def station(shared_station: Station) -> Station:
    shared_station.all_in_place()
    return shared_station


def test_a_drive_of_any_kind_is_known_by_what_it_says_of_itself(shared_station: Station) -> None:
    """Serial and WWN come from the drive, without udev; what it does not say is not invented."""
    found = {drive.serial: drive for drive in shared_station.drives}
    kinds = {
        serial: (drive.kernel_name.rstrip("0123456789")[:2], drive.wwn)
        for serial, drive in found.items()
    }
    for disk in (*DISKS.values(), STRANGER):
        assert kinds.pop(disk.serial) == ("sd", f"{disk.wwn:#x}")
    assert kinds == {
        "ZA14NOWWN": ("sd", None),
        "S4EWNX0N123456": ("nv", None),
        "VBLKSER01": ("vd", None),
        None: ("sd", None),  # behind the USB bridge nobody answers
        "UASSER01": ("sd", "0x5000c500a1b2c600"),
    }
    assert found[None].identity == found[None].kernel_name
    assert {drive.size_bytes for drive in shared_station.drives} == {32 << 20}


def test_two_paths_to_one_drive_are_one_drive(shared_station: Station) -> None:
    """A SAS drive that is seen twice has one identity, whichever path is asked."""
    one, other = (d for d in shared_station.drives if d.serial == DISKS["P02"].serial)
    assert one.kernel_name != other.kernel_name
    assert one.identity == other.identity == f"{DISKS['P02'].wwn:#x}"


def test_two_swapped_drives_are_named_and_get_nothing(station: Station) -> None:
    """P01 and P02 at each other's mount points are both refused; the copy role goes on."""
    station.umount("P01", "P02")
    station.mount(station.device("P01"), "P02")
    station.mount(station.device("P02"), "P01")
    before = station.tree("P01"), station.tree("P02")
    station.put("swapped.g3")
    station.run_pass(check=1)
    there, here = DISKS["P02"], DISKS["P01"]
    for label, is_at, printed, own in (
        ("P01", there, "ZA12JCHM", here),
        ("P02", here, "ZL22PHAL", there),
    ):
        text = station.notice("disk-wrong", label)
        assert f"(serial {is_at.serial}, ID {is_at.wwn:#x})" in text
        assert f"not serial {printed} ID {own.wwn:#x}" in text
    assert "No primary disk" in station.notice("no-disk", "primary")
    assert (station.tree("P01"), station.tree("P02")) == before
    assert station.waiting() == ["swapped.g3"]
    assert station.places_of("swapped.g3") == {"S02"}


def test_a_cloned_drive_and_a_second_path_are_not_the_drive(station: Station) -> None:
    """P01's twin, mark and all, and P02's other path in S02's place: both refused by name."""
    station.umount("P01", "S01", "S02")
    twin = station.device_of(STRANGER.serial)
    station.guest.run(f"dd if={station.device('P01')} of={twin} bs=1M conv=fsync && sync")
    station.mount(twin, "P01")
    station.mount(station.device("P02", path=1), "S02", "ro,noload")
    before = station.tree("P01"), station.tree("S02")
    station.put("after.g3")
    station.run_pass(check=1)
    text = station.notice("disk-wrong", "P01")
    assert f"(serial {STRANGER.serial}, ID {STRANGER.wwn:#x}), not serial ZA12JCHM" in text
    text = station.notice("disk-wrong", "S02")
    assert f"at {station.place('S02')} is the drive " in text
    assert f"(serial {DISKS['P02'].serial}, ID {DISKS['P02'].wwn:#x}), not serial ZL22QRST" in text
    assert (station.tree("P01"), station.tree("S02")) == before
    assert station.waiting() == ["after.g3"]
    assert station.places_of("after.g3") == {"P02"}
