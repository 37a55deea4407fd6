#!/usr/bin/env python3
"""Make the database from a disk-map, once per disk set; what is in it is never changed."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import poledata.cli.python_check  # noqa: F401 - first, because it says what this Python lacks

# isort: split
import click

from poledata import __version__
from poledata.cli import app, disk_set, rebuild
from poledata.errors import ExitCode, UsageFault


@click.command()
@app.common_options
@click.option(
    "--db",
    "db_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The database to make, instead of a configuration's FilenameDB.",
)
@click.option(
    "--disk-map",
    "map_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The disk set: a line a drive with label, serial, logical ID.",
)
@click.option(
    "--from-disks",
    "is_from_disks",
    is_flag=True,
    help="Make a lost database from the bags of all mounted disks, or complete an older one.",
)
@click.option("--verify", is_flag=True, help="With --from-disks: then read every copy.")
@click.option(
    "--returned",
    is_flag=True,
    help='Take drives that were noted as "lost" and are in this map back, as empty spares.',
)
@click.option("--dry-run", is_flag=True, help="Check and show everything; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the table for programs.")
@click.version_option(__version__)
def generate_db(
    db_path: Path | None,
    map_path: Path | None,
    is_from_disks: bool,
    verify: bool,
    returned: bool,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """Make the database from a disk-map, or add a further disk set to it.

    What the database holds is never lost or changed: a line it knows already is left as it is,
    and if any line contradicts it nothing at all is written. Afterwards a table shows which
    drives are ready, and for each other the command that makes it so.

    With --from-disks it is made from the disks themselves, or completed: nothing is written to
    them. The disk-map, if one is given, then adds its other drives as spares.
    """
    if db_path and app.options().config_path:
        raise UsageFault("--db and --config: give one of them. Nothing was changed.")
    if is_from_disks:
        _must_go_together(db_path, returned, verify and dry_run)
        return rebuild.from_disks(map_path, verify, dry_run, as_json)
    if map_path is None or verify:
        raise UsageFault(
            "--disk-map FILE is missing (or --from-disks, which alone takes --verify). "
            "Nothing was changed."
        )
    return disk_set.from_map(map_path, db_path, returned, dry_run, as_json)


def _must_go_together(db_path: Path | None, returned: bool, is_dry_verify: bool) -> None:
    """Refuse what makes no sense with --from-disks. Raises UsageFault."""
    for option, is_given, why in (
        ("--db", bool(db_path), "a configuration says where the disks are"),
        ("--returned", returned, "a lost drive is taken back by its disk-map alone, afterwards"),
        ("--verify with --dry-run", is_dry_verify, "a verification is written down"),
    ):
        if is_given:
            raise UsageFault(f"--from-disks does not take {option}: {why}. Nothing was changed.")


def main() -> NoReturn:
    """Run the console script."""
    app.enter(generate_db)


if __name__ == "__main__":
    main()
