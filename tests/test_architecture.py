"""How the code is laid out: the arrows run one way, and each thing has one place."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from poledata import records
from tests.world import CRON_ENVIRONMENT, World

REPO = Path(__file__).parents[1]
LONGEST_MODULE_LINES = 600
LONGEST_FUNCTION_LINES = 40

# The floors, from the ground up: a module imports from its own floor and from those below.
FLOORS = {
    "ground": {"records", "errors", "interpreter", "kinds", "ownership", "texts"},
    "middle": {
        "bag",
        "beneath",
        "buffer",
        "buffer_marker",
        "catalogue",
        "choice",
        "descriptors",
        "config",
        "copying",
        "db",
        "dbfiles",
        "diskmap",
        "driveids",
        "drives",
        "envfile",
        "health",
        "hidden",
        "isolation",
        "lane",
        "lock",
        "manifest",
        "medium",
        "message",
        "mounts",
        "pictures",
        "postman",
        "presence",
        "progress",
        "scribe",
        "sealing",
        "sending",
        "settings",
        "smartjson",
        "support",
        "tally",
        "writers",
    },
    "composers": {
        "adoption",
        "archive",
        "bagreading",
        "batches",
        "batchwork",
        "care",
        "checkup",
        "closing",
        "companion",
        "delivery",
        "diskset",
        "diskwatch",
        "failures",
        "finding",
        "goodcopies",
        "house",
        "identity",
        "inventory",
        "keepsake",
        "leftovers",
        "lifecycle",
        "metrics",
        "notices",
        "packinglist",
        "page",
        "planning",
        "publish",
        "rebuild",
        "removal",
        "repair",
        "report",
        "rereading",
        "restoring",
        "screen",
        "shelf",
        "smartwatch",
        "trends",
        "verdicts",
        "watch",
    },
    "top": {"cli", "commands"},
}
MIDDLE_KNOWS_AT_MOST = 4  # others of the middle
# A command of its own may know more; a pass, which cron starts each minute, loads none of these.
HEAVY = {"apprise", "dotenv", "jinja2", "prometheus_client", "pySMART", "requests", "rich"}
# Where everything may be caught: at a door, and in a thread that hands it on.
CATCH_ALLS = {
    ("poledata/cli.py", "enter"),
    ("poledata/companion.py", "run"),
    ("poledata/isolation.py", "caught"),
    ("poledata/lane.py", "run"),
    ("poledata/postman.py", "main"),
}
# What stands in SQL that is put together: names of ours, and never a value.
IN_SQL = {
    "_THERE_ALONE",
    "DISK_COLUMNS",
    "_MADE_AGAIN",
    "_DUE",
    "NOTICE_COLUMNS",
    "statement",
    "here",
    "which",
    "schema",
    "APPLICATION_ID",
    "SCHEMA_VERSION",
}
SQL = re.compile(r"\b(SELECT|INSERT (OR \w+ )?INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b")

SCRIPTS = sorted(REPO.glob("*.py"))
MODULES = sorted(path for path in (REPO / "poledata").rglob("*.py"))
CODE = [*MODULES, *SCRIPTS]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(REPO))


def module_of(path: Path) -> str:
    """``bag``; of a package, with all that is in it, ``catalogue``; of a script its name."""
    parts = path.relative_to(REPO).with_suffix("").parts
    return parts[min(1, len(parts) - 1)]


def imports(path: Path, anywhere: bool = True) -> Iterator[str]:
    """Dotted names of what is imported, by the module itself or (``anywhere``) inside it."""
    nodes = ast.walk(tree(path)) if anywhere else iter(tree(path).body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: imports are written out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """The modules of ours that this one imports, but for itself."""
    found = {name.split(".")[1] for name in imports(path) if name.startswith("poledata.")}
    scripts = {script.stem for script in SCRIPTS}
    found |= {name.split(".")[0] for name in imports(path)} & scripts
    return (found & (names() | scripts)) - {module_of(path)}


def names() -> set[str]:
    return {module_of(path) for path in MODULES} - {"__init__"}


def floor_of(module: str) -> int:
    """Counted from the ground; one that stands nowhere yet is judged as a composer."""
    numbers = (number for number, floor in enumerate(FLOORS.values()) if module in floor)
    return next(numbers, list(FLOORS).index("composers"))


def in_functions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Each node with the name of the innermost function that it stands in."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        for child in ast.iter_child_nodes(node):
            yield function, child
            yield from walk(child, function)

    return walk(tree(path), "")


def texts(path: Path) -> Iterator[str]:
    """Every string constant that is no docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


# --- the import diagram ---------------------------------------------------------------------


