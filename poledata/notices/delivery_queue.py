"""Send through each channel what is due there. A notice is stored first, and queued until then.

Nothing here delays archiving: it runs beside a pass, or after a pass has released its lock.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from poledata import db
from poledata.config import Config, Secrets, read_secrets
from poledata.errors import ConfigFault, PoleError
from poledata.formatting import seconds, utc, utc_now
from poledata.models import Channel, Delivery, Message, Notice, Severity
from poledata.notices.defects import caught
from poledata.notices.findings import Findings
from poledata.notices.kinds import DIGEST
from poledata.notices.send import configured_channels, send_through
from poledata.system import locks, privileges

if TYPE_CHECKING:  # message.py is loaded only when there is something to send
    from poledata.notices.message import Item

RETRY_S, RETRY_LAST_S = 60.0, 600.0
REPEAT_S = 86_400.0  # if no configuration says how often
Send = Callable[[Channel, Message], str | None]  # sends; returns why that failed, or None
StateLines = Callable[[Config, db.Connection], list[str]]  # the state of the archive, five lines

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _DueMessage:
    """What is due through one channel."""

    channel: Channel
    items: tuple[Item, ...]


def deliver(
    config: Config,
    conn: db.Connection,
    state_lines: StateLines,
    now_s: float | None = None,
    send: Send = send_through,
) -> None:
    """Send what is due through each channel, all at once, and record the results.

    If nothing is due, nothing is written. If another process is sending, leave it to that one.
    """
    channels = configured_channels(config.secrets)
    now_s = time.time() if now_s is None else now_s
    if not (_all_stamps(config) or _due_messages(config, conn, channels, now_s)):
        return
    with locks.only_one(config.db_path, locks.Task.SENDING) as is_ours:
        if is_ours:
            _note_that_database_is_back(config, conn, channels)
            if due := _due_messages(config, conn, channels, now_s):
                _send(config, conn, due, state_lines, now_s, send)


def _send(
    config: Config,
    conn: db.Connection,
    due: Sequence[_DueMessage],
    state_lines: StateLines,
    now_s: float,
    send: Send,
) -> None:
    state = ["The state of the archive is not available: see the log."]
    with Findings(conn).isolated("the state of the archive"):  # the notices go out without it
        state = state_lines(config, conn)
    messages = [_composed(one, state, now_s) for one in due]
    faults = send_all([one.channel for one in due], messages, send)
    with db.transaction(conn):
        for one, fault in zip(due, faults, strict=True):
            _record(conn, one, fault, utc(now_s))


def _composed(due: _DueMessage, state: list[str], now_s: float) -> Message:
    """Return the message; if a bug prevents that, one that says there are notices."""
    from poledata.notices import message

    with caught(f"the message through {due.channel.name}"):
        whole = message.compose(due.items, state, now_s)
        if due.channel.is_pager:
            return replace(whole, body=message.whole_lines(whole.body, message.PAGER_CHARACTERS))
        return whole
    subject = f"{message.PREFIX} {len(due.items)} notices: data_manager.py status"
    return Message(subject, "They can't be written out: the log says why.")


def _record(conn: db.Connection, due: _DueMessage, fault: str | None, at: str) -> None:
    if fault:
        log.warning("%s: %d notices could not be sent: %s", due.channel.name, len(due.items), fault)
    else:
        log.info("%s: %d notices sent", due.channel.name, len(due.items))
    for item in due.items:
        if fault:
            db.notices.note_not_sent(conn, item.of, at, fault)
        else:
            db.notices.note_sent(conn, item.of, at)


def queue_digest(config: Config, conn: db.Connection, headline: str, text: str, at: str) -> None:
    """Queue the state of the archive for every channel except pagers."""
    channels = [c.name for c in configured_channels(config.secrets) if c.takes(Severity.INFO)]
    with db.transaction(conn):
        db.notices.add_digest(conn, DIGEST, headline, text, at, channels)


def send_all(
    channels: Sequence[Channel], messages: Sequence[Message], send: Send = send_through
) -> list[str | None]:
    """Send to all channels at once, each its own message; return why each failed, or None."""
    from concurrent.futures import ThreadPoolExecutor

    def one(channel: Channel, message: Message) -> str | None:
        with caught(channel.name) as bugs:
            return send(channel, message)
        return bugs[0]

    with ThreadPoolExecutor(max_workers=max(1, len(channels))) as pool:
        return list(pool.map(one, channels, messages))


# --- what is due --------------------------------------------------------------------------


def _due_messages(
    config: Config, conn: db.Connection, channels: Sequence[Channel], now_s: float
) -> list[_DueMessage]:
    due = []
    findings = Findings(conn)
    for channel in channels:
        with findings.isolated(f"channel {channel.name}"):
            _queue_what_is_open(conn, channel)
            waiting = db.notices.deliveries(conn, channel.name)
            items = _due_items(config, conn, channel, waiting, now_s) if waiting else ()
            if items and not _must_wait(items, now_s):
                due.append(_DueMessage(channel, items))
    return due


def _queue_what_is_open(conn: db.Connection, channel: Channel) -> None:
    """A channel that is new gets what was opened before."""
    if missing := db.notices.not_queued(conn, channel):
        with db.transaction(conn):
            for notice_id in missing:
                db.notices.queue(conn, notice_id, [channel.name])


def _due_items(
    config: Config,
    conn: db.Connection,
    channel: Channel,
    waiting: Sequence[Delivery],
    now_s: float,
) -> tuple[Item, ...]:
    """Return what to send through a channel now, without kinds that were just sent often."""
    from poledata.notices import message

    found = [message.due(one, now_s, config.repeat_notices_s) for one in waiting]
    items = tuple(item for item in found if item and item.is_for(channel))
    if not items:
        return ()
    since, until = (utc(now_s + sign * message.MOST_WITHIN_S) for sign in (-1, 1))
    frequent = db.notices.frequent_kinds(conn, channel.name, since, until, message.MOST_MESSAGES)
    return message.without_frequent(items, frequent)


def _must_wait(items: Sequence[Item], now_s: float) -> bool:
    """True if a channel that failed is not tried again yet: after 1, 2, … up to 10 minutes."""
    failed = [item.of for item in items if item.of.last_error and item.of.tried_at]
    if not failed:
        return False
    wait_s = min(RETRY_S * max(one.attempts for one in failed), RETRY_LAST_S)
    return abs(now_s - max(seconds(str(one.tried_at)) for one in failed)) < wait_s


def note_settings(conn: db.Connection, faults: Sequence[str]) -> None:
    """Note each setting that can't be used (``Key: why``), and clear the others."""
    why: dict[str, dict[str, None]] = {}
    for key, _, text in (fault.partition(": ") for fault in faults):
        why.setdefault(Path(key).name, {})[text.rstrip(".")] = None
    findings = Findings(conn)
    for key in set(findings.keys("config-error")) - why.keys():
        findings.clear(["config-error"], key)
    for key, texts in why.items():
        findings.note("config-error", key, f"{'; '.join(texts)}.")


