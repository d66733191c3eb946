"""DICOM by hand, for peers that do what no library lets them: PS3.8 PDUs and PS3.7 command sets, nothing hidden.

`RawRequestor` is an SCU that may stop, stream or abort at any byte; `tests.support.scripted_scp` has an SCP whose every answer
a test decides. Independent of the gateway's own code, so that one mistake is not made on both sides.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.ports import HOST

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030


class Ended(Exception):
    """The peer closed the connection or aborted."""


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def pdv(context_id: int, fragment: bytes, *, command: bool, last: bool) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context_id, command | last << 1) + fragment


def user_information(max_pdu: int) -> bytes:
    return item(
        0x50, item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.826.0.1.3680043.10.1338.9") + item(0x55, b"GATEWAYTEST")
    )


def associate_rq(calling: str, called: str, contexts: Sequence[tuple[int, str, Sequence[str]]], *, max_pdu: int = 131072) -> bytes:
    """Build an A-ASSOCIATE-RQ; each context is (id, abstract syntax, transfer syntaxes)."""
    body = struct.pack(">Hxx16s16s32x", 1, called.encode().ljust(16), calling.encode().ljust(16))
    body += item(0x10, APPLICATION_CONTEXT.encode())
    for context_id, abstract, syntaxes in contexts:
        proposed = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, bytes([context_id, 0, 0, 0]) + proposed)
    return pdu(ASSOCIATE_RQ, body + user_information(max_pdu))


def command_set(**elements: int | str) -> bytes:
    """Build a command set (group 0000, Implicit VR Little Endian) from element keywords of this module's table."""
    body = b""
    for keyword, value in sorted(elements.items(), key=lambda entry: _ELEMENTS[entry[0]]):
        raw = value.encode() if isinstance(value, str) else struct.pack("<H", value)
        body += struct.pack("<HHI", 0, _ELEMENTS[keyword], len(raw) + len(raw) % 2) + raw + b"\0" * (len(raw) % 2)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


_ELEMENTS = {
    "affected_sop_class": 0x0002,
    "command_field": 0x0100,
    "message_id": 0x0110,
    "responded_message_id": 0x0120,
    "priority": 0x0700,
    "data_set_type": 0x0800,
    "status": 0x0900,
    "error_comment": 0x0902,
    "affected_sop_instance": 0x1000,
    "move_originator_ae": 0x1030,
    "move_originator_message_id": 0x1031,
}


def parse_command(body: bytes) -> dict[int, bytes]:
    """Return element number to raw value of a command set."""
    elements, at = {}, 0
    while at < len(body):
        _, number, length = struct.unpack_from("<HHI", body, at)
        elements[number] = body[at + 8 : at + 8 + length]
        at += 8 + length
    return elements


def number(elements: dict[int, bytes], keyword: str) -> int:
    return int.from_bytes(elements.get(_ELEMENTS[keyword], b"\0\0"), "little")


def words(elements: dict[int, bytes], keyword: str) -> str:
    return elements.get(_ELEMENTS[keyword], b"").decode().rstrip("\0 ")


