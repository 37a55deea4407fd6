"""A bug hit while working on one thing: it is reported, and all other work is finished."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from poledata.errors import DiskRefused, PoleError
from poledata.models import Channel, Message
from poledata.notices import defects, delivery_queue
from poledata.notices.defects import caught
from poledata.smart import smartctl
from poledata.smart.smartctl import FoundDrive
from poledata.system.privileges import SmartctlAnswer

# --- drives and channels -------------------------------------------------------------------


def test_an_answer_of_smartctl_that_hits_a_bug_is_none(
    bugs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That drive says why; the others are asked as ever."""

    def wrong(path: smartctl.DrivePath, _run: object) -> FoundDrive:
        raise OverflowError(path.name)

    monkeypatch.setattr(smartctl, "_read", wrong)
    found = smartctl._found(smartctl.DrivePath("/dev/sdq"), SmartctlAnswer("{}", 0, None))
    assert found.devices == ("/dev/sdq",)
    assert found.report.says == (
        "A bug of this program (OverflowError: /dev/sdq); the log has its traceback"
    )
    assert bugs == ["/dev/sdq"]


# --- the helper ---------------------------------------------------------------------------


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the door would find."""
    found: list[str] = []
    monkeypatch.setattr(defects, "BUGS", found)
    yield found


@pytest.mark.parametrize(
    "fault",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        PoleError("foreseen"),
        DiskRefused("disk-missing", "P01", "gone", "Mount it."),
        sqlite3.OperationalError("database is locked"),
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.DatabaseError("file is not a database"),
    ],
    ids=repr,
)
def test_what_is_no_bug_passes(bugs: list[str], fault: BaseException) -> None:
    """It is for those who foresaw it; a database that can't be used ends the pass."""
    with pytest.raises(type(fault)) as raised, caught("a file"):
        raise fault
    assert raised.value is fault
    assert bugs == []


@pytest.mark.parametrize(
    "bug", [OverflowError("int too large"), sqlite3.OperationalError("no such column: x")], ids=repr
)
def test_a_bug_is_caught_and_remembered(bugs: list[str], bug: Exception) -> None:
    """A mistake in our SQL is one, too."""
    with caught("a file") as said:
        raise bug
    assert bugs == ["a file"]
    assert said == [
        f"A bug of this program ({type(bug).__name__}: {bug}); the log has its traceback"
    ]


def test_a_bug_in_one_channel_leaves_the_others(bugs: list[str]) -> None:
    """Its message is not sent, and that is said of it; the other one is."""
    good, bad = Channel("notify-1-mailto", "x"), Channel("pager-command", "y", True, True)

    def carry(channel: Channel, _message: Message) -> str | None:
        if channel is bad:
            raise RuntimeError("boom")
        return None

    sent = delivery_queue.send_all([bad, good], [Message("s", "b")] * 2, carry)
    assert sent == ["A bug of this program (RuntimeError: boom); the log has its traceback", None]
    assert bugs == ["pager-command"]
