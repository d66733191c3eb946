"""The line of a key in a TOML file, so that a problem can name it. Pure.

`tomllib` keeps no positions, so the file's lines are read once more for table headers and keys. A key inside an inline
table is not found by itself; the line of the key that holds it is the answer.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from gateway.config.schema import KeyPath

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def index_lines(text: str) -> Mapping[KeyPath, int]:
    """Return the line number (from 1) of each table header and key in `text`, which is valid TOML."""
    found: dict[KeyPath, int] = {}
    arrays: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _under_arrays(_segments(header[2]), arrays)
            if header[1] == "[[":
                arrays[table] = arrays.get(table, -1) + 1
                found.setdefault(table, number)
                table = (*table, arrays[table])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault((*table, *_segments(key[1])), number)
    return found


def _segments(dotted: str) -> KeyPath:
    """Return the segments of a dotted key as TOML writes it; none where it is no key after all."""
    try:
        table: object = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str | int] = []
    while isinstance(table, dict):
        ((segment, table),) = table.items()
        path.append(segment)
    return tuple(path)


def _under_arrays(path: KeyPath, arrays: Mapping[KeyPath, int]) -> KeyPath:
    """Put the index of the current element into a path that leads through an array of tables."""
    for length in range(len(path) - 1, 0, -1):
        if path[:length] in arrays:
            return (*path[:length], arrays[path[:length]], *path[length:])
    return path


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    """Return the line of `path`, else of the nearest key or table that holds it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None
