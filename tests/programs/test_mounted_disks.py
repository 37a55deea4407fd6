"""No disk is used that is not proved to be the one that is meant."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.config import load
from poledata.disks import bag, manifest
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, ExitCode
from poledata.models import MANIFEST, Disk, Role
from poledata.system import mounts
from tests.helpers.loopdisks import LoopWorld, two_partitions
from tests.helpers.other_users import NOBODY, as_nobody
from tests.helpers.world import World

AT = "2026-11-23T18:20:57Z"
AT_S = 1_795_458_057.0
SHA512 = "3f" * 64
LOOK = (
    "Compare its serial number with the disk-map. Mount the right drive, or an empty one. Do not "
    "empty this one."
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


class Rack:
    """A station's disks, as one batch after another finds them; judged by these tests alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.leave_unchecked("disks are set up by hand")
        db.database_files.create(world.db_path)
        with db.connect(world.db_path) as conn, db.transaction(conn):
            for label, serial in world.serials.items():
                role = Role.PRIMARY if label.startswith("P") else Role.COPY
                is_stand_in = not world.require_mount
                logical_id = world.logical_id(label)
                db.disks.add_disk(conn, label, role, serial, logical_id, is_stand_in, AT)

    def __getitem__(self, label: str) -> Path:
        return self.world.disks[label]

    @contextmanager
    def batch(
        self, ready: set[int] | None = None
    ) -> Iterator[tuple[MountedDisks, dict[str, Disk]]]:
        """A shelf, and the disks by label, as the database knows them now."""
        config = load(self.world.config_path, {})
        with db.connect(self.world.db_path) as conn:
            disks = {disk.label: disk for disk in db.disks.disks(conn)}
            with MountedDisks(config, conn, set() if ready is None else ready) as mounted:
                yield mounted, disks

    def use(self, *labels: str) -> None:
        """The first use of these disks: they are claimed and active."""
        with self.batch() as (mounted, disks):
            for label in labels:
                mounted.hold_for_writing(disks[label])

    def refusal(self, label: str, writing: bool = False) -> tuple[str, str]:
        """The kind of notice and the sentence with which a disk is refused."""
        with self.batch() as (mounted, disks):
            take = mounted.hold_for_writing if writing else mounted.hold
            with pytest.raises(DiskRefused) as caught:
                take(disks[label])
            with pytest.raises(DiskRefused) as again:
                take(disks[label])
            assert str(again.value) == str(caught.value)
        assert caught.value.label == label
        assert caught.value.exit_code == ExitCode.LOOK
        return caught.value.kind, str(caught.value)

    def state(self, label: str) -> str:
        return self.world.disk_states()[label]


@pytest.fixture
def rack(world: World) -> Rack:
    """Stand-ins, P01 P02 S01 S02."""
    return Rack(world)


@pytest.fixture
def drives(make_loop_world: Callable[..., LoopWorld]) -> Rack:
    """One real drive, P01 on XFS."""
    return Rack(make_loop_world(primaries=("P01",), copies=()))


def loop(rack: Rack) -> LoopWorld:
    assert isinstance(rack.world, LoopWorld)
    return rack.world


# --- a disk that is there -------------------------------------------------------------------


def test_a_spare_is_claimed_when_it_is_first_written_to(rack: Rack) -> None:
    """Looking at it changes nothing; the first use makes it ours, and active."""
    with rack.batch() as (mounted, disks):
        held = mounted.hold(disks["P01"])
        assert (held.mark, held.direct, held.path) == (None, False, rack["P01"])
        assert os.listdir(rack["P01"]) == []
        held = mounted.hold_for_writing(disks["P01"])
        assert held.mark is not None and held.mark.is_of(disks["P01"])
        assert bag.read_mark(held.root_fd) == held.mark
        assert mounted.hold(disks["P01"]) == held
    assert rack.state("P01") == "active"
    assert rack.state("P02") == "spare"
    assert os.listdir(rack["P02"]) == []


def test_a_used_disk_is_used_again(rack: Rack) -> None:
    """Its mark stays as it was, with the day it was opened."""
    rack.use("P01")
    mark = (rack["P01"] / bag.MARK).read_bytes()
    rack.use("P01")
    assert (rack["P01"] / bag.MARK).read_bytes() == mark


