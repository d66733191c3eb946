"""Protocol data units: types, headers with the bounds that hold before anything is read, and the fixed ones (PS3.8 §9.3). Pure.

The fixed ones are pynetdicom's; headers are ours, because P-DATA goes by them.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from mmap import mmap
from typing import Any

from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_RELEASE_RP, A_RELEASE_RQ

from gateway.core.errors import AssociationRejected, ProtocolError

HEADER_BYTES = 6
"""Type (1), reserved (1), length of what follows (4)."""

PDV_HEADER_BYTES = 6
"""Length of what follows (4), presentation context ID (1), message control header (1); PS3.8 §9.3.5.1, §E.2."""

MAX_ASSOCIATE_BYTES = 262_144
"""128 presentation contexts of 45 transfer syntaxes each take some 190,000 bytes."""

FIXED_BYTES = 4
"""The length of A-ASSOCIATE-RJ, A-RELEASE and A-ABORT."""

UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PDU_PARAMETER = 6
"""Reasons of an A-ABORT whose source is the service provider (PS3.8 Table 9-26)."""

SERVICE_USER = 0
SERVICE_PROVIDER = 2
"""Sources of an A-ABORT (PS3.8 Table 9-26)."""

COMMAND, LAST = 0x01, 0x02
"""Bits of the message control header of a PDV (PS3.8 §E.2)."""

_HEADER = struct.Struct(">BxI")


Buffer = bytes | bytearray | memoryview | mmap


class PduType(IntEnum):
    """PS3.8 §9.3.1."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


_TYPES = {int(kind): kind for kind in PduType}

_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
"""(source, reason) of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""


def decode_header(buffer: Buffer, offset: int, *, max_pdu_bytes: int) -> tuple[PduType, int]:
    """Return the type of the PDU whose header stands at `offset`, and how many bytes follow the header.

    `max_pdu_bytes` is the maximum length of P-DATA that we advertised (PS3.8 §D.1).

    Raises:
        ProtocolError: no such type, or a length that this type may not have.
    """
    number, length = _HEADER.unpack_from(buffer, offset)
    kind = _TYPES.get(number)
    if kind is PduType.P_DATA:
        if length > max_pdu_bytes:
            raise ProtocolError(f"a P-DATA-TF PDU of {length} bytes, {max_pdu_bytes} at most", reason=INVALID_PDU_PARAMETER)
    elif kind is None:
        raise ProtocolError(f"a PDU of unknown type {number:02X}", reason=UNRECOGNIZED_PDU)
    elif kind in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC):
        if length > MAX_ASSOCIATE_BYTES:
            raise ProtocolError(f"an {kind.name} PDU of {length} bytes", reason=INVALID_PDU_PARAMETER)
    elif length != FIXED_BYTES:
        raise ProtocolError(f"a PDU {kind.name} of {length} bytes instead of {FIXED_BYTES}", reason=INVALID_PDU_PARAMETER)
    return kind, length


def encode_reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU (PS3.8 §9.3.4)."""
    return _encoded(A_ASSOCIATE_RJ(), result=result, source=source, reason_diagnostic=reason)


def decode_reject(body: bytes, *, peer: str = "") -> AssociationRejected:
    """Return what the A-ASSOCIATE-RJ PDU with the four bytes `body` after its header says."""
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(bytes(HEADER_BYTES) + body)
    return rejection(pdu.result, pdu.source, pdu.reason_diagnostic, peer=peer)


def rejection(result: int, source: int, reason: int, *, peer: str = "") -> AssociationRejected:
    """Return the error of a rejection; `result` is 1 (permanent) or 2 (transient), PS3.8 §9.3.4."""
    meaning = _REJECTIONS.get((source, reason), f"source {source}, reason {reason}")
    return AssociationRejected(result=result, source=source, reason=reason, meaning=meaning, peer=peer)


def encode_release_request() -> bytes:
    """Return an A-RELEASE-RQ PDU (PS3.8 §9.3.6)."""
    return _encoded(A_RELEASE_RQ())


def encode_release_response() -> bytes:
    """Return an A-RELEASE-RP PDU (PS3.8 §9.3.7)."""
    return _encoded(A_RELEASE_RP())


def encode_abort(source: int = SERVICE_USER, reason: int = 0) -> bytes:
    """Return an A-ABORT PDU (PS3.8 §9.3.8); `reason` counts only where the source is the service provider."""
    return _encoded(A_ABORT_RQ(), source=source, reason_diagnostic=reason)


def decode_abort(body: bytes | bytearray) -> tuple[int, int]:
    """Return (source, reason) of the A-ABORT PDU with the four bytes `body` after its header (PS3.8 §9.3.8)."""
    pdu = A_ABORT_RQ()
    pdu.decode(bytes(HEADER_BYTES) + body)
    return pdu.source, pdu.reason_diagnostic


def _encoded(pdu: Any, **fields: int) -> bytes:
    vars(pdu).update(fields)
    return bytes(pdu.encode())
