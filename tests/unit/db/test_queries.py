"""What the database takes, keeps, and tells."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata import db
from poledata.formatting import seconds
from poledata.models import (
    CopyState,
    Disk,
    DiskState,
    FileStat,
    ManifestLine,
    ReadBack,
    Role,
    Severity,
    VerifiedBy,
    Written,
)

NAME = "fullrate/RCW38/80296951/0000.g3"
OTHER = "downsampled/RCW38/80296951/0000.g3"
SHA512, SHA512_TOO = "3f" * 64, "9c" * 64
STAT = FileStat(device=2049, inode=77, size_bytes=1000, mtime_ns=5_000_000_001, ctime_ns=6_000)
MONDAY, TUESDAY, WEDNESDAY = (f"2026-11-{day}T18:20:57Z" for day in (23, 24, 25))
NOW_S = 1_795_458_057.0  # MONDAY


def written(how: VerifiedBy, mtime_ns: int = STAT.mtime_ns) -> Written:
    """A copy with this time on its disk."""
    read_back = ReadBack(SHA512, how, replace(STAT, mtime_ns=mtime_ns), at_s=100.0)
    return Written(read_back, ManifestLine(SHA512, NAME, 0))


DIRECT, EVICTED = written(VerifiedBy.DIRECT), written(VerifiedBy.EVICTED)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[db.Connection]:
    """A database with the disks P01 P02 S01 S02."""
    db.database_files.create(tmp_path / "pole.sqlite")
    with db.connect(tmp_path / "pole.sqlite") as conn:
        with db.transaction(conn):
            for number, label in enumerate(("P01", "P02", "S01", "S02"), start=1):
                add_disk(conn, label, f"Z{label}", number)
        yield conn


def add_disk(conn: db.Connection, label: str, serial: str, number: int) -> None:
    role = Role.PRIMARY if label.startswith("P") else Role.COPY
    db.disks.add_disk(conn, label, role, serial, f"0x{number:016x}", False, MONDAY)


def disk(conn: db.Connection, label: str) -> Disk:
    """The newest one of this label."""
    return [each for each in db.disks.disks(conn) if each.label == label][-1]


def register(
    conn: db.Connection,
    *labels: str,
    name: str = NAME,
    sha512: str = SHA512,
    stat: FileStat = STAT,
    at: str = MONDAY,
    written: Written = DIRECT,
) -> Any:
    copies = [(disk(conn, label), written) for label in labels]
    with db.transaction(conn):
        return db.files.register(conn, name, sha512, stat, copies, at)


def location(conn: db.Connection, name: str = NAME) -> tuple[Any, ...]:
    row = conn.execute("SELECT * FROM file_locations WHERE name = ?", (name,)).fetchone()
    return tuple(row[key] for key in ("primary_label", "copy_label", "archived_at"))


# --- files and copies -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "archived_at"),
    [
        ((), None),
        (("P01",), None),
        (("S02",), None),
        (("P01", "P02"), None),
        (("P01", "S02"), MONDAY),
        (("S01", "P02"), MONDAY),
        (("P01", "P02", "S01", "S02"), MONDAY),
    ],
)
def test_a_file_is_archived_once_each_role_has_a_good_copy(
    conn: db.Connection, labels: tuple[str, ...], archived_at: str | None
) -> None:
    """Two copies of one role are none of the other."""
    known = register(conn, *labels)
    assert known.archived_at == archived_at
    assert known == db.files.file(conn, NAME)


def test_the_second_role_may_come_later(conn: db.Connection) -> None:
    """The file is archived from then on, and that time stays."""
    assert register(conn, "P01").archived_at is None
    assert register(conn, "S01", at=TUESDAY).archived_at == TUESDAY
    assert register(conn, "S02", at=WEDNESDAY).archived_at == TUESDAY


@pytest.mark.parametrize("state", [CopyState.DAMAGED, CopyState.MISSING])
def test_a_copy_that_is_not_good_makes_no_file_archived(
    conn: db.Connection, state: CopyState
) -> None:
    """It counts again once it was written anew."""
    known = register(conn, "P01")
    with db.transaction(conn):
        db.copies.set_copy_state(conn, known.id, disk(conn, "P01"), state)
    assert register(conn, "S01", at=TUESDAY).archived_at is None
    assert register(conn, "P01", at=WEDNESDAY).archived_at == WEDNESDAY


def test_all_that_is_known_of_a_file_comes_back(conn: db.Connection) -> None:
    """Size, hash, time, and each copy with its disk and how it was read back; newest first."""
    register(conn, "P01", written=EVICTED)
    known = register(conn, "S01", at=TUESDAY)
    assert (known.name, known.size_bytes, known.sha512) == (NAME, 1000, SHA512)
    assert known.mtime_ns == 5_000_000_001
    assert [
        (c.disk.label, c.state, c.mtime_ns, c.written_at, c.verified_at, c.verified_by)
        for c in known.copies
    ] == [
        ("S01", CopyState.GOOD, 5_000_000_001, TUESDAY, TUESDAY, VerifiedBy.DIRECT),
        ("P01", CopyState.GOOD, 5_000_000_001, MONDAY, MONDAY, VerifiedBy.EVICTED),
    ]
    assert [c.disk for c in known.copies] == [disk(conn, "S01"), disk(conn, "P01")]
    assert db.files.file(conn, OTHER) is None


def test_what_comes_again_adds_copies_and_changes_nothing_else(conn: db.Connection) -> None:
    """Another disk, another mtime: the file's own row stays; the copy has its own mtime."""
    first = register(conn, "P01", "S01")
    later = FileStat(1, 2, 1000, 9_000_000_009, 4)
    copy = written(VerifiedBy.DIRECT, mtime_ns=9_000_000_009)
    again = register(conn, "P02", "S02", stat=later, written=copy, at=TUESDAY)
    assert (again.id, again.sha512, again.size_bytes) == (first.id, SHA512, 1000)
    assert (again.mtime_ns, again.archived_at) == (5_000_000_001, MONDAY)
    assert [(c.disk.label, c.mtime_ns) for c in again.copies] == [
        ("S02", 9_000_000_009),
        ("P02", 9_000_000_009),
        ("S01", 5_000_000_001),
        ("P01", 5_000_000_001),
    ]


