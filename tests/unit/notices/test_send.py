"""Channels and the heartbeat: real servers, real commands, none can hang us or learn a secret."""

from __future__ import annotations

import pytest

from poledata.config import Secrets
from poledata.models import Severity
from poledata.notices import send
from poledata.notices.send_child import without_secrets
from tests.helpers.link import command, url

# --- which channels there are ---------------------------------------------------------------


def test_a_channel_is_named_by_use_number_and_kind_never_by_its_url() -> None:
    """Its name stands in the database, the log and on the screen."""
    found = send.configured_channels(
        Secrets(("mailto://u:pw@h", "SLACK://a/b/c", "no url"), ("json://tok@h",), "page --now")
    )
    assert [c.name for c in found] == [
        "notify-1-mailto",
        "notify-2-slack",
        "notify-3-url",
        "pager-1-json",
        "pager-command",
    ]
    assert "pw" not in repr(found) and "tok" not in repr(found) and "--now" not in repr(found)


def test_a_pager_takes_the_critical_alone() -> None:
    """It rings at night."""
    for severity in Severity:
        assert url("json://h").takes(severity)
        assert command("page").takes(severity) is (severity is Severity.CRITICAL)


# --- secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("refused by mail.example.org", "mailto://me:pa55word@mail.example.org", "refused by …"),
        ("bad a%20b and a b cd", "json://h/a%20b/a%20b%20cd", "bad … and …"),
        ("two\nlines", "json://h", "two lines"),
        ("token xoxb-1234 is dead", "slack://xoxb-1234/b/c", "token … is dead"),
    ],
)
def test_every_part_of_a_url_is_taken_out(text: str, target: str, said: str) -> None:
    """Also where it stands unquoted; words shorter than four characters are no secret."""
    assert without_secrets(text, target) == said
