"""One door to SQLite, which commits everything or nothing, and says what is wrong."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from poledata.db import sqlite
from tests.helpers.databases import add_event, events
from tests.helpers.other_users import as_nobody
from tests.helpers.world import REPO


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that was just made."""
    db.database_files.create(tmp_path / "pole.sqlite")
    return tmp_path / "pole.sqlite"


# --- transactions ---------------------------------------------------------------------------


def kill_in_a_transaction(path: Path) -> None:
    """Leave a database half written, with the journal that undoes it."""
    script = (
        "import os, sys, pathlib; from poledata import db\n"
        "with db.connect(pathlib.Path(sys.argv[1])) as conn, db.transaction(conn):\n"
        "    conn.execute('PRAGMA cache_size = 1')\n"
        "    for n in range(3000):\n"
        "        conn.execute('INSERT INTO passes (started_at) VALUES (?)', (f'half {n}' * 9,))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, path], cwd=REPO)
    assert ran.returncode == -9
    assert path.with_name("pole.sqlite-journal").exists()  # it had begun to write


def test_a_pass_that_is_killed_in_a_transaction_leaves_nothing(path: Path) -> None:
    """The next one who opens it rolls the journal back."""
    kill_in_a_transaction(path)
    with db.connect(path) as conn:
        assert conn.execute("SELECT count(*) FROM passes").fetchone()[0] == 0
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_opening_it_once_more_never_lets_go_of_a_lock(path: Path) -> None:
    """POSIX drops all of a process's locks on a file when any descriptor of it is closed."""
    script = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
    )
    other = [sys.executable, "-c", script, path]
    with db.connect(path) as conn, db.transaction(conn):
        add_event(conn, "one")
        assert subprocess.run(other, capture_output=True).returncode != 0
        with db.connect(path, read_only=True) as again:
            again.execute("SELECT * FROM passes").fetchall()
        assert subprocess.run(other, capture_output=True).returncode != 0


# --- what goes wrong ------------------------------------------------------------------------


