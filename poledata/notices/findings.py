"""Store what only a run can learn: a copy that is damaged, a disk that was refused, a bug.

Nothing here is a notice: status/conditions.py decides what is wrong, and compare.py keeps the open
notices equal to that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from poledata import db
from poledata.errors import DiskRefused
from poledata.formatting import utc
from poledata.models import Finding, Severity
from poledata.notices.defects import caught
from poledata.notices.kinds import SEVERITIES

log = logging.getLogger(__name__)


class Findings:
    """What runs found, for one pass or command; with ``is_dry`` only the log gets it."""

    def __init__(
        self, conn: db.Connection, is_dry: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._conn, self._is_dry, self._clock = conn, is_dry, clock
        self._noted: set[tuple[str, str]] = set()

    def note(
        self,
        kind: str,
        key: str,
        text: str,
        severity: Severity | None = None,
        value: float | None = None,
    ) -> None:
        """Store what was found about ``key`` (a label, a file, a role), or renew it.

        ``severity`` replaces the kind's. ``value`` grows as it gets worse.
        """
        self._noted.add((kind, key))
        severity = severity or SEVERITIES[kind]
        was = db.findings.finding(self._conn, kind, key)
        if was and (was.text, was.severity, was.value) == (text, severity, value):
            return
        level = logging.INFO if severity is Severity.INFO else logging.WARNING
        log.log(level, "%s %s: %s", kind, key, text)
        if not self._is_dry:
            new = Finding(kind, key, severity, text, value, utc(self._clock()))
            with db.transaction(self._conn):
                db.findings.note(self._conn, new)

    def note_refused(self, refusal: DiskRefused) -> None:
        """Store why a disk can't be used."""
        self.note(refusal.kind, refusal.label, f"{refusal.why}. {refusal.what_next}")

    @contextmanager
    def isolated(self, about: str, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Contain a bug (defects.py): note it, or clear it if there was none."""
        with caught(about, passes) as bugs:
            yield
        if bugs:
            self.note("defect", about, f"{bugs[0]}.")
        else:
            self.clear(["defect"], about)

    def keys(self, kind: str) -> list[str]:
        """Return what the findings of a kind are about."""
        return [each.key for each in db.findings.findings(self._conn) if each.kind == kind]

    def get(self, kind: str, key: str) -> Finding | None:
        """Return the finding of this kind about ``key``, if there is one."""
        return db.findings.finding(self._conn, kind, key)

    def was_noted(self, kind: str, key: str) -> bool:
        """True if this pass or command stored or renewed it."""
        return (kind, key) in self._noted

    def pass_on(self, kind: str, key: str, to: str) -> None:
        """Make the finding about ``key`` one about ``to``."""
        if was := self.get(kind, key):
            self.note(kind, to, was.text, was.severity, was.value)
            self.clear([kind], key)

    def clear_about(self, kind: str, beginning: str) -> None:
        """Remove every finding of a kind whose key begins so."""
        for key in self.keys(kind):
            if key.startswith(beginning):
                self.clear([kind], key)

    def clear(self, kinds: Iterable[str], key: str) -> None:
        """Remove the findings of these kinds about ``key``: they are over."""
        for kind in kinds:
            if not self._is_dry and self.get(kind, key):
                with db.transaction(self._conn):
                    db.findings.clear(self._conn, kind, key)
