"""A reader of DICOM streams that shares no code with the gateway and takes no care to be fast: whole bytes in, lists out.

It says what PS3.8 §9.3 and Annex E and the gateway's own bounds make of a stream, so that the data path, which never sees a
stream whole, can be held against it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
RESPONSE, C_CANCEL = 0x8000, 0x0FFF
COMMAND_FIELD, MESSAGE_ID, RESPONDED_ID, DATA_SET_TYPE, STATUS = 0x0100, 0x0110, 0x0120, 0x0800, 0x0900
NO_DATA_SET = 0x0101

MAX_PDU_BYTES = 131_072
MAX_ASSOCIATE_BYTES = 262_144
MAX_COMMAND_BYTES = 16_384


class Violation(Exception):
    """The stream is not what the standard and the bounds allow; `kind` is one word for it."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class Cut(Exception):
    """The stream ends in the middle of something."""


@dataclass
class Message:
    """A whole message: its command's elements by number, and its data set's bytes, None without one."""

    context_id: int
    command: dict[int, bytes]
    data: bytes | None
    irregular: bool = False
    """Whether its elements are out of order, doubled, or not as long as Command Group Length says."""

    @property
    def operation(self) -> int:
        return word(self.command, COMMAND_FIELD)


@dataclass
class Reading:
    """The messages of a stream after its A-ASSOCIATE PDU. `end` is released, aborted, violation or cut."""

    messages: list[Message] = field(default_factory=list)
    end: str = "cut"
    kind: str = ""
    """Of the violation."""

    context_ids: list[int] = field(default_factory=list)
    begun: Message | None = None
    """A message whose command is whole while its data set is not: `data` is what came of it."""


def word(command: dict[int, bytes], number: int) -> int:
    return int.from_bytes(command.get(number, b"")[:2], "little")


def pdus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each PDU. Raises Violation and Cut."""
    at = 0
    while at < len(stream):
        if len(stream) - at < 6:
            raise Cut
        kind, length = struct.unpack_from(">BxI", stream, at)
        _check(kind, length)
        body = stream[at + 6 : at + 6 + length]
        # A PDU that is not whole is told by its header all the same, so its receiver may have begun with it.
        yield kind, body
        if len(body) < length:
            raise Cut
        at += 6 + length


def _check(kind: int, length: int) -> None:
    if kind not in range(1, 8):
        raise Violation("pdu type", f"PDU type {kind:02X}")
    bound = MAX_PDU_BYTES if kind == P_DATA else MAX_ASSOCIATE_BYTES
    if kind in (ASSOCIATE_RQ, ASSOCIATE_AC, P_DATA):
        if length > bound:
            raise Violation("pdu length", f"a PDU of {length} bytes")
    elif length != 4:
        raise Violation("pdu length", f"a fixed PDU of {length} bytes")


def read(stream: bytes) -> Reading:
    """Return what the messages of `stream`, which follows the A-ASSOCIATE PDU, are."""
    reading = Reading()
    try:
        _read(stream, reading)
    except Violation as error:
        reading.end, reading.kind = "violation", error.kind
    except Cut:
        reading.end = "cut"
    return reading


def _read(stream: bytes, reading: Reading) -> None:
    assembly = _Assembly(reading)
    at = 0
    for kind, body in pdus(stream):
        if kind == P_DATA:
            (length,) = struct.unpack_from(">I", stream, at + 2)
            assembly.take(body, length)
        elif kind not in (RELEASE_RQ, ABORT):
            raise Violation("pdu order", f"PDU type {kind:02X} on an association")
        elif len(body) == 4:
            reading.end = "released" if kind == RELEASE_RQ else "aborted"
            return
        at += 6 + len(body)


class _Assembly:
    """Puts messages together from presentation data values."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.context_id: int | None = None
        self.command = b""
        self.data: bytes | None = None

    def take(self, body: bytes, length: int) -> None:
        """Take the presentation data values in a P-DATA-TF body, of which all or the first bytes of `length` are there."""
        at = 0
        while at < length or not length:
            if length - at < 6:
                raise Violation("pdv length", "a PDV header that does not fit")
            if len(body) - at < 6:
                raise Cut
            size, context_id, control = struct.unpack_from(">IBB", body, at)
            if not 2 <= size <= length - at - 4:
                raise Violation("pdv length", f"a PDV of {size} bytes")
            if size == 2 and not control & 2:
                raise Violation("empty fragment", "an empty fragment that is not the last")
            self._header(context_id, control, size - 2)
            fragment = body[at + 6 : at + 4 + size]
            self._fragment(fragment, control, whole=len(fragment) == size - 2)
            if len(fragment) < size - 2:
                raise Cut
            at += 4 + size

    def _header(self, context_id: int, control: int, size: int) -> None:
        if self.context_id is not None and context_id != self.context_id:
            raise Violation("context", "the context changed within a message")
        if self.context_id is None:
            self.reading.context_ids.append(context_id)
        self.context_id = context_id
        if bool(control & 1) is (self.data is not None):
            raise Violation("fragment order", "a command where a data set was due, or the other way round")
        if control & 1 and len(self.command) + size > MAX_COMMAND_BYTES:
            raise Violation("command", "a long command set")

    def _fragment(self, fragment: bytes, control: int, *, whole: bool) -> None:
        last = bool(control & 2) and whole
        if control & 1:
            self.command += fragment
            if last:
                self._commanded(elements(self.command))
        else:
            assert self.data is not None
            assert self.reading.begun is not None
            self.data += fragment
            self.reading.begun.data = self.data
            if last:
                self._done(self.reading.begun)

    def _commanded(self, command: dict[int, bytes]) -> None:
        assert self.context_id is not None
        message = Message(self.context_id, command, None, irregular=_irregular(self.command, command))
        if word(command, DATA_SET_TYPE) == NO_DATA_SET:
            self._done(message)
        else:
            self.data = message.data = b""
            self.reading.begun = message

    def _done(self, message: Message) -> None:
        self.reading.messages.append(message)
        self.reading.begun = self.context_id = self.data = None
        self.command = b""


def _irregular(encoded: bytes, command: dict[int, bytes]) -> bool:
    in_order = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in sorted(command.items()))
    return encoded != in_order or int.from_bytes(command.get(0, b""), "little") != len(encoded) - 12


_NUMBERS = {0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x0903, 0x1002, 0x1008, 0x1020, 0x1021, 0x1022, 0x1023, 0x1031}
"""Elements of VR US (PS3.7 §E.1)."""


def elements(command: bytes) -> dict[int, bytes]:
    """Return the elements of a command set by their number, up to another group behind its group length. Raises Violation."""
    found: dict[int, bytes] = {}
    at = declared_end = 0
    while at < len(command):
        if len(command) - at < 8:
            raise Violation("command", "a command set that ends within an element")
        group, number, length = struct.unpack_from("<HHI", command, at)
        value = command[at + 8 : at + 8 + length]
        if group and at == declared_end:
            break
        if group or len(value) < length or (number in _NUMBERS and length != 2):
            raise Violation("command", f"element {group:04X},{number:04X} of {length} bytes")
        found[number] = value
        at += 8 + length
        if number == 0 and length == 4:
            declared_end = at + int.from_bytes(value, "little")
    if COMMAND_FIELD not in found or DATA_SET_TYPE not in found:
        raise Violation("command", "a command set without Command Field or Command Data Set Type")
    return found
