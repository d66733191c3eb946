"""One job, open in the ledger, and the pull that finds its studies by the keys of a request. Runs in trio.

A `Session` retrieves studies one by one, as whoever plans them likes: sync, migrate and compare plan theirs themselves. A `Job` is
a pull: its studies are found and retrieved a few at a time, from C-ECHO to the last verdict. The root of each of its tasks is here:
an error that nobody expected ends the study it came from, with its verdict, and not the job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from gateway.archives.lister import Knowledge
from gateway.association.scu.requestor import Requestor
from gateway.association.upper.contexts import VERIFICATION_CONTEXTS
from gateway.core import metrics
from gateway.core.domain import Basis, VerdictKind
from gateway.core.errors import AssociationError, DimseFailed, GatewayError, NoPresentationContext, UnreadableAnswer
from gateway.core.log import get_logger
from gateway.core.single_values import how_passed_over, passed_over
from gateway.ledger.jobs import retrievals
from gateway.retrieve import listing
from gateway.retrieve.context import RetrieveContext, Source
from gateway.retrieve.events import Event, JobEnded, JobStarted, PullRequest, StudyEnded, Verdict
from gateway.retrieve.request import JobSpec, Wanted
from gateway.retrieve.source import SourceAssociations, converse
from gateway.retrieve.study import StudyRetrieval

log = get_logger()

STOP_S = 10.0
"""The longest time that recording that a cancelled job has stopped may take."""

SHOWN_OTHERS = 5
"""Values that are told of answers which were passed over."""

GIVE_UP_AFTER = 3
"""So many keys in a row which the source could not be asked about make an end of asking: the others are reported as not asked."""

KEYS_AT_A_TIME = 20
"""Keys asked on one association at STUDY level: enough to save associations, few enough that the first study comes soon."""

EARLIER_S = 86400.0
"""The age up to which a complete study's verdict holds when its job carries on; after that it is listed anew for what was added."""

Tell = Callable[[Event], Awaitable[None]]

Key = Mapping[str, str]
Found = tuple[Wanted, str]
"""A study with the key that named it, in words."""


async def nobody(_event: Event) -> None:
    """Tell nobody."""


def opening(spec: JobSpec) -> Callable[..., retrievals.Job]:
    """Return the change of the ledger that opens the job of `spec`; it wants the time as ``now``."""
    return partial(
        retrievals.open_job,
        kind=spec.kind,
        fingerprint=spec.fingerprint,
        criteria=spec.criteria,
        destinations=spec.destinations,
        priority=spec.priority,
        reopen=spec.reopen,
    )


class Session:
    """A job of retrievals at one source. `retrieve` may run several times at once."""

    def __init__(self, context: RetrieveContext, source: Source, spec: JobSpec, job: retrievals.Job) -> None:
        self.job_id = job.id
        self.resumed = job.resumed
        self.reopened = job.reopened
        self.source = source.name
        self._context = context
        self._source = source
        self._spec = spec
        self._closed = False

    @classmethod
    async def open(cls, context: RetrieveContext, source: Source, spec: JobSpec) -> Session:
        """Open the job of `spec` in the ledger, or carry on the one of the same fingerprint that was not done.

        Raises:
            LedgerError: the ledger cannot be used.

        """
        job = await context.write(partial(opening(spec), now=context.clock()))
        log.info("job_started", job=job.id, kind=spec.kind, source=source.name, resumed=job.resumed)
        return cls(context, source, spec, job)

    async def retrieve(
        self,
        wanted: Wanted,
        *,
        asked: str = "",
        skip_existing: bool = False,
        fresh: bool = False,
        tell: Tell = nobody,
        hint: Tell | None = None,
    ) -> Verdict:
        """Retrieve one study, or the part of it that is wanted, and return the verdict, which the ledger then has.

        Instances of an earlier run of the same job count and are not moved again, unless `fresh` begins from nothing. With
        `skip_existing` the destinations are asked what they hold. `tell` hears what happens and is waited for, `hint` (else
        `tell`) hears what is only worth knowing at the time and must return at once. When cancelled, the C-MOVE ends between
        instances and the study stays open in the ledger.

        Raises:
            LedgerError: the ledger cannot be used.

        """
        retrieval = StudyRetrieval(
            self._context, self._source, self._spec, self.job_id, wanted, asked=asked, tell=tell, hint=hint or tell
        )
        return await retrieval.run(skip_existing=skip_existing, fresh=fresh)

    async def close(self, state: retrievals.JobState) -> None:
        """Record where the job stands; only the first time counts."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_S):
            await self._context.write(partial(retrievals.set_job_state, job_id=self.job_id, state=state, now=self._context.clock()))
        log.info("job_ended", job=self.job_id, source=self.source, state=state)


@dataclass(frozen=True)
class Answer:
    """A source's answer to one key: its matches and why there may be more, or the refusal; or why it could not be asked."""

    key: Key
    matches: tuple[Wanted, ...] = ()
    refusal: DimseFailed | UnreadableAnswer | None = None
    doubt: str = ""
    trouble: str = ""


