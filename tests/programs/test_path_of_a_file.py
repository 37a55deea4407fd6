"""The way of one file through the code is short enough to be told."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import poledata
from poledata import db
from poledata.archive.pass_state import Watcher
from poledata.archive.run import run_pass
from poledata.config import load
from tests.helpers.world import World

NAME = "fullrate/RCW38/80296951/0000.g3"
PACKAGE = Path(poledata.__file__).parent
# What writes a name for people, carries records from one step to the next, or contains a bug.
# archive.selection: which trees the configuration names.
ASIDE = {"formatting", "models", "errors", "notices.defects", "archive.selection"}
PROGRESS = {"moved"}  # what a person watches
MOST_MODULES = 10


class Calls:
    """Each call of a function of ours: its module, its name, and the records that it gets."""

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {}
        self.counts: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(f"{PACKAGE}/"):
            return
        path = Path(code.co_filename).relative_to(PACKAGE).with_suffix("")
        module = ".".join(path.parts)
        self.counts[f"{module}.{code.co_name}"] += 1
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if code.co_name not in PROGRESS and any(
            self._is_of_file(frame.f_locals.get(name)) for name in given
        ):
            self.modules.setdefault(module, set()).add(code.co_name)

    def _is_of_file(self, value: Any) -> bool:
        """True for the file's name or path, a record of it, and a list of them."""
        if isinstance(value, (list, tuple)):
            return any(self._is_of_file(each) for each in value[:3])
        if isinstance(value, str):
            return value.endswith(("/0000.g3", "/.0000.g3.removing"))
        records = {"Waiting", "Work", "Job", "Result", "Draft", "ArchivedFile", "KnownFile"}
        return type(value).__name__ in records


@contextmanager
def calls() -> Iterator[Calls]:
    """Record what this process calls, in all its threads."""
    found = Calls()
    threading.setprofile(found)
    sys.setprofile(found)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


@pytest.fixture
def archived(world: World) -> Calls:
    """One file, archived and removed by a pass in this process."""
    world.put("first.g3")
    world.generate()
    world.run_pass(check=0)  # both disks are in use now
    world.put(NAME)
    config = load(world.config_path, {})
    with db.connect(world.db_path) as conn, calls() as found:
        run_pass(config, conn, threading.Event(), Watcher())
    assert world.waiting() == set()
    return found


def test_one_file_passes_through_ten_modules_at_most(archived: Calls) -> None:
    """From the scan to the removal: these are the modules that have the file in hand."""
    modules = archived.modules.keys() - ASIDE
    assert len(modules) <= MOST_MODULES, " ".join(sorted(modules))


def test_no_disk_is_proved_or_measured_twice_in_a_batch(archived: Calls) -> None:
    """Two disks; at the end of the pass each is proved once more, for its copy of the database."""
    disks = 2
    assert archived.counts["disks.identity.prove"] == 2 * disks
    assert archived.counts["disks.identity.must_be_writable"] == disks
    assert archived.counts["disks.mounted_disks.room"] == disks
