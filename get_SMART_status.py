#!/usr/bin/env python3
"""Check the health of the registered drives, record it, and report problems."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

import poledata.cli.python_check  # noqa: F401 - first: it reports what this Python lacks

# isort: split
import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import end_command
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.disks import lifecycle
from poledata.errors import ExitCode, UsageFault
from poledata.formatting import utc_now
from poledata.models import Disk
from poledata.notices.findings import Findings
from poledata.smart import check, rules, table
from poledata.smart.check import Checked
from poledata.smart.table import DriveRow
from poledata.system import locks

if TYPE_CHECKING:
    from poledata.smart.smartctl import FoundDrive
    from poledata.system.privileges import RootSmartctl

QUERY_AGAIN_AFTER_S = 5.0


@click.command()
@app.common_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--history", metavar="LABEL", help="List what changed on this drive, and when; query no drive."
)
@click.argument("labels", metavar="[LABEL…]", nargs=-1)
def get_smart_status(as_json: bool, history: str | None, labels: tuple[str, ...]) -> ExitCode:
    """Check the SMART data of every registered drive, or of the drives named, and record it.

    A failing drive is reported and held, so that the archive uses another one. Nothing is moved
    or deleted. Drives that are not registered are listed but not judged. This needs root, except
    with --history.

    Exit codes: 0 all drives are healthy; 1 a drive is failing, should be watched, or did not
    respond; 2 wrong usage or configuration, nothing was touched.
    """
    if history:
        return _history(app.load_config(), history, as_json)
    smartctl = app.smartctl_as_root()  # first, because the configuration ends root's rights
    config = app.load_config()
    app.must_be_archive_owner(config.db_path.parent)
    app.start_logging(config)
    with locks.only_one(config.db_path, locks.Task.SMART_CHECK) as is_only:
        if not is_only:
            app.echo("Another check is at work; nothing to do here.")
            return ExitCode.DONE
        with db.connect(config.db_path) as conn:
            must_fit_together(config, db.disks.disks(conn))
            if not config.require_mount:
                raise UsageFault("Stand-ins have no SMART. Nothing was changed.")
            return _check(config, conn, smartctl, labels, as_json)


def _check(
    config: Config,
    conn: db.Connection,
    smartctl: RootSmartctl,
    labels: Sequence[str],
    as_json: bool,
) -> ExitCode:
    every = db.disks.disks(conn)
    disks = _disks_to_check(Context(config, conn, Findings(conn)), every, labels)
    found = _query_drives(smartctl, config, disks)
    context = Context.create(config, conn)  # with the notices as they are after the long query
    checked = check.check(context, disks, found, time.time())
    check.tell(context, checked)
    if check.may_change_holds(context, checked):
        with app.person_s_turn(config.db_path):
            check.change_holds(context, checked, utc_now())
        check.tell(context, checked)
    end_command(config, conn)
    _print(_rows(context, checked, [] if labels else check.unregistered(every, found)), as_json)
    return ExitCode.LOOK if any(one.needs_a_look for one in checked) else ExitCode.DONE


def _disks_to_check(context: Context, every: list[Disk], labels: Sequence[str]) -> list[Disk]:
    named = list(dict.fromkeys(lifecycle.the_disk(context, label) for label in labels))
    disks = check.to_check(named or every)
    if gone := [disk.label for disk in named if disk not in disks]:
        raise UsageFault(
            f"{', '.join(gone)}: shipped or lost, not looked for. Nothing was changed."
        )
    return disks


def _query_drives(
    smartctl: RootSmartctl, config: Config, disks: Sequence[Disk]
) -> list[FoundDrive]:
    """Query all drives; twice if one in use was not found, because it may just have come back."""
    from poledata.smart.smartctl import query_drives  # pySMART is slow to load

    found = query_drives(smartctl, configured=config.smart_devices)
    if check.lacks_one_in_use(disks, found):
        time.sleep(QUERY_AGAIN_AFTER_S)
        found = query_drives(smartctl, configured=config.smart_devices)
    return found


def _rows(
    context: Context, checked: Sequence[Checked], unregistered: Sequence[FoundDrive]
) -> list[DriveRow]:
    disks = [lifecycle.the_disk(context, one.disk.serial) for one in checked]
    return [
        *map(table.checked_row, disks, checked),
        *map(table.unregistered_row, unregistered),
    ]


def _print(rows: Sequence[DriveRow], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for line in (table.HEADING, *map(table.line, rows)):
        app.echo(line)


def _history(config: Config, label: str, as_json: bool) -> ExitCode:
    with db.connect(config.db_path, read_only=True) as conn:
        disk = lifecycle.the_disk(Context(config, conn, Findings(conn, is_dry=True)), label)
        found = rules.changes(db.smart.smart_history(conn, disk))
        tested = db.smart.hours_since_tested(conn).get(disk.id)
    if as_json:
        click.echo(json.dumps([asdict(change) for change in found], indent=2))
        return ExitCode.DONE
    app.echo(f"{disk.label} (serial {disk.serial}):" if found else f"{disk.label}: never checked.")
    for change in found:
        old = "" if change.old is None else f"{change.old} → "
        app.echo(f"  {change.at}  {change.what}: {old}{change.new}")
    ago = "none has passed" if tested is None else f"passed, {tested} hours of operation ago"
    app.echo(f"  last extended self-test: {ago}")
    return ExitCode.DONE


def main() -> NoReturn:
    """Run the console script."""
    app.enter(get_smart_status)


if __name__ == "__main__":
    main()
