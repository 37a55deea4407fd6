"""Each disk is proved to be the right one before its use, on real mounts: no other gets a byte.

In each test a person has made a mistake. The pass names it, writes to the proper disks
alone, keeps what it can't archive, and goes on once the mistake is mended.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from poledata.archive.buffer import MARKER
from tests.helpers.loopdisks import LoopDisk, LoopWorld, two_partitions
from tests.helpers.rack import below_the_mounts, go_on, sh, swap
from tests.helpers.stations import notice_text


@pytest.fixture
def down() -> Iterator[ExitStack]:
    """What the test itself mounted is taken down, once its station was judged."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_world(
    down: ExitStack, make_loop_world: Callable[..., LoopWorld]
) -> Callable[..., LoopWorld]:
    """Of real mounts; made after ``down``, so that it goes before that."""
    return make_loop_world


@pytest.fixture
def mount(down: ExitStack) -> Callable[..., None]:
    """``mount(place, …)`` as mount(8) does it, for the length of the test at most."""

    def mounted(place: Path, *how: str | Path) -> None:
        place.mkdir(exist_ok=True)
        sh("mount", *how, place)
        quietly = {"check": False, "stderr": subprocess.DEVNULL}
        down.callback(subprocess.run, ["umount", "--lazy", place], **quietly)

    return mounted


# --- nothing but the right disks ----------------------------------------------------------


@contextmanager
def only_written(world: LoopWorld, *labels: str, beside: tuple[Path, ...] = ()) -> Iterator[None]:
    """Meanwhile not a byte goes to the places of other labels, below any mount, or ``beside``."""
    others = [place for label, place in world.disks.items() if label not in labels]
    with below_the_mounts(world) as below:
        before = [world.snapshot(place) for place in (below, *others, *beside)]
        yield
        after = [world.snapshot(each.root) for each in before]
    assert [one.differences(other) for one, other in zip(before, after, strict=True)] == [
        [] for _ in before
    ]


def refuse(
    world: LoopWorld,
    *notices: tuple[str, str],
    written: tuple[str, ...],
    waiting: set[str] = frozenset(),  # type: ignore[assignment]
    beside: tuple[Path, ...] = (),
) -> None:
    """A pass that needs a person: exit 1, just these notices, nothing but these disks written."""
    with only_written(world, *written, beside=beside):
        run = world.run_pass(check=1)
    assert (run.out, run.err) == ("", "")
    assert world.notices() == set(notices)
    assert world.waiting() == waiting
    world.check()


def new_world(make_world: Callable[..., LoopWorld], **options: object) -> LoopWorld:
    """All disks are spares."""
    world = make_world(**options)
    world.generate()
    return world


def used_world(make_world: Callable[..., LoopWorld], **options: object) -> LoopWorld:
    """P01 and S01 are in use, with a.g3 on them; the others are spares."""
    world = new_world(make_world, **options)
    world.put("a.g3")
    world.run_pass(check=0)
    assert world.archived("P01") == world.archived("S01") == {"a.g3"}
    return world


# --- nothing, or another disk, at the place ------------------------------------------------


def test_nothing_falls_into_the_directory_of_a_disk_that_is_not_mounted(
    make_world: Callable[..., LoopWorld],
) -> None:
    """A disk in use is missed, and the next one takes its part."""
    world = used_world(make_world, copies=["S01"])
    world.loops["P01"].umount()
    world.put("b.g3")
    refuse(world, ("disk-missing", "P01"), written=("P02", "S01"))
    assert "Mount the drive with serial ZTP01AA there" in notice_text(world, "disk-missing", "P01")
    assert list(world.disks["P01"].iterdir()) == []
    assert world.archived("P02") == {"b.g3"}
    world.loops["P01"].mount()
    go_on(world)


def test_nothing_falls_anywhere_when_no_disk_is_mounted(
    make_world: Callable[..., LoopWorld],
) -> None:
    """After a power cut without fstab lines: all waits, and a spare that is absent is no fault."""
    world = used_world(make_world)
    for loop in world.loops.values():
        loop.umount()
    world.put("b.g3")
    missing = ("disk-missing", "P01"), ("disk-missing", "S01")
    no_disk = ("no-disk", "primary"), ("no-disk", "copy")
    refuse(world, *missing, *no_disk, written=(), waiting={"b.g3"})
    for loop in world.loops.values():
        loop.mount()
    go_on(world)
    assert world.archived("P01") == world.archived("S01") == {"a.g3", "b.g3"}


