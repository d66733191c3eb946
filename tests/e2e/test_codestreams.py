"""Compressed pixels on their way by C-MOVE from one real Orthanc through the gateway to another: no codestream is touched."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydicom.encaps import generate_fragments

from gateway.dicom.syntaxes import J2K, J2K_LOSSLESS
from tests.support import comparing, data
from tests.support.gateway import Gateway, deliveries, dicom_destination, source
from tests.support.orthanc import orthanc
from tests.support.ports import HOST

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

BROKEN = {"explicit_VR-UN.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}
"""Orthanc does not take them by C-STORE."""


def compressed_files(folder: Path) -> dict[str, Path]:
    """Return every real JPEG 2000 file by SOP Instance UID, and a series; of several with one UID, one."""
    real = [path for path in data.sendable() if path.name not in BROKEN and syntax_of(path) in {J2K, J2K_LOSSLESS}]
    return {data.identity(path)[2]: path for path in [*real, *data.ct_series(folder, 5, j2k=True)]}


def syntax_of(source: bytes | Path) -> str:
    return str(comparing.read(source).file_meta.TransferSyntaxUID)


def codestreams(source: bytes | Path) -> list[str]:
    """Return the SHA-256 of each fragment of the pixel data but the Basic Offset Table."""
    fragments = list(generate_fragments(comparing.read(source).PixelData))[1:]
    return [hashlib.sha256(fragment).hexdigest() for fragment in fragments]


@pytest.mark.parametrize("mode", ["as-is", "j2k-lossless"])
def test_jpeg_2000_codestreams_reach_another_orthanc_unchanged(tmp_path: Path, mode: str) -> None:
    files = compressed_files(tmp_path / "ct")
    with orthanc(tmp_path / "there", ae_title="THERE") as there:
        table: dict[str, Any] = dicom_destination(there.port, ae_title="THERE", transfer_syntax=mode, quiet_s=0.5)
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"there": table}})
        modalities = {"GATEWAY": (HOST, gateway.port)}
        with orthanc(tmp_path / "archive", ae_title="ARCHIVE", modalities=modalities) as archive:
            assert set(archive.upload(files.values())) == set(files)
            gateway.write(sources={"archive": source(archive.port, settle_s=0.5)})
            listed = tmp_path / "studies.csv"
            listed.write_text("\n".join(["StudyInstanceUID", *archive.studies()]) + "\n")
            summary = gateway.json("pull", "archive", "--list", listed, deadline_s=240)
        arrived = {uid: there.file(identifier) for uid, identifier in there.instances().items()}

    assert len(files) > 20
    assert {study["kind"] for study in summary["studies"]} == {"complete"}
    assert {(row.state, row.proof) for row in deliveries(gateway)} == {("verified", "exists")}
    assert arrived.keys() == files.keys()
    assert {uid: syntax_of(arrived[uid]) for uid in files} == {uid: syntax_of(path) for uid, path in files.items()}
    assert {uid: codestreams(arrived[uid]) for uid in files} == {uid: codestreams(path) for uid, path in files.items()}
    assert {uid: found for uid, path in files.items() if (found := comparing.differences(path, arrived[uid]))} == {}
