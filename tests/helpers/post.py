"""Real receivers on the loopback interface: a mail server, and a web server with many moods."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server
from typing import Any

import pytest
from aiosmtpd.controller import Controller

WORD = "hunter2-is-secret"  # in every URL: it must turn up nowhere


@dataclass(frozen=True)
class Mail:
    """A message that arrived."""

    subject: str
    body: str


@dataclass
class Receiver:
    """What arrived so far; ``mood``: ok, 500, slow (answers after 60 s)."""

    port: int = 0
    mood: str = "ok"
    got: list[Mail] = field(default_factory=list)
    beats: list[str] = field(default_factory=list)  # paths that were fetched
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def smtp_url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}/?from=spt@pole.test&to=wo@pole.test&name={WORD}"

    @property
    def http_url(self) -> str:
        return f"json://user:{WORD}@127.0.0.1:{self.port}/{WORD}"

    def subjects(self) -> list[str]:
        return [mail.subject for mail in self.got]


class _Inbox:
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        text = mail.get_body(("plain", "html"))
        body = text.get_content().replace("\r\n", "\n") if text else ""
        self._receiver.got.append(Mail(str(mail["Subject"]), body))
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[Receiver]:
    """A real SMTP server; its mails are in ``got``."""
    receiver = Receiver(_free_port())
    controller = Controller(_Inbox(receiver), hostname="127.0.0.1", port=receiver.port)
    controller.start()
    try:
        yield receiver
    finally:
        controller.stop()


@contextmanager
def web_server() -> Iterator[Receiver]:
    """A real HTTP server: apprise's JSON messages are in ``got``, fetched paths in ``beats``."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self._answer():
                receiver.got.append(Mail(sent["title"], sent["message"]))

        def do_GET(self) -> None:
            if self._answer():
                receiver.beats.append(self.path)

        def _answer(self) -> bool:
            if receiver.mood == "slow":
                receiver.over.wait(60)
            is_ok = receiver.mood == "ok"
            self.send_response(200 if is_ok else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return is_ok

        def log_message(self, *args: object) -> None:
            pass  # nobody reads it

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def refused_port() -> int:
    """A port at which nobody listens."""
    return _free_port()


def wait_for(condition: Any, timeout_s: float = 30) -> None:
    """Until this is true; fails after ``timeout_s``."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def smtp() -> Iterator[Receiver]:
    with mail_server() as receiver:
        yield receiver


@pytest.fixture
def web() -> Iterator[Receiver]:
    with web_server() as receiver:
        yield receiver
