"""Notices that a test brings about without their causes: as findings, compared at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from poledata import db
from poledata.formatting import utc
from poledata.models import Channel, Severity
from poledata.notices.compare import compare
from poledata.notices.findings import Findings
from poledata.status.conditions import as_condition


class NoticeBoard:
    """Open notices are what was found, and nothing else."""

    def __init__(
        self,
        conn: db.Connection,
        channels: Iterable[Channel] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._conn, self._clock, self._channels = conn, clock, tuple(channels)
        self._findings = Findings(conn, clock=clock)

    def tell(
        self,
        kind: str,
        key: str,
        text: str,
        severity: Severity | None = None,
        value: float | None = None,
    ) -> None:
        self._findings.note(kind, key, text, severity, value)
        self._compare()

    def settle(self, kinds: Iterable[str], key: str) -> None:
        self._findings.clear(kinds, key)
        self._compare()

    def _compare(self) -> None:
        found = [as_condition(each) for each in db.findings.findings(self._conn)]
        compare(self._conn, found, (), self._channels, utc(self._clock()))
