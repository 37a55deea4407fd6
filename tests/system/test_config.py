"""What a person may write, and what each mistake is answered with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from poledata.config import Secrets, load
from tests.helpers.config_files import LINES, write_env

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes site.config among existing directories: its keys, or a whole text."""
    for name in ("buffer", "db", "disks"):
        (tmp_path / name).mkdir()

    def written(text: str | None = None, **changed: str | None) -> Path:
        if text is None:
            lines = {key: value for key, value in (LINES | changed).items() if value is not None}
            text = "[site]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
        (tmp_path / "site.config").write_bytes(text.encode())
        return tmp_path / "site.config"

    return written


def test_root_runs_no_command_of_an_env_file_that_root_does_not_own(
    write: Write, tmp_path: Path
) -> None:
    """Else whoever may write the file would be root; URLs are not commands."""
    env = write_env(tmp_path, "POLE_PAGER_COMMAND=x\nPOLE_HEARTBEAT_URL=http://h\n")
    os.chown(env, 65534, 65534)
    config = load(write(), {})
    assert config.secrets == Secrets(heartbeat_url="http://h")
    assert config.warnings == (
        f"{env}: belongs to another user, so its command is not run; give it to the cron user "
        "(POLE_PAGER_COMMAND)",
    )
    assert load(write(), {"POLE_PAGER_COMMAND": "y"}).secrets.pager_command == "y"
