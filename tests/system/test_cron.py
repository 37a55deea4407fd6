"""The examples, with Debian's own cron daemon and logrotate: what they do, and what they mail.

cron reads its crontabs from, and sends mail through, paths that are compiled in. So it runs in a
mount namespace of its own, with other directories there: this machine's crontabs are not seen,
and nothing is left behind.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.halted import HaltedPass, needs_strace, ready_world
from tests.helpers.link import put_bad_name, write_env
from tests.helpers.loopdisks import SEARCHED
from tests.helpers.people import must_read_well
from tests.helpers.post import Receiver, wait_for
from tests.helpers.world import REPO, World

EXAMPLES = REPO / "examples"
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # also where the test itself is killed
PID_FILE = Path("/run/crond.pid")
TWO_MINUTES_S = 200
# /usr/sbin becomes a directory of links to what is there, with a sendmail that keeps the mail.
PRIVATE = """\
set -e
cd {place}
mkdir sbin real crontabs cron.d mails
mount --bind /usr/sbin real
for program in real/*; do ln -s "$PWD/$program" sbin/; done
rm -f sbin/sendmail
printf '#!/bin/sh\\nexec cat >"$(mktemp {place}/mails/XXXXXX)"\\n' >sbin/sendmail
chmod 755 sbin/sendmail
cp {crontab} crontabs/root
chmod 600 crontabs/root
: >empty
: >pid
mount --bind sbin /usr/sbin
mount --bind crontabs /var/spool/cron/crontabs
mount --bind cron.d /etc/cron.d
[ ! -e /etc/crontab ] || mount --bind empty /etc/crontab
mount --bind pid /run/crond.pid
exec {place}/real/cron -f
"""


@contextmanager
def cron(place: Path, crontab: str) -> Iterator[Path]:
    """The daemon with this crontab of root's alone; yields where its mails go."""
    place.mkdir()
    (place / "crontab").write_text(crontab)
    script = PRIVATE.format(place=shlex.quote(str(place)), crontab=place / "crontab")
    is_new = not PID_FILE.exists()  # a mount needs something to be mounted on
    PID_FILE.touch()
    with (place / "said").open("w") as said:
        daemon = subprocess.Popen(
            [*ENDS_WITH_US, "unshare", "--mount", "--propagation=private", "sh", "-c", script],
            env={"PATH": SEARCHED},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield place / "mails"
        assert daemon.poll() is None, (place / "said").read_text()
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait(timeout=30)
        if is_new:
            PID_FILE.unlink()


def crontab_for(world: World) -> str:
    """The example, of this station; and its digest every minute instead of once a day."""
    text = (EXAMPLES / "crontab").read_text()
    for example, here in (
        ("/opt/spt/venv/bin/python", sys.executable),
        ("/opt/spt/data_manager.py", str(REPO / "data_manager.py")),
        ("/opt/spt/spt.config", str(world.config_path)),
        ("MAILTO=spt", "MAILTO=root"),
        ("\n0 12 * * * ", "\n* * * * * "),
    ):
        assert example in text
        text = text.replace(example, here)
    return text


@pytest.mark.waits
@pytest.mark.timeout(240)
def test_cron_archives_by_its_own_clock_and_mails_only_what_needs_a_person(
    world: World, smtp: Receiver
) -> None:
    """Two passes, two files; one file that is stuck, and a digest: no mail of cron's.

    A line with a faulty configuration beside it is mailed by cron each minute, by us once.
    """
    ready_world(world)
    write_env(world, POLE_NOTIFY_URLS=smtp.smtp_url)
    put_bad_name(world)
    world.put("first.g3")
    faulty = world.root / "faulty.config"
    faulty.write_text("[station]\nSetleTime = 1 s\n")
    text = crontab_for(world)
    line = next(line for line in text.splitlines() if line.endswith(str(world.config_path)))
    text += line.replace(str(world.config_path), str(faulty)) + "\n"
    with cron(world.root / "cron", text) as mails:
        wait_for(lambda: "first.g3" in world.archived("S01"), TWO_MINUTES_S)
        world.put("second.g3")
        wait_for(lambda: "second.g3" in world.archived("S01"), TWO_MINUTES_S)
        wait_for(lambda: len(list(mails.iterdir())) >= 2)
        wait_for(lambda: any("\nLast pass  " in mail.body for mail in smtp.got), TWO_MINUTES_S)
        wait_for(lambda: any("NEW  WARNING bad-name" in m.body for m in smtp.got), TWO_MINUTES_S)
        done = "SELECT outcome FROM passes WHERE outcome = 'done'"
        wait_for(lambda: len(world.sql(done)) >= 3, TWO_MINUTES_S)
        mailed = [path.read_text() for path in mails.iterdir()]
    for mail in mailed:
        assert str(faulty) in mail and "SetleTime" in mail and "Subject: Cron <root@" in mail
    told = [mail for mail in smtp.got if "NEW  WARNING bad-name" in mail.body]
    assert len(told) == 1, smtp.got
    (of_faulty,) = (mail for mail in smtp.got if "CRITICAL config-error" in mail.body)
    assert of_faulty.body.endswith(f"is not available: {faulty} can't be used.\n")
    for message in smtp.got:
        if message is not of_faulty:
            must_read_well(message, world)
    world.run_pass(check=1)  # what the kill may have cut short
    (world.buffer / "100%.g3").unlink()


def test_the_digest_line_is_as_silent_as_a_pass(world: World) -> None:
    """cron would mail whatever it prints, every day."""
    ready_world(world)
    lines = (EXAMPLES / "crontab").read_text().splitlines()
    (line,) = (line for line in lines if "--send" in line)
    args = line.split("/opt/spt/spt.config ")[1].split()
    run = world.run_pass(*args, check=0)
    assert (run.out, run.err) == ("", "")


@needs_strace
def test_the_log_is_rotated_while_a_pass_writes_and_loses_no_line(
    world: World, tmp_path: Path
) -> None:
    """A pass goes on in the file that was rotated away; the next one writes a new one."""
    ready_world(world)
    put_bad_name(world)
    world.run_pass(check=1)
    before = world.log()
    world.put("a.g3")
    put_bad_name(world, "b%.g3")
    halted = HaltedPass(world, "linkat", [world.disks["P01"] / ".incoming"])
    rotate(world, tmp_path)
    rotated = world.log_path.with_name("data_manager.log.1")
    assert rotated.read_text().startswith(before)
    assert world.log() == ""
    halted.go_on(check=1)
    put_bad_name(world, "c%.g3")
    world.run_pass(check=1)
    told = re.findall(r"bad-name (\S+):", rotated.read_text() + world.log())
    assert told == ["100%.g3", "b%.g3", "c%.g3"]
    assert "c%.g3" in world.log()
    rotate(world, tmp_path)
    assert (world.log_path.parent / "data_manager.log.2.gz").exists()
    (owner,) = {path.stat().st_uid for path in world.log_path.parent.glob("data_manager.log*")}
    assert owner == os.geteuid()
    for name in ("100%.g3", "b%.g3", "c%.g3"):
        (world.buffer / name).unlink()


def rotate(world: World, tmp_path: Path) -> None:
    """As cron.daily does it, but now."""
    text = (EXAMPLES / "logrotate").read_text()
    text = text.replace("/var/lib/pole-data/data_manager.log", str(world.log_path))
    text = text.replace("spt spt", "root root")
    example = tmp_path / "pole-data"
    example.write_text(text)
    command = [str(shutil.which("logrotate", path=SEARCHED)), "--force", "--state"]
    done = subprocess.run(
        [*command, tmp_path / "state", example], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
