"""The parts of docs/reference.md that are made from the code; ``make reference`` rewrites them.

Each is between ``<!-- generated: NAME -->`` and ``<!-- end -->``; the text around them is written
by hand.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from data_manager import data_manager
from generate_db import generate_db
from get_drive_IDs import get_drive_ids
from get_SMART_status import get_smart_status
from poledata.models import HealthCheck
from poledata.settings import KEYS
from poledata.status.facts import Undelivered

PAGE = Path(__file__).resolve().parents[2] / "docs/reference.md"
SCRIPTS = {
    "data_manager.py": data_manager,
    "generate_db.py": generate_db,
    "get_SMART_status.py": get_smart_status,
    "get_drive_IDs.py": get_drive_ids,
}
COMMON = ("--config", "--log-file", "--verbose", "--quiet", "--help", "--version")
_PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def commands() -> Iterator[tuple[str, click.Command]]:
    """``data_manager.py``, ``data_manager.py ack`` … with their click commands."""
    for script, command in SCRIPTS.items():
        yield script, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                sub = command.get_command(context, name)
                assert sub
                yield f"{script} {name}", sub


def usage(name: str, command: click.Command) -> str:
    """``data_manager.py verify [LABEL…]``"""
    arguments = [str(p.metavar) for p in command.params if isinstance(p, click.Argument)]
    return " ".join([name, *arguments])


def options(command: click.Command) -> list[click.Option]:
    params = command.get_params(click.Context(command))
    return [param for param in params if isinstance(param, click.Option)]


def current(page: str) -> str:
    """Return the page with its generated parts made from the code as it is now."""
    return _PART.sub(lambda part: f"{part[1]}\n{_MAKERS[part[2]]()}\n\n{part[4]}", page)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _commands() -> str:
    rows = [(f"`{usage(name, c)}`", _first_part(c)) for name, c in commands()]
    return _table(("command", "what it does"), rows)


def _common_options() -> str:
    found = {option.opts[-1]: option for option in options(data_manager)}
    of = {"--config": "all except `get_drive_IDs.py`"}
    of["--version"] = "`data_manager.py`, `generate_db.py`"
    rows = [(_names(found[name]), of.get(name, "all"), str(found[name].help)) for name in COMMON]
    return _table(("option", "of", "meaning"), rows)


def _each_command() -> str:
    return "\n\n".join(_about(name, command) for name, command in commands())


def _about(name: str, command: click.Command) -> str:
    own = [option for option in options(command) if option.opts[-1] not in COMMON]
    parts = [f"### {name}", f"`{usage(name, command)}`", *_paragraphs(command)]
    if own:
        rows = [(_names(option), _help(option)) for option in own]
        parts.append(_table(("option", "meaning"), rows))
    return "\n\n".join(parts)


def _paragraphs(command: click.Command) -> list[str]:
    return [" ".join(part.split()) for part in (command.help or "").split("\n\n")]


def _first_part(command: click.Command) -> str:
    """The first sentence, up to its first colon or semicolon."""
    return re.split(r"\.(?:\s|$)|[:;]\s", _paragraphs(command)[0])[0]


def _names(option: click.Option) -> str:
    """``-v`` ``--verbose``, and what kind of value it takes."""
    value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    return " ".join(f"`{name}`" for name in option.opts) + value


def _help(option: click.Option) -> str:
    return f"{'Required. ' if option.required else ''}{option.help}"


def _keys() -> str:
    rows = [(f"`{key.name}`", _default(key.default), key.meaning) for key in KEYS]
    return _table(("key", "default", "meaning"), rows)


def _default(text: str | None) -> str:
    return "required" if text is None else f"`{text}`"


def _metrics() -> str:
    """With everything that a station can have."""
    from prometheus_client.parser import text_string_to_metric_families

    from poledata.status import metrics
    from tests.helpers.sample_status import AT, STATUS

    checked = dataclasses.replace(STATUS.disks[0], health=HealthCheck(AT, "healthy", 31))
    waiting = (Undelivered("pager-command", 1, 1, "why"),)
    status = dataclasses.replace(STATUS, disks=(checked,), undelivered=waiting)
    rows = []
    for family in text_string_to_metric_families(metrics.render(status)):
        sample = family.samples[0]
        labels = " ".join(f"`{name}`" for name in sample.labels) or "-"
        rows.append((f"`{sample.name}`", labels, family.documentation))
    return _table(("name", "labels", "meaning"), rows)


_MAKERS = {
    "commands": _commands,
    "options": _common_options,
    "each_command": _each_command,
    "keys": _keys,
    "metrics": _metrics,
}


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
