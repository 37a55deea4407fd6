"""Configuration files as a person writes them."""

from __future__ import annotations

from pathlib import Path

LINES = {
    "FilenameDB": "db/pole_data.sqlite",
    "BufferLocation": "buffer",
    "Extension": "g3",
    "DiskMountPoints": "disks",
}


def write_env(directory: Path, text: str, mode: int = 0o600) -> Path:
    env = directory / ".env"
    env.write_text(text)
    env.chmod(mode)
    return env
