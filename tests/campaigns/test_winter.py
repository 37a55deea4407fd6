"""A season in an hour: a whole winter and the beginning of the next, on file systems of their own.

Day after day the telescope writes, something goes wrong, passes go on, and a winterover does what
the notices ask for (tests/campaigns: winter.py, mishaps.py, winterover.py; POLE_SEED draws the same
mishaps again, though not the same moments). Hundreds of small disks are filled, closed and shipped;
then labels start again on other drives. All of them are brought together at the end, and judged.

The clock is the real one: a day is as long as its passes take. What waits for its next try is
made due before each pass.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.campaigns.mishaps import DECK, Winter, left_to_others, quiet_day
from tests.campaigns.winter import PREFIXES, SPARES, Station, Telescope
from tests.campaigns.winterover import Winterover
from tests.helpers.invariants import sha512_of
from tests.helpers.loopdisks import MountedDisk, why_no_loop_disks
from tests.helpers.world import World

pytestmark = pytest.mark.root
MB = 1_000_000


@dataclass(frozen=True)
class Length:
    """How much happens: each mishap is the next card of a deck, shuffled when it is used up."""

    mishaps: int
    next_mishaps: int  # in the season after it
    bytes_each: int  # of the observation that comes with one, and of others with some
    check_each: int  # so many: the invariants of what is at hand; of all disks at the end


DISK_MB = 17  # of the image: 6 MB of an XFS, 3 MB of an ext4 are not for files
SHORT = Length(mishaps=len(DECK), next_mishaps=2, bytes_each=2 * MB, check_each=10)
LONG = Length(mishaps=18 * len(DECK), next_mishaps=2 * len(DECK), bytes_each=2 * MB, check_each=14)
SHORT_SEED = 7  # the short form is no lottery: the same mishaps each time
ROOM_BYTES = 6000 * MB  # more than all images of the long one
USED = ("active", "closed", "shipped")
FACTS = {
    "files": "SELECT name, size_bytes, sha512, archived_at IS NOT NULL FROM files",
    "copies": "SELECT f.name, d.serial, c.state, c.mtime_ns FROM copies c "
    "JOIN files f ON f.id = file_id JOIN disks d ON d.id = disk_id WHERE d.state <> 'lost'",
    "disks": "SELECT label, role, serial, logical_id, state, held_by FROM disks "
    "WHERE state NOT IN ('lost', 'spare')",
}


@pytest.fixture
def make_winter(tmp_path: Path, seed: int) -> Iterator[Callable[[Length], Winter]]:
    """``make_winter(SHORT)``, once a test: a station with its first disks, before the first day.

    In memory, if there is room.
    """
    if why := why_no_loop_disks():
        pytest.skip(why)
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM_BYTES
    with TemporaryDirectory(dir=memory if is_roomy else tmp_path) as place, ExitStack() as down:

        def make(length: Length) -> Winter:
            dice = random.Random(seed if length is LONG else SHORT_SEED)
            station = Station(Path(place), DISK_MB, dice)
            down.callback(station.close)
            telescope = Telescope(station, length.bytes_each)
            return Winter(station, telescope, Winterover(station))

        yield make


def live_through(winter: Winter, mishaps: int, check_each: int) -> None:
    """A season, from its first disks on."""
    for role in PREFIXES:
        for _ in range(1 + SPARES):
            winter.station.unpack(role)
    quiet_day(winter)
    cards = list(DECK)
    for number in range(mishaps):
        if number % len(cards) == 0:
            winter.station.dice.shuffle(cards)
        mishap = cards[number % len(cards)]
        print(f"season {winter.station.season}, {number}: {mishap.__name__}")
        mishap(winter)
        winter.winterover.look_and_act()
        if number % check_each == check_each - 1:
            winter.station.check()


def a_season_and_the_next(winter: Winter, length: Length) -> None:
    """What nobody decides on comes last; the disks in use by then were never in trouble."""
    live_through(winter, length.mishaps, length.check_each)
    winter.winterover.end_of_season()
    live_through(winter, length.next_mishaps, length.check_each)
    winter.winterover.close_all()
    left_to_others(winter)
    winter.winterover.look_and_act()


# --- the end ------------------------------------------------------------------------------


def judge_all(winter: Winter) -> None:
    """Every byte that came is in the buffer, and said why, or whole on two disks."""
    station = winter.station
    station.stored.clear()  # all are brought together
    station.check(finished=True)
    left = winter.winterover.left
    assert station.waiting() == left
    assert {row["name"] for row in station.sql("SELECT name FROM pending")} == left
    told = {(kind, key) for kind, key in station.notices() if kind != "disk-closed"}
    assert {key for _, key in told} == left
    assert {kind for kind, _ in told} == {"name-conflict", "bad-name"}
    assert station.sql("SELECT name FROM files WHERE archived_at IS NULL") == []
    is_lacking = "primary_serial IS NULL OR copy_serial IS NULL"  # of good copies
    assert station.sql(f"SELECT name FROM file_locations WHERE {is_lacking}") == []
    judge_flipped(winter)


def judge_flipped(winter: Winter) -> None:
    """Each copy that was harmed is known to be so (a good one may have come in its place): the
    ledger does not judge it, so it is read here."""
    rows = winter.station.sql(
        "SELECT d.serial, f.name, f.sha512, c.state FROM copies c JOIN files f ON f.id = file_id "
        "JOIN disks d ON d.id = disk_id WHERE d.state <> 'lost'"
    )
    with winter.station.places() as places:
        by_serial = {winter.station.serials.get(key, key): path for key, path in places.items()}
        for serial, name, sha512, state in rows:
            if (serial, name) in winter.flipped:
                is_whole = sha512_of(by_serial[serial] / "data" / name, medium=True) == sha512
                assert state == ("good" if is_whole else "damaged"), (serial, name)


# --- a database made from the disks -------------------------------------------------------


def rebuilt(winter: Winter) -> World:
    """A fresh place with nothing but the disks, mounted read-only where their labels belong.

    Labels stand once a season: the first one is read and noted as shipped, then the next.
    """
    station = winter.station
    anew = World(
        station.root / "anew",
        (),
        (),
        RequireMount="yes",
        AcceptUnidentifiedDrives="yes",
        BufferLocation=str(station.buffer),
    )
    anew.leave_unchecked("its disks are the station's, which were judged there")
    for loop in station.loops.values():
        loop.force_off()
    used = {label: station.loops[label] for label in station.in_state(*USED)}
    old = {key: loop for key, loop in station.loops.items() if key not in station.serials}
    for loops, gone in ((old, old), (used, station.in_state("shipped"))):
        read(anew, loops.values())
        labels = [loops[key].mount_point.name for key in gone]
        if labels:
            anew.run_pass("ship", *labels, check=0)
    return anew


def read(anew: World, loops: Collection[MountedDisk]) -> None:
    """The disks of one season, each at the place of its label, and every copy on them.

    Without the copies of the database that they carry: it is made of marks and manifests alone.
    """
    with ExitStack() as undo:
        for loop in loops:
            label = loop.mount_point.name
            disk = MountedDisk(loop.image, loop.device, anew.mounts / label)
            undo.callback(disk.force_off)
            disk.mount()
            (disk.mount_point / "catalogue.sqlite").unlink(missing_ok=True)
            disk.remount("ro")
        found = anew.run(
            "generate_db.py", "--from-disks", "--verify", "--json", check={0, 1}, timeout_s=1800
        ).json()
    assert len(found["disks"]) == len(loops)
    assert not found["not_used"] and not found["not_mounted"]
    for disk in found["disks"]:
        lists = ("missing", "lost", "damaged", "without_line", "differences", "faults")
        assert {key: disk[key] for key in lists if disk[key]} == {}, disk["label"]


def facts(world: World) -> dict[str, set[tuple[object, ...]]]:
    return {table: {tuple(row) for row in world.sql(query)} for table, query in FACTS.items()}


def compare(kept: World, anew: World) -> None:
    """Row for row the same, in all that disks can tell: FACTS.

    Not compared, for it is nowhere on the disks, or not in this form: when a copy was written (a
    rebuilt database takes the time at which its inode was last changed), when a file was archived
    (when it was registered) and removed from the buffer, when a disk was used and measured; when
    a copy was last read, for the rebuilt database has a reading of its own. Disks that were lost,
    with all that was on them, and spares that were never used are not there to be read. Events,
    passes, pauses, notices and pending files are the station's.
    """
    old, new = facts(kept), facts(anew)
    for table in FACTS:
        assert old[table] - new[table] == set(), f"{table}: not made again"
        assert new[table] - old[table] == set(), f"{table}: only in the rebuilt database"
    states = Counter(row[2] for row in old["copies"])
    print(f"{len(old['files'])} files on {len(old['disks'])} disks, copies: {dict(states)}")


# --- the tests ----------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_nothing_is_lost_in_a_winter_and_the_disks_tell_all_of_it(
    make_winter: Callable[[Length], Winter],
) -> None:
    """Each mishap once, and two in the next season."""
    all_of_it(make_winter(SHORT), SHORT)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_nothing_is_lost_in_a_winter_of_hundreds_of_disks(
    make_winter: Callable[[Length], Winter],
) -> None:
    """Each mishap twenty times, at other moments, in another order."""
    all_of_it(make_winter(LONG), LONG)


def all_of_it(winter: Winter, length: Length) -> None:
    """Live through it, judge every disk, and compare what they tell with the kept database."""
    a_season_and_the_next(winter, length)
    judge_all(winter)
    compare(winter.station, rebuilt(winter))
    winter.station.leave_unchecked("it was judged, with all its disks")
    for what, count in sorted(winter.station.counts.items()):
        print(f"{count:6} {what}")