def test_a_claim_that_the_database_never_heard_of_is_taken_up(rack: Rack) -> None:
    """Killed between the mark and the commit: an empty bag of ours is still a spare."""
    rack.use("P01")
    rack.world.sql("UPDATE disks SET state = 'spare' WHERE label = 'P01'")
    rack.use("P01")
    assert rack.state("P01") == "active"


def test_what_a_crash_left_is_cleared_once_a_pass(rack: Rack) -> None:
    """Unfinished copies are swept and a torn line is cut, before anything is written."""
    rack.use("P01")
    temporary = rack["P01"] / ".incoming" / bag.new_temporary()
    manifest = rack["P01"] / MANIFEST
    line = f"{SHA512}  data/a.g3\n"
    temporary.touch()
    manifest.write_text(line + line[:50])
    ready: set[int] = set()
    for is_first in (True, False):
        with rack.batch(ready) as (mounted, disks):
            mounted.hold_for_writing(disks["P01"])
        assert temporary.exists() != is_first
        assert manifest.read_text() == line
        temporary.touch()  # from now on it is a copy on its way
    assert len(ready) == 1


def test_a_look_clears_nothing(rack: Rack) -> None:
    """A dry run, or a check, may come while a pass is at work."""
    rack.use("P01")
    temporary = rack["P01"] / ".incoming" / bag.new_temporary()
    temporary.touch()
    with rack.batch() as (mounted, disks):
        mounted.hold(disks["P01"])
    assert temporary.exists()


def test_a_used_disk_that_lost_its_incoming_gets_it_again(rack: Rack) -> None:
    """Somebody tidied up: nothing in it was of worth."""
    rack.use("P01")
    (rack["P01"] / ".incoming").rmdir()
    rack.use("P01")
    assert (rack["P01"] / ".incoming").is_dir()


def test_room_is_what_is_free_less_the_headroom(drives: Rack) -> None:
    """MinFreeSpace stays free; below it there is less than no room."""
    free_bytes = os.statvfs(drives["P01"]).f_bavail * os.statvfs(drives["P01"]).f_frsize
    for setting, kept_bytes in (("20 MB", 20 * 10**6), ("10 GB", 10**10)):
        drives.world.configure(MinFreeSpace=setting)
        with drives.batch() as (mounted, disks):
            assert mounted.room(mounted.hold(disks["P01"])).room_bytes == free_bytes - kept_bytes


def test_nothing_is_written_to_a_closed_bag_whatever_the_database_says(drives: Rack) -> None:
    """An older database was put back: it may be read, and the way to mend that is named."""
    drives.use("P01")
    (drives["P01"] / bag.TAG_MANIFEST).write_bytes(b"")
    before = drives.world.snapshot(drives["P01"])
    kind, said = drives.refusal("P01", writing=True)
    assert kind == "disk-wrong"
    assert said == (
        f"P01: it is closed ({drives['P01']} has a tagmanifest-sha512.txt), which this database "
        "does not know: an older one was put back. Nothing was written. "
        "Complete it from the disks: generate_db.py --from-disks"
    )
    with drives.batch() as (mounted, disks):
        assert mounted.hold(disks["P01"]).mark
    assert before.differences(drives.world.snapshot(drives["P01"])) == []


def test_a_disk_always_keeps_the_room_to_be_closed(drives: Rack) -> None:
    """Closing writes the manifest once more, whatever MinFreeSpace is."""
    drives.world.configure(MinFreeSpace="0")
    drives.use("P01")
    with drives.batch() as (mounted, disks):
        held = mounted.hold(disks["P01"])
        before = mounted.room(held).room_bytes
        assert 0 < before < mounts.space(held.root_fd).free_bytes
        manifest.append(held.root_fd, [(SHA512, f"{n}.g3") for n in range(20_000)])
        line_bytes = len(SHA512) + len("  data/10000.g3\n")
        assert before - mounted.room(held).room_bytes > 1.8 * 20_000 * line_bytes


