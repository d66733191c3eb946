"""The consequence of an outcome: delivered, tried again later, or held with the reason. Pure; time and jitter are arguments.

| outcome | what follows |
|---|---|
| 0000, stored, found | delivered |
| B000, B006, B007, other warnings | delivered, with the warning |
| 0111 and the destination lists it, or cannot be asked | delivered |
| 0111 and it is not listed | one more try, then held |
| 0111 although the content differs from what was sent before | held |
| A7xx | backs off; held when the attempts are used up |
| 0110, Cxxx, A9xx, unknown failures | one more try on a new association, then held |
| 0117, 0122, 0124, 0210–0212 | held at once |
| no answer | uncertain, backs off; held when the attempts are used up |
| transfer syntax or SOP class not accepted | held at once |
| to be transcoded first | waits for that; costs no attempt |
| our bytes missing or damaged | held at once |
| our bytes not readable this time | backs off; held when the attempts are used up |

| any other status of a destination's kind | by its class: done, warning, duplicate, retry, retry once, refuse, unknown |

The statuses above are those of C-STORE (PS3.4 §B.2.3, `gateway.association.dimse.statuses`). Which class a status is of, its
destination tells (`Destination.judge`); nothing here knows a protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gateway.config.settings import RetryTable
from gateway.core.backoff import doubling_s
from gateway.core.domain import Consignment, DeliveryState, Proof, Status, StatusClass
from gateway.delivery.destination import Judge, Outcome, OutcomeKind
from gateway.ledger.deliveries.claiming import Change

TRANSCODING_PAUSE_S = 3600.0
"""The pause, in seconds, after which a delivery that waits for transcoding is looked at again even without any word of it."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The circumstances of a decision beside the outcome: `now` in UTC seconds since the epoch, `jitter` from 0 to 1."""

    retry: RetryTable
    now: float
    jitter: float
    instant_proof: Proof | None = None
    judge: Judge = field(kw_only=True)


def backoff_s(retry: RetryTable, attempt: int, jitter: float) -> float:
    """Return how long to wait after the `attempt`-th attempt (from 1): exponential, capped, full jitter."""
    return jitter * doubling_s(retry.first_s, retry.max_s, attempt)


def is_plain_success(outcome: Outcome, judge: Judge) -> bool:
    """Tell whether `outcome` is an answer of success and nothing else, as nearly all are."""
    status = outcome.status
    return status is not None and outcome.kind is OutcomeKind.ANSWERED and judge(status).status_class is StatusClass.DONE


def plain_success(outcome: Outcome, consignment: Consignment, instant_proof: Proof | None) -> Change:
    """Return what `decide` does for a plain success, which depends on neither time nor jitter."""
    return Change(
        consignment.delivery_id,
        DeliveryState.DELIVERED,
        consignment.attempts + 1,
        status=outcome.status,
        proof=outcome.proof or instant_proof,
        sent_as=outcome.sent_as,
        was_there=outcome.was_there,
    )


def decide(outcome: Outcome, consignment: Consignment, circumstances: Circumstances) -> Change:
    """Return what is to become of `consignment` after `outcome`."""
    return _Decision(outcome, consignment, circumstances).change()


def wants_new_session(consignment: Consignment, judge: Judge) -> bool:
    """Tell whether this is the one more try that a status allows, which has to be in a new session: on a new association."""
    last = consignment.last_status
    return consignment.attempts > 0 and last is not None and judge(last).status_class in _ONE_MORE_TRY


_ONE_MORE_TRY = (StatusClass.RETRY_ONCE, StatusClass.DUPLICATE)


