"""A station through a winter: its disks, its shelf, the telescope, and the one who looks after it.

Nothing here knows of a mishap when it happens (they are in mishaps.py): what the winterover does
follows from ``status --json`` and the open notices, by the steps of docs/operators.md.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bagit

from tests.invariants import Entry
from tests.loopdisks import LoopWorld
from tests.test_filling import plug_in_again
from tests.world import Run

PREFIXES = {"primary": "P", "copy": "S"}
FILE_SYSTEMS = {"primary": "xfs", "copy": "ext4"}
SPARES = 2
CARGO = 6  # so many disks leave together
ROUNDS = 12  # of looking and acting, till a day is over
# What a pass ends by itself, once it has another chance.
PASSING = {"pass-crashed", "copy-failed", "not-removed", "no-good-copy"}


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
        self.add_disk(label, f"Y{self.season}{label}")
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
    def fetched(self, *labels: str, options: str = "ro") -> Iterator[None]:
        """Disks from the shelf, at their places for a while."""
        for label in labels:
            self.loops[label].mount(options=options)
        yield
        for label in labels:
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

    def __init__(self, station: Station, bytes_a_day: int) -> None:
        self.station, self.bytes_a_day = station, bytes_a_day
        self.written: list[Entry] = []
        self._observation = 80_296_950

    def observe(self) -> list[Entry]:
        """One day's observation."""
        dice, todo_bytes, entries = self.station.dice, self.bytes_a_day, list[Entry]()
        self._observation += 1
        above = dice.choice(("fullrate/RCW38", "downsampled", "calframe/Mars/a"))
        while todo_bytes > 0:
            name = f"{above}/{self._observation}/{len(entries):04}.g3"
            size_bytes = dice.choice((0, 1, 4096, *(dice.randrange(900_000) for _ in range(9))))
            entries.append(self.station.put(name, size_bytes))
            todo_bytes -= size_bytes
        self.written += entries
        return entries


# --- the winterover -----------------------------------------------------------------------


