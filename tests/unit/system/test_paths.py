"""No path leads out of a held directory, and no descriptor is left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from poledata.system import paths

NOT_A_DIRECTORY = {errno.ELOOP, errno.ENOTDIR}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``root`` with a/b/file in it, beside a directory that no path may lead to."""
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "file").write_text("below")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    return tmp_path / "root"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY)
    yield fd
    os.close(fd)


def enter(opening: AbstractContextManager[Any]) -> bool:
    with opening:
        return True


def reaches(way: Callable[[int, str], object], root_fd: int, path: str) -> bool:
    """Whether this way leads to something by this path."""
    try:
        return way(root_fd, path) is not None
    except OSError:
        return False


# Each way to reach something below a root, given the path of a file.
WAYS: dict[str, Callable[[int, str], object]] = {
    "directory": lambda fd, path: enter(paths.directory(fd, os.path.dirname(path))),
    "opened": lambda fd, path: enter(paths.opened(fd, path)),
    "opened for writing": lambda fd, path: enter(paths.opened(fd, path, os.O_RDWR)),
    "stat": paths.stat,
    "make_directories": lambda fd, path: paths.make_directories(fd, f"{path}-more/x"),
    "fsync_directory": lambda fd, path: (paths.fsync_directory(fd, os.path.dirname(path)), True),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@ways
def test_each_way_leads_below(root_fd: int, way: Callable[[int, str], object]) -> None:
    """What the rules below refuse is refused for its own sake."""
    assert reaches(way, root_fd, "a/b/file")


# --- links ----------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("component", ["a", "a/b"])
@pytest.mark.parametrize("to", ["outside", "itself"])
def test_a_link_on_the_way_leads_nowhere(
    root: Path, root_fd: int, way: Callable[[int, str], object], component: str, to: str
) -> None:
    """Wherever it stands and wherever it leads, also to the very directory that was meant."""
    moved = root / component
    moved.rename(root.parent / "moved")
    moved.symlink_to(root.parent / ("outside" if to == "outside" else "moved"))
    assert not reaches(way, root_fd, "a/b/file")
    assert os.listdir(root.parent / "outside") == ["file"]
    with pytest.raises(OSError) as caught:
        enter(paths.directory(root_fd, "a/b"))
    assert caught.value.errno in NOT_A_DIRECTORY


def test_a_link_in_the_files_place_is_refused(root: Path, root_fd: int) -> None:
    """Neither read nor written through; to lstat it is what it is."""
    (root / "link").symlink_to(root.parent / "outside" / "file")
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC):
        with pytest.raises(OSError) as caught:
            enter(paths.opened(root_fd, "link", flags))
        assert caught.value.errno == errno.ELOOP
    info = paths.stat(root_fd, "link")
    assert info and info.st_ino == os.lstat(root / "link").st_ino
    assert (root.parent / "outside" / "file").read_text() == "outside"


def test_a_link_in_the_last_directorys_place_is_refused(root: Path, root_fd: int) -> None:
    """O_DIRECTORY alone would follow it."""
    (root / "link").symlink_to(root.parent / "outside")
    for path in ("link", "link/"):
        with pytest.raises(OSError) as caught:
            enter(paths.directory(root_fd, path))
        assert caught.value.errno in NOT_A_DIRECTORY


@ways
@pytest.mark.parametrize("path", ["../outside/file", "a/../../outside/file"])
def test_a_path_never_climbs_above_its_root(
    root: Path, root_fd: int, way: Callable[[int, str], object], path: str
) -> None:
    """``..`` is in no name that a directory was ever listed with."""
    assert not reaches(way, root_fd, path)
    assert os.listdir(root.parent / "outside") == ["file"]


@pytest.mark.parametrize("path", ["..", "a/.."])
def test_a_path_never_ends_above_itself(root_fd: int, path: str) -> None:
    """Nor does the last part climb."""
    for opening in (paths.directory, paths.opened):
        assert not reaches(lambda fd, path, o=opening: enter(o(fd, path)), root_fd, path)
    assert not reaches(paths.stat, root_fd, path)


@ways
def test_an_absolute_path_never_leaves_the_root(
    root_fd: int, tmp_path: Path, way: Callable[[int, str], object]
) -> None:
    """A leading slash is an empty part, and there is nothing of no name."""
    before = sorted(tmp_path.rglob("*"))
    assert not reaches(way, root_fd, f"{tmp_path}/outside/file")
    assert sorted(tmp_path.rglob("*")) == before


# --- directories ----------------------------------------------------------------------------


