"""Destinations of kind ``dicom``: C-STORE as SCU (PS3.4 §B), each instance in the transfer syntax it has where that is accepted.

A session keeps one association and proposes what its batches need, one transfer syntax a context, with C-FIND beside it (`forms`
says what is proposed, and what follows from the answers). The association serves further batches while its contexts suffice.
Whether an instance is at the destination is asked by C-FIND where an earlier attempt had no answer and where the destination says
that it is a duplicate.

Move Originator (0000,1030) and (0000,1031) are not passed on: they would name a C-MOVE that the destination has no part in. Our
C-STORE is an operation of its own (PS3.7 §9.1.1.1 has them for the sub-operations of a C-MOVE only).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TypeVar

from gateway.association.dimse.statuses import SUCCESS, store_status
from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.presence import FIND_CONTEXT, answers_find, has_study, instances_of_series, is_listed, listed_studies
from gateway.association.scu.remote import deadlines_of, remote_of
from gateway.association.scu.requestor import Requestor, associate
from gateway.association.upper.contexts import MAX_CONTEXTS, AcceptedContext, plan_contexts
from gateway.codec.policy import Decision, Hold
from gateway.config.settings import DicomDestination, RetryTable
from gateway.core.domain import Consignment, Proof, Status, StatusClass
from gateway.core.errors import (
    AssociationAborted,
    AssociationEnded,
    AssociationError,
    DimseFailed,
    NoPresentationContext,
    SourceDamaged,
    SpoolIOError,
    SpoolMissing,
)
from gateway.core.log import get_logger
from gateway.core.schedule import Schedule
from gateway.core.throttle import Throttle
from gateway.delivery.adapters.acceptance import Pair
from gateway.delivery.adapters.listed_before import Before, Key, Listed
from gateway.delivery.destination import DAMAGED, ContentStore, OpenBytes, Outcome, OutcomeKind, Report
from gateway.delivery.forms import Forms
from gateway.delivery.policy import wants_new_session

MAX_PAIRS = MAX_CONTEXTS - 1
"""One context is C-FIND's."""

_log = get_logger()
T = TypeVar("T")


def split(
    batch: Sequence[Consignment], offers: Callable[[Consignment], tuple[Pair, ...]], limit: int = MAX_PAIRS
) -> list[list[Consignment]]:
    """Split a batch so that each part needs no more than `limit` contexts for its `offers`, in the order of the batch. Pure."""
    place: dict[tuple[Pair, ...], int] = {}
    parts: list[list[Consignment]] = []
    needed: set[Pair] = set()
    for consignment in batch:
        pairs = offers(consignment)
        if pairs not in place:
            if not parts or len(needed.union(pairs)) > limit:
                parts.append([])
                needed = set()
            needed.update(pairs)
            place[pairs] = len(parts) - 1
        parts[place[pairs]].append(consignment)
    return parts


def proposal(needed: Iterable[Pair], known: Iterable[Pair], limit: int = MAX_PAIRS) -> tuple[Pair, ...]:
    """Return what to propose: what is `needed` now, then what was before, as far as there is room. Pure."""
    return tuple(dict.fromkeys((*needed, *known)))[:limit]


@dataclass
class CStore:
    """A `Destination` that is a Storage SCP."""

    name: str
    settings: DicomDestination
    calling_ae: str
    store: ContentStore
    tls: ssl.SSLContext | None = None
    forms: Forms = field(default_factory=Forms)
    hours: Schedule | None = None
    throttle: Throttle | None = None
    before: Before = field(default_factory=Before)

    @property
    def workers(self) -> int:
        """The number of associations that work at a time."""
        return self.settings.associations

    @property
    def idle_close_s(self) -> float:
        """An association without work for this long is released."""
        return self.settings.idle_close_s

    @property
    def retry(self) -> RetryTable:
        """The number of attempts and the pauses between them."""
        return self.settings.retry

    @property
    def instant_proof(self) -> Proof | None:
        """The status, where no more is asked."""
        return Proof.STATUS if self.settings.verify == "status" else None

    @property
    def found_proof(self) -> Proof | None:
        """The proof that lies in finding an instance by C-FIND; None where more is wanted."""
        return Proof.EXISTS if self.settings.verify in {"exists", "status"} else None

    @property
    def asks_before(self) -> bool:
        """Whether it matters that the destination has an instance before it is sent: where more than its answer is to prove it."""
        return self.settings.verify != "status"

    def judge(self, status: int) -> Status:
        """Return what a C-STORE status means."""
        return store_status(status)

    def open(self) -> CStoreSession:
        """Return a session, not yet associated."""
        return CStoreSession(self)

    def tidy(self) -> None:
        """Nothing is ever left there."""

    def forget_refusals(self) -> None:
        """Propose everything anew."""
        self.forms.acceptance.forget()

    def associate(self, pairs: Sequence[Pair]) -> Requestor:
        """Associate with contexts for `pairs` and for C-FIND. Raises the subclasses of `AssociationError`."""
        remote = remote_of(self.settings, self.tls, sending=self.throttle)
        contexts = (*plan_contexts(pairs)[0], FIND_CONTEXT)
        return associate(remote, self.calling_ae, contexts, deadlines=deadlines_of(self.settings))


