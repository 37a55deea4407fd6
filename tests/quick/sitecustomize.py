"""Shortens the two waits that protect a buffer against writers, for scripts that tests start, and
lets them find the smartctl that a test emulates: the product looks for it in fixed places alone.

Python imports this at its start where this directory is in PYTHONPATH (tests/helpers/world.py
puts it there). The product has no switch for it. Tests about these waits leave it out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

QUICK: dict[str, dict[str, object]] = {
    "poledata.archive.buffer_marker": {
        "LEAST_SETTLE_S": 0.0,
        "UNKNOWN_GRANULARITY_S": 0.0,
        "_KERNEL_TICK_S": 0.0,
    },
    "poledata.archive.removal": {"PAUSE_S": 0.01},
    "poledata.system.privileges": {
        "SMARTCTL_DIRECTORIES": tuple(os.environ.get("PATH", "").split(":"))
    },
}


class _Quick(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in QUICK else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_shorten(module: ModuleType) -> None:
            run(module)
            vars(module).update(QUICK[name])

        spec.loader.exec_module = run_and_shorten  # type: ignore[method-assign]
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Quick())
