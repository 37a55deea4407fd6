"""Records tests/reports/ anew: real smartctl's answers about the rig's drives, as root.

``python -m tests.rig.record``: the tests that run anywhere judge these. Each file holds what
smartctl printed with ``--json=o -n standby,3 -a``, and its exit status in it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.world import REPO
from tests.rig.invented import sas, sata
from tests.rig.machine import Guest, QemuDrive

REPORTS = REPO / "tests/reports"
WWN, UNIT = 0x5000C500858BFEA7, 0x5000C500A1B2C3D0
SERIAL, LONG_SERIAL = "ZA12JCHM", "ZL22PHAL0000C0048NEQ"
SERVED: dict[str, dict[str, Any]] = {
    "sata-good": sata(SERIAL, WWN),
    "sata-pending": sata(SERIAL, WWN, {5: 3, 197: 8, 198: 2}),
    "sata-failed": sata(SERIAL, WWN, {5: 3900, 197: 240}, smart_status={"passed": False}),
    "sata-prefail": sata(SERIAL, WWN, {5: 60}, {5: 9}),
    "sata-test-failed": sata(SERIAL, WWN, rig={"self_test_result": 7}),
    "sata-asleep": sata(SERIAL, WWN, rig={"standby": True}),
    "sata-no-smart": sata(SERIAL, WWN, rig={"no_smart": True}),
    "sata-smart-off": sata(SERIAL, WWN, smart_support={"enabled": False}),
    "sata-dead": sata(SERIAL, WWN, rig={"aborted": True}),
    "sas-good": sas(LONG_SERIAL, UNIT),
    "sas-grown": sas(LONG_SERIAL, UNIT, 31, 4, rig={"non_medium_errors": 57}),
    "sas-failed": sas(LONG_SERIAL, UNIT, 2066, 2, smart_status={"passed": False}),
    "sas-test-failed": sas(LONG_SERIAL, UNIT, rig={"self_test_result": 5}),
    "sas-not-ready": sas(LONG_SERIAL, UNIT, rig={"not_ready": True}),
}
QEMUS = {
    "sas-no-smart": QemuDrive("sas", LONG_SERIAL, UNIT),
    "nvme-good": QemuDrive("nvme", "S4EWNX0N123456", 0x0025385B91B2C3D4),
    "usb-mute": QemuDrive("usb", "USBSER01"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "guest"
        with Guest(place, list(QEMUS.values())) as guest:
            record_all(guest)


def record_all(guest: Guest) -> None:
    guest.run("modprobe --all sd_mod sg nvme virtio_scsi usb_storage xhci_pci && sleep 5")
    for name, device in (("sas-no-smart", "sda"), ("usb-mute", "sdb"), ("nvme-good", "nvme0n1")):
        record(guest, name, f"/dev/{device}")
    nvme = f"/machine/peripheral/{QEMUS['nvme-good'].qemu_id}"
    for name, warning in (("nvme-failing", 4), ("nvme-hot", 2)):
        guest.qemu("qom-set", path=nvme, property="smart_critical_warning", value=warning)
        record(guest, name, "/dev/nvme0n1")
    for name, device in serve(guest).items():
        record(guest, name, device)


def serve(guest: Guest) -> dict[str, str]:
    guest.run("mkdir /tmp/reports")
    good = {name: {**report, "rig": {}} for name, report in SERVED.items()}
    for name, report in good.items():  # the kernel must find it well
        guest.put(f"/tmp/reports/{name}.json", json.dumps(report))
    specs = " ".join(f"{name}=/tmp/reports/{name}.json" for name in SERVED)
    script = f"cd {REPO} && /usr/bin/python3 -m tests.rig.serve_drives"
    guest.run(f"({script} {specs}) </dev/null >/tmp/served 2>/tmp/serve.err &")
    guest.run("until [ -s /tmp/served ]; do sleep .2; done")
    for name, report in SERVED.items():
        guest.put(f"/tmp/reports/{name}.json", json.dumps(report))
    devices: dict[str, str] = json.loads(guest.run("cat /tmp/served").out)
    return devices


def record(guest: Guest, name: str, device: str) -> None:
    command = ["smartctl", "--json=o", "-n", "standby,3", "-a", device]
    report = json.loads(guest.run(command, check=None).out)
    report.pop("local_time", None)
    (REPORTS / f"{name}.json").write_text(json.dumps(report, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
