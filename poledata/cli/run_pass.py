"""One pass as cron starts it: under its lock, with a thread beside it, and people notified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from poledata import db
from poledata.archive import run
from poledata.archive.buffer import Seen
from poledata.cli import app, background
from poledata.cli.common import DryRunPrinter, dry_run_summary, is_watched, state_lines, watcher
from poledata.config import Config
from poledata.context import Context
from poledata.errors import (
    ConfigFault,
    DatabaseTrouble,
    DatabaseUnusable,
    ExitCode,
    PoleError,
    Stopped,
)
from poledata.models import Severity
from poledata.notices import delivery_queue
from poledata.notices.defects import record
from poledata.notices.send import heartbeat
from poledata.status import publish
from poledata.status.conditions import PASS_STUCK_AFTER_S
from poledata.status.evaluate import update_from_findings, update_notices
from poledata.system import locks


def run_pass() -> ExitCode:
    """Run one pass, rewrite the page, and notify people of what is wrong."""
    app.options().speaks = False
    try:
        config = app.load_config()
    except ConfigFault as fault:
        app.log_without_config()
        if not is_watched():  # nobody reads what it prints
            delivery_queue.tell_of_config(app.config_path(), fault)
        raise
    app.must_be_archive_owner(config.db_path.parent)
    app.start_logging(config)
    try:
        code = _archive_and_notify(config)
    except (DatabaseTrouble, DatabaseUnusable) as trouble:
        delivery_queue.tell_of_database(config, trouble)
        raise
    publish_all(config)
    return code


def publish_all(config: Config) -> None:
    """Rewrite the page last: while passes fail, it gets old, which is true."""
    try:
        with db.connect_again(config.db_path) as conn:
            faults = publish.rewrite(config, conn)
            faults += _view_faults(config)
            delivery_queue.note_settings(conn, [*config.warnings, *app.log_faults(), *faults])
            if conn.total_changes:  # a finding is new, or over
                _notify(config, conn)
    except PoleError as fault:  # archiving goes on without them
        app.log.warning("the status page and the notices are not up to date: %s", fault)


def _view_faults(config: Config) -> list[str]:
    if config.view is None:
        return []
    from poledata.disks import view  # a pass without links does not load it

    return view.faults(config.view)


def _archive_and_notify(config: Config) -> ExitCode:
    """Archive under the lock; send notices after it, so that the next pass need not wait."""
    stop = app.stop_on_signals()
    with _notified_of_a_fault(config), locks.one_pass(config.db_path) as turns:
        if not turns.is_ours:
            return _while_another_runs(config, turns)
        with (
            db.connect(config.db_path) as conn,
            watcher() as watching,
            background.beside(config, turns.note_progress, watching) as watching,
        ):
            tally = run.run_pass(config, conn, stop, watching, turns.yield_turn)
        if not tally.interrupted:
            turns.note_end()
    _echo_if_watched(tally.in_words())
    with db.connect_again(config.db_path) as conn:
        if not tally.interrupted:
            findings = Context.create(config, conn).findings
            findings.clear(["defect"], "the pass")
            with findings.isolated("heartbeat"):
                heartbeat(config.secrets)
        _notify(config, conn, not tally.interrupted, tally.idle_scan)
    return tally.exit_code


def _notify(
    config: Config, conn: db.Connection, is_over: bool = True, seen: Seen | None = None
) -> None:
    """Update the notices, and send what is due; a bug in either is one more condition."""
    findings = Context.create(config, conn).findings
    with findings.isolated("the conditions"):
        update_notices(config, conn, seen)
    if findings.was_noted("defect", "the conditions"):
        update_from_findings(config, conn)
    if is_over:
        with findings.isolated("sending"):
            delivery_queue.deliver(config, conn, state_lines)


@contextmanager
def _notified_of_a_fault(config: Config) -> Iterator[None]:
    """Open a notice of the fault that ends a pass, and send it: no later pass may get that far."""
    try:
        yield
    except (DatabaseTrouble, DatabaseUnusable):
        raise
    except Exception as fault:
        is_bug = not isinstance(fault, PoleError)
        why = record("the pass", fault) if is_bug else str(fault).rstrip(".")
        try:
            with db.connect_again(config.db_path) as conn:
                findings = Context.create(config, conn).findings
                if is_bug:
                    findings.note("defect", "the pass", f"It could not go on. {why}.")
                elif not isinstance(fault, Stopped):
                    text = f"The pass could not go on. {why}."
                    findings.note("pass-crashed", "data_manager", text, Severity.CRITICAL)
                _notify(config, conn)
        except PoleError as other:  # less important than what ended the pass
            app.log.warning("notices can't be sent now: %s", other)
        raise


def _while_another_runs(config: Config, turns: locks.PassLock) -> ExitCode:
    """Do nothing, except if the other pass has made no progress for hours, or is none."""
    stranger = turns.stranger()
    if stranger is None and abs(time.time() - turns.last_progress_at_s) < PASS_STUCK_AFTER_S:
        _echo_if_watched("Another pass is at work; nothing to do here.")
        return ExitCode.DONE
    with db.connect(config.db_path) as conn:
        _notify(config, conn)
    _echo_if_watched(
        "Another pass, or another program, holds the lock: see pass-stuck in docs/operators.md."
    )
    return ExitCode.LOOK


def dry_run() -> ExitCode:
    """Print what a pass would do."""
    config = app.load_config()
    app.log_to_screen()
    stop = app.stop_on_signals()
    with db.connect(config.db_path, read_only=True, is_long=True) as conn:
        printer = DryRunPrinter()
        tally = run.run_pass(config, conn, stop, printer, is_dry=True)
    click.echo(dry_run_summary(printer.files, tally, max(1.0, config.settle_s)))
    return tally.exit_code


def _echo_if_watched(text: str) -> None:
    if is_watched():
        click.echo(text)
