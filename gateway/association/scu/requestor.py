"""An association that we request (PS3.8 §9.2): C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE and Storage Commitment as SCU.

One thread at a time uses a `Requestor`, one operation at a time; `kill` may come from any thread. Every wait ends by a deadline
or by `kill`. An error in an operation ends the association, and every error is one of `gateway.core.errors`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from gateway.association.dimse.command import HAS_DATA_SET, NO_DATA_SET, CommandSet, Operation
from gateway.association.dimse.commitment import (
    ACTION_TYPE,
    CommitmentReport,
    FailedReference,
    InstanceReference,
    commitment_request,
)
from gateway.association.dimse.identifier import decode_identifier, encode_identifier
from gateway.association.dimse.message import Receiver
from gateway.association.dimse.requests import (
    DEFAULT_DEADLINES,
    ByteSource,
    Deadlines,
    RemoteAE,
    StoreResponse,
    SubOperations,
    next_message_id,
    sub_operations,
)
from gateway.association.dimse.sender import Sender
from gateway.association.dimse.services import AssociationInfo, StorageService
from gateway.association.dimse.statuses import SUCCESS, is_pending
from gateway.association.dimse.storing import Storing
from gateway.association.scu.c_get import originated, sub_operation, sub_operation_contexts
from gateway.association.scu.dial import dial, forget, remember, why_lost
from gateway.association.scu.dialogue import LAST_WORDS_S, Dialogue, Response, Serve, named
from gateway.association.scu.matches import Bounds
from gateway.association.upper.associate import AssociateAccept, decode_accept, encode_request
from gateway.association.upper.contexts import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    AcceptedContext,
    ProposedContext,
)
from gateway.association.upper.pdu import SERVICE_PROVIDER, PduType, decode_reject, encode_abort
from gateway.association.upper.state import State
from gateway.association.upper.stream import Stream
from gateway.core.errors import AssociationAborted, DimseFailed, NoPresentationContext, PeerTimeout, ProtocolError, UnreadableAnswer

__all__ = [
    "ByteSource",
    "CommitmentReport",
    "Deadlines",
    "FailedReference",
    "InstanceReference",
    "RemoteAE",
    "Requestor",
    "StoreResponse",
    "SubOperations",
    "associate",
    "next_message_id",
]


MEDIUM = 0
"""Priority (0000,0700) of every request; peers do not heed it (PS3.7 §E.1)."""


def associate(
    remote: RemoteAE,
    calling_ae: str,
    contexts: Sequence[ProposedContext],
    *,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    max_pdu_bytes: int = 131072,
) -> Requestor:
    """Associate with `remote` and return the open association. `max_pdu_bytes` is the longest P-DATA-TF that we take.

    Raises:
        PeerUnreachable, TlsFailed, AssociationRejected, AssociationAborted, PeerTimeout, ProtocolError: see `gateway.core.errors`.
        NoPresentationContext: the peer accepted none of `contexts`; the association was released.
        ValueError: an AE title or UID that cannot be sent, or no or more than 128 contexts.
    """
    request = encode_request(calling_ae, remote.ae_title, contexts, max_pdu_bytes=max_pdu_bytes)
    stream = dial(remote, deadlines)
    receiver = Receiver(stream, state=State.AWAITING_ANSWER, max_pdu_bytes=max_pdu_bytes, pdu_s=deadlines.response_s)
    try:
        accept = _negotiate(stream, receiver, request, contexts, deadlines.associate_s)
        remember(remote, stream)
        sender = Sender(stream, max_pdu_bytes=accept.user.max_pdu_bytes, throttle=remote.sending)
        receiver.throttle = remote.receiving
    except ProtocolError as error:
        stream.farewell(encode_abort(SERVICE_PROVIDER, error.reason), LAST_WORDS_S)
        raise named(error, str(remote)) from error
    except PeerTimeout:
        stream.farewell(encode_abort(), LAST_WORDS_S)
        raise
    except BaseException:
        forget(remote)
        stream.close()
        raise
    dialogue = Dialogue(stream, receiver, sender, contexts=accept.accepted, deadlines=deadlines)
    if not accept.accepted:
        dialogue.release()
        raise NoPresentationContext(f"none of {len(contexts)} presentation contexts was accepted", peer=str(remote))
    return Requestor(remote, dialogue, accept, deadlines)


def _negotiate(
    stream: Stream, receiver: Receiver, request: bytes, contexts: Sequence[ProposedContext], timeout_s: float
) -> AssociateAccept:
    deadline = time.monotonic() + timeout_s
    try:
        stream.send(request)
        stream.hasten()
        kind, body = receiver.receive_pdu(deadline)
    except AssociationAborted as error:
        raise why_lost(stream, receiver, error) from error
    if kind is PduType.ASSOCIATE_RJ:
        raise decode_reject(body, peer=stream.peer)
    return decode_accept(body, contexts)


class Requestor:
    """An open association; one thread at a time uses it, `kill` may come from any.

    As a context manager it releases on a clean exit and aborts on an error. `accepted` and `refused` are in the order proposed.
    `implementation_version` is the Implementation Version Name of the peer, empty where it gave none (PS3.7 §D.3.3.2.4).
    """

    def __init__(self, remote: RemoteAE, dialogue: Dialogue, accept: AssociateAccept, deadlines: Deadlines) -> None:
        self.remote = remote
        self.accepted = accept.accepted
        self.refused = accept.refused
        self.implementation_version = accept.user.implementation_version
        self._dialogue = dialogue
        self._deadlines = deadlines
        self._contexts = _by_syntax(accept.accepted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.release()
        else:
            self.abort()

    def context_for(self, sop_class: str, transfer_syntax: str | None = None) -> AcceptedContext | None:
        """Return the accepted context of `sop_class` in `transfer_syntax` (in any where that is None), or None.

        Contexts in which we may not be SCU are left out.
        """
        return self._contexts.get((sop_class, transfer_syntax))

    def echo(self) -> None:
        """Ask with C-ECHO whether the peer is there (PS3.7 §9.3.5).

        Raises:
            DimseFailed: the status is not 0000.
            NoPresentationContext: Verification was not accepted.
            AssociationError: the association ended.
        """
        context = self._context(VERIFICATION)
        with self._dialogue.operation():
            command = self._command(Operation.C_ECHO, NO_DATA_SET, AffectedSOPClassUID=VERIFICATION)
            self._dialogue.ask(context, command)
            self._succeed(Operation.C_ECHO, command["MessageID"])

    def find(self, identifier: Dataset, *, model: str = STUDY_ROOT_FIND) -> Iterator[Dataset]:
        """Yield the matches of `identifier` as they come, one in memory at a time (PS3.4 §C.4.1).

        Attributes that were not asked for are left out (PS3.4 §C.4.1.1.3), and how much may come, and for how long, is bounded
        (`gateway.association.scu.matches`).

        Closing the iterator early cancels the operation and waits for its end. Values are decoded when they are asked for.

        Raises:
            DimseFailed: the final status is not 0000.
            UnreadableAnswer: a match is no data set; the operation is cancelled, the association goes on.
            NoPresentationContext: `model` was not accepted.
            ProtocolError: the peer answers with too much, or does not come to an end.
            AssociationError: the association ended.
        """
        context = self._context(model)
        data, wanted = encode_identifier(identifier, context.transfer_syntax), frozenset(identifier.keys())
        bounds = Bounds(wanted, self._deadlines.query_s)
        command = self._command(Operation.C_FIND, HAS_DATA_SET, AffectedSOPClassUID=model, Priority=MEDIUM)
        with closing(self._responses(Operation.C_FIND, context, command, data, self._deadlines.response_s)) as responses:
            for response in responses:
                if is_pending(response.status):
                    bounds.heard()
                if is_pending(response.status) and response.data is not None:
                    yield bounds.keep(self._match(response.data, context.transfer_syntax, wanted))
                elif not is_pending(response.status) and response.status != SUCCESS:
                    raise DimseFailed("C-FIND", response.status, peer=str(self.remote))

    def _match(self, data: bytes, transfer_syntax: str, wanted: frozenset[BaseTag]) -> Dataset:
        try:
            return decode_identifier(data, transfer_syntax, wanted)
        except ProtocolError as error:
            raise UnreadableAnswer(f"answered C-FIND with {error}", peer=str(self.remote)) from error

    def move(
        self,
        identifier: Dataset,
        *,
        destination_ae: str,
        message_id: int,
        model: str = STUDY_ROOT_MOVE,
        response_s: float | None = None,
    ) -> Iterator[SubOperations]:
        """Ask for `identifier` to be sent to `destination_ae`; yield each response, the final one last (PS3.4 §C.4.2).

        No status raises: the caller judges by what arrives. Without `response_s` the wait for each response has no end but `kill`.
        Closing the iterator early cancels the operation and waits for its end.

        Raises:
            NoPresentationContext: `model` was not accepted.
            AssociationError: the association ended.
        """
        context = self._context(model)
        data = encode_identifier(identifier, context.transfer_syntax)
        command = self._command(Operation.C_MOVE, HAS_DATA_SET, AffectedSOPClassUID=model, Priority=MEDIUM)
        command["MessageID"] = message_id
        command["MoveDestination"] = destination_ae
        wait_s = math.inf if response_s is None else response_s
        with closing(self._responses(Operation.C_MOVE, context, command, data, wait_s)) as responses:
            for response in responses:
                yield sub_operations(response.command, response.data, context.transfer_syntax)

    def get(
        self, identifier: Dataset, *, storage: StorageService, info: AssociationInfo, message_id: int, model: str = STUDY_ROOT_GET
    ) -> Iterator[SubOperations]:
        """Ask for `identifier` to be sent on this association; yield each response, the final one last (PS3.4 §C.4.3).

        Arriving instances go to `storage` as sent by `info`, with our own AE title and `message_id` for their originator: they were
        asked for here. No status raises: the caller judges by what arrives. The wait for each response or instance has
        no end but `kill`. Closing the iterator early cancels the operation and waits for its end.

        Raises:
            NoPresentationContext: `model`, or all storage, was not accepted.
            AssociationError: the association ended.
        """
        context = self._context(model)
        if not (contexts := sub_operation_contexts(self.accepted)):
            raise NoPresentationContext("no context of a storage SOP class was accepted", peer=str(self.remote))
        storing = Storing(info, self._dialogue.receiver, storage, requested=partial(originated, info.called_ae, message_id))
        data = encode_identifier(identifier, context.transfer_syntax)
        command = self._command(Operation.C_GET, HAS_DATA_SET, AffectedSOPClassUID=model, Priority=MEDIUM)
        command["MessageID"] = message_id
        serve = partial(sub_operation, storing, contexts)
        try:
            with closing(self._responses(Operation.C_GET, context, command, data, math.inf, serve=serve)) as responses:
                for response in responses:
                    yield sub_operations(response.command, response.data, context.transfer_syntax)
        finally:
            storing.log_tally()

    def cancel(self, message_id: int) -> None:
        """Ask the peer to stop C-FIND, C-MOVE or C-GET `message_id` (PS3.7 §9.3.2.3); its final response still comes.

        From any thread. The thread that awaits the next response sends it; where nothing of the kind is under way, nothing happens.
        Never raises.
        """
        self._dialogue.cancel(message_id)

    def leave(self) -> None:
        """Ask the peer to stop whatever is under way, and begin nothing more: what is called next raises `AssociationAborted`.

        From any thread, like `cancel`. Never raises.
        """
        self._dialogue.leave()

    def store(
        self,
        context: AcceptedContext,
        sop_instance_uid: str,
        source: ByteSource,
        *,
        digest: str = "",
        move_originator_ae: str | None = None,
        move_originator_message_id: int | None = None,
    ) -> StoreResponse:
        """Send one instance and return the peer's answer, whatever its status (PS3.4 §B.2).

        `digest` is the XXH3-128 of the data set where it is known: then nothing else is ever sent whole.

        Raises:
            AssociationEnded: the association ended before anything was sent.
            AssociationAborted, PeerTimeout, ProtocolError: it is unknown whether the peer has the instance.
            OSError: the source could not be read; the association was aborted.
            SourceDamaged: the source has another digest; the association was aborted before the last fragment.
        """
        with self._dialogue.operation():
            command = self._command(Operation.C_STORE, HAS_DATA_SET, AffectedSOPClassUID=context.abstract_syntax, Priority=MEDIUM)
            command["AffectedSOPInstanceUID"] = sop_instance_uid
            if move_originator_ae is not None:
                command["MoveOriginatorApplicationEntityTitle"] = move_originator_ae
            if move_originator_message_id is not None:
                command["MoveOriginatorMessageID"] = move_originator_message_id
            self._dialogue.ask(context, command, source, digest=digest)
            response = self._dialogue.response(Operation.C_STORE, command["MessageID"], self._deadlines.response_s)
        return StoreResponse(response.status, command["MessageID"])

    def request_commitment(self, transaction_uid: str, references: Iterable[InstanceReference]) -> None:
        """Ask the peer to commit to keep `references` (N-ACTION, PS3.4 §J.3.2). The report comes by `next_event` or anew.

        Raises:
            DimseFailed: the peer refuses the request.
            NoPresentationContext: Storage Commitment was not accepted.
            AssociationError: the association ended.
        """
        context = self._context(STORAGE_COMMITMENT)
        data = encode_identifier(commitment_request(transaction_uid, references), context.transfer_syntax)
        with self._dialogue.operation():
            command = self._command(
                Operation.N_ACTION,
                HAS_DATA_SET,
                RequestedSOPClassUID=STORAGE_COMMITMENT,
                RequestedSOPInstanceUID=STORAGE_COMMITMENT_INSTANCE,
                ActionTypeID=ACTION_TYPE,
            )
            self._dialogue.ask(context, command, data)
            self._succeed(Operation.N_ACTION, command["MessageID"])

    def next_event(self, timeout_s: float) -> CommitmentReport | None:
        """Wait `timeout_s` for a commitment report on this association, answer it 0000 and return it; None when none came.

        Raises:
            AssociationEnded: the peer released or ended the association instead.
        """
        if self._dialogue.events:
            return self._dialogue.events.popleft()
        with self._dialogue.operation():
            return self._dialogue.event(timeout_s)

    def release(self) -> None:
        """Release the association in order (PS3.8 §9.2), or abort it when the peer does not answer in time. Never raises."""
        self._dialogue.release()

    def abort(self) -> None:
        """Abort the association (PS3.8 §9.3.8); waits half a second at most. Never raises."""
        self._dialogue.abort()

    def kill(self) -> None:
        """Wake the thread that uses the association with `AssociationAborted`, at once. From any thread. Never raises."""
        self._dialogue.kill()

    def _context(self, sop_class: str) -> AcceptedContext:
        context = self.context_for(sop_class)
        if context is None:
            raise NoPresentationContext(f"SOP class {sop_class} was not accepted", peer=str(self.remote))
        return context

    def _command(self, operation: Operation, data_set: int, **elements: Unpack[CommandSet]) -> CommandSet:
        message_id = self._dialogue.next_message_id()
        return {"CommandField": operation, "MessageID": message_id, "CommandDataSetType": data_set, **elements}

    def _succeed(self, operation: Operation, message_id: int) -> None:
        """Wait for the response; raise DimseFailed where its status is not 0000."""
        response = self._dialogue.response(operation, message_id, self._deadlines.response_s)
        if response.status != SUCCESS:
            raise DimseFailed(operation.name.replace("_", "-"), response.status, peer=str(self.remote))

    def _responses(
        self,
        operation: Operation,
        context: AcceptedContext,
        command: CommandSet,
        data: bytes,
        wait_s: float,
        *,
        serve: Serve | None = None,
    ) -> Generator[Response, None, None]:
        """Send a request and yield its responses; the operation is over before the final one is handed on."""
        with self._dialogue.operation():
            self._dialogue.ask(context, command, data)
            with closing(self._dialogue.responses(operation, command["MessageID"], wait_s, serve)) as responses:
                for response in responses:
                    if not is_pending(response.status):
                        break
                    yield response
        yield response


def _by_syntax(accepted: Iterable[AcceptedContext]) -> dict[tuple[str, str | None], AcceptedContext]:
    """Return the first context for each (SOP class, transfer syntax) and for each (SOP class, None)."""
    found: dict[tuple[str, str | None], AcceptedContext] = {}
    for context in accepted:
        if context.as_scu:
            found.setdefault((context.abstract_syntax, context.transfer_syntax), context)
            found.setdefault((context.abstract_syntax, None), context)
    return found