def test_a_copy_that_is_made_anew_on_its_disk_replaces_what_was_known_of_it(
    conn: db.Connection,
) -> None:
    """One row a file and disk: good again, as of now."""
    known = register(conn, "P01", written=EVICTED)
    with db.transaction(conn):
        db.copies.set_copy_state(conn, known.id, disk(conn, "P01"), CopyState.DAMAGED)
    (copy,) = register(conn, "P01", at=TUESDAY).copies
    assert (copy.state, copy.written_at, copy.verified_at) == (CopyState.GOOD, TUESDAY, TUESDAY)
    assert copy.verified_by is VerifiedBy.DIRECT


def test_another_content_under_a_known_name_is_never_taken(conn: db.Connection) -> None:
    """It was refused before; should it come so far, nothing of it is written."""
    first = register(conn, "P01", "S01")
    with pytest.raises(AssertionError, match="known with another SHA-512"):
        register(conn, "P02", "S02", sha512=SHA512_TOO, at=TUESDAY)
    assert db.files.file(conn, NAME) == first


def test_files_are_known_by_their_whole_names(conn: db.Connection) -> None:
    """Basenames repeat in every observation."""
    register(conn, "P01", "S01")
    register(conn, "P01", "S01", name=OTHER, sha512=SHA512_TOO)
    register(conn, "P01", "S01", name=NAME.upper())
    assert db.files.totals(conn) == (3, 3000)
    other = db.files.file(conn, OTHER)
    assert other and other.sha512 == SHA512_TOO


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_name_is_found_as_it_was_written(name: str) -> None:
    """Whatever it holds: names are data, never SQL."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    conn.executescript(Path(db.__file__).with_name("schema.sql").read_text())
    known = db.files.register(conn, name, SHA512, STAT, [], MONDAY)
    assert known.name == name
    conn.close()


def test_what_left_the_buffer_is_no_longer_looked_for(conn: db.Connection) -> None:
    """Until then a crash may have kept it from being noted; what is not archived never left."""
    register(conn, "P01", "S01")
    register(conn, "P01", name=OTHER)
    assert db.files.archived_but_not_removed(conn) == [NAME]
    with db.transaction(conn):
        db.files.note_removed(conn, [NAME], TUESDAY)
    assert db.files.archived_but_not_removed(conn) == []
    (row,) = conn.execute("SELECT removed_from_buffer_at FROM files WHERE name = ?", (NAME,))
    assert row[0] == TUESDAY


@pytest.mark.parametrize("field", ["device", "inode", "size_bytes", "mtime_ns", "ctime_ns"])
def test_a_hash_is_remembered_of_one_state_of_a_file(conn: db.Connection, field: str) -> None:
    """Any change of its stat, and it is to be hashed again."""
    with db.transaction(conn):
        db.files.remember_sha512(conn, NAME, STAT, SHA512)
    assert db.files.remembered_sha512(conn, NAME, STAT) == SHA512
    assert db.files.remembered_sha512(conn, OTHER, STAT) is None
    values = {name: getattr(STAT, name) for name in FileStat.__slots__}
    changed = FileStat(**values | {field: values[field] + 1})
    assert db.files.remembered_sha512(conn, NAME, changed) is None
    with db.transaction(conn):
        db.files.remember_sha512(conn, NAME, changed, SHA512_TOO)
    assert db.files.remembered_sha512(conn, NAME, STAT) is None
    assert db.files.remembered_sha512(conn, NAME, changed) == SHA512_TOO


def test_a_hash_is_forgotten_when_its_file_left(conn: db.Connection) -> None:
    """The table never grows for ever."""
    register(conn, "P01", "S01")
    with db.transaction(conn):
        db.files.remember_sha512(conn, NAME, STAT, SHA512)
        db.files.note_removed(conn, [NAME], TUESDAY)
    assert db.files.remembered_sha512(conn, NAME, STAT) is None


def test_large_numbers_are_kept_whole(conn: db.Connection) -> None:
    """Nanoseconds and inodes of 64 bits, files of terabytes."""
    stat = FileStat(2**40, 2**62, 20 * 10**12, 1_795_458_057_123_456_789, 2**62)
    known = register(conn, "P01", "S01", stat=stat)
    assert (known.size_bytes, known.mtime_ns) == (20 * 10**12, 1_795_458_057_123_456_789)
    with db.transaction(conn):
        db.files.remember_sha512(conn, NAME, stat, SHA512)
    assert db.files.remembered_sha512(conn, NAME, stat) == SHA512


def test_totals_count_what_is_archived(conn: db.Connection) -> None:
    """A file with one copy is not."""
    assert db.files.totals(conn) == (0, 0)
    register(conn, "P01", "S01")
    register(conn, "P01", name=OTHER)
    assert db.files.totals(conn) == (1, 1000)


# --- where a file is ------------------------------------------------------------------------


def test_a_location_is_the_newest_good_copy_of_each_role(conn: db.Connection) -> None:
    """One row a file, with the serials of the disks to fetch from the shelf."""
    register(conn, "P01", "S01")
    assert location(conn) == ("P01", "S01", MONDAY)
    register(conn, "P02", at=TUESDAY)
    assert location(conn) == ("P02", "S01", MONDAY)
    register(conn, "S02", at=TUESDAY)
    register(conn, "S01", at=WEDNESDAY)
    assert location(conn) == ("P02", "S01", MONDAY)
    (row,) = conn.execute("SELECT * FROM file_locations").fetchall()
    assert (row["primary_serial"], row["copy_serial"]) == ("ZP02", "ZS01")
    assert (row["size_bytes"], row["sha512"]) == (1000, SHA512)


@pytest.mark.parametrize("state", [CopyState.DAMAGED, CopyState.MISSING])
def test_a_copy_that_is_not_good_is_no_location(conn: db.Connection, state: CopyState) -> None:
    """The next one of its role is, or none; the file is in the view all the same."""
    known = register(conn, "P01", "S01")
    register(conn, "P02", at=TUESDAY)
    for label, primary in (("P02", "P01"), ("P01", None)):
        with db.transaction(conn):
            db.copies.set_copy_state(conn, known.id, disk(conn, label), state)
        assert location(conn) == (primary, "S01", MONDAY)


def test_of_copies_made_at_once_one_is_the_location(conn: db.Connection) -> None:
    """One row a file, and the same one each time."""
    register(conn, "P01", "P02", "S01", "S02")
    assert len(conn.execute("SELECT * FROM file_locations").fetchall()) == 1
    assert location(conn) == ("P02", "S02", MONDAY)


# --- disks ----------------------------------------------------------------------------------


def test_a_new_disk_is_a_spare(conn: db.Connection) -> None:
    """Of which nothing is known but who it is."""
    assert disk(conn, "P01") == Disk(
        id=1,
        label="P01",
        role=Role.PRIMARY,
        serial="ZP01",
        logical_id="0x0000000000000001",
        state=DiskState.SPARE,
        held_by=None,
        held_reason=None,
        stand_in=False,
        capacity_bytes=None,
        used_bytes=None,
        free_bytes=None,
        first_used_at=None,
        last_used_at=None,
    )
    (event,) = conn.execute("SELECT at, event FROM disk_events WHERE disk_id = 1").fetchall()
    assert tuple(event) == (MONDAY, "registered")


def set_state(conn: db.Connection, label: str, state: str) -> None:
    conn.execute("UPDATE disks SET state = ? WHERE id = ?", (state, disk(conn, label).id))


@pytest.mark.parametrize("state", ["spare", "active", "closed"])
def test_a_label_at_the_station_is_one_disks(conn: db.Connection, state: str) -> None:
    """Two drives with one sticker would be mistaken for each other."""
    set_state(conn, "P01", state)
    with pytest.raises(sqlite3.IntegrityError, match=r"disks\.label"):
        add_disk(conn, "P01", "ZNEW", 99)


@pytest.mark.parametrize("state", ["shipped", "lost"])
def test_a_label_is_free_once_its_disk_is_gone(conn: db.Connection, state: str) -> None:
    """The next season's disk set starts again at P01; then that one has it."""
    set_state(conn, "P01", state)
    add_disk(conn, "P01", "ZNEW", 99)
    assert [each.serial for each in db.disks.disks(conn) if each.label == "P01"] == [
        "ZP01",
        "ZNEW",
    ]
    with pytest.raises(sqlite3.IntegrityError, match=r"disks\.label"):
        add_disk(conn, "P01", "ZNEWER", 100)
    with pytest.raises(sqlite3.IntegrityError, match=r"disks\.label"):
        conn.execute("UPDATE disks SET state = 'active' WHERE serial = 'ZP01'")


