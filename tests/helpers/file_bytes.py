"""Files with a content that is known, and bits of it that flip."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flip(path: Path, offset: int = 0) -> None:
    """Alter one bit in place; size and name stay."""
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@contextmanager
def written(path: Path, content: bytes) -> Iterator[int]:
    """A descriptor of a new file with this content, durable, and all in memory."""
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.pread(fd, len(content), 0)
        yield fd
    finally:
        os.close(fd)


def sha512(content: bytes) -> str:
    return hashlib.sha512(content).hexdigest()


def ignore(n_bytes: int) -> None:
    """A tick that nobody listens to."""
