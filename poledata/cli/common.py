"""What the sub-commands share: arguments, the archive to work on, progress and tables on screen."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, TypeVar

import click

from poledata import db
from poledata.archive.pass_state import Tally, Watcher
from poledata.cli import app
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.errors import ExitCode, UsageFault
from poledata.formatting import counted, size_text
from poledata.models import Job
from poledata.notices import delivery_queue
from poledata.settings import duration_s, lacks_unit
from poledata.status.evaluate import update_notices

_Command = TypeVar("_Command", bound=Callable[..., Any])


# --- arguments ----------------------------------------------------------------------------


def command(name: str | None = None) -> Callable[[Callable[..., ExitCode]], click.Command]:
    """Make a sub-command of a function: it has its name, and takes the common options."""
    return lambda function: click.command(name)(app.common_options(function))


def _not_blank(_ctx: click.Context, _option: click.Parameter, why: str | None) -> str | None:
    if why is not None and not why.strip():
        raise click.BadParameter("say why; nothing was changed")
    return why


def why_option(required: bool = True) -> Callable[[_Command], _Command]:
    """``--why TEXT``, never blank."""
    text = "The reason, for those who come after you."
    return click.option("--why", required=required, callback=_not_blank, help=text)


WHY = why_option()
LABEL = click.argument("label", metavar="LABEL")
LABELS = click.argument("labels", metavar="LABEL…", nargs=-1, required=True)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def duration_option(text: str, default: str | None = None) -> Callable[[_Command], _Command]:
    """``--for TIME``, as seconds."""

    def read(_ctx: click.Context, _option: click.Parameter, given: str | None) -> float | None:
        try:
            if given is not None and (given.strip().isdigit() or lacks_unit(given.strip())):
                raise ValueError(f"{given} of what? For example {given}h")
            return None if given is None else duration_s(given)
        except ValueError as fault:
            raise UsageFault(f"--for: {fault}. Nothing was changed.") from fault

    return click.option(
        "--for", "how_long", metavar="TIME", default=default, callback=read, help=text
    )


# --- the archive --------------------------------------------------------------------------


@contextmanager
def context_of_command(turn: bool = True, is_dry: bool = False) -> Iterator[Context]:
    """Yield the archive to a command that changes its state; with ``turn`` it waits for its turn.

    Only the user who runs the archive may do so; a dry run changes nothing. Raises UsageFault.
    """
    config = app.load_config()
    app.must_be_archive_owner(config.db_path.parent)
    app.start_logging(config)
    waiting = app.person_s_turn(config.db_path) if turn else nullcontext()
    with waiting, db.connect(config.db_path) as conn:
        must_fit_together(config, db.disks.disks(conn))
        app.echo_error(f"Database {config.db_path}")
        yield Context.create(config, conn, is_dry)
        if not is_dry:
            end_command(config, conn)


def end_command(config: Config, conn: db.Connection) -> None:
    """Update the notices; if no pass runs, say and send that, for no pass will."""
    status = update_notices(config, conn)
    for notice in status.notices:
        if notice.kind == "no-pass":
            app.echo_error(f"WARNING {notice.text}")
            delivery_queue.deliver(config, conn, state_lines)


def changes_archive(
    turn: bool = True,
) -> Callable[[Callable[..., str]], Callable[..., ExitCode]]:
    """Make the function of a sub-command of one that changes the archive, and returns a text."""

    def decorate(change: Callable[..., str]) -> Callable[..., ExitCode]:
        @functools.wraps(change)
        def run(**arguments: Any) -> ExitCode:
            with context_of_command(turn) as context:
                click.echo(change(context, **arguments))
            return ExitCode.DONE

        return run

    return decorate


def state_lines(config: Config, conn: db.Connection) -> list[str]:
    """Return the state of the archive, for the end of a message."""
    from poledata.status import text  # loaded only when there is something to send
    from poledata.status.collect import collect

    return text.state_lines(collect(config, conn))


# --- the screen ---------------------------------------------------------------------------


class DryRunPrinter(Watcher):
    """Prints what would be copied, and to which disks."""

    files = 0

    def would_copy(self, job: Job, labels: list[str]) -> None:
        self.files += 1
        size = size_text(job.waiting.stat.size_bytes)
        click.echo(f"would copy {job.name} ({size}) to {' and '.join(labels)}")


def dry_run_summary(would_copy: int, tally: Tally, settle_s: float) -> str:
    """Return the last line of a pass's dry run: if it would copy nothing, why."""
    if would_copy:
        return "Dry run: nothing was changed."
    young_files = tally.idle_scan.unsettled_files if tally.idle_scan else 0
    young = counted(young_files, "file is", "files are")
    busy = counted(tally.busy_files, "file is", "files are")
    failed = counted(tally.pending_files, "file", "files")
    whys = [
        tally.paused_why and f"paused: {tally.paused_why}",
        young_files and f"{young} younger than {settle_s:g} s",
        tally.busy_files and f"{busy} still being written",
        tally.pending_files and f"{failed} failed",
        tally.without_disk_files and "there is no disk for the files that wait",
        tally.buffer_fault,
    ]
    why = "; ".join(str(why) for why in whys if why) or "no file waits in the buffer"
    return f"Dry run: nothing would be copied: {why}"


def is_watched() -> bool:
    """True if a person sits before the screen."""
    return app.is_terminal(sys.stdout) and not app.options().quiet


def watcher() -> AbstractContextManager[Watcher]:
    """Return what draws progress for a person, and does nothing without one."""
    if is_watched():
        try:
            from poledata.cli import progress  # rich is slow to load

            return progress.on_terminal()
        except ImportError:
            pass  # without rich there is no progress to look at
    return nullcontext(Watcher())


def print_json(records: object) -> None:
    """Print lists and dictionaries of texts, numbers and dataclasses, for programs."""
    click.echo(json.dumps(records, indent=2, default=asdict))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print left-aligned columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
