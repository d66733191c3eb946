"""A plot of the goals, written by hand as SVG: a bar a goal on a logarithmic scale of how many times better than the goal it is.

The line at 1 is the goal, or equality where there is none; to the right of it is better. A whisker spans the rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape

from benchmarks.harness import Goal, Result
from benchmarks.report import FAMILIES, quantity

WIDTH, LABEL, VALUE = 1160, 640, 150
TOP, LINE, BAR, HEADING = 64, 20, 12, 30
LOWEST, HIGHEST = 0.1, 10.0
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
GOOD, BAD, NEITHER = "#2a7f62", "#b5482f", "#7a8793"


def svg(results: Sequence[Result]) -> str:
    """Return the plot of every goal that was measured."""
    body, y = [], TOP
    for family, title in FAMILIES.items():
        bars = [(result, goal) for result in results if result.row.family == family for goal in result.row.goals]
        bars = [(result, goal) for result, goal in bars if result.measured(goal)]
        if bars:
            body.append(f'<text x="12" y="{y + 20}" font-weight="bold" font-size="13">{escape(title)}</text>')
            y += HEADING
        for result, goal in bars:
            body += _bar(result, goal, y)
            y += LINE
    height = y + 12
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *_scale(height), *body, "</svg>"]) + "\n"


def _x(margin: float) -> float:
    """Return where a margin stands; what is beyond the scale ends at its edge."""
    within = min(max(margin, LOWEST), HIGHEST)
    return LABEL + (WIDTH - LABEL - VALUE) * math.log(within / LOWEST) / math.log(HIGHEST / LOWEST)


def _scale(height: int) -> list[str]:
    parts = [
        f'<text x="12" y="20" fill="{NEITHER}">grey: no goal, the line is the other\'s figure</text>',
        f'<text x="{_x(1.0) - 8:.1f}" y="20" text-anchor="end" fill="{BAD}">◀ worse than the goal</text>',
        f'<text x="{_x(1.0) + 8:.1f}" y="20" fill="{GOOD}">better than the goal ▶</text>',
    ]
    for tick in TICKS:
        x, stroke = _x(tick), "#333" if tick == 1 else "#ddd"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="50" y2="{height - 8}" stroke="{stroke}"/>')
        parts.append(f'<text x="{x:.1f}" y="42" text-anchor="middle" fill="#555">{tick:g} ×</text>')
    return parts


def _bar(result: Result, goal: Goal, y: int) -> list[str]:
    values = result.measured(goal)
    median = statistics.median(values)
    begin, end = sorted((_x(1.0), _x(goal.margin(median))))
    low, high = sorted((_x(goal.margin(min(values))), _x(goal.margin(max(values)))))
    colour, middle = {True: GOOD, False: BAD, None: NEITHER}[goal.met(median)], y + BAR / 2
    return [
        f'<text x="{LABEL - 10}" y="{y + 10}" text-anchor="end">{escape(f"{result.row.title}: {goal.text()}")}</text>',
        f'<rect x="{begin:.1f}" y="{y}" width="{max(end - begin, 1):.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" stroke="black"/>',
        f'<text x="{WIDTH - 8}" y="{y + 10}" text-anchor="end">{escape(quantity(goal, median))}</text>',
    ]
