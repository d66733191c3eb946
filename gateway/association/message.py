"""The data path in: P-DATA-TF PDUs read into one reused buffer, messages taken out of it in place (PS3.8 §9.3.5, PS3.7 §6.3).

Of a message only the command set is collected, within a bound. The data set goes to a sink as slices of the buffer, gathered
until the buffer is used up, so that one system call writes what many PDUs brought. No object is made for a PDU.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.association.command import CommandSet
from gateway.association.pdu import (
    PduType,
)
from gateway.association.state import State
from gateway.association.stream import Stream
from gateway.errors import AssociationAborted

BUFFER_BYTES = 1024 * 1024
"""For each association; only the part that was ever filled takes memory."""

_ROOM_BYTES = 64 * 1024
"""With less free at the end of the buffer than this, what was gathered is handed on and the buffer used from its start."""

_COMMAND = 0x01
_LAST = 0x02
"""Bits of the message control header (PS3.8 §E.2)."""

_PDV_HEADER = struct.Struct(">IBB")

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
    """What comes over `stream`: PDUs while the association is set up or released, messages in between.

    `max_pdu_bytes` is the P-DATA-TF length that we advertise. Each PDU must be there whole `pdu_s` after its first byte was
    due; times are seconds. Who catches a `ProtocolError` sends the A-ABORT.
    """

    def __init__(
        self, stream: Stream, *, state: State, max_pdu_bytes: int, pdu_s: float = 60.0, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.state = state
        self.pdu_s = pdu_s
        self._stream = stream
        self._max_pdu_bytes = max_pdu_bytes
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._deadline = 0.0
        self._pdu_left = 0
        self._context_id = 0
        self._control = 0
        self._pdv_left = 0
        self._fragments: list[memoryview] = []
        self._sink: Sink = _drop

    def wait(self, timeout_s: float) -> bool:
        """Wait until something comes; False when nothing did in `timeout_s`, and nothing is lost by that.

        Raises:
            AssociationAborted: the connection was closed or reset.
        """
        raise NotImplementedError

    def receive_pdu(self, deadline: float) -> tuple[PduType, bytes]:
        """Receive one PDU other than P-DATA whole; P-DATA on the way to a release is passed over (PS3.8 §9.2.3, Sta7).

        Returns its type and what follows its header. `deadline` is in monotonic seconds.

        Raises:
            AssociationAborted: A-ABORT, or the connection was closed or reset.
            PeerTimeout: it was not there whole in time.
            ProtocolError: it may not come now, or not like this.
        """
        raise NotImplementedError

    def receive_message(self, wait_s: float) -> Message | None:
        """Wait up to `wait_s` for the next message and receive its command; None when the peer asks for release instead.

        Raises:
            ReleaseRequested, AssociationAborted, PeerTimeout, ProtocolError.
        """
        raise NotImplementedError

    def receive_data_set(self, message: Message, sink: Sink) -> int:
        """Receive the data set of `message` into `sink`; return its length in bytes.

        Raises:
            ReleaseRequested, AssociationAborted, PeerTimeout, ProtocolError; whatever `sink` raises, which leaves the
            message unread: use a sink that does not raise to go on with the association.
        """
        raise NotImplementedError

    def receive_bytes(self, message: Message, limit: int) -> bytes:
        """Receive the data set of `message` as bytes, for the small ones that are to be decoded.

        Raises:
            ProtocolError: it is longer than `limit` bytes; and what `receive_data_set` raises.
        """
        raise NotImplementedError


def _drop(fragments: Sequence[memoryview]) -> None:
    """Forget the fragments."""