class Winterover:
    """Looks once a day, and does what the page says.

    ``dead``: labels of drives that stay dead in every slot. ``left``: names in the buffer about
    which nobody has decided yet.
    """

    def __init__(self, station: Station) -> None:
        self.station = station
        self.dead: set[str] = set()
        self.left: set[str] = set()
        self._steps: dict[str, Callable[[str, str], bool]] = {
            "disk-closed": self._disk_closed,
            "spares-low": self._spares_low,
            "no-disk": self._spares_low,
            "disk-missing": self._disk_missing,
            "disk-wrong": self._disk_wrong,
            "disk-error": self._disk_error,
            "disk-read-only": self._disk_read_only,
            "copy-damaged": self._copy_damaged,
            "name-conflict": self._name_conflict,
            "bad-name": self._bad_name,
            "paused": self._paused,
        }

    def daily_look(self) -> None:
        """Notices are followed, and passes go on, until nothing is left that one could do."""
        for _ in range(ROUNDS):
            seen = self.station.status("--json", check=0).json()
            done = [self._mount_what_is_in_use(seen), *map(self._follow, seen["notices"])]
            if not any(done):
                self._all_must_be_well(seen)
                return
            self.station.cron()
        raise AssertionError(f"they stay, whatever one does: {seen['notices']}")

    def _mount_what_is_in_use(self, seen: dict[str, Any]) -> bool:
        """Also where no notice says it, for no file was meant for that disk."""
        away = [
            one["disk"]["label"]
            for one in seen["disks"]
            if one["disk"]["state"] == "active" and not one["is_mounted"]
        ]
        for label in away:
            self.station.loops[label].mount()
        return bool(away)

    def _follow(self, notice: dict[str, Any]) -> bool:
        """Whether there was something to do."""
        kind, key = notice["kind"], notice["key"]
        if kind in PASSING:
            return True
        self.station.counts[f"seen: {kind}"] += 1
        return self._steps[kind](key, notice["text"])

    def _all_must_be_well(self, seen: dict[str, Any]) -> None:
        """Nothing waits but what a person has to decide on; nothing lacks a copy."""
        assert seen["lacking_copies"] == seen["without_good_copy"] == 0, seen
        assert self.station.waiting() == self.left, self.station.log()[-3000:]
        assert not seen["pause"]
        here = [one["disk"] for one in seen["disks"] if one["disk"]["state"] == "active"]
        assert not [disk["label"] for disk in here if disk["held_by"]]

    # --- by the notice ---

    def _disk_closed(self, label: str, _: str) -> bool:
        """Taking out a full disk; a lot of them leaves."""
        station = self.station
        if station.serials[label] in station.stored:
            return False
        station.take_out(label)
        waiting = [one for one in station.on_the_shelf() if one in station.in_state("closed")]
        if len(waiting) >= CARGO:
            self._ship(waiting)
        return True

    def _spares_low(self, role: str, _: str) -> bool:
        self.station.unpack(role)
        return True

    def _disk_missing(self, label: str, _: str) -> bool:
        if not self.station.loops[label].is_mounted:
            self.station.loops[label].mount()
        return True

    def _disk_wrong(self, _label: str, _text: str) -> bool:
        """Whatever is at another's place is mounted at its own: the stickers say which."""
        loops, places = self.station.loops, self.station.disks
        wrong = [one for one in places if loops[one].mount_point != places[one]]
        for label in wrong:
            loops[label].umount()
        for label in wrong:
            loops[label].mount(at=places[label])
        return True

    def _disk_error(self, label: str, _: str) -> bool:
        """Another slot, another cable: it works again, or it is dead."""
        station = self.station
        if label in self.dead:
            self.give_up(label, "no longer spins up")
            return True
        plug_in_again(station, label)
        station.cron()
        station.order("verify", label, check={0, 1})
        is_held = "SELECT 1 FROM disks WHERE serial = ? AND held_by IS NOT NULL"
        if station.sql(is_held, station.serials[label]):
            station.order("unhold", label)
        return True

    def _disk_read_only(self, label: str, _: str) -> bool:
        self.station.loops[label].remount("rw")
        return True

    def _copy_damaged(self, key: str, text: str) -> bool:
        if key in self.station.serials and ".aside/" in text:
            self.close(key)
        else:
            self.repair()
        return True

    def _name_conflict(self, name: str, _: str) -> bool:
        """Both are wanted. What was set aside on a disk stays there till that is closed."""
        if name in self.left or not (self.station.buffer / name).is_file():
            return False
        self._rename(name, f"{name.removesuffix('.g3')}-other.g3")
        return True

    def _bad_name(self, name: str, _: str) -> bool:
        if name in self.left:
            return False
        self._rename(name, name.replace("%", "-"))
        return True

    def _paused(self, _key: str, _text: str) -> bool:
        self.station.order("resume")
        return True

    # --- more than one step ---

    def _ship(self, labels: list[str]) -> None:
        """One whose close was cut short is mounted for the next pass to finish it."""
        station = self.station
        if station.order("ship", *labels, check={0, 2}).code:
            with station.fetched(*labels, options="rw"):
                station.cron()
            station.order("ship", *labels)

    def _rename(self, name: str, to: str) -> None:
        self.station.ledger.rename(name, to)

    def close(self, label: str) -> None:
        """What was set aside is emptied first: those up north were asked."""
        aside = self.station.disks[label] / ".aside"
        self.station.counts["emptied .aside"] += aside.exists()
        shutil.rmtree(aside, ignore_errors=True)
        self.station.order("close", label)

    def close_all(self) -> None:
        for label in self.station.in_state("active"):
            self.close(label)

    def give_up(self, label: str, why: str) -> None:
        """A dead drive: what it held is made again."""
        self.station.order("lost", self.station.serials[label], "--why", why)
        self.station.throw_away(label)
        self.dead.discard(label)
        self.repair()

    def repair(self, *args: str) -> None:
        """With the disks from the shelf that it asks for."""
        station = self.station
        run = station.order("repair", *args, check={0, 1})
        wanted = set(re.findall(r"could be copied from (\S+): mount it", run.out))
        if "found no disk: mount a spare" in run.out:
            for role in PREFIXES:
                station.unpack(role)
        if run.code:
            station.counts["fetched for a repair"] += len(wanted)
            with station.fetched(*wanted):
                station.order("repair", *args)

    def end_of_season(self) -> None:
        """Every disk in use is closed, all leave, and the spares go back into the box."""
        station = self.station
        self.close_all()
        for label in station.in_state("closed"):
            if station.serials[label] not in station.stored:
                station.take_out(label)
        self._ship(station.in_state("closed"))
        for label in station.in_state("spare"):
            station.order("forget", label)
            station.throw_away(label)
        assert station.disk_states() == {}
        station.next_season()
