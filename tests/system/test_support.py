"""New copies go only to what can keep them: XFS or ext4, whole, on one drive that is identified.

Each file system is made for real, with a disk of ours on it, and the pass, check and generate_db
refuse it by name; what is on it is read all the same, and never a reason to remove a file.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from poledata.system import file_systems, mounts
from tests.helpers.loopdisks import LoopWorld, attach, detach
from tests.helpers.stations import notice_text

MakeWorld = Callable[..., LoopWorld]

# --- by the mount and its drives ------------------------------------------------------------


@pytest.fixture(autouse=True)
def _sdb_has_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: object) -> None:
    """What /proc and /sys say of the invented mounts; real ones are looked at as they are."""
    if "world" in getattr(request, "fixturenames", ()):
        return
    (tmp_path / "jbd2" / "sdb-8").mkdir(parents=True)
    (tmp_path / "sys" / "8:16").mkdir(parents=True)
    (tmp_path / "sys" / "sdb").symlink_to("8:16")
    monkeypatch.setattr(file_systems, "_JBD2", tmp_path / "jbd2")
    monkeypatch.setattr(mounts, "blocks_of", lambda _: (tmp_path / "sdb",))


# --- for real -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """How P01's drive is formatted and mounted; ``{drive}``, ``{other}`` and ``{place}``."""

    commands: tuple[str, ...]
    why: str
    needs: str = "mount"


UNFIT = {
    "no journal": Made(
        ("mkfs.ext4 -q -F -O ^has_journal {drive}", "mount {drive} {place}"),
        "its ext4 has no journal inside",
    ),
    "journal elsewhere": Made(
        (
            "mke2fs -q -F -b 4096 -O journal_dev {other}",
            "mkfs.ext4 -q -F -b 4096 -J device={other} {drive}",
            "mount {drive} {place}",
        ),
        "its ext4 has no journal inside",
    ),
    "no barrier": Made(
        ("mkfs.ext4 -q -F {drive}", "mount -o nobarrier {drive} {place}"),
        "it is mounted with nobarrier",
    ),
    "log elsewhere": Made(
        (
            "mkfs.xfs -q -f -l logdev={other},size=64m {drive}",
            "mount -o logdev={other} {drive} {place}",
        ),
        "its XFS has a separate log (logdev={other})",
    ),
    "ext2": Made(
        ("mkfs.ext2 -q -F {drive}", "mount -t ext2 {drive} {place}"),
        "its file system is ext2, not XFS or ext4",
    ),
    "btrfs on two drives": Made(
        ("mkfs.btrfs -q -f -d single -m raid1 {drive} {other}", "mount {drive} {place}"),
        "its file system is btrfs, not XFS or ext4",
        "mkfs.btrfs",
    ),
    "NTFS": Made(
        ("mkfs.ntfs -q -F -f {drive}", "ntfs-3g {drive} {place}"),
        "its file system is fuseblk (NTFS, exFAT or another one through FUSE), not XFS or ext4",
        "mkfs.ntfs",
    ),
    "exFAT": Made(
        ("mkfs.exfat {drive}", "mount.exfat-fuse {drive} {place}"),
        "its file system is fuseblk (NTFS, exFAT or another one through FUSE), not XFS or ext4",
        "mount.exfat-fuse",
    ),
    "FUSE": Made(
        (
            "mkfs.ext4 -q -F {drive}",
            "mkdir {place}.below",
            "mount {drive} {place}.below",
            "bindfs {place}.below {place}",
        ),
        "its file system is FUSE (fuse), not XFS or ext4",
        "bindfs",
    ),
    "overlay": Made(
        (
            "mkfs.ext4 -q -F {drive}",
            "mkdir {place}.below",
            "mount {drive} {place}.below",
            "mkdir {place}.below/upper {place}.below/lower {place}.below/work",
            "mount -t overlay -o lowerdir={place}.below/lower,upperdir={place}.below/upper,"
            "workdir={place}.below/work overlay {place}",
        ),
        "its file system is overlay, not XFS or ext4",
    ),
    "tmpfs": Made(
        ("mount -t tmpfs -o size=64m tmpfs {place}",), "its file system is tmpfs, not XFS or ext4"
    ),
}
SEARCHED = "/usr/sbin:/sbin:/usr/bin:/bin"


@pytest.fixture
def put_at(tmp_path: Path) -> Iterator[Callable[[Made, Path], str]]:
    """Mount such a file system at a place, for the length of the test; why it is unfit."""
    with ExitStack() as down:

        def put(made: Made, place: Path) -> str:
            if not shutil.which(made.needs, path=SEARCHED):
                pytest.skip(f"needs {made.needs}")
            names = {"place": str(place)}
            for name in ("drive", "other"):
                image = tmp_path / f"{name}.img"
                with open(image, "xb") as file:
                    file.truncate(400 << 20)
                names[name] = str(attach(image))
                down.callback(detach, Path(names[name]))
            down.callback(unmount, Path(f"{place}.below"))
            down.callback(unmount, place)
            for command in made.commands:
                run = command.format(**names).split()
                subprocess.run(
                    run, check=True, env={"PATH": SEARCHED}, capture_output=True, text=True
                )
            return made.why.format(**names)

        yield put


