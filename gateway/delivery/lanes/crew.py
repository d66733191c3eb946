"""The threads that deliver to one destination: its workers, each with a session, and a clerk. All of them block, none polls.

A worker claims, sends, and records with its next claim, in one transaction of the ledger and without another thread in between.
`worker_state` decides what it does next from what the workers share under one lock; an idle worker sleeps until it is woken or
until the time comes that it keeps an eye on. The one that had work last is woken first, so that no more associations are open
than there is work for. The clerk records the outcomes of batches whose next instance takes long: after a crash, what was
answered is not sent again.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gateway.core import metrics
from gateway.core.errors import LedgerUnavailable
from gateway.core.log import get_logger
from gateway.core.repeats import Repeats
from gateway.delivery.destination import Destination, Session
from gateway.delivery.journal import Note
from gateway.delivery.lanes import circuit as circuits
from gateway.delivery.lanes.batch import Batch
from gateway.delivery.lanes.circuit import Circuit, CircuitState, CircuitView
from gateway.delivery.lanes.hours import Hours
from gateway.delivery.lanes.outbox import Outbox
from gateway.delivery.lanes.worker_state import LINGER_S, LONGEST_SLEEP_S, Act, Step, WorkerState, is_probe, next_step
from gateway.ledger import Ledger
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries import mending
from gateway.ledger.deliveries.claiming import Change, Claim

MAX_BATCH_INSTANCES = 64
MAX_BATCH_BYTES = 64 << 20
THROTTLED_PIECES = 8
"""A batch for a destination with a `max_rate` has about so many pieces of its throttle: two seconds' worth."""

MAX_SHARES = 8
"""A claim looks at no more than this many batches to share what is due among the workers."""

RECORD_EVERY_S = 0.2
"""Outcomes are recorded at least this often while they come, so that a slow destination's progress shows."""

YIELD_CLOSE_S = 0.5
"""An idle session is closed this soon while another gets no answer: there are peers that serve one association at a time."""

HORIZON_SLACK_S = 60.0
"""A clock that is set back by less only makes deliveries that much later."""

LEDGER_PAUSE_S = 1.0

_log = get_logger()


@dataclass(eq=False)
class _Worker:
    """One thread and its session."""

    session: Session
    awake: threading.Condition
    connected: bool = False
    batch: Batch | None = None
    until: float = math.inf
    """While it is idle, the time on which it keeps an eye."""


