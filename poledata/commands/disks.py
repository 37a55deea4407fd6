"""What a person says of a disk, or of the buffer: ``close``, ``ship``, ``adopt-buffer``, …"""

from __future__ import annotations

import click

from poledata import adoption, cli, closing, lifecycle
from poledata.commands.common import LABEL, LABELS, WHY, house_of_command, why_option
from poledata.errors import ExitCode


@click.command()
@cli.common_options
@LABEL
def close(label: str) -> ExitCode:
    """Seal a disk in use, though it is not full: nothing is written to it any more."""
    with house_of_command() as house:
        click.echo(closing.close_for_a_person(house, lifecycle.the_disk(house, label)))
    return ExitCode.DONE


@click.command()
@cli.common_options
@LABELS
def ship(labels: tuple[str, ...]) -> ExitCode:
    """Note that closed disks leave the station. All of them, or none."""
    with house_of_command() as house:
        click.echo(lifecycle.ship(house, [lifecycle.the_disk(house, label) for label in labels]))
    return ExitCode.DONE


@click.command()
@cli.common_options
@LABEL
@why_option(required=False)
@click.option("--undo", is_flag=True, help="It is not lost: it and its copies are as before.")
def lost(label: str, why: str | None, undo: bool) -> ExitCode:
    """Note that a disk is dead, gone or wiped: its copies are missing from now on."""
    if not (why or undo):
        raise click.UsageError("Missing option '--why'. Nothing was changed.")
    if why and undo:
        raise click.UsageError("--undo takes no --why. Nothing was changed.")
    with house_of_command() as house:
        if undo:
            click.echo(lifecycle.undo_loss(house, label))
        else:
            click.echo(lifecycle.lose(house, lifecycle.the_disk(house, label), str(why)))
    return ExitCode.DONE


@click.command()
@cli.common_options
@LABELS
def forget(labels: tuple[str, ...]) -> ExitCode:
    """Take drives that were never used out of the database. All of them, or none."""
    with house_of_command() as house:
        click.echo(lifecycle.forget(house, [lifecycle.the_disk(house, one) for one in labels]))
    return ExitCode.DONE


@click.command()
@cli.common_options
@LABEL
@WHY
def hold(label: str, why: str) -> ExitCode:
    """Take a disk out of use, until "unhold"; what is on it stays."""
    with house_of_command() as house:
        click.echo(lifecycle.hold(house, lifecycle.the_disk(house, label), why))
    return ExitCode.DONE


@click.command()
@cli.common_options
@LABEL
def unhold(label: str) -> ExitCode:
    """Give a held disk back."""
    with house_of_command() as house:
        click.echo(lifecycle.unhold(house, lifecycle.the_disk(house, label)))
    return ExitCode.DONE


@click.command("adopt-buffer")
@cli.common_options
@WHY
def adopt_buffer(why: str) -> ExitCode:
    """Note that the buffer was moved or replaced on purpose: it gets its marker again."""
    with house_of_command() as house:
        click.echo(adoption.adopt(house.config, house.conn, why))
        house.board.settle(["buffer-wrong"], "buffer")
    return ExitCode.DONE


COMMANDS = (close, ship, lost, forget, hold, unhold, adopt_buffer)