def test_a_disk_may_be_at_one_of_several_places(rack: Rack) -> None:
    """The racks are told apart by where they are mounted."""
    other = rack.world.root / "other"
    other.mkdir()
    rack.world.configure(DiskMountPoints=f"{rack.world.mounts}, {other}/{{label}}-here")
    rack["P01"].rename(other / "P01-here")
    with rack.batch() as (mounted, disks):
        assert mounted.hold(disks["P01"]).path == other / "P01-here"
        assert mounted.hold(disks["S01"]).path == rack["S01"]


# --- refusals, on stand-ins -----------------------------------------------------------------


def test_a_missing_directory_is_a_missing_disk(rack: Rack) -> None:
    """With the command that makes it; a file in its place is none."""
    place = rack["P01"]
    said = (
        "disk-missing",
        f"P01: there is no directory {place}. Nothing was written. mkdir -p {place}",
    )
    place.rmdir()
    assert rack.refusal("P01") == said
    place.touch()
    assert rack.refusal("P01", writing=True) == said


def test_a_refused_disk_is_looked_at_once_a_batch(rack: Rack) -> None:
    """A thousand files do not ask a dead disk a thousand times; the next batch asks again."""
    place = rack["P01"]
    place.rmdir()
    with rack.batch() as (mounted, disks):
        for _ in range(2):
            with pytest.raises(DiskRefused):
                mounted.hold(disks["P01"])
            place.mkdir(exist_ok=True)
    rack.use("P01")


def test_a_disk_at_two_places_is_refused(rack: Rack) -> None:
    """Nobody can tell which one is meant."""
    (rack.world.root / "other").mkdir()
    (rack.world.root / "other" / "P01").mkdir()
    rack.world.configure(DiskMountPoints=f"{rack.world.mounts}, {rack.world.root}/other")
    assert rack.refusal("P01") == (
        "disk-wrong",
        f"P01: it is at {rack['P01']} and {rack.world.root}/other/P01. Nothing was written. "
        "Unmount the wrong one.",
    )


def test_a_place_that_cannot_be_opened_leaves_no_descriptor_of_another(rack: Rack) -> None:
    """The first place is there, the second is a link to itself."""
    (rack.world.root / "other").mkdir()
    (rack.world.root / "other" / "P01").symlink_to("P01")
    rack.world.configure(DiskMountPoints=f"{rack.world.mounts}, {rack.world.root}/other")
    with rack.batch() as (mounted, disks):
        try:
            mounted.hold(disks["P01"])
        except DiskRefused as refusal:
            assert refusal.kind in ("disk-wrong", "disk-error")


@pytest.mark.parametrize("field", ["label", "serial", "logical_id"])
def test_another_disks_mark_is_refused(rack: Rack, field: str) -> None:
    """Label, serial and logical ID must all be the database's."""
    rack.use("P01")
    rack.world.sql(f"UPDATE disks SET {field} = 'X9' WHERE label = 'P01'")
    label = "X9" if field == "label" else "P01"
    rack.world.disks["X9"] = rack.world.mounts / "X9"
    if field == "label":
        rack["P01"].rename(rack["X9"])
    mark = f"P01, serial {rack.world.serials['P01']}, {rack.world.logical_id('P01')}"
    for writing in (False, True):
        assert rack.refusal(label, writing) == (
            "disk-wrong",
            f"{label}: the mark at {rack[label]} says {mark}. Nothing was written. {LOOK}",
        )


def test_two_swapped_disks_are_both_refused(rack: Rack) -> None:
    """A tired person mounts one at the other's place; nothing is written to either."""
    rack.use("P01", "P02")
    rack["P01"].rename(rack.world.root / "away")
    rack["P02"].rename(rack["P01"])
    (rack.world.root / "away").rename(rack["P02"])
    for label, other in (("P01", "P02"), ("P02", "P01")):
        kind, said = rack.refusal(label, writing=True)
        assert kind == "disk-wrong"
        assert f"the mark at {rack[label]} says {other}, serial " in said


