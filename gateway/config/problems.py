"""From what is wrong to what a person reads: where, which key, what was found, what was expected. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.environment import secret_files, suggestion
from gateway.config.lines import line_of
from gateway.config.schema import ROOT, Holds, KeyPath, Raw, Shape, below, dotted, expectation, step
from gateway.core.errors import Problem

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Finding:
    """One thing wrong at a key path, before its place in the file is known."""

    path: KeyPath
    found: str
    expected: str


@dataclass(frozen=True)
class Whereabouts:
    """The origin of the values of a configuration: the file's lines, or environment variables."""

    file: Path
    lines: Mapping[KeyPath, int]
    origins: Mapping[KeyPath, str]

    def problem(self, finding: Finding) -> Problem:
        """Turn a finding into a problem that names its file and line, or its environment variable."""
        variable = self.variable(finding.path)
        line = line_of(finding.path, self.lines)
        where = f"environment variable {variable}" if variable else f"{self.file}:{line}" if line else str(self.file)
        return Problem(where, dotted(finding.path) or "(file)", finding.found, finding.expected)

    def variable(self, path: KeyPath) -> str | None:
        """Return the environment variable that `path` came from, or one of the things that hold it."""
        return next((self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins), None)


def findings(error: ValidationError, raw: Raw) -> Iterator[Finding]:
    """Yield what pydantic found wrong in `raw`, a key path once."""
    seen: set[KeyPath] = set()
    for details in error.errors(include_url=False):
        finding = _finding(details, raw)
        if finding.path not in seen:
            seen.add(finding.path)
            yield finding


def _finding(details: ErrorDetails, raw: Raw) -> Finding:
    path, shape, holder = _place(details["loc"], raw)
    match details["type"]:
        case "extra_forbidden":
            table = step_along(raw, path[:-1])
            known = [*holder.fields(table), *secret_files(holder, table if isinstance(table, dict) else {})]
            return Finding(path, "unknown key", suggestion(str(path[-1]), known))
        case "union_tag_not_found" | "union_tag_invalid":
            return Finding((*path, "kind"), _kind_found(details), _kinds(shape))
        case "missing":
            return Finding(path, "nothing", expectation(shape))
        case "value_error":
            return Finding(path, shown(details["input"], shape), str(details["ctx"]["error"]))
        case "too_short" if shape is not None and shape.holds is Holds.LIST:
            return Finding(path, "an empty list", "at least one")
        case _:
            return Finding(path, shown(details["input"], shape), expectation(shape))


def _kinds(shape: Shape | None) -> str:
    """Say which kinds a table with alternatives may be of."""
    models = shape.models if shape else ()
    kinds = [kind for model in models for kind in get_args(model.model_fields["kind"].annotation)]
    return "one of " + ", ".join(f'"{kind}"' for kind in kinds)


def _kind_found(details: ErrorDetails) -> str:
    given = details["input"]
    return shown(given["kind"], None) if isinstance(given, dict) and "kind" in given else "nothing"


def _place(loc: tuple[int | str, ...], raw: Raw) -> tuple[KeyPath, Shape | None, Shape]:
    """Return the key path of a pydantic location, what may stand there and what holds it.

    Pydantic puts the tags of unions into its locations; they are no part of the path.
    """
    path: list[str | int] = []
    shape: Shape | None = ROOT
    holder = ROOT
    value: object = raw
    for segment in loc:
        if shape is None or (shape.holds is Holds.VALUE and shape.item is None):
            break
        if len(shape.models) > 1 and isinstance(value, dict) and segment == value.get("kind") and segment not in value:
            continue
        holder = shape
        shape, value = below(shape, segment, value), step(value, segment)
        path.append(segment)
    return tuple(path), shape, holder


def step_along(raw: object, path: Iterable[str | int]) -> object:
    """Return what stands at `path` of `raw`, or None."""
    for segment in path:
        raw = step(raw, segment)
    return raw


def shown(value: object, shape: Shape | None = None) -> str:
    """Write a value that was found, shortened; a secret is never shown."""
    if shape is not None and shape.is_secret:
        return "a secret of another type"
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"
