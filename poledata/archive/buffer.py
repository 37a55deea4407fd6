"""The buffer: scan it, tell which files are finished, and open them without following links.

A file that will be removed is first renamed to ``.NAME.removing`` in its own directory, so that no
writer can open it by its name. Then it is proved again, and removed or given its name back (see
removal.py). After a crash such a file still counts as the buffer's, under its own name. If that
hidden name is too long or taken, a hash of the name is used instead.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import logging
import os
import re
import signal
import stat as st
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from poledata.errors import FileFault, SourceBusy, SourceChanged, SourceVanished
from poledata.formatting import DAY_S, shown
from poledata.models import FileStat, Waiting
from poledata.system import mounts, paths

WITHOUT_LEASE_FACTOR = 10
MARKER = ".poledata-buffer"  # see buffer_marker.py
SUFFIX = ".removing"
_HASHED = re.compile(rf"\.[0-9a-f]{{64}}{re.escape(SUFFIX)}")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Seen:
    """What a scan of the buffer found."""

    waiting: list[Waiting] = field(default_factory=list)  # the oldest, at most as many as asked
    settled_files: int = 0
    settled_bytes: int = 0
    settled_in_a_day_bytes: int = 0  # of the last day's files
    unsettled_files: int = 0
    other_files: int = 0  # of other extensions
    links_and_specials: int = 0
    mounted: frozenset[str] = frozenset()  # directories where other file systems are mounted
    unlistable: dict[str, str] = field(default_factory=dict)  # directory (a/) or file → why

    @property
    def is_whole(self) -> bool:
        """True if ``waiting`` has every settled file."""
        return len(self.waiting) == self.settled_files


class Writer(Enum):
    """What the system knows about a file's writers."""

    NONE = "no one has it open for writing"
    OPEN = "it is open for writing"
    UNKNOWN = "no lease can be had"


def scan(
    root_fd: int,
    extensions: tuple[str, ...],
    settle_s: float,
    now_s: float,
    at_most: int,
    after: tuple[int, str] | None = None,
) -> Seen:
    """Return the oldest settled files below ``root_fd``, and counts of everything else.

    ``after``: only files that come after this age_key. At most ``at_most`` files are in memory.
    """
    seen = Seen(mounted=mounts.mount_points_below(root_fd))

    def settled() -> Iterator[tuple[int, str, os.stat_result]]:
        for path, info in _files(root_fd, seen):
            mtime_ns = FileStat.of(info).mtime_ns
            if not _is_data(path, extensions):
                seen.other_files += 1
            elif not is_settled(info, settle_s, now_s):
                seen.unsettled_files += 1
            elif after is None or (mtime_ns, path) > after:
                seen.settled_files += 1
                seen.settled_bytes += info.st_size
                is_of_today = abs(now_s - info.st_mtime) < DAY_S
                seen.settled_in_a_day_bytes += info.st_size if is_of_today else 0
                yield mtime_ns, path, info  # ordered as by age_key

    seen.waiting = [_waiting(path, info) for _, path, info in heapq.nsmallest(at_most, settled())]
    return seen


def _is_data(path: str, extensions: tuple[str, ...]) -> bool:
    """True for a file to archive, also under its hidden name.

    White space after the extension is a bad name, not another extension.
    """
    name = original(path)
    if name is None:
        return path.rstrip().endswith(extensions)
    return name == path or name.endswith(extensions)


def _waiting(path: str, info: os.stat_result) -> Waiting:
    name = original(path)
    hidden_as = None if name is None else path
    return Waiting(name or path, FileStat.of(info), st.S_IMODE(info.st_mode), hidden_as)


def is_settled(info: os.stat_result | FileStat, settle_s: float, now_s: float) -> bool:
    """True if a file has not changed for ``settle_s``.

    A time in the future (a clock was set) says nothing; it counts like one as far in the past.
    """
    if isinstance(info, FileStat):
        times_ns = (info.mtime_ns, info.ctime_ns)
    else:
        times_ns = (info.st_mtime_ns, info.st_ctime_ns)
    return all(abs(now_s - time_ns / 1e9) >= settle_s for time_ns in times_ns)


