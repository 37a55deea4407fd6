"""What the scripts share: options, logging, and one way in and out for every command."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import click

from poledata.config import Config, database_directory, load
from poledata.errors import ConfigFault, ExitCode, PoleError, UsageFault
from poledata.formatting import is_utf8, printable, shown, text_in
from poledata.notices.defects import BUGS
from poledata.system import locks, privileges
from poledata.system.privileges import user_name

_Command = TypeVar("_Command", bound=Callable[..., Any])
log = logging.getLogger("poledata")


@dataclass(slots=True)
class Options:
    """The options that every command takes."""

    config_path: Path | None = None
    log_file: Path | None = None
    verbose: bool = False
    quiet: bool = False
    speaks: bool = True  # False: a pass, which without a terminal prints only exit codes 2 and 3


def options() -> Options:
    """Return the options of the command that is running."""
    return click.get_current_context().ensure_object(Options)


def config_path() -> Path:
    """Return --config, else $POLE_DATA_CONFIG, else the configuration beside the script."""
    beside = Path(sys.argv[0]).resolve().parent / "basic_data_manager.config"
    return _named_config() or beside


def _named_config() -> Path | None:
    named = options().config_path or os.environ.get("POLE_DATA_CONFIG")
    return Path(named) if named else None


def load_config() -> Config:
    """Return the configuration; root becomes the archive's owner first. Raises ConfigFault."""
    path = config_path()
    try:
        was_root = os.geteuid() == 0
        if is_utf8(str(path.absolute())):  # load refuses any other, before it opens it
            privileges.become_archive_owner(
                path, lambda content: database_directory(path.absolute(), content, os.environ)
            )
        config = load(path)
        if was_root:
            privileges.must_own(config.db_path.parent, path)
        return config
    except ConfigFault as fault:
        if _named_config():
            raise
        hint = f"{path}: this is the demo's. Name yours: --config FILE, or $POLE_DATA_CONFIG"
        raise ConfigFault([*fault.faults, hint]) from fault


def echo(text: str) -> None:
    """Print ``text``, unless --quiet was given."""
    if not options().quiet:
        click.echo(text)


WAIT_AT_MOST_S = 600.0  # for the end of a pass's batch


def person_s_turn(db_path: Path) -> contextlib.AbstractContextManager[None]:
    """Return a person's turn: it says for whom it waits, and gives up after ten minutes."""
    return locks.between_batches(db_path, echo_error, WAIT_AT_MOST_S)


def echo_error(text: str) -> None:
    """Print ``text`` on standard error, unless --quiet was given."""
    if not options().quiet:
        click.echo(text, err=True)


