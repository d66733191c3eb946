"""C-GET as SCU: what comes on the association on which it was asked, from peers that follow the standard and peers that do not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pynetdicom.presentation import PresentationContext

from gateway.association.dimse.services import AssociationInfo, StoreRequest
from gateway.association.scu import dialogue
from gateway.association.scu.offers import GET_CONTEXT, offers
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, SubOperations, associate
from gateway.association.upper.contexts import STUDY_ROOT_GET
from gateway.association.upper.negotiation import J2K_FIRST
from gateway.core.errors import AssociationAborted, AssociationEnded, NoPresentationContext, PeerTimeout, ProtocolError, Refusal
from tests.support.accepting import Storage
from tests.support.deadlines import PATIENT, hasty
from tests.support.scripted import Conversation, Message, encode, scripted_peer
from tests.support.waiting import PATIENCE_S

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
J2K = "1.2.840.10008.1.2.4.90"
SOURCE = AssociationInfo("get-1", "ARCHIVE", "GATEWAY", "127.0.0.1", source="archive")
MESSAGE_ID = 77
PENDING = 0xFF00
CONTEXTS = offers([CT], (J2K, EXPLICIT))[0]


def request(port: int, deadlines: Deadlines = PATIENT) -> Requestor:
    return associate(RemoteAE("ARCHIVE", "127.0.0.1", port), "GATEWAY", CONTEXTS, deadlines=deadlines)


def study() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", "1.2.3"
    return identifier


def get(association: Requestor, storage: Storage) -> Iterator[SubOperations]:
    return association.get(study(), storage=storage, info=SOURCE, message_id=MESSAGE_ID)


def send(peer: Conversation, uid: str, data: bytes | None = b"data", *, context_id: int = 3, **fields: object) -> None:
    """Send a C-STORE-RQ as a sub-operation; its answer is still to be read."""
    command = Dataset()
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CT, uid
    command.CommandField, command.MessageID, command.Priority = 0x0001, 5, 0
    for keyword, value in fields.items():
        if value is None:
            del command[keyword]
        else:
            setattr(command, keyword, value)
    peer.send_message(context_id, command, data, pdv_bytes=1000)


def stored(peer: Conversation, uid: str, data: bytes | None = b"data", *, context_id: int = 3) -> int:
    """Send an instance and return the status that it is answered."""
    send(peer, uid, data, context_id=context_id)
    answer = peer.read_message()
    assert (answer.command.CommandField, answer.context_id) == (0x8001, context_id)
    assert (answer.command.MessageIDBeingRespondedTo, answer.command.AffectedSOPInstanceUID) == (5, uid)
    return int(answer.command.Status)


def asked(peer: Conversation, **how: object) -> Message:
    """Accept the association and read the C-GET."""
    peer.accept(**how)  # type: ignore[arg-type]
    message = peer.read_message()
    assert (message.command.CommandField, message.command.AffectedSOPClassUID) == (0x0010, STUDY_ROOT_GET)
    assert message.command.MessageID == MESSAGE_ID
    return message


def test_what_is_sent_on_the_association_is_stored_and_answered() -> None:
    long = bytes(range(256)) * 5000
    statuses: list[int] = []

    def script(peer: Conversation) -> None:
        message = asked(peer)
        statuses.append(stored(peer, "1.2.3.1", context_id=3))
        peer.answer(message, PENDING, NumberOfRemainingSuboperations=1, NumberOfCompletedSuboperations=1)
        statuses.append(stored(peer, "1.2.3.2", long, context_id=5))
        peer.answer(message, 0x0000, NumberOfCompletedSuboperations=2)
        peer.release()

    storage = Storage()
    with scripted_peer(script) as peer, request(peer.port) as association:
        responses = list(get(association, storage))

    assert responses == [SubOperations(PENDING, remaining=1, completed=1), SubOperations(0x0000, completed=2)]
    assert statuses == [0, 0]
    assert [bytes(one.data_set) for one in storage.committed] == [b"data", long]
    assert [one.request for one in storage.committed] == [
        StoreRequest(5, CT, "1.2.3.1", J2K, "GATEWAY", MESSAGE_ID),
        StoreRequest(5, CT, "1.2.3.2", EXPLICIT, "GATEWAY", MESSAGE_ID),
    ]
    assert {one.association for one in storage.committed} == {SOURCE}


def test_we_propose_to_be_the_scp_of_storage() -> None:
    roles: dict[str, tuple[bool, bool]] = {}

    def script(peer: Conversation) -> None:
        proposed = peer.accept()
        for item in proposed.user_information:
            if hasattr(item, "scp_role"):
                roles[str(item.sop_class_uid)] = (bool(item.scu_role), bool(item.scp_role))
        peer.release()

    with scripted_peer(script) as peer, request(peer.port):
        pass
    assert roles == {CT: (False, True)}


@pytest.mark.parametrize("status", [0xA700, 0x0110])
def test_a_refused_instance_is_answered_with_its_status_and_others_come(status: int) -> None:
    statuses: list[int] = []

    def script(peer: Conversation) -> None:
        message = asked(peer)
        statuses.extend(stored(peer, f"1.2.3.{number}") for number in range(3))
        peer.answer(message, 0xB000, NumberOfCompletedSuboperations=2, NumberOfFailedSuboperations=1)
        peer.release()

    def refuse(wanted: StoreRequest) -> None:
        if wanted.sop_instance_uid == "1.2.3.1":
            raise Refusal(status, "no room") if status == 0xA700 else ValueError("secret")

    storage = Storage()
    storage.on_receive = refuse
    with scripted_peer(script) as peer, request(peer.port) as association:
        responses = list(get(association, storage))
    assert statuses == [0, status, 0]
    assert responses[-1].failed == 1
    assert [one.request.sop_instance_uid for one in storage.committed] == ["1.2.3.0", "1.2.3.2"]


def test_a_uid_that_is_none_is_refused_before_anyone_sees_it() -> None:
    statuses: list[int] = []

    def script(peer: Conversation) -> None:
        message = asked(peer)
        send(peer, "1.2.*")
        statuses.append(int(peer.read_message().command.Status))
        peer.answer(message, 0xB000)
        peer.release()

    storage = Storage()
    with scripted_peer(script) as peer, request(peer.port) as association:
        list(get(association, storage))
    assert (statuses, storage.instances) == ([0x0117], [])


@pytest.mark.parametrize("refused", ["get", "storage"])
def test_what_cannot_bring_anything_is_not_asked(refused: str) -> None:
    def refuse(context: PresentationContext) -> bool:
        return (context.abstract_syntax == STUDY_ROOT_GET) is (refused == "get")

    def script(peer: Conversation) -> None:
        peer.accept(refuse=refuse)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(NoPresentationContext):
        list(get(association, Storage()))


def test_a_cancelled_get_ends_between_two_instances() -> None:
    storage = Storage()
    cancelled: list[Dataset] = []

    def script(peer: Conversation) -> None:
        message = asked(peer)
        stored(peer, "1.2.3.1")
        peer.answer(message, PENDING)
        cancel = peer.read_message()
        cancelled.append(cancel.command)
        assert cancel.context_id == message.context_id
        # One more was on its way.
        stored(peer, "1.2.3.2")
        peer.answer(message, 0xFE00, NumberOfCompletedSuboperations=2)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        responses = get(association, storage)
        next(responses)
        association.cancel(MESSAGE_ID)
        assert [response.status for response in responses] == [0xFE00]
    assert (cancelled[0].CommandField, cancelled[0].MessageIDBeingRespondedTo) == (0x0FFF, MESSAGE_ID)
    assert len(storage.committed) == 2


def test_a_get_that_is_left_early_takes_what_still_comes() -> None:
    storage = Storage()

    def script(peer: Conversation) -> None:
        message = asked(peer)
        peer.answer(message, PENDING)
        assert peer.read_message().command.CommandField == 0x0FFF
        stored(peer, "1.2.3.2")
        peer.answer(message, 0xFE00)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        responses = get(association, storage)
        next(responses)
        responses.close()  # type: ignore[attr-defined]
    assert len(storage.committed) == 1


def test_who_goes_on_sending_after_a_get_was_left_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "CANCEL_S", 0.5)

    def script(peer: Conversation) -> None:
        message = asked(peer)
        peer.answer(message, PENDING)
        while True:
            send(peer, "1.2.3.2")
            peer.read_pdu()

    with scripted_peer(script) as peer:
        association = request(peer.port)
        responses = get(association, Storage())
        next(responses)
        responses.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["before", "within", "between"])
def test_kill_ends_it_at_once_and_half_an_instance_is_discarded(where: str) -> None:
    storage, reached = Storage(), threading.Event()

    def script(peer: Conversation) -> None:
        asked(peer)
        if where == "between":
            stored(peer, "1.2.3.1")
        if where == "within":
            command = Dataset()
            command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CT, "1.2.3.1"
            command.CommandField, command.MessageID, command.CommandDataSetType = 0x0001, 5, 1
            peer.send_fragments(3, encode(command), 1, 1 << 20)
        reached.set()
        peer.until_gone()

    with scripted_peer(script) as peer:
        association = request(peer.port)

        def kill() -> None:
            assert reached.wait(PATIENCE_S)
            association.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(AssociationAborted):
            list(get(association, storage))
        killer.join()
    assert [one.state for one in storage.instances if one.state != "committed"] in ([], ["discarded"])
    assert len(storage.committed) == (where == "between")


def test_messages_that_come_together_are_served_one_after_the_other() -> None:
    """A peer need not wait for our answers to speak."""

    def script(peer: Conversation) -> None:
        message = asked(peer)
        together = bytearray()
        peer.send = together.extend  # type: ignore[method-assign]
        send(peer, "1.2.3.1")
        send(peer, "1.2.3.2")
        peer.answer(message, 0x0000)
        peer.connection.sendall(together)
        del peer.send
        assert [peer.read_message().command.CommandField for _ in range(2)] == [0x8001, 0x8001]
        peer.release()

    storage = Storage()
    with scripted_peer(script) as peer, request(peer.port) as association:
        assert [response.status for response in get(association, storage)] == [0x0000]
    assert len(storage.committed) == 2


def test_an_instance_that_does_not_end_is_given_up_in_time_and_discarded() -> None:
    def script(peer: Conversation) -> None:
        asked(peer)
        command = Dataset()
        command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CT, "1.2.3.1"
        command.CommandField, command.MessageID, command.CommandDataSetType = 0x0001, 5, 1
        peer.send_fragments(3, encode(command), 1, 1 << 20)
        assert peer.until_gone() in ([7], [])

    storage = Storage()
    with scripted_peer(script) as peer, request(peer.port, hasty(response_s=0.5)) as association, pytest.raises(PeerTimeout):
        list(get(association, storage))
    assert [one.state for one in storage.instances] == ["discarded"]


@pytest.mark.parametrize("wrong", ["context of the C-GET", "context that is none", "no Message ID", "C-ECHO", "another response"])
def test_what_may_not_come_ends_the_association(wrong: str) -> None:
    def script(peer: Conversation) -> None:
        message = asked(peer)
        match wrong:
            case "context of the C-GET":
                send(peer, "1.2.3.1", context_id=message.context_id)
            case "context that is none":
                send(peer, "1.2.3.1", context_id=99)
            case "no Message ID":
                send(peer, "1.2.3.1", MessageID=None)
            case "C-ECHO":
                send(peer, "1.2.3.1", None, CommandField=0x0030)
            case _:
                peer.answer(message, 0x0000, MessageIDBeingRespondedTo=MESSAGE_ID + 1)
        assert peer.until_gone() == [7]

    storage = Storage()
    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(ProtocolError):
        list(get(association, storage))
    assert storage.committed == []


def test_nothing_is_stored_where_nothing_was_asked() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        send(peer, "1.2.3.1")
        assert peer.until_gone() == [7]

    with scripted_peer(script) as peer:
        association = request(peer.port)
        # It may come before or after the waiting begins.
        with pytest.raises((ProtocolError, AssociationEnded)):
            association.next_event(10.0)


def test_the_contexts_of_a_get_begin_with_its_own() -> None:
    assert all(offer[0] == GET_CONTEXT for offer in offers(None, J2K_FIRST))
