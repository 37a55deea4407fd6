"""Each kind of notice: its real condition, the message that people get, and the one of its end.

The scripts run as cron runs them; the message is read from a real mail server, and from what the
pager got. tests/helpers/people.py says how a message must read.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import poledata.archive.buffer
import poledata.status.conditions
from poledata.formatting import utc
from poledata.models import Severity
from poledata.notices.kinds import DIGEST, KINDS
from tests.helpers import recorded_drives as smart
from tests.helpers.bugs import with_bug, with_constant
from tests.helpers.halted import HaltedPass, killed_pass, needs_strace, ready_world
from tests.helpers.loopdisks import LoopDisk, LoopWorld
from tests.helpers.other_users import POWERLESS
from tests.helpers.people import People, Story, heads, paragraph
from tests.helpers.rack import plug_in_again, pull, swap
from tests.helpers.stations import IMPATIENT, try_at_once
from tests.helpers.world import World

MB = 1_000_000
HOUR_S, DAY_S = 3600.0, 86_400.0
BROUGHT_ABOUT: set[str] = set()  # the kinds with a test below


def brings_about(*kinds: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test of these kinds."""

    def marked(test: Callable[..., None]) -> Callable[..., None]:
        BROUGHT_ABOUT.update(kinds)
        return test

    return marked


def test_every_kind_is_brought_about_below() -> None:
    """A new kind needs a test with its real condition, and its delivered message read."""
    assert sorted(BROUGHT_ABOUT) == sorted(KINDS)


@pytest.fixture
def story(world: World, people: People) -> Story:
    """On stand-ins, P01 and S01 in use."""
    return Story(ready_world(world), people)


@pytest.fixture
def real(loop_world: LoopWorld, people: People) -> Story:
    """On real mounts, P01 and S01 in use."""
    return Story(ready_world(loop_world), people)


def loops(story: Story) -> LoopWorld:
    assert isinstance(story.world, LoopWorld)
    return story.world


# --- disks ----------------------------------------------------------------------------------


@brings_about("no-disk")
def test_a_role_without_any_disk(real: Story) -> None:
    """Both copy disks are unmounted: the page rings; one is mounted again: it is over."""
    for label in ("S01", "S02"):
        loops(real).loops[label].umount()
    real.world.put("a.g3")
    mail = real.opens("no-disk", "copy", 1)
    assert mail.subject == (
        "[pole-data] CRITICAL copy: no disk of this role can take files (+1 more)"
    )
    assert heads(mail, "NEW") == {"CRITICAL no-disk", "WARNING disk-missing"}
    real.quiet(check=1)
    for label in ("S01", "S02"):
        loops(real).loops[label].mount()
    real.ends("no-disk", "copy")


@brings_about("disk-missing")
def test_a_disk_in_use_that_is_not_mounted(real: Story) -> None:
    """Its place and its serial stand in the text."""
    loops(real).loops["P01"].umount()
    real.world.put("a.g3")
    mail = real.opens("disk-missing", "P01", 1)
    assert mail.subject == "[pole-data] WARNING P01: the disk in use is not there"
    said = paragraph(mail, "disk-missing")
    assert str(real.world.disks["P01"]) in said and "ZTP01AA" in said
    real.quiet()
    loops(real).loops["P01"].mount()
    real.ends("disk-missing", "P01")


@brings_about("disk-wrong")
def test_a_swapped_pair_of_disks(real: Story) -> None:
    """Two disks at each other's place are one message."""
    swap(loops(real), "P01", "P02")
    real.world.put("a.g3")
    mail = real.opens("disk-wrong", "P01", 1)
    assert heads(mail, "NEW") == {"WARNING disk-wrong", "CRITICAL no-disk"}
    assert "P02" in paragraph(mail, "disk-wrong")
    swap(loops(real), "P01", "P02")
    real.ends("disk-wrong", "P01")


@brings_about("disk-read-only")
def test_a_disk_that_was_remounted_read_only(real: Story) -> None:
    """As the kernel does it when a file system has errors."""
    loops(real).loops["P01"].remount("ro")
    real.world.put("a.g3")
    real.opens("disk-read-only", "P01", 1)
    loops(real).loops["P01"].remount("rw")
    real.ends("disk-read-only", "P01")


