"""What happens to a station in a winter: one of these a day, drawn like cards from a deck.

Each comes with a day's observation and with the passes that meet it. It mends nothing: that is
for the winterover, who was not told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.campaigns.winter import Station, Telescope
from tests.campaigns.winterover import Winterover
from tests.helpers.invariants import Entry
from tests.helpers.rack import plug_in_again, pull

COPIES = """
    SELECT name, size_bytes, c.state FROM copies c JOIN files f ON f.id = file_id
    JOIN disks d ON d.id = disk_id WHERE d.serial = ?"""


@dataclass
class Winter:
    """All who take part; ``flipped`` are the copies in which a bit was turned: serial, name."""

    station: Station
    telescope: Telescope
    winterover: Winterover
    flipped: set[tuple[str, str]] = field(default_factory=set)

    def pick(self, labels: list[str]) -> str:
        return self.station.dice.choice(labels)

    def old_file(self) -> Entry | None:
        """One that left the buffer long ago."""
        return self.station.dice.choice(self.telescope.written or [None])

    def turn_a_bit(self, label: str) -> None:
        """Of some good copy on this disk, below everybody's feet; then somebody reads the disk."""
        serial, dice = self.station.serials[label], self.station.dice
        rows = self.station.sql(f"{COPIES} AND size_bytes >= 4096 AND c.state = 'good'", serial)
        if not rows:
            return
        name, size_bytes, _ = dice.choice(rows)
        self.station.loops[label].flip_bit(f"data/{name}", dice.randrange(size_bytes))
        self.station.ledger.spoiled(serial, name, "a bit of it was turned")
        self.flipped.add((serial, name))
        self.station.order("verify", serial, check=1)
        states = {name: state for name, _, state in self.station.sql(COPIES, serial)}
        assert states[name] == "damaged"


# --- the program, and the power -----------------------------------------------------------


def killed(winter: Winter) -> None:
    """SIGKILL in mid-pass, up to three times running."""
    winter.telescope.observe()
    for _ in range(winter.station.dice.randint(1, 3)):
        winter.station.kill_halfway()
    winter.station.cron()


def killed_while_closing(winter: Winter) -> None:
    """A person closes a disk, and the power is gone."""
    quiet_day(winter)
    winter.station.kill_halfway("close", "--yes", winter.pick(winter.station.in_use()))
    winter.station.cron()


def killed_while_repairing(winter: Winter) -> None:
    """A bit is turned, somebody reads the disk and has it mended, and the power is gone."""
    quiet_day(winter)
    winter.turn_a_bit(winter.pick(winter.station.in_use()))
    winter.station.kill_halfway("repair")
    winter.station.cron()


def brownout(winter: Winter) -> None:
    """Every disk in use is away for a moment, in mid-pass, and the machine restarts."""
    station = winter.station
    quiet_day(winter)
    winter.telescope.observe()
    process = station.halfway()
    pull(station, *(labels := station.in_use()))
    station.kill(process)
    station.cron()
    unless_told(station, labels)


# --- disks --------------------------------------------------------------------------------


def pulled(winter: Winter) -> None:
    """A disk in use answers no more, in mid-pass: a loose cable. So for up to three passes."""
    station = winter.station
    quiet_day(winter)
    winter.telescope.observe()
    process = station.halfway()
    pull(station, label := winter.pick(station.in_use()))
    process.wait(timeout=100)
    for _ in range(station.dice.randint(0, 2)):
        quiet_day(winter)
    unless_told(station, [label])


def unless_told(station: Station, labels: list[str]) -> None:
    """No file was meant for such a disk, so nobody is sent to the rack: it comes back by itself."""
    for label in labels:
        if ("disk-error", label) not in station.notices():
            plug_in_again(station, label)


def unmounted(winter: Winter) -> None:
    """Somebody unmounts the wrong disk, in mid-pass."""
    station = winter.station
    quiet_day(winter)
    winter.telescope.observe()
    process = station.halfway()
    station.loops[winter.pick(station.in_use())].lazy_unmount()
    process.wait(timeout=100)
    quiet_day(winter)


def swapped(winter: Winter) -> None:
    """A disk in use and a spare, each at the other's place."""
    station = winter.station
    quiet_day(winter)
    label = winter.pick(station.in_use())
    role = "primary" if label in station.in_state("active", role="primary") else "copy"
    other = winter.pick(station.in_state("spare", role=role))
    for one in (label, other):
        station.loops[one].umount()
    station.loops[label].mount(at=station.disks[other])
    station.loops[other].mount(at=station.disks[label])
    quiet_day(winter)


def read_only(winter: Winter) -> None:
    """Somebody mounts a disk in use read-only."""
    quiet_day(winter)
    winter.station.loops[winter.pick(winter.station.in_use())].remount("ro")
    quiet_day(winter)


