"""What proves that a file may leave the buffer, and what keeps it there."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.archive import removal
from poledata.archive.removal import (
    ArchivedFile,
    CopySeen,
    Evidence,
    may_remove,
)
from poledata.disks import bag, manifest
from poledata.disks.identity import HeldDisk
from poledata.errors import DiskRefused
from poledata.models import (
    MANIFEST,
    CopyState,
    Disk,
    DiskState,
    FileStat,
    ManifestLine,
    ReadBack,
    Role,
    VerifiedBy,
)
from poledata.system import direct_io
from tests.helpers.removal_station import NAME, Station, _read_back, made
from tests.helpers.world import REPO

HASHED = FileStat(device=2049, inode=77000, size_bytes=1000, mtime_ns=5_000, ctime_ns=6_000)
ON_DISK = FileStat(device=2065, inode=131, size_bytes=1000, mtime_ns=5_000, ctime_ns=9_000)
READ = ReadBack("3f" * 64, VerifiedBy.DIRECT, replace(ON_DISK, ctime_ns=8_000), at_s=100.0)
PRIMARY = CopySeen(
    label="P01",
    role=Role.PRIMARY,
    state=CopyState.GOOD,
    disk_state=DiskState.ACTIVE,
    held_by=None,
    stand_in=False,
    refusal=None,
    stat=ON_DISK,
    read_back=READ,
    read_age_s=1.0,
    has_line=True,
    place=frozenset({"0x5000c500858bfea7"}),
)
COPY = replace(
    PRIMARY,
    label="S01",
    role=Role.COPY,
    read_back=replace(READ, verified_by=VerifiedBy.EVICTED),
    place=frozenset({"0x5000c500858bfea8"}),
)
GOOD = Evidence(
    name=NAME,
    size_bytes=1000,
    sha512="3f" * 64,
    hashed_sha512="3f" * 64,
    hashed=HASHED,
    source_now=HASHED,
    finished=None,
    copies=(PRIMARY, COPY),
)

# --- the decision -------------------------------------------------------------------------


def test_two_proved_copies_on_two_drives_let_a_file_go() -> None:
    """A primary and a copy, each read back from its medium, and an untouched source: ()."""
    assert may_remove(GOOD) == ()


SOURCE_FAULTS = {
    "sha512": (  # the copies are as registered; it alone is another
        {
            "sha512": "9c" * 64,
            "copies": tuple(
                replace(copy, read_back=replace(READ, sha512="9c" * 64)) for copy in (PRIMARY, COPY)
            ),
        },
        "its content is not what was archived",
    ),
    "hashed_sha512": ({"hashed_sha512": "9c" * 64}, "its content is not what was archived"),
    "hashed": (
        {"hashed": replace(HASHED, ctime_ns=6_001)},
        "it has changed since it was hashed",
    ),
    "source_now": (
        {"source_now": replace(HASHED, inode=78000)},
        "it has changed since it was hashed",
    ),
    "size_bytes": (  # the copies are as registered; it alone is another
        {
            "hashed": replace(HASHED, size_bytes=1001),
            "source_now": replace(HASHED, size_bytes=1001),
        },
        "it has 1001 bytes, archived were 1000",
    ),
    "finished": ({"finished": "it is still open for writing"}, "it is still open for writing"),
    "copies": (
        {"copies": (PRIMARY,)},
        "no proved copy on a copy disk (1 of 2 roles): none is known",
    ),
}


@pytest.mark.parametrize(("change", "refusal"), SOURCE_FAULTS.values(), ids=SOURCE_FAULTS)
def test_a_single_fault_of_the_source_is_one_named_refusal(
    change: dict[str, Any], refusal: str
) -> None:
    """Each field of the evidence, alone, keeps the file and says which it was."""
    assert may_remove(replace(GOOD, **change)) == (refusal,)


@pytest.mark.parametrize("field", [field.name for field in fields(FileStat)])
def test_any_change_of_the_sources_stat_keeps_it(field: str) -> None:
    """Device, inode, size, mtime and ctime must all be as they were when it was hashed."""
    now = replace(HASHED, **{field: getattr(HASHED, field) + 1})
    assert may_remove(replace(GOOD, source_now=now)) == ("it has changed since it was hashed",)


BESIDE = "it is the buffer's file itself, or beside it"
UNREAD = "it was not read back in this pass"
CHANGED = "it has changed since it was read back"


def _read(**changes: Any) -> dict[str, Any]:
    return {"read_back": replace(READ, **changes)}


def _stat(**changes: Any) -> dict[str, Any]:
    return {"stat": replace(ON_DISK, **changes)}


COPY_FAULTS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "state": [
        ({"state": CopyState.DAMAGED}, "the copy is damaged"),
        ({"state": CopyState.MISSING}, "the copy is missing"),
    ],
    "disk_state": [
        ({"disk_state": DiskState.LOST}, "it is lost"),
        ({"disk_state": DiskState.SPARE}, "it is spare"),
    ],
    "held_by": [
        ({"held_by": "person"}, "the disk is held by a person"),
        ({"held_by": "machine"}, "the disk is held by a machine"),
    ],
    "stand_in": [  # a stand-in may be read back as cached, but must have been read back
        ({"stand_in": True, "read_back": None}, UNREAD),
    ],
    "refusal": [
        ({"refusal": "nothing is mounted at /spt_disks/X"}, "nothing is mounted at /spt_disks/X"),
        ({"refusal": ""}, "its disk was refused"),
    ],
    "stat": [
        ({"stat": None}, "the file is not there"),
        (_stat(size_bytes=999), "it has 999 bytes"),
        (_stat(mtime_ns=5_001), CHANGED),
        (_stat(inode=132), CHANGED),
        (_stat(device=2066), CHANGED),
        (_stat(device=2049), BESIDE),
        ({"stand_in": True} | _stat(device=2049, inode=77000), BESIDE),
    ],
    "read_back": [
        ({"read_back": None}, UNREAD),
        (_read(sha512="9c" * 64), "it gave back SHA-512 9c9c9c9c9c9c…"),
        (
            _read(verified_by=VerifiedBy.CACHED),
            "it was read back as cached, which proves nothing",
        ),
        (_read(stat=replace(ON_DISK, mtime_ns=4_999)), CHANGED),
    ],
    "read_age_s": [
        ({"read_age_s": None}, UNREAD),
        ({"read_age_s": 3601.0}, "it was read back 3601 s ago"),
        ({"read_age_s": -1.0}, "it was read back -1 s ago"),
    ],
    "has_line": [({"has_line": False}, "its manifest line is not there")],
    "place": [({"place": frozenset()}, "its physical drive is unknown")],
}
COPY_ROWS = [
    pytest.param(change, why, id=f"{field} {why}")
    for field, rows in COPY_FAULTS.items()
    for change, why in rows
]


@pytest.mark.parametrize(("change", "why"), COPY_ROWS)
@pytest.mark.parametrize("at_fault", ["P01", "S01"])
def test_a_single_fault_of_a_copy_is_one_refusal_with_numbers(
    at_fault: str, change: dict[str, Any], why: str
) -> None:
    """Each field of either copy, alone, keeps the file: which role, how many of 2, and why."""
    copies = tuple(
        replace(copy, **change) if copy.label == at_fault else copy for copy in GOOD.copies
    )
    role = "primary" if at_fault == "P01" else "copy"
    assert may_remove(replace(GOOD, copies=copies)) == (
        f"no proved copy on a {role} disk (1 of 2 roles): {at_fault}: {why}",
    )


def test_no_field_of_the_evidence_is_left_out_of_these_tables() -> None:
    """Who adds a field to the evidence adds what it refuses, or says here that it decides nothing.

    The name and the label are words in a message; the role has tests of its own.
    """
    assert {f.name for f in fields(Evidence)} == {*SOURCE_FAULTS, "name"}
    assert {f.name for f in fields(CopySeen)} == {*COPY_FAULTS, "label", "role"}


def test_two_primaries_are_no_primary_and_a_copy() -> None:
    """Two good copies of one role are one of the two roles that are needed."""
    second = replace(COPY, label="P02", role=Role.PRIMARY)
    assert may_remove(replace(GOOD, copies=(PRIMARY, second))) == (
        "no proved copy on a copy disk (1 of 2 roles): none is known",
    )


def test_without_any_copy_both_roles_are_missing() -> None:
    """Zero of two roles: one refusal a role."""
    assert may_remove(replace(GOOD, copies=())) == (
        "no proved copy on a primary disk (0 of 2 roles): none is known",
        "no proved copy on a copy disk (0 of 2 roles): none is known",
    )


def test_each_unproved_copy_of_a_role_is_named() -> None:
    """A person sees of every disk why it does not count."""
    held = replace(COPY, held_by="person")
    cached = replace(COPY, label="S02", **_read(verified_by=VerifiedBy.CACHED))
    assert may_remove(replace(GOOD, copies=(PRIMARY, held, cached))) == (
        "no proved copy on a copy disk (1 of 2 roles): S01: the disk is held by a person; "
        "S02: it was read back as cached, which proves nothing",
    )


def test_both_copies_on_one_drive_are_one_copy() -> None:
    """Two partitions, or two labels, on one drive die together."""
    same = replace(COPY, place=PRIMARY.place)
    assert may_remove(replace(GOOD, copies=(PRIMARY, same))) == (
        "both copies are on one physical drive: P01, S01",
    )


def test_sharing_one_of_several_drives_is_sharing() -> None:
    """A volume over two drives dies with either of them."""
    over_two = replace(COPY, place=PRIMARY.place | COPY.place)
    assert may_remove(replace(GOOD, copies=(PRIMARY, over_two))) == (
        "both copies are on one physical drive: P01, S01",
    )


@pytest.mark.parametrize("size_bytes", [999, 1001])
def test_another_size_than_archived_keeps_it(size_bytes: int) -> None:
    """Smaller or larger, whatever the SHA-512s say."""
    now = replace(HASHED, size_bytes=size_bytes)
    assert may_remove(replace(GOOD, hashed=now, source_now=now)) == (
        f"it has {size_bytes} bytes, archived were 1000",
    )


@pytest.mark.parametrize("over_two", Role)
def test_two_copies_of_one_role_apart_do_not_make_up_for_a_volume_over_both(over_two: Role) -> None:
    """It is a primary and a copy that must be apart, not just any two."""
    both = replace(PRIMARY, role=over_two, place=PRIMARY.place | COPY.place)
    others = [
        replace(copy, role=next(r for r in Role if r is not over_two)) for copy in GOOD.copies
    ]
    (refusal,) = may_remove(replace(GOOD, copies=(both, *others)))
    assert refusal.startswith("both copies are on one physical drive")


def test_evidence_can_not_be_altered() -> None:
    """What was judged is what was gathered."""
    for record, name in ((GOOD, "copies"), (PRIMARY, "state")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, ())
        assert not hasattr(record, "__dict__")


def test_a_bad_third_copy_keeps_no_file() -> None:
    """What is proved on two drives is proved, whatever a further disk does."""
    third = replace(COPY, label="S02", state=CopyState.DAMAGED, place=PRIMARY.place)
    assert may_remove(replace(GOOD, copies=(third, PRIMARY, COPY))) == ()


def test_a_good_third_copy_makes_up_for_a_shared_drive() -> None:
    """It is enough that some primary and some copy are apart."""
    same = replace(COPY, place=PRIMARY.place)
    apart = replace(COPY, label="S02")
    assert may_remove(replace(GOOD, copies=(PRIMARY, same, apart))) == ()


def test_a_closed_disk_that_is_there_counts() -> None:
    """A disk is full and closed in the very pass that filled it."""
    copies = tuple(replace(copy, disk_state=DiskState.CLOSED) for copy in GOOD.copies)
    assert may_remove(replace(GOOD, copies=copies)) == ()


@pytest.mark.parametrize("how", VerifiedBy)
def test_a_cached_read_counts_for_stand_ins_alone(how: VerifiedBy) -> None:
    """A plain read proves nothing of a medium; a stand-in has none."""
    on_drives = tuple(replace(copy, **_read(verified_by=how)) for copy in GOOD.copies)
    on_stand_ins = tuple(replace(copy, stand_in=True) for copy in on_drives)
    assert may_remove(replace(GOOD, copies=on_stand_ins)) == ()
    assert (may_remove(replace(GOOD, copies=on_drives)) == ()) == (how is not VerifiedBy.CACHED)


def test_every_fault_is_said_at_once() -> None:
    """A person mends them in one go."""
    wrong = replace(
        GOOD,
        hashed_sha512="9c" * 64,
        source_now=replace(HASHED, mtime_ns=1),
        finished="it is still open for writing",
        copies=(replace(PRIMARY, has_line=False), replace(COPY, held_by="machine")),
    )
    assert may_remove(wrong) == (
        "its content is not what was archived",
        "it has changed since it was hashed",
        "it is still open for writing",
        "no proved copy on a primary disk (0 of 2 roles): P01: its manifest line is not there",
        "no proved copy on a copy disk (0 of 2 roles): S01: the disk is held by a machine",
    )


# Mostly what a good copy has, so that many of the drawn pieces of evidence are good.
def _mostly(good: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from((good,) * 12 + others)


STATS = st.builds(
    FileStat, st.just(1), _mostly(77, 78), _mostly(1000, 0), _mostly(5_000, 1), _mostly(6_000, 1)
)
COPIES_SEEN = st.builds(
    CopySeen,
    label=st.sampled_from(["P01", "S01", "X9"]),
    role=st.sampled_from(Role),
    state=_mostly(CopyState.GOOD, *CopyState),
    disk_state=_mostly(DiskState.ACTIVE, *DiskState),
    held_by=_mostly(None, "person", "machine"),
    stand_in=st.booleans(),
    refusal=_mostly(None, "", "nothing is mounted there"),
    stat=_mostly(ON_DISK, None, replace(ON_DISK, size_bytes=0), replace(ON_DISK, mtime_ns=1)),
    read_back=_mostly(
        READ,
        None,
        *(replace(READ, verified_by=how) for how in VerifiedBy),
        replace(READ, sha512="9c" * 64),
    ),
    read_age_s=_mostly(1.0, None, 0.0, 3600.0, 3600.1, -0.1),
    has_line=_mostly(True, False),
    place=st.frozensets(st.sampled_from("abcd"), max_size=3),
)
EVIDENCE = st.builds(
    Evidence,
    name=st.just(NAME),
    size_bytes=_mostly(1000, 0, 999),
    sha512=_mostly("3f" * 64, "9c" * 64),
    hashed_sha512=_mostly("3f" * 64, "9c" * 64),
    hashed=STATS,
    source_now=STATS,
    finished=_mostly(None, "it is open for writing", ""),
    copies=st.lists(COPIES_SEEN, max_size=5).map(tuple),
)


def counts(copy: CopySeen, size_bytes: int, sha512: str) -> bool:
    """The contract's third invariant, of one copy, in the contract's words."""
    identified_now = copy.refusal is None and len(copy.place) > 0
    neither_held_lost_nor_damaged = (
        copy.held_by is None
        and copy.disk_state is not DiskState.LOST
        and copy.state is CopyState.GOOD
    )
    read, now = copy.read_back, copy.stat
    if read is None or now is None or copy.read_age_s is None:
        return False
    read_back_in_this_pass = 0 <= copy.read_age_s <= 3600 and (
        read.verified_by in (VerifiedBy.DIRECT, VerifiedBy.EVICTED) or copy.stand_in
    )
    as_read_back = (now.device, now.inode, now.size_bytes, now.mtime_ns) == (
        read.stat.device,
        read.stat.inode,
        read.stat.size_bytes,
        read.stat.mtime_ns,
    )
    return bool(
        identified_now
        and neither_held_lost_nor_damaged
        and read_back_in_this_pass
        and read.sha512 == sha512
        and now.size_bytes == size_bytes
        and as_read_back
        and copy.has_line
    )


def holds(evidence: Evidence) -> bool:
    """The contract's third invariant."""
    proved = [
        copy for copy in evidence.copies if counts(copy, evidence.size_bytes, evidence.sha512)
    ]
    return (
        evidence.source_now == evidence.hashed
        and evidence.hashed.size_bytes == evidence.size_bytes
        and evidence.hashed_sha512 == evidence.sha512
        and evidence.finished is None
        and any(
            {one.role, other.role} == {Role.PRIMARY, Role.COPY}
            and one.place.isdisjoint(other.place)
            for one in proved
            for other in proved
        )
    )


