"""``generate_db.py --disk-map``: add the drives of a disk-map to the database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import print_json, print_table
from poledata.config import Config
from poledata.context import must_fit_together
from poledata.disk_map import Entry, read
from poledata.disks import lifecycle
from poledata.errors import DatabaseUnusable, ExitCode
from poledata.formatting import size_text, utc_now
from poledata.maintenance import disk_set
from poledata.maintenance.disk_set import Changes, Readiness
from poledata.models import DEFAULT_PREFIXES, Disk
from poledata.status import check
from poledata.system import privileges

HEADS = ("label", "role", "serial", "logical ID", "device", "mounted", "writable", "capacity")


def from_map(
    map_path: Path, db_path: Path | None, returned: bool, is_dry: bool, as_json: bool
) -> ExitCode:
    """Add the drives to the configuration's database, or to that at ``db_path``; print a table."""
    config = None if db_path else app.load_config()
    path = config.db_path if config else _database_without_config(Path(str(db_path)))
    if not is_dry:
        app.must_be_archive_owner(path.parent)
    entries = read(map_path, config.prefixes if config else DEFAULT_PREFIXES)
    known = _known(path, config)
    changes = disk_set.changes(known, entries, map_path, returned)
    if config:
        disk_set.must_know(config, known, changes, map_path, path)
        disk_set.must_be_wiped(config, changes)
    warnings = _warnings_of_returned(path, changes)
    if not is_dry:
        _write(path, changes, stand_in=bool(config and not config.require_mount))
    rows = _readiness(config, entries, changes, known) if config else []
    if as_json:
        print_json(rows)
    elif not app.options().quiet:
        click.echo(f"{warnings}{_summary(path, changes, is_dry)}")
        if rows:
            _print_readiness(rows)
    return ExitCode.DONE


def _database_without_config(path: Path) -> Path:
    """Return the path of a database; root becomes the owner of its directory first."""
    if not path.parent.is_dir():
        raise DatabaseUnusable(path, "its directory does not exist", "Make that first.")
    privileges.become_owner_of_directory(path.parent)
    return path


def _warnings_of_returned(path: Path, changes: Changes) -> str:
    """Return which files were on the drives that come back wiped, and are nowhere safe."""
    if not changes.returned:
        return ""
    with db.connect(path, read_only=True) as conn:
        return "".join(lifecycle.not_safe_text(conn, disk) for _, disk in changes.returned)


def _known(path: Path, config: Config | None) -> list[Disk]:
    """Return the disks that the database knows already, if there is one."""
    if not path.exists():
        return []
    with db.connect(path, read_only=True) as conn:
        disks = db.disks.disks(conn)
    if config:
        must_fit_together(config, disks)
    return disks


def _write(path: Path, changes: Changes, stand_in: bool) -> None:
    """Write all of the new drives, or none."""
    if not path.exists():
        db.database_files.create(path)
    if not changes.new and not changes.returned:
        return
    at = utc_now()
    with db.connect(path) as conn, db.transaction(conn):
        for entry, disk in changes.returned:
            db.disks.revive_disk(conn, disk, entry.label, entry.role, at)
        for e in changes.new:
            db.disks.add_disk(conn, e.label, e.role, e.serial, e.logical_id, stand_in, at)


def _readiness(
    config: Config, entries: Sequence[Entry], changes: Changes, known: Sequence[Disk]
) -> list[Readiness]:
    """Return a row for each drive; the cron user also gets what "check" finds of the disks.

    After a dry run only of those that the database knows. No other user may see all of it.
    """
    owner = config.db_path.parent.stat().st_uid
    back = {entry.label for entry, _ in changes.returned}
    rows = [
        row if row.label in back else disk_set.unless_gone(row, known)
        for row in disk_set.readiness(config, entries, owner)
    ]
    if not rows or not config.db_path.exists() or owner != os.geteuid():
        return rows
    with db.connect(config.db_path, read_only=True) as conn:
        unfit = check.unfit_disks(config, conn)
    return [
        row if row.next_step else replace(row, next_step=unfit.get(row.label, "")) for row in rows
    ]


def _summary(path: Path, changes: Changes, is_dry: bool) -> str:
    would = "would be " if is_dry else ""
    counts = f"{len(changes.new)} drives {would}added, {changes.known} known"
    if changes.lost:
        counts += f", {changes.lost} lost (empty and back? add --returned)"
    if changes.returned:
        counts += f", {len(changes.returned)} {would}taken back as empty spares"
    dry = "\nDry run: nothing was written." if is_dry else ""
    return f"Database {path}: {counts}.{dry}"


def _print_readiness(rows: Sequence[Readiness]) -> None:
    print_table(HEADS, [_cells(row) for row in rows])
    todo = [row for row in rows if row.next_step]
    click.echo(f"{len(rows) - len(todo)} of {len(rows)} drives are ready.")
    for row in todo:
        click.echo(f"{row.label}: {row.next_step}")


def _cells(row: Readiness) -> tuple[str, ...]:
    *cells, capacity_bytes, _next_step = asdict(row).values()
    return (*cells, size_text(capacity_bytes) if capacity_bytes else "-")
