"""One door to SQLite, which commits everything or nothing, and says what is wrong."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poledata import db
from tests.helpers.databases import add_event, events
from tests.helpers.other_users import NOBODY, as_nobody
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
def test_a_user_without_write_permission_can_read_after_a_crash(anybodys: Path) -> None:
    """What was committed, though only a writer may roll back what was not; nothing is changed."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    with db.connect(path) as conn, db.transaction(conn):
        add_event(conn, "one")
    kill_in_a_transaction(path)
    before = {each.name: each.read_bytes() for each in anybodys.iterdir()}

    def read() -> list[str]:
        with db.connect(path, read_only=True) as conn:
            return [row["started_at"] for row in conn.execute("SELECT * FROM passes")]

    assert as_nobody(read) == "['one']"
    assert {each.name: each.read_bytes() for each in anybodys.iterdir()} == before


@pytest.mark.root
def test_a_user_without_write_permission_cannot_write(anybodys: Path) -> None:
    """And is told so in words."""
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)

    def write() -> None:
        with db.connect(path) as conn:
            add_event(conn, "x")

    assert as_nobody(write).startswith(f"DatabaseTrouble: {path}: the database does not answer (")
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
        "Nothing was changed. Mend its rights."
    )


@pytest.mark.root
def test_what_root_makes_belongs_to_whom_its_directory_belongs(anybodys: Path) -> None:
    """Root may make it for the cron user, who can then write to it, whatever root's umask."""
    os.chown(anybodys, NOBODY, NOBODY)
    path = anybodys / "pole.sqlite"
    umask = os.umask(0o077)
    try:
        db.database_files.create(path)
    finally:
        os.umask(umask)
    info = path.stat()
    assert (info.st_uid, info.st_gid) == (NOBODY, NOBODY)
    assert stat.S_IMODE(info.st_mode) & 0o600 == 0o600

    def write() -> list[str]:
        with db.connect(path) as conn:
            with db.transaction(conn):
                add_event(conn, "theirs")
            return [row["started_at"] for row in conn.execute("SELECT * FROM passes")]

    assert as_nobody(write) == "['theirs']"


@pytest.mark.root
def test_the_journal_of_root_does_not_lock_out_the_cron_user(anybodys: Path) -> None:
    """SQLite gives it to the database's owner: the cron user can roll back what root left."""
    os.chown(anybodys, NOBODY, NOBODY)
    path = anybodys / "pole.sqlite"
    db.database_files.create(path)
    with db.connect(path) as conn, db.transaction(conn):
        add_event(conn, "half")
        assert path.with_name("pole.sqlite-journal").stat().st_uid == NOBODY
