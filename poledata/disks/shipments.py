"""Shipments: disks leave together, and a sheet for their crate says what is on them."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disks import closing, lifecycle
from poledata.disks.lifecycle import must_be, refused
from poledata.formatting import counted, label_key, shown, size_text, utc_now
from poledata.models import GONE, Disk, DiskState, Shipment


@dataclass(frozen=True, slots=True)
class SheetDisk:
    """What the sheet says about one disk."""

    disk: Disk
    files: int
    size_bytes: int
    first_name: str
    last_name: str
    list_name: str
    list_sha512: str | None


# --- leaving ------------------------------------------------------------------------------


def ship(context: Context, disks: Iterable[Disk], box: str | None, destination: str | None) -> str:
    """Closed disks leave the station: all of them, or none. Raises Refused."""
    disks, at = list(dict.fromkeys(disks)), utc_now()
    sheet = "-".join(filter(None, (at[:10], _slug(box))))
    sums = {disk.id: list_sha512(context, disk) for disk in disks}
    with db.transaction(context.conn):
        done = lifecycle.ship(context, disks)
        for disk in disks:
            one = Shipment(disk, at, sheet, box, destination, sums[disk.id])
            db.shipments.add_shipment(context.conn, one)
    return f"{done}\n{write_sheet(context, sheet)}"


def _slug(box: str | None) -> str | None:
    """``Box 3, north`` becomes ``box-3-north``: part of a file's name."""
    words = re.findall(r"[a-z0-9]+", (box or "").lower())
    return "-".join(["box", *(words[1:] if words[:1] == ["box"] else words)]) if words else None


def undo(context: Context, disk: Disk) -> str:
    """A disk did not leave: it is closed again, until a receipt has come. Raises Refused."""
    must_be(disk, "taken back", DiskState.SHIPPED)
    for other in db.disks.disks(context.conn):
        if other.label == disk.label and other.state not in GONE:
            raise refused(
                f"The label {disk.label} belongs to the drive {other.serial} "
                f"({other.state.value}) now",
                f"If that one was never used, first: data_manager.py forget {other.label}",
            )
    of_disk = [one for one in db.shipments.shipments(context.conn) if one.disk.id == disk.id]
    with db.transaction(context.conn):
        for one in of_disk:
            db.shipments.drop_shipment(context.conn, one)
        db.disks.set_state(
            context.conn, disk, DiskState.CLOSED, "it did not leave", utc_now(), "not shipped"
        )
        context.findings.pass_on("copy-damaged", disk.serial, disk.label)
    sheets = [write_sheet(context, one.sheet) for one in of_disk]
    return "\n".join(
        [f"{disk.label} ({disk.serial}) is closed again: it was not shipped.", *sheets]
    )


def list_sha512(context: Context, disk: Disk) -> str | None:
    """Return the SHA-512 of a disk's packing list; None if the list is lost. Raises Refused."""
    path = closing.packing_list_of(context, disk)
    try:
        return sha512_of(path) if path else None
    except OSError as fault:
        what_next = "Look at the disk of the database; then ship it."
        raise refused(f"{path} can't be read: {fault.strerror}", what_next) from fault


def sha512_of(path: Path) -> str:
    """Return the SHA-512 of a small file at the station. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()


# --- the sheet ----------------------------------------------------------------------------


def write_sheet(context: Context, sheet: str) -> str:
    """Write a shipment's sheet, as text and to print; remove it if no disk is on it any more."""
    directory = context.config.db_path.with_name("shipments")
    paths = (directory / f"{sheet}.txt", directory / f"{sheet}.html")
    ours = [one for one in db.shipments.shipments(context.conn) if one.sheet == sheet]
    ours.sort(key=lambda one: label_key(one.disk.label))
    texts = (as_text, as_html)
    try:
        directory.mkdir(exist_ok=True)
        for path, text in zip(paths, texts, strict=True):
            if ours:
                disks = [_on_sheet(context, one) for one in ours]
                closing.write_whole(path, [text(ours[-1], disks).encode()])
            else:
                path.unlink(missing_ok=True)
    except OSError as fault:
        return f"Its sheet can't be written to {directory}: {fault.strerror or fault}"
    return f"For the crate: {paths[1]} (to print), {paths[0].name}" if ours else ""


