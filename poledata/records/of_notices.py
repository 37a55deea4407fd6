"""What people are told, and through which channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Severity(str, Enum):
    """How loud a notice is."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"

    def is_graver_than(self, other: Severity) -> bool:
        order = list(Severity)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True)
class Notice:
    """One row of ``notices``: something a person should know; open until ``resolved_at``."""

    kind: str
    key: str
    severity: Severity
    text: str
    opened_at: str
    id: int = 0
    value: float | None = None  # grows as it gets worse
    reopened: int = 0
    resolved_at: str | None = None
    acked_until: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of ``deliveries``: what a channel was told of a notice so far."""

    notice: Notice
    channel: str
    attempts: int
    tried_at: str | None
    sent_at: str | None  # when it was last told as open
    last_error: str | None

    @property
    def attempts_now(self) -> int:
        """The number of a try that is made now: counted anew once a message went out."""
        return self.attempts + 1 if self.last_error else 1


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to tell people; ``target`` is secret: an Apprise URL, or a command to run."""

    name: str  # notify-1-mailto, pager-command: for the database, the log and people
    target: str = field(repr=False)
    is_command: bool = False
    is_pager: bool = False  # gets the critical notices alone

    def takes(self, severity: Severity) -> bool:
        """Whether a notice of this severity is told through this channel."""
        return severity is Severity.CRITICAL or not self.is_pager


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: the subject says it all, in at most 80 characters."""

    subject: str
    body: str
