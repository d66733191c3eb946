"""The migrations of a gateway: those that commands ask for, and those that go on by themselves. Runs in trio.

A migration runs in the gateway's own nursery. A command follows it; one that leaves without having detached it stops it. A
detached one goes on, and is carried on at the next start, until it is done, paused, or cannot be done at all. One that ended the
gateway at its last two starts is left to a person (`gateway.ledger.jobs.starts`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from gateway.config.settings import Settings
from gateway.core.errors import GatewayError, GatewayStopping, JobFailed, UsageError, leaf, require_known
from gateway.core.log import get_logger
from gateway.core.tasks.background import Background
from gateway.jobs.migrate import report
from gateway.jobs.migrate.context import Listed, MigrateContext
from gateway.jobs.migrate.request import MigrationRequest
from gateway.jobs.migrate.runner import Migration
from gateway.jobs.starts import record_end
from gateway.jobs.working_hours import Window
from gateway.ledger.jobs import planning, starts

log = get_logger()

KEEP_EVERY_S = 2.0
"""Between two looks at a migration that has ended and whose deliveries go on; more where one look takes long."""

KEEP_SHARE = 20
"""They cost the gateway no more than one part in this many of its time."""

Whole = Callable[[], AbstractAsyncContextManager[None]]
"""Entered for as long as a long operation runs; cancels it, with `GatewayStopping`, when the gateway stops."""


@dataclass(eq=False)
class Running:
    """A migration under way: what it is, whether it goes on without its command, and how it ended."""

    migration: Migration
    detached: bool
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    error: GatewayError | None = None


class Migrations(Background):
    """Starts, follows and stops migrations. `running` are those under way, by the id of their job."""

    def __init__(
        self, settings: Settings, context: MigrateContext, *, possible: Callable[[str], tuple[str, ...]], whole: Whole
    ) -> None:
        """`possible` names where the routes may lead to from a source."""
        self.running: dict[int, Running] = {}
        self._settings = settings
        self._context = context
        self._possible = possible
        self._whole = whole

    async def carry_on(self) -> None:
        """Start what was detached and did not come to its end."""
        for job in await self._context.read(planning.jobs_of_kind):
            if job.state == "done" and self._nursery is not None:
                self._nursery.start_soon(self._keep_outcomes, job.id, MigrationRequest.of(job.criteria))
            if not job.detached or job.state == "done" or job.id in self.running:
                continue
            unended = await self._context.read(partial(starts.get, name=starts.of_migration(job.id)))
            if unended.parked:
                log.error("migration_not_carried_on", job=job.id, error=f"it ended the gateway at its last {unended.count} starts")
                continue
            try:
                await self.start(MigrationRequest.of(job.criteria), detached=True, by_itself=True)
            except GatewayError as error:
                log.error("migration_not_carried_on", job=job.id, error=str(error))
            except Exception as error:  # the root of a job's start: the others are carried on
                log.exception("migration_not_carried_on", job=job.id, error=type(leaf(error)).__name__)
            else:
                log.info("migration_carried_on", job=job.id)

    async def start(self, request: MigrationRequest, *, detached: bool, by_itself: bool = False) -> Running:
        """Begin a migration, or carry on the same one, and return it once it has its job.

        `by_itself` says that nobody asked for it: the gateway carries it on at its start.

        Raises:
            UsageError: it asks for what is not configured, or the same migration is running.
            LedgerError: the ledger cannot be used.
        """
        if self._nursery is None:
            raise UsageError("migrations need a whole gateway")
        running = Running(self._make(request), detached)
        running.migration.by_itself = by_itself
        await self._nursery.start(self._root, running)
        if running.error is not None:
            raise running.error
        await self.detach(running, detached)
        return running

    async def detach(self, running: Running, detached: bool) -> None:
        """Have a migration go on without its command, or no longer."""
        running.detached = detached
        await self._context.write(partial(planning.detach, job_id=running.migration.job_id or 0, detached=detached))

    @asynccontextmanager
    async def followed(self, running: Running) -> AsyncIterator[None]:
        """Follow a migration inside the ``async with``: leaving early stops it, unless it is detached."""
        try:
            yield
        finally:
            if not running.detached:
                running.scope.cancel()
                with trio.CancelScope(shield=True):
                    await running.ended.wait()

    async def pause(self, job_id: int) -> None:
        """Stop a migration between instances; it is not carried on by itself.

        Raises:
            UsageError: there is no such migration.
        """
        await self._context.read(partial(planning.migration, job_id=job_id))
        running = self.running.get(job_id)
        await self._context.write(partial(planning.detach, job_id=job_id, detached=False))
        if running is not None:
            running.detached = False
            running.scope.cancel()
            await running.ended.wait()

    def brought_to(self, request: MigrationRequest) -> tuple[str, ...]:
        """Return where a migration brought its studies: where it says, else where the routes may lead from its source.

        Unlike `destinations` it asks for nothing that has to be configured still.
        """
        known = request.source in self._settings.sources
        return request.destinations or (self._possible(request.source) if known else ())

    async def resume(self, job_id: int) -> Running:
        """Carry a migration on in the gateway, with what did not come whole.

        Raises:
            UsageError: there is no such migration, or it asks for what is not configured any more.
        """
        job = await self._context.read(partial(planning.migration, job_id=job_id))
        running = self.running.get(job_id)
        if running is not None:
            await self.detach(running, True)
            return running
        return await self.start(MigrationRequest.of(job.criteria), detached=True)

    async def _root(self, running: Running, task_status: trio.TaskStatus[int]) -> None:
        """Run one to its end; what ends it is its own, and never the gateway's."""
        migration = running.migration
        told = False

        try:
            with running.scope:
                async with self._whole(), trio.open_nursery() as nursery:
                    job_id = await nursery.start(migration.run)
                    self.running[job_id] = running
                    told = True
                    task_status.started(job_id)
        except* GatewayStopping as group:
            running.error = _ours(group)
        except* GatewayError as group:
            running.error = _ours(group)
            log.error("migration_failed", job=migration.job_id, error=str(running.error))
        except* Exception as group:  # the root of a job: it fails, and the gateway goes on
            running.error = JobFailed.of(group)
            log.exception("migration_failed", job=migration.job_id, error=str(running.error))
        finally:
            await self._in_order(running)
            if migration.job_id is not None:
                self.running.pop(migration.job_id, None)
            running.ended.set()
            migration.changed.set()
        if not told:
            task_status.started(0)
        elif self._nursery is not None and migration.job_id is not None:
            self._nursery.start_soon(self._keep_outcomes, migration.job_id, migration.request)

    async def _keep_outcomes(self, job_id: int, request: MigrationRequest) -> None:
        """Keep what became of the studies of a migration that has ended as soon as it is sure, until nothing is on its way."""
        destinations = self.brought_to(request)

        def keep() -> bool:
            self._context.barrier()
            with self._context.ledger.read() as connection:
                if not planning.has_open_outcomes(connection, job_id):
                    return True
                settled = report.is_settled(connection, job_id, destinations)
                _, done = report.lines(connection, job_id, request, destinations, {})
            if done:
                self._context.ledger.write(partial(planning.keep_outcomes, job_id=job_id, outcomes=done))
            return settled

        while job_id not in self.running:
            began = trio.current_time()
            try:
                if await trio.to_thread.run_sync(keep, limiter=self._context.threads):
                    return
            except GatewayError as error:
                log.warning("outcomes_not_kept", job=job_id, error=str(error))
            await trio.sleep(max(KEEP_EVERY_S, KEEP_SHARE * (trio.current_time() - began)))

    async def _in_order(self, running: Running) -> None:
        """Record that a migration came to an end, and what it failed with, also when it is cancelled."""
        job_id, error = running.migration.job_id, running.error
        if job_id is None:
            return
        why = "" if error is None or isinstance(error, GatewayStopping) else str(error)
        await record_end(self._context.ledger, starts.of_migration(job_id), error=why, now=self._context.clock())

    def destinations(self, request: MigrationRequest) -> tuple[str, ...]:
        """Return where a migration brings what it moves.

        Raises:
            UsageError: it asks for what is not configured.
        """
        settings = self._settings
        require_known("source", [request.source], settings.sources)
        require_known("destination", request.destinations, settings.destinations)
        require_known("schedule", [request.when] if request.when else [], settings.schedule)
        destinations = request.destinations or self._possible(request.source)
        if not destinations:
            raise UsageError(f"no route leads anywhere from source {request.source!r}: name a --destination")
        if request.delete_from_source:
            self._may_delete(request, destinations)
        return tuple(destinations)

    async def listed(self, request: MigrationRequest, label: str) -> Listed:
        """Return what the source lists of one of the request's portions. Raises as `Lister` does."""
        return await self._context.lists(request.source, request.keys(label))

    def _make(self, request: MigrationRequest) -> Migration:
        self.destinations(request)
        most = self._settings.sources[request.source].moves
        return Migration(request, self._context, Window(self._settings.hours(request.when)), min(request.moves or most, most))

    def _may_delete(self, request: MigrationRequest, destinations: Collection[str]) -> None:
        if self._settings.sources[request.source].rest is None:
            raise UsageError(f"--delete-from-source: source {request.source!r} has no `rest`: only an Orthanc can be deleted from")
        for name in destinations:
            can = self._settings.destinations[name].can
            if not can.prove:
                raise UsageError(f'--delete-from-source: destination {name!r} proves nothing with verify = "status"')
            if request.skip_existing and can.listing == "ledger":
                raise UsageError(f'--delete-from-source: what is skipped for {name!r} is not proved with ask = "ledger"')


def _ours(group: BaseExceptionGroup[GatewayError]) -> GatewayError:
    error = leaf(group)
    assert isinstance(error, GatewayError)
    return error