def test_a_used_disk_without_its_mark_is_refused(rack: Rack) -> None:
    """Wiped, or another one: an empty directory is never filled in a used disk's name."""
    rack.use("P01")
    (rack["P01"] / bag.MARK).unlink()
    for writing in (False, True):
        assert rack.refusal("P01", writing) == (
            "disk-wrong",
            f"P01: it was used before, but {rack['P01']} has no mark: wiped, or another one. "
            f"Nothing was written. {LOOK}",
        )


def test_a_mark_that_makes_no_sense_is_refused(rack: Rack) -> None:
    """Also on a spare: somebody's bag is no empty disk."""
    (rack["P01"] / bag.MARK).write_text("Source-Organization: Elsewhere\n")
    assert rack.refusal("P01") == (
        "disk-wrong",
        f"P01: {rack['P01']}: its bag-info.txt has no line Pole-Label. Nothing was written. {LOOK}",
    )


def test_a_spare_that_is_not_empty_is_refused(rack: Rack) -> None:
    """It says what is there, at most three things; nothing of it is touched."""
    for name in ("a", "b", "c", "d"):
        (rack["P01"] / name).write_text("mine")
    assert rack.refusal("P01", writing=True) == (
        "disk-wrong",
        f"P01: it should be empty, but {rack['P01']} holds a, b, c. Nothing was written. {LOOK}",
    )
    assert sorted(os.listdir(rack["P01"])) == ["a", "b", "c", "d"]
    assert rack.state("P01") == "spare"


def test_an_archive_that_the_database_does_not_know_is_refused(rack: Rack) -> None:
    """The database was lost and made anew: the disk has our mark, and files."""
    rack.use("P01")
    (rack["P01"] / "data" / "a.g3").touch()
    (rack["P01"] / MANIFEST).write_text(f"{SHA512}  data/a.g3\n")
    rack.world.sql("UPDATE disks SET state = 'spare' WHERE label = 'P01'")
    kind, said = rack.refusal("P01", writing=True)
    assert kind == "disk-wrong"
    serial = rack.world.serials["P01"]
    assert f"Its mark says that it is P01 ({serial}): do not empty it." in said
    assert "The database does not know it: generate_db.py --from-disks" in said
    assert "empty one" not in said
    assert (rack["P01"] / MANIFEST).stat().st_size > 0


