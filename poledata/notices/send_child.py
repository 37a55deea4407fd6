"""The child process that sends one message, checks or fetches one URL: see send.py.

It reads one JSON object from standard input. If it fails, it prints why, in one line without any
part of the URL, and ends with exit code 1.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from urllib.error import HTTPError, URLError
from urllib.parse import unquote
from urllib.request import Request, urlopen

_SOCKET_TIMEOUT_S = 20.0
_NOT_UNDERSTOOD = "apprise does not understand this URL"


def main() -> None:
    order = json.load(sys.stdin)
    try:
        if "check" in order:
            fault = check(order["check"])
        else:
            fault = get(order["get"]) if "get" in order else notify(**order)
    except Exception as defect:  # a bug of apprise, or an apprise that can't be imported
        fault = f"it broke with {type(defect).__name__}"  # its text may hold secrets
    if fault:
        sys.stdout.write(f"{fault}\n")
        sys.exit(1)


def check(url: str) -> str | None:
    """Return why apprise could not send to a URL, as far as it knows without sending."""
    import apprise

    logging.getLogger("apprise").propagate = False
    return None if apprise.Apprise.instantiate(url) else _NOT_UNDERSTOOD


def notify(notify: str, subject: str, body: str) -> str | None:
    """Send through apprise; return why that failed, or None."""
    import apprise

    warnings = _LastWarning()
    logging.getLogger("apprise").addHandler(warnings)
    logging.getLogger("apprise").propagate = False
    sender = apprise.Apprise(asset=apprise.AppriseAsset(app_id="pole-data"))
    if not sender.add(notify):
        return _NOT_UNDERSTOOD
    if sender.notify(title=subject, body=body, body_format=apprise.NotifyFormat.TEXT):
        return None
    return without_secrets(warnings.last or "not delivered", notify)


def get(url: str) -> str | None:
    """Fetch a URL; return why that failed, or None."""
    try:
        with urlopen(Request(url), timeout=_SOCKET_TIMEOUT_S):
            return None
    except HTTPError as fault:
        return f"the server answered {fault.code}"
    except URLError as fault:
        return without_secrets(f"{fault.reason}", url)
    except (OSError, ValueError) as fault:
        return f"{type(fault).__name__}"


def without_secrets(text: str, url: str) -> str:
    """Return the text in one line, without any part of the URL."""
    return without_words(text, url.partition("://")[2])


def without_words(text: str, secret: str) -> str:
    """Return the text in one line, without the words of ``secret`` of four or more characters."""
    parts = re.split(r"[^\w.~%+-]+", secret)
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) > 3:
            text = text.replace(part, "…")
    return " ".join(text.split())


class _LastWarning(logging.Handler):
    """Keep the last warning of apprise: its lower levels may hold secrets."""

    last = ""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


if __name__ == "__main__":
    main()