class CStoreSession:
    """A `Session` over one association at a time."""

    def __init__(self, destination: CStore) -> None:
        self._destination = destination
        self._forms = destination.forms
        self._association: Requestor | None = None
        self._opening = KillSwitch()
        self._proposed: frozenset[Pair] = frozenset()
        self._proven = False
        self._find_works = True
        self._stopped = Event()
        self._killed = Event()

    def deliver(self, batch: Sequence[Consignment], report: Report) -> None:
        """Send the instances of `batch`.

        Raises:
            AssociationError: no association, or it broke; the instance at hand was reported as unknown, the rest was not sent.
        """
        if any(wants_new_session(consignment, store_status) for consignment in batch):
            self.close()
        self._proven = False
        for part in split(batch, self._forms.offers):
            for consignment in part:
                if self._stopped.is_set():
                    return
                try:
                    outcome = self._outcome(consignment, part)
                except AssociationError:
                    self._drop()
                    raise
                except _NoAnswer as broken:
                    self._drop()
                    report(Outcome(consignment.delivery_id, OutcomeKind.UNKNOWN, reason=f"no answer: {broken.error}"))
                    raise broken.error from broken
                if not report(outcome):
                    return

    def stop(self) -> None:
        """Finish the C-STORE at hand and begin no other."""
        self._stopped.set()

    def kill(self) -> None:
        """Abort the association at once, also one that is being opened."""
        self._stopped.set()
        self._killed.set()
        self._opening.kill()
        if (association := self._association) is not None:
            association.kill()

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None:
            association.release()

    def _outcome(self, consignment: Consignment, part: Sequence[Consignment]) -> Outcome:
        try:
            return self._attempt(consignment, part)
        except AssociationEnded:
            # Nothing was sent: the destination had ended the association before.
            self._drop()
            return self._attempt(consignment, part)
        except _NoAnswer as broken:
            if broken.proven or self._killed.is_set():
                raise
        # The association had been idle: the destination may have closed it before it read anything.
        self._drop()
        try:
            return self._attempt(replace(consignment, uncertain=True), part)
        except AssociationError as error:
            raise _NoAnswer(error, proven=True) from error

    def _ready(self, consignment: Consignment, part: Sequence[Consignment]) -> Requestor:
        """Return an association on which all was proposed that there is to propose for `consignment`.

        Raises:
            NoPresentationContext: there is nothing to propose, or the destination accepts nothing of it.
        """
        if self._killed.is_set():
            raise self._broken_off()
        offers = self._forms.offers(consignment)
        if not offers:
            raise NoPresentationContext("nothing is left to propose", peer=self._peer)
        if self._association is not None and self._proposed.issuperset(offers):
            return self._association
        self.close()
        needed = dict.fromkeys(pair for each in (consignment, *part) for pair in self._forms.offers(each))
        return self._associate(proposal(needed, filter(self._forms.acceptance.accepts, self._proposed)))

    def _associate(self, pairs: Sequence[Pair]) -> Requestor:
        acceptance = self._forms.acceptance
        try:
            with self._opening.on_this_thread():
                association = self._destination.associate(pairs)
        except NoPresentationContext:
            acceptance.learn((), pairs)
            raise
        accepted = {pair for pair in pairs if association.context_for(*pair)}
        acceptance.learn(accepted, [pair for pair in pairs if pair not in accepted])
        self._association, self._proposed, self._proven = association, frozenset(pairs), True
        if self._killed.is_set():
            raise self._broken_off()
        return association

    def _broken_off(self) -> AssociationAborted:
        return AssociationAborted("broken off by us", peer=self._peer)

    @property
    def _peer(self) -> str:
        settings = self._destination.settings
        return f"{settings.ae_title}@{settings.host}:{settings.port}"

    def _attempt(self, consignment: Consignment, part: Sequence[Consignment]) -> Outcome:
        if self._has(consignment, part):
            proof = self._proof_of_found(consignment.was_there)
            return Outcome(consignment.delivery_id, OutcomeKind.FOUND, found=True, proof=proof)
        if self._association is None and (foreseen := self._foreseen(consignment)) is not None:
            return foreseen
        shipment = self._forms.shipment(consignment, self._decision(consignment, part))
        if isinstance(shipment, Outcome):
            return shipment
        was_there = self._was_there(consignment, part)
        if self._association is None:
            # The destination broke it over the question.
            self._decision(consignment, part)
        if was_there is not shipment.was_there:
            shipment = replace(shipment, was_there=was_there)
        outcome = self._forms.afterwards(self._carried_out(shipment), consignment, shipment)
        return outcome if was_there is None else replace(outcome, was_there=was_there)

    def _was_there(self, consignment: Consignment, part: Sequence[Consignment]) -> bool | None:
        """Tell whether the destination had the instance before it was sent for the first time, None where that is not known."""
        of = consignment.identity
        if not _new(consignment) or not self._destination.asks_before:
            return consignment.was_there
        before = self._destination.before
        if not before.knows(of.study_instance_uid):
            before.ask_ahead((each.identity.study_instance_uid for each in part if _new(each)), self._listed_studies)
        known = self._listed_before((of.study_instance_uid,))
        if known:
            known = self._listed_before((of.study_instance_uid, of.series_instance_uid))
        return None if known is None else of.sop_instance_uid in known

    def _listed_studies(self, studies: list[str]) -> set[str] | None:
        association = self._association
        if association is None or not answers_find(association):
            return None
        return self._asked(lambda: listed_studies(association, studies))

    def _listed_before(self, key: Key) -> Listed:
        """Return what the destination listed for a study, or a series, before this process sent anything of it."""

        def ask() -> Listed:
            association = self._association
            if association is None or not answers_find(association):
                return None
            return self._asked(lambda: _listing(association, key))

        return self._destination.before.answer(key, ask)

    def _foreseen(self, consignment: Consignment) -> Outcome | None:
        """Return the outcome where it is known without an association: what is accepted is known, and has to be made first."""
        offers = self._forms.offers(consignment)
        if len(offers) != 1 or not self._forms.acceptance.accepts(offers[0]):
            return None
        shipment = self._forms.shipment(consignment, self._forms.decide(consignment, [offers[0][1]]))
        return shipment if isinstance(shipment, Outcome) else None

    def _decision(self, consignment: Consignment, part: Sequence[Consignment]) -> Decision:
        """Decide by what the destination accepts, which is asked until it accepts something or nothing is left to propose."""
        while offers := self._forms.offers(consignment):
            before = self._association
            try:
                association = self._ready(consignment, part)
            except NoPresentationContext:
                continue
            accepted = [syntax for sop_class, syntax in offers if association.context_for(sop_class, syntax)]
            decision = self._forms.decide(consignment, accepted)
            if not isinstance(decision, Hold):
                return decision
            if association is before:
                # It was refused there before it was forgotten: it is to be asked anew.
                self.close()
        return self._forms.decide(consignment, ())

    def _carried_out(self, shipment: Consignment) -> Outcome:
        number, identity = shipment.delivery_id, shipment.identity
        association = self._association
        context = association.context_for(identity.sop_class_uid, identity.transfer_syntax_uid) if association else None
        if association is None or context is None:
            raise NoPresentationContext("the association was lost before it was used", peer=self._peer)
        try:
            with self._destination.store.open(shipment.content) as source:
                return self._send(shipment, association, context, source)
        except SpoolMissing as error:
            return Outcome(number, OutcomeKind.UNREADABLE, reason=f"bytes missing: {error}")
        except SpoolIOError as error:
            return Outcome(number, OutcomeKind.HINDERED, reason=f"bytes cannot be read: {error}")

    def _send(self, consignment: Consignment, association: Requestor, context: AcceptedContext, source: OpenBytes) -> Outcome:
        try:
            uid, digest = consignment.identity.sop_instance_uid, consignment.content.digest
            response = association.store(context, uid, source, digest=digest)
        except AssociationEnded:
            raise
        except AssociationError as error:
            raise _NoAnswer(error, proven=self._proven) from error
        except OSError as error:
            self._drop()
            return Outcome(consignment.delivery_id, OutcomeKind.HINDERED, reason=f"bytes cannot be read: {error.strerror}")
        except SourceDamaged:
            self._drop()
            return Outcome(consignment.delivery_id, OutcomeKind.UNREADABLE, reason=DAMAGED)
        self._proven = True
        if response.status == SUCCESS and consignment.was_there is not None:
            self._destination.before.sent(consignment.identity.study_instance_uid)
        return self._answered(consignment, association, response.status)

    def _answered(self, consignment: Consignment, association: Requestor, status: int) -> Outcome:
        found: bool | None = None
        if store_status(status).status_class is StatusClass.DUPLICATE:
            found = self._listed(consignment, association)
        # A duplicate was there before this attempt; by an earlier one only where that is known.
        was_there = consignment.was_there is not False
        proof = self._proof_of_found(was_there) if found and not consignment.has_rivals else None
        return Outcome(consignment.delivery_id, OutcomeKind.ANSWERED, status=status, found=found, proof=proof)

    def _has(self, consignment: Consignment, part: Sequence[Consignment]) -> bool:
        """Ask, where an earlier attempt had no answer, whether the instance is there."""
        if not consignment.uncertain or consignment.has_rivals:
            return False
        try:
            return self._listed(consignment, self._ready(consignment, part)) is True
        except NoPresentationContext:
            return False

    def _listed(self, consignment: Consignment, association: Requestor) -> bool | None:
        """Ask whether the destination lists the instance; None where it cannot be asked.

        A destination that breaks the association over the question is asked no more in this session.
        """
        identity = consignment.identity
        if not (identity.study_instance_uid and identity.series_instance_uid and answers_find(association)):
            return None
        return self._asked(
            lambda: is_listed(association, identity.study_instance_uid, identity.series_instance_uid, identity.sop_instance_uid)
        )

    def _proof_of_found(self, was_there: bool | None) -> Proof | None:
        found = self._destination.found_proof
        return Proof.BEFORE if found is not None and was_there else found

    def _asked(self, question: Callable[[], T]) -> T | None:
        """Ask by C-FIND; None where the destination does not answer. See `_listed`."""
        if not self._find_works:
            return None
        try:
            return question()
        except (DimseFailed, NoPresentationContext):
            return None
        except AssociationEnded:
            raise
        except AssociationError as error:
            self._find_works = False
            self._drop()
            _log.warning("find_broke_association", destination=self._destination.name, error=type(error).__name__)
            return None

    def _drop(self) -> None:
        association, self._association = self._association, None
        if association is not None:
            association.abort()


def _new(consignment: Consignment) -> bool:
    """Tell whether it was never sent before, and can be asked for."""
    of = consignment.identity
    tried = consignment.attempts or consignment.uncertain or consignment.last_status is not None
    return consignment.was_there is None and not tried and bool(of.study_instance_uid and of.series_instance_uid)


def _listing(association: Requestor, key: Key) -> Listed:
    if len(key) == 1:
        try:
            return frozenset(key) if has_study(association, *key) else frozenset()
        except DimseFailed:
            # It may answer at IMAGE level all the same.
            return frozenset(key)
    study, series = key
    return frozenset(instances_of_series(association, study, series))


class _NoAnswer(Exception):
    """The association broke over an instance; `proven` where it had answered something in this batch or was new."""

    def __init__(self, error: AssociationError, *, proven: bool) -> None:
        self.error = error
        self.proven = proven
        super().__init__(str(error))
