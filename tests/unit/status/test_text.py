"""How the archive stands, said so that a tired person understands it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poledata.formatting import people_time
from poledata.models import (
    DiskState,
    FileStat,
    HealthCheck,
    Notice,
    PassRow,
    Pause,
    Pending,
    Severity,
)
from poledata.status.facts import (
    ArchiveVerdict,
    BufferStatus,
    DiskStatus,
    Status,
    Undelivered,
)
from poledata.status.text import as_text, headline, state_lines
from tests.helpers.sample_status import AT, NOON, STATUS, disk, judged


def lines(**changed: Any) -> list[str]:
    return as_text(judged(replace(STATUS, **changed))).splitlines()


def line(begin: str, **changed: Any) -> str:
    """The one line that begins so."""
    (found,) = [each for each in lines(**changed) if each.startswith(begin)]
    return found


# --- times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ago_s", "text"),
    [
        (0, "12:00 UTC"),
        (59, "11:59 UTC"),
        (60, "11:59 UTC (1 min ago)"),
        (40 * 60, "11:20 UTC (40 min ago)"),
        (3600, "11:00 UTC (1 h ago)"),
        (3 * 3600, "09:00 UTC (3 h ago)"),
        (12 * 3600, "00:00 UTC (12 h ago)"),
        (13 * 3600, "2026-11-22 23:00 UTC (13 h ago)"),
        (86_400, "2026-11-22 12:00 UTC (1 d ago)"),
        (100 * 86_400, "2026-08-15 12:00 UTC (100 d ago)"),
        (-3600, "13:00 UTC"),  # a clock was set back
        (-86_400, "2026-11-24 12:00 UTC"),
    ],
)
def test_a_time_is_told_with_how_long_ago_it_was(ago_s: float, text: str) -> None:
    """With its date unless it is today's; nothing is "ago" that is still to come."""
    assert people_time(NOON - ago_s, NOON) == text


@given(st.integers(0, 2**34), st.integers(0, 2**34))
def test_any_time_that_a_disk_can_hold_can_be_told(then_s: int, now_s: int) -> None:
    """XFS and ext4 keep times up to the years 2486 and 2446."""
    assert " UTC" in people_time(then_s, now_s)


# --- as text --------------------------------------------------------------------------------


def test_the_first_lines_say_how_it_stands() -> None:
    """What is archived, what waits and since when, and the last pass."""
    assert line("Archive ") == "Archive    /var/lib/pole/pole.sqlite, 12:00 UTC"
    assert line("Archived") == (
        "Archived   10 files, 2 TB; in the last day 3 (1 TB), in the last week 7 (7 TB)"
    )
    assert line("Verified") == ("Verified   oldest verification: P01, 11:30 UTC (30 min ago)")
    unread = replace(STATUS.disks[0], never_read=6)
    assert line("Verified", disks=(unread,)) == (
        "Verified   oldest verification: P01, 11:30 UTC (30 min ago); 6 copies were never read"
    )
    unread = replace(unread, oldest_verified_at=None)
    assert line("Verified", disks=(unread,)) == "Verified   6 copies were never read"
    assert line("Buffer") == (
        "Buffer     3 finished files wait (1.5 GB, the oldest of 10:00 UTC (2 h ago)); 42 % full"
    )
    assert line("           1 unf") == (
        "           1 unfinished; not ours: 2 files with other extensions, "
        "4 links and special files"
    )
    assert line("Last pass") == (
        "Last pass  11:30 UTC (30 min ago): done, 5 files archived (5 MB), 0 failures"
    )


def test_stand_ins_are_said_right_after_the_verdict() -> None:
    """Nobody takes a demo for an archive."""
    assert not any("STAND-INS" in each for each in lines())
    assert lines(stand_ins=True)[1] == (
        "STAND-INS: plain directories instead of drives, for demo and tests only."
    )


def test_a_buffer_that_cannot_be_read_is_said() -> None:
    """A stale mount, a missing right; what could be read is said too."""
    gone = BufferStatus(fault="Stale file handle")
    assert line("Buffer", buffer=gone) == "Buffer     CAN'T BE READ: Stale file handle"
    partly = replace(STATUS.buffer, fault="locked/: Permission denied")
    assert "Buffer     CAN'T BE READ: locked/: Permission denied" in lines(buffer=partly)
    assert any("3 finished files wait" in each for each in lines(buffer=partly))


