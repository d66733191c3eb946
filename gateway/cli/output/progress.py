"""A progress bar for instances, bytes, rate and remaining time: on a terminal only, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.cli.output import render

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Amount:
    """The amount that is done: instances of how many (None is unknown), and their bytes."""

    instances: int = 0
    of: int | None = None
    size_bytes: int = 0


class Meter:
    """Shows one phase at a time; `note` says what it waits for. Every call is cheap where there is no terminal."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._phase = ""
        self._since = time.monotonic()

    def show(self, phase: str, amount: Amount, note: str = "") -> None:
        """Show how far `phase` is."""
        if self._progress is None:
            return
        if phase != self._phase:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            self._phase, self._since = phase, time.monotonic()
            self._progress.add_task(phase, total=None)
        seconds = time.monotonic() - self._since
        self._progress.update(
            self._progress.task_ids[0], completed=amount.instances, total=amount.of, detail=detail(amount, seconds), note=note
        )


def detail(amount: Amount, seconds: float) -> str:
    """Return instances, bytes, rate and remaining time in words; pure. `seconds` is how long it took so far."""
    of = f"/{amount.of}" if amount.of is not None else ""
    parts = [f"{amount.instances}{of} instances"]
    if amount.size_bytes:
        parts.append(render.size(amount.size_bytes))
    if seconds >= 1 and amount.instances:
        rate = amount.size_bytes / seconds
        parts.append(f"{render.size(rate)}/s" if amount.size_bytes else f"{amount.instances / seconds:.0f}/s")
        if amount.of is not None and amount.of > amount.instances:
            parts.append(f"{render.duration((amount.of - amount.instances) * seconds / amount.instances)} left")
    return ", ".join(parts)


def total(amounts: Iterable[Amount]) -> Amount:
    """Add amounts up; an unknown total makes the sum's unknown. Pure."""
    parts = list(amounts)
    of = None if any(part.of is None for part in parts) else sum(part.of or 0 for part in parts)
    return Amount(sum(part.instances for part in parts), of, sum(part.size_bytes for part in parts))


def words(progress: Mapping[str, Any]) -> str:
    """Return how far a migration is, in words; pure."""
    studies, portions = progress["studies"], progress["portions"]
    parts = [f"{studies['ended']}/{studies['studies']} studies", f"{portions['listed']}/{portions['of']} listed"]
    bad = studies["incomplete"] + studies["failed"]
    parts += [f"{bad} NOT whole"] if bad else []
    if progress.get("seconds_left") is not None:
        parts.append(f"about {render.duration(progress['seconds_left'])} left")
    if progress.get("waiting"):
        parts.append(f"waiting: {progress['waiting']}")
    return ", ".join(parts)


@contextmanager
def meter(quiet: bool) -> Iterator[Meter]:
    """Give a meter that shows on a terminal and stays silent elsewhere, or where `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield Meter(None)
        return
    from gateway.cli.output.bar import bar

    with bar() as progress:
        yield Meter(progress)
