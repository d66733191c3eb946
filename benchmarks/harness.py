"""Rows of the table: the same work done by several parties in turn, round after round, and the ratios between them.

A ratio is taken within a round, between runs that follow each other; its median over the rounds is what counts, because what
else the machine does hits both.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
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

RATE, INSTANCES, CPU_GB, CPU_1000 = "MB/s", "instances/s", "CPU s/GB", "CPU s/1,000"
PEAK, GROWN, MS, CORE = "peak MiB", "MiB above idle", "ms", "% of a core"
BEHIND, LOCK_MS, LOCK_HELD = "s behind", "ms for the lock", "% lock held"
UNITS = (RATE, INSTANCES, BEHIND, CPU_GB, CPU_1000, PEAK, GROWN, MS, CORE, LOCK_MS, LOCK_HELD)

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
    """The means of every row: the data sets, a folder, and objects that are kept from round to round."""

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

    @contextmanager
    def kept_if_made(self) -> Iterator[ExitStack]:
        """Give a stack whose contexts live to the end of the run, or end at once where not all of them could be entered."""
        with ExitStack() as stack:
            yield stack
            self.kept.enter_context(stack.pop_all())

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
    """`metric` of `party` is to be at least (or at most) `factor` times that of `against`; without `against`, `factor` itself.

    Without a factor the ratio is reported and not judged.
    """

    metric: str
    factor: float | None
    against: str | None = None
    at_least: bool = True
    party: str = US

    def text(self) -> str:
        """Say it."""
        who = "" if self.party == US else f"{self.party}: "
        if self.factor is None:
            return f"{who}{self.metric} beside {self.against}"
        sign = "≥" if self.at_least else "≤"
        what = f"{self.factor:g} × {self.against}" if self.against else f"{self.factor:g}"
        return f"{who}{self.metric} {sign} {what}"

    def met(self, value: float) -> bool | None:
        """Tell whether `value` reaches it; None where nothing is to be reached."""
        if self.factor is None:
            return None
        return value >= self.factor if self.at_least else value <= self.factor

    def margin(self, value: float) -> float:
        """Return how many times better than the goal `value` is: 1 just reaches it; where nothing is to be reached, than equal."""
        factor = 1.0 if self.factor is None else self.factor
        better, worse = (value, factor) if self.at_least else (factor, value)
        return better / worse if worse else float("inf")


@dataclass(frozen=True)
class Row:
    """One kind of work. `name` begins with its family: receive, send, relay, migrate, small, codec, lock."""

    name: str
    title: str
    parties: dict[str, Party]
    goals: tuple[Goal, ...] = ()
    rounds: int | None = None
    """At most so many, where one takes long."""
    once: frozenset[str] = frozenset()
    """Parties that no goal speaks of and that take long: they take part in the first round only."""

    @property
    def family(self) -> str:
        """The kind of the row: the first word of its name."""
        return self.name.partition("-")[0]

    def turns(self, number: int) -> list[str]:
        """Return who takes part in round `number` (from 0), in order: each round another one begins."""
        taking = [name for name in self.parties if number == 0 or name not in self.once]
        first = number % len(taking)
        return taking[first:] + taking[:first]


@dataclass
class Result:
    """The metrics of a row's parties in each round; a party that failed in a round is missing there."""

    row: Row
    rounds: list[dict[str, Metrics]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Duration of the row, preparations included."""
    origin: str = ""
    """The gateway and the day of an earlier run that measured it; empty for the run at hand."""

    def values(self, party: str, metric: str) -> list[float]:
        """Return a metric of a party, by rounds in which it has one."""
        return [taken[party][metric] for taken in self.rounds if metric in taken.get(party, {})]

    def median(self, party: str, metric: str) -> float | None:
        """Return the median over the rounds."""
        values = self.values(party, metric)
        return statistics.median(values) if values else None

    def has(self, metric: str) -> bool:
        """Tell whether any party has a figure for `metric`."""
        return any(metric in metrics for taken in self.rounds for metrics in taken.values())

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

    def met(self, goal: Goal) -> bool | None:
        """Tell whether the median reaches `goal`; None where it was not measured or nothing is to be reached."""
        values = self.measured(goal)
        return goal.met(statistics.median(values)) if values else None


def run_row(row: Row, bench: Bench, rounds: int) -> Result:
    """Have every party do the work, in turn, `rounds` times; a party that fails is noted and the others go on."""
    result, began = Result(row), time.monotonic()
    for number in range(min(rounds, row.rounds or rounds)):
        taken: dict[str, Metrics] = {}
        for name in row.turns(number):
            try:
                with bench.scratch() as folder:
                    taken[name] = row.parties[name](bench, folder)
            except Exception as error:  # noqa: BLE001 - the root of a party's work: whatever it was, the row goes on without it
                result.failures.append(f"{name}, round {number + 1}: {_reason(error)}")
                print(f"    {number + 1} {name:28} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                continue
            print(f"    {number + 1} {name:28} {summary(taken[name])}", file=sys.stderr, flush=True)
        result.rounds.append(taken)
    result.seconds = time.monotonic() - began
    return result


def _reason(error: Exception) -> str:
    """Return the first line of what went wrong: what a program wrote before it failed stays on standard error."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def summary(metrics: Metrics) -> str:
    """Return metrics in one line."""
    return "  ".join(f"{metrics[unit]:.4g} {unit}" for unit in UNITS if unit in metrics)


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the rows whose names begin with one of `names`; all where none is given."""
    return [row for row in rows if not names or any(row.name.startswith(name) for name in names)]
