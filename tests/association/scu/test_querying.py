"""C-ECHO, C-FIND, C-MOVE and Storage Commitment as SCU, against peers that follow the standard and peers that do not."""

from __future__ import annotations

import struct
import threading

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.association.dimse.commitment import CommitmentReport, InstanceReference
from gateway.association.dimse.identifier import decode_identifier, encode_identifier
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, SubOperations, associate, next_message_id
from gateway.association.upper.contexts import (
    COMMITMENT_CONTEXTS,
    STORAGE_COMMITMENT_INSTANCE,
    STUDY_ROOT_FIND,
)
from gateway.core.errors import (
    AssociationAborted,
    AssociationEnded,
    DimseFailed,
    NoPresentationContext,
    PeerTimeout,
    ProtocolError,
    UnreadableAnswer,
)
from tests.support.certificates import TestCA
from tests.support.contexts import client_context, server_context
from tests.support.deadlines import PATIENT, hasty
from tests.support.proposals import PATIENT_ROOT_FIND, QUERY_RETRIEVE_CONTEXTS
from tests.support.scripted import Conversation, decode, encode, scripted_peer
from tests.support.waiting import PATIENCE_S

IMPLICIT = "1.2.840.10008.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
PENDING = 0xFF00


def request(port: int, deadlines: Deadlines = PATIENT) -> Requestor:
    contexts = QUERY_RETRIEVE_CONTEXTS + COMMITMENT_CONTEXTS
    return associate(RemoteAE("ARCHIVE", "127.0.0.1", port), "GATEWAY", contexts, deadlines=deadlines)


def study(uid: str = "1.2.3", **more: object) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = uid
    for keyword, value in more.items():
        setattr(identifier, keyword, value)
    return identifier


def test_an_echo_is_answered() -> None:
    seen: list[Dataset] = []

    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        seen.append(message.command)
        peer.answer(message, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.echo()
    assert (seen[0].CommandField, seen[0].AffectedSOPClassUID) == (0x0030, "1.2.840.10008.1.1")


def test_an_echo_that_fails_says_with_which_status() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0x0122)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        with pytest.raises(DimseFailed) as caught:
            association.echo()
        assert (caught.value.operation, caught.value.status) == ("C-ECHO", 0x0122)


@pytest.mark.parametrize("implicit", [False, True])
def test_matches_come_as_data_sets_with_their_character_sets(implicit: bool) -> None:
    matches = [
        study("1.2.3.1", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう", SpecificCharacterSet=["", "ISO 2022 IR 87"]),
        study("1.2.3.2", PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100"),
        study("1.2.3.3", PatientName="Ωmega", SpecificCharacterSet="ISO_IR 192"),
    ]
    asked: list[Dataset] = []

    def script(peer: Conversation) -> None:
        peer.accept(choose=lambda context: IMPLICIT if implicit else context.transfer_syntax[0])
        message = peer.read_message()
        assert message.data is not None
        asked.append(decode(message.data, implicit=implicit))
        for number, match in enumerate(matches):
            peer.answer(message, PENDING + number % 2, encode(match, implicit=implicit))
        peer.answer(message, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        found = list(association.find(study("", PatientName="*", SpecificCharacterSet="ISO_IR 192")))
    assert asked == [study("", PatientName="*", SpecificCharacterSet="ISO_IR 192")]
    assert found == matches
    assert [str(match.PatientName) for match in found] == [str(match.PatientName) for match in matches]


def test_matches_are_handed_on_one_at_a_time() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING, encode(study("1.1"), implicit=False))
        assert scripted.reached.wait(PATIENCE_S)
        peer.answer(message, PENDING, encode(study("1.2"), implicit=False), pdv_bytes=7)
        peer.answer(message, 0x0000)
        peer.release()

    with scripted_peer(script) as scripted, request(scripted.port) as association:
        matches = association.find(study(""))
        assert next(matches).StudyInstanceUID == "1.1"
        scripted.reached.set()
        assert [match.StudyInstanceUID for match in matches] == ["1.2"]


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0x0122, 0xFE00])
def test_a_find_that_fails_raises_after_its_matches(status: int) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING, encode(study("1.1"), implicit=False))
        peer.answer(message, status)
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        matches = association.find(study(""))
        assert next(matches).StudyInstanceUID == "1.1"
        with pytest.raises(DimseFailed) as caught:
            next(matches)
        assert caught.value.status == status
        association.echo()


