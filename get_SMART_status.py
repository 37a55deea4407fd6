#!/usr/bin/env python3
"""Check the health of the registered drives, write it down, and say what a person should know."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NoReturn

import poledata.cli.interpreter  # noqa: F401 - first of all, for it says what this Python lacks

# isort: split
import click

from poledata import db
from poledata.cli import app
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.disks import lifecycle
from poledata.errors import ExitCode, UsageFault
from poledata.formatting import utc
from poledata.models import Disk
from poledata.notices.channels import configured_channels
from poledata.notices.store import Board
from poledata.smart import rules
from poledata.system import locks

if TYPE_CHECKING:
    from poledata.smart.check import Checked
    from poledata.smart.smartctl import FoundDrive

LOOK_AGAIN_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """A drive as the table and the JSON show it."""

    label: str | None  # None: it is not registered, and not judged
    role: str | None
    serial: str | None
    logical_id: str | None
    state: str | None
    devices: tuple[str, ...]
    model: str | None
    power_on_hours: int | None
    temperature_c: int | None
    health: str | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    held_by: str | None
    held_reason: str | None


@click.command()
@app.common_options
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@click.option("--history", metavar="LABEL", help="Only list what changed on this drive, and when.")
@click.argument("labels", metavar="[LABEL…]", nargs=-1)
def get_smart_status(as_json: bool, history: str | None, labels: tuple[str, ...]) -> ExitCode:
    """Check every registered drive that may be here (or those named), and write it down.

    A failing drive is told of, and held, so that the archive takes another one; nothing is moved
    or deleted. Drives that are not registered are listed, and not judged. Needs root; --history
    does not.

    Exit codes: 0 no drive needs a look; 1 some drive is failing, or should be watched, or did not
    answer; 2 wrong usage or configuration, nothing was touched.
    """
    config = app.SETTINGS.config()
    if history:
        return _history(config, history, as_json)
    app.must_be_root("ask drives how they are")
    app.start_logging(config)
    with locks.only_one(config.db_path, locks.Task.SMART_CHECK) as is_only:
        if not is_only:
            _say("Another check is at work; nothing to do here.")
            return ExitCode.DONE
        with db.connect(config.db_path) as conn:
            must_fit_together(config, db.disks.disks(conn))
            if not config.require_mount:
                raise UsageFault("Stand-ins have no SMART. Nothing was changed.")
            return _check(config, conn, labels, as_json)


def _check(config: Config, conn: db.Connection, labels: tuple[str, ...], as_json: bool) -> ExitCode:
    from poledata.smart import check

    every = db.disks.disks(conn)
    named = _named(Context(config, conn, Board(conn)), labels)
    disks = check.to_check(named or every)
    if gone := [disk.label for disk in named if disk not in disks]:
        raise UsageFault(
            f"{', '.join(gone)}: shipped or lost, not looked for. Nothing was changed."
        )
    found = _look(disks)
    board = Board(conn, configured_channels(config.secrets))  # as it is now: asking took a while
    context = Context(config, conn, board)
    checked = check.check(context, disks, found, time.time())
    check.tell(context, checked)
    if check.may_change_holds(context, checked):
        with locks.between_batches(config.db_path):
            check.change_holds(context, checked, utc(time.time()))
        check.tell(context, checked)
    _print(context, checked, _strangers(every, found) if not labels else [], as_json)
    return ExitCode.LOOK if any(one.needs_a_look for one in checked) else ExitCode.DONE


def _named(context: Context, labels: Sequence[str]) -> list[Disk]:
    return list(dict.fromkeys(lifecycle.the_disk(context, label) for label in labels))


def _look(disks: Sequence[Disk]) -> list[FoundDrive]:
    """All drives; a second time where one in use was not found, for it may just have come back."""
    from poledata.smart import (
        check,  # pySMART is slow to load
        smartctl,
    )

    found = smartctl.look()
    if check.lacks_one_in_use(disks, found):
        time.sleep(LOOK_AGAIN_AFTER_S)
        found = smartctl.look()
    return found


def _strangers(disks: Sequence[Disk], found: Sequence[FoundDrive]) -> list[FoundDrive]:
    """Drives that no registered disk is: not judged."""
    from poledata.smart import check

    ours = [drive for disk in disks if (drive := check.find(disk, found)[0])]
    return [drive for drive in found if drive not in ours]


# --- output -------------------------------------------------------------------------------


def _print(
    context: Context, checked: Sequence[Checked], strangers: Sequence[FoundDrive], as_json: bool
) -> None:
    rows = [_row(lifecycle.the_disk(context, one.disk.serial), one) for one in checked]
    rows += [_stranger(drive) for drive in strangers]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    _say(f"{'label':6} {'serial':20} {'model':24} {'hours':>6} {'°C':>3} health")
    for row in rows:
        _say(_line(row))


def _row(disk: Disk, one: Checked) -> Row:
    report = one.found.report if one.found else None
    return Row(
        disk.label,
        disk.role.value,
        disk.serial,
        disk.logical_id,
        disk.state.value,
        one.found.devices if one.found else (),
        report.model if report else None,
        report.power_on_hours if report else None,
        report.temperature_c if report else None,
        one.verdict.health.value,
        one.verdict.reasons,
        one.verdict.notes,
        disk.held_by,
        disk.held_reason,
    )


def _stranger(found: FoundDrive) -> Row:
    drive, report = found.drive, found.report
    return Row(
        label=None,
        role=None,
        serial=drive.serial,
        logical_id=drive.wwn,
        state=None,
        devices=found.devices,
        model=report.model,
        power_on_hours=report.power_on_hours,
        temperature_c=report.temperature_c,
        health=None,
        reasons=(),
        notes=(),
        held_by=None,
        held_reason=None,
    )


def _line(row: Row) -> str:
    hours = "" if row.power_on_hours is None else str(row.power_on_hours)
    celsius = "" if row.temperature_c is None else str(row.temperature_c)
    what = row.health or f"not registered ({', '.join(row.devices)})"
    why = "; ".join((*row.reasons, *row.notes))
    held = f"  HELD by {row.held_by}: {row.held_reason}" if row.held_by else ""
    return (
        f"{row.label or '-':6} {row.serial or '-':20} {row.model or '-':24} {hours:>6} "
        f"{celsius:>3} {what}{': ' if why else ''}{why}{held}"
    )


def _history(config: Config, label: str, as_json: bool) -> ExitCode:
    with db.connect(config.db_path, read_only=True) as conn:
        disk = lifecycle.the_disk(Context(config, conn, Board(conn, is_dry=True)), label)
        found = rules.changes(db.smart.smart_history(conn, disk))
    if as_json:
        click.echo(json.dumps([asdict(change) for change in found], indent=2))
        return ExitCode.DONE
    _say(f"{disk.label} (serial {disk.serial}):" if found else f"{disk.label}: never checked.")
    for change in found:
        old = "" if change.old is None else f"{change.old} → "
        _say(f"  {change.at}  {change.what}: {old}{change.new}")
    return ExitCode.DONE


def _say(text: str) -> None:
    if not app.SETTINGS.quiet:
        click.echo(text)


def main() -> NoReturn:
    """The console script."""
    app.enter(get_smart_status)


if __name__ == "__main__":
    main()
