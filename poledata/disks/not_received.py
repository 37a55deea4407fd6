"""Disks that were shipped, and of which no receipt has come within ``ReceiptExpected``."""

from __future__ import annotations

from collections.abc import Iterable

from poledata.formatting import seconds
from poledata.models import DiskState, Shipment


def overdue(shipments: Iterable[Shipment], expected_s: float, now_s: float) -> list[Shipment]:
    """Return the shipments without a receipt after this time; 0: none is ever expected (pure)."""
    return [
        one
        for one in shipments
        if expected_s
        and one.disk.state is DiskState.SHIPPED
        and now_s - seconds(one.shipped_at) >= expected_s
    ]


def overdue_text(shipment: Shipment) -> str:
    """Return what is known about it; not its age, which would change with each pass."""
    disk, where = shipment.disk, f" in box {shipment.box}" if shipment.box else ""
    return (
        f"{disk.label} ({disk.serial}) was shipped{where} on {shipment.shipped_at[:10]}, "
        "and no receipt has come. Ask the people up north. When it comes: data_manager.py received "
        "and its file."
    )
