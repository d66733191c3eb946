"""Messages over a real connection: what is sent arrives, in PDUs of any size, and nothing is kept that was not asked for."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.association.dimse.command import HAS_DATA_SET, NO_DATA_SET, CommandSet, Operation
from gateway.association.dimse.message import MAX_FRAGMENTS, Receiver, ReleaseRequested
from gateway.association.dimse.sender import Sender
from gateway.association.upper.pdu import PduType, encode_abort, encode_release_request, encode_release_response
from gateway.association.upper.state import State
from gateway.association.upper.stream import Stream
from gateway.core.errors import AssociationAborted, PeerTimeout, ProtocolError
from tests.association.conftest import Pair
from tests.support.raw import P_DATA, command_set, pdu, pdv
from tests.support.waiting import PATIENCE_S, in_time

ECHO: CommandSet = {"CommandField": Operation.C_ECHO, "MessageID": 7, "CommandDataSetType": NO_DATA_SET}
STORE: CommandSet = {
    "AffectedSOPClassUID": "1.2.3",
    "CommandField": Operation.C_STORE,
    "MessageID": 9,
    "CommandDataSetType": HAS_DATA_SET,
    "AffectedSOPInstanceUID": "1.2.3.4",
}
STORE_COMMAND = command_set(affected_sop_class="1.2.3", command_field=1, message_id=9, data_set_type=1)


@dataclass
class Span:
    """A part of an open file, as a sender reads it."""

    fd: int
    offset: int
    length: int

    def fileno(self) -> int:
        return self.fd


def receiver(stream: Stream, *, max_pdu_bytes: int = 131072, pdu_s: float = PATIENCE_S, buffer_bytes: int = 1 << 20) -> Receiver:
    return Receiver(stream, state=State.ESTABLISHED, max_pdu_bytes=max_pdu_bytes, pdu_s=pdu_s, buffer_bytes=buffer_bytes)


class Collected:
    """A sink that keeps copies, and how it was called."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.calls: list[int] = []

    def __call__(self, fragments: Sequence[memoryview]) -> None:
        self.calls.append(len(fragments))
        for fragment in fragments:
            assert len(fragment)
            self.data += fragment


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("max_pdu", "length"),
    [(max_pdu, length) for max_pdu in (0, 8, 16, 128, 1000, 16384, 131072, 1 << 24) for length in (0, 2, 1000)]
    + [(max_pdu, 300_000) for max_pdu in (0, 1000, 16384, 131072, 1 << 24)],
)
def test_a_data_set_arrives_whole_whatever_pdus_the_peer_takes(
    connected: Callable[..., Pair], tmp_path: Path, max_pdu: int, length: int
) -> None:
    content = random.Random(length).randbytes(length)
    (tmp_path / "file").write_bytes(b"head" + content + b"tail")
    stream, client = connected()
    with (tmp_path / "file").open("rb") as file, Stream(client, peer="THEM") as there:
        span = Span(file.fileno(), 4, length)
        thread = in_background(lambda: Sender(there, max_pdu_bytes=max_pdu).send_message(3, STORE, span))
        ours = receiver(stream)
        message, got = ours.receive_message(PATIENCE_S), Collected()
        assert message is not None
        assert message.command == STORE
        assert (message.context_id, message.has_data_set) == (3, True)
        assert ours.receive_data_set(message, got) == length
        thread.join(PATIENCE_S)
    assert got.data == content
    assert all(count <= MAX_FRAGMENTS for count in got.calls)


@pytest.mark.parametrize("max_pdu", [0, 64, 16384])
def test_a_sent_pdu_is_never_longer_than_the_peer_takes(connected: Callable[..., Pair], max_pdu: int) -> None:
    stream, client = connected()
    Sender(stream, max_pdu_bytes=max_pdu).send_message(1, STORE, bytes(40_000))
    stream.close()
    sent = b"".join(iter(lambda: client.recv(1 << 16), b""))
    lengths, at = [], 0
    while at < len(sent):
        kind, length = struct.unpack_from(">BxI", sent, at)
        assert kind == P_DATA
        lengths.append(length)
        at += 6 + length
    assert max(lengths) <= (max_pdu or 131072)


def test_a_data_set_many_times_the_buffer_comes_in_order_and_large_pieces(connected: Callable[..., Pair]) -> None:
    content = random.Random(1).randbytes(3_000_000)
    stream, client = connected()

    def send() -> None:
        client.sendall(pdu(P_DATA, pdv(1, STORE_COMMAND, command=True, last=True)))
        for start in range(0, len(content), 16378):
            part = content[start : start + 16378]
            client.sendall(pdu(P_DATA, pdv(1, part, command=False, last=start + 16378 >= len(content))))

    thread = in_background(send)
    ours, got = receiver(stream, buffer_bytes=262_144), Collected()
    message = ours.receive_message(PATIENCE_S)
    assert message is not None
    assert ours.receive_data_set(message, got) == len(content)
    thread.join(PATIENCE_S)
    assert got.data == content
    assert len(got.calls) <= len(content) / (262_144 - 65_536) + 1


