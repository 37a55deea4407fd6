"""Asking drives: smartctl runs once for each path, with a time-out, and pySMART reads its text.

An emulated smartctl answers with the recorded reports, a drive each behind a RAID controller.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from poledata.errors import UsageFault
from poledata.smart import smartctl


def test_smartctl_is_found_though_path_lacks_sbin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cron's PATH is /usr/bin:/bin; smartctl is in /usr/sbin."""
    assert "/usr/sbin" in smartctl._SBIN.split(":")
    (tmp_path / "smartctl").touch(0o755)
    monkeypatch.setattr(smartctl, "_SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert smartctl.find_smartctl() == str(tmp_path / "smartctl")


def test_without_smartctl_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage: nothing was changed."""
    monkeypatch.setattr(smartctl, "_SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageFault) as fault:
        smartctl.query_drives()
    assert str(fault.value) == (
        "smartctl is not installed. Nothing was changed. Debian, Ubuntu: "
        "sudo apt install smartmontools"
    )
