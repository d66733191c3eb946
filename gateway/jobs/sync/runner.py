"""A sync at work: look after look, and between them the retrieval of what was missing. Runs in trio.

A look waits for no retrieval of an earlier one: what still runs is skipped. Cancelling stops the running C-MOVEs between instances.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from gateway.core.domain import Basis, VerdictKind
from gateway.core.errors import GatewayError, JobFailed
from gateway.core.log import get_logger
from gateway.jobs.sync.context import SyncContext
from gateway.jobs.sync.cycle import Cycle
from gateway.jobs.sync.look import LookResult, look
from gateway.jobs.sync.memory import Memory
from gateway.jobs.sync.plan import Plan
from gateway.jobs.sync.report import Moved, cycle
from gateway.jobs.sync.study import Missing
from gateway.jobs.working_hours import Window
from gateway.retrieve import Event, JobSpec, Session, StudyEnded, Verdict

log = get_logger()

Tell = Callable[[Cycle | Event], Awaitable[None]]


async def nobody(_event: Cycle | Event) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Batch:
    """The retrieval of one job: the studies that one look found missing at the same destinations."""

    destinations: tuple[str, ...]
    studies: tuple[Missing, ...]


def batches(missing: Sequence[Missing]) -> list[Batch]:
    """Group what is missing by the destinations that lack it, in the order found; pure."""
    groups: dict[tuple[str, ...], list[Missing]] = {}
    for one in missing:
        groups.setdefault(one.destinations, []).append(one)
    return [Batch(destinations, tuple(studies)) for destinations, studies in groups.items()]


@dataclass
class Sync:
    """One sync. `tell` hears each cycle, what happens to the studies, and their verdicts; `last` is the last cycle."""

    plan: Plan
    context: SyncContext
    hours: Window
    moves: int
    tell: Tell = nobody
    last: Cycle | None = None
    goes_well: Callable[[], Awaitable[None]] | None = None
    """Called after a study came whole, and after a look that left nothing to move."""

    def __post_init__(self) -> None:
        self._memories: dict[str, Memory] = {}
        # One more than may move at a time, so that the next is planned meanwhile.
        self._turns = trio.CapacityLimiter(self.moves + 1)
        self._moved = Moved()
        self._number = 0
        self._moving = 0
        self._told_at = trio.current_time()

    async def run(self) -> None:
        """Look and move until cancelled, within the hours of the plan."""
        while True:
            async with self.hours.while_open():
                await self._cycles()
            log.info("sync_closed", sync=self.plan.name)

    async def _cycles(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                began = trio.current_time()
                result = await self.look()
                for batch in self._reserved(result.missing):
                    nursery.start_soon(self._move, batch, [])
                ended = trio.current_time()
                await self.report(result, ended - began)
                if not self._moving:
                    await self._well()
                # A look that takes long is followed by as long a pause: a slow source has other things to do too.
                await trio.sleep_until(began + max(self.plan.interval_s, 2 * (ended - began)))

    async def once(self, job_ids: list[int]) -> None:
        """Take one look, move what is missing, and report when that is done; the jobs it takes are added to `job_ids`."""
        began = trio.current_time()
        result = await self.look()
        looked = trio.current_time() - began
        async with trio.open_nursery() as nursery:
            for batch in self._reserved(result.missing):
                nursery.start_soon(self._move, batch, job_ids)
        await self.report(result, looked)

    async def look(self) -> LookResult:
        """Take one look; an error that ends it is in what it came to."""
        try:
            return await look(self.plan, self.context, self._memories)
        except GatewayError as error:
            failure = error
        except Exception as error:  # the root of a look: it fails, and there is another one
            failure = JobFailed.of(error)
            log.exception("sync_look_broke", sync=self.plan.name, source=self.plan.source)
        log.warning("sync_look_failed", sync=self.plan.name, source=self.plan.source, error=str(failure))
        result = LookResult()
        result.fail(failure)
        return result

    async def _well(self) -> None:
        if self.goes_well is not None:
            await self.goes_well()

    async def report(self, result: LookResult, look_s: float) -> None:
        """Tell and log what the cycle came to, and begin to count anew."""
        now, moved = trio.current_time(), self._moved
        self._number += 1
        self.last = cycle(
            result,
            moved,
            sync=self.plan.name,
            source=self.plan.source,
            number=self._number,
            at=self.context.clock(),
            look_s=look_s,
            over_s=now - self._told_at,
        )
        self._moved, self._told_at = Moved(), now
        log.info("sync_cycle", **{key: value for key, value in vars(self.last).items() if key != "at"})
        await self.tell(self.last)

    def _reserved(self, missing: Sequence[Missing]) -> list[Batch]:
        """Take the studies for ourselves before anyone looks again, but those that another sync took meanwhile."""
        ours = [one for one in missing if (self.plan.source, one.wanted.study_instance_uid) not in self.context.busy]
        self.context.busy.update((self.plan.source, one.wanted.study_instance_uid) for one in ours)
        found = batches(ours)
        self._moving += len(found)
        return found

    async def _move(self, batch: Batch, job_ids: list[int]) -> None:
        """Retrieve the studies of a batch, in its order; an error costs those that are left a try, and nothing else."""
        left = list(batch.studies)
        try:
            async with self.context.retriever.job(self.plan.source, self._spec(batch)) as session, trio.open_nursery() as nursery:
                job_ids.append(session.job_id)
                for _ in range(min(self.moves + 1, len(left))):
                    nursery.start_soon(self._work, session, left)
        except Exception as error:  # the root of a job: it fails, and the sync goes on
            failure = error if isinstance(error, GatewayError) else JobFailed.of(error)
            if failure is not error:
                log.exception("sync_job_broke", sync=self.plan.name, source=self.plan.source)
            log.warning("sync_job_failed", sync=self.plan.name, source=self.plan.source, error=str(failure))
            for missing in left:
                await self._ended(missing, _failed(missing, str(failure)))
        finally:
            self._moving -= 1
            for missing in left:
                self._release(missing)

    def _spec(self, batch: Batch) -> JobSpec:
        plan = self.plan
        fingerprint = plan.fingerprint(self.context.clock(), batch.destinations)
        criteria = json.dumps({"sync": plan.name, "source": plan.source, "to": batch.destinations})
        return JobSpec("sync", fingerprint, criteria, batch.destinations, plan.priority)

    async def _work(self, session: Session, left: list[Missing]) -> None:
        while left:
            async with self._turns:
                if not left:
                    return
                missing = left.pop(0)
                try:
                    await self._ended(missing, await self._retrieved(session, missing))
                finally:
                    self._release(missing)

    async def _retrieved(self, session: Session, missing: Missing) -> Verdict:
        try:
            return await session.retrieve(missing.wanted, fresh=True, tell=self._tell_event)
        except GatewayError as error:
            return _failed(missing, str(error))
        except Exception as error:  # the root of a study's retrieval: it ends with a verdict, and the sync goes on
            log.exception("sync_study_failed", sync=self.plan.name, study=missing.wanted.study_instance_uid)
            return _failed(missing, f"internal error: {type(error).__name__}")

    async def _tell_event(self, event: Event) -> None:
        await self.tell(event)

    async def _ended(self, missing: Missing, verdict: Verdict) -> None:
        study = missing.wanted.study_instance_uid
        self._moved.add(verdict, missing)
        memory = self._memories.get(study, Memory())
        complete = verdict.kind is VerdictKind.COMPLETE
        self._memories[study] = memory.tried(missing.lacking, trio.current_time(), complete=complete)
        if complete:
            await self._well()
        await self.tell(StudyEnded(verdict))

    def _release(self, missing: Missing) -> None:
        self.context.busy.discard((self.plan.source, missing.wanted.study_instance_uid))


def _failed(missing: Missing, note: str) -> Verdict:
    return Verdict(VerdictKind.FAILED, missing.wanted.study_instance_uid, Basis.UIDS, None, 0, note=note)