@pytest.mark.parametrize("seed", range(20))
def test_no_way_of_cutting_pdus_fragments_and_segments_changes_the_data(connected: Callable[..., Pair], seed: int) -> None:
    dice = random.Random(seed)
    content = dice.randbytes(200_000)
    fragments = []
    for part in _cut(dice, STORE_COMMAND, 200):
        fragments.append(pdv(5, part, command=True, last=False))
    fragments.append(pdv(5, b"", command=True, last=True))
    for part in _cut(dice, content, 9000):
        fragments.append(pdv(5, part, command=False, last=False))
    fragments.append(pdv(5, b"", command=False, last=True))
    wire = b""
    while fragments:
        count = dice.randint(1, 6)
        wire += pdu(P_DATA, b"".join(fragments[:count]))
        del fragments[:count]
    stream, client = connected()

    def send() -> None:
        for part in _cut(dice, wire, 30_000):
            client.sendall(part)

    thread = in_background(send)
    ours, got = receiver(stream, buffer_bytes=70_000), Collected()
    message = ours.receive_message(PATIENCE_S)
    assert message is not None
    assert ours.receive_data_set(message, got) == len(content)
    thread.join(PATIENCE_S)
    assert got.data == content


def _cut(dice: random.Random, data: bytes, most: int) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        size = dice.randint(1, most)
        parts.append(data[at : at + size])
        at += size
    return parts


def test_command_and_data_set_may_share_one_pdu(connected: Callable[..., Pair]) -> None:
    stream, client = connected()
    client.sendall(pdu(P_DATA, pdv(1, STORE_COMMAND, command=True, last=True) + pdv(1, b"data", command=False, last=True)))
    ours = receiver(stream)
    message = ours.receive_message(PATIENCE_S)
    assert message is not None
    assert ours.receive_bytes(message, 100) == b"data"


def test_messages_follow_each_other_in_one_segment(connected: Callable[..., Pair]) -> None:
    stream, client = connected()
    echo = pdu(P_DATA, pdv(1, command_set(command_field=0x30, message_id=1, data_set_type=0x0101), command=True, last=True))
    client.sendall(echo * 3 + encode_release_request())
    ours = receiver(stream)
    assert [getattr(ours.receive_message(PATIENCE_S), "context_id", None) for _ in range(4)] == [1, 1, 1, None]
    assert ours.state is State.RELEASING


BAD_PDUS = {
    "an unknown type": (b"\x99\0\0\0\0\x04abcd", 1),
    "A-ASSOCIATE-RQ on an association": (b"\x01\0\0\0\0\x44" + bytes(68), 2),
    "A-RELEASE-RP that nobody asked for": (encode_release_response(), 2),
    "P-DATA longer than we advertised": (b"\x04\0" + struct.pack(">I", 131073), 6),
    "P-DATA of 4 GiB": (b"\x04\0\xff\xff\xff\xff", 6),
    "A-ASSOCIATE of 600 MiB": (b"\x01\0" + struct.pack(">I", 600 << 20), 6),
    "A-RELEASE-RQ of 1 GiB": (b"\x05\0\x40\0\0\0", 6),
    "A-ABORT without content": (b"\x07\0\0\0\0\0", 6),
    "empty P-DATA": (pdu(P_DATA, b""), 6),
    "half a PDV header": (pdu(P_DATA, b"\0\0\0"), 6),
    "a PDV longer than its PDU": (pdu(P_DATA, struct.pack(">IBB", 100, 1, 3) + bytes(20)), 6),
    "a PDV of 4 GiB": (pdu(P_DATA, struct.pack(">IBB", 0xFFFFFFFF, 1, 3) + bytes(20)), 6),
    "a PDV without header": (pdu(P_DATA, struct.pack(">IBB", 1, 1, 3) + bytes(20)), 6),
    "an empty fragment that goes on": (pdu(P_DATA, pdv(1, b"", command=True, last=False)), 6),
    "data where a command is due": (pdu(P_DATA, pdv(1, b"data", command=False, last=True)), 6),
    "a command that is none": (pdu(P_DATA, pdv(1, b"\xff" * 40, command=True, last=True)), 6),
    "a command without end": (pdu(P_DATA, pdv(1, bytes(10_000), command=True, last=False)) * 2, 6),
}


@pytest.mark.parametrize("what", BAD_PDUS)
def test_a_protocol_violation_carries_the_reason_for_the_abort(connected: Callable[..., Pair], what: str) -> None:
    wire, reason = BAD_PDUS[what]
    stream, client = connected()
    client.sendall(wire)
    with pytest.raises(ProtocolError) as caught:
        receiver(stream).receive_message(PATIENCE_S)
    assert caught.value.reason == reason


def within_data_set(
    connected: Callable[..., Pair], wire: bytes, *, pdu_s: float = PATIENCE_S
) -> tuple[Receiver, Callable[[], int]]:
    stream, client = connected()
    client.sendall(pdu(P_DATA, pdv(1, STORE_COMMAND, command=True, last=True) + pdv(1, b"some", command=False, last=False)) + wire)
    ours = receiver(stream, pdu_s=pdu_s)
    message = ours.receive_message(PATIENCE_S)
    assert message is not None
    return ours, lambda: ours.receive_data_set(message, Collected())


