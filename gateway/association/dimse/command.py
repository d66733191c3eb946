"""Command sets: group 0000 in Implicit VR Little Endian, by keyword (PS3.7 §6.3, Annex E). Pure.

Strings come without their padding and are otherwise what the peer sent: a UID may hold anything, so check it before use.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import TypedDict

from gateway.association.upper.pdu import INVALID_PDU_PARAMETER
from gateway.core.errors import ProtocolError

MAX_COMMAND_BYTES = 16_384
"""No command of the standard comes near it: its longest elements are two UIDs, two AE titles and a comment."""

NO_DATA_SET = 0x0101
"""Command Data Set Type (0000,0800) of a message without a data set; any other value announces one (PS3.7 §E.1)."""

HAS_DATA_SET = 0x0001

RESPONSE = 0x8000
"""The bit of Command Field (0000,0100) that marks a response."""


class Operation(IntEnum):
    """Command Field (0000,0100) of the requests (PS3.7 §E.1); a response has the bit `RESPONSE` beside."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150


class CommandSet(TypedDict, total=False):
    """The elements of a command (PS3.7 §E.1); Command Group Length is computed."""

    AffectedSOPClassUID: str
    RequestedSOPClassUID: str
    CommandField: int
    MessageID: int
    MessageIDBeingRespondedTo: int
    MoveDestination: str
    Priority: int
    CommandDataSetType: int
    Status: int
    OffendingElement: tuple[int, ...]
    ErrorComment: str
    ErrorID: int
    AffectedSOPInstanceUID: str
    RequestedSOPInstanceUID: str
    EventTypeID: int
    AttributeIdentifierList: tuple[int, ...]
    ActionTypeID: int
    NumberOfRemainingSuboperations: int
    NumberOfCompletedSuboperations: int
    NumberOfFailedSuboperations: int
    NumberOfWarningSuboperations: int
    MoveOriginatorApplicationEntityTitle: str
    MoveOriginatorMessageID: int


_ELEMENTS: tuple[tuple[int, str, str], ...] = (
    (0x0002, "UI", "AffectedSOPClassUID"),
    (0x0003, "UI", "RequestedSOPClassUID"),
    (0x0100, "US", "CommandField"),
    (0x0110, "US", "MessageID"),
    (0x0120, "US", "MessageIDBeingRespondedTo"),
    (0x0600, "AE", "MoveDestination"),
    (0x0700, "US", "Priority"),
    (0x0800, "US", "CommandDataSetType"),
    (0x0900, "US", "Status"),
    (0x0901, "AT", "OffendingElement"),
    (0x0902, "LO", "ErrorComment"),
    (0x0903, "US", "ErrorID"),
    (0x1000, "UI", "AffectedSOPInstanceUID"),
    (0x1001, "UI", "RequestedSOPInstanceUID"),
    (0x1002, "US", "EventTypeID"),
    (0x1005, "AT", "AttributeIdentifierList"),
    (0x1008, "US", "ActionTypeID"),
    (0x1020, "US", "NumberOfRemainingSuboperations"),
    (0x1021, "US", "NumberOfCompletedSuboperations"),
    (0x1022, "US", "NumberOfFailedSuboperations"),
    (0x1023, "US", "NumberOfWarningSuboperations"),
    (0x1030, "AE", "MoveOriginatorApplicationEntityTitle"),
    (0x1031, "US", "MoveOriginatorMessageID"),
)
"""Element number, value representation, keyword; in the order of the tags, which is the order on the wire."""

_BY_NUMBER = {number: (vr, keyword) for number, vr, keyword in _ELEMENTS}
_ELEMENT = struct.Struct("<HHI")
_SHORT = struct.Struct("<HHIH")
_US = struct.Struct("<H")
_TAG = struct.Struct("<HH")
_GROUP_LENGTH = struct.Struct("<HHII")


def decode_command(data: bytes | bytearray | memoryview) -> CommandSet:
    """Return the elements of the command set `data`; those that Annex E does not name are left out.

    Elements of another group that begin exactly at the end that the Command Group Length states are left out, too: Orthanc puts
    the failed list of a C-GET there.

    Raises:
        ProtocolError: `data` is no command set, or lacks Command Field or Command Data Set Type.
    """
    found: dict[str, object] = {}
    offset, end, declared_end = 0, len(data), 0
    while offset < end:
        if end - offset < 8:
            raise _malformed("it ends within an element")
        group, number, length = _ELEMENT.unpack_from(data, offset)
        offset += 8
        if group and offset - 8 == declared_end:
            break
        if group:
            raise _malformed(f"an element of group {group:04X}")
        if length > end - offset:
            raise _malformed(f"element {number:04X} is longer than the command")
        if number in _BY_NUMBER:
            vr, keyword = _BY_NUMBER[number]
            found[keyword] = _value(vr, data, offset, length)
        elif number == 0 and length == 4:
            declared_end = offset + 4 + int.from_bytes(data[offset : offset + 4], "little")
        offset += length
    if "CommandField" not in found or "CommandDataSetType" not in found:
        raise _malformed("Command Field or Command Data Set Type is missing")
    return found  # type: ignore[return-value] # keywords and types are those of _ELEMENTS


def encode_command(command: CommandSet) -> bytes:
    """Return `command` as it goes over the wire, Command Group Length first (PS3.7 §6.3.1)."""
    elements = [_encode(number, vr, value) for number, vr, value in _present(command)]
    body = b"".join(elements)
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _present(command: Mapping[str, object]) -> list[tuple[int, str, object]]:
    return [(number, vr, command[keyword]) for number, vr, keyword in _ELEMENTS if keyword in command]


def _value(vr: str, data: bytes | bytearray | memoryview, offset: int, length: int) -> object:
    if vr == "US":
        if length != 2:
            raise _malformed(f"a number of {length} bytes")
        return _US.unpack_from(data, offset)[0]
    raw = bytes(data[offset : offset + length])
    if vr == "AT":
        return tuple(group << 16 | element for group, element in _TAG.iter_unpack(raw[: length & ~3]))
    text = raw.decode("latin-1")
    return text.rstrip("\0 ") if vr == "UI" else text.strip("\0 ")


def _encode(number: int, vr: str, value: object) -> bytes:
    if vr == "US":
        return _SHORT.pack(0, number, 2, value)
    raw = b"".join(_TAG.pack(tag >> 16, tag & 0xFFFF) for tag in value) if isinstance(value, tuple) else _text(vr, str(value))
    return _ELEMENT.pack(0, number, len(raw)) + raw


def _text(vr: str, value: str) -> bytes:
    raw = value.encode("latin-1", "replace")
    return raw + (b"\0" if vr == "UI" else b" ") if len(raw) % 2 else raw


def _malformed(problem: str) -> ProtocolError:
    return ProtocolError(f"a malformed command set: {problem}", reason=INVALID_PDU_PARAMETER)
