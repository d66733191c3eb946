"""One batch on its thread: hands it to a session, takes the outcomes, decides, and records them in the ledger in groups."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from gateway.delivery.destination import Destination, Outcome, OutcomeKind, Session
from gateway.delivery.policy import Circumstances, decide
from gateway.domain import Consignment, DeliveryState
from gateway.errors import AssociationError, DestinationUnavailable, LedgerUnavailable
from gateway.ledger import Ledger
from gateway.ledger import deliveries as table
from gateway.ledger.deliveries import Change

RECORD_EVERY_S = 0.2
"""Outcomes are recorded at least this often while they come, so that a slow destination's progress shows."""

BROKEN_OFF = "broken off when the gateway stopped"

_SILENT = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.UNREADABLE, OutcomeKind.HINDERED})
"""Outcomes that say nothing about whether the destination is there."""

_log = structlog.get_logger()


@dataclass
class Batch:
    """Claimed consignments on their way. `carry_out` runs on a thread of its own, the rest may be called from any."""

    destination: Destination
    ledger: Ledger
    consignments: Sequence[Consignment]
    clock: Callable[[], float]
    changed: Callable[[str], None]
    gathered: Callable[[], None] = lambda: None
    """Hears, on any thread, that there is something to record which was not there before."""
    failure: AssociationError | DestinationUnavailable | None = None
    answered: int = 0
    """How many outcomes show that the destination was there."""

    _open: dict[int, Consignment] = field(init=False)
    _unrecorded: list[Change] = field(default_factory=list)
    _recorded_at: float = field(default_factory=time.monotonic)
    _breaking_off: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _recording: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._open = {consignment.delivery_id: consignment for consignment in self.consignments}

    def carry_out(self, session: Session) -> None:
        """Deliver. Afterwards `failure` and `answered` say how it went; call `finish` to settle the rest."""
        began = time.monotonic()
        try:
            session.deliver(self.consignments, self.report)
        except (AssociationError, DestinationUnavailable) as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 - the root of this thread: an adapter's fault must not end the destination
            self._blame(error)
            session.close()
        self._say(time.monotonic() - began)

    def report(self, outcome: Outcome) -> None:
        """Take one outcome, and record what has gathered when it is time."""
        with self._lock:
            consignment = self._open.pop(outcome.delivery_id, None)
            if consignment is None:
                return
            first = not self._unrecorded
            self._unrecorded.append(self._decided(outcome, consignment))
            self.answered += outcome.kind not in _SILENT
        if first:
            self.gathered()
        if time.monotonic() - self._recorded_at >= RECORD_EVERY_S:
            try:
                self.record()
            except LedgerUnavailable as error:
                _log.warning("ledger_unavailable", destination=self.destination.name, error=str(error))

    def record(self) -> None:
        """Make the outcomes so far durable.

        Raises:
            LedgerUnavailable: not now; they are kept.
        """
        self._recorded_at = time.monotonic()
        with self._recording:
            with self._lock:
                changes = tuple(self._unrecorded)
            if not changes:
                return
            now = self.clock()
            self.ledger.write(lambda connection: table.apply(connection, changes, now=now))
            with self._lock:
                del self._unrecorded[: len(changes)]
        self.changed(self.destination.name)

    def break_off(self) -> None:
        """From now on an unknown outcome is ours, not the instance's: it costs no attempt."""
        self._breaking_off = True

    def finish(self, *, due_at: float | None = None, reason: str | None = None, uncertain: bool = False) -> None:
        """Return what was not reported to the queue as it was, not before `due_at`, and record everything. It may be called again.

        Raises:
            LedgerUnavailable: not now.
        """
        state = DeliveryState.PENDING if due_at is None else DeliveryState.DEFERRED
        with self._lock:
            for item in self._open.values():
                unsure = uncertain or item.uncertain
                self._unrecorded.append(Change(item.delivery_id, state, item.attempts, due_at, reason=reason, uncertain=unsure))
            self._open.clear()
        self.record()

    def _decided(self, outcome: Outcome, consignment: Consignment) -> Change:
        if outcome.kind is OutcomeKind.UNKNOWN and self._breaking_off:
            state = DeliveryState.PENDING
            return Change(consignment.delivery_id, state, consignment.attempts, reason=BROKEN_OFF, uncertain=True)
        jitter = random.random()  # noqa: S311 - spreads attempts over time, no secret
        circumstances = Circumstances(self.destination.retry, self.clock(), jitter, self.destination.instant_proof)
        change = decide(outcome, consignment, circumstances)
        if change.state is not DeliveryState.DELIVERED:
            uid = consignment.identity.sop_instance_uid
            name, state = self.destination.name, change.state
            _log.warning("not_delivered", destination=name, sop_instance_uid=uid, state=state.value, reason=change.reason)
        return change

    def _blame(self, error: Exception) -> None:
        """End everything left as unknown: the adapter broke on one of them and did not say on which."""
        kind = type(error).__name__
        _log.exception("delivery_adapter_failed", destination=self.destination.name, error=kind)
        with self._lock:
            left = list(self._open)
        for delivery_id in left:
            self.report(Outcome(delivery_id, OutcomeKind.UNKNOWN, reason=f"internal error: {kind}"))

    def _say(self, duration_s: float) -> None:
        _log.info(
            "batch_ended",
            destination=self.destination.name,
            instances=len(self.consignments),
            answered=self.answered,
            size_bytes=sum(consignment.content.length for consignment in self.consignments),
            duration_s=round(duration_s, 3),
            failure=None if self.failure is None else str(self.failure),
        )
