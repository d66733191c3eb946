"""The retrieval of one study: plan, move, settle, compare, repair, look again for growth, verdict. Runs in trio.

Nothing here believes the source: the expectation is what it lists, the result is what the ledger holds. Everything that
decides is in `plan`, `tally` and `repair`; this module carries it out.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import structlog
import trio
from sqlalchemy import Connection

from gateway.association.contexts import STUDY_ROOT_CONTEXTS
from gateway.association.requestor import Requestor, next_message_id
from gateway.domain import Basis, Priority, VerdictKind
from gateway.errors import AssociationError, LedgerError, SpoolFull
from gateway.ledger import learned, retrievals
from gateway.retrieve import plan, remarks, repair
from gateway.retrieve.call import Move, Moved, tell_trio
from gateway.retrieve.correlate import Watch
from gateway.retrieve.events import Event, Progress, Repairing, StudyPlanned, Verdict, Waiting
from gateway.retrieve.means import BOTH_ORDERS, LESSON_S, Means, Signal, Source
from gateway.retrieve.repair import End, Patience, Round, Step, Target, Way
from gateway.retrieve.settle import settle
from gateway.retrieve.tally import NOT_LISTED_AGAIN, Expectation, Tally, grown, judge, tally
from gateway.retrieve.wanted import Errand, Wanted

log = structlog.get_logger()

MAX_GROWTH = 3
"""How often a study is listed again after its instances came: one that still grows then is left as it is, and said so."""

ROOM_WAIT_S = 3600.0
"""How long a C-MOVE waits for room in the spool before the study is given up."""

ROOM_LOOK_S = 1.0
"""How often it looks for room meanwhile."""

PROGRESS_EVERY_S = 0.25
"""How often progress is told at most."""


class StudyRetrieval:
    """One study on its way from a source to us."""

    def __init__(
        self,
        means: Means,
        source: Source,
        errand: Errand,
        job_id: int,
        wanted: Wanted,
        *,
        asked: str,
        tell: Callable[[Event], Awaitable[None]],
        hint: Callable[[Event], Awaitable[None]],
    ) -> None:
        """`tell` waits for a slow listener; `hint`, for what is told while a source is busy with us, never does."""
        self._means = means
        self._source = source
        self._job_id = job_id
        self._errand = errand
        self._wanted = wanted
        self._study = wanted.study_instance_uid
        self._asked = asked
        self._tell = tell
        self._hint = hint
        self._signal = Signal()
        self._expectation = Expectation(Basis.UIDS, None, {})
        self._skipped: set[str] = set()
        self._tally = Tally((), 0, (), None)
        self._moved: Moved | None = None
        self._disproved = False
        self._began = time.monotonic()

    async def run(self, *, skip_existing: bool, fresh: bool = False) -> Verdict:
        """Retrieve the study and return its verdict, which the ledger then has; see `Session.retrieve`.

        Raises:
            LedgerError: the ledger cannot be used.

        """
        opened = await self._means.write(
            partial(
                retrievals.open_retrieval,
                job_id=self._job_id,
                source=self._source.name,
                study_instance_uid=self._study,
                fresh=fresh,
                now=self._means.clock(),
            )
        )
        token = trio.lowlevel.current_trio_token()
        nudge = partial(tell_trio, token, self._signal.fire)
        errand, source = self._errand, self._source
        self._watch = Watch(opened.id, source.name, nudge, errand.directed, errand.priority, flowed_at=source.flowed_at)
        self._means.arrivals.open(self._watch)
        try:
            verdict = await self._judged(skip_existing)
        finally:
            self._means.arrivals.close(self._watch)
        settled = partial(
            retrievals.settle, retrieval_id=opened.id, verdict=verdict.kind, note=verdict.note, now=self._means.clock()
        )
        await self._means.write(settled)
        return verdict

    async def _judged(self, skip_existing: bool) -> Verdict:
        try:
            await self._plan(skip_existing)
        except AssociationError as error:
            return self._verdict(VerdictKind.FAILED, f"the source could not be asked what it has: {error}")
        if not self._tally.whole:
            await self._fetch_with_progress()
        registration = partial(self._means.registration, self._source.table)
        trouble = remarks.trouble(self._moved, self._watch, registration)
        conflicts = await self._means.read(partial(retrievals.conflicts, retrieval_id=self._watch.retrieval_id))
        expectation = replace(self._expectation, notes=(*self._expectation.notes, *remarks.conflicts(conflicts)))
        kind, note = judge(expectation, self._tally, skipped=len(self._skipped), trouble=trouble)
        return self._verdict(kind, note)

    def _verdict(self, kind: VerdictKind, note: str) -> Verdict:
        verdict = Verdict(
            kind=kind,
            study_instance_uid=self._study,
            basis=self._expectation.basis,
            expected=self._expectation.count,
            received=self._tally.received,
            skipped=len(self._skipped),
            missing=self._tally.missing,
            note=note,
            seconds=round(time.monotonic() - self._began, 3),
            bytes=self._watch.bytes,
            asked=self._asked,
            retrieval_id=self._watch.retrieval_id,
        )
        counts = {"expected": verdict.expected, "received": verdict.received, "missing": len(verdict.missing)}
        log.info("study_ended", study=self._study, source=self._source.name, verdict=str(kind), seconds=verdict.seconds, **counts)
        return verdict

    # Planning

    async def _plan(self, skip_existing: bool) -> None:
        self._expectation = await self._list()
        if skip_existing and self._means.existing is not None and self._expectation.listed:
            where = self._errand.destinations
            existing = partial(self._means.existing, self._source.name, self._study, self._expectation.series, where)
            held = await trio.to_thread.run_sync(existing, limiter=self._means.threads, abandon_on_cancel=True)
            self._skipped = held & set(self._expectation.listed)
        await self._expect()
        for uid, size in (await self._received()).items():
            self._watch.note(uid, size)
        if self._errand.priority is Priority.HIGH:
            await self._means.write(
                partial(retrievals.hasten, retrieval_id=self._watch.retrieval_id, priority=self._errand.priority)
            )
        present = await self._compare()
        await self._tell(
            StudyPlanned(
                self._study,
                self._watch.retrieval_id,
                self._expectation.basis,
                self._expectation.count,
                len(self._skipped),
                present.received,
            )
        )

    async def _list(self) -> Expectation:
        return await self._means.ask(self._source, partial(_list_study, self._wanted), self._hint, self._study)

    async def _expect(self) -> None:
        expectation = self._expectation
        record = partial(
            retrievals.expect,
            retrieval_id=self._watch.retrieval_id,
            basis=expectation.basis,
            expected_count=expectation.count,
            listed=expectation.listed,
            skipped=self._skipped,
        )
        await self._means.write(record)
        self._means.arrivals.expect(self._watch, expectation.listed.keys() - self._skipped)

    # Comparing

    async def _received(self) -> Mapping[str, int]:
        query: Callable[[Connection], dict[str, int]]
        if self._expectation.basis is Basis.COUNTS:
            query = partial(retrievals.received_of_study, retrieval_id=self._watch.retrieval_id, study_instance_uid=self._study)
        elif self._errand.destinations:
            where = self._errand.destinations
            query = partial(retrievals.received_for, retrieval_id=self._watch.retrieval_id, destinations=where)
        else:
            query = partial(retrievals.received, retrieval_id=self._watch.retrieval_id)
        return await self._means.read(query)

    async def _compare(self) -> Tally:
        self._tally = tally(self._expectation, await self._received(), self._skipped)
        return self._tally

    def _outstanding(self) -> int | None:
        """Return how many instances are missing as far as is known without the ledger."""
        if self._watch.expected:
            return len(self._watch.expected) - self._watch.present
        count = self._expectation.count
        return None if count is None else max(0, count - self._watch.present)

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
        while True:
            await self._signal.wait()
            await self._hint(self._progress())
            await trio.sleep(PROGRESS_EVERY_S)

    def _progress(self) -> Progress:
        watch = self._watch
        return Progress(self._study, watch.retrieval_id, self._expectation.count, watch.present, watch.bytes)

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
        while not self._tally.whole:
            rounds = list[Round]()
            async with self._source.moves.take(self._errand.priority, number=number) as slot:
                number = slot.number
                with slot.scope:
                    await self._rounds(rounds)
                if not slot.asked_back:
                    return rounds
                log.info("study_made_way", study=self._study, source=self._source.name)
                await self._means.caught_up()
                await self._compare()
        return []

    async def _rounds(self, rounds: list[Round]) -> None:
        source = self._source
        step: Step | None = Step(Way.FIRST, source.order)
        while step is not None:
            if rounds:
                await self._hint(self._repairing(remarks.name(step, source.order), len(rounds)))
                await self._pause_after(rounds)
            async with source.turns.take(step.order):
                rounds.append(await self._round(step))
            step = repair.next_step(rounds, self._tally.short, basis=self._expectation.basis, both_orders=source.both_orders)

    def _repairing(self, step: str, number: int) -> Repairing:
        missing = self._tally.short if self._tally.short is not None else 0
        log.info("study_repair", study=self._study, source=self._source.name, step=step, round=number, missing=missing)
        return Repairing(self._study, self._watch.retrieval_id, step, number, missing)

    async def _pause_after(self, rounds: list[Round]) -> None:
        """Give a source whose association broke some time before it is asked again."""
        broken = 0
        for one in reversed(rounds):
            if one.end is not End.BROKEN or one.gained:
                break
            broken += 1
        pause = self._means.backoff.delay(broken, self._means.jitter()) if broken else None
        if pause is not None:
            await self._hint(Waiting(self._study, "unreachable", pause))
            await trio.sleep(pause)

    async def _round(self, step: Step) -> Round:
        before, arrivals_before = self._tally.received, self._watch.arrivals
        asked, end = list[Moved](), End.ANSWERED
        for target in repair.targets(step, self._study, self._expectation, self._tally.missing):
            moved = await self._move(target)
            asked.append(moved)
            end = moved.end
            if end is not End.ANSWERED and not (step.way is Way.SINGLY and remarks.only_this_one(moved)):
                break
        claimed = sum(one.claimed for one in asked)
        await self._settle(lambda: claimed > self._watch.arrivals - arrivals_before, answered=end is End.ANSWERED)
        gained = (await self._compare()).received - before
        return Round(step, end, gained, sum(one.failed for one in asked))

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
            await self._remember(learned.ASYNCHRONOUS, "yes")
        elif settled.in_vain:
            self._disproved = True

    async def _move(self, target: Target) -> Moved:
        """Carry out one C-MOVE, again and again while the source refuses because it is busy."""
        attempt = 0
        while True:
            attempt += 1
            if not await self._room():
                return self._note(Moved(End.REFUSED, error=SpoolFull("the spool has no room for further instances")))
            moved = self._note(await self._ask(target))
            pause = self._means.backoff.delay(attempt, self._means.jitter()) if moved.end is End.BUSY else None
            if pause is None:
                return moved
            await self._hint(Waiting(self._study, "busy", pause))
            await trio.sleep(pause)

    def _note(self, moved: Moved) -> Moved:
        self._moved = moved
        return moved

    async def _ask(self, target: Target) -> Moved:
        message_id = next_message_id()
        self._means.arrivals.register(self._watch, message_id)
        move = Move(
            partial(self._source.connect, STUDY_ROOT_CONTEXTS),
            plan.move_identifier(target),
            destination_ae=self._means.ae_title,
            message_id=message_id,
            watch=self._watch,
        )
        before = self._watch.arrivals
        moved = await move.result(self._means.threads, self._source.table.progress_timeout_s)
        # What came before the final response must not count as come after it.
        await self._means.caught_up()
        if moved.end is End.BUSY and self._watch.arrivals > before:
            moved = replace(moved, end=End.ANSWERED)  # it sent some, and says nothing of how many: it was not too busy to begin
        log.info(
            "move_ended",
            study=self._study,
            source=self._source.name,
            level=str(target.level),
            message_id=message_id,
            end=str(moved.end),
            status=None if moved.last is None else f"{moved.last.status:04X}",
            claimed=moved.claimed,
            failed=moved.failed,
            arrived=self._watch.arrivals,
        )
        return moved

    async def _room(self) -> bool:
        if self._means.has_room():
            return True
        await self._hint(Waiting(self._study, "room", ROOM_LOOK_S))
        for _ in range(int(ROOM_WAIT_S / ROOM_LOOK_S)):
            await trio.sleep(ROOM_LOOK_S)
            if self._means.has_room():
                return True
        return False

    # Growing and learning

    async def _grew(self) -> bool:
        """List the study again; tell whether there is more to fetch than was asked for."""
        before = self._expectation
        try:
            again = await self._list()
        except AssociationError as error:
            log.warning("study_not_listed_again", study=self._study, source=self._source.name, error=str(error))
            self._expectation = replace(before, notes=(*before.notes, NOT_LISTED_AGAIN))
            return False
        self._expectation = grown(before, again)
        if self._expectation == before:
            return False
        await self._expect()
        was_short = self._tally.short or 0
        return ((await self._compare()).short or 0) > was_short

    async def _learn(self, rounds: list[Round]) -> None:
        lesson = repair.lesson(rounds)
        if lesson == "both":
            self._source.both_orders = True
            await self._remember(BOTH_ORDERS, "yes")
        elif lesson is not None:
            self._source.turns.learn(lesson)
            await self._remember(learned.ACCEPTANCE_ORDER, lesson)

    async def _remember(self, fact: str, value: str) -> None:
        log.info("source_taught", source=self._source.name, fact=fact, value=value)
        now = self._means.clock()
        await self._means.write(
            partial(learned.put, subject=self._source.subject, fact=fact, value=value, now=now, expires_at=now + LESSON_S)
        )


def _list_study(wanted: Wanted, requestor: Requestor, busy: bool) -> Expectation:
    return plan.list_study(requestor, wanted, busy=busy)
