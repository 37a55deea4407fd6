"""One read of the buffer feeds the hash and both disks: each way that it can go, in one process.

Whole passes do the same in test_pass.py and test_changing_files.py; here each rule is asked alone,
with real files in real directories.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poledata.archive import copier, disk_writer
from poledata.archive.buffer import Buffer
from poledata.archive.copier import Result, copy_batch
from poledata.archive.selection import Selection
from poledata.disks import bag
from poledata.errors import CopyMismatch, FileFault, NameConflict, SourceChanged, Stopped
from poledata.models import MANIFEST, CopyTarget, FileStat, Job, Role, Waiting, Written
from poledata.system import direct_io, paths
from poledata.system.direct_io import CHUNK_BYTES

BOTH = frozenset(Role)
pytestmark = pytest.mark.timeout(60)  # a batch that hangs is a defect


class Bench:
    """A buffer and two claimed directories in disks' places."""

    def __init__(self, root: Path, down: ExitStack) -> None:
        self.buffer_path, self.roots = root / "buffer", {role: root / role.value for role in Role}
        for path in (self.buffer_path, *self.roots.values()):
            path.mkdir()
        self.buffer = Buffer(self._open(self.buffer_path, down), Selection((".g3",)), 0.0, True)
        self.targets = [
            CopyTarget(role, role.value, self._open(path, down), direct=False)
            for role, path in self.roots.items()
        ]
        for target in self.targets:
            bag.claim(target.root_fd, bag.Mark("L", target.role, "s", "i", True, "2026-01-01"))
        self.stop = threading.Event()
        self.ticks: list[tuple[str, str, int]] = []

    @staticmethod
    def _open(path: Path, down: ExitStack) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        down.callback(os.close, fd)
        return fd

    def job(
        self, name: str, content: bytes, roles: frozenset[Role] = BOTH, known: str | None = None
    ) -> Job:
        path = self.buffer_path / name
        path.write_bytes(content)
        info = path.stat()
        return Job(Waiting(name, FileStat.of(info), info.st_mode & 0o777), roles, known)

    def copy(self, *jobs: Job, tick: Callable[[str, str, int], None] | None = None) -> list[Result]:
        """The batch; no lane is left when it has ended."""

        def note(*what: Any) -> None:
            self.ticks.append(what)

        try:
            return copy_batch(self.buffer, jobs, self.targets, self.stop, tick or note)
        finally:
            assert not [t for t in threading.enumerate() if t.name.startswith("lane-")]

    def content(self, role: Role, name: str) -> bytes | None:
        path = self.roots[role] / "data" / name
        return path.read_bytes() if path.exists() else None

    def is_tidy(self) -> bool:
        return not any(list((root / ".incoming").iterdir()) for root in self.roots.values())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as down:
        yield Bench(tmp_path, down)


def sha512(content: bytes) -> str:
    return hashlib.sha512(content).hexdigest()


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, 4095, 4096, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5000],
)
def test_each_copy_is_the_file_byte_by_byte_and_so_is_its_hash(
    bench: Bench, size_bytes: int
) -> None:
    """Whatever its length is to the chunks that it is read in."""
    content = os.urandom(size_bytes)
    (result,) = bench.copy(bench.job("a.g3", content))
    assert (result.sha512, result.fault) == (sha512(content), None)
    assert {role: bench.content(role, "a.g3") for role in Role} == dict.fromkeys(Role, content)
    assert all(isinstance(copy, Written) for copy in result.copies.values())
    assert result.copies.keys() == BOTH
    assert bench.is_tidy()


def test_each_file_goes_to_the_disks_of_its_roles_alone(bench: Bench) -> None:
    """Three files of one batch, in any mixture; results come in the order of the jobs."""
    roles = [BOTH, frozenset({Role.PRIMARY}), frozenset({Role.COPY})]
    jobs = [bench.job(f"{i}.g3", b"%d" % i, roles=some) for i, some in enumerate(roles)]
    results = bench.copy(*jobs)
    assert [result.job for result in results] == jobs
    assert [result.copies.keys() for result in results] == roles
    for role in Role:
        held = [bench.content(role, job.name) is not None for job in jobs]
        assert held == [role in some for some in roles]


def test_more_files_than_there_are_buffers_go_through(bench: Bench) -> None:
    """Every buffer comes back, also of the longest batch: nothing waits for ever."""
    content = os.urandom(CHUNK_BYTES + 1)
    jobs = [bench.job(f"{i}.g3", content) for i in range(copier.BUFFERS + 3)]
    results = bench.copy(*jobs)
    assert {result.sha512 for result in results} == {sha512(content)}
    written = [(n, b) for label, n, b in bench.ticks if label == "primary"]
    assert sum(size for _, size in written) == 2 * len(jobs) * len(content)  # written, read back