def test_a_disk_that_does_not_work_is_refused(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system says, it is said as this disk's fault, and other disks go on."""
    rack.use("P01", "S01")
    inode = rack["P01"].stat().st_ino
    real = os.fstatvfs

    def failing(fd: int) -> os.statvfs_result:
        if os.fstat(fd).st_ino == inode:
            raise OSError(5, "Input/output error")
        return real(fd)

    monkeypatch.setattr(os, "fstatvfs", failing)
    assert rack.refusal("P01", writing=True) == (
        "disk-error",
        "P01: it does not work: Input/output error. Nothing was written. "
        "Look at the kernel's log; if it repeats, replace the drive.",
    )
    rack.use("S01")


@pytest.fixture
def anybodys_rack() -> Iterator[Rack]:
    """Stand-ins in a directory that every user can reach; nobody's, but for the disks."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        rack = Rack(World(Path(name)))
        for path in (rack.world.root, rack.world.db_path.parent):
            os.chown(path, NOBODY, NOBODY)
        yield rack


def nobodys_refusal(rack: Rack, writing: bool = True) -> str:
    def take() -> object:
        with rack.batch() as (mounted, disks):
            return (mounted.hold_for_writing if writing else mounted.hold)(disks["P01"]).path

    os.chown(rack.world.db_path, NOBODY, NOBODY)
    try:
        return as_nobody(take)
    finally:
        os.chown(rack.world.db_path, 0, 0)


@pytest.mark.root
@pytest.mark.parametrize("place", [".", "data", ".incoming"])
@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (NOBODY, 0o555)])
def test_a_disk_that_this_user_may_not_write_to_is_refused_with_what_mends_it(
    anybodys_rack: Rack, place: str, owner: int, mode: int
) -> None:
    """It may be read all the same; the command that it is told with truly helps."""
    rack = anybodys_rack
    rack.use("P01")
    for path in (rack["P01"], *rack["P01"].rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    assert nobodys_refusal(rack) == repr(rack["P01"])
    os.chown(rack["P01"] / place, owner, owner)
    (rack["P01"] / place).chmod(mode)
    assert nobodys_refusal(rack, writing=False) == repr(rack["P01"])
    said, _, command = nobodys_refusal(rack).partition(". Nothing was written. ")
    assert said == f"DiskRefused: P01: this user may not write to {rack['P01']}"
    subprocess.run(command.replace("sudo ", ""), shell=True, check=True)
    assert nobodys_refusal(rack) == repr(rack["P01"])


@pytest.mark.root
def test_a_disk_that_this_user_may_not_open_is_refused(anybodys_rack: Rack) -> None:
    """It is said as a matter of rights, not as a drive that fails."""
    anybodys_rack["P01"].chmod(0o700)
    said = nobodys_refusal(anybodys_rack)
    assert said.startswith("DiskRefused: P01: this user may not use it (")
    assert "kernel" not in said


# --- refusals, on drives --------------------------------------------------------------------


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_a_drive_is_held_by_its_identity(
    make_loop_world: Callable[..., LoopWorld], fs: str
) -> None:
    """It reads past the page cache, and knows the drive below it."""
    rack = Rack(make_loop_world(primaries=("P01",), copies=(), primary_fs=fs))
    with rack.batch() as (mounted, disks):
        held = mounted.hold_for_writing(disks["P01"])
        assert held.direct
        assert held.drives == {loop(rack).loops["P01"].device.name}
        assert (held.target.role, held.target.label, held.target.direct) == (
            Role.PRIMARY,
            "P01",
            True,
        )


def test_nothing_is_ever_written_below_a_mount_point(drives: Rack) -> None:
    """Unmounted in use, the held disk takes what comes; the next batch finds nothing mounted."""
    with drives.batch() as (mounted, disks):
        held = mounted.hold_for_writing(disks["P01"])
        loop(drives).loops["P01"].lazy_unmount()
        manifest.append(held.root_fd, [(SHA512, "a.g3")])
        assert mounted.hold(disks["P01"]) is held
    assert os.listdir(drives["P01"]) == []
    assert drives.refusal("P01", writing=True) == (
        "disk-missing",
        f"P01: nothing is mounted at {drives['P01']}. Nothing was written. "
        f"Mount the drive with serial {drives.world.serials['P01']} there.",
    )
    assert os.listdir(drives["P01"]) == []


def test_a_read_only_disk_is_refused_for_writing_alone(drives: Rack) -> None:
    """A kernel remounts a failing drive so; its copies still count."""
    drives.use("P01")
    loop(drives).loops["P01"].remount("ro")
    with drives.batch() as (mounted, disks):
        assert mounted.hold(disks["P01"]).direct
    assert drives.refusal("P01", writing=True) == (
        "disk-read-only",
        f"P01: {drives['P01']} is mounted read-only. Nothing was written. "
        "If nobody did that on purpose, the drive is failing: look at the kernel's log.",
    )


def test_what_is_mounted_but_no_drive_is_refused(drives: Rack) -> None:
    """A tmpfs forgets everything."""
    loop(drives).loops["P01"].umount()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", drives["P01"]], check=True)
    try:
        assert drives.refusal("P01", writing=True) == (
            "disk-wrong",
            f"P01: its file system is tmpfs, not XFS or ext4 ({drives['P01']}). Nothing was "
            "written. New copies go only to XFS or ext4 on one drive that can be identified; what "
            "is there can still be read.",
        )
        assert os.listdir(drives["P01"]) == []
    finally:
        subprocess.run(["umount", drives["P01"]], check=True)


def test_a_part_of_the_buffers_own_drive_is_refused(drives: Rack) -> None:
    """A directory that is bound there is no removable drive: it would fill the system's."""
    loop(drives).loops["P01"].umount()
    (drives.world.root / "somewhere").mkdir()
    subprocess.run(["mount", "--bind", drives.world.root / "somewhere", drives["P01"]], check=True)
    try:
        kind, said = drives.refusal("P01", writing=True)
        assert kind in ("disk-wrong", "disk-missing")
        assert str(drives["P01"]) in said
        assert os.listdir(drives["P01"]) == []
    finally:
        subprocess.run(["umount", drives["P01"]], check=True)


@pytest.mark.parametrize("place", ["buffer", "db"])
def test_the_drive_of_the_buffer_or_the_database_is_no_archive(drives: Rack, place: str) -> None:
    """One drive that dies must not take a file's copy with what it is a copy of."""
    other = drives.world.root / place
    subprocess.run(["mount", loop(drives).loops["P01"].device, other], check=True)
    try:
        if place == "db":
            db.database_files.create(drives.world.db_path)
            drives.world.sql(
                "INSERT INTO disks (label, role, serial, logical_id) VALUES (?, 'primary', ?, 'x')",
                "P01",
                drives.world.serials["P01"],
            )
        assert drives.refusal("P01", writing=True) == (
            "disk-wrong",
            f"P01: {drives['P01']} is on the same file system as {other}. Nothing was written. "
            f"Mount the drive with serial {drives.world.serials['P01']} there.",
        )
    finally:
        subprocess.run(["umount", other], check=True)


@pytest.fixture
def lsblk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``lsblk(script)`` stands in for the system's."""

    def stand_in(script: str) -> None:
        path = tmp_path / "lsblk"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(mounts, "_LSBLK", (str(path),))

    return stand_in


def says(serial: str, wwn: str | None) -> str:
    """An lsblk that knows one drive, by this serial and WWN."""
    identity = f'"serial":"{serial}","wwn":' + (f'"{wwn}"' if wwn else "null")
    return (
        "for last; do :; done; "
        f'echo \'{{"blockdevices":[{{"kname":"\'${{last#/dev/}}\'",{identity}}}]}}\''
    )


@pytest.mark.parametrize(
    ("serial", "wwn"), [("ZOTHER", None), ("ZTP01AA", "0x5000c500858bfea7"), ("ZTP01A", None)]
)
def test_the_wrong_drive_is_refused(
    drives: Rack, lsblk: Callable[[str], None], serial: str, wwn: str | None
) -> None:
    """Where the system knows the drive, it must be the database's, whatever its mark says."""
    drives.use("P01")
    lsblk(says(serial, wwn))
    device = loop(drives).loops["P01"].device.name
    identity = f"serial {serial}" + (f", ID {wwn}" if wwn else "")
    assert drives.refusal("P01", writing=True) == (
        "disk-wrong",
        f"P01: at {drives['P01']} is the drive {device} ({identity}), not serial ZTP01AA "
        f"ID {drives.world.logical_id('P01')}. Nothing was written. "
        "Mount every drive at the place of its own label.",
    )


def test_the_right_drive_is_held_by_its_logical_id(
    drives: Rack, lsblk: Callable[[str], None]
) -> None:
    """It may report more than its printed serial."""
    lsblk(says("ztp01aa0000C822", drives.world.logical_id("P01")))
    with drives.batch() as (mounted, disks):
        held = mounted.hold_for_writing(disks["P01"])
        device = loop(drives).loops["P01"].device.name
        assert held.drives == {"ZTP01AA0000C822", drives.world.logical_id("P01"), device}


def test_a_printed_serial_that_fits_two_drives_proves_neither(
    drives: Rack, lsblk: Callable[[str], None]
) -> None:
    """Where the logical ID is not known, the beginning of a serial must be one disk's alone."""
    drives.world.sql(
        "INSERT INTO disks (label, role, serial, logical_id) VALUES ('P02', 'primary', 'ZTP0', 'x')"
    )
    lsblk(says("ZTP01AA0000C822", None))
    kind, said = drives.refusal("P01", writing=True)
    assert kind == "disk-wrong"
    assert "may as well be P02 (ZTP0)" in said
    lsblk(says("ZTP01AA0000C822", drives.world.logical_id("P01")))
    drives.use("P01")


@pytest.mark.parametrize("script", ["exec sleep 60", "exit 1", "echo oops"])
def test_a_hanging_lsblk_never_ends_a_pass(
    drives: Rack, lsblk: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """Then only the mark proves the drive, or the drive is refused; nothing else happens."""
    drives.use("P01")
    monkeypatch.setattr(mounts, "_LSBLK_TIMEOUT_S", 0.3)
    lsblk(script)
    with drives.batch() as (mounted, disks):
        try:
            mounted.hold_for_writing(disks["P01"])
        except DiskRefused as refusal:
            assert refusal.kind == "disk-error"


# --- several paths, several drives ----------------------------------------------------------


class Below:
    """What /sys and lsblk say of the drives below P01's mount, in place of its loop device."""

    def __init__(self, rack: Rack, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._monkeypatch = root, monkeypatch
        rdev = os.stat(loop(rack).loops["P01"].device).st_rdev
        self._number = f"{os.major(rdev)}:{os.minor(rdev)}"
        self.own = ("ZTP01AA0000C822", rack.world.logical_id("P01"))

    def are(self, kind: str, *drives: tuple[str | None, str | None]) -> None:
        """sda, sdb, … by serial and WWN, below a device whose dm/uuid begins with ``kind``."""
        top = self._root / "sys" / "dm-0"
        (top / "slaves").mkdir(parents=True)
        (top / "dm").mkdir()
        (top / "dm" / "uuid").write_text(f"{kind}-35000c500858bfea7\n")
        said = []
        for due_message, (serial, wwn) in zip("abc", drives, strict=False):
            name = f"sd{due_message}"
            (self._root / "sys" / name).mkdir()
            (top / "slaves" / name).symlink_to(self._root / "sys" / name)
            said.append({"kname": name, "serial": serial, "wwn": wwn, "size": 1})
        (self._root / "dev").mkdir()
        (self._root / "dev" / self._number).symlink_to(top)
        (self._root / "lsblk.json").write_text(json.dumps({"blockdevices": said}))
        script = self._root / "lsblk"
        script.write_text(f"#!/bin/sh\ncat {self._root}/lsblk.json\n")
        script.chmod(0o755)
        self._monkeypatch.setattr(mounts, "_LSBLK", (str(script),))
        self._monkeypatch.setattr(mounts, "_SYS_BLOCK", self._root / "dev")
        self._monkeypatch.setattr(mounts, "_CLASS_BLOCK", self._root / "sys")


@pytest.fixture
def below(drives: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Below:
    root = tmp_path / "below"
    root.mkdir()
    return Below(drives, root, monkeypatch)


OTHER = ("ZA19TWIN", "0x5000c500858bfec9")


@pytest.mark.parametrize("wrong", [(0,), (1,), (0, 1)])
def test_on_every_path_of_multipath_is_this_disks_drive(
    drives: Rack, below: Below, wrong: tuple[int, ...]
) -> None:
    """One path to another drive is enough to refuse it, and to read nothing of it either."""
    below.are("mpath", *(OTHER if path in wrong else below.own for path in range(2)))
    name = "sda" if 0 in wrong else "sdb"
    for writing in (True, False):
        assert drives.refusal("P01", writing) == (
            "disk-wrong",
            f"P01: at {drives['P01']} is the drive {name} (serial {OTHER[0]}, ID {OTHER[1]}), not "
            f"serial ZTP01AA ID {drives.world.logical_id('P01')}. Nothing was written. "
            "Mount every drive at the place of its own label.",
        )
    assert os.listdir(drives["P01"]) == []


def test_two_paths_to_the_right_drive_are_the_disk(drives: Rack, below: Below) -> None:
    """Multipath over one SAS drive: also where one path tells its logical ID alone."""
    below.are("mpath", below.own, (None, below.own[1]))
    with drives.batch() as (mounted, disks):
        held = mounted.hold_for_writing(disks["P01"])
        assert held.unsupported is None
        assert held.drives == {*below.own, "sda", "sdb"}


def test_a_disk_is_not_on_drives_that_are_all_wrong(drives: Rack, below: Below) -> None:
    """LVM or RAID over two other drives: with several drives, too, one must be the disk's."""
    below.are("LVM", OTHER, ("ZA20TWIN", "0x5000c500858bfed0"))
    assert drives.refusal("P01")[0] == "disk-wrong"


def test_a_disk_below_a_cache_on_another_drive_is_read_only_by_us(
    drives: Rack, below: Below
) -> None:
    """dm-cache, dm-writecache, bcache: what was flushed may be on the shared SSD alone."""
    below.are("CACHE", below.own, ("S437NC0R203374", None))
    kind, said = drives.refusal("P01", writing=True)
    assert kind == "disk-wrong"
    assert said.startswith(f"P01: it is on several drives: sda (serial {below.own[0]}")
    with drives.batch() as (mounted, disks):
        held = mounted.hold(disks["P01"])
        assert "S437NC0R203374" in held.drives  # whoever is on that SSD is not apart from it


def test_a_printed_serial_is_one_disks_alone_on_each_path(drives: Rack, below: Below) -> None:
    """Where a path tells no logical ID, the beginning of a serial must not fit two disks."""
    drives.world.sql(
        "INSERT INTO disks (label, role, serial, logical_id) VALUES ('P02', 'primary', 'ZTP0', 'x')"
    )
    below.are("mpath", below.own, (below.own[0], None))
    kind, said = drives.refusal("P01", writing=True)
    assert kind == "disk-wrong"
    assert "the drive sdb (serial ZTP01AA0000C822)" in said


def test_a_sas_drive_that_old_lsblk_gives_its_wwn_as_serial_is_the_disk(
    drives: Rack, lsblk: Callable[[str], None]
) -> None:
    """The logical ID agrees; what is called a serial is none (util-linux issues 750, 1143)."""
    logical_id = drives.world.logical_id("P01")
    lsblk(says(logical_id.removeprefix("0x"), logical_id))
    with drives.batch() as (mounted, disks):
        assert mounted.hold_for_writing(disks["P01"]).unsupported is None


# --- two labels, one drive ------------------------------------------------------------------


class Partitions(World):
    """Drives are asked for; the test mounts them."""

    require_mount = True


@pytest.mark.root
def test_two_partitions_of_one_drive_take_no_two_copies(tmp_path: Path) -> None:
    """The file stays in the buffer, and a person is told which two labels are one drive."""
    world = Partitions(tmp_path, ["P01"], ["S01"], AcceptUnidentifiedDrives="yes")
    world.put("a.g3", 1000)
    with two_partitions(world.root / "two.img", (world.disks["P01"], world.disks["S01"])):
        world.generate()
        world.run_pass(check=1)
        assert world.waiting() == {"a.g3"}
        rows = world.sql("SELECT key, text FROM notices WHERE kind = 'disk-wrong'")
        assert [row["key"] for row in rows] in (["P01"], ["S01"])
        assert "it is on the same physical drive as " in rows[0]["text"]
        rack = Rack.__new__(Rack)
        rack.world = world
        with rack.batch() as (mounted, disks):
            mounted.hold(disks["P01"])
            with pytest.raises(DiskRefused, match="on the same physical drive as P01"):
                mounted.hold(disks["S01"])
        world.close()


@pytest.mark.root
def test_two_labels_of_a_role_are_two_drives(tmp_path: Path) -> None:
    """Two primaries on one drive: only one of them can be the disk that it should be."""
    world = Partitions(tmp_path, ["P01", "P02"], [], AcceptUnidentifiedDrives="yes")
    with two_partitions(world.root / "two.img", (world.disks["P01"], world.disks["P02"])):
        rack = Rack(world)
        with rack.batch() as (mounted, disks):
            mounted.hold(disks["P01"])
            with pytest.raises(DiskRefused) as caught:
                mounted.hold(disks["P02"])
    assert caught.value.kind == "disk-wrong"


def test_stand_ins_are_apart_if_they_are_two_directories(rack: Rack) -> None:
    """A link makes no second disk; of a drive whose identity is unknown nothing can be said."""
    rack["S01"].rmdir()
    rack["S01"].symlink_to(rack["P01"])
    with rack.batch() as (mounted, disks):
        held = {label: mounted.hold(disks[label]) for label in ("P01", "P02")}
        assert held["P01"].is_on_another_drive_than(held["P02"])
        with pytest.raises(DiskRefused, match="on the same physical drive as P01"):
            mounted.hold(disks["S01"])
