"""Root is kept for smartctl only: everything else is done as the user who owns the archive.

The owner of a directory can put a link, a FIFO or a forged database journal into it, and a program
that works there as root would follow it. So a program that root starts becomes the archive's owner
before it opens the first file of the archive, and can never become root again. What may be relied
on, and who may do what: docs/privileges.md. All of it is in this file, in this order:

1. Who owns the archive? The configuration decides, and only if nobody else could have changed it.
2. Become that user, for good.
3. Run smartctl as root, for a program that is not root any more: one program, fixed arguments.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import shlex
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poledata.errors import ConfigFault, PoleError, UsageFault

if TYPE_CHECKING:
    import socket  # like others below: slow to load, and a pass of the archive's owner needs none

NOBODY = 65534
_READ_BYTES = (1 << 20) + 1  # one more than the largest configuration has
_MOST_LINKS = 40  # as Linux, path_resolution(7)


# --- 1. who owns the archive ----------------------------------------------------------------


def become_archive_owner(
    config_path: Path, database_directory: Callable[[bytes], Path | None]
) -> None:
    """As root, become the user who owns the archive of this configuration; others stay as they are.

    A configuration that is not root's: its owner, before it is parsed. Root's own, in directories
    that only root can change: the owner of the directory of its FilenameDB, which
    ``database_directory`` finds in the content (None: it names none). If that is root too, root
    runs this archive. Raises ConfigFault.
    """
    if os.geteuid() != 0:
        return
    path = _without_links_of_root(config_path.absolute())
    owner, content = _owner_and_content(path)
    _must_be_safe(path.parent, owner.st_uid, path)
    if owner.st_uid != 0:
        become(owner.st_uid)
    elif directory := database_directory(content):
        become_owner_of_directory(directory)


def become_owner_of_directory(directory: Path) -> None:
    """As root, become the owner of the directory of a database; if it is root's, stay root.

    If it does not exist (its owner may have moved it away), the owner of what it would be in.
    Raises ConfigFault if other users than root and that owner can change the way to it.
    """
    if os.geteuid() != 0:
        return
    try:
        while not directory.exists():
            directory = directory.parent
        owner = directory.stat()
    except OSError as fault:
        why = f"{directory} can't be looked at ({fault.strerror}). Look at its disk: dmesg -T"
        raise ConfigFault([why]) from fault
    _must_be_safe(directory, owner.st_uid, directory)
    if owner.st_uid != 0:
        become(owner.st_uid)


def _without_links_of_root(path: Path) -> Path:
    """Follow a link to the configuration if nobody but root could have made or changed it."""
    if path.is_symlink() and path.lstat().st_uid == 0 and is_safe_for_root(path.parent):
        return Path(os.path.realpath(path))
    return path


def must_own(directory: Path, config_path: Path) -> None:
    """After :func:`become_archive_owner`: refuse a database in another user's directory.

    Raises ConfigFault.
    """
    if os.geteuid() == 0:
        _must_be_safe(directory, 0, config_path)
    elif directory.stat().st_uid != os.geteuid():
        raise ConfigFault(
            [
                f"{config_path}: belongs to the user {user_name(os.geteuid())}, but {directory} of "
                f"its FilenameDB to {user_name(directory.stat().st_uid)}; give both to one user, "
                "or the configuration to root"
            ]
        )


def is_safe_for_root(directory: Path) -> bool:
    """True if nobody else can change what is in this directory, or if this program is not root."""
    try:
        return os.geteuid() != 0 or _changeable_place(directory, 0) is None
    except OSError:
        return False  # it does not exist


def become_caller(file: Path | None) -> None:
    """As root, without an archive: become who called sudo, or else the owner of this file.

    Without either nothing of another user is opened: become "nobody", who may read all that the
    program needs in a usual installation.
    """
    if os.geteuid() != 0:
        return
    sudo_uid = os.environ.get("SUDO_UID", "0")
    if sudo_uid.isdigit() and int(sudo_uid):
        become(int(sudo_uid))
    elif file is None:
        if all(_can_be_read_by_all(Path(part)) for part in (os.__file__, __file__)):
            become(NOBODY)
    else:
        owner, _ = _owner_and_content(file)
        _must_be_safe(file.absolute().parent, owner.st_uid, file)
        if owner.st_uid:
            become(owner.st_uid)


def _can_be_read_by_all(file: Path) -> bool:
    may_pass = all(place.stat().st_mode & stat.S_IXOTH for place in file.parents)
    return may_pass and bool(file.stat().st_mode & stat.S_IROTH)


def _owner_and_content(path: Path) -> tuple[os.stat_result, bytes]:
    """Return stat and content of one and the same file; the content only if it is root's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        why = f"can't be read ({fault.strerror}); name another with --config, or copy an example"
        if fault.errno == errno.ELOOP:
            why = "is a link, which root does not follow; name the file itself"
        raise ConfigFault([f"{path}: {why}"]) from fault
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigFault([f"{path}: is not a regular file; name another one"])
        if _others_may_write(path, info):
            why = "others than its owner may write to it, and root would do as it says"
            raise ConfigFault([f"{path}: {why}; run: chmod go-w {shlex.quote(str(path))}"])
        return info, os.read(fd, _READ_BYTES) if info.st_uid == 0 else b""
    except OSError as fault:
        raise ConfigFault([f"{path}: can't be read ({fault.strerror})"]) from fault
    finally:
        os.close(fd)


