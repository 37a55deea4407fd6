"""Every system call on a file's way, made to fail in every way it can, on every device.

The cells are not listed by hand: a run is traced first, and whatever it calls on the buffer, on
a disk or beside the database is then made to fail (tests/campaigns/). After each the invariants
hold, exit code and words are right, a clean pass finishes the job, and the disks can be closed.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable

import pytest

from tests.campaigns.matrix import cells, spread, try_cell
from tests.campaigns.shim import EMPTY, SHORT, Call, Rule, needs_shim
from tests.campaigns.stage import LARGE, NEXT, SCENES, SMALL, Stage

pytestmark = [needs_shim, pytest.mark.timeout(600)]
DEVICES = ("source", "primary", "copy", "database")
SHORT_FORM = 10  # cells of each scene and device
EACH_OF = 3  # a call that is made so often at most fails at each of its occurrences, in turn
PLACES = [(scene, device) for scene in SCENES for device in DEVICES]
PLACES.remove(("closing", "copy"))  # which it only looks for
PLACES.remove(("closing", "source"))
PLACES.remove(("verifying", "source"))


def run_cells(stage: Stage, device: str, count: int | None) -> None:
    """All cells of one scene and device, or so many, well spread."""
    trace = stage.act()
    assert trace.code == 0, trace
    calls = [call for call in trace.calls if call.device == device]
    rules = list(cells(calls, all_of=1 if count else EACH_OF))
    chosen = spread(rules, count) if count else rules
    faults = [fault for rule in chosen if (fault := try_cell(stage, rule))]
    kinds = Counter(rule.call.kind for rule in chosen)
    print(f"{device}: {len(chosen)} of {len(rules)} cells: {dict(kinds)}")
    stage.world.leave_unchecked("it is as the last cell left it, which was judged")
    assert not faults, f"{len(faults)} of {len(chosen)} cells:\n" + "\n".join(faults[:20])


@pytest.mark.parametrize(("scene", "device"), PLACES)
def test_if_anything_fails_nothing_is_lost_and_the_next_pass_finishes(
    make_stage: Callable[[str], Stage], scene: str, device: str
) -> None:
    """A part of the matrix, with every kind of call × error in it."""
    run_cells(make_stage(scene), device, SHORT_FORM)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("scene", "device"), PLACES)
def test_the_whole_matrix(make_stage: Callable[[str], Stage], scene: str, device: str) -> None:
    """Every cell."""
    run_cells(make_stage(scene), device, None)


def test_the_matrix_is_as_large_as_it_claims(make_stage: Callable[[str], Stage]) -> None:
    """The short form has 200 cells and more, of each device and every call there is."""
    stage = make_stage("first-use")
    trace = stage.act()
    rules = list(cells(trace.calls))
    assert len(rules) > 1000
    assert len(PLACES) * SHORT_FORM >= 200
    assert {rule.call.device for rule in rules} == set(DEVICES)
    steps = {"create", "fallocate", "write", "pwrite", "fsync", "preadv", "link", "unlink"}
    steps |= {"mkdir", "rename", "fdatasync", "open", "pread", "close", "chmod", "utimens"}
    assert steps <= {rule.call.kind for rule in rules}


# --- what the matrix has found ------------------------------------------------------------

MANIFEST = Call("pread", "primary:manifest-sha512.txt")


def test_a_short_read_cuts_no_line_off_a_manifest(make_stage: Callable[[str], Stage]) -> None:
    """The whole of it is read before its torn end is looked for."""
    stage = make_stage("after-a-crash")
    manifest = stage.world.disks["P01"] / "manifest-sha512.txt"
    before = manifest.read_bytes()
    outcome = stage.act(Rule(MANIFEST, SHORT))
    assert (outcome.fired, outcome.code) == (1, 0)
    assert manifest.read_bytes().startswith(before)


def test_a_manifest_that_seems_to_end_too_soon_is_not_cut(
    make_stage: Callable[[str], Stage],
) -> None:
    """The disk is said to fail, and the next one takes the files."""
    stage = make_stage("after-a-crash")
    manifest = stage.world.disks["P01"] / "manifest-sha512.txt"
    before = manifest.read_bytes()
    outcome = stage.act(Rule(MANIFEST, EMPTY))
    assert (outcome.fired, outcome.code) == (1, 1)
    assert manifest.read_bytes() == before
    assert ("disk-error", "P01") in stage.world.notices()


def test_a_file_that_could_not_be_removed_is_not_forgotten_with_another_of_its_name(
    make_stage: Callable[[str], Stage],
) -> None:
    """One of a removal that was interrupted gets its name back, the file that had taken that name
    is removed: the first one still fails, in the database and in the exit code."""
    stage = make_stage("interrupted-removal")
    outcome = stage.act(Rule(Call("unlink", "source:.again.g3.removing"), errno.ENOENT))
    assert outcome.fired == 1
    assert "again.g3" in stage.world.waiting()
    assert [row["name"] for row in stage.world.sql("SELECT name FROM pending")] == ["again.g3"]
    assert outcome.code == 1
    stage.tidy()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_a_bag_is_never_sealed_by_a_manifest_that_was_read_in_part(
    make_stage: Callable[[str], Stage], number: int
) -> None:
    """Wherever a reading of it ends too soon, no line is lost and none is there twice."""
    stage = make_stage("closing")
    outcome = stage.act(Rule(Call("read", "primary:manifest-sha512.txt"), EMPTY, number))
    assert outcome.fired == 1
    stage.tidy()
    stage.close_all()
    assert stage.world.manifest("P01").keys() - {NEXT} == {SMALL, LARGE, "adopted.g3"}


def test_a_tag_file_that_can_not_be_found_keeps_a_bag_from_being_sealed(
    make_stage: Callable[[str], Stage],
) -> None:
    """A tag manifest without it would be no bag's; closing again makes it whole."""
    stage = make_stage("closing")
    outcome = stage.act(Rule(Call("open", "primary:README.txt"), errno.ENOENT))
    assert (outcome.fired, outcome.code) == (1, 1)
    assert not (stage.world.disks["P01"] / "tagmanifest-sha512.txt").exists()
    stage.tidy()
    stage.close_all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("rename primary:manifest-sha512.txt", "P01 can't be closed: Input/output error. It st"),
        ("flock database:pole.sqlite.turn", "pole.sqlite.turn: the lock can't be had (Input/outpu"),
    ],
)
def test_an_error_of_the_world_is_no_defect_of_ours(
    make_stage: Callable[[str], Stage], call: str, said: str
) -> None:
    """Closing, for a person: exit 1 and words, not exit 3 and a traceback."""
    stage = make_stage("closing")
    outcome = stage.act(Rule(Call(*call.split(" ")), errno.EIO))
    assert (outcome.fired, outcome.code) == (1, 1)
    assert said in outcome.err
    stage.tidy()
    stage.close_all()


