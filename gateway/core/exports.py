"""The names that a room offers at its front door, imported when they are asked for.

A package that re-exports names of its modules imports all of them when it is imported; a command that needs a request's type would
wait for an engine. So the packages that light modules import name here where each name is, and nothing is imported before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazily(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Return a module's ``__getattr__`` (PEP 562) for `package`, whose modules have `names`, by module."""
    where = {name: f"{package}.{module}" for module, some in names.items() for name in some}

    def find(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    return find