def _on_sheet(context: Context, one: Shipment) -> SheetDisk:
    path = closing.packing_list_of(context, one.disk)
    files, size_bytes, first, last = db.shipments.contents(context.conn, one.disk)
    name = path.name if path else "lost at the station"
    return SheetDisk(one.disk, files, size_bytes, shown(first), shown(last), name, one.list_sha512)


def _title(one: Shipment) -> str:
    box = f", box {one.box.removeprefix('box ')}" if one.box else ""
    to = f", to {one.destination}" if one.destination else ""
    return f"Shipment of {one.shipped_at[:10]}{box}{to}"


def _total(disks: Sequence[SheetDisk]) -> str:
    size = size_text(sum(one.size_bytes for one in disks))
    files = sum(one.files for one in disks)
    return f"{counted(len(disks), 'disk', 'disks')}, {counted(files, 'file', 'files')}, {size}"


def _how_to_check(disks: Sequence[SheetDisk]) -> tuple[str, ...]:
    one = disks[0]
    return (
        "How to check: docs/receiving.md. The packing lists and check-disk come by the satellite.",
        f"  sudo mkdir -p /mnt/{one.disk.label}; sudo mount -o ro /dev/sdX /mnt/{one.disk.label}",
        f'  ./check-disk --by "YOUR NAME" packing-lists/{one.list_name}',
        "It writes a receipt next to the packing list. Mail each receipt to the station.",
        "Do not erase a disk before the station has confirmed its receipt.",
    )


def as_text(last: Shipment, disks: Sequence[SheetDisk]) -> str:
    lines = [_title(last), _total(disks), ""]
    for one in disks:
        disk = one.disk
        lines += [
            f"{disk.label}  {disk.role.value}  serial {disk.serial}  logical ID {disk.logical_id}",
            f"    {counted(one.files, 'file', 'files')}, {size_text(one.size_bytes)}",
            f"    first: {one.first_name}",
            f"    last:  {one.last_name}",
            f"    packing list {one.list_name}, SHA-512:",
            f"    {one.list_sha512 or 'not known'}",
            "",
        ]
    return "\n".join((*lines, *_how_to_check(disks), ""))


_STYLE = (
    "@page{margin:10mm}body{font:9pt sans-serif;margin:0}h1{font-size:16pt;margin:0}p{margin:1mm 0}"
    "table{border-collapse:collapse;width:100%;margin:2mm 0}td{border:1px solid;padding:1mm}"
    "tr{break-inside:avoid}b{font-size:26pt}i{font-size:14pt;font-style:normal;white-space:nowrap}"
    "pre{font:6.5pt monospace;margin:0;word-break:break-all;white-space:pre-wrap}"
)


def as_html(last: Shipment, disks: Sequence[SheetDisk]) -> str:
    """Return one sheet of paper, with labels that can be read from across a room."""
    rows = []
    for one in disks:
        about = (
            f"first: {one.first_name}\nlast:  {one.last_name}\n{one.list_name}, SHA-512:\n"
            f"{one.list_sha512 or 'not known'}"
        )
        rows.append(
            f"<tr><td><b>{html.escape(one.disk.label)}</b><td><i>{html.escape(one.disk.serial)}</i>"
            f"<br>{one.disk.role.value}, {size_text(one.size_bytes)}"
            f"<br>{counted(one.files, 'file', 'files')}<td><pre>{html.escape(about)}</pre>"
        )
    title = html.escape(_title(last))
    how = html.escape("\n".join(_how_to_check(disks)))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{_total(disks)}"
        f"<table>{''.join(rows)}</table><pre>{how}</pre></html>\n"
    )
