"""The checks of the sub-command ``check``: does a pass find everything that it needs?

Nothing is changed.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.archive import buffer, buffer_marker, buffer_writers
from poledata.archive.buffer_writers import WriterRule
from poledata.archive.selection import Selection
from poledata.config import Config, Secrets
from poledata.disks import free_space
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, TooFewDescriptors
from poledata.formatting import counted, seconds, shown, size_text, utc_now
from poledata.models import Disk, DiskState, Role, Waiting
from poledata.notices.send import configured_channels, why_unusable
from poledata.system import file_descriptors, paths
from poledata.system.privileges import user_name

FILES_TO_SCAN = 1000
LEAST_DATABASE_SPACE_BYTES = 50 * 10**6
_UNIDENTIFIED = (
    "drives are not identified (AcceptUnidentifiedDrives = yes): two disks without serial number "
    "and logical ID may be on one physical drive"
)


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that was checked."""

    is_well: bool
    what: str


def _fault(what: str) -> CheckFinding:
    return CheckFinding(False, what)


def check_everything(config: Config, conn: db.Connection) -> Iterator[CheckFinding]:
    """Check everything that a pass relies on, and return a finding for each."""
    yield CheckFinding(True, f"configuration {config.path}")
    yield from map(_fault, config.warnings)
    if other_user := _not_cron_user(config):
        yield _fault(other_user)
        return  # what this user may do says nothing about the archive
    try:
        file_descriptors.require_enough()
    except TooFewDescriptors as fault:
        yield _fault(str(fault))
    yield from map(_fault, _log_faults(config))
    yield from map(_fault, _changeable_program(config))
    yield _database(config)
    if damage := db.sqlite.faults(conn):
        yield _damaged(config, damage)
        return  # the rest of its content can't be trusted
    yield from _known_gaps(conn)
    yield _clock(conn)
    if pause := db.passes.current_pause(conn, utc_now()):
        until = pause.until or "somebody runs: data_manager.py resume"
        yield _fault(f"passes do nothing until {until}: {pause.why}")
    yield from _channels(config)
    yield from _buffer(config, conn)
    yield from _disks(config, conn)


def _not_cron_user(config: Config) -> str | None:
    """Return what is wrong with this user; None for the cron user."""
    directory = config.db_path.parent
    owner = directory.stat().st_uid
    if owner == os.geteuid():
        return None
    name = user_name(owner)
    return (
        f"{directory} belongs to the user {name}, who runs the archive, so nothing else was "
        f"looked at. Run this with sudo, or as {name}"
    )


def _log_faults(config: Config) -> Iterator[str]:
    """Return why a pass could not write its log."""
    path, parent = config.log_file, config.log_file.parent
    if not parent.is_dir():
        yield f"LogFile: there is no directory {parent}; make it"
    elif path.exists() and not path.is_file():
        yield f"LogFile: {path} is not a file; name another one"
    elif not os.access(path if path.exists() else parent, os.W_OK):
        yield f"LogFile: this user may not write {path}; give it to the cron user"


def _changeable_program(config: Config) -> Iterator[str]:
    """Return what the cron user could change of this program, which root runs for smartctl."""
    if os.geteuid() == 0 or not config.require_mount:
        return
    for place in dict.fromkeys((Path(__file__).resolve().parents[2], Path(sys.prefix))):
        if os.access(place, os.W_OK):
            yield (
                f"this user may change {place}, a part of the program that root runs "
                f"(get_SMART_status.py): sudo chown -R root: {place}"
            )


# --- database, clock, channels ------------------------------------------------------------


def _database(config: Config) -> CheckFinding:
    directory = config.db_path.parent
    if not os.access(config.db_path, os.W_OK):
        return _fault(f"{config.db_path} is read-only: chmod u+w {config.db_path}")
    if shutil.disk_usage(directory).free < LEAST_DATABASE_SPACE_BYTES:
        return _fault(f"{directory} has hardly any room left: make some")
    if stat.S_IMODE(directory.stat().st_mode) & 0o022:
        return _fault(f"{directory} is writable by others: chmod go-w {directory}")
    return CheckFinding(True, f"database {config.db_path}")


