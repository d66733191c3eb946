"""Results as JSON and as Markdown: the ratios and goals first, then what each party did."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import UNITS, Goal, Result, Row
from benchmarks.machine import sentence

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

FAMILIES = {
    "receive": "Receiving",
    "send": "Sending",
    "relay": "Relaying",
    "migrate": "Migrating",
    "small": "Small things",
    "codec": "Transcoding",
    "lock": "The interpreter lock",
}

_DIGITS = 3
_WIDTH = 132


@dataclass(frozen=True)
class Run:
    """The circumstances of the results."""

    machine: dict[str, Any]
    rounds: int
    quick: bool
    seconds: float
    at: datetime

    def sentence(self) -> str:
        """Say it."""
        size = "**short runs, not to be published**" if self.quick else "whole data sets"
        return f"{self.at:%Y-%m-%d}, {self.rounds} rounds, {size}, {self.seconds / 60:.0f} minutes. {sentence(self.machine)}."

    @property
    def origin(self) -> str:
        """The gateway and the day."""
        return f"{self.machine['gateway']}, {self.at:%Y-%m-%d}"


def document(results: Sequence[Result], run: Run) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "measured_at": run.at.astimezone(UTC).isoformat(timespec="seconds"),
        "rounds": run.rounds,
        "quick": run.quick,
        "seconds": round(run.seconds),
        "machine": run.machine,
        "rows": [_row(result, run) for result in results],
    }


def _row(result: Result, run: Run) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "title": result.row.title,
        "origin": result.origin or run.origin,
        "seconds": round(result.seconds, 1),
        "rounds": result.rounds,
        "failures": result.failures,
        "goals": [{"text": goal.text(), "measured": result.measured(goal), "met": result.met(goal)} for goal in result.row.goals],
    }


def earlier(path: Path, rows: Iterable[Row]) -> dict[str, Result]:
    """Return what `path`, a document of an earlier run, has of `rows`, by name."""
    known = json.loads(path.read_text())
    origin = f"{known['machine']['gateway']}, {known['measured_at'][:10]}"
    measured = {row["name"]: row for row in known["rows"]}
    return {
        row.name: Result(row, one["rounds"], one["failures"], one["seconds"], one.get("origin", origin))
        for row in rows
        if (one := measured.get(row.name)) is not None
    }


def markdown(results: Sequence[Result], run: Run) -> str:
    """Return the page's part: summary, goals, failures, and a table of figures a family."""
    verdicts = [result.met(goal) for result in results for goal in _judged(result)]
    lines = [
        *_wrapped(f"{verdicts.count(True)} of {len(verdicts)} goals reached. {run.sentence()}"),
        *(line for origin in _origins(results) for line in _wrapped(origin)),
        "",
        "### Ratios and goals",
        "",
        "| work | what | median | from … to | reached |",
        "|---|---|---|---|---|",
        *(line for result in results for line in _goal_lines(result)),
        *_failures(results),
    ]
    for family, title in FAMILIES.items():
        lines += _figures(title, [result for result in results if result.row.family == family])
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    """Break a sentence into lines that Markdown may have."""
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _origins(results: Sequence[Result]) -> Iterator[str]:
    """Say which rows are of this run where others are not."""
    others = sorted({result.origin for result in results if result.origin})
    if others:
        new = ", ".join(f"“{result.row.title}”" for result in results if not result.origin)
        yield f"Measured in this run: {new}; all else earlier, as `performance.json` says: {'; '.join(others)}."


def _judged(result: Result) -> list[Goal]:
    return [goal for goal in result.row.goals if goal.factor is not None]


def _goal_lines(result: Result) -> Iterator[str]:
    """Yield a line a goal; the work is named in the first."""
    for index, goal in enumerate(result.row.goals):
        values, title = result.measured(goal), result.row.title if index == 0 else ""
        if not values:
            yield f"| {title} | {goal.text()} | – | – | **not measured** |"
            continue
        spread = f"{quantity(goal, min(values))} … {quantity(goal, max(values))}"
        verdict = {True: "yes", False: "**no**", None: "no goal"}[result.met(goal)]
        yield f"| {title} | {goal.text()} | {quantity(goal, statistics.median(values))} | {spread} | {verdict} |"


def _failures(results: Iterable[Result]) -> list[str]:
    """Name who did not manage the work; the medians are without those runs."""
    failed = [f"- {result.row.title}: {failure}" for result in results for failure in result.failures]
    return ["", "Not managed, and left out of the medians:", "", *failed] if failed else []


def _figures(title: str, results: Sequence[Result]) -> list[str]:
    """Return a table of every party's medians, with the columns that anybody has a figure in."""
    units = [unit for unit in UNITS if any(result.has(unit) for result in results)]
    if not units:
        return []
    return [
        "",
        f"### {title}: medians of each party",
        "",
        f"| work | party | {' | '.join(units)} |",
        "|---|---|" + "---:|" * len(units),
        *(line for result in results for line in _party_lines(result, units)),
    ]


def _party_lines(result: Result, units: Sequence[str]) -> Iterator[str]:
    for index, party in enumerate(result.row.parties):
        medians = [result.median(party, unit) for unit in units]
        figures = " | ".join("" if median is None else number(median) for median in medians)
        yield f"| {result.row.title if index == 0 else ''} | {party} | {figures} |"


def quantity(goal: Goal, value: float) -> str:
    """Write what a goal speaks of: a ratio, or a figure with its unit."""
    return f"{number(value)} ×" if goal.against else f"{number(value)} {goal.metric}"


def number(value: float) -> str:
    """Write a figure with as many digits as it deserves, never as a power of ten."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.{_DIGITS}g}"
    return text if "e" not in text else f"{value:.3f}"


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