def test_a_file_that_shrank_is_reported_and_no_copy_is_left(bench: Bench) -> None:
    """It is no file of the size that was scanned; the next one goes on."""
    job = bench.job("a.g3", bytes(9000))
    longer = replace(job.waiting.stat, size_bytes=20_000)
    later = bench.job("b.g3", b"b")
    source = _AsScanned(bench.buffer)
    results = copy_batch(
        source,
        [replace(job, waiting=replace(job.waiting, stat=longer)), later],
        bench.targets,
        bench.stop,
        lambda *_: None,
    )
    fault = results[0].fault
    assert isinstance(fault, SourceChanged)
    assert str(fault) == (
        "a.g3: it shrank while it was read: it ends at byte 9000 of 20000; "
        "the file stays in the buffer"
    )
    assert results[0].sha512 is None
    assert all(isinstance(copy, Stopped) for copy in results[0].copies.values())
    assert results[1].fault is None
    assert [bench.content(role, "a.g3") for role in Role] == [None, None]
    assert bench.is_tidy()


class _AsScanned:
    """A source that does not look at the file's size before it is read."""

    def __init__(self, buffer: Buffer) -> None:
        self._fd = buffer.root_fd

    def finished(self, waiting: Waiting) -> Any:
        from poledata.system import paths

        return paths.opened(self._fd, waiting.name)

    def read_ahead(self, waiting: Waiting) -> None:
        pass

    def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
        pass


def test_files_that_shrink_take_no_buffers_with_them(bench: Bench) -> None:
    """As many as there are buffers, and one more."""
    jobs = [bench.job(f"{i}.g3", b"x") for i in range(copier.BUFFERS + 2)]
    stats = [replace(job.waiting.stat, size_bytes=5) for job in jobs]
    bench.buffer = _AsScanned(bench.buffer)  # type: ignore[assignment]
    longer = [
        replace(job, waiting=replace(job.waiting, stat=stat))
        for job, stat in zip(jobs, stats, strict=True)
    ]
    results = bench.copy(*longer)
    assert all(isinstance(result.fault, SourceChanged) for result in results)


class _Unreadable(_AsScanned):
    """As the buffer does: what the system says of a reading is the file's fault."""

    @contextmanager
    def finished(self, waiting: Waiting) -> Iterator[int]:
        try:
            with super().finished(waiting) as fd:
                yield fd
        except OSError as fault:
            raise FileFault(waiting.name, str(fault.strerror)) from fault


def test_files_that_give_an_error_take_no_buffers_with_them(bench: Bench) -> None:
    """Here a directory stands in each one's place; then a good file still finds a buffer."""
    jobs = [bench.job(f"{i}.g3", b"x") for i in range(copier.BUFFERS + 2)]
    for job in jobs:
        (bench.buffer_path / job.name).unlink()
        (bench.buffer_path / job.name).mkdir()
    bench.buffer = _Unreadable(bench.buffer)  # type: ignore[assignment]
    *faulty, good = bench.copy(*jobs, bench.job("good.g3", b"y"))
    assert [str(result.fault) for result in faulty] == [
        str(FileFault(job.name, "Is a directory")) for job in jobs
    ]
    assert (good.fault, good.sha512) == (None, sha512(b"y"))


def test_a_file_that_can_not_be_read_is_a_fault_of_that_file(bench: Bench) -> None:
    """Another one is there by its name, or none: the others are copied."""
    gone, good = bench.job("gone.g3", b"x"), bench.job("good.g3", b"y")
    (bench.buffer_path / "gone.g3").unlink()
    first, second = bench.copy(gone, good)
    assert isinstance(first.fault, FileFault)
    assert (second.fault, second.sha512) == (None, sha512(b"y"))
    assert bench.content(Role.PRIMARY, "good.g3") == b"y"


