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
from poledata.disks import closing, lifecycle
from poledata.errors import ExitCode


@command()
@LABEL
@changes_archive()
def close(context: Context, label: str) -> str:
    """Close a disk in use that is not full: nothing more is written to it."""
    return closing.close_for_a_person(context, lifecycle.the_disk(context, label))


@command()
@LABELS
@changes_archive()
def ship(context: Context, labels: tuple[str, ...]) -> str:
    """Record that closed disks leave the station: all of them, or none.

    Refused if a file on them has no other copy, or if a disk is still mounted.
    """
    return lifecycle.ship(context, [lifecycle.the_disk(context, label) for label in labels])


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
@changes_archive()
def hold(context: Context, label: str, why: str) -> str:
    """Take a disk out of use until "unhold"; its files stay on it."""
    return lifecycle.hold(context, lifecycle.the_disk(context, label), why)


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
    done = buffer_marker.adopt(context.config, context.conn, why)
    context.board.settle(["buffer-wrong"], "buffer")
    return done
