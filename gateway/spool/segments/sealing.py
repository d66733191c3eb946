"""The head of a spooled instance: preamble, ``DICM``, File Meta Information (`gateway.dicom.part10`). Pure.

The sender of the instance stands in (0002,0016) to (0002,0018); what else recovery needs, with length and digest of the data set,
is JSON in Private Information (0002,0102). Length and digest are known only at the end, so they stand at fixed places and the head
is written last: an instance without them was never finished.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from gateway.core.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, MAX_UID_LENGTH, InstanceIdentity, Provenance
from gateway.dicom import part10
from gateway.dicom.elements import of_bytes

MAX_HEAD_LENGTH = 4096
"""More than any head that `encode` makes: every value is bounded."""

_SEAL = re.compile(rb'\{"xxh3":"([0-9a-f]{32})","length":"(\d{20})"')
_UNSEALED = b'{"xxh3":"' + b"-" * 32 + b'","length":"' + b"-" * 20 + b'"'


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
    uid = part10.element(part10.SOP_INSTANCE_UID, _uid(identity.sop_instance_uid))
    length = part10.group_length(len(before) + len(uid) + len(after))
    head = b"".join((part10.PREAMBLE, length, before, uid, after))
    return head, len(head) - len(after) + unsealed_at


@functools.lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax_uid: str, provenance: Provenance) -> tuple[bytes, bytes, int]:
    """Return what stands before and behind the SOP Instance UID, the same for most instances of an association.

    The third value is where the seal belongs in the second.
    """
    private = _UNSEALED + b"," + json.dumps(_private(provenance)).encode()[1:]
    before = part10.element(part10.VERSION, b"\x00\x01") + part10.element(part10.SOP_CLASS_UID, _uid(sop_class_uid))
    calling, called = _ascii(provenance.calling_ae), _ascii(provenance.called_ae)
    elements = (
        (part10.TRANSFER_SYNTAX_UID, _uid(transfer_syntax_uid)),
        (part10.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode()),
        (part10.IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
        (part10.SOURCE_AE, calling),
        (part10.SENDING_AE, calling),
        (part10.RECEIVING_AE, called),
        (part10.PRIVATE_CREATOR, IMPLEMENTATION_CLASS_UID.encode()),
        (part10.PRIVATE_INFORMATION, private),
    )
    after = b"".join(part10.element(number, value) for number, value in elements)
    return before, after, after.index(_UNSEALED)


def sealed(head: bytes, seal_at: int, digest: str, length: int) -> bytes:
    """Return `head`, made by `encode`, for a data set that is whole."""
    return b"".join((head[:seal_at], seal(digest, length), head[seal_at + len(_UNSEALED) :]))


def seal(digest: str, length: int) -> bytes:
    """Return what takes the place that `encode` left open."""
    return f'{{"xxh3":"{digest}","length":"{length:020d}"'.encode()


def decode(head: bytes) -> Head | None:
    """Return what the first bytes of a spooled file say, or None where they are not a sealed head of ours."""
    try:
        meta = part10.meta_in(of_bytes(head))
        if meta is None or meta.stated_end is None:
            return None
        private = meta.values[part10.PRIVATE_INFORMATION].rstrip(b" \x00")
        sealed = _SEAL.match(private)
        known = json.loads(private)
        if sealed is None or not isinstance(known, dict):
            return None
        # Ours is right: what looks like more of it is how a peer's data set begins.
        return Head(_identity(meta), _provenance(meta, known), meta.stated_end, int(sealed[2]), sealed[1].decode())
    except (part10.CutOff, KeyError, ValueError, TypeError):
        return None


def _private(provenance: Provenance) -> dict[str, str | int | None]:
    return {
        "address": provenance.address[:64],
        "association": provenance.association[:32],
        "source": provenance.source and provenance.source[:64],
        "move_originator_ae": provenance.move_originator_ae and provenance.move_originator_ae[:16],
        "move_originator_message_id": provenance.move_originator_message_id,
    }


def _identity(meta: part10.FileMeta) -> InstanceIdentity:
    numbers = (part10.SOP_CLASS_UID, part10.SOP_INSTANCE_UID, part10.TRANSFER_SYNTAX_UID)
    return InstanceIdentity(*(meta.text(number) for number in numbers))


def _provenance(meta: part10.FileMeta, known: dict[str, Any]) -> Provenance:
    message_id = known["move_originator_message_id"]
    return Provenance(
        calling_ae=meta.text(part10.SENDING_AE),
        called_ae=meta.text(part10.RECEIVING_AE),
        address=str(known["address"]),
        association=str(known["association"]),
        source=known["source"],
        move_originator_ae=known["move_originator_ae"],
        move_originator_message_id=None if message_id is None else int(message_id),
    )


def _uid(value: str) -> bytes:
    return part10.uid_bytes(value)[:MAX_UID_LENGTH]


def _ascii(title: str) -> bytes:
    return title.encode("ascii", "replace")[:16]
