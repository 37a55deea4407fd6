"""Store notices: the code that finds a condition opens its notice, and resolves it afterwards.

Sending comes later (delivery_queue.py), and never delays or stops archiving.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from poledata import db
from poledata.errors import DiskRefused
from poledata.formatting import seconds, utc
from poledata.models import Channel, Notice, Severity
from poledata.notices.defects import caught
from poledata.notices.kinds import SEVERITIES

COPY_FAILED_FROM = 3  # tries: a file that the second try archives needs no person

log = logging.getLogger(__name__)


class Board:
    """The open notices, for one pass or command; with ``is_dry`` only the log gets them.

    ``channels`` are those through which to send what is opened here.
    """

    def __init__(
        self,
        conn: db.Connection,
        channels: Iterable[Channel] = (),
        is_dry: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._conn, self._is_dry, self._clock = conn, is_dry, clock
        self._channels = tuple(channels)
        self._told: set[tuple[str, str]] = set()
        self._open = {(n.kind, n.key): n for n in db.notices.open_notices(conn)}

    def tell(
        self,
        kind: str,
        key: str,
        text: str,
        severity: Severity | None = None,
        value: float | None = None,
    ) -> None:
        """Open a notice of this kind about ``key`` (a label, a file, a role), or renew it.

        ``severity`` replaces the kind's. ``value`` grows as it gets worse: an acknowledgement
        holds until then.
        """
        self._told.add((kind, key))
        text = f"{text} See {kind} in docs/operators.md."
        severity = severity or SEVERITIES[kind]
        was = self._open.get((kind, key))
        if was and (was.text, was.severity, was.value) == (text, severity, value):
            return
        level = logging.INFO if severity is Severity.INFO else logging.WARNING
        log.log(level, "%s %s: %s", kind, key, text)
        at = utc(self._clock())
        self._open[kind, key] = Notice(kind, key, severity, text, at, value=value)
        if self._is_dry:
            return
        names = [channel.name for channel in self._channels if channel.takes(severity)]
        with db.transaction(self._conn):
            db.notices.open_notice(self._conn, kind, key, severity, text, at, value, names)

    @contextmanager
    def isolated(self, about: str, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Contain a bug (defects.py): open its notice, or resolve it if there was none."""
        with caught(about, passes) as bugs:
            yield
        if bugs:
            self.tell("defect", about, f"{bugs[0]}.")
        else:
            self.settle(["defect"], about)

    def tell_refused(self, refusal: DiskRefused) -> None:
        """Open the notice about a disk that can't be used."""
        self.tell(refusal.kind, refusal.label, f"{refusal.why}. {refusal.what_next}")

    def open_keys(self, kind: str) -> list[str]:
        """Return what the open notices of a kind are about."""
        return [key for of_kind, key in self._open if of_kind == kind]

    def text(self, kind: str, key: str) -> str:
        """Return the text of the open notice; empty if there is none."""
        return self._open[kind, key].text if (kind, key) in self._open else ""

    def was_told(self, kind: str, key: str) -> bool:
        """True if this pass or command opened or renewed it."""
        return (kind, key) in self._told

    def value(self, kind: str, key: str) -> float | None:
        """Return the value of the open notice; None if there is none, or it has no value."""
        return self._open[kind, key].value if (kind, key) in self._open else None

    def pass_on(self, kind: str, key: str, to: str) -> None:
        """Make the notice about ``key`` one about ``to``."""
        if was := self._open.get((kind, key)):
            text = was.text.removesuffix(f" See {kind} in docs/operators.md.")
            self.tell(kind, to, text, was.severity, was.value)
            self.settle([kind], key)

    def settle_about(self, kind: str, beginning: str) -> None:
        """Resolve every notice of a kind whose key begins so."""
        for key in self.open_keys(kind):
            if key.startswith(beginning):
                self.settle([kind], key)

    def settle_old(self, kind: str, after_s: float) -> None:
        """Resolve notices about something that happened once, after this time."""
        for notice in db.notices.open_notices(self._conn):
            if notice.kind == kind and self._clock() - seconds(notice.opened_at) > after_s:
                self.settle([kind], notice.key)

    def settle(self, kinds: Iterable[str], key: str) -> None:
        """Resolve the open notices of these kinds about ``key``."""
        for kind in kinds:
            if self._open.pop((kind, key), None) is None:
                continue
            log.info("resolved: %s %s", kind, key)
            if not self._is_dry:
                with db.transaction(self._conn):
                    db.notices.resolve_notice(self._conn, kind, key, utc(self._clock()))
