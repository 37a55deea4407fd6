"""The BagIt files on a disk, whole after any crash and read alike by other tools."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bagit
import pytest
from hypothesis import given

from poledata.disks import bag, manifest
from poledata.errors import ManifestDamaged
from poledata.formatting import why_not_carried
from poledata.models import MANIFEST, ManifestLine
from tests.helpers.invariants import parse_manifest
from tests.helpers.sample_disks import DISK, NAMES

NAME = "fullrate/RCW38/80296951/0000.g3"
NOW_S = 1_795_458_057.9
ONE, TWO, THREE = ("1" * 128, "2" * 128, "3" * 128)
MARK = bag.Mark.of(DISK, NOW_S)
MARK_TEXT = """\
Bagging-Date: 2026-11-23
External-Identifier: P01
Bag-Software-Agent: Pole Data Manager
Pole-Label: P01
Pole-Role: primary
Pole-Serial: ZA12JCHM
Pole-Logical-ID: 0x5000c500858bfea7
Pole-Stand-In: no
Pole-Opened: 2026-11-23T18:20:57Z
"""
CLAIMED = {".incoming", "README.txt", "bag-info.txt", "bagit.txt", "data", "manifest-sha512.txt"}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, where an fsync costs nothing: these tests ask for a thousand of them."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def bag_fd(root_fd: int) -> int:
    """The root of a disk that was just claimed."""
    bag.claim(root_fd, MARK)
    return root_fd


def content(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory: its path, and the bytes of a file."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


# --- killing at every step ------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the code stops it."""


CHANGES = ("mkdir", "open", "write", "fchmod", "fsync", "rename", "unlink", "ftruncate")


def killed_at_every_step(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> int:
    """Runs ``run`` again and again, and kills it before its first, second, … system call.

    Ends once a run got through; returns how many were killed.
    """
    for kill_at in itertools.count(1):
        with monkeypatch.context() as patched:
            calls = itertools.count(1)
            for name in CHANGES:
                patched.setattr(os, name, _killing(getattr(os, name), calls, kill_at))
            try:
                run()
                return kill_at - 1
            except Killed:
                continue
    raise AssertionError("itertools.count ended")


def _killing(real: Callable[..., Any], calls: Iterator[int], kill_at: int) -> Callable[..., Any]:
    def killing(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == kill_at:
            raise Killed
        return real(*args, **kwargs)

    return killing


# --- names ----------------------------------------------------------------------------------

LINE_ENDS = [c for c in map(chr, range(0x110000)) if len(f"a{c}b".splitlines()) > 1]


@pytest.mark.parametrize("end", LINE_ENDS, ids=lambda end: f"U+{ord(end):04X}")
def test_what_ends_a_line_for_any_reader_is_refused(end: str) -> None:
    """Everything that str.splitlines() splits at, wherever it stands in the name."""
    for name in (f"a{end}b", f"{end}b", f"a{end}", f"a/{end}/b", end):
        assert why_not_carried(name) == "it holds a character that ends a line"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (NAME, None),
        ("ra0hdec-44.75 (é) → ★/0000.g3", None),
        (" *~$HOME#'\"?<>|:&;.g3", None),
        ("a\x1b[2J\x7f\u202e.g3", None),
        ("50%.g3", "it holds a % or a backslash"),
        ("a%0A.g3", "it holds a % or a backslash"),
        ("a\\n.g3", "it holds a % or a backslash"),
        ("a.g3 ", "it ends with white space"),
        ("a.g3\t", "it ends with white space"),
        ("a.g3\u3000", "it ends with white space"),
        (os.fsdecode(b"\xff.g3"), "it is not UTF-8"),
        (os.fsdecode("é.g3".encode("latin-1")), "it is not UTF-8"),
        (os.fsdecode(b"\xed\xa0\x80.g3"), "it is not UTF-8"),
    ],
)
def test_a_name_is_refused_for_one_stated_reason(name: str, why: str | None) -> None:
    """%, backslash, line ends, trailing white space and what is not UTF-8; all else is carried."""
    assert why_not_carried(name) == why