def test_every_module_stands_on_one_floor() -> None:
    """Who adds a module says here on which; a floor has no module that is gone."""
    standing = [module for floor in FLOORS.values() for module in floor]
    assert sorted(standing) == sorted(names())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_arrow_points_upward(path: Path) -> None:
    """The ground knows nothing, the middle no composer, a composer not what is on the screen."""
    if module_of(path) == "__init__":
        assert ours(path) == set()
        return
    above = {other for other in ours(path) if floor_of(other) > floor_of(module_of(path))}
    assert above == set()


def test_only_scripts_know_the_screen() -> None:
    """Nobody below imports cli or a command, and nobody imports a script."""
    scripts = {script.stem for script in SCRIPTS}
    knowing = {module_of(path) for path in CODE if ours(path) & {*FLOORS["top"], *scripts}}
    assert knowing <= {"commands", *scripts}
    assert not any(ours(path) & scripts for path in CODE)


def test_the_modules_can_be_put_in_an_order() -> None:
    """No circle of imports, not even a late one."""
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        arrows.setdefault(module_of(path), set()).update(ours(path))
    tuple(TopologicalSorter(arrows).static_order())  # raises CycleError


@pytest.mark.parametrize("module", sorted(FLOORS["middle"]))
def test_a_module_of_the_middle_knows_hardly_another(module: str) -> None:
    """It is a thing of its own, to be read and tested by itself."""
    known = set().union(*(ours(path) for path in MODULES if module_of(path) == module))
    assert len(known & FLOORS["middle"]) <= MIDDLE_KNOWS_AT_MOST


# --- one place for each thing ---------------------------------------------------------------


def _is_sqls(path: Path) -> bool:
    return module_of(path) in {"catalogue", "db", "dbfiles"}


def test_sql_stands_in_the_catalogue_alone() -> None:
    """And in db.py and dbfiles.py, which open and make databases."""
    found = {
        name_of(path): text
        for path in CODE
        if not _is_sqls(path)
        for text in texts(path)
        if SQL.search(text)
    }
    assert found == {}


def test_nobody_else_speaks_to_sqlite() -> None:
    """Neither the module nor a statement of it."""
    for path in CODE:
        if not _is_sqls(path):
            assert "sqlite3" not in set(imports(path)), name_of(path)
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Attribute):
                    assert not node.attr.startswith("execute"), name_of(path)


def test_no_value_is_ever_put_into_sql() -> None:
    """Only names of ours: columns, a condition, the schema and its version."""
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if _is_sqls(path) and isinstance(node, ast.Call) and _is_execute(node):
                statement = node.args[0]
                assert isinstance(statement, (ast.Constant, ast.JoinedStr)), name_of(path)
                for part in ast.walk(statement):
                    assert not isinstance(part, (ast.Call, ast.BinOp)), name_of(path)
                    if isinstance(part, ast.Name):
                        assert part.id in IN_SQL, name_of(path)


def _is_execute(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr.startswith("execute")


def test_click_is_for_the_screen_alone() -> None:
    """Below cli.py and the commands nobody knows of options or exits."""
    knowing = {module_of(path) for path in CODE for name in imports(path) if name == "click"}
    assert knowing <= FLOORS["top"] | {script.stem for script in SCRIPTS}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                may_print = module_of(path) in {"cli", "interpreter"}
                assert node.func.id != "print" or may_print, name_of(path)
                assert node.func.id not in {"exit", "quit"}, name_of(path)


def test_only_the_door_catches_everything() -> None:
    """Elsewhere a defect passes; who must tidy up first raises it again."""
    found = set()
    for path in CODE:
        for function, node in in_functions(path):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node):
                last = node.body[-1]
                if not (isinstance(last, ast.Raise) and last.exc is None):
                    found.add((name_of(path), function))
    assert found == CATCH_ALLS


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(caught & {"Exception", "BaseException"})


def test_records_never_change() -> None:
    """What modules hand to each other is frozen, and has only the fields it says."""
    for name, record in vars(records).items():
        if isinstance(record, type) and dataclasses.is_dataclass(record):
            assert record.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
            assert "__slots__" in vars(record), name


# --- what cron loads each minute ------------------------------------------------------------


