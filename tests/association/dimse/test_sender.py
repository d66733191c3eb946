"""Messages leave as PDUs that the peer takes, bytes unchanged, in few sends."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest
import xxhash

from gateway.association.dimse.command import HAS_DATA_SET, NO_DATA_SET, CommandSet, decode_command
from gateway.association.dimse.sender import MAX_PDU_BYTES, Sender, fragment_bytes
from gateway.core.errors import ProtocolError, SourceDamaged
from tests.support.sources import source_of
from tests.support.waiting import PATIENCE_S


def sent(max_pdu_bytes: int, *messages: tuple[CommandSet, object]) -> bytes:
    """All bytes that come out of a `Sender` for `messages`."""
    near, far = socket.socketpair()
    received = bytearray()

    def read() -> None:
        while part := far.recv(1 << 20):
            received.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    with near, far:
        sender = Sender(Unhurried(near), max_pdu_bytes=max_pdu_bytes)  # type: ignore[arg-type]
        for command, data_set in messages:
            sender.send_message(5, command, data_set)  # type: ignore[arg-type]
        near.shutdown(socket.SHUT_WR)
        thread.join(PATIENCE_S)
    return bytes(received)


class Unhurried:
    """The sending half of a `Stream`, on a socket that is not TCP."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: memoryview | bytes) -> None:
        self.connection.sendall(data)


def pdvs(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(PDU length, context ID, control, fragment) of each PDU in `data`, one PDV a PDU."""
    found, at = [], 0
    while at < len(data):
        kind, length, size, context_id, control = struct.unpack_from(">BxIIBB", data, at)
        assert (kind, size) == (4, length - 4)
        found.append((length, context_id, control, data[at + 12 : at + 6 + length]))
        at += 6 + length
    return found


@pytest.mark.parametrize("max_pdu_bytes", [8, 100, 16384, 131072, 0, 1 << 30])
@pytest.mark.parametrize("length", [0, 1, 2, 94, 95, 262_000, 262_144, 1_000_003])
def test_a_file_arrives_whole_in_pdus_of_the_peer_s_length(tmp_path: Path, max_pdu_bytes: int, length: int) -> None:
    if max_pdu_bytes == 8:
        length = min(length, 9000)
    data = os.urandom(length)
    command: CommandSet = {"CommandField": 1, "MessageID": 7, "CommandDataSetType": HAS_DATA_SET}
    with source_of(data, tmp_path, offset=77) as source:
        parts = pdvs(sent(max_pdu_bytes, (command, source), (command, data)))
    limit = min(max_pdu_bytes or MAX_PDU_BYTES, MAX_PDU_BYTES)
    assert all(pdu <= limit and context_id == 5 for pdu, context_id, _, _ in parts)
    ends = [number for number, part in enumerate(parts) if part[2] & 2]
    assert len(ends) == 4
    bodies, start = [], 0
    for end in ends:
        message = parts[start : end + 1]
        assert len({control & 1 for _, _, control, _ in message}) == 1
        assert all(len(fragment) % 2 == 0 for _, _, _, fragment in message[:-1])
        bodies.append(b"".join(fragment for _, _, _, fragment in message))
        start = end + 1
    assert decode_command(bodies[0]) == decode_command(bodies[2]) == command
    assert bodies[1] == data + bytes(length % 2), "a data set of odd length is padded (PS3.5 §A.5)"
    assert bodies[3] == data


def test_a_command_alone_is_one_fragment() -> None:
    command: CommandSet = {"CommandField": 0x30, "MessageID": 1, "CommandDataSetType": NO_DATA_SET}
    ((_, _, control, fragment),) = pdvs(sent(0, (command, None)))
    assert control == 3
    assert decode_command(fragment) == command


def test_fragments_are_even_where_that_is_possible() -> None:
    assert [fragment_bytes(length) for length in (0, 7, 8, 9, 16384, 16385, 1 << 30)] == [131066, 1, 2, 2, 16378, 16378, 131066]


@pytest.mark.parametrize("max_pdu_bytes", [1, 6])
def test_a_peer_that_can_take_nothing_is_refused(max_pdu_bytes: int) -> None:
    with pytest.raises(ProtocolError, match="nothing can be sent"):
        fragment_bytes(max_pdu_bytes)


def test_a_small_instance_takes_one_send_and_a_large_one_few(tmp_path: Path) -> None:
    command: CommandSet = {"CommandField": 1, "MessageID": 7, "CommandDataSetType": HAS_DATA_SET}
    counter = Counting()
    with source_of(bytes(20_000), tmp_path) as small, source_of(bytes(4_000_000), tmp_path) as large:
        sender = Sender(counter, max_pdu_bytes=16384)  # type: ignore[arg-type]
        sender.send_message(1, command, small)
        assert counter.sends == 1
        sender.send_message(1, command, large)
        assert counter.sends <= 20


class Counting:
    """Counts how often something is sent."""

    sends = 0

    def send(self, data: object) -> None:
        self.sends += 1


def test_a_source_that_ends_early_is_an_error(tmp_path: Path) -> None:
    command: CommandSet = {"CommandField": 1, "MessageID": 7, "CommandDataSetType": HAS_DATA_SET}
    with source_of(b"abc", tmp_path) as source:
        source.length = 1_000_000
        with pytest.raises(OSError, match="shorter"):
            Sender(Counting(), max_pdu_bytes=0).send_message(1, command, source)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 2, 95, 262_144, 1_000_003])
def test_a_source_that_has_another_digest_is_never_sent_whole(tmp_path: Path, length: int) -> None:
    command: CommandSet = {"CommandField": 1, "MessageID": 7, "CommandDataSetType": HAS_DATA_SET}
    wire = Recording()
    sender = Sender(wire, max_pdu_bytes=16384)  # type: ignore[arg-type]
    data = os.urandom(length)
    with source_of(data, tmp_path, offset=77) as source, pytest.raises(SourceDamaged):
        sender.send_message(5, command, source, digest=xxhash.xxh3_128(data + b"x").hexdigest())
    assert [control for _, _, control, _ in pdvs(wire.data) if not control & 1 and control & 2] == []
    with source_of(data, tmp_path, offset=77) as source:
        sender.send_message(5, command, source, digest=xxhash.xxh3_128(data).hexdigest())


class Recording:
    """Keeps what is sent."""

    data = b""

    def send(self, data: memoryview | bytes) -> None:
        self.data += bytes(data)
