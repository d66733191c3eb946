"""Keys that a route may have: DICOM keywords of text or numbers, and who sent what to whom."""

from __future__ import annotations

from gateway.config.routing_keys import unknown_keywords


def test_keywords_that_no_instance_can_be_routed_by_are_reported() -> None:
    when = {
        "Modalty": "CT",
        "Modality": "CT",
        "PixelData": "x",
        "calling_ae": "A",
        "TransferSyntaxUID": "1",
        "OtherPatientIDsSequence": "x",
    }
    assert unknown_keywords(when) == ["Modalty", "PixelData", "TransferSyntaxUID", "OtherPatientIDsSequence"]
