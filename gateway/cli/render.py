"""How numbers and tables look on a terminal; pure but for the printing at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UID_COLUMNS = frozenset({"study", "instance", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"})
"""Columns that people copy from."""

UNWRAPPED = 4000
"""Wide enough for any row."""

_BYTES = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Return `count` bytes in words, with decimal prefixes."""
    for unit in _BYTES[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_BYTES[-1]}"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if hours < 1:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


def moment(timestamp: float | None) -> str:
    """Return UTC seconds since the epoch as local date and time."""
    return "-" if timestamp is None else datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def states(counts: Mapping[str, int]) -> str:
    """Return states and their numbers in one line."""
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "-"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def console() -> Console:
    """Return what commands print text on: standard output, as wide as the terminal, a line a row where there is none."""
    return Console(width=None if sys.stdout.isatty() else UNWRAPPED, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table whose cells are plain text, never markup: they hold what peers sent. UIDs stay in one piece."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold", header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in UID_COLUMNS)
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def printable(text: str) -> str:
    """Return `text` without control characters: a peer's value must not steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def print_json(document: Any) -> None:
    """Write one JSON document on one line of standard output, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()
