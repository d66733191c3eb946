"""The DIMSE statuses by name, the meaning of a peer's, and what follows (PS3.7 Annex C, PS3.4 §B.2.3, §C.4.1.1.4). Pure data.

The C-STORE table is the whole of the delivery's knowledge about statuses; an outcome without any status (abort, timeout,
reset) is no status and stands in no table: it is unknown whether the peer has the instance.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from gateway.core.domain import Status, StatusClass

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITH_WARNING = 0xFF01
CANCEL = 0xFE00

PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
DUPLICATE_INVOCATION = 0x0210
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
"""PS3.7 Annex C."""

OUT_OF_RESOURCES = 0xA700
UNABLE_TO_COUNT_MATCHES = 0xA701
UNABLE_TO_SEND = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
CANNOT_UNDERSTAND = 0xC000
"""PS3.4 §B.2.3, §C.4.2.1.5."""


class StatusKind(StrEnum):
    """The meaning of a C-FIND response for its operation."""

    SUCCESS = "success"
    PENDING = "pending"
    WARNING = "warning"
    CANCELLED = "cancelled"
    OUT_OF_RESOURCES = "out_of_resources"
    """The peer is busy or full: the same request may work later."""

    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class StoreRow:
    """One row of the C-STORE table: the statuses from `first` to `last`."""

    first: int
    last: int
    status_class: StatusClass
    meaning: str


STORE_TABLE: tuple[StoreRow, ...] = (
    StoreRow(0x0000, 0x0000, StatusClass.DONE, "success"),
    StoreRow(0xB000, 0xB000, StatusClass.WARNING, "coercion of data elements"),
    StoreRow(0xB006, 0xB006, StatusClass.WARNING, "elements discarded"),
    StoreRow(0xB007, 0xB007, StatusClass.WARNING, "data set does not match SOP class"),
    StoreRow(0x0111, 0x0111, StatusClass.DUPLICATE, "duplicate SOP instance"),
    StoreRow(0xA700, 0xA7FF, StatusClass.RETRY, "refused: out of resources"),
    StoreRow(0x0110, 0x0110, StatusClass.RETRY_ONCE, "processing failure"),
    StoreRow(0xC000, 0xCFFF, StatusClass.RETRY_ONCE, "cannot understand"),
    StoreRow(0xA900, 0xA9FF, StatusClass.RETRY_ONCE, "data set does not match SOP class"),
    StoreRow(0x0117, 0x0117, StatusClass.REFUSE, "invalid SOP instance"),
    StoreRow(0x0122, 0x0122, StatusClass.REFUSE, "SOP class not supported"),
    StoreRow(0x0124, 0x0124, StatusClass.REFUSE, "not authorized"),
    StoreRow(0x0210, 0x0210, StatusClass.REFUSE, "duplicate invocation"),
    StoreRow(0x0211, 0x0211, StatusClass.REFUSE, "unrecognized operation"),
    StoreRow(0x0212, 0x0212, StatusClass.REFUSE, "mistyped argument"),
    # Codes that neither the standard nor the field has a word for: the class of the status decides (PS3.7 Annex C).
    StoreRow(0x0213, 0x0213, StatusClass.RETRY, "resource limitation"),
    StoreRow(0x0001, 0x0001, StatusClass.WARNING, "warning"),
    StoreRow(0x0107, 0x0107, StatusClass.WARNING, "attribute list warning"),
    StoreRow(0x0116, 0x0116, StatusClass.WARNING, "attribute value out of range"),
    StoreRow(0xB000, 0xBFFF, StatusClass.WARNING, "warning"),
    StoreRow(0x0000, 0xFFFF, StatusClass.RETRY_ONCE, "failure with an unknown status"),
)
"""The first row that holds a status decides."""

FIND_TABLE: tuple[tuple[int, int, StatusKind], ...] = (
    (SUCCESS, SUCCESS, StatusKind.SUCCESS),
    (PENDING, PENDING_WITH_WARNING, StatusKind.PENDING),
    (CANCEL, CANCEL, StatusKind.CANCELLED),
    (0xA700, 0xA7FF, StatusKind.OUT_OF_RESOURCES),
    (RESOURCE_LIMITATION, RESOURCE_LIMITATION, StatusKind.OUT_OF_RESOURCES),
    (0xB000, 0xBFFF, StatusKind.WARNING),
    (0x0000, 0xFFFF, StatusKind.FAILURE),
)
"""The first row that holds a status decides. Some archives answer B001 where their limit of matches was reached."""


@cache
def store_status(status: int) -> Status:
    """Return what the C-STORE status `status`, of 16 bits, means for a delivery (PS3.4 §B.2.3)."""
    row = next(row for row in STORE_TABLE if row.first <= status <= row.last)
    return Status(status, f"{status:04X}", row.meaning, row.status_class)


def find_kind(status: int) -> StatusKind:
    """Return what the C-FIND status `status` says (PS3.4 §C.4.1.1.4)."""
    return next(kind for first, last, kind in FIND_TABLE if first <= status <= last)


def is_pending(status: int) -> bool:
    """Tell whether more responses follow (PS3.7 §C.4): FF00 and FF01."""
    return status in (PENDING, PENDING_WITH_WARNING)
