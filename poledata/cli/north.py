"""``received`` and ``season``: what the people up north confirm, and what there is for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import command, context_of_command, print_table
from poledata.config import Config, page_faults
from poledata.errors import ExitCode, NotWritten, Refused
from poledata.formatting import counted, size_text
from poledata.maintenance import receipts
from poledata.maintenance import season as seasons
from poledata.status import publish

_HEADS = ("source", "observation", "files", "size", "first", "last", "disks", "state", "gaps")


@command()
@click.argument(
    "files", metavar="RECEIPT…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
def received(files: tuple[Path, ...]) -> ExitCode:
    """Import receipts: what the people up north found on the disks that were shipped.

    A receipt of another disk or packing list is refused, and the others are imported. Files that
    did not arrive intact are damaged there from now on: "repair" makes their copies again.
    """
    refusals = []
    code = ExitCode.DONE
    with context_of_command() as context:
        for file in files:
            try:
                imported = receipts.import_receipt(context, receipts.read(file))
            except Refused as refusal:
                refusals.append(refusal)
                continue
            click.echo(imported.text)
            code = code if imported.is_intact else ExitCode.LOOK
    if len(refusals) == len(files):
        raise Refused("\n".join(map(str, refusals)))
    for refused in refusals:
        click.echo(str(refused), err=True)
    return ExitCode.LOOK if refusals else code


@command()
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it into this file, for a spreadsheet.",
)
def season(csv_file: Path | None) -> ExitCode:
    """The season report: each observation, where its files are, and what is confirmed up north.

    Gaps are numbers that are missing in names such as 0000.g3, 0001.g3. Changes nothing.
    """
    config = app.load_config()
    with db.connect(config.db_path, read_only=True, is_long=True) as conn:
        report = seasons.season(conn)
    if csv_file:
        _write_csv(config, csv_file, report)
        return ExitCode.DONE
    if report.observations:
        print_table(_HEADS, [list(_cells(one)) for one in report.observations])
    for month in report.months:
        click.echo(
            f"{month.month}: {counted(month.files, 'file', 'files')}, "
            f"{size_text(month.size_bytes)}, {month.confirmed} confirmed"
        )
    files = sum(one.files for one in report.observations)
    click.echo(
        f"{counted(files, 'file', 'files')} in all; not confirmed by a receipt: "
        f"{report.not_confirmed}"
    )
    return ExitCode.DONE


def _cells(one: seasons.Observation) -> Iterator[str]:
    yield from (one.source, one.observation, str(one.files), size_text(one.size_bytes))
    yield from (one.first_at[:16], one.last_at[:16])
    yield f"{one.primary_disks} {one.copy_disks}".strip()
    counts = (
        (one.confirmed, "confirmed"),
        (one.here, "here"),
        (one.shipped, "shipped"),
        (one.no_good_copy, "NO GOOD COPY"),
        (one.suspect, "SUSPECT CONTENT"),
    )
    yield ", ".join(f"{count} {what}" for count, what in counts if count)
    yield one.gaps


def _write_csv(config: Config, path: Path, report: seasons.SeasonReport) -> None:
    for fault in page_faults(config, path):
        raise NotWritten(path, fault, "Nothing was changed.")
    publish.put(path, seasons.as_csv(report), seasons.CSV_HEAD)
    app.echo(f"{path}: {counted(len(report.observations), 'observation', 'observations')}")
