"""``POST /compare``: two places compared for a client, as a stream of events. Runs on trio; it lives as long as its stream.

It ends with ``summary``; after a repair, that is of a second look.
"""

from __future__ import annotations

from dataclasses import asdict

import trio

from gateway.app.engine import Engine
from gateway.control import events
from gateway.control.commands.pulling import deliver, needs_everything
from gateway.control.server import Emit
from gateway.control.wire import CompareCommand, Document, Summary
from gateway.jobs.compare import Outcome, Repaired
from gateway.ledger.deliveries.progress import Scope

TELL_S = 0.25
"""Progress is told no more often."""


async def compare(engine: Engine, command: CompareCommand, emit: Emit) -> None:
    """Compare, repair where that is asked, and compare again.

    Raises:
        UsageError: there is no such place or schedule, or what is asked of it has no way.
        AssociationError, WebServiceError: a place cannot be asked.
        GatewayStopping: the gateway is told to stop meanwhile.
    """
    request = command.request
    if request.repair:
        needs_everything(engine)
    told_at = 0.0
    telling = trio.Lock()

    async def tell(outcome: Outcome) -> None:
        nonlocal told_at
        if trio.current_time() - told_at >= TELL_S and not telling.locked():
            async with telling:
                told_at = trio.current_time()
                await emit(events.Comparing(**_counts(outcome)))

    async def settle(done: Repaired) -> None:
        await deliver(engine, Scope(job_id=done.job_id, destinations=(done.destination,)), True, command.wait_s, emit)

    async def waits() -> None:
        async with telling:
            await emit(events.ComparisonWaits("outside its hours"))

    async with engine.jobs.running():
        outcome, repaired = await engine.comparisons.carry_out(request, tell, settle, waits)
    verdicts = [asdict(verdict) | {"destination": done.destination} for done in repaired for verdict in done.verdicts]
    await emit(Summary({**_summary(outcome), "repaired": verdicts}))


def _counts(outcome: Outcome) -> Document:
    counted = {name: getattr(outcome, name) for name in ("studies", "series", "instances", "contents")}
    return {**counted, "different": len(outcome.differences)}


def _summary(outcome: Outcome) -> Document:
    found = [asdict(one) | {"kind": str(one.kind)} for one in outcome.differences]
    return {**_counts(outcome), "differences": found, "remarks": list(outcome.remarks), "same": outcome.same}
