"""The data path out: messages as P-DATA-TF PDUs that the peer takes, many of them with one system call (PS3.8 §9.3.5, PS3.7 §6.3).

Headers and data stand in one reused buffer as they go over the wire: the file is read by position into the gaps between
the headers, so that nothing is copied and TLS gets long records. Where the data set's digest is known, it is computed again from
that buffer, and the last fragments of a data set that has changed are never sent: the peer cannot take it for whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

import xxhash

from gateway.association.dimse.command import CommandSet, encode_command
from gateway.association.dimse.requests import ByteSource
from gateway.association.upper.pdu import COMMAND, HEADER_BYTES, LAST, PDV_HEADER_BYTES, PduType
from gateway.association.upper.stream import Stream
from gateway.core.errors import ProtocolError, SourceDamaged
from gateway.core.throttle import Throttle

MAX_PDU_BYTES = 131_072
"""Longer PDUs cost receivers more than they save; a peer that takes any length gets this one."""

STRETCH_BYTES = 262_144
"""About what is read and sent at a time: enough that system calls do not count, little enough to be taken within `send_s`."""

MAX_PDUS = 512
"""PDUs in a stretch; a `preadv` takes 1024 buffers at most (IOV_MAX)."""

COMMAND_ROOM = 16_384
"""Room before a stretch for the command that goes out in the same send."""

PDV_OVERHEAD = HEADER_BYTES + PDV_HEADER_BYTES
"""Bytes before each fragment: the PDU's header and the PDV's."""

_PDU_HEADER = struct.Struct(">BxIIBB")


def fragment_bytes(max_pdu_bytes: int) -> int:
    """Return how many bytes of a message fit into a PDU for a peer that takes `max_pdu_bytes` (0 any) after the PDU's header.

    Even wherever it can be (PS3.8 Annex E).

    Raises:
        ProtocolError: not one byte would fit.
    """
    room = min(max_pdu_bytes or MAX_PDU_BYTES, MAX_PDU_BYTES) - PDV_HEADER_BYTES
    if room < 1:
        raise ProtocolError(f"the peer's maximum PDU length is {max_pdu_bytes}, in which nothing can be sent")
    return room & ~1 or room


def encode_fragments(context_id: int, payload: bytes, *, command: bool, size: int) -> bytes:
    """Return `payload` as P-DATA-TF PDUs with at most `size` bytes of it each; an empty one is one empty last fragment."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    pdus = []
    for number, piece in enumerate(pieces, start=1):
        control = (COMMAND if command else 0) | (LAST if number == len(pieces) else 0)
        pdus += [_header(context_id, control, len(piece)), piece]
    return b"".join(pdus)


