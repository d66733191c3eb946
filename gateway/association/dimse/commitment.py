"""The data sets of the Storage Commitment Push Model (PS3.4 §J.3): the request's and the report's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.association.dimse.identifier import readable
from gateway.association.dimse.statuses import PROCESSING_FAILURE

ACTION_TYPE = 1
"""Request Storage Commitment (PS3.4 §J.3.2.1)."""

EVENT_COMPLETE = 1
"""Storage Commitment Request Successful (PS3.4 §J.3.3.1)."""

EVENT_FAILURES = 2
"""Storage Commitment Request Complete, Failures Exist (PS3.4 §J.3.3.1)."""


@dataclass(frozen=True, slots=True)
class InstanceReference:
    """One instance, by SOP class and SOP Instance UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class FailedReference:
    """One instance that the peer does not commit to keep; `reason` is (0008,1197), PS3.3 §C.14.1.1."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """The peer's answer to a transaction: the instances that it committed to keep, and those that it did not (PS3.4 §J.3.3.1)."""

    transaction_uid: str
    committed: tuple[InstanceReference, ...]
    failed: tuple[FailedReference, ...]


def commitment_request(transaction_uid: str, references: Iterable[InstanceReference]) -> Dataset:
    """Return the Action Information that asks for commitment of `references` (PS3.4 §J.3.2.1.1)."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = Sequence(_item(reference) for reference in references)
    return request


def commitment_report(event: Dataset) -> CommitmentReport:
    """Read the Event Information `event` (PS3.4 §J.3.3.1.1); what it lacks reads as empty.

    Raises:
        ProtocolError: a value cannot be read.
    """
    with readable():
        return CommitmentReport(
            transaction_uid=str(event.get("TransactionUID") or ""),
            committed=tuple(InstanceReference(*_uids(item)) for item in _items(event, "ReferencedSOPSequence")),
            failed=tuple(FailedReference(*_uids(item), reason=_reason(item)) for item in _items(event, "FailedSOPSequence")),
        )


def _item(reference: InstanceReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _items(event: Dataset, keyword: str) -> Iterator[Dataset]:
    yield from event.get(keyword) or ()


def _uids(item: Dataset) -> tuple[str, str]:
    return str(item.get("ReferencedSOPClassUID") or ""), str(item.get("ReferencedSOPInstanceUID") or "")


def _reason(item: Dataset) -> int:
    reason = item.get("FailureReason")
    return reason if isinstance(reason, int) else PROCESSING_FAILURE