@given(NAMES)
def test_a_carried_name_is_read_back_from_its_line(name: str) -> None:
    """One line in, the same name out, and nothing else; the checker of these tests agrees."""
    if why_not_carried(name) is not None:
        return
    with TemporaryDirectory() as directory:
        fd = os.open(directory, os.O_RDONLY)
        try:
            Path(directory, MANIFEST).touch()
            manifest.append(fd, [(ONE, name), (TWO, "next.g3")])
            lines = [(line.name, line.sha512) for line in manifest.read(fd)]
        finally:
            os.close(fd)
        assert lines == [(name, ONE), ("next.g3", TWO)]
        parsed, faults = parse_manifest(Path(directory, MANIFEST).read_bytes())
        assert (faults, [line.name for line in parsed]) == ([], [name, "next.g3"])


# --- the claim ------------------------------------------------------------------------------


def test_a_claimed_disk_is_a_bag_that_says_whose_it_is(root: Path, root_fd: int) -> None:
    """All that the contract lists, and no more; every file readable by all."""
    bag.claim(root_fd, MARK)
    assert {path.name for path in root.iterdir()} == CLAIMED
    assert (root / "bagit.txt").read_text() == (
        "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    )
    assert (root / "bag-info.txt").read_text() == MARK_TEXT
    assert (root / MANIFEST).read_bytes() == b""
    assert content(root / "data") == content(root / ".incoming") == {}
    assert {path.stat().st_mode & 0o777 for path in root.iterdir() if path.is_file()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in root.iterdir() if path.is_dir()} == {0o755}


def test_bagit_reads_a_disk_that_is_in_use(root: Path, bag_fd: int) -> None:
    """Before closing it is not valid yet, but every tool of BagIt can open it."""
    found = bagit.Bag(str(root))
    assert found.tags == {"BagIt-Version": "1.0", "Tag-File-Character-Encoding": "UTF-8"}
    assert found.info == dict(line.split(": ") for line in MARK_TEXT.splitlines())
    assert found.entries == {}


def test_a_claim_can_be_cut_off_anywhere_and_begun_again(
    root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step: the disk may still be claimed, and its mark stands only once all else does."""

    def claim_after_a_crash() -> None:
        assert bag.foreign_entries(root_fd) == []
        if bag.read_mark(root_fd) is not None:
            assert {path.name for path in root.iterdir()} == CLAIMED
            assert bag.read_mark(root_fd) == MARK
            for path in root.iterdir():  # again from the beginning, at a later step
                path.rmdir() if path.is_dir() else path.unlink()
        bag.claim(root_fd, MARK)

    assert killed_at_every_step(monkeypatch, claim_after_a_crash) > 20
    assert {path.name for path in root.iterdir()} == CLAIMED
    assert bag.read_mark(root_fd) == MARK
    assert content(root / ".incoming") == {}


def test_the_mark_is_the_last_thing_a_claim_writes(
    root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is durable before: the root is fsynced between the last other name and the mark."""
    said: list[str] = []
    real_rename, real_fsync = os.rename, os.fsync

    def rename(source: str, to: str, **how: Any) -> None:
        said.append(to)
        real_rename(source, to, **how)

    def fsync(fd: int) -> None:
        said.append("fsync root" if os.path.sameopenfile(fd, root_fd) else "fsync")
        real_fsync(fd)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "fsync", fsync)
    bag.claim(root_fd, MARK)
    assert said[-5:] == [MANIFEST, "fsync root", "fsync", bag.MARK, "fsync root"]


def test_an_empty_disk_may_be_claimed(root: Path, root_fd: int) -> None:
    """Also one with the directory that mkfs makes."""
    assert bag.foreign_entries(root_fd) == []
    (root / "lost+found").mkdir()
    assert bag.foreign_entries(root_fd) == []


def test_a_disk_that_was_claimed_and_no_more_may_be_claimed(bag_fd: int) -> None:
    """The database never heard of it: the pass was killed between the mark and its commit."""
    assert bag.foreign_entries(bag_fd) == []


FOREIGN: dict[str, tuple[dict[str, str], list[str]]] = {
    "a file": ({"thesis.tex": "x"}, ["thesis.tex"]),
    "files": ({"z": "", "a": "", ".Trash-0/b": ""}, [".Trash-0", "a", "z"]),
    "a file beside lost+found": ({"lost+found/#12": "x", "a": "x"}, ["a"]),
    "a file of an archive": ({"data/fullrate": "x"}, ["data/fullrate"]),
    "a manifest": ({MANIFEST: "x"}, [MANIFEST]),
    "another bag": ({"bagit.txt": "BagIt-Version: 0.97\n"}, ["bagit.txt"]),
    "directories": ({"bagit.txt/a": "", "README.txt/a": ""}, ["README.txt", "bagit.txt"]),
    "set aside": ({".aside/a": "x"}, [".aside"]),
    "a closed bag": ({"tagmanifest-sha512.txt": ""}, ["tagmanifest-sha512.txt"]),
}


@pytest.mark.parametrize(("files", "foreign"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_ours_keeps_a_disk_from_its_first_use(
    root: Path, root_fd: int, files: dict[str, str], foreign: list[str]
) -> None:
    """It must be empty but for lost+found."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert _top(bag.foreign_entries(root_fd)) == _top(foreign)


def _top(entries: list[str]) -> list[str]:
    """What stands in the root itself; below it one example is enough."""
    return [entry.partition("/")[0] for entry in entries]


@pytest.mark.parametrize(
    ("name", "foreign"), [("README.txt", ["README.txt"]), (".incoming/thesis.tex", [".incoming"])]
)
def test_what_a_claim_would_take_away_keeps_a_disk_from_its_first_use(
    root: Path, root_fd: int, name: str, foreign: list[str]
) -> None:
    """Nothing is ever overwritten by different content: somebody's README, or a file like ours."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("the only copy of a thesis")
    assert _top(bag.foreign_entries(root_fd)) == foreign


@pytest.mark.parametrize("name", ["data", ".incoming"])
def test_a_file_in_a_directorys_place_is_foreign(root: Path, root_fd: int, name: str) -> None:
    """It is said as what it is, not as a drive that does not work; a link there too."""
    (root / name).write_text("numbers")
    assert bag.foreign_entries(root_fd) == [name]
    (root / name).unlink()
    (root / name).symlink_to("/")
    assert bag.foreign_entries(root_fd) == [name]


def test_a_pipe_in_a_files_place_is_foreign(root: Path, root_fd: int) -> None:
    """Nobody waits for its other end."""
    for name in (MANIFEST, bag.DECLARATION, bag.README):
        os.mkfifo(root / name)
    assert bag.foreign_entries(root_fd) == [bag.README, bag.DECLARATION, MANIFEST]


# --- the mark -------------------------------------------------------------------------------


def test_a_disk_without_a_mark_has_none(root_fd: int) -> None:
    """A new disk, or a wiped one."""
    assert bag.read_mark(root_fd) is None


@pytest.mark.parametrize("line", ["Label", "Role", "Serial", "Logical-ID", "Stand-In", "Opened"])
def test_a_mark_that_lacks_a_line_is_no_mark(root: Path, root_fd: int, line: str) -> None:
    """It names the line; the disk is refused."""
    text = re.sub(f"^Pole-{line}: .*\n", "", MARK_TEXT, flags=re.MULTILINE)
    (root / bag.MARK).write_text(text)
    with pytest.raises(ValueError) as caught:
        bag.read_mark(root_fd)
    assert str(caught.value) == f"its bag-info.txt has no line Pole-{line}"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 200,
        b"Pole-Label: \xff\n",
        MARK_TEXT.replace("primary", "backup").encode(),
        MARK_TEXT.replace("\n", " ").encode(),
    ],
)
def test_a_mark_that_makes_no_sense_is_no_mark(root: Path, root_fd: int, text: bytes) -> None:
    """It is never taken for a disk that was never used."""
    (root / bag.MARK).write_bytes(text)
    with pytest.raises(ValueError):
        bag.read_mark(root_fd)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "P02"},
        {"serial": "ZA12JCHN"},
        {"logical_id": "0x5000c500858bfea8"},
        {"stand_in": True},
    ],
)
def test_a_mark_is_of_one_disk(change: dict[str, Any]) -> None:
    """Label, serial, logical ID, and whether it is a stand-in, must all be the disk's."""
    assert MARK.is_of(DISK)
    assert not MARK.is_of(replace(DISK, **change))
    assert not replace(MARK, **change).is_of(DISK)


