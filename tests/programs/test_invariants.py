"""The checker can fail: each invariant, broken once, is named; the loop disks do what they say."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.file_bytes import flip
from tests.helpers.invariants import (
    DECLARATION,
    InvariantsBroken,
    Ledger,
    check_invariants,
    sha512_of,
    snapshot,
)
from tests.helpers.loopdisks import LoopDisk, LoopWorld, two_partitions
from tests.helpers.rack import until

# Just the contract's columns.
SCHEMA = """
CREATE TABLE disks(id INTEGER PRIMARY KEY, label, role, serial, logical_id, state, held_by,
    held_reason, stand_in, capacity_bytes, used_bytes, free_bytes, measured_at, first_used_at,
    last_used_at);
CREATE TABLE disk_events(id INTEGER PRIMARY KEY, disk_id REFERENCES disks, at, event, reason);
CREATE TABLE files(id INTEGER PRIMARY KEY, name UNIQUE, size_bytes, sha512, mtime_ns, archived_at,
    removed_from_buffer_at);
CREATE TABLE copies(file_id REFERENCES files, disk_id REFERENCES disks, state, written_at,
    verified_at, verified_by, PRIMARY KEY(file_id, disk_id));
CREATE TABLE pending(name, attempts, first_failed_at, last_failed_at, next_try_at, last_error);
CREATE TABLE smart_checks(id INTEGER PRIMARY KEY, disk_id, at, health, temperature_c,
    power_on_hours, attributes);
CREATE TABLE notices(id INTEGER PRIMARY KEY, kind, key, severity, text, opened_at, times_sent,
    last_sent_at, resolved_at, acked_until, acked_value);
CREATE TABLE deliveries(notice_id, channel, attempts, sent_at, last_error);
CREATE TABLE passes(id INTEGER PRIMARY KEY, started_at, ended_at, outcome, files_archived,
    bytes_archived, files_failed);