def test_the_empty_path_is_the_root_itself(root: Path, root_fd: int) -> None:
    """By a descriptor of its own: closing it leaves the root open."""
    with paths.directory(root_fd, "") as fd:
        assert fd != root_fd
        assert os.path.sameopenfile(fd, root_fd)
        assert not os.get_inheritable(fd)
    os.fstat(root_fd)


def test_a_file_where_a_directory_should_be_is_said(root_fd: int) -> None:
    """ENOTDIR, from a file in the middle as at the end."""
    for path in ("a/b/file", "a/b/file/more"):
        with pytest.raises(NotADirectoryError):
            enter(paths.directory(root_fd, path))


def test_what_is_missing_is_said(root_fd: int) -> None:
    """ENOENT; to stat() it is just not there."""
    for path in ("x", "a/x/b"):
        with pytest.raises(FileNotFoundError):
            enter(paths.directory(root_fd, path))
        with pytest.raises(FileNotFoundError):
            enter(paths.opened(root_fd, path))
        assert paths.stat(root_fd, path) is None


def test_the_held_directory_is_meant_wherever_its_name_leads_by_now(
    root: Path, root_fd: int
) -> None:
    """A disk that was unmounted, or a buffer that was replaced, stays the one that was opened."""
    root.rename(root.with_name("elsewhere"))
    root.mkdir()
    paths.make_directories(root_fd, "new")
    assert os.listdir(root) == []
    assert (root.with_name("elsewhere") / "new").is_dir()


def test_an_error_inside_is_passed_on(root_fd: int) -> None:
    """And the descriptor is closed all the same."""
    for opening in (paths.directory(root_fd, "a/b"), paths.opened(root_fd, "a/b/file")):
        with pytest.raises(ZeroDivisionError), opening as fd:
            raise ZeroDivisionError
        with pytest.raises(OSError) as caught:
            os.fstat(fd)
        assert caught.value.errno == errno.EBADF


# --- making directories ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("", []),
        ("a", []),
        ("a/b", []),
        ("a/b/c", ["a/b"]),
        ("a/x/y", ["a", "a/x"]),
        ("x", [""]),
        ("x/y/z", ["", "x", "x/y"]),
    ],
)
def test_each_directory_with_a_new_entry_is_named(
    root: Path, root_fd: int, path: str, changed: list[str]
) -> None:
    """They are to be fsynced, the deepest last; asked again, nothing is new."""
    assert paths.make_directories(root_fd, path) == changed
    assert (root / path).is_dir()
    assert paths.make_directories(root_fd, path) == []
    for each in changed:
        paths.fsync_directory(root_fd, each)


@pytest.mark.parametrize("path", ["a/b/file", "a/b/file/x"])
def test_a_file_in_a_directorys_place_is_never_replaced(
    root: Path, root_fd: int, path: str
) -> None:
    """ENOTDIR, and the file is as it was."""
    with pytest.raises(NotADirectoryError):
        paths.make_directories(root_fd, path)
    assert (root / "a" / "b" / "file").read_text() == "below"


# --- files ----------------------------------------------------------------------------------


def test_an_existing_file_is_opened_as_asked(root: Path, root_fd: int) -> None:
    """Read-only unless told otherwise, and never handed to a child process."""
    with paths.opened(root_fd, "a/b/file") as fd:
        assert os.read(fd, 100) == b"below"
        assert not os.get_inheritable(fd)
        with pytest.raises(OSError):
            os.write(fd, b"x")
    with paths.opened(root_fd, "a/b/file", os.O_RDWR | os.O_APPEND) as fd:
        os.write(fd, b"!")
    assert (root / "a" / "b" / "file").read_text() == "below!"


def test_a_pipe_in_a_files_place_never_keeps_us_waiting(root: Path, root_fd: int) -> None:
    """Opening a FIFO waits for its other end, unless it is told not to."""
    os.mkfifo(root / "pipe")
    with paths.opened(root_fd, "pipe") as fd:
        assert os.read(fd, 1) == b""
    with pytest.raises(OSError) as caught:
        enter(paths.opened(root_fd, "pipe", os.O_WRONLY))
    assert caught.value.errno == errno.ENXIO


def test_names_with_odd_bytes_are_reached(root: Path, root_fd: int) -> None:
    """What os.listdir() gives leads back to the file."""
    for odd in (b"\xff\xfe", b" ", b"\n", "é★".encode(), b"-rf", b"~", b"x" * 255):
        (root / os.fsdecode(odd)).mkdir()
        (root / os.fsdecode(odd) / os.fsdecode(odd)).write_bytes(odd)
    for name in set(os.listdir(root)) - {"a"}:
        with paths.opened(root_fd, f"{name}/{name}") as fd:
            assert os.read(fd, 300) == os.fsencode(name)
