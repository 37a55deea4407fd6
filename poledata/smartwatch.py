"""A check of the registered drives: judged, written down, told, and held where they fail."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from poledata import catalogue, db, health, lifecycle
from poledata.health import Past, Verdict
from poledata.house import House
from poledata.lifecycle import SMART_HOLD
from poledata.notices import SMART_KINDS
from poledata.records import GONE, Disk, DiskState, Health, Severity, SmartCheck
from poledata.texts import utc

if TYPE_CHECKING:
    from poledata.drives import Found

# A person should look. The others are as they may be, and said in the table.
TROUBLE = (Health.WARNING, Health.FAILING, Health.UNKNOWN, Health.MISSING)
_KIND = {
    Health.FAILING: "smart-failing",
    Health.WARNING: "smart-warning",
    Health.UNSUPPORTED: "smart-warning",
    Health.MISSING: "drive-missing",
}
_WELL = (Health.HEALTHY, Health.WARNING)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """One registered disk and the verdict on its drive."""

    disk: Disk
    found: Found | None
    verdict: Verdict

    @property
    def needs_a_look(self) -> bool:
        return self.verdict.health in TROUBLE


def to_check(disks: Iterable[Disk]) -> list[Disk]:
    """Those that may be at the station; a plain directory has no drive of its own."""
    return [disk for disk in disks if disk.state not in GONE and not disk.stand_in]


def find(disk: Disk, found: Iterable[Found]) -> tuple[Found | None, str | None]:
    """The drive of a disk, by serial and logical ID; or why the one that looks like it is not."""
    alike = [
        each
        for each in found
        if each.drive.wwn == disk.logical_id or each.drive.begins_with(disk.serial)
    ]
    exact = [each for each in alike if not each.drive.contradicts(disk.serial, disk.logical_id)]
    if len(exact) == 1:
        return exact[0], None
    if exact:
        both = " and ".join(each.devices[0] for each in exact)
        return None, f"{both} both look like it: the disk-map needs the whole serial"
    if alike:
        own = alike[0]
        return None, f"{own.devices[0]} says it is {own.drive}, which is not quite this disk"
    return None, None


def lacks_one_in_use(disks: Iterable[Disk], found: Sequence[Found]) -> bool:
    """Whether a disk in use was not found: worth a second look at all of them."""
    in_use = (disk for disk in disks if disk.state is DiskState.ACTIVE)
    return any(find(disk, found) == (None, None) for disk in in_use)


def check(
    house: House, disks: Iterable[Disk], found: Sequence[Found], now_s: float
) -> list[Checked]:
    """Judge every disk, and write down what was seen of it."""
    checked = []
    for disk in disks:
        with house.board.isolated(f"{disk.label}: its SMART check"):
            checked.append(_check(house.conn, disk, found, now_s))
    return checked


def _check(conn: db.Connection, disk: Disk, found: Sequence[Found], now_s: float) -> Checked:
    past = _past(conn, disk)
    drive, confusion = find(disk, found)
    if drive:
        verdict = health.judge(drive.report, past, now_s)
    elif confusion:
        verdict = health.unknown(confusion, past)
    else:
        verdict = health.absent(disk.state)
    one = Checked(disk, drive, verdict)
    if verdict.health is not Health.ABSENT:
        _write_down(conn, one, past, utc(now_s))
    return one


def _past(conn: db.Connection, disk: Disk) -> Past:
    return Past(
        catalogue.last_smart_check(conn, disk),
        catalogue.smart_answers(conn, disk),
        catalogue.first_smart_check_at(conn, disk),
    )


def _write_down(conn: db.Connection, checked: Checked, past: Past, at: str) -> None:
    verdict, report = checked.verdict, checked.found and checked.found.report
    numbers = verdict.numbers
    row = SmartCheck(
        at,
        verdict.health,
        report.temperature_c if report else None,
        report.power_on_hours if report else None,
        numbers,
        health.lowest(numbers, past),
        verdict.reasons,
    )
    changed = (
        past.last is None
        or past.last.health is not verdict.health
        or health.steady(past.numbers) != health.steady(numbers)
    )
    raw = checked.found.raw if checked.found else "{}"
    with db.transaction(conn):
        catalogue.add_smart_check(conn, checked.disk, row, verdict.value, changed, raw)
    log.log(
        logging.WARNING if checked.needs_a_look else logging.INFO,
        "%s: %s",
        checked.disk.label,
        "; ".join((verdict.health.value, *verdict.reasons, *verdict.notes)),
    )


# --- holding ------------------------------------------------------------------------------


def may_change_holds(house: House, checked: Iterable[Checked]) -> bool:
    """Whether something is to be held or given back: worth waiting for the turn."""
    were_several = "several" in house.board.open_keys("smart-failing")
    is_well_again = any(_is_well_again(house, one) for one in checked)
    return were_several or is_well_again or bool(_to_hold(house))


def change_holds(house: House, checked: Iterable[Checked], at: str) -> None:
    """Hold what says that it fails, within bounds; give back what is well. Needs the turn."""
    for one in checked:
        if _is_well_again(house, one):
            with db.transaction(house.conn):
                catalogue.unhold(house.conn, one.disk, "its SMART report is well again", at)
    why = f"{SMART_HOLD}the drive reports that it is failing"
    lifecycle.hold_failing(house, _to_hold(house), why, "smart-failing")


def _to_hold(house: House) -> list[Disk]:
    """Failing and not held; whose hold a person ended is left alone until it gets worse."""
    return [
        disk
        for disk in catalogue.failing_disks(house.conn)
        if disk.held_by is None and not _was_given_back(house.conn, disk)
    ]


def _was_given_back(conn: db.Connection, disk: Disk) -> bool:
    then = catalogue.value_when_given_back(conn, disk)
    now = catalogue.value_at_last_check(conn, disk)
    return then is not None and now is not None and now <= then


def _is_well_again(house: House, one: Checked) -> bool:
    is_well = one.verdict.health in _WELL and bool(one.verdict.numbers)
    return is_well and lifecycle.is_held_for_smart(lifecycle.the_disk(house, one.disk.serial))


# --- telling ------------------------------------------------------------------------------


def tell(house: House, checked: Iterable[Checked]) -> None:
    """Open, renew and resolve the notices about these disks."""
    for one in checked:
        with house.board.isolated(f"{one.disk.label}: telling of its drive"):
            _tell(house, one)


def _tell(house: House, one: Checked) -> None:
    now = replace(one, disk=lifecycle.the_disk(house, one.disk.serial))
    kind = _KIND.get(one.verdict.health)
    house.board.settle(_over(one.verdict), one.disk.label)
    if kind:
        text = _text(house.conn, now)
        severity, value = _severity(now), one.verdict.value
        house.board.tell(kind, one.disk.label, text, severity, value)


def _over(now: Verdict) -> tuple[str, ...]:
    """The kinds that don't hold any more: only a drive's own numbers end what was said of them."""
    if now.health in (Health.UNKNOWN, Health.MISSING):
        return ()
    if not now.numbers and now.health is not Health.ABSENT:
        return ("drive-missing",)  # asleep or without SMART, but there
    return tuple(kind for kind in SMART_KINDS if kind != _KIND.get(now.health))


def _severity(one: Checked) -> Severity | None:
    if one.verdict.health is Health.UNSUPPORTED:
        return Severity.INFO  # said once: nothing can be done about it
    if one.verdict.health is Health.FAILING and one.disk.state is DiskState.ACTIVE:
        return Severity.CRITICAL
    return None


def _text(conn: db.Connection, one: Checked) -> str:
    disk = one.disk
    state = {DiskState.ACTIVE: "in use", DiskState.SPARE: "spare"}.get(disk.state, "closed")
    where = f", {', '.join(one.found.devices)}" if one.found else ""
    who = f"{disk.label} (serial {disk.serial}, {disk.role.value}, {state}{where})"
    said = {
        Health.FAILING: "is failing",
        Health.WARNING: "should be watched",
        Health.UNSUPPORTED: "can't be watched",
        Health.MISSING: "is missing",
    }[one.verdict.health]
    what = "; ".join(one.verdict.reasons)
    return " ".join((f"{who} {said}: {what}.", _what_hangs_on_it(conn, disk), _next_step(one)))


def _what_hangs_on_it(conn: db.Connection, disk: Disk) -> str:
    files, _ = catalogue.count_on(conn, disk)
    if not files:
        return "No file is on it."
    places = ", ".join(f"{label} ({n})" for label, n in catalogue.other_copies(conn, disk))
    lacking = len(catalogue.lacking_another(conn, disk))
    lack = f" {lacking} have no other copy!" if lacking else ""
    return f"{files} files are on it; their other copies: {places or 'nowhere'}.{lack}"


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