def test_an_empty_buffer_has_no_oldest_file() -> None:
    """And nothing is said of one."""
    empty = BufferStatus(used_percent=0.4)
    assert line("Buffer", buffer=empty) == ("Buffer     0 finished files wait (0 B); 0 % full")


@pytest.mark.parametrize("can", [True, False, None])
def test_where_no_lease_can_be_had_it_says_so(can: bool | None) -> None:
    """Files wait longer then; somebody will ask why."""
    said = "\n".join(lines(buffer=replace(STATUS.buffer, lease_can_be_had=can)))
    assert ("The system can't tell who writes there" in said) == (can is False)


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (None, "Last pass  none has had anything to do yet"),
        (
            PassRow(7, AT, None, None, 5, 5_000_000, 2),
            "Last pass  11:30 UTC (30 min ago): at work, or crashed, 5 files archived (5 MB), "
            "2 failures",
        ),
        (
            PassRow(7, AT, AT, "interrupted", 0, 0, 0),
            "Last pass  11:30 UTC (30 min ago): interrupted, 0 files archived (0 B), 0 failures",
        ),
    ],
)
def test_the_last_pass_says_how_it_ended(last: PassRow | None, text: str) -> None:
    """Or that it did not."""
    assert line("Last pass", last_pass=last) == text


def test_a_disk_in_use_is_a_bar_with_its_end() -> None:
    """Serial, how full, how much is free, and on which day none will be at the last week's rate."""
    assert line("In use") == (
        "In use     P01  ZP01  [############--------] 62 %, 3 TB free, full on 2026-11-26 "
        "at the last week's rate"
    )
    away = replace(STATUS.disks[0], is_mounted=False, full_at_s=None)
    assert line("In use", disks=(away,)).endswith("3 TB free  NOT MOUNTED")
    held = replace(away, disk=replace(away.disk, held_by="machine", held_reason="it failed"))
    assert line("In use", disks=(held,)).endswith("HELD by machine: it failed")
    new = DiskStatus(disk("P01", DiskState.ACTIVE), True)
    assert line("In use", disks=(new,)) == "In use     P01  ZP01"


def test_spares_that_are_not_mounted_or_held_do_not_count() -> None:
    """What can be used at once is what matters: P03 is not mounted, S02 is held."""
    spares = "Spare      1 primary mounted: P02"
    away = "; 1 not mounted"
    assert line("Spare      1") == f"{spares} (no extended self-test: P02){away}"
    tested = tuple(replace(item, hours_since_tested=7) for item in STATUS.disks)
    assert line("Spare      1", disks=tested) == f"{spares}{away}"
    assert line("Spare      0") == "Spare      0 copy mounted"
    assert line("Held") == "Held       S02 by person: it clicks"


def test_disks_that_are_full_or_gone_are_named() -> None:
    """And which of the full ones still have to be taken out."""
    closed = tuple(DiskStatus(disk(x, DiskState.CLOSED), x == "P05") for x in ("P04", "P05"))
    assert line("Closed", disks=closed) == "Closed     P04 P05 (mounted)"
    assert line("Shipped") == "Shipped    S01"


def test_the_drives_health_is_counted_and_what_is_odd_named() -> None:
    """With the age of the oldest check; nothing where none was made."""
    unchecked = tuple(replace(item, health=None) for item in STATUS.disks)
    assert not any(each.startswith("Health") for each in lines(disks=unchecked))
    seen = [
        DiskStatus(disk("P01"), True, health=HealthCheck(AT, "healthy", 31)),
        DiskStatus(disk("P02"), True, health=HealthCheck(AT, "failing", None)),
    ]
    said = lines(disks=tuple(seen))
    at = said.index("Health     1 of 2 drives are healthy, since 11:30 UTC (30 min ago)")
    assert said[at + 1] == "           P02: failing"
    tested = [
        replace(item, hours_since_tested=hours) for item, hours in zip(seen, (7, 812), strict=True)
    ]
    assert (
        "           2 of 2 drives passed an extended self-test, the oldest 812 hours of operation "
        "ago (P02)"
    ) in lines(disks=tuple(tested))


