"""One destination at work: its workers, its circuit, its own threads. Nothing here waits for another destination.

A worker holds one session. One worker at a time looks for work (a read of the ledger, and a claim only where something is
due); it sleeps until the next delivery falls due, the circuit lets a probe through, or someone nudges.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TypeVar

import structlog
import trio
from sqlalchemy import Connection

from gateway.delivery import circuit as circuits
from gateway.delivery.batch import RECORD_EVERY_S, Batch
from gateway.delivery.circuit import CLOSED, CircuitState, CircuitView
from gateway.delivery.destination import Destination, Session
from gateway.domain import Consignment
from gateway.errors import LedgerUnavailable
from gateway.ledger import Ledger, mending
from gateway.ledger import deliveries as table

MAX_BATCH_INSTANCES = 64
MAX_BATCH_BYTES = 64 << 20
MAX_SHARES = 8
"""A claim looks at no more than this many batches to share what is due among the workers."""

GATHER_S = 0.02
"""While others are at work and little is due, a worker lets this much time bring more: each batch costs the ledger two commits."""

LITTLE = 16
"""A claim that brought fewer instances than this found little."""

LONGEST_SLEEP_S = 60.0
"""A lost nudge, or a wall clock that was set, costs at most this."""

YIELD_CLOSE_S = 0.5
"""An idle session is closed this soon while another gets no answer: there are peers that serve one association at a time."""

HORIZON_SLACK_S = 60.0
"""A clock that is set back by less only makes deliveries that much later."""

LEDGER_PAUSE_S = 1.0
BREAK_OFF_S = 2.0
"""How long a thread may take to come back after its session was killed."""

_log = structlog.get_logger()
T = TypeVar("T")


class Lane:
    """The workers of one destination. Everything runs on the trio thread, what blocks on threads of the lane's own."""

    def __init__(
        self,
        destination: Destination,
        ledger: Ledger,
        *,
        changed: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.destination = destination
        self._ledger = ledger
        self._changed = changed
        self._clock = clock
        # Nothing is put off for longer than this, unless the clock was set back since.
        self._horizon_s = max(destination.retry.max_s, circuits.MAX_OPEN_S, table.RIVAL_PAUSE_S) + HORIZON_SLACK_S
        self._circuit = CLOSED
        self._threads = trio.CapacityLimiter(destination.workers + 1)
        self._looking = trio.Lock()
        self._awake = trio.Event()
        self._gathered = trio.Event()
        self._stopping = False
        self._probing = False
        self._at_work: dict[Session, Batch] = {}
        self._claimed = 0

    async def run(self) -> None:
        """Deliver until stopped or cancelled."""
        async with trio.open_nursery() as helpers:
            helpers.start_soon(self._record_meanwhile)
            async with trio.open_nursery() as workers:
                for _ in range(self.destination.workers):
                    workers.start_soon(self._work)
            helpers.cancel_scope.cancel()

    def nudge(self) -> None:
        """There may be something to do."""
        self._awake.set()

    def probe_now(self) -> None:
        """Try the destination at once even where the circuit is open."""
        self._circuit = circuits.probe_now(self._circuit, trio.current_time())
        self._awake.set()

    def circuit(self) -> CircuitView:
        """Return how the circuit stands."""
        return circuits.view(self._circuit, trio.current_time())

    def stop(self) -> None:
        """Begin nothing more; `run` returns once the instances at hand are done."""
        self._stopping = True
        self._awake.set()
        for session in self._at_work:
            session.stop()

    def break_off(self) -> None:
        """Break off the instances at hand."""
        for session, batch in self._at_work.items():
            batch.break_off()
            session.kill()

    async def _work(self) -> None:
        session = self.destination.open()
        connected = False
        try:
            while not self._stopping:
                consignments: list[Consignment] = []
                with trio.move_on_after(self._patience_s() if connected else math.inf):
                    consignments += await self._next_batch()
                if consignments:
                    connected = True
                    await self._deliver(session, consignments)
                elif connected:
                    connected = False
                    await self._in_thread(session.close)
        finally:
            if connected:
                with _shielded(BREAK_OFF_S):
                    await self._in_thread(session.close, abandon=True)

    def _patience_s(self) -> float:
        """Return for how long an idle session stays open."""
        unanswered = any(batch.answered == 0 for batch in self._at_work.values())
        return min(self.destination.idle_close_s, YIELD_CLOSE_S) if unanswered else self.destination.idle_close_s

    async def _next_batch(self) -> list[Consignment]:
        """Wait until something can be delivered and return it, or nothing where the lane is stopping."""
        async with self._looking:
            while not self._stopping:
                self._awake = trio.Event()
                try:
                    wait_s = await self._idle_for()
                    if wait_s <= 0 and (batch := await self._claim_gathered()):
                        return batch
                except LedgerUnavailable as error:
                    await self._bear(error)
                    continue
                with trio.move_on_after(min(wait_s, LONGEST_SLEEP_S)):
                    await self._awake.wait()
            return []

    async def _idle_for(self) -> float:
        """Return for how many seconds there is nothing to do; 0 where there is."""
        if self._probing:
            return math.inf
        if circuits.state_of(self._circuit, trio.current_time()) is CircuitState.OPEN:
            return self._circuit.open_until - trio.current_time()
        due_at = await self._in_thread(self._next_due)
        wait_s = math.inf if due_at is None else max(0.0, due_at - self._clock())
        return 0.0 if self._horizon_s < wait_s < math.inf else wait_s

    def _next_due(self) -> float | None:
        with self._ledger.read() as connection:
            return table.next_due(connection, self.destination.name)

    async def _claim_gathered(self) -> list[Consignment]:
        """Claim at once where nobody is at work or much is due, else what has come a moment later."""
        if self._at_work and self._claimed < LITTLE:
            await trio.sleep(GATHER_S)
        batch = await self._claim()
        self._claimed = len(batch)
        return batch

    async def _claim(self) -> list[Consignment]:
        probe = circuits.state_of(self._circuit, trio.current_time()) is CircuitState.HALF_OPEN
        limit, shares = (1, 1) if probe else (MAX_BATCH_INSTANCES, min(self.destination.workers, MAX_SHARES))
        name, now = self.destination.name, self._clock()

        def claim(connection: Connection) -> list[Consignment]:
            mending.pull_forward(connection, name, now=now, horizon_s=self._horizon_s)
            return table.claim(connection, name, now=now, max_instances=limit, max_bytes=MAX_BATCH_BYTES, shares=shares)

        batch = await self._in_thread(lambda: self._ledger.write(claim))
        self._probing = probe and bool(batch)
        return batch

    async def _deliver(self, session: Session, consignments: list[Consignment]) -> None:
        token = trio.lowlevel.current_trio_token()
        batch = Batch(
            self.destination,
            self._ledger,
            consignments,
            self._clock,
            self._changed,
            lambda: _tell(token, self._has_gathered),
        )
        self._at_work[session] = batch
        try:
            await self._carry_out(session, batch)
            await self._settle(batch)
        except trio.Cancelled:
            with _shielded(BREAK_OFF_S):
                await self._in_thread(lambda: batch.finish(uncertain=True), abandon=True)
            raise
        finally:
            del self._at_work[session]
            self._probing = False
            self._awake.set()

    async def _carry_out(self, session: Session, batch: Batch) -> None:
        if self._stopping:
            return
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def work() -> None:
            try:
                batch.carry_out(session)
            finally:
                _tell(token, done.set)

        await trio.lowlevel.checkpoint()
        try:
            await self._in_thread(work, abandon=True)
        except trio.Cancelled:
            batch.break_off()
            session.kill()
            with _shielded(BREAK_OFF_S):
                await done.wait()
            raise

    def _has_gathered(self) -> None:
        self._gathered.set()

    async def _record_meanwhile(self) -> None:
        """Record outcomes of batches whose next instance takes long: after a crash, what was answered is not sent again."""
        while True:
            await self._gathered.wait()
            self._gathered = trio.Event()
            await trio.sleep(RECORD_EVERY_S)
            for batch in tuple(self._at_work.values()):
                try:
                    await self._in_thread(batch.record)
                except LedgerUnavailable as error:
                    await self._bear(error)

    async def _settle(self, batch: Batch) -> None:
        """Let the circuit learn from the batch, and record what became of it."""
        if batch.answered:
            self._circuit = circuits.after_success()
        if batch.failure is None or batch.answered or self._stopping:
            await self._insist(batch.finish)
            return
        reason = str(batch.failure)
        self._open_circuit(reason)
        due_at = self._clock() + max(0.0, self._circuit.open_until - trio.current_time())
        await self._insist(lambda: batch.finish(due_at=due_at, reason=reason))

    def _open_circuit(self, reason: str) -> None:
        now = trio.current_time()
        if circuits.state_of(self._circuit, now) is CircuitState.OPEN:
            return  # another worker found out at the same time
        jitter = random.random()  # noqa: S311 - spreads attempts over time, no secret
        retry = self.destination.retry
        self._circuit = circuits.after_failure(self._circuit, now=now, retry=retry, jitter=jitter, reason=reason)
        opened = self.circuit()
        name, wait_s = self.destination.name, round(opened.retry_in_s or 0.0, 3)
        _log.warning("destination_down", destination=name, reason=reason, failures=opened.failures, retry_in_s=wait_s)

    async def _insist(self, act: Callable[[], None]) -> None:
        """Do `act` on a thread, again and again until the ledger takes it."""
        while True:
            try:
                await self._in_thread(act)
            except LedgerUnavailable as error:
                await self._bear(error)
            else:
                return

    async def _bear(self, error: LedgerUnavailable) -> None:
        _log.warning("ledger_unavailable", destination=self.destination.name, error=str(error))
        await trio.sleep(LEDGER_PAUSE_S)

    async def _in_thread(self, act: Callable[[], T], *, abandon: bool = False) -> T:
        return await trio.to_thread.run_sync(act, limiter=self._threads, abandon_on_cancel=abandon)


def _shielded(seconds: float) -> trio.CancelScope:
    return trio.CancelScope(shield=True, deadline=trio.current_time() + seconds)


def _tell(token: trio.lowlevel.TrioToken, act: Callable[[], object]) -> None:
    try:
        token.run_sync_soon(act)
    except trio.RunFinishedError:
        return  # nobody waits any more
