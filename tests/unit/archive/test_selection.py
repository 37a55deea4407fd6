"""Which paths of the buffer are data."""

from __future__ import annotations

import pytest

from poledata.archive.buffer import is_data
from poledata.archive.selection import Selection, old_hidden_text

ALL = Selection((".g3",))
TREES = Selection((".g3",), ("fullrate", "down*/RCW38"), ("fullrate/test", "*/*/*/tmp*"))
HASH = "." + "0" * 64 + ".removing"


@pytest.mark.parametrize(
    ("path", "with_all", "with_trees"),
    [
        ("fullrate/RCW38/8/0.g3", True, True),
        ("fullrate/0.g3", True, True),
        ("fullrate2/0.g3", True, False),
        ("fullrate/test/0.g3", True, False),
        ("fullrate/tests/0.g3", True, True),
        ("fullrate/RCW38/8/tmp.g3", True, False),
        ("downsampled/RCW38/0.g3", True, True),
        ("downsampled/0.g3", True, False),
        ("0.g3", True, False),
        ("fullrate/0.g3.gz", False, False),
        ("fullrate/.0.g3", False, False),
        ("fullrate/.~tmp~/0.g3", False, False),
        (".rsync-partial/0.g3", False, False),
        ("fullrate/.0.g3.removing", True, True),
        ("fullrate/..0.g3.removing", False, False),
        ("fullrate/.a/.0.g3.removing", False, False),
        ("raw/.0.g3.removing", True, False),
        (f"fullrate/{HASH}", True, True),
        (f"raw/{HASH}", True, False),
        (f"fullrate/.a/{HASH}", False, False),
    ],
)
def test_data_is_a_matter_of_ending_tree_and_dots(
    path: str, with_all: bool, with_trees: bool
) -> None:
    """What this program hid itself counts under its own name."""
    assert (is_data(path, ALL), is_data(path, TREES)) == (with_all, with_trees)


def test_only_directories_that_may_hold_data_are_entered() -> None:
    """Those on the way to a tree, and those in it."""
    entered = ["fullrate", "fullrate/x/y", "down", "downsampled", "downsampled/RCW38/8"]
    assert all(map(TREES.may_hold, entered))
    left_out = ["raw", "fullrate/test", "fullrate/test/x", "downsampled/saturn", "a/b/c/tmp1"]
    assert not any(map(TREES.may_hold, left_out))


def test_the_roots_of_trees_and_what_leads_to_them_are_known() -> None:
    assert all(map(TREES.is_root, ["fullrate", "downsampled", "downsampled/RCW38"]))
    assert not any(map(TREES.is_root, ["fullrate/RCW38", "downsampled/saturn", "raw"]))
    assert not ALL.is_root("fullrate")  # the tree is the buffer itself


def test_old_hidden_files_are_counted_and_a_few_named() -> None:
    assert old_hidden_text([], 0) is None
    assert old_hidden_text([".a.g3"], 1) == (
        "1 hidden file is older than a day: .a.g3. Hidden files are never archived. "
        "Nothing was changed."
    )
    assert str(old_hidden_text(["a", "b", "c"], 4)).startswith(
        "4 hidden files are older than a day: a, b, c, …. "
    )