def _must_be_safe(directory: Path, owner_uid: int, path: Path) -> None:
    try:
        place = _changeable_place(directory, owner_uid)
    except OSError as fault:  # it changes while it is looked at
        why = f"can't be looked at ({fault.strerror})"
        raise ConfigFault([f"{path}: {fault.filename} {why}"]) from fault
    if place:
        who = user_name(owner_uid)
        raise ConfigFault(
            [
                f"{path}: root would rely on {directory}, but other users than {who} can change "
                f"{place}; give that to {who} alone"
            ]
        )


def _changeable_place(directory: Path, owner_uid: int) -> Path | None:
    """Return the first place on the way to a directory that a third user can change.

    Root and the owner may. In a directory with the sticky bit, such as /tmp, others can't replace
    what is not theirs; but they can put something beside it, so a directory of root itself must not
    be one. What others may do in the owner's directory is the owner's own concern: see ``check``.
    """
    for place in _way_to(directory):
        info = place.lstat()
        if info.st_uid not in (0, owner_uid):
            return place
        is_last, is_sticky = place.samefile(directory), bool(info.st_mode & stat.S_ISVTX)
        if info.st_uid == 0:
            may_write = _others_may_write(place, info)
            is_protected = is_sticky and not is_last
        else:
            may_write = bool(info.st_mode & stat.S_IWOTH)
            is_protected = is_sticky or is_last
        if may_write and not is_protected and not stat.S_ISLNK(info.st_mode):
            return place
    return None


def _others_may_write(place: Path, info: os.stat_result) -> bool:
    """True if this is writable for all users, or for its group, unless that is root's alone.

    With a POSIX access control list the bits of the group are those of everybody on the list.
    """
    is_shared = info.st_gid != 0 or _has_acl(place)
    return bool(info.st_mode & stat.S_IWOTH or (info.st_mode & stat.S_IWGRP and is_shared))


