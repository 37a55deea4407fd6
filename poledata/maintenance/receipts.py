"""Import receipts: what ``examples/check-disk`` found up north on disks that were shipped."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context
from poledata.disks import bag, closing, lifecycle, manifest, shipments
from poledata.errors import ManifestDamaged, Refused
from poledata.formatting import DAY_S, counted, seconds, shown, utc_now
from poledata.models import AWAY, CopyOnDisk, CopyState, Disk, DiskState, ReceiptRow

LONGEST_BYTES = 256 << 20  # every file of a disk may be bad
STATES = {
    "bad": CopyState.DAMAGED,
    "unreadable": CopyState.DAMAGED,
    "missing": CopyState.MISSING,
}
_WORDS = (*STATES, "extra")
_ON_DISK = f"{bag.DATA}/"


@dataclass(frozen=True, slots=True)
class ReceiptFinding:
    """One line of a receipt: what is wrong with a path on the disk."""

    word: str  # bad, unreadable, missing, extra
    path: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as it was written, without contradictions in itself."""

    label: str
    serial: str
    list_sha512: str
    checked_at: str
    checked_by: str
    files: int
    findings: tuple[ReceiptFinding, ...]
    sha512: str  # of its text

    def count(self, word: str) -> int:
        return sum(one.word == word for one in self.findings)

    @property
    def is_intact(self) -> bool:
        return all(one.word == "extra" for one in self.findings)


# --- reading ------------------------------------------------------------------------------


def read(path: Path) -> Receipt:
    """Return the receipt in a file. Raises Refused."""
    try:
        return parse(_bytes_in(path))
    except (OSError, ValueError) as fault:
        why = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
        raise lifecycle.refused(f"{shown(str(path))} is not a usable receipt: {why}") from fault