def dies(winter: Winter) -> None:
    """A disk in use, for good."""
    quiet_day(winter)
    label = winter.pick(winter.station.in_use())
    winter.winterover.dead.add(label)
    pull(winter.station, label)
    quiet_day(winter)
    if ("disk-error", label) not in winter.station.notices():  # no file was meant for it
        winter.winterover.give_up(label, "it clicks")


def falls_from_the_shelf(winter: Winter) -> None:
    """A full disk that was taken out, perhaps shipped."""
    quiet_day(winter)
    if labels := winter.station.on_the_shelf():
        winter.winterover.give_up(winter.pick(labels), "it fell down")


def not_trusted(winter: Winter) -> None:
    """A disk in use rattles: what it holds is copied elsewhere, then it is given up."""
    station, label = winter.station, winter.pick(winter.station.in_use())
    station.order("hold", "--yes", label, "--why", "it rattles")
    quiet_day(winter)
    winter.winterover.repair(label)
    winter.winterover.give_up(label, "it rattled")


def rots(winter: Winter) -> None:
    """A bit of a copy on a disk in use; somebody reads that disk."""
    quiet_day(winter)
    winter.turn_a_bit(winter.pick(winter.station.in_use()))


def rots_on_the_shelf(winter: Winter) -> None:
    """A bit of a copy on a disk that was taken out; somebody reads that disk."""
    quiet_day(winter)
    if labels := winter.station.on_the_shelf():
        label = winter.pick(labels)
        with winter.station.fetched(label):
            winter.turn_a_bit(label)


def held(winter: Winter) -> None:
    """A disk is taken out for a day, for its slot is dirty, and comes back."""
    station, label = winter.station, winter.pick(winter.station.in_use())
    station.order("hold", "--yes", label, "--why", "dirty slot")
    station.loops[label].umount()
    quiet_day(winter)
    station.loops[label].mount()
    station.order("verify", label)
    station.order("unhold", label)


def closed_early(winter: Winter) -> None:
    """Somebody closes a disk that is not full."""
    quiet_day(winter)
    winter.winterover.close(winter.pick(winter.station.in_use()))


# --- people and files ---------------------------------------------------------------------


def paused(winter: Winter) -> None:
    """Work at the rack: passes do nothing."""
    station = winter.station
    station.order("pause", "--why", "a new shelf", "--for", "4h")
    names = {entry.name for entry in winter.telescope.observe()}
    before = [station.snapshot(station.disks[label]) for label in station.in_use()]
    station.cron()
    assert names <= station.waiting()
    station.check(must_be_untouched=before)


def comes_again(winter: Winter) -> None:
    """A file that was archived long ago, with the same content."""
    if old := winter.old_file():
        winter.station.put(old.name, old.size_bytes)
    quiet_day(winter)


def other_content(winter: Winter) -> None:
    """A name that was archived comes with something else in it."""
    if old := winter.old_file():
        winter.station.put(old.name, 5000, seed=winter.station.dice.randrange(1, 10**9))
    quiet_day(winter)


def bad_name(winter: Winter) -> None:
    """One that no list of checksums can carry."""
    entry = winter.telescope.observe()[0]
    winter.station.put(f"{entry.name.removesuffix('.g3')}-100%.g3", 3000)
    winter.station.cron()


def still_open(winter: Winter) -> None:
    """A file that is being written while a pass runs: nothing of it is taken, all of it later."""
    station = winter.station
    entry = winter.telescope.observe()[0]
    name = f"{entry.name.removesuffix('.g3')}-slow.g3"
    with open(station.buffer / name, "wb") as writer:
        writer.write(b"first half, ")
        writer.flush()
        station.cron()
        assert station.waiting() == {name} | winter.winterover.left
        writer.write(b"second half")
    station.ledger.saw(name)
    station.cron()


def quiet_day(winter: Winter) -> None:
    """Nothing but an observation, and a pass."""
    winter.telescope.observe()
    winter.station.cron()


def left_to_others(winter: Winter) -> None:
    """At the very end: what nobody has decided on stays in the buffer, and says why."""
    old, bad = winter.old_file(), "fullrate/who knows 50%.g3"
    assert old
    winter.winterover.left |= {old.name, bad}
    winter.station.put(old.name, 77, seed=1)
    winter.station.put(bad, 78)
    quiet_day(winter)


DECK: tuple[Callable[[Winter], None], ...] = (
    killed,
    killed_while_closing,
    killed_while_repairing,
    brownout,
    pulled,
    unmounted,
    swapped,
    read_only,
    dies,
    falls_from_the_shelf,
    not_trusted,
    rots,
    rots_on_the_shelf,
    held,
    closed_early,
    paused,
    comes_again,
    other_content,
    bad_name,
    still_open,
    quiet_day,
)