class Job:
    """A request being carried out; `run` is its root task."""

    def __init__(
        self, context: RetrieveContext, source: Source, request: PullRequest, events: trio.MemorySendChannel[Event]
    ) -> None:
        self._context = context
        self._source = source
        self._request = request
        self._events = events
        self._session: Session | None = None
        self._verdicts: Counter[VerdictKind] = Counter()
        self._earlier: dict[str, retrievals.Retrieval] = {}
        self._seen: set[str] = set()
        self._unasked = 0
        self._error = ""

    async def run(self) -> None:
        """Carry the job out and tell it all; ends with `JobEnded`, or with state ``stopped`` when cancelled."""
        state: retrievals.JobState = "stopped"
        try:
            async with self._events:
                state = await self._tell_all()
        finally:
            await self._close(state)

    @property
    def _id(self) -> int | None:
        return None if self._session is None else self._session.job_id

    async def _tell_all(self) -> retrievals.JobState:
        try:
            await self._studies(await self._started())
        except GatewayError as error:
            self._fail(error)
        if self._error:
            log.error("job_failed", job=self._id, source=self._source.name, error=self._error)
        counts = {str(kind): count for kind, count in self._verdicts.items()}
        state: retrievals.JobState = "stopped" if self._error else "done"
        await self._close(state)
        await self._events.send(JobEnded(self._id, **counts, error=self._error))
        return state

    async def _close(self, state: retrievals.JobState) -> None:
        if self._session is not None:
            await self._session.close(state)

    def _fail(self, error: GatewayError) -> None:
        self._error = self._error or str(error)

    async def _started(self) -> Session:
        await self._echo()
        session = self._session = await Session.open(self._context, self._source, self._request.spec())
        if session.resumed:
            now = self._context.clock()
            await self._context.write(partial(retrievals.forget_unfound, job_id=session.job_id))
            earlier = await self._context.read(partial(retrievals.retrievals_of, job_id=session.job_id))
            unproved = await self._context.read(partial(retrievals.unproved, job_id=session.job_id))
            self._earlier = {one.study_instance_uid: one for one in earlier if one.id not in unproved and _holds(one, now)}
        await self._events.send(JobStarted(session.job_id, self._source.name, session.resumed))
        return session

    async def _echo(self) -> None:
        """Ask whether the source is there; one that has no Verification service is asked all the same."""
        once = SourceAssociations(partial(self._source.connect, VERIFICATION_CONTEXTS), keeps=False)
        try:
            await converse(once, Requestor.echo, self._source.queries)
        except NoPresentationContext:
            log.info("source_without_verification", source=self._source.name)
        except AssociationError as error:
            keys, note = self._request.keys(), f"the source could not be asked: {error}"
            for key in keys:
                study = key.get("StudyInstanceUID", "")
                await self._ended(Verdict(VerdictKind.FAILED, study, Basis.UIDS, None, 0, note=note, asked=_words(key)))
            raise

    async def _studies(self, session: Session) -> None:
        """Find the studies and retrieve them; one more than may move at a time, so that the next is planned meanwhile."""
        found, studies = trio.open_memory_channel[Found](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._find, session, found)
            for _ in range(self._source.table.moves + 1):
                nursery.start_soon(self._retrieve, session, studies.clone())
            studies.close()

    async def _find(self, session: Session, found: trio.MemorySendChannel[Found]) -> None:
        keys = self._request.keys()
        async with found:
            for start in range(0, len(keys), KEYS_AT_A_TIME):
                some = [key for key in keys[start : start + KEYS_AT_A_TIME] if not await self._had(key.get("StudyInstanceUID", ""))]
                for answer in await self._ask(some):
                    await self._take(session, answer, found)

    async def _ask(self, keys: Sequence[Key]) -> list[Answer]:
        """Ask for `keys` on one association; where that fails, for each by itself, so that one costs the others nothing."""
        if not keys:
            return []
        if self._unasked < GIVE_UP_AFTER:
            try:
                answers = await self._context.ask(self._source, partial(_answers, keys, self._source.knowledge), self._hint)
            except AssociationError as error:
                self._fail(error)
                self._unasked += GIVE_UP_AFTER if error.retryable else 1  # what may pass was waited for already
            else:
                self._unasked = 0
                return answers
        if len(keys) == 1 or self._unasked >= GIVE_UP_AFTER:
            return [Answer(key, trouble=self._error) for key in keys]
        return [answer for key in keys for answer in await self._ask([key])]

    async def _take(self, session: Session, answer: Answer, found: trio.MemorySendChannel[Found]) -> None:
        asked = _words(answer.key)
        if not answer.matches:
            await self._unfound(session, answer, asked)
        if answer.doubt:
            await self._record(session, Verdict(VerdictKind.INCOMPLETE, "", Basis.UIDS, None, 0, note=answer.doubt, asked=asked))
        for match in answer.matches:
            if not match.study_instance_uid:
                await self._unnamed(session, asked)
                continue
            if match.study_instance_uid in self._seen or await self._had(match.study_instance_uid):
                continue
            self._seen.add(match.study_instance_uid)
            await found.send((match, asked))

    async def _had(self, study: str) -> bool:
        """Tell whether the same job had the study complete in an earlier run, and say so once."""
        earlier = self._earlier.get(study)
        if earlier is None:
            return False
        if study not in self._seen:
            self._seen.add(study)
            listed, skipped = await self._context.read(partial(retrievals.expected, retrieval_id=earlier.id))
            count = earlier.expected_count or 0
            seconds = round((earlier.ended_at or earlier.started_at) - earlier.started_at, 3)
            verdict = Verdict(
                VerdictKind.COMPLETE,
                study,
                earlier.basis,
                earlier.expected_count,
                (len(listed) if listed else count) - len(skipped),
                len(skipped),
                note=earlier.note,
                seconds=seconds,
                retrieval_id=earlier.id,
            )
            await self._ended(verdict, earlier=True)
        return True

    async def _unfound(self, session: Session, answer: Answer, asked: str) -> None:
        study = answer.key.get("StudyInstanceUID", "")
        passed = how_passed_over(answer.key)
        if answer.trouble:
            kind, note = VerdictKind.FAILED, f"the source could not be asked: {answer.trouble}"
        elif answer.refusal is None:
            kind, note = VerdictKind.EMPTY, "; ".join(filter(None, ("the source lists no such study", passed)))
        else:
            how = "refuses the query" if isinstance(answer.refusal, DimseFailed) else "cannot be understood"
            kind, note = VerdictKind.FAILED, f"the source {how}: {answer.refusal}"
        verdict = Verdict(kind, study, Basis.UIDS, 0 if kind is VerdictKind.EMPTY else None, 0, note=note, asked=asked)
        await self._record(session, verdict)

    async def _unnamed(self, session: Session, asked: str) -> None:
        note = "the source lists a study under something that is no UID: it cannot be asked for"
        await self._record(session, Verdict(VerdictKind.FAILED, "", Basis.UIDS, None, 0, note=note, asked=asked))

    async def _hint(self, event: Event) -> None:
        """Tell what is only worth knowing at the time: a listener that does not keep up must not keep a source from others."""
        try:
            self._events.send_nowait(event)
        except trio.WouldBlock:
            log.debug("event_dropped", job=self._id, name=event.name)

    async def _record(self, session: Session, verdict: Verdict) -> None:
        now = self._context.clock()
        opened = await self._context.write(
            partial(
                retrievals.open_retrieval,
                job_id=session.job_id,
                source=self._source.name,
                study_instance_uid=verdict.study_instance_uid,
                now=now,
            )
        )
        await self._context.write(
            partial(retrievals.settle, retrieval_id=opened.id, verdict=verdict.kind, note=verdict.note, now=now)
        )
        metrics.RETRIEVALS.add(source=self._source.name, verdict=verdict.kind)
        await self._ended(verdict)

    async def _retrieve(self, session: Session, studies: trio.MemoryReceiveChannel[Found]) -> None:
        async with studies:
            async for match, asked in studies:
                await self._retrieve_one(session, match, asked)

    async def _retrieve_one(self, session: Session, wanted: Wanted, asked: str) -> None:
        skip = self._request.skip_existing
        try:
            verdict = await session.retrieve(wanted, asked=asked, skip_existing=skip, tell=self._events.send, hint=self._hint)
        except GatewayError as error:
            self._fail(error)
            verdict = _failed(wanted, asked, str(error))
        except Exception as error:
            log.exception("study_failed", study=wanted.study_instance_uid, source=self._source.name)
            verdict = _failed(wanted, asked, f"internal error: {type(error).__name__}")
        await self._ended(verdict)

    async def _ended(self, verdict: Verdict, *, earlier: bool = False) -> None:
        self._verdicts[verdict.kind] += 1
        await self._events.send(StudyEnded(verdict, earlier))