@pytest.mark.parametrize(("other", "proper"), [("P02", ("P03", "S01")), ("S01", ("P02", "S02"))])
def test_a_swapped_pair_is_refused_at_both_places(
    make_world: Callable[..., LoopWorld], other: str, proper: tuple[str, str]
) -> None:
    """Two disks at each other's place, of one role or of both: the next ones take the files."""
    world = used_world(make_world, primaries=["P01", "P02", "P03"], copies=["S01", "S02"])
    swap(world, "P01", other)
    world.put("b.g3")
    refuse(world, ("disk-wrong", "P01"), ("disk-wrong", other), written=proper)
    at = world.disks[other]
    assert f"the mark at {at} says P01, serial ZTP01AA" in notice_text(world, "disk-wrong", other)
    assert all("b.g3" in world.archived(label) for label in proper)
    swap(world, "P01", other)
    go_on(world)


def test_nothing_at_all_is_written_by_who_only_looks(make_world: Callable[..., LoopWorld]) -> None:
    """``check`` and a dry run say what is wrong, with exit 1, and open no notice."""
    world = used_world(make_world, primaries=["P01"], copies=["S01"])
    swap(world, "P01", "S01")
    world.put("b.g3")
    with only_written(world):
        check = world.run_pass("check", check=1)
        world.run_pass("--dry-run", check=1)
    for label in ("P01", "S01"):
        assert f"FAULT {label}: the mark at {world.disks[label]} says" in check.out
    assert world.notices() == set()
    swap(world, "P01", "S01")
    go_on(world)


def test_last_seasons_disk_at_its_old_place_is_refused(
    make_world: Callable[..., LoopWorld],
) -> None:
    """Labels begin again at P01: the shipped P01, still in the rack, is not the new one."""
    world = used_world(make_world, primaries=["P01", "P02"], copies=["S01"])
    world.run_pass("close", "--yes", "P01", check=0)
    world.ship("P01")
    old = world.loops.pop("P01")
    world.loops["ZTP01AA"] = old
    world.add_disk("P01", serial="ZNEWP01A")
    world.generate()
    world.put("b.g3")
    refuse(world, ("disk-wrong", "P01"), written=("P02", "S01"))
    text = notice_text(world, "disk-wrong", "P01")
    assert f"the mark at {world.disks['P01']} says P01, serial ZTP01AA" in text
    assert world.archived("P02") == {"b.g3"}
    old.umount()
    world.plug_in("P01", size_mb=64, fs="xfs")
    go_on(world)


def test_a_used_disk_that_was_formatted_is_refused_till_it_is_given_up(
    make_world: Callable[..., LoopWorld],
) -> None:
    """It is not begun anew by itself; noted as lost and as returned, it is a spare again."""
    world = used_world(make_world, copies=["S01"], primary_fs="ext4")
    loop = world.loops["P01"]
    loop.umount()
    sh("mkfs.ext4", "-q", "-F", loop.device)
    loop.mount()
    world.spoil("P01", "a.g3", "formatted by mistake")
    world.put("b.g3")
    refuse(world, ("disk-wrong", "P01"), written=("P02", "S01"))
    assert f"used before, but {world.disks['P01']} has no mark" in notice_text(
        world, "disk-wrong", "P01"
    )
    world.run_pass("lost", "P01", "--why", "formatted by mistake", check=0)
    world.generate("--returned")
    world.run_pass("close", "--yes", "P02", check=0)
    world.put("c.g3")
    world.run_pass(check=0)
    assert world.notices() == {("disk-closed", "P02")}
    assert world.archived("P01") == {"c.g3"}


FOREIGN = {
    "a-file": "holiday.jpg",
    "files-in-data": "data/old.g3",
    "a-bag-of-another-kind": "bag-info.txt",
}


@pytest.mark.parametrize("name", FOREIGN.values(), ids=FOREIGN)
def test_a_spare_that_is_not_empty_is_refused_and_kept_as_it_is(
    make_world: Callable[..., LoopWorld], name: str
) -> None:
    """Whatever lies there, also under names that ours have, is somebody's."""
    world = make_world(copies=["S01"])
    thing = world.disks["P01"] / name
    thing.parent.mkdir(exist_ok=True)
    thing.write_text("somebody's only copy\n")
    world.spoil("P01", None, "somebody else's")
    world.put("b.g3")
    world.generate()
    refuse(world, ("disk-wrong", "P01"), written=("P02", "S01"))
    assert name.partition("/")[0] in notice_text(world, "disk-wrong", "P01")
    thing.unlink()
    world.put("c.g3")
    go_on(world)
    assert world.archived("P02") == {"b.g3", "c.g3"}


