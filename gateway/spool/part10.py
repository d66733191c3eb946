"""The head of a spooled instance: preamble, ``DICM``, File Meta Information (PS3.10 §7.1). Pure.

Who sent the instance stands in (0002,0016) to (0002,0018); what else recovery needs, with length and digest of the data set,
is JSON in Private Information (0002,0102). Length and digest are known only at the end, so they stand at fixed places and the head
is written last: an instance without them was never finished.
"""

from __future__ import annotations

import functools
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

from gateway.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, InstanceIdentity, Provenance

PREAMBLE_LENGTH = 128
PREFIX = b"DICM"
_BEGIN = bytes(PREAMBLE_LENGTH) + PREFIX
MAX_HEAD_LENGTH = 4096
"""More than any head that `encode` makes: every value is bounded."""

PRIVATE_CREATOR = IMPLEMENTATION_CLASS_UID
_SEAL = re.compile(rb'\{"xxh3":"([0-9a-f]{32})","length":"(\d{20})"')
_UNSEALED = b'{"xxh3":"' + b"-" * 32 + b'","length":"' + b"-" * 20 + b'"'
_LONG_FORM = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@dataclass(frozen=True, slots=True)
class Head:
    """A spooled instance's account of itself: `offset` of the data set in it, its `length` in bytes and its XXH3-128 `digest`.

    The identity has no Study and Series Instance UID: those stand in the data set alone.
    """

    identity: InstanceIdentity
    provenance: Provenance
    offset: int
    length: int
    digest: str


def encode(identity: InstanceIdentity, provenance: Provenance) -> tuple[bytes, int]:
    """Return the head of a file and the offset in it where `seal` belongs."""
    before, after, unsealed_at = _around(identity.sop_class_uid, identity.transfer_syntax_uid, provenance)
    uid = _element(0x0003, b"UI", _ascii(identity.sop_instance_uid, 64))
    length = _element(0x0000, b"UL", struct.pack("<L", len(before) + len(uid) + len(after)))
    head = b"".join((_BEGIN, length, before, uid, after))
    return head, len(head) - len(after) + unsealed_at


@functools.lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax_uid: str, provenance: Provenance) -> tuple[bytes, bytes, int]:
    """Return what stands before and behind the SOP Instance UID, the same for most instances of an association.

    The third value is where the seal belongs in the second.
    """
    private = _UNSEALED + b"," + json.dumps(_private(provenance)).encode()[1:]
    before = _element(0x0001, b"OB", b"\x00\x01") + _element(0x0002, b"UI", _ascii(sop_class_uid, 64))
    after = b"".join(
        (
            _element(0x0010, b"UI", _ascii(transfer_syntax_uid, 64)),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", _ascii(provenance.calling_ae, 16)),
            _element(0x0017, b"AE", _ascii(provenance.calling_ae, 16)),
            _element(0x0018, b"AE", _ascii(provenance.called_ae, 16)),
            _element(0x0100, b"UI", PRIVATE_CREATOR.encode()),
            _element(0x0102, b"OB", private),
        )
    )
    return before, after, after.index(_UNSEALED)


def sealed(head: bytes, seal_at: int, digest: str, length: int) -> bytes:
    """Return `head`, made by `encode`, for a data set that is whole."""
    return b"".join((head[:seal_at], seal(digest, length), head[seal_at + len(_UNSEALED) :]))


def plain_head(identity: InstanceIdentity) -> bytes:
    """Return preamble and File Meta Information for a data set that has none of its own."""
    head, seal_at = encode(identity, Provenance("", "", "", ""))
    return sealed(head, seal_at, "0" * 32, 0)


def seal(digest: str, length: int) -> bytes:
    """Return what takes the place that `encode` left open."""
    return f'{{"xxh3":"{digest}","length":"{length:020d}"'.encode()


def decode(head: bytes) -> Head | None:
    """Return what the first bytes of a spooled file say, or None where they are not a sealed head of ours."""
    try:
        values, offset = _file_meta(head)
        private = values[0x0102].rstrip(b" \x00")
        sealed = _SEAL.match(private)
        known = json.loads(private)
        if sealed is None or not isinstance(known, dict):
            return None
        return Head(_identity(values), _provenance(values, known), offset, int(sealed[2]), sealed[1].decode())
    except (struct.error, KeyError, ValueError, TypeError):
        return None


def _private(provenance: Provenance) -> dict[str, str | int | None]:
    return {
        "address": provenance.address[:64],
        "association": provenance.association[:32],
        "source": provenance.source and provenance.source[:64],
        "move_originator_ae": provenance.move_originator_ae and provenance.move_originator_ae[:16],
        "move_originator_message_id": provenance.move_originator_message_id,
    }


def _identity(values: dict[int, bytes]) -> InstanceIdentity:
    return InstanceIdentity(_text(values[0x0002]), _text(values[0x0003]), _text(values[0x0010]))


def _provenance(values: dict[int, bytes], known: dict[str, Any]) -> Provenance:
    message_id = known["move_originator_message_id"]
    return Provenance(
        calling_ae=_text(values[0x0017]),
        called_ae=_text(values[0x0018]),
        address=str(known["address"]),
        association=str(known["association"]),
        source=known["source"],
        move_originator_ae=known["move_originator_ae"],
        move_originator_message_id=None if message_id is None else int(message_id),
    )


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if vr in (b"SH", b"AE") or element == 0x0102 else b"\x00"
    if vr in _LONG_FORM:
        return struct.pack("<HH2sHL", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _file_meta(head: bytes) -> tuple[dict[int, bytes], int]:
    position = PREAMBLE_LENGTH + len(PREFIX)
    if head[PREAMBLE_LENGTH:position] != PREFIX:
        raise ValueError("no DICM prefix")
    values: dict[int, bytes] = {}
    while head[position : position + 2] == b"\x02\x00":
        _, element, vr, length = struct.unpack_from("<HH2sH", head, position)
        position += 8
        if vr in _LONG_FORM:
            (length,) = struct.unpack_from("<L", head, position)
            position += 4
        values[element] = head[position : position + length]
        position += length
    return values, position


def _ascii(value: str, limit: int) -> bytes:
    return value.encode("ascii", "replace")[:limit]


def _text(value: bytes) -> str:
    return value.rstrip(b" \x00").decode("ascii", "replace")