def _words(key: Key) -> str:
    """Return what was asked for whoever asked, with the values that answers to it had instead."""
    asked = ", ".join(f"{keyword} {value}" for keyword, value in key.items())
    others = passed_over(key)
    if not others:
        return asked
    more = f" and {len(others) - SHOWN_OTHERS} more" if len(others) > SHOWN_OTHERS else ""
    return f"{asked} (passed over: answers with {', '.join(others[:SHOWN_OTHERS])}{more})"


def _holds(earlier: retrievals.Retrieval, now: float) -> bool:
    """Tell whether an earlier verdict still stands: the source may have got more of a study since."""
    return earlier.verdict is VerdictKind.COMPLETE and 0 <= now - (earlier.ended_at or 0.0) < EARLIER_S


def _failed(wanted: Wanted, asked: str, note: str) -> Verdict:
    return Verdict(VerdictKind.FAILED, wanted.study_instance_uid, Basis.UIDS, None, 0, note=note, asked=asked)


def _answers(keys: Sequence[Key], knowledge: Knowledge, requestor: Requestor, busy: bool) -> list[Answer]:
    return [_answer(requestor, key, knowledge, busy) for key in keys]


def _answer(requestor: Requestor, key: Key, knowledge: Knowledge, busy: bool) -> Answer:
    try:
        named = listing.find_studies(requestor, key, busy=busy, knowledge=knowledge)
    except DimseFailed as error:
        if listing.is_busy(error) and not busy:
            raise
        return Answer(key, (), error)
    except UnreadableAnswer as error:
        return Answer(key, (), error)
    return Answer(key, named.studies, doubt=named.doubt)
