"""``generate_db.py --from-disks``: make the database from the disks, and print what was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import print_json, watcher
from poledata.cli.maintenance import print_verdict
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.disk_map import Entry, read
from poledata.disks import catalog_copy
from poledata.disks.lifecycle import the_disk
from poledata.errors import ExitCode, Refused
from poledata.formatting import counted, shown, size_text
from poledata.maintenance import disk_set
from poledata.maintenance.inventory import Inventory, take_inventory
from poledata.maintenance.read_bags import BagReport
from poledata.maintenance.rebuild import BY_LIST, Packed, Rebuilt, rebuild
from poledata.maintenance.verify import VerifyResult, verify
from poledata.models import Disk
from poledata.status.evaluate import update_notices


def from_disks(map_path: Path | None, and_verify: bool, is_dry: bool, as_json: bool) -> ExitCode:
    """Make the database from the disks, or complete it, and print what was found."""
    config = app.load_config()
    if not is_dry:
        app.must_be_archive_owner(config.db_path.parent)
        app.start_logging(config)
    stop = app.stop_on_signals()
    with nullcontext() if is_dry else app.person_s_turn(config.db_path):
        done = _rebuilt(config, map_path, stop, is_dry)
    verdicts = _verify(config, done, stop) if and_verify else []
    if as_json:
        print_json({**asdict(done), "verified": verdicts})
    elif not app.options().quiet:
        _print(done, verdicts)
    if stop.is_set():
        return ExitCode.INTERRUPTED
    is_well = done.is_well and all(verdict.is_well for verdict in verdicts)
    return ExitCode.DONE if is_well else ExitCode.LOOK


def _rebuilt(config: Config, map_path: Path | None, stop: threading.Event, is_dry: bool) -> Rebuilt:
    entries = read(map_path, config.prefixes) if map_path else ()
    with _database(config, is_dry) as (conn, begun_with):
        known = db.disks.disks(conn)
        must_fit_together(config, known)
        with take_inventory(config, known) as there:
            if not (there.finds or begun_with):
                why = "".join(f"{place.path}: {place.why}\n" for place in there.not_used)
                raise Refused(
                    "No archive disk is mounted that can be used. Nothing was changed.\n"
                    f"{why}Mount the disks, each at the place of its label, and run this again."
                )
            spares = _spares(known, there, entries, map_path)
            context = Context.create(config, conn, is_dry)
            done = rebuild(context, there, spares, stop, is_dry)
            if not is_dry:
                update_notices(config, conn)
            return replace(done, begun_with=begun_with)


def _spares(
    known: Sequence[Disk], there: Inventory, entries: Sequence[Entry], map_path: Path | None
) -> tuple[Entry, ...]:
    """Return the drives of the disk-map that were not found as disks. Raises DiskMapFault."""
    found = [find.held.disk for find in there.finds]
    ids = {disk.id for disk in found}
    disks = [*found, *(disk for disk in known if disk.id not in ids)]
    return disk_set.changes(disks, entries, map_path, False).new if map_path else ()


@contextmanager
def _database(config: Config, is_dry: bool) -> Iterator[tuple[db.Connection, str]]:
    """Yield the database to complete, or a new one, which gets its name when it is complete.

    A new one begins with the copy that knows most; its path is yielded, too. For a dry run it is
    a copy of the database, which is removed at the end.
    """
    path, begun_with = config.db_path, ""
    with ExitStack() as stack:
        if path.exists():
            db.database_files.must_be_sound(path)
            if is_dry:
                directory = stack.enter_context(db.database_files.temporary_directory(path))
                with db.connect(path, read_only=True) as conn:
                    db.database_files.copy_to(conn, path, directory / path.name)
                path = directory / path.name
            db.database_files.remove_unfinished(path)
        else:
            there = stack.enter_context(take_inventory(config, ()))
            disks = [find.held for find in there.finds]
            copy = stack.enter_context(catalog_copy.richest(disks, path))
            begun_with = str(copy or "")
            if is_dry:
                path = stack.enter_context(db.database_files.temporary_directory(path)) / path.name
            blocks = copy.blocks() if copy else None
            path = stack.enter_context(db.database_files.unfinished_database(path, blocks))
        conn = stack.enter_context(db.connect(path))
        if begun_with:
            _end_copied_passes(conn)
        yield conn, begun_with


def _end_copied_passes(conn: db.Connection) -> None:
    """End the pass that made the copy: it was at work then, and did not crash."""
    with db.transaction(conn):
        for row in db.passes.unended_passes(conn):
            db.passes.end_pass(conn, row.id, row.started_at, "copied", row.files_failed)


def _verify(config: Config, done: Rebuilt, stop: threading.Event) -> list[VerifyResult]:
    """Read all copies on the disks that were found; passes may work meanwhile."""
    with db.connect_again(config.db_path) as conn, watcher() as watching:
        context = Context.create(config, conn)
        disks = [the_disk(context, report.serial) for report in done.disks]
        watching.reading({disk.label: db.copies.due_bytes(conn, disk) for disk in disks})
        verdicts = [verify(context, disk, stop, watching.moved) for disk in disks]
        update_notices(config, conn)
        return verdicts


# --- the screen ---------------------------------------------------------------------------


_WORDS = {
    "missing": "MISSING",
    "damaged": "DAMAGED",
    "lost": "MISSING, AND ON NO OTHER DISK THAT IS MOUNTED",
    "without_line": "WITHOUT A LINE",
}


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
        f"{counted(report.files, 'file', 'files')} ({size}), "
        f"{report.new_copies} of them new to the database"
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
        yield "Dry run: nothing was written."
        return
    yield "Now: 1. data_manager.py check  2. a pass, or the crontab line again."
    if not is_verified:
        labels = " ".join(report.label for report in done.disks)
        yield (
            f"These unverified copies never justify a removal. Verify them: "
            f"data_manager.py verify {labels}"
        )