@dataclass
class Connection:
    """A socket that speaks PDUs; every wait ends at the socket's timeout."""

    sock: socket.socket

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
            raise Ended(str(error)) from error

    def _exactly(self, count: int) -> bytes:
        parts, left = [], count
        while left:
            try:
                part = self.sock.recv(min(left, 1 << 20))
            except ConnectionResetError as error:
                raise Ended("reset") from error
            if not part:
                raise Ended("closed")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def receive(self) -> tuple[int, bytes]:
        """Return the next PDU's type and body."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def messages(self) -> Iterator[tuple[int, bytes, bool, bool]]:
        """Yield (context id, fragment, is command, is last) until the peer sends something other than P-DATA, raised as `Ended`."""
        while True:
            kind, body = self.receive()
            if kind != P_DATA:
                raise Ended({RELEASE_RQ: "release", ABORT: "abort"}.get(kind, f"PDU {kind:02X}"))
            at = 0
            while at < len(body):
                length, context_id, header = struct.unpack_from(">IBB", body, at)
                yield context_id, body[at + 6 : at + 4 + length], bool(header & 1), bool(header & 2)
                at += 4 + length

    def close(self) -> None:
        self.sock.close()


def _accepted(body: bytes) -> dict[int, str]:
    accepted, at = {}, 68
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        if kind == 0x21 and body[at + 6] == 0:
            (size,) = struct.unpack_from(">H", body, at + 10)
            accepted[body[at + 4]] = body[at + 12 : at + 12 + size].decode().rstrip("\0")
        at += 4 + length
    return accepted


def _maximum(body: bytes) -> int:
    at = body.find(b"\x51\x00\x00\x04")
    return struct.unpack_from(">I", body, at + 4)[0] if at >= 0 else 0


class RawRequestor(Connection):
    """An SCU: `associate` in the constructor, then `store`, or the parts of it one by one."""

    def __init__(
        self,
        port: int,
        *,
        called: str = "GATEWAY",
        calling: str = "RAW",
        contexts: Sequence[tuple[int, str, Sequence[str]]] = ((1, CT, (EXPLICIT_LE,)),),
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        sock = socket.create_connection((HOST, port), timeout_s)
        super().__init__(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self.sock = tls.wrap_socket(sock, server_hostname="localhost")
            self.send(associate_rq(calling, called, contexts))
            self.reply = self.receive()
        except BaseException:
            self.close()
            raise
        kind, body = self.reply
        self.accepted = _accepted(body) if kind == ASSOCIATE_AC else {}
        self.max_pdu = (_maximum(body) if kind == ASSOCIATE_AC else 0) or 131072

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.release()
        finally:
            self.close()

    def request(self, uid: str, *, sop_class: str = CT, message_id: int = 1, context_id: int = 1, **more: int | str) -> bytes:
        """Return the P-DATA PDU of a C-STORE-RQ's command set."""
        elements = command_set(
            affected_sop_class=sop_class,
            command_field=C_STORE_RQ,
            message_id=message_id,
            priority=0,
            data_set_type=1,
            affected_sop_instance=uid,
            **more,
        )
        return pdu(P_DATA, pdv(context_id, elements, command=True, last=True))

    def fragments(self, chunks: Iterable[bytes], *, context_id: int = 1) -> Iterator[bytes]:
        """Yield the P-DATA PDUs of a data set that comes in `chunks`, the last one marked so."""
        size = self.max_pdu - 6
        waiting: bytes | None = None
        for chunk in chunks:
            for start in range(0, len(chunk), size):
                if waiting is not None:
                    yield pdu(P_DATA, pdv(context_id, waiting, command=False, last=False))
                waiting = chunk[start : start + size]
        yield pdu(P_DATA, pdv(context_id, waiting or b"", command=False, last=True))

    def response(self) -> int:
        """Wait for a response and return its status."""
        command = b""
        for _, fragment, _, last in self.messages():
            command += fragment
            if last:
                return number(parse_command(command), "status")
        raise Ended("no response")

    def store(self, uid: str, data_set: bytes | Iterable[bytes], **more: int | str) -> int:
        """Send one instance and return the status of its C-STORE-RSP."""
        self.send(self.request(uid, **more))
        chunks = [data_set] if isinstance(data_set, bytes) else data_set
        for part in self.fragments(chunks, context_id=int(more.get("context_id", 1))):
            self.send(part)
        return self.response()

    def release(self) -> None:
        """A-RELEASE, waiting for the answer."""
        self.send(pdu(RELEASE_RQ, bytes(4)))
        try:
            while self.receive()[0] != RELEASE_RP:
                continue
        except Ended:
            return

    def abort(self) -> None:
        """A-ABORT by the service user, and close."""
        self.send(pdu(ABORT, bytes(4)))
        self.close()


def data_set_of(part10: bytes) -> bytes:
    """Return the data set bytes of a Part 10 file: what follows its File Meta Information (PS3.10 §7.1)."""
    assert part10[128:132] == b"DICM"
    assert part10[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    (length,) = struct.unpack_from("<I", part10, 140)
    return part10[144 + length :]
