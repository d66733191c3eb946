"""The environment over the file: ``GATEWAY__SECTION__KEY`` replaces a value, ``…_FILE`` names the file of a secret. Pure.

Names are case-insensitive and ``-`` may be written ``_``: ``GATEWAY__DESTINATIONS__ORTHANC_A__PORT`` is the port of
``[destinations.orthanc-a]``. A list is written with commas, or as TOML; a whole table as TOML (``[{name = "ct", …}]``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from gateway.config.schema import ROOT, Holds, KeyPath, Raw, Shape, below, expectation
from gateway.core.errors import Problem

PREFIX = "GATEWAY__"
FILE_SUFFIX = "_file"


def overlay(raw: Raw, environ: Mapping[str, str]) -> tuple[dict[KeyPath, str], list[Problem]]:
    """Put the values of `environ` into `raw`, in place.

    Returns which key paths came from which variable, and the problems of variables that fit nowhere.
    """
    origins: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    # A table's kind decides its other keys, so it comes before them.
    for name in sorted(
        (name for name in environ if name.upper().startswith(PREFIX)), key=lambda name: (not name.upper().endswith("__KIND"), name)
    ):
        placed = _place(raw, name, environ[name])
        if isinstance(placed, Problem):
            problems.append(placed)
        else:
            origins[placed] = name
    return origins, problems


def _place(raw: Raw, name: str, text: str) -> KeyPath | Problem:
    segments = name[len(PREFIX) :].split("__")
    shape, table, path = ROOT, raw, list[str]()
    for position, segment in enumerate(segments):
        key = _key(segment, shape, table)
        if key is None:
            return _unknown(name, segment, shape, table)
        secret_file = key.endswith(FILE_SUFFIX) and key not in shape.fields(table)
        inner = below(shape, key, table) if not secret_file else Shape(Holds.VALUE)
        path.append(key)
        if position == len(segments) - 1:
            return _put(table, key, text, inner or Shape(Holds.VALUE), name) or tuple(path)
        if inner is None or inner.holds not in {Holds.TABLE, Holds.NAMED}:
            return Problem("environment", name, f'"{segments[position + 1]}" below a value', f"nothing more after {segment}")
        shape, table = inner, table.setdefault(key, {})
        if not isinstance(table, dict):
            return Problem("environment", name, f"{'.'.join(path)} is no table", "a table")
    return tuple(path)


def _key(segment: str, shape: Shape, table: Raw) -> str | None:
    """Return the key of `shape` that a variable's `segment` means; None where there is none."""
    wanted = normalized(segment)
    if shape.holds is Holds.NAMED:
        return next((key for key in table if normalized(key) == wanted), segment.lower())
    return next((key for key in _keys(shape, table) if normalized(key) == wanted), None)


def _keys(shape: Shape, table: Raw) -> list[str]:
    fields = shape.fields(table)
    return [*fields, *secret_files(shape, table)]


def secret_files(shape: Shape, table: Raw) -> list[str]:
    """Return the keys ``…_file`` that may stand in `table` beside its secrets."""
    keys = []
    for name in shape.fields(table):
        inner = below(shape, name, table)
        if inner is not None and inner.is_secret:
            keys.append(name + FILE_SUFFIX)
    return keys


def _unknown(name: str, segment: str, shape: Shape, table: Raw) -> Problem:
    return Problem("environment", name, f'unknown key "{segment.lower()}"', suggestion(segment.lower(), _keys(shape, table)))


def suggestion(key: str, known: Iterable[str], otherwise: str = "") -> str:
    """Say which of the `known` keys may have been meant by `key`; where none is close, say `otherwise`, or which there are."""
    names = list(known)
    close = get_close_matches(key, names, n=1)
    return f'a known one: did you mean "{close[0]}"?' if close else otherwise or f"one of {', '.join(names) or 'nothing'}"


def _put(table: Raw, key: str, text: str, shape: Shape, name: str) -> Problem | None:
    try:
        table[key] = _parsed(text, shape)
    except tomllib.TOMLDecodeError:
        return Problem("environment", name, "no valid TOML", expectation(shape))
    # Either form of a secret replaces the other one in the file.
    table.pop(key.removesuffix(FILE_SUFFIX) if key.endswith(FILE_SUFFIX) else key + FILE_SUFFIX, None)
    return None


def _parsed(text: str, shape: Shape) -> Any:
    if shape.holds is Holds.VALUE:
        return text
    if shape.holds is Holds.LIST and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    return tomllib.loads(f"value = {text}")["value"]


def normalized(name: str) -> str:
    """Return the form in which names are compared: lower case, ``-`` as ``_``."""
    return name.lower().replace("-", "_")
