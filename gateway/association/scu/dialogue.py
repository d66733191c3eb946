"""The course of an association that we requested: one operation at a time, requests out, responses in, and its end.

An operation that breaks ends the association, so that a later one never takes an answer that was meant for an earlier.
One thread at a time; `kill` and `cancel` may come from any.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.association.dimse.answers import response as answer_to
from gateway.association.dimse.command import NO_DATA_SET, RESPONSE, CommandSet, Operation
from gateway.association.dimse.commitment import CommitmentReport, commitment_report
from gateway.association.dimse.identifier import decode_identifier
from gateway.association.dimse.message import Message, Receiver
from gateway.association.dimse.requests import MAX_MESSAGE_ID, ByteSource, Deadlines
from gateway.association.dimse.sender import Sender
from gateway.association.dimse.statuses import SOP_CLASS_NOT_SUPPORTED, SUCCESS, is_pending
from gateway.association.upper.contexts import STORAGE_COMMITMENT, AcceptedContext
from gateway.association.upper.pdu import (
    SERVICE_PROVIDER,
    SERVICE_USER,
    PduType,
    encode_abort,
    encode_release_request,
    encode_release_response,
)
from gateway.association.upper.state import State
from gateway.association.upper.stream import Stream
from gateway.association.upper.waker import Waker
from gateway.core.errors import (
    AssociationAborted,
    AssociationEnded,
    AssociationError,
    DimseFailed,
    NoPresentationContext,
    PeerTimeout,
    ProtocolError,
    SourceDamaged,
)
from gateway.core.log import get_logger

log = get_logger()

MAX_DATA_SET_BYTES = 16 * 1024 * 1024
"""The longest data set that is decoded: a failed list of 200,000 SOP Instance UIDs."""

MAX_LATE = 100
"""Responses to requests that were answered already which are passed over on an association: more is a peer that does not end."""

LAST_WORDS_S = 0.5
"""The longest time that a peer may take to read an A-ABORT."""

CANCEL_S = 10.0
"""The longest time that a peer may take to end a cancelled operation, before the association is aborted."""

_GLANCE_S = 0.01
"""The grace for telling data from a TLS session ticket, once the socket has something to read."""


Serve = Callable[[Message], int]
"""Takes the C-STORE-RQ that comes for a C-GET, with its data set, and returns the status to answer."""


@dataclass(frozen=True, slots=True)
class Response:
    """The response to our request: its status, its command, and the bytes of its data set, if it has one."""

    status: int
    command: CommandSet
    data: bytes | None


@dataclass(slots=True)
class _UnderWay:
    """A C-FIND, C-MOVE or C-GET whose final response is awaited; with `serve` C-STORE requests may come before it."""

    message_id: int
    waker: Waker
    serve: Serve | None
    cancelled: bool = False

    def take_cancel(self) -> bool:
        """Tell whether C-CANCEL was asked for since the last time."""
        cancelled, self.cancelled = self.cancelled, False
        return cancelled


class Dialogue:
    """Speaks DIMSE with the peer at the other end of `stream` (PS3.7 §9, §10) and ends the association (PS3.8 §9.2)."""

    def __init__(
        self,
        stream: Stream,
        receiver: Receiver,
        sender: Sender,
        *,
        contexts: tuple[AcceptedContext, ...],
        deadlines: Deadlines,
    ) -> None:
        self.events: deque[CommitmentReport] = deque()
        self._stream = stream
        self.receiver = receiver
        self._sender = sender
        self._syntaxes = {context.context_id: context.transfer_syntax for context in contexts}
        self._deadlines = deadlines
        self._busy = False
        self._over = False
        self._sending = False
        self._context_id = 0
        self._under_way: _UnderWay | None = None
        self._leaving = False
        self._last_message_id = 0
        self._asked = deque[tuple[int, int]](maxlen=MAX_LATE)
        self._late = 0

    def next_message_id(self) -> int:
        """Return a Message ID for this association, other than those of the requests before."""
        self._last_message_id = self._last_message_id % MAX_MESSAGE_ID + 1
        return self._last_message_id

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Hold the association for one operation; every error but a failed status ends the association.

        Raises:
            RuntimeError: another operation is under way.
            AssociationEnded: the association ended before; nothing was sent.
        """
        if self._busy:
            raise RuntimeError("one operation at a time on an association")
        self._busy = True
        try:
            if self._leaving:
                raise AssociationAborted("it was given up", peer=self._stream.peer)
            self._still_there()
            yield
        except (DimseFailed, NoPresentationContext, GeneratorExit):
            raise
        except ProtocolError as error:
            self.abort(SERVICE_PROVIDER, error.reason)
            raise named(error, self._stream.peer) from error
        except BaseException:
            self.abort()
            raise
        finally:
            self._busy = False

    def ask(
        self, context: AcceptedContext, command: CommandSet, data_set: bytes | ByteSource | None = None, *, digest: str = ""
    ) -> None:
        """Send a request; `digest` is what its data set must have, where that is known."""
        self._context_id = context.context_id
        self._asked.append((command["CommandField"] | RESPONSE, command.get("MessageID", 0)))
        self._send(context.context_id, command, data_set, digest)

    def responses(
        self, operation: Operation, message_id: int, wait_s: float, serve: Serve | None = None
    ) -> Generator[Response, None, None]:
        """Yield the responses to `message_id`, each awaited for `wait_s`, the final one last; `serve` takes C-STOREs meanwhile.

        `cancel` is heeded meanwhile. Closing the iterator before the final response cancels the operation.
        """
        with Waker() as waker:
            self._under_way = _UnderWay(message_id, waker, serve)
            try:
                while is_pending((response := self._heeding(operation, self._under_way, wait_s)).status):
                    yield response
            except GeneratorExit:
                self._drain(operation, message_id)
                raise
            finally:
                self._under_way = None
        yield response

    def cancel(self, message_id: int) -> None:
        """Have C-CANCEL sent for `message_id` where it is under way (PS3.7 §9.3.2.3). From any thread."""
        under_way = self._under_way
        if under_way is not None and under_way.message_id == message_id:
            under_way.cancelled = True
            under_way.waker.wake()

    def leave(self) -> None:
        """Have C-CANCEL sent for whatever is under way, and let nothing more begin. From any thread."""
        self._leaving = True
        under_way = self._under_way
        if under_way is not None:
            under_way.cancelled = True
            under_way.waker.wake()

    def response(self, operation: Operation, message_id: int, wait_s: float) -> Response:
        """Wait `wait_s` for the next response to `message_id`; what may come before it is served.

        Raises:
            PeerTimeout, AssociationAborted: it did not come.
            ProtocolError: something else came.
        """
        deadline = time.monotonic() + wait_s
        response = self._response_or_request(operation, message_id, wait_s)
        while response is None:
            if (remaining := deadline - time.monotonic()) <= 0:
                raise PeerTimeout(f"no response within {wait_s:g} s", peer=self._stream.peer)
            response = self._response_or_request(operation, message_id, remaining)
        return response

    def event(self, timeout_s: float) -> CommitmentReport | None:
        """Wait `timeout_s` for a commitment report."""
        deadline = time.monotonic() + timeout_s
        while not self.events and self.receiver.wait(max(deadline - time.monotonic(), 0.0)):
            message = self._receive(self._deadlines.response_s)
            if message is None:
                self._released()
                raise AssociationEnded("the peer released the association", peer=self._stream.peer)
            self._take_event(message)
        return self.events.popleft() if self.events else None

    def release(self) -> None:
        """Release the association (PS3.8 §9.2, Sta7), or abort it where the peer does not take part. Never raises."""
        if self._busy or self._over:
            self.abort()
            return
        self._over = True
        try:
            self._stream.send(encode_release_request())
            self.receiver.state = State.AWAITING_RELEASE
            self._await_release()
            self._stream.close()
        except AssociationAborted:
            self._stream.close()
        except AssociationError:
            self._stream.farewell(encode_abort(), LAST_WORDS_S)

    def abort(self, source: int = SERVICE_USER, reason: int = 0) -> None:
        """Abort the association (PS3.8 §9.3.8); in the middle of a PDU nothing can be said, so it is only closed. Never raises."""
        if self._over or self._sending:
            self._stream.close()
        else:
            self._stream.farewell(encode_abort(source, reason), LAST_WORDS_S)
        self._over = True

    def kill(self) -> None:
        """Wake the thread that uses the association. From any thread."""
        self._stream.kill()

    def _heeding(self, operation: Operation, under_way: _UnderWay, wait_s: float) -> Response:
        """Wait for the next response like `response`, and send the C-CANCEL that another thread asks for.

        It is sent here, since no two threads may use a TLS session at a time.
        """
        deadline = time.monotonic() + wait_s
        self._stream.hasten()
        came = False
        while True:
            if under_way.take_cancel():
                self._send_cancel(under_way.message_id)
            if arrived := came or self._arrived():
                response = self._response_or_request(operation, under_way.message_id, self._deadlines.response_s)
                if response is not None:
                    return response
            if (remaining := deadline - time.monotonic()) <= 0:
                raise PeerTimeout(f"no response within {wait_s:g} s", peer=self._stream.peer)
            came = False
            if not arrived:
                # The bytes that came may hold the next message already. Under TLS they may be nothing to read.
                came = under_way.waker.wait(self._stream.fileno(), remaining) and not self._stream.tls

    def _response_or_request(self, operation: Operation, message_id: int, wait_s: float) -> Response | None:
        """Return the response that comes next; None where it is a report or a C-STORE instead, which is served."""
        message = self._message(wait_s)
        field = message.command["CommandField"]
        if field == Operation.N_EVENT_REPORT:
            self._take_event(message)
            return None
        if field == Operation.C_STORE and self._under_way is not None and self._under_way.serve is not None:
            self._send(message.context_id, answer_to(message.command, self._under_way.serve(message)))
            return None
        if self._is_late(message, operation | RESPONSE, message_id):
            return None
        _check(message, operation, message_id)
        data = self.receiver.receive_bytes(message, MAX_DATA_SET_BYTES) if message.has_data_set else None
        return Response(message.command["Status"], message.command, data)

    def _is_late(self, message: Message, awaited: int = 0, message_id: int = 0) -> bool:
        """Tell whether `message` answers an earlier request once more, as some peers do after the final response; then drop it.

        Raises:
            ProtocolError: it is one of too many.
        """
        command = message.command
        answers = (command["CommandField"], command.get("MessageIDBeingRespondedTo", 0))
        if answers not in self._asked or answers == (awaited, message_id):
            return False
        self._late += 1
        if self._late > MAX_LATE:
            raise ProtocolError(f"more than {MAX_LATE} responses to requests that were answered before")
        if message.has_data_set:
            self.receiver.receive_bytes(message, MAX_DATA_SET_BYTES)
        log.info("late_response", peer=self._stream.peer, field=f"{answers[0]:04X}", message_id=answers[1])
        return True

    def _arrived(self) -> bool:
        """Tell at once whether something of a message is there."""
        return self.receiver.wait(0.0) or (self._stream.stirs() and self.receiver.wait(_GLANCE_S))

    def _drain(self, operation: Operation, message_id: int) -> None:
        """Cancel `message_id` and take its responses to the final one; the association ends where that takes too long."""
        deadline = time.monotonic() + min(self._deadlines.response_s, CANCEL_S)
        try:
            self._send_cancel(message_id)
            while is_pending(self.response(operation, message_id, max(deadline - time.monotonic(), 0.0)).status):
                continue
        except AssociationError:
            self.abort()

    def _send_cancel(self, message_id: int) -> None:
        command: CommandSet = {
            "CommandField": Operation.C_CANCEL,
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": NO_DATA_SET,
        }
        self._send(self._context_id, command)

    def _send(self, context_id: int, command: CommandSet, data_set: bytes | ByteSource | None = None, digest: str = "") -> None:
        self._sending = True
        try:
            self._sender.send_message(context_id, command, data_set, digest=digest)
        except (OSError, SourceDamaged):
            # The source failed, between two PDUs: an A-ABORT can still be said.
            self._sending = False
            raise
        self._sending = False

    def _still_there(self) -> None:
        """Take what came while the association was idle: its end, a report, or a response that was not awaited any more.

        Raises:
            AssociationEnded: it ended, or something came that makes no sense: it is of no use any more.
        """
        if self._over:
            raise AssociationEnded("the association has ended", peer=self._stream.peer)
        try:
            while self._arrived():
                message = self._receive(self._deadlines.response_s)
                if message is None:
                    self._released()
                    raise AssociationEnded("the peer released the association", peer=self._stream.peer)
                self._take_event(message)
        except AssociationEnded:
            raise
        except ProtocolError as error:
            self.abort(SERVICE_PROVIDER, error.reason)
            raise AssociationEnded(f"the peer broke the protocol while idle: {error}", peer=self._stream.peer) from error
        except AssociationAborted as error:
            self._over = True
            raise AssociationEnded("the association ended while idle", peer=self._stream.peer) from error

    def _message(self, wait_s: float) -> Message:
        """Wait for the next message while an operation is under way."""
        self._stream.hasten()
        message = self._receive(wait_s)
        if message is None:
            self._released()
            raise AssociationAborted("the peer released the association instead of answering", peer=self._stream.peer)
        return message

    def _receive(self, wait_s: float) -> Message | None:
        message = self.receiver.receive_message(wait_s)
        if message is not None and message.context_id not in self._syntaxes:
            raise ProtocolError(f"a message in presentation context {message.context_id}, which was not accepted")
        return message

    def _take_event(self, message: Message) -> None:
        """Keep the report that `message` is, and answer it (PS3.7 §10.3.1); nothing else may be asked of us."""
        command = message.command
        if self._is_late(message):
            return
        if command["CommandField"] != Operation.N_EVENT_REPORT:
            raise ProtocolError(f"a message with Command Field {command['CommandField']:04X} that nobody asked for")
        data = self.receiver.receive_bytes(message, MAX_DATA_SET_BYTES) if message.has_data_set else b""
        known = command.get("AffectedSOPClassUID", STORAGE_COMMITMENT) == STORAGE_COMMITMENT
        if known:
            self.events.append(commitment_report(decode_identifier(data, self._syntaxes[message.context_id])))
        self._send(message.context_id, _event_answer(command, SUCCESS if known else SOP_CLASS_NOT_SUPPORTED))

    def _released(self) -> None:
        """Answer the peer's A-RELEASE-RQ."""
        self._over = True
        self._stream.farewell(encode_release_response(), LAST_WORDS_S)

    def _await_release(self) -> None:
        """Wait for A-RELEASE-RP; where both sides asked, the requestor answers first (PS3.8 §9.2.1, Sta9 to Sta11)."""
        deadline = time.monotonic() + self._deadlines.release_s
        kind, _ = self.receiver.receive_pdu(deadline)
        if kind is PduType.RELEASE_RQ:
            self._stream.send(encode_release_response())
            self.receiver.receive_pdu(deadline)