@given(EVIDENCE)
def test_what_may_leave_has_every_clause_of_the_contract(evidence: Evidence) -> None:
    """may_remove() == () only where invariant 3, written out here anew, holds."""
    if may_remove(evidence) == ():
        assert holds(evidence)


@given(EVIDENCE)
def test_what_has_every_clause_may_leave(evidence: Evidence) -> None:
    """The buffer must not fill with files that are safe (a spare with copies can't be)."""
    used = tuple(c for c in evidence.copies if c.disk_state is not DiskState.SPARE)
    if holds(replace(evidence, copies=used)):
        assert may_remove(evidence) == ()


@given(EVIDENCE)
def test_a_refusal_is_a_sentence(evidence: Evidence) -> None:
    """No refusal is empty but where the evidence itself said so, and none is said twice."""
    refusals = may_remove(evidence)
    assert len(set(refusals)) == len(refusals)
    assert all(refusals) or evidence.finished == ""


# --- which copies are to be read back -------------------------------------------------------

UNREAD_PRIMARY, UNREAD_COPY = (
    replace(copy, read_back=None, read_age_s=None) for copy in GOOD.copies
)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, ()),
        ({"copies": (UNREAD_PRIMARY, UNREAD_COPY)}, ("P01", "S01")),
        ({"copies": (UNREAD_PRIMARY, COPY)}, ("P01",)),
        ({"copies": (UNREAD_PRIMARY, PRIMARY, COPY)}, ()),
        ({"copies": (replace(PRIMARY, read_age_s=3601.0), COPY)}, ("P01",)),
        ({"copies": (UNREAD_PRIMARY,)}, ()),
        ({"copies": (UNREAD_PRIMARY, replace(UNREAD_COPY, held_by="person"))}, ()),
        ({"copies": (UNREAD_PRIMARY, UNREAD_COPY), "finished": "it is open"}, ()),
        ({"copies": (UNREAD_PRIMARY, UNREAD_COPY), "hashed_sha512": "9c" * 64}, ()),
    ],
)
def test_copies_are_read_back_only_if_nothing_else_keeps_the_file(
    changes: dict[str, Any], labels: tuple[str, ...]
) -> None:
    """A file that is held open, or whose other disk is away, costs no reading at each try."""
    assert removal.only_unread(replace(GOOD, **changes)) == labels


