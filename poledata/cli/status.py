"""``status`` and ``check``: how the archive stands, and whether all is as it needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import JSON, context_of_command, state_lines
from poledata.config import Config, page_faults
from poledata.context import must_fit_together
from poledata.errors import ExitCode, NotWritten, UsageFault
from poledata.formatting import utc
from poledata.notices import delivery
from poledata.status import check as checks
from poledata.status import facts, publish
from poledata.status.text import as_text, headline


@click.command()
@app.common_options
@JSON
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it as a page for a browser, with pictures.",
)
@click.option("--send", is_flag=True, help="Send it through every channel, as a daily digest.")
def status(as_json: bool, html: Path | None, send: bool) -> ExitCode:
    """How the archive stands: buffer, disks, files that failed, open notices. Changes nothing."""
    if sum((as_json, html is not None, send)) > 1:
        raise UsageFault("Only one of --json, --html and --send at a time. Nothing was written.")
    if send:
        return _send_digest()
    if html:
        return _write_page(html)
    config = app.SETTINGS.config()
    with _opened(config) as conn:
        found = facts.collect(config, conn)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else as_text(found))
    return ExitCode.DONE


@contextmanager
def _opened(config: Config) -> Iterator[db.Connection]:
    """To be read; that the next pass upgrades it is said beside the answer."""
    app.log_to_screen(db.__name__)
    with db.connect(config.db_path, read_only=True) as conn:
        yield conn


def _write_page(path: Path) -> ExitCode:
    config = app.SETTINGS.config()
    for fault in page_faults(config, path):
        raise NotWritten(path, fault, "Nothing was changed.")
    with _opened(config) as conn:
        publish.write_page(path, config, conn, facts.collect(config, conn))
    if not app.SETTINGS.quiet:
        click.echo(f"{path}: look at it with a browser.")
    return ExitCode.DONE


def _send_digest() -> ExitCode:
    """What can't be sent now is sent by a later pass, unless the next digest comes before."""
    with context_of_command(turn=False) as context:
        status = facts.collect(context.config, context.conn)
        delivery.queue_digest(
            context.config,
            context.conn,
            headline(status),
            as_text(status),
            utc(status.at_s),
        )
        delivery.deliver(context.config, context.conn, state_lines)
    return ExitCode.DONE


@click.command()
@app.common_options
@JSON
def check(as_json: bool) -> ExitCode:
    """Is everything as the archive needs it? Look before you trust it; changes nothing."""
    config = app.SETTINGS.config()
    with _opened(config) as conn:
        must_fit_together(config, db.disks.disks(conn))
        findings = list(checks.check_everything(config, conn))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'FAULT'} {finding.what}")
        faults = sum(not finding.is_well for finding in findings)
        click.echo(f"{faults} faults: mend them first." if faults else "All is well.")
    return ExitCode.DONE if all(f.is_well for f in findings) else ExitCode.LOOK


COMMANDS = (status, check)