"""
NAME = "fullrate/RCW38/80296951/0000.g3"
OTHER = "downsampled/RCW38/80296951/0000.g3"
WAITING = "fullrate/ra0hdec-44.75/80299999/0000.g3"
BEFORE, LATER = "2019-07-19T08:42:31Z", "2049-07-19T08:42:31Z"


class Archive:
    """Made by hand: NAME and OTHER archived on P01 and S01 and removed, WAITING in the buffer."""

    def __init__(self, root: Path) -> None:
        self.buffer, self.db_path = root / "buffer", root / "pole.sqlite"
        self.disks = {"P01": root / "P01", "S01": root / "S01"}
        self.ledger = Ledger(self.buffer)
        self.options: dict[str, Any] = {}
        with closing(sqlite3.connect(self.db_path)) as db:
            db.executescript(SCHEMA)
        for disk_id, (label, role) in enumerate((("P01", "primary"), ("S01", "copy")), start=1):
            self.make_disk(disk_id, label, role)
        for file_id, name in enumerate((NAME, OTHER), start=1):
            self.archive(file_id, name)
        self.ledger.put(WAITING)

    def make_disk(self, disk_id: int, label: str, role: str) -> None:
        path = self.disks[label]
        for directory in ("data", ".incoming", ".aside", "lost+found"):
            (path / directory).mkdir(parents=True)
        (path / "bagit.txt").write_text(DECLARATION)
        (path / "bag-info.txt").write_text(f"Pole-Label: {label}\nPole-Serial: ZT{label}XX\n")
        (path / "manifest-sha512.txt").touch()
        self.sql(
            "INSERT INTO disks(id, label, role, serial, logical_id, state, stand_in)"
            " VALUES (?, ?, ?, ?, ?, 'active', 0)",
            *(disk_id, label, role, f"ZT{label}XX00000C0048NEQ", f"0x{disk_id:016x}"),
        )

    def archive(self, file_id: int, name: str) -> None:
        entry = self.ledger.put(name)
        for path in self.disks.values():
            (path / "data" / name).parent.mkdir(parents=True)
            shutil.copy2(self.buffer / name, path / "data" / name)
            with open(path / "manifest-sha512.txt", "a") as manifest:
                manifest.write(f"{entry.sha512}  data/{name}\n")
        self.sql(
            "INSERT INTO files VALUES (?, ?, ?, ?, 0, ?, ?)",
            *(file_id, name, entry.size_bytes, entry.sha512, BEFORE, BEFORE),
        )
        for disk_id in (1, 2):
            self.sql(
                "INSERT INTO copies VALUES (?, ?, 'good', ?, ?, 'direct')",
                *(file_id, disk_id, BEFORE, BEFORE),
            )
        (self.buffer / name).unlink()

    def sql(self, query: str, *args: Any) -> None:
        with closing(sqlite3.connect(self.db_path)) as db, db:
            db.execute(query, args)

    def manifest(self, label: str = "P01") -> Path:
        return self.disks[label] / "manifest-sha512.txt"

    def copy(self, name: str = NAME, label: str = "P01") -> Path:
        return self.disks[label] / "data" / name

    def violations(self) -> tuple[str, ...]:
        try:
            check_invariants(self.ledger, self.buffer, self.db_path, self.disks, **self.options)
        except InvariantsBroken as broken:
            return broken.violations
        return ()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)


def close_disk(archive: Archive, label: str = "P01") -> None:
    """By hand, as the contract has it."""
    disk = archive.disks[label]
    (disk / ".incoming").rmdir()
    (disk / ".aside").rmdir()
    append(disk / "bag-info.txt", b"Payload-Oxum: 2000.2\n")
    tags = [disk / name for name in ("bag-info.txt", "bagit.txt", "manifest-sha512.txt")]
    (disk / "tagmanifest-sha512.txt").write_text(
        "".join(f"{sha512_of(tag)}  {tag.name}\n" for tag in tags)
    )
    archive.sql("UPDATE disks SET state = 'closed' WHERE label = ?", label)


# --- a good state passes ----------------------------------------------------------------


def test_a_sound_archive_passes(archive: Archive) -> None:
    assert archive.violations() == ()


def test_a_closed_disk_that_is_a_whole_bag_passes(archive: Archive) -> None:
    close_disk(archive)
    assert archive.violations() == ()


def test_checking_writes_nothing(archive: Archive, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    archive.violations()
    assert before.differences(snapshot(tmp_path)) == []


def test_a_crashed_transaction_is_judged_on_a_copy(archive: Archive, tmp_path: Path) -> None:
    """A hot journal is rolled back for the judgement, but stays for the program to find."""
    crash = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1')\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('DELETE FROM copies')\n"
        "db.executemany('INSERT INTO deliveries(channel) VALUES (?)', [('x' * 4000,)] * 50)\n"
        "os._exit(0)\n"
    )
    subprocess.run(["python3", "-c", crash, archive.db_path], check=True)
    assert Path(f"{archive.db_path}-journal").stat().st_size > 0
    before = snapshot(tmp_path)
    assert archive.violations() == ()
    assert before.differences(snapshot(tmp_path)) == []


# --- each invariant broken once ---------------------------------------------------------

Break = Callable[[Archive], object]


def lost(name: str, why: str) -> str:
    return f"(1) {name} with SHA-512 … is neither in the buffer nor archived: {why}"


NAME_ON_P01 = "WHERE (file_id, disk_id) = (1, 1)"
BROKEN: dict[str, tuple[Break, Collection[str]]] = {
    "a file vanished from the buffer": (
        lambda a: (a.buffer / WAITING).unlink(),
        [lost(WAITING, "the database does not know it")],
    ),
    "a file in the buffer was altered": (
        lambda a: flip(a.buffer / WAITING),
        [lost(WAITING, "the database does not know it")],
    ),
    "a symbolic link stands in the file's place": (
        lambda a: ((a.buffer / WAITING).rename(a.buffer / "aside"),
                   (a.buffer / WAITING).symlink_to(a.buffer / "aside")),
        [lost(WAITING, "the database does not know it")],
    ),
    "the buffer's second content was removed as if it were archived": (
        lambda a: (a.ledger.put(NAME, b"other"), (a.buffer / NAME).unlink()),
        [lost(NAME, "the database knows another content under this name")],
    ),
    "archived_at was never committed": (
        lambda a: a.sql("UPDATE files SET archived_at = NULL WHERE id = 1"),
        [lost(NAME, "archived_at is not set"),
         f"(4) files: {NAME} was removed from the buffer, but not archived"],
    ),
    "the second copy was never registered": (
        lambda a: a.sql("DELETE FROM copies WHERE (file_id, disk_id) = (1, 2)"),
        [lost(NAME, "no whole copy in role copy"),
         f"(4) files: {NAME} is archived, but with copies on P01 alone"],
    ),
    "a copy is known to be damaged": (
        lambda a: a.sql("UPDATE copies SET state = 'damaged' " + NAME_ON_P01),
        [lost(NAME, "its copy on P01 is damaged; no whole copy in role primary")],
    ),
    "both copies are in one role": (
        lambda a: a.sql("UPDATE disks SET role = 'copy' WHERE id = 1"),
        [lost(name, "no whole copy in role primary") for name in (NAME, OTHER)]
        + [f"(4) files: {name} is archived, but with copies on P01, S01 alone"
           for name in (NAME, OTHER)],
    ),
    "both copies are on one drive": (
        lambda a: a.sql("UPDATE disks SET serial = 'ZTP01XX'"),
        [lost(name, "both are on one drive")
         for name in (NAME, OTHER)]
        + [f"(4) files: {name} is archived, but with copies on P01, S01 alone"
           for name in (NAME, OTHER)]
        + ["(5) S01: bag-info.txt says serial ZTS01XX, not ZTP01XX",
           "(7) 2 disks have the serial ZTP01XX"],
    ),
    "a copy vanished from its disk": (
        lambda a: a.copy().unlink(),
        [lost(NAME, "it is not on P01; no whole copy in role primary"),
         f"(3) P01/manifest-sha512.txt: data/{NAME} is not there",
         f"(3) P01: sha512sum -c: exit 1: data/{NAME}: FAILED open or read; sha512sum:"
         f" data/{NAME}: No such file or directory; sha512sum: WARNING: 1 listed file could not be"
         " read",
         f"(4) copies: {NAME} on P01 is called good: it is not on P01"],
    ),
    "a bit of a copy flipped": (
        lambda a: flip(a.copy(), 500),
        [lost(NAME, "its copy on P01 has SHA-512 …; no whole copy in role primary"),
         f"(2) P01/data/{NAME} is not whole: its SHA-512 is …",
         f"(3) P01/manifest-sha512.txt: data/{NAME} has SHA-512 …",
         f"(3) P01: sha512sum -c: exit 1: data/{NAME}: FAILED; sha512sum: WARNING: 1 computed"
         " checksum did NOT match",
         f"(4) copies: {NAME} on P01 is called good: its copy on P01 has SHA-512 …"],
    ),
    "a copy was cut short": (
        lambda a: os.truncate(a.copy(), 999),
        [lost(NAME, "its copy on P01 has 999 bytes, not 1000; no whole copy in role primary"),
         f"(2) P01/data/{NAME} is not whole: its SHA-512 is …",
         f"(3) P01/manifest-sha512.txt: data/{NAME} has SHA-512 …",
         f"(3) P01: sha512sum -c: exit 1: data/{NAME}: FAILED; sha512sum: WARNING: 1 computed"
         " checksum did NOT match",
         f"(4) copies: {NAME} on P01 is called good: its copy on P01 has 999 bytes, not 1000"],
    ),
    "half a file stands under a final name": (
        lambda a: a.copy("20190719_084231.g3").write_bytes(b"half"),
        ["(2) P01/data/20190719_084231.g3 was never in the buffer",
         "(2) P01/data/20190719_084231.g3 has no line in the manifest"],
    ),
    "a whole file has no line": (
        lambda a: (shutil.copytree((a.buffer / WAITING).parent, a.copy(WAITING).parent)),
        [f"(2) P01/data/{WAITING} has no line in the manifest"],
    ),
    "a link lies among the data": (
        lambda a: a.copy("link.g3").symlink_to(a.copy()),
        ["(2) P01: data/link.g3 is not a plain file"],
    ),
    "a line without its newline": (
        lambda a: os.truncate(a.manifest(), a.manifest().stat().st_size - 1),
        [f"(2) P01/data/{OTHER} has no line in the manifest",
         "(3) P01/manifest-sha512.txt: it does not end with a newline but with"
         " b' data/downsampled/RCW38/80296951/0000.g3'"],
    ),
    "a line stands twice": (
        lambda a: a.manifest().write_text(a.manifest().read_text() * 2),
        [f"(3) P01/manifest-sha512.txt: 2 lines name data/{name}" for name in (NAME, OTHER)],
    ),
    "the hash is in capitals": (
        lambda a: a.manifest().write_text(
            re.sub("^[0-9a-f]*", lambda found: found.group().upper(), a.manifest().read_text())
        ),
        [f"(2) P01/data/{NAME} has no line in the manifest",
         "(3) P01/manifest-sha512.txt: line 1 is not '128 hexadecimal digits, two spaces, data/…':"
         " b'…  data/fullrate/RCW38/80296951/0000.g3'"],
    ),
    "the manifest is missing": (
        lambda a: a.manifest().unlink(),
        [f"(2) P01/data/{name} has no line in the manifest" for name in (NAME, OTHER)]
        + ["(3) P01/manifest-sha512.txt: it is missing"],
    ),
    "a state that the contract does not know": (
        lambda a: a.sql("UPDATE copies SET state = 'fine' " + NAME_ON_P01),
        [lost(NAME, "its copy on P01 is fine; no whole copy in role primary"),
         f"(4) copies: {NAME} on P01 has state fine"],
    ),
    "a way of verifying that the contract does not know": (
        lambda a: a.sql("UPDATE copies SET verified_by = 'faith' " + NAME_ON_P01),
        [f"(4) copies: {NAME} on P01 has verified_by faith"],
    ),
    "verified, but not when": (
        lambda a: a.sql("UPDATE copies SET verified_at = NULL " + NAME_ON_P01),
        [f"(4) copies: {NAME} on P01 has but one of verified_at, verified_by"],
    ),
    "removed after a plain read only": (
        lambda a: a.sql("UPDATE copies SET verified_by = 'cached' " + NAME_ON_P01),
        [f"(4) copies: {NAME} on P01 was verified as cached only, and the source removed"],
    ),
    "called removed, but still there": (
        lambda a: (shutil.copy(a.copy(), a.buffer / NAME),
                   a.sql("UPDATE files SET removed_from_buffer_at = ? WHERE id = 1", LATER)),
        [f"(4) files: {NAME} was removed, but is in the buffer since before"],
    ),
    "the database knows a file that never was": (
        lambda a: a.sql("INSERT INTO files VALUES (9, 'x.g3', 1, 'abc', 0, NULL, NULL)"),
        ["(4) files: x.g3 never had SHA-512 abc…"],
    ),
    "an unfinished copy is left": (
        lambda a: (a.disks["P01"] / ".incoming/k3j9").touch(),
        ["(5) P01/.incoming/k3j9 is left over"],
    ),
    "something of ours lies beside the bag": (
        lambda a: (a.disks["P01"] / "catalogue.sqlite.tmp").touch(),
        ["(5) P01/catalogue.sqlite.tmp does not belong on a disk"],
    ),
    "the mark is missing": (
        lambda a: (a.disks["P01"] / "bag-info.txt").unlink(),
        ["(5) P01: bag-info.txt is missing"],
    ),
    "the declaration is missing": (
        lambda a: (a.disks["P01"] / "bagit.txt").unlink(),
        ["(5) P01: bagit.txt is missing"],
    ),
    "the mark is another disk's": (
        lambda a: shutil.copy(a.disks["S01"] / "bag-info.txt", a.disks["P01"]),
        ["(5) P01: bag-info.txt says label S01",
         "(5) P01: bag-info.txt says serial ZTS01XX, not ZTP01XX00000C0048NEQ"],
    ),
    "a closed disk was written to": (
        lambda a: (close_disk(a), (a.disks["P01"] / ".incoming").mkdir(),
                   append(a.disks["P01"] / "bag-info.txt", b"More: text\n")),
        ["(5) P01 is closed but has .incoming",
         "(5) P01/tagmanifest-sha512.txt: bag-info.txt is not as it says"],
    ),
    "a closed disk has no tag manifest": (
        lambda a: (close_disk(a), (a.disks["P01"] / "tagmanifest-sha512.txt").unlink()),
        ["(5) P01/tagmanifest-sha512.txt: it is missing"],
    ),
    "two disks at the station with one label": (
        lambda a: a.sql("INSERT INTO disks(label, role, serial, state) VALUES"
                        " ('P01', 'primary', 'ZB', 'lost'), ('P02', 'primary', 'ZC', 'spare'),"
                        " ('P02', 'primary', 'ZD', 'active')"),
        ["(7) 2 disks at the station have the label P02"],
    ),
    "a condition has two open notices": (
        lambda a: a.sql("INSERT INTO notices(kind, key, resolved_at) VALUES"
                        " ('no-disk', 'copy', NULL), ('no-disk', 'copy', NULL),"
                        " ('no-disk', 'copy', '2019')"),
        ["(7) 2 open notices no-disk copy"],
    ),
    "a copy of no file": (
        lambda a: a.sql("INSERT INTO copies VALUES (99, 1, 'good', '', '', 'direct')"),
        ["(7) foreign_key_check: row 5 of copies has no files"],
    ),
    "the database is no database": (
        lambda a: a.db_path.write_bytes(b"torn" * 1000),
        [lost(name, "the database does not know it") for name in (NAME, OTHER)]
        + [f"(5) {disk}: it is a bag, but the database has no such disk" for disk in ("P01", "S01")]
        + ["(7) pole.sqlite can't be read: file is not a database"],
    ),
    "the database is gone": (
        lambda a: a.db_path.unlink(),
        [lost(name, "the database does not know it") for name in (NAME, OTHER)]
        + [f"(5) {disk}: it is a bag, but the database has no such disk" for disk in ("P01", "S01")]
        + ["(7) pole.sqlite can't be read: unable to open database file"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named_and_nothing_else(archive: Archive, case: str) -> None:
    break_it, wanted = BROKEN[case]
    break_it(archive)
    found = [re.sub(r"[0-9a-fA-F]{12,}…?", "…", text) for text in archive.violations()]
    assert sorted(found) == sorted(wanted)


def test_all_violations_are_raised_at_once(archive: Archive) -> None:
    (archive.buffer / WAITING).unlink()
    (archive.disks["S01"] / ".incoming/k3j9").touch()
    with pytest.raises(AssertionError, match=r"2 invariants broken:\n\(1\) .*\n\(5\) S01/.inc"):
        check_invariants(archive.ledger, archive.buffer, archive.db_path, archive.disks)


def touch(path: Path) -> None:
    os.utime(path, (0, 0))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda d: (d / "new").touch(), [": . mtime changed", ": new appeared"]),
        (lambda d: (d / "file").unlink(), [": . mtime changed", ": file vanished"]),
        (lambda d: touch(d / "file"), [": file mtime changed"]),
        (lambda d: touch(d / "sub"), [": sub mtime changed"]),
        (lambda d: (d / "file").chmod(0o600), [": file mode 644 became 600"]),
        (shutil.rmtree, [": it vanished"]),
    ],
)
def test_a_directory_that_must_be_untouched_was_touched(
    archive: Archive, tmp_path: Path, change: Callable[[Path], object], wanted: list[str]
) -> None:
    guarded = tmp_path / "guarded"
    (guarded / "sub").mkdir(parents=True)
    (guarded / "file").write_text("text")
    (guarded / "file").chmod(0o644)
    archive.options["must_be_untouched"] = [snapshot(guarded)]
    assert archive.violations() == ()
    change(guarded)
    prefix = f"(6) {guarded} must be untouched"
    found = [text.removeprefix(prefix) for text in archive.violations()]
    tidy = [text.replace(": . ", ": .: ").replace("file m", "file: m") for text in wanted]
    assert sorted(found) == sorted(text.replace("sub m", "sub: m") for text in tidy)


# --- what is tolerated, and only then ---------------------------------------------------


def test_an_interrupted_pass_may_leave_a_torn_line_and_unfinished_copies(archive: Archive) -> None:
    """Only with ``finished=False``: what the next pass tidies up."""
    archive.manifest().write_bytes(archive.manifest().read_bytes()[:-40])
    (archive.disks["P01"] / ".incoming/k3j9").touch()
    assert len(archive.violations()) == 3
    archive.options["finished"] = False
    assert archive.violations() == ()


def test_an_interrupted_pass_excuses_no_half_file(archive: Archive) -> None:
    archive.options["finished"] = False
    archive.copy("20190719_084231.g3").write_bytes(b"half")
    assert archive.violations() == ("(2) P01/data/20190719_084231.g3 was never in the buffer",)


def test_a_file_without_its_line_can_be_allowed(archive: Archive) -> None:
    shutil.copytree((archive.buffer / WAITING).parent, archive.copy(WAITING).parent)
    archive.options["allow_unregistered"] = True
    assert archive.violations() == ()


def test_a_disk_that_is_away_is_believed_one_that_was_forgotten_is_not(archive: Archive) -> None:
    del archive.disks["S01"]
    assert any("S01" in text and "was not given" in text for text in archive.violations())
    archive.options["away"] = ["S01"]
    assert archive.violations() == ()


def test_what_the_test_harmed_itself_is_not_held_against_the_program(archive: Archive) -> None:
    flip(archive.copy(), 500)
    archive.ledger.spoiled("P01", NAME, "flipped")
    assert archive.violations() == ()
    archive.copy(OTHER).unlink()
    assert len(archive.violations()) == 4
    archive.ledger.spoiled("ZTP01XX00000C0048NEQ", None, "died")
    assert archive.violations() == ()


def test_a_file_that_comes_again_after_its_removal_is_no_fault(archive: Archive) -> None:
    archive.ledger.put(NAME, 1000)
    assert archive.violations() == ()


# --- the loop disks ---------------------------------------------------------------------


def read_direct(path: Path) -> bytes:
    """As the medium gives it (files below one buffer only)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 1 << 20) as page_aligned:
            return page_aligned[: os.preadv(fd, [page_aligned], 0)]
    finally:
        os.close(fd)


