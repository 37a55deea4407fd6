#!/usr/bin/env python3
"""Archive the telescope's buffer to a primary and a copy disk; cron runs this every minute."""

from __future__ import annotations

from importlib import import_module
from typing import NoReturn

import poledata.cli.python_check  # noqa: F401 - first, because it says what this Python lacks

# isort: split
import click

from poledata import __version__
from poledata.cli import app, run_pass
from poledata.errors import ExitCode, UsageFault

MODULES = {
    "status": ("status", "check"),
    "maintenance": ("verify", "repair", "locate", "restore", "check-content"),
    "notices": ("pause", "resume", "ack", "notify", "explain"),
    "disks": ("close", "ship", "lost", "forget", "hold", "unhold", "adopt-buffer"),
    "north": ("received", "season"),
}
MODULE_OF = {command: module for module, commands in MODULES.items() for command in commands}


class SubCommands(click.Group):
    """Loads the module of a sub-command only when it is called: a pass that cron starts needs none.

    ``MODULES`` says in which module of ``poledata.cli`` the function of its name is.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULE_OF)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in MODULE_OF:
            return None
        module = import_module(f"poledata.cli.{MODULE_OF[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with those that there are."""
        if args[0] not in MODULE_OF and not args[0].startswith("-"):
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(
                f"No such command '{args[0]}'. Nothing was changed. The commands are: {known}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(cls=SubCommands, invoke_without_command=True)
@app.common_options
@click.option("--dry-run", is_flag=True, help="Print what a pass would do; change nothing.")
@click.version_option(__version__, message="%(prog)s, version %(version)s")
@click.pass_context
def data_manager(ctx: click.Context, dry_run: bool) -> ExitCode | None:
    """Archive the buffer: copy every finished file to a primary and a copy disk, prove both
    copies by SHA-512, register them, and only then remove the file from the buffer.

    Without a sub-command this is one pass, as cron starts it. On a terminal it shows progress.
    Without a terminal it prints only errors (exit codes 2 and 3): everything else is in the log
    and in "status".

    Instead of a LABEL you can give the serial number of the drive.

    Exit codes: 0 done, nothing to do, or another pass is at work; 1 a person should look (see
    "status"); 2 wrong usage or configuration, nothing was touched; 3 a bug of this program;
    130 interrupted.
    """
    if ctx.invoked_subcommand is None:
        return run_pass.dry_run() if dry_run else run_pass.run_pass()
    if dry_run:
        name = ctx.invoked_subcommand
        raise UsageFault(
            f"--dry-run before {name} is an option of a pass. Nothing was changed. If {name} "
            f"has a --dry-run of its own (see {name} --help), write it after {name}."
        )
    return None


def main() -> NoReturn:
    """Run the console script."""
    app.enter(data_manager)


if __name__ == "__main__":
    main()