# --- one drive for two ---------------------------------------------------------------------


@pytest.mark.parametrize("is_used", [False, True], ids=["spare", "used"])
def test_one_drive_mounted_at_both_roles_places_gets_one_copy(
    make_world: Callable[..., LoopWorld], mount: Callable[..., None], is_used: bool
) -> None:
    """P01's drive is also where S01's should be: the file waits for a drive of its own.

    A spare has no mark yet that says whose it is: then neither label gets it.
    """
    world = (used_world if is_used else new_world)(make_world, primaries=["P01"], copies=["S01"])
    world.loops["S01"].umount()
    mount(world.disks["S01"], world.loops["P01"].device)
    world.put("b.g3")
    wrong = [("disk-wrong", "S01"), ("no-disk", "copy")]
    if not is_used:
        wrong += [("disk-wrong", "P01"), ("no-disk", "primary")]
    refuse(world, *wrong, written=("P01", "S01") if is_used else (), waiting={"b.g3"})
    why = "says P01" if is_used else "on the same physical drive as P01"
    assert why in notice_text(world, "disk-wrong", "S01")
    locations = world.sql("SELECT * FROM file_locations WHERE name = 'b.g3'")
    labels = [(row["primary_label"], row["copy_label"]) for row in locations]
    assert labels == ([("P01", None)] if is_used else [])
    sh("umount", world.disks["S01"])
    world.loops["S01"].mount()
    go_on(world)


@pytest.mark.parametrize("is_same", [True, False], ids=["one-drive", "two-drives"])
def test_a_label_mounted_at_both_of_its_places_is_refused(
    make_world: Callable[..., LoopWorld],
    mount: Callable[..., None],
    loop_disk: Callable[..., LoopDisk],
    is_same: bool,
) -> None:
    """With several DiskMountPoints a label may stand at one of them: which is meant, nobody knows.

    The next disk of the role goes on; the label is used wherever it then stands alone.
    """
    world = used_world(make_world, copies=["S01"])
    second = world.root / "more_disks" / "P01"
    second.parent.mkdir()
    world.configure(DiskMountPoints=f"{world.mounts}, {second.parent}")
    if is_same:
        mount(second, world.loops["P01"].device)
    else:
        loop_disk(world.root / "images/another.img", second, fs="ext4")
    world.put("b.g3")
    refuse(world, ("disk-wrong", "P01"), written=("P02", "S01"), beside=(second,))
    assert f"it is at {world.disks['P01']} and {second}" in notice_text(world, "disk-wrong", "P01")
    sh("umount", second)
    go_on(world)
    world.loops["P01"].umount()
    world.loops["P01"].mount(at=second)
    world.run_pass("close", "--yes", "P02", check=0)
    world.put("c.g3")
    world.run_pass(check=0)
    world.disks["P01"] = second
    assert world.archived("P01") == {"a.g3", "c.g3"}


@pytest.fixture
def on_two_partitions(
    down: ExitStack, make_world: Callable[..., LoopWorld]
) -> Callable[..., LoopWorld]:
    """A station where P01 and S01 are partitions of one drive, in place of their own drives."""

    def made(**options: object) -> LoopWorld:
        world = make_world(**options)
        labels = ("P01", "S01")
        for label in labels:
            world.loops[label].umount()
        places = (world.disks["P01"], world.disks["S01"])
        image = world.root / "images" / "partitions.img"
        disks = down.enter_context(two_partitions(image, places, size_mb=32))
        world.loops |= dict(zip(labels, disks, strict=True))  # type: ignore[arg-type]
        return world

    return made


def test_partitions_of_one_drive_never_get_both_copies(
    on_two_partitions: Callable[..., LoopWorld],
) -> None:
    """P01 and S01 on one drive: the next copy disk takes the copies, and S01 stays unused."""
    world = on_two_partitions(primaries=["P01"], copies=["S01", "S02"])
    world.put("a.g3")
    world.generate()
    refuse(world, ("disk-wrong", "S01"), written=("P01", "S02"))
    text = notice_text(world, "disk-wrong", "S01")
    assert "it is on the same physical drive as P01" in text
    assert world.archived("P01") == world.archived("S02") == {"a.g3"}
    assert world.disk_states() == {"P01": "active", "S01": "spare", "S02": "active"}
    world.run_pass(check=0)  # with no file: it is so still
    assert ("disk-wrong", "S01") in world.notices()
    world.loops["S01"].umount()
    world.put("b.g3")
    world.run_pass(check=0)  # a spare that is not there is missed by nobody
    assert world.notices() == set()