# --- when no database can store a notice --------------------------------------------------


def tell_of_database(config: Config, trouble: PoleError) -> None:
    """Send what can't be stored: through each channel once per RepeatNotices."""
    kind, about, text = "database-error", config.db_path, str(trouble)
    if holders := locks.record_lock_holders(config.db_path):
        kind, about = "database-locked", _while_locked(config)
        text = f"{text}. It is locked by {' and '.join(map(str, holders))}."
    _send_unstored(
        config.secrets,
        about,
        Notice(kind, "database", Severity.CRITICAL, text, utc_now()),
        f"The archive {config.db_path}: its state is not available without its database.",
        config.repeat_notices_s,
    )


def _while_locked(config: Config) -> Path:
    """Return what the stamps are about while another program locks the database."""
    return config.db_path.with_name(f"{config.db_path.name}-locked")


def tell_of_config(path: Path, fault: ConfigFault) -> None:
    """Send that a configuration lets no pass run; the channels are in the .env beside it."""
    if not privileges.is_safe_for_root(path.parent):
        return  # root, who did not become the owner: nothing is read or run here
    secrets, warnings = read_secrets(path.parent / ".env", os.environ)
    for warning in warnings:
        log.warning("%s", warning)
    text = f"No pass runs, so nothing is archived. {fault}"
    _send_unstored(
        secrets,
        path,
        Notice("config-error", "configuration", Severity.CRITICAL, text, utc_now()),
        f"The state of the archive is not available: {path} can't be used.",
        REPEAT_S,
    )


