"""A peer that says exactly what a test tells it to, on a real socket; its codec is pynetdicom's and pydicom's, never ours."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP, A_RELEASE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext

DEADLINE_S = 20.0
NO_DATA_SET = 0x0101


class PeerGone(Exception):
    """The other side closed the connection."""


@dataclass
class Message:
    """One DIMSE message as the peer got it."""

    context_id: int
    command: Dataset
    data: bytes | None = None
    pdv_sizes: list[int] = field(default_factory=list)


def encode(dataset: Dataset, *, implicit: bool = True) -> bytes:
    """Return `dataset` in little endian, without anything else."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def decode(data: bytes, *, implicit: bool = True) -> Dataset:
    return read_dataset(BytesIO(data), is_implicit_VR=implicit, is_little_endian=True)


class Conversation:
    """One connection from our requestor, seen from the peer's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.connection.settimeout(DEADLINE_S)
        self.request: A_ASSOCIATE | None = None

    def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = self.connection.recv(min(count - len(data), 1 << 20))
            except ConnectionError as error:
                raise PeerGone from error
            if not part:
                raise PeerGone
            data += part
        return bytes(data)

    def read_pdu(self) -> tuple[int, bytes]:
        """Return the type and the whole of the next PDU, its header included."""
        header = self.read_exactly(6)
        kind, length = struct.unpack(">BxL", header)
        return kind, header + self.read_exactly(length)

    def read_request(self) -> A_ASSOCIATE:
        kind, pdu = self.read_pdu()
        assert kind == 0x01
        decoded = A_ASSOCIATE_RQ()
        decoded.decode(pdu)
        self.request = decoded.to_primitive()
        return self.request

    def accept(
        self,
        *,
        max_pdu_bytes: int = 16384,
        refuse: Callable[[PresentationContext], bool] = lambda context: False,
        choose: Callable[[PresentationContext], str] = lambda context: context.transfer_syntax[0],
    ) -> A_ASSOCIATE:
        """Read the A-ASSOCIATE-RQ and answer A-ASSOCIATE-AC."""
        request = self.request or self.read_request()
        answer = A_ASSOCIATE()
        answer.application_context_name = request.application_context_name
        answer.calling_ae_title, answer.called_ae_title = request.calling_ae_title, request.called_ae_title
        answer.result = 0
        results = []
        for proposed in request.presentation_context_definition_list:
            result = PresentationContext()
            result.context_id = proposed.context_id
            result.transfer_syntax = [choose(proposed)]
            result.result = 3 if refuse(proposed) else 0
            results.append(result)
        answer.presentation_context_definition_results_list = results
        longest = MaximumLengthNotification()
        longest.maximum_length_received = max_pdu_bytes
        answer.user_information = [longest]
        self.send(A_ASSOCIATE_AC(answer).encode())
        return request

    def reject(self, result: int, source: int, reason: int) -> None:
        self.read_request()
        answer = A_ASSOCIATE()
        answer.result, answer.result_source, answer.diagnostic = result, source, reason
        pdu = A_ASSOCIATE_RJ(answer)
        self.send(pdu.encode())

    def read_message(self, *, until_gone: bool = False) -> Message:
        """Return the next DIMSE message, command and data set put together from their PDVs."""
        parts: dict[bool, bytearray] = {True: bytearray(), False: bytearray()}
        command: Dataset | None = None
        sizes: list[int] = []
        while True:
            kind, pdu = self.read_pdu()
            assert kind == 0x04, f"PDU type {kind:02X} instead of P-DATA-TF"
            sizes.append(len(pdu) - 6)
            at = 6
            while at < len(pdu):
                length, context_id, control = struct.unpack_from(">LBB", pdu, at)
                is_command, is_last = bool(control & 1), bool(control & 2)
                parts[is_command] += pdu[at + 6 : at + 4 + length]
                at += 4 + length
                if is_command and is_last:
                    command = decode(bytes(parts[True]))
                    if command.CommandDataSetType == NO_DATA_SET:
                        return Message(context_id, command, None, sizes)
                elif is_last:
                    assert command is not None
                    return Message(context_id, command, bytes(parts[False]), sizes)

    def send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except ConnectionError as error:
            raise PeerGone from error

    def send_message(self, context_id: int, command: Dataset, data: bytes | None = None, *, pdv_bytes: int = 1 << 20) -> None:
        """Send a DIMSE message in PDVs of at most `pdv_bytes`, one a PDU; the group length is made here."""
        command.CommandDataSetType = NO_DATA_SET if data is None else 0x0001
        body = encode(command)
        body = encode_group_length(len(body)) + body
        self.send_fragments(context_id, body, 1, pdv_bytes)
        if data is not None:
            self.send_fragments(context_id, data, 0, pdv_bytes)

    def send_fragments(self, context_id: int, data: bytes, is_command: int, pdv_bytes: int) -> None:
        pieces = [data[at : at + pdv_bytes] for at in range(0, len(data), pdv_bytes)] or [b""]
        for position, piece in enumerate(pieces):
            last = 2 if position == len(pieces) - 1 else 0
            pdv = struct.pack(">LBB", len(piece) + 2, context_id, is_command | last) + piece
            self.send(struct.pack(">BxL", 4, len(pdv)) + pdv)

    def answer(
        self, message: Message, status: int, data: bytes | None = None, *, pdv_bytes: int = 1 << 20, **fields: object
    ) -> None:
        """Send the response to `message`; `fields` are command elements by keyword, to add or to replace, None to leave out."""
        command = Dataset()
        command.AffectedSOPClassUID = message.command.get("AffectedSOPClassUID") or message.command.get("RequestedSOPClassUID")
        command.CommandField = message.command.CommandField | 0x8000
        command.MessageIDBeingRespondedTo = message.command.MessageID
        command.Status = status
        for keyword, value in fields.items():
            if value is None:
                del command[keyword]
            else:
                setattr(command, keyword, value)
        self.send_message(message.context_id, command, data, pdv_bytes=pdv_bytes)

    def release(self) -> None:
        """Answer an A-RELEASE-RQ."""
        kind, _ = self.read_pdu()
        assert kind == 0x05
        self.send(A_RELEASE_RP().encode())

    def ask_release(self) -> None:
        self.send(A_RELEASE_RQ().encode())

    def abort(self, source: int = 0, reason: int = 0) -> None:
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = source, reason
        self.send(pdu.encode())

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def until_gone(self) -> list[int]:
        """Read until the other side closes; return the types of the PDUs that still came."""
        kinds = []
        try:
            while True:
                kinds.append(self.read_pdu()[0])
        except PeerGone:
            return kinds


def encode_group_length(length: int) -> bytes:
    return struct.pack("<HHLL", 0, 0, 4, length)


Script = Callable[[Conversation], None]


@dataclass
class ScriptedPeer:
    """Where the peer listens; `stop` may be awaited by a script that shall do nothing until the test is over."""

    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def scripted_peer(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedPeer]:
    """Serve one connection per script, in order, on a thread; a script that fails fails the test at the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        peer = ScriptedPeer(listener.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(listener, scripts, tls, peer))
        thread.start()
        try:
            yield peer
        finally:
            peer.stop.set()
            thread.join(DEADLINE_S * 2)
        if peer.errors:
            raise peer.errors[0]


def _serve(listener: socket.socket, scripts: tuple[Script, ...], tls: ssl.SSLContext | None, peer: ScriptedPeer) -> None:
    for script in scripts:
        try:
            plain, _ = listener.accept()
            with plain, tls.wrap_socket(plain, server_side=True) if tls else plain as connection:
                script(Conversation(connection))
        except PeerGone:
            continue
        except BaseException as error:  # noqa: BLE001 - reported on the test's own thread
            peer.errors.append(error)
