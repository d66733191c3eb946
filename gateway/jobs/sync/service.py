"""The syncs of a gateway: those of its configuration, which `serve` runs, and those that commands ask for. Runs in trio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial

from trio import CapacityLimiter

from gateway.association.scu.query import identifier
from gateway.config.settings import Settings, SyncTable
from gateway.core.errors import GatewayStopping, JobFailed, UsageError, require_known
from gateway.core.log import get_logger
from gateway.jobs.starts import Starts
from gateway.jobs.sync.context import MAX_THREADS, SyncContext
from gateway.jobs.sync.growth import AT_ONCE
from gateway.jobs.sync.plan import Plan, plan_of
from gateway.jobs.sync.runner import Sync, Tell, nobody
from gateway.jobs.working_hours import Window

log = get_logger()


@dataclass
class Syncs:
    """Makes syncs, and knows those that run by configuration; `possible` names where the routes may lead to from a source."""

    settings: Settings
    context: SyncContext
    possible: Callable[[str], tuple[str, ...]]
    running: dict[str, Sync] = field(default_factory=dict)
    starts: Starts | None = None

    def make(self, table: SyncTable, *, tell: Tell = nobody, at_once: bool = False) -> Sync:
        """Return a sync that does what `table` says; with `at_once` it takes what is there without waiting for it to stop growing.

        Raises:
            UsageError: its source, a destination or its schedule is not configured, it has no destination, or a query key is no
                DICOM keyword.

        """
        plan = self._plan(table)
        if at_once:
            plan = replace(plan, patience=AT_ONCE)
        hours = Window(self.settings.hours(plan.hours))
        # Threads of its own: a source that never answers holds up no other sync.
        context = replace(self.context, threads=CapacityLimiter(MAX_THREADS))
        return Sync(plan, context, hours, self.settings.sources[plan.source].moves, tell)

    async def run(self, table: SyncTable, running: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Run a configured sync until the gateway stops; `running` is entered for as long, and cancels it then.

        One that ended the gateway at its last two starts waits for a person. Raises what nobody foresaw, after it is recorded.
        """
        try:
            sync = self.running[table.name] = self.make(table)
        except UsageError as error:
            log.error("sync_not_started", sync=table.name, error=str(error))
            return
        starts, name = self.starts, f"sync {table.name}"
        why = ""
        try:
            async with running():
                if starts is not None:
                    await starts.begin(name)
                    sync.goes_well = partial(starts.end, name)
                log.info("sync_started", sync=table.name, source=table.source, to=list(sync.plan.to), interval_s=table.interval_s)
                await sync.run()
        except GatewayStopping:
            log.info("sync_stopped", sync=table.name)
        except Exception as failure:
            why = str(JobFailed.of(failure))
            raise
        finally:
            if starts is not None:
                await starts.end(name, error=why)

    def _plan(self, table: SyncTable) -> Plan:
        require_known("source", [table.source], self.settings.sources)
        require_known("destination", table.to, self.settings.destinations)
        require_known("schedule", [table.when] if table.when else [], self.settings.schedule)
        if self.settings.sources[table.source].port is None:
            raise UsageError(f"source {table.source!r} has no port: add it to [sources.{table.source}], so that it can be asked")
        identifier("STUDY", table.query)
        plan = plan_of(table, self.possible(table.source))
        if not plan.to:
            raise UsageError(f"no route leads anywhere from source {table.source!r}: name the destinations")
        return plan
