"""Storage Commitment data sets, written and read."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from gateway.association.dimse.commitment import (
    CommitmentReport,
    FailedReference,
    InstanceReference,
    commitment_report,
    commitment_request,
)
from gateway.association.dimse.identifier import decode_identifier
from gateway.core.errors import ProtocolError

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


def test_a_value_that_cannot_be_read_is_the_peer_s_fault() -> None:
    reference = b"\x08\x00\x50\x11UI\x04\x001.2\x00" + b"\x08\x00\x55\x11U\xff\x04\x001.2\x00"
    item = b"\xfe\xff\x00\xe0" + len(reference).to_bytes(4, "little") + reference
    event = b"\x08\x00\x99\x11SQ\x00\x00" + len(item).to_bytes(4, "little") + item
    with pytest.raises(ProtocolError, match="cannot be read"):
        commitment_report(decode_identifier(event, "1.2.840.10008.1.2.1"))


def test_an_empty_report_is_empty() -> None:
    assert commitment_report(Dataset()) == CommitmentReport("", (), ())
