"""What the sub-commands share: arguments, the archive to work on, progress for a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import click

from poledata import db
from poledata.archive.tally import Watcher
from poledata.cli import app
from poledata.config import Config
from poledata.context import Context, must_fit_together
from poledata.errors import UsageFault
from poledata.formatting import size_text
from poledata.models import Job
from poledata.notices.channels import configured_channels
from poledata.notices.store import Board
from poledata.settings import duration_s, lacks_unit
from poledata.system import locks

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
def context_of_command(turn: bool = True) -> Iterator[Context]:
    """The archive, for a command that changes its state: it waits for its turn."""
    config = app.load_config()
    app.must_be_cron_user(config)
    app.start_logging(config)
    waiting = locks.between_batches(config.db_path) if turn else nullcontext()
    with waiting, db.connect(config.db_path) as conn:
        must_fit_together(config, db.disks.disks(conn))
        if not app.options().quiet:
            click.echo(f"Database {config.db_path}", err=True)
        yield Context(config, conn, Board(conn, configured_channels(config.secrets)))


def is_watched() -> bool:
    """Whether a person sits before the screen."""
    return app.is_terminal(sys.stdout) and not app.options().quiet


def watcher() -> AbstractContextManager[Watcher]:
    """Draws progress for a person; does nothing without one."""
    if not is_watched():
        return nullcontext(Watcher())
    try:
        from poledata.cli import progress  # rich is slow to load: only for a person
    except ImportError:
        return nullcontext(Watcher())  # without rich there is just nothing to look at
    return progress.on_terminal()


def state_lines(config: Config, conn: db.Connection) -> list[str]:
    """How the archive stands, for the end of a message."""
    from poledata.status import facts, text  # loaded only when there is something to send

    return text.state_lines(facts.collect(config, conn))