@given(EVIDENCE)
def test_reading_the_copies_named_is_all_that_is_lacking(evidence: Evidence) -> None:
    """Once they have been read back well the file may go."""
    labels = removal.only_unread(evidence)
    read = tuple(
        replace(c, read_back=replace(READ, sha512=evidence.sha512, stat=c.stat), read_age_s=0.0)
        if c.label in labels and c.stat
        else c
        for c in evidence.copies
    )
    if labels:
        assert may_remove(replace(evidence, copies=read)) == ()


# --- with real files and a real database ----------------------------------------------------


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with made(tmp_path) as made_station:
        yield made_station


def test_a_proved_file_leaves_the_buffer_and_both_copies_stay(station: Station) -> None:
    """The unlink takes the buffer's name, and nothing else."""
    assert station.remove() == ()
    assert not station.source.exists()
    assert station.source.parent.is_dir()
    assert station.copy("P01").read_bytes() == station.copy("S01").read_bytes() != b""


def _other_bytes(station: Station) -> None:
    path = station.copy("S01")
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(station.waiting.stat.mtime_ns,) * 2)


def _rotted(station: Station) -> None:
    path = station.copy("S01")
    before, content = path.stat(), bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_mtime_ns,) * 2)


def _linked_away(station: Station) -> None:
    station.copy("S01").rename(station.root / "elsewhere")
    station.copy("S01").symlink_to(station.root / "elsewhere")


