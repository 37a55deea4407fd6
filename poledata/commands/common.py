"""What the sub-commands share: arguments, the archive to work on, progress for a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import click

from poledata import catalogue, cli, db, lock, sending
from poledata.errors import UsageFault
from poledata.house import House, must_fit_together
from poledata.notices import Board
from poledata.records import Job
from poledata.settings import duration_s, lacks_unit
from poledata.tally import Watcher
from poledata.texts import size_text

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _said(_context: click.Context, _option: click.Parameter, why: str | None) -> str | None:
    if why is not None and not why.strip():
        raise click.BadParameter("say why; nothing was changed")
    return why


def why_option(required: bool = True) -> Callable[[_Command], _Command]:
    """``--why TEXT``, never blank."""
    text = "The reason, for those who come after you."
    return click.option("--why", required=required, callback=_said, help=text)


WHY = why_option()
LABEL = click.argument("label", metavar="LABEL")
LABELS = click.argument("labels", metavar="LABEL…", nargs=-1, required=True)
JSON = click.option("--json", "as_json", is_flag=True, help="The same for programs.")


def duration_option(text: str, default: str | None = None) -> Callable[[_Command], _Command]:
    """``--for TIME``, as seconds."""

    def read(_context: click.Context, _option: click.Parameter, said: str | None) -> float | None:
        try:
            if said is not None and (said.strip().isdigit() or lacks_unit(said.strip())):
                raise ValueError(f"{said} of what? For example {said}h")
            return None if said is None else duration_s(said)
        except ValueError as fault:
            raise UsageFault(f"--for: {fault}. Nothing was changed.") from fault

    return click.option(
        "--for", "how_long", metavar="TIME", default=default, callback=read, help=text
    )


class Would(Watcher):
    """Prints what would be copied."""

    def would_copy(self, job: Job, labels: list[str]) -> None:
        size = size_text(job.waiting.stat.size_bytes)
        click.echo(f"would copy {job.name} ({size}) to {' and '.join(labels)}")


@contextmanager
def house_of_command(turn: bool = True) -> Iterator[House]:
    """The archive, for a command that changes its state: it waits for its turn."""
    config = cli.SETTINGS.config()
    cli.must_be_cron_user(config)
    cli.start_logging(config)
    waiting = lock.between_batches(config.db_path) if turn else nullcontext()
    with waiting, db.connect(config.db_path) as conn:
        must_fit_together(config, catalogue.disks(conn))
        if not cli.SETTINGS.quiet:
            click.echo(f"Database {config.db_path}", err=True)
        yield House(config, conn, Board(conn, sending.channels(config.secrets)))


def is_watched() -> bool:
    """Whether a person sits before the screen."""
    return cli.is_terminal(sys.stdout) and not cli.SETTINGS.quiet


def watcher() -> AbstractContextManager[Watcher]:
    """Draws progress for a person; does nothing without one."""
    if not is_watched():
        return nullcontext(Watcher())
    try:
        from poledata import progress  # rich is slow to load: only for a person
    except ImportError:
        return nullcontext(Watcher())  # without rich there is just nothing to look at
    return progress.on_terminal()