@pytest.mark.parametrize("state", ["spare", "shipped", "lost"])
def test_a_serial_and_a_logical_id_are_one_drives_for_ever(conn: db.Connection, state: str) -> None:
    """Also after it is gone."""
    set_state(conn, "P01", state)
    with pytest.raises(sqlite3.IntegrityError, match=r"disks\.serial"):
        add_disk(conn, "P09", "ZP01", 99)
    with pytest.raises(sqlite3.IntegrityError, match=r"disks\.logical_id"):
        add_disk(conn, "P09", "ZNEW", 1)


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE disks SET state = 'broken'", "CHECK"),
        ("UPDATE disks SET role = 'backup'", "CHECK"),
        ("UPDATE disks SET held_by = 'somebody'", "CHECK"),
        ("INSERT INTO copies VALUES (1, 1, 'fine', 1, '', '', 'direct')", "CHECK"),
        ("INSERT INTO copies VALUES (1, 1, 'good', 1, '', '', 'believed')", "CHECK"),
        ("INSERT INTO copies VALUES (9, 1, 'good', 1, '', '', 'direct')", "FOREIGN KEY"),
        ("INSERT INTO copies VALUES (1, 9, 'good', 1, '', '', 'direct')", "FOREIGN KEY"),
        ("DELETE FROM files", "FOREIGN KEY"),
        ("DELETE FROM disks", "FOREIGN KEY"),
        (f"UPDATE files SET name = '{NAME}'", "UNIQUE"),
        ("INSERT INTO notices (kind, key, severity, text, opened_at) VALUES ('', '', 'x', '', '')",
         "CHECK"),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_makes_no_sense(conn: db.Connection, sql: str, fault: str) -> None:
    """Whoever writes it: a person with a shell too."""
    register(conn, "P01", "S01")
    register(conn, "P01", name=OTHER)
    with pytest.raises(sqlite3.IntegrityError, match=fault):
        conn.execute(sql)