def test_a_stand_in_says_so_in_its_mark(root: Path, root_fd: int) -> None:
    """Nobody takes a directory for a drive later."""
    bag.claim(root_fd, replace(MARK, stand_in=True))
    assert "\nPole-Stand-In: yes\n" in (root / bag.MARK).read_text()
    assert bag.read_mark(root_fd) == replace(MARK, stand_in=True)


# --- small files ----------------------------------------------------------------------------


def test_a_small_file_is_whole_or_as_before(
    root: Path, bag_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any step, the old text or the new one stands there, never a part."""
    texts = [b"new %d\n" % number * 50 for number in range(50)]
    written = iter(texts)
    bag.write_file(bag_fd, bag.README, next(written))

    def rewrite() -> None:
        assert (root / bag.README).read_bytes() in texts
        bag.write_file(bag_fd, bag.README, next(written))

    assert killed_at_every_step(monkeypatch, rewrite) >= 5
    assert (root / bag.README).read_bytes() in texts


def test_a_new_file_is_never_an_existing_one(root: Path, root_fd: int) -> None:
    """Neither a file nor a link, not even one that leads nowhere."""
    (root / "file").write_text("mine")
    (root / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            bag.create(root_fd, name)
    assert (root / "file").read_text() == "mine"
    os.close(bag.create(root_fd, "new"))
    assert (root / "new").stat().st_mode & 0o777 == 0o600


def test_a_write_goes_on_where_a_short_one_ended(
    root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """write(2) may take less than it is given."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    fd = bag.create(root_fd, "file")
    bag.write_all(fd, b"0123456789")
    os.close(fd)
    assert (root / "file").read_bytes() == b"0123456789"


def test_a_write_that_takes_nothing_is_a_full_disk(
    root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never an endless loop, and never a success."""
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    fd = bag.create(root_fd, "file")
    with pytest.raises(OSError) as caught:
        bag.write_all(fd, b"0123456789")
    os.close(fd)
    assert caught.value.errno == errno.ENOSPC


def test_temporary_names_are_short_and_never_the_same() -> None:
    """They fit beside names of any length."""
    names = {bag.new_temporary() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names)


def test_what_an_earlier_pass_left_is_swept(root: Path, bag_fd: int) -> None:
    """Only in .incoming/; a link there goes, and what it leads to stays."""
    (root / "data" / "a.g3").write_text("archived")
    (root / ".incoming" / bag.new_temporary()).write_text("half a file")
    (root / ".incoming" / "link").symlink_to(root / "data" / "a.g3")
    assert bag.sweep_incoming(bag_fd) == 2
    assert bag.sweep_incoming(bag_fd) == 0
    assert content(root / ".incoming") == {}
    assert content(root / "data") == {"a.g3": b"archived"}


def test_a_link_in_the_place_of_incoming_is_not_swept(root: Path, bag_fd: int) -> None:
    """Nothing elsewhere is ever removed."""
    (root / "data" / "a.g3").write_text("archived")
    (root / ".incoming").rmdir()
    (root / ".incoming").symlink_to("data")
    with pytest.raises(OSError) as caught:
        bag.sweep_incoming(bag_fd)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert content(root / "data") == {"a.g3": b"archived"}


# --- setting aside --------------------------------------------------------------------------


def test_what_is_set_aside_keeps_its_bytes_and_tells_when(root: Path, bag_fd: int) -> None:
    """It moves as it is, to a name with the time and its own."""
    (root / "data" / "0000.g3").write_bytes(b"who knows")
    os.utime(root / "data" / "0000.g3", (5, 5))
    path = bag.set_aside(bag_fd, "data/0000.g3", NOW_S)
    assert re.fullmatch(r"\.aside/2026-11-23T182057Z-[0-9a-f]{8}-0000\.g3", path)
    assert (root / path).read_bytes() == b"who knows"
    assert (root / path).stat().st_mtime == 5
    assert content(root / "data") == {}


def test_setting_aside_replaces_nothing(root: Path, bag_fd: int) -> None:
    """The same name in the same second, again and again: all of them are kept."""
    for number in range(20):
        (root / "data" / "0000.g3").write_text(str(number))
        bag.set_aside(bag_fd, "data/0000.g3", NOW_S)
    kept = content(root / ".aside").values()
    assert {int(text) for text in kept if text is not None} == set(range(20))


@pytest.mark.parametrize("base", ["x" * 255, "é" * 127, "\U0001f600" * 63, "ab" + "é" * 126])
def test_a_name_of_any_length_can_be_set_aside(root: Path, bag_fd: int, base: str) -> None:
    """Names are at most 255 bytes; the end of a long one is kept, in whole characters."""
    (root / "data" / base).touch()
    aside = bag.set_aside(bag_fd, f"data/{base}", NOW_S).removeprefix(".aside/")
    assert base.endswith(aside.split("-", 4)[4])
    assert (root / ".aside" / aside).exists()


def test_directories_and_links_are_set_aside_as_they_are(root: Path, bag_fd: int) -> None:
    """Whatever stands in a file's place."""
    (root / "data" / "link").symlink_to("nowhere")
    (root / "data" / "directory").mkdir()
    (root / "data" / "directory" / "a").touch()
    link = bag.set_aside(bag_fd, "data/link", NOW_S)
    directory = bag.set_aside(bag_fd, "data/directory", NOW_S)
    assert os.readlink(root / link) == "nowhere"
    assert (root / directory / "a").is_file()


def test_setting_aside_can_be_cut_off_anywhere(
    root: Path, bag_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is in its place or aside, once."""
    file = root / "data" / "0000.g3"
    file.write_bytes(b"who knows")

    def set_aside() -> None:
        kept = [path for path in (file, *(root / ".aside").glob("*")) if path.exists()]
        assert [path.read_bytes() for path in kept] == [b"who knows"]
        kept[0].rename(file)
        bag.set_aside(bag_fd, "data/0000.g3", NOW_S)

    assert killed_at_every_step(monkeypatch, set_aside) > 5


# --- the manifest ---------------------------------------------------------------------------


def write_lines(root: Path, *entries: tuple[str, str]) -> bytes:
    """Write a manifest of these (sha512, name); its bytes."""
    text = "".join(f"{sha512}  data/{name}\n" for sha512, name in entries).encode()
    (root / MANIFEST).write_bytes(text)
    return text


def test_lines_are_added_at_the_end_and_found_where_they_stand(root: Path, bag_fd: int) -> None:
    """GNU's form: lower-case hexadecimal, two spaces, LF; offsets in bytes."""
    first = manifest.append(bag_fd, [(ONE, "é.g3"), (TWO, NAME)])
    second = manifest.append(bag_fd, [(THREE, "c.g3")])
    assert manifest.append(bag_fd, []) == []
    text = (root / MANIFEST).read_bytes()
    assert text == f"{ONE}  data/é.g3\n{TWO}  data/{NAME}\n{THREE}  data/c.g3\n".encode()
    assert first + second == list(manifest.read(bag_fd))
    for line in first + second:
        assert text[line.offset_bytes :].startswith(line.text)
        assert manifest.has_line(bag_fd, line)


def test_a_line_stands_only_where_it_was_written(root: Path, bag_fd: int) -> None:
    """Another SHA-512, another name, another place, or a torn end: it does not."""
    (line,) = manifest.append(bag_fd, [(ONE, NAME)])
    for other in (
        replace(line, sha512=TWO),
        replace(line, name="a.g3"),
        replace(line, name=NAME[:-1]),
        replace(line, offset_bytes=1),
        replace(line, offset_bytes=10**9),
    ):
        assert not manifest.has_line(bag_fd, other)
    os.truncate(root / MANIFEST, len(line.text) - 1)
    assert not manifest.has_line(bag_fd, line)


def test_lines_are_found_by_their_names(root: Path, bag_fd: int) -> None:
    """Only those that were asked for; of a repeated name the last."""
    write_lines(root, (ONE, "a.g3"), (TWO, "b.g3"), (THREE, "a.g3"))
    assert manifest.find_lines(bag_fd, ["a.g3", "x.g3"]) == {
        "a.g3": ManifestLine(THREE, "a.g3", 2 * 140)
    }
    assert manifest.find_lines(bag_fd, []) == {}


def test_a_line_is_dropped_and_all_others_stay(root: Path, bag_fd: int) -> None:
    """Every line of that name; the order of the rest is kept."""
    write_lines(root, (ONE, "a.g3"), (TWO, "b.g3"), (THREE, "a.g3"), (THREE, "a.g3x"))
    manifest.drop_line(bag_fd, "a.g3")
    left = (root / MANIFEST).read_text()
    assert left == f"{TWO}  data/b.g3\n{THREE}  data/a.g3x\n"
    manifest.drop_line(bag_fd, "not there")
    assert (root / MANIFEST).read_text() == left


def test_dropping_a_line_can_be_cut_off_anywhere(
    root: Path, bag_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is the old or the new one."""
    before = write_lines(root, (ONE, "a.g3"), (TWO, "b.g3"), (THREE, "c.g3"))
    after = before[:140] + before[280:]

    def drop() -> None:
        assert (root / MANIFEST).read_bytes() in (before, after)
        write_lines(root, (ONE, "a.g3"), (TWO, "b.g3"), (THREE, "c.g3"))
        manifest.drop_line(bag_fd, "b.g3")

    assert killed_at_every_step(monkeypatch, drop) >= 6
    assert (root / MANIFEST).read_bytes() == after


def test_a_line_that_a_crash_tore_is_cut(root: Path, bag_fd: int) -> None:
    """Wherever it was torn, whole lines stay, and nothing else; a second mend cuts nothing."""
    whole = write_lines(root, (ONE, "a.g3"), (TWO, NAME), (THREE, "é.g3"))
    ends = [0, 140, 140 + 164 + 3, len(whole)]
    for length in (*range(0, len(whole), 23), *ends, *(end - 1 for end in ends[1:])):
        (root / MANIFEST).write_bytes(whole[:length])
        manifest.cut_torn_line(bag_fd)
        left = (root / MANIFEST).read_bytes()
        assert whole.startswith(left)
        assert left.count(b"\n") == whole[:length].count(b"\n")
        assert left == b"" or left.endswith(b"\n")
        manifest.cut_torn_line(bag_fd)
        assert (root / MANIFEST).read_bytes() == left


def test_the_zeros_that_a_power_cut_leaves_are_cut(root: Path, bag_fd: int) -> None:
    """A file may have grown without its bytes having arrived."""
    whole = write_lines(root, *((ONE, f"{number}.g3") for number in range(1000)))
    (root / MANIFEST).write_bytes(whole + bytes(12_000))
    manifest.cut_torn_line(bag_fd)
    assert (root / MANIFEST).read_bytes() == whole


DAMAGE = {
    "an upper-case digit": f"{'A' * 128}  data/a.g3\n",
    "a digit too few": f"{ONE[1:]}  data/a.g3\n",
    "a digit too many": f"{ONE}1  data/a.g3\n",
    "one space": f"{ONE} data/a.g3\n",
    "a tab": f"{ONE}\tdata/a.g3\n",
    "binary mode": f"{ONE} *data/a.g3\n",
    "not below data": f"{ONE}  a.g3\n",
    "no name": f"{ONE}  data/\n",
    "a blank line": "\n",
    "a comment": "# hello\n",
    "zeros": "\0" * 140 + "\n",
    "no line end": f"{ONE}  data/a.g3",
    "not UTF-8": f"{ONE}  data/\udcff.g3\n",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_manifest_that_we_did_not_write_is_said_with_its_place(
    root: Path, bag_fd: int, damage: str
) -> None:
    """Nothing is guessed and nothing is rewritten; the lines before it can be read."""
    whole = f"{TWO}  data/é.g3\n".encode() + damage.encode(errors="surrogateescape")
    (root / MANIFEST).write_bytes(whole)
    lines = manifest.read(bag_fd)
    assert next(lines).name == "é.g3"
    said = "manifest-sha512.txt: the text at byte 141 is not a manifest line"
    for reads in (lambda: next(lines), lambda: manifest.drop_line(bag_fd, "é.g3")):
        with pytest.raises(ManifestDamaged) as caught:
            reads()
        assert str(caught.value) == said
    assert (root / MANIFEST).read_bytes() == whole


def test_a_large_manifest_is_read_in_little_memory(root: Path, bag_fd: int) -> None:
    """A million files may be on a disk; lines are handed on one by one."""
    write_lines(root, *((ONE, f"{number}.g3") for number in range(20_000)))
    lines = manifest.read(bag_fd)
    assert [next(lines).name, next(lines).name] == ["0.g3", "1.g3"]
    lines.close()  # type: ignore[attr-defined]
    assert manifest.find_lines(bag_fd, ["19999.g3"])["19999.g3"].sha512 == ONE
