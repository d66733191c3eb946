"""The main job on real input: real archives, real files, three real Orthancs over mutual TLS, proved UID by UID.

dcmqrscp converts between uncompressed transfer syntaxes and can send one compressed syntax a process, so its files are spread over
one archive for each; Orthanc sends whatever it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import comparing, data, dcmtk
from tests.support.certificates import MakeCertificate
from tests.support.gateway import Gateway, dicom_destination, source
from tests.support.orthanc import Orthanc, orthanc
from tests.support.ports import HOST

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = ("orthanc-a", "orthanc-b", "orthanc-c")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, certificate: MakeCertificate) -> Iterator[tuple[Orthanc, ...]]:
    """Three Orthancs whose DICOM ports speak TLS and ask for our certificate."""
    folder = tmp_path_factory.mktemp("three")
    with ExitStack() as stack:
        yield tuple(stack.enter_context(orthanc(folder / name, ae_title=name.upper(), tls=certificate(name))) for name in NAMES)


@pytest.fixture
def destinations(three: tuple[Orthanc, ...], certificate: MakeCertificate) -> dict[str, Any]:
    for peer in three:
        peer.clear()
    ours = certificate("gateway")
    return {
        name: dicom_destination(peer.port, ae_title=peer.ae_title, tls=ours, verify="exists", quiet_s=0.5)
        for name, peer in zip(NAMES, three, strict=True)
    }


def pull(gateway: Gateway, folder: Path, studies: set[str], name: str = "archive") -> dict[str, Any]:
    """Pull `studies` by a list file; every one has to be complete, delivered and verified."""
    listed = folder / "studies.csv"
    listed.write_text("StudyInstanceUID\n" + "\n".join(sorted(studies)) + "\n")
    summary: dict[str, Any] = gateway.json("pull", name, "--list", listed, deadline_s=240)
    assert {study["study_instance_uid"]: study["kind"] for study in summary["studies"]} == dict.fromkeys(studies, "complete")
    return summary


def assert_holds_exactly(peer: Orthanc, originals: dict[str, bytes | Path]) -> None:
    """Every instance of `originals` is at `peer`, with equal elements and pixels, and nothing else is."""
    held = peer.instances()
    assert set(held) == set(originals)
    with ThreadPoolExecutor(4) as pool:
        files = dict(zip(originals, pool.map(lambda uid: peer.file(held[uid]), originals), strict=True))
    assert {uid: found for uid in originals if (found := comparing.differences(originals[uid], files[uid]))} == {}


@pytest.mark.parametrize("option", ["-x=", "-xv", "-xw", "-xy", "-xx", "-xs", "-xt", "-xr", "-xd"])
def test_everything_in_dcmqrscp_is_proved_on_three_orthancs(
    tmp_path: Path, three: tuple[Orthanc, ...], destinations: dict[str, Any], real_files: tuple[Path, ...], option: str
) -> None:
    gateway = Gateway(tmp_path / "gateway", {"destinations": destinations})
    hosts = {"GATEWAY": (HOST, gateway.port)}
    files = dcmtk.by_option(real_files)[option]
    with dcmtk.dcmqrscp(tmp_path / "archive", option, hosts=hosts, files=files) as archive:
        gateway.write(sources={"archive": source(archive.port, settle_s=0.5)})
        summary = pull(gateway, tmp_path, {data.identity(path)[0] for path in archive.files.values()})
    assert sum(study["expected"] for study in summary["studies"]) == len(archive.files)
    for peer in three:
        assert_holds_exactly(peer, dict(archive.files))


@pytest.mark.parametrize("synchronous", [True, False])
def test_everything_in_orthanc_is_proved_on_three_orthancs(
    tmp_path: Path, three: tuple[Orthanc, ...], destinations: dict[str, Any], real_files: tuple[Path, ...], synchronous: bool
) -> None:
    gateway = Gateway(tmp_path / "gateway", {"destinations": destinations})
    modalities = {"GATEWAY": (HOST, gateway.port)}
    with orthanc(tmp_path / "source", ae_title="SOURCE", modalities=modalities, SynchronousCMove=synchronous) as archive:
        archive.upload(real_files)
        held = archive.instances()
        gateway.write(sources={"archive": source(archive.port, ae_title="SOURCE", settle_s=0.5)})
        pull(gateway, tmp_path, set(archive.studies()))
        originals: dict[str, bytes | Path] = {uid: archive.file(identifier) for uid, identifier in held.items()}
    assert len(originals) > 100
    for peer in three:
        assert_holds_exactly(peer, originals)


def test_a_study_of_mixed_syntaxes_is_completed_by_the_other_order(
    tmp_path: Path, three: tuple[Orthanc, ...], destinations: dict[str, Any]
) -> None:
    """dcmqrscp -xv proposes J2K and uncompressed syntaxes in one context: one study of both kinds needs both acceptance orders."""
    files = data.ct_series(tmp_path / "plain", 6) + data.ct_series(tmp_path / "j2k", 6, j2k=True, series=2)
    gateway = Gateway(tmp_path / "gateway", {"destinations": destinations})
    hosts = {"GATEWAY": (HOST, gateway.port)}
    with dcmtk.dcmqrscp(tmp_path / "archive", "-xv", hosts=hosts, files=files) as archive:
        gateway.write(sources={"archive": source(archive.port, settle_s=0.5)})
        pull(gateway, tmp_path, {data.identity(files[0])[0]})
    for peer in three:
        assert_holds_exactly(peer, dict(archive.files))