def test_a_disks_first_use_is_once(conn: db.Connection) -> None:
    """Its time stays; no disk comes back to use by it."""
    with db.transaction(conn):
        db.disks.activate(conn, disk(conn, "P01"), MONDAY)
    used = disk(conn, "P01")
    assert (used.state, used.first_used_at) == (DiskState.ACTIVE, MONDAY)
    set_state(conn, "P01", "closed")
    with db.transaction(conn):
        db.disks.activate(conn, disk(conn, "P01"), TUESDAY)
    closed = disk(conn, "P01")
    assert (closed.state, closed.first_used_at) == (DiskState.CLOSED, MONDAY)


def test_a_disk_is_measured_when_it_was_used(conn: db.Connection) -> None:
    """Its room, and when that was."""
    with db.transaction(conn):
        db.disks.measure(conn, disk(conn, "P01"), 8 * 10**12, 10**12, 6 * 10**12, TUESDAY)
    used = disk(conn, "P01")
    assert (used.capacity_bytes, used.used_bytes, used.free_bytes) == (
        8 * 10**12,
        10**12,
        6 * 10**12,
    )
    assert used.last_used_at == TUESDAY
    assert disk(conn, "P02").last_used_at is None


def test_a_disk_is_found_by_its_label_or_its_serial(conn: db.Connection) -> None:
    """The one at the station comes first; a gone one only where none else is meant."""
    set_state(conn, "P01", "shipped")
    add_disk(conn, "P01", "ZNEW", 99)
    for words, serials in {
        "P01": ["ZNEW"],
        "ZNEW": ["ZNEW"],
        "ZP01": ["ZP01"],
        "zs01": ["ZS01"],
        "p01": [],
        "P0_": [],
        "": [],
    }.items():
        assert [found.serial for found in db.disks.find_disks(conn, words)] == serials
    set_state(conn, "P01", "lost")
    assert [found.serial for found in db.disks.find_disks(conn, "P01")] == ["ZP01", "ZNEW"]