def test_a_writer_waits_for_another(path: Path) -> None:
    """A second program's commit is a matter of moments."""
    script = (
        "import sqlite3, sys, time\n"
        "conn = sqlite3.connect(sys.argv[1])\n"
        "conn.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "time.sleep(0.3)\n"
        "conn.execute(\"INSERT INTO passes (started_at) VALUES ('theirs')\")\n"
        "conn.commit()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        with db.connect(path) as conn, db.transaction(conn):
            add_event(conn, "ours")
        assert other.wait(timeout=30) == 0
    assert events(path) == ["theirs", "ours"]


# --- making one -----------------------------------------------------------------------------


def test_of_two_who_make_it_at_once_one_wins(tmp_path: Path) -> None:
    """The other is told; the winner's is whole."""
    path = tmp_path / "pole.sqlite"
    maker = db.database_files.__name__
    script = f"import pathlib, sys, {maker} as m; m.create(pathlib.Path(sys.argv[1]))"
    makers = [
        subprocess.Popen([sys.executable, "-c", script, path], cwd=REPO, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [maker.communicate(timeout=60)[1].decode() for maker in makers]
    assert sorted(maker.returncode for maker in makers) == [0, 1, 1, 1]
    assert sum("FileExistsError" in text for text in said) == 3
    assert os.listdir(tmp_path) == ["pole.sqlite"]
    with db.connect(path):
        pass


# --- other users ----------------------------------------------------------------------------


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A directory that every user can reach."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.root
def test_a_user_without_write_permission_can_read(anybodys: Path) -> None:
    """Neither to the file nor to its directory: a rollback journal needs nothing of a reader."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    with db.connect(path) as conn, db.transaction(conn):
        add_event(conn, "one")

    def read() -> list[str]:
        with db.connect(path, read_only=True) as conn:
            return [row["started_at"] for row in conn.execute("SELECT * FROM passes")]

    assert as_nobody(read) == "['one']"
    assert os.listdir(anybodys) == ["pole.sqlite"]


@pytest.mark.root
def test_what_a_crash_left_is_reported_to_another_user_and_changed_by_its_owner_alone(
    anybodys: Path,
) -> None:
    """A journal may name files to delete: only the owner's programs roll it back."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    with db.connect(path) as conn, db.transaction(conn):
        add_event(conn, "one")
    kill_in_a_transaction(path)
    before = {each.name: each.read_bytes() for each in anybodys.iterdir()}

    def read() -> list[str]:
        with db.connect(path, read_only=True) as conn:
            return [row["started_at"] for row in conn.execute("SELECT * FROM passes")]

    assert as_nobody(read).startswith(
        f"DatabaseTrouble: {path}: a program was stopped while it wrote to the database"
    )
    assert {each.name: each.read_bytes() for each in anybodys.iterdir()} == before
    assert read() == ["one"]  # its owner reads a copy that is rolled back
    assert {each.name: each.read_bytes() for each in anybodys.iterdir()} == before
    assert events(path) == ["one"]
    assert as_nobody(read) == "['one']"


@pytest.mark.root
def test_another_user_reads_the_last_commit_and_keeps_the_next_one_waiting(anybodys: Path) -> None:
    """As SQLite's own readers do: nothing is read that is half written."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    with db.connect(path) as conn, db.transaction(conn):
        add_event(conn, "one")

    def read() -> list[str]:
        with db.connect(path, read_only=True) as conn:
            before = [row["started_at"] for row in conn.execute("SELECT * FROM passes")]
            with closing(sqlite3.connect(path, timeout=0.5)) as writer:
                writer.execute("INSERT INTO passes (started_at) VALUES ('two')")
                with pytest.raises(sqlite3.OperationalError) as fault:
                    writer.commit()
            return [*before, str(fault.value)]

    path.chmod(0o666)
    anybodys.chmod(0o777)
    assert as_nobody(read) == "['one', 'database is locked']"
    assert events(path) == ["one"]


@pytest.mark.root
def test_another_user_waits_for_a_writer(anybodys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so when that takes too long."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.5)
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)

    def read() -> None:
        with db.connect(path, read_only=True):
            pass

    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert "DatabaseTrouble" in as_nobody(read) and "locked for" in as_nobody(read)
    assert as_nobody(read) == "None"


@pytest.mark.root
@pytest.mark.parametrize("what", ["link", "fifo", "directory", "device"])
def test_another_user_is_led_nowhere_by_what_stands_in_the_database_s_place(
    anybodys: Path, what: str
) -> None:
    """A link, FIFO or device is not opened, also in the journal's place; nothing hangs."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)

    def read() -> None:
        with db.connect(path, read_only=True):
            pass

    for victim in (Path(f"{path}-journal"), path):
        victim.unlink(missing_ok=True)
        replace(victim, what)
        assert as_nobody(read).startswith("Database"), victim
        victim.rmdir() if what == "directory" else victim.unlink()


def replace(path: Path, what: str) -> None:
    match what:
        case "link":
            path.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero


@pytest.mark.root
def test_only_its_owner_can_write_to_a_database(anybodys: Path) -> None:
    """Others are told so, and whom to be."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    path.chmod(0o666)

    def write() -> None:
        with db.connect(path) as conn:
            add_event(conn, "x")

    assert as_nobody(write) == (
        f"DatabaseUnusable: {path}: the database belongs to the user root. Nothing was changed. "
        "Run this with sudo, or as that user."
    )
    assert events(path) == []


@pytest.mark.root
def test_a_user_without_any_right_is_told_so(anybodys: Path) -> None:
    """Nothing is said of a missing database."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    path.chmod(0o600)

    def read() -> None:
        with db.connect(path, read_only=True):
            pass

    assert as_nobody(read) == (
        f"DatabaseUnusable: {path}: the database can't be opened (Permission denied). "
        "Nothing was changed. Fix its permissions."
    )
