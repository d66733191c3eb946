"""The one registry of metrics: every counter and gauge of the process with its name, help and labels, declared at the end.

Rooms import a metric and count; `gateway status --json` reads them all. They count since the process started: what has to survive
is in the ledger. Counting takes a lock for a moment, so that nothing counts per fragment of a data set: an instance, a batch or a
study at a time. No value of a label names a patient, and each comes from a small set (a state, a status, a name of the
configuration); a metric that has `MAX_SERIES` of them counts the others under `OTHER`. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, TypeVar

M = TypeVar("M", bound="Metric")

MAX_SERIES = 500
"""Combinations of label values of one metric."""

OTHER = "other"
"""The value of every label of what comes beyond `MAX_SERIES`."""


class Metric:
    """One metric: `name` in snake_case, with its unit; `help` says what it counts; `labels` are the names of its labels."""

    kind = ""

    def __init__(self, name: str, help: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def series(self) -> dict[tuple[str, ...], float]:
        """Return the values so far by the values of the labels, in their order."""
        with self._lock:
            return dict(self._series)

    def _key(self, labels: dict[str, str]) -> tuple[str, ...]:
        """Return the series of `labels`, with the lock held. Raises KeyError or ValueError for others than the metric has."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}")
        key = tuple(str(labels[name]) for name in self.labels)
        if key in self._series or len(self._series) < MAX_SERIES:
            return key
        return (OTHER,) * len(key)


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add `amount`, which is not negative."""
        if amount < 0:
            raise ValueError(f"{self.name} only grows")
        with self._lock:
            key = self._key(labels)
            self._series[key] = self._series.get(key, 0) + amount


class Gauge(Metric):
    """A number that goes up and down."""

    kind = "gauge"

    def set(self, value: float, **labels: str) -> None:
        """Have `value` from now on."""
        with self._lock:
            self._series[self._key(labels)] = value


class Registry:
    """Metrics by name, in the order in which they were declared."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(tuple(self._metrics.values()))

    def counter(self, name: str, help: str, *labels: str) -> Counter:
        """Declare a counter. Raises ValueError where the name is taken."""
        return self._declared(Counter(name, help, labels))

    def gauge(self, name: str, help: str, *labels: str) -> Gauge:
        """Declare a gauge. Raises ValueError where the name is taken."""
        return self._declared(Gauge(name, help, labels))

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """Return all values as plain data: for each name a list of series, each with its labels and its ``value``."""
        return {
            metric.name: [
                {**dict(zip(metric.labels, key, strict=True)), "value": value} for key, value in sorted(metric.series().items())
            ]
            for metric in self
        }

    def _declared(self, metric: M) -> M:
        if metric.name in self._metrics:
            raise ValueError(f"there is a metric {metric.name} already")
        self._metrics[metric.name] = metric
        return metric


REGISTRY = Registry()

RECEIVED = REGISTRY.counter(
    "instances_received", "Instances that came from a peer and are recorded: new, duplicate, conflict (other content).", "outcome"
)
RECEIVED_BYTES = REGISTRY.counter("received_bytes", "Bytes of the data sets of those instances.")
REFUSED = REGISTRY.counter("instances_refused", "Instances that a peer sent and was refused, by DIMSE status.", "status")
WAITING = REGISTRY.gauge("arrivals_waiting", "Instances that are durable and not in the ledger yet.")
DELIVERIES = REGISTRY.counter(
    "delivery_outcomes", "Attempts at deliveries, by destination and the state that they led to.", "destination", "outcome"
)
SENT_BYTES = REGISTRY.counter("sent_bytes", "Bytes of the data sets that destinations took.", "destination")
RETRIEVALS = REGISTRY.counter("retrievals", "Studies retrieved, by source and verdict.", "source", "verdict")
RELEASED = REGISTRY.counter("instances_released", "Instances whose bytes were let go because all deliveries are settled.")
FORGOTTEN = REGISTRY.counter("instances_forgotten", "Released instances whose history was deleted after history_days.")
POSTPONED = REGISTRY.counter("housekeeping_postponed", "Rounds of housekeeping that failed and are done later.")
HAS_ROOM = REGISTRY.gauge("spool_has_room", "1 while the spool takes instances, 0 while it is full.")