def _other_line(station: Station, digit: str = "0") -> None:
    manifest = station.root / "S01" / MANIFEST
    manifest.write_text(manifest.read_text().replace(station.sha512, digit * 128))


def _grown(station: Station) -> None:
    with station.source.open("ab") as file:
        file.write(b"!")


def _refused(station: Station) -> None:
    station.refused["S01"] = DiskRefused("disk-missing", "S01", "nothing is mounted", "Mount it.")


def _on_one_place(station: Station) -> None:
    (station.root / "S01").rename(station.root / "S01-away")
    (station.root / "S01").symlink_to(station.root / "P01")


NO_COPY = "no proved copy on a copy disk (1 of 2 roles): S01: "
REAL_FAULTS: dict[str, tuple[Callable[[Station], object], str]] = {
    "the copy was removed": (lambda s: s.copy("S01").unlink(), NO_COPY + "the file is not there"),
    "the copy was cut": (_other_bytes, NO_COPY + "it has 1399 bytes"),
    "the copy rotted": (_rotted, NO_COPY + "it gave back SHA-512 815fbee6db69…"),
    "the copy is a link": (_linked_away, NO_COPY + "the file is not there"),
    "the manifest lost its line": (
        lambda s: manifest.drop_line(s.fds["S01"], NAME),
        NO_COPY + "its manifest line is not there",
    ),
    "the manifest has another line": (_other_line, NO_COPY + "its manifest line is not there"),
    "the manifest is damaged": (
        lambda s: (s.root / "S01" / MANIFEST).write_bytes(b"oops\n"),
        NO_COPY + "manifest-sha512.txt: the text at byte 0 is not a manifest line",
    ),
    "the manifest is gone": (
        lambda s: (s.root / "S01" / MANIFEST).unlink(),
        NO_COPY + "there is no manifest-sha512.txt",
    ),
    "the disk can't be used": (_refused, NO_COPY + "nothing is mounted"),
    "both labels lead to one place": (
        _on_one_place,
        "both copies are on one physical drive: S01, P01",
    ),
    "the copy is damaged": (
        lambda s: s.sql("UPDATE copies SET state = 'damaged' WHERE disk_id = 2"),
        NO_COPY + "the copy is damaged",
    ),
    "the disk is held": (
        lambda s: s.sql("UPDATE disks SET held_by = 'person' WHERE id = 2"),
        NO_COPY + "the disk is held by a person",
    ),
    "the disk is lost": (
        lambda s: s.sql("UPDATE disks SET state = 'lost' WHERE id = 2"),
        NO_COPY + "it is lost",
    ),
    "the copy is cached, on a drive": (
        lambda s: s.sql("UPDATE disks SET stand_in = 0 WHERE id = 2"),
        NO_COPY + "its physical drive is unknown",
    ),
    "the row is gone": (
        lambda s: s.sql("DELETE FROM copies WHERE disk_id = 2"),
        "no proved copy on a copy disk (1 of 2 roles): none is known",
    ),
    "it is not archived": (
        lambda s: s.sql("UPDATE files SET archived_at = NULL"),
        "it is not registered as archived",
    ),
    "it is not known": (
        lambda s: (s.sql("DELETE FROM copies"), s.sql("DELETE FROM files")),
        "it is not registered as archived",
    ),
    "it grew": (
        _grown,
        "it grew from 1400 to 1401 bytes while it was being archived",
    ),
    "it was touched": (
        lambda s: os.utime(s.source, ns=(1, 1)),
        "it was written to while it was being archived",
    ),
    "it was removed": (
        lambda s: s.source.unlink(),
        removal.TAKEN,
    ),
}


