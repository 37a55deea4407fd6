"""The product with something altered in it while a script runs: a bug, or one constant."""

from __future__ import annotations

import sys
from types import ModuleType

# The script is the next argument; it finds the packages beside itself.
_BEFORE = """
import importlib, runpy, sys
del sys.argv[:2]
sys.path.insert(0, sys.argv[0].rpartition('/')[0])
def wrong(*args, **options):
    raise RuntimeError('bo\\nom')
"""
_RUN = "\nrunpy.run_path(sys.argv[0], run_name='__main__')"


def with_constant(module: ModuleType, name: str, value: object) -> tuple[str, ...]:
    """A prefix that runs a script with one constant of a module replaced."""
    return _prefix(f"setattr(importlib.import_module({module.__name__!r}), {name!r}, {value!r})")


def broken(module: ModuleType, name: str) -> tuple[str, ...]:
    """A prefix that runs a script in which one function of a module always fails."""
    return _prefix(f"setattr(importlib.import_module({module.__name__!r}), {name!r}, wrong)")


def with_bug(module: ModuleType, path: str, when: str) -> tuple[str, ...]:
    """A prefix that runs a script in which one function has a bug for some arguments."""
    return _prefix(f"""
*way, last = {path!r}.split('.')
owner = importlib.import_module({module.__name__!r})
for part in way:
    owner = getattr(owner, part)
real = getattr(owner, last)
def wrong_sometimes(*args, **options):
    return wrong() if {when} else real(*args, **options)
setattr(owner, last, wrong_sometimes)
""")


def name_of(value: object) -> str | None:
    """For the ids of tests: a module's name."""
    return value.__name__ if isinstance(value, ModuleType) else None


def _prefix(alter: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"{_BEFORE}{alter}{_RUN}")
