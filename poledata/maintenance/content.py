"""Run ``CheckContent`` on archived files: can their programs read them?

A checksum proves that a file is what the telescope wrote, not that this was complete. The result
is for people alone: it never decides whether a file is kept, copied or removed. Each file is read
once; a suspect one again after ``VerifyEvery``, because the check itself may have been wrong.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poledata import db
from poledata.context import Context, is_here
from poledata.db.content import Unchecked
from poledata.disks import bag
from poledata.disks.mounted_disks import MountedDisks
from poledata.errors import DiskRefused
from poledata.formatting import shown, utc, utc_now
from poledata.models import ContentResult, Disk, Role
from poledata.system import mounts

TIMEOUT_S, SLOWEST_BYTES_S = 600.0, 5_000_000  # and so long for each byte: a pass goes first
_LONGEST_DETAIL = 300
_NOT_OF_THE_FILE = (126, 127, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContentCheck:
    """What one check found; ``name`` as it can be shown."""

    name: str
    result: str
    detail: str | None


def check_content(context: Context, stop: threading.Event) -> Iterator[ContentCheck]:
    """Check each file that lacks it, on its mounted primary copy; yield and store the results."""
    mounted = mounts.mounted_places() if context.config.require_mount else None
    for disk in db.disks.disks(context.conn):
        is_to_check = disk.role is Role.PRIMARY and disk.may_be_read
        if is_to_check and is_here(context.config, disk, mounted):
            yield from _check_disk(context, disk, stop)


def _check_disk(context: Context, disk: Disk, stop: threading.Event) -> Iterator[ContentCheck]:
    try:
        with MountedDisks(context.config, context.conn) as mounted:
            held = mounted.hold(disk)
            again_after = utc(time.time() - context.config.verify_every_s)
            for file in db.content.unchecked(context.conn, disk, again_after):
                command = context.config.content_command(file.name)
                if stop.is_set():
                    return
                if command and not held.why_detached():
                    path = held.path / bag.DATA / file.name
                    yield _note(context, file, *_result(command, path, file.size_bytes, stop))
    except DiskRefused as refusal:
        log.info("%s: the content of its files can't be checked: %s", disk.label, refusal)


def _result(
    command: tuple[str, ...], path: Path, size_bytes: int, stop: threading.Event
) -> tuple[ContentResult, str | None]:
    if not size_bytes:
        return ContentResult.SUSPECT, "it is empty"  # spt3g-verify accepts that
    arguments = [part.replace("{path}", str(path)) for part in command]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        except OSError as fault:
            return ContentResult.NOT_CHECKED, f"{arguments[0]}: {fault.strerror}"
        code = _wait(process, TIMEOUT_S + size_bytes / SLOWEST_BYTES_S, stop)
        if code == 0:
            return ContentResult.OK, None
        output.seek(max(0, output.tell() - _LONGEST_DETAIL))
        output_text = " ".join(output.read().decode("utf-8", "replace").split())
    if code is None:
        return ContentResult.NOT_CHECKED, "the check took too long, or was stopped"
    detail = f"{arguments[0]} ended with {code}: {output_text}"
    return ContentResult.NOT_CHECKED if code in _NOT_OF_THE_FILE else ContentResult.SUSPECT, detail


def _wait(process: subprocess.Popen[bytes], timeout_s: float, stop: threading.Event) -> int | None:
    """Return the exit code; None if the process and its children had to be killed."""
    left_s = timeout_s
    while left_s > 0 and not stop.is_set():
        try:
            return process.wait(min(1.0, left_s))
        except subprocess.TimeoutExpired:
            left_s -= 1.0
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return None


def _note(
    context: Context, file: Unchecked, result: ContentResult, detail: str | None
) -> ContentCheck:
    name, detail = shown(file.name), None if detail is None else shown(detail)
    with db.transaction(context.conn):
        db.content.note(context.conn, file.id, result, detail, utc_now())
    if result is ContentResult.SUSPECT:
        text = f"{name} was archived as it came, but its content is suspect: {detail}."
        context.findings.note("content-suspect", name, text)
    elif result is ContentResult.OK:
        context.findings.clear(["content-suspect"], name)
    return ContentCheck(name, result.value, detail)
