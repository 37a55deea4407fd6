#!/usr/bin/env python3
"""Archive the telescope's buffer to a primary and a copy disk; cron runs this every minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import poledata.cli.interpreter  # noqa: F401 - first of all, for it says what this Python lacks

# isort: split
import click

from poledata import __version__, db
from poledata.archive import run
from poledata.cli import app, background
from poledata.cli.common import Would, is_watched, state_lines, watcher
from poledata.config import Config
from poledata.errors import (
    ConfigFault,
    DatabaseTrouble,
    DatabaseUnusable,
    ExitCode,
    PoleError,
    Stopped,
    UsageFault,
)
from poledata.models import Severity
from poledata.notices import delivery
from poledata.notices.channels import configured_channels, heartbeat
from poledata.notices.isolation import record
from poledata.notices.store import Board
from poledata.status import publish
from poledata.system import locks

STUCK_AFTER_S = 3 * 3600.0


class _Commands(click.Group):
    """The sub-commands are loaded when one is asked for: the pass that cron starts needs none."""

    def list_commands(self, context: click.Context) -> list[str]:
        self._load()
        return super().list_commands(context)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        self._load()
        return super().get_command(context, name)

    def _load(self) -> None:
        from poledata.cli import disks, maintenance, notices, status

        for room in (status, maintenance, notices, disks):
            for command in room.COMMANDS:
                self.add_command(command)


@click.group(cls=_Commands, invoke_without_command=True)
@app.common_options
@click.option("--dry-run", is_flag=True, help="Say what a pass would do; change nothing.")
@click.version_option(__version__, message="%(prog)s, version %(version)s")
@click.pass_context
def data_manager(context: click.Context, dry_run: bool) -> ExitCode | None:
    """Archive the buffer: copy every finished file to a primary and a copy disk, prove both
    copies by SHA-512, register them, and only then remove the file from the buffer.

    Without a sub-command this is one pass, as cron starts it. On a terminal it shows progress;
    otherwise it prints nothing but faults of usage and defects: the rest is in the log, and in
    "status".

    Where a LABEL is asked, the drive's serial serves too.

    Exit codes: 0 done, nothing to do, or another pass is at work; 1 a person should look (see
    "status"); 2 wrong usage or configuration, nothing was touched; 3 a defect of this program;
    130 interrupted.
    """
    if context.invoked_subcommand is not None:
        if dry_run:
            name = context.invoked_subcommand
            raise UsageFault(
                f"--dry-run before {name} is a pass's option. Nothing was changed. Where {name} "
                f"has one of its own (see {name} --help), it stands after it."
            )
        return None
    return _dry_run() if dry_run else _one_pass()


# --- a pass -------------------------------------------------------------------------------


def _one_pass() -> ExitCode:
    app.SETTINGS.speaks = False
    try:
        config = app.SETTINGS.config()
    except ConfigFault as fault:
        if not is_watched():  # nobody reads what it prints
            delivery.tell_of_config(app.SETTINGS.path, fault)
        raise
    app.must_be_cron_user(config)
    app.start_logging(config)
    try:
        code = _pass_and_tell(config)
    except (DatabaseTrouble, DatabaseUnusable) as trouble:
        delivery.tell_of_database(config, trouble)
        raise
    # Last; where passes end by faults the page turns old, which is true.
    faults = publish.rewrite(config)
    delivery.note_settings(config, [*config.warnings, *app.log_faults(), *faults], state_lines)
    return code


def _pass_and_tell(config: Config) -> ExitCode:
    """The pass under its lock; people are told after it, so that the next one need not wait."""
    stop = app.stop_on_signals()
    with _told_in_any_case(config), locks.one_pass(config.db_path) as turns:
        if not turns.is_ours:
            return _another_is_at_work(config, turns)
        with (
            db.connect(config.db_path) as conn,
            watcher() as watching,
            background.beside(config, turns.note_progress, watching) as watching,
        ):
            tally = run.run_pass(config, conn, stop, watching, turns.yield_turn)
    _say(tally.in_words())
    if not tally.interrupted:
        with db.connect_again(config.db_path) as conn:
            board = Board(conn, configured_channels(config.secrets))
            board.settle(["defect"], "the pass")
            with board.isolated("heartbeat"):
                heartbeat(config.secrets)
            with board.isolated("sending"):
                delivery.deliver(config, conn, state_lines)
    return tally.exit_code


@contextmanager
def _told_in_any_case(config: Config) -> Iterator[None]:
    """What is queued goes out also where every pass ends by a fault; else nobody would hear."""
    try:
        yield
    except (DatabaseTrouble, DatabaseUnusable):
        raise
    except Exception as fault:  # handed on, to the one place that deals with it
        is_bug = not isinstance(fault, PoleError)
        why = record("the pass", fault) if is_bug else ""
        try:
            with db.connect_again(config.db_path) as conn:
                board = Board(conn, configured_channels(config.secrets))
                if is_bug:
                    board.tell("defect", "the pass", f"It could not go on. {why}.")
                elif not isinstance(fault, Stopped):
                    text = f"The pass could not go on. {str(fault).rstrip('.')}."
                    board.tell("pass-crashed", "data_manager", text, Severity.CRITICAL)
                delivery.deliver(config, conn, state_lines)
        except PoleError as other:  # less than what ended the pass
            app.log.warning("notices can't be sent now: %s", other)
        raise


def _another_is_at_work(config: Config, turns: locks.PassLock) -> ExitCode:
    """Nothing to do, unless that pass has not got on for hours."""
    if abs(time.time() - turns.last_progress_at_s) < STUCK_AFTER_S:
        _say("Another pass is at work; nothing to do here.")
        return ExitCode.DONE
    with db.connect(config.db_path) as conn:
        run.tell_that_it_is_stuck(config, conn, turns.last_progress_at_s)
        delivery.deliver(config, conn, state_lines)
    _say("Another pass is at work and does not get on: see pass-stuck in docs/operators.md.")
    return ExitCode.LOOK


def _dry_run() -> ExitCode:
    config = app.SETTINGS.config()
    app.log_to_screen()
    stop = app.stop_on_signals()
    with db.connect(config.db_path, read_only=True) as conn:
        tally = run.run_pass(config, conn, stop, Would(), is_dry=True)
    click.echo("A dry run: nothing was changed.")
    return tally.exit_code


def _say(text: str) -> None:
    if is_watched():
        click.echo(text)


def main() -> NoReturn:
    """The console script."""
    app.enter(data_manager)


if __name__ == "__main__":
    main()
