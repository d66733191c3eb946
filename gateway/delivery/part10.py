"""File Meta Information in front of a data set (PS3.10 §7.1): the spooled file's own where it fits, else a new one."""

from __future__ import annotations

import os

from gateway.delivery.destination import OpenBytes
from gateway.dicom import part10
from gateway.domain import IMPLEMENTATION_CLASS_UID, InstanceIdentity

_MAX_HEAD_BYTES = 65536


def file_head(source: OpenBytes, identity: InstanceIdentity) -> bytes:
    """Return preamble and File Meta Information for `identity`, to be followed by the bytes of `source`.

    What stands before the data set in the source's own file is kept when it is whole and names the same instance in the same
    transfer syntax: it also says who sent it (0002,0016). The preamble is always zeroes (PS3.10 §7.1 allows anything there).
    """
    length = source.offset - source.start
    own = os.pread(source.fileno(), length, source.start) if 0 < length <= _MAX_HEAD_BYTES else b""
    begin = len(part10.PREAMBLE)
    return part10.PREAMBLE + (own[begin:] if _fits(own, identity) else _meta(identity))


def _fits(head: bytes, identity: InstanceIdentity) -> bool:
    begin = len(part10.PREAMBLE)
    if head[part10.PREAMBLE_LENGTH : begin] != part10.PREFIX:
        return False
    try:
        meta = part10.read_meta(lambda offset, size: head[offset : offset + size], begin)
    except part10.CutOff:
        return False
    named = all(meta.values.get(number, b"").rstrip(b"\0 ") == part10.uid_bytes(uid) for number, uid in _uids(identity))
    return meta.clean and meta.end == len(head) and named


def _meta(identity: InstanceIdentity) -> bytes:
    uids = ((number, part10.uid_bytes(uid)) for number, uid in _uids(identity))
    implementation = (part10.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode())
    return part10.encode_meta(((part10.VERSION, b"\x00\x01"), *uids, implementation))


def _uids(identity: InstanceIdentity) -> tuple[tuple[int, str], ...]:
    return (
        (part10.SOP_CLASS_UID, identity.sop_class_uid),
        (part10.SOP_INSTANCE_UID, identity.sop_instance_uid),
        (part10.TRANSFER_SYNTAX_UID, identity.transfer_syntax_uid),
    )