def _damaged(config: Config, damage: Sequence[str]) -> CheckFinding:
    return _fault(
        f"{config.db_path} is damaged inside ({damage[0]}). No file is lost with it. Stop the "
        "passes (crontab), put it aside, and make it again from the disks: the steps are under "
        "database-error in docs/operators.md"
    )


def _known_gaps(conn: db.Connection) -> Iterator[CheckFinding]:
    """Return what is on the disks but not in the database, as far as that is known."""
    if db.sqlite.is_wal(conn):
        yield _fault("the database, journal: another program switched it to WAL mode: close that")
    for found in db.findings.findings(conn):
        if found.kind == "database-error":
            yield _fault(f"the database, {found.key}: {found.text}")


def _clock(conn: db.Connection) -> CheckFinding:
    last = db.passes.last_pass(conn)
    now_s = time.time()
    if last and seconds(last.started_at) > now_s + 60:
        return _fault(f"the clock is behind the last pass ({last.started_at}): set it")
    return CheckFinding(True, f"clock {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(now_s))}")


def _channels(config: Config) -> Iterator[CheckFinding]:
    channels = configured_channels(config.secrets)
    for channel in channels:
        if why := why_unusable(channel):
            yield _fault(f"channel {channel.name}: {why}: correct it in .env")
    if channels:
        names = ", ".join(channel.name for channel in channels)
        text = f"{names} (data_manager.py notify --test tries them)"
    else:
        text = "none is set in .env, so nobody is notified of anything: see .env.example"
    is_demo = not config.require_mount
    yield CheckFinding(bool(channels) or is_demo, f"channels: {text}")
    yield _watchdog(config.secrets, is_demo)


def _watchdog(secrets: Secrets, is_demo: bool) -> CheckFinding:
    if secrets.is_without_watchdog:
        return CheckFinding(True, "watchdog: none, on purpose")
    if secrets.heartbeat_command or secrets.heartbeat_url:
        return CheckFinding(True, "watchdog: gets a heartbeat")
    text = "watchdog: none is set in .env: POLE_HEARTBEAT_URL, or none on purpose"
    return CheckFinding(is_demo, text)


# --- buffer -------------------------------------------------------------------------------


def _buffer(config: Config, conn: db.Connection) -> Iterator[CheckFinding]:
    fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        proof = buffer_marker.prove(config, conn, fd, may_adopt=False)
        if proof.wrong:
            yield _fault(f"buffer: {proof.wrong}")
            return
        if proof.unmarked:
            text = buffer_marker.without_marker(config, proof.unmarked)
            yield CheckFinding(not config.delete_from_buffer, f"buffer: {text}")
        yield from _buffer_files(config, fd)
    finally:
        os.close(fd)


def _buffer_files(config: Config, fd: int) -> Iterator[CheckFinding]:
    rule = buffer_writers.look(fd, config.remote_writers)
    settle_s = buffer_marker.settle_s(config.settle_s, fd)
    seen = buffer.scan(fd, Selection.of(config), settle_s, time.time(), FILES_TO_SCAN)
    for tree in config.include:
        if tree != "*" and not any(glob.iglob(tree, root_dir=config.buffer)):
            text = f"nothing in {shown(str(config.buffer))} is called {shown(tree)}; is it right?"
            yield _fault(f"Include: {text}")
    for name, why in seen.unlistable.items():
        yield _fault(f"buffer: {shown(name)} can't be listed ({why})")
    for path in sorted({file.name.rpartition("/")[0] for file in seen.waiting} | {""}):
        if not _may_unlink(fd, path):
            place = shown(str(config.buffer / path))
            yield _fault(f"buffer: this user may not unlink files in {place}")
    waiting = counted(seen.settled_files, "finished file waits", "finished files wait")
    yield CheckFinding(True, f"buffer {config.buffer}: {waiting}")
    yield _writers(fd, rule, seen.waiting)


def _may_unlink(fd: int, path: str) -> bool:
    """True if this user may unlink files in a directory; in a sticky one, only its owner's own."""
    if not os.access(path or ".", os.W_OK | os.X_OK, dir_fd=fd):
        return False
    info = os.stat(path or ".", dir_fd=fd)
    if not info.st_mode & stat.S_ISVTX or os.geteuid() in (0, info.st_uid):
        return True
    with paths.directory(fd, path) as directory_fd, os.scandir(directory_fd) as entries:
        owners = {entry.stat(follow_symlinks=False).st_uid for entry in entries}
    return owners <= {os.geteuid()}


