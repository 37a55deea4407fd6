"""How a forked script ends: for the two servers that start scripts as forks of themselves."""

from __future__ import annotations

import os
import select
import signal
from typing import Any


def ended(child: int, timeout_s: float) -> dict[str, Any]:
    """How the child ended; SIGKILL after ``timeout_s``."""
    pidfd = os.pidfd_open(child)
    in_time, _, _ = select.select([pidfd], [], [], timeout_s)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    os.close(pidfd)
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "in_time": bool(in_time)}
