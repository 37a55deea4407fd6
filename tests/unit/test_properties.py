"""What must hold of every input, for the parsers of what is on disks and of what the system says.

The removal's judgement, the disk choice, the settle rule, configuration and disk-map have their
properties beside their other tests (test_removal.py, test_free_space.py, test_settled.py,
test_config.py, test_disk_map.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given

from poledata.disks import bag, manifest
from poledata.errors import ManifestDamaged
from poledata.formatting import why_not_carried
from poledata.models import MANIFEST, ManifestLine
from poledata.system import mounts

HASHES = st.text("0123456789abcdef", min_size=128, max_size=128)
NAMES = st.text(min_size=1, max_size=30).filter(
    lambda name: _is_utf8(name) and why_not_carried(name) is None and "\0" not in name
)
LINES = st.lists(st.tuples(HASHES, NAMES), max_size=8, unique_by=lambda entry: entry[1])


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def disk_with(path: str, content: bytes) -> Iterator[int]:
    """A root that holds one file of ours."""
    with TemporaryDirectory(dir="/dev/shm") as root:
        with open(os.path.join(root, path), "wb") as file:
            file.write(content)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def content_of(root_fd: int) -> bytes:
    return b"".join(bag.blocks(root_fd, MANIFEST))


@given(LINES)
def test_what_is_written_as_a_manifest_is_read_back(entries: list[tuple[str, str]]) -> None:
    """Line by line, each at its place, however it was appended."""
    with disk_with(MANIFEST, b"") as root_fd:
        lines = [line for entry in entries for line in manifest.append(root_fd, [entry])]
        assert list(manifest.read(root_fd)) == lines
        assert [(line.sha512, line.name) for line in lines] == entries
        assert all(manifest.has_line(root_fd, line) for line in lines)


@given(LINES, st.data())
def test_a_manifest_torn_anywhere_keeps_every_whole_line(
    entries: list[tuple[str, str]], data: st.DataObject
) -> None:
    """What a crash left of the last line goes; what stands before stays, byte for byte."""
    texts = [ManifestLine(sha512, name, 0).text for sha512, name in entries]
    whole = b"".join(texts)
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    with disk_with(MANIFEST, torn) as root_fd:
        manifest.cut_torn_line(root_fd)
        assert content_of(root_fd) == torn[: torn.rfind(b"\n") + 1]


@given(st.binary(max_size=400))
def test_whatever_a_manifest_holds_it_is_read_or_said_to_be_damaged(content: bytes) -> None:
    """Nothing else comes out, and nothing is cut that ends with a whole line."""
    with disk_with(MANIFEST, content) as root_fd:
        try:
            lines = list(manifest.read(root_fd))
        except ManifestDamaged:
            pass
        else:
            assert b"".join(line.text for line in lines) == content
        try:
            manifest.cut_torn_line(root_fd)
        except ManifestDamaged:
            assert content_of(root_fd) == content
        else:
            assert content_of(root_fd) == content[: content.rfind(b"\n") + 1]


@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(lambda t: f"Pole-{t}".encode("utf-8", "replace"))
)
def test_whatever_a_mark_holds_it_is_understood_or_a_value_error(content: bytes) -> None:
    """Which a disk is refused for."""
    with disk_with(bag.MARK, content) as root_fd:
        try:
            mark = bag.read_mark(root_fd)
        except ValueError:
            return
        assert mark is not None
        assert b"Pole-Serial: " in content


@given(st.binary(max_size=200) | st.text('{}[]:,"kname serial 01x', max_size=80).map(str.encode))
def test_whatever_lsblk_answers_it_is_understood_or_a_value_error(answer: bytes) -> None:
    """Then the kernel is asked instead."""
    try:
        drives = mounts.parse_lsblk(answer)
    except ValueError:
        return
    assert all(drive.kernel_name for drive in drives)