def test_a_shipped_drive_has_no_health_here() -> None:
    """Nobody at the station can do anything about it."""
    gone = DiskStatus(disk("S01", DiskState.SHIPPED), False, health=HealthCheck(AT, "failing", 9))
    assert not any(each.startswith("Health") for each in lines(disks=(gone,)))


# --- the verdict ----------------------------------------------------------------------------


def _notice(severity: Severity, kind: str, **more: Any) -> Notice:
    return replace(Notice(kind, "P01", severity, "text", AT), **more)


NO_DISK = _notice(Severity.CRITICAL, "no-disk")
NO_GOOD_COPY = _notice(Severity.CRITICAL, "no-good-copy")
MISSING = _notice(Severity.WARNING, "disk-missing")
LATER = "2026-11-24T00:00:00Z"
WELL = "ALL WELL: nothing has to be done."
CRON = "is cron running?"
NO_PASS = {"looked_at_s": NOON - 7200, "ended_at_s": NOON - 7200}
LACKING = "7 copies are damaged or missing: data_manager.py repair"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, WELL),
        (
            {"notices": (_notice(Severity.INFO, "disk-closed"),)},
            WELL,
        ),
        ({"notices": (MISSING,)}, "LOOK TODAY: P01: the disk in use is not there (disk-missing)"),
        ({"lacking_copies": 1}, "LOOK TODAY: 1 copy is damaged or missing: data_manager.py repair"),
        (
            {"notices": (_notice(Severity.WARNING, "copy-damaged"),) * 2},
            "LOOK TODAY: 2 disks or files have bad copies (copy-damaged)",
        ),
        (
            {"notices": (_notice(Severity.CRITICAL, "database-error", key="database"),)},
            "ACT NOW: database: the database does not respond, or is missing (database-error)",
        ),
        (
            {
                "notices": (
                    _notice(
                        Severity.WARNING,
                        "database-error",
                        key="journal",
                        text="Another program switched it to WAL mode. Nothing is lost.",
                    ),
                )
            },
            "LOOK TODAY: Another program switched it to WAL mode (database-error)",
        ),
        ({"notices": (MISSING,) * 2}, "LOOK TODAY: 2 disks in use are not there (disk-missing)"),
        (
            {"notices": (replace(MISSING, acked_until=LATER),)},
            "ALL WELL, 1 known: nothing has to be done.",
        ),
        (
            {"notices": (replace(MISSING, acked_until=AT),)},
            "LOOK TODAY: P01: the disk in use is not there (disk-missing)",
        ),
        (
            {"notices": (MISSING, NO_DISK)},
            "ACT NOW: P01: no disk of this role can take files (no-disk)",
        ),
        (NO_PASS, f"ACT NOW: no pass has run since 10:00 UTC (2 h ago): {CRON} (no-pass)"),
        (
            {"looked_at_s": None, "ended_at_s": None},
            "ACT NOW: no pass has run yet: is its line in the crontab?",
        ),
        (
            {**NO_PASS, "buffer": BufferStatus(used_percent=1)},
            f"ACT NOW: no pass has run since 10:00 UTC (2 h ago): {CRON} (no-pass)",
        ),
        ({**NO_PASS, "buffer": BufferStatus(used_percent=1), "stand_ins": True}, WELL),
        (
            {"ended_at_s": NOON - 7200},
            "ACT NOW: passes begin, but none has come to its end: see the log",
        ),
        ({"ended_at_s": NOON - 7200, "at_work": "data_manager.py"}, WELL),
        (
            {**NO_PASS, "at_work": "data_manager.py"},
            "LOOK TODAY: the pass at work has moved no byte since 10:00 UTC (2 h ago)",
        ),
        (
            {"lock_holder": "7 (flock x)"},
            "ACT NOW: the lock of passes is held by another program: 7 (flock x) (pass-stuck)",
        ),
        (
            {"is_read_only": True},
            "ACT NOW: the database is read-only: chmod u+w /var/lib/pole/pole.sqlite",
        ),
        (
            {"newest_record_at": "2026-11-23T12:06:00Z"},
            "LOOK TODAY: the clock is behind the database (2026-11-23T12:06:00Z): set it (clock)",
        ),
        ({"newest_record_at": "2026-11-23T12:04:00Z"}, WELL),
        (
            {"buffer": BufferStatus(oldest_here_since_s=NOON - 4000), "last_archived_at": None},
            "LOOK TODAY: files have waited in the buffer since 10:53 UTC (1 h ago): is one still "
            "open for writing? data_manager.py --dry-run",
        ),
        ({"buffer": BufferStatus(oldest_here_since_s=NOON - 4000)}, WELL),  # one was archived
        (
            {"buffer": BufferStatus(oldest_here_since_s=NOON - 9 * 86_400)},
            "LOOK TODAY: files have waited in the buffer since 2026-11-14 12:00 UTC (9 d ago): is "
            "one still open for writing? data_manager.py --dry-run",
        ),
        (
            {
                "buffer": BufferStatus(oldest_here_since_s=NOON - 9 * 86_400),
                "removes_files": False,
            },
            WELL,
        ),
        (
            {"disks": (replace(STATUS.disks[0], is_mounted=False),)},
            "LOOK TODAY: P01 is in use, but not mounted: mount it",
        ),
        *(
            (
                {"disks": (replace(STATUS.disks[0], health=health),)},
                "LOOK TODAY: SMART data of P01 is older than 8 days, or was never read: "
                "sudo get_SMART_status.py",
            )
            for health in (None, HealthCheck("2026-11-15T11:59:59Z", "healthy", 31))
        ),
        (
            {"channels": ()},
            "LOOK TODAY: nobody would be notified: set a channel in .env (see .env.example)",
        ),
        ({"channels": None, "has_watchdog": None}, WELL),  # another user may not know them
        (
            {"has_watchdog": False},
            "LOOK TODAY: no watchdog is set in .env: POLE_HEARTBEAT_URL, or none on purpose",
        ),
        (
            {
                "stand_ins": True,
                "channels": (),
                "has_watchdog": False,
                "disks": (replace(STATUS.disks[0], health=None),),
            },
            WELL,
        ),
        (
            {"notices": (replace(NO_DISK, acked_until=LATER),)},
            "LOOK TODAY, 1 known: nothing has to be done.",
        ),
        (
            {"pause": Pause(AT, "the rack is open", None)},
            "LOOK TODAY: the archive is paused: the rack is open",
        ),
        (
            {"notices": (NO_GOOD_COPY,) * 2, "without_good_copy": 1},
            "ACT NOW: files without a good copy: 1 (no-good-copy)",
        ),
        (
            {"lacking_copies": 7},
            f"LOOK TODAY: {LACKING}",
        ),
        (
            {"disks": (replace(STATUS.disks[0], overdue=3), replace(STATUS.disks[1], overdue=2))},
            "LOOK TODAY: 5 copies were not read for twice VerifyEvery: "
            "data_manager.py verify P01 P02",
        ),
        (
            {"undelivered": (Undelivered("notify-1-mailto", 3, 9, "refused"),)},
            "LOOK TODAY: 3 notices could not be sent through notify-1-mailto",
        ),
        (
            {"buffer": BufferStatus(fault="Stale file handle")},
            "LOOK TODAY: the buffer can't be read: Stale file handle",
        ),
    ],
)
def test_the_first_words_say_whether_a_person_has_to_act(
    changed: dict[str, Any], said: str
) -> None:
    """Then why; what somebody has acknowledged, and what is only news, is no reason."""
    assert lines(**changed)[0] == said


