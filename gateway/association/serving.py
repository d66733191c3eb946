"""One established association as an acceptor: its messages, one after the other, until its end (PS3.7 §9.3, §10.3, PS3.8 §9.2).

C-ECHO is answered here, C-STORE goes to the storage service and N-EVENT-REPORT to the commitment service; every other operation
is answered with the status that says so. Whatever a service raises becomes a status: the peer's association goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from gateway.association.answers import (
    NO_SUCH_EVENT_TYPE,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
    response,
    store_request,
)
from gateway.association.command import RESPONSE, CommandSet, Operation
from gateway.association.commitment import EVENT_COMPLETE, EVENT_FAILURES, commitment_report
from gateway.association.contexts import STORAGE_COMMITMENT, VERIFICATION, AcceptedContext
from gateway.association.handshake import Established
from gateway.association.identifier import decode_identifier
from gateway.association.message import Message
from gateway.association.pdu import INVALID_PDU_PARAMETER
from gateway.association.registry import Connection, Registry
from gateway.association.services import CommitmentService, Limits, Reception, StorageService
from gateway.association.statuses import SUCCESS
from gateway.errors import AssociationAborted, ProtocolError, Refusal

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A commitment report on some 100,000 instances."""

MAX_TOLD = 32
"""Kinds of refused operations that an association's log tells of."""

T = TypeVar("T")


class Draining(AssociationAborted):
    """We end the association between two messages because the gateway stops."""


class Tally:
    """What an association brought, for its last line in the log."""

    def __init__(self) -> None:
        self.stored = 0
        self.refused = 0
        self.bytes = 0


