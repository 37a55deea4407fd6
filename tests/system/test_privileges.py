"""Root keeps its rights for smartctl alone: an archive's owner can lead it nowhere, and a third
user can neither stop nor silence the archive. See docs/privileges.md."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.owned_site import (
    COMMANDS,
    OWNER,
    RESTORED,
    STRANGER,
    OwnedSite,
    as_user,
    owned_site,
    plant_journal,
    replace_by,
)

LONG = pytest.mark.long


def commands(*in_short_form: str) -> list[Any]:
    """Every command; those that are not named here only with ``make test-long``."""
    return [
        pytest.param(each, marks=() if each in in_short_form else LONG, id=each)
        for each in COMMANDS
    ]


@pytest.fixture
def site() -> Iterator[OwnedSite]:
    with owned_site() as station:
        yield station


@pytest.mark.parametrize(
    "command",
    commands(
        "pass", "dry run", "status", "verify", "restore", "hold", "--yes", "close", "notify",
        "generate_db", "generate_db --from-disks", "SMART", "SMART --history", "drive IDs",
    ),
)  # fmt: skip
def test_before_root_opens_a_file_of_the_archive_it_is_the_owner(
    site: OwnedSite, command: str
) -> None:
    """Each call with a path in the archive, of each process, comes after setresuid; only the
    configuration is opened before, and directories on the way to it are looked at."""
    trace = site.root.parent / "trace"
    prefix = ("strace", "-f", "-qq", "-e", "trace=%file,%process,setresuid", "-o", str(trace))
    site.as_root(command, prefix=prefix)
    lines = trace.read_text(errors="backslashreplace").splitlines()
    allowed = {site.disk_map_path} if command == "drive IDs" else {site.config_path}
    assert _opened_as_root(site, lines) <= set(map(str, allowed))
    became = any(f"setresuid({OWNER}, {OWNER}, {OWNER})" in line for line in lines)
    assert became == (command != "drive IDs")  # that one knows of no archive
    site.leave_unchecked("it was traced in the middle")


LOOKS = ("newfstatat", "stat", "lstat", "readlink", "access", "faccessat", "execve", "llistxattr")
LOOKS += ("listxattr",)


def _opened_as_root(site: OwnedSite, lines: list[str]) -> set[str]:
    """Paths below the station that a process opened or changed while it was root."""
    owners: set[str] = set()
    found = set()
    for line in lines:
        process, _, call = line.partition(" ")
        call = call.lstrip()
        if call.startswith("setresuid") and call.endswith("= 0"):
            owners.add(process)
        child = re.search(r"(?:clone|fork)\w*[( ].*= (\d+)$", call)
        if child and process in owners:
            owners.add(child[1])
        path = re.search(rf'"({re.escape(str(site.root.parent))}[^"]*)"', call)
        looks = call.startswith(LOOKS)
        emulates = path and path[1].startswith((f"{site.root}/bin", f"{site.root.parent}/trace"))
        if path and process not in owners and not looks and not emulates:
            found.add(path[1])
    return found


def test_no_command_of_root_leaves_a_file_of_root(site: OwnedSite) -> None:
    """Not in the archive, the buffer, the disks, nor where it restored to; every command works
    with sudo alone, one after the other."""
    for command in COMMANDS:
        site.as_root(command)
        assert site.roots_files() == set(), command
    assert (site.root / RESTORED / "a.g3").stat().st_uid == OWNER
    site.leave_unchecked("a disk was shipped, lost and found")


# --- the owner of the archive attacks root --------------------------------------------------


@pytest.mark.parametrize(
    "command", commands("pass", "status", "check", "restore", "generate_db", "SMART --history")
)
def test_a_planted_journal_makes_root_delete_nothing(site: OwnedSite, command: str) -> None:
    """SQLite deletes the file that a journal names as its super-journal: not as root."""
    before = site.roots_secrets()
    plant_journal(site, site.secrets / "precious")
    site.as_root(command, check={0, 1, 2})
    assert site.roots_secrets() == before
    assert site.roots_files() == set()
    site.leave_unchecked("the journal was forged")


def test_a_planted_journal_makes_another_user_delete_nothing(site: OwnedSite) -> None:
    """Their status says that the owner must repair it."""
    theirs = site.root.parent / "theirs"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    (theirs / "precious").write_text("a stranger's\n")
    os.chown(theirs / "precious", STRANGER, STRANGER)
    plant_journal(site, theirs / "precious")
    run = site.as_stranger("status", check=1)
    assert "only the user who owns it may repair that" in run.err
    assert (theirs / "precious").read_text() == "a stranger's\n"
    site.leave_unchecked("the journal was forged")


FILES = (
    "db/pole.sqlite",
    "db/pole.sqlite-journal",
    "db/pole.sqlite-wal",
    "db/pole.sqlite.lock",
    "db/pole.sqlite.turn",
    "db/pole.sqlite.door",
    "db/pole.sqlite.post",
    "db/pole.sqlite.page",
    "db/pole.sqlite.smart",
    "db/data_manager.log",
    "db/page.html",
    "db/metrics.prom",
    "db/packing-lists",
    "db",
    "buffer/.poledata-buffer",
    "buffer/b.g3",
    "buffer",
    "spt_disks/P01",
    "spt_disks/P01/bag-info.txt",
    "spt_disks/P01/manifest-sha512.txt",
    "spt_disks/P01/.incoming",
    "spt_disks/P01/data",
    "spt_disks/P01/data/a.g3",
    "restored/a.g3",
)
KINDS = (
    "symlink",
    pytest.param("FIFO", marks=LONG),
    pytest.param("hard link", marks=LONG),
    pytest.param("dangling symlink", marks=LONG),
    pytest.param("directory", marks=LONG),
    pytest.param("device", marks=LONG),
)
# Each of them works with other files; what they share is tried by all in the test above.
TRIED = (
    "pass",
    "status",
    "verify",
    "restore",
    "close",
    "generate_db --from-disks",
    "SMART",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_root_loses_nothing_by_what_the_owner_puts_in_a_file_s_place(file: str, kind: str) -> None:
    """A link to a file of root, a FIFO, a directory, a device: root neither writes, creates,
    deletes nor gives away anything of its own; it does not hang, and it is no defect (exit 3)."""
    pages = {"StatusPage": "page.html", "MetricsFile": "metrics.prom"}
    with owned_site() as site:
        site.configure(**{key: str(site.db_path.with_name(name)) for key, name in pages.items()})
        before = site.roots_secrets()
        place = site.root / file
        if kind == "hard link" and file in ("db", "buffer", "spt_disks/P01"):
            site.secrets.joinpath("precious").chmod(0o644)
            before = site.roots_secrets()
        replace_by(place, kind, site.secrets / "precious")
        linked = place.lstat().st_ino if kind == "hard link" else None
        for command in TRIED:
            site.as_root(command, check={0, 1, 2}, timeout_s=60)
        if linked is not None and place.exists() and place.lstat().st_ino == linked:
            place.unlink()
        assert _without_link_counts(site.roots_secrets()) == _without_link_counts(before)
        assert site.roots_files() <= {file}
        site.leave_unchecked("a file was replaced")


def _without_link_counts(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {name: (*all_of[:4], *all_of[5:]) for name, all_of in found.items()}


SWAPPED = ("db/pole.sqlite", "db/data_manager.log", "db/pole.sqlite.lock", "db", "restored")


@pytest.mark.waits
@pytest.mark.parametrize("file", SWAPPED)
def test_what_is_swapped_at_the_moment_of_use_leads_root_nowhere(
    site: OwnedSite, file: str
) -> None:
    """The file and a link into root's directory change places all the while (renameat2). That may
    end a command in any way, but leads it nowhere."""
    before = site.roots_secrets()
    place = site.root / file
    target = site.secrets if place.is_dir() else site.secrets / "precious"
    link = site.root / "swapped"
    link.symlink_to(target)
    os.lchown(link, OWNER, OWNER)
    with swapping(place, link):
        for _ in range(3):
            for command in ("status", "restore", "SMART", "generate_db", "pass"):
                site.as_root(command, check={0, 1, 2, 3}, timeout_s=60)
    assert site.roots_secrets() == before
    link.unlink() if link.is_symlink() else None
    assert site.roots_files() <= {file}
    site.leave_unchecked("a file was swapped")


class swapping:
    """Two names change places, as fast as the system can, while this lasts."""

    def __init__(self, one: Path, other: Path) -> None:
        self._names = os.fsencode(one), os.fsencode(other)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._swap)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _swap(self) -> None:
        exchange = 2  # RENAME_EXCHANGE, linux/fs.h
        libc = ctypes.CDLL(None)
        at_cwd = -100
        while not self._over.is_set():
            assert libc.renameat2(at_cwd, self._names[0], at_cwd, self._names[1], exchange) == 0


# --- whose is the archive? ------------------------------------------------------------------


def test_an_owner_s_configuration_is_read_as_its_owner(site: OwnedSite) -> None:
    """So its LogFile and its pages can only be where that user may write."""
    os.chown(site.config_path, OWNER, OWNER)
    site.configure(LogFile=str(site.secrets / "new"), StatusPage=str(site.secrets / "page"))
    os.chown(site.config_path, OWNER, OWNER)
    before = site.roots_secrets()
    site.as_root("pass", check={0, 1, 2})
    site.as_root("status")
    assert site.roots_secrets() == before
    assert site.roots_files() == set() and f"LogFile: {site.secrets}/new can't" in site.notices_of()


@pytest.mark.parametrize(
    ("owner", "database_of", "why"),
    [
        (OWNER, STRANGER, f"belongs to the user #{OWNER}, but {{db}} of its FilenameDB to "),
        (STRANGER, OWNER, f"belongs to the user #{STRANGER}, but {{db}} of its FilenameDB to "),
    ],
)
def test_a_configuration_for_another_user_s_database_is_refused(
    site: OwnedSite, owner: int, database_of: int, why: str
) -> None:
    """Exit 2: nobody can make root work in a third user's archive."""
    os.chown(site.config_path, owner, owner)
    os.chown(site.db_path.parent, database_of, database_of)
    for command in ("pass", "status", "SMART", "generate_db"):
        run = site.as_root(command, check=2)
        assert why.format(db=site.db_path.parent) in run.err
        assert "Nothing was changed." in run.err
    os.chown(site.db_path.parent, OWNER, OWNER)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("link", "is a link, which root does not follow; name the file itself"),
        ("FIFO", "is not a regular file"),
        ("writable by all", "others than its owner may write to it"),
        ("directory of another user", "can change "),
        ("directory for all", "can change "),
        ("directory for all with the sticky bit", "can change "),
        ("link on the way", "can change "),
    ],
)
def test_root_does_not_obey_a_configuration_that_others_could_have_made(
    site: OwnedSite, how: str, why: str
) -> None:
    """Exit 2 for each command, and nothing is opened; the message says which place it is."""
    config = site.config_path
    directory = config.parent
    content = config.read_text()
    match how:
        case "link":
            config.rename(directory / "real")
            config.symlink_to(directory / "real")
            os.lchown(config, STRANGER, STRANGER)
        case "FIFO":
            config.unlink()
            os.mkfifo(config)
        case "writable by all":
            config.chmod(0o666)
        case "directory of another user":
            os.chown(directory, STRANGER, STRANGER)
        case "directory for all":
            directory.chmod(0o777)
        case "directory for all with the sticky bit":
            directory.chmod(0o1777)
        case "link on the way":
            theirs = directory.parent / "theirs"
            theirs.mkdir()
            os.chown(theirs, STRANGER, STRANGER)
            (theirs / "way").symlink_to(directory)
            site.config_path = theirs / "way" / config.name
    for command in ("pass", "status", "SMART"):
        assert why in site.as_root(command, check=2).err
    site.config_path = config
    os.chown(directory, 0, 0)
    config.unlink()
    config.write_text(content)


