"""C-STORE as SCU: what goes over the wire, what comes back, and every way in which no answer comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.association.dimse.statuses import store_status
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, StoreResponse, associate
from gateway.association.upper.contexts import AcceptedContext, ProposedContext
from gateway.core.domain import StatusClass
from gateway.core.errors import AssociationAborted, AssociationEnded, PeerTimeout, ProtocolError
from tests.support.deadlines import PATIENT, hasty
from tests.support.scripted import Conversation, Message, scripted_peer
from tests.support.sources import source_of
from tests.support.waiting import PATIENCE_S

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def request(port: int, deadlines: Deadlines = PATIENT) -> Requestor:
    return associate(RemoteAE("PEER", "127.0.0.1", port), "GATEWAY", [ProposedContext(CT, (EXPLICIT,))], deadlines=deadlines)


def store(association: Requestor, folder: Path, data: bytes = b"\x01" * 1000, **more: object) -> StoreResponse:
    with source_of(data, folder, offset=333) as source:
        return association.store(association.accepted[0], "1.2.3.4", source, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "status",
    [0x0000, 0xB000, 0xB006, 0xB007, 0x0111, 0xA700, 0xA900, 0xC000, 0x0110, 0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212],
)
def test_the_peer_s_status_is_handed_back_as_it_is(tmp_path: Path, status: int) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), status)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        response = store(association, tmp_path)
    assert response.status == status
    assert (store_status(response.status).status_class is StatusClass.DONE) is (status == 0)


@pytest.mark.parametrize("length", [0, 2, 998, 1000, 1_048_576, 5_000_002])
@pytest.mark.parametrize("max_pdu_bytes", [0, 16384, 131072, 1 << 24])
def test_the_bytes_arrive_as_they_are_in_pdus_that_the_peer_can_take(tmp_path: Path, length: int, max_pdu_bytes: int) -> None:
    data = os.urandom(length)
    messages: list[Message] = []

    def script(peer: Conversation) -> None:
        peer.accept(max_pdu_bytes=max_pdu_bytes)
        for _ in range(2):
            messages.append(peer.read_message())
            peer.answer(messages[-1], 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        first = store(association, tmp_path, data)
        second = store(association, tmp_path, data[::-1])
    assert [message.data for message in messages] == [data, data[::-1]]
    if max_pdu_bytes:
        assert all(size <= max_pdu_bytes for message in messages for size in message.pdv_sizes)
    assert [message.command.MessageID for message in messages] == [first.message_id, second.message_id]
    assert first.message_id != second.message_id


@pytest.mark.parametrize("max_pdu_bytes", [7, 8, 10, 64, 127])
def test_a_peer_that_takes_only_tiny_pdus_gets_tiny_pdus(tmp_path: Path, max_pdu_bytes: int) -> None:
    data = os.urandom(600)
    messages: list[Message] = []

    def script(peer: Conversation) -> None:
        peer.accept(max_pdu_bytes=max_pdu_bytes)
        messages.append(peer.read_message())
        peer.answer(messages[-1], 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert store(association, tmp_path, data).status == 0
    assert messages[0].data == data
    assert max(messages[0].pdv_sizes) <= max_pdu_bytes


def test_the_command_is_what_the_standard_asks_for(tmp_path: Path) -> None:
    messages: list[Message] = []

    def script(peer: Conversation) -> None:
        peer.accept()
        messages.append(peer.read_message())
        peer.answer(messages[-1], 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        store(association, tmp_path, move_originator_ae="ARCHIVE", move_originator_message_id=4711)
    command = messages[0].command
    assert messages[0].context_id == 1
    assert (command.CommandField, command.Priority) == (0x0001, 0)
    assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (CT, "1.2.3.4")
    assert (command.MoveOriginatorApplicationEntityTitle, command.MoveOriginatorMessageID) == ("ARCHIVE", 4711)
    assert command.CommandDataSetType != 0x0101
    assert [element.tag for element in command] == sorted(element.tag for element in command)


def test_a_store_of_our_own_names_no_move(tmp_path: Path) -> None:
    messages: list[Message] = []

    def script(peer: Conversation) -> None:
        peer.accept()
        messages.append(peer.read_message())
        peer.answer(messages[-1], 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        store(association, tmp_path)
    assert "MoveOriginatorApplicationEntityTitle" not in messages[0].command
    assert "MoveOriginatorMessageID" not in messages[0].command


def answer_without_uids(peer: Conversation, message: Message) -> None:
    peer.answer(message, 0xB000, AffectedSOPClassUID=None)


def answer_with_everything(peer: Conversation, message: Message) -> None:
    peer.answer(message, 0xB000, AffectedSOPInstanceUID="1.2.3.4", ErrorComment="odd", OffendingElement=[0x00100010, 0x00100020])


def answer_in_crumbs(peer: Conversation, message: Message) -> None:
    peer.answer(message, 0xB000, AffectedSOPInstanceUID="1.2.3.4", pdv_bytes=3)


def answer_with_a_data_set(peer: Conversation, message: Message) -> None:
    peer.answer(message, 0xB000, b"\x08\x00\x05\x00\x00\x00\x00\x00" * 50, pdv_bytes=100)


@pytest.mark.parametrize(
    "answer",
    [answer_without_uids, answer_with_everything, answer_in_crumbs, answer_with_a_data_set],
    ids=lambda value: value.__name__,
)
def test_a_response_may_be_short_of_or_rich_in_what_does_not_matter(
    tmp_path: Path, answer: Callable[[Conversation, Message], None]
) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        answer(peer, peer.read_message())
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert store(association, tmp_path).status == 0xB000
        assert store(association, tmp_path).status == 0x0000


@pytest.mark.parametrize(
    "fields", [{"MessageIDBeingRespondedTo": 60000}, {"CommandField": 0x8030}, {"CommandField": 0x0001}, {"Status": None}]
)
def test_an_answer_to_something_else_is_no_answer(tmp_path: Path, fields: dict[str, object]) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), **{"status": 0x0000, **fields})  # type: ignore[arg-type]
        assert peer.until_gone() == [7]

    with scripted_peer(script) as peer, request(peer.port) as association, pytest.raises(ProtocolError):
        store(association, tmp_path)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01",
        b"\x04\x00\xff\xff\xff\xff\x00\x00\x00\x02\x01\x03",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\xff\xff\x01\x03ab",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x00\x01\x03ab",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03ab",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x02\x03ab",
        b"\x09\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x00\x44" + bytes(68),
    ],
    ids=[
        "short PDV",
        "length bomb",
        "PDV beyond PDU",
        "PDV of nothing",
        "broken command",
        "unknown context",
        "unknown PDU",
        "request",
    ],
)
def test_nonsense_instead_of_a_response_ends_the_association(tmp_path: Path, nonsense: bytes) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.read_message()
        peer.send(nonsense)
        peer.until_gone()

    with scripted_peer(script) as peer, request(peer.port, hasty(response_s=0.5)) as association:
        with pytest.raises((ProtocolError, PeerTimeout, AssociationAborted)):
            store(association, tmp_path)
        with pytest.raises(AssociationAborted):
            store(association, tmp_path)


@pytest.mark.parametrize("how", ["abort", "close", "reset", "release"])
@pytest.mark.parametrize("when", ["during", "after"])
def test_an_association_that_ends_under_a_store_leaves_it_unknown(tmp_path: Path, how: str, when: str) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        if when == "during":
            peer.read_exactly(50_000)
        else:
            peer.read_message()
        {"abort": peer.abort, "close": peer.connection.close, "reset": peer.reset, "release": peer.ask_release}[how]()
        if how in {"abort", "release"}:
            peer.until_gone()

    with scripted_peer(script) as peer, request(peer.port) as association:
        with pytest.raises((AssociationAborted, ProtocolError)) as caught:
            store(association, tmp_path, bytes(30_000_000))
        assert not isinstance(caught.value, AssociationEnded)
        assert caught.value.peer == str(association.remote)


@pytest.mark.parametrize("how", ["abort", "close", "reset", "release"])
def test_an_association_ended_while_idle_is_noticed_before_sending(tmp_path: Path, how: str) -> None:
    ended = threading.Event()

    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0x0000)
        {"abort": peer.abort, "close": peer.connection.close, "reset": peer.reset, "release": peer.ask_release}[how]()
        ended.set()
        if how in {"abort", "release"}:
            assert 4 not in peer.until_gone()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert store(association, tmp_path).status == 0
        assert ended.wait(PATIENCE_S)
        with pytest.raises(AssociationEnded) as caught:
            store(association, tmp_path)
        assert caught.value.retryable


def test_a_peer_that_stops_reading_is_given_up_in_time(tmp_path: Path) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.read_exactly(50_000)
        scripted.stop.wait(20)

    with scripted_peer(script) as scripted, request(scripted.port, hasty(send_s=0.5)) as association, pytest.raises(PeerTimeout):
        store(association, tmp_path, bytes(30_000_000))


def test_a_peer_that_reads_one_byte_now_and_then_is_given_up_too(tmp_path: Path) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        while not scripted.stop.wait(0.05):
            peer.read_exactly(100)

    with scripted_peer(script) as scripted, request(scripted.port, hasty(send_s=0.5)) as association, pytest.raises(PeerTimeout):
        store(association, tmp_path, bytes(30_000_000))


def test_a_peer_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.read_message()
        assert peer.until_gone() == [7]

    with scripted_peer(script) as peer, request(peer.port, hasty(response_s=0.5)) as association, pytest.raises(PeerTimeout):
        store(association, tmp_path)


def test_a_response_that_trickles_in_is_given_up_in_time(tmp_path: Path) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.read_message()
        peer.send(b"\x04\x00\x00\x00\x10\x00" + b"\x00\x00\x0f\xfc\x01\x03")
        while not scripted.stop.wait(0.05):
            peer.send(b"\x00")

    with (
        scripted_peer(script) as scripted,
        request(scripted.port, hasty(response_s=0.5)) as association,
        pytest.raises(PeerTimeout),
    ):
        store(association, tmp_path)


@pytest.mark.parametrize("when", ["while sending", "while waiting"])
def test_kill_from_another_thread_wakes_a_store_at_once(tmp_path: Path, when: str) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.read_exactly(50_000) if when == "while sending" else peer.read_message()
        scripted.reached.set()
        scripted.stop.wait(20)

    with scripted_peer(script) as scripted:
        association = request(scripted.port)
        killer = threading.Thread(target=lambda: scripted.reached.wait(PATIENCE_S) and association.kill())
        killer.start()
        with pytest.raises(AssociationAborted):
            store(association, tmp_path, bytes(30_000_000))
        killer.join()
        with pytest.raises(AssociationAborted):
            store(association, tmp_path)
        association.release()
        association.kill()


def test_a_source_that_is_shorter_than_it_says_ends_the_association(tmp_path: Path) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        assert peer.until_gone()[-1] == 7

    with scripted_peer(script) as peer, request(peer.port) as association:
        with source_of(bytes(1000), tmp_path) as source:
            source.length = 100_000
            with pytest.raises(OSError, match="shorter"):
                association.store(association.accepted[0], "1.2.3.4", source)
        with pytest.raises(AssociationEnded):
            store(association, tmp_path)


def test_an_error_in_the_block_aborts_and_a_clean_end_releases() -> None:
    kinds: list[list[int]] = []

    def aborted(peer: Conversation) -> None:
        peer.accept()
        kinds.append(peer.until_gone())

    def released(peer: Conversation) -> None:
        peer.accept()
        peer.release()
        kinds.append(peer.until_gone())

    with scripted_peer(aborted, released) as peer:
        with pytest.raises(RuntimeError), request(peer.port):
            raise RuntimeError
        with request(peer.port):
            pass
    assert kinds == [[7], []]


def test_a_peer_that_does_not_answer_the_release_is_aborted_in_time() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        assert peer.until_gone() == [5, 7]

    with scripted_peer(script) as peer:
        request(peer.port, hasty(release_s=0.5)).release()


def test_both_sides_may_ask_for_release_at_once() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        assert peer.read_pdu()[0] == 5
        peer.ask_release()
        assert peer.read_pdu()[0] == 6
        peer.send(b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        assert peer.until_gone() == []

    with scripted_peer(script) as peer:
        request(peer.port).release()


def test_a_context_for_the_instance_is_found_by_class_and_syntax() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.release()

    with scripted_peer(script) as peer, request(peer.port) as association:
        assert association.context_for(CT, EXPLICIT) == AcceptedContext(1, CT, EXPLICIT)