def _files(root_fd: int, seen: Seen) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every regular file below the root; everything else is counted in ``seen``."""
    directories = [""]
    while directories:
        path = directories.pop()
        if path in seen.mounted:
            seen.unlistable[f"{path}/"] = "another file system is mounted here: unmount it"
            continue
        try:
            yield from _files_in(root_fd, path, directories, seen)
        except FileNotFoundError:
            continue  # removed by the telescope since it was listed
        except OSError as fault:
            if path == "lost+found" and isinstance(fault, PermissionError):
                continue  # root's own, on every ext4 file system
            seen.unlistable[f"{path}/"] = fault.strerror or str(fault)


def _files_in(
    root_fd: int, path: str, directories: list[str], seen: Seen
) -> Iterator[tuple[str, os.stat_result]]:
    with paths.directory(root_fd, path) as fd, os.scandir(fd) as entries:
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if name == MARKER:
                continue
            try:
                info = _looked_at(fd, name, entry, directories, seen)
            except OSError as fault:  # only this entry: the others are fine
                seen.unlistable[name] = fault.strerror or str(fault)
                continue
            if info:
                yield name, info


def _looked_at(
    fd: int, name: str, entry: os.DirEntry[str], directories: list[str], seen: Seen
) -> os.stat_result | None:
    """Return the stat of a regular file; everything else is noted."""
    if entry.is_dir(follow_symlinks=False):
        directories.append(name)
    elif not entry.is_file(follow_symlinks=False):
        seen.links_and_specials += 1
    else:
        return _stat_entry(fd, entry.name)
    return None


def _stat_entry(fd: int, base: str) -> os.stat_result | None:
    try:
        info = os.stat(base, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None  # gone since it was listed
    return info if st.S_ISREG(info.st_mode) else None


# --- hidden names, and what has left ------------------------------------------------------


def hide(parent_fd: int, base: str) -> str:
    """Rename a file to its hidden name, and return that.

    Raises OSError: EEXIST if both hidden names are taken, EINVAL where the file system can't rename
    without replacing.
    """
    hidden = f".{base}{SUFFIX}"
    try:
        paths.rename_new(parent_fd, base, hidden)
    except OSError as fault:
        if fault.errno not in (errno.ENAMETOOLONG, errno.EEXIST):
            raise
        hidden = _hashed(base)
        paths.rename_new(parent_fd, base, hidden)
    return hidden


def original(path: str) -> str | None:
    """Return the name that a hidden path had; None if the path is not hidden.

    For a hash it is the path itself: see ``original_of_hash``.
    """
    parent, slash, base = path.rpartition("/")
    if not (base.startswith(".") and base.endswith(SUFFIX) and len(base) > len(SUFFIX) + 1):
        return None
    if _HASHED.fullmatch(base):
        return path
    return f"{parent}{slash}{base[1 : -len(SUFFIX)]}"


def original_of_hash(path: str, names: Iterable[str]) -> str | None:
    """Return which of these names the hidden path had; None if none."""
    parent, _, base = path.rpartition("/")
    own = (name for name in names if name.rpartition("/")[0] == parent)
    return next((name for name in own if _hashed(name.rpartition("/")[2]) == base), None)


def is_present(root_fd: int, name: str) -> bool:
    """True if the buffer has a file of this name, hidden or not. Raises OSError."""
    parent, slash, base = name.rpartition("/")
    bases = (base, f".{base}{SUFFIX}", _hashed(base))
    return any(_exists(root_fd, f"{parent}{slash}{each}") for each in bases)


def _exists(root_fd: int, path: str) -> bool:
    try:
        return paths.stat(root_fd, path) is not None
    except OSError as fault:
        if fault.errno != errno.ENAMETOOLONG:
            raise
        return False  # no file can have this name


def _hashed(base: str) -> str:
    import hashlib  # a pass with nothing to do hashes nothing

    return f".{hashlib.sha256(os.fsencode(base)).hexdigest()}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Presence:
    """Which names have certainly left the buffer: an error is not absence.

    ``root_fd`` None: the right buffer is not mounted, so nothing has left.
    """

    root_fd: int | None
    covered: frozenset[str] = frozenset()  # below other file systems' mount points

    @classmethod
    def of(cls, root_fd: int) -> Presence:
        return cls(root_fd, mounts.mount_points_below(root_fd))

    def has_left(self, name: str) -> bool:
        """True if the buffer has no file of this name; False also if that is unknown."""
        if self.root_fd is None or any(name.startswith(f"{place}/") for place in self.covered):
            return False
        try:
            return not is_present(self.root_fd, name) and self._has_no_link(name.split("/")[:-1])
        except OSError as fault:
            log.info("%s can't be looked at: %s", shown(name), fault)
            return False

    def _has_no_link(self, directories: list[str]) -> bool:
        """False if one of the directories is a link: behind it the file may exist."""
        assert self.root_fd is not None
        for count in range(1, len(directories) + 1):
            info = paths.stat(self.root_fd, "/".join(directories[:count]))
            if info is None or st.S_ISREG(info.st_mode):
                return True  # so nothing is below
            if not st.S_ISDIR(info.st_mode):
                return False
        return True


# --- one file ---------------------------------------------------------------------------


@contextmanager
def source(root_fd: int, waiting: Waiting) -> Iterator[int]:
    """Open the very file that the scan saw.

    Raises SourceVanished, SourceChanged, FileFault (it can't be opened).
    """
    with _source_faults(waiting.path), paths.opened(root_fd, waiting.path) as fd:
        must_be_same(fd, waiting)
        yield fd


def must_be_same(fd: int, waiting: Waiting) -> None:
    """Raises SourceChanged if the open file is not (or no longer) what the scan saw."""
    now = FileStat.of(os.fstat(fd))
    if now == waiting.stat:
        return
    before = waiting.stat
    if (now.device, now.inode) != (before.device, before.inode):
        raise SourceChanged(shown(waiting.name), "another file has taken its place")
    change = "it was written to"
    if now.size_bytes != before.size_bytes:
        grew = "grew" if now.size_bytes > before.size_bytes else "shrank"
        change = f"it {grew} from {before.size_bytes} to {now.size_bytes} bytes"
    raise SourceChanged(shown(waiting.name), f"{change} while it was being archived")


def must_be_named(root_fd: int, waiting: Waiting) -> None:
    """Raises SourceVanished or SourceChanged if the name leads to another file by now."""
    with _source_faults(waiting.path):
        info = paths.stat(root_fd, waiting.path)
    if info is None:
        raise SourceVanished(shown(waiting.name), "it was removed while it was being archived")
    now = FileStat.of(info)
    if (now.device, now.inode) != (waiting.stat.device, waiting.stat.inode):
        raise SourceChanged(shown(waiting.name), "another file has taken its place")


@contextmanager
def _source_faults(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SourceVanished(shown(name), "it was removed before it could be read") from None
    except OSError as fault:
        raise FileFault(shown(name), f"it can't be read ({fault.strerror or fault})") from fault


@contextmanager
def lease(fd: int) -> Iterator[Writer]:
    """Hold a read lease (fcntl(2), F_SETLEASE), so that no writer can open the file meanwhile.

    Yields what is known about writers; only with Writer.NONE is a lease held. A writer that
    comes while it is held waits until we release it: do little inside.
    """
    writer = _take_lease(fd)
    try:
        yield writer
    finally:
        if writer is Writer.NONE:
            with suppress(BlockingIOError):  # EAGAIN: the kernel ended it because of a writer
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _take_lease(fd: int) -> Writer:
    # The kernel sends SIGIO to the holder of a lease when somebody waits: deadly by default.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return Writer.OPEN
    except OSError:
        return Writer.UNKNOWN  # another's file, NFS: the longer rule holds instead
    return Writer.NONE


def _has_newer_beside(root_fd: int, waiting: Waiting, extensions: tuple[str, ...]) -> bool:
    parent = waiting.path.rpartition("/")[0]
    with paths.directory(root_fd, parent) as fd, os.scandir(fd) as entries:
        others = (_stat_entry(fd, e.name) for e in entries if _is_data(e.name, extensions))
        return any(FileStat.of(i).mtime_ns > waiting.stat.mtime_ns for i in others if i)


def is_lease_ours(fd: int) -> bool:
    """True if we still hold the lease as it was given: nobody waits for its end, or ended it."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def lease_can_be_had(root_fd: int, waiting: Waiting, cron_uid: int) -> bool:
    """True if the cron user's passes can get a lease on this file.

    If the user who asks now is another one, the file's owner decides (fcntl(2)).
    """
    try:
        with source(root_fd, waiting) as fd, lease(fd) as writer:
            if os.geteuid() == cron_uid:
                return writer is not Writer.UNKNOWN
            return cron_uid in (0, os.fstat(fd).st_uid)
    except FileFault:
        return cron_uid == 0


@dataclass(frozen=True, slots=True)
class Buffer:
    """The buffer, held open for one pass, with the rules of what is finished."""

    root_fd: int
    extensions: tuple[str, ...]
    settle_s: float
    trusts_leases: bool  # see buffer_writers.py

    def scan(self, now_s: float, at_most: int, after: tuple[int, str] | None = None) -> Seen:
        """See :func:`scan`."""
        return scan(self.root_fd, self.extensions, self.settle_s, now_s, at_most, after)

    @contextmanager
    def finished(self, waiting: Waiting) -> Iterator[int]:
        """Open the very file that was scanned, which nobody writes to.

        Raises SourceBusy, SourceChanged, SourceVanished, FileFault.
        """
        with source(self.root_fd, waiting) as fd:
            with lease(fd) as writer:
                self.must_be_finished(fd, waiting, writer)
            yield fd

    def read_ahead(self, waiting: Waiting) -> None:
        """Start to fetch a file that is read soon. Raises OSError: reading it will say the same."""
        paths.read_ahead(self.root_fd, waiting.path)

    def must_be_untouched(self, fd: int, waiting: Waiting) -> None:
        """Raises SourceChanged or SourceVanished unless file and name are as scanned."""
        must_be_named(self.root_fd, waiting)
        must_be_same(fd, waiting)

    def must_be_finished(self, fd: int, waiting: Waiting, writer: Writer) -> None:
        """Raises SourceBusy while a writer has the file, or could have it as far as we know."""
        # A writer that waits in open(2) for our lease to end has the file already.
        if writer is Writer.OPEN or (writer is Writer.NONE and not is_lease_ours(fd)):
            raise SourceBusy(shown(waiting.name), "it is still open for writing")
        if writer is Writer.UNKNOWN or not self.trusts_leases:
            self._must_look_finished(waiting)

    def _must_look_finished(self, waiting: Waiting) -> None:
        """The longer rule, if the system does not know the writers; by the times of the scan."""
        now_s = time.time()
        if not is_settled(waiting.stat, WITHOUT_LEASE_FACTOR * self.settle_s, now_s):
            raise SourceBusy(shown(waiting.name), "it is too young to tell whether it is open")
        if is_settled(waiting.stat, DAY_S, now_s):
            return
        if not _has_newer_beside(self.root_fd, waiting, self.extensions):
            raise SourceBusy(
                shown(waiting.name), "it is the newest of its directory and may still be open"
            )
