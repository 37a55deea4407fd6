"""Hashes that are right for every length, and reads that truly reach the disk."""

from __future__ import annotations

import errno
import mmap
import os
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poledata.models import VerifiedBy
from poledata.system.direct_io import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    HashingReader,
    ShortRead,
    aligned_buffer,
    evict,
    fill,
    read_back,
    resident_pages,
    write_at,
)
from tests.helpers.file_bytes import ignore, sha512, written

MIB = 1 << 20
NOISE = random.Random(1).randbytes(9 * MIB + 13)
SIZES = [0, 1, 4095, 4096, 4097, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 13]


@pytest.fixture
def reader() -> Iterator[HashingReader]:
    with closing(HashingReader()) as reader:
        yield reader


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory on tmpfs, which has no medium."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


# --- reading and hashing --------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_hash_is_the_files_whatever_its_length(
    tmp_path: Path, reader: HashingReader, size_bytes: int
) -> None:
    """Around blocks and buffers; every byte is told of once."""
    ticks: list[int] = []
    with written(tmp_path / "file", NOISE[:size_bytes]) as fd:
        assert reader.sha512(fd, size_bytes, ticks.append) == sha512(NOISE[:size_bytes])
    assert sum(ticks) == size_bytes
    assert all(0 < ticked <= CHUNK_BYTES for ticked in ticks)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9 * MIB + 13), st.integers(0, 4096))
def test_only_so_many_bytes_are_hashed_as_were_asked(size_bytes: int, more_bytes: int) -> None:
    """A file that has grown meanwhile is hashed as it was; that it grew is for the caller."""
    with (
        TemporaryDirectory(dir="/dev/shm") as name,
        closing(HashingReader()) as reader,
        written(Path(name, "file"), NOISE[: size_bytes + more_bytes]) as fd,
    ):
        assert reader.sha512(fd, size_bytes, ignore) == sha512(NOISE[:size_bytes])


@pytest.mark.parametrize(("has", "size_bytes"), [(0, 1), (4096, 4097), (4 * MIB, 9 * MIB)])
def test_a_file_that_ends_too_soon_is_never_taken_for_whole(
    tmp_path: Path, reader: HashingReader, has: int, size_bytes: int
) -> None:
    """ShortRead says where it ended; the reader can be used again."""
    with written(tmp_path / "file", NOISE[:has]) as fd:
        with pytest.raises(ShortRead) as caught:
            reader.sha512(fd, size_bytes, ignore)
        assert caught.value.errno == errno.EIO
        assert caught.value.strerror == f"it ends at byte {has} of {size_bytes}"
        assert reader.sha512(fd, has, ignore) == sha512(NOISE[:has])


def test_a_tick_that_raises_ends_the_reading(tmp_path: Path, reader: HashingReader) -> None:
    """Nothing is hashed any more when it returns, and the reader can be used again."""

    def stop(n_bytes: int) -> None:
        raise KeyboardInterrupt

    with written(tmp_path / "file", NOISE) as fd:
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                reader.sha512(fd, len(NOISE), stop)
        assert reader.sha512(fd, len(NOISE), ignore) == sha512(NOISE)


def test_a_reader_that_is_closed_leaves_no_thread() -> None:
    """A pass has one a disk and a batch."""
    before = threading.active_count()
    with closing(HashingReader()) as reader, open("/dev/null", "rb") as null:
        reader.sha512(null.fileno(), 0, ignore)
    assert threading.active_count() == before


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3 * BLOCK_BYTES), st.integers(0, 2), st.integers(1, 3))
def test_a_view_is_filled_till_it_or_the_file_ends(size_bytes: int, at: int, blocks: int) -> None:
    """From any block on; the count says how much of the view is the file's."""
    at_bytes, view = at * BLOCK_BYTES, aligned_buffer(blocks * BLOCK_BYTES)
    with (
        TemporaryDirectory(dir="/dev/shm") as name,
        written(Path(name, "file"), NOISE[:size_bytes]) as fd,
    ):
        if at_bytes > size_bytes:
            return
        count = fill(fd, view, at_bytes, size_bytes)
        assert count == min(len(view), size_bytes - at_bytes)
        assert bytes(view[:count]) == NOISE[at_bytes : at_bytes + count]


def test_a_short_read_in_the_middle_goes_on(
    tmp_path: Path, reader: HashingReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """preadv(2) may return less than it was asked for, without an end being there."""
    real = os.preadv
    with written(tmp_path / "file", NOISE) as fd:
        monkeypatch.setattr(
            os, "preadv", lambda fd, views, at: real(fd, [views[0][: BLOCK_BYTES * 3]], at)
        )
        assert reader.sha512(fd, len(NOISE), ignore) == sha512(NOISE)


def test_an_unreadable_medium_is_an_error_not_an_end(
    tmp_path: Path, reader: HashingReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO comes through as it is, from the first read or a later one."""
    real, calls = os.preadv, iter(range(10))

    def failing(fd: int, views: list[memoryview], at: int) -> int:
        if next(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, views, at)

    monkeypatch.setattr(os, "preadv", failing)
    with written(tmp_path / "file", NOISE) as fd, pytest.raises(OSError) as caught:
        reader.sha512(fd, len(NOISE), ignore)
    assert (caught.value.errno, type(caught.value)) == (errno.EIO, OSError)


# --- in memory or not -----------------------------------------------------------------------


def test_an_empty_file_has_no_pages(tmp_path: Path) -> None:
    """And is evicted as soon as it is asked for."""
    with written(tmp_path / "file", b"") as fd:
        assert resident_pages(fd) == 0
        assert evict(fd)


def test_what_is_in_memory_alone_is_never_evicted(in_memory: Path) -> None:
    """tmpfs has nowhere to put it."""
    with written(in_memory / "file", NOISE[:MIB]) as fd:
        assert not evict(fd)
        assert resident_pages(fd) == MIB // mmap.PAGESIZE


# --- reading back ---------------------------------------------------------------------------


def test_what_was_in_memory_alone_was_read_back_as_cached(
    in_memory: Path, reader: HashingReader
) -> None:
    """A stand-in on tmpfs proves no medium."""
    with written(in_memory / "file", NOISE[:MIB]) as fd:
        assert read_back(fd, False, reader, ignore) == (sha512(NOISE[:MIB]), VerifiedBy.CACHED)


# --- writing --------------------------------------------------------------------------------


def test_a_view_is_written_whole_at_its_place(tmp_path: Path) -> None:
    """Around it nothing changes, nor does the descriptor's own position."""
    with written(tmp_path / "file", b"." * 10) as fd:
        write_at(fd, memoryview(b"abc"), 4)
        write_at(fd, memoryview(b""), 9)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    assert (tmp_path / "file").read_bytes() == b"....abc..."


def test_a_short_write_goes_on_and_an_empty_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pwrite(2) may take less than it is given; what takes nothing is no success."""
    real = os.pwrite
    with written(tmp_path / "file", b"") as fd:
        monkeypatch.setattr(os, "pwrite", lambda fd, view, at: real(fd, bytes(view[:3]), at))
        write_at(fd, memoryview(b"0123456789"), 2)
        assert os.pread(fd, 100, 0) == b"\0\0000123456789"
        monkeypatch.setattr(os, "pwrite", lambda fd, view, at: 0)
        with pytest.raises(OSError) as caught:
            write_at(fd, memoryview(b"0123456789"), 0)
    assert caught.value.errno == errno.EIO
