"""The one who looks after a station, and is told of nothing but by ``status --json``.

What is done follows from the open notices, by the steps of docs/operators.md; a mishap
(mishaps.py) only says which drives are dead for good.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.campaigns.winter import PREFIXES, Station
from tests.helpers.rack import plug_in_again

CARGO = 6  # so many disks leave together
ROUNDS = 12  # of looking and acting, until nothing is left to be done
# How repair names a disk that it would need.
NOT_HERE = r"copy of .* is on ([^\s,]+), (?:which is not mounted|shipped)"
# What a pass ends by itself, once it has another chance.
PASSING = {"pass-crashed", "copy-failed", "not-removed", "no-good-copy"}


class Winterover:
    """Looks once a day, and does what the page says.

    ``dead``: labels of drives that stay dead in every slot. ``left``: names in the buffer about
    which nobody has decided yet.
    """

    def __init__(self, station: Station) -> None:
        self.station = station
        self.dead: set[str] = set()
        self.left: set[str] = set()
        # In this order: first every disk is brought to its place, and answers.
        self._steps: dict[str, Callable[[str, str], bool]] = {
            "disk-wrong": self._disk_wrong,
            "disk-missing": self._disk_missing,
            "disk-read-only": self._disk_read_only,
            "disk-error": self._disk_error,
            "paused": self._paused,
            "no-disk": self._spares_low,
            "spares-low": self._spares_low,
            "disk-closed": self._disk_closed,
            "copy-damaged": self._copy_damaged,
            "disk-differs": self._disk_differs,
            "name-conflict": self._name_conflict,
            "bad-name": self._bad_name,
        }

    def look_and_act(self) -> None:
        """Notices are followed, and passes go on, until nothing is left that one could do."""
        for _ in range(ROUNDS):
            seen = self.station.status("--json", check=0).json()
            notices = sorted(seen["notices"], key=self._urgency)
            done = [self._mount_what_is_in_use(seen), *map(self._follow, notices)]
            if not any(done):
                self._all_must_be_well(seen)
                return
            self.station.cron()
        raise AssertionError(f"they stay, whatever one does: {seen['notices']}")

    def _urgency(self, notice: dict[str, Any]) -> int:
        return [*PASSING, *self._steps].index(notice["kind"])

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

    def _disk_differs(self, label: str, _: str) -> bool:
        """What a killed run left in the manifest: it is over, or named, once all was read."""
        self.station.order("verify", label, check={0, 1})
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
        if key in self.station.in_state("active") and ".aside/" in text:
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
        """If it is refused: files there have no other copy, or a close was cut short."""
        station = self.station
        if station.order("ship", *labels, check={0, 2}).code:
            self.repair()
            with station.fetched(*labels, to_write=True):
                station.cron()
            station.order("ship", *labels)

    def _rename(self, name: str, to: str) -> None:
        self.station.ledger.rename(name, to)

    def close(self, label: str) -> None:
        """What was set aside is emptied first: those up north were asked."""
        aside = self.station.disks[label] / ".aside"
        self.station.counts["emptied .aside"] += aside.exists()
        shutil.rmtree(aside, ignore_errors=True)
        self.station.order("close", "--yes", label)

    def close_all(self) -> None:
        for label in self.station.in_state("active"):
            self.close(label)

    def give_up(self, label: str, why: str) -> None:
        """A dead drive: what it held is made again."""
        self.station.loops[label].force_off()
        self.station.order("lost", self.station.serials[label], "--why", why)
        self.station.throw_away(label)
        self.dead.discard(label)
        self.repair()

    def repair(self, *args: str) -> None:
        """With the disks from the shelf that it asks for, and spares if it finds no room."""
        station, here = self.station, set[str]()
        with ExitStack() as mounted:
            while (run := station.order("repair", *args, check={0, 1})).code:
                wanted = (
                    set(
                        re.findall(
                            r"copy of .* is on ([^\s,]+), (?:which is not mounted|shipped)", run.out
                        )
                    )
                    - here
                )
                mounted.enter_context(station.fetched(*wanted))
                here |= wanted
                station.counts["fetched for a repair"] += len(wanted)
                is_full = "No disk has room for" in run.out
                assert wanted or is_full, run.out
                if is_full:
                    for role in PREFIXES:
                        station.unpack(role)

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
