"""The guarded world every test runs in, and the markers' meaning."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.quick.sitecustomize import QUICK

pytest.register_assert_rewrite("tests.helpers")

pytest_plugins = [
    "tests.helpers.world",
    "tests.helpers.loopdisks",
    "tests.helpers.post",
    "tests.helpers.people",
    "tests.campaigns.stage",
]

HERE = Path(__file__).parent
# A slow or busy machine is no fault of the code: no example has a deadline of its own.
settings.register_profile("pole", deadline=None)
settings.load_profile("pole")

# Read here, because a running test's environment has no POLE_* variables.
FAIL_ON_SKIP = os.environ.get("POLE_FAIL_ON_SKIP") == "1"
# One for all workers of xdist, which inherit the environment.
SEED = int(os.environ.setdefault("POLE_SEED", str(int.from_bytes(os.urandom(4), "big"))))

SMARTCTL_STUB = """\
#!/bin/sh
touch "${0%/*}/called"
echo "no real smartctl in tests" >&2
exit 1
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: some test always waits for a disk, a clock or a time-out."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(tryfirst=True)  # before markers are selected, and before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first; all that boots a guest does so in one worker, in turn."""
    for item in items:
        for mark in _marks_of_the_folder(item.path):
            item.add_marker(mark)
        if item.get_closest_marker("qemu"):
            item.add_marker(pytest.mark.xdist_group("guest"))
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("qemu", "waits"))))


def _marks_of_the_folder(path: Path) -> list[pytest.MarkDecorator]:
    """What a test needs, by the folder that it is in: see CONTRIBUTING.md."""
    match path.relative_to(HERE).parts:
        case ("system", "guest", *_):
            return [pytest.mark.qemu]
        case ("system", "browser", *_):
            return [pytest.mark.xdist_group("browser")]  # one browser for all of them
        case ("system", *_):
            return [pytest.mark.root]
    return []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is None:
        return
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("needs loop devices: /dev/loop-control is missing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    from tests.helpers.automounter import NO_AUTOFS  # not before its asserts can be rewritten

    if FAIL_ON_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if NO_AUTOFS in str(reason):
            return  # the machine can't have it; pytest's summary counts the skip
        report.outcome = "failed"
        report.longrepr = f"POLE_FAIL_ON_SKIP=1 allows no skip. {reason}"


@pytest.fixture
def seed() -> int:
    """Of all that is random in a campaign: POLE_SEED, or a new one each time; printed."""
    print(f"POLE_SEED={SEED}")
    return SEED


@pytest.fixture(scope="session")
def _smartctl_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smartctl that fails, and leaves ``called`` beside itself."""
    stub = tmp_path_factory.mktemp("guard") / "smartctl"
    stub.write_text(SMARTCTL_STUB)
    stub.chmod(0o755)
    return stub


@pytest.fixture(autouse=True)
def _guarded_world(
    _smartctl_stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """No network beyond this machine, no real smartctl, nothing of the caller's settings.

    A test that wants an emulated smartctl puts its own directory first in PATH.
    """
    for name in [name for name in os.environ if name.startswith("POLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("PATH", f"{_smartctl_stub.parent}:{os.environ['PATH']}")
    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, _loopback_only(getattr(socket.socket, method)))
    for module, constants in QUICK.items():
        for name, value in constants.items():
            monkeypatch.setattr(f"{module}.{name}", value)
    directories = tuple(os.environ["PATH"].split(":"))
    monkeypatch.setattr("poledata.system.privileges.SMARTCTL_DIRECTORIES", directories)
    monkeypatch.setattr(socket, "getaddrinfo", _local_names_only(socket.getaddrinfo))
    yield
    called = _smartctl_stub.with_name("called")
    if called.exists():
        called.unlink()
        pytest.fail("the test ran smartctl without emulating it")


def _loopback_only(real: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_unless_local(address[0])
        return real(self, address)

    return guarded


def _local_names_only(real: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_unless_local(host)
        return real(host, *args, **kwargs)

    return guarded


def _refuse_unless_local(host: str | bytes | None) -> None:
    """Fail the test, with an exception that no ``except Exception`` swallows."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        pytest.fail(f"the test reached for the network: {name}")
