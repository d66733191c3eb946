"""A migration at work: lists what is to be moved portion by portion, moves it study by study, and keeps count in the ledger.

Runs in trio. Cancelling stops the running C-MOVEs between instances; given again, or carried on by the gateway, nothing is listed
again and nothing that is complete is moved again. Every study ends with a verdict; a portion that could not be listed is tried once
more after all others, and then in the next run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import trio

from gateway.core.domain import VerdictKind
from gateway.core.errors import AssociationError, GatewayError
from gateway.core.log import get_logger
from gateway.core.single_values import how_passed_over
from gateway.jobs.migrate.context import MigrateContext
from gateway.jobs.migrate.deleting import Deleter
from gateway.jobs.migrate.estimate import Progress, seconds_left
from gateway.jobs.migrate.pacing import Pace
from gateway.jobs.migrate.request import MigrationRequest
from gateway.jobs.working_hours import Window
from gateway.ledger.jobs import planning, starts
from gateway.ledger.jobs.planning import MigrationCounts, PlannedStudy
from gateway.retrieve import Event, Repairing, Session, Verdict, Waiting, Wanted

log = get_logger()

RETRIES = 1
"""The number of further tries in one run, after all else, at portions that could not be listed and studies that came incomplete."""

RETRY_PAUSE_S = 5.0
"""The pause, in seconds, before such a further try."""

CROWDED_LOOK_S = 10.0
"""The time between two looks whether there is room; for so long an answer holds."""

TROUBLE = frozenset({"busy", "stalled", "broken"})
"""Ends of a C-MOVE that say that it was too many at once."""


@dataclass
class Migration:
    """One migration. Its public fields say how it goes; `changed` is set, and replaced, whenever they do."""

    request: MigrationRequest
    context: MigrateContext
    hours: Window
    most: int
    by_itself: bool = False
    """The gateway begins it at its start, nobody asked for it now."""
    job_id: int | None = None
    waiting: str = ""
    """The reason why nothing new is begun now."""
    problems: dict[str, str] = field(default_factory=dict)
    """Label of a portion to why it could not be listed, Study Instance UID to why it has no verdict."""
    doubts: dict[str, str] = field(default_factory=dict)
    """Label of a portion to why there may be more in it than was found."""
    kept: dict[str, str] = field(default_factory=dict)
    """Study Instance UID to why a study that was to be deleted from the source was not."""
    changed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        # One more than may move at a time: it is planned meanwhile.
        self.pace = Pace(self.most + 1, limit=min(2, self.most + 1), began=trio.current_time())
        self._turns = trio.CapacityLimiter(self.pace.limit)
        self._portions = self.request.portions()
        self._listed = 0
        self._this_run = 0
        self._began = trio.current_time()
        self._roomy_until = 0.0
        self._unended = 0

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Migrate to the end; started with the id of the job.

        Raises:
            UsageError: as `Retriever.job`.
            LedgerError: the ledger cannot be used.
        """
        async with self.context.retriever.job(self.request.source, self.request.spec()) as session:
            self.job_id = session.job_id
            await self._begin(session.job_id)
            await self._remember(session)
            task_status.started(session.job_id)
            over = False
            while not over:
                self._wait("" if self.hours.is_open() else "outside its hours")
                async with self.hours.while_open():
                    self._wait("")
                    await self._all(session)
                    over = True

    async def counts(self) -> MigrationCounts:
        """Return how far it is."""
        if self.job_id is None:
            return MigrationCounts()
        return await self.context.read(partial(planning.counts, job_id=self.job_id))

    def seconds_left(self, counts: MigrationCounts) -> float | None:
        """Return the estimate of the time left."""
        seconds = trio.current_time() - self._began
        return seconds_left(Progress(len(self._portions), self._listed, counts.instances, counts.moved, self._this_run, seconds))

    @property
    def portions(self) -> tuple[int, int]:
        """The number of portions that are listed, and of all."""
        return self._listed, len(self._portions)

    async def _begin(self, job_id: int) -> None:
        """Count the start before anything is done. After one that came to no end, one study moves at a time until one is whole."""
        begin = partial(starts.begin, name=starts.of_migration(job_id), by_itself=self.by_itself, now=self.context.clock())
        self._unended = await self.context.write(begin) + 1
        if self._unended > 1:
            self._set(replace(self.pace, limit=1))

    async def _goes_well(self) -> None:
        """Count the start no more: what was in its way before is not in its way now."""
        if self._unended and self.job_id is not None:
            self._unended = 0
            await self.context.write(partial(starts.end, name=starts.of_migration(self.job_id), now=self.context.clock()))

    async def _remember(self, session: Session) -> None:
        """Take up what an earlier run listed; one that had come to its end is listed again, for the source may have more now."""
        if session.reopened:
            await self.context.write(partial(planning.forget_portions, job_id=session.job_id))
        portions = await self.context.read(partial(planning.portions, job_id=session.job_id))
        self._listed = len(portions)
        self.doubts = {label: portion.doubt for label, portion in portions.items() if portion.doubt}

    async def _all(self, session: Session) -> None:
        moved = trio.Event()
        async with trio.open_nursery() as nursery:
            if self.request.delete_from_source:
                nursery.start_soon(self._delete, session.job_id, moved)
            await self._move_all(session)
            for _ in range(RETRIES):
                if not await self._left(session.job_id):
                    break
                await trio.sleep(RETRY_PAUSE_S)
                await self._move_all(session)
            moved.set()

    async def _delete(self, job_id: int, moved: trio.Event) -> None:
        deleter = Deleter(self.context, self.request.source, self.request.destinations, job_id)
        try:
            await deleter.run(moved)
        finally:
            self.kept = deleter.remarks

    async def _undone(self, job_id: int) -> list[PlannedStudy]:
        return await self.context.read(partial(planning.undone, job_id=job_id))

    async def _left(self, job_id: int) -> bool:
        """Tell whether portions could not be listed, or studies did not come whole."""
        return self._listed < len(self._portions) or bool(await self._undone(job_id))

    async def _move_all(self, session: Session) -> None:
        """Move what earlier runs left, then what is listed, portion by portion."""
        async with trio.open_nursery() as nursery:
            todo = self._workers(nursery, session)
            async with todo:
                for study in await self._undone(session.job_id):
                    await todo.send(study)
                known = await self.context.read(partial(planning.portions, job_id=session.job_id))
                for label in self._portions:
                    if label not in known:
                        for study in await self._list(session.job_id, label):
                            await todo.send(study)

    def _workers(self, nursery: trio.Nursery, session: Session) -> trio.MemorySendChannel[PlannedStudy]:
        todo, studies = trio.open_memory_channel[PlannedStudy](0)
        with studies:
            for _ in range(self.pace.most):
                nursery.start_soon(self._work, session, studies.clone())
        return todo

    async def _list(self, job_id: int, label: str) -> list[PlannedStudy]:
        """List a portion, keep it, and return what is new in it."""
        try:
            keys = self.request.keys(label)
            listed = await self.context.lists(self.request.source, keys)
        except AssociationError as error:
            self.problems[label] = str(error)
            log.warning("portion_not_listed", job=job_id, source=self.request.source, portion=label, error=str(error))
            return []
        self.problems.pop(label, None)
        studies = listed.studies
        doubt = "; ".join(filter(None, (listed.doubt, "" if studies else how_passed_over(keys)))) or None
        if doubt:
            self.doubts[label] = doubt
        change = partial(planning.plan, job_id=job_id, label=label, studies=studies, doubt=doubt, now=self.context.clock())
        new = await self.context.write(change)
        self._listed += 1
        log.info("portion_listed", job=job_id, source=self.request.source, portion=label, found=len(studies), new=len(new))
        self._change()
        return new

    async def _work(self, session: Session, studies: trio.MemoryReceiveChannel[PlannedStudy]) -> None:
        async with studies:
            async for study in studies:
                async with self._turns:
                    await self._room()
                    await self._retrieve(session, study)

    async def _retrieve(self, session: Session, study: PlannedStudy) -> None:
        wanted = Wanted(study.study_instance_uid, study.instance_count)
        try:
            verdict = await session.retrieve(wanted, skip_existing=self.request.skip_existing, tell=self._heed)
        except GatewayError as error:
            self._failed(session, study, str(error))
        except Exception as error:  # the root of a study's retrieval: it stays open in the ledger, and the migration goes on
            log.exception("study_failed", job=session.job_id, study=study.study_instance_uid)
            self._failed(session, study, f"internal error: {type(error).__name__}")
        else:
            self.problems.pop(study.study_instance_uid, None)
            self._ended(verdict)
            if verdict.kind is VerdictKind.COMPLETE:
                await self._goes_well()
        self._change()

    def _failed(self, session: Session, study: PlannedStudy, why: str) -> None:
        self.problems[study.study_instance_uid] = why
        log.warning("study_failed", job=session.job_id, study=study.study_instance_uid, error=why)

    def _ended(self, verdict: Verdict) -> None:
        self._this_run += verdict.received
        if verdict.kind is VerdictKind.COMPLETE:
            self._set(self.pace.moved(verdict.received, trio.current_time()))

    async def _heed(self, event: Event) -> None:
        """Slow down where an event of a retrieval says that the source has too much to do."""
        busy = isinstance(event, Waiting) and event.reason in {"busy", "unreachable"}
        if busy or (isinstance(event, Repairing) and event.after in TROUBLE):
            self._set(self.pace.troubled(trio.current_time()))

    def _set(self, pace: Pace) -> None:
        if pace.limit != self.pace.limit:
            log.info("migration_pace", job=self.job_id, at_a_time=pace.limit, most=pace.most)
            self._turns.total_tokens = pace.limit
        self.pace = pace

    async def _room(self) -> None:
        """Wait while the spool or a destination is too full."""
        while trio.current_time() >= self._roomy_until:
            crowded = partial(self.context.crowded, self.request.destinations, self.request.max_used)
            why = await trio.to_thread.run_sync(crowded, limiter=self.context.threads, abandon_on_cancel=True)
            self._wait(why)
            if not why:
                self._roomy_until = trio.current_time() + CROWDED_LOOK_S
                return
            await trio.sleep(CROWDED_LOOK_S)

    def _wait(self, why: str) -> None:
        if why != self.waiting:
            log.info("migration_waits" if why else "migration_goes_on", job=self.job_id, reason=why)
            self.waiting = why
            self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
