"""The status in numbers, as Prometheus reads and names them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from poledata.models import HealthCheck, Notice, Pause, Severity
from poledata.status import metrics
from poledata.status.facts import (
    ArchiveVerdict,
    BufferStatus,
    DiskStatus,
    Status,
    Undelivered,
)
from tests.helpers.sample_page import SAMPLE
from tests.helpers.sample_status import AT, NOON, STATUS, judged

# https://prometheus.io/docs/practices/naming/: base units, and what counts things.
UNITS = ("_seconds", "_bytes", "_ratio", "_celsius", "_files", "_copies", "_notices", "_info")
WITHOUT_UNIT = {"pole_verdict", "pole_paused", "pole_stand_ins", "pole_buffer_readable"}

WITHOUT_UNIT |= {"pole_disks", "pole_disk_mounted", "pole_disk_held", "pole_drive_health"}


def families(status: Status) -> dict[str, Metric]:
    """As the client's own parser reads them."""
    found = list(text_string_to_metric_families(metrics.render(status)))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def value(status: Status, name: str, **labels: str) -> float | None:
    """The one sample of this name with these labels among its own."""
    found = [
        sample.value
        for family in families(status).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_names_and_units_are_by_the_conventions() -> None:
    """One prefix, base units, ``_total`` for what only grows, a help text for each."""
    for name, family in families(SAMPLE).items():
        assert re.fullmatch("pole_[a-z_]+[a-z]", name)
        assert family.documentation.endswith(".") and family.documentation[0].isupper()
        assert name.endswith(UNITS) or name in WITHOUT_UNIT, name
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not {"le", "quantile", "instance", "job"} & sample.labels.keys()
    assert {name for name, family in families(SAMPLE).items() if family.type == "counter"} == {
        "pole_archived_files",
        "pole_archived_bytes",
    }


def test_the_file_is_known_as_ours_by_its_beginning() -> None:
    """So that it may be written anew."""
    assert metrics.render(STATUS).startswith(metrics.BEGINNING)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("pole_status_timestamp_seconds", NOON),
        ("pole_paused", 0),
        ("pole_stand_ins", 0),
        ("pole_buffer_readable", 1),
        ("pole_buffer_used_ratio", 0.416),
        ("pole_buffer_waiting_files", 3),
        ("pole_buffer_waiting_bytes", 1_500_000_000),
        ("pole_buffer_unfinished_files", 1),
        ("pole_buffer_foreign_files", 2),
        ("pole_buffer_oldest_file_timestamp_seconds", NOON - 7200),
        ("pole_archived_files_total", 10),
        ("pole_archived_bytes_total", 2 * 10**12),
        ("pole_failed_files", 0),
        ("pole_lacking_copies", 0),
        ("pole_pass_begun_timestamp_seconds", NOON - 60),
        ("pole_last_pass_started_timestamp_seconds", NOON - 1800),
        ("pole_last_pass_ended_timestamp_seconds", NOON - 1800),
        ("pole_last_pass_archived_files", 5),
        ("pole_last_pass_archived_bytes", 5_000_000),
        ("pole_last_pass_failed_files", 0),
    ],
)
def test_the_numbers_of_the_status_are_there(name: str, number: float) -> None:
    """Bytes, seconds and parts of one; to full precision."""
    assert value(STATUS, name) == pytest.approx(number, rel=1e-15)


def test_the_verdict_is_one_of_three() -> None:
    """So that ``pole_verdict{verdict="act_now"} == 1`` is an alert."""
    for status, verdict in ((STATUS, "all_well"), (SAMPLE, "look_today")):
        told = {
            each: value(status, "pole_verdict", verdict=each.name.lower())
            for each in ArchiveVerdict
        }
        assert told == {each: float(each.name.lower() == verdict) for each in ArchiveVerdict}


