"""``generate_db.py --from-disks``: the catalogue from the disks, and what a person is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import watcher
from poledata.cli.maintenance import print_verdict
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.disk_map import Entry, read
from poledata.disks import catalog_copy
from poledata.disks.lifecycle import the_disk
from poledata.errors import ExitCode, Refused
from poledata.formatting import shown, size_text
from poledata.maintenance import disk_set
from poledata.maintenance.inventory import Inventory, take_inventory
from poledata.maintenance.read_bags import BagReport
from poledata.maintenance.rebuild import BY_LIST, Packed, Rebuilt, rebuild
from poledata.maintenance.verify import VerifyResult, verify
from poledata.models import Disk
from poledata.notices.channels import configured_channels
from poledata.notices.store import Board
from poledata.system import locks


def from_disks(map_path: Path | None, and_verify: bool, is_dry: bool, as_json: bool) -> ExitCode:
    """Make the database from the disks, or complete it, and say what was found."""
    config = app.SETTINGS.config()
    if not is_dry:
        app.must_be_cron_user(config)
        app.start_logging(config)
    stop = app.stop_on_signals()
    with _turn(config, is_dry):
        done = _rebuilt(config, map_path, stop, is_dry)
    verdicts = _verify(config, done, stop) if and_verify else []
    if as_json:
        click.echo(json.dumps({**asdict(done), "verified": list(map(asdict, verdicts))}, indent=2))
    elif not app.SETTINGS.quiet:
        _print(done, verdicts)
    if stop.is_set():
        return ExitCode.INTERRUPTED
    is_well = done.is_well and all(verdict.is_well for verdict in verdicts)
    return ExitCode.DONE if is_well else ExitCode.LOOK


def _turn(config: Config, is_dry: bool) -> AbstractContextManager[None]:
    return nullcontext() if is_dry else locks.between_batches(config.db_path)


def _rebuilt(config: Config, map_path: Path | None, stop: threading.Event, is_dry: bool) -> Rebuilt:
    entries = read(map_path, config.prefixes) if map_path else ()
    with _database(config, is_dry) as (conn, begun_with):
        known = db.disks.disks(conn)
        must_fit_together(config, known)
        with take_inventory(config, known) as there:
            if not (there.finds or begun_with):
                raise Refused("\n".join(_why_none(there)))
            spares = _spares(known, there, entries, map_path)
            context = Context(
                config, conn, Board(conn, configured_channels(config.secrets), is_dry)
            )
            return replace(rebuild(context, there, spares, stop, is_dry), begun_with=begun_with)


def _why_none(there: Inventory) -> Iterator[str]:
    yield "No archive disk is mounted that can be used. Nothing was changed."
    yield from (f"{place.path}: {place.why}" for place in there.not_used)
    yield "Mount the disks, each at the place of its label, and run this again."


def _spares(
    known: Sequence[Disk], there: Inventory, entries: Sequence[Entry], map_path: Path | None
) -> tuple[Entry, ...]:
    """What the disk-map has beside the disks that were found. Raises DiskMapFault."""
    found = [find.held.disk for find in there.finds]
    ids = {disk.id for disk in found}
    disks = [*found, *(disk for disk in known if disk.id not in ids)]
    return disk_set.changes(disks, entries, map_path, False).new if map_path else ()


@contextmanager
def _database(config: Config, is_dry: bool) -> Iterator[tuple[db.Connection, str]]:
    """The one to be completed, or a new one, which is there once it is whole.

    A new one begins with the copy that knows most, which is named. For a dry run a copy of the
    database, which is thrown away.
    """
    path, begun_with = config.db_path, ""
    with ExitStack() as stack:
        if path.exists():
            db.must_be_sound(path)
            path = (
                _copied(path, stack.enter_context(db.temporary_directory(path))) if is_dry else path
            )
            db.database_files.forget_unfinished(path)
        else:
            there = stack.enter_context(take_inventory(config, ()))
            disks = [find.held for find in there.finds]
            copy = stack.enter_context(catalog_copy.richest(disks, path))
            begun_with = str(copy or "")
            if is_dry:
                path = stack.enter_context(db.temporary_directory(path)) / path.name
            blocks = copy.blocks() if copy else None
            path = stack.enter_context(db.database_files.in_the_making(path, blocks))
        conn = stack.enter_context(db.connect(path))
        if begun_with:
            _end_copied_passes(conn)
        yield conn, begun_with


def _end_copied_passes(conn: db.Connection) -> None:
    """A copy is made by a pass that has not ended: it did not crash."""
    with db.transaction(conn):
        for row in db.passes.unended_passes(conn):
            db.passes.end_pass(conn, row.id, row.started_at, "copied", row.files_failed)


def _copied(path: Path, directory: Path) -> Path:
    copy = directory / path.name
    with db.connect(path, read_only=True) as conn:
        db.database_files.copy_to(conn, path, copy)
    return copy


def _verify(config: Config, done: Rebuilt, stop: threading.Event) -> list[VerifyResult]:
    """Read all copies of the disks that were found; passes may go on meanwhile."""
    with db.connect_again(config.db_path) as conn, watcher() as watching:
        context = Context(config, conn, Board(conn, configured_channels(config.secrets)))
        disks = [the_disk(context, report.serial) for report in done.disks]
        watching.reading({disk.label: db.copies.due_bytes(conn, disk) for disk in disks})
        return [verify(context, disk, stop, watching.moved) for disk in disks]


# --- what a person is told ----------------------------------------------------------------


def _print(done: Rebuilt, verdicts: Sequence[VerifyResult]) -> None:
    click.echo(f"Database {done.db_path}: {len(done.disks)} disks were read.")
    if done.begun_with:
        click.echo(f"It began with the copy that knows most, {done.begun_with}.")
    for report in done.disks:
        _print_disk(report)
    for packed in done.packed:
        click.echo(_packed_line(packed))
    for place in done.not_used:
        click.echo(f"NOT USED {place.path}: {place.why}")
    for verdict in verdicts:
        print_verdict(verdict)
    for line in _what_next(done, bool(verdicts)):
        click.echo(line)


def _print_disk(report: BagReport) -> None:
    size = size_text(report.size_bytes)
    click.echo(
        f"{report.label}  {report.role.value}  {report.serial}  {report.state}: "
        f"{report.files} files ({size}), {report.new_copies} of them new to the database"
    )
    for what in ("missing", "damaged", "lost", "without_line"):
        for name in getattr(report, what):
            click.echo(f"{report.label}: {_WORDS[what]} {name}")
    for differing in report.differences:
        click.echo(f"DIFFERENCE {differing.name}: {differing.here}; {differing.there}")
    for fault in report.faults:
        click.echo(f"{report.label}: FAULT {shown(fault)}")


def _packed_line(packed: Packed) -> str:
    if packed.fault:
        return f"{packed.label}: NOT CLOSED BY ITS PACKING LIST: {packed.fault}"
    return (
        f"{packed.label}  {packed.role.value}  {packed.serial}  {BY_LIST}: {packed.files} files, "
        f"{packed.new_copies} of them new to the database. If it has left: "
        f"data_manager.py ship {packed.label}"
    )


_WORDS = {
    "missing": "MISSING",
    "damaged": "DAMAGED",
    "lost": "MISSING, AND ON NO OTHER DISK THAT IS MOUNTED",
    "without_line": "WITHOUT A LINE",
}


def _what_next(done: Rebuilt, is_verified: bool) -> Iterator[str]:
    if done.spares_added:
        yield f"Spares from the disk-map: {', '.join(done.spares_added)}."
    if done.by_copies:
        yield f"Known by copies of the database on other disks: {', '.join(done.by_copies)}."
    if done.empty:
        yield f"Empty disks, not registered: {', '.join(done.empty)}. Add --disk-map FILE for them."
    if done.not_mounted:
        yield (
            f"Not mounted, left as they were: {', '.join(done.not_mounted)}. Mount them and run "
            "this again; what has left: data_manager.py ship or lost."
        )
    if done.is_dry:
        yield "A dry run: nothing was written."
        return
    yield "Now: 1. data_manager.py check  2. a pass, or the crontab line again."
    if not is_verified:
        labels = " ".join(report.label for report in done.disks)
        yield (
            f"No file is removed on the word of these copies until they are read: "
            f"data_manager.py verify {labels}"
        )