def test_the_next_file_is_read_ahead_and_a_fault_of_that_is_said_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In turn, each but the first; whether a file can be read shows when it is read."""
    asked: list[str] = []

    def read_ahead(root_fd: int, path: str) -> None:
        asked.append(path)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(paths, "read_ahead", read_ahead)
    caplog.set_level("INFO")
    results = bench.copy(*(bench.job(name, b"x") for name in ("a.g3", "b.g3", "c.g3")))
    assert [result.fault for result in results] == [None] * 3
    assert asked == ["b.g3", "c.g3"]
    assert "b.g3 is not read ahead: Input/output error" in caplog.messages


@pytest.mark.parametrize("is_same", [True, False])
def test_other_content_than_is_known_is_a_conflict_and_no_copy(bench: Bench, is_same: bool) -> None:
    """A copy that a known file lacks is made of that content alone."""
    known = sha512(b"old" if not is_same else b"new")
    (result,) = bench.copy(bench.job("a.g3", b"new", known=known))
    if is_same:
        assert (result.fault, result.sha512) == (None, known)
        assert bench.content(Role.COPY, "a.g3") == b"new"
        return
    assert isinstance(result.fault, NameConflict)
    assert f"SHA-512 {known[:12]}…, this one is {sha512(b'new')[:12]}…" in str(result.fault)
    assert result.sha512 is None
    assert [bench.content(role, "a.g3") for role in Role] == [None, None]
    assert bench.is_tidy()


def test_a_batch_that_is_told_to_stop_reads_nothing_more(bench: Bench) -> None:
    """Each file is said to be stopped; nothing of it is left."""
    bench.stop.set()
    results = bench.copy(bench.job("a.g3", b"x"), bench.job("b.g3", b"y"))
    assert all(isinstance(result.fault, Stopped) for result in results)
    assert all(isinstance(c, Stopped) for result in results for c in result.copies.values())
    assert [bench.content(role, n) for role in Role for n in ("a.g3", "b.g3")] == [None] * 4
    assert bench.is_tidy()
    assert bench.ticks == []


def test_a_stop_in_the_middle_of_a_file_ends_it_there(bench: Bench) -> None:
    """After its first chunk was written."""

    def stop(*_: object) -> None:
        bench.stop.set()

    (result,) = bench.copy(bench.job("a.g3", bytes(20 * CHUNK_BYTES)), tick=stop)
    assert isinstance(result.fault, Stopped)
    assert result.sha512 is None
    assert bench.is_tidy()


def test_a_defect_of_a_lane_comes_out_and_leaves_no_thread_behind(bench: Bench) -> None:
    """It is no fault of a disk: it has to be seen."""

    def defect(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    jobs = [bench.job(f"{i}.g3", os.urandom(CHUNK_BYTES)) for i in range(copier.BUFFERS + 3)]
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        bench.copy(*jobs, tick=defect)


def test_a_defect_of_the_reader_comes_out_and_ends_every_lane(bench: Bench) -> None:
    """Each lane gets its End for what was never read."""

    class Broken(_AsScanned):
        def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
            raise ZeroDivisionError("a mistake")

    bench.buffer = Broken(bench.buffer)  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        bench.copy(bench.job("a.g3", b"x"), bench.job("b.g3", b"y"))
    assert [bench.content(role, "a.g3") for role in Role] == [None, None]


def test_a_disk_that_takes_nothing_never_blocks_the_other(bench: Bench) -> None:
    """More chunks than buffers still come: its lane lets them go by, the other one writes."""
    (bench.roots[Role.PRIMARY] / ".incoming").rmdir()
    content = os.urandom(CHUNK_BYTES * (copier.BUFFERS + 3))
    (result,) = bench.copy(bench.job("a.g3", content))
    assert isinstance(result.copies[Role.PRIMARY], FileNotFoundError)
    assert isinstance(result.copies[Role.COPY], Written)
    assert (result.sha512, result.fault) == (sha512(content), None)
    assert bench.content(Role.COPY, "a.g3") == content
    assert bench.content(Role.PRIMARY, "a.g3") is None


@pytest.mark.parametrize("slow", ["primary", "copy"])
def test_no_buffer_is_filled_anew_before_the_slowest_has_written_it(
    bench: Bench, slow: str
) -> None:
    """One disk stands still at its first chunk, while reader and other disk could go on."""
    chunks = copier.BUFFERS + 5
    content = b"".join(bytes([number]) * CHUNK_BYTES for number in range(chunks))
    written, stood, through = [0], threading.Event(), threading.Event()

    def tick(label: str, _name: str, _n_bytes: int) -> None:
        if label == slow and not stood.is_set():
            stood.set()
            through.wait(1.0)  # as long as it would take them to be through
        else:
            written[0] += label != slow
            if written[0] == chunks:
                through.set()

    (result,) = bench.copy(bench.job("a.g3", content), tick=tick)
    assert all(isinstance(copy, Written) for copy in result.copies.values()), result.copies
    assert all(bench.content(role, "a.g3") == content for role in Role)


# --- many small files: flushed together -----------------------------------------------------


class Flushes:
    """What is flushed, and how: the whole disk, or one file; ``fault`` is what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: OSError | None = None) -> None:
        self.disks: list[int] = []
        self.files: list[str] = []
        self._fault, self._really, self._fsync = fault, direct_io.syncfs, os.fsync
        monkeypatch.setattr(direct_io, "syncfs", self._syncfs)
        monkeypatch.setattr(os, "fsync", self._fsync_one)

    def _syncfs(self, fd: int) -> None:
        self.disks.append(fd)
        if self._fault and len(self.disks) == 1:
            raise self._fault
        self._really(fd)

    def _fsync_one(self, fd: int) -> None:
        if "/.incoming/" in (path := os.readlink(f"/proc/self/fd/{fd}")):
            self.files.append(path)
        self._fsync(fd)


