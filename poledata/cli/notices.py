"""``pause``, ``resume``, ``ack``, ``notify``: what a person says to the archive, and it to them."""

from __future__ import annotations

import shlex
import socket
import time

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import WHY, context_of_command, duration_option
from poledata.context import Context
from poledata.errors import ExitCode, Refused
from poledata.formatting import utc
from poledata.models import Message
from poledata.notices.channels import configured_channels, heartbeat
from poledata.notices.message import PREFIX


@click.command()
@app.common_options
@WHY
@duration_option("Resume by itself after this, for example 4h.")
def pause(why: str, how_long: float | None) -> ExitCode:
    """Passes do nothing until "resume": no disk is touched, files wait in the buffer."""
    until = None if how_long is None else utc(time.time() + how_long)
    with context_of_command() as context:
        with db.transaction(context.conn):
            db.passes.pause(context.conn, why, until, utc(time.time()))
        context.board.tell("paused", "archive", f"{why} (until {until or 'somebody resumes'}).")
    click.echo(f"Paused until {until or 'somebody resumes: data_manager.py resume'}.")
    click.echo("No disk is touched now: any may be unmounted. Files wait in the buffer.")
    return ExitCode.DONE


@click.command()
@app.common_options
def resume() -> ExitCode:
    """Passes go on."""
    with context_of_command() as context:
        with db.transaction(context.conn):
            was_paused = db.passes.resume(context.conn, utc(time.time()))
        context.board.settle(["paused"], "archive")
    click.echo("The next pass works again." if was_paused else "It was not paused.")
    return ExitCode.DONE


# --- notices ------------------------------------------------------------------------------


@click.command()
@app.common_options
@click.argument("kind", metavar="KIND")
@click.argument("key", metavar="KEY")
@duration_option("For how long; 7d if it is not given.", default="7d")
def ack(kind: str, key: str, how_long: float) -> ExitCode:
    """Silence one open notice for a while, until it gets worse or is over.

    KIND and KEY are what "status" shows, for example: ack disk-missing P03
    """
    until = utc(time.time() + how_long)
    with context_of_command(turn=False) as context:
        with db.transaction(context.conn):
            is_open = db.notices.acknowledge(context.conn, kind, key, until)
        if not is_open:
            raise Refused(_no_such_notice(context, kind, key))
    click.echo(f"{kind} {key} is not told again until {until}, unless it gets worse.")
    return ExitCode.DONE


def _no_such_notice(context: Context, kind: str, key: str) -> str:
    found = [f"  ack {n.kind} {shlex.quote(n.key)}" for n in db.notices.open_notices(context.conn)]
    known = "\n".join(("Open are:", *found[:20])) if found else "No notice is open."
    return f"There is no open notice {kind} {key}. Nothing was changed. {known}"


@click.command()
@app.common_options
@click.option("--test", "is_test", is_flag=True, required=True, help="Send a test message.")
def notify(is_test: bool) -> ExitCode:
    """Send a test through every channel of .env, and say which worked."""
    from poledata.notices import delivery

    config = app.SETTINGS.config()
    app.must_be_cron_user(config)  # what root logs, that user could not go on with
    app.start_logging(config)
    for warning in config.warnings:
        click.echo(f"WARNING {warning}")
    channels = configured_channels(config.secrets)
    faults = dict(
        zip(channels, delivery.send_all(channels, [_test()] * len(channels)), strict=True)
    )
    for channel, fault in faults.items():
        click.echo(f"{channel.name}: {f'FAILED: {fault}' if fault else 'sent'}")
    beats = heartbeat(config.secrets)
    for fault in beats:
        click.echo(f"heartbeat: FAILED: {fault}")
    if not channels:
        click.echo("No channel is set: nobody is told of anything. See .env.example.")
    return ExitCode.DONE if channels and not any((*faults.values(), *beats)) else ExitCode.LOOK


def _test() -> Message:
    return Message(
        f"{PREFIX} a test: nothing is wrong",
        f"Sent by hand on {socket.gethostname()}, {utc(time.time())}. Nothing has to be done.",
    )


COMMANDS = (pause, resume, ack, notify)