def _keep(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep what an option was given as, before or after a sub-command."""
    if value:
        setattr(ctx.ensure_object(Options), str(option.name), value)


def _option(*names: str, **attributes: Any) -> Callable[[_Command], _Command]:
    return click.option(*names, expose_value=False, callback=_keep, **attributes)


def common_options(command: _Command) -> _Command:
    """Add --config and the options of :func:`output_options`, before or after a sub-command."""
    config = _option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, readable=False),  # the configuration says why not
        help="The configuration (default: $POLE_DATA_CONFIG, "
        "otherwise basic_data_manager.config beside the script).",
    )
    return config(output_options(command))


def output_options(command: _Command) -> _Command:
    """Add --quiet, -v and --log-file: all that a command without a configuration needs."""
    log_file = _option(
        "--log-file",
        type=click.Path(path_type=Path, dir_okay=False, readable=False),
        help="Write the log here instead of to LogFile.",
    )
    verbose = _option("-v", "--verbose", is_flag=True, help="Print and log more.")
    quiet = _option("--quiet", is_flag=True, help="Print only errors.")
    return quiet(verbose(log_file(command)))


def terminal_for_drawing() -> TextIO:
    """Return standard output without the escapes of :class:`_Text`: who draws there escapes."""
    return open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def is_terminal(stream: TextIO | None) -> bool:
    """True if a person looks at this stream; it is None if the caller closed it."""
    return stream is not None and stream.isatty()


# --- logging ------------------------------------------------------------------------------


class _LogFile(logging.FileHandler):
    """A log that never stops the work: after its first fault it goes on in ``instead``, if given.

    ``fault`` says why the log that was asked for can't be written.
    """

    is_written = False
    fault: str | None = None
    _is_fault_printed = False

    def __init__(self, path: Path, instead: Path | None) -> None:
        super().__init__(path, encoding="utf-8", delay=True, errors="backslashreplace")
        self._wanted, self._instead = path, instead

    def check(self) -> None:
        """Set ``fault`` if it can't be written now, though nothing was logged."""
        if self.fault:
            return
        try:
            if self.stream is None:
                self.stream = self._open()
            if os.statvfs(self.baseFilename).f_bavail == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as fault:
            self._note(fault)

    def _note(self, fault: BaseException | None) -> None:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        self.fault = self.fault or f"{self._wanted} can't be written: {why}"

    def _open(self) -> io.TextIOWrapper:
        """Open a regular file only: a FIFO without a reader would block every pass."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        if os.geteuid() == 0:  # an archive of root's: nobody else may lead its log elsewhere
            flags |= os.O_NOFOLLOW
            directory = Path(self.baseFilename).parent
            if directory.is_dir() and not privileges.is_safe_for_root(directory):
                raise OSError(errno.EPERM, "others than root can change its directory")
        fd = os.open(self.baseFilename, flags, 0o644)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return open(fd, "a", encoding=self.encoding, errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
            self.is_written = not self._is_fault_printed
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        fault = sys.exc_info()[1]
        self._note(fault)
        if self._instead and self._instead != self._wanted:
            self.baseFilename, self._instead = str(self._instead), None
            stream, self.stream = self.stream, None
            if stream:
                with contextlib.suppress(OSError):  # what is buffered can't be written there
                    stream.close()
            self.emit(record)
        elif not self._is_fault_printed:
            self._is_fault_printed = True
            print(f"{self.baseFilename}: the log can't be written: {fault}", file=sys.stderr)


class _LogLines(logging.Formatter):
    """The log's lines, without anything that a terminal would obey."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def start_logging(config: Config) -> None:
    """Log to the LogFile, and on a terminal warnings to the screen, too.

    A LogFile that can't be written has a notice; until then the log is beside the database.
    """
    given = options()
    beside = config.db_path.with_name("data_manager.log")
    log_to(given.log_file or config.log_file, None if given.log_file else beside)
    if is_terminal(sys.stderr) and not given.quiet:
        screen = logging.StreamHandler()
        screen.setLevel(logging.INFO if given.verbose else logging.WARNING)
        log.addHandler(screen)
    for warning in config.warnings:
        log.warning("%s", warning)


def log_without_config() -> None:
    """Log beside the database that an unusable configuration names, else beside itself.

    Root obeys none that others may have written.
    """
    path = config_path().absolute()
    if os.geteuid() == 0 and not _is_roots_own(path):
        return
    places = [path.parent]
    with contextlib.suppress(OSError, ValueError, ConfigFault):  # what is wrong with it is reported
        named = database_directory(path, text_in(path).encode(), os.environ)
        places = [named, *places] if named else places
    for place in places:
        if os.access(place, os.W_OK) and privileges.is_safe_for_root(place):
            log_to(place / "data_manager.log")
            return


def _is_roots_own(path: Path) -> bool:
    """True for a regular file that nobody else may change, or for none at all."""
    try:
        info = path.lstat()
    except OSError:
        return privileges.is_safe_for_root(path.parent)
    return stat.S_ISREG(info.st_mode) and info.st_uid == 0 and not info.st_mode & 0o022


def log_to(path: Path, instead: Path | None = None) -> None:
    """Log to this file; if it can't be written, to the other one."""
    handler = _LogFile(path, instead)
    handler.setFormatter(_LogLines())
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if options().verbose else logging.INFO)


def _log_files() -> list[_LogFile]:
    return [handler for handler in log.handlers if isinstance(handler, _LogFile)]


def log_faults() -> list[str]:
    """Return why the log can't be written, if so."""
    for handler in _log_files():
        handler.check()
    return [f"LogFile: {handler.fault}" for handler in _log_files() if handler.fault]


def log_to_screen(about: str = log.name) -> None:
    """Show warnings of all modules, or of one, on the screen: for a command without a log."""
    if not options().quiet:
        logging.getLogger(about).addHandler(logging.StreamHandler())
        logging.getLogger(about).setLevel(logging.WARNING)


# --- who runs this ------------------------------------------------------------------------


def must_be_archive_owner(directory: Path) -> None:
    """Refuse everybody who does not own the database's directory, or may not write to it.

    Root has become its owner already. Raises UsageFault.
    """
    owner = directory.stat().st_uid
    if os.geteuid() != owner and (os.geteuid() == 0 or not os.access(directory, os.W_OK)):
        raise UsageFault(
            f"{directory} belongs to the user {user_name(owner)}, who runs the archive. "
            f"Nothing was changed. Run this with sudo, or as {user_name(owner)}."
        )


def smartctl_as_root() -> privileges.RootSmartctl:
    """Return what runs smartctl as root. Raises UsageFault for everybody but root."""
    if os.geteuid() != 0:
        raise UsageFault("Only root may query drives. Nothing was changed. Run as root: sudo …")
    return privileges.RootSmartctl()


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set, so that the work ends soon and cleanly."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


# --- in and out ---------------------------------------------------------------------------

LONGEST_ARGUMENT = 10_000  # no path and no name can be as long


