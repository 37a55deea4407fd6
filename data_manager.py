#!/usr/bin/env python3
"""Archive the telescope's buffer to a primary and a copy disk; cron runs this every minute."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

import click

from poledata import __version__, archive, catalogue, cli, db, lifecycle, lock
from poledata.errors import ExitCode, UsageFault
from poledata.lifecycle import House
from poledata.notices import Board
from poledata.records import Job, size_text, utc
from poledata.settings import duration_s
from poledata.tally import Watcher

if TYPE_CHECKING:
    from poledata.care import Verdict

WHY = click.option("--why", required=True, help="The reason, for those who come after you.")
LABEL = click.argument("label", metavar="LABEL")
LABELS = click.argument("labels", metavar="LABEL…", nargs=-1, required=True)
JSON = click.option("--json", "as_json", is_flag=True, help="The same for programs.")


@click.group(invoke_without_command=True)
@cli.common_options
@click.option("--dry-run", is_flag=True, help="Say what a pass would do; change nothing.")
@click.version_option(__version__)
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
        return None
    return _dry_run() if dry_run else _one_pass()


# --- a pass -------------------------------------------------------------------------------


def _one_pass() -> ExitCode:
    cli.SETTINGS.speaks = False
    config = cli.SETTINGS.config()
    cli.must_be_cron_user(config)
    cli.start_logging(config)
    stop = cli.stop_on_signals()
    with lock.one_pass(config.db_path) as turns:
        if not turns.is_ours:
            _say("Another pass is at work; nothing to do here.")
            return ExitCode.DONE
        with db.connect(config.db_path) as conn, _watcher() as watcher:
            tally = archive.run_pass(config, conn, stop, watcher, turns.give_way)
    _say(tally.in_words())
    return tally.exit_code


def _dry_run() -> ExitCode:
    config = cli.SETTINGS.config()
    cli.log_to_screen()
    stop = cli.stop_on_signals()
    with db.connect(config.db_path, read_only=True) as conn:
        tally = archive.run_pass(config, conn, stop, _Would(), is_dry=True)
    click.echo("A dry run: nothing was changed.")
    return tally.exit_code


class _Would(Watcher):
    """Prints what a pass would do."""

    def would_copy(self, job: Job, labels: list[str]) -> None:
        size = size_text(job.waiting.stat.size_bytes)
        click.echo(f"would copy {job.name} ({size}) to {' and '.join(labels)}")


def _watcher() -> AbstractContextManager[Watcher]:
    if not _is_watched():
        return nullcontext(Watcher())
    try:
        from poledata import progress  # rich is slow to load: only for a person
    except ImportError:
        return nullcontext(Watcher())  # without rich there is just nothing to look at
    return progress.on_terminal()


def _say(text: str) -> None:
    if _is_watched():
        click.echo(text)


def _is_watched() -> bool:
    return cli.is_terminal(sys.stdout) and not cli.SETTINGS.quiet


# --- looking ------------------------------------------------------------------------------


@data_manager.command()
@cli.common_options
@JSON
def status(as_json: bool) -> ExitCode:
    """How the archive stands: buffer, disks, files that failed, open notices. Changes nothing."""
    from poledata import report

    config = cli.SETTINGS.config()
    with db.connect(config.db_path, read_only=True) as conn:
        found = report.collect(config, conn)
    click.echo(json.dumps(report.as_json(found), indent=2) if as_json else report.as_text(found))
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
@JSON
def check(as_json: bool) -> ExitCode:
    """Is everything as the archive needs it? Look before you trust it; changes nothing."""
    from poledata import checkup

    config = cli.SETTINGS.config()
    with db.connect(config.db_path, read_only=True) as conn:
        archive.must_fit_together(config, catalogue.disks(conn))
        findings = list(checkup.look(config, conn))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'FAULT'} {finding.what}")
        faults = sum(not finding.is_well for finding in findings)
        click.echo(f"{faults} faults: mend them first." if faults else "All is well.")
    return ExitCode.DONE if all(f.is_well for f in findings) else ExitCode.LOOK


@data_manager.command()
@cli.common_options
@LABELS
@JSON
def verify(labels: tuple[str, ...], as_json: bool) -> ExitCode:
    """Read every copy on these disks back from the medium, and note what is good.

    Interrupted, it goes on with the least recently verified files the next time.
    """
    from poledata import care

    stop = cli.stop_on_signals()
    with _house(turn=False) as house, _watcher() as watcher:
        disks = [lifecycle.the_disk(house, label) for label in labels]
        care.must_not_be_lost(disks)
        verdicts = [care.verify(house, disk, stop, watcher.moved) for disk in disks]
    if as_json:
        click.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            _print_verdict(verdict)
    if stop.is_set():
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if all(v.is_well for v in verdicts) else ExitCode.LOOK


def _print_verdict(verdict: Verdict) -> None:
    if verdict.fault:
        click.echo(f"{verdict.label}: COULD NOT BE READ TO THE END: {verdict.fault}")
    for what in ("damaged", "missing", "unregistered", "unlisted"):
        for name in getattr(verdict, what):
            click.echo(f"{verdict.label}: {what.upper()} {name}")
    good = f"{verdict.good} copies are good ({size_text(verdict.good_bytes)})"
    bad = f"{len(verdict.damaged)} damaged, {len(verdict.missing)} missing"
    click.echo(f"{verdict.label}: {good}, {bad}, {len(verdict.unregistered)} unregistered files")


# --- a disk's life ------------------------------------------------------------------------


@data_manager.command()
@cli.common_options
@LABEL
def close(label: str) -> ExitCode:
    """Seal a disk in use, though it is not full: nothing is written to it any more."""
    with _house() as house:
        click.echo(lifecycle.close(house, lifecycle.the_disk(house, label), "a person closed it"))
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
@LABELS
def ship(labels: tuple[str, ...]) -> ExitCode:
    """Note that closed disks leave the station. All of them, or none."""
    with _house() as house:
        click.echo(lifecycle.ship(house, [lifecycle.the_disk(house, label) for label in labels]))
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
@LABEL
@WHY
def lost(label: str, why: str) -> ExitCode:
    """Note that a disk is dead, gone or wiped: its copies are missing from now on."""
    with _house() as house:
        click.echo(lifecycle.lose(house, lifecycle.the_disk(house, label), why))
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
@LABEL
def forget(label: str) -> ExitCode:
    """Take a drive that was never used out of the database."""
    with _house() as house:
        click.echo(lifecycle.forget(house, lifecycle.the_disk(house, label)))
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
@LABEL
@WHY
def hold(label: str, why: str) -> ExitCode:
    """Take a disk out of use, until "unhold"; what is on it stays."""
    with _house() as house:
        click.echo(lifecycle.hold(house, lifecycle.the_disk(house, label), why))
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
@LABEL
def unhold(label: str) -> ExitCode:
    """Give a held disk back."""
    with _house() as house:
        click.echo(lifecycle.unhold(house, lifecycle.the_disk(house, label)))
    return ExitCode.DONE


# --- pause --------------------------------------------------------------------------------


@data_manager.command()
@cli.common_options
@WHY
@click.option("--for", "how_long", metavar="TIME", help='Resume by itself after this, e.g. "4h".')
def pause(why: str, how_long: str | None) -> ExitCode:
    """Passes do nothing until "resume": no disk is touched, files wait in the buffer."""
    until = utc(time.time() + _duration_s(how_long)) if how_long else None
    with _house() as house:
        with db.transaction(house.conn):
            catalogue.pause(house.conn, why, until, utc(time.time()))
        house.board.tell("paused", "archive", f"{why} (until {until or 'somebody resumes'}).")
    click.echo(f"Paused until {until or 'somebody resumes: data_manager.py resume'}.")
    click.echo("No disk is touched now: any may be unmounted. Files wait in the buffer.")
    return ExitCode.DONE


@data_manager.command()
@cli.common_options
def resume() -> ExitCode:
    """Passes go on."""
    with _house() as house:
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


@contextmanager
def _house(turn: bool = True) -> Iterator[House]:
    """The archive, for a command that changes its state: it waits for its turn."""
    config = cli.SETTINGS.config()
    cli.must_be_cron_user(config)
    cli.start_logging(config)
    waiting = lock.between_batches(config.db_path) if turn else nullcontext()
    with waiting, db.connect(config.db_path) as conn:
        archive.must_fit_together(config, catalogue.disks(conn))
        if not cli.SETTINGS.quiet:
            click.echo(f"Database {config.db_path}", err=True)
        yield House(config, conn, Board(conn))


def main() -> NoReturn:
    """The console script."""
    cli.enter(data_manager)


if __name__ == "__main__":
    main()
