"""The house against its plan: the rooms are those of the one list in pyproject.toml, and nothing points up in it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gateway"

MOST_MODULES = 14
MOST_LINES = 500

ACTING = {"trio", "structlog", "sqlalchemy", "httpx", "hypercorn", "subprocess", "select"}
"""Modules whose docstring calls them pure import none of these."""


@cache
def plan() -> list[list[str]]:
    """Return the floors of the house from the top, each with its rooms."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (rooms,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["gateway"]]
    return [[room.strip() for room in floor.split("|")] for floor in rooms]


@cache
def rooms() -> list[str]:
    return [room for floor in plan() for room in floor]


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(module: ast.Module) -> Iterator[str]:
    """Yield the modules that `module` imports, also inside functions and for type checkers alone."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert not node.level, "imports name their module in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(module: str) -> str | None:
    """Return the room of a module of ours, None for what stands above all rooms or is not ours."""
    first, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if first == "gateway" and room in rooms() else None


def test_the_top_of_the_package_holds_the_rooms_of_the_list_alone() -> None:
    there = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert there == set(rooms())


def test_no_import_points_up_or_to_a_room_on_the_same_floor() -> None:
    floor = {room: number for number, floor in enumerate(plan()) for room in floor}
    wrong = [
        f"{importer} -> {imported}"
        for importer, module in modules().items()
        for imported in imports(module)
        if (own := room_of(importer)) and (other := room_of(imported)) and own != other and floor[other] <= floor[own]
    ]
    assert wrong == []


def test_the_map_for_newcomers_lists_the_rooms_from_the_top() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE) == rooms()


def test_modules_that_call_themselves_pure_import_nothing_that_acts() -> None:
    wrong = [
        f"{name} -> {imported}"
        for name, module in modules().items()
        if re.search(r"\bPure\b", (ast.get_docstring(module) or "").partition("\n\n")[0])
        for imported in imports(module)
        if imported.partition(".")[0] in ACTING or imported.startswith("gateway.core.log.")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "folder",
    [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")],
    ids=lambda path: path.name,
)
def test_a_folder_holds_a_dozen_modules_or_so(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= MOST_MODULES


def test_a_module_is_no_longer_than_one_subject() -> None:
    long = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > MOST_LINES}
    assert long == set()


BUILDERS = {"gateway.config.settings", "gateway.delivery.build"}
"""Modules that make something of a table of the configuration by its kind; all others ask what it can do."""


def kinds_told_apart(module: ast.Module) -> Iterator[int]:
    """Yield the lines that ask for the kind of a source or destination: by class, by `kind`, or for a key that some have."""
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name("isinstance"), args=[_, kind]) if re.search(
                r"\w+Destination|SourceTable", ast.unparse(kind)
            ):
                yield node.lineno
            case ast.Compare(left=ast.Attribute(attr="kind"), comparators=[ast.Constant("dicom" | "folder")]):
                yield node.lineno
            case ast.Call(func=ast.Name("getattr"), args=[ast.Name("table" | "to" | "source" | "destination"), ast.Constant(), *_]):
                yield node.lineno


def test_nothing_but_a_builder_asks_for_the_kind_of_a_destination() -> None:
    asking = {
        name: lines for name, module in modules().items() if (lines := list(kinds_told_apart(module))) and name not in BUILDERS
    }
    assert asking == {}
