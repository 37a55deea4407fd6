"""The scripts as people and cron start them: options, output, exit codes, what stays untouched."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

import poledata.archive.run
import poledata.db.files
import poledata.status.collect
from poledata.cli import app
from tests.helpers.bugs import broken, with_constant
from tests.helpers.invariants import snapshot
from tests.helpers.other_users import POWERLESS
from tests.helpers.stations import another_pass, read_only
from tests.helpers.world import CRON_ENVIRONMENT, REPO, Run, World

NAME = "fullrate/RCW38/80296951/0000.g3"
SCRIPTS = ("data_manager.py", "generate_db.py")


def run_plainly(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: str | Path = "/"
) -> Run:
    """Run a command with cron's environment and nothing that ``World.run`` adds."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**CRON_ENVIRONMENT, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(result.returncode, result.stdout, result.stderr)


def run_on_terminal(*command: str) -> Run:
    """Run a command with a terminal for its output; ``out`` is what a person sees of both."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            command,
            cwd="/",
            env={**CRON_ENVIRONMENT, "TERM": "xterm", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        seen = b""
        with suppress(OSError):  # EIO is a terminal's way to say that nobody is left
            while chunk := os.read(master, 4096):
                seen += chunk
        return Run(process.wait(timeout=60), seen.decode(errors="replace"), "")
    finally:
        os.close(master)


# --- starting them ------------------------------------------------------------------------


@pytest.mark.parametrize("script", [*SCRIPTS, "get_drive_IDs.py", "get_SMART_status.py"])
def test_another_python_is_told_which_one_has_the_packages(script: str) -> None:
    """A sentence instead of a traceback, and exit 2: the system's Python knows no click."""
    run = run_plainly(sys.executable, "-S", REPO / script, "--help")
    assert (run.code, run.out) == (2, "")
    said = f"{script}: {sys.executable} lacks click and dotenv. Nothing was changed. Start it with "
    assert run.err.startswith(said)
    assert run.err.count("\n") == 1


def test_help_of_each_command_works_from_anywhere() -> None:
    """From / with hardly an environment; each says what it does, and its options."""
    commands = [[script] for script in SCRIPTS]
    listed = run_plainly(sys.executable, REPO / "data_manager.py", "--help").out
    found = re.findall(r"^  ([a-z]+) ", listed.partition("Commands:")[2], re.MULTILINE)
    assert "status" in found
    commands += [["data_manager.py", name] for name in found]
    for script, *rest in commands:
        run = run_plainly("env", "-i", "PATH=/usr/bin:/bin", sys.executable, REPO / script, *rest,
                          "--help")  # fmt: skip
        assert (run.code, run.err) == (0, "")
        assert run.out.startswith(" ".join(["Usage:", script, *rest, "[OPTIONS]"]))
        for option in ("--config", "--log-file", "--verbose", "--quiet", "--help"):
            assert option in run.out
        description = run.out.split("\n\n")[1]
        assert len(description.split()) > 2


@pytest.mark.parametrize("labels", [["P01"], ["P01", "S01"], []])
def test_a_verification_is_watched_on_a_terminal(world: World, labels: list[str]) -> None:
    """A bar a disk, and what was found, as without a terminal."""
    world.generate()
    world.put(NAME, 5_000_000)
    world.run_pass(check=0)
    every = [] if labels else ["VerifyEvery = 0 s"]
    with world.config_path.open("a") as config:
        config.writelines(f"{line}\n" for line in every)
    script = str(REPO / "data_manager.py")
    config = ["--config", str(world.config_path)]
    run = run_on_terminal(sys.executable, script, *config, "verify", *labels)
    assert run.code == 0, run.out
    for label in labels:
        assert f"{label}: 1 copy is good" in run.out
    rebuild = [str(REPO / "generate_db.py"), *config, "--from-disks", "--verify"]
    run = run_on_terminal(sys.executable, *rebuild)
    assert run.code == 0, run.out