@pytest.fixture(params=["xfs", "ext4"])
def mounted(request: pytest.FixtureRequest, loop_disk: Callable[..., LoopDisk], tmp_path: Path):
    return loop_disk(tmp_path / "drive.img", tmp_path / "mounted", fs=request.param)


def is_attached(image: Path) -> bool:
    """Whether a loop device has it; another test's may have the same name by now."""
    losetup = subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=True)
    return str(image) in losetup.stdout


def test_a_loop_disk_is_a_mount_of_its_own_and_leaves_nothing(tmp_path: Path, mounted: LoopDisk):
    assert mounted.is_mounted
    assert os.path.ismount(mounted.mount_point)
    mounted.destroy()
    assert not os.path.ismount(mounted.mount_point)
    assert not mounted.image.exists()
    until(lambda: not is_attached(mounted.image), "it is let go of")


def test_a_flipped_bit_is_on_the_medium_but_not_in_the_warm_cache(mounted: LoopDisk) -> None:
    """Why a plain read proves nothing, and O_DIRECT does; across an odd offset, in the tail too."""
    file, content = mounted.mount_point / "file.g3", os.urandom(300_001)
    file.write_bytes(content)
    for offset in (0, 123_457, 300_000):
        mounted.flip_bit("file.g3", offset, bit=7)
        flipped = bytearray(content)
        flipped[offset] ^= 0x80
        assert file.read_bytes() == content, "the cache was not warm"
        assert read_direct(file) == flipped
        assert sha512_of(file, medium=True) == hashlib.sha512(flipped).hexdigest()
        assert sha512_of(file) == hashlib.sha512(content).hexdigest()
        mounted.flip_bit("file.g3", offset, bit=7)
    assert read_direct(file) == content