def test_every_reason_is_said_the_gravest_first() -> None:
    """One line each."""
    said = lines(notices=(MISSING, NO_DISK), lacking_copies=7)
    assert said[0].startswith("ACT NOW: P01: no disk")
    assert said[1:3] == [
        "    and P01: the disk in use is not there (disk-missing)",
        f"    and {LACKING}",
    ]


def test_a_digest_has_the_verdict_in_its_subject() -> None:
    """With the reason, or what was done."""
    assert headline(STATUS) == "2026-11-23 ALL WELL: 1 TB archived in a day"
    worse = judged(replace(STATUS, notices=(NO_DISK,)))
    assert headline(worse) == (
        "2026-11-23 ACT NOW: P01: no disk of this role can take files (no-disk)"
    )
    assert worse.verdict is ArchiveVerdict.ACT_NOW


def test_a_message_ends_with_the_state_in_five_lines() -> None:
    """Archived, last pass, buffer, disks."""
    assert state_lines(STATUS) == [
        "The archive /var/lib/pole/pole.sqlite, 12:00 UTC:",
        "  10 files archived (2 TB), 1 TB in the last day",
        "  last pass 11:30 UTC (30 min ago): done, 5 files archived (5 MB), 0 failures",
        "  buffer 42 % full: 3 finished files wait, 0 failed so far",
        "  in use: P01 (3 TB free); spare: 1 primary and 0 copy disks",
    ]


