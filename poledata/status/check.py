"""Is everything as the archive needs it? Looked at before it is trusted; nothing is changed."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poledata import db
from poledata.archive import buffer, buffer_marker, writers
from poledata.archive.buffer import Buffer
from poledata.archive.writers import WriterRule
from poledata.config import Config
from poledata.disks import selection
from poledata.disks.identity import HeldDisk
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused, TooFewDescriptors
from poledata.formatting import seconds, shown, size_text, utc
from poledata.models import Disk, DiskState, Role, Waiting
from poledata.notices.channels import configured_channels
from poledata.system import file_descriptors, paths
from poledata.system.ownership import user_name

LOOK_AT_FILES = 1000
DATABASE_ROOM_BYTES = 50 * 10**6
UNIDENTIFIED = (
    "drives are not identified (AcceptUnidentifiedDrives = yes): two disks without serial number "
    "and logical ID may be on one physical drive"
)


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that was looked at."""

    is_well: bool
    what: str


def look(config: Config, conn: db.Connection) -> Iterator[CheckFinding]:
    """Everything a pass relies on, one finding each."""
    yield CheckFinding(True, f"configuration {config.path}")
    for warning in config.warnings:
        yield CheckFinding(False, warning)
    if stranger := _not_ours(config):
        yield stranger
        return  # what this user may and may not do is no news of the archive
    try:
        file_descriptors.require_enough()
    except TooFewDescriptors as fault:
        yield CheckFinding(False, str(fault))
    yield from _log(config)
    yield _database(config)
    if faults := db.sqlite.faults(conn):
        yield _damaged(config, faults)
        return  # what it says of the rest is not to be trusted
    yield from _whole(conn)
    yield _clock(conn)
    if pause := db.passes.current_pause(conn, utc(time.time())):
        until = pause.until or "somebody says: data_manager.py resume"
        yield CheckFinding(False, f"passes do nothing until {until}: {pause.why}")
    yield from _channels(config)
    yield from _buffer(config, conn)
    yield from _disks(config, conn)


def _not_ours(config: Config) -> CheckFinding | None:
    """None for the cron user."""
    directory = config.db_path.parent
    owner = directory.stat().st_uid
    if owner == os.geteuid():
        return None
    name = user_name(owner)
    return CheckFinding(
        False,
        f"{directory} belongs to the user {name}, who runs the archive, so nothing else was "
        f"looked at. Run this as: sudo -u {name} …",
    )


def _log(config: Config) -> Iterator[CheckFinding]:
    """What a pass would find when it writes to it."""
    path, parent = config.log_file, config.log_file.parent
    if not parent.is_dir():
        yield CheckFinding(False, f"LogFile: there is no directory {parent}; make it")
    elif path.exists() and not path.is_file():
        yield CheckFinding(False, f"LogFile: {path} is not a file; name another one")
    elif not os.access(path if path.exists() else parent, os.W_OK):
        yield CheckFinding(
            False, f"LogFile: this user may not write {path}; give it to the cron user"
        )


def _database(config: Config) -> CheckFinding:
    directory = config.db_path.parent
    if not os.access(config.db_path, os.W_OK):
        return CheckFinding(False, f"{config.db_path} is read-only: chmod u+w {config.db_path}")
    if shutil.disk_usage(directory).free < DATABASE_ROOM_BYTES:
        return CheckFinding(False, f"{directory} has hardly any room left: make some")
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o022:
        return CheckFinding(False, f"{directory} is writable by others: chmod go-w {directory}")
    return CheckFinding(True, f"database {config.db_path}")


def _damaged(config: Config, faults: Sequence[str]) -> CheckFinding:
    return CheckFinding(
        False,
        f"{config.db_path} is damaged inside ({faults[0]}). No file is lost with it. Stop the "
        "passes (crontab), put it aside, and make it again from the disks: the steps are under "
        "database-error in docs/operators.md",
    )


def _whole(conn: db.Connection) -> Iterator[CheckFinding]:
    """Whether it knows all that is on the disks, as far as that was noted."""
    for notice in db.notices.open_notices(conn):
        if notice.kind == "database-error":
            yield CheckFinding(False, f"the database, {notice.key}: {notice.text}")


def _clock(conn: db.Connection) -> CheckFinding:
    last = db.passes.last_pass(conn)
    now_s = time.time()
    if last and seconds(last.started_at) > now_s + 60:
        return CheckFinding(False, f"the clock is behind the last pass ({last.started_at}): set it")
    return CheckFinding(True, f"clock {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(now_s))}")


def _channels(config: Config) -> Iterator[CheckFinding]:
    names = [channel.name for channel in configured_channels(config.secrets)]
    if names:
        said = f"{', '.join(names)} (data_manager.py notify --test tries them)"
    else:
        said = "none is set in .env, so nobody is told of anything: see .env.example"
    yield CheckFinding(bool(names) or not config.require_mount, f"channels: {said}")
    fed = config.secrets.heartbeat_command or config.secrets.heartbeat_url
    yield CheckFinding(True, f"watchdog: {'gets a heartbeat' if fed else 'none is set in .env'}")


