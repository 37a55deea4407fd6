"""The page and the metrics are rewritten by passes, and never in their way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poledata.errors import NotWritten
from poledata.status import publish

OURS = "ours\n"

# --- whole, or as it was ---------------------------------------------------------------------


def failing(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["open", "fchmod", "fsync", "replace"])
def test_whatever_step_fails_the_old_page_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whole, and with nothing beside it."""
    target = tmp_path / "status.html"
    publish.put(target, f"{OURS}old", OURS)
    real: Callable[..., int] = os.open
    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(
                os, "open", lambda p, f, *m: failing() if f & os.O_CREAT else real(p, f, *m)
            )
        else:
            patch.setattr(os, step, failing)
        with pytest.raises(NotWritten) as raised:
            publish.put(target, f"{OURS}new", OURS)
    assert str(raised.value) == (
        f"{target} is not written: No space left on device. What stood there was not changed."
    )
    assert target.read_text() == f"{OURS}old"
    assert os.listdir(tmp_path) == ["status.html"]


def test_what_a_crash_left_is_removed_not_followed(tmp_path: Path) -> None:
    """A link in its place leads nowhere."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".status.html.new").symlink_to("precious")
    publish.put(tmp_path / "status.html", OURS, OURS)
    assert sorted(os.listdir(tmp_path)) == ["precious", "status.html"]
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "status.html").read_text() == OURS


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: Path(path).write_text("x")])
def test_something_else_in_its_place_is_left(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    """A pipe, a directory, another's file; nobody waits for a pipe's other end."""
    target = tmp_path / "status.html"
    make(target)
    before = target.lstat()
    with pytest.raises(NotWritten, match="is not written: "):
        publish.put(target, OURS, OURS)
    assert target.lstat().st_mode == before.st_mode and target.lstat().st_size == before.st_size


def test_an_empty_file_may_be_filled(tmp_path: Path) -> None:
    """Somebody has made it beforehand."""
    target = tmp_path / "status.html"
    target.touch()
    publish.put(target, OURS, OURS)
    assert target.read_text() == OURS
