"""The harness itself: peers come up, take data and go; the comparison sees what changed and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import comparing, data, dcmtk
from tests.support.certificates import MakeCertificate
from tests.support.data import MakeSeries
from tests.support.orthanc import orthanc
from tests.support.ports import HOST, free_port
from tests.support.processes import run

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("option", ["-x=", "-xv", "-xr", "-xy"])
def test_dcmqrscp_moves_real_files_to_storescp(tmp_path: Path, real_files: tuple[Path, ...], option: str) -> None:
    files, port = dcmtk.by_option(real_files)[option], free_port()
    accept = option.replace("-", "+")
    with (
        dcmtk.storescp(tmp_path / "received", accept, port=port, ae_title="TARGET") as target,
        dcmtk.dcmqrscp(tmp_path / "archive", option, hosts={"TARGET": (HOST, port)}, files=files) as archive,
    ):
        for study in sorted({data.identity(path)[0] for path in archive.files.values()}):
            command = ["movescu", "-S", "-aec", "ARCHIVE", "-aem", "TARGET", "-k", "QueryRetrieveLevel=STUDY"]
            run([*command, "-k", f"StudyInstanceUID={study}", HOST, str(archive.port)])
        received = target.received()
        assert set(received) == set(archive.files)
        assert {uid: found for uid, path in archive.files.items() if (found := comparing.differences(path, received[uid]))} == {}


def test_orthanc_takes_files_over_mutual_tls(tmp_path: Path, certificate: MakeCertificate, ct_series: MakeSeries) -> None:
    files = ct_series(3)
    with orthanc(tmp_path / "orthanc", tls=certificate("orthanc")) as peer:
        dcmtk.storescu(peer.port, *files, tls=certificate("client"))
        held = peer.instances()
        assert set(held) == {data.identity(path)[2] for path in files}
        assert all(comparing.differences(path, peer.file(held[data.identity(path)[2]])) == [] for path in files)


def test_orthanc_refuses_a_client_without_a_certificate(
    tmp_path: Path, certificate: MakeCertificate, ct_series: MakeSeries
) -> None:
    with orthanc(tmp_path / "orthanc", tls=certificate("orthanc")) as peer:
        assert dcmtk.storescu(peer.port, ct_series(1)[0], "+tla", "-ic", check=False).returncode != 0
        assert peer.count() == 0
