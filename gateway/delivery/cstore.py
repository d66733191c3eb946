"""Destinations of kind ``dicom``: C-STORE as SCU (PS3.4 §B), each instance in the transfer syntax it has.

A session keeps one association and proposes what its batches need, one transfer syntax a context, with C-FIND beside it. The
association serves further batches while its contexts suffice. Whether an instance is at the destination is asked by C-FIND
where an earlier attempt had no answer and where the destination says that it is a duplicate.

Move Originator (0000,1030) and (0000,1031) are not passed on: they would name a C-MOVE that the destination has no part in. What
we send is an operation of our own (PS3.7 §9.1.1.1 has them for the sub-operations of a C-MOVE only).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Event

import structlog
from pydicom.uid import UID

from gateway.association.contexts import MAX_CONTEXTS, AcceptedContext, plan_contexts
from gateway.association.presence import FIND_CONTEXT, answers_find, is_listed
from gateway.association.requestor import Deadlines, RemoteAE, Requestor, associate
from gateway.association.statuses import Disposition, store_disposition
from gateway.delivery.destination import DAMAGED, ContentStore, OpenBytes, Outcome, OutcomeKind, Report
from gateway.delivery.policy import wants_new_association
from gateway.domain import Consignment, InstanceIdentity, Proof
from gateway.errors import (
    AssociationAborted,
    AssociationEnded,
    AssociationError,
    DimseFailed,
    NoPresentationContext,
    SourceDamaged,
    SpoolIOError,
    SpoolMissing,
)
from gateway.settings import DicomDestination, RetryTable

MAX_PAIRS = MAX_CONTEXTS - 1
"""One context is C-FIND's."""

Pair = tuple[str, str]

_log = structlog.get_logger()