def test_a_refusal_is_said_once(world: World) -> None:
    """Also on a terminal, where warnings of the log are shown."""
    world.generate()
    script = str(REPO / "data_manager.py")
    run = run_on_terminal(
        sys.executable, script, "--config", str(world.config_path), "close", "--yes", "P1"
    )
    assert (run.code, run.out.count("No disk has the label or serial P1")) == (2, 1)


def test_the_demos_configuration_is_said_to_be_that(opt: Path) -> None:
    """Who forgets --config must not be led into making what the demo lacks."""
    text = (opt / "basic_data_manager.config").read_text()
    (opt / "basic_data_manager.config").write_text(
        text.replace("FilenameDB = ", "FilenameDB = no/")
    )
    run = run_plainly(sys.executable, opt / "data_manager.py", "status")
    assert run.code == 2
    assert "basic_data_manager.config: this is the demo's. Name yours: --config FILE" in run.err


@pytest.mark.parametrize("said", ["4", " 90 ", "1.5"])
def test_a_time_is_given_with_its_unit(world: World, said: str) -> None:
    """A pause of four seconds is not what was meant by 4."""
    world.generate()
    run = world.run_pass("pause", "--why", "x", "--for", said, check=2)
    assert f"--for: {said} of what? For example {said}h. Nothing was changed." in run.err


def test_a_pass_by_hand_says_what_it_did_not_even_try(world: World) -> None:
    """Files that failed before and rest till their next try; a pause, and why."""
    world.generate()
    world.put("50%.g3")
    script = [str(REPO / "data_manager.py"), "--config", str(world.config_path)]
    run = run_on_terminal(sys.executable, *script)
    assert "1 failed and stay in the buffer" in run.out
    run = run_on_terminal(sys.executable, *script)
    assert "1 failed before and wait for their next try" in run.out
    world.run_pass("pause", "--why", "new cables", check=0)
    run = run_on_terminal(sys.executable, *script)
    assert "paused (new cables; data_manager.py resume ends it)" in run.out


def test_an_unknown_command_is_refused_with_those_that_there_are() -> None:
    """A person who mistypes one sees which was meant."""
    run = run_plainly(sys.executable, REPO / "data_manager.py", "statsu")
    assert (run.code, run.out) == (2, "")
    refused = "No such command 'statsu'. Nothing was changed. The commands are: ack, adopt-buffer, "
    assert refused in run.err and ", status, unhold, verify" in run.err


def test_a_notice_is_explained_without_an_archive() -> None:
    """By any user, in any place; an unknown kind is refused with those that there are."""
    script = str(REPO / "data_manager.py")
    run = run_plainly(sys.executable, script, "explain", "copy-damaged")
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("## copy-damaged\n\n**What it means.** ")
    run = run_plainly(sys.executable, script, "explain", "copy-lost")
    assert (run.code, run.out) == (2, "")
    refused = "copy-lost: there is no such kind of notice. Nothing was changed.\nKinds: bad-name, "
    assert run.err.startswith(refused)


@pytest.mark.parametrize("command", ["repair", "status", "close"])
def test_a_dry_run_that_is_asked_of_the_wrong_thing_changes_nothing(
    world: World, command: str
) -> None:
    """Who puts --dry-run before a command would else have it done."""
    world.generate()
    before = snapshot(world.root)
    labels = ["P01"] if command == "close" else []
    run = world.run_pass("--dry-run", command, *labels, check=2)
    assert run.out == ""
    assert run.err.startswith(
        f"--dry-run before {command} is an option of a pass. Nothing was changed."
    )
    assert before.differences(snapshot(world.root)) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_console_command_is_the_script(script: str) -> None:
    """Installed, it is there without ``.py``."""
    command = Path(sys.executable).with_name(script.removesuffix(".py"))
    run = run_plainly(command, "--version")
    assert run.code == 0
    assert run.out == run_plainly(sys.executable, REPO / script, "--version").out.replace(
        script, command.name
    )