@brings_about("disk-error")
def test_a_disk_that_answers_with_errors(real: Story) -> None:
    """EIO from a file system that is shut down as by a pulled drive."""
    pull(loops(real), "P01")
    real.world.put("a.g3")
    mail = real.opens("disk-error", "P01", 1)
    assert "Input/output error" in paragraph(mail, "disk-error")
    plug_in_again(loops(real), "P01")
    real.world.put("b.g3")
    real.ends("disk-error", "P01")


@brings_about("spares-low")
def test_spares_that_run_out(tmp_path: Path, people: People) -> None:
    """One spare copy disk is left of the two wanted; the date is there once there is a rate."""
    world = World(tmp_path, ["P01", "P02", "P03"], ["S01", "S02"], SpareDisksLow="2")
    story = Story(ready_world(world), people)
    mail = story.opens("spares-low", "copy", 0)
    said = paragraph(mail, "spares-low")
    assert heads(mail, "NEW") == {"WARNING spares-low"} and "primary" not in said.splitlines()[0]
    assert "1 copy disks are mounted and spare. The disks in use and these have room for" in said
    assert re.search("at the last week's rate that is used up (on 2|in years)", said)
    world.add_disk("S03")
    world.generate()
    story.ends("spares-low", "copy")
    world.close()


@brings_about("smart-failing", "smart-warning", "drive-missing")
def test_a_drive_that_goes_from_bad_to_worse_and_away(story: Story) -> None:
    """Recorded answers of real smartctl; test_drive_health asks the drives themselves."""
    world = story.world
    for alter, kind, code in (
        ([smart.raw(197, 8)], "smart-warning", 0),
        ([smart.FAILED], "smart-failing", 0),
    ):
        smart.check(world, *smart.all_well(world, smart.answer(world, "P01", "sata-good", *alter)))
        (mail,) = story.news(check=code)
        assert any(f" {kind}" in head for head in heads(mail, "NEW"))
        assert "serial ZTP01AA" in paragraph(mail, kind)
    away = [each for each in smart.all_well(world) if each.drive.serial != "ZTS01AA"]
    smart.check(world, *away)
    (mail,) = story.news(check=0)
    assert "WARNING drive-missing" in heads(mail, "NEW")
    assert "smart-failing" in {head.split()[1] for head in heads(mail, "RESOLVED")}
    smart.check(world, *smart.all_well(world))
    (mail,) = story.news(check=0)
    assert {head.split()[1] for head in heads(mail, "RESOLVED")} == {"drive-missing"}
    story.quiet(check=0)


@brings_about("smart-unknown")
def test_a_drive_that_gives_no_health_data(story: Story) -> None:
    """Once may be chance; it ends with the next real answer."""
    world = story.world
    dead = smart.answer(world, "P01", "sata-dead")
    smart.check(world, *smart.all_well(world, dead))
    smart.check(world, *smart.all_well(world, dead))
    (mail,) = story.news(check=0)
    assert "WARNING smart-unknown" in heads(mail, "NEW")
    assert "present, but gives no health data" in paragraph(mail, "smart-unknown")
    smart.check(world, *smart.all_well(world))
    (mail,) = story.news(check=0)
    assert {head.split()[1] for head in heads(mail, "RESOLVED")} == {"smart-unknown"}
    story.quiet(check=0)


@brings_about("disk-closed")
def test_a_disk_that_is_closed(story: Story) -> None:
    """Its slip says which drive to take out; it is over when that leaves the station."""
    story.run("close", "--yes", "P01", check=0)
    mail = story.opens("disk-closed", "P01", 0)
    assert mail.subject == "[pole-data] INFO P01: is full and closed: take it out"
    assert "serial ZTP01AA" in paragraph(mail, "disk-closed")
    story.run("ship", "P01", check=0)
    story.ends("disk-closed", "P01")


