"""Numbers and tables as a terminal shows them; pure but for the printing at the end."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import typer

from gateway.core.domain import printable as printable  # noqa: PLC0414 - what is shown is made so by whoever shows it

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


@dataclass(frozen=True)
class Table:
    """Rows of plain text under `columns`: cells hold what peers sent, and are never taken for markup.

    Where a line would be wider than the terminal, the columns in `apart` move to lines of their own below their row, the first
    named first, until the rest fits, and are continued on further lines between words. No word is ever broken: a UID can be copied.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    apart: Sequence[str] = ()


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines of prose on standard output or standard error; on a terminal they are continued between words."""
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else None
    typer.echo("\n".join(part for line in text.split("\n") for part in wrapped(line, width)), err=err)


def wrapped(line: str, width: int | None) -> list[str]:
    """Return the lines into which `line` is to be continued between words, indented, to be `width` columns wide at most; pure."""
    if width is None or len(line) <= width:
        return [line]
    indent = _GAP + " " * (len(line) - len(line.lstrip(" ")))
    return textwrap.TextWrapper(
        max(width, 2 * len(indent)),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    ).wrap(line)


def show(*tables: Table) -> None:
    """Print tables on standard output, as wide as the terminal; not bounded where there is none."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for table in tables:
        lines = layout(table, width)
        if table.title:
            typer.secho(table.title, bold=True)
        if any(table.columns):
            typer.secho(lines.pop(0), dim=True)
        if lines:
            typer.echo("\n".join(lines))


def layout(table: Table, width: int | None) -> list[str]:
    """Return the lines of `table`, its heading first if it has one, for a terminal `width` columns wide (None: no limit); pure."""
    from rich.cells import cell_len

    columns = [printable(column) for column in table.columns]
    rows = [[printable(cell) for cell in row] for row in table.rows]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    kept = list(range(len(columns)))
    moved: list[int] = []
    for column in table.apart:
        if width is None or sum(widths[at] for at in kept) + len(_GAP) * (len(kept) - 1) <= width:
            break
        if column in columns:
            moved.append(columns.index(column))
            kept.remove(moved[-1])
    lines = [_line(columns, widths, kept)] if any(columns) else []
    for row in rows:
        lines.append(_line(row, widths, kept))
        for at in sorted(moved):
            if row[at] not in {"", "-"}:
                below = f"{_GAP}{columns[at]}: {row[at]}"
                lines += wrapped(below, width) if " " in row[at] else [below]
    return lines


_GAP = "  "


def _line(cells: Sequence[str], widths: Sequence[int], kept: Sequence[int]) -> str:
    from rich.cells import cell_len

    return _GAP.join(cells[at] + " " * (widths[at] - cell_len(cells[at])) for at in kept).rstrip()


def print_json(document: Any) -> None:
    """Write one JSON document on one line of standard output, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()