def test_a_find_closed_early_is_cancelled_and_the_association_lives_on() -> None:
    cancelled: list[Dataset] = []

    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        for number in range(5):
            peer.answer(message, PENDING, encode(study(f"1.{number}"), implicit=False))
        cancel = peer.read_message()
        cancelled.append(cancel.command)
        assert cancel.command.MessageIDBeingRespondedTo == message.command.MessageID
        peer.answer(message, 0xFE00)
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        matches = association.find(study(""))
        next(matches)
        matches.close()  # type: ignore[attr-defined]
        association.echo()
    assert cancelled[0].CommandField == 0x0FFF


def test_one_operation_at_a_time() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING, encode(study("1.1"), implicit=False))
        peer.answer(message, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        matches = association.find(study(""))
        next(matches)
        with pytest.raises(RuntimeError, match="one operation at a time"):
            association.echo()
        assert list(matches) == []


def test_another_model_uses_its_own_context() -> None:
    used: list[int] = []

    def script(peer: Conversation) -> None:
        request = peer.accept()
        message = peer.read_message()
        definitions = {context.context_id: context.abstract_syntax for context in request.presentation_context_definition_list}
        assert definitions[message.context_id] == message.command.AffectedSOPClassUID == PATIENT_ROOT_FIND
        used.append(message.context_id)
        peer.answer(message, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert list(association.find(study(""), model=PATIENT_ROOT_FIND)) == []
    assert used


def test_what_was_not_accepted_is_not_asked() -> None:
    def script(peer: Conversation) -> None:
        peer.accept(refuse=lambda context: context.abstract_syntax == STUDY_ROOT_FIND)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(NoPresentationContext):
        list(association.find(study("")))


def test_a_pending_response_without_an_identifier_is_no_match() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING)
        peer.answer(message, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert list(association.find(study(""))) == []


NONSENSE = b"\x08\x00\x05\x00SQ\x00\x00\x10\x00\x00\x00abcdefg"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_unreadable_identifier_fails_and_the_association_lives_on() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING, NONSENSE)
        assert peer.read_message().command.CommandField == 0x0FFF
        peer.answer(message, 0xFE00)
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        with pytest.raises(UnreadableAnswer, match=f"@127.0.0.1:{peer.port}: answered C-FIND with .*cannot be read"):
            list(association.find(study("")))
        association.echo()


CUT = {
    "behind all that was asked for": (0x7FE00010, True),
    "behind it, private": (0x00291010, True),
    "before it": (0x00091010, False),
    "the one that was asked for": (0x0020000D, False),
}


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("length", [9, 200, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_answer_may_be_cut_only_behind_what_was_asked_for(implicit: bool, name: str, length: int) -> None:
    tag, read = CUT[name]
    header = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else b"OB\0\0") + struct.pack("<L", length)
    known = Dataset()
    if tag > 0x0020000D:
        known.StudyInstanceUID = "1.2.3"
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    data = encode_identifier(known, syntax) + header + b"12345678"
    if read:
        assert decode_identifier(data, syntax, {0x00080052, 0x0020000D}) == known
    else:
        with pytest.raises(ProtocolError, match="cannot be read"):
            decode_identifier(data, syntax, {0x00080052, 0x0020000D})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("nonsense", [NONSENSE, b"\xff" * 20, b""])
def test_a_failed_list_that_cannot_be_read_does_not_hide_the_status(nonsense: bytes) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0xB000, nonsense, NumberOfFailedSuboperations=3)
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert list(association.move(study(), destination_ae="GATEWAY", message_id=1)) == [SubOperations(0xB000, failed=3)]
        association.echo()


def test_an_endless_identifier_is_not_collected() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        command = Dataset()
        command.CommandField, command.MessageIDBeingRespondedTo = 0x8020, message.command.MessageID
        command.Status, command.AffectedSOPClassUID = PENDING, STUDY_ROOT_FIND
        peer.send_message(message.context_id, command, b"")
        while True:
            peer.send(b"\x04\x00\x00\x01\x00\x06\x00\x01\x00\x02" + bytes([message.context_id, 0]) + bytes(0x10000))

    def script_without_end(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        command = Dataset()
        command.CommandField, command.MessageIDBeingRespondedTo = 0x8020, message.command.MessageID
        command.Status, command.CommandDataSetType = PENDING, 1
        peer.send_fragments(message.context_id, encode(command), 1, 1 << 20)
        while True:
            peer.send(b"\x04\x00\x00\x01\x00\x06\x00\x01\x00\x02" + bytes([message.context_id, 0]) + bytes(0x10000))

    for endless in (script_without_end, script):
        with scripted_peer(endless) as peer, request(peer.port) as association, pytest.raises(ProtocolError):
            list(association.find(study("")))


def test_a_find_that_is_never_answered_is_given_up_in_time() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING, encode(study("1.1"), implicit=False))
        assert peer.until_gone() == [7]

    with scripted_peer(script) as peer, request(peer.port, hasty(response_s=0.5)) as association, pytest.raises(PeerTimeout):
        list(association.find(study("")))


def test_a_move_reports_every_response_and_its_counts() -> None:
    seen: list[Dataset] = []

    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        seen.append(message.command)
        peer.answer(
            message,
            PENDING,
            NumberOfRemainingSuboperations=2,
            NumberOfCompletedSuboperations=1,
            NumberOfFailedSuboperations=0,
            NumberOfWarningSuboperations=0,
        )
        peer.answer(message, PENDING)
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = ["1.2.3.8", "1.2.3.9"]
        counts = {"NumberOfCompletedSuboperations": 1, "NumberOfFailedSuboperations": 2, "NumberOfWarningSuboperations": 0}
        peer.answer(message, 0xB000, encode(failed, implicit=False), **counts)
        peer.release()

    message_id = next_message_id()
    with scripted_peer(script) as peer, request(peer.port) as association:
        responses = list(association.move(study(), destination_ae="GATEWAY", message_id=message_id))
    assert responses == [
        SubOperations(PENDING, remaining=2, completed=1, failed=0, warning=0),
        SubOperations(PENDING),
        SubOperations(0xB000, completed=1, failed=2, warning=0, failed_uids=("1.2.3.8", "1.2.3.9")),
    ]
    assert [response.final for response in responses] == [False, False, True]
    assert (seen[0].MessageID, seen[0].MoveDestination, seen[0].CommandField) == (message_id, "GATEWAY", 0x0021)


def failed_list(*uids: str) -> bytes:
    failed = Dataset()
    failed.FailedSOPInstanceUIDList = list(uids) if len(uids) != 1 else uids[0]
    return encode(failed, implicit=False)


@pytest.mark.parametrize("uids", [(), ("1.2.3.8",), ("1.2.3.8", "1.2.3.9")])
def test_the_failed_list_may_have_any_number_of_uids(uids: tuple[str, ...]) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0xB000, failed_list(*uids))
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        (response,) = association.move(study(), destination_ae="GATEWAY", message_id=1)
    assert response.failed_uids == uids