def test_what_lacks_its_other_copy_is_named(conn: db.Connection) -> None:
    """A good one on a disk of the other role that is not lost, at the station or shipped."""
    primary = disk(conn, "P01")
    register(conn, "P01", "P02")
    register(conn, "P01", "S01", name=OTHER)
    assert db.copies.lacking_another(conn, primary) == [NAME]
    assert db.copies.lacking_another(conn, disk(conn, "S01")) == []
    set_state(conn, "S01", "shipped")
    assert db.copies.lacking_another(conn, primary) == [NAME]
    set_state(conn, "S01", "lost")
    assert db.copies.lacking_another(conn, primary) == [OTHER, NAME]
    known = register(conn, "S02", name=OTHER)
    assert db.copies.lacking_another(conn, primary) == [NAME]
    with db.transaction(conn):
        db.copies.set_copy_state(conn, known.id, disk(conn, "S02"), CopyState.DAMAGED)
    assert db.copies.lacking_another(conn, primary) == [OTHER, NAME]


def test_a_closed_disk_is_unsealed_till_that_was_written_down(conn: db.Connection) -> None:
    """A crash between closing and sealing leaves work to do."""
    with db.transaction(conn):
        db.disks.set_state(conn, disk(conn, "P01"), DiskState.CLOSED, "it is full", MONDAY)
    (unsealed,) = db.disks.unsealed_disks(conn)
    assert unsealed == disk(conn, "P01")
    with db.transaction(conn):
        db.disks.note_event(conn, unsealed.id, TUESDAY, "sealed", None)
    assert db.disks.unsealed_disks(conn) == []


