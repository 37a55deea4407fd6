"""How the code is laid out: the arrows run one way, and each thing has one place."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from poledata import models
from tests.helpers.source_code import HEAVY, LAYERS, module_of
from tests.helpers.world import REPO

LONGEST_MODULE_LINES = 600
LONGEST_FUNCTION_LINES = 40
LAYER_OF = {package: number for number, layer in enumerate(LAYERS) for package in layer}
MOST_MODULES_IN_A_FOLDER, MOST_AT_THE_TOP = 15, 12
# Where everything may be caught: at a door, and in a thread that hands it on.
CATCH_ALLS = {
    ("poledata/cli/app.py", "enter"),
    ("poledata/cli/background.py", "run"),
    ("poledata/notices/defects.py", "caught"),
    ("poledata/archive/copier.py", "run"),
    ("poledata/notices/send_child.py", "main"),
    ("poledata/system/privileges.py", "_serve"),
    ("poledata/smart/smartctl.py", "_with_pysmart"),  # text that pySMART cannot read
}
# What stands in SQL that is put together: names of ours, and never a value.
IN_SQL = {
    "_THERE_ALONE",
    "DISK_COLUMNS",
    "_MADE_AGAIN",
    "_BAD",
    "_EXPECTED",
    "_DUE",
    "_COPY",
    "_FILES",
    "_CHECKS",
    "_DELIVERIES",
    "_NOTE_ARCHIVED",
    "NOTICE_COLUMNS",
    "_CONFIRMED",
    "_ELSEWHERE",
    "_SHIPMENTS",
    "_RECEIPTS",
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


def package_of(path: Path) -> str:
    """``disks``; of a module at the top of the package, and of a script, its own name."""
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


@cache
def ours(path: Path) -> frozenset[str]:
    """The modules of ours that this one imports, but for itself."""
    known = {module_of(other) for other in CODE}
    found = set()
    for name in imports(path):
        found |= {name, name.rpartition(".")[0]} & known
    return frozenset(found - {module_of(path), "poledata"})


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


# --- the layers -----------------------------------------------------------------------------


def test_every_package_is_on_one_layer() -> None:
    """Who adds a package says here on which; a layer names no package that is gone."""
    found = {package_of(path) for path in MODULES} - {"__init__"}
    assert sorted(package for layer in LAYERS for package in layer) == sorted(found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_imports_only_from_layers_below_its_own(path: Path) -> None:
    """So a reader who knows the lower ones needs no other."""
    if package_of(path) == "__init__":
        assert ours(path) == set()
        return
    used = {name.split(".")[1] for name in ours(path)} - {package_of(path)}
    above = {other for other in used if LAYER_OF[other] >= LAYER_OF[package_of(path)]}
    assert above == set()


def test_nobody_imports_a_script() -> None:
    """They are the entries: what two of them need is in the package."""
    scripts = {script.stem for script in SCRIPTS}
    assert not any(ours(path) & scripts for path in CODE)


def test_the_modules_can_be_put_in_an_order() -> None:
    """No circle of imports, not even a late one."""
    arrows = {
        module_of(path): {name for name in ours(path) if name != "poledata.db"} for path in MODULES
    }
    tuple(TopologicalSorter(arrows).static_order())  # raises CycleError


def test_no_folder_is_crowded() -> None:
    """A newcomer reads the names of a folder at one glance."""
    folders = Counter(path.parent for path in MODULES)
    assert folders.pop(REPO / "poledata") <= MOST_AT_THE_TOP
    assert max(folders.values()) <= MOST_MODULES_IN_A_FOLDER


def test_no_two_classes_have_one_name() -> None:
    """Whoever searches for a name finds one class."""
    names = Counter(
        node.name for path in CODE for node in tree(path).body if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_star_is_imported(path: Path) -> None:
    """A reader sees where each name comes from."""
    assert not any(name.endswith(".*") for name in imports(path))


# --- one place for each thing ---------------------------------------------------------------


def _is_sqls(path: Path) -> bool:
    return package_of(path) == "db"


def test_sql_stands_in_the_package_db_alone() -> None:
    """Who changes a table looks in one place."""
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
    """Below cli nobody knows of options or exits."""
    knowing = {package_of(path) for path in CODE for name in imports(path) if name == "click"}
    assert knowing <= {"cli", *(script.stem for script in SCRIPTS)}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                may_print = package_of(path) == "cli"
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
    for name, record in vars(models).items():
        if isinstance(record, type) and dataclasses.is_dataclass(record):
            assert record.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
            assert "__slots__" in vars(record), name


# --- what cron loads each minute ------------------------------------------------------------


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_heavy_is_imported_at_the_top_of_a_module(path: Path) -> None:
    """But where it is what the module is for, and nobody imports that one at its top."""
    heavy = HEAVY & {name.partition(".")[0] for name in imports(path, anywhere=False)}
    if heavy:
        late = {
            name
            for other in CODE
            for name in imports(other, anywhere=False)
            if name == module_of(path) or name.startswith(f"{module_of(path)}.")
        }
        assert late == set(), f"{name_of(path)} imports {heavy}"


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
    for package in packages:
        folder = REPO / package.replace(".", "/")
        data = {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
        assert set(setup["options.package_data"].get(package, "").split()) == data


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


TEST_FILES = sorted((REPO / "tests").rglob("test_*.py"))


def test_no_test_file_imports_another() -> None:
    """What tests share is in tests/helpers, or with the campaigns."""
    for path in TEST_FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, "module", None) or ""]
            names += (
                [a.name for a in node.names]
                if isinstance(node, ast.Import | ast.ImportFrom)
                else []
            )
            assert not any(name.split(".")[-1].startswith("test_") for name in names), path


def test_a_unit_test_is_beside_the_package_that_it_tests() -> None:
    """Folders are those of the product; beside them, what tests the tests' own helpers."""
    folders = {path.name for path in (REPO / "tests/unit").iterdir() if path.is_dir()}
    packages = {path.parent.name for path in (REPO / "poledata").glob("*/__init__.py")}
    assert folders - {"__pycache__"} <= packages | {"helpers"}
