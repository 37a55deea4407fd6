"""The documents say what the code does: nothing is missing, nothing is made up, every link leads
somewhere, and the commands run."""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path

import click
import pytest

from poledata.errors import ExitCode
from poledata.models import Severity
from poledata.notices.kinds import DIGEST, KINDS, SEVERITIES
from poledata.settings import KEYS
from poledata.smart.ids import Identity
from poledata.smart.rules import Change
from poledata.smart.table import DriveRow
from tests.helpers import reference
from tests.helpers.documents import OPERATORS, REFERENCE, codes, first_codes, rows, section
from tests.helpers.reference import SCRIPTS, commands
from tests.helpers.source_code import LAYERS
from tests.helpers.world import REPO

README = (REPO / "README.md").read_text()
CARD = (REPO / "docs/card.md").read_text()
DATABASE = (REPO / "docs/database.md").read_text()
DESIGN = (REPO / "docs/design.md").read_text()
PAGES = sorted((*REPO.glob("*.md"), *REPO.glob("docs/*.md")))
TEXTS = sorted((*PAGES, *REPO.glob("examples/*"), REPO / ".env.example", *REPO.glob("*.config")))
MODULES = sorted(REPO.glob("poledata/**/*.py"))
SOURCES = sorted((*MODULES, *(REPO / name for name in SCRIPTS)))
# Where the documents put things: the first part of every absolute path in them.
PLACES = {"opt", "var", "etc", "usr", "sbin", "bin", "proc", "dev", "mnt"}

PLACES |= {"buffer", "spt_data", "spt_disks", "root"}

CONFIG = ["--config", "/opt/spt/spt.config"]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

# --- commands, options, exit codes -------------------------------------------------------


def options_of(command: click.Command) -> set[str]:
    context = click.Context(command)
    params = command.get_params(context)
    return {name for p in params if isinstance(p, click.Option) for name in p.opts}


def documented_options() -> dict[str, set[str]]:
    """Command → its options by the reference: those of every command, and its own."""
    found: dict[str, set[str]] = {name: set() for name, _ in commands()}
    for names, of, _ in rows(section(REFERENCE, "### Options of every command")):
        for name in found:
            if (name in codes(of)) != of.startswith("all"):
                found[name].update(codes(names))
    for name, options in found.items():
        options.update(first_codes(section(REFERENCE, f"### {name}")))
    return found


def test_the_reference_is_as_the_code_makes_it() -> None:
    """Otherwise: make reference."""
    assert reference.current(REFERENCE) == REFERENCE


def test_every_command_is_in_the_table_and_no_other() -> None:
    """With its arguments, as its own help shows them."""
    told = first_codes(section(REFERENCE, "## Commands").split("\n### ")[0])
    known = []
    for name, command in commands():
        arguments = [str(p.metavar) for p in command.params if isinstance(p, click.Argument)]
        known.append(" ".join([name, *arguments]))
    assert told == known


def test_every_option_is_in_the_tables_and_no_other() -> None:
    """Also which command takes it."""
    assert documented_options() == {name: options_of(command) for name, command in commands()}


