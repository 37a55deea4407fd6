"""A station through a winter: its disks, its shelf, and the telescope that fills them."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bagit

from tests.helpers.invariants import Entry
from tests.helpers.loopdisks import LoopWorld
from tests.helpers.world import Run

PREFIXES = {"primary": "P", "copy": "S"}
FILE_SYSTEMS = {"primary": "xfs", "copy": "ext4"}
SPARES = 2


class Station(LoopWorld):
    """A world whose full disks go to a shelf, and in lots to a ship; new ones come from a box.

    ``stored``: serials of those that were taken out. A disk of a season that is over is known
    by its serial, for its label is another one's by then.
    """

    def __init__(self, place: Path, disk_mb: int, dice: random.Random) -> None:
        self.stored: set[str] = set()
        super().__init__(place, (), (), MinFreeSpace="1 MB", SpareDisksLow=str(SPARES))
        self.disk_mb, self.dice, self.season = disk_mb, dice, 0
        self.counts: Counter[str] = Counter()
        self.pass_s = 1.0  # how long the last one took
        self._last_number: Counter[str] = Counter()

    # --- disks ---

    def unpack(self, role: str) -> str:
        """A new drive from the box: label, disk-map, file system, mount."""
        self._last_number[role] += 1
        label = f"{PREFIXES[role]}{self._last_number[role]:02}"
        # The letter at its end: a serial must not be the beginning of another one.
        self.add_disk(label, f"Y{self.season}{label}Z")
        self.plug_in(label, size_mb=self.disk_mb, fs=FILE_SYSTEMS[role])
        self.generate()
        self.counts["drives unpacked"] += 1
        return label

    def take_out(self, label: str) -> None:
        """A closed disk goes to the shelf; by BagIt's own program all is well with it."""
        bagit.Bag(str(self.disks[label])).validate()
        self.loops[label].umount()
        self.stored.add(self.serials[label])

    def throw_away(self, label: str) -> None:
        """A drive that is noted as lost, or was never used, and its line in the disk-map."""
        self.loops.pop(label).destroy()
        self.stored.discard(self.serials.pop(label))
        del self.disks[label]

    def next_season(self) -> None:
        """All labels are free: they start again, with other drives."""
        self.season += 1
        self._last_number.clear()
        for label, serial in self.serials.items():
            self.loops[serial] = self.loops.pop(label)
        self.serials.clear()
        self.disks.clear()

    def in_state(self, *states: str, role: str = "%") -> list[str]:
        """Labels of this season's disks."""
        rows = self.sql("SELECT label, serial, state FROM disks WHERE role LIKE ?", role)
        own = [row for row in rows if self.serials.get(row["label"]) == row["serial"]]
        return [row["label"] for row in own if row["state"] in states]

    def in_use(self) -> list[str]:
        return [label for label in self.in_state("active") if self.loops[label].is_mounted]

    def on_the_shelf(self) -> list[str]:
        return [label for label, serial in self.serials.items() if serial in self.stored]

    @contextmanager
    def fetched(self, *labels: str, to_write: bool = False) -> Iterator[None]:
        """Disks from the shelf, at their places for a while."""
        away = [label for label in labels if not self.loops[label].is_mounted]
        for label in away:
            self.loops[label].mount() if to_write else self.loops[label].mount_to_read()
        yield
        for label in away:
            self.loops[label].umount()

    # --- runs ---

    def order(self, *args: str, check: int | set[int] = 0) -> Run:
        """A command of a person."""
        self.counts[f"dm {args[0]}"] += 1
        return self.run_pass(*args, check=check)

    def cron(self) -> Run:
        """A pass, an hour after the last one: what failed then is due."""
        self.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")
        began = time.monotonic()
        run = self.run_pass(check={0, 1})
        self.pass_s = time.monotonic() - began
        self.counts["passes"] += 1
        return run

    def halfway(self, *args: str) -> subprocess.Popen[str]:
        """A pass, or a command, as it is at some moment of its work, or just after."""
        process = self.start("data_manager.py", *args)
        try:
            process.wait(timeout=self.dice.uniform(0.2, 1.0) * self.pass_s)
        except subprocess.TimeoutExpired:
            self.counts["caught in the middle"] += 1
        return process

    def kill_halfway(self, *args: str) -> None:
        process = self.halfway(*args)
        self.kill(process)
        self.counts["killed"] += process.returncode == -signal.SIGKILL

    # --- judging ---

    @contextmanager
    def places(self) -> Iterator[dict[str, Path]]:
        """What is on the shelf is looked at when all is brought together, at the end."""
        here = {k: v for k, v in self.loops.items() if self.serials.get(k, k) not in self.stored}
        away, self.loops = self.loops, here
        try:
            with super().places() as places:
                yield places
        finally:
            self.loops = away

    def check(self, **options: Any) -> None:
        """``finished``: every disk was used since something was left unfinished on it."""
        options.setdefault("finished", False)
        super().check(away=self.stored, **options)


# --- the telescope ------------------------------------------------------------------------


class Telescope:
    """Writes files of many sizes, some of them very small, deep in directories or not."""

    def __init__(self, station: Station, bytes_each: int) -> None:
        self.station, self.bytes_each = station, bytes_each
        self.written: list[Entry] = []
        self._observation = 80_296_950

    def observe(self) -> list[Entry]:
        """One observation."""
        dice, todo_bytes, entries = self.station.dice, self.bytes_each, list[Entry]()
        self._observation += 1
        above = dice.choice(("fullrate/RCW38", "downsampled", "calframe/Mars/a"))
        while todo_bytes > 0:
            name = f"{above}/{self._observation}/{len(entries):04}.g3"
            size_bytes = dice.choice((0, 1, 4096, *(dice.randrange(900_000) for _ in range(9))))
            entries.append(self.station.put(name, size_bytes))
            todo_bytes -= size_bytes
        self.written += entries
        return entries
