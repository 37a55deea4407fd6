"""Check the registered drives: judge and record them, open notices, hold those that fail."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from poledata import db
from poledata.context import Context
from poledata.disks import lifecycle
from poledata.disks.lifecycle import SMART_HOLD
from poledata.formatting import counted, utc
from poledata.models import GONE, Disk, DiskState, Health, Severity, SmartCheck
from poledata.notices.kinds import SMART_KINDS
from poledata.smart import rules
from poledata.smart.rules import DriveVerdict, Past

if TYPE_CHECKING:
    from poledata.smart.smartctl import FoundDrive

# Verdicts that a person should look at.
TROUBLE = (Health.WARNING, Health.FAILING, Health.UNKNOWN, Health.MISSING)
# The kind of notice, and what its text says.
_NOTICES = {
    Health.FAILING: ("smart-failing", "is failing"),
    Health.WARNING: ("smart-warning", "should be watched"),
    Health.UNSUPPORTED: ("smart-warning", "can't be watched"),
    Health.UNKNOWN: ("smart-unknown", "can't be judged"),
    Health.MISSING: ("drive-missing", "is missing"),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """One registered disk and the verdict on its drive."""

    disk: Disk
    found: FoundDrive | None
    verdict: DriveVerdict

    @property
    def needs_a_look(self) -> bool:
        return self.verdict.health in TROUBLE


def to_check(disks: Iterable[Disk]) -> list[Disk]:
    """Return the disks that may be at the station; a plain directory has no drive."""
    return [disk for disk in disks if disk.state not in GONE and not disk.stand_in]


def find(disk: Disk, found: Iterable[FoundDrive]) -> tuple[FoundDrive | None, str | None]:
    """Return the drive of a disk, by serial and logical ID; or why a similar one is not it."""
    alike = [
        each
        for each in found
        if each.drive.has_id(disk.logical_id) or each.drive.begins_with(disk.serial)
    ]
    exact = [each for each in alike if not each.drive.contradicts(disk.serial, disk.logical_id)]
    if len(exact) == 1:
        return exact[0], None
    if exact:
        both = " and ".join(each.devices[0] for each in exact)
        return None, f"{both} both look like it: the disk-map needs the whole serial"
    if alike:
        first = alike[0]
        return None, f"{first.devices[0]} says it is {first.drive}, which is not quite this disk"
    return None, None


def unregistered(disks: Iterable[Disk], found: Iterable[FoundDrive]) -> list[FoundDrive]:
    """Return the drives that belong to no registered disk."""
    found = list(found)
    ours = [find(disk, found)[0] for disk in disks]
    return [drive for drive in found if drive not in ours]


def lacks_one_in_use(disks: Iterable[Disk], found: Sequence[FoundDrive]) -> bool:
    """True if a disk in use was not found: then all drives are worth a second query."""
    in_use = (disk for disk in disks if disk.state is DiskState.ACTIVE)
    return any(find(disk, found) == (None, None) for disk in in_use)


def check(
    context: Context, disks: Iterable[Disk], found: Sequence[FoundDrive], now_s: float
) -> list[Checked]:
    """Judge every disk, and record what was seen."""
    checked = []
    for disk in disks:
        with context.findings.isolated(f"{disk.label}: its SMART check"):
            checked.append(_check(context.conn, disk, found, now_s))
    return checked


def _check(conn: db.Connection, disk: Disk, found: Sequence[FoundDrive], now_s: float) -> Checked:
    past = Past(
        db.smart.last_smart_check(conn, disk),
        db.smart.smart_answers(conn, disk),
        db.smart.first_smart_check_at(conn, disk),
    )
    drive, confusion = find(disk, found)
    if drive:
        verdict = rules.judge(drive.report, past, now_s)
    elif confusion:
        verdict = rules.unknown(confusion, past, is_present=False)
    else:
        verdict = rules.absent(disk.state)
    one = Checked(disk, drive, verdict)
    if verdict.health is not Health.ABSENT:
        _record(conn, one, past, utc(now_s))
    return one


def _record(conn: db.Connection, checked: Checked, past: Past, at: str) -> None:
    verdict, report = checked.verdict, checked.found and checked.found.report
    row = SmartCheck(
        at,
        verdict.health,
        report.temperature_c if report else None,
        report.power_on_hours if report else None,
        verdict.numbers,
        rules.lowest(verdict.numbers, past),
        verdict.reasons,
        verdict.known,
        verdict.failing,
    )
    changed = (
        past.last is None
        or past.last.health is not verdict.health
        or rules.steady(past.numbers) != rules.steady(verdict.numbers)
    )
    raw = checked.found.raw if checked.found else "{}"
    with db.transaction(conn):
        db.smart.add_smart_check(conn, checked.disk, row, verdict.value, changed, raw)
    log.log(
        logging.WARNING if checked.needs_a_look else logging.INFO,
        "%s: %s",
        checked.disk.label,
        "; ".join((verdict.health.value, *verdict.reasons, *verdict.notes)),
    )


# --- holding ------------------------------------------------------------------------------


def may_change_holds(context: Context, checked: Iterable[Checked]) -> bool:
    """True if a hold may begin or end: only then is it worth waiting for the turn."""
    were_several = "several" in context.findings.keys("smart-failing")
    is_well_again = any(_is_well_again(context, one) for one in checked)
    return were_several or is_well_again or bool(_to_hold(context))


def change_holds(context: Context, checked: Iterable[Checked], at: str) -> None:
    """Hold drives that fail, within limits, and end the holds of good ones. Needs the turn."""
    for one in checked:
        if _is_well_again(context, one):
            with db.transaction(context.conn):
                db.disks.unhold(context.conn, one.disk, "its SMART report is well again", at)
    why = f"{SMART_HOLD}the drive reports that it is failing"
    lifecycle.hold_failing(context, _to_hold(context), why, "smart-failing")


def _to_hold(context: Context) -> list[Disk]:
    """Return what fails and is not held; after an unhold by a person, only what got worse."""
    return [
        disk
        for disk in db.smart.failing_disks(context.conn)
        if disk.held_by is None and not _was_given_back(context.conn, disk)
    ]


def _was_given_back(conn: db.Connection, disk: Disk) -> bool:
    then = db.smart.value_when_given_back(conn, disk)
    now = db.smart.value_at_last_check(conn, disk)
    last = db.smart.last_smart_check(conn, disk)
    if then is None or now is None or last is None:
        return False
    return now == 0 if last.known else now <= then  # 1.0.0 kept no baseline


def _is_well_again(context: Context, one: Checked) -> bool:
    is_well = one.verdict.health in (Health.HEALTHY, Health.WARNING) and one.verdict.numbers
    return bool(is_well) and lifecycle.is_held_for_smart(
        lifecycle.the_disk(context, one.disk.serial)
    )


# --- notices ------------------------------------------------------------------------------


def tell(context: Context, checked: Iterable[Checked]) -> None:
    """Open, renew and resolve the notices about these disks."""
    for one in checked:
        with context.findings.isolated(f"{one.disk.label}: telling of its drive"):
            _tell(context, one)


def _tell(context: Context, one: Checked) -> None:
    now = replace(one, disk=lifecycle.the_disk(context, one.disk.serial))
    kind, what = _notice(one.verdict)
    context.findings.clear(_resolved(one.verdict, kind), one.disk.label)
    if kind:
        text = f"{_name(now)} {what}: {'; '.join((*one.verdict.reasons, *one.verdict.notes))}. "
        text += f"{_files_text(context.conn, now.disk)} {_next_step(now)}"
        context.findings.note(kind, one.disk.label, text, _severity(now), one.verdict.value)


def _notice(verdict: DriveVerdict) -> tuple[str, str]:
    """Return kind and words of what is wrong; two empty texts if nothing is."""
    if verdict.health is Health.UNKNOWN and not verdict.is_repeated:
        return "", ""  # once may be chance
    return _NOTICES.get(verdict.health, ("", ""))


def _resolved(verdict: DriveVerdict, kind: str) -> Iterable[str]:
    """Return the kinds that are over: only the numbers of a drive end a notice about them."""
    if verdict.health is Health.MISSING:
        return ("smart-unknown",)
    if verdict.health is Health.UNKNOWN:
        return ("drive-missing",) if verdict.is_repeated else ()
    if not verdict.numbers and verdict.health is not Health.ABSENT:
        return ("drive-missing", "smart-unknown")  # asleep or without SMART, but here
    return (each for each in SMART_KINDS if each != kind)


def _severity(one: Checked) -> Severity | None:
    is_old_news = one.verdict.health is Health.WARNING and one.verdict.is_old_news
    if one.verdict.health is Health.UNSUPPORTED or is_old_news:
        return Severity.INFO  # reported once: nothing can be done about it
    if one.verdict.health is Health.FAILING and one.disk.state is DiskState.ACTIVE:
        return Severity.CRITICAL
    return None


def _name(one: Checked) -> str:
    disk = one.disk
    state = {DiskState.ACTIVE: "in use", DiskState.SPARE: "spare"}.get(disk.state, "closed")
    where = f", {', '.join(one.found.devices)}" if one.found else ""
    return f"{disk.label} (serial {disk.serial}, {disk.role.value}, {state}{where})"


def _files_text(conn: db.Connection, disk: Disk) -> str:
    files, _ = db.copies.count_on(conn, disk)
    if not files:
        return "No file is on it."
    places = ", ".join(f"{label} ({n})" for label, n in db.copies.other_copies(conn, disk))
    lacking = len(db.copies.lacking_another(conn, disk))
    lack = f" {lacking} have no other copy!" if lacking else ""
    here = counted(files, "file is", "files are")
    return f"{here} on it; other copies: {places or 'nowhere'}.{lack}"


def _next_step(one: Checked) -> str:
    if one.verdict.health is Health.MISSING:
        return "Nothing is lost while the drive can be found: look at its slot, cable and power."
    if one.verdict.health is not Health.FAILING:
        return "It goes on being used."
    if one.disk.held_by:
        return "It is held: nothing more is written to it. Nothing was moved or deleted."
    if one.disk.state is DiskState.CLOSED:
        return "It is closed: nothing more is written to it. Nothing was moved or deleted."
    return "It is not held: mount a spare disk of its role. Nothing was moved or deleted."