def test_a_sticky_directory_above_is_safe_and_root_runs_its_own_archive() -> None:
    """Such as /var/tmp, where these stations are; where all is root's, root is the owner."""
    with owned_site() as site:
        for path in [site.root, *site.root.rglob("*")]:
            os.lchown(path, 0, 0)
        site.root.chmod(0o755)
        site.as_root("pass", check=0)
        assert site.waiting() == set()
        site.db_path.parent.chmod(0o777)
        assert "but other users than root can change" in site.as_root("pass", check=2).err
        site.db_path.parent.chmod(0o755)


# --- a third user ---------------------------------------------------------------------------


def test_no_other_user_can_hold_a_lock(site: OwnedSite) -> None:
    """Who could open one could stop every pass, without a word: only the owner can."""
    locks = [
        path
        for path in site.db_path.parent.iterdir()
        if path.suffix in (".lock", ".turn", ".door", ".post", ".page", ".smart")
    ]
    assert len(locks) >= 3
    for lock in locks:
        lock.chmod(0o644)  # as release 1.0.0 made them
    site.as_owner(check=0)
    site.as_owner("status", "--send", check=0)
    for lock in locks:
        if lock.suffix in (".lock", ".turn", ".door"):
            assert stat.S_IMODE(lock.stat().st_mode) == 0o600
            holder = [*as_user(STRANGER), "flock", "--nonblock", str(lock), "true"]
            assert subprocess.run(holder, capture_output=True).returncode != 0
    assert site.waiting() == set()


