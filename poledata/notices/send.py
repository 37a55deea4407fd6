"""Send to people, and the heartbeat to the watchdog: each in a child process with a time-out.

A child that hangs is killed, so that no server and no pager causes a longer delay; and a broken
apprise breaks nothing else. Secrets reach it on its standard input, never in its arguments, which
every user of the machine can see.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poledata.config import Secrets
from poledata.formatting import printable
from poledata.models import Channel, Message

if TYPE_CHECKING:
    import subprocess  # a pass that sends nothing starts no child

SEND_TIMEOUT_S = 30.0
HEARTBEAT_TIMEOUT_S = 10.0
_KILLED_TIMEOUT_S = 5.0  # a child that hangs in the kernel ends later, and nothing waits for it
_LONGEST_ANSWER_CHARACTERS = 160

log = logging.getLogger(__name__)


def configured_channels(secrets: Secrets) -> tuple[Channel, ...]:
    """Return every configured channel. Its name shows its kind, never its address."""
    found = [
        Channel(f"{use}-{number}-{_scheme(url)}", url, is_pager=use == "pager")
        for use, urls in (("notify", secrets.notify_urls), ("pager", secrets.pager_urls))
        for number, url in enumerate(urls, start=1)
    ]
    if secrets.pager_command:
        found.append(Channel("pager-command", secrets.pager_command, True, True))
    return tuple(found)


def _scheme(url: str) -> str:
    scheme = re.match(r"[a-z][a-z0-9]{0,15}(?=://)", url.lower())
    return scheme[0] if scheme else "url"


def send_through(channel: Channel, message: Message) -> str | None:
    """Send a message; return why that failed, in words without secrets, or None.

    All text leaves through here: what a terminal or a mail program would obey is escaped.
    """
    subject, body = " ".join(printable(message.subject).splitlines()), printable(message.body)
    if channel.is_command:
        return _run_command(channel.target, f"{subject}\n\n{body}\n", SEND_TIMEOUT_S)
    order = {"notify": channel.target, "subject": subject, "body": body}
    return _run_child(order, SEND_TIMEOUT_S)


def why_unusable(channel: Channel) -> str | None:
    """Return why nothing can be sent through a channel, as far as that shows without sending."""
    if not channel.is_command:
        return _run_child({"check": channel.target}, SEND_TIMEOUT_S)
    import shutil

    try:
        program, *_ = shlex.split(channel.target)
    except ValueError as why:
        return f"its command can't be read ({why})"
    return None if shutil.which(program) else "there is no such program, or it can't be run"


def heartbeat(secrets: Secrets) -> list[str]:
    """Send the heartbeat to the watchdog; return what failed."""
    faults = []
    if secrets.heartbeat_command:
        fault = _run_command(secrets.heartbeat_command, "", HEARTBEAT_TIMEOUT_S)
        faults += [f"POLE_HEARTBEAT_COMMAND: {fault}"] if fault else []
    if secrets.heartbeat_url:
        fault = _run_child({"get": secrets.heartbeat_url}, HEARTBEAT_TIMEOUT_S)
        faults += [f"POLE_HEARTBEAT_URL: {fault}"] if fault else []
    for fault in faults:
        log.warning("the watchdog got no heartbeat: %s", fault)
    return faults


def _run_command(command: str, text: str, timeout_s: float) -> str | None:
    try:
        argv = shlex.split(command)
    except ValueError as why:
        return f"its command can't be read ({why})"
    fault, answer = _run(argv, text, timeout_s, dict(os.environ))
    if fault is None or not answer:
        return fault
    from poledata.notices.send_child import without_words  # it imports what a pass does not need

    return f"{fault}: {without_words(answer, ' '.join(argv[1:]))}"


def _run_child(order: dict[str, str], timeout_s: float) -> str | None:
    import json

    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    argv = [sys.executable, "-X", "utf8", "-m", "poledata.notices.send_child"]
    fault, answer = _run(argv, json.dumps(order), timeout_s, environ)
    return fault and (answer or fault)


def _run(
    argv: Sequence[str], text: str, timeout_s: float, environ: dict[str, str]
) -> tuple[str | None, str]:
    """Return what went wrong, and the last line that the process printed.

    It reads and writes files in memory, so nothing waits for a pipe.
    """
    import subprocess

    with (
        os.fdopen(os.memfd_create("in"), "w+b") as order,
        os.fdopen(os.memfd_create("out"), "w+b") as answer,
    ):
        order.write(text.encode())
        order.seek(0)
        try:
            child = subprocess.Popen(
                argv,
                stdin=order,
                stdout=answer,
                stderr=answer,
                env=environ,
                cwd="/",
                start_new_session=True,
            )
        except OSError as why:
            return f"it can't be started ({why.strerror})", ""
        fault = _wait(child, timeout_s)
        answer.seek(0)
        lines = answer.read().decode("utf-8", "replace").split("\n")
    printed = [line.strip() for line in lines if line.strip()]
    return fault, printed[-1][:_LONGEST_ANSWER_CHARACTERS] if printed else ""


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> str | None:
    import subprocess

    try:
        status = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        try:
            child.wait(_KILLED_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("process %d does not die: it hangs in the kernel", child.pid)
        return f"no answer within {timeout_s:.0f} s"
    return f"exit status {status}" if status else None
