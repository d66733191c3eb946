"""Names of tests: statements that fit on a line of the test report."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
LENGTH = 70
"""Length from which a name is too long: a statement of one behaviour is shorter."""


def functions(path: Path) -> Iterator[str]:
    """Names of the test functions and methods in `path`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def test_names_of_tests_are_shorter_than_70_characters() -> None:
    names = [(str(path.relative_to(TESTS)), name) for path in sorted(TESTS.rglob("test_*.py")) for name in functions(path)]
    assert len(names) > 1000
    assert [(path, name) for path, name in names if len(name) >= LENGTH] == []
