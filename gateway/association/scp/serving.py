"""One established association as an acceptor: its messages, one after the other, until its end (PS3.7 §9.3, §10.3, PS3.8 §9.2).

C-ECHO is answered here, C-STORE goes to the storage service and N-EVENT-REPORT to the commitment service; every other operation
is answered with the status that says so. Every exception of a service becomes a status: the peer's association goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.association.dimse.answers import response
from gateway.association.dimse.command import RESPONSE, Operation
from gateway.association.dimse.commitment import EVENT_COMPLETE, EVENT_FAILURES, commitment_report
from gateway.association.dimse.identifier import decode_identifier
from gateway.association.dimse.message import Message
from gateway.association.dimse.services import CommitmentService, Limits, StorageService
from gateway.association.dimse.statuses import NO_SUCH_EVENT_TYPE, SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNIZED_OPERATION
from gateway.association.dimse.storing import Storing, Tally, attempt
from gateway.association.scp.handshake import Established
from gateway.association.scp.registry import Connection, Registry
from gateway.association.upper.contexts import STORAGE_COMMITMENT, VERIFICATION, AcceptedContext
from gateway.association.upper.pdu import INVALID_PDU_PARAMETER
from gateway.core.errors import AssociationAborted, ProtocolError, Refusal
from gateway.core.log import get_logger

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A commitment report on some 100,000 instances."""

MAX_TOLD = 32
"""Kinds of refused operations that an association's log tells of."""


class Draining(AssociationAborted):
    """We end the association between two messages because the gateway stops."""


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
        self._connection = connection
        self._contexts = established.contexts
        self._receiver = established.receiver
        self._sender = established.sender
        self._registry = registry
        self._storing = Storing(established.info, established.receiver, storage)
        self._commitment = commitment
        self._limits = limits
        self._told: set[tuple[int, int]] = set()
        self._log: FilteringBoundLogger = get_logger().bind(association=established.info.id)

    @property
    def tally(self) -> Tally:
        """The counts of what the association brought so far."""
        return self._storing.tally

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
                return self._storing.store(context, message)
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

    def _event(self, context: AcceptedContext, message: Message) -> int:
        """Take a commitment report (PS3.4 §J.3.3)."""
        data = self._receiver.receive_bytes(message, MAX_EVENT_BYTES) if message.has_data_set else b""
        if message.command.get("EventTypeID") not in (EVENT_COMPLETE, EVENT_FAILURES):
            return NO_SUCH_EVENT_TYPE

        def report() -> int:
            return self._commitment.report(commitment_report(decode_identifier(data, context.transfer_syntax)))

        try:
            return attempt(self._log, "commitment_report_failed", report)
        except Refusal as refusal:
            return refusal.status

    def _pass_over(self, message: Message) -> None:
        if message.has_data_set:
            self._receiver.receive_data_set(message, _forget)


def _forget(fragments: Sequence[memoryview]) -> None:
    """Drop the fragments."""