def test_a_lock_that_another_program_holds_is_reported(site: OwnedSite) -> None:
    """At once, with the process and its command, and exit 1: nothing is archived meanwhile. The
    notice ends with the next pass. A pass of ours that holds it is left alone, in silence."""
    lock = Path(f"{site.db_path}.lock")
    holder = [*as_user(OWNER), "flock", str(lock), "sleep", "60"]
    with subprocess.Popen(holder, start_new_session=True) as process:
        while "FLOCK" not in "".join(locks_of(lock)):
            assert process.poll() is None
        site.as_owner(check=1)
        os.killpg(process.pid, 9)
    assert f"pass-stuck: {lock} is held by a process that is no pass" in site.notices_of("kind")
    assert f"(flock {lock} sleep 60). Until it ends nothing is archived." in site.notices_of()
    assert site.notices() == {("pass-stuck", "data_manager")}
    site.as_owner(check=0)
    assert site.notices() == set() and site.waiting() == set()


def locks_of(path: Path) -> list[str]:
    return [
        line
        for line in Path("/proc/locks").read_text().splitlines()
        if f":{path.stat().st_ino} " in line
    ]


def test_no_other_user_can_silence_a_page_with_a_stamp_made_before(site: OwnedSite) -> None:
    """Where no database can store a notice, a file in /dev/shm says when it was sent: only the
    owner's own counts."""
    told = site.root / "told"
    told.mkdir()
    os.chown(told, OWNER, OWNER)
    env = site.config_path.with_name(".env")
    env.write_text(f"POLE_PAGER_COMMAND='tee -a {told}/told'\n")
    env.chmod(0o600)
    os.chown(env, OWNER, OWNER)
    site.db_path.rename(f"{site.db_path}.away")
    site.db_path.parent.chmod(0o555)  # so that the stamp is in memory
    stamps = forged_stamps(site)
    try:
        for _ in range(2):
            site.as_owner(check=2)
        assert (told / "told").read_text().count("there is no database") == 1
    finally:
        for stamp in stamps:
            stamp.unlink(missing_ok=True)
        site.db_path.parent.chmod(0o755)
        Path(f"{site.db_path}.away").rename(site.db_path)
    site.as_owner(check=0)
    assert not list(Path("/dev/shm").glob(f"pole-data-*.told-*{OWNER}*"))