def _bytes_in(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it never waits for a FIFO
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(LONGEST_BYTES + 1)
    if len(data) > LONGEST_BYTES:
        raise ValueError(f"it is larger than {LONGEST_BYTES >> 20} MiB")
    return data


def parse(data: bytes) -> Receipt:
    """Return a receipt (pure); a mail program may have changed its line ends. Raises ValueError."""
    text = (
        data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").decode(errors="backslashreplace")
    )
    head, _, body = text.strip("\n").partition("\n\n")
    values = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", head, re.MULTILINE))
    if values.get("Receipt") != "1":
        raise ValueError("its first line is not 'Receipt: 1'")
    findings = tuple(_finding(line) for line in filter(None, body.split("\n")))
    found = Counter(one.word for one in findings)
    try:
        announced = {word: int(values[word.capitalize()]) for word in _WORDS}
        receipt = Receipt(
            values["Label"],
            values["Serial"],
            values["List-SHA-512"],
            values["Checked"],
            values["By"],
            int(values["Files"]),
            findings,
            hashlib.sha512(text.strip("\n").encode()).hexdigest(),
        )
        verdict = values["Verdict"]
    except KeyError as missing:
        raise ValueError(f"it has no line '{missing.args[0]}: '") from missing
    for word, count in announced.items():
        if found[word] != count:
            raise ValueError(f"it announces {count} {word}, and lists {found[word]}: was it cut?")
    if verdict != ("intact" if receipt.is_intact else "not intact"):
        raise ValueError(f"its verdict is '{shown(verdict)}', which its lines contradict")
    if seconds(receipt.checked_at) > time.time() + DAY_S:
        raise ValueError(f"it is of {receipt.checked_at}, in the future: set the clocks")
    return receipt


def _finding(line: str) -> ReceiptFinding:
    word, _, path = line.partition(" ")
    if word not in _WORDS or not path:
        raise ValueError(f"its line '{shown(line)}' is not understood")
    return ReceiptFinding(word, path)


# --- importing ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What a receipt reports about a disk, in words, and whether all is well."""

    text: str
    is_intact: bool


def import_receipt(context: Context, receipt: Receipt) -> Imported:
    """Note what was found up north on a disk that was shipped. Raises Refused."""
    disk = _shipped_disk(context, receipt)
    listed = _listed(context, disk, receipt)
    if known := _known_already(context, disk, receipt):
        return Imported(f"{_named(disk)}: {known}", receipt.is_intact)
    copies = {copy.name: copy for copy in db.copies.copies_on(context.conn, disk)}
    bad = _bad_copies(receipt, copies)
    changes = _changes(copies.values(), bad, listed)
    at = utc_now()
    with db.transaction(context.conn):
        if disk.state is not DiskState.RECEIVED:
            why = f"checked {receipt.checked_at} by {shown(receipt.checked_by)}"
            db.disks.set_state(context.conn, disk, DiskState.RECEIVED, why, at)
        db.shipments.add_receipt(context.conn, _row(disk, receipt, at))
        for copy, state in changes:
            db.copies.set_copy_state(context.conn, copy.file_id, disk, state)
        _tell(context, disk, receipt, len(bad))
    return Imported(_text(disk, receipt), receipt.is_intact)


def _shipped_disk(context: Context, receipt: Receipt) -> Disk:
    """Return the disk that a receipt is about. Raises Refused."""
    named = f"{shown(receipt.label)} ({shown(receipt.serial)})"
    ours = [disk for disk in db.disks.disks(context.conn) if disk.serial == receipt.serial]
    if not ours or ours[0].label != receipt.label:
        is_now = f"; that drive is {ours[0].label}" if ours else ""
        raise _refused(f"{named} is not a disk of this archive{is_now}")
    disk = ours[0]
    if disk.state is DiskState.LOST:
        raise _refused(
            f"{named} is noted as lost", f"First: data_manager.py lost --undo {disk.serial}"
        )
    if disk.state not in AWAY:
        raise _refused(
            f"{named} is {disk.state.value}, not shipped",
            f"If it has left, first: data_manager.py ship {disk.label}",
        )
    return disk


def _refused(why: str, what_next: str = "") -> Refused:
    return lifecycle.refused(why, what_next)


def _listed(context: Context, disk: Disk, receipt: Receipt) -> frozenset[str]:
    """Return the names on the packing list that the disk was compared with. Raises Refused."""
    path = closing.packing_list_of(context, disk)
    try:
        ours = shipments.sha512_of(path) if path else None
        sent = next(
            (s.list_sha512 for s in db.shipments.shipments(context.conn) if s.disk.id == disk.id),
            None,
        )
        if receipt.list_sha512 not in (ours, sent):
            raise _refused(
                f"{_named(disk)} was checked with a packing list that was not sent from here "
                f"(SHA-512 {shown(receipt.list_sha512[:16])}…)",
                f"Send them {path}, and ask them to check it again." if path else "",
            )
        if path is None or receipt.list_sha512 != ours:
            return frozenset()  # the list was lost since: what it reports as bad counts
        return frozenset(line.name for line in manifest.read_list(path))
    except (OSError, ManifestDamaged) as fault:
        raise _refused(f"The packing list {path} can't be read: {fault}") from fault


def _known_already(context: Context, disk: Disk, receipt: Receipt) -> str | None:
    """Return why nothing has to be changed; None if it is news. Raises Refused."""
    known = db.shipments.receipts(context.conn, disk)
    same = [row for row in known if row.checked_at == receipt.checked_at]
    if same and same[0].sha512 != receipt.sha512:
        raise _refused(
            f"{_named(disk)} has another receipt of {receipt.checked_at}: one of them was edited"
        )
    if same:
        return "this receipt was imported before; nothing was changed."
    later = [r for r in known if r.checked_at > receipt.checked_at]
    if later and later[-1].list_sha512 == receipt.list_sha512:
        return f"a later receipt, of {later[-1].checked_at}, counts; nothing was changed."
    return None


def _bad_copies(receipt: Receipt, copies: dict[str, CopyOnDisk]) -> dict[str, CopyState]:
    """Return the copies that are not good up north, by name. Raises Refused."""
    bad = {}
    for one in receipt.findings:
        if one.word == "extra" or not one.path.startswith(_ON_DISK):
            continue
        name = one.path.removeprefix(_ON_DISK)
        if name not in copies:
            raise _refused(
                f"The receipt of {shown(receipt.label)} names {shown(one.path)}, which was never "
                "put on that disk"
            )
        bad[name] = STATES[one.word]
    return bad


def _changes(
    copies: Iterable[CopyOnDisk], bad: dict[str, CopyState], listed: frozenset[str]
) -> list[tuple[CopyOnDisk, CopyState]]:
    """Return which copies are not what the database says; what reads well up north is good."""
    changes = []
    for copy in copies:
        state = bad.get(copy.name) or (CopyState.GOOD if copy.name in listed else copy.state)
        if state and state is not copy.state:
            changes.append((copy, state))
    return changes


def _row(disk: Disk, receipt: Receipt, at: str) -> ReceiptRow:
    return ReceiptRow(
        disk.id,
        receipt.list_sha512,
        receipt.checked_at,
        shown(receipt.checked_by),
        at,
        receipt.sha512,
        receipt.files,
        *(receipt.count(word) for word in _WORDS),
    )


def _tell(context: Context, disk: Disk, receipt: Receipt, bad: int) -> None:
    """Report bad copies, unless each was made again; resolve what a later receipt ends."""
    if db.copies.bad_copies_on(context.conn, disk):
        context.findings.note("copy-damaged", disk.serial, _text(disk, receipt), value=float(bad))
    else:
        context.findings.clear(["copy-damaged"], disk.serial)
    lifecycle.note_no_good_copy(context, disk)
    lifecycle.clear_repaired(context)


def _named(disk: Disk) -> str:
    return f"{disk.label} ({disk.serial})"


def _text(disk: Disk, receipt: Receipt) -> str:
    """Return what a receipt says, in words."""
    checked = f"checked {receipt.checked_at} by {shown(receipt.checked_by)}"
    parts = [f"{_named(disk)} was received: "]
    ours = [one for one in receipt.findings if one.word in STATES]
    files = [one for one in ours if one.path.startswith(_ON_DISK)]
    if files:
        counts = Counter(one.word for one in files)
        what = ", ".join(f"{counts[word]} {word}" for word in STATES if counts[word])
        parts.append(
            f"of {counted(receipt.files, 'file', 'files')} {len(files)} did not arrive intact "
            f"({what}), {_shown_path(files[0])} among them; {checked}. They are noted as damaged "
            "or missing there. Make the copies again from the other ones: data_manager.py repair."
        )
    else:
        parts.append(f"{counted(receipt.files, 'file', 'files')}, all intact; {checked}.")
    if own := [one.path for one in ours if not one.path.startswith(_ON_DISK)]:
        parts.append(f" The disk's own files are not intact: {shown(', '.join(own))}.")
    if extra := receipt.count("extra"):
        parts.append(
            f" {counted(extra, 'file there is', 'files there are')} not on its packing list."
        )
    return "".join(parts)


def _shown_path(finding: ReceiptFinding) -> str:
    return shown(finding.path.removeprefix(_ON_DISK))