@dataclass(frozen=True, slots=True)
class _Decision:
    outcome: Outcome
    consignment: Consignment
    circumstances: Circumstances

    def change(self) -> Change:
        match self.outcome.kind:
            case OutcomeKind.ANSWERED:
                if self.outcome.status is None:
                    return self._later("an answer without a status", uncertain=True)
                return self._answered(self.circumstances.judge(self.outcome.status))
            case OutcomeKind.STORED | OutcomeKind.FOUND:
                return self._delivered(self.outcome.reason)
            case OutcomeKind.UNKNOWN:
                return self._later(self.outcome.reason or "no answer", uncertain=True)
            case OutcomeKind.REFUSED | OutcomeKind.TRANSCODE | OutcomeKind.UNREADABLE | OutcomeKind.HINDERED:
                return self._not_sent()

    def _not_sent(self) -> Change:
        if self.outcome.kind is OutcomeKind.TRANSCODE:
            return self._to_be_transcoded()
        if self.outcome.kind is OutcomeKind.HINDERED:
            return self._later(self.outcome.reason or "bytes cannot be read")
        if self.outcome.kind is OutcomeKind.UNREADABLE:
            return replace(self._held(self.outcome.reason or "bytes missing"), bytes_gone=True)
        return self._held(self.outcome.reason or "the destination accepts no such instance")

    def _answered(self, status: Status) -> Change:
        match status.status_class:
            case StatusClass.DONE:
                return self._delivered("")
            case StatusClass.WARNING:
                return self._delivered(f"warning {status.words}")
            case StatusClass.DUPLICATE:
                return self._duplicate(status.words)
            case StatusClass.RETRY | StatusClass.UNKNOWN:
                return self._later(status.words, uncertain=status.status_class is StatusClass.UNKNOWN)
            case StatusClass.RETRY_ONCE:
                return self._once_more(status.words)
            case StatusClass.REFUSE:
                return self._held(f"{status.words}: another try cannot help")

    def _duplicate(self, words: str) -> Change:
        if self.consignment.has_rivals:
            return self._held(f"{words}: the destination keeps the other content that it has under this SOP Instance UID")
        if self.outcome.found is False:
            return self._once_more(f"{words}, but the destination does not list it")
        checked = "" if self.outcome.found else "; whether it is there could not be asked"
        return self._delivered(f"{words}{checked}")

    def _to_be_transcoded(self) -> Change:
        due_at = self.circumstances.now + TRANSCODING_PAUSE_S
        waiting = self._change(DeliveryState.DEFERRED, self.outcome.reason, due_at=due_at, uncertain=self.consignment.uncertain)
        return replace(waiting, attempts=self.consignment.attempts, awaits_transcoding=True)

    def _once_more(self, words: str) -> Change:
        if wants_new_session(self.consignment, self.circumstances.judge):
            return self._held(f"{words}, twice")
        return self._later(words)

    def _later(self, words: str, *, uncertain: bool = False) -> Change:
        attempts = self.consignment.attempts + 1
        retry = self.circumstances.retry
        unsure = uncertain or self.consignment.uncertain
        if attempts >= retry.attempts:
            return self._held(f"{words}; given up after {attempts} attempts", uncertain=unsure)
        due_at = self.circumstances.now + backoff_s(retry, attempts, self.circumstances.jitter)
        return self._change(DeliveryState.DEFERRED, words, due_at=due_at, uncertain=unsure)

    def _held(self, words: str, *, uncertain: bool | None = None) -> Change:
        return self._change(DeliveryState.HELD, words, uncertain=self.consignment.uncertain if uncertain is None else uncertain)

    def _delivered(self, words: str) -> Change:
        proof = self.outcome.proof or self.circumstances.instant_proof
        return self._change(DeliveryState.DELIVERED, words, proof=proof)

    def _change(
        self,
        state: DeliveryState,
        words: str,
        *,
        due_at: float | None = None,
        uncertain: bool = False,
        proof: Proof | None = None,
    ) -> Change:
        return Change(
            delivery_id=self.consignment.delivery_id,
            state=state,
            attempts=self.consignment.attempts + 1,
            due_at=due_at,
            status=self.outcome.status,
            reason=words or None,
            uncertain=uncertain,
            proof=proof,
            sent_as=self.outcome.sent_as,
            was_there=self.outcome.was_there,
        )
