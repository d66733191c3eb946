"""One look: the studies of the window at the source and at the destinations, each compared where something may be lacking.

Runs in trio. It starts nothing: what it finds missing is for the runner, or, on a dry run, for whoever asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from gateway.archives.places import Place, StudyHeld
from gateway.core.errors import DimseFailed, GatewayError, UnreadableAnswer
from gateway.core.log import get_logger
from gateway.jobs.sync.context import OpenPlace, SyncContext
from gateway.jobs.sync.memory import Memory
from gateway.jobs.sync.pauses import may_try
from gateway.jobs.sync.plan import Plan
from gateway.jobs.sync.shortfall import Sight
from gateway.jobs.sync.study import Finding, Missing, Sides, State, StudyLook

log = get_logger()

CONFIRMED_A_LOOK = 25
"""Studies whose equal counts one look confirms by UIDs at most: after a start it takes some looks until all are."""

CLOSE_S = 5.0
"""The longest time that ending the associations of a look may take."""

Studies = dict[str, StudyHeld]


@dataclass
class LookResult:
    """The result of a look: studies by state, and those to retrieve.

    `error` is why a destination or a study could not be asked, or why the source may have more than it lists; `remarks` what is to
    be known of the answers of those that were.
    """

    found: int = 0
    states: Counter[State] = field(default_factory=Counter)
    missing: list[Missing] = field(default_factory=list)
    error: str = ""
    remarks: list[str] = field(default_factory=list)

    def note(self, finding: Finding) -> None:
        """Count one study."""
        self.states[finding.state] += 1
        if finding.missing is not None:
            self.missing.append(finding.missing)

    def fail(self, error: GatewayError) -> None:
        """Keep the first error."""
        self.doubt(str(error))

    def doubt(self, why: str) -> None:
        """Note that not all could be looked at, and why; the first reason is kept."""
        self.error = self.error or why


async def look(plan: Plan, context: SyncContext, memories: dict[str, Memory]) -> LookResult:
    """Take a look and return what it came to; `memories` of studies are brought up to date, and forgotten with the studies.

    Raises:
        GatewayError: the source, or all destinations, cannot be asked.

    """
    at_hand = _Look(plan, context, memories)
    try:
        await at_hand.take()
    finally:
        await at_hand.close()
    return at_hand.result


class _Look:
    """A look under way, with the places that it has open."""

    def __init__(self, plan: Plan, context: SyncContext, memories: dict[str, Memory]) -> None:
        self.result = LookResult()
        self._plan = plan
        self._context = context
        self._memories = memories
        self._opened: list[Place] = []

    async def take(self) -> None:
        source = await self._open(self._context.source, self._plan.source)
        found = await self._found(source)
        destinations, held = await self._held(found)
        for study in self._memories.keys() - found.keys():
            del self._memories[study]
        self.result.found = len(found)
        await self._compare(Sides(source, destinations), found, held)
        self.result.remarks = [remark for place in self._opened for remark in place.remarks()]
        for doubt in source.doubts():
            self.result.doubt(doubt)

    async def close(self) -> None:
        """Close what was asked, also when the look is cancelled; what is being asked then ends."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            for place in self._opened:
                await trio.to_thread.run_sync(place.close, abandon_on_cancel=True)

    async def _open(self, opener: OpenPlace, name: str) -> Place:
        place = await self._context.ask(partial(opener, name))
        self._opened.append(place)
        return place

    async def _found(self, source: Place) -> Studies:
        """Return the studies of the window, the newest first."""
        now, window = self._context.clock(), self._plan.window
        found = await self._studies(source, window.keys(now))
        within = [(uid, one) for uid, one in found.items() if window.admits(one.study_date, one.study_time, now)]
        return dict(sorted(within, key=lambda item: (item[1].study_date, item[1].study_time), reverse=True))

    async def _held(self, found: Studies) -> tuple[dict[str, Place], dict[str, Studies]]:
        """Return the destinations that can be asked, and the studies that each holds; the ledger knows studies by UID only.

        Raises:
            GatewayError: none can be asked.

        """
        plan, context = self._plan, self._context
        opener = context.verified if plan.from_ledger else context.destination
        keys = ({"StudyInstanceUID": "\\".join(found)},) if plan.from_ledger else plan.window.keys(context.clock())
        places, held, failure = dict[str, Place](), dict[str, Studies](), None
        for name in plan.to if found else ():
            try:
                place = await self._open(opener, name)
                held[name] = await self._studies(place, keys)
                places[name] = place
            except GatewayError as error:
                log.warning("sync_destination_not_asked", sync=plan.name, destination=name, error=str(error))
                self.result.fail(error)
                failure = error
        if failure is not None and not places:
            raise failure
        return places, held

    async def _studies(self, place: Place, keys: Iterable[Mapping[str, str]]) -> Studies:
        found = Studies()
        for one in keys:
            found |= await self._context.ask(partial(place.studies, one))
        return found

    async def _compare(self, sides: Sides, found: Studies, held: Mapping[str, Studies]) -> None:
        budget = CONFIRMED_A_LOOK
        for study, listed in found.items():
            sight = Sight(listed.instances, {name: _count(studies.get(study)) for name, studies in held.items()})
            finding = self._unasked(study, sight, confirm=budget > 0)
            if finding is None:
                finding = await self._asked(sides, study, sight, confirm=budget > 0)
                budget -= finding.state is State.SAME
            self._memories[study] = finding.memory
            self.result.note(finding)

    def _unasked(self, study: str, sight: Sight, *, confirm: bool) -> Finding | None:
        """Return what can be said of a study without asking about it; None where it has to be asked about."""
        now, plan = trio.current_time(), self._plan
        memory = self._memories.get(study, Memory())
        if (plan.source, study) in self._context.busy:
            return Finding(State.UNDERWAY, memory)
        if memory.is_settled(sight, now):
            return Finding(State.SAME, memory)
        if memory.attempt is not None and not memory.attempt.complete and not may_try(memory.attempt, None, now, plan.interval_s):
            return Finding(State.PAUSED, memory)
        if plan.selection.everything and sight.equal and not confirm:
            return Finding(State.SAME, memory.agree_by_counts(sight, now))
        return None

    async def _asked(self, sides: Sides, study: str, sight: Sight, *, confirm: bool) -> Finding:
        """Compare a study; one that a side refuses to answer about waits for its next try, and keeps no other from its turn."""
        memory = self._memories.get(study, Memory())
        at_hand = StudyLook(self._plan, self._context, sides, study=study, sight=sight, memory=memory)
        try:
            return await at_hand.run(trio.current_time(), confirm=confirm)
        except (DimseFailed, UnreadableAnswer) as error:
            log.warning("sync_study_not_asked", sync=self._plan.name, study=study, error=str(error))
            self.result.fail(error)
            return Finding(State.PAUSED, memory.tried("asked", trio.current_time(), complete=False))


def _count(held: StudyHeld | None) -> int | None:
    return 0 if held is None else held.instances