@pytest.mark.parametrize("status", [0x0000, 0xA701, 0xA702, 0xA801, 0xA900, 0xC000, 0xFE00, 0x0122])
def test_a_move_s_final_status_is_handed_on_not_raised(status: int) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), status)
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert list(association.move(study(), destination_ae="NOBODY", message_id=7)) == [SubOperations(status)]
        association.echo()


def test_a_quiet_move_waits_until_the_caller_kills_it() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING)
        scripted.stop.wait(1.5)  # far beyond response_s, which does not apply to a move
        scripted.reached.set()
        peer.until_gone()

    with scripted_peer(script) as scripted:
        association = request(scripted.port, hasty(response_s=0.3))
        responses = association.move(study(), destination_ae="GATEWAY", message_id=1)
        next(responses)
        killer = threading.Thread(target=lambda: scripted.reached.wait(PATIENCE_S) and association.kill())
        killer.start()
        with pytest.raises(AssociationAborted):
            next(responses)
        killer.join()


def test_a_move_may_have_a_deadline_for_each_response() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.read_message()
        peer.until_gone()

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(PeerTimeout):
        list(association.move(study(), destination_ae="GATEWAY", message_id=1, response_s=0.4))


def test_a_move_that_is_cancelled_still_gets_its_final_response() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING)
        cancel = peer.read_message()
        assert (cancel.command.CommandField, cancel.command.MessageIDBeingRespondedTo) == (0x0FFF, 77)
        assert cancel.context_id == message.context_id
        peer.answer(message, 0xFE00, NumberOfCompletedSuboperations=1)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        responses = association.move(study(), destination_ae="GATEWAY", message_id=77)
        next(responses)
        association.cancel(77)
        assert list(responses) == [SubOperations(0xFE00, completed=1)]


