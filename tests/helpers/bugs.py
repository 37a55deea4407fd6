"""Bugs that are put into the product while a script runs."""

from __future__ import annotations

import sys


def with_bug(module: str, path: str, when: str) -> tuple[str, ...]:
    """A prefix that runs a script in which one function has a bug for some arguments."""
    program = f"""
import importlib, runpy, sys
del sys.argv[:2]
sys.path.insert(0, sys.argv[0].rpartition('/')[0])
*way, last = {path!r}.split('.')
owner = importlib.import_module({module!r})
for part in way:
    owner = getattr(owner, part)
real = getattr(owner, last)
def wrong(*args, **options):
    if {when}:
        raise RuntimeError('bo\\nom')
    return real(*args, **options)
setattr(owner, last, wrong)
runpy.run_path(sys.argv[0], run_name='__main__')
"""
    return (sys.executable, "-c", program)
