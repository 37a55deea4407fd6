"""Which names have surely left the buffer: an error is not absence."""

from __future__ import annotations

import logging
import stat
from dataclasses import dataclass, field

from poledata.archive import hidden_names
from poledata.formatting import shown
from poledata.system import mounts, paths

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Presence:
    """The buffer that is meant, held open; ``root_fd`` None: it is not here, nothing has left."""

    root_fd: int | None
    covered: frozenset[str] = field(default=frozenset())  # below other file systems' mount points

    @classmethod
    def of(cls, root_fd: int) -> Presence:
        return cls(root_fd, mounts.mount_points_below(root_fd))

    def has_left(self, name: str) -> bool:
        """True if nothing of this name is in the buffer; False also if that can't be told."""
        if self.root_fd is None or any(name.startswith(f"{place}/") for place in self.covered):
            return False
        try:
            is_present = hidden_names.is_present(self.root_fd, name)
            return not is_present and self._is_way_plain(name.split("/")[:-1])
        except OSError as fault:
            log.info("%s can't be looked at: %s", shown(name), fault)
            return False

    def _is_way_plain(self, directories: list[str]) -> bool:
        """False if a link is in the way: behind it the name may live on. Raises OSError."""
        assert self.root_fd is not None
        for count in range(1, len(directories) + 1):
            info = paths.stat(self.root_fd, "/".join(directories[:count]))
            if info is None or stat.S_ISREG(info.st_mode):
                return True  # so nothing is below
            if not stat.S_ISDIR(info.st_mode):
                return False
        return True
