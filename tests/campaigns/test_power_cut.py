"""The power fails in the middle of a pass: a guest machine is killed, booted again, and judged.

Its drives are virtio disks, in files of this machine: what the guest wrote to them stays, and
what it had in memory alone is gone. Beside the honest station a control works in the same guest,
with drives of its own, in which every fsync is pretended: it must lose files by the same cuts,
else they would prove nothing.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.in_the_guest import DRIVES, STATIONS, serial
from tests.campaigns.shim import build, needs_shim
from tests.helpers.loopdisks import make_file_system
from tests.helpers.world import REPO
from tests.rig.machine import Guest, QemuDrive, why_no_rig

pytestmark = [pytest.mark.qemu, needs_shim]
SCRIPT = REPO / "tests/campaigns/in_the_guest.py"
MODULES = "virtio_blk ext4 xfs"
SIZE_MB = {"spt_disks/P01": 320, "spt_disks/S01": 200}
BOOTED_S = 240.0  # until the guest has judged, when much else runs
PASS_S = 120.0


@dataclass
class Told:
    """What the boots have said: files of the honest station, and what the control had archived."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    control: list[str] = field(default_factory=list)

    def learn(self, console: str) -> None:
        for name, size_bytes in re.findall(r"^WILL (\S+) (\d+)", console, re.MULTILINE):
            self.files[name] = {"size_bytes": int(size_bytes), "is_put": False}
        for name in re.findall(r"^PUT (\S+)", console, re.MULTILINE):
            self.files[name]["is_put"] = True
        for names in re.findall(r"^CONTROL 0 (.*)$", console, re.MULTILINE):
            self.control += names.split()


class PowerCuts:
    """One guest's drives, through one cut after another."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory, self._moments = directory, random.Random(seed)
        self._library = build(directory)
        self._told = Told()
        self._boots = 0
        self.control_lost: list[str] = []
        self.in_mid_pass = 0
        drives = [
            QemuDrive("virtio", serial(station, place), size_mb=SIZE_MB.get(place, 48))
            for station in STATIONS
            for place in DRIVES
        ]
        self._guest = Guest(directory / "guest", drives)
        self._format(list(STATIONS))

    def _format(self, stations: list[str]) -> None:
        for station in stations:
            for place in DRIVES:
                image = self._directory / f"guest/virtio-{serial(station, place)}.img"
                fs = "xfs" if place.endswith("P01") else "ext4"
                make_file_system(image, fs, SIZE_MB.get(place, 48))

    def one(self) -> None:
        """Boot, judge what the last cut left, and cut the power in mid-pass."""
        with self._guest:
            self._start_and_judge()
            self._await(r"^END 0 0\b", PASS_S)  # the disks are claimed; how long a pass takes
            began = time.monotonic()
            self._await(r"^BEGIN 1\b", PASS_S)
            time.sleep(self._moments.uniform(0, time.monotonic() - began))  # the random moment
        console = self._said()
        begun, ended = (len(re.findall(rf"^{w} ", console, re.MULTILINE)) for w in ("BEGIN", "END"))
        self.in_mid_pass += begun > ended
        self._told.control = []
        self._told.learn(console)

    def judge_the_last(self) -> None:
        with self._guest:
            self._start_and_judge()

    def _start_and_judge(self) -> None:
        self._boots += 1
        told = self._directory / f"told-{self._boots}.json"
        told.write_text(json.dumps(vars(self._told)))
        arguments = f"{self._boots} {self._library} {told}"
        self._guest.run(
            f"modprobe --all {MODULES}; "
            f"setsid {sys.executable} {SCRIPT} {arguments} >/dev/ttyS0 2>&1 </dev/null &"
        )
        judged = json.loads(self._await(r"^JUDGED (.*)$", BOOTED_S)[1])
        assert judged["broken"] == [], "\n".join(judged["broken"])
        self.control_lost += judged["control_lost"]

    def _said(self) -> str:
        """The console's lines that are whole by now."""
        console = self._guest.console().replace("\r", "")
        return console[: console.rfind("\n") + 1]

    def _await(self, pattern: str, timeout_s: float) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            console = self._said()
            if found := re.search(pattern, console, re.MULTILINE):
                return found
            assert "Traceback" not in console, console[-3000:]
            time.sleep(0.02)
        raise AssertionError(f"{pattern} never came: {console[-3000:]}")


def cut(directory: Path, seed: int, cuts: int) -> None:
    """So many cuts in mid-pass: nothing is lost but by the control, which must lose."""
    if why := why_no_rig():
        pytest.skip(why)
    campaign = PowerCuts(directory, seed)
    for _ in range(2 * cuts):
        campaign.one()
        if campaign.in_mid_pass == cuts:
            break
    campaign.judge_the_last()
    print(f"{campaign.in_mid_pass} power cuts in mid-pass: nothing lost")
    print(f"without fsync the same cuts lost {len(campaign.control_lost)} files")
    assert campaign.in_mid_pass == cuts
    assert campaign.control_lost


@pytest.mark.timeout(600)
def test_a_power_cut_in_mid_pass_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Once."""
    cut(tmp_path, seed, 1)


@pytest.mark.long
@pytest.mark.timeout(14400)
def test_thirty_power_cuts_in_mid_pass_lose_nothing(tmp_path: Path, seed: int) -> None:
    """One after another, on the same drives."""
    cut(tmp_path, seed, 30)
