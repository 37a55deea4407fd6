"""``verify``, ``repair``, ``locate``, ``restore``: read, repair, find and get back copies."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from poledata import db
from poledata.cli import app
from poledata.cli.common import (
    JSON,
    DryRunPrinter,
    command,
    context_of_command,
    duration_option,
    print_json,
    watcher,
)
from poledata.disks import lifecycle
from poledata.errors import ExitCode, UsageFault
from poledata.formatting import (
    DAY_S,
    counted,
    is_utf8,
    people_time,
    seconds,
    shown,
    size_text,
    unshown,
    utc,
)
from poledata.maintenance import content
from poledata.maintenance import locate as locating
from poledata.maintenance import repair as repairing
from poledata.maintenance import restore as restoring
from poledata.maintenance import verify as verifying
from poledata.models import ContentResult
from poledata.settings import duration_s, lacks_unit

log = logging.getLogger(__name__)


# --- verify -------------------------------------------------------------------------------


@command()
@click.argument("labels", metavar="[LABEL…]", nargs=-1)
@duration_option("End after this time, for example 1h; the next run continues from there.")
@JSON
def verify(labels: tuple[str, ...], how_long: float | None, as_json: bool) -> ExitCode:
    """Read copies from the disks and record which are good, damaged or missing.

    With LABELs: every copy on these disks. Without: all copies on mounted disks that were not
    verified within VerifyEvery. The oldest verifications come first. Disks are read in parallel,
    at low priority, while passes go on. Nothing is repaired.
    """
    stop = app.stop_on_signals()
    with context_of_command(turn=False) as context, watcher() as watching:
        disks = [lifecycle.the_disk(context, label) for label in labels]
        verifying.must_not_be_lost(disks)
        not_since = None if labels else utc(time.time() - context.config.verify_every_s)
        disks = disks or verifying.due(context.config, context.conn)
        _lower_priority()
        watching.reading({d.label: db.copies.due_bytes(context.conn, d, not_since) for d in disks})
        over = stop if how_long is None else _TimeLimit(stop, how_long)
        verdicts = verifying.verify_all(context.config, disks, not_since, over, watching.moved)
        copies = {disk.label: db.copies.count_on(context.conn, disk)[0] for disk in disks}
    if as_json:
        print_json(verdicts)
    else:
        _print_verdicts(verdicts, copies, None if labels else context.config.verify_every_s)
    if stop.is_set():
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if all(v.is_well for v in verdicts) else ExitCode.LOOK


def _print_verdicts(
    verdicts: Sequence[verifying.VerifyResult],
    copies: Mapping[str, int],
    verify_every_s: float | None,
) -> None:
    """Print what was found, the worst first; ``copies``: how many are on each disk."""
    for verdict in sorted(verdicts, key=lambda one: (not one.io_errors, one.fault is None)):
        if app.options().quiet and verdict.is_well:
            continue
        if verify_every_s and verdict.is_well and not (verdict.good or verdict.left):
            days = f"{verify_every_s / DAY_S:g}"
            number = copies[verdict.label]
            whole = "its 1 copy was" if number == 1 else f"all {number} copies were"
            click.echo(f"{verdict.label}: nothing to do: {whole} verified in the last {days} days")
        else:
            print_verdict(verdict)
    if not verdicts:
        app.echo("No disk with copies is mounted: nothing to verify.")


class _TimeLimit(threading.Event):
    """Set with another event, and when its time is up."""

    def __init__(self, stop: threading.Event, how_long_s: float) -> None:
        super().__init__()
        self._stop, self._ends_at_s = stop, time.monotonic() + how_long_s

    def is_set(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._ends_at_s


def _lower_priority() -> None:
    """Let a pass go first; this holds for all threads that are started from here on, too."""
    os.nice(10)
    ionice = ["ionice", "--class", "idle", "--pid", str(os.getpid())]
    try:
        subprocess.run(ionice, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as fault:
        log.info("the disks are read at normal priority: %s", fault)


def print_verdict(verdict: verifying.VerifyResult) -> None:
    """Print what a reading of one disk found, the worst first."""
    for error in verdict.io_errors:
        click.echo(f"{verdict.label}: I/O ERROR {error.name}: {error.why}")
    if verdict.fault:
        click.echo(f"{verdict.label}: COULD NOT BE READ TO THE END: {verdict.fault}")
    printed = {error.name for error in verdict.io_errors}
    for what in ("damaged", "missing", "unregistered", "unlisted", "nowhere"):
        for name in getattr(verdict, what):
            if name not in printed:
                click.echo(f"{verdict.label}: {what.upper()} {name}")
    for bad_line in verdict.bad_lines:
        click.echo(f"{verdict.label}: BAD LINE {bad_line}")
    good = f"{counted(verdict.good, 'copy is', 'copies are')} good"
    good += f" ({size_text(verdict.good_bytes)})"
    bad = f"{len(verdict.damaged)} damaged, {len(verdict.missing)} missing"
    left = f"; {counted(verdict.left, 'is', 'are')} still to be read" if verdict.left else ""
    odd = counted(len(verdict.unregistered), "unregistered file", "unregistered files")
    click.echo(f"{verdict.label}: {good}, {bad}, {odd}{left}")


# --- check-content ------------------------------------------------------------------------


@command("check-content")
@duration_option("End after this time, for example 1h; the next run goes on from there.")
def check_content(how_long: float | None) -> ExitCode:
    """Run CheckContent on archived files that it has not read yet, on their primary copies.

    Suspect files are read again after VerifyEvery.

    For cron at night, at low priority. A result never decides whether a file is kept or removed.
    """
    stop, suspect, unchecked, ok = app.stop_on_signals(), 0, 0, 0
    with context_of_command(turn=False) as context:
        if not context.config.check_content:
            raise UsageFault(f"{context.config.path}: CheckContent names no check.")
        _lower_priority()
        over = stop if how_long is None else _TimeLimit(stop, how_long)
        for one in content.check_content(context, over):
            ok += one.result == ContentResult.OK
            suspect += one.result == ContentResult.SUSPECT
            unchecked += one.result == ContentResult.NOT_CHECKED
            if one.detail:
                click.echo(f"{one.name}: {one.result.upper()}: {one.detail}")
    app.echo(f"Content: {ok} ok, {suspect} suspect, {unchecked} could not be checked.")
    if stop.is_set():
        return ExitCode.INTERRUPTED
    return ExitCode.LOOK if suspect or unchecked else ExitCode.DONE


# --- repair -------------------------------------------------------------------------------


@command()
@click.argument("label", metavar="[LABEL]", required=False)
@click.option("--dry-run", is_flag=True, help="Print what would be copied; change nothing.")
def repair(label: str | None, dry_run: bool) -> ExitCode:
    """Make damaged and missing copies again from good ones, on disks in use.

    With the LABEL of a held disk: copy everything on it to other disks, so that you can take it
    out. Nothing is deleted. On a disk in use, a bad copy is moved to .aside/ on that disk. A
    closed disk is not changed.
    """
    stop = app.stop_on_signals()
    with context_of_command(turn=False, is_dry=dry_run) as context, watcher() as watching:
        emptied = lifecycle.the_disk(context, label) if label else None
        seen = DryRunPrinter() if dry_run else watching
        outcome = repairing.repair(context, stop, seen, emptied, is_dry=dry_run)
    _print_left(outcome)
    if dry_run:
        click.echo("Dry run: nothing was changed.")
    else:
        _print_done(outcome, label)
    return ExitCode.DONE if outcome.is_whole else ExitCode.LOOK


def _print_left(outcome: repairing.RepairResult) -> None:
    for name in sorted(outcome.no_good_copy):
        click.echo(f"NO GOOD COPY of {name}: see no-good-copy in docs/operators.md")
    for name, why in outcome.failed.items():
        click.echo(f"NOT REPAIRED {name}: {why}")
    for where, count in outcome.not_here.items():
        click.echo(_where_a_copy_is(where, count))
    if outcome.without_disk:
        files = counted(outcome.without_disk, "file", "files")
        click.echo(f"No disk has room for {files}: mount a spare, then repair again")


def _where_a_copy_is(where: repairing.Elsewhere, files: int) -> str:
    what = f"{'The only good' if where.is_only else 'A good'} copy of "
    what += f"{counted(files, 'file', 'files')} is on {where.label}"
    if where.shipped_at:
        return f"{what}, shipped {where.shipped_at[:10]}: ask the people up north"
    return f"{what}, which is not mounted: mount it, then repair again"


def _print_done(outcome: repairing.RepairResult, label: str | None) -> None:
    to = f", to {' and '.join(sorted(outcome.to_labels))}" if outcome.to_labels else ""
    copied = counted(outcome.copied_files, "file", "files")
    click.echo(f"{copied} copied ({size_text(outcome.copied_bytes)}){to}.")
    for where, count in sorted(outcome.set_aside.items()):
        moved = counted(count, "bad copy was", "bad copies were")
        click.echo(
            f"{moved} moved to .aside/ on {where}, which can't be closed before somebody empties "
            "that: data_manager.py explain copy-damaged"
        )
    if label and outcome.is_whole:
        click.echo(f"Everything on {label} is on other disks too. Once it is gone for good:")
        click.echo(f'  data_manager.py lost {label} --why "…"')
    elif outcome.is_whole:
        click.echo("Every archived file that is no longer in the buffer has two good copies.")


# --- locate and restore -------------------------------------------------------------------


def _since(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Return a time as the database has it. Raises UsageFault."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return utc((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        pass
    try:
        if lacks_unit(text):
            raise ValueError
        return utc(time.time() - duration_s(text))
    except ValueError as fault:
        example = "2026-12-01, 2026-12-01T14:00:00Z or 24h"
        raise UsageFault(f"--since: {text} is not a time; write it like {example}.") from fault


@command()
@click.argument("patterns", metavar="[PATTERN…]", nargs=-1)
@click.option("--since", metavar="TIME", callback=_since, help="Only files archived since then.")
@JSON
def locate(patterns: tuple[str, ...], since: str | None, as_json: bool) -> ExitCode:
    """Print where files are. No disk is needed.

    A PATTERN is a glob for the whole name (quote it; * also matches /), or a part of a name. With
    --since no PATTERN is needed. TIME is UTC (2026-12-01, 2026-12-01T14:00:00Z), or how long ago
    (24h). The files are listed in the order in which they were archived.
    """
    if not patterns and since is None:
        raise UsageFault("Name a PATTERN, or a time: --since 24h.")
    config = app.load_config()
    with db.connect(config.db_path, read_only=True, is_long=True) as conn:
        answer = locating.locate(config, conn, map(_meant, patterns), since)
    if as_json:
        print_json(answer.files)
    else:
        for one in answer.files:
            _print_located(one)
    for pattern in answer.unmatched:
        click.echo(f"{shown(pattern)}: no archived file has such a name.", err=True)
    return ExitCode.LOOK if answer.unmatched else ExitCode.DONE


def _meant(text: str) -> str:
    """Return a name as it is on disk, or a glob. Raises UsageFault if no file can be called so."""
    try:
        name = unshown(text)
    except UnicodeDecodeError:
        return text  # a backslash that escapes nothing
    if not is_utf8(name):
        raise UsageFault(f"{text}: no archived name is like this: they are UTF-8.")
    return name


def _print_located(one: locating.Located) -> None:
    since = "not archived yet" if one.archived_at is None else f"archived {one.archived_at}"
    content = "" if one.content == ContentResult.NOT_CHECKED else f", content {one.content}"
    click.echo(f"{one.name}  {size_text(one.size_bytes)}, {since}{content}")
    for place in one.places:
        read = "never read back"
        if place.verified_at is not None:
            read = f"last read {people_time(seconds(place.verified_at), time.time())}"
        if place.confirmed:
            read = "confirmed by a receipt"
        state = "" if place.state == "good" else f"{place.state.upper()}, "
        click.echo(
            f"    {place.label} {place.role} {place.serial}: {state}{place.disk_state}, "
            f"{place.where}; {read}"
        )


@command()
@click.argument("patterns", metavar="PATTERN…", nargs=-1, required=True)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    help="An existing directory; the directories of the files are made in it.",
)
def restore(patterns: tuple[str, ...], to: Path) -> ExitCode:
    """Get archived files back from any mounted copy that proves good; nothing is overwritten.

    A PATTERN is the name of a file, a glob for whole names (quote it), or a part of a name.
    """
    config = app.load_config()
    stop = app.stop_on_signals()
    code = ExitCode.DONE
    with db.connect(config.db_path, read_only=True, is_long=True) as conn:
        for one in restoring.restore(config, conn, list(map(_meant, patterns)), to, stop):
            for doubt in one.doubts:
                click.echo(f"{one.name}: {doubt}", err=True)
            if one.fault:
                code = ExitCode.LOOK
            click.echo(f"{one.name}: {f'NOT RESTORED: {one.fault}' if one.fault else one.label}")
    return code
