"""Real requestors: DCMTK's echoscu, storescu and dcmsend, plain and over mutual TLS."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from gateway.association.scp.acceptor import Limits
from gateway.config.settings import ListenTlsTable
from gateway.security import tls
from tests.support.accepting import accepting
from tests.support.certificates import TestCA
from tests.support.data import MakeSeries
from tests.support.dcmtk import dcmsend, echo, storescu
from tests.support.ports import HOST
from tests.support.processes import run
from tests.support.raw import data_set_of


def data_sets(files: list[Path]) -> dict[str, bytes]:
    """Return SOP Instance UID to data set of `files`."""
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): data_set_of(path.read_bytes()) for path in files}


@pytest.mark.peers("echoscu")
def test_echoscu_is_answered() -> None:
    with accepting() as gateway:
        assert echo(gateway.port, called_ae="GATEWAY")
        assert not echo(gateway.port, called_ae="OTHER")


@pytest.mark.peers("dcmsend")
def test_dcmsend_stores_real_files_of_every_kind(real_files: tuple[Path, ...]) -> None:
    with accepting() as gateway:
        output = dcmsend(gateway.port, *real_files, check=False).stdout
        stored = {one.request.sop_instance_uid: one for one in gateway.storage.committed}
    expected = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in real_files}
    assert len(stored) >= 0.9 * len(expected), output[-2000:]
    assert len({one.request.transfer_syntax_uid for one in stored.values()}) >= 8
    assert len({one.request.sop_class_uid for one in stored.values()}) >= 8


@pytest.mark.peers("dcmsend")
def test_dcmsends_bytes_are_those_of_its_files(ct_series: MakeSeries) -> None:
    files = ct_series(20, rows=256)
    with accepting() as gateway:
        dcmsend(gateway.port, *files)
        assert {one.request.sop_instance_uid: bytes(one.data_set) for one in gateway.storage.committed} == data_sets(files)


@pytest.mark.peers("storescu")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "mutual TLS"])
def test_storescus_bytes_are_those_of_its_files(ct_series: MakeSeries, ca: TestCA, secure: bool) -> None:
    files = ct_series(20, rows=256)
    context = tls.acceptor_context(ListenTlsTable(**ca.issue("gateway"))) if secure else None
    with accepting(tls=context) as gateway:
        storescu(gateway.port, *files, tls=ca.issue("modality") if secure else None)
        assert {one.request.sop_instance_uid: bytes(one.data_set) for one in gateway.storage.committed} == data_sets(files)
        names = gateway.storage.committed[0].association.certificate_names
    assert ("modality" in names) is secure


@pytest.mark.peers("storescu")
@pytest.mark.parametrize("max_pdu", [4096, 16384])
def test_we_advertise_what_we_take_and_get_no_more(ct_series: MakeSeries, max_pdu: int) -> None:
    files = ct_series(3, rows=256)
    with accepting(Limits(max_pdu_bytes=max_pdu)) as gateway:
        storescu(gateway.port, *files)
        assert {one.request.sop_instance_uid: bytes(one.data_set) for one in gateway.storage.committed} == data_sets(files)


@pytest.mark.peers("echoscu")
def test_a_tls_peer_of_another_ca_gets_in_nowhere(ca: TestCA, tmp_path: Path) -> None:
    stranger = TestCA(tmp_path / "stranger", common_name="Stranger").issue("stranger")
    context = tls.acceptor_context(ListenTlsTable(**ca.issue("gateway")))
    with accepting(tls=context) as gateway:
        command = ["echoscu", "-aec", "GATEWAY", "+tls", stranger["key"], stranger["certificate"], "+cf", ca.ca]
        done = run([*command, HOST, str(gateway.port)], check=False, deadline_s=20)
        assert done.returncode != 0
        assert not gateway.admission.callers


@pytest.mark.peers("dcmsend")
def test_senders_with_nagles_algorithm_wait_for_no_delayed_ack(ct_series: MakeSeries) -> None:
    files = ct_series(100)
    with accepting() as gateway:
        dcmsend(gateway.port, *files)
        assert len(gateway.storage.committed) == 100
    # 40 ms for each instance otherwise, see RFC 1122 §4.2.3.2 and §4.2.3.4.