@brings_about("not-received")
def test_a_shipped_disk_without_a_receipt(story: Story) -> None:
    """Named by its serial, because its label is free; over when it turns out that it is here."""
    story.run("close", "P01", check=0)
    story.opens("disk-closed", "P01", 0)
    story.run("ship", "P01", "--box", "3", check=0)
    story.ends("disk-closed", "P01")
    story.world.configure(ReceiptExpected="1 s")
    time.sleep(1.1)
    mail = story.opens("not-received", "ZTP01AA", 0)
    assert mail.subject == "[pole-data] WARNING ZTP01AA: was shipped, and no receipt has come"
    assert "P01 (ZTP01AA) was shipped in box 3 on 20" in paragraph(mail, "not-received")
    story.quiet()
    story.run("ship", "--undo", "P01", check=0)
    story.ends("not-received", "ZTP01AA")


@brings_about("content-suspect")
def test_an_archived_file_that_its_program_can_not_read(story: Story) -> None:
    """The empty one is named, once; nobody is notified again after it was acknowledged."""
    story.world.configure(CheckContent="g3: /bin/cat {path}")
    story.world.put("empty.g3", b"")
    story.quiet()
    story.quiet("check-content", check=1)
    mail = story.opens("content-suspect", "empty.g3", 0)
    assert mail.subject == "[pole-data] WARNING empty.g3: failed the check of its content"
    assert "its content is suspect: it is empty." in paragraph(mail, "content-suspect")
    story.quiet("ack", "content-suspect", "empty.g3", "--for", "365d", check=0)
    story.quiet()


@brings_about("no-good-copy")
def test_files_that_were_on_a_lost_disk_alone(story: Story) -> None:
    """No copy disk could take the file, and its primary is lost: over once both are made anew."""
    for label in ("P02", "S01", "S02"):
        story.run("hold", "--yes", label, "--why", "test", check=0)
    story.world.put("a.g3")
    story.opens("no-disk", "copy", 1)
    story.world.spoil("P01", None, "the test loses it")
    story.run("lost", "P01", "--why", "fell down", check=0)
    mail = story.opens("no-good-copy", "ZTP01AA", 1)
    assert "1 file that was on P01 has no good copy left, a.g3 among them" in paragraph(
        mail, "no-good-copy"
    )
    for label in ("P02", "S02"):
        story.run("unhold", label, check=0)
    story.ends("no-good-copy", "ZTP01AA")


@brings_about("copy-damaged")
def test_a_bit_that_flipped_on_a_disk(real: Story) -> None:
    """Found by ``verify``, which sends nothing itself: the next pass does."""
    loops(real).loops["P01"].flip_bit("data/seed.g3")
    real.quiet("verify", "P01", check=1)
    mail = real.opens("copy-damaged", "P01", 0)
    assert "1 copy on P01 is damaged, 0 missing, seed.g3" in paragraph(mail, "copy-damaged")
    loops(real).loops["P01"].flip_bit("data/seed.g3")
    real.quiet("verify", "P01", check=0)
    real.ends("copy-damaged", "P01")


# --- files ----------------------------------------------------------------------------------


@brings_about("hidden-files")
def test_data_that_a_transfer_left_under_a_hidden_name(story: Story) -> None:
    """Reported once it is older than a day, here a second; over when it has its name."""
    world, short_day = story.world, with_constant(poledata.archive.buffer, "DAY_S", 1.0)
    world.put(".0.g3.x7Qp2d.g3")
    story.quiet()
    time.sleep(2.5)
    mail = story.opens("hidden-files", "buffer", 0, prefix=short_day)
    assert mail.subject == "[pole-data] WARNING buffer: hidden data files are in the buffer"
    assert ".0.g3.x7Qp2d.g3" in paragraph(mail, "hidden-files")
    world.ledger.rename(".0.g3.x7Qp2d.g3", "0.g3")
    story.ends("hidden-files", "buffer")


