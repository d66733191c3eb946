"""The requestor against pynetdicom's own SCPs, as they come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt

from gateway.association.dimse.commitment import InstanceReference
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, associate
from gateway.association.upper.contexts import (
    COMMITMENT_CONTEXTS,
    STORAGE_COMMITMENT,
    VERIFICATION_CONTEXTS,
    ProposedContext,
    plan_contexts,
)
from gateway.core.errors import AssociationAborted, AssociationRejected, DimseFailed, PeerTimeout
from tests.support import data
from tests.support.deadlines import PATIENT, hasty
from tests.support.proposals import QUERY_RETRIEVE_CONTEXTS
from tests.support.sources import dataset_of
from tests.support.waiting import PATIENCE_S

CT = "1.2.840.10008.5.1.4.1.1.2"

Handlers = list[tuple[evt.InterventionEvent, Callable[[evt.Event], object]]]


_endings: list[threading.Thread] = []
"""Its servers look for their end twice a second only; they end while other tests run."""


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    for ending in _endings:
        ending.join(PATIENCE_S)


@contextmanager
def stock_scp(handlers: Handlers, *, max_pdu_bytes: int = 16382, **settings: object) -> Iterator[int]:
    """A pynetdicom SCP for everything that we propose; yields its port."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    ae = AE(ae_title="STOCK")
    ae.maximum_pdu_size = max_pdu_bytes
    for context in (*QUERY_RETRIEVE_CONTEXTS, *COMMITMENT_CONTEXTS):
        ae.add_supported_context(context.abstract_syntax)
    ae.add_supported_context(CT, [ExplicitVRLittleEndian, JPEG2000Lossless])
    for key, value in settings.items():
        setattr(ae, key, value)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1]
    finally:
        ending = threading.Thread(target=server.shutdown)
        ending.start()
        _endings.append(ending)


def request(port: int, contexts: tuple[ProposedContext, ...], deadlines: Deadlines = PATIENT) -> Requestor:
    return associate(RemoteAE("STOCK", "127.0.0.1", port), "GATEWAY", contexts, deadlines=deadlines)


def test_an_echo() -> None:
    with stock_scp([]) as port, request(port, VERIFICATION_CONTEXTS) as association:
        for _ in range(20):
            association.echo()


@pytest.mark.parametrize("max_pdu_bytes", [0, 128, 16382, 131072])
def test_instances_arrive_byte_for_byte_in_either_syntax(tmp_path: Path, max_pdu_bytes: int) -> None:
    received: dict[str, tuple[bytes, str]] = {}

    def keep(event: evt.Event) -> int:
        received[event.request.AffectedSOPInstanceUID] = (event.request.DataSet.getvalue(), event.context.transfer_syntax)
        return 0x0000

    paths = [*data.ct_series(tmp_path / "plain", 3), *data.ct_series(tmp_path / "j2k", 3, seed=2, j2k=True)]
    (contexts,) = plan_contexts([(CT, str(ExplicitVRLittleEndian)), (CT, str(JPEG2000Lossless))])
    with stock_scp([(evt.EVT_C_STORE, keep)], max_pdu_bytes=max_pdu_bytes) as port, request(port, contexts) as association:
        for path in paths:
            head = pydicom.dcmread(path, stop_before_pixels=True)
            context = association.context_for(head.SOPClassUID, head.file_meta.TransferSyntaxUID)
            assert context is not None
            with dataset_of(path) as source:
                assert association.store(context, head.SOPInstanceUID, source).status == 0x0000
    for path in paths:
        head = pydicom.dcmread(path, stop_before_pixels=True)
        with dataset_of(path) as source:
            assert received[head.SOPInstanceUID] == (path.read_bytes()[source.offset :], head.file_meta.TransferSyntaxUID)


@pytest.mark.parametrize("status", [0xA700, 0xB007, 0x0111, 0x0117, 0xC211])
def test_a_status_of_the_handler(tmp_path: Path, status: int) -> None:
    (path,) = data.ct_series(tmp_path, 1)
    (contexts,) = plan_contexts([(CT, str(ExplicitVRLittleEndian))])
    with stock_scp([(evt.EVT_C_STORE, lambda event: status)]) as port, request(port, contexts) as association:
        for _ in range(2):
            with dataset_of(path) as source:
                assert association.store(association.accepted[0], "1.2.3", source).status == status


