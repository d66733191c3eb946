"""The data path in: P-DATA-TF PDUs read into one reused buffer, messages taken out of it in place (PS3.8 §9.3.5, PS3.7 §6.3).

Of a message only the command set is collected, within a bound. The data set goes to a sink as slices of the buffer, gathered
until the buffer is used up, so that one system call writes what many PDUs brought. No object is made for a PDU.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.association.dimse.command import MAX_COMMAND_BYTES, NO_DATA_SET, CommandSet, decode_command
from gateway.association.dimse.services import MAX_FRAGMENTS
from gateway.association.upper.pdu import (
    COMMAND,
    HEADER_BYTES,
    INVALID_PDU_PARAMETER,
    LAST,
    PDV_HEADER_BYTES,
    SERVICE_PROVIDER,
    PduType,
    decode_abort,
    decode_header,
)
from gateway.association.upper.state import State, received
from gateway.association.upper.stream import Stream
from gateway.core.errors import AssociationAborted, PeerTimeout, ProtocolError
from gateway.core.throttle import Throttle

BUFFER_BYTES = 1024 * 1024
"""For each association; only the part that was ever filled takes memory."""

_ROOM_BYTES = 64 * 1024
"""With less free at the end of the buffer than this, what was gathered is handed on and the buffer used from its start."""

_PDV_HEADER = struct.Struct(">IBB")
_BOTH_HEADERS = struct.Struct(">BxIIBB")
"""That of a P-DATA-TF and that of its first PDV."""

Sink = Callable[[Sequence[memoryview]], None]
"""Takes 1 to `MAX_FRAGMENTS` fragments of a data set, in order; their memory is reused once it returns."""


class ReleaseRequested(AssociationAborted):
    """The peer asked for release in the middle of a message: the message will not end."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Message:
    """The command of a DIMSE message; with `has_data_set` its data set comes next and must be read before anything else."""

    context_id: int
    command: CommandSet
    has_data_set: bool