@brings_about("copy-failed")
def test_a_file_that_can_not_be_read(story: Story) -> None:
    """Nothing at the first and second try, a message at the third, and its end."""
    story.world.put("a/closed.g3", mode=0o000)
    for _ in range(2):
        story.quiet(check=1, prefix=POWERLESS)
        try_at_once(story.world)
    mail = story.opens("copy-failed", "a/closed.g3", 1, prefix=POWERLESS)
    assert "Permission denied" in paragraph(mail, "copy-failed")
    try_at_once(story.world)
    story.quiet(check=1, prefix=POWERLESS)
    (story.world.buffer / "a/closed.g3").chmod(0o644)
    story.ends("copy-failed", "a/closed.g3")


@brings_about("not-removed")
def test_a_file_that_may_not_be_removed(story: Story) -> None:
    """The cron user has no right to write in the buffer's directory."""
    story.world.put("a/kept.g3")
    (story.world.buffer / "a").chmod(0o555)
    mail = story.opens("not-removed", "a/kept.g3", 1, prefix=POWERLESS)
    assert "Permission denied" in paragraph(mail, "not-removed")
    (story.world.buffer / "a").chmod(0o755)
    try_at_once(story.world)
    story.ends("not-removed", "a/kept.g3")


@brings_about("name-conflict")
def test_other_content_under_an_archived_name(story: Story) -> None:
    """It stays; its message ends when the file was renamed."""
    story.world.put("seed.g3", 999, seed=1)
    mail = story.opens("name-conflict", "seed.g3", 1)
    assert "other content is archived under this name" in paragraph(mail, "name-conflict")
    rename(story.world, "seed.g3", "other.g3")
    story.ends("name-conflict", "seed.g3")


@brings_about("bad-name")
@pytest.mark.parametrize("name", ["100%.g3", "line\nend.g3", os.fsdecode(b"caf\xe9.g3")])
def test_a_name_that_no_manifest_carries(story: Story, name: str) -> None:
    """Also one that no mail could carry: odd characters are shown escaped, on one line."""
    (story.world.buffer / name).write_text("x")
    mail = story.opens("bad-name", name[:3], 1)
    assert mail.subject.endswith(": this name can't be archived")
    (story.world.buffer / name).unlink()
    story.ends("bad-name", name[:3])


@brings_about("config-error")
def test_a_log_whose_directory_went_with_a_reboot(story: Story) -> None:
    """Archiving goes on; the message names the log."""
    directory = story.world.root / "log"
    story.world.configure(LogFile=str(directory / "pole.log"))
    mail = story.opens("config-error", "LogFile", 0)
    assert mail.subject.endswith("LogFile: can't be used as it is")
    assert f"{directory}/pole.log can't be written: No such file or directory" in mail.body
    directory.mkdir()
    story.ends("config-error", "LogFile")


@brings_about("opened-at-removal")
def test_a_file_that_is_opened_in_the_instant_of_its_removal(story: Story) -> None:
    """By its hidden name, after the last look: the page rings; a day later it is over."""
    story.world.put("a.g3")
    mail = story.opens("opened-at-removal", "a.g3", 0, prefix=OPENS_AT_REMOVAL)
    assert mail.subject == "[pole-data] CRITICAL a.g3: was opened for writing while it was removed"
    assert story.world.archived("P01") == story.world.archived("S01") == {"a.g3", "seed.g3"}
    story.quiet()
    story.world.sql("UPDATE findings SET found_at = ?", utc(time.time() - 25 * HOUR_S))
    story.ends("opened-at-removal", "a.g3")


# Runs a script beside another program, which opens a file just before the unlink of it.
OPENS_AT_REMOVAL = (
    sys.executable,
    "-c",
    """
import os, runpy, subprocess, sys
del sys.argv[:2]
sys.path.insert(0, sys.argv[0].rpartition('/')[0])
real = os.unlink
def unlink(path, *, dir_fd=None):
    if path == '.a.g3.removing':
        whole = f'{os.readlink(f"/proc/self/fd/{dir_fd}")}/{path}'
        writer = subprocess.Popen(['sh', '-c', 'exec 3>>"$1"', 'sh', whole])
        while 'break_lease' not in open(f'/proc/{writer.pid}/wchan').read():
            assert writer.poll() is None
    real(path, dir_fd=dir_fd)
os.unlink = unlink
runpy.run_path(sys.argv[0], run_name='__main__')
""",
)