@pytest.fixture
def opt(world: World) -> Path:
    """The program as installed somewhere, with the world's configuration beside it."""
    directory = world.root / "opt"
    directory.mkdir()
    shutil.copytree(
        REPO / "poledata", directory / "poledata", ignore=shutil.ignore_patterns("__pycache__")
    )
    for script in SCRIPTS:
        shutil.copy(REPO / script, directory)
    shutil.copy(world.config_path, directory / "basic_data_manager.config")
    return directory


def test_without_config_the_one_beside_the_script_is_used(world: World, opt: Path) -> None:
    """Also through a symbolic link: it is looked for where the script truly lies."""
    world.put(NAME)
    links = world.root / "bin"
    links.mkdir()
    for script in SCRIPTS:
        (links / script).symlink_to(opt / script)
    run = run_plainly(
        sys.executable, links / "generate_db.py", "--disk-map", world.disk_map_path, cwd=links
    )
    assert run.code == 0 and str(world.db_path) in run.out
    run = run_plainly(sys.executable, links / "data_manager.py")
    assert (run.code, run.out, run.err) == (0, "", "")
    assert world.waiting() == set()


def test_the_environment_names_a_configuration_and_the_option_wins(world: World, opt: Path) -> None:
    """--config, else $POLE_DATA_CONFIG, else the one beside the script."""
    wrong = str(world.root / "wrong.config")
    (opt / "basic_data_manager.config").unlink()
    command = (sys.executable, opt / "data_manager.py", "status")
    run = run_plainly(*command)
    assert run.code == 2 and f"{opt / 'basic_data_manager.config'}: can't be read" in run.err
    run = run_plainly(*command, env={"POLE_DATA_CONFIG": wrong})
    assert run.code == 2 and f"{wrong}: can't be read" in run.err
    world.generate()
    assert run_plainly(*command, env={"POLE_DATA_CONFIG": str(world.config_path)}).code == 0
    option = ("--config", world.config_path)
    assert run_plainly(*command, *option, env={"POLE_DATA_CONFIG": wrong}).code == 0


def test_options_stand_before_or_after_a_command(world: World) -> None:
    """People type them where they come to mind."""
    world.generate()
    script, config = REPO / "data_manager.py", ("--config", world.config_path)
    before = run_plainly(sys.executable, script, *config, "--quiet", "-v", "status", "--json")
    after = run_plainly(sys.executable, script, "status", "--json", *config, "-v", "--quiet")
    assert before.code == after.code == 0
    assert before.json().keys() == after.json().keys()


