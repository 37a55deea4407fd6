"""What checks of drives came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Health(str, Enum):
    """What a check of a drive came to."""

    HEALTHY = "healthy"
    WARNING = "warning"
    FAILING = "failing"
    UNKNOWN = "unknown"  # it was asked, and did not say
    MISSING = "missing"  # it is in use, and not there or mute
    UNSUPPORTED = "unsupported"  # it has no SMART, or it is switched off
    ASLEEP = "asleep"
    ABSENT = "absent"  # nobody expects it: a spare not mounted, a closed disk on the shelf


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What the last SMART check said of a drive."""

    at: str
    health: str
    temperature_c: int | None


@dataclass(frozen=True, slots=True)
class SmartCheck:
    """One row of ``smart_checks``; ``numbers`` is empty where the drive did not say."""

    at: str
    health: Health
    temperature_c: int | None
    power_on_hours: int | None
    numbers: dict[str, int]
    lowest: dict[str, int]  # of each number, in this and all checks before
    reasons: tuple[str, ...]
