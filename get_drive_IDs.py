#!/usr/bin/env python3
"""Print the serial number and logical ID of every drive, as a disk-map needs them; root only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import poledata.cli.python_check  # noqa: F401 - first: it reports what this Python lacks

# isort: split
import click

from poledata import disk_map, settings
from poledata.cli import app
from poledata.errors import ExitCode, UsageFault
from poledata.smart import ids
from poledata.smart.ids import Compared, Identity
from poledata.system import privileges
from poledata.system.privileges import RootSmartctl


@click.command()
@app.output_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--disk-map",
    "map_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Print this disk-map with the drives' own logical IDs, and report what differs.",
)
@click.argument("devices", metavar="[DEVICE…]", nargs=-1)
def get_drive_ids(as_json: bool, map_path: Path | None, devices: tuple[str, ...]) -> ExitCode:
    """Print "serial logical-ID", one line per drive: all drives of this machine, or those named.

    A device may have a type as for smartctl, in quotes: '/dev/sdq -d sat'.

    With --disk-map it prints a complete disk-map. Labels are matched by serial number, or by the
    beginning of one, as it is printed on SAS drives. Logical IDs are the drives' own; a line
    without one is completed. Drives that the map does not name follow as comments.

    Standard output has only these lines; problems are on standard error. This needs root.
    Exit codes: 0 done; 1 a drive could not be queried, or differs; 2 wrong usage.
    """
    smartctl = app.smartctl_as_root()
    privileges.become_caller(map_path)
    entries = disk_map.read(map_path, may_lack_ids=True) if map_path else ()
    try:
        named = [named for device in devices for named in settings.smart_devices(device)]
    except ValueError as fault:
        raise UsageFault(f"{fault}. Nothing was changed.") from fault
    if log_file := app.options().log_file:
        app.log_to(log_file)
    drives = _query_drives(smartctl, named)
    usable = [drive for drive in drives if not ids.unusable(drive)]
    unusable = [drive for drive in drives if ids.unusable(drive)]
    faults = [str(ids.unusable(drive)) for drive in unusable]
    compared = ids.compare(usable, entries) if map_path else Compared(tuple(usable), ())
    if as_json:
        everything = [asdict(drive) for drive in (*compared.identities, *unusable)]
        click.echo(json.dumps(everything, indent=2))
    else:
        _print_lines(compared.identities, bool(map_path))
    problems = (*faults, *ids.shared_ids(usable), *compared.differences)
    for what in problems:
        click.echo(what, err=True)
    return ExitCode.LOOK if problems else ExitCode.DONE


def _query_drives(
    smartctl: RootSmartctl, devices: Sequence[tuple[str, str | None]]
) -> list[Identity]:
    from poledata.smart.smartctl import query_drives  # pySMART is slow to load

    found = [
        Identity(
            None,
            f.drive.serial,
            f.drive.wwn,
            f.report.model,
            f.devices,
            f.drive.other_wwn,
            f.report.says if f.report.is_silent and f.drive.serial is None else None,
        )
        for f in query_drives(smartctl, devices)
    ]
    return sorted(found, key=lambda drive: (drive.serial or "", drive.devices))


def _print_lines(drives: Iterable[Identity], is_map: bool) -> None:
    for drive in drives:
        mark = "# LABEL " if is_map and drive.label is None else ""
        click.echo(mark + drive.line)


def main() -> NoReturn:
    """Run the console script."""
    app.enter(get_drive_ids)


if __name__ == "__main__":
    main()
