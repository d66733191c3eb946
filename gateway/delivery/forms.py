"""In which transfer syntax an instance goes to a destination: what is offered, and what follows from the answers.

`Forms` is what a destination's sessions and the transcoder ask. The stored transfer syntax is proposed alone in its context, and
beside it those that the instance can be brought into, until the destination is known to accept one; what it is known to refuse is
not proposed. The decision itself is `gateway.codec.policy`'s.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from pydicom.uid import UID

from gateway.codec.policy import NOTHING, Capabilities, Decision, Hold, SendAsIs, candidates, decide
from gateway.core.domain import Consignment, InstanceIdentity, Mode
from gateway.delivery.adapters.acceptance import Acceptance, Pair
from gateway.delivery.destination import Outcome, OutcomeKind
from gateway.delivery.transcoding.copies import Copies
from gateway.dicom.syntaxes import syntax


@dataclass(frozen=True)
class Forms:
    """The forms in which one destination wants its instances, and those that it is known to take."""

    mode: Mode = Mode.AS_IS
    allow_decompressed_lossy: bool = False
    can: Capabilities = NOTHING
    acceptance: Acceptance = field(default_factory=Acceptance)
    copies: Copies | None = None

    def offers(self, consignment: Consignment) -> tuple[Pair, ...]:
        """Return what is to be proposed for it, the best first: up to what is accepted for sure, without what is refused."""
        sop_class, found = consignment.identity.sop_class_uid, []
        for candidate in self._candidates(consignment):
            pair = (sop_class, candidate)
            accepted = self.acceptance.accepts(pair)
            if accepted is not False:
                found.append(pair)
            if accepted:
                break
        return tuple(found)

    def decide(self, consignment: Consignment, accepted: Collection[str] | None, unsuitable: Collection[str] = ()) -> Decision:
        """Decide how it goes where the transfer syntaxes `accepted` are accepted for its SOP class, None where any is.

        It turned out that it cannot be encoded in those that are `unsuitable`.
        """
        return decide(
            consignment.identity.transfer_syntax_uid,
            accepted,
            consignment.mode or self.mode,
            self.can,
            allow_decompressed_lossy=self.allow_decompressed_lossy,
            chosen=consignment.sent_as,
            unsuitable=unsuitable,
        )

    def otherwise(self, consignment: Consignment, unsuitable: Collection[str]) -> Decision:
        """Decide by what is known of the destination, without asking it, where `unsuitable` turned out not to do."""
        sop_class = consignment.identity.sop_class_uid
        known = [each for each in self._candidates(consignment) if self.acceptance.accepts((sop_class, each))]
        return self.decide(consignment, known or None, unsuitable)

    def shipment(self, consignment: Consignment, decision: Decision) -> Consignment | Outcome:
        """Return what goes out of `consignment` by `decision`, or the outcome where nothing does now."""
        stored = consignment.identity.transfer_syntax_uid
        if isinstance(decision, Hold):
            words = f"{refusal(consignment.identity)}: {decision.reason}"
            return Outcome(consignment.delivery_id, OutcomeKind.REFUSED, reason=words)
        if isinstance(decision, SendAsIs):
            return consignment if consignment.sent_as in (None, stored) else replace(consignment, sent_as=None)
        target = decision.transfer_syntax_uid
        copy = self.copies.find(consignment.content, stored, target) if self.copies else None
        if copy is None:
            return _to_be_transcoded(consignment, target)
        identity = replace(consignment.identity, transfer_syntax_uid=target)
        return replace(consignment, identity=identity, content=copy, sent_as=target)

    def afterwards(self, outcome: Outcome, consignment: Consignment, shipment: Consignment) -> Outcome:
        """Return the outcome of `consignment` of which `shipment` went out: where a copy is not what it was, it is made anew."""
        if shipment.content is not consignment.content and outcome.kind is OutcomeKind.UNREADABLE:
            if self.copies is not None:
                self.copies.drop(shipment.content)
            return _to_be_transcoded(consignment, shipment.identity.transfer_syntax_uid)
        return outcome if shipment.sent_as is None else replace(outcome, sent_as=shipment.sent_as)

    def _candidates(self, consignment: Consignment) -> tuple[str, ...]:
        return candidates(
            consignment.identity.transfer_syntax_uid,
            consignment.mode or self.mode,
            self.can,
            allow_decompressed_lossy=self.allow_decompressed_lossy,
            chosen=consignment.sent_as,
        )


def _to_be_transcoded(consignment: Consignment, target: str) -> Outcome:
    words = f"waits to be transcoded into {syntax(target).name}"
    return Outcome(consignment.delivery_id, OutcomeKind.TRANSCODE, reason=words, sent_as=target)


def refusal(identity: InstanceIdentity) -> str:
    """Say that the destination accepted no context for `identity`. Pure."""
    sop_class, stored = UID(identity.sop_class_uid).name, UID(identity.transfer_syntax_uid).name
    return f"destination accepts no {sop_class} in transfer syntax {stored}"
