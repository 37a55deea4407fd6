"""Disks, their roles and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Role(str, Enum):
    """Which of its two copies of a file a disk takes."""

    PRIMARY = "primary"
    COPY = "copy"


class DiskState(str, Enum):
    """The life of a disk, in order; ``lost`` may end it at any time."""

    SPARE = "spare"
    ACTIVE = "active"
    CLOSED = "closed"
    SHIPPED = "shipped"
    LOST = "lost"


GONE = (DiskState.SHIPPED, DiskState.LOST)  # its label may be another drive's by now


LABEL_SHAPE = re.compile(r"([A-Za-z]+)([0-9]+)")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Which labels play which role: a role's prefix and a number, e.g. ``P01``."""

    primary: str = "P"
    copy: str = "S"

    def role_of(self, label: str) -> Role | None:
        """The role of ``label``, or None when it is not a label of either role."""
        match = LABEL_SHAPE.fullmatch(label)
        roles = {self.primary: Role.PRIMARY, self.copy: Role.COPY}
        return roles.get(match[1]) if match else None


DEFAULT_PREFIXES = Prefixes()


@dataclass(frozen=True, slots=True)
class Disk:
    """One row of ``disks``: a drive that the database knows."""

    id: int
    label: str
    role: Role
    serial: str
    logical_id: str
    state: DiskState
    held_by: str | None = None
    held_reason: str | None = None
    stand_in: bool = False
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    first_used_at: str | None = None
    last_used_at: str | None = None

    @property
    def known_as(self) -> str:
        """Its label; once it has left its serial, for another drive may have the label by then."""
        return self.serial if self.state is DiskState.SHIPPED else self.label