class Sender:
    """Sends messages over `stream` to a peer that takes P-DATA-TF of `max_pdu_bytes` (0: of any length). One message at a time.

    A data set out of a `ByteSource` goes no faster than `throttle` lets it.
    """

    def __init__(self, stream: Stream, *, max_pdu_bytes: int, throttle: Throttle | None = None) -> None:
        self._stream = stream
        self._throttle = throttle
        self._size = fragment_bytes(max_pdu_bytes)
        stretch = STRETCH_BYTES if throttle is None else min(STRETCH_BYTES, throttle.piece_bytes)
        self._pdus = min(MAX_PDUS, max(1, stretch // (self._size + PDV_OVERHEAD)))
        self._buffer: memoryview | None = None

    def send_message(
        self, context_id: int, command: CommandSet, data_set: bytes | ByteSource | None = None, *, digest: str = ""
    ) -> None:
        """Send one message. `command` must say by CommandDataSetType whether `data_set` follows.

        `digest` is the XXH3-128 that a `ByteSource` must have, in hexadecimal; where it is empty, nothing is checked.

        Raises:
            AssociationAborted, PeerTimeout: see `Stream.send`.
            OSError: the source could not be read or is shorter than it says; the peer waits for the rest, so abort.
            SourceDamaged: the source has another digest; the peer waits for the rest, so abort.
        """
        head = encode_fragments(context_id, encode_command(command), command=True, size=self._size)
        if data_set is None:
            self._stream.send(head)
        elif isinstance(data_set, bytes):
            self._stream.send(head + encode_fragments(context_id, data_set, command=False, size=self._size))
        else:
            self._send_source(context_id, head, data_set, digest)

    def _send_source(self, context_id: int, head: bytes, source: ByteSource, digest: str) -> None:
        """Send `head`, then the data set in `source`, even in length; what fits goes out together."""
        buffer = self._room()
        if len(head) > COMMAND_ROOM:
            self._stream.send(head)
            head = b""
        start = len(head)
        buffer[:start] = head
        check = _Check(digest) if digest else None
        for position, count, last in self._stretches(source):
            rooms, end = self._rooms(buffer, start, count)
            _read_exactly(source.fileno(), rooms, position, count)
            if check is not None:
                check.take(rooms, last=last)
            self._head(buffer, start, context_id, count + count % 2, last)
            if self._throttle is not None and (wait_s := self._throttle.take(end)):
                self._stream.pause(wait_s)
            self._stream.send(buffer[:end])
            start = 0

    def _room(self) -> memoryview:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(COMMAND_ROOM + self._pdus * (self._size + PDV_OVERHEAD)))
        return self._buffer

    def _stretches(self, source: ByteSource) -> Iterator[tuple[int, int, bool]]:
        """Yield (position in the file, bytes, whether they are the last) for each stretch; one of none for an empty data set."""
        most, end = self._pdus * self._size, source.offset + source.length
        position = source.offset
        while position + most < end:
            yield position, most, False
            position += most
        yield position, end - position, True

    def _sizes(self, count: int) -> list[int]:
        whole, rest = divmod(count, self._size)
        return [self._size] * whole + ([rest] if rest or not whole else [])

    def _rooms(self, buffer: memoryview, start: int, count: int) -> tuple[list[memoryview], int]:
        """Return the rooms for `count` bytes in the PDUs from `start`, and where the last PDU ends.

        A data set of odd length gets the null byte that a deflated one has to end with (PS3.5 §A.5): peers abort over an odd
        fragment, which PS3.8 Annex E forbids.
        """
        rooms = []
        for size in self._sizes(count + count % 2):
            start += PDV_OVERHEAD
            rooms.append(buffer[start : start + size])
            start += size
        if count % 2:
            buffer[start - 1] = 0
            rooms[-1] = rooms[-1][:-1]
        return [room for room in rooms if room], start

    def _head(self, buffer: memoryview, start: int, context_id: int, count: int, last: bool) -> None:
        """Write the headers of the PDUs that hold `count` bytes from `start`."""
        sizes = self._sizes(count)
        for number, size in enumerate(sizes, start=1):
            control = LAST if last and number == len(sizes) else 0
            _PDU_HEADER.pack_into(buffer, start, PduType.P_DATA, size + PDV_HEADER_BYTES, size + 2, context_id, control)
            start += PDV_OVERHEAD + size


class _Check:
    """Sees a data set go by and knows whether it is what it was."""

    def __init__(self, digest: str) -> None:
        self._wanted = digest
        self._digest = xxhash.xxh3_128()

    def take(self, rooms: Sequence[memoryview], *, last: bool) -> None:
        """Look at the next stretch. Raises `SourceDamaged` with the `last` one where the whole is not what it was."""
        for room in rooms:
            self._digest.update(room)
        if last and self._digest.hexdigest() != self._wanted:
            raise SourceDamaged("the bytes are not what they were when they came")


def _header(context_id: int, control: int, size: int) -> bytes:
    return _PDU_HEADER.pack(PduType.P_DATA, size + PDV_HEADER_BYTES, size + 2, context_id, control)


def _read_exactly(descriptor: int, rooms: list[memoryview], position: int, count: int) -> None:
    """Fill `rooms`, `count` bytes together, from `position` of the file, in as few reads as it takes.

    Raises:
        OSError: the file ends before that, or cannot be read.
    """
    while count:
        got = os.preadv(descriptor, rooms, position)
        if not got:
            raise OSError("the source is shorter than it says")
        position += got
        count -= got
        rooms = _unfilled(rooms, got)


def _unfilled(rooms: list[memoryview], got: int) -> list[memoryview]:
    """Return what is left of `rooms` after their first `got` bytes were filled."""
    for number, room in enumerate(rooms):
        if got < len(room):
            return [room[got:], *rooms[number + 1 :]]
        got -= len(room)
    return []
