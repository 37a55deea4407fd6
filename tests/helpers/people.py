"""The people of a station: everybody gets mail, and a pager rings for what is critical."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from poledata.models import Severity
from poledata.notices.kinds import DIGEST, KINDS
from tests.helpers.post import WORD, Mail, Receiver
from tests.helpers.world import Run, World

SUBJECT_CHARACTERS = 80
PAGER = """\
#!/bin/sh
{{ cat; printf '\\0'; }} >>'{pages}'
"""


@dataclass(frozen=True)
class People:
    """A mail server and a local pager; ``environ`` tells the manager of both."""

    mail: Receiver
    place: Path

    @property
    def environ(self) -> dict[str, str]:
        return {
            "POLE_NOTIFY_URLS": self.mail.smtp_url,
            "POLE_PAGER_COMMAND": f"{self._pager()} {WORD}",
        }

    @property
    def mails(self) -> list[Mail]:
        return self.mail.got

    @property
    def pages(self) -> list[Mail]:
        pages = self.place / "pages"
        texts = pages.read_text().split("\0")[:-1] if pages.exists() else []
        return [Mail(*text.split("\n\n", 1)) for text in texts]

    def run(self, world: World, *args: str, **how: Any) -> Run:
        """A pass, or a command, of which these people are told."""
        return world.run_pass(*args, env={**self.environ, **how.pop("env", {})}, **how)

    def _pager(self) -> Path:
        pager = self.place / "page"
        if not pager.exists():
            pager.write_text(PAGER.format(pages=self.place / "pages"))
            pager.chmod(0o755)
        return pager


def heads(message: Mail, news: str) -> set[str]:
    """``SEVERITY kind`` of each paragraph with this news."""
    lines = message.body.splitlines()
    return {":".join(line.split(":")[:1]).removeprefix(news).strip() for line in lines
            if line.startswith(f"{news}  ")}  # fmt: skip


def paragraph(message: Mail, kind: str) -> str:
    """All that a message says of one kind."""
    found = [p for p in message.body.split("\n\n") if re.match(rf"[A-Z ]+  [A-Z]+ {kind}: ", p)]
    assert len(found) == 1, message.body
    return found[0]


def must_read_well(message: Mail, world: World) -> None:
    """Its subject is short and plain, its end is the state of the archive in five lines."""
    assert re.match(r"\[pole-data\] (CRITICAL|WARNING|INFO|resolved) \S", message.subject)
    assert len(message.subject) <= SUBJECT_CHARACTERS
    state = message.body.rstrip().split("\n\n")[-1].splitlines()
    assert len(state) == 5 and state[0].startswith(f"The archive {world.db_path}, "), state
    assert WORD not in message.subject + message.body


def must_tell(message: Mail, kind: str, key: str, severity: Severity | None = None) -> None:
    """What, since when, what is safe, numbered steps, and where all of it stands."""
    said = paragraph(message, kind)
    word = (severity or KINDS[kind].severity).value.upper()
    assert f"  {word} {kind}: " in said.splitlines()[0]
    assert key in said.splitlines()[0] + said.splitlines()[1], said
    assert re.search(r"^  since .*\d\d:\d\d UTC|\(since .*\d\d:\d\d UTC", said, re.MULTILINE)
    assert f"  What is safe: {KINDS[kind].safe}" in said
    steps = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    assert steps[-len(KINDS[kind].steps) :] == [
        f"{number}. {step}" for number, step in enumerate(KINDS[kind].steps, start=1)
    ]
    assert f"section {kind} in docs/operators.md" in said


@dataclass(frozen=True)
class Story:
    """A station and its people, from one pass to the next."""

    world: World
    people: People

    def run(self, *args: str, **how: Any) -> Run:
        return self.people.run(self.world, *args, **how)

    def quiet(self, *args: str, **how: Any) -> None:
        """Nobody is told of anything."""
        assert self.news(*args, **how) == []

    def news(self, *args: str, **how: Any) -> list[Mail]:
        """What is mailed because of this run; the pager gets the critical part of it, no more."""
        mails, pages = len(self.people.mails), len(self.people.pages)
        self.run(*args, **how)
        new = self.people.mails[mails:]
        for mail in new:
            must_read_well(mail, self.world)
        paged = [page for page in self.people.pages[pages:] if DIGEST not in page.body]
        assert _critical(paged) == _critical(new), (paged, new)
        assert all(_may_ring(line) for page in paged for line in _openings(page)), paged
        return new

    def opens(
        self,
        kind: str,
        key: str,
        check: int,
        *args: str,
        severity: Severity | None = None,
        **how: Any,
    ) -> Mail:
        """This run tells of it, in one message."""
        new = self.news(*args, check=check, **how)
        assert len(new) == 1, new
        must_tell(new[0], kind, key, severity)
        return new[0]

    def ends(self, kind: str, key: str, check: int | None = 0, *args: str, **how: Any) -> Mail:
        """This run tells of its end, in one message; the next one of nothing."""
        new = self.news(*args, check=check, **how)
        assert len(new) == 1, new
        said = paragraph(new[0], kind)
        assert said.startswith("RESOLVED  ") and key in said, said
        assert re.search(r"from .*\d\d:\d\d UTC.* to .*\d\d:\d\d UTC", said), said
        assert "What to do" not in said
        self.quiet()
        ends = [mail for mail in self.people.mails if f"RESOLVED  {_word(said)}" in mail.body]
        assert len(ends) == 1
        return new[0]


def _word(said: str) -> str:
    return said.splitlines()[0].removeprefix("RESOLVED  ")


def _openings(message: Mail) -> list[str]:
    return re.findall(r"^(?:NEW|WORSE|BACK|STILL OPEN|RESOLVED)  .*$", message.body, re.MULTILINE)


def _may_ring(line: str) -> bool:
    """What was critical may have become less before it was over."""
    return " CRITICAL " in line or line.startswith("RESOLVED  ")


def _critical(messages: list[Mail]) -> set[str]:
    """What is critical; to the pager it may be new when it is worse to others."""
    lines = (line for message in messages for line in _openings(message))
    texts = {line.partition("  ")[2] for line in lines if " CRITICAL " in line}
    return {text.replace(": worse: ", ": ").replace(": back: ", ": ") for text in texts}


@pytest.fixture
def people(smtp: Receiver, tmp_path: Path) -> People:
    place = tmp_path / "people"
    place.mkdir()
    return People(smtp, place)
