"""Which disk takes a file, and how many files go in one batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.disks.free_space import (
    BATCH_BYTES,
    BATCH_FILES,
    FILE_OVERHEAD_BYTES,
    BatchLimit,
    Room,
    cost_bytes,
    fullest_that_fits,
    in_order_of_use,
)
from poledata.formatting import label_key
from poledata.models import Disk, DiskState, FileStat, Role, Waiting

GB = 10**9


def cost_inodes(name: str) -> int:
    return Waiting(name, FileStat(0, 0, 1, 0, 0), 0o644).cost_inodes


def disk(
    label: str,
    state: DiskState = DiskState.SPARE,
    role: Role = Role.PRIMARY,
    held_by: str | None = None,
) -> Disk:
    return Disk(
        id=hash(label),
        label=label,
        role=role,
        serial=f"Z{label}",
        logical_id="0x5000c500858bfea7",
        state=state,
        held_by=held_by,
    )


def room(label: str, room_bytes: int) -> Room:
    return Room(disk(label, DiskState.ACTIVE), room_bytes)


def order(*disks: Disk, role: Role = Role.PRIMARY) -> list[str]:
    return [each.label for each in in_order_of_use(disks, role)]


def test_spares_that_passed_an_extended_self_test_come_first() -> None:
    """An untested one rather than none; what is in use stays first."""
    disks = [disk("P01", DiskState.ACTIVE), *map(disk, ["P02", "P03", "P04"])]
    tested = {hash("P04")}
    order = [each.label for each in in_order_of_use(disks, Role.PRIMARY, tested)]
    assert order == ["P01", "P04", "P02", "P03"]


# --- the order of use -----------------------------------------------------------------------


def test_the_lowest_label_comes_first_by_its_number() -> None:
    """P2 before P10, however the labels are padded and listed."""
    assert order(*map(disk, ["P10", "P2", "P01", "P100"])) == ["P01", "P2", "P10", "P100"]


def test_a_disk_in_use_comes_before_any_spare() -> None:
    """A spare is opened only when nothing in use has room."""
    used = disk("P09", DiskState.ACTIVE)
    assert order(disk("P01"), used, disk("P02")) == ["P09", "P01", "P02"]


@pytest.mark.parametrize("state", [DiskState.CLOSED, DiskState.SHIPPED, DiskState.LOST])
def test_a_disk_whose_life_is_over_takes_nothing(state: DiskState) -> None:
    """Nothing alters a closed bag; a shipped or lost disk is not there."""
    assert order(disk("P01", state), disk("P02")) == ["P02"]


@pytest.mark.parametrize("held_by", ["person", "machine"])
@pytest.mark.parametrize("state", [DiskState.ACTIVE, DiskState.SPARE])
def test_a_held_disk_takes_nothing(held_by: str, state: DiskState) -> None:
    """Whoever held it, and whether or not it was used before."""
    assert order(disk("P01", state, held_by=held_by), disk("P02")) == ["P02"]


def test_a_role_is_filled_with_its_own_disks() -> None:
    """P01 and S01 are no pair."""
    disks = (disk("S01", role=Role.COPY), disk("P01"))
    assert order(*disks) == ["P01"]
    assert order(*disks, role=Role.COPY) == ["S01"]


@given(st.text("PS0123456789x-", max_size=6), st.text("PS0123456789x-", max_size=6))
def test_any_label_can_be_sorted(one: str, other: str) -> None:
    """Labels of a map that was read with other prefixes never stop a pass."""
    assert (label_key(one) < label_key(other)) in (True, False)


# --- which disk in use is filled ------------------------------------------------------------


def test_the_fullest_disk_with_room_is_filled_first() -> None:
    """One disk is filled before the next, so that few are open at a time."""
    rooms = [room("P01", 5 * GB), room("P02", 2 * GB), room("P03", 3 * GB)]
    assert fullest_that_fits(rooms, 1 * GB) == rooms[1]


def test_a_fuller_disk_without_room_is_passed_over() -> None:
    """A large file goes to the next one, and later small ones still fill the first."""
    rooms = [room("P01", 5 * GB), room("P02", 2 * GB)]
    assert fullest_that_fits(rooms, 3 * GB) == rooms[0]
    assert fullest_that_fits(rooms, 1 * GB) == rooms[1]


def test_of_equally_full_disks_the_lowest_label_is_filled() -> None:
    """So that every pass takes the same one."""
    rooms = [room("P10", GB), room("P2", GB)]
    assert fullest_that_fits(rooms, 0) == rooms[1]


def test_a_file_needs_room_for_more_than_its_bytes() -> None:
    """Its inode, directory entries and manifest line count too; to the byte."""
    assert fullest_that_fits([room("P01", GB)], GB) is None
    exact = room("P01", GB + FILE_OVERHEAD_BYTES)
    assert fullest_that_fits([exact], GB) == exact
    assert fullest_that_fits([], 0) is None


@given(st.lists(st.integers(-GB, 4 * GB), max_size=6), st.integers(0, 4 * GB))
def test_what_is_chosen_fits_and_nothing_fuller_does(rooms_bytes: list[int], size: int) -> None:
    """None only where no disk has the room; a disk below its headroom has none."""
    rooms = [room(f"P{number:02}", room_bytes) for number, room_bytes in enumerate(rooms_bytes)]
    chosen = fullest_that_fits(rooms, size)
    fitting = [each.room_bytes for each in rooms if each.room_bytes >= cost_bytes(size)]
    assert (chosen.room_bytes if chosen else None) == min(fitting, default=None)


# --- how much goes in one batch -------------------------------------------------------------

BOTH = frozenset(Role)
FILES = st.lists(
    st.tuples(
        st.integers(0, 3 * GB) | st.sampled_from([0, BATCH_BYTES, 3 * BATCH_BYTES]),
        st.sampled_from([BOTH, frozenset({Role.PRIMARY}), frozenset({Role.COPY})]),
    ),
    max_size=30,
)
ROOMS = st.fixed_dictionaries({role: st.integers(-GB, 40 * GB) for role in Role})


@given(ROOMS, FILES)
def test_a_batch_never_promises_more_than_there_is(
    rooms: dict[Role, int], files: list[tuple[int, frozenset[Role]]]
) -> None:
    """On each disk the files that were taken fit, with all that they cost beside their bytes."""
    limit = BatchLimit(dict(rooms))
    promised = dict.fromkeys(Role, 0)
    for size_bytes, roles in files:
        if limit.take(size_bytes, roles):
            for role in roles:
                promised[role] += cost_bytes(size_bytes)
    assert all(promised[role] <= max(0, rooms[role]) for role in Role)
    assert limit.rooms_bytes == {role: rooms[role] - promised[role] for role in Role}


@given(FILES)
def test_a_batch_ends_in_time(files: list[tuple[int, frozenset[Role]]]) -> None:
    """At most BATCH_BYTES, but for a single larger file; what was refused is not counted."""
    limit = BatchLimit(dict.fromkeys(Role, 10**15))
    taken = [size_bytes for size_bytes, roles in files if limit.take(size_bytes, roles)]
    assert (limit.files, limit.size_bytes) == (len(taken), sum(taken))
    assert sum(taken) <= BATCH_BYTES or len([size for size in taken if size]) == 1


def test_a_batch_has_at_most_so_many_files() -> None:
    """Even empty ones end a batch: the database hears of files in time."""
    limit = BatchLimit(dict.fromkeys(Role, 10**15))
    assert [limit.take(0, BOTH) for _ in range(BATCH_FILES + 2)] == (
        [True] * BATCH_FILES + [False] * 2
    )


@given(st.integers(0, 10**15))
def test_a_first_file_of_any_size_is_taken_where_it_fits(size_bytes: int) -> None:
    """No file is too long for a batch; to the byte."""
    exact = dict.fromkeys(Role, cost_bytes(size_bytes))
    assert BatchLimit(dict(exact)).take(size_bytes, BOTH)
    for role in Role:
        too_small = BatchLimit(exact | {role: exact[role] - 1})
        assert not too_small.take(size_bytes, BOTH)
        assert (too_small.files, too_small.rooms_bytes[role]) == (0, exact[role] - 1)


@given(st.integers(0, 20), st.lists(st.text("a/", min_size=1, max_size=8), max_size=12))
def test_a_batch_never_promises_more_inodes_than_there_are(room: int, names: list[str]) -> None:
    """A file takes one, and one more for each directory that it may need."""
    limit = BatchLimit(dict.fromkeys(Role, 10**15), dict.fromkeys(Role, room))
    taken = [name for name in names if limit.take(0, BOTH, cost_inodes(name))]
    assert sum(1 + name.count("/") for name in taken) <= room
    assert all(room - limit.rooms_inodes[role] == sum(map(cost_inodes, taken)) for role in Role)


def test_a_disk_without_inodes_takes_no_file() -> None:
    """However many bytes are free; where a file system makes them as needed there is no limit."""
    full = Room(disk("P01", DiskState.ACTIVE), GB, 2)
    assert fullest_that_fits([full], 0, inodes=2) == full
    assert fullest_that_fits([full], 0, inodes=3) is None
    assert fullest_that_fits([room("P02", GB)], 0, inodes=10**9) is not None
    assert not BatchLimit(dict.fromkeys(Role, GB), {Role.COPY: 0}).take(0, BOTH)
    assert BatchLimit(dict.fromkeys(Role, GB)).take(0, BOTH, inodes=10**9)


def test_a_file_that_needs_one_role_asks_for_room_of_that_role_alone() -> None:
    """A full copy disk does not keep a primary copy from being made again."""
    limit = BatchLimit({Role.PRIMARY: GB, Role.COPY: 0})
    assert limit.take(1000, {Role.PRIMARY})
    assert not limit.take(1000, BOTH)
    assert limit.rooms_bytes == {Role.PRIMARY: GB - cost_bytes(1000), Role.COPY: 0}
