"""A removal takes the name away first: what a crash leaves under a hidden name is still a file."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from poledata.archive import buffer

# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/.0000.g3.removing", "a/b/0000.g3"),
        (".0000.g3.removing", "0000.g3"),
        ("a/..g3.removing", "a/.g3"),
        ("a/0000.g3.removing", None),
        ("a/.0000.g3", None),
        ("a/.removing", None),
        ("a/..removing", None),
        ("0000.g3", None),
        ("a/." + "0f" * 32 + ".removing", "a/." + "0f" * 32 + ".removing"),
    ],
)
def test_a_hidden_path_tells_its_name(path: str, name: str | None) -> None:
    """None for any other path; the path itself where only a hash of the name is left."""
    assert buffer.original(path) == name


@pytest.mark.parametrize("base", ["0000.g3", "x" * 245, "x" * 246, "x" * 255, "ü" * 127])
def test_a_name_is_found_again_by_its_hidden_one(tmp_path: Path, base: str) -> None:
    """However long: the longest has a hash in its place, which leads to it among others."""
    (tmp_path / base).write_bytes(b"data")
    fd = os.open(tmp_path, os.O_RDONLY)
    hidden_base = buffer.hide(fd, base)
    assert os.listdir(tmp_path) == [hidden_base]
    assert buffer.is_present(fd, base)
    found = buffer.original(hidden_base)
    if found == hidden_base:
        found = buffer.original_of_hash(hidden_base, ["other", f"below/{base}", base])
    assert found == base
    assert buffer.original_of_hash("." + "0f" * 32 + ".removing", [base]) is None
    os.close(fd)


def test_a_name_is_never_taken_from_another_file(tmp_path: Path) -> None:
    """If its hidden names are taken all files stay as they are."""
    (tmp_path / "a").write_bytes(b"data")
    digest = hashlib.sha256(b"a").hexdigest()
    for taken in (".a.removing", f".{digest}.removing"):
        (tmp_path / taken).write_bytes(b"earlier")
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError) as raised:
        buffer.hide(fd, "a")
    assert raised.value.errno == errno.EEXIST
    assert (tmp_path / "a").read_bytes() == b"data"
    assert (tmp_path / ".a.removing").read_bytes() == b"earlier"
    os.close(fd)
