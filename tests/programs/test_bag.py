"""The BagIt files on a disk, whole after any crash and read alike by other tools."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import bagit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poledata.disks import bag, manifest
from poledata.formatting import why_not_carried
from poledata.models import MANIFEST
from tests.helpers.sample_disks import DISK, NAMES

NOW_S = 1_795_458_057.9
EMPTY_SHA512 = (
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)
MARK = bag.Mark.of(DISK, NOW_S)


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
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def bag_fd(root_fd: int) -> int:
    """The root of a disk that was just claimed."""
    bag.claim(root_fd, MARK)
    return root_fd


# --- names ----------------------------------------------------------------------------------


def _tools_agree(root: Path, fd: int, names: list[str]) -> None:
    """Empty files of these names: sha512sum, bagit and we find each under its name."""
    for name in names:
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    manifest.append(fd, [(EMPTY_SHA512, name) for name in names])
    assert [line.name for line in manifest.read(fd)] == names
    for locale in ("C", "C.UTF-8"):
        subprocess.run(
            ["sha512sum", "--check", "--strict", "--quiet", MANIFEST],
            cwd=root,
            env={"PATH": os.environ["PATH"], "LC_ALL": locale},
            check=True,
        )
    assert set(bagit.Bag(str(root)).entries) == {f"data/{name}" for name in names}


CHARACTERS = [*map(chr, (*range(1, 0x300), *range(0x2000, 0x2070), 0x3000, 0xFEFF, 0x1F600))]
CHARACTERS.remove("/")


def test_every_carried_character_is_read_alike_by_other_tools(root: Path, bag_fd: int) -> None:
    """``sha512sum -c`` and bagit.py take the manifest as it stands: before, in and after a name."""
    names = [form.format(c) for c in CHARACTERS for form in ("x/{}b", "y/a{}b", "z/a{}")]
    carried = [name for name in names if why_not_carried(name) is None]
    assert len(carried) > 2000
    _tools_agree(root, bag_fd, carried)


@settings(max_examples=20, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=30, unique=True))
def test_carried_names_are_read_alike_by_other_tools(names: list[str]) -> None:
    """Odd names beside each other, below directories of odd names."""
    carried = [
        f"{number}/{name}" for number, name in enumerate(names) if why_not_carried(name) is None
    ]
    with TemporaryDirectory() as directory:
        fd = os.open(directory, os.O_RDONLY)
        try:
            bag.claim(fd, MARK)
            _tools_agree(Path(directory), fd, [*carried, "a.g3"])
        finally:
            os.close(fd)


# --- the claim ------------------------------------------------------------------------------


def test_the_readme_on_a_disk_says_whose_it_is_and_how_to_check_it(root: Path, bag_fd: int) -> None:
    """A stranger needs nothing of ours: the command in it works once there is a file."""
    text = (root / "README.txt").read_text()
    assert text.startswith("This disk is P01 (primary), serial ZA12JCHM,")
    assert "{" not in text
    (command,) = re.findall(r"^ {4}(sha512sum .*)$", text, re.MULTILINE)
    (root / "data" / "a.g3").touch()
    manifest.append(bag_fd, [(EMPTY_SHA512, "a.g3")])
    ran = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "all files are whole\n", "")
