"""pynetdicom's A-ASSOCIATE PDUs for what a stranger sends (PS3.8 §9.3.2, §9.3.3, PS3.7 §D.3.3): its exceptions end here.

pynetdicom gives a PDU up at the first item that it does not know or cannot read. PS3.8 §9.3.1 wants unknown items ignored, and a
device should not lose its association over one context; so these are its classes with one thing replaced: which items are
read at all, and that a bad one costs itself only. AE titles stay bytes, as sent: whether they are titles is answered with a
rejection, not with an abort.

Importing this sets, for the whole process, what pynetdicom takes for a UID, and keeps pydicom from warning and pynetdicom from
logging: both quote what the stranger sent.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import pydicom.config
from pynetdicom import _config, pdu_items
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from gateway.association.upper.pdu import HEADER_BYTES, INVALID_PDU_PARAMETER
from gateway.core.domain import is_uid
from gateway.core.errors import ProtocolError

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
_config.VALIDATORS["UI"] = lambda uid: (is_uid(uid), "it is no UID")
for _module in ("pdu", "pdu_items", "pdu_primitives", "presentation", "utils"):
    # Of each module, because the level of their common parent is the application's to set.
    logging.getLogger(f"pynetdicom.{_module}").setLevel(logging.CRITICAL + 1)

_UNREADABLE = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error)
"""The exceptions that pynetdicom raises for bytes that are no such item."""

_FIXED_BYTES = 68
"""Protocol version, AE titles and reserved bytes, before the items."""

Pdu = TypeVar("Pdu", "IncomingRequest", "IncomingAccept")


def read(pdu: Pdu, body: bytes) -> Pdu:
    """Return `pdu` with what `body`, the bytes after the header, says.

    Raises:
        ProtocolError: it ends too early or its items overlap its end.
    """
    try:
        pdu.decode(bytes(HEADER_BYTES) + body)
    except _UNREADABLE as error:
        raise ProtocolError(f"a malformed A-ASSOCIATE PDU ({type(error).__name__})", reason=INVALID_PDU_PARAMETER) from error
    if len(body) < _FIXED_BYTES:
        raise ProtocolError(f"an A-ASSOCIATE PDU of only {len(body)} bytes", reason=INVALID_PDU_PARAMETER)
    return pdu


class _Parent:
    """Something with items of `kinds`: others are passed over, and so are those that cannot be read."""

    kinds: ClassVar[Mapping[int, type[Any]]]

    def _wrap_generate_items(self: Any, data: bytes) -> list[Any]:
        items = []
        for number, part in self._generate_items(data):
            with suppress(*_UNREADABLE):
                item = self.kinds[number]()
                item.decode(part)
                # pydicom strips white space of any kind; only spaces and NUL are padding.
                if isinstance(item, _Parent) or len(item) >= len(part.rstrip(b"\0 ")):
                    items.append(item)
        return items


class _ContextRequested(_Parent, pdu_items.PresentationContextItemRQ):
    kinds: ClassVar = {0x30: pdu_items.AbstractSyntaxSubItem, 0x40: pdu_items.TransferSyntaxSubItem}


class _ContextAnswered(_Parent, pdu_items.PresentationContextItemAC):
    kinds: ClassVar = {0x40: pdu_items.TransferSyntaxSubItem}


class _UserInformation(_Parent, pdu_items.UserInformationItem):
    kinds: ClassVar = {
        0x51: pdu_items.MaximumLengthSubItem,
        0x52: pdu_items.ImplementationClassUIDSubItem,
        0x54: pdu_items.SCP_SCU_RoleSelectionSubItem,
        0x55: pdu_items.ImplementationVersionNameSubItem,
    }


class IncomingRequest(_Parent, A_ASSOCIATE_RQ):
    """An A-ASSOCIATE-RQ with both titles as the 16 bytes that came."""

    kinds: ClassVar = {0x10: pdu_items.ApplicationContextItem, 0x20: _ContextRequested, 0x50: _UserInformation}
    called_ae_title = b""
    calling_ae_title = b""


class IncomingAccept(_Parent, A_ASSOCIATE_AC):
    """An A-ASSOCIATE-AC."""

    kinds: ClassVar = {0x10: pdu_items.ApplicationContextItem, 0x21: _ContextAnswered, 0x50: _UserInformation}
