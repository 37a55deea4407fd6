"""Commands that record what a person did with a disk or the buffer: ``close``, ``ship``, …"""

from __future__ import annotations

import sys

import click

from poledata import db
from poledata.archive import buffer_marker
from poledata.cli import app
from poledata.cli.common import (
    LABEL,
    LABELS,
    WHY,
    changes_archive,
    command,
    context_of_command,
    why_option,
)
from poledata.context import Context
from poledata.disks import closing, lifecycle, shipments
from poledata.errors import ExitCode, UsageFault

YES = click.option(
    "--yes", "is_sure", is_flag=True, help="Also if it is the last disk of its role with room."
)


def _must_be_sure(label: str, what: str) -> None:
    """Ask before the last disk of a role is taken out of use; passes go on. Raises Refused."""
    config = app.load_config()
    app.must_be_archive_owner(config.db_path.parent)
    with db.connect(config.db_path, read_only=True) as conn:
        context = Context.create(config, conn, is_dry=True)
        disk = lifecycle.the_disk(context, label)
        if not lifecycle.is_last_usable(context, disk):
            return
    role = disk.role.value
    why = f"{disk.label} is the last {role} disk that can take files: without it they all wait"
    if not app.is_terminal(sys.stdin):
        way = f"Mount a spare {role} disk first; or, if you mean it: {what} {disk.label} --yes"
        raise lifecycle.refused(why, way)
    if not click.confirm(f"{why}. Do it?"):
        raise lifecycle.refused("It was not confirmed")


@command()
@LABEL
@YES
def close(label: str, is_sure: bool) -> ExitCode:
    """Close a disk in use that is not full: nothing more is written to it."""
    if not is_sure:
        _must_be_sure(label, "close")
    with context_of_command() as context:
        click.echo(closing.close_for_a_person(context, lifecycle.the_disk(context, label)))
    return ExitCode.DONE


@command()
@LABELS
@click.option("--box", metavar="TEXT", help="In which box, for the sheet: 3.")
@click.option("--to", "destination", metavar="TEXT", help="To whom, for the sheet.")
@click.option("--undo", is_flag=True, help="They did not leave; until a receipt has come.")
@changes_archive()
def ship(
    context: Context,
    labels: tuple[str, ...],
    box: str | None,
    destination: str | None,
    undo: bool,
) -> str:
    """Record that closed disks leave the station: all of them, or none.

    Refused if a file on them has no other copy, or if a disk is still mounted. Writes a sheet for
    the crate into shipments/ next to the database, as text and to print.
    """
    disks = [lifecycle.the_disk(context, label) for label in labels]
    if not undo:
        return shipments.ship(context, disks, box, destination)
    if box or destination:
        raise UsageFault("--undo takes neither --box nor --to. Nothing was changed.")
    return "\n".join(shipments.undo(context, disk) for disk in disks)


@command()
@LABEL
@why_option(required=False)
@click.option(
    "--undo", is_flag=True, help="It was not lost: the disk and its copies count again as before."
)
def lost(label: str, why: str | None, undo: bool) -> ExitCode:
    """Record that a disk is dead, gone or wiped: its copies count as missing."""
    if not (why or undo):
        raise click.UsageError("Missing option '--why'. Nothing was changed.")
    if why and undo:
        raise click.UsageError("--undo takes no --why. Nothing was changed.")
    with context_of_command() as context:
        if why:
            click.echo(lifecycle.lose(context, lifecycle.the_disk(context, label), why))
        else:
            click.echo(lifecycle.undo_loss(context, label))
    return ExitCode.DONE


@command()
@LABELS
@changes_archive()
def forget(context: Context, labels: tuple[str, ...]) -> str:
    """Remove drives that were never used from the database: all of them, or none."""
    return lifecycle.forget(context, [lifecycle.the_disk(context, label) for label in labels])


@command()
@LABEL
@WHY
@YES
def hold(label: str, why: str, is_sure: bool) -> ExitCode:
    """Take a disk out of use until "unhold"; its files stay on it."""
    if not is_sure:
        _must_be_sure(label, "hold")
    with context_of_command() as context:
        click.echo(lifecycle.hold(context, lifecycle.the_disk(context, label), why))
    return ExitCode.DONE


@command()
@LABEL
@changes_archive()
def unhold(context: Context, label: str) -> str:
    """Put a held disk back into use."""
    return lifecycle.unhold(context, lifecycle.the_disk(context, label))


@command()
@WHY
@changes_archive()
def adopt_buffer(context: Context, why: str) -> str:
    """Record that the buffer was moved or replaced on purpose: it gets its marker again."""
    return buffer_marker.adopt(context.config, context.conn, why)