def test_release_in_the_middle_of_a_message_ends_it_and_can_be_answered(connected: Callable[..., Pair]) -> None:
    ours, receive = within_data_set(connected, encode_release_request())
    with pytest.raises(ReleaseRequested):
        receive()
    assert ours.state is State.RELEASING


def test_abort_in_the_middle_of_a_message_says_who_aborted(connected: Callable[..., Pair]) -> None:
    _, receive = within_data_set(connected, encode_abort(2, 6))
    with pytest.raises(AssociationAborted, match=r"service provider, reason 6"):
        receive()


def test_a_command_in_the_middle_of_a_data_set_is_refused(connected: Callable[..., Pair]) -> None:
    _, receive = within_data_set(connected, pdu(P_DATA, pdv(1, STORE_COMMAND, command=True, last=True)))
    with pytest.raises(ProtocolError):
        receive()


def test_another_context_in_the_middle_of_a_data_set_is_refused(connected: Callable[..., Pair]) -> None:
    _, receive = within_data_set(connected, pdu(P_DATA, pdv(3, b"more", command=False, last=True)))
    with pytest.raises(ProtocolError):
        receive()


# Those that are wrong in the headers, which are read in one piece where the bytes are at hand.
WITHIN = [what for what in BAD_PDUS if "command" not in what]


@pytest.mark.parametrize("more", [b"", pdu(P_DATA, pdv(1, b"more", command=False, last=True))], ids=["the last", "in the middle"])
@pytest.mark.parametrize("what", WITHIN)
def test_a_violation_within_a_data_set_has_the_same_reason(connected: Callable[..., Pair], what: str, more: bytes) -> None:
    wire, reason = BAD_PDUS[what]
    fine = pdu(P_DATA, pdv(1, b"some", command=False, last=False))
    _, receive = within_data_set(connected, fine + wire + more)
    with pytest.raises(ProtocolError) as caught:
        receive()
    assert caught.value.reason == reason


def test_a_data_set_that_stops_coming_times_out(connected: Callable[..., Pair]) -> None:
    _, receive = within_data_set(connected, b"\x04\0", pdu_s=0.2)
    with pytest.raises(PeerTimeout):
        receive()


def test_bytes_that_trickle_do_not_lengthen_the_time_for_a_pdu(connected: Callable[..., Pair]) -> None:
    stream, client = connected()
    over = threading.Event()

    def trickle() -> None:
        for byte in pdu(P_DATA, bytes(1000)):
            if over.wait(0.05):
                return
            client.sendall(bytes([byte]))

    thread = in_background(trickle)
    with pytest.raises(PeerTimeout):
        receiver(stream, pdu_s=0.4).receive_message(PATIENCE_S)
    over.set()
    thread.join(PATIENCE_S)


def test_a_small_data_set_has_a_limit(connected: Callable[..., Pair]) -> None:
    stream, client = connected()
    client.sendall(pdu(P_DATA, pdv(1, STORE_COMMAND, command=True, last=True) + pdv(1, bytes(101), command=False, last=True)))
    ours = receiver(stream)
    message = ours.receive_message(PATIENCE_S)
    assert message is not None
    with pytest.raises(ProtocolError):
        ours.receive_bytes(message, 100)


def test_waiting_in_vain_loses_nothing(connected: Callable[..., Pair]) -> None:
    stream, client = connected()
    ours = receiver(stream)
    assert not ours.wait(0.05)
    client.sendall(encode_release_request())
    assert ours.wait(PATIENCE_S)
    assert ours.receive_message(PATIENCE_S) is None


def test_a_release_is_awaited_over_data_that_still_comes(connected: Callable[..., Pair]) -> None:
    stream, client = connected()
    client.sendall(pdu(P_DATA, pdv(1, bytes(5000), command=False, last=False)) * 2 + encode_release_response())
    ours = receiver(stream)
    ours.state = State.AWAITING_RELEASE
    assert ours.receive_pdu(in_time())[0] is PduType.RELEASE_RP
    assert ours.state is State.CLOSED


def test_a_source_that_shrank_is_an_error_and_not_a_short_instance(connected: Callable[..., Pair], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    stream, client = connected()
    in_background(lambda: _drain(client))
    with (tmp_path / "file").open("rb") as file, pytest.raises(OSError, match="shorter"):
        Sender(stream, max_pdu_bytes=16384).send_message(1, STORE, Span(file.fileno(), 0, 500_000))


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(65536):
            continue
    except OSError:
        return


def test_descriptors_stay_where_they_are(connected: Callable[..., Pair], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    stream, client = connected()
    thread = in_background(lambda: _drain(client))
    with (tmp_path / "file").open("rb") as file:
        os.lseek(file.fileno(), 17, os.SEEK_SET)
        Sender(stream, max_pdu_bytes=0).send_message(1, STORE, Span(file.fileno(), 0, 5000))
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 17
    stream.close()
    thread.join(PATIENCE_S)
