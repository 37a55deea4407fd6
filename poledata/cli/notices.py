"""``pause``, ``resume``, ``ack``, ``notify``, ``explain``: whether passes work; notices."""

from __future__ import annotations

import shlex
import socket
import time

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import WHY, changes_archive, command, duration_option
from poledata.context import Context
from poledata.errors import ExitCode, Refused
from poledata.formatting import utc, utc_now
from poledata.models import Message
from poledata.notices import delivery_queue
from poledata.notices import explain as explaining
from poledata.notices.message import PREFIX
from poledata.notices.send import configured_channels, heartbeat


@command()
@WHY
@duration_option("Resume after this time, for example 4h.")
@changes_archive()
def pause(context: Context, why: str, how_long: float | None) -> str:
    """Stop passes until "resume": no disk is used, and files wait in the buffer."""
    until = None if how_long is None else utc(time.time() + how_long)
    before = db.passes.current_pause(context.conn, utc_now())
    with db.transaction(context.conn):
        db.passes.pause(context.conn, why, until, utc_now())
    was = f"It was paused before, {_until(before.until)}: {before.why}.\n" if before else ""
    return (
        f"{was}Paused {'now ' if was else ''}{_until(until)}.\n"
        "No disk is touched now: any may be unmounted. Files wait in the buffer."
    )


def _until(at: str | None) -> str:
    return f"until {at or 'somebody resumes: data_manager.py resume'}"


@command()
@changes_archive()
def resume(context: Context) -> str:
    """Let passes work again after "pause"."""
    with db.transaction(context.conn):
        was_paused = db.passes.resume(context.conn, utc_now())
    return "The next pass works again." if was_paused else "It was not paused."


@command()
@click.argument("kind", metavar="KIND")
@click.argument("key", metavar="KEY")
@duration_option("For how long (default: 7d).", default="7d")
@changes_archive(turn=False)
def ack(context: Context, kind: str, key: str, how_long: float) -> str:
    """Silence one open notice for a while, until it gets worse or is resolved.

    KIND and KEY are what "status" shows, for example: ack disk-missing P03. Of a drive that is not
    held, its numbers become the baseline: only what grows is reported again.
    """
    until = utc(time.time() + how_long)
    with db.transaction(context.conn):
        is_open = db.notices.acknowledge(context.conn, kind, key, until)
        has_baseline = is_open and _sets_baseline(context, kind, key)
    if not is_open:
        raise Refused(_no_such_notice(context, kind, key))
    if has_baseline:
        return f"{kind} {key} is reported again only if a number of the drive grows."
    return f"{kind} {key} is not sent again until {until}, unless it gets worse."


def _sets_baseline(context: Context, kind: str, key: str) -> bool:
    """Make the numbers of a drive its baseline; not of one that is held, which unhold does."""
    disks = [
        disk for disk in db.disks.disks(context.conn) if disk.label == key and not disk.held_by
    ]
    if kind not in ("smart-warning", "smart-failing") or not disks:
        return False
    db.smart.acknowledge(context.conn, disks[0])
    return True


def _no_such_notice(context: Context, kind: str, key: str) -> str:
    found = [f"  ack {n.kind} {shlex.quote(n.key)}" for n in db.notices.open_notices(context.conn)]
    known = "\n".join(("Open are:", *found[:20])) if found else "No notice is open."
    return f"There is no open notice {kind} {key}. Nothing was changed. {known}"


@command()
@click.argument("kind", metavar="KIND")
def explain(kind: str) -> ExitCode:
    """Print what a notice means, what is safe, and what to do.

    KIND is the kind of a notice as "status" shows it, for example: explain disk-missing. A
    heading of docs/operators.md works too, as its links name it: explain a-dead-drive.
    """
    click.echo(explaining.explain(kind))
    return ExitCode.DONE


@command()
@click.option("--test", "is_test", is_flag=True, required=True, help="Send a test message.")
def notify(is_test: bool) -> ExitCode:
    """Send a test message through every channel of .env, and print which worked."""
    config = app.load_config()
    app.must_be_archive_owner(config.db_path.parent)
    app.start_logging(config)
    for warning in config.warnings:
        click.echo(f"WARNING {warning}")
    channels = configured_channels(config.secrets)
    test = Message(
        f"{PREFIX} a test: nothing is wrong",
        f"Sent by hand on {socket.gethostname()}, {utc_now()}. Nothing has to be done.",
    )
    faults = delivery_queue.send_all(channels, [test] * len(channels))
    for channel, fault in zip(channels, faults, strict=True):
        if fault:
            click.echo(f"{channel.name}: FAILED: {fault}")
        else:
            app.echo(f"{channel.name}: sent")
    beats = heartbeat(config.secrets)
    for fault in beats:
        click.echo(f"heartbeat: FAILED: {fault}")
    if not channels:
        click.echo("No channel is set: nobody is notified of anything. See .env.example.")
    return ExitCode.DONE if channels and not any((*faults, *beats)) else ExitCode.LOOK
