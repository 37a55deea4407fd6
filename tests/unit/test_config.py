"""What a person may write, and what each mistake is answered with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poledata.config import Config, Secrets, load
from poledata.errors import ConfigFault, ExitCode
from poledata.models import Role
from poledata.settings import KEYS, RemoteWriters, duration_s, size_bytes
from tests.helpers.config_files import LINES, write_env
from tests.helpers.world import REPO

ROOT = REPO
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes site.config among existing directories: its keys, or a whole text."""
    for name in ("buffer", "db", "disks"):
        (tmp_path / name).mkdir()

    def written(text: str | None = None, **changed: str | None) -> Path:
        if text is None:
            lines = {key: value for key, value in (LINES | changed).items() if value is not None}
            text = "[site]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
        (tmp_path / "site.config").write_bytes(text.encode())
        return tmp_path / "site.config"

    return written


def faults(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """The faults of the file, without its name and with ``~`` for its directory."""
    with pytest.raises(ConfigFault) as caught:
        load(path, environ or {})
    assert caught.value.exit_code == ExitCode.USAGE
    assert all(fault.startswith(f"{path}: ") for fault in caught.value.faults)
    return [
        fault.removeprefix(f"{path}: ").replace(str(path.parent), "~")
        for fault in caught.value.faults
    ]


def test_four_lines_are_a_configuration_and_the_rest_has_defaults(write: Write) -> None:
    """Relative paths are relative to the file; each default is the one of the contract."""
    path = write()
    top = path.parent
    assert load(path, {}) == Config(
        path=path,
        db_path=top / "db/pole_data.sqlite",
        buffer=top / "buffer",
        extensions=(".g3",),
        include=("*",),
        exclude=(),
        empty_directories_s=0,
        mount_patterns=(f"{top}/disks/{{label}}",),
        primary_prefix="P",
        copy_prefix="S",
        require_mount=True,
        accept_unidentified=False,
        smart_devices=(),
        delete_from_buffer=True,
        min_free_bytes=10 * 10**9,
        settle_s=60,
        remote_writers=RemoteWriters.AUTO,
        no_new_files_after_s=6 * 3600,
        buffer_full_percent=80,
        spare_disks_low=2,
        repeat_notices_s=24 * 3600,
        verify_every_s=30 * 86400,
        receipt_expected_s=0,
        check_content=(),
        log_file=top / "db/data_manager.log",
        status_page=None,
        metrics_file=None,
        view=None,
        secrets=Secrets(),
        warnings=(),
    )


def test_every_key_is_read_whatever_its_case_and_section(write: Write) -> None:
    """[DEFAULT] is a section like any other, and a byte order mark does no harm."""
    given_keys = {
        "PRIMARYPREFIX": "A", "copyprefix": "B", "RequireMount": "Off", "DeleteFromBuffer": "0",
        "AcceptUnidentifiedDrives": "Yes", "SmartDevices": "/dev/sg2 -d cciss,0",
        "MinFreeSpace": "1 GiB", "SettleTime": "2 m", "NoNewFilesAfter": "0", "LogFile": "x.log",
        "BufferFullPercent": "70.5 %", "SpareDisksLow": "0", "RepeatNotices": "1 d",
        "ReceiptExpected": "120 d",
        "VerifyEvery": "2 w", "StatusPage": "db/s.html", "MetricsFile": "None",
        "RemoteWriters": "NO", "Include": "fullrate/, down*/RCW38", "Exclude": "fullrate/test",
        "RemoveEmptyDirectories": "7 d", "ViewLocation": "view",
        "CheckContent": "\n g3: spt3g-verify {path}\n g3.gz: sh -c 'zcat {path}'",
    }  # fmt: skip
    text = "\ufeff" + "".join(
        f"[DEFAULT]\r\n{key}: {value}\r\n[other]\r\n" for key, value in (LINES | given_keys).items()
    )
    path = write(text)
    top = path.parent
    assert load(path, {}) == replace(
        load(write(), {}),
        primary_prefix="A", copy_prefix="B", require_mount=False, delete_from_buffer=False,
            include=("fullrate", "down*/RCW38"), exclude=("fullrate/test",),
            empty_directories_s=7 * 86400, accept_unidentified=True,
            smart_devices=(("/dev/sg2", "cciss,0"),),
        remote_writers=RemoteWriters.NO,
        min_free_bytes=2**30, settle_s=120, no_new_files_after_s=0, log_file=top / "x.log",
        buffer_full_percent=70.5, spare_disks_low=0, repeat_notices_s=86400,
        verify_every_s=14 * 86400, receipt_expected_s=120 * 86400,
        check_content=(
            (".g3", ("spt3g-verify", "{path}")), (".g3.gz", ("sh", "-c", "zcat {path}")),
        ),
        status_page=top / "db/s.html", view=top / "view",
        warnings=(f"ViewLocation: there is no directory {top}/view; make it",),
    )  # fmt: skip
    assert {*LINES, *given_keys} >= {key.name for key in KEYS} - {"PrimaryPrefix", "CopyPrefix"}


def test_a_default_section_is_a_section_like_any_other(write: Write) -> None:
    """It lends its keys to no other section, and they count."""
    text = write().read_text()
    assert load(write(text.replace("[site]", "[DEFAULT]")), {}) == load(write(text), {})


def test_extensions_get_one_leading_dot(write: Write) -> None:
    """g3 and .g3 are the same; a list is separated by commas."""
    config = load(write(Extension="g3, .g3.gz,\n  .g3"), {})
    assert config.extensions == (".g3", ".g3.gz")


def test_smart_devices_are_devices_with_types_that_may_have_commas(write: Write) -> None:
    """As for smartctl(8): a list is separated by commas, and so are the parts of a type."""
    listed = "/dev/sdq -d sat, /dev/sg2 -d cciss,0,/dev/sg3  -d  areca,3/1, /dev/sdr, "
    assert load(write(SmartDevices=listed), {}).smart_devices == (
        ("/dev/sdq", "sat"),
        ("/dev/sg2", "cciss,0"),
        ("/dev/sg3", "areca,3/1"),
        ("/dev/sdr", None),
    )


def test_a_label_finds_its_mount_points_and_role(write: Write) -> None:
    """Every pattern is filled in; labels are a prefix and a number."""
    path = write(DiskMountPoints="disks,\n  disks/disk-{label}/{label}")
    config, disks = load(path, {}), path.parent / "disks"
    assert config.mount_points("P07") == (disks / "P07", disks / "disk-P07/P07")
    assert [config.role_of(label) for label in ("P07", "S1", "X1", "P", "p07", "P٣", "P07 ")] == [
        Role.PRIMARY, Role.COPY, None, None, None, None, None,
    ]  # fmt: skip


def test_home_and_variables_are_filled_in(write: Write, tmp_path: Path) -> None:
    """~, $NAME and ${NAME} come from the environment; its values are not filled in again."""
    (tmp_path / "$X").mkdir()
    environ = {"HOME": str(tmp_path), "X": "buffer", "ODD": str(tmp_path / "$X")}
    config = load(
        write(FilenameDB="~/a.sqlite", BufferLocation="~/${X}", LogFile="$ODD/l"), environ
    )
    assert config.db_path == tmp_path / "a.sqlite"
    assert config.buffer == tmp_path / "buffer"
    assert config.log_file == tmp_path / "$X/l"


def test_two_dots_behind_a_symlink_lead_where_the_system_goes(write: Write, tmp_path: Path) -> None:
    """link/.. is the parent of the link's target."""
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    assert load(write(FilenameDB="link/../x.sqlite"), {}).db_path == tmp_path / "far/x.sqlite"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"Extension": None},
         "Extension: is missing; add a line Extension = … (which files, by the end of "
         "their name: g3, or several: g3, g3.gz)"),
        ({"Extension": ""}, "Extension: is empty; give it a value, or remove the line"),
        ({"Extension": "g3,"}, 'Extension: "" is no extension; write it like g3, g3.gz'),
        ({"Extension": "*.g3"}, 'Extension: "*.g3" is no extension; write it like g3, g3.gz'),
        ({"Extension": "a/g3"}, 'Extension: "a/g3" is no extension; write it like g3, g3.gz'),
        ({"Extension": "g3 gz"}, 'Extension: "g3 gz" is no extension; write it like g3, g3.gz'),
        ({"Extension": "..g3"}, 'Extension: ".g3" is no extension; write it like g3, g3.gz'),
        ({"Extension": "g3 # data"},
         "Extension: has a comment behind the value; give the comment a line of its own"),
        ({"Include": "fullrate, /buffer/down"},
         'Include: "/buffer/down" is not a tree; write a path below the buffer, without a part '
         "that begins with a dot: fullrate"),
        ({"Exclude": "a/../b"},
         'Exclude: "a/../b" is not a tree; write a path below the buffer, without a part '
         "that begins with a dot: fullrate"),
        ({"Include": "none"},
         "Include: none would archive nothing; write * for the whole buffer"),
        ({"CheckContent": "g3: spt3g-verify"},
         'CheckContent: "g3: spt3g-verify" is no check; write it like g3: spt3g-verify {path}'),
        ({"LogFile": '"x.log"'}, 'LogFile: "x.log" is in quotes; write it without them'),
        ({"LogFile": "x\a.log"},
         'LogFile: "x\\x07.log" holds a character that can\'t be printed; remove it'),
        ({"LogFile": "x.log\n  SettleTime = 5 s"},
         "LogFile: goes on over an indented line; begin each line without white space"),
        ({"LogFile": "$NO/x.log"}, "LogFile: $NO is not set; write the path out"),
        ({"LogFile": "${EMPTY}/x"}, "LogFile: $EMPTY is not set; write the path out"),
        ({"FilenameDB": "no/x"}, "FilenameDB: there is no directory ~/no; make it: mkdir -p ~/no"),
        ({"FilenameDB": "db"}, "FilenameDB: ~/db is a directory; name a file"),
        ({"BufferLocation": "no"},
         "BufferLocation: ~/no can't be listed (No such file or directory); name a directory "
         "that exists and that this user can list"),
        ({"BufferLocation": "site.config"},
         "BufferLocation: ~/site.config can't be listed (Not a directory); name a directory "
         "that exists and that this user can list"),
        ({"DiskMountPoints": ","},
         "DiskMountPoints: names no directory; write one such as /spt_disks"),
        ({"DiskMountPoints": "no/{label}/x"},
         "DiskMountPoints: there is no directory ~/no; name the one that holds the disks"),
        ({"DiskMountPoints": "disks/{Label}"},
         "DiskMountPoints: ~/disks/{Label}: only {label} may stand in braces"),
        ({"PrimaryPrefix": "P0"},
         'PrimaryPrefix: "P0" is not a prefix; write ASCII letters alone, such as P'),
        ({"SmartDevices": "sdq -d sat"},
         'SmartDevices: "sdq -d sat" is not a device; write it like /dev/sdq -d sat'),
        ({"SmartDevices": "/dev/sdq -d sat -x"},
         'SmartDevices: "/dev/sdq -d sat -x" is not a device; write it like /dev/sdq -d sat'),
        ({"CopyPrefix": "É"},
         'CopyPrefix: "É" is not a prefix; write ASCII letters alone, such as P'),
        ({"CopyPrefix": "p"},
         "CopyPrefix: p and PrimaryPrefix P are equal, or one begins with the other; choose two "
         "such as P and S"),
        ({"CopyPrefix": "PX"},
         "CopyPrefix: PX and PrimaryPrefix P are equal, or one begins with the other; choose two "
         "such as P and S"),
        ({"PrimaryPrefix": "SPT"},
         "CopyPrefix: S and PrimaryPrefix SPT are equal, or one begins with the other; choose "
         "two such as P and S"),
        ({"RequireMount": "maybe"},
         'RequireMount: "maybe" is neither yes nor no; write one of them'),
        ({"MinFreeSpace": "-1 GB"},
         'MinFreeSpace: "-1 GB" is not a size; write it like 500 MB, 10 GB or 10 GiB'),
        ({"SettleTime": "nan"},
         'SettleTime: "nan" is not a time; write it like 90 s, 5 min, 6 h or 30 d'),
        ({"VerifyEvery": "999999 d"},
         'VerifyEvery: "999999 d" is over a hundred years; write it like 90 s or 30 d'),
        ({"RepeatNotices": "0"},
         "RepeatNotices: 0 would send every open notice at each pass; write a time like 24 h"),
        ({"BufferFullPercent": "101"},
         'BufferFullPercent: "101" is not a percentage; write a number over 0, up to 100'),
        ({"BufferFullPercent": "0"},
         'BufferFullPercent: "0" is not a percentage; write a number over 0, up to 100'),
        ({"SpareDisksLow": "1.5"},
         'SpareDisksLow: "1.5" is not a count; write a whole number such as 2'),
        ({"SettelTime": "60 s"},
         "SettelTime: line 6 has an unknown key; the nearest known one is SettleTime"),
        ({"POLE_NOTIFY_URLS": "json://x"},
         "POLE_NOTIFY_URLS: line 6 has an unknown key; secrets stand in the .env beside this file"),
        ({"extension": "gz"}, "Extension: is on lines 4 and 6; keep one of them"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key_and_what_is_right(
    write: Write, changed: dict[str, str | None], fault: str
) -> None:
    """One mistake is one fault: nothing else is blamed for it."""
    assert faults(write(**changed), {"EMPTY": ""}) == [fault]


def test_a_key_stands_once_in_the_whole_file(write: Write) -> None:
    """Sections only group: the same key in two of them contradicts itself."""
    text = write().read_text() + "[more]\n# why\nextension = gz\nEXTENSION = g3\n"
    assert faults(write(text)) == ["Extension: is on lines 4 and 8 and 9; keep one of them"]


def test_all_faults_are_told_at_once(write: Write) -> None:
    """A person mends the file in one go; the sentence says that nothing was changed."""
    path = write(FilenameDB=None, BufferLocation="no", DiskMountPoints="n, m", Speed="1")
    keys = [fault.split(":")[0] for fault in faults(path)]
    assert keys == ["Speed", "FilenameDB", "BufferLocation", "DiskMountPoints", "DiskMountPoints"]
    with pytest.raises(ConfigFault, match=r"\nNothing was changed\.$"):
        load(path, {})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Extension = g3\n", "line 1 is above any [section]; begin with one"),
        ("# é\n[site]\nX = 1\0\n", "line 3 holds a NUL byte; this is not a text file"),
    ],
)
def test_an_unparsable_file_is_named_with_its_line(write: Write, text: str, fault: str) -> None:
    assert faults(write(text)) == [fault]