def forged_stamps(site: OwnedSite) -> list[Path]:
    """What a third user makes before: a stamp as of 1.0.0, and one that begins as ours do."""
    import zlib

    which = zlib.crc32(str(site.db_path).encode())
    names = (f"pole-data-{which:08x}.told-pager-command", "x")
    stamps = [Path("/dev/shm", names[0]), Path("/dev/shm", f"{names[0]}.0123456789abcdef")]
    for stamp in stamps:
        stamp.touch()
        os.chown(stamp, STRANGER, STRANGER)
    return stamps


def test_a_command_in_an_env_file_of_another_user_is_not_run(site: OwnedSite) -> None:
    """In a directory that others may write to it could be theirs. URLs are used all the same: an
    upgrade must not end all messages."""
    env = site.config_path.with_name(".env")
    url = "json://127.0.0.1:9/"
    env.write_text(f"POLE_PAGER_COMMAND='touch /dev/shm/pole-never'\nPOLE_NOTIFY_URLS={url}\n")
    env.chmod(0o644)
    os.chown(env, STRANGER, STRANGER)
    run = site.as_owner("notify", "--test", check=1)
    assert "belongs to another user, so its command is not run" in run.out
    assert "pager-command" not in run.out and "notify-1-json: FAILED" in run.out
    assert not Path("/dev/shm/pole-never").exists()


def test_only_the_owner_changes_the_archive(site: OwnedSite) -> None:
    """Others are told to use sudo."""
    for words in (
        (),
        ("hold", "--yes", "P01", "--why", "x"),
        ("verify",),
        ("repair",),
        ("notify", "--test"),
    ):
        run = site.as_stranger(*words, check=2)
        assert run.err.endswith(
            f"belongs to the user #{OWNER}, who runs the archive. Nothing was changed. "
            f"Run this with sudo, or as #{OWNER}.\n"
        )
    for words in (("status",), ("locate", "*"), ("--dry-run",)):
        site.as_stranger(*words, check=0)