@pytest.mark.parametrize(
    "args",
    [["--frobnicate"], ["status", "--frobnicate"], ["frobnicate"], ["status", "P01"], ["--config"]],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_touches_nothing(world: World, args: list[str]) -> None:
    """The wrong word is named on standard error."""
    world.put(NAME)
    world.generate()
    before = world.snapshot(world.root)
    run = world.run("data_manager.py", *args, check=2)
    assert run.out == ""
    assert args[-1] in run.err
    assert before.differences(world.snapshot(world.root)) == []


# --- a pass -------------------------------------------------------------------------------


def test_a_pass_with_nothing_to_do_is_silent_and_writes_nothing(world: World) -> None:
    """Cron starts it every minute, for years: neither the database nor the log grows."""
    world.put(NAME)
    world.generate()
    world.run_pass(check=0)
    before = world.snapshot(world.db_path.parent), world.snapshot(world.mounts)
    for _ in range(2):
        run = world.run_pass(check=0)
        assert (run.out, run.err) == ("", "")
    changes = before[0].differences(world.snapshot(world.db_path.parent))
    names = [change.split(":")[0] for change in changes]
    assert names == ["pole.sqlite.ended", "pole.sqlite.lock"]  # their times alone
    assert world.db_path.with_name("pole.sqlite.lock").read_bytes() == b""
    assert before[1] == world.snapshot(world.mounts)


def test_a_pass_that_finds_another_at_work_ends_at_once(world: World) -> None:
    """Exit 0 without a word, and nothing is done; a person at a terminal is told."""
    world.put(NAME)
    world.generate()
    places = (world.buffer, world.mounts, world.db_path)
    before = [world.snapshot(place) for place in places]
    with another_pass(world):
        began_at = time.monotonic()
        run = world.run_pass(check=0)
        assert time.monotonic() - began_at < 10
        assert (run.out, run.err) == ("", "")
        run = run_on_terminal(*world.command("data_manager.py"))
        assert run.code == 0 and "Another pass is at work" in run.out
    assert before == [world.snapshot(place) for place in places]
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_a_terminal_gets_progress_and_a_summary(world: World) -> None:
    """What was archived, what stays, and where to look; ``--quiet`` keeps even that back."""
    world.put("a.g3", 1_000_000)
    world.put("b.g3", 500_000)
    world.put("per%cent.g3")
    world.generate()
    run = run_on_terminal(*world.command("data_manager.py"))
    assert run.code == 1
    assert "2 files archived (1.5 MB); 1 failed and stay in the buffer" in run.out
    assert "data_manager.py status" in run.out
    assert "per%cent.g3: it holds a %" in run.out
    assert world.waiting() == {"per%cent.g3"}
    world.put("c.g3")
    run = run_on_terminal(*world.command("data_manager.py", "--quiet"))
    assert (run.code, run.out) == (1, "")


def test_a_pass_needs_no_standard_streams(world: World) -> None:
    """A daemon may start it with all three closed: it works and ends with 0."""
    world.put(NAME, 100_000)
    world.generate()
    world.run_pass(check=0, prefix=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    assert world.waiting() == set()
    assert world.sql("PRAGMA integrity_check")[0][0] == "ok"


# --- a defect -----------------------------------------------------------------------------


def test_a_defect_ends_with_3_a_plain_sentence_and_a_traceback_in_the_log(world: World) -> None:
    """What is safe, and where the log is: one line on the screen, and the next pass works."""
    world.put(NAME)
    world.generate()
    run = world.run_pass(check=3, prefix=broken(poledata.archive.run, "run_pass"))
    assert run.out == ""
    assert len(run.err.splitlines()) <= 2  # the exception's own text holds a line end
    for part in ("defect", "RuntimeError", "stay in the buffer", str(world.log_path)):
        assert part in run.err
    assert "Traceback" not in run.err
    assert "Traceback (most recent call last)" in world.log()
    assert "RuntimeError: bo\nom" in world.log()
    world.run_pass(check=0)
    assert world.waiting() == set()


def test_a_defect_in_the_middle_of_a_pass_loses_nothing(world: World) -> None:
    """Copies are made, registering them fails: the file's next try adopts them."""
    world.put(NAME)
    world.generate()
    world.run_pass(check=3, prefix=broken(poledata.db.files, "register"))
    assert world.waiting() == world.archived("P01") == world.archived("S01") == {NAME}
    inode = (world.data("P01") / NAME).stat().st_ino
    world.sql("UPDATE pending SET next_try_at = '2020-01-01T00:00:00Z'")
    world.run_pass(check=0)
    assert world.waiting() == set()
    assert (world.data("P01") / NAME).stat().st_ino == inode


@pytest.mark.parametrize("where", ["missing/x.log", "x.log"])
def test_a_defect_is_never_without_its_traceback(world: World, where: str) -> None:
    """Where no log can be, or is, written, it goes to the screen: somebody must be able to mend it.

    ``status`` keeps no log, whatever ``--log-file`` says.
    """
    world.generate()
    log = world.root / where
    run = world.run_pass(
        "status", "--log-file", str(log), check=3, prefix=broken(poledata.status.collect, "collect")
    )
    traceback = "Traceback (most recent call last)"
    assert traceback in run.err or (log.exists() and traceback in log.read_text())


# --- the log ------------------------------------------------------------------------------


def test_a_pass_logs_what_it_did_where_it_is_told(world: World) -> None:
    """To LogFile, or to --log-file instead; each line has a time in UTC and a level."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    marker, line = world.log().splitlines()
    assert marker.endswith("a pass gave it its first marker")
    pattern = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO .*\(1 kB\) archived.* on P01 and S01"
    assert re.fullmatch(pattern, line)
    world.put("b.g3")
    other = world.root / "other.log"
    world.run_pass("--log-file", str(other), check=0)
    assert world.log() == f"{marker}\n{line}\n"
    assert re.fullmatch(pattern, other.read_text().rstrip())


def _missing(world: World) -> Path:
    return world.root / "missing" / "x.log"


def _full(_world: World) -> Path:
    return Path("/dev/full")


def _closed_to_us(world: World) -> Path:
    path = world.root / "x.log"
    path.touch(mode=0o000)
    return path


@pytest.mark.parametrize("place", [_missing, _full, _closed_to_us])
def test_a_log_that_can_not_be_written_stops_nothing(world: World, place: object) -> None:
    """It is said once on standard error, with its name, and the files are archived."""
    assert callable(place)
    for name in ("a.g3", "b.g3"):
        world.put(name)
    world.put("per%cent.g3")  # more than one line is to be logged
    world.generate()
    log = place(world)
    run = world.run_pass("--log-file", str(log), check=1, prefix=POWERLESS)
    assert run.out == ""
    (said,) = run.err.splitlines()
    assert said.startswith(f"{log}: the log can't be written")
    assert world.waiting() == {"per%cent.g3"}


# --- a dry run ----------------------------------------------------------------------------


def test_a_dry_run_says_what_a_pass_would_do_and_changes_nothing(world: World) -> None:
    """One line a file with its size and disks; buffer, disks, database and log stay as they are."""
    world.put("a.g3", 1000, mtime_s=1_500_000_000)
    world.put("b.g3", 2_500_000, mtime_s=1_600_000_000)
    world.generate()
    before = world.snapshot(world.root)
    run = world.run_pass("--dry-run", check=0)
    assert run.out.splitlines() == [
        "would copy a.g3 (1 kB) to P01 and S01",
        "would copy b.g3 (2.5 MB) to P01 and S01",
        "Dry run: nothing was changed.",
    ]
    assert before.differences(world.snapshot(world.root)) == []
    world.run_pass(check=0)
    nothing = "Dry run: nothing would be copied: "
    assert world.run_pass("--dry-run", check=0).out == f"{nothing}no file waits in the buffer\n"
    world.configure(SettleTime="1 h")
    for name in ("1.g3", "2.g3", "3.g3"):
        (world.buffer / name).touch()
    run = world.run_pass("--dry-run", check=0)
    assert run.out == f"{nothing}3 files are younger than 3600 s\n"
    world.configure(SettleTime="0 s")
    for name in ("1.g3", "2.g3", "3.g3"):
        (world.buffer / name).unlink()
    world.put("c.g3")
    before = world.snapshot(world.root)
    assert "would copy c.g3 (1 kB) to P01 and S01" in world.run_pass("--dry-run", check=0).out
    assert before.differences(world.snapshot(world.root)) == []


def test_a_dry_run_tells_what_would_stay_and_ends_as_a_pass_would(world: World) -> None:
    """A refused name and a role without a disk: said, with exit 1, and nothing is written."""
    world.put("per%cent.g3")
    world.put("a.g3")
    world.generate()
    before = world.snapshot(world.root)
    run = world.run_pass("--dry-run", check=1)
    assert "would copy a.g3" in run.out
    assert "per%cent.g3" in run.out + run.err
    assert before.differences(world.snapshot(world.root)) == []
    world.ledger.withdraw("per%cent.g3", "renamed")
    (world.buffer / "per%cent.g3").unlink()
    for label in ("S01", "S02"):
        world.disks[label].rmdir()
    run = world.run_pass("--dry-run", check=1)
    assert "No copy disk can take a.g3" in run.out + run.err
    assert world.notices() == set()
    for label in ("S01", "S02"):
        world.disks[label].mkdir()


# --- status -------------------------------------------------------------------------------

STATUS_KEYS = {"at_s", "config_path", "db_path", "stand_ins", "buffer", "disks", "archived"}

STATUS_KEYS |= {"unidentified_drives", "content"}


STATUS_KEYS |= {
    "lacking_copies",
    "confirmed_files",
    "without_good_copy",
    "pending",
    "notices",
    "last_pass",
    "undelivered",
    "pause",
}


STATUS_KEYS |= {"looked_at_s", "verdict", "reasons", "warnings"}

STATUS_KEYS |= {"ended_at_s", "at_work", "lock_holder", "removes_files", "last_archived_at"}

STATUS_KEYS |= {"newest_record_at", "is_read_only", "channels", "has_watchdog"}

BUFFER_KEYS = {"fault", "finished_files", "finished_bytes", "unfinished_files", "other_files"}

BUFFER_KEYS |= {"links_and_specials", "oldest_at_s", "used_percent"}


def test_status_tells_everything_on_one_screen(world: World) -> None:
    """The verdict first; then buffer, totals, last pass, disks, what failed, open notices."""
    world.put("a.g3", 1_000_000)
    world.put("per%cent.g3")
    world.generate()
    text = world.status(check=0).out
    assert "Last pass  none has had anything to do yet" in text
    world.run_pass(check=1)
    world.put("b.g3", 3000)
    lines = world.status(check=0).out.splitlines()
    assert lines[:2] == [
        "LOOK TODAY: per%cent.g3: this name can't be archived (bad-name)",
        "STAND-INS: plain directories instead of drives, for demo and tests only.",
    ]
    assert lines[2].startswith(f"Archive    {world.db_path}, ") and "UTC" in lines[2]
    assert lines[3].startswith("Buffer     2 finished files wait (4 kB, the oldest of ")
    assert "Archived   1 file, 1 MB; in the last day 1 (1 MB), in the last week 1 (1 MB)" in lines
    text = "\n".join(lines)
    assert re.search(r"^Last pass  .* UTC: done, 1 file archived \(1 MB\), 1 failure$", text, re.M)
    for label in ("P01", "S01"):
        assert re.search(rf"^In use     {label}  ZT{label}AA  \[#*-*\] \d+ %, .* free", text, re.M)
    assert "Spare      1 primary mounted: P02\nSpare      1 copy mounted: S02\n" in text
    assert "  per%cent.g3: it holds a % or a backslash (tried 1 time" in text
    assert re.search(r"^WARNING bad-name per%cent.g3, since \d\d:\d\d UTC:$", text, re.M)


def test_status_as_json_has_stable_keys(world: World) -> None:
    """The same for programs; times in seconds or as in the database."""
    world.put("a.g3", 1_000_000)
    world.put("per%cent.g3")
    world.generate()
    world.run_pass(check=1)
    found = world.status("--json", check=0).json()
    assert found.keys() == STATUS_KEYS
    assert found["buffer"].keys() >= BUFFER_KEYS
    assert found["stand_ins"] is True
    assert abs(found["at_s"] - time.time()) < 60
    assert (found["archived"]["files"], found["archived"]["size_bytes"]) == (1, 1_000_000)
    assert (found["verdict"], len(found["reasons"])) == ("LOOK TODAY", 1)
    disks = {item["disk"]["label"]: item for item in found["disks"]}
    assert disks.keys() == {"P01", "P02", "S01", "S02"}
    first = disks["S01"]
    about = {"is_mounted", "full_at_s", "oldest_verified_at", "health", "never_read", "overdue"}
    about.add("hours_since_tested")
    about |= {"left_at"}
    assert first.keys() == {"disk"} | about and first["is_mounted"] is True
    assert first["disk"].keys() >= {"label", "role", "serial", "logical_id", "state", "held_by"}
    assert (first["disk"]["role"], first["disk"]["state"]) == ("copy", "active")
    (pending,) = found["pending"]
    assert (pending["name"], pending["attempts"], pending["kind"]) == ("per%cent.g3", 1, "bad-name")
    (notice,) = found["notices"]
    assert notice.keys() == {
        "id",
        "kind",
        "key",
        "severity",
        "text",
        "value",
        "opened_at",
        "reopened",
        "resolved_at",
        "acked_until",
    }
    assert (notice["kind"], notice["severity"]) == ("bad-name", "warning")
    assert found["last_pass"]["outcome"] == "done"
    assert found["last_pass"]["files_archived"] == 1


def test_anybody_who_may_read_can_ask_for_the_status(world: World) -> None:
    """Without any right to write; neither it nor a dry run leaves a trace."""
    world.put(NAME)
    world.generate()
    world.run_pass(check=0)
    world.put("b.g3")
    with read_only(world):
        before = world.snapshot(world.root)
        run = world.run_pass("status", check=0, prefix=POWERLESS)
        assert "Archived   1 file" in run.out and run.err == ""
        run = world.run_pass("--dry-run", check=0, prefix=POWERLESS)
        assert "would copy b.g3" in run.out
        assert before.differences(world.snapshot(world.root)) == []


def test_status_works_while_a_pass_writes_to_the_database(world: World) -> None:
    """A transaction that is not committed yet hides nothing, and is not seen."""
    world.generate()
    with closing(sqlite3.connect(world.db_path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE disks SET held_by = 'person', held_reason = hex(zeroblob(9000))")
        with read_only(world):
            assert len(os.listdir(world.db_path.parent)) >= 2  # the database and its journal
            run = world.run_pass("status", check=0, prefix=POWERLESS)
        db.rollback()
    assert "P01" in run.out and "HELD" not in run.out


def test_status_works_while_a_pass_copies(world: World) -> None:
    """It says that a pass is at work, and disturbs it in nothing."""
    world.put(NAME, 20_000_000)
    world.generate()
    process = world.start("data_manager.py")
    disk = world.disks["P01"]
    deadline = time.monotonic() + 30
    while not ((disk / "bag-info.txt").exists() and os.listdir(disk / ".incoming")):
        assert process.poll() is None and time.monotonic() < deadline, world.log()
    os.kill(process.pid, signal.SIGSTOP)
    run = world.status()
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    assert run.code == 0
    assert "at work" in run.out
    world.run_pass(check=0)


KILLED_WRITER = """\
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")  # so that a part of it reaches the file before the commit
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE disks SET held_by = 'person', held_reason = hex(zeroblob(9000))")
db.execute("UPDATE notices SET text = ''")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("may_write", [True, False])
def test_status_works_after_a_crash_in_the_middle_of_a_commit(
    world: World, may_write: bool
) -> None:
    """That is when a person asks for it; what was not committed is not shown."""
    world.generate()
    subprocess.run([sys.executable, "-c", KILLED_WRITER, world.db_path], check=False)
    assert Path(f"{world.db_path}-journal").stat().st_size > 512
    before = world.snapshot(world.db_path.parent)
    if may_write:
        run = world.status()
    else:
        with read_only(world):
            run = world.run_pass("status", prefix=POWERLESS)
    assert (run.code, run.err) == (0, "")
    assert "P01" in run.out and "HELD" not in run.out
    assert before.differences(world.snapshot(world.db_path.parent)) == []
    world.run_pass(check=0)


def test_a_command_that_waits_says_for_whom_and_gives_up(world: World) -> None:
    """On standard error, with the process and since when it runs; after ten minutes exit 1, with
    nothing changed. (One second here.)"""
    world.generate()
    impatient = with_constant(app, "WAIT_AT_MOST_S", 1.0)
    turn = f"{world.db_path}.turn"
    with subprocess.Popen(["flock", turn, "sleep", "60"]) as process:
        while str(process.pid) not in Path("/proc/locks").read_text():
            assert process.poll() is None
        run = world.run_pass("hold", "--yes", "P02", "--why", "test", check=1, prefix=impatient)
        process.kill()
    who = f"process {process.pid} (flock {turn} sleep 60), which began 20"
    assert run.err.startswith(f"Waiting for {who}")
    assert f"It took too long to wait for {who}" in run.err and "Nothing was changed." in run.err
    assert world.sql("SELECT * FROM disks WHERE held_by IS NOT NULL") == []
    subprocess.run(["pkill", "--parent", str(process.pid)], check=False)