def test_a_file_on_one_partition_waits_for_another_drive_than_the_other_partition(
    on_two_partitions: Callable[..., LoopWorld],
) -> None:
    """Also when it is only the second copy that is to be made; as long as it waits, it is said."""
    world = on_two_partitions(primaries=["P01"], copies=["S01", "S02"])
    world.loops["S02"].umount()
    world.put("a.g3")
    world.generate()
    waits = ("disk-wrong", "S01"), ("no-disk", "copy")
    refuse(world, *waits, written=("P01",), waiting={"a.g3"})
    refuse(world, *waits, written=("P01",), waiting={"a.g3"})
    world.loops["S02"].mount()
    refuse(world, ("disk-wrong", "S01"), written=("P01", "S02"))
    assert world.archived("P01") == world.archived("S02") == {"a.g3"}
    world.loops["S01"].umount()
    go_on(world)


def test_two_directories_of_one_file_system_are_no_disks(
    make_world: Callable[..., LoopWorld],
    loop_disk: Callable[..., LoopDisk],
    mount: Callable[..., None],
) -> None:
    """Bound at P01 and S01 they look like two mounts: only a whole file system is a disk."""
    world = make_world(primaries=["P01"], copies=["S01"])
    both = loop_disk(world.root / "images/both.img", world.root / "both", fs="ext4").mount_point
    for label in ("P01", "S01"):
        world.loops[label].umount()
        (both / label).mkdir()
        mount(world.disks[label], "--bind", both / label)
    world.put("b.g3")
    world.generate()
    no_disk = ("no-disk", "primary"), ("no-disk", "copy")
    refuse(world, *no_disk, written=(), waiting={"b.g3"}, beside=(both,))
    for label in ("P01", "S01"):
        sh("umount", world.disks[label])
        world.loops[label].mount()
    go_on(world)


# --- no drive, or none to write to -----------------------------------------------------------


@pytest.mark.parametrize("what", ["buffer", "database"])
def test_the_buffers_and_the_databases_own_drives_are_no_disks(
    make_world: Callable[..., LoopWorld],
    loop_disk: Callable[..., LoopDisk],
    mount: Callable[..., None],
    what: str,
) -> None:
    """Their file system, mounted once more at P01, gets nothing but what belongs there."""
    world = make_world(copies=["S01"])
    own = world.buffer if what == "buffer" else world.db_path.parent
    loop_disk(world.root / "images/own.img", own, fs="ext4")
    world.loops["P01"].umount()
    mount(world.disks["P01"], "--bind", own)
    world.put("b.g3")
    world.generate()
    before = set(own.iterdir())
    with below_the_mounts(world) as below:
        beneath = world.snapshot(below)
        world.run_pass(check=1)
        assert beneath.differences(world.snapshot(below)) == []
    ours = {own / "b.g3"} if what == "buffer" else set()
    marker = {own / MARKER} if what == "buffer" else set()
    ends = ("lock", "turn", "door", "ended")
    logs = {world.db_path.with_name(f"pole.sqlite.{end}") for end in ends}
    assert before - ours <= set(own.iterdir()) <= before | logs | marker | {world.log_path}
    assert world.notices() == {("disk-wrong", "P01")}
    assert f"is on the same file system as {own}" in notice_text(world, "disk-wrong", "P01")
    assert world.archived("P02") == {"b.g3"}
    sh("umount", world.disks["P01"])
    world.loops["P01"].mount()
    go_on(world)


def test_a_directory_of_the_system_bound_at_a_disks_place_is_no_disk(
    make_world: Callable[..., LoopWorld], mount: Callable[..., None]
) -> None:
    """The system's drive would fill up in silence: a disk in use is missed, another takes over."""
    world = used_world(make_world, copies=["S01"])
    world.loops["P01"].umount()
    directory = world.root / "plenty of room"
    directory.mkdir()
    mount(world.disks["P01"], "--bind", directory)
    world.put("b.g3")
    refuse(world, ("disk-missing", "P01"), written=("P02", "S01"), beside=(directory,))
    sh("umount", world.disks["P01"])
    world.loops["P01"].mount()
    go_on(world)


