"""The retrieval of one study: plan, move, settle, compare, repair, look again for growth, verdict. Runs in trio.

Nothing here believes the source: the expectation is what it lists, the result is what the ledger holds. Everything that
decides is in `listing`, `verdict` and `recovery`; this module carries it out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
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
from gateway.retrieve.arrivals import Watch, settle
from gateway.retrieve.context import BOTH_ORDERS, RetrieveContext, Source
from gateway.retrieve.events import Event, Progress, Repairing, StudyPlanned, Verdict, Waiting
from gateway.retrieve.operations import Asking, Moved, only_this_one, trouble
from gateway.retrieve.recovery import AcceptanceOrder, End, Method, Patience, Round, Step, Target, Way, in_vain
from gateway.retrieve.request import JobSpec, Wanted
from gateway.retrieve.state import RetrievalRecord
from gateway.retrieve.verdict import NOT_LISTED_AGAIN, Expectation, Tally, conflict_notes, grown, judge

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
        self._moved: Moved | None = None
        self._method = source.methods[0]
        self._disproved = False
        self._stalled = False
        self._began = time.monotonic()

    async def run(self, *, skip_existing: bool, fresh: bool = False) -> Verdict:
        """Retrieve the study and return its verdict, which the ledger then has; see `Session.retrieve`.

        Raises:
            LedgerError: the ledger cannot be used.

        """
        now = self._context.clock()
        opened = await self._context.write(
            partial(
                retrievals.open_retrieval,
                job_id=self._job_id,
                source=self._source.name,
                study_instance_uid=self._study,
                fresh=fresh,
                now=now,
            )
        )
        self._resumed = opened.started_at != now
        self._record = RetrievalRecord(opened.id, self._study, self._spec)
        spec, source = self._spec, self._source
        self._watch = Watch(opened.id, source.name, self._signal.give, spec.directed, spec.priority, flowed_at=source.flowed_at)
        self._context.arrivals.open(self._watch)
        try:
            verdict = await self._judged(skip_existing)
        finally:
            self._context.arrivals.close(self._watch)
        settled = partial(
            retrievals.settle, retrieval_id=opened.id, verdict=verdict.kind, note=verdict.note, now=self._context.clock()
        )
        await self._context.write(settled)
        metrics.RETRIEVALS.add(source=self._source.name, verdict=verdict.kind)
        return verdict

    async def _judged(self, skip_existing: bool) -> Verdict:
        try:
            await self._plan(skip_existing)
        except AssociationError as error:
            return self._verdict(VerdictKind.FAILED, f"the source could not be asked what it has: {error}")
        if not self._record.tally.whole or self._record.expectation.short:
            await self._fetch_with_progress()
        registration, record = partial(self._context.registration, self._source.table), self._record
        told = (*record.expectation.notes, *conflict_notes(record.conflicts))
        expectation = replace(record.expectation, notes=told)
        kind, note = judge(
            expectation, record.tally, skipped=len(record.skipped), trouble=trouble(self._moved, self._watch, registration)
        )
        return self._verdict(kind, note)

    def _verdict(self, kind: VerdictKind, note: str) -> Verdict:
        record = self._record
        verdict = Verdict(
            kind=kind,
            study_instance_uid=self._study,
            basis=record.expectation.basis,
            expected=record.expectation.count,
            received=record.tally.received,
            skipped=len(record.skipped),
            missing=record.tally.missing,
            note=note,
            seconds=round(time.monotonic() - self._began, 3),
            bytes=self._watch.bytes,
            asked=self._asked,
            unfit=dict(record.tally.unfit),
            retrieval_id=self._watch.retrieval_id,
        )
        counts = {"expected": verdict.expected, "received": verdict.received, "missing": len(verdict.missing)}
        log.info("study_ended", study=self._study, source=self._source.name, verdict=str(kind), seconds=verdict.seconds, **counts)
        return verdict

    # Planning

    async def _plan(self, skip_existing: bool) -> None:
        record, where = self._record, self._spec.destinations
        record.expectation = await self._with_encodings(await self._list())
        if skip_existing and self._context.existing is not None and record.expectation.listed:
            existing = partial(self._context.existing, self._source.name, self._study, record.expectation.series, where)
            held = await trio.to_thread.run_sync(existing, limiter=self._source.queries, abandon_on_cancel=True)
            record.skipped = held & set(record.expectation.listed)
        if self._resumed:
            await self._context.caught_up()
        for uid, size in (await self._expect()).items():
            self._watch.note(uid, size)
        basis, count = record.expectation.basis, record.expectation.count
        planned = StudyPlanned(self._study, record.retrieval_id, basis, count, len(record.skipped), record.tally.received)
        await self._tell(planned)

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

    async def _expect(self) -> Mapping[str, int]:
        """Have the ledger know what is expected; return what of it is here, by UID with lengths in bytes."""
        here = await self._context.write(self._record.expect)
        self._context.arrivals.expect(self._watch, self._record.wanted)
        self._record.take(here)
        return here.came.fit

    async def _compare(self) -> Tally:
        # Where all of it was seen to be recorded, nothing else has to be waited for.
        record = self._record
        seen = self._outstanding() == 0
        if not (seen and record.take(await self._context.read(record.here, caught_up=False)).whole):
            record.take(await self._context.read(record.here))
        if record.tally.unfit:
            self._context.arrivals.forget(self._watch, record.tally.unfit)
        return record.tally

    def _outstanding(self) -> int | None:
        """Return how many instances are still to arrive, also of those that are counted and not listed; None where nobody knows."""
        watch, expectation = self._watch, self._record.expectation
        outstanding = watch.outstanding(expectation.count)
        if outstanding == 0 and expectation.short:
            counted = expectation.counted or 0
            return max(0, counted - len(watch.received)) if counted > len(expectation.listed) else None
        return outstanding

    # Moving and repairing

    async def _fetch_with_progress(self) -> None:
        failure: LedgerError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            try:
                await self._fetch()
            except LedgerError as error:
                failure = error  # raised again outside the nursery, as it was
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await self._hint(self._progress())

    async def _report(self) -> None:
        told = self._progress()
        while True:
            await trio.sleep(PROGRESS_EVERY_S)
            if (now := self._progress()) != told:
                await self._hint(now)
                told = now

    def _progress(self) -> Progress:
        watch = self._watch
        return Progress(self._study, watch.retrieval_id, self._record.expectation.count, watch.present, watch.bytes)

    async def _fetch(self) -> None:
        for _ in range(MAX_GROWTH):
            rounds = await self._rounds_in_turn()
            await self._learn(rounds)
            if (rounds and rounds[-1].end is End.REFUSED) or not await self._grew():
                return
            await self._hint(self._repairing("growth", 0))

    async def _rounds_in_turn(self) -> list[Round]:
        """Fetch what is missing in a slot of the source, and carry on in another where that one is asked back."""
        number: int | None = None
        begun = False
        while not self._record.tally.whole or (self._record.expectation.short and not begun):
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
        if self._method is Method.GET or not self._record.tally.unfit:
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
                await self._pause_after(rounds)
            async with source.orders.take(step.order, for_all=step.way is not Way.FIRST):
                rounds.append(await self._round(step))
            step = self._next_step(rounds) if persist or not self._in_vain(rounds) else None
        return rounds

    def _next_step(self, rounds: list[Round]) -> Step | None:
        source = self._source
        if not rounds:
            return Step(Way.FIRST, source.order)
        return recovery.next_step(
            rounds, self._record.tally.short, basis=self._record.expectation.basis, both_orders=source.both_orders
        )

    def _repairing(self, step: str, number: int, after: End = End.ANSWERED) -> Repairing:
        missing = self._record.tally.short if self._record.tally.short is not None else 0
        log.info("study_repair", study=self._study, source=self._source.name, step=step, round=number, missing=missing)
        return Repairing(self._study, self._watch.retrieval_id, step, number, missing, str(after))

    async def _pause_after(self, rounds: list[Round]) -> None:
        """Give a source whose association broke some time before it is asked again."""
        broken = recovery.broken_in_a_row(rounds)
        pause = self._context.backoff.delay(broken, self._context.jitter()) if broken else None
        if pause is not None:
            await self._hint(Waiting(self._study, "unreachable", pause))
            await trio.sleep(pause)

    async def _round(self, step: Step) -> Round:
        before, arrivals_before = self._record.tally, self._watch.arrivals
        asked, end, stalls = list[Moved](), End.ANSWERED, 0
        by_get = self._method is Method.GET
        for target in recovery.targets(step, self._study, self._record.expectation, self._record.tally.missing):
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
        if self._method is Method.MOVE:
            await self._settle(lambda: claimed > self._watch.arrivals - arrivals_before, answered=end is End.ANSWERED)
        now = await self._compare()
        classes = frozenset(self._record.classes.get(uid, "") for uid in set(before.missing).difference(now.missing))
        failed, unfit = sum(one.failed for one in asked), sum(uid in now.unfit for uid in now.missing)
        return Round(step, end, now.received - before.received, failed, unfit, classes - {""})

    async def _settle(self, claims_more: Callable[[], bool], *, answered: bool) -> None:
        """Wait for the arrivals; what still comes after an association broke proves nothing about the source's habits."""
        source = self._source
        settled = await settle(
            self._watch,
            self._signal,
            Patience(source.table.settle_s, source.table.progress_timeout_s),
            missing=self._outstanding,
            claims_more=claims_more,
            asynchronous=source.asynchronous,
            disproved=self._disproved,
        )
        if answered and settled.arrived and not source.asynchronous:
            source.asynchronous = True
            await self._context.remember(self._source, learned.ASYNCHRONOUS, "yes")
        elif settled.in_vain:
            self._disproved = True

    async def _move(self, target: Target, order: AcceptanceOrder) -> Moved:
        """Carry out one C-MOVE, or the C-GETs in its place, again and again while the source refuses because it is busy."""
        attempt = 0
        while True:
            attempt += 1
            if not await self._context.room(self._hint, self._study):
                full = SpoolFull("the spool has no room for further instances")
                return self._note(Moved(End.REFUSED, error=full, method=self._method))
            moved = self._note(await self._ask(target, order))
            pause = self._context.backoff.delay(attempt, self._context.jitter()) if moved.end is End.BUSY else None
            if pause is None:
                return moved
            await self._hint(Waiting(self._study, "busy", pause))
            await trio.sleep(pause)

    def _note(self, moved: Moved) -> Moved:
        self._moved = moved
        self._stalled |= moved.end is End.STALLED
        return moved

    async def _ask(self, target: Target, order: AcceptanceOrder) -> Moved:
        asking = Asking(self._context, self._source, self._watch, stalled=self._stalled)
        if self._method is Method.GET:
            return await asking.get(target, order, self._record.expectation)
        return await asking.move(target)

    # Growing and learning

    async def _grew(self) -> bool:
        """List the study again; tell whether there is more to fetch than was asked for."""
        before = self._record.expectation
        try:
            again = await self._list(before)
        except AssociationError as error:
            log.warning("study_not_listed_again", study=self._study, source=self._source.name, error=str(error))
            self._record.expectation = replace(before, notes=(*before.notes, NOT_LISTED_AGAIN))
            return False
        self._record.expectation = grown(before, again)
        if self._record.expectation == before:
            return False
        was_short = self._record.tally.short or 0
        await self._expect()
        return (self._record.tally.short or 0) > was_short

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
