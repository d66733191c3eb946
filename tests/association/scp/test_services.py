"""Services of an acceptor: what is registered is accepted, asked and answered, and stops where the peer cancels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    Verification,
)

from gateway.association.dimse.command import CommandSet, Operation
from gateway.association.dimse.services import Limits, ListenerSpec
from gateway.association.scp.acceptor import Acceptor
from gateway.association.scp.service_classes import Request, Responses, Service, Services, service, usual, verification
from gateway.core.errors import Refusal
from tests.support.accepting import Anyone, Commitment, Storage
from tests.support.ports import HOST
from tests.support.raw import (
    ABORT,
    IMPLICIT_LE,
    P_DATA,
    Ended,
    RawRequestor,
    command_set,
    number,
    parse_command,
    pdu,
    pdv,
    words,
)

WORKLIST = str(ModalityWorklistInformationFind)
STEP = str(ModalityPerformedProcedureStep)
CONTEXTS = ((1, WORKLIST, (IMPLICIT_LE,)),)


@contextmanager
def acceptor(*services: Service) -> Iterator[int]:
    """Run an acceptor of `services` until the context ends; yields its port."""
    running = Acceptor([ListenerSpec(HOST, 0)], admission=Anyone(), services=services, limits=Limits())
    running.start()
    try:
        yield running.endpoints[0][1]
    finally:
        running.close()


@contextmanager
def scu(port: int, *contexts: str) -> Iterator[Association]:
    ae = AE("SCU")
    for context in contexts:
        ae.add_requested_context(context, [ExplicitVRLittleEndian])
    association = ae.associate(HOST, port, ae_title="GATEWAY")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def patient(name: str) -> Dataset:
    found = Dataset()
    found.PatientName = name
    return found


class Worklist:
    """A C-FIND service over `names`; `ended` says how its last generator ended."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.given = 0
        self.ended = ""
        self.asked: list[Dataset] = []

    def respond(self, request: Request) -> Responses:
        self.asked.append(request.data_set())
        self.ended = "early"
        for name in self.names:
            if name == "refuse":
                raise Refusal(0xA700, "no room")
            if name == "fail":
                raise ZeroDivisionError("with a patient's name")
            if name == "forget":
                return
            self.given += 1
            yield request.response(0xFF00, patient(name))
        self.ended = "whole"
        yield request.response(0x0000)

    def service(self) -> Service:
        return service(Operation.C_FIND, [WORKLIST], self.respond, name="worklist", max_data_bytes=65536)


def found(association: Association) -> list[tuple[int, str]]:
    answers = association.send_c_find(patient("*"), WORKLIST)
    return [(int(status.Status), str(match.PatientName) if match else "") for status, match in answers]


def test_a_find_service_is_asked_and_answers_match_by_match() -> None:
    worklist = Worklist("A", "B")
    with acceptor(verification(), worklist.service()) as port, scu(port, WORKLIST) as association:
        assert found(association) == [(0xFF00, "A"), (0xFF00, "B"), (0, "")]
        assert found(association) == [(0xFF00, "A"), (0xFF00, "B"), (0, "")]
    assert [str(asked.PatientName) for asked in worklist.asked] == ["*", "*"]


