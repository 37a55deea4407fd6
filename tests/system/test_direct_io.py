"""Hashes that are right for every length, and reads that truly reach the disk."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata.models import VerifiedBy
from poledata.system.direct_io import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    HashingReader,
    aligned_buffer,
    evict,
    is_truly_direct,
    preallocate,
    read_back,
    resident_pages,
    set_direct,
    write_at,
)
from tests.helpers.file_bytes import ignore, sha512, written
from tests.helpers.loopdisks import LoopDisk

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


@pytest.fixture(params=["xfs", "ext4"])
def disk(
    request: pytest.FixtureRequest, loop_disk: Callable[..., LoopDisk], tmp_path: Path
) -> LoopDisk:
    """A drive with each of the file systems that are in use, in blocks as on large drives.

    In smaller blocks than a page, mincore(2) does not count a page that was written in part.
    """
    blocks = ("-b", "4096") if request.param == "ext4" else ()
    return loop_disk(tmp_path / "disk.img", tmp_path / "disk", fs=request.param, mkfs_args=blocks)


# --- reading and hashing --------------------------------------------------------------------


def test_a_hash_is_the_same_by_direct_reads(disk: LoopDisk, reader: HashingReader) -> None:
    """Odd ends too, though direct reads ask for whole blocks."""
    for number, size_bytes in enumerate(SIZES):
        with written(disk.mount_point / str(number), NOISE[:size_bytes]) as fd:
            assert set_direct(fd, True)
            assert reader.sha512(fd, size_bytes, ignore) == sha512(NOISE[:size_bytes])


# --- in memory or not -----------------------------------------------------------------------


def test_resident_pages_are_counted_and_evicted(disk: LoopDisk) -> None:
    """Eviction is proved by looking, not believed."""
    for size_bytes in (1, 4096, 4097, 5 * MIB):
        with written(disk.mount_point / f"{size_bytes}", NOISE[:size_bytes]) as fd:
            assert resident_pages(fd) == -(-size_bytes // mmap.PAGESIZE)
            assert evict(fd)
            assert resident_pages(fd) == 0
            os.pread(fd, 1, 0)
            assert resident_pages(fd) > 0


def test_pages_that_somebody_maps_are_not_evicted(disk: LoopDisk) -> None:
    """A reader elsewhere keeps them in memory, and evict() says so."""
    with written(disk.mount_point / "file", NOISE[: 4 * MIB]) as fd:
        with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as held:
            assert held[0] == NOISE[0]
            assert not evict(fd)
        assert evict(fd)


def test_direct_reads_are_proved_by_trying_them(disk: LoopDisk, in_memory: Path) -> None:
    """True on a disk, for a file of any length; False on tmpfs, though it takes the flag."""
    for content in (b"x", NOISE[:MIB]):
        with written(disk.mount_point / "file", content) as fd:
            assert is_truly_direct(fd)
            assert os.pread(fd, 1, 0) == content[:1]  # an unaligned read: the flag is off again
        with written(in_memory / "file", content) as fd:
            assert not is_truly_direct(fd)


def test_direct_reads_of_what_stays_in_memory_are_not_proved(disk: LoopDisk) -> None:
    """While somebody maps the file it can't be told where a read comes from."""
    with (
        written(disk.mount_point / "file", NOISE[:MIB]) as fd,
        mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as held,
    ):
        assert held[0] == NOISE[0]
        assert not is_truly_direct(fd)


def test_looking_at_a_file_does_not_change_it(disk: LoopDisk) -> None:
    """The mapping that mincore(2) needs is private and never written through."""
    with written(disk.mount_point / "file", NOISE[:10_000]) as fd:
        before = os.fstat(fd)
        resident_pages(fd)
        is_truly_direct(fd)
        after = os.fstat(fd)
        assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
        assert os.pread(fd, 10_000, 0) == NOISE[:10_000]


# --- reading back ---------------------------------------------------------------------------


def test_a_copy_is_read_back_as_well_as_can_be(disk: LoopDisk, reader: HashingReader) -> None:
    """Direct where that is proved, else evicted first, else no more than cached."""
    whole = sha512(NOISE)
    with written(disk.mount_point / "file", NOISE) as fd:
        assert read_back(fd, True, reader, ignore) == (whole, VerifiedBy.DIRECT)
        assert resident_pages(fd) == 0
    with written(disk.mount_point / "file", NOISE) as fd:
        assert read_back(fd, False, reader, ignore) == (whole, VerifiedBy.EVICTED)
        with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as held:
            assert held[0] == NOISE[0]
            assert read_back(fd, False, reader, ignore) == (whole, VerifiedBy.CACHED)