class _Text(io.TextIOWrapper):
    """The one place where text reaches a terminal: it escapes what a terminal would obey."""

    def write(self, text: str) -> int:
        return super().write(printable(text))


class _Output(io.FileIO):
    """Standard output or standard error: the work goes on if what is printed can't be written."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self.fault is None:
                return super().write(data)
        except OSError as fault:
            self.fault = fault
        return len(data)


def _open_outputs() -> list[_Output]:
    """Make both UTF-8 in any locale; what is not text is escaped."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a database could be "stderr"
        os.set_inheritable(fd, True)
    os.close(fd)
    outputs = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            output = _Output(stream.fileno(), "wb", closefd=False)
            text = _Text(
                io.BufferedWriter(output), "utf-8", "backslashreplace", line_buffering=True
            )
            setattr(sys, name, text)
            outputs.append(output)
    return outputs


def _exit_code_of(outputs: list[_Output], code: int) -> int:
    """Return ``code``; LOOK instead of DONE if output was lost. A closed pipe is not reported."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    faults = [output.fault for output in outputs if output.fault]
    for fault in faults:
        if fault.errno != errno.EPIPE:
            click.echo(f"Not everything could be printed: {fault.strerror}.", err=True)
    return ExitCode.LOOK if faults and code == ExitCode.DONE else code


def _must_be_usable() -> None:
    """Refuse arguments that can't be meant, and a current directory that is gone.

    Raises UsageFault.
    """
    for argument in sys.argv[1:]:
        if len(argument) > LONGEST_ARGUMENT:
            raise UsageFault(
                f"{shown(argument[:40])}…: an argument of {len(argument)} characters is too long. "
                "Nothing was changed."
            )
        if not is_utf8(argument):
            raise UsageFault(
                f"{shown(argument)} is not UTF-8. Nothing was changed. Names and paths must be."
            )
    try:
        os.getcwd()
    except OSError as fault:
        raise UsageFault(
            f"The current directory can't be used ({fault.strerror}). Nothing was changed. "
            "Change to another one: cd /"
        ) from fault


def enter(command: click.Command) -> NoReturn:
    """Run a script's command, and always exit with one of ``ExitCode``."""
    logging.getLogger("poledata").addHandler(logging.NullHandler())
    os.umask(0o022)  # all users may read what we write, as other tools expect
    outputs, given = _open_outputs(), Options()
    try:
        _must_be_usable()
        code = command.main(standalone_mode=False, obj=given)
    except click.ClickException as fault:
        fault.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except PoleError as fault:
        code = _report_fault(fault, given.speaks)
    except PermissionError as fault:
        code = _report_fault(_NotAllowed(fault), given.speaks)
    except Exception as defect:
        code = _report_bug(defect)
    else:
        code = _report_bugs() if BUGS else code
    gc.freeze()  # the process ends: what it holds need not be searched for garbage
    sys.exit(int(_exit_code_of(outputs, int(code or 0))))


class _NotAllowed(PoleError):
    """This user may not do something that the program relies on: no bug, wherever it happens."""

    def __init__(self, fault: PermissionError) -> None:
        self.fault = fault

    def __str__(self) -> str:
        return (
            f"{self.fault.filename}: {self.fault.strerror} for the user {user_name(os.geteuid())}. "
            "Every file that is not yet registered stays in the buffer. Who must own what: "
            "docs/privileges.md"
        )


def _report_fault(fault: PoleError, speaks: bool) -> ExitCode:
    log.error("%s", fault)
    if any(type(handler) is logging.StreamHandler for handler in log.handlers):
        return fault.exit_code  # it is on the screen already
    if speaks or isinstance(fault, UsageFault) or is_terminal(sys.stderr):
        click.echo(str(fault), err=True)
    return fault.exit_code


def _report_bugs() -> ExitCode:
    """Report bugs that spoiled one unit of work each: everything else is done."""
    click.echo(
        f"This program hit a bug ({', '.join(dict.fromkeys(BUGS))}); everything else was done. "
        "A bug never leads to the removal of a file. The log has its traceback: please report it.",
        err=True,
    )
    return ExitCode.DEFECT


def _report_bug(defect: Exception) -> ExitCode:
    """Write the traceback to the log, and one plain sentence to the screen."""
    log.critical("a defect of this program", exc_info=defect)
    logs = [handler for handler in _log_files() if handler.is_written]
    if not logs and sys.stderr:  # without it nobody could fix the bug
        sys.excepthook(type(defect), defect, defect.__traceback__)
    where = logs[0].baseFilename if logs else "above"
    what = " ".join(f"{type(defect).__name__}: {defect}".split())
    click.echo(
        f"This is a defect of the program ({what}). Files that are not registered stay in the "
        f"buffer. Please report it with the log {where}.",
        err=True,
    )
    return ExitCode.DEFECT
