"""Read one copy back from its disk, and judge it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from poledata.disks import bag
from poledata.disks.identity import HeldDisk
from poledata.errors import NO_SUCH_ERRNOS, OBSTACLE_ERRNOS
from poledata.formatting import shown
from poledata.models import CopyState, VerifiedBy
from poledata.system import paths
from poledata.system.direct_io import HashingReader

OF_US_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # neither file nor disk
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CopyReading:
    """What reading a copy found; ``io_error``: what the system reported instead of its content."""

    state: CopyState
    sha512: str | None = None
    how: VerifiedBy | None = None
    io_error: str | None = None


def examine(
    held: HeldDisk,
    name: str,
    sha512: str,
    reader: HashingReader,
    tick: Callable[[int], None] = lambda _: None,
    size_bytes: int | None = None,
) -> CopyReading:
    """Read a copy from the medium, and compare it with its checksum (and its size, if given).

    Raises OSError if the disk as a whole does not work, and for a directory that is there and
    can't be opened: that is not the fault of the files in it.
    """
    parent, _, base = f"{bag.DATA}/{name}".rpartition("/")
    with ExitStack() as stack:
        try:
            parent_fd = stack.enter_context(paths.directory(held.root_fd, parent))
        except OSError as fault:
            if fault.errno not in NO_SUCH_ERRNOS:
                raise
            return CopyReading(CopyState.MISSING)
        try:
            found = held.read_in(parent_fd, base, reader, tick)
        except OSError as fault:
            if fault.errno in NO_SUCH_ERRNOS - OBSTACLE_ERRNOS:
                return CopyReading(CopyState.MISSING)
            return _unreadable(held, name, fault)
    is_good = found.sha512 == sha512 and size_bytes in (None, found.stat.size_bytes)
    state = CopyState.GOOD if is_good else CopyState.DAMAGED
    return CopyReading(state, found.sha512, found.verified_by)


def _unreadable(held: HeldDisk, name: str, fault: OSError) -> CopyReading:
    """Judge one copy that can't be read. Raises the fault if it is not of this copy alone."""
    is_no_file = fault.errno in (*OBSTACLE_ERRNOS, errno.EISDIR)
    if fault.errno in OF_US_ERRNOS or not (is_no_file or held.answers()):
        raise fault
    log.warning("%s: %s can't be read: %s", held.disk.label, shown(name), fault)
    why = None if is_no_file else fault.strerror or str(fault)
    return CopyReading(CopyState.DAMAGED, io_error=why)
