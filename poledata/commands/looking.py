"""``status``, ``check``, ``verify``: how the archive stands, and whether it is well."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from poledata import archive, catalogue, cli, db, lifecycle
from poledata.commands.common import JSON, LABELS, house_of_command, watcher
from poledata.errors import ExitCode
from poledata.records import size_text

if TYPE_CHECKING:
    from poledata.care import Verdict


@click.command()
@cli.common_options
@JSON
@click.option("--send", is_flag=True, help="Send it through every channel, as a daily digest.")
def status(as_json: bool, send: bool) -> ExitCode:
    """How the archive stands: buffer, disks, files that failed, open notices. Changes nothing."""
    from poledata import report, screen

    if send:
        return _send_digest()
    config = cli.SETTINGS.config()
    with db.connect(config.db_path, read_only=True) as conn:
        found = report.collect(config, conn)
    click.echo(json.dumps(report.as_json(found), indent=2) if as_json else screen.as_text(found))
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


@click.command()
@cli.common_options
@LABELS
@JSON
def verify(labels: tuple[str, ...], as_json: bool) -> ExitCode:
    """Read every copy on these disks back from the medium, and note what is good.

    Interrupted, it goes on with the least recently verified files the next time.
    """
    from poledata import care

    stop = cli.stop_on_signals()
    with house_of_command(turn=False) as house, watcher() as watching:
        disks = [lifecycle.the_disk(house, label) for label in labels]
        care.must_not_be_lost(disks)
        verdicts = [care.verify(house, disk, stop, watching.moved) for disk in disks]
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


COMMANDS = (status, check, verify)