def test_lines_that_say_nothing_are_all_named(write: Write) -> None:
    """And no key is called missing that may stand on one of them."""
    path = write(write(Extension=None).read_text() + "Extension g3\n= 7\n")
    assert faults(path) == [
        "line 5 is neither [section] nor Key = value",
        "line 6 is neither [section] nor Key = value",
    ]


def test_a_file_that_is_not_utf8_is_named_with_its_line(write: Write) -> None:
    path = write()
    path.write_bytes(b"[site]\n# K\xf6ln\n")
    assert faults(path) == ["line 2 is not UTF-8; save the file as plain UTF-8 text"]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """The next step is named; a secret-free sentence in place of a traceback."""
    what_next = "name another with --config, or copy an example"
    no_file = f"can't be read (No such file or directory); {what_next}"
    assert faults(tmp_path / "no.config") == [no_file]
    assert faults(tmp_path / "d") == [no_file]
    (tmp_path / "d").mkdir()
    assert faults(tmp_path / "d") == [f"can't be read (Is a directory); {what_next}"]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"BufferLocation": "disks/P01"},
         "BufferLocation: ~/disks/P01 is, or lies on, a place for a disk (~/disks/{label}); "
         "keep them apart"),
        ({"BufferLocation": "disks/S2/in"},
         "BufferLocation: ~/disks/S2/in is, or lies on, a place for a disk (~/disks/{label}); "
         "keep them apart"),
        ({"BufferLocation": "disks"},
         "BufferLocation: ~/disks contains a place for a disk (~/disks/{label}); keep them apart"),
        ({"BufferLocation": "link"},
         "BufferLocation: ~/disks/P01 is, or lies on, a place for a disk (~/disks/{label}); "
         "keep them apart"),
        ({"DiskMountPoints": "linked, link/{label}/x", "BufferLocation": "disks/P01/S3"},
         "BufferLocation: ~/disks/P01/S3 contains a place for a disk (~/link/{label}/x); "
         "keep them apart"),
        ({"DiskMountPoints": "linked"},
         "BufferLocation: ~/buffer is, or lies on, a place for a disk (~/linked/{label}); "
         "keep them apart"),
        ({"DiskMountPoints": "linked/{label}/RCW38", "LogFile": "buffer/RCW38/x"},
         "LogFile: ~/buffer/RCW38/x lies on a disk (~/linked/{label}/RCW38); put it elsewhere"),
        ({"FilenameDB": "buffer/x"},
         "FilenameDB: ~/buffer/x lies inside the buffer; put it elsewhere"),
        ({"LogFile": "buffer/RCW38/x"},
         "LogFile: ~/buffer/RCW38/x lies inside the buffer; put it elsewhere"),
        ({"StatusPage": "disks/P42/status.html"},
         "StatusPage: ~/disks/P42/status.html lies on a disk (~/disks/{label}); put it elsewhere"),
        ({"MetricsFile": "link/x.prom"},
         "MetricsFile: ~/disks/P01/x.prom lies on a disk (~/disks/{label}); put it elsewhere"),
        ({"LogFile": "db/pole_data.sqlite"},
         "LogFile: names the same file as FilenameDB; give it one of its own"),
        ({"FilenameDB": "data_manager.log", "StatusPage": "data_manager.log"},
         "StatusPage: names the same file as FilenameDB; give it one of its own"),
        ({"MetricsFile": "db/../site.config"},
         "MetricsFile: names the same file as this configuration; give it one of its own"),
    ],
)  # fmt: skip
def test_buffer_disks_and_database_lie_apart(
    write: Write, tmp_path: Path, changed: dict[str, str], fault: str
) -> None:
    """Also through symlinks, and for a disk that is not there yet."""
    for name in ("disks/P01/S3", "disks/S2/in", "buffer/RCW38", "linked"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("disks/P01")
    (tmp_path / "linked/P01").symlink_to("../buffer")
    assert fault in faults(write(**changed))


def test_a_buffer_may_stand_beside_disks_and_below_the_database(
    write: Write, tmp_path: Path
) -> None:
    """/mnt/buffer beside /mnt/P01 is in nobody's way; nor is a directory called P01x."""
    (tmp_path / "P01x").mkdir()
    config = load(write(FilenameDB="x.sqlite", DiskMountPoints=".", StatusPage="P01x/s"), {})
    assert config.warnings == ()


def test_a_page_without_its_directory_is_a_warning(write: Write) -> None:
    """A page is not worth a stopped archive."""
    config = load(write(StatusPage="no/s.html"), {})
    assert config.warnings == (
        f"StatusPage: there is no directory {config.path.parent}/no; make it",
    )


def test_secrets_come_from_env_file_and_the_environment_wins(write: Write, tmp_path: Path) -> None:
    """URLs are separated by white space; a comma inside belongs to the URL, $ is no variable."""
    write_env(
        tmp_path,
        "POLE_NOTIFY_URLS='json://a?to=x,y,\n  json://${HOME}'\nPOLE_PAGER_URLS=json://b\n"
        "POLE_PAGER_COMMAND=page me\nPOLE_HEARTBEAT_COMMAND=beat\nPOLE_HEARTBEAT_URL=http://h\n",
    )
    environ = {"POLE_PAGER_URLS": "json://c, json://d", "POLE_HEARTBEAT_COMMAND": ""}
    config = load(write(), environ)
    assert config.warnings == ()
    assert config.secrets == Secrets(
        notify_urls=("json://a?to=x,y", "json://${HOME}"),
        pager_urls=("json://c", "json://d"),
        pager_command="page me",
        heartbeat_command=None,
        heartbeat_url="http://h",
    )


def test_no_text_form_of_a_configuration_shows_a_secret(write: Write, tmp_path: Path) -> None:
    """A configuration may end up in a log or a traceback."""
    hidden = dict.fromkeys(
        ("POLE_NOTIFY_URLS", "POLE_PAGER_URLS", "POLE_PAGER_COMMAND", "POLE_HEARTBEAT_COMMAND",
         "POLE_HEARTBEAT_URL"), "hush",
    )  # fmt: skip
    config = load(write(), hidden)
    assert config.secrets.heartbeat_url == "hush"
    for thing in (config, config.secrets):
        assert "hush" not in f"{thing} {thing!r} {thing!s} {[thing]}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_an_env_file_that_others_can_open_is_warned_about(
    write: Write, tmp_path: Path, mode: int
) -> None:
    env = write_env(tmp_path, "POLE_PAGER_COMMAND=x\n", mode)
    config = load(write(), {})
    assert config.warnings == (f"{env}: is open to others than its owner; run: chmod 600 {env}",)
    assert config.secrets.pager_command == "x"


