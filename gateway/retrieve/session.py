"""A job, open in the ledger: studies are retrieved for it one by one, as whoever plans them likes. Runs in trio.

`pull` finds its studies by the keys of its request (`gateway.retrieve.job`); sync, migrate and compare plan theirs themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from gateway.core.log import get_logger
from gateway.ledger.jobs import retrievals
from gateway.retrieve.context import RetrieveContext, Source
from gateway.retrieve.events import Event, Verdict
from gateway.retrieve.request import JobSpec, Wanted
from gateway.retrieve.study import StudyRetrieval

log = get_logger()

STOP_S = 10.0
"""The longest time that recording that a cancelled job has stopped may take."""

Tell = Callable[[Event], Awaitable[None]]


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
