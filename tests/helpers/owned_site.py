"""A station that belongs to an ordinary user, whom root and other users do not trust."""

from __future__ import annotations

import atexit
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.helpers.other_users import reachable
from tests.helpers.recorded_drives import recorded, with_smartctl
from tests.helpers.warm import WarmScripts
from tests.helpers.world import CRON_ENVIRONMENT, Run, World

OWNER, STRANGER = 64101, 64102  # users without names
RESTORED = "restored"
# Every command, as a person would type it, with an ending that it may have on such a station.
COMMANDS: dict[str, tuple[tuple[str, ...], set[int]]] = {
    "pass": ((), {0}),
    "dry run": (("--dry-run",), {0}),
    "status": (("status",), {0}),
    "status --json": (("status", "--json"), {0}),
    "status --send": (("status", "--send"), {0}),
    "check": (("check",), {0, 1}),
    "verify": (("verify", "P01"), {0}),
    "repair": (("repair",), {0}),
    "locate": (("locate", "*"), {0}),
    "restore": (("restore", "a.g3", "--to", RESTORED), {0}),
    "pause": (("pause", "--why", "test"), {0}),
    "resume": (("resume",), {0}),
    "ack": (("ack", "no-channel", "x"), {2}),
    "notify": (("notify", "--test"), {1}),
    "hold": (("hold", "--yes", "P02", "--why", "test"), {0}),
    "unhold": (("unhold", "P02"), {0, 2}),
    "forget": (("forget", "S02"), {0}),
    "close": (("close", "--yes", "P01"), {0}),
    "ship": (("ship", "P01"), {0, 2}),
    "lost": (("lost", "P01", "--why", "test"), {0}),
    "lost --undo": (("lost", "P01", "--undo"), {0, 2}),
    "adopt-buffer": (("adopt-buffer", "--why", "test"), {0, 2}),
    "generate_db": (("generate_db.py", "--disk-map", "MAP"), {0}),
    "generate_db --dry-run": (("generate_db.py", "--dry-run", "--disk-map", "MAP"), {0}),
    "generate_db --from-disks": (("generate_db.py", "--from-disks"), {0, 1}),
    "SMART": (("get_SMART_status.py",), {2}),  # stand-ins have none
    "SMART --history": (("get_SMART_status.py", "--history", "P02"), {0}),
    "drive IDs": (("get_drive_IDs.py", "--disk-map", "MAP"), {0, 1}),
}


class OwnedSite(World):
    """Everything is its owner's, also the directory of it all; configuration and map are root's."""

    secrets: Path  # a directory that only root can list, with one file

    def prepare(self) -> None:
        """Make everything that there is: database, an archived file, a waiting one."""
        etc = self.root.parent / "etc"
        etc.mkdir()
        for name in ("config_path", "disk_map_path"):
            setattr(self, name, getattr(self, name).rename(etc / getattr(self, name).name))
        self.secrets = self.root.parent / "roots"
        self.secrets.mkdir(mode=0o700)
        (self.secrets / "precious").write_text("root's own\n")
        self.env = with_smartctl(self, *map(recorded, ("sata-good", "sas-good")))
        (self.root / RESTORED).mkdir()
        self.give()
        self.as_root("generate_db", check=0)
        self.put("a.g3")
        self.give()
        self.as_owner(check=0)
        self.put("b.g3")
        self.give()

    def give(self) -> None:
        """Let the owner own everything but the emulated smartctl."""
        for path in [self.root, *self.root.rglob("*")]:
            if self.root / "bin" not in (path, path.parent):
                os.lchown(path, OWNER, OWNER)
        self.db_path.parent.chmod(0o755)

    def as_root(self, command: str, prefix: Sequence[str] = (), **how: Any) -> Run:
        words, codes = COMMANDS[command]
        script = words[0] if words and words[0].endswith(".py") else "data_manager.py"
        if prefix or script not in reachable_scripts().scripts:
            how |= {"prefix": (*prefix, *reachable()), "env": self.env}
        how.setdefault("check", codes)
        return self.run(script, *self._filled(words), **how)

    def _warm(self, script: str, environ: Mapping[str, str]) -> WarmScripts | None:
        return reachable_scripts()

    def _filled(self, words: tuple[str, ...]) -> list[str]:
        places = {"MAP": str(self.disk_map_path), RESTORED: str(self.root / RESTORED)}
        return [places.get(word, word) for word in words if not word.endswith(".py")]

    def as_owner(self, *args: str, **how: Any) -> Run:
        return self.run_pass(*args, uid=OWNER, **how)

    def as_stranger(self, *args: str, **how: Any) -> Run:
        return self.run_pass(*args, uid=STRANGER, **how)

    def command(self, script: str, *args: str) -> list[str]:
        command = super().command(script, *args)
        if script == "get_drive_IDs.py":  # the one that needs no archive
            return [word for word in command if word not in ("--config", str(self.config_path))]
        return command

    def notices_of(self, name: str = "key") -> str:
        """The texts of all notices that there were, behind their key (or kind)."""
        rows = self.sql(f"SELECT {name} || ': ' || text FROM notices")
        return "\n".join(row[0] for row in rows)

    def roots_files(self) -> set[str]:
        """What root owns below the station, except the emulated smartctl."""
        return {
            str(path.relative_to(self.root))
            for path in [self.root, *self.root.rglob("*")]
            if path.lstat().st_uid == 0 and self.root / "bin" not in (path, path.parent)
        }

    def roots_secrets(self) -> dict[str, tuple[object, ...]]:
        """All that can be seen of root's own directory and the file in it."""
        paths = [self.secrets, *sorted(self.secrets.rglob("*"))]
        return {path.name: _all_of(path) for path in paths}