def test_the_checker_sees_the_medium_behind_the_warm_cache(
    archive: Archive, mounted: LoopDisk
) -> None:
    shutil.copytree(archive.disks["P01"], mounted.mount_point, dirs_exist_ok=True)
    archive.disks["P01"] = mounted.mount_point
    assert archive.violations() == ()
    mounted.flip_bit(f"data/{NAME}", 500)
    assert any(
        text.startswith(f"(2) P01/data/{NAME} is not whole") for text in archive.violations()
    )


def test_what_lies_nowhere_cannot_be_flipped(mounted: LoopDisk) -> None:
    (mounted.mount_point / "empty").touch()
    with open(mounted.mount_point / "hole", "wb") as file:
        file.truncate(1 << 20)
    for name in ("empty", "hole"):
        with pytest.raises(ValueError, match="no block on the device holds byte 0"):
            mounted.flip_bit(name)


def test_a_disk_remounted_read_only_takes_no_more(mounted: LoopDisk) -> None:
    mounted.remount("ro")
    with pytest.raises(OSError, match="Read-only file system"):
        (mounted.mount_point / "file").touch()
    mounted.remount("rw")
    (mounted.mount_point / "file").touch()


def test_a_disk_torn_away_lives_on_for_open_files_and_comes_back(mounted: LoopDisk) -> None:
    with open(mounted.mount_point / "file", "w") as file:
        mounted.lazy_unmount()
        assert not mounted.is_mounted
        assert list(mounted.mount_point.iterdir()) == []
        file.write("kept")
    mounted.mount()
    assert (mounted.mount_point / "file").read_text() == "kept"