def test_an_empty_copy_is_read_back_too(disk: LoopDisk, reader: HashingReader) -> None:
    """Its hash is that of nothing."""
    with written(disk.mount_point / "file", b"") as fd:
        assert read_back(fd, True, reader, ignore) == (sha512(b""), VerifiedBy.DIRECT)
        assert read_back(fd, False, reader, ignore) == (sha512(b""), VerifiedBy.EVICTED)


@pytest.mark.parametrize(("direct", "how"), [(True, "direct"), (False, "evicted")])
def test_a_flipped_bit_under_a_warm_cache_is_seen(
    disk: LoopDisk, reader: HashingReader, direct: bool, how: str
) -> None:
    """A plain read still gives back what was meant to be there; the medium has another bit."""
    with written(disk.mount_point / "file", NOISE[: 5 * MIB + 1]) as fd:
        disk.flip_bit("file", offset=3 * MIB)
        os.pread(fd, 5 * MIB + 1, 0)
        assert reader.sha512(fd, 5 * MIB + 1, ignore) == sha512(NOISE[: 5 * MIB + 1])
        flipped = bytearray(NOISE[: 5 * MIB + 1])
        flipped[3 * MIB] ^= 1
        assert read_back(fd, direct, reader, ignore) == (sha512(flipped), VerifiedBy(how))


def test_a_direct_read_goes_to_the_medium_whatever_memory_holds(
    disk: LoopDisk, reader: HashingReader
) -> None:
    """Also while somebody maps the file, so that nothing of it could be evicted."""
    with (
        written(disk.mount_point / "file", NOISE[:MIB]) as fd,
        mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as held,
    ):
        assert held[:] == NOISE[:MIB]
        disk.flip_bit("file", offset=5000)
        digest, how = read_back(fd, True, reader, ignore)
        assert held[:] == NOISE[:MIB]
    assert (digest == sha512(NOISE[:MIB]), how) == (False, VerifiedBy.DIRECT)


# --- writing --------------------------------------------------------------------------------


def test_buffers_are_aligned_for_direct_writes(disk: LoopDisk) -> None:
    """Written past the page cache, and there."""
    buffer = aligned_buffer(2 * BLOCK_BYTES)
    assert len(aligned_buffer()) == CHUNK_BYTES
    buffer[:] = NOISE[: len(buffer)]
    with written(disk.mount_point / "file", b"") as fd:
        assert set_direct(fd, True)
        write_at(fd, buffer, 0)
        write_at(fd, buffer[BLOCK_BYTES:], 2 * BLOCK_BYTES)
        assert resident_pages(fd) == 0
        assert set_direct(fd, False)
        expected = NOISE[: 2 * BLOCK_BYTES] + NOISE[BLOCK_BYTES : 2 * BLOCK_BYTES]
        assert os.pread(fd, 10**5, 0) == expected


def test_switching_direct_keeps_all_other_flags(disk: LoopDisk) -> None:
    """A descriptor that appends still appends."""
    fd = os.open(disk.mount_point / "file", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, b"a")
        assert set_direct(fd, True) and set_direct(fd, False)
        os.pwrite(fd, b"b", 0)
        assert os.pread(fd, 10, 0) == b"ab"
    finally:
        os.close(fd)


def test_room_is_asked_for_before_the_first_byte(disk: LoopDisk) -> None:
    """A full disk shows at once, as ENOSPC; what fits is there for sure."""
    with written(disk.mount_point / "file", b"") as fd:
        preallocate(fd, 0)
        assert os.fstat(fd).st_blocks == 0
        preallocate(fd, 3 * MIB + 1)
        assert os.fstat(fd).st_size == 3 * MIB + 1
        assert os.fstat(fd).st_blocks * 512 >= 3 * MIB + 1
    with written(disk.mount_point / "other", b"") as fd, pytest.raises(OSError) as caught:
        preallocate(fd, 10**9)
    assert caught.value.errno == errno.ENOSPC
