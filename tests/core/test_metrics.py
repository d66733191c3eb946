"""Counters and gauges: added up from many threads, with few series, none of which names a patient."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from gateway.core.metrics import MAX_SERIES, OTHER, REGISTRY, Registry

LABELS = {"outcome", "status", "destination", "source", "verdict"}
"""Names of labels whose values come from a small set that names no patient."""

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_a_counter_adds_up_by_labels() -> None:
    registry = Registry()
    took = registry.counter("took", "Instances.", "destination", "outcome")
    took.add(destination="a", outcome="held")
    took.add(3, outcome="held", destination="a")
    took.add(2, destination="b", outcome="held")
    assert registry.document() == {
        "took": [
            {"destination": "a", "outcome": "held", "value": 4},
            {"destination": "b", "outcome": "held", "value": 2},
        ]
    }


def test_a_gauge_has_the_last_value_and_one_without_labels_begins_at_0() -> None:
    registry = Registry()
    waiting, room = registry.gauge("waiting", "Instances."), registry.gauge("room", "Bytes.")
    waiting.set(5)
    waiting.set(2)
    assert registry.document() == {"waiting": [{"value": 2}], "room": [{"value": 0}]}
    assert room.series() == {(): 0}


def test_nothing_is_lost_between_threads() -> None:
    counter = Registry().counter("seen", "Instances.", "source")

    def count() -> None:
        for _ in range(1000):
            counter.add(source="a")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.series() == {("a",): 8000}


def test_values_beyond_the_bound_are_counted_together() -> None:
    counter = Registry().counter("seen", "Instances.", "source")
    for number in range(MAX_SERIES + 10):
        counter.add(source=f"s{number}")
    counter.add(source="s0")
    series = counter.series()
    assert len(series) == MAX_SERIES + 1
    assert series[(OTHER,)] == 10
    assert series[("s0",)] == 2


@pytest.mark.parametrize("labels", [{}, {"source": "a", "verdict": "b"}, {"verdict": "a"}])
def test_other_labels_than_declared_are_a_mistake(labels: dict[str, str]) -> None:
    counter = Registry().counter("seen", "Instances.", "source")
    with pytest.raises((KeyError, ValueError)):
        counter.add(**labels)
    assert counter.series() == {}


def test_a_counter_never_goes_down_and_a_name_is_declared_once() -> None:
    registry = Registry()
    counter = registry.counter("seen", "Instances.")
    with pytest.raises(ValueError, match="only grows"):
        counter.add(-1)
    with pytest.raises(ValueError, match="already"):
        registry.gauge("seen", "Others.")


def test_every_metric_is_documented_and_says_what_it_counts() -> None:
    table = OPERATIONS.read_text(encoding="utf-8").split("| metric | labels | counts |", 1)[1].split("\n\n", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    assert list(rows) == [metric.name for metric in REGISTRY]
    for metric in REGISTRY:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert metric.help.endswith(".")
        assert set(metric.labels) <= LABELS
        assert tuple(re.findall(r"`(\w+)`", rows[metric.name]))[: len(metric.labels)] == metric.labels