# --- what failed, and what is open ------------------------------------------------------------


def _pending(number: int) -> Pending:
    return Pending(
        name=f"{number}.g3",
        attempts=3,
        first_failed_at=AT,
        next_try_at="2026-11-23T12:04:00Z",
        last_error="it can't be read",
        kind="copy-failed",
        stat=FileStat(1, 2, 3, 4, 5),
    )


def test_files_that_failed_are_named_with_their_fault() -> None:
    """Ten of them; the rest is counted, and where to find it is said."""
    assert "No file has failed." in lines()
    said = lines(pending=tuple(map(_pending, range(12))))
    assert "12 files failed so far; they stay in the buffer:" in said
    assert "  0.g3: it can't be read (tried 3 times, next 12:04 UTC)" in said
    assert sum(each.endswith("next 12:04 UTC)") for each in said) == 10
    assert "  … and 2 more (status --json lists all)" in said


def test_open_notices_are_told_in_full() -> None:
    """How grave, which, about what, since when; the text, which may have several lines; what to do.

    The steps of a kind stand once, below its first notice.
    """
    assert "No open notice." in lines()
    said = lines(
        notices=(
            Notice("no-disk", "copy", Severity.CRITICAL, "No copy disk.\nMount one.", AT),
            Notice("disk-closed", "P01", Severity.INFO, "P01 is full.", AT),
            Notice("disk-closed", "P02", Severity.INFO, "P02 is full.", AT),
        )
    )
    at = said.index("CRITICAL no-disk copy, since 11:30 UTC (30 min ago):")
    assert said[at + 1 : at + 3] == ["  No copy disk.", "  Mount one."]
    assert said[at + 3 : at + 6] == [
        "  1. data_manager.py status: which disks are mounted, which are full?",
        "  2. Mount a spare disk of this role. The next pass uses it automatically.",
        "  3. If none is left, tell the people up north at once.",
    ]
    assert said[at + 6 :] == [
        "INFO disk-closed P01, since 11:30 UTC (30 min ago):",
        "  P01 is full.",
        "  1. umount it, take the drive out, compare the serial number, store it.",
        "  2. If few spares of its role are left, mount one.",
        "INFO disk-closed P02, since 11:30 UTC (30 min ago):",
        "  P02 is full.",
    ]


def test_no_line_ends_with_a_blank() -> None:
    """It is copied into mails and tickets."""
    assert [each for each in lines() if each != each.rstrip()] == []


# --- as JSON --------------------------------------------------------------------------------


def test_json_has_every_field_under_its_own_name() -> None:
    """The keys are stable; enums are their words, in JSON as everywhere."""
    told = json.loads(json.dumps(asdict(replace(STATUS, pending=(_pending(1),)))))
    assert set(told) == {field.name for field in fields(Status)}
    assert set(told["buffer"]) == {field.name for field in fields(BufferStatus)}
    assert told["disks"][0]["disk"]["label"] == "P01"
    assert told["disks"][0]["disk"]["state"] == "active"
    assert told["disks"][0]["disk"]["role"] == "primary"
    assert told["disks"][0]["is_mounted"] is True
    assert told["pending"][0]["stat"]["inode"] == 2
    assert told["last_pass"]["outcome"] == "done"