def test_what_is_not_known_has_no_line() -> None:
    """Neither a zero nor a NaN, which would be taken for a number."""
    bare = replace(
        STATUS, buffer=BufferStatus(fault="Stale file handle"), last_pass=None, looked_at_s=None
    )
    names = set(families(bare))
    assert value(bare, "pole_buffer_readable") == 0
    assert not [name for name in names if name.startswith(("pole_buffer_u", "pole_last_pass"))]
    assert "pole_pass_begun_timestamp_seconds" not in names
    assert "NaN" not in metrics.render(bare)
    at_work = replace(STATUS, last_pass=replace(STATUS.last_pass, ended_at=None))  # type: ignore[type-var]
    assert value(at_work, "pole_last_pass_ended_timestamp_seconds") is None


def test_open_notices_are_counted_by_kind_and_severity() -> None:
    """With a zero where there is none: an alert needs something to compare."""
    critical = Notice("buffer-full", "buffer", Severity.CRITICAL, "", AT)
    bad = [Notice("bad-name", f"{number}", Severity.WARNING, "", AT) for number in range(3)]
    status = judged(replace(STATUS, notices=(critical, *bad)))
    assert value(status, "pole_open_notices", kind="bad-name", severity="warning") == 3
    assert value(status, "pole_open_notices", kind="buffer-full", severity="critical") == 1
    assert value(status, "pole_open_notices", kind="buffer-full", severity="warning") == 0
    assert value(status, "pole_open_notices", kind="no-disk") == 0
    waiting = replace(status, undelivered=(Undelivered("notify-1-mailto", 3, 9, "refused"),))
    assert value(waiting, "pole_undelivered_notices", channel="notify-1-mailto") == 3
    assert value(replace(status, pause=Pause(AT, "why", None)), "pole_paused") == 1


def test_each_disk_at_the_station_has_its_numbers() -> None:
    """With label, role and serial; what is not known of it is left out; S01 is shipped."""
    of_p01 = {"label": "P01", "role": "primary", "serial": "ZP01"}
    assert value(STATUS, "pole_disk_info", **of_p01, state="active") == 1
    assert value(STATUS, "pole_disk_mounted", **of_p01) == 1
    assert value(STATUS, "pole_disk_held", **of_p01) == 0
    assert value(STATUS, "pole_disk_capacity_bytes", **of_p01) == 8e12
    assert value(STATUS, "pole_disk_free_bytes", **of_p01) == 3e12
    assert value(STATUS, "pole_disk_full_timestamp_seconds", **of_p01) == NOON + 3 * 86_400
    assert value(STATUS, "pole_disk_oldest_verified_timestamp_seconds", **of_p01) == NOON - 1800
    assert value(STATUS, "pole_disk_mounted", label="P03") == 0
    assert value(STATUS, "pole_disk_held", label="S02") == 1
    assert value(STATUS, "pole_disk_free_bytes", label="P02") is None
    assert value(STATUS, "pole_disk_info", label="S01") is None
    assert value(STATUS, "pole_disks", role="copy", state="shipped") == 1
    assert value(STATUS, "pole_disks", role="primary", state="spare") == 2
    assert value(STATUS, "pole_disks", role="copy", state="lost") == 0


def test_each_checked_drive_has_its_verdict_and_temperature() -> None:
    """One that was never checked has none."""
    seen = HealthCheck(AT, "failing", 61)
    status = replace(STATUS, disks=(replace(STATUS.disks[0], health=seen), STATUS.disks[1]))
    assert value(status, "pole_drive_health", label="P01", health="failing") == 1
    assert value(status, "pole_drive_health", label="P01", health="healthy") == 0
    assert value(status, "pole_drive_temperature_celsius", label="P01") == 61
    assert value(status, "pole_drive_checked_timestamp_seconds", label="P01") == NOON - 1800
    assert value(status, "pole_drive_health", label="P02", health="healthy") is None


def test_no_text_breaks_a_line() -> None:
    """A serial with a quote, a backslash and a line end is read back as it was."""
    odd = 'a"b\\c\nd'
    one = replace(STATUS.disks[0].disk, serial=odd)
    status = replace(STATUS, disks=(DiskStatus(one, True),))
    assert value(status, "pole_disk_mounted", serial=odd) == 1
