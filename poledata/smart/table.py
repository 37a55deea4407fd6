"""The table of drives that get_SMART_status.py prints: a record and a line for each (pure)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from poledata.models import Disk

if TYPE_CHECKING:
    from poledata.smart.check import Checked
    from poledata.smart.smartctl import FoundDrive

HEADING = f"{'label':6} {'serial':20} {'model':24} {'hours':>6} {'°C':>3} health"


@dataclass(frozen=True, slots=True)
class DriveRow:
    """A drive as the table and the JSON show it."""

    label: str | None = None  # None: it is not registered, and not judged
    role: str | None = None
    serial: str | None = None
    logical_id: str | None = None
    state: str | None = None
    devices: tuple[str, ...] = ()
    model: str | None = None
    power_on_hours: int | None = None
    temperature_c: int | None = None
    health: str | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    held_by: str | None = None
    held_reason: str | None = None


def unregistered_row(found: FoundDrive) -> DriveRow:
    """Return the row of a drive that belongs to no registered disk."""
    return DriveRow(
        serial=found.drive.serial,
        logical_id=found.drive.wwn,
        devices=found.devices,
        model=found.report.model,
        power_on_hours=found.report.power_on_hours,
        temperature_c=found.report.temperature_c,
    )


def checked_row(disk: Disk, one: Checked) -> DriveRow:
    """Return the row of a registered disk as it is after its check."""
    return replace(
        unregistered_row(one.found) if one.found else DriveRow(),
        label=disk.label,
        role=disk.role.value,
        serial=disk.serial,
        logical_id=disk.logical_id,
        state=disk.state.value,
        health=one.verdict.health.value,
        reasons=one.verdict.reasons,
        notes=one.verdict.notes,
        held_by=disk.held_by,
        held_reason=disk.held_reason,
    )


def line(row: DriveRow) -> str:
    """Return a row of the table as text."""
    hours = "" if row.power_on_hours is None else str(row.power_on_hours)
    celsius = "" if row.temperature_c is None else str(row.temperature_c)
    what = row.health or f"not registered ({', '.join(row.devices)})"
    why = "; ".join((*row.reasons, *row.notes))
    held = f"  HELD by {row.held_by}: {row.held_reason}" if row.held_by else ""
    return (
        f"{row.label or '-':6} {row.serial or '-':20} {row.model or '-':24} {hours:>6} "
        f"{celsius:>3} {what}{': ' if why else ''}{why}{held}"
    )
