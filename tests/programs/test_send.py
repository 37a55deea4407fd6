"""Channels and the heartbeat: real servers, real commands, none can hang us or learn a secret."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from poledata.config import Secrets
from poledata.models import Message
from poledata.notices import send, send_child
from tests.helpers.link import command, url
from tests.helpers.post import WORD, Receiver, black_hole, refused_port, wait_for

MESSAGE = Message("[pole-data] WARNING P03: it is away", "Körper\n  1. Nothing\n")

# --- what arrives ---------------------------------------------------------------------------


def test_mail_arrives_whole(smtp: Receiver) -> None:
    """Through a real SMTP server."""
    assert send.send_through(url(smtp.smtp_url), MESSAGE) is None
    (mail,) = smtp.got
    assert mail.subject == MESSAGE.subject
    assert mail.body.splitlines()[:2] == ["Körper", "  1. Nothing"]


def test_a_web_service_gets_it_whole(web: Receiver) -> None:
    """Apprise's JSON stands for Slack and the rest."""
    assert send.send_through(url(web.http_url), MESSAGE) is None
    assert [(m.subject, m.body.strip()) for m in web.got] == [
        (MESSAGE.subject, MESSAGE.body.strip())
    ]


def test_a_command_gets_the_text_on_its_standard_input(tmp_path: Path) -> None:
    """The subject first: a pager shows hardly more."""
    assert send.send_through(command(f"tee '{tmp_path}/a page'"), MESSAGE) is None
    assert (tmp_path / "a page").read_text() == f"{MESSAGE.subject}\n\n{MESSAGE.body}\n"


# --- what fails -----------------------------------------------------------------------------


@pytest.mark.parametrize("mood", ["500", "refused", "not understood"])
def test_what_fails_is_said_without_a_secret(web: Receiver, mood: str) -> None:
    """The URL is in no error, whatever apprise or the system say."""
    web.mood = mood
    target = {
        "500": web.http_url,
        "refused": f"json://u:{WORD}@127.0.0.1:{refused_port()}/{WORD}",
        "not understood": f"nonsense://{WORD}",
    }[mood]
    fault = send.send_through(url(target), MESSAGE)
    assert fault and WORD not in fault
    assert web.got == []


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("false", "exit status 1"),
        ("cat /lost/modem", "exit status 1: cat: /…/…: No such file or directory"),
        ("/nowhere/page", "it can't be started (No such file or directory)"),
        ("page 'unclosed", "its command can't be read (No closing quotation)"),
        (f"sh -c 'echo {WORD} is bad; exit 1' {WORD}", "exit status 1: … is bad"),
        (f"sh -c 'echo no {WORD}; exit 1'", "exit status 1: no …"),
        ("sh -c 'kill -9 $$'", "exit status -9"),
    ],
)
def test_a_command_that_fails_is_reported(target: str, fault: str) -> None:
    """With its last line, but for the words of the command, which may be secret."""
    assert send.send_through(command(target), MESSAGE) == fault


def test_a_command_that_reads_nothing_of_a_long_text_does_not_block() -> None:
    """No pipe is filled: it reads a file in memory."""
    assert send.send_through(command("true"), Message("s", "x" * 10**6)) is None


@pytest.mark.parametrize("how", ["command", "black hole", "slow", "heartbeat"])
def test_what_hangs_is_killed_at_its_time_out(
    how: str, web: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all its children; the time-out holds for the whole, not for each read."""
    monkeypatch.setattr(send, "SEND_TIMEOUT_S", 2.0)
    monkeypatch.setattr(send, "HEARTBEAT_TIMEOUT_S", 2.0)
    web.mood = "slow"
    began_s = time.monotonic()
    with black_hole() as port:
        if how == "command":
            fault = send.send_through(
                command(f"sh -c 'sleep 61.5 & echo $! >{tmp_path}/pid; wait'"), MESSAGE
            )
            pid = (tmp_path / "pid").read_text().strip()
            wait_for(lambda: not _lives(pid))
        elif how == "heartbeat":
            (fault,) = send.heartbeat(Secrets(heartbeat_url=f"http://127.0.0.1:{port}/{WORD}"))
        else:
            target = web.http_url if how == "slow" else f"json://127.0.0.1:{port}/{WORD}"
            fault = send.send_through(url(f"{target}?rto=60&cto=60"), MESSAGE)
    assert fault and fault.endswith("no answer within 2 s") and WORD not in fault
    assert time.monotonic() - began_s < 30  # it would take 60


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_broken_apprise_is_only_a_channel_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever way it is broken."""
    (tmp_path / "apprise.py").write_text(f"raise RuntimeError('{WORD}')")
    run = subprocess.run(
        [sys.executable, "-m", send_child.__name__],
        input=f'{{"notify": "json://{WORD}@h", "subject": "s", "body": "b"}}',
        env={"PYTHONPATH": f"{tmp_path}:{Path(send.__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "it broke with RuntimeError\n")
    assert WORD not in run.stderr


# --- secrets --------------------------------------------------------------------------------


def test_no_secret_stands_in_the_process_list(web: Receiver) -> None:
    """Every user of the machine can read arguments and, of their own, environments."""
    web.mood = "slow"
    sender = threading.Thread(target=send.send_through, args=(url(web.http_url), MESSAGE))
    sender.start()
    wait_for(lambda: any(send_child.__name__ in line for line in _process_list()))
    seen = "\n".join(_process_list())
    web.over.set()
    sender.join()
    assert send_child.__name__ in seen
    assert WORD not in seen


def _process_list() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue  # it has ended
    return lines


# --- the heartbeat --------------------------------------------------------------------------


def test_the_heartbeat_is_a_command_or_a_url_or_both(web: Receiver, tmp_path: Path) -> None:
    """What is not set is not done."""
    both = Secrets(
        heartbeat_command=f"touch {tmp_path}/beat",
        heartbeat_url=f"http://127.0.0.1:{web.port}/ping/{WORD}",
    )
    assert send.heartbeat(both) == [] == send.heartbeat(Secrets())
    assert (tmp_path / "beat").exists() and web.beats == [f"/ping/{WORD}"]


def test_a_heartbeat_that_fails_is_said_without_its_secret(
    web: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The watchdog rings by itself; this says why."""
    web.mood = "500"
    said = send.heartbeat(
        Secrets(heartbeat_command="false", heartbeat_url=f"http://127.0.0.1:{web.port}/{WORD}")
    )
    assert said == [
        "POLE_HEARTBEAT_COMMAND: exit status 1",
        "POLE_HEARTBEAT_URL: the server answered 500",
    ]
    assert [r.getMessage() for r in caplog.records] == [
        f"the watchdog got no heartbeat: {fault}" for fault in said
    ]