def test_an_env_file_that_cannot_be_read_stops_nothing(write: Write, tmp_path: Path) -> None:
    """The archive goes on without it, and says so."""
    env = write_env(tmp_path, "")
    env.write_bytes(b"POLE_PAGER_COMMAND=\xff\n")
    assert load(write(), {}).warnings == (
        f"{env}: can't be read (line 1 is not UTF-8; save the file as plain UTF-8 text); "
        "what it holds is not used",
    )
    env.unlink()
    env.mkdir()
    assert load(write(), {}).warnings == (
        f"{env}: can't be read (Is a directory); what it holds is not used",
    )


def test_a_line_of_the_env_file_that_says_nothing_is_warned_about(
    write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never on standard error, where cron would mail it every minute; never with its value."""
    env = write_env(tmp_path, "POLE_PAGER_COMMAND=x\nPOLE_NOTIFY_URLS='hush\nPOLE_PAGER_URL=hush\n")
    config = load(write(), {})
    assert config.warnings == (
        f"{env}: python-dotenv could not parse statement starting at line 2",
        f"{env}: POLE_PAGER_URL is not known, and not used",
    )
    assert config.secrets.pager_command == "x"
    assert capfd.readouterr() == ("", "")


def test_the_example_of_secrets_shows_each_and_sets_none(write: Write, tmp_path: Path) -> None:
    """Copied as it is it does nothing; with every # taken away each secret is set."""
    text = (ROOT / ".env.example").read_text()
    write_env(tmp_path, text)
    assert load(write(), {}).secrets == Secrets()
    write_env(tmp_path, re.sub("^#POLE", "POLE", text, flags=re.MULTILINE))
    config = load(write(), {})
    assert config.warnings == ()
    set_at_all = {name for name in Secrets.__slots__ if getattr(config.secrets, name)}
    assert set_at_all == {*Secrets.__slots__} - {"is_without_watchdog"}
    assert len(config.secrets.notify_urls) == 2


def test_a_station_may_have_no_watchdog_on_purpose(write: Write, tmp_path: Path) -> None:
    """``none`` in place of the URL: nothing is fetched, and the verdict does not ask for one."""
    write_env(tmp_path, "POLE_HEARTBEAT_URL=None\n")
    secrets = load(write(), {}).secrets
    assert (secrets.heartbeat_url, secrets.has_watchdog) == (None, True)
    write_env(tmp_path, "")
    assert not load(write(), {}).secrets.has_watchdog


@given(st.text(max_size=60), st.sampled_from([key.name for key in KEYS]))
@settings(deadline=None)
def test_whatever_a_file_holds_only_a_config_fault_comes_out(text: str, name: str) -> None:
    """Odd content never ends in a traceback, neither as a line nor as a value."""
    path = Path(os.environ["HOME"]) / "odd.config"
    for content in (f"[a]\n{text}", f"[a]\n{name} = {text}", f"[{text}]\n{name}\n {text}", text):
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigFault):
            load(path, {})


