"""One batch on its way: hands it to a session, takes the outcomes and decides what each means for the ledger."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.core.domain import Consignment, DeliveryState
from gateway.core.errors import AssociationError, DestinationUnavailable
from gateway.core.log import get_logger
from gateway.delivery.destination import Destination, Outcome, OutcomeKind, Session
from gateway.delivery.journal import Sent
from gateway.delivery.policy import Circumstances, decide, is_plain_success, plain_success
from gateway.ledger.deliveries.claiming import Change

BROKEN_OFF = "broken off when the gateway stopped"

_SILENT = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.UNREADABLE, OutcomeKind.HINDERED, OutcomeKind.TRANSCODE})
"""Outcomes that say nothing about whether the destination is there."""

_log = get_logger()


@dataclass
class Batch:
    """Claimed consignments on their way. `carry_out` runs on a worker's thread, `leave` and `break_off` on any.

    `note` takes what is to be recorded, each delivery once; it is called on the thread on which that became known. `go_on` tells,
    between instances, whether the next one is to be sent now.
    """

    destination: Destination
    consignments: Sequence[Consignment]
    clock: Callable[[], float]
    note: Callable[[Change], None]
    go_on: Callable[[], bool]
    failure: AssociationError | DestinationUnavailable | None = None
    answered: int = 0
    """The number of outcomes that show that the destination was there."""

    taken: dict[str, Sent] = field(init=False, default_factory=dict)
    """The instances that the destination took, by Study Instance UID."""

    _since: float = field(init=False)
    """The time when the instance at hand began."""

    _open: dict[int, Consignment] = field(init=False)
    """The consignments without an outcome yet; to take one out is atomic, so that each is noted once."""

    _breaking_off: bool = False

    def __post_init__(self) -> None:
        self._since = self.clock()
        self._open = {consignment.delivery_id: consignment for consignment in self.consignments}

    def carry_out(self, session: Session) -> None:
        """Deliver. Afterwards `failure` and `answered` say how it went; call `leave` to settle the rest."""
        began = time.monotonic()
        try:
            session.deliver(self.consignments, self.report)
        except (AssociationError, DestinationUnavailable) as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 - an adapter's fault must not end the destination
            self._blame(error)
            session.close()
        self._say(time.monotonic() - began)

    def report(self, outcome: Outcome) -> bool:
        """Take one outcome and tell whether the next instance is to be sent now."""
        consignment = self._open.pop(outcome.delivery_id, None)
        if consignment is not None:
            self.answered += outcome.kind not in _SILENT
            change = self._decided(outcome, consignment)
            self.note(change)
            self._add_up(change, consignment)
        return self.go_on()

    def _add_up(self, change: Change, consignment: Consignment) -> None:
        now = self.clock()
        if change.state is DeliveryState.DELIVERED:
            sent = self.taken.setdefault(consignment.identity.study_instance_uid, Sent(self._since, now))
            sent.ended_at = now
            sent.instances += 1
            sent.size_bytes += consignment.content.length
        self._since = now

    def break_off(self) -> None:
        """From now on an unknown outcome is ours, not the instance's: it costs no attempt."""
        self._breaking_off = True

    def leave(self, *, due_at: float | None = None, reason: str | None = None, uncertain: bool = False) -> int:
        """Return what was not reported to the queue as it was, not before `due_at`; returns how many. It may be called again."""
        state = DeliveryState.PENDING if due_at is None else DeliveryState.DEFERRED
        left = 0
        while self._open:
            _, item = self._open.popitem()
            unsure = uncertain or item.uncertain
            self.note(Change(item.delivery_id, state, item.attempts, due_at, reason=reason, uncertain=unsure, sent_as=item.sent_as))
            left += 1
        return left

    def _decided(self, outcome: Outcome, consignment: Consignment) -> Change:
        if is_plain_success(outcome, self.destination.judge):
            return plain_success(outcome, consignment, self.destination.instant_proof)
        if outcome.kind is OutcomeKind.UNKNOWN and self._breaking_off:
            state, sent_as = DeliveryState.PENDING, consignment.sent_as
            return Change(consignment.delivery_id, state, consignment.attempts, reason=BROKEN_OFF, uncertain=True, sent_as=sent_as)
        jitter = random.random()  # noqa: S311 - spreads attempts over time, no secret
        to = self.destination
        circumstances = Circumstances(to.retry, self.clock(), jitter, to.instant_proof, judge=to.judge)
        change = decide(outcome, consignment, circumstances)
        if change.state is not DeliveryState.DELIVERED and not change.awaits_transcoding:
            uid = consignment.identity.sop_instance_uid
            name, state = self.destination.name, change.state
            _log.warning("not_delivered", destination=name, sop_instance_uid=uid, state=state.value, reason=change.reason)
        return change

    def _blame(self, error: Exception) -> None:
        """End everything left as unknown: the adapter broke on one of them and did not say on which."""
        kind = type(error).__name__
        _log.exception("delivery_adapter_failed", destination=self.destination.name, error=kind)
        for delivery_id in list(self._open):
            self.report(Outcome(delivery_id, OutcomeKind.UNKNOWN, reason=f"internal error: {kind}"))

    def _say(self, duration_s: float) -> None:
        _log.debug(
            "batch_ended",
            destination=self.destination.name,
            instances=len(self.consignments),
            answered=self.answered,
            size_bytes=sum(consignment.content.length for consignment in self.consignments),
            duration_s=round(duration_s, 3),
            failure=None if self.failure is None else str(self.failure),
        )
