"""Defects that are known and not mended yet, each with the tests that show it.

Only ever shrinks: who mends one takes its line out, and its tests count again.
"""

from __future__ import annotations

import pytest

OPEN = {
    "test_disk_life.py::test_a_copy_on_a_held_disk_is_no_ground_for_removal": "hold: open",
    "test_check.py::test_each_right_that_an_ordinary_user_lacks_is_named[no_unlink_where_sticky]": (
        "check does not look at sticky directories"
    ),
    "test_disk_sets.py::test_a_gone_drive_settles_no_notice_of_the_one_that_has_its_label_now": (
        "notices of disks are keyed on the label alone"
    ),
    "test_disk_sets.py::test_a_shipped_drive_that_stands_in_the_map_is_not_called_ready": (
        "generate_db calls any mounted place ready"
    ),
    "test_disk_sets.py::test_what_a_wiped_drive_held_before_is_no_fault_of_its_new_life": (
        "verify counts the missing copies of an earlier life"
    ),
    "test_closing.py::test_a_close_that_is_killed_anywhere_is_finished_or_was_not_begun": (
        "close: killed after the seal is registered, the removal slip is no notice"
    ),
    "test_closing.py::test_a_disk_that_can_not_be_sealed_is_not_passed_over_in_silence": (
        "close: a failure to seal has no notice"
    ),
    "test_closing.py::test_a_held_disk_is_not_even_sealed": "close: a held disk is sealed",
    "test_closing.py::test_what_can_not_be_made_one_keeps_the_disk_as_it_is": (
        "close: two lines for one name, and names the manifest can't carry"
    ),
    "test_closing.py::test_a_full_disk_that_can_not_be_closed_is_told_and_left_alone": (
        "close: a notice of a refused close outlives the close"
    ),
    "test_verify.py::test_a_spare_has_nothing_to_verify": "verify: a spare is a fault",
    "test_verify.py::test_a_directory_that_can_not_be_read_is_loud_and_the_rest_is_read": (
        "verify: one unreadable directory ends it"
    ),
    "test_verify.py::test_it_runs_beside_a_pass": "verify: files of a running pass",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They run, and are reported as expected failures, with the defect as the reason."""
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        reason = OPEN.get(name) or OPEN.get(name.partition("[")[0])
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))