def _has_acl(place: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(place, follow_symlinks=False)
    except OSError:
        return False  # a file system without them


def _way_to(path: Path) -> Iterator[Path]:
    """Yield every directory and every link that a path leads through, from the top."""
    here = Path("/")
    parts = list(path.absolute().parts[1:])
    links = 0
    yield here
    while parts:
        part = parts.pop(0)
        here = here.parent if part == ".." else here / part
        yield here
        if here.is_symlink() and (links := links + 1) <= _MOST_LINKS:
            target = here.readlink()
            here = Path("/") if target.is_absolute() else here.parent
            parts[:0] = [part for part in target.parts if part != "/"]


# --- 2. become that user --------------------------------------------------------------------


def become(uid: int) -> None:
    """Become this user with all of its groups, for good; without a name with no group at all.

    Raises UsageFault if that user can't read this program; RuntimeError if root's rights are not
    gone afterwards: then nothing else may be done.
    """
    if threading.active_count() > 1:
        raise RuntimeError("a thread that is running already would keep root's rights")
    gid = NOBODY  # never the group of a file, which may be root's
    with suppress(KeyError):
        user = pwd.getpwuid(uid)
        gid = user.pw_gid
        os.environ |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    _gain_no_privileges()
    os.setgroups(_groups_of(uid, gid))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or _can_be_root():
        raise RuntimeError(f"root's rights could not be given up for those of {user_name(uid)}")
    for name in [name for name in os.environ if name.startswith(("LD_", "PYTHON", "XDG_"))]:
        del os.environ[name]  # root's own, for programs that root starts
    os.umask(0o022)
    for file in (os.__file__, __file__):
        if not os.access(file, os.R_OK):
            raise UsageFault(
                f"The user {user_name(uid)}, who owns the archive, can't read {file}, a part of "
                "this program. Nothing was changed. Install Python and the program where all "
                "users can read them."
            )


def _groups_of(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]


def _can_be_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def _gain_no_privileges() -> None:
    """No program that is started from here on gains rights, not even a set-uid one (prctl(2))."""
    import ctypes

    set_no_new_privs = 38
    if ctypes.CDLL(None, use_errno=True).prctl(set_no_new_privs, 1, 0, 0, 0):
        raise RuntimeError(f"PR_SET_NO_NEW_PRIVS: {os.strerror(ctypes.get_errno())}")


def user_name(uid: int) -> str:
    """Return a user's name, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


# --- 3. smartctl as root --------------------------------------------------------------------

# PATH and environment of the caller have no say in what root runs.
SMARTCTL_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin")
QUERY_TIMEOUT_S = 30.0  # a drive that takes 25 s per command would keep smartctl for minutes
# "standby,3": do not wake a drive up; exit with 3
_QUERY = ("--json=o", "-n", "standby,3")
_EVERYTHING, _BRIEF = "-x", "-a"  # the brief report reads fewer logs: some drives can't give all
_SCAN = ("--json", "--scan")
# Character devices that lead to drives; others, such as /dev/watchdog, react to being opened.
_CHARACTER_DEVICE = re.compile(r"/dev/(?:nvme\d+|sg\d+|bsg/[\w:.-]+|tw[ael]\d+)")
_MEGARAID_BUS = re.compile(r"/dev/bus/\d{1,4}")  # a name of smartctl's, not a file
# smartctl(8), -d TYPE
_TYPE = re.compile(
    r"(?:auto|ata|scsi|nvme|sat|snt\w+|usb\w+|marvell|areca|3ware|hpt|megaraid|aacraid|cciss|"
    r"intelliprop|jmb39x(?:-q2?)?|jms56x|sssraid)(?:[,/+][0-9A-Za-z]+)*"
)


Query = tuple[str, str | None, bool]  # device, type or None, whether the report is to be brief
_Answer = tuple[str, int, str | None]  # the fields of a SmartctlAnswer, as JSON carries them


@dataclass(frozen=True, slots=True)
class SmartctlAnswer:
    """What one run of smartctl printed, its exit status, and why it gave no answer."""

    output: str
    exit_status: int
    fault: str | None


class RootSmartctl:
    """A child process that stays root and runs smartctl, until its parent ends.

    To be made before :func:`become_archive_owner`. It takes a device, a type, and whether the
    report is to be brief, and nothing else; it checks them itself, and does not believe its
    parent, which has become a user who is not trusted.
    """

    def __init__(self) -> None:
        """Raises UsageFault if smartctl is not installed."""
        import socket

        program = _find_smartctl()
        ours, childs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            _serve(program, childs)
        childs.close()
        self._requests = ours.makefile("w", encoding="utf-8")
        self._answers = ours.makefile("r", encoding="utf-8")
        ours.close()  # the two files keep it open

    def scan(self) -> SmartctlAnswer:
        """Return smartctl's own list of devices. It opens no drive for it."""
        return self._ask([None])[0]

    def query(self, drives: Sequence[Query]) -> list[SmartctlAnswer]:
        """Return the report of each drive; all are queried at once."""
        return self._ask(list(drives)) if drives else []

    def _ask(self, request: list[Query | None]) -> list[SmartctlAnswer]:
        import json

        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            line = self._answers.readline()
        except OSError:
            line = ""
        if not line:
            raise PoleError("The process that runs smartctl as root has ended: no drive answered.")
        return [SmartctlAnswer(*answer) for answer in json.loads(line)]


def _find_smartctl() -> str:
    for directory in SMARTCTL_DIRECTORIES:
        if os.access(program := f"{directory}/smartctl", os.X_OK):
            return program
    raise UsageFault(
        "smartctl is not installed. Nothing was changed. Debian, Ubuntu: "
        "sudo apt install smartmontools"
    )


def _serve(program: str, connection: socket.socket) -> None:
    """Answer one request after another, and end the process: the child's whole life."""
    import json

    try:
        os.setsid()  # Ctrl-C is for the parent; when that ends, so does this
        os.chdir("/")
        with connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                lines.write(json.dumps(_answer_all(program, json.loads(line))) + "\n")
                lines.flush()
    except Exception as defect:  # it must end here, and not go on as its parent would
        sys.excepthook(type(defect), defect, defect.__traceback__)
    finally:
        os._exit(0)


def _answer_all(program: str, drives: list[Query | None]) -> list[_Answer]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(drives)) as threads:  # a hung drive delays no other
        return list(threads.map(lambda drive: _answer(program, drive), drives))


