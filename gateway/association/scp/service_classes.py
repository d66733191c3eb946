"""The services that an acceptor gives: a registry of operation and SOP class → a generator of responses (PS3.7 §7.5, PS3.4).

To register a service is all that it takes: its SOP classes are accepted, its requests come to it, its responses go out one by
one, and it is closed where the peer asks by C-CANCEL for no more of them. A service is called on the association's own thread and
may block. It says no by raising `Refusal`; any other exception is logged, answered 0110 and never reaches the peer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydicom.dataset import Dataset

from gateway.association.dimse.command import CommandSet, Operation
from gateway.association.dimse.commitment import EVENT_COMPLETE, EVENT_FAILURES, commitment_report
from gateway.association.dimse.identifier import decode_identifier, encode_identifier
from gateway.association.dimse.message import Message, Receiver
from gateway.association.dimse.services import AssociationInfo, CommitmentService, StorageService
from gateway.association.dimse.statuses import NO_SUCH_EVENT_TYPE, SUCCESS
from gateway.association.dimse.storing import Storing, Tally, attempt
from gateway.association.upper.contexts import STORAGE_COMMITMENT, VERIFICATION, AcceptedContext
from gateway.association.upper.negotiation import ServedClasses, is_storage
from gateway.core.errors import Refusal
from gateway.core.log import get_logger

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A commitment report on some 100,000 instances."""


@dataclass(frozen=True, slots=True)
class Association:
    """One association as services see it; `tally` counts the instances that it brings."""

    info: AssociationInfo
    receiver: Receiver
    tally: Tally


@dataclass(frozen=True, slots=True)
class Response:
    """One response: any but a pending one is the last. `data` is its data set, encoded; `elements` go into its command besides."""

    status: int
    data: bytes | None = None
    elements: CommandSet | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request, received whole; `data` is its data set in the transfer syntax of `context`."""

    association: AssociationInfo
    context: AcceptedContext
    command: CommandSet
    data: bytes = b""

    def data_set(self) -> Dataset:
        """Return its data set. Raises ProtocolError where that cannot be read."""
        return decode_identifier(self.data, self.context.transfer_syntax)

    def response(self, status: int, data_set: Dataset | None = None, elements: CommandSet | None = None) -> Response:
        """Return a response to it, its data set in the transfer syntax of the context."""
        data = None if data_set is None else encode_identifier(data_set, self.context.transfer_syntax)
        return Response(status, data, elements)


Responses = Generator[Response, None, None]
"""The responses to one request: pending ones, then the last. It is closed early where the peer cancels."""

Answer = Callable[[AcceptedContext, Message], "Response | Responses"]
"""Answers one request of an association and reads all of its message. An error that it raises ends the association.

A service that has one response to each request may return it as it is.
"""


@dataclass(frozen=True, slots=True)
class Service:
    """An operation on some SOP classes, None for all of storage; `bind` returns what answers it on one association.

    With `reported` the requestor may ask for the role of SCP in these classes, to report to us (PS3.7 §D.3.3.4).
    """

    operation: Operation
    sop_classes: frozenset[str] | None
    bind: Callable[[Association], Answer]
    reported: bool = False


class Services:
    """The registry of an acceptor. Immutable."""

    def __init__(self, services: Iterable[Service]) -> None:
        """Register `services`. Raises ValueError where two of them have the same operation and SOP class."""
        found: dict[tuple[int, str | None], Service] = {}
        for service in services:
            classes: Iterable[str | None] = (None,) if service.sop_classes is None else service.sop_classes
            for sop_class in classes:
                if (service.operation, sop_class) in found:
                    raise ValueError(f"two services for {service.operation.name} of {sop_class or 'storage'}")
                found[service.operation, sop_class] = service
        self._found = found
        self.operations = frozenset(operation for operation, _ in found)
        self.classes = ServedClasses(
            named=frozenset(sop_class for _, sop_class in found if sop_class is not None),
            reported=frozenset(sop_class for (_, sop_class), one in found.items() if sop_class is not None and one.reported),
            storage=any(sop_class is None for _, sop_class in found),
        )

    def find(self, operation: int, sop_class: str) -> Service | None:
        """Return the service for `operation` on `sop_class`, None where there is none."""
        found = self._found.get((operation, sop_class))
        return self._found.get((operation, None)) if found is None and is_storage(sop_class) else found


def service(
    operation: Operation,
    sop_classes: Iterable[str],
    respond: Callable[[Request], Responses],
    *,
    name: str,
    max_data_bytes: int = 0,
    reported: bool = False,
) -> Service:
    """Return a service that gets each request whole, by a generator function; `name` is for the log.

    A data set of more than `max_data_bytes` ends the association; with 0 a data set is read and dropped.
    """

    def bind(association: Association) -> Answer:
        log = get_logger().bind(association=association.info.id)
        receiver, event = association.receiver, f"{name}_failed"

        def answer(context: AcceptedContext, message: Message) -> Responses:
            data = b""
            if message.has_data_set and max_data_bytes:
                data = receiver.receive_bytes(message, max_data_bytes)
            elif message.has_data_set:
                receiver.receive_data_set(message, forget)
            responses = respond(Request(association.info, context, message.command, data))
            try:
                while (found := attempt(log, event, lambda: next(responses, None))) is not None:
                    yield found
            except Refusal as refusal:
                yield Response(refusal.status)
            finally:
                with suppress(Refusal):
                    attempt(log, event, responses.close)

        return answer

    return Service(operation, frozenset(sop_classes), bind, reported)


def verification() -> Service:
    """Return C-ECHO (PS3.4 §A)."""

    def respond(request: Request) -> Responses:
        yield request.response(SUCCESS)

    return service(Operation.C_ECHO, [VERIFICATION], respond, name="echo")


def storage(taking: StorageService) -> Service:
    """Return C-STORE, whose data sets go to `taking` as they come off the socket (PS3.4 §B)."""

    def bind(association: Association) -> Answer:
        storing = Storing(association.info, association.receiver, taking, tally=association.tally)

        def answer(context: AcceptedContext, message: Message) -> Response:
            return Response(storing.store(context, message))

        return answer

    return Service(Operation.C_STORE, None, bind)


def commitment_reports(taking: CommitmentService) -> Service:
    """Return N-EVENT-REPORT of what peers committed to keep (PS3.4 §J.3.3)."""

    def respond(request: Request) -> Responses:
        if request.command.get("EventTypeID") in (EVENT_COMPLETE, EVENT_FAILURES):
            yield request.response(taking.report(commitment_report(request.data_set())))
        else:
            yield request.response(NO_SUCH_EVENT_TYPE)

    return service(
        Operation.N_EVENT_REPORT,
        [STORAGE_COMMITMENT],
        respond,
        name="commitment_report",
        max_data_bytes=MAX_EVENT_BYTES,
        reported=True,
    )


def usual(taking: StorageService, reports: CommitmentService) -> tuple[Service, ...]:
    """Return the services of a gateway that takes instances and reports."""
    return verification(), storage(taking), commitment_reports(reports)


def forget(fragments: Sequence[memoryview]) -> None:
    """Drop the fragments of a data set that nobody wants."""
