"""What the scripts share: options, logging, and the door through which every fault leaves."""

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

from poledata.config import Config, load
from poledata.errors import ConfigFault, ExitCode, PoleError, UsageFault
from poledata.formatting import is_utf8, shown
from poledata.notices.isolation import BUGS
from poledata.system.ownership import open_or_make, user_name

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
    """Return the configuration. Raises ConfigFault."""
    path = config_path()
    try:
        return load(path)
    except ConfigFault as fault:
        if _named_config():
            raise
        hint = f"{path}: this is the demo's. Name yours: --config FILE, or $POLE_DATA_CONFIG"
        raise ConfigFault([*fault.faults, hint]) from fault


def echo(text: str) -> None:
    """Print ``text``, unless --quiet was given."""
    if not options().quiet:
        click.echo(text)


def common_options(command: _Command) -> _Command:
    """--config, -v, --quiet and --log-file, before or after a sub-command."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path, readable=False),  # the configuration says why not
        expose_value=False,
        callback=_keep("config_path"),
        help="The configuration (default: $POLE_DATA_CONFIG, "
        "else basic_data_manager.config beside the script).",
    )
    return config(output_options(command))


def output_options(command: _Command) -> _Command:
    """-v, --quiet and --log-file alone: for what needs no configuration."""
    for option in (
        click.option(
            "--log-file",
            type=click.Path(path_type=Path, dir_okay=False, readable=False),
            expose_value=False,
            callback=_keep("log_file"),
            help="Log here instead of the configuration's LogFile.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_keep("verbose"),
            help="Say more, on the screen and in the log.",
        ),
        click.option(
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_keep("quiet"),
            help="Print nothing but faults.",
        ),
    ):
        command = option(command)
    return command


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, _option: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Options), name, value)

    return keep


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at this stream; None where the caller closed it."""
    return stream is not None and stream.isatty()


# --- logging ------------------------------------------------------------------------------


class _LogFile(logging.FileHandler):
    """A log that can't be written never stops the work.

    From its first fault on what is said goes to ``instead``, if that is another file.
    """

    is_written = False
    fault: str | None = None
    _said = False

    def __init__(self, path: Path, instead: Path | None) -> None:
        super().__init__(path, encoding="utf-8", delay=True, errors="backslashreplace")
        self._wanted, self._instead = path, instead

    def _forget_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream:
            with contextlib.suppress(OSError):  # what is buffered can't be written there
                stream.close()

    def look(self) -> None:
        """Find out whether it can be written now, though nothing was said: see ``fault``."""
        if self.fault:
            return
        try:
            if self.stream is None:
                self.stream = self._open()
            if os.statvfs(self.baseFilename).f_bavail == 0:
                self._note(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        except OSError as fault:
            self._note(fault)

    def _note(self, fault: BaseException | None) -> None:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        self.fault = self.fault or f"{self._wanted} can't be written: {why}"

    def _open(self) -> io.TextIOWrapper:
        """Regular files only: a FIFO without a reader would hold up every pass."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        if os.geteuid() == 0:
            fd = open_or_make(Path(self.baseFilename), flags)
        else:
            fd = os.open(self.baseFilename, flags | os.O_CREAT, 0o666)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return open(fd, "a", encoding=self.encoding, errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
            self.is_written = not self._said
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self._note(sys.exc_info()[1])
        if self._instead and self._instead != self._wanted:
            self.baseFilename, self._instead = str(self._instead), None
            self._forget_stream()
            self.emit(record)
        elif not self._said:
            self._said = True
            print(
                f"{self.baseFilename}: the log can't be written: {sys.exc_info()[1]}",
                file=sys.stderr,
            )


def start_logging(config: Config) -> None:
    """Log to the LogFile, and on a terminal warnings to the screen too.

    A LogFile that can't be written has a notice; the log stands beside the database until then.
    """
    beside = config.db_path.with_name("data_manager.log")
    named = options().log_file
    log_to(named or config.log_file, None if named else beside)
    _screen_too()
    for warning in config.warnings:
        log.warning("%s", warning)


def log_to(path: Path, instead: Path | None = None) -> None:
    """Log to this file; where it can't be written, to the other one."""
    handler: logging.Handler = _LogFile(path, instead)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if options().verbose else logging.INFO)


def log_faults() -> list[str]:
    """Why the log can't be written, if so."""
    handlers = [handler for handler in log.handlers if isinstance(handler, _LogFile)]
    for handler in handlers:
        handler.look()
    return [f"LogFile: {handler.fault}" for handler in handlers if handler.fault]


def _screen_too() -> None:
    if is_terminal(sys.stderr) and not options().quiet:
        screen = logging.StreamHandler()
        screen.setLevel(logging.INFO if options().verbose else logging.WARNING)
        log.addHandler(screen)