@pytest.mark.parametrize("tls", [False, True])
def test_another_thread_may_cancel_a_move_that_waits(ca: TestCA, tls: bool) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        message = peer.read_message()
        peer.answer(message, PENDING)
        scripted.reached.set()
        assert peer.read_message().command.MessageIDBeingRespondedTo == 78
        peer.answer(message, 0xFE00)
        peer.release()

    with scripted_peer(script, tls=server_context(ca.issue("peer")) if tls else None) as scripted:
        remote = RemoteAE("ARCHIVE", "127.0.0.1", scripted.port, tls=client_context(ca.issue("gateway")) if tls else None)
        with associate(remote, "GATEWAY", QUERY_RETRIEVE_CONTEXTS, deadlines=PATIENT) as association:
            responses = association.move(study(), destination_ae="GATEWAY", message_id=78)
            next(responses)
            canceller = threading.Thread(target=lambda: scripted.reached.wait(PATIENCE_S) and association.cancel(78))
            canceller.start()
            assert list(responses) == [SubOperations(0xFE00)]
            canceller.join()


def test_a_cancel_for_nothing_under_way_does_nothing() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.cancel(4)
        association.echo()


@pytest.mark.parametrize("end", ["abort", "close", "reset"])
def test_a_move_whose_association_ends_raises(end: str) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), PENDING)
        {"abort": peer.abort, "close": peer.connection.close, "reset": peer.reset}[end]()

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(AssociationAborted):
        list(association.move(study(), destination_ae="GATEWAY", message_id=1))


def report(transaction: str, event_type: int = 1) -> tuple[Dataset, bytes]:
    command = Dataset()
    command.AffectedSOPClassUID = "1.2.840.10008.1.20.1"
    command.CommandField, command.MessageID = 0x0100, 9
    command.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
    command.EventTypeID = event_type
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    event = Dataset()
    event.TransactionUID = transaction
    event.ReferencedSOPSequence = [item]
    return command, encode(event, implicit=False)


def commit_then(peer: Conversation, *steps: str) -> None:
    message = peer.read_message()
    assert (message.command.CommandField, message.command.ActionTypeID) == (0x0130, 1)
    assert message.command.RequestedSOPInstanceUID == STORAGE_COMMITMENT_INSTANCE
    assert message.data is not None
    asked = decode(message.data, implicit=False)
    assert [item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence] == ["1.2.3.4"]
    for step in steps:
        if step == "report":
            peer.send_message(message.context_id, *report(asked.TransactionUID))
            answer = peer.read_message()
            assert (answer.command.CommandField, answer.command.Status) == (0x8100, 0x0000)
            assert answer.command.MessageIDBeingRespondedTo == 9
        else:
            peer.answer(message, 0x0000)


@pytest.mark.parametrize("steps", [("answer", "report"), ("report", "answer")])
def test_a_commitment_report_is_answered_at_any_step_of_the_association(steps: tuple[str, ...]) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        commit_then(peer, *steps)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.request_commitment("1.2.99", [InstanceReference(CT, "1.2.3.4")])
        assert association.next_event(10.0) == CommitmentReport("1.2.99", (InstanceReference(CT, "1.2.3.4"),), ())


def test_a_commitment_request_may_be_refused() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0x0110)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(DimseFailed) as caught:
        association.request_commitment("1.2.99", [InstanceReference(CT, "1.2.3.4")])
    assert (caught.value.operation, caught.value.status) == ("N-ACTION", 0x0110)


