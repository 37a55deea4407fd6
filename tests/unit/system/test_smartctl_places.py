"""smartctl is found in fixed places; PATH is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from poledata.errors import UsageFault
from poledata.system import privileges


def test_path_does_not_decide_which_smartctl_root_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directories are fixed, and of the system; cron's PATH lacks /usr/sbin anyway."""
    (tmp_path / "smartctl").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(privileges, "SMARTCTL_DIRECTORIES", (str(tmp_path / "empty"),))
    with pytest.raises(UsageFault, match="smartctl is not installed"):
        privileges._find_smartctl()
    monkeypatch.setattr(privileges, "SMARTCTL_DIRECTORIES", (str(tmp_path),))
    monkeypatch.setenv("PATH", "/nowhere")
    assert privileges._find_smartctl() == str(tmp_path / "smartctl")


def test_without_smartctl_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage: nothing was changed."""
    monkeypatch.setattr(privileges, "SMARTCTL_DIRECTORIES", (str(tmp_path),))
    with pytest.raises(UsageFault) as fault:
        privileges.RootSmartctl()
    assert str(fault.value) == (
        "smartctl is not installed. Nothing was changed. Debian, Ubuntu: "
        "sudo apt install smartmontools"
    )