class Crew:
    """Delivers to one destination from `start` until `stop`, `cancel` or a fault of our own. Every method from any thread."""

    def __init__(
        self,
        destination: Destination,
        ledger: Ledger,
        *,
        changed: Callable[[str], None],
        to_transcode: Callable[[], None],
        sent: Note,
        clock: Callable[[], float],
        circuit: Circuit = circuits.CLOSED,
    ) -> None:
        """`changed` is told the destination's name when something was recorded; `clock` gives UTC seconds since the epoch.

        `to_transcode` is called when something is recorded that has to be transcoded first, `sent` with what a batch brought there.
        """
        self.failure: Exception | None = None
        """The fault of our own that ended it."""

        self._destination = destination
        self._clock = clock
        self._hours = Hours(destination.hours, clock)
        # A claim is sent before anything more urgent that comes later, so it has to be soon over.
        throttle = destination.throttle
        self._batch_bytes = MAX_BATCH_BYTES if throttle is None else min(MAX_BATCH_BYTES, THROTTLED_PIECES * throttle.piece_bytes)
        # Nothing is put off for longer than this, unless the clock was set back since.
        self._horizon_s = max(destination.retry.max_s, circuits.MAX_OPEN_S, table.RIVAL_PAUSE_S) + HORIZON_SLACK_S
        self._pull_forward_at = -math.inf
        self._changed = changed
        self._to_transcode = to_transcode
        self._sent = sent
        self._outbox = Outbox(ledger, clock, self._recorded)
        self._lock = threading.Lock()
        self._unavailable = Repeats()
        self._shared = WorkerState(circuit=circuit)
        self._workers = [_Worker(destination.open(), threading.Condition(self._lock)) for _ in range(destination.workers)]
        self._idle: list[_Worker] = []
        self._working = 0
        self._clerk = threading.Condition(self._lock)
        self._clerk_sleeps = False
        self._record_at = math.inf
        self._cancelled = False
        self._given_up = False
        self._over: Callable[[], None] = lambda: None

    @property
    def circuit(self) -> Circuit:
        """The recent state of the way to the destination."""
        return self._shared.circuit

    def view(self) -> CircuitView:
        """Return how the circuit stands."""
        return circuits.view(self._shared.circuit, time.monotonic())

    def start(self, *, over: Callable[[], None], ended: Callable[[], None]) -> None:
        """Begin to deliver. `over` is called when a fault of our own breaks it off or all is done, `ended` when all is done."""
        self._over = over
        self._working = len(self._workers)
        name = self._destination.name

        def clerk() -> None:
            self._root(self._keep_books)
            with self._lock:
                self._clerk.wait_for(lambda: not self._working)
            over()
            ended()

        threading.Thread(target=clerk, name=f"{name}-clerk", daemon=True).start()
        for number, worker in enumerate(self._workers, start=1):
            threading.Thread(target=self._root, args=(self._work, worker), name=f"{name}-{number}", daemon=True).start()

    def nudge(self, *, urgent: bool = True) -> None:
        """There may be something to do, in a moment where it is not `urgent`."""
        with self._lock:
            self._look(time.monotonic() + (0.0 if urgent else LINGER_S))

    def probe_now(self) -> None:
        """Try the destination at once even where the circuit is open."""
        with self._lock:
            now = time.monotonic()
            self._shared.circuit = circuits.probe_now(self._shared.circuit, now)
            self._shared.look_at = min(self._shared.look_at, now)
            self._wake()

    def stop(self) -> None:
        """Begin nothing more; the crew ends once the instances at hand are done."""
        with self._lock:
            self._shared.stopping = True
            for worker in self._workers:
                worker.session.stop()
                worker.awake.notify()

    def break_off(self) -> None:
        """Break off the instances at hand."""
        with self._lock:
            batches = [worker.batch for worker in self._workers if worker.batch is not None]
        for batch in batches:
            batch.break_off()
        for worker in self._workers:
            worker.session.kill()

    def cancel(self) -> None:
        """Stop and break off; whatever a session then says nothing about may have been sent."""
        self._cancelled = True
        self.stop()
        self.break_off()

    def give_up(self) -> None:
        """Settle what threads that do not come back had at hand, and wait for them no more.

        Raises:
            LedgerUnavailable: what they had at hand stays `sending` until it is recovered.
        """
        with self._lock:
            batches = [worker.batch for worker in self._workers if worker.batch is not None]
            self._given_up = True
            self._clerk.notify()
        for batch in batches:
            batch.leave(uncertain=True)
        self._outbox.record()

    def _root(self, act: Callable[..., None], *arguments: object) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001 - the root of a thread: `Lane` hears of it and raises it
            self.failure = self.failure or error
            self.cancel()
            self._over()

    def _work(self, worker: _Worker) -> None:
        try:
            if worker is self._workers[0]:
                self._destination.tidy()
            while (act := self._next_act(worker)) is not Act.LEAVE:
                if act is Act.CLOSE:
                    worker.session.close()
                elif act is Act.RECORD:
                    self._record()
                elif (batch := self._claim(worker)) is not None:
                    self._deliver(worker, batch)
        finally:
            self._leave(worker)

    def _leave(self, worker: _Worker) -> None:
        if worker.batch is not None:
            worker.batch.leave(uncertain=True)
        if worker.connected:
            worker.session.close()
        with self._lock:
            self._working -= 1
            self._clerk.notify()

    def _next_act(self, worker: _Worker) -> Act:
        """Sleep until there is something to do and return what."""
        with self._lock:
            close_at = time.monotonic() + self._patience_s() if worker.connected else math.inf
            while (step := self._next_step(now := time.monotonic(), close_at)).act is Act.WAIT:
                worker.until = step.until
                self._idle.append(worker)
                worker.awake.wait(None if step.until == math.inf else step.until - now)
                if worker in self._idle:
                    self._idle.remove(worker)
            if step.act is Act.CLAIM:
                self._shared.looking, self._shared.look_at = True, math.inf
            elif step.act is Act.CLOSE:
                worker.connected = False
                self._wake_for_what_comes(now)
            return step.act

    def _next_step(self, now: float, close_at: float) -> Step:
        """Return what to do next, with the hours as they are by the wall clock, which may be set."""
        was_shut, shut_s = self._shared.shut_until > -math.inf, self._hours.shut_s()
        self._shared.shut_until = now + shut_s if shut_s else -math.inf
        if was_shut != (shut_s > 0):
            _log.info("hours_ended" if shut_s else "hours_began", destination=self._destination.name)
        return next_step(self._shared, now, close_at)

    def _patience_s(self) -> float:
        """Return for how long an idle session stays open."""
        unanswered = any(worker.batch is not None and worker.batch.answered == 0 for worker in self._workers)
        idle_close_s = self._destination.idle_close_s
        return min(idle_close_s, YIELD_CLOSE_S) if unanswered else idle_close_s

    def _wake(self) -> None:
        """Wake one worker, the one that had work last."""
        if self._idle:
            self._idle.pop().awake.notify()

    def _wake_for_what_comes(self, now: float) -> None:
        """Wake a worker where there is work, or a time on which nobody keeps an eye."""
        step = next_step(self._shared, now)
        if step.act is not Act.WAIT or step.until < min((worker.until for worker in self._idle), default=math.inf):
            self._wake()

    def _look(self, at: float) -> None:
        """Have a worker look for work at `at`, monotonic."""
        if at < self._shared.look_at:
            self._shared.look_at = at
            self._wake_for_what_comes(time.monotonic())

    def _claim(self, worker: _Worker) -> Batch | None:
        """Record what there is to record and return a batch of what is due; None where nothing is."""
        with self._lock:
            now = time.monotonic()
            self._shared.settled_at, self._record_at = math.inf, math.inf
            probe = is_probe(self._shared, now)
        try:
            claim = self._outbox.record_with(lambda connection, at: self._claim_in(connection, at, now, probe=probe))
        except LedgerUnavailable as error:
            self._bear(error)
            return None
        with self._lock:
            shared, now = self._shared, time.monotonic()
            shared.looking, shared.claimed = False, len(claim.consignments)
            due_at = math.inf if claim.next_due is None else self._monotonic(claim.next_due, now)
            shared.look_at = min(shared.look_at, due_at, now + LONGEST_SLEEP_S)
            batch = self._begin(worker, claim, probe=probe) if claim.consignments else None
            self._wake_for_what_comes(now)
            return batch

    def _claim_in(self, connection: Connection, at: float, now: float, *, probe: bool) -> Claim:
        """Claim within a transaction; `at` is UTC, `now` monotonic."""
        name = self._destination.name
        if now >= self._pull_forward_at:
            self._pull_forward_at = now + LONGEST_SLEEP_S
            mending.pull_forward(connection, name, now=at, horizon_s=self._horizon_s)
            table.take_over(connection, name, now=at)
        limit, shares = (1, 1) if probe else (MAX_BATCH_INSTANCES, min(len(self._workers), MAX_SHARES))
        return table.claim(connection, name, now=at, max_instances=limit, max_bytes=self._batch_bytes, shares=shares)

    def _begin(self, worker: _Worker, claim: Claim, *, probe: bool) -> Batch:
        worker.batch = batch = Batch(self._destination, claim.consignments, self._clock, self._note, self._hours.is_open)
        worker.connected = True
        self._shared.at_work += 1
        self._shared.probing = probe
        return batch

    def _deliver(self, worker: _Worker, batch: Batch) -> None:
        if not self._shared.stopping:
            batch.carry_out(worker.session)
            self._sent(self._destination.name, batch.taken)
            metrics.SENT_BYTES.add(sum(part.size_bytes for part in batch.taken.values()), destination=self._destination.name)
        with self._lock:
            shared, now = self._shared, time.monotonic()
            if batch.answered:
                shared.circuit = circuits.after_success()
            down = batch.failure is not None and not batch.answered and not shared.stopping
            if down:
                self._open_circuit(str(batch.failure), now)
            open_s = max(0.0, shared.circuit.open_until - now)
        if down:
            batch.leave(due_at=self._clock() + open_s, reason=str(batch.failure))
        left = batch.leave(uncertain=self._cancelled)
        with self._lock:
            worker.batch = None
            shared.at_work -= 1
            shared.probing = False
            shared.settled_at = min(shared.settled_at, now)
            if left:
                self._look(now)

    def _open_circuit(self, reason: str, now: float) -> None:
        shared, retry = self._shared, self._destination.retry
        if circuits.state_of(shared.circuit, now) is CircuitState.OPEN:
            return  # another worker found out at the same time
        jitter = random.random()  # noqa: S311 - spreads attempts over time, no secret
        shared.circuit = circuits.after_failure(shared.circuit, now=now, retry=retry, jitter=jitter, reason=reason)
        failures, wait_s = shared.circuit.failures, round(shared.circuit.open_until - now, 3)
        name = self._destination.name
        _log.warning("destination_down", destination=name, reason=reason, failures=failures, retry_in_s=wait_s)

    def _note(self, change: Change) -> None:
        """Keep what is to be recorded, and have someone look when it falls due again."""
        self._outbox.put(change)
        with self._lock:
            if change.due_at is not None:
                self._look(self._monotonic(change.due_at, time.monotonic()))
            if self._record_at == math.inf:
                self._record_at = time.monotonic() + RECORD_EVERY_S
                if self._clerk_sleeps:
                    self._clerk.notify()

    def _recorded(self, changes: Sequence[Change]) -> None:
        name = self._destination.name
        for state, count in Counter(change.state for change in changes).items():
            metrics.DELIVERIES.add(count, destination=name, outcome=state.value)
        self._changed(name)
        if any(change.awaits_transcoding for change in changes):
            self._to_transcode()

    def _monotonic(self, at: float, now: float) -> float:
        """Return when it is `at` by the wall clock, on the monotonic one, on which it is `now`."""
        return now + at - self._clock()

    def _record(self) -> None:
        with self._lock:
            self._shared.settled_at, self._record_at = math.inf, math.inf
        try:
            self._outbox.record()
        except LedgerUnavailable as error:
            self._bear(error)

    def _bear(self, error: LedgerUnavailable) -> None:
        """Leave the ledger alone for a while; what was to be claimed and recorded then is."""
        if count := self._unavailable.due("ledger"):
            _log.warning("ledger_unavailable", destination=self._destination.name, error=str(error), count=count)
        with self._lock:
            now, shared = time.monotonic(), self._shared
            shared.looking, shared.look_at = False, min(shared.look_at, now)
            shared.rest_until = now + LEDGER_PAUSE_S
            self._record_at = shared.rest_until
            self._wake()

    def _keep_books(self) -> None:
        while self._outcomes_wait():
            self._record()
        while self._outbox and not self._given_up:
            self._record()
            with self._lock:
                if self._outbox and not self._given_up:
                    self._clerk.wait(LEDGER_PAUSE_S)

    def _outcomes_wait(self) -> bool:
        """Sleep until outcomes have waited for long enough; False once all workers are gone."""
        with self._lock:
            while self._working:
                wait_s = self._record_at - time.monotonic()
                if wait_s <= 0:
                    return True
                self._clerk_sleeps = wait_s == math.inf
                self._clerk.wait(None if self._clerk_sleeps else wait_s)
                self._clerk_sleeps = False
            return False