class Server:
    """Serves one association. `run` returns when the peer asked for release, which is then to be answered."""

    def __init__(
        self,
        connection: Connection,
        established: Established,
        *,
        registry: Registry,
        storage: StorageService,
        commitment: CommitmentService,
        limits: Limits,
    ) -> None:
        self.tally = Tally()
        self._connection = connection
        self._info = established.info
        self._contexts = established.contexts
        self._receiver = established.receiver
        self._sender = established.sender
        self._registry = registry
        self._storage = storage
        self._commitment = commitment
        self._limits = limits
        self._told: set[tuple[int, int]] = set()
        self._log: FilteringBoundLogger = structlog.get_logger().bind(association=established.info.id)

    def run(self) -> None:
        """Serve messages until the peer asks for release.

        Raises:
            Draining: the gateway stops; everything that was begun is answered.
            AssociationAborted, PeerTimeout, ProtocolError: the association is over.
        """
        while (message := self._receiver.receive_message(self._limits.idle_timeout_s)) is not None:
            if not self._registry.begin(self._connection):
                raise Draining("the gateway stops")
            self._serve(message)
            if not self._registry.finish(self._connection):
                raise Draining("the gateway stops")

    def _serve(self, message: Message) -> None:
        context = self._contexts.get(message.context_id)
        if context is None:
            raise ProtocolError(f"a message in context {message.context_id}, which was not accepted", reason=INVALID_PDU_PARAMETER)
        operation = message.command["CommandField"]
        if operation == Operation.C_CANCEL:
            # There is never an operation under way that could be cancelled.
            self._pass_over(message)
            return
        if operation & RESPONSE or "MessageID" not in message.command:
            raise ProtocolError("a response that nobody waits for, or a request without Message ID")
        status = self._handle(context, message, operation)
        self._sender.send_message(message.context_id, response(message.command, status))

    def _handle(self, context: AcceptedContext, message: Message, operation: int) -> int:
        """Do what `message` asks for, reading all of it; return the status to answer."""
        match operation, context.abstract_syntax:
            case Operation.C_ECHO, sop_class if sop_class == VERIFICATION:
                self._pass_over(message)
                return SUCCESS
            case Operation.C_STORE, sop_class if sop_class not in (VERIFICATION, STORAGE_COMMITMENT):
                return self._store(context, message)
            case Operation.N_EVENT_REPORT, sop_class if sop_class == STORAGE_COMMITMENT:
                return self._event(context, message)
        self._pass_over(message)
        served = (Operation.C_ECHO, Operation.C_STORE, Operation.N_EVENT_REPORT)
        status = SOP_CLASS_NOT_SUPPORTED if operation in served else UNRECOGNIZED_OPERATION
        if (operation, context.context_id) not in self._told and len(self._told) < MAX_TOLD:
            # Once each: a peer that asks all day fills no log.
            self._told.add((operation, context.context_id))
            self._log.info(
                "operation_refused", operation=f"{operation:04X}", sop_class=context.abstract_syntax, status=f"{status:04X}"
            )
        return status

    def _store(self, context: AcceptedContext, message: Message) -> int:
        """Take one instance in (PS3.4 §B.2); the data set is read to its end whatever becomes of it."""
        taker = _Taker(self, message.command)
        try:
            taker.begin(context, message)
            if message.has_data_set:
                self.tally.bytes += self._receiver.receive_data_set(message, taker.write)
        except BaseException:
            taker.discard()
            raise
        status = taker.end()
        self._count(status)
        return status

    def _count(self, status: int) -> None:
        # Warnings (PS3.4 Table B.2-1) are stored too.
        if status == SUCCESS or status >> 12 == 0xB:
            self.tally.stored += 1
        else:
            self.tally.refused += 1

    def _event(self, context: AcceptedContext, message: Message) -> int:
        """Take a commitment report (PS3.4 §J.3.3)."""
        data = self._receiver.receive_bytes(message, MAX_EVENT_BYTES) if message.has_data_set else b""
        if message.command.get("EventTypeID") not in (EVENT_COMPLETE, EVENT_FAILURES):
            return NO_SUCH_EVENT_TYPE

        def report() -> int:
            return self._commitment.report(commitment_report(decode_identifier(data, context.transfer_syntax)))

        try:
            return self.attempt("commitment_report_failed", report)
        except Refusal as refusal:
            return refusal.status

    def _pass_over(self, message: Message) -> None:
        if message.has_data_set:
            self._receiver.receive_data_set(message, _forget)

    def attempt(self, event: str, work: Callable[[], T]) -> T:
        """Return what the service's `work` returns; whatever it raises becomes a Refusal, and what it must not raise is logged.

        The text of a foreign exception may quote a data set, so the log gets its type and where it came from.
        """
        try:
            return work()
        except Refusal:
            raise
        except Exception as error:
            # The boundary to services: nothing of theirs may reach the peer.
            self._log.error(event, error=type(error).__name__, at=origin(error))
            raise Refusal(PROCESSING_FAILURE, "the service failed") from error

    def receive(self, context: AcceptedContext, message: Message) -> Reception:
        """Ask the storage service for a reception of the instance in `message`. Raises Refusal."""
        request = store_request(message.command, context.transfer_syntax, has_data_set=message.has_data_set)
        return self.attempt("reception_failed", lambda: self._storage.receive(self._info, request))

    def refused(self, command: CommandSet, refusal: Refusal) -> None:
        """Note that an instance is not taken; the UID as far as it is printable."""
        uid = ascii(command.get("AffectedSOPInstanceUID", ""))[1:65]
        self._log.warning("instance_refused", sop_instance_uid=uid, status=f"{refusal.status:04X}")


class _Taker:
    """One instance on its way into a reception: never raises while the data set comes, so that the message is read to its end."""

    def __init__(self, server: Server, command: CommandSet) -> None:
        self._server = server
        self._command = command
        self._reception: Reception | None = None
        self._refusal: Refusal | None = None

    def begin(self, context: AcceptedContext, message: Message) -> None:
        try:
            self._reception = self._server.receive(context, message)
        except Refusal as refusal:
            self._refusal = refusal

    def write(self, fragments: Sequence[memoryview]) -> None:
        reception = self._reception
        if reception is None:
            return
        try:
            self._server.attempt("reception_failed", lambda: reception.write(fragments))
        except Refusal as refusal:
            self._refusal = refusal
            self.discard()

    def end(self) -> int:
        """Commit what came, or not; return the status."""
        reception, self._reception = self._reception, None
        if reception is not None:
            try:
                return self._server.attempt("reception_failed", reception.commit)
            except Refusal as refusal:
                self._refusal = refusal
        refused = self._refusal or Refusal(PROCESSING_FAILURE, "nothing was received")
        self._server.refused(self._command, refused)
        return refused.status

    def discard(self) -> None:
        reception, self._reception = self._reception, None
        if reception is not None:
            try:
                self._server.attempt("reception_failed", reception.discard)
            except Refusal:
                return


def _forget(fragments: Sequence[memoryview]) -> None:
    """Drop a data set that nobody asked for."""


def origin(error: BaseException) -> str:
    """Return the file, line and function in which `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} {code.co_name}"
