"""One study at one look: what the source has of it, what the destinations lack of it, and what is to be done. Runs in trio.

It asks no more than it needs: the ledger first, then series by their counts, then UIDs where counts do not decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from gateway.archives.places import Place
from gateway.jobs.sync import shortfall
from gateway.jobs.sync.context import SyncContext
from gateway.jobs.sync.growth import observe
from gateway.jobs.sync.memory import Memory
from gateway.jobs.sync.pauses import may_try
from gateway.jobs.sync.plan import Plan
from gateway.jobs.sync.series import Series, counts
from gateway.jobs.sync.shortfall import By, Lack, Sight
from gateway.ledger.deliveries.underway import Underway
from gateway.retrieve import Wanted


class State(StrEnum):
    """The state of a study after a look."""

    SAME = "same"
    """Nothing is lacking."""

    GROWING = "growing"
    """The lacking instances, if there are any, have not stopped growing in number."""

    UNDERWAY = "underway"
    """It is being retrieved, or delivered."""

    PAUSED = "paused"
    """It lacks something, and its last retrieval did not help: it is tried again later."""

    MISSING = "missing"
    """It lacks something: it is retrieved now."""


@dataclass(frozen=True)
class Missing:
    """A study to retrieve for `destinations`, with the series and instances that they lack, as far as is known."""

    wanted: Wanted
    destinations: tuple[str, ...]
    series: int
    instances: int
    lacking: object
    """Comparable: the same is lacking."""


@dataclass(frozen=True)
class Sides:
    """The places that are compared: the source and, by name, the destinations that can be asked."""

    source: Place
    destinations: Mapping[str, Place]


@dataclass(frozen=True)
class Finding:
    """The result of a look at a study: its state, what is remembered of it, and what is missing where that is the state."""

    state: State
    memory: Memory
    missing: Missing | None = None


class StudyLook:
    """A look at one study."""

    def __init__(self, plan: Plan, context: SyncContext, sides: Sides, *, study: str, sight: Sight, memory: Memory) -> None:
        self._plan = plan
        self._context = context
        self._sides = sides
        self._study = study
        self._sight = sight
        self._memory = memory
        self._listed: dict[str, frozenset[str]] = {}

    async def run(self, now: float, *, confirm: bool) -> Finding:
        """Compare the study; `now` is monotonic seconds, `confirm` has equal counts confirmed by UIDs once it is settled.

        Raises:
            AssociationError: a side cannot be asked, or refuses.
            LedgerError: the ledger cannot be used.

        """
        standings = await self._standings()
        idle = {name: one for name, one in standings.items() if not one.working}
        if not idle:
            return Finding(State.UNDERWAY, self._memory.differ())
        series = await self._series()
        self._memory = replace(self._memory, series=observe(self._memory.series, counts(series), now))
        chosen = self._plan.selection.chosen(series.values())
        ready = self._ready(series, chosen, now)
        confirm = confirm and len(ready) == len(chosen)
        lacks = {name: lack for name, one in idle.items() if (lack := await self._lack(name, one, ready, confirm=confirm))}
        if lacks:
            return await self._lacking(lacks, series, now, whole=len(ready) == len(series))
        if len(ready) < len(chosen):
            return Finding(State.GROWING, self._memory.differ())
        if len(idle) < len(standings):
            return Finding(State.UNDERWAY, self._memory.differ())
        return Finding(State.SAME, self._agreed(now, confirmed=confirm))

    def _agreed(self, now: float, *, confirmed: bool) -> Memory:
        if not confirmed:
            return self._memory.agree_by_counts(self._sight, now)
        return self._memory.agree(self._sight, now, self._plan.interval_s, self._plan.compare_every_s)

    async def _standings(self) -> dict[str, Underway]:
        by_routes = self._plan.by_routes
        return {name: await self._context.underway(self._study, name, by_routes=by_routes) for name in self._sides.destinations}

    async def _series(self) -> dict[str, Series]:
        """Return what the source has; a series that it does not count is listed."""
        found = await self._context.ask(partial(self._sides.source.series, self._study))
        series = dict[str, Series]()
        for uid, held in found.items():
            count = len(await self._list(uid)) if held.instances is None else held.instances
            series[uid] = Series(uid, count, held.modality, held.description)
        return series

    async def _list(self, series: str) -> frozenset[str]:
        if series not in self._listed:
            self._listed[series] = frozenset(await self._context.ask(partial(self._sides.source.instances, self._study, series)))
        return self._listed[series]

    def _ready(self, series: Mapping[str, Series], chosen: Mapping[str, Series], now: float) -> dict[str, Series]:
        """Return the series that may be taken: settled ones, and where the choice depends on the others, once those are too."""
        settled = {uid for uid in series if self._plan.patience.settled(self._memory.series.get(uid), now)}
        selection = self._plan.selection
        if selection.compares and any(one.uid not in settled for one in selection.candidates(series.values())):
            return {}
        return {uid: one for uid, one in chosen.items() if uid in settled}

    async def _lack(self, destination: str, underway: Underway, ready: Mapping[str, Series], *, confirm: bool) -> Lack:
        place, lack = self._sides.destinations[destination], dict[str, frozenset[str] | None]()
        if not ready:
            return lack
        held = await self._context.ask(partial(place.series, self._study))
        for uid, one in ready.items():
            there = [held[uid].instances] if uid in held else []
            match shortfall.by_counts(one.count, there, confirm=confirm, excused=bool(underway.excused)):
                case By.ABSENT:
                    lack[uid] = None
                case By.UIDS:
                    has = await self._context.ask(partial(place.instances, self._study, uid)) if uid in held else set()
                    missing = await self._list(uid) - has - underway.excused
                    if missing and has:
                        # A list may be cut short: nothing is lacking that the place has when it is asked for it.
                        missing -= await self._context.ask(partial(place.holds, self._study, uid, missing, sorted(has)[:1]))
                    if missing:
                        lack[uid] = missing
        return lack

    async def _lacking(self, lacks: Mapping[str, Lack], series: Mapping[str, Series], now: float, *, whole: bool) -> Finding:
        memory, lacking = self._memory.differ(), shortfall.comparable(lacks, series)
        if not may_try(memory.attempt, lacking, now, self._plan.interval_s):
            return Finding(State.PAUSED, memory)
        lack = shortfall.united(list(lacks.values()))
        if shortfall.is_mixed(lack):
            lack = {uid: await self._list(uid) if uids is None else uids for uid, uids in lack.items()}
        whole = whole and len(lack) == len(series) and self._plan.selection.everything
        missing = Missing(
            shortfall.wanted(self._study, lack, whole=whole),
            () if self._plan.by_routes else tuple(lacks),
            series=len(lack),
            instances=shortfall.instances_in(lack, series),
            lacking=lacking,
        )
        return Finding(State.MISSING, memory, missing)
