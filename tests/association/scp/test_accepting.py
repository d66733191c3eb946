"""The acceptor with peers that follow the standard: stock pynetdicom as SCU, and by hand where that hides too much."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from gateway.association.dimse.commitment import FailedReference, InstanceReference
from gateway.association.dimse.services import StoreRequest
from gateway.association.scp.acceptor import Acceptor, Limits, ListenerSpec
from gateway.association.scp.service_classes import usual
from gateway.core.errors import Refusal
from tests.support.accepting import Accepting, Anyone, Commitment, Storage, Stored, accepting
from tests.support.ports import HOST
from tests.support.raw import (
    ABORT,
    ASSOCIATE_RJ,
    C_STORE_RQ,
    CT,
    EXPLICIT_LE,
    IMPLICIT_LE,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Ended,
    RawRequestor,
    command_set,
    pdu,
    pdv,
)
from tests.support.waiting import PATIENCE_S, wait_until

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"


@pytest.fixture
def gateway() -> Iterator[Accepting]:
    with accepting() as running:
        yield running


@contextmanager
def scu(port: int, *contexts: str, roles: bool = False) -> Iterator[Association]:
    ae = AE("SCU")
    for context in contexts:
        ae.add_requested_context(context, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    negotiation = [build_role(StorageCommitmentPushModel, scp_role=True)] if roles else []
    association = ae.associate(HOST, port, ae_title="GATEWAY", ext_neg=negotiation)  # type: ignore[arg-type]
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def instance(uid: str = "1.2.3.4", *, size: int = 1000) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID, data.PatientID = CTImageStorage, uid, "P"
    data.add_new(0x7FE00010, "OW", bytes(size))
    return data


def test_c_echo_is_answered_as_often_as_it_is_asked(gateway: Accepting) -> None:
    with scu(gateway.port, Verification) as association:
        assert [association.send_c_echo().Status for _ in range(5)] == [0] * 5


def test_an_instance_reaches_the_service_byte_for_byte_with_what_names_it(gateway: Accepting) -> None:
    content = random.Random(3).randbytes(700_001)
    with RawRequestor(gateway.port, calling="MODALITY") as peer:
        assert peer.store("1.2.3", content, message_id=77, move_originator_ae="ASKED", move_originator_message_id=9) == 0
    (stored,) = gateway.storage.committed
    assert stored.data_set == content
    assert stored.request == StoreRequest(77, CT, "1.2.3", EXPLICIT_LE, "ASKED", 9)
    assert (stored.association.calling_ae, stored.association.called_ae, stored.association.address) == (
        "MODALITY",
        "GATEWAY",
        HOST,
    )


def test_pynetdicom_stores_many_instances_on_one_association(gateway: Accepting) -> None:
    with scu(gateway.port, CTImageStorage) as association:
        statuses = [association.send_c_store(instance(f"1.2.{number}", size=300_000)).Status for number in range(5)]
    assert statuses == [0] * 5
    assert [stored.request.sop_instance_uid for stored in gateway.storage.committed] == [f"1.2.{number}" for number in range(5)]


def test_associations_are_told_apart(gateway: Accepting) -> None:
    with RawRequestor(gateway.port) as one, RawRequestor(gateway.port) as other:
        one.store("1.2.1", b"data")
        other.store("1.2.2", b"data")
        assert gateway.acceptor.association_count == 2
    first, second = gateway.storage.committed
    assert first.association.id != second.association.id


def test_an_empty_data_set_is_left_to_the_service(gateway: Accepting) -> None:
    with RawRequestor(gateway.port) as peer:
        assert peer.store("1.2.3", b"") == 0
    assert gateway.storage.committed[0].writes == 0


@pytest.mark.parametrize("status", [0xA700, 0xB000, 0x0117, 0xC123])
def test_the_services_status_is_the_peers_answer(gateway: Accepting, status: int) -> None:
    gateway.storage.on_commit = lambda _stored: status
    with RawRequestor(gateway.port) as peer:
        assert peer.store("1.2.3", b"data") == status


def refuse(*_: object) -> int:
    raise Refusal(0xA700, "no room")


def break_down(*_: object) -> int:
    raise ZeroDivisionError("with a patient's name")


@pytest.mark.parametrize("where", ["on_receive", "on_write", "on_commit"])
@pytest.mark.parametrize(("what", "status"), [(refuse, 0xA700), (break_down, 0x0110)])
def test_a_service_that_fails_costs_the_instance_and_not_the_association(
    gateway: Accepting, where: str, what: object, status: int
) -> None:
    works = getattr(gateway.storage, where)
    with RawRequestor(gateway.port) as peer:
        setattr(gateway.storage, where, what)
        assert peer.store("1.2.1", bytes(3_000_000)) == status
        setattr(gateway.storage, where, works)
        assert peer.store("1.2.2", b"data") == 0
    assert gateway.storage.instances[-1].request.sop_instance_uid == "1.2.2"
    assert all(stored.state != "open" for stored in gateway.storage.instances)


def test_a_failing_service_says_nothing_of_what_it_held(gateway: Accepting, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.storage.on_commit = break_down
    with RawRequestor(gateway.port) as peer:
        peer.store("1.2.1", b"data")
    printed = "".join(capsys.readouterr())
    assert "ZeroDivisionError" in printed
    assert "patient" not in printed


def event() -> Dataset:
    data = Dataset()
    data.TransactionUID = "1.2.9"
    return data


def test_commitment_is_reported_on_an_association_of_the_reporters(gateway: Accepting) -> None:
    reported = event()
    good, bad = Dataset(), Dataset()
    good.ReferencedSOPClassUID, good.ReferencedSOPInstanceUID = CT, "1.2.1"
    bad.ReferencedSOPClassUID, bad.ReferencedSOPInstanceUID, bad.FailureReason = CT, "1.2.2", 0x0112
    reported.ReferencedSOPSequence, reported.FailedSOPSequence = [good], [bad]
    with scu(gateway.port, StorageCommitmentPushModel, roles=True) as association:
        status, _ = association.send_n_event_report(reported, 2, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
    assert status.Status == 0
    (report,) = gateway.commitment.reports
    assert report.transaction_uid == "1.2.9"
    assert report.committed == (InstanceReference(CT, "1.2.1"),)
    assert report.failed == (FailedReference(CT, "1.2.2", 0x0112),)


@pytest.mark.parametrize(("what", "status"), [(lambda _: 0, 0), (refuse, 0xA700), (break_down, 0x0110)])
def test_the_commitment_services_status_is_the_reporters_answer(gateway: Accepting, what: object, status: int) -> None:
    gateway.commitment.on_report = what  # type: ignore[assignment]
    with scu(gateway.port, StorageCommitmentPushModel, roles=True) as association:
        answer, _ = association.send_n_event_report(event(), 1, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
    assert answer.Status == status


def test_an_event_that_the_standard_does_not_know_is_refused(gateway: Accepting) -> None:
    with scu(gateway.port, StorageCommitmentPushModel, roles=True) as association:
        answer, _ = association.send_n_event_report(event(), 3, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
    assert answer.Status == 0x0113
    assert not gateway.commitment.reports


CONTEXTS = ((1, CT, (EXPLICIT_LE,)), (3, VERIFICATION, (IMPLICIT_LE,)), (5, "1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT_LE,)))


@pytest.mark.parametrize(
    ("context_id", "operation", "status"),
    [
        (1, 0x0020, 0x0211),
        (1, 0x0021, 0x0211),
        (3, 0x0140, 0x0211),
        (1, 0x0777, 0x0211),
        (1, 0x0030, 0x0122),
        (3, C_STORE_RQ, 0x0122),
        (1, 0x0100, 0x0122),
    ],
)
def test_what_is_not_served_is_refused_and_its_data_set_read(
    gateway: Accepting, context_id: int, operation: int, status: int
) -> None:
    request = command_set(affected_sop_class=CT, command_field=operation, message_id=5, data_set_type=1)
    with RawRequestor(gateway.port, contexts=CONTEXTS) as peer:
        peer.send(pdu(P_DATA, pdv(context_id, request, command=True, last=True)))
        for part in peer.fragments([bytes(200_000)], context_id=context_id):
            peer.send(part)
        assert peer.response() == status
        assert peer.store("1.2.3", b"data") == 0


def test_a_cancel_is_passed_over(gateway: Accepting) -> None:
    cancel = command_set(command_field=0x0FFF, responded_message_id=5, data_set_type=0x0101)
    with RawRequestor(gateway.port) as peer:
        peer.send(pdu(P_DATA, pdv(1, cancel, command=True, last=True)))
        assert peer.store("1.2.3", b"data") == 0


def last_pdu(peer: RawRequestor) -> tuple[int, bytes] | None:
    """Return the last PDU that comes before the connection ends."""
    last = None
    try:
        while True:
            last = peer.receive()
    except Ended:
        return last


@pytest.mark.parametrize("context_id", [5, 7, 2, 0, 255])
def test_a_message_in_a_context_that_was_not_accepted_is_an_abort(gateway: Accepting, context_id: int) -> None:
    with closing(RawRequestor(gateway.port, contexts=CONTEXTS)) as peer:
        peer.send(peer.request("1.2.3", context_id=context_id) + b"".join(peer.fragments([b"data"], context_id=context_id)))
        assert last_pdu(peer) == (ABORT, bytes([0, 0, 2, 6]))
    assert not gateway.storage.instances


def test_a_response_that_nobody_waits_for_is_an_abort(gateway: Accepting) -> None:
    answer = command_set(affected_sop_class=CT, command_field=0x8001, responded_message_id=1, data_set_type=0x0101, status=0)
    with closing(RawRequestor(gateway.port)) as peer:
        peer.send(pdu(P_DATA, pdv(1, answer, command=True, last=True)))
        assert (last_pdu(peer) or (0, b""))[0] == ABORT


def test_release_is_answered_and_the_connection_closed(gateway: Accepting) -> None:
    with closing(RawRequestor(gateway.port)) as peer:
        peer.send(pdu(RELEASE_RQ, bytes(4)))
        assert peer.receive()[0] == RELEASE_RP
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(Ended):
            peer.receive()
    wait_until(lambda: gateway.acceptor.association_count == 0, "the association's end")


def test_an_idle_association_is_aborted_after_its_time() -> None:
    with accepting(Limits(idle_timeout_s=0.2)) as gateway, closing(RawRequestor(gateway.port)) as peer:
        assert last_pdu(peer) == (ABORT, bytes([0, 0, 2, 0]))


def test_called_by_another_name_we_reject(gateway: Accepting) -> None:
    with closing(RawRequestor(gateway.port, called="OTHER")) as peer:
        assert peer.reply == (ASSOCIATE_RJ, bytes([0, 1, 1, 7]))


def test_it_says_where_it_listens_and_stops_there() -> None:
    acceptor = Acceptor([ListenerSpec(HOST, 0), ListenerSpec(HOST, 0)], admission=Anyone(), services=usual(Storage(), Commitment()))
    acceptor.start()
    ports = [port for _, port in acceptor.endpoints]
    assert len(set(ports)) == 2
    for port in ports:
        with RawRequestor(port) as peer:
            assert peer.accepted
    acceptor.close()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port))


def test_an_ipv6_address_is_one_to_listen_on() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    admission = Anyone()
    acceptor = Acceptor([ListenerSpec("::1", 0)], admission=admission, services=usual(Storage(), Commitment()))
    acceptor.start()
    try:
        ae = AE("SCU")
        ae.add_requested_context(Verification)
        association = ae.associate("::1", acceptor.endpoints[0][1], ae_title="GATEWAY", bind_address=("::1", 0))
        assert association.is_established
        association.release()
    finally:
        acceptor.close()
    assert [caller[1] for caller in admission.callers] == ["::1"]


def test_a_port_that_is_taken_is_said_at_the_start() -> None:
    with socket.create_server((HOST, 0)) as taken:
        specs = [ListenerSpec(HOST, 0), ListenerSpec(HOST, taken.getsockname()[1])]
        acceptor = Acceptor(specs, admission=Anyone(), services=usual(Storage(), Commitment()))
        with pytest.raises(OSError, match="in use"):
            acceptor.start()
        acceptor.close()


def test_draining_ends_idle_associations_and_lets_messages_finish(gateway: Accepting) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_stored: Stored) -> int:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return 0

    gateway.storage.on_commit = slowly
    idle, busy = RawRequestor(gateway.port), RawRequestor(gateway.port)
    statuses: list[int] = []
    storing = threading.Thread(target=lambda: statuses.append(busy.store("1.2.3", b"data")))
    storing.start()
    assert begun.wait(PATIENCE_S)
    drained: list[bool] = []
    draining = threading.Thread(target=lambda: drained.append(gateway.acceptor.drain(10)))
    draining.start()
    assert last_pdu(idle) == (ABORT, bytes(4))
    with pytest.raises(ConnectionRefusedError):
        gateway.connect()
    go_on.set()
    storing.join(PATIENCE_S)
    assert statuses == [0]
    assert last_pdu(busy) == (ABORT, bytes(4))
    idle.close()
    busy.close()
    draining.join(PATIENCE_S)
    assert drained == [True]


def test_draining_aborts_what_does_not_finish_in_time(gateway: Accepting) -> None:
    with closing(RawRequestor(gateway.port)) as peer:
        peer.send(peer.request("1.2.3"))
        wait_until(lambda: gateway.storage.instances, "the beginning of an instance")
        assert gateway.acceptor.drain(0.2) is False
        assert last_pdu(peer) is None
    assert gateway.storage.discarded.wait(PATIENCE_S)
    assert not gateway.storage.committed
