"""The buffer is what it was: an unmounted or another one is never taken for an empty buffer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from poledata.archive import buffer_marker
from poledata.archive.buffer import Presence
from poledata.archive.buffer_marker import NoMarker
from tests.helpers.held_places import held
from tests.helpers.world import MARKER

# --- odd markers ----------------------------------------------------------------------------


def test_a_marker_is_durable_before_the_database_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, then its directory; a fault in either is a fault of the whole."""
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), sync(fd)))
    with held(tmp_path) as root_fd:
        marker = buffer_marker.write(root_fd)
        assert synced == [(tmp_path / MARKER).stat().st_ino, tmp_path.stat().st_ino]
        assert buffer_marker.read(root_fd) == marker
        with pytest.raises(NoMarker, match="made by another program meanwhile"):
            buffer_marker.write(root_fd)
        assert buffer_marker.read(root_fd) == marker


# --- an error is not absence ----------------------------------------------------------------


def test_what_is_gone_has_left_and_what_is_there_has_not(tmp_path: Path) -> None:
    """Also below a directory that is gone, and where a file took a directory's place."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.g3").touch()
    with held(tmp_path) as fd:
        presence = Presence.of(fd)
        assert not presence.has_left("a/x.g3")
        assert presence.has_left("a/y.g3") and presence.has_left("b/c/x.g3")
        assert presence.has_left("a/x.g3/z.g3")


def test_what_is_behind_a_link_may_not_have_left(tmp_path: Path) -> None:
    """Somebody moved the directory, and left a link."""
    (tmp_path / "a").symlink_to("elsewhere")
    with held(tmp_path) as fd:
        assert not Presence.of(fd).has_left("a/x.g3")
        assert not Presence.of(fd).has_left("a/b/x.g3")


def test_nothing_has_left_a_buffer_that_is_not_here() -> None:
    """Whatever its name."""
    assert not Presence(None).has_left("a.g3")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ELOOP])
def test_an_error_is_not_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Neither at the name nor on the way to it."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").mkdir()
    with held(tmp_path) as fd:
        presence = Presence.of(fd)
        assert presence.has_left("a/x.g3")
        for call in ("stat", "open"):
            with monkeypatch.context() as patched:
                patched.setattr(os, call, failing)
                assert not presence.has_left("a/x.g3")
