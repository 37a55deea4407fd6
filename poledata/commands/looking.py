"""``status`` and ``check``: how the archive stands, and whether all is as it needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from poledata import catalogue, cli, db
from poledata.commands.common import JSON, house_of_command
from poledata.config import Config, page_faults
from poledata.errors import ExitCode, NotWritten, UsageFault
from poledata.house import must_fit_together


@click.command()
@cli.common_options
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
    from poledata import report, screen

    if sum((as_json, html is not None, send)) > 1:
        raise UsageFault("Only one of --json, --html and --send at a time. Nothing was written.")
    if send:
        return _send_digest()
    if html:
        return _write_page(html)
    config = cli.SETTINGS.config()
    with _opened(config) as conn:
        found = report.collect(config, conn)
    click.echo(json.dumps(report.as_json(found), indent=2) if as_json else screen.as_text(found))
    return ExitCode.DONE


@contextmanager
def _opened(config: Config) -> Iterator[db.Connection]:
    """To be read; that the next pass upgrades it is said beside the answer."""
    cli.log_to_screen(db.__name__)
    with db.connect(config.db_path, read_only=True) as conn:
        yield conn


def _write_page(path: Path) -> ExitCode:
    from poledata import publish, report

    config = cli.SETTINGS.config()
    for fault in page_faults(config, path):
        raise NotWritten(path, fault, "Nothing was changed.")
    with _opened(config) as conn:
        publish.write_page(path, config, conn, report.collect(config, conn))
    if not cli.SETTINGS.quiet:
        click.echo(f"{path}: look at it with a browser.")
    return ExitCode.DONE


def _send_digest() -> ExitCode:
    """What can't be sent now is sent by a later pass, unless the next digest comes before."""
    from poledata import delivery

    with house_of_command(turn=False) as house:
        delivery.digest(house.config, house.conn)
    return ExitCode.DONE


@click.command()
@cli.common_options
@JSON
def check(as_json: bool) -> ExitCode:
    """Is everything as the archive needs it? Look before you trust it; changes nothing."""
    from poledata import checkup

    config = cli.SETTINGS.config()
    with _opened(config) as conn:
        must_fit_together(config, catalogue.disks(conn))
        findings = list(checkup.look(config, conn))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'FAULT'} {finding.what}")
        faults = sum(not finding.is_well for finding in findings)
        click.echo(f"{faults} faults: mend them first." if faults else "All is well.")
    return ExitCode.DONE if all(f.is_well for f in findings) else ExitCode.LOOK


COMMANDS = (status, check)