def test_an_abort_instead_of_a_response(tmp_path: Path) -> None:
    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    (path,) = data.ct_series(tmp_path, 1)
    (contexts,) = plan_contexts([(CT, str(ExplicitVRLittleEndian))])
    with (
        stock_scp([(evt.EVT_C_STORE, abort)]) as port,
        request(port, contexts) as association,
        dataset_of(path) as source,
        pytest.raises(AssociationAborted),
    ):
        association.store(association.accepted[0], "1.2.3", source)


def test_a_handler_that_takes_too_long(tmp_path: Path) -> None:
    over = threading.Event()

    def sleep(event: evt.Event) -> int:
        over.wait(PATIENCE_S)
        return 0x0000

    (path,) = data.ct_series(tmp_path, 1)
    (contexts,) = plan_contexts([(CT, str(ExplicitVRLittleEndian))])
    with stock_scp([(evt.EVT_C_STORE, sleep)]) as port:
        with (
            request(port, contexts, hasty(response_s=0.3)) as association,
            dataset_of(path) as source,
            pytest.raises(PeerTimeout),
        ):
            association.store(association.accepted[0], "1.2.3", source)
        over.set()


def matches(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    for number in range(300):
        if event.is_cancelled:
            yield 0xFE00, None
            return
        match = Dataset()
        match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", f"1.2.{number + 1}"
        match.SpecificCharacterSet, match.PatientName = "ISO_IR 192", "Grüße^Ωmega"
        yield 0xFF00 + number % 2, match


def wanted() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID, identifier.PatientName = "STUDY", "", "*"
    return identifier


def test_a_find_with_many_matches() -> None:
    with stock_scp([(evt.EVT_C_FIND, matches)]) as port, request(port, QUERY_RETRIEVE_CONTEXTS) as association:
        found = list(association.find(wanted()))
        association.echo()
    assert [match.StudyInstanceUID for match in found] == [f"1.2.{number + 1}" for number in range(300)]
    assert {str(match.PatientName) for match in found} == {"Grüße^Ωmega"}


def test_a_find_that_is_left_early() -> None:
    with stock_scp([(evt.EVT_C_FIND, matches)]) as port, request(port, QUERY_RETRIEVE_CONTEXTS) as association:
        for match in association.find(wanted()):
            assert match.StudyInstanceUID == "1.2.1"
            break
        association.echo()
        assert len(list(association.find(wanted()))) == 300


def test_a_find_that_fails() -> None:
    def fail(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xA700, None

    with (
        stock_scp([(evt.EVT_C_FIND, fail)]) as port,
        request(port, QUERY_RETRIEVE_CONTEXTS) as association,
        pytest.raises(DimseFailed, match="A700"),
    ):
        list(association.find(wanted()))


def test_a_move_to_nobody() -> None:
    def nobody(event: evt.Event) -> Iterator[object]:
        yield None, None

    with stock_scp([(evt.EVT_C_MOVE, nobody)]) as port, request(port, QUERY_RETRIEVE_CONTEXTS) as association:
        (response,) = association.move(wanted(), destination_ae="NOBODY", message_id=9)
    assert response.status == 0xA801


def test_a_commitment_request_is_understood() -> None:
    asked: list[Dataset] = []

    def take(event: evt.Event) -> tuple[int, None]:
        asked.append(event.action_information)
        return 0x0000, None

    with stock_scp([(evt.EVT_N_ACTION, take)]) as port, request(port, COMMITMENT_CONTEXTS) as association:
        association.request_commitment("1.2.99", [InstanceReference(CT, "1.2.3")])
        assert association.accepted[0].abstract_syntax == STORAGE_COMMITMENT
    assert (asked[0].TransactionUID, asked[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID) == ("1.2.99", "1.2.3")


@pytest.mark.parametrize(
    ("settings", "meaning"),
    [
        ({"require_called_aet": True, "ae_title": "OTHER"}, "called AE title not recognized"),
        ({"require_calling_aet": ["FRIEND"]}, "calling AE title not recognized"),
    ],
)
def test_a_rejection_for_good(settings: dict[str, object], meaning: str) -> None:
    with stock_scp([], **settings) as port, pytest.raises(AssociationRejected, match=meaning) as caught:
        request(port, VERIFICATION_CONTEXTS)
    assert not caught.value.retryable


def test_a_rejection_for_now() -> None:
    with stock_scp([], maximum_associations=1) as port, request(port, VERIFICATION_CONTEXTS) as first:
        with pytest.raises(AssociationRejected, match="local limit exceeded") as caught:
            request(port, VERIFICATION_CONTEXTS)
        first.echo()
    assert caught.value.retryable