def test_a_busy_disk_is_taken_down_all_the_same(mounted: LoopDisk) -> None:
    with open(mounted.mount_point / "file", "w"):
        mounted.destroy()
        assert not mounted.is_mounted


@pytest.mark.root
@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_two_partitions_are_two_mounts_of_one_drive(tmp_path: Path, fs: str) -> None:
    mount_points = (tmp_path / "P01", tmp_path / "S01")
    with two_partitions(tmp_path / "drive.img", mount_points, fs=fs) as disks:
        drives = set()
        for disk in disks:
            content = os.urandom(10_000)
            (disk.mount_point / "file").write_bytes(content)
            disk.flip_bit("file", 9_999)
            assert read_direct(disk.mount_point / "file")[:9_999] == content[:9_999]
            assert read_direct(disk.mount_point / "file")[9_999] == content[9_999] ^ 1
            drives.add(Path("/sys/class/block", disk.device.name).resolve().parent)
        assert disks[0].device != disks[1].device
        assert len(drives) == 1
    assert not any(map(os.path.ismount, mount_points))
    until(lambda: not is_attached(tmp_path / "drive.img"), "it is let go of")


def test_a_loop_world_has_real_mounts_and_is_readable_when_they_are_gone(
    loop_world: LoopWorld,
) -> None:
    assert "RequireMount = yes\n" in loop_world.config_path.read_text()
    for label, path in loop_world.disks.items():
        assert os.path.ismount(path)
        (path / "label").write_text(label)
    loop_world.loops["P01"].umount()
    loop_world.loops["S01"].umount()
    loop_world.loops["S01"].mount(at=loop_world.disks["P01"])
    with open(loop_world.disks["S02"] / "open", "w"), loop_world.places() as places:
        assert {label: (places[label] / "label").read_text() for label in places} == {
            label: label for label in ("P01", "P02", "S01", "S02")
        }
        loop_world.loops["S02"].lazy_unmount()
    with open(loop_world.disks["P02"] / "open", "w"):
        loop_world.loops["P02"].lazy_unmount()
        with loop_world.places() as places:
            assert (places["P02"] / "label").read_text() == "P02"