def rename(world: World, old: str, new: str) -> None:
    (world.buffer / old).rename(world.buffer / new)
    world.ledger.saw(new)
    world.ledger.withdraw(old, "the test renames it")


# --- the buffer -----------------------------------------------------------------------------


@brings_about("buffer-wrong")
def test_a_buffer_that_is_not_mounted(story: Story) -> None:
    """Its place is an empty directory: the page rings; when it is back the file is archived."""
    story.quiet()  # the buffer gets its marker
    story.world.put("a.g3")
    aside = story.world.buffer.with_name("aside")
    story.world.buffer.rename(aside)
    story.world.buffer.mkdir()
    mail = story.opens("buffer-wrong", "buffer", 1)
    assert (
        mail.subject == "[pole-data] CRITICAL buffer: the buffer is not mounted, or another one is"
    )
    assert str(story.world.buffer) in paragraph(mail, "buffer-wrong")
    assert list(story.world.buffer.iterdir()) == []
    story.quiet(check=1)
    story.world.buffer.rmdir()
    aside.rename(story.world.buffer)
    story.ends("buffer-wrong", "buffer")
    assert "a.g3" in story.world.archived("P01")


@brings_about("buffer-full")
def test_a_buffer_that_fills_up(
    world: World, people: People, loop_disk: Callable[..., LoopDisk]
) -> None:
    """A warning at 80 %; at 95 % the pager rings; each once; and when there is room again."""
    loop_disk(world.root / "buffer.img", world.buffer, size_mb=100, fs="ext4")
    world.configure(BufferFullPercent="80")
    world.put("of-today.g3", 10 * MB)
    story = Story(ready_world(world), people)
    story.quiet()
    fill(world.buffer, 85)
    mail = story.opens("buffer-full", "buffer", 0)
    said = paragraph(mail, "buffer-full")
    assert re.search(
        r"is 8[4-6] % full, .* are free\. In the last day .* arrived and .* were", said
    )
    assert "If nothing is archived it will be full on 2" in said
    fill(world.buffer, 88)
    story.quiet()
    fill(world.buffer, 97)
    mail = story.opens("buffer-full", "buffer", 0, severity=Severity.CRITICAL)
    assert mail.subject == "[pole-data] CRITICAL buffer: worse: the buffer is filling up"
    fill(world.buffer, 90)
    story.quiet()
    fill(world.buffer, 0)
    story.ends("buffer-full", "buffer")


def fill(buffer: Path, percent: float) -> None:
    """With data that is not ours, to so many percent of the room."""
    with open(buffer / "other.dat", "ab") as file:
        vfs = os.statvfs(buffer)
        ours = os.fstat(file.fileno()).st_blocks * 512
        others = (vfs.f_blocks - vfs.f_bfree) * vfs.f_frsize - ours
        room = others + ours + vfs.f_bavail * vfs.f_frsize
        wanted = max(1, int(room * percent / 100) - others)
        file.truncate(min(wanted, ours))
        os.posix_fallocate(file.fileno(), 0, wanted)


@brings_about("no-new-files")
@pytest.mark.parametrize("why", ["nothing arrived", "open", "failed", "paused", "never any"])
def test_nothing_new_for_hours(story: Story, why: str) -> None:
    """It says which: nothing arrives, or files wait, and why; also before the first file."""
    seven_hours_pass(story.world)
    with ExitStack() as meanwhile:
        said = {
            "nothing arrived": _nothing,
            "open": _open,
            "failed": _failed,
            "paused": _paused,
            "never any": _never_any,
        }[why](story, meanwhile)
        mail = story.opens("no-new-files", "archive", 1 if why == "failed" else 0)
        assert said in paragraph(mail, "no-new-files")
        story.quiet()
    story.world.put("new.g3")
    story.ends("no-new-files", "archive", None)


def seven_hours_pass(world: World) -> None:
    """In the database."""
    world.configure(NoNewFilesAfter="6 h")
    for column in ("files SET archived_at", "disk_events SET at"):
        world.sql(f"UPDATE {column} = ?", utc(time.time() - 7 * HOUR_S))


