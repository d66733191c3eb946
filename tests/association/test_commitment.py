"""Storage Commitment data sets, written and read."""

from __future__ import annotations

from pydicom.dataset import Dataset

from gateway.association.commitment import (
    CommitmentReport,
    FailedReference,
    InstanceReference,
    commitment_report,
    commitment_request,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_a_request_names_the_transaction_and_every_instance() -> None:
    request = commitment_request("1.2.3", [InstanceReference(CT, "1.2.3.1"), InstanceReference(CT, "1.2.3.2")])
    assert request.TransactionUID == "1.2.3"
    assert [item.ReferencedSOPInstanceUID for item in request.ReferencedSOPSequence] == ["1.2.3.1", "1.2.3.2"]
    assert {item.ReferencedSOPClassUID for item in request.ReferencedSOPSequence} == {CT}


def test_a_report_tells_the_committed_from_the_failed() -> None:
    event = commitment_request("1.2.3", [InstanceReference(CT, "1.2.3.1")])
    failed = commitment_request("", [InstanceReference(CT, "1.2.3.2")]).ReferencedSOPSequence
    failed[0].FailureReason = 0x0112
    event.FailedSOPSequence = failed
    assert commitment_report(event) == CommitmentReport(
        "1.2.3", (InstanceReference(CT, "1.2.3.1"),), (FailedReference(CT, "1.2.3.2", 0x0112),)
    )


def test_a_failed_instance_without_a_reason_is_still_failed() -> None:
    event = Dataset()
    event.FailedSOPSequence = commitment_request("", [InstanceReference(CT, "1.2.3.2")]).ReferencedSOPSequence
    assert commitment_report(event).failed == (FailedReference(CT, "1.2.3.2", 0x0110),)


def test_an_empty_report_is_empty() -> None:
    assert commitment_report(Dataset()) == CommitmentReport("", (), ())
