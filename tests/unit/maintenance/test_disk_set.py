"""What a disk-map brings, what contradicts, and what is still to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.config import Config, load
from poledata.disk_map import Entry
from poledata.errors import DiskMapFault, ExitCode
from poledata.maintenance.disk_set import Changes, changes
from poledata.models import Disk, DiskState, Role
from poledata.system import mounts
from tests.helpers.sample_disks import P01, WWN, disk, ready

MAP = Path("/root/disk-map")
S01 = Entry("S01", Role.COPY, "ZA12JD44", WWN.format(8), 2)


def faults(known: list[Disk], *entries: Entry, take_back: bool = False) -> tuple[str, ...]:
    with pytest.raises(DiskMapFault) as caught:
        changes(known, entries, MAP, take_back)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value.faults


# --- what a map brings ----------------------------------------------------------------------


def test_drives_that_were_never_seen_are_new() -> None:
    """In the map's order; those that are known are counted."""
    assert changes([], [P01, S01], MAP, False) == Changes((P01, S01), (), 0, 0)
    assert changes([disk(P01)], [P01, S01], MAP, False) == Changes((S01,), (), 1, 0)
    assert changes([disk(P01), disk(S01)], [P01, S01], MAP, False) == Changes((), (), 2, 0)
    assert changes([disk(P01)], [], MAP, False) == Changes((), (), 0, 0)


def test_a_map_need_not_name_what_is_known() -> None:
    """A further disk set stands in a file of its own."""
    assert changes([disk(P01)], [S01], MAP, False) == Changes((S01,), (), 0, 0)


@pytest.mark.parametrize(
    ("known", "said"),
    [("ZA12JCHM", "za12jchm"), ("ZA12JCHM0000C822", "ZA12JCHM"), ("ZA12JCHM", "ZA12JCHM0000C822")],
)
def test_a_printed_serial_is_the_beginning_of_the_one_that_is_reported(
    known: str, said: str
) -> None:
    """With the same logical ID it is the same drive, in either order and case."""
    found = changes([disk(P01, serial=known)], [replace(P01, serial=said)], MAP, False)
    assert found == Changes((), (), 1, 0)


@pytest.mark.parametrize("state", [DiskState.SHIPPED, DiskState.LOST])
def test_a_label_is_free_once_its_disk_is_gone(state: DiskState) -> None:
    """The next season's set starts again at P01."""
    gone = disk(P01, state, serial="ZOLD", logical_id=WWN.format("0"))
    assert changes([gone], [P01], MAP, False).new == (P01,)


def test_a_lost_drive_comes_back_only_if_that_is_asked_for() -> None:
    """It was wiped, and may have another label now; a map that still names it changes nothing."""
    lost = disk(P01, DiskState.LOST)
    again = replace(P01, label="P07", line=3)
    assert changes([lost], [again, S01], MAP, False) == Changes((S01,), (), 1, 1)
    assert changes([lost], [again, S01], MAP, True) == Changes((S01,), ((again, lost),), 0, 0)


@pytest.mark.parametrize("state", [s for s in DiskState if s is not DiskState.LOST])
def test_only_a_lost_drive_comes_back(state: DiskState) -> None:
    """Any other still has its files somewhere."""
    assert changes([disk(P01, state)], [P01], MAP, True) == Changes((), (), 1, 0)


# --- what contradicts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (
            {"logical_id": WWN.format("0")},
            f"serial ZA12JCHM is known as P01 with logical ID {WWN.format(7)}, "
            f"not {WWN.format('0')}",
        ),
        (
            {"serial": "ZA12JCHM0000C822", "logical_id": WWN.format("0")},
            f"serial ZA12JCHM0000C822 is known as P01 with logical ID {WWN.format(7)}, "
            f"not {WWN.format('0')}",
        ),
        (
            {"serial": "ZNEW"},
            f"logical ID {WWN.format(7)} is known as P01 with serial ZA12JCHM, not ZNEW",
        ),
        (
            {"label": "P07"},
            "ZA12JCHM is P01, in use. A typo? Correct line 9 of the disk-map.",
        ),
        (
            {"serial": "ZNEW", "logical_id": WWN.format("0")},
            "label P01 belongs to the drive ZA12JCHM (active), not to ZNEW. A typo? Correct line 9 "
            "of the disk-map.",
        ),
    ],
)
def test_a_contradiction_names_both_sides(changed: dict[str, Any], fault: str) -> None:
    """The map's line, what it says, and what the database knows."""
    assert faults([disk(P01)], replace(P01, line=9, **changed)) == (f"/root/disk-map:9: {fault}",)


@pytest.mark.parametrize("state", [DiskState.SPARE, DiskState.ACTIVE, DiskState.CLOSED])
def test_a_label_at_the_station_is_not_free(state: DiskState) -> None:
    """Its sticker is on another drive."""
    said = faults([disk(P01, state)], replace(P01, serial="ZNEW", logical_id=WWN.format("0")))
    first = " A new label, or another drive? First: data_manager.py forget P01"
    assert said == (
        f"/root/disk-map:1: label P01 belongs to the drive ZA12JCHM ({state.value}), not to ZNEW. "
        "A typo? Correct line 1 of the disk-map." + (first if state is DiskState.SPARE else ""),
    )


