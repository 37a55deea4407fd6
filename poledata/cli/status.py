"""``status`` and ``check``: the state of the archive, and whether it has what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import JSON, command, context_of_command, print_json, state_lines
from poledata.config import Config, page_faults
from poledata.context import must_fit_together
from poledata.errors import ExitCode, NotWritten, UsageFault
from poledata.formatting import DAY_S, utc
from poledata.models import GONE
from poledata.notices import delivery_queue
from poledata.smart import rules
from poledata.status import check as checks
from poledata.status import publish
from poledata.status.collect import collect
from poledata.status.facts import ArchiveVerdict, Status
from poledata.status.text import as_text, headline


@command()
@JSON
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it as a page for a browser, with charts.",
)
@click.option(
    "--send", is_flag=True, help="Send it through every channel except pagers, as the daily digest."
)
def status(as_json: bool, html: Path | None, send: bool) -> ExitCode:
    """Print the state of the archive: buffer, disks, failed files, notices. Changes nothing."""
    if sum((as_json, html is not None, send)) > 1:
        raise UsageFault("Only one of --json, --html and --send at a time. Nothing was written.")
    if send:
        _send_digest()
    elif html:
        _write_page(html)
    else:
        config = app.load_config()
        with _read_only(config) as conn:
            found = collect(config, conn)
        if as_json:
            print_json(found)
        else:
            click.echo(as_text(found))
    return ExitCode.DONE


@contextmanager
def _read_only(config: Config) -> Iterator[db.Connection]:
    """Yield a connection; a warning, such as an upgrade at the next pass, goes to the screen."""
    app.log_to_screen(db.__name__)
    with db.connect(config.db_path, read_only=True) as conn:
        yield conn


def _write_page(path: Path) -> None:
    config = app.load_config()
    for fault in page_faults(config, path):
        raise NotWritten(path, fault, "Nothing was changed.")
    with _read_only(config) as conn:
        publish.write_page(path, config, conn, collect(config, conn))
    app.echo(f"{path}: look at it with a browser.")


def _send_digest() -> None:
    """Send it; if that fails, a later pass does, unless the next digest comes first."""
    with context_of_command(turn=False) as context:
        config, conn = context.config, context.conn
        found = collect(config, conn)
        text = "\n".join((as_text(found), *_drive_news(conn, found.at_s)))
        delivery_queue.queue_digest(config, conn, headline(found), text, utc(found.at_s))
        delivery_queue.deliver(config, conn, state_lines)


def _drive_news(conn: db.Connection, now_s: float) -> list[str]:
    """Return what changed on the drives in a day, a line each."""
    since, from_before = utc(now_s - DAY_S), utc(now_s - 8 * DAY_S)
    lines = [
        rules.news(disk.label, db.smart.smart_history(conn, disk, from_before), since)
        for disk in db.disks.disks(conn)
        if disk.state not in GONE
    ]
    news = [f"  {line}" for line in lines if line]
    return ["", "Drives, changes of the last day:", *news] if news else []


@command()
@JSON
def check(as_json: bool) -> ExitCode:
    """Check rights, mounts, drives, clock and settings. Changes nothing."""
    config = app.load_config()
    with _read_only(config) as conn:
        must_fit_together(config, db.disks.disks(conn))
        findings = list(checks.check_everything(config, conn))
        now = collect(config, conn)
    faults = sum(not finding.is_well for finding in findings)
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'FAULT'} {finding.what}")
        click.echo(_check_result(faults, now))
    return ExitCode.LOOK if faults else ExitCode.DONE


def _check_result(faults: int, now: Status) -> str:
    """Return the last line: it never says that all is well while ``status`` does not."""
    is_well = now.verdict is ArchiveVerdict.ALL_WELL
    verdict = "" if is_well else f"\nThe status now: {headline(now)}"
    if faults > 1:
        return f"Fix these {faults} problems first.{verdict}"
    if faults:
        return f"Fix this problem first.{verdict}"
    return "All is well." if is_well else f"This found no problem.{verdict}"
