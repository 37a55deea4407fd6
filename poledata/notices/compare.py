"""Keep the open notices equal to the conditions that hold: nothing else opens or ends one.

Sending comes later (delivery_queue.py), and never delays or stops archiving.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable

from poledata import db
from poledata.models import ArchiveCondition, Channel

log = logging.getLogger(__name__)


def compare(
    conn: db.Connection,
    conditions: Iterable[ArchiveCondition],
    unknown_kinds: Container[str],
    channels: Iterable[Channel],
    at: str,
) -> None:
    """Open a notice for each new condition, renew what has changed, end those that are over.

    Open notices of kinds about which nothing is known now stay as they are.
    """
    now = {(each.kind, each.key): each for each in conditions if each.kind}
    channels = tuple(channels)
    with db.transaction(conn):
        before = {(n.kind, n.key): n for n in db.notices.open_notices(conn)}
        for key, each in now.items():
            was = before.get(key)
            text = f"{each.text} See {each.kind} in docs/operators.md."
            if was and (was.text, was.severity, was.value) == (text, each.severity, each.value):
                continue
            names = [channel.name for channel in channels if channel.takes(each.severity)]
            db.notices.open_notice(conn, *key, each.severity, text, at, each.value, names)
            if was is None:
                log.info("notice: %s %s: %s", *key, each.text)
        for key in before.keys() - now.keys():
            if key[0] not in unknown_kinds:
                db.notices.resolve_notice(conn, *key, at)
                log.info("resolved: %s %s", *key)
