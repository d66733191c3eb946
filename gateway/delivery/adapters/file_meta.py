"""File Meta Information in front of a data set (PS3.10 §7.1): the spooled file's own where it fits, else a new one."""

from __future__ import annotations

import os

from gateway.core.domain import InstanceIdentity
from gateway.delivery.destination import OpenBytes
from gateway.dicom import part10
from gateway.dicom.elements import of_bytes

_MAX_HEAD_BYTES = 65536


def file_head(source: OpenBytes, identity: InstanceIdentity) -> bytes:
    """Return preamble and File Meta Information for `identity`, to be followed by the bytes of `source`.

    The head of the source's own file is kept when it is whole and names the same instance in the same
    transfer syntax: it also says who sent it (0002,0016). The preamble is always zeroes (PS3.10 §7.1 allows anything there).
    """
    length = source.offset - source.start
    own = os.pread(source.fileno(), length, source.start) if 0 < length <= _MAX_HEAD_BYTES else b""
    if _fits(own, identity):
        return part10.PREAMBLE + own[len(part10.PREAMBLE) :]
    return part10.head_of(identity.sop_class_uid, identity.sop_instance_uid, identity.transfer_syntax_uid)


def _fits(head: bytes, identity: InstanceIdentity) -> bool:
    try:
        meta = part10.meta_in(of_bytes(head))
    except part10.CutOff:
        return False
    if meta is None:
        return False
    named = tuple(meta.text(number) for number in (part10.SOP_CLASS_UID, part10.SOP_INSTANCE_UID, part10.TRANSFER_SYNTAX_UID))
    ours = (identity.sop_class_uid, identity.sop_instance_uid, identity.transfer_syntax_uid)
    return meta.clean and meta.end == len(head) and named == ours