def _send_unstored(
    secrets: Secrets, about: Path, notice: Notice, state: str, repeat_s: float
) -> None:
    """Send a notice that is not stored; a stamp file for each channel records when."""
    from poledata.notices.message import Item, News, compose

    channels = [c for c in configured_channels(secrets) if not _is_stamped(about, c, repeat_s)]
    item = Item(News.NEW, Delivery(notice, "", 0, None, None, None, None))
    message = compose([item], [state], time.time())
    faults = send_all(channels, [message] * len(channels))
    for channel, fault in zip(channels, faults, strict=True):
        if fault:
            log.warning("%s: %s could not be sent: %s", channel.name, message.subject, fault)
        else:
            _stamp(about, channel)


def _note_that_database_is_back(
    config: Config, conn: db.Connection, channels: Sequence[Channel]
) -> None:
    """Send the end of a notice that was not stored to the channels that got it."""
    for about, kind, key, failed, now in (
        (config.db_path, "database-error", "database", "It did not answer at", "it does now"),
        (_while_locked(config), "database-locked", "database", "It was locked at", "it is free"),
        (config.path, "config-error", "configuration", "It could not be used at", "it can be now"),
    ):
        if stamps := _stamps_of(about):
            since = utc(min(stamp.lstat().st_mtime for stamp in stamps))
            text = f"{failed} {since}; {now}. See {kind} in docs/operators.md."
            names, at = [channel.name for channel in channels], utc_now()
            with db.transaction(conn):
                critical = Severity.CRITICAL
                db.notices.open_notice(conn, kind, key, critical, text, at, None, names)
                db.notices.resolve_notice(conn, kind, key, at)
        for stamp in stamps:
            stamp.unlink(missing_ok=True)


def _all_stamps(config: Config) -> list[Path]:
    abouts = (config.db_path, _while_locked(config), config.path)
    return [stamp for about in abouts for stamp in _stamps_of(about)]


def _stamps_of(about: Path) -> list[Path]:
    """Return the stamps of all channels."""
    return [stamp for place in _stamp_places(about, "") for stamp in _stamps_at(place)]


def _stamp_places(about: Path, channel_name: str) -> tuple[Path, Path]:
    """Return how the names of its stamps begin: beside what failed, and in memory.

    The second is for a file system that can't be written to. All users can write there, so the
    rest of the name is random, and only our own files count: nobody can forge or prevent a stamp.
    """
    about = about.absolute()
    which = zlib.crc32(str(about).encode())
    return (
        about.with_name(f".{about.name}.told-{channel_name}"),
        Path(f"/dev/shm/pole-data-{which:08x}.told-{channel_name}"),
    )


def _stamps_at(place: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(place.parent)) if place.parent.is_dir() else []
        found = [place.with_name(name) for name in names if name.startswith(place.name)]
        return [stamp for stamp in found if stamp.lstat().st_uid == os.geteuid()]
    except OSError as fault:
        log.warning("%s: %s can't be listed", place.parent, fault.strerror)
        return []


def _is_stamped(about: Path, channel: Channel, repeat_s: float) -> bool:
    return any(
        abs(time.time() - stamp.lstat().st_mtime) < repeat_s
        for place in _stamp_places(about, f"{channel.name}.")
        for stamp in _stamps_at(place)
    )


def _stamp(about: Path, channel: Channel) -> None:
    """Record now as the time of the last message, in place of an older stamp."""
    for place in _stamp_places(about, f"{channel.name}."):
        try:
            old = _stamps_at(place)
            os.close(os.open(f"{place}{os.urandom(8).hex()}", os.O_CREAT | os.O_EXCL, 0o600))
            for stamp in old:
                stamp.unlink(missing_ok=True)
        except OSError as fault:
            log.warning("%s: no stamp can be made: %s", place, fault.strerror)
        else:
            return