@pytest.mark.parametrize(("spoil", "refusal"), REAL_FAULTS.values(), ids=REAL_FAULTS)
def test_what_is_not_proved_now_stays_in_the_buffer(
    station: Station, spoil: Callable[[Station], object], refusal: str
) -> None:
    """The evidence is gathered anew from disks, database and buffer: each fault is seen."""
    spoil(station)
    was_there = station.source.exists()
    assert station.remove() == (refusal,)
    assert station.source.exists() == was_there


def test_another_file_in_its_place_is_not_removed(station: Station) -> None:
    """Same name, size, content and mtime, but another inode: it was never hashed."""
    other = station.source.with_name("new")
    other.write_bytes(station.source.read_bytes())
    os.utime(other, ns=(station.waiting.stat.mtime_ns,) * 2)
    other.replace(station.source)
    assert station.remove() == ("another file has taken its place",)
    assert station.source.exists()


def test_a_link_in_its_place_is_not_removed(station: Station) -> None:
    """Neither the link nor what it leads to."""
    target = station.root / "moved.g3"
    station.source.rename(target)
    station.source.symlink_to(target)
    (refusal,) = station.remove()
    assert refusal.startswith("it can't be read (")
    assert station.source.is_symlink() and target.exists()


@pytest.mark.parametrize("by", ["another file", "a link to it", "nothing"])
def test_a_name_that_leads_elsewhere_at_the_last_moment_is_not_unlinked(
    station: Station, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Whoever comes between opening the file and unlinking its name keeps what he put there."""
    real, moved = removal.buffer.lease, station.root / "moved.g3"

    def too_late(fd: int) -> Any:
        station.source.rename(moved)
        if by == "another file":
            station.source.write_bytes(b"new")
        elif by == "a link to it":
            station.source.symlink_to(moved)
        return real(fd)

    monkeypatch.setattr(removal.buffer, "lease", too_late)
    (refusal,) = station.remove()
    assert refusal in (
        "it has changed since it was hashed",
        removal.TAKEN,
    )
    assert moved.exists()
    assert os.path.lexists(station.source) == (by != "nothing")


def test_a_file_that_somebody_writes_to_is_not_removed(station: Station) -> None:
    """A read lease tells, where we own the file."""
    with station.source.open("r+b"):
        assert station.remove() == ("it is still open for writing",)
    assert station.remove() == ()


def test_other_content_than_archived_is_not_removed(station: Station) -> None:
    """The buffer's file was hashed, and is another one."""
    assert station.remove(sha512="9c" * 64) == ("its content is not what was archived",)
    assert station.source.exists()


def test_a_disk_that_does_not_answer_keeps_it(station: Station) -> None:
    """Whatever the system says of it is said, and nothing of it counts."""

    def hold(disk: Disk) -> HeldDisk:
        if disk.label == "S01":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return station.hold(disk)

    assert station.remove(hold=hold) == (NO_COPY + "it does not answer (Input/output error)",)
    assert station.source.exists()


def test_a_manifest_line_that_moved_still_stands(station: Station) -> None:
    """A line dropped above it (a file was set aside) shifts it: it is as durable as before."""
    fd = station.fds["S01"]
    bag.write_file(fd, MANIFEST, b"")
    manifest.append(fd, [("0" * 128, "older.g3")])
    (line,) = manifest.append(fd, [(station.sha512, NAME)])
    manifest.drop_line(fd, "older.g3")
    assert station.remove(lines={station.disk("S01").id: line}) == ()


@pytest.mark.parametrize("digit", "0f")
def test_a_line_of_another_content_is_no_line(station: Station, digit: str) -> None:
    """What the lane saw counts only with the catalogue's SHA-512, and only while it stands."""
    line = ManifestLine(digit * 128, NAME, 0)
    _other_line(station, digit)
    assert manifest.has_line(station.fds["S01"], line)
    assert station.remove(lines={station.disk("S01").id: line}) == (
        NO_COPY + "its manifest line is not there",
    )
    gone = replace(line, sha512=station.sha512)
    assert station.remove(lines={station.disk("S01").id: gone}) == (
        NO_COPY + "its manifest line is not there",
    )


LATE_CHANGES = {
    "UPDATE disks SET held_by = 'machine' WHERE id = 2": NO_COPY + "the disk is held by a machine",
    "UPDATE copies SET state = 'damaged' WHERE disk_id = 2": NO_COPY + "the copy is damaged",
    "UPDATE files SET archived_at = NULL": "it is not registered as archived",
}


@pytest.mark.parametrize(("query", "refusal"), LATE_CHANGES.items())
def test_what_the_database_says_by_the_end_of_the_pause_counts(
    station: Station, monkeypatch: pytest.MonkeyPatch, query: str, refusal: str
) -> None:
    """A check of the drives may hold a disk meanwhile: the file gets its name back."""
    monkeypatch.setattr(removal.time, "sleep", lambda _: station.sql(query))
    assert station.remove() == (refusal,)
    assert station.source.exists()


def test_a_copy_that_was_read_too_long_ago_is_read_again(station: Station) -> None:
    """A pass may be suspended between the copy and the removal."""
    long_ago_s = direct_io.boottime_s() - removal.READ_WITHIN_S - 1
    read_backs = {
        station.disk(label).id: replace(
            _read_back(station.copy(label), station.sha512), at_s=long_ago_s
        )
        for label in ("P01", "S01")
    }
    (outcome,) = station.remove_all(
        ArchivedFile(station.waiting, station.sha512, read_backs=read_backs)
    )
    assert outcome.is_removed
    assert station.readings == ["P01", "S01"]


def test_a_removal_leaves_no_descriptor_behind(station: Station) -> None:
    """Neither one that went well nor one that was refused."""
    before = len(os.listdir("/proc/self/fd"))
    station.remove(sha512="9c" * 64)
    station.refused["P01"] = DiskRefused("disk-missing", "P01", "nothing is mounted", "Mount it.")
    station.remove()
    station.refused.clear()
    assert station.remove() == ()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_copy_where_no_new_copies_may_go_is_no_ground_for_removal(station: Station) -> None:
    """A copy on btrfs, NTFS, without barriers, …: read, but nothing rests on it."""

    def hold(disk: Disk) -> HeldDisk:
        held = station.hold(disk)
        return replace(held, unsupported="it is on btrfs") if disk.label == "S01" else held

    assert station.remove(hold=hold) == (NO_COPY + "it is on btrfs",)
    assert station.source.exists()
    assert station.remove() == ()


# --- nothing else removes -------------------------------------------------------------------

# Every place that takes a name away or replaces one: (module, function) → what it takes.
TAKES_AWAY = {
    ("poledata/archive/removal.py", "_unlink_if_proved", "unlink"): "a proved file: the only one",
    ("poledata/archive/removal.py", "_give_back", "rename_new"): "a hidden name; replaces nothing",
    (
        "poledata/archive/buffer.py",
        "hide",
        "rename_new",
    ): "a proved file's name; replaces nothing",
    ("poledata/system/paths.py", "rename_new", "renameat2"): "for these two",
    (
        "poledata/disks/bag.py",
        "sweep_incoming",
        "unlink",
    ): "what an earlier pass left in .incoming/",
    ("poledata/disks/bag.py", "write_file", "rename"): "a file of ours on a disk, beside data/",
    (
        "poledata/disks/bag.py",
        "write_file",
        "unlink",
    ): "its temporary name, when it can't be written",
    ("poledata/disks/bag.py", "set_aside", "rename"): "to a new, random name in .aside/",
    ("poledata/disks/manifest.py", "cut_torn_line", "ftruncate"): "a torn last line",
    (
        "poledata/archive/buffer_marker.py",
        "write",
        "ftruncate",
    ): "a marker of ours that a crash has cut",
    ("poledata/smart/ids.py", "compare", "remove"): "from a list of what is left to compare",
    (
        "poledata/maintenance/restore.py",
        "_copy_out",
        "unlink",
    ): "a temporary name where files are restored",
    ("poledata/archive/disk_writer.py", "clear_away", "unlink"): "a temporary name in .incoming/",
    (
        "poledata/db/database_files.py",
        "_remove",
        "unlink",
    ): "a temporary copy, or what a new database is made under",
    (
        "poledata/db/database_files.py",
        "remove_unfinished",
        "unlink",
    ): "what a killed upgrade had made",
    ("poledata/notices/delivery_queue.py", "_stamp", "unlink"): "an older stamp of ours",
    (
        "poledata/notices/delivery_queue.py",
        "_note_that_database_is_back",
        "unlink",
    ): "a stamp of ours",
    ("poledata/status/publish.py", "_replace", "replace"): "the page or numbers of an earlier pass",
    (
        "poledata/status/publish.py",
        "_replace",
        "unlink",
    ): "their temporary name, of now or of a crash",
    (
        "poledata/disks/closing.py",
        "write_whole",
        "rename",
    ): "a packing list or a sheet beside the database",
    ("poledata/disks/shipments.py", "write_sheet", "unlink"): "the sheet of an undone shipment",
    ("poledata/disks/view.py", "_link", "unlink"): "a link in ViewLocation that a pass made",
}
TAKERS = {"unlink", "remove", "rmtree", "rename", "renames", "replace", "move"}

TAKERS |= {"truncate", "ftruncate", "rename_new", "renameat2"}


def _takers(path: Path) -> Iterator[tuple[str, str, str]]:
    """(file, function, what) of each call that may take a file's name or bytes away."""
    module = str(path.relative_to(REPO))
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if _may_take(node):
                    yield module, function.name, node.func.attr


def _may_take(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    if node.func.attr not in TAKERS:
        return False
    # text.replace("a", "b"), datetime.replace(tzinfo=…), removal.remove(…): no file's
    owner = node.func.value
    is_module = isinstance(owner, ast.Name) and owner.id in {"os", "shutil"}
    is_text = node.func.attr == "replace" and (len(node.args) == 2 or node.keywords)
    is_ours = isinstance(owner, ast.Name) and owner.id == "removal"
    return is_module or not (is_text or is_ours)


def test_nothing_else_in_the_code_takes_a_file_away() -> None:
    """One unlink of a buffer file in the code base; whoever adds a call says here what it takes."""
    sources = [*(REPO / "poledata").rglob("*.py"), *REPO.glob("*.py")]
    found = sorted({taker for path in sources for taker in _takers(path)})
    assert found == sorted(TAKES_AWAY)


def test_no_code_takes_files_away_by_another_program() -> None:
    """Nor is a name taken under which the list above would not see it."""
    for path in (*(REPO / "poledata").rglob("*.py"), *REPO.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in {"os", "shutil"}:
                assert not TAKERS & {alias.name for alias in node.names}, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("os", "system"), ("os", "popen")}, path