@pytest.mark.parametrize(("name", "status"), [("refuse", 0xA700), ("fail", 0x0110), ("forget", 0x0110)])
@pytest.mark.parametrize("before", [(), ("A", "B")])
def test_a_service_that_fails_costs_its_answer_alone(
    name: str, status: int, before: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    worklist = Worklist(*before, name)
    with acceptor(*usual(Storage(), Commitment()), worklist.service()) as port, scu(port, WORKLIST, Verification) as association:
        assert found(association) == [*((0xFF00, one) for one in before), (status, "")]
        assert association.send_c_echo().Status == 0
    assert "patient" not in "".join(capsys.readouterr())


def cancel(message_id: int) -> bytes:
    command = command_set(command_field=0x0FFF, responded_message_id=message_id, data_set_type=0x0101)
    return pdu(P_DATA, pdv(1, command, command=True, last=True))


def ask(message_id: int) -> bytes:
    request = command_set(affected_sop_class=WORKLIST, command_field=0x0020, message_id=message_id, data_set_type=1)
    return pdu(P_DATA, pdv(1, request, command=True, last=True) + pdv(1, b"", command=False, last=True))


def statuses(peer: RawRequestor, count: int) -> list[int]:
    """Return the statuses of the next responses, up to the first that is not pending, at most `count`."""
    got: list[int] = []
    for _, fragment, is_command, _ in peer.messages():
        if is_command:
            got.append(number(parse_command(fragment), "status"))
        if len(got) == count or (got and got[-1] != 0xFF00):
            break
    return got


def test_a_find_stops_at_c_cancel_and_the_association_goes_on() -> None:
    worklist = Worklist(*["A"] * 100_000)
    with acceptor(worklist.service()) as port, RawRequestor(port, contexts=CONTEXTS) as peer:
        peer.send(ask(7))
        assert statuses(peer, 1) == [0xFF00]
        peer.send(cancel(6) + cancel(7))
        assert statuses(peer, 200_000)[-1] == 0xFE00
        assert worklist.ended == "early"
        assert worklist.given < 100_000
        worklist.names = ()
        peer.send(ask(8))
        assert statuses(peer, 1) == [0]


def test_a_cancel_of_what_is_over_is_passed_over() -> None:
    worklist = Worklist("A")
    with acceptor(worklist.service()) as port, RawRequestor(port, contexts=CONTEXTS) as peer:
        for message_id in (1, 2):
            peer.send(ask(message_id))
            assert statuses(peer, 2) == [0xFF00, 0]
            peer.send(cancel(message_id))


def test_a_request_before_the_last_response_is_an_abort() -> None:
    worklist = Worklist(*["A"] * 100_000)
    with acceptor(worklist.service()) as port, closing(RawRequestor(port, contexts=CONTEXTS)) as peer:
        peer.send(ask(7) + ask(8))
        last = (0, b"")
        with pytest.raises(Ended):
            while True:
                last = peer.receive()
        assert last[0] == ABORT
    assert worklist.given < 100_000


def test_a_create_service_names_the_instance_that_it_made() -> None:
    def respond(request: Request) -> Responses:
        yield request.response(0, request.data_set(), CommandSet(AffectedSOPInstanceUID="1.2.3"))

    creating = service(Operation.N_CREATE, [STEP], respond, name="step", max_data_bytes=65536)
    with acceptor(creating) as port:
        with scu(port, STEP) as association:
            status, made = association.send_n_create(patient("A"), STEP)
        assert status.Status == 0
        assert str(made.PatientName) == "A"
        with RawRequestor(port, contexts=((1, STEP, (IMPLICIT_LE,)),)) as peer:
            request = command_set(affected_sop_class=STEP, command_field=0x0140, message_id=5, data_set_type=1)
            peer.send(pdu(P_DATA, pdv(1, request, command=True, last=True) + pdv(1, b"", command=False, last=True)))
            _, fragment, is_command, _ = next(peer.messages())
            assert is_command
            assert words(parse_command(fragment), "affected_sop_instance") == "1.2.3"


def test_only_registered_classes_are_accepted() -> None:
    ae = AE("SCU")
    for context in (WORKLIST, STEP, str(CTImageStorage), str(Verification)):
        ae.add_requested_context(context)
    with acceptor(verification(), Worklist().service()) as port:
        association = ae.associate(HOST, port, ae_title="GATEWAY")
        assert {str(context.abstract_syntax) for context in association.accepted_contexts} == {WORKLIST, str(Verification)}
        association.release()


def test_an_operation_of_another_service_is_refused_for_its_class() -> None:
    with acceptor(verification(), Worklist().service()) as port:
        contexts = ((1, WORKLIST, (IMPLICIT_LE,)), (3, str(Verification), (IMPLICIT_LE,)))
        asked = ((1, 0x0030, 0x0122), (3, 0x0020, 0x0122), (3, 0x0001, 0x0211), (1, 0x0100, 0x0211))
        with RawRequestor(port, contexts=contexts) as peer:
            for context_id, operation, status in asked:
                request = command_set(affected_sop_class=WORKLIST, command_field=operation, message_id=5, data_set_type=0x0101)
                peer.send(pdu(P_DATA, pdv(context_id, request, command=True, last=True)))
                assert statuses(peer, 1) == [status]


def test_two_services_for_the_same_requests_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"C_ECHO of 1\.2\.840\.10008\.1\.1"):
        Services([verification(), verification()])


def test_a_step_of_several_operations_is_one_class() -> None:
    def respond(request: Request) -> Responses:
        yield request.response(0)

    kinds = (Operation.N_CREATE, Operation.N_SET)
    services = Services(service(operation, [STEP], respond, name="step") for operation in kinds)
    assert services.classes.named == {STEP}
    assert not services.classes.storage
    assert services.find(Operation.N_SET, STEP) is not services.find(Operation.N_CREATE, STEP)
    assert services.find(Operation.N_GET, STEP) is None
