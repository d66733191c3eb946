"""The requestor against real peers: storescp, dcmqrscp and Orthanc, with and without TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.association.dimse.commitment import InstanceReference
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, associate, next_message_id
from gateway.association.upper.contexts import (
    COMMITMENT_CONTEXTS,
    STORAGE_SOP_CLASSES,
    STUDY_ROOT_CONTEXTS,
    VERIFICATION_CONTEXTS,
    ProposedContext,
    plan_contexts,
)
from gateway.core.errors import AssociationAborted, AssociationRejected, DimseFailed, PeerTimeout, TlsFailed
from tests.support.certificates import TestCA
from tests.support.contexts import client_context
from tests.support.dcmtk import dcmqrscp, storescp
from tests.support.deadlines import PATIENT, hasty
from tests.support.orthanc import orthanc
from tests.support.ports import free_port
from tests.support.proposals import QUERY_RETRIEVE_CONTEXTS
from tests.support.sources import dataset_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.peers

Series = Callable[..., list[Path]]


def request(
    port: int,
    contexts: tuple[ProposedContext, ...],
    *,
    ae_title: str = "PEER",
    tls: ssl.SSLContext | None = None,
    deadlines: Deadlines = PATIENT,
) -> Requestor:
    return associate(RemoteAE(ae_title, "127.0.0.1", port, tls=tls), "GATEWAY", contexts, deadlines=deadlines)


def contexts_of(paths: list[Path]) -> tuple[ProposedContext, ...]:
    heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    (contexts,) = plan_contexts((head.SOPClassUID, head.file_meta.TransferSyntaxUID) for head in heads)
    return contexts


def send(association: Requestor, path: Path) -> int:
    head = pydicom.dcmread(path, stop_before_pixels=True)
    context = association.context_for(head.SOPClassUID, head.file_meta.TransferSyntaxUID)
    assert context is not None
    with dataset_of(path) as source:
        return association.store(context, head.SOPInstanceUID, source).status


def bytes_of(path: Path) -> bytes:
    with dataset_of(path) as source:
        return path.read_bytes()[source.offset :]


@pytest.mark.parametrize("tls", [False, True])
def test_storescp_gets_every_byte(tmp_path: Path, ct_series: Series, ca: TestCA, tls: bool) -> None:
    paths = [*ct_series(5, rows=256), *ct_series(5, rows=256, seed=2, j2k=True)]
    context = client_context(ca.issue("gateway")) if tls else None
    with storescp(tmp_path / "received", tls=ca.issue("storescp") if tls else None) as peer:
        with request(peer.port, contexts_of(paths) + VERIFICATION_CONTEXTS, tls=context) as association:
            association.echo()
            assert [send(association, path) for path in paths] == [0x0000] * 10
        received = wait_until(lambda: len(peer.received()) == 10 and peer.received(), "ten instances in storescp")
    for path in paths:
        assert bytes_of(received[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID]) == bytes_of(path)


def test_storescp_that_refuses(tmp_path: Path) -> None:
    with storescp(tmp_path / "received", "--refuse") as peer, pytest.raises(AssociationRejected, match="no reason given") as caught:
        request(peer.port, VERIFICATION_CONTEXTS)
    assert not caught.value.retryable


@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
def test_storescp_that_aborts(tmp_path: Path, ct_series: Series, option: str) -> None:
    paths = ct_series(2, rows=512)
    with storescp(tmp_path / "received", option) as peer:
        with request(peer.port, contexts_of(paths)) as association, pytest.raises(AssociationAborted):
            for path in paths:
                send(association, path)
        with pytest.raises(AssociationAborted):
            send(association, paths[0])


def test_storescp_that_sleeps_is_waited_for_or_not(tmp_path: Path, ct_series: Series) -> None:
    (path,) = ct_series(1)
    with storescp(tmp_path / "received", "--sleep-during", "1") as peer:
        with request(peer.port, contexts_of([path])) as association:
            assert send(association, path) == 0x0000
        deadlines = hasty(response_s=0.5)
        with request(peer.port, contexts_of([path]), deadlines=deadlines) as association, pytest.raises(PeerTimeout):
            send(association, path)


def test_a_stopped_storescp_is_given_up_in_time(tmp_path: Path, ct_series: Series) -> None:
    paths = ct_series(20, rows=512)
    with storescp(tmp_path / "received") as peer:
        deadlines = hasty(send_s=1.0, response_s=1.0, release_s=0.5)
        with request(peer.port, contexts_of(paths), deadlines=deadlines) as association:
            assert send(association, paths[0]) == 0x0000
            peer.process.freeze()
            with pytest.raises(PeerTimeout):
                for path in paths:
                    send(association, path)
            peer.process.thaw()


def test_as_many_contexts_as_there_may_be(tmp_path: Path) -> None:
    with storescp(tmp_path / "received") as peer:
        for contexts in plan_contexts((sop_class, "1.2.840.10008.1.2.1") for sop_class in STORAGE_SOP_CLASSES):
            with request(peer.port, contexts) as association:
                assert len(association.accepted) + len(association.refused) == len(contexts)
                assert association.accepted


def study_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def keys(level: str, **values: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


def test_dcmqrscp_lists_and_moves(tmp_path: Path, ct_series: Series) -> None:
    paths = ct_series(7)
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}
    with (
        storescp(tmp_path / "received") as target,
        dcmqrscp(tmp_path / "archive", hosts={"TARGET": ("127.0.0.1", target.port)}, files=paths) as archive,
    ):
        with request(archive.port, QUERY_RETRIEVE_CONTEXTS, ae_title="ARCHIVE") as association:
            association.echo()
            (study,) = association.find(keys("STUDY", StudyInstanceUID="", PatientName=""))
            assert study.StudyInstanceUID == study_of(paths[0])
            (series,) = association.find(keys("SERIES", StudyInstanceUID=study.StudyInstanceUID, SeriesInstanceUID=""))
            level = {"StudyInstanceUID": study.StudyInstanceUID, "SeriesInstanceUID": series.SeriesInstanceUID}
            assert {match.SOPInstanceUID for match in association.find(keys("IMAGE", SOPInstanceUID="", **level))} == uids
            asked = keys("STUDY", StudyInstanceUID=study.StudyInstanceUID)
            responses = list(association.move(asked, destination_ae="TARGET", message_id=next_message_id()))
        assert responses[-1].final
        assert (responses[-1].status, responses[-1].completed) == (0x0000, 7)
        assert any(not response.final for response in responses)
        wait_until(lambda: set(target.received()) == uids, "the study in storescp")


def test_dcmqrscp_says_what_is_wrong(tmp_path: Path, ct_series: Series) -> None:
    paths = ct_series(3)
    with (
        dcmqrscp(tmp_path / "archive", hosts={"DEAD": ("127.0.0.1", free_port())}, files=paths) as archive,
        request(archive.port, STUDY_ROOT_CONTEXTS, ae_title="ARCHIVE") as association,
    ):
        asked = keys("STUDY", StudyInstanceUID=study_of(paths[0]))
        *_, unknown = association.move(asked, destination_ae="NOBODY", message_id=next_message_id())
        assert unknown.status == 0xA801
        *_, dead = association.move(asked, destination_ae="DEAD", message_id=next_message_id())
        assert (dead.status, dead.failed, len(dead.failed_uids)) == (0xA702, 3, 3)
        assert list(association.find(keys("STUDY", StudyInstanceUID="1.2.3.4.5"))) == []


def test_a_move_is_ended_from_another_thread_while_the_source_is_stopped(tmp_path: Path, ct_series: Series) -> None:
    paths = ct_series(3)
    with (
        storescp(tmp_path / "received", "--sleep-during", "1") as target,
        dcmqrscp(tmp_path / "archive", hosts={"TARGET": ("127.0.0.1", target.port)}, files=paths) as archive,
    ):
        association = request(archive.port, STUDY_ROOT_CONTEXTS, ae_title="ARCHIVE")
        killer = threading.Timer(1.0, association.kill)
        killer.start()
        target.process.freeze()
        with pytest.raises(AssociationAborted):
            list(association.move(keys("STUDY", StudyInstanceUID=study_of(paths[0])), destination_ae="TARGET", message_id=3))
        target.process.thaw()
        killer.join()
        association.abort()


@pytest.mark.parametrize("tls", [False, True])
def test_orthanc_stores_lists_moves_and_commits(tmp_path: Path, ct_series: Series, ca: TestCA, tls: bool) -> None:
    paths = ct_series(4)
    study = study_of(paths[0])
    heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    context = client_context(ca.issue("gateway")) if tls else None
    with storescp(tmp_path / "received", tls=ca.issue("storescp") if tls else None) as target:
        modalities = {"TARGET": ("127.0.0.1", target.port), "GATEWAY": ("127.0.0.1", free_port())}
        with orthanc(tmp_path / "orthanc", modalities=modalities, tls=ca.issue("orthanc") if tls else None) as peer:
            if tls:
                peer.add_modality("target", "TARGET", target.port, UseDicomTls=True)
            contexts = contexts_of(paths) + QUERY_RETRIEVE_CONTEXTS + COMMITMENT_CONTEXTS
            with request(peer.port, contexts, ae_title="ORTHANC", tls=context) as association:
                association.echo()
                assert [send(association, path) for path in paths] == [0x0000] * 4
                assert peer.count() == 4
                level = {"StudyInstanceUID": study, "SeriesInstanceUID": str(heads[0].SeriesInstanceUID), "SOPInstanceUID": ""}
                found = {match.SOPInstanceUID for match in association.find(keys("IMAGE", **level))}
                assert found == {head.SOPInstanceUID for head in heads}
                references = [InstanceReference(str(head.SOPClassUID), str(head.SOPInstanceUID)) for head in heads]
                association.request_commitment("1.2.3.4.99", references)
                asked = keys("STUDY", StudyInstanceUID=study)
                *pending, final = association.move(asked, destination_ae="TARGET", message_id=next_message_id())
            assert (final.status, final.completed) == (0x0000, 4)
            assert all(not response.final for response in pending)
            wait_until(lambda: len(target.received()) == 4, "the study in storescp")


def test_orthanc_says_that_it_has_no_room(tmp_path: Path, ct_series: Series) -> None:
    paths = ct_series(3, rows=512)
    settings = {"MaximumStorageSize": 1, "MaximumStorageMode": "Reject"}
    with orthanc(tmp_path / "orthanc", **settings) as peer, request(peer.port, contexts_of(paths)) as association:
        assert {send(association, path) for path in paths} >= {0xA700}


def test_orthanc_takes_no_certificate_of_another_authority(tmp_path: Path, ca: TestCA) -> None:
    stranger = TestCA(tmp_path / "stranger")
    context = client_context({**stranger.issue("gateway"), "ca": ca.ca})
    with orthanc(tmp_path / "orthanc", tls=ca.issue("orthanc")) as peer, pytest.raises(TlsFailed):
        request(peer.port, VERIFICATION_CONTEXTS, tls=context)


def test_orthanc_fails_a_find_at_an_unknown_level(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc") as peer, request(peer.port, STUDY_ROOT_CONTEXTS) as association, pytest.raises(DimseFailed):
        list(association.find(keys("NONSENSE", StudyInstanceUID="")))
