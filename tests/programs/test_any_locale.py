"""Names are bytes of UTF-8 in any locale, and no character keeps a command from printing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.world import World

UMLAUT = "Südpol/Messung-Ä→µ.g3"
NOT_UTF8 = b"not-utf8-\xff\xe4.g3"
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a user with an 8-bit locale: glibc's own, compiled here."""
    place = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", place / "en_US.ISO-8859-1"]
    subprocess.run(command, check=True)
    environment = {"LOCPATH": str(place), "LC_ALL": "en_US.ISO-8859-1"}
    charmap = subprocess.run(
        ["locale", "charmap"], env={**os.environ, **environment}, capture_output=True, check=True
    )
    assert charmap.stdout == b"ISO-8859-1\n"
    return environment


@pytest.fixture(params=["ISO-8859-1", "C", "printing ASCII alone"])
def environment(request: pytest.FixtureRequest, latin1: Mapping[str, str]) -> Mapping[str, str]:
    """What a person may have set."""
    ascii_alone = {"PYTHONIOENCODING": "ascii"}
    return {"ISO-8859-1": latin1, "C": C_LOCALE}.get(request.param, ascii_alone)


def test_names_are_the_same_bytes_from_buffer_to_manifest(
    world: World, environment: Mapping[str, str]
) -> None:
    """On both disks, in the database, for ``locate``, ``restore`` and sha512sum; and removed."""
    disk_map = str(world.disk_map_path)
    world.run("generate_db.py", "--disk-map", disk_map, check=0, env=environment)
    content = b"Eis" * 1000
    world.put(UMLAUT, content)
    bad = os.fsencode(world.buffer) + b"/" + NOT_UTF8
    with open(bad, "wb") as file:
        file.write(b"stays")
    os.utime(bad, (1, 1))
    world.run_pass(check=1, env=environment)
    assert not (world.buffer / UMLAUT).exists()
    for label in ("P01", "S01"):
        data = os.fsencode(world.data(label))
        with open(data + b"/" + UMLAUT.encode(), "rb") as file:
            assert file.read() == content
        assert (
            f"  data/{UMLAUT}\n".encode()
            in Path(world.disks[label] / "manifest-sha512.txt").read_bytes()
        )
        subprocess.run(
            ["sha512sum", "-c", "--quiet", "manifest-sha512.txt"],
            cwd=world.disks[label],
            check=True,
        )
    assert [row["name"] for row in world.sql("SELECT name FROM files")] == [UMLAUT]
    assert world.notices() == {("bad-name", r"not-utf8-\udcff\udce4.g3")}
    for pattern in (UMLAUT, "*Ä*", "Südpol"):
        run = world.run_pass("locate", pattern, check=0, env=environment)
        assert UMLAUT in run.out
    assert r"not-utf8-\udcff\udce4.g3" in world.run_pass("status", check=0, env=environment).out
    target = world.root / "Zurück"
    target.mkdir()
    world.run_pass("restore", UMLAUT, "--to", str(target), check=0, env=environment)
    assert (target / UMLAUT).read_bytes() == content
    world.run_pass("verify", "P01", check=0, env=environment)
    os.unlink(bad)
    world.run_pass(check=0, env=environment)


def test_a_reason_is_stored_and_shown_as_it_was_said(
    world: World, environment: Mapping[str, str]
) -> None:
    """Also in the log, which is UTF-8 in any locale."""
    world.generate()
    world.run_pass("pause", "--why", "Kälte → später", check=0, env=environment)
    (row,) = world.sql("SELECT text FROM notices WHERE kind = 'paused'")
    assert row["text"].startswith("Kälte → später")
    assert "Kälte → später" in world.run_pass("status", check=0, env=environment).out
    assert "Kälte → später" in world.log()


def test_a_command_that_is_told_hears_utf8(
    world: World, environment: Mapping[str, str], tmp_path: Path
) -> None:
    """A pager command gets the message in UTF-8, and its arguments are as .env has them."""
    world.generate()
    heard = tmp_path / "gehört"
    (world.root / ".env").write_text(f"POLE_PAGER_COMMAND=dd status=none of={heard}\n")
    (world.root / ".env").chmod(0o600)
    run = world.run_pass("notify", "--test", check=0, env=environment)
    assert "pager-command: sent" in run.out
    assert b"a test: nothing is wrong" in heard.read_bytes()