# --- files that failed ----------------------------------------------------------------------


def fail(conn: db.Connection, now_s: float, error: str = "it can't be read") -> int:
    with db.transaction(conn):
        return db.passes.note_failure(conn, NAME, STAT, "copy-failed", error, now_s)


def test_a_file_that_fails_is_tried_again_later_and_later(conn: db.Connection) -> None:
    """After 1, 2, 4, … minutes, and from the seventh time on every hour."""
    waits = []
    for count in range(1, 11):
        assert fail(conn, NOW_S) == count
        waits.append(seconds(db.passes.pending(conn)[NAME].next_try_at) - NOW_S)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]


@pytest.mark.parametrize("attempts", [100, 1023, 1024, 5000, 10**9])
def test_a_file_may_fail_all_winter(conn: db.Connection, attempts: int) -> None:
    """An hour between tries makes a thousand of them in six weeks: it is tried hourly for ever."""
    fail(conn, NOW_S)
    conn.execute("UPDATE pending SET attempts = ?", (attempts,))
    assert fail(conn, NOW_S) == attempts + 1
    assert seconds(db.passes.pending(conn)[NAME].next_try_at) == NOW_S + 3600


def test_of_a_failing_file_the_first_time_and_the_last_error_are_kept(conn: db.Connection) -> None:
    """With the stat it had, so that a file which has changed is tried at once."""
    fail(conn, NOW_S, "first")
    fail(conn, NOW_S + 86_400, "last")
    (pending,) = db.passes.pending(conn).values()
    assert (pending.name, pending.attempts, pending.first_failed_at) == (NAME, 2, MONDAY)
    assert (pending.last_error, pending.kind, pending.stat) == ("last", "copy-failed", STAT)
    (row,) = conn.execute("SELECT last_failed_at FROM pending").fetchall()
    assert row[0] == TUESDAY


def test_a_file_that_could_not_be_looked_at_may_fail_too(conn: db.Connection) -> None:
    """Then there is no stat: a directory that can't be listed."""
    with db.transaction(conn):
        db.passes.note_failure(conn, "locked/", None, "copy-failed", "it can't be listed", NOW_S)
    assert db.passes.pending(conn)["locked/"].stat is None


def test_pending_files_are_listed_the_oldest_failure_first(conn: db.Connection) -> None:
    """And are gone once they are archived."""
    for name, at_s in (("b", 2), ("a", 3), ("d", 1), ("c", 1)):
        with db.transaction(conn):
            db.passes.note_failure(conn, name, None, "copy-failed", "", NOW_S + at_s)
    assert list(db.passes.pending(conn)) == ["c", "d", "b", "a"]
    with db.transaction(conn):
        db.passes.forget_failure(conn, "d")
        db.passes.forget_failure(conn, "never was")
    assert list(db.passes.pending(conn)) == ["c", "b", "a"]


