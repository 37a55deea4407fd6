"""``ViewLocation``: a tree of links, ``<name>`` → the newest copy of each file that is mounted.

Each pass derives it from the database, so it can be deleted at any time. A stamp in it says for
which disks it was made: while they are the same, a pass looks at files archived since then, and
once an hour at all. It touches only its own links: those to ``data/<name>`` on a known disk.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context, is_here
from poledata.disks import bag
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused
from poledata.formatting import shown, utc
from poledata.system import mounts, paths

STAMP = "poledata-view.json"  # not hidden, so that rm -r * removes it too
ALL_EVERY_S = 3600.0
_LONGEST_STAMP_BYTES = 1_000_000
OVERLAP_S = 600.0  # a batch is stamped a moment before it can be seen
log = logging.getLogger(__name__)


def maintain(context: Context) -> None:
    """Bring the links up to date. A fault is logged; the next pass tries again."""
    if context.config.view is None:
        return
    try:
        root_fd = os.open(context.config.view, paths.DIRECTORY)
    except OSError as fault:
        log.warning("no links are made in %s: %s", shown(str(context.config.view)), fault.strerror)
        return
    try:
        _View(context, root_fd).bring_up_to_date(time.time())
    except OSError as fault:
        log.warning("links in %s: %s", shown(str(context.config.view)), fault)
    finally:
        os.close(root_fd)


@dataclass(frozen=True, slots=True)
class _Stamp:
    disks: str  # which were mounted, and where
    at_s: float  # when the links were brought up to date
    all_s: float  # when all of them were
    fault: str  # since then: which links could not be made, and why


class _View:
    def __init__(self, context: Context, root_fd: int) -> None:
        self._context, self._root_fd = context, root_fd
        config, conn = context.config, context.conn
        mounted = mounts.mounted_places() if config.require_mount else None
        self._disks = db.disks.disks(conn)
        self._here = [d for d in self._disks if d.may_be_read and is_here(config, d, mounted)]
        self._ours = {
            f"{place}/{bag.DATA}/"
            for disk in self._disks
            for place in config.mount_points(disk.label)
        }

    def bring_up_to_date(self, now_s: float) -> None:
        stamp, disks = _read_stamp(self._root_fd), self._which_disks()
        is_same = stamp.disks == disks and 0 <= now_s - stamp.all_s < ALL_EVERY_S
        since = utc(stamp.at_s - OVERLAP_S) if is_same else ""
        if is_same and (db.files.last_archived_at(self._context.conn) or "") < since:
            return
        with MountedDisks(self._context.config, self._context.conn) as mounted:
            places = dict(self._places(mounted))
        faults = []
        for name, disk_id in db.copies.best_copies(self._context.conn, list(places), since):
            target = None if disk_id is None else f"{places[disk_id]}/{bag.DATA}/{name}"
            try:
                self._link(name, target)
            except OSError as fault:
                log.info("no link for %s: %s", shown(name), fault.strerror)
                faults.append(f"{shown(name)}: {fault.strerror}")
        all_s, before = (stamp.all_s, stamp.fault) if is_same else (now_s, "")
        self._write_stamp(_Stamp(disks, now_s, all_s, _fault_text(faults) or before))

    def _places(self, mounted: MountedDisks) -> Iterator[tuple[int, Path]]:
        for disk in self._here:
            try:
                yield disk.id, mounted.hold(disk).path
            except DiskRefused as refusal:
                log.info("no links to %s: %s", disk.label, refusal)

    def _which_disks(self) -> str:
        config = self._context.config
        here = [
            [d.id, [[str(p), mounts.device_at(p)] for p in config.mount_points(d.label)]]
            for d in self._here
        ]
        return json.dumps(here)

    # --- one link -------------------------------------------------------------------------

    def _link(self, name: str, target: str | None) -> None:
        """Make the link of a file lead there, or remove it (None). Raises OSError."""
        parent, _, base = name.rpartition("/")
        now = self._target(name)
        if now == target:
            return
        if now is not None:
            if now.removesuffix(name) not in self._ours:
                return  # not ours
            with paths.directory(self._root_fd, parent) as fd:
                os.unlink(base, dir_fd=fd)
        if target is None:
            self._remove_empty(parent)
            return
        paths.make_directories(self._root_fd, parent)
        with paths.directory(self._root_fd, parent) as fd:
            os.symlink(target, base, dir_fd=fd)  # fails if anything has that name

    def _target(self, name: str) -> str | None:
        """Return where the link of a file leads; None if nothing has this name. Raises OSError."""
        parent, _, base = name.rpartition("/")
        try:
            with paths.directory(self._root_fd, parent) as fd:
                return os.readlink(base, dir_fd=fd)
        except FileNotFoundError:
            return None

    def _remove_empty(self, directory: str) -> None:
        while directory:
            parent, _, base = directory.rpartition("/")
            try:
                with paths.directory(self._root_fd, parent) as fd:
                    os.rmdir(base, dir_fd=fd)
            except OSError:
                return  # something else is in it
            directory = parent

    # --- the stamp ------------------------------------------------------------------------

    def _write_stamp(self, stamp: _Stamp) -> None:
        """Replace the stamp. A torn one, after a crash, is as good as none."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(STAMP, flags, 0o644, dir_fd=self._root_fd)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(stamp), file)


def _read_stamp(root_fd: int) -> _Stamp:
    try:
        with paths.opened(root_fd, STAMP) as fd:
            values = json.loads(os.read(fd, _LONGEST_STAMP_BYTES))
        times = float(values["at_s"]), float(values["all_s"])
        return _Stamp(str(values["disks"]), *times, str(values["fault"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _Stamp("", 0, 0, "")  # none, or not one of ours: every file is looked at


def _fault_text(faults: Sequence[str]) -> str:
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"a link can't be made for {faults[0]}{more}" if faults else ""


def faults(place: Path) -> list[str]:
    """Return what the last pass could not link, as a setting's fault; nothing is changed."""
    try:
        root_fd = os.open(place, paths.DIRECTORY)
    except OSError:
        return []  # what the configuration warns of
    try:
        fault = _read_stamp(root_fd).fault
    finally:
        os.close(root_fd)
    return [f"ViewLocation: {fault}"] if fault else []
