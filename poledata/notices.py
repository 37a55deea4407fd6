"""The kinds of notice, their severities, and opening and resolving them.

Stored first: sending comes after, and never delays or stops archiving.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from poledata import catalogue, db
from poledata.errors import DiskRefused
from poledata.records import Severity, utc

SEVERITIES = {
    "no-disk": Severity.CRITICAL,
    "copy-failed": Severity.WARNING,
    "not-removed": Severity.WARNING,
    "name-conflict": Severity.WARNING,
    "bad-name": Severity.WARNING,
    "disk-missing": Severity.WARNING,
    "disk-wrong": Severity.WARNING,
    "disk-read-only": Severity.WARNING,
    "disk-error": Severity.WARNING,
    "copy-damaged": Severity.WARNING,
    "pass-crashed": Severity.WARNING,
    "no-good-copy": Severity.CRITICAL,
    "disk-closed": Severity.INFO,
    "paused": Severity.INFO,
}
DISK_KINDS = ("disk-missing", "disk-wrong", "disk-read-only", "disk-error")
FILE_KINDS = ("copy-failed", "not-removed", "name-conflict", "bad-name")
COPY_FAILED_FROM = 3  # tries: what goes well the second time needs no person

log = logging.getLogger(__name__)


class Board:
    """The open notices, for one pass; ``is_dry`` tells the log alone."""

    def __init__(self, conn: db.Connection, is_dry: bool = False) -> None:
        self._conn, self._is_dry = conn, is_dry
        self._open = {(n.kind, n.key): n.text for n in catalogue.open_notices(conn)}

    def tell(self, kind: str, key: str, text: str, severity: Severity | None = None) -> None:
        """Open a notice of this kind about ``key`` (a label, a file, a role), or renew it.

        ``severity``: another one than the kind's.
        """
        text = f"{text} See {kind} in docs/operators.md."
        if self._open.get((kind, key)) == text:
            return
        severity = severity or SEVERITIES[kind]
        level = logging.INFO if severity is Severity.INFO else logging.WARNING
        log.log(level, "%s %s: %s", kind, key, text)
        self._open[kind, key] = text
        if not self._is_dry:
            with db.transaction(self._conn):
                at = utc(time.time())
                catalogue.open_notice(self._conn, kind, key, severity, text, at)

    def tell_refused(self, refusal: DiskRefused) -> None:
        """A disk can't be used."""
        self.tell(refusal.kind, refusal.label, f"{refusal.why}. {refusal.what_next}")

    def open_keys(self, kind: str) -> list[str]:
        """What the open notices of a kind are about."""
        return [key for of_kind, key in self._open if of_kind == kind]

    def settle_about(self, kind: str, beginning: str) -> None:
        """Settle every notice of a kind whose key begins so."""
        for key in self.open_keys(kind):
            if key.startswith(beginning):
                self.settle([kind], key)

    def settle(self, kinds: Iterable[str], key: str) -> None:
        """These conditions are over; nothing is done for those that were not open."""
        for kind in kinds:
            if self._open.pop((kind, key), None) is None:
                continue
            log.info("resolved: %s %s", kind, key)
            if not self._is_dry:
                with db.transaction(self._conn):
                    catalogue.resolve_notice(self._conn, kind, key, utc(time.time()))
