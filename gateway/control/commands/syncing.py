"""``POST /sync``: a sync for a client, as a stream of events. Runs on trio; it lives as long as its stream.

A sync that goes on ends only when the client leaves or the gateway stops. ``once`` takes one cycle, waits for the deliveries of
what came, and closes with ``summary``; ``dry_run`` only looks, and closes with what would be moved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

import trio

from gateway.app.engine import Engine
from gateway.control.commands.pulling import Outcome, deliver, delivered, needs_everything
from gateway.control.server import Emit
from gateway.control.wire import Summary, SyncCommand, encode
from gateway.jobs.migrate.report import by_destination
from gateway.jobs.sync.cycle import Cycle
from gateway.jobs.sync.report import missing_json
from gateway.jobs.sync.runner import Sync
from gateway.ledger.deliveries.progress import Scope
from gateway.retrieve import Event, StudyEnded, Verdict

EVENT_BACKLOG = 256
"""Events that may wait for a slow client before the sync waits for it."""


async def sync(engine: Engine, command: SyncCommand, emit: Emit) -> None:
    """Carry out a sync as the command says.

    Raises:
        UsageError: its source, a destination or its schedule is not configured, or it has no destination.
        GatewayStopping: the gateway is told to stop meanwhile.

    """
    if not command.dry_run:
        needs_everything(engine)
    told = _Told(emit)
    made = engine.syncs.make(command.table, tell=told.tell, at_once=command.once or command.dry_run)
    async with engine.jobs.running():
        if command.dry_run:
            await emit(await _would_move(made))
        elif command.once:
            job_ids = list[int]()
            await told.during(lambda: made.once(job_ids))
            outcomes = [await deliver(engine, Scope(job_id=job), command.wait, command.wait_s, emit) for job in job_ids]
            await emit(_summary(made, told.verdicts, _joined(outcomes)))
        else:
            await told.during(made.run)


class _Told:
    """The events that several tasks of a sync tell, emitted by one: two must not write to one stream."""

    def __init__(self, emit: Emit) -> None:
        self.verdicts: list[Verdict] = []
        self._emit = emit

    async def tell(self, event: Cycle | Event) -> None:
        """Take an event; waits while the client does not keep up."""
        if isinstance(event, StudyEnded):
            self.verdicts.append(event.verdict)
        await self._send.send(event)

    async def during(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, and emit what is told meanwhile."""
        self._send, events = trio.open_memory_channel[Cycle | Event](EVENT_BACKLOG)

        async def worked() -> None:
            async with self._send:
                await work()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(worked)
            async with events:
                async for event in events:
                    await self._emit(event)


async def _would_move(made: Sync) -> Summary:
    result = await made.look()
    studies = [missing_json(one) for one in result.missing]
    states = {str(state): count for state, count in result.states.items()}
    return Summary({"found": result.found, "states": states, "studies": studies, "error": result.error})


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(
        states=[state for one in outcomes for state in one.states],
        undelivered=[delivery for one in outcomes for delivery in one.undelivered],
        unrouted=sum(one.unrouted for one in outcomes),
    )


def _summary(made: Sync, verdicts: Sequence[Verdict], outcome: Outcome) -> Summary:
    last = made.last
    studies = [asdict(one) | {"destinations": by_destination(outcome.states, one.study_instance_uid)} for one in verdicts]
    complete = last is not None and not last.error and not last.unfinished
    return Summary(
        {
            "cycle": None if last is None else encode(last),
            "studies": studies,
            "error": "" if last is None else last.error,
            "complete": complete,
            "done": complete and outcome.done,
            **delivered(outcome),
        }
    )
