#!/usr/bin/env python3
"""Make the database from a disk-map, once per disk set; what is in it is never changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import poledata.cli.interpreter  # noqa: F401 - first of all, for it says what this Python lacks

# isort: split
import click

from poledata import __version__, db
from poledata.cli import app, rebuild
from poledata.config import Config
from poledata.context import must_fit_together
from poledata.disk_map import read
from poledata.errors import ExitCode, UsageFault
from poledata.formatting import size_text, utc
from poledata.maintenance import disk_set
from poledata.maintenance.disk_set import Changes, Readiness
from poledata.models import DEFAULT_PREFIXES, Disk
from poledata.status import check


@click.command()
@app.common_options
@click.option(
    "--db",
    "db_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The database to make, instead of a configuration's FilenameDB.",
)
@click.option(
    "--disk-map",
    "map_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The disk set: a line a drive with label, serial, logical ID.",
)
@click.option(
    "--from-disks",
    "is_from_disks",
    is_flag=True,
    help="Make a lost database from the bags of all mounted disks, or complete an older one.",
)
@click.option("--verify", is_flag=True, help="With --from-disks: then read every copy.")
@click.option(
    "--returned",
    is_flag=True,
    help='Take drives that were noted as "lost" and are in this map back, as empty spares.',
)
@click.option("--dry-run", is_flag=True, help="Check and show everything; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the table for programs.")
@click.version_option(__version__)
def generate_db(
    db_path: Path | None,
    map_path: Path | None,
    is_from_disks: bool,
    verify: bool,
    returned: bool,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """Make the database from a disk-map, or add a further disk set to it.

    What the database holds is never lost or changed: a line it knows already is left as it is,
    and if any line contradicts it nothing at all is written. Afterwards a table shows which
    drives are ready, and for each other the command that makes it so.

    With --from-disks it is made from the disks themselves, or completed: nothing is written to
    them. The disk-map, if one is given, then adds its other drives as spares.
    """
    if db_path and app.options().config_path:
        raise UsageFault("--db and --config: give one of them. Nothing was changed.")
    if is_from_disks:
        _must_go_together(db_path, returned, verify and dry_run)
        return rebuild.from_disks(map_path, verify, dry_run, as_json)
    if map_path is None or verify:
        raise UsageFault(
            "--disk-map FILE is missing (or --from-disks, which alone takes --verify). "
            "Nothing was changed."
        )
    return _from_map(db_path, map_path, returned, dry_run, as_json)


def _from_map(
    db_path: Path | None, map_path: Path, returned: bool, dry_run: bool, as_json: bool
) -> ExitCode:
    config = None if db_path else app.load_config()
    path = config.db_path if config else Path(str(db_path))
    entries = read(map_path, config.prefixes if config else DEFAULT_PREFIXES)
    known = _known(path, config)
    changes = disk_set.changes(known, entries, map_path, returned)
    if config:
        disk_set.must_know(config, known, changes, map_path, path)
        disk_set.must_be_wiped(config, changes)
    if not dry_run:
        _write(path, changes, stand_in=bool(config and not config.require_mount))
    rows = disk_set.readiness(config, entries, path.parent.stat().st_uid) if config else []
    back = {entry.label for entry, _ in changes.returned}
    rows = [row if row.label in back else disk_set.unless_gone(row, known) for row in rows]
    if config and rows:
        rows = _looked_at_closer(config, rows)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif not app.options().quiet:
        click.echo(_summary(path, changes, dry_run))
        if rows:
            _print_table(rows)
    return ExitCode.DONE


def _looked_at_closer(config: Config, rows: Sequence[Readiness]) -> list[Readiness]:
    """What "check" finds of the disks, for the cron user, who alone may see all of it.

    After a dry run only of those that the database knows.
    """
    if not config.db_path.exists() or config.db_path.parent.stat().st_uid != os.geteuid():
        return list(rows)
    with db.connect(config.db_path, read_only=True) as conn:
        unfit = check.unfit_disks(config, conn)
    return [
        row if row.next_step else replace(row, next_step=unfit.get(row.label, "")) for row in rows
    ]


def _must_go_together(db_path: Path | None, returned: bool, is_dry_verify: bool) -> None:
    """Raises UsageFault for what makes no sense with --from-disks."""
    for option, is_given, why in (
        ("--db", bool(db_path), "a configuration says where the disks are"),
        ("--returned", returned, "a lost drive is taken back by its disk-map alone, afterwards"),
        ("--verify with --dry-run", is_dry_verify, "a verification is written down"),
    ):
        if is_given:
            raise UsageFault(f"--from-disks does not take {option}: {why}. Nothing was changed.")


def _summary(path: Path, changes: Changes, is_dry: bool) -> str:
    would = "would be " if is_dry else ""
    counts = f"{len(changes.new)} drives {would}added, {changes.known} known"
    if changes.lost:
        counts += f", {changes.lost} lost (empty and back? add --returned)"
    if changes.returned:
        counts += f", {len(changes.returned)} {would}taken back as empty spares"
    dry = "\nA dry run: nothing was written." if is_dry else ""
    return f"Database {path}: {counts}.{dry}"


def _known(path: Path, config: Config | None) -> list[Disk]:
    """The disks that the database knows already, if there is one."""
    if not path.exists():
        return []
    with db.connect(path, read_only=True) as conn:
        disks = db.disks.disks(conn)
    if config:
        must_fit_together(config, disks)
    return disks


def _write(path: Path, changes: Changes, stand_in: bool) -> None:
    """All of the new drives, or none."""
    if not path.exists():
        db.database_files.create(path)
    if not changes.new and not changes.returned:
        return
    at = utc(time.time())
    with db.connect(path) as conn, db.transaction(conn):
        for entry, disk in changes.returned:
            db.disks.revive_disk(conn, disk, entry.label, entry.role, at)
        for entry in changes.new:
            db.disks.add_disk(
                conn, entry.label, entry.role, entry.serial, entry.logical_id, stand_in, at
            )


def _print_table(rows: Sequence[Readiness]) -> None:
    heads = ("label", "role", "serial", "logical ID", "device", "mounted", "writable", "capacity")
    table = [heads] + [
        (
            row.label,
            row.role,
            row.serial,
            row.logical_id,
            row.device,
            row.mounted,
            row.writable,
            size_text(row.capacity_bytes) if row.capacity_bytes else "-",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    todo = [row for row in rows if row.next_step]
    click.echo(f"{len(rows) - len(todo)} of {len(rows)} drives are ready.")
    for row in todo:
        click.echo(f"{row.label}: {row.next_step}")


def main() -> NoReturn:
    """The console script."""
    app.enter(generate_db)


if __name__ == "__main__":
    main()
