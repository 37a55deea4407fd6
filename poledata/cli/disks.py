"""What a person says of a disk, or of the buffer: ``close``, ``ship``, ``adopt-buffer``, …"""

from __future__ import annotations

import click

from poledata.archive import buffer_marker
from poledata.cli import app
from poledata.cli.common import LABEL, LABELS, WHY, context_of_command, why_option
from poledata.disks import closing, lifecycle
from poledata.errors import ExitCode


@click.command()
@app.common_options
@LABEL
def close(label: str) -> ExitCode:
    """Seal a disk in use, though it is not full: nothing is written to it any more."""
    with context_of_command() as context:
        click.echo(closing.close_for_a_person(context, lifecycle.the_disk(context, label)))
    return ExitCode.DONE


@click.command()
@app.common_options
@LABELS
def ship(labels: tuple[str, ...]) -> ExitCode:
    """Note that closed disks leave the station. All of them, or none."""
    with context_of_command() as context:
        click.echo(
            lifecycle.ship(context, [lifecycle.the_disk(context, label) for label in labels])
        )
    return ExitCode.DONE


@click.command()
@app.common_options
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
        if undo:
            click.echo(lifecycle.undo_loss(context, label))
        else:
            click.echo(lifecycle.lose(context, lifecycle.the_disk(context, label), str(why)))
    return ExitCode.DONE


@click.command()
@app.common_options
@LABELS
def forget(labels: tuple[str, ...]) -> ExitCode:
    """Take drives that were never used out of the database. All of them, or none."""
    with context_of_command() as context:
        click.echo(lifecycle.forget(context, [lifecycle.the_disk(context, one) for one in labels]))
    return ExitCode.DONE


@click.command()
@app.common_options
@LABEL
@WHY
def hold(label: str, why: str) -> ExitCode:
    """Take a disk out of use, until "unhold"; what is on it stays."""
    with context_of_command() as context:
        click.echo(lifecycle.hold(context, lifecycle.the_disk(context, label), why))
    return ExitCode.DONE


@click.command()
@app.common_options
@LABEL
def unhold(label: str) -> ExitCode:
    """Give a held disk back."""
    with context_of_command() as context:
        click.echo(lifecycle.unhold(context, lifecycle.the_disk(context, label)))
    return ExitCode.DONE


@click.command("adopt-buffer")
@app.common_options
@WHY
def adopt_buffer(why: str) -> ExitCode:
    """Note that the buffer was moved or replaced on purpose: it gets its marker again."""
    with context_of_command() as context:
        click.echo(buffer_marker.adopt(context.config, context.conn, why))
        context.board.settle(["buffer-wrong"], "buffer")
    return ExitCode.DONE


COMMANDS = (close, ship, lost, forget, hold, unhold, adopt_buffer)