def test_the_readme_is_short_and_begins_with_what_to_type_first() -> None:
    """A new user reads it to its end; everything else is in the reference."""
    assert len(README.split()) <= 2500
    first = re.search(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert first and re.findall(r"^make \w+", first[1], re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_that_are_mentioned_exist(page: Path) -> None:
    """``data_manager.py X`` is a sub-command of today, and its options are options of it.

    ``dm X`` in the operators' page is short for it.
    """
    known = dict(commands())
    text, _, _ = page.read_text().partition("## Recipes for a first change")
    text = re.sub(r"\bdm (?=[a-z-])", "data_manager.py ", text)
    scripts = "|".join(re.escape(name) for name in SCRIPTS)
    for span in re.findall(rf"(?:{scripts})[^`\n#;&|)─]*", text):
        script, *words = re.sub(
            "(--(?:config|disk-map|db|log-file)) [^ -][^ ]*", r"\1", span
        ).split()
        command = SCRIPTS[script.rstrip(":,.")]
        taken = options_of(command)
        subs = [word for word in words if not word.startswith("-")]
        if subs and isinstance(command, click.Group):
            assert f"{script} {subs[0]}" in known, span
            taken |= options_of(known[f"{script} {subs[0]}"])
        assert {word for word in words if word.startswith("-")} <= taken, span


def test_every_exit_code_is_explained_and_no_other() -> None:
    """In the reference's table."""
    told = [int(row[0]) for row in rows(section(REFERENCE, "## Exit codes"))]
    assert told == sorted(code.value for code in ExitCode)


# --- configuration -----------------------------------------------------------------------


def test_every_key_and_its_default_stand_in_the_table_and_no_other() -> None:
    """In the order of the code."""
    told = [(codes(key)[0], default.strip("`")) for key, default, _ in key_rows()]
    assert told == [(key.name, key.default or "required") for key in KEYS]


def test_a_key_that_nothing_uses_is_called_so() -> None:
    """``not used yet`` ends on the day on which it is used."""
    code = "".join(p.read_text() for p in SOURCES if p.stem not in ("config", "settings"))
    known_here = {"mount_patterns", "primary_prefix", "copy_prefix"}  # behind methods of Config
    unused = {k.name for k in KEYS if f".{k.sets}" not in code and k.sets not in known_here}
    assert {codes(row[0])[0] for row in key_rows() if "not used yet" in row[2]} == unused


def key_rows() -> list[list[str]]:
    return rows(section(REFERENCE, "## Configuration").partition("\n### ")[0])


def test_the_secrets_are_those_of_the_sample() -> None:
    """The reference and .env.example name the same variables, and the code knows them."""
    told = set(first_codes(section(REFERENCE, "### Secrets")))
    assert told == set(re.findall(r"^#(POLE_\w+)=", (REPO / ".env.example").read_text(), re.M))
    code = "".join(path.read_text() for path in SOURCES)
    assert all(f'"{name}"' in code for name in told)


def test_the_example_for_real_disks_loads_where_its_directories_exist(tmp_path: Path) -> None:
    """As it is shipped, but for the places."""
    from poledata import config

    text = (REPO / "examples/spt.config").read_text()
    for place in ("/var/lib/pole-data", "/buffer", "/spt_disks"):
        here = tmp_path / place.rpartition("/")[2]
        here.mkdir()
        text = re.sub(rf"(= ?){place}\b", rf"\g<1>{here}", text)
    copy = tmp_path / "spt.config"
    copy.write_text(text)
    loaded = config.load(copy, {})
    assert loaded.require_mount and loaded.delete_from_buffer
    assert loaded.mount_points("P01") == (tmp_path / "spt_disks/P01",)


def test_the_crontab_line_names_what_exists() -> None:
    """The interpreter of the documented virtual environment, a script of ours, its config."""
    text = (REPO / "examples/crontab").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("*"))
    assert line in README
    assert "%" not in line
    python, script, option, config = line.split()[5:]
    assert (python, option) == ("/opt/spt/venv/bin/python", "--config")
    assert (REPO / script.removeprefix("/opt/spt/")).is_file()
    assert (REPO / "examples" / config.removeprefix("/opt/spt/")).is_file()


@pytest.mark.parametrize("example", ["sudoers", "crontab"])
def test_what_root_is_to_run_exists(example: str) -> None:
    """And root runs exactly that: no argument is left open to who may not be root."""
    lines = (REPO / "examples" / example).read_text().splitlines()
    scripts = [line for line in lines if "/get_" in line]
    for line in scripts:
        python, script, *arguments = line[line.index("/opt/spt/venv") :].split()
        assert python == "/opt/spt/venv/bin/python" and "*" not in "".join(arguments)
        assert (REPO / script.removeprefix("/opt/spt/")).is_file()
        assert arguments in (['""'], CONFIG, [*CONFIG, "--quiet"])
    assert len(scripts) == {"sudoers": 2, "crontab": 1}[example]


# --- notices -----------------------------------------------------------------------------


def sections_that_messages_name() -> set[str]:
    """Every ``See KIND in docs/operators.md`` of the code that is no notice's."""
    code = "".join(path.read_text() for path in SOURCES)
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    return set(re.findall(r"[Ss]ee ([a-z-]+) in docs/operators\.md", code))


def test_every_kind_of_notice_has_its_section_and_no_other() -> None:
    """Named exactly as the kind, for the message sends people there."""
    kinds = re.findall(r"^## ([a-z][a-z-]+)$", OPERATORS, re.MULTILINE)
    assert sorted(kinds) == sorted({*SEVERITIES, *sections_that_messages_name()})


def test_every_kind_stands_in_the_table_with_its_severity() -> None:
    """And no other kind does."""
    told = {
        codes(kind)[0]: severity for kind, severity, _ in rows(section(OPERATORS, "## Notices"))
    }
    assert told == {kind: severity.value for kind, severity in SEVERITIES.items()}


@pytest.mark.parametrize("kind", sorted({*SEVERITIES, *sections_that_messages_name()}))
def test_a_section_says_what_it_means_what_is_safe_and_what_to_do(kind: str) -> None:
    """In this order; the steps are numbered."""
    text = section(OPERATORS, f"## {kind}")
    places = [text.find(part) for part in ("**What it means.**", "**What is safe.**", "\n1. ")]
    assert -1 not in places
    assert places == sorted(places)


# --- the card for the rack ---------------------------------------------------------------


def test_the_card_has_every_notice_the_most_urgent_first_and_no_other() -> None:
    """With the words of a mail's subject; a digest asks for nothing."""
    told = {codes(row[2])[0]: row[0].strip("…: ") for row in rows(section(CARD, "## A mail"))}
    headlines = {kind: KINDS[kind].headline for kind in KINDS if kind != DIGEST}
    headlines["database-error"] = told["database-error"]  # its subject says more
    assert told == headlines
    order = [list(Severity).index(SEVERITIES[kind]) for kind in told]
    assert order == sorted(order)


def test_the_card_fits_one_printed_page() -> None:
    """As many lines of 4.5 mm as a page of A4 or Letter has with a table's rows of one line."""
    lines = [line for line in CARD.splitlines() if line]
    assert len(lines) <= 58
    assert len(CARD.split()) <= 850


# --- the database ------------------------------------------------------------------------


def schema() -> dict[str, list[str]]:
    """Table or view → its columns, as the database itself knows them."""
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript((REPO / "poledata/db/schema.sql").read_text())
        tables = conn.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        return {
            name: [row[1] for row in conn.execute(f"PRAGMA table_info({name})")]
            for (name,) in tables.fetchall()
        }


def test_every_table_and_column_is_explained_and_no_other() -> None:
    """In the order of the schema."""
    tables = section(DATABASE, "## Tables")
    headings = re.findall(r"^### (\w+)$", tables, re.MULTILINE)
    assert {name: first_codes(section(tables, f"### {name}")) for name in headings} == schema()


# --- JSON --------------------------------------------------------------------------------


def test_the_keys_of_what_is_said_of_drives_are_those_of_the_tables() -> None:
    """``get_drive_IDs.py``, ``get_SMART_status.py`` and its ``--history``: in their order."""
    _, *texts = re.split(r"^`.*\.py.* --json`", section(REFERENCE, "## JSON"), flags=re.MULTILINE)
    for text, record in zip(texts[6:], (Identity, DriveRow, Change), strict=True):
        assert set(first_codes(text)) == {field.name for field in dataclasses.fields(record)}


# --- disks, modules ----------------------------------------------------------------------


def diagrams(text: str) -> list[list[str]]:
    """The indented blocks of a text, a diagram each, as lines."""
    blocks = groupby(text.split("\n"), key=lambda line: line.startswith("    "))
    return [[line[4:] for line in lines] for is_indented, lines in blocks if is_indented]


def in_columns(diagram: list[str]) -> Iterator[str]:
    """Its modules: two columns, and in each the modules of a package are below it, indented."""
    second = max(match.start() for line in diagram if (match := re.search(r"\w+/$", line)))
    for column in ([line[:second] for line in diagram], [line[second:] for line in diagram]):
        package = ""
        for line in column:
            if match := re.fullmatch(r"(\w+/) *", line):
                package = match[1]
            elif match := re.match(r"(  )?(\w+) +\S", line):
                yield f"{package}{match[2]}" if match[1] else match[2]


def test_every_module_is_in_a_diagram_once_and_no_other() -> None:
    """Below its package, with what it is for."""
    packages = [d for d in diagrams(section(DESIGN, "## The modules")) if re.match(r"\w+/", d[0])]
    modules = [path.relative_to(REPO / "poledata").with_suffix("") for path in MODULES]
    named = [
        name for diagram in packages if diagram[0].count("/") == 2 for name in in_columns(diagram)
    ]
    assert sorted(named) == sorted(str(path) for path in modules if path.name != "__init__")


def test_the_layers_are_those_that_imports_keep_to() -> None:
    """From the top; the scripts above all."""
    scripts, *layers = diagrams(section(DESIGN, "## The modules"))[0]
    assert {f"{name}.py" for name in re.findall(r"\w+_\w+", scripts)} == SCRIPTS.keys()
    named = [set(re.split(r" +", line.partition("    " * 2)[0])) for line in layers]
    assert named == [set(layer) for layer in reversed(LAYERS)]


@pytest.mark.parametrize("heading", ["## A file's way", "## The modules"])
def test_each_diagram_names_what_exists_and_is_on_one_screen(heading: str) -> None:
    """``package/module``."""
    for diagram in diagrams(section(DESIGN, heading)):
        assert len(diagram) <= 40 and max(map(len, diagram)) <= 100
        for path in re.findall(r"\b[a-z]\w+/[a-z]\w+\b", "\n".join(diagram)):
            assert (REPO / "poledata" / f"{path}.py").is_file(), path


# --- links, paths, commands that run -----------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative ones: the file is there, and in it the heading."""
    text = FENCED.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match("https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there.read_text()), target


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.name)
def test_no_page_names_a_place_of_one_machine(page: Path) -> None:
    """Absolute paths are those of the documented installation, or of every system."""
    found = re.findall(r"(?<![\w.>~*/:}%\]-])/([A-Za-z_][\w.-]*)", page.read_text())
    assert set(found) <= PLACES, sorted(set(found) - PLACES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_tests_that_are_named_exist(page: Path) -> None:
    """``test_pass.py::test_…``, ``test_pass``, and files of tests and campaigns."""
    for name in re.findall(r"`(test_\w+)(?:\.py)?`", page.read_text()):
        assert list((REPO / "tests").rglob(f"{name}.py")), name
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text()):
        found = "".join(path.read_text() for path in (REPO / "tests").rglob(file))
        assert f"\ndef {test}(" in found, test
    for file in re.findall(r"\b(tests/[\w/]+\.\w+)", page.read_text()):
        assert (REPO / file).exists(), file


def test_the_make_targets_that_are_named_exist() -> None:
    """``make demo`` and its brothers."""
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        code = re.findall(
            r"(?:^    |`(?:\S+=\S+ )?)make ([a-z-]+)\b", page.read_text(), re.MULTILINE
        )
        assert set(code) <= targets, page.name