@given(st.integers(0, 10**15), st.sampled_from(["", "B", "kB", "MB", "GB", "TB", "KiB", "tib"]))
def test_a_whole_size_is_exact(number: int, unit: str) -> None:
    """No byte is lost to a float."""
    base = 1024 if "i" in unit else 1000
    power = " kmgt".index((unit.strip("bB") or " ")[0].lower())
    assert size_bytes(f"{number} {unit}".strip()) == size_bytes(f"{number}{unit}")
    assert size_bytes(f"{number}{unit}") == number * base**power


@pytest.mark.parametrize(
    ("key", "text", "counts_as", "example"),
    [
        ("MinFreeSpace", "10", "10 bytes", "10 GB"),
        ("SettleTime", "90", "90 seconds", "60 s"),
        ("NoNewFilesAfter", "6", "6 seconds", "6 h"),
        ("RepeatNotices", "24", "24 seconds", "24 h"),
        ("VerifyEvery", "30.5", "30.5 seconds", "30 d"),
    ],
)
def test_a_number_without_a_unit_counts_as_before_with_a_warning(
    write: Write, key: str, text: str, counts_as: str, example: str
) -> None:
    """An update never stops the archive; ``check`` and the log ask for the unit."""
    unit = counts_as.removeprefix(f"{text} ")
    bare = load(write(**{key: text}), {})
    assert bare.warnings == (
        f"{key}: {text} has no unit and counts as {counts_as}; write the unit, "
        f"for example {example}",
    )
    written = load(write(**{key: f"{text} {unit[0] if unit == 'seconds' else 'B'}"}), {})
    assert written.warnings == ()
    assert replace(bare, warnings=()) == written