def test_a_bag_is_never_sealed_without_a_file_that_it_names(
    make_stage: Callable[[str], Stage],
) -> None:
    """One that is not seen while the payload is counted keeps the bag open."""
    stage = make_stage("closing")
    outcome = stage.act(Rule(Call("stat", "primary:data/adopted.g3"), errno.ENOENT, 2))
    assert (outcome.fired, outcome.code) == (1, 1)
    assert "data/adopted.g3 came or went while it was closed" in outcome.err
    stage.tidy()
    stage.close_all()


def test_a_database_that_is_away_after_the_pass_is_no_wrong_usage(
    make_stage: Callable[[str], Stage],
) -> None:
    """Exit 1: "nothing was changed" would be a lie, for files were archived by then."""
    stage = make_stage("first-use")
    outcome = stage.act(Rule(Call("access", "database:pole.sqlite"), errno.EROFS, 2))
    assert (outcome.fired, outcome.code) == (1, 1)
    assert "the database can't be opened" in stage.world.log()
    assert "Nothing was changed" not in outcome.err + stage.world.log()
    stage.tidy()


def test_a_copy_that_can_not_be_looked_at_is_said(make_stage: Callable[[str], Stage]) -> None:
    """The file is archived anew, and the log says what the disk answered."""
    stage = make_stage("after-a-crash")
    outcome = stage.act(Rule(Call("stat", "primary:data/seed.g3"), errno.EIO))
    assert (outcome.fired, outcome.code) == (1, 0)
    assert "P01: seed.g3 can't be looked at: [Errno 5] Input/output" in stage.world.log()
    stage.tidy()
