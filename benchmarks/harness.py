"""Rows of the table: the same work done by several parties in turn, round after round, and the ratios between them.

A ratio is taken within a round, between two runs that follow each other; its median over the rounds is what counts, because
what else the machine does hits both.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.datasets import DataSet, DataSets
from benchmarks.process import Cost
from tests.support.certificates import Files, TestCA

Metrics = dict[str, float]
"""One run of one party, by the names of `UNITS`."""

RATE, INSTANCES, CPU_GB, CPU_1000 = "MB/s", "instances/s", "CPU s/GB", "CPU s/1000"
PEAK, GROWN, MS, CORE = "peak MiB", "MiB above idle", "ms", "% of a core"
UNITS = (RATE, INSTANCES, CPU_GB, CPU_1000, PEAK, GROWN, MS, CORE)

US = "gateway"

T = TypeVar("T")


def transfer(data: DataSet, seconds: float, cost: Cost | None = None) -> Metrics:
    """Return the metrics of moving `data` in `seconds`; `cost` is the measured party's, None where there is no such party."""
    metrics = {RATE: data.size_bytes / 1e6 / seconds, INSTANCES: data.count / seconds}
    if cost is not None:
        metrics |= {CPU_GB: cost.cpu_s / (data.size_bytes / 1e9), CPU_1000: cost.cpu_s / (data.count / 1000)}
        metrics |= {unit: value for unit, value in ((PEAK, cost.peak_mib), (GROWN, cost.grown_mib)) if value is not None}
    return metrics


@dataclass
class Bench:
    """What every row gets: the data sets, a folder, and things that are kept from round to round."""

    folder: Path
    data: DataSets
    kept: ExitStack
    _cache: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give an empty folder on the file system that everything is on, and remove it."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` returned the first time."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]  # type: ignore[return-value]

    @property
    def tls(self) -> Files:
        """CA, certificate and key for every party."""
        return self.once("tls", lambda: TestCA(self.folder / "ca").issue("peer"))

    def settle(self) -> None:
        """Have what earlier runs wrote on disk, so that the next one does not wait for it."""
        os.sync()


Party = Callable[[Bench, Path], Metrics]
"""Does the row's work once, in an empty folder."""


@dataclass(frozen=True)
class Goal:
    """`metric` of `party` is to be at least (or at most) `factor` times that of `against`; without `against`, `factor` itself."""

    metric: str
    factor: float
    against: str | None = None
    at_least: bool = True
    party: str = US

    def text(self) -> str:
        """Say it."""
        sign = "≥" if self.at_least else "≤"
        what = f"{self.factor:g} × {self.against}" if self.against else f"{self.factor:g}"
        who = "" if self.party == US else f"{self.party}: "
        return f"{who}{self.metric} {sign} {what}"

    def met(self, value: float) -> bool:
        """Tell whether `value` reaches it."""
        return value >= self.factor if self.at_least else value <= self.factor


@dataclass(frozen=True)
class Row:
    """One kind of work."""

    name: str
    title: str
    parties: dict[str, Party]
    goals: tuple[Goal, ...] = ()
    rounds: int | None = None
    """At most so many, where one takes long."""


@dataclass
class Result:
    """What a row's parties did in each round; a party that failed in a round has None there."""

    row: Row
    rounds: list[dict[str, Metrics]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def values(self, party: str, metric: str) -> list[float]:
        """Return a metric of a party, by rounds in which it has one."""
        return [taken[party][metric] for taken in self.rounds if metric in taken.get(party, {})]

    def median(self, party: str, metric: str) -> float | None:
        """Return the median over the rounds."""
        values = self.values(party, metric)
        return statistics.median(values) if values else None

    def measured(self, goal: Goal) -> list[float]:
        """Return what `goal` speaks of, by rounds: ratios where it compares, values where it does not."""
        if goal.against is None:
            return self.values(goal.party, goal.metric)
        pairs = [
            (taken[goal.party][goal.metric], taken[goal.against][goal.metric])
            for taken in self.rounds
            if goal.metric in taken.get(goal.party, {}) and goal.metric in taken.get(goal.against, {})
        ]
        return [ours / theirs for ours, theirs in pairs if theirs]


def run_row(row: Row, bench: Bench, rounds: int) -> Result:
    """Have every party do the work, in turn, `rounds` times."""
    result = Result(row)
    for number in range(min(rounds, row.rounds or rounds)):
        taken: dict[str, Metrics] = {}
        for name, party in row.parties.items():
            try:
                with bench.scratch() as folder:
                    taken[name] = party(bench, folder)
            except (AssertionError, OSError, TimeoutError) as error:
                result.failures.append(f"{name}, round {number + 1}: {error}")
                print(f"    {name} failed: {error}", file=sys.stderr)
                continue
            print(f"    {number + 1} {name:28} {summary(taken[name])}", file=sys.stderr, flush=True)
        result.rounds.append(taken)
    return result


def summary(metrics: Metrics) -> str:
    """Return metrics in one line."""
    return "  ".join(f"{metrics[unit]:.4g} {unit}" for unit in UNITS if unit in metrics)


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the rows whose names begin with one of `names`; all where none is given."""
    return [row for row in rows if not names or any(row.name.startswith(name) for name in names)]