def test_no_report_in_time_is_no_error() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        commit_then(peer, "answer")
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.request_commitment("1.2.99", [InstanceReference(CT, "1.2.3.4")])
        assert association.next_event(0.3) is None
        association.echo()


def test_a_peer_that_releases_instead_of_reporting_ends_the_wait() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        commit_then(peer, "answer")
        peer.ask_release()
        assert peer.read_pdu()[0] == 6

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.request_commitment("1.2.99", [InstanceReference(CT, "1.2.3.4")])
        with pytest.raises(AssociationEnded):
            association.next_event(10.0)


@pytest.mark.parametrize("end", ["abort", "close", "reset", "release"])
def test_the_next_operation_notices_that_the_peer_went_away(end: str) -> None:
    gone = threading.Event()

    def script(peer: Conversation) -> None:
        peer.accept()
        {"abort": peer.abort, "close": peer.connection.close, "reset": peer.reset, "release": peer.ask_release}[end]()
        gone.set()
        if end == "release":
            assert peer.read_pdu()[0] == 6

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert gone.wait(PATIENCE_S)
        with pytest.raises(AssociationEnded):
            association.echo()


def test_message_ids_are_unique_and_in_range() -> None:
    drawn = [next_message_id() for _ in range(65535)]
    assert sorted(drawn) == list(range(1, 65536))
    assert next_message_id() == drawn[0]


def test_no_patient_data_in_errors() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0xC001, ErrorComment="no study of DOE^JANE")
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(DimseFailed) as caught:
        list(association.find(study("", PatientName="DOE^JANE")))
    assert "DOE" not in str(caught.value)


def late(peer: Conversation, message: object, times: int = 1, **fields: object) -> None:
    for _ in range(times):
        peer.answer(message, 0x0000, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["idle", "asked"])
@pytest.mark.parametrize("times", [1, 7])
def test_a_response_after_the_final_one_is_passed_over(when: str, times: int) -> None:
    told, asked_again = threading.Event(), threading.Event()

    def script(peer: Conversation) -> None:
        peer.accept()
        move = peer.read_message()
        peer.answer(move, 0x0000)
        if when == "idle":
            late(peer, move, times, NumberOfCompletedSuboperations=3)
        told.set()
        find = peer.read_message()
        asked_again.set()
        if when == "asked":
            late(peer, move, times)
        peer.answer(find, PENDING, encode(study("1.2.3"), implicit=False))
        late(peer, move)
        peer.answer(find, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        list(association.move(study(), destination_ae="GATEWAY", message_id=next_message_id()))
        assert told.wait(PATIENCE_S)
        assert [str(match.StudyInstanceUID) for match in association.find(study())] == ["1.2.3"]
    assert asked_again.is_set()


def test_a_stray_response_while_idle_ends_the_association() -> None:
    told = threading.Event()

    def script(peer: Conversation) -> None:
        peer.accept()
        echo = peer.read_message()
        peer.answer(echo, 0x0000)
        peer.answer(echo, 0x0000, MessageIDBeingRespondedTo=4711)
        told.set()
        peer.until_gone()

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.echo()
        assert told.wait(PATIENCE_S)
        with pytest.raises(AssociationEnded, match="while idle"):
            list(association.find(study()))


def test_responses_without_end_to_what_was_answered_end_the_association() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        echo = peer.read_message()
        peer.answer(echo, 0x0000)
        peer.read_message()
        try:
            late(peer, echo, 1000)
        finally:
            peer.until_gone()

    with scripted_peer(script) as peer, request(peer.port) as association:
        association.echo()
        with pytest.raises(ProtocolError, match="more than 100"):
            list(association.find(study()))


def test_a_late_response_with_a_data_set_is_dropped_with_it() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        move = peer.read_message()
        peer.answer(move, 0x0000)
        find = peer.read_message()
        peer.answer(move, 0xB000, encode(study("9.9.9"), implicit=False))
        peer.answer(find, PENDING, encode(study("1.2.3"), implicit=False))
        peer.answer(find, 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        list(association.move(study(), destination_ae="GATEWAY", message_id=next_message_id()))
        assert [str(match.StudyInstanceUID) for match in association.find(study())] == ["1.2.3"]
