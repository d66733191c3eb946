"""The meaning of a peer's DIMSE statuses, and what follows (PS3.7 Annex C, PS3.4 §B.2.3, §C.4.1.1.4, §C.4.2.1.5). Pure data.

The C-STORE table is the whole of the delivery's knowledge about statuses; an outcome without any status (abort, timeout,
reset) is no status and stands in no table: it is unknown whether the peer has the instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from gateway.core.domain import Status, StatusClass

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITH_WARNING = 0xFF01
CANCEL = 0xFE00


class StatusKind(StrEnum):
    """The meaning of a C-FIND or C-MOVE response for its operation."""

    SUCCESS = "success"
    PENDING = "pending"
    WARNING = "warning"
    CANCELLED = "cancelled"
    OUT_OF_RESOURCES = "out_of_resources"
    """The peer is busy or full: the same request may work later."""

    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class StatusMeaning:
    """The meaning of a C-FIND or C-MOVE status, and the words for it."""

    kind: StatusKind
    meaning: str


@dataclass(frozen=True, slots=True)
class StoreRow:
    """One row of the C-STORE table: the statuses from `first` to `last`."""

    first: int
    last: int
    status_class: StatusClass
    meaning: str


@dataclass(frozen=True, slots=True)
class MeaningRow:
    """One row of a table of meanings: the statuses from `first` to `last`."""

    first: int
    last: int
    meaning: StatusMeaning


def _means(first: int, last: int, kind: StatusKind, meaning: str) -> MeaningRow:
    return MeaningRow(first, last, StatusMeaning(kind, meaning))


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

_COMMON: tuple[MeaningRow, ...] = (
    _means(0x0000, 0x0000, StatusKind.SUCCESS, "success"),
    _means(0xFF00, 0xFF00, StatusKind.PENDING, "pending"),
    _means(0xFF01, 0xFF01, StatusKind.PENDING, "pending, some optional keys are not supported"),
    _means(0xFE00, 0xFE00, StatusKind.CANCELLED, "cancelled"),
    _means(0xA700, 0xA700, StatusKind.OUT_OF_RESOURCES, "refused: out of resources"),
    _means(0xA701, 0xA701, StatusKind.OUT_OF_RESOURCES, "refused: out of resources, unable to calculate number of matches"),
    _means(0xA702, 0xA702, StatusKind.OUT_OF_RESOURCES, "refused: out of resources, unable to perform sub-operations"),
    _means(0xA703, 0xA7FF, StatusKind.OUT_OF_RESOURCES, "refused: out of resources"),
    _means(0x0213, 0x0213, StatusKind.OUT_OF_RESOURCES, "resource limitation"),
    _means(0xA801, 0xA801, StatusKind.FAILURE, "refused: move destination unknown"),
    _means(0xA900, 0xA9FF, StatusKind.FAILURE, "identifier does not match SOP class"),
    _means(0xC000, 0xCFFF, StatusKind.FAILURE, "unable to process"),
    _means(0x0110, 0x0110, StatusKind.FAILURE, "processing failure"),
    _means(0x0122, 0x0122, StatusKind.FAILURE, "refused: SOP class not supported"),
    _means(0x0124, 0x0124, StatusKind.FAILURE, "refused: not authorized"),
    _means(0x0210, 0x0210, StatusKind.FAILURE, "duplicate invocation"),
    _means(0x0211, 0x0211, StatusKind.FAILURE, "unrecognized operation"),
    _means(0x0212, 0x0212, StatusKind.FAILURE, "mistyped argument"),
)

_ANY: tuple[MeaningRow, ...] = (
    _means(0xB000, 0xBFFF, StatusKind.WARNING, "warning"),
    _means(0x0000, 0xFFFF, StatusKind.FAILURE, "failure with an unknown status"),
)

FIND_TABLE: tuple[MeaningRow, ...] = (
    *_COMMON,
    _means(0xB001, 0xB001, StatusKind.WARNING, "the peer's limit of matches was reached"),
    *_ANY,
)
"""C-FIND: the first row that holds a status decides."""

MOVE_TABLE: tuple[MeaningRow, ...] = (
    *_COMMON,
    _means(0xB000, 0xB000, StatusKind.WARNING, "sub-operations complete, one or more failures or warnings"),
    *_ANY,
)
"""C-MOVE: the first row that holds a status decides."""


@cache
def store_status(status: int) -> Status:
    """Return what the C-STORE status `status`, of 16 bits, means for a delivery (PS3.4 §B.2.3)."""
    row = next(row for row in STORE_TABLE if row.first <= status <= row.last)
    return Status(status, f"{status:04X}", row.meaning, row.status_class)


def find_meaning(status: int) -> StatusMeaning:
    """Return what the C-FIND status `status` says (PS3.4 §C.4.1.1.4)."""
    return _meaning(FIND_TABLE, status)


def move_meaning(status: int) -> StatusMeaning:
    """Return what the C-MOVE status `status` says (PS3.4 §C.4.2.1.5). It never proves completeness."""
    return _meaning(MOVE_TABLE, status)


def is_pending(status: int) -> bool:
    """Tell whether more responses follow (PS3.7 §C.4): FF00 and FF01."""
    return status in (PENDING, PENDING_WITH_WARNING)


def _meaning(table: Sequence[MeaningRow], status: int) -> StatusMeaning:
    return next(row.meaning for row in table if row.first <= status <= row.last)