def test_an_archive_that_a_group_works_in_goes_on_after_an_upgrade(site: OwnedSite) -> None:
    """As with 1.0.0: who may write to the database's directory may run passes, also where some
    of the files are another member's."""
    for path in (site.db_path.parent, *site.db_path.parent.iterdir()):
        os.chown(path, 0, OWNER)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    site.as_owner(check=0)
    assert site.waiting() == set()
    site.give()


def test_the_owner_of_the_archive_can_not_send_root_into_a_third_user_s_directory(
    site: OwnedSite,
) -> None:
    """The way to FilenameDB must be root's or the owner's all along."""
    theirs = site.root.parent / "theirs"
    theirs.mkdir()
    (theirs / "notes").write_text("a stranger's\n")
    for path in (theirs, theirs / "notes"):
        os.chown(path, STRANGER, STRANGER)
    site.db_path.parent.rename(site.root / "away")
    site.db_path.parent.symlink_to(theirs)
    os.lchown(site.db_path.parent, OWNER, OWNER)
    for command in ("pause", "pass", "status", "generate_db", "SMART"):
        assert "can change " in site.as_root(command, check=2).err
    assert sorted(os.listdir(theirs)) == ["notes"]
    assert (theirs / "notes").read_text() == "a stranger's\n"
    site.db_path.parent.unlink()
    (site.root / "away").rename(site.db_path.parent)


def test_no_command_of_the_env_file_is_run_as_root_without_a_database(site: OwnedSite) -> None:
    """The owner moved the directory away: root becomes the owner of what it was in."""
    told = site.root / "told"
    env = site.config_path.with_name(".env")
    env.write_text(f"POLE_PAGER_COMMAND='sh -c \"id -u >{told}\"'\n")
    site.db_path.parent.rename(site.root / "away")
    site.as_root("pass", check=2)
    assert told.read_text() == f"{OWNER}\n"
    assert site.roots_files() == set()
    (site.root / "away").rename(site.db_path.parent)


def test_an_access_control_list_makes_a_directory_of_root_not_only_root_s() -> None:
    """Its group bits are those of everybody on the list."""
    with owned_site() as site:
        for path in [site.root, *site.root.rglob("*")]:
            os.lchown(path, 0, 0)
        site.db_path.parent.chmod(0o775)
        site.as_root("pass", check=0)  # root's own group alone
        acl = struct.pack("<I", 2)  # ACL_EA_VERSION, linux/posix_acl_xattr.h
        for tag, perm, who in ((1, 7, -1), (2, 7, STRANGER), (4, 5, -1), (16, 7, -1), (32, 5, -1)):
            acl += struct.pack("<HHI", tag, perm, who & 0xFFFFFFFF)
        os.setxattr(site.db_path.parent, "system.posix_acl_access", acl)
        assert "can change " in site.as_root("pass", check=2).err


def test_a_long_look_of_another_user_keeps_no_pass_waiting(site: OwnedSite) -> None:
    """A dry run into a pager, a restore that is suspended: they read a copy of the database."""
    script = site.command("data_manager.py")
    with subprocess.Popen(
        [*as_user(STRANGER), sys.executable, "-c", HELD, str(site.db_path), *script[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout and reader.stdin and reader.stdout.readline() == "reads\n"
        site.as_owner(check=0, timeout_s=30)
        assert site.waiting() == set()
        reader.stdin.close()


HELD = """\
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2]).parent))
from poledata import db
with db.connect(Path(sys.argv[1]), read_only=True, is_long=True) as conn:
    conn.execute("SELECT * FROM files").fetchall()
    print("reads", flush=True)
    sys.stdin.read()
"""


def test_a_database_directory_that_others_can_write_to_is_a_fault(site: OwnedSite) -> None:
    """``check`` names it, and what to do."""
    site.db_path.parent.chmod(0o777)
    run = site.as_root("check", check=1)
    assert f"FAULT {site.db_path.parent} is writable by others: chmod go-w" in run.out
    site.db_path.parent.chmod(0o755)


# --- smartctl ------------------------------------------------------------------------------


def test_the_environment_has_no_say_in_which_smartctl_root_runs(site: OwnedSite) -> None:
    """Neither PATH nor anything else; smartctl itself gets an empty environment."""
    from tests.helpers.world import REPO

    marker = site.root.parent / "was-run"
    fake = site.root / "bin/smartctl"
    fake.write_text(f"#!/bin/sh\ntouch {marker}\n")
    env = {"PATH": f"{site.root}/bin:/usr/bin:/bin"}
    script = [sys.executable, str(REPO / "get_drive_IDs.py")]
    subprocess.run(script, env=env, capture_output=True, check=False, timeout=60)
    assert not marker.exists()
