"""The status as numbers for Prometheus: the text that node_exporter's textfile collector reads.

Names and units by https://prometheus.io/docs/practices/naming/: ``pole_``, base units, ``_total``
for what only grows. A number that is not known has no line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from poledata import __version__
from poledata.formatting import seconds
from poledata.models import GONE, Disk, DiskState, Health, Role
from poledata.notices.kinds import DIGEST, SEVERITIES
from poledata.status.facts import ArchiveVerdict, DiskStatus, Status

BEGINNING = "# HELP pole_"
_DISK = ("label", "role", "serial")


def render(status: Status) -> str:
    """The whole file."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry).decode()


class _StatusCollector(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        yield from _overall(self._status)
        yield from _buffer(self._status)
        yield from _archived(self._status)
        yield from _passes(self._status)
        yield from _told(self._status)
        yield from _disks(self._status)


def _gauge(name: str, what: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(f"pole_{name}", what, value=value)


def _labelled(
    name: str, what: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    metric = GaugeMetricFamily(f"pole_{name}", what, labels=labels)
    for values, number in rows:
        metric.add_metric(values, number)
    return metric


def _overall(status: Status) -> Iterator[Metric]:
    yield _labelled(
        "build_info", "The version of the program.", ("version",), [((__version__,), 1)]
    )
    yield from _gauge("status_timestamp_seconds", "When this was looked at.", status.at_s)
    yield _labelled(
        "verdict",
        "The first words of the status: 1 for those that hold.",
        ("verdict",),
        [((each.name.lower(),), each is status.verdict) for each in ArchiveVerdict],
    )
    yield from _gauge("paused", "Whether the archive is paused.", status.pause is not None)
    yield from _gauge(
        "stand_ins", "Whether directories stand in for disks, for demo.", status.stand_ins
    )


def _buffer(status: Status) -> Iterator[Metric]:
    buf = status.buffer
    yield from _gauge("buffer_readable", "Whether the whole buffer can be read.", not buf.fault)
    if buf.used_percent is None:
        return
    used = buf.used_percent / 100
    yield from _gauge("buffer_used_ratio", "Used part of the buffer's file system.", used)
    yield from _gauge("buffer_waiting_files", "Finished files that wait.", buf.finished_files)
    yield from _gauge("buffer_waiting_bytes", "Bytes of these files.", buf.finished_bytes)
    yield from _gauge("buffer_unfinished_files", "Files not yet finished.", buf.unfinished_files)
    yield from _gauge("buffer_foreign_files", "Files of other extensions.", buf.other_files)
    yield from _gauge(
        "buffer_oldest_file_timestamp_seconds",
        "Modification time of the oldest file that waits.",
        buf.oldest_at_s,
    )


def _archived(status: Status) -> Iterator[Metric]:
    done = status.archived
    yield CounterMetricFamily("pole_archived_files", "Files on two disks.", value=done.files)
    yield CounterMetricFamily("pole_archived_bytes", "Bytes on two disks.", value=done.size_bytes)
    yield from _gauge("failed_files", "Files that failed so far.", len(status.pending))
    yield from _gauge(
        "lacking_copies", "Copies damaged or missing, not made again.", status.lacking_copies
    )


def _passes(status: Status) -> Iterator[Metric]:
    yield from _gauge(
        "pass_begun_timestamp_seconds",
        "When a pass last began or got on, also one with nothing to do.",
        status.looked_at_s,
    )
    last = status.last_pass
    if last is None:
        return
    began, ended = seconds(last.started_at), last.ended_at and seconds(last.ended_at)
    for name, what, value in (
        ("started_timestamp_seconds", "when it began.", began),
        ("ended_timestamp_seconds", "when it ended.", ended or None),
        ("archived_files", "files archived.", last.files_archived),
        ("archived_bytes", "bytes archived.", last.bytes_archived),
        ("failed_files", "files that failed.", last.files_failed),
    ):
        yield from _gauge(f"last_pass_{name}", f"Of the last pass with work: {what}", value)


def _told(status: Status) -> Iterator[Metric]:
    known = [(kind, severity.value) for kind, severity in SEVERITIES.items() if kind != DIGEST]
    count = Counter(dict.fromkeys(known, 0))
    count.update((notice.kind, notice.severity.value) for notice in status.notices)
    yield _labelled("open_notices", "Open notices.", ("kind", "severity"), count.items())
    yield _labelled(
        "undelivered_notices",
        "Notices that could not be sent so far.",
        ("channel",),
        [((each.channel,), each.notices) for each in status.undelivered],
    )


# --- disks --------------------------------------------------------------------------------


def _disks(status: Status) -> Iterator[Metric]:
    count = Counter({(role.value, state.value): 0 for role in Role for state in DiskState})
    count.update((item.disk.role.value, item.disk.state.value) for item in status.disks)
    yield _labelled("disks", "Disks by their state.", ("role", "state"), count.items())
    here = [item for item in status.disks if item.disk.state not in GONE]
    yield from _each_disk(here)
    yield from _each_reading(here)
    yield from _each_drive(here)


def _each_disk(items: list[DiskStatus]) -> Iterator[Metric]:
    yield _labelled(
        "disk_info",
        "A disk at the station, and its state.",
        (*_DISK, "state"),
        [((*_names(item.disk), item.disk.state.value), 1) for item in items],
    )
    for name, what, values in (
        (
            "disk_mounted",
            "Whether something is mounted at the disk's place.",
            [item.is_mounted for item in items],
        ),
        ("disk_held", "Whether the disk is held.", [bool(item.disk.held_by) for item in items]),
        (
            "disk_capacity_bytes",
            "Size of its file system.",
            [item.disk.capacity_bytes for item in items],
        ),
        (
            "disk_free_bytes",
            "Free on the disk when it was last used.",
            [item.disk.free_bytes for item in items],
        ),
        (
            "disk_full_timestamp_seconds",
            "When a disk in use will be full at the last week's rate.",
            [i.full_at_s for i in items],
        ),
    ):
        yield _of_disks(name, what, items, values)


def _each_reading(items: list[DiskStatus]) -> Iterator[Metric]:
    for name, what, values in (
        (
            "disk_oldest_verified_timestamp_seconds",
            "When the disk's copy was read that was not read for longest.",
            [i.oldest_verified_at and seconds(i.oldest_verified_at) for i in items],
        ),
        (
            "disk_never_read_copies",
            "Good copies on the disk that were never read back.",
            [i.never_read for i in items],
        ),
        (
            "disk_overdue_copies",
            "Copies that were not read for twice VerifyEvery; 0 for a disk on the shelf.",
            [i.overdue for i in items],
        ),
    ):
        yield _of_disks(name, what, items, values)


def _each_drive(items: list[DiskStatus]) -> Iterator[Metric]:
    checked = [(item.disk, item.health) for item in items if item.health]
    yield _labelled(
        "drive_health",
        "The last SMART check of a drive: 1 for its verdict.",
        (*_DISK, "health"),
        [
            ((*_names(disk), each.value), each.value == check.health)
            for disk, check in checked
            for each in Health
        ],
    )
    with_health = [item for item in items if item.health]
    temperatures = [check.temperature_c for _, check in checked]
    times = [seconds(check.at) for _, check in checked]
    yield _of_disks(
        "drive_temperature_celsius",
        "Temperature at the last SMART check.",
        with_health,
        temperatures,
    )
    yield _of_disks(
        "drive_checked_timestamp_seconds", "When the last SMART check was.", with_health, times
    )


def _of_disks(
    name: str, what: str, items: list[DiskStatus], values: Iterable[float | str | None]
) -> Metric:
    rows = [
        (_names(item.disk), float(value))
        for item, value in zip(items, values, strict=True)
        if value is not None
    ]
    return _labelled(name, what, _DISK, rows)


def _names(disk: Disk) -> tuple[str, ...]:
    return (disk.label, disk.role.value, disk.serial)