def small_jobs(bench: Bench, count: int, roles: frozenset[Role] = BOTH) -> list[Job]:
    return [bench.job(f"{n:03}.g3", b"%d" % n, roles) for n in range(count)]


def test_small_files_are_flushed_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flush of each disk for all of them, none of a file alone."""
    flushes = Flushes(monkeypatch)
    results = bench.copy(*small_jobs(bench, 300))
    assert sorted(flushes.disks) == sorted(target.root_fd for target in bench.targets)
    assert flushes.files == []
    assert all(isinstance(copy, Written) for result in results for copy in result.copies.values())
    assert all(bench.content(role, f"{n:03}.g3") == b"%d" % n for role in Role for n in range(300))
    assert bench.is_tidy()


def test_a_large_file_is_flushed_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep the small ones waiting: it ends their group."""
    monkeypatch.setattr(copier, "LARGE_BYTES", 5000)
    monkeypatch.setattr(disk_writer, "LARGE_BYTES", 5000)
    flushes = Flushes(monkeypatch)
    jobs = [bench.job("a.g3", b"a"), bench.job("b.g3", bytes(5000)), bench.job("c.g3", b"c")]
    bench.copy(*jobs)
    assert (len(flushes.files), len(flushes.disks)) == (2, 4)


def test_a_flush_that_fails_fails_all_that_it_was_to_flush(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say whose bytes are missing: none is published, and it is not asked again."""
    flushes = Flushes(monkeypatch, OSError(errno.EIO, "it is broken"))
    results = bench.copy(*small_jobs(bench, 5, frozenset({Role.PRIMARY})))
    assert [str(result.copies[Role.PRIMARY]) for result in results] == [
        "[Errno 5] it is broken"
    ] * 5
    assert len(flushes.disks) == 1
    assert not any((bench.roots[Role.PRIMARY] / "data").iterdir())
    assert (bench.roots[Role.PRIMARY] / MANIFEST).read_text() == ""
    assert bench.is_tidy()


def test_a_flush_without_room_is_a_fault_of_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had given that room before: it is not full, it does not keep its word."""
    Flushes(monkeypatch, OSError(errno.ENOSPC, "no space"))
    (result,) = bench.copy(*small_jobs(bench, 1, frozenset({Role.PRIMARY})))
    fault = result.copies[Role.PRIMARY]
    assert isinstance(fault, OSError) and fault.errno == errno.EIO
    assert "where it had given room before" in str(fault)


def test_what_fails_for_one_small_file_stays_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its group are archived: one that can't be written, one that reads otherwise."""
    write_at = direct_io.write_at

    def write(fd: int, view: memoryview, at: int) -> None:
        if bytes(view) == b"1":
            raise OSError(errno.EFBIG, "too large")
        write_at(fd, memoryview(b"?") if bytes(view) == b"3" else view, at)

    monkeypatch.setattr(direct_io, "write_at", write)
    results = bench.copy(*small_jobs(bench, 5))
    failed = [n for n, r in enumerate(results) if not isinstance(r.copies[Role.COPY], Written)]
    assert failed == [1, 3]
    assert isinstance(results[3].copies[Role.COPY], CopyMismatch)
    assert [bench.content(Role.COPY, f"{n:03}.g3") for n in range(5)] == [
        b"0",
        None,
        b"2",
        None,
        b"4",
    ]
    assert bench.is_tidy()


def test_a_kernel_that_says_nothing_of_failed_writes_is_asked_file_by_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.8 syncfs(2) said yes whatever had happened."""
    monkeypatch.setattr(direct_io, "syncfs_tells_faults", lambda: False)
    flushes = Flushes(monkeypatch)
    results = bench.copy(*small_jobs(bench, 70, frozenset({Role.PRIMARY})))
    assert (len(flushes.files), flushes.disks) == (70, [])
    assert all(isinstance(result.copies[Role.PRIMARY], Written) for result in results)


def test_many_small_files_are_not_all_open_at_once(bench: Bench) -> None:
    """However many are flushed together."""
    with _open_files_at_most(60):
        results = bench.copy(*small_jobs(bench, 200))
    assert all(isinstance(copy, Written) for result in results for copy in result.copies.values())


@contextmanager
def _open_files_at_most(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