def test_p1_beside_p01_is_one_label_to_a_tired_person() -> None:
    """As within one map."""
    (said,) = faults([disk(P01)], Entry("P1", Role.PRIMARY, "ZNEW", WWN.format("0"), 5))
    assert said.startswith("/root/disk-map:5: label P1 ")
    assert "ZA12JCHM" in said


def test_two_serials_of_a_map_that_begin_alike_are_ambiguous() -> None:
    """Which drive is meant could not be told by its serial."""
    longer = Entry("P02", Role.PRIMARY, "za12jchm9", WWN.format("0"), 7)
    assert faults([], P01, longer) == (
        "/root/disk-map:7: serial za12jchm9 of P02 and serial ZA12JCHM of P01 (line 1) begin "
        "alike: write them out",
    )


def test_all_contradictions_are_told_at_once_and_none_of_the_map_is_taken() -> None:
    """One round for the person who mends it; new drives beside it wait."""
    known = [disk(P01), disk(S01)]
    wrong = [
        replace(P01, logical_id=WWN.format("0")),
        replace(S01, label="S09"),
        Entry("P05", Role.PRIMARY, "ZNEW", WWN.format("1"), 3),
    ]
    assert [fault.partition(": ")[0] for fault in faults(known, *wrong)] == [
        "/root/disk-map:1",
        "/root/disk-map:2",
    ]


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(["P01", "P02", "P03", "S01"]),
        st.just(Role.PRIMARY),
        st.sampled_from(["ZA", "ZB", "ZC", "ZAB"]),
        st.sampled_from("0123").map(WWN.format),
        st.just(0),
    ),
    max_size=4,
    unique_by=(lambda e: e.label, lambda e: e.serial, lambda e: e.logical_id),
).map(lambda entries: [replace(entry, line=line) for line, entry in enumerate(entries, start=1)])
STATES = st.lists(st.sampled_from(DiskState), min_size=4, max_size=4)


@given(ENTRIES, ENTRIES, STATES, st.booleans())
def test_what_is_taken_never_breaks_what_is_unique(
    before: list[Entry], entries: list[Entry], states: list[DiskState], take_back: bool
) -> None:
    """Serials and logical IDs for ever, labels at the station; every entry is counted once."""
    known = [disk(entry, state) for entry, state in zip(before, states, strict=False)]
    try:
        found = changes(known, entries, MAP, take_back)
    except DiskMapFault:
        return
    back = {old.id: entry for entry, old in found.returned}
    after = [old for old in known if old.id not in back]
    after += [disk(entry, DiskState.SPARE) for entry in (*back.values(), *found.new)]
    assert len({each.serial for each in after}) == len(after)
    assert len({each.logical_id for each in after}) == len(after)
    gone = (DiskState.SHIPPED, DiskState.RECEIVED, DiskState.LOST)
    here = [each.label for each in after if each.state not in gone]
    assert len(set(here)) == len(here)
    assert len(found.new) + len(found.returned) + found.known == len(entries)


# --- what is still to be done ---------------------------------------------------------------


@pytest.fixture
def station(tmp_path: Path) -> Callable[..., Config]:
    """``station(require_mount=…)`` is a configuration whose disks are below ``tmp_path/disks``."""
    (tmp_path / "disks").mkdir()
    (tmp_path / "buffer").mkdir()

    def config(
        require_mount: bool = True, mount_points: str = "disks", accept_unidentified: str = "no"
    ) -> Config:
        (tmp_path / "config").write_text(
            "[x]\nFilenameDB = pole.sqlite\nBufferLocation = buffer\nExtension = g3\n"
            f"DiskMountPoints = {mount_points}\nRequireMount = {'yes' if require_mount else 'no'}\n"
            f"AcceptUnidentifiedDrives = {accept_unidentified}\n"
        )
        return load(tmp_path / "config", {})

    return config


@pytest.fixture(autouse=True)
def _one_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An lsblk that knows P01's drive alone, as /dev/sdq."""
    path = tmp_path / "lsblk"
    drive = (
        f'"kname":"sdq","serial":"ZA12JCHM0000C822","wwn":"{P01.logical_id}","size":8001563222016'
    )
    path.write_text(f"#!/bin/sh\necho '{{\"blockdevices\":[{{{drive}}}]}}'\n")
    path.chmod(0o755)
    monkeypatch.setattr(mounts, "_LSBLK", (str(path),))


def test_a_stand_in_is_a_directory(station: Callable[..., Config], tmp_path: Path) -> None:
    """The system's drives are not asked for."""
    config = station(require_mount=False)
    place = tmp_path / "disks" / "P01"
    found = ready(config)
    assert (found.device, found.mounted, found.next_step) == ("-", "no", f"mkdir -p {place}")
    place.mkdir()
    found = ready(config)
    assert (found.device, found.mounted, found.next_step) == ("-", str(place), "")


def test_of_several_places_the_one_in_use_is_shown(
    station: Callable[..., Config], tmp_path: Path
) -> None:
    """Where none is, the first is proposed."""
    (tmp_path / "other" / "P01").mkdir(parents=True)
    config = station(require_mount=False, mount_points="disks, other")
    assert ready(config).mounted == str(tmp_path / "other" / "P01")
    assert ready(config, S01).next_step == f"mkdir -p {tmp_path}/disks/S01"