# --- notices --------------------------------------------------------------------------------


def tell(
    conn: db.Connection,
    kind: str = "disk-missing",
    key: str = "P01",
    severity: Severity = Severity.WARNING,
    text: str = "It is not there.",
    at: str = MONDAY,
) -> bool:
    with db.transaction(conn):
        return db.notices.open_notice(conn, kind, key, severity, text, at)


def test_a_condition_has_one_open_notice(conn: db.Connection) -> None:
    """Told again it has the newer text, and the time at which it began."""
    assert tell(conn) is True
    assert tell(conn, text="Still not.", severity=Severity.CRITICAL, at=TUESDAY) is False
    (notice,) = db.notices.open_notices(conn)
    assert (notice.text, notice.severity, notice.opened_at) == (
        "Still not.",
        Severity.CRITICAL,
        MONDAY,
    )
    with pytest.raises(sqlite3.IntegrityError, match=r"notices\.kind"):
        conn.execute(
            "INSERT INTO notices (kind, key, severity, text, opened_at) "
            "VALUES ('disk-missing', 'P01', 'info', '', '')"
        )


def test_each_kind_and_key_is_a_condition_of_its_own(conn: db.Connection) -> None:
    """Another disk, or another fault of the same disk."""
    assert tell(conn) and tell(conn, key="P02") and tell(conn, kind="disk-error")
    assert len(db.notices.open_notices(conn)) == 3


def test_a_resolved_notice_stays_and_may_open_anew(conn: db.Connection) -> None:
    """The old row tells how often it happened."""
    tell(conn)
    with db.transaction(conn):
        assert db.notices.resolve_notice(conn, "disk-missing", "P01", TUESDAY) is True
        assert db.notices.resolve_notice(conn, "disk-missing", "P01", TUESDAY) is False
        assert db.notices.resolve_notice(conn, "disk-missing", "P02", TUESDAY) is False
    assert db.notices.open_notices(conn) == []
    assert tell(conn, at=WEDNESDAY) is True
    rows = conn.execute("SELECT opened_at, resolved_at FROM notices ORDER BY id").fetchall()
    assert [tuple(row) for row in rows] == [(MONDAY, TUESDAY), (WEDNESDAY, None)]


def test_the_gravest_notice_is_told_first(conn: db.Connection) -> None:
    """Then the oldest."""
    tell(conn, "disk-closed", "S01", Severity.INFO, at=MONDAY)
    tell(conn, "spares-low", "copy", Severity.WARNING, at=WEDNESDAY)
    tell(conn, "disk-error", "P01", Severity.WARNING, at=TUESDAY)
    tell(conn, "no-disk", "copy", Severity.CRITICAL, at=WEDNESDAY)
    assert [notice.kind for notice in db.notices.open_notices(conn)] == [
        "no-disk",
        "disk-error",
        "spares-low",
        "disk-closed",
    ]


# --- passes ---------------------------------------------------------------------------------


def test_a_pass_counts_what_it_archived(conn: db.Connection) -> None:
    """Batch by batch; one that never ended is at work, or crashed."""
    assert db.passes.last_pass(conn) is None
    first = db.passes.begin_pass(conn, MONDAY)
    second = db.passes.begin_pass(conn, TUESDAY)
    db.passes.count_in_pass(conn, second, 10, 10_000)
    db.passes.count_in_pass(conn, second, 5, 500)
    assert [row.id for row in db.passes.unended_passes(conn)] == [first, second]
    db.passes.end_pass(conn, second, WEDNESDAY, "done", 3)
    assert [row.id for row in db.passes.unended_passes(conn)] == [first]
    last = db.passes.last_pass(conn)
    assert last is not None
    assert (last.id, last.started_at, last.ended_at, last.outcome) == (
        second,
        TUESDAY,
        WEDNESDAY,
        "done",
    )
    assert (last.files_archived, last.bytes_archived, last.files_failed) == (15, 10_500, 3)
