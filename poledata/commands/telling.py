"""``pause`` and ``resume``: what a person says to the passes."""

from __future__ import annotations

import time

import click

from poledata import catalogue, cli, db
from poledata.commands.common import WHY, house_of_command
from poledata.errors import ExitCode, UsageFault
from poledata.records import utc
from poledata.settings import duration_s


@click.command()
@cli.common_options
@WHY
@click.option("--for", "how_long", metavar="TIME", help='Resume by itself after this, e.g. "4h".')
def pause(why: str, how_long: str | None) -> ExitCode:
    """Passes do nothing until "resume": no disk is touched, files wait in the buffer."""
    until = utc(time.time() + _duration_s(how_long)) if how_long else None
    with house_of_command() as house:
        with db.transaction(house.conn):
            catalogue.pause(house.conn, why, until, utc(time.time()))
        house.board.tell("paused", "archive", f"{why} (until {until or 'somebody resumes'}).")
    click.echo(f"Paused until {until or 'somebody resumes: data_manager.py resume'}.")
    click.echo("No disk is touched now: any may be unmounted. Files wait in the buffer.")
    return ExitCode.DONE


@click.command()
@cli.common_options
def resume() -> ExitCode:
    """Passes go on."""
    with house_of_command() as house:
        with db.transaction(house.conn):
            was_paused = catalogue.resume(house.conn, utc(time.time()))
        house.board.settle(["paused"], "archive")
    click.echo("The next pass works again." if was_paused else "It was not paused.")
    return ExitCode.DONE


def _duration_s(text: str) -> float:
    try:
        return duration_s(text)
    except ValueError as fault:
        raise UsageFault(f"--for: {fault}. Nothing was changed.") from fault


COMMANDS = (pause, resume)
