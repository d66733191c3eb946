"""The DIMSE statuses by name, the meaning of a peer's, and what follows (PS3.7 Annex C, PS3.4 §B.2.3, §C.4.1.1.4). Pure data.

The C-STORE table is the whole of the delivery's knowledge about statuses; an outcome without any status (abort, timeout,
reset) is no status and stands in no table: it is unknown whether the peer has the instance.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITH_WARNING = 0xFF01

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


class Disposition(StrEnum):
    """The fate of an instance after its C-STORE was answered."""

    DELIVERED = "delivered"
    """Go on to the verification that the destination asks for."""

    WARNING = "warning"
    """Delivered, with a warning that the user can see."""

    CHECK_EXISTS = "check_exists"
    """The peer says that it has it already: check that, then delivered."""

    BACK_OFF = "back_off"
    """The peer is short of something: try again later, capped, then hold."""

    RETRY_ONCE = "retry_once"
    """One more try on a new association, then hold."""

    HOLD = "hold"
    """Another try cannot help: hold at once."""


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
class StatusRule:
    """The consequence of a C-STORE status, and the words for it."""

    disposition: Disposition
    meaning: str


@dataclass(frozen=True, slots=True)
class StoreRow:
    """One row of the C-STORE table: the statuses from `first` to `last`."""

    first: int
    last: int
    rule: StatusRule


def _store(first: int, last: int, disposition: Disposition, meaning: str) -> StoreRow:
    return StoreRow(first, last, StatusRule(disposition, meaning))


STORE_TABLE: tuple[StoreRow, ...] = (
    _store(0x0000, 0x0000, Disposition.DELIVERED, "success"),
    _store(0xB000, 0xB000, Disposition.WARNING, "coercion of data elements"),
    _store(0xB006, 0xB006, Disposition.WARNING, "elements discarded"),
    _store(0xB007, 0xB007, Disposition.WARNING, "data set does not match SOP class"),
    _store(0x0111, 0x0111, Disposition.CHECK_EXISTS, "duplicate SOP instance"),
    _store(0xA700, 0xA7FF, Disposition.BACK_OFF, "refused: out of resources"),
    _store(0x0110, 0x0110, Disposition.RETRY_ONCE, "processing failure"),
    _store(0xC000, 0xCFFF, Disposition.RETRY_ONCE, "cannot understand"),
    _store(0xA900, 0xA9FF, Disposition.RETRY_ONCE, "data set does not match SOP class"),
    _store(0x0117, 0x0117, Disposition.HOLD, "invalid SOP instance"),
    _store(0x0122, 0x0122, Disposition.HOLD, "SOP class not supported"),
    _store(0x0124, 0x0124, Disposition.HOLD, "not authorized"),
    _store(0x0210, 0x0210, Disposition.HOLD, "duplicate invocation"),
    _store(0x0211, 0x0211, Disposition.HOLD, "unrecognized operation"),
    _store(0x0212, 0x0212, Disposition.HOLD, "mistyped argument"),
    # Codes that neither the standard nor the field has a word for: the class of the status decides (PS3.7 Annex C).
    _store(0x0213, 0x0213, Disposition.BACK_OFF, "resource limitation"),
    _store(0x0001, 0x0001, Disposition.WARNING, "warning"),
    _store(0x0107, 0x0107, Disposition.WARNING, "attribute list warning"),
    _store(0x0116, 0x0116, Disposition.WARNING, "attribute value out of range"),
    _store(0xB000, 0xBFFF, Disposition.WARNING, "warning"),
    _store(0x0000, 0xFFFF, Disposition.RETRY_ONCE, "failure with an unknown status"),
)
"""The first row that holds a status decides."""

FIND_TABLE: tuple[tuple[int, int, StatusKind], ...] = (
    (SUCCESS, SUCCESS, StatusKind.SUCCESS),
    (PENDING, PENDING_WITH_WARNING, StatusKind.PENDING),
    (0xFE00, 0xFE00, StatusKind.CANCELLED),
    (0xA700, 0xA7FF, StatusKind.OUT_OF_RESOURCES),
    (RESOURCE_LIMITATION, RESOURCE_LIMITATION, StatusKind.OUT_OF_RESOURCES),
    (0xB000, 0xBFFF, StatusKind.WARNING),
    (0x0000, 0xFFFF, StatusKind.FAILURE),
)
"""The first row that holds a status decides. Some archives answer B001 where their limit of matches was reached."""


def store_disposition(status: int) -> StatusRule:
    """Return what follows from the C-STORE status `status` (PS3.4 §B.2.3)."""
    return next(row.rule for row in STORE_TABLE if row.first <= status <= row.last)


def find_kind(status: int) -> StatusKind:
    """Return what the C-FIND status `status` says (PS3.4 §C.4.1.1.4)."""
    return next(kind for first, last, kind in FIND_TABLE if first <= status <= last)


def is_pending(status: int) -> bool:
    """Tell whether more responses follow (PS3.7 §C.4): FF00 and FF01."""
    return status in (PENDING, PENDING_WITH_WARNING)