def _nothing(story: Story, meanwhile: ExitStack) -> str:
    return f"Nothing arrived: no file waits in {story.world.buffer}."


def _open(story: Story, meanwhile: ExitStack) -> str:
    story.world.put("growing.g3")
    meanwhile.enter_context((story.world.buffer / "growing.g3").open("ab"))
    return f"Files wait in {story.world.buffer}: 1 are still open for writing."


def _failed(story: Story, meanwhile: ExitStack) -> str:
    story.world.put("seed.g3", 999, seed=1)
    return f"Files wait in {story.world.buffer}: 1 failed."


def _paused(story: Story, meanwhile: ExitStack) -> str:
    story.run("pause", "--why", "night", check=0)
    meanwhile.callback(story.run, "resume", check=0)
    return "The archive is paused: night."


def _never_any(story: Story, meanwhile: ExitStack) -> str:
    story.world.leave_unchecked("the test forgets what is archived")
    for table in ("copies", "files"):
        story.world.sql(f"DELETE FROM {table}")
    return "No file since 20"


# --- passes ---------------------------------------------------------------------------------


@brings_about("defect")
def test_a_bug_that_is_hit_at_one_check(story: Story) -> None:
    """The file is archived, the page rings; it is over with the pass that does not hit it."""
    story.world.put("a.g3")
    bug = with_bug(poledata.status.conditions, "_takes_files", "True")
    mail = story.opens("defect", "the condition spares", 3, prefix=bug)
    assert mail.subject == "[pole-data] CRITICAL the condition spares: the program has a bug"
    assert "RuntimeError" in paragraph(mail, "defect")
    assert story.world.waiting() == set()
    story.quiet(check=3, prefix=bug)
    story.ends("defect", "the condition spares")


@brings_about("pass-crashed")
@needs_strace
def test_a_pass_that_was_killed(story: Story) -> None:
    """The next one tells, goes on, and the one after that says that it is over."""
    story.world.put("a.g3")
    killed_pass(story.world, "linkat")
    mail = story.opens("pass-crashed", "data_manager", 0)
    assert "was killed or crashed" in mail.subject
    story.ends("pass-crashed", "data_manager")


@brings_about("pass-stuck")
@needs_strace
def test_a_pass_that_has_not_got_on_for_hours(story: Story) -> None:
    """The lock is held, and four hours old: the next pass rings, once, with exit 1."""
    story.world.put("a.g3")
    halted = HaltedPass(story.world, "linkat", [story.world.disks["P01"] / ".incoming"])
    lock = story.world.db_path.with_name(f"{story.world.db_path.name}.lock")
    story.quiet(check=0)
    os.utime(lock, (time.time() - 4 * HOUR_S,) * 2)
    mail = story.opens("pass-stuck", "data_manager", 1)
    assert mail.subject == ("[pole-data] CRITICAL data_manager: the pass at work makes no progress")
    assert "pgrep -f data_manager.py" in paragraph(mail, "pass-stuck")
    story.quiet(check=1)
    halted.go_on(check=0)
    story.ends("pass-stuck", "data_manager")


@brings_about("paused")
def test_a_paused_archive(story: Story) -> None:
    """Why, and until when; it is over when somebody resumes."""
    story.quiet("pause", "--why", "changing S07", "--for", "4h", check=0)
    mail = story.opens("paused", "archive", 0)
    assert mail.subject == "[pole-data] INFO archive: the archive is paused"
    assert "changing S07 (until 20" in paragraph(mail, "paused")
    story.quiet("resume", check=0)
    story.ends("paused", "archive")


@brings_about(DIGEST)
def test_a_daily_digest(story: Story) -> None:
    """What ``status`` prints, at once; never on the pager, and nothing follows it."""
    (mail,) = story.news("status", "--send", check=0)
    assert re.fullmatch(
        r"\[pole-data\] INFO 20\d\d-\d\d-\d\d ALL WELL: 100 B archived in a day",
        mail.subject,
    )
    assert "No file has failed.\nNo open notice.\n" in mail.body
    assert story.people.pages == []
    story.quiet()


# --- the database ---------------------------------------------------------------------------


