"""Names, times and sizes as text."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poledata.formatting import seconds, shown, size_text, utc

# Every name that a Linux directory can hold, and what looks like an escape.
NAMES = st.binary(max_size=12).map(os.fsdecode) | st.text("\\xu0d1\n\x85\u202e\udc80é", max_size=6)
YEAR_10000 = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


@given(NAMES)
def test_a_shown_name_is_printable_and_encodable(name: str) -> None:
    """Any terminal, log and database can carry it: no control, no lone surrogate."""
    assert shown(name).isprintable()
    shown(name).encode("utf-8")


@given(NAMES, NAMES)
@example("a\n", "a\\n")
@example("\udc80", "\\udc80")
@example("\x85", "\\x85")
def test_two_names_never_look_the_same(one: str, other: str) -> None:
    """shown() is injective: equal texts mean equal names."""
    assert (shown(one) == shown(other)) == (one == other)


@given(NAMES)
def test_a_shown_name_can_be_turned_back(name: str) -> None:
    """Which is why two names never look the same: each escape stands for one character."""
    escaped = shown(name).encode("ascii", "backslashreplace").decode("unicode_escape")
    assert escaped == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fullrate/RCW38/80296951/0000.g3", "fullrate/RCW38/80296951/0000.g3"),
        ("ra0hdec-44.75 (é)", "ra0hdec-44.75 (é)"),
        ("a\nb\\c", "a\\nb\\\\c"),
        ("\x1b[2J\u202e\udcff", "\\x1b[2J\\u202e\\udcff"),
    ],
)
def test_an_ordinary_name_is_shown_as_it_is(name: str, text: str) -> None:
    assert shown(name) == text


@given(st.integers(0, int(YEAR_10000)))
def test_a_time_survives_its_text(at: int) -> None:
    """seconds() is the inverse of utc(), to the second."""
    assert seconds(utc(at)) == at


@given(st.integers(0, int(YEAR_10000)), st.integers(0, int(YEAR_10000)))
def test_texts_sort_as_their_times(one: int, other: int) -> None:
    """The database compares the text."""
    assert (utc(one) < utc(other)) == (one < other)


def test_a_time_is_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's times are UTC, whatever the clock on the wall says."""
    try:
        monkeypatch.setenv("TZ", "NZST-12")
        time.tzset()
        assert utc(1_795_458_057.9) == "2026-11-23T18:20:57Z"
        assert seconds("2026-11-23T18:20:57Z") == 1_795_458_057
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1 kB"), (1024, "1.024 kB"),
        (2**30, "1.074 GB"), (999_949, "999.9 kB"), (999_951, "1 MB"), (10**9, "1 GB"),
        (8 * 10**12, "8 TB"), (1_005_600_000_000_000, "1,006 TB"),
    ],
)  # fmt: skip
def test_a_size_reads_as_on_the_drives_sticker(size_bytes: int, text: str) -> None:
    """Powers of 1000, four digits, never 1000 of a smaller unit."""
    assert size_text(size_bytes) == text


@given(st.integers(0, 10**15))
def test_a_shown_size_is_near_the_true_one(size_bytes: int) -> None:
    """Within the four digits that are shown."""
    number, unit = size_text(size_bytes).split()
    factor = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(size_bytes, rel=0.000_51)
