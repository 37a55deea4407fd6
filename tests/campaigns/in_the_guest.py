"""Inside the guest of a power cut: judge what the last cut left, then work until the next one.

Two stations, each with drives of its own. The honest one is as it is; in the control every fsync
is pretended. What happens is said on the console, a line each, for it outlives the guest:

    JUDGED {…}            what was found after the boot
    WILL name bytes       a file is about to come into the honest buffer
    PUT name              it is there, durably
    BEGIN n, END n code   a pass of the honest station
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.campaigns.shim import FOR_EVER, PRETEND, Call, Forked, Rule
from tests.helpers.invariants import InvariantsBroken, Ledger, check_invariants

BASE = Path("/tmp/cut")
DRIVES = {"buffer": "BUF", "db": "DB", "spt_disks/P01": "P01", "spt_disks/S01": "S01"}
STATIONS = {"honest": "H", "control": "C"}
# The buffer forgets a file within a second; a disk that nobody syncs remembers nothing for long.
OPTIONS = {"buffer": "commit=1", "db": "commit=1", "spt_disks/S01": "commit=300"}
NEVER = "vm.dirty_writeback_centisecs=0 vm.dirty_expire_centisecs=360000"
NEVER += " fs.xfs.xfssyncd_centisecs=720000"
NO_SYNC = Rule(Call("fsync,fdatasync,syncfs,writeout", "*"), PRETEND, 1, FOR_EVER)
SIZES = (900, 70_001, (1 << 20) + 4097, 0, 4096)
CONFIG = """\
[station]
FilenameDB = {root}/db/pole.sqlite
BufferLocation = {root}/buffer
Extension = g3
DiskMountPoints = {root}/spt_disks
SettleTime = 0 s
MinFreeSpace = 0
NoNewFilesAfter = 0
"""


def serial(station: str, place: str) -> str:
    """Of the virtio drive that belongs there."""
    return f"{STATIONS[station]}{DRIVES[place]}0001"


def say(*words: object) -> None:
    print(*words, flush=True)


class GuestStation:
    """One of the two, on its own drives."""

    def __init__(self, name: str, scripts: Forked) -> None:
        self.name, self.root = name, BASE / name
        self._scripts = scripts
        self.buffer, self.db_path = self.root / "buffer", self.root / "db/pole.sqlite"
        self.config = self.root / "station.config"
        self.disks = {label: self.root / "spt_disks" / label for label in ("P01", "S01")}

    def mount(self, devices: dict[str, str]) -> None:
        for place in DRIVES:
            (self.root / place).mkdir(parents=True)
            device = devices[serial(self.name, place)]
            options = OPTIONS.get(place, "defaults")
            subprocess.run(["mount", "-o", options, device, self.root / place], check=True)
        self.config.write_text(CONFIG.format(root=self.root))
        if not self.db_path.exists():
            self._generate()

    def _generate(self) -> None:
        lines = [
            f"{label} {serial(self.name, f'spt_disks/{label}')} 0x5000c500{number:08x}\n"
            for number, label in enumerate(self.disks, start=1)
        ]
        disk_map = self.root / "disk-map"
        disk_map.write_text("".join(lines))
        outcome = self._run("generate_db.py", "--disk-map", str(disk_map))
        assert outcome[0] == 0, outcome

    def run_pass(self, rule: Rule | None = None) -> int:
        code, err = self._run("data_manager.py", rule=rule)
        if code:
            say("SAID", code, err, (self.root / "db/data_manager.log").read_text()[-1500:])
        return code

    def _run(self, script: str, *args: str, rule: Rule | None = None) -> tuple[int, str]:
        words = ["--config", str(self.config), *args]
        outcome = self._scripts.run(script, words, {"all": self.root}, rule)
        return outcome.code, outcome.err

    def put(self, name: str, size_bytes: int) -> None:
        """A file of the telescope's: whole and durable under its name, or not there."""
        part = self.buffer / f"{name}.part"
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(content_of(name, size_bytes))
        _fsync(part)
        part.rename(self.buffer / name)
        _fsync(part.parent)
        _fsync(self.buffer)


