"""Drives that answer as real smartctl once did (tests/reports), and stations with such drives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from poledata import config, db
from poledata.context import Context
from poledata.formatting import utc
from poledata.notices.findings import Findings
from poledata.smart import check as smart_check
from poledata.smart.check import Checked
from poledata.smart.report import read_report
from poledata.smart.smartctl import FoundDrive
from poledata.status.evaluate import update_notices
from poledata.system import mounts
from tests.helpers.world import REPO, World


def with_smartctl(world: World, *reports: Any) -> dict[str, str]:
    """The environment in which smartctl knows these drives."""
    directory = world.root / "bin"
    directory.mkdir()
    (directory / "smartctl").write_text(SMARTCTL)
    (directory / "smartctl").chmod(0o755)
    entries = [{"name": "/dev/bus/0", "type": f"megaraid,{n}"} for n in range(len(reports))]
    (directory / "scan").write_text(json.dumps({"devices": entries}))
    for n, report in enumerate(reports):
        (directory / f"{n}.json").write_text(json.dumps(report))
        (directory / f"{n}.status").write_text(str(report["smartctl"]["exit_status"]))
    return {"PATH": f"{directory}:/usr/bin:/bin"}


SMARTCTL = """\
#!/bin/sh
cd "${0%/*}"
echo "$*" >>calls
case "$*" in
*--scan*) cat scan; exit 0 ;;
*megaraid,*) number=${*##*megaraid,}; number=${number%% *} ;;
*"-d sat"*) number=sat ;;
*) number=plain ;;
esac
[ ! -e $number.slow ] || exec sleep 60
case "$*" in
*" -a "*) [ ! -e $number.brief ] || exec cat $number.brief ;;
esac
[ -e $number.json ] || { echo '{}'; exit 1; }
cat $number.json
exit $(cat $number.status || echo 0)
"""
REPORTS = REPO / "tests/reports"
Alter = Callable[[Any], None]


def recorded(name: str) -> Any:
    return json.loads((REPORTS / f"{name}.json").read_text())


def raw(number: int, value: int) -> Alter:
    def alter(report: Any) -> None:
        (found,) = (a for a in report["ata_smart_attributes"]["table"] if a["id"] == number)
        found["raw"] = {"value": value, "string": str(value)}

    return alter


def put(value: Any, *keys: str) -> Alter:
    def alter(report: Any) -> None:
        for key in keys[:-1]:
            report = report.setdefault(key, {})
        report[keys[-1]] = value

    return alter


FAILED = put({"passed": False}, "smart_status")


def answer(world: World, label: str, name: str = "sata-good", *alter: Alter) -> FoundDrive:
    """The drive of this label, saying what was recorded."""
    report = recorded(name)
    for change in alter:
        change(report)
    own = mounts.Drive("sdq", world.serials[label], world.logical_id(label), None)
    read = read_report("/dev/sdq", report, report["smartctl"]["exit_status"])
    return FoundDrive(("/dev/sdq",), own, read, json.dumps(report))


@contextmanager
def house_of(world: World) -> Iterator[Context]:
    loaded = config.load(world.config_path, {})
    with db.connect(world.db_path) as conn:
        yield Context(loaded, conn, Findings(conn))


def check(world: World, *found: FoundDrive, now_s: float | None = None) -> dict[str, Checked]:
    """One check, as the script makes it."""
    now_s = now_s or time.time()
    with house_of(world) as context:
        disks = db.disks.disks(context.conn)
        checked = smart_check.check(context, disks, found, now_s)
        smart_check.tell(context, checked)
        if smart_check.may_change_holds(context, checked):
            smart_check.change_holds(context, checked, utc(now_s))
        smart_check.tell(context, checked)
        update_notices(context.config, context.conn)
    return {one.disk.label: one for one in checked}


def all_well(world: World, *but: FoundDrive) -> list[FoundDrive]:
    """Every drive of the station, those given instead of the good ones."""
    named = {each.drive.serial: each for each in but}
    return [named.get(world.serials[at]) or answer(world, at) for at in world.serials]