def _writers(fd: int, rule: WriterRule, waiting: Sequence[Waiting]) -> CheckFinding:
    """Return which rule decides that a file is finished, and why."""
    if not rule.trusts_leases:
        why = rule.why
    elif waiting and not buffer.lease_can_be_had(fd, waiting[0], os.geteuid()):
        why = "its files belong to another user"
    else:
        known = f"the system tells whether a file is still open for writing ({rule.why})"
        return CheckFinding(True, f"buffer: {known}")
    return _fault(
        f"buffer: the system can't tell whether a file is still open for writing ({why}): files "
        "wait ten times SettleTime, the newest of a directory up to a day"
    )


# --- disks --------------------------------------------------------------------------------


def _disks(config: Config, conn: db.Connection) -> Iterator[CheckFinding]:
    for label, why in _holds(conn).items():
        yield _fault(f"{label}: {why}")
    for disk in db.disks.unsealed_disks(conn):
        yield _fault(f"{disk.label} is half closed: leave it mounted for the next pass")
    if config.accept_unidentified and config.require_mount:
        yield CheckFinding(True, _UNIDENTIFIED)
    usable: dict[Role, list[HeldDisk]] = {role: [] for role in Role}
    with MountedDisks(config, conn, set()) as mounted:
        for disk, found in _each_disk(conn, mounted):
            if isinstance(found, _Usable):
                usable[disk.role].append(found.held)
                text = f"{disk.state.value}, room for {size_text(max(0, found.free_bytes))}"
                yield CheckFinding(True, f"{disk.label} at {found.held.path}: {text}")
            elif disk.state is not DiskState.SPARE or found.kind != "disk-missing":
                yield _fault(f"{found.label}: {found.why}. {found.what_next}")
        for role in Role:
            if not usable[role]:
                yield _fault(f"no {role.value} disk can be used")
        pairs = [(p, c) for p in usable[Role.PRIMARY] for c in usable[Role.COPY]]
        if pairs and not any(p.is_on_another_drive_than(c) for p, c in pairs):
            yield _fault("all usable disks are on one physical drive")


def _holds(conn: db.Connection) -> dict[str, str]:
    """Return for each label why the disk is on hold, and how to end that."""
    return {
        disk.label: f"it is held by a {disk.held_by}: {disk.held_reason}. "
        f"When it is well: data_manager.py unhold {disk.label}"
        for disk in db.disks.disks(conn)
        if disk.held_by and disk.state in (DiskState.ACTIVE, DiskState.SPARE)
    }


@dataclass(frozen=True, slots=True)
class _Usable:
    """A disk that a pass could write to now."""

    held: HeldDisk
    free_bytes: int


def _each_disk(
    conn: db.Connection, mounted: MountedDisks
) -> Iterator[tuple[Disk, _Usable | DiskRefused]]:
    """Return every disk in the order of use, and why a pass would put nothing on it."""
    for role in Role:
        for disk in free_space.in_order_of_use(db.disks.disks(conn), role):
            try:
                yield disk, _usable(mounted, disk)
            except DiskRefused as refusal:
                yield disk, refusal


def _usable(mounted: MountedDisks, disk: Disk) -> _Usable:
    """Return the disk and its free space. Raise DiskRefused if a pass would put nothing on it."""
    free_bytes = mounted.usable(disk).room_bytes
    if disk.state is DiskState.SPARE and free_bytes <= 0:
        raise DiskRefused(
            "no-disk",
            disk.label,
            "it has room for nothing",
            "MinFreeSpace is kept free on every disk: it is too much for this one.",
        )
    return _Usable(mounted.hold(disk), free_bytes)


def unfit_disks(config: Config, conn: db.Connection) -> dict[str, str]:
    """Return for each label of a disk that can't be used now what prevents that."""
    with MountedDisks(config, conn, set()) as mounted:
        refused = {
            disk.label: f"{found.why}. {found.what_next}"
            for disk, found in _each_disk(conn, mounted)
            if isinstance(found, DiskRefused)
        }
    return {**_holds(conn), **refused}