def unmount(place: Path) -> None:
    """Wait for it: a FUSE daemon lets go of its drive a little later."""
    subprocess.run(["umount", place], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def world(make_loop_world: MakeWorld) -> LoopWorld:
    """A file is on P01 and S01; P02 and S02 are spares."""
    world = make_loop_world()
    world.put("a.g3", 70_000)
    world.generate()
    world.run_pass(check=0)
    return world


@pytest.mark.parametrize("made", UNFIT.values(), ids=UNFIT)
def test_an_unfit_spare_gets_nothing_and_the_next_disk_goes_on(
    world: LoopWorld, put_at: Callable[[Made, Path], str], made: Made
) -> None:
    """The pass, check and generate_db refuse it by name; nothing at all is written to it."""
    world.run_pass("close", "--yes", "P01", check=0)
    world.loops["P02"].umount()
    world.add_disk("P03")
    world.plug_in("P03", size_mb=64, fs="xfs")
    world.generate()
    why = put_at(made, world.disks["P02"])
    before = sorted(path.name for path in world.disks["P02"].iterdir())
    world.put("b.g3")
    world.run_pass(check=1)
    assert notice_text(world, "disk-wrong", "P02").startswith(f"{why} ({world.disks['P02']})."), (
        notice_text(world, "disk-wrong", "P02")
    )
    assert world.archived("P03") == {"b.g3"}
    assert world.waiting() == set()
    assert sorted(path.name for path in world.disks["P02"].iterdir()) == before
    assert f"FAULT P02: {why}" in world.run_pass("check", check=1).out
    rows = {row["label"]: row for row in world.generate("--json").json()}
    assert rows["P02"]["next_step"] == f"it gets no copies: {why}"
    assert rows["P03"]["next_step"] == ""
    unmount(world.disks["P02"])
    world.loops["P02"].mount()
    world.run_pass(check=0)
    assert ("disk-wrong", "P02") not in world.notices()


@pytest.mark.parametrize("made", UNFIT.values(), ids=UNFIT)
def test_what_is_on_an_unfit_disk_is_read_but_justifies_no_removal(
    world: LoopWorld, put_at: Callable[[Made, Path], str], made: Made
) -> None:
    """P01 in use is on it: verify and restore read it; a.g3 comes into the buffer again.

    It stays there until P02 has a copy that counts.
    """
    world.loops["P02"].umount()
    world.loops["P01"].umount()
    moved = world.root / "moved"
    moved.mkdir()
    world.loops["P01"].mount(at=moved)
    why = put_at(made, world.disks["P01"])
    subprocess.run(["cp", "-a", f"{moved}/.", world.disks["P01"]], check=True)
    world.loops["P01"].umount()
    verify = world.run_pass("verify", "P01", check=0)
    assert "1 cop" in verify.out
    world.loops["S01"].umount()
    restored = world.root / "restored"
    restored.mkdir()
    world.run_pass("restore", "a.g3", "--to", str(restored), check=0)
    assert (restored / "a.g3").stat().st_size == 70_000
    world.loops["S01"].mount()
    (row,) = world.sql(
        "SELECT verified_by FROM copies JOIN disks ON disks.id = disk_id WHERE label = 'P01'"
    )
    assert row["verified_by"] == "cached"  # what is below may have answered from its memory
    shutil.copy2(restored / "a.g3", world.buffer / "a.g3")
    world.put("b.g3")
    world.run_pass(check=1)
    assert notice_text(world, "disk-wrong", "P01").startswith(why)
    assert world.waiting() == {"a.g3", "b.g3"}
    world.loops["P02"].mount()
    world.run_pass(check=1)
    assert world.archived("P02") == {"a.g3", "b.g3"}
    assert world.waiting() == set()
    unmount(world.disks["P01"])
    world.loops["P01"].mount(at=world.disks["P01"])
    world.run_pass("verify", "P01", check=0)


@pytest.mark.parametrize("name", ["btrfs on two drives", "NTFS", "no barrier"])
def test_an_unfit_disk_can_be_closed_known_again_and_copied_from(
    world: LoopWorld, put_at: Callable[[Made, Path], str], name: str
) -> None:
    """It must not be stuck at the station: close it, make the database from it, repair from it."""
    world.loops["P01"].umount()
    moved = world.root / "moved"
    moved.mkdir()
    world.loops["P01"].mount(at=moved)
    put_at(UNFIT[name], world.disks["P01"])
    subprocess.run(["cp", "-a", f"{moved}/.", world.disks["P01"]], check=True)
    world.loops["P01"].umount()
    (world.disks["S01"] / "data" / "a.g3").unlink()
    world.run_pass("verify", "S01", check=1)
    world.run_pass("repair", check=0)
    assert world.archived("S01") == {"a.g3"}
    world.run_pass("close", "--yes", "P01", check=0)
    assert world.disk_states()["P01"] == "closed"
    world.db_path.unlink()
    world.run("generate_db.py", "--from-disks", check=0)
    rows = world.sql("SELECT label FROM disks JOIN copies ON disks.id = disk_id ORDER BY label")
    assert [row["label"] for row in rows] == ["P01", "S01"]
    world.leave_unchecked("P01's own drive knows nothing of what its copy was told")
