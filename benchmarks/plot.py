"""A plot of the ratios, written by hand as SVG: a bar a goal, on a logarithmic scale, with a tick where the goal stands."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape

from benchmarks.harness import Goal, Result
from benchmarks.report import number

LABEL, WIDTH, BAR, GAP = 470, 1000, 14, 8
LOWEST, HIGHEST = 0.05, 100.0
GOOD, BAD = "#2a7f62", "#b5482f"


def svg(results: Sequence[Result]) -> str:
    """Return the plot of every goal that compares two parties."""
    bars = [(result, goal) for result in results for goal in result.row.goals if goal.against and result.measured(goal)]
    height = 40 + len(bars) * (BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *(_grid(ratio, height) for ratio in (0.1, 1.0, 10.0, 100.0)),
    ]
    for index, (result, goal) in enumerate(bars):
        parts += _bar(result, goal, 30 + index * (BAR + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(ratio: float) -> float:
    """Return where a ratio stands."""
    within = min(max(ratio, LOWEST), HIGHEST)
    return LABEL + (WIDTH - LABEL - 60) * math.log(within / LOWEST) / math.log(HIGHEST / LOWEST)


def _grid(ratio: float, height: int) -> str:
    x = _x(ratio)
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="24" y2="{height}" stroke="{"#555" if ratio == 1 else "#ddd"}"/>'
    return f'{line}<text x="{x:.1f}" y="16" text-anchor="middle">{ratio:g} ×</text>'


def _bar(result: Result, goal: Goal, y: int) -> list[str]:
    median = statistics.median(result.measured(goal))
    begin, end = sorted((_x(1.0), _x(median)))
    label = escape(f"{result.row.title}: {goal.metric} against {goal.against}")
    tick, colour = _x(goal.factor), GOOD if goal.met(median) else BAD
    return [
        f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{label}</text>',
        f'<rect x="{begin:.1f}" y="{y}" width="{max(end - begin, 1):.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{tick:.1f}" x2="{tick:.1f}" y1="{y - 2}" y2="{y + BAR + 2}" stroke="black" stroke-width="2"/>',
        f'<text x="{WIDTH - 4}" y="{y + 11}" text-anchor="end">{number(median)}</text>',
    ]
