"""The checker can fail: each invariant, broken once, is named; the loop disks do what they say."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.file_bytes import flip
from tests.helpers.invariants import (
    Ledger,
    parse_manifest,
    snapshot,
)
from tests.helpers.world import World

# --- each invariant broken once ---------------------------------------------------------


def test_altered_content_is_seen_behind_the_same_size_and_mtime(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    before, st_before = snapshot(tmp_path), file.stat()
    flip(file)
    os.utime(file, ns=(st_before.st_atime_ns, st_before.st_mtime_ns))
    assert before.differences(snapshot(tmp_path)) == ["file: content changed"]


# --- the ledger -------------------------------------------------------------------------


def test_put_writes_what_it_records(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entry = ledger.put("a/b.g3", 3_000_001, mode=0o640, mtime_s=1_563_525_751.5)
    path = tmp_path / "a/b.g3"
    assert hashlib.sha512(path.read_bytes()).hexdigest() == entry.sha512
    assert path.stat().st_size == entry.size_bytes == 3_000_001
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_mtime == 1_563_525_751.5


def test_random_content_is_the_same_each_time_but_differs_by_name_and_seed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    one, again = ledger.put("a.g3", 100), ledger.put("a.g3", 100)
    assert one == again
    assert len({one.sha512, ledger.put("b.g3", 100).sha512, ledger.put("a.g3", seed=1).sha512}) == 3


def test_content_written_over_is_known_but_owed_no_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    old, new = ledger.put("a.g3", b"old"), ledger.put("a.g3", b"new")
    assert ledger.owed() == [new]
    assert ledger.known() == {"a.g3": {old.sha512, new.sha512}}


def test_content_that_had_left_the_buffer_is_still_owed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    old = ledger.put("a.g3", b"old")
    (tmp_path / "a.g3").unlink()
    new = ledger.put("a.g3", b"new")
    assert ledger.owed() == [old, new]


def test_what_was_withdrawn_and_put_again_is_owed_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put("a.g3", b"old")
    ledger.withdraw("a.g3", "the test deletes it")
    assert ledger.owed() == []
    entry = ledger.put("a.g3", b"old")
    assert ledger.owed() == [entry]


def test_a_name_that_is_not_utf8_can_be_put_and_saw(tmp_path: Path) -> None:
    name = os.fsdecode(b"odd/\xff\xfe.g3")
    ledger = Ledger(tmp_path)
    assert ledger.put(name) == ledger.saw(name)


# --- the manifest's grammar -------------------------------------------------------------

HASH = "0123456789abcdef" * 8


@pytest.mark.parametrize(
    "line",
    [
        HASH[1:] + "  data/x",
        HASH + " data/x",
        HASH + "   data/x",
        HASH + " *data/x",
        HASH + "  x",
        HASH + "  ./data/x",
        HASH + "  data/",
        HASH + "  data/../x",
        HASH + "  data//x",
        HASH + "  data/a%25",
        HASH + "  data/x ",
        HASH + "  data/x\r",
        HASH + "  data/x\u2028y",
        "\\" + HASH + "  data/a\\nb",
        "",
    ],
)
def test_a_line_that_some_reader_would_misread_is_refused(line: str) -> None:
    lines, faults = parse_manifest(f"{line}\n".encode())
    assert lines == []
    assert len(faults) == 1


PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="%\\/\0")


@given(st.lists(st.text(PLAIN, min_size=1), min_size=1, unique=True))
def test_every_name_that_needs_no_escape_is_read_back(names: list[str]) -> None:
    carried = [
        name
        for name in names
        if name.splitlines() == [name] and name == name.rstrip() and name not in (".", "..")
    ]
    lines, faults = parse_manifest("".join(f"{HASH}  data/{name}\n" for name in carried).encode())
    assert [line.name for line in lines] == carried
    assert faults == []


# --- the world, as far as it needs no script --------------------------------------------


def test_a_world_has_a_disk_map_a_configuration_and_its_directories(tmp_path: Path) -> None:
    world = World(tmp_path, ["P01"], ["S01", "S02"], SettleTime="60 s", SpareDisksLow=None)
    lines = [line.split() for line in world.disk_map_path.read_text().splitlines()]
    assert [line[0] for line in lines] == ["P01", "S01", "S02"]
    assert all(re.fullmatch("0x[0-9a-f]{16}", line[2]) for line in lines)
    assert len(set(itertools.chain.from_iterable(lines))) == 9
    config = world.config_path.read_text()
    assert "RequireMount = no\n" in config
    assert "SettleTime = 60 s\n" in config
    assert "SpareDisksLow" not in config
    assert all(path.is_dir() for path in (world.buffer, *world.disks.values()))