def _buffer(config: Config, conn: db.Connection) -> Iterator[CheckFinding]:
    fd = os.open(config.buffer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        proof = buffer_marker.prove(config, conn, fd, may_adopt=False)
        if proof.wrong:
            yield CheckFinding(False, f"buffer: {proof.wrong}")
            return
        if proof.unmarked:
            text = buffer_marker.without_marker(config, proof.unmarked)
            yield CheckFinding(not config.delete_from_buffer, f"buffer: {text}")
        rule = writers.look(fd, config.remote_writers)
        settle_s = buffer.settle_s(config.settle_s, fd)
        held = Buffer(fd, config.extensions, settle_s, rule.trusts_leases)
        seen = held.scan(time.time(), LOOK_AT_FILES)
        for name, why in seen.unlistable.items():
            yield CheckFinding(False, f"buffer: {shown(name)} can't be listed ({why})")
        directories = {file.name.rpartition("/")[0] for file in seen.waiting} | {""}
        for path in sorted(directories):
            if not _may_unlink(fd, path):
                place = shown(str(config.buffer / path))
                yield CheckFinding(False, f"buffer: this user may not unlink files in {place}")
        yield CheckFinding(
            True, f"buffer {config.buffer}: {seen.settled_files} finished files wait"
        )
        yield _writers(fd, rule, seen.waiting)
    finally:
        os.close(fd)


def _may_unlink(fd: int, path: str) -> bool:
    """Whether this user may unlink files in a directory; in a sticky one, only its owner's own."""
    if not os.access(path or ".", os.W_OK | os.X_OK, dir_fd=fd):
        return False
    info = os.stat(path or ".", dir_fd=fd)
    if not info.st_mode & stat.S_ISVTX or os.geteuid() in (0, info.st_uid):
        return True
    with paths.directory(fd, path) as directory_fd, os.scandir(directory_fd) as entries:
        owners = {entry.stat(follow_symlinks=False).st_uid for entry in entries}
    return owners <= {os.geteuid()}


def _writers(fd: int, rule: WriterRule, waiting: Sequence[Waiting]) -> CheckFinding:
    """Which rule says that a file is finished, and why."""
    if not rule.trusts_leases:
        why = rule.why
    elif waiting and not buffer.lease_can_be_had(fd, waiting[0], os.geteuid()):
        why = "its files belong to another user"
    else:
        known = f"the system tells whether a file is still open for writing ({rule.why})"
        return CheckFinding(True, f"buffer: {known}")
    return CheckFinding(
        False,
        f"buffer: the system can't tell whether a file is still open for writing ({why}): files "
        "wait ten times SettleTime, the newest of a directory up to a day",
    )


def _disks(config: Config, conn: db.Connection) -> Iterator[CheckFinding]:
    usable: dict[Role, list[HeldDisk]] = {role: [] for role in Role}
    yield from _kept_from_use(conn)
    if config.accept_unidentified and config.require_mount:
        yield CheckFinding(True, UNIDENTIFIED)
    with MountedDisks(config, conn, set()) as mounted:
        for role in Role:
            for disk in selection.in_order_of_use(db.disks.disks(conn), role):
                finding = _disk(mounted, disk, usable[role])
                if finding:
                    yield finding
        for role, found in usable.items():
            if not found:
                yield CheckFinding(False, f"no {role.value} disk can be used")
        pairs = [(p, c) for p in usable[Role.PRIMARY] for c in usable[Role.COPY]]
        if pairs and not any(p.is_on_another_drive_than(c) for p, c in pairs):
            yield CheckFinding(False, "all usable disks are on one physical drive")


def _kept_from_use(conn: db.Connection) -> Iterator[CheckFinding]:
    for label, why in _held(conn).items():
        yield CheckFinding(False, f"{label}: {why}")
    for disk in db.disks.unsealed_disks(conn):
        yield CheckFinding(
            False, f"{disk.label} is half closed: leave it mounted for the next pass"
        )


def _held(conn: db.Connection) -> dict[str, str]:
    """By label: why a disk is held, and what ends that."""
    return {
        disk.label: f"it is held by a {disk.held_by}: {disk.held_reason}. "
        f"When it is well: data_manager.py unhold {disk.label}"
        for disk in db.disks.disks(conn)
        if disk.held_by and disk.state in (DiskState.ACTIVE, DiskState.SPARE)
    }


def _disk(mounted: MountedDisks, disk: Disk, usable: list[HeldDisk]) -> CheckFinding | None:
    """None for a spare that is just not mounted."""
    try:
        held, room_bytes = _usable(mounted, disk)
    except DiskRefused as refusal:
        if disk.state is DiskState.SPARE and refusal.kind == "disk-missing":
            return None
        return CheckFinding(False, f"{refusal.label}: {refusal.why}. {refusal.what_next}")
    usable.append(held)
    room = size_text(max(0, room_bytes))
    return CheckFinding(True, f"{disk.label} at {held.path}: {disk.state.value}, room for {room}")


def _usable(mounted: MountedDisks, disk: Disk) -> tuple[HeldDisk, int]:
    """The disk, and its room in bytes. Raises DiskRefused where a pass would put nothing on it."""
    held = mounted.hold_to_copy_to(disk)
    room_bytes = mounted.room(held).room_bytes
    if disk.state is DiskState.SPARE and room_bytes <= 0:
        raise DiskRefused(
            "no-disk",
            disk.label,
            "it has room for nothing",
            "MinFreeSpace is kept free on every disk: it is too much for this one.",
        )
    return held, room_bytes


def unfit_disks(config: Config, conn: db.Connection) -> dict[str, str]:
    """By label: what keeps a disk from being used now, as ``look`` would say it."""
    why = _held(conn)
    with MountedDisks(config, conn, set()) as mounted:
        for role in Role:
            for disk in selection.in_order_of_use(db.disks.disks(conn), role):
                try:
                    _usable(mounted, disk)
                except DiskRefused as refusal:
                    why[disk.label] = f"{refusal.why}. {refusal.what_next}"
    return why