class Receiver:
    """Reads from `stream`: PDUs while the association is set up or released, messages in between.

    `max_pdu_bytes` is the P-DATA-TF length that we advertise. Each PDU must be there whole `pdu_s` after its first byte was
    due; times are seconds. The caller that catches a `ProtocolError` sends the A-ABORT. Bytes are read no faster than `throttle`
    allows, so that TCP holds the peer back.
    """

    def __init__(
        self, stream: Stream, *, state: State, max_pdu_bytes: int, pdu_s: float = 60.0, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.state = state
        self.pdu_s = pdu_s
        self.throttle: Throttle | None = None
        self._stream = stream
        self._max_pdu_bytes = max_pdu_bytes
        self._buffer = _lazy_memory(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._deadline = 0.0
        self._pdu_left = 0
        self._context_id = 0
        self._control = 0
        self._pdv_left = 0
        self._fragments: list[memoryview] = []
        self._sink: Sink = _drop

    def stirs(self) -> bool:
        """Tell at once whether something came, be it the end of the connection. Under TLS it may be no message: then `wait`."""
        return self._start != self._end or self._stream.stirs()

    def wait(self, timeout_s: float) -> bool:
        """Wait until something comes; False when nothing did in `timeout_s`, and nothing is lost by that.

        Raises:
            AssociationAborted: the connection was closed or reset.
        """
        if self._start == self._end:
            self._deadline = time.monotonic() + timeout_s
            try:
                self._fill()
            except PeerTimeout:
                return False
        return True

    def receive_pdu(self, deadline: float) -> tuple[PduType, bytes]:
        """Receive one PDU other than P-DATA whole; P-DATA on the way to a release is passed over (PS3.8 §9.2.3, Sta7).

        Returns its type and what follows its header. `deadline` is in monotonic seconds.

        Raises:
            AssociationAborted: A-ABORT, or the connection was closed or reset.
            PeerTimeout: it was not there whole in time.
            ProtocolError: it may not come now, or not like this.
        """
        self._deadline = deadline
        self._collect(self._pdv_left + self._pdu_left, None)
        self._pdv_left = self._pdu_left = 0
        while True:
            kind, length = self._header()
            # Told by its header alone, before any of its bytes take memory.
            self.state = received(self.state, kind)
            body = bytearray()
            self._collect(length, None if kind is PduType.P_DATA else body)
            if kind is PduType.ABORT:
                raise self._aborted(body)
            if kind is not PduType.P_DATA:
                return kind, bytes(body)

    def receive_message(self, wait_s: float) -> Message | None:
        """Wait up to `wait_s` for the next message and receive its command; None when the peer asks for release instead.

        Raises:
            ReleaseRequested, AssociationAborted, PeerTimeout, ProtocolError.
        """
        if not self._next_pdv(wait_s):
            return None
        context_id = self._context_id
        command = bytearray()
        while True:
            if not self._control & COMMAND:
                raise ProtocolError("a data set fragment where a command was due", reason=INVALID_PDU_PARAMETER)
            if len(command) + self._pdv_left > MAX_COMMAND_BYTES:
                raise ProtocolError(f"a command set of more than {MAX_COMMAND_BYTES} bytes", reason=INVALID_PDU_PARAMETER)
            self._collect(self._pdv_left, command)
            self._pdv_left = 0
            if self._control & LAST:
                break
            self._next_fragment(context_id)
        elements = decode_command(command)
        return Message(context_id, elements, elements["CommandDataSetType"] != NO_DATA_SET)

    def receive_data_set(self, message: Message, sink: Sink) -> int:
        """Receive the data set of `message` into `sink`; return its length in bytes.

        Raises:
            ReleaseRequested, AssociationAborted, PeerTimeout, ProtocolError; whatever `sink` raises, which leaves the
            message unread: use a sink that does not raise to go on with the association.
        """
        total = 0
        self._sink = sink
        try:
            while True:
                self._next_fragment(message.context_id)
                if self._control & COMMAND:
                    raise ProtocolError("a command fragment within a data set", reason=INVALID_PDU_PARAMETER)
                total += self._pdv_left
                self._gather()
                if self._control & LAST:
                    self._hand_on()
                    return total
        finally:
            self._fragments = []
            self._sink = _drop

    def receive_bytes(self, message: Message, limit: int) -> bytes:
        """Receive the data set of `message` as bytes, for the small ones that are to be decoded.

        Raises:
            ProtocolError: it is longer than `limit` bytes; and what `receive_data_set` raises.
        """
        data = bytearray()

        def keep(fragments: Sequence[memoryview]) -> None:
            for fragment in fragments:
                data.extend(fragment)
            if len(data) > limit:
                raise ProtocolError(f"a data set of more than {limit} bytes where a small one was due")

        self.receive_data_set(message, keep)
        return bytes(data)

    def _next_fragment(self, context_id: int) -> None:
        """Go on to the next PDV of a message that began in `context_id`."""
        if not self._pdu_left and self._end - self._start >= _BOTH_HEADERS.size and self.state is State.ESTABLISHED:
            # A PDU of one fragment whose headers are there, as nearly all are, without the calls that take anything else.
            kind, left, length, found_id, control = _BOTH_HEADERS.unpack_from(self._buffer, self._start)
            if kind == PduType.P_DATA and 2 < length == left - 4 <= self._max_pdu_bytes - 4 and found_id == context_id:
                self._deadline = time.monotonic() + self.pdu_s
                self._start += _BOTH_HEADERS.size
                self._context_id, self._control, self._pdv_left = found_id, control, length - 2
                return
        if not self._next_pdv(self.pdu_s):
            raise ReleaseRequested("the peer asked for release in the middle of a message", peer=self._stream.peer)
        if self._context_id != context_id:
            raise ProtocolError("the presentation context changed within a message", reason=INVALID_PDU_PARAMETER)

    def _next_pdv(self, wait_s: float) -> bool:
        """Read the header of the next PDV, in this PDU or in the next within `wait_s`; False for A-RELEASE-RQ."""
        if not self._pdu_left and not self._next_data_pdu(wait_s):
            return False
        if self._pdu_left < PDV_HEADER_BYTES:
            raise ProtocolError("a P-DATA-TF PDU too short for what it holds", reason=INVALID_PDU_PARAMETER)
        self._need(PDV_HEADER_BYTES)
        length, self._context_id, self._control = _PDV_HEADER.unpack_from(self._buffer, self._start)
        self._start += PDV_HEADER_BYTES
        # The length counts from behind itself, so it holds the context ID and the message control header.
        if not 2 <= length <= self._pdu_left - 4:
            raise ProtocolError(f"a presentation data value of {length} bytes", reason=INVALID_PDU_PARAMETER)
        if length == 2 and not self._control & LAST:
            raise ProtocolError("an empty fragment that is not the last", reason=INVALID_PDU_PARAMETER)
        self._pdu_left -= length + 4
        self._pdv_left = length - 2
        return True

    def _next_data_pdu(self, wait_s: float) -> bool:
        """Read the header of the next P-DATA-TF; False when the peer asks for release instead."""
        if self._start == self._end:
            if len(self._buffer) - self._end < _ROOM_BYTES:
                self._hand_on()
            if not self._fragments:
                self._start = self._end = 0
            self._deadline = time.monotonic() + wait_s
            self._fill()
        self._deadline = time.monotonic() + self.pdu_s
        kind, length = self._header()
        if kind is PduType.P_DATA and self.state is State.ESTABLISHED:
            self._pdu_left = length
            return True
        self.state = received(self.state, kind)
        body = bytearray()
        self._collect(length, body)
        if kind is PduType.ABORT:
            raise self._aborted(body)
        return False

    def _header(self) -> tuple[PduType, int]:
        self._need(HEADER_BYTES)
        header = decode_header(self._buffer, self._start, max_pdu_bytes=self._max_pdu_bytes)
        self._start += HEADER_BYTES
        return header

    def _gather(self) -> None:
        """Receive the whole fragment at hand into the buffer, handing on what is gathered whenever the buffer is used up."""
        begin = self._start
        while self._pdv_left:
            count = min(self._end - self._start, self._pdv_left)
            self._start += count
            self._pdv_left -= count
            if self._pdv_left:
                if len(self._buffer) - self._end < _ROOM_BYTES:
                    self._note(begin)
                    self._hand_on()
                    begin = self._start = self._end = 0
                self._fill()
        self._note(begin)

    def _note(self, begin: int) -> None:
        if self._start > begin:
            self._fragments.append(self._view[begin : self._start])
            if len(self._fragments) == MAX_FRAGMENTS:
                self._hand_on()

    def _hand_on(self) -> None:
        if self._fragments:
            fragments, self._fragments = self._fragments, []
            self._sink(fragments)

    def _collect(self, count: int, into: bytearray | None) -> None:
        """Receive `count` bytes and put them behind those of `into`, or drop them where that is None."""
        while count:
            if self._start == self._end:
                self._start = self._end = 0
                self._fill()
            part = min(self._end - self._start, count)
            if into is not None:
                into += self._view[self._start : self._start + part]
            self._start += part
            count -= part

    def _need(self, count: int) -> None:
        """Have `count` bytes, a header's worth, in one piece at `_start`."""
        while self._end - self._start < count:
            if len(self._buffer) - self._start < count:
                self._hand_on()
                left = self._end - self._start
                self._buffer[:left] = self._buffer[self._start : self._end]
                self._start, self._end = 0, left
            self._fill()

    def _fill(self) -> None:
        throttle = self.throttle
        room = self._view[self._end :] if throttle is None else self._view[self._end : self._end + throttle.piece_bytes]
        count = self._stream.receive_into(room, self._deadline)
        self._end += count
        if throttle is not None and (wait_s := throttle.take(count)):
            self._stream.pause(wait_s)
            # The peer is not to blame for it.
            self._deadline += wait_s

    def _aborted(self, body: bytearray) -> AssociationAborted:
        source, reason = decode_abort(body)
        who = "service provider" if source == SERVICE_PROVIDER else "service user"
        return AssociationAborted(f"the peer aborted the association ({who}, reason {reason})", peer=self._stream.peer)


def _lazy_memory(size: int) -> mmap.mmap:
    """Return memory that is taken page by page as it is used; a bytearray is all there at once, for an idle peer too."""
    if hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)


def _drop(fragments: Sequence[memoryview]) -> None:
    """Forget the fragments."""