def log_to_screen(about: str = log.name) -> None:
    """For what writes no log: warnings, of all modules or of one, go to the screen."""
    if not options().quiet:
        logging.getLogger(about).addHandler(logging.StreamHandler())
        logging.getLogger(about).setLevel(logging.WARNING)


def must_be_cron_user(config: Config) -> None:
    """Raises UsageFault for who can't go on with the archive, or would keep its owner from it."""
    directory = config.db_path.parent
    owner = directory.stat().st_uid
    if os.geteuid() == owner:
        return
    if os.geteuid() == 0 or not os.access(directory, os.W_OK):
        raise UsageFault(
            f"{directory} belongs to the user {user_name(owner)}, who runs the archive. "
            f"Nothing was touched. Run this as: sudo -u {user_name(owner)} …"
        )


def must_be_root(why: str) -> None:
    """Raises UsageFault for everybody else: only root may ask drives how they are."""
    if os.geteuid() != 0:
        raise UsageFault(f"Only root may {why}. Nothing was changed. Run as root: sudo …")


# --- the door -----------------------------------------------------------------------------


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: the work ends cleanly, soon."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


LONGEST_ARGUMENT = 10_000  # no path and no name can be as long


class _Outlet(io.FileIO):
    """Standard output, or standard error: work goes on where nobody takes what is printed."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self.fault is None:
                return super().write(data)
        except OSError as fault:
            self.fault = fault
        return len(data)


def _open_outlets() -> list[_Outlet]:
    """UTF-8 in any locale; what is no text is escaped."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a database could be "stderr"
        os.set_inheritable(fd, True)
    os.close(fd)
    outlets = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            outlet = _Outlet(stream.fileno(), "wb", closefd=False)
            text = io.TextIOWrapper(
                io.BufferedWriter(outlet), "utf-8", "backslashreplace", line_buffering=True
            )
            setattr(sys, name, text)
            outlets.append(outlet)
    return outlets


def _exit_code_of(outlets: list[_Outlet], code: int) -> int:
    """A person who was not told should look. Who closes a pipe early knows it."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    faults = [o.fault for o in outlets if o.fault]
    for fault in faults:
        if fault.errno != errno.EPIPE:
            click.echo(f"Not everything could be printed: {fault.strerror}.", err=True)
    return ExitCode.LOOK if faults and code == ExitCode.DONE else code


def _must_be_clear() -> None:
    """Raises UsageFault for arguments that nothing can mean, and where no path leads anywhere."""
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
    """Run a script's command; every way out ends here, with an exit code of the contract."""
    logging.getLogger("poledata").addHandler(logging.NullHandler())
    os.umask(0o022)  # what we write may be read by everybody, as the tools of others expect
    outlets, given = _open_outlets(), Options()
    try:
        _must_be_clear()
        code = command.main(standalone_mode=False, obj=given)
    except click.ClickException as fault:
        fault.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except PoleError as fault:
        code = _report_fault(fault, given.speaks)
    except Exception as defect:
        code = _report_bug(defect)
    else:
        code = _report_bugs() if BUGS else code
    gc.freeze()  # the process ends: what it holds need not be searched for garbage
    sys.exit(int(_exit_code_of(outlets, int(code or 0))))


def _report_fault(fault: PoleError, speaks: bool) -> ExitCode:
    log.error("%s", fault)
    if any(type(handler) is logging.StreamHandler for handler in log.handlers):
        return fault.exit_code  # it is on the screen already
    if speaks or isinstance(fault, UsageFault) or is_terminal(sys.stderr):
        click.echo(str(fault), err=True)
    return fault.exit_code


def _report_bugs() -> ExitCode:
    """Bugs that were kept to what they were about: everything else is done."""
    click.echo(
        f"This program hit a bug ({', '.join(dict.fromkeys(BUGS))}); everything else was done. "
        "A bug never leads to the removal of a file. The log has its traceback: please report it.",
        err=True,
    )
    return ExitCode.DEFECT


def _report_bug(defect: Exception) -> ExitCode:
    """A defect of ours: the traceback goes to the log, one plain sentence to the screen."""
    log.critical("a defect of this program", exc_info=defect)
    logs = [h for h in log.handlers if isinstance(h, _LogFile) and h.is_written]
    if not logs and sys.stderr:  # somebody must be able to mend it
        sys.excepthook(type(defect), defect, defect.__traceback__)
    where = logs[0].baseFilename if logs else "above"
    said = " ".join(f"{type(defect).__name__}: {defect}".split())
    click.echo(
        f"This is a defect of the program ({said}). Files that are not registered stay in the "
        f"buffer. Please report it with the log {where}.",
        err=True,
    )
    return ExitCode.DEFECT
