"""Results as JSON, as Markdown and as a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import UNITS, Goal, Result

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

_DIGITS = 3


def document(results: Sequence[Result], *, rounds: int, quick: bool) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "quick": quick,
        "machine": _machine(),
        "rows": [_row(result) for result in results],
    }


def _row(result: Result) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "title": result.row.title,
        "rounds": result.rounds,
        "failures": result.failures,
        "goals": [{"text": goal.text(), "measured": result.measured(goal), "met": _met(result, goal)} for goal in result.row.goals],
    }


def _met(result: Result, goal: Goal) -> bool | None:
    values = result.measured(goal)
    return goal.met(statistics.median(values)) if values else None


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "dcmtk": _said("dcmsend", "--version"),
        "orthanc": _said("/usr/sbin/Orthanc", "--version"),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _said(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError:
        return "none"
    words = (said.strip().splitlines() or ["?"])[0].replace("$", "").split()
    return " ".join(words[:4]).strip(": ")


def markdown(results: Iterable[Result], *, rounds: int, quick: bool) -> str:
    """Return the goals and every party's figures as two tables."""
    results = list(results)
    machine = _machine()
    size = "short runs, not to be published" if quick else "whole data sets"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['cores']} cores ({machine['processor']}), {machine['system']}, "
        f"Python {machine['python']}, {machine['dcmtk']}, {machine['orthanc']}; {rounds} rounds, {size}.",
        "",
        "| work | goal | median | from … to | reached |",
        "|---|---|---|---|---|",
        *(_goal_line(result, goal) for result in results for goal in result.row.goals),
        "",
        f"| work | party | {' | '.join(UNITS)} |",
        "|---|---|" + "---|" * len(UNITS),
        *(line for result in results for line in _party_lines(result)),
    ]
    return "\n".join(lines) + "\n"


def _goal_line(result: Result, goal: Goal) -> str:
    values = result.measured(goal)
    if not values:
        return f"| {result.row.title} | {goal.text()} | – | – | not measured |"
    median = statistics.median(values)
    spread = f"{number(min(values))} … {number(max(values))}"
    return f"| {result.row.title} | {goal.text()} | {number(median)} | {spread} | {'yes' if goal.met(median) else '**no**'} |"


def _party_lines(result: Result) -> list[str]:
    lines = []
    for party in result.row.parties:
        medians = [result.median(party, unit) for unit in UNITS]
        figures = " | ".join("" if median is None else number(median) for median in medians)
        lines.append(f"| {result.row.title} | {party} | {figures} |")
    return lines


def number(value: float) -> str:
    """Write a figure with as many digits as it deserves."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{_DIGITS}g}"


def write_page(page: Path, text: str) -> None:
    """Put `text` between the marks in `page`.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no place for figures: {BEGIN} … {END}")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def write_json(path: Path, measured: dict[str, Any]) -> None:
    """Write `measured` to `path`."""
    path.write_text(json.dumps(measured, indent=1) + "\n")