def split(batch: Sequence[Consignment], limit: int = MAX_PAIRS) -> list[list[Consignment]]:
    """Split a batch so that each part needs no more than `limit` contexts, in the order of the batch. Pure."""
    place: dict[Pair, int] = {}
    parts: list[list[Consignment]] = []
    for consignment in batch:
        part = place.setdefault(_pair(consignment), len(place) // limit)
        if part == len(parts):
            parts.append([])
        parts[part].append(consignment)
    return parts


def proposal(needed: Iterable[Pair], known: Iterable[Pair], limit: int = MAX_PAIRS) -> tuple[Pair, ...]:
    """Return what to propose: what is `needed` now, then what was before, as far as there is room. Pure."""
    return tuple(dict.fromkeys((*needed, *known)))[:limit]


def refusal(identity: InstanceIdentity) -> str:
    """Say that the destination accepted no context for `identity`. Pure."""
    sop_class, syntax = UID(identity.sop_class_uid).name, UID(identity.transfer_syntax_uid).name
    return f"destination accepts no {sop_class} in transfer syntax {syntax}"


def _pair(consignment: Consignment) -> Pair:
    return consignment.identity.sop_class_uid, consignment.identity.transfer_syntax_uid


@dataclass
class CStore:
    """A `Destination` that is a Storage SCP."""

    name: str
    settings: DicomDestination
    calling_ae: str
    store: ContentStore
    tls: ssl.SSLContext | None = None

    @property
    def workers(self) -> int:
        """How many associations work at a time."""
        return self.settings.associations

    @property
    def idle_close_s(self) -> float:
        """An association without work for this long is released."""
        return self.settings.idle_close_s

    @property
    def retry(self) -> RetryTable:
        """How often and when to try again."""
        return self.settings.retry

    @property
    def instant_proof(self) -> Proof | None:
        """The status, where no more is asked."""
        return Proof.STATUS if self.settings.verify == "status" else None

    @property
    def found_proof(self) -> Proof | None:
        """What finding an instance by C-FIND proves; nothing where its commitment is wanted."""
        return None if self.settings.verify == "commitment" else Proof.EXISTS

    def open(self) -> CStoreSession:
        """Return a session, not yet associated."""
        return CStoreSession(self)

    def associate(self, pairs: Sequence[Pair]) -> Requestor:
        """Associate with contexts for `pairs` and for C-FIND. Raises the subclasses of `AssociationError`."""
        settings = self.settings
        server_name = settings.tls.server_name if settings.tls else None
        remote = RemoteAE(settings.ae_title, settings.host, settings.port, self.tls, server_name)
        contexts = (*plan_contexts(pairs)[0], FIND_CONTEXT)
        return associate(remote, self.calling_ae, contexts, deadlines=Deadlines(response_s=settings.response_timeout_s))


class CStoreSession:
    """A `Session` over one association at a time."""

    def __init__(self, destination: CStore) -> None:
        self._destination = destination
        self._association: Requestor | None = None
        self._proposed: tuple[Pair, ...] = ()
        self._proven = False
        self._find_works = True
        self._stopped = Event()
        self._killed = Event()

    def deliver(self, batch: Sequence[Consignment], report: Report) -> None:
        """Send the instances of `batch`.

        Raises:
            AssociationError: no association, or it broke; the instance at hand was reported as unknown, the rest was not sent.
        """
        if any(wants_new_association(consignment) for consignment in batch):
            self.close()
        self._proven = False
        for part in split(batch):
            pairs = tuple(dict.fromkeys(_pair(consignment) for consignment in part))
            for consignment in part:
                if self._stopped.is_set():
                    return
                try:
                    outcome = self._outcome(consignment, pairs)
                except AssociationError:
                    self._drop()
                    raise
                except _NoAnswer as broken:
                    self._drop()
                    report(Outcome(consignment.delivery_id, OutcomeKind.UNKNOWN, reason=f"no answer: {broken.error}"))
                    raise broken.error from broken
                report(outcome)

    def stop(self) -> None:
        """Finish the C-STORE at hand and begin no other."""
        self._stopped.set()

    def kill(self) -> None:
        """Abort the association at once."""
        self._stopped.set()
        self._killed.set()
        if (association := self._association) is not None:
            association.kill()

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None:
            association.release()

    def _outcome(self, consignment: Consignment, pairs: Sequence[Pair]) -> Outcome:
        try:
            return self._attempt(consignment, pairs)
        except AssociationEnded:
            # Nothing was sent: the destination had ended the association before.
            self._drop()
            return self._attempt(consignment, pairs)
        except _NoAnswer as broken:
            if broken.proven or self._killed.is_set():
                raise
        # The association had been idle: the destination may have closed it before it read anything.
        self._drop()
        try:
            return self._attempt(replace(consignment, uncertain=True), pairs)
        except AssociationError as error:
            raise _NoAnswer(error, proven=True) from error

    def _ready(self, pairs: Sequence[Pair]) -> Requestor:
        """Return an association on which `pairs` were proposed."""
        if self._killed.is_set():
            raise self._broken_off()
        if self._association is not None and set(pairs) <= set(self._proposed):
            return self._association
        self.close()
        self._proposed = proposal(pairs, self._proposed)
        association = self._destination.associate(self._proposed)
        self._association, self._proven = association, True
        if self._killed.is_set():
            raise self._broken_off()
        return association

    def _broken_off(self) -> AssociationAborted:
        settings = self._destination.settings
        return AssociationAborted("broken off by us", peer=f"{settings.ae_title}@{settings.host}:{settings.port}")

    def _attempt(self, consignment: Consignment, pairs: Sequence[Pair]) -> Outcome:
        number = consignment.delivery_id
        try:
            if self._has(consignment, pairs):
                return Outcome(number, OutcomeKind.FOUND, found=True, proof=self._destination.found_proof)
            association = self._ready(pairs)
        except NoPresentationContext:
            return Outcome(number, OutcomeKind.REFUSED, reason=refusal(consignment.identity))
        context = association.context_for(consignment.identity.sop_class_uid, consignment.identity.transfer_syntax_uid)
        if context is None:
            return Outcome(number, OutcomeKind.REFUSED, reason=refusal(consignment.identity))
        try:
            with self._destination.store.open(consignment.content) as source:
                return self._send(consignment, association, context, source)
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
        return self._answered(consignment, association, response.status)

    def _answered(self, consignment: Consignment, association: Requestor, status: int) -> Outcome:
        found: bool | None = None
        if store_disposition(status).disposition is Disposition.CHECK_EXISTS:
            found = self._listed(consignment, association)
        proof = self._destination.found_proof if found and not consignment.has_rivals else None
        return Outcome(consignment.delivery_id, OutcomeKind.ANSWERED, status=status, found=found, proof=proof)

    def _has(self, consignment: Consignment, pairs: Sequence[Pair]) -> bool:
        """Ask, where an earlier attempt had no answer, whether the instance is there. Raises like `_ready`."""
        worth_asking = consignment.uncertain and not consignment.has_rivals
        return worth_asking and self._listed(consignment, self._ready(pairs)) is True

    def _listed(self, consignment: Consignment, association: Requestor) -> bool | None:
        """Ask whether the destination lists the instance; None where it cannot be asked.

        A destination that breaks the association over the question is asked no more in this session.
        """
        identity = consignment.identity
        askable = identity.study_instance_uid and identity.series_instance_uid and self._find_works
        if not askable or not answers_find(association):
            return None
        try:
            return is_listed(association, identity.study_instance_uid, identity.series_instance_uid, identity.sop_instance_uid)
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


class _NoAnswer(Exception):
    """The association broke over an instance; `proven` where it had answered something in this batch or was new."""

    def __init__(self, error: AssociationError, *, proven: bool) -> None:
        self.error = error
        self.proven = proven
        super().__init__(str(error))
