"""Real smartctl on drives that can be made to fail, in one guest: see rig/emulated.py.

Tests share the guest, which boots once; the story of a failing drive is one test.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.other_users import AS_NOBODY
from tests.helpers.world import CRON_ENVIRONMENT, REPO, Run
from tests.rig.invented import SMALL_BLOCKS, sas, sata
from tests.rig.machine import Guest, QemuDrive, why_no_rig
from tests.rig.serve_drives import PORT, TARGET

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),
]
SMALL = {"user_capacity": {"blocks": SMALL_BLOCKS}}  # keeps what is written to it
DISKS: dict[str, dict[str, Any]] = {
    "P01": sata("ZA12JCHM", 0x5000C500858BFEA7, **SMALL),
    "P02": sata("ZA12KDIN", 0x5000C500858BFEB8, **SMALL),
    "P03": sata("ZA12LEFO", 0x5000C500858BFEC9, **SMALL),
    "S01": sas("ZL22PHAL0000C0048NEQ", 0x5000C500A1B2C3D0, **SMALL),
    "S02": sas("ZL22QRST0000C0048NER", 0x5000C500A1B2C3E0, **SMALL),
}
WWNS = {
    "P01": "0x5000c500858bfea7",
    "P02": "0x5000c500858bfeb8",
    "P03": "0x5000c500858bfec9",
    "S01": "0x5000c500a1b2c3d0",
    "S02": "0x5000c500a1b2c3e0",
}
STRANGERS = [
    QemuDrive("sata", "ZA15QEMU", 0x5000C500858BFED0),
    QemuDrive("sata", "ZA14NOWWN"),
    QemuDrive("sata", "ZA16EIO", 0x5000C500858BFEE0, unreadable=True),
    QemuDrive("sas", "ZL22TWOPATHS", 0x5000C500A1B2C4D0, paths=2),
    QemuDrive("nvme", "S4EWNX0N123456", 0x0025385B91B2C3D4),
    QemuDrive("virtio", "VBLKSER01"),
    QemuDrive("usb", "USBSER01"),
    QemuDrive("megaraid", "MRSER01", 0x5000C500A1B2C500),
]
MODULES = "ahci sd_mod sg nvme virtio_scsi virtio_blk usb_storage xhci_pci megaraid_sas ext4"
KERNEL_NAMES = len(STRANGERS) + 1  # one has two paths
BASE, REPORTS = Path("/tmp/pole-station"), Path("/tmp/pole-reports")  # in the guest
DB = BASE / "db/pole.sqlite"
CONFIG = f"""\
[station]
FilenameDB = {DB}
BufferLocation = {BASE}/buffer
Extension = g3
DiskMountPoints = {BASE}/spt_disks
SettleTime = 0 s
MinFreeSpace = 0
NoNewFilesAfter = 0
SpareDisksLow = 0
"""
SMTP_PORT, MAILS = 2525, Path("/tmp/mails")  # in the guest
SECRETS = f"POLE_NOTIFY_URLS='mailto://127.0.0.1:{SMTP_PORT}/?from=spt@pole.test&to=wo@pole.test'"
CRON_USER = [*AS_NOBODY, "env", "-i", "PATH=/usr/bin:/bin"]
ROOT_CRON = ["env", "-i", "PATH=/usr/bin:/bin"]  # without /usr/sbin, where smartctl is


class Station:
    """The archive of the user nobody, in the guest, on emulated drives; root checks these."""

    def __init__(self, guest: Guest, directory: Path) -> None:
        self.guest, self.directory = guest, directory
        self.db_path = directory / "pole.sqlite"
        self.reports = json.loads(json.dumps(DISKS))
        guest.run(f"mkdir {REPORTS}")
        for label in DISKS:
            self.becomes(label)
        self.devices = self._serve()
        self._set_up()

    def _serve(self) -> dict[str, str]:
        specs = " ".join(f"{label}={REPORTS}/{label}.json" for label in DISKS)
        script = f"cd {REPO} && /usr/bin/python3 -m tests.rig.serve_drives"
        self.guest.run(f"({script} {specs}) </dev/null >/tmp/served 2>/tmp/serve.err &")
        wait = "for i in $(seq 600); do [ -s /tmp/served ] && exit 0; sleep .1; done; exit 1"
        self.guest.run(f"{wait} || cat /tmp/serve.err >&2")
        devices: dict[str, str] = json.loads(self.guest.run("cat /tmp/served").out)
        return devices

    def _set_up(self) -> None:
        lines = [f"{at} {DISKS[at]['serial_number'][:8]} {WWNS[at]}\n" for at in DISKS]
        disk_map = self.directory / "disk-map"
        disk_map.write_text("".join(lines))
        script = [sys.executable, REPO / "generate_db.py", "--db", self.db_path]
        subprocess.run([*script, "--disk-map", disk_map], env=CRON_ENVIRONMENT, check=True)
        places = " ".join(str(self.place(label)) for label in DISKS)
        self.guest.run(
            f"mkdir -p {BASE} && mount -t tmpfs x {BASE} && mkdir -p {BASE}/db {BASE}/buffer "
            f"{places} && chmod 755 {BASE}"
        )
        self.guest.put(BASE / "station.config", CONFIG)
        self.guest.put(BASE / "disk-map", disk_map.read_text())
        self.guest.put(BASE / ".env", SECRETS)
        self.guest.run(f"chown nobody: {BASE}/.env && chmod 600 {BASE}/.env")
        self._open_the_post()
        self.guest.run(f"cp {self.db_path} {DB}")
        for label, device in self.devices.items():
            self.guest.run(f"mkfs.ext4 -q -F {device}")
            self.mount(label)
            self.guest.run(f"chown nobody: {self.place(label)}")
        self.guest.run(f"chown -R nobody: {BASE}/db {BASE}/buffer")

    def _open_the_post(self) -> None:
        """A real mail server; each mail becomes a file."""
        serve = f"{sys.executable} -m aiosmtpd -n -l 127.0.0.1:{SMTP_PORT}"
        handler = f"-c aiosmtpd.handlers.Mailbox {MAILS}"
        self.guest.run("ip link set lo up")
        self.guest.run(f"({serve} {handler}) </dev/null >/tmp/smtp.err 2>&1 &")
        wait = f"for i in $(seq 600); do [ -d {MAILS}/new ] && exit 0; sleep .1; done; exit 1"
        self.guest.run(f"{wait} || cat /tmp/smtp.err >&2")

    # --- what happens to drives ---

    def becomes(self, label: str, **report: Any) -> None:
        """From now on the drive says this of itself."""
        self.reports[label].update(report)
        self.guest.put(REPORTS / f"{label}.json", json.dumps(self.reports[label]))

    def counts(self, label: str, **raw: int) -> None:
        """Attributes of a SATA drive, as ``_197=8``."""
        for attribute in self.reports[label]["ata_smart_attributes"]["table"]:
            wanted = raw.get(f"_{attribute['id']}")
            if wanted is not None:
                attribute["raw"]["value"] = wanted
        self.becomes(label)

    def pull(self, *labels: str) -> None:
        for label in labels:
            self.guest.run(f"umount {self.place(label)} && rm {self._plug(label)}")

    def put_back(self, *labels: str) -> None:
        for label in labels:
            number = list(DISKS).index(label) + 1
            self.guest.run(f"ln -s {TARGET}/core/user_{number}/{label} {self._plug(label)}")
            self.devices[label] = self._device_of(DISKS[label]["serial_number"])
            self.mount(label)

    def _plug(self, label: str) -> str:
        number = list(DISKS).index(label) + 1
        return f"{TARGET}/loopback/{PORT}/tpgt_{number}/lun/lun_0/link"

    def _device_of(self, serial: str) -> str:
        find = f"grep -l {serial} /sys/block/sd*/device/vpd_pg80"
        self.guest.run(f"for i in $(seq 300); do {find} && exit 0; sleep .1; done; exit 1")
        return f"/dev/{Path(self.guest.run(find).out.split()[0]).parts[3]}"

    def take_strangers_away(self) -> None:
        """All that are not asked for any more, but the one with two paths: questions cost time."""
        ours = [Path(device).name for device in self.devices.values()]
        keep = " ".join(ours) + " $(grep -l TWOPATHS /sys/block/*/device/vpd_pg80 | cut -d/ -f4)"
        self.guest.run(
            f"keep=' '$(echo {keep})' '; cd /sys/block; for d in sd*; do case $keep in "
            '*" $d "*) ;; *) echo 1 >$d/device/delete;; esac; done; '
            "[ ! -e /sys/class/nvme/nvme0 ] || echo 1 >/sys/class/nvme/nvme0/device/remove"
        )

    def mount(self, label: str) -> None:
        self.guest.run(f"mount {self.devices[label]} {self.place(label)}")

    def place(self, label: str) -> Path:
        return BASE / "spt_disks" / label

    # --- what people and cron do ---

    def ask_ids(self, *args: str, check: int) -> Run:
        script = [*ROOT_CRON, sys.executable, str(REPO / "get_drive_IDs.py")]
        return self.guest.run([*script, *args], check=check)

    def check_health(self, check: int, *args: str) -> dict[str, dict[str, Any]]:
        """Root's cron line; returns what it says of each disk, and under serials of strangers."""
        script = [*ROOT_CRON, sys.executable, str(REPO / "get_SMART_status.py")]
        config = ["--config", str(BASE / "station.config"), "--json"]
        run = self.guest.run([*script, *config, *args], check=None)
        assert run.code == check, run
        return {row["label"] or row["serial"]: row for row in json.loads(run.out)}

    def archive(self, name: str, check: int = 0) -> set[str]:
        """A file and a pass, as the cron user; returns the labels of the disks that have it."""
        self.guest.run(
            f"head -c 70000 /dev/urandom >{BASE}/buffer/{name} && chown nobody: {BASE}/buffer/*"
        )
        self.manage(check=check)
        found = self.guest.run(f"find {BASE}/spt_disks -path '*/data/{name}'").out.split()
        return {Path(path).relative_to(BASE / "spt_disks").parts[0] for path in found}

    def manage(self, *args: str, check: int = 0) -> Run:
        script = [*CRON_USER, sys.executable, str(REPO / "data_manager.py")]
        run = self.guest.run([*script, "--config", f"{BASE}/station.config", *args], check=None)
        assert run.code == check, run
        return run

    def told(self) -> list[tuple[str, str]]:
        """The mails that came. A send that took too long, for the guest is slow, is tried again."""
        for _ in range(5):
            if found := self.mails():
                return found
            self.guest.run("date -s '+90 seconds'")
            self.manage()
        raise AssertionError("no mail came")

    def mails(self) -> list[tuple[str, str]]:
        """Subject and text of what arrived since this was last asked."""
        each = f"cd {MAILS}/new && for f in *; do base64 -w 0 $f; echo; rm $f; done"
        found = self.guest.run(f'[ -z "$(ls {MAILS}/new)" ] || ({each})').out.split()
        messages = (message_from_bytes(base64.b64decode(m), policy=policy.default) for m in found)
        return [(str(m["Subject"]), m.get_content()) for m in messages]

    # --- what is stored ---

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        self.db_path.write_bytes(base64.b64decode(self.guest.run(f"base64 {DB}").out))
        with closing(sqlite3.connect(self.db_path)) as db:
            return db.execute(query, values).fetchall()

    def notices(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(kind, key) → severity and text of the open ones about drives."""
        rows = self.sql(
            "SELECT kind, key, severity, text FROM notices WHERE resolved_at IS NULL "
            "AND kind IN ('smart-failing', 'smart-warning', 'drive-missing')"
        )
        return {(kind, key): (severity, text) for kind, key, severity, text in rows}

    def holds(self) -> dict[str, str]:
        return dict(self.sql("SELECT label, held_reason FROM disks WHERE held_by = 'machine'"))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    if why := why_no_rig():
        pytest.skip(why)
    if not Path("/usr/sbin/smartctl").exists():  # the guest's, too
        pytest.skip("needs smartctl: apt-get install smartmontools")
    directory = tmp_path_factory.mktemp("rig")
    with Guest(directory / "guest", STRANGERS) as guest:
        guest.run(f"modprobe --all {MODULES}")
        there = f"$(ls /sys/block | grep -cv loop) -ge {KERNEL_NAMES}"
        guest.run(f"for i in $(seq 300); do [ {there} ] && exit 0; sleep .1; done; exit 1")
        yield Station(guest, directory)


def test_every_drive_is_named_or_said_to_be_mute(station: Station) -> None:
    """SATA, SAS by two paths, NVMe, behind MegaRAID: serial and logical ID, a line a drive."""
    run = station.ask_ids(check=1)
    serials = {label: report["serial_number"] for label, report in DISKS.items()}
    known = [f"{serials[label]} {WWNS[label]}" for label in DISKS] + [
        "ZA15QEMU 0x5000c500858bfed0",
        "ZA16EIO 0x5000c500858bfee0",  # reads of its medium fail; it says who it is all the same
        "ZL22TWOPATHS 0x5000c500a1b2c4d0",
        "MRSER01 0x5000c500a1b2c500",
        "S4EWNX0N123456 0x0025385b91b2c3d4",
    ]
    assert sorted(run.out.splitlines()) == sorted(known)
    said = run.err.splitlines()
    assert len(said) == 3, said
    for serial in ("ZA14NOWWN", "VBLKSER01"):
        (line,) = [line for line in said if serial in line]
        assert line.endswith(f"serial {serial} has no logical ID (WWN): no disk-map can name it")
    assert "smartctl can't ask it who it is" in next(s for s in said if "serial" not in s)


def test_a_failing_drive_is_told_of_and_held_and_given_back(station: Station) -> None:
    """Good, pending, failing, pulled (with all others, of which none is held), back: as the
    notices say, and as the next pass acts."""
    station.take_strangers_away()
    rows = station.check_health(check=0)
    assert {rows[label]["health"] for label in DISKS} == {"healthy"}
    assert rows["P01"]["model"] == "ST8000NM0055-1RM112"
    assert rows["S01"]["power_on_hours"] == 9876
    assert rows["ZL22TWOPATHS"]["label"] is None and len(rows["ZL22TWOPATHS"]["devices"]) == 2
    assert station.archive("a.g3") == {"P01", "S01"}
    assert station.guest.run(f"find {BASE}/db ! -user nobody").out == ""  # root took nothing

    station.counts("P01", _197=8)
    station.becomes("P03", rig={"standby": True})
    rows = station.check_health(check=1)
    assert rows["P01"]["health"] == "warning"
    assert rows["P01"]["reasons"] == ["pending sectors (197): 0 → 8"]
    assert rows["P03"]["health"] == "asleep"
    ((severity, text),) = station.notices().values()
    device = station.devices["P01"]
    assert severity == "warning"
    assert text == (
        f"P01 (serial ZA12JCHM, primary, in use, {device}) should be watched: pending sectors "
        "(197): 0 → 8. 1 file is on it; other copies: S01 (1). It goes on being used. "
        "See smart-warning in docs/operators.md."
    )

    station.counts("P01", _197=240)
    station.becomes("P01", smart_status={"passed": False})
    station.becomes("P03", rig={"no_smart": True})
    rows = station.check_health(check=1)
    assert rows["P01"]["health"] == "failing" and rows["P01"]["held_by"] == "machine"
    assert rows["P03"]["health"] == "unsupported"
    severity, text = station.notices()["smart-failing", "P01"]
    assert severity == "critical"
    assert (
        "it says itself that it is failing (SMART status: FAILED); pending sectors (197): 0 → 240"
        in text
    )
    assert "1 file is on it; other copies: S01 (1). It is held" in text
    assert ("smart-warning", "P01") not in station.notices()
    assert station.holds() == {"P01": "SMART: the drive reports that it is failing"}
    assert station.archive("c.g3") == {"P02", "S01"}
    ((subject, body),) = station.told()
    assert subject.startswith("[pole-data] CRITICAL P01: the drive says that it is failing")
    assert "pending sectors (197): 0 → 240" in body

    station.pull(*DISKS)  # an HBA that takes all of them away
    station.becomes("P03", rig={})
    rows = station.check_health(check=1)
    healths = {label: rows[label]["health"] for label in DISKS}
    assert healths == dict.fromkeys(DISKS, "missing") | {"P03": "absent", "S02": "absent"}
    assert set(station.notices()) == {
        ("smart-failing", "P01"),  # what it said is not over because it is away
        *(("drive-missing", label) for label in ("P01", "P02", "S01")),
    }
    assert list(station.holds()) == ["P01"]

    station.counts("P01", _197=0)
    station.becomes("P01", smart_status={"passed": True})
    station.put_back(*DISKS)
    rows = station.check_health(check=0)
    assert {rows[label]["health"] for label in DISKS} == {"healthy"}
    assert "pending fell: 240 → 0" in rows["P01"]["notes"]
    assert station.notices() == {} and station.holds() == {}
    station.manage()
    ((subject, body),) = station.told()
    assert subject.startswith("[pole-data] resolved ") and "RESOLVED  CRITICAL smart-fail" in body


def test_nothing_weaker_ends_a_verdict_and_counters_are_judged_without_health(
    station: Station,
) -> None:
    """A failed extended self-test, exceptions control off, a background scan that failed."""
    station.take_strangers_away()
    station.check_health(check=0)  # the baseline
    station.becomes("P02", rig={"self_tests": [[1, 0, 120], [2, 7, 100]]})
    station.becomes("S01", rig={"exceptions_off": True}, scsi_grown_defect_list=3)
    rows = station.check_health(check=1)
    (reason,) = rows["P02"]["reasons"]
    assert reason == (
        "self-tests failed, and no extended one has passed since: 1 (Extended offline: Completed: "
        "read failure)"
    )
    assert (rows["P02"]["health"], rows["P02"]["held_by"]) == ("failing", "machine")
    assert (rows["S01"]["health"], rows["S01"]["reasons"]) == (
        "warning",
        ["grown defects: 0 → 3"],
    )
    assert rows["S01"]["notes"][0].endswith(f"smartctl -s on {station.devices['S01']}")

    station.becomes("P02", rig={"self_tests": [[1, 0, 130 - n] for n in range(21)]})
    station.becomes("S02", rig={"scan_results": [2, 4]})
    rows = station.check_health(check=1)
    assert (rows["P02"]["health"], rows["P02"]["held_by"]) == ("failing", "machine")
    assert (rows["S02"]["health"], rows["S02"]["reasons"]) == (
        "failing",
        ["sectors it could not replace: 0 → 1"],
    )

    station.becomes("P02", rig={"self_tests": [[2, 0, 200]]})
    station.becomes("S01", rig={}, scsi_grown_defect_list=0)
    station.becomes("S02", rig={})
    rows = station.check_health(check=0)
    assert {rows[label]["health"] for label in DISKS} == {"healthy"}
    assert station.notices() == {} and station.holds() == {}
    query = (
        "SELECT json_extract(attributes, '$.numbers.extended_passed_at_h') FROM smart_checks c "
        "JOIN disks d ON d.id = disk_id WHERE label = 'P02' ORDER BY c.id DESC LIMIT 1"
    )
    assert station.sql(query) == [(200,)]


def test_several_failing_ones_are_not_held_and_mute_ones_delay_nobody(station: Station) -> None:
    """More than two at once have a common cause. One takes 25 s a command, one aborts them all:
    neither is healthy, and neither is failing."""
    failing = {"P01", "P02", "S01"}
    for label in failing:
        station.becomes(label, smart_status={"passed": False})
    station.becomes("S02", rig={"delay_s": 25})
    station.becomes("P03", rig={"aborted": True})
    asked = station.guest.run(["smartctl", "-a", station.devices["P03"]], check=None)
    assert asked.code == 0  # though nothing is known of its health
    began = time.monotonic()
    rows = station.check_health(check=1)
    assert time.monotonic() - began < 125  # what one question takes there
    assert {label for label in DISKS if rows[label]["health"] == "failing"} == failing
    assert rows["S02"]["health"] == rows["P03"]["health"] == "unknown"
    assert rows["S02"]["reasons"] == ["no answer within 30 s"]
    assert rows["P03"]["reasons"] == [
        "present, but gives no health data: it gives no health report"
    ]
    assert station.holds() == {}
    severity, text = station.notices()["smart-failing", "several"]
    assert severity == "critical" and "P01, P02, S01 fail at once" in text
