"""The page and the metrics are rewritten by passes, and never in their way."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from poledata.cli import run_pass
from poledata.config import load
from poledata.system import locks
from tests.helpers.other_users import POWERLESS
from tests.helpers.stations import another_pass
from tests.helpers.world import CRON_ENVIRONMENT, World

HOSTILE = "<script>alert(1)<%script>.g3"
INSTALL = "in the program's directory: sudo venv/bin/pip install '.[page]'"
ABSENT = "import sys\nsys.modules.update(dict.fromkeys(['jinja2', 'prometheus_client']))\n"


@pytest.fixture
def station(world: World) -> World:
    """With both files in a directory of their own."""
    (world.root / "www").mkdir()
    world.configure(StatusPage="www/status.html", MetricsFile="www/pole.prom")
    world.generate()
    return world


def page(station: World) -> str:
    return (station.root / "www/status.html").read_text()


def verdict(station: World) -> str:
    found = re.search("<h1.*?>(.*?)</h1>", page(station))
    assert found
    return found[1]


def number(station: World, name: str) -> float:
    text = (station.root / "www/pole.prom").read_text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families[name].samples[0].value


def made(station: World) -> float:
    return number(station, "pole_status_timestamp_seconds")


def published(station: World) -> set[str]:
    return set(os.listdir(station.root / "www"))


# --- by passes -------------------------------------------------------------------------------


def test_each_pass_writes_both_anew_at_its_end(station: World) -> None:
    """What it archived is in them; one with nothing to do rewrites them too, lest they look old."""
    station.put("a.g3", 5000)
    station.run_pass(check=0)
    assert number(station, "pole_archived_bytes") == 5000
    assert verdict(station) == station.status().out.splitlines()[0]
    assert published(station) == {"status.html", "pole.prom"}
    first, inode = made(station), (station.root / "www/status.html").stat().st_ino
    station.run_pass(check=0)
    assert made(station) > first
    assert (station.root / "www/status.html").stat().st_ino != inode


def test_everybody_may_read_them(station: World) -> None:
    """Whatever the umask: a web server and node_exporter are other users."""
    station.run_pass(check=0, prefix=("sh", "-c", 'umask 077; exec "$@"', "sh"))
    for name in published(station):
        assert stat.S_IMODE((station.root / "www" / name).stat().st_mode) == 0o644


def test_a_pass_that_finds_another_at_work_writes_them_too(station: World) -> None:
    """A pass may last for hours, and the page must not look old meanwhile."""
    with another_pass(station):
        station.put("a.g3")
        station.run_pass(check=0)
    assert number(station, "pole_buffer_waiting_files") == 1
    assert 'data-made="' in page(station)


def test_a_paused_pass_says_so(station: World) -> None:
    """On the page as in the numbers."""
    station.run_pass("pause", "--why", "the rack is open", check=0)
    station.run_pass(check=0)
    assert verdict(station) == "LOOK TODAY: the archive is paused: the rack is open"
    assert number(station, "pole_paused") == 1


def test_a_hostile_name_from_the_buffer_is_only_text(station: World) -> None:
    """From the file system through database and notice to the page."""
    station.put(HOSTILE)
    station.run_pass(check=1)
    assert "<script>alert" not in page(station)
    assert page(station).count("&lt;script&gt;alert(1)&lt;%script&gt;.g3") >= 3


def test_without_the_keys_a_pass_loads_neither_package(world: World) -> None:
    """Cron starts one each minute."""
    seen = world.root / "seen"
    _packages(world, f"open({str(seen)!r}, 'w').close()\n")
    world.generate()
    world.put("a.g3")
    world.run_pass(check=0, env={"PYTHONPATH": f"{world.root}/packages:{QUICK}"})
    assert not seen.exists()


def _packages(world: World, text: str) -> None:
    (world.root / "packages").mkdir()
    for name in ("jinja2", "prometheus_client"):
        (world.root / "packages" / f"{name}.py").write_text(text)


QUICK = CRON_ENVIRONMENT["PYTHONPATH"]
KIND = " (config-error)"

# --- without the packages --------------------------------------------------------------------


def test_without_the_packages_it_says_what_to_install(station: World) -> None:
    """In the log, in ``check`` and first in ``status``; and files are archived all the same."""
    (station.root / "packages").mkdir()
    quick = Path(QUICK, "sitecustomize.py").read_text()
    (station.root / "packages/sitecustomize.py").write_text(f"{quick}\n{ABSENT}")
    env = {"PYTHONPATH": str(station.root / "packages")}
    station.put("a.g3")
    station.run_pass(check=0, env=env)
    assert station.waiting() == set() and published(station) == set()
    needs = "StatusPage: it needs jinja2, which is not installed; " + INSTALL
    needs_too = "MetricsFile: it needs prometheus_client, which is not installed; " + INSTALL
    assert needs in station.log() and needs_too in station.log()
    lines = station.run_pass("status", check=0, env=env).out.splitlines()
    assert lines[0].startswith(f"LOOK TODAY: {needs_too}") and lines[0].endswith(KIND)
    assert lines[1].startswith(f"    and {needs}") and lines[1].endswith(KIND)
    assert f"FAULT {needs}" in station.run_pass("check", env=env, check=1).out
    asked = station.run_pass("status", "--html", "x.html", check=2, env=env)
    assert asked.err == (
        "x.html is not written: it needs jinja2, which can't be loaded (import of jinja2 halted; "
        f"None in sys.modules). Run {INSTALL}\n"
    )


def test_a_broken_package_stops_no_pass(station: World) -> None:
    """The log says which."""
    _packages(station, "raise ImportError('broken')")
    station.put("a.g3")
    station.run_pass(check=0, env={"PYTHONPATH": f"{station.root}/packages:{QUICK}"})
    assert station.waiting() == set()
    for name, module in (("status.html", "jinja2"), ("pole.prom", "prometheus_client")):
        assert (
            f"WARNING {station.root}/www/{name} is not written: it needs {module}, which can't be "
            f"loaded (broken). Run {INSTALL}\n" in station.log()
        )


# --- never in the way ------------------------------------------------------------------------


def test_a_page_that_cannot_be_written_harms_nothing_else(station: World) -> None:
    """The pass goes on, the other file is written, the log says why."""
    target = station.root / "www/status.html"
    target.symlink_to("../disk-map")
    before = station.disk_map_path.read_bytes()
    station.put("a.g3")
    station.run_pass(check=0)
    assert station.waiting() == set() and number(station, "pole_archived_files") == 1
    assert (
        f"WARNING {target} is not written: it is a link. What stood there was not changed.\n"
        in (station.log())
    )
    assert target.is_symlink() and station.disk_map_path.read_bytes() == before


def test_where_a_write_hangs_later_passes_do_not_wait(station: World) -> None:
    """They leave it to the one that waits."""
    station.put("a.g3")
    with locks.only_one(station.db_path, locks.Task.PAGE) as is_ours:
        assert is_ours
        station.run_pass(check=0, timeout_s=30)
    assert published(station) == set() and station.waiting() == set()
    assert "WARNING the status page is not written: another pass is still" in station.log()
    station.run_pass(check=0)
    assert published(station) == {"status.html", "pole.prom"}


def _damage(station: World) -> None:
    station.leave_unchecked("its database is damaged")
    with open(station.db_path, "r+b") as database:
        database.write(b"no database")


def _misconfigure(station: World) -> None:
    station.configure(RequireMount="yes")


@pytest.mark.parametrize("harm", [_damage, _misconfigure])
def test_where_passes_end_by_a_fault_the_page_is_left_to_turn_old(
    station: World, harm: Callable[[World], None]
) -> None:
    """A fresh ALL WELL while nothing is archived would be a lie."""
    station.run_pass(check=0)
    before = page(station), made(station)
    harm(station)
    station.run_pass(check=2)
    assert (page(station), made(station)) == before


def test_a_database_that_fails_meanwhile_is_logged(
    station: World, caplog: pytest.LogCaptureFixture
) -> None:
    """And raises nothing: the pass itself went well."""
    _damage(station)
    with click.Context(click.Command("pass")):
        run_pass.publish_all(load(station.config_path, {}))
    (said,) = caplog.messages
    assert said.startswith("the status page and the notices are not up to date: ")
    assert published(station) == set()


def test_a_directory_that_it_may_not_write_to_is_said(station: World) -> None:
    """First in ``status``, in ``check``, and in the log; files are archived all the same."""
    www = station.root / "www"
    www.chmod(0o555)
    station.put("a.g3")
    station.run_pass(check=0, prefix=POWERLESS)
    why = f"this user may not write into {www}; give it to the cron user"
    faults = [f"{key}: {why}" for key in ("StatusPage", "MetricsFile")]
    lines = station.run_pass("status", check=0, prefix=POWERLESS).out.splitlines()
    assert lines[0].startswith(f"LOOK TODAY: {faults[1]}") and lines[0].endswith(KIND)
    assert lines[1].startswith(f"    and {faults[0]}") and lines[1].endswith(KIND)
    assert f"FAULT {faults[0]}" in station.run_pass("check", check=1, prefix=POWERLESS).out
    assert f"WARNING {www}/pole.prom is not written: Permission denied." in station.log()
    assert station.waiting() == set()


# --- status --html ---------------------------------------------------------------------------


def test_status_writes_a_page_where_it_is_told(world: World, tmp_path: Path) -> None:
    """And changes nothing else; its path is said, but with --quiet."""
    world.put("a.g3")
    world.generate()
    before = world.snapshot(world.root)
    target = tmp_path / "now.html"
    said = world.status("--html", str(target), check=0)
    assert said.out == f"{target}: look at it with a browser.\n"
    assert target.read_text().startswith("<!DOCTYPE html>\n")
    assert world.status("--html", str(target), "--quiet", check=0).out == ""
    assert world.snapshot(world.root) == before


def test_status_writes_over_nothing_that_is_not_ours(world: World) -> None:
    """A slip of the pen must not cost the database."""
    world.generate()
    before = world.snapshot(world.root)
    said = world.status("--html", str(world.disk_map_path), check=2)
    assert said.err == (
        f"{world.disk_map_path} is not written: the file there is not ours. "
        "Name another file, or move that one away.\n"
    )
    assert world.snapshot(world.root) == before


def test_status_writes_no_page_where_the_configuration_may_name_none(world: World) -> None:
    """Buffer, disks (mounted or not), and the archive's own files; also through a link."""
    world.generate()
    world.configure(MetricsFile="pole.prom", StatusPage="status.html")
    (world.root / "way").symlink_to(world.buffer)
    before = world.snapshot(world.root)
    in_buffer = "lies inside the buffer; put it elsewhere"
    on_disk = f"lies on a disk ({world.mounts}/{{label}}); put it elsewhere"
    own = "names the same file as {}; give it one of its own"
    for target, real, why in (
        (world.buffer / "x.html", world.buffer / "x.html", in_buffer),
        (world.root / "way/x.html", world.buffer / "x.html", in_buffer),
        (world.disks["P01"] / "x.html", world.disks["P01"] / "x.html", on_disk),
        (world.mounts / "P77/data/x.html", world.mounts / "P77/data/x.html", on_disk),
        (world.db_path, None, own.format("FilenameDB")),
        (world.log_path, None, own.format("LogFile")),
        (world.root / "pole.prom", None, own.format("MetricsFile")),
        (world.config_path, None, own.format("this configuration")),
    ):
        said = world.status("--html", str(target), check=2)
        why = f"{real} {why}" if real else why
        assert said.err == f"{target} is not written: {why}. Nothing was changed.\n"
    assert world.snapshot(world.root) == before
    world.status("--html", str(world.root / "status.html"), check=0)


@pytest.mark.parametrize("other", ["--json", "--send"])
def test_status_does_one_thing_at_a_time(world: World, other: str) -> None:
    """Which of two was meant is not guessed."""
    world.generate()
    said = world.status("--html", "x.html", other, check=2)
    assert said.err == "Only one of --json, --html and --send at a time. Nothing was written.\n"