@pytest.mark.parametrize("name", ["tmpfs", "/dev/{drive}", "server:/export/{drive}"])
def test_memory_mounted_at_a_disks_place_is_no_disk(
    make_world: Callable[..., LoopWorld], mount: Callable[..., None], name: str
) -> None:
    """It is gone with the next power cut, though its source be named as a drive is."""
    world = make_world(copies=["S01"])
    world.loops["P01"].umount()
    source = name.format(drive=world.loops["P02"].device.name)
    mount(world.disks["P01"], "-t", "tmpfs", "-o", "size=32m", source)
    world.put("b.g3")
    world.generate()
    refuse(world, ("disk-wrong", "P01"), written=("P02", "S01"))
    why = f"its file system is tmpfs, not XFS or ext4 ({world.disks['P01']})"
    assert why in notice_text(world, "disk-wrong", "P01")
    sh("umount", world.disks["P01"])
    world.loops["P01"].mount()
    go_on(world)


@pytest.mark.parametrize("is_used", [False, True], ids=["spare", "used"])
def test_a_disk_that_is_read_only_is_passed_by(
    make_world: Callable[..., LoopWorld], is_used: bool
) -> None:
    """Mounted so, or remounted when its drive failed: the next of its role takes the copies."""
    world = (used_world if is_used else new_world)(make_world, primaries=["P01"])
    world.loops["S01"].remount("ro")
    world.put("b.g3")
    refuse(world, ("disk-read-only", "S01"), written=("P01", "S02"))
    assert "is mounted read-only" in notice_text(world, "disk-read-only", "S01")
    assert world.archived("S02") == {"b.g3"}
    world.loops["S01"].remount("rw")
    go_on(world)


@pytest.mark.parametrize("name", ["data", ".incoming"])
def test_a_link_in_the_place_of_a_disks_own_directory_is_refused_and_the_next_disk_goes_on(
    loop_world: LoopWorld, name: str
) -> None:
    """Nothing is written where the link leads, and no file waits for that disk."""
    world = loop_world
    world.put("seed.g3")
    world.generate()
    world.run_pass(check=0)
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    place = world.disks["P01"] / name
    place.rename(place.with_name("moved"))
    place.symlink_to(elsewhere)
    world.put("a.g3")
    world.run_pass(check=1)
    assert world.waiting() == set()
    assert world.archived("P02") == {"a.g3"}
    assert list(elsewhere.iterdir()) == []
    assert world.notices() == {("disk-error", "P01")}
    place.unlink()
    place.with_name("moved").rename(place)


@pytest.mark.parametrize(
    ("leads_to", "kind"),
    [("elsewhere", "disk-missing"), ("spt_disks/P02", "disk-wrong")],
    ids=["a-directory", "another-disk"],
)
def test_a_link_in_a_disks_place_leads_nowhere_else(
    make_world: Callable[..., LoopWorld], leads_to: str, kind: str
) -> None:
    """To a plain directory, or to another label's disk: it is not P01."""
    world = used_world(make_world, copies=["S01"])
    world.loops["P01"].umount()
    world.disks["P01"].rmdir()
    target = world.root / leads_to
    target.mkdir(exist_ok=True)
    world.disks["P01"].symlink_to(target)
    world.put("b.g3")
    beside = (target,) if kind == "disk-missing" else ()
    written = ("P02", "S01") if beside else ("P01", "P02", "S01")  # P01's place is P02's, seen
    refuse(world, (kind, "P01"), written=written, beside=beside)
    assert world.archived("P02") == {"b.g3"}
    world.disks["P01"].unlink()
    world.loops["P01"].mount()
    go_on(world)


@pytest.mark.parametrize("role", ["P02", "S01"], ids=["same role", "other role"])
def test_a_spare_that_stands_at_two_labels_places_is_not_claimed(
    make_world: Callable[..., LoopWorld], mount: Callable[..., None], role: str
) -> None:
    """Whose it is nobody knows: neither gets its mark. Unmounted at the wrong place it is used."""
    world = new_world(make_world, primaries=["P01", "P02"], copies=["S01"])
    world.loops[role].umount()
    mount(world.disks[role], world.loops["P01"].device)
    world.put("b.g3")
    world.run_pass(check=1)
    assert not (world.disks["P01"] / "bag-info.txt").exists()
    assert world.waiting() == {"b.g3"}
    assert f"is also mounted at {world.disks[role]}" in notice_text(world, "disk-wrong", "P01")
    sh("umount", world.disks[role])
    world.loops[role].mount()
    go_on(world)
