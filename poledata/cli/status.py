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
from poledata.formatting import utc
from poledata.notices import delivery_queue
from poledata.status import check as checks
from poledata.status import publish
from poledata.status.collect import collect
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
        delivery_queue.queue_digest(config, conn, headline(found), as_text(found), utc(found.at_s))
        delivery_queue.deliver(config, conn, state_lines)


@command()
@JSON
def check(as_json: bool) -> ExitCode:
    """Check rights, mounts, drives, clock and settings. Changes nothing."""
    config = app.load_config()
    with _read_only(config) as conn:
        must_fit_together(config, db.disks.disks(conn))
        findings = list(checks.check_everything(config, conn))
    faults = sum(not finding.is_well for finding in findings)
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'FAULT'} {finding.what}")
        click.echo(_summary(faults))
    return ExitCode.LOOK if faults else ExitCode.DONE


def _summary(faults: int) -> str:
    if faults > 1:
        return f"Fix these {faults} problems first."
    return "Fix this problem first." if faults else "All is well."