@brings_about("database-error", "database-locked")
@pytest.mark.parametrize("how", ["moved away", "locked", "damaged", "of a newer program"])
def test_a_database_that_does_not_answer(story: Story, how: str) -> None:
    """It can't be stored, and is told all the same, once; then its end."""
    db_path, aside = story.world.db_path, story.world.db_path.with_name("aside")
    with closing(sqlite3.connect(db_path, isolation_level=None)) as held:
        if how == "moved away":
            db_path.rename(aside)
        elif how == "locked":
            held.execute("BEGIN EXCLUSIVE")
        elif how == "damaged":
            aside.write_bytes(db_path.read_bytes())
            db_path.write_bytes(b"SQLite format 3\0" + b"\xff" * 20_000)
        else:
            held.execute("PRAGMA user_version = 99")
        (mail,) = no_database(story)
        for _ in range(2):
            assert no_database(story) == []
        if how in ("moved away", "damaged"):
            aside.replace(db_path)
        elif how == "locked":
            held.execute("ROLLBACK")
        else:
            held.execute(f"PRAGMA user_version = {schema_version()}")
    kind = "database-locked" if how == "locked" else "database-error"
    assert mail.subject == f"[pole-data] CRITICAL database: {KINDS[kind].headline}"
    holder = f"It is locked by process {os.getpid()} (" if how == "locked" else str(db_path)
    for part in (holder, str(db_path), "What is safe: ", "  1. ", f"section {kind} in docs"):
        assert part in mail.body, mail.body
    story.ends(kind, "database")


def test_a_database_on_a_file_system_that_turned_read_only(
    world: World, people: People, loop_disk: Callable[..., LoopDisk]
) -> None:
    """Neither lock, nor log, nor stamp can be written: it is told all the same, and once."""
    disk = loop_disk(world.root / "db.img", world.db_path.parent, fs="ext4")
    story = Story(ready_world(world), people)
    disk.remount("ro")
    world.put("a.g3")
    (mail,) = no_database(story)
    assert no_database(story) == []
    disk.remount("rw")
    assert "readonly" in mail.body
    story.ends("database-error", "database")
    which = f"{zlib.crc32(str(world.db_path).encode()):08x}"
    assert list(Path("/dev/shm").glob(f"pole-data-{which}*")) == []


def no_database(story: Story) -> list[object]:
    """What a pass mails that has no database; the pager got the same."""
    mails, pages = len(story.people.mails), len(story.people.pages)
    story.run(check=(1, 2), prefix=IMPATIENT)
    new = story.people.mails[mails:]
    assert [page.subject for page in story.people.pages[pages:]] == [mail.subject for mail in new]
    return list(new)


def schema_version() -> int:
    from poledata import db

    return db.sqlite.SCHEMA_VERSION


# --- what only people can set right ---------------------------------------------------------


@brings_about("no-pass")
def test_a_cron_that_died_is_reported_by_the_next_command(story: Story) -> None:
    """No pass can: a command prints it and sends it, and the next pass ends it."""
    story.world.put("a.g3")
    for suffix in ("lock", "ended"):
        os.utime(f"{story.world.db_path}.{suffix}", (time.time() - HOUR_S,) * 2)
    mails = len(story.people.mails)
    run = story.run("resume", check=0)
    assert "WARNING The last pass began " in run.err and "crontab -l" in run.err
    (mail,) = story.people.mails[mails:]
    assert mail.subject == "[pole-data] CRITICAL archive: no pass runs"
    story.quiet("resume", check=0)
    story.ends("no-pass", "archive")


@brings_about("clock")
def test_a_clock_that_is_behind_the_database(story: Story) -> None:
    """A year too early, or a year too late before: it ends when the time has come."""
    story.world.sql("UPDATE files SET archived_at = '2099-01-01T00:00:00Z'")
    mail = story.opens("clock", "archive", 0)
    assert "is of 2099-01-01T00:00:00Z, which has not come yet" in paragraph(mail, "clock")
    story.quiet()
    story.world.sql("UPDATE files SET archived_at = ?", utc(time.time()))
    story.ends("clock", "archive")


