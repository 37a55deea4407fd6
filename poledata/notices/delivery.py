"""Say through every channel what is due there: stored first, queued till it is delivered.

Nothing here delays archiving: it runs beside a pass, or after it has let go of its lock.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poledata import db
from poledata.config import Config, Secrets, read_secrets
from poledata.errors import ConfigFault, PoleError
from poledata.formatting import seconds, utc
from poledata.models import Channel, Delivery, Message, Notice, Severity
from poledata.notices.channels import configured_channels, send_through
from poledata.notices.isolation import caught
from poledata.notices.kinds import DIGEST
from poledata.notices.store import Board
from poledata.system import locks
from poledata.system.ownership import owner_of

if TYPE_CHECKING:  # what is loaded only when there is something to say
    from poledata.notices.message import Item

RETRY_S, RETRY_LAST_S = 60.0, 600.0
REPEAT_S = 86_400.0  # where no configuration says how often
Carry = Callable[[Channel, Message], str | None]
StateLines = Callable[[Config, db.Connection], list[str]]  # how the archive stands, in five lines

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
    carry: Carry = send_through,
) -> None:
    """Send what is due through each channel, all at once, and note what became of it.

    With nothing to say it writes nothing; if another process sends just now it is left to that.
    """
    channels = configured_channels(config.secrets)
    now_s = time.time() if now_s is None else now_s
    if not (_all_stamps(config) or _due_messages(config, conn, channels, now_s)):
        return
    with locks.only_one(config.db_path, locks.Task.SENDING) as is_ours:
        if is_ours:
            _note_that_database_is_back(config, conn, channels)
            due_messages = _due_messages(config, conn, channels, now_s)
            _send(config, conn, due_messages, state_lines, now_s, carry)


def _send(
    config: Config,
    conn: db.Connection,
    due_messages: Sequence[_DueMessage],
    state_lines: StateLines,
    now_s: float,
    carry: Carry,
) -> None:
    if not due_messages:
        return  # another process has sent them meanwhile
    state = ["How the archive stands can't be told: see the log."]
    with Board(conn).isolated("the state of the archive"):  # news go out without it
        state = state_lines(config, conn)
    messages = [_composed(due_message, state, now_s) for due_message in due_messages]
    faults = carry_all([due_message.channel for due_message in due_messages], messages, carry)
    with db.transaction(conn):
        for due_message, fault in zip(due_messages, faults, strict=True):
            _note(conn, due_message, fault, utc(now_s))


def _composed(due_message: _DueMessage, state: list[str], now_s: float) -> Message:
    """A bug in writing one message out leaves at least the news that there is one."""
    from poledata.notices import message

    with caught(f"the message through {due_message.channel.name}"):
        return message.compose(due_message.items, state, now_s)
    subject = f"{message.PREFIX} {len(due_message.items)} notices: data_manager.py status"
    return Message(subject, "They can't be written out: the log says why.")


def queue_digest(config: Config, conn: db.Connection, headline: str, text: str, at: str) -> None:
    """Queue how the archive stands for every channel but the pagers."""
    channels = [c.name for c in configured_channels(config.secrets) if c.takes(Severity.INFO)]
    with db.transaction(conn):
        db.notices.add_digest(conn, DIGEST, headline, text, at, channels)


def carry_all(
    channels: Sequence[Channel], messages: Sequence[Message], carry: Carry = send_through
) -> list[str | None]:
    """Every channel at once, each with its own message; for each why it failed, or None."""
    from concurrent.futures import ThreadPoolExecutor

    def one(channel: Channel, message: Message) -> str | None:
        with caught(channel.name) as bugs:
            return carry(channel, message)
        return bugs[0]

    with ThreadPoolExecutor(max_workers=max(1, len(channels))) as pool:
        return list(pool.map(one, channels, messages))


def _due_messages(
    config: Config, conn: db.Connection, channels: Sequence[Channel], now_s: float
) -> list[_DueMessage]:
    due_messages = []
    board = Board(conn, channels)
    for channel in channels:
        with board.isolated(f"channel {channel.name}"):
            if due_message := _due_message(config, conn, channel, now_s):
                due_messages.append(due_message)
    return due_messages


def _due_message(
    config: Config, conn: db.Connection, channel: Channel, now_s: float
) -> _DueMessage | None:
    if missing := db.notices.not_queued(conn, channel):
        with db.transaction(conn):
            for notice_id in missing:
                db.notices.queue(conn, notice_id, [channel.name])
    waiting = db.notices.deliveries(conn, channel.name)
    items = _due(config, conn, channel, waiting, now_s) if waiting else ()
    return _DueMessage(channel, items) if items and not _rests(items, now_s) else None


def _due(
    config: Config,
    conn: db.Connection,
    channel: Channel,
    waiting: Sequence[Delivery],
    now_s: float,
) -> tuple[Item, ...]:
    """What a channel is to be told now."""
    from poledata.notices import message

    found = [message.due(one, now_s, config.repeat_notices_s) for one in waiting]
    items = tuple(item for item in found if item and item.is_for(channel))
    return message.without_trickle(items, _told_often(conn, channel, now_s)) if items else ()


def _told_often(conn: db.Connection, channel: Channel, now_s: float) -> set[str]:
    """The kinds of which a channel has had its share of messages for now."""
    from poledata.notices import message

    since, until = (utc(now_s + sign * message.TRICKLE_S) for sign in (-1, 1))
    return db.notices.frequent_kinds(conn, channel.name, since, until, message.TRICKLE_MESSAGES)


def _rests(items: Sequence[Item], now_s: float) -> bool:
    """Whether a channel that failed is not to be tried yet: after 1, 2, … up to 10 minutes."""
    failed = [item.of for item in items if item.of.last_error and item.of.tried_at]
    if not failed:
        return False
    wait_s = min(RETRY_S * max(one.attempts for one in failed), RETRY_LAST_S)
    return abs(now_s - max(seconds(str(one.tried_at)) for one in failed)) < wait_s


def _note(conn: db.Connection, due_message: _DueMessage, fault: str | None, at: str) -> None:
    name, count = due_message.channel.name, len(due_message.items)
    if fault:
        log.warning("%s: %d notices could not be sent: %s", name, count, fault)
    else:
        log.info("%s: %d notices sent", name, count)
    for item in due_message.items:
        if fault:
            db.notices.note_not_sent(conn, item.of, at, fault)
        else:
            db.notices.note_sent(conn, item.of, at)


# --- when the database can't store a notice -------------------------------------------------


def tell_of_database(config: Config, trouble: PoleError) -> None:
    """What can't be stored is told all the same: through each channel once in RepeatNotices."""
    _tell_at_once(
        config.secrets,
        config.db_path,
        Notice("database-error", "database", Severity.CRITICAL, str(trouble), utc(time.time())),
        f"The archive {config.db_path}: how it stands can't be told without its database.",
        config.repeat_notices_s,
    )