@pytest.mark.parametrize("text", ["0", "00", "0.0"])
def test_nothing_needs_no_unit(write: Write, text: str) -> None:
    """Zero bytes are zero gigabytes."""
    config = load(write(MinFreeSpace=text, NoNewFilesAfter=text), {})
    assert (config.warnings, config.min_free_bytes, config.no_new_files_after_s) == ((), 0, 0)


def test_every_key_with_units_says_what_a_bare_number_counts_as() -> None:
    """The next key for a size or a time can't be forgotten."""
    with_units = {key.name for key in KEYS if key.default and re.fullmatch(r"\d+ \w+", key.default)}
    assert {key.name for key in KEYS if key.bare} >= with_units >= {"MinFreeSpace", "SettleTime"}


def test_sizes_and_times_may_have_decimals() -> None:
    assert size_bytes("1.5 TB") == 1_500_000_000_000
    assert size_bytes("0.5 KiB") == 512
    assert duration_s("1.5 h") == 5400
    assert [duration_s(f"1{u}") for u in ("", "s", "m", "min", "h", "d", "w")] == [
        1, 1, 60, 60, 3600, 86400, 604800,
    ]  # fmt: skip


@given(st.text(max_size=20) | st.sampled_from(["nan", "inf", "-1", "1e9", "10 G", "5 M", "", "²"]))
def test_what_is_no_size_or_time_is_a_value_error(text: str) -> None:
    """Never a negative, an endless or a guessed quantity."""
    for read in (size_bytes, duration_s):
        try:
            assert 0 <= read(text) < float("inf")
            assert re.fullmatch(r"[0-9.]+\s*[A-Za-z]*", text)
        except ValueError as e:
            assert str(e).endswith((" or 10 GiB", " or 30 d"))
    with pytest.raises(ValueError, match='"5 M" is not a time'):
        duration_s("5 M")


