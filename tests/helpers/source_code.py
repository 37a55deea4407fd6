"""The modules of the product, as their source reads."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.world import REPO

# From the bottom: a package imports only from the layers below its own.
LAYERS = (
    ("errors", "formatting", "models"),
    ("disk_map", "settings", "system"),
    ("config",),
    ("db",),
    ("notices",),
    ("context",),
    ("disks",),
    ("archive", "smart"),
    ("maintenance", "status"),
    ("cli",),
)
# A command of its own may know more; a pass, which cron starts each minute, loads none of these.
HEAVY = {"apprise", "dotenv", "jinja2", "prometheus_client", "pySMART", "requests", "rich"}


def module_of(path: Path) -> str:
    """``poledata.disks.bag``; of a package ``poledata.disks``; of a script its name."""
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