def content_of(name: str, size_bytes: int) -> bytes:
    """The same in every boot."""
    seed = hashlib.sha512(name.encode()).digest()
    return (seed * (size_bytes // len(seed) + 1))[:size_bytes]


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


# --- after the boot -----------------------------------------------------------------------


def judge(station: GuestStation, files: dict[str, dict[str, Any]], boot: int) -> list[str]:
    """What breaks a promise, after the cut, and after the clean pass that follows.

    A further file comes before that pass, so that it uses the disks, and clears them up.
    """
    broken = _violations(station, files, finished=False)
    # The database may outlive the removal that it notes: the file is then back, and known again.
    broken = [line for line in broken if "was removed, but is in the buffer" not in line]
    files[come(station, f"after{boot}/0000.g3")] = {"size_bytes": SIZES[0], "is_put": True}
    code = station.run_pass()
    if code != 0:
        broken.append(f"the pass after the cut ended with {code}")
    broken += _violations(station, files, finished=True)
    waiting = [path.name for path in station.buffer.rglob("*.g3")]
    return broken + [f"{name} still waits" for name in waiting]


def _violations(
    station: GuestStation, files: dict[str, dict[str, Any]], finished: bool
) -> list[str]:
    with TemporaryDirectory() as scratch:
        ledger = _ledger(station, files, Path(scratch))
        try:
            disks, buffer = station.disks, station.buffer
            check_invariants(ledger, buffer, station.db_path, disks, finished=finished)
        except InvariantsBroken as broken:
            return str(broken).splitlines()[1:]
    return []


def _ledger(station: GuestStation, files: dict[str, dict[str, Any]], scratch: Path) -> Ledger:
    """Everything that came; what may not have come before the cut is known, but not owed."""
    ledger = Ledger(station.buffer)
    for name, file in files.items():
        path = scratch / "content"
        path.write_bytes(content_of(name, file["size_bytes"]))
        ledger.saw(name, path)
        if not file["is_put"]:
            ledger.withdraw(name, "the cut may have come before it")
    return ledger


def lost(station: GuestStation, names: list[str]) -> list[str]:
    """Files whose bytes are nowhere any more: neither in the buffer nor whole on any disk."""
    return [name for name in names if not any(_is_whole(p) for p in _places(station, name))]


def _places(station: GuestStation, name: str) -> Iterator[Path]:
    yield station.buffer / name
    for disk in station.disks.values():
        yield disk / "data" / name


def _is_whole(path: Path) -> bool:
    name = "/".join(path.parts[-2:])
    size_bytes = SIZES[int(path.stem) % len(SIZES)]
    return path.exists() and path.read_bytes() == content_of(name, size_bytes)


# --- work, until the lights go out --------------------------------------------------------


def work(stations: dict[str, GuestStation], boot: int) -> None:
    for number in range(10_000):
        names = [f"b{boot}/{number * len(SIZES) + i:04}.g3" for i in range(len(SIZES))]
        for name, size_bytes in zip(names, SIZES, strict=True):
            stations["control"].put(name, size_bytes)
        say("CONTROL", stations["control"].run_pass(NO_SYNC), *names)
        for name in names:
            come(stations["honest"], name)
        say("BEGIN", number)
        say("END", number, stations["honest"].run_pass())


def come(station: GuestStation, name: str) -> str:
    """A file comes into the honest buffer, and the console hears of it."""
    size_bytes = SIZES[int(Path(name).stem) % len(SIZES)]
    say("WILL", name, size_bytes)
    station.put(name, size_bytes)
    say("PUT", name)
    return name


def devices() -> dict[str, str]:
    """Serial → device of every virtio drive."""
    found = Path("/sys/block").glob("vd*/serial")
    return {path.read_text().strip(): f"/dev/{path.parent.name}" for path in found}


def main() -> None:
    """``in_the_guest.py BOOT SHIM TOLD``: TOLD is what earlier boots said, gathered as JSON."""
    boot, library, told = (
        int(sys.argv[1]),
        Path(sys.argv[2]),
        json.loads(Path(sys.argv[3]).read_text()),
    )
    subprocess.run(["sysctl", "-q", "-w", *NEVER.split()], check=True)
    scratch = BASE / "scratch"
    scratch.mkdir(parents=True)
    with closing(Forked(library, scratch)) as scripts:
        stations = {name: GuestStation(name, scripts) for name in STATIONS}
        for station in stations.values():
            station.mount(devices())
        broken = judge(stations["honest"], told["files"], boot) if told["files"] else []
        gone = lost(stations["control"], told["control"])
        say("JUDGED", json.dumps({"broken": broken, "control_lost": gone}))
        work(stations, boot)


if __name__ == "__main__":
    main()
