"""The retrieval of one study: plan, move, settle, compare, repair, look again for growth, verdict. Runs in trio.

Nothing here believes the source: the expectation is what it lists, the result is what the ledger holds. Everything that
decides is in `listing`, `verdict` and `recovery`; this module carries it out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial

import trio

from gateway.association.scu.requestor import Requestor
from gateway.core import metrics
from gateway.core.domain import VerdictKind
from gateway.core.errors import AssociationError, LedgerError, SpoolFull
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import Pulse
from gateway.ledger.jobs import retrievals
from gateway.ledger.peers import learned
from gateway.retrieve import listing, recovery
from gateway.retrieve.arrivals import settle
from gateway.retrieve.context import BOTH_ORDERS, RetrieveContext, Source
from gateway.retrieve.events import Event, Repairing, Verdict, Waiting
from gateway.retrieve.operations import Moved, Operations, only_this_one, trouble
from gateway.retrieve.recovery import AcceptanceOrder, End, Method, Patience, Round, Step, Target, Way, in_vain
from gateway.retrieve.request import JobSpec, Wanted
from gateway.retrieve.state import StudyState
from gateway.retrieve.verdict import NOT_LISTED_AGAIN, Expectation, Sorted, grown

log = get_logger()

MAX_GROWTH = 3
"""The number of times a study is listed again after its instances came: one that still grows then is left as it is, and said so."""

MAX_STALLS = 3
"""At so many of the things that are asked for one by one a source may stop before the rest is left."""

PROGRESS_EVERY_S = 0.25
"""The time between two reports of progress."""


class StudyRetrieval:
    """One study on its way from a source to us."""

    def __init__(
        self,
        context: RetrieveContext,
        source: Source,
        spec: JobSpec,
        job_id: int,
        wanted: Wanted,
        *,
        asked: str,
        tell: Callable[[Event], Awaitable[None]],
        hint: Callable[[Event], Awaitable[None]],
    ) -> None:
        """`tell` waits for a slow listener; `hint`, for what is told while a source is busy with us, never does."""
        self._context = context
        self._source = source
        self._job_id = job_id
        self._spec = spec
        self._wanted = wanted
        self._study = wanted.study_instance_uid
        self._asked = asked
        self._tell = tell
        self._hint = hint
        self._signal = Pulse()
        self._method = source.methods[0]
        self._moved: Moved | None = None
        self._began = time.monotonic()

    async def run(self, *, skip_existing: bool, fresh: bool = False) -> Verdict:
        """Retrieve the study and return its verdict, which the ledger then has; see `Session.retrieve`.

        Raises:
            LedgerError: the ledger cannot be used.

        """
        context, source, now = self._context, self._source, self._context.clock()
        opened = await context.write(
            partial(
                retrievals.open_retrieval,
                job_id=self._job_id,
                source=source.name,
                study_instance_uid=self._study,
                fresh=fresh,
                now=now,
            )
        )
        self._state = StudyState(
            retrieval_id=opened.id,
            study=self._study,
            source=source.name,
            spec=self._spec,
            nudge=self._signal.give,
            flowed_at=source.flowed_at,
        )
        context.arrivals.open(self._state)
        try:
            verdict = await self._judged(skip_existing, resumed=opened.started_at != now)
        finally:
            context.arrivals.close(self._state)
        settled = partial(retrievals.settle, retrieval_id=opened.id, verdict=verdict.kind, note=verdict.note, now=context.clock())
        await context.write(settled)
        metrics.RETRIEVALS.add(source=source.name, verdict=verdict.kind)
        return verdict

    async def _judged(self, skip_existing: bool, *, resumed: bool) -> Verdict:
        state = self._state
        try:
            await self._plan(skip_existing, resumed=resumed)
        except AssociationError as error:
            kind, note = VerdictKind.FAILED, f"the source could not be asked what it has: {error}"
        else:
            if not state.tally.whole or state.expectation.short:
                await self._fetch()
            kind, note = state.judged(trouble(self._moved, state, partial(self._context.registration, self._source.table)))
        verdict = state.verdict(kind, note, asked=self._asked, seconds=round(time.monotonic() - self._began, 3))
        counts = {"expected": verdict.expected, "received": verdict.received, "missing": len(verdict.missing)}
        log.info("study_ended", study=self._study, source=self._source.name, verdict=str(kind), seconds=verdict.seconds, **counts)
        return verdict

    # Planning and comparing

    async def _plan(self, skip_existing: bool, *, resumed: bool) -> None:
        found, skipped = await self._with_encodings(await self._list()), set[str]()
        if skip_existing and self._context.existing is not None and found.listed:
            existing = partial(self._context.existing, self._source.name, self._study, found.series, self._spec.destinations)
            held = await trio.to_thread.run_sync(existing, limiter=self._source.queries, abandon_on_cancel=True)
            skipped = held & set(found.listed)
        if resumed:
            await self._context.caught_up()
        here = await self._expect(found, skipped)
        self._context.arrivals.note(self._state, here.fit)
        await self._tell(self._state.planned())

    async def _with_encodings(self, found: Expectation) -> Expectation:
        """Add what the source has its instances in, where it tells that otherwise than by C-FIND."""
        ask = self._context.encodings
        if ask is None or found.transfer_syntaxes or not found.listed:
            return found
        told = await trio.to_thread.run_sync(
            ask, self._source.name, self._study, limiter=self._source.queries, abandon_on_cancel=True
        )
        classes = {uid: sop_class for uid, (sop_class, _) in told.items() if sop_class}
        syntaxes = {uid: frozenset({syntax}) for uid, (_, syntax) in told.items() if syntax}
        return replace(found, sop_classes={**found.sop_classes, **classes}, transfer_syntaxes=syntaxes)

    async def _list(self, before: Expectation | None = None) -> Expectation:
        source = self._source
        encodings = source.methods[0] is Method.GET or source.encodings is not False

        def listed(requestor: Requestor, busy: bool) -> Expectation:
            return listing.list_study(
                requestor, self._wanted, busy=busy, encodings=encodings, before=before, knowledge=source.knowledge
            )

        found = await self._context.ask(source, listed, self._hint, self._study)
        if encodings and before is None and found.listed and source.encodings is not (told := bool(found.transfer_syntaxes)):
            # One that does not tell them is not asked again: it may read each instance for the answer.
            source.encodings = told
            await self._context.remember(source, learned.ENCODINGS, "yes" if told else "no")
        return found

    async def _expect(self, expectation: Expectation, skipped: Collection[str]) -> Sorted:
        """Have arrivals and the ledger know what is expected; return what of it is here."""
        self._context.arrivals.expect(self._state, expectation, skipped)
        here = await self._context.write(self._state.record)
        self._state.compare(here)
        return here.came

    async def _compare(self) -> Sorted:
        """Compare what the ledger has with what is expected; return what of it is here."""
        state = self._state
        # Where all of it was seen to be recorded, nothing else has to be waited for.
        seen = state.outstanding() == 0
        here = await self._context.read(state.here, caught_up=not seen)
        if not state.compare(here).whole and seen:
            here = await self._context.read(state.here)
            state.compare(here)
        if state.tally.unfit:
            self._context.arrivals.forget(state, state.tally.unfit)
        return here.came

    # Moving and repairing

    async def _fetch(self) -> None:
        """Fetch what is missing, and what is listed more of it meanwhile; tell how far it came."""
        failure: LedgerError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            try:
                for _ in range(MAX_GROWTH):
                    rounds = await self._rounds_in_turn()
                    await self._learn(rounds)
                    if (rounds and rounds[-1].end is End.REFUSED) or not await self._grew():
                        break
                    await self._hint(self._repairing("growth", 0))
            except LedgerError as error:
                failure = error  # raised again outside the nursery, as it was
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await self._hint(self._state.progress())

    async def _report(self) -> None:
        told = self._state.progress()
        while True:
            await trio.sleep(PROGRESS_EVERY_S)
            if (now := self._state.progress()) != told:
                await self._hint(now)
                told = now

    async def _rounds_in_turn(self) -> list[Round]:
        """Fetch what is missing in a slot of the source, and carry on in another where that one is asked back."""
        state, number, begun = self._state, None, False
        while not state.tally.whole or (state.expectation.short and not begun):
            begun = True
            rounds = list[Round]()
            async with self._source.moves.take(self._spec.priority, number=number) as slot:
                number = slot.number
                with slot.scope:
                    rounds = await self._by_what_works()
                if not slot.asked_back:
                    return rounds
                log.info("study_made_way", study=self._study, source=self._source.name)
                await self._context.caught_up()
                await self._compare()
        return []

    async def _by_what_works(self) -> list[Round]:
        """Ask by the operation that the source carries out; where that seems not to be the usual one, try the other."""
        self._method, *others = self._source.methods
        rounds = await self._rounds([], persist=not others)
        if not others or not self._in_vain(rounds):
            await self._worked(rounds)
            await self._get_unfit(len(rounds))
            return rounds
        usual, moved = self._method, self._moved
        self._method = others[0]
        await self._hint(self._repairing(str(self._method), len(rounds)))
        instead = await self._rounds([], persist=False)
        if await self._worked(instead):
            return instead
        self._method, self._moved = usual, moved
        return await self._rounds(rounds, persist=True)

    async def _get_unfit(self, number: int) -> None:
        """Ask by C-GET for what came by C-MOVE otherwise than the source has it: some transcode in the one and not in the other."""
        if self._method is Method.GET or not self._state.tally.unfit:
            return
        usual, moved = self._method, self._moved
        self._method = Method.GET
        await self._hint(self._repairing(str(Method.GET), number))
        gained = any(one.gained for one in await self._rounds([], persist=False))
        self._method = usual
        if not gained:
            self._moved = moved

    def _in_vain(self, rounds: list[Round]) -> bool:
        if self._moved is not None and isinstance(self._moved.error, SpoolFull):
            return False
        return in_vain(rounds, proven=self._source.works is self._method)

    async def _worked(self, rounds: list[Round]) -> bool:
        """Tell whether anything came by the operation, which is learned then."""
        came = any(one.gained for one in rounds)
        if came:
            await self._context.worked(self._source, self._method)
        return came

    async def _rounds(self, rounds: list[Round], *, persist: bool) -> list[Round]:
        """Carry out the steps that follow `rounds`; without `persist` only as long as they are not in vain."""
        source = self._source
        step = self._next_step(rounds)
        while step is not None:
            if rounds:
                await self._hint(self._repairing(step.name(source.order), len(rounds), rounds[-1].end))
                broken = recovery.broken_in_a_row(rounds)
                pause = self._context.backoff.delay(broken, self._context.jitter()) if broken else None
                if pause is not None:
                    await self._hint(Waiting(self._study, "unreachable", pause))
                    await trio.sleep(pause)
            async with source.orders.take(step.order, for_all=step.way is not Way.FIRST):
                rounds.append(await self._round(step))
            step = self._next_step(rounds) if persist or not self._in_vain(rounds) else None
        return rounds

    def _next_step(self, rounds: list[Round]) -> Step | None:
        if not rounds:
            return Step(Way.FIRST, self._source.order)
        basis, short = self._state.expectation.basis, self._state.tally.short
        return recovery.next_step(rounds, short, basis=basis, both_orders=self._source.both_orders)

    def _repairing(self, step: str, number: int, after: End = End.ANSWERED) -> Repairing:
        missing = self._state.tally.short or 0
        log.info("study_repair", study=self._study, source=self._source.name, step=step, round=number, missing=missing)
        return Repairing(self._study, self._state.retrieval_id, step, number, missing, str(after))

    async def _round(self, step: Step) -> Round:
        """Ask for what is missing as `step` says, wait for the arrivals, and compare."""
        state = self._state
        before, arrivals_before = state.tally, state.arrivals
        asked, end, stalls = list[Moved](), End.ANSWERED, 0
        by_get = self._method is Method.GET
        for target in recovery.targets(step, self._study, state.expectation, before.missing):
            moved = await self._move(target, step.order)
            asked.append(moved)
            end = moved.end
            stalls += end is End.STALLED
            alone = step.way is Way.SINGLY
            # One instance alone may be what stops a source: the others are asked for all the same.
            passed = (alone and only_this_one(moved)) or (end is End.STALLED and stalls < MAX_STALLS and (alone or by_get))
            if end is not End.ANSWERED and not passed:
                break
        claimed = sum(one.claimed for one in asked)
        if not by_get:
            await self._settle(lambda: claimed > state.arrivals - arrivals_before, answered=end is End.ANSWERED)
        here = await self._compare()
        now = state.tally
        classes = frozenset(here.classes.get(uid, "") for uid in set(before.missing).difference(now.missing))
        failed, unfit = sum(one.failed for one in asked), sum(uid in now.unfit for uid in now.missing)
        return Round(step, end, now.received - before.received, failed, unfit, classes - {""})

    async def _settle(self, claims_more: Callable[[], bool], *, answered: bool) -> None:
        """Wait for the arrivals; what still comes after an association broke proves nothing about the source's habits."""
        source, state = self._source, self._state
        settled = await settle(
            state,
            self._signal,
            Patience(source.table.settle_s, source.table.progress_timeout_s),
            missing=state.outstanding,
            claims_more=claims_more,
            asynchronous=source.asynchronous,
            disproved=state.disproved,
        )
        if answered and settled.arrived and not source.asynchronous:
            source.asynchronous = True
            await self._context.remember(source, learned.ASYNCHRONOUS, "yes")
        elif settled.in_vain:
            state.disproved = True

    async def _move(self, target: Target, order: AcceptanceOrder) -> Moved:
        """Carry out one C-MOVE, or the C-GETs in its place, again and again while the source refuses because it is busy."""
        operations = Operations(self._context, self._source, self._state)
        attempt = 0
        while True:
            attempt += 1
            if not await self._context.room(self._hint, self._study):
                full = SpoolFull("the spool has no room for further instances")
                self._moved = Moved(End.REFUSED, error=full, method=self._method)
                return self._moved
            by_get = self._method is Method.GET
            self._moved = moved = await (operations.get(target, order) if by_get else operations.move(target))
            self._state.stalled |= moved.end is End.STALLED
            pause = self._context.backoff.delay(attempt, self._context.jitter()) if moved.end is End.BUSY else None
            if pause is None:
                return moved
            await self._hint(Waiting(self._study, "busy", pause))
            await trio.sleep(pause)

    # Growing and learning

    async def _grew(self) -> bool:
        """List the study again; tell whether there is more to fetch than was asked for."""
        state = self._state
        before = state.expectation
        try:
            again = await self._list(before)
        except AssociationError as error:
            log.warning("study_not_listed_again", study=self._study, source=self._source.name, error=str(error))
            state.expectation = replace(before, notes=(*before.notes, NOT_LISTED_AGAIN))
            return False
        both = grown(before, again)
        if both == before:
            state.expectation = both  # the same UIDs: what is told of them beside is not compared
            return False
        was_short = state.tally.short or 0
        await self._expect(both, state.skipped)
        return (state.tally.short or 0) > was_short

    async def _learn(self, rounds: list[Round]) -> None:
        source, lesson = self._source, recovery.lesson(rounds)
        if lesson == "both":
            source.both_orders = True
            await self._context.remember(source, BOTH_ORDERS, "yes")
        elif lesson is not None:
            source.orders.learn(lesson)
            await self._context.remember(source, learned.ACCEPTANCE_ORDER, lesson)
        elif by_class := recovery.class_lessons(rounds):
            source.orders.learn_classes(by_class)
            await self._context.remember(source, learned.CLASS_ORDERS, json.dumps(source.orders.by_class))