@brings_about("file-open-long")
def test_a_file_that_is_open_for_more_than_a_day(story: Story) -> None:
    """Not before; once it is closed it is archived, and that is over."""
    story.world.put("a.g3")
    with (story.world.buffer / "a.g3").open("ab"):
        story.quiet(check=0)
        day_ago = utc(time.time() - 25 * HOUR_S)
        story.world.sql("UPDATE findings SET found_at = ? WHERE kind = 'file-open-long'", day_ago)
        story.opens("file-open-long", "a.g3", 0)
        story.quiet(check=0)
    story.ends("file-open-long", "a.g3")
    assert story.world.waiting() == set()


@brings_about("disk-differs")
def test_a_file_on_a_disk_that_nobody_registered(story: Story) -> None:
    """``verify`` finds it, the next pass sends it; it ends with a verification without it."""
    strange = story.world.disks["P01"] / "data" / "notes.txt"
    strange.write_text("mine")
    story.quiet("verify", "P01", check=1)
    mail = story.opens("disk-differs", "P01", 0)
    assert "1 unregistered (notes.txt)" in paragraph(mail, "disk-differs")
    strange.unlink()
    story.quiet("verify", "P01", check=0)
    story.ends("disk-differs", "P01")


def test_an_older_database_that_was_put_back(story: Story) -> None:
    """At the next pass, though no file waits: the manifests are longer than it knows."""
    world = story.world
    old = world.db_path.read_bytes()
    world.put("a.g3")
    story.quiet()
    world.db_path.write_bytes(old)
    world.leave_unchecked("an older database was put back")
    mail = story.opens("disk-differs", "P01", 0)
    assert "2 disks are not what the database knows" in mail.subject
    assert "an older database was put back" in paragraph(mail, "disk-differs")


def test_an_older_image_of_a_disk_that_is_mounted(story: Story) -> None:
    """Its manifest is shorter than the database knows."""
    world, manifest = story.world, story.world.disks["P01"] / "manifest-sha512.txt"
    old = manifest.read_bytes()
    world.put("a.g3")
    story.quiet()
    manifest.write_bytes(old)
    world.leave_unchecked("an older image of P01 is mounted")
    mail = story.opens("disk-differs", "P01", 0)
    assert "is shorter than this database knows" in paragraph(mail, "disk-differs")


@brings_about("smart-stale")
def test_drives_that_nobody_asked_for_more_than_eight_days(real: Story) -> None:
    """Not in the first week after their first use."""
    smart_is_known(real.world, "2026-01-01T00:00:00Z")
    real.quiet(check=0)
    real.world.sql("UPDATE disks SET first_used_at = '2026-01-01T00:00:00Z' WHERE state = 'active'")
    mail = real.opens("smart-stale", "drives", 0)
    assert "P01 S01" in paragraph(mail, "smart-stale")
    smart_is_known(real.world, utc(time.time()))
    real.ends("smart-stale", "drives")


def smart_is_known(world: World, at: str) -> None:
    world.sql("DELETE FROM smart_checks")
    world.sql(
        "INSERT INTO smart_checks (disk_id, at, health) SELECT id, ?, 'healthy' FROM disks", at
    )


@brings_about("not-told")
def test_a_channel_that_fails_for_an_hour(story: Story) -> None:
    """The other channels say so; it is over with the first message that gets through."""
    story.world.configure(SpareDisksLow="2")
    env = {"POLE_PAGER_COMMAND": "false"}
    story.world.sql("UPDATE disks SET state = 'lost' WHERE label = 'nothing'")
    story.run(env=env, check=0)
    story.run("hold", "--yes", "P01", "--why", "x", env=env, check=0)
    story.run("hold", "--yes", "P02", "--why", "x", env=env, check=0)
    story.world.put("a.g3")
    story.run(env=env, check=1)
    story.world.sql("UPDATE deliveries SET attempts = 12 WHERE last_error IS NOT NULL")
    mails = len(story.people.mails)
    story.run(env=env, check=1)
    (mail,) = story.people.mails[mails:]
    assert "not-told: pager-command: nothing can be sent through this channel" in mail.body
