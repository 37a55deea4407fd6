"""Real .g3 files: written, archived, and read back by the telescope's own software."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.world import World

core = pytest.importorskip("spt3g.core", reason="spt3g has no wheel for this machine")
numpy = pytest.importorskip("numpy")  # comes with spt3g
OBSERVATION = "fullrate/RCW38/80296951"
LONG_AGO = 1_600_000_000
SAMPLES = 20_000


def frames(number: int) -> Iterator[Any]:
    """What one file of an observation holds: who it is, then scans of a few bolometers."""
    head = core.G3Frame(core.G3FrameType.Observation)
    head["SourceName"] = "RCW38"
    head["ObservationID"] = 80296951
    yield head
    for scan in range(3):
        frame = core.G3Frame(core.G3FrameType.Scan)
        frame["Number"] = 100 * number + scan
        frame["Raw"] = timestreams(number, scan)
        yield frame


def timestreams(number: int, scan: int) -> Any:
    streams = core.G3TimestreamMap()
    for bolometer in range(3):
        first = float(number + scan + bolometer)
        streams[f"bolo{bolometer}"] = core.G3Timestream(first + numpy.arange(SAMPLES) / 7)
    streams.start = core.G3Time("20190719_111551")
    streams.stop = core.G3Time("20190719_111651")
    return streams


def open_writer(world: World, name: str, content: Iterable[Any]) -> Any:
    """A G3Writer that has written and flushed all this, and still holds its file open."""
    path = world.buffer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = core.G3Writer(str(path))
    for frame in content:
        writer(frame)
    writer.flush()
    os.utime(path, (LONG_AGO, LONG_AGO))
    return writer


def write(world: World, number: int) -> str:
    """A finished file in the observation's directory; its name."""
    name = f"{OBSERVATION}/{number:04}.g3"
    open_writer(world, name, frames(number))  # nobody keeps it: it closes its file
    world.ledger.saw(name)
    return name


def read(path: Path) -> list[tuple[Any, ...]]:
    """Every frame of a file, by what is in it, as the telescope's own reader gives it back."""
    return [said(frame) for frame in core.G3File(str(path))]


def said(frame: Any) -> tuple[Any, ...]:
    if frame.type == core.G3FrameType.Observation:
        return str(frame.type), frame["SourceName"], frame["ObservationID"]
    raw = frame["Raw"]
    streams = {name: numpy.asarray(stream).tobytes() for name, stream in raw.items()}
    return str(frame.type), frame["Number"], streams, raw.start.time, raw.stop.time


def test_archived_g3_files_are_read_back_from_both_disks(world: World) -> None:
    """Frame by frame, value by value, with the telescope's own reader."""
    names = [write(world, number) for number in range(3)]
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    for number, name in enumerate(names):
        expected = [said(frame) for frame in frames(number)]
        assert len(expected) == 4
        for label in ("P01", "S01"):
            assert read(world.data(label) / name) == expected


def test_a_file_that_a_g3_writer_holds_open_is_left_until_it_is_closed(world: World) -> None:
    """It is under its final name, flushed and old: only its open descriptor tells."""
    finished = write(world, 0)
    name = f"{OBSERVATION}/0001.g3"
    writer = open_writer(world, name, frames(1))
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == {name}
    assert world.archived("P01") == world.archived("S01") == {finished}
    assert world.notices() == set()
    del writer
    world.ledger.saw(name)
    world.run_pass(check=0)
    assert world.waiting() == set()
    for label in ("P01", "S01"):
        assert read(world.data(label) / name) == [said(frame) for frame in frames(1)]