def test_the_shipped_sample_is_valid_and_on_stand_ins(tmp_path: Path) -> None:
    """Beside the directories that make demo creates; its first lines say what it is."""
    sample = Path(shutil.copy(ROOT / "basic_data_manager.config", tmp_path))
    (tmp_path / "demo/buffer").mkdir(parents=True)
    (tmp_path / "demo/disks").mkdir()
    assert not load(sample, {}).require_mount
    assert "STAND-INS" in sample.read_text().splitlines()[0]


def test_the_example_for_real_disks_shows_every_key_and_its_default(write: Write) -> None:
    """Four lines to edit, and the trees; what is commented out is what holds anyway."""
    text = (ROOT / "examples/spt.config").read_text()
    shown = dict(re.findall(r"^#?(\w+) = (.*)$", text, re.MULTILINE))
    assert list(re.findall(r"^(\w+) =", text, re.MULTILINE)) == [*LINES, "Include"]
    assert shown.pop("Include") == "fullrate, downsampled"
    text = text.replace("\nInclude =", "\n#Include =").replace("fullrate, downsampled", "*")
    shown["Include"] = "*"
    assert shown.keys() == {key.name for key in KEYS}
    free = {*LINES, "LogFile", "StatusPage", "MetricsFile", "ViewLocation"}
    assert all(shown[key.name] == key.default for key in KEYS if key.name not in free)
    for there, here in (("/var/lib/pole-data", "db"), ("/buffer", "buffer"), ("/spt_d", "d")):
        text = re.sub(f"= {there}", f"= {here}", text)
    four_lines = load(write(text), {})
    assert four_lines == load(write(), {})
    uncommented = load(write(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)), {})
    assert (
        replace(uncommented, status_page=None, metrics_file=None, view=None, warnings=())
        == four_lines
    )


def test_each_key_sets_one_field_and_says_what_it_means() -> None:
    """The table is complete: Config has no field that no key sets."""
    fields = {key.sets for key in KEYS}
    assert fields == {*Config.__dataclass_fields__} - {"path", "secrets", "warnings"}
    assert len(KEYS) == len(fields) == 27
    assert all(key.meaning for key in KEYS)
