"""How fast the archive is, beside its disks' limit and beside other tools; `make bench`."""

from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