def _all_of(path: Path) -> tuple[object, ...]:
    info = path.lstat()
    content = path.read_bytes() if path.is_file() else None
    mode_and_owner = (info.st_mode, info.st_uid, info.st_gid)
    return (*mode_and_owner, info.st_ino, info.st_nlink, info.st_mtime_ns, content)


@cache
def reachable_scripts() -> WarmScripts:
    """Scripts that any user can run: forks of one interpreter, as in :mod:`tests.helpers.warm`."""
    warm = WarmScripts(CRON_ENVIRONMENT, reachable())
    atexit.register(warm.close)
    return warm


def as_user(uid: int) -> tuple[str, ...]:
    return (*reachable(), "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")


@contextmanager
def owned_site(**settings: str | None) -> Iterator[OwnedSite]:
    with tempfile.TemporaryDirectory(prefix="pole-", dir="/var/tmp") as base:
        os.chmod(base, 0o755)
        station = OwnedSite(Path(base), **settings)
        station.prepare()
        try:
            yield station
        finally:
            station.close()


# --- what an attacker can make --------------------------------------------------------------

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")  # SQLite, fileformat2.html
_LEAVE_A_JOURNAL = """\
import os, sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("PRAGMA cache_size = 1")
conn.execute("BEGIN IMMEDIATE")
for n in range(400):
    conn.execute("INSERT INTO passes (started_at) VALUES (?)", (f"half {n}" * 9,))
os.kill(os.getpid(), 9)
"""


def plant_journal(site: OwnedSite, names: Path) -> Path:
    """As its owner, leave a journal that a crash could have left, but which names this file.

    Who rolls it back believes that the file is a super-journal, and deletes it.
    """
    command = [*as_user(OWNER), sys.executable, "-c", _LEAVE_A_JOURNAL, str(site.db_path)]
    assert subprocess.run(command).returncode in (-9, 137)
    journal = Path(f"{site.db_path}-journal")
    name = os.fsencode(names)
    lock_page = 0x40000000 // 4096 + 1
    checksum = sum(name) & 0xFFFFFFFF
    record = struct.pack(">I", lock_page) + name + struct.pack(">II", len(name), checksum)
    with journal.open("ab") as file:
        file.write(record + _JOURNAL_MAGIC)
    os.chown(journal, OWNER, OWNER)
    return journal


def replace_by(path: Path, what: str, target: Path) -> None:
    """Put something else in a file's place, as its directory's owner can (except a device)."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.away"))
    else:
        path.unlink(missing_ok=True)
    match what:
        case "symlink":
            path.symlink_to(target)
        case "dangling symlink":
            path.symlink_to(target.with_name("new"))
        case "hard link":
            os.link(target, path)
            return  # it keeps its owner
        case "FIFO":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero
    os.lchown(path, OWNER, OWNER)
