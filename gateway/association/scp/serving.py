"""One established association as an acceptor: its messages, one after the other, until its end (PS3.7 §9.3, §10.3, PS3.8 §9.2).

Each request goes to the service that is registered for its operation and SOP class; one without a service is answered with the
status that says so. Between two responses of a service the peer may ask by C-CANCEL for no more of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.association.dimse.answers import response
from gateway.association.dimse.command import RESPONSE, Operation
from gateway.association.dimse.message import Message, ReleaseRequested
from gateway.association.dimse.services import Limits
from gateway.association.dimse.statuses import (
    CANCEL,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
    is_pending,
)
from gateway.association.dimse.storing import Tally
from gateway.association.scp.connections import Connection, Registry
from gateway.association.scp.handshake import Established
from gateway.association.scp.service_classes import Answer, Association, Response, Responses, Service, Services, forget
from gateway.association.upper.contexts import AcceptedContext
from gateway.association.upper.pdu import INVALID_PDU_PARAMETER
from gateway.core.errors import AssociationAborted, ProtocolError
from gateway.core.log import get_logger

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_TOLD = 32
"""Kinds of refused operations that an association's log tells of."""

STIR_S = 0.05
"""The grace for telling a message from bytes of TLS alone, where something came between two responses."""


class Draining(AssociationAborted):
    """We end the association between two messages because the gateway stops."""


class Server:
    """Serves one association. `run` returns when the peer asked for release, which is then to be answered."""

    def __init__(
        self, connection: Connection, established: Established, *, registry: Registry, services: Services, limits: Limits
    ) -> None:
        self.tally = Tally()
        self._connection = connection
        self._contexts = established.contexts
        self._receiver = established.receiver
        self._sender = established.sender
        self._registry = registry
        self._services = services
        self._limits = limits
        self._association = Association(established.info, established.receiver, self.tally)
        self._bound: dict[Service, Answer] = {}
        # By context ID and operation, as far as they were asked for.
        self._answers: dict[tuple[int, int], Answer] = {}
        self._told: set[tuple[int, int]] = set()
        self._log: FilteringBoundLogger = get_logger().bind(association=established.info.id)

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
            # The operation that is to be cancelled has had its last response.
            self._pass_over(message)
            return
        if operation & RESPONSE or "MessageID" not in message.command:
            raise ProtocolError("a response that nobody waits for, or a request without Message ID")
        answer = self._answers.get((message.context_id, operation)) or self._answer(context, operation)
        if answer is None:
            self._pass_over(message)
            self._respond(message, Response(self._refusal(context, operation)))
            return
        answered = answer(context, message)
        if isinstance(answered, Response):
            self._respond(message, answered)
        else:
            self._respond_each(context, message, answered)

    def _respond_each(self, context: AcceptedContext, message: Message, responses: Responses) -> None:
        """Send responses until the last one, or until the peer cancels."""
        last = CANCEL
        try:
            for one in responses:
                self._respond(message, one)
                if not is_pending(one.status):
                    return
                if self._is_cancelled(message):
                    break
            else:
                last = PROCESSING_FAILURE
                operation = message.command["CommandField"]
                self._log.error("service_without_last_response", operation=f"{operation:04X}", sop_class=context.abstract_syntax)
        finally:
            responses.close()
        self._respond(message, Response(last))

    def _answer(self, context: AcceptedContext, operation: int) -> Answer | None:
        """Return what answers `operation` in `context`, None where nothing does."""
        service = self._services.find(operation, context.abstract_syntax)
        if service is None:
            return None
        if service not in self._bound:
            self._bound[service] = service.bind(self._association)
        answer = self._answers[context.context_id, operation] = self._bound[service]
        return answer

    def _respond(self, message: Message, one: Response) -> None:
        command = response(message.command, one.status, one.elements, has_data_set=one.data is not None)
        self._sender.send_message(message.context_id, command, one.data)

    def _is_cancelled(self, request: Message) -> bool:
        """Tell whether the peer has asked for no more responses to `request` (PS3.7 §9.3.2.3).

        Raises:
            ProtocolError: it asks for something else, before the last response.
            AssociationAborted, PeerTimeout: the association is over.
        """
        while self._receiver.stirs() and self._receiver.wait(STIR_S):
            message = self._receiver.receive_message(self._receiver.pdu_s)
            if message is None:
                raise ReleaseRequested("the peer asked for release before the last response")
            if message.command["CommandField"] != Operation.C_CANCEL:
                raise ProtocolError("a request before the last response to another")
            self._pass_over(message)
            if message.command.get("MessageIDBeingRespondedTo") == request.command["MessageID"]:
                return True
        return False

    def _refusal(self, context: AcceptedContext, operation: int) -> int:
        """Return the status for an operation that no service answers in `context`."""
        status = SOP_CLASS_NOT_SUPPORTED if operation in self._services.operations else UNRECOGNIZED_OPERATION
        if (operation, context.context_id) not in self._told and len(self._told) < MAX_TOLD:
            # Once each: a peer that asks all day fills no log.
            self._told.add((operation, context.context_id))
            self._log.info(
                "operation_refused", operation=f"{operation:04X}", sop_class=context.abstract_syntax, status=f"{status:04X}"
            )
        return status

    def _pass_over(self, message: Message) -> None:
        if message.has_data_set:
            self._receiver.receive_data_set(message, forget)
