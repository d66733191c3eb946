"""File Meta Information in front of a data set (PS3.10 §7.1): the spooled file's own where it fits, else a new one."""

from __future__ import annotations

import os
import struct

from gateway.delivery.destination import OpenBytes
from gateway.domain import IMPLEMENTATION_CLASS_UID, InstanceIdentity

_PREAMBLE = bytes(128) + b"DICM"
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_MAX_HEAD_BYTES = 65536


def file_head(source: OpenBytes, identity: InstanceIdentity) -> bytes:
    """Return preamble and File Meta Information for `identity`, to be followed by the bytes of `source`.

    What stands before the data set in the source's own file is kept when it is whole and names the same instance in the same
    transfer syntax: it also says who sent it (0002,0016). The preamble is always zeroes (PS3.10 §7.1 allows anything there).
    """
    length = source.offset - source.start
    own = os.pread(source.fileno(), length, source.start) if 0 < length <= _MAX_HEAD_BYTES else b""
    return _PREAMBLE + own[132:] if _fits(own, identity) else _PREAMBLE + _meta(identity)


def _fits(head: bytes, identity: InstanceIdentity) -> bool:
    if len(head) < 144 or head[128:132] != b"DICM" or head[132:140] != _GROUP_LENGTH:
        return False
    (length,) = struct.unpack("<I", head[140:144])
    named = (
        _element(0x0002, identity.sop_class_uid) in head
        and _element(0x0003, identity.sop_instance_uid) in head
        and _element(0x0010, identity.transfer_syntax_uid) in head
    )
    return bool(144 + length == len(head) and named)


def _meta(identity: InstanceIdentity) -> bytes:
    elements = b"".join(
        (
            struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01",
            _element(0x0002, identity.sop_class_uid),
            _element(0x0003, identity.sop_instance_uid),
            _element(0x0010, identity.transfer_syntax_uid),
            _element(0x0012, IMPLEMENTATION_CLASS_UID),
        )
    )
    return _GROUP_LENGTH + struct.pack("<I", len(elements)) + elements


def _element(number: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, number, b"UI", len(value)) + value
