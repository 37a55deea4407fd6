"""No secret is seen anywhere; .env is found, and what is wrong with it is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from poledata.notices import send_child
from tests.helpers.documents import REFERENCE
from tests.helpers.halted import ready_world
from tests.helpers.link import BAD_NAME, children, put_bad_name, rested, take_away, write_env
from tests.helpers.people import People, Story
from tests.helpers.post import WORD, Receiver, mail_server, refused_port, wait_for
from tests.helpers.world import REPO, World

QUOTED = "a-word-inside-quotes"  # the secret of a command within a command


@pytest.fixture
def station(world: World) -> World:
    """P01 and S01 in use; no disk for copies, so that the pager has something to say."""
    return ready_world(world)


def failing(smtp: Receiver) -> dict[str, str]:
    """One channel that works, and others that fail and say all they know."""
    tells_all = f'sh -c "echo refused: token {QUOTED} {WORD} >&2; exit 1" x {WORD}'
    dead = f"127.0.0.1:{refused_port()}"
    return {
        "POLE_NOTIFY_URLS": f"{smtp.smtp_url} json://u:{WORD}@{dead}/{WORD} slack://{WORD}/b/c",
        "POLE_PAGER_URLS": f"json://u:{WORD}@{dead}/{WORD} nonsense://{WORD}",
        "POLE_PAGER_COMMAND": tells_all,
        "POLE_HEARTBEAT_COMMAND": tells_all,
        "POLE_HEARTBEAT_URL": f"http://u:{WORD}@{dead}/{WORD}",
    }


def test_no_secret_is_in_the_log_the_database_a_message_or_on_the_screen(
    station: World, smtp: Receiver
) -> None:
    """Every channel fails but one, and is told of everything, with -v."""
    env = write_env(station, **failing(smtp))
    take_away(station, "S01", "S02")
    station.put("a.g3")
    put_bad_name(station)
    seen = []
    for args in (
        ("-v",),
        ("-v", "notify", "--test"),
        ("-v", "status", "--send"),
        ("-v", "status"),
        ("-v", "status", "--json"),
        ("-v", "check"),
        ("-v", "ack", "bad-name", BAD_NAME),
        ("-v",),
    ):
        rested(station)
        run = station.run_pass(*args, check=(0, 1))
        seen += [run.out, run.err]
    config = station.config_path.read_text()
    station.configure(Extension=None)
    seen.append(station.run_pass("-v", check=2).err)
    station.config_path.write_text(config)
    aside = station.db_path.rename(station.root / "aside")
    seen.append(station.run_pass("-v", check=2).err)
    aside.rename(station.db_path)
    for label in ("S01", "S02"):
        (station.root / f"away-{label}").rename(station.disks[label])
    seen += [part for mail in smtp.got for part in (mail.subject, mail.body)]
    assert len(smtp.got) >= 4
    assert station.sql("SELECT count(*) FROM deliveries WHERE last_error <> ''")[0][0] >= 5
    said = "\n".join(seen)
    for secret in (WORD, QUOTED):
        assert secret not in said
        for path in station.root.rglob("*"):
            if path.is_file() and path != env:
                assert secret.encode() not in path.read_bytes(), path
    assert "could not be sent: exit status 1: " in station.log()
    (station.buffer / BAD_NAME).unlink()
    station.run_pass(check=(0, 1))


def test_no_url_is_in_the_arguments_of_any_process(station: World, web: Receiver) -> None:
    """While a pass sends, everybody on the machine can read them."""
    web.mood = "slow"
    write_env(station, POLE_NOTIFY_URLS=f"{web.http_url}?rto=100&cto=100")
    put_bad_name(station)
    process = station.start("data_manager.py")
    wait_for(lambda: any(send_child.__name__ in line for line in children(process.pid)))
    mine = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
    seen = "\n".join((mine, *children(process.pid)))
    web.over.set()
    assert process.wait(timeout=60) == 1
    assert send_child.__name__ in seen and WORD not in seen
    (station.buffer / BAD_NAME).unlink()


# --- .env -----------------------------------------------------------------------------------


def test_the_env_file_beside_the_configuration_is_used_and_the_environment_wins(
    station: World, smtp: Receiver
) -> None:
    """cron gives no environment."""
    write_env(station, POLE_NOTIFY_URLS=smtp.smtp_url)
    put_bad_name(station)
    station.run_pass(check=1)
    assert len(smtp.got) == 1
    (station.buffer / BAD_NAME).unlink()
    with mail_server() as other:
        station.run_pass(check=0, env={"POLE_NOTIFY_URLS": other.smtp_url})
        assert (len(smtp.got), len(other.got)) == (1, 1)


def test_an_env_file_that_can_not_be_read_is_said_where_a_person_looks(station: World) -> None:
    """Else nobody is told of anything, and nobody knows: ``status``, ``check``, ``notify``."""
    path = write_env(station, POLE_NOTIFY_URLS=f"json://{WORD}")
    path.unlink()
    path.mkdir()
    why = f"{path}: can't be read (Is a directory); what it holds is not used"
    assert f"FAULT {why}" in station.run_pass("check", check=1).out
    for args in (("status",), ("notify", "--test")):
        run = station.run_pass(*args, check=(0, 1))
        assert why in run.out + run.err, args
    station.run_pass(check=0)
    assert why in station.log()


def test_an_env_file_that_others_can_read_is_said(station: World) -> None:
    """With the command that mends it."""
    path = write_env(station, 0o644, POLE_NOTIFY_URLS=f"json://{WORD}")
    run = station.run_pass("check", check=1)
    assert f"run: chmod 600 {path}" in run.out and WORD not in run.out


# --- a test message -------------------------------------------------------------------------


def test_a_test_says_which_channel_works(station: World, people: People) -> None:
    """Exit 0 if all do; the archive is not touched."""
    story = Story(station, people)
    before = station.snapshot(station.db_path)
    run = story.run("notify", "--test", check=0)
    assert run.out.splitlines() == ["notify-1-mailto: sent", "pager-command: sent"]
    assert people.mails[0].subject == "[pole-data] a test: nothing is wrong"
    assert people.pages[0].subject == people.mails[0].subject
    assert story.run("notify", "--test", "--quiet", check=0).out == ""
    assert before.differences(station.snapshot(station.db_path)) == []


def test_the_relay_of_the_example_needs_no_login(station: World, smtp: Receiver) -> None:
    """Its line in .env.example works as it is, with the relay's own address."""
    text = (REPO / ".env.example").read_text()
    (url,) = re.findall(r"^#   POLE_NOTIFY_URLS='(.*)'$", text, re.MULTILINE)
    assert f"POLE_NOTIFY_URLS='{url}'" in REFERENCE
    here = url.replace("relay.example.org:25", f"127.0.0.1:{smtp.port}")
    run = station.run_pass("notify", "--test", check=0, env={"POLE_NOTIFY_URLS": here})
    assert run.out == "notify-1-mailto: sent\n"
    assert smtp.subjects() == ["[pole-data] a test: nothing is wrong"]


def test_a_test_says_which_channel_does_not(station: World, smtp: Receiver) -> None:
    """Exit 1; those that work are tried all the same, and so is the watchdog."""
    run = station.run_pass("notify", "--test", check=1, env=failing(smtp))
    lines = run.out.splitlines()
    assert lines[0] == "notify-1-mailto: sent" and len(smtp.got) == 1
    begin = ["notify-2-json", "notify-3-slack", "pager-1-json", "pager-2-nonsense"]
    begin += ["pager-command", "heartbeat", "heartbeat"]
    for line, name in zip(lines[1:], begin, strict=True):
        assert line.startswith(f"{name}: FAILED: "), line


def test_without_any_channel_a_test_says_so(station: World) -> None:
    """Exit 1: nobody would be told of anything."""
    run = station.run_pass("notify", "--test", check=1)
    assert "No channel is set: nobody is notified of anything" in run.out
