"""Text from outside reaches no terminal, log or mail unescaped, wherever it comes from."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.link import write_env
from tests.helpers.recorded_drives import put, recorded, with_smartctl
from tests.helpers.world import World

# Clears the screen; rings; turns text around; a line end of its own; an invisible character.
HOSTILE = "\x1b[2J\x07\x9b\u202eevil\r\u2028\u200b"
CONTROL = re.compile(r"[^\n\x20-\x7e\u00a1-\uffff]|[\u200b-\u200f\u2028-\u202e\ufeff]")
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("check",),
    ("check", "--json"),
    ("verify", "P01"),
    ("verify", "P01", "--json"),
    ("locate", "*"),
    ("locate", "*", "--json"),
    ("repair", "--dry-run"),
    ("close", "--yes", "P09"),
    ("lost", HOSTILE, "--why", HOSTILE),
    ("ack", HOSTILE, HOSTILE),
    ("hold", "--yes", "P02", "--why", HOSTILE),
    ("pause", "--why", HOSTILE),
    (),
    ("resume",),
    ("notify", "--test"),
    ("status", "--send"),
)


@pytest.fixture
def hostile(world: World) -> Iterator[World]:
    """Every text column of the database, and the mark of a disk, holds what a terminal obeys."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    world.put(f"{HOSTILE}%.g3")
    world.run_pass(check=1)
    write_env(world, POLE_PAGER_COMMAND=f"tee -a {world.root}/told")
    for table, columns in TEXTS.items():
        for column in columns:
            world.sql(f"UPDATE {table} SET {column} = {column} || ?", HOSTILE)
    mark = world.disks["P02"] / "bag-info.txt"
    mark.write_text(f"Pole-Label: {HOSTILE}\nPole-Serial: {HOSTILE}\n")
    yield world
    world.leave_unchecked("its database and a mark were forged")


TEXTS = {
    "disks": ("serial", "logical_id"),
    "notices": ("key", "text"),
    "findings": ("key", "text"),
    "passes": ("outcome",),
    "pending": ("last_error",),
    "pauses": ("why",),
    "deliveries": ("last_error",),
}


def test_no_output_log_or_message_holds_what_a_terminal_obeys(hostile: World) -> None:
    """Every command on a station whose texts are hostile: output, errors, log, page, messages."""
    for command in COMMANDS:
        run = hostile.run_pass(*command)
        assert run.code != 3, run.err
        for text in (run.out, run.err):
            assert not CONTROL.search(text), (command, CONTROL.findall(text), text)
        if "--json" in command:
            json.loads(run.out)
    hostile.sql("DELETE FROM findings")
    hostile.sql(  # a critical one, so that a pager gets it; "rebuild" is looked at by no pass
        "INSERT INTO findings VALUES ('database-error', 'rebuild', 'critical', ?, NULL, ?)",
        f"{HOSTILE} {HOSTILE}",
        "2026-01-01T00:00:00Z",
    )
    hostile.run_pass()
    told = (hostile.root / "told").read_text()
    assert "evil" in told and "evil" in hostile.log()
    assert not CONTROL.search(told), CONTROL.findall(told)
    assert not CONTROL.search(hostile.log()), CONTROL.findall(hostile.log())


def hostile_report() -> Any:
    report = recorded("sata-good")
    for key in ("model_name", "serial_number", "firmware_version"):
        put(f"A{HOSTILE}", key)(report)
    put([{"string": f"fault {HOSTILE}", "severity": "error"}], "smartctl", "messages")(report)
    return report


@pytest.mark.parametrize("script", ["get_drive_IDs.py", "get_SMART_status.py"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_a_drive_calls_itself_is_escaped(
    world: World, script: str, form: tuple[str, ...]
) -> None:
    """Model, serial and smartctl's messages: a line for each drive, and no control character."""
    world.configure(RequireMount="yes")
    world.generate()
    env = with_smartctl(world, hostile_report())
    run = (
        world.run(script, *form, env=env, check={0, 1})
        if "SMART" in script
        else ids(world, form, env)
    )
    assert "evil" in run.out + run.err
    for text in (run.out, run.err):
        assert not CONTROL.search(text), (CONTROL.findall(text), text)
    if form:
        json.loads(run.out)


def ids(world: World, form: tuple[str, ...], env: dict[str, str]) -> Any:
    import subprocess

    from tests.helpers.world import CRON_ENVIRONMENT, REPO, Run

    command = [sys.executable, str(REPO / "get_drive_IDs.py"), *form]
    ran = subprocess.run(command, env=CRON_ENVIRONMENT | env, capture_output=True, check=False)
    return Run(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


ALLOWED = {"poledata/cli/app.py", "poledata/cli/python_check.py", "poledata/notices/send_child.py"}
WAYS_AROUND = re.compile(
    r"\bprint\(|sys\.__?std(?:out|err)|sys\.std(?:out|err)\.(?:write|buffer)|/dev/tty|Console\(\)"
    r"|logging\.(?:StreamHandler|FileHandler|basicConfig)|os\.write\((?:1|2),"
)


def test_there_is_one_way_to_a_terminal_and_one_to_the_log() -> None:
    """All text passes app.py's streams and log lines, which escape; a new way around is found."""
    from tests.helpers.world import REPO

    sources = [*(REPO / "poledata").rglob("*.py"), *REPO.glob("*.py")]
    around = {
        str(Path(path).relative_to(REPO))
        for path in sources
        if WAYS_AROUND.search(path.read_text())
    }
    assert around == ALLOWED