def tell_of_config(path: Path, fault: ConfigFault) -> None:
    """The same of a configuration that lets no pass run; who is told stands beside it."""
    if os.geteuid() == 0 and owner_of(path.parent) != 0:
        return  # root writes nothing there, and runs no command of theirs
    secrets, warnings = read_secrets(path.parent / ".env", os.environ)
    for warning in warnings:
        log.warning("%s", warning)
    text = f"No pass runs, so nothing is archived. {fault}"
    _tell_at_once(
        secrets,
        path,
        Notice("config-error", "configuration", Severity.CRITICAL, text, utc(time.time())),
        f"How the archive stands can't be told: {path} can't be used.",
        REPEAT_S,
    )


def _tell_at_once(
    secrets: Secrets, about: Path, notice: Notice, state: str, repeat_s: float
) -> None:
    """A notice that is stored nowhere; a stamp file a channel says when it was told."""
    from poledata.notices import message
    from poledata.notices.message import Item, News

    channels = [c for c in configured_channels(secrets) if not _is_stamped(about, c, repeat_s)]
    item = Item(News.NEW, Delivery(notice, "", 0, None, None, None))
    due_message = message.compose([item], [state], time.time())
    faults = carry_all(channels, [due_message] * len(channels))
    for channel, fault in zip(channels, faults, strict=True):
        if fault:
            log.warning("%s: %s could not be sent: %s", channel.name, due_message.subject, fault)
        else:
            _stamp(about, channel)


def note_settings(config: Config, faults: Sequence[str], state_lines: StateLines) -> None:
    """A notice for each setting that can't be used (``Key: why``); it ends when it can be."""
    why: dict[str, dict[str, None]] = {}
    for key, _, said in (fault.partition(": ") for fault in faults):
        why.setdefault(Path(key).name, {})[said.rstrip(".")] = None
    try:
        with db.connect_again(config.db_path) as conn:
            board = Board(conn, configured_channels(config.secrets))
            before = set(board.open_keys("config-error"))
            for key in before - why.keys():
                board.settle(["config-error"], key)
            for key, texts in why.items():
                board.tell("config-error", key, f"{'; '.join(texts)}.")
            if before != why.keys():
                deliver(config, conn, state_lines)
    except PoleError as fault:
        log.warning("notices of settings can't be stored now: %s", fault)


def _note_that_database_is_back(
    config: Config, conn: db.Connection, channels: Sequence[Channel]
) -> None:
    """Whoever was told of the trouble is told of its end."""
    board = Board(conn, channels)
    for about, kind, key, failed, now in (
        (config.db_path, "database-error", "database", "It did not answer at", "it does now"),
        (config.path, "config-error", "configuration", "It could not be used at", "it can be now"),
    ):
        if stamps := _stamps_of(about):
            since = utc(min(stamp.stat().st_mtime for stamp in stamps))
            board.tell(kind, key, f"{failed} {since}; {now}.", Severity.CRITICAL)
            board.settle([kind], key)
        for stamp in stamps:
            stamp.unlink()


def _all_stamps(config: Config) -> list[Path]:
    return [*_stamps_of(config.db_path), *_stamps_of(config.path)]


def _stamps_of(about: Path) -> list[Path]:
    return [stamp for place in _stamps(about, "") for stamp in _beginning_with(place)]


def _beginning_with(path: Path) -> list[Path]:
    try:
        names = os.listdir(path.parent) if path.parent.is_dir() else []
    except OSError as fault:
        log.warning("%s can't be listed: %s", path.parent, fault)
        return []
    return [path.with_name(name) for name in sorted(names) if name.startswith(path.name)]


def _stamps(about: Path, channel_name: str) -> tuple[Path, Path]:
    """Beside what failed; and in memory, for when its file system can't be written to."""
    about = about.absolute()
    which = zlib.crc32(str(about).encode())
    return (
        about.with_name(f".{about.name}.told-{channel_name}"),
        Path(f"/dev/shm/pole-data-{which:08x}.told-{channel_name}"),
    )


def _is_stamped(about: Path, channel: Channel, repeat_s: float) -> bool:
    ages_s = [
        abs(time.time() - stamp.stat().st_mtime)
        for stamp in _stamps(about, channel.name)
        if stamp.exists()
    ]
    return any(age_s < repeat_s for age_s in ages_s)


def _stamp(about: Path, channel: Channel) -> None:
    for stamp in _stamps(about, channel.name):
        try:
            stamp.touch()
        except OSError as fault:
            log.warning("%s can't be made: %s", stamp, fault)
        else:
            return
