"""Built and installed in clean environments, on every Python that is here: `make test-all-pythons`.

Needs the network, or whatever pip has in its place. Pythons are looked for in PATH and where pyenv
keeps them; PYTHONS="python3.12 /opt/python/bin/python3" names others.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.world import REPO

pytestmark = [pytest.mark.install, pytest.mark.timeout(900)]
MINORS = range(11, 16)  # 3.11 …
CORE = ("click", "pySMART", "python-dotenv")
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))  # before HOME is guarded
# What runs on the oldest releases of all dependencies: whatever uses one of them.
USES_DEPENDENCIES = ("command_line", "smartctl", "metrics", "html", "page", "publish", "secrets")
USES_DEPENDENCIES += ("channels",)
CONFIG = """\
[required]
FilenameDB = db/pole.sqlite
BufferLocation = buffer
Extension = g3
DiskMountPoints = disks
[disks]
RequireMount = no
MinFreeSpace = 1 MB
[pass]
SettleTime = 0 s
[notices]
SpareDisksLow = 0
"""
DISK_MAP = "P01 Z1 0x5000c500858bfea7\nS01 Z2 0x5000c500858bfea8\n"


def pythons() -> list[str]:
    """One interpreter for each version from 3.11 on, and the one that runs this."""
    if named := os.environ.get("PYTHONS"):
        return named.split()
    found = {sys.version_info[:2]: sys.executable}
    for minor in MINORS:
        name = f"python3.{minor}"
        places = [shutil.which(name), *sorted(PYENV.glob(f"versions/3.{minor}.*/bin/{name}"))]
        works = [str(place) for place in places if place and _version_of(place) == (3, minor)]
        if works:
            found.setdefault((3, minor), works[0])
    return [found[version] for version in sorted(found)]


def _version_of(python: str | Path) -> tuple[int, ...] | None:
    """None where it does not run: a shim of a version that is not chosen."""
    asked = "import sys; print(*sys.version_info[:2])"
    ran = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    return tuple(map(int, ran.stdout.split())) if ran.returncode == 0 else None


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Its output; with no environment but PATH, and what tells pip where packages are."""
    pips = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    env = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), **pips, **(env or {})}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    assert result.returncode == 0, said
    return result.stdout


def setup_cfg() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    return setup


# --- what is built --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that git keeps of this repository, as it is now, in a directory of its own."""
    copy = tmp_path_factory.mktemp("source") / "pole"
    listed = run("git", "-c", f"safe.directory={REPO}", "ls-files", "-z", cwd=REPO)
    for name in filter(None, listed.split("\0")):
        if (REPO / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name)
    return copy


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(source: Path) -> Built:
    """The sdist, and the wheel that was made of it, by an environment of their own."""
    run(sys.executable, "-m", "build", "--outdir", source.parent / "dist", source, cwd=source)
    (sdist,), (wheel,) = (
        list((source.parent / "dist").glob(ending)) for ending in ("*.tar.gz", "*.whl")
    )
    return Built(sdist, wheel)


def test_the_wheel_made_of_the_sdist_holds_the_whole_program(built: Built, source: Path) -> None:
    """Every module and data file, the four scripts, the licence; and nothing of the tests."""
    files = {p.relative_to(source) for p in (source / "poledata").rglob("*") if p.is_file()}
    files |= {p.relative_to(source) for p in source.glob("*.py")}
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
    program = {name for name in names if ".dist-info/" not in name}
    assert program == {str(path) for path in files if "__pycache__" not in path.parts}
    assert any(name.endswith("LICENSE") for name in names)
    with tarfile.open(built.sdist) as sdist:
        beside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "LICENSE", "setup.cfg", "pyproject.toml"} <= beside


# --- installed ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """A virtual environment, and a place to work in."""

    place: Path
    bin: Path

    def pip(self, *args: str | Path) -> None:
        run(self.bin / "python", "-m", "pip", "install", "--quiet", *args, cwd=self.place)

    def check(self) -> None:
        """Everything that is needed is there, in a version that is allowed."""
        run(self.bin / "python", "-m", "pip", "check", cwd=self.place)


def environment(python: str, place: Path) -> Installed:
    place.mkdir(parents=True, exist_ok=True)
    run(python, "-m", "venv", place / "venv", cwd=place)
    return Installed(place, place / "venv/bin")


