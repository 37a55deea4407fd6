"""Compare what is wrong now with the open notices, at the end of each pass and command."""

from __future__ import annotations

import logging
from dataclasses import replace

from poledata import db
from poledata.archive.buffer import Seen
from poledata.config import Config
from poledata.errors import DatabaseTrouble
from poledata.formatting import utc, utc_now
from poledata.notices.compare import compare
from poledata.notices.kinds import KINDS
from poledata.notices.send import configured_channels
from poledata.status.collect import BufferLook, gather, look_at_buffer
from poledata.status.conditions import as_condition, conditions
from poledata.status.facts import ArchiveEvidence, Status

log = logging.getLogger(__name__)


def update_notices(config: Config, conn: db.Connection, seen: Seen | None = None) -> Status:
    """Open a notice for each condition that holds now, and end the others; return the status.

    ``seen``: what was just seen in the buffer. What takes long is looked at before the
    transaction.
    """
    look = look_at_buffer(config, conn, seen)
    if look.status.fault and not look.status.is_wrong:
        log.warning("the buffer can't be read: %s", look.status.fault)
    channels = configured_channels(config.secrets)
    with db.transaction(conn):
        status, evidence = _gathered(config, conn, look)
        now = conditions(status, evidence)
        compare(conn, now.holding, now.unknown_kinds, channels, utc(status.at_s))
        return replace(status, notices=tuple(db.notices.open_notices(conn)))


def _gathered(
    config: Config, conn: db.Connection, look: BufferLook
) -> tuple[Status, ArchiveEvidence]:
    """Raises DatabaseTrouble: what is beside the database can't be looked at."""
    try:
        return gather(config, conn, look)
    except OSError as fault:
        why = f"its directory can't be looked at ({fault.strerror or fault})"
        raise DatabaseTrouble(config.db_path, why) from fault


def update_from_findings(config: Config, conn: db.Connection) -> None:
    """When a bug keeps the other conditions from being known: open a notice for what runs found."""
    channels = configured_channels(config.secrets)
    with db.transaction(conn):
        found = [as_condition(each) for each in db.findings.findings(conn)]
        compare(conn, found, KINDS, channels, utc_now())