def _answer(program: str, drive: Query | None) -> _Answer:
    if drive is None:
        return _run([program, *_SCAN])
    device, kind, is_brief = drive
    report = _BRIEF if is_brief else _EVERYTHING
    is_name = bool(_MEGARAID_BUS.fullmatch(device))
    real = device if is_name else os.path.realpath(device)  # what is checked is what is opened
    if fault := _why_not_queried(real, kind):
        return "", 0, fault
    return _run([program, *_QUERY, report, *(("-d", kind) if kind else ()), real])


def _why_not_queried(device: str, kind: str | None) -> str | None:
    """Return why root does not open this as a drive; None if it may."""
    if kind is not None and not _TYPE.fullmatch(kind):
        return f"{kind!r} is not a type of device that smartctl knows"
    if _MEGARAID_BUS.fullmatch(device):
        return None
    try:
        mode = os.lstat(device).st_mode
    except OSError as fault:
        return f"there is no such device ({fault.strerror})"
    is_drive = stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and _CHARACTER_DEVICE.fullmatch(device))
    return None if device.startswith("/dev/") and is_drive else "it is not a drive"


def _run(command: list[str]) -> _Answer:
    """Run smartctl with an empty environment.

    A process that hangs in the kernel can't be ended: it is killed and not waited for.
    """
    import subprocess

    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
    except OSError as fault:  # no memory, no process left: the other drives may have more luck
        return "", 0, f"smartctl can't be started ({fault.strerror})"
    try:
        out, _ = process.communicate(timeout=QUERY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # most are gone at once
            process.wait(1)
        return "", 0, f"no answer within {QUERY_TIMEOUT_S:.0f} s"
    finally:
        if process.stdout:
            process.stdout.close()
    if process.returncode < 0:
        return "", 0, f"smartctl was ended by signal {-process.returncode}"
    return out.decode("utf-8", "replace"), process.returncode, None
