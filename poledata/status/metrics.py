"""The status as numbers for Prometheus: the text that node_exporter's textfile collector reads.

Names and units follow https://prometheus.io/docs/practices/naming/: ``pole_``, base units,
``_total`` for what only grows. A number that is not known has no line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from poledata import __version__
from poledata.formatting import seconds
from poledata.models import GONE, Disk, DiskState, Health, Role
from poledata.notices.kinds import DIGEST, SEVERITIES
from poledata.status.facts import ArchiveVerdict, DiskStatus, Status

BEGINNING = "# HELP pole_"
_DISK = ("label", "role", "serial")
_Rows = Iterable[tuple[tuple[str, ...], float | None]]


def render(status: Status) -> str:
    """Return the whole file."""
    return generate_latest(_StatusCollector(status)).decode()


class _StatusCollector(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        yield from _of_archive(self._status)
        yield from _of_buffer(self._status)
        yield from _of_files(self._status)
        yield from _of_passes(self._status)
        yield from _of_notices(self._status)
        yield from _of_disks(self._status)


def _of_archive(status: Status) -> Iterator[Metric]:
    version = [((__version__,), 1)]
    yield _labelled("build_info", "The version of the program.", ("version",), version)
    yield _number("status_timestamp_seconds", "When this was collected.", status.at_s)
    yield _labelled(
        "verdict",
        "The first words of the status: 1 for those that hold.",
        ("verdict",),
        [((each.name.lower(),), each is status.verdict) for each in ArchiveVerdict],
    )
    yield _number("paused", "Whether the archive is paused.", status.pause is not None)
    stand_ins = "Whether directories stand in for disks (demo)."
    yield _number("stand_ins", stand_ins, status.stand_ins)


def _of_buffer(status: Status) -> Iterator[Metric]:
    buf = status.buffer
    yield _number("buffer_readable", "Whether the whole buffer can be read.", not buf.fault)
    if buf.used_percent is None:
        return
    used = buf.used_percent / 100
    yield _number("buffer_used_ratio", "Used part of the buffer's file system.", used)
    yield _number("buffer_waiting_files", "Finished files that wait.", buf.finished_files)
    yield _number("buffer_waiting_bytes", "Bytes of these files.", buf.finished_bytes)
    yield _number("buffer_unfinished_files", "Files not yet finished.", buf.unfinished_files)
    yield _number("buffer_foreign_files", "Files with other extensions.", buf.other_files)
    if buf.oldest_at_s is not None:
        oldest = "Modification time of the oldest file that waits."
        yield _number("buffer_oldest_file_timestamp_seconds", oldest, buf.oldest_at_s)


def _of_files(status: Status) -> Iterator[Metric]:
    done = status.archived
    yield CounterMetricFamily("pole_archived_files", "Files on two disks.", done.files)
    yield CounterMetricFamily("pole_archived_bytes", "Bytes on two disks.", done.size_bytes)
    yield _number("failed_files", "Files that failed so far.", len(status.pending))
    lacking = "Damaged or missing copies that were not made again."
    yield _number("lacking_copies", lacking, status.lacking_copies)


def _of_passes(status: Status) -> Iterator[Metric]:
    if status.looked_at_s is not None:
        begun = "When a pass last began or moved a byte, even if it had nothing to do."
        yield _number("pass_begun_timestamp_seconds", begun, status.looked_at_s)
    if last := status.last_pass:
        for name, text, value in (
            ("started_timestamp_seconds", "when it began.", seconds(last.started_at)),
            ("ended_timestamp_seconds", "when it ended.", _seconds(last.ended_at)),
            ("archived_files", "files archived.", last.files_archived),
            ("archived_bytes", "bytes archived.", last.bytes_archived),
            ("failed_files", "files that failed.", last.files_failed),
        ):
            if value is not None:
                yield _number(f"last_pass_{name}", f"Of the last pass with work: {text}", value)


def _of_notices(status: Status) -> Iterator[Metric]:
    kinds = [(kind, severity.value) for kind, severity in SEVERITIES.items() if kind != DIGEST]
    count = Counter(dict.fromkeys(kinds, 0))
    count.update((notice.kind, notice.severity.value) for notice in status.notices)
    yield _labelled("open_notices", "Open notices.", ("kind", "severity"), count.items())
    yield _labelled(
        "undelivered_notices",
        "Notices that could not be sent so far.",
        ("channel",),
        [((each.channel,), each.notices) for each in status.undelivered],
    )


# --- disks --------------------------------------------------------------------------------


def _of_disks(status: Status) -> Iterator[Metric]:
    count = Counter({(role.value, state.value): 0 for role in Role for state in DiskState})
    count.update((item.disk.role.value, item.disk.state.value) for item in status.disks)
    yield _labelled("disks", "Disks by their state.", ("role", "state"), count.items())
    items = [item for item in status.disks if item.disk.state not in GONE]
    yield _labelled(
        "disk_info",
        "A disk at the station, and its state.",
        (*_DISK, "state"),
        [((*_names(item.disk), item.disk.state.value), 1) for item in items],
    )
    yield from (_by_disk(items, *number) for number in _DISK_NUMBERS)
    yield _labelled(
        "drive_health",
        "The last SMART check of a drive: 1 for its verdict.",
        (*_DISK, "health"),
        [
            ((*_names(item.disk), each.value), each.value == item.health.health)
            for item in items
            if item.health
            for each in Health
        ],
    )
    yield from (_by_disk(items, *number) for number in _DRIVE_NUMBERS)


def _seconds(at: str | None) -> float | None:
    return seconds(at) if at else None


_NumberOf = Callable[[DiskStatus], float | None]
_DISK_NUMBERS: tuple[tuple[str, str, _NumberOf], ...] = (
    ("disk_mounted", "Whether something is mounted at the disk's place.", lambda i: i.is_mounted),
    ("disk_held", "Whether the disk is held.", lambda i: bool(i.disk.held_by)),
    ("disk_capacity_bytes", "Size of its file system.", lambda i: i.disk.capacity_bytes),
    ("disk_free_bytes", "Free on the disk when it was last used.", lambda i: i.disk.free_bytes),
    ("disk_full_timestamp_seconds", "When a disk in use will be full at the last week's rate.",
     lambda i: i.full_at_s),
    ("disk_oldest_verified_timestamp_seconds",
     "The oldest verification of a copy on the disk.",
     lambda i: _seconds(i.oldest_verified_at)),
    ("disk_never_read_copies", "Good copies on the disk that were never verified.",
     lambda i: i.never_read),
    ("disk_overdue_copies",
     "Copies not verified within twice VerifyEvery; 0 for a disk on the shelf.",
     lambda i: i.overdue),
)  # fmt: skip
_DRIVE_NUMBERS: tuple[tuple[str, str, _NumberOf], ...] = (
    ("drive_temperature_celsius", "Temperature at the last SMART check.",
     lambda i: i.health.temperature_c if i.health else None),
    ("drive_checked_timestamp_seconds", "When the last SMART check was.",
     lambda i: seconds(i.health.at) if i.health else None),
)  # fmt: skip


def _by_disk(items: list[DiskStatus], name: str, text: str, number_of: _NumberOf) -> Metric:
    return _labelled(name, text, _DISK, [(_names(item.disk), number_of(item)) for item in items])


def _names(disk: Disk) -> tuple[str, ...]:
    return (disk.label, disk.role.value, disk.serial)


def _number(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pole_{name}", text, value=value)


def _labelled(name: str, text: str, labels: tuple[str, ...], rows: _Rows) -> Metric:
    metric = GaugeMetricFamily(f"pole_{name}", text, labels=labels)
    for values, number in rows:
        if number is not None:
            metric.add_metric(values, number)
    return metric
