"""The plan of one sync: a ``[[sync]]`` table, or the options of ``gateway sync``, made ready for use. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gateway.config.settings import SyncTable
from gateway.core import dates
from gateway.core.domain import Priority
from gateway.jobs.sync.growth import TWO_LOOKS, Patience
from gateway.jobs.sync.series import ALL, Selection, Take
from gateway.jobs.sync.window import StudyWindow

USUAL_WINDOW = StudyWindow(last_s=12 * 3600.0)
"""The window where none is named."""


@dataclass(frozen=True)
class Plan:
    """A sync: from `source` to each of the destinations `to`.

    `by_routes` says that `to` is where the routes may lead, and that they decide what goes there; else everything that comes goes
    to those that lack it. `from_ledger` has us say what a destination holds, by what was verified there. `hours` names the
    schedule outside which nothing is looked at or moved.
    """

    name: str
    source: str
    to: tuple[str, ...]
    by_routes: bool = False
    window: StudyWindow = USUAL_WINDOW
    selection: Selection = ALL
    patience: Patience = TWO_LOOKS
    interval_s: float = 60.0
    compare_every_s: float = 6 * 3600.0
    from_ledger: bool = False
    hours: str | None = None
    priority: Priority = Priority.NORMAL

    def fingerprint(self, at: float, destinations: tuple[str, ...]) -> str:
        """Return what tells the job of the look at `at` from every other (64 hexadecimal digits)."""
        return hashlib.sha256(f"sync {self.name} {at!r} {' '.join(destinations)}".encode()).hexdigest()


def plan_of(table: SyncTable, possible: tuple[str, ...]) -> Plan:
    """Return the plan of a table; `possible` are the destinations that the routes may lead to from its source."""
    return Plan(
        name=table.name,
        source=table.source,
        to=table.to or possible,
        by_routes=not table.to,
        window=window_of(table),
        selection=Selection(Take(table.series), table.fewer_than or 0, table.modalities, table.description),
        patience=TWO_LOOKS if table.stable_for is None else Patience(quiet_s=dates.seconds(table.stable_for)),
        interval_s=table.interval_s,
        compare_every_s=dates.seconds(table.compare_every),
        from_ledger=table.known == "ledger",
        hours=table.when,
        priority=Priority[table.priority.upper()],
    )


def window_of(table: SyncTable) -> StudyWindow:
    """Return the window of a table: the last twelve hours where it names none."""
    named = table.last is not None or table.days or table.patients or table.query
    last_s = dates.seconds(table.last) if table.last is not None else None if named else USUAL_WINDOW.last_s
    zone = None if table.time_zone is None else ZoneInfo(table.time_zone)
    return StudyWindow(last_s, tuple(dates.days(text) for text in table.days), table.patients, table.query, zone)
