"""Commands that record what a person did with a disk or the buffer: ``close``, ``ship``, …"""

from __future__ import annotations

import click

from poledata.archive import buffer_marker
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


@command()
@LABEL
@changes_archive()
def close(context: Context, label: str) -> str:
    """Seal a disk in use, though it is not full: nothing is written to it any more."""
    return closing.close_for_a_person(context, lifecycle.the_disk(context, label))


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
    """Note that closed disks leave the station. All of them, or none.

    Writes a sheet for the crate into shipments/ beside the database, as text and to print.
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
@click.option("--undo", is_flag=True, help="It is not lost: it and its copies are as before.")
def lost(label: str, why: str | None, undo: bool) -> ExitCode:
    """Note that a disk is dead, gone or wiped: its copies are missing from now on."""
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
    """Take drives that were never used out of the database. All of them, or none."""
    return lifecycle.forget(context, [lifecycle.the_disk(context, label) for label in labels])


@command()
@LABEL
@WHY
@changes_archive()
def hold(context: Context, label: str, why: str) -> str:
    """Take a disk out of use, until "unhold"; what is on it stays."""
    return lifecycle.hold(context, lifecycle.the_disk(context, label), why)


@command()
@LABEL
@changes_archive()
def unhold(context: Context, label: str) -> str:
    """Give a held disk back."""
    return lifecycle.unhold(context, lifecycle.the_disk(context, label))


@command()
@WHY
@changes_archive()
def adopt_buffer(context: Context, why: str) -> str:
    """Note that the buffer was moved or replaced on purpose: it gets its marker again."""
    done = buffer_marker.adopt(context.config, context.conn, why)
    context.board.settle(["buffer-wrong"], "buffer")
    return done
