#!/usr/bin/env python3
"""Make the database from a disk-map, once per disk set; existing rows are never changed."""

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
    help="The database to make, if there is no configuration yet.",
)
@click.option(
    "--disk-map",
    "map_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The disk set: one line per drive with label, serial number, logical ID.",
)
@click.option(
    "--from-disks",
    "is_from_disks",
    is_flag=True,
    help="Make a lost database again from all mounted disks, or complete an older one.",
)
@click.option("--verify", is_flag=True, help="With --from-disks: afterwards, read every copy.")
@click.option(
    "--returned",
    is_flag=True,
    help="Take back drives of this map that were lost, as empty spares.",
)
@click.option("--dry-run", is_flag=True, help="Check and print everything; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
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
    """Make the database from a disk-map, or add another disk set to it.

    Nothing in an existing database is changed. Lines that it already has are skipped. If any line
    contradicts it, all contradictions are listed and nothing is written. A table then shows which
    drives are ready, and the next command for each drive that is not.

    With --from-disks the database is made or completed from the disks themselves; nothing is
    written to them. If you also give a disk-map, its other drives are added as spares.
    """
    if db_path and app.options().config_path:
        raise UsageFault("Give either --db or --config, not both. Nothing was changed.")
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
    """Refuse options that make no sense with --from-disks. Raises UsageFault."""
    for option, is_given, why in (
        ("--db", bool(db_path), "the configuration says where the disks are"),
        ("--returned", returned, "take a lost drive back later, with --disk-map alone"),
        ("--verify with --dry-run", is_dry_verify, "a verification writes to the database"),
    ):
        if is_given:
            raise UsageFault(f"--from-disks does not take {option}: {why}. Nothing was changed.")


def main() -> NoReturn:
    """Run the console script."""
    app.enter(generate_db)


if __name__ == "__main__":
    main()