def named(error: ProtocolError, peer: str) -> ProtocolError:
    """Return `error` with `peer` in it."""
    return error if error.peer else ProtocolError(str(error), reason=error.reason, peer=peer)


def _check(message: Message, operation: Operation, message_id: int) -> None:
    """Make sure that `message` responds to our request.

    Raises:
        ProtocolError: it does not, or has no status.
    """
    command, due = message.command, operation | RESPONSE
    if command["CommandField"] != due:
        raise ProtocolError(f"Command Field {command['CommandField']:04X} instead of {due:04X}")
    answered = command.get("MessageIDBeingRespondedTo")
    if answered != message_id:
        raise ProtocolError(f"a response to message {answered} instead of {message_id}")
    if "Status" not in command:
        raise ProtocolError("a response without a status")


def _event_answer(command: CommandSet, status: int) -> CommandSet:
    answer: CommandSet = {
        "AffectedSOPClassUID": command.get("AffectedSOPClassUID", STORAGE_COMMITMENT),
        "CommandField": Operation.N_EVENT_REPORT | RESPONSE,
        "MessageIDBeingRespondedTo": command.get("MessageID", 0),
        "CommandDataSetType": NO_DATA_SET,
        "Status": status,
    }
    if "AffectedSOPInstanceUID" in command:
        answer["AffectedSOPInstanceUID"] = command["AffectedSOPInstanceUID"]
    if "EventTypeID" in command:
        answer["EventTypeID"] = command["EventTypeID"]
    return answer