def archives(place: Path, *generate_db: str | Path) -> None:
    """A little station: its one file is archived, twice, by commands that cron could start.

    ``generate_db`` is the command before its options; ``data_manager`` the same beside it.
    """
    *python, script = generate_db
    station = place / "station"
    for name in ("db", "buffer/obs", "disks/P01", "disks/S01"):
        (station / name).mkdir(parents=True)
    (station / "station.config").write_text(CONFIG)
    (station / "disk-map").write_text(DISK_MAP)
    (station / "buffer/obs/0000.g3").write_bytes(b"sky")
    data_manager = (*python, str(script).replace("generate_db", "data_manager"))
    config = ("--config", station / "station.config")
    nowhere = Path("/")
    run(*generate_db, *config, "--disk-map", station / "disk-map", cwd=nowhere)
    while any((station / "buffer/obs").iterdir()):  # until it has rested for a second
        run(*data_manager, *config, cwd=nowhere)
    status = run(*data_manager, *config, "status", cwd=nowhere)
    assert status.startswith("ALL WELL"), status
    assert run(*data_manager, "explain", "no-disk", cwd=nowhere).startswith("## no-disk\n")
    assert list((station / "buffer/obs").iterdir()) == []
    for label in ("P01", "S01"):
        copy = station / f"disks/{label}/data/obs/0000.g3"
        assert copy.read_bytes() == b"sky"


def commands(place: Path, installed: Installed, source: Path) -> Iterator[Sequence[str | Path]]:
    """The ways to call it: the console command, through a link, and the script itself."""
    link = place / "generate_db"
    link.symlink_to(installed.bin / "generate_db")
    (place / "data_manager").symlink_to(installed.bin / "data_manager")
    yield (installed.bin / "generate_db",)
    yield (link,)
    yield (installed.bin / "python", source / "generate_db.py")


@pytest.mark.parametrize("python", pythons())
def test_it_installs_and_archives(python: str, built: Built, source: Path, tmp_path: Path) -> None:
    """With all it may use; every way to call it, from any directory, with an empty environment."""
    installed = environment(python, tmp_path)
    installed.pip(f"{built.wheel}[page]")
    installed.check()
    for number, command in enumerate(commands(tmp_path, installed, source)):
        archives(tmp_path / str(number), *command)
    for script in ("get_drive_IDs", "get_SMART_status"):
        assert script in run(installed.bin / script, "--help", cwd=tmp_path)
    page, config = tmp_path / "page.html", tmp_path / "0/station/station.config"
    run(installed.bin / "data_manager", "--config", config, "status", "--html", page, cwd=tmp_path)
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("python", pythons())
def test_the_core_alone_archives(python: str, built: Built, tmp_path: Path) -> None:
    """Without rich, apprise, jinja2: a pass, and what a person asks of it."""
    installed = environment(python, tmp_path)
    needs = setup_cfg()["options"]["install_requires"].split("\n")
    installed.pip("--no-deps", built.wheel)
    installed.pip(*(need for need in needs if need.startswith(CORE)))
    archives(tmp_path, installed.bin / "generate_db")


def test_the_oldest_releases_allowed_do(built: Built, source: Path, tmp_path: Path) -> None:
    """The lower bounds of setup.cfg: the tests of all that uses a dependency pass with them."""
    installed = environment(pythons()[0], tmp_path)
    setup = setup_cfg()
    extras = setup["options.extras_require"]
    named = f"{setup['options']['install_requires']}\n{extras['page']}".split("\n")
    oldest = [line.partition(",")[0].replace(">=", "==") for line in named if line]
    tools = [line for line in extras["test"].split("\n") if line and not line.startswith("spt3g")]
    tools = [line for line in tools if line not in named]
    installed.pip(built.wheel, *oldest, *tools)
    installed.check()
    tests = [path for name in USES_DEPENDENCIES for path in source.glob(f"tests/**/test_{name}.py")]
    deselected = ("-m", "not long and not qemu and not install and not waits")
    run(installed.bin / "python", "-m", "pytest", "-q", *deselected, *tests, cwd=source)


# --- without a network ----------------------------------------------------------------------


def test_a_wheelhouse_is_all_that_is_needed_without_network(source: Path, tmp_path: Path) -> None:
    """``make wheelhouse`` where there is one; then pip is given nothing else."""
    run("make", f"PYTHON={sys.executable}", "wheelhouse", cwd=source)
    installed = environment(sys.executable, tmp_path)
    pip = (installed.bin / "python", "-m", "pip", "--isolated", "install", "--quiet")
    only = ("--no-index", "--find-links", source / "wheelhouse")
    no_other = {name: "" for name in os.environ if name.startswith("PIP_")}
    run(*pip, *only, "pole-data-manager[page]", cwd=tmp_path, env=no_other)
    installed.check()
    archives(tmp_path, installed.bin / "generate_db")