@pytest.mark.parametrize("script", [script.stem for script in SCRIPTS])
def test_what_cron_starts_loads_nothing_heavy(script: str) -> None:
    """Whatever a person's command needs beside the core is imported when it is used."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys, {script}; print(*sys.modules)"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY & {name.partition(".")[0] for name in ran.stdout.split()} == set()


def test_a_pass_with_nothing_to_do_loads_nothing_that_copies(world: World) -> None:
    """Nor what hashes, closes, renders or sends: what each minute costs is paid for years."""
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0)
    modules = loaded_by(world.run_pass(check=0, env={"PYTHONPROFILEIMPORTTIME": "1"}).err)
    assert {"poledata.archive", "poledata.watch"} <= modules
    bare = [sys.executable, "-X", "importtime", "-c", "import click"]  # on 3.10 subprocess too
    modules -= loaded_by(subprocess.run(bare, capture_output=True, text=True, check=True).stderr)
    idle = {"copying", "lane", "medium", "bag", "shelf", "removal", "closing", "sealing"}
    idle |= {"identity", "lifecycle", "report", "page", "metrics", "screen", "postman", "diskmap"}
    assert modules & {"hashlib", "ctypes", "subprocess", *(f"poledata.{m}" for m in idle)} == set()


def loaded_by(importtime: str) -> set[str]:
    """The modules that Python says it loaded (``-X importtime``)."""
    return set(re.findall(r"\| +([\w.]+)$", importtime, re.MULTILINE))


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_heavy_is_imported_at_the_top_of_a_module(path: Path) -> None:
    """But where it is what the module is for, and nobody imports that one at its top."""
    heavy = HEAVY & {name.partition(".")[0] for name in imports(path, anywhere=False)}
    if heavy:
        late = {
            name
            for other in CODE
            for name in imports(other, anywhere=False)
            if name.startswith(f"poledata.{module_of(path)}")
        }
        assert late == set(), f"{name_of(path)} imports {heavy}"


def test_a_pass_needs_nothing_but_the_core(world: World) -> None:
    """Without rich, apprise, jinja2 and the rest, or with broken ones, files are archived."""
    broken, quick = world.root / "broken", CRON_ENVIRONMENT["PYTHONPATH"]
    broken.mkdir()
    for name in HEAVY - {"dotenv"}:
        (broken / f"{name}.py").write_text("raise ImportError('broken')")
    world.put("a.g3")
    world.generate()
    world.run_pass(check=0, env={"PYTHONPATH": f"{broken}:{quick}"})
    assert world.waiting() == set()


# --- sizes and shapes -----------------------------------------------------------------------


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_a_module_is_a_small_room(path: Path) -> None:
    """One can keep it in mind."""
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE_LINES


def test_functions_are_short() -> None:
    """Half of them fit in 10 lines, nine in ten in 25, and none is longer than a page."""
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in CODE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 25
    assert lengths[-1] <= LONGEST_FUNCTION_LINES


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_a_modules_first_line_says_what_it_is_for(path: Path) -> None:
    """One sentence that begins on the first line."""
    said = ast.get_docstring(tree(path))
    assert said and len(said.splitlines()[0]) > 20


# --- what is installed ----------------------------------------------------------------------


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    return setup


def test_the_tests_have_all_that_the_page_needs() -> None:
    """Else its tests would be skipped, or see another version."""
    extras = _setup()["options.extras_require"]
    assert set(extras["page"].split("\n")) <= set(extras["test"].split("\n"))


def test_every_dependency_has_bounds_on_both_sides() -> None:
    """A new major version of another's package is not tried out at the Pole."""
    setup = _setup()
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    for line in filter(None, "\n".join(lists).split("\n")):
        assert re.match(r"[\w-]+>=[\d.]+,<[\d.]+(;|$)", line), line


def test_every_package_script_and_data_file_is_installed() -> None:
    """What is missing in setup.cfg works in the repository, and nowhere else."""
    setup = _setup()
    packages = {
        ".".join(path.parent.relative_to(REPO).parts)
        for path in MODULES
        if path.name == "__init__.py"
    }
    assert set(setup["options"]["packages"].split()) == packages
    assert set(setup["options"]["py_modules"].split()) == {script.stem for script in SCRIPTS}
    commands = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    assert {line.replace(" ", "") for line in commands} == {
        f"{script.stem}={script.stem}:main" for script in SCRIPTS
    }
    data = {path.name for path in (REPO / "poledata").iterdir() if path.is_file()}
    data -= {path.name for path in MODULES}
    assert set(setup["options.package_data"]["poledata"].split()) == data


def test_everything_that_is_imported_is_the_standard_librarys_ours_or_named() -> None:
    """No dependency comes in by another's door."""
    setup = _setup()
    text = setup["options"]["install_requires"] + setup["options.extras_require"].get("page", "")
    named = {re.split(r"[<>=;\s]", line)[0].lower() for line in text.split("\n") if line}
    packages = {"dotenv": "python-dotenv", "prometheus_client": "prometheus-client"}
    for path in CODE:
        for name in imports(path):
            top = name.partition(".")[0]
            known = {"poledata", *(script.stem for script in SCRIPTS), *sys.stdlib_module_names}
            if top not in known:
                assert packages.get(top, top).lower() in named, f"{name_of(path)}: {top}"
